/*
 * Locks on images.  See imagelock.c.
 */
#ifndef HVX_MONITOR_IMAGELOCK_H
#define HVX_MONITOR_IMAGELOCK_H

#include <stdbool.h>
#include <stddef.h>

/* Takes the lock, alone for @write, else with others that only read.  Waits for the kernel to let go of what a dead process had.
 * 0, -EBUSY or another negative error. */
int image_lock(int fd, bool write);

/* "hvx-monitor, process 12, VM web" as far as the host tells. */
void image_lock_holder(int fd, char *s, size_t len);

#endif
