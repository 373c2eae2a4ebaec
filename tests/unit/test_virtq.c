/* devices/virtq: chains good and bad, notification, what the guest changes in flight. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtq.h"
#include "tests/insn/rng.h"

#define PAGES 32u
#define SIZE  8u
#define DESC  0x1000u
#define AVAIL 0x2000u
#define USED  0x3000u
#define BUF   0x8000u

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

struct world {
	struct gmem g;
	uint64_t p2m[PAGES], dirty[1], code[1];
	struct virtq q;
	struct virtq_chain c;
};

static struct world *world(uint64_t features)
{
	struct world *w = calloc(1, sizeof *w);
	const struct msg_virtio_queue m = {.size = SIZE, .desc = DESC, .driver = AVAIL, .device = USED};

	w->g = (struct gmem){.ram = calloc(PAGES, 4096),
			     .size = PAGES * 4096,
			     .low = PAGES * 4096,
			     .p2m = w->p2m,
			     .code_bm = w->code,
			     .dirty_bm = w->dirty};
	for (unsigned i = 0; i < PAGES; i++)
		w->p2m[i] = i * 4096;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, features), 0);
	return w;
}

static void end(struct world *w)
{
	free(w->g.ram);
	free(w);
}

static uint16_t *u16(struct world *w, uint64_t gpa)
{
	return (uint16_t *)(void *)(w->g.ram + gpa);
}

static void desc(struct world *w, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	struct desc d = {addr, len, flags, next};

	memcpy(w->g.ram + DESC + i * 16, &d, 16);
}

static void offer(struct world *w, uint16_t head)
{
	uint16_t *a = u16(w, AVAIL);

	a[2 + a[1] % SIZE] = head;
	a[1]++;
}

static void test_setup(void)
{
	struct world *w = world(0);
	struct msg_virtio_queue m = {.size = SIZE, .desc = DESC, .driver = AVAIL, .device = USED};
	const uint64_t end_of_ram = PAGES * 4096;

	m.desc = DESC + 8;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, 0), -EPROTO);
	m.desc = end_of_ram - 16;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, 0), -EPROTO);
	m.desc = DESC;
	m.driver = UINT64_MAX - 1;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, 0), -EPROTO);
	m.driver = AVAIL;
	m.device = USED + 2;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, 0), -EPROTO);
	m.device = end_of_ram;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, 0), -EPROTO);
	m.device = USED;
	m.size = 6;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, 0), -EPROTO);
	m.size = 2 * MSG_QUEUE_SIZE_MAX;
	CU_ASSERT_EQUAL(virtq_setup(&w->q, &w->g, &m, 0), -EPROTO);
	end(w);
}

static void test_chain(void)
{
	struct world *w = world(0);
	char buf[64];

	memcpy(w->g.ram + BUF, "headdata", 8);
	desc(w, 3, BUF, 4, NEXT, 5);
	desc(w, 5, BUF + 4, 4, NEXT, 1);
	desc(w, 1, BUF + 100, 16, WRITE, 0);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 0);
	offer(w, 3);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	CU_ASSERT_EQUAL(w->c.head, 3);
	CU_ASSERT_EQUAL(w->c.nout, 2);
	CU_ASSERT_EQUAL(w->c.nin, 1);
	CU_ASSERT_EQUAL(w->c.out_len, 8);
	CU_ASSERT_EQUAL(w->c.in_len, 16);
	CU_ASSERT_EQUAL(virtq_read(&w->c, 2, buf, 10), 6);
	CU_ASSERT_EQUAL(memcmp(buf, "addata", 6), 0);
	CU_ASSERT_EQUAL(virtq_write(&w->c, 10, "0123456789", 10), 6);
	CU_ASSERT_EQUAL(memcmp(w->g.ram + BUF + 110, "012345", 6), 0);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 0);
	CU_ASSERT_EQUAL(u16(w, USED)[1], 0);
	virtq_put(&w->q, 3, 16);
	CU_ASSERT_EQUAL(u16(w, USED)[1], 0);
	CU_ASSERT_TRUE(virtq_publish(&w->q));
	CU_ASSERT_EQUAL(u16(w, USED)[1], 1);
	CU_ASSERT_EQUAL(w->g.ram[USED + 4], 3);
	CU_ASSERT_EQUAL(w->g.ram[USED + 8], 16);
	CU_ASSERT_FALSE(virtq_publish(&w->q));
	end(w);
}

/* Pages that are not side by side on the host: a piece each. */
static void test_scattered(void)
{
	struct world *w = world(0);

	w->p2m[8] = 20 * 4096;
	w->p2m[9] = 12 * 4096;
	desc(w, 0, BUF + 4000, 200, WRITE, 0);
	offer(w, 0);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	CU_ASSERT_EQUAL(w->c.nin, 1);
	CU_ASSERT_EQUAL(w->c.in_len, 200);
	struct iovec v[4];
	uint64_t len = 1000;
	CU_ASSERT_EQUAL(virtq_iov(&w->c, true, 0, &len, v, 4), 2);
	CU_ASSERT_EQUAL(len, 200);
	CU_ASSERT_PTR_EQUAL(v[0].iov_base, w->g.ram + 20 * 4096 + 4000);
	CU_ASSERT_EQUAL(v[0].iov_len, 96);
	CU_ASSERT_PTR_EQUAL(v[1].iov_base, w->g.ram + 12 * 4096);
	CU_ASSERT_EQUAL(v[1].iov_len, 104);
	len = 1000; /* as many as there is room for */
	CU_ASSERT_EQUAL(virtq_iov(&w->c, true, 10, &len, v, 1), 1);
	CU_ASSERT_EQUAL(len, 86);
	w->p2m[8] = 14 * 4096; /* looked up for each batch: the page has moved */
	len = 1;
	CU_ASSERT_EQUAL(virtq_iov(&w->c, true, 0, &len, v, 4), 1);
	CU_ASSERT_PTR_EQUAL(v[0].iov_base, w->g.ram + 14 * 4096 + 4000);
	w->p2m[9] = 1ull << 40; /* no memory, whoever wrote that */
	len = 200;
	CU_ASSERT_EQUAL(virtq_iov(&w->c, true, 0, &len, v, 4), 1);
	CU_ASSERT_EQUAL(len, 96);
	CU_ASSERT_EQUAL(virtq_write(&w->c, 0, w->g.ram, 200), 96);
	w->p2m[9] = 12 * 4096 | SHM_P2M_SHARED; /* a merged page is not for writing */
	CU_ASSERT_EQUAL(virtq_write(&w->c, 96, w->g.ram, 104), 0);
	end(w);
}

