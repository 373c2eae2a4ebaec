/*
 * The switch: ports, and what becomes of a frame.  See switch.c.
 */
#ifndef HVX_NET_SWITCH_H
#define HVX_NET_SWITCH_H

#include <sys/types.h>

#include "common/ipc.h"
#include "devices/net/macs.h"

struct switch_options {
	uint64_t ageing;
	bool strict;
	bool any_user; /* else only @user may join */
	uid_t user;
};

struct eswitch;

/* Serves the listening socket @fd within @l.  NULL when there is no memory. */
struct eswitch *switch_new(struct ipc_loop *l, int fd, const struct switch_options *o);
void switch_free(struct eswitch *s);
/* Logs a line a port. */
void switch_report(const struct eswitch *s);

#endif
