/*
 * Keyboard controller with a keyboard that is never touched: enough for guests
 * to probe it without time-outs and to reset the machine through it.
 * Called under the platform's lock.
 */
#ifndef HVX_I8042_H
#define HVX_I8042_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"

struct i8042 {
	uint8_t ctr;                      /* controller command byte */
	uint8_t status, outport, command; /* command: waits for its argument on port 0x60 */
	uint8_t queue[16];
	unsigned head, n;
	uint8_t kbd_arg; /* keyboard command that waits for its argument */
	struct irq_out irq;
	void (*reset)(void *ctx);
	void (*a20)(void *ctx, bool on);
	void *ctx;
};

extern const struct bus_ops i8042_ops, i8042_command_ops; /* ports 0x60 and 0x64 */

/* @a20 hears of writes to the A20 line and of its reset; may be NULL. */
void i8042_init(struct i8042 *k, struct irq_out irq, void (*reset)(void *ctx), void (*a20)(void *ctx, bool on),
		void *ctx);
void i8042_reset(struct i8042 *k);

#endif
