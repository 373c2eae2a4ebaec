/*
 * The switch.  A packet of a port is a struct vnet_hdr and a frame; it goes unchanged to the port where its destination is,
 * or to all others when that is a group or unknown (IEEE 802.1Q 8.8).  The header is for the receiver to judge.
 *
 * Invariant: a port gets frames only after it has joined, and sends only from addresses that macs_source() grants it; what
 * a slow port has not taken is bounded, and costs the others nothing.
 */
#include "devices/net/switch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "devices/net/frame.h"
#include "devices/net/join.h"

#define AT_ONCE     16u /* packets read together */
#define TURNS       8u  /* times that, before other ports have theirs */
#define PACKET_MAX  (sizeof(struct vnet_hdr) + FRAME_MAX)
#define QUEUE_BYTES (2u << 20) /* that wait for a slow port */
#define QUEUE_COUNT 1024u
#define SOCKET_BUF  (1 << 20)

struct waiting {
	struct waiting *next;
	size_t len;
	uint8_t data[];
};

struct port {
	struct eswitch *all;
	unsigned no;
	int fd; /* -1: nobody */
	bool joined;
	uint8_t mac[6];
	struct ipc_watch *in, *out;
	struct waiting *head, **tail;
	size_t bytes;
	unsigned count;
	/* packets of the batch that is being forwarded */
	unsigned nout;
	uint8_t out_of[AT_ONCE];
	struct {
		uint64_t from, to, refused, dropped;
	} n;
};

struct eswitch {
	struct switch_options o;
	struct ipc_loop *loop;
	struct ipc_watch *listen;
	int fd;
	uint64_t now; /* seconds */
	struct macs macs;
	struct port port[MACS_PORTS];
	struct mmsghdr in[AT_ONCE], out[AT_ONCE];
	struct iovec iov[AT_ONCE], out_iov[AT_ONCE];
	uint8_t buf[AT_ONCE][PACKET_MAX + 1]; /* one more, so that what is too long shows */
};

/* ---- ports come and go ---- */

static void drop_queue(struct port *p)
{
	while (p->head) {
		struct waiting *w = p->head;
		p->head = w->next;
		free(w);
	}
	p->tail = &p->head;
	p->bytes = 0;
	p->count = 0;
}

static void leave(struct port *p)
{
	if (p->fd < 0)
		return;
	if (p->joined)
		log_info("port %u left", p->no);
	macs_forget(&p->all->macs, p->no);
	ipc_watch_free(p->in);
	ipc_watch_free(p->out);
	close(p->fd);
	drop_queue(p);
	p->fd = -1;
	p->joined = false;
}

