/*
 * Soft TLB: fills and flushes.
 * Invariant: a write tag stands only for a RAM page that the guest may write,
 * whose D bit and dirty bit are set, that holds no translated code, and that is not merged.
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/cpu/mode.h"
#include "vcpu/mmu/bank.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/mmu/window.h"

void tlb_init(struct vcpu *v)
{
	v->pext_mask = (uint64_t)(TLB_SIZE - 1) << GUEST_PAGE_SHIFT;
	for (int k = 0; k < TLB_COUNT; k++)
		v->tlb[k].n_filled = UINT32_MAX; /* clear everything */
	tlb_flush_all(v);
}

static void fill_tags(uint64_t *tags, size_t n)
{
	for (size_t i = 0; i < n; i++)
		tags[i] = TLB_INVALID;
}

/* A few fills are taken back one by one, many by clearing the table. */
static void flush_kind(struct vcpu *v, int kind)
{
	struct soft_tlb *t = &v->tlb[kind];

	world_assert_mine(v);
	if (t->n_filled > TLB_FILLED) {
		fill_tags(t->rtag, TLB_SIZE);
		fill_tags(t->wtag, TLB_SIZE);
	} else {
		for (uint32_t i = 0; i < t->n_filled; i++)
			t->rtag[t->filled[i]] = t->wtag[t->filled[i]] = TLB_INVALID;
	}
	t->n_filled = 0;
}

static void gone(struct vcpu *v, struct mmu_gone g)
{
	v->hook->gone(v, &g);
}

void tlb_flush_all(struct vcpu *v)
{
	for (int k = 0; k < TLB_COUNT; k++)
		flush_kind(v, k);
	bank_forget_all(v);
	v->n_nonglobal = 0;
	v->low_global = 0;
	memset(v->large_filter, 0, sizeof v->large_filter);
	v->have_1g = 0;
	v->stats.tlb_flushes++;
	window_flush(v, true);
	gone(v, (struct mmu_gone){.kind = GONE_ALL});
}

void mmu_set_a20(struct vcpu *v, bool on)
{
	uint64_t off = on ? 0 : 1ull << 20;

	if (v->a20_off == off)
		return;
	v->a20_off = off;
	tlb_flush_all(v);
}

static void flush_nonglobal(struct vcpu *v)
{
	struct soft_tlb *k = &v->tlb[TLB_KERN];

	flush_kind(v, TLB_USER);
	flush_kind(v, TLB_KERN_AC);
	for (uint32_t i = 0; i < v->n_nonglobal; i++)
		k->rtag[v->nonglobal[i]] = k->wtag[v->nonglobal[i]] = TLB_INVALID;
	v->n_nonglobal = 0;
	v->stats.tlb_flushes++;
	window_flush(v, false);
}

void tlb_flush_nonglobal(struct vcpu *v)
{
	flush_nonglobal(v);
	gone(v, (struct mmu_gone){.kind = GONE_NONGLOBAL});
}

void tlb_switch(struct vcpu *v, unsigned from, unsigned to, bool flush)
{
	struct mmu_gone g = {.kind = GONE_SWITCH, .kept = -1, .back = -1};

	if (from != to)
		g.kept = bank_save(v, from);
	flush_nonglobal(v);
	if (flush || from == to)
		bank_forget(v, to);
	else
		g.back = bank_restore(v, to);
	gone(v, g);
}

static unsigned filter_hash(uint64_t n)
{
	return (unsigned)((n * 0x9e3779b97f4a7c15ull) >> 52);
}

/* An invlpg of such a page would have to look into all that banks keep. */
void tlb_note_global(struct vcpu *v, uint64_t gva)
{
	if (gva >> 63)
		return;
	v->low_global = 1;
	bank_forget_all(v);
}

void tlb_note_large(struct vcpu *v, uint64_t gva, uint64_t page_size)
{
	unsigned h = filter_hash(gva >> 21) & 4095;

	if (page_size <= GUEST_PAGE_MASK + 1)
		return;
	v->large_filter[h / 64] |= 1ull << (h % 64);
	if (page_size > (4u << 20))
		v->have_1g = 1;
}

/* Entries made from a large page stand at the indices of their 4 KiB pieces.  log2 of what an invlpg takes away. */
static unsigned flush_large(struct vcpu *v, uint64_t gva)
{
	unsigned h = filter_hash(gva >> 21) & 4095, shift = v->have_1g ? 30 : 22;

	if (!v->have_1g && !(v->large_filter[h / 64] >> (h % 64) & 1))
		return GUEST_PAGE_SHIFT;
	for (int k = 0; k < TLB_COUNT; k++)
		for (unsigned i = 0; i < TLB_SIZE; i++)
			if (!((v->tlb[k].rtag[i] ^ gva) >> shift) || !((v->tlb[k].wtag[i] ^ gva) >> shift))
				v->tlb[k].rtag[i] = v->tlb[k].wtag[i] = TLB_INVALID;
	return shift;
}

