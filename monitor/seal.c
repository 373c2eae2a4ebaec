/*
 * The seal of hvx-monitor.  Until the guest runs it opens, forks and maps
 * identities; from then on it relays, signals, reaps and removes its own files.  Invariant: a
 * monitor whose guest runs can start no program and open no file.
 */
#include "monitor/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static const struct sandbox_call calls[] = {
	SETUP(seccomp, "load the filter"),
	SETUP(prctl, "load the filter: no_new_privs is asked for again"),
	SETUP(prlimit64, "what a test needs to load the filter"),
	/* the loop */
	ALLOW(epoll_wait, "the loop"),
	ALLOW(epoll_ctl, "the loop"),
	ALLOW(poll, "may the terminal be written?"),
	ALLOW(rt_sigaction, "the loop gives signals back at the end"),
	ALLOW(rt_sigprocmask, "the loop, abort()"),
	ALLOW(rt_sigreturn, "return from a signal"),
	ALLOW(restart_syscall, "a wait interrupted by stop and continue"),
	/* console, pipes, sockets */
	ALLOW(read, "console, log lines of children"),
	ALLOW(write, "console, log"),
	ALLOW(pread64, "the cgroup's count of kills"),
	ALLOW(close, "clients that go"),
	ALLOW(sendmsg, "messages"),
	ALLOW(recvmsg, "messages"),
	ALLOW(accept4, "clients"),
	ALLOW_EQ(getsockopt, 2, SO_PEERCRED, "who a client is"),
	ALLOW(geteuid, "is a client our user?"),
	ALLOW_EQ(socketpair, 0, AF_UNIX, "stream of an attached console"),
	ALLOW_EQ(socket, 0, AF_UNIX, "syslog was restarted"),
	ALLOW(connect, "syslog was restarted"),
	ALLOW(sendto, "syslog"),
	ALLOW_EQ(fcntl, 1, F_GETFL, "non-blocking connections"),
	ALLOW_NONBLOCK("non-blocking connections"),
	ALLOW_EQ(fcntl, 1, F_DUPFD_CLOEXEC, "a descriptor in a queued message"),
	ALLOW_EQ(ioctl, 1, TCGETS, "terminal modes"),
	ALLOW_EQ(ioctl, 1, TCSETSW, "terminal modes"),
	ALLOW_EQ(ioctl, 1, TCSETSF, "terminal modes at the end, without what was typed for the guest"),
	ALLOW_EQ(ioctl, 1, TCSBRK, "tcdrain(): the guest's last output goes out first"),
	ALLOW_EQ(ioctl, 1, TIOCGWINSZ, "size of the second console's terminal"),
	ALLOW(fstat, "a descriptor's kind"),
	ALLOW(newfstatat, "how libc spells fstat"),
	/* children and files at the end */
	ALLOW_EQ(kill, 1, SIGKILL, "a child that does not go"),
	ALLOW_EQ(kill, 1, SIGTERM, "qemu-nbd, once its disk is not used any more"),
	ALLOW(wait4, "children that ended"),
	ALLOW(waitid, "children that ended"),
	ALLOW(unlink, "socket, lock and pidfile"),
	ALLOW(rmdir, "the VM's cgroups"),
	/* memory, time, the end */
	ALLOW_MASK(mmap, 2, PROT_EXEC, 0, "heap; never executable"),
	ALLOW_MASK(mprotect, 2, PROT_EXEC, 0, "heap; never executable"),
	ALLOW(munmap, "heap"),
	ALLOW(mremap, "heap"),
	ALLOW_EQ(madvise, 2, MADV_DONTNEED, "heap that is given back"),
	ALLOW(brk, "heap"),
	ALLOW(getrandom, "heap hardening"),
	ALLOW(clock_gettime, "time where the vdso cannot tell"),
	ALLOW(getpid, "status, fatal signals"),
	ALLOW(gettid, "fatal signals"),
	ALLOW_SELF(tgkill, "fatal signals: to ourselves, after restoring the terminal"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table monitor_seal = {
	.name = "monitor",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 256,
	.max_threads = 0,
};

int seal_monitor(bool keep_caps, uint64_t caps)
{
	int rc = keep_caps ? 0 : sandbox_drop_caps(caps);

	if (!rc && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		rc = -errno;
	return rc ? rc : sandbox_filter(&monitor_seal, STAGE_FINAL);
}
