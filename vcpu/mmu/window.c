/*
 * The window: which guest pages are mapped in it, and what takes them away.
 *
 * Pages are kept by regions of 2 MiB.  A page comes by a fault, with the neighbours that are next to it in RAM too, and stays
 * until a flush finds that the guest's tables say something else: a flush does not unmap, it compares.  So pages that do not
 * change, the kernel's own, outlive every flush.
 *
 * Invariant: outside the lock a page is mapped only if, at the last flush that covered it, a walk allowed what the mapping
 * allows, with the A bits set, and D where it may be written; and a page that may be written holds no translated code and has
 * its dirty bit.
 */
#include "vcpu/mmu/window.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/gmem.h"
#include "common/memory.h"
#include "vcpu/mutex.h"

#define PAGE      (GUEST_PAGE_MASK + 1)
#define REGION    (2ull << 20)
#define PAGES     512u
#define HASH      8192u
#define NONE      0xffffffffu
#define MAX_RUNS  40000u /* mappings, of the host's 65,530: the rest is the engine's and what adds up unseen */
#define NONGLOBAL 1024u  /* regions with pages that a CR3 load looks at */

/* A page of a region: its frame and what it is. */
#define P_FRAME  0x0fffffffu
#define P_MAPPED (1u << 31)
#define P_WRITE  (1u << 30)
#define P_GLOBAL (1u << 29)

struct region {
	uint64_t gva;
	uint32_t hash_next, list_at; /* its place in the list of regions in use */
	uint16_t n_mapped, n_runs, n_local;
	uint8_t shift;        /* log2 of the guest's page that all of it is of, or 12 */
	uint8_t listed_local; /* in window.local */
	uint32_t page[PAGES];
	uint32_t same_frame[PAGES]; /* next page that maps the frame: number + 1 */
};

struct window {
	const struct gmem *g;
	struct window_config c;
	struct mutex lock; /* the last one: nothing but memory calls and looks at the guest's tables inside */
	struct region *regions;
	uint32_t n_regions, max_regions, free; /* ever used; of the array; list of free ones by hash_next */
	uint32_t *used, n_used;
	uint32_t hash[HASH];
	uint32_t *frame_head; /* by frame: first page that maps it: region * PAGES + index + 1 */
	uint64_t frames;
	uint32_t n_runs;
	uint32_t local[NONGLOBAL], n_local;
};

static uint64_t host_of(const struct window *w, uint64_t gva)
{
	return gva + w->c.delta;
}

static void *host_ptr(const struct window *w, uint64_t gva)
{
	return (void *)(uintptr_t)host_of(w, gva);
}

int window_place_free(void)
{
	const uint64_t low = 1u << 16;
	void *p = mmap((void *)(uintptr_t)low, WINDOW_CLEAR - low, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, WINDOW_CLEAR - low);
	return (uint64_t)(uintptr_t)p == low ? 0 : -EEXIST;
}

static uint32_t regions_for(uint64_t ram)
{
	return (uint32_t)(2 * (ram / REGION) + 2048);
}

uint64_t window_space(uint64_t ram)
{
	return regions_for(ram) * REGION;
}

uint64_t window_tables(uint64_t ram)
{
	return regions_for(ram) * (sizeof(struct region) + 4) + ram / PAGE * 4 + (8u << 20);
}

int window_create(struct window **out, const struct gmem *g, const struct window_config *c)
{
	struct window *w = calloc(1, sizeof *w);

	if (!w)
		return -ENOMEM;
	w->g = g;
	w->c = *c;
	w->frames = g->size / PAGE;
	w->max_regions = regions_for(g->size);
	w->free = NONE;
	for (unsigned i = 0; i < HASH; i++)
		w->hash[i] = NONE;
	w->regions = memory_anon(w->max_regions * sizeof *w->regions);
	w->used = memory_anon(w->max_regions * sizeof *w->used);
	w->frame_head = memory_anon(w->frames * sizeof *w->frame_head);
	if (!w->regions || !w->used || !w->frame_head || w->frames > P_FRAME) {
		window_destroy(w);
		return -ENOMEM;
	}
	*out = w;
	return 0;
}

uint64_t window_delta(const struct window *w)
{
	return w->c.delta;
}

uint32_t window_mode(const struct window *w)
{
	return w->c.mode;
}

/* ---- regions ---- */

static uint32_t hash_of(uint64_t gva)
{
	return (uint32_t)((gva / REGION * 0x9e3779b97f4a7c15ull) >> 51);
}

