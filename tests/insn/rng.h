/* A small deterministic generator (splitmix64): same seed, same cases, on every host. */
#ifndef HVX_INSN_RNG_H
#define HVX_INSN_RNG_H

#include <stdint.h>

struct rng {
	uint64_t s;
};

static inline uint64_t rnd(struct rng *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Uniform below @n (n >= 1). */
static inline uint32_t below(struct rng *r, uint32_t n)
{
	return (uint32_t)(((rnd(r) >> 32) * n) >> 32);
}

/* True once in @n. */
static inline int one_in(struct rng *r, uint32_t n)
{
	return below(r, n) == 0;
}

#endif
