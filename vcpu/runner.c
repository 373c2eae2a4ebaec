/*
 * One guest life after the other.  Invariant: between two lives nothing of the
 * guest's state survives but RAM, and that only as the boot loader leaves it.
 */
#include "vcpu/runner.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/gmem.h"
#include "common/log.h"
#include "vcpu/chipset/i6300esb.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/local/local.h"
#include "vcpu/trace.h"

/*
 * A crash loop.  A second of the guest's own CPU time, so that a busy host changes nothing; an idle system that
 * reboots by a triple fault after hours is none, so real time bounds it too, ten times as wide.
 */
#define CRASHES_MAX 5u
#define SOON_CPU_NS 1000000000ull
#define SOON_NS     10000000000ull

static __thread struct vcpu *in_guest; /* this thread's registers may hold the guest's vector state */

static void save_vectors(void)
{
	if (in_guest)
		vcpu_fpu_out(in_guest);
}

static void tell(struct runner *r, enum runner_news news)
{
	const uint64_t one = 1;

	atomic_store(&r->news, news);
	if (write(r->wake_fd, &one, sizeof one) < 0)
		log_error("cannot wake the main thread");
}

static int boot(struct runner *r)
{
	platform_reset(r->vm->plat);
	if (r->cards)
		cards_wait_reset(r->cards,
				 r->v); /* what devices have in flight must not land in the next life's memory */
	if (r->vm->locals)
		locals_wait_reset(r->vm->locals);
	cpu_reset(r->v);
	unsigned in = gmem_enter(r->vm->mem, SHM_SLOT_VCPU + (unsigned)r->v->id);
	int rc = boot_load(r->vm, r->boot, r->error, sizeof r->error);
	gmem_leave(r->vm->mem, SHM_SLOT_VCPU + (unsigned)r->v->id, in);
	if (rc) {
		tell(r, RUNNER_LOAD_FAILED);
		return rc;
	}
	atomic_fetch_add(&r->boots, 1);
	tell(r, RUNNER_STARTED);
	return 0;
}

static enum vm_exit run_once(struct runner *r)
{
	in_guest = r->v;
	int why = vcpu_run(r->v);
	vcpu_fpu_out(r->v);
	in_guest = NULL;
	trace_flush();
	/* The platform's callback stops the vcpu and leaves the reason. */
	if (why == VM_EXIT_STOPPED && r->v->exit_reason != VM_EXIT_NONE)
		why = (int)r->v->exit_reason;
	return why;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One life; counts those that crash as soon as they have begun, in a row. */
static enum vm_exit live(struct runner *r)
{
	uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID), wall = clock_ns(CLOCK_MONOTONIC);
	enum vm_exit why = run_once(r);

	cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
	wall = clock_ns(CLOCK_MONOTONIC) - wall;
	if (why == VM_EXIT_TRIPLE_FAULT && cpu < SOON_CPU_NS && wall < SOON_NS)
		r->crashes++;
	else
		r->crashes = 0;
	return why;
}

/* A guest that cannot even start would crash for ever. */
static bool again(struct runner *r, enum vm_exit why)
{
	if (!r->reboot || atomic_load(&r->quit) || (why != VM_EXIT_RESET && why != VM_EXIT_TRIPLE_FAULT))
		return false;
	if (r->crashes < CRASHES_MAX)
		return true;
	log_error("%u triple faults in a row, each in the guest's first second: it is not started again", r->crashes);
	return false;
}

static void *thread_main(void *arg)
{
	struct runner *r = arg;
	enum vm_exit why;

	r->init_error = vcpu_thread_init(r->v);
	sem_post(&r->ready);
	if (r->init_error)
		return NULL;
	while (sem_wait(&r->go) < 0 && errno == EINTR)
		;
	do {
		if (boot(r))
			return NULL;
		why = live(r);
	} while (again(r, why));
	r->why = why;
	r->code = r->v->exit_code;
	tell(r, RUNNER_ENDED);
	return NULL;
}

int runner_create(struct runner *r)
{
	log_before = save_vectors;
	sem_init(&r->ready, 0, 0);
	sem_init(&r->go, 0, 0);
	int rc = -pthread_create(&r->thread, NULL, thread_main, r);
	if (rc)
		return rc;
	while (sem_wait(&r->ready) < 0 && errno == EINTR)
		;
	return r->init_error;
}

void runner_go(struct runner *r)
{
	sem_post(&r->go);
}

void runner_end(struct runner *r, enum vm_exit why, int code)
{
	r->v->exit_reason = (uint32_t)why;
	r->v->exit_code = code;
	vcpu_kick(r->v, PEND_STOP);
}

void runner_pause(struct runner *r)
{
	const uint64_t one = 1;

	i6300esb_hold(platform_watchdog(r->vm->plat), true);
	atomic_store(&r->paused, true);
	vcpu_kick(r->v, PEND_PAUSE);
	if (write(r->wake_fd, &one, sizeof one) < 0)
		log_error("cannot wake the main thread");
}
