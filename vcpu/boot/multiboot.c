/*
 * Multiboot 1 kernels (Multiboot Specification 0.6.96): 32-bit entry with
 * eax = 0x2badb002 and ebx pointing at the information structure.
 *
 * Invariant: as for PVH, what the structure points at overlaps no kernel segment.
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/boot/elf.h"
#include "vcpu/boot/load.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/vcpu.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define F_ALIGN      0x00000001u /* modules on page boundaries: ours always are */
#define F_MEMORY     0x00000002u
#define F_VIDEO      0x00000004u /* asks for a mode; there is no display to set, which the structure tells */
#define F_KLUDGE     0x00010000u /* the header gives load addresses */
#define F_REQUIRED   0x0000ffffu

enum { /* offsets in the page at BOOT_PARAMS */
       AT_INFO = 0,
       AT_NAME = 0x78,
       AT_MODULE = 0x80, /* BOOT_MODULES of 16 bytes */
       AT_MMAP = 0x100
};
enum { I_MEM = 0x01, I_CMDLINE = 0x04, I_MODS = 0x08, I_MMAP = 0x40, I_LOADER = 0x200 };

struct mb_header {
	uint32_t at, flags;
	uint32_t header_addr, load_addr, load_end, bss_end, entry;
};

static bool find_header(const struct boot *b, struct mb_header *h)
{
	const uint8_t *p;

	for (uint32_t at = 0; at + 12 <= BOOT_HEAD; at += 4) {
		p = b->head + at;
		if (get32(p) != HEADER_MAGIC || get32(p) + get32(p + 4) + get32(p + 8) != 0)
			continue;
		h->at = at;
		h->flags = get32(p + 4);
		if (!(h->flags & F_KLUDGE))
			return true;
		if (at + 32 > BOOT_HEAD)
			return false;
		h->header_addr = get32(p + 12);
		h->load_addr = get32(p + 16);
		h->load_end = get32(p + 20);
		h->bss_end = get32(p + 24);
		h->entry = get32(p + 28);
		return true;
	}
	return false;
}

bool multiboot_match(const struct boot *b)
{
	struct mb_header h;

	return find_header(b, &h);
}

static int load_kludge(struct boot *b, const struct mb_header *h, uint32_t *entry)
{
	uint64_t off, len, mem;

	if (h->load_addr > h->header_addr || h->header_addr - h->load_addr > h->at)
		return boot_fail(b, "multiboot: load_addr %#x does not match header_addr %#x at file offset %#x",
				 h->load_addr, h->header_addr, h->at);
	off = h->at - (h->header_addr - h->load_addr);
	len = b->kernel_size - off;
	if (h->load_end) {
		if (h->load_end < h->load_addr)
			return boot_fail(b, "multiboot: load_end_addr %#x below load_addr %#x", h->load_end,
					 h->load_addr);
		len = h->load_end - h->load_addr;
	}
	mem = len;
	if (h->bss_end) {
		if (h->bss_end < h->load_addr || h->bss_end - h->load_addr < len)
			return boot_fail(b, "multiboot: bss_end_addr %#x below the end of the data", h->bss_end);
		mem = h->bss_end - h->load_addr;
	}
	*entry = h->entry;
	if (boot_claim(b, h->load_addr, mem, "kernel image"))
		return -1;
	return boot_copy(b, off, h->load_addr, len, mem, "kernel image");
}

/* The entry is a virtual address: find the physical one through its segment. */
static uint64_t physical_entry(const struct elf *e)
{
	for (unsigned i = 0; i < e->n; i++) {
		const struct elf_segment *s = &e->seg[i];

		if (s->type == ELF_PT_LOAD && e->entry >= s->vaddr && e->entry - s->vaddr < s->memsz)
			return e->entry - s->vaddr + s->paddr;
	}
	return e->entry;
}

static int load_elf(struct boot *b, uint32_t *entry)
{
	struct elf e;
	uint64_t at;

	if (elf_parse(b, &e) || elf_load_segments(b, &e))
		return -1;
	at = physical_entry(&e);
	if (at >> 32)
		return boot_fail(b, "multiboot: entry %#llx is above 4 GiB", (unsigned long long)at);
	*entry = (uint32_t)at;
	return 0;
}

static int load_image(struct boot *b, const struct mb_header *h, uint32_t *entry)
{
	if (h->flags & F_REQUIRED & ~(F_ALIGN | F_MEMORY | F_VIDEO))
		return boot_fail(b, "multiboot: header asks for features %#x that do not exist here",
				 h->flags & F_REQUIRED & ~(F_ALIGN | F_MEMORY | F_VIDEO));
	if (h->flags & F_KLUDGE)
		return load_kludge(b, h, entry);
	if (elf_match(b))
		return load_elf(b, entry);
	return boot_fail(b, "multiboot: neither an ELF file nor load addresses in the header");
}

static void memory_map(const struct boot *b, uint8_t *page)
{
	for (unsigned i = 0; i < b->map.n; i++) {
		uint8_t *m = page + AT_MMAP + 24 * i;

		put32(m, 20); /* size of the entry without this field */
		put64(m + 4, b->map.e[i].base);
		put64(m + 12, b->map.e[i].len);
		put32(m + 20, b->map.e[i].type);
	}
}

static int information(struct boot *b)
{
	uint8_t page[4096] = {0}, *info = page + AT_INFO;
	uint32_t at = (uint32_t)b->params;

	put32(info, I_MEM | I_CMDLINE | I_MODS | I_MMAP | I_LOADER);
	put32(info + 4, MEMMAP_EBDA >> 10);
	put32(info + 8, (uint32_t)((b->mem->low - 0x100000) >> 10));
	put32(info + 16, (uint32_t)b->cmdline);
	put32(info + 20, b->cfg->modules);
	for (unsigned i = 0; i < b->cfg->modules; i++) {
		uint8_t *m = page + AT_MODULE + (size_t)i * 16;

		put32(m, (uint32_t)b->module[i].at);
		put32(m + 4, (uint32_t)(b->module[i].at + b->module[i].len));
		put32(m + 8, (uint32_t)b->module[i].text);
	}
	put32(info + 24, at + AT_MODULE);
	put32(info + 44, 24 * b->map.n);
	put32(info + 48, at + AT_MMAP);
	put32(info + 64, at + AT_NAME);
	strcpy((char *)page + AT_NAME, "hvx");
	memory_map(b, page);
	return boot_write(b, b->params, page, sizeof(page), "multiboot information");
}

int multiboot_load(struct boot *b)
{
	struct mb_header h;
	uint32_t entry;

	if (!find_header(b, &h))
		return boot_fail(b, "multiboot: no header");
	/* kernels expect the name they were loaded by as the first word */
	if (load_image(b, &h, &entry) || boot_load_cmdline(b, "kernel ", BOOT_CMDLINE_MAX - 1))
		return -1;
	b->params = boot_place(b, BOOT_PARAMS, 4096, "multiboot information");
	if (!b->params || boot_load_modules(b, 0xffffffffu) || information(b))
		return -1;
	cpu_set_prot_flat(b->vm->vcpu[0], entry, LOADER_MAGIC, (uint32_t)b->params);
	return 0;
}
