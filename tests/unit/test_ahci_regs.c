/* The registers of an AHCI HBA: power-on values, resets, when the device works on the list, causes and the interrupt. */
#include "vcpu/chipset/ahci.h"

#include <string.h>

#include "tests/unit/chipfakes.h"

#define DEVFN (4 << 3)
enum { GHC = 4, IS = 8, PXIS = 0x110, PXIE = 0x114, CMD = 0x118, TFD = 0x120, SIG = 0x124, SSTS = 0x128, SCTL = 0x12c };
enum { SERR = 0x130, CI = 0x138 };
#define AE 0x80000000u
#define CR 0x8000u
#define FR 0x4000u
#define ON 0x11u /* FRE, ST */
#define UP 6u

static struct {
	struct bus io, mem;
	struct pci pci;
	struct ahci a;
	unsigned activations, resets, settles;
	uint32_t kicked;
	struct msg_virtio_activate m;
	bool later, intx;
} t;

static void on_kick(void *dev, unsigned slot)
{
	(void)dev;
	CU_ASSERT_TRUE(t.a.active && !(t.kicked >> slot & 1));
	t.kicked |= 1u << slot;
}

static void on_activate(void *dev, const struct msg_virtio_activate *m)
{
	(void)dev;
	t.activations++;
	t.m = *m;
}

static void on_reset(void *dev)
{
	t.resets++;
	if (!t.later)
		ahci_reset_done(dev);
}

static void on_settle(void *dev)
{
	(void)dev;
	t.settles++;
}

static void on_intx(void *ctx, unsigned line, bool level)
{
	(void)ctx, (void)line;
	t.intx = level;
}

static const struct virtio_pci_ops ops = {
	.kick = on_kick, .activate = on_activate, .reset = on_reset, .settle = on_settle};

static void wr(unsigned off, uint32_t val)
{
	bus_write(&t.mem, t.a.f.bar[5].mapped + off, val, 4);
}

static uint32_t rd(unsigned off)
{
	return (uint32_t)bus_read(&t.mem, t.a.f.bar[5].mapped + off, 4);
}

static void command(uint32_t val)
{
	bus_write(&t.mem, PCI_ECAM_BASE + (DEVFN << 12) + 4, val, 2);
}

static void setup(bool packet)
{
	memset(&t, 0, sizeof t);
	t.pci.intx = on_intx;
	pci_init(&t.pci, &t.io, &t.mem);
	bus_add(&t.mem, PCI_ECAM_BASE, PCI_ECAM_LEN, &pci_ecam_ops, &t.pci);
	t.a.ops = &ops;
	t.a.dev = &t.a;
	t.a.packet = packet;
	CU_ASSERT_EQUAL_FATAL(ahci_add(&t.pci, &t.a, DEVFN), 0);
	command(PCI_CMD_MEM | PCI_CMD_MASTER);
}

static void started(void)
{
	setup(false);
	wr(0x100, 0x12345678);
	wr(0x104, 1);
	wr(0x108, 0x2345);
	wr(CMD, ON);
}

static void test_power_on(void)
{
	for (int packet = 0; packet < 2; packet++) {
		setup(packet);
		CU_ASSERT_EQUAL(rd(0), 0x81341f00u); /* CAP */
		CU_ASSERT_EQUAL(rd(GHC), AE);
		CU_ASSERT_EQUAL(rd(0xc), 1);
		CU_ASSERT_EQUAL(rd(0x10), 0x10300);
		CU_ASSERT_EQUAL(rd(CMD), UP | (packet ? 1u << 24 : 0));
		CU_ASSERT_EQUAL(rd(TFD), 0x150);
		CU_ASSERT_EQUAL(rd(SIG), packet ? 0xeb140101 : 0x101);
		CU_ASSERT_EQUAL(rd(SSTS), 0x133);
		CU_ASSERT_TRUE(!rd(IS) && !rd(PXIE) && !rd(CI) && !rd(SCTL) && !t.intx && !t.activations);
		CU_ASSERT_TRUE(!rd(0x180) && !rd(0xffc)); /* no second port */
	}
}

/* AE stays; registers take 32 bits at a time only. */
static void test_ghc(void)
{
	started();
	wr(GHC, 0);
	CU_ASSERT_EQUAL(rd(GHC), AE);
	wr(GHC, 2);
	CU_ASSERT_EQUAL(rd(GHC), AE | 2);
	bus_write(&t.mem, t.a.f.bar[5].mapped + GHC, 0, 1);
	CU_ASSERT_EQUAL(rd(GHC), AE | 2);
	wr(PXIE, 1);
	t.later = true;
	wr(GHC, AE | 1);
	CU_ASSERT_TRUE(t.resets == 1 && (rd(GHC) & 1));
	wr(GHC, 2); /* nothing is taken meanwhile */
	wr(CMD, ON);
	CU_ASSERT_TRUE((rd(GHC) & 1) && t.activations == 1);
	ahci_reset_done(&t.a);
	CU_ASSERT_TRUE(rd(GHC) == AE && rd(CMD) == UP && !rd(PXIE) && rd(TFD) == 0x150);
	CU_ASSERT_EQUAL(rd(0x100), 0x12345400); /* addresses stay */
}

