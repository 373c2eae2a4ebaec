/* i6300esb: unlock sequence, both stages, free running, lock, pauses, what survives a reset. */
#include "vcpu/chipset/i6300esb.h"

#include <string.h>

#include "tests/unit/chipfakes.h"

#define MS 1000000ull

static struct fake f;
static struct bus io, mem;
static struct pci p;
static struct i6300esb w;
static unsigned expired;
static bool intx;

static void on_expired(void *ctx)
{
	(void)ctx;
	expired++;
}

static void on_intx(void *ctx, unsigned line, bool level)
{
	(void)ctx, (void)line;
	intx = level;
}

static void wr(unsigned off, uint32_t val, unsigned size)
{
	bus_write(&mem, w.f.bar[0].mapped + off, val, size);
}

static uint32_t rd(unsigned off, unsigned size)
{
	return (uint32_t)bus_read(&mem, w.f.bar[0].mapped + off, size);
}

static void cfg(unsigned off, uint32_t val, unsigned size)
{
	bus_write(&mem, PCI_ECAM_BASE + (28 << 15) + off, val, size);
}

static uint32_t cfg_rd(unsigned off, unsigned size)
{
	return (uint32_t)bus_read(&mem, PCI_ECAM_BASE + (28 << 15) + off, size);
}

static void setup(void)
{
	fake_init(&f, 2000000000);
	memset(&io, 0, sizeof io);
	memset(&mem, 0, sizeof mem);
	memset(&p, 0, sizeof p);
	memset(&w, 0, sizeof w);
	expired = 0;
	intx = false;
	p.intx = on_intx;
	pci_init(&p, &io, &mem);
	bus_add(&mem, PCI_ECAM_BASE, PCI_ECAM_LEN, &pci_ecam_ops, &p);
	w.expired = on_expired;
	CU_ASSERT_EQUAL(i6300esb_add(&p, &w, 28 << 3, &f.clock, &f.q), 0);
}

static void unlocked(unsigned off, uint32_t val, unsigned size)
{
	wr(12, 0x80, 2);
	wr(12, 0x86, 2);
	wr(off, val, size);
}

/* As Linux does it: a second is 512 ticks of each stage. */
static void start(uint32_t lock)
{
	cfg(0x60, 3, 2);
	unlocked(0, 512, 4);
	unlocked(4, 512, 4);
	unlocked(12, 0x100, 2);
	cfg(0x68, lock, 1);
}

static void test_unlock(void)
{
	setup();
	CU_ASSERT_EQUAL(cfg_rd(0, 4), 0x25ab8086);
	CU_ASSERT_EQUAL(rd(0, 4), 0xfffff);
	wr(0, 5, 4);
	CU_ASSERT_EQUAL(rd(0, 4), 0xfffff);
	unlocked(0, 5, 4);
	CU_ASSERT_EQUAL(rd(0, 4), 5);
	wr(0, 6, 4); /* once only */
	CU_ASSERT_EQUAL(rd(0, 4), 5);
	wr(12, 0x80, 2), wr(4, 1, 4), wr(12, 0x86, 2), wr(4, 1, 4);
	CU_ASSERT_EQUAL(rd(4, 4), 0xfffff);
	wr(12, 0x86, 2), wr(12, 0x80, 2), wr(4, 1, 4);
	CU_ASSERT_EQUAL(rd(4, 4), 0xfffff);
	unlocked(4, 0xffffffff, 4);
	CU_ASSERT_EQUAL(rd(4, 4), 0xfffff);
}

static void test_stages(void)
{
	setup();
	start(2);
	fake_advance(&f, 500 * MS);
	CU_ASSERT_EQUAL(w.stages, 0);
	fake_advance(&f, 20 * MS);
	CU_ASSERT_EQUAL(w.stages, 1);
	CU_ASSERT_EQUAL(rd(8, 1), 1);
	CU_ASSERT_FALSE(intx); /* switched off */
	fake_advance(&f, 400 * MS);
	unlocked(12, 0x100, 2);
	fake_advance(&f, 1000 * MS);
	CU_ASSERT_EQUAL(expired, 0);
	CU_ASSERT_EQUAL(rd(12, 2), 0);
	fake_advance(&f, 30 * MS);
	CU_ASSERT_EQUAL(expired, 1);
	CU_ASSERT_EQUAL(rd(12, 2), 0x200);
	fake_advance(&f, 10000 * MS);
	CU_ASSERT_EQUAL(expired, 1);
	CU_ASSERT_EQUAL(w.reloads, 1);
	CU_ASSERT_EQUAL(timerq_next(&f.q), TIMER_NEVER);
}

