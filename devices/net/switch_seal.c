/*
 * The filter of hvx-switch.  Invariant: every line has its reason; once sealed the only descriptors it can make are those of
 * newcomers at its own socket.
 */
#include "devices/net/switch_seal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static const struct sandbox_call calls[] = {
	/* set-up */
	SETUP(prlimit64, "last limit before the final filter"),
	SETUP(seccomp, "load the final filter"),
	SETUP(prctl, "load the final filter: no_new_privs is asked for again"),
	SETUP(epoll_create1, "the loop"),
	SETUP(getuid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(geteuid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(getgid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(getegid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(eventfd2, "the loop"),
	SETUP(pipe2, "the loop"),
	SETUP(socketpair, "the loop: signals"),
	SETUP(rt_sigaction, "signals that end it or ask for a report"),
	/* ports */
	ALLOW(accept4, "newcomers"),
	ALLOW_EQ(getsockopt, 2, SO_PEERCRED, "who they are"),
	ALLOW_EQ(setsockopt, 2, SO_SNDBUF, "room for frames on their way to a port"),
	ALLOW(sendto, "answers to newcomers, frames that waited; the log's wake-up of the loop"),
	ALLOW(sendmmsg, "frames"),
	ALLOW(recvmmsg, "frames"),
	ALLOW_EQ(recvfrom, 4, 0, "the loop: signals"),
	ALLOW(close, "a port that left"),
	ALLOW(read, "the loop: signals"),
	ALLOW(write, "log lines; the loop: signals"),
	ALLOW(epoll_wait, "the loop"),
	ALLOW(epoll_ctl, "the loop: ports come and go"),
	ALLOW_EQ(fcntl, 1, F_GETFL, "the loop: non-blocking sockets"),
	ALLOW_NONBLOCK("the loop: non-blocking sockets"),
	/* memory */
	ALLOW_MASK(mmap, 2, PROT_EXEC, 0, "heap; never executable"),
	ALLOW_MASK(mprotect, 2, PROT_EXEC, 0, "heap; never executable"),
	ALLOW(munmap, "heap"),
	ALLOW(mremap, "heap"),
	ALLOW(brk, "heap"),
	ALLOW_EQ(madvise, 2, MADV_DONTNEED, "heap that is given back"),
	/* time and the end */
	ALLOW(clock_gettime, "ageing where the vdso cannot tell the time"),
	ALLOW(rt_sigreturn, "return from a signal"),
	ALLOW(rt_sigprocmask, "abort()"),
	ALLOW(getpid, "abort()"),
	ALLOW(gettid, "abort()"),
	ALLOW_SELF_EQ(tgkill, 2, 6, "abort(): SIGABRT to ourselves"),
	ALLOW(restart_syscall, "a wait interrupted by stop and continue"),
	ALLOW(exit, "the end"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table switch_seal = {
	.name = "switch",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 96,
	.memory = 256ull << 20, /* frames that wait for their ports */
	.max_threads = 0,
};