/* Rings are looked up for each batch, too. */
static void test_forget(void)
{
	struct world *w = world(0);

	desc(w, 0, BUF, 100, WRITE, 0);
	offer(w, 0);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	virtq_forget(&w->q);
	memcpy(w->g.ram + 30 * 4096, w->g.ram + (USED & ~4095u), 4096);
	w->p2m[USED / 4096] = 30 * 4096;
	virtq_put(&w->q, 0, 7);
	CU_ASSERT_TRUE(virtq_publish(&w->q));
	CU_ASSERT_EQUAL(u16(w, 30 * 4096 + USED % 4096)[1], 1);
	CU_ASSERT_EQUAL(u16(w, USED)[1], 0);
	virtq_forget(&w->q);
	w->p2m[AVAIL / 4096] = 1ull << 40;
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), -EPROTO);
	CU_ASSERT_STRING_EQUAL(w->q.why, "a ring is not in RAM");
	CU_ASSERT_FALSE(virtq_listen(&w->q));
	virtq_put(&w->q, 0, 7);
	CU_ASSERT_FALSE(virtq_publish(&w->q));
	end(w);
}

static void test_indirect(void)
{
	struct world *w = world(1ull << VIRTIO_F_RING_INDIRECT_DESC);
	struct desc t[3] = {{BUF, 10, NEXT, 2}, {BUF, 1, INDIRECT, 0}, {BUF + 64, 20, WRITE, 0}};

	memcpy(w->g.ram + 0x5000, t, sizeof t);
	desc(w, 2, 0x5000, sizeof t, INDIRECT, 0);
	offer(w, 2);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	CU_ASSERT_EQUAL(w->c.out_len, 10);
	CU_ASSERT_EQUAL(w->c.in_len, 20);
	end(w);
}