static bool answer(int fd, enum switch_result r)
{
	const struct switch_answer a = {SWITCH_MAGIC, SWITCH_VERSION, (uint16_t)r};

	return send(fd, &a, sizeof a, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof a;
}

static void join(struct port *p, const uint8_t *data, size_t len)
{
	struct switch_join j;
	enum switch_result r = SWITCH_WELCOME;

	memcpy(&j, data, len == sizeof j ? len : 0);
	if (len != sizeof j || j.magic != SWITCH_MAGIC || j.version != SWITCH_VERSION)
		r = SWITCH_BAD;
	else if (!macs_own(&p->all->macs, j.mac, p->no))
		r = SWITCH_MAC_TAKEN;
	if (!answer(p->fd, r) || r != SWITCH_WELCOME) {
		leave(p);
		return;
	}
	memcpy(p->mac, j.mac, sizeof p->mac);
	memset(&p->n, 0, sizeof p->n);
	p->joined = true;
	log_info("port %u: %02x:%02x:%02x:%02x:%02x:%02x", p->no, j.mac[0], j.mac[1], j.mac[2], j.mac[3], j.mac[4],
		 j.mac[5]);
}

/* ---- to a port ---- */

static void enqueue(struct port *p, const uint8_t *data, size_t len)
{
	struct waiting *w = NULL;

	if (p->bytes + len <= QUEUE_BYTES && p->count < QUEUE_COUNT)
		w = malloc(sizeof *w + len);
	if (!w) {
		p->n.dropped++;
		return;
	}
	w->next = NULL;
	w->len = len;
	memcpy(w->data, data, len);
	*p->tail = w;
	p->tail = &w->next;
	p->bytes += len;
	if (!p->count++)
		ipc_watch_enable(p->out, true);
}

static void on_writable(void *ctx)
{
	struct port *p = ctx;

	while (p->head) {
		struct waiting *w = p->head;
		if (send(p->fd, w->data, w->len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
				leave(p);
			return;
		}
		p->n.to++;
		p->head = w->next;
		p->bytes -= w->len;
		p->count--;
		free(w);
	}
	p->tail = &p->head;
	ipc_watch_enable(p->out, false);
}

/* How many of the @n packets in s->out the port took; a dead one takes all. */
static unsigned give(struct eswitch *s, struct port *p, unsigned n)
{
	unsigned done = 0;

	while (done < n) {
		int k = sendmmsg(p->fd, s->out + done, n - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (k <= 0)
			break; /* what is wrong with it will show when it is read */
		done += (unsigned)k;
	}
	p->n.to += done;
	return done;
}

static void flush(struct eswitch *s, struct port *p)
{
	unsigned done = 0;

	for (unsigned i = 0; i < p->nout && !p->head; i++) {
		const struct mmsghdr *m = &s->in[p->out_of[i]];
		s->out_iov[i] = (struct iovec){s->buf[p->out_of[i]], m->msg_len};
		s->out[i].msg_hdr = (struct msghdr){.msg_iov = &s->out_iov[i], .msg_iovlen = 1};
	}
	if (!p->head)
		done = give(s, p, p->nout);
	for (; done < p->nout; done++)
		enqueue(p, s->buf[p->out_of[done]], s->in[p->out_of[done]].msg_len);
	p->nout = 0;
}

/* ---- from a port ---- */

static void to_port(struct port *p, unsigned packet)
{
	p->out_of[p->nout++] = (uint8_t)packet;
}

/* Bridges keep these to themselves: 01-80-C2-00-00-0x (IEEE 802.1Q 8.6.3). */
static bool is_reserved(const uint8_t *mac)
{
	static const uint8_t group[5] = {0x01, 0x80, 0xc2, 0, 0};

	return !memcmp(mac, group, 5) && !(mac[5] & 0xf0);
}

static void forward(struct eswitch *s, struct port *from, unsigned packet)
{
	const uint8_t *f = s->buf[packet] + sizeof(struct vnet_hdr);
	size_t len = s->in[packet].msg_len;

	if (len < sizeof(struct vnet_hdr) + FRAME_ETH || len > PACKET_MAX ||
	    !macs_source(&s->macs, f + 6, from->no, s->now) || is_reserved(f)) {
		from->n.refused++;
		return;
	}
	from->n.from++;
	int to = f[0] & 1 ? -1 : macs_find(&s->macs, f, s->now);
	if (to >= 0) {
		if ((unsigned)to != from->no)
			to_port(&s->port[to], packet);
		return;
	}
	for (unsigned i = 0; i < MACS_PORTS; i++)
		if (s->port[i].joined && i != from->no)
			to_port(&s->port[i], packet);
}

/* Packets of one read; false when there are no more, or the port has left. */
static bool turn(struct eswitch *s, struct port *p)
{
	int n = recvmmsg(p->fd, s->in, AT_ONCE, MSG_DONTWAIT, NULL);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			leave(p);
		return false;
	}
	for (unsigned i = 0; i < (unsigned)n; i++) {
		if (!s->in[i].msg_len) { /* the end: no packet is empty */
			for (unsigned k = 0; k < MACS_PORTS; k++)
				flush(s, &s->port[k]);
			leave(p);
			return false;
		}
		if (p->joined)
			forward(s, p, i);
		else
			join(p, s->buf[i], s->in[i].msg_len);
		if (p->fd < 0)
			return false;
	}
	for (unsigned k = 0; k < MACS_PORTS; k++)
		if (s->port[k].nout)
			flush(s, &s->port[k]);
	return n == (int)AT_ONCE;
}

static void on_readable(void *ctx)
{
	struct port *p = ctx;
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	p->all->now = (uint64_t)ts.tv_sec;
	for (unsigned i = 0; i < TURNS && turn(p->all, p); i++)
		;
}

/* ---- newcomers ---- */

static bool may_join(const struct eswitch *s, int fd)
{
	struct ucred c;
	socklen_t len = sizeof c;

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) && (s->o.any_user || c.uid == s->o.user);
}

static void seat(struct eswitch *s, struct port *p, int fd)
{
	int size = SOCKET_BUF;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	p->fd = fd;
	p->in = ipc_watch_fd(s->loop, fd, IPC_READ, on_readable, p);
	p->out = ipc_watch_fd(s->loop, fd, IPC_WRITE, on_writable, p);
	if (!p->in || !p->out)
		leave(p);
	else
		ipc_watch_enable(p->out, false);
}

static void on_newcomer(void *ctx)
{
	struct eswitch *s = ctx;
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned i = 0;

	if (fd < 0)
		return;
	while (i < MACS_PORTS && s->port[i].fd >= 0)
		i++;
	if (i < MACS_PORTS && may_join(s, fd)) {
		seat(s, &s->port[i], fd);
		return;
	}
	answer(fd, i < MACS_PORTS ? SWITCH_BAD : SWITCH_FULL);
	close(fd);
}

struct eswitch *switch_new(struct ipc_loop *l, int fd, const struct switch_options *o)
{
	struct eswitch *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->o = *o;
	s->loop = l;
	s->fd = fd;
	macs_init(&s->macs, o->ageing, o->strict);
	for (unsigned i = 0; i < MACS_PORTS; i++)
		s->port[i] = (struct port){.all = s, .no = i, .fd = -1, .tail = &s->port[i].head};
	for (unsigned i = 0; i < AT_ONCE; i++) {
		s->iov[i] = (struct iovec){s->buf[i], sizeof s->buf[i]};
		s->in[i].msg_hdr = (struct msghdr){.msg_iov = &s->iov[i], .msg_iovlen = 1};
	}
	s->listen = ipc_watch_fd(l, fd, IPC_READ, on_newcomer, s);
	if (s->listen)
		return s;
	free(s);
	return NULL;
}

void switch_free(struct eswitch *s)
{
	for (unsigned i = 0; i < MACS_PORTS; i++)
		leave(&s->port[i]);
	ipc_watch_free(s->listen);
	free(s);
}

void switch_report(const struct eswitch *s)
{
	for (unsigned i = 0; i < MACS_PORTS; i++) {
		const struct port *p = &s->port[i];
		const uint8_t *m = p->mac;
		if (p->joined)
			log_info("port %u: %02x:%02x:%02x:%02x:%02x:%02x sent %llu, got %llu, refused %llu, lost %llu",
				 i, m[0], m[1], m[2], m[3], m[4], m[5], (unsigned long long)p->n.from,
				 (unsigned long long)p->n.to, (unsigned long long)p->n.refused,
				 (unsigned long long)p->n.dropped);
	}
}
