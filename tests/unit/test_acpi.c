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
	CU_add_test(s, "limits", test_limits);
	return CU_get_error();
}
