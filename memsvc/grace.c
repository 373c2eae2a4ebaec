/*
 * Grace periods over the slots of the control region (proto/shm.h).  Pages are withdrawn first; then the parity that was left
 * at the last turn has to be empty (whoever read the old @now and counted itself late), then @now moves on, and the parity
 * that this leaves has to be empty.
 *
 * Invariant: nothing that is read from the region decides more than how long is waited, and the caller bounds that: a slot
 * that misses the deadline costs it once.
 */
#include "memsvc/grace.h"

#include <stdbool.h>

void grace_init(struct grace *g, struct shm_epochs *shm)
{
	*g = (struct grace){.shm = shm};
}

static bool inside(const struct grace *g, unsigned slot, unsigned parity)
{
	return atomic_load_explicit(&g->shm->slot[slot].held[parity], memory_order_acquire);
}

static void forgive(struct grace *g)
{
	for (unsigned i = 0; i < SHM_SLOTS; i++)
		if ((g->late >> i & 1) && !inside(g, i, 0) && !inside(g, i, 1))
			g->late &= ~(1ull << i);
}

void grace_begin(struct grace *g)
{
	atomic_thread_fence(
		memory_order_seq_cst); /* the p2m before the look at the slots; they: the slot before the p2m */
	forgive(g);
	g->turn = 2;
}

static uint64_t who_is_in(const struct grace *g)
{
	unsigned parity = (g->now + 1) & 1;
	uint64_t in = 0;

	for (unsigned i = 0; i < SHM_SLOTS; i++)
		if (!(g->late >> i & 1) && inside(g, i, parity))
			in |= 1ull << i;
	return in;
}

enum grace_state grace_look(struct grace *g)
{
	for (; g->turn; g->turn--) {
		if (who_is_in(g))
			return GRACE_WAIT;
		if (g->turn == 2)
			atomic_store(&g->shm->now, ++g->now);
	}
	return g->late ? GRACE_LATE : GRACE_OVER;
}

enum grace_state grace_give_up(struct grace *g)
{
	while (grace_look(g) == GRACE_WAIT)
		g->late |= who_is_in(g);
	return GRACE_LATE;
}
