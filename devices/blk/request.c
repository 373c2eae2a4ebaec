/*
 * The front end of a disk: chains into requests, requests into steps, steps' results into status bytes.
 *
 *   chain: header {type, sector} | data to write          (readable)
 *          data read                          | status    (writable)
 *
 * Invariant: a request is either free, in flight in a store, or parked; what has been told to the guest
 * as done was done by the store, and a reset is answered when no store has anything of ours.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "devices/blk/blk.h"

/* virtio 1.2 5.2.6 */
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
#define HEADER 16u
#define ID_LEN 20u
#define UNMAP  1u
#define TURNS  1000 /* that a store may ask for another try */

struct header {
	uint32_t type, reserved;
	uint64_t sector;
};
struct range { /* of discard and write zeroes, virtio 1.2 5.2.6 */
	uint64_t sector;
	uint32_t sectors, flags;
};
_Static_assert(sizeof(struct header) == HEADER && sizeof(struct range) == 16, "virtio 1.2 5.2.6");

static uint8_t zeroes[64 * 1024] __attribute__((aligned(4096)));

/* ---- the end of a request ---- */

void blk_release(struct blk_request *r)
{
	struct blk *b = r->b;

	r->next = b->free;
	b->free = r;
	b->inflight--;
	if (b->resetting && !b->inflight) {
		b->resetting = false;
		virtio_dev_reset_done(&b->dev.v);
	}
}

static void finish_chain(struct blk_request *r, uint8_t status)
{
	struct blk *b = r->b;
	struct virtq_chain *c = &r->chain;

	if (!b->resetting && b->dev.channel)
		virtq_write(c, c->in_len - 1, &status, 1);
	virtio_dev_wrote(&b->dev.v, c->seg + c->nout, c->nin, c->in_len); /* a read that a reset overtakes, too */
	if (!b->resetting && b->dev.channel)
		virtio_dev_put(&b->dev.v, r->queue, c->head, (uint32_t)c->in_len);
	blk_release(r);
}

static void finish(struct blk_request *r, uint8_t status)
{
	r->b->front->finish(r, status);
}

/* ---- steps ---- */

/* The pieces of [pos, pos + io.len) of the request's data; where they are too many, a step of whole blocks.  False: there is
 * no memory for it. */
static bool gather(struct blk_request *r, uint64_t pos)
{
	uint64_t off = pos + (r->op == BLK_READ ? 0 : HEADER), len = r->io.len;

	r->io.niov = virtq_iov(&r->chain, r->op == BLK_READ, off, &len, r->iov, VIRTQ_SEGS_MAX);
	if (len < r->io.len) {
		r->io.len = len -= len % r->b->base->block;
		r->io.niov = virtq_iov(&r->chain, r->op == BLK_READ, off, &len, r->iov, VIRTQ_SEGS_MAX);
	}
	return len;
}

/* While a step moves data, the pages stay where they are. */
static void hold(struct blk_request *r)
{
	r->holds = !r->flushing && (r->op == BLK_READ || r->op == BLK_WRITE);
	if (r->holds)
		r->parity = gmem_enter(&r->b->dev.mem, r->b->dev.v.slot);
}

static void let_go(struct blk_request *r)
{
	if (r->holds)
		gmem_leave(&r->b->dev.mem, r->b->dev.v.slot, r->parity);
	r->holds = false;
}

/* Zeroes to be written, where the store has no other way. */
static void gather_zeroes(struct blk_request *r)
{
	struct blk_io *io = &r->io;
	uint64_t left = io->len;

	io->op = BLK_WRITE;
	for (io->niov = 0; left && io->niov < VIRTQ_SEGS_MAX; io->niov++) {
		uint64_t k = left < sizeof zeroes ? left : sizeof zeroes;
		r->iov[io->niov] = (struct iovec){zeroes, k};
		left -= k;
	}
	io->len -= left;
}

