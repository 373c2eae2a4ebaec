/*
 * Raw files by a few threads that make plain system calls, for hosts that forbid io_uring.  Invariant:
 * the threads touch a blk_io only between submit and the list of what is done; all else is the loop's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/rank.h"
#include "devices/blk/blk.h"

#define FILES_MAX 2
#define THREADS   8

struct pool;
struct file {
	struct blk_store s;
	struct pool *p;
	int fd;
};
struct pool {
	struct blk *b;
	struct ipc_watch *watch;
	int event; /* eventfd: something is done */
	struct file file[FILES_MAX];
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t work;
	struct blk_io *todo, **todo_end, *done;
	int running;
};

static int64_t result(ssize_t n)
{
	return n < 0 ? -errno : n;
}

static int64_t perform(int fd, const struct blk_io *io)
{
	int zero = io->unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
	int mode = FALLOC_FL_KEEP_SIZE | (io->op == BLK_DISCARD ? FALLOC_FL_PUNCH_HOLE : zero);

	switch (io->op) {
	case BLK_READ: return result(preadv2(fd, io->iov, (int)io->niov, (off_t)io->at, 0));
	case BLK_WRITE: return result(pwritev2(fd, io->iov, (int)io->niov, (off_t)io->at, io->fua ? RWF_DSYNC : 0));
	case BLK_FLUSH: return result(fdatasync(fd));
	default: return fallocate(fd, mode, (off_t)io->at, (off_t)io->len) < 0 ? -errno : (int64_t)io->len;
	}
}

static void *thread(void *ctx)
{
	static const uint64_t one = 1;
	struct pool *p = ctx;

	pthread_mutex_lock(&p->lock);
	p->running++;
	pthread_cond_broadcast(&p->work);
	for (;;) {
		while (!p->todo)
			pthread_cond_wait(&p->work, &p->lock);
		struct blk_io *io = p->todo;
		p->todo = io->next;
		if (!p->todo)
			p->todo_end = &p->todo;
		pthread_mutex_unlock(&p->lock);
		io->result = perform(((struct file *)io->bounce)->fd, io);
		pthread_mutex_lock(&p->lock);
		io->next = p->done;
		p->done = io;
		if (!io->next && write(p->event, &one, sizeof one) < 0)
			fatal(HVX_EXIT_FAIL, "wake-up of the loop: %s", strerror(errno));
	}
	return NULL;
}

static int64_t pool_submit(struct blk_store *s, struct blk_io *io)
{
	struct file *f = (struct file *)(void *)s;
	struct pool *p = f->p;

	if (io->op == BLK_READ) { /* what the host has in memory needs no thread */
		ssize_t n = preadv2(f->fd, io->iov, (int)io->niov, (off_t)io->at, RWF_NOWAIT);
		if (n > 0)
			return n;
	}
	io->bounce = f;
	io->next = NULL;
	pthread_mutex_lock(&p->lock);
	*p->todo_end = io;
	p->todo_end = &io->next;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
	return BLK_PENDING;
}

static void pool_kick(struct blk_store *s)
{
	(void)s; /* the threads are at it already */
}

static void on_done(void *ctx)
{
	struct pool *p = ctx;
	uint64_t n;
	struct blk_io *io, *next;

	if (read(p->event, &n, sizeof n) < 0)
		return;
	pthread_mutex_lock(&p->lock);
	io = p->done;
	p->done = NULL;
	pthread_mutex_unlock(&p->lock);
	for (; io; io = next) {
		next = io->next;
		blk_done(io, io->result);
	}
	blk_settle(p->b);
}

static const struct blk_store_ops ops = {"threads", pool_submit, pool_kick};

/* They must have started before the final seal: what libc does for a new thread is not in it. */
static int start(struct pool *p)
{
	pthread_t t;

	for (int i = 0; i < THREADS; i++) {
		int rc = pthread_create(&t, NULL, thread, p);
		if (rc)
			return -rc;
	}
	pthread_mutex_lock(&p->lock);
	while (p->running < THREADS)
		pthread_cond_wait(&p->work, &p->lock);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

int blk_threads_open(struct blk *b, const int *fds, unsigned n, struct blk_store **stores)
{
	struct pool *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	p->b = b;
	p->todo_end = &p->todo;
	pthread_mutex_init(&p->lock, NULL);
	RANK_GIVE(&p->lock, RANK_POOL);
	pthread_cond_init(&p->work, NULL);
	for (unsigned i = 0; i < n; i++) {
		p->file[i] = (struct file){.s = {.ops = &ops}, .p = p, .fd = fds[i]};
		stores[i] = &p->file[i].s;
	}
	p->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	p->watch = p->event < 0 ? NULL : ipc_watch_fd(b->dev.loop, p->event, IPC_READ, on_done, p);
	return p->watch ? start(p) : -ENOMEM;
}
