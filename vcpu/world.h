/* From one vcpu's thread to the others: the only way to reach what is theirs.  See world.c. */
#ifndef HVX_WORLD_H
#define HVX_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/mutex.h"

struct vcpu;
struct vm;

struct world {                   /* the VM's */
	struct mutex lock;       /* one at a time holds CPUs of others; taken with no CPU held, and before any is */
	_Atomic(void *) stopper; /* thread that has stopped the world */
	unsigned depth;
};

struct world_cpu {                    /* a vcpu's */
	_Atomic(const void *) holder; /* thread that has it */
	struct mutex held;            /* by its thread while it is between two boundaries, or by who has it at one */
	_Atomic uint32_t wanted;      /* so many wait for a boundary */
	uint32_t lets; /* how often it was let go: numbers of blocks and exits held then are no good now */
};

#define WORLD_ALL (~0ull)

/*
 * The thread of @v: it begins to run guest code or to change what is the vcpu's, from a boundary; it is at a boundary and will
 * stay there, as when it sleeps; it is at a boundary, and lets those have it who want it.  At a boundary the guest's state in
 * struct vcpu is that between two instructions, and the thread keeps nothing that a flush would make wrong.
 */
void world_enter(struct vcpu *v);
void world_leave(struct vcpu *v);
void world_serve(struct vcpu *v);
void world_yield(struct vcpu *v); /* the same, and the host's other threads may run */

/*
 * Calls @fn for each CPU of @mask while it is at a boundary, on the calling thread, and returns when all have been; they go on
 * only then.  world_stop: all CPUs are at a boundary until world_go() by the same thread; calls nest.  The caller is no vcpu's
 * thread, or at a boundary of its own CPU, which others may have in between; it holds no lock.
 */
void world_on(struct vm *vm, uint64_t mask, void (*fn)(struct vcpu *v, void *arg), void *arg);
void world_stop(struct vm *vm);
void world_go(struct vm *vm);
/* Has the calling thread stopped it? */
bool world_stopped(const struct vm *vm);
/* May the calling thread change what is @v's?  For assertions: a vcpu that nobody runs is everybody's. */
bool world_mine(const struct vcpu *v);
/* At what changes a vcpu's own: with --enable-debug-locks the thread must have it. */
#ifdef HVX_DEBUG_LOCKS
void world_assert_mine(const struct vcpu *v);
#else
#define world_assert_mine(v) ((void)(v))
#endif

#endif
