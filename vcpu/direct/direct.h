/* Ring 3 run as it is, in stub processes.  See direct.c. */
#ifndef HVX_DIRECT_H
#define HVX_DIRECT_H

#include <stdbool.h>

#include "proto/pack.h"
#include "vcpu/vcpu.h"

/*
 * Before the process is sealed: takes over what the stubs at the other ends of @channels, -1 for none, send.  @v is the VM's only
 * CPU.  0 or a negative error.
 */
int direct_init(struct vcpu *v, enum msg_direct when, const int channels[MSG_STUBS]);

/*
 * vm.direct: with @v at ring 3 and direct_due, runs it in a stub as far as that goes.  True: it did, @v is at an instruction boundary
 * or has raised something; false: it is for translated code, until it next returns to ring 3.
 */
bool direct_run(struct vcpu *v);

#endif
