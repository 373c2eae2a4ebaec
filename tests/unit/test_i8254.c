/* i8254: modes, latches, read-back, BCD, gate 2, port 0x61, interrupts. */
#include "vcpu/chipset/i8254.h"

#include "tests/unit/chipfakes.h"

static struct fake f;
static struct i8254 t;

static void setup(void)
{
	fake_init(&f, 0);
	i8254_init(&t, &f.clock, &f.q, fake_wire(&f, 0));
}

static void out(unsigned port, uint8_t val)
{
	wr8(&i8254_ops, &t, port, val);
}

static unsigned in16(unsigned ch)
{
	unsigned lo = rd8(&i8254_ops, &t, ch);

	return lo | rd8(&i8254_ops, &t, ch) << 8;
}

static void program(uint8_t control, unsigned count)
{
	out(3, control);
	out(control >> 6, (uint8_t)count);
	out(control >> 6, (uint8_t)(count >> 8));
}

static uint64_t ticks(uint64_t n)
{
	return ticks_to_ns(n, I8254_HZ);
}

static void test_mode2(void)
{
	setup();
	program(0x34, 1000);
	f.rises[0] = 0;
	fake_advance(&f, ticks(10000) + 10);
	CU_ASSERT_EQUAL(f.rises[0], 10);
	fake_advance(&f, ticks(300));
	out(3, 0x00); /* latch */
	fake_advance(&f, ticks(50));
	CU_ASSERT_EQUAL(in16(0), 700);
	CU_ASSERT_EQUAL(in16(0), 650);
}

static void test_mode2_late(void)
{
	uint64_t next;

	setup();
	program(0x34, 1193);
	f.rises[0] = 0;
	f.now += 1000000000; /* nobody looked for a second */
	next = timerq_run(&f.q, f.now);
	CU_ASSERT_EQUAL(f.rises[0], 1);
	CU_ASSERT(next > f.now && next - f.now <= ticks(1193));
}

static void test_mode0(void)
{
	setup();
	program(0x30, 500);
	CU_ASSERT_FALSE(f.line[0]);
	fake_advance(&f, ticks(499));
	CU_ASSERT_FALSE(f.line[0]);
	fake_advance(&f, ticks(2));
	CU_ASSERT_TRUE(f.line[0]);
	fake_advance(&f, ticks(1000000));
	CU_ASSERT_EQUAL(f.rises[0], 1);
	program(0x30, 500);
	CU_ASSERT_FALSE(f.line[0]);
}

static void test_mode3_mode4(void)
{
	setup();
	program(0x36, 0); /* 65536 */
	f.rises[0] = 0;
	fake_advance(&f, 1000000000);
	CU_ASSERT_EQUAL(f.rises[0], 18);
	setup();
	program(0x38, 100);
	f.rises[0] = 0;
	fake_advance(&f, ticks(99));
	CU_ASSERT_EQUAL(f.rises[0], 0);
	fake_advance(&f, ticks(5));
	CU_ASSERT_EQUAL(f.rises[0], 1);
	fake_advance(&f, ticks(100000));
	CU_ASSERT_EQUAL(f.rises[0], 1);
}

static void test_read_back(void)
{
	setup();
	out(3, 0x34);
	out(3, 0xe2); /* status of channel 0, count not yet loaded */
	CU_ASSERT_EQUAL(rd8(&i8254_ops, &t, 0), 0xf4);
	program(0x34, 0x1234);
	fake_advance(&f, ticks(0x34));
	out(3, 0xc2); /* count and status */
	fake_advance(&f, ticks(16));
	CU_ASSERT_EQUAL(rd8(&i8254_ops, &t, 0), 0xb4);
	CU_ASSERT_EQUAL(in16(0), 0x1200);
	CU_ASSERT_EQUAL(in16(0), 0x11f0);
}

static void test_bcd_bytes(void)
{
	setup();
	program(0xb1, 0x1000); /* channel 2, mode 0, BCD */
	wr8(&i8254_port61_ops, &t, 0, 1);
	fake_advance(&f, ticks(1));
	CU_ASSERT_EQUAL(in16(2), 0x0999);
	out(3, 0x50); /* channel 1, low byte only, mode 0 */
	out(1, 0x40);
	fake_advance(&f, ticks(0x10));
	CU_ASSERT_EQUAL(rd8(&i8254_ops, &t, 1), 0x30);
	CU_ASSERT_EQUAL(rd8(&i8254_ops, &t, 1), 0x30);
}

/* As Linux measures the TSC: channel 2 in mode 0, its output in port 0x61. */
static void test_gate2(void)
{
	setup();
	wr8(&i8254_port61_ops, &t, 0, 0);
	program(0xb0, 11931);
	fake_advance(&f, ticks(20000));
	CU_ASSERT_EQUAL(rd8(&i8254_port61_ops, &t, 0) & 0x20, 0); /* the gate is low */
	wr8(&i8254_port61_ops, &t, 0, 1);
	fake_advance(&f, ticks(11930));
	CU_ASSERT_EQUAL(rd8(&i8254_port61_ops, &t, 0) & 0x23, 0x01);
	fake_advance(&f, ticks(2));
	CU_ASSERT_EQUAL(rd8(&i8254_port61_ops, &t, 0) & 0x23, 0x21);
	CU_ASSERT_EQUAL(f.rises[0], 0);
}

static void test_refresh(void)
{
	unsigned toggles = 0, last, now;

	setup();
	last = rd8(&i8254_port61_ops, &t, 0) & 0x10;
	for (unsigned i = 0; i < 1000; i++) {
		fake_advance(&f, 1000);
		now = rd8(&i8254_port61_ops, &t, 0) & 0x10;
		toggles += now != last;
		last = now;
	}
	CU_ASSERT(toggles >= 65 && toggles <= 67);
}

static void test_bad_counts(void)
{
	setup();
	program(0x34, 1); /* illegal: must neither divide by zero nor storm */
	in16(0);
	program(0x36, 1);
	in16(0);
	out(3, 0x3f); /* mode 7 is 3 */
	CU_ASSERT_EQUAL(t.ch[0].mode, 3);
	program(0x35, 0xffff); /* BCD digits beyond 9 */
	in16(0);
}

CU_ErrorCode suite_i8254(void)
{
	CU_pSuite s = CU_add_suite("i8254", NULL, NULL);

	CU_add_test(s, "mode 2", test_mode2);
	CU_add_test(s, "mode 2 served late", test_mode2_late);
	CU_add_test(s, "mode 0", test_mode0);
	CU_add_test(s, "modes 3 and 4", test_mode3_mode4);
	CU_add_test(s, "latch and read-back", test_read_back);
	CU_add_test(s, "BCD, single bytes", test_bcd_bytes);
	CU_add_test(s, "gate 2", test_gate2);
	CU_add_test(s, "refresh toggle", test_refresh);
	CU_add_test(s, "odd counts", test_bad_counts);
	return CU_get_error();
}
