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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/child.h"
#include "common/sandbox.h"
#include "monitor/cause.h"
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

/* In the child; a hard limit that is less already stays. */
static void limit_data(const struct proc *p)
{
	struct rlimit r;

	if (!p->data || getrlimit(RLIMIT_DATA, &r) < 0)
		return;
	if (p->data < r.rlim_max)
		r.rlim_max = p->data;
	r.rlim_cur = r.rlim_max;
	if (setrlimit(RLIMIT_DATA, &r) < 0)
		_exit(127);
}

/* In the child. */
static void exec_program(struct exec_plan *x)
{
	static char *const env[] = {NULL};

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	default_signals();
	setsid(); /* the terminal's signals are for the monitor */
	limit_data(x->p);
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
	char why[256];
	int sv[2] = {-1, -1};
	struct exec_plan x = {.p = p, .exe = open_program(p->program)};
	int rc = x.exe;

	x.null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (rc >= 0)
		rc = x.null < 0 ? -errno : open_ends(l, p, sv, &x.log);
	if (rc) {
		snprintf(err, len, "%s: %s", p->program,
			 x.exe < 0 ? "not beside this program, nor where it was installed"
				   : cause_text(-rc, why, sizeof why));
		goto out;
	}
	x.control = sv[1];
	snprintf(p->vm, sizeof p->vm, "%s", vm);
	rc = start(p, &x, vm, strict, debug);
	close(sv[1]);
	close(x.log);
	if (rc) {
		snprintf(err, len, "starting %s: %s", p->program, cause_text(-rc, why, sizeof why));
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

/* What the new process says about itself until the program runs: the layers, then, if it comes to that, why it does not
 * run. */
struct report {
	uint32_t layers;
	char why[256];
};

/* In the child; 3 and up may overlap with what is to be put there, so everything moves up first. */
static void place(const struct spawn_tool *t, int log, int null, int *report)
{
	enum { UP = CONFINE_IMAGE_FD + CONFINE_IMAGES };
	int a = t->fd < 0 ? -1 : fcntl(t->fd, F_DUPFD, UP), lg = fcntl(log, F_DUPFD, UP), nl = fcntl(null, F_DUPFD, UP);
	int image[CONFINE_IMAGES], keep[2 + CONFINE_IMAGES], n = 0;

	for (unsigned i = 0; i < t->nimages; i++)
		image[i] = fcntl(t->images[i], F_DUPFD, UP);
	*report = fcntl(*report, F_DUPFD_CLOEXEC, UP);
	dup2(nl, 0);
	dup2(nl, 1);
	dup2(lg, 2);
	if (a >= 0)
		keep[n++] = dup2(a, 3);
	for (unsigned i = 0; i < t->nimages; i++)
		keep[n++] = dup2(image[i], CONFINE_IMAGE_FD + (int)i);
	keep[n++] = *report;
	sandbox_close_fds(keep, n);
}

static void tell(int fd, const struct report *r)
{
	if (write(fd, r, sizeof *r) != (ssize_t)sizeof *r)
		_exit(126); /* nobody hears it */
}

/* In the child.  What allocates may do so: the monitor has one thread. */
static void exec_tool(const struct spawn_tool *t, const struct proc *p, struct confine *files, int log, int null,
		      int report)
{
	static char listen_pid[32], listen_fds[] = "LISTEN_FDS=1";
	static char *const listen_env[] = {listen_fds, listen_pid, NULL}, *const none[] = {NULL};
	struct sandbox_guest g = t->guest;
	struct report r = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	default_signals();
	setsid();
	limit_data(p);
	place(t, log, null, &report);
	g.root = confine_root;
	g.grants = confine_grants;
	g.ctx = files;
	r.layers = sandbox_enter_guest(t->table, &g, p->ns, r.why, sizeof r.why);
	tell(report, &r);
	if (t->strict && sandbox_missing(r.layers))
		_exit(126);
	if (t->root_args && geteuid() != 0) {
		unsigned n = 0;
		while (t->argv[n])
			n++;
		t->argv[n - t->root_args] = NULL;
	}
	snprintf(listen_pid, sizeof listen_pid, "LISTEN_PID=%d", (int)getpid());
	execve(t->argv[0], t->argv, t->listens ? listen_env : none);
	snprintf(r.why, sizeof r.why, "cannot be executed: %s", strerror(errno));
	tell(report, &r);
	_exit(127);
}

/* Reads to the end, which is when the program runs, or when the process is gone. */
static int hear(int fd, struct proc *p, const struct spawn_tool *t, char *err, size_t len)
{
	struct report r = {0}, second;
	char names[256];
	ssize_t n = read(fd, &r, sizeof r), m = n == (ssize_t)sizeof r ? read(fd, &second, sizeof second) : 0;

	r.why[sizeof r.why - 1] = '\0';
	if (n != (ssize_t)sizeof r) {
		snprintf(err, len, "died before it ran");
		return -ECHILD;
	}
	if (m == (ssize_t)sizeof second) {
		second.why[sizeof second.why - 1] = '\0';
		snprintf(err, len, "%s", second.why);
		return -ECHILD;
	}
	p->layers = r.layers;
	uint32_t lack = sandbox_missing(r.layers);
	if (lack)
		snprintf(err, len, "%s %s (%s)%s", t->strict ? "the sandbox lacks" : "sandbox without",
			 sandbox_names(lack, names, sizeof names), r.why[0] ? r.why : "refused by the host",
			 t->strict ? "; --sandbox=best goes on without" : "");
	return lack && t->strict ? -EPERM : 0;
}

static int start_tool(struct proc *p, const struct spawn_tool *t, struct confine *files, int log, int null, char *err,
		      size_t len)
{
	int report[2];

	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = sandbox_fork_as(t->guest.want, &p->ns, t->guest.uid, t->guest.gid);
	if (pid == 0)
		exec_tool(t, p, files, log, null, report[1]);
	close(report[1]);
	int rc = pid < 0 ? (int)pid : hear(report[0], p, t, err, len);
	close(report[0]);
	if (pid > 0 && rc) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	p->pid = rc ? 0 : pid;
	return rc;
}

int spawn_tool(struct ipc_loop *l, struct proc *p, const struct spawn_tool *t, const char *vm, char *err, size_t len)
{
	struct confine files = {.images = t->nimages, .writable = t->writable};
	char why[256];
	int log = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int rc = null < 0                      ? -errno
		 : t->nimages > CONFINE_IMAGES ? -E2BIG
					       : lines_open(&p->log, l, p->name, false, &log);

	err[0] = '\0';
	if (!rc) {
		rc = confine_find(&files, t->argv[0], t->files, err, len);
		if (!rc)
			rc = start_tool(p, t, &files, log, null, err, len);
		close(log);
		if (rc)
			lines_close(&p->log);
	}
	confine_free(&files);
	if (null >= 0)
		close(null);
	if (rc && !err[0])
		snprintf(err, len, "cannot be started: %s", cause_text(-rc, why, sizeof why));
	snprintf(p->vm, sizeof p->vm, "%s", vm);
	return rc;
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
