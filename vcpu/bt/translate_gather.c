/*
 * Gathers in place, as long as all elements are chosen and each lies in a
 * page of RAM that is in the soft TLB; the others go to gather.c.
 * Invariant: until the last check has passed the guest's registers are in
 * vcpu.gather too, so that a gather that stops half way has not begun.
 */
#include <string.h>

#include "vcpu/bt/addr.h"
#include "vcpu/bt/gather.h"
#include "vcpu/mmu/mmu.h"

#define BIT(r)     ((uint16_t)(1u << (r)))
#define VMOVDQU_LD VEX(1, PP_F3, MAP_0F, 0, 0x6f)
#define VMOVDQU_ST VEX(1, PP_F3, MAP_0F, 0, 0x7f)

bool tr_gather_inlinable(const struct tr *t, const struct insn *in)
{
	struct gather g;

	if (in->cls != CLS_GATHER || in->addrsize == 2 || (t->mode & (MODE_SLOWMEM | MODE_TRANSIENT)))
		return false;
	if (!t->long_mode && (in->mem.seg == SEG_FS || in->mem.seg == SEG_GS))
		return false; /* they have limits */
	g = gather_decode(in);
	if (g.k)
		return !g.scatter && g.dst != g.index;
	return g.dst != g.index && g.dst != g.mask && g.index != g.mask;
}

/* Jumps here are chained through their displacements: each holds the distance from the one before, the first 0. */
static void jump_cold(struct tr *t, struct cold *k, uint8_t cc)
{
	uint8_t *rel = emit_jcc(&t->c, cc);
	int32_t d = k->hot ? (int32_t)(rel - k->hot) : 0;

	if (t->c.overflow)
		return;
	memcpy(rel, &d, 4);
	k->hot = rel;
}

static void patch_chain(uint8_t *rel, const uint8_t *target)
{
	int32_t d;

	do {
		memcpy(&d, rel, 4);
		emit_patch(rel, target);
		rel -= d;
	} while (d);
}

/* The whole of register @reg: VEX would clear what AVX-512 adds to it. */
static void move_whole(struct tr *t, bool store, uint8_t reg, size_t off)
{
	if (t->v->xcr0_mask & XCR0_AVX512_ONLY)
		emit_evex_mem(&t->c, 64, store ? EVEX_STORE : EVEX_LOAD, reg, hm_gs(off));
	else
		emit_vex_mem(&t->c, store ? VMOVDQU_ST : VMOVDQU_LD, reg, R_NONE, hm_gs(off));
}

static void save_registers(struct tr *t, const struct gather *g)
{
	emit_vex_mem(&t->c, VMOVDQU_ST, g->index, R_NONE, hm_gs(VOFF(gather.index)));
	move_whole(t, true, g->mask, VOFF(gather.mask));
	move_whole(t, true, g->dst, VOFF(gather.dst));
}

/* vmovmskps t1, mask;  cmp t1, all;  jne cold */
static void check_mask(struct tr *t, struct cold *k, const struct gather *g, uint8_t t1)
{
	bool wide = g->count * g->esize == 32;
	int32_t all = (1 << g->count) - 1;

	emit_vex_reg(&t->c, VEX(wide, g->esize == 8 ? PP_66 : PP_NONE, MAP_0F, 0, 0x50), t1, R_NONE, g->mask);
	if (g->count * g->esize < 16)
		emit_alu_imm(&t->c, 0, ALU_AND, t1, all);
	emit_alu_imm(&t->c, 0, ALU_CMP, t1, all);
	jump_cold(t, k, CC_NE);
}

/* t1 = linear address of element @i */
static void form_address(struct tr *t, const struct insn *in, const struct gather *g, unsigned i, uint8_t t1)
{
	struct hmem index = hm_gs(VOFF(gather.index) + i * g->isize);

	emit_rm_mem(&t->c, 1, g->isize == 8 ? 0x8b : 0x63, t1, index); /* mov, movsxd */
	emit_lea(&t->c, in->addrsize == 8, t1, (struct hmem){g->base, t1, g->scale, 0, in->mem.disp});
	if (in->mem.seg == SEG_FS || in->mem.seg == SEG_GS)
		emit_rm_mem(&t->c, 1, 0x03, t1, hm_gs(VOFF(seg_base) + 8u * in->mem.seg));
}

