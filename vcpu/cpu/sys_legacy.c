/*
 * Instructions that 64-bit mode lacks, and enter.
 *
 * Invariant: flags the manual calls undefined are left as they were.
 */
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/sysinsn.h"

static uint32_t szp(uint8_t al)
{
	return (al & 0x80 ? RFL_SF : 0) | (al == 0 ? RFL_ZF : 0) | (__builtin_parity(al) ? 0 : RFL_PF);
}

static bool flag(const struct vcpu *v, uint32_t bit)
{
	return vcpu_rflags(v) & bit;
}

static int ascii_adjust(struct vcpu *v, const struct insn *in, int sign)
{
	uint16_t ax = (uint16_t)v->regs[R_AX];
	bool adjust = (ax & 15) > 9 || flag(v, RFL_AF);

	if (adjust)
		ax = (uint16_t)(ax + sign * 0x106);
	reg_write(v, R_AX, ax & 0xff0f, 2);
	flags_set_arith(v, RFL_AF | RFL_CF, adjust ? RFL_AF | RFL_CF : 0);
	return insn_done(v, in);
}

int sys_aaa(struct vcpu *v, const struct insn *in)
{
	return ascii_adjust(v, in, 1);
}

int sys_aas(struct vcpu *v, const struct insn *in)
{
	return ascii_adjust(v, in, -1);
}

int sys_aad(struct vcpu *v, const struct insn *in)
{
	uint16_t ax = (uint16_t)v->regs[R_AX];
	uint8_t al = (uint8_t)((ax & 0xff) + (ax >> 8) * (uint8_t)in->imm);

	reg_write(v, R_AX, al, 2);
	flags_set_arith(v, RFL_SF | RFL_ZF | RFL_PF, szp(al));
	return insn_done(v, in);
}

int sys_aam(struct vcpu *v, const struct insn *in)
{
	uint8_t al = (uint8_t)v->regs[R_AX], base = (uint8_t)in->imm;

	if (base == 0)
		return raise_exception(v, EXC_DE);
	reg_write(v, R_AX, (unsigned)(al / base) << 8 | al % base, 2);
	flags_set_arith(v, RFL_SF | RFL_ZF | RFL_PF, szp(al % base));
	return insn_done(v, in);
}

static int decimal_adjust(struct vcpu *v, const struct insn *in, int sign)
{
	uint8_t old = (uint8_t)v->regs[R_AX], al = old;
	bool cf = flag(v, RFL_CF), af = (al & 15) > 9 || flag(v, RFL_AF), low_carry = false;

	if (af) {
		low_carry = sign > 0 ? al > 0xf9 : al < 6;
		al = (uint8_t)(al + sign * 6);
	}
	if (old > 0x99 || cf) {
		al = (uint8_t)(al + sign * 0x60);
		cf = true;
	} else {
		cf = sign < 0 && low_carry;
	}
	reg_write(v, R_AX, al, 1);
	flags_set_arith(v, RFL_SF | RFL_ZF | RFL_PF | RFL_AF | RFL_CF, szp(al) | (af ? RFL_AF : 0) | (cf ? RFL_CF : 0));
	return insn_done(v, in);
}

int sys_daa(struct vcpu *v, const struct insn *in)
{
	return decimal_adjust(v, in, 1);
}

int sys_das(struct vcpu *v, const struct insn *in)
{
	return decimal_adjust(v, in, -1);
}

int sys_pusha(struct vcpu *v, const struct insn *in)
{
	struct stack st;

	stack_current(v, &st);
	for (unsigned r = R_AX; r <= R_DI; r++) /* rsp is pushed as it was */
		if (stack_push(v, &st, v->regs[r], in->opsize))
			return -1;
	stack_commit(v, &st);
	return insn_done(v, in);
}

int sys_popa(struct vcpu *v, const struct insn *in)
{
	struct stack st;
	uint64_t val[8];

	stack_current(v, &st);
	for (unsigned i = 8; i-- > 0;)
		if (stack_pop(v, &st, &val[i], in->opsize))
			return -1;
	stack_commit(v, &st);
	for (unsigned r = R_AX; r <= R_DI; r++)
		if (r != R_SP)
			reg_write(v, r, val[r], in->opsize);
	return insn_done(v, in);
}

int sys_bound(struct vcpu *v, const struct insn *in)
{
	unsigned size = in->opsize, shift = 64 - size * 8;
	uint64_t lo = 0, hi = 0;
	int64_t index = (int64_t)(v->regs[in->reg & 15] << shift);

	if (op_mem_read(v, in, 0, &lo, size))
		return -1;
	if (!v->amd && index < (int64_t)(lo << shift)) /* AMD's read both bounds first */
		return raise_exception(v, EXC_BR);
	if (op_mem_read(v, in, size, &hi, size))
		return -1;
	if (index < (int64_t)(lo << shift) || index > (int64_t)(hi << shift))
		return raise_exception(v, EXC_BR);
	return insn_done(v, in);
}

int sys_salc(struct vcpu *v, const struct insn *in)
{
	reg_write(v, R_AX, flag(v, RFL_CF) ? 0xff : 0, 1);
	return insn_done(v, in);
}

/* Copies the frame pointers of the outer levels (SDM 2, ENTER). */
static int enter_levels(struct vcpu *v, const struct insn *in, struct stack *st, uint64_t frame, unsigned level)
{
	struct stack bp = *st;

	bp.sp = v->regs[R_BP];
	for (unsigned i = 1; i < level; i++) {
		struct stack at;
		uint64_t val;

		bp.sp -= in->opsize;
		at = bp;
		at.sp &= at.mask;
		if (stack_pop(v, &at, &val, in->opsize) || stack_push(v, st, val, in->opsize))
			return -1;
	}
	return stack_push(v, st, frame, in->opsize);
}

int sys_enter(struct vcpu *v, const struct insn *in)
{
	unsigned level = (unsigned)in->imm2 & 31;
	struct stack st;
	struct walk w;
	uint64_t frame, top;

	stack_current(v, &st);
	if (stack_push(v, &st, v->regs[R_BP], in->opsize))
		return -1;
	frame = st.sp;
	if (level > 0 && enter_levels(v, in, &st, frame, level))
		return -1;
	st.sp = (st.sp & ~st.mask) | ((st.sp - (uint16_t)in->imm) & st.mask);
	top = v->seg_base[SEG_SS] + (st.sp & st.mask);
	if (alignment_check(v, top, in->opsize) || mmu_walk(v, top, mmu_acc(v, ACC_W), &w) < 0)
		return -1; /* the new top of the stack must be writable (SDM 2A, ENTER) */
	reg_write(v, R_BP, frame, in->opsize);
	stack_commit(v, &st);
	return insn_done(v, in);
}
