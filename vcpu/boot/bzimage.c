/*
 * bzImages: Linux, and what comes in its format, by the 64-bit entry or else the 32-bit one
 * (Documentation/arch/x86/boot.rst).  The 16-bit setup code never runs: a kernel that needs it is refused.
 *
 * Invariant: the kernel gets [load, load + init_size) for itself; nothing else
 * that we put into memory lies in it.
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/boot/load.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/vcpu.h"

enum { /* offsets in the file's first sectors and in the zero page */
       ZP_EXT_MEM_K = 0x002,
       ZP_RSDP = 0x070,
       ZP_EXT_RAMDISK = 0x0c0,
       ZP_EXT_RAMDISK_SIZE = 0x0c4,
       ZP_EXT_CMDLINE = 0x0c8,
       ZP_ALT_MEM_K = 0x1e0,
       ZP_E820_COUNT = 0x1e8,
       H_SETUP_SECTS = 0x1f1,
       H_SYSSIZE = 0x1f4,
       H_VID_MODE = 0x1fa,
       H_BOOT_FLAG = 0x1fe,
       H_JUMP = 0x201,
       H_MAGIC = 0x202,
       H_VERSION = 0x206,
       H_LOADER = 0x210,
       H_LOADFLAGS = 0x211,
       H_CODE32_START = 0x214,
       H_RAMDISK = 0x218,
       H_RAMDISK_SIZE = 0x21c,
       H_CMDLINE = 0x228,
       H_INITRD_MAX = 0x22c,
       H_ALIGN = 0x230,
       H_RELOCATABLE = 0x234,
       H_XLOADFLAGS = 0x236,
       H_CMDLINE_SIZE = 0x238,
       H_SETUP_DATA = 0x250,
       H_PREF_ADDRESS = 0x258,
       H_INIT_SIZE = 0x260,
       H_END = 0x290,
       ZP_E820 = 0x2d0
};

#define MIB         0x100000ull
#define LOADED_HIGH 0x01
#define XLF_64      0x01
#define ENTRY_64    0x200
#define VERSION_MIN 0x203 /* the first that says how high an initrd may lie */
#define UNPACKED    5     /* times its size is what a kernel may need that does not say (before 2.10) */
#define CMDLINE_OLD 255   /* before 2.06 */

struct bzimage {
	uint64_t setup_len, payload; /* the file: real-mode part, then the kernel */
	uint64_t load, init_size;
	unsigned version; /* of the boot protocol: says which fields of the header exist */
	bool relocatable, entry64;
};

bool bzimage_match(const struct boot *b)
{
	return get16(b->head + H_BOOT_FLAG) == 0xaa55 && !memcmp(b->head + H_MAGIC, "HdrS", 4);
}

/* What the header says, with what the protocol says of versions that lack a field. */
static void read_header(const struct boot *b, struct bzimage *z)
{
	const uint8_t *h = b->head;

	z->version = get16(h + H_VERSION);
	z->relocatable = z->version >= 0x205 && h[H_RELOCATABLE];
	z->entry64 = z->version >= 0x20c && get16(h + H_XLOADFLAGS) & XLF_64;
	z->load = z->version >= 0x20a ? get64(h + H_PREF_ADDRESS) : MIB;
}

static int check_protocol(struct boot *b, const struct bzimage *z)
{
	const uint8_t *h = b->head;

	if (b->kernel_size < H_END)
		return boot_fail(b, "bzImage is truncated: %llu bytes end inside the setup header",
				 (unsigned long long)b->kernel_size);
	if (z->version < VERSION_MIN)
		return boot_fail(b, "bzImage: boot protocol %u.%02u, 2.03 is needed", z->version >> 8,
				 z->version & 0xff);
	if (!(h[H_LOADFLAGS] & LOADED_HIGH))
		return boot_fail(b, "bzImage: a zImage (loaded low) can not be started");
	if (!z->entry64 && !get32(h + H_CODE32_START))
		return boot_fail(
			b, "bzImage: no 32-bit entry point: it starts in 16-bit code, which is not supported yet");
	return 0;
}

