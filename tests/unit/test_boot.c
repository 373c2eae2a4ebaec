/* boot: made-up kernels of each format, and everything that can be wrong with them. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/gmem.h"
#include "tests/unit/chipfakes.h"
#include "vcpu/boot/load.h"

#define MIB (1ull << 20)

static struct gmem mem;
static struct vm vm;
static struct vcpu *v;
static int kernel, initrd, second; /* the latter two: -1: none */
static uint8_t file[65536];
static size_t file_len;
static char err[256];
static const char *cmdline, *args; /* args: of the first module */

static void setup(uint64_t ram)
{
	mem = (struct gmem){.size = ram, .low = ram < GMEM_LOW_MAX ? ram : GMEM_LOW_MAX};
	mem.ram = mmap(NULL, ram, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CU_ASSERT_PTR_NOT_EQUAL_FATAL(mem.ram, MAP_FAILED);
	v = fake_vcpu(0);
	vm = (struct vm){.mem = &mem, .ncpus = 1, .vcpu = {v}};
	v->vm = &vm;
	kernel = memfd_create("kernel", 0);
	initrd = second = -1;
	args = NULL;
	cmdline = "console=ttyS0";
	memset(file, 0, sizeof(file));
}

static void teardown(void)
{
	munmap(mem.ram, mem.size);
	free(v);
	close(kernel);
	if (initrd >= 0)
		close(initrd);
	if (second >= 0)
		close(second);
}

static int load(void)
{
	struct boot_config cfg = {.kernel_fd = kernel, .cmdline = cmdline};

	if (initrd >= 0)
		cfg.module[cfg.modules++] = (struct boot_module){initrd, "initrd.img", args};
	if (second >= 0)
		cfg.module[cfg.modules++] = (struct boot_module){second, "more.img", ""};

	err[0] = 0;
	CU_ASSERT_EQUAL_FATAL(ftruncate(kernel, 0), 0);
	CU_ASSERT_EQUAL_FATAL(pwrite(kernel, file, file_len, 0), (ssize_t)file_len);
	return boot_load(&vm, &cfg, err, sizeof(err));
}

/* Loading must fail, with a message that has @part in it. */
static void fails(const char *part)
{
	int ret = load();

	CU_ASSERT_EQUAL(ret, -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, part));
	if (ret != -1 || !strstr(err, part))
		printf("\n    got %d \"%s\", wanted \"%s\"\n", ret, err, part);
}

static void give_second(const char *text)
{
	second = memfd_create("second", 0);
	CU_ASSERT_EQUAL_FATAL(write(second, text, strlen(text)), (ssize_t)strlen(text));
}

static void give_initrd(size_t len)
{
	initrd = memfd_create("initrd", 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(initrd, (off_t)len), 0);
	if (len)
		CU_ASSERT_EQUAL(pwrite(initrd, "IRD!", 4, 0), 4);
}

/* ---- bzImage ---- */
static void make_bzimage(void)
{
	file[0x1f1] = 4; /* setup sectors: the kernel begins at 2560 */
	put32(file + 0x1f4, 0x1000 / 16);
	put16(file + 0x1fe, 0xaa55);
	file[0x201] = 0x6a;
	memcpy(file + 0x202, "HdrS", 4);
	put16(file + 0x206, 0x20f);
	file[0x211] = 1;
	put32(file + 0x214, 0x100000);
	put32(file + 0x22c, 0x7fffffff);
	put32(file + 0x230, 0x200000);
	file[0x234] = 1;
	put16(file + 0x236, 0x3f);
	put32(file + 0x238, 2047);
	put64(file + 0x258, 0x1000000);
	put32(file + 0x260, 0x800000);
	memset(file + 2560, 0xcc, 0x1000);
	file_len = 2560 + 0x1000;
}

