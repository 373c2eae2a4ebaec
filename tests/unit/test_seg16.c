/*
 * 16-bit code against the host's CPU: random instructions of a 16-bit code segment run natively, through modify_ldt(), in a
 * process of their own, and by the engine; registers, flags, memory and exceptions must agree.
 * Invariant: both start from the same numbers, and every case ends at the same offset of its segment.
 */
#include <CUnit/CUnit.h>
#include <asm/ldt.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "btvm.h"
#include "vcpu/bt/decode.h"
#include "vcpu/cpu/feature.h"

#define CASES   4000u
#define SEGMENT 0x10000u
#define END     0x140u /* where every instruction ends */
#define CODE    (BTVM_CODE)
#define DATA    (BTVM_CODE + 0x20000)
#define ARITH   0x8d5u

struct result {
	uint64_t regs[8], hash;
	uint32_t flags, vector; /* 3: it has run */
};

struct one {
	uint8_t code[16];
	unsigned len;
	uint32_t defined; /* flags */
	uint64_t regs[8];
	uint32_t flags;
};

static uint64_t seed;

static uint32_t rnd(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33);
}

static uint64_t hash_of(const uint8_t *p)
{
	const uint64_t *w = (const void *)p;
	uint64_t h = 0;

	for (unsigned i = 0; i < SEGMENT / 8; i++)
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15ull;
	return h;
}

static void fill(uint8_t *p)
{
	uint64_t s = 1;

	for (unsigned i = 0; i < SEGMENT; i++) {
		s = s * 6364136223846793005ull + 1;
		p[i] = (uint8_t)(s >> 56);
	}
}

/* Instructions whose effects are all in what is compared, and the same each time. */
static bool suits(const struct insn *in)
{
	switch (in->cls) {
	case CLS_REG:
	case CLS_MEM:
	case CLS_LEA:
	case CLS_PUSH:
	case CLS_POP:
	case CLS_LEAVE:
	case CLS_BT:
	case CLS_XLAT:
	case CLS_STRING: break;
	default: return false;
	}
	if (in->isa != ISA_GPR || (in->opcode_map == 1 && (in->opcode == 0xc7 || in->opcode == 0xae)))
		return false; /* random numbers; cache lines */
	for (unsigned i = 0; i < in->off_prefix_end; i++)
		if ((in->raw[i] & 0xfe) == 0x64)
			return false; /* the process's own */
	return true;
}

/* The flags that the manuals define after @in. */
static uint32_t defined_flags(const struct insn *in)
{
	const uint32_t cf = 1, zf = 0x40, of = 0x800;
	unsigned ext = in->reg & 7;

	if (in->opcode_map == 0 && (in->opcode & 0xfe) == 0xf6 && ext >= 4)
		return ext >= 6 ? 0 : cf | of; /* div; mul */
	if (in->opcode_map == 0)
		return in->opcode == 0x69 || in->opcode == 0x6b ? cf | of : ARITH;
	if (in->opcode == 0xaf)
		return cf | of;
	if (in->opcode == 0xbc || in->opcode == 0xbd)
		return in->rep == 0xf3 ? cf | zf : zf; /* tzcnt, lzcnt; bsf, bsr */
	return ARITH;
}

static void make(struct one *o, uint64_t features)
{
	static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e};
	struct insn in;

	do {
		unsigned n = 0;

		if (rnd() % 3 == 0)
			o->code[n++] = 0x66;
		if (rnd() % 3 == 0)
			o->code[n++] = 0x67;
		if (rnd() % 8 == 0)
			o->code[n++] = segs[rnd() % 4];
		if (rnd() % 8 == 0)
			o->code[n++] = rnd() % 2 ? 0xf3 : 0xf2;
		if (rnd() % 3 == 0)
			o->code[n++] = 0x0f;
		while (n < 16)
			o->code[n++] = (uint8_t)rnd();
	} while (decode_insn(&in, o->code, 15, 2, features) != DECODE_OK || !suits(&in));
	o->len = in.len;
	o->defined = defined_flags(&in);
	for (unsigned i = 0; i < 8; i++)
		o->regs[i] = rnd() % 2 ? rnd() & 0xfff : rnd();
	if (in.cls == CLS_STRING)
		o->regs[R_CX] = (o->regs[R_CX] & 0xffff0000) | rnd() % 20;
	o->regs[R_SP] = 0x4000 + rnd() % 0x1000;
	o->flags = 0x202 | (rnd() & ARITH);
}

/* ---- natively ---- */
static sigjmp_buf back;
static struct result *now;
static uint8_t alt[65536];

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	static const int order[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI};
	const greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	(void)sig;
	(void)si;
	for (unsigned i = 0; i < 8; i++)
		now->regs[i] = (uint32_t)g[order[i]];
	now->flags = (uint32_t)g[REG_EFL];
	now->vector = (uint32_t)g[REG_TRAPNO];
	siglongjmp(back, 1);
}

static int describe(unsigned n, uint32_t base, unsigned contents, unsigned big)
{
	struct user_desc d = {
		.entry_number = n, .base_addr = base, .limit = SEGMENT - 1, .seg_32bit = big, .contents = contents};

	return (int)syscall(SYS_modify_ldt, 0x11, &d, sizeof d);
}

/* Some paravirtual hosts take the entry and never load the table. */
static bool loaded(uint32_t sel)
{
	uint32_t rights;
	uint8_t ok;

	__asm__("lar %2, %0; setz %1" : "=r"(rights), "=q"(ok) : "r"(sel) : "cc");
	return ok;
}

