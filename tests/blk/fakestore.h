/*
 * A store in memory that does what the test says: at once, later and in any order, in small pieces, with errors.
 * See fakestore.c.
 */
#ifndef HVX_TEST_FAKESTORE_H
#define HVX_TEST_FAKESTORE_H

#include "devices/blk/blk.h"

struct fakestore {
	struct blk_store s;
	uint8_t *data;
	bool later;     /* steps wait for fakestore_complete() */
	bool eager;     /* kick() completes what waits, last one first */
	uint64_t piece; /* bytes of a step at most; 0: all */
	bool cut;  /* one of them, or of another store of this disk, was no whole block: nor is what comes after it */
	int error; /* negative: the next steps of @error_op fail with it, @errors times */
	enum blk_op error_op;
	unsigned errors;
	unsigned lacks; /* bit an enum blk_op: -EOPNOTSUPP */
	bool lies;      /* reads and writes do nothing: 0 bytes */
	unsigned nheld;
	struct blk_io *held[BLK_QUEUE];
	/* what was asked for */
	unsigned n[BLK_ZEROES + 1], fua, unmap, kicks;
	uint64_t bytes[BLK_ZEROES + 1];
};

/* @size bytes of zeroes, blocks of @block. */
void fakestore_init(struct fakestore *f, uint64_t size, uint32_t block);
void fakestore_free(struct fakestore *f);
/* The next @times steps of @op fail. */
void fakestore_fail(struct fakestore *f, enum blk_op op, int error, unsigned times);
/* Does step number @i of those that wait (0: the oldest) and tells the front end. */
void fakestore_complete(struct fakestore *f, unsigned i);

#endif
