/* Changes to inputs, deterministic in the generator's state.  See mutate.c. */
#ifndef HVX_FUZZ_MUTATE_H
#define HVX_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

#include "tests/insn/rng.h"

/* Changes @buf (@len bytes, room for @cap) in 1 to 8 places; parts may come from @other.  The new length, 1 at least. */
size_t mutate(struct rng *r, uint8_t *buf, size_t len, size_t cap, const uint8_t *other, size_t other_len);

#endif
