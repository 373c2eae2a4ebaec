/* pci: both configuration mechanisms, BAR sizing and mapping, capabilities, INTx, reset. */
#include "vcpu/chipset/pci.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/chipfakes.h"

static struct bus io, mem;
static struct pci p;
static struct pci_func card;
static unsigned intx_line, intx_calls;
static bool intx_level;
static uint64_t dev_off, dev_val;

static void on_intx(void *ctx, unsigned line, bool level)
{
	intx_line = line;
	intx_level = level;
	intx_calls++;
}

static uint64_t dev_read(void *dev, uint64_t off, unsigned size)
{
	return 0x1122334455667700ull + off;
}

static void dev_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	dev_off = off;
	dev_val = val;
}

static const struct bus_ops dev_ops = {dev_read, dev_write, 4};

static void setup(void)
{
	static const struct pci_ids ids = {.vendor = 0x1af4,
					   .device = 0x1042,
					   .subsys_vendor = 0x1af4,
					   .subsys = 2,
					   .class_code = 0x010000,
					   .revision = 1,
					   .int_pin = 1};

	memset(&io, 0, sizeof(io));
	memset(&mem, 0, sizeof(mem));
	memset(&p, 0, sizeof(p));
	memset(&card, 0, sizeof(card));
	p.intx = on_intx;
	intx_calls = 0;
	pci_init(&p, &io, &mem);
	bus_add(&io, 0xcf8, 8, &pci_mech1_ops, &p);
	bus_add(&mem, PCI_ECAM_BASE, PCI_ECAM_LEN, &pci_ecam_ops, &p);
	CU_ASSERT_EQUAL(pci_add(&p, &card, 3 << 3, &ids), 0);
	CU_ASSERT_EQUAL(pci_add_bar(&card, 0, PCI_BAR_IO, 64, &dev_ops, &card), 0);
	CU_ASSERT_EQUAL(pci_add_bar(&card, 1, PCI_BAR_MEM32, 4096, &dev_ops, &card), 0);
	CU_ASSERT_EQUAL(pci_add_bar(&card, 4, PCI_BAR_MEM64, 16384, &dev_ops, &card), 0);
}

static uint32_t rd(unsigned dev, unsigned reg, unsigned size)
{
	bus_write(&io, 0xcf8, 0x80000000u | dev << 11 | (reg & 0xfc), 4);
	return (uint32_t)bus_read(&io, 0xcfc + (reg & 3), size);
}

static void wr(unsigned dev, unsigned reg, uint32_t val, unsigned size)
{
	bus_write(&io, 0xcf8, 0x80000000u | dev << 11 | (reg & 0xfc), 4);
	bus_write(&io, 0xcfc + (reg & 3), val, size);
}

static void test_scan(void)
{
	unsigned found = 0;

	setup();
	CU_ASSERT_EQUAL(rd(0, 0, 4), 0x29c08086);
	CU_ASSERT_EQUAL(rd(31, 0, 4), 0x29188086);
	CU_ASSERT_EQUAL(rd(31, 8, 4) >> 8, 0x060100);
	CU_ASSERT_EQUAL(rd(3, 2, 2), 0x1042);
	CU_ASSERT_EQUAL(rd(3, 0x2e, 2), 2);
	CU_ASSERT_EQUAL(rd(3, 0x0b, 1), 1);
	CU_ASSERT_EQUAL(rd(4, 0, 4), 0xffffffff);
	for (unsigned bus = 0; bus < 256; bus++)
		for (unsigned devfn = 0; devfn < 256; devfn++)
			found += (uint16_t)bus_read(&mem, PCI_ECAM_BASE + (bus << 20 | devfn << 12), 2) != 0xffff;
	CU_ASSERT_EQUAL(found, 3);
	CU_ASSERT_EQUAL(bus_read(&mem, PCI_ECAM_BASE + (3 << 15), 8), 0x000000031042ull << 16 | 0x1af4 | 0ull);
	CU_ASSERT_EQUAL(bus_read(&mem, PCI_ECAM_BASE + (3 << 15) + 0x100, 4), 0xffffffff);
	bus_write(&io, 0xcf8, 0x1800, 4); /* not enabled */
	CU_ASSERT_EQUAL(bus_read(&io, 0xcfc, 4), 0xffffffff);
	CU_ASSERT_EQUAL(bus_read(&io, 0xcf8, 4), 0x1800);
}

