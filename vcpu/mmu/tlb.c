/*
 * Soft TLB: fills, flushes, and the C side of translated code's slow paths.
 * Invariant: a write tag stands only for a RAM page that the guest may write,
 * whose D bit and dirty bit are set, and that holds no translated code.
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/exits.h"
#include "vcpu/bt/masked.h"
#include "vcpu/cpu/breakpoint.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/trace.h"

#define P2M_FLAGS 0xfffull /* low bits of a p2m entry; none means own RAM */

void tlb_init(struct vcpu *v)
{
	v->pext_mask = (uint64_t)(TLB_SIZE - 1) << GUEST_PAGE_SHIFT;
	for (int k = 0; k < TLB_COUNT; k++)
		v->tlb[k].n_filled = UINT32_MAX; /* clear everything */
	for (int k = 0; k < JC_COUNT; k++)
		v->jc_mode[k] = JC_UNUSED;
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

	if (t->n_filled > TLB_FILLED) {
		fill_tags(t->rtag, TLB_SIZE);
		fill_tags(t->wtag, TLB_SIZE);
	} else {
		for (uint32_t i = 0; i < t->n_filled; i++)
			t->rtag[t->filled[i]] = t->wtag[t->filled[i]] = TLB_INVALID;
	}
	t->n_filled = 0;
}

static void flush_jump_caches(struct vcpu *v)
{
	for (unsigned k = 0; k < JC_COUNT; k++)
		jump_cache_flush(v, k);
}

void tlb_flush_branches(struct vcpu *v)
{
	flush_jump_caches(v);
	bank_forget_all(v);
	cells_reset_all(v);
}

void tlb_flush_all(struct vcpu *v)
{
	for (int k = 0; k < TLB_COUNT; k++)
		flush_kind(v, k);
	flush_jump_caches(v);
	bank_forget_all(v);
	v->n_nonglobal = 0;
	v->jc_nonglobal = 0;
	v->low_global = 0;
	memset(v->code_filter, 0, sizeof v->code_filter);
	memset(v->large_filter, 0, sizeof v->large_filter);
	v->have_1g = 0;
	fetch_cache_flush(v);
	cells_reset_all(v);
	v->stats.tlb_flushes++;
}

/* What was made of pages that are not global: by users, and by a supervisor who has such pages. */
static void flush_fetched_nonglobal(struct vcpu *v)
{
	for (unsigned k = 0; k < JC_COUNT; k++)
		if (v->jc_nonglobal || jump_cache_is_user(k))
			jump_cache_flush(v, k);
	v->jc_nonglobal = 0;
	v->fetch_age[0] = ++v->fetch_ages;
	cells_reset_user(v);
}

void tlb_flush_nonglobal(struct vcpu *v)
{
	struct soft_tlb *k = &v->tlb[TLB_KERN];

	flush_kind(v, TLB_USER);
	flush_kind(v, TLB_KERN_AC);
	for (uint32_t i = 0; i < v->n_nonglobal; i++)
		k->rtag[v->nonglobal[i]] = k->wtag[v->nonglobal[i]] = TLB_INVALID;
	v->n_nonglobal = 0;
	flush_fetched_nonglobal(v);
	memset(v->code_filter[1], 0, sizeof v->code_filter[1]);
	v->stats.tlb_flushes++;
}

void tlb_switch(struct vcpu *v, unsigned from, unsigned to, bool flush)
{
	if (from != to)
		bank_save(v, from);
	tlb_flush_nonglobal(v);
	if (flush || from == to)
		bank_forget(v, to);
	else
		bank_restore(v, to);
}

static unsigned filter_hash(uint64_t n)
{
	return (unsigned)((n * 0x9e3779b97f4a7c15ull) >> 52);
}

/* A global page among the addresses that banks keep: an invlpg would have to look into all of them. */
static void low_global(struct vcpu *v)
{
	v->low_global = 1;
	bank_forget_all(v);
}

