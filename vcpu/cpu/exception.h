/*
 * Delivery of interrupts and exceptions through the IDT.
 */
#ifndef HVX_CPU_EXCEPTION_H
#define HVX_CPU_EXCEPTION_H

#include "vcpu/vcpu.h"

enum event_type {
	EVENT_INTR, /* external interrupt */
	EVENT_NMI,
	EVENT_EXC,  /* exception; v->rip is what is pushed */
	EVENT_SOFT, /* int n, int3, into: the gate's DPL counts */
	EVENT_INT1, /* int1: like EVENT_SOFT, no DPL check */
};

/*
 * Delivers @vector at v->rip: pushes the frame, enters the handler, turns
 * nested faults into what the CPU would (SDM 3A 6.15, table 6-5).  0, or 1 for
 * a triple fault: then the CPU is shut down and only a reset helps.  NMIs set
 * nmi_blocked.  Interrupt shadows are the caller's business.
 */
int cpu_deliver(struct vcpu *v, unsigned vector, int type, bool has_error, uint32_t error);

/* Delivers what raise_*() recorded (with CR2 and DR6) and clears it.  0, or 1 for a triple fault. */
int cpu_deliver_pending(struct vcpu *v);

/*
 * What entering a #DB handler does to the debug registers.  SDM 3B 17.2.3: B0 to B3 of @dr6 are those of this exception,
 * the rest is sticky; 0 tells nothing new.  DR7.GD is cleared.
 */
void cpu_enter_debug(struct vcpu *v, uint64_t dr6);

/*
 * A software interrupt: delivers it with @next as the return address, at once.
 * 0: v->rip is the handler's.  -1: a fault was raised, v is unchanged and
 * v->rip is still the instruction's.  (v->exc_soft is not used: always 0.)
 */
int cpu_soft_int(struct vcpu *v, unsigned vector, enum event_type type, uint64_t next);

#endif
