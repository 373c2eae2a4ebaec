/*
 * In the very seal of each process, every system call outside its table must
 * kill with SIGSYS, and so must every allowed call with arguments the table excludes.
 * Each probe is a process of its own: namespaces, empty root, both filters, then one
 * call.  Invariant: a probe that comes back, or dies of anything else, is a failure.
 *
 * Usage: seal_probe [vcpu|memsvc|monitor|blk|net|switch]
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/sandbox.h"
#include "devices/blk/seal.h"
#include "devices/net/seal.h"
#include "devices/net/switch_seal.h"
#include "memsvc/seal.h"
#include "monitor/seal.h"
#include "stub/seal.h"
#include "tests/security/uring_probe.h"
#include "vcpu/seal.h"

#define LAST_SYSCALL 470 /* beyond what kernels have today: new ones are covered by the default */
#define X32_BIT      0x40000000
#define PARALLEL     8

enum { OUT_SEALED = 90, OUT_SURVIVED, OUT_NO_SEAL };

struct probe {
	const char *what;
	long nr, a[6];
	bool int80;
};

struct job {
	pid_t pid;
	struct probe p;
};

static unsigned failures, probes;

static void put(const char *s)
{
	if (write(2, s, strlen(s)) < 0)
		_exit(OUT_NO_SEAL);
}

static long int80(long nr)
{
	long rc;

	__asm__ volatile("int $0x80" : "=a"(rc) : "a"(nr), "b"(0L), "c"(0L), "d"(0L), "S"(0L), "D"(0L) : "memory");
	return rc;
}

/* Some hosts have no such entry: the instruction faults before any filter is asked. */
static bool host_has_int80(void)
{
	int ws = 0;
	pid_t pid = fork();

	if (pid == 0) {
		int80(20);
		_exit(OUT_SURVIVED);
	}
	return pid > 0 && waitpid(pid, &ws, 0) == pid && WIFEXITED(ws);
}

static int kill_by(const struct probe *p)
{
	static int entry = -1;

	if (!p->int80)
		return SIGSYS;
	if (entry < 0)
		entry = host_has_int80();
	return entry ? SIGSYS : SIGSEGV;
}

/* In the child: the whole way to the final filter, then the call. */
static void probe_child(const struct sandbox_table *t, uint32_t ns, const struct probe *p)
{
	char why[256], names[256];
	const int keep[] = {3};

	sandbox_close_fds(keep, 1);
	uint32_t missing = sandbox_missing(sandbox_enter(t, ns, why, sizeof why));
	if (missing) {
		put("no seal: ");
		put(sandbox_names(missing, names, sizeof names));
		put(" ");
		put(why);
		put("\n");
		_exit(OUT_NO_SEAL);
	}
	if (sandbox_limit_memory(t, 0, 0) || sandbox_seal(t))
		_exit(OUT_NO_SEAL);
	if (!p->what)
		_exit(OUT_SEALED);
	if (p->int80)
		int80(p->nr);
	else
		syscall(p->nr, p->a[0], p->a[1], p->a[2], p->a[3], p->a[4], p->a[5]);
	syscall(SYS_exit_group, OUT_SURVIVED);
}

static void start(struct job *j, const struct sandbox_table *t, const struct probe *p)
{
	uint32_t ns;

	j->p = *p;
	j->pid = sandbox_fork(SANDBOX_NAMESPACES, &ns);
	if (j->pid < 0) {
		fprintf(stderr, "cannot fork: %s\n", strerror(-j->pid));
		exit(1);
	}
	if (j->pid == 0)
		probe_child(t, ns, p);
}

static void finish(struct job *j, const struct sandbox_table *t)
{
	int ws;

	if (!j->pid || waitpid(j->pid, &ws, 0) != j->pid)
		return;
	j->pid = 0;
	probes++;
	if (!j->p.what ? WIFEXITED(ws) && WEXITSTATUS(ws) == OUT_SEALED
		       : WIFSIGNALED(ws) && WTERMSIG(ws) == kill_by(&j->p))
		return;
	failures++;
	fprintf(stderr, "%s: %s (%ld): %s %d, not killed by the filter\n", t->name, j->p.what ? j->p.what : "the seal",
		j->p.nr, WIFEXITED(ws) ? "exited with" : "killed by", WIFEXITED(ws) ? WEXITSTATUS(ws) : WTERMSIG(ws));
}

