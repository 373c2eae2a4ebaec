/*
 * A watchpoint on what a mov to SS reads, and behind it instructions that enter the kernel: the trap that mov ss holds
 * back comes when the kernel has been entered, or together with the trap of the instruction itself.
 *
 * Invariant: every case comes back to the program, with the watched read seen once and no signal that is not the
 * instruction's own.  Each runs as 64-bit and as 32-bit code.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define BEHIND 7 /* bytes of code before the instruction behind mov ss */

/* Everything that 32-bit code sees is below 4 GiB. */
static struct low {
	unsigned char code[4096];
	unsigned char stack[8192];
	uint16_t ss __attribute__((aligned(64)));
	struct {
		uint32_t offset;
		uint16_t cs;
	} far_pointer;
} * low;

static int failures;
static int amd; /* meets the breakpoint behind mov ss (and forgets what was held); Intel's CPUs suppress it */
static volatile int traps, other;
static volatile uint64_t trap_at;
static sigjmp_buf back;

static void expect(int cond, const char *what, const char *name, int bits, long got)
{
	if (cond)
		return;
	failures++;
	printf("movss: failed: mov ss, %s, %d bits: %s %ld\n", name, bits, what, got);
}

static void on_trap(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)si;
	if (!traps++)
		trap_at = (uint64_t)((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP];
}

static void on_other(int sig, siginfo_t *si, void *uc)
{
	(void)si;
	(void)uc;
	other = sig;
	siglongjmp(back, 1);
}

static void catch_with(int sig, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};

	sigaction(sig, &sa, NULL);
}

static int poke(pid_t pid, unsigned n, unsigned long val)
{
	return ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg) + n * sizeof(long), val) != 0;
}

/*
 * A child puts a watchpoint on what mov ss reads, reads and writes, and a breakpoint on the instruction behind it.
 */
static int watch(void)
{
	pid_t self = getpid(), child = fork();
	int status = -1;

	if (child == 0) {
		int bad = ptrace(PTRACE_ATTACH, self, 0, 0) != 0 || waitpid(self, NULL, 0) != self;

		bad = bad || poke(self, 0, (unsigned long)&low->ss) ||
		      poke(self, 1, (unsigned long)low->code + BEHIND) || poke(self, 7, 0x70005);
		ptrace(PTRACE_DETACH, self, 0, 0);
		_exit(bad);
	}
	waitpid(child, &status, 0);
	return status;
}

static const struct insn {
	const char *name;
	unsigned char bytes[16];
	unsigned char len;
	int traps, amd_traps, signal; /* SIGTRAPs by vendor; what else */
} insns[] = {
	{"nop", {0x90}, 1, 1, 1, 0},
	{"int3", {0xcc}, 1, 1, 2, 0},
	{"int $3", {0xcd, 3}, 2, 1, 2, 0},
	{"icebp", {0xf1}, 1, 1, 2, 0},
	{"int $4", {0xcd, 4}, 2, 0, 1, SIGSEGV},
	{"int $0x80", {0xcd, 0x80}, 2, 0, 1, 0},
	{"cli", {0xfa}, 1, 0, 1, SIGSEGV},
	{"cs cli", {0x2e, 0xfa}, 2, 0, 1, SIGSEGV},
	{"14 prefixes, int3", {[0 ... 13] = 0x2e, [14] = 0xcc}, 15, 1, 2, 0},
	{"int $1", {0xcd, 1}, 2, 0, 1, SIGSEGV},
	{"a page fault", {0x8b, 0x07}, 2, 0, 1, SIGSEGV},
	{"ud2", {0x0f, 0x0b}, 2, 0, 1, SIGILL},
	{"syscall", {0x0f, 0x05}, 2, 0, 1, 0},
	{"mov ss again", {0x8e, 0xd1}, 2, 1, 1, 0},
	{"pushf", {0x9c, 0x59}, 2, 1, 1, 0},
};

/* mov (ss), %ss; the instruction; a return */
static void lay_out(const struct insn *in, int bits)
{
	uint32_t at = (uint32_t)(uintptr_t)&low->ss;
	unsigned char *p = low->code;

	if (bits == 32)
		*p++ = 0x90;
	*p++ = 0x8e;
	*p++ = bits == 64 ? 0x14 : 0x15;
	if (bits == 64)
		*p++ = 0x25;
	memcpy(p, &at, 4);
	memcpy(p + 4, in->bytes, in->len);
	p += 4 + in->len;
	*p++ = 0x90;
	*p = bits == 64 ? 0xc3 : 0xcb;
}

/* rdi: a stack, rsi: 64-bit code, or with far_from a far pointer to 32-bit code.  eax: getpid for int 0x80, writev for syscall. */
__asm__(".data; saved: .quad 0; .text\n"
	".macro ENTER; push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; mov %rsp, saved; mov %rdi, %rsp\n"
	"mov $20, %eax; mov %ss, %ecx; mov $-1, %edi; xor %edx, %edx; .endm\n"
	".macro LEAVE; mov saved, %rsp; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret; .endm\n"
	"near_from: ENTER; call *%rsi; LEAVE\n"
	"far_from: mov $0x2b, %eax; mov %eax, %ds; mov %eax, %es; ENTER; lcall *(%rsi); LEAVE\n");
extern void near_from(void *stack, const void *code), far_from(void *stack, const void *pointer);

static void run(int bits)
{
	void *stack = low->stack + sizeof low->stack - 64;

	low->far_pointer.offset = (uint32_t)(uintptr_t)low->code;
	low->far_pointer.cs = 0x23;
	if (bits == 64)
		near_from(stack, low->code);
	else
		far_from(stack, &low->far_pointer);
}

__attribute__((noinline)) static void run_caught(int bits)
{
	traps = other = 0;
	if (!sigsetjmp(back, 1))
		run(bits);
}

static void try(const struct insn *in, int bits)
{
	lay_out(in, bits);
	for (int i = 0; i < 3; i++) {
		run_caught(bits);
		expect(other == in->signal, "signal", in->name, bits, other);
		expect(traps == (amd ? in->amd_traps : in->traps), "traps", in->name, bits, traps);
	}
}

int main(void)
{
	static unsigned char signal_stack[65536];
	unsigned a, b, c, d;
	stack_t ss = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};

	__asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0), "c"(0));
	amd = b == 0x68747541 || b == 0x6f677948; /* Auth, Hygo */
	low = mmap(NULL, sizeof *low, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1,
		   0);
	if (low == MAP_FAILED || sigaltstack(&ss, NULL))
		return 1;
	__asm__ volatile("mov %%ss, %0" : "=r"(low->ss));
	catch_with(SIGTRAP, on_trap);
	catch_with(SIGSEGV, on_other);
	catch_with(SIGILL, on_other);
	expect(watch() == 0, "no watchpoint", "", 0, 0);
	for (unsigned i = 0; i < sizeof insns / sizeof insns[0]; i++) {
		try(&insns[i], 64);
		if (strcmp(insns[i].name, "syscall")) /* of 32-bit code: AMD's only, and not for this stack */
			try(&insns[i], 32);
	}
	puts(failures ? "movss: FAILED" : "movss: passed");
	return failures != 0;
}
