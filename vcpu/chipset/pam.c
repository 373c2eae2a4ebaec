/*
 * Shadow RAM.  Where RAM answers reads and takes writes, or answers reads and nothing is written, memory does that by itself;
 * the rest comes here.
 *
 * Invariant: a write reaches RAM only where the registers enable it.
 */
#include "vcpu/chipset/pam.h"

#include <stddef.h>

#include "vcpu/chipset/savechips.h"

/* Register 0 has the 64 KiB at 0xf0000 in its upper half; each other one two pieces of 16 KiB, from 0xc0000 on. */
static uint8_t piece(const uint8_t regs[PAM_REGS], unsigned page)
{
	if (page >= 0x30)
		return regs[0] >> 4 & 3;
	return regs[1 + page / 8] >> (page / 4 & 1) * 4 & 3;
}

void pam_set(struct pam *p, const uint8_t regs[PAM_REGS])
{
	bool same = true;

	for (unsigned i = 0; i < GMEM_SHADOW_PAGES; i++) {
		same &= p->shadow[i] == piece(regs, i);
		p->shadow[i] = piece(regs, i);
	}
	if (!same)
		p->changed(p->ctx, p->shadow);
}

static uint64_t pam_read(void *dev, uint64_t off, unsigned size)
{
	struct pam *p = dev;
	int64_t frame = gmem_frame(p->mem, GMEM_SHADOW_BASE + off);
	const uint8_t *page = frame < 0 ? NULL : gmem_frame_ptr(p->mem, (uint64_t)frame, GMEM_READ);

	return page ? page[off % GMEM_PAGE_SIZE] : 0xff;
}

static void pam_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct pam *p = dev;
	uint64_t frame = (GMEM_SHADOW_BASE + off) >> GMEM_PAGE_SHIFT;
	uint8_t *page;

	if (!(p->shadow[off / GMEM_PAGE_SIZE] & GMEM_SHADOW_WRITE))
		return;
	page = gmem_frame_ptr(p->mem, frame, GMEM_READ | GMEM_WRITE | GMEM_PROGRAM);
	if (!page)
		return;
	page[off % GMEM_PAGE_SIZE] = (uint8_t)val;
	gmem_mark_dirty(p->mem, frame);
}

const struct bus_ops pam_ops = {pam_read, pam_write, 1};

/* ---- what is saved ---- */

static const struct save_row pam_save_rows[] = {
	SAVE_OMIT(struct pam, shadow, "follows from the host bridge's registers: pam_set()"),
	SAVE_OMIT(struct pam, mem, SAVE_WIRED),
	SAVE_OMIT(struct pam, changed, SAVE_WIRED),
	SAVE_OMIT(struct pam, ctx, SAVE_WIRED),
};
SAVE_TABLE(pam_save, struct pam, "pam");