static struct region *find(struct window *w, uint64_t gva)
{
	uint64_t base = gva & ~(REGION - 1);

	for (uint32_t i = w->hash[hash_of(gva)]; i != NONE; i = w->regions[i].hash_next)
		if (w->regions[i].gva == base)
			return &w->regions[i];
	return NULL;
}

static struct region *make(struct window *w, uint64_t gva)
{
	uint32_t n = w->free, h = hash_of(gva);
	struct region *r;

	if (n != NONE)
		w->free = w->regions[n].hash_next;
	else if (w->n_regions < w->max_regions)
		n = w->n_regions++;
	else
		return NULL;
	r = &w->regions[n];
	r->gva = gva & ~(REGION - 1);
	r->shift = GUEST_PAGE_SHIFT;
	r->hash_next = w->hash[h];
	w->hash[h] = n;
	r->list_at = w->n_used;
	w->used[w->n_used++] = n;
	return r;
}

/* An empty region goes. */
static void drop_region(struct window *w, struct region *r)
{
	uint32_t n = (uint32_t)(r - w->regions), *p = &w->hash[hash_of(r->gva)], last = w->used[--w->n_used];

	while (*p != n)
		p = &w->regions[*p].hash_next;
	*p = r->hash_next;
	w->used[r->list_at] = last;
	w->regions[last].list_at = r->list_at;
	r->hash_next = w->free;
	w->free = n;
}

static uint32_t node_of(const struct window *w, const struct region *r, unsigned i)
{
	return (uint32_t)(r - w->regions) * PAGES + i + 1;
}

static void frame_link(struct window *w, struct region *r, unsigned i)
{
	uint32_t *head = &w->frame_head[r->page[i] & P_FRAME];

	r->same_frame[i] = *head;
	*head = node_of(w, r, i);
}

static void frame_unlink(struct window *w, struct region *r, unsigned i)
{
	uint32_t *p = &w->frame_head[r->page[i] & P_FRAME], n = node_of(w, r, i);

	while (*p != n)
		p = &w->regions[(*p - 1) / PAGES].same_frame[(*p - 1) % PAGES];
	*p = r->same_frame[i];
}

/* Does page @i continue the mapping of the page before it? */
static bool continues(const struct region *r, unsigned i)
{
	uint32_t a = r->page[i - 1], b = r->page[i];

	return (a & P_MAPPED) && (b & P_MAPPED) && (a & P_FRAME) + 1 == (b & P_FRAME) && !((a ^ b) & P_WRITE);
}

static void count_runs(struct window *w, struct region *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		n += (r->page[i] & P_MAPPED) && (!i || !continues(r, i));
	w->n_runs += n - r->n_runs;
	r->n_runs = (uint16_t)n;
}

static void forget_page(struct window *w, struct region *r, unsigned i)
{
	frame_unlink(w, r, i);
	r->n_mapped--;
	if (!(r->page[i] & P_GLOBAL))
		r->n_local--;
	r->page[i] = 0;
}

/* Pages [i, end) of @r go. */
static void unmap(struct window *w, struct region *r, unsigned i, unsigned end)
{
	munmap(host_ptr(w, r->gva + i * PAGE), (end - i) * PAGE);
	for (; i < end; i++)
		if (r->page[i] & P_MAPPED)
			forget_page(w, r, i);
}

/* Everything goes: too many mappings. */
static void evict_all(struct window *w, struct vcpu *v)
{
	v->stats.window_evictions++;
	while (w->n_used) {
		struct region *r = &w->regions[w->used[w->n_used - 1]];

		unmap(w, r, 0, PAGES);
		count_runs(w, r);
		r->listed_local = 0;
		drop_region(w, r);
	}
	w->n_local = 0;
}

void window_destroy(struct window *w)
{
	if (!w)
		return;
	for (uint32_t i = 0; i < w->n_used; i++)
		munmap(host_ptr(w, w->regions[w->used[i]].gva), REGION);
	memory_anon_free(w->regions, w->max_regions * sizeof *w->regions);
	memory_anon_free(w->used, w->max_regions * sizeof *w->used);
	memory_anon_free(w->frame_head, w->frames * sizeof *w->frame_head);
	free(w);
}

/* ---- what the guest's tables say ---- */

