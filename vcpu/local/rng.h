/*
 * virtio-rng (virtio 1.2 5.4): the host's getrandom(2), no faster than a limit.  See rng.c.
 */
#ifndef HVX_LOCAL_RNG_H
#define HVX_LOCAL_RNG_H

#include "devices/limit.h"
#include "vcpu/local/local.h"

struct rng {
	struct local dev;
	struct limit limit;
	struct ipc_watch *tick; /* when the limit lets the next request through */
	uint64_t bytes;
};

/* Adds it at PCI number @slot; bytes a second and burst of @limit, 0: none.  0 or a negative error. */
int rng_create(struct rng *r, struct locals *l, unsigned slot, const struct msg_dev_limits *limit);
/* Another limit from now on. */
void rng_limit(struct rng *r, const struct msg_dev_limits *limit);

#endif
