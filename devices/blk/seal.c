/*
 * The filter of hvx-blk.  Invariant: once sealed the process can open nothing; what it can do to a file
 * it can do to the image it was given, and io_uring is restricted to the same (uring.c).
 */
#include "devices/blk/seal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* What pthread_create() asks for: a thread of this process and nothing else. */
#define THREAD_FLAGS 0x3d0f00
#define WORKERS      64 /* of io_uring, made by the kernel; clone itself is not in the final table */

static const struct sandbox_call calls[] = {
	/* set-up: memory, the image, ways to read it */
	SETUP_EQ(fcntl, 1, F_GET_SEALS, "RAM must be sealed"),
	SETUP_EQ(ioctl, 1, BLKGETSIZE64, "size of a block device"),
	SETUP_EQ(ioctl, 1, BLKSSZGET, "block size of a block device"),
	SETUP(ftruncate, "the overlay gets the size of the disk"),
	SETUP(io_uring_setup, "the ring, restricted before the final filter"),
	SETUP(io_uring_register, "the image, the restrictions"),
	SETUP_EQ(clone, 0, THREAD_FLAGS, "threads where there is no io_uring"),
	SETUP_ENOSYS(clone3, "its flags cannot be filtered: libc falls back to clone"),
	SETUP(rt_sigaction, "libc's own signal, with the first thread"),
	SETUP(rseq, "start of a thread"),
	SETUP(set_robust_list, "start of a thread"),
	SETUP_EQ(fcntl, 1, F_SETFL, "the image blocks"),
	SETUP_EQ(fcntl, 1, F_GETFD, "libnbd: its socket closes on exec"),
	SETUP_EQ(fcntl, 1, F_SETFD, "libnbd: its socket closes on exec"),
	SETUP(getsockopt, "libnbd looks at its socket"),
	SETUP(setsockopt, "libnbd: no delays"),
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
	/* the image */
	ALLOW(io_uring_enter, "requests, as far as the ring is not restricted"),
	ALLOW(preadv2, "reads where there is no io_uring"),
	ALLOW(pwritev2, "writes where there is no io_uring"),
	ALLOW(fdatasync, "flushes where there is no io_uring"),
	ALLOW(fallocate, "discards and zeroes where there is no io_uring"),
	ALLOW(recvfrom, "replies of the NBD server"),
	ALLOW(sendto, "commands to the NBD server; its only socket but for the channels"),
	/* messages and doorbells */
	ALLOW(read, "doorbells"),
	ALLOW(sched_yield, "a page of RAM that another thread is just taking out of the pool"),
	ALLOW(write, "interrupts, log lines"),
	ALLOW(recvmsg, "messages"),
	ALLOW(sendmsg, "answers"),
	ALLOW(poll, "the vcpu's answer about translated code"),
	ALLOW(epoll_wait, "the loop"),
	ALLOW(epoll_pwait, "the loop"),
	ALLOW(epoll_ctl, "the loop"),
	ALLOW_EQ(fcntl, 1, F_GETFL, "non-blocking sockets"),
	ALLOW_NONBLOCK("non-blocking sockets"),
	ALLOW_EQ(fcntl, 1, F_DUPFD_CLOEXEC, "a descriptor in a queued message"),
	ALLOW(close, "descriptors no longer needed"),
	/* memory */
	ALLOW(fstat, "size of the image"),
	ALLOW(newfstatat, "how libc spells fstat; there is no name to open"),
	ALLOW_MASK(mmap, 2, PROT_EXEC, 0, "heap and RAM; never executable"),
	ALLOW_MASK(mprotect, 2, PROT_EXEC, 0, "heap; never executable"),
	ALLOW(munmap, "heap"),
	ALLOW(mremap, "heap"),
	ALLOW_EQ(madvise, 2, MADV_DONTNEED, "heap that is given back"),
	ALLOW(brk, "heap"),
	ALLOW(getrandom, "heap hardening"),
	ALLOW(sched_getaffinity, "libc sizes its heaps by CPU"),
	/* waiting, time, the end */
	ALLOW(futex, "locks"),
	ALLOW(clock_gettime, "time where the vdso cannot tell"),
	ALLOW(rt_sigreturn, "return from a signal"),
	ALLOW(rt_sigprocmask, "abort()"),
	ALLOW(getpid, "abort()"),
	ALLOW(gettid, "abort(), libnbd's messages"),
	ALLOW_SELF_EQ(tgkill, 2, 6, "abort(): SIGABRT to ourselves"),
	ALLOW(restart_syscall, "a wait interrupted by stop and continue"),
	ALLOW(exit, "the end of a thread"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table blk_seal = {
	.name = "blk",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 64,
	.memory = 256ull << 20, /* buffers, the threads' stacks and heaps */
	.max_threads = WORKERS,
	.locked = true,
};
