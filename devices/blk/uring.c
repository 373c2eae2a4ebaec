/*
 * Raw files by io_uring.  Invariant: before the final seal the ring is restricted to reads, writes, fdatasync
 * and fallocate of the files that were registered: io_uring is no way around the filter of system calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "devices/blk/blk.h"
#include "devices/blk/uring.h"

#define FILES_MAX 2

struct uring;
struct uring_store {
	struct blk_store s;
	struct uring *u;
	int index; /* of the registered file */
};
struct uring {
	struct io_uring ring;
	struct blk *b;
	struct ipc_watch *watch;
	bool unsubmitted;
	struct uring_store store[FILES_MAX];
};

static void submit_now(struct uring *u)
{
	int rc;

	do
		rc = io_uring_submit(&u->ring);
	while (rc == -EINTR);
	if (rc < 0 && rc != -EAGAIN && rc != -EBUSY)
		fatal(HVX_EXIT_FAIL, "io_uring: %s", strerror(-rc));
	u->unsubmitted = io_uring_sq_ready(&u->ring); /* short of memory: once more */
}

static struct io_uring_sqe *entry(struct uring *u)
{
	struct io_uring_sqe *e = io_uring_get_sqe(&u->ring);

	if (e)
		return e;
	submit_now(u);
	return io_uring_get_sqe(&u->ring);
}

static void prepare(struct io_uring_sqe *e, const struct blk_io *io, int fd)
{
	const struct iovec *v = io->iov;
	int zero = io->unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	switch (io->op) {
	case BLK_READ:
		if (io->niov == 1)
			io_uring_prep_read(e, fd, v->iov_base, (unsigned)v->iov_len, io->at);
		else
			io_uring_prep_readv(e, fd, v, io->niov, io->at);
		break;
	case BLK_WRITE:
		if (io->niov == 1)
			io_uring_prep_write(e, fd, v->iov_base, (unsigned)v->iov_len, io->at);
		else
			io_uring_prep_writev(e, fd, v, io->niov, io->at);
		e->rw_flags = io->fua ? RWF_DSYNC : 0;
		break;
	case BLK_FLUSH: io_uring_prep_fsync(e, fd, IORING_FSYNC_DATASYNC); break;
	case BLK_DISCARD:
		io_uring_prep_fallocate(e, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)io->at,
					(off_t)io->len);
		break;
	case BLK_ZEROES:
		io_uring_prep_fallocate(e, fd, zero | FALLOC_FL_KEEP_SIZE, (off_t)io->at, (off_t)io->len);
		break;
	}
}

static int64_t uring_submit(struct blk_store *s, struct blk_io *io)
{
	struct uring_store *f = (struct uring_store *)(void *)s;
	struct io_uring_sqe *e = entry(f->u);

	if (!e)
		return -EAGAIN; /* not with as many entries as there are requests */
	prepare(e, io, f->index);
	e->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(e, io);
	f->u->unsubmitted = true;
	return BLK_PENDING;
}

/* One at a time: what blk_done() begins may come back here. */
static void reap(struct uring *u)
{
	struct io_uring_cqe *c;

	while (io_uring_peek_cqe(&u->ring, &c) == 0) {
		struct blk_io *io = io_uring_cqe_get_data(c);
		int64_t n = c->res;
		io_uring_cqe_seen(&u->ring, c);
		blk_done(io, n == 0 && (io->op == BLK_DISCARD || io->op == BLK_ZEROES) ? (int64_t)io->len : n);
	}
}

static void uring_kick(struct blk_store *s)
{
	struct uring *u = ((struct uring_store *)(void *)s)->u;

	do {
		if (u->unsubmitted)
			submit_now(u);
		reap(u);
	} while (u->unsubmitted);
}

static void on_ready(void *ctx)
{
	struct uring *u = ctx;

	uring_kick(&u->store[0].s);
	blk_settle(u->b);
}

static const struct blk_store_ops ops = {"io_uring", uring_submit, uring_kick};

/* ---- making it ---- */

/* Two of liburing's functions are not in the shared library of Debian 12. */
static int reg(struct io_uring *ring, unsigned what, void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, what, arg, n) < 0 ? -errno : 0;
}

static int restrict_ring(struct io_uring *ring)
{
	static const unsigned calls[] = {IORING_OP_READ,   IORING_OP_READV, IORING_OP_WRITE,
					 IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE};
	struct io_uring_restriction r[sizeof calls / sizeof calls[0] + 2];
	unsigned n = 0;

	memset(r, 0, sizeof r);
	for (; n < sizeof calls / sizeof calls[0]; n++) {
		r[n].opcode = IORING_RESTRICTION_SQE_OP;
		r[n].sqe_op = (uint8_t)calls[n];
	}
	r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	r[n++].sqe_flags = IOSQE_FIXED_FILE;
	r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
	r[n++].register_op = IORING_REGISTER_ENABLE_RINGS;
	return reg(ring, IORING_REGISTER_RESTRICTIONS, r, n);
}

int blk_uring_make(struct io_uring *ring, const int *fds, unsigned n)
{
	struct io_uring_params p = {.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN};
	int rc = io_uring_queue_init_params(BLK_QUEUE, ring, &p);

	if (rc == -EINVAL) { /* before Linux 5.19 */
		p = (struct io_uring_params){.flags = IORING_SETUP_R_DISABLED};
		rc = io_uring_queue_init_params(BLK_QUEUE, ring, &p);
	}
	if (rc)
		return rc;
	rc = io_uring_register_files(ring, fds, n);
	if (!rc)
		rc = restrict_ring(ring);
	if (!rc)
		rc = reg(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (rc)
		io_uring_queue_exit(ring);
	return rc > 0 ? 0 : rc;
}

int blk_uring_open(struct blk *b, const int *fds, unsigned n, struct blk_store **stores)
{
	struct uring *u = calloc(1, sizeof *u);
	int rc = u ? blk_uring_make(&u->ring, fds, n) : -ENOMEM;

	if (rc) {
		free(u);
		return rc;
	}
	u->b = b;
	for (unsigned i = 0; i < n; i++) {
		u->store[i] = (struct uring_store){.s = {.ops = &ops}, .u = u, .index = (int)i};
		stores[i] = &u->store[i].s;
	}
	u->watch = ipc_watch_fd(b->dev.loop, u->ring.ring_fd, IPC_READ, on_ready, u);
	return u->watch ? 0 : -ENOMEM;
}
