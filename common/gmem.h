/*
 * Guest memory: the resolver.  gmem_frame_ptr() is the only code of any process that reads the p2m table and turns a page of
 * RAM into a pointer; what gives pointers below stands on it.  RAM is one sealed memfd; guest-physical space maps onto its
 * pages ("frames") as [0, low) -> frame 0 and [4 GiB, 4 GiB + high) -> low, with low <= GMEM_LOW_MAX, but for struct gmem_rom.
 *
 * A page may be merged: others have the same bytes, and it is read where they are read, in the pool.  Whoever asks for it with
 * GMEM_WRITE gets it back in its own place, filled by himself (gmem_own()), and is told nothing: but what was resolved before
 * for reading leads to the old bytes from then on.  So whoever reads what somebody writes meanwhile (rings) resolves with
 * GMEM_WRITE; and translations that a vcpu keeps of a page in the pool are noted in held_bm, as code is in code_bm: whoever
 * has written looks there, and has them dropped (hvx-internals(7)).
 *
 * A pointer holds between gmem_enter() and gmem_leave(), by which memsvc knows when a page that it withdrew is out of use
 * (proto/shm.h).  A vcpu's thread needs neither between two block boundaries: what it keeps (soft TLB, code) is withdrawn at
 * one, as after any invalidation.
 */
#ifndef HVX_GMEM_H
#define HVX_GMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/shm.h"

#define GMEM_PAGE_SHIFT 12
#define GMEM_PAGE_SIZE  4096u
#define GMEM_LOW_MAX    0xb0000000ull  /* RAM below the PCI hole */
#define GMEM_HIGH_BASE  0x100000000ull /* RAM above it starts here */

#define GMEM_READ    1u /* intents */
#define GMEM_WRITE   2u
#define GMEM_PROGRAM 4u /* with WRITE: by the chip set, where the guest must not */

#define GMEM_SHADOW_BASE  0xc0000u
#define GMEM_SHADOW_PAGES 64u

/*
 * Where guest-physical space is not RAM at its own place: firmware that ends at 4 GiB, in frames behind those of RAM, never to
 * be written; and the 256 KiB below 1 MiB, where the chip set says page by page whether RAM, or what the ROM ends with, is
 * there.  Only the vcpu's process has it.
 */
enum { GMEM_SHADOW_READ = 1, GMEM_SHADOW_WRITE = 2 }; /* RAM answers reads, takes writes */
struct gmem_rom {
	uint64_t base; /* the ROM is [base, 4 GiB) */
	uint64_t chip; /* bytes from its base that a chip answers for at present: no memory */
	uint8_t shadow[GMEM_SHADOW_PAGES];
};

struct gmem {
	uint8_t *ram;               /* mapping of the whole RAM memfd, rw */
	uint64_t size;              /* bytes of RAM, a multiple of the page size */
	uint64_t rom_size;          /* bytes of ROM behind it in the memfd */
	uint64_t low;               /* bytes of RAM below the PCI hole */
	const struct gmem_rom *rom; /* NULL: none is to be seen */
	uint64_t *p2m;              /* one entry per RAM page: RAM offset | flags */
	uint64_t *code_bm;          /* one bit per RAM page: translated code exists */
	uint64_t *dirty_bm;         /* one bit per RAM page: written since harvest */
	struct shm_epochs *epochs;  /* NULL: nobody ever withdraws a page (unit tests) */
	const uint8_t *pool;        /* merged pages, to be read only; NULL: there are none */
	uint64_t pool_size;
	uint64_t *
		held_bm; /* one bit per RAM page: a vcpu may hold a translation to where it is, or was, in the pool; NULL: none */
	/* In the thread of whoever was given a page of its own, before it writes: @from is where the page was read till now.  May
	 * be NULL. */
	void (*moved)(void *ctx, uint64_t frame, const uint8_t *from);
	void *moved_ctx;
};

/* The same where ROM may be in the way. */
int64_t gmem_rom_frame(const struct gmem *g, uint64_t gpa);
/* May @frame, of RAM or ROM, not be written? */
bool gmem_write_protected(const struct gmem *g, uint64_t frame);

/* Page index of @gpa in RAM, or ROM behind it; -1 when there is no memory. */
static inline int64_t gmem_frame(const struct gmem *g, uint64_t gpa)
{
	if (g->rom &&
	    (gpa - GMEM_SHADOW_BASE < GMEM_SHADOW_PAGES << GMEM_PAGE_SHIFT || gpa - g->low < GMEM_HIGH_BASE - g->low))
		return gmem_rom_frame(g, gpa);
	if (gpa < g->low)
		return (int64_t)(gpa >> GMEM_PAGE_SHIFT);
	if (gpa >= GMEM_HIGH_BASE && gpa - GMEM_HIGH_BASE < g->size - g->low)
		return (int64_t)((gpa - GMEM_HIGH_BASE + g->low) >> GMEM_PAGE_SHIFT);
	return -1;
}

