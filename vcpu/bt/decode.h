/* Guest bytes to struct insn: the only user of the Zydis decoder. */
#ifndef HVX_DECODE_H
#define HVX_DECODE_H

#include <stddef.h>

#include "vcpu/bt/insn.h"

enum insn_class {
	CLS_REG, /* registers only: its own bytes */
	CLS_MEM, /* one explicit memory operand */
	CLS_LEA,
	CLS_NOP, /* no effect the guest can see: nothing is emitted */
	CLS_PUSH,
	CLS_POP,
	CLS_LEAVE,
	CLS_JCC,
	CLS_LOOP,
	CLS_JMP,
	CLS_CALL,
	CLS_JMP_IND,
	CLS_CALL_IND,
	CLS_RET,
	CLS_STRING, /* movs stos lods scas cmps, rep or not */
	CLS_BT,     /* bt bts btr btc m, r: the register moves the address */
	CLS_XLAT,
	CLS_MASKMOV,       /* maskmovdqu, maskmovq: [rdi] */
	CLS_GATHER,        /* vsib operand */
	CLS_SYS,           /* semantics in C: sysop */
	CLS_SYS_INLINE,    /* a sysop that this mode lets the translator do in place (translate_sys.c) */
	CLS_GATHER_INLINE, /* a gather likewise (translate_gather.c) */
	CLS_STRING_INLINE, /* movs and stos likewise (translate_string.c) */
};

enum { DECODE_OK = 0, DECODE_SHORT = -1 };

/*
 * Decodes one instruction of at most @len bytes for code of @code_size bytes (2, 4, 8) and a CPU with @features
 * (cpu/feature.h).  Anything undefined, longer than 15 bytes or not offered becomes SYS_UD; so does what could reach state or
 * memory that is not the guest's.  DECODE_SHORT when the instruction needs bytes beyond @len (len < 15).
 */
int decode_insn(struct insn *in, const uint8_t *bytes, size_t len, unsigned code_size, uint64_t features);

/* Which string instruction a CLS_STRING is: its opcode byte without the width bit. */
enum { STR_MOVS = 0xa4, STR_CMPS = 0xa6, STR_STOS = 0xaa, STR_LODS = 0xac, STR_SCAS = 0xae };

#endif
