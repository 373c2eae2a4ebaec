/*
 * The store in memory.  Invariant: it ends the test's process when the front end breaks the contract of struct blk_io:
 * a step out of range or not of whole blocks, pieces that are not its length.
 */
#include "tests/blk/fakestore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(cond)                                                                                  \
	do {                                                                                        \
		if (!(cond)) {                                                                      \
			fprintf(stderr, "fakestore: the front end broke its promise: %s\n", #cond); \
			abort();                                                                    \
		}                                                                                   \
	} while (0)

static void check(const struct fakestore *f, const struct blk_io *io)
{
	uint64_t sum = 0;

	if (io->op == BLK_FLUSH)
		return;
	MUST(io->len && io->at <= f->s.size && io->len <= f->s.size - io->at);
	if (!f->piece && !f->cut) /* a piece need not be whole blocks, and then what follows is not */
		MUST(!(io->at % f->s.block) && !(io->len % f->s.block));
	if (io->op != BLK_READ && io->op != BLK_WRITE)
		return;
	MUST(io->niov && io->niov <= VIRTQ_SEGS_MAX);
	for (unsigned i = 0; i < io->niov; i++) {
		MUST(io->iov[i].iov_len);
		sum += io->iov[i].iov_len;
	}
	MUST(sum == io->len);
}

static void copy(struct fakestore *f, const struct blk_io *io, uint64_t n)
{
	uint8_t *p = f->data + io->at;

	for (const struct iovec *v = io->iov; n; v++) {
		uint64_t k = v->iov_len < n ? v->iov_len : n;
		if (io->op == BLK_READ)
			memcpy(v->iov_base, p, k);
		else
			memcpy(p, v->iov_base, k);
		p += k;
		n -= k;
	}
}

static int64_t perform(struct fakestore *f, struct blk_io *io)
{
	uint64_t n = f->piece && f->piece < io->len ? f->piece : io->len;

	if (f->errors && f->error_op == io->op) {
		f->errors--;
		return f->error;
	}
	switch (io->op) {
	case BLK_READ:
	case BLK_WRITE:
		if (f->lies)
			return 0;
		copy(f, io, n);
		break;
	case BLK_FLUSH: return 0;
	case BLK_DISCARD:
	case BLK_ZEROES: memset(f->data + io->at, 0, n); break;
	}
	return (int64_t)n;
}

static int64_t submit(struct blk_store *s, struct blk_io *io)
{
	struct fakestore *f = (struct fakestore *)(void *)s;

	check(f, io);
	f->n[io->op]++;
	f->bytes[io->op] += io->op == BLK_FLUSH ? 0 : io->len;
	f->fua += io->op == BLK_WRITE && io->fua;
	f->unmap += io->op == BLK_ZEROES && io->unmap;
	if (f->lacks >> io->op & 1)
		return -EOPNOTSUPP;
	if (!f->later)
		return perform(f, io);
	MUST(f->nheld < BLK_QUEUE);
	f->held[f->nheld++] = io;
	return BLK_PENDING;
}

void fakestore_fail(struct fakestore *f, enum blk_op op, int error, unsigned times)
{
	f->error_op = op;
	f->error = error;
	f->errors = times;
}

void fakestore_complete(struct fakestore *f, unsigned i)
{
	struct blk_io *io = f->held[i];

	memmove(f->held + i, f->held + i + 1, (--f->nheld - i) * sizeof f->held[0]);
	blk_done(io, perform(f, io));
}

static void kick(struct blk_store *s)
{
	struct fakestore *f = (struct fakestore *)(void *)s;

	f->kicks++;
	while (f->eager && f->nheld)
		fakestore_complete(f, f->nheld - 1);
}

void fakestore_init(struct fakestore *f, uint64_t size, uint32_t block)
{
	static const struct blk_store_ops ops = {"fake", submit, kick};

	*f = (struct fakestore){.s = {&ops, size, block, true, true, true, true}, .data = calloc(1, size + 1)};
	MUST(f->data);
}

void fakestore_free(struct fakestore *f)
{
	free(f->data);
	f->data = NULL;
}
