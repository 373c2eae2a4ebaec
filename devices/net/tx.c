/*
 * From the guest to the wire.
 *
 * Invariant: a chain is in flight only within tx_work(): it is put back when its frames are gone (the back end copies what
 * it could not send of the last one), or given back to the ring unsent.
 */
#include <string.h>

#include "devices/net/net.h"

#define BUDGET     256u /* chains a turn */
#define PIECES_MAX 32u  /* of a chain; beyond that the frame is copied */

/* ---- one chain into the batch ---- */

static bool room(const struct tx_batch *b)
{
	return b->n < NET_BATCH && b->nchains < NET_BATCH && b->nheads < NET_HEADS &&
	       b->niov + PIECES_MAX + 3 <= NET_BATCH_IOV;
}

/* A frame whose rest is in b->iov already, behind two free pieces from @first. */
static void add(struct tx_batch *b, const struct frame *f, unsigned first)
{
	struct tx_frame *t = &b->f[b->n++];

	t->h = f->h;
	t->len = f->len;
	t->first = first;
	b->iov[first + 1] = (struct iovec){f->head, f->nhead};
	b->niov = first + 2 + f->nrest;
	t->n = b->niov - first;
}

static bool add_part(void *ctx, struct frame *p)
{
	struct tx_batch *b = ctx;
	unsigned first = b->niov;

	if (!room(b))
		return false;
	uint8_t *head = b->head[b->nheads++];
	memcpy(head, p->head, p->nhead);
	memcpy(&b->iov[first + 2], p->rest, p->nrest * sizeof p->rest[0]);
	p->head = head;
	add(b, p, first);
	return true;
}

/* TCP data of each piece when the back end cannot take the frame as it is; 0: it can, perhaps changed. */
static uint32_t piece_size(struct net *n, struct frame *f)
{
	uint32_t size = f->h.gso_size;

	if (!frame_is_gso(f)) {
		if (!(n->be->takes & FRAME_CSUM))
			frame_checksum(f);
		return 0;
	}
	if (n->be->takes & (f->h.gso_type == VNET_GSO_TCPV4 ? FRAME_TSO4 : FRAME_TSO6))
		return 0;
	if (!n->be->whole)
		return size;
	if (f->len <= NET_WHOLE_MAX) {
		frame_whole(f);
		return 0;
	}
	return size < NET_WHOLE_MAX - f->payload ? (NET_WHOLE_MAX - f->payload) / size * size : size;
}

static void add_chain(struct net *n, struct frame *f, unsigned first)
{
	struct tx_batch *b = &n->batch;
	struct tx_chain *c = &b->c[b->nchains - 1];
	uint32_t size = piece_size(n, f);

	if (!size) {
		add(b, f, first);
	} else {
		struct iovec rest[PIECES_MAX]; /* their places are taken by the pieces */
		memcpy(rest, f->rest, f->nrest * sizeof rest[0]);
		f->rest = rest;
		c->skipped = n->tx.skip[n->tx.pair];
		unsigned done = frame_split(f, size, c->skipped, add_part, b);
		c->more = done < frame_segments(f, size);
		n->count.tx_cut += !c->skipped;
	}
	c->n = b->n - c->first;
}

/* What the chain holds behind the header, as a frame; false when that needs b->flat and somebody has it. */
static bool gather(struct net *n, struct frame *f, unsigned first)
{
	const struct virtq_chain *c = &n->chain;
	struct tx_batch *b = &n->batch;

	f->nhead = frame_head_need(&f->h, f->len);

	f->head = b->head[b->nheads];
	f->rest = &b->iov[first + 2];
	f->nrest = 0;
	if (f->nhead > FRAME_HEAD || c->nout > PIECES_MAX) {
		if (b->flat_used)
			return false;
		b->flat_used = true;
		f->head = b->flat;
		f->nhead = f->len;
	}
	uint64_t rest = f->len - f->nhead;
	if (virtq_read(c, sizeof f->h, f->head, f->nhead) < f->nhead)
		f->len = 0; /* no memory behind it */
	f->nrest = virtq_iov(c, false, sizeof f->h + f->nhead, &rest, &b->iov[first + 2], PIECES_MAX);
	if (f->nhead + rest < f->len) { /* pages that do not lie side by side here */
		if (b->flat_used)
			return false;
		b->flat_used = true;
		f->head = b->flat;
		f->nhead = f->len;
		f->nrest = 0;
		if (virtq_read(c, sizeof f->h, f->head, f->nhead) < f->nhead)
			f->len = 0;
	}
	return true;
}

/* May this frame go now?  False: the limit's timer runs. */
static bool paid(struct net *n, const struct frame *f)
{
	struct limit *l = &n->d.limit[0];
	uint64_t wait;

	if (n->tx.paid[n->tx.pair]) {
		n->tx.paid[n->tx.pair]--;
		return true;
	}
	if (!l->set.ops && !l->set.bytes)
		return true;
	if (limit_take(l, f->len, device_now(), &wait)) {
		limit_owe(l, frame_is_gso(f) ? frame_segments(f, f->h.gso_size) - 1 : 0);
		return true;
	}
	n->tx.throttled = true;
	ipc_timer_set(n->tx_timer, (unsigned)(wait / 1000000 + 1));
	return false;
}

