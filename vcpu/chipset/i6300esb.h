/*
 * The watchdog of the Intel 6300ESB I/O controller hub: two stages, a register file of 16 bytes.  See i6300esb.c.
 * Called under the platform's lock.
 */
#ifndef HVX_I6300ESB_H
#define HVX_I6300ESB_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/pci.h"
#include "vcpu/chipset/timer.h"

struct i6300esb {
	struct pci_func f;
	struct hclock *clock;
	struct timer timer;
	void (*expired)(void *ctx); /* the second stage has run out, and the guest wants to be told */
	void *ctx;
	uint32_t preload[2];
	unsigned stage;  /* 0: not counting, else 1 or 2 */
	unsigned unlock; /* how many bytes of the sequence have come */
	bool interrupt;  /* of the first stage, until it is cleared */
	bool timeout;    /* survives resets, so that the guest can tell why it starts */
	bool held;       /* the VM is paused: the time that is left stands still */
	uint64_t left;
	uint64_t reloads, stages, timeouts; /* counters */
};

int i6300esb_add(struct pci *p, struct i6300esb *w, uint8_t devfn, struct hclock *clock, struct timerq *q);
void i6300esb_reset(struct i6300esb *w);
/* The guest does not run, and runs again. */
void i6300esb_hold(struct i6300esb *w, bool hold);

#endif
