/*
 * The disk in memory.  Invariant: a chain is put back exactly once, and nothing of the guest's memory is written
 * after virtio_dev_reset_done().
 */
#include "tests/device/ramdisk.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define F_FLUSH (1ull << 9)
#define F_MQ    (1ull << 12)

enum { S_OK, S_IOERR, S_UNSUPP };

struct head {
	uint32_t type, reserved;
	uint64_t sector;
};

static void put_le(uint8_t *p, uint64_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* ---- what the vcpu must not believe ---- */

static void send(struct device *d, uint16_t type, int n)
{
	if (d->channel && n >= 0)
		ipc_send(d->channel, type, d->child.buf, (size_t)n, NULL, 0);
}

static void bad_frame(struct device *d)
{
	send(d, 255, 4);
}

static void bad_range(struct device *d)
{
	struct msg_virtio_invalidate m = {.id = 1, .nranges = 1, .range = {{1ull << 50, 1ull << 50}}};

	send(d, MSG_VIRTIO_INVALIDATE, pack_virtio_invalidate(&m, d->child.buf, sizeof d->child.buf));
}

static void bad_config(struct device *d)
{
	struct msg_virtio_config m = {.len = 3};

	send(d, MSG_VIRTIO_CONFIG, pack_virtio_config(&m, d->child.buf, sizeof d->child.buf));
}

static void bad_reset(struct device *d)
{
	struct msg_virtio_reset m = {d->generation + 1};

	send(d, MSG_VIRTIO_RESET_DONE, pack_virtio_reset(&m, d->child.buf, sizeof d->child.buf));
}

static void call_all(struct device *d)
{
	static const uint64_t one = 1;

	atomic_store(&d->bell->called, ~0u);
	if (write(d->fd[DEV_FD_CALL], &one, sizeof one) < 0)
		abort();
}

/* ---- requests ---- */

static void sleep_ms(uint64_t ms)
{
	struct timespec ts = {(time_t)(ms / 1000), (long)(ms % 1000 * 1000000)};

	nanosleep(&ts, NULL);
}

static void put_back(struct ramdisk *r, unsigned queue, uint16_t head, uint32_t written)
{
	virtio_dev_put(&r->d->v, queue, head, written);
	virtio_dev_publish(&r->d->v, 1u << queue);
}

static uint8_t transfer(struct ramdisk *r, const struct virtq_chain *c, const struct head *h, uint32_t *written)
{
	uint64_t len = h->type == RAMDISK_IN ? c->in_len - 1 : c->out_len - sizeof *h;
	uint8_t *at = r->data + h->sector * 512;

	if (h->sector > RAMDISK_SECTORS || len > (RAMDISK_SECTORS - h->sector) * 512)
		return S_IOERR;
	if (h->type == RAMDISK_OUT)
		virtq_read(c, sizeof *h, at, len);
	else
		*written = (uint32_t)virtq_write(c, 0, at, len);
	return S_OK;
}

static uint8_t serve(struct ramdisk *r, const struct virtq_chain *c, const struct head *h, uint32_t *written)
{
	struct device *d = r->d;

	switch (h->type) {
	case RAMDISK_IN:
	case RAMDISK_OUT: return transfer(r, c, h, written);
	case RAMDISK_FLUSH: return S_OK;
	case RAMDISK_GET_ID: *written = (uint32_t)virtq_write(c, 0, "hvx-test-ramdisk\0\0\0", 20); return S_OK;
	case RAMDISK_HOLD: r->hold = true; return S_OK;
	case RAMDISK_LATE_RESET: r->late_ms = (unsigned)h->sector; return S_OK;
	case RAMDISK_SLEEP: sleep_ms(h->sector); return S_OK;
	case RAMDISK_RESIZE:
		put_le(d->offer.config, h->sector, 8);
		device_config_changed(d);
		return S_OK;
	case RAMDISK_CALL_ALL: call_all(d); return S_OK;
	case RAMDISK_DIE: _exit(77);
	case RAMDISK_BAD_FRAME: bad_frame(d); return S_OK;
	case RAMDISK_BAD_RANGE: bad_range(d); return S_OK;
	case RAMDISK_BAD_CONFIG: bad_config(d); return S_OK;
	case RAMDISK_BAD_RESET: bad_reset(d); return S_OK;
	default: return S_UNSUPP;
	}
}

/* Data and status first, then the look at the code bitmap, then the used element. */
static void finish(struct ramdisk *r, unsigned queue, const struct virtq_chain *c, const struct head *h)
{
	uint32_t written = 0;
	uint8_t status = serve(r, c, h, &written);

	virtq_write(c, c->in_len - 1, &status, 1);
	virtio_dev_wrote(&r->d->v, c->seg + c->nout, c->nin, c->in_len);
	put_back(r, queue, c->head, written + 1);
}

static void release(struct ramdisk *r)
{
	struct head h;

	while (r->nheld) {
		struct ramdisk_held *x = &r->held[--r->nheld];
		virtq_read(&x->c, 0, &h, sizeof h);
		finish(r, x->queue, &x->c, &h);
	}
}

static void request(struct ramdisk *r, unsigned queue, const struct virtq_chain *c)
{
	struct head h;

	if (virtq_read(c, 0, &h, sizeof h) != sizeof h || !c->in_len) {
		virtio_dev_broken(&r->d->v, "a request without head or status");
		return;
	}
	if (h.type == RAMDISK_RELEASE) {
		r->hold = false;
		release(r);
	} else if (r->hold && h.type < RAMDISK_HOLD && r->nheld < RAMDISK_HELD) {
		r->held[r->nheld++] = (struct ramdisk_held){queue, *c};
		return;
	}
	if (h.type == RAMDISK_RELEASE)
		h.type = RAMDISK_FLUSH;
	finish(r, queue, c, &h);
}

static void work(struct device *d, unsigned queue)
{
	static struct virtq_chain c; /* large; there is one loop */

	do {
		while (virtio_dev_get(&d->v, queue, &c))
			request(d->priv, queue, &c);
	} while (virtio_dev_ready(&d->v, queue) && virtio_dev_listen(&d->v, queue));
}

/* ---- resets ---- */

static void reset_now(struct ramdisk *r)
{
	r->hold = false;
	r->late_ms = 0;
	r->nheld = 0;
	virtio_dev_reset_done(&r->d->v);
}

static void on_timer(void *ctx)
{
	struct ramdisk *r = ctx;

	release(r);
	reset_now(r);
}

static void reset(struct device *d)
{
	struct ramdisk *r = d->priv;

	if (r->late_ms)
		ipc_timer_set(r->timer, r->late_ms);
	else
		reset_now(r);
}

static void stats(struct device *d, struct msg_counters *m)
{
	const struct ramdisk *r = d->priv;

	device_count(m, "held", r->nheld);
}

const struct device_ops ramdisk_ops = {.work = work, .reset = reset, .stats = stats};

void ramdisk_init(struct ramdisk *r, struct device *d)
{
	r->d = d;
	d->priv = r;
	d->ops = &ramdisk_ops;
	d->offer.device_id = 2;
	d->offer.features = VIRTQ_FEATURES | F_FLUSH | F_MQ;
	d->offer.nqueues = RAMDISK_QUEUES;
	d->offer.queue_max[0] = d->offer.queue_max[1] = 128;
	d->offer.config_len = 60;
	put_le(d->offer.config, RAMDISK_SECTORS, 8);
	put_le(d->offer.config + 34, RAMDISK_QUEUES, 2); /* num_queues */
	r->timer = ipc_watch_timer(d->loop, on_timer, r);
	if (!r->timer)
		abort();
}
