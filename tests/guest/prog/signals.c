/*
 * Signals and what the processor reports with them, as a program sees it.
 *
 * Invariant: every handler checks the address, code and registers that the kernel
 * took from the processor, so a wrong error code or rip shows up here.
 */
#define _GNU_SOURCE
#include <fenv.h>
#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static int failures;
static sigjmp_buf back;
static siginfo_t info;
static ucontext_t context;
static volatile sig_atomic_t ticks, steps;

static void expect(int cond, const char *what)
{
	if (cond)
		return;
	failures++;
	printf("signals: failed: %s\n", what);
}

static void note(int sig, siginfo_t *si, void *uc)
{
	info = *si;
	memcpy(&context, uc, sizeof(context));
	(void)sig;
	siglongjmp(back, 1);
}

static void catch_with(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

	sigaction(sig, &sa, NULL);
}

/* Runs what and returns true if it raised a signal. */
static int raises(void (*what)(void))
{
	memset(&info, 0, sizeof(info));
	if (sigsetjmp(back, 1))
		return 1;
	what();
	return 0;
}

static char *hole;
extern char at_store[], at_ud2[], at_div[];

static void store_to_hole(void)
{
	__asm__ volatile("at_store: movl $1, (%0)" ::"r"(hole + 0x123) : "memory");
}

static void read_null(void)
{
	uintptr_t a = 0x10;

	__asm__ volatile("mov (%0), %%eax" ::"r"(a) : "rax");
}

static void read_wild(void)
{
	uintptr_t a = 0x8000123400000000ull;

	__asm__ volatile("mov (%0), %%rax" ::"r"(a) : "rax");
}

static void read_kernel(void)
{
	uintptr_t a = 0xffffffff81000000ull;

	__asm__ volatile("mov (%0), %%rax" ::"r"(a) : "rax");
}

static void run_data(void)
{
	((void (*)(void))(uintptr_t)(hole + 4096))();
}

static void undefined(void)
{
	__asm__ volatile("at_ud2: ud2");
}

static void divide(void)
{
	__asm__ volatile("xor %%ecx, %%ecx; mov $7, %%eax; cltd; at_div: idiv %%ecx" ::: "rax", "rcx", "rdx", "cc");
}

static void breakpoint(void)
{
	__asm__ volatile("int3");
}

static void privileged(void)
{
	__asm__ volatile("hlt");
}

static void sse_exception(void)
{
	volatile float zero = 0, one = 1;

	feenableexcept(FE_DIVBYZERO);
	one = one / zero;
}

static void x87_exception(void)
{
	uint16_t control = 0x0340;

	__asm__ volatile("fninit; fldcw %0; fldz; fld1; fdivp; fwait" ::"m"(control));
}

static long long error_code(void)
{
	return context.uc_mcontext.gregs[REG_ERR];
}

static long long rip(void)
{
	return context.uc_mcontext.gregs[REG_RIP];
}

static void faults(int sse_exceptions)
{
	hole = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect(hole[0] == 0 && hole[4096] == 0, "read-only pages");
	expect(raises(store_to_hole) && info.si_signo == SIGSEGV && info.si_code == SEGV_ACCERR &&
		       info.si_addr == hole + 0x123,
	       "store to a read-only page");
	expect(error_code() == 7 && rip() == (intptr_t)at_store, "its error code and rip");
	expect(raises(read_null) && info.si_code == SEGV_MAPERR && info.si_addr == (void *)0x10 && error_code() == 4,
	       "read near zero");
	expect(raises(read_wild) && info.si_signo == SIGSEGV && info.si_code == SI_KERNEL, "non-canonical address");
	expect(raises(read_kernel) && info.si_signo == SIGSEGV && info.si_addr == (void *)0xffffffff81000000ull,
	       "kernel address");
	expect(raises(run_data) && info.si_addr == hole + 4096 && error_code() == 0x15 &&
		       rip() == (intptr_t)(hole + 4096),
	       "running data");
	expect(raises(undefined) && info.si_signo == SIGILL && rip() == (intptr_t)at_ud2, "ud2");
	expect(raises(divide) && info.si_signo == SIGFPE && info.si_code == FPE_INTDIV && rip() == (intptr_t)at_div,
	       "division by zero");
	expect(raises(breakpoint) && info.si_signo == SIGTRAP, "int3");
	expect(raises(privileged) && info.si_signo == SIGSEGV && info.si_code == SI_KERNEL, "hlt in user mode");
	if (sse_exceptions)
		expect(raises(sse_exception) && info.si_signo == SIGFPE && info.si_code == FPE_FLTDIV,
		       "SSE division by zero");
	fedisableexcept(FE_ALL_EXCEPT);
	expect(raises(x87_exception) && info.si_signo == SIGFPE && info.si_code == FPE_FLTDIV, "x87 division by zero");
	__asm__ volatile("fninit");
}

