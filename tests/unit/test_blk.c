/* devices/blk: the front end, with stores in memory that do as the test says (tests/blk/). */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/blk/front.h"
#include "tests/insn/rng.h"

#define MIB       (1u << 20)
#define SECTORS   (MIB / 512)
#define ALL       (FRONT_F_FLUSH | FRONT_F_CONFIG_WCE | FRONT_F_DISCARD | FRONT_F_WRITE_ZEROES)
#define THROUGH   (ALL & ~FRONT_F_FLUSH)
#define UNMAP     1u
#define IN_FLIGHT (-1)

static struct front *start(const struct front_setup *s)
{
	struct front *f = front_new(s);

	front_activate(f, ALL);
	return f;
}

static struct front *plain(void)
{
	static const struct front_setup s = {.size = MIB};

	return start(&s);
}

static void fill(uint8_t *p, size_t n, uint8_t c)
{
	memset(p, c, n);
}

static bool all(const uint8_t *p, size_t n, uint8_t c)
{
	while (n--)
		if (*p++ != c)
			return false;
	return true;
}

/* ---- requests ---- */

static void test_types(void)
{
	struct front *f = plain();

	fill(front_data(f, 0), 4096, 0x5a);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 8, 4096, 0), FRONT_OK);
	CU_ASSERT_TRUE(all(f->base.data + 4096, 4096, 0x5a) && all(f->base.data, 4096, 0));
	front_put(f, 1, FRONT_IN, 7, 0, 1024, 700); /* in two pieces, as is the header */
	front_ring(f);
	CU_ASSERT_EQUAL(f->status[1], FRONT_OK);
	CU_ASSERT_TRUE(all(front_data(f, 1), 512, 0) && all(front_data(f, 1) + 512, 512, 0x5a));
	CU_ASSERT_EQUAL(front_do(f, 2, FRONT_FLUSH, 0, 0, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.n[BLK_FLUSH], 1);
	CU_ASSERT_EQUAL(front_range(f, 3, FRONT_DISCARD, 8, 1, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_range(f, 4, FRONT_ZEROES, 10, 2, UNMAP), FRONT_OK);
	CU_ASSERT_EQUAL(front_range(f, 4, FRONT_ZEROES, 12, 1, 0), FRONT_OK);
	CU_ASSERT_TRUE(f->base.n[BLK_DISCARD] == 1 && f->base.n[BLK_ZEROES] == 2 && f->base.unmap == 1);
	CU_ASSERT_TRUE(all(f->base.data + 8 * 512, 512, 0) && all(f->base.data + 9 * 512, 512, 0x5a));
	CU_ASSERT_TRUE(all(f->base.data + 10 * 512, 3 * 512, 0) && all(f->base.data + 13 * 512, 512, 0x5a));
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

static void test_id(void)
{
	struct front *f = plain();

	fill(front_data(f, 0), 64, 0xaa);
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
	struct front *f = start(&s);

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
	struct front *f = start(&s);

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
	CU_ASSERT_TRUE(f->b.dev.broken && front_vcpu(f) == MSG_VIRTIO_BROKEN);
	CU_ASSERT_TRUE(front_reset(f) && front_vcpu(f) == MSG_VIRTIO_RESET_DONE);
	front_activate(f, ALL);
	front_desc(f, 0, 0x20000, 16, 0, 0); /* no place for a status */
	front_avail(f, 0);
	front_ring(f);
	CU_ASSERT_TRUE(f->b.dev.broken && front_vcpu(f) == MSG_VIRTIO_BROKEN);
	CU_ASSERT_TRUE(front_reset(f) && front_vcpu(f) == MSG_VIRTIO_RESET_DONE);
	front_activate(f, ALL);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_OK);
	CU_ASSERT_TRUE(f->b.dev.n.broken == 2 && !front_vcpu(f));
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
	fill(f->base.data, MIB, 0x77);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 8, 0), FRONT_OK);
	CU_ASSERT_TRUE(all(f->base.data, 4096, 0x77)); /* a hint */
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 1, 500, 0), FRONT_OK);
	CU_ASSERT_TRUE(all(f->base.data + 512, 500 * 512, 0) && f->base.data[0] == 0x77);
	CU_ASSERT_EQUAL(f->base.data[501 * 512], 0x77);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 600, 1, UNMAP), FRONT_OK);
	CU_ASSERT_TRUE(all(f->base.data + 600 * 512, 512, 0) && f->base.data[601 * 512] == 0x77);
	CU_ASSERT_EQUAL(f->base.n[BLK_ZEROES], 2); /* each way is asked once */
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, SECTORS, UNMAP), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.n[BLK_ZEROES], 2);
	CU_ASSERT_TRUE(all(f->base.data, MIB, 0));
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
	struct front *f = start(&s);

	f->base.s.zeroes = false;
	fill(f->base.data, 80 * MIB, 1);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 3, 80 * SECTORS - 4, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.n[BLK_WRITE], 2);
	CU_ASSERT_TRUE(f->base.data[3 * 512 - 1] && f->base.data[80 * MIB - 512]);
	CU_ASSERT_TRUE(all(f->base.data + 3 * 512, (80 * SECTORS - 4) * 512ul, 0));
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
		CU_ASSERT_TRUE(all(f->base.data + 5 * 512, 3 * 512, 0));
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
			fill(front_data(f, i), 512, (uint8_t)(i + round));
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
			CU_ASSERT_TRUE(all(f->base.data + i * 512, 512, (uint8_t)(i + round)));
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

