/*
 * ACPI tables.  The DSDT is compiled from dsdt.asl when HVX is built.
 *
 * Invariant: the numbers here are those of the chips' headers, and every table
 * sums to zero.
 */
#include "vcpu/boot/acpi.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "common/gmem.h"
#include "vcpu/boot/load.h"
#include "vcpu/chipset/hpet.h"
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
	const struct gmem *mem;   /* where tables go; or NULL */
	struct acpi_files *files; /* and into these, whose offsets stand for addresses */
	uint64_t next, end;       /* where the next table goes */
	uint64_t ecam;
	uint64_t xsdt[4];
	unsigned n;
};

/* ---- what firmware has to do with the files (QEMU's table loader) ---- */
enum { LOAD_ALLOCATE = 1, LOAD_POINTER, LOAD_CHECKSUM };

static uint8_t *command(struct acpi *a, uint32_t what, const char *file)
{
	struct acpi_files *f = a->files;
	uint8_t *c = f->loader + f->loader_len;

	if (f->loader_len + 128 > ACPI_LOADER_MAX)
		return NULL;
	f->loader_len += 128;
	memset(c, 0, 128);
	put32(c, what);
	memcpy(c + 4, file, strlen(file));
	return c + 60;
}

static void allocate(struct acpi *a, const char *file, uint32_t align, bool low)
{
	uint8_t *c = command(a, LOAD_ALLOCATE, file);

	if (c) {
		put32(c, align);
		c[4] = low ? 2 : 1; /* in 0xf0000-0xfffff: found by its signature */
	}
}

/* The @size bytes at @off of @file are an offset into the tables, and are to be an address. */
static void pointer(struct acpi *a, const char *file, uint64_t off, uint8_t size)
{
	uint8_t *c = a->files ? command(a, LOAD_POINTER, file) : NULL;

	if (c) {
		memcpy(c, ACPI_FILE_TABLES, sizeof ACPI_FILE_TABLES);
		put32(c + 56, (uint32_t)off);
		c[60] = size;
	}
}

static void sum_up(struct acpi *a, const char *file, uint64_t at, uint64_t start, uint64_t len)
{
	uint8_t *c = a->files ? command(a, LOAD_CHECKSUM, file) : NULL;

	if (c) {
		put32(c, (uint32_t)at);
		put32(c + 4, (uint32_t)start);
		put32(c + 8, (uint32_t)len);
	}
}

/* ---- tables ---- */

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

	if (at + len > a->end)
		return 0;
	if (a->files)
		memcpy(a->files->tables + at, t, len);
	else if (gmem_write(a->mem, at, t, len))
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

/* @n pointers of @size bytes at @off of a table that lies at @at: sets them right, and the checksum. */
struct pointers {
	uint64_t off;
	uint8_t size;
};

static void relocate(struct acpi *a, uint64_t at, uint64_t len, const struct pointers *p, unsigned n)
{
	if (!a->files || !at)
		return;
	a->files->tables[at + 9] = 0;
	for (unsigned i = 0; i < n; i++)
		pointer(a, ACPI_FILE_TABLES, at + p[i].off, p[i].size);
	sum_up(a, ACPI_FILE_TABLES, at + 9, at, len);
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
	static const struct pointers to[] = {{36, 4}, {40, 4}, {140, 8}};
	uint8_t t[FADT_LEN] = {0};
	uint64_t at;

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
	/* legacy devices; no ASPM; without firmware no VGA, and bit 1 clear: the 8042 has no devices to look for */
	put16(t + 109, a->files ? 0x13 : 0x15);
	put32(t + 112, 0x465); /* WBINVD, C1, no sleep button, RTC wake not in fixed hardware, reset register */
	gas_io(t + 116, PM_RESET_REG, 1);
	t[128] = PM_RESET_VAL;
	t[131] = 4; /* minor version */
	put64(t + 140, dsdt_at);
	gas_io(t + 148, PM_BASE, 4);
	gas_io(t + 172, PM_BASE + 4, 2);
	gas_io(t + 208, PM_BASE + 8, 4);
	at = put_table(a, t, sizeof(t));
	relocate(a, at, sizeof t, to, 3);
	return at;
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
	put64(t + HEADER + 8, a->ecam);
	t[HEADER + 8 + 11] = (PCI_ECAM_LEN >> 20) - 1; /* last bus */
	return put_table(a, t, sizeof(t));
}

