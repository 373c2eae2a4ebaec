/*
 * The engine side: a machine of a few MiB whose page tables give CPL 3 exactly
 * the address space of layout.h, on scattered physical pages.  No guest kernel
 * runs: a case begins with its registers put into struct vcpu and ends with the
 * first exception, before delivery.
 *
 * Invariant: the stop address holds hlt, as in the native run, so cases end by
 * the same #GP and translations are kept from case to case.
 */
#include "engine.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/gmem.h"
#include "isa.h"
#include "memimg.h"
#include "native.h"
#include "vcpu/bt/bt.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/mmu/window.h"
#include "vcpu/vcpu.h"

#define RAM_SIZE   (8u << 20)
#define KERNEL_VA  0xffff800000000000ull /* GDT, IDT and TSS, for the supervisor only */
#define HANDLER_VA (KERNEL_VA + 16 * PG) /* nothing is mapped there: a delivered event ends with this fetch fault */
#define STACK_TOP  (KERNEL_VA + 4 * PG)
#define GPA_CR3    0x1000
#define GPA_TABLES 0x2000 /* page tables from here on */
#define GPA_SYSTEM 0x80000
#define GPA_DATA   0x200000
#define GPA_CODE   0x400000

#define PTE_P  1ull
#define PTE_W  2ull
#define PTE_U  4ull
#define PTE_NX (1ull << 63)

#define NO_STOP    0xdead000000000001ull /* no instruction is ever there */
#define MAX_BLOCKS 300
#define TICK_NS    10000000

static struct engine {
	struct gmem mem;
	struct vm vm;
	struct vcpu *v;
	struct memview view;
	uint64_t next_table;
	int exact_flags, window;
	int ram_fd;
} eng;

/* Far from the addresses of this process, as far as the cases' addresses reach. */
#define WINDOW_DELTA 0x400000000000ull
#define WINDOW_LAST  0x00007ffffffff000ull

static void die(const char *what)
{
	fprintf(stderr, "insn-diff: engine: %s\n", what);
	_exit(3);
}

static uint64_t *gpa_ptr(uint64_t gpa)
{
	return (uint64_t *)(void *)(eng.mem.ram + gpa);
}

/* Maps one page; tables are made as needed and allow everything, the leaf decides. */
static void map_page(uint64_t va, uint64_t gpa, uint64_t flags)
{
	uint64_t table = GPA_CR3;

	for (int shift = 39; shift > 12; shift -= 9) {
		uint64_t *e = gpa_ptr(table) + ((va >> shift) & 511);

		if (!*e) {
			*e = eng.next_table | PTE_P | PTE_W | PTE_U;
			eng.next_table += PG;
		}
		table = *e & 0xffffffffff000ull;
	}
	gpa_ptr(table)[(va >> 12) & 511] = gpa | flags;
}

/* Every second page, backwards: neighbours in the guest's space never are neighbours in RAM. */
static uint64_t code_gpa(int i)
{
	return GPA_CODE + (uint64_t)(CODE_PAGES - i) * 2 * PG;
}

static uint64_t image_gpa(int i)
{
	return GPA_DATA + (uint64_t)(IMG_PAGES - i) * 2 * PG;
}

static void map_space(void)
{
	eng.next_table = GPA_TABLES;
	for (int i = 0; i < CODE_PAGES; i++) {
		map_page(CODE_BASE + i * PG, code_gpa(i), PTE_P | PTE_W | PTE_U);
		eng.view.code[i] = eng.mem.ram + code_gpa(i);
	}
	for (int i = 0; i < IMG_PAGES; i++) {
		uint64_t va = i < WR_PAGES ? wr_page[i] : RO_PAGE;

		map_page(va, image_gpa(i), PTE_P | PTE_U | PTE_NX | (i < WR_PAGES ? PTE_W : 0));
		eng.view.page[i] = eng.mem.ram + image_gpa(i);
	}
	for (uint64_t i = 0; i < 4; i++)
		map_page(KERNEL_VA + i * PG, GPA_SYSTEM + i * PG, PTE_P | PTE_W | PTE_NX);
}

/* The user descriptors of a Linux kernel, gates for every vector (callable from CPL 3: #BP and #OF), and a TSS
 * without an I/O bitmap. */
static void make_tables(void)
{
	static const uint64_t gdt[7] = {0,
					0x00cf9b000000ffff,
					0x00af9b000000ffff,
					0x00cf93000000ffff,
					0x00cffb000000ffff,
					0x00cff3000000ffff,
					0x00affb000000ffff};
	uint64_t *idt = gpa_ptr(GPA_SYSTEM + PG);

	memcpy(gpa_ptr(GPA_SYSTEM), gdt, sizeof gdt);
	for (unsigned i = 0; i < 256; i++) {
		uint64_t dpl = i == 3 || i == 4 ? 3 : 0;

		uint64_t to = HANDLER_VA + i * 16;

		idt[2 * i] = (to & 0xffff) | 0x10ull << 16 | (0x8eull | dpl << 5) << 40 | ((to >> 16) & 0xffff) << 48;
		idt[2 * i + 1] = to >> 32;
	}
	memset(eng.mem.ram + GPA_SYSTEM + 2 * PG, 0, PG);
	*(uint64_t *)(void *)(eng.mem.ram + GPA_SYSTEM + 2 * PG + 4) = STACK_TOP;
	eng.mem.ram[GPA_SYSTEM + 2 * PG + 0x66] = 0x68; /* I/O bitmap at the limit: none */
}

