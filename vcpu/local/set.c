/*
 * Which local devices there are.  Invariant: a device has the same place on the bus whatever else the
 * VM has: these from the top, cards from the bottom.
 */
#include "vcpu/local/set.h"

#include <errno.h>

enum { SLOT_CONSOLE = 27, SLOT_BALLOON = 29, SLOT_RNG }; /* 28 is the watchdog's (chipset/platform.c) */

int local_set_create(struct local_set *s, struct vm *vm, struct ipc_loop *loop, const struct msg_local *cfg,
		     const int *fd)
{
	int rc = locals_init(&s->locals, vm, loop);

	if (!rc && cfg->rng) {
		const struct msg_dev_limits limit = {.bytes = cfg->rng_bytes, .bytes_burst = cfg->rng_burst};
		rc = rng_create(&s->rng, &s->locals, SLOT_RNG, &limit);
	}
	if (!rc && fd[FD_MEMSVC] >= 0)
		rc = memlink_create(&s->mem, vm, loop, fd[FD_MEMSVC]);
	if (!rc && cfg->balloon)
		rc = vm->memlink ? balloon_create(&s->balloon, &s->locals, SLOT_BALLOON, &s->mem) : -EPROTO;
	if (!rc && fd[FD_VCONSOLE_OUT] >= 0 && fd[FD_VCONSOLE_IN] >= 0)
		rc = vconsole_create(&s->console, &s->locals, SLOT_CONSOLE, fd[FD_VCONSOLE_IN], fd[FD_VCONSOLE_OUT]);
	return rc;
}
