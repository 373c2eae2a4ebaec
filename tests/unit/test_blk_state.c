/* devices/blk: what lasts longer than a request: caches, errors that pause, resets, limits, snapshots (tests/blk/). */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/blk/front.h"
#include "tests/insn/rng.h"

#define MIB       (1u << 20)
#define SECTORS   (MIB / 512)
#define NO_FLUSH  (FRONT_ALL & ~FRONT_F_FLUSH)
#define IN_FLIGHT (-1)

static struct front *plain(void)
{
	static const struct front_setup s = {.size = MIB};

	return front_start(&s);
}

/* ---- durability ---- */

static void test_through(void)
{
	struct front *f = front_new(&(struct front_setup){.size = MIB});
	uint8_t off = 0, on = 1, other[4] = {9, 9, 9, 9};

	front_activate(f, FRONT_ALL);
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
	blk_config_write(&f->b.dev, FRONT_WCE, &on, 1);
	f->base.later = true; /* in flight when the cache is turned off */
	front_put(f, 0, FRONT_OUT, 0, 512, 0, 0);
	front_ring(f);
	blk_config_write(&f->b.dev, FRONT_WCE, &off, 1);
	fakestore_complete(&f->base, 0);
	CU_ASSERT_EQUAL(f->base.nheld, 1);
	fakestore_complete(&f->base, 0);
	blk_settle(&f->b);
	front_look(f);
	CU_ASSERT_TRUE(f->status[0] == FRONT_OK && f->base.n[BLK_FLUSH] == 5 && f->base.fua == 1);
	f->base.later = false;
	blk_config_write(&f->b.dev, FRONT_WCE - 4, other, 4); /* up to it, and from behind it */
	blk_config_write(&f->b.dev, FRONT_WCE + 1, other, 4);
	CU_ASSERT_FALSE(f->b.writeback);
	blk_config_write(&f->b.dev, FRONT_WCE - 3, (uint8_t[]){0, 0, 0, 1, 0}, 5);
	CU_ASSERT_TRUE(f->b.writeback);
	CU_ASSERT_TRUE(front_reset(f));
	blk_config_write(&f->b.dev, FRONT_WCE, &off, 1); /* before the driver is ready */
	front_activate(f, FRONT_ALL);
	CU_ASSERT_FALSE(f->b.writeback);
	CU_ASSERT_TRUE(front_reset(f));
	front_activate(f, NO_FLUSH); /* a driver that knows no flushes, whatever it says */
	blk_config_write(&f->b.dev, FRONT_WCE, &on, 1);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 512, 0), FRONT_OK);
	CU_ASSERT_EQUAL(f->base.fua, 2);
	front_free(f);
}

/* Short writes of a durable write are durable each. */
static void test_through_pieces(void)
{
	static const struct front_setup s = {.size = MIB, .through = true};
	struct front *f = front_start(&s);

	f->base.piece = 512;
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_OUT, 0, 2048, 0), FRONT_OK);
	CU_ASSERT_TRUE(f->base.n[BLK_WRITE] == 4 && f->base.fua == 4);
	fakestore_fail(&f->base, BLK_FLUSH, -EIO, 1);
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 8, 0), FRONT_IOERR);
	front_free(f);
}

/* ---- on-error=pause ---- */

static void test_pause(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = front_start(&s);
	struct msg_dev_event m;

	fakestore_fail(&f->base, BLK_WRITE, -ENOSPC, 3);
	memset(front_data(f, 0), 1, 512);
	memset(front_data(f, 1), 2, 512);
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
	CU_ASSERT_TRUE(front_all(f->base.data + 2048, 512, 1) && front_all(f->base.data + 2560, 512, 2));
	CU_ASSERT_TRUE(!f->b.inflight && !front_monitor(f));
	blk_retry(&f->b); /* nothing there */
	front_free(f);
}