static void fail_next(struct fakestore *s, enum blk_op op, int error, unsigned times)
{
	s->error_op = op;
	s->error = error;
	s->errors = times;
}

static void test_errors(void)
{
	static const int errors[] = {-EIO, -ENOSPC, -EFBIG, -EINVAL, -EPERM};
	struct front *f = plain();

	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		fail_next(&f->base, BLK_WRITE, errors[i], 1);
		CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_IOERR);
		fail_next(&f->base, BLK_READ, errors[i], 1);
		CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_IOERR);
		fail_next(&f->base, BLK_FLUSH, errors[i], 1);
		CU_ASSERT_EQUAL(front_do(f, 0, FRONT_FLUSH, 0, 0, 0), FRONT_IOERR);
		fail_next(&f->base, BLK_DISCARD, errors[i], 1);
		CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 1, 0), FRONT_IOERR);
		fail_next(&f->base, BLK_ZEROES, errors[i], 1);
		CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 1, 0), FRONT_IOERR);
	}
	CU_ASSERT_EQUAL(f->b.n.errors, 25);
	fail_next(&f->base, BLK_WRITE, -EINTR, 3);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	fail_next(&f->base, BLK_READ, -EAGAIN, ~0u); /* not for ever */
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
	fail_next(&f->base, BLK_WRITE, -EIO, 1);
	fakestore_complete(&f->base, 0);
	blk_settle(&f->b);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[0], FRONT_IOERR);
	CU_ASSERT_TRUE(!front_monitor(f) && !f->b.inflight);
	front_free(f);
}

/* ---- durability ---- */

static void test_through(void)
{
	struct front *f = front_new(&(struct front_setup){.size = MIB});
	uint8_t off = 0, on = 1, other[4] = {9, 9, 9, 9};

	front_activate(f, ALL);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.fua, 0);
	blk_config_write(&f->b.dev, FRONT_WCE, &off, 1);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.fua, 1);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_DISCARD, 0, 8, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.n[BLK_FLUSH], 2);
	f->base.s.zeroes = false; /* written, and made durable by one flush at the end */
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 0), FRONT_OK);
	CU_ASSERT_TRUE(f->base.n[BLK_FLUSH] == 3 && f->base.fua == 1);
	f->base.s.fua = false; /* a store without such a thing */
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	CU_ASSERT_TRUE(f->base.n[BLK_FLUSH] == 4 && f->base.fua == 1);
	f->base.s.fua = true;
	blk_config_write(&f->b.dev, FRONT_WCE - 4, other, 4); /* up to it, and from behind it */
	blk_config_write(&f->b.dev, FRONT_WCE + 1, other, 4);
	CU_ASSERT_FALSE(f->b.writeback);
	blk_config_write(&f->b.dev, FRONT_WCE - 3, (uint8_t[]){0, 0, 0, 1, 0}, 5);
	CU_ASSERT_TRUE(f->b.writeback);
	CU_ASSERT_TRUE(front_reset(f));
	blk_config_write(&f->b.dev, FRONT_WCE, &off, 1); /* before the driver is ready */
	front_activate(f, ALL);
	CU_ASSERT_FALSE(f->b.writeback);
	CU_ASSERT_TRUE(front_reset(f));
	front_activate(f, THROUGH); /* a driver that knows no flushes, whatever it says */
	blk_config_write(&f->b.dev, FRONT_WCE, &on, 1);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.fua, 2);
	front_free(f);
}

