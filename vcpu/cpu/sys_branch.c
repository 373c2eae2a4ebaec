/*
 * syscall and its kin, and the instructions of far transfers.
 *
 * Invariant: the segments these load are flat whatever the descriptor tables say.
 *
 * Vendors differ (APM 3 SYSCALL, SYSENTER; SDM 2 the same): AMD has syscall in
 * every mode but no sysenter in long mode; Intel has sysenter in every mode but
 * syscall in 64-bit mode only.  struct vcpu's `amd` decides, as CPUID tells.
 */
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/sysinsn.h"

static void load_flat(struct vcpu *v, unsigned seg, unsigned sel, uint32_t attr, unsigned dpl)
{
	struct seg *s = &v->seg[seg];

	s->sel = (uint16_t)sel;
	s->base = 0;
	s->limit = 0xffffffff;
	s->attr = attr | dpl << 5;
}

/* Enters ring @cpl at @rip with flat CS = @cs and SS = @ss. */
static void enter_flat(struct vcpu *v, unsigned cs, unsigned ss, uint32_t code_attr, unsigned cpl, uint64_t rip)
{
	load_flat(v, SEG_CS, (cs & ~3u) | cpl, code_attr, cpl);
	load_flat(v, SEG_SS, (ss & ~3u) | cpl, SEG_FLAT_DATA, cpl);
	v->cpl = (uint8_t)cpl;
	v->rip = rip;
	vcpu_update_mode(v);
}

int sys_syscall(struct vcpu *v, const struct insn *in)
{
	unsigned cs = (uint16_t)(v->star >> 32) & 0xfffc;
	uint64_t next = insn_next(v, in), fl = vcpu_rflags(v);

	if (!(v->efer & EFER_SCE) || !(v->cr0 & CR0_PE) || (!v->amd && !in_code64(v)))
		return raise_ud(v);
	if (!in_long_mode(v)) { /* AMD's legacy form */
		v->regs[R_CX] = (uint32_t)next;
		flags_put(v, fl & ~(uint64_t)(RFL_IF | RFL_VM | RFL_RF));
		enter_flat(v, cs, cs + 8, SEG_FLAT_CODE32, 0, (uint32_t)v->star);
		return 0;
	}
	v->regs[R_CX] = next;
	v->regs[R_11] = fl & ~(uint64_t)RFL_RF;
	flags_put(v, fl & ~v->sfmask & ~(uint64_t)RFL_RF);
	enter_flat(v, cs, cs + 8, SEG_FLAT_CODE64, 0, in_code64(v) ? v->lstar : v->cstar);
	return 0;
}

int sys_sysret(struct vcpu *v, const struct insn *in)
{
	unsigned base = (uint16_t)(v->star >> 48);
	uint64_t rip = v->regs[R_CX];

	if (!(v->efer & EFER_SCE) || !(v->cr0 & CR0_PE) || (!v->amd && !in_code64(v)))
		return raise_ud(v);
	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (!in_long_mode(v)) {
		v->iflag = 1;
		enter_flat(v, base, base + 8, SEG_FLAT_CODE32, 3, (uint32_t)rip);
		return 0;
	}
	if (in->opsize == 8 && !is_canonical(rip))
		return raise_gp(v, 0); /* AMD faults after the switch, which is what makes it dangerous */
	flags_put(v, v->regs[R_11] & RFL_ALL & ~(uint64_t)(RFL_RF | RFL_VM));
	if (in->opsize == 8)
		enter_flat(v, base + 16, base + 8, SEG_FLAT_CODE64, 3, rip);
	else
		enter_flat(v, base, base + 8, SEG_FLAT_CODE32, 3, (uint32_t)rip);
	vcpu_returns_to_user(v);
	if (v->sysflags & RFL_TF) { /* unlike iret, sysret traps before the next instruction */
		raise_exception(v, EXC_DB);
		v->exc_dr6 = 1u << 14;
	}
	return 0;
}