/* Is all of [gpa, gpa+len) RAM, on one side of the hole?  len >= 1. */
static inline bool gmem_is_ram(const struct gmem *g, uint64_t gpa, uint64_t len)
{
	uint64_t base = gpa < g->low ? 0 : GMEM_HIGH_BASE, room = gpa < g->low ? g->low : g->size - g->low;

	return gpa >= base && gpa - base < room && len <= room - (gpa - base);
}

/* The page in its own place, to be written, where that takes more than a look: it is merged, or about to be.  NULL: the p2m says
 * nonsense. */
uint8_t *gmem_own(const struct gmem *g, uint64_t frame);

/*
 * Host address of page @frame of RAM, or NULL where the p2m, which others can write, has none for this intent.  A page in the
 * guest's balloon has one: it reads as zeros, and memory comes when it is touched.
 */
static inline uint8_t *gmem_frame_ptr(const struct gmem *g, uint64_t frame, unsigned intent)
{
	/* without a p2m (early start) RAM is laid out in order */
	uint64_t e = g->p2m ? __atomic_load_n(&g->p2m[frame], __ATOMIC_RELAXED) : frame << GMEM_PAGE_SHIFT;
	uint64_t off = e & ~SHM_P2M_FLAGS;

	if (g->rom && (intent & (GMEM_WRITE | GMEM_PROGRAM)) == GMEM_WRITE && gmem_write_protected(g, frame))
		return NULL;
	if ((intent & GMEM_WRITE) && (e & SHM_P2M_ASK))
		return gmem_own(g, frame);
	if (!(e & SHM_P2M_SHARED))
		return off < g->size + g->rom_size ? g->ram + off : NULL;
	return off < g->pool_size ? (uint8_t *)(uintptr_t)(g->pool + off) : NULL;
}

/* May the page be written where it is?  A look that changes nothing. */
static inline bool gmem_writable(const struct gmem *g, uint64_t frame)
{
	if (g->rom && gmem_write_protected(g, frame))
		return false;
	return !g->p2m || !(__atomic_load_n(&g->p2m[frame], __ATOMIC_RELAXED) & SHM_P2M_ASK);
}

static inline bool gmem_in_pool(const struct gmem *g, const uint8_t *host)
{
	return (uintptr_t)host - (uintptr_t)g->pool < g->pool_size;
}

/* From here on pointers of @slot's thread (proto/shm.h) hold, to gmem_leave() with what this returned.  May be nested, and last
 * as long as a request is in flight. */
static inline unsigned gmem_enter(const struct gmem *g, unsigned slot)
{
	if (!g->epochs)
		return 0;
	unsigned parity = atomic_load_explicit(&g->epochs->now, memory_order_relaxed) & 1;
	atomic_fetch_add(&g->epochs->slot[slot].held[parity], 1); /* and a full fence before the p2m is read */
	return parity;
}

static inline void gmem_leave(const struct gmem *g, unsigned slot, unsigned parity)
{
	if (g->epochs)
		atomic_fetch_sub_explicit(&g->epochs->slot[slot].held[parity], 1, memory_order_release);
}

/* A free slot for a device process, for as long as it lives; -ENOSPC. */
int gmem_join(const struct gmem *g);

static inline bool gmem_bit(const uint64_t *bm, uint64_t frame)
{
	return __atomic_load_n(&bm[frame / 64], __ATOMIC_RELAXED) >> (frame % 64) & 1;
}

/* Of a RAM page: a bit that is set already costs no locked operation. */
static inline void gmem_mark_dirty(const struct gmem *g, uint64_t frame)
{
	if (!gmem_bit(g->dirty_bm, frame))
		__atomic_fetch_or(&g->dirty_bm[frame / 64], 1ull << (frame % 64), __ATOMIC_SEQ_CST);
}

/* Host address of guest-physical @gpa for @intent, where all of [gpa, gpa+len) is RAM: *len (at least 1) becomes what of it lies
 * in one stretch of the host's memory.  NULL: none. */
void *gmem_run(const struct gmem *g, uint64_t gpa, size_t *len, unsigned intent);

/* The same if the whole of it lies in one stretch, else NULL. */
static inline void *gmem_ptr(const struct gmem *g, uint64_t gpa, size_t len, unsigned intent)
{
	uint64_t in_page = gpa & (GMEM_PAGE_SIZE - 1);

	if (len - 1 < GMEM_PAGE_SIZE - in_page) { /* the usual case: not 0, and of one page */
		int64_t frame = gmem_frame(g, gpa);
		uint8_t *page = frame < 0 ? NULL : gmem_frame_ptr(g, (uint64_t)frame, intent);
		return page ? page + in_page : NULL;
	}
	size_t have = len;
	void *p = gmem_run(g, gpa, &have, intent);
	return have == len ? p : NULL;
}

/* Copies out of / into guest RAM (any length, may cross pages); 0 or -EFAULT
 * when part of the range is no RAM (then nothing is copied).  gmem_write marks
 * pages dirty; it does not look at the code bitmap. */
int gmem_read(const struct gmem *g, uint64_t gpa, void *buf, size_t len);
int gmem_write(const struct gmem *g, uint64_t gpa, const void *buf, size_t len);

#endif
