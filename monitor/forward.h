/*
 * Ports of the host that a card forwards.  See forward.c.
 */
#ifndef HVX_MONITOR_FORWARD_H
#define HVX_MONITOR_FORWARD_H

#include "monitor/devopt.h"

/* Sockets that keep others from what passt has not taken yet. */
struct forward_claim {
	int fd[2 * DEVOPT_PORTS]; /* of both families where no address is given */
	unsigned n;
};

/* Can every port that @n forwards be had?  From a success until forward_release() no other monitor's call succeeds for
 * one of its UDP ports.  0 or -EADDRINUSE and the like, with a line in @err that names the port. */
int forward_claim(struct forward_claim *c, const struct net_option *n, char *err, size_t len);
void forward_release(struct forward_claim *c);

#endif
