/*
 * The only way from one vcpu's thread to another's: to have its CPU at a boundary.
 * Invariant: what is a vcpu's alone is changed by who holds vcpu.world.held, and it is let go at boundaries only.  Nobody
 * waits for another's CPU while it holds its own, so that two who want each other's get them one after the other.
 */
#include "vcpu/world.h"

#include <sched.h>
#include <stdlib.h>

#include "common/log.h"
#include "vcpu/kick.h"
#include "vcpu/vcpu.h"

#define AGAIN_NS 2000000 /* a CPU that does not come is kicked again */

static __thread struct vcpu *own; /* the calling thread's, between world_enter() and world_leave() */
static __thread char me;          /* its address names the thread */

void world_enter(struct vcpu *v)
{
	mutex_lock(&v->world.held, RANK_CPU);
	atomic_store_explicit(&v->world.holder, &me, memory_order_relaxed);
	own = v;
	if (atomic_load(&v->world.wanted)) { /* who wants it may have seen it free, and kicked nobody */
		atomic_fetch_or(&v->pending, PEND_WORLD);
		v->kick = 1;
	}
}

void world_leave(struct vcpu *v)
{
	own = NULL;
	v->world.lets++;
	mutex_unlock(&v->world.held, RANK_CPU);
}

void world_serve(struct vcpu *v)
{
	uint32_t n;

	atomic_fetch_and(&v->pending, ~PEND_WORLD);
	if (!atomic_load(&v->world.wanted) || world_stopped(v->vm))
		return;
	world_leave(v);
	while ((n = atomic_load(&v->world.wanted)) != 0)
		syscall(SYS_futex, &v->world.wanted, FUTEX_WAIT_PRIVATE, n, NULL, NULL, 0);
	world_enter(v);
}

void world_yield(struct vcpu *v)
{
	bool mine = own == v && !world_stopped(v->vm);

	if (mine)
		world_leave(v);
	sched_yield();
	if (mine)
		world_enter(v);
}

static void want(struct vcpu *v)
{
	atomic_fetch_add(&v->world.wanted, 1);
	if (atomic_load(&v->world.held.word))
		vcpu_kick(v, PEND_WORLD);
}

static void take(struct vcpu *v)
{
	while (!mutex_try(&v->world.held, RANK_CPU) && !mutex_wait(&v->world.held, RANK_CPU, AGAIN_NS))
		kick_again(v);
	atomic_store_explicit(&v->world.holder, &me, memory_order_relaxed);
}

static void give(struct vcpu *v)
{
	mutex_unlock(&v->world.held, RANK_CPU);
	if (atomic_fetch_sub(&v->world.wanted, 1) == 1)
		syscall(SYS_futex, &v->world.wanted, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool in(const struct vm *vm, uint64_t mask, int i)
{
	return vm->vcpu[i] && (mask >> i & 1);
}

static void take_all(struct vm *vm, uint64_t mask)
{
	for (int i = 0; i < vm->ncpus; i++)
		if (in(vm, mask, i))
			want(vm->vcpu[i]);
	for (int i = 0; i < vm->ncpus; i++)
		if (in(vm, mask, i))
			take(vm->vcpu[i]);
}

static void give_all(struct vm *vm, uint64_t mask)
{
	for (int i = 0; i < vm->ncpus; i++)
		if (in(vm, mask, i))
			give(vm->vcpu[i]);
}

static void call_all(struct vm *vm, uint64_t mask, void (*fn)(struct vcpu *v, void *arg), void *arg)
{
	for (int i = 0; i < vm->ncpus; i++)
		if (in(vm, mask, i))
			fn(vm->vcpu[i], arg);
}

void world_on(struct vm *vm, uint64_t mask, void (*fn)(struct vcpu *v, void *arg), void *arg)
{
	struct vcpu *v = own;

	if (world_stopped(vm) || (v && v->vm == vm && !(mask & ~(1ull << v->id)))) {
		call_all(vm, mask, fn, arg);
		return;
	}
	if (v)
		world_leave(v);
	mutex_lock(&vm->world.lock, RANK_WORLD);
	take_all(vm, mask);
	call_all(vm, mask, fn, arg);
	give_all(vm, mask);
	mutex_unlock(&vm->world.lock, RANK_WORLD);
	if (v)
		world_enter(v);
}

void world_stop(struct vm *vm)
{
	struct vcpu *v = own;

	if (world_stopped(vm)) {
		vm->world.depth++;
		return;
	}
	if (v)
		world_leave(v);
	mutex_lock(&vm->world.lock, RANK_WORLD);
	take_all(vm, WORLD_ALL);
	own = v;
	vm->world.depth = 1;
	atomic_store(&vm->world.stopper, &me);
}

void world_go(struct vm *vm)
{
	struct vcpu *v = own;

	if (--vm->world.depth)
		return;
	atomic_store(&vm->world.stopper, NULL);
	own = NULL;
	give_all(vm, WORLD_ALL);
	mutex_unlock(&vm->world.lock, RANK_WORLD);
	if (v)
		world_enter(v);
}

bool world_stopped(const struct vm *vm)
{
	return atomic_load_explicit(&vm->world.stopper, memory_order_relaxed) == &me;
}

bool world_mine(const struct vcpu *v)
{
	return atomic_load_explicit(&v->world.holder, memory_order_relaxed) == &me ||
	       !atomic_load_explicit(&v->world.held.word, memory_order_relaxed);
}

#ifdef HVX_DEBUG_LOCKS
void world_assert_mine(const struct vcpu *v)
{
	if (world_mine(v))
		return;
	log_error("CPU %d is changed by a thread that does not have it", v->id);
	abort();
}
#endif