static void test_bzimage(void)
{
	const uint8_t *zp;
	uint64_t at;

	setup(64 * MIB);
	make_bzimage();
	give_initrd(100000);
	CU_ASSERT_EQUAL(load(), 0);
	zp = mem.ram + v->regs[6];
	CU_ASSERT_EQUAL(v->rip, 0x1000200);
	CU_ASSERT_EQUAL(mem.ram[0x1000000], 0xcc);
	CU_ASSERT_EQUAL(mem.ram[0x1000fff], 0xcc);
	CU_ASSERT_EQUAL(mem.ram[0x1001000], 0);
	CU_ASSERT_NSTRING_EQUAL(zp + 0x202, "HdrS", 4);
	CU_ASSERT_EQUAL(zp[0x1ef], 0); /* sentinel */
	CU_ASSERT_EQUAL(zp[0x210], 0xff);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(zp + 0x228), "console=ttyS0");
	CU_ASSERT_EQUAL(get32(zp + 0x21c), 100000);
	at = get32(zp + 0x218);
	CU_ASSERT_EQUAL(at & 4095, 0);
	CU_ASSERT_NSTRING_EQUAL(mem.ram + at, "IRD!", 4);
	CU_ASSERT(at + 100000 <= 64 * MIB && at >= 0x1800000);
	CU_ASSERT_EQUAL(get64(zp + 0x70), 0xe0000);
	CU_ASSERT_NSTRING_EQUAL(mem.ram + 0xe0000, "RSD PTR ", 8);
	CU_ASSERT_EQUAL(zp[0x1e8], 5);
	CU_ASSERT_EQUAL(get64(zp + 0x2d0), 0);
	CU_ASSERT_EQUAL(get64(zp + 0x2d0 + 8), 0x9fc00);
	CU_ASSERT_EQUAL(get32(zp + 0x2d0 + 16), 1);
	/* the tables at cr3 map 4 GiB one to one */
	CU_ASSERT_EQUAL(get64(mem.ram + v->cr3) & 0xfff, 3);
	at = get64(mem.ram + (get64(mem.ram + v->cr3) & ~0xfffull) + 24) & ~0xfffull;
	CU_ASSERT_EQUAL(get64(mem.ram + at + 8 * 511), 0xffe00083);
	CU_ASSERT_EQUAL(v->gdtr.limit, 31);
	CU_ASSERT_EQUAL(get64(mem.ram + v->gdtr.base + 0x10), 0x00af9b000000ffffull);
	teardown();
}

/* The kernel moves itself up to its preferred address, wherever it is loaded: without that much RAM it is refused. */
static void test_bzimage_small_ram(void)
{
	setup(24 * MIB);
	make_bzimage();
	give_initrd(15 * MIB);
	CU_ASSERT_EQUAL(load(), 0); /* the last byte of the work area is the last of RAM */
	CU_ASSERT_EQUAL(v->rip, 0x1000200);
	CU_ASSERT_EQUAL(get32(mem.ram + v->regs[6] + 0x218), 0x100000); /* the initrd beside it, not in it */
	put32(file + 0x260, 0x800001);
	fails("needs 24.1 MiB of RAM (8.1 MiB for itself, from 16.0 MiB on), the guest has 24 MiB");
	file[0x234] = 0;
	fails("needs 24.1 MiB");
	file[0x234] = 1;
	put32(file + 0x260, 54 << 20);
	fails("needs 70.0 MiB");
	put32(file + 0x260, 0x800000);
	put32(file + 0x230, 3);
	fails("power of two");
	put32(file + 0x230, 0x2000000);
	fails("not aligned");
	teardown();
	setup(12 * MIB);
	make_bzimage();
	fails("needs 24.0 MiB"); /* it would fit at 2 MiB */
	put64(file + 0x258, 0x100000);
	put32(file + 0x230, 0x100000);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x100200);
	teardown();
}

