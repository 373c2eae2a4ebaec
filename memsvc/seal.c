/*
 * The filter of hvx-memsvc.  Invariant: every line has its reason, and once
 * sealed the process can neither make nor open a file.
 */
#include "memsvc/seal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static const struct sandbox_call calls[] = {
	/* set-up: the memory is made while the first filter is in force */
	SETUP(memfd_create, "RAM and control region"),
	SETUP(ftruncate, "give them their size"),
	SETUP_EQ(fcntl, 1, F_ADD_SEALS, "fix their size"),
	SETUP(prlimit64, "last limit before the final filter"),
	SETUP(seccomp, "load the final filter"),
	SETUP(prctl, "load the final filter: no_new_privs is asked for again"),
	SETUP(getrandom, "the key of the pages' hash"),
	SETUP(epoll_create1, "the loop"),
	SETUP(getuid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(geteuid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(getgid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(getegid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(eventfd2, "the loop"),
	SETUP(pipe2, "the loop"),
	/* messages */
	ALLOW(recvmsg, "messages from the monitor"),
	ALLOW(sendmsg, "answers, with descriptors"),
	ALLOW(epoll_wait, "the loop"),
	ALLOW(epoll_ctl, "the loop: a slow peer is waited for"),
	ALLOW_EQ(fcntl, 1, F_GETFL, "non-blocking control socket"),
	ALLOW_EQ(fcntl, 1, F_GET_SEALS, "memory of a VM that joins the group must be sealed"),
	ALLOW_NONBLOCK("non-blocking control socket"),
	ALLOW_EQ(fcntl, 1, F_DUPFD_CLOEXEC, "a descriptor in a queued message"),
	ALLOW(close, "descriptors of messages"),
	ALLOW(write, "log lines"),
	/* memory */
	ALLOW_EQ(fallocate, 1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "pages that the guest gave back"),
	ALLOW(pread64, "pages that are compared"),
	ALLOW(mincore, "which pages are there to be looked at"),
	ALLOW(fstat, "how much of RAM is there"),
	ALLOW(newfstatat, "how libc spells fstat; there is no name to open"),
	ALLOW_MASK(mmap, 2, PROT_EXEC, 0, "heap, control region; never executable"),
	ALLOW_MASK(mprotect, 2, PROT_EXEC, 0, "heap; never executable"),
	ALLOW(munmap, "heap, control region"),
	ALLOW(mremap, "heap"),
	ALLOW(brk, "heap"),
	ALLOW_EQ(madvise, 2, MADV_DONTNEED, "heap that is given back"),
	/* time and the end */
	ALLOW(clock_gettime, "time where the vdso cannot tell"),
	ALLOW(rt_sigreturn, "return from a signal"),
	ALLOW(rt_sigprocmask, "abort()"),
	ALLOW(getpid, "abort()"),
	ALLOW(gettid, "abort()"),
	ALLOW_SELF_EQ(tgkill, 2, 6, "abort(): SIGABRT to ourselves"),
	ALLOW(restart_syscall, "a wait interrupted by stop and continue"),
	ALLOW(exit, "the end"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table memsvc_seal = {
	.name = "memsvc",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 600, /* four a VM of a group */
	.memory = 64ull << 20,
	.max_threads = 0,
};