static void test_bars(void)
{
	uint64_t at;

	setup();
	at = rd(3, 0x14, 4);
	CU_ASSERT_EQUAL(at, PCI_MMIO_BASE);
	CU_ASSERT_EQUAL(bus_read(&mem, at + 8, 4), 0x55667708);
	wr(3, 0x14, 0xffffffff, 4); /* sizing */
	CU_ASSERT_EQUAL(rd(3, 0x14, 4), 0xfffff000);
	CU_ASSERT_EQUAL(bus_read(&mem, at + 8, 4), 0xffffffff);
	wr(3, 0x14, 0xc8001000, 4);
	CU_ASSERT_EQUAL(bus_read(&mem, 0xc8001008, 4), 0x55667708);
	wr(3, 0x10, 0xffffffff, 4);
	CU_ASSERT_EQUAL(rd(3, 0x10, 4), 0xffffffc1);
	wr(3, 0x10, 0xd001, 4);
	bus_write(&io, 0xd004, 0xabcd, 2);
	CU_ASSERT_EQUAL(dev_off, 4);
	CU_ASSERT_EQUAL(dev_val, 0xabcd);
	wr(3, 0x20, 0xffffffff, 4), wr(3, 0x24, 0xffffffff, 4);
	CU_ASSERT_EQUAL(rd(3, 0x20, 4), 0xffffc00c);
	CU_ASSERT_EQUAL(rd(3, 0x24, 4), 0xffffffff);
	wr(3, 0x20, 0, 4), wr(3, 0x24, 0x71, 4);
	CU_ASSERT_EQUAL(bus_read(&mem, 0x7100000000ull, 8), 0x5566770455667700ull);
	wr(3, 4, 1, 2); /* memory decoding off */
	CU_ASSERT_EQUAL(bus_read(&mem, 0xc8001008, 4), 0xffffffff);
	CU_ASSERT_EQUAL(bus_read(&io, 0xd000, 1), 0x00);
	wr(3, 4, 2, 2);
	CU_ASSERT_EQUAL(bus_read(&io, 0xd000, 1), 0xff);
	CU_ASSERT_EQUAL(bus_read(&mem, 0xc8001008, 4), 0x55667708);
	wr(3, 0x14, PCI_ECAM_BASE, 4); /* on top of something else: not decoded */
	CU_ASSERT_EQUAL(bus_read(&mem, PCI_ECAM_BASE, 4), 0x29c08086);
	wr(3, 0x14, 0xc0000000, 4);
	CU_ASSERT_EQUAL(bus_read(&mem, 0xc0000000, 4), 0x55667700);
}

static void test_wiring_errors(void)
{
	static const struct pci_ids ids = {.vendor = 1};
	static struct pci_func other;

	setup();
	CU_ASSERT_EQUAL(pci_add(&p, &other, 3 << 3, &ids), -EEXIST);
	CU_ASSERT_EQUAL(pci_add_bar(&card, 5, PCI_BAR_MEM64, 4096, &dev_ops, NULL), -EINVAL);
	CU_ASSERT_EQUAL(pci_add_bar(&card, 2, PCI_BAR_MEM32, 100, &dev_ops, NULL), -EINVAL);
	CU_ASSERT_EQUAL(pci_add_bar(&card, 2, PCI_BAR_IO, 0x8000, &dev_ops, NULL), -ENOSPC);
}

static void test_caps(void)
{
	int a, b;

	setup();
	a = pci_add_cap(&card, 0x09, 16);
	b = pci_add_cap(&card, 0x11, 12);
	CU_ASSERT_EQUAL(a, 0x40);
	CU_ASSERT_EQUAL(b, 0x50);
	CU_ASSERT_EQUAL(rd(3, 6, 2) & 0x10, 0x10);
	CU_ASSERT_EQUAL(rd(3, 0x34, 1), 0x40);
	CU_ASSERT_EQUAL(rd(3, 0x40, 2), 0x5009);
	CU_ASSERT_EQUAL(rd(3, 0x50, 2), 0x0011);
	CU_ASSERT_EQUAL(pci_add_cap(&card, 0x05, 200), -ENOSPC);
	wr(3, 0x40, 0xffff, 2); /* read-only */
	CU_ASSERT_EQUAL(rd(3, 0x40, 2), 0x5009);
}

