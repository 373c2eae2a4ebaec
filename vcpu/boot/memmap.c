/*
 * The guest's physical memory map.
 *
 * Invariant: entries are sorted, disjoint, and every RAM entry is backed by gmem.
 */
#include "vcpu/boot/memmap.h"

#include "common/gmem.h"
#include "vcpu/chipset/pci.h"

static void add(struct memmap *m, uint64_t base, uint64_t end, uint32_t type)
{
	if (end > base && m->n < MEMMAP_MAX)
		m->e[m->n++] = (struct memmap_entry){base, end - base, type};
}

void memmap_build(struct memmap *m, const struct gmem *mem)
{
	m->n = 0;
	add(m, 0, MEMMAP_EBDA, MEMMAP_RAM);
	add(m, MEMMAP_EBDA, 0xa0000, MEMMAP_RESERVED);
	add(m, MEMMAP_ACPI, MEMMAP_ACPI_END, MEMMAP_RESERVED);
	add(m, 0x100000, mem->low, MEMMAP_RAM);
	add(m, PCI_ECAM_BASE, PCI_ECAM_BASE + (uint64_t)PCI_ECAM_LEN, MEMMAP_RESERVED);
	add(m, GMEM_HIGH_BASE, GMEM_HIGH_BASE + (mem->size - mem->low), MEMMAP_RAM);
}

bool memmap_usable(const struct memmap *m, uint64_t base, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		const struct memmap_entry *e = &m->e[i];

		if (e->type == MEMMAP_RAM && base >= e->base && base - e->base < e->len)
			return len <= e->len - (base - e->base);
	}
	return false;
}
