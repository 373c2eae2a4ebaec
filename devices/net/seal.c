/*
 * The filter of hvx-net.  Invariant: every line has its reason; once sealed the process reads and writes the
 * descriptors it has, and can make no other but duplicates: no file, no socket.
 */
#include "devices/net/seal.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static const struct sandbox_call calls[] = {
	/* set-up: memory and back end are looked at, the loop is made */
	SETUP(fstat, "their sizes"),
	SETUP(newfstatat, "how libc spells fstat; there is no name to open"),
	SETUP_EQ(fcntl, 1, F_GET_SEALS, "they must be sealed"),
	SETUP(getsockopt, "the back end must be what it is said to be"),
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
	/* frames */
	ALLOW(sendmsg, "frames to passt; messages to monitor and vcpu"),
	ALLOW_EQ(recvfrom, 4, 0, "frames from passt; no address is asked for"),
	ALLOW(sendmmsg, "frames to a switch"),
	ALLOW(recvmmsg, "frames from a switch"),
	ALLOW(readv, "frames from a tap"),
	ALLOW(writev, "frames to a tap"),
	ALLOW_EQ(ioctl, 1, TUNSETOFFLOAD, "what frames of a tap may be like, when the driver has told"),
	/* messages and doorbells */
	ALLOW(recvmsg, "messages from monitor and vcpu"),
	ALLOW(read, "doorbells"),
	ALLOW(sched_yield, "a page of RAM that another thread is just taking out of the pool"),
	ALLOW(write, "interrupts, log lines"),
	ALLOW(poll, "the answer to an invalidation"),
	ALLOW(epoll_wait, "the loop"),
	ALLOW(epoll_ctl, "the loop: what is waited for changes"),
	ALLOW_EQ(fcntl, 1, F_GETFL, "non-blocking sockets"),
	ALLOW_NONBLOCK("non-blocking sockets"),
	ALLOW_EQ(fcntl, 1, F_DUPFD_CLOEXEC, "a descriptor in a queued message"),
	ALLOW(close, "a peer that is gone"),
	/* memory */
	ALLOW_MASK(mmap, 2, PROT_EXEC, 0, "guest memory, heap; never executable"),
	ALLOW_MASK(mprotect, 2, PROT_EXEC, 0, "heap; never executable"),
	ALLOW(munmap, "heap"),
	ALLOW(mremap, "heap"),
	ALLOW(brk, "heap"),
	ALLOW_EQ(madvise, 2, MADV_DONTNEED, "heap that is given back"),
	/* time and the end */
	ALLOW(clock_gettime, "limits where the vdso cannot tell the time"),
	ALLOW(rt_sigreturn, "return from a signal"),
	ALLOW(rt_sigprocmask, "abort()"),
	ALLOW(getpid, "abort()"),
	ALLOW(gettid, "abort()"),
	ALLOW_SELF_EQ(tgkill, 2, 6, "abort(): SIGABRT to ourselves"),
	ALLOW(restart_syscall, "a wait interrupted by stop and continue"),
	ALLOW(exit, "the end"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table net_seal = {
	.name = "net",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 48, /* one a CPU */
	.memory = 64ull << 20,
	.max_threads = 0,
};
