/*
 * The guest's page tables as the CPU sees them: one walker for no paging,
 * 32-bit, PAE and 4-level tables, and the linear and physical accesses of
 * helpers built on it.
 *
 * Invariant: a walk that fails has changed nothing, not even accessed bits; a
 * walk that succeeds has set A (and D for writes) in the very entries it used,
 * by compare-and-swap, or started again.
 */
#include <errno.h>
#include <string.h>

#include "common/gmem.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/mmu/mmu.h"

/* Entry bits (SDM 3A 4.3 to 4.5). */
#define PTE_P    (1u << 0)
#define PTE_W    (1u << 1)
#define PTE_U    (1u << 2)
#define PTE_A    (1u << 5)
#define PTE_D    (1u << 6)
#define PTE_PS   (1u << 7)
#define PTE_G    (1u << 8)
#define PTE_NX   (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

/* #PF error code (SDM 3A 4.7). */
#define PF_P    1u
#define PF_W    2u
#define PF_U    4u
#define PF_RSVD 8u
#define PF_I    16u

#define WALK_RETRY (1u << 30) /* an entry changed under us */
#define WALK_FAULT (1u << 31)

#define MAX_LEVELS 4

struct level { /* one entry used by a walk */
	uint64_t gpa;
	uint64_t val;
	void *host; /* NULL when the entry is no RAM */
};

struct path {
	struct level lv[MAX_LEVELS];
	unsigned n; /* entries used; the last one is the leaf */
	bool wide;  /* 8-byte entries */
};

static uint64_t entry_read(struct vcpu *v, struct level *l, uint64_t gpa, bool wide)
{
	gpa &= ~v->a20_off;
	l->gpa = gpa;
	l->host = gmem_ptr(v->vm->mem, gpa, wide ? 8 : 4, GMEM_READ);
	if (l->host == NULL)
		l->val = platform_mmio_read(v->vm->plat, v, gpa, wide ? 8 : 4);
	else if (wide)
		l->val = __atomic_load_n((uint64_t *)l->host, __ATOMIC_RELAXED);
	else
		l->val = __atomic_load_n((uint32_t *)l->host, __ATOMIC_RELAXED);
	return l->val;
}

void code_written(struct vcpu *v, uint64_t gpa, size_t len)
{
	while (len) {
		size_t n = GUEST_PAGE_MASK + 1 - (gpa & GUEST_PAGE_MASK);
		int64_t frame = gmem_frame(v->vm->mem, gpa);

		if (n > len)
			n = len;
		if (frame >= 0) {
			v->hook->stored(v, (uint64_t)frame, (unsigned)(gpa & GUEST_PAGE_MASK), (unsigned)n);
			mmu_let_go(v, (uint64_t)frame);
		}
		gpa += n;
		len -= n;
	}
}

void phys_written(struct vcpu *v, uint64_t gpa, size_t len)
{
	struct gmem *g = v->vm->mem;
	int64_t f = gmem_frame(g, gpa);

	if (f < 0)
		return;
	if (g->dirty_bm != NULL && !((__atomic_load_n(&g->dirty_bm[f >> 6], __ATOMIC_RELAXED) >> (f & 63)) & 1))
		__atomic_fetch_or(&g->dirty_bm[f >> 6], 1ull << (f & 63), __ATOMIC_RELAXED);
	code_written(v, gpa, len);
}

/* ORs @bits into an entry unless it changed since it was read: 0 or WALK_RETRY. */
static uint32_t entry_set(struct vcpu *v, struct level *l, bool wide, uint32_t bits)
{
	uint64_t old64 = l->val;
	uint32_t old32 = (uint32_t)l->val;
	bool ok;

	if ((l->val & bits) == bits || l->host == NULL)
		return 0;
	l->host =
		gmem_ptr(v->vm->mem, l->gpa, wide ? 8 : 4, GMEM_READ | GMEM_WRITE); /* a merged page is one no longer */
	if (l->host == NULL)
		return 0;
	if (wide)
		ok = __atomic_compare_exchange_n((uint64_t *)l->host, &old64, l->val | bits, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_RELAXED);
	else
		ok = __atomic_compare_exchange_n((uint32_t *)l->host, &old32, old32 | bits, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_RELAXED);
	if (!ok)
		return WALK_RETRY;
	phys_written(v, l->gpa, wide ? 8 : 4);
	return 0;
}

/* The part of the error code that says what was attempted. */
static uint32_t access_code(const struct vcpu *v, unsigned acc)
{
	uint32_t e = 0;

	if (acc & ACC_W)
		e |= PF_W;
	if (acc & ACC_USER)
		e |= PF_U;
	if ((acc & ACC_X) && ((v->cr4 & CR4_SMEP) || ((v->cr4 & CR4_PAE) && (v->efer & EFER_NXE))))
		e |= PF_I;
	return e;
}

