/*
 * The native runner: every case is entered by returning from a signal handler
 * with the case's registers in the signal frame, and left by the exception it
 * ends with, so one signal a case and no assembly.  The stop address holds hlt.
 *
 * Invariant: the fs base is the program's own while C code runs, and the
 * case's only between the handler's last statement and the next signal.
 */
#include "native.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "isa.h"
#include "memimg.h"

#define NOSP __attribute__((no_stack_protector))

#define UC_FLAGS_WANTED 7 /* UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS */

static struct native { /* the signal handler's context; one per process */
	struct batch *b;
	struct worker_out *out;
	uint32_t cur;
	int have_fsgsbase, running, ticks;
	uint64_t own_fs, own_gs;
	uint64_t home_gpr[NGREG];
	uint8_t home_xs[4096] __attribute__((aligned(64)));
	uint32_t home_xs_size;
	struct memview mem;
} nat;

static const int greg_of[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static inline long raw_syscall2(long n, long a, long b)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b) : "rcx", "r11", "memory");
	return r;
}

static inline uint64_t base_get(int fs)
{
	uint64_t v = 0;

	if (!nat.have_fsgsbase)
		raw_syscall2(SYS_arch_prctl, fs ? ARCH_GET_FS : ARCH_GET_GS, (long)&v);
	else if (fs)
		__asm__ volatile("rdfsbase %0" : "=r"(v));
	else
		__asm__ volatile("rdgsbase %0" : "=r"(v));
	return v;
}

static inline void base_set(int fs, uint64_t v)
{
	if (!nat.have_fsgsbase)
		raw_syscall2(SYS_arch_prctl, fs ? ARCH_SET_FS : ARCH_SET_GS, (long)v);
	else if (fs)
		__asm__ volatile("wrfsbase %0" ::"r"(v));
	else
		__asm__ volatile("wrgsbase %0" ::"r"(v));
}

static inline void sel_set(unsigned fs, unsigned gs)
{
	__asm__ volatile("mov %0, %%fs\n\tmov %1, %%gs" ::"r"(fs), "r"(gs));
}

static int tls_desc(unsigned entry, uint32_t base)
{
	struct user_desc d = {.entry_number = entry,
			      .base_addr = base,
			      .limit = 0xfffff,
			      .seg_32bit = 1,
			      .limit_in_pages = 1,
			      .useable = 1};

	return (int)raw_syscall2(SYS_set_thread_area, (long)&d, 0);
}

/* Out of the program's segment bases into the case's.  No TLS access after this. */
static inline void enter_bases(const struct cpu_state *st, uint32_t flags)
{
	if (flags & TEST_32BIT && !(flags & TEST_TLS)) {
		return; /* null selectors: using them raises #GP */
	} else if (flags & TEST_32BIT) {
		tls_desc(SEL_TLS0 >> 3, (uint32_t)st->fsbase);
		tls_desc(SEL_TLS1 >> 3, (uint32_t)st->gsbase);
		sel_set(SEL_TLS0, SEL_TLS1);
		return;
	}
	base_set(0, st->gsbase);
	base_set(1, st->fsbase);
}

static inline void leave_bases(struct cpu_state *st, uint32_t flags)
{
	st->fsbase = base_get(1);
	st->gsbase = base_get(0);
	if (flags & TEST_32BIT && !(flags & TEST_TLS))
		st->fsbase = st->gsbase = 0;
	__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" ::"r"(SEL_DS));
	sel_set(0, 0);
	base_set(1, nat.own_fs);
	base_set(0, nat.own_gs);
}

int native_has_tls(void)
{
	return tls_desc(SEL_TLS0 >> 3, 0) == 0;
}

int native_has_32bit(void)
{
	uint32_t rights;
	uint8_t ok;

	__asm__("lar %2, %0; setz %1" : "=r"(rights), "=q"(ok) : "r"(SEL_CS32) : "cc");
	return ok;
}

bool native_keeps_bases(void)
{
	return getauxval(AT_HWCAP2) & 2;
}

static void on_probe(int sig, siginfo_t *si, void *ctx)
{
	static int entered;
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	(void)sig, (void)si;
	if (entered++)
		_exit(g[REG_TRAPNO] != 6);
	g[REG_RSP] = (greg_t)1 << 62;
}

