/*
 * The table of system instructions, and those about MSRs, CPUID and time.
 *
 * Invariant: every enum sysop has a handler.
 */
#include "vcpu/cpu/sysinsn.h"

#include "vcpu/cpu/cpuid.h"
#include "vcpu/cpu/msr.h"
#include "vcpu/kick.h"

int (*const sys_handlers[SYS_COUNT])(struct vcpu *v, const struct insn *in) = {
#define X(op, fn) [SYS_##op] = sys_##fn,
	SYS_HANDLERS(X)
#undef X
};

/* One function pointer per X() line: a sysop without one does not compile. */
#define X(op, fn) +1
_Static_assert(0 SYS_HANDLERS(X) == SYS_COUNT, "every sysop has a handler");
#undef X

int sys_ud(struct vcpu *v, const struct insn *in)
{
	return raise_ud(v);
}

int sys_pause(struct vcpu *v, const struct insn *in)
{
	insn_done(v, in);
	kick_pause(v);
	return 0;
}

int sys_rdmsr(struct vcpu *v, const struct insn *in)
{
	uint64_t val;

	if (v->cpl != 0 || msr_read(v, (uint32_t)v->regs[R_CX], &val))
		return raise_gp(v, 0);
	v->regs[R_AX] = (uint32_t)val;
	v->regs[R_DX] = val >> 32;
	return insn_done(v, in);
}

int sys_wrmsr(struct vcpu *v, const struct insn *in)
{
	uint64_t val = (uint32_t)v->regs[R_AX] | v->regs[R_DX] << 32;

	if (v->cpl != 0 || msr_write(v, (uint32_t)v->regs[R_CX], val))
		return raise_gp(v, 0);
	return insn_done(v, in);
}

int sys_cpuid(struct vcpu *v, const struct insn *in)
{
	uint32_t r[4];

	cpuid_query(v, (uint32_t)v->regs[R_AX], (uint32_t)v->regs[R_CX], r);
	v->regs[R_AX] = r[0];
	v->regs[R_BX] = r[1];
	v->regs[R_CX] = r[2];
	v->regs[R_DX] = r[3];
	v->stats.cpuids++;
	return insn_done(v, in);
}

uint64_t cpu_tsc(const struct vcpu *v)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return ((uint64_t)hi << 32 | lo) + v->tsc_offset;
}

int sys_rdtsc(struct vcpu *v, const struct insn *in)
{
	uint64_t tsc;

	if ((v->cr4 & CR4_TSD) && v->cpl != 0)
		return raise_gp(v, 0);
	tsc = cpu_tsc(v);
	v->regs[R_AX] = (uint32_t)tsc;
	v->regs[R_DX] = tsc >> 32;
	return insn_done(v, in);
}

int sys_rdtscp(struct vcpu *v, const struct insn *in)
{
	__asm__ volatile("lfence" ::: "memory"); /* it waits for what comes before it, rdtsc does not (SDM 2B RDTSCP) */
	if (sys_rdtsc(v, in))
		return -1;
	v->regs[R_CX] = (uint32_t)v->tsc_aux;
	return 0;
}

/* No counters are offered: every index is invalid. */
int sys_rdpmc(struct vcpu *v, const struct insn *in)
{
	return raise_gp(v, 0);
}

int sys_rdpid(struct vcpu *v, const struct insn *in)
{
	v->regs[in->rm & 15] = (uint32_t)v->tsc_aux;
	return insn_done(v, in);
}
