/* Layers, one child a case: what each takes away, and what is read back from /proc. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/sandbox.h"

#ifdef __has_feature /* clang's way to tell */
#if __has_feature(address_sanitizer) && !defined __SANITIZE_ADDRESS__
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__ /* which maps terabytes */
enum { OPEN_MEMORY = 0 };
#else
enum { OPEN_MEMORY = 64 << 20 };
#endif

/* Every call: the layers below the filter are what is tested with it. */
static struct sandbox_call every[461];
static struct sandbox_table open_table = {
	.name = "open", .calls = every, .n = 461, .max_fds = 20, .max_threads = 0, .memory = OPEN_MEMORY};

static const struct sandbox_call few[] = {
	ALLOW(write, "test"),     ALLOW(exit_group, "test"), SETUP(getppid, "test"),      SETUP(prctl, "test"),
	SETUP(seccomp, "test"),   SETUP(prlimit64, "test"),  ALLOW_EQ(dup, 0, 1, "test"), ALLOW(brk, "test"),
	ALLOW(getrandom, "test"), ALLOW(mmap, "test"),       ALLOW(munmap, "test"),       SETUP_ENOSYS(clone3, "test"),
	ALLOW(close, "test"),     ALLOW(getpid, "test"),     ALLOW_SELF(tgkill, "test"),
};
static const struct sandbox_table few_table = {
	.name = "few", .calls = few, .n = sizeof few / sizeof few[0], .max_fds = 20, .max_threads = 8};
static bool low_limits; /* hard ones, below what the tables ask for */

static int init(void)
{
	for (int i = 0; i <= 460; i++)
		every[i] = (struct sandbox_call){.nr = i, .stage = STAGE_FINAL, .rule = RULE_ANY, .reason = "test"};
	return 0;
}

/* Runs @fn in a sealed child; returns the wait status. */
static int in_sandbox(const struct sandbox_table *t, uint32_t want, bool seal, int (*fn)(uint32_t layers))
{
	uint32_t ns;
	char why[256];
	int ws;
	pid_t pid = sandbox_fork(want, &ns);

	CU_ASSERT_FATAL(pid >= 0);
	if (pid == 0) {
		if (low_limits && (setrlimit(RLIMIT_NOFILE, &(struct rlimit){12, 12}) ||
				   setrlimit(RLIMIT_NPROC, &(struct rlimit){3, 3})))
			_exit(76);
		uint32_t layers = sandbox_enter(t, ns, why, sizeof why);
		if (seal && (sandbox_limit_memory(t, 1 << 20, 256 << 20) || sandbox_seal(t)))
			_exit(77);
		_exit(fn(layers));
	}
	CU_ASSERT_FATAL(waitpid(pid, &ws, 0) == pid);
	return ws;
}

static bool exited(int ws, int status)
{
	return WIFEXITED(ws) && WEXITSTATUS(ws) == status;
}

static int check_layers(uint32_t layers)
{
	return sandbox_missing(layers) == 0 ? 0 : 1;
}

static int check_root(uint32_t layers)
{
	struct stat st;

	(void)layers;
	if (open("/etc/passwd", O_RDONLY) >= 0 || stat("/proc", &st) == 0 || stat("/usr", &st) == 0)
		return 1;
	if (open("/x", O_CREAT | O_RDWR, 0600) >= 0 || mkdir("/d", 0700) == 0)
		return 2;
	if (chdir("..") == 0 && stat("bin", &st) == 0)
		return 3;
	return 0;
}

static int check_identity(uint32_t layers)
{
	(void)layers;
	if (getpid() != 1 || getppid() != 0)
		return 1;
	if (setuid(0) == 0 && geteuid() == 0 && getuid() == 0) {
		/* an ordinary user's id 0 inside is the user outside: without any capability */
		if (mount("none", "/", "tmpfs", 0, NULL) == 0)
			return 2;
	}
	if (kill(-1, 0) == 0 || errno != ESRCH)
		return 3; /* nobody else is visible */
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 4;
}