/* Everything a driver must not do. */
static void test_malformed(void)
{
	static const struct {
		const char *what;
		struct desc d[3]; /* 0 is the head */
		struct desc t[2]; /* indirect table at 0x5000 */
		uint64_t features;
	} bad[] = {
		{"not in RAM", {{PAGES * 4096, 1, 0, 0}}, {}, 0},
		{"runs out of RAM", {{PAGES * 4096 - 4, 5, 0, 0}}, {}, 0},
		{"wraps", {{UINT64_MAX - 3, 16, 0, 0}}, {}, 0},
		{"far", {{1ull << 60, 16, 0, 0}}, {}, 0},
		{"in the hole", {{0xfee00000, 16, 0, 0}}, {}, 0},
		{"empty", {{BUF, 0, 0, 0}}, {}, 0},
		{"loop", {{BUF, 1, NEXT, 1}, {BUF, 1, NEXT, 0}}, {}, 0},
		{"itself", {{BUF, 1, NEXT, 0}}, {}, 0},
		{"next out of range", {{BUF, 1, NEXT, SIZE}}, {}, 0},
		{"readable after writable", {{BUF, 1, WRITE | NEXT, 1}, {BUF, 1, 0, 0}}, {}, 0},
		{"indirect not negotiated", {{0x5000, 16, INDIRECT, 0}}, {{BUF, 1, 0, 0}}, 0},
		{"indirect in indirect", {{0x5000, 32, INDIRECT, 0}}, {{0x5000, 16, INDIRECT, 0}}, 1ull << 28},
		{"indirect and next", {{0x5000, 16, INDIRECT | NEXT, 1}, {BUF, 1, 0, 0}}, {{BUF, 1, 0, 0}}, 1ull << 28},
		{"odd table", {{0x5000, 17, INDIRECT, 0}}, {{BUF, 1, 0, 0}}, 1ull << 28},
		{"no table", {{0x5000, 0, INDIRECT, 0}}, {{BUF, 1, 0, 0}}, 1ull << 28},
		{"huge table", {{0x5000, 0xfffffff0, INDIRECT, 0}}, {}, 1ull << 28},
		{"table not in RAM", {{1ull << 40, 16, INDIRECT, 0}}, {}, 1ull << 28},
		{"next leaves the table", {{0x5000, 16, INDIRECT, 0}}, {{BUF, 1, NEXT, 1}}, 1ull << 28},
		{"loop in the table", {{0x5000, 32, INDIRECT, 0}}, {{BUF, 1, NEXT, 1}, {BUF, 1, NEXT, 0}}, 1ull << 28},
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct world *w = world(bad[i].features);
		memcpy(w->g.ram + DESC, bad[i].d, sizeof bad[i].d);
		memcpy(w->g.ram + 0x5000, bad[i].t, sizeof bad[i].t);
		offer(w, 0);
		int rc = virtq_get(&w->q, &w->c);
		if (rc != -EPROTO || !w->q.why)
			printf("\n%s: %d\n", bad[i].what, rc);
		CU_ASSERT_EQUAL(rc, -EPROTO);
		CU_ASSERT_EQUAL(w->q.inflight, 0);
		end(w);
	}
}

static void test_ring(void)
{
	struct world *w = world(0);

	u16(w, AVAIL)[1] = SIZE + 1; /* more than there can be */
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), -EPROTO);
	u16(w, AVAIL)[1] = 0;
	offer(w, SIZE); /* head out of range */
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), -EPROTO);
	end(w);
	w = world(0);
	desc(w, 0, BUF, 1, 0, 0);
	offer(w, 0);
	offer(w, 0); /* the same again while in flight */
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), -EPROTO);
	virtq_put(&w->q, 0, 0);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	virtq_unget(&w->q, &w->c);
	CU_ASSERT_EQUAL(w->q.inflight, 0);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	end(w);
}

