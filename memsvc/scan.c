/*
 * Passes.  A page that is all zeros is wished for at once; any other when it has stood still from one pass to the next, and a page
 * of the pool, or another one that has stood still, has its hash.  What passes find decides how much they may take of a CPU: the
 * rate, and an eighth of it where nothing is found.
 *
 * Invariant: looking at a page allocates nothing and brings nothing back from swap: only what mincore() says to be there is read, and
 * by pread().
 */
#include "memsvc/scan.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CHUNK     256u /* pages asked about at once */
#define READ_AT   32u  /* pages read at once */
#define PAGE_BITS 28
#define TICK_NS   1000000u       /* of CPU time: less is not worth waking up for */
#define CREDIT_NS (20 * TICK_NS) /* no more is saved up */
#define WAIT_MIN  10u            /* ms */
#define WAIT_MAX  200u
#define FEW       256u /* one found of so many: worth the rate */

void scan_init(struct scan *s, struct pool *p, unsigned rate)
{
	*s = (struct scan){
		.pool = p, .rate = rate ? rate : SCAN_RATE, .level = SCAN_LEVELS, .pass_min_ns = SCAN_PASS_NS};
}

void scan_free(struct scan *s)
{
	for (unsigned i = 0; i < SCAN_VMS_MAX; i++)
		if (s->vm[i].m)
			scan_remove(s, s->vm[i].m);
	table_free(&s->seen);
}

static uint64_t all_pages(const struct scan *s)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < SCAN_VMS_MAX; i++)
		n += s->vm[i].m ? s->vm[i].m->pages : 0;
	return n;
}

/* The table is as large as all that is present can make it; where that cannot be had, pages beyond it wait for the next pass. */
static void new_pass(struct scan *s)
{
	table_reset(&s->seen, all_pages(s));
	for (unsigned i = 0; i < SCAN_VMS_MAX; i++) {
		struct scan_vm *v = &s->vm[i];
		if (v->passed)
			v->m->n.unshared = v->alone;
		v->at = v->alone = 0;
		v->passed = false;
	}
	s->found = s->looked = 0;
}

int scan_add(struct scan *s, struct merge *m)
{
	unsigned i = 0;

	while (i < SCAN_VMS_MAX && s->vm[i].m)
		i++;
	if (i == SCAN_VMS_MAX || m->pages >> PAGE_BITS)
		return -ENOSPC;
	uint8_t *map = mmap(NULL, m->ram->size, PROT_READ, MAP_SHARED | MAP_NORESERVE, m->ram->ram_fd, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	s->vm[i] = (struct scan_vm){.m = m, .map = map};
	s->vms++;
	s->level = SCAN_LEVELS; /* there is something new */
	s->passes = 0;
	new_pass(s);
	return 0;
}

struct scan_vm *scan_vm(struct scan *s, const struct merge *m)
{
	for (unsigned i = 0; i < SCAN_VMS_MAX; i++)
		if (s->vm[i].m == m)
			return &s->vm[i];
	return NULL;
}

void scan_remove(struct scan *s, const struct merge *m)
{
	struct scan_vm *v = scan_vm(s, m);

	if (!v)
		return;
	munmap(v->map, m->ram->size);
	*v = (struct scan_vm){0};
	s->vms--;
	new_pass(s); /* what was seen may have been its */
}

/* ---- a page ---- */

static bool is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, SHM_PAGE - 1);
}

static bool room(const struct scan_vm *v)
{
	return v->m->next.n < MERGE_BATCH;
}

/* The pages may be equal.  False: one of the VMs has no room for a wish now, and it is worth waiting for. */
static bool match(struct scan *s, struct scan_vm *v, uint64_t frame, uint64_t hash, uint64_t seen)
{
	struct scan_vm *o = &s->vm[seen >> PAGE_BITS];
	uint64_t other = seen & ((1ull << PAGE_BITS) - 1);

	if (!o->m || o->stuck || (o == v && other == frame) || o->m->sum[other] != v->m->sum[frame] ||
	    !merge_plain(o->m, other)) {
		v->alone++;
		return true;
	}
	if (!room(v) || !room(o) || (o == v && v->m->next.n + 1 == MERGE_BATCH))
		return false;
	merge_wish(o->m, other, hash);
	merge_wish(v->m, frame, hash);
	s->found++;
	return true;
}

/* False: not now. */
static bool look(struct scan *s, struct scan_vm *v, uint64_t frame, const uint8_t *page)
{
	struct merge *m = v->m;
	uint64_t hash, seen;

	if (is_zero(page)) {
		s->found += room(v);
		return merge_wish(m, frame, 0);
	}
	hash = pool_hash(s->pool, page);
	uint32_t sum = (uint32_t)(hash >> 32) | 1;
	if (m->sum[frame] != sum) {
		m->n.unstable += m->sum[frame] != 0;
		m->sum[frame] = sum;
		return true;
	}
	if (pool_find(s->pool, hash) != POOL_NONE) {
		s->found += room(v);
		return merge_wish(m, frame, hash);
	}
	if (table_get(&s->seen, hash, &seen))
		return match(s, v, frame, hash, seen);
	v->alone++;
	if (!table_full(&s->seen))
		table_put(&s->seen, hash, (uint64_t)(v - s->vm) << PAGE_BITS | frame);
	return true;
}

