/*
 * The bench's workloads: a table of rows, each a function that does the same
 * deterministic work n times and returns the result of one time.
 *
 * Invariant: a row's result does not depend on n, on the machine or on time, so
 * that equal results in two environments show that both did the same work.
 */
#ifndef BENCH_WORK_H
#define BENCH_WORK_H

#include <stddef.h>
#include <stdint.h>

struct row {
	const char *group;
	const char *name;
	/* Called once before run; may be NULL. */
	void (*setup)(void);
	/* Does the work n times; returns the result of the last. */
	uint64_t (*run)(uint64_t n);
	/* True if this CPU has what the row needs; NULL means always. */
	int (*usable)(void);
};

extern const struct row cpu_rows[], fp_rows[], memory_rows[], kernel_rows[], jit_rows[], real_rows[];

/* A deterministic generator (xorshift64*): the next number of *state, which is never 0. */
static inline uint64_t rnd_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* Folds v into the running checksum sum. */
static inline uint64_t mix(uint64_t sum, uint64_t v)
{
	return (sum ^ v) * 0x9e3779b97f4a7c15ull + (sum >> 29);
}

/* Hides a value from the optimiser. */
#define OPAQUE(v) __asm__ volatile("" : "+r"(v))
/* Makes the optimiser believe that memory was read and written. */
#define TOUCH() __asm__ volatile("" ::: "memory")

/* Anonymous memory of `bytes` bytes, touched; ends the row's process on failure. */
void *work_pages(size_t bytes);
/* Ends the row's process with a message when cond is false. */
void work_check(int cond, const char *what);

#endif
