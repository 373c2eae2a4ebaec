/*
 * What ring 3 can do, and what it gets for it: each line of output must be the same however the program is run (direct.sh compares).
 * Faults of every kind, system calls of every kind, single steps, segments, code that changes under its own feet and behind its
 * back, pages that come, go and change hands.  Invariant: nothing is printed that depends on time or on where things lie.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096ul
#define CODE 0x10000000ul
#define DATA 0x20000000ul /* readable, writable; then a page that may not be written, then one that is not there */

static sigjmp_buf back;
static volatile int steps, ticks;
static volatile uint64_t step_sum;

static void on_fault(int sig, siginfo_t *si, void *ctx)
{
	const greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	const uint64_t rip = (uint64_t)g[REG_RIP];

	printf(" signal %d code %d vector %d error %llx rip %s%llx rcx %llx r11 %llx", sig, si->si_code,
	       (int)g[REG_TRAPNO], (unsigned long long)g[REG_ERR], rip - CODE < 2 * PAGE ? "+" : "",
	       (unsigned long long)(rip - CODE < 2 * PAGE ? rip - CODE : rip), (unsigned long long)g[REG_RCX],
	       (unsigned long long)g[REG_R11]);
	if (sig == SIGSEGV || sig == SIGBUS)
		printf(" at %lx", (unsigned long)si->si_addr);
	printf("\n");
	siglongjmp(back, 1);
}

static void on_step(int sig, siginfo_t *si, void *ctx)
{
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;

	(void)sig;
	(void)si;
	steps++;
	step_sum = step_sum * 31 + (uint64_t)g[REG_RIP] - CODE;
}

static void on_tick(int sig)
{
	(void)sig;
	ticks++;
}

