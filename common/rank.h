/*
 * The order in which one thread takes the locks of its process: each has a rank, and is taken while none of the same or a later
 * one is held.  Checked in builds with --enable-debug-locks; elsewhere RANK_*() are nothing.
 */
#ifndef HVX_RANK_H
#define HVX_RANK_H

#include <pthread.h>

/* clang-format off: outermost first */
#define LOCK_RANKS(X)                                                                                  \
	X(WORLD, "the world's lock")         /* vcpu/world.c: who holds it takes CPUs of others */     \
	X(CPU, "a CPU")                      /* vcpu/world.c: of several only with the world's lock */ \
	X(CARDS, "the cards' lock")          /* vcpu/cards.c */                                        \
	X(LOCALS, "the local devices' lock") /* vcpu/local/local.c */                                  \
	X(MEMLINK, "the memory link's lock") /* vcpu/local/memlink.c */                                \
	X(PLATFORM, "the platform's lock")   /* vcpu/chipset/platform.c */                             \
	X(BT, "the translations' lock")      /* vcpu/bt/cache.c; may be taken again by who has it */   \
	X(WINDOW, "the window's lock")       /* vcpu/mmu/window.c */                                   \
	X(TRACE, "the trace's lock")         /* vcpu/trace.c */                                        \
	X(POOL, "the I/O threads' lock")     /* devices/blk/threads.c */
/* clang-format on */

enum lock_rank {
	RANK_NONE,
#define X(id, name) RANK_##id,
	LOCK_RANKS(X)
#undef X
		RANK_COUNT
};

/* The calling thread is about to wait for @lock; it has it, and had to wait in order; it lets it go.  What is out of order
 * aborts with the names of both. */
void rank_taking(enum lock_rank rank, const void *lock);
void rank_taken(enum lock_rank rank, const void *lock);
void rank_dropped(enum lock_rank rank, const void *lock);
/* A mutex of libpthread has this rank from now until it is destroyed; one without may not be taken. */
void rank_give(const pthread_mutex_t *lock, enum lock_rank rank);

#ifdef HVX_DEBUG_LOCKS
#define RANK_TAKING(rank, lock)  rank_taking(rank, lock)
#define RANK_TAKEN(rank, lock)   rank_taken(rank, lock)
#define RANK_DROPPED(rank, lock) rank_dropped(rank, lock)
#define RANK_GIVE(lock, rank)    rank_give(lock, rank)
#else
#define RANK_TAKING(rank, lock)  ((void)(rank), (void)(lock))
#define RANK_TAKEN(rank, lock)   ((void)(rank), (void)(lock))
#define RANK_DROPPED(rank, lock) ((void)(rank), (void)(lock))
#define RANK_GIVE(lock, rank)    ((void)(lock), (void)(rank))
#endif

#endif
