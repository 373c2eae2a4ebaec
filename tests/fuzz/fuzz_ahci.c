/*
 * Fuzz target: a port of AHCI, fed by a driver that does anything: command headers, FISes, tables and packets of any bytes, lists
 * anywhere, writes to guest memory at any time, while the store does what it is asked for at once, later, in pieces, with
 * errors, or not at all.  The first byte says what kind of device it is, the rest is a list of actions.
 *
 * Properties: steps of a store are in range, of whole blocks, and made of as many bytes as they say (fakestore.c); no slot is
 * done that was not rung for since the port was started, and none twice; one command at a time; a CD and the image under a
 * snapshot are never written; a reset is answered once, when nothing is in flight.
 */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "tests/blk/port.h"
#include "tests/fuzz/fuzz.h"

#define SIZE    (1u << 20)
#define ACTIONS 400

enum action { COMMAND, PACKET, RAW, RING, COMPLETE, STORE, MEMORY, RESET, RETRY, PLACE, ACTION_COUNT };
enum kind { CD = 1, SNAPSHOT = 2, PAUSE = 4, LARGE = 8, THROUGH = 16 };

struct input {
	const uint8_t *p;
	size_t left;
};

struct run {
	struct port *p;
	struct input in;
	uint32_t rung; /* and not done */
};

static uint64_t take(struct input *in, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n && in->left; i++, in->left--)
		v |= (uint64_t)*in->p++ << 8 * i;
	return v;
}

/* RAM, its end, or anything. */
static uint64_t address(struct input *in)
{
	uint8_t how = (uint8_t)take(in, 1);

	switch (how & 7) {
	case 0: return take(in, 8);
	case 1: return FRONT_RAM - (how >> 3) * 64u;
	case 2: return PORT_TABLE + 4096u * (how >> 3);
	default: return PORT_DATA + (uint64_t)take(in, 2) * (how & 8 ? 1 : 16);
	}
}

static uint32_t length(struct input *in)
{
	uint8_t how = (uint8_t)take(in, 1);

	switch (how & 3) {
	case 0: return 512u * ((how >> 2) + 1u);
	case 1: return (how >> 2) + 1u;
	case 2: return 2048u * ((how >> 2) + 1u);
	default: return (uint32_t)take(in, 3);
	}
}

static uint64_t block(struct input *in, uint64_t n)
{
	uint8_t how = (uint8_t)take(in, 1);

	switch (how & 3) {
	case 0: return how >> 2;
	case 1: return n - 8 + (how >> 2);
	case 2: return ~0ull >> (how >> 2);
	default: return take(in, 6);
	}
}

/* ---- actions ---- */

static void command(struct run *r, bool packet)
{
	static const uint8_t commands[] = {0x20, 0x25, 0x30, 0x35, 0x3d, 0xc8, 0xca,
					   0xe7, 0xec, 0xa1, 0xef, 0x42, 0x08, 0x90};
	static const uint8_t cdbs[] = {0x00, 0x03, 0x12, 0x25, 0x28, 0xa8, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0x2a};
	struct input *in = &r->in;
	struct port_command c = {0};
	unsigned slot = (unsigned)take(in, 1) % 32;
	uint8_t k = (uint8_t)take(in, 1), n = (uint8_t)take(in, 1);

	c.command = packet ? 0xa0 : k < 240 ? commands[k % sizeof commands] : (uint8_t)take(in, 1);
	c.feature = (uint8_t)n;
	c.device = n & 0x40 ? (uint8_t)take(in, 1) : 0x40;
	c.lba = block(in, SIZE / (packet ? 2048 : 512));
	c.count = (uint16_t)take(in, n & 0x80 ? 2 : 1);
	if (packet) {
		c.cdb[0] = k < 240 ? cdbs[k % sizeof cdbs] : (uint8_t)take(in, 1);
		for (unsigned i = 1; i < 12; i++)
			c.cdb[i] = n & 0x20 ? (uint8_t)take(in, 1) : 0;
		if (c.cdb[0] == 0x28 || c.cdb[0] == 0xa8) {
			for (unsigned i = 0; i < 4; i++)
				c.cdb[2 + i] = (uint8_t)(c.lba >> (24 - 8 * i));
			c.cdb[c.cdb[0] == 0x28 ? 8 : 9] = (uint8_t)c.count;
		}
	}
	c.nprd = n % 5;
	for (unsigned i = 0; i < c.nprd; i++) {
		c.prd[i].at = address(in);
		c.prd[i].len = length(in);
	}
	port_put(r->p, slot, &c);
}