static void test_start(void)
{
	started();
	CU_ASSERT_TRUE(t.activations == 1 && t.m.list == 0x112345400 && t.m.fis == 0x2300 && !t.m.nqueues);
	CU_ASSERT_EQUAL(rd(CMD), UP | ON | FR | CR);
	t.later = true;
	wr(CMD, 0x10);
	CU_ASSERT_TRUE(t.resets == 1 && (rd(CMD) & CR)); /* until the device has stopped */
	wr(CMD, ON);
	CU_ASSERT_EQUAL(t.activations, 1);
	ahci_reset_done(&t.a);
	CU_ASSERT_TRUE(t.activations == 2 && (rd(CMD) & CR));
	wr(CMD, 0x10);
	ahci_reset_done(&t.a);
	CU_ASSERT_EQUAL(rd(CMD), UP | 0x10 | FR);
	command(PCI_CMD_MEM);
	wr(CMD, ON); /* no bus master: no memory is touched */
	CU_ASSERT_EQUAL(t.activations, 2);
	command(PCI_CMD_MEM | PCI_CMD_MASTER);
	CU_ASSERT_EQUAL(t.activations, 3);
	command(PCI_CMD_MEM);
	CU_ASSERT_TRUE(t.resets == 3 && t.settles == 1);
}

static void test_issue(void)
{
	setup(false);
	wr(CI, 1); /* not started */
	CU_ASSERT_TRUE(!rd(CI) && !t.kicked);
	wr(CMD, ON);
	CU_ASSERT_EQUAL(t.kicked, 0);
	wr(CI, 5);
	wr(CI, 4); /* again: it is there */
	CU_ASSERT_TRUE(rd(CI) == 5 && t.kicked == 5);
	ahci_done(&t.a, 4, 1, 0x50);
	CU_ASSERT_TRUE(rd(CI) == 1 && rd(TFD) == 0x50 && rd(PXIS) == (1 | 1 << 6));
	wr(CMD, 0x10);
	CU_ASSERT_EQUAL(rd(CI), 0);
	ahci_done(&t.a, 1, 1 << 30, 0x451); /* of before */
	CU_ASSERT_TRUE(rd(TFD) == 0x50 && !(rd(PXIS) & 1 << 30));
}

static void test_interrupt(void)
{
	started();
	wr(SERR, ~0u); /* the link came up */
	wr(CI, 3);
	ahci_done(&t.a, 1, 1, 0x50);
	CU_ASSERT_TRUE(rd(PXIS) == 1 && !rd(IS) && !t.intx);
	wr(PXIE, 0x40000001);
	CU_ASSERT_TRUE(rd(IS) == 1 && !t.intx);
	wr(GHC, 2);
	CU_ASSERT_TRUE(t.intx);
	wr(IS, 1); /* the port's cause comes first */
	CU_ASSERT_TRUE(rd(IS) == 1 && t.intx);
	wr(PXIS, 1);
	CU_ASSERT_TRUE(!rd(PXIS) && t.intx);
	wr(IS, 1);
	CU_ASSERT_TRUE(!rd(IS) && !t.intx);
	ahci_done(&t.a, 0, 1u << 30 | 1u << 31 | 1u << 4, 0x451); /* and what a device may not raise */
	CU_ASSERT_TRUE(rd(PXIS) == 1 << 30 && rd(TFD) == 0x451 && rd(CI) == 2 && t.intx);
	wr(GHC, 0);
	CU_ASSERT_FALSE(t.intx);
}

static void test_comreset(void)
{
	started();
	wr(SERR, ~0u);
	wr(CI, 1);
	wr(SCTL, 1);
	CU_ASSERT_TRUE(!rd(SSTS) && rd(SIG) == ~0u && !rd(CI) && t.resets == 1 && !(rd(CMD) & (CR | 1)));
	wr(SCTL, 0);
	CU_ASSERT_TRUE(rd(SSTS) == 0x133 && rd(SIG) == 0x101 && rd(SERR) == 1 << 26 && rd(PXIS) == 1 << 6);
	wr(SERR, 1 << 26);
	CU_ASSERT_EQUAL(rd(PXIS), 0);
	ahci_gone(&t.a);
	CU_ASSERT_TRUE(!rd(SSTS) && rd(TFD) == 0x7f && rd(PXIS) == 1 << 22);
	wr(CMD, ON);
	CU_ASSERT_EQUAL(t.activations, 1);
}

CU_ErrorCode suite_ahci_regs(void)
{
	CU_pSuite s = CU_add_suite("ahci_regs", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_power_on) || !CU_ADD_TEST(s, test_ghc) || !CU_ADD_TEST(s, test_start) ||
	    !CU_ADD_TEST(s, test_issue) || !CU_ADD_TEST(s, test_interrupt) || !CU_ADD_TEST(s, test_comreset))
		return CU_get_error();
	return CUE_SUCCESS;
}