static void test_bzimage_bad(void)
{
	setup(64 * MIB);
	make_bzimage();
	put16(file + 0x206, 0x202);
	fails("protocol 2.02, 2.03 is needed");
	put16(file + 0x206, 0x20f);
	file[0x211] = 0;
	fails("zImage");
	file[0x211] = 1;
	put16(file + 0x236, 0);
	put32(file + 0x214, 0); /* as iPXE's */
	fails("starts in 16-bit code, which is not supported yet");
	put16(file + 0x236, 1);
	put32(file + 0x260, 0);
	fails("init_size");
	put32(file + 0x260, 0x800000);
	put32(file + 0x1f4, 0x1000);
	fails("truncated");
	put32(file + 0x1f4, 0xffffffff);
	fails("truncated");
	put32(file + 0x1f4, 0);
	fails("truncated");
	put32(file + 0x1f4, 0x100);
	file_len = 2560;
	fails("truncated");
	file_len = 0x210;
	fails("truncated");
	file_len = 0x203;
	fails("neither");
	file_len = 2560 + 0x1000;
	file[0x234] = 0;
	put64(file + 0x258, UINT64_MAX - 0x1000);
	fails("not between 1 MiB and 4 GiB");
	put64(file + 0x258, 0xfffff000);
	fails("needs 4104.0 MiB");
	put64(file + 0x258, 0x6000); /* on top of what we hand it */
	put32(file + 0x260, 0x2000);
	fails("not between 1 MiB");
	teardown();
}

/* The 32-bit entry, of 32-bit kernels and of those too old to tell. */
static void test_bzimage_32(void)
{
	setup(64 * MIB);
	make_bzimage();
	give_initrd(100000);
	put16(file + 0x236, 4);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x1000000);
	CU_ASSERT_EQUAL(v->regs[6], 0x7000);
	CU_ASSERT_EQUAL(get64(mem.ram + v->gdtr.base + 0x10), 0x00cf9b000000ffffull);
	CU_ASSERT_EQUAL(get64(mem.ram + 0x9000), 0); /* no page tables */
	/* 2.11 cannot say that it has a 64-bit entry */
	put16(file + 0x236, 1);
	put16(file + 0x206, 0x20b);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x1000000);
	/* 2.09 says neither where it wants to be nor how much it needs; 2.04 not how long its command line may be */
	put16(file + 0x206, 0x209);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x200000);
	put16(file + 0x206, 0x204);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x100000);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(mem.ram + 0x7228), "console=ttyS0");
	teardown();
}

static void test_command_line(void)
{
	static char line[8192];

	setup(64 * MIB);
	make_bzimage();
	memset(line, 'a', sizeof(line) - 1);
	cmdline = line;
	fails("command line");
	line[2048] = 0;
	fails("command line");
	line[2047] = 0;
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(mem.ram[0x20000 + 2046], 'a');
	CU_ASSERT_EQUAL(mem.ram[0x20000 + 2047], 0);
	cmdline = NULL;
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(mem.ram[0x20000], 0);
	teardown();
}

static void test_initrd(void)
{
	setup(64 * MIB);
	make_bzimage();
	give_initrd(60 * MIB);
	fails("initrd (62914560 bytes) does not fit");
	close(initrd);
	give_initrd(0);
	fails("initrd: the file is empty");
	close(initrd);
	give_initrd(15 * MIB);
	put32(file + 0x22c, 0x0fffffff);
	CU_ASSERT_EQUAL(load(), 0);
	put32(file + 0x22c, 0xffffff); /* only below 16 MiB: 15 MiB fit exactly */
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_NSTRING_EQUAL(mem.ram + 0x100000, "IRD!", 4);
	put32(file + 0x22c, 0xfffffe);
	fails("does not fit");
	close(initrd);
	initrd = open("/dev/null", 0);
	fails("initrd");
	teardown();
}

