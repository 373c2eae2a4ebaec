/*
 * Starting children.  Invariant: between fork and exec only async-signal-safe
 * calls are made, and the new program starts with descriptors 0 to 3, an empty
 * environment and no blocked or ignored signals but SIGXFSZ.
 */
#include "monitor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/child.h"
#include "common/sandbox.h"
#include "monitor/confine.h"

/* Beside us (the build tree), in the libexec that goes with our bin, or where `make install` puts it. */
static int open_program(const char *name)
{
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n > 0) {
		self[n] = '\0';
		const char *dir = dirname(self);
		static const char *const where[] = {"%s/%s", "%s/../libexec/hvx/%s"};
		for (size_t i = 0; i < 2; i++) {
			snprintf(path, sizeof path, i ? where[1] : where[0], dir, name);
			int fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd >= 0)
				return fd;
		}
	}
	snprintf(path, sizeof path, "%s/%s", HVX_LIBEXECDIR, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

struct exec_plan {
	int exe, control, log, null;
	const struct proc *p;
	char *argv[6];
	char args[4][96];
};

static void default_signals(void)
{
	sigset_t none;

	for (int s = 1; s < 32; s++)
		signal(s, s == SIGXFSZ ? SIG_IGN : SIG_DFL); /* beyond a limit of file sizes: EFBIG is enough */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child. */
static void exec_program(struct exec_plan *x)
{
	static char *const env[] = {NULL};

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	default_signals();
	setsid(); /* the terminal's signals are for the monitor */
	int exe = fcntl(x->exe, F_DUPFD_CLOEXEC, 10), control = fcntl(x->control, F_DUPFD, 10);
	int log = fcntl(x->log, F_DUPFD, 10), null = fcntl(x->null, F_DUPFD, 10);
	if (exe < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0 ||
	    dup2(control, CHILD_CONTROL_FD) < 0)
		_exit(127);
	const int keep[] = {CHILD_CONTROL_FD, exe};
	sandbox_close_fds(keep, 2);
	syscall(SYS_execveat, exe, "", x->argv, env, AT_EMPTY_PATH);
	static const char msg[] = "cannot execute the program\n";
	if (write(2, msg, sizeof msg - 1) < 0)
		_exit(126);
	_exit(127);
}

static int open_ends(struct ipc_loop *l, struct proc *p, int sv[2], int *log)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	int rc = lines_open(&p->log, l, p->name, false, log);
	if (rc) {
		close(sv[0]);
		close(sv[1]);
	}
	return rc;
}

static void make_args(struct exec_plan *x, struct proc *p, const char *vm, bool strict, bool debug)
{
	int n = 0;

	snprintf(x->args[0], sizeof x->args[0], "--name=%s", vm);
	snprintf(x->args[1], sizeof x->args[1], "--sandbox=%s", strict ? "strict" : "best");
	snprintf(x->args[2], sizeof x->args[2], "--namespaces=0x%x", p->ns);
	x->argv[n++] = (char *)(uintptr_t)p->program;
	for (int i = 0; i < 3; i++)
		x->argv[n++] = x->args[i];
	if (debug) {
		snprintf(x->args[3], sizeof x->args[3], "--debug");
		x->argv[n++] = x->args[3];
	}
	x->argv[n] = NULL;
}

static int start(struct proc *p, struct exec_plan *x, const char *vm, bool strict, bool debug)
{
	pid_t pid = sandbox_fork(SANDBOX_NAMESPACES, &p->ns);

	if (pid < 0)
		return (int)pid;
	if (pid == 0) {
		make_args(x, p, vm, strict, debug);
		exec_program(x);
	}
	p->pid = pid;
	return 0;
}

int spawn_child(struct ipc_loop *l, struct proc *p, const char *vm, bool strict, bool debug, int *control, char *err,
		size_t len)
{
	int sv[2] = {-1, -1};
	struct exec_plan x = {.p = p, .exe = open_program(p->program)};
	int rc = x.exe;

	x.null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (rc >= 0)
		rc = x.null < 0 ? -errno : open_ends(l, p, sv, &x.log);
	if (rc) {
		snprintf(err, len, "%s: %s", p->program, strerror(-rc));
		goto out;
	}
	x.control = sv[1];
	snprintf(p->vm, sizeof p->vm, "%s", vm);
	rc = start(p, &x, vm, strict, debug);
	close(sv[1]);
	close(x.log);
	if (rc) {
		snprintf(err, len, "starting %s: %s", p->program, strerror(-rc));
		close(sv[0]);
		lines_close(&p->log);
		goto out;
	}
	*control = sv[0];
out:
	if (x.exe >= 0)
		close(x.exe);
	if (x.null >= 0)
		close(x.null);
	return rc < 0 ? rc : 0;
}

/* ---- programs that are not ours ---- */

/* In the child; 3 and up may overlap with what is to be put there, so everything moves up first. */
static void exec_tool(const struct spawn_tool *t, int log, int null)
{
	static char listen_pid[32], listen_fds[] = "LISTEN_FDS=1";
	static char *const listen_env[] = {listen_fds, listen_pid, NULL}, *const none[] = {NULL};

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	default_signals();
	setsid();
	/* id 0 of its own user namespace, but a plain user in it */
	if (t->ns && (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED, 0, 0, 0) || sandbox_drop_caps(0)))
		_exit(126);
	int a = t->fd < 0 ? -1 : fcntl(t->fd, F_DUPFD, 10), b = t->fd2 < 0 ? -1 : fcntl(t->fd2, F_DUPFD, 10);
	int lg = fcntl(log, F_DUPFD, 10), nl = fcntl(null, F_DUPFD, 10), keep[2], n = 0;
	dup2(nl, 0);
	dup2(nl, 1);
	dup2(lg, 2);
	if (a >= 0)
		keep[n++] = dup2(a, 3);
	if (b >= 0)
		keep[n++] = dup2(b, 4);
	sandbox_close_fds(keep, n);
	/* allocates, which one thread may even here */
	int rc = t->confine ? confine_file_server(4) : 0;
	if (rc && rc != -EOPNOTSUPP)
		_exit(126);
	snprintf(listen_pid, sizeof listen_pid, "LISTEN_PID=%d", (int)getpid());
	execve(t->argv[0], t->argv, t->listens ? listen_env : none);
	_exit(127);
}

