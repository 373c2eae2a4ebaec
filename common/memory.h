/*
 * Guest RAM and the control region, mapped from what memsvc made.  See memory.c.
 */
#ifndef HVX_MEMORY_H
#define HVX_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "common/gmem.h"

/* Maps them and fills @g for @size bytes of RAM; what the memfd has beyond them is ROM.  0 or a negative error: -EPROTO when they are
 * not what they should be.  @pool_fd: merged pages, -1: there are none.  The descriptors stay the caller's. */
int memory_map(struct gmem *g, int ram_fd, int control_fd, int pool_fd, uint64_t size);

/* @size zeroed bytes of the process's own, on huge pages where the host has them, the last of them too; NULL with errno. */
void *memory_anon(size_t size);
void memory_anon_free(void *p, size_t size); /* NULL: nothing to do */

#endif
