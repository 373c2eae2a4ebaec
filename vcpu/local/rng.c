/*
 * virtio-rng.  Invariant: every byte that is reported as written came from getrandom(2), and no more
 * than the limit's worth of them in any stretch of time.
 */
#include "vcpu/local/rng.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "common/err.h"

#define DEVICE_ID  4 /* virtio 1.2 5 */
#define QUEUE_SIZE 64

static void answer(struct local *d)
{
	struct rng *r = d->priv;
	const struct virtq_chain *c = &d->all->chain;
	uint8_t buf[LOCAL_BYTES_MAX];
	size_t n = c->in_len < sizeof buf ? (size_t)c->in_len : sizeof buf;

	for (size_t have = 0; have < n;) {
		ssize_t k = getrandom(buf + have, n - have, 0);
		if (k < 0 && errno != EINTR)
			fatal(HVX_EXIT_FAIL, "getrandom: %s", strerror(errno));
		have += k > 0 ? (size_t)k : 0;
	}
	virtq_write(c, 0, buf, n);
	virtio_dev_wrote(&d->v, c->seg + c->nout, c->nin, n);
	virtio_dev_put(&d->v, 0, c->head, (uint32_t)n);
	r->bytes += n;
}

/* The limit is asked with what the chain will get; one that has to wait goes back to the ring. */
static bool may_go(struct local *d)
{
	struct rng *r = d->priv;
	const struct virtq_chain *c = &d->all->chain;
	uint64_t n = c->in_len < LOCAL_BYTES_MAX ? c->in_len : LOCAL_BYTES_MAX, wait;

	if (limit_take(&r->limit, n, local_now(), &wait))
		return true;
	virtq_unget(&d->v.queue[0], c);
	d->n.requests--;
	ipc_timer_set(r->tick, (unsigned)(wait / 1000000 + 1));
	return false;
}

static void work(struct local *d)
{
	d->rung = 0;
	while (local_room(d, LOCAL_BYTES_MAX) && local_get(d, 0)) {
		if (!d->all->chain.nin) {
			virtio_dev_broken(&d->v, "a request for no bytes");
			return;
		}
		if (!may_go(d))
			return;
		answer(d);
	}
}

static void on_tick(void *ctx)
{
	local_again(&((struct rng *)ctx)->dev);
}

void rng_limit(struct rng *r, const struct msg_dev_limits *limit)
{
	limit_set(&r->limit, limit, local_now());
	local_again(&r->dev); /* what waited by the old limit is asked again by the new one */
}

static void reset(struct local *d)
{
	virtio_dev_reset_done(&d->v); /* nothing is ever in flight */
}

static void stats(struct local *d, struct msg_counters *m)
{
	const struct rng *r = d->priv;

	local_count(m, d->id, "bytes", r->bytes);
	local_count(m, d->id, "throttled", r->limit.throttled);
	local_count(m, d->id, "limit_bytes", r->limit.set.bytes);
	local_count(m, d->id, "limit_bytes_burst", r->limit.set.bytes_burst);
}

static const struct local_ops ops = {.work = work, .reset = reset, .stats = stats};

int rng_create(struct rng *r, struct locals *l, unsigned slot, const struct msg_dev_limits *limit)
{
	r->dev.id = "rng";
	r->dev.ops = &ops;
	r->dev.priv = r;
	r->dev.vp.offer = (struct msg_virtio_offer){
		.device_id = DEVICE_ID,
		.features = VIRTQ_FEATURES,
		.nqueues = 1,
		.queue_max = {QUEUE_SIZE},
	};
	limit_set(&r->limit, limit, local_now());
	r->tick = ipc_watch_timer(l->loop, on_tick, r);
	return r->tick ? locals_add(l, &r->dev, slot) : -ENOMEM;
}
