/*
 * Slots: 0 is free; else  used 1 | tag 27 | value 36.  Invariant: from the place that its hash names to a value there is no free
 * slot; an emptied one (all bits of its value set) is none.
 */
#include "memsvc/table.h"

#include <errno.h>
#include <stdlib.h>

#define VALUE ((1ull << TABLE_VALUE_BITS) - 1) /* of an emptied slot, too */
#define USED  (1ull << 63)

static uint64_t tagged(uint64_t hash)
{
	return USED | (hash >> 37) << TABLE_VALUE_BITS;
}

int table_reset(struct table *t, uint64_t n)
{
	uint64_t slots = 64;

	while (slots < 2 * n)
		slots *= 2;
	table_free(t);
	t->slot = calloc(slots, sizeof *t->slot);
	t->mask = slots - 1;
	return t->slot ? 0 : -ENOMEM;
}

void table_free(struct table *t)
{
	free(t->slot);
	*t = (struct table){0};
}

void table_put(struct table *t, uint64_t hash, uint64_t value)
{
	uint64_t i = hash & t->mask;

	while (t->slot[i] && (t->slot[i] & VALUE) != VALUE)
		i = (i + 1) & t->mask;
	t->n += !t->slot[i];
	t->slot[i] = tagged(hash) | value;
}

bool table_get(const struct table *t, uint64_t hash, uint64_t *value)
{
	const uint64_t tag = tagged(hash);

	if (!t->slot)
		return false;
	for (uint64_t i = hash & t->mask; t->slot[i]; i = (i + 1) & t->mask)
		if ((t->slot[i] & ~VALUE) == tag && (t->slot[i] & VALUE) != VALUE) {
			*value = t->slot[i] & VALUE;
			return true;
		}
	return false;
}

void table_del(struct table *t, uint64_t hash, uint64_t value)
{
	for (uint64_t i = hash & t->mask; t->slot && t->slot[i]; i = (i + 1) & t->mask)
		if (t->slot[i] == (tagged(hash) | value)) {
			t->slot[i] |= VALUE;
			return;
		}
}
