/* The parts of decode.c that know EVEX; for decode.c alone, as they speak the decoder's language. */
#ifndef HVX_DECODE_EVEX_H
#define HVX_DECODE_EVEX_H

#include <Zydis/Zydis.h>

#include "vcpu/bt/insn.h"

/* Fills insn.k and its companions; @in's memory operand is filled in. */
void decode_evex_mask(struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op);

/*
 * Outside 64-bit code there are eight registers: B, R', V' and the top bit of vvvv say nothing, and W does not where it is a general
 * register's size.  The host runs the bytes as 64-bit code, so they get the values of registers below 8.
 */
void decode_evex_narrow(struct insn *in, const ZydisDecodedInstruction *z);

#endif
