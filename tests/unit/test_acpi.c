/* acpi: every table found from the RSDP, sums, contents that must agree with the chips. */
#include "vcpu/boot/acpi.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/gmem.h"
#include "vcpu/boot/load.h"
#include "vcpu/chipset/pci.h"
#include "vcpu/chipset/pm.h"

static struct gmem mem;
static uint64_t rsdp;

static void setup(uint32_t sockets, uint32_t cores, uint32_t threads)
{
	const struct topology by = {sockets, cores, threads};

	mem = (struct gmem){.ram = calloc(1, 2 << 20), .size = 2 << 20, .low = 2 << 20};
	rsdp = 0;
	CU_ASSERT_EQUAL_FATAL(acpi_build(&mem, &by, &rsdp), 0);
}

static void teardown(void)
{
	free(mem.ram);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s += *p++;
	return s;
}

/* The table with a signature, NULL when the XSDT lacks it; checks header, sum and place. */
static const uint8_t *table(const char *sig)
{
	const uint8_t *x = mem.ram + get64(mem.ram + rsdp + 24), *t;

	for (uint32_t i = 36; i < get32(x + 4); i += 8) {
		t = mem.ram + get64(x + i);
		if (memcmp(t, sig, 4))
			continue;
		CU_ASSERT_EQUAL(sum(t, get32(t + 4)), 0);
		CU_ASSERT(get64(x + i) >= MEMMAP_ACPI && get64(x + i) + get32(t + 4) <= MEMMAP_ACPI_END);
		return t;
	}
	return NULL;
}

static void test_root(void)
{
	const uint8_t *r, *x;

	setup(1, 1, 1);
	r = mem.ram + rsdp;
	CU_ASSERT_EQUAL(rsdp & 15, 0);
	CU_ASSERT_NSTRING_EQUAL(r, "RSD PTR ", 8);
	CU_ASSERT_EQUAL(sum(r, 20), 0);
	CU_ASSERT_EQUAL(sum(r, 36), 0);
	x = mem.ram + get64(r + 24);
	CU_ASSERT_NSTRING_EQUAL(x, "XSDT", 4);
	CU_ASSERT_EQUAL(sum(x, get32(x + 4)), 0);
	CU_ASSERT_PTR_NOT_NULL(table("FACP"));
	CU_ASSERT_PTR_NOT_NULL(table("APIC"));
	CU_ASSERT_PTR_NOT_NULL(table("MCFG"));
	CU_ASSERT_PTR_NULL(table("HPET"));
	teardown();
}

static void test_fadt(void)
{
	const uint8_t *t, *d;

	setup(1, 1, 1);
	t = table("FACP");
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	CU_ASSERT_EQUAL(get32(t + 4), 276);
	CU_ASSERT_EQUAL(get16(t + 46), PM_SCI_GSI);
	CU_ASSERT_EQUAL(get32(t + 48), 0); /* no SMI command port: always in ACPI mode */
	CU_ASSERT_EQUAL(get32(t + 76), PM_BASE + 8);
	CU_ASSERT_EQUAL(get64(t + 208 + 4), PM_BASE + 8);
	CU_ASSERT_EQUAL(get32(t + 112) & 1u << 20, 0); /* not hardware-reduced */
	CU_ASSERT_EQUAL(get32(t + 112) & 1u << 10, 1u << 10);
	CU_ASSERT_EQUAL(get32(t + 112) & 1u << 4, 0); /* a fixed power button */
	CU_ASSERT_EQUAL(get64(t + 120), PM_RESET_REG);
	CU_ASSERT_EQUAL(t[128], PM_RESET_VAL);
	CU_ASSERT_EQUAL(get16(t + 109) & 2, 0);
	d = mem.ram + get64(t + 140);
	CU_ASSERT_EQUAL(get32(t + 40), get64(t + 140));
	CU_ASSERT_NSTRING_EQUAL(d, "DSDT", 4);
	CU_ASSERT_EQUAL(sum(d, get32(d + 4)), 0);
	CU_ASSERT_EQUAL(get32(t + 36) & 63, 0);
	CU_ASSERT_NSTRING_EQUAL(mem.ram + get32(t + 36), "FACS", 4);
	teardown();
}

/* Entries of one kind in the MADT; *last: the last of them. */
static unsigned entries(const uint8_t *t, uint8_t kind, const uint8_t **last)
{
	unsigned n = 0;

	for (uint32_t i = 44; i < get32(t + 4) && t[i + 1]; i += t[i + 1]) {
		if (t[i] != kind)
			continue;
		n++;
		*last = t + i;
	}
	return n;
}

static void test_madt(void)
{
	const uint8_t *t, *e = NULL;

	for (uint32_t n = 1; n <= 32; n += 31) {
		setup(1, n, 1);
		t = table("APIC");
		CU_ASSERT_PTR_NOT_NULL_FATAL(t);
		CU_ASSERT_EQUAL(get32(t + 36), 0xfee00000);
		CU_ASSERT_EQUAL(entries(t, 0, &e), (unsigned)n);
		CU_ASSERT_EQUAL(e[3], n - 1);
		CU_ASSERT_EQUAL(entries(t, 1, &e), 1);
		CU_ASSERT_EQUAL(get32(e + 4), 0xfec00000);
		CU_ASSERT_EQUAL(entries(t, 2, &e), 2);
		CU_ASSERT_EQUAL(e[3], 9);
		CU_ASSERT_EQUAL(get32(e + 4), 9);
		CU_ASSERT_EQUAL(get16(e + 8), 0x0d);
		CU_ASSERT_EQUAL(entries(t, 4, &e), 1);
		CU_ASSERT_EQUAL(e[5], 1);
		teardown();
	}
	setup(2, 3, 2); /* ids have gaps: 0 to 5, 8 to 13 */
	CU_ASSERT_EQUAL(entries(table("APIC"), 0, &e), 12);
	CU_ASSERT_EQUAL(e[2], 11);
	CU_ASSERT_EQUAL(e[3], 13);
	teardown();
}

