/* monitor/memwatch: when the host is short of memory, and how much a guest is told to have. */
#include <CUnit/CUnit.h>

#include "monitor/memwatch.h"

#define MIB  (1ull << 20)
#define NONE UINT64_MAX

static struct memwatch_host plenty(void)
{
	return (struct memwatch_host){
		.stalled = 0, .total = 1000 * MIB, .available = 800 * MIB, .used = NONE, .limit = NONE};
}

static void test_host(void)
{
	struct memwatch_host h = plenty();

	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_NORMAL), MEMWATCH_EASY);
	h.available = 200 * MIB;
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_EASY), MEMWATCH_NORMAL);
	h.available = 79 * MIB;
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_NORMAL), MEMWATCH_SHORT);
	h.available = 110 * MIB; /* not clearly over */
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_SHORT), MEMWATCH_SHORT);
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_NORMAL), MEMWATCH_NORMAL);
	h = plenty();
	h.stalled = 500;
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_EASY), MEMWATCH_SHORT);
	h.stalled = 99;
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_SHORT), MEMWATCH_EASY);
	h.stalled = NONE; /* a host that does not tell */
	h.available = h.total = NONE;
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_NORMAL), MEMWATCH_EASY);
	h = plenty();
	h.limit = 100 * MIB; /* the cgroup's */
	h.used = 95 * MIB;
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_EASY), MEMWATCH_SHORT);
	h.used = 60 * MIB;
	CU_ASSERT_EQUAL(memwatch_judge(&h, MEMWATCH_SHORT), MEMWATCH_EASY);
}

/* When VMs pause: late, and until it is clearly over. */
static void test_out(void)
{
	struct memwatch_host h = plenty();

	CU_ASSERT_FALSE(memwatch_out(&h, false) || memwatch_out(&h, true));
	h.available = 31 * MIB;
	CU_ASSERT_FALSE(memwatch_out(&h, false));
	CU_ASSERT_TRUE(memwatch_out(&h, true));
	h.available = 29 * MIB;
	CU_ASSERT_TRUE(memwatch_out(&h, false));
	h = plenty();
	h.stalled = 3999;
	CU_ASSERT_FALSE(memwatch_out(&h, false));
	h.stalled = 4000;
	CU_ASSERT_TRUE(memwatch_out(&h, false));
	h = plenty();
	h.limit = 100 * MIB;
	h.used = 98 * MIB;
	CU_ASSERT_FALSE(memwatch_out(&h, false));
	h.used = 99 * MIB;
	CU_ASSERT_TRUE(memwatch_out(&h, false));
	h.stalled = h.total = h.available = h.used = h.limit = NONE;
	CU_ASSERT_FALSE(memwatch_out(&h, false));
}

static struct memwatch_guest guest(void)
{
	return (struct memwatch_guest){
		.nominal = 1024 * MIB, .ceiling = 1024 * MIB, .target = 1024 * MIB, .available = 700 * MIB};
}

static void test_takes(void)
{
	struct memwatch_guest g = guest();

	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_NORMAL), g.target);
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), 960 * MIB);
	g.available = 100 * MIB; /* 64 are its own */
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), (1024 - 18) * MIB);
	g.available = 70 * MIB;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), g.target);
	g.available = NONE; /* without a driver that tells */
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), g.target);
	g = guest();
	g.actual = g.target + 17 * MIB; /* it has not given yet what it was asked for */
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), g.target);
	/* down to the guarantee, and no further */
	g = guest();
	g.floor = 1000 * MIB;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), 1000 * MIB);
	g.target = 1000 * MIB;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), 1000 * MIB);
	g.target = 900 * MIB; /* by command */
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), 900 * MIB);
	g = guest();
	for (unsigned i = 0; i < 100; i++)
		g.target = memwatch_target(&g, MEMWATCH_SHORT);
	CU_ASSERT_EQUAL(g.target, 64 * MIB);
}

static void test_gives(void)
{
	struct memwatch_guest g = guest();

	g.target = 300 * MIB;
	g.swaps = true;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), 428 * MIB); /* whatever the host's state */
	g.swaps = false;
	g.available = 10 * MIB;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_SHORT), 428 * MIB);
	g.available = 100 * MIB;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_NORMAL), 300 * MIB);
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_EASY), 332 * MIB);
	g.ceiling = 320 * MIB; /* the user's word counts */
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_EASY), 320 * MIB);
	g.swaps = true;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_EASY), 320 * MIB);
	g.ceiling = g.nominal;
	g.target = 1000 * MIB;
	CU_ASSERT_EQUAL(memwatch_target(&g, MEMWATCH_EASY), 1024 * MIB);
}

CU_ErrorCode suite_memwatch(void)
{
	CU_pSuite s = CU_add_suite("memwatch", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_host) || !CU_ADD_TEST(s, test_out) || !CU_ADD_TEST(s, test_takes) ||
	    !CU_ADD_TEST(s, test_gives))
		return CU_get_error();
	return CUE_SUCCESS;
}
