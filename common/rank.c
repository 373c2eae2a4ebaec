/*
 * The order of locks (rank.h).  Locks of libpthread are followed by way of the linker, which takes calls of pthread_mutex_lock()
 * and its like to the functions below (--wrap); their ranks are in a table by address.
 * Invariant: a thread's list has what it holds, in the order of taking.
 */
#include "common/rank.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/log.h"

#define HELD_MAX  80 /* all CPUs, and a few */
#define GIVEN_MAX 4096

static const char *const names[RANK_COUNT] = {
#define X(id, name) [RANK_##id] = name,
	LOCK_RANKS(X)
#undef X
};

static __thread struct {
	enum lock_rank rank;
	const void *lock;
} held[HELD_MAX];
static __thread unsigned n_held;

static void out_of_order(enum lock_rank rank, enum lock_rank than, const char *what)
{
	log_msg(LOG_LVL_ERROR, "order of locks: %s is %s while %s is held", names[rank], what, names[than]);
	abort();
}

static bool holds(enum lock_rank rank)
{
	for (unsigned i = 0; i < n_held; i++)
		if (held[i].rank == rank)
			return true;
	return false;
}

void rank_taking(enum lock_rank rank, const void *lock)
{
	for (unsigned i = 0; i < n_held; i++) {
		if (held[i].lock == lock)
			out_of_order(rank, held[i].rank, "taken again");
		if (held[i].rank > rank || (held[i].rank == rank && !(rank == RANK_CPU && holds(RANK_WORLD))))
			out_of_order(rank, held[i].rank, "taken");
	}
}

void rank_taken(enum lock_rank rank, const void *lock)
{
	rank_taking(rank, lock);
	if (n_held == HELD_MAX)
		abort();
	held[n_held].rank = rank;
	held[n_held++].lock = lock;
}

void rank_dropped(enum lock_rank rank, const void *lock)
{
	unsigned i = n_held;

	while (i && held[i - 1].lock != lock)
		i--;
	if (!i) {
		log_msg(LOG_LVL_ERROR, "order of locks: %s is let go by a thread that does not hold it", names[rank]);
		abort();
	}
	for (n_held--; i <= n_held; i++)
		held[i - 1] = held[i];
}

/* ---- locks of libpthread ---- */

static struct {
	_Atomic(const void *) lock;
	_Atomic uint8_t rank;
} given[GIVEN_MAX];

static unsigned slot_of(const void *lock)
{
	unsigned i = 0;

	while (i < GIVEN_MAX && atomic_load(&given[i].lock) != lock)
		i++;
	return i;
}

static bool claim(unsigned i, const void *lock)
{
	const void *none = NULL;

	return atomic_compare_exchange_strong(&given[i].lock, &none, lock);
}

void rank_give(const pthread_mutex_t *lock, enum lock_rank rank)
{
	unsigned i = slot_of(lock);

	if (i == GIVEN_MAX)
		for (i = 0; i < GIVEN_MAX && !claim(i, lock); i++)
			;
	if (i == GIVEN_MAX)
		abort();
	atomic_store(&given[i].rank, rank);
}

#ifdef HVX_DEBUG_LOCKS
static enum lock_rank rank_of(const void *lock)
{
	unsigned i = slot_of(lock);

	if (i == GIVEN_MAX || !atomic_load(&given[i].rank)) {
		log_msg(LOG_LVL_ERROR, "order of locks: one without a rank is taken");
		abort();
	}
	return (enum lock_rank)atomic_load(&given[i].rank);
}

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_trylock(pthread_mutex_t *m);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __real_pthread_mutex_destroy(pthread_mutex_t *m);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *m);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	enum lock_rank r = rank_of(m);

	rank_taking(r, m);
	int rc = __real_pthread_mutex_lock(m);
	if (!rc)
		rank_taken(r, m);
	return rc;
}

/* The one who fails waits for it then. */
int __wrap_pthread_mutex_trylock(pthread_mutex_t *m)
{
	enum lock_rank r = rank_of(m);

	rank_taking(r, m);
	int rc = __real_pthread_mutex_trylock(m);
	if (!rc)
		rank_taken(r, m);
	return rc;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
	rank_dropped(rank_of(m), m);
	return __real_pthread_mutex_unlock(m);
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *m)
{
	unsigned i = slot_of(m);

	if (i < GIVEN_MAX) {
		atomic_store(&given[i].rank, RANK_NONE);
		atomic_store(&given[i].lock, NULL);
	}
	return __real_pthread_mutex_destroy(m);
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	enum lock_rank r = rank_of(m);

	rank_dropped(r, m);
	int rc = __real_pthread_cond_wait(c, m);
	rank_taken(r, m); /* with others held meanwhile it would be out of order */
	return rc;
}
#endif