/* The entry of a page that @k, found for a read of it, allows in the window; 0: none. */
static uint32_t entry_of(struct vcpu *v, const struct window *w, const struct walk *k)
{
	int64_t frame = gmem_frame(w->g, k->gpa);
	uint8_t *p;
	uint32_t e;

	if (frame < 0 || (uint64_t)frame >= w->frames || !k->accessed || k->user != ((w->c.mode & MODE_USER) != 0))
		return 0;
	p = gmem_frame_ptr(w->g, (uint64_t)frame, GMEM_READ);
	if (p != w->g->ram + ((uint64_t)frame << GMEM_PAGE_SHIFT))
		return 0; /* somewhere else: it stays with the soft TLB */
	e = P_MAPPED | (uint32_t)frame | (k->global ? P_GLOBAL : 0);
	if (k->writable && k->dirty && gmem_frame_ptr(w->g, (uint64_t)frame, GMEM_WRITE) == p &&
	    (!gmem_bit(w->g->code_bm, (uint64_t)frame) || v->hook->stored(v, (uint64_t)frame, 0, 0) == STORED_DATA))
		e |= P_WRITE;
	return e;
}

static uint32_t look(struct vcpu *v, const struct window *w, uint64_t gva, struct walk *k)
{
	unsigned user = w->c.mode & MODE_USER ? ACC_USER : 0u;

	return mmu_probe(v, gva, ACC_R | user, k) ? 0 : entry_of(v, w, k);
}

/* May what is mapped as @e stay, when the tables now say @now? */
static bool holds(uint32_t e, uint32_t now)
{
	return (now & P_MAPPED) && (e & P_FRAME) == (now & P_FRAME) && (e & P_GLOBAL) == (now & P_GLOBAL) &&
	       !(e & ~now & P_WRITE);
}

/* ---- filling ---- */

/* What pages of the region around @at become: @now, for those in [*lo, *hi). */
static void plan_large(struct vcpu *v, const struct window *w, const struct walk *k, unsigned at, uint32_t *now)
{
	struct walk p = *k;

	for (unsigned i = 0; i < PAGES; i++) {
		p.gpa = (k->gpa & ~GUEST_PAGE_MASK) + ((uint64_t)i - at) * PAGE;
		now[i] = entry_of(v, w, &p);
	}
}

/* Neighbours that are so in RAM too: [*lo, *hi) around @at. */
static void plan_small(struct vcpu *v, const struct window *w, const struct region *r, unsigned at, uint32_t *now,
		       unsigned *lo, unsigned *hi)
{
	struct walk k;
	unsigned i;

	for (i = at; i > 0 && i + 64 > at; i--) {
		now[i - 1] = look(v, w, r->gva + (i - 1) * PAGE, &k);
		if ((now[i - 1] ^ (now[i] - 1)) & (P_MAPPED | P_GLOBAL | P_FRAME))
			break;
	}
	*lo = i;
	for (i = at + 1; i < PAGES && i < at + 64; i++) {
		now[i] = look(v, w, r->gva + i * PAGE, &k);
		if ((now[i] ^ (now[i - 1] + 1)) & (P_MAPPED | P_GLOBAL | P_FRAME))
			break;
	}
	*hi = i;
}

static void note_page(struct window *w, struct region *r, unsigned i, uint32_t e)
{
	if (r->page[i] & P_MAPPED)
		forget_page(w, r, i);
	r->page[i] = e;
	r->n_mapped++;
	if (!(e & P_GLOBAL))
		r->n_local++;
	frame_link(w, r, i);
	if (e & P_WRITE)
		gmem_mark_dirty(w->g, e & P_FRAME);
}

/* Maps pages [i, end), which are one run of RAM. */
static int map_run(struct window *w, struct region *r, unsigned i, unsigned end, const uint32_t *now)
{
	int prot = now[i] & P_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
	void *at = host_ptr(w, r->gva + i * PAGE);
	size_t len = (end - i) * PAGE;
	bool same = true;

	for (unsigned k = i; k < end; k++)
		same &= (r->page[k] & P_MAPPED) && (r->page[k] & P_FRAME) == (now[k] & P_FRAME);
	if (same ? mprotect(at, len, prot) < 0
		 : mmap(at, len, prot, MAP_SHARED | MAP_FIXED, w->c.ram_fd,
			(off_t)((uint64_t)(now[i] & P_FRAME) << GMEM_PAGE_SHIFT)) == MAP_FAILED)
		return -errno;
	for (; i < end; i++)
		note_page(w, r, i, now[i]);
	return 0;
}

