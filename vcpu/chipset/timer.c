/*
 * Deadlines of all chips in one binary heap.
 *
 * Invariant: outside timerq_run() the owner is armed for a moment not later
 * than the earliest deadline.
 */
#include "vcpu/chipset/timer.h"

#include <stdlib.h>

static void put(struct timerq *q, unsigned i, struct timer *t)
{
	q->heap[i] = t;
	t->slot = (int)i;
}

static void sift_up(struct timerq *q, unsigned i, struct timer *t)
{
	while (i && q->heap[(i - 1) / 2]->deadline > t->deadline) {
		put(q, i, q->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	put(q, i, t);
}

static void sift_down(struct timerq *q, unsigned i, struct timer *t)
{
	unsigned c;

	while ((c = 2 * i + 1) < q->n) {
		if (c + 1 < q->n && q->heap[c + 1]->deadline < q->heap[c]->deadline)
			c++;
		if (q->heap[c]->deadline >= t->deadline)
			break;
		put(q, i, q->heap[c]);
		i = c;
	}
	put(q, i, t);
}

static uint64_t earliest(const struct timerq *q)
{
	return q->n ? q->heap[0]->deadline : TIMER_NEVER;
}

static void tell(struct timerq *q)
{
	uint64_t next = earliest(q);

	if (next == q->armed)
		return;
	q->armed = next;
	if (q->arm)
		q->arm(q->ctx, next);
}

void timerq_init(struct timerq *q, void (*arm)(void *ctx, uint64_t deadline), void *ctx)
{
	q->n = q->registered = 0;
	q->running = 0;
	q->armed = TIMER_NEVER;
	q->arm = arm;
	q->ctx = ctx;
}

void timer_init(struct timer *t, struct timerq *q, void (*fn)(void *ctx, uint64_t now), void *ctx)
{
	if (q->registered++ >= TIMERQ_MAX)
		abort();
	t->deadline = TIMER_NEVER;
	t->fn = fn;
	t->ctx = ctx;
	t->q = q;
	t->slot = -1;
}

static void take_out(struct timerq *q, struct timer *t)
{
	unsigned i = (unsigned)t->slot;
	struct timer *last = q->heap[--q->n];

	t->slot = -1;
	if (last == t)
		return;
	if (i && q->heap[(i - 1) / 2]->deadline > last->deadline)
		sift_up(q, i, last);
	else
		sift_down(q, i, last);
}

void timer_set(struct timer *t, uint64_t deadline)
{
	struct timerq *q = t->q;

	if (deadline == t->deadline)
		return;
	if (t->slot >= 0)
		take_out(q, t);
	t->deadline = deadline;
	if (deadline != TIMER_NEVER)
		sift_up(q, q->n++, t);
	if (!q->running && earliest(q) < q->armed)
		tell(q);
}

uint64_t timerq_run(struct timerq *q, uint64_t now)
{
	struct timer *t;

	q->running = 1;
	while (q->n && q->heap[0]->deadline <= now) {
		t = q->heap[0];
		take_out(q, t);
		t->deadline = TIMER_NEVER;
		t->fn(t->ctx, now);
	}
	q->running = 0;
	if (q->armed <= now)
		q->armed = 0; /* it has fired, and may do so again: the owner is told in any case */
	tell(q);
	return earliest(q);
}

void timerq_rearm(struct timerq *q)
{
	q->armed = 0;
	tell(q);
}

uint64_t timerq_next(struct timerq *q)
{
	tell(q);
	return earliest(q);
}
