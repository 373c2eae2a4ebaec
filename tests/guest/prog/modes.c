/*
 * Processor modes that a program can change under its own feet, as a program sees them: the alignment check, the time
 * stamp counter's ban, null selectors, and flags that a system call is entered with.
 *
 * Invariant: each is looked at behind indirect branches that ran before in the other mode, so that whatever a machine
 * keeps of them is there.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define CF 0x1ul
#define TF 0x100ul
#define DF 0x400ul
#define NT 0x4000ul
#define AC 0x40000ul
#define ID 0x200000ul

static int failures;
static volatile unsigned faults, steps;
static sigjmp_buf back;

static void expect(int cond, const char *what, unsigned long got)
{
	if (cond)
		return;
	failures++;
	printf("modes: failed: %s: %#lx\n", what, got);
}

static void clear_flags(unsigned long f)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andq %0, (%%rsp); popfq; lea 128(%%rsp), %%rsp" ::"r"(~f)
			 : "memory", "cc");
}

static void fault(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)si;
	(void)uc;
	clear_flags(AC);
	faults++;
	siglongjmp(back, 1);
}

static void step(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)si;
	(void)uc;
	steps++;
}

static void catch_with(int sig, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};

	sigaction(sig, &sa, NULL);
}

/* ---- alignment ---- */
static uint64_t words[8];

/* mov (%rdi), %eax; ret, in a page of its own and next to its caller */
__asm__(".text; .balign 4096; load_far: mov (%rdi), %eax; ret; .balign 4096; load_near: mov (%rdi), %eax; ret\n"
	/* rdi: the address, rsi: the function, edx: flags to set; a call, a jump and a return to it */
	"call_with: pushfq; or %rdx, (%rsp); popfq; call *%rsi; pushfq; andq $~0x40000, (%rsp); popfq; ret\n"
	"jump_with: pushfq; or %rdx, (%rsp); popfq; jmp *%rsi\n"
	"ret_with: push %rsi; pushfq; or %rdx, (%rsp); popfq; ret\n"
	"direct_with: pushfq; or %rdx, (%rsp); popfq; call load_near; pushfq; andq $~0x40000, (%rsp); popfq; ret\n"
	"far_with: pushfq; or %rdx, (%rsp); popfq; jmp load_far\n"
	".balign 4096");
typedef void way(const void *address, void (*target)(void), unsigned long flags);
extern void load_far(void), load_near(void);
extern way call_with, jump_with, ret_with, direct_with, far_with;

__attribute__((noinline)) static unsigned faults_of(way *branch, const void *address, void (*target)(void))
{
	faults = 0;
	if (!sigsetjmp(back, 1))
		branch(address, target, AC);
	clear_flags(AC);
	return faults;
}

static void alignment(void)
{
	static way *const ways[] = {call_with, jump_with, ret_with, direct_with, far_with};
	const char *odd = (const char *)words + 1;

	for (unsigned w = 0; w < 5; w++)
		for (int i = 0; i < 20; i++) {
			void (*target)(void) = i & 1 ? load_near : load_far;

			ways[w](odd, target, 0);
			ways[w](odd, target, 0);
			expect(faults_of(ways[w], odd, target) == 1, "no SIGBUS behind branch", w);
		}
}

/* ---- the time stamp counter ---- */
static uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (uint64_t)hi << 32;
}

static uint64_t (*volatile read_tsc)(void) = rdtsc;

__attribute__((noinline)) static unsigned tsc_faults(void)
{
	faults = 0;
	if (!sigsetjmp(back, 0))
		read_tsc();
	return faults;
}

static unsigned tsc_faults_of(unsigned n)
{
	unsigned sum = 0;

	while (n-- > 0)
		sum += tsc_faults();
	return sum;
}