/* Makes what is mapped of [lo, hi) what @now says. */
static int map_plan(struct window *w, struct region *r, unsigned lo, unsigned hi, const uint32_t *now)
{
	int rc = 0;

	for (unsigned i = lo, end; i < hi && !rc; i = end) {
		end = i + 1;
		if (!(now[i] & P_MAPPED) && (r->page[i] & P_MAPPED))
			unmap(w, r, i, end);
		if (!(now[i] & P_MAPPED) || r->page[i] == now[i])
			continue;
		while (end < hi && now[end] == now[end - 1] + 1 && r->page[end] != now[end])
			end++;
		rc = map_run(w, r, i, end, now);
	}
	count_runs(w, r);
	return rc;
}

/* The region has pages that are not global: CR3 loads look at it. */
static bool list_local(struct window *w, struct region *r)
{
	if (r->listed_local)
		return true;
	if (w->n_local == NONGLOBAL)
		return false;
	w->local[w->n_local++] = (uint32_t)(r - w->regions);
	r->listed_local = 1;
	return true;
}

static int map_around(struct vcpu *v, struct window *w, struct region *r, uint64_t gva, const struct walk *k)
{
	unsigned at = (unsigned)(gva / PAGE % PAGES), lo = 0, hi = PAGES;
	uint32_t now[PAGES];

	now[at] = entry_of(v, w, k);
	if (!(now[at] & P_MAPPED) || (!(now[at] & P_GLOBAL) && !list_local(w, r)))
		return -ENOENT;
	if (k->page_size >= REGION) {
		r->shift = (uint8_t)__builtin_ctzll(k->page_size);
		plan_large(v, w, k, at, now);
	} else {
		r->shift = GUEST_PAGE_SHIFT;
		plan_small(v, w, r, at, now, &lo, &hi);
	}
	v->stats.window_maps++;
	return map_plan(w, r, lo, hi, now);
}

static enum window_fill fill(struct vcpu *v, struct window *w, uint64_t gva, unsigned acc, uint64_t *frame)
{
	unsigned user = w->c.mode & MODE_USER ? ACC_USER : 0u, at = (unsigned)(gva / PAGE % PAGES);
	struct region *r;
	struct walk k;
	uint32_t now;

	if (mmu_probe(v, gva, acc | user, &k))
		return WINDOW_THERE; /* changed since the walk: the access faults again */
	now = entry_of(v, w, &k);
	if (!now)
		return WINDOW_NOT;
	*frame = now & P_FRAME;
	if ((acc & ACC_W) && !(now & P_WRITE))
		return gmem_bit(w->g->code_bm, now & P_FRAME) ? WINDOW_CODE : WINDOW_NOT;
	r = find(w, gva);
	if (r && !(now & ~r->page[at] & (P_MAPPED | P_WRITE)) && holds(r->page[at], now))
		return WINDOW_THERE;
	if (w->n_runs >= MAX_RUNS || (!r && w->n_regions == w->max_regions && w->free == NONE)) {
		evict_all(w, v);
		r = NULL;
	}
	if (!r)
		r = make(w, gva);
	if (map_around(v, w, r, gva, &k) < 0) {
		if (r->page[at] & P_MAPPED)
			unmap(w, r, at, at + 1);
		count_runs(w, r);
		return WINDOW_NOT;
	}
	return WINDOW_FILLED;
}

enum window_fill window_fill(struct vcpu *v, uint64_t gva, unsigned acc, uint64_t *frame)
{
	struct window *w = v->vm->window;
	enum window_fill r;
	struct walk k;

	v->stats.window_faults++;
	if (gva < w->c.first || gva > w->c.last || v->a20_off)
		return WINDOW_NOT;
	if (mmu_walk(v, gva, acc | (w->c.mode & MODE_USER ? ACC_USER : 0u), &k) < 0)
		return WINDOW_RAISED;
	mutex_lock(&w->lock, RANK_WINDOW);
	r = fill(v, w, gva, acc, frame);
	mutex_unlock(&w->lock, RANK_WINDOW);
	return r;
}

/* ---- taking away ---- */

/* Pages [i, end) of @r that the tables no longer allow go. */
static void check_pages(struct vcpu *v, struct window *w, struct region *r, unsigned i, unsigned end)
{
	struct walk k;

	while (i < end) {
		unsigned from = i;

		while (i < end && (r->page[i] & P_MAPPED) && !holds(r->page[i], look(v, w, r->gva + i * PAGE, &k)))
			i++;
		if (i > from) {
			v->stats.window_withdrawn += i - from;
			unmap(w, r, from, i);
		} else {
			i++;
		}
	}
}

