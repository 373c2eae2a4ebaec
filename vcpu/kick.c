/*
 * Waking a vcpu's thread up to what is pending.
 * Invariant: a bit is in vcpu.pending before anybody is told.
 */
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vcpu/kick.h"

static __thread struct vcpu *this_vcpu;

void kick_thread(struct vcpu *v)
{
	v->tid = (pid_t)syscall(SYS_gettid);
	this_vcpu = v;
}

struct vcpu *kick_this(void)
{
	return this_vcpu;
}

static void wake(struct vcpu *v)
{
	syscall(SYS_futex, &v->pending, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void kick_again(struct vcpu *v)
{
	if (v->tid)
		syscall(SYS_tgkill, getpid(), v->tid, SIGUSR1);
}

void kick_sleep(struct vcpu *v, bool asleep)
{
	atomic_exchange(&v->sleeping, asleep); /* and a full fence before pending is looked at */
}

#define PAUSES 32 /* a few microseconds: locks are mostly held for less */

void kick_pause(struct vcpu *v)
{
	if (++v->pauses < PAUSES)
		return;
	v->pauses = 0;
	v->stats.yields++;
	world_yield(v);
}

/* A thread that sleeps looks at pending when it has woken up, and behind a fence: it needs no signal. */
void vcpu_kick(struct vcpu *v, uint32_t pend)
{
	uint32_t old = atomic_fetch_or(&v->pending, pend);

	if (v == this_vcpu) {
		v->kick = 1;
		return;
	}
	if (atomic_load(&v->sleeping))
		wake(v);
	else if ((old & pend) != pend)
		kick_again(v);
}