/* Any bytes over a header or a table: counts of thousands of entries, other lengths, tables elsewhere. */
static void raw(struct run *r)
{
	uint8_t how = (uint8_t)take(&r->in, 1), slot = how & 31;
	uint32_t at = how & 0x80 ? PORT_LIST + 32u * slot : PORT_TABLE + 4096u * slot + (how & 0x40 ? 0x80 : 0);
	unsigned n = (unsigned)take(&r->in, 1) % 64;

	at += (uint32_t)take(&r->in, 1) & 15;
	while (n--)
		r->p->f->ram[at++] = (uint8_t)take(&r->in, 1);
}

static void store(struct run *r)
{
	static const int errors[] = {-EIO, -ENOSPC, -EINTR, -EAGAIN, -EOPNOTSUPP, -EINVAL};
	struct front *f = r->p->f;
	struct fakestore *s = f->b.top && (take(&r->in, 1) & 1) ? &f->top : &f->base;
	uint8_t how = (uint8_t)take(&r->in, 1);

	s->later = how & 1;
	s->eager = how & 2;
	s->piece = how & 4 ? 1 + take(&r->in, 2) % 9000 : 0;
	s->lies = (how & 0x18) == 0x18;
	s->s.fua = !(how & 0x40);
	if (how & 0x80) {
		uint8_t e = (uint8_t)take(&r->in, 1);
		s->error = errors[(e & 7) % 6];
		s->error_op = (enum blk_op)((e >> 3) % 3);
		s->errors = 1 + (e >> 6);
	}
}

static void memory(struct run *r)
{
	uint64_t at = address(&r->in) % FRONT_RAM;
	unsigned n = (unsigned)take(&r->in, 1) % 32;

	while (n-- && at < FRONT_RAM)
		r->p->f->ram[at++] = (uint8_t)take(&r->in, 1);
}

/* ---- what holds ---- */