/* Element @n of the 16 bytes in @vec: vmovd or vmovq for the first, which clears the rest, then vpinsrd or vpinsrq. */
static void load_element(struct tr *t, uint8_t vec, unsigned n, unsigned size, struct hmem m)
{
	if (n == 0) {
		emit_vex_mem(&t->c, size == 8 ? VEX(0, PP_F3, MAP_0F, 0, 0x7e) : VEX(0, PP_66, MAP_0F, 0, 0x6e), vec,
			     R_NONE, m);
		return;
	}
	emit_vex_mem(&t->c, VEX(0, PP_66, MAP_0F3A, size == 8, 0x22), vec, vec, m);
	emit8(&t->c, (uint8_t)n);
}

/* The look-up of the @size bytes at t1: their addend in t2, or to the cold part. */
static void find_element(struct tr *t, struct cold *k, unsigned size, uint8_t t1, uint8_t t2, uint8_t t3)
{
	addr_tlb_index(t, t1, t2);
	emit_lea(&t->c, 1, t3, hm_base(t1, (int32_t)size - 1));
	emit_alu_imm(&t->c, 1, ALU_AND, t3, -4096);
	emit_rm_mem(&t->c, 1, 0x3b, t3, hm_gs_index(addr_tag_offset(t, ACC_R), t2, 8));
	jump_cold(t, k, CC_NE);
	emit_load(&t->c, t2, hm_gs_index(addr_addend_offset(t, ACC_R), t2, 8));
}

/* D = what is in vcpu.gather; what is above it becomes zero.  kxorq K, K, K */
static void take_evex(struct tr *t, const struct gather *g)
{
	unsigned bytes = g->count * g->esize;

	emit_evex_mem(&t->c, bytes, bytes == 8 ? EVEX_LOADQ : EVEX_LOAD, g->dst, hm_gs(VOFF(gather.dst)));
	emit_vex_reg(&t->c, VEX(1, PP_NONE, MAP_0F, 1, 0x47), g->k, g->k, g->k);
}

/*
 *   vmovdqu64 gs:[gather.index], I;  vmovdqu64 gs:[gather.dst], D;  kmovq gs:[gather.mask], K
 *   kmovw t1, K;  and t1, all;  cmp t1, all;  jne cold
 * and for each element
 *   <its address and addend, as below>;  mov t3, [t1 + t2];  mov gs:[gather.dst + i*4], t3
 * then D and K as they are to be.  Until then they are as they were.
 */
static void evex_inline(struct tr *t, const struct insn *in, const struct gather *g, struct cold *k, const uint8_t s[3])
{
	int32_t all = (1 << g->count) - 1;

	emit_evex_mem(&t->c, 64, EVEX_STORE, g->index, hm_gs(VOFF(gather.index)));
	emit_evex_mem(&t->c, 64, EVEX_STORE, g->dst, hm_gs(VOFF(gather.dst)));
	emit_vex_mem(&t->c, VEX(0, PP_NONE, MAP_0F, 1, 0x91), g->k, R_NONE, hm_gs(VOFF(gather.mask)));
	emit_vex_reg(&t->c, VEX(0, PP_NONE, MAP_0F, 0, 0x93), s[0], R_NONE, g->k);
	if (g->count < 16)
		emit_alu_imm(&t->c, 0, ALU_AND, s[0], all);
	emit_alu_imm(&t->c, 0, ALU_CMP, s[0], all);
	jump_cold(t, k, CC_NE);
	for (unsigned i = 0; i < g->count; i++) {
		form_address(t, in, g, i, s[0]);
		find_element(t, k, g->esize, s[0], s[1], s[2]);
		emit_rm_mem(&t->c, g->esize == 8, 0x8b, s[2], hm_bi(s[0], s[1], 1, 0));
		emit_rm_mem(&t->c, g->esize == 8, 0x89, s[2], hm_gs(VOFF(gather.dst) + i * g->esize));
	}
	k->hot2 = t->c.p;
	take_evex(t, g);
}

