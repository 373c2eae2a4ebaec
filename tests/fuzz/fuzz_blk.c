/*
 * Fuzz target: a disk's front end, fed by a driver that does anything: requests of every kind, chains of its own making,
 * writes to guest memory and to the configuration space at any time, while the store does what it is asked for at once,
 * later, in pieces, with errors, or not at all.  The first byte says what kind of disk it is, the rest is a list of
 * actions.
 *
 * Properties: steps of a store are in range, of whole blocks, and made of as many bytes as they say (fakestore.c);
 * nothing is answered that was not asked, and nothing twice; a read-only disk is never written, the image under a snapshot
 * neither; a reset is answered once, when nothing is in flight, and no request is lost.
 */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "tests/blk/front.h"
#include "tests/fuzz/fuzz.h"

#define SIZE    (1u << 20)
#define ACTIONS 400

enum action { PUT, PUT_RANGE, CHAIN, RING, COMPLETE, CONFIG, STORE, MEMORY, RESET, RETRY, SWITCH, ACTION_COUNT };
enum kind {
	READONLY = 1,
	SNAPSHOT = 2,
	PAUSE = 4,
	LARGE = 8,
	NO_FLUSH = 16,
	NO_WCE = 32,
	INDIRECT = 64,
	EVENT_IDX = 128
};

struct input {
	const uint8_t *p;
	size_t left;
};

static uint64_t take(struct input *in, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n && in->left; i++, in->left--)
		v |= (uint64_t)*in->p++ << 8 * i;
	return v;
}

/* Near the interesting ends, or anything. */
static uint64_t sector(struct input *in)
{
	uint8_t how = (uint8_t)take(in, 1);

	switch (how & 3) {
	case 0: return how >> 2;
	case 1: return SIZE / 512 - 16 + (how >> 2);
	case 2: return (how >> 2 & 1 ? 1ull << 55 : ~0ull) - (how >> 3);
	default: return take(in, 8);
	}
}

static uint32_t length(struct input *in)
{
	uint8_t how = (uint8_t)take(in, 1);

	if (how & 1)
		return 4096u * (how >> 4) + (how & 2 ? 0 : how >> 2 & 3);
	return how & 2 ? (uint32_t)take(in, 2) % FRONT_ROOM : 512u * (how >> 2);
}

/* ---- actions ---- */

static void put(struct front *f, struct input *in, bool range)
{
	static const uint32_t types[] = {FRONT_IN, FRONT_OUT, FRONT_FLUSH, FRONT_GET_ID, FRONT_DISCARD, FRONT_ZEROES};
	unsigned slot = (unsigned)take(in, 1) % FRONT_SLOTS;
	uint8_t t = (uint8_t)take(in, 1);

	if (range) {
		uint64_t at = sector(in);
		uint32_t r[4] = {(uint32_t)at, (uint32_t)(at >> 32), (uint32_t)take(in, t & 4 ? 4 : 1), t >> 3 & 3};
		memcpy(front_data(f, slot), r, sizeof r);
		front_put(f, slot, t & 1 ? FRONT_DISCARD : FRONT_ZEROES, 0, 16, 0, t >> 4);
		return;
	}
	uint32_t type = t < 250 ? types[t % 6] : (uint32_t)take(in, 4), len = length(in);
	bool reads = type == FRONT_IN || type == FRONT_GET_ID;
	uint64_t at = sector(in);
	front_put(f, slot, type, at, reads ? 0 : len, reads ? len : 0, (uint32_t)take(in, 2));
}

/* A few descriptors of any kind. */
static void chain(struct front *f, struct input *in)
{
	unsigned n = 1 + (unsigned)take(in, 1) % 6, first = (unsigned)take(in, 1);

	for (unsigned i = 0; i < n; i++) {
		uint64_t addr = take(in, 3) << (take(in, 1) % 24 ? 0 : 20);
		uint32_t len = (uint32_t)take(in, 2) << (take(in, 1) % 16 ? 0 : 16);
		front_desc(f, (first + i) % FRONT_QUEUE, addr, len, (uint16_t)(take(in, 1) % 16 ? take(in, 1) & 7 : 1),
			   (uint16_t)take(in, 1));
	}
	front_avail(f, first);
}

/* Keeps what it may not do out of what is checked: only this driver knows what it wrote where. */
static void config(struct front *f, struct input *in)
{
	uint8_t data[MSG_VCONFIG_MAX];
	uint32_t off = (uint32_t)take(in, 1) % 60, len = (uint32_t)take(in, 1) % (60 - off) + 1;

	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)take(in, 1);
	blk_config_write(&f->b.dev, off, data, len);
	FUZZ_CHECK(f->b.dev.offer.config[FRONT_WCE] <= 1);
	FUZZ_CHECK(!f->b.writeback || (f->b.dev.v.features & FRONT_F_FLUSH));
}

