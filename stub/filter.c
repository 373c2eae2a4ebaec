/*
 * The last filters: an instruction of area.S, its call, and what registers must hold, each by each.
 * Invariant: what is not listed here kills the stub; a call of guest code is a signal and does not get here, but through the
 * vsyscall page, where it is one by this filter.
 */
#include "stub/filter.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "proto/stub.h"

extern const char stub_at_stop[], stub_at_fs[], stub_at_gs[], stub_at_return[], stub_at_wait[], stub_at_order[],
	stub_at_ack[];

/* clang-format off */
#define LOAD(field)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_HIGH     BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4)
#define LOAD_ARG(i)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (i))
#define RET(v)        BPF_STMT(BPF_RET | BPF_K, v)
#define UNLESS(v, n)  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(v), 0, n) /* skips n */
#define IF(v, n)      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(v), n, 0)
#define AT(label)     filter_at(area, label)
#define KILL          RET(SECCOMP_RET_KILL_PROCESS)
#define ALLOWED       RET(SECCOMP_RET_ALLOW)
/* At the instruction before @label: @call, with @val in argument @arg; else on to the next entry. */
#define ENTRY(label, call, how) UNLESS(AT(label), 3), LOAD(nr), UNLESS(call, 1), how, LOAD(instruction_pointer)
#define ENTRY_ARG(label, call, arg, val, how) \
	UNLESS(AT(label), 5), LOAD(nr), UNLESS(call, 3), LOAD_ARG(arg), UNLESS(val, 1), how, LOAD(instruction_pointer)

unsigned filter_guest(struct sock_filter *f, uint64_t area)
{
	const struct sock_filter g[] = {
		LOAD(arch), UNLESS(AUDIT_ARCH_X86_64, 29),
		LOAD_HIGH, UNLESS(0xffffffff, 1), RET(SECCOMP_RET_TRAP), /* the vsyscall page */
		UNLESS(area >> 32, 25), LOAD(instruction_pointer),
		ENTRY(stub_at_stop, STUB_STOP, RET(SECCOMP_RET_USER_NOTIF)),
		ENTRY(stub_at_return, SYS_rt_sigreturn, ALLOWED),
		ENTRY_ARG(stub_at_fs, SYS_arch_prctl, 0, 0x1002, ALLOWED),
		ENTRY_ARG(stub_at_gs, SYS_arch_prctl, 0, 0x1001, ALLOWED),
		KILL,
	};

	memcpy(f, g, sizeof g);
	return sizeof g / sizeof g[0];
}

unsigned filter_helper(struct sock_filter *f, uint64_t area, pid_t pid)
{
	const struct sock_filter h[] = {
		LOAD(arch), UNLESS(AUDIT_ARCH_X86_64, 35),
		LOAD_HIGH, UNLESS(area >> 32, 33), LOAD(instruction_pointer),
		ENTRY_ARG(stub_at_wait, SYS_futex, 1, FUTEX_WAIT, ALLOWED),
		ENTRY_ARG(stub_at_ack, SYS_write, 0, STUB_FD_ACK, ALLOWED),
		UNLESS(AT(stub_at_order), 17), LOAD(nr), IF(SYS_munmap, 14), IF(SYS_exit_group, 13),
		UNLESS(SYS_tgkill, 5), LOAD_ARG(0), UNLESS(pid, 11), LOAD_ARG(2), IF(SIGUSR1, 8), KILL,
		UNLESS(SYS_mmap, 7), LOAD_ARG(3), UNLESS(MAP_SHARED | MAP_FIXED, 5), LOAD_ARG(4), UNLESS(STUB_FD_RAM, 3),
		LOAD_ARG(2), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, PROT_READ | PROT_WRITE | PROT_EXEC, 1, 0), ALLOWED, KILL,
	};

	memcpy(f, h, sizeof h);
	return sizeof h / sizeof h[0];
}