/* Several are one for Linux, each on a boundary of four bytes, whatever memory held before. */
static void test_initrds(void)
{
	const uint8_t *zp, *at;

	setup(64 * MIB);
	make_bzimage();
	memset(mem.ram + 32 * MIB, 0xee, 32 * MIB);
	give_initrd(4097);
	give_second("next");
	CU_ASSERT_EQUAL(load(), 0);
	zp = mem.ram + v->regs[6];
	at = mem.ram + get32(zp + 0x218);
	CU_ASSERT_EQUAL(get32(zp + 0x21c), 4100 + 4);
	CU_ASSERT_NSTRING_EQUAL(at, "IRD!", 4);
	CU_ASSERT_EQUAL(at[4096] | at[4097] | at[4098] | at[4099], 0);
	CU_ASSERT_NSTRING_EQUAL(at + 4100, "next", 4);
	args = "quiet";
	fails("arguments are for multiboot modules");
	teardown();
}

static void test_memory_sizes(void)
{
	setup(1 * MIB);
	make_bzimage();
	fails("too little");
	teardown();
	setup(8ull << 30); /* not touched, so it costs nothing */
	make_bzimage();
	give_initrd(4096);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(mem.ram[v->regs[6] + 0x1e8], 6);
	CU_ASSERT_EQUAL(get64(mem.ram + v->regs[6] + 0x2d0 + 20 * 5), GMEM_HIGH_BASE);
	CU_ASSERT_EQUAL(get64(mem.ram + v->regs[6] + 0x2d0 + 20 * 5 + 8), (8ull << 30) - GMEM_LOW_MAX);
	CU_ASSERT(get32(mem.ram + v->regs[6] + 0x218) < 0x80000000u);
	teardown();
}

/* ---- ELF ---- */
static uint8_t *phdr(unsigned i)
{
	return file + 64 + 56 * i;
}

static void put_segment(unsigned i, uint32_t type, uint64_t off, uint64_t paddr, uint64_t filesz, uint64_t memsz)
{
	put32(phdr(i), type);
	put64(phdr(i) + 8, off);
	put64(phdr(i) + 16, 0xffffffff80000000ull + paddr);
	put64(phdr(i) + 24, paddr);
	put64(phdr(i) + 32, filesz);
	put64(phdr(i) + 40, memsz);
}

static void make_elf(void)
{
	memcpy(file, "\177ELF\2\1\1", 7);
	put16(file + 16, 2);
	put16(file + 18, 62);
	put64(file + 24, 0xffffffff80200010ull);
	put64(file + 32, 64);
	put16(file + 54, 56);
	put16(file + 56, 3);
	put_segment(0, 1, 4096, 0x200000, 4096, 8192);
	put_segment(1, 1, 8192, 0x400000, 100, 100);
	put_segment(2, 4, 12288, 0, 20 + 24, 0);
	memset(file + 4096, 0xcc, 4096 + 100);
	/* a note of someone else, then ours */
	put32(file + 12288, 4), put32(file + 12292, 4), put32(file + 12296, 1);
	memcpy(file + 12300, "GNU", 4);
	put32(file + 12308, 4), put32(file + 12312, 8), put32(file + 12316, 18);
	memcpy(file + 12320, "Xen", 4);
	put64(file + 12324, 0x200100);
	file_len = 12288 + 44;
}

static void test_pvh(void)
{
	const uint8_t *s, *m;

	setup(64 * MIB);
	make_elf();
	give_initrd(5000);
	memset(mem.ram + 0x200000, 0x55, 8192);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x200100);
	s = mem.ram + v->regs[3];
	CU_ASSERT_EQUAL(get32(s), 0x336ec578);
	CU_ASSERT_EQUAL(get32(s + 4), 1);
	CU_ASSERT_EQUAL(get32(s + 12), 1);
	m = mem.ram + get64(s + 16);
	CU_ASSERT_NSTRING_EQUAL(mem.ram + get64(m), "IRD!", 4);
	CU_ASSERT_EQUAL(get64(m + 8), 5000);
	CU_ASSERT_STRING_EQUAL(mem.ram + get64(s + 24), "console=ttyS0");
	CU_ASSERT_EQUAL(get64(s + 32), 0xe0000);
	CU_ASSERT_EQUAL(get32(s + 48), 5);
	m = mem.ram + get64(s + 40);
	CU_ASSERT_EQUAL(get64(m + 24 * 3), 0x100000);
	CU_ASSERT_EQUAL(get64(m + 24 * 3 + 8), 63 * MIB);
	CU_ASSERT_EQUAL(mem.ram[0x200fff], 0xcc);
	CU_ASSERT_EQUAL(mem.ram[0x201000], 0); /* bss is cleared */
	CU_ASSERT_EQUAL(mem.ram[0x400063], 0xcc);
	teardown();
}

