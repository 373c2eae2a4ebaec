/*
 * One queue of deadlines for all chips.  Used under the platform's lock.
 */
#ifndef HVX_TIMER_H
#define HVX_TIMER_H

#include <stdint.h>

#define TIMER_NEVER UINT64_MAX
#define TIMERQ_MAX  256

struct timerq;

struct timer {
	uint64_t deadline; /* CLOCK_MONOTONIC ns, TIMER_NEVER: not queued */
	void (*fn)(void *ctx, uint64_t now);
	void *ctx;
	struct timerq *q;
	int slot; /* index in the heap, -1 when not queued */
};

struct timerq {
	struct timer *heap[TIMERQ_MAX]; /* binary heap, earliest first */
	unsigned n, registered;
	int running;    /* inside timerq_run(): arming waits for its end */
	uint64_t armed; /* what the owner was last told */
	void (*arm)(void *ctx, uint64_t deadline);
	void *ctx;
};

void timerq_init(struct timerq *q, void (*arm)(void *ctx, uint64_t deadline), void *ctx);
/* A queue holds TIMERQ_MAX timers; more is a broken invariant (abort). */
void timer_init(struct timer *t, struct timerq *q, void (*fn)(void *ctx, uint64_t now), void *ctx);
/* (Re)queues; TIMER_NEVER takes it out.  The owner is told at once of an earlier deadline only: one that moved
 * into the future is corrected by the next timerq_run() or timerq_next(). */
void timer_set(struct timer *t, uint64_t deadline);
/* Calls everything due at @now, arms, returns the next deadline. */
uint64_t timerq_run(struct timerq *q, uint64_t now);
/* The owner has forgotten what it was told: tells it of the earliest deadline, or that there is none. */
void timerq_rearm(struct timerq *q);
/* The earliest deadline, after telling the owner of it if that changed. */
uint64_t timerq_next(struct timerq *q);

#endif
