/*
 * Sorted, disjoint address ranges with a memory of the last hit.
 *
 * Invariant: r[0..n) is sorted by base and no two ranges overlap, so a binary
 * search finds the only candidate.
 */
#include "vcpu/chipset/bus.h"

#include <errno.h>
#include <stddef.h>

/* Index of the first range that ends after @addr. */
static unsigned lower(const struct bus *b, uint64_t addr)
{
	unsigned lo = 0, hi = b->n, mid;

	while (lo < hi) {
		mid = (lo + hi) / 2;
		if (b->r[mid].base + (b->r[mid].len - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static const struct bus_range *find(struct bus *b, uint64_t addr)
{
	const struct bus_range *r = &b->r[b->last];
	unsigned i;

	if (b->last < b->n && addr - r->base < r->len)
		return r;
	i = lower(b, addr);
	if (i == b->n || addr - b->r[i].base >= b->r[i].len)
		return NULL;
	b->last = i;
	return &b->r[i];
}

int bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev)
{
	unsigned i, j;

	if (!len || base + (len - 1) < base)
		return -EINVAL;
	if (b->n == BUS_RANGES)
		return -ENOSPC;
	i = lower(b, base);
	if (i < b->n && b->r[i].base <= base + (len - 1))
		return -EEXIST;
	for (j = b->n; j > i; j--)
		b->r[j] = b->r[j - 1];
	b->r[i] = (struct bus_range){base, len, ops, dev};
	b->n++;
	return 0;
}

void bus_remove(struct bus *b, uint64_t base, void *dev)
{
	unsigned i = lower(b, base);

	if (i == b->n || b->r[i].base != base || b->r[i].dev != dev)
		return;
	for (b->n--; i < b->n; i++)
		b->r[i] = b->r[i + 1];
	b->last = 0;
}

static uint64_t ones(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ull << size * 8) - 1;
}

/* An access wider than the chip's registers, or across a range's end: piece by piece. */
static uint64_t read_pieces(struct bus *b, uint64_t addr, unsigned size, unsigned piece)
{
	uint64_t val = 0;
	unsigned i;

	for (i = 0; i < size; i += piece)
		val |= (bus_read(b, addr + i, piece) & ones(piece)) << i * 8;
	return val;
}

static unsigned piece_size(const struct bus_range *r, uint64_t off, unsigned size)
{
	unsigned piece = r->ops->max_size;

	if (size > piece)
		return piece;
	if (size > r->len - off)
		return 1;
	return size;
}

uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size)
{
	const struct bus_range *r = find(b, addr);
	unsigned piece;

	if (!r)
		return ones(size);
	piece = piece_size(r, addr - r->base, size);
	if (piece < size)
		return read_pieces(b, addr, size, piece);
	return r->ops->read(r->dev, addr - r->base, size) & ones(size);
}

void bus_write(struct bus *b, uint64_t addr, uint64_t val, unsigned size)
{
	const struct bus_range *r = find(b, addr);
	unsigned piece, i;

	if (!r)
		return;
	piece = piece_size(r, addr - r->base, size);
	if (piece == size) {
		r->ops->write(r->dev, addr - r->base, val & ones(size), size);
		return;
	}
	for (i = 0; i < size; i += piece)
		bus_write(b, addr + i, val >> i * 8, piece);
}