static unsigned fetch_hash(uint64_t page)
{
	return (unsigned)((page >> GUEST_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> (64 - FETCH_FILTER_BITS));
}

void tlb_note_fetch(struct vcpu *v, uint64_t page, bool global)
{
	unsigned h = fetch_hash(page);

	if (global && !(page >> 63))
		low_global(v);
	v->code_filter[page >> 63 || global ? 0 : 1][h / 64] |= 1ull << (h % 64);
}

static bool fetched(const struct vcpu *v, int kind, uint64_t page)
{
	unsigned h = fetch_hash(page);

	return v->code_filter[kind][h / 64] >> (h % 64) & 1;
}

/* Was code fetched through this page?  If so, everything made from the mapping goes. */
static void flush_fetch_page(struct vcpu *v, uint64_t page)
{
	if ((page >> 63 || v->low_global) && fetched(v, 0, page)) {
		flush_jump_caches(v);
		fetch_cache_flush(v);
		cells_reset_all(v);
	} else if (fetched(v, 1, page)) {
		flush_fetched_nonglobal(v);
	}
}

static void note_large(struct vcpu *v, uint64_t gva, uint64_t page_size)
{
	unsigned h = filter_hash(gva >> 21) & 4095;

	v->large_filter[h / 64] |= 1ull << (h % 64);
	if (page_size > (4u << 20))
		v->have_1g = 1;
}

/* Entries made from a large page stand at the indices of their 4 KiB pieces. */
static void flush_large(struct vcpu *v, uint64_t gva)
{
	unsigned h = filter_hash(gva >> 21) & 4095, shift = v->have_1g ? 30 : 22;

	if (!v->have_1g && !(v->large_filter[h / 64] >> (h % 64) & 1))
		return;
	for (int k = 0; k < TLB_COUNT; k++)
		for (unsigned i = 0; i < TLB_SIZE; i++)
			if (!((v->tlb[k].rtag[i] ^ gva) >> shift) || !((v->tlb[k].wtag[i] ^ gva) >> shift))
				v->tlb[k].rtag[i] = v->tlb[k].wtag[i] = TLB_INVALID;
	for (int u = 0; u < 2; u++)
		for (int i = 0; i < FETCH_SIZE; i++)
			if (!((v->fetch[u][i].tag ^ gva) >> shift)) {
				cells_reset_all(v);
				flush_jump_caches(v);
				fetch_cache_flush(v);
				return;
			}
}

void tlb_flush_page(struct vcpu *v, uint64_t gva)
{
	uint64_t page = gva & ~GUEST_PAGE_MASK;
	unsigned i = page >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1);

	for (int k = 0; k < TLB_COUNT; k++)
		v->tlb[k].rtag[i] = v->tlb[k].wtag[i] = TLB_INVALID;
	flush_large(v, page);
	flush_fetch_page(v, page);
	v->stats.tlb_page_flushes++;
}

static void drop_write(struct soft_tlb *t, unsigned i, uint64_t hva)
{
	if (t->wtag[i] != TLB_INVALID && t->wtag[i] + t->wadd[i] == hva)
		t->wtag[i] = TLB_INVALID;
}

void tlb_drop_writes(struct vcpu *v, uint64_t frame)
{
	uint64_t hva = (uint64_t)(uintptr_t)v->vm->mem->ram + (v->vm->mem->p2m[frame] & ~P2M_FLAGS);

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

	if (kind == TLB_KERN && !w->global && t->rtag[i] != page && t->wtag[i] != page) {
		if (v->n_nonglobal == TLB_FILLED) {
			flush_kind(v, kind);
			v->n_nonglobal = 0;
		}
		v->nonglobal[v->n_nonglobal++] = (uint16_t)i;
	}
	if (w->global && !(page >> 63))
		low_global(v);
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
	if (w->page_size > 4096)
		note_large(v, gva, w->page_size);
}

#define COMBINE_FAILS 16
#define BOUNCES       (MODE_BOUNCE | MODE_BOUNCE_STACK)