int sys_sysenter(struct vcpu *v, const struct insn *in)
{
	bool lm = in_long_mode(v);
	unsigned cs = (unsigned)v->sysenter_cs & 0xfffc;

	if (v->amd && lm)
		return raise_ud(v);
	if (!(v->cr0 & CR0_PE) || cs == 0)
		return raise_gp(v, 0);
	flags_put(v, vcpu_rflags(v) & ~(uint64_t)(RFL_IF | RFL_VM | RFL_RF));
	v->regs[R_SP] = lm ? v->sysenter_esp : (uint32_t)v->sysenter_esp;
	enter_flat(v, cs, cs + 8, lm ? SEG_FLAT_CODE64 : SEG_FLAT_CODE32, 0,
		   lm ? v->sysenter_eip : (uint32_t)v->sysenter_eip);
	return 0;
}

int sys_sysexit(struct vcpu *v, const struct insn *in)
{
	unsigned cs = (unsigned)v->sysenter_cs & 0xfffc;
	uint64_t sp = v->regs[R_CX], rip = v->regs[R_DX];

	if (v->amd && in_long_mode(v))
		return raise_ud(v);
	if (!(v->cr0 & CR0_PE) || cs == 0 || v->cpl != 0)
		return raise_gp(v, 0);
	if (in->opsize == 8) {
		if (!is_canonical(sp) || !is_canonical(rip))
			return raise_gp(v, 0);
		v->regs[R_SP] = sp;
		enter_flat(v, cs + 32, cs + 40, SEG_FLAT_CODE64, 3, rip);
	} else {
		v->regs[R_SP] = (uint32_t)sp;
		enter_flat(v, cs + 16, cs + 24, SEG_FLAT_CODE32, 3, (uint32_t)rip);
	}
	return 0;
}

/* Offset, selector and operand size of a far jmp or call: immediate, or m16:16, m16:32, m16:64. */
static int far_pointer(struct vcpu *v, const struct insn *in, uint64_t *off, uint16_t *sel, unsigned *size)
{
	*size = far_opsize(v, in);
	*off = (uint64_t)in->imm;
	*sel = (uint16_t)in->imm2;
	if (!in->has_mem)
		return 0;
	*off = 0;
	return op_mem_read(v, in, 0, off, *size) || op_mem_read(v, in, *size, sel, 2) ? -1 : 0;
}

int sys_far_jmp(struct vcpu *v, const struct insn *in)
{
	unsigned size;
	uint64_t off;
	uint16_t sel;

	return far_pointer(v, in, &off, &sel, &size) ? -1 : far_jump(v, sel, off, size, insn_next(v, in));
}

int sys_far_call(struct vcpu *v, const struct insn *in)
{
	unsigned size;
	uint64_t off;
	uint16_t sel;

	return far_pointer(v, in, &off, &sel, &size) ? -1 : far_call(v, sel, off, size, insn_next(v, in));
}

int sys_far_ret(struct vcpu *v, const struct insn *in)
{
	return far_return(v, in->opsize, (uint16_t)in->imm);
}

/* Does condition @cc (the low four bits of jcc's opcode) hold?  (SDM 1 B.1) */
static bool condition(uint64_t fl, unsigned cc)
{
	bool sf_of = !(fl & RFL_SF) != !(fl & RFL_OF), r;

	switch (cc >> 1) {
	case 0: r = fl & RFL_OF; break;
	case 1: r = fl & RFL_CF; break;
	case 2: r = fl & RFL_ZF; break;
	case 3: r = fl & (RFL_CF | RFL_ZF); break;
	case 4: r = fl & RFL_SF; break;
	case 5: r = fl & RFL_PF; break;
	case 6: r = sf_of; break;
	default: r = sf_of || (fl & RFL_ZF); break;
	}
	return r != (cc & 1);
}

