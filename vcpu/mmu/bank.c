/*
 * Address spaces by PCID: what the soft TLBs, jump caches, branch cells and the fetch cache held of one is put away when
 * the guest leaves it, and brought back when it returns without asking for a flush (SDM 3A 4.10.1).
 * Invariant: a bank holds nothing that is global and nothing but what a flush of its PCID alone would have to forget;
 * what it names by translation is looked at again when it is brought back.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "common/memory.h"
#include "vcpu/bt/bt.h"
#include "vcpu/mmu/mmu.h"

#define BANKS       8 /* Linux uses six PCIDs */
#define BANK_PAGES  1024
#define BANK_JUMPS  JC_FILLED
#define BANK_CELLS  4096
#define BANK_PLACES 2048 /* of code pages: with more of them neither jumps nor cells are kept */

struct bank {
	uint16_t pcid;
	uint8_t valid;
	uint64_t used;          /* when; for the choice of one to give up */
	uint64_t fetch_age;     /* of its entries in the fetch cache, which stay there */
	uint64_t invalidations; /* of blocks, when the cells were put away */
	uint64_t code_filter[1 << (FETCH_FILTER_BITS - 6)];
	uint32_t n_pages, n_jumps, n_cells, n_places;
	struct bank_page {
		uint64_t rtag, wtag, radd, wadd;
		uint16_t index;
		uint8_t kind;
	} page[BANK_PAGES];
	struct bank_jump {
		uint64_t tag, host;
		uint16_t index;
		uint8_t jc;
	} jump[BANK_JUMPS];
	uint32_t jc_mode[JC_COUNT]; /* of the jumps' tables */
	struct bank_cell {
		uint64_t host;
		uint32_t cell;
	} cell[BANK_CELLS];
	struct bank_place {
		uint64_t at;
		uint32_t page; /* index of the code page */
		uint8_t aliased;
	} place[BANK_PLACES];
};

struct banks {
	uint64_t clock;
	struct bank b[BANKS];
};

int bank_create(struct vcpu *v)
{
	v->banks = memory_anon(sizeof *v->banks);
	return v->banks ? 0 : -errno;
}

void bank_destroy(struct vcpu *v)
{
	if (v->banks)
		munmap(v->banks, sizeof *v->banks);
	v->banks = NULL;
}

void bank_forget_all(struct vcpu *v)
{
	for (int i = 0; v->banks && i < BANKS; i++)
		v->banks->b[i].valid = 0;
}

static struct bank *find(struct vcpu *v, unsigned pcid)
{
	for (int i = 0; v->banks && i < BANKS; i++)
		if (v->banks->b[i].valid && v->banks->b[i].pcid == pcid)
			return &v->banks->b[i];
	return NULL;
}

void bank_forget(struct vcpu *v, unsigned pcid)
{
	struct bank *b = find(v, pcid);

	if (b)
		b->valid = 0;
}

void bank_drop_writes(struct vcpu *v, uint64_t hva)
{
	for (int i = 0; v->banks && i < BANKS; i++) {
		struct bank *b = &v->banks->b[i];
		for (uint32_t k = 0; b->valid && k < b->n_pages; k++)
			if (b->page[k].wtag != TLB_INVALID && b->page[k].wtag + b->page[k].wadd == hva)
				b->page[k].wtag = TLB_INVALID;
	}
}

/* ---- putting away ---- */

/* Entries of the upper half are the kernel's, mostly global: they are not kept. */
static uint64_t kept(uint64_t tag)
{
	return tag >> 63 ? TLB_INVALID : tag;
}

static void save_page(struct bank *b, const struct soft_tlb *t, int kind, unsigned i)
{
	uint64_t r = kept(t->rtag[i]), w = kept(t->wtag[i]);

	if ((r != TLB_INVALID || w != TLB_INVALID) && b->n_pages < BANK_PAGES)
		b->page[b->n_pages++] = (struct bank_page){r, w, t->radd[i], t->wadd[i], (uint16_t)i, (uint8_t)kind};
}

static void save_pages(struct vcpu *v, struct bank *b, int kind)
{
	const struct soft_tlb *t = &v->tlb[kind];

	if (t->n_filled > TLB_FILLED)
		for (unsigned i = 0; i < TLB_SIZE; i++)
			save_page(b, t, kind, i);
	else
		for (uint32_t i = 0; i < t->n_filled; i++)
			save_page(b, t, kind, t->filled[i]);
}

static void save_jump(struct vcpu *v, struct bank *b, unsigned k, unsigned i)
{
	const struct jump_cache *j = &v->jc[k];

	if (!(j->e[i].tag >> 63) && b->n_jumps < BANK_JUMPS)
		b->jump[b->n_jumps++] = (struct bank_jump){j->e[i].tag, j->e[i].host, (uint16_t)i, (uint8_t)k};
}

