/* ioapic: edges, levels, masks, remote IRR, EOI, registers. */
#include "vcpu/chipset/ioapic.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/chipfakes.h"
#include "vcpu/chipset/lapic.h"

static struct fake f;
static struct lapics s;
static struct ioapic a;
static struct vcpu *v[2];

static void on_eoi(void *ctx, uint8_t vector)
{
	ioapic_eoi(&a, vector);
}

static void setup(void)
{
	fake_init(&f, 0);
	memset(&s, 0, sizeof(s));
	v[0] = fake_vcpu(0), v[1] = fake_vcpu(1);
	s.eoi = on_eoi;
	lapics_init(&s, &f.clock, (struct timerq *[]){&f.q, &f.q}, v, 2);
	ioapic_init(&a, &s);
	for (int i = 0; i < 2; i++)
		lapic_mmio_write(&s.apic[i], 0xf0, 0x1ff);
}

static void teardown(void)
{
	free(v[0]);
	free(v[1]);
}

static void wr(unsigned reg, uint32_t val)
{
	ioapic_ops.write(&a, 0, reg, 4);
	ioapic_ops.write(&a, 0x10, val, 4);
}

static uint32_t rd(unsigned reg)
{
	ioapic_ops.write(&a, 0, reg, 4);
	return (uint32_t)ioapic_ops.read(&a, 0x10, 4);
}

static void rte(unsigned pin, uint64_t val)
{
	wr(0x11 + 2 * pin, (uint32_t)(val >> 32));
	wr(0x10 + 2 * pin, (uint32_t)val);
}

static int take(int i)
{
	return lapic_ack(&s.apic[i]);
}

static void done(int i)
{
	lapic_mmio_write(&s.apic[i], 0xb0, 0);
}

static void test_registers(void)
{
	setup();
	CU_ASSERT_EQUAL(rd(1), 0x170020);
	CU_ASSERT_EQUAL(rd(0x10), 0x10000);
	wr(0, 0x0f000000);
	CU_ASSERT_EQUAL(rd(0), 0x0f000000);
	rte(23, 0xffffffffffffffffull);
	CU_ASSERT_EQUAL(rd(0x3e), 0x1afff);
	CU_ASSERT_EQUAL(rd(0x3f), 0xff000000);
	CU_ASSERT_EQUAL(rd(0x40), 0xffffffff); /* no such register */
	wr(0x40, 0);
	wr(0xff, 0);
	ioapic_set(&a, 24, true);
	ioapic_set(&a, 4000, true);
	teardown();
}

static void test_edge(void)
{
	setup();
	rte(4, 0x34);
	ioapic_set(&a, 4, true);
	CU_ASSERT_EQUAL(take(0), 0x34);
	done(0);
	ioapic_set(&a, 4, true);
	CU_ASSERT_EQUAL(take(0), -1);
	ioapic_set(&a, 4, false);
	ioapic_set(&a, 4, true);
	CU_ASSERT_EQUAL(take(0), 0x34);
	done(0);
	rte(4, 0x100000000000034ull | 1ull << 56); /* to CPU 1 */
	ioapic_set(&a, 4, false);
	ioapic_set(&a, 4, true);
	CU_ASSERT_EQUAL(take(0), -1);
	CU_ASSERT_EQUAL(take(1), 0x34);
	teardown();
}

static void test_edge_masked(void)
{
	setup();
	rte(4, 0x10034);
	ioapic_set(&a, 4, true);
	rte(4, 0x34);
	CU_ASSERT_EQUAL(take(0), -1); /* lost, as the data sheet says */
	ioapic_set(&a, 4, false);
	ioapic_set(&a, 4, true);
	CU_ASSERT_EQUAL(take(0), 0x34);
	teardown();
}

static void test_level(void)
{
	setup();
	rte(9, 0x8039);
	ioapic_set(&a, 9, true);
	CU_ASSERT_EQUAL(rd(0x10 + 18), 0xc039); /* remote IRR */
	CU_ASSERT_EQUAL(take(0), 0x39);
	ioapic_set(&a, 9, true);
	CU_ASSERT_EQUAL(take(0), -1);
	done(0); /* still high: again */
	CU_ASSERT_EQUAL(take(0), 0x39);
	ioapic_set(&a, 9, false);
	done(0);
	CU_ASSERT_EQUAL(take(0), -1);
	CU_ASSERT_EQUAL(rd(0x10 + 18), 0x8039);
	ioapic_set(&a, 9, true);
	CU_ASSERT_EQUAL(take(0), 0x39);
	ioapic_set(&a, 9, false);
	ioapic_ops.write(&a, 0x40, 0x39, 4); /* directed EOI */
	CU_ASSERT_EQUAL(rd(0x10 + 18), 0x8039);
	teardown();
}

static void test_level_masked(void)
{
	setup();
	rte(9, 0x18039);
	ioapic_set(&a, 9, true);
	CU_ASSERT_EQUAL(take(0), -1);
	rte(9, 0x8039); /* unmasked while high */
	CU_ASSERT_EQUAL(take(0), 0x39);
	rte(9, 0x18039);
	done(0);
	CU_ASSERT_EQUAL(take(0), -1);
	rte(9, 0x0039); /* edge mode drops remote IRR */
	CU_ASSERT_EQUAL(rd(0x10 + 18), 0x39);
	teardown();
}

static void test_modes(void)
{
	setup();
	rte(3, 0x0400);
	ioapic_set(&a, 3, true);
	CU_ASSERT(v[0]->pending & PEND_NMI);
	for (int i = 0; i < 2; i++)
		lapic_mmio_write(&s.apic[i], 0xd0, 1u << (24 + i));
	rte(5, 0xff00000000000945ull & ~(0xfcull << 56)); /* lowest priority, logical, to either: one takes it */
	ioapic_set(&a, 5, true);
	CU_ASSERT((take(0) == 0x45) != (take(1) == 0x45));
	rte(6, 5ull << 56 | 0x46); /* nobody there */
	ioapic_set(&a, 6, true);
	CU_ASSERT_EQUAL(take(0), -1);
	teardown();
}

CU_ErrorCode suite_ioapic(void)
{
	CU_pSuite u = CU_add_suite("ioapic", NULL, NULL);

	CU_add_test(u, "registers", test_registers);
	CU_add_test(u, "edge", test_edge);
	CU_add_test(u, "edge while masked", test_edge_masked);
	CU_add_test(u, "level", test_level);
	CU_add_test(u, "level while masked", test_level_masked);
	CU_add_test(u, "delivery modes", test_modes);
	return CU_get_error();
}