enum { FILL_RAISED = -1, FILL_OK = 0, FILL_BOUNCE = 1, FILL_SMC = 2 };

/*
 * Translates an access of @size bytes that stays within its page.  FILL_OK: v->mem_addend is set; FILL_BOUNCE: no RAM;
 * FILL_SMC: the store dropped translations (and is allowed: v->mem_addend is set).
 */
static int fill(struct vcpu *v, uint64_t gva, unsigned size, unsigned acc)
{
	struct gmem *g = v->vm->mem;
	struct codepage *cp;
	struct walk w;
	int64_t frame;
	bool may_write;
	int r = FILL_OK;

	v->stats.tlb_misses++;
	if (mmu_walk(v, gva, walk_acc(v, acc), &w) < 0)
		return FILL_RAISED;
	frame = gmem_frame(g, w.gpa);
	if (frame < 0)
		return FILL_BOUNCE;
	v->mem_addend = (uint64_t)(uintptr_t)g->ram + (g->p2m[frame] & ~P2M_FLAGS) - (gva & ~GUEST_PAGE_MASK);
	cp = codepage_get(v->bt, (uint64_t)frame, false);
	may_write = !cp && w.writable && w.dirty;
	if (acc & ACC_W) {
		__atomic_fetch_or(&g->dirty_bm[frame / 64], 1ull << (frame % 64), __ATOMIC_RELAXED);
		if (cp && codepage_store(v, (uint64_t)frame, (unsigned)(gva & GUEST_PAGE_MASK), size))
			r = FILL_SMC;
	} else if (may_write) {
		__atomic_fetch_or(&g->dirty_bm[frame / 64], 1ull << (frame % 64), __ATOMIC_RELAXED);
	}
	install(v, gva, v->mem_addend, &w, acc & ACC_W, may_write);
	return r;
}

int tlb_fill(struct vcpu *v, uint64_t gva, unsigned size, unsigned acc)
{
	return fill(v, gva, size, acc);
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
		int r = fill(v, lin, len, ACC_R);

		if (r == FILL_RAISED)
			return -1;
		if (r == FILL_BOUNCE)
			return mmu_read(v, lin, buf, len, mmu_acc(v, ACC_R));
	}
	p = (const void *)(uintptr_t)(lin + t->radd[i]);
	if (len == 8)
		memcpy(buf, p, 8);
	else
		memcpy(buf, p, 4);
	return 0;
}

static void request_bounce(struct vcpu *v, const struct site *s, uint64_t gva)
{
	v->bounce_req = s->acc & SITE_ACC_STACK ? 2 : 1;
	v->bounce_acc = s->acc & (ACC_R | ACC_W);
	v->bounce_ss = s->acc & SITE_ACC_SS || s->seg == SEG_SS;
	v->bounce_size = s->size;
	v->bounce_piece = s->align == 1 ? 8 : s->size;
	v->bounce_gva = gva;
}

/* Is an x87 exception pending?  The guest's state is in the host's registers, or saved. */
static bool x87_pending(const struct vcpu *v)
{
	uint16_t sw;

	if (v->fpu_saved)
		memcpy(&sw, v->fpu_area + 2, sizeof sw);
	else
		__asm__ volatile("fnstsw %0" : "=m"(sw));
	return sw & 0x80;
}

/* A masked move whose operand as a whole is not plain RAM: element by element, and out. */
static int access_masked(struct vcpu *v, const struct site *s)
{
	struct insn in;

	v->exc_pending = 0;
	state_sync(v, s);
	if (site_insn(v, s, &in) < 0 || !in.masked)
		raise_gp(v, 0); /* its bytes are gone */
	else
		bt_masked(v, &in);
	return 0;
}

