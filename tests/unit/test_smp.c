/*
 * Several vcpus, each a thread, run translated code of one VM at the same time.
 * Invariant: verdicts are sums and orders that hold whatever the timing; what is slow is only slow.
 */
#include <CUnit/CUnit.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "vcpu/bt/bt.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/kick.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/world.h"

#define CPUS   3
#define RAM    (8ull << 20)
#define PML4   0x1000ull
#define PDPT   0x2000ull
#define PD     0x3000ull
#define CODE   0x200000ull /* programs */
#define PATCH  0x210000ull /* code that is written to */
#define DATA   0x220000ull
#define STACKS 0x230000ull

static struct gmem mem;
static struct vm vm;
static struct platform *plat;

CU_ErrorCode suite_smp(void);

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
	(void)ctx, (void)v, (void)timer, (void)deadline_ns;
}

static void create(void)
{
	struct platform_config pc = {.ram_size = RAM,
				     .ncpus = CPUS,
				     .com_in = {-1, -1, -1, -1},
				     .com_out = {-1, -1, -1, -1},
				     .tsc_hz = 1000000000,
				     .power_off = no_event,
				     .reset = no_event,
				     .debug_exit_cb = no_exit,
				     .debugcon = no_byte,
				     .arm = no_arm};

	mem.ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mem.size = mem.low = RAM;
	mem.code_bm = calloc(RAM / 4096 / 64, 8);
	mem.dirty_bm = calloc(RAM / 4096 / 64, 8);
	vm = (struct vm){.mem = &mem, .ncpus = CPUS, .name = "smp", .tsc_hz = 1000000000};
	CU_ASSERT_FATAL(mem.ram != MAP_FAILED && mem.code_bm && mem.dirty_bm);
	CU_ASSERT_EQUAL_FATAL(bt_create(&vm), 0);
	for (int i = 0; i < CPUS; i++)
		CU_ASSERT_PTR_NOT_NULL_FATAL(vcpu_create(&vm, i));
	plat = vm.plat = platform_create(&vm, &pc);
	CU_ASSERT_PTR_NOT_NULL_FATAL(plat);
}

static void put64(uint64_t gpa, uint64_t x)
{
	memcpy(mem.ram + gpa, &x, 8);
}

static uint64_t get64(uint64_t gpa)
{
	uint64_t x;

	memcpy(&x, mem.ram + gpa, 8);
	return x;
}

/* 64-bit code at CPL 0, the first 8 MiB where they are. */
static void reset_cpu(struct vcpu *v)
{
	struct seg data = {0, 0xffffffff, 0x93u | SEG_A_DB | SEG_A_G, 0x18};

	cpu_reset(v);
	v->halted = 0;
	v->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	v->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
	v->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	v->cr3 = PML4;
	memset(v->regs, 0, sizeof v->regs);
	v->regs[R_SP] = STACKS + 0x1000 * (unsigned)(v->id + 1);
	vcpu_set_rflags(v, RFL_FIX);
	v->exc_pending = 0;
	v->seg[SEG_CS] = (struct seg){0, 0xffffffff, 0x9bu | SEG_A_G | SEG_A_L, 0x10};
	v->seg[SEG_SS] = v->seg[SEG_DS] = v->seg[SEG_ES] = v->seg[SEG_FS] = v->seg[SEG_GS] = data;
	v->cpl = 0;
	vcpu_update_mode(v);
}

static void reset(void)
{
	if (!plat)
		create();
	memset(mem.ram, 0, RAM);
	put64(PML4, PDPT | 7);
	put64(PDPT, PD | 7);
	for (uint64_t i = 0; i < RAM >> 21; i++)
		put64(PD + 8 * i, i << 21 | 0x87);
	for (int i = 0; i < CPUS; i++)
		reset_cpu(vm.vcpu[i]);
	bt_flush(vm.vcpu[0]);
}