static void test_interrupt(void)
{
	setup();
	start(2);
	cfg(0x60, 0, 2);
	fake_advance(&f, 600 * MS);
	CU_ASSERT_TRUE(intx);
	wr(8, 0, 4);
	CU_ASSERT_TRUE(intx);
	wr(8, 1, 4);
	CU_ASSERT_FALSE(intx);
	CU_ASSERT_EQUAL(rd(8, 4), 0);
}

static void test_off(void)
{
	setup();
	start(2);
	cfg(0x68, 0, 1);
	fake_advance(&f, 3000 * MS);
	CU_ASSERT_EQUAL(w.stages, 0);
	start(2);
	cfg(0x60, 0x23, 2); /* the output is off */
	fake_advance(&f, 3000 * MS);
	CU_ASSERT_EQUAL(expired, 0);
	CU_ASSERT_EQUAL(w.timeouts, 1);
	start(6); /* free running: one stage, again and again */
	cfg(0x60, 3, 2);
	fake_advance(&f, 1560 * MS);
	CU_ASSERT_EQUAL(expired, 3);
	CU_ASSERT_EQUAL(w.stages, 1);
}

static void test_fast(void)
{
	setup();
	cfg(0x60, 7, 2);
	unlocked(0, 0, 4), unlocked(4, 0xfffff, 4);
	cfg(0x68, 2, 1);
	fake_advance(&f, 1000);
	CU_ASSERT_EQUAL(w.stages, 1);
	fake_advance(&f, 1016 * MS);
	CU_ASSERT_EQUAL(expired, 0);
	fake_advance(&f, 2 * MS);
	CU_ASSERT_EQUAL(expired, 1);
}

static void test_lock(void)
{
	setup();
	start(3);
	CU_ASSERT_EQUAL(cfg_rd(0x68, 1), 3);
	cfg(0x68, 0, 1);
	CU_ASSERT_EQUAL(cfg_rd(0x68, 1), 3);
	fake_advance(&f, 1100 * MS);
	CU_ASSERT_EQUAL(expired, 1);
	pci_reset(&p);
	i6300esb_reset(&w);
	CU_ASSERT_EQUAL(cfg_rd(0x68, 1), 0);
	CU_ASSERT_EQUAL(rd(0, 4), 0xfffff);
	CU_ASSERT_EQUAL(rd(12, 2), 0x200); /* why it starts */
	unlocked(12, 0x300, 2);
	CU_ASSERT_EQUAL(rd(12, 2), 0);
	fake_advance(&f, 1000000 * MS);
	CU_ASSERT_EQUAL(expired, 1);
	cfg(0x68, 2, 1);
	CU_ASSERT_EQUAL(cfg_rd(0x68, 1), 2);
}

static void test_hold(void)
{
	setup();
	start(2);
	fake_advance(&f, 900 * MS);
	i6300esb_hold(&w, true);
	i6300esb_hold(&w, true);
	fake_advance(&f, 100000 * MS);
	CU_ASSERT_EQUAL(expired, 0);
	i6300esb_hold(&w, false);
	fake_advance(&f, 100 * MS);
	CU_ASSERT_EQUAL(expired, 0);
	fake_advance(&f, 30 * MS);
	CU_ASSERT_EQUAL(expired, 1);
}

CU_ErrorCode suite_i6300esb(void)
{
	CU_pSuite s = CU_add_suite("i6300esb", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_unlock) || !CU_ADD_TEST(s, test_stages) || !CU_ADD_TEST(s, test_interrupt) ||
	    !CU_ADD_TEST(s, test_off) || !CU_ADD_TEST(s, test_fast) || !CU_ADD_TEST(s, test_lock) ||
	    !CU_ADD_TEST(s, test_hold))
		return CU_get_error();
	return CUE_SUCCESS;
}