/* Finishes a slow path: 1 to resume. */
static int access_done(struct vcpu *v, const struct site *s, uint64_t gva, int r)
{
	struct block *b = &v->bt->blocks[s->block];

	if (r != FILL_OK && r != FILL_SMC) {
		if (s->acc & SITE_ACC_MASKED)
			return access_masked(v, s);
		if ((s->acc & SITE_ACC_MF) && x87_pending(v)) {
			raise_exception(v, EXC_MF);
			state_sync(v, s);
			return 0;
		}
	}
	if (r == FILL_RAISED && v->exc_vector == EXC_GP &&
	    ((s->acc & SITE_ACC_SS) || (mode_long(v->mode) && s->seg == SEG_SS)))
		v->exc_vector = EXC_SS;
	if (r != FILL_OK && r != FILL_SMC && s->align &&
	    (gva & (s->align - 1u))) { /* comes before what the page says */
		raise_gp(v, 0);
		r = FILL_RAISED;
	}
	if (r == FILL_BOUNCE)
		request_bounce(v, s, gva);
	if (r == FILL_SMC && b->dead && !(b->mode & MODE_STEP))
		v->step_once = 1; /* the rest of this block is gone: run this instruction by itself */
	else if (r == FILL_OK || r == FILL_SMC) {
		v->resume = (uint64_t)(uintptr_t)bt_rx(v->bt, s->resume_off);
		if (v->kick)
			link_kick(v, s->block);
		vcpu_fpu_in(v); /* a trace line has saved it */
		return 1;
	}
	state_sync(v, s);
	return 0;
}

/* Is the page of @gva, just filled in for the access at it, good for its whole group? */
static bool range_holds(struct vcpu *v, const struct site *s, uint64_t gva)
{
	struct soft_tlb *t = &v->tlb[mode_tlb(v->mode)];
	uint64_t lo = gva - (s->aux & 0xfff), last = lo + (s->aux >> 12 & 0xfff) - 1;
	unsigned i = gva >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1);
	uint64_t page = gva & ~GUEST_PAGE_MASK;
	struct walk w;

	if ((lo ^ gva) >> GUEST_PAGE_SHIFT || (last ^ gva) >> GUEST_PAGE_SHIFT)
		return false;
	if (!(s->aux >> 31) || t->wtag[i] == page)
		return true;
	/* another page's write tag may stand in the way: take its place if a store would have no other effect */
	if (mmu_probe(v, gva, walk_acc(v, ACC_W), &w) || !w.dirty ||
	    codepage_get(v->bt, (uint64_t)gmem_frame(v->vm->mem, w.gpa), false))
		return false;
	return fill(v, gva, 1, ACC_W) == FILL_OK && t->wtag[i] == page;
}

/* The block has to be run with one check per access from here (a page with code counts); when that is often, always. */
static int combo_fails(struct vcpu *v, const struct site *s)
{
	struct block *b = &v->bt->blocks[s->block];

	v->stats.combo_fails++;
	v->no_combos = 1;
	state_sync(v, s);
	if (++b->combine_fails == COMBINE_FAILS) {
		bt_set_no_combos(v->bt, b->gpa);
		block_invalidate(v, s->block);
	}
	return 0;
}

/* An access that runs into the next page. */
static int access_crosses(struct vcpu *v, const struct site *s, uint64_t gva)
{
	if (s->acc & SITE_ACC_RANGE)
		return combo_fails(v, s);
	if (s->align || (s->acc & SITE_ACC_MASKED) || (v->bt->blocks[s->block].mode & BOUNCES))
		return access_done(v, s, gva, FILL_BOUNCE);
	if (!(s->acc & ACC_W)) {
		if (!cross_load(v, s, gva))
			return access_done(v, s, gva, FILL_BOUNCE);
		v->stats.cross_page++;
		return access_done(v, s, gva, FILL_OK);
	}
	if (!site_is_store(s) || !cross_store(v, s, gva))
		return access_done(v, s, gva, FILL_BOUNCE);
	v->stats.cross_page++;
	access_done(v, s, gva, FILL_OK);
	v->resume = (uint64_t)(uintptr_t)bt_rx(v->bt, site_store_end(s));
	return 1;
}

