/* memsvc/ram: sizes, and pages that come and go. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "memsvc/ram.h"
#include "proto/shm.h"

#define PAGES 64u

static struct ram r;
static uint8_t *p;

static void begin(void)
{
	CU_ASSERT_EQUAL_FATAL(ram_create(&r, PAGES * SHM_PAGE), 0);
	p = mmap(NULL, PAGES * SHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r.ram_fd, 0);
	CU_ASSERT_FATAL(p != MAP_FAILED);
	memset(p, 0xa5, PAGES * SHM_PAGE);
}

static void end(void)
{
	munmap(p, PAGES * SHM_PAGE);
	ram_free(&r);
}

static struct ram_usage usage(void)
{
	struct ram_usage u;

	CU_ASSERT_EQUAL(ram_usage(&r, &u), 0);
	return u;
}

static bool is(unsigned page, uint8_t val)
{
	for (unsigned i = 0; i < SHM_PAGE; i++)
		if (p[page * SHM_PAGE + i] != val)
			return false;
	return true;
}

/* Nobody has a pointer to them. */
static int take(enum msg_mem_op op, uint64_t first, uint64_t count)
{
	int rc = ram_change(&r, op, first, count);

	return rc ? rc : ram_punch(&r, first, count);
}

static void test_balloon(void)
{
	begin();
	uint64_t full = usage().host_bytes;
	CU_ASSERT_EQUAL(usage().pages_present, PAGES);
	CU_ASSERT_EQUAL(take(MEM_OP_BALLOON, 8, 4), 0);
	CU_ASSERT_EQUAL(usage().pages_present, PAGES - 4);
	CU_ASSERT_EQUAL(usage().host_bytes, full - 4 * SHM_PAGE);
	CU_ASSERT_EQUAL(usage().pages_ballooned, 4);
	CU_ASSERT_EQUAL(usage().pages_punched, 4);
	CU_ASSERT_EQUAL(r.p2m[8], 8 * SHM_PAGE | SHM_P2M_ABSENT);
	CU_ASSERT_EQUAL(r.p2m[12], 12 * SHM_PAGE);
	CU_ASSERT_TRUE(is(7, 0xa5) && is(8, 0) && is(11, 0) && is(12, 0xa5));
	CU_ASSERT_EQUAL(take(MEM_OP_BALLOON, 8, 5), 0); /* some of it again */
	CU_ASSERT_EQUAL(usage().pages_ballooned, 5);
	CU_ASSERT_EQUAL(ram_change(&r, MEM_OP_RETURN, 9, 2), 0);
	CU_ASSERT_EQUAL(usage().pages_ballooned, 3);
	CU_ASSERT_EQUAL(ram_change(&r, MEM_OP_RETURN, 9, 2), 0);
	CU_ASSERT_EQUAL(usage().pages_ballooned, 3);
	p[9 * SHM_PAGE] = 1; /* it works as before */
	CU_ASSERT_EQUAL(ram_change(&r, MEM_OP_RETURN_ALL, 0, 0), 0);
	CU_ASSERT_EQUAL(usage().pages_ballooned, 0);
	CU_ASSERT_EQUAL(p[9 * SHM_PAGE], 1);
	for (unsigned i = 0; i < PAGES; i++)
		CU_ASSERT_EQUAL(r.p2m[i], i * SHM_PAGE);
	end();
}

static void test_report(void)
{
	begin();
	CU_ASSERT_EQUAL(take(MEM_OP_REPORT, 0, PAGES), 0);
	CU_ASSERT_EQUAL(usage().pages_present, 0);
	CU_ASSERT_EQUAL(usage().pages_ballooned, 0);
	CU_ASSERT_EQUAL(r.p2m[3], 3 * SHM_PAGE);
	p[3 * SHM_PAGE] = 9;
	CU_ASSERT_EQUAL(usage().pages_present, 1);
	end();
}

static void test_ranges(void)
{
	begin();
	CU_ASSERT_EQUAL(ram_change(&r, MEM_OP_BALLOON, PAGES, 1), -EPROTO);
	CU_ASSERT_EQUAL(ram_change(&r, MEM_OP_REPORT, PAGES - 1, 2), -EPROTO);
	CU_ASSERT_EQUAL(ram_change(&r, MEM_OP_RETURN, UINT64_MAX, 2), -EPROTO);
	CU_ASSERT_EQUAL(ram_change(&r, MEM_OP_RETURN, 1, UINT64_MAX), -EPROTO);
	CU_ASSERT_EQUAL(usage().pages_present, PAGES);
	CU_ASSERT_EQUAL(take(MEM_OP_REPORT, PAGES - 1, 1), 0);
	end();
}

CU_ErrorCode suite_ram(void)
{
	CU_pSuite s = CU_add_suite("ram", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_balloon) || !CU_ADD_TEST(s, test_report) || !CU_ADD_TEST(s, test_ranges))
		return CU_get_error();
	return CUE_SUCCESS;
}
