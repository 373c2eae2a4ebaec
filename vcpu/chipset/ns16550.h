/*
 * 16550A UART.  Called under the platform's lock.
 */
#ifndef HVX_NS16550_H
#define HVX_NS16550_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/timer.h"

#define NS16550_FIFO 16
#define NS16550_TX   4096 /* bytes kept while the output does not take them */
#define NS16550_RX   1024 /* bytes kept while the guest does not read them */

struct ns16550 {
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr, dll, dlm, rbr;
	uint8_t polls;              /* LSR reads in a row, see held_back() */
	bool thri;                  /* transmitter-empty interrupt waits to be told */
	int out;                    /* fd, non-blocking; -1: bytes vanish */
	bool wired;                 /* someone is at the other end: CTS, DSR, DCD */
	uint8_t fifo[NS16550_FIFO]; /* receiver */
	unsigned fifo_head, fifo_n;
	uint8_t rx[NS16550_RX]; /* waiting for room in the receiver */
	unsigned rx_head, rx_n;
	uint8_t tx[NS16550_TX]; /* sent by the guest, not yet taken by the fd */
	unsigned tx_head, tx_n;
	uint64_t stalled; /* since when the fd takes nothing, 0: it does */
	uint64_t dropped; /* bytes thrown away after a long stall */
	struct hclock *clock;
	struct timer timer; /* next attempt to write */
	struct irq_out irq;
};

extern const struct bus_ops ns16550_ops;

void ns16550_init(struct ns16550 *u, struct hclock *clock, struct timerq *q, struct irq_out irq, int out, bool wired);
void ns16550_reset(struct ns16550 *u);
size_t ns16550_room(const struct ns16550 *u);
size_t ns16550_input(struct ns16550 *u, const uint8_t *buf, size_t len); /* bytes taken */
void ns16550_flush(struct ns16550 *u); /* hands pending output to the fd, as far as it takes it */

#endif