/* Rights of the whole path against the access (SDM 3A 4.6.1): true when it is allowed. */
static bool rights_ok(const struct vcpu *v, unsigned acc, bool w, bool u, bool nx)
{
	if (acc & ACC_USER) {
		if (!u || ((acc & ACC_W) && !w))
			return false;
		return !((acc & ACC_X) && nx);
	}
	if (acc & ACC_X)
		return !nx && !(u && (v->cr4 & CR4_SMEP));
	if (u && (v->cr4 & CR4_SMAP) && ((acc & ACC_SYS) || !(v->sysflags & RFL_AC)))
		return false;
	return !(acc & ACC_W) || w || !(v->cr0 & CR0_WP);
}

/* What a write with the privilege of @acc would be told by the tables. */
static bool could_write(const struct vcpu *v, unsigned acc, bool w)
{
	return w || (!(acc & ACC_USER) && !(v->cr0 & CR0_WP));
}

/* Follows the entries of PAE and 4-level tables: 0 or the P/RSVD part of the error code | WALK_FAULT. */
static uint32_t follow_wide(struct vcpu *v, uint64_t gva, unsigned acc, struct path *p, struct walk *w)
{
	bool nxe = v->efer & EFER_NXE, lm = v->efer & EFER_LMA;
	uint64_t rsvd = v->phys_rsvd | (nxe ? 0 : PTE_NX), table, e;
	unsigned shift = lm ? 39 : 21;
	bool rw = true, us = true, nx = false;

	if (!lm) { /* the four PDPTEs were loaded with CR3; bits 62:52 of the others are reserved */
		table = v->pdpte[(gva >> 30) & 3];
		if (!(table & PTE_P))
			return WALK_FAULT;
		table &= PTE_ADDR;
		rsvd |= 0x7ff0000000000000ull;
	} else {
		table = v->cr3 & PTE_ADDR;
	}
	for (;; shift -= 9) {
		e = entry_read(v, &p->lv[p->n++], table + ((gva >> shift) & 511) * 8, true);
		if (!(e & PTE_P))
			return WALK_FAULT;
		if ((e & rsvd) || (shift == 39 && (e & PTE_PS)))
			return WALK_FAULT | PF_RSVD | PF_P;
		rw &= (e & PTE_W) != 0;
		us &= (e & PTE_U) != 0;
		nx |= (e & PTE_NX) != 0;
		if (shift == 12 || (shift <= 30 && (e & PTE_PS)))
			break;
		table = e & PTE_ADDR;
	}
	w->page_size = 1ull << shift;
	if (shift != 12 && (e & PTE_ADDR & (w->page_size - 1) & ~0x1000ull)) /* bit 12 is PAT */
		return WALK_FAULT | PF_RSVD | PF_P;
	w->gpa = (e & PTE_ADDR & ~(w->page_size - 1)) | (gva & (w->page_size - 1));
	w->global = (e & PTE_G) && (v->cr4 & CR4_PGE);
	w->user = us;
	w->nx = nx;
	w->writable = could_write(v, acc, rw);
	return rights_ok(v, acc, rw, us, nx) ? 0 : WALK_FAULT | PF_P;
}

/* The same for 32-bit tables with 4-byte entries, PSE and PSE-36 (SDM 3A 4.3). */
static uint32_t follow_narrow(struct vcpu *v, uint64_t gva, unsigned acc, struct path *p, struct walk *w)
{
	uint32_t e, pde;
	bool rw, us;

	pde = (uint32_t)entry_read(v, &p->lv[p->n++], (v->cr3 & 0xfffff000u) + ((gva >> 22) & 1023) * 4, false);
	if (!(pde & PTE_P))
		return WALK_FAULT;
	rw = pde & PTE_W;
	us = pde & PTE_U;
	e = pde;
	if ((pde & PTE_PS) && (v->cr4 & CR4_PSE)) {
		uint64_t high = (uint64_t)((pde >> 13) & 0xff) << 32;

		if ((pde & (1u << 21)) || (high & v->phys_rsvd))
			return WALK_FAULT | PF_RSVD | PF_P;
		w->page_size = 1u << 22;
		w->gpa = high | (pde & 0xffc00000u) | (gva & 0x3fffff);
	} else {
		e = (uint32_t)entry_read(v, &p->lv[p->n++], (pde & 0xfffff000u) + ((gva >> 12) & 1023) * 4, false);
		if (!(e & PTE_P))
			return WALK_FAULT;
		rw &= (e & PTE_W) != 0;
		us &= (e & PTE_U) != 0;
		w->page_size = 1u << 12;
		w->gpa = (e & 0xfffff000u) | (gva & 0xfff);
	}
	w->global = (e & PTE_G) && (v->cr4 & CR4_PGE);
	w->user = us;
	w->nx = 0;
	w->writable = could_write(v, acc, rw);
	return rights_ok(v, acc, rw, us, false) ? 0 : WALK_FAULT | PF_P;
}

