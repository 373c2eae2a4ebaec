/* Gathers and scatters: see gather.c. */
#ifndef HVX_GATHER_H
#define HVX_GATHER_H

#include <stdbool.h>
#include <stdint.h>

struct insn;
struct vcpu;

struct gather {
	uint8_t dst, index, mask; /* vector registers; of a scatter dst is what is stored */
	uint8_t k;                /* EVEX: the mask register instead; else 0 */
	uint8_t length;           /* EVEX: bytes of the vector */
	bool scatter;
	uint8_t count, esize, isize; /* elements, bytes of an element, bytes of an index */
	uint8_t base, scale;         /* R_*; 1, 2, 4, 8 */
};

/* The fields of VEX or EVEX and SIB that struct insn does not carry. */
struct gather gather_decode(const struct insn *in);

/* Runs one gather (VEX and EVEX.66.0F38 90 to 93) or scatter (EVEX.66.0F38 A0 to A3): 0 with rip after it, or -1 after raising
 * (elements that came before the fault are done, their mask bits clear: SDM 2C, VPGATHERDD, VPSCATTERDD). */
int bt_gather(struct vcpu *v, const struct insn *in);

#endif
