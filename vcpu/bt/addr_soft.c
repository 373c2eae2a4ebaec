/*
 * The soft TLB's check, inline: address, index, tag, addend.
 * Invariant: a hit stands for RAM that this access may use as it is; all else leads to C.
 */
#include "vcpu/bt/addr.h"

/* The operand [address + t2], recomputing the address in t1 where it does not fit beside t2. */
struct hmem addr_operand(struct tr *t, const struct ea *e, uint8_t t1, uint8_t t2)
{
	if (e->seg == R_NONE && e->addrsize == 8) {
		if (e->kind == EA_CONST && (int64_t)e->value == (int32_t)e->value)
			return hm_base(t2, (int32_t)e->value);
		if (e->kind == EA_PIC) {
			emit_load(&t->c, t1, hm_gs(VOFF(ip_page)));
			return hm_bi(t1, t2, 1, e->disp);
		}
		if (e->kind == EA_REG && e->base == R_NONE)
			return hm_bi(t2, e->index, e->scale, e->disp);
		if (e->kind == EA_REG && e->index == R_NONE)
			return hm_bi(e->base, t2, 1, e->disp);
	}
	tr_form_ea(t, e, t1, 0);
	return hm_bi(t1, t2, 1, 0);
}

size_t addr_tag_offset(const struct tr *t, unsigned acc)
{
	size_t tlb = VOFF(tlb) + mode_tlb(t->mode) * sizeof(struct soft_tlb);

	return tlb + (acc & ACC_W ? offsetof(struct soft_tlb, wtag) : offsetof(struct soft_tlb, rtag));
}

size_t addr_addend_offset(const struct tr *t, unsigned acc)
{
	size_t tlb = VOFF(tlb) + mode_tlb(t->mode) * sizeof(struct soft_tlb);

	return tlb + (acc & ACC_W ? offsetof(struct soft_tlb, wadd) : offsetof(struct soft_tlb, radd));
}

/* t2 = soft TLB index of the address in t1. */
void addr_tlb_index(struct tr *t, uint8_t t1, uint8_t t2)
{
	if (t->bt->have_bmi2) {
		emit_pext(&t->c, t2, t1, hm_gs(VOFF(pext_mask)));
		return;
	}
	emit_mov_rr(&t->c, t2, t1);
	emit_shift_imm(&t->c, 1, SH_SHR, t2, GUEST_PAGE_SHIFT);
	emit_alu_imm(&t->c, 0, ALU_AND, t2, TLB_SIZE - 1);
}

int32_t addr_align_mask(unsigned size)
{
	unsigned m = 0;

	while (m + 1 < size && m < 63)
		m = m * 2 + 1;
	return (int32_t)(~0xfffu | m);
}

/* Where in its page the operand of user code's rip-relative access lies is known, and so is that it lies in one. */
static bool place_known(const struct access *a)
{
	return a->ea->kind == EA_PIC && a->ea->seg == R_NONE && a->ea->addrsize == 8 &&
	       (a->ea->disp & 0xfff) + (int32_t)a->size <= (int32_t)GUEST_PAGE_MASK + 1;
}

static struct cold *soft_cold(struct tr *t, const struct access *a)
{
	struct cold *k = tr_cold(t, COLD_MEM);

	k->ea = *a->ea;
	k->t1 = a->t1;
	k->t2 = a->t2;
	k->size = (uint8_t)a->size;
	k->acc = (uint8_t)a->acc;
	return k;
}

/*
 *   mov  t1, gs:[ip_page];  lea t1, [t1 + page of disp]
 *   pext t2, t1, gs:[mask]
 *   cmp  t1, gs:[tag + t2*8]
 *   jne  cold
 *   mov  t2, gs:[addend + t2*8]    ; the operand is [t1 + t2 + disp within the page]
 */
static struct hmem known_emit(struct tr *t, const struct access *a)
{
	int32_t off = a->ea->disp & 0xfff, page = a->ea->disp - off;
	uint8_t t1 = a->t1, t2 = a->t2;
	struct cold *k;

