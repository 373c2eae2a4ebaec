/*
 * What the io_uring of a sealed hvx-blk refuses.  See uring_probe.c.
 */
#ifndef HVX_TEST_URING_PROBE_H
#define HVX_TEST_URING_PROBE_H

/* The number of things that were not refused; 0 too where the host has no io_uring for us, which is said. */
unsigned uring_probe(void);

#endif
