/*
 * Loading of a guest kernel into RAM: what the formats share.
 *
 * The loader runs inside a sealed process: it opens nothing, and reads only by
 * lseek and pread from the descriptors it is given.  Kernel files are hostile input.
 */
#ifndef HVX_BOOT_LOAD_H
#define HVX_BOOT_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vcpu/boot/memmap.h"

struct vm;
struct gmem;

#define BOOT_MODULES 8

struct boot_module { /* an initial ramdisk, or a module of a multiboot kernel */
	int fd;
	const char *name, *args; /* for the kernel; args may be empty or NULL */
};

struct boot_config {
	int kernel_fd;
	const char *cmdline;
	unsigned modules;
	struct boot_module module[BOOT_MODULES];
};

/*
 * Loads the kernel (bzImage, ELF with a PVH note, multiboot 1), initrd, command
 * line, ACPI and memory map into the RAM of @vm and sets vcpu 0 to its entry.
 * 0, or -1 with one line in @err that says what is wrong and where.
 * May be called again after a reset.
 */
int boot_load(struct vm *vm, const struct boot_config *cfg, char *err, size_t errlen);

/* ---- for the formats ---- */

/*
 * Where in low memory what we hand to the kernel goes; GDT and page tables only for a bzImage.
 * Parameters, command line and texts give way to a kernel that has a segment there: boot_place().
 */
#define BOOT_GDT         0x00000500u
#define BOOT_PARAMS      0x00007000u /* zero page, hvm_start_info or multiboot info: one page */
#define BOOT_TABLES      0x00009000u /* identity page tables, 6 pages */
#define BOOT_CMDLINE     0x00020000u
#define BOOT_CMDLINE_MAX 4096u
#define BOOT_TEXTS       0x00021000u /* names and arguments of modules */
#define BOOT_TEXT_MAX    1024u       /* of one */
#define BOOT_HEAD        8192u       /* bytes of the file that tell its format */
#define BOOT_CLAIMS      48

struct boot {
	struct vm *vm;
	const struct gmem *mem;
	const struct boot_config *cfg;
	struct memmap map;
	uint8_t head[BOOT_HEAD]; /* start of the kernel file, zero padded */
	uint64_t kernel_size;
	uint64_t rsdp;
	uint64_t params, cmdline; /* where they were put */
	struct {
		uint64_t at, len, text;
	} module[BOOT_MODULES]; /* where they were put, by boot_load_modules() */
	uint64_t initrd,
		initrd_size; /* where all of them were put, one behind the other, by boot_load_initrd(); 0: none */
	struct {
		uint64_t base, len;
		const char *what;
	} claim[BOOT_CLAIMS];
	unsigned claims;
	char *err;
	size_t errlen;
};

/* Records an error; returns -1. */
int boot_fail(struct boot *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Reserves guest memory for @what: fails when it is no usable RAM or overlaps an earlier claim. */
int boot_claim(struct boot *b, uint64_t gpa, uint64_t len, const char *what);
/* Copies @len bytes at @off of the kernel file to @gpa, then zeroes up to @memlen.  The range must be claimed. */
int boot_copy(struct boot *b, uint64_t off, uint64_t gpa, uint64_t len, uint64_t memlen, const char *what);
/* Reads exactly @len bytes of the kernel file. */
int boot_read(struct boot *b, uint64_t off, void *buf, size_t len, const char *what);
int boot_write(struct boot *b, uint64_t gpa, const void *buf, size_t len, const char *what);
int boot_zero(struct boot *b, uint64_t gpa, uint64_t len);
/*
 * Puts the initrds as one as high as possible in RAM with its last byte at most at @max; nothing to do without one.
 * Each begins at a multiple of 4 bytes, with zeros before it, as Linux' reader of archives takes them.
 */
int boot_load_initrd(struct boot *b, uint64_t max);
/* The same with each in a place of its own, on a page boundary; and their texts, "NAME ARGS". */
int boot_load_modules(struct boot *b, uint64_t max);
/* Some module has arguments, which only kernels that are given modules can see. */
bool boot_has_args(const struct boot *b);
/* Reserves @len bytes for @what at @at, or elsewhere below 4 GiB where that is taken; 0 after boot_fail(). */
uint64_t boot_place(struct boot *b, uint64_t at, uint64_t len, const char *what);
/* Puts @prefix and the command line (@limit bytes at most without the NUL) at BOOT_CMDLINE or elsewhere. */
int boot_load_cmdline(struct boot *b, const char *prefix, uint32_t limit);

/* ---- the formats: true when the head looks like it; load returns 0 or -1 ---- */
bool bzimage_match(const struct boot *b);
int bzimage_load(struct boot *b);
bool elf_match(const struct boot *b);
int elf_pvh_load(struct boot *b); /* 1: an ELF file without a PVH note */
bool multiboot_match(const struct boot *b);
int multiboot_load(struct boot *b);

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}
static inline uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}
static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8);
}
static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)v), put16(p + 2, (uint16_t)(v >> 16));
}
static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v), put32(p + 4, (uint32_t)(v >> 32));
}

#endif
