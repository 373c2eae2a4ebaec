/*
 * A taken-over qemu-nbd or passt: stands in their place, started and confined by the real monitor, and tries what an
 * attacker would.  It says what succeeded, and makes a call that must kill; where that does not, it says more.
 * evil_tool.sh puts it there and looks.
 *
 * Invariant: an attempt counts by its effect where there is one to be seen, not by what the call returned.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The directory of the owner's things; the script writes it over the mark. */
static char dir[160] = "HVX-EVIL-DIRECTORY";
static bool network; /* it stands for passt, whose work that is */

static const char *at(const char *name)
{
	static char path[2][256];
	static int n;

	n ^= 1;
	snprintf(path[n], sizeof path[n], "%s/%s", dir, name);
	return path[n];
}

static long open_secret(void)
{
	return open(at("secret"), O_RDWR);
}

static long read_secret(void)
{
	return open(at("secret"), O_RDONLY);
}

static long cut_secret_open(void)
{
	return open(at("secret"), O_WRONLY | O_TRUNC);
}

static long cut_secret(void)
{
	return truncate(at("secret"), 0);
}

static long chmod_secret(void)
{
	return chmod(at("secret"), 0666);
}

static long chown_secret(void)
{
	return chown(at("secret"), 1, 1);
}

static long xattr_secret(void)
{
	return setxattr(at("secret"), "user.x", "y", 1, 0);
}

static long unlink_secret(void)
{
	return unlink(at("secret"));
}

static long rename_secret(void)
{
	return rename(at("secret"), at("elsewhere"));
}

static long link_secret(void)
{
	return link(at("secret"), at("elsewhere"));
}

static long make_file(void)
{
	return open(at("new"), O_CREAT | O_RDWR, 0600);
}

static long make_here(void)
{
	return open("/tmp/new", O_CREAT | O_RDWR, 0600);
}

static long make_unnamed(void)
{
	return open("/tmp", O_TMPFILE | O_RDWR, 0600);
}

static long make_directory(void)
{
	return mkdir(at("newdir"), 0700);
}

static long make_node(void)
{
	return mknod(at("node"), S_IFCHR | 0600, 0x103);
}

static long read_passwd(void)
{
	return open("/etc/passwd", O_RDONLY);
}

static long read_others_environment(void)
{
	return open("/proc/1/environ", O_RDONLY);
}

static long write_own_library(void)
{
	return open("/lib/x86_64-linux-gnu/libc.so.6", O_WRONLY);
}

static long write_own_program(void)
{
	return open("/usr/bin/qemu-nbd", O_WRONLY);
}

static long by_handle(void)
{
	static char h[64];

	return syscall(SYS_open_by_handle_at, 3, h, O_RDONLY);
}

/* Its image is for reading: the script gives it one that way. */
static long write_readonly_image(void)
{
	return open("/proc/self/fd/4", O_RDWR);
}

static long chmod_image(void)
{
	return chmod("/proc/self/fd/4", 0666);
}

static long drop_lock(void)
{
	struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	return fcntl(4, F_OFD_SETLK, &l);
}

static long take_lock(void)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	return fcntl(4, F_OFD_SETLK, &l);
}

/* ---- others' sockets ---- */

static long connect_control(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s", at("victim.sock"));
	return s < 0 ? s : connect(s, (struct sockaddr *)&a, sizeof a);
}

static long send_control(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof a.sun_path, "%s", at("victim.sock"));
	return sendto(3, "x", 1, MSG_NOSIGNAL, (struct sockaddr *)&a, sizeof a);
}

static long local_socket(void)
{
	return socket(AF_UNIX, SOCK_DGRAM, 0);
}

static long local_pair(void)
{
	int sv[2];

	return socketpair(AF_UNIX, SOCK_DGRAM, 0, sv);
}

static long internet_socket(void)
{
	return network ? -1 : socket(AF_INET, SOCK_STREAM, 0);
}

static long packet_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

static long vsock(void)
{
	return socket(AF_VSOCK, SOCK_STREAM, 0);
}

