/*
 * A snapshot's overlay: a file that has no name, and a bit a sector that says which sectors are in it.
 * Invariant: the base is never written; a bit is set after the overlay has the sector.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/blk/blk.h"

int blk_overlay_init(struct blk *b)
{
	/* Pages of the map cost memory when they are first written. */
	size_t n = (size_t)(b->size / BLK_SECTOR / 8 + 8);

	b->written = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	b->dev.child.own += n;
	return b->written == MAP_FAILED ? -ENOMEM : 0;
}

static bool is_written(const struct blk *b, uint64_t sector)
{
	return b->written[sector / 64] >> (sector % 64) & 1;
}

struct blk_store *blk_overlay_where(struct blk *b, uint64_t at, uint64_t *len)
{
	uint64_t first = at / BLK_SECTOR, end = (at + *len) / BLK_SECTOR, s = first + 1;
	bool here = is_written(b, first);

	while (s < end && is_written(b, s) == here)
		s++;
	*len = s * BLK_SECTOR - at;
	return here ? b->top : b->base;
}

void blk_overlay_mark(struct blk *b, uint64_t at, uint64_t len)
{
	for (uint64_t s = at / BLK_SECTOR, end = (at + len) / BLK_SECTOR; s < end; s++)
		b->written[s / 64] |= 1ull << (s % 64);
}