/* Begins the next step. */
static int64_t step(struct blk_request *r)
{
	struct blk *b = r->b;
	struct blk_io *io = &r->io;
	struct blk_store *s = b->top ? b->top : b->base;

	io->op = r->flushing ? BLK_FLUSH : r->op;
	if (r->flushing)
		return b->top ? 0 : s->ops->submit(s, io); /* a snapshot does not outlive a crash */
	io->at = r->at + r->pos;
	io->len = r->len - r->pos < BLK_STEP ? r->len - r->pos : BLK_STEP;
	io->unmap = r->unmap;
	io->fua = r->op == BLK_WRITE && (r->fua || !b->writeback) && !b->top && s->fua;
	r->cached |= !io->fua;
	if (b->top && r->op == BLK_READ)
		s = blk_overlay_where(b, io->at, &io->len);
	if ((r->op == BLK_READ || r->op == BLK_WRITE) && !b->front->gather(r, r->pos))
		return -EFAULT;
	if (r->op == BLK_ZEROES && !(r->unmap ? s->unmap : s->zeroes))
		gather_zeroes(r);
	return s->ops->submit(s, io);
}

/* An error of the host's. */
static void failed(struct blk_request *r, int error)
{
	static const char *const names[] = {"read", "write", "flush", "discard", "write zeroes"};
	struct blk *b = r->b;
	char text[160];

	b->n.errors++;
	snprintf(text, sizeof text, "%s at byte %llu: %s", names[r->io.op], (unsigned long long)(r->at + r->pos),
		 strerror(error));
	log_guest(LOG_LVL_ERROR, "%s", text);
	/* The host tells of lost writes once: another flush would succeed. */
	if (!b->dev.cfg.blk.pause_error || b->resetting || r->op == BLK_FLUSH) {
		finish(r, BLK_IOERR);
		return;
	}
	if (r->flushing) { /* likewise: everything anew */
		r->pos = 0;
		r->flushing = false;
	}
	r->turns = 0;
	r->next = b->parked;
	b->parked = r;
	if (!r->next)
		device_event(&b->dev, DEV_EVENT_IO_ERROR, text);
}

/* The store turned out not to have such a thing: what to take for its result. */
static int64_t without(struct blk_request *r)
{
	struct blk *b = r->b;
	struct blk_store *s = b->top ? b->top : b->base;

	if (r->io.op == BLK_ZEROES) {
		*(r->unmap ? &s->unmap : &s->zeroes) = false;
		return -EAGAIN;
	}
	if (r->io.op != BLK_DISCARD)
		return -EOPNOTSUPP;
	r->pos = r->len; /* a hint */
	return 0;
}

static void account(struct blk_request *r, uint64_t n)
{
	struct blk *b = r->b;

	if (r->op == BLK_READ)
		b->n.read_bytes += n;
	else if (r->op == BLK_WRITE)
		b->n.written_bytes += n;
	else if (r->io.op == BLK_WRITE) /* zeroes, the long way */
		limit_owe_bytes(&b->dev.limit[0], n);
	if (b->top && r->op != BLK_READ && n)
		blk_overlay_mark(b, r->at + r->pos, n);
	r->pos += n;
}

/* Without a cache that the driver flushes, what was done is not finished before it is durable. */
static bool needs_flush(const struct blk_request *r)
{
	const struct blk *b = r->b;

	return (r->fua || !b->writeback) && r->op != BLK_READ && r->cached;
}

/* Takes a step's result; true when there is another step to do, else the request is finished or parked. */
static bool advance(struct blk_request *r, int64_t n)
{
	if (n == -EOPNOTSUPP)
		n = without(r);
	if ((n == -EINTR || n == -EAGAIN) && r->turns++ < TURNS)
		return true;
	if (n < 0 || (!n && !r->flushing && r->pos < r->len)) {
		failed(r, n ? (int)-n : EIO);
		return false;
	}
	if (!r->flushing) {
		account(r, (uint64_t)n);
		if (r->pos < r->len)
			return true;
		if (needs_flush(r)) {
			r->flushing = true;
			return true;
		}
	}
	finish(r, BLK_OK);
	return false;
}

