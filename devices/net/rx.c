/*
 * From the wire to the guest.
 *
 * Invariant: a chain is in flight only within deliver(): the frame is in it whole and it is put back, or it is given
 * back to the ring.  The guest sees used elements only after the code bitmap was looked at (virtio_dev_publish()).
 */
#include <string.h>

#include "devices/net/net.h"

#define CHAINS_MAX   256u           /* of one frame */
#define WRITTEN_MAX  512u           /* pieces of guest memory it went to */
#define PUBLISH_MORE (128u * 1024u) /* bytes after which the guest is told although more comes */

enum outcome { DELIVERED, NO_BUFFERS, TOO_LONG, GAVE_UP };

/* A frame on its way into chains. */
struct delivery {
	struct net *n;
	struct iovec src[FRAME_REST_MAX + 2]; /* header, head, rest */
	unsigned nsrc, at;                    /* where we are in it */
	size_t off;
	uint32_t left;
	unsigned nchains, nwritten;
	uint16_t head[CHAINS_MAX];
	uint32_t len[CHAINS_MAX];
	struct virtq_seg written[WRITTEN_MAX];
	struct virtq_seg num[2]; /* where num_buffers lies, a byte each */
};

static void flush_code(struct delivery *t)
{
	virtio_dev_wrote(&t->n->d.v, t->written, t->nwritten, UINT64_MAX);
	t->nwritten = 0;
}

static void fill_seg(struct delivery *t, const struct virtq_seg *s, uint32_t len)
{
	if (t->nwritten == WRITTEN_MAX)
		flush_code(t);
	t->written[t->nwritten++] = (struct virtq_seg){s->gpa, len};
	t->left -= len;
	for (uint64_t gpa = s->gpa; len;) {
		const struct iovec *v = &t->src[t->at];
		size_t k = v->iov_len - t->off < len ? v->iov_len - t->off : len;
		uint8_t *p = gmem_run(&t->n->d.mem, gpa, &k, GMEM_WRITE);
		if (p) /* else there is no memory for it, whoever sees to that */
			memcpy(p, (const uint8_t *)v->iov_base + t->off, k);
		gpa += k;
		len -= (uint32_t)k;
		t->off += k;
		if (t->off == v->iov_len) {
			t->at++;
			t->off = 0;
		}
	}
}

/* As much as fits into n->chain. */
static void fill_chain(struct delivery *t)
{
	const struct virtq_chain *c = &t->n->chain;
	uint32_t before = t->left;

	for (unsigned i = 0; i < c->nin && t->left; i++)
		fill_seg(t, &c->seg[i], c->seg[i].len < t->left ? c->seg[i].len : t->left);
	t->head[t->nchains] = c->head;
	t->len[t->nchains++] = before - t->left;
}

/* Remembers where the two bytes of num_buffers are. */
static void find_num(struct delivery *t)
{
	const struct virtq_chain *c = &t->n->chain;
	uint32_t off = offsetof(struct vnet_hdr, num_buffers);

	for (unsigned i = 0, k = 0; i < c->nin && k < 2; i++) {
		const struct virtq_seg *s = &c->seg[i];
		for (; k < 2 && off < s->len; k++, off++)
			t->num[k] = (struct virtq_seg){s->gpa + off, 1};
		off = off < s->len ? 0 : off - s->len;
	}
}

static void give_back(struct delivery *t)
{
	while (t->nchains) {
		t->n->chain.head = t->head[--t->nchains];
		virtq_unget(&t->n->d.v.queue[NET_RX(t->n->rx.pair)], &t->n->chain);
	}
}

static enum outcome give_up(struct delivery *t, enum outcome why, const char *broken)
{
	give_back(t);
	if (broken)
		virtio_dev_broken(&t->n->d.v, broken);
	return why;
}

static const char *chain_fault(const struct virtq_chain *c)
{
	if (c->nout)
		return "a readable buffer to be received into";
	return c->in_len < sizeof(struct vnet_hdr) ? "a receive buffer without room for a header" : NULL;
}

static enum outcome fill_chains(struct delivery *t)
{
	struct net *n = t->n;
	struct virtq *q = &n->d.v.queue[NET_RX(n->rx.pair)];

	while (t->left) {
		int rc = virtq_get(q, &n->chain);
		if (rc < 0)
			return give_up(t, GAVE_UP, q->why);
		if (rc == 0)
			return give_up(t, NO_BUFFERS, NULL);
		const char *fault = chain_fault(&n->chain);
		if (fault || (!n->mrg && n->chain.in_len < t->left) || t->nchains == CHAINS_MAX) {
			virtq_unget(q, &n->chain);
			return give_up(t, fault ? GAVE_UP : TOO_LONG, fault);
		}
		if (!t->nchains)
			find_num(t);
		fill_chain(t);
	}
	return DELIVERED;
}

/* Puts a frame whose offloads the guest takes into its buffers. */
static enum outcome deliver(struct net *n, const struct frame *f)
{
	static struct delivery t; /* large; there is one loop */
	struct vnet_hdr h = f->h;