static int check_sizes(struct boot *b, struct bzimage *z)
{
	unsigned sects = b->head[H_SETUP_SECTS] ? b->head[H_SETUP_SECTS] : 4;
	uint64_t syssize = (uint64_t)get32(b->head + H_SYSSIZE) * 16;

	z->setup_len = (sects + 1) * 512ull;
	if (z->setup_len >= b->kernel_size)
		return boot_fail(b, "bzImage is truncated: %u setup sectors, but the file has %llu bytes", sects,
				 (unsigned long long)b->kernel_size);
	z->payload = b->kernel_size - z->setup_len;
	if (!syssize || syssize > z->payload + 15)
		return boot_fail(b, "bzImage is truncated: header says %llu bytes of kernel, the file has %llu",
				 (unsigned long long)syssize, (unsigned long long)z->payload);
	if (syssize < z->payload)
		z->payload = syssize; /* a signature follows */
	z->init_size = z->version >= 0x20a ? get32(b->head + H_INIT_SIZE) : z->payload * UNPACKED;
	if (z->init_size < z->payload)
		return boot_fail(b, "bzImage: init_size %#llx is less than the kernel itself (%#llx)",
				 (unsigned long long)z->init_size, (unsigned long long)z->payload);
	return 0;
}

/* Tenths of a MiB, rounded up. */
static unsigned long long tenths(uint64_t bytes)
{
	return bytes / MIB * 10 + (bytes % MIB * 10 + MIB - 1) / MIB;
}

static int too_little(struct boot *b, const struct bzimage *z)
{
	unsigned long long need = tenths(z->load + z->init_size), at = tenths(z->load), own = tenths(z->init_size);

	return boot_fail(
		b,
		"bzImage needs %llu.%llu MiB of RAM (%llu.%llu MiB for itself, from %llu.%llu MiB on), the guest has %llu MiB",
		need / 10, need % 10, own / 10, own % 10, at / 10, at % 10, (unsigned long long)(b->mem->size >> 20));
}

/*
 * Where the kernel will work.  Loaded below its preferred address it moves itself up to it, relocatable or not
 * (LOAD_PHYSICAL_ADDR in arch/x86/boot/compressed/head_64.S): a lower address would only hide that it does not fit.
 */
static int place(struct boot *b, struct bzimage *z)
{
	uint64_t align = get32(b->head + H_ALIGN);

	if (z->version < 0x20a && z->relocatable && align && !(align & (align - 1)))
		z->load = (MIB + align - 1) & ~(align - 1); /* it does not say where it prefers to be */
	if (z->relocatable && (!align || (align & (align - 1))))
		return boot_fail(b, "bzImage: kernel_alignment %#llx is not a power of two", (unsigned long long)align);
	if (z->relocatable && (z->load & (align - 1)))
		return boot_fail(b, "bzImage: preferred address %#llx is not aligned to %#llx",
				 (unsigned long long)z->load, (unsigned long long)align);
	if (z->load < MIB || z->load >> 32)
		return boot_fail(b, "bzImage: load address %#llx is not between 1 MiB and 4 GiB",
				 (unsigned long long)z->load);
	if (!memmap_usable(&b->map, z->load, z->init_size))
		return too_little(b, z);
	return boot_claim(b, z->load, z->init_size, "kernel");
}

static void fill_e820(const struct boot *b, uint8_t *zp)
{
	for (unsigned i = 0; i < b->map.n; i++) {
		uint8_t *e = zp + ZP_E820 + 20 * i;

		put64(e, b->map.e[i].base);
		put64(e + 8, b->map.e[i].len);
		put32(e + 16, b->map.e[i].type);
	}
	zp[ZP_E820_COUNT] = (uint8_t)b->map.n;
}