static void catch (int sig, void (*f)(int, siginfo_t *, void *))
{
	struct sigaction sa = {.sa_sigaction = f, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	sigaction(sig, &sa, NULL);
}

/* Some milliseconds of nothing: who watches sees a program that computes. */
static void compute(void)
{
	for (volatile unsigned i = 0; i < 4000000; i++)
		;
}

/* Runs @bytes at CODE + @at with rax, rbx and rdx set, or says how it ended; rcx and r11 are 0x111 and 0x222. */
static void try(const char *name, unsigned at, const void *bytes, size_t n, uint64_t rax, uint64_t rbx)
{
	uint8_t *code = (uint8_t *)CODE + at;
	uint64_t rcx = 0x111, r11 = 0x222;

	memset((void *)CODE, 0x90, PAGE);
	memcpy(code, bytes, n);
	code[n] = 0xc3;
	printf("%s:", name);
	fflush(stdout);
	if (sigsetjmp(back, 1))
		return;
	__asm__ volatile("mov %2, %%rcx\n\tmov %3, %%r11\n\tcall *%4\n\tmov %%r11, %3\n\t"
			 : "+a"(rax), "+b"(rbx), "+c"(rcx), "+r"(r11)
			 : "r"(code), "d"(0ul)
			 : "memory", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc");
	printf(" returned rax %llx rbx %llx\n", (unsigned long long)rax, (unsigned long long)rbx);
}
#define TRY(name, bytes, rax, rbx) try(name, 0, bytes, sizeof(bytes) - 1, rax, rbx)

static void faults(void)
{
	TRY("nop", "\x90", 1, 2);
	TRY("int3", "\xcc", 0, 0);
	TRY("int 3", "\xcd\x03", 0, 0);
	TRY("int1", "\xf1", 0, 0);
	TRY("int 4", "\xcd\x04", 0, 0);
	TRY("int 0x33", "\xcd\x33", 0, 0);
	TRY("ud2", "\x0f\x0b", 0, 0);
	TRY("div by 0", "\x31\xd2\x31\xc9\xf7\xf1", 5, 0);
	TRY("hlt", "\xf4", 0, 0);
	TRY("cli", "\xfa", 0, 0);
	TRY("in", "\xec", 0, 0);
	TRY("out", "\xee", 0, 0);
	TRY("rdmsr", "\x0f\x32", 0, 0);
	TRY("mov cr0", "\x0f\x20\xc0", 0, 0);
	TRY("mov dr7", "\x0f\x21\xf8", 0, 0);
	TRY("swapgs", "\x0f\x01\xf8", 0, 0);
	TRY("invlpg", "\x0f\x01\x3b", 0, DATA);
	TRY("clts", "\x0f\x06", 0, 0);
	TRY("sysret", "\x0f\x07", 0, 0);
	TRY("iret to nowhere", "\x48\xcf", 0, 0);
	TRY("sysenter", "\x0f\x34", 0, 0);
	TRY("read not canonical", "\x48\x8b\x03", 0, 0x8000000000000000);
	TRY("write not canonical", "\x48\x89\x03", 0, 0x0000800000000000);
	TRY("jump not canonical", "\xff\xe3", 0, 0x0000800000000000);
	TRY("read kernel", "\x48\x8b\x03", 0, 0xffffffff81000000);
	TRY("write kernel", "\x48\x89\x03", 0, 0xffff888000000000);
	TRY("jump to kernel", "\xff\xe3", 0, 0xffffffff81000000);
	TRY("read null", "\x8b\x03", 0, 0);
	TRY("read hole", "\x8b\x03", 0, DATA + 2 * PAGE);
	TRY("write hole", "\x89\x03", 7, DATA + 2 * PAGE);
	TRY("jump to hole", "\xff\xe3", 0, DATA + 2 * PAGE + 8);
	TRY("write read-only", "\x89\x03", 7, DATA + PAGE);
	TRY("write across into read-only", "\x48\x89\x03", 7, DATA + PAGE - 4);
	TRY("jump to data", "\xff\xe3", 0, DATA + 16);
	TRY("lock of a register", "\xf0\x48\x01\xc3", 0, 0);
	TRY("last page", "\x8b\x03", 0, 0x7fffffffeff0);
	TRY("behind the last page", "\x8b\x03", 0, 0x7fffffffe000 + PAGE);
	try("runs off its page", PAGE - 2, "\x90", 1, 0, 0);
}

static void calls(void)
{
	static const unsigned nr[] = {335, 336, 337, 500, 511, 512, 547, 1000, 0x7fffffff, 0x80000000, 0xffffffff};
	char name[64];

	for (unsigned abi = 0; abi < 2; abi++)
		for (unsigned i = 0; i < sizeof nr / sizeof nr[0]; i++) {
			snprintf(name, sizeof name, "call %x of abi %u", nr[i], abi);
			try(name, 0, abi ? "\xcd\x80" : "\x0f\x05", 2, nr[i], 0);
		}
	TRY("x32 getpid", "\x0f\x05", 0x40000027, 0);
	TRY("int 0x80 of getppid", "\xcd\x80\x31\xc0", 64, 0);
	TRY("vsyscall time", "\xff\xd3\x48\x85\xc0\x0f\x9f\xc0\x0f\xb6\xc0", 0, 0xffffffffff600400);
	TRY("vsyscall nowhere", "\xff\xd3", 0, 0xffffffffff600100);
	TRY("vsyscall read", "\x8b\x03", 0, 0xffffffffff600000);
}

static void single_steps(void)
{
	/* pushfq; orl $0x100, (%rsp); popfq; 5 nops; pushfq; andl $~0x100, (%rsp); popfq */
	static const char code[] =
		"\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x90\x90\x90\x90\x90\x9c\x81\x24\x24\xff\xfe\xff\xff\x9d";

	catch (SIGTRAP, on_step);
	compute();
	TRY("steps", code, 0, 0);
	printf("steps: %d, %llx\n", steps, (unsigned long long)step_sum);
	catch (SIGTRAP, on_fault);
}

static void segments(void)
{
	TRY("ds, es", "\x8e\xdb\x8e\xc3\x8c\xd8\xc1\xe0\x10\x8c\xc1\x66\x89\xc8\x31\xc9\x8e\xd9\x8e\xc1", 0, 0x2b);
	TRY("ds beyond", "\x8e\xdb", 0, 0x203);
	TRY("ds of ring 0", "\x8e\xdb", 0, 0x18);
	TRY("ss again", "\x8e\xd3\x90\x8c\xd0", 0, 0x2b);
	TRY("gs, null", "\x8e\xeb\x8c\xe8", 0, 0);
	/* push $0x33; push $next; lretq */
	TRY("far return", "\x6a\x33\x48\x8d\x05\x04\x00\x00\x00\x50\x48\xcb\x90\x90\x8c\xc8", 0, 0);
	/* to 32-bit code, which adds and comes back: push $0x23; push $CODE + 0x40; lretq; 0x40: inc ecx; push $0x33; push $CODE + 0x50; lret */
	{
		uint8_t c[0x60];

		memset(c, 0x90, sizeof c);
		memcpy(c, "\x48\x89\xe3\xbc\xf0\x0f\x00\x20\x6a\x23\x68\x40\x00\x00\x10\x48\xcb", 17);
		memcpy(c + 0x40, "\x40\x40\x41\x6a\x33\x68\x50\x00\x00\x10\xcb", 11);
		memcpy(c + 0x50, "\x48\x89\xdc\x31\xdb", 5);
		compute();
		try("32-bit code", 0, c, sizeof c, 5, 0);
	}
}

static void code_changes(void)
{
	uint8_t *code = (uint8_t *)CODE, *alias;
	int fd = memfd_create("code", 0);
	uint64_t sum = 0;

	for (unsigned i = 0; i < 3000; i++) { /* mov $i, %eax; ret */
		code[0] = 0xb8;
		memcpy(code + 1, &i, 4);
		code[5] = 0xc3;
		sum = sum * 33 + ((unsigned (*)(void))CODE)();
	}
	printf("code that is written and run: %llx\n", (unsigned long long)sum);
	if (ftruncate(fd, (off_t)PAGE))
		return;
	alias = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	code = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	for (unsigned i = 0; i < 3000; i++) {
		alias[0] = 0xb8;
		memcpy(alias + 1, &i, 4);
		alias[5] = 0xc3;
		if (i % 500 == 0)
			compute();
		sum = sum * 33 + ((unsigned (*)(void))(uintptr_t)code)();
	}
	printf("code that is written elsewhere: %llx\n", (unsigned long long)sum);
	for (unsigned i = 0; i < 300; i++) {
		uint8_t now[6] = {0xb8, 0, 0, 0, 0, 0xc3};

		memcpy(now + 1, &i, 4);
		if (pwrite(fd, now, 6, 0) != 6) /* by the kernel */
			return;
		sum = sum * 33 + ((unsigned (*)(void))(uintptr_t)code)();
	}
	printf("code that the kernel writes: %llx\n", (unsigned long long)sum);
	/* it becomes an instruction that tells of the machine: sgdt, whose base Linux makes up */
	compute();
	for (unsigned i = 0; i < 50; i++) {
		static const char sgdt[] = "\x48\x83\xec\x10\x0f\x01\x04\x24\x48\x8b\x44\x24\x02\x48\x83\xc4\x10\xc3";

		memcpy(alias, i & 1 ? sgdt : "\xb8\x01\x00\x00\x00\xc3\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90",
		       18);
		getppid(); /* whoever runs it has a new chance */
		sum = sum * 33 + ((unsigned (*)(void))(uintptr_t)code)();
		if (i % 10 == 0)
			compute();
	}
	printf("code that becomes sgdt: %llx\n", (unsigned long long)sum);
}

#define PAGES 300ul

static unsigned check_stamps(const uint64_t *m, uint64_t stamp)
{
	unsigned bad = 0;

	for (uint64_t i = 0; i < PAGES; i++)
		bad += m[i * PAGE / 8] != stamp + i || m[i * PAGE / 8 + 511] != ~(stamp + i);
	return bad;
}

static void set_stamps(uint64_t *m, uint64_t stamp)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		m[i * PAGE / 8] = stamp + i;
		m[i * PAGE / 8 + 511] = ~(stamp + i);
	}
}

