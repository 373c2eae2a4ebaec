/*
 * What direct execution of ring 3 costs on this host, and whether it holds (design.md 4.6): a process that has nothing but a
 * guest's pages and one area of ours runs guest bytes as they are; every way out of them ends here.
 *
 *   make bench/stub && bench/stub          any argument: without the measurements
 *
 * The area, at an address of its own: code (read, execute), orders (read only; the engine writes them through another mapping),
 * the signal stack (the engine's too: it reads the interrupted state where the kernel has put it, and writes there what is
 * to go on).  Two threads:
 *   guest    syscall user dispatch raises SIGSYS for every system call of guest code, of each ABI (a filter alone is not enough:
 *            the kernel lets uretprobe and uprobe past it).  What our own code may do is told to the filter by the instruction:
 *            one call that waits for the engine (SECCOMP_RET_USER_NOTIF), arch_prctl of FS and GS, rt_sigreturn.
 *   helper   has registers only, no stack; does what the orders say: mmap of RAM, munmap, tgkill, exit_group.
 * Invariant: while the engine holds a notification that it has not answered, the guest thread is not in guest code, whatever
 * that code has done before: the kernel says so, not memory that guest code can write.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE     4096ul
#define AREA     0x5a5a5a500000ul
#define STACK    8 /* pages: AVX-512 and AMX make frames large */
#define AREA_END (AREA + (2 + STACK) * PAGE)
#define TASK_END 0x7ffffffff000ul
#define GUEST    0x10000000ul
#define RAM      (64ul << 20)
enum { FD_CTL = 3, FD_RAM, FD_ACK, FD_SOCK, FD_LISTEN };

struct order {
	uint64_t nr, arg[6];
};

struct orders { /* offsets are in the assembly below */
	uint32_t seq, pad;
	uint64_t n, frame_sp, fs, gs, ok, failed, spare;
	struct order order[16];
	uint64_t below, above, above_len;
	struct sock_fprog guest, helper;
	struct msghdr msg;
	struct iovec iov;
	char byte[8];
	struct {
		struct cmsghdr h;
		int fd, pad;
	} cmsg;
	struct sock_filter guest_filter[48], helper_filter[48];
};
_Static_assert(sizeof(struct orders) <= PAGE && offsetof(struct orders, order) == 64, "one page");
_Static_assert(offsetof(struct orders, below) == 960 && offsetof(struct orders, guest) == 984,
	       "as the assembly has it");
_Static_assert(offsetof(struct orders, helper) == 1000 && offsetof(struct orders, msg) == 1016,
	       "as the assembly has it");

#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP 1ull
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS      SECCOMP_IOW(4, uint64_t)
#endif
#define STOP_NR SYS_getppid

