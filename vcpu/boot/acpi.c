/*
 * ACPI tables.  The DSDT is compiled from dsdt.asl when HVX is built.
 *
 * Invariant: the numbers here are those of the chips' headers, and every table
 * sums to zero.
 */
#include "vcpu/boot/acpi.h"

#include <errno.h>
#include <string.h>

#include "common/gmem.h"
#include "vcpu/boot/load.h"
#include "vcpu/chipset/ioapic.h"
#include "vcpu/chipset/lapic.h"
#include "vcpu/chipset/mc146818.h"
#include "vcpu/chipset/pci.h"
#include "vcpu/chipset/pm.h"

static const uint8_t dsdt[] = {
#include "vcpu/boot/dsdt.inc"
};

#define HEADER   36u
#define FADT_LEN 276u
#define MADT_MAX (HEADER + 8 + TOPOLOGY_CPUS_MAX * 8 + 12 + 2 * 10 + 6 + 12)

struct acpi {
	const struct gmem *mem;
	uint64_t next; /* where the next table goes */
	uint64_t xsdt[4];
	unsigned n;
};

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum += *p++;
	return (uint8_t)-sum;
}

static void header(uint8_t *t, const char *sig, uint32_t len, uint8_t revision)
{
	memcpy(t, sig, 4);
	put32(t + 4, len);
	t[8] = revision;
	memcpy(t + 10, "HVX   ", 6);
	memcpy(t + 16, "HVXPC   ", 8);
	put32(t + 24, 1);
	memcpy(t + 28, "HVX ", 4);
	put32(t + 32, 1);
}

/* Puts @len bytes at the next address aligned to @align; that address, or 0 when the area is full. */
static uint64_t put_aligned(struct acpi *a, const uint8_t *t, size_t len, uint64_t align)
{
	uint64_t at = (a->next + align - 1) & ~(align - 1);

	if (at + len > MEMMAP_ACPI_END || gmem_write(a->mem, at, t, len))
		return 0;
	a->next = at + len;
	return at;
}

static uint64_t put_table(struct acpi *a, uint8_t *t, size_t len)
{
	t[9] = 0;
	t[9] = checksum(t, len);
	return put_aligned(a, t, len, 16);
}

/* Generic address structure: system I/O space. */
static void gas_io(uint8_t *p, uint16_t port, unsigned bytes)
{
	p[0] = 1;
	p[1] = (uint8_t)(bytes * 8);
	p[3] = bytes == 1 ? 1 : bytes == 2 ? 2 : 3; /* access size */
	put64(p + 4, port);
}

static uint64_t put_fadt(struct acpi *a, uint64_t facs, uint64_t dsdt_at)
{
	uint8_t t[FADT_LEN] = {0};

	header(t, "FACP", FADT_LEN, 6);
	put32(t + 36, (uint32_t)facs);
	put32(t + 40, (uint32_t)dsdt_at);
	put16(t + 46, PM_SCI_GSI);
	put32(t + 56, PM_BASE);     /* PM1a_EVT */
	put32(t + 64, PM_BASE + 4); /* PM1a_CNT */
	put32(t + 76, PM_BASE + 8); /* PM_TMR */
	t[88] = 4;
	t[89] = 2;
	t[91] = 4;
	put16(t + 96, 0xfff); /* no C2 */
	put16(t + 98, 0xfff); /* no C3 */
	t[108] = MC146818_CENTURY;
	put16(t + 109, 0x15);  /* legacy devices; no VGA, no ASPM; bit 1 clear: the 8042 has no devices to look for */
	put32(t + 112, 0x465); /* WBINVD, C1, no sleep button, RTC wake not in fixed hardware, reset register */
	gas_io(t + 116, PM_RESET_REG, 1);
	t[128] = PM_RESET_VAL;
	t[131] = 4; /* minor version */
	put64(t + 140, dsdt_at);
	gas_io(t + 148, PM_BASE, 4);
	gas_io(t + 172, PM_BASE + 4, 2);
	gas_io(t + 208, PM_BASE + 8, 4);
	return put_table(a, t, sizeof(t));
}

