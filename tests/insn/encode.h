/* From a form to the bytes of a random instruction of it. */
#ifndef HVX_INSN_ENCODE_H
#define HVX_INSN_ENCODE_H

#include "forms.h"
#include "rng.h"

struct insn_inst { /* an instruction at an address */
	uint8_t bytes[16];
	ZydisDecodedInstruction in;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	const struct form *form;
};

/* Limits on what encode_random() may pick, for sequences. */
struct encode_limits {
	uint16_t base_ok;  /* GPRs allowed as base of an explicit memory operand, 0 = any */
	uint16_t index_ok; /* likewise as index (and no index) */
	uint8_t plain;     /* no prefixes that do not belong to the form, no rip-relative or absolute address */
};

/* Random registers, memory shape, prefixes and immediate for @f.  0, or -1 when none that decodes back to
 * @f was found in a few tries. */
int encode_random(const struct forms *t, const struct form *f, struct rng *r, const struct encode_limits *lim,
		  struct insn_inst *out);

/* Decodes @out->bytes into the rest. */
int encode_redecode(const struct forms *t, struct insn_inst *out);

/* GPR number of a register operand's register, -1 when it is none. */
int gpr_of(ZydisRegister reg);
/* The number of an xmm, ymm or zmm register. */
unsigned vector_number(ZydisRegister reg);

#endif
