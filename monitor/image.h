/*
 * Disk images and the files that they consist of: opened, locked, recognised.  See image.c.
 */
#ifndef HVX_MONITOR_IMAGE_H
#define HVX_MONITOR_IMAGE_H

#include "monitor/beneath.h"
#include "monitor/devopt.h"
#include "monitor/header.h"

#define IMAGE_FILES_MAX 32 /* of one disk: itself and all that it names, and what those name */
#define IMAGE_ALLOWED   8  /* --allow-path */

struct image_file {
	int fd;   /* open as it may be used, and locked */
	int hand; /* what the server opens instead: a descriptor of ours with other names in it; -1 */
	enum disk_format format;
	enum header_link link; /* how @parent names it; of all but the first */
	unsigned parent, depth;
	bool write, block;
	unsigned root;       /* where it lies: below which folder, */
	char path[PATH_MAX]; /* and there where */
};

struct image {
	struct image_file file[IMAGE_FILES_MAX]; /* the first is what the user named */
	unsigned n, nroots;
	struct beneath_root root[1 + IMAGE_ALLOWED]; /* its own folder, and those allowed besides */
};

/*
 * Opens what @d names, as it may be used: read-only for a read-only disk and for one whose writes go to a snapshot; and what that
 * refers to, below its folder or one of the @nallowed ones: backing files read-only, data files and extents as itself.
 * Takes the locks that keep a second writer away; they live as long as any copy of the descriptors.  Settles d->format.
 * 0 and *out, or a negative error with a line in @err.
 */
int image_open(struct disk_option *d, const char (*allowed)[PATH_MAX], unsigned nallowed, struct image **out, char *err,
	       size_t len);

/* Closes all of it.  NULL is fine. */
void image_free(struct image *i);

/* The descriptor of its first file; the rest is freed.  For raw images, which are one file. */
int image_take(struct image *i);

/* An unnamed, empty file for a snapshot's writes, in TMPDIR or /var/tmp; or a negative error. */
int image_overlay(void);

#endif
