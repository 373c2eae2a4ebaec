/*
 * The paravirtual clock that tells guests the TSC's frequency.
 */
#ifndef HVX_CPU_PVCLOCK_H
#define HVX_CPU_PVCLOCK_H

#include "vcpu/vcpu.h"

#define MSR_KVM_WALL_CLOCK_NEW  0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

/* The two MSRs (KVM's guest interface, Documentation/virt/kvm/x86/msr.rst): 0 or -1 for #GP. */
int pvclock_set_time(struct vcpu *v, uint64_t val);
int pvclock_set_wall(struct vcpu *v, uint64_t val);

/* The guest's TSC was written: restate the clock. */
void pvclock_refresh(struct vcpu *v);

#endif
