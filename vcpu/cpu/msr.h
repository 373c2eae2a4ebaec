/*
 * Model-specific registers.
 */
#ifndef HVX_CPU_MSR_H
#define HVX_CPU_MSR_H

#include "vcpu/vcpu.h"

/* 0, or -1 when the access must raise #GP(0) (the caller raises). An MSR that does not exist is logged once. */
int msr_read(struct vcpu *v, uint32_t msr, uint64_t *val);
int msr_write(struct vcpu *v, uint32_t msr, uint64_t val);

#endif