/* ---- programs: rcx turns; rbx is 0 at the end if all was well.  Absolute addresses, so that they may lie anywhere. ---- */
#define PROGRAM(name, text)                        \
	extern const uint8_t name[], name##_end[]; \
	__asm__(".pushsection .rodata\n" #name ":\n" text "\n ud2\n" #name "_end:\n.popsection\n")

/* An operand in two pages. */
PROGRAM(add_split, "1: lock incq 0x220ffd\n lock xaddq %rax, 0x222ffd\n lock cmpxchg %rax, 0x224ffd\n"
		   " movl $1, %eax\n decq %rcx\n jnz 1b");
/* mov $n, %eax; ret, and how far that is known. */
PROGRAM(write_code, "1: incl %edx\n movl %edx, 0x210001\n movl %edx, 0x220000\n decq %rcx\n jnz 1b");
PROGRAM(run_code, "1: movl 0x220000, %esi\n movl $0x210000, %eax\n call *%rax\n cmpl %esi, %eax\n jae 2f\n incq %rbx\n"
		  "2: call far_away\n decq %rcx\n jnz 1b\n jmp 3f\n .skip 4096, 0x90\nfar_away: ret\n3:");
/* The same, called directly across pages, which goes by a cell. */
PROGRAM(call_code,
	"1: movl 0x220000, %esi\n call 0x210000 - 0x208000 + call_code\n cmpl %esi, %eax\n jae 2f\n incq %rbx\n"
	"2: decq %rcx\n jnz 1b");
/* A page that is data, then code, then data...: rewritten whole, then announced; the reader runs it once each time. */
PROGRAM(write_page, "1: incl %edx\n movl %edx, %edi\n andl $511, %edi\n shll $12, %edi\n addl $0x300000, %edi\n"
		    " movl %edx, 1(%rdi)\n movb $0xb8, (%rdi)\n movb $0xc3, 5(%rdi)\n"
		    " movl %edx, 0x220100\n 3: pause\n cmpl %edx, 0x220108\n jne 3b\n decq %rcx\n jnz 1b");
PROGRAM(run_page, "1: incl %edx\n 3: pause\n cmpl %edx, 0x220100\n jne 3b\n movl %edx, %eax\n andl $511, %eax\n"
		  " shll $12, %eax\n addl $0x300000, %eax\n call *%rax\n cmpl %edx, %eax\n"
		  " je 2f\n incq %rbx\n 2: movl %edx, 0x220108\n decq %rcx\n jnz 1b");
/* Blocks, links and indirect jumps enough to be stopped in anywhere. */
PROGRAM(walk,
	"1: incq %rax\n testb $1, %al\n jz 2f\n incq %rsi\n 2: leaq 3f(%rip), %rdi\n jmp *%rdi\n 3: addq %rax, %r8\n"
	" call far_walk\n pushq %r8\n popq %r9\n decq %rcx\n jnz 1b\n jmp 4f\n .skip 4096, 0x90\n far_walk: ret\n 4:");

/* A turn for each in order; who waits for its own pauses. */
PROGRAM(take_turns, "1: movl %eax, %edx\n shrl $8, %edx\n 2: pause\n cmpl %edx, 0x220200\n jne 2b\n incl 0x220200\n"
		    " addl $768, %eax\n decq %rcx\n jnz 1b");

struct run {
	const uint8_t *text, *end;
	uint64_t turns;
	uint64_t at;
	bool ended;
	void (*beside)(struct vcpu *v);
};
static struct run runs[CPUS];
static pthread_barrier_t start; /* all begin together */

static void *thread(void *arg)
{
	struct vcpu *v = arg;
	const struct run *r = &runs[v->id];

	pthread_barrier_wait(&start);
	if (vcpu_thread_init(v) < 0)
		return NULL;
	if (r->beside)
		r->beside(v);
	v->rip = r->at;
	v->regs[R_CX] = r->turns;
	while (vcpu_run_until(v, 0, r->beside ? 3 : 1000) == 2) {
		atomic_fetch_and(&v->pending, PEND_WORLD); /* or nothing would be linked again */
		if (r->beside)
			r->beside(v);
	}
	runs[v->id].ended = v->exc_vector == EXC_UD && v->rip == r->at + (uint64_t)(r->end - r->text) - 2;
	return NULL;
}

static void load(int cpu, const uint8_t *text, const uint8_t *end, uint64_t turns)
{
	runs[cpu] = (struct run){text, end, turns, CODE + 0x4000 * (unsigned)cpu, false, NULL};
	memcpy(mem.ram + runs[cpu].at, text, (size_t)(end - text));
}
#define LOAD(cpu, name, turns) load(cpu, name, name##_end, turns)

static atomic_bool stop;

static void *kicker(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !atomic_load(&stop); i++) {
		struct timespec t = {0, 20000};

		if (vm.vcpu[i % CPUS]->tid && atomic_load(&vm.vcpu[i % CPUS]->world.held.word))
			kick_again(vm.vcpu[i % CPUS]);
		nanosleep(&t, NULL);
	}
	return NULL;
}

