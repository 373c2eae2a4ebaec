/*
 * Flags, software interrupts and iret.
 *
 * Invariant: IF changes only at CPL <= IOPL, IOPL only at CPL 0 (SDM 3A 6.8.1).
 */
#include "vcpu/cpu/exception.h"
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/real.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/sysinsn.h"

static bool io_privileged(const struct vcpu *v)
{
	return v->cpl <= flags_iopl(v);
}

/* Without the privilege, do cli and sti work on VIF?  (SDM 3A 20.3.3.4, 20.4) */
static bool if_is_virtual(const struct vcpu *v)
{
	return v->cpl == 3 && (v->cr4 & (in_v86(v) ? CR4_VME : CR4_PVI));
}

int sys_cli(struct vcpu *v, const struct insn *in)
{
	if (!io_privileged(v)) {
		if (!if_is_virtual(v))
			return raise_gp(v, 0);
		v->sysflags &= ~RFL_VIF;
		return insn_done(v, in);
	}
	v->iflag = 0;
	return insn_done(v, in);
}

int sys_sti(struct vcpu *v, const struct insn *in)
{
	if (!io_privileged(v)) {
		if (!if_is_virtual(v) || (v->sysflags & RFL_VIP))
			return raise_gp(v, 0);
		v->sysflags |= RFL_VIF;
		return insn_done(v, in);
	}
	if (!v->iflag)
		v->int_shadow = 1;
	v->iflag = 1;
	return insn_done(v, in);
}

/* pushf and popf in virtual-8086 mode below IOPL 3: 0 when they go by VIF, -1 after raising (SDM 2B PUSHF, POPF). */
static int v86_flags_check(struct vcpu *v, const struct insn *in)
{
	return (v->cr4 & CR4_VME) && in->opsize == 2 ? 0 : raise_gp(v, 0);
}

int sys_pushf(struct vcpu *v, const struct insn *in)
{
	uint64_t fl = vcpu_rflags(v) & ~(uint64_t)(RFL_VM | RFL_RF);
	struct stack st;

	if (in_v86(v) && !io_privileged(v)) {
		if (v86_flags_check(v, in))
			return -1;
		fl = (fl & ~(uint64_t)RFL_IF) | RFL_IOPL | (fl & RFL_VIF ? RFL_IF : 0);
	}
	stack_current(v, &st);
	if (stack_push(v, &st, fl, in->opsize))
		return -1;
	stack_commit(v, &st);
	return insn_done(v, in);
}

int sys_popf(struct vcpu *v, const struct insn *in)
{
	uint64_t mask = RFL_ARITH | RFL_DF | RFL_TF | RFL_NT, fl, old = vcpu_rflags(v);
	bool virtual = in_v86(v) && !io_privileged(v);
	struct stack st;

	if (virtual && v86_flags_check(v, in))
		return -1;
	stack_current(v, &st);
	if (stack_pop(v, &st, &fl, in->opsize) || (virtual && flags_virtual_if(v, &fl, &mask)))
		return -1;
	if (in->opsize > 2)
		mask |= RFL_AC | RFL_ID;
	if (io_privileged(v))
		mask |= RFL_IF;
	if (v->cpl == 0)
		mask |= RFL_IOPL;
	stack_commit(v, &st);
	flags_put(v, ((old & ~mask) | (fl & mask)) & ~(uint64_t)RFL_RF);
	if ((old ^ fl) & mask & RFL_SYS)
		vcpu_update_mode(v);
	return insn_done(v, in);
}

int sys_hlt(struct vcpu *v, const struct insn *in)
{
	if (v->cpl != 0)
		return raise_gp(v, 0);
	v->halted = 1;
	return insn_done(v, in);
}

int sys_int(struct vcpu *v, const struct insn *in)
{
	unsigned vector = (uint8_t)in->imm;
	bool redirected;

	if (in_v86(v)) {
		if (v86_redirected(v, vector, &redirected))
			return -1;
		if (redirected)
			return real_event(v, vector, insn_next(v, in), 0);
		if (!io_privileged(v))
			return raise_gp(v, 0);
	}
	return cpu_soft_int(v, vector, EVENT_SOFT, insn_next(v, in));
}

/* What mov ss held back is told by int1's own #DB: one event. */
int sys_int1(struct vcpu *v, const struct insn *in)
{
	uint64_t held = v->db_held;

	if (cpu_soft_int(v, EXC_DB, EVENT_INT1, insn_next(v, in)))
		return -1;
	v->db_held = 0;
	cpu_enter_debug(v, held);
	return 0;
}

int sys_int3(struct vcpu *v, const struct insn *in)
{
	return cpu_soft_int(v, EXC_BP, EVENT_SOFT, insn_next(v, in));
}

int sys_into(struct vcpu *v, const struct insn *in)
{
	if (!(vcpu_rflags(v) & RFL_OF))
		return insn_done(v, in);
	return cpu_soft_int(v, EXC_OF, EVENT_SOFT, insn_next(v, in));
}

int sys_iret(struct vcpu *v, const struct insn *in)
{
	if (far_iret(v, in->opsize, insn_next(v, in)))
		return -1;
	vcpu_returns_to_user(v);
	return 0;
}

static int set_ac(struct vcpu *v, const struct insn *in, uint32_t ac)
{
	if (v->cpl != 0 || !(v->cr4_mask & CR4_SMAP))
		return raise_ud(v);
	v->sysflags = (v->sysflags & ~RFL_AC) | ac;
	vcpu_update_mode(v);
	return insn_done(v, in);
}

int sys_clac(struct vcpu *v, const struct insn *in)
{
	return set_ac(v, in, 0);
}

int sys_stac(struct vcpu *v, const struct insn *in)
{
	return set_ac(v, in, RFL_AC);
}
