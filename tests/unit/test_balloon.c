/* vcpu/local/balloon: what goes to memsvc and in which order, statistics, resets, a hostile driver. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/localvm.h"
#include "vcpu/local/balloon.h"

#define F_STATS     (1u << 1)
#define F_REPORTING (1u << 5)

static struct balloon b;
static struct memlink to_mem;
static struct local *d = &b.dev;
static int mem; /* memsvc's end */
static struct msg_mem_change got;
static uint8_t buf[IPC_MAX_DATA];

static void begin(uint64_t features, unsigned queues)
{
	int sv[2];

	lv_begin();
	memset(&b, 0, sizeof b);
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sv), 0);
	mem = sv[1];
	memset(&to_mem, 0, sizeof to_mem);
	CU_ASSERT_EQUAL_FATAL(memlink_create(&to_mem, &lv.vm, lv.loop, sv[0]), 0);
	CU_ASSERT_EQUAL_FATAL(balloon_create(&b, &lv.locals, 29, &to_mem), 0);
	lv_start(d, features, queues);
}

static void end(void)
{
	memlink_free(&to_mem);
	close(mem);
	lv_end();
}

/* The request that memsvc has got; false: none. */
static bool asked(void)
{
	struct ipc_frame f;

	lv_pump(2);
	if (ipc_recv_frame(mem, buf, &f))
		return false;
	CU_ASSERT_EQUAL(f.type, MSG_MEM_CHANGE);
	CU_ASSERT_EQUAL(unpack_mem_change(f.data, f.len, &got), 0);
	return true;
}

static void answer(uint32_t id)
{
	const struct msg_mem_changed m = {id};
	int n = pack_mem_changed(&m, buf, sizeof buf);

	CU_ASSERT_EQUAL(ipc_send_frame(mem, MSG_MEM_CHANGED, buf, (size_t)n, NULL, 0), 0);
	lv_pump(2);
}

static void list(uint64_t at, const uint32_t *pfn, unsigned n)
{
	memcpy(lv_at(at), pfn, n * 4);
}