static void go_on(struct blk_request *r)
{
	int64_t n;

	do {
		hold(r);
		n = step(r);
		if (n != BLK_PENDING)
			let_go(r);
	} while (n != BLK_PENDING && advance(r, n));
	r->b->stepped |= n == BLK_PENDING;
}

void blk_done(struct blk_io *io, int64_t result)
{
	struct blk_request *r = (struct blk_request *)(void *)io; /* its first member */

	let_go(r);
	virtio_dev_enter(&r->b->dev.v);
	if (advance(r, result))
		go_on(r);
}

/* ---- the beginning of a request ---- */

/* Bytes [at, at + len) of the disk, if there are such. */
static bool place(struct blk_request *r, uint64_t sector, uint64_t len)
{
	struct blk *b = r->b;
	uint32_t block = b->base->block;

	if (sector > b->size / BLK_SECTOR || len > b->size - sector * BLK_SECTOR)
		return false;
	r->at = sector * BLK_SECTOR;
	r->len = len;
	return !(r->at % block) && !(len % block);
}

/* Discard and write zeroes; one range a request, as the configuration space says. */
static int parse_range(struct blk_request *r, enum blk_op op)
{
	struct blk *b = r->b;
	struct range g;

	r->op = op;
	if (b->readonly || r->chain.out_len != HEADER + sizeof g)
		return BLK_IOERR;
	virtq_read(&r->chain, HEADER, &g, sizeof g);
	if (g.flags & ~(op == BLK_ZEROES ? UNMAP : 0u))
		return BLK_UNSUPP;
	r->unmap = g.flags & UNMAP;
	return place(r, g.sector, (uint64_t)g.sectors * BLK_SECTOR) ? BLK_OK : BLK_IOERR;
}

static int get_id(struct blk_request *r)
{
	char id[MSG_SERIAL_MAX] = ""; /* 20 bytes, padded with zeroes */

	memcpy(id, r->b->dev.cfg.blk.serial, sizeof id);
	r->op = BLK_READ;
	virtq_write(&r->chain, 0, id, r->chain.in_len - 1 < ID_LEN ? r->chain.in_len - 1 : ID_LEN);
	return BLK_OK;
}

/* Fills op, at, len; a status other than BLK_OK ends the request. */
static int parse(struct blk_request *r, const struct header *h)
{
	struct blk *b = r->b;

	r->at = r->len = r->pos = 0;
	r->flushing = r->unmap = r->cached = r->fua = false;
	r->turns = 0;
	switch (h->type) {
	case T_IN:
		r->op = BLK_READ;
		b->n.reads++;
		return place(r, h->sector, r->chain.in_len - 1) ? BLK_OK : BLK_IOERR;
	case T_OUT:
		r->op = BLK_WRITE;
		b->n.writes++;
		return !b->readonly && place(r, h->sector, r->chain.out_len - HEADER) ? BLK_OK : BLK_IOERR;
	case T_FLUSH:
		r->op = BLK_FLUSH;
		b->n.flushes++;
		r->flushing = true;
		return BLK_OK;
	case T_DISCARD: b->n.discards++; return b->base->discard || b->top ? parse_range(r, BLK_DISCARD) : BLK_UNSUPP;
	case T_WRITE_ZEROES: b->n.zeroes++; return parse_range(r, BLK_ZEROES);
	case T_GET_ID: return get_id(r);
	default: return BLK_UNSUPP;
	}
}

void blk_begin(struct blk_request *r, uint8_t status)
{
	struct blk *b = r->b;

	b->inflight++;
	b->n.depth = b->inflight > b->n.depth ? b->inflight : b->n.depth;
	b->n.refused += status != BLK_OK;
	if (status == BLK_OK && (r->len || r->flushing))
		go_on(r);
	else
		finish(r, status);
}

