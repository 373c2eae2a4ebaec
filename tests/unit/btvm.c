/* See btvm.h.  Invariant: btvm_reset() leaves nothing of an earlier test but the thread's signal handlers. */
#include "btvm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vcpu/bt/emit.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/mmu/window.h"

#define PG       4096ull
#define TABLES   0x1000ull
#define PTE_P    1ull
#define PTE_W    2ull
#define PTE_U    4ull
#define PTE_PS   0x80ull
#define PTE_G    0x100ull
#define PTE_MASK 0xffffffffff000ull

static struct gmem mem;
static struct vm vm;
static struct vcpu *vcpu;
static uint64_t next_table;
static bool host_bmi2;
static int ram_fd;
static struct window *window;

static void no_event(void *ctx)
{
	(void)ctx;
}

static void no_exit(void *ctx, int status)
{
	(void)ctx;
	(void)status;
}

static void no_byte(void *ctx, uint8_t byte)
{
	(void)ctx;
	(void)byte;
}

static void no_arm(void *ctx, struct vcpu *v, unsigned timer, uint64_t deadline_ns)
{
	(void)ctx;
	(void)v, (void)timer, (void)deadline_ns;
}

static void on_moved(void *ctx, uint64_t frame, const uint8_t *from)
{
	(void)ctx;
	mmu_moved(vcpu, frame, from);
}

static void die(const char *what)
{
	fprintf(stderr, "btvm: %s\n", what);
	exit(1);
}

