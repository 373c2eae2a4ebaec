/* Points memory operands at chosen addresses. */
#ifndef HVX_INSN_STEER_H
#define HVX_INSN_STEER_H

#include "encode.h"
#include "state.h"

struct steer {
	struct rng *r;
	struct testcase *tc;
	uint16_t fixed; /* GPRs that must keep their value */
	int bits32;
	int wild;          /* percent of operands that go to odd places */
	uint64_t next_rip; /* of the instruction */
	uint64_t slot;     /* code of this test */
};

/* An address for an access of @size bytes, mostly good, sometimes unaligned, crossing, read-only, absent... */
uint64_t steer_target(struct steer *s, unsigned size);

/* Changes registers (not the fixed ones) so that operand @op of @in accesses @target; marks what it used as
 * fixed.  0, or -1 when the operand cannot be moved. */
int steer_operand(struct steer *s, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op, uint64_t target);

/* The address operand @op accesses with the registers in s->tc. */
uint64_t steer_ea(const struct steer *s, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op);

#endif