static void check(struct run *r)
{
	struct port *p = r->p;
	struct front *f = p->f;

	p->called = p->causes = 0;
	port_look(p);
	FUZZ_CHECK(!(p->called & ~r->rung));
	FUZZ_CHECK(!p->called || !(p->called & (p->called - 1)) || !f->base.nheld || f->b.hba->busy);
	r->rung &= ~p->called;
	FUZZ_CHECK(f->b.inflight <= 1 && f->base.nheld + f->top.nheld <= f->b.inflight);
	FUZZ_CHECK(!f->b.inflight || f->b.resetting || f->b.hba->busy);
	FUZZ_CHECK(!f->b.hba->done || f->b.resetting || !f->b.dev.v.active);
	/* nothing is forgotten */
	FUZZ_CHECK(!r->rung || f->b.hba->busy || f->b.hba->halted || f->b.hba->pending || f->b.dev.v.resetting);
	FUZZ_CHECK(!f->b.hba->pending || f->b.hba->busy || f->b.hba->halted || f->b.dev.v.resetting);
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

static void complete(struct run *r)
{
	struct front *f = r->p->f;
	struct fakestore *s = f->top.nheld ? &f->top : &f->base;

	if (s->nheld)
		fakestore_complete(s, (unsigned)take(&r->in, 1) % s->nheld);
	blk_settle(&f->b);
}

/* With a new list waiting for its end, or without; what was written before is told of before. */
static void reset(struct run *r, bool waiting)
{
	struct port *p = r->p;
	struct front *f = p->f;
	bool idle = !(f->base.nheld + f->top.nheld);

	frames(f, 0);
	r->rung = 0;
	FUZZ_CHECK(port_reset(p) == idle);
	if (waiting)
		port_activate(p);
	while (f->base.nheld + f->top.nheld) {
		FUZZ_CHECK(f->b.dev.v.resetting && !frames(f, MSG_VIRTIO_RESET_DONE));
		check(r);
		fakestore_complete(f->top.nheld ? &f->top : &f->base, 0);
	}
	FUZZ_CHECK(!f->b.dev.v.resetting && frames(f, MSG_VIRTIO_RESET_DONE) == 1 && !f->b.inflight);
	blk_settle(&f->b);
	if (!waiting)
		port_activate(p);
	check(r);
}

static void ring(struct run *r)
{
	uint8_t how = (uint8_t)take(&r->in, 1);
	uint32_t slots = how & 0x80 ? (uint32_t)take(&r->in, 4) : 1u << (how & 31);

	slots &= ~r->rung; /* as the registers do it */
	r->rung |= slots;
	r->p->ops.slots(&r->p->f->b.dev, slots);
}

static void act(struct run *r)
{
	switch ((enum action)(take(&r->in, 1) % ACTION_COUNT)) {
	case COMMAND: command(r, false); break;
	case PACKET: command(r, true); break;
	case RAW: raw(r); break;
	case RING: ring(r); break;
	case COMPLETE: complete(r); break;
	case STORE: store(r); break;
	case MEMORY: memory(r); break;
	case RESET: reset(r, take(&r->in, 1) & 1); break;
	case RETRY: blk_retry(&r->p->f->b); break;
	case PLACE:
		r->p->list = take(&r->in, 1) & 3 ? PORT_LIST : address(&r->in);
		r->p->fis = take(&r->in, 1) & 3 ? PORT_FIS : address(&r->in);
		break;
	case ACTION_COUNT: break;
	}
}

/* ---- an input ---- */

static void set_up(struct port *p, uint8_t kind)
{
	struct front *f = p->f;
	struct fakestore *const s[] = {&f->base, &f->top};

	for (int i = 0; i < 2; i++) {
		uint8_t *data = s[i]->data;
		struct blk_store st = s[i]->s;
		st.block = i == 0 && (kind & LARGE) && !(kind & CD) ? 4096 : BLK_SECTOR;
		st.fua = true;
		*s[i] = (struct fakestore){.s = st, .data = data};
	}
	f->b.top = kind & SNAPSHOT ? &f->top.s : NULL;
	f->b.readonly = kind & CD;
	f->b.writeback = !(kind & THROUGH);
	f->b.dev.cfg.blk.pause_error = kind & PAUSE;
	f->b.hba->packet = kind & CD;
	memset(f->b.written, 0, SIZE / 512 / 8);
	memset(f->ram + PORT_LIST, 0, 0x2000);
	p->list = PORT_LIST;
	p->fis = PORT_FIS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct front_setup setup = {.size = SIZE, .snapshot = true};
	static struct port port;
	struct run r = {.p = &port, .in = {data, len}};

	if (!port.f) {
		log_set_level(LOG_LVL_ERROR);
		port_start(&port, &setup, BLK_AHCI);
	}
	set_up(&port, (uint8_t)take(&r.in, 1));
	reset(&r, false);
	for (unsigned i = 0; i < ACTIONS && r.in.left; i++) {
		act(&r);
		check(&r);
	}
	struct front *f = port.f;
	FUZZ_CHECK(!(f->b.readonly || f->b.top) || !f->base.n[BLK_WRITE]);
	FUZZ_CHECK(!f->b.readonly || !f->top.n[BLK_WRITE]);
	port.list = PORT_LIST;
	port.fis = PORT_FIS;
	reset(&r, false);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const struct {
		uint8_t len, b[64];
	} seeds[] = {
		/* a read, a write, IDENTIFY, a flush */
		{23, {0, COMMAND, 0, 1, 0, 0, 8, RING, 0, COMMAND, 1, 3, 0, 4, 8, RING, 1, COMMAND, 2, 8, 0, RING, 2}},
		{14, {THROUGH, COMMAND, 0, 4, 0, 4, 8, RING, 0, COMMAND, 1, 7, RING, 1}},
		/* two entries; the end of the disk; a table of thousands */
		{20, {LARGE, COMMAND, 0, 1, 7, 4, 16, 3, 0, 0, 0x3c, 3, 0, 8, 0x3c, RING, 0, RAW, 0x80, 8}},
		/* a CD: INQUIRY, capacity, READ(10), a write */
		{29, {CD,   PACKET, 0,      2, 0, 0, 0, RING, 0,    PACKET, 0,      3, 0,  0, 0,
		      RING, 0,      PACKET, 0, 4, 0, 4, 2,    RING, 0,      PACKET, 1, 11, 0}},
		/* later, with a reset in between, and a list that waits */
		{22,
		 {0, STORE, 1, COMMAND, 0, 1, 0, 0, 8, RING, 0, RESET, 1, COMMAND, 0, 1, 0, 0, 8, RING, 0, COMPLETE}},
		/* errors, parked and tried again */
		{17, {PAUSE | SNAPSHOT, STORE, 0, 0x80, 0, COMMAND, 0, 1, 0, 0, 8, RING, 0, RETRY, RETRY, RING, 1}},
		/* lists outside RAM */
		{15, {0, PLACE, 0, 1, 0, 1, RESET, 0, COMMAND, 0, 8, 0, 0, RING, 0}},
	};

	if (i >= sizeof seeds / sizeof seeds[0])
		return 0;
	memcpy(buf, seeds[i].b, seeds[i].len);
	return seeds[i].len;
}
