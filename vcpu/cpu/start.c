/*
 * INIT and start-up IPIs.
 * Invariant: only the CPU's own thread changes its state; what others send waits in v->start, as much of it as a CPU remembers:
 * whether an INIT came, and the first start-up IPI behind it.
 */
#include "vcpu/cpu/start.h"

static uint32_t with(uint32_t old, int vector)
{
	if (vector < 0)
		return START_INIT;
	return old & START_SIPI ? old : old | START_SIPI | (uint8_t)vector;
}

void start_post(struct vcpu *v, int vector)
{
	uint32_t old = atomic_load(&v->start);

	while (!atomic_compare_exchange_weak(&v->start, &old, with(old, vector)))
		;
	vcpu_kick(v, PEND_START);
}