static void time_stamps(void)
{
	uint64_t last = 0;
	unsigned n;

	for (int i = 0; i < 1000; i++) {
		uint64_t now = read_tsc();

		expect(now > last, "time stamps go on", now);
		last = now;
	}
	expect(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0, "PR_SET_TSC", 0);
	n = tsc_faults_of(1000);
	expect(n == 1000, "faults of 1000 rdtsc under PR_TSC_SIGSEGV", n);
	prctl(PR_SET_TSC, PR_TSC_ENABLE);
	n = tsc_faults_of(1000);
	expect(n == 0, "faults after PR_TSC_ENABLE", n);
}

/* A process under the ban beside one that is not: each keeps its own. */
static void time_stamps_apart(void)
{
	int status, fd[2][2];
	unsigned n = 0;
	char c = 0;
	pid_t child;

	if (pipe(fd[0]) || pipe(fd[1]))
		return;
	child = fork();
	if (child == 0) {
		prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
		for (int i = 0; i < 200; i++)
			if (tsc_faults() != 1 || read(fd[0][0], &c, 1) != 1 || write(fd[1][1], &c, 1) != 1)
				_exit(1);
		_exit(0);
	}
	for (int i = 0; i < 200; i++) {
		n += tsc_faults();
		if (write(fd[0][1], &c, 1) != 1 || read(fd[1][0], &c, 1) != 1)
			break;
	}
	expect(waitpid(child, &status, 0) == child && status == 0, "the child under the ban", (unsigned long)status);
	expect(n == 0, "faults beside it", n);
}

/* ---- null selectors ---- */
/* A return from the kernel by iret, a page fault's, makes null selectors of any RPL 0. */
static void null_selectors(void)
{
	unsigned ds, es, fs, gs;

	for (unsigned sel = 0; sel < 4; sel++) {
		volatile char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		__asm__ volatile("mov %5, %%ds; mov %5, %%es; mov %5, %%gs; movb $1, (%4); mov %%ds, %0; mov %%es, %1; "
				 "mov %%fs, %2; mov %%gs, %3"
				 : "=&r"(ds), "=&r"(es), "=&r"(fs), "=&r"(gs)
				 : "r"(page), "r"(sel)
				 : "memory");
		expect(!(ds | es | fs | gs), "null selectors after iret", ds << 24 | es << 16 | fs << 8 | gs);
	}
}

/* ---- flags into system calls ---- */
/* getppid with the flags set; those after it. */
__attribute__((noinline)) static unsigned long flags_over_syscall(unsigned long flags, long *result)
{
	long nr = 110;
	unsigned long after;

	__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq %[set], (%%rsp); popfq; syscall; pushfq; popq %[after]; "
			 "pushfq; andq %[clear], (%%rsp); popfq; lea 128(%%rsp), %%rsp"
			 : "+a"(nr), [after] "=&r"(after)
			 : [set] "r"(flags), [clear] "r"(~(NT | TF | AC | DF))
			 : "rcx", "r11", "memory", "cc");
	*result = nr;
	return after;
}

static void flags_and_syscalls(void)
{
	static const unsigned long sets[] = {NT,           AC,      NT | AC, TF,           NT | TF,      AC | TF,
					     NT | AC | TF, DF | NT, CF | NT, ID | NT | AC, NT | TF | DF, 0};
	long parent = getppid(), got;

	for (int round = 0; round < 50; round++)
		for (unsigned i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
			unsigned long after;

			steps = 0;
			after = flags_over_syscall(sets[i], &got);
			expect(got == parent, "getppid with flags", sets[i]);
			expect((after & sets[i]) == sets[i], "flags after a system call", after);
			expect(!(sets[i] & TF) == !steps, "single steps", steps);
		}
}

int main(void)
{
	catch_with(SIGBUS, fault);
	catch_with(SIGSEGV, fault);
	catch_with(SIGTRAP, step);
	alignment();
	time_stamps();
	time_stamps_apart();
	null_selectors();
	flags_and_syscalls();
	alignment();
	puts(failures ? "modes: FAILED" : "modes: passed");
	return failures != 0;
}
