/*
 * The filters that all of hvx-stub is under.  They leave what it takes to become a stub; then each of its two threads gets one of its
 * own on top (filter.c), by which this table is no longer what decides, and guest code is not even asked about: its calls are
 * signals before that (syscall user dispatch).
 */
#include "stub/seal.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "proto/stub.h"

static const struct sandbox_call calls[] = {
	SETUP(prlimit64, "last limits before the final filter"),
	SETUP_EQ(fcntl, 1, F_GET_SEALS, "RAM must be sealed"),
	SETUP(prctl, "no_new_privs is asked for again"),
	SETUP(recvmsg, "configuration"),
	SETUP(brk, "heap"),
	SETUP(getrandom, "where the area lies; heap hardening"),
	SETUP(mmap, "the area"),
	SETUP(mprotect, "its code"),
	SETUP(memfd_create, "orders and signal stack"),
	SETUP(ftruncate, "their size"),
	SETUP(eventfd2, "the helper's answers"),
	SETUP(getpid, "whom the helper signals"),
	SETUP(rt_sigaction, "every fault is a stop"),
	SETUP(sigaltstack, "the stack for it"),
	/* on the way */
	ALLOW(seccomp, "this filter, and those of the two threads"),
	ALLOW_EQ(prctl, 0, 59 /* PR_SET_SYSCALL_USER_DISPATCH */, "calls of guest code are signals"),
	ALLOW_EQ(clone, 0, 0x50f00, "the helper: a thread and nothing else"),
	ALLOW(munmap, "everything else; later the helper's orders"),
	ALLOW(dup2, "descriptors get their numbers"),
	ALLOW(close_range, "all others go"),
	ALLOW(close, "descriptors no longer needed"),
	ALLOW(rseq, "the kernel is to write nowhere"),
	ALLOW(set_tid_address, "the kernel is to write nowhere"),
	ALLOW(set_robust_list, "the kernel is to write nowhere"),
	ALLOW(sendmsg, "what hvx-vcpu gets"),
	ALLOW(sched_yield, "the helper waits for the listener"),
	/* what their own filters leave to the two threads */
	ALLOW(getppid, "the stop, which hvx-vcpu answers"),
	ALLOW_EQ(arch_prctl, 0, ARCH_SET_FS, "its base"),
	ALLOW_EQ(arch_prctl, 0, ARCH_SET_GS, "its base"),
	ALLOW(rt_sigreturn, "into guest code"),
	ALLOW(futex, "the helper waits for orders"),
	ALLOW_BOTH(mmap, 3, MAP_SHARED | MAP_FIXED, 4, STUB_FD_RAM, "the helper's orders"),
	ALLOW_SELF(tgkill, "a kick"),
	ALLOW(write, "the helper's answers; log lines before"),
	ALLOW(gettimeofday, "through the vsyscall page: a signal by the guest thread's filter"),
	ALLOW(time, "likewise"),
	ALLOW(getcpu, "likewise"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table stub_seal = {
	.name = "stub",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 16,
	.memory = 64ull << 20,
	.max_threads = 64, /* of this user, however it is numbered: the filter leaves one */
};