/* clang-format off */
__asm__(".pushsection .stub, \"ax\", @progbits\n.balign 4096\n"
	".set orders, stub_code + 4096\n"
	".globl stub_code, stub_handler, stub_launch, ip_stop, ip_fs, ip_gs, ip_return, ip_wait, ip_order, ip_ack, stub_end\n"
	"stub_code:\n"
	"stub_handler:\n"
	"1:	mov $110, %eax\n	syscall\nip_stop:\n"
	"	cmp $-38, %rax\n	je 9f\n" /* nobody listens any more: ENOSYS */
	"	test %rax, %rax\n	js 1b\n	mov %rax, %r12\n"
	"	test $1, %r12b\n	jz 2f\n	mov $158, %eax\n	mov $0x1002, %edi\n	mov orders+24(%rip), %rsi\n	syscall\nip_fs:\n"
	"2:	test $2, %r12b\n	jz 3f\n	mov $158, %eax\n	mov $0x1001, %edi\n	mov orders+32(%rip), %rsi\n	syscall\nip_gs:\n"
	"3:	mov orders+16(%rip), %rsp\n	mov $15, %eax\n	syscall\nip_return:\n"
	"9:	ud2\n"

	"stub_launch:\n"
	"	mov $11, %eax\n	xor %edi, %edi\n	mov orders+960(%rip), %rsi\n	syscall\n"
	"	mov $11, %eax\n	mov orders+968(%rip), %rdi\n	mov orders+976(%rip), %rsi\n	syscall\n"
	"	mov $56, %eax\n	mov $0x50f00, %edi\n	xor %esi, %esi\n	xor %edx, %edx\n	xor %r10d, %r10d\n	xor %r8d, %r8d\n	syscall\n"
	"	test %rax, %rax\n	jz 4f\n"
	"	mov $157, %eax\n	mov $59, %edi\n	mov $1, %esi\n	lea stub_code(%rip), %rdx\n	mov $4096, %r10d\n	xor %r8d, %r8d\n	syscall\n"
	"	test %rax, %rax\n	jnz 9b\n"
	"	mov $317, %eax\n	mov $1, %edi\n	mov $8, %esi\n	lea orders+984(%rip), %rdx\n	syscall\n"
	"	ud2\n"

	"4:	mov $46, %eax\n	mov $6, %edi\n	lea orders+1016(%rip), %rsi\n	xor %edx, %edx\n	syscall\n"
	"	test %rax, %rax\n	jns 5f\n	mov $24, %eax\n	syscall\n	jmp 4b\n"
	"5:	mov $3, %eax\n	mov $6, %edi\n	syscall\n	mov $3, %eax\n	mov $7, %edi\n	syscall\n"
	"	mov $317, %eax\n	mov $1, %edi\n	xor %esi, %esi\n	lea orders+1000(%rip), %rdx\n	syscall\n"
	"	test %rax, %rax\n	jnz 9b\n	xor %ebp, %ebp\n"
	"6:	mov orders(%rip), %eax\n	cmp %eax, %ebp\n	jne 7f\n"
	"	mov $202, %eax\n	lea orders(%rip), %rdi\n	xor %esi, %esi\n	mov %ebp, %edx\n	xor %r10d, %r10d\n	syscall\nip_wait:\n	jmp 6b\n"
	"7:	mov %eax, %ebp\n	mov orders+8(%rip), %r13\n	lea orders+64(%rip), %r14\n	lea orders+40(%rip), %r15\n"
	"8:	test %r13, %r13\n	jz 5f\n"
	"	mov (%r14), %rax\n	mov 8(%r14), %rdi\n	mov 16(%r14), %rsi\n	mov 24(%r14), %rdx\n	mov 32(%r14), %r10\n	mov 40(%r14), %r8\n	mov 48(%r14), %r9\n"
	"	syscall\nip_order:\n	cmp $-4095, %rax\n	jb 1f\n	lea orders+48(%rip), %r15\n"
	"1:	add $56, %r14\n	dec %r13\n	jmp 8b\n"
	"5:	mov $1, %eax\n	mov $5, %edi\n	mov %r15, %rsi\n	mov $8, %edx\n	syscall\nip_ack:\n	jmp 6b\n"
	"stub_end:\n.popsection\n");
/* clang-format on */
extern const char stub_code[], stub_handler[], stub_launch[], ip_stop[], ip_fs[], ip_gs[], ip_return[], ip_wait[],
	ip_order[], ip_ack[], stub_end[];

static uint64_t at(const char *label)
{
	return AREA + (uint64_t)(label - stub_code);
}

/* ---- filters: an instruction of ours, its call, one argument at most ---- */
#define LOAD(field)  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RET(v)       BPF_STMT(BPF_RET | BPF_K, v)
#define UNLESS(v, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(v), 0, n)
#define IF(v, n)     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(v), n, 0)
#define LOAD_ARG(i)  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (i))
#define ALLOWED(ip, call, arg, val, how) \
	UNLESS(at(ip), 5), LOAD(nr), UNLESS(call, 3), LOAD_ARG(arg), UNLESS(val, 1), RET(how), LOAD(instruction_pointer)
#define ALLOWED_ANY(ip, call, how) UNLESS(at(ip), 3), LOAD(nr), UNLESS(call, 1), RET(how), LOAD(instruction_pointer)

