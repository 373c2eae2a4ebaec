/*
 * ACPI fixed hardware: PM1 event and control registers, power management
 * timer; and the reset control register 0xcf9.  Called under the platform's lock.
 */
#ifndef HVX_PM_H
#define HVX_PM_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/timer.h"

#define PM_BASE      0x600 /* PM1a_EVT +0, PM1a_CNT +4, PM_TMR +8 */
#define PM_LEN       0x10
#define PM_TIMER_HZ  3579545u
#define PM_SCI_GSI   9
#define PM_S5_TYPE   5 /* SLP_TYP of \_S5 in the DSDT */
#define PM_RESET_REG 0xcf9
#define PM_RESET_VAL 0x06

struct pm {
	uint16_t sts, en, cnt;
	uint8_t rst_cnt;    /* 0xcf9 */
	uint64_t seen_half; /* half-periods of the timer up to which TMR_STS is current */
	struct hclock *clock;
	struct timer timer; /* runs while the timer's interrupt is enabled */
	struct irq_out sci;
	void (*power_off)(void *ctx);
	void (*reset)(void *ctx);
	void *ctx;
};

extern const struct bus_ops pm_ops;

void pm_init(struct pm *p, struct hclock *clock, struct timerq *q, struct irq_out sci);
void pm_reset(struct pm *p);
void pm_power_button(struct pm *p);
uint8_t pm_rst_cnt_read(const struct pm *p);
void pm_rst_cnt_write(struct pm *p, uint8_t val);

#endif