/* Short writes of a durable write are durable each. */
static void test_through_pieces(void)
{
	static const struct front_setup s = {.size = MIB, .through = true};
	struct front *f = start(&s);

	f->base.piece = 512;
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 2048, 0), FRONT_OK);
	CU_ASSERT_TRUE(f->base.n[BLK_WRITE] == 4 && f->base.fua == 4);
	fail_next(&f->base, BLK_FLUSH, -EIO, 1);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 0), FRONT_IOERR);
	front_free(f);
}

/* ---- on-error=pause ---- */

static void test_pause(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = start(&s);
	struct msg_dev_event m;

	fail_next(&f->base, BLK_WRITE, -ENOSPC, 3);
	fill(front_data(f, 0), 512, 1);
	fill(front_data(f, 1), 512, 2);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 4, 512, 0), IN_FLIGHT);
	CU_ASSERT_EQUAL(front_monitor(f), MSG_DEV_EVENT);
	CU_ASSERT_EQUAL_FATAL(unpack_dev_event(f->f.data, f->f.len, &m), 0);
	CU_ASSERT_EQUAL(m.kind, DEV_EVENT_IO_ERROR);
	CU_ASSERT_PTR_NOT_NULL(strstr(m.text, "write at byte 2048: No space left on device"));
	CU_ASSERT_EQUAL(front_do(f, 1, FRONT_OUT, 5, 512, 0), IN_FLIGHT);
	CU_ASSERT_EQUAL(front_monitor(f), 0); /* it is being paused already */
	CU_ASSERT_EQUAL(front_do(f, 2, FRONT_IN, 4, 0, 512), FRONT_OK);
	blk_retry(&f->b); /* one fails again, */
	CU_ASSERT_EQUAL(front_monitor(f), MSG_DEV_EVENT);
	front_look(f);
	CU_ASSERT_EQUAL((f->status[0] == IN_FLIGHT) + (f->status[1] == IN_FLIGHT), 1);
	blk_retry(&f->b); /* now none */
	front_look(f);
	CU_ASSERT_TRUE(f->status[0] == FRONT_OK && f->status[1] == FRONT_OK);
	CU_ASSERT_TRUE(all(f->base.data + 2048, 512, 1) && all(f->base.data + 2560, 512, 2));
	CU_ASSERT_TRUE(!f->b.inflight && !front_monitor(f));
	blk_retry(&f->b); /* nothing there */
	front_free(f);
}

/* The host tells once that what was written is lost: no retry makes that good. */
static void test_pause_flush(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = start(&s);

	fail_next(&f->base, BLK_FLUSH, -EIO, 1);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_FLUSH, 0, 0, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_monitor(f), 0);
	CU_ASSERT_TRUE(front_reset(f));
	front_activate(f, THROUGH);
	fail_next(&f->base, BLK_FLUSH, -EIO, 1);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 0), IN_FLIGHT);
	CU_ASSERT_EQUAL(front_monitor(f), MSG_DEV_EVENT);
	CU_ASSERT_EQUAL(f->base.n[BLK_ZEROES], 1);
	blk_retry(&f->b); /* from the start */
	front_look(f);
	CU_ASSERT_TRUE(f->status[0] == FRONT_OK && f->base.n[BLK_ZEROES] == 2 && f->base.n[BLK_FLUSH] == 3);
	front_free(f);
}

/* A request of several steps goes on where it failed. */
static void test_pause_half_way(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = start(&s);

	f->base.piece = 1000;
	f->base.later = true;
	for (unsigned i = 0; i < 4096; i++)
		front_data(f, 0)[i] = (uint8_t)(i / 3);
	front_put(f, 0, FRONT_OUT, 0, 4096, 0, 0);
	front_ring(f);
	fakestore_complete(&f->base, 0);
	fail_next(&f->base, BLK_WRITE, -EIO, 1);
	fakestore_complete(&f->base, 0);
	CU_ASSERT_TRUE(front_monitor(f) == MSG_DEV_EVENT && !f->base.nheld);
	f->base.eager = true;
	blk_retry(&f->b);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[0], FRONT_OK);
	CU_ASSERT_EQUAL(memcmp(f->base.data, front_data(f, 0), 4096), 0);
	CU_ASSERT_EQUAL(f->base.n[BLK_WRITE], 6);
	front_free(f);
}