static void make_filters(struct orders *o, pid_t pid)
{
	const uint32_t high = (uint32_t)(AREA >> 32), trap = SECCOMP_RET_TRAP, kill = SECCOMP_RET_KILL_PROCESS;
	const struct sock_filter g[] = {
		LOAD(arch),
		UNLESS(AUDIT_ARCH_X86_64, 1),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
		UNLESS(high, 25),
		LOAD(instruction_pointer),
		ALLOWED_ANY(ip_stop, STOP_NR, SECCOMP_RET_USER_NOTIF),
		ALLOWED_ANY(ip_return, SYS_rt_sigreturn, SECCOMP_RET_ALLOW),
		ALLOWED(ip_fs, SYS_arch_prctl, 0, 0x1002, SECCOMP_RET_ALLOW),
		ALLOWED(ip_gs, SYS_arch_prctl, 0, 0x1001, SECCOMP_RET_ALLOW),
		RET(trap)};
	const struct sock_filter h[] = {LOAD(arch),
					UNLESS(AUDIT_ARCH_X86_64, 33),
					LOAD(instruction_pointer),
					ALLOWED(ip_wait, SYS_futex, 1, FUTEX_WAIT, SECCOMP_RET_ALLOW),
					ALLOWED(ip_ack, SYS_write, 0, FD_ACK, SECCOMP_RET_ALLOW),
					UNLESS(at(ip_order), 17),
					LOAD(nr),
					IF(SYS_munmap, 14),
					IF(SYS_exit_group, 13),
					UNLESS(SYS_tgkill, 5),
					LOAD_ARG(0),
					UNLESS(pid, 11),
					LOAD_ARG(2),
					IF(SIGUSR1, 8),
					RET(kill),
					UNLESS(SYS_mmap, 7),
					LOAD_ARG(3),
					UNLESS(MAP_SHARED | MAP_FIXED, 5),
					LOAD_ARG(4),
					UNLESS(FD_RAM, 3),
					LOAD_ARG(2),
					BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 7, 1, 0),
					RET(SECCOMP_RET_ALLOW),
					RET(kill)};

	memcpy(o->guest_filter, g, sizeof g);
	memcpy(o->helper_filter, h, sizeof h);
	o->guest = (struct sock_fprog){sizeof g / sizeof g[0],
				       (void *)(AREA + PAGE + offsetof(struct orders, guest_filter))};
	o->helper = (struct sock_fprog){sizeof h / sizeof h[0],
					(void *)(AREA + PAGE + offsetof(struct orders, helper_filter))};
}

static void check(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s: %s\n", what, strerror(errno));
		exit(1);
	}
}

/* ---- the stub's side: never returns ---- */
static void become_stub(int ctl, int ram, int ack, int sock)
{
	struct orders *o;
	struct {
		void *handler;
		uint64_t flags;
		void *restorer;
		uint64_t mask;
	} sa = {(void *)at(stub_handler), SA_SIGINFO | SA_ONSTACK | 0x04000000, (void *)at(ip_return), ~0ull};
	const int sig[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGUSR1}, fd[] = {ctl, ram, ack, sock};
	stack_t ss = {.ss_sp = (void *)(AREA + 2 * PAGE), .ss_size = STACK * PAGE};
	char *code = mmap((void *)AREA, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			  -1, 0);

	check(code == (void *)AREA, "area");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memcpy(code, stub_code, (size_t)(stub_end - stub_code));
	mprotect(code, PAGE, PROT_READ | PROT_EXEC);
	for (int i = 0; i < 4; i++)
		dup2(fd[i], 20 + i);
	for (int i = 0; i < 4; i++)
		dup2(20 + i, FD_CTL + i);
	syscall(SYS_close_range, FD_SOCK + 1, ~0u, 0);
	o = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, FD_CTL, 0);
	o->ok = 1;
	o->failed = 1ull << 32;
	o->below = AREA;
	o->above = AREA_END;
	o->above_len = TASK_END - AREA_END;
	make_filters(o, getpid());
	o->iov = (struct iovec){(void *)(AREA + PAGE + offsetof(struct orders, byte)), 1};
	o->msg = (struct msghdr){.msg_iov = (void *)(AREA + PAGE + offsetof(struct orders, iov)),
				 .msg_iovlen = 1,
				 .msg_control = (void *)(AREA + PAGE + offsetof(struct orders, cmsg)),
				 .msg_controllen = CMSG_LEN(sizeof(int))};
	o->cmsg.h = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	o->cmsg.fd = FD_LISTEN;
	mmap((void *)(AREA + PAGE), PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, FD_CTL, 0);
	mmap((void *)(AREA + 2 * PAGE), STACK * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, FD_CTL, PAGE);
	for (size_t i = 0; i < sizeof sig / sizeof sig[0]; i++)
		check(!syscall(SYS_rt_sigaction, sig[i], &sa, NULL, 8), "sigaction");
	check(!sigaltstack(&ss, NULL), "sigaltstack");
	syscall(SYS_set_tid_address, NULL);
	syscall(SYS_set_robust_list, NULL, 24);
	check(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	((void (*)(void))at(stub_launch))();
}

