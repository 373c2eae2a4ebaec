/*
 * Token buckets.  Invariant: over any stretch of time no more than rate * time + burst is let
 * through, one oversized operation excepted, which is paid off before the next one starts.
 */
#include "devices/limit.h"

#define NS 1000000000.0

static double burst_of(uint64_t rate, uint64_t burst)
{
	double b = burst ? (double)burst : (double)rate / 10;

	return b < 1 ? 1 : b;
}

void limit_set(struct limit *l, const struct msg_dev_limits *set, uint64_t now_ns)
{
	l->set = *set;
	l->last_ns = now_ns;
	l->ops = burst_of(set->ops, set->ops_burst);
	l->bytes = burst_of(set->bytes, set->bytes_burst);
}

static double refill(double have, uint64_t rate, uint64_t burst, uint64_t ns)
{
	double full = burst_of(rate, burst);

	have += (double)rate * (double)ns / NS;
	return have > full ? full : have;
}

/* Nanoseconds until @have reaches @need. */
static uint64_t wait_for(double have, double need, uint64_t rate)
{
	return rate && have < need ? (uint64_t)((need - have) * NS / (double)rate) + 1 : 0;
}

bool limit_take(struct limit *l, uint64_t bytes, uint64_t now_ns, uint64_t *wait_ns)
{
	uint64_t ns = now_ns > l->last_ns ? now_ns - l->last_ns : 0;

	*wait_ns = 0;
	if (!l->set.ops && !l->set.bytes)
		return true;
	l->last_ns = now_ns;
	l->ops = refill(l->ops, l->set.ops, l->set.ops_burst, ns);
	l->bytes = refill(l->bytes, l->set.bytes, l->set.bytes_burst, ns);
	/* Bytes may go into debt: an operation larger than the burst passes once the debt of the last is paid. */
	uint64_t a = wait_for(l->ops, 1, l->set.ops), b = wait_for(l->bytes, 0, l->set.bytes);
	*wait_ns = a > b ? a : b;
	if (*wait_ns) {
		l->throttled++;
		return false;
	}
	if (l->set.ops)
		l->ops -= 1;
	if (l->set.bytes)
		l->bytes -= (double)bytes;
	return true;
}

void limit_owe(struct limit *l, uint64_t ops)
{
	if (l->set.ops)
		l->ops -= (double)ops;
}
