/*
 * The front end of AHCI (AHCI 1.3.1 sections 4 to 6): command headers, tables and their PRDTs, FISes for the guest.  One command
 * at a time, in the order of slots.
 *
 * Invariant: everything in guest memory is read once and checked before it is used; a table that points anywhere fails its own
 * command; the guest hears of a command after what it wrote is flushed from translated code.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "devices/blk/hba.h"

#define SLOTS      32u
#define HEADER_LEN 32u
#define PRDT       0x80u
#define FIS_PIO    0x20u
#define FIS_D2H    0x40u

#define HDR_PACKET 0x20u
#define CFL        0x1fu

/* PxIS */
#define DHRS (1u << 0)
#define PSS  (1u << 1)
#define OFS  (1u << 24)
#define IFS  (1u << 27)
#define HBFS (1u << 29)
#define TFES (1u << 30)

static struct device *dev(struct hba *h)
{
	return &h->b->dev;
}

/* ---- the table of data ---- */

/* One entry; false: it is no RAM. */
static bool entry(struct hba *h, unsigned i, struct virtq_seg *s)
{
	struct {
		uint64_t at;
		uint32_t reserved, count;
	} e;

	if (gmem_read(&dev(h)->mem, h->table + PRDT + 16ull * i, &e, sizeof e))
		return false;
	*s = (struct virtq_seg){e.at & ~1ull, (e.count & 0x3fffff) + 1};
	return gmem_is_ram(&dev(h)->mem, s->gpa, s->len);
}

/* Does it hold @len bytes, all of them RAM? */
static bool measure(struct hba *h, uint64_t len)
{
	uint64_t have = 0;
	struct virtq_seg s;

	for (unsigned i = 0; i < h->entries && have < len; have += s.len)
		if (!entry(h, i++, &s)) {
			h->causes |= HBFS;
			return false;
		}
	if (have < len)
		h->causes |= OFS;
	return have >= len;
}

static uint64_t window_len(const struct hba *h)
{
	return h->in ? h->data.in_len : h->data.out_len;
}

/* What the device wrote into the window. */
static void note_window(struct hba *h)
{
	if (h->in && h->data.nin)
		virtio_dev_wrote(&dev(h)->v, h->data.seg, h->data.nin, h->data.in_len);
}

/* Entries from h->entry on, as many as there is room for. */
static bool load(struct hba *h)
{
	struct virtq_chain *c = &h->data;
	unsigned n = 0;
	uint64_t len = 0;

	h->first = h->entry;
	for (; n < VIRTQ_SEGS_MAX && h->entry < h->entries && entry(h, h->entry, &c->seg[n]); h->entry++)
		len += c->seg[n++].len;
	c->mem = &dev(h)->mem;
	c->nin = h->in ? n : 0;
	c->nout = h->in ? 0 : n;
	c->in_len = h->in ? len : 0;
	c->out_len = h->in ? 0 : len;
	return n;
}

static void rewind_table(struct hba *h, bool in)
{
	h->in = in;
	h->entry = 0;
	h->window = 0;
	load(h);
}

/* So that a whole block from @pos on lies in the window, if there is one. */
static bool seek(struct hba *h, uint64_t pos)
{
	unsigned i = 0;

	if (pos < h->window)
		rewind_table(h, h->in);
	while (pos + h->b->base->block > h->window + window_len(h) && h->entry < h->entries) {
		note_window(h);
		for (i = 0; h->window + h->data.seg[i].len <= pos && h->first + i < h->entry; i++)
			h->window += h->data.seg[i].len;
		if (!i) /* a block in more than VIRTQ_SEGS_MAX pieces */
			return false;
		h->entry = h->first + i;
		if (!load(h))
			return false;
	}
	return pos < h->window + window_len(h);
}

static bool gather(struct blk_request *r, uint64_t pos)
{
	struct hba *h = r->b->hba;
	uint64_t len = r->io.len;

	if (!seek(h, pos))
		return false;
	r->io.niov = virtq_iov(&h->data, h->in, pos - h->window, &len, r->iov, VIRTQ_SEGS_MAX);
	if (len < r->io.len) {
		len -= len % r->b->base->block;
		r->io.len = len;
		r->io.niov = virtq_iov(&h->data, h->in, pos - h->window, &len, r->iov, VIRTQ_SEGS_MAX);
	}
	return len;
}

/* ---- ends ---- */

static void end(struct hba *h, uint8_t status, uint8_t error)
{
	h->status = status;
	h->error = error;
	h->done = true;
}

void hba_ok(struct hba *h)
{
	end(h, ATA_READY, 0);
}

