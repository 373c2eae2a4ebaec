/* A VM's cgroups on hosts of version 1, of version 2, of both, and of neither; the hosts are directories of ours. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/group.h"

#define ALL  (GROUP_BIT(GROUP_KNOBS) - 1)
#define LEAF "hvx-7-vm"

static char top[64], mounts[1024], record[128], err[256];

static void name_of(char *path, size_t len, const char *dir, const char *file)
{
	snprintf(path, len, "%s/%s/%s", top, dir, file);
}

static void put(const char *dir, const char *file, const char *text)
{
	char path[256];

	name_of(path, sizeof path, dir, file);
	FILE *f = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs(text, f);
	fclose(f);
}

static const char *get(const char *dir, const char *file)
{
	static char text[256];
	char path[256];

	name_of(path, sizeof path, dir, file);
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
	text[n] = '\0';
	if (f)
		fclose(f);
	return text;
}

static void make(const char *dir)
{
	char path[256];

	name_of(path, sizeof path, dir, "");
	CU_ASSERT_FATAL(mkdir(path, 0755) == 0 || errno == EEXIST);
}

/* The kernel fills a new group with its files; here they are there before. */
static void make_group(const char *dir, const char *const *files)
{
	char leaf[128];

	make(dir);
	put(dir, "cgroup.procs", "");
	put(dir, "cgroup.subtree_control", "");
	snprintf(leaf, sizeof leaf, "%s/" LEAF, dir);
	make(leaf);
	put(leaf, "cgroup.procs", "");
	for (; *files; files++)
		put(leaf, *files, "");
}

static void begin(void)
{
	char cmd[128];

	strcpy(top, "/tmp/hvx-group-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(top));
	snprintf(record, sizeof record, "%s/record", top);
	snprintf(mounts, sizeof mounts,
		 "31 30 0:27 / %s/cpu rw - cgroup cgroup rw,cpu\n"
		 "32 30 0:28 / %s/memory rw - cgroup cgroup rw,memory\n"
		 "33 30 0:29 / %s/v2 rw - cgroup2 cgroup2 rw\n",
		 top, top, top);
	snprintf(cmd, sizeof cmd, "mkdir -p %s/cpu %s/memory %s/v2", top, top, top);
	CU_ASSERT_EQUAL_FATAL(system(cmd), 0);
}

static void end(void)
{
	char cmd[128];

	snprintf(cmd, sizeof cmd, "rm -rf %s", top);
	CU_ASSERT_EQUAL(system(cmd), 0);
}

static const char *const cpu_files[] = {"cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", NULL};
static const char *const memory_files[] = {"memory.limit_in_bytes", NULL};
static const char *const v2_files[] = {"cpu.max", "cpu.weight", "memory.max", "pids.max", NULL};

static unsigned enter(struct group *g, const char *cgroup)
{
	const struct group_host h = {mounts, cgroup};

	group_init(g);
	return group_enter(g, &h, LEAF, record, ALL, err, sizeof err);
}

static void test_v1(void)
{
	struct group g;

	begin();
	make_group("cpu", cpu_files);
	make_group("memory/a", memory_files);
	CU_ASSERT_EQUAL(enter(&g, "2:cpu:/\n3:memory:/a\n"), ALL & ~GROUP_BIT(GROUP_PIDS));
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "pids: no such controller"));
	CU_ASSERT_STRING_EQUAL(get("cpu/" LEAF, "cgroup.procs"), "0"); /* this process is in it */
	CU_ASSERT_STRING_EQUAL(get("memory/a/" LEAF, "cgroup.procs"), "0");
	CU_ASSERT(group_set(&g, GROUP_CPU, 150) == 0 && group_set(&g, GROUP_WEIGHT, 50) == 0);
	CU_ASSERT_EQUAL(group_set(&g, GROUP_MEMORY, 1 << 20), 0);
	CU_ASSERT_EQUAL(group_set(&g, GROUP_PIDS, 5), -ENODEV);
	CU_ASSERT_STRING_EQUAL(get("cpu/" LEAF, "cpu.cfs_quota_us"), "150000");
	CU_ASSERT_STRING_EQUAL(get("cpu/" LEAF, "cpu.cfs_period_us"), "100000");
	CU_ASSERT_STRING_EQUAL(get("cpu/" LEAF, "cpu.shares"), "512");
	CU_ASSERT_STRING_EQUAL(get("memory/a/" LEAF, "memory.limit_in_bytes"), "1048576");
	group_leave(&g);
	CU_ASSERT_STRING_EQUAL(get("cpu", "cgroup.procs"), "0"); /* and back */
	CU_ASSERT_STRING_EQUAL(get("memory/a", "cgroup.procs"), "0");
	end();
}

