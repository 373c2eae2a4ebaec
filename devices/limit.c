/*
 * Token buckets.  Invariant: over any stretch of time no more than rate * time + burst is let
 * through, one oversized operation excepted, which is paid off before the next one starts.
 */
#include "devices/limit.h"

#define NS 1000000000 /* a token is so many billionths, so a rate is so many of them a nanosecond */

static __int128 burst_of(uint64_t rate, uint64_t burst)
{
	__int128 b = burst ? burst : rate / 10;

	return (b < 1 ? 1 : b) * NS;
}

void limit_set(struct limit *l, const struct msg_dev_limits *set, uint64_t now_ns)
{
	l->set = *set;
	l->last_ns = now_ns;
	l->ops = burst_of(set->ops, set->ops_burst);
	l->bytes = burst_of(set->bytes, set->bytes_burst);
}

static __int128 refill(__int128 have, uint64_t rate, uint64_t burst, uint64_t ns)
{
	__int128 full = burst_of(rate, burst);

	have += (__int128)rate * ns;
	return have > full ? full : have;
}

/* Nanoseconds until @have reaches @need. */
static uint64_t wait_for(__int128 have, __int128 need, uint64_t rate)
{
	return rate && have < need ? (uint64_t)((need - have + rate - 1) / rate) : 0;
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
	uint64_t a = wait_for(l->ops, NS, l->set.ops), b = wait_for(l->bytes, 0, l->set.bytes);
	*wait_ns = a > b ? a : b;
	if (*wait_ns) {
		l->throttled++;
		return false;
	}
	if (l->set.ops)
		l->ops -= NS;
	if (l->set.bytes)
		l->bytes -= (__int128)bytes * NS;
	return true;
}

void limit_owe(struct limit *l, uint64_t ops)
{
	if (l->set.ops)
		l->ops -= (__int128)ops * NS;
}

void limit_owe_bytes(struct limit *l, uint64_t bytes)
{
	if (l->set.bytes)
		l->bytes -= (__int128)bytes * NS;
}
