/*
 * Whether passt and qemu-nbd serve.  See ready.c.
 */
#ifndef HVX_MONITOR_READY_H
#define HVX_MONITOR_READY_H

#include <stdbool.h>

#define READY_BUFFER \
	(4 << 20) /* of passt's sockets: it drops what it cannot send at once; as much as the host allows */

struct card;
struct machine;
struct proc;

/* The process that was started last stands behind @c and serves c->backend: its card is configured when it gives its
 * sign. 0 or a negative error. */
int ready_await(struct machine *m, struct card *c);
void ready_forget(struct card *c); /* harmless when nothing is awaited */

/* A tool has died.  True when nobody had heard of it yet: then that is told, and the VM ends. */
bool ready_died(struct machine *m, struct proc *p, int wstatus);

#endif
