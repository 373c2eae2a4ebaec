/*
 * Operands of system instructions.
 *
 * Invariant: nothing here changes a register before the last thing that can
 * fault has been done.
 */
#include "vcpu/cpu/operand.h"

#include "vcpu/cpu/breakpoint.h"

uint64_t reg_read(const struct vcpu *v, unsigned reg, unsigned size)
{
	return v->regs[reg & 15] & size_mask(size);
}

void reg_write(struct vcpu *v, unsigned reg, uint64_t val, unsigned size)
{
	uint64_t *r = &v->regs[reg & 15];

	if (size == 8)
		*r = val;
	else if (size == 4)
		*r = (uint32_t)val;
	else
		*r = (*r & ~size_mask(size)) | (val & size_mask(size));
}

int alignment_check(struct vcpu *v, uint64_t lin, unsigned size)
{
	if (v->cpl != 3 || !(v->cr0 & CR0_AM) || !(v->sysflags & RFL_AC))
		return 0;
	if (size == 10)
		size = 8;
	if (size == 32 || size == 64)
		size = 16;
	if ((size & (size - 1)) || (size > 8 && !v->amd) || !(lin & (size - 1)))
		return 0;
	return raise_error(v, EXC_AC, 0);
}

uint64_t insn_ea(const struct vcpu *v, const struct insn *in)
{
	uint64_t ea = (uint64_t)(int64_t)in->mem.disp;

	if (in->mem.base == R_RIP)
		ea += v->rip + in->len;
	else if (in->mem.base != R_NONE)
		ea += v->regs[in->mem.base & 15];
	if (in->mem.index != R_NONE)
		ea += v->regs[in->mem.index & 15] * in->mem.scale;
	return ea & size_mask(in->addrsize);
}

/* Type bits of a descriptor's access byte (SDM 3A 3.4.5.1). */
#define T_CODE 8u
#define T_DOWN 4u /* data: expand down */
#define T_RW   2u /* data: writable; code: readable */

bool seg_allows(const struct seg *s, uint64_t off, unsigned size, unsigned acc)
{
	uint64_t last = off + size - 1;

	if (s->attr & SEG_A_NULL)
		return false;
	if (s->attr & T_CODE) {
		if ((acc & ACC_W) || ((acc & ACC_R) && !(s->attr & T_RW)))
			return false;
	} else if ((acc & ACC_W) && !(s->attr & T_RW)) {
		return false;
	}
	if ((s->attr & (T_CODE | T_DOWN)) == T_DOWN)
		return off > s->limit && last <= (s->attr & SEG_A_DB ? 0xffffffffu : 0xffffu);
	return last <= s->limit;
}

static int raise_seg(struct vcpu *v, bool stack, uint32_t err)
{
	return raise_error(v, stack ? EXC_SS : EXC_GP, err);
}

unsigned seg_limit_size(const struct vcpu *v, const struct seg *s, unsigned size)
{
	bool flat = s->limit == 0xffffffff && (s->attr & (T_CODE | T_DOWN)) != T_DOWN;

	return flat && !v->amd ? 1 : size;
}

int seg_linear(struct vcpu *v, unsigned seg, uint64_t offset, unsigned size, unsigned acc, uint64_t *lin)
{
	const struct seg *s = &v->seg[seg];

	if (in_code64(v)) {
		*lin = offset + (seg >= SEG_FS ? s->base : 0);
		if (!is_canonical(*lin) || !is_canonical(*lin + size - 1))
			return raise_seg(v, seg == SEG_SS, 0);
		return 0;
	}
	if (!seg_allows(s, offset, seg_limit_size(v, s, size), acc))
		return raise_seg(v, seg == SEG_SS, 0);
	*lin = (uint32_t)(s->base + offset);
	return 0;
}

int insn_linear(struct vcpu *v, const struct insn *in, uint64_t offset, unsigned size, unsigned acc, uint64_t *lin)
{
	return seg_linear(v, in->mem.seg, offset, size, acc, lin);
}

int op_mem_read(struct vcpu *v, const struct insn *in, unsigned disp, void *buf, unsigned size)
{
	uint64_t off = (insn_ea(v, in) + disp) & size_mask(in->addrsize), lin;

	if (insn_linear(v, in, off, size, ACC_R, &lin) || alignment_check(v, lin, size))
		return -1;
	if (v->dr[7] & 0xff)
		breakpoint_access(v, lin, size, ACC_R);
	return mmu_read(v, lin, buf, size, mmu_acc(v, ACC_R));
}

