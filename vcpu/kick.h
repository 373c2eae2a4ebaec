/* Whose thread is this?  vcpu_kick() itself is everybody's: vcpu.h. */
#ifndef HVX_KICK_H
#define HVX_KICK_H

#include "vcpu/vcpu.h"

void kick_thread(struct vcpu *v); /* the calling thread runs @v from now on */
struct vcpu *kick_this(void);     /* the calling thread's, or NULL; async-signal-safe */
/* @v, at a boundary, waits for another CPU in a loop: after some of these its thread lets others run. */
void kick_pause(struct vcpu *v);
void kick_again(struct vcpu *v); /* a signal, whatever is pending */
/* @v's thread: it goes to sleep on v->pending, or has woken up; it looks at pending after this. */
void kick_sleep(struct vcpu *v, bool asleep);

#endif
