/*
 * Lines that come through a pipe from a process nobody trusts.  See lines.c.
 */
#ifndef HVX_MONITOR_LINES_H
#define HVX_MONITOR_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include "common/ipc.h"
#include "common/log.h"

struct lines {
	int fd; /* -1: closed; zeroed: never opened */
	struct ipc_watch *watch;
	struct log_source from;
	char text[512];
	size_t len;
	char error[256]; /* the last line that began so, without the word; may be empty */
	bool holds;      /* the last line is kept, and none is logged: it may tell why the process fails */
	char last[256];
};

/* Makes the pipe; the writing end, non-blocking and close-on-exec, is the caller's.  @name must outlive it; @shown as in
 * struct log_source.  0 or a negative error. */
int lines_open(struct lines *l, struct ipc_loop *loop, const char *name, bool shown, int *write_end);

void lines_take(struct lines *l);  /* logs what is there now */
void lines_close(struct lines *l); /* logs what is left; harmless when it is not open */

#endif