/* Of users' tables, with the mode that each is of. */
static void save_jumps(struct vcpu *v, struct bank *b)
{
	for (unsigned k = 0; k < JC_COUNT; k++) {
		const struct jump_cache *j = &v->jc[k];

		b->jc_mode[k] = v->jc_mode[k];
		if (!jump_cache_is_user(k) || v->jc_mode[k] == JC_UNUSED)
			continue;
		if (j->n_filled > JC_FILLED)
			for (unsigned i = 0; i < JC_SIZE; i++)
				save_jump(v, b, k, i);
		else
			for (uint32_t i = 0; i < j->n_filled; i++)
				save_jump(v, b, k, j->filled[i]);
	}
}

static void save_cells(struct vcpu *v, struct bank *b)
{
	const struct bt *bt = v->bt;

	for (uint32_t i = 0; i < bt->n_active_user && i < BANK_CELLS; i++)
		b->cell[b->n_cells++] = (struct bank_cell){v->cells[bt->active_user[i]], bt->active_user[i]};
	b->invalidations = bt->invalidations;
}

static void save_places(struct vcpu *v, struct bank *b)
{
	const struct bt *bt = v->bt;

	if (bt->n_placed > BANK_PLACES) {
		b->n_jumps = b->n_cells = 0;
		return;
	}
	for (uint32_t i = 0; i < bt->n_placed; i++) {
		const struct codepage *cp = &bt->pages[bt->placed[i]];

		b->place[b->n_places++] = (struct bank_place){cp->at, bt->placed[i], cp->aliased};
	}
}

static struct bank *choose(struct vcpu *v, unsigned pcid)
{
	struct bank *b = find(v, pcid);

	for (int i = 0; !b && i < BANKS; i++)
		if (!v->banks->b[i].valid)
			b = &v->banks->b[i];
	if (b)
		return b;
	b = &v->banks->b[0];
	for (int i = 1; i < BANKS; i++)
		if (v->banks->b[i].used < b->used)
			b = &v->banks->b[i];
	return b;
}

void bank_save(struct vcpu *v, unsigned pcid)
{
	struct bank *b;

	if (!v->banks)
		return;
	b = choose(v, pcid);
	b->pcid = (uint16_t)pcid;
	b->n_pages = b->n_jumps = b->n_cells = b->n_places = 0;
	b->used = ++v->banks->clock;
	b->fetch_age = v->fetch_age[0];
	memcpy(b->code_filter, v->code_filter[1], sizeof b->code_filter);
	save_pages(v, b, TLB_USER);
	save_pages(v, b, TLB_KERN_AC);
	save_jumps(v, b);
	save_cells(v, b);
	save_places(v, b);
	b->valid = !v->low_global;
}

/* ---- bringing back ---- */

/* The tables are empty after the flush: they become what they were, of whatever mode. */
static void restore_jumps(struct vcpu *v, const struct bank *b)
{
	for (uint32_t i = 0; i < b->n_jumps; i++) {
		const struct bank_jump *j = &b->jump[i];

		v->jc_mode[j->jc] = b->jc_mode[j->jc];
		jump_cache_put(&v->jc[j->jc], j->index, j->tag, j->host);
	}
}

void bank_restore(struct vcpu *v, unsigned pcid)
{
	struct bank *b = find(v, pcid);

	if (!b)
		return;
	v->stats.bank_hits++;
	for (uint32_t i = 0; i < b->n_pages; i++) {
		const struct bank_page *p = &b->page[i];
		struct soft_tlb *t = &v->tlb[p->kind];
		tlb_note_filled(t, p->index);
		t->rtag[p->index] = p->rtag;
		t->wtag[p->index] = p->wtag;
		t->radd[p->index] = p->radd;
		t->wadd[p->index] = p->wadd;
	}
	for (uint32_t i = 0; i < b->n_places; i++) {
		struct codepage *cp = &v->bt->pages[b->place[i].page];

		if (cp->epoch != v->bt->cell_epoch)
			codepage_put(v->bt, cp, b->place[i].at, b->place[i].aliased);
	}
	restore_jumps(v, b);
	for (uint32_t i = 0; i < b->n_cells && b->invalidations == v->bt->invalidations; i++)
		cell_bring_back(v, b->cell[i].cell, b->cell[i].host);
	memcpy(v->code_filter[1], b->code_filter, sizeof b->code_filter);
	v->fetch_age[0] = b->fetch_age;
	b->valid = 0; /* from here on the live ones count */
}
