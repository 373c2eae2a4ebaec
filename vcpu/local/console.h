/*
 * virtio-console (virtio 1.2 5.3) with one port: the guest's second console, on two pipes to the monitor.
 * See console.c.
 */
#ifndef HVX_LOCAL_CONSOLE_H
#define HVX_LOCAL_CONSOLE_H

#include "vcpu/local/local.h"

struct vconsole {
	struct local dev;
	int in, out; /* non-blocking; in is -1 after its end */
	struct ipc_watch *readable, *writable;
	/* read, and not yet taken by the guest */
	uint8_t input[512];
	size_t input_at, input_n;
	/* the chain that is being written out */
	bool sending;
	size_t sent;
	struct virtq_chain chain;
	uint64_t to_guest, from_guest; /* bytes */
	uint16_t size[2];              /* columns, rows; 0: not known */
	bool sized;                    /* the driver has been told */
};

/* Adds it at PCI number @slot; both descriptors become the console's.  0 or a negative error. */
int vconsole_create(struct vconsole *c, struct locals *l, unsigned slot, int in, int out);
/* The user's terminal has this size. */
void vconsole_size(struct vconsole *c, uint16_t columns, uint16_t rows);

#endif
