/*
 * Segments that are not flat: real mode's and all of 16-bit code's, and those of 32-bit code that have a base or a limit.  Limit
 * and rights are one comparison with what vcpu_update_mode() left in vcpu.seg_top[]; what is no plain segment (null, expand-down,
 * not to be written) has 0 there.
 * Invariant: an offset that passes is one that access_segment_fault() would let pass.
 */
#include "vcpu/bt/addr.h"
#include "vcpu/mmu/mmu.h"

bool addr_segment_match(struct tr *t, const struct access *a)
{
	return t->mode & MODE_SEGS;
}

static struct hmem base_of(const struct ea *e)
{
	return hm_gs(VOFF(seg_base) + 8u * e->seg_check);
}

/* t1 = linear address: add t1d, gs:[seg_base]; it wraps at 4 GiB. */
static void form_linear(struct tr *t, const struct ea *e, uint8_t t1)
{
	tr_form_ea(t, e, t1, 0);
	emit_rm_mem(&t->c, 0, 0x03, t1, base_of(e));
}

/*
 *   lea  t1, [ea];  lea t2, [t1 + size];  cmp t2, gs:[seg_top];  ja cold
 *   add  t1d, gs:[seg_base]
 *   pext t2, t1, gs:[mask];  and t1, ~0xfff | (size - 1);  cmp t1, gs:[tag + t2*8];  jne cold
 *   mov  t2, gs:[addend + t2*8]
 *   lea  t1, [ea];  add t1d, gs:[seg_base]                    ; the operand is [t1 + t2]
 */
struct hmem addr_segment_emit(struct tr *t, const struct access *a)
{
	size_t top = VOFF(seg_top) + (a->acc & ACC_W ? SEG_COUNT * 8u : 0u) + 8u * a->ea->seg_check;
	struct cold *k = tr_cold(t, COLD_SEG);
	uint8_t t1 = a->t1, t2 = a->t2;

	tr_form_ea(t, a->ea, t1, 0);
	emit_lea(&t->c, 1, t2, hm_base(t1, (int32_t)a->size));
	emit_rm_mem(&t->c, 1, 0x3b, t2, hm_gs(top));
	k->beyond = emit_jcc(&t->c, CC_A);
	emit_rm_mem(&t->c, 0, 0x03, t1, base_of(a->ea));
	addr_tlb_index(t, t1, t2);
	emit_alu_imm(&t->c, 1, ALU_AND, t1, addr_align_mask(a->size));
	emit_rm_mem(&t->c, 1, 0x3b, t1, hm_gs_index(addr_tag_offset(t, a->acc), t2, 8));
	k->from = emit_jcc(&t->c, CC_NE);
	k->hot = t->c.p;
	emit_load(&t->c, t2, hm_gs_index(addr_addend_offset(t, a->acc), t2, 8));
	k->hot2 = t->c.p;
	form_linear(t, a->ea, t1);
	k->ea = *a->ea;
	k->t1 = t1;
	k->t2 = t2;
	k->size = (uint8_t)a->size;
	k->acc = (uint8_t)a->acc;
	return hm_bi(t1, t2, 1, 0);
}

/* Unaligned within the page:  <t1 = linear>;  lea t1, [t1 + size-1];  and t1, -4096;  cmp t1, gs:[tag + t2*8];  je hot */
static void look_again(struct tr *t, const struct cold *k)
{
	uint8_t *rel;

	form_linear(t, &k->ea, k->t1);
	emit_lea(&t->c, 1, k->t1, hm_base(k->t1, k->size - 1));
	emit_alu_imm(&t->c, 1, ALU_AND, k->t1, -4096);
	emit_rm_mem(&t->c, 1, 0x3b, k->t1, hm_gs_index(addr_tag_offset(t, k->acc), k->t2, 8));
	rel = emit_jcc(&t->c, CC_E);
	if (!t->c.overflow)
		emit_patch(rel, k->hot);
}

/*
 *   beyond: <t1 = offset>;  mov gs:[mem_gva], t1;  mov gs:[site], n;  jmp glue
 *   resume: mov t2, gs:[mem_addend];  jmp hot2
 */
void addr_segment_cold(struct tr *t, const struct cold *k)
{
	uint32_t s;

	if (k->size > 1)
		look_again(t, k);
	if (!t->c.overflow)
		emit_patch(k->beyond, t->c.p);
	tr_form_ea(t, &k->ea, k->t1, 0);
	emit_store(&t->c, hm_gs(VOFF(mem_gva)), k->t1);
	s = tr_site(t, SITE_MEM);
	t->bt->sites[s].size = k->size;
	t->bt->sites[s].acc = k->acc;
	t->bt->sites[s].seg = k->ea.seg_check;
	t->bt->sites[s].align = t->in[t->i].align;
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(site)), (int32_t)s);
	emit_jmp_to(&t->c, t->bt->rw + (glue_mem - t->bt->rx));
	t->bt->sites[s].resume_off = (uint32_t)(t->c.p - t->bt->rw);
	emit_load(&t->c, k->t2, hm_gs(VOFF(mem_addend)));
	emit_jmp_to(&t->c, k->hot2);
}
