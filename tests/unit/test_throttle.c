/* The bucket of CPU time: what is let through over any stretch. */
#include <CUnit/CUnit.h>

#include "vcpu/throttle.h"

#define MS 1000000ull

/* Ticks of @ms in which @cpus run whenever they are not held; the CPU time they get in @total ms. */
static uint64_t run(uint64_t percent, uint64_t ms, unsigned cpus, uint64_t total)
{
	struct throttle_bucket b = {.percent = percent};
	uint64_t used = 0;
	bool held = false;

	for (uint64_t t = 0; t < total; t += ms) {
		used += held ? 0 : cpus * ms * MS;
		held = throttle_look(&b, (t + ms) * MS, used);
	}
	return used;
}

static void near(uint64_t got, uint64_t want)
{
	CU_ASSERT(got <= want + want / 50 && got >= want - want / 50);
}

static void test_rates(void)
{
	near(run(25, 5, 1, 10000), 2500 * MS);
	near(run(50, 5, 1, 10000), 5000 * MS);
	near(run(150, 5, 2, 10000), 15000 * MS);
	near(run(50, 37, 1, 10000), 5000 * MS); /* late ticks */
	near(run(3, 5, 4, 20000), 600 * MS);
	CU_ASSERT_EQUAL(run(100, 5, 1, 10000), 10000 * MS);
	CU_ASSERT_EQUAL(run(800, 5, 4, 10000), 40000 * MS);
}

/* A rest gives no more than the burst. */
static void test_burst(void)
{
	struct throttle_bucket b = {.percent = 50};

	CU_ASSERT_FALSE(throttle_look(&b, 3600000 * MS, 0));
	CU_ASSERT_EQUAL(b.have_ns, (int64_t)(50 * MS));
	CU_ASSERT(throttle_look(&b, 3600000 * MS, 51 * MS));
}

static void test_debt(void)
{
	struct throttle_bucket b = {.percent = 10, .have_ns = -(int64_t)(10 * MS)};

	CU_ASSERT(throttle_look(&b, 99 * MS, 0));
	CU_ASSERT_FALSE(throttle_look(&b, 101 * MS, 0));
}

CU_ErrorCode suite_throttle(void);
CU_ErrorCode suite_throttle(void)
{
	CU_pSuite s = CU_add_suite("throttle", NULL, NULL);

	return s && CU_ADD_TEST(s, test_rates) && CU_ADD_TEST(s, test_burst) && CU_ADD_TEST(s, test_debt)
		       ? CUE_SUCCESS
		       : CU_get_error();
}