static void test_intx(void)
{
	setup();
	CU_ASSERT_EQUAL(rd(3, 0x3d, 1), 1);
	pci_set_intx(&card, true);
	CU_ASSERT_TRUE(intx_level);
	CU_ASSERT_EQUAL(intx_line, 3); /* device 3, INTA */
	CU_ASSERT_EQUAL(rd(3, 6, 2) & 8, 8);
	wr(3, 4, 0x407, 2); /* INTx disabled */
	CU_ASSERT_FALSE(intx_level);
	CU_ASSERT_EQUAL(rd(3, 6, 2) & 8, 8);
	wr(3, 4, 7, 2);
	CU_ASSERT_TRUE(intx_level);
	pci_set_intx(&card, false);
	CU_ASSERT_FALSE(intx_level);
	CU_ASSERT_EQUAL(intx_calls, 4);
	CU_ASSERT_EQUAL(pci_route(&p, 3), 11);
	wr(31, 0x63, 0x80, 1);
	CU_ASSERT_EQUAL(pci_route(&p, 3), -1);
}

static void test_reset(void)
{
	setup();
	pci_set_intx(&card, true);
	wr(3, 0x14, 0xc8001000, 4), wr(3, 4, 0x407, 2), wr(3, 0x3c, 5, 1);
	pci_reset(&p);
	CU_ASSERT_FALSE(intx_level);
	CU_ASSERT_EQUAL(rd(3, 0x14, 4), PCI_MMIO_BASE);
	CU_ASSERT_EQUAL(rd(3, 4, 2), 3);
	CU_ASSERT_EQUAL(rd(3, 0x3c, 1), 11);
	CU_ASSERT_EQUAL(bus_read(&mem, PCI_MMIO_BASE, 4), 0x55667700);
	CU_ASSERT_EQUAL(bus_read(&mem, 0xc8001008, 4), 0xffffffff);
}

static void test_bus(void)
{
	static struct bus b;

	memset(&b, 0, sizeof(b));
	CU_ASSERT_EQUAL(bus_add(&b, 100, 10, &dev_ops, NULL), 0);
	CU_ASSERT_EQUAL(bus_add(&b, 109, 1, &dev_ops, NULL), -EEXIST);
	CU_ASSERT_EQUAL(bus_add(&b, 91, 10, &dev_ops, NULL), -EEXIST);
	CU_ASSERT_EQUAL(bus_add(&b, 90, 10, &dev_ops, NULL), 0);
	CU_ASSERT_EQUAL(bus_add(&b, 110, 5, &dev_ops, NULL), 0);
	CU_ASSERT_EQUAL(bus_add(&b, 0, 0, &dev_ops, NULL), -EINVAL);
	CU_ASSERT_EQUAL(bus_add(&b, UINT64_MAX, 2, &dev_ops, NULL), -EINVAL);
	CU_ASSERT_EQUAL(bus_read(&b, 89, 1), 0xff);
	CU_ASSERT_EQUAL(bus_read(&b, 99, 1), 9);
	CU_ASSERT_EQUAL(bus_read(&b, 114, 1), 4);
	CU_ASSERT_EQUAL(bus_read(&b, 115, 1), 0xff);
	CU_ASSERT_EQUAL(bus_read(&b, 114, 4), 0xffffff04); /* across the end */
	bus_remove(&b, 100, NULL);
	CU_ASSERT_EQUAL(bus_read(&b, 105, 1), 0xff);
	CU_ASSERT_EQUAL(bus_read(&b, 112, 1), 2);
}

CU_ErrorCode suite_pci(void)
{
	CU_pSuite s = CU_add_suite("pci", NULL, NULL);

	CU_add_test(s, "bus decoding", test_bus);
	CU_add_test(s, "scan", test_scan);
	CU_add_test(s, "BARs", test_bars);
	CU_add_test(s, "wiring errors", test_wiring_errors);
	CU_add_test(s, "capabilities", test_caps);
	CU_add_test(s, "INTx", test_intx);
	CU_add_test(s, "reset", test_reset);
	return CU_get_error();
}