void hba_abort(struct hba *h, uint8_t error)
{
	end(h, ATA_READY | ATA_ERR, error);
}

void hba_reply(struct hba *h, const void *buf, size_t n)
{
	struct virtq_seg s;

	for (unsigned i = 0; i < h->entries && i < VIRTQ_SEGS_MAX; i++)
		if (!entry(h, i, &s)) {
			h->causes |= HBFS;
			hba_abort(h, ATA_ABORTED);
			return;
		}
	rewind_table(h, true);
	h->moved = (uint32_t)virtq_write(&h->data, 0, buf, n);
	note_window(h);
	h->pio = true;
	hba_ok(h);
}

void hba_transfer(struct hba *h, enum blk_op op, uint64_t at, uint64_t len, bool fua)
{
	struct blk *b = h->b;
	struct blk_request *r = b->free;

	if (op != BLK_FLUSH && !measure(h, len)) {
		hba_abort(h, ATA_ABORTED);
		return;
	}
	if (op != BLK_FLUSH)
		rewind_table(h, op == BLK_READ);
	limit_owe_bytes(&b->dev.limit[0], len);
	b->n.reads += op == BLK_READ;
	b->n.writes += op == BLK_WRITE;
	b->n.flushes += op == BLK_FLUSH;
	b->free = r->next;
	r->op = op;
	r->at = at;
	r->len = len;
	r->pos = 0;
	r->turns = 0;
	r->fua = fua;
	r->unmap = r->cached = false;
	r->flushing = op == BLK_FLUSH;
	blk_begin(r, BLK_OK);
}

static void finish(struct blk_request *r, uint8_t status)
{
	struct hba *h = r->b->hba;

	if (r->op == BLK_READ)
		note_window(h);
	if (r->b->resetting) { /* nobody asks for it any more, and the next list must not hear of it */
		blk_release(r);
		return;
	}
	h->moved = r->op == BLK_FLUSH ? 0 : (uint32_t)r->pos;
	h->pio = h->packet;
	if (status == BLK_OK)
		hba_ok(h);
	else
		hba_abort(h, h->packet ? 0x30 | ATA_ABORTED : ATA_UNCORRECTABLE); /* medium error */
	if (status != BLK_OK) {
		h->key = 3;
		h->asc = 0x11;
	}
	blk_release(r);
}

/* ---- what the guest is told ---- */

static void put(struct hba *h, uint64_t at, const void *buf, uint32_t n)
{
	const struct virtq_seg s = {at, n};

	if (!gmem_write(&dev(h)->mem, at, buf, n))
		virtio_dev_wrote(&dev(h)->v, &s, 1, n);
	else
		h->causes |= HBFS;
}

static void put_fis(struct hba *h)
{
	uint8_t f[20] = {0x34, 0x40, h->status, h->error, 0, 0, 0, h->cfis[7]};

	memcpy(f + 4, h->cfis + 4, 3);
	memcpy(f + 8, h->cfis + 8, 3);
	if (h->packet) {
		f[5] = (uint8_t)h->moved;
		f[6] = (uint8_t)(h->moved >> 8);
		f[12] = 3; /* status, towards the host */
	}
	if (h->srst || h->cfis[2] == 0x08) { /* the signature */
		memset(f + 4, 0, 9);
		f[4] = f[12] = 1;
		f[5] = h->packet ? 0x14 : 0;
		f[6] = h->packet ? 0xeb : 0;
	}
	put(h, h->fis + FIS_D2H, f, sizeof f);
	if (!h->pio || (h->status & ATA_ERR))
		return;
	f[0] = 0x5f;
	f[1] = 0x60;
	f[2] = ATA_READY | ATA_DRQ;
	f[15] = h->status;
	f[16] = (uint8_t)h->moved;
	f[17] = (uint8_t)(h->moved >> 8);
	put(h, h->fis + FIS_PIO, f, sizeof f);
	h->causes |= PSS;
}

static void tell(struct hba *h)
{
	struct device *d = dev(h);
	bool failed = h->status & ATA_ERR;
	const uint32_t moved = h->moved;

	virtio_dev_enter(&d->v);
	if (!h->silent) {
		put_fis(h);
		h->causes |= DHRS;
	}
	put(h, h->list + HEADER_LEN * h->slot + 4, &moved, sizeof moved);
	if (failed || h->causes & (HBFS | IFS)) {
		failed = h->halted = true;
		h->causes |= TFES;
	}
	virtio_dev_flush(&d->v);
	h->done = h->busy = h->srst = false;
	if (!d->v.active)
		return; /* a reset came meanwhile */
	atomic_store(&d->bell->taskfile, (uint32_t)h->status | (uint32_t)h->error << 8);
	atomic_fetch_or(&d->bell->called, failed ? 0 : 1u << h->slot);
	atomic_fetch_or(&d->bell->causes, h->causes);
	device_call(d, 0);
}