static struct job jobs[PARALLEL];
static unsigned next_job;

static void run(const struct sandbox_table *t, const struct probe *p)
{
	struct job *j = &jobs[next_job++ % PARALLEL];

	finish(j, t);
	start(j, t, p);
}

static void finish_all(const struct sandbox_table *t)
{
	for (unsigned i = 0; i < PARALLEL; i++)
		finish(&jobs[i], t);
}

static bool in_table(const struct sandbox_table *t, long nr)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->calls[i].nr == nr && t->calls[i].stage == STAGE_FINAL)
			return true;
	return false;
}

/* The kernel's own: since 6.11 and 6.18 it lets these two pass any filter, because its probe trampolines use them.
 * Called from anywhere else they do nothing but fail (ENXIO) or kill (SIGILL). */
static bool kernels_own(long nr)
{
	return nr == 335 /* uretprobe */ || nr == 336 /* uprobe */;
}

/* Every number outside the table, the x32 twins of those inside, and the i386 entry. */
static void numbers(const struct sandbox_table *t)
{
	struct probe p = {.what = "system call"};

	for (p.nr = 0; p.nr <= LAST_SYSCALL; p.nr++)
		if (!in_table(t, p.nr) && !kernels_own(p.nr))
			run(t, &p);
	p.what = "x32 system call";
	for (p.nr = X32_BIT; p.nr <= X32_BIT + 3; p.nr++)
		run(t, &p);
	p = (struct probe){.what = "int 0x80 getpid", .nr = 20, .int80 = true};
	run(t, &p);
	p = (struct probe){.what = "int 0x80 write", .nr = 4, .int80 = true};
	run(t, &p);
}

/* Calls in the table with arguments it does not allow. */
static void arguments(const struct sandbox_table *t)
{
	const long anon = MAP_PRIVATE | MAP_ANONYMOUS;
	const struct probe list[] = {
		{"mmap rwx", SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, anon, -1, 0}, false},
		{"mmap rx", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, anon, -1, 0}, false},
		{"mmap x", SYS_mmap, {0, 4096, PROT_EXEC, anon, -1, 0}, false},
		{"mmap x of a file", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, 0, 0}, false},
		{"mprotect rx", SYS_mprotect, {0, 4096, PROT_READ | PROT_EXEC, 0, 0, 0}, false},
		{"mprotect rwx", SYS_mprotect, {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, 0, 0, 0}, false},
		{"fcntl F_SETOWN", SYS_fcntl, {0, F_SETOWN, 1, 0, 0, 0}, false},
		{"fcntl F_ADD_SEALS", SYS_fcntl, {0, F_ADD_SEALS, F_SEAL_WRITE, 0, 0, 0}, false},
		{"fcntl F_SETFL, to wait", SYS_fcntl, {0, F_SETFL, 0, 0, 0, 0}, false},
		{"fcntl F_SETFL, to signal", SYS_fcntl, {0, F_SETFL, O_NONBLOCK | O_ASYNC, 0, 0, 0}, false},
		{"madvise mergeable", SYS_madvise, {0, 4096, MADV_MERGEABLE, 0, 0, 0}, false},
		{"madvise to fork less", SYS_madvise, {0, 4096, MADV_DONTFORK, 0, 0, 0}, false},
		{"madvise huge", SYS_madvise, {0, 4096, MADV_HUGEPAGE, 0, 0, 0}, false},
		{"madvise unknown", SYS_madvise, {0, 4096, 99, 0, 0, 0}, false},
		{"fcntl F_SETLEASE", SYS_fcntl, {0, F_SETLEASE, F_RDLCK, 0, 0, 0}, false},
		{"arch_prctl set fs", SYS_arch_prctl, {ARCH_SET_FS, 0, 0, 0, 0, 0}, false},
		{"clone a process", SYS_clone, {SIGCHLD, 0, 0, 0, 0, 0}, false},
		{"clone a user namespace", SYS_clone, {CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0, 0}, false},
		{"clone a thread", SYS_clone, {0x3d0f00, 0, 0, 0, 0, 0}, false},
		{"ioctl TIOCSTI", SYS_ioctl, {0, TIOCSTI, 0, 0, 0, 0}, false},
		{"prctl off dumpable", SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0, 0}, false},
		{"kill with another signal", SYS_kill, {1, SIGUSR1, 0, 0, 0, 0}, false},
		{"execve", SYS_execve, {(long)"/", 0, 0, 0, 0, 0}, false},
		{"tgkill of another process", SYS_tgkill, {2, 2, SIGABRT, 0, 0, 0}, false},
		{"openat", SYS_openat, {AT_FDCWD, (long)"/", O_RDONLY, 0, 0, 0}, false},
	};

	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
		if (t != &stub_seal || list[i].nr != SYS_arch_prctl) /* which is what it is for */
			run(t, &list[i]);
	if (t == &memsvc_seal || t == &blk_seal) {
		const struct probe p = {"tgkill with another signal", SYS_tgkill, {1, 1, SIGUSR1, 0, 0, 0}, false};
		run(t, &p);
	}
	if (t == &memsvc_seal) {
		const struct probe own[] = {
			{"fallocate that allocates", SYS_fallocate, {0, FALLOC_FL_KEEP_SIZE, 0, 4096, 0, 0}, false},
			{"fallocate that collapses",
			 SYS_fallocate,
			 {0, FALLOC_FL_COLLAPSE_RANGE, 0, 4096, 0, 0},
			 false},
		};
		for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
			run(t, &own[i]);
	}
}

