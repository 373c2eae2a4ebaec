/*
 * Where no cgroup keeps the VM's CPU limit the vcpus do: the main thread looks at the process's CPU clock every few
 * milliseconds, and holds all vcpus at their next block boundary while more has been used than the limit lets through.  They
 * are held together, so none waits for a lock of one that is held.
 * Invariant: over any stretch of time the process uses at most percent * time + BURST_NS of it + a tick of each CPU.
 */
#include "vcpu/throttle.h"

#include <errno.h>
#include <time.h>

#include "vcpu/vcpu.h"
#include "vcpu/vm.h"

#define TICK_MS    5
#define BURST_NS   100000000 /* this much time's worth may be saved up */
#define CHARGE_MAX 10000000000

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool throttle_look(struct throttle_bucket *b, uint64_t wall_ns, uint64_t cpu_ns)
{
	const int64_t full = (int64_t)(b->percent * (BURST_NS / 100));
	__int128 have = b->have_ns;

	have += (__int128)(wall_ns - b->wall_ns) * b->percent / 100 - (__int128)(cpu_ns - b->cpu_ns);
	b->wall_ns = wall_ns;
	b->cpu_ns = cpu_ns;
	b->have_ns = have > full ? full : (int64_t)have;
	return b->have_ns < 0;
}

static void hold(struct throttle *t, bool on)
{
	if (on == t->held)
		return;
	t->held = on;
	for (int i = 0; i < t->vm->ncpus; i++) {
		struct vcpu *v = t->vm->vcpu[i];
		if (!v)
			continue;
		if (!on)
			atomic_fetch_and(&v->pending, ~PEND_HOLD);
		vcpu_kick(v, on ? PEND_HOLD : 0);
	}
}

static void on_tick(void *ctx)
{
	struct throttle *t = ctx;

	if (!t->bucket.percent) {
		hold(t, false);
		return;
	}
	hold(t, throttle_look(&t->bucket, clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_PROCESS_CPUTIME_ID)));
	ipc_timer_set(t->tick, TICK_MS);
}

int throttle_init(struct throttle *t, struct ipc_loop *loop, struct vm *vm)
{
	t->vm = vm;
	t->tick = ipc_watch_timer(loop, on_tick, t);
	return t->tick ? 0 : -ENOMEM;
}

/* What has been used so far does not count, and debts stay. */
void throttle_limit(struct throttle *t, uint64_t percent)
{
	struct throttle_bucket *b = &t->bucket;

	if (!b->percent)
		*b = (struct throttle_bucket){.wall_ns = clock_ns(CLOCK_MONOTONIC),
					      .cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID)};
	b->percent = percent;
	on_tick(t);
}

void throttle_charge(struct throttle *t, uint64_t ns)
{
	if (t->bucket.percent)
		t->bucket.have_ns -= (int64_t)(ns > CHARGE_MAX ? CHARGE_MAX : ns);
}
