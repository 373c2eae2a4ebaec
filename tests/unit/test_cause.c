/* Cgroups of both versions, in a container and out of it; limits that are too low. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/cause.h"

static const char v1_mounts[] = "30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n"
				"31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
				"32 30 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
				"33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
static const char v1_groups[] = "4:memory:/user/a\n3:cpu,cpuacct:/b\n0::/c\n";

static const char v2_mounts[] = "29 22 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

/* What a runtime shows of version 1 without a namespace for cgroups. */
static const char box_mounts[] = "40 30 0:28 /box/12 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";

static const char *dir_of(const char *mounts, const char *groups, const char *controller)
{
	static char dir[256];
	int version;

	dir[0] = '\0';
	if (cause_cgroup_dir(mounts, groups, controller, dir, sizeof dir, &version))
		return "none";
	CU_ASSERT_EQUAL(version, strstr(mounts, "nsdelegate") || !strcmp(controller, "io") ? 2 : 1);
	return dir;
}

static void test_dirs(void)
{
	CU_ASSERT_STRING_EQUAL(dir_of(v1_mounts, v1_groups, "memory"), "/sys/fs/cgroup/memory/user/a");
	CU_ASSERT_STRING_EQUAL(dir_of(v1_mounts, v1_groups, "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/b");
	CU_ASSERT_STRING_EQUAL(dir_of(v1_mounts, v1_groups, "io"), "/sys/fs/cgroup/unified/c");
	CU_ASSERT_STRING_EQUAL(dir_of(v2_mounts, "0::/x.slice/y\n", "memory"), "/sys/fs/cgroup/x.slice/y");
	CU_ASSERT_STRING_EQUAL(dir_of(v2_mounts, "0::/\n", "memory"), "/sys/fs/cgroup");
	CU_ASSERT_STRING_EQUAL(dir_of(box_mounts, "4:memory:/box/12\n", "memory"), "/sys/fs/cgroup/memory");
	CU_ASSERT_STRING_EQUAL(dir_of(box_mounts, "4:memory:/box/12/in\n", "memory"), "/sys/fs/cgroup/memory/in");
	CU_ASSERT_STRING_EQUAL(dir_of("", v1_groups, "memory"), "none");
	CU_ASSERT_STRING_EQUAL(dir_of(v1_mounts, "", "memory"), "none");
	CU_ASSERT_STRING_EQUAL(dir_of("31 30 - cgroup\n", "x\n:\n::\n", "memory"), "none");
}

/* In a child, whose limits they are. */
static int too_low(int what, rlim_t n, const char *word)
{
	char err[256] = "";
	int ws;
	pid_t pid = fork();

	if (pid == 0) {
		if (setrlimit(what, &(struct rlimit){n, n}))
			_exit(3);
		int rc = cause_check(64 << 20, 40, err, sizeof err);
		_exit(rc == -1 && strstr(err, word) ? 0 : rc == 0 ? 1 : 2);
	}
	return waitpid(pid, &ws, 0) == pid && WIFEXITED(ws) ? WEXITSTATUS(ws) : -1;
}

static void test_limits(void)
{
	CU_ASSERT_EQUAL(too_low(RLIMIT_FSIZE, 1 << 20, "RLIMIT_FSIZE (ulimit -f) is 1 MiB"), 0);
	CU_ASSERT_EQUAL(too_low(RLIMIT_NOFILE, 39, "RLIMIT_NOFILE (ulimit -n) is 39"), 0);
	CU_ASSERT_EQUAL(too_low(RLIMIT_NOFILE, 40, ""), 1);
	CU_ASSERT_EQUAL(too_low(RLIMIT_CORE, 0, ""), 1);
}

CU_ErrorCode suite_cause(void);
CU_ErrorCode suite_cause(void)
{
	CU_pSuite s = CU_add_suite("cause", NULL, NULL);

	return s && CU_ADD_TEST(s, test_dirs) && CU_ADD_TEST(s, test_limits) ? CUE_SUCCESS : CU_get_error();
}