	h.num_buffers = 1;
	if (!(n->rx_takes & FRAME_CSUM))
		h.flags = 0;
	t.n = n;
	t.src[0] = (struct iovec){&h, sizeof h};
	t.src[1] = (struct iovec){f->head, f->nhead};
	if (f->nrest)
		memcpy(&t.src[2], f->rest, f->nrest * sizeof f->rest[0]);
	t.at = 0;
	t.off = 0;
	t.nchains = t.nwritten = 0;
	t.left = f->len + (uint32_t)sizeof h;
	enum outcome rc = fill_chains(&t);
	if (rc != DELIVERED)
		return rc;
	if (t.nchains > 1) {
		for (int i = 0; i < 2; i++) {
			uint8_t *p = gmem_ptr(&n->d.mem, t.num[i].gpa, 1, GMEM_WRITE);
			if (p)
				*p = (uint8_t)(t.nchains >> 8 * i);
			if (t.nwritten == WRITTEN_MAX)
				flush_code(&t);
			t.written[t.nwritten++] = t.num[i];
		}
	}
	flush_code(&t);
	for (unsigned i = 0; i < t.nchains; i++)
		virtio_dev_put(&n->d.v, NET_RX(n->rx.pair), t.head[i], t.len[i]);
	n->count.rx_frames++;
	n->count.rx_bytes += f->len;
	n->rx.unpublished += f->len;
	if (n->rx.unpublished >= PUBLISH_MORE)
		front_rx_flush(n);
	return DELIVERED;
}

void front_rx_flush(struct net *n)
{
	n->rx.unpublished = 0;
	if (n->d.v.active)
		virtio_dev_publish(&n->d.v, 0x55555555u >> (32 - 2 * n->npairs)); /* each pair's first */
}

/* Delivers, or says that the frame has to wait; what the guest cannot have is dropped. */
static bool try(struct net *n, const struct frame *f)
{
	if (n->rx.hungry)
		virtio_dev_quiet(&n->d.v, NET_RX(n->rx.pair));
	n->rx.hungry = false;
	for (;;) {
		switch (deliver(n, f)) {
		case DELIVERED: return true;
		case TOO_LONG: n->count.rx_drop_long++; return true;
		case GAVE_UP: return true;
		case NO_BUFFERS: break;
		}
		front_rx_flush(n); /* it may wait for these */
		if (virtio_dev_listen(&n->d.v, NET_RX(n->rx.pair)))
			continue;
		n->count.rx_waits++;
		n->rx.hungry = true;
		return false;
	}
}

static bool try_part(void *ctx, struct frame *p)
{
	return try(ctx, p);
}

static enum rx_result pass(struct net *n, struct frame *f)
{
	virtio_dev_enter(&n->d.v); /* rings and buffers are looked up here, whoever calls */
	if (!(n->rx_takes & FRAME_CSUM) && !frame_is_gso(f))
		frame_checksum(f);
	if (!frame_is_gso(f) || (n->rx_takes & (f->h.gso_type == VNET_GSO_TCPV4 ? FRAME_TSO4 : FRAME_TSO6)))
		return try(n, f) ? RX_DONE : RX_WAIT;
	n->rx.skip = frame_split(f, f->h.gso_size, n->rx.skip, try_part, n);
	return n->rx.skip == frame_segments(f, f->h.gso_size) ? RX_DONE : RX_WAIT;
}

static bool paid(struct net *n, const struct frame *f)
{
	struct limit *l = &n->d.limit[1];
	uint64_t wait;

	if (n->rx.paid || (!l->set.ops && !l->set.bytes))
		return true;
	if (n->rx.throttled)
		return false;
	if (limit_take(l, f->len, device_now(), &wait)) {
		limit_owe(l, frame_is_gso(f) ? frame_segments(f, f->h.gso_size) - 1 : 0);
		return true;
	}
	n->rx.throttled = true;
	ipc_timer_set(n->rx_timer, (unsigned)(wait / 1000000 + 1));
	return false;
}

/* A frame that waits stays with its pair. */
static void choose(struct net *n, const struct frame *f)
{
	if (n->rx.waits)
		return;
	n->rx.pair = n->pairs > 1 ? flow_pair(&n->flows, f, n->pairs) : 0;
	if (!virtio_dev_ready(&n->d.v, NET_RX(n->rx.pair)))
		n->rx.pair = 0;
}

enum rx_result front_rx(struct net *n, struct frame *f)
{
	uint64_t *dropped = NULL;

	choose(n, f);
	if (!n->link_up)
		dropped = &n->count.rx_drop_link;
	else if (!virtio_dev_ready(&n->d.v, NET_RX(n->rx.pair)))
		dropped = &n->count.rx_drop_down;
	else if (frame_check(f, FRAME_CSUM | FRAME_TSO4 | FRAME_TSO6))
		dropped = &n->count.rx_drop_malformed;
	enum rx_result rc = RX_DONE;
	if (dropped)
		++*dropped;
	else if (!paid(n, f))
		return RX_WAIT;
	else
		rc = pass(n, f);
	n->rx.paid = n->rx.waits = rc == RX_WAIT;
	if (rc == RX_DONE)
		n->rx.skip = 0;
	return rc;
}

void rx_anew(struct net *n)
{
	if (n->rx.hungry)
		virtio_dev_quiet(&n->d.v, NET_RX(n->rx.pair));
	n->rx.hungry = n->rx.waits = false;
}

void rx_reset(struct net *n)
{
	n->rx.paid = n->rx.throttled = n->rx.hungry = n->rx.waits = false;
	n->rx.pair = n->rx.skip = 0;
}
