/*
 * One guest life after the other.  Invariant: between two lives nothing of the
 * guest's state survives but RAM, and that only as the boot loader leaves it.
 *
 * CPU 0's thread resets the machine and loads the kernel while the others' threads wait; then all run, until one of them
 * ends the life and brings the others back.
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
#include "vcpu/kick.h"
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

static struct vcpu *leader(const struct runner *r)
{
	return r->cpu[0].v;
}

static int ncpus(const struct runner *r)
{
	return r->vm->ncpus;
}

void runner_kick(struct runner *r, uint32_t pend)
{
	for (int i = 0; i < ncpus(r); i++)
		vcpu_kick(r->cpu[i].v, pend);
}

/* What was on its way to CPUs of the last life. */
#define PEND_OF_LIFE (PEND_INTR | PEND_NMI | PEND_RESET | PEND_STOP | PEND_START | PEND_A20)

/* No other thread runs a CPU meanwhile. */
static void reset_cpus(struct runner *r)
{
	for (int i = 0; i < ncpus(r); i++) {
		atomic_fetch_and(&r->cpu[i].v->pending, ~PEND_OF_LIFE);
		cpu_reset(r->cpu[i].v);
	}
}

static void park_cpus(struct runner *r)
{
	for (int i = 1; i < ncpus(r); i++)
		cpu_park(r->cpu[i].v, leader(r));
}

static int load(struct runner *r)
{
	struct vcpu *v = leader(r);

	atomic_store(&r->why, VM_EXIT_NONE);
	platform_reset(r->vm->plat);
	if (r->cards)
		cards_wait_reset(r->cards, v); /* what devices have in flight must not land in the next life's memory */
	if (r->vm->locals)
		locals_wait_reset(r->vm->locals, v);
	reset_cpus(r);
	unsigned in = gmem_enter(r->vm->mem, SHM_SLOT_VCPU + (unsigned)v->id);
	int rc = r->firmware ? firmware_load(r->firmware, r->error, sizeof r->error)
			     : boot_load(r->vm, r->boot, r->error, sizeof r->error);
	gmem_leave(r->vm->mem, SHM_SLOT_VCPU + (unsigned)v->id, in);
	if (!rc)
		park_cpus(r);
	return rc;
}

static int boot(struct runner *r)
{
	world_enter(leader(r));
	int rc = load(r);
	world_leave(leader(r));
	if (rc) {
		tell(r, RUNNER_LOAD_FAILED);
		return rc;
	}
	atomic_fetch_add(&r->boots, 1);
	tell(r, RUNNER_STARTED);
	return 0;
}

/* The first one's word counts. */
static void end_life(struct runner *r, enum vm_exit why, int code)
{
	uint32_t none = VM_EXIT_NONE;

	if (!atomic_compare_exchange_strong(&r->why, &none, (uint32_t)why))
		return;
	r->code = code; /* read when all threads are back */
	runner_kick(r, PEND_STOP);
}

static void run_once(struct runner *r, struct vcpu *v)
{
	in_guest = v;
	int why = vcpu_run(v);
	vcpu_fpu_out(v);
	in_guest = NULL;
	trace_flush();
	if (why != VM_EXIT_STOPPED)
		end_life(r, (enum vm_exit)why, v->exit_code);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void release(struct runner *r)
{
	for (int i = 1; i < ncpus(r); i++)
		sem_post(&r->cpu[i].go);
}

static void wait_for(sem_t *s)
{
	while (sem_wait(s) < 0 && errno == EINTR)
		;
}

/* One life; counts those that crash as soon as they have begun, in a row. */
static enum vm_exit live(struct runner *r)
{
	uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID), wall = clock_ns(CLOCK_MONOTONIC);

	release(r);
	run_once(r, leader(r));
	for (int i = 1; i < ncpus(r); i++)
		wait_for(&r->back);
	enum vm_exit why = (enum vm_exit)atomic_load(&r->why);
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

static void lead(struct runner *r)
{
	enum vm_exit why;

	do {
		if (boot(r))
			return;
		why = live(r);
	} while (again(r, why));
	r->over = true;
	release(r);
	tell(r, RUNNER_ENDED);
}

static void follow(struct runner_cpu *c)
{
	for (; !c->r->over; wait_for(&c->go)) {
		run_once(c->r, c->v);
		sem_post(&c->r->back);
	}
}

static void *thread_main(void *arg)
{
	struct runner_cpu *c = arg;

	c->init_error = vcpu_thread_init(c->v);
	sem_post(&c->r->ready);
	if (c->init_error)
		return NULL;
	wait_for(&c->go);
	if (c->v == leader(c->r))
		lead(c->r);
	else
		follow(c);
	return NULL;
}

static int make_thread(struct runner *r, int i)
{
	struct runner_cpu *c = &r->cpu[i];

	c->r = r;
	c->v = r->vm->vcpu[i];
	sem_init(&c->go, 0, 0);
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	int rc = vcpu_thread_attr(c->v, &attr);
	if (!rc)
		rc = -pthread_create(&c->thread, &attr, thread_main, c);
	pthread_attr_destroy(&attr);
	if (rc)
		return rc;
	wait_for(&r->ready);
	return c->init_error;
}

int runner_create(struct runner *r)
{
	int rc = 0;

	log_before = save_vectors;
	sem_init(&r->ready, 0, 0);
	sem_init(&r->back, 0, 0);
	for (int i = 0; i < ncpus(r) && !rc; i++)
		rc = make_thread(r, i);
	return rc;
}

void runner_go(struct runner *r)
{
	sem_post(&r->cpu[0].go);
}

void runner_join(struct runner *r)
{
	for (int i = 0; i < ncpus(r); i++)
		pthread_join(r->cpu[i].thread, NULL);
}

void runner_end(struct runner *r, enum vm_exit why, int code)
{
	struct vcpu *v = kick_this();

	if (v)
		v->exit_reason = VM_EXIT_STOPPED; /* whose instruction it was runs no further one */
	end_life(r, why, code);
}

void runner_pause(struct runner *r)
{
	const uint64_t one = 1;

	i6300esb_hold(platform_watchdog(r->vm->plat), true);
	atomic_store(&r->paused, true);
	runner_kick(r, PEND_PAUSE);
	if (write(r->wake_fd, &one, sizeof one) < 0)
		log_error("cannot wake the main thread");
}

void runner_resume(struct runner *r)
{
	for (int i = 0; i < ncpus(r); i++) {
		atomic_fetch_and(&r->cpu[i].v->pending, ~PEND_PAUSE);
		vcpu_kick(r->cpu[i].v, 0);
	}
}
