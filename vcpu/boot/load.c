/*
 * Loading of guest kernels: sniffing the format, and bounded copies from the
 * files into RAM.
 *
 * Invariant: nothing is written to guest RAM outside a claimed range or the
 * ACPI area, and no claim overlaps another.
 */
#include "vcpu/boot/load.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/gmem.h"
#include "vcpu/boot/acpi.h"
#include "vcpu/vcpu.h"

#define CHUNK   65536u
#define RAM_MIN (2ull << 20)

int boot_fail(struct boot *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(b->err, b->errlen, fmt, ap);
	va_end(ap);
	return -1;
}

/* ---- guest memory ---- */
int boot_claim(struct boot *b, uint64_t gpa, uint64_t len, const char *what)
{
	if (!len)
		return 0;
	if (!memmap_usable(&b->map, gpa, len))
		return boot_fail(b, "%s (%#llx bytes at %#llx) does not fit in the guest's RAM", what,
				 (unsigned long long)len, (unsigned long long)gpa);
	for (unsigned i = 0; i < b->claims; i++)
		if (gpa < b->claim[i].base + b->claim[i].len && b->claim[i].base < gpa + len)
			return boot_fail(b, "%s (%#llx bytes at %#llx) overlaps %s at %#llx", what,
					 (unsigned long long)len, (unsigned long long)gpa, b->claim[i].what,
					 (unsigned long long)b->claim[i].base);
	if (b->claims == BOOT_CLAIMS)
		return boot_fail(b, "kernel: more than %d pieces to load", BOOT_CLAIMS);
	b->claim[b->claims].base = gpa;
	b->claim[b->claims].len = len;
	b->claim[b->claims++].what = what;
	return 0;
}

int boot_write(struct boot *b, uint64_t gpa, const void *buf, size_t len, const char *what)
{
	if (gmem_write(b->mem, gpa, buf, len))
		return boot_fail(b, "%s: no RAM at %#llx", what, (unsigned long long)gpa);
	return 0;
}

int boot_zero(struct boot *b, uint64_t gpa, uint64_t len)
{
	static const uint8_t zero[4096];
	size_t n;

	for (; len; gpa += n, len -= n) {
		n = len < sizeof(zero) ? (size_t)len : sizeof(zero);
		if (boot_write(b, gpa, zero, n, "clearing memory"))
			return -1;
	}
	return 0;
}

/* ---- files ---- */
static int file_size(struct boot *b, int fd, const char *what, uint64_t *size)
{
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0)
		return boot_fail(b, "%s: can not be read: %s", what, strerror(errno));
	*size = (uint64_t)end;
	return 0;
}

static int read_exact(struct boot *b, int fd, uint64_t off, void *buf, size_t len, const char *what)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return boot_fail(b, "%s: read at offset %#llx: %s", what, (unsigned long long)(off + done),
					 strerror(errno));
		if (!n)
			return boot_fail(b, "%s: file ends at offset %#llx", what, (unsigned long long)(off + done));
		done += (size_t)n;
	}
	return 0;
}

int boot_read(struct boot *b, uint64_t off, void *buf, size_t len, const char *what)
{
	if (off > b->kernel_size || len > b->kernel_size - off)
		return boot_fail(b, "kernel is truncated: %s (%#zx bytes at offset %#llx) lies beyond its %#llx bytes",
				 what, len, (unsigned long long)off, (unsigned long long)b->kernel_size);
	return read_exact(b, b->cfg->kernel_fd, off, buf, len, what);
}

static int copy_file(struct boot *b, int fd, uint64_t off, uint64_t gpa, uint64_t len, const char *what)
{
	static uint8_t chunk[CHUNK]; /* one loader at a time: the machine is not running */
	size_t n;

	for (; len; off += n, gpa += n, len -= n) {
		n = len < CHUNK ? (size_t)len : CHUNK;
		if (read_exact(b, fd, off, chunk, n, what) || boot_write(b, gpa, chunk, n, what))
			return -1;
	}
	return 0;
}

int boot_copy(struct boot *b, uint64_t off, uint64_t gpa, uint64_t len, uint64_t memlen, const char *what)
{
	if (off > b->kernel_size || len > b->kernel_size - off)
		return boot_fail(b, "kernel is truncated: %s (%#llx bytes at offset %#llx) lies beyond its %#llx bytes",
				 what, (unsigned long long)len, (unsigned long long)off,
				 (unsigned long long)b->kernel_size);
	if (copy_file(b, b->cfg->kernel_fd, off, gpa, len, what))
		return -1;
	return boot_zero(b, gpa + len, memlen - len);
}

