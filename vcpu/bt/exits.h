/* What glue.S calls when translated code leaves: continue at the returned host address, or NULL for the run loop. */
#ifndef HVX_EXITS_H
#define HVX_EXITS_H

#include <stdbool.h>

struct vcpu;

const void *bt_c_exit(struct vcpu *v); /* direct exits: v->exit */
/* Jump cache misses: to the address in r10, the guest's spare registers in their slots; of a block of one instruction. */
const void *bt_c_indirect(struct vcpu *v);
const void *bt_c_indirect_step(struct vcpu *v);
const void *bt_c_stale(struct vcpu *v); /* the jump cache led to a block that is gone: as bt_c_indirect, with no site */
const void *bt_c_gone(struct vcpu *v);  /* block v->site is gone and was entered, at offset v->exit of code memory */
const void *bt_c_sys(struct vcpu *v);   /* helpers, and branches that fault */
/* A host fault in translated code: BT_FAULT_AGAIN to go on at v->resume with all registers as they were, or NULL. */
#define BT_FAULT_AGAIN ((const void *)1)
const void *bt_c_fault(struct vcpu *v);
int bt_c_mem(struct vcpu *v);         /* soft TLB slow path: 1 = resume at v->resume with v->mem_addend, 0 = leave */
int bt_c_mem_checked(struct vcpu *v); /* the same through segments, with alignment and breakpoint checks */
/* A gather that was not done in place, its registers in v->gather: 1 = done but for loading v->gather.dst, resume at
 * v->resume; 0 = nothing has happened that counts, bt_c_sys() is to do it. */
int bt_c_gather(struct vcpu *v);
void bt_c_kicked(struct vcpu *v); /* v->resume, with a kick pending: where the CPU stops soon */

/* Does something wait for the run loop? */
bool bt_must_stop(const struct vcpu *v);
/* rip is in the page where a limited code segment ends: instructions are run one by one there. */
bool bt_cs_limit_near(const struct vcpu *v);

#endif