/* The host tells once that what was written is lost: no retry makes that good. */
static void test_pause_flush(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = front_start(&s);

	fakestore_fail(&f->base, BLK_FLUSH, -EIO, 1);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_FLUSH, 0, 0, 0), FRONT_IOERR);
	CU_ASSERT_EQUAL(front_monitor(f), 0);
	CU_ASSERT_TRUE(front_reset(f));
	front_activate(f, NO_FLUSH);
	fakestore_fail(&f->base, BLK_FLUSH, -EIO, 1);
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
	struct front *f = front_start(&s);

	f->base.piece = 1000;
	f->base.later = true;
	for (unsigned i = 0; i < 4096; i++)
		front_data(f, 0)[i] = (uint8_t)(i / 3);
	front_put(f, 0, FRONT_OUT, 0, 4096, 0, 0);
	front_ring(f);
	fakestore_complete(&f->base, 0);
	fakestore_fail(&f->base, BLK_WRITE, -EIO, 1);
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
	struct front *f = front_start(&s);

	CU_ASSERT_TRUE(front_reset(f) && front_vcpu(f) == MSG_VIRTIO_RESET_DONE); /* nothing in flight */
	front_activate(f, FRONT_ALL);
	fakestore_fail(&f->base, BLK_READ, -EIO, 2);
	front_put(f, 0, FRONT_IN, 0, 0, 512, 0);
	front_put(f, 1, FRONT_IN, 0, 0, 512, 0);
	front_ring(f); /* both parked */
	CU_ASSERT_TRUE(f->b.parked && f->b.inflight == 2);
	f->base.later = true;
	for (unsigned i = 2; i < 5; i++) {
		memset(front_data(f, i), 9, 512);
		front_put(f, i, FRONT_IN, 0, 0, 512, 0);
	}
	front_ring(f);
	CU_ASSERT_FALSE(front_reset(f));
	CU_ASSERT_TRUE(!f->b.parked && f->b.inflight == 3 && !front_vcpu(f));
	fakestore_complete(&f->base, 1);
	fakestore_fail(&f->base, BLK_READ, -EIO, 1); /* is not kept: the guest has forgotten it */
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
	front_activate(f, FRONT_ALL);
	for (unsigned i = 0; i < 300; i++) /* no request was lost */
		CU_ASSERT_EQUAL(front_do(f, i % FRONT_SLOTS, FRONT_IN, i, 0, 512), FRONT_OK);
	CU_ASSERT_EQUAL(f->bell.called, 1u);
	front_free(f);
}

/* All that are parked, and nothing else: the answer comes at once, and once. */
static void test_reset_parked(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = front_start(&s);

	fakestore_fail(&f->base, BLK_READ, -EIO, ~0u);
	for (unsigned i = 0; i < FRONT_SLOTS; i++)
		front_put(f, i, FRONT_IN, 0, 0, 512, 0);
	front_ring(f);
	CU_ASSERT_EQUAL(f->b.inflight, FRONT_SLOTS);
	CU_ASSERT_TRUE(front_reset(f));
	CU_ASSERT_TRUE(front_vcpu(f) == MSG_VIRTIO_RESET_DONE && !front_vcpu(f) && !f->b.inflight);
	front_free(f);
}

/* ---- references: a request whose data moves holds one, a parked one does not ---- */

static unsigned held(struct front *f)
{
	const struct shm_slot *s = &f->b.dev.mem.epochs->slot[f->b.dev.v.slot];

	virtio_dev_leave(&f->b.dev.v); /* as the loop does */
	return atomic_load(&s->held[0]) + atomic_load(&s->held[1]);
}

static void test_references(void)
{
	static const struct front_setup s = {.size = MIB, .pause = true};
	struct front *f = front_start(&s);

	f->b.dev.mem.epochs = calloc(1, sizeof *f->b.dev.mem.epochs);
	virtio_dev_leave(&f->b.dev.v); /* it entered without */
	atomic_store(&f->b.dev.mem.epochs->slot[f->b.dev.v.slot].held[0], 0);
	f->base.later = true;
	front_put(f, 0, FRONT_IN, 0, 0, 512, 0);
	front_put(f, 1, FRONT_OUT, 0, 512, 0, 0);
	front_put(f, 2, FRONT_FLUSH, 0, 0, 0, 0);
	front_ring(f);
	CU_ASSERT_EQUAL(held(f), 2);
	fakestore_complete(&f->base, 0);
	CU_ASSERT_EQUAL(held(f), 1);
	fakestore_fail(&f->base, BLK_WRITE, -EIO, 1);
	fakestore_complete(&f->base, 0);
	CU_ASSERT_TRUE(f->b.parked && held(f) == 0);
	blk_retry(&f->b);
	CU_ASSERT_EQUAL(held(f), 1);
	CU_ASSERT_FALSE(front_reset(f)); /* what a reset waits for, too */
	CU_ASSERT_EQUAL(held(f), 1);
	while (f->base.nheld)
		fakestore_complete(&f->base, 0);
	CU_ASSERT_EQUAL(held(f), 0);
	free(f->b.dev.mem.epochs);
	f->b.dev.mem.epochs = NULL;
	front_free(f);
}