/* ---- reset ---- */

static void test_reset(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = start(&s);

	CU_ASSERT_TRUE(front_reset(f) && front_vcpu(f) == MSG_VIRTIO_RESET_DONE); /* nothing in flight */
	front_activate(f, ALL);
	fail_next(&f->base, BLK_READ, -EIO, 2);
	front_put(f, 0, FRONT_IN, 0, 0, 512, 0);
	front_put(f, 1, FRONT_IN, 0, 0, 512, 0);
	front_ring(f); /* both parked */
	CU_ASSERT_TRUE(f->b.parked && f->b.inflight == 2);
	f->base.later = true;
	for (unsigned i = 2; i < 5; i++) {
		fill(front_data(f, i), 512, 9);
		front_put(f, i, FRONT_IN, 0, 0, 512, 0);
	}
	front_ring(f);
	CU_ASSERT_FALSE(front_reset(f));
	CU_ASSERT_TRUE(!f->b.parked && f->b.inflight == 3 && !front_vcpu(f));
	fakestore_complete(&f->base, 1);
	fail_next(&f->base, BLK_READ, -EIO, 1); /* is not kept: the guest has forgotten it */
	fakestore_complete(&f->base, 0);
	CU_ASSERT_EQUAL(front_vcpu(f), 0);
	fakestore_complete(&f->base, 0);
	CU_ASSERT_EQUAL(front_vcpu(f), MSG_VIRTIO_RESET_DONE);
	blk_settle(&f->b);
	front_look(f);
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(f->status[i], IN_FLIGHT); /* and was told nothing */
	CU_ASSERT_TRUE(!f->b.inflight && !f->b.resetting && !f->b.parked);
	blk_retry(&f->b);
	f->base.later = false;
	front_activate(f, ALL);
	for (unsigned i = 0; i < 300; i++) /* no request was lost */
		CU_ASSERT_EQUAL(front_do(f, i % FRONT_SLOTS, FRONT_IN, i, 0, 512), FRONT_OK);
	CU_ASSERT_EQUAL(f->bell.called, 1u);
	front_free(f);
}

/* All that are parked, and nothing else: the answer comes at once, and once. */
static void test_reset_parked(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = start(&s);

	fail_next(&f->base, BLK_READ, -EIO, ~0u);
	for (unsigned i = 0; i < FRONT_SLOTS; i++)
		front_put(f, i, FRONT_IN, 0, 0, 512, 0);
	front_ring(f);
	CU_ASSERT_EQUAL(f->b.inflight, FRONT_SLOTS);
	CU_ASSERT_TRUE(front_reset(f));
	CU_ASSERT_TRUE(front_vcpu(f) == MSG_VIRTIO_RESET_DONE && !front_vcpu(f) && !f->b.inflight);
	front_free(f);
}

/* ---- translated code: the status byte's page too, and before anyone is told ---- */

static void test_code(void)
{
	struct front *f = plain();

	f->code[0] = ~0ull;
	CU_ASSERT_EQUAL(send(f->vcpu, &(struct ipc_header){IPC_MAGIC, MSG_VIRTIO_INVALIDATED, 0, 0}, 12, 0), 12);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	CU_ASSERT_TRUE(f->asked == 1 && f->used_then == 0);
	struct msg_virtio_invalidate *m = malloc(sizeof *m);
	CU_ASSERT_EQUAL(front_vcpu(f), MSG_VIRTIO_INVALIDATE);
	CU_ASSERT_EQUAL(unpack_virtio_invalidate(f->f.data, f->f.len, m), 0);
	CU_ASSERT_TRUE(m->nranges == 1 && m->range[0].gpa == 0x5000 && m->range[0].len == 1);
	CU_ASSERT_EQUAL(send(f->vcpu, &(struct ipc_header){IPC_MAGIC, MSG_VIRTIO_INVALIDATED, 0, 0}, 12, 0), 12);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 1024), FRONT_OK);
	CU_ASSERT_TRUE(f->asked == 2 && f->used_then == 1);
	CU_ASSERT_EQUAL(front_vcpu(f), MSG_VIRTIO_INVALIDATE);
	CU_ASSERT_EQUAL(unpack_virtio_invalidate(f->f.data, f->f.len, m), 0);
	CU_ASSERT_TRUE(m->nranges == 2 && m->range[0].gpa == 0x10000 && m->range[0].len == 1024);
	free(m);
	front_free(f);
}

