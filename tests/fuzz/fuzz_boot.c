/*
 * Fuzz target: the kernel loader.  Bytes 0 to 3 choose the RAM, the initrd, the command line; the rest is the kernel file.
 * No processor is linked: in its place the entry state is recorded.
 *
 * Properties: success sets an entry and leaves the command line where it belongs; a refusal says why in one line; nothing
 * is written beyond RAM, which has forbidden pages on both sides.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/gmem.h"
#include "tests/fuzz/fuzz.h"
#include "vcpu/boot/load.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/vcpu.h"

#define MIB     (1ull << 20)
#define RAM_MAX (8 * MIB)
#define GUARD   (1 * MIB)
#define HEAD    4u

static unsigned entries;
static uint64_t cmdline_at; /* from what the kernel was handed */
static struct gmem mem;
static struct vm vm;
static int kernel_fd = -1, initrd_fd;

void cpu_set_long_flat(struct vcpu *v, uint64_t cr3, uint64_t rip, uint64_t rsi)
{
	FUZZ_CHECK(cr3 == BOOT_TABLES && rsi == BOOT_PARAMS && rip >= 0x100000);
	cmdline_at = BOOT_CMDLINE;
	entries++;
}

void cpu_set_linux32(struct vcpu *v, uint32_t eip, uint32_t esi)
{
	FUZZ_CHECK(esi == BOOT_PARAMS && eip >= 0x100000);
	cmdline_at = BOOT_CMDLINE;
	entries++;
}

void cpu_set_prot_flat(struct vcpu *v, uint32_t eip, uint32_t eax, uint32_t ebx)
{
	FUZZ_CHECK(ebx >= 4096 && gmem_ptr(&mem, ebx, 4096, GMEM_READ));
	cmdline_at = get32((const uint8_t *)gmem_ptr(&mem, ebx, 4096, GMEM_READ) +
			   (eax ? 16 : 24)); /* multiboot, else PVH */
	entries++;
}

