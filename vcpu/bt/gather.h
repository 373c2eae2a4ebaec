/* AVX2 gathers: see gather.c. */
#ifndef HVX_GATHER_H
#define HVX_GATHER_H

#include <stdint.h>

struct insn;
struct vcpu;

struct gather {
	uint8_t dst, index, mask;    /* vector registers */
	uint8_t count, esize, isize; /* elements, bytes of an element, bytes of an index */
	uint8_t base, scale;         /* R_*; 1, 2, 4, 8 */
};

/* The fields of VEX and SIB that struct insn does not carry. */
struct gather gather_decode(const struct insn *in);

/* Runs one gather (VEX.66.0F38 90 to 93): 0 with rip after it, or -1 after raising (elements that came before the
 * fault are in the destination, their mask bits clear: SDM 2C, VPGATHERDD). */
int bt_gather(struct vcpu *v, const struct insn *in);

#endif
