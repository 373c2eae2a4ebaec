/*
 * MC146818 real-time clock with the PC's CMOS memory.  Called under the
 * platform's lock.
 */
#ifndef HVX_MC146818_H
#define HVX_MC146818_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/timer.h"

#define MC146818_CENTURY 0x32

struct mc146818 {
	uint8_t cmos[128]; /* time registers are current only while B.SET */
	uint8_t index;
	int64_t offset;               /* guest's time minus the host's, seconds */
	uint64_t seen_sec, seen_tick; /* second and periodic tick up to which register C is current */
	uint64_t (*realtime)(void);   /* host's time of day, ns since 1970 */
	struct hclock *clock;
	struct timer timer;
	struct irq_out irq;
};

extern const struct bus_ops mc146818_ops;

/* @ram_low, @ram_high: bytes of RAM below and above 4 GiB, told in the CMOS. */
void mc146818_init(struct mc146818 *r, struct hclock *clock, struct timerq *q, struct irq_out irq, uint64_t ram_low,
		   uint64_t ram_high);
void mc146818_reset(struct mc146818 *r); /* time and memory survive */

#endif
