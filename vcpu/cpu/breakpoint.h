/*
 * Data and I/O breakpoints of the debug registers.
 */
#ifndef HVX_CPU_BREAKPOINT_H
#define HVX_CPU_BREAKPOINT_H

#include "vcpu/vcpu.h"

/*
 * Notes in v->db_hits the breakpoints that an access of @size bytes meets (SDM 3B 18.2.4); the run loop, which steps while
 * any is enabled, raises #DB after the instruction.  @acc: ACC_R, ACC_W.  True when there are any.
 */
bool breakpoint_access(struct vcpu *v, uint64_t lin, unsigned size, unsigned acc);

/* The same for ports, with CR4.DE. */
void breakpoint_port(struct vcpu *v, uint16_t port, unsigned size);

#endif
