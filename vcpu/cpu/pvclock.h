/*
 * The TSC's frequency, and the paravirtual clock that tells it to guests.
 */
#ifndef HVX_CPU_PVCLOCK_H
#define HVX_CPU_PVCLOCK_H

#include "vcpu/vcpu.h"

#define MSR_KVM_WALL_CLOCK_NEW  0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

/* Frequency of the host's TSC: from CPUID where it says so, else measured (takes 100 ms; before the seal). */
uint64_t cpu_host_tsc_hz(void);

/* The two MSRs (KVM's guest interface, Documentation/virt/kvm/x86/msr.rst): 0 or -1 for #GP. */
int pvclock_set_time(struct vcpu *v, uint64_t val);
int pvclock_set_wall(struct vcpu *v, uint64_t val);

/* The guest's TSC was written: restate the clock. */
void pvclock_refresh(struct vcpu *v);

#endif