void tlb_flush_page(struct vcpu *v, uint64_t gva)
{
	uint64_t page = gva & ~GUEST_PAGE_MASK;
	unsigned i = page >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1), shift;

	world_assert_mine(v);
	for (int k = 0; k < TLB_COUNT; k++)
		v->tlb[k].rtag[i] = v->tlb[k].wtag[i] = TLB_INVALID;
	shift = flush_large(v, page);
	window_flush_page(v, page);
	v->stats.tlb_page_flushes++;
	gone(v, (struct mmu_gone){.kind = GONE_PAGE, .gva = page, .shift = shift});
}

static void drop_write(struct soft_tlb *t, unsigned i, uint64_t hva)
{
	if (t->wtag[i] != TLB_INVALID && t->wtag[i] + t->wadd[i] == hva)
		t->wtag[i] = TLB_INVALID;
}

void tlb_drop_writes(struct vcpu *v, uint64_t frame)
{
	uint64_t hva =
		(uint64_t)(uintptr_t)gmem_frame_ptr(v->vm->mem, frame, GMEM_READ); /* of a merged page: harmless */

	world_assert_mine(v);
	window_drop_writes(v->vm->window, frame);
	bank_drop_writes(v, hva);
	for (int k = 0; k < TLB_COUNT; k++) {
		struct soft_tlb *t = &v->tlb[k];

		if (t->n_filled > TLB_FILLED)
			for (unsigned i = 0; i < TLB_SIZE; i++)
				drop_write(t, i, hva);
		else
			for (unsigned i = 0; i < t->n_filled; i++)
				drop_write(t, t->filled[i], hva);
	}
}

/* ---- who may write where ---- */

static uint32_t write_hash(uint64_t hva)
{
	return (uint32_t)((hva >> GUEST_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> (64 - WRITE_FILTER_BITS));
}

static void filter_next(struct vcpu *v, uint64_t hva)
{
	uint32_t h = write_hash(hva);
	uint64_t *w = &v->writes.bits[v->writes.now ^ 1][h / 64];

	v->writes.n += !(*w >> (h % 64) & 1);
	__atomic_store_n(w, *w | 1ull << (h % 64), __ATOMIC_RELAXED);
}

/* The filter anew; a thread that looks meanwhile finds the old one or the new one, and both tell of every tag. */
static void filter_rebuild(struct vcpu *v)
{
	uint64_t *next = v->writes.bits[v->writes.now ^ 1];

	for (unsigned i = 0; i < 1 << (WRITE_FILTER_BITS - 6); i++)
		__atomic_store_n(&next[i], 0, __ATOMIC_RELAXED);
	v->writes.n = 0;
	for (int k = 0; k < TLB_COUNT; k++)
		for (unsigned i = 0; i < TLB_SIZE; i++)
			if (v->tlb[k].wtag[i] != TLB_INVALID)
				filter_next(v, v->tlb[k].wtag[i] + v->tlb[k].wadd[i]);
	bank_each_write(v, filter_next);
	__atomic_store_n(&v->writes.now, v->writes.now ^ 1, __ATOMIC_RELEASE);
}

/* Before it is looked whether the page has code: who marks it then either is seen or sees this. */
static void note_writer(struct vcpu *v, uint64_t hva)
{
	uint32_t h = write_hash(hva);
	uint64_t *w = &v->writes.bits[v->writes.now][h / 64];

	if (v->vm->ncpus == 1 || (*w >> (h % 64) & 1))
		return;
	if (v->writes.n++ >= WRITE_FILTER_FULL) {
		filter_rebuild(v);
		w = &v->writes.bits[v->writes.now][h / 64];
	}
	__atomic_fetch_or(w, 1ull << (h % 64), __ATOMIC_SEQ_CST);
}

bool tlb_may_write(const struct vcpu *v, uint64_t frame)
{
	uint64_t hva = (uint64_t)(uintptr_t)gmem_frame_ptr(v->vm->mem, frame, GMEM_WRITE);
	uint32_t h = write_hash(hva);

	return __atomic_load_n(&v->writes.bits[__atomic_load_n(&v->writes.now, __ATOMIC_ACQUIRE)][h / 64],
			       __ATOMIC_SEQ_CST) >>
		       (h % 64) &
	       1;
}

/* Access bits for the walk, from the soft TLB the code uses. */
static unsigned walk_acc(const struct vcpu *v, unsigned acc)
{
	return (acc & (ACC_R | ACC_W)) | (v->cpl == 3 ? ACC_USER : 0u);
}

void tlb_note_filled(struct soft_tlb *t, unsigned i)
{
	if (t->rtag[i] != TLB_INVALID || t->wtag[i] != TLB_INVALID)
		return;
	if (t->n_filled < TLB_FILLED)
		t->filled[t->n_filled] = (uint16_t)i;
	if (t->n_filled <= TLB_FILLED)
		t->n_filled++;
}

static void install(struct vcpu *v, uint64_t gva, uint64_t addend, const struct walk *w, bool write, bool may_write)
{
	unsigned kind = mode_tlb(v->mode), i = gva >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1);
	struct soft_tlb *t = &v->tlb[kind];
	uint64_t page = gva & ~GUEST_PAGE_MASK;

	world_assert_mine(v);
	if (kind == TLB_KERN && !w->global && t->rtag[i] != page && t->wtag[i] != page) {
		if (v->n_nonglobal == TLB_FILLED) {
			flush_kind(v, kind);
			v->n_nonglobal = 0;
		}
		v->nonglobal[v->n_nonglobal++] = (uint16_t)i;
	}
	if (w->global)
		tlb_note_global(v, page);
	tlb_note_filled(t, i);
	/* a store leaves another page's read entry alone: copies between arrays that share indices need both */
	if (!write || t->rtag[i] == TLB_INVALID || t->rtag[i] == page) {
		t->rtag[i] = page;
		t->radd[i] = addend;
	}
	if (may_write && (write || t->wtag[i] == TLB_INVALID)) {
		t->wtag[i] = page;
		t->wadd[i] = addend;
	}
	tlb_note_large(v, gva, w->page_size);
}