/* Takes a chain of the ring.  False: there is none, or it has to wait. */
static bool take(struct blk *b, unsigned queue)
{
	struct device *d = &b->dev;
	struct blk_request *r = b->free;
	struct header h;
	uint64_t wait;

	b->starved |= r ? 0 : 1u << queue;
	if (!r || b->limited || !virtio_dev_get(&d->v, queue, &r->chain))
		return false;
	if (virtq_read(&r->chain, 0, &h, HEADER) != HEADER || !r->chain.in_len) {
		virtio_dev_broken(&d->v, "a request without a header or a status");
		return false;
	}
	if (!limit_take(&d->limit[0], r->chain.out_len + r->chain.in_len - HEADER - 1, device_now(), &wait)) {
		virtq_unget(&d->v.queue[queue], &r->chain);
		b->limited = true;
		ipc_timer_set(b->timer, (unsigned)((wait + 999999) / 1000000));
		return false;
	}
	b->free = r->next;
	r->queue = queue;
	blk_begin(r, (uint8_t)parse(r, &h));
	return true;
}

/* A step that ends in one store may begin one in the other; what a front end has to say may begin a command. */
void blk_settle(struct blk *b)
{
	do {
		while (b->stepped) {
			b->stepped = false;
			b->base->ops->kick(b->base);
			if (b->top)
				b->top->ops->kick(b->top);
		}
	} while (b->front->settle(b) || b->stepped);
}

static uint32_t every_queue(const struct blk *b)
{
	return (1u << b->dev.offer.nqueues) - 1;
}

/* Rings that found no free request have their turn when there is one, in their order: each takes what it can get. */
static bool feed(struct blk *b)
{
	uint32_t starved = b->starved;
	bool any = false;

	if (!starved || !b->free)
		return false;
	b->starved = 0;
	for (unsigned q = 0; starved >> q; q++)
		while ((starved >> q & 1) && take(b, q))
			any = true;
	return any;
}

static bool publish(struct blk *b)
{
	if (b->dev.v.active)
		virtio_dev_publish(&b->dev.v, every_queue(b));
	return feed(b);
}

static void resume(struct blk *b)
{
	device_ring(&b->dev, every_queue(b));
}

const struct blk_front blk_virtio = {gather, finish_chain, publish, resume};

void blk_work(struct device *d, unsigned queue)
{
	struct blk *b = (struct blk *)(void *)d; /* its first member */

	do {
		virtio_dev_quiet(&d->v, queue);
		while (take(b, queue))
			;
		blk_settle(b);
	} while (virtio_dev_ready(&d->v, queue) && virtio_dev_listen(&d->v, queue) && !b->limited && b->free);
}

static void on_limit(void *ctx)
{
	struct blk *b = ctx;

	b->limited = false;
	b->front->resume(b);
}

void blk_limits_changed(struct blk *b)
{
	if (b->limited)
		ipc_timer_set(b->timer, 0);
}

void blk_retry(struct blk *b)
{
	struct blk_request *r = b->parked, *next;

	for (b->parked = NULL; r; r = next) {
		next = r->next;
		go_on(r);
	}
	blk_settle(b);
}

void blk_reset(struct device *d)
{
	struct blk *b = (struct blk *)(void *)d;
	struct blk_request *r = b->parked, *next;

	b->resetting = true;
	b->starved = 0;
	b->inflight++; /* so that the last of these does not answer */
	for (b->parked = NULL; r; r = next) {
		next = r->next;
		blk_release(r);
	}
	if (--b->inflight)
		return;
	b->resetting = false;
	virtio_dev_reset_done(&d->v);
}

int blk_requests_init(struct blk *b)
{
	if (!b->front)
		b->front = &blk_virtio;
	for (unsigned i = BLK_QUEUE; i--;) {
		struct blk_request *r = &b->request[i];
		r->b = b;
		r->io.iov = r->iov;
		r->next = b->free;
		b->free = r;
	}
	b->timer = ipc_watch_timer(b->dev.loop, on_limit, b);
	return b->timer ? 0 : -ENOMEM;
}
