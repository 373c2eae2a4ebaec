/*
 * Guest memory: the only place where a guest-physical address becomes a
 * pointer.  RAM is one sealed memfd; guest-physical space maps onto it as
 * [0, low) -> offset 0 and [4 GiB, 4 GiB + high) -> offset low, with
 * low <= GMEM_LOW_MAX, through the p2m table of the control region.
 */
#ifndef HVX_GMEM_H
#define HVX_GMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GMEM_PAGE_SHIFT 12
#define GMEM_PAGE_SIZE  4096u
#define GMEM_LOW_MAX    0xc0000000ull  /* RAM below the PCI hole */
#define GMEM_HIGH_BASE  0x100000000ull /* RAM above it starts here */

struct gmem {
	uint8_t *ram;       /* mapping of the whole RAM memfd, rw */
	uint64_t size;      /* bytes of RAM, a multiple of the page size */
	uint64_t low;       /* bytes of it below the PCI hole */
	uint64_t *p2m;      /* one entry per RAM page: RAM offset | flags */
	uint64_t *code_bm;  /* one bit per RAM page: translated code exists */
	uint64_t *dirty_bm; /* one bit per RAM page: written since harvest */
};

/* RAM page index of @gpa, or -1 when @gpa is no RAM. */
static inline int64_t gmem_frame(const struct gmem *g, uint64_t gpa)
{
	if (gpa < g->low)
		return (int64_t)(gpa >> GMEM_PAGE_SHIFT);
	if (gpa >= GMEM_HIGH_BASE && gpa - GMEM_HIGH_BASE < g->size - g->low)
		return (int64_t)((gpa - GMEM_HIGH_BASE + g->low) >> GMEM_PAGE_SHIFT);
	return -1;
}

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

/*
 * Host address of guest-physical @gpa if [gpa, gpa+len) lies in one
 * contiguous stretch of RAM, else NULL.  len >= 1.
 */
void *gmem_ptr(const struct gmem *g, uint64_t gpa, size_t len);

/* Copies out of / into guest RAM (any length, may cross pages); 0 or -EFAULT
 * when part of the range is no RAM (then nothing is copied).  gmem_write marks
 * pages dirty; it does not look at the code bitmap. */
int gmem_read(const struct gmem *g, uint64_t gpa, void *buf, size_t len);
int gmem_write(const struct gmem *g, uint64_t gpa, const void *buf, size_t len);

#endif
