/*
 * Measures the TSC.  CPUID leaf 15h is not asked: on virtual hosts it is absent
 * or tells the nominal value, and the guest's clock must agree with the host's.
 * Invariant: each end of the interval is the best of several readings.
 */
#include "vcpu/tsc.h"

#include <time.h>

struct reading {
	uint64_t tsc, ns;
};

static uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The clock read between two TSC readings that lie closest together. */
static struct reading best_reading(void)
{
	struct reading r = {0, 0};
	uint64_t best = ~0ull;

	for (int i = 0; i < 200; i++) {
		uint64_t a = rdtsc(), ns = now_ns(), b = rdtsc();
		if (b - a >= best)
			continue;
		best = b - a;
		r.tsc = a + (b - a) / 2;
		r.ns = ns;
	}
	return r;
}

uint64_t tsc_measure(unsigned ms)
{
	const struct timespec wait = {ms / 1000, (long)(ms % 1000) * 1000000};
	struct reading a = best_reading();

	clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, NULL);
	struct reading b = best_reading();
	uint64_t dt = b.ns - a.ns;
	return dt ? (uint64_t)((unsigned __int128)(b.tsc - a.tsc) * 1000000000u / dt) : 0;
}