static void set_control(struct vcpu *v)
{
	v->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	v->cr4 = CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_OSXSAVE |
		 CR4_SMEP | CR4_SMAP;
	v->cr4 &= v->cr4_mask | CR4_PAE;
	v->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	v->cr3 = GPA_CR3;
	v->xcr0 = v->xcr0_mask;
	v->gdtr = (struct dtable){KERNEL_VA, 127};
	v->idtr = (struct dtable){KERNEL_VA + PG, 4095};
	v->ldtr = (struct seg){0, 0, SEG_A_NULL, 0};
	v->tr = (struct seg){KERNEL_VA + 2 * PG, 0x67, 0x8b, 0x40};
	v->cpl = 3;
	tlb_flush_all(v);
	vcpu_update_mode(v);
}

/* Kicks arrive all the time: they must not change anything, and they end endless loops. */
static void start_ticks(void)
{
	struct sigevent se = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec its = {{0, TICK_NS}, {0, TICK_NS}};
	timer_t t;

	if (timer_create(CLOCK_MONOTONIC, &se, &t) < 0 || timer_settime(t, 0, &its, NULL) < 0)
		die("timer");
}

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

static void make_memory(void)
{
	uint64_t pages = RAM_SIZE / PG;

	eng.ram_fd = memfd_create("insn-diff", MFD_CLOEXEC);
	if (eng.ram_fd < 0 || ftruncate(eng.ram_fd, RAM_SIZE) < 0)
		die("no memory");
	eng.mem.ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, eng.ram_fd, 0);
	eng.mem.size = eng.mem.low = RAM_SIZE;
	eng.mem.p2m = calloc(pages, 8);
	eng.mem.code_bm = calloc(pages / 64, 8);
	eng.mem.dirty_bm = calloc(pages / 64, 8);
	if (eng.mem.ram == MAP_FAILED || !eng.mem.p2m || !eng.mem.code_bm || !eng.mem.dirty_bm)
		die("no memory");
	for (uint64_t i = 0; i < pages; i++)
		eng.mem.p2m[i] = i * PG;
}

void engine_exact_flags(int on)
{
	eng.exact_flags = on;
}

void engine_window(int on)
{
	eng.window = on;
}

static void make_window(void)
{
	const struct window_config c = {WINDOW_DELTA, 0, WINDOW_LAST, MODE_USER, eng.ram_fd};

	if (window_create(&eng.vm.window, &eng.mem, &c) < 0)
		die("cannot make the window");
}

void engine_init(void)
{
	struct platform_config pc = {.ram_size = RAM_SIZE,
				     .ncpus = 1,
				     .com_in = {-1, -1, -1, -1},
				     .com_out = {-1, -1, -1, -1},
				     .tsc_hz = 1000000000,
				     .power_off = no_event,
				     .reset = no_event,
				     .debug_exit_cb = no_exit,
				     .debugcon = no_byte,
				     .arm = no_arm};

	make_memory();
	eng.vm = (struct vm){.mem = &eng.mem, .ncpus = 1, .name = "insn-diff", .tsc_hz = 1000000000};
	if (eng.window)
		make_window();
	if (bt_create(&eng.vm) < 0 || fault_install() < 0)
		die("cannot make the code memory");
	eng.vm.bt->exact_flags = eng.exact_flags;
	eng.v = vcpu_create(&eng.vm, 0);
	if (!eng.v || vcpu_thread_init(eng.v) < 0)
		die("cannot make the vcpu");
	eng.vm.plat = platform_create(&eng.vm, &pc);
	if (!eng.vm.plat)
		die("cannot make the platform");
	cpu_reset(eng.v);
	map_space();
	make_tables();
	set_control(eng.v);
	start_ticks();
}

static struct seg flat(uint16_t sel, uint32_t attr, uint64_t base)
{
	return (struct seg){base, 0xffffffff, attr, sel};
}

static void put_segments(struct vcpu *v, const struct testcase *tc, uint32_t flags)
{
	uint32_t data = 0xf3 | SEG_A_DB | SEG_A_G;
	int bits32 = (flags & TEST_32BIT) != 0;

	v->seg[SEG_CS] =
		bits32 ? flat(SEL_CS32, 0xfb | SEG_A_DB | SEG_A_G, 0) : flat(SEL_CS64, 0xfb | SEG_A_L | SEG_A_G, 0);
	v->seg[SEG_SS] = v->seg[SEG_DS] = v->seg[SEG_ES] = flat(SEL_DS, data, 0);
	if (!bits32) {
		v->seg[SEG_FS] = (struct seg){tc->in.fsbase, 0, SEG_A_NULL, 0};
		v->seg[SEG_GS] = (struct seg){tc->in.gsbase, 0, SEG_A_NULL, 0};
	} else if (flags & TEST_TLS) {
		v->seg[SEG_FS] = flat(SEL_TLS0, data, tc->in.fsbase);
		v->seg[SEG_GS] = flat(SEL_TLS1, data, tc->in.gsbase);
	} else {
		v->seg[SEG_FS] = v->seg[SEG_GS] = (struct seg){0, 0, SEG_A_NULL, 0};
	}
}