static void test_elf_bad(void)
{
	setup(64 * MIB);
	make_elf();
	put_segment(0, 1, 4096, 0x200000, 0x100000, 0x100000);
	fails("truncated: segment 0");
	put_segment(0, 1, UINT64_MAX - 10, 0x200000, 100, 100);
	fails("truncated: segment 0");
	put_segment(0, 1, 4096, 0x200000, 4096, 100);
	fails("in memory");
	put_segment(0, 1, 4096, 0x200000, 4096, 1ull << 40);
	fails("does not fit in the guest's RAM");
	put_segment(0, 1, 4096, UINT64_MAX - 4096, 4096, 8192);
	fails("does not fit in the guest's RAM");
	put_segment(0, 1, 4096, 0xdf000, 4096, 8192);
	fails("does not fit in the guest's RAM");
	put_segment(0, 1, 4096, 0x3ff000, 4096, 8192);
	fails("overlaps kernel segment");
	put_segment(0, 1, 4096, 0x20000, 4096, 8192);
	CU_ASSERT_EQUAL(load(), 0); /* where the command line would have been */
	put_segment(0, 1, 4096, 0x9f000, 4096, 4096);
	fails("does not fit in the guest's RAM");
	make_elf();
	put16(file + 56, 0);
	fails("program headers");
	put16(file + 56, 60000);
	fails("program headers");
	put16(file + 56, 3);
	put64(file + 32, UINT64_MAX - 8);
	fails("truncated");
	put64(file + 32, file_len - 60);
	fails("truncated");
	make_elf();
	put16(file + 18, 183);
	fails("machine 183");
	make_elf();
	put32(file + 12316, 19); /* no entry note */
	fails("without a PVH entry note");
	make_elf();
	put32(file + 12288, 0xffffffff); /* a note that runs away */
	fails("without a PVH entry note");
	teardown();
}

/* ---- multiboot ---- */
static void make_multiboot(uint32_t flags)
{
	uint32_t at = 0x40;

	put32(file + at, 0x1badb002);
	put32(file + at + 4, flags);
	put32(file + at + 8, 0u - 0x1badb002 - flags);
	put32(file + at + 12, 0x100040); /* header_addr */
	put32(file + at + 16, 0x100000);
	put32(file + at + 20, 0x100800);
	put32(file + at + 24, 0x101000);
	put32(file + at + 28, 0x100060);
	memset(file + 0x60, 0x90, 0x1000 - 0x60);
	file_len = 0x1000;
}

static void test_multiboot(void)
{
	const uint8_t *i, *m;

	setup(32 * MIB);
	make_multiboot(0x10003);
	give_initrd(5000);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x100060);
	CU_ASSERT_EQUAL(v->regs[0], 0x2badb002);
	i = mem.ram + v->regs[3];
	CU_ASSERT_EQUAL(get32(i) & 0x24d, 0x24d);
	CU_ASSERT_EQUAL(get32(i + 8), 31 * 1024);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(i + 16), "kernel console=ttyS0");
	CU_ASSERT_EQUAL(get32(i + 20), 1);
	m = mem.ram + get32(i + 24);
	CU_ASSERT_EQUAL(get32(m + 4) - get32(m), 5000);
	CU_ASSERT_NSTRING_EQUAL(mem.ram + get32(m), "IRD!", 4);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(m + 8), "initrd.img");
	/* what firmware leaves in the BIOS data area: Xen and memtest86+ look there */
	CU_ASSERT_EQUAL(get16(mem.ram + 0x40e), 0x9fc0);
	CU_ASSERT_EQUAL(get16(mem.ram + 0x413), 639);
	CU_ASSERT_EQUAL(mem.ram[0x9fc00], 1);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(i + 64), "hvx");
	CU_ASSERT_EQUAL(get32(mem.ram + get32(i + 48)), 20);
	CU_ASSERT_EQUAL(get32(i + 44), 24 * 5);
	CU_ASSERT_EQUAL(mem.ram[0x1007ff], 0x90);
	CU_ASSERT_EQUAL(mem.ram[0x100800], 0);
	teardown();
}