/*
 *   vmovdqu gs:[gather.index], I; the same with M and D
 *   vmovmskps t1, M;  cmp t1, all;  jne cold
 * and for each element
 *   movsxd t1, gs:[gather.index + i*4];  lea t1, [base + t1*scale + disp]
 *   pext t2, t1, gs:[mask];  lea t3, [t1 + size-1];  and t3, -4096
 *   cmp t3, gs:[tag + t2*8];  jne cold
 *   mov t2, gs:[addend + t2*8];  vpinsrd D, D, [t1 + t2], i       ; the upper half into M
 * then
 *   vinserti128 D, D, M, 1;  vpxor M, M, M
 * A page that matches at the index of the first byte is the first byte's page (addr_soft_cold()).
 */
void tr_gather_inline(struct tr *t, const struct insn *in)
{
	struct gather g = gather_decode(in);
	unsigned half = 16u / g.esize;
	uint8_t t1, t2, t3;
	struct cold *k;

	tr_need(t, in->gpr_read);
	t1 = tr_scratch(t, in->gpr_read, false);
	t2 = tr_scratch(t, in->gpr_read | BIT(t1), false);
	t3 = tr_scratch(t, in->gpr_read | BIT(t1) | BIT(t2), false);
	tr_flags_clobber(t, in->gpr_read);
	tr_site(t, SITE_INSN);
	k = tr_cold(t, COLD_GATHER);
	if (g.k) {
		evex_inline(t, in, &g, k, (const uint8_t[]){t1, t2, t3});
		return;
	}
	save_registers(t, &g);
	check_mask(t, k, &g, t1);
	for (unsigned i = 0; i < g.count; i++) {
		form_address(t, in, &g, i, t1);
		find_element(t, k, g.esize, t1, t2, t3);
		load_element(t, i < half ? g.dst : g.mask, i % half, g.esize, hm_bi(t1, t2, 1, 0));
	}
	if (g.count > half) {
		emit_vex_reg(&t->c, VEX(1, PP_66, MAP_0F3A, 0, 0x38), g.dst, g.dst, g.mask);
		emit8(&t->c, 1);
	}
	k->hot2 = t->c.p;
	emit_vex_reg(&t->c, VEX(0, PP_66, MAP_0F, 0, 0xef), g.mask, g.mask, g.mask);
}

/*
 *   vmovdqu M, gs:[gather.mask];  vmovdqu D, gs:[gather.dst]      ; as if nothing had happened
 *   mov gs:[site], n;  jmp glue
 *   resume: vmovdqu D, gs:[gather.dst];  jmp end
 * EVEX's has changed no register before its end, and loads D there.
 */
void tr_cold_gather(struct tr *t, const struct cold *k)
{
	struct insn in = t->in[k->insn];
	struct gather g = gather_decode(&in);
	uint32_t s;

	patch_chain(k->hot, t->c.p);
	if (!g.k) {
		move_whole(t, false, g.mask, VOFF(gather.mask));
		move_whole(t, false, g.dst, VOFF(gather.dst));
	}
	s = tr_site(t, SITE_SYS);
	in.cls = CLS_GATHER;
	t->bt->sites[s].aux = tr_sys(t, &in);
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(site)), (int32_t)s);
	emit_jmp_to(&t->c, t->bt->rw + (glue_gather - t->bt->rx));
	t->bt->sites[s].resume_off = (uint32_t)(t->c.p - t->bt->rw);
	if (!g.k)
		emit_vex_mem(&t->c, VMOVDQU_LD, g.dst, R_NONE, hm_gs(VOFF(gather.dst)));
	emit_jmp_to(&t->c, k->hot2);
}
