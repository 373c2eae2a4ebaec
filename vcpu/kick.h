/* Whose thread is this?  vcpu_kick() itself is everybody's: vcpu.h. */
#ifndef HVX_KICK_H
#define HVX_KICK_H

#include "vcpu/vcpu.h"

void kick_thread(struct vcpu *v); /* the calling thread runs @v from now on */
struct vcpu *kick_this(void);     /* the calling thread's, or NULL; async-signal-safe */

#endif
