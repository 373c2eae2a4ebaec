/*
 * Power-on state and the states boot code starts kernels in.
 */
#ifndef HVX_CPU_RESET_H
#define HVX_CPU_RESET_H

#include "vcpu/vcpu.h"

/* Power-on state (SDM 3A table 9-1); builds CPUID, so v->id and v->vm with ncpus and tsc_hz are set before. */
void cpu_reset(struct vcpu *v);

/* What INIT resets, which leaves the FPU, the TSC, the caches' bits in CR0, memory types and most other MSRs (SDM 3A table 9-1). */
void cpu_init(struct vcpu *v);

/* A start-up IPI, after INIT: real mode at @vector:0000. */
void cpu_start(struct vcpu *v, uint8_t vector);

/* On @v's thread, with PEND_START set: does what has arrived (start.h). */
void cpu_take_start(struct vcpu *v);

/* After cpu_reset of both: as @bsp's firmware, or what stands in for it, leaves the others: TSCs in step, the same memory types,
 * waiting for a start-up IPI. */
void cpu_park(struct vcpu *v, const struct vcpu *bsp);

/* After cpu_reset: the 64-bit entry of the Linux boot protocol: long mode with @cr3, CS 0x10, data 0x18, IF clear. */
void cpu_set_long_flat(struct vcpu *v, uint64_t cr3, uint64_t rip, uint64_t rsi);

/* After cpu_reset: multiboot's and PVH's entry: 32-bit flat, paging off, CS 0x8, data 0x10, IF clear. */
void cpu_set_prot_flat(struct vcpu *v, uint32_t eip, uint32_t eax, uint32_t ebx);

/* After cpu_reset: the 32-bit entry of the Linux boot protocol: as above with CS 0x10, data 0x18, esi = @esi. */
void cpu_set_linux32(struct vcpu *v, uint32_t eip, uint32_t esi);

#endif