/* loopne, loope, loop, jcxz (e0 to e3): counts, by the address size. */
static bool loop_taken(const struct vcpu *v, const struct insn *in, uint64_t *count)
{
	bool equal = in->opcode == 0xe1;

	if (v->amd && in->rep) /* decides, whichever of the two it is */
		equal = in->rep == 0xf3;
	*count = reg_read(v, R_CX, in->addrsize);
	if (in->opcode == 0xe3)
		return *count == 0;
	*count = (*count - 1) & size_mask(in->addrsize);
	return *count && (in->opcode == 0xe2 || !(vcpu_rflags(v) & RFL_ZF) != equal);
}

/* May a near branch go to @target?  (SDM 2, JMP: not beyond the code segment's limit, nor to what is not canonical) */
static int near_check(struct vcpu *v, uint64_t target)
{
	bool ok = in_code64(v) ? is_canonical(target) : target <= v->seg[SEG_CS].limit;

	return ok ? 0 : raise_gp(v, 0);
}

static int near_jump(struct vcpu *v, uint64_t target)
{
	if (near_check(v, target))
		return -1;
	v->rip = target;
	return 0;
}

/* What the push would raise comes first, then the target; memory changes when both are good. */
static int near_call(struct vcpu *v, const struct insn *in, uint64_t target, unsigned size)
{
	struct stack st;

	stack_current(v, &st);
	if (stack_check_push(v, &st, size) || near_check(v, target) || stack_push(v, &st, insn_next(v, in), size))
		return -1;
	stack_commit(v, &st);
	v->rip = target;
	return 0;
}

static int near_ret(struct vcpu *v, const struct insn *in, unsigned size)
{
	struct stack st;
	uint64_t target;

	stack_current(v, &st);
	if (stack_pop(v, &st, &target, size))
		return -1;
	st.sp = (st.sp & ~st.mask) | ((st.sp + (uint16_t)in->imm) & st.mask);
	if (near_jump(v, target))
		return -1;
	stack_commit(v, &st);
	return 0;
}

static int near_loop(struct vcpu *v, const struct insn *in, uint64_t target)
{
	uint64_t next = insn_next(v, in), count;
	bool taken = loop_taken(v, in, &count);

	if (taken && near_check(v, target))
		return -1;
	if (in->opcode != 0xe3)
		reg_write(v, R_CX, count, in->addrsize);
	v->rip = taken ? target : next;
	return 0;
}

/* A near branch whose target and return address have @size bytes. */
static int near_branch(struct vcpu *v, const struct insn *in, unsigned size)
{
	bool jcc = (in->opcode & 0xf0) == (in->raw[in->off_opcode] == 0x0f ? 0x80 : 0x70);
	uint64_t target = (insn_next(v, in) + (uint64_t)in->imm) & size_mask(size);

	switch (in->opcode) {
	case 0xc2:
	case 0xc3: return near_ret(v, in, size);
	case 0xe8: return near_call(v, in, target, size);
	case 0xe0:
	case 0xe1:
	case 0xe2:
	case 0xe3: return near_loop(v, in, target);
	case 0xff:
		if (op_read(v, in, size, &target))
			return -1;
		return (in->reg & 7) == 2 ? near_call(v, in, target, size) : near_jump(v, target);
	default:
		if (jcc && !condition(vcpu_rflags(v), in->opcode & 15))
			return insn_done(v, in);
		return near_jump(v, target);
	}
}

/*
 * Near branches with an operand-size prefix: in 32-bit code, and in 64-bit code
 * on AMD, the instruction pointer loses all but its low 16 bits (APM 3 1.2.3).
 */
int sys_near16(struct vcpu *v, const struct insn *in)
{
	return near_branch(v, in, 2);
}

int sys_near(struct vcpu *v, const struct insn *in)
{
	return near_branch(v, in, in->code_size == 8 ? 8 : in->opsize == 2 ? 2 : 4);
}