static void store(struct front *f, struct input *in)
{
	static const int errors[] = {-EIO, -ENOSPC, -EINTR, -EAGAIN, -EOPNOTSUPP, -EINVAL};
	struct fakestore *s = f->b.top && (take(in, 1) & 1) ? &f->top : &f->base;
	uint8_t how = (uint8_t)take(in, 1);

	s->later = how & 1;
	s->eager = how & 2;
	s->piece = how & 4 ? 1 + take(in, 2) % 9000 : 0;
	if (s->piece)
		f->base.cut = f->top.cut = true;
	s->lacks = how & 8 ? (unsigned)take(in, 1) & ~1u : 0;
	s->lies = (how & 0x30) == 0x30;
	s->s.zeroes = s->s.unmap = s->s.fua = !(how & 0x40);
	if (how & 0x80) {
		uint8_t e = (uint8_t)take(in, 1);
		s->error = errors[(e & 7) % 6];
		s->error_op = (enum blk_op)((e >> 3) % 5);
		s->errors = 1 + (e >> 6);
	}
}

static void memory(struct front *f, struct input *in)
{
	uint32_t at = (uint32_t)take(in, 3) % 0x20000, n = (uint32_t)take(in, 1) % 16;

	while (n--)
		f->ram[at++] = (uint8_t)take(in, 1);
}

static void complete(struct front *f, struct input *in)
{
	struct fakestore *s = f->b.top && f->top.nheld ? &f->top : &f->base;

	if (s->nheld)
		fakestore_complete(s, (unsigned)take(in, 1) % s->nheld);
	blk_settle(&f->b);
}

/* ---- what holds ---- */

/* Every request is free, held by a store, or parked. */
static void count(struct front *f)
{
	unsigned nfree = 0, parked = 0;

	for (struct blk_request *r = f->b.free; r; r = r->next)
		nfree++;
	for (struct blk_request *r = f->b.parked; r; r = r->next)
		parked++;
	FUZZ_CHECK(nfree + f->b.inflight == BLK_QUEUE);
	FUZZ_CHECK(f->b.inflight == parked + f->base.nheld + f->top.nheld);
	const struct virtio_dev *v = &f->b.dev.v;
	unsigned taken = v->queue[0].inflight + v->queue[1].inflight;
	FUZZ_CHECK(f->b.resetting || !v->active || f->b.inflight == taken || v->broken);
	FUZZ_CHECK(v->queue[0].inflight <= FRONT_QUEUE && v->queue[1].inflight <= FRONT_QUEUE);
}

static unsigned frames(struct front *f, uint16_t type)
{
	unsigned n = 0;
	uint16_t t;

	while ((t = front_vcpu(f)))
		n += t == type;
	while (front_monitor(f))
		;
	return n;
}

static void reset(struct front *f, uint64_t features)
{
	bool idle = !(f->base.nheld + f->top.nheld);

	frames(f, 0);
	FUZZ_CHECK(front_reset(f) == idle);
	while (f->base.nheld + f->top.nheld) {
		FUZZ_CHECK(f->b.dev.v.resetting && !frames(f, MSG_VIRTIO_RESET_DONE));
		fakestore_complete(f->top.nheld ? &f->top : &f->base, 0);
	}
	FUZZ_CHECK(!f->b.dev.v.resetting && frames(f, MSG_VIRTIO_RESET_DONE) == 1 && !f->b.inflight);
	blk_settle(&f->b);
	count(f);
	front_activate(f, features);
}

/* ---- an input ---- */

static uint64_t set_up(struct front *f, uint8_t kind)
{
	struct fakestore *const s[] = {&f->base, &f->top};
	uint64_t features = FRONT_F_DISCARD | FRONT_F_WRITE_ZEROES;

	for (int i = 0; i < 2; i++) {
		uint8_t *data = s[i]->data;
		struct blk_store st = s[i]->s;
		st.block = i == 0 && (kind & LARGE) ? 4096 : BLK_SECTOR;
		st.discard = st.zeroes = st.unmap = st.fua = true;
		*s[i] = (struct fakestore){.s = st, .data = data};
	}
	f->b.top = kind & SNAPSHOT ? &f->top.s : NULL;
	f->b.readonly = kind & READONLY;
	f->b.dev.cfg.blk.pause_error = kind & PAUSE;
	f->b.dev.offer.config[FRONT_WCE] = 1;
	memset(f->b.written, 0, SIZE / 512 / 8);
	features |= kind & NO_FLUSH ? 0 : FRONT_F_FLUSH;
	features |= kind & NO_WCE ? 0 : FRONT_F_CONFIG_WCE;
	features |= kind & INDIRECT ? 1ull << 28 : 0;
	features |= kind & EVENT_IDX ? 1ull << 29 : 0;
	front_activate(f, features);
	return features;
}

