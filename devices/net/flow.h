/*
 * Which pair of queues a connection belongs to.  See flow.c.
 */
#ifndef HVX_NET_FLOW_H
#define HVX_NET_FLOW_H

#include "devices/net/frame.h"

#define FLOWS 256u

struct flows {
	uint8_t pair[FLOWS]; /* plus 1; 0: not known */
};

/* A number below FLOWS, the same for both directions of a connection; 0 for what is no IP.  Of @f->head alone. */
unsigned flow_of(const struct frame *f);
/* The guest sends @f by this pair: what belongs to it is to come back there. */
void flow_sent(struct flows *t, const struct frame *f, unsigned pair);
/* Where to deliver @f when @pairs are in use; the same frame gets the same answer until something is sent. */
unsigned flow_pair(const struct flows *t, const struct frame *f, unsigned pairs);

#endif