static void create(void)
{
	struct platform_config pc = {.ram_size = BTVM_RAM,
				     .ncpus = 1,
				     .com_in = {-1, -1, -1, -1},
				     .com_out = {-1, -1, -1, -1},
				     .tsc_hz = 1000000000,
				     .power_off = no_event,
				     .reset = no_event,
				     .debug_exit_cb = no_exit,
				     .debugcon = no_byte,
				     .arm = no_arm};
	uint64_t pages = BTVM_RAM / PG;

	ram_fd = memfd_create("btvm", MFD_CLOEXEC);
	if (ram_fd < 0 || ftruncate(ram_fd, BTVM_RAM) < 0)
		die("no memory");
	mem.ram = mmap(NULL, BTVM_RAM, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
	mem.size = mem.low = BTVM_RAM;
	mem.p2m = calloc(pages, 8);
	mem.code_bm = calloc(pages / 64, 8);
	mem.dirty_bm = calloc(pages / 64, 8);
	mem.held_bm = calloc(pages / 64, 8);
	mem.moved = on_moved;
	if (mem.ram == MAP_FAILED || !mem.p2m || !mem.code_bm || !mem.dirty_bm || !mem.held_bm)
		die("no memory");
	for (uint64_t i = 0; i < pages; i++)
		mem.p2m[i] = i * PG;
	vm = (struct vm){.mem = &mem, .ncpus = 1, .name = "btvm", .tsc_hz = 1000000000};
	if (bt_create(&vm) < 0)
		die("cannot make the code memory");
	host_bmi2 = vm.bt->have_bmi2;
	vcpu = vcpu_create(&vm, 0);
	if (!vcpu || vcpu_thread_init(vcpu) < 0)
		die("cannot make the vcpu");
	vm.plat = platform_create(&vm, &pc);
	if (!vm.plat)
		die("cannot make the platform");
}

static uint64_t *entry(uint64_t table, uint64_t gva, int shift)
{
	return (uint64_t *)(void *)(mem.ram + table) + ((gva >> shift) & 511);
}

/* The entry at level @shift (12: page table, 21: directory, 30); tables above it allow everything. */
static uint64_t *walk_to(uint64_t gva, int shift)
{
	uint64_t table = TABLES;

	for (int s = 39; s > shift; s -= 9) {
		uint64_t *e = entry(table, gva, s);

		if (!*e) {
			*e = next_table | PTE_P | PTE_W | PTE_U;
			next_table += PG;
		}
		table = *e & PTE_MASK;
	}
	return entry(table, gva, shift);
}

uint64_t *btvm_pte(uint64_t gva)
{
	return walk_to(gva, 12);
}

static void map_space(void)
{
	memset(mem.ram, 0, BTVM_RAM);
	next_table = TABLES + PG;
	for (uint64_t a = 0; a < BTVM_RAM; a += PG)
		*walk_to(a, 12) = a | PTE_P | PTE_W | PTE_U;
	*walk_to(BTVM_LARGE, 21) = BTVM_CODE | PTE_P | PTE_W | PTE_U | PTE_PS;
	*walk_to(BTVM_GIGA, 30) = PTE_P | PTE_W | PTE_U | PTE_PS;
	for (uint64_t i = 0; i < 16; i++)
		*walk_to(BTVM_KERN + i * PG, 12) = (BTVM_DATA + i * PG) | PTE_P | PTE_W | PTE_G;
}

void btvm_mode(struct vcpu *v, unsigned cpl, unsigned code_size)
{
	uint32_t dpl = cpl << 5, cs = 0x9bu | dpl | SEG_A_G | (code_size == 8 ? SEG_A_L : SEG_A_DB);
	struct seg data = {0, 0xffffffff, 0x93u | dpl | SEG_A_DB | SEG_A_G, (uint16_t)(0x18 | cpl)};

	v->cpl = (uint8_t)cpl;
	v->seg[SEG_CS] = (struct seg){0, 0xffffffff, cs, (uint16_t)(0x10 | cpl)};
	v->seg[SEG_SS] = v->seg[SEG_DS] = v->seg[SEG_ES] = v->seg[SEG_FS] = v->seg[SEG_GS] = data;
	vcpu_update_mode(v);
}

void btvm_window(struct vcpu *v, bool on)
{
	const struct window_config c = {WINDOW_KERNEL_DELTA, WINDOW_KERNEL_FIRST, WINDOW_KERNEL_LAST,
					WINDOW_KERNEL_MODE, ram_fd};

	bt_flush(v);
	window_destroy(window);
	window = NULL;
	if (on && window_create(&window, &mem, &c) < 0)
		die("cannot make the window");
	vm.window = window;
	vm.bt->vcpu_seg = on ? SEG_PREFIX_FS : SEG_PREFIX_GS;
	vm.bt->vcpu_delta = 0;
	if (vcpu_set_segments(v) < 0)
		die("cannot set the segments");
}

struct vcpu *btvm_reset(void)
{
	struct vcpu *v;

	if (!vcpu)
		create();
	v = vcpu;
	if (window)
		btvm_window(v, false);
	cpu_reset(v);
	map_space();
	v->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	v->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | (v->cr4_mask & (CR4_OSXSAVE | CR4_SMAP));
	v->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	v->cr3 = TABLES;
	v->xcr0 = 7;
	memset(v->regs, 0, sizeof v->regs);
	v->regs[R_SP] = BTVM_DATA + 0x8000;
	vcpu_set_rflags(v, RFL_FIX);
	v->kick = 0;
	v->exc_pending = 0;
	v->bt->stop_rip = 0;
	v->bt->have_bmi2 = host_bmi2;
	bt_flush(v);
	btvm_mode(v, 3, 8);
	memset(&v->stats, 0, sizeof v->stats);
	return v;
}

void btvm_put(struct vcpu *v, uint64_t gpa, const void *buf, size_t len)
{
	memcpy(mem.ram + gpa, buf, len);
	code_written(v, gpa, len);
}

size_t btvm_hex(const char *hex, uint8_t *buf, size_t max)
{
	size_t n = 0;
	unsigned byte;
	int used;

	while (n < max && sscanf(hex, " %2x%n", &byte, &used) == 1) {
		buf[n++] = (uint8_t)byte;
		hex += used;
	}
	return n;
}

uint32_t btvm_translate_at(struct vcpu *v, uint64_t gpa, uint32_t mode)
{
	struct bt_wait why = {.frame = -1};
	uint32_t b;

	bt_lock(v);
	b = bt_translate(v, gpa, mode, &why);
	bt_unlock(v);
	return b;
}

uint32_t btvm_translate(struct vcpu *v, uint64_t gva, uint32_t mode, const char *hex)
{
	uint8_t code[256];

	btvm_put(v, gva, code, btvm_hex(hex, code, sizeof code));
	v->rip = gva;
	v->ip_page = gva & ~0xfffull;
	return btvm_translate_at(v, gva, mode);
}