/* ---- limits ---- */

static void test_limits(void)
{
	struct front *f = plain();
	struct msg_dev_limits l = {.ops = 100, .ops_burst = 5}, none = {0};

	limit_set(&f->b.dev.limit[0], &l, device_now());
	for (unsigned i = 0; i < 8; i++)
		front_put(f, i, FRONT_IN, 0, 0, 512, 0);
	front_ring(f);
	unsigned done = 0;
	for (unsigned i = 0; i < 8; i++)
		done += f->status[i] == FRONT_OK;
	CU_ASSERT_TRUE(done >= 5 && done < 8);
	CU_ASSERT_TRUE(f->b.limited && f->b.dev.limit[0].throttled);
	front_wait(f, 200);
	front_look(f);
	for (unsigned i = 0; i < 8; i++)
		CU_ASSERT_EQUAL(f->status[i], FRONT_OK);
	l = (struct msg_dev_limits){.bytes = 1024, .bytes_burst = 1024};
	limit_set(&f->b.dev.limit[0], &l, device_now());
	for (unsigned i = 0; i < 3; i++)
		front_put(f, i, FRONT_IN, 0, 0, 16384, 0);
	front_ring(f);
	CU_ASSERT_TRUE(f->status[0] == FRONT_OK && f->status[1] == IN_FLIGHT); /* the next in 15 s */
	CU_ASSERT_TRUE(front_reset(f));                                        /* does not wait for that */
	front_activate(f, ALL);
	front_put(f, 0, FRONT_IN, 0, 0, 512, 0);
	front_ring(f);
	CU_ASSERT_EQUAL(f->status[0], IN_FLIGHT);
	limit_set(&f->b.dev.limit[0], &none, device_now()); /* nor does a new limit */
	blk_limits_changed(&f->b);
	front_wait(f, 50);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[0], FRONT_OK);
	front_free(f);
}

/* ---- snapshots ---- */

struct shadow {
	struct front *f;
	struct rng r;
	uint8_t disk[MIB];
};

static void shadow_write(struct shadow *s, unsigned at, unsigned n)
{
	uint8_t *p = front_data(s->f, 0);

	for (unsigned i = 0; i < n * 512; i++)
		p[i] = (uint8_t)rnd(&s->r);
	CU_ASSERT_EQUAL(front_do(s->f, 0, FRONT_OUT, at, n * 512, 0), FRONT_OK);
	memcpy(s->disk + at * 512, p, n * 512);
}

static void shadow_op(struct shadow *s)
{
	unsigned at = below(&s->r, SECTORS), most = SECTORS - at < 100 ? SECTORS - at : 100, n = 1 + below(&s->r, most);

	s->f->top.piece = one_in(&s->r, 3) ? 1 + below(&s->r, 3000) : 0;
	s->f->base.piece = one_in(&s->r, 3) ? 1 + below(&s->r, 3000) : 0;
	s->f->top.s.zeroes = s->f->top.s.unmap = one_in(&s->r, 2);
	switch (below(&s->r, 6)) {
	case 0: shadow_write(s, at, n); break;
	case 1:
		CU_ASSERT_EQUAL(front_range(s->f, 0, FRONT_ZEROES, at, n, below(&s->r, 2)), FRONT_OK);
		memset(s->disk + at * 512, 0, n * 512);
		break;
	case 2:
		s->f->top.lacks = one_in(&s->r, 2) ? 1u << BLK_DISCARD : 0;
		CU_ASSERT_EQUAL(front_range(s->f, 0, FRONT_DISCARD, at, n, 0), FRONT_OK);
		if (!s->f->top.lacks)
			memset(s->disk + at * 512, 0, n * 512);
		break;
	default:
		front_put(s->f, 1, FRONT_IN, at, 0, n * 512, below(&s->r, n * 512));
		front_ring(s->f);
		CU_ASSERT_EQUAL(s->f->status[1], FRONT_OK);
		CU_ASSERT_EQUAL(memcmp(front_data(s->f, 1), s->disk + at * 512, n * 512), 0);
	}
}