/* Calls that only the two of the network may make, but not like this. */
static void network_arguments(const struct sandbox_table *t)
{
	const struct probe list[] = {
		{"recvfrom with an address", SYS_recvfrom, {3, 0, 0, 0, 1, 0}, false},
		{"ioctl TUNSETIFF", SYS_ioctl, {3, TUNSETIFF, 0, 0, 0, 0}, false},
		{"ioctl TUNSETPERSIST", SYS_ioctl, {3, TUNSETPERSIST, 0, 0, 0, 0}, false},
		{"ioctl TUNATTACHFILTER", SYS_ioctl, {3, TUNATTACHFILTER, 0, 0, 0, 0}, false},
		{"ioctl SIOCGIFCONF", SYS_ioctl, {3, SIOCGIFCONF, 0, 0, 0, 0}, false},
		{"tgkill with another signal", SYS_tgkill, {1, 1, SIGUSR1, 0, 0, 0}, false},
		{"getsockopt SO_PEERSEC", SYS_getsockopt, {3, SOL_SOCKET, SO_PEERSEC, 0, 0, 0}, false},
		{"setsockopt SO_ATTACH_FILTER", SYS_setsockopt, {3, SOL_SOCKET, SO_ATTACH_FILTER, 0, 0, 0}, false},
		{"mmap of a shared file, executable", SYS_mmap, {0, 4096, PROT_EXEC, MAP_SHARED, 3, 0}, false},
	};

	for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
		run(t, &list[i]);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void check(const struct sandbox_table *t)
{
	const struct probe none = {0};
	double from = seconds();
	unsigned before = probes;

	for (size_t i = 0; i < t->n; i++)
		if (!t->calls[i].reason || !t->calls[i].reason[0]) {
			fprintf(stderr, "%s: entry %zu has no reason\n", t->name, i);
			failures++;
		}
	run(t, &none); /* sealed and quiet: lives */
	finish_all(t);
	if (failures)
		return;
	numbers(t);
	arguments(t);
	if (t == &net_seal || t == &switch_seal)
		network_arguments(t);
	finish_all(t);
	printf("%s: %u probes in its seal, %.1f s\n", t->name, probes - before, seconds() - from);
}

int main(int argc, char **argv)
{
	static const struct sandbox_table *const all[] = {&memsvc_seal, &vcpu_seal,   &monitor_seal, &blk_seal,
							  &net_seal,    &switch_seal, &stub_seal};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		if (argc < 2 || !strcmp(argv[1], all[i]->name))
			check(all[i]);
	if (argc < 2 || !strcmp(argv[1], "blk"))
		failures += uring_probe();
	printf("%u probes, %u failures\n", probes, failures);
	return failures != 0;
}
