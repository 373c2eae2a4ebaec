/* common/gmem: bounds, the hole below 4 GiB, pages out of order, dirty bits. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/gmem.h"

#define PAGES 16u

struct ram {
	struct gmem g;
	uint64_t p2m[PAGES], dirty[1], code[1];
};

static void ram_init(struct ram *r)
{
	memset(r, 0, sizeof(*r));
	r->g = (struct gmem){.ram = calloc(PAGES, 4096),
			     .size = PAGES * 4096,
			     .low = 8 * 4096,
			     .p2m = r->p2m,
			     .code_bm = r->code,
			     .dirty_bm = r->dirty};
	for (unsigned i = 0; i < PAGES; i++)
		r->p2m[i] = i * 4096;
}

static void test_bounds(void)
{
	struct ram r;

	ram_init(&r);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 0, 1), r.g.ram);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 0, 8 * 4096), r.g.ram);
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 0, 8 * 4096 + 1));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 8 * 4096, 1));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 8 * 4096 - 1, 2));
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 8 * 4096 - 1, 1), r.g.ram + 8 * 4096 - 1);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, GMEM_HIGH_BASE, 8 * 4096), r.g.ram + 8 * 4096);
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, GMEM_HIGH_BASE + 8 * 4096, 1));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, GMEM_HIGH_BASE - 1, 1));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, UINT64_MAX, 1));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, UINT64_MAX - 3, 16));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 4096, SIZE_MAX));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, GMEM_HIGH_BASE + 4096, SIZE_MAX - 4096));
	free(r.g.ram);
}

static void test_scattered(void)
{
	uint8_t buf[3 * 4096];
	struct ram r;

	ram_init(&r);
	r.p2m[1] = 5 * 4096 | 1; /* low bits are flags */
	r.p2m[5] = 1 * 4096;
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 0, 4097));
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 4096, 1), r.g.ram + 5 * 4096);
	memset(buf, 0x5a, sizeof(buf));
	CU_ASSERT_EQUAL(gmem_write(&r.g, 100, buf, 8192), 0);
	CU_ASSERT_EQUAL(r.g.ram[100], 0x5a);
	CU_ASSERT_EQUAL(r.g.ram[4096], 0);
	CU_ASSERT_EQUAL(r.g.ram[5 * 4096], 0x5a);
	CU_ASSERT_EQUAL(r.g.ram[2 * 4096 + 99], 0x5a);
	CU_ASSERT_EQUAL(r.g.ram[2 * 4096 + 100], 0);
	CU_ASSERT_EQUAL(r.dirty[0], 7);
	memset(buf, 0, sizeof(buf));
	CU_ASSERT_EQUAL(gmem_read(&r.g, 100, buf, 8192), 0);
	CU_ASSERT_EQUAL(buf[0], 0x5a);
	CU_ASSERT_EQUAL(buf[8191], 0x5a);
	free(r.g.ram);
}

static void test_all_or_nothing(void)
{
	uint8_t buf[8192];
	struct ram r;

	ram_init(&r);
	memset(buf, 0xff, sizeof(buf));
	CU_ASSERT_EQUAL(gmem_write(&r.g, 7 * 4096 + 2048, buf, 4096), -EFAULT);
	CU_ASSERT_EQUAL(r.g.ram[7 * 4096 + 2048], 0);
	CU_ASSERT_EQUAL(r.dirty[0], 0);
	CU_ASSERT_EQUAL(gmem_read(&r.g, 7 * 4096 + 2048, buf, 4096), -EFAULT);
	CU_ASSERT_EQUAL(buf[0], 0xff);
	CU_ASSERT_EQUAL(gmem_write(&r.g, 12345678, buf, 0), 0);
	r.p2m[3] = 1ull << 40; /* a corrupt table gives no pointer */
	CU_ASSERT_EQUAL(gmem_read(&r.g, 3 * 4096, buf, 1), -EFAULT);
	CU_ASSERT_EQUAL(gmem_write(&r.g, 2 * 4096, buf, 8192), -EFAULT);
	CU_ASSERT_EQUAL(r.dirty[0], 0);
	free(r.g.ram);
}

CU_ErrorCode suite_gmem(void)
{
	CU_pSuite s = CU_add_suite("gmem", NULL, NULL);

	CU_add_test(s, "bounds", test_bounds);
	CU_add_test(s, "scattered pages", test_scattered);
	CU_add_test(s, "all or nothing", test_all_or_nothing);
	return CU_get_error();
}