static void act(struct front *f, struct input *in, uint64_t features)
{
	switch ((enum action)(take(in, 1) % ACTION_COUNT)) {
	case PUT: put(f, in, false); break;
	case PUT_RANGE: put(f, in, true); break;
	case CHAIN: chain(f, in); break;
	case RING: front_ring(f); break;
	case COMPLETE: complete(f, in); break;
	case CONFIG: config(f, in); break;
	case STORE: store(f, in); break;
	case MEMORY: memory(f, in); break;
	case RESET: reset(f, features); break;
	case RETRY:
		blk_retry(&f->b);
		while (front_monitor(f)) /* each may tell it once */
			;
		break;
	case SWITCH: f->ring ^= 1; break;
	case ACTION_COUNT: break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct front_setup setup = {.size = SIZE, .snapshot = true};
	static struct front *f;
	struct input in = {data, len};

	if (!f) {
		log_set_level(LOG_LVL_ERROR);
		f = front_new(&setup);
	}
	uint64_t features = set_up(f, (uint8_t)take(&in, 1));
	for (unsigned i = 0; i < ACTIONS && in.left; i++) {
		act(f, &in, features);
		if (f->b.dev.v.broken)
			reset(f, features);
		count(f);
	}
	front_ring(f);
	FUZZ_CHECK(!f->b.readonly || !(f->base.n[BLK_WRITE] + f->base.n[BLK_DISCARD] + f->base.n[BLK_ZEROES]));
	FUZZ_CHECK(!f->b.top || !(f->base.n[BLK_WRITE] + f->base.n[BLK_DISCARD] + f->base.n[BLK_ZEROES]));
	reset(f, features);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const struct {
		uint8_t len, b[64];
	} seeds[] = {
		/* a write, a read, a flush, rung */
		{17, {0, PUT, 0, 1, 4, 0, 0, 0, PUT, 1, 0, 4, 0, 0, 0, RING, 0}},
		{20, {INDIRECT, PUT, 0, 2, 0, 0, 0, 0, RING, STORE, 0, 1, PUT, 1, 1, 8, 0, 0, 2, RING}},
		/* ranges, at the end of the disk too */
		{18, {NO_FLUSH, PUT_RANGE, 0, 1, 4, 8, PUT_RANGE, 1, 0, 8, 8, PUT_RANGE, 2, 8, 0x41, 2, RING, 0}},
		/* later, out of order, with a reset in between */
		{27, {PAUSE, STORE, 0, 1, PUT,  0,        1, 8,     0,   0, 0, PUT, 1,   0,
		      8,     0,     0, 0, RING, COMPLETE, 1, RESET, PUT, 2, 0, 4,   RING}},
		/* errors, parked and tried again */
		{26,
		 {PAUSE | SNAPSHOT,
		  STORE,
		  0,
		  0x84,
		  0,
		  2,
		  9,
		  PUT,
		  0,
		  1,
		  16,
		  0,
		  0,
		  0,
		  RING,
		  PUT,
		  3,
		  2,
		  0,
		  0,
		  0,
		  0,
		  RING,
		  RETRY,
		  RETRY,
		  RING}},
		/* the cache turned off */
		{20, {0, CONFIG, 32, 0, 0, PUT, 0, 1, 4, 0, 0, 0, RING, PUT_RANGE, 1, 1, 0, 1, RING, 0}},
		/* a snapshot: write, read across */
		{23, {SNAPSHOT | LARGE,
		      PUT,
		      0,
		      1,
		      4,
		      4,
		      0,
		      0,
		      RING,
		      PUT,
		      1,
		      0,
		      16,
		      0,
		      0,
		      0,
		      RING,
		      STORE,
		      1,
		      4,
		      100,
		      2,
		      RING}},
		/* chains of its own */
		{33, {EVENT_IDX, CHAIN, 1, 0, 0, 0x40, 0, 0,    16,     0, 1,    1, 1, 1, 0, 0x50, 0,
		      0,         1,     0, 1, 1, 2,    0, RING, MEMORY, 0, 0x40, 0, 4, 9, 9, RING}},
	};

	if (i >= sizeof seeds / sizeof seeds[0])
		return 0;
	memcpy(buf, seeds[i].b, seeds[i].len);
	return seeds[i].len;
}
