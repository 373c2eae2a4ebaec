/* vcpu/local: the frame (order of flush and publication, resets, broken drivers) and virtio-rng. */
#include <string.h>

#include "tests/unit/localvm.h"
#include "vcpu/local/rng.h"

static struct rng rng;
static struct local *d = &rng.dev;

static void begin(uint64_t bytes, uint64_t burst)
{
	const struct msg_dev_limits limit = {.bytes = bytes, .bytes_burst = burst};

	lv_begin();
	memset(&rng, 0, sizeof rng);
	CU_ASSERT_EQUAL_FATAL(rng_create(&rng, &lv.locals, 30, &limit), 0);
	lv_start(d, 0, 1);
}

static void end(void)
{
	ipc_watch_free(rng.tick);
	lv_end();
}

static unsigned zeros(uint64_t gpa, unsigned len)
{
	unsigned n = 0;

	for (unsigned i = 0; i < len; i++)
		n += !*lv_at(gpa + i);
	return n;
}

static void test_bytes(void)
{
	begin(0, 0);
	lv_put_desc(0, 0, LV_BUF, 1000, LV_WRITE | LV_NEXT, 1);
	lv_put_desc(0, 1, LV_BUF + 0x2ff0, 1000, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	CU_ASSERT_EQUAL(lv_used_len(0, 0), 2000);
	CU_ASSERT_EQUAL(lv_isr(d), 1);
	CU_ASSERT(zeros(LV_BUF, 1000) < 30 && zeros(LV_BUF + 0x2ff0, 1000) < 30);
	CU_ASSERT_EQUAL(zeros(LV_BUF + 1000, 100), 100);
	CU_ASSERT_EQUAL(lv.dirty[4], 1 | 12);    /* pages 0x100, 0x102 and 0x103 */
	CU_ASSERT_EQUAL(lv.dirty[0], 1 << 0x13); /* the used ring */
	CU_ASSERT_EQUAL(lv_counter(d, "bytes"), 2000);
	/* no more than a piece of a large one */
	lv_put_desc(0, 2, LV_BUF, 65536, LV_WRITE, 0);
	lv_offer(d, 0, 2);
	CU_ASSERT_EQUAL(lv_used_len(0, 1), LOCAL_BYTES_MAX);
	end();
}

/* Where there is translated code, the guest sees the buffer used only after that is gone. */
static void test_flush_order(void)
{
	begin(0, 0);
	lv.code[4] = 2;
	lv_put_desc(0, 0, LV_BUF + 0xff8, 16, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	CU_ASSERT_EQUAL(lv_isr(d), 0);
	CU_ASSERT_EQUAL(zeros(LV_BUF + 0xff8, 16) / 8, 0); /* the data is there */
	lv_put_desc(0, 1, LV_BUF + 0x5000, 16, LV_WRITE, 0);
	lv_offer(d, 0, 1); /* has to wait, too */
	CU_ASSERT_EQUAL(lv_used(0), 0);
	CU_ASSERT_EQUAL(zeros(LV_BUF + 0x5000, 16), 16);
	lv_flush();
	CU_ASSERT_EQUAL(lv.ncode, 1);
	CU_ASSERT_EQUAL(lv.code_gpa, LV_BUF + 0x1000);
	CU_ASSERT_EQUAL(lv.code_len, 8);
	CU_ASSERT_EQUAL(lv_used(0), 2);
	CU_ASSERT_EQUAL(lv_isr(d), 1);
	CU_ASSERT_EQUAL(lv_counter(d, "flushes"), 1);
	end();
}

/* Rings are written memory, too: the page of the used ring holds translated code. */
static void test_ring_code(void)
{
	begin(0, 0);
	lv.code[0] = 1 << 0x13;
	lv_put_desc(0, 0, LV_BUF, 16, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 0); /* neither index */
	lv_flush();
	CU_ASSERT_EQUAL(lv.ncode, 2); /* element, wish for doorbells */
	CU_ASSERT_EQUAL(lv_used(0), 1);
	CU_ASSERT_EQUAL(lv_isr(d), 0); /* nor interrupt, before the index is gone from translations */
	lv_flush();
	CU_ASSERT_EQUAL(lv.code_gpa, 0x13002);
	CU_ASSERT_EQUAL(lv_isr(d), 1);
	lv.code[0] = 0;
	lv_flush();
	lv_put_desc(0, 1, LV_BUF, 16, LV_WRITE, 0);
	lv_offer(d, 0, 1);
	CU_ASSERT_EQUAL(lv_used(0), 2);
	CU_ASSERT_EQUAL(lv_isr(d), 1);
	end();
}

/* A reset while a flush is under way: nothing is published afterwards, and a new life waits for it. */
static void test_reset_in_flush(void)
{
	begin(0, 0);
	lv.code[4] = 1;
	lv_put_desc(0, 0, LV_BUF, 16, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	lv_start(d, 0, 1);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	lv_put_desc(0, 3, LV_BUF + 0x8000, 16, LV_WRITE, 0);
	lv_offer(d, 0, 3);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	lv_flush();
	CU_ASSERT_EQUAL(lv.ncode, 1);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	CU_ASSERT_EQUAL(*(uint32_t *)(void *)lv_at(0x13004), 3);
	end();
}

static void test_broken(void)
{
	begin(0, 0);
	lv_put_desc(0, 0, LV_BUF, 16, 0, 0); /* nothing to write to */
	lv_offer(d, 0, 0);
	CU_ASSERT(lv_status(d) & VIRTIO_S_NEEDS_RESET);
	lv_start(d, 0, 1);
	lv_put_desc(0, 0, LV_PAGES * 4096 - 8, 16, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT(lv_status(d) & VIRTIO_S_NEEDS_RESET);
	CU_ASSERT_EQUAL(lv_isr(d), 2);
	lv_put_desc(0, 1, LV_BUF, 16, LV_WRITE, 0);
	lv_offer(d, 0, 1);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	lv_start(d, 0, 1);
	lv_put_desc(0, 1, LV_BUF, 16, LV_WRITE, 0);
	lv_offer(d, 0, 1);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	CU_ASSERT_EQUAL(lv_counter(d, "broken"), 2);
	CU_ASSERT_EQUAL(lv_counter(d, "resets"), 2);
	end();
}

static void test_limit(void)
{
	begin(10000, 100);
	uint64_t from = local_now();
	for (unsigned i = 0; i < 4; i++) {
		lv_put_desc(0, i, LV_BUF + 4096 * i, 1000, LV_WRITE, 0);
		lv_offer(d, 0, (uint16_t)i);
	}
	/* the first takes the burst and 900 bytes of debt, 90 ms; then one every 100 ms, however slow this host is */
	for (unsigned turn = 0; turn < 100 && lv_used(0) < 4; turn++) {
		unsigned n = lv_used(0);
		CU_ASSERT(n >= 1 && n <= 2 + (local_now() - from) / 100000000);
		lv_pump(20);
	}
	CU_ASSERT_EQUAL(lv_used(0), 4);
	CU_ASSERT(local_now() - from >= 290000000);
	CU_ASSERT(lv_counter(d, "throttled") >= 1);
	CU_ASSERT_EQUAL(lv_counter(d, "requests"), 4);
	end();
}

/* A request that waits by the old limit is not held by it. */
static void test_new_limit(void)
{
	const struct msg_dev_limits none = {0}, slow = {.bytes = 1, .bytes_burst = 1};

	begin(1, 1);
	for (unsigned i = 0; i < 3; i++) {
		lv_put_desc(0, i, LV_BUF + 4096 * i, 1000, LV_WRITE, 0);
		lv_offer(d, 0, (uint16_t)i);
	}
	CU_ASSERT_EQUAL(lv_used(0), 1); /* 1,000 seconds of debt */
	CU_ASSERT_EQUAL(lv_counter(d, "limit_bytes"), 1);
	rng_limit(&rng, &none);
	CU_ASSERT_EQUAL(lv_used(0), 3);
	CU_ASSERT_EQUAL(lv_counter(d, "limit_bytes"), 0);
	rng_limit(&rng, &slow);
	for (unsigned i = 3; i < 5; i++) {
		lv_put_desc(0, i, LV_BUF + 4096 * i, 1000, LV_WRITE, 0);
		lv_offer(d, 0, (uint16_t)i);
	}
	CU_ASSERT_EQUAL(lv_used(0), 4);
	/* not before there is a driver, nor after it broke the rules */
	lv_start(d, 0, 1);
	rng_limit(&rng, &none);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	end();
}

/* With event indices the driver is asked to ring again when its chains are used up. */
static void test_event_idx(void)
{
	begin(0, 0);
	lv_start(d, VIRTQ_FEATURES, 1);
	lv_put_desc(0, 0, LV_BUF, 16, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	CU_ASSERT_EQUAL(((uint16_t *)(void *)lv_at(0x13000))[2 + 4 * LV_SIZE], 1);
	end();
}

static void test_stop(void)
{
	begin(0, 0);
	locals_stop(&lv.locals);
	lv_put_desc(0, 0, LV_BUF, 16, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	end();
}

CU_ErrorCode suite_local(void)
{
	CU_pSuite s = CU_add_suite("local", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_bytes) || !CU_ADD_TEST(s, test_flush_order) || !CU_ADD_TEST(s, test_ring_code) ||
	    !CU_ADD_TEST(s, test_reset_in_flush) || !CU_ADD_TEST(s, test_broken) || !CU_ADD_TEST(s, test_limit) ||
	    !CU_ADD_TEST(s, test_new_limit) || !CU_ADD_TEST(s, test_event_idx) || !CU_ADD_TEST(s, test_stop))
		return CU_get_error();
	return CUE_SUCCESS;
}
