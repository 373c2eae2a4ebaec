/*
 * EVEX instructions whose operand in memory has a mask: which of its bytes count (SDM 2A 2.7.4, 2.7.5).
 */
#ifndef HVX_EVEX_H
#define HVX_EVEX_H

#include <stdint.h>

struct insn;
struct vcpu;

/* insn.k_way: what the low insn.k_bits bits of mask register insn.k choose. */
enum k_way {
	K_EACH,   /* each an element of insn.k_size bytes */
	K_ANY,    /* any of them the whole operand: one element, for all that are computed or for the lowest */
	K_TUPLE,  /* each an element of an operand that is repeated: the bits of all its copies */
	K_PACKED, /* so many elements from the first one on: what is compressed or expanded */
	K_WHOLE,  /* as K_EACH, but all of the operand must be there: vextract */
};

/* A bit per byte of @in's operand in memory that counts when its mask register holds @k. */
uint64_t evex_bytes(const struct insn *in, uint64_t k);

/*
 * The operand of @in, at v->rip, is not plain RAM within one page as a whole: has vcpu.next run it on a buffer of which only the
 * bytes that count are read and written.  Or raises what is wrong with the lowest element's address.
 */
void evex_masked(struct vcpu *v, const struct insn *in);

#endif