static void test_modules(void)
{
	const uint8_t *i, *m;

	setup(32 * MIB);
	make_multiboot(0x10003);
	give_initrd(5000);
	give_second("next");
	args = "root=/dev/vda quiet";
	CU_ASSERT_EQUAL(load(), 0);
	i = mem.ram + v->regs[3];
	CU_ASSERT_EQUAL(get32(i + 20), 2);
	m = mem.ram + get32(i + 24);
	CU_ASSERT_NSTRING_EQUAL(mem.ram + get32(m), "IRD!", 4);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(m + 8), "initrd.img root=/dev/vda quiet");
	CU_ASSERT_NSTRING_EQUAL(mem.ram + get32(m + 16), "next", 4);
	CU_ASSERT_EQUAL(get32(m + 20) - get32(m + 16), 4);
	CU_ASSERT_EQUAL(get32(m + 16) & 4095, 0);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(m + 24), "more.img");
	/* by PVH: one initrd, or modules when one has arguments */
	make_elf();
	CU_ASSERT_EQUAL(load(), 0);
	i = mem.ram + v->regs[3];
	CU_ASSERT_EQUAL(get32(i + 12), 2);
	m = mem.ram + get64(i + 16);
	CU_ASSERT_STRING_EQUAL(mem.ram + get64(m + 16), "initrd.img root=/dev/vda quiet");
	CU_ASSERT_EQUAL(get64(m + 40), 4);
	args = "";
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(get32(mem.ram + v->regs[3] + 12), 1);
	CU_ASSERT_EQUAL(get64(mem.ram + get64(mem.ram + v->regs[3] + 16) + 8), 5004);
	teardown();
}

/* What we hand to a kernel makes room for a kernel that has a segment there. */
static void test_tables_give_way(void)
{
	const uint8_t *i;

	setup(32 * MIB);
	make_multiboot(0x10003);
	put32(file + 0x4c, 0x6040); /* header_addr */
	put32(file + 0x50, 0x6000);
	put32(file + 0x54, 0x7000);
	put32(file + 0x58, 0x30000);
	put32(file + 0x5c, 0x6060);
	give_initrd(5000);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x6060);
	CU_ASSERT_EQUAL(mem.ram[0x6060], 0x90);
	i = mem.ram + v->regs[3];
	CU_ASSERT(v->regs[3] >= 0x30000);
	CU_ASSERT(get32(i + 16) >= 0x30000);
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(i + 16), "kernel console=ttyS0");
	CU_ASSERT_STRING_EQUAL(mem.ram + get32(mem.ram + get32(i + 24) + 8), "initrd.img");
	put32(file + 0x4c, 0x1040);
	put32(file + 0x50, 0x1000);
	put32(file + 0x54, 0x2000);
	put32(file + 0x58, 0x9f000); /* all but 3 KiB of conventional memory: above 1 MiB then */
	put32(file + 0x5c, 0x1060);
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT(v->regs[3] >= MIB);
	teardown();
}

static void test_compressed(void)
{
	setup(32 * MIB);
	file_len = 100;
	memcpy(file, "\x1f\x8b\x08", 3);
	fails("unpack it first: gunzip <FILE >KERNEL");
	memcpy(file, "\x28\xb5\x2f\xfd", 4);
	fails("unzstd");
	memcpy(file, "\xfd\x37zXZ", 6);
	fails("unxz");
	teardown();
}