/* Sets A in every entry used and D in the leaf. */
static uint32_t set_accessed(struct vcpu *v, struct path *p, unsigned acc)
{
	for (unsigned i = 0; i < p->n; i++) {
		bool leaf = i + 1 == p->n;
		uint32_t bits = PTE_A | (leaf && (acc & ACC_W) ? PTE_D : 0);

		if (entry_set(v, &p->lv[i], p->wide, bits))
			return WALK_RETRY;
	}
	return 0;
}

static void walk_unpaged(struct walk *w, uint64_t gva)
{
	*w = (struct walk){.gpa = gva, .page_size = 4096, .writable = 1, .dirty = 1, .user = 1, .accessed = 1};
}

static bool canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static bool all_accessed(const struct path *p)
{
	for (unsigned i = 0; i < p->n; i++)
		if (!(p->lv[i].val & PTE_A))
			return false;
	return true;
}

/* The walk proper, for canonical addresses: 0, or the whole error code | WALK_FAULT. */
static uint32_t walk_tables(struct vcpu *v, uint64_t gva, unsigned acc, struct walk *w, bool set)
{
	struct path p;
	uint32_t r;

	if (!(v->cr0 & CR0_PG)) {
		walk_unpaged(w, gva & ~v->a20_off);
		return 0;
	}
	do {
		p.n = 0;
		p.wide = v->cr4 & CR4_PAE;
		r = p.wide ? follow_wide(v, gva, acc, &p, w) : follow_narrow(v, gva, acc, &p, w);
		if (r)
			return r | access_code(v, acc);
		w->gpa &= ~v->a20_off;
		w->dirty = (p.lv[p.n - 1].val & PTE_D) || (set && (acc & ACC_W));
		w->accessed = set || all_accessed(&p);
		if (set)
			r = set_accessed(v, &p, acc);
	} while (r == WALK_RETRY);
	return 0;
}

int mmu_walk(struct vcpu *v, uint64_t gva, unsigned acc, struct walk *w)
{
	uint32_t r;

	v->stats.walks++;
	if ((v->efer & EFER_LMA) && !canonical(gva))
		return raise_gp(v, 0);
	r = walk_tables(v, gva, acc, w, true);
	return r ? raise_pf(v, gva, r & ~WALK_FAULT) : 0;
}

uint32_t mmu_probe(struct vcpu *v, uint64_t gva, unsigned acc, struct walk *w)
{
	if ((v->efer & EFER_LMA) && !canonical(gva))
		return WALK_FAULT;
	return walk_tables(v, gva, acc, w, false);
}

/* Scalars at any address; x86 reads and writes each with one instruction. */
struct any16 {
	uint16_t x;
} __attribute__((packed, may_alias));
struct any32 {
	uint32_t x;
} __attribute__((packed, may_alias));
struct any64 {
	uint64_t x;
} __attribute__((packed, may_alias));

/* Copies of the sizes that matter as single accesses, so that they are atomic where the CPU's are. */
static void copy(void *dst, const void *src, size_t len)
{
	switch (len) {
	case 1: *(volatile uint8_t *)dst = *(const volatile uint8_t *)src; break;
	case 2: ((volatile struct any16 *)dst)->x = ((const volatile struct any16 *)src)->x; break;
	case 4: ((volatile struct any32 *)dst)->x = ((const volatile struct any32 *)src)->x; break;
	case 8: ((volatile struct any64 *)dst)->x = ((const volatile struct any64 *)src)->x; break;
	default: __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory"); break;
	}
}

/* Bytes from @a to the end of its page, at most @len. */
static size_t page_part(uint64_t a, size_t len)
{
	size_t room = GMEM_PAGE_SIZE - (a & (GMEM_PAGE_SIZE - 1));

	return len < room ? len : room;
}

/* The next byte's linear address: outside 64-bit code it wraps at 4 GiB. */
static uint64_t next_gva(const struct vcpu *v, uint64_t gva, size_t part)
{
	bool wide = v->efer & EFER_LMA;

	return wide ? gva + part : (uint32_t)(gva + part);
}

/*
 * Host address of an access that lies in one page and hits the soft TLB of its privilege, or NULL.  A hit means what
 * it means to translated code: RAM, allowed, A (and for writes D and the dirty bitmap) set, no translated code on it.
 */