static void test_notify(void)
{
	struct world *w = world(1ull << VIRTIO_F_RING_EVENT_IDX);

	desc(w, 0, BUF, 1, 0, 0);
	desc(w, 1, BUF, 1, 0, 0);
	offer(w, 0);
	offer(w, 1);
	u16(w, AVAIL)[2 + SIZE] = 1; /* used_event: tell me after the second */
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	virtq_put(&w->q, 0, 0);
	CU_ASSERT_FALSE(virtq_publish(&w->q));
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	virtq_put(&w->q, 1, 0);
	CU_ASSERT_TRUE(virtq_publish(&w->q));
	CU_ASSERT_FALSE(virtq_listen(&w->q));
	CU_ASSERT_EQUAL(u16(w, USED)[2 + SIZE * 4], 2); /* avail_event */
	offer(w, 0);
	CU_ASSERT_TRUE(virtq_listen(&w->q));
	end(w);
	w = world(0);
	virtq_quiet(&w->q);
	CU_ASSERT_EQUAL(u16(w, USED)[0], 1);
	CU_ASSERT_FALSE(virtq_listen(&w->q));
	CU_ASSERT_EQUAL(u16(w, USED)[0], 0);
	u16(w, AVAIL)[0] = 1; /* no interrupts */
	desc(w, 0, BUF, 1, 0, 0);
	offer(w, 0);
	CU_ASSERT_EQUAL(virtq_get(&w->q, &w->c), 1);
	virtq_put(&w->q, 0, 0);
	CU_ASSERT_FALSE(virtq_publish(&w->q));
	end(w);
}

/* Random rings: never anything but a chain inside RAM or a refusal. */
static void test_random(void)
{
	struct rng r = {42};

	for (int round = 0; round < 3000; round++) {
		struct world *w = world(rnd(&r) & VIRTQ_FEATURES);
		for (unsigned i = 0; i < SIZE; i++) {
			uint64_t a = rnd(&r) % (PAGES * 4096 + 4096);
			desc(w, i, rnd(&r) % 4 ? a : DESC + a % 256 * 16, (uint32_t)(rnd(&r) % 5000),
			     (uint16_t)(rnd(&r) % 8), (uint16_t)(rnd(&r) % (SIZE + 1)));
		}
		for (unsigned i = 0; i < SIZE; i++)
			offer(w, (uint16_t)(rnd(&r) % (SIZE + 1)));
		while (virtq_get(&w->q, &w->c) == 1) {
			uint64_t sum = 0;
			for (unsigned i = 0; i < w->c.nout + w->c.nin; i++) {
				CU_ASSERT_FATAL(gmem_is_ram(&w->g, w->c.seg[i].gpa, w->c.seg[i].len));
				sum += w->c.seg[i].len;
			}
			CU_ASSERT_EQUAL_FATAL(sum, w->c.out_len + w->c.in_len);
			virtq_put(&w->q, w->c.head, 0);
		}
		end(w);
	}
}

CU_ErrorCode suite_virtq(void)
{
	CU_pSuite s = CU_add_suite("virtq", NULL, NULL);

	if (!s || !CU_add_test(s, "rings in wrong places", test_setup) ||
	    !CU_add_test(s, "a chain and back", test_chain) ||
	    !CU_add_test(s, "pages apart on the host", test_scattered) ||
	    !CU_add_test(s, "rings that move", test_forget) || !CU_add_test(s, "indirect", test_indirect) ||
	    !CU_add_test(s, "malformed chains", test_malformed) || !CU_add_test(s, "malformed rings", test_ring) ||
	    !CU_add_test(s, "notification", test_notify) || !CU_add_test(s, "random rings", test_random))
		return CU_get_error();
	return CUE_SUCCESS;
}
