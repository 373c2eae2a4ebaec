/* devices/blk: what each request does, with stores in memory that do as the test says (tests/blk/). */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>

#include "tests/blk/front.h"
#include "tests/insn/rng.h"

#define MIB       (1u << 20)
#define SECTORS   (MIB / 512)
#define UNMAP     1u
#define IN_FLIGHT (-1)

static struct front *plain(void)
{
	static const struct front_setup s = {.size = MIB};

	return front_start(&s);
}

/* ---- requests ---- */

static void test_types(void)
{
	struct front *f = plain();

	memset(front_data(f, 0), 0x5a, 4096);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 8, 4096, 0), FRONT_OK);
	CU_ASSERT_TRUE(front_all(f->base.data + 4096, 4096, 0x5a) && front_all(f->base.data, 4096, 0));
	front_put(f, 1, FRONT_IN, 7, 0, 1024, 700); /* in two pieces, as is the header */
	front_ring(f);
	CU_ASSERT_EQUAL(f->status[1], FRONT_OK);
	CU_ASSERT_TRUE(front_all(front_data(f, 1), 512, 0) && front_all(front_data(f, 1) + 512, 512, 0x5a));
	CU_ASSERT_EQUAL(front_do(f, 2, FRONT_FLUSH, 0, 0, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.n[BLK_FLUSH], 1);
	CU_ASSERT_EQUAL(front_range(f, 3, FRONT_DISCARD, 8, 1, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_range(f, 4, FRONT_ZEROES, 10, 2, UNMAP), FRONT_OK);
	CU_ASSERT_EQUAL(front_range(f, 4, FRONT_ZEROES, 12, 1, 0), FRONT_OK);
	CU_ASSERT_TRUE(f->base.n[BLK_DISCARD] == 1 && f->base.n[BLK_ZEROES] == 2 && f->base.unmap == 1);
	CU_ASSERT_TRUE(front_all(f->base.data + 8 * 512, 512, 0) && front_all(f->base.data + 9 * 512, 512, 0x5a));
	CU_ASSERT_TRUE(front_all(f->base.data + 10 * 512, 3 * 512, 0) && front_all(f->base.data + 13 * 512, 512, 0x5a));
	for (uint32_t t = 0; t < 20; t++)
		if (t != FRONT_IN && t != FRONT_OUT && t != FRONT_FLUSH && t != FRONT_GET_ID && t != FRONT_DISCARD &&
		    t != FRONT_ZEROES)
			CU_ASSERT_EQUAL(front_do(f, 5, t, 0, 0, 512), FRONT_UNSUPP);
	CU_ASSERT_EQUAL(front_do(f, 5, ~0u, 0, 0, 512), FRONT_UNSUPP);
	CU_ASSERT_TRUE(f->b.n.reads == 1 && f->b.n.writes == 1 && f->b.n.flushes == 1 && f->b.n.discards == 1 &&
		       f->b.n.zeroes == 2 && f->b.n.read_bytes == 1024 && f->b.n.written_bytes == 4096 &&
		       f->b.n.refused == 15 && f->b.inflight == 0 && f->base.fua == 0);
	front_free(f);
}

/* Two rings share the requests: who finds none free has one as soon as another is done, whichever ring that was of. */
static void test_queues(void)
{
	struct front *f = plain();
	struct blk_request *rest = f->b.free->next->next->next; /* three are left */

	CU_ASSERT_EQUAL(f->b.dev.offer.nqueues, FRONT_RINGS);
	CU_ASSERT_TRUE(f->b.dev.offer.features >> 12 & 1);
	CU_ASSERT_EQUAL(f->b.dev.offer.config[34], FRONT_RINGS); /* num_queues, virtio 1.2 5.2.4 */
	f->b.free->next->next->next = NULL;
	f->base.later = true;
	for (unsigned i = 0; i < 8; i++) {
		f->ring = i & 1;
		front_put(f, i, FRONT_IN, i, 0, 512, 0);
		front_ring(f);
	}
	CU_ASSERT_TRUE(f->base.nheld == 3 && f->b.inflight == 3 && !f->b.free);
	CU_ASSERT_EQUAL(f->b.starved, 3u);
	for (unsigned done = 1; done <= 8; done++) {
		fakestore_complete(&f->base, 0);
		blk_settle(&f->b);
		front_look(f);
		CU_ASSERT_EQUAL(f->base.nheld, done <= 5 ? 3 : 8 - done);
	}
	for (unsigned i = 0; i < 8; i++)
		CU_ASSERT_EQUAL(f->status[i], FRONT_OK);
	CU_ASSERT_TRUE(f->avail[0] == 4 && f->seen[0] == 4 && f->avail[1] == 4 && f->seen[1] == 4);
	CU_ASSERT_EQUAL(f->b.inflight, 0);
	f->b.free->next->next->next = rest;
	front_free(f);
}

static void test_id(void)
{
	struct front *f = plain();

	memset(front_data(f, 0), 0xaa, 64);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_GET_ID, 0, 0, 20), FRONT_OK);
	CU_ASSERT_EQUAL(memcmp(front_data(f, 0), "twenty-characters-20", 20), 0);
	CU_ASSERT_EQUAL(front_data(f, 0)[20], 0xaa);
	CU_ASSERT_EQUAL(front_do(f, 1, FRONT_GET_ID, 0, 0, 7), FRONT_OK);
	CU_ASSERT_TRUE(!memcmp(front_data(f, 1), "twenty-", 7) && !front_data(f, 1)[7]);
	memcpy(f->b.dev.cfg.blk.serial, (char[MSG_SERIAL_MAX]){"a"}, MSG_SERIAL_MAX);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_GET_ID, 0, 0, 30), FRONT_OK);
	CU_ASSERT_TRUE(!memcmp(front_data(f, 0), "a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xaa", 21));
	CU_ASSERT_EQUAL(front_do(f, 2, FRONT_GET_ID, 0, 0, 0), FRONT_OK);
	front_free(f);
}