/* ---- a chunk ---- */

static bool wanted(const struct scan_vm *v, const uint8_t *there, uint64_t frame, unsigned i)
{
	return (there[i] & 1) && merge_plain(v->m, frame) && !v->m->rest[frame];
}

/* From @frame on, @n pages that are wanted: how many of them are done with. */
static unsigned read_pages(struct scan *s, struct scan_vm *v, uint64_t frame, unsigned n)
{
	static uint8_t buf[READ_AT * SHM_PAGE] __attribute__((aligned(64)));
	ssize_t got = pread(v->m->ram->ram_fd, buf, (size_t)n * SHM_PAGE, (off_t)(frame * SHM_PAGE));
	unsigned i = 0;

	if (got < (ssize_t)(n * SHM_PAGE))
		return n;
	while (i < n && look(s, v, frame + i, buf + (size_t)i * SHM_PAGE))
		i++;
	v->m->n.scanned += i;
	s->looked += i;
	return i;
}

/* False: it has to wait for its batch. */
static bool chunk(struct scan *s, struct scan_vm *v)
{
	uint64_t first = v->at, left = v->m->pages - first;
	unsigned n = left < CHUNK ? (unsigned)left : CHUNK, k;
	uint8_t there[CHUNK];

	if (mincore(v->map + first * SHM_PAGE, (size_t)n * SHM_PAGE, there) < 0)
		memset(there, 0, sizeof there);
	for (unsigned i = 0; i < n; i += k) {
		uint64_t frame = first + i;
		for (k = 0; i + k < n && k < READ_AT && wanted(v, there, frame + k, i + k); k++)
			;
		if (k) {
			unsigned done = read_pages(s, v, frame, k);
			v->at = frame + done;
			if (done < k)
				return false;
		} else {
			k = 1;
			if (v->m->rest[frame])
				v->m->rest[frame]--;
			merge_noticed(v->m, frame);
		}
	}
	v->at = first + n;
	v->passed = v->at == v->m->pages;
	return true;
}

/* ---- rate ---- */

unsigned scan_share(const struct scan *s)
{
	unsigned share = 100 * s->rate * (s->pressure ? SCAN_PRESSURE * SCAN_LEVELS : s->level) / SCAN_LEVELS;

	return share < 10000 ? share : 10000;
}

void scan_stats(const struct scan *s, struct msg_mem_stats *t)
{
	for (unsigned i = 0; i < SCAN_VMS_MAX; i++)
		if (s->vm[i].m) {
			t->scanned += s->vm[i].m->n.scanned;
			t->group_sharing += s->vm[i].m->n.sharing;
		}
	t->shared = s->pool->live;
	t->members = s->vms;
	t->share = scan_share(s);
	t->saved_bytes = t->group_sharing > t->shared ? (t->group_sharing - t->shared) * SHM_PAGE : 0;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t scan_clock(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void scan_charge(struct scan *s, uint64_t from)
{
	s->credit_ns -= (int64_t)(scan_clock() - from);
}

static void give_credit(struct scan *s)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), passed = s->last_ns ? now - s->last_ns : 0;

	s->last_ns = now;
	if (passed > 1000000000u)
		passed = 1000000000u;
	s->credit_ns += (int64_t)(passed * scan_share(s) / 10000);
	if (s->credit_ns > CREDIT_NS)
		s->credit_ns = CREDIT_NS;
}

/* The first two passes after something new cannot find much. */
static void end_pass(struct scan *s)
{
	s->passes++;
	s->pass_ns += s->pass_min_ns;
	if (s->pass_ns < s->last_ns)
		s->pass_ns = s->last_ns;
	if (s->found * FEW >= s->looked && s->found)
		s->level = SCAN_LEVELS;
	else if (s->passes > 2 && s->level > 1)
		s->level /= 2;
	new_pass(s);
}

/* A VM that has not passed and does not wait, in turn; NULL: none.  *waits: one has to. */
static struct scan_vm *next_vm(struct scan *s, bool *waits)
{
	*waits = false;
	for (unsigned i = 0; i < SCAN_VMS_MAX; i++) {
		struct scan_vm *v = &s->vm[s->turn++ % SCAN_VMS_MAX];
		if (!v->m || v->passed || v->stuck)
			continue;
		if (room(v))
			return v;
		*waits = true;
	}
	return NULL;
}

unsigned scan_work(struct scan *s)
{
	bool waits = false;

	give_credit(s);
	while (s->credit_ns > 0 && s->vms && s->last_ns >= s->pass_ns) {
		uint64_t from = scan_clock();
		struct scan_vm *v = next_vm(s, &waits);
		bool ended = !v && !waits, blocked = v && !chunk(s, v);
		if (ended)
			end_pass(s);
		scan_charge(s, from);
		if (ended || blocked || waits)
			break; /* a pass is no reason to begin the next at once */
	}
	unsigned wait = (unsigned)((TICK_NS * 10000ull / scan_share(s) + 999999) / 1000000);
	return wait < WAIT_MIN ? WAIT_MIN : wait > WAIT_MAX ? WAIT_MAX : wait;
}
