/*
 * Moves to and from segment registers, and the FS and GS bases.
 *
 * Invariant: v->seg_base[] follows v->seg[].base.
 */
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/sysinsn.h"

/* Loads @seg; SS opens the interrupt shadow. */
static int load_and_shadow(struct vcpu *v, unsigned seg, uint16_t sel)
{
	if (seg_load(v, seg, sel))
		return -1;
	if (seg == SEG_SS)
		v->int_shadow = 2;
	return 0;
}

int sys_mov_to_seg(struct vcpu *v, const struct insn *in)
{
	uint64_t sel;

	if (in->reg == SEG_CS || in->reg >= SEG_COUNT)
		return raise_ud(v);
	if (op_read(v, in, 2, &sel) || load_and_shadow(v, in->reg, (uint16_t)sel))
		return -1;
	return insn_done(v, in);
}

int sys_mov_from_seg(struct vcpu *v, const struct insn *in)
{
	if (in->reg >= SEG_COUNT)
		return raise_ud(v);
	if (op_write(v, in, in->has_mem ? 2 : in->opsize, v->seg[in->reg].sel))
		return -1;
	return insn_done(v, in);
}

int sys_push_seg(struct vcpu *v, const struct insn *in)
{
	struct stack st;

	stack_current(v, &st);
	if (!v->amd && in->opsize == 4) { /* Intel's move the stack by four bytes and write two (SDM 2, PUSH) */
		if (stack_push_low(v, &st, v->seg[in->reg].sel, 4))
			return -1;
	} else if (stack_push(v, &st, v->seg[in->reg].sel, in->opsize)) {
		return -1;
	}
	stack_commit(v, &st);
	return insn_done(v, in);
}

int sys_pop_seg(struct vcpu *v, const struct insn *in)
{
	struct stack st;
	uint64_t sel;

	stack_current(v, &st);
	if (stack_pop(v, &st, &sel, in->opsize) || load_and_shadow(v, in->reg, (uint16_t)sel))
		return -1;
	stack_commit(v, &st);
	return insn_done(v, in);
}

int sys_load_far_ptr(struct vcpu *v, const struct insn *in)
{
	unsigned size = far_opsize(v, in);
	uint64_t off = 0;
	uint16_t sel;

	if (op_mem_read(v, in, 0, &off, size) || op_mem_read(v, in, size, &sel, 2) ||
	    seg_load(v, in->seg2, sel)) /* lss opens no shadow: it loads both halves itself */
		return -1;
	reg_write(v, in->reg, off, size);
	return insn_done(v, in);
}

int sys_swapgs(struct vcpu *v, const struct insn *in)
{
	uint64_t gs = v->seg[SEG_GS].base;

	if (!in_code64(v))
		return raise_ud(v);
	if (v->cpl != 0)
		return raise_gp(v, 0);
	v->seg[SEG_GS].base = v->seg_base[SEG_GS] = v->kernel_gs_base;
	v->kernel_gs_base = gs;
	return insn_done(v, in);
}

static int read_base(struct vcpu *v, const struct insn *in, unsigned seg)
{
	if (!in_code64(v) || !(v->cr4 & CR4_FSGSBASE))
		return raise_ud(v);
	reg_write(v, in->rm, v->seg[seg].base, in->opsize);
	return insn_done(v, in);
}

static int write_base(struct vcpu *v, const struct insn *in, unsigned seg)
{
	uint64_t base = reg_read(v, in->rm, in->opsize);

	if (!in_code64(v) || !(v->cr4 & CR4_FSGSBASE))
		return raise_ud(v);
	if (!is_canonical(base))
		return raise_gp(v, 0);
	v->seg[seg].base = v->seg_base[seg] = base;
	return insn_done(v, in);
}

int sys_rdfsbase(struct vcpu *v, const struct insn *in)
{
	return read_base(v, in, SEG_FS);
}

int sys_rdgsbase(struct vcpu *v, const struct insn *in)
{
	return read_base(v, in, SEG_GS);
}

int sys_wrfsbase(struct vcpu *v, const struct insn *in)
{
	return write_base(v, in, SEG_FS);
}

int sys_wrgsbase(struct vcpu *v, const struct insn *in)
{
	return write_base(v, in, SEG_GS);
}
