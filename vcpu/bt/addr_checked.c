/*
 * Accesses that C looks at one by one: through segments that are not flat, with alignment checks or data breakpoints.
 * Invariant: code of a segment that may not be flat never accesses memory in another way.
 */
#include "vcpu/bt/addr.h"

bool addr_checked_match(struct tr *t, const struct access *a)
{
	const struct ea *e = a->ea;

	if (t->mode & MODE_SLOWMEM)
		return true;
	if (!t->long_mode && e->seg_check == SEG_CS && (a->acc & ACC_W))
		return true; /* #GP, however flat */
	if (t->long_mode)
		return false;
	return e->addrsize == 2 || e->seg_check == SEG_FS || e->seg_check == SEG_GS ||
	       (e->seg_check == SEG_CS && (a->acc & ACC_W)); /* code segments cannot be written */
}

/*
 * The checked path: everything is done in C, which answers with the host address.
 *   <ea offset> -> t2;  mov gs:[mem_gva], t2;  mov gs:[site], n;  jmp glue;  resume: mov t2, gs:[mem_addend]
 */
struct hmem addr_checked_emit(struct tr *t, const struct access *a)
{
	const struct ea *e = a->ea;
	uint8_t t2 = a->t2;
	uint32_t s;

	tr_form_ea(t, e, t2, 0);
	emit_store(&t->c, hm_gs(VOFF(mem_gva)), t2);
	s = tr_site(t, SITE_MEM);
	t->bt->sites[s].size = (uint8_t)a->size;
	t->bt->sites[s].acc = (uint8_t)a->acc;
	t->bt->sites[s].seg = e->seg != R_NONE ? R_NONE : e->seg_check; /* 64-bit fs, gs: base already added */
	t->bt->sites[s].align = t->in[t->i].align;
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(site)), (int32_t)s);
	emit_jmp_to(&t->c, t->bt->rw + (glue_mem_checked - t->bt->rx));
	t->bt->sites[s].resume_off = (uint32_t)(t->c.p - t->bt->rw);
	emit_load(&t->c, t2, hm_gs(VOFF(mem_addend)));
	return hm_base(t2, 0);
}
