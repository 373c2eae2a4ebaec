/*
 * Hardware task switches.
 */
#ifndef HVX_CPU_TASK_H
#define HVX_CPU_TASK_H

#include "vcpu/cpu/segment.h"

enum task_way { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };

/*
 * Is @sel the selector of a TSS that may be switched to: in the GDT, a TSS, available (for TASK_IRET busy), present?
 * Fills @d.  0, or -1 after raising #GP, for TASK_IRET #TS, or #NP, with the selector and @ext.  The privilege checks
 * of far jumps and calls are the caller's.  (SDM 2A JMP, CALL, INT n, IRET)
 */
int task_find(struct vcpu *v, uint16_t sel, enum task_way way, uint32_t ext, struct desc *d);

/*
 * Switches to the task of @d, which task_find() gave; @next is where the old one goes on (SDM 3A 7.3).  0: done, a #DB
 * may be pending.  -1: something was raised, either with nothing changed or, once the new task is the current one, at its
 * first instruction: v->rip tells.  Outside long mode only.
 */
int task_switch(struct vcpu *v, uint16_t sel, struct desc *d, enum task_way way, uint64_t next, uint32_t ext);

/* The link field of the current TSS, which iret with NT goes to; 0 or -1. */
int task_link(struct vcpu *v, uint16_t *sel);

#endif
