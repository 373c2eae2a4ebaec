/*
 * The root and the seal of programs that are not ours: qemu-nbd, passt.  See confine.c.
 */
#ifndef HVX_MONITOR_CONFINE_H
#define HVX_MONITOR_CONFINE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/sandbox.h"

#define CONFINE_FILES 96

/* Where O_PATH descriptors of the image's files are, in the program, from which number on, and under which names they are
 * opened. */
#define CONFINE_IMAGE_FD     4
#define CONFINE_IMAGE        "/proc/self/fd/4"
#define CONFINE_IMAGE_PREFIX "/proc/self/fd/"
#define CONFINE_IMAGES       32

/* What a program may see of the host's files: itself, its loader and libraries, and what else it reads. */
struct confine {
	char *file[CONFINE_FILES];
	unsigned n;
	const char *program;
	unsigned images;   /* so many descriptors from CONFINE_IMAGE_FD on are one */
	uint32_t writable; /* those, a bit each */
};

/*
 * Finds what @program needs, by asking its own loader, and adds @more (NULL-terminated; what is not there is left
 * out).  0 or a negative error with @err filled.  confine_free() in any case.
 */
int confine_find(struct confine *c, const char *program, const char *const *more, char *err, size_t len);
void confine_free(struct confine *c);

/* For struct sandbox_guest. */
int confine_root(void *c);
int confine_grants(void *c, bool emptied, struct sandbox_grant g[SANDBOX_GRANTS]);

#endif
