/*
 * The io_uring of hvx-blk.  See uring.c.
 */
#ifndef HVX_BLK_URING_H
#define HVX_BLK_URING_H

#include <liburing.h>

/* A ring that can do nothing but read, write, fdatasync and fallocate these files, by their index, and be given nothing
 * else: however it is used.  0 or a negative error. */
int blk_uring_make(struct io_uring *ring, const int *fds, unsigned n);

#endif