static void test_inflate(void)
{
	static const uint32_t up[] = {0x200, 0x201, 0x202, 0x300, 0x180, 0x17f};

	begin(0, 3);
	list(LV_BUF, up, 6);
	lv_put_desc(0, 0, LV_BUF, sizeof up, 0, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	CU_ASSERT_FATAL(asked());
	CU_ASSERT_EQUAL(got.op, MEM_OP_BALLOON);
	CU_ASSERT_EQUAL_FATAL(got.nranges, 3);
	CU_ASSERT(got.range[0].first == 0x200 && got.range[0].count == 3);
	CU_ASSERT(got.range[1].first == 0x300 && got.range[1].count == 1);
	CU_ASSERT(got.range[2].first == 0x17f && got.range[2].count == 2);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	answer(got.id);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	CU_ASSERT_FALSE(asked());
	CU_ASSERT_EQUAL(lv.dirty[0x200 / 64], 7);
	CU_ASSERT_EQUAL(lv_counter(d, "pages_inflated"), 6);
	lv_put_desc(1, 0, LV_BUF, 12, 0, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_FATAL(asked());
	CU_ASSERT(got.op == MEM_OP_RETURN && got.nranges == 1 && got.range[0].count == 3);
	answer(got.id);
	CU_ASSERT_EQUAL(lv_used(1), 1);
	CU_ASSERT_EQUAL(lv_counter(d, "pages_deflated"), 3);
	end();
}

/* Translations of what was punched are gone before the guest may use the pages again. */
static void test_code(void)
{
	static const uint32_t pfn[] = {0x200, 0x201};

	begin(0, 3);
	lv.code[0x201 / 64] = 2;
	list(LV_BUF, pfn, 2);
	lv_put_desc(0, 0, LV_BUF, 8, 0, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_FATAL(asked());
	CU_ASSERT_FALSE(atomic_load(&lv.v->pending) & PEND_FLUSH); /* not before they are punched */
	answer(got.id);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	lv_flush();
	CU_ASSERT_EQUAL(lv.ncode, 1);
	CU_ASSERT(lv.code_gpa == 0x200000 && lv.code_len == 0x2000);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	end();
}

/* A list longer than a request is worked off in pieces; the guest hears of the end only. */
static void test_long_list(void)
{
	unsigned pages = 0, requests = 0;

	begin(0, 3);
	for (uint32_t i = 0; i < 600; i++)
		((uint32_t *)(void *)lv_at(LV_BUF))[i] = 0x200 + i % 2 * 2;
	lv_put_desc(0, 0, LV_BUF, 2400, 0, 0);
	lv_offer(d, 0, 0);
	while (asked()) {
		CU_ASSERT_EQUAL(lv_used(0), 0);
		for (uint32_t i = 0; i < got.nranges; i++)
			pages += (unsigned)got.range[i].count;
		requests++;
		answer(got.id);
	}
	CU_ASSERT_EQUAL(pages, 600);
	CU_ASSERT_EQUAL(requests, 3);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	end();
}

static void report(unsigned queue, unsigned nqueues, uint64_t features)
{
	begin(features, nqueues);
	lv_put_desc(queue, 0, 0x200000, 0x100000, LV_WRITE | LV_NEXT, 1);
	lv_put_desc(queue, 1, 0x180800, 0x2000, LV_WRITE | LV_NEXT, 2); /* one whole page in it */
	lv_put_desc(queue, 2, 0x180800, 0x200, LV_WRITE, 0);            /* none */
	lv_offer(d, queue, 0);
	CU_ASSERT_FATAL(asked());
	CU_ASSERT_EQUAL(got.op, MEM_OP_REPORT);
	CU_ASSERT_EQUAL_FATAL(got.nranges, 2);
	CU_ASSERT(got.range[0].first == 0x200 && got.range[0].count == 0x100);
	CU_ASSERT(got.range[1].first == 0x181 && got.range[1].count == 1);
	CU_ASSERT_EQUAL(lv_used(queue), 0);
	answer(got.id);
	CU_ASSERT_EQUAL(lv_used(queue), 1);
	CU_ASSERT_EQUAL(lv_counter(d, "pages_reported"), 0x101);
	end();
}

static void test_report(void)
{
	report(4, 5, F_STATS | F_REPORTING);
	report(3, 4, F_STATS | F_REPORTING);
	report(2, 3, F_REPORTING);
}

static void stat(unsigned i, uint16_t tag, uint64_t val)
{
	memcpy(lv_at(LV_BUF + 10 * i), &tag, 2);
	memcpy(lv_at(LV_BUF + 10 * i + 2), &val, 8);
}

static unsigned ready;

static void on_ready(void *ctx)
{
	(void)ctx;
	ready++;
}

static void test_stats(void)
{
	begin(F_STATS, 3);
	ready = 0;
	CU_ASSERT_EQUAL(lv_counter(d, "guest_free"), UINT64_MAX);
	stat(0, 4, 1000);
	stat(1, 99, 5);
	stat(2, 5, 2000);
	lv_put_desc(2, 0, LV_BUF, 30, 0, 0);
	lv_offer(d, 2, 0);
	CU_ASSERT_EQUAL(lv_used(2), 0); /* kept */
	CU_ASSERT_EQUAL(lv_counter(d, "guest_free"), 1000);
	CU_ASSERT_EQUAL(lv_counter(d, "guest_total"), 2000);
	CU_ASSERT_TRUE(locals_refresh(&lv.locals, on_ready, NULL));
	lv_pump(2);
	CU_ASSERT_EQUAL(lv_used(2), 1);
	CU_ASSERT_EQUAL(ready, 0);
	CU_ASSERT_FALSE(locals_refresh(&lv.locals, on_ready, NULL)); /* one at a time */
	stat(0, 4, 500);
	lv_offer(d, 2, 0);
	CU_ASSERT_EQUAL(ready, 1);
	CU_ASSERT_EQUAL(lv_counter(d, "guest_free"), 500);
	CU_ASSERT_TRUE(locals_refresh(&lv.locals, on_ready, NULL));
	lv_pump(300); /* a guest that does not answer */
	CU_ASSERT_EQUAL(ready, 2);
	end();
	begin(0, 2);
	CU_ASSERT_FALSE(locals_refresh(&lv.locals, on_ready, NULL));
	end();
}

/* A reset waits for what memsvc has under way, and takes everything out of the balloon. */
static void test_reset(void)
{
	static const uint32_t pfn[] = {0x200};

	begin(0, 3);
	list(LV_BUF, pfn, 1);
	lv_put_desc(0, 0, LV_BUF, 4, 0, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_FATAL(asked());
	uint32_t first = got.id;
	lv_set_status(d, 0);
	CU_ASSERT_FATAL(asked());
	CU_ASSERT_EQUAL(got.op, MEM_OP_RETURN_ALL);
	CU_ASSERT_NOT_EQUAL(lv_status(d), 0);
	answer(first);
	CU_ASSERT_NOT_EQUAL(lv_status(d), 0);
	answer(got.id);
	CU_ASSERT_EQUAL(lv_status(d), 0);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	end();
}

static void test_target(void)
{
	begin(0, 3);
	balloon_target(&b, 1 << 20);
	CU_ASSERT_EQUAL(lv_config(d, 0, 4), LV_PAGES - 256);
	CU_ASSERT_EQUAL(lv_isr(d), 2);
	CU_ASSERT_EQUAL(lv_counter(d, "target_bytes"), 1 << 20);
	CU_ASSERT_EQUAL(lv_counter(d, "actual_bytes"), LV_PAGES << 12);
	balloon_target(&b, 1ull << 40);
	CU_ASSERT_EQUAL(lv_config(d, 0, 4), 0);
	end();
}

static void test_broken(void)
{
	static const uint32_t pfn[] = {0x200, LV_PAGES};

	begin(0, 3);
	list(LV_BUF, pfn, 2);
	lv_put_desc(0, 0, LV_BUF, 8, 0, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT(lv_status(d) & VIRTIO_S_NEEDS_RESET);
	CU_ASSERT_FALSE(asked());
	CU_ASSERT_EQUAL(lv_used(0), 0);
	end();
	begin(0, 3); /* odd bytes at the end are nobody's; a list of none is fine */
	lv_put_desc(0, 0, LV_BUF, 3, 0, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	lv_put_desc(1, 0, LV_BUF, 64, LV_WRITE, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(lv_used(1), 1);
	end();
}

CU_ErrorCode suite_balloon(void)
{
	CU_pSuite s = CU_add_suite("balloon", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_inflate) || !CU_ADD_TEST(s, test_code) || !CU_ADD_TEST(s, test_long_list) ||
	    !CU_ADD_TEST(s, test_report) || !CU_ADD_TEST(s, test_stats) || !CU_ADD_TEST(s, test_reset) ||
	    !CU_ADD_TEST(s, test_target) || !CU_ADD_TEST(s, test_broken))
		return CU_get_error();
	return CUE_SUCCESS;
}