static void test_mcfg(void)
{
	const uint8_t *t;

	setup(1, 1, 1);
	t = table("MCFG");
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	CU_ASSERT_EQUAL(get64(t + 44), PCI_ECAM_BASE);
	CU_ASSERT_EQUAL(t[54], 0);
	CU_ASSERT_EQUAL(t[55], 255);
	teardown();
}

/* ---- the files that firmware puts into place ---- */

#define AT 0x7f000000u /* where it puts the tables, and at 0xf0000 the RSDP */

static struct acpi_files files;

static uint8_t *file(const uint8_t *name)
{
	return !strcmp((const char *)name, ACPI_FILE_RSDP) ? files.rsdp : files.tables;
}

/* As a firmware does; how many commands there were. */
static unsigned load_files(void)
{
	unsigned n = 0;

	for (const uint8_t *c = files.loader; get32(c); c += 128, n++) {
		uint8_t *f = file(c + 4), sum = 0;

		switch (get32(c)) {
		case 1: CU_ASSERT_EQUAL(c[64], f == files.rsdp ? 2 : 1); break;
		case 2:
			f += get32(c + 116);
			CU_ASSERT_PTR_EQUAL(file(c + 60), files.tables);
			CU_ASSERT(get32(f) < ACPI_TABLES_MAX && get32(f) >= 64);
			put32(f, get32(f) + AT);
			CU_ASSERT(c[120] == 4 || (c[120] == 8 && !get32(f + 4)));
			break;
		case 3:
			for (uint32_t i = 0; i < get32(c + 68); i++)
				sum += f[get32(c + 64) + i];
			f[get32(c + 60)] -= sum;
			break;
		default: CU_FAIL("a command that nobody knows"); break;
		}
	}
	return n;
}

static uint8_t *at(uint64_t gpa)
{
	CU_ASSERT_FATAL(gpa >= AT && gpa < AT + ACPI_TABLES_MAX);
	return files.tables + (gpa - AT);
}

static void test_files(void)
{
	char seen[64] = "";
	const uint8_t *x, *fadt = NULL;

	CU_ASSERT_EQUAL_FATAL(acpi_files_build(&files, &(struct topology){1, 4, 1}, 0xb0000000), 0);
	CU_ASSERT_EQUAL(load_files(), 2 + 3 + 1 + 4 + 1 + 1 + 2);
	CU_ASSERT_EQUAL(sum(files.rsdp, 20), 0);
	CU_ASSERT_EQUAL(sum(files.rsdp, 36), 0);
	x = at(get64(files.rsdp + 24));
	CU_ASSERT_EQUAL(sum(x, get32(x + 4)), 0);
	for (unsigned i = 36; i < get32(x + 4); i += 8) {
		const uint8_t *t = at(get64(x + i));

		CU_ASSERT_EQUAL(sum(t, get32(t + 4)), 0);
		strncat(seen, (const char *)t, 4);
		if (!memcmp(t, "FACP", 4))
			fadt = t;
		if (!memcmp(t, "MCFG", 4))
			CU_ASSERT_EQUAL(get64(t + 44), 0xb0000000);
	}
	CU_ASSERT_STRING_EQUAL(seen, "FACPAPICHPETMCFG");
	CU_ASSERT_PTR_NOT_NULL_FATAL(fadt);
	CU_ASSERT_NSTRING_EQUAL(at(get32(fadt + 36)), "FACS", 4);
	CU_ASSERT_NSTRING_EQUAL(at(get32(fadt + 40)), "DSDT", 4);
	CU_ASSERT_EQUAL(get64(fadt + 140), get32(fadt + 40));
	CU_ASSERT_EQUAL(acpi_files_build(&files, &(struct topology){1, 1, 1}, 0), 0); /* no MCFG */
	CU_ASSERT_EQUAL(load_files(), 2 + 3 + 1 + 3 + 1 + 1 + 2);
	CU_ASSERT_EQUAL(acpi_files_build(&files, &(struct topology){1, TOPOLOGY_CPUS_MAX, 1}, 0xb0000000), 0);
}

static void test_limits(void)
{
	uint8_t tiny[4096];
	uint64_t at;

	mem = (struct gmem){.ram = tiny, .size = sizeof(tiny), .low = sizeof(tiny)};
	CU_ASSERT_NOT_EQUAL(acpi_build(&mem, &(struct topology){1, 1, 1}, &at), 0);
	CU_ASSERT_NOT_EQUAL(acpi_build(&mem, &(struct topology){1, 0, 1}, &at), 0);
	CU_ASSERT_NOT_EQUAL(acpi_build(&mem, &(struct topology){1000, 10, 10}, &at), 0);
}

CU_ErrorCode suite_acpi(void)
{
	CU_pSuite s = CU_add_suite("acpi", NULL, NULL);

	CU_add_test(s, "RSDP and XSDT", test_root);
	CU_add_test(s, "FADT", test_fadt);
	CU_add_test(s, "MADT", test_madt);
	CU_add_test(s, "MCFG", test_mcfg);
	CU_add_test(s, "files for firmware", test_files);
	CU_add_test(s, "limits", test_limits);
	return CU_get_error();
}
