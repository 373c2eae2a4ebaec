/*
 * The filters of qemu-nbd, passt and genisoimage.  They are in force before the program is, so what its loader does is in them; what
 * another release may try is answered with ENOSYS, as an older kernel would.  Invariant: none makes a process, a
 * namespace or an io_uring, reaches another process, or makes a socket with a name in a file system; the
 * first two make no file either.
 */
#include "monitor/toolseal.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* What pthread_create() asks for, in glibc and in musl: a thread of this process and nothing else. */
#define THREAD_FLAGS      0x3d0f00
#define THREAD_FLAGS_MUSL 0x7d0f00
#define TMPFILE           020000000 /* O_TMPFILE without O_DIRECTORY */
#define MAKES             (O_CREAT | O_TRUNC | TMPFILE)

/* Start, memory, time, threads' locks, the end: what any program does. */
#define PROGRAM                                                                                                        \
	ALLOW(execve, "its own start; nothing else is there to be executed"), ALLOW(brk, "heap"),                      \
		ALLOW(mmap, "libraries, heap, stacks"), ALLOW(munmap, "libraries, heap, stacks"),                      \
		ALLOW(mremap, "heap"), ALLOW(mprotect, "loader, stacks"),                                              \
		ALLOW_EQ(madvise, 2, MADV_DONTNEED, "heap, stacks"), ALLOW_EQ(madvise, 2, MADV_FREE, "heap"),          \
		ALLOW_EQ(madvise, 2, MADV_HUGEPAGE, "buffers"), ALLOW_EQ(madvise, 2, MADV_DONTDUMP, "buffers"),        \
		ALLOW(access, "loader: is there a preload?"), ALLOW(faccessat, "as access"),                           \
		ALLOW(faccessat2, "as access"), ALLOW(read, "its files, events"), ALLOW(readv, "as read"),             \
		ALLOW(pread64, "libraries, the image"), ALLOW(write, "log lines, events"), ALLOW(writev, "log lines"), \
		ALLOW(close, "what is no longer needed"), ALLOW(close_range, "what it did not ask for"),               \
		ALLOW(dup, "descriptors it has"), ALLOW(lseek, "size of files"),                                       \
		ALLOW(stat, "what there is in its root"), ALLOW(fstat, "size of files"),                               \
		ALLOW(lstat, "what there is in its root"), ALLOW(newfstatat, "size of files"),                         \
		ALLOW(statx, "size of files"), ALLOW(statfs, "libselinux: none here"),                                 \
		ALLOW(fstatfs, "kind of the image's file system"), ALLOW(readlink, "its own name"),                    \
		ALLOW(getdents64, "libnuma: none here"), ALLOW(getcwd, "messages"),                                    \
		ALLOW_EQ(fcntl, 1, F_DUPFD, "descriptors it has"),                                                     \
		ALLOW_EQ(fcntl, 1, F_DUPFD_CLOEXEC, "descriptors it has"),                                             \
		ALLOW_EQ(fcntl, 1, F_GETFD, "close-on-exec"), ALLOW_EQ(fcntl, 1, F_SETFD, "close-on-exec"),            \
		ALLOW_EQ(fcntl, 1, F_GETFL, "non-blocking sockets"),                                                   \
		ALLOW_EQ(fcntl, 1, F_SETFL, "non-blocking sockets"),                                                   \
		ALLOW_EQ(arch_prctl, 0, ARCH_SET_FS, "thread pointer"),                                                \
		ALLOW_EQ(arch_prctl, 0, ARCH_GET_FS, "thread pointer"),                                                \
		ALLOW_EQ(prctl, 0, PR_SET_NAME, "names of threads"),                                                   \
		ALLOW_EQ(prctl, 0, PR_SET_TIMERSLACK, "exact timers"),                                                 \
		ALLOW_EQ(prctl, 0, PR_GET_DUMPABLE, "libraries that ask"),                                             \
		ALLOW(set_tid_address, "start of a thread"), ALLOW(set_robust_list, "start of a thread"),              \
		ALLOW(rseq, "start of a thread"),                                                                      \
		ALLOW(prlimit64, "how large stacks are, how many files; no limit goes up"),                            \
		ALLOW(getrlimit, "how large stacks are"), ALLOW(uname, "loader"), ALLOW(sysinfo, "sizes of caches"),   \
		ALLOW(getuid, "who it is"), ALLOW(geteuid, "who it is"), ALLOW(getgid, "who it is"),                   \
		ALLOW(getegid, "who it is"), ALLOW(getpid, "LISTEN_PID, abort()"), ALLOW(getppid, "who started it"),   \
		ALLOW(gettid, "abort(), names of threads"), ALLOW_SELF(tgkill, "abort(): to itself"),                  \
		ALLOW(rt_sigaction, "handlers"), ALLOW(rt_sigprocmask, "handlers, threads"),                           \
		ALLOW(rt_sigreturn, "return from a handler"), ALLOW(sigaltstack, "stacks of handlers"),                \
		ALLOW(getrandom, "heap hardening, identifiers"), ALLOW(clock_gettime, "time"),                         \
		ALLOW(clock_getres, "time"), ALLOW(gettimeofday, "time"), ALLOW(time, "time"),                         \
		ALLOW(nanosleep, "waits"), ALLOW(clock_nanosleep, "waits"), ALLOW(poll, "events"),                     \
		ALLOW(ppoll, "events"), ALLOW(epoll_create1, "events"), ALLOW(epoll_ctl, "events"),                    \
		ALLOW(epoll_wait, "events"), ALLOW(epoll_pwait, "events"), ALLOW(timerfd_create, "timers"),            \
		ALLOW(timerfd_settime, "timers"), ALLOW(eventfd2, "events"), ALLOW(pipe2, "events"),                   \
		ALLOW(futex, "locks"), ALLOW(sched_yield, "locks"), ALLOW(sched_getaffinity, "how many CPUs"),         \
		ALLOW(umask, "what it would make files with"), ALLOW(chdir, "to its root"),                            \
		ALLOW(recvmsg, "its socket"), ALLOW(recvfrom, "its socket"), ALLOW(getsockopt, "what a socket is"),    \
		ALLOW(getsockname, "what a socket is"), ALLOW(getpeername, "what a socket is"),                        \
		ALLOW(shutdown, "end of a connection"), ALLOW(accept4, "the one who connects"),                        \
		ALLOW(accept, "as accept4"), ALLOW(restart_syscall, "a wait interrupted by stop and continue"),        \
		ALLOW(exit, "end of a thread"), ALLOW(exit_group, "the end")

