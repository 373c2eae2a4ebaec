/*
 * System calls of hvx-vcpu.  See seal.c.
 */
#ifndef HVX_VCPU_SEAL_H
#define HVX_VCPU_SEAL_H

#include "common/sandbox.h"

extern const struct sandbox_table vcpu_seal;

#endif