static void on_step(int sig, siginfo_t *si, void *uc)
{
	steps++;
	(void)sig;
	(void)si;
	(void)uc;
}

/* Five instructions run with the trap flag set: one SIGTRAP after each. */
static void single_step(void)
{
	uint64_t result;

	steps = 0;
	catch_with(SIGTRAP, on_step, 0);
	__asm__ volatile("sub $128, %%rsp; pushfq; orq $0x100, (%%rsp); popfq\n\t"
			 "mov $1, %%eax; add %%eax, %%eax; lea 3(%%rax), %0; push %0; pop %0\n\t"
			 "pushfq; andq $~0x100, (%%rsp); popfq; add $128, %%rsp"
			 : "=r"(result)::"rax", "memory", "cc");
	expect(result == 5, "result under single-step");
	expect(steps == 8, "number of single steps");
}

static void on_tick(int sig, siginfo_t *si, void *uc)
{
	/* disturb vector and x87 state: sigreturn must bring back the interrupted code's */
	__asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; fninit; fld1" ::: "xmm0", "xmm7");
	ticks++;
	(void)sig;
	(void)si;
	(void)uc;
}

/* A computation through integer, flag, vector and x87 registers with one right answer. */
static __attribute__((noinline)) uint64_t busy(void)
{
	uint64_t h = 1, bits;
	double d = 1;
	long double x = 1;

	for (int i = 1; i < 3000; i++) {
		h = h * 6364136223846793005ull + i + (h > (uint64_t)i << 50);
		d = d * 1.0001 + i;
		x = x * 0.5L + i;
	}
	d += (double)x;
	memcpy(&bits, &d, sizeof(bits));
	return h ^ bits;
}

/* Timer signals at 2 ms must not disturb registers, flags, vectors or x87 of a busy loop. */
static void timers(void)
{
	struct itimerval every = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
	uint64_t right = busy();
	int wrong = 0;

	catch_with(SIGALRM, on_tick, SA_RESTART);
	setitimer(ITIMER_REAL, &every, NULL);
	while (ticks < 100)
		wrong += busy() != right;
	setitimer(ITIMER_REAL, &never, NULL);
	expect(wrong == 0, "registers across timer signals");
}

/* Processes with different numbers in their vector registers, one CPU: switches must keep them apart. */
static void switches(void)
{
	int status, bad = 0;

	for (int child = 0; child < 3; child++)
		if (fork() == 0) {
			__m128i mine = _mm_set1_epi32(0x1111 * (child + 1)), now = mine;

			for (long i = 0; i < 20000000; i++)
				__asm__ volatile("" : "+x"(now));
			_exit(_mm_movemask_epi8(_mm_cmpeq_epi8(now, mine)) != 0xffff);
		}
	while (wait(&status) > 0)
		bad += status != 0;
	expect(!bad, "vector registers across switches");
}

static volatile int nested;

static void on_nested(int sig, siginfo_t *si, void *uc)
{
	nested++;
	if (sig == SIGUSR1)
		raise(SIGUSR2);
	expect(si->si_pid == getpid(), "sender");
	(void)uc;
}

static void many(void)
{
	static char stack[65536];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};

	sigaltstack(&ss, NULL);
	catch_with(SIGUSR1, on_nested, SA_ONSTACK);
	catch_with(SIGUSR2, on_nested, 0);
	for (int i = 0; i < 2000; i++)
		raise(SIGUSR1);
	expect(nested == 4000, "nested signals");
}

int main(int argc, char **argv)
{
	static const int caught[] = {SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGBUS};

	for (unsigned i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		catch_with(caught[i], note, 0);
	/* QEMU TCG has no SIMD floating-point exceptions */
	faults(argc < 2 || strcmp(argv[1], "tcg"));
	single_step();
	timers();
	switches();
	many();
	puts(failures ? "signals: FAILED" : "signals: passed");
	return failures != 0;
}