static void test_multiboot_elf(void)
{
	setup(32 * MIB);
	make_elf();
	put16(file + 56, 2);
	make_multiboot(3);
	memmove(file + 0x200, file + 0x40, 12); /* out of the way of the program headers */
	memset(file + 0x40, 0, 0x1c0);
	put_segment(0, 1, 4096, 0x200000, 4096, 8192);
	put_segment(1, 1, 8192, 0x400000, 100, 100);
	file_len = 12288;
	CU_ASSERT_EQUAL(load(), 0);
	CU_ASSERT_EQUAL(v->rip, 0x200010); /* the entry's physical address */
	CU_ASSERT_EQUAL(v->regs[0], 0x2badb002);
	teardown();
}

static void test_multiboot_bad(void)
{
	setup(32 * MIB);
	make_multiboot(0x10003);
	put32(file + 0x50, 0x100041);
	fails("load_addr");
	put32(file + 0x50, 0xfff00);
	fails("load_addr");
	make_multiboot(0x10003);
	put32(file + 0x54, 0x200000);
	put32(file + 0x58, 0);
	fails("truncated");
	put32(file + 0x54, 0xff000);
	fails("load_end_addr");
	make_multiboot(0x10003);
	put32(file + 0x58, 0x100400);
	fails("bss_end_addr");
	put32(file + 0x58, 0xffffffff);
	fails("does not fit in the guest's RAM");
	make_multiboot(0x10103);
	fails("asks for features 0x100");
	make_multiboot(3);
	fails("neither an ELF file");
	make_multiboot(3);
	file[0x48]++;
	fails("neither a bzImage");
	teardown();
}

/* ---- rubbish ---- */
static void test_rubbish(void)
{
	uint64_t x = 88172645463325252ull;

	setup(32 * MIB);
	file_len = 0;
	fails("the file is empty");
	file_len = 1;
	fails("neither");
	memcpy(file, "\177ELF", 4);
	file_len = 4;
	fails("ELF");
	close(kernel);
	kernel = open("/dev/tty-that-is-not-there", 0);
	CU_ASSERT_EQUAL(boot_load(&vm, &(struct boot_config){.kernel_fd = -1}, err, sizeof(err)), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "kernel: can not be read"));
	kernel = memfd_create("kernel", 0);
	/* good files with a few bytes changed must load or fail, never worse */
	for (unsigned n = 0; n < 3000; n++) {
		memset(file, 0, sizeof(file));
		if (n % 3 == 0)
			make_bzimage();
		else if (n % 3 == 1)
			make_elf();
		else
			make_multiboot(0x10003);
		for (unsigned i = 0; i < 1 + n % 8; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			file[x % (n % 3 == 1 ? 400 : 700)] = (uint8_t)(x >> 32);
		}
		load();
	}
	teardown();
}

CU_ErrorCode suite_boot(void)
{
	CU_pSuite s = CU_add_suite("boot", NULL, NULL);

	CU_add_test(s, "bzImage", test_bzimage);
	CU_add_test(s, "bzImage, little RAM", test_bzimage_small_ram);
	CU_add_test(s, "bzImage, 32-bit entry", test_bzimage_32);
	CU_add_test(s, "bad bzImages", test_bzimage_bad);
	CU_add_test(s, "command line", test_command_line);
	CU_add_test(s, "initrd", test_initrd);
	CU_add_test(s, "memory sizes", test_memory_sizes);
	CU_add_test(s, "PVH", test_pvh);
	CU_add_test(s, "bad ELF files", test_elf_bad);
	CU_add_test(s, "multiboot", test_multiboot);
	CU_add_test(s, "several initrds", test_initrds);
	CU_add_test(s, "modules", test_modules);
	CU_add_test(s, "tables give way", test_tables_give_way);
	CU_add_test(s, "compressed kernels", test_compressed);
	CU_add_test(s, "multiboot ELF", test_multiboot_elf);
	CU_add_test(s, "bad multiboot images", test_multiboot_bad);
	CU_add_test(s, "rubbish", test_rubbish);
	return CU_get_error();
}