static void run_all(void)
{
	pthread_t t[CPUS], k;

	pthread_barrier_init(&start, NULL, CPUS);
	atomic_store(&stop, false);
	pthread_create(&k, NULL, kicker, NULL);

	for (int i = 0; i < CPUS; i++)
		pthread_create(&t[i], NULL, thread, vm.vcpu[i]);
	for (int i = 0; i < CPUS; i++)
		pthread_join(t[i], NULL);
	atomic_store(&stop, true);
	pthread_join(k, NULL);
	pthread_barrier_destroy(&start);
	for (int i = 0; i < CPUS; i++) {
		CU_ASSERT(runs[i].ended);
		CU_ASSERT_EQUAL(vm.vcpu[i]->regs[R_BX], 0);
	}
}

static void test_split(void)
{
	const unsigned n = 4000;

	reset();
	for (int i = 0; i < CPUS; i++)
		LOAD(i, add_split, n);
	run_all();
	CU_ASSERT_EQUAL(get64(0x220ffd), CPUS * n);
}

static void put_code(void)
{
	memcpy(mem.ram + PATCH, "\xb8\0\0\0\0\xc3", 6);
}

/* A CPU that has seen the newer word runs the newer code, whether it comes by a jump cache or by a cell. */
static void test_patch(void)
{
	reset();
	put_code();
	LOAD(0, write_code, 200000);
	LOAD(1, run_code, 200000);
	LOAD(2, call_code, 200000);
	run_all();
}

static void test_page(void)
{
	reset();
	LOAD(0, write_page, 600);
	LOAD(1, run_page, 600);
	LOAD(2, walk, 100000);
	run_all();
}

#define ANNOUNCED 0x250000ull /* code that no guest program writes to */

/* A try of bt_find()'s, with the page made clean: the block at @gpa, or BT_NONE and the CPUs to wait for. */
static uint32_t try_translate(struct vcpu *v, uint64_t gpa, uint64_t *cpus)
{
	struct bt_wait why;
	uint32_t b;

	v->rip = gpa;
	do {
		why = (struct bt_wait){.frame = -1};
		bt_lock(v);
		b = bt_translate(v, gpa, v->mode, &why);
		bt_unlock(v);
		if (why.frame >= 0)
			codepage_clean(v, (uint64_t)why.frame);
	} while (why.frame >= 0);
	*cpus = why.cpus;
	return b;
}