/* ---- commands ---- */

/* A register FIS for the control register: software reset begins, and ends. */
static void control(struct hba *h)
{
	bool reset = h->cfis[15] & 4;

	h->silent = reset;
	h->srst = !reset;
	hba_ok(h);
	h->error = reset ? 0 : 1; /* diagnostics passed */
}

static void bad(struct hba *h, uint32_t cause)
{
	h->causes |= cause;
	h->b->n.refused++;
	hba_abort(h, ATA_ABORTED);
}

static void begin(struct hba *h)
{
	const struct gmem *mem = &dev(h)->mem;
	uint32_t hdr[8];

	h->slot = (unsigned)__builtin_ctz(h->pending);
	h->pending &= ~(1u << h->slot);
	h->busy = true;
	h->causes = h->moved = h->entries = 0;
	h->pio = h->silent = h->srst = false;
	memset(h->cfis, 0, sizeof h->cfis);
	virtio_dev_enter(&dev(h)->v);
	if (gmem_read(mem, h->list + HEADER_LEN * h->slot, hdr, sizeof hdr)) {
		bad(h, HBFS);
		return;
	}
	h->table = ((uint64_t)hdr[3] << 32 | hdr[2]) & ~0x7full;
	h->entries = hdr[0] >> 16;
	if (gmem_read(mem, h->table, h->cfis, sizeof h->cfis) ||
	    ((hdr[0] & HDR_PACKET) && gmem_read(mem, h->table + 0x40, h->cdb, sizeof h->cdb)))
		bad(h, HBFS);
	else if ((hdr[0] & CFL) < 5 || h->cfis[0] != 0x27)
		bad(h, IFS);
	else if (!(h->cfis[1] & 0x80))
		control(h);
	else if (h->packet && h->cfis[2] == 0xa0 && (hdr[0] & HDR_PACKET))
		atapi_command(h);
	else
		ata_command(h);
}

/* An operation a command; bytes are counted when they are known. */
static bool may_begin(struct hba *h)
{
	struct blk *b = h->b;
	uint64_t wait;

	if (!h->pending || h->busy || h->halted || !b->dev.v.active || b->resetting || b->limited)
		return false;
	if (limit_take(&b->dev.limit[0], 0, device_now(), &wait))
		return true;
	b->limited = true;
	ipc_timer_set(b->timer, (unsigned)((wait + 999999) / 1000000));
	return false;
}

static bool settle(struct blk *b)
{
	struct hba *h = b->hba;

	if (h->done && !b->resetting && b->dev.v.active) {
		tell(h);
		return true;
	}
	if (!may_begin(h))
		return false;
	begin(h);
	return true;
}

static void slots(struct device *d, uint32_t bits)
{
	struct blk *b = (struct blk *)(void *)d; /* its first member */

	b->hba->pending |= bits;
	blk_settle(b);
}

static void activate(struct device *d)
{
	struct blk *b = (struct blk *)(void *)d;

	b->hba->list = d->v.activation.list & ~0x3ffull;
	b->hba->fis = d->v.activation.fis & ~0xffull;
	blk_settle(b); /* rung for before this */
}

static void reset(struct device *d)
{
	struct blk *b = (struct blk *)(void *)d;
	struct hba *h = b->hba;

	atomic_store(&d->bell->kicked, 0);
	h->pending = 0;
	h->halted = h->done = h->busy = false;
	blk_reset(d);
}

static void resume(struct blk *b)
{
	blk_settle(b);
}

static const struct blk_front front = {gather, finish, settle, resume};

int blk_ahci_init(struct blk *b, struct device_ops *ops)
{
	struct msg_virtio_offer *o = &b->dev.offer;

	b->hba = calloc(1, sizeof *b->hba);
	if (!b->hba)
		return -ENOMEM;
	b->hba->b = b;
	b->hba->packet = b->dev.cfg.blk.bus == BLK_CDROM;
	b->front = &front;
	ops->work = NULL;
	ops->slots = slots;
	ops->activate = activate;
	ops->reset = reset;
	ops->config_write = NULL;
	o->device_id = b->hba->packet ? MSG_OFFER_ATAPI : MSG_OFFER_ATA;
	o->features = 0;
	o->nqueues = 1;
	o->queue_max[0] = SLOTS;
	o->config_len = 0;
	return 0;
}
