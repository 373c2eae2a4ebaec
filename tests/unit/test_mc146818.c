/* mc146818: host time, formats, setting, update, periodic and alarm interrupts, memory size. */
#include "vcpu/chipset/mc146818.h"

#include "tests/unit/chipfakes.h"

static struct fake f;
static struct mc146818 r;
static uint64_t epoch; /* time of day when the fake clock reads 0 */

static uint64_t fake_realtime(void)
{
	return epoch + f.now;
}

/* 2024-02-29 23:59:58.5 UTC */
static void setup(void)
{
	fake_init(&f, 0);
	epoch = 1709251198500000000ull - f.now;
	r = (struct mc146818){.realtime = fake_realtime};
	mc146818_init(&r, &f.clock, &f.q, fake_wire(&f, 8), 0x20000000, 0x40000000);
}

static uint8_t get(uint8_t reg)
{
	wr8(&mc146818_ops, &r, 0, reg);
	return rd8(&mc146818_ops, &r, 1);
}

static void set(uint8_t reg, uint8_t val)
{
	wr8(&mc146818_ops, &r, 0, reg);
	wr8(&mc146818_ops, &r, 1, val);
}

static void test_time(void)
{
	setup();
	CU_ASSERT_EQUAL(get(0), 0x58);
	CU_ASSERT_EQUAL(get(2), 0x59);
	CU_ASSERT_EQUAL(get(4), 0x23);
	CU_ASSERT_EQUAL(get(6), 5); /* Thursday */
	CU_ASSERT_EQUAL(get(7), 0x29);
	CU_ASSERT_EQUAL(get(8), 0x02);
	CU_ASSERT_EQUAL(get(9), 0x24);
	CU_ASSERT_EQUAL(get(0x32), 0x20);
	CU_ASSERT_EQUAL(get(0x0d), 0x80);
	fake_advance(&f, 2000000000);
	CU_ASSERT_EQUAL(get(7), 0x01);
	CU_ASSERT_EQUAL(get(8), 0x03);
	CU_ASSERT_EQUAL(get(4), 0);
}

static void test_formats(void)
{
	setup();
	set(0x0b, 0x06);
	CU_ASSERT_EQUAL(get(0), 58);
	CU_ASSERT_EQUAL(get(4), 23);
	set(0x0b, 0x04); /* 12 hours, binary */
	CU_ASSERT_EQUAL(get(4), 11 | 0x80);
	set(0x0b, 0x00);
	CU_ASSERT_EQUAL(get(4), 0x91);
	fake_advance(&f, 2000000000);
	CU_ASSERT_EQUAL(get(4), 0x12); /* midnight */
}

static void test_set_clock(void)
{
	setup();
	set(0x0b, 0x82);
	set(0, 0x30), set(2, 0x15), set(4, 0x12), set(7, 0x31), set(8, 0x12), set(9, 0x99), set(0x32, 0x19);
	fake_advance(&f, 5000000000);
	CU_ASSERT_EQUAL(get(0), 0x30); /* stopped */
	set(0x0b, 0x02);
	fake_advance(&f, 1000000000);
	CU_ASSERT_EQUAL(get(0), 0x31);
	CU_ASSERT_EQUAL(get(9), 0x99);
	CU_ASSERT_EQUAL(get(0x32), 0x19);
	fake_advance(&f, 12ull * 3600 * 1000000000);
	CU_ASSERT_EQUAL(get(0x32), 0x20);
	CU_ASSERT_EQUAL(get(9), 0x00);
	CU_ASSERT_EQUAL(get(7), 0x01);
	mc146818_reset(&r);
	CU_ASSERT_EQUAL(get(9), 0x00); /* survives a reset */
}

static void test_uip(void)
{
	setup();
	CU_ASSERT_EQUAL(get(0x0a), 0x26);
	fake_advance(&f, 499900000);
	CU_ASSERT_EQUAL(get(0x0a), 0xa6);
	fake_advance(&f, 200000);
	CU_ASSERT_EQUAL(get(0x0a), 0x26);
	CU_ASSERT_EQUAL(get(0), 0x59);
}