int spawn_tool(struct ipc_loop *l, struct proc *p, const struct spawn_tool *t, const char *vm, char *err, size_t len)
{
	int log, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int rc = null < 0 ? -errno : lines_open(&p->log, l, p->name, false, &log);

	if (rc) {
		snprintf(err, len, "starting %s: %s", t->argv[0], strerror(-rc));
		if (null >= 0)
			close(null);
		return rc;
	}
	pid_t pid = t->ns ? sandbox_fork(t->ns, &p->ns) : fork();
	if (pid == 0)
		exec_tool(t, log, null);
	rc = pid >= 0 ? 0 : t->ns ? (int)pid : -errno;
	close(null);
	close(log);
	if (rc) {
		snprintf(err, len, "starting %s: %s", t->argv[0], strerror(-rc));
		lines_close(&p->log);
		return rc;
	}
	p->pid = pid;
	snprintf(p->vm, sizeof p->vm, "%s", vm);
	return 0;
}

void spawn_kill(struct proc *p)
{
	if (p->pid <= 0)
		return;
	p->killed = true;
	kill(p->pid, SIGKILL);
}

void spawn_finished(struct proc *p)
{
	lines_close(&p->log);
	p->pid = 0;
}

const char *spawn_cause(int wstatus, char *buf, size_t len)
{
	if (WIFEXITED(wstatus)) {
		snprintf(buf, len, "exited with status %d", WEXITSTATUS(wstatus));
		return buf;
	}
	int sig = WTERMSIG(wstatus);
	const char *name = sigabbrev_np(sig);
	snprintf(buf, len, "killed by SIG%s%s", name ? name : "?",
		 sig == SIGSYS ? " (a system call its seal forbids)" : "");
	return buf;
}
