/*
 * Finding ACPI tables.  Invariant: a table is only returned with a good checksum.
 */
#ifndef FLAT_ACPI_H
#define FLAT_ACPI_H

#include "rt.h"

struct acpi_header {
	char sig[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem[6], oem_table[8];
	uint32_t oem_revision;
	char creator[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct acpi_gas {
	uint8_t space, width, offset, size;
	uint64_t addr;
} __attribute__((packed));

struct acpi_fadt {
	struct acpi_header h;
	uint32_t facs, dsdt;
	uint8_t model, profile;
	uint16_t sci_int;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios, pstate;
	uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst;
	uint16_t c2, c3, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alarm, mon_alarm, century;
	uint16_t boot_arch;
	uint8_t res;
	uint32_t flags;
	struct acpi_gas reset_reg;
	uint8_t reset_value;
	uint16_t arm;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
} __attribute__((packed));

struct acpi_rsdp {
	char sig[8];
	uint8_t checksum;
	char oem[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint64_t xsdt;
	uint8_t ext_checksum, res[3];
} __attribute__((packed));

static inline bool acpi_sum_ok(const void *p, uint32_t n)
{
	const uint8_t *b = p;
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *b++);
	return sum == 0;
}

static inline struct acpi_rsdp *acpi_rsdp(void)
{
	uint32_t ebda = (uint32_t) * (volatile uint16_t *)(word)0x40e << 4, at;
	unsigned turn;

	for (turn = 0; turn < 2; turn++) {
		uint32_t from = turn ? 0xe0000 : ebda, to = turn ? 0x100000 : ebda + 1024;
		if (from < 0x400)
			continue;
		for (at = from; at < to; at += 16)
			if (!memcmp((void *)(word)at, "RSD PTR ", 8) && acpi_sum_ok((void *)(word)at, 20))
				return (void *)(word)at;
	}
	return NULL;
}

/* The @nth table listed by the root table; NULL at the end. */
static inline struct acpi_header *acpi_nth(const struct acpi_rsdp *p, unsigned nth)
{
	bool x = p->revision >= 2 && p->xsdt;
	struct acpi_header *root = (void *)(word)(x ? p->xsdt : p->rsdt);
	uint8_t *e = (uint8_t *)(root + 1) + nth * (x ? 8 : 4);
	uint64_t v = 0;

	if (e >= (uint8_t *)root + root->length)
		return NULL;
	memcpy(&v, e, x ? 8 : 4);
	return (void *)(word)v;
}

static inline void *acpi_find(const char *sig)
{
	struct acpi_rsdp *p = acpi_rsdp();
	struct acpi_header *h;
	unsigned i;

	for (i = 0; p && (h = acpi_nth(p, i)); i++)
		if (!memcmp(h->sig, sig, 4) && acpi_sum_ok(h, h->length))
			return h;
	return NULL;
}

/* SLP_TYP of S5 from the DSDT: Name (_S5, Package (n) { a, ... }); -1 when there is none. */
static inline int acpi_s5(const struct acpi_fadt *f)
{
	const struct acpi_header *d = (void *)(word)f->dsdt;
	const uint8_t *p = (const uint8_t *)d, *end = p + d->length - 8;

	for (; p < end; p++)
		if (!memcmp(p, "_S5_", 4) && p[4] == 0x12) {
			p += 5;
			p += 1 + (*p >> 6); /* package length */
			p++;                /* elements */
			return *p == 0x0a ? p[1] : *p <= 1 ? *p : -1;
		}
	return -1;
}

#endif