static void test_ranges(void)
{
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t len; /* bytes, or sectors of a range */
		int status;
	} cases[] = {
		{FRONT_IN, SECTORS - 1, 512, FRONT_OK},
		{FRONT_IN, SECTORS - 1, 1024, FRONT_IOERR},
		{FRONT_IN, SECTORS, 512, FRONT_IOERR},
		{FRONT_IN, SECTORS, 0, FRONT_OK},
		{FRONT_IN, SECTORS + 1, 0, FRONT_IOERR},
		{FRONT_IN, 1ull << 55, 512, FRONT_IOERR}, /* times 512 it is 0 */
		{FRONT_IN, (1ull << 55) + 1, 512, FRONT_IOERR},
		{FRONT_IN, ~0ull, 512, FRONT_IOERR},
		{FRONT_IN, 0, 511, FRONT_IOERR},
		{FRONT_IN, 0, 513, FRONT_IOERR},
		{FRONT_OUT, SECTORS - 1, 512, FRONT_OK},
		{FRONT_OUT, SECTORS - 1, 1024, FRONT_IOERR},
		{FRONT_OUT, ~0ull, 512, FRONT_IOERR},
		{FRONT_OUT, 0, 1, FRONT_IOERR},
		{FRONT_OUT, 0, 0, FRONT_OK},
		{FRONT_DISCARD, 0, SECTORS, FRONT_OK},
		{FRONT_DISCARD, 1, SECTORS, FRONT_IOERR},
		{FRONT_DISCARD, ~0ull, 1, FRONT_IOERR},
		{FRONT_DISCARD, 0, 0, FRONT_OK},
		{FRONT_ZEROES, SECTORS - 1, 1, FRONT_OK},
		{FRONT_ZEROES, SECTORS - 1, 2, FRONT_IOERR},
		{FRONT_ZEROES, 2, ~0u, FRONT_IOERR},
		{FRONT_ZEROES, 1ull << 55, 1, FRONT_IOERR},
	};
	struct front *f = plain();

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		bool range = cases[i].type == FRONT_DISCARD || cases[i].type == FRONT_ZEROES;
		uint32_t n = cases[i].len, in = cases[i].type == FRONT_IN ? n : 0;
		int st = range ? front_range(f, 0, cases[i].type, cases[i].sector, n, 0)
			       : front_do(f, 0, cases[i].type, cases[i].sector, n - in, in);
		CU_ASSERT_EQUAL(st, cases[i].status);
	}
	front_free(f);
}

