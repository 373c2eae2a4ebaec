/*
 * The guest's physical memory map, as told by e820, PVH and multiboot.
 */
#ifndef HVX_BOOT_MEMMAP_H
#define HVX_BOOT_MEMMAP_H

#include <stdbool.h>
#include <stdint.h>

struct gmem;

enum { MEMMAP_RAM = 1, MEMMAP_RESERVED = 2 }; /* as in e820 */

#define MEMMAP_EBDA     0x9fc00u /* end of conventional memory */
#define MEMMAP_ACPI     0xe0000u /* our tables */
#define MEMMAP_ACPI_END 0x100000u
#define MEMMAP_MAX      16

struct memmap {
	struct memmap_entry {
		uint64_t base, len;
		uint32_t type;
	} e[MEMMAP_MAX];
	unsigned n;
};

void memmap_build(struct memmap *m, const struct gmem *mem);
/* [base, base+len) lies in one stretch of usable RAM. */
bool memmap_usable(const struct memmap *m, uint64_t base, uint64_t len);

#endif