static void pages_change_hands(void)
{
	static unsigned bad, faulted, turn; /* longjmp leaves them alone */
	static uint64_t *m;
	int status;

	for (turn = 0; turn < 25; turn++) {
		pid_t pid;

		m = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (uint64_t i = 0; i < PAGES; i++)
			bad += m[i * PAGE / 8] != 0; /* what another had is gone */
		set_stamps(m, turn * 1000);
		if (turn % 5 == 0)
			compute();
		pid = fork();
		if (!pid) {
			unsigned wrong = check_stamps(m, turn * 1000);

			set_stamps(m, 77777);
			compute();
			wrong += check_stamps(m, 77777);
			_exit(wrong != 0);
		}
		set_stamps(m, turn * 1000 + 500000); /* while the child looks */
		waitpid(pid, &status, 0);
		bad += status != 0;
		bad += check_stamps(m, turn * 1000 + 500000);
		mprotect(m, PAGES * PAGE, PROT_READ);
		if (!sigsetjmp(back, 1)) {
			printf("written while it may not be:");
			*(volatile uint32_t *)((uint8_t *)m + PAGE) = 1;
		} else {
			faulted++;
		}
		mprotect(m, PAGES * PAGE, PROT_READ | PROT_WRITE);
		madvise(m, PAGES * PAGE / 2, MADV_DONTNEED);
		for (uint64_t i = 0; i < PAGES / 2; i++)
			bad += m[i * PAGE / 8] != 0;
		munmap(m, PAGES * PAGE);
	}
	printf("pages: %u wrong, %u faults\n", bad, faulted);
}