/* Blocks of 4096 bytes: what is not made of them is refused. */
static void test_blocks(void)
{
	static const struct front_setup s = {.size = MIB, .block = 4096};
	struct front *f = front_start(&s);

	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 8, 0, 4096), FRONT_OK);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 8, 0, 512), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 1, 0, 4096), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 7, 4096, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 8, 8, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 8, 7, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 9, 8, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(f->b.dev.offer.config[25], 0); /* physical_block_exp */
	front_free(f);
}

static void test_readonly(void)
{
	static const struct front_setup s = {.size = MIB, .readonly = true};
	struct front *f = front_start(&s);

	CU_ASSERT_TRUE(f->b.dev.offer.features & FRONT_F_RO);
	CU_ASSERT_FALSE(f->b.dev.offer.features & (FRONT_F_DISCARD | FRONT_F_WRITE_ZEROES));
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_OK);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_FLUSH, 0, 0, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 8, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 0), FRONT_IOERR);
	CU_ASSERT_TRUE(!f->base.n[BLK_WRITE] && !f->base.n[BLK_DISCARD] && !f->base.n[BLK_ZEROES]);
	front_free(f);
}

/* virtio 1.2 5.2.6.2: flags that are not known, and more than the one range that was offered. */
static void test_flags(void)
{
	struct front *f = plain();

	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 8, UNMAP), FRONT_UNSUPP);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 8, 2), FRONT_UNSUPP);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 2), FRONT_UNSUPP);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 0x80000001), FRONT_UNSUPP);
	memset(front_data(f, 1), 0, 64);
	CU_ASSERT_EQUAL(front_do(f, 1, FRONT_DISCARD, 0, 32, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_do(f, 1, FRONT_ZEROES, 0, 15, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_do(f, 1, FRONT_ZEROES, 0, 0, 0), FRONT_IOERR);
	f->base.s.discard = false;
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 8, 0), FRONT_UNSUPP);
	CU_ASSERT_EQUAL(f->base.n[BLK_DISCARD] + f->base.n[BLK_ZEROES], 0);
	front_free(f);
}

static void test_malformed(void)
{
	struct front *f = plain();

	front_desc(f, 0, 0x20000, 8, 1, 1); /* half a header */
	front_desc(f, 1, 0x20100, 1, 2, 0);
	front_avail(f, 0);
	front_ring(f);
	CU_ASSERT_TRUE(f->b.dev.v.broken && front_vcpu(f) == MSG_VIRTIO_BROKEN);
	CU_ASSERT_TRUE(front_reset(f) && front_vcpu(f) == MSG_VIRTIO_RESET_DONE);
	front_activate(f, FRONT_ALL);
	front_desc(f, 0, 0x20000, 16, 0, 0); /* no place for a status */
	front_avail(f, 0);
	front_ring(f);
	CU_ASSERT_TRUE(f->b.dev.v.broken && front_vcpu(f) == MSG_VIRTIO_BROKEN);
	CU_ASSERT_TRUE(front_reset(f) && front_vcpu(f) == MSG_VIRTIO_RESET_DONE);
	front_activate(f, FRONT_ALL);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_OK);
	CU_ASSERT_TRUE(f->b.dev.v.n.broken == 2 && !front_vcpu(f));
	front_free(f);
}

