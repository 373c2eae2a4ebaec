/*
 * What chip tests share: a clock moved by hand, a timer queue, recorded
 * interrupt wires, a vcpu without an engine.
 */
#ifndef HVX_TEST_CHIPFAKES_H
#define HVX_TEST_CHIPFAKES_H

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/timer.h"
#include "vcpu/vcpu.h"

struct fake {
	uint64_t now;
	struct hclock clock;
	struct timerq q;
	bool line[32];
	unsigned rises[32]; /* rising edges seen per line */
	uint64_t armed;     /* last deadline told, and how often */
	unsigned arms;
};

void fake_init(struct fake *f, uint64_t tsc_hz);
struct irq_out fake_wire(struct fake *f, unsigned line);
/* Moves time to @ns from now, running every timer on its way at its moment. */
void fake_advance(struct fake *f, uint64_t ns);

struct vcpu *fake_vcpu(int id); /* free() it */

static inline uint8_t rd8(const struct bus_ops *o, void *dev, unsigned off)
{
	return (uint8_t)o->read(dev, off, 1);
}

static inline void wr8(const struct bus_ops *o, void *dev, unsigned off, uint8_t val)
{
	o->write(dev, off, val, 1);
}

#endif
