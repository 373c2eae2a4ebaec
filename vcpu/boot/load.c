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

int boot_load_initrd(struct boot *b, uint64_t max)
{
	uint64_t low = b->mem->low, end = max < low ? max + 1 : low, at;

	if (b->cfg->initrd_fd < 0)
		return 0;
	if (!b->initrd_size)
		return boot_fail(b, "initrd: the file is empty");
	at = hole_below(b, 0x100000, end, b->initrd_size);
	if (!at)
		return boot_fail(b, "initrd (%llu bytes) does not fit beside the kernel in %llu MiB of RAM",
				 (unsigned long long)b->initrd_size, (unsigned long long)(b->mem->size >> 20));
	b->initrd = at;
	if (boot_claim(b, at, b->initrd_size, "initrd"))
		return -1;
	return copy_file(b, b->cfg->initrd_fd, 0, at, b->initrd_size, "initrd");
}

int boot_load_cmdline(struct boot *b, const char *prefix, uint32_t limit)
{
	const char *line = b->cfg->cmdline ? b->cfg->cmdline : "";
	size_t plen = strlen(prefix), len = strlen(line);
	uint32_t max = limit < BOOT_CMDLINE_MAX - 1 ? limit : BOOT_CMDLINE_MAX - 1;

	if (len > max || plen > max - len)
		return boot_fail(b, "command line: %zu bytes, this kernel takes %u", plen + len, max);
	if (boot_claim(b, BOOT_CMDLINE, BOOT_CMDLINE_MAX, "command line") ||
	    boot_write(b, BOOT_CMDLINE, prefix, plen, "command line"))
		return -1;
	return boot_write(b, BOOT_CMDLINE + plen, line, len + 1, "command line");
}

/* ---- all together ---- */
static int prepare(struct boot *b)
{
	size_t n;

	if (b->mem->size < RAM_MIN || b->mem->low > b->mem->size)
		return boot_fail(b, "%llu KiB of RAM are too little to boot: 2 MiB are the least",
				 (unsigned long long)(b->mem->size >> 10));
	memmap_build(&b->map, b->mem);
	if (file_size(b, b->cfg->kernel_fd, "kernel", &b->kernel_size))
		return -1;
	if (b->cfg->initrd_fd >= 0 && file_size(b, b->cfg->initrd_fd, "initrd", &b->initrd_size))
		return -1;
	if (!b->kernel_size)
		return boot_fail(b, "kernel: the file is empty");
	n = b->kernel_size < BOOT_HEAD ? (size_t)b->kernel_size : BOOT_HEAD;
	if (boot_read(b, 0, b->head, n, "start of the file"))
		return -1;
	if (acpi_build(b->mem, b->vm->ncpus, &b->rsdp))
		return boot_fail(b, "ACPI tables for %d CPUs do not fit their area", b->vm->ncpus);
	return boot_claim(b, BOOT_GDT, 0x100, "GDT") || boot_claim(b, BOOT_PARAMS, 0x1000, "boot parameters") ||
	       boot_claim(b, BOOT_TABLES, 0x6000, "page tables");
}

static int load_kernel(struct boot *b)
{
	int ret;

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
