/* pm: timer, power button and SCI, soft-off, reset register. */
#include "vcpu/chipset/pm.h"

#include <string.h>

#include "tests/unit/chipfakes.h"

static struct fake f;
static struct pm p;
static int offs, resets;

static void on_off(void *ctx)
{
	offs++;
}

static void on_reset(void *ctx)
{
	resets++;
}

static void setup(void)
{
	fake_init(&f, 0);
	memset(&p, 0, sizeof(p));
	p.power_off = on_off;
	p.reset = on_reset;
	offs = resets = 0;
	pm_init(&p, &f.clock, &f.q, fake_wire(&f, 9));
}

static uint32_t rd(unsigned off, unsigned size)
{
	uint32_t val = (uint32_t)pm_ops.read(&p, off, size);

	return size == 4 ? val : val & ((1u << size * 8) - 1);
}

static void wr(unsigned off, uint32_t val, unsigned size)
{
	pm_ops.write(&p, off, val, size);
}

static void test_timer(void)
{
	uint32_t a, b;

	setup();
	a = rd(8, 4);
	fake_advance(&f, 1000000000);
	b = rd(8, 4);
	CU_ASSERT_EQUAL((b - a) & 0xffffff, 3579545);
	CU_ASSERT(b < 1u << 24);
	CU_ASSERT_EQUAL(timerq_next(&f.q), TIMER_NEVER);
}

static void test_timer_irq(void)
{
	setup();
	wr(2, 1, 2);
	fake_advance(&f, 2400000000); /* the top bit changes every 2.34 s */
	CU_ASSERT_TRUE(f.line[9]);
	CU_ASSERT_EQUAL(rd(0, 2), 1);
	wr(0, 1, 2);
	CU_ASSERT_FALSE(f.line[9]);
	fake_advance(&f, 2400000000);
	CU_ASSERT_TRUE(f.line[9]);
	wr(2, 0, 2);
	CU_ASSERT_FALSE(f.line[9]);
}

static void test_button(void)
{
	setup();
	pm_power_button(&p);
	CU_ASSERT_FALSE(f.line[9]);
	CU_ASSERT_EQUAL(rd(0, 4) & 0x100, 0x100);
	wr(2, 0x100, 2);
	CU_ASSERT_TRUE(f.line[9]);
	wr(1, 0x01, 1); /* clear by byte */
	CU_ASSERT_FALSE(f.line[9]);
	CU_ASSERT_EQUAL(rd(0, 4), 0x01000000);
	pm_power_button(&p);
	wr(0, 0x01000100, 4); /* status and enable at once */
	CU_ASSERT_FALSE(f.line[9]);
	CU_ASSERT_EQUAL(rd(2, 2), 0x100);
}

static void test_soft_off(void)
{
	setup();
	CU_ASSERT_EQUAL(rd(4, 2), 1); /* ACPI mode from the start */
	wr(4, 0x2000 | 1 << 10, 2);   /* S1: not there */
	CU_ASSERT_EQUAL(offs, 0);
	wr(4, PM_S5_TYPE << 10 | 1, 2);
	CU_ASSERT_EQUAL(offs, 0);
	CU_ASSERT_EQUAL(rd(4, 2), PM_S5_TYPE << 10 | 1);
	wr(4, PM_S5_TYPE << 10 | 0x2001, 2);
	CU_ASSERT_EQUAL(offs, 1);
	setup();
	wr(4, 0x01, 1), wr(5, 0x20 | PM_S5_TYPE << 2, 1); /* by bytes */
	CU_ASSERT_EQUAL(offs, 1);
}

static void test_reset(void)
{
	setup();
	pm_rst_cnt_write(&p, 0x02);
	CU_ASSERT_EQUAL(resets, 0);
	CU_ASSERT_EQUAL(pm_rst_cnt_read(&p), 2);
	pm_rst_cnt_write(&p, PM_RESET_VAL);
	CU_ASSERT_EQUAL(resets, 1);
	pm_power_button(&p);
	wr(2, 0x100, 2);
	pm_reset(&p);
	CU_ASSERT_FALSE(f.line[9]);
	CU_ASSERT_EQUAL(rd(0, 4), 0);
}

CU_ErrorCode suite_pm(void)
{
	CU_pSuite s = CU_add_suite("pm", NULL, NULL);

	CU_add_test(s, "timer", test_timer);
	CU_add_test(s, "timer interrupt", test_timer_irq);
	CU_add_test(s, "power button", test_button);
	CU_add_test(s, "soft-off", test_soft_off);
	CU_add_test(s, "reset", test_reset);
	return CU_get_error();
}
