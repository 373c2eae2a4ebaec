/*
 * A lock of one word: spins for a little while, then sleeps.  It may be taken by one thread and released by another, and is
 * signal-safe to look at.
 */
#ifndef HVX_MUTEX_H
#define HVX_MUTEX_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/rank.h"

struct mutex {
	_Atomic uint32_t word; /* 0 free, 1 held, 2 held and waited for */
};

#define MUTEX_SPINS 200

static inline bool mutex_try_(struct mutex *m)
{
	uint32_t zero = 0;

	return atomic_compare_exchange_strong_explicit(&m->word, &zero, 1, memory_order_acquire, memory_order_relaxed);
}

/* @rank: its own, the same wherever it is taken and let go. */
static inline bool mutex_try(struct mutex *m, enum lock_rank rank)
{
	RANK_TAKING(rank, m);
	if (!mutex_try_(m))
		return false;
	RANK_TAKEN(rank, m);
	return true;
}

/* The slow part: until it is had, or for about @ns nanoseconds (0: for ever).  False: the time is up. */
static inline bool mutex_wait_(struct mutex *m, long ns)
{
	struct timespec ts = {.tv_sec = 0, .tv_nsec = ns};

	while (atomic_exchange_explicit(&m->word, 2, memory_order_acquire) != 0)
		if (syscall(SYS_futex, &m->word, FUTEX_WAIT_PRIVATE, 2, ns ? &ts : NULL, NULL, 0) < 0 && ns)
			return atomic_exchange_explicit(&m->word, 2, memory_order_acquire) == 0;
	return true;
}

static inline bool mutex_wait(struct mutex *m, enum lock_rank rank, long ns)
{
	if (!mutex_wait_(m, ns))
		return false;
	RANK_TAKEN(rank, m);
	return true;
}

static inline void mutex_lock(struct mutex *m, enum lock_rank rank)
{
	for (unsigned i = 0; i < MUTEX_SPINS; i++) {
		if (mutex_try(m, rank))
			return;
		__builtin_ia32_pause();
	}
	mutex_wait(m, rank, 0);
}

static inline void mutex_unlock(struct mutex *m, enum lock_rank rank)
{
	RANK_DROPPED(rank, m);
	if (atomic_exchange_explicit(&m->word, 0, memory_order_release) == 2)
		syscall(SYS_futex, &m->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#endif
