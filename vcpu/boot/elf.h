/*
 * ELF kernels: validated program headers and the loading of segments.
 */
#ifndef HVX_BOOT_ELF_H
#define HVX_BOOT_ELF_H

#include <stdbool.h>
#include <stdint.h>

struct boot;

#define ELF_SEGMENTS 32

struct elf_segment {
	uint32_t type;
	uint64_t off, vaddr, paddr, filesz, memsz;
};

struct elf {
	bool is64;
	uint64_t entry;
	unsigned n;
	struct elf_segment seg[ELF_SEGMENTS];
};

#define ELF_PT_LOAD 1
#define ELF_PT_NOTE 4

/* Reads headers; 0 or -1 after boot_fail(). */
int elf_parse(struct boot *b, struct elf *e);
/* Claims and copies every PT_LOAD to its physical address.  0 or -1. */
int elf_load_segments(struct boot *b, const struct elf *e);

#endif