/* ---- initrd and command line ---- */
/* The end of the highest hole of @len bytes below @end in [base, end), or 0. */
static uint64_t hole_below(const struct boot *b, uint64_t base, uint64_t end, uint64_t len)
{
	uint64_t at;
	unsigned i;

	while (end > base && end - base >= len) {
		at = (end - len) & ~(uint64_t)(GMEM_PAGE_SIZE - 1);
		if (at < base)
			return 0;
		for (i = 0; i < b->claims; i++)
			if (at < b->claim[i].base + b->claim[i].len && b->claim[i].base < at + len)
				break;
		if (i == b->claims)
			return at;
		end = b->claim[i].base;
	}
	return 0;
}

static bool free_at(const struct boot *b, uint64_t at, uint64_t len)
{
	if (!memmap_usable(&b->map, at, len))
		return false;
	for (unsigned i = 0; i < b->claims; i++)
		if (at < b->claim[i].base + b->claim[i].len && b->claim[i].base < at + len)
			return false;
	return true;
}

uint64_t boot_place(struct boot *b, uint64_t at, uint64_t len, const char *what)
{
	if (!free_at(b, at, len))
		at = hole_below(b, 0x1000, MEMMAP_EBDA, len);
	if (!at)
		at = hole_below(b, 0x100000, b->mem->low, len);
	if (!at)
		boot_fail(b, "%s: no room beside the kernel", what);
	return at && !boot_claim(b, at, len, what) ? at : 0;
}

/* A place for @len bytes as high as possible, claimed; 0 after boot_fail(). */
static uint64_t place_high(struct boot *b, uint64_t len, uint64_t max, const char *what)
{
	uint64_t low = b->mem->low, at = hole_below(b, 0x100000, max < low ? max + 1 : low, len);

	if (!at)
		boot_fail(b, "%s (%llu bytes) does not fit beside the kernel in %llu MiB of RAM", what,
			  (unsigned long long)len, (unsigned long long)(b->mem->size >> 20));
	else if (boot_claim(b, at, len, what))
		return 0;
	return at;
}

bool boot_has_args(const struct boot *b)
{
	for (unsigned i = 0; i < b->cfg->modules; i++)
		if (b->cfg->module[i].args && b->cfg->module[i].args[0])
			return true;
	return false;
}

int boot_load_initrd(struct boot *b, uint64_t max)
{
	uint64_t at = 0;
	unsigned n = b->cfg->modules;

	if (boot_has_args(b))
		return boot_fail(b, "initrd: arguments are for multiboot modules; this kernel cannot see them");
	for (unsigned i = 0; i < n; i++)
		b->initrd_size = ((b->initrd_size + 3) & ~3ull) + b->module[i].len;
	if (n)
		b->initrd = at = place_high(b, b->initrd_size, max, "initrd");
	if (n && (!at || boot_zero(b, at, b->initrd_size)))
		return -1;
	for (unsigned i = 0; i < n; i++) {
		b->module[i].at = at;
		if (copy_file(b, b->cfg->module[i].fd, 0, at, b->module[i].len, "initrd"))
			return -1;
		at += (b->module[i].len + 3) & ~3ull;
	}
	return 0;
}

/* "NAME ARGS" of module @i, at @at. */
static int write_text(struct boot *b, unsigned i, uint64_t at)
{
	const struct boot_module *m = &b->cfg->module[i];
	char text[BOOT_TEXT_MAX];
	bool args = m->args && m->args[0];

	snprintf(text, sizeof text, "%s%s%s", m->name && m->name[0] ? m->name : "initrd", args ? " " : "",
		 args ? m->args : "");
	b->module[i].text = at;
	return boot_write(b, at, text, strlen(text) + 1, "module's name");
}

int boot_load_modules(struct boot *b, uint64_t max)
{
	uint64_t texts;

	if (!b->cfg->modules)
		return 0;
	texts = boot_place(b, BOOT_TEXTS, BOOT_MODULES * BOOT_TEXT_MAX, "names of modules");
	if (!texts)
		return -1;
	for (unsigned i = 0; i < b->cfg->modules; i++) {
		b->module[i].at = place_high(b, b->module[i].len, max, "initrd");
		if (!b->module[i].at || write_text(b, i, texts + (uint64_t)i * BOOT_TEXT_MAX) ||
		    copy_file(b, b->cfg->module[i].fd, 0, b->module[i].at, b->module[i].len, "initrd"))
			return -1;
	}
	return 0;
}

