/*
 * A table of numbers found by 64-bit hashes: open addressing, 8 bytes a slot.  A slot keeps 27 bits of the hash, so what is found is
 * a guess to be verified.  See table.c.
 */
#ifndef HVX_MEMSVC_TABLE_H
#define HVX_MEMSVC_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#define TABLE_VALUE_BITS 36

struct table {
	uint64_t *slot;
	uint64_t mask; /* slots - 1; slots are a power of two */
	uint64_t n;    /* slots that are not free, emptied ones among them */
};

/* Empties it and gives it room for @n values.  0 or -ENOMEM, then it has no room at all. */
int table_reset(struct table *t, uint64_t n);
void table_free(struct table *t);
static inline bool table_full(const struct table *t)
{
	return !t->slot || t->n * 4 >= (t->mask + 1) * 3;
}
/* The table is not full. */
void table_put(struct table *t, uint64_t hash, uint64_t value);
/* The value that was put last of those with this hash, or that seem to have it. */
bool table_get(const struct table *t, uint64_t hash, uint64_t *value);
void table_del(struct table *t, uint64_t hash, uint64_t value);

#endif
