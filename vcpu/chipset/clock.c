/*
 * Time for the chips.
 *
 * Invariant: hclock_now() never goes backwards, and its distance from
 * CLOCK_MONOTONIC is bounded by what the two clocks drift apart in
 * REBASE_NS, after which a fresh pair of readings is taken.
 */
#include "vcpu/chipset/clock.h"

#include <stddef.h>
#include <time.h>

#define REBASE_NS 50000000u

static uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static uint64_t monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void rebase(struct hclock *c)
{
	c->base_tsc = hclock_tsc(c);
	c->base_ns = c->manual ? *c->manual : monotonic();
}

void hclock_init(struct hclock *c, uint64_t tsc_hz)
{
	c->tsc_hz = tsc_hz ? tsc_hz : 1000000000u;
	c->mult = (uint64_t)(((unsigned __int128)1000000000u << 32) / c->tsc_hz);
	c->last = 0;
	rebase(c);
}

uint64_t hclock_tsc(const struct hclock *c)
{
	if (__builtin_expect(c->manual != NULL, 0))
		return ns_to_ticks(*c->manual, c->tsc_hz);
	return rdtsc();
}

static uint64_t scale(const struct hclock *c, uint64_t ticks)
{
	unsigned __int128 ns = (unsigned __int128)ticks * c->mult >> 32;

	return ns > UINT64_MAX / 2 ? UINT64_MAX / 2 : (uint64_t)ns;
}

uint64_t hclock_now(struct hclock *c)
{
	uint64_t tsc, ns;

	if (__builtin_expect(c->manual != NULL, 0))
		return *c->manual;
	tsc = rdtsc();
	ns = tsc > c->base_tsc ? scale(c, tsc - c->base_tsc) : 0;
	if (ns > REBASE_NS) {
		rebase(c);
		ns = 0;
	}
	ns += c->base_ns;
	if (ns < c->last)
		return c->last;
	return c->last = ns;
}

uint64_t hclock_after(struct hclock *c, uint64_t ticks)
{
	return hclock_now(c) + scale(c, ticks) + 1;
}
