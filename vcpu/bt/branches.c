/*
 * What the translator keeps of guest mappings (jump caches, branch cells, fetch cache; the table in mode.h), and what
 * goes when mmu/ announces that mappings have gone; and the same by PCID, for address spaces that come back.
 * Invariant: a kept space holds nothing but what a flush of its PCID alone would have to forget; what it names by
 * translation is looked at again when it is brought back.
 */
#include <errno.h>
#include <string.h>

#include "common/memory.h"
#include "vcpu/bt/bt.h"
#include "vcpu/mmu/bank.h"
#include "vcpu/mmu/mmu.h"

#define SPACE_JUMPS  JC_SIZE
#define SPACE_CELLS  65536 /* a compiler has some 30,000 */
#define SPACE_PLACES 16384 /* of code pages: with more of them neither jumps nor cells are kept */

/* What is kept of an address space, in the slot of its bank: on small pages, of which it touches as many as it needs.  Host
 * addresses are offsets in code memory. */
struct bt_space {
	uint8_t valid;
	uint64_t fetch_age;     /* of its entries in the fetch cache, which stay there */
	uint64_t invalidations; /* of blocks, when the cells were put away */
	uint64_t code_filter[1 << (FETCH_FILTER_BITS - 6)];
	uint32_t n_jumps, n_cells, n_places;
	uint32_t jc_mode[JC_COUNT]; /* of the jumps' tables */
	struct space_jump {
		uint64_t tag;
		uint32_t host;
		uint16_t index;
		uint8_t jc;
	} jump[SPACE_JUMPS];
	struct space_cell {
		uint32_t host, cell;
	} cell[SPACE_CELLS];
	struct space_place {
		uint64_t at;
		uint32_t page; /* index of the code page */
		uint8_t aliased;
	} place[SPACE_PLACES];
};
_Static_assert(sizeof(struct bt_space) < 2u << 20, "memory_anon() gives it small pages");
_Static_assert(JC_SIZE <= 1u << 16 && BANKS == BT_SPACES, "index of a jump; a space for each bank");

int branches_create(struct vcpu *v)
{
	for (unsigned k = 0; k < JC_COUNT; k++)
		v->jc_mode[k] = JC_UNUSED;
	for (unsigned i = 0; i < BT_SPACES; i++)
		if (!(v->space[i] = memory_anon(sizeof **v->space)))
			return -errno;
	return 0;
}

void branches_destroy(struct vcpu *v)
{
	for (unsigned i = 0; i < BT_SPACES; i++) {
		memory_anon_free(v->space[i], sizeof **v->space);
		v->space[i] = NULL;
	}
}

static uint32_t rx_offset(const struct vcpu *v, uint64_t host)
{
	return (uint32_t)(host - (uint64_t)(uintptr_t)v->bt->rx);
}

static uint64_t rx_address(const struct vcpu *v, uint32_t off)
{
	return (uint64_t)(uintptr_t)bt_rx(v->bt, off);
}

static void forget_spaces(struct vcpu *v)
{
	world_assert_mine(v);
	for (unsigned i = 0; i < BT_SPACES; i++)
		if (v->space[i])
			v->space[i]->valid = 0;
}

/* ---- fetches ---- */