static void test_v2(void)
{
	struct group g;

	begin();
	make_group("v2/u", v2_files);
	put("v2/u", "cgroup.controllers", "cpuset cpu io memory pids\n");
	CU_ASSERT_EQUAL(enter(&g, "0::/u\n"), ALL);
	CU_ASSERT_EQUAL(g.ndirs, 1);
	CU_ASSERT_STRING_EQUAL(get("v2/u", "cgroup.subtree_control"), "+cpu+cpu+memory+pids");
	CU_ASSERT(group_set(&g, GROUP_CPU, 25) == 0 && group_set(&g, GROUP_WEIGHT, 0) == 0 &&
		  group_set(&g, GROUP_MEMORY, 0) == 0 && group_set(&g, GROUP_PIDS, 9) == 0);
	CU_ASSERT_STRING_EQUAL(get("v2/u/" LEAF, "cpu.max"), "25000 100000");
	CU_ASSERT_STRING_EQUAL(get("v2/u/" LEAF, "cpu.weight"), "100");
	CU_ASSERT_STRING_EQUAL(get("v2/u/" LEAF, "memory.max"), "max");
	CU_ASSERT_STRING_EQUAL(get("v2/u/" LEAF, "pids.max"), "9");
	group_leave(&g);
	CU_ASSERT_PTR_NOT_NULL(strstr(get("v2/u", "cgroup.subtree_control"), "-cpu-memory-pids"));
	end();
}

/* The controllers are in version 1, but for one. */
static void test_hybrid(void)
{
	static const char *const pids[] = {"pids.max", NULL};
	struct group g;

	begin();
	make_group("cpu", cpu_files);
	make_group("v2", pids);
	put("v2", "cgroup.controllers", "pids hugetlb\n");
	CU_ASSERT_EQUAL(enter(&g, "2:cpu:/\n0::/\n"), ALL & ~GROUP_BIT(GROUP_MEMORY));
	CU_ASSERT(g.version[GROUP_CPU] == 1 && g.version[GROUP_PIDS] == 2 && g.ndirs == 2);
	group_leave(&g);
	end();
}

static void test_none(void)
{
	struct group g;

	begin();
	CU_ASSERT_EQUAL(enter(&g, "2:cpu:/\n3:memory:/a\n0::/u\n"), 0); /* not ours to write */
	CU_ASSERT(err[0] && g.ndirs == 0);
	CU_ASSERT_EQUAL(enter(&g, ""), 0);
	CU_ASSERT_EQUAL(access(record, F_OK), -1);
	end();
}

/* What cannot be removed is named in the record, and nothing else is ever removed. */
static void test_sweep(void)
{
	char cmd[256], text[256];
	struct group g;

	begin();
	make_group("cpu", cpu_files);
	CU_ASSERT_EQUAL(enter(&g, "2:cpu:/\n"), GROUP_BIT(GROUP_CPU) | GROUP_BIT(GROUP_WEIGHT));
	group_leave(&g); /* a plain directory with files stays */
	snprintf(text, sizeof text, "%s/cpu/" LEAF "\n", top);
	CU_ASSERT_STRING_EQUAL(get("", "record"), text);
	CU_ASSERT_EQUAL(group_sweep(record), -ENOTEMPTY);
	CU_ASSERT_EQUAL(access(record, F_OK), 0);
	snprintf(cmd, sizeof cmd, "rm %s/cpu/" LEAF "/*; mkdir %s/other", top, top);
	CU_ASSERT_EQUAL(system(cmd), 0);
	snprintf(cmd, sizeof cmd, "echo %s/other >>%s", top, record);
	CU_ASSERT_EQUAL(system(cmd), 0);
	CU_ASSERT_EQUAL(group_sweep(record), 0);
	CU_ASSERT_EQUAL(access(record, F_OK), -1);
	snprintf(cmd, sizeof cmd, "test ! -e %s/cpu/" LEAF " && test -d %s/other", top, top);
	CU_ASSERT_EQUAL(system(cmd), 0);
	CU_ASSERT_EQUAL(group_sweep(record), 0);
	end();
}

CU_ErrorCode suite_group(void);
CU_ErrorCode suite_group(void)
{
	CU_pSuite s = CU_add_suite("group", NULL, NULL);

	return s && CU_ADD_TEST(s, test_v1) && CU_ADD_TEST(s, test_v2) && CU_ADD_TEST(s, test_hybrid) &&
			       CU_ADD_TEST(s, test_none) && CU_ADD_TEST(s, test_sweep)
		       ? CUE_SUCCESS
		       : CU_get_error();
}