/* ---- the engine's side ---- */
struct stub {
	struct orders *o;
	uint8_t *stack; /* our mapping of its signal stack */
	int ack, listener;
	pid_t pid;
	uint64_t id; /* of the notification that waits */
	ucontext_t *uc;
	siginfo_t *si;
};

static int order(struct stub *s, unsigned n)
{
	uint64_t got;

	s->o->n = n;
	__atomic_add_fetch(&s->o->seq, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &s->o->seq, FUTEX_WAKE, 1, NULL, NULL, 0);
	check(read(s->ack, &got, 8) == 8, "ack");
	return got == 1 ? 0 : -1;
}

static int map(struct stub *s, uint64_t gva, uint64_t off, uint64_t len, int prot)
{
	s->o->order[0] = (struct order){SYS_mmap, {gva, len, (uint64_t)prot, MAP_SHARED | MAP_FIXED, FD_RAM, off}};
	return order(s, 1);
}

static void kick(struct stub *s)
{
	s->o->order[0] = (struct order){SYS_tgkill, {(uint64_t)s->pid, (uint64_t)s->pid, SIGUSR1}};
	order(s, 1);
}

static bool wait_stop_for(struct stub *s, int ms)
{
	struct seccomp_notif n = {0};
	struct pollfd p = {s->listener, POLLIN, 0};

	if (ms >= 0 && poll(&p, 1, ms) <= 0)
		return false;
	while (ioctl(s->listener, SECCOMP_IOCTL_NOTIF_RECV, &n) < 0)
		if (errno != EINTR)
			return false;
	s->id = n.id;
	return true;
}

static void wait_stop(struct stub *s)
{
	check(wait_stop_for(s, -1), "the stub is gone");
}

static void go(struct stub *s, uint64_t how)
{
	struct seccomp_notif_resp r = {.id = s->id, .val = (int64_t)how};

	check(!ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SEND, &r), "go");
}

static void step(struct stub *s)
{
	go(s, 0);
	wait_stop(s);
}

