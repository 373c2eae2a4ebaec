/*
 * The pool of merged pages of a VM or a group.  See pool.c.
 */
#ifndef HVX_MONITOR_POOL_H
#define HVX_MONITOR_POOL_H

#include <stddef.h>
#include <stdint.h>

/* A memfd of @size bytes that keeps its size: *rw for hvx-memsvc, *ro for those who read.  0, or an exit status with @err. */
int pool_make(uint64_t size, int *rw, int *ro, char *err, size_t len);

#endif
