/*
 * The back end of --net=switch: a place at hvx-switch(1), where the monitor has joined (join.h).
 *
 * Invariant: what others at the switch say about their frames is believed no more than what the guest says; a checksum
 * that somebody else has looked at counts for nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/err.h"
#include "devices/net/net.h"

#define AT_ONCE 16u  /* packets read together */
#define TURN    256u /* before others have theirs */

struct port {
	struct frame f[AT_ONCE];
	unsigned n, at; /* f[at..n) are not delivered */
	struct mmsghdr in[AT_ONCE], out[NET_BATCH];
	struct iovec iov[AT_ONCE][2];
	uint8_t buf[AT_ONCE][FRAME_MAX + 1]; /* one more, so that what is too long shows */
};

static void start(struct net *n)
{
	struct port *p = calloc(1, sizeof *p);
	int type = 0;
	socklen_t len = sizeof type;

	if (!p)
		child_fail(&n->d.child, HVX_EXIT_HOST, "no memory for frames");
	if (getsockopt(n->fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_SEQPACKET)
		child_fail(&n->d.child, HVX_EXIT_FAIL, "the back end is no port of a switch");
	for (unsigned i = 0; i < AT_ONCE; i++) {
		p->iov[i][0] = (struct iovec){&p->f[i].h, sizeof p->f[i].h};
		p->iov[i][1] = (struct iovec){p->buf[i], sizeof p->buf[i]};
		p->in[i].msg_hdr = (struct msghdr){.msg_iov = p->iov[i], .msg_iovlen = 2};
	}
	n->be_state = p;
}

static unsigned send_frames(struct net *n, struct tx_batch *b)
{
	struct port *p = n->be_state;
	unsigned done = 0;

	for (unsigned i = 0; i < b->n; i++) {
		struct tx_frame *f = &b->f[i];
		b->iov[f->first] = (struct iovec){&f->h, sizeof f->h};
		p->out[i].msg_hdr = (struct msghdr){.msg_iov = &b->iov[f->first], .msg_iovlen = f->n};
	}
	while (done < b->n) {
		int k = sendmmsg(n->fd, p->out + done, b->n - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (k > 0) {
			done += (unsigned)k;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
			front_tx_block(n);
		else
			front_lost(n, errno == EPIPE || errno == ECONNRESET ? "the switch has ended" : strerror(errno));
		break;
	}
	return done;
}

static bool fetch(struct net *n, struct port *p)
{
	int k;

	do
		k = recvmmsg(n->fd, p->in, AT_ONCE, MSG_DONTWAIT, NULL);
	while (k < 0 && errno == EINTR);
	p->at = 0;
	p->n = k > 0 ? (unsigned)k : 0;
	if (k < 0 && errno != EAGAIN)
		front_lost(n, errno == ECONNRESET ? "the switch has ended" : strerror(errno));
	for (unsigned i = 0; i < p->n; i++) {
		struct frame *f = &p->f[i];
		uint32_t len = p->in[i].msg_len;
		if (!len) { /* the end: no packet is empty */
			front_lost(n, "the switch has ended");
			p->n = i;
			break;
		}
		*f = (struct frame){.h = f->h, .head = p->buf[i]};
		f->h.flags &= VNET_NEEDS_CSUM;
		f->len = f->nhead = len > sizeof f->h ? len - (uint32_t)sizeof f->h : 0;
	}
	return p->n;
}

static void receive(struct net *n)
{
	struct port *p = n->be_state;
	bool waits = false;

	for (unsigned i = 0; i < TURN && !waits; i++) {
		if (p->at == p->n && (n->lost || !fetch(n, p)))
			break;
		waits = front_rx(n, &p->f[p->at]) == RX_WAIT;
		p->at += !waits;
	}
	front_rx_flush(n);
	front_rx_watch(n, !waits);
}

static void reset(struct net *n)
{
	struct port *p = n->be_state;

	p->at = p->n = 0;
}

const struct net_backend port_backend = {.name = "switch",
					 .takes = FRAME_CSUM | FRAME_TSO4 | FRAME_TSO6,
					 .start = start,
					 .send = send_frames,
					 .receive = receive,
					 .reset = reset};
