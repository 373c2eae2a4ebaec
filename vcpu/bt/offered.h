/* Which instructions the guest's CPU has. */
#ifndef HVX_OFFERED_H
#define HVX_OFFERED_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Does a CPU with @features (cpu/feature.h) have the instruction that the decoder numbers @mnemonic, of the set it numbers
 * @isa_set?  A set without a row is nobody's.
 */
bool offered(uint64_t features, unsigned isa_set, unsigned mnemonic);

#endif
