/*
 * ELF kernels that start by PVH: a note gives a 32-bit entry point, ebx points
 * at hvm_start_info (Xen's docs/misc/pvh.pandoc, arch-x86/hvm/start_info.h).
 *
 * Invariant: everything hvm_start_info points at lies in claimed memory that no
 * segment of the kernel touches.
 */
#include <string.h>

#include "vcpu/boot/elf.h"
#include "vcpu/boot/load.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/vcpu.h"

#define NOTE_PHYS32_ENTRY 18
#define NOTES_MAX         65536u
#define START_MAGIC       0x336ec578u

enum { /* offsets in the page at BOOT_PARAMS */
       AT_START = 0,
       AT_MODLIST = 0x40, /* BOOT_MODULES of 32 bytes */
       AT_MEMMAP = 0x200
};

/* The entry in one note, or 0. */
static uint32_t entry_of(const uint8_t *desc, uint32_t namesz, const uint8_t *name, uint32_t descsz, uint32_t type)
{
	if (type != NOTE_PHYS32_ENTRY || namesz != 4 || memcmp(name, "Xen", 4))
		return 0;
	return descsz == 4 || descsz == 8 ? get32(desc) : 0;
}

static uint32_t scan_notes(const uint8_t *p, uint64_t len)
{
	uint32_t namesz, descsz, entry;
	uint64_t name_len, desc_len;

	while (len >= 12) {
		namesz = get32(p);
		descsz = get32(p + 4);
		name_len = ((uint64_t)namesz + 3) & ~3ull;
		desc_len = ((uint64_t)descsz + 3) & ~3ull;
		if (name_len > len - 12 || descsz > len - 12 - name_len)
			return 0;
		entry = entry_of(p + 12 + name_len, namesz, p + 12, descsz, get32(p + 8));
		if (entry)
			return entry;
		if (desc_len > len - 12 - name_len)
			return 0;
		p += 12 + name_len + desc_len;
		len -= 12 + name_len + desc_len;
	}
	return 0;
}

static int find_entry(struct boot *b, const struct elf *e, uint32_t *entry)
{
	static uint8_t notes[NOTES_MAX];

	*entry = 0;
	for (unsigned i = 0; i < e->n && !*entry; i++) {
		const struct elf_segment *s = &e->seg[i];

		if (s->type != ELF_PT_NOTE || s->filesz > NOTES_MAX)
			continue;
		if (boot_read(b, s->off, notes, (size_t)s->filesz, "ELF notes"))
			return -1;
		*entry = scan_notes(notes, s->filesz);
	}
	return 0;
}

static void module_entry(uint8_t *m, uint64_t at, uint64_t len, uint64_t text)
{
	put64(m, at);
	put64(m + 8, len);
	put64(m + 16, text);
}

/* Modules if one has arguments; else all as one initrd, as Linux looks at the first alone. */
static uint32_t modules(const struct boot *b, uint8_t *list)
{
	if (!boot_has_args(b)) {
		module_entry(list, b->initrd, b->initrd_size, 0);
		return b->initrd_size ? 1 : 0;
	}
	for (unsigned i = 0; i < b->cfg->modules; i++)
		module_entry(list + (size_t)i * 32, b->module[i].at, b->module[i].len, b->module[i].text);
	return b->cfg->modules;
}

static int start_info(struct boot *b)
{
	uint8_t page[4096] = {0}, *start = page + AT_START;
	uint32_t n = modules(b, page + AT_MODLIST);

	put32(start, START_MAGIC);
	put32(start + 4, 1); /* version: has the memory map */
	put32(start + 12, n);
	put64(start + 16, n ? b->params + AT_MODLIST : 0);
	put64(start + 24, b->cmdline);
	put64(start + 32, b->rsdp);
	put64(start + 40, b->params + AT_MEMMAP);
	put32(start + 48, b->map.n);
	for (unsigned i = 0; i < b->map.n; i++) {
		uint8_t *m = page + AT_MEMMAP + 24 * i;

		put64(m, b->map.e[i].base);
		put64(m + 8, b->map.e[i].len);
		put32(m + 16, b->map.e[i].type);
	}
	return boot_write(b, b->params, page, sizeof(page), "start info");
}

int elf_pvh_load(struct boot *b)
{
	struct elf e;
	uint32_t entry;

	if (elf_parse(b, &e) || find_entry(b, &e, &entry))
		return -1;
	if (!entry)
		return 1;
	if (elf_load_segments(b, &e) || boot_load_cmdline(b, "", BOOT_CMDLINE_MAX - 1))
		return -1;
	b->params = boot_place(b, BOOT_PARAMS, 4096, "start info");
	if (!b->params || (boot_has_args(b) ? boot_load_modules : boot_load_initrd)(b, 0xffffffffu) || start_info(b))
		return -1;
	cpu_set_prot_flat(b->vm->vcpu[0], entry, 0, (uint32_t)b->params);
	return 0;
}
