/*
 * Address spaces by PCID: what the soft TLBs held of one is put away when the guest leaves it, and brought back when it
 * returns without asking for a flush (SDM 3A 4.10.1).  The slot that a space is kept in is announced, so that others
 * can keep what is theirs of it.
 * Invariant: a bank holds nothing that is global and nothing but what a flush of its PCID alone would have to forget.
 */
#include <errno.h>

#include "common/memory.h"
#include "vcpu/mmu/bank.h"
#include "vcpu/mmu/mmu.h"

#define BANK_PAGES 1024

struct bank {
	uint16_t pcid;
	uint8_t valid;
	uint64_t used; /* when; for the choice of one to give up */
	uint32_t n_pages;
	struct bank_page {
		uint64_t rtag, wtag, radd, wadd;
		uint16_t index;
		uint8_t kind;
	} page[BANK_PAGES];
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
	memory_anon_free(v->banks, sizeof *v->banks);
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

void bank_each_write(struct vcpu *v, void (*fn)(struct vcpu *v, uint64_t hva))
{
	for (int i = 0; v->banks && i < BANKS; i++) {
		struct bank *b = &v->banks->b[i];
		for (uint32_t k = 0; b->valid && k < b->n_pages; k++)
			if (b->page[k].wtag != TLB_INVALID)
				fn(v, b->page[k].wtag + b->page[k].wadd);
	}
}

void bank_drop_if(struct vcpu *v, bool (*gone)(const void *ctx, uint64_t hva), const void *ctx)
{
	for (int i = 0; v->banks && i < BANKS; i++) {
		struct bank *b = &v->banks->b[i];
		for (uint32_t k = 0; b->valid && k < b->n_pages; k++) {
			struct bank_page *p = &b->page[k];
			if (p->rtag != TLB_INVALID && gone(ctx, p->rtag + p->radd))
				p->rtag = TLB_INVALID;
			if (p->wtag != TLB_INVALID && gone(ctx, p->wtag + p->wadd))
				p->wtag = TLB_INVALID;
		}
	}
}

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

int bank_save(struct vcpu *v, unsigned pcid)
{
	struct bank *b;

	if (!v->banks)
		return -1;
	b = choose(v, pcid);
	b->pcid = (uint16_t)pcid;
	b->n_pages = 0;
	b->used = ++v->banks->clock;
	save_pages(v, b, TLB_USER);
	save_pages(v, b, TLB_KERN_AC);
	b->valid = !v->low_global;
	return (int)(b - v->banks->b);
}

int bank_restore(struct vcpu *v, unsigned pcid)
{
	struct bank *b = find(v, pcid);

	if (!b)
		return -1;
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
	b->valid = 0; /* from here on the live ones count */
	return (int)(b - v->banks->b);
}
