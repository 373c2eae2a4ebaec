/*
 * hvx-switch: a local Ethernet segment between VMs.
 *
 * Two processes: the first binds the socket, waits, and removes it at the end; the second is sealed and does the work.
 * Invariant: the one that reads what guests send can reach nothing but the ports.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "devices/net/switch.h"
#include "devices/net/switch_seal.h"
#include <config.h>

#define AGEING_DEFAULT 300
#define AGEING_MAX     86400

struct command {
	const char *path;
	struct switch_options o;
	bool best; /* --sandbox=best */
};

static void usage(FILE *f)
{
	fputs("usage: hvx-switch [--ageing=SECONDS] [--strict] [--any-user] [--sandbox=strict|best] SOCKET\n"
	      "       hvx-switch --help | --version\n"
	      "A local Ethernet segment between virtual machines: hvx-monitor run --net=switch=SOCKET ...\n"
	      "  --ageing=SECONDS  forget an address that sent nothing for so long (default 300)\n"
	      "  --strict          a port sends from its own address only\n"
	      "  --any-user        any user who can reach the socket may join\n"
	      "SIGUSR1 logs what each port sent and got; SIGTERM ends it.\n",
	      f);
}

static void bad(const char *what, const char *arg)
{
	fprintf(stderr, "hvx-switch: %s '%s'\n", what, arg);
	exit(HVX_EXIT_USAGE);
}

static uint64_t seconds(const char *v)
{
	char *end;
	unsigned long n = strtoul(v, &end, 10);

	if (v[0] < '0' || v[0] > '9' || *end || !n || n > AGEING_MAX)
		bad("not 1 to 86400 seconds:", v);
	return n;
}

static void parse(struct command *c, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];
		if (!strcmp(a, "--help")) {
			usage(stdout);
			exit(0);
		} else if (!strcmp(a, "--version")) {
			printf("hvx-switch %s\n", PACKAGE_VERSION);
			exit(0);
		} else if (!strncmp(a, "--ageing=", 9)) {
			c->o.ageing = seconds(a + 9);
		} else if (!strcmp(a, "--strict")) {
			c->o.strict = true;
		} else if (!strcmp(a, "--any-user")) {
			c->o.any_user = true;
		} else if (!strcmp(a, "--sandbox=strict") || !strcmp(a, "--sandbox=best")) {
			c->best = a[10] == 'b';
		} else if (a[0] == '-' || c->path) {
			bad("unknown argument", a);
		} else {
			c->path = a;
		}
	}
	if (c->path)
		return;
	usage(stderr);
	exit(HVX_EXIT_USAGE);
}

/* ---- the socket ---- */

static int try_bind(int fd, const struct sockaddr_un *a)
{
	mode_t old = umask(0177);
	int rc = bind(fd, (const struct sockaddr *)a, sizeof *a) ? -errno : 0;

	umask(old);
	return rc;
}

/* A socket that nobody listens at is what an ended switch has left. */
static bool is_left_over(const struct sockaddr_un *a)
{
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	bool dead = !lstat(a->sun_path, &st) && S_ISSOCK(st.st_mode) &&
		    connect(fd, (const struct sockaddr *)a, sizeof *a) && errno == ECONNREFUSED;

	close(fd);
	return dead;
}

static int listen_at(const char *path, bool any_user)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof a.sun_path)
		fatal(HVX_EXIT_CONFIG, "%s: %s", path, strerror(ENAMETOOLONG));
	memcpy(a.sun_path, path, strlen(path) + 1);
	int rc = fd < 0 ? -errno : try_bind(fd, &a);
	if (rc == -EADDRINUSE && is_left_over(&a)) {
		unlink(path);
		rc = try_bind(fd, &a);
	}
	if (!rc && ((any_user && chmod(path, 0666)) || listen(fd, 16)))
		rc = -errno;
	if (rc)
		fatal(HVX_EXIT_CONFIG, "%s: %s", path,
		      rc == -EADDRINUSE ? "something is there already" : strerror(-rc));
	return fd;
}

