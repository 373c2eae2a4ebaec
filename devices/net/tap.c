/*
 * The back end of --net=tap: each read and write is one frame behind a struct vnet_hdr.
 *
 * Invariant: the kernel is told what the driver has negotiated before the first frame is read, so it does itself
 * whatever the guest does not take.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/err.h"
#include "devices/net/net.h"

#define TURN 64u /* frames before others have theirs */

struct tap {
	struct frame f; /* len 0: none is kept */
	uint8_t buf[FRAME_MAX];
};

static void start(struct net *n)
{
	struct tap *t = calloc(1, sizeof *t);

	if (!t || ioctl(n->fd, TUNSETOFFLOAD, 0))
		child_fail(&n->d.child, HVX_EXIT_HOST, "%s", t ? "the back end is no tap" : "no memory for a frame");
	n->be_state = t;
}

static void activate(struct net *n)
{
	unsigned long o = 0;

	if (n->rx_takes & FRAME_CSUM)
		o |= TUN_F_CSUM;
	if (n->rx_takes & FRAME_TSO4)
		o |= TUN_F_TSO4;
	if (n->rx_takes & FRAME_TSO6)
		o |= TUN_F_TSO6;
	if (ioctl(n->fd, TUNSETOFFLOAD, o))
		front_lost(n, "the tap does not take offloads");
}

/* An error that is the interface's, not the frame's. */
static bool is_gone(int error)
{
	return error == EBADFD || error == ENODEV || error == EBADF;
}

static unsigned send_frames(struct net *n, struct tx_batch *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct tx_frame *f = &b->f[i];
		b->iov[f->first] = (struct iovec){&f->h, sizeof f->h};
		if (writev(n->fd, &b->iov[f->first], (int)f->n) >= 0)
			continue;
		if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) {
			front_tx_block(n);
			return i;
		}
		if (is_gone(errno)) {
			front_lost(n, "the tap is gone");
			return i;
		}
		n->count.tx_drop_refused++; /* the interface is down, or the kernel likes the frame less than we do */
	}
	return b->n;
}

/* The next frame into t->f; false when there is none. */
static bool fetch(struct net *n, struct tap *t)
{
	struct iovec v[2] = {{&t->f.h, sizeof t->f.h}, {t->buf, sizeof t->buf}};
	ssize_t k;

	do
		k = readv(n->fd, v, 2);
	while (k < 0 && errno == EINTR);
	if (k < 0 && is_gone(errno))
		front_lost(n, "the tap is gone");
	if (k < (ssize_t)sizeof t->f.h)
		return false;
	t->f.head = t->buf;
	t->f.len = t->f.nhead = (uint32_t)((size_t)k - sizeof t->f.h);
	return true;
}

static void receive(struct net *n)
{
	struct tap *t = n->be_state;
	bool waits = false;

	for (unsigned i = 0; i < TURN && !n->lost; i++) {
		if (!t->f.len && !fetch(n, t))
			break;
		waits = front_rx(n, &t->f) == RX_WAIT;
		if (waits)
			break;
		t->f.len = 0;
	}
	front_rx_flush(n);
	front_rx_watch(n, !waits); /* a doorbell or a timer brings us back */
}

static void reset(struct net *n)
{
	struct tap *t = n->be_state;

	t->f.len = 0;
}

const struct net_backend tap_backend = {.name = "tap",
					.takes = FRAME_CSUM | FRAME_TSO4 | FRAME_TSO6,
					.start = start,
					.activate = activate,
					.send = send_frames,
					.receive = receive,
					.reset = reset};