static void *soft_hit(const struct vcpu *v, uint64_t gva, size_t len, unsigned acc)
{
	bool smap = (v->cr4 & CR4_SMAP) && ((acc & ACC_SYS) || !(v->sysflags & RFL_AC));
	const struct soft_tlb *t = &v->tlb[acc & ACC_USER ? TLB_USER : smap ? TLB_KERN : TLB_KERN_AC];
	uint64_t page = gva & ~(uint64_t)(GMEM_PAGE_SIZE - 1);
	unsigned i = (gva >> GMEM_PAGE_SHIFT) & (TLB_SIZE - 1);

	if ((acc & ACC_W ? t->wtag[i] : t->rtag[i]) != page || gva - page + len > GMEM_PAGE_SIZE || (acc & ACC_X))
		return NULL;
	return (void *)(uintptr_t)(gva + (acc & ACC_W ? t->wadd[i] : t->radd[i]));
}

int mmu_read(struct vcpu *v, uint64_t gva, void *buf, size_t len, unsigned acc)
{
	const void *hit = soft_hit(v, gva, len, acc & ~(unsigned)ACC_W);
	uint8_t *b = buf;

	if (hit != NULL) {
		copy(buf, hit, len);
		return 0;
	}
	while (len > 0) {
		size_t part = page_part(gva, len);
		struct walk w;

		if (mmu_walk(v, gva, acc | ACC_R, &w))
			return -1;
		phys_read(v, w.gpa, b, part);
		gva = next_gva(v, gva, part);
		b += part;
		len -= part;
	}
	return 0;
}

int mmu_write(struct vcpu *v, uint64_t gva, const void *buf, size_t len, unsigned acc)
{
	const uint8_t *b = buf;
	size_t part = page_part(gva, len);
	void *hit = soft_hit(v, gva, len, acc | ACC_W);
	struct walk w, w2;

	if (hit != NULL) {
		copy(hit, buf, len);
		return 0;
	}
	if (mmu_walk(v, gva, acc | ACC_W, &w))
		return -1;
	if (part == len) {
		phys_write(v, w.gpa, b, len);
		return 0;
	}
	for (size_t o = part; o < len; o += GMEM_PAGE_SIZE) /* all pages before any byte */
		if (mmu_walk(v, next_gva(v, gva, o), acc | ACC_W, &w2))
			return -1;
	phys_write(v, w.gpa, b, part);
	for (size_t o = part; o < len; o += GMEM_PAGE_SIZE) {
		if (mmu_walk(v, next_gva(v, gva, o), acc | ACC_W, &w2))
			return -1;
		phys_write(v, w2.gpa, b + o, len - o < GMEM_PAGE_SIZE ? len - o : GMEM_PAGE_SIZE);
	}
	return 0;
}

/* The largest power of two up to 8 that does not exceed @len. */
static unsigned mmio_unit(size_t len)
{
	return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
}

static void mmio_read(struct vcpu *v, uint64_t gpa, uint8_t *b, size_t len)
{
	while (len > 0) {
		unsigned n = mmio_unit(len);
		uint64_t val = platform_mmio_read(v->vm->plat, v, gpa, n);

		copy(b, &val, n);
		v->stats.mmio++;
		gpa += n;
		b += n;
		len -= n;
	}
}

static void mmio_write(struct vcpu *v, uint64_t gpa, const uint8_t *b, size_t len)
{
	while (len > 0) {
		unsigned n = mmio_unit(len);
		uint64_t val = 0;

		copy(&val, b, n);
		platform_mmio_write(v->vm->plat, v, gpa, val, n);
		v->stats.mmio++;
		gpa += n;
		b += n;
		len -= n;
	}
}

void phys_read(struct vcpu *v, uint64_t gpa, void *buf, size_t len)
{
	uint8_t *b = buf;

	while (len > 0) {
		size_t part = page_part(gpa, len);
		const void *host = gmem_ptr(v->vm->mem, gpa, part, GMEM_READ);

		if (host != NULL)
			copy(b, host, part);
		else
			mmio_read(v, gpa, b, part);
		gpa += part;
		b += part;
		len -= part;
	}
}

void phys_write(struct vcpu *v, uint64_t gpa, const void *buf, size_t len)
{
	const uint8_t *b = buf;

	while (len > 0) {
		size_t part = page_part(gpa, len);
		void *host = gmem_ptr(v->vm->mem, gpa, part, GMEM_WRITE);

		if (host != NULL) {
			copy(host, b, part);
			phys_written(v, gpa, part);
		} else {
			mmio_write(v, gpa, b, part);
		}
		gpa += part;
		b += part;
		len -= part;
	}
}
