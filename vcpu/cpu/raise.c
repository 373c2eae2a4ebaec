/*
 * Raising exceptions: recorded here, delivered by cpu_deliver_pending().
 * Invariant: one exception is pending at most; the last one raised counts.
 */
#include "vcpu/vcpu.h"

void raise_record(struct vcpu *v, unsigned vector, bool has_error, uint32_t error)
{
	v->exc_pending = 1;
	v->exc_vector = (uint8_t)vector;
	v->exc_has_error = has_error;
	v->exc_soft = 0;
	v->exc_error = error;
}