/* A store to code that a CPU has announced and may not have made yet: what another CPU reads meanwhile is not kept. */
static void test_announced(void)
{
	struct vcpu *writer, *reader;
	uint64_t cpus;
	uint32_t old;

	reset();
	writer = vm.vcpu[0];
	reader = vm.vcpu[1];
	memcpy(mem.ram + ANNOUNCED, "\xb8\0\0\0\0\xc3", 6);
	memcpy(mem.ram + ANNOUNCED + 0x800, "\xb8\0\0\0\0\xc3", 6);
	old = try_translate(reader, ANNOUNCED, &cpus);
	CU_ASSERT_FATAL(old != BT_NONE && !cpus);
	CU_ASSERT_EQUAL(codepage_stored(writer, ANNOUNCED >> 12, 1, 4), STORED_CODE);
	CU_ASSERT(vm.bt->blocks[old].dead);
	CU_ASSERT_EQUAL(block_lookup(vm.bt, ANNOUNCED, vm.bt->blocks[old].gva, reader->mode), BT_NONE);

	CU_ASSERT_EQUAL(try_translate(reader, ANNOUNCED, &cpus), BT_NONE);
	CU_ASSERT_EQUAL(cpus, 1ull << writer->id);
	CU_ASSERT(try_translate(reader, ANNOUNCED + 0x800, &cpus) != BT_NONE); /* other bytes of the page */
	CU_ASSERT(try_translate(writer, ANNOUNCED, &cpus) != BT_NONE);         /* its own stores are in order */
	CU_ASSERT_EQUAL(codepage_stored(writer, ANNOUNCED >> 12, 1, 4), STORED_CODE);

	codepage_wait_stores(reader, 1ull << writer->id);
	CU_ASSERT(try_translate(reader, ANNOUNCED, &cpus) != BT_NONE);
	CU_ASSERT_EQUAL(cpus, 0);
}

static void flush(struct vcpu *v)
{
	bt_flush(v);
}

/* Everything is forgotten again and again by all, while all run. */
static void test_flush(void)
{
	uint32_t flushes;

	reset();
	flushes = vm.bt->flushes;
	for (int i = 0; i < CPUS; i++) {
		LOAD(i, walk, 1000000);
		runs[i].beside = flush;
	}
	run_all();
	CU_ASSERT(vm.bt->flushes > flushes);
	for (int i = 0; i < CPUS; i++)
		CU_ASSERT_EQUAL(vm.vcpu[i]->regs[R_SI], 500000);
}

static _Atomic unsigned visits;
static _Atomic int at_once;

static void visit(struct vcpu *v, void *arg)
{
	(void)arg;
	if (atomic_fetch_add(&at_once, 1) != 0 || !world_mine(v))
		atomic_fetch_add(&visits, 1u << 30);
	atomic_fetch_add(&visits, 1);
	atomic_fetch_sub(&at_once, 1);
}

static void visit_all(struct vcpu *v)
{
	world_on(v->vm, WORLD_ALL, visit, NULL);
}

/* All call all at once: nobody waits for ever, and a CPU that is visited does not run. */
static void test_world(void)
{
	reset();
	atomic_store(&visits, 0);
	for (int i = 0; i < CPUS; i++) {
		LOAD(i, walk, 1000000);
		runs[i].beside = visit_all;
	}
	run_all();
	CU_ASSERT(visits > 0 && visits < 1u << 30 && visits % CPUS == 0);
	for (int i = 0; i < CPUS; i++)
		CU_ASSERT_EQUAL(vm.vcpu[i]->regs[R_SI], 500000);
}

/* All run the same blocks, and are kicked in them: nobody loses anything, and nobody's links go. */
static void test_kicks(void)
{
	uint64_t kicks = 0;

	reset();
	for (int i = 0; i < CPUS; i++) {
		vm.vcpu[i]->stats.kicks = 0;
		LOAD(i, walk, 3000000);
		runs[i].at = CODE;
	}
	run_all();
	for (int i = 0; i < CPUS; i++) {
		kicks += vm.vcpu[i]->stats.kicks;
		CU_ASSERT_EQUAL(vm.vcpu[i]->regs[R_SI], 1500000);
		CU_ASSERT_EQUAL(vm.vcpu[i]->regs[R_9], 3000000ull * 3000001 / 2);
	}
	CU_ASSERT(kicks > 0);
}

