/* Page-table building for 64-bit flat guests.  Invariant: frames are never given back. */
#include "pt.h"

uint64_t pt_frame(void)
{
	static uint64_t next = PT_POOL;
	uint64_t f = next;

	if (next >= PT_POOL_END) {
		print("not ok page pool is empty\n");
		rt_exit(3);
	}
	next += 4096;
	memset((void *)(word)f, 0, 4096);
	return f;
}

uint64_t *pt_entry(uint64_t root, uint64_t va, int level)
{
	uint64_t *table = (uint64_t *)(word)(root & P_ADDR);
	int l;

	for (l = 4;; l--) {
		uint64_t *e = &table[va >> (12 + 9 * (l - 1)) & 511];
		if (l == level)
			return e;
		if (!(*e & P_P))
			*e = pt_frame() | P_P | P_W | P_U;
		table = (uint64_t *)(word)(*e & P_ADDR);
	}
}

void pt_map(uint64_t root, uint64_t va, uint64_t entry, int level)
{
	*pt_entry(root, va, level) = entry;
	invlpg((void *)va);
}
