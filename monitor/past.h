/*
 * VMs that have been: a small file in the runtime directory.  See past.c.
 */
#ifndef HVX_MONITOR_PAST_H
#define HVX_MONITOR_PAST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "monitor/runtime.h"
#include "proto/pack.h"

#define PAST_SLOTS 128
#define PAST_SLOT  256 /* bytes, a line each */

struct past {
	uint64_t seq;           /* one more than that of the one before */
	int64_t started, ended; /* seconds since 1970; ended 0: it runs, or its monitor was killed */
	pid_t monitor;
	int status; /* of the command's exit */
	char name[MSG_NAME_MAX], cause[128];
};

/* Writes down that the VM of this process starts.  The descriptor for past_end(), or a negative error. */
int past_begin(const struct runtime *r, const char *name, struct past *p);
/* And that it has ended.  One write, nothing is opened. */
void past_end(int fd, struct past *p, int status, const char *cause);

/* Calls @each for all that have ended, the oldest first: also those whose monitor is gone without a word. */
int past_each(const struct runtime *r, void (*each)(void *ctx, const struct past *p, bool lost), void *ctx);

/* For tests: a slot's text, and back; false: it is none. */
void past_format(const struct past *p, char text[PAST_SLOT + 1]);
bool past_parse(const char *text, struct past *p);

#endif
