/* chipset/hpet: counter, one-shot and periodic comparators, level interrupts, legacy routes, halves; and chipset/vga. */
#include <CUnit/CUnit.h>
#include <string.h>

#include "tests/unit/chipfakes.h"
#include "vcpu/chipset/hpet.h"
#include "vcpu/chipset/vga.h"

static struct fake f;
static struct hpet h;
static bool legacy;

static void on_irq(void *ctx, unsigned gsi, bool level)
{
	f.rises[gsi] += level && !f.line[gsi];
	f.line[gsi] = level;
}

static void on_legacy(void *ctx, bool on)
{
	legacy = on;
}

static void setup(void)
{
	fake_init(&f, 1000000000);
	memset(&h, 0, sizeof h);
	h.irq = on_irq;
	h.legacy = on_legacy;
	legacy = false;
	hpet_init(&h, &f.clock, &f.q);
}

static uint64_t get(unsigned reg)
{
	return hpet_ops.read(&h, reg, 8);
}

static void set(unsigned reg, uint64_t val)
{
	hpet_ops.write(&h, reg, val, 8);
}

static void test_counter(void)
{
	setup();
	CU_ASSERT_EQUAL(get(0) >> 32, 10000000); /* fs */
	CU_ASSERT_EQUAL(get(0) >> 8 & 31, 2);    /* timers, less one */
	fake_advance(&f, 1000);
	CU_ASSERT_EQUAL(get(0xf0), 0); /* it stands */
	set(0xf0, 500);
	set(0x10, 1);
	fake_advance(&f, 1000);
	CU_ASSERT_EQUAL(get(0xf0), 600);
	set(0xf0, 0); /* not while it runs */
	CU_ASSERT_EQUAL(get(0xf0), 600);
	set(0x10, 0);
	fake_advance(&f, 1000);
	CU_ASSERT_EQUAL(get(0xf0), 600);
	CU_ASSERT_EQUAL(hpet_ops.read(&h, 4, 4), 10000000);
	hpet_ops.write(&h, 0xf4, 1, 4);
	CU_ASSERT_EQUAL(get(0xf0), 600 | 1ull << 32);
}

static void test_once(void)
{
	setup();
	set(0x120, 20u << 9 | 4);
	set(0x128, 100);
	fake_advance(&f, 5000);
	CU_ASSERT_EQUAL(f.rises[20], 0);
	set(0x10, 1);
	fake_advance(&f, 990);
	CU_ASSERT_EQUAL(f.rises[20], 0);
	fake_advance(&f, 10);
	CU_ASSERT_EQUAL(f.rises[20], 1);
	fake_advance(&f, 1000000);
	CU_ASSERT_EQUAL(f.rises[20], 1);
	CU_ASSERT(!f.line[20]);
	set(0x128, get(0xf0) + 10);
	fake_advance(&f, 100);
	CU_ASSERT_EQUAL(f.rises[20], 2);
}

static void test_periodic(void)
{
	setup();
	set(0x100, 20u << 9 | 0x4c); /* as Linux: sets the comparator, then the period */
	set(0x108, 1000);
	set(0x108, 300);
	set(0x10, 1);
	fake_advance(&f, 10000);
	CU_ASSERT_EQUAL(f.rises[20], 1);
	fake_advance(&f, 3000);
	CU_ASSERT_EQUAL(f.rises[20], 2);
	fake_advance(&f, 30000);
	CU_ASSERT_EQUAL(f.rises[20], 12);
	CU_ASSERT_EQUAL(get(0x108), 1000 + 12 * 300);
	setup();
	set(0x120, 20u << 9 | 0x0c); /* the second has no periodic mode */
	CU_ASSERT_EQUAL(get(0x120) & 0x18, 0);
}

static void test_level(void)
{
	setup();
	set(0x140, 21u << 9 | 6);
	set(0x148, 100);
	set(0x10, 1);
	fake_advance(&f, 1000);
	CU_ASSERT(f.line[21]);
	CU_ASSERT_EQUAL(get(0x20), 4);
	set(0x20, 3); /* others */
	CU_ASSERT(f.line[21]);
	set(0x20, 4);
	CU_ASSERT(!f.line[21]);
	CU_ASSERT_EQUAL(get(0x20), 0);
	set(0x140, 5u << 9 | 6); /* a pin it cannot drive */
	CU_ASSERT_EQUAL(get(0x140) >> 9 & 31, 0);
	set(0x140, 21u << 9 | 6);
	set(0x148, get(0xf0) + 1);
	fake_advance(&f, 100);
	CU_ASSERT(f.line[21]);
	hpet_reset(&h);
	CU_ASSERT(!f.line[21]);
	CU_ASSERT_EQUAL(get(0xf0), 0);
}