static void test_offer(void)
{
	static const struct front_setup s = {.size = 3 * 512, .through = true};
	struct front *f = front_new(&s);
	const uint8_t *c = f->b.dev.offer.config;

	CU_ASSERT_EQUAL(f->b.dev.offer.device_id, 2);
	CU_ASSERT_TRUE(f->b.dev.offer.features & FRONT_F_FLUSH);
	CU_ASSERT_EQUAL(c[0], 3);  /* capacity */
	CU_ASSERT_EQUAL(c[21], 2); /* blk_size: 512 */
	CU_ASSERT_EQUAL(c[24], 3); /* physical blocks of 4096 */
	CU_ASSERT_EQUAL(c[FRONT_WCE], 0);
	CU_ASSERT_TRUE(c[40] == 1 && c[52] == 1); /* ranges of a request */
	front_free(f);
}

/* ---- what stores do ---- */

static void test_lacking(void)
{
	struct front *f = plain();

	f->base.lacks = 1u << BLK_DISCARD | 1u << BLK_ZEROES;
	memset(f->base.data, 0x77, MIB);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 8, 0), FRONT_OK);
	CU_ASSERT_TRUE(front_all(f->base.data, 4096, 0x77)); /* a hint */
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 1, 500, 0), FRONT_OK);
	CU_ASSERT_TRUE(front_all(f->base.data + 512, 500 * 512, 0) && f->base.data[0] == 0x77);
	CU_ASSERT_EQUAL(f->base.data[501 * 512], 0x77);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 600, 1, UNMAP), FRONT_OK);
	CU_ASSERT_TRUE(front_all(f->base.data + 600 * 512, 512, 0) && f->base.data[601 * 512] == 0x77);
	CU_ASSERT_EQUAL(f->base.n[BLK_ZEROES], 2); /* each way is asked once */
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, SECTORS, UNMAP), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.n[BLK_ZEROES], 2);
	CU_ASSERT_TRUE(front_all(f->base.data, MIB, 0));
	CU_ASSERT_EQUAL(f->b.n.written_bytes, 0);
	f->base.lacks = 1u << BLK_WRITE;
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_IOERR);
	f->base.lacks = 1u << BLK_FLUSH;
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_FLUSH, 0, 0, 0), FRONT_IOERR);
	front_free(f);
}

/* More zeroes than one step of writes can hold. */
static void test_many_zeroes(void)
{
	static const struct front_setup s = {.size = 80 * MIB};
	struct front *f = front_start(&s);

	f->base.s.zeroes = false;
	memset(f->base.data, 1, 80 * MIB);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 3, 80 * SECTORS - 4, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.n[BLK_WRITE], 2);
	CU_ASSERT_TRUE(f->base.data[3 * 512 - 1] && f->base.data[80 * MIB - 512]);
	CU_ASSERT_TRUE(front_all(f->base.data + 3 * 512, (80 * SECTORS - 4) * 512ul, 0));
	front_free(f);
}

static void test_pieces(void)
{
	static const uint64_t pieces[] = {1, 100, 511, 512, 700, 4096};
	struct front *f = plain();

	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
		f->base.piece = pieces[i];
		for (unsigned k = 0; k < 4096; k++)
			front_data(f, 0)[k] = (uint8_t)(k * 7 + i);
		front_put(f, 0, FRONT_OUT, 5, 4096, 0, 1000);
		front_put(f, 1, FRONT_IN, 5, 0, 4096, 13);
		front_ring(f);
		CU_ASSERT_TRUE(!f->status[0] && !f->status[1]);
		CU_ASSERT_EQUAL(memcmp(front_data(f, 1), front_data(f, 0), 4096), 0);
		CU_ASSERT_EQUAL(front_range(f, 2, FRONT_ZEROES, 5, 3, 0), FRONT_OK);
		CU_ASSERT_TRUE(front_all(f->base.data + 5 * 512, 3 * 512, 0));
	}
	front_free(f);
}

