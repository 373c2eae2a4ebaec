/* Which decoded instructions may be tested: what the host CPU has, and what is deterministic. */
#ifndef HVX_INSN_ISA_H
#define HVX_INSN_ISA_H

#include <Zydis/Zydis.h>

enum isa_class {
	ISA_SKIP, /* absent from this CPU, or its result depends on more than the case's state */
	ISA_RUN,
	ISA_FAULTS, /* privileged: tested for its exception */
};

enum isa_class isa_classify(const ZydisDecodedInstruction *in);
/* Whose near branches: AMD's obey 66h in 64-bit code. */
int isa_host_is_amd(void);
/* Does loading a null selector into fs or gs clear the base, as the engine does?  AMD's CPUs before Zen 2 keep it. */
int isa_null_clears_base(void);
/* Are 256-bit operands two accesses of 128 bits (Zen 1)?  Then either half may be the one that faults. */
int isa_splits_256(void);
/* A store whose result's exceptions Intel's CPUs look at before they look at the operand, AMD's after it. */
int isa_stores_after_computing(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops);

#endif