/* ---- qemu-nbd: one image, one listening socket, threads ---- */

static const struct sandbox_call nbd_calls[] = {
	/* the first two are not in the table of an image that is only read */
	ALLOW_MASK(openat, 2, MAKES, 0, "the image, libraries; nothing is made or cut"),
	ALLOW_MASK(open, 1, MAKES, 0, "as openat"),
	ALLOW_MASK(openat, 2, MAKES | O_ACCMODE, O_RDONLY, "the image, libraries"),
	ALLOW_MASK(open, 1, MAKES | O_ACCMODE, O_RDONLY, "as openat"),
	PROGRAM,
	ALLOW_EQ(clone, 0, THREAD_FLAGS, "threads for requests"),
	ALLOW_EQ(clone, 0, THREAD_FLAGS_MUSL, "threads for requests"),
	ALLOW(sendmsg, "replies; it has no socket but the one that listens and those it accepts, which take no name"),
	ALLOW_EQ(sendto, 4, 0, "replies, to nobody by name"),
	ALLOW(setsockopt, "how replies go out"),
	ALLOW(signalfd4, "SIGTERM ends it when all is written"),
	ALLOW(signalfd, "as signalfd4"),
	ALLOW(pwrite64, "the image"),
	ALLOW(preadv, "the image"),
	ALLOW(pwritev, "the image"),
	ALLOW(preadv2, "the image"),
	ALLOW(pwritev2, "the image"),
	ALLOW(fdatasync, "flushes"),
	ALLOW(fsync, "flushes"),
	ALLOW(ftruncate, "the image grows"),
	ALLOW(fallocate, "discards and zeroes"),
	ALLOW(copy_file_range, "copies within the image"),
	ALLOW_EQ(ioctl, 1, BLKGETSIZE64, "an image on a block device"),
	ALLOW_EQ(ioctl, 1, BLKSSZGET, "an image on a block device"),
	ALLOW_EQ(ioctl, 1, BLKPBSZGET, "an image on a block device"),
	ALLOW_EQ(ioctl, 1, BLKROGET, "an image on a block device"),
	ALLOW_EQ(ioctl, 1, BLKDISCARD, "discards on a block device"),
	ALLOW_EQ(ioctl, 1, BLKZEROOUT, "zeroes on a block device"),
	ALLOW_EQ(ioctl, 1, FIONBIO, "non-blocking sockets"),
	ALLOW(get_mempolicy, "libnuma"),
};
#define NBD_CALLS   (sizeof nbd_calls / sizeof nbd_calls[0])
#define NBD_WRITING 2
#define NBD_DESC    128
#define NBD_MEMORY  (4ull << 30) /* caches of tables, stacks of 64 threads */

