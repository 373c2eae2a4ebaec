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
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 0, 1, GMEM_READ), r.g.ram);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 0, 8 * 4096, GMEM_READ), r.g.ram);
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 0, 8 * 4096 + 1, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 8 * 4096, 1, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 8 * 4096 - 1, 2, GMEM_READ));
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 8 * 4096 - 1, 1, GMEM_READ), r.g.ram + 8 * 4096 - 1);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, GMEM_HIGH_BASE, 8 * 4096, GMEM_READ), r.g.ram + 8 * 4096);
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, GMEM_HIGH_BASE + 8 * 4096, 1, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, GMEM_HIGH_BASE - 1, 1, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, UINT64_MAX, 1, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, UINT64_MAX - 3, 16, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 4096, SIZE_MAX, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, GMEM_HIGH_BASE + 4096, SIZE_MAX - 4096, GMEM_READ));
	free(r.g.ram);
}

static void test_scattered(void)
{
	uint8_t buf[3 * 4096];
	struct ram r;

	ram_init(&r);
	r.p2m[1] = 5 * 4096 | 1; /* low bits are flags */
	r.p2m[5] = 1 * 4096;
	CU_ASSERT_PTR_NULL(gmem_ptr(&r.g, 0, 4097, GMEM_READ));
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 4096, 1, GMEM_READ), r.g.ram + 5 * 4096);
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

static unsigned moves;
static const uint8_t *moved_from;

static void on_moved(void *ctx, uint64_t frame, const uint8_t *from)
{
	(void)ctx, (void)frame;
	moves++;
	moved_from = from;
}

/* Whoever writes takes a page out of the pool, or out of memsvc's eyes. */
static void test_own(void)
{
	static uint8_t pool[2 * 4096];
	struct ram r;

	ram_init(&r);
	r.g.pool = pool;
	r.g.pool_size = sizeof pool;
	r.g.moved = on_moved;
	moves = 0;
	memset(pool + 4096, 7, 4096);
	r.p2m[3] = 4096 | SHM_P2M_SHARED;
	CU_ASSERT_FALSE(gmem_writable(&r.g, 3));
	CU_ASSERT_TRUE(gmem_in_pool(&r.g, gmem_frame_ptr(&r.g, 3, GMEM_READ)));
	memset(r.g.ram + 3 * 4096, 9, 4096);
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 3, GMEM_READ | GMEM_WRITE), r.g.ram + 3 * 4096);
	CU_ASSERT(r.g.ram[3 * 4096] == 7 && r.g.ram[4 * 4096 - 1] == 7);
	CU_ASSERT_EQUAL(r.p2m[3], 3 * 4096);
	CU_ASSERT(moves == 1 && moved_from == pool + 4096 && gmem_writable(&r.g, 3));
	r.p2m[3] = 4096 | SHM_P2M_SHARED | SHM_P2M_KEPT; /* its own bytes are there still */
	r.g.ram[3 * 4096] = 8;
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 3, GMEM_WRITE), r.g.ram + 3 * 4096);
	CU_ASSERT(r.g.ram[3 * 4096] == 8 && r.p2m[3] == 3 * 4096 && moves == 2);
	r.p2m[3] = 3 * 4096 | SHM_P2M_WATCHED;
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 3, GMEM_READ), r.g.ram + 3 * 4096);
	CU_ASSERT(r.p2m[3] & SHM_P2M_WATCHED);
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 3, GMEM_WRITE), r.g.ram + 3 * 4096);
	CU_ASSERT(r.p2m[3] == 3 * 4096 && moves == 2);
	r.p2m[3] = SHM_P2M_SHARED; /* the page of zeros: its own place has been punched, and is one, too */
	memset(r.g.ram + 3 * 4096, 0, 4096);
	CU_ASSERT_EQUAL(gmem_write(&r.g, 3 * 4096 + 5, "x", 1), 0);
	CU_ASSERT(r.g.ram[3 * 4096 + 5] == 'x' && pool[5] == 0 && r.p2m[3] == 3 * 4096);
	r.p2m[3] = 4096 | SHM_P2M_SHARED; /* side by side again */
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&r.g, 2 * 4096, 3 * 4096, GMEM_READ | GMEM_WRITE), r.g.ram + 2 * 4096);
	free(r.g.ram);
}

/* What the resolver gives for each intent, whatever stands in the p2m. */
static void test_intents(void)
{
	static uint8_t pool[2 * 4096];
	struct ram r;
	size_t len;

	ram_init(&r);
	r.p2m[2] |= SHM_P2M_ABSENT; /* in the balloon: memory comes when it is touched */
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 2, GMEM_READ), r.g.ram + 2 * 4096);
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 2, GMEM_WRITE), r.g.ram + 2 * 4096);
	r.p2m[3] = 4096 | SHM_P2M_SHARED;
	CU_ASSERT_PTR_NULL(gmem_frame_ptr(&r.g, 3, GMEM_READ)); /* there is no pool */
	r.g.pool = pool;
	r.g.pool_size = sizeof pool;
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 3, GMEM_READ), pool + 4096);
	r.p2m[3] = 2 * 4096 | SHM_P2M_SHARED; /* behind its end */
	CU_ASSERT_PTR_NULL(gmem_frame_ptr(&r.g, 3, GMEM_READ));
	CU_ASSERT_PTR_NULL(gmem_frame_ptr(&r.g, 3, GMEM_WRITE));
	r.p2m[3] = 4096 | SHM_P2M_SHARED;
	uint8_t b[8] = {0};
	CU_ASSERT_EQUAL(gmem_read(&r.g, 3 * 4096 - 4, b, 8), 0);
	r.p2m[4] = PAGES * 4096; /* behind the end of RAM, and the last page */
	CU_ASSERT_PTR_NULL(gmem_frame_ptr(&r.g, 4, GMEM_READ));
	r.p2m[4] = (PAGES - 1) * 4096;
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 4, GMEM_READ), r.g.ram + (PAGES - 1) * 4096);
	r.p2m[4] = ~0ull;
	CU_ASSERT_PTR_NULL(gmem_frame_ptr(&r.g, 4, GMEM_READ));
	/* runs */
	len = 4 * 4096;
	CU_ASSERT_PTR_EQUAL(gmem_run(&r.g, 100, &len, GMEM_READ), r.g.ram + 100);
	CU_ASSERT_EQUAL(len, 3 * 4096 - 100);
	len = 8 * 4096 + 1;
	CU_ASSERT_PTR_NULL(gmem_run(&r.g, 0, &len, GMEM_READ)); /* not all of it is RAM */
	len = 0;
	CU_ASSERT_PTR_NULL(gmem_run(&r.g, 0, &len, GMEM_READ));
	r.p2m[3] = 3 * 4096;
	r.g.p2m = NULL;
	CU_ASSERT_PTR_EQUAL(gmem_frame_ptr(&r.g, 5, GMEM_WRITE), r.g.ram + 5 * 4096);
	free(r.g.ram);
}

CU_ErrorCode suite_gmem(void)
{
	CU_pSuite s = CU_add_suite("gmem", NULL, NULL);

	CU_add_test(s, "bounds", test_bounds);
	CU_add_test(s, "scattered pages", test_scattered);
	CU_add_test(s, "all or nothing", test_all_or_nothing);
	CU_add_test(s, "intents", test_intents);
	CU_add_test(s, "its own place", test_own);
	return CU_get_error();
}
