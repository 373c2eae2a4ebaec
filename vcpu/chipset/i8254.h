/*
 * 8254 interval timer and the PC's port 0x61 (gate 2, speaker, refresh toggle).
 * Called under the platform's lock.
 */
#ifndef HVX_I8254_H
#define HVX_I8254_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/timer.h"

#define I8254_HZ 1193182u

struct i8254_channel {
	uint32_t count;  /* reload value, 1 to 65536 */
	uint64_t start;  /* ns at which counting began */
	uint64_t paused; /* ticks done when the gate went low */
	uint16_t latched;
	uint8_t mode, rw, status, first; /* first: low byte waiting for its high one */
	bool bcd, gate, loaded, have_latch, have_status, write_high, read_high;
};

struct i8254 {
	struct i8254_channel ch[3];
	struct hclock *clock;
	struct timer timer; /* channel 0's output */
	struct irq_out irq;
	uint8_t port61;
};

extern const struct bus_ops i8254_ops, i8254_port61_ops;

void i8254_init(struct i8254 *t, struct hclock *clock, struct timerq *q, struct irq_out irq);
void i8254_reset(struct i8254 *t);

#endif
