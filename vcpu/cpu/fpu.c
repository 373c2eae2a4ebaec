/*
 * The guest's x87, SSE and AVX state on its way between the host's registers
 * and memory.
 *
 * Invariant: exactly one of the two holds it, as v->fpu_saved says.
 */
#include "vcpu/vcpu.h"

/* x87, SSE and AVX: all a guest can be offered.  Bits the host lacks are masked by the host's own XCR0. */
#define GUEST_STATE 7u

static const uint32_t default_mxcsr = 0x1f80;

void vcpu_fpu_out(struct vcpu *v)
{
	if (v->fpu_saved)
		return;
	__asm__ volatile("xsave64 %0\n\t"
			 "fninit\n\t"
			 "ldmxcsr %1"
			 : "+m"(v->fpu_area)
			 : "m"(default_mxcsr), "a"(GUEST_STATE), "d"(0)
			 : "memory");
	v->fpu_saved = 1;
}

void vcpu_fpu_in(struct vcpu *v)
{
	if (!v->fpu_saved)
		return;
	__asm__ volatile("xrstor64 %0" : : "m"(v->fpu_area), "a"(GUEST_STATE), "d"(0) : "memory");
	v->fpu_saved = 0;
}