/* ---- the sealed process ---- */

static void on_end(void *ctx)
{
	ipc_loop_stop(ctx);
}

static void on_report(void *ctx)
{
	switch_report(ctx);
}

static void enter(const struct command *c, uint32_t ns)
{
	char why[256], names[256];
	uint32_t lack = sandbox_missing(sandbox_enter(&switch_seal, ns, why, sizeof why));

	if (!lack)
		return;
	if (!c->best)
		fatal(HVX_EXIT_HOST, "the sandbox lacks %s (%s); --sandbox=best goes on without",
		      sandbox_names(lack, names, sizeof names), why[0] ? why : "refused by the host");
	log_warn("sandbox without %s", sandbox_names(lack, names, sizeof names));
}

static void block_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	for (int i = 0; i < 5; i++)
		sigaddset(&set, (const int[]){SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD}[i]);
	sigprocmask(how, &set, NULL);
}

static void serve(struct command *c, int fd, uint32_t ns)
{
	const int keep[] = {3};

	dup2(fd, 3);
	sandbox_close_fds(keep, 1);
	if (ns & SANDBOX_BIT(USERNS))
		c->o.user = 0; /* who started it, seen from inside */
	enter(c, ns);
	struct ipc_loop *l = ipc_loop_new();
	struct eswitch *s = l ? switch_new(l, 3, &c->o) : NULL;
	if (!s || !ipc_watch_signal(l, SIGTERM, on_end, l) || !ipc_watch_signal(l, SIGUSR1, on_report, s))
		fatal(HVX_EXIT_HOST, "no memory for the switch");
	block_signals(SIG_UNBLOCK); /* none is lost that came before its handler */
	int rc = sandbox_limit_memory(&switch_seal, 0, 0);
	if (!rc || c->best)
		rc = sandbox_seal(&switch_seal);
	if (rc && !c->best)
		fatal(HVX_EXIT_HOST, "the final limits and filter: %s", strerror(-rc));
	rc = ipc_loop_run(l);
	switch_free(s);
	exit(rc ? HVX_EXIT_FAIL : 0);
}

/* ---- the one that waits ---- */

static int await(pid_t pid)
{
	sigset_t set;
	int sig, ws;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGCHLD);
	while (waitpid(pid, &ws, WNOHANG) != pid) {
		sigwait(&set, &sig);
		if (sig != SIGCHLD)
			kill(pid, sig == SIGUSR1 ? SIGUSR1 : SIGTERM);
	}
	if (WIFEXITED(ws))
		return WEXITSTATUS(ws);
	log_error("killed by signal %d%s", WTERMSIG(ws),
		  WTERMSIG(ws) == SIGSYS ? " (a system call its seal forbids)" : "");
	return HVX_EXIT_CHILD;
}

int main(int argc, char **argv)
{
	struct command c = {.o = {.ageing = AGEING_DEFAULT, .user = geteuid()}};
	struct stat mine, there;
	uint32_t ns = 0;

	log_init("hvx-switch");
	parse(&c, argc, argv);
	int fd = listen_at(c.path, c.o.any_user);
	if (lstat(c.path, &mine))
		fatal(HVX_EXIT_FAIL, "%s: %s", c.path, strerror(errno));
	block_signals(SIG_BLOCK);
	pid_t pid = sandbox_fork(SANDBOX_NAMESPACES, &ns);
	if (pid == 0) {
		setsid(); /* the terminal's signals are for the one that waits */
		serve(&c, fd, ns);
	}
	int status = HVX_EXIT_HOST;
	if (pid < 0)
		log_error("cannot fork: %s", strerror(-pid));
	else
		status = await(pid);
	if (!lstat(c.path, &there) && there.st_dev == mine.st_dev && there.st_ino == mine.st_ino)
		unlink(c.path);
	return status;
}