	emit_load(&t->c, t1, hm_gs(VOFF(ip_page)));
	if (page)
		emit_lea(&t->c, 1, t1, hm_base(t1, page));
	addr_tlb_index(t, t1, t2);
	emit_rm_mem(&t->c, 1, 0x3b, t1, hm_gs_index(addr_tag_offset(t, a->acc), t2, 8));
	k = soft_cold(t, a);
	k->known = true;
	k->from = emit_jcc(&t->c, CC_NE);
	emit_load(&t->c, t2, hm_gs_index(addr_addend_offset(t, a->acc), t2, 8));
	k->hot2 = t->c.p;
	return hm_bi(t1, t2, 1, off);
}

/*
 *   lea  t1, [ea]
 *   pext t2, t1, gs:[mask]
 *   and  t1, ~0xfff | (size - 1)
 *   cmp  t1, gs:[tag + t2*8]
 *   jne  cold                      ; misses, and unaligned accesses for a second look
 *   mov  t2, gs:[addend + t2*8]
 */
struct hmem addr_soft_emit(struct tr *t, const struct access *a)
{
	uint8_t t1 = a->t1, t2 = a->t2;
	struct cold *k;

	if (place_known(a))
		return known_emit(t, a);
	tr_form_ea(t, a->ea, t1, 0);
	addr_tlb_index(t, t1, t2);
	emit_alu_imm(&t->c, 1, ALU_AND, t1, addr_align_mask(a->size));
	emit_rm_mem(&t->c, 1, 0x3b, t1, hm_gs_index(addr_tag_offset(t, a->acc), t2, 8));
	k = soft_cold(t, a);
	k->from = emit_jcc(&t->c, CC_NE);
	k->hot = t->c.p;
	emit_load(&t->c, t2, hm_gs_index(addr_addend_offset(t, a->acc), t2, 8));
	k->hot2 = t->c.p;
	return addr_operand(t, a->ea, t1, t2);
}

/*
 *   lea t1, [ea + size-1];  and t1, -4096;  cmp t1, gs:[tag + t2*8];  je hot      ; unaligned within the page
 *   lea t1, [ea];  mov gs:[mem_gva], t1;  mov gs:[site], n;  jmp glue
 *   resume: mov t2, gs:[mem_addend];  jmp hot2       ; t1 is the page again where known_emit() has it so
 * A page that matches at the index of the first byte is the first byte's page: a page's own index is the only
 * one it is ever filled at.
 */
void addr_soft_cold(struct tr *t, const struct cold *k)
{
	uint32_t s;
	uint8_t *rel;

	if (k->size > 1 && !(k->acc & SITE_ACC_RANGE) && !k->known) {
		if (k->ea.addrsize == 8) {
			tr_form_ea(t, &k->ea, k->t1, k->size - 1);
		} else { /* must not wrap: a page 4 GiB away has the same index */
			tr_form_ea(t, &k->ea, k->t1, 0);
			emit_lea(&t->c, 1, k->t1, hm_base(k->t1, k->size - 1));
		}
		emit_alu_imm(&t->c, 1, ALU_AND, k->t1, -4096);
		emit_rm_mem(&t->c, 1, 0x3b, k->t1, hm_gs_index(addr_tag_offset(t, k->acc), k->t2, 8));
		rel = emit_jcc(&t->c, CC_E);
		if (!t->c.overflow)
			emit_patch(rel, k->hot);
	}
	tr_form_ea(t, &k->ea, k->t1, 0);
	emit_store(&t->c, hm_gs(VOFF(mem_gva)), k->t1);
	s = tr_site(t, SITE_MEM);
	t->bt->sites[s].size = k->size;
	t->bt->sites[s].aux =
		k->store ? site_store(k->store & 31, k->store & STORES_VECTOR, (uint32_t)(k->after - t->bt->rw))
			 : k->range;
	t->bt->sites[s].upper = k->store >> 4 & 1;
	t->bt->sites[s].acc = (uint8_t)(k->acc | (k->ea.seg_check == SEG_SS ? SITE_ACC_SS : 0));
	t->bt->sites[s].align = t->in[t->i].align;
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(site)), (int32_t)s);
	emit_jmp_to(&t->c, t->bt->rw + (glue_mem - t->bt->rx));
	t->bt->sites[s].resume_off = (uint32_t)(t->c.p - t->bt->rw);
	emit_load(&t->c, k->t2, hm_gs(VOFF(mem_addend)));
	if (k->known && (k->ea.disp & 0xfff))
		emit_lea(&t->c, 1, k->t1, hm_base(k->t1, -(k->ea.disp & 0xfff)));
	emit_jmp_to(&t->c, k->hot2);
}
