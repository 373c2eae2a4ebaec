/*
 * Disk images: opened, locked, recognised.  See image.c.
 */
#ifndef HVX_MONITOR_IMAGE_H
#define HVX_MONITOR_IMAGE_H

#include "monitor/devopt.h"

/*
 * Opens what @d names, as it may be used: read-only for a read-only disk and for one whose writes go to a snapshot.
 * Takes the lock that keeps a second writer away; it lives as long as any copy of *fd.  Settles d->format.
 * 0, or a negative error with a line in @err.
 */
/* Takes the lock of the file that @fd is; 0, -EBUSY with a name for who has it in @who, or a negative error. */
int image_lock(int fd, bool write, char *who, size_t len);

int image_open(struct disk_option *d, int *fd, char *err, size_t len);

/* An unnamed, empty file for a snapshot's writes, in TMPDIR or /var/tmp; or a negative error. */
int image_overlay(void);

#endif
