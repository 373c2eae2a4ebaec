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

void vcpu_kick(struct vcpu *v, uint32_t pend)
{
	uint32_t old = atomic_fetch_or(&v->pending, pend);

	if ((old & pend) == pend && !v->sleeping)
		return;
	if (v == this_vcpu) {
		v->kick = 1;
	} else if (v->tid) {
		wake(v);
		syscall(SYS_tgkill, getpid(), v->tid, SIGUSR1);
	}
}
