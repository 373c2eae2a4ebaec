/* devices/limit: rates, bursts, oversized operations, no limit. */
#include <CUnit/CUnit.h>

#include "devices/limit.h"

#define S 1000000000ull

/* Operations of @bytes let through in @ns when tried whenever the bucket says so. */
static uint64_t run(struct limit *l, uint64_t bytes, uint64_t from, uint64_t ns)
{
	uint64_t n = 0, wait, now = from;

	while (now < from + ns) {
		if (limit_take(l, bytes, now, &wait)) {
			n++;
			continue;
		}
		CU_ASSERT_FATAL(wait > 0);
		now += wait;
	}
	return n;
}

static void test_rates(void)
{
	struct limit l = {0};
	struct msg_dev_limits m = {.ops = 100, .ops_burst = 20};

	limit_set(&l, &m, S);
	uint64_t n = run(&l, 1, S, 10 * S);
	CU_ASSERT(n >= 1018 && n <= 1021);
	m = (struct msg_dev_limits){.bytes = 1000000, .bytes_burst = 4096};
	limit_set(&l, &m, S);
	n = run(&l, 4096, S, 10 * S);
	CU_ASSERT(n >= 2441 && n <= 2444);
	CU_ASSERT(l.throttled > 0);
}

/* Larger than the burst: passes, and is paid off. */
static void test_oversized(void)
{
	struct limit l = {0};
	struct msg_dev_limits m = {.bytes = 1000, .bytes_burst = 10};

	limit_set(&l, &m, S);
	uint64_t n = run(&l, 5000, S, 100 * S);
	CU_ASSERT(n >= 20 && n <= 21);
}

static void test_none(void)
{
	struct limit l = {0};
	uint64_t wait = 1;

	for (int i = 0; i < 1000; i++)
		CU_ASSERT_TRUE(limit_take(&l, 1 << 30, 0, &wait));
	CU_ASSERT_EQUAL(wait, 0);
}

/* A clock that stands still or goes back gives nothing. */
static void test_clock(void)
{
	struct limit l = {0};
	struct msg_dev_limits m = {.ops = 10, .ops_burst = 1};
	uint64_t wait;

	limit_set(&l, &m, 5 * S);
	CU_ASSERT_TRUE(limit_take(&l, 1, 5 * S, &wait));
	CU_ASSERT_FALSE(limit_take(&l, 1, 4 * S, &wait));
	CU_ASSERT_FALSE(limit_take(&l, 1, 4 * S, &wait));
	CU_ASSERT_TRUE(limit_take(&l, 1, 4 * S + S / 10 + 1, &wait));
}

CU_ErrorCode suite_limit(void)
{
	CU_pSuite s = CU_add_suite("limit", NULL, NULL);

	if (!s || !CU_add_test(s, "rates and bursts", test_rates) || !CU_add_test(s, "oversized", test_oversized) ||
	    !CU_add_test(s, "no limit", test_none) || !CU_add_test(s, "clock", test_clock))
		return CU_get_error();
	return CUE_SUCCESS;
}
