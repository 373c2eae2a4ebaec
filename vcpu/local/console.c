/*
 * virtio-console, one port.
 *
 * Invariant: what one end does not take the other keeps: input is read from the pipe only while the
 * guest has room for it, and a chain goes back to the guest when the pipe has taken all of it.
 */
#include "vcpu/local/console.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define DEVICE_ID  3
#define QUEUE_SIZE 128

#define F_SIZE 0

enum { Q_RECEIVE, Q_TRANSMIT, QUEUES };
enum { CONFIG_SIZE = 0, CONFIG_LEN = 4 }; /* virtio 1.2 5.3.4: columns, rows */

#define TURN 65536 /* bytes written before others have a turn */

/* ---- from the guest ---- */

/* False: the pipe takes no more now. */
static bool write_some(struct vconsole *c)
{
	uint8_t buf[4096];
	size_t n = virtq_read(&c->chain, c->sent, buf, sizeof buf);
	ssize_t k = n ? write(c->out, buf, n) : 0;

	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (k < 0)
		k = (ssize_t)n; /* the monitor is gone: nobody listens */
	c->sent += (size_t)k;
	c->from_guest += (size_t)k;
	if (c->sent < c->chain.out_len)
		return true;
	c->sending = false;
	virtio_dev_put(&c->dev.v, Q_TRANSMIT, c->chain.head, 0);
	return true;
}

static void tell_size(struct vconsole *c)
{
	c->sized = c->dev.v.active;
	if (c->size[0])
		local_config(&c->dev, CONFIG_SIZE, c->size, sizeof c->size);
}

/* Linux looks at the size when it changes, not at its start: at the first output it is told once more. */
static bool next_chain(struct vconsole *c)
{
	if (!local_get(&c->dev, Q_TRANSMIT))
		return false;
	c->chain = c->dev.all->chain;
	c->sending = true;
	c->sent = 0;
	if (!c->sized)
		tell_size(c);
	return true;
}

static void transmit(struct vconsole *c)
{
	uint64_t end = c->from_guest + TURN;
	bool more = true;

	while (more && c->from_guest < end && (c->sending || next_chain(c)))
		more = write_some(c);
	ipc_watch_enable(c->writable, c->sending || c->from_guest >= end);
}

/* ---- to the guest ---- */

static bool read_some(struct vconsole *c)
{
	ssize_t n = c->in < 0 ? -1 : read(c->in, c->input, sizeof c->input);

	if (n == 0) { /* the monitor is gone */
		ipc_watch_enable(c->readable, false);
		c->in = -1;
	}
	c->input_at = 0;
	c->input_n = n > 0 ? (size_t)n : 0;
	return n > 0;
}

static void receive(struct vconsole *c)
{
	struct local *d = &c->dev;
	const struct virtq_chain *q = &d->all->chain;

	while ((c->input_at < c->input_n || read_some(c)) && local_room(d, sizeof c->input) &&
	       local_get(d, Q_RECEIVE)) {
		if (!q->nin) {
			virtio_dev_broken(&d->v, "a buffer for input with no room");
			return;
		}
		size_t n = virtq_write(q, 0, c->input + c->input_at, c->input_n - c->input_at);
		virtio_dev_wrote(&d->v, q->seg + q->nout, q->nin, n);
		virtio_dev_put(&d->v, Q_RECEIVE, q->head, (uint32_t)n);
		c->input_at += n;
		c->to_guest += n;
	}
	ipc_watch_enable(c->readable, c->in >= 0 && c->input_at == c->input_n);
}

static void work(struct local *d)
{
	d->rung = 0;
	transmit(d->priv);
	receive(d->priv);
}

static void on_ready(void *ctx)
{
	struct vconsole *c = ctx;

	/* work() asks again for what it still wants: nothing while a flush is under way */
	ipc_watch_enable(c->readable, false);
	ipc_watch_enable(c->writable, false);
	local_again(&c->dev);
}

static void reset(struct local *d)
{
	struct vconsole *c = d->priv;

	c->sending = c->sized = false;
	c->input_at = c->input_n = 0;
	ipc_watch_enable(c->readable, false);
	ipc_watch_enable(c->writable, false);
	virtio_dev_reset_done(&d->v);
}

static void stats(struct local *d, struct msg_counters *m)
{
	const struct vconsole *c = d->priv;

	local_count(m, d->id, "bytes_to_guest", c->to_guest);
	local_count(m, d->id, "bytes_from_guest", c->from_guest);
}

static const struct local_ops ops = {.work = work, .reset = reset, .stats = stats};

void vconsole_size(struct vconsole *c, uint16_t columns, uint16_t rows)
{
	c->size[0] = columns;
	c->size[1] = rows;
	tell_size(c);
}

int vconsole_create(struct vconsole *c, struct locals *l, unsigned slot, int in, int out)
{
	c->dev.id = "console";
	c->dev.ops = &ops;
	c->dev.priv = c;
	c->dev.vp.offer = (struct msg_virtio_offer){
		.device_id = DEVICE_ID,
		.features = VIRTQ_FEATURES | 1 << F_SIZE,
		.nqueues = QUEUES,
		.queue_max = {QUEUE_SIZE, QUEUE_SIZE},
		.config_len = CONFIG_LEN,
	};
	c->in = in;
	c->out = out;
	c->readable = ipc_watch_fd(l->loop, in, IPC_READ, on_ready, c);
	c->writable = ipc_watch_fd(l->loop, out, IPC_WRITE, on_ready, c);
	if (!c->readable || !c->writable)
		return -ENOMEM;
	ipc_watch_enable(c->readable, false); /* until there is a driver */
	ipc_watch_enable(c->writable, false);
	return locals_add(l, &c->dev, slot);
}
