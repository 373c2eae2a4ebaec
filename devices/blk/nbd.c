/*
 * Every format but raw: an NBD server (qemu-nbd) at the other end of a connected socket, by libnbd.
 * Invariant: libnbd's completions only make a list; what they lead to happens after its calls have
 * returned, for it may not be called from within them.
 */
#include <errno.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "devices/blk/blk.h"

#define BOUNCE_SIZE (1u << 20) /* libnbd takes one buffer: requests in pieces go through one of these */
#define BOUNCES     16
#define BLOCK_MAX   4096
#define RANGE_MAX   (1u << 30) /* of a trim or of zeroes */
#define CLUSTER_MAX (2u << 20) /* of qcow2 */

struct nbd_store {
	struct blk_store s;
	struct nbd_handle *h;
	struct blk *b;
	struct ipc_watch *in, *out;
	struct blk_io *done;             /* completed, newest first */
	struct blk_io *wait, **wait_end; /* for a bounce buffer */
	void *bounce[BOUNCES];
	unsigned nbounce; /* free ones */
	bool flush, dead, busy;
};

struct pending { /* what a completion needs to know */
	struct nbd_store *n;
	struct blk_io *io;
};

static int on_complete(void *ctx, int *error)
{
	struct pending *p = ctx;

	p->io->result = *error ? -*error : (int64_t)p->io->len;
	p->io->next = p->n->done;
	p->n->done = p->io;
	return 1; /* retire it */
}

