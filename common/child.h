/*
 * The start of every child of the monitor: arguments, seal, hello, configuration.
 * See child.c.
 */
#ifndef HVX_CHILD_H
#define HVX_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/ipc.h"
#include "common/sandbox.h"
#include "proto/pack.h"

#define CHILD_CONTROL_FD 3 /* the socket to the monitor; 0 and 1 are /dev/null, 2 takes log lines */

struct child {
	const char *program; /* hvx-vcpu */
	enum msg_role role;
	const struct sandbox_table *table;
	bool strict;
	uint32_t ns;          /* namespaces the monitor made for us */
	uint32_t layers;      /* reached so far */
	uint64_t own, shared; /* bytes that the configuration needs: of its own beyond the table's, of others' memory */
	char missing[MSG_TEXT_MAX];
	uint8_t buf[IPC_MAX_DATA]; /* for frames in and out */
};

/*
 * Parses the arguments, closes all descriptors but 0 to 3, enters the sandbox with the
 * set-up filter and says hello.  Does not return when something the user asked for
 * is missing: then the monitor gets a Failed message.  program, role and table must be set.
 */
void child_start(struct child *c, int argc, char **argv);

/* Waits for a frame, whatever it is; its descriptors are the caller's.  Exits when the monitor is gone. */
void child_next(struct child *c, struct ipc_frame *f);
/* Waits for a frame of @type; its descriptors are the caller's.  Exits when the monitor is gone or
 * sends something else. */
void child_expect(struct child *c, uint16_t type, struct ipc_frame *f);

/* Sends @len bytes of c->buf, or exits when that fails. */
void child_send(struct child *c, uint16_t type, int len, const int *fds, int nfds);

/* Limits the memory, adds the final filter to all threads and tells the monitor. */
void child_seal(struct child *c);

/* Tells the monitor why start-up cannot go on, and exits with @status. */
void child_fail(struct child *c, int status, const char *fmt, ...) __attribute__((noreturn, format(printf, 3, 4)));

#endif