/* With more CPUs than cores loops that wait by pause let others run: each of these waits at least once a turn. */
static void test_pause(void)
{
	const unsigned n = 500;
	uint64_t yields = 0;

	for (int crowded = 0; crowded < 2; crowded++) {
		reset();
		vm.bt->crowded = crowded;
		for (int i = 0; i < CPUS; i++) {
			LOAD(i, take_turns, n);
			vm.vcpu[i]->regs[R_AX] = (unsigned)i << 8;
			vm.vcpu[i]->stats.yields = 0;
		}
		run_all();
		CU_ASSERT_EQUAL(*(uint32_t *)(mem.ram + 0x220200), CPUS * n);
		for (int i = 0; i < CPUS; i++)
			yields += vm.vcpu[i]->stats.yields;
		CU_ASSERT(crowded ? yields > 0 : yields == 0);
	}
	vm.bt->crowded = false;
}

#ifdef HVX_DEBUG_LOCKS
static void *fills(void *arg)
{
	world_enter(vm.vcpu[0]);
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&start);
	world_leave(vm.vcpu[0]);
	return arg;
}

/* Another thread runs the CPU: to change what is its own is caught. */
static void test_owner(void)
{
	pthread_t t;
	int status;

	reset();
	pthread_barrier_init(&start, NULL, 2);
	pthread_create(&t, NULL, fills, NULL);
	pthread_barrier_wait(&start);
	pid_t pid = fork();
	if (!pid) {
		signal(SIGABRT, SIG_DFL);
		log_set_fd(-1);
		tlb_flush_all(vm.vcpu[0]);
		_exit(0);
	}
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	pthread_barrier_wait(&start);
	pthread_join(t, NULL);
	pthread_barrier_destroy(&start);
}
#endif

static bool published_enough;

static void *publishes(void *arg)
{
	uint32_t n = *(uint32_t *)arg;

	while (!__atomic_load_n(&published_enough, __ATOMIC_RELAXED)) {
		__atomic_store_n(&vm.bt->n_blocks, n - 1, __ATOMIC_RELEASE);
		__atomic_store_n(&vm.bt->n_blocks, n, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* While another CPU publishes a block, code that is behind all blocks, as a CPU's copy is, is in none. */
static void test_behind_blocks(void)
{
	unsigned found = 0;
	uint64_t cpus;
	pthread_t t;
	uint32_t n;

	reset();
	memcpy(mem.ram + PATCH, "\xb8\0\0\0\0\xc3", 6);
	CU_ASSERT_FATAL(try_translate(vm.vcpu[0], PATCH, &cpus) != BT_NONE);
	n = vm.bt->n_blocks;
	published_enough = false;
	CU_ASSERT_EQUAL_FATAL(pthread_create(&t, NULL, publishes, &n), 0);
	for (unsigned i = 0; i < 5000000; i++)
		found += block_by_host(vm.bt, vm.bt->copies + 5) != BT_NONE;
	__atomic_store_n(&published_enough, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	CU_ASSERT_EQUAL(found, 0);
}

CU_ErrorCode suite_smp(void)
{
	CU_pSuite s = CU_add_suite("several CPUs", NULL, NULL);

	CU_add_test(s, "locked operands in two pages", test_split);
	CU_add_test(s, "code that another CPU writes", test_patch);
	CU_add_test(s, "a page of data becomes code", test_page);
	CU_add_test(s, "a store to code that is announced", test_announced);
	CU_add_test(s, "flushes", test_flush);
	CU_add_test(s, "visits", test_world);
	CU_add_test(s, "kicks in shared blocks", test_kicks);
	CU_add_test(s, "behind all blocks", test_behind_blocks);
	CU_add_test(s, "pause gives way", test_pause);
#ifdef HVX_DEBUG_LOCKS
	CU_add_test(s, "owners", test_owner);
#endif
	return CU_get_error();
}
