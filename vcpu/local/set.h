/*
 * The devices that the vcpu process serves itself, as the monitor's configuration asks for them.  See set.c.
 */
#ifndef HVX_LOCAL_SET_H
#define HVX_LOCAL_SET_H

#include "vcpu/local/balloon.h"
#include "vcpu/local/console.h"
#include "vcpu/local/memlink.h"
#include "vcpu/local/rng.h"

struct local_set {
	struct locals locals;
	struct memlink mem; /* vm.memlink, if there is one */
	struct rng rng;
	struct balloon balloon;
	struct vconsole console;
};

/* After the platform and cards_init(), before the final seal.  @fd has the descriptors by enum msg_fd; those it uses
 * become the devices'.  0 or a negative error. */
int local_set_create(struct local_set *s, struct vm *vm, struct ipc_loop *loop, const struct msg_local *cfg,
		     const int *fd);

#endif