static void put_state(struct vcpu *v, const struct testcase *tc, uint32_t flags)
{
	for (int i = 0; i < 16; i++)
		v->regs[i] = tc->in.gpr[i];
	v->rip = tc->in.rip;
	v->cpl = 3;
	put_segments(v, tc, flags);
	memcpy(v->fpu_area, tc->in.xs, XS_SIZE);
	v->fpu_saved = 1;
	v->exc_pending = v->exc_soft = v->int_shadow = 0;
	v->pending = 0; /* the ticks set bits here, and blocks are not linked while any is */
	v->exc_has_error = 0;
	v->exc_error = 0;
	vcpu_set_rflags(v, tc->in.rflags);
	vcpu_update_mode(v);
}

static void get_state(struct vcpu *v, struct cpu_state *st, uint32_t flags)
{
	int bits32 = (flags & TEST_32BIT) != 0;

	for (int i = 0; i < 16; i++)
		st->gpr[i] = v->regs[i];
	st->rip = v->rip;
	st->rflags = vcpu_rflags(v);
	st->fsbase = bits32 && !(flags & TEST_TLS) ? 0 : v->seg[SEG_FS].base;
	st->gsbase = bits32 && !(flags & TEST_TLS) ? 0 : v->seg[SEG_GS].base;
	memset(st->xs, 0, XS_SIZE);
	memcpy(st->xs, v->fpu_area, isa_xs_size());
	xs_normalise(st->xs);
}

static void set_outcome(struct vcpu *v, struct result *r, const struct test *t, int rc)
{
	r->outcome = rc == 1 ? OUT_FAULT : OUT_TIMEOUT;
	if (rc != 1)
		return;
	r->vector = v->exc_vector;
	r->error = v->exc_has_error ? v->exc_error : 0;
	r->cr2 = r->vector == EXC_PF ? v->exc_cr2 : 0;
	if (r->vector == EXC_GP && v->rip == t->stop) {
		r->outcome = OUT_STOP;
		r->vector = r->error = 0;
	}
}

/* int3, int1 and into are delivered by their helpers: undo that from the frame on the supervisor's stack. */
static void undo_delivery(struct vcpu *v)
{
	uint64_t vec = (v->rip - HANDLER_VA) / 16, sp = v->regs[R_SP] - KERNEL_VA;
	const uint64_t *frame = gpa_ptr(GPA_SYSTEM + sp % (4 * PG));

	if (v->cpl || v->exc_vector != EXC_PF || vec > 255 || v->rip % 16 || sp + 40 > 4 * PG)
		return;
	v->exc_vector = (uint8_t)vec;
	v->exc_has_error = 0;
	v->rip = frame[0];
	vcpu_set_rflags(v, frame[2]);
	v->regs[R_SP] = frame[3];
}

static void restore_code(struct vcpu *v, uint64_t dirty)
{
	for (int i = 0; i < CODE_PAGES; i++)
		if (dirty >> i & 1)
			code_written(v, code_gpa(i), PG);
}

static void run_case(struct batch *b, struct worker_out *out, uint32_t k)
{
	const struct testcase *tc = &b->tc[k];
	const struct test *t = &b->test[tc->test];
	struct result *r = &out->out[k];
	struct vcpu *v = eng.v;
	int rc;

	mem_poke(&eng.view, tc);
	/* what an earlier case here was refused says nothing of this one */
	memset(v->bt->off_window, 0, sizeof v->bt->off_window);
	put_state(v, tc, t->flags);
	rc = vcpu_run_until(v, NO_STOP, MAX_BLOCKS);
	if (rc == 1)
		undo_delivery(v);
	get_state(v, &r->st, t->flags);
	set_outcome(v, r, t, rc);
	restore_code(v, mem_collect(&eng.view, b, out, r));
}

static void load_batch(const struct batch *b)
{
	for (int i = 0; i < CODE_PAGES; i++) {
		if (!memcmp(eng.view.code[i], b->code + i * PG, PG))
			continue;
		memcpy(eng.view.code[i], b->code + i * PG, PG);
		code_written(eng.v, code_gpa(i), PG);
	}
	for (int i = 0; i < IMG_PAGES; i++)
		memcpy(eng.view.page[i], b->image + i * PG, PG);
}

void engine_run(struct batch *b, struct worker_out *out, uint32_t from)
{
	load_batch(b);
	for (uint32_t k = from; k < b->ncases; k++) {
		out->progress = k;
		run_case(b, out, k);
	}
	out->progress = b->ncases;
}
