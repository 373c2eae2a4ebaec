/*
 * A batch's way (the states of a p2m entry are in proto/shm.h):
 *
 *   begin      own -> WATCHED.  Who is going to write takes that away again.
 *   let go, grace period: whoever does not ask first has no pointer any more
 *   go_on      bytes are compared; WATCHED -> SHARED KEPT.  Who is going to write takes the page back, as it is.
 *   let go, grace period: nobody reads the page's own place any more
 *   go_on      KEPT -> BUSY, punched, SHARED.  Who is going to write copies.
 *
 * Invariant: a page's entry leads to a page of the pool only after their bytes were compared, here, when both stood still: the
 * pool's because nobody else can write it, the VM's because it was watched from the second look at it to the exchange.  A VM that
 * writes nevertheless loses its own bytes and nobody else's: what is compared and what is copied is one copy.
 */
#include "memsvc/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REST_PASSES 3 /* for a page that was un-merged */

int merge_init(struct merge *m, struct ram *r, struct pool *p)
{
	*m = (struct merge){.ram = r, .pool = p, .pages = r->size / SHM_PAGE};
	m->pool_of = malloc(m->pages * sizeof *m->pool_of);
	m->sum = calloc(m->pages, sizeof *m->sum);
	m->rest = calloc(m->pages, sizeof *m->rest);
	if (!m->pool_of || !m->sum || !m->rest)
		return -ENOMEM;
	memset(m->pool_of, 0xff, m->pages * sizeof *m->pool_of);
	r->merge = m;
	return 0;
}

/* ---- references ---- */

static void give_back(struct merge *m, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		pool_unref(m->pool, m->drop[i]);
	m->ndrop -= n;
	memmove(m->drop, m->drop + n, m->ndrop * sizeof *m->drop);
	m->dropping = 0;
}

void merge_free(struct merge *m)
{
	for (uint64_t i = 0; m->pool_of && i < m->pages; i++)
		if (m->pool_of[i] != POOL_NONE)
			pool_unref(m->pool, m->pool_of[i]);
	give_back(m, m->ndrop);
	free(m->pool_of);
	free(m->sum);
	free(m->rest);
	free(m->drop);
	if (m->ram)
		m->ram->merge = NULL;
	*m = (struct merge){0};
}

/* Whoever still reads by the old entry may go on until the next batch's grace period has passed. */
static void drop_later(struct merge *m, uint64_t frame)
{
	if (m->ndrop == m->room) {
		uint32_t room = m->room ? 2 * m->room : 256, *more = realloc(m->drop, room * sizeof *more);
		if (!more)
			return; /* the page stays ours, and the pool's */
		m->drop = more;
		m->room = room;
	}
	m->drop[m->ndrop++] = m->pool_of[frame];
	m->pool_of[frame] = POOL_NONE;
	m->n.sharing--;
}

