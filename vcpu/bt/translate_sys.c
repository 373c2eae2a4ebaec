/*
 * System instructions that guest kernels run at every entry and exit, done in
 * place at CPL 0 of 64-bit code: each does what its handler in cpu/ does.
 * Invariant: whatever needs a decision at run time that is not one compare goes
 * to the handler.
 */
#include "vcpu/bt/tr.h"

#define BIT(r) ((uint16_t)(1u << (r)))

bool tr_sys_inlinable(const struct tr *t, const struct insn *in)
{
	if (in->cls != CLS_SYS || !t->long_mode || (t->mode & (MODE_TRANSIENT | MODE_SLOWMEM)) || t->bt->stop_rip ||
	    in->lock)
		return false;
	switch (in->sysop) {
	case SYS_RDTSC:
	case SYS_RDTSCP: return !(t->mode & MODE_TSD);
	case SYS_CLI:
	case SYS_STI:
	case SYS_SWAPGS:
	case SYS_STAC:
	case SYS_CLAC: return t->mode & MODE_CPL0;
	default: return false;
	}
}

bool tr_sys_ends(const struct insn *in)
{
	return in->sysop == SYS_STAC || in->sysop == SYS_CLAC;
}

/*
 *   cmp gs:[pending], 0; jne handler      ; something waits: the shadow has to be counted
 *   mov gs:[iflag], 1
 * Otherwise the shadow needs nothing: interrupts are only taken at the end of the block, and the block goes on.
 */
static void sti(struct tr *t)
{
	struct cold *k;

	tr_flags_clobber(t, 0);
	emit_rm_mem(&t->c, 0, 0x83, 7, hm_gs(VOFF(pending)));
	emit8(&t->c, 0);
	k = tr_cold(t, COLD_HELPER);
	k->from = emit_jcc(&t->c, CC_NE);
	emit_store_imm8(&t->c, hm_gs(VOFF(iflag)), 1);
}

/* Exchanges the two bases; seg_base[] mirrors seg[]. */
static void swapgs(struct tr *t)
{
	uint8_t t1 = tr_scratch(t, 0, false), t2 = tr_scratch(t, BIT(t1), false);

	emit_load(&t->c, t1, hm_gs(VOFF(seg_base) + 8u * SEG_GS));
	emit_load(&t->c, t2, hm_gs(VOFF(kernel_gs_base)));
	emit_store(&t->c, hm_gs(VOFF(kernel_gs_base)), t1);
	emit_store(&t->c, hm_gs(VOFF(seg_base) + 8u * SEG_GS), t2);
	emit_store(&t->c, hm_gs(VOFF(seg) + SEG_GS * sizeof(struct seg) + offsetof(struct seg, base)), t2);
}

/* AC chooses the soft TLB, which is part of the mode: the block ends, the next one belongs to the new mode. */
static void set_ac(struct tr *t, bool on)
{
	unsigned tlb = on || !(t->mode & MODE_SMAP) ? TLB_KERN_AC : TLB_KERN;
	uint32_t mode = (t->mode & ~(3u << MODE_TLB_SHIFT | MODE_ADDED)) | tlb << MODE_TLB_SHIFT;

	tr_flags_clobber(t, 0);
	emit_rm_mem(&t->c, 0, 0x80, on ? ALU_OR : ALU_AND, hm_gs(VOFF(sysflags) + 2));
	emit8(&t->c, on ? RFL_AC >> 16 : (uint8_t) ~(RFL_AC >> 16));
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(mode)), (int32_t)mode);
	tr_exit_to_mode(t, mode);
}

/*
 *   rdtsc; shl rdx, 32; or rax, rdx; add rax, gs:[tsc_offset]; mov rdx, rax; shr rdx, 32; mov eax, eax
 *   rdtscp: lfence first, and mov ecx, gs:[tsc_aux]
 */
static void rdtsc(struct tr *t, const struct insn *in)
{
	bool p = in->sysop == SYS_RDTSCP;

	tr_flags_clobber(t, 0);
	if (p) {
		emit8(&t->c, 0x0f);
		emit8(&t->c, 0xae);
		emit8(&t->c, 0xe8);
	}
	emit8(&t->c, 0x0f);
	emit8(&t->c, 0x31);
	emit_shift_imm(&t->c, 1, SH_SHL, R_DX, 32);
	emit_rm_reg(&t->c, 1, 0x0b, R_AX, R_DX);
	emit_rm_mem(&t->c, 1, 0x03, R_AX, hm_gs(VOFF(tsc_offset)));
	emit_mov_rr(&t->c, R_DX, R_AX);
	emit_shift_imm(&t->c, 1, SH_SHR, R_DX, 32);
	emit_rm_reg(&t->c, 0, 0x8b, R_AX, R_AX);
	if (p)
		emit_rm_mem(&t->c, 0, 0x8b, R_CX, hm_gs(VOFF(tsc_aux)));
	tr_wrote(t, BIT(R_AX) | BIT(R_DX) | (p ? BIT(R_CX) : 0));
}

void tr_sys_inline(struct tr *t, const struct insn *in)
{
	switch (in->sysop) {
	case SYS_CLI: emit_store_imm8(&t->c, hm_gs(VOFF(iflag)), 0); break;
	case SYS_STI: sti(t); break;
	case SYS_SWAPGS: swapgs(t); break;
	case SYS_STAC: set_ac(t, true); break;
	case SYS_CLAC: set_ac(t, false); break;
	default: rdtsc(t, in); break;
	}
}
