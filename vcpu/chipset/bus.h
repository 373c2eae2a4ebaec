/*
 * Address decoding for ports and memory-mapped registers, and the wires by
 * which chips raise interrupts.
 */
#ifndef HVX_BUS_H
#define HVX_BUS_H

#include <stdbool.h>
#include <stdint.h>

struct bus_ops {
	/* @off is relative to the range, @size is 1, 2, 4 or 8 and at most max_size. */
	uint64_t (*read)(void *dev, uint64_t off, unsigned size);
	void (*write)(void *dev, uint64_t off, uint64_t val, unsigned size);
	unsigned max_size; /* wider accesses are cut into pieces of this size */
};

struct bus_range {
	uint64_t base, len;
	const struct bus_ops *ops;
	void *dev;
};

#define BUS_RANGES 192

struct bus {
	struct bus_range r[BUS_RANGES]; /* sorted by base, disjoint */
	unsigned n;
	unsigned last; /* index of the latest hit */
};

/* 0; -EEXIST when the range overlaps another, -ENOSPC, -EINVAL for an empty or wrapping one. */
int bus_add(struct bus *b, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev);
/* Removes the range that starts at @base and belongs to @dev, if there. */
void bus_remove(struct bus *b, uint64_t base, void *dev);

/* What no range covers reads as ones and ignores writes. */
uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size);
void bus_write(struct bus *b, uint64_t addr, uint64_t val, unsigned size);

/* One interrupt wire from a chip. */
struct irq_out {
	void (*set)(void *ctx, unsigned line, bool level);
	void *ctx;
	unsigned line;
};

static inline void irq_set(const struct irq_out *o, bool level)
{
	if (o->set)
		o->set(o->ctx, o->line, level);
}

#endif