enum taken { TAKEN, NO_ROOM, STOP };

/* The chain in n->chain becomes part of the batch. */
static enum taken take(struct net *n)
{
	const struct virtq_chain *c = &n->chain;
	struct tx_batch *b = &n->batch;
	struct frame f = {0};
	unsigned first = b->niov;

	if (c->nin || c->out_len < sizeof f.h) {
		virtio_dev_broken(&n->d.v, c->nin ? "a writable buffer to be sent" : "a frame without its header");
		return STOP;
	}
	virtq_read(c, 0, &f.h, sizeof f.h);
	f.h.flags &= VNET_NEEDS_CSUM; /* the rest is for drivers to hear */
	struct tx_chain *t = &b->c[b->nchains];
	*t = (struct tx_chain){.head = c->head, .first = b->n};
	f.len = (uint32_t)(c->out_len - sizeof f.h);
	if (!n->link_up) {
		t->dropped = &n->count.tx_drop_link;
	} else if (f.len < FRAME_ETH || f.len > FRAME_MAX) {
		t->dropped = &n->count.tx_drop_malformed;
	} else {
		if (!gather(n, &f, first))
			return NO_ROOM;
		if (f.len < FRAME_ETH || frame_check(&f, n->tx_takes))
			t->dropped = &n->count.tx_drop_malformed;
		else if (!paid(n, &f))
			return STOP;
	}
	b->nchains++;
	if (t->dropped)
		return TAKEN;
	b->nheads++;
	if (n->npairs > 1)
		flow_sent(&n->flows, &f, n->tx.pair);
	add_chain(n, &f, first);
	return TAKEN;
}

/* ---- the batch ---- */

static void unget(struct net *n, uint16_t head)
{
	n->chain.head = head;
	virtq_unget(&n->d.v.queue[NET_TX(n->tx.pair)], &n->chain);
}

/* Chains whose frames are among the first @gone are put back, the others given back to the ring. */
static void settle(struct net *n, unsigned gone)
{
	struct tx_batch *b = &n->batch;
	unsigned i = 0;

	for (; i < b->nchains; i++) {
		struct tx_chain *c = &b->c[i];
		if (c->first + c->n > gone || c->more)
			break;
		if (c->dropped)
			++*c->dropped;
		virtio_dev_put(&n->d.v, NET_TX(n->tx.pair), c->head, 0);
	}
	n->tx.skip[n->tx.pair] = i < b->nchains ? b->c[i].skipped + gone - b->c[i].first : 0;
	for (unsigned k = b->nchains; k > i; k--) {
		n->tx.paid[n->tx.pair] += !b->c[k - 1].dropped;
		unget(n, b->c[k - 1].head);
	}
}

/* False: the back end takes no more now. */
static bool send(struct net *n)
{
	struct tx_batch *b = &n->batch;
	unsigned gone = b->n && !n->lost ? n->be->send(n, b) : 0;

	for (unsigned i = 0; i < gone; i++) {
		n->count.tx_frames++;
		n->count.tx_bytes += b->f[i].len;
	}
	settle(n, gone);
	bool all = gone == b->n;
	b->n = b->nchains = b->nheads = b->niov = 0;
	b->flat_used = false;
	virtio_dev_publish(&n->d.v, 1u << NET_TX(n->tx.pair));
	return all;
}

/* Fills the batch; the number of chains, 0 when the ring is empty or nothing may go. */
static unsigned fill(struct net *n)
{
	while (room(&n->batch) && !n->tx.throttled && virtio_dev_get(&n->d.v, NET_TX(n->tx.pair), &n->chain)) {
		enum taken t = take(n);
		if (t != TAKEN)
			virtq_unget(&n->d.v.queue[NET_TX(n->tx.pair)], &n->chain);
		if (t != TAKEN || n->batch.c[n->batch.nchains - 1].more)
			break;
	}
	return n->batch.nchains;
}

static bool may_work(const struct net *n)
{
	return virtio_dev_ready(&n->d.v, NET_TX(n->tx.pair)) && !n->tx.blocked && !n->tx.throttled;
}

void tx_work(struct net *n, unsigned pair)
{
	unsigned done = 0;

	n->tx.pair = pair;
	if (may_work(n))
		virtio_dev_quiet(&n->d.v, NET_TX(n->tx.pair));
	while (may_work(n)) {
		unsigned k = fill(n);
		bool all = send(n);
		done += k;
		if (!k && !n->tx.throttled && !n->d.v.broken && !virtio_dev_listen(&n->d.v, NET_TX(n->tx.pair)))
			return;
		if (done >= BUDGET && all) {
			ipc_timer_set(n->tx_timer, 0); /* the others' turn */
			return;
		}
	}
}

/* The one after the last that worked is the first, so that none of them waits for ever for what they share. */
void tx_work_all(struct net *n)
{
	unsigned first = n->tx.pair + 1;

	for (unsigned i = 0; i < n->npairs; i++)
		tx_work(n, (first + i) % n->npairs);
}

void tx_reset(struct net *n)
{
	memset(n->tx.paid, 0, sizeof n->tx.paid);
	memset(n->tx.skip, 0, sizeof n->tx.skip);
	n->tx.pair = 0;
	n->tx.throttled = false;
}
