/*
 * The chips' notion of time: CLOCK_MONOTONIC nanoseconds, read through the
 * host's TSC so that a register read costs no system call, and the conversion
 * of TSC values to that time.
 */
#ifndef HVX_CLOCK_H
#define HVX_CLOCK_H

#include <stdint.h>

struct hclock {
	uint64_t tsc_hz;
	uint64_t mult;              /* ns per TSC tick, 32 fraction bits */
	uint64_t base_tsc, base_ns; /* one moment in both counts */
	uint64_t last;              /* latest value returned: time never goes back */
	const uint64_t *manual;     /* tests: time is *manual, and the TSC follows it */
};

void hclock_init(struct hclock *c, uint64_t tsc_hz);
uint64_t hclock_now(struct hclock *c);       /* ns */
uint64_t hclock_tsc(const struct hclock *c); /* the host's TSC now */
/* The time @ticks of the TSC from now; never overflows. */
uint64_t hclock_after(struct hclock *c, uint64_t ticks);

/* ticks = ns * hz / 1e9 and back, without overflow. */
static inline uint64_t ns_to_ticks(uint64_t ns, uint64_t hz)
{
	return (uint64_t)((unsigned __int128)ns * hz / 1000000000u);
}

static inline uint64_t ticks_to_ns(uint64_t ticks, uint64_t hz) /* rounded up: never before the tick */
{
	return (uint64_t)(((unsigned __int128)ticks * 1000000000u + hz - 1) / hz);
}

#endif