static uint64_t put_hpet(struct acpi *a)
{
	uint8_t t[HEADER + 20] = {0};

	header(t, "HPET", sizeof(t), 1);
	put32(t + HEADER, HPET_ID);
	t[HEADER + 5] = 64; /* bits, in memory */
	put64(t + HEADER + 8, HPET_BASE);
	put16(t + HEADER + 17, 0x80); /* ticks: the shortest period that loses none */
	return put_table(a, t, sizeof(t));
}

static uint64_t put_xsdt(struct acpi *a)
{
	uint8_t t[HEADER + 8 * 4] = {0};
	uint32_t len = HEADER + 8 * a->n;
	struct pointers to[4];
	uint64_t at;

	header(t, "XSDT", len, 1);
	for (unsigned i = 0; i < a->n; i++)
		put64(t + HEADER + 8 * i, a->xsdt[i]);
	at = put_table(a, t, len);
	for (unsigned i = 0; i < a->n; i++)
		to[i] = (struct pointers){HEADER + 8 * i, 8};
	relocate(a, at, len, to, a->n);
	return at;
}

static int put_rsdp(struct acpi *a, uint64_t xsdt)
{
	uint8_t t[ACPI_RSDP_LEN] = {0};

	memcpy(t, "RSD PTR ", 8);
	memcpy(t + 9, "HVX   ", 6);
	t[15] = 2;
	put32(t + 20, sizeof(t));
	put64(t + 24, xsdt);
	if (a->files) {
		memcpy(a->files->rsdp, t, sizeof t);
		pointer(a, ACPI_FILE_RSDP, 24, 8);
		sum_up(a, ACPI_FILE_RSDP, 8, 0, 20);
		sum_up(a, ACPI_FILE_RSDP, 32, 0, sizeof t);
		return 0;
	}
	t[8] = checksum(t, 20);
	t[32] = checksum(t, sizeof(t));
	return gmem_write(a->mem, MEMMAP_ACPI, t, sizeof(t));
}

static int build(struct acpi *a, const struct topology *by)
{
	uint64_t facs, dsdt_at, xsdt;

	if (!topology_cpus(by) || topology_cpus(by) > TOPOLOGY_CPUS_MAX)
		return -ENOSPC;
	facs = put_facs(a);
	dsdt_at = put_aligned(a, dsdt, sizeof(dsdt), 16);
	if (!facs || !dsdt_at)
		return -ENOSPC;
	a->xsdt[a->n++] = put_fadt(a, facs, dsdt_at);
	a->xsdt[a->n++] = put_madt(a, by);
	if (a->files)
		a->xsdt[a->n++] = put_hpet(a);
	if (a->ecam)
		a->xsdt[a->n++] = put_mcfg(a);
	for (unsigned i = 0; i < a->n; i++)
		if (!a->xsdt[i])
			return -ENOSPC;
	xsdt = put_xsdt(a);
	return xsdt ? put_rsdp(a, xsdt) : -ENOSPC;
}

int acpi_build(const struct gmem *mem, const struct topology *by, uint64_t *rsdp)
{
	struct acpi a = {.mem = mem, .next = MEMMAP_ACPI + 64, .end = MEMMAP_ACPI_END, .ecam = PCI_ECAM_BASE};

	*rsdp = MEMMAP_ACPI;
	return build(&a, by);
}

int acpi_files_build(struct acpi_files *f, const struct topology *by, uint64_t ecam)
{
	struct acpi a = {.files = f, .next = 64, .end = sizeof f->tables, .ecam = ecam};
	int rc;

	memset(f, 0, sizeof *f);
	allocate(&a, ACPI_FILE_RSDP, 16, true);
	allocate(&a, ACPI_FILE_TABLES, 64, false);
	rc = build(&a, by);
	return rc ? rc : f->loader_len + 128 > ACPI_LOADER_MAX ? -ENOSPC : 0;
}