static void test_update_irq(void)
{
	setup();
	CU_ASSERT_EQUAL(timerq_next(&f.q), TIMER_NEVER); /* nothing enabled costs nothing */
	set(0x0b, 0x12);
	fake_advance(&f, 600000000);
	CU_ASSERT_TRUE(f.line[8]);
	CU_ASSERT_EQUAL(get(0x0c) & 0x90, 0x90);
	CU_ASSERT_FALSE(f.line[8]);
	CU_ASSERT_EQUAL(get(0x0c) & 0x90, 0);
	for (unsigned i = 0; i < 5; i++) {
		fake_advance(&f, 1000000000);
		get(0x0c);
	}
	CU_ASSERT_EQUAL(f.rises[8], 6);
	set(0x0b, 0x02);
	CU_ASSERT_EQUAL(timerq_next(&f.q), TIMER_NEVER);
	fake_advance(&f, 1000000000);
	CU_ASSERT_EQUAL(get(0x0c), 0x10 | (r.cmos[0x0c] & 0x40) | 0x40); /* flags rise without interrupts too */
}

static void test_periodic(void)
{
	unsigned n = 0;

	setup();
	set(0x0a, 0x2f); /* 2 Hz */
	set(0x0b, 0x42);
	for (unsigned i = 0; i < 1000; i++) {
		fake_advance(&f, 10000000);
		if (f.line[8]) {
			n++;
			CU_ASSERT_EQUAL(get(0x0c) & 0xc0, 0xc0);
		}
	}
	CU_ASSERT(n >= 19 && n <= 21);
	set(0x0a, 0x26); /* 1024 Hz */
	f.rises[8] = 0;
	for (unsigned i = 0; i < 10000; i++) {
		fake_advance(&f, 100000);
		get(0x0c);
	}
	CU_ASSERT(f.rises[8] >= 1022 && f.rises[8] <= 1026);
}

static void test_alarm(void)
{
	setup();
	set(1, 0x00), set(3, 0x00), set(5, 0x00);
	set(0x0b, 0x22);
	fake_advance(&f, 1000000000);
	CU_ASSERT_FALSE(f.line[8]);
	fake_advance(&f, 600000000);
	CU_ASSERT_TRUE(f.line[8]);
	CU_ASSERT_EQUAL(get(0x0c) & 0xa0, 0xa0);
	set(3, 0xff), set(5, 0xff); /* every minute */
	f.rises[8] = 0;
	for (unsigned i = 0; i < 180; i++) {
		fake_advance(&f, 1000000000);
		get(0x0c);
	}
	CU_ASSERT_EQUAL(f.rises[8], 3);
}

static void test_memory(void)
{
	setup();
	CU_ASSERT_EQUAL(get(0x15) | get(0x16) << 8, 640);
	CU_ASSERT_EQUAL(get(0x30) | get(0x31) << 8, 0xffff);
	CU_ASSERT_EQUAL(get(0x34) | get(0x35) << 8, (0x20000000 - 0x1000000) >> 16);
	CU_ASSERT_EQUAL(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 0x40000000 >> 16);
	set(0x40, 0xa5);
	CU_ASSERT_EQUAL(get(0x40), 0xa5);
	CU_ASSERT_EQUAL(get(0xc0), 0xa5); /* the top bit of the index masks NMI */
}

static void test_nonsense(void)
{
	setup();
	for (unsigned reg = 0; reg < 128; reg++)
		set((uint8_t)reg, 0xff);
	for (unsigned reg = 0; reg < 128; reg++)
		get((uint8_t)reg);
	set(0x0b, 0x72);
	fake_advance(&f, 3000000000);
	for (unsigned reg = 0; reg < 128; reg++)
		set((uint8_t)reg, 0);
	fake_advance(&f, 3000000000);
	CU_ASSERT_EQUAL(get(0x0d), 0x80);
}

CU_ErrorCode suite_mc146818(void)
{
	CU_pSuite s = CU_add_suite("mc146818", NULL, NULL);

	CU_add_test(s, "host time", test_time);
	CU_add_test(s, "BCD, binary, 12 hours", test_formats);
	CU_add_test(s, "setting the clock", test_set_clock);
	CU_add_test(s, "update in progress", test_uip);
	CU_add_test(s, "update interrupt", test_update_irq);
	CU_add_test(s, "periodic interrupt", test_periodic);
	CU_add_test(s, "alarm", test_alarm);
	CU_add_test(s, "memory sizes", test_memory);
	CU_add_test(s, "nonsense", test_nonsense);
	return CU_get_error();
}