static int zero_page(struct boot *b)
{
	unsigned end = H_MAGIC + b->head[H_JUMP]; /* end of the setup header, by its jump instruction */
	uint64_t ext = (b->mem->low - 0x100000) >> 10;
	uint8_t zp[4096] = {0};

	if (end > H_END)
		end = H_END;
	memcpy(zp + H_SETUP_SECTS, b->head + H_SETUP_SECTS, end - H_SETUP_SECTS);
	zp[H_LOADER] = 0xff; /* no number assigned */
	zp[H_LOADFLAGS] = LOADED_HIGH;
	put16(zp + H_VID_MODE, 0xffff);
	put32(zp + H_RAMDISK, (uint32_t)b->initrd);
	put32(zp + H_RAMDISK_SIZE, (uint32_t)b->initrd_size);
	put32(zp + ZP_EXT_RAMDISK, (uint32_t)(b->initrd >> 32));
	put32(zp + ZP_EXT_RAMDISK_SIZE, (uint32_t)(b->initrd_size >> 32));
	put32(zp + H_CMDLINE, (uint32_t)b->cmdline);
	put64(zp + H_SETUP_DATA, 0);
	put64(zp + ZP_RSDP, b->rsdp);
	put16(zp + ZP_EXT_MEM_K, ext > 0xfc00 ? 0xfc00 : (uint16_t)ext);
	put32(zp + ZP_ALT_MEM_K, (uint32_t)ext);
	fill_e820(b, zp);
	return boot_write(b, BOOT_PARAMS, zp, sizeof(zp), "boot parameters");
}

/* The first 4 GiB mapped one to one in 2 MiB pages: a PML4, a PDPT, four page directories. */
static int identity_tables(struct boot *b)
{
	uint8_t page[4096] = {0};
	uint64_t pdpt = BOOT_TABLES + 0x1000, pd = BOOT_TABLES + 0x2000;

	put64(page, pdpt | 3);
	if (boot_write(b, BOOT_TABLES, page, sizeof(page), "page tables"))
		return -1;
	for (unsigned i = 0; i < 4; i++)
		put64(page + 8 * i, (pd + 0x1000 * i) | 3);
	if (boot_write(b, pdpt, page, sizeof(page), "page tables"))
		return -1;
	for (uint64_t i = 0; i < 4; i++) {
		for (uint64_t j = 0; j < 512; j++)
			put64(page + 8 * j, (i << 30 | j << 21) | 0x83);
		if (boot_write(b, pd + 0x1000 * i, page, sizeof(page), "page tables"))
			return -1;
	}
	return 0;
}

/* Flat descriptors at 0x10 (code, of the mode the kernel is entered in) and 0x18 (data); the tables of that mode. */
static int tables(struct boot *b, const struct bzimage *z)
{
	uint8_t g[32] = {0};

	put64(g + 0x10, z->entry64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull);
	put64(g + 0x18, 0x00cf93000000ffffull);
	if (z->entry64 && (boot_claim(b, BOOT_TABLES, 0x6000, "page tables") || identity_tables(b)))
		return -1;
	return boot_claim(b, BOOT_GDT, 0x100, "GDT") || boot_write(b, BOOT_GDT, g, sizeof(g), "GDT");
}

static void enter(struct vcpu *v, const struct bzimage *z)
{
	if (z->entry64)
		cpu_set_long_flat(v, BOOT_TABLES, z->load + ENTRY_64, BOOT_PARAMS);
	else
		cpu_set_linux32(v, (uint32_t)z->load, BOOT_PARAMS);
	v->gdtr.base = BOOT_GDT;
	v->gdtr.limit = 31;
}

int bzimage_load(struct boot *b)
{
	struct bzimage z = {0};

	read_header(b, &z);
	if (check_protocol(b, &z) || check_sizes(b, &z) || place(b, &z) ||
	    boot_claim(b, BOOT_PARAMS, 0x1000, "boot parameters") || tables(b, &z))
		return -1;
	if (boot_load_cmdline(b, "", z.version >= 0x206 ? get32(b->head + H_CMDLINE_SIZE) : CMDLINE_OLD))
		return -1;
	if (boot_load_initrd(b, get32(b->head + H_INITRD_MAX)) ||
	    boot_copy(b, z.setup_len, z.load, z.payload, z.payload, "kernel") || zero_page(b))
		return -1;
	enter(b->vm->vcpu[0], &z);
	return 0;
}