/* ---- translated code: the status byte's page too, and before anyone is told ---- */

static void test_code(void)
{
	struct front *f = plain();

	f->code[0] = 1ull << 5 | 1ull << 16; /* status, data */
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
	front_activate(f, FRONT_ALL);
	front_put(f, 0, FRONT_IN, 0, 0, 512, 0);
	front_ring(f);
	CU_ASSERT_EQUAL(f->status[0], IN_FLIGHT);
	limit_set(&f->b.dev.limit[0], &none, device_now()); /* nor does a new limit */
	blk_limits_changed(&f->b);
	front_wait(f, 50);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[0], FRONT_OK);
	l = (struct msg_dev_limits){.bytes = 1024, .bytes_burst = 1024};
	limit_set(&f->b.dev.limit[0], &l, device_now());
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 128, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), FRONT_OK); /* a word to the file system */
	limit_set(&f->b.dev.limit[0], &l, device_now());
	f->base.s.zeroes = false;
	CU_ASSERT_EQUAL(front_range(f, 0, FRONT_ZEROES, 0, 128, 0), FRONT_OK);
	CU_ASSERT_EQUAL(front_do(f, 0, FRONT_IN, 0, 0, 512), IN_FLIGHT); /* that was 64 KiB of writes */
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

	s.f = front_start(&set);
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
	struct front *f = front_start(&set);

	memset(f->base.data, 3, MIB);
	f->top.piece = 700;
	f->top.later = true;
	memset(front_data(f, 0), 4, 2048);
	front_put(f, 0, FRONT_OUT, 0, 2048, 0, 0);
	front_ring(f);
	fakestore_complete(&f->top, 0);
	fakestore_fail(&f->top, BLK_WRITE, -ENOSPC, 1);
	fakestore_complete(&f->top, 0);
	blk_settle(&f->b);
	front_look(f);
	CU_ASSERT_EQUAL(f->status[0], FRONT_IOERR);
	f->top.later = false;
	f->top.piece = 0;
	CU_ASSERT_EQUAL(front_do(f, 1, FRONT_IN, 0, 0, 2048), FRONT_OK);
	CU_ASSERT_TRUE(front_all(front_data(f, 1), 512, 4) && front_all(front_data(f, 1) + 512, 1536, 3));
	front_free(f);
}

/* A read that goes from one store to the other and back, when the first one's answer comes by itself. */
static void test_two_stores(void)
{
	static const struct front_setup set = {.size = MIB, .snapshot = true};
	struct front *f = front_start(&set);

	memset(f->base.data, 3, MIB);
	memset(front_data(f, 0), 4, 512);
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
		CU_ASSERT_TRUE(front_all(front_data(f, 1) + i * 512, 512, i % 2 ? 4 : 3));
	front_free(f);
}

CU_ErrorCode suite_blkstate(void);
CU_ErrorCode suite_blkstate(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} tests[] = {
		{"write-through", test_through},
		{"write-through in pieces", test_through_pieces},
		{"pause and retry", test_pause},
		{"pause and flush", test_pause_flush},
		{"pause half way", test_pause_half_way},
		{"reset with requests in flight and parked", test_reset},
		{"reset with parked requests", test_reset_parked},
		{"references", test_references},
		{"translated code", test_code},
		{"limits", test_limits},
		{"snapshot", test_snapshot},
		{"snapshot and an error", test_snapshot_error},
		{"two stores", test_two_stores},
	};
	CU_pSuite s = CU_add_suite("blkstate", NULL, NULL);

	for (size_t i = 0; s && i < sizeof tests / sizeof tests[0]; i++)
		if (!CU_add_test(s, tests[i].name, tests[i].fn))
			break;
	return CU_get_error();
}