static void test_legacy(void)
{
	setup();
	set(0x100, 4);
	set(0x108, 100);
	set(0x10, 3);
	CU_ASSERT(legacy);
	fake_advance(&f, 1000);
	CU_ASSERT_EQUAL(f.rises[2], 1);
	set(0x120, 4);
	set(0x128, 200);
	fake_advance(&f, 1000);
	CU_ASSERT_EQUAL(f.rises[8], 1);
	set(0x10, 1);
	CU_ASSERT(!legacy);
}

/* 32 bits: the comparator wraps with the low half of the counter. */
static void test_narrow(void)
{
	setup();
	set(0xf0, 0xfffffff0);
	set(0x120, 20u << 9 | 0x104);
	set(0x128, 0x10);
	set(0x10, 1);
	fake_advance(&f, 310);
	CU_ASSERT_EQUAL(f.rises[20], 0);
	fake_advance(&f, 10);
	CU_ASSERT_EQUAL(f.rises[20], 1);
}

/* ---- display ---- */

static struct vga v;

static void crtc(unsigned reg, uint8_t val)
{
	wr8(&vga_ops, &v, 0x24, (uint8_t)reg);
	wr8(&vga_ops, &v, 0x25, val);
}

static void test_text(void)
{
	struct vga_screen s;

	fake_init(&f, 1000000000);
	vga_init(&v, &f.clock);
	vga_screen(&v, &s);
	CU_ASSERT(!s.graphics && s.columns == 80 && s.rows == 25 && s.start == 0 && s.pitch == 160);
	crtc(9, 7); /* eight lines a character */
	crtc(0xc, 1);
	crtc(0xd, 2);
	vga_screen(&v, &s);
	CU_ASSERT(s.rows == 50 && s.start == 0x204);
	crtc(9, 0);
	crtc(1, 255);
	vga_screen(&v, &s);
	CU_ASSERT(s.rows == VGA_ROWS && s.columns == VGA_COLUMNS);
	wr8(&vga_ops, &v, 0x1e, 6);
	wr8(&vga_ops, &v, 0x1f, 1);
	vga_screen(&v, &s);
	CU_ASSERT(s.graphics);
}

static void test_registers(void)
{
	fake_init(&f, 1000000000);
	vga_init(&v, &f.clock);
	crtc(0x11, 0x80); /* protects the first eight */
	crtc(1, 33);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x25), 79);
	crtc(7, 0xff);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x25), 0x1f);
	rd8(&vga_ops, &v, 0x2a);
	wr8(&vga_ops, &v, 0x10, 0x33);
	wr8(&vga_ops, &v, 0x10, 0x55);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x11), 0x55);
	wr8(&vga_ops, &v, 0x18, 255); /* a palette entry, and the next one: the first */
	for (unsigned i = 0; i < 4; i++)
		wr8(&vga_ops, &v, 0x19, (uint8_t)(0xc1 + i));
	wr8(&vga_ops, &v, 0x17, 255);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x19), 1);
	rd8(&vga_ops, &v, 0x19);
	rd8(&vga_ops, &v, 0x19);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x19), 4);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x05), 0xff); /* monochrome's registers are not there */
	wr8(&vga_ops, &v, 0x12, 0x66);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x05), 0x1f);
	CU_ASSERT_EQUAL(rd8(&vga_ops, &v, 0x1c), 0x66);
}

/* Loops that wait for the retrace see it come and go. */
static void test_retrace(void)
{
	unsigned seen[2] = {0};

	fake_init(&f, 1000000000);
	vga_init(&v, &f.clock);
	for (unsigned i = 0; i < 2000; i++) {
		seen[!!(rd8(&vga_ops, &v, 0x2a) & 8)]++;
		fake_advance(&f, 20000);
	}
	CU_ASSERT(seen[0] > 1000 && seen[1] > 2);
}

CU_ErrorCode suite_hpet(void)
{
	CU_pSuite s = CU_add_suite("hpet", NULL, NULL);

	CU_add_test(s, "counter", test_counter);
	CU_add_test(s, "one-shot", test_once);
	CU_add_test(s, "periodic", test_periodic);
	CU_add_test(s, "level interrupts", test_level);
	CU_add_test(s, "legacy routes", test_legacy);
	CU_add_test(s, "32-bit comparator", test_narrow);
	CU_add_test(s, "text on the display", test_text);
	CU_add_test(s, "display's registers", test_registers);
	CU_add_test(s, "retrace", test_retrace);
	return CU_get_error();
}