static bool exchange(struct merge *m, uint64_t frame, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(&m->ram->p2m[frame], &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static uint64_t entry(const struct merge *m, uint64_t frame)
{
	return __atomic_load_n(&m->ram->p2m[frame], __ATOMIC_ACQUIRE);
}

static uint64_t merged(uint32_t page, uint64_t flags)
{
	return (uint64_t)page * SHM_PAGE | SHM_P2M_SHARED | flags;
}

/* One who copies at this moment is left alone: the page is noticed to be his later. */
void merge_take_out(struct merge *m, uint64_t frame)
{
	uint64_t e = entry(m, frame);

	if (m->pool_of[frame] == POOL_NONE || !(e & SHM_P2M_SHARED) || (e & SHM_P2M_BUSY) ||
	    !exchange(m, frame, e, frame * SHM_PAGE))
		return;
	drop_later(m, frame);
	m->sum[frame] = 0;
}

bool merge_noticed(struct merge *m, uint64_t frame)
{
	if (m->pool_of[frame] == POOL_NONE || (entry(m, frame) & SHM_P2M_SHARED))
		return false;
	drop_later(m, frame);
	m->n.unmerged++;
	m->sum[frame] = 0;
	m->rest[frame] = REST_PASSES;
	return true;
}

bool merge_wish(struct merge *m, uint64_t frame, uint64_t hash)
{
	if (m->next.n == MERGE_BATCH)
		return false;
	m->next.c[m->next.n].frame = (uint32_t)frame;
	m->next.c[m->next.n++].hash = hash;
	return true;
}

/* ---- a batch ---- */

static void keep(struct merge_list *l, unsigned *n, unsigned i)
{
	l->c[(*n)++] = l->c[i];
}

bool merge_begin(struct merge *m)
{
	unsigned n = 0;

	m->now = m->next;
	m->next.n = 0;
	for (unsigned i = 0; i < m->now.n; i++) {
		uint64_t f = m->now.c[i].frame;
		if (m->pool_of[f] == POOL_NONE && exchange(m, f, f * SHM_PAGE, f * SHM_PAGE | SHM_P2M_WATCHED))
			keep(&m->now, &n, i);
	}
	m->now.n = n;
	m->dropping = m->ndrop;
	if (n || m->dropping)
		m->state = MERGE_WATCH;
	return m->state == MERGE_WATCH;
}

void merge_withdrawal(const struct merge *m, struct msg_mem_withdraw *w)
{
	w->pool = m->dropping;
	w->nranges = 0;
	for (unsigned i = 0; i < m->now.n; i++) {
		struct msg_pages *last = w->nranges ? &w->range[w->nranges - 1] : NULL;
		if (last && last->first + last->count == m->now.c[i].frame)
			last->count++;
		else
			w->range[w->nranges++] = (struct msg_pages){m->now.c[i].frame, 1};
	}
}

static void unwatch(struct merge *m, uint64_t frame)
{
	__atomic_fetch_and(&m->ram->p2m[frame], ~SHM_P2M_WATCHED, __ATOMIC_SEQ_CST);
}

static bool is_zero(const uint8_t *p)
{
	return !p[0] && !memcmp(p, p + 1, SHM_PAGE - 1);
}

/* The page of the pool with these bytes, a new one if need be.  What is only alike is none. */
static uint32_t home(struct merge *m, uint64_t hash, const uint8_t *bytes)
{
	uint32_t page;

	if (is_zero(bytes))
		return POOL_ZERO;
	if (pool_hash(m->pool, bytes) != hash)
		return POOL_NONE; /* it has changed since */
	page = pool_find(m->pool, hash);
	if (page == POOL_NONE)
		return pool_new(m->pool, hash, bytes);
	return memcmp(pool_page(m->pool, page), bytes, SHM_PAGE) ? POOL_NONE : page;
}

static bool redirect(struct merge *m, uint64_t frame, uint64_t hash)
{
	static uint8_t bytes[SHM_PAGE] __attribute__((aligned(64)));
	const uint64_t watched = frame * SHM_PAGE | SHM_P2M_WATCHED;

	if (entry(m, frame) != watched ||
	    pread(m->ram->ram_fd, bytes, sizeof bytes, (off_t)(frame * SHM_PAGE)) != sizeof bytes)
		return false;
	uint32_t page = home(m, hash, bytes);
	if (page == POOL_NONE)
		return false;
	if (!exchange(m, frame, watched, merged(page, SHM_P2M_KEPT))) {
		pool_drop_unused(m->pool, page);
		return false;
	}
	pool_ref(m->pool, page);
	m->pool_of[frame] = page;
	m->n.sharing++;
	m->n.merged++;
	return true;
}

static void redirect_all(struct merge *m)
{
	unsigned n = 0;

	give_back(m, m->dropping);
	for (unsigned i = 0; i < m->now.n; i++)
		if (redirect(m, m->now.c[i].frame, m->now.c[i].hash))
			keep(&m->now, &n, i);
		else
			unwatch(m, m->now.c[i].frame);
	m->now.n = n;
	m->state = n ? MERGE_SETTLE : MERGE_QUIET;
}

/* Neighbours that nobody has taken back, from the i-th on. */
static unsigned run(struct merge *m, unsigned i)
{
	unsigned n = 0;

	for (; i + n < m->now.n && m->now.c[i + n].frame == m->now.c[i].frame + n; n++) {
		uint64_t f = m->now.c[i + n].frame;
		uint32_t page = m->pool_of[f];
		if (page == POOL_NONE ||
		    !exchange(m, f, merged(page, SHM_P2M_KEPT), merged(page, SHM_P2M_KEPT | SHM_P2M_BUSY)))
			break;
	}
	return n;
}

/* If they cannot be punched they stay filled, with what they are: un-merging finds the same bytes there. */
static void empty(struct merge *m, unsigned i, unsigned n)
{
	int rc = ram_empty(m->ram, m->now.c[i].frame, n);

	for (unsigned k = i; k < i + n; k++) {
		uint64_t f = m->now.c[k].frame;
		__atomic_store_n(&m->ram->p2m[f], merged(m->pool_of[f], rc ? SHM_P2M_KEPT : 0), __ATOMIC_SEQ_CST);
	}
}

void merge_go_on(struct merge *m)
{
	if (m->state == MERGE_WATCH) {
		redirect_all(m);
		return;
	}
	for (unsigned i = 0, n; i < m->now.n; i += n ? n : 1) {
		n = run(m, i);
		if (n)
			empty(m, i, n);
	}
	m->now.n = 0;
	m->state = MERGE_QUIET;
}

void merge_abort(struct merge *m)
{
	if (m->state != MERGE_WATCH)
		return;
	for (unsigned i = 0; i < m->now.n; i++)
		unwatch(m, m->now.c[i].frame);
	m->now.n = 0;
	m->dropping = 0;
	m->state = MERGE_QUIET;
}