static long netlink_audit(void)
{
	return socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
}

static long connect_own(void)
{
	struct sockaddr a = {.sa_family = AF_UNSPEC};

	return network ? -1 : connect(3, &a, sizeof a);
}

/* ---- kernel interfaces ---- */

static long io_uring(void)
{
	static char params[120];

	return syscall(SYS_io_uring_setup, 8, params);
}

static bool has_caps(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};

	return syscall(SYS_capget, &h, d) == 0 && (d[0].effective || d[1].effective);
}

static long new_user_namespace(void)
{
	unshare(CLONE_NEWUSER);
	return has_caps() ? 0 : -1;
}

static long mount_over(void)
{
	char b[64];

	mount("none", "/proc/self", "tmpfs", 0, NULL);
	return readlink("/proc/self/exe", b, sizeof b) < 0 ? 0 : -1;
}

static long clone_user(void)
{
	return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
}

static long clone_process(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static long clone_3(void)
{
	uint64_t args[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};

	return syscall(SYS_clone3, args, sizeof args);
}

static long plain_fork(void)
{
	return syscall(SYS_fork);
}

static long a_shell(void)
{
	char *const argv[] = {"/bin/sh", "-c", "echo evil: SUCCEEDED: a shell >&2", NULL}, *const env[] = {NULL};

	return execve(argv[0], argv, env);
}

static long signal_parent(void)
{
	return kill(getppid() ? getppid() : -1, 0);
}

static long signal_all(void)
{
	return kill(-1, 0);
}

static long signal_thread(void)
{
	return syscall(SYS_tgkill, getpid() + 1, getpid() + 1, 0);
}

static long own_signals(void)
{
	return fcntl(3, F_SETOWN, getppid());
}

static long lease(void)
{
	return fcntl(3, F_SETLEASE, F_RDLCK);
}

static long typed(void)
{
	return ioctl(2, TIOCSTI, "x");
}

static long raise_limits(void)
{
	struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY};

	return setrlimit(RLIMIT_AS, &r);
}