const struct sandbox_table nbd_seal = {
	.name = "qemu-nbd",
	.calls = nbd_calls,
	.n = NBD_CALLS,
	.max_fds = NBD_DESC,
	.memory = NBD_MEMORY,
	.refuse = ENOSYS,
};

const struct sandbox_table nbd_readonly_seal = {
	.name = "qemu-nbd, read-only",
	.calls = nbd_calls + NBD_WRITING,
	.n = NBD_CALLS - NBD_WRITING,
	.max_fds = NBD_DESC,
	.memory = NBD_MEMORY,
	.refuse = ENOSYS,
};

/* ---- passt: the host's network ---- */

static const struct sandbox_call passt_calls[] = {
	PROGRAM,
	ALLOW_MASK(openat, 2, MAKES | O_ACCMODE, O_RDONLY, "libraries, the resolver's configuration"),
	ALLOW_MASK(open, 1, MAKES | O_ACCMODE, O_RDONLY, "as openat"),
	ALLOW_EQ(socket, 0, AF_INET, "the guest's connections"),
	ALLOW_EQ(socket, 0, AF_INET6, "the guest's connections"),
	ALLOW_BOTH(socket, 0, AF_NETLINK, 2, NETLINK_ROUTE, "addresses and routes of the host; it may change nothing"),
	ALLOW(bind, "forwards, sources of the guest's connections"),
	ALLOW(listen, "forwards"),
	ALLOW(connect, "the guest's connections; none is of a family that has names in files"),
	ALLOW(sendto, "the guest's frames and datagrams"),
	ALLOW(sendmsg, "the guest's frames and datagrams"),
	ALLOW(sendmmsg, "the guest's datagrams"),
	ALLOW(recvmmsg, "datagrams"),
	ALLOW(setsockopt, "buffers, options of connections"),
	ALLOW(splice, "data between sockets of this host"),
	ALLOW(tee, "data between sockets of this host"),
	ALLOW(capget, "it drops what it has"),
	ALLOW(capset, "it drops what it has"),
	ALLOW_EQ(prctl, 0, PR_CAPBSET_DROP, "it drops what it has"),
	ALLOW_EQ(prctl, 0, PR_CAP_AMBIENT, "it drops what it has"),
	ALLOW_EQ(prctl, 0, PR_SET_DUMPABLE, "nobody looks into it"),
	ALLOW_EQ(prctl, 0, PR_SET_NO_NEW_PRIVS, "before its own filter"),
	ALLOW_EQ(prctl, 0, PR_SET_SECCOMP, "its own filter, on top of this one"),
	ALLOW_EQ(seccomp, 0, SECCOMP_SET_MODE_FILTER, "its own filter, on top of this one"),
	ALLOW(setgroups, "to who it is already"),
	ALLOW(setgid, "to who it is already"),
	ALLOW(setuid, "to who it is already"),
	/* It would make namespaces and an empty root: it is in them, and makes no others. */
	FAKE(unshare, "it confines itself"),
	FAKE(mount, "it confines itself"),
	FAKE(pivot_root, "it confines itself"),
	FAKE(umount2, "it confines itself"),
};

const struct sandbox_table passt_seal = {
	.name = "passt",
	.calls = passt_calls,
	.n = sizeof passt_calls / sizeof passt_calls[0],
	.max_fds = 1 << 20, /* a descriptor for each connection */
	.memory = 1ull << 30,
	.refuse = ENOSYS,
};

/* ---- genisoimage: three texts become a disk ---- */

static const struct sandbox_call seed_calls[] = {
	PROGRAM,
	ALLOW(openat, "the texts, libraries; the disk, which it would make, or empty, and which is there"),
	ALLOW(open, "as openat"),
	FAKE(setreuid, "to who it is already"),
};

const struct sandbox_table seed_seal = {
	.name = "genisoimage",
	.calls = seed_calls,
	.n = sizeof seed_calls / sizeof seed_calls[0],
	.max_fds = 64,
	.memory = 1ull << 30,
	.refuse = ENOSYS,
};