static int receive_fd(int sock)
{
	char byte, buf[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof buf};
	int fd = -1;

	if (recvmsg(sock, &m, 0) > 0 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

static int ram;

static struct stub stub_new(void)
{
	struct stub s = {.ack = eventfd(0, 0)};
	int ctl = memfd_create("ctl", 0), sv[2];

	check(!ftruncate(ctl, (off_t)((1 + STACK) * PAGE)) && !socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv),
	      "shared memory");
	s.o = mmap(NULL, (1 + STACK) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ctl, 0);
	s.stack = (uint8_t *)s.o + PAGE;
	s.pid = fork();
	if (!s.pid)
		become_stub(ctl, ram, s.ack, sv[1]);
	close(sv[1]);
	s.listener = receive_fd(sv[0]);
	check(s.listener >= 0, "listener");
	close(sv[0]);
	close(ctl);
	wait_stop(&s); /* its ud2: the frame the kernel made is the pattern of all */
	for (uint64_t off = 0; off < STACK * PAGE; off += 8) /* pretcode, then the ucontext */
		if (*(uint64_t *)(s.stack + off) == at(ip_return)) {
			s.uc = (ucontext_t *)(s.stack + off + 8);
			s.si = (siginfo_t *)(s.uc + 0) + 0;
			s.o->frame_sp = AREA + 2 * PAGE + off + 8;
		}
	check(s.uc, "frame");
	/* the kernel's ucontext is shorter than libc's: siginfo stands behind its 64-bit mask */
	s.si = (siginfo_t *)((uint8_t *)s.uc + offsetof(ucontext_t, uc_sigmask) + 8);
	return s;
}

static void stub_end_of(struct stub *s)
{
	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	close(s->listener);
	close(s->ack);
	munmap(s->o, (1 + STACK) * PAGE);
}

#define REG(s, r) (s)->uc->uc_mcontext.gregs[r]

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static uint8_t *mem;
static unsigned failures;

static void expect(bool ok, const char *what)
{
	printf("  %-78s %s\n", what, ok ? "yes" : "NO");
	failures += !ok;
}

static void code(struct stub *s, const void *bytes, size_t n)
{
	memset(mem, 0xf4, PAGE);
	memcpy(mem, bytes, n);
	REG(s, REG_RIP) = GUEST;
}
#define CODE(s, str) code(s, str, sizeof(str) - 1)

static void measure(struct stub *s, const char *where)
{
	enum { N = 20000 };
	double t;

	CODE(s, "\x0f\x05\xeb\xfc");
	step(s);
	t = now();
	for (int i = 0; i < N; i++)
		step(s);
	printf("%-12s system call to engine and back          %7.0f ns\n", where, (now() - t) / N);
	t = now();
	for (int i = 0; i < N; i++) {
		s->o->fs = GUEST;
		go(s, 1);
		wait_stop(s);
	}
	printf("%-12s the same with FS base set               %7.0f ns\n", where, (now() - t) / N);
	CODE(s, "\x0f\x0b");
	t = now();
	for (int i = 0; i < N; i++) {
		step(s);
		REG(s, REG_RIP) = GUEST;
	}
	printf("%-12s #UD to engine and back                  %7.0f ns\n", where, (now() - t) / N);
	CODE(s, "\x8b\x03\x0f\x05"); /* mov (%rbx), %eax; syscall */
	t = now();
	for (unsigned long i = 0; i < 2000; i++) {
		REG(s, REG_RIP) = GUEST;
		REG(s, REG_RBX) = (long long)(GUEST + PAGE + i * PAGE);
		step(s);
		if (map(s, GUEST + PAGE + i * PAGE, PAGE + i * PAGE, PAGE, PROT_READ | PROT_WRITE) < 0)
			break;
		step(s);
	}
	printf("%-12s page fault, mmap, again, system call    %7.0f ns\n", where, (now() - t) / 2000);
	t = now();
	for (unsigned long i = 0; i < 125; i++) {
		for (unsigned long k = 0; k < 16; k++)
			s->o->order[k] = (struct order){SYS_munmap, {GUEST + PAGE * (1 + 16 * i + k), PAGE}};
		order(s, 16);
	}
	printf("%-12s munmap, 16 an order, each               %7.0f ns\n", where, (now() - t) / 2000);
	CODE(s, "\xeb\xfe");
	t = now();
	for (int i = 0; i < N; i++) {
		go(s, 0);
		kick(s);
		wait_stop(s);
	}
	printf("%-12s go, kick by the helper, stop            %7.0f ns\n", where, (now() - t) / N);
	CODE(s, "\xb9\x00\xca\x9a\x3b\xff\xc9\x75\xfc\x0f\x05"); /* a thousand million times dec, jnz */
	t = now();
	step(s);
	printf("%-12s dec and jnz                             %7.3f ns\n", where, (now() - t) / 1e9);
}

static uint32_t ticks(void)
{
	uint32_t a = *(volatile uint32_t *)(mem + 2048);

	usleep(20000);
	return *(volatile uint32_t *)(mem + 2048) - a;
}

static bool trapped(struct stub *s, int sig)
{
	return REG(s, REG_TRAPNO) >= 0 && s->si->si_signo == sig;
}

static void hostile(struct stub *s)
{
	static const char sys64[] = "\x0f\x05", int80[] = "\xcd\x80";
	const uint64_t ip[] = {at(ip_stop), at(ip_fs), at(ip_gs), at(ip_return), at(ip_wait), at(ip_order), at(ip_ack)};
	bool all = true, ok;
	uint64_t end;

	for (unsigned abi = 0; abi < 3; abi++) {
		for (unsigned nr = 0; nr < 1024; nr++) {
			uint32_t rax = nr | (abi == 1 ? 0x40000000 : 0);

			code(s, abi == 2 ? int80 : sys64, 2);
			REG(s, REG_RAX) = rax;
			step(s);
			ok = trapped(s, SIGSYS) && (uint64_t)REG(s, REG_RIP) == GUEST + 2;
			if (abi == 2) /* a host may have no 32-bit calls: #GP then */
				ok |= trapped(s, SIGSEGV) && (uint64_t)REG(s, REG_RIP) == GUEST;
			all &= ok && REG(s, REG_RAX) == rax;
		}
	}
	expect(all, "each of 3 x 1024 system calls (64-bit, x32, int 0x80) traps, rax as it was");
	all = true;
	for (unsigned i = 0; i < sizeof ip / sizeof ip[0]; i++)
		for (unsigned nr = 0; nr < 512; nr++) {
			if ((i == 0 && nr == STOP_NR) || (i == 3 && nr == SYS_rt_sigreturn))
				continue;
			if (nr == 335 || nr == 336)
				continue;    /* past the filter: they fail, and our code goes on */
			CODE(s, "\xff\xe3"); /* jmp *%rbx: at our own syscall instruction */
			REG(s, REG_RBX) = (long long)ip[i] - 2;
			REG(s, REG_RAX) = nr;
			REG(s, REG_RDI) = 3;
			step(s);
			all &= trapped(s, SIGSYS) && (uint64_t)REG(s, REG_RIP) == ip[i];
		}
	expect(all, "jumped to, each system call instruction of ours does the same for any call but its own");
	CODE(s, "\xc6\x03\x01"); /* movb $1, (%rbx) */
	REG(s, REG_RBX) = (long long)AREA;
	step(s);
	all = trapped(s, SIGSEGV);
	CODE(s, "\xc6\x03\x01");
	REG(s, REG_RBX) = (long long)(AREA + PAGE);
	step(s);
	expect(all && trapped(s, SIGSEGV), "our code and the orders cannot be written");
	CODE(s, "\x8b\x03");
	all = true;
	for (int sh = 12; sh < 64; sh++)
		for (int sign = 0; sign < 2; sign++) {
			uint64_t a = sign ? -(1ull << sh) : (1ull << sh);

			if ((a >= AREA && a < AREA_END) || a == GUEST)
				continue;
			REG(s, REG_RIP) = GUEST;
			REG(s, REG_RBX) = (long long)a;
			step(s);
			all &= trapped(s, SIGSEGV) && (uint64_t)REG(s, REG_RIP) == GUEST;
		}
	expect(all, "at 102 addresses of all sizes, either sign, nothing can be read");
	/* a thread that says it has stopped: jump to the stop, then count */
	CODE(s, "\xff\xe3");
	memcpy(mem + 64, "\xff\x05\xba\x07\x00\x00\xeb\xf8", 8); /* incl 2048; jmp: mem + 64 + 6 + 0x7ba = 2048 */
	REG(s, REG_RBX) = (long long)at(stub_handler);
	go(s, 0);
	wait_stop(s);
	expect(ticks() == 0, "jumped to the stop: reported, and nothing runs until the answer");
	REG(s, REG_RIP) = (long long)GUEST + 64;
	go(s, 0);
	usleep(1000);
	all = ticks() > 0;
	kick(s);
	wait_stop(s);
	expect(all && ticks() == 0 && trapped(s, SIGUSR1), "it goes on where the engine says; a kick stops it again");
	/* kicked while it waits in a stop of its own making */
	CODE(s, "\xff\xe3");
	REG(s, REG_RBX) = (long long)at(stub_handler);
	go(s, 0);
	wait_stop(s);
	kick(s);
	usleep(20000);
	all = ticks() == 0;
	{
		struct seccomp_notif_resp r = {.id = s->id};
		all &= ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SEND, &r) < 0 && errno == ENOENT;
	}
	wait_stop(s);
	expect(all && ticks() == 0,
	       "kicked in there: the old notification is void, a new one comes, nothing runs between");
	/* the last user page of all, and vsyscall */
	all = map(s, TASK_END - PAGE, 8 * PAGE, PAGE, PROT_READ | PROT_EXEC) == 0;
	memcpy(mem + 8 * PAGE + PAGE - 4, "\x90\x90\x0f\x05", 4);
	REG(s, REG_RIP) = (long long)(TASK_END - 4);
	step(s);
	expect(all && trapped(s, SIGSYS) && (uint64_t)REG(s, REG_RIP) == TASK_END,
	       "code runs to the last byte of the last user page");
	CODE(s, "\xff\xd3");
	REG(s, REG_RBX) = (long long)0xffffffffff600000ul;
	REG(s, REG_RSP) = (long long)(GUEST + 1024);
	step(s);
	printf("  vsyscall: signal %d, si_call_addr %lx, rip %llx, rax %lld\n", s->si->si_signo,
	       (unsigned long)s->si->si_call_addr, (unsigned long long)REG(s, REG_RIP), (long long)REG(s, REG_RAX));
	/* all signals blocked by a sigreturn of its own: only SIGKILL is left */
	CODE(s, "\xff\xe3");
	memcpy(mem + 64, "\xff\x05\xba\x07\x00\x00\xeb\xf8", 8);
	{
		uint8_t *frame = mem + 1024;

		map(s, GUEST, 0, PAGE, 7);
		memcpy(frame, s->uc, 512);
		ucontext_t *f = (ucontext_t *)frame;
		memset(&f->uc_sigmask, 0xff, 8);
		f->uc_mcontext.gregs[REG_RIP] = (long long)GUEST + 64;
		f->uc_mcontext.fpregs = NULL;
		f->uc_flags &= ~1ul;
		REG(s, REG_RSP) = (long long)(GUEST + 1024);
		REG(s, REG_RAX) = SYS_rt_sigreturn;
		REG(s, REG_RBX) = (long long)at(ip_return) - 2;
	}
	go(s, 0);
	usleep(5000);
	all = ticks() > 0;
	kick(s);
	all &= !wait_stop_for(s, 50);
	s->o->order[0] = (struct order){SYS_exit_group, {0}};
	s->o->n = 1;
	__atomic_add_fetch(&s->o->seq, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &s->o->seq, FUTEX_WAKE, 1, NULL, NULL, 0);
	end = (uint64_t)waitpid(s->pid, NULL, 0);
	expect(all && end == (uint64_t)s->pid && ticks() == 0,
	       "with all signals blocked by a forged frame: the helper ends the process");
	s->pid = 0;
	{
		struct pollfd p = {s->listener, POLLIN, 0};
		poll(&p, 1, 1000);
		expect(p.revents & POLLHUP, "the engine learns of that by POLLHUP");
	}
}