static __thread uint64_t tls = 5;
static uint64_t gs_area[4] = {11, 22, 33, 44};

static void registers(void)
{
	struct itimerval it = {{0, 1000}, {0, 1000}};
	uint64_t sum = 1, x = 0, gs;
	double d = 1;

	signal(SIGALRM, on_tick);
	setitimer(ITIMER_REAL, &it, NULL);
	syscall(SYS_arch_prctl, ARCH_SET_GS, gs_area);
	while (ticks < 100) {
		for (unsigned i = 0; i < 20000; i++) {
			uint64_t a = sum, b = x;

			/* a carry lives across an instruction that may be interrupted, and a ymm register through the loop */
			__asm__ volatile(
				"vmovq %0, %%xmm7\n\tvpbroadcastq %%xmm7, %%ymm7\n\tvextracti128 $1, %%ymm7, %%xmm6\n\t"
				"add %1, %0\n\tlea 1(%1), %1\n\tmov (%2), %%r9\n\tadc $0, %1\n\tvmovq %%xmm6, %%r8\n\txor %%r8, %1"
				: "+r"(a), "+r"(b)
				: "r"(&tls)
				: "r8", "r9", "cc", "xmm6", "xmm7", "memory");
			x += a != sum + x;
			d = d * 1.0000001;
			sum = 1;
			x = 0;
		}
		__asm__ volatile("mov %%gs:16, %0" : "=r"(gs));
		x += gs != 33;
	}
	it = (struct itimerval){{0, 0}, {0, 0}};
	setitimer(ITIMER_REAL, &it, NULL);
	printf("registers: %llu wrong, tls %llu, rounding %d\n", (unsigned long long)x, (unsigned long long)tls, d > 1);
}

static void jumps(void)
{
	static uint64_t seed = 12345; /* longjmp leaves them alone */
	static unsigned wrong, i;

	for (i = 0; i < 300; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		if (!sigsetjmp(back, 1)) {
			printf("jump %u:", i);
			((void (*)(void))(uintptr_t)(0x100000000000ull + (seed >> 17) % 0x5fff00000000ull))();
			wrong++;
		}
	}
	printf("jumps: %u arrived\n", wrong);
}

int main(void)
{
	static uint8_t stack[65536];
	const stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
	const int sig[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};

	sigaltstack(&ss, NULL);
	for (size_t i = 0; i < sizeof sig / sizeof sig[0]; i++)
		catch (sig[i], on_fault);
	if (mmap((void *)CODE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED ||
	    mmap((void *)DATA, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		    MAP_FAILED)
		return 1;
	*(volatile int *)(DATA + PAGE) = 0;
	mprotect((void *)(DATA + PAGE), PAGE, PROT_READ);
	compute();
	faults();
	calls();
	single_steps();
	segments();
	code_changes();
	pages_change_hands();
	registers();
	jumps();
	faults(); /* once more, with everything known */
	printf("ring3: end\n");
	return 0;
}