/* The same for a region that is all of one large page: one look tells. */
static bool large_holds(struct vcpu *v, const struct window *w, const struct region *r)
{
	struct walk k;

	for (unsigned i = 0; i < PAGES; i++) {
		if (!(r->page[i] & P_MAPPED))
			continue;
		uint32_t now = look(v, w, r->gva + i * PAGE, &k);
		/* what another page of it is allowed differs by code alone, and code takes its rights by itself */
		return holds(r->page[i] & ~P_WRITE, now) && k.page_size == 1ull << r->shift && k.writable && k.dirty;
	}
	return true;
}

static void check_region(struct vcpu *v, struct window *w, struct region *r)
{
	if (r->shift == GUEST_PAGE_SHIFT || !large_holds(v, w, r))
		check_pages(v, w, r, 0, PAGES);
	count_runs(w, r);
}

/* The list of regions with pages that are not global, without those that have none any more. */
static void sweep_local(struct window *w)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < w->n_local; i++) {
		struct region *r = &w->regions[w->local[i]];

		if (r->n_local)
			w->local[kept++] = w->local[i];
		else
			r->listed_local = 0;
	}
	w->n_local = kept;
}

static void sweep(struct window *w)
{
	sweep_local(w);
	for (uint32_t i = w->n_used; i-- > 0;) {
		struct region *r = &w->regions[w->used[i]];

		if (!r->n_mapped && !r->listed_local)
			drop_region(w, r);
	}
}

void window_flush(struct vcpu *v, bool global)
{
	struct window *w = v->vm->window;

	if (!w || (global ? !w->n_used : !w->n_local))
		return;
	mutex_lock(&w->lock, RANK_WINDOW);
	if (v->a20_off) { /* pages of a large page do not lie side by side now */
		evict_all(w, v);
	} else if (global) {
		for (uint32_t i = 0; i < w->n_used; i++)
			check_region(v, w, &w->regions[w->used[i]]);
		sweep(w);
	} else {
		for (uint32_t i = 0; i < w->n_local; i++)
			check_region(v, w, &w->regions[w->local[i]]);
		sweep_local(w);
	}
	v->stats.window_flushes++;
	mutex_unlock(&w->lock, RANK_WINDOW);
}

/* All that lies in the guest's large page at @gva. */
static void check_around(struct vcpu *v, struct window *w, uint64_t gva, unsigned shift)
{
	for (uint32_t i = 0; i < w->n_used; i++) {
		struct region *r = &w->regions[w->used[i]];

		if (!((r->gva ^ gva) >> shift))
			check_region(v, w, r);
	}
}

void window_flush_page(struct vcpu *v, uint64_t gva)
{
	struct window *w = v->vm->window;
	unsigned at = (unsigned)(gva / PAGE % PAGES);
	struct region *r;

	if (!w || gva < w->c.first || gva > w->c.last)
		return;
	mutex_lock(&w->lock, RANK_WINDOW);
	r = find(w, gva);
	if (r && r->shift > 21)
		check_around(v, w, gva, r->shift);
	else if (r && r->shift == 21)
		check_region(v, w, r);
	else if (r && (r->page[at] & P_MAPPED))
		check_pages(v, w, r, at, at + 1);
	if (r)
		count_runs(w, r);
	mutex_unlock(&w->lock, RANK_WINDOW);
}

/* Calls @fn for each page of the window that maps @frame. */
static void each(struct window *w, uint64_t frame, void (*fn)(struct window *, struct region *, unsigned))
{
	if (!w || frame >= w->frames || !w->frame_head[frame])
		return;
	mutex_lock(&w->lock, RANK_WINDOW);
	for (uint32_t n = w->frame_head[frame], next; n; n = next) {
		struct region *r = &w->regions[(n - 1) / PAGES];

		next = r->same_frame[(n - 1) % PAGES];
		fn(w, r, (n - 1) % PAGES);
		count_runs(w, r);
	}
	mutex_unlock(&w->lock, RANK_WINDOW);
}

static void write_protect(struct window *w, struct region *r, unsigned i)
{
	if (!(r->page[i] & P_WRITE))
		return;
	if (mprotect(host_ptr(w, r->gva + i * PAGE), PAGE, PROT_READ) < 0)
		unmap(w, r, i, i + 1);
	else
		r->page[i] &= ~P_WRITE;
}

static void withdraw(struct window *w, struct region *r, unsigned i)
{
	unmap(w, r, i, i + 1);
}

void window_drop_writes(struct window *w, uint64_t frame)
{
	each(w, frame, write_protect);
}

void window_withdraw(struct window *w, uint64_t frame)
{
	each(w, frame, withdraw);
}
