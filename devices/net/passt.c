/*
 * The back end of --net=user: a stream socket to passt(1).
 *
 * Invariant: what passt reads is whole frames.  A frame that went out in part is kept here until the rest is gone,
 * whatever becomes of the guest meanwhile.  And a length never lies across two packets of the socket: passt of 2023 takes
 * four bytes or less at the end of what it read for nothing.  So frames are sent together only as far as the kernel
 * puts them in one packet.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/err.h"
#include "devices/net/merge.h"
#include "devices/net/net.h"
#include "devices/net/stream.h"

#define TOGETHER 32768u          /* bytes that a Unix socket's packet holds for sure */
#define BUFFER   (1024u * 1024u) /* what passt sent and the guest has not taken */
#define AT_ONCE  (256u * 1024u)  /* received in one go */
#define TURN     (1024u * 1024u) /* bytes before others have their turn */
#define REST_MAX (STREAM_PREFIX + STREAM_FRAME_MAX)

struct passt {
	struct stream in;
	uint32_t rest_at, rest_len; /* of a frame that is out in part */
	uint8_t rest[REST_MAX];
};

static void start(struct net *n)
{
	struct passt *p = calloc(1, sizeof *p);
	int type = 0;
	socklen_t len = sizeof type;

	if (p)
		p->in = (struct stream){.buf = malloc(BUFFER), .size = BUFFER};
	if (!p || !p->in.buf)
		child_fail(&n->d.child, HVX_EXIT_HOST, "no memory for the stream");
	if (getsockopt(n->fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM)
		child_fail(&n->d.child, HVX_EXIT_FAIL, "the back end is no stream");
	n->be_state = p;
}

/* ---- to passt ---- */

/* Bytes sent, 0 when nothing can be; -1 when the stream has ended. */
static ssize_t send_some(struct net *n, struct iovec *v, unsigned nv)
{
	struct msghdr m = {.msg_iov = v, .msg_iovlen = nv};
	ssize_t k;

	do
		k = sendmsg(n->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (k < 0 && errno == EINTR);
	if (k >= 0)
		return k;
	if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
		return 0;
	front_lost(n, errno == EPIPE || errno == ECONNRESET ? "passt has ended" : strerror(errno));
	return -1;
}

/* What is left of the last frame; false while there is some. */
static bool send_rest(struct net *n)
{
	struct passt *p = n->be_state;

	if (!p->rest_len)
		return true;
	struct iovec v = {p->rest + p->rest_at, p->rest_len};
	ssize_t k = send_some(n, &v, 1);
	if (k < 0)
		return false;
	p->rest_at += (uint32_t)k;
	p->rest_len -= (uint32_t)k;
	if (!p->rest_len)
		return true;
	front_tx_block(n);
	return false;
}

/* Keeps what of frame @f is behind its first @sent bytes. */
static void keep_rest(struct passt *p, const struct tx_batch *b, const struct tx_frame *f, size_t sent)
{
	p->rest_at = p->rest_len = 0;
	for (unsigned i = f->first; i < f->first + f->n; i++) {
		const struct iovec *v = &b->iov[i];
		if (sent >= v->iov_len) {
			sent -= v->iov_len;
			continue;
		}
		memcpy(p->rest + p->rest_len, (const uint8_t *)v->iov_base + sent, v->iov_len - sent);
		p->rest_len += (uint32_t)(v->iov_len - sent);
		sent = 0;
	}
}

/* Frames from @from that go together; *len becomes their bytes. */
static unsigned group(struct tx_batch *b, unsigned from, size_t *len)
{
	unsigned i = from;

	for (*len = 0; i < b->n; i++) {
		struct tx_frame *f = &b->f[i];
		size_t k = STREAM_PREFIX + f->len;
		if (i > from && *len + k > TOGETHER)
			break;
		*len += k;
		f->prefix = __builtin_bswap32(f->len);
		b->iov[f->first] = (struct iovec){&f->prefix, STREAM_PREFIX};
	}
	return i;
}

/* Of the frames from @i on @sent bytes are gone: the next to be sent; one that is gone in part is kept. */
static unsigned account(struct net *n, struct tx_batch *b, unsigned i, unsigned to, size_t sent)
{
	for (; i < to && sent; i++) {
		size_t k = STREAM_PREFIX + b->f[i].len;
		if (sent < k) {
			keep_rest(n->be_state, b, &b->f[i], sent);
			return i + 1;
		}
		sent -= k;
	}
	return i;
}

static unsigned send_frames(struct net *n, struct tx_batch *b)
{
	unsigned i = 0;

	if (!send_rest(n))
		return 0;
	while (i < b->n) {
		size_t len;
		unsigned to = group(b, i, &len), first = b->f[i].first, end = b->f[to - 1].first + b->f[to - 1].n;
		ssize_t k = send_some(n, &b->iov[first], end - first);
		if (k < 0)
			return i;
		i = account(n, b, i, to, (size_t)k);
		if ((size_t)k < len) {
			front_tx_block(n);
			return i;
		}
	}
	return i;
}

/* ---- from passt ---- */

/* The frame at the head, or several in one; false when the guest takes no more. */
static bool hand_on_one(struct net *n, struct stream *s, uint8_t *data, uint32_t len)
{
	static struct merge m; /* large; there is one loop */
	/* A stream of this host's memory damages nothing: the checksum was right when passt made it. */
	struct frame f = {.h.flags = VNET_DATA_VALID, .head = data, .nhead = len, .len = len};
	bool merged = merge_frames(&m, s, data, len, n->rx_takes);

	if (front_rx(n, merged ? &m.f : &f) == RX_WAIT)
		return false;
	stream_take(s, STREAM_PREFIX + len + m.taken);
	if (merged)
		n->count.rx_merged += m.frames;
	return true;
}

/* Hands on what is whole; false when the guest takes no more. */
static bool hand_on(struct net *n, struct stream *s)
{
	uint8_t *data;
	uint32_t len;
	int rc;

	while ((rc = stream_peek(s, &data, &len)) > 0)
		if (!hand_on_one(n, s, data, len))
			return false;
	if (rc < 0)
		front_lost(n, "passt sent a frame of an impossible length");
	return true;
}

/* One read; bytes, 0 when there is nothing or no room. */
static size_t fetch(struct net *n, struct stream *s)
{
	size_t room = stream_room(s);
	ssize_t k;

	if (!room)
		return 0;
	do
		k = recv(n->fd, s->buf + s->tail, room < AT_ONCE ? room : AT_ONCE, MSG_DONTWAIT);
	while (k < 0 && errno == EINTR);
	if (k > 0) {
		s->tail += (size_t)k;
		return (size_t)k;
	}
	if (k == 0 || errno != EAGAIN)
		front_lost(n, k == 0 || errno == ECONNRESET ? "passt has ended" : strerror(errno));
	return 0;
}

static void receive(struct net *n)
{
	struct passt *p = n->be_state;
	bool takes = hand_on(n, &p->in);

	for (size_t turn = 0, k; turn < TURN && !n->lost; turn += k) {
		k = fetch(n, &p->in);
		if (takes && k)
			takes = hand_on(n, &p->in);
		if (!k)
			break;
	}
	front_rx_flush(n);
	/* Waiting frames come back by a doorbell or a timer; until then only what fits is read. */
	front_rx_watch(n, takes || stream_room(&p->in));
}

/* The next driver sees nothing of what was meant for this one. */
static void reset(struct net *n)
{
	struct passt *p = n->be_state;
	uint8_t *data;
	uint32_t len;

	while (stream_peek(&p->in, &data, &len) > 0)
		stream_take(&p->in, STREAM_PREFIX + len);
}

const struct net_backend passt_backend = {
	.name = "passt", .whole = true, .start = start, .send = send_frames, .receive = receive, .reset = reset};