int op_mem_write(struct vcpu *v, const struct insn *in, unsigned disp, const void *buf, unsigned size)
{
	uint64_t off = (insn_ea(v, in) + disp) & size_mask(in->addrsize), lin;

	if (insn_linear(v, in, off, size, ACC_W, &lin) || alignment_check(v, lin, size))
		return -1;
	if (v->dr[7] & 0xff)
		breakpoint_access(v, lin, size, ACC_W);
	return mmu_write(v, lin, buf, size, mmu_acc(v, ACC_W));
}

int op_read(struct vcpu *v, const struct insn *in, unsigned size, uint64_t *val)
{
	*val = 0;
	if (in->has_mem)
		return op_mem_read(v, in, 0, val, size);
	*val = reg_read(v, in->rm, size);
	return 0;
}

int op_write(struct vcpu *v, const struct insn *in, unsigned size, uint64_t val)
{
	if (in->has_mem)
		return op_mem_write(v, in, 0, &val, size);
	reg_write(v, in->rm, val, size);
	return 0;
}

void stack_other(struct stack *st, const struct seg *ss, uint64_t sp, unsigned cpl, bool code64, uint32_t err)
{
	st->ss = ss;
	st->code64 = code64;
	st->mask = code64 ? ~0ull : ss->attr & SEG_A_DB ? 0xffffffffu : 0xffffu;
	st->sp = sp;
	st->acc = cpl == 3 ? ACC_USER : 0;
	st->err = err;
	st->own = false;
}

void stack_current(struct vcpu *v, struct stack *st)
{
	stack_other(st, &v->seg[SEG_SS], v->regs[R_SP], v->cpl, in_code64(v), 0);
	st->own = true;
}

/* What an access to the stack is checked for beside the segment. */
static int stack_access(struct vcpu *v, const struct stack *st, uint64_t lin, unsigned size, unsigned acc)
{
	if (st->own && alignment_check(v, lin, size))
		return -1;
	if (v->dr[7] & 0xff)
		breakpoint_access(v, lin, size, acc);
	return 0;
}

static int stack_linear(struct vcpu *v, struct stack *st, uint64_t sp, unsigned size, unsigned acc, uint64_t *lin)
{
	if (st->code64) {
		*lin = sp;
		return is_canonical(sp) && is_canonical(sp + size - 1) ? 0 : raise_seg(v, true, st->err);
	}
	if (!seg_allows(st->ss, sp & st->mask, seg_limit_size(v, st->ss, size), acc))
		return raise_seg(v, true, st->err);
	*lin = (uint32_t)(st->ss->base + (sp & st->mask));
	return 0;
}

/* Only the bits that address the stack move. */
static void stack_move(struct stack *st, uint64_t sp)
{
	st->sp = (st->sp & ~st->mask) | (sp & st->mask);
}

int stack_check_push(struct vcpu *v, struct stack *st, unsigned size)
{
	uint64_t lin, last;
	struct walk w;

	if (stack_linear(v, st, (st->sp - size) & st->mask, size, ACC_W, &lin) ||
	    stack_access(v, st, lin, size, ACC_W) || mmu_walk(v, lin, st->acc | ACC_W, &w) < 0)
		return -1;
	last = lin + size - 1;
	return (lin ^ last) & ~GUEST_PAGE_MASK ? mmu_walk(v, last & ~GUEST_PAGE_MASK, st->acc | ACC_W, &w) : 0;
}

static int push_at(struct vcpu *v, struct stack *st, uint64_t sp, uint64_t val, unsigned size)
{
	uint64_t lin;

	if (stack_linear(v, st, sp, size, ACC_W, &lin) || stack_access(v, st, lin, size, ACC_W) ||
	    mmu_write(v, lin, &val, size, st->acc | ACC_W))
		return -1;
	stack_move(st, sp);
	return 0;
}

int stack_push(struct vcpu *v, struct stack *st, uint64_t val, unsigned size)
{
	return push_at(v, st, (st->sp - size) & st->mask, val, size);
}

int stack_push_low(struct vcpu *v, struct stack *st, uint16_t val, unsigned step)
{
	return push_at(v, st, (st->sp - step) & st->mask, val, 2);
}

int stack_pop(struct vcpu *v, struct stack *st, uint64_t *val, unsigned size)
{
	uint64_t lin;

	*val = 0;
	if (stack_linear(v, st, st->sp & st->mask, size, ACC_R, &lin) || stack_access(v, st, lin, size, ACC_R) ||
	    mmu_read(v, lin, val, size, st->acc | ACC_R))
		return -1;
	stack_move(st, st->sp + size);
	return 0;
}

void stack_commit(struct vcpu *v, const struct stack *st)
{
	v->regs[R_SP] = st->mask == 0xffff ? (v->regs[R_SP] & ~0xffffull) | (st->sp & 0xffff) : st->sp & st->mask;
}
