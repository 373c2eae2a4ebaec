/*
 * A taken-over hvx-net: this program starts, is configured and seals itself exactly as hvx-net does, then makes the call
 * that the test has chosen.  Each must be answered by death or by an error; what would reach the disk, the host's files,
 * its network or another process is tried in every way that comes to mind.
 *
 * Invariant: only calls of its own table may come back, and then only with an error.
 *
 * Usage: taken_over
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/net/net.h"
#include "devices/net/seal.h"
#include "tests/net/guest.h"

enum { FAILED = 40, SUCCEEDED }; /* exit statuses of the taken-over process */

static struct net n;

/* ---- what it tries ---- */

static long sys(long nr, long a, long b, long c, long d)
{
	return syscall(nr, a, b, c, d, 0, 0);
}

static long p(const void *x)
{
	return (long)(uintptr_t)x;
}

static long open_root(void)
{
	return sys(SYS_openat, AT_FDCWD, p("/"), O_RDONLY | O_DIRECTORY, 0);
}

static long open_old(void)
{
	return sys(SYS_open, p("/dev/sda"), O_RDWR, 0, 0);
}

static long open_how(void)
{
	static const uint64_t how[3];

	return sys(SYS_openat2, AT_FDCWD, p("/proc/self/mem"), p(how), sizeof how);
}

static long open_by_handle(void)
{
	static char h[64];

	return sys(SYS_open_by_handle_at, n.fd, p(h), O_RDONLY, 0);
}

static long make_memfd(void)
{
	return sys(SYS_memfd_create, p("x"), 0, 0, 0);
}

static long io_uring(void)
{
	static char params[120];

	return sys(SYS_io_uring_setup, 8, p(params), 0, 0);
}

static long inet(void)
{
	return sys(SYS_socket, AF_INET, SOCK_STREAM, 0, 0);
}

static long packet(void)
{
	return sys(SYS_socket, AF_PACKET, SOCK_RAW, 0, 0);
}

static long local(void)
{
	return sys(SYS_socket, AF_UNIX, SOCK_DGRAM, 0, 0);
}

static long pair(void)
{
	static int sv[2];

	return sys(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, p(sv));
}

/* The wire it has, turned to somebody else. */
static long reconnect(void)
{
	static const struct sockaddr none = {.sa_family = AF_UNSPEC};

	return sys(SYS_connect, n.fd, p(&none), sizeof none, 0);
}

static long send_to_name(int fd, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct iovec v = {(char[]){"x"}, 1};

	memcpy(a.sun_path, name, 20);
	struct msghdr m = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &v, .msg_iovlen = 1};
	return sendmsg(fd, &m, MSG_NOSIGNAL);
}

static long send_to_path(void)
{
	return send_to_name(n.fd, "/run/systemd/notify");
}

static long send_to_abstract(void)
{
	return send_to_name(n.fd, "\0/tmp/.X11-unix/X00");
}

static long send_to_inet(void)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct iovec v = {(char[]){"x"}, 1};
	struct msghdr m = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &v, .msg_iovlen = 1};

	return sendmsg(n.fd, &m, MSG_NOSIGNAL); /* its other sockets are SOCK_SEQPACKET, which knows no names */
}

static long tun(void)
{
	struct ifreq r = {.ifr_flags = IFF_TAP, .ifr_name = "eth0"};

	return sys(SYS_ioctl, n.fd, TUNSETIFF, p(&r), 0);
}

static long interfaces(void)
{
	struct ifconf c = {0};

	return sys(SYS_ioctl, n.fd, SIOCGIFCONF, p(&c), 0);
}

/* The one ioctl of its table, on everything it has. */
static long offload_elsewhere(void)
{
	for (int fd = 0; fd < 16; fd++)
		if (ioctl(fd, TUNSETOFFLOAD, 0) == 0)
			return 0;
	return -1;
}

