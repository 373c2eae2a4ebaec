/*
 * High precision event timer (IA-PC HPET specification 1.0a): a 64-bit counter of 10 ns and three comparators.  Called under
 * the platform's lock.
 */
#ifndef HVX_HPET_H
#define HVX_HPET_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/timer.h"

#define HPET_BASE   0xfed00000u
#define HPET_LEN    0x400u
#define HPET_ID     0x8086a201u /* low half of the capabilities: vendor, legacy routes, 64 bits, 3 timers, revision 1 */
#define HPET_TIMERS 3

struct hpet;
struct hpet_timer {
	uint64_t config, compare, period;
	bool accumulate; /* the next write of a period sets the comparator, too */
	uint64_t due;    /* counter at which it fires next, while it runs */
	struct hpet *all;
	struct timer timer;
};

struct hpet {
	uint64_t config, status, offset; /* counter: while it runs, the clock's ticks plus @offset; else @offset */
	struct hpet_timer t[HPET_TIMERS];
	struct hclock *clock;
	/* Interrupt line @gsi of the IOAPIC, and the legacy ones of the 8254 and the clock. */
	void (*irq)(void *ctx, unsigned gsi, bool level);
	/* They are the chip's own no longer, or are again. */
	void (*legacy)(void *ctx, bool on);
	void *ctx;
};

void hpet_init(struct hpet *h, struct hclock *clock, struct timerq *q);
void hpet_reset(struct hpet *h);

extern const struct bus_ops hpet_ops;

#endif
