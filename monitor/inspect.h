/*
 * Reads an image's header in a process that can do nothing else.  See inspect.c.
 */
#ifndef HVX_MONITOR_INSPECT_H
#define HVX_MONITOR_INSPECT_H

#include "common/sandbox.h"
#include "monitor/header.h"

struct inspect_ask {
	enum disk_format format; /* FORMAT_AUTO: by the bytes */
	bool raw;                /* it is named like a raw image, or is a block device */
	bool write;              /* it is to be written */
};

struct inspection {
	int rc;
	char why[320]; /* the end of a sentence, where rc is not 0 */
	enum disk_format format;
	struct header_refs refs;
};

/* What @fd is, and what other files it names.  out->rc: 0 or a negative error, with out->why; and returned. */
int inspect(int fd, const struct inspect_ask *ask, struct inspection *out);

/* What runs in the helper, after its seal. */
typedef void inspect_fn(int fd, const struct inspect_ask *ask, struct inspection *out);
void inspect_here(int fd, const struct inspect_ask *ask, struct inspection *out);
/* As inspect(), with something else in inspect_here()'s place: for tests of the seal. */
int inspect_by(inspect_fn *fn, int fd, const struct inspect_ask *ask, struct inspection *out);

extern const struct sandbox_table inspect_seal;

#endif
