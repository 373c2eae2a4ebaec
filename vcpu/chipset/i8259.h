/*
 * The two cascaded 8259A interrupt controllers of a PC, with ELCR.
 * Called under the platform's lock.
 */
#ifndef HVX_I8259_H
#define HVX_I8259_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"

struct i8259 {                        /* one chip */
	uint8_t irr, isr, imr, lines; /* lines: present input levels */
	uint8_t base, elcr, elcr_mask;
	uint8_t lowest; /* the line of lowest priority (7 unless rotated) */
	uint8_t icw;    /* next initialisation word expected, 0: none */
	bool icw4, single, auto_eoi, rotate_aeoi, special_nested, read_isr, poll, special_mask;
};

struct i8259_pair {
	struct i8259 chip[2]; /* master, slave on its IR2 */
	struct irq_out intr;  /* the master's INT pin */
};

extern const struct bus_ops i8259_master_ops, i8259_slave_ops, i8259_elcr_ops;

void i8259_init(struct i8259_pair *p, struct irq_out intr);
void i8259_reset(struct i8259_pair *p);
void i8259_set(struct i8259_pair *p, unsigned irq, bool level); /* 0-15, not 2 */
int i8259_ack(struct i8259_pair *p);                            /* acknowledge cycle: always a vector (7/15 spurious) */

#endif