static void test_snapshot(void)
{
	static const struct front_setup set = {.size = MIB, .snapshot = true, .through = true};
	static struct shadow s;
	uint8_t *before = malloc(MIB);

	s.f = start(&set);
	s.r.s = 11;
	s.f->base.s.discard = false; /* the image's abilities do not count */
	for (unsigned i = 0; i < MIB; i++)
		s.f->base.data[i] = (uint8_t)rnd(&s.r);
	memcpy(before, s.f->base.data, MIB);
	memcpy(s.disk, s.f->base.data, MIB);
	for (unsigned i = 0; i < 3000; i++)
		shadow_op(&s);
	CU_ASSERT_EQUAL(memcmp(before, s.f->base.data, MIB), 0);
	CU_ASSERT_TRUE(!s.f->base.n[BLK_WRITE] && !s.f->base.n[BLK_DISCARD] && !s.f->base.n[BLK_ZEROES]);
	CU_ASSERT_EQUAL(front_do(s.f, 0, FRONT_FLUSH, 0, 0, 0), FRONT_OK);
	CU_ASSERT_TRUE(!s.f->base.n[BLK_FLUSH] && !s.f->top.n[BLK_FLUSH] && !s.f->top.fua);
	front_free(s.f);
	free(before);
}

/* A sector that the overlay has in part only, because the rest of it failed, is still the image's. */
static void test_snapshot_error(void)
{
	static const struct front_setup set = {.size = MIB, .snapshot = true};
	struct front *f = start(&set);

	fill(f->base.data, MIB, 3);
	f->top.piece = 700;
	f->top.later = true;
	fill(front_data(f, 0), 2048, 4);
	front_put(f, 0, FRONT_OUT, 0, 2048, 0, 0);
	front_ring(f);
	fakestore_complete(&f->top, 0);
	fail_next(&f->top, BLK_WRITE, -ENOSPC, 1);
	fakestore_complete(&f->top, 0);
	blk_settle(&f->b);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[0], FRONT_IOERR);
	f->top.later = false;
	f->top.piece = 0;
	CU_ASSERT_EQUAL(front_do(f, 1, FRONT_IN, 0, 0, 2048), FRONT_OK);
	CU_ASSERT_TRUE(all(front_data(f, 1), 512, 4) && all(front_data(f, 1) + 512, 1536, 3));
	front_free(f);
}

/* A read that goes from one store to the other and back, when the first one's answer comes by itself. */
static void test_two_stores(void)
{
	static const struct front_setup set = {.size = MIB, .snapshot = true};
	struct front *f = start(&set);

	fill(f->base.data, MIB, 3);
	fill(front_data(f, 0), 512, 4);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 1, 512, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 3, 512, 0), FRONT_OK);
	f->base.later = f->top.later = f->top.eager = true;
	front_put(f, 1, FRONT_IN, 0, 0, 5 * 512, 0);
	front_ring(f);
	CU_ASSERT_TRUE(f->base.nheld == 1 && !f->top.nheld);
	fakestore_complete(&f->base, 0);
	CU_ASSERT_EQUAL(f->top.nheld, 1);
	f->base.eager = true;
	blk_settle(&f->b);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[1], FRONT_OK);
	for (unsigned i = 0; i < 5; i++)
		CU_ASSERT_TRUE(all(front_data(f, 1) + i * 512, 512, i % 2 ? 4 : 3));
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
		{"write-through", test_through},
		{"write-through in pieces", test_through_pieces},
		{"pause and retry", test_pause},
		{"pause and flush", test_pause_flush},
		{"pause half way", test_pause_half_way},
		{"reset with requests in flight and parked", test_reset},
		{"reset with parked requests", test_reset_parked},
		{"translated code", test_code},
		{"limits", test_limits},
		{"snapshot", test_snapshot},
		{"snapshot and an error", test_snapshot_error},
		{"two stores", test_two_stores},
	};
	CU_pSuite s = CU_add_suite("blk", NULL, NULL);

	for (size_t i = 0; s && i < sizeof tests / sizeof tests[0]; i++)
		if (!CU_add_test(s, tests[i].name, tests[i].fn))
			break;
	return CU_get_error();
}