/* Where @frame is to be found for @acc.  A place in the pool is noted before it is looked up for good: whoever has written the
 * page meanwhile sees the note, or we see the new place.  Where there are other CPUs none keeps a translation to the pool, since
 * nothing would take it back from them: the page is given its own place. */
static uint8_t *place(struct vcpu *v, uint64_t frame, unsigned acc)
{
	struct gmem *g = v->vm->mem;
	uint8_t *host = gmem_frame_ptr(g, frame, acc & ACC_W ? GMEM_READ | GMEM_WRITE : GMEM_READ);

	if (!gmem_in_pool(g, host))
		return host;
	if (v->vm->ncpus > 1)
		return gmem_frame_ptr(g, frame, GMEM_READ | GMEM_WRITE);
	__atomic_fetch_or(&g->held_bm[frame / 64], 1ull << (frame % 64), __ATOMIC_SEQ_CST);
	return gmem_frame_ptr(g, frame, GMEM_READ);
}

int tlb_fill(struct vcpu *v, uint64_t gva, unsigned size, unsigned acc)
{
	struct gmem *g = v->vm->mem;
	struct walk w;
	uint8_t *host;
	int64_t frame;
	bool may_write;
	int stored;

	v->stats.tlb_misses++;
	if (mmu_walk(v, gva, walk_acc(v, acc), &w) < 0)
		return TLB_RAISED;
	frame = gmem_frame(g, w.gpa);
	host = frame < 0 ? NULL : place(v, (uint64_t)frame, acc);
	if (!host)
		return TLB_NO_RAM;
	v->mem_addend = (uint64_t)(uintptr_t)host - (gva & ~GUEST_PAGE_MASK);
	if (w.writable && w.dirty)
		note_writer(v, (uint64_t)(uintptr_t)host);
	stored = v->hook->stored(v, (uint64_t)frame, (unsigned)(gva & GUEST_PAGE_MASK), acc & ACC_W ? size : 0);
	may_write = stored == STORED_DATA && w.writable && w.dirty && gmem_writable(g, (uint64_t)frame);
	if ((acc & ACC_W) || may_write)
		__atomic_fetch_or(&g->dirty_bm[frame / 64], 1ull << (frame % 64), __ATOMIC_RELAXED);
	install(v, gva, v->mem_addend, &w, acc & ACC_W, may_write);
	return stored == STORED_CODE ? TLB_STORED : TLB_FILLED_IN;
}

int tlb_read(struct vcpu *v, uint64_t lin, void *buf, unsigned len)
{
	struct soft_tlb *t = &v->tlb[mode_tlb(v->mode)];
	unsigned i = lin >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1);
	uint64_t page = lin & ~GUEST_PAGE_MASK;
	const void *p;

	if ((lin & GUEST_PAGE_MASK) + len > GUEST_PAGE_MASK + 1 || (v->dr[7] & 0xff) || (len != 4 && len != 8))
		return mmu_read(v, lin, buf, len, mmu_acc(v, ACC_R));
	if (t->rtag[i] != page) {
		int r = tlb_fill(v, lin, len, ACC_R);

		if (r == TLB_RAISED)
			return -1;
		if (r == TLB_NO_RAM)
			return mmu_read(v, lin, buf, len, mmu_acc(v, ACC_R));
	}
	p = (const void *)(uintptr_t)(lin + t->radd[i]);
	if (len == 8)
		memcpy(buf, p, 8);
	else
		memcpy(buf, p, 4);
	return 0;
}