int boot_load_cmdline(struct boot *b, const char *prefix, uint32_t limit)
{
	const char *line = b->cfg->cmdline ? b->cfg->cmdline : "";
	size_t plen = strlen(prefix), len = strlen(line);
	uint32_t max = limit < BOOT_CMDLINE_MAX - 1 ? limit : BOOT_CMDLINE_MAX - 1;

	if (len > max || plen > max - len)
		return boot_fail(b, "command line: %zu bytes, this kernel takes %u", plen + len, max);
	b->cmdline = boot_place(b, BOOT_CMDLINE, BOOT_CMDLINE_MAX, "command line");
	if (!b->cmdline || boot_write(b, b->cmdline, prefix, plen, "command line"))
		return -1;
	return boot_write(b, b->cmdline + plen, line, len + 1, "command line");
}

/* ---- all together ---- */
/*
 * The words of the BIOS data area that kernels look at before they have a memory map: ports of COM1, segment of the
 * EBDA, equipment, KiB of conventional memory (IBM PC AT Technical Reference); and the EBDA's size in KiB.
 */
static int bios_data(struct boot *b)
{
	uint8_t bda[256] = {0}, ebda[1024] = {(0xa0000 - MEMMAP_EBDA) >> 10};

	put16(bda + 0x00, 0x3f8);
	put16(bda + 0x0e, MEMMAP_EBDA >> 4);
	put16(bda + 0x10, 1 << 9);
	put16(bda + 0x13, MEMMAP_EBDA >> 10);
	return boot_write(b, 0x400, bda, sizeof bda, "BIOS data area") ||
	       boot_write(b, MEMMAP_EBDA, ebda, sizeof ebda, "EBDA");
}

static int prepare(struct boot *b)
{
	size_t n;

	if (b->mem->size < RAM_MIN || b->mem->low > b->mem->size)
		return boot_fail(b, "%llu KiB of RAM are too little to boot: 2 MiB are the least",
				 (unsigned long long)(b->mem->size >> 10));
	memmap_build(&b->map, b->mem);
	if (file_size(b, b->cfg->kernel_fd, "kernel", &b->kernel_size))
		return -1;
	for (unsigned i = 0; i < b->cfg->modules; i++) {
		if (file_size(b, b->cfg->module[i].fd, "initrd", &b->module[i].len))
			return -1;
		if (!b->module[i].len)
			return boot_fail(b, "initrd: the file is empty");
	}
	if (!b->kernel_size)
		return boot_fail(b, "kernel: the file is empty");
	n = b->kernel_size < BOOT_HEAD ? (size_t)b->kernel_size : BOOT_HEAD;
	if (boot_read(b, 0, b->head, n, "start of the file"))
		return -1;
	const struct topology by = vm_topology(b->vm);
	if (acpi_build(b->mem, &by, &b->rsdp))
		return boot_fail(b, "ACPI tables for %d CPUs do not fit their area", b->vm->ncpus);
	return bios_data(b);
}

/* The tool that unpacks what the file is compressed with, or NULL. */
static const char *unpacker(const struct boot *b)
{
	static const struct {
		const char *magic;
		size_t len;
		const char *tool;
	} kinds[] = {
		{"\x1f\x8b", 2, "gunzip"},         {"BZh", 3, "bunzip2"},
		{"\xfd\x37zXZ", 5, "unxz"},        {"\x5d\0\0", 3, "unlzma"},
		{"\x28\xb5\x2f\xfd", 4, "unzstd"}, {"\x04\x22\x4d\x18", 4, "unlz4"},
	};

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (!memcmp(b->head, kinds[i].magic, kinds[i].len))
			return kinds[i].tool;
	return NULL;
}

static int load_kernel(struct boot *b)
{
	const char *tool = unpacker(b);
	int ret;

	if (tool)
		return boot_fail(b, "kernel: the file is compressed as a whole; unpack it first: %s <FILE >KERNEL",
				 tool);

	if (bzimage_match(b))
		return bzimage_load(b);
	if (elf_match(b)) {
		ret = elf_pvh_load(b);
		if (ret <= 0)
			return ret;
	}
	if (multiboot_match(b))
		return multiboot_load(b);
	if (elf_match(b))
		return boot_fail(b, "kernel: an ELF file without a PVH entry note or a multiboot header");
	return boot_fail(b, "kernel: neither a bzImage nor an ELF file with a PVH note nor a multiboot image");
}

int boot_load(struct vm *vm, const struct boot_config *cfg, char *err, size_t errlen)
{
	struct boot b = {.vm = vm, .mem = vm->mem, .cfg = cfg, .err = err, .errlen = errlen};

	if (prepare(&b))
		return -1;
	return load_kernel(&b);
}
