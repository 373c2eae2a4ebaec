/*
 * The front end: features, configuration space, link, resets and counters of a network card (virtio 1.2 5.1).
 *
 * Invariant: the link is up only while the back end is there and the user has not pulled the cable; a reset finds
 * nothing in flight, because chains are kept only within one call.
 */
#include <errno.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "devices/net/net.h"

/* virtio 1.2 5.1.3 */
enum {
	F_CSUM = 0,
	F_GUEST_CSUM = 1,
	F_MTU = 3,
	F_MAC = 5,
	F_GUEST_TSO4 = 7,
	F_GUEST_TSO6 = 8,
	F_HOST_TSO4 = 11,
	F_HOST_TSO6 = 12,
	F_MRG_RXBUF = 15,
	F_STATUS = 16,
	F_CTRL_VQ = 17,
	F_MQ = 22,
};
#define BIT(n)        (1ull << (n))
#define STATUS_UP     1u
#define DEVICE_ID     1u
#define RX_QUEUE_MAX  512u
#define TX_QUEUE_MAX  256u
#define CONFIG_STATUS 6 /* offsets, virtio 1.2 5.1.4 */
#define CONFIG_PAIRS  8
#define CONFIG_MTU    10
#define CONFIG_LEN    12

static void put16le(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void fill_offer(struct net *n)
{
	struct msg_virtio_offer *o = &n->d.offer;
	const struct msg_net_config *c = &n->d.cfg.net;

	o->device_id = DEVICE_ID;
	o->features = VIRTQ_FEATURES | BIT(F_CSUM) | BIT(F_GUEST_CSUM) | BIT(F_MAC) | BIT(F_GUEST_TSO4) |
		      BIT(F_GUEST_TSO6) | BIT(F_HOST_TSO4) | BIT(F_HOST_TSO6) | BIT(F_MRG_RXBUF) | BIT(F_STATUS) |
		      (c->mtu ? BIT(F_MTU) : 0);
	for (unsigned i = 0; i < c->queues; i++) {
		o->queue_max[o->nqueues++] = RX_QUEUE_MAX;
		o->queue_max[o->nqueues++] = TX_QUEUE_MAX;
	}
	if (c->queues > 1) {
		o->features |= BIT(F_CTRL_VQ) | BIT(F_MQ);
		o->queue_max[o->nqueues++] = TX_QUEUE_MAX;
	}
	o->config_len = CONFIG_LEN;
	memcpy(o->config, c->mac, sizeof c->mac);
	put16le(o->config + CONFIG_STATUS, n->link_up ? STATUS_UP : 0);
	put16le(o->config + CONFIG_PAIRS, c->queues);
	put16le(o->config + CONFIG_MTU, c->mtu);
}

static unsigned takes(uint64_t features, int csum, int tso4, int tso6)
{
	unsigned t = features & BIT(csum) ? FRAME_CSUM : 0;

	if (t)
		t |= (features & BIT(tso4) ? FRAME_TSO4 : 0) | (features & BIT(tso6) ? FRAME_TSO6 : 0);
	return t;
}

/* Which queues there are, virtio 1.2 5.1.2; until the driver says more it receives by the first pair (5.1.6.5.5). */
static void set_pairs(struct net *n)
{
	uint64_t features = n->d.v.features;

	n->pairs = 1;
	n->npairs = features & BIT(F_MQ) && features & BIT(F_CTRL_VQ) ? n->d.cfg.net.queues : 1;
	n->control = features & BIT(F_CTRL_VQ) ? (int)NET_RX(n->npairs) : -1;
	memset(&n->flows, 0, sizeof n->flows);
}

static void activate(struct device *d)
{
	struct net *n = d->priv;

	set_pairs(n);
	n->rx_takes = takes(d->v.features, F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6);
	n->tx_takes = takes(d->v.features, F_CSUM, F_HOST_TSO4, F_HOST_TSO6);
	n->mrg = d->v.features & BIT(F_MRG_RXBUF);
	for (unsigned i = 0; i < n->npairs; i++)
		if (virtio_dev_ready(&d->v, NET_RX(i)))
			virtio_dev_quiet(&d->v, NET_RX(i)); /* until a frame waits for buffers */
	if (n->be->activate)
		n->be->activate(n);
}

static void reset(struct device *d)
{
	struct net *n = d->priv;

	tx_reset(n);
	rx_reset(n);
	if (n->be->reset)
		n->be->reset(n);
	front_rx_watch(n, true);
	virtio_dev_reset_done(&d->v);
}

/* ---- link ---- */

static void set_link(struct net *n, bool up)
{
	up &= !n->lost;
	if (n->link_up == up)
		return;
	n->link_up = up;
	put16le(n->d.offer.config + CONFIG_STATUS, up ? STATUS_UP : 0);
	device_config_changed(&n->d);
}

static void command(struct device *d, enum msg_dev_op op)
{
	struct net *n = d->priv;

	if (op != DEV_OP_LINK_UP && op != DEV_OP_LINK_DOWN)
		fatal(HVX_EXIT_FAIL, "command %d is not for a network card", op);
	set_link(n, op == DEV_OP_LINK_UP);
}

void front_lost(struct net *n, const char *why)
{
	if (n->lost)
		return;
	n->lost = true;
	front_rx_watch(n, false);
	ipc_watch_enable(n->out, false);
	n->tx.blocked = false; /* what comes is dropped */
	set_link(n, false);
	device_event(&n->d, DEV_EVENT_LINK_LOST, why);
	ipc_timer_set(n->tx_timer, 0);
}

/* ---- work ---- */

static void receive(struct net *n)
{
	if (!n->lost)
		n->be->receive(n);
}

static void work(struct device *d, unsigned queue)
{
	struct net *n = d->priv;

	if ((int)queue == n->control) {
		mq_work(n);
		receive(n); /* what waited for buffers of a pair may have another now */
	} else if (queue >= NET_RX(n->npairs)) {
		return; /* of a pair that this driver knows nothing of */
	} else if (queue & 1) {
		tx_work(n, queue / 2);
	} else {
		receive(n);
	}
}

static void on_readable(void *ctx)
{
	receive(ctx);
}

static void on_writable(void *ctx)
{
	struct net *n = ctx;

	ipc_watch_enable(n->out, false);
	n->tx.blocked = false;
	n->batch.n = n->batch.nchains = 0;
	n->be->send(n, &n->batch);
	tx_work_all(n);
}

static void on_tx_timer(void *ctx)
{
	struct net *n = ctx;

	n->tx.throttled = false;
	tx_work_all(n);
}

static void on_rx_timer(void *ctx)
{
	struct net *n = ctx;

	n->rx.throttled = false;
	receive(n);
}

void front_tx_block(struct net *n)
{
	n->tx.blocked = true;
	n->count.tx_waits++;
	ipc_watch_enable(n->out, true);
}

void front_rx_watch(struct net *n, bool on)
{
	on &= !n->lost;
	if (on == n->watching)
		return;
	n->watching = on;
	ipc_watch_enable(n->in, on);
}

static void limits(struct device *d)
{
	struct net *n = d->priv;

	ipc_timer_set(n->tx_timer, 0);
	ipc_timer_set(n->rx_timer, 0);
}

static void stats(struct device *d, struct msg_counters *m)
{
	struct net *n = d->priv;

	device_count(m, "link", n->link_up);
#define X(name) device_count(m, #name, n->count.name);
	NET_COUNTERS(X)
#undef X
	device_count(m, "tx_throttled", d->limit[0].throttled);
	device_count(m, "rx_throttled", d->limit[1].throttled);
}

const struct device_ops front_ops = {
	.work = work, .activate = activate, .reset = reset, .command = command, .limits = limits, .stats = stats};

void front_init(struct net *n)
{
	n->link_up = !n->d.cfg.net.link_down;
	n->npairs = n->pairs = 1;
	n->control = -1;
	n->fd = n->d.fd[DEV_FD_BACKEND];
	fill_offer(n);
	n->in = ipc_watch_fd(n->d.loop, n->fd, IPC_READ, on_readable, n);
	n->out = ipc_watch_fd(n->d.loop, n->fd, IPC_WRITE, on_writable, n);
	n->tx_timer = ipc_watch_timer(n->d.loop, on_tx_timer, n);
	n->rx_timer = ipc_watch_timer(n->d.loop, on_rx_timer, n);
	if (!n->in || !n->out || !n->tx_timer || !n->rx_timer)
		child_fail(&n->d.child, HVX_EXIT_HOST, "the back end cannot be waited for");
	n->watching = true;
	ipc_watch_enable(n->out, false);
}