/* Goes back to an undefined instruction with such a stack pointer: is it met? */
static bool try_rsp(void)
{
	static char stack[65536] __attribute__((aligned(64)));
	const stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
	struct sigaction sa = {.sa_sigaction = on_probe, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	pid_t pid = fork();
	int ws;

	if (pid == 0) {
		sigaltstack(&ss, NULL);
		sigaction(SIGILL, &sa, NULL);
		sigaction(SIGSEGV, &sa, NULL);
		sigaction(SIGBUS, &sa, NULL);
		__asm__ volatile("ud2");
		_exit(2);
	}
	return pid > 0 && waitpid(pid, &ws, 0) == pid && WIFEXITED(ws) && !WEXITSTATUS(ws);
}

void native_limit(struct cpu_state *st)
{
	static int any_rsp = -1;
	const uint64_t user = 0x7fffffffefffull;

	if (any_rsp < 0)
		any_rsp = try_rsp();
	if (!any_rsp && (int64_t)st->gpr[4] >> 47 != (int64_t)st->gpr[4] >> 63)
		st->gpr[4] = (uint64_t)((int64_t)(st->gpr[4] << 16) >> 16);
	if (native_keeps_bases())
		return;
	if (st->fsbase > user)
		st->fsbase &= user;
	if (st->gsbase > user)
		st->gsbase &= user;
}

void xs_normalise(uint8_t *xs)
{
	uint64_t bv;

	memcpy(&bv, xs + XS_BV, 8);
	if (!(bv & 1)) {
		memset(xs, 0, XS_MXCSR);
		memset(xs + XS_ST, 0, XS_XMM - XS_ST);
		xs[XS_FCW] = 0x7f;
		xs[XS_FCW + 1] = 0x03;
	}
	if (!(bv & 2))
		memset(xs + XS_XMM, 0, 256);
	if (!(bv & 4))
		memset(xs + XS_YMMH, 0, 256);
	for (int c = XS_MASKS; isa_has_avx512() && c <= XS_ZMM_16; c++)
		if (!(bv >> c & 1))
			memset(xs + isa_xs_off(c), 0, c == XS_MASKS ? 64 : c == XS_ZMM_HI ? 512 : 1024);
	for (int i = 0; i < 8; i++) /* reserved halves of the x87 registers */
		memset(xs + XS_ST + 16 * i + 10, 0, 6);
	memset(xs + XS_MXCSR + 4, 0, 4); /* MXCSR_MASK */
	memset(xs + 416, 0, XS_YMMH - 416);
}

static void save_state(struct cpu_state *st, const ucontext_t *uc)
{
	for (int i = 0; i < 16; i++)
		st->gpr[i] = (uint64_t)uc->uc_mcontext.gregs[greg_of[i]];
	st->rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
	st->rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
	memset(st->xs, 0, XS_SIZE);
	memcpy(st->xs, uc->uc_mcontext.fpregs, isa_xs_size());
	xs_normalise(st->xs);
}

static void load_state(ucontext_t *uc, const struct testcase *tc, uint32_t flags)
{
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *xs = (uint8_t *)uc->uc_mcontext.fpregs;
	uint64_t cs = flags & TEST_32BIT ? SEL_CS32 : SEL_CS64, bv;

	for (int i = 0; i < 16; i++)
		g[greg_of[i]] = (greg_t)tc->in.gpr[i];
	g[REG_RIP] = (greg_t)tc->in.rip;
	g[REG_EFL] = (greg_t)tc->in.rflags;
	g[REG_CSGSFS] = (greg_t)(cs | (uint64_t)SEL_DS << 48);
	uc->uc_flags = UC_FLAGS_WANTED;
	memcpy(xs, tc->in.xs, 464); /* up to the bytes the kernel keeps for itself */
	memcpy(xs + XS_YMMH, tc->in.xs + XS_YMMH, 256);
	if (isa_has_avx512())
		memcpy(xs + isa_xs_off(XS_MASKS), tc->in.xs + isa_xs_off(XS_MASKS),
		       isa_xs_size() - isa_xs_off(XS_MASKS));
	memcpy(&bv, xs + XS_BV, 8);
	bv |= isa_has_avx512() ? 0xe7 : 7;
	memcpy(xs + XS_BV, &bv, 8);
}

static void save_result(struct result *r, const struct test *t, const ucontext_t *uc, int sig, const siginfo_t *si)
{
	const greg_t *g = uc->uc_mcontext.gregs;

	save_state(&r->st, uc);
	r->vector = (uint32_t)g[REG_TRAPNO];
	r->error = (uint32_t)g[REG_ERR];
	r->cr2 = r->vector == 14 ? (uint64_t)g[REG_CR2] : 0;
	r->outcome = OUT_FAULT;
	if (sig == SIGPROF)
		r->outcome = OUT_TIMEOUT;
	else if (si->si_code <= 0 && si->si_code != SI_KERNEL)
		r->outcome = OUT_ODD;
	else if (r->st.rip == t->stop && r->vector == 13)
		r->outcome = OUT_STOP;
	if (r->outcome != OUT_FAULT)
		r->vector = r->error = 0;
}

static void begin_case(ucontext_t *uc)
{
	struct batch *b = nat.b;
	const struct testcase *tc = &b->tc[nat.cur];

	nat.out->progress = nat.cur;
	nat.ticks = 0;
	mem_poke(&nat.mem, tc);
	load_state(uc, tc, b->test[tc->test].flags);
	nat.running = 1;
}

static void go_home(ucontext_t *uc)
{
	memcpy(uc->uc_mcontext.gregs, nat.home_gpr, sizeof nat.home_gpr);
	uc->uc_mcontext.gregs[REG_RIP] += 2; /* past ud2 */
	uc->uc_flags = UC_FLAGS_WANTED;
	memcpy(uc->uc_mcontext.fpregs, nat.home_xs, nat.home_xs_size);
}

static void end_case(ucontext_t *uc, int sig, const siginfo_t *si)
{
	struct batch *b = nat.b;
	const struct testcase *tc = &b->tc[nat.cur];
	struct result *r = &nat.out->out[nat.cur];

	nat.running = 0;
	save_result(r, &b->test[tc->test], uc, sig, si);
	mem_collect(&nat.mem, b, nat.out, r);
	nat.cur++;
}

/* A tick of CPU time, not of the clock: the host may put a case to sleep for a locked access across lines.  A case that sees
 * three of them is stuck. */
static int tick(void)
{
	return nat.running && ++nat.ticks >= 3;
}

/* The kernel enters handlers with the case's AC, so that unaligned accesses of ours would raise SIGBUS, and with its ID
 * and NT, which sigreturn does not set and so must not keep. */
static inline void clear_ac(void)
{
	__asm__ volatile("sub $128, %%rsp\n\tpushf\n\tandl $~0x244000, (%%rsp)\n\tpopf\n\tadd $128, %%rsp" ::
				 : "memory", "cc");
}

NOSP static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	ucontext_t *uc = ctx;
	struct cpu_state bases;
	uint32_t flags = 0;

	clear_ac();
	if (nat.running) {
		flags = nat.b->test[nat.b->tc[nat.cur].test].flags;
		leave_bases(&bases, flags);
	}
	if (sig == SIGPROF && !tick()) {
		if (nat.running)
			enter_bases(&bases, flags);
		return;
	}
	if (nat.running) {
		nat.out->out[nat.cur].st.fsbase = bases.fsbase;
		nat.out->out[nat.cur].st.gsbase = bases.gsbase;
		end_case(uc, sig, si);
	} else {
		memcpy(nat.home_gpr, uc->uc_mcontext.gregs, sizeof nat.home_gpr);
		memcpy(nat.home_xs, uc->uc_mcontext.fpregs, nat.home_xs_size);
	}
	if (nat.cur >= nat.b->ncases) {
		go_home(uc);
		return;
	}
	begin_case(uc);
	enter_bases(&nat.b->tc[nat.cur].in, nat.b->test[nat.b->tc[nat.cur].test].flags);
}