static unsigned fetch_hash(uint64_t page)
{
	return (unsigned)((page >> GUEST_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> (64 - FETCH_FILTER_BITS));
}

void branches_note_fetch(struct vcpu *v, uint64_t page, const struct walk *w)
{
	unsigned h = fetch_hash(page);

	world_assert_mine(v);
	if (w->global)
		tlb_note_global(v, page);
	tlb_note_large(v, page, w->page_size);
	v->code_filter[page >> 63 || w->global ? 0 : 1][h / 64] |= 1ull << (h % 64);
}

static bool fetched(const struct vcpu *v, int kind, uint64_t page)
{
	unsigned h = fetch_hash(page);

	return v->code_filter[kind][h / 64] >> (h % 64) & 1;
}

static void fetch_cache_flush(struct vcpu *v)
{
	v->fetch_age[0] = ++v->fetch_ages;
	v->fetch_age[1] = ++v->fetch_ages;
}

static bool fetched_within(const struct vcpu *v, uint64_t gva, unsigned shift)
{
	for (int u = 0; u < 2; u++)
		for (int i = 0; i < FETCH_SIZE; i++)
			if (!((v->fetch[u][i].tag ^ gva) >> shift))
				return true;
	return false;
}

/* ---- what goes ---- */

static void flush_jump_caches(struct vcpu *v)
{
	for (unsigned k = 0; k < JC_COUNT; k++)
		jump_cache_flush(v, k);
}

void branches_forget(struct vcpu *v)
{
	flush_jump_caches(v);
	forget_spaces(v);
	cells_reset_all(v);
}

static void gone_all(struct vcpu *v)
{
	branches_forget(v);
	v->jc_nonglobal = 0;
	memset(v->code_filter, 0, sizeof v->code_filter);
	fetch_cache_flush(v);
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

static void gone_nonglobal(struct vcpu *v)
{
	flush_fetched_nonglobal(v);
	memset(v->code_filter[1], 0, sizeof v->code_filter[1]);
}

/* Was code fetched through what an invlpg takes away?  If so, everything made from such mappings goes. */
static void gone_page(struct vcpu *v, uint64_t page, unsigned shift)
{
	bool large = shift > GUEST_PAGE_SHIFT && fetched_within(v, page, shift);

	if (large || ((page >> 63 || v->low_global) && fetched(v, 0, page))) {
		flush_jump_caches(v);
		fetch_cache_flush(v);
		cells_reset_all(v);
	} else if (fetched(v, 1, page)) {
		flush_fetched_nonglobal(v);
	}
}

/* ---- putting away ---- */

static void save_jump(struct vcpu *v, struct bt_space *b, unsigned k, unsigned i)
{
	const struct jump_cache *j = &v->jc[k];

	if (!(j->e[i].tag >> 63) && b->n_jumps < SPACE_JUMPS)
		b->jump[b->n_jumps++] =
			(struct space_jump){j->e[i].tag, rx_offset(v, j->e[i].host), (uint16_t)i, (uint8_t)k};
}

/* Of users' tables, with the mode that each is of. */
static void save_jumps(struct vcpu *v, struct bt_space *b)
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

static void save_cells(struct vcpu *v, struct bt_space *b)
{
	for (uint32_t i = 0; i < v->n_active_user && i < SPACE_CELLS; i++)
		b->cell[b->n_cells++] =
			(struct space_cell){rx_offset(v, v->cells[v->active_user[i]]), v->active_user[i]};
	b->invalidations = bt_invalidations(v->bt);
}

static void save_places(struct vcpu *v, struct bt_space *b)
{
	if (v->n_placed > SPACE_PLACES) {
		b->n_jumps = b->n_cells = 0;
		return;
	}
	for (uint32_t i = 0; i < v->n_placed; i++) {
		const struct code_place *p = &v->place[v->placed[i]];

		b->place[b->n_places++] = (struct space_place){p->at, v->placed[i], p->aliased};
	}
}

static void save(struct vcpu *v, struct bt_space *b)
{
	b->n_jumps = b->n_cells = b->n_places = 0;
	b->fetch_age = v->fetch_age[0];
	memcpy(b->code_filter, v->code_filter[1], sizeof b->code_filter);
	save_jumps(v, b);
	save_cells(v, b);
	save_places(v, b);
	b->valid = 1;
}

/* ---- bringing back ---- */

/* The tables are empty after the flush: they become what they were, of whatever mode. */
static void restore_jumps(struct vcpu *v, const struct bt_space *b)
{
	for (uint32_t i = 0; i < b->n_jumps; i++) {
		const struct space_jump *j = &b->jump[i];

		v->jc_mode[j->jc] = b->jc_mode[j->jc];
		jump_cache_put(&v->jc[j->jc], j->index, j->tag, rx_address(v, j->host));
	}
}

static void bring_back(struct vcpu *v, struct bt_space *b)
{
	for (uint32_t i = 0; i < b->n_places; i++)
		if (v->place[b->place[i].page].epoch != v->cell_epoch)
			codepage_put(v, b->place[i].page, b->place[i].at, b->place[i].aliased);
	restore_jumps(v, b);
	for (uint32_t i = 0; i < b->n_cells && b->invalidations == bt_invalidations(v->bt); i++)
		cell_bring_back(v, b->cell[i].cell, rx_address(v, b->cell[i].host));
	memcpy(v->code_filter[1], b->code_filter, sizeof b->code_filter);
	v->fetch_age[0] = b->fetch_age;
	b->valid = 0;
}

static void gone_switch(struct vcpu *v, int kept, int back)
{
	if (kept >= 0 && v->space[kept])
		save(v, v->space[kept]);
	gone_nonglobal(v);
	if (back >= 0 && v->space[back] && v->space[back]->valid)
		bring_back(v, v->space[back]);
}

/* ---- the hook ---- */

static void branches_gone(struct vcpu *v, const struct mmu_gone *g)
{
	switch (g->kind) {
	case GONE_ALL: gone_all(v); break;
	case GONE_NONGLOBAL: gone_nonglobal(v); break;
	case GONE_SWITCH: gone_switch(v, g->kept, g->back); break;
	case GONE_PAGE: gone_page(v, g->gva, g->shift); break;
	}
}

const struct mmu_hook bt_mmu_hook = {branches_gone, codepage_stored};
