/* Random values that are likely to matter: integers, floating point, whole states, memory. */
#ifndef HVX_INSN_VALUES_H
#define HVX_INSN_VALUES_H

#include "rng.h"
#include "state.h"

uint64_t value_int(struct rng *r);
/* Fills @len bytes (a multiple of 8) with one kind of element: floats of some width with special values,
 * integers, or noise. */
void value_vector(struct rng *r, uint8_t *p, unsigned len);
void value_state(struct rng *r, struct cpu_state *st, int bits32);
void value_image(struct rng *r, uint8_t *image);

/* Address of a well-formed XSAVE area in the image, for xrstor and fxrstor. */
#define GOOD_XSAVE (DATA_BASE + 0x400)

#endif