static uint8_t *map_at(uint64_t addr, uint64_t len, int prot)
{
	void *p = mmap((void *)addr, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)addr) {
		perror("insn-diff: mmap of the test's address space");
		_exit(3);
	}
	return p;
}

static void install_handlers(void)
{
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGPROF};
	uint64_t len = 1 << 16;
	stack_t ss = {.ss_size = len};
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	ss.ss_sp = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaltstack(&ss, NULL);
	sigfillset(&sa.sa_mask);
	for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++)
		sigaction(sigs[i], &sa, NULL);
}

void native_init(void)
{
	uint8_t *code = map_at(CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);

	for (int i = 0; i < CODE_PAGES; i++)
		nat.mem.code[i] = code + i * PG;
	for (int i = 0; i < WR_PAGES; i++)
		nat.mem.page[i] = map_at(wr_page[i], PG, PROT_READ | PROT_WRITE);
	nat.mem.page[WR_PAGES] = map_at(RO_PAGE, PG, PROT_READ | PROT_WRITE);
	nat.have_fsgsbase = native_keeps_bases();
	nat.own_fs = base_get(1);
	nat.own_gs = base_get(0);
	nat.home_xs_size = isa_xs_size();
	install_handlers();
	__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" ::"r"(SEL_DS));
}

void native_run(struct batch *b, struct worker_out *out, uint32_t from)
{
	struct itimerval it = {.it_interval = {0, 10000}, .it_value = {0, 10000}}, off = {0};

	memcpy(nat.mem.code[0], b->code, CODE_SIZE);
	for (int i = 0; i < WR_PAGES; i++)
		memcpy(nat.mem.page[i], b->image + i * PG, PG);
	mprotect(nat.mem.page[WR_PAGES], PG, PROT_READ | PROT_WRITE);
	memcpy(nat.mem.page[WR_PAGES], b->image + WR_PAGES * PG, PG);
	mprotect(nat.mem.page[WR_PAGES], PG, PROT_READ);
	nat.b = b;
	nat.out = out;
	nat.cur = from;
	if (from >= b->ncases)
		return;
	setitimer(ITIMER_PROF, &it, NULL);
	__asm__ volatile("ud2" ::: "memory");
	setitimer(ITIMER_PROF, &off, NULL);
	out->progress = b->ncases;
}