int bt_c_mem(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];
	uint64_t gva = v->mem_gva;
	int r;

	trace(TRACE_MMU, "miss %llx size %u acc %x at %llx", (unsigned long long)gva, s.size, s.acc,
	      (unsigned long long)site_rip(v, &s));
	if ((gva & GUEST_PAGE_MASK) + s.size > GUEST_PAGE_MASK + 1)
		return access_crosses(v, &s, gva);
	r = fill(v, gva, s.size, s.acc);
	if ((s.acc & SITE_ACC_RANGE) && (r == FILL_SMC || (r == FILL_OK && !range_holds(v, &s, gva))))
		return combo_fails(v, &s);
	return access_done(v, &s, gva, r);
}

/* SDM 3A 5.3, 5.4: type and limit of a data access outside 64-bit code. */
static int segment_check(struct vcpu *v, const struct site *s, uint64_t off, uint64_t *lin)
{
	const struct seg *g = &v->seg[s->seg];
	unsigned vector = s->seg == SEG_SS ? EXC_SS : EXC_GP;
	uint64_t last = off + (s->align == 1 ? 8u : s->size) - 1, top;

	if (mode_long(v->mode)) {
		*lin = off;
		return 0;
	}
	if ((g->attr & SEG_A_NULL) || !(g->attr & SEG_A_P))
		return raise_error(v, vector, 0);
	if ((s->acc & ACC_W) && ((g->attr & 8) || !(g->attr & 2)))
		return raise_gp(v, 0);
	if ((s->acc & ACC_R) && (g->attr & 8) && !(g->attr & 2))
		return raise_gp(v, 0);
	if ((g->attr & 0xc) == 4) { /* expand-down data */
		top = g->attr & SEG_A_DB ? 0xffffffffu : 0xffffu;
		if (off <= g->limit || last > top)
			return raise_error(v, vector, 0);
	} else if (last > g->limit) {
		return raise_error(v, vector, 0);
	}
	*lin = (uint32_t)(off + g->base);
	return 0;
}

/* The second half of what is accessed in halves, when the first one is good: its page comes before this one's limit. */
static int second_half_check(struct vcpu *v, const struct site *s, uint64_t lin)
{
	uint64_t lin2;
	struct walk w;

	if (s->align != 1 || s->seg == R_NONE || segment_check(v, s, (uint32_t)(v->mem_gva + 8), &lin2) == 0)
		return 0;
	v->exc_pending = 0;
	if (mmu_walk(v, lin, walk_acc(v, ACC_W), &w) < 0)
		return -1;
	return segment_check(v, s, (uint32_t)(v->mem_gva + 8), &lin2);
}

int bt_c_mem_checked(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];
	uint64_t lin = v->mem_gva;
	int r = FILL_OK;

	if (s.seg != R_NONE && segment_check(v, &s, v->mem_gva, &lin) < 0)
		r = FILL_RAISED;
	else if (mode_long(v->mode) && !is_canonical(lin))
		r = fill(v, lin, 1, s.acc); /* #GP or #SS, before #AC */
	else if (alignment_check(v, lin, s.align == 1 ? 8 : s.size) < 0 || second_half_check(v, &s, lin) < 0)
		r = FILL_RAISED;
	else if ((v->dr[7] & 0xff) && breakpoint_access(v, lin, s.size, s.acc) &&
		 !(v->bt->blocks[s.block].mode & MODE_STEP)) {
		v->step_once = 1;
		state_sync(v, &s);
		return 0;
	} else if ((lin & GUEST_PAGE_MASK) + s.size > GUEST_PAGE_MASK + 1)
		r = FILL_BOUNCE;
	else
		r = fill(v, lin, s.size, s.acc);
	if (r == FILL_OK || r == FILL_SMC)
		v->mem_addend += lin; /* the address itself */
	return access_done(v, &s, lin, r);
}