static int check_limits(uint32_t layers)
{
	struct rlimit r;

	(void)layers;
	if (getrlimit(RLIMIT_CORE, &r) < 0 || r.rlim_max != 0)
		return 1;
	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_max != 20)
		return 2;
	r.rlim_cur = r.rlim_max = 100;
	if (setrlimit(RLIMIT_NOFILE, &r) == 0)
		return 3;
	return fork() < 0 ? 0 : 4; /* RLIMIT_NPROC 0 */
}

/* A hard limit that is lower already is no failure, and stays. */
static int check_low(uint32_t layers)
{
	struct rlimit r;

	if (!(layers & SANDBOX_BIT(RLIMITS)))
		return 1;
	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_max != 12 || r.rlim_cur != 12)
		return 2;
	return getrlimit(RLIMIT_NPROC, &r) < 0 || r.rlim_max != 0 ? 3 : 0;
}

/* 64 MiB of its own and one for the configuration, 256 of others' memory and the slack. */
static int check_memory(uint32_t layers)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	(void)layers;
	if (mmap(NULL, 32 << 20, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		return 1;
	if (mmap(NULL, 65 << 20, PROT_READ | PROT_WRITE, flags, -1, 0) != MAP_FAILED)
		return 2;
	if (mmap(NULL, 600 << 20, PROT_NONE, flags, -1, 0) == MAP_FAILED)
		return 3;
	return mmap(NULL, 300 << 20, PROT_NONE, flags, -1, 0) == MAP_FAILED ? 0 : 4;
}

static int check_nobody(uint32_t layers)
{
	if (!(layers & SANDBOX_BIT(CAPS)))
		return 1;
	if (getuid() != 65534 || getgid() != 65534 || getgroups(0, NULL) != 0)
		return 2;
	return setuid(0) < 0 && errno == EPERM ? 0 : 3;
}

static int check_net(uint32_t layers)
{
	struct sockaddr sa = {.sa_family = AF_INET};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	(void)layers;
	memcpy(sa.sa_data, "\0\065\x7f\0\0\1", 6); /* 127.0.0.1:53; even loopback is down */
	return fd < 0 || connect(fd, &sa, sizeof sa) < 0 ? 0 : 1;
}

static void test_layers(void)
{
	CU_ASSERT(exited(in_sandbox(&open_table, SANDBOX_NAMESPACES, false, check_layers), 0));
	CU_ASSERT(exited(in_sandbox(&open_table, SANDBOX_NAMESPACES, true, check_root), 0));
	CU_ASSERT(exited(in_sandbox(&open_table, SANDBOX_NAMESPACES, true, check_identity), 0));
	CU_ASSERT(exited(in_sandbox(&open_table, SANDBOX_NAMESPACES, true, check_limits), 0));
	CU_ASSERT(exited(in_sandbox(&open_table, SANDBOX_NAMESPACES, true, check_net), 0));
}

static int check_less(uint32_t layers)
{
	const uint32_t without = SANDBOX_NAMESPACES | SANDBOX_BIT(ROOT);

	return (layers & without) == 0 && (sandbox_missing(layers) & without) == without ? 0 : 1;
}

/* Without namespaces the rest is still taken, and what is missing is told; root is root no more. */
static void test_best(void)
{
	CU_ASSERT(exited(in_sandbox(&open_table, 0, false, check_less), 0));
	if (geteuid() == 0)
		CU_ASSERT(exited(in_sandbox(&open_table, 0, true, check_nobody), 0));
}

/* Not under AddressSanitizer, whose shadow is larger. */
static void test_memory(void)
{
#ifdef __SANITIZE_ADDRESS__
	return;
#endif
	CU_ASSERT(exited(in_sandbox(&open_table, SANDBOX_NAMESPACES, true, check_memory), 0));
}

static int signal_self(uint32_t layers)
{
	(void)layers;
	return syscall(SYS_tgkill, getpid(), getpid(), 0) == 0 ? 10 : 11;
}

/* The number of a process that is there: this one's parent, as in no namespace of its own. */
static pid_t outside;

static int signal_other(uint32_t layers)
{
	(void)layers;
	syscall(SYS_tgkill, outside, outside, 0);
	return 12;
}

static int call_getppid(uint32_t layers)
{
	(void)layers;
	syscall(SYS_getppid);
	return 5;
}

static int call_dup1(uint32_t layers)
{
	(void)layers;
	syscall(SYS_dup, 1);
	return 6;
}

static int call_dup2(uint32_t layers)
{
	(void)layers;
	syscall(SYS_dup, 2);
	return 7;
}

static int call_clone3(uint32_t layers)
{
	(void)layers;
	return syscall(SYS_clone3, 0, 0) < 0 && errno == ENOSYS ? 8 : 9;
}

/* Not under AddressSanitizer, whose own calls the short table kills. */
static void test_filter(void)
{
#ifdef __SANITIZE_ADDRESS__
	return;
#endif
	const uint32_t ns = SANDBOX_BIT(USERNS);
	int ws;

	CU_ASSERT(exited(in_sandbox(&few_table, ns, false, call_getppid), 5));
	ws = in_sandbox(&few_table, ns, true, call_getppid);
	CU_ASSERT(WIFSIGNALED(ws) && WTERMSIG(ws) == SIGSYS);
	CU_ASSERT(exited(in_sandbox(&few_table, ns, true, call_dup1), 6));
	ws = in_sandbox(&few_table, ns, true, call_dup2);
	CU_ASSERT(WIFSIGNALED(ws) && WTERMSIG(ws) == SIGSYS);
	outside = getpid();
	CU_ASSERT(exited(in_sandbox(&few_table, ns, true, signal_self), 10));
	ws = in_sandbox(&few_table, ns, true, signal_other);
	CU_ASSERT(WIFSIGNALED(ws) && WTERMSIG(ws) == SIGSYS);
	CU_ASSERT(exited(in_sandbox(&few_table, ns, false, call_clone3), 8));
	ws = in_sandbox(&few_table, ns, true, call_clone3);
	CU_ASSERT(WIFSIGNALED(ws) && WTERMSIG(ws) == SIGSYS);
}

static void test_low_limits(void)
{
	int ws;

	low_limits = true;
	CU_ASSERT(exited(in_sandbox(&open_table, SANDBOX_NAMESPACES, true, check_low), 0));
	CU_ASSERT(exited(in_sandbox(&open_table, 0, true, check_low), 0));
#ifndef __SANITIZE_ADDRESS__
	ws = in_sandbox(&few_table, 0, true, call_getppid); /* the filter is there */
	CU_ASSERT(WIFSIGNALED(ws) && WTERMSIG(ws) == SIGSYS);
#endif
	low_limits = false;
	(void)ws;
}

static void test_close_fds(void)
{
	int ws;
	pid_t pid = fork();

	if (pid == 0) {
		for (int i = 10; i < 20; i++)
			dup2(0, i);
		const int keep[] = {12, 15};
		sandbox_close_fds(keep, 2);
		for (int i = 3; i < 64; i++)
			if ((fcntl(i, F_GETFD) >= 0) != (i == 12 || i == 15))
				_exit(1);
		_exit(0);
	}
	CU_ASSERT(waitpid(pid, &ws, 0) == pid && exited(ws, 0));
}

static void test_names(void)
{
	char buf[256], tiny[8];

	CU_ASSERT_STRING_EQUAL(sandbox_names(SANDBOX_BIT(CAPS) | SANDBOX_BIT(SECCOMP), buf, sizeof buf),
			       "no-caps,seccomp");
	CU_ASSERT_STRING_EQUAL(sandbox_names(0, buf, sizeof buf), "");
	sandbox_names(SANDBOX_ALL, tiny, sizeof tiny);
	CU_ASSERT(strlen(tiny) < sizeof tiny);
}

CU_ErrorCode suite_sandbox(void)
{
	CU_pSuite s = CU_add_suite("sandbox", init, NULL);

	if (!s || !CU_ADD_TEST(s, test_layers) || !CU_ADD_TEST(s, test_best) || !CU_ADD_TEST(s, test_filter) ||
	    (OPEN_MEMORY && !CU_ADD_TEST(s, test_memory)) || !CU_ADD_TEST(s, test_low_limits) ||
	    !CU_ADD_TEST(s, test_close_fds) || !CU_ADD_TEST(s, test_names))
		return CU_get_error();
	return CUE_SUCCESS;
}
