/* Which decoded instructions may be tested: what the host CPU has, and what is deterministic. */
#ifndef HVX_INSN_ISA_H
#define HVX_INSN_ISA_H

#include <Zydis/Zydis.h>

enum isa_class {
	ISA_SKIP, /* absent from this CPU, or its result depends on more than the case's state */
	ISA_RUN,
	ISA_FAULTS, /* privileged: tested for its exception */
};

/* State components of AVX-512 (SDM 1 13.1). */
enum { XS_MASKS = 5, XS_ZMM_HI, XS_ZMM_16 };

/* Does this CPU have AVX-512 as guests are offered it, switched on? */
int isa_has_avx512(void);
/* Where a component of AVX-512 is in an XSAVE area of the standard format; 0: this CPU does not have it. */
unsigned isa_xs_off(int component);
/* Bytes of such an area up to the end of the last component that is tested. */
unsigned isa_xs_size(void);

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