static uint64_t put_facs(struct acpi *a)
{
	uint8_t t[64] = {0};

	memcpy(t, "FACS", 4);
	put32(t + 4, sizeof(t));
	t[32] = 2;
	return put_aligned(a, t, sizeof(t), 64);
}

/* The ids of so few CPUs fit a byte. */
static uint8_t *madt_cpu(uint8_t *p, uint8_t uid, uint8_t apic_id)
{
	p[0] = 0;
	p[1] = 8;
	p[2] = uid;
	p[3] = apic_id;
	put32(p + 4, 1);
	return p + 8;
}

static uint8_t *madt_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	p[0] = 2;
	p[1] = 10;
	p[3] = irq;
	put32(p + 4, gsi);
	put16(p + 8, flags);
	return p + 10;
}

static uint64_t put_madt(struct acpi *a, const struct topology *by)
{
	uint8_t t[MADT_MAX] = {0}, *p = t + HEADER + 8;

	put32(t + HEADER, LAPIC_BASE);
	put32(t + HEADER + 4, 1); /* there are 8259s too */
	for (uint32_t i = 0; i < topology_cpus(by); i++)
		p = madt_cpu(p, (uint8_t)i, (uint8_t)topology_apic_id(by, i));
	p[0] = 1;
	p[1] = 12;
	put32(p + 4, IOAPIC_BASE);
	p = madt_override(p + 12, 0, 2, 0);
	p = madt_override(p, PM_SCI_GSI, PM_SCI_GSI, 0x0d); /* active high, level */
	p[0] = 4;                                           /* NMI on every LINT1 */
	p[1] = 6;
	p[2] = 0xff;
	p[5] = 1;
	p += 6;
	header(t, "APIC", (uint32_t)(p - t), 4);
	return put_table(a, t, (size_t)(p - t));
}

static uint64_t put_mcfg(struct acpi *a)
{
	uint8_t t[HEADER + 8 + 16] = {0};

	header(t, "MCFG", sizeof(t), 1);
	put64(t + HEADER + 8, PCI_ECAM_BASE);
	t[HEADER + 8 + 11] = (PCI_ECAM_LEN >> 20) - 1; /* last bus */
	return put_table(a, t, sizeof(t));
}

static uint64_t put_xsdt(struct acpi *a)
{
	uint8_t t[HEADER + 8 * 4] = {0};
	uint32_t len = HEADER + 8 * a->n;

	header(t, "XSDT", len, 1);
	for (unsigned i = 0; i < a->n; i++)
		put64(t + HEADER + 8 * i, a->xsdt[i]);
	return put_table(a, t, len);
}

static int put_rsdp(const struct acpi *a, uint64_t xsdt)
{
	uint8_t t[36] = {0};

	memcpy(t, "RSD PTR ", 8);
	memcpy(t + 9, "HVX   ", 6);
	t[15] = 2;
	put32(t + 20, sizeof(t));
	put64(t + 24, xsdt);
	t[8] = checksum(t, 20);
	t[32] = checksum(t, sizeof(t));
	return gmem_write(a->mem, MEMMAP_ACPI, t, sizeof(t));
}

int acpi_build(const struct gmem *mem, const struct topology *by, uint64_t *rsdp)
{
	struct acpi a = {.mem = mem, .next = MEMMAP_ACPI + 64};
	uint64_t facs, dsdt_at, xsdt;

	if (!topology_cpus(by) || topology_cpus(by) > TOPOLOGY_CPUS_MAX)
		return -ENOSPC;
	facs = put_facs(&a);
	dsdt_at = put_aligned(&a, dsdt, sizeof(dsdt), 16);
	if (!facs || !dsdt_at)
		return -ENOSPC;
	a.xsdt[a.n++] = put_fadt(&a, facs, dsdt_at);
	a.xsdt[a.n++] = put_madt(&a, by);
	a.xsdt[a.n++] = put_mcfg(&a);
	for (unsigned i = 0; i < a.n; i++)
		if (!a.xsdt[i])
			return -ENOSPC;
	xsdt = put_xsdt(&a);
	if (!xsdt)
		return -ENOSPC;
	*rsdp = MEMMAP_ACPI;
	return put_rsdp(&a, xsdt);
}
