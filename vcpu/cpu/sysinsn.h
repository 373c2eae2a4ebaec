/*
 * System and sensitive instructions in C.
 */
#ifndef HVX_CPU_SYSINSN_H
#define HVX_CPU_SYSINSN_H

#include "vcpu/bt/insn.h"
#include "vcpu/cpu/operand.h"

/*
 * One handler per enum sysop, none missing (index 0, SYS_NONE, raises #UD).
 * On entry v->rip is the instruction's address and the general registers are
 * in v->regs.  0: done, v->rip is where to go on (the same instruction, when a
 * rep ins/outs has iterations left).  -1: an exception was raised and nothing
 * changed but what the architecture says (finished iterations of ins/outs).
 * int n, int3, into and int1 deliver themselves (cpu_soft_int): after 0, v->rip
 * is the handler's; v->exc_soft is never set.
 */
extern int (*const sys_handlers[SYS_COUNT])(struct vcpu *v, const struct insn *in);

/* The handlers, by enum sysop; X(SYSOP suffix, function suffix). */
/* clang-format off: one a line */
#define SYS_HANDLERS(X)               \
	X(CLI, cli)                   \
	X(STI, sti)                   \
	X(PUSHF, pushf)               \
	X(POPF, popf)                 \
	X(HLT, hlt)                   \
	X(INT, int)                   \
	X(INT1, int1)                 \
	X(INT3, int3)                 \
	X(INTO, into)                 \
	X(IRET, iret)                 \
	X(CLAC, clac)                 \
	X(STAC, stac)                 \
	X(SYSCALL, syscall)           \
	X(SYSRET, sysret)             \
	X(SYSENTER, sysenter)         \
	X(SYSEXIT, sysexit)           \
	X(FAR_JMP, far_jmp)           \
	X(FAR_CALL, far_call)         \
	X(FAR_RET, far_ret)           \
	X(MOV_FROM_CR, mov_from_cr)   \
	X(MOV_TO_CR, mov_to_cr)       \
	X(MOV_FROM_DR, mov_from_dr)   \
	X(MOV_TO_DR, mov_to_dr)       \
	X(CLTS, clts)                 \
	X(LMSW, lmsw)                 \
	X(SMSW, smsw)                 \
	X(INVLPG, invlpg)             \
	X(INVPCID, invpcid)           \
	X(INVD, invd)                 \
	X(WBINVD, invd)               \
	X(XGETBV, xgetbv)             \
	X(XSETBV, xsetbv)             \
	X(LGDT, lgdt)                 \
	X(LIDT, lidt)                 \
	X(SGDT, sgdt)                 \
	X(SIDT, sidt)                 \
	X(LLDT, lldt)                 \
	X(LTR, ltr)                   \
	X(SLDT, sldt)                 \
	X(STR, str)                   \
	X(LAR, lar)                   \
	X(LSL, lsl)                   \
	X(VERR, verr)                 \
	X(VERW, verw)                 \
	X(ARPL, arpl)                 \
	X(MOV_TO_SEG, mov_to_seg)     \
	X(MOV_FROM_SEG, mov_from_seg) \
	X(PUSH_SEG, push_seg)         \
	X(POP_SEG, pop_seg)           \
	X(LOAD_FAR_PTR, load_far_ptr) \
	X(SWAPGS, swapgs)             \
	X(RDFSBASE, rdfsbase)         \
	X(RDGSBASE, rdgsbase)         \
	X(WRFSBASE, wrfsbase)         \
	X(WRGSBASE, wrgsbase)         \
	X(NONE, ud)                   \
	X(RDMSR, rdmsr)               \
	X(WRMSR, wrmsr)               \
	X(CPUID, cpuid)               \
	X(RDTSC, rdtsc)               \
	X(RDTSCP, rdtscp)             \
	X(RDPMC, rdpmc)               \
	X(RDPID, rdpid)               \
	X(MONITOR, ud)                \
	X(MWAIT, ud)                  \
	X(UD, ud)                     \
	X(XSAVE, xsave)               \
	X(XSAVEOPT, xsaveopt)         \
	X(XSAVEC, xsavec)             \
	X(XRSTOR, xrstor)             \
	X(FXSAVE, fxsave)             \
	X(FXRSTOR, fxrstor)           \
	X(FNSAVE, fnsave)             \
	X(FRSTOR, frstor)             \
	X(FNSTENV, fnstenv)           \
	X(FLDENV, fldenv)             \
	X(NM, nm)                     \
	X(IN, in)                     \
	X(OUT, out)                   \
	X(INS, ins)                   \
	X(OUTS, outs)                 \
	X(AAA, aaa)                   \
	X(AAS, aas)                   \
	X(AAD, aad)                   \
	X(AAM, aam)                   \
	X(DAA, daa)                   \
	X(DAS, das)                   \
	X(PUSHA, pusha)               \
	X(POPA, popa)                 \
	X(BOUND, bound)               \
	X(SALC, salc)                 \
	X(NEAR16, near16)             \
	X(NEAR, near)                 \
	X(PAUSE, pause)               \
	X(ENTER, enter)
/* clang-format on */

#define X(op, fn) int sys_##fn(struct vcpu *v, const struct insn *in);
SYS_HANDLERS(X)
#undef X

/* CR0, CR3, CR4 and XCR0 writes with every check; 0 or -1 after raising #GP(0). */
int cr0_write(struct vcpu *v, uint64_t val);
int cr3_write(struct vcpu *v, uint64_t val);
int cr4_write(struct vcpu *v, uint64_t val);

/* Guest TSC now. */
uint64_t cpu_tsc(const struct vcpu *v);

#endif