static int64_t command(struct nbd_store *n, struct blk_io *io, void *buf)
{
	struct pending *p = malloc(sizeof *p);

	if (!p)
		return -1;
	*p = (struct pending){n, io};
	nbd_completion_callback cb = {.callback = on_complete, .user_data = p, .free = free};
	switch (io->op) {
	case BLK_READ: return nbd_aio_pread(n->h, buf, io->len, io->at, cb, 0);
	case BLK_WRITE: return nbd_aio_pwrite(n->h, buf, io->len, io->at, cb, io->fua ? LIBNBD_CMD_FLAG_FUA : 0);
	case BLK_FLUSH: return nbd_aio_flush(n->h, cb, 0);
	case BLK_DISCARD: return nbd_aio_trim(n->h, io->len, io->at, cb, 0);
	default: return nbd_aio_zero(n->h, io->len, io->at, cb, io->unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
	}
}

static void watch(struct nbd_store *n)
{
	unsigned dir = n->dead ? 0 : nbd_aio_get_direction(n->h);

	ipc_watch_enable(n->in, dir & LIBNBD_AIO_DIRECTION_READ);
	ipc_watch_enable(n->out, dir & LIBNBD_AIO_DIRECTION_WRITE);
}

static void copy(const struct blk_io *io, bool in)
{
	uint8_t *p = io->bounce;
	uint64_t left = io->len;

	for (const struct iovec *v = io->iov; left; v++) {
		uint64_t k = v->iov_len < left ? v->iov_len : left;
		memcpy(in ? v->iov_base : p, in ? p : v->iov_base, k);
		p += k;
		left -= k;
	}
}

static bool needs_bounce(const struct blk_io *io)
{
	return (io->op == BLK_READ || io->op == BLK_WRITE) && io->niov > 1 && io->iov->iov_len < BOUNCE_SIZE;
}

static int64_t send_data(struct nbd_store *n, struct blk_io *io)
{
	void *buf = io->iov->iov_base;

	if (!needs_bounce(io)) {
		io->len = io->iov->iov_len < io->len ? io->iov->iov_len : io->len;
		io->len = io->len < BOUNCE_SIZE * 16 ? io->len : BOUNCE_SIZE * 16;
		io->len -= io->len % n->s.block; /* a piece need not end with a block */
	} else {
		io->len = io->len < BOUNCE_SIZE ? io->len : BOUNCE_SIZE;
		buf = io->bounce = n->bounce[--n->nbounce];
		if (io->op == BLK_WRITE)
			copy(io, false);
	}
	return command(n, io, buf);
}

/*
 * Zeroes that may unmap, in part of a cluster that reads as zeroes: qemu (7.2) frees the cluster even while a write to
 * another part of it is about to be entered in the tables, and then gives it away again: two clusters of the guest are in
 * one place from then on.  So only what is whole clusters, whatever their size, is unmapped.
 */
static void whole_clusters(struct blk_io *io)
{
	uint64_t off = io->at % CLUSTER_MAX, left = CLUSTER_MAX - off;

	io->unmap = !off && io->len >= CLUSTER_MAX;
	if (io->unmap)
		io->len -= io->len % CLUSTER_MAX;
	else if (io->len > left)
		io->len = left;
}

static int64_t nbd_submit(struct blk_store *s, struct blk_io *io)
{
	struct nbd_store *n = (struct nbd_store *)(void *)s;
	int64_t rc;

	io->bounce = NULL;
	if (n->dead)
		return -EIO;
	if (io->op == BLK_FLUSH && !n->flush)
		return 0; /* a server without a cache */
	if (needs_bounce(io) && !n->nbounce) {
		io->next = NULL;
		*n->wait_end = io;
		n->wait_end = &io->next;
		return BLK_PENDING;
	}
	if (io->op == BLK_READ || io->op == BLK_WRITE) {
		rc = send_data(n, io);
	} else {
		io->len = io->len < RANGE_MAX ? io->len : RANGE_MAX;
		if (io->op == BLK_ZEROES && io->unmap)
			whole_clusters(io);
		rc = command(n, io, NULL);
	}
	if (rc >= 0)
		return BLK_PENDING;
	if (io->bounce)
		n->bounce[n->nbounce++] = io->bounce;
	return nbd_get_errno() ? -nbd_get_errno() : -EIO;
}

static void complete(struct nbd_store *n, struct blk_io *io)
{
	if (io->bounce) {
		if (io->op == BLK_READ && io->result > 0)
			copy(io, true);
		n->bounce[n->nbounce++] = io->bounce;
		io->bounce = NULL;
	}
	blk_done(io, io->op == BLK_FLUSH && io->result > 0 ? 0 : io->result);
}

static struct blk_io *next_waiting(struct nbd_store *n)
{
	struct blk_io *io = n->wait;

	if (!io || !n->nbounce)
		return NULL;
	n->wait = io->next;
	if (!n->wait)
		n->wait_end = &n->wait;
	return io;
}

/* Everything that has come, and what it makes possible. */
static void reap(struct nbd_store *n)
{
	struct blk_io *io;
	int64_t rc;

	while ((io = n->done)) {
		n->done = io->next;
		complete(n, io);
	}
	while ((io = next_waiting(n))) {
		rc = nbd_submit(&n->s, io);
		if (rc != BLK_PENDING)
			blk_done(io, rc);
	}
}

static void nbd_kick(struct blk_store *s)
{
	struct nbd_store *n = (struct nbd_store *)(void *)s;

	if (n->busy)
		return; /* from within reap(): its caller looks again */
	n->busy = true;
	do
		reap(n);
	while (n->done);
	n->busy = false;
	watch(n);
}

static void notify(struct nbd_store *n, int (*call)(struct nbd_handle *))
{
	if (call(n->h) < 0 && (nbd_aio_is_dead(n->h) || nbd_aio_is_closed(n->h)) && !n->dead) {
		n->dead = true; /* its commands have been completed with errors */
		log_error("the NBD server is gone: %s", nbd_get_error());
	}
	nbd_kick(&n->s);
	blk_settle(n->b);
}

static void on_readable(void *ctx)
{
	struct nbd_store *n = ctx;

	if (nbd_aio_get_direction(n->h) & LIBNBD_AIO_DIRECTION_READ)
		notify(n, nbd_aio_notify_read);
}

static void on_writable(void *ctx)
{
	struct nbd_store *n = ctx;

	if (nbd_aio_get_direction(n->h) & LIBNBD_AIO_DIRECTION_WRITE)
		notify(n, nbd_aio_notify_write);
}

static const struct blk_store_ops ops = {"nbd", nbd_submit, nbd_kick};

/* ---- making it ---- */

static int look(struct nbd_store *n, const char **why)
{
	int64_t size = nbd_get_size(n->h), least = nbd_get_block_size(n->h, LIBNBD_SIZE_MINIMUM);

	if (size < 0) {
		*why = nbd_get_error();
		return -EIO;
	}
	if (least > BLOCK_MAX || (least & (least - 1))) {
		*why = "its blocks are too large";
		return -EINVAL;
	}
	n->s.size = (uint64_t)size;
	n->s.block = least > BLK_SECTOR ? (uint32_t)least : BLK_SECTOR;
	n->s.discard = nbd_can_trim(n->h) > 0;
	n->s.zeroes = n->s.unmap = nbd_can_zero(n->h) > 0;
	n->s.fua = nbd_can_fua(n->h) > 0;
	n->flush = nbd_can_flush(n->h) > 0;
	return 0;
}

static int buffers(struct nbd_store *n)
{
	for (; n->nbounce < BOUNCES; n->nbounce++) {
		n->bounce[n->nbounce] = aligned_alloc(4096, BOUNCE_SIZE);
		if (!n->bounce[n->nbounce])
			return -ENOMEM;
	}
	return 0;
}

int blk_nbd_open(struct blk *b, int fd, struct blk_store **store, const char **why)
{
	struct nbd_store *n = calloc(1, sizeof *n);

	*why = "no memory";
	if (!n || buffers(n))
		return -ENOMEM;
	n->b = b;
	n->s.ops = &ops;
	n->wait_end = &n->wait;
	n->h = nbd_create();
	if (!n->h || nbd_connect_socket(n->h, fd) < 0) {
		*why = nbd_get_error();
		return -EIO;
	}
	int rc = look(n, why);
	if (rc)
		return rc;
	n->in = ipc_watch_fd(b->dev.loop, nbd_aio_get_fd(n->h), IPC_READ, on_readable, n);
	n->out = ipc_watch_fd(b->dev.loop, nbd_aio_get_fd(n->h), IPC_WRITE, on_writable, n);
	if (!n->in || !n->out)
		return -ENOMEM;
	watch(n);
	*store = &n->s;
	return 0;
}