/* Loads everything and goes there: ds and es are entry 1, ss is entry 2, cs entry 0. */
static void enter(const struct one *o)
{
	struct {
		uint64_t ip, cs, flags, sp, ss;
	} frame = {END - o->len, 0x07, o->flags, o->regs[R_SP], 0x17};

	__asm__ volatile("movl $0x0f, %%eax; movl %%eax, %%ds; movl %%eax, %%es\n"
			 "movq %0, %%rsp; movq %1, %%r8\n"
			 "movq (%%r8), %%rax; movq 8(%%r8), %%rcx; movq 16(%%r8), %%rdx; movq 24(%%r8), %%rbx\n"
			 "movq 40(%%r8), %%rbp; movq 48(%%r8), %%rsi; movq 56(%%r8), %%rdi\n"
			 "iretq"
			 :
			 : "r"(&frame), "r"(o->regs)
			 : "memory", "rax", "r8");
	__builtin_unreachable();
}

static void run_native(const struct one *cases, struct result *results)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGTRAP, SIGILL, SIGFPE};
	stack_t ss = {.ss_sp = alt, .ss_size = sizeof alt};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	uint8_t *code = mmap(NULL, 2 * SEGMENT, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	uint8_t *data = code + SEGMENT;

	if (code == MAP_FAILED || describe(0, (uint32_t)(uintptr_t)code, 2, 0) ||
	    describe(1, (uint32_t)(uintptr_t)data, 0, 0) || describe(2, (uint32_t)(uintptr_t)data, 0, 1) || !loaded(0x0f))
		_exit(2);
	sigaltstack(&ss, NULL);
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
		sigaction(signals[i], &sa, NULL);
	for (volatile unsigned i = 0; i < CASES; i++) {
		now = &results[i];
		fill(data);
		memset(code, 0xcc, SEGMENT);
		memcpy(code + END - cases[i].len, cases[i].code, cases[i].len);
		if (!sigsetjmp(back, 0))
			enter(&cases[i]);
		now->hash = hash_of(data);
	}
	_exit(0);
}

/* ---- by the engine ---- */
static void segment(struct seg *s, uint64_t base, uint32_t attr)
{
	s->base = base;
	s->limit = SEGMENT - 1;
	s->attr = attr;
}

static void run_engine(struct vcpu *v, const struct one *o, struct result *r)
{
	static uint8_t data[SEGMENT], code[SEGMENT];
	const uint32_t rw = SEG_A_P | SEG_A_S | 3u << 5 | 3;

	fill(data);
	memset(code, 0xcc, SEGMENT);
	memcpy(code + END - o->len, o->code, o->len);
	btvm_put(v, DATA, data, SEGMENT);
	btvm_put(v, CODE, code, SEGMENT);
	segment(&v->seg[SEG_CS], CODE, SEG_A_P | SEG_A_S | 3u << 5 | 11);
	segment(&v->seg[SEG_DS], DATA, rw);
	segment(&v->seg[SEG_ES], DATA, rw);
	segment(&v->seg[SEG_SS], DATA, rw | SEG_A_DB);
	memset(v->regs, 0, sizeof v->regs);
	memcpy(v->regs, o->regs, sizeof o->regs);
	vcpu_set_rflags(v, o->flags);
	v->rip = END - o->len;
	r->vector = vcpu_run_until(v, END, 100) == 1 ? v->exc_vector : 3;
	memcpy(r->regs, v->regs, sizeof r->regs);
	r->flags = (uint32_t)vcpu_rflags(v);
	r->hash = hash_of(v->vm->mem->ram + DATA);
}

static bool same(const struct one *o, const struct result *a, const struct result *b)
{
	return a->vector == b->vector && !memcmp(a->regs, b->regs, sizeof a->regs) && a->hash == b->hash &&
	       (a->vector != 3 || !((a->flags ^ b->flags) & o->defined));
}

static void tell(const struct one *o, const struct result *got, const struct result *want)
{
	for (unsigned i = 0; i < o->len; i++)
		fprintf(stderr, "%02x ", o->code[i]);
	fprintf(stderr, ": vector %u not %u, flags %x not %x%s", got->vector, want->vector, got->flags & ARITH,
		want->flags & ARITH, got->hash == want->hash ? "" : ", memory");
	for (unsigned i = 0; i < 8; i++)
		if (got->regs[i] != want->regs[i])
			fprintf(stderr, ", r%u %llx not %llx", i, (unsigned long long)got->regs[i],
				(unsigned long long)want->regs[i]);
	fprintf(stderr, "\n");
}

static void test_native(void)
{
	struct vcpu *v = btvm_reset();
	struct one *cases =
		mmap(NULL, CASES * sizeof *cases, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct result *want =
		mmap(NULL, CASES * sizeof *want, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned bad = 0, ran = 0;
	struct result got;
	int status = 0;
	pid_t pid;

	seed = 16;
	for (unsigned i = 0; i < CASES; i++)
		make(&cases[i], feature_word(v));
	pid = fork();
	if (pid == 0)
		run_native(cases, want);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
		fprintf(stderr, "no 16-bit segments on this host: left out\n");
		return;
	}
	CU_ASSERT_EQUAL(status, 0);
	btvm_mode(v, 3, 4);
	for (unsigned i = 0; i < CASES && status == 0; i++) {
		run_engine(v, &cases[i], &got);
		ran += want[i].vector == 3;
		if (same(&cases[i], &got, &want[i]))
			continue;
		if (bad++ < 20)
			tell(&cases[i], &got, &want[i]);
	}
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT(ran > CASES / 4);
	munmap(cases, CASES * sizeof *cases);
	munmap(want, CASES * sizeof *want);
}

CU_ErrorCode suite_seg16(void);
CU_ErrorCode suite_seg16(void)
{
	CU_pSuite s = CU_add_suite("seg16", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "16-bit code against the host's CPU", test_native))
		return CU_get_error();
	return CUE_SUCCESS;
}
