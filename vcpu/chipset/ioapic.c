/*
 * I/O APIC.
 *
 * Invariant: an unmasked level-triggered pin whose input is high has been sent
 * and has remote IRR set, until the EOI of its vector.  Edges on a masked pin
 * are lost, as the 82093AA data sheet says (3.2.4, interrupt mask).
 */
#include "vcpu/chipset/ioapic.h"

#include <stddef.h>

#include "vcpu/chipset/lapic.h"
#include "vcpu/chipset/savechips.h"

#define VERSION ((IOAPIC_PINS - 1) << 16 | 0x20) /* 0x20: has the EOI register */

#define RTE_MASK   (1ull << 16)
#define RTE_LEVEL  (1ull << 15)
#define RTE_REMOTE (1ull << 14)
#define RTE_RO     (RTE_REMOTE | 1ull << 12)
#define RTE_VALID  0xff0000000001ffffull

static void send(struct ioapic *a, unsigned pin)
{
	uint64_t e = a->redir[pin];
	struct apic_msg m = {
		.dest = (uint32_t)(e >> 56),
		.vector = (uint8_t)e,
		.mode = e >> 8 & 7,
		.logical = e >> 11 & 1,
		.level = (e & RTE_LEVEL) && (e >> 8 & 7) <= APIC_LOWEST,
	};

	if (m.level)
		a->redir[pin] |= RTE_REMOTE;
	lapics_deliver(a->apics, &m);
}

static void service_level(struct ioapic *a, unsigned pin)
{
	uint64_t e = a->redir[pin];

	if ((e & RTE_LEVEL) && !(e & (RTE_MASK | RTE_REMOTE)) && (a->level >> pin & 1))
		send(a, pin);
}

void ioapic_set(struct ioapic *a, unsigned pin, bool level)
{
	uint32_t bit;
	bool rose;

	if (pin >= IOAPIC_PINS)
		return;
	bit = 1u << pin;
	rose = level && !(a->level & bit);
	a->level = level ? a->level | bit : a->level & ~bit;
	if (a->redir[pin] & RTE_LEVEL)
		service_level(a, pin);
	else if (rose && !(a->redir[pin] & RTE_MASK))
		send(a, pin);
}

void ioapic_eoi(struct ioapic *a, uint8_t vector)
{
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		if ((uint8_t)a->redir[i] != vector || !(a->redir[i] & RTE_REMOTE))
			continue;
		a->redir[i] &= ~RTE_REMOTE;
		service_level(a, i);
	}
}

static uint32_t reg_read(const struct ioapic *a)
{
	unsigned r = a->select;

	if (r == 0 || r == 2)
		return (uint32_t)a->id << 24;
	if (r == 1)
		return VERSION;
	if (r >= 0x10 && r < 0x10 + 2 * IOAPIC_PINS)
		return (uint32_t)(a->redir[(r - 0x10) / 2] >> (r & 1) * 32);
	return 0xffffffffu;
}

static void redir_write(struct ioapic *a, unsigned pin, bool high, uint32_t val)
{
	uint64_t e = a->redir[pin], ro = e & RTE_RO;

	if (high)
		e = (uint32_t)e | (uint64_t)val << 32;
	else
		e = (e & ~0xffffffffull) | val;
	e = (e & RTE_VALID & ~RTE_RO) | ro;
	if (!(e & RTE_LEVEL))
		e &= ~RTE_REMOTE; /* how guests without the EOI register drop a stuck one */
	a->redir[pin] = e;
	service_level(a, pin);
}

static void reg_write(struct ioapic *a, uint32_t val)
{
	unsigned r = a->select;

	if (r == 0)
		a->id = val >> 24 & 0xf;
	else if (r >= 0x10 && r < 0x10 + 2 * IOAPIC_PINS)
		redir_write(a, (r - 0x10) / 2, r & 1, val);
}

static uint64_t ioapic_read(void *dev, uint64_t off, unsigned size)
{
	const struct ioapic *a = dev;

	switch (off & 0xff) {
	case 0x00: return a->select;
	case 0x10: return reg_read(a);
	default: return 0;
	}
}

static void ioapic_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct ioapic *a = dev;

	switch (off & 0xff) {
	case 0x00: a->select = (uint8_t)val; break;
	case 0x10: reg_write(a, (uint32_t)val); break;
	case 0x40: ioapic_eoi(a, (uint8_t)val); break;
	default: break;
	}
}

const struct bus_ops ioapic_ops = {ioapic_read, ioapic_write, 4};

void ioapic_reset(struct ioapic *a)
{
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		a->redir[i] = RTE_MASK;
	a->select = a->id = 0;
}

void ioapic_init(struct ioapic *a, struct lapics *apics)
{
	a->apics = apics;
	a->level = 0;
	ioapic_reset(a);
}

/* ---- what is saved ---- */

static const struct save_row ioapic_save_rows[] = {
	SAVE_OMIT(struct ioapic, apics, SAVE_WIRED),
	SAVE_ARRAY(struct ioapic, redir),
	SAVE(struct ioapic, level),
	SAVE(struct ioapic, select),
	SAVE(struct ioapic, id),
};
SAVE_TABLE(ioapic_save, struct ioapic, "ioapic");
