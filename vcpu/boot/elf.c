/*
 * ELF kernels: headers of 32- and 64-bit x86 executables (System V ABI, chapter 4 and 5).
 *
 * Invariant: after elf_parse() every segment's file range lies in the file and
 * its memory size is not less than its file size.
 */
#include "vcpu/boot/elf.h"

#include <string.h>

#include "vcpu/boot/load.h"

enum { ET_EXEC = 2, ET_DYN = 3, EM_386 = 3, EM_X86_64 = 62 };

bool elf_match(const struct boot *b)
{
	return !memcmp(b->head, "\177ELF", 4);
}

static void segment64(const uint8_t *p, struct elf_segment *s)
{
	*s = (struct elf_segment){.type = get32(p),
				  .off = get64(p + 8),
				  .vaddr = get64(p + 16),
				  .paddr = get64(p + 24),
				  .filesz = get64(p + 32),
				  .memsz = get64(p + 40)};
}

static void segment32(const uint8_t *p, struct elf_segment *s)
{
	*s = (struct elf_segment){.type = get32(p),
				  .off = get32(p + 4),
				  .vaddr = get32(p + 8),
				  .paddr = get32(p + 12),
				  .filesz = get32(p + 16),
				  .memsz = get32(p + 20)};
}

static int check_segment(struct boot *b, const struct elf_segment *s, unsigned i)
{
	if (s->type != ELF_PT_LOAD && s->type != ELF_PT_NOTE)
		return 0;
	if (s->off > b->kernel_size || s->filesz > b->kernel_size - s->off)
		return boot_fail(
			b,
			"ELF kernel is truncated: segment %u (%#llx bytes at offset %#llx) lies beyond its %#llx bytes",
			i, (unsigned long long)s->filesz, (unsigned long long)s->off,
			(unsigned long long)b->kernel_size);
	if (s->type == ELF_PT_LOAD && s->memsz < s->filesz)
		return boot_fail(b, "ELF kernel: segment %u has %#llx bytes in the file but %#llx in memory", i,
				 (unsigned long long)s->filesz, (unsigned long long)s->memsz);
	return 0;
}

static int check_ident(struct boot *b, struct elf *e)
{
	const uint8_t *h = b->head;
	unsigned machine = get16(h + 18), type = get16(h + 16);

	e->is64 = h[4] == 2;
	if ((h[4] != 1 && h[4] != 2) || h[5] != 1)
		return boot_fail(b, "ELF kernel: class %u, data encoding %u: not for x86", h[4], h[5]);
	if (machine != (e->is64 ? EM_X86_64 : EM_386))
		return boot_fail(b, "ELF kernel: machine %u is not x86", machine);
	if (type != ET_EXEC && type != ET_DYN)
		return boot_fail(b, "ELF kernel: type %u is not an executable", type);
	return 0;
}

int elf_parse(struct boot *b, struct elf *e)
{
	const uint8_t *h = b->head;
	uint64_t phoff;
	unsigned size;
	uint8_t ph[56];

	if (check_ident(b, e))
		return -1;
	e->entry = e->is64 ? get64(h + 24) : get32(h + 24);
	phoff = e->is64 ? get64(h + 32) : get32(h + 28);
	e->n = get16(h + (e->is64 ? 56 : 44));
	size = e->is64 ? 56 : 32;
	if (!e->n || e->n > ELF_SEGMENTS)
		return boot_fail(b, "ELF kernel: %u program headers, 1 to %d are taken", e->n, ELF_SEGMENTS);
	if (get16(h + (e->is64 ? 54 : 42)) != size)
		return boot_fail(b, "ELF kernel: program headers of %u bytes", get16(h + (e->is64 ? 54 : 42)));
	if (phoff > b->kernel_size)
		return boot_fail(b, "ELF kernel is truncated: program headers at offset %#llx",
				 (unsigned long long)phoff);
	for (unsigned i = 0; i < e->n; i++) {
		if (boot_read(b, phoff + (uint64_t)i * size, ph, size, "ELF program header"))
			return -1;
		(e->is64 ? segment64 : segment32)(ph, &e->seg[i]);
		if (check_segment(b, &e->seg[i], i))
			return -1;
	}
	return 0;
}

int elf_load_segments(struct boot *b, const struct elf *e)
{
	unsigned loaded = 0;

	for (unsigned i = 0; i < e->n; i++) {
		const struct elf_segment *s = &e->seg[i];

		if (s->type != ELF_PT_LOAD || !s->memsz)
			continue;
		if (boot_claim(b, s->paddr, s->memsz, "kernel segment") ||
		    boot_copy(b, s->off, s->paddr, s->filesz, s->memsz, "kernel segment"))
			return -1;
		loaded++;
	}
	if (!loaded)
		return boot_fail(b, "ELF kernel: nothing to load");
	return 0;
}
