/*
 * What of a virtual CPU is saved.  See save_cpu.c.
 */
#ifndef HVX_SAVE_CPU_H
#define HVX_SAVE_CPU_H

#include "common/save.h"

/* Of struct cpu, with the guest's vector state in fpu_area (vcpu_fpu_out()), between two instructions. */
extern const struct save_table cpu_save;

#endif
