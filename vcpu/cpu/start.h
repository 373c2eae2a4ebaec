/*
 * INIT and start-up IPIs (SDM 3A 8.4, 11.6.1), from whoever sends them to the CPU's own thread.  See start.c.
 */
#ifndef HVX_CPU_START_H
#define HVX_CPU_START_H

#include "vcpu/vcpu.h"

/* An INIT (@vector -1) or a start-up IPI arrives at @v: from any thread. */
void start_post(struct vcpu *v, int vector);

#define START_INIT (1u << 8)
#define START_SIPI (1u << 9) /* behind the INIT, if there is one; its vector in the low byte */

#endif