static void test_out_of_order(void)
{
	struct front *f = plain();
	struct rng r = {7};

	f->base.later = true;
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < FRONT_SLOTS; i++) {
			memset(front_data(f, i), (uint8_t)(i + round), 512);
			front_put(f, i, FRONT_OUT, i, 512, 0, 0);
		}
		front_ring(f);
		CU_ASSERT_EQUAL(f->base.nheld, FRONT_SLOTS);
		CU_ASSERT_EQUAL(f->b.inflight, FRONT_SLOTS);
		for (unsigned left = FRONT_SLOTS; left; left--) {
			unsigned k = below(&r, left);
			struct blk_io *io = f->base.held[k];
			unsigned slot = (unsigned)(io->at / 512);
			fakestore_complete(&f->base, k);
			front_look(f);
			CU_ASSERT_EQUAL(f->status[slot], IN_FLIGHT); /* told by blk_settle() */
			blk_settle(&f->b);
			front_look(f);
			CU_ASSERT_EQUAL(f->status[slot], FRONT_OK);
		}
		for (unsigned i = 0; i < FRONT_SLOTS; i++)
			CU_ASSERT_TRUE(front_all(f->base.data + i * 512, 512, (uint8_t)(i + round)));
	}
	CU_ASSERT_EQUAL(f->b.n.depth, FRONT_SLOTS);
	/* steps of a request that go on from within kick() */
	f->base.eager = true;
	f->base.piece = 300;
	for (unsigned i = 0; i < FRONT_SLOTS; i++)
		front_put(f, i, i % 2 ? FRONT_IN : FRONT_OUT, i * 20, i % 2 ? 0 : 4096, 4096, 0);
	front_ring(f);
	for (unsigned i = 0; i < FRONT_SLOTS; i++)
		CU_ASSERT_EQUAL(f->status[i], FRONT_OK);
	front_free(f);
}

static void test_errors(void)
{
	static const int errors[] = {-EIO, -ENOSPC, -EFBIG, -EINVAL, -EPERM};
	struct front *f = plain();

	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		fakestore_fail(&f->base, BLK_WRITE, errors[i], 1);
		CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_IOERR);
		fakestore_fail(&f->base, BLK_READ, errors[i], 1);
		CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_IOERR);
		fakestore_fail(&f->base, BLK_FLUSH, errors[i], 1);
		CU_ASSERT_EQUAL(front_do(f, 0, FRONT_FLUSH, 0, 0, 0), FRONT_IOERR);
		fakestore_fail(&f->base, BLK_DISCARD, errors[i], 1);
		CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 1, 0), FRONT_IOERR);
		fakestore_fail(&f->base, BLK_ZEROES, errors[i], 1);
		CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 1, 0), FRONT_IOERR);
	}
	CU_ASSERT_EQUAL(f->b.n.errors, 25);
	fakestore_fail(&f->base, BLK_WRITE, -EINTR, 3);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	fakestore_fail(&f->base, BLK_READ, -EAGAIN, ~0u); /* not for ever */
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_IOERR);
	f->base.errors = 0;
	f->base.lies = true; /* the image was cut short */
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_IOERR);
	f->base.lies = false;
	f->base.piece = 600; /* an error half way */
	f->base.later = true;
	front_put(f, 0, FRONT_OUT, 0, 2048, 0, 0);
	front_ring(f);
	fakestore_complete(&f->base, 0);
	fakestore_fail(&f->base, BLK_WRITE, -EIO, 1);
	fakestore_complete(&f->base, 0);
	blk_settle(&f->b);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[0], FRONT_IOERR);
	CU_ASSERT_TRUE(!front_monitor(f) && !f->b.inflight);
	front_free(f);
}

CU_ErrorCode suite_blk(void);
CU_ErrorCode suite_blk(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} tests[] = {
		{"request types", test_types},
		{"several queues", test_queues},
		{"get-id", test_id},
		{"ranges", test_ranges},
		{"blocks", test_blocks},
		{"read-only", test_readonly},
		{"flags of ranges", test_flags},
		{"malformed requests", test_malformed},
		{"what is offered", test_offer},
		{"stores that lack something", test_lacking},
		{"many zeroes", test_many_zeroes},
		{"short results", test_pieces},
		{"later and out of order", test_out_of_order},
		{"errors", test_errors},
	};
	CU_pSuite s = CU_add_suite("blk", NULL, NULL);

	for (size_t i = 0; s && i < sizeof tests / sizeof tests[0]; i++)
		if (!CU_add_test(s, tests[i].name, tests[i].fn))
			break;
	return CU_get_error();
}
