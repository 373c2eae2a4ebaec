/*
 * Merging the pages of one VM into the pool of its group: what is true of each page, and the way of a batch of pages from their own
 * places into the pool.  See merge.c.
 */
#ifndef HVX_MEMSVC_MERGE_H
#define HVX_MEMSVC_MERGE_H

#include <stdbool.h>
#include <stdint.h>

#include "memsvc/pool.h"
#include "memsvc/ram.h"
#include "proto/pack.h"

#define MERGE_BATCH MSG_RANGES_MAX /* pages at once */

enum merge_state {
	MERGE_QUIET,
	MERGE_WATCH,  /* watched: nobody writes them, once all have let go */
	MERGE_SETTLE, /* in the pool: nobody reads their own places, once all have let go */
};

struct merge_list {
	unsigned n;
	struct {
		uint64_t hash;
		uint32_t frame;
	} c[MERGE_BATCH];
};

struct merge {
	struct ram *ram;
	struct pool *pool;
	uint64_t pages;
	uint32_t *pool_of; /* of each page of RAM: its page of the pool, POOL_NONE; what the p2m says is a hint */
	uint32_t *sum;     /* of each page, when it was looked at last; 0: not yet */
	uint8_t *rest;     /* so many passes it is left alone, for it was written after it had been merged */
	/* the next batch, and the one that is on its way */
	struct merge_list next, now;
	enum merge_state state;
	/* references to be given back once nobody can read by them: what was un-merged */
	uint32_t *drop, ndrop, room, dropping; /* the first @dropping go with the batch */
	struct {
		uint64_t scanned, unstable, unmerged, merged;
		uint64_t sharing, unshared;
	} n;
};

/* 0 or -ENOMEM; merge_free() in either case. */
int merge_init(struct merge *m, struct ram *r, struct pool *p);
/* Nobody reads the pool by this VM's p2m any more: gives back all that it has of it. */
void merge_free(struct merge *m);

/* Page @frame is to have its own place again, empty: it was given back by the guest. */
void merge_take_out(struct merge *m, uint64_t frame);
/* Has the VM un-merged the page? */
bool merge_noticed(struct merge *m, uint64_t frame);
/* The page may be like another.  False: the batch is full. */
bool merge_wish(struct merge *m, uint64_t frame, uint64_t hash);
/* May the page be looked at with a view to merging? */
static inline bool merge_plain(const struct merge *m, uint64_t frame)
{
	return m->pool_of[frame] == POOL_NONE &&
	       __atomic_load_n(&m->ram->p2m[frame], __ATOMIC_RELAXED) == frame * SHM_PAGE;
}

/*
 * The way of a batch.  merge_begin(): QUIET to WATCH; false: there is nothing to do.  Then, each time when the vcpus have let go of
 * what merge_withdrawal() says and a grace period has passed, merge_go_on(): WATCH to SETTLE to QUIET.  merge_abort(): they do not
 * let go of what is watched; nothing has changed.
 */
bool merge_begin(struct merge *m);
void merge_withdrawal(const struct merge *m, struct msg_mem_withdraw *w);
void merge_go_on(struct merge *m);
void merge_abort(struct merge *m);

#endif
