/* Limits of a whole VM as they are written. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>

#include "monitor/limits.h"

static struct msg_vm_limits l;
static char err[256];

static int set(const char *key, const char *value)
{
	return limits_set(&l, key, value, err, sizeof err);
}

static void test_values(void)
{
	memset(&l, 0, sizeof l);
	CU_ASSERT(set("cpu-limit", "150%") == 0 && l.cpu == 150 && l.given == VM_LIMIT_CPU);
	CU_ASSERT(set("cpu-limit", "25") == 0 && l.cpu == 25);
	CU_ASSERT(set("cpu-limit", "none") == 0 && l.cpu == 0);
	CU_ASSERT(set("cpu-weight", "10000") == 0 && l.weight == 10000);
	CU_ASSERT(set("memory-limit", "600") == 0 && l.memory == 600ull << 20);
	CU_ASSERT(set("memory-limit", "1.5G") == 0 && l.memory == 1536ull << 20);
	CU_ASSERT(set("pids", "64") == 0 && l.pids == 64);
	CU_ASSERT(set("io-limit", "10M") == 0 && l.io.bytes == 10 << 20 && !l.io.ops);
	CU_ASSERT(set("io-limit", "ops=500,bytes-burst=1M") == 0 && l.io.ops == 500 && l.io.bytes_burst == 1 << 20 &&
		  !l.io.bytes);
	CU_ASSERT(set("io-limit", "none") == 0 && !l.io.ops && !l.io.bytes_burst);
	CU_ASSERT(set("merge-rate", "20%") == 0 && l.merge == 20);
	CU_ASSERT_EQUAL(l.given, VM_LIMIT_ALL);
}

static void test_refused(void)
{
	static const char *const bad[][2] = {{"cpu-limit", "0"},
					     {"merge-rate", "0"},
					     {"merge-rate", "none"},
					     {"merge-rate", "101"},
					     {"cpu-limit", "100001"},
					     {"cpu-limit", "-5"},
					     {"cpu-limit", "5 %"},
					     {"cpu-limit", ""},
					     {"cpu-limit", "25.5"},
					     {"cpu-weight", "0"},
					     {"cpu-weight", "10001"},
					     {"cpu-weight", "5%"},
					     {"memory-limit", "0"},
					     {"memory-limit", "4K"},
					     {"memory-limit", "much"},
					     {"memory-limit", "2000T"},
					     {"pids", "0"},
					     {"pids", "4194305"},
					     {"pids", "1e3"},
					     {"io-limit", "packets=5"},
					     {"io-limit", "ops"},
					     {"io-limit", ""},
					     {"io-limit", "ops=x"},
					     {"io-limit", "ops=1,speed=2"}};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		memset(&l, 0, sizeof l);
		CU_ASSERT_EQUAL(set(bad[i][0], bad[i][1]), -EINVAL);
		CU_ASSERT(l.given == 0 && err[0]);
	}
	CU_ASSERT_EQUAL(set("speed", "1"), -ENOENT);
}

static void test_change(void)
{
	struct msg_vm_limits a = {.given = VM_LIMIT_CPU, .cpu = 5, .weight = 7};
	const struct msg_vm_limits to = {
		.given = VM_LIMIT_WEIGHT | VM_LIMIT_IO, .cpu = 9, .weight = 8, .io = {.ops = 3}};

	limits_change(&a, &to);
	CU_ASSERT(a.cpu == 5 && a.weight == 8 && a.io.ops == 3);
	CU_ASSERT_EQUAL(a.given, VM_LIMIT_CPU | VM_LIMIT_WEIGHT | VM_LIMIT_IO);
}

static void test_cpus(void)
{
	static const char *const bad[] = {"", "x", "1-", "-1", "3-1", "1,", ",1", "1 2", "1024", "0-1024", "1--2"};
	struct limits_cpus c;

	CU_ASSERT(limits_cpus(&c, "0-3,8,1023") == 0 && c.bits[0] == 0x10f && c.bits[15] == 1ull << 63);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CU_ASSERT_EQUAL(limits_cpus(&c, bad[i]), -EINVAL);
}

/* The scheduler's table of weights for nice values, in hundredths of nice 0's. */
static void test_nice(void)
{
	CU_ASSERT_EQUAL(limits_nice(0), 0);
	CU_ASSERT_EQUAL(limits_nice(100), 0);
	CU_ASSERT_EQUAL(limits_nice(80), 1);
	CU_ASSERT_EQUAL(limits_nice(50), 3);
	CU_ASSERT_EQUAL(limits_nice(10), 10);
	CU_ASSERT_EQUAL(limits_nice(1), 19);
	CU_ASSERT_EQUAL(limits_nice(125), -1);
	CU_ASSERT_EQUAL(limits_nice(200), -3);
	CU_ASSERT_EQUAL(limits_nice(10000), -20);
}

static void test_part(void)
{
	const struct msg_dev_limits io = {.ops = 100, .bytes = 7};

	CU_ASSERT_EQUAL(limits_part(&io, 1).ops, 100);
	CU_ASSERT_EQUAL(limits_part(&io, 3).ops, 34);
	CU_ASSERT_EQUAL(limits_part(&io, 9).bytes, 1); /* never 0, which would be none */
	CU_ASSERT_EQUAL(limits_part(&io, 3).ops_burst, 0);
	CU_ASSERT_EQUAL(limits_part(&io, 0).ops, 0);
}

CU_ErrorCode suite_limits(void);
CU_ErrorCode suite_limits(void)
{
	CU_pSuite s = CU_add_suite("limits", NULL, NULL);

	return s && CU_ADD_TEST(s, test_values) && CU_ADD_TEST(s, test_refused) && CU_ADD_TEST(s, test_change) &&
			       CU_ADD_TEST(s, test_cpus) && CU_ADD_TEST(s, test_nice) && CU_ADD_TEST(s, test_part)
		       ? CUE_SUCCESS
		       : CU_get_error();
}