static long without_end(void)
{
	return mmap(NULL, 512ul << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ==
			       MAP_FAILED
		       ? -1
		       : 0;
}

static long mergeable(void)
{
	void *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return madvise(p, 8192, MADV_MERGEABLE);
}

static long debugger(void)
{
	return prctl(PR_SET_PTRACER, getppid(), 0, 0, 0);
}

static long become_root(void)
{
	return getuid() == 0 ? -1 : setresuid(0, 0, 0);
}

/* Calls that mean one thing whatever their arguments are. */
/* clang-format off */
#define CALLS(X) \
	X(ptrace) X(process_vm_readv) X(process_vm_writev) X(process_madvise) X(pidfd_open) X(pidfd_getfd) \
	X(pidfd_send_signal) X(setns) X(pivot_root_) X(chroot) X(mount_setattr) X(fsopen) X(fspick) X(fsmount) \
	X(open_tree) X(move_mount) X(bpf) X(perf_event_open) X(userfaultfd) X(keyctl) X(add_key) X(request_key) \
	X(memfd_create) X(name_to_handle_at) X(personality) X(shmget) X(semget) X(msgget) X(mq_open) \
	X(inotify_init1) X(fanotify_init) X(syslog) X(acct) X(init_module) X(kexec_load) X(reboot) X(sethostname) \
	X(swapon) X(timer_create) X(execveat) X(vfork) X(symlink) X(fchmodat) X(fchownat) X(utimensat) X(unlinkat) \
	X(renameat2) X(linkat) X(mkdirat) X(mknodat) X(landlock_create_ruleset) X(io_uring_enter) \
	X(io_uring_register)
/* clang-format on */
#define SYS_pivot_root_ SYS_pivot_root

static const struct {
	const char *what;
	long (*run)(void);
	long nr;
} jobs[] = {{"opening a file to write", open_secret, 0},
	    {"opening a file to read", read_secret, 0},
	    {"cutting a file while opening it", cut_secret_open, 0},
	    {"cutting a file", cut_secret, 0},
	    {"chmod", chmod_secret, 0},
	    {"chown", chown_secret, 0},
	    {"setxattr", xattr_secret, 0},
	    {"unlink", unlink_secret, 0},
	    {"rename", rename_secret, 0},
	    {"link", link_secret, 0},
	    {"a new file", make_file, 0},
	    {"a new file in its root", make_here, 0},
	    {"a file without a name", make_unnamed, 0},
	    {"a directory", make_directory, 0},
	    {"a device", make_node, 0},
	    {"reading /etc/passwd", read_passwd, 0},
	    {"another's environment", read_others_environment, 0},
	    {"writing its library", write_own_library, 0},
	    {"writing its program", write_own_program, 0},
	    {"open_by_handle_at", by_handle, 0},
	    {"writing its image", write_readonly_image, 0},
	    {"chmod of its image", chmod_image, 0},
	    {"dropping the lock", drop_lock, 0},
	    {"a lock of its own", take_lock, 0},
	    {"another VM's control socket", connect_control, 0},
	    {"a message to a control socket", send_control, 0},
	    {"a local socket", local_socket, 0},
	    {"a socket pair", local_pair, 0},
	    {"an internet socket", internet_socket, 0},
	    {"a packet socket", packet_socket, 0},
	    {"a vsock", vsock, 0},
	    {"the audit netlink", netlink_audit, 0},
	    {"connecting its socket", connect_own, 0},
	    {"io_uring", io_uring, 0},
	    {"a user namespace", new_user_namespace, 0},
	    {"a mount", mount_over, 0},
	    {"a process in a user namespace", clone_user, 0},
	    {"a process", clone_process, 0},
	    {"clone3", clone_3, 0},
	    {"fork", plain_fork, 0},
	    {"a shell", a_shell, 0},
	    {"a signal to its parent", signal_parent, 0},
	    {"signals to everybody", signal_all, 0},
	    {"a signal to another process", signal_thread, 0},
	    {"signals by descriptor", own_signals, 0},
	    {"a lease", lease, 0},
	    {"typing", typed, 0},
	    {"higher limits", raise_limits, 0},
	    {"memory without end", without_end, 0},
	    {"merging", mergeable, 0},
	    {"a debugger", debugger, 0},
	    {"root", become_root, 0},
#define X(name) {#name, NULL, SYS_##name},
	    CALLS(X)
#undef X
};

static char text[400];

/* One line, for the monitor tells the last one. */
static void report(void)
{
	size_t n = strlen(text);

	text[n] = '\n';
	if (write(2, text, n + 1) != (ssize_t)n + 1)
		_exit(1);
	text[n] = '\0';
}

static void add(const char *what, const char *how)
{
	size_t n = strlen(text);

	snprintf(text + n, sizeof text - 1 - n, "%s%s%s", n ? "; " : "evil: SUCCEEDED: ", what, how);
}

int main(int argc, char **argv)
{
	const char *base = strrchr(argv[0], '/');

	if (argc == 2 && !strcmp(argv[1], "--landlock")) /* the script asks: is there one? */
		return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 1;
	network = base && !strncmp(base, "/passt", 6);
	for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
		if (network && jobs[i].nr == SYS_pivot_root)
			continue; /* said to be done, and is not: see mount_over() */
		errno = 0;
		long rc = jobs[i].run ? jobs[i].run() : syscall(jobs[i].nr, 0, 0, 0, 0, 0, 0);
		if (rc >= 0 || (!jobs[i].run && errno != ENOSYS && errno != EPERM))
			add(jobs[i].what, rc < 0 ? " (reached the kernel)" : "");
	}
	if (!text[0])
		snprintf(text, sizeof text, "evil: none of %zu attempts succeeded", sizeof jobs / sizeof jobs[0]);
	report();
	long rc;
	__asm__ volatile("int $0x80" : "=a"(rc) : "a"(20L) : "memory"); /* must kill */
	add("int 0x80", "");
	report();
	return 0;
}
