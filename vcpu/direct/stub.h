/* One stub process, as its vcpu sees it: orders for its helper, and its guest thread, stopped or let go.  See stub.c. */
#ifndef HVX_DIRECT_STUB_H
#define HVX_DIRECT_STUB_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/stub.h"
#include "vcpu/vcpu.h"

struct stub {
	struct stub_orders *o;
	uint8_t *stack;   /* our mapping of its signal stack */
	uint8_t *pattern; /* the frame as the kernel made it first: what is not guest state comes from here each time */
	uint64_t area;    /* in the stub */
	uint64_t id;      /* of the notification that waits for our answer */
	uint64_t fs, gs;  /* bases it has */
	uint32_t pid, frame, fpu; /* offsets in the stack: of the frame's context, of its extended state */
	uint64_t xstate;          /* components of extended state that it has */
	uint32_t xstate_size;     /* of the image that we copy */
	int listener, ack;
	bool dead, segs_changed;
};

/* Why guest code has stopped, as far as can be told: nothing depends on its being true. */
struct stub_stop {
	uint32_t signal, vector, error;
	int32_t code;
	uint64_t address;   /* of a page fault */
	uint64_t call_addr; /* of a system call that a filter caught */
};

/* Takes what hvx-stub sends over @channel, which is closed; waits for its first stop.  0 or -errno. */
int stub_init(struct stub *s, int channel);

/* Does the first @n orders; false when one failed, or the stub has died. */
bool stub_order(struct stub *s, unsigned n);

/* Guest code goes on with @v's state.  False: the stub has died. */
bool stub_go(struct stub *s, struct vcpu *v);
/*
 * Waits until it has stopped by itself, or something is pending for @v, in which case it is stopped.  False: the stub has died; @v
 * is as it was when it went on.  Else @v has its state; loads of segments that the guest's tables do not allow are raised.
 */
bool stub_wait(struct stub *s, struct vcpu *v, struct stub_stop *why);

/* SIGUSR1, by which this thread is kicked, is only taken within stub_wait(). */
void stub_block_kicks(bool block);

#endif
