/*
 * Real and virtual-8086 mode: transfers and events without descriptors.
 */
#ifndef HVX_CPU_REAL_H
#define HVX_CPU_REAL_H

#include "vcpu/cpu/segment.h"

/*
 * Loads a segment register of real mode, the base alone and for CS rights that let it be written (SDM 3A 9.9.2, 20.1.1), or of
 * virtual-8086 mode.  The translation mode follows.
 */
void load_8086(struct vcpu *v, unsigned seg, uint16_t sel);

/* Far transfers in real and virtual-8086 mode; as those of cpu/segment.h. */
int real_far_jump(struct vcpu *v, uint16_t sel, uint64_t off);
int real_far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next);
int real_far_return(struct vcpu *v, unsigned opsize, unsigned pop);
int real_iret(struct vcpu *v, unsigned opsize);

/* The rest of an iret from ring 0 whose flags have VM set: @st is behind the flags (SDM 2A IRET). */
int v86_enter(struct vcpu *v, struct stack *st, uint64_t rip, uint16_t cs, uint64_t fl);

/* Enters the handler that the vector table at the IDT's base (0 in virtual-8086 mode) names; @rip is pushed.  0 or -1. */
int real_event(struct vcpu *v, unsigned vector, uint64_t rip, uint32_t ext);

/* CR4.VME: does the redirection bitmap leave int @vector to the 8086 program?  0, or -1 after raising (SDM 3A 20.3.3.2). */
int v86_redirected(struct vcpu *v, unsigned vector, bool *yes);

#endif