static void pin(pid_t pid, int cpu)
{
	cpu_set_t c;

	CPU_ZERO(&c);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (cpu < 0 || i == cpu)
			CPU_SET(i, &c);
	sched_setaffinity(pid, sizeof c, &c);
}

int main(int argc, char **argv)
{
	struct stub s;

	/* any argument: the hostile part alone */
	setvbuf(stdout, NULL, _IONBF, 0);
	if (!getenv("GLIBC_TUNABLES")) { /* rseq: the kernel would write where libc had it */
		setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
		execv("/proc/self/exe", argv);
	}
	ram = memfd_create("ram", 0);
	check(!ftruncate(ram, (off_t)RAM), "ram");
	mem = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
	memset(mem, 0, RAM);
	for (int one = argc > 1 ? -1 : 1; one >= 0; one--) {
		pin(0, one ? 0 : -1);
		s = stub_new();
		check(!map(&s, GUEST, 0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC), "map");
		measure(&s, one ? "one CPU" : "two CPUs");
		if (!one)
			ioctl(s.listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
		if (!one)
			measure(&s, "sync wake-up");
		stub_end_of(&s);
	}
	s = stub_new();
	check(!map(&s, GUEST, 0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC), "map");
	char maps[64];
	snprintf(maps, sizeof maps, "cat /proc/%d/maps", s.pid);
	if (system(maps)) {
	}
	hostile(&s);
	if (s.pid)
		stub_end_of(&s);
	return failures != 0;
}
