/*
 * Pages that change their place in the host's memory: merged, un-merged, given back.
 * Invariant: after mmu_withdraw() nothing of @v's leads to the pages' own places, and after mmu_moved() or mmu_let_go() nothing
 * to where a page was merged, but for what the running block has looked up already (v->moved).
 */
#include "common/gmem.h"
#include "vcpu/mmu/bank.h"
#include "vcpu/mmu/mmu.h"

struct gone {
	const struct gmem *mem;
	const struct frame_set *set; /* NULL: none */
	bool pool;                   /* all of it */
	uint64_t page;               /* or this one of it */
};

static bool is_gone(const void *ctx, uint64_t hva)
{
	const struct gone *g = ctx;
	uint64_t off = hva - (uint64_t)(uintptr_t)g->mem->ram, frame = off >> GMEM_PAGE_SHIFT;

	if (off < g->mem->size + g->mem->rom_size)
		return g->set && g->set->bits[frame / 64] >> (frame % 64) & 1;
	return g->pool ? gmem_in_pool(g->mem, (const uint8_t *)(uintptr_t)hva) : hva == g->page;
}

static void drop_entry(struct soft_tlb *t, unsigned i, const struct gone *g)
{
	if (t->rtag[i] != TLB_INVALID && is_gone(g, t->rtag[i] + t->radd[i]))
		t->rtag[i] = TLB_INVALID;
	if (t->wtag[i] != TLB_INVALID && is_gone(g, t->wtag[i] + t->wadd[i]))
		t->wtag[i] = TLB_INVALID;
}

static void drop(struct vcpu *v, const struct gone *g)
{
	bank_drop_if(v, is_gone, g);
	for (int k = 0; k < TLB_COUNT; k++) {
		struct soft_tlb *t = &v->tlb[k];

		if (t->n_filled > TLB_FILLED)
			for (unsigned i = 0; i < TLB_SIZE; i++)
				drop_entry(t, i, g);
		else
			for (unsigned i = 0; i < t->n_filled; i++)
				drop_entry(t, t->filled[i], g);
	}
}

void mmu_withdraw(struct vcpu *v, const struct frame_set *set, bool pool)
{
	drop(v, &(struct gone){.mem = v->vm->mem, .set = set, .pool = pool});
}

static bool held(const struct gmem *g, uint64_t frame)
{
	return g->held_bm && gmem_bit(g->held_bm, frame);
}

/* After the last translation has gone. */
static void not_held(const struct gmem *g, uint64_t frame)
{
	__atomic_fetch_and(&g->held_bm[frame / 64], ~(1ull << (frame % 64)), __ATOMIC_SEQ_CST);
}

void mmu_moved(struct vcpu *v, uint64_t frame, const uint8_t *from)
{
	const struct gmem *g = v->vm->mem;

	if (!held(g, frame))
		return;
	drop(v, &(struct gone){.mem = g, .page = (uint64_t)(uintptr_t)from});
	not_held(g, frame);
	v->moved = 1;
}

void mmu_let_go(struct vcpu *v, uint64_t frame)
{
	const struct gmem *g = v->vm->mem;

	if (!held(g, frame))
		return;
	drop(v, &(struct gone){.mem = g, .pool = true}); /* where it was is not known here */
	not_held(g, frame);
}
