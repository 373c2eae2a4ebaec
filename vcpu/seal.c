/*
 * The filter of hvx-vcpu.  Invariant: once sealed the process, which counts as
 * taken over when the guest runs, can make no executable mapping, no thread, no
 * descriptor but duplicates, and reach no name.
 */
#include "vcpu/seal.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* What pthread_create() asks for: a thread of this process and nothing else. */
#define THREAD_FLAGS 0x3d0f00

static const struct sandbox_call calls[] = {
	/* set-up: memory, code memory, threads, timers */
	SETUP(memfd_create, "code memory"),
	SETUP(ftruncate, "size of code memory"),
	SETUP_EQ(mmap, 2, PROT_READ | PROT_EXEC, "the executable mapping of code memory"),
	SETUP_EQ(fcntl, 1, F_ADD_SEALS, "code memory keeps its size"),
	SETUP_EQ(fcntl, 1, F_GET_SEALS, "RAM must be sealed"),
	SETUP_EQ(fcntl, 1, F_SETOWN_EX, "devices' calls signal the vcpu's thread"),
	SETUP_EQ(fcntl, 1, F_SETFL, "devices' calls signal the vcpu's thread"),
	SETUP_EQ(madvise, 2, MADV_HUGEPAGE, "tables on huge pages"),
	SETUP_EQ(fcntl, 1, F_SETSIG, "devices' calls signal the vcpu's thread"),
	SETUP_EQ(clone, 0, THREAD_FLAGS, "threads of the vcpus"),
	SETUP_ENOSYS(clone3, "its flags cannot be filtered: libc falls back to clone"),
	SETUP(rseq, "start of a thread"),
	SETUP(set_robust_list, "start of a thread"),
	SETUP(timer_create, "deadline timer of a vcpu"),
	SETUP(rt_sigaction, "handlers of guest faults and kicks"),
	SETUP(epoll_create1, "the loop"),
	SETUP(getuid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(geteuid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(getgid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(getegid, "the loop: libevent asks whether it runs set-uid"),
	SETUP(eventfd2, "threads wake the loop"),
	SETUP(pipe2, "the loop"),
	SETUP(prlimit64, "stack size of a thread, last limit before the final filter"),
	SETUP(seccomp, "load the final filter"),
	SETUP(prctl, "load the final filter: no_new_privs is asked for again"),
	SETUP_EQ(arch_prctl, 0, ARCH_SET_FS, "thread pointer"),
	/* guest execution */
	ALLOW(rt_sigreturn, "return from guest faults and kicks"),
	ALLOW(rt_sigprocmask, "kicks wait while state is in flight"),
	ALLOW(sigaltstack, "the signal stack of a vcpu"),
	ALLOW_SELF(tgkill, "kicks between threads"),
	ALLOW(timer_settime, "next deadline of a vcpu"),
	ALLOW(timer_gettime, "a deadline read back"),
	ALLOW(futex, "locks, halted vcpus"),
	ALLOW_EQ(arch_prctl, 0, ARCH_SET_GS, "gs base is struct vcpu or the window's distance"),
	ALLOW_EQ(arch_prctl, 0, ARCH_GET_GS, "gs base is struct vcpu"),
	ALLOW_EQ(ioctl, 1, SECCOMP_IOCTL_NOTIF_RECV, "a stub's guest code has stopped"),
	ALLOW_EQ(ioctl, 1, SECCOMP_IOCTL_NOTIF_SEND, "it goes on"),
	ALLOW(clock_nanosleep, "halted vcpus, short waits"),
	ALLOW(ppoll, "halted vcpus"),
	ALLOW(poll, "a console that takes nothing now, the offer of a device"),
	ALLOW(sched_yield, "short waits"),
	ALLOW(getpid, "target of kicks"),
	ALLOW(gettid, "target of kicks"),
	ALLOW(clock_gettime, "time where the vdso cannot tell"),
	ALLOW(gettimeofday, "time where the vdso cannot tell"),
	ALLOW(time, "time where the vdso cannot tell"),
	/* descriptors it was given */
	ALLOW(read, "kernel, initrd, console, wake-ups"),
	ALLOW(readv, "as read"),
	ALLOW(pread64, "kernel and initrd"),
	ALLOW(pwrite64, "what firmware keeps in --nvram"),
	ALLOW(write, "console, trace, log, wake-ups"),
	ALLOW(writev, "as write"),
	ALLOW(lseek, "kernel and initrd"),
	ALLOW(fstat, "size of kernel and initrd"),
	ALLOW(newfstatat, "how libc spells fstat; there is no name to open"),
	ALLOW(recvmsg, "messages from the monitor"),
	ALLOW(sendmsg, "answers"),
	ALLOW(epoll_wait, "the loop"),
	ALLOW(epoll_pwait, "the loop"),
	ALLOW(epoll_ctl, "the loop"),
	ALLOW_EQ(fcntl, 1, F_GETFL, "non-blocking control socket"),
	ALLOW_NONBLOCK("non-blocking control socket"),
	ALLOW_EQ(fcntl, 1, F_DUPFD_CLOEXEC, "a descriptor in a queued message"),
	ALLOW(close, "descriptors no longer needed"),
	/* memory */
	ALLOW_MASK(mmap, 2, PROT_EXEC, 0, "heap, RAM, pages of the window; never executable"),
	ALLOW_MASK(mprotect, 2, PROT_EXEC, 0, "heap, pages of the window that get code; never executable"),
	ALLOW(munmap, "heap, pages that leave the window"),
	ALLOW(mremap, "heap"),
	ALLOW_EQ(madvise, 2, MADV_DONTNEED, "heap that is given back"),
	ALLOW(brk, "heap"),
	ALLOW(getrandom, "heap hardening, virtio-rng, guest's RDRAND where the host has none"),
	ALLOW(sched_getaffinity, "libc sizes its heaps by CPU"),
	/* the end */
	ALLOW(restart_syscall, "a wait interrupted by stop and continue"),
	ALLOW(exit, "end of a thread"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table vcpu_seal = {
	.name = "vcpu",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 128,       /* two a card, one a CPU */
	.memory = 1ull << 30, /* 140 MiB of tables for one CPU, and what later tables take */
	.max_threads = 0,
};
