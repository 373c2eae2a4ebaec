/*
 * Is a block's host code what translated code may be?  Shared by fuzz_translate and bt_test.
 *
 * The contract (vcpu/bt/README): unprivileged instructions of an allow list; memory operands in the fields of struct vcpu that
 * translated code has business with, or at an address whose check came before; jumps within the block, to the entry of a
 * block, through a cell of its own or the jump cache of its mode, into the glue; no engine address in a guest register.
 * And what does a guest instruction's work is that instruction: mnemonic, registers, sizes, immediates.
 */
#ifndef HVX_TESTS_VERIFY_H
#define HVX_TESTS_VERIFY_H

#include <stdbool.h>

#include <Zydis/Zydis.h>

#include "vcpu/bt/bt.h"

/* The most that a block takes with BT_MAX_INSNS; longer ones are reported. */
#define VERIFY_MAX 32768

struct verify_insn {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	uint32_t off; /* in code memory */
};

struct verify {
	const struct vcpu *v;
	const struct bt *bt;
	const struct block *b;
	struct verify_insn *in;
	unsigned n;
	int32_t *at; /* by offset from host_start: the instruction that begins there, or -1 */
	char *why;
	size_t size;
};

/* NULL, or @why: what is wrong with block @b and where.  Guest bytes are looked at where gmem has them. */
const char *verify_block(const struct vcpu *v, const struct block *b, char *why, size_t size);

/* Between the files.  All return false after filling why. */
bool verify_fail(struct verify *f, uint32_t off, const char *what);
int verify_index(const struct verify *f, uint64_t host); /* of the instruction at this address of bt->rx, or -1 */
bool verify_flow(struct verify *f);                      /* verify_flow.c */
bool verify_guest(struct verify *f);                     /* verify_guest.c */
int verify_gpr(ZydisRegister r);                         /* R_AX... of any width, or -1 */

#endif