static long executable(void)
{
	return p(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static long executable_later(void)
{
	return mprotect((void *)((uintptr_t)&n & ~4095ul), 4096, PROT_READ | PROT_EXEC);
}

/* Whatever of its descriptors could be mapped. */
static long map_descriptors(void)
{
	for (int fd = 0; fd < 16; fd++)
		if (mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED)
			return 0;
	return -1;
}

/* Whatever of them could be read at a place, as files and disks can. */
static long read_at(void)
{
	static char b[512];

	return sys(SYS_pread64, n.fd, p(b), sizeof b, 0);
}

static long start_program(void)
{
	static char *const argv[] = {NULL};

	return sys(SYS_execve, p("/bin/sh"), p(argv), p(argv), 0);
}

static long process(void)
{
	return sys(SYS_clone, SIGCHLD, 0, 0, 0);
}

static long thread(void)
{
	return sys(SYS_clone, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, 0, 0, 0);
}

static long namespace(void)
{
	return sys(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNET, 0, 0, 0);
}

static long other_namespace(void)
{
	return sys(SYS_setns, n.fd, 0, 0, 0);
}

static long mount_something(void)
{
	return sys(SYS_mount, p("none"), p("/"), p("proc"), 0);
}

static long root(void)
{
	return sys(SYS_chroot, p("/"), 0, 0, 0);
}

static long trace(void)
{
	return sys(SYS_ptrace, PTRACE_ATTACH, 1, 0, 0);
}

static long other_memory(void)
{
	struct iovec v = {&n, 8};

	return sys(SYS_process_vm_readv, 1, p(&v), 1, p(&v));
}

static long pidfd(void)
{
	return sys(SYS_pidfd_open, 1, 0, 0, 0);
}

static long signal_all(void)
{
	return sys(SYS_kill, -1, SIGKILL, 0, 0);
}

static long own_signals(void)
{
	return sys(SYS_fcntl, n.fd, F_SETOWN, 1, 0);
}

static long privileges(void)
{
	return sys(SYS_setuid, 0, 0, 0, 0);
}

static long filter_off(void)
{
	return sys(SYS_prctl, PR_SET_SECCOMP, 0, 0, 0);
}

static long old_entry(void)
{
	long rc;

	__asm__ volatile("int $0x80" : "=a"(rc) : "a"(5L), "b"(0L), "c"(0L), "d"(0L) : "memory"); /* open */
	return rc;
}

static long other_entry(void)
{
	return sys(0x40000000 + 2, p("/"), 0, 0, 0); /* x32's open */
}

static long bpf(void)
{
	static char attr[64];

	return sys(SYS_bpf, 0, p(attr), sizeof attr, 0);
}

static long keys(void)
{
	return sys(SYS_add_key, p("user"), p("x"), p("x"), 1);
}

/* More than the limit of descriptors, by the one call that makes any. */
static long descriptors(void)
{
	for (int i = 0; i < 64; i++)
		if (fcntl(CHILD_CONTROL_FD, F_DUPFD_CLOEXEC, 0) < 0)
			return -1;
	return 0;
}

static const struct {
	const char *what;
	long (*run)(void);
	bool may_fail; /* its table has the call: an error is enough */
} jobs[] = {
	{"openat of the root", open_root, false},
	{"open of a disk", open_old, false},
	{"openat2", open_how, false},
	{"open_by_handle_at", open_by_handle, false},
	{"memfd_create", make_memfd, false},
	{"io_uring", io_uring, false},
	{"an internet socket", inet, false},
	{"a packet socket", packet, false},
	{"a local socket", local, false},
	{"a socket pair", pair, false},
	{"connecting its wire elsewhere", reconnect, false},
	{"a message to a socket by path", send_to_path, true},
	{"a message to an abstract socket", send_to_abstract, true},
	{"a message to the host's loopback", send_to_inet, true},
	{"a tap of its own", tun, false},
	{"a list of interfaces", interfaces, false},
	{"its ioctl on what is no tap", offload_elsewhere, true},
	{"executable memory", executable, false},
	{"memory made executable", executable_later, false},
	{"mapping its descriptors", map_descriptors, true},
	{"reading its wire at an offset", read_at, false},
	{"a program", start_program, false},
	{"a process", process, false},
	{"a thread", thread, false},
	{"a namespace", namespace, false},
	{"another's namespace", other_namespace, false},
	{"a mount", mount_something, false},
	{"another root", root, false},
	{"ptrace", trace, false},
	{"another process's memory", other_memory, false},
	{"a pidfd", pidfd, false},
	{"signals to everybody", signal_all, false},
	{"signals by descriptor", own_signals, false},
	{"another identity", privileges, false},
	{"no filter", filter_off, false},
	{"int 0x80", old_entry, false},
	{"x32", other_entry, false},
	{"bpf", bpf, false},
	{"keys", keys, false},
	{"many descriptors", descriptors, true},
};
#define JOBS (sizeof jobs / sizeof jobs[0])

/* As devices/net/main.c, up to the seal. */
static int taken_over(int argc, char **argv)
{
	n.d.child = (struct child){.program = "hvx-net", .role = ROLE_NET, .table = &net_seal};
	n.d.ops = &front_ops;
	n.d.priv = &n;
	device_start(&n.d, argc, argv);
	n.be = &passt_backend;
	front_init(&n);
	n.be->start(&n);
	child_seal(&n.d.child);
	size_t job = (size_t)atoi(n.d.cfg.id + 3);
	if (job >= JOBS)
		for (;;) /* to be looked at from outside */
			poll(NULL, 0, -1);
	long rc = jobs[job].run();
	syscall(SYS_exit_group, rc == -1 ? FAILED : SUCCEEDED);
	return 0;
}

/* ---- the test ---- */

static struct guest g;

static int start(size_t job)
{
	int sv[2];

	memset(&g, 0, sizeof g);
	snprintf(g.cfg.id, sizeof g.cfg.id, "job%zu", job);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	guest_start_sealed(&g, NET_PASST, sv[1]);
	return sv[0];
}

/* Some hosts have no such entry: the instruction faults before any filter is asked. */
static bool host_has_old_entry(void)
{
	int ws = 0;
	pid_t pid = fork();

	if (pid == 0) {
		old_entry();
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &ws, 0) == pid && WIFEXITED(ws);
}

static bool passes(size_t job, int ws)
{
	if (WIFSIGNALED(ws) && WTERMSIG(ws) == SIGSYS)
		return true;
	if (jobs[job].run == old_entry && WIFSIGNALED(ws) && WTERMSIG(ws) == SIGSEGV)
		return !host_has_old_entry();
	return jobs[job].may_fail && WIFEXITED(ws) && WEXITSTATUS(ws) == FAILED;
}

/* Another device's files are open in the monitor: none of them is in the process. */
static unsigned look_at_descriptors(void)
{
	char name[64], to[256];
	int disk = open("/proc/self/exe", O_RDONLY), peer = start(JOBS), ws; /* not close-on-exec, on purpose */
	unsigned bad = 0, seen = 0;

	CHECK(disk >= 0);
	snprintf(name, sizeof name, "/proc/%d/fd", (int)g.pid);
	DIR *d = opendir(name);
	CHECK(d);
	for (struct dirent *e; (e = readdir(d));) {
		ssize_t k = readlinkat(dirfd(d), e->d_name, to, sizeof to - 1);
		if (k < 0)
			continue;
		to[k] = '\0';
		seen++;
		if (atoi(e->d_name) > 2 && strncmp(to, "socket:", 7) && strncmp(to, "anon_inode:[event", 17) &&
		    strncmp(to, "pipe:", 5)) {
			fprintf(stderr, "descriptor %s is %s\n", e->d_name, to);
			bad++;
		}
	}
	closedir(d);
	CHECK(seen > 6);
	kill(g.pid, SIGKILL);
	CHECK(waitpid(g.pid, &ws, 0) == g.pid);
	guest_free(&g);
	close(peer);
	close(disk);
	return bad;
}

int main(int argc, char **argv)
{
	unsigned failed = 0;

	if (argc > 1)
		return taken_over(argc, argv);
	setenv("HVX_NET", "/proc/self/exe", 1);
	for (size_t i = 0; i < JOBS; i++) {
		int ws, peer = start(i);
		CHECK(waitpid(g.pid, &ws, 0) == g.pid);
		bool ok = passes(i, ws);
		failed += !ok;
		printf("%s %zu - %s: %s %d\n", ok ? "ok" : "not ok", i + 1, jobs[i].what,
		       WIFSIGNALED(ws) ? "killed by signal" : "error, exit",
		       WIFSIGNALED(ws) ? WTERMSIG(ws) : WEXITSTATUS(ws));
		guest_free(&g);
		close(peer);
	}
	unsigned beyond = look_at_descriptors();
	printf("%s %zu - no descriptor of anything else\n", beyond ? "not ok" : "ok", JOBS + 1);
	return failed || beyond;
}
