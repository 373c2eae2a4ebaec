/*
 * I/O APIC with 24 pins (82093AA, version register as in ICH parts).
 * Called under the platform's lock.
 */
#ifndef HVX_IOAPIC_H
#define HVX_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"

struct lapics;

#define IOAPIC_BASE 0xfec00000u
#define IOAPIC_LEN  0x1000u
#define IOAPIC_PINS 24

struct ioapic {
	struct lapics *apics;
	uint64_t redir[IOAPIC_PINS];
	uint32_t level; /* the pins' inputs */
	uint8_t select, id;
};

extern const struct bus_ops ioapic_ops;

void ioapic_init(struct ioapic *a, struct lapics *apics);
void ioapic_reset(struct ioapic *a); /* the inputs keep their levels */
void ioapic_set(struct ioapic *a, unsigned pin, bool level);
void ioapic_eoi(struct ioapic *a, uint8_t vector); /* EOI broadcast */

#endif