/* Once: RAM between forbidden pages, the files, a machine. */
static void init(void)
{
	uint8_t *p = mmap(NULL, RAM_MAX + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	void *v;

	FUZZ_CHECK(p != MAP_FAILED && !posix_memalign(&v, 4096, (sizeof(struct vcpu) + 4095) & ~4095ul));
	mem.ram = p + GUARD;
	memset(v, 0, sizeof(struct vcpu));
	vm = (struct vm){.mem = &mem, .ncpus = 1, .vcpu = {v}};
	kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	initrd_fd = memfd_create("initrd", MFD_CLOEXEC);
	FUZZ_CHECK(kernel_fd >= 0 && initrd_fd >= 0);
}

/* RAM of 4 KiB to 8 MiB that ends at a forbidden page, some of it above 4 GiB. */
static void make_ram(uint8_t how)
{
	static const uint64_t size[] = {8 * MIB, 4 * MIB, 6 * MIB, 2 * MIB, 2 * MIB + 4096, MIB, 4096, 5 * MIB + 8192};
	uint8_t *base = mem.ram;

	if (mem.size)
		base = mem.ram + mem.size - RAM_MAX;
	FUZZ_CHECK(!mprotect(base, RAM_MAX, PROT_NONE));
	FUZZ_CHECK(!madvise(base, RAM_MAX, MADV_DONTNEED));
	mem.size = size[how & 7];
	mem.low = how & 8 && mem.size >= 4 * MIB ? mem.size - 2 * MIB : mem.size;
	mem.ram = base + RAM_MAX - mem.size;
	FUZZ_CHECK(!mprotect(mem.ram, mem.size, PROT_READ | PROT_WRITE));
}

static void put_file(int fd, const uint8_t *data, size_t len)
{
	FUZZ_CHECK(!ftruncate(fd, 0) && pwrite(fd, data, len, 0) == (ssize_t)len);
}

static void check_loaded(const char *cmdline)
{
	const char *at = gmem_ptr(&mem, cmdline_at, BOOT_CMDLINE_MAX, GMEM_READ);
	size_t n = strlen(cmdline), there;

	FUZZ_CHECK(entries == 1 && at);
	there = strnlen(at, BOOT_CMDLINE_MAX);
	FUZZ_CHECK(there < BOOT_CMDLINE_MAX && there >= n && !strcmp(at + there - n, cmdline));
}

static void check_refused(const char *err, size_t room)
{
	FUZZ_CHECK(!entries && err[0] && memchr(err, 0, room));
	for (; *err; err++)
		FUZZ_CHECK((unsigned char)*err >= ' ' && *err != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint32_t initrd_len[] = {0, 1, 4096, 100000, MIB, 4 * MIB, 16 * MIB, 4097};
	static char cmdline[256 * 20];
	struct boot_config cfg = {.cmdline = cmdline};
	char err[200] = "";
	int rc;

	if (len < HEAD)
		return 0;
	if (kernel_fd < 0)
		init();
	make_ram(data[0]);
	put_file(kernel_fd, data + HEAD, len - HEAD);
	cfg.kernel_fd = kernel_fd;
	cfg.modules = data[1] & 8 ? 0 : 1 + (data[1] >> 4 & 7);
	for (unsigned i = 0; i < cfg.modules; i++)
		cfg.module[i] = (struct boot_module){initrd_fd, "initrd", data[1] & 128 ? "some arguments" : ""};
	FUZZ_CHECK(!ftruncate(initrd_fd, 0) && !ftruncate(initrd_fd, initrd_len[data[1] & 7]));
	memset(cmdline, 'x', data[2] * 20u);
	cmdline[data[2] * 20u] = 0;
	entries = 0;
	rc = boot_load(&vm, &cfg, err, sizeof err);
	FUZZ_CHECK(rc == 0 || rc == -1);
	if (rc)
		check_refused(err, sizeof err);
	else
		check_loaded(cmdline);
	return 0;
}

/* ---- seeds: a small kernel of each format ---- */
static size_t seed_bzimage(uint8_t *f, uint64_t pref, uint32_t init_size)
{
	f[0x1f1] = 4; /* setup sectors: the kernel begins at 2560 */
	put32(f + 0x1f4, 0x1000 / 16);
	put16(f + 0x1fe, 0xaa55);
	f[0x201] = 0x6a;
	memcpy(f + 0x202, "HdrS", 4);
	put16(f + 0x206, 0x20f);
	f[0x211] = 1;
	put32(f + 0x214, 0x100000);
	put32(f + 0x22c, 0x7fffffff);
	put32(f + 0x230, 0x200000);
	f[0x234] = 1;
	put16(f + 0x236, 0x3f);
	put32(f + 0x238, 2047);
	put64(f + 0x258, pref);
	put32(f + 0x260, init_size);
	memset(f + 2560, 0xcc, 0x1000);
	return 2560 + 0x1000;
}

static void ident(uint8_t *f, bool is64, unsigned segments)
{
	memcpy(f, "\177ELF", 4);
	f[4] = is64 ? 2 : 1;
	f[5] = f[6] = 1;
	put16(f + 16, 2);
	put16(f + 18, is64 ? 62 : 3);
	put32(f + 20, 1);
	if (is64) {
		put64(f + 24, 0x100000), put64(f + 32, 64);
		put16(f + 54, 56), put16(f + 56, (uint16_t)segments);
	} else {
		put32(f + 24, 0x100000), put32(f + 28, 52);
		put16(f + 42, 32), put16(f + 44, (uint16_t)segments);
	}
}

static void segment(uint8_t *f, bool is64, unsigned i, uint32_t type, uint32_t off, uint64_t at, uint32_t filesz,
		    uint32_t memsz)
{
	uint8_t *p = f + (is64 ? 64 + 56 * i : 52 + 32 * i);

	put32(p, type);
	if (is64) {
		put32(p + 4, 7), put64(p + 8, off), put64(p + 16, at), put64(p + 24, at);
		put64(p + 32, filesz), put64(p + 40, memsz), put64(p + 48, 4096);
	} else {
		put32(p + 4, off), put32(p + 8, (uint32_t)at), put32(p + 12, (uint32_t)at);
		put32(p + 16, filesz), put32(p + 20, memsz), put32(p + 24, 7), put32(p + 28, 4096);
	}
}

static size_t seed_pvh(uint8_t *f, bool is64)
{
	ident(f, is64, 3);
	segment(f, is64, 0, 1, 0x400, 0x100000, 0x200, 0x3000);
	segment(f, is64, 1, 4, 0x300, 0, 0x34, 0x34);
	segment(f, is64, 2, 1, 0x600, 0x108000, 0x100, 0x100);
	put32(f + 0x300, 4), put32(f + 0x304, 4), put32(f + 0x308, 1), memcpy(f + 0x30c, "GNU", 4);
	put32(f + 0x314, 4), put32(f + 0x318, is64 ? 8 : 4), put32(f + 0x31c, 18), memcpy(f + 0x320, "Xen", 4);
	put32(f + 0x324, 0x100010);
	memset(f + 0x400, 0xf4, 0x300);
	return 0x700;
}

static size_t seed_multiboot(uint8_t *f, bool elf)
{
	uint32_t flags = elf ? 3 : 0x10003;

	if (elf) {
		ident(f, false, 1);
		segment(f, false, 0, 1, 0x200, 0x100000, 0x100, 0x1000);
	}
	put32(f + 0x100, 0x1badb002), put32(f + 0x104, flags), put32(f + 0x108, -(0x1badb002 + flags));
	put32(f + 0x10c, 0x100100), put32(f + 0x110, 0x100000), put32(f + 0x114, 0x100200);
	put32(f + 0x118, 0x102000), put32(f + 0x11c, 0x100120);
	return 0x300;
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	uint8_t *f = buf + HEAD;
	size_t n;

	buf[0] = (uint8_t)(i * 5), buf[1] = i % 3 ? 3 : 8, buf[2] = 2;
	switch (i) {
	case 0: n = seed_bzimage(f, 0x1000000, 0x100000); break;
	case 1: n = seed_bzimage(f, 0x200000, 0x80000), buf[0] = 0; break;
	case 2: n = seed_pvh(f, true), buf[0] = 8; break;
	case 3: n = seed_pvh(f, false); break;
	case 4: n = seed_multiboot(f, true), buf[0] = 1; break;
	case 5: n = seed_multiboot(f, false), buf[0] = 2; break;
	case 6: n = seed_bzimage(f, 0x200000, 0x80000), buf[0] = 0, f[0x236] = 0; break; /* 32-bit */
	case 7: n = seed_bzimage(f, 0, 0), buf[0] = 0, put16(f + 0x206, 0x203); break;   /* old */
	default: return 0;
	}
	return HEAD + n;
}
