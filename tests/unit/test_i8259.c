/* i8259: initialisation, priorities, cascade, spurious vectors, ELCR, EOI forms. */
#include "vcpu/chipset/i8259.h"

#include "tests/unit/chipfakes.h"

static struct fake f;
static struct i8259_pair p;

static void master(unsigned off, uint8_t val)
{
	wr8(&i8259_master_ops, &p, off, val);
}

static void slave(unsigned off, uint8_t val)
{
	wr8(&i8259_slave_ops, &p, off, val);
}

static void program(uint8_t icw4)
{
	fake_init(&f, 0);
	i8259_init(&p, fake_wire(&f, 0));
	master(0, 0x11), master(1, 0x20), master(1, 0x04), master(1, icw4);
	slave(0, 0x11), slave(1, 0x28), slave(1, 0x02), slave(1, icw4);
	master(1, 0), slave(1, 0);
}

static void test_basic(void)
{
	program(1);
	CU_ASSERT_FALSE(f.line[0]);
	i8259_set(&p, 3, true);
	CU_ASSERT_TRUE(f.line[0]);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 0), 0x08);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x23);
	CU_ASSERT_FALSE(f.line[0]);
	i8259_set(&p, 5, true); /* lower priority waits */
	CU_ASSERT_FALSE(f.line[0]);
	i8259_set(&p, 1, true); /* higher interrupts */
	CU_ASSERT_TRUE(f.line[0]);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x21);
	master(0, 0x0b);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 0), 0x0a);
	master(0, 0x20);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 0), 0x08);
	CU_ASSERT_FALSE(f.line[0]);
	master(0, 0x63); /* specific EOI */
	CU_ASSERT_TRUE(f.line[0]);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x25);
}

static void test_cascade(void)
{
	program(1);
	i8259_set(&p, 8, true);
	i8259_set(&p, 14, true);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x28);
	CU_ASSERT_FALSE(f.line[0]);
	slave(0, 0x20);
	CU_ASSERT_FALSE(f.line[0]); /* the master's IR2 is still in service */
	master(0, 0x20);
	CU_ASSERT_TRUE(f.line[0]);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x2e);
}

static void test_cascade_auto_eoi(void)
{
	program(3);
	i8259_set(&p, 8, true);
	i8259_set(&p, 9, true);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x28);
	CU_ASSERT_TRUE(f.line[0]);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x29);
	CU_ASSERT_FALSE(f.line[0]);
}

static void test_spurious(void)
{
	program(1);
	i8259_set(&p, 4, true);
	i8259_set(&p, 4, false);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x27);
	master(0, 0x0b);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 0), 0);
	i8259_set(&p, 10, true);
	p.chip[1].irr = 0; /* withdrawn between the two acknowledge pulses */
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x2f);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 0), 4);
}

static void test_masked_edge(void)
{
	program(1);
	master(1, 0xff);
	i8259_set(&p, 6, true);
	CU_ASSERT_FALSE(f.line[0]);
	master(1, 0);
	CU_ASSERT_TRUE(f.line[0]); /* the latched edge comes through */
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x26);
	master(0, 0x20);
	CU_ASSERT_FALSE(f.line[0]);
	i8259_set(&p, 6, true); /* no edge */
	CU_ASSERT_FALSE(f.line[0]);
}

static void test_level(void)
{
	program(1);
	wr8(&i8259_elcr_ops, &p, 0, 0xff);
	wr8(&i8259_elcr_ops, &p, 1, 0x0c);
	CU_ASSERT_EQUAL(rd8(&i8259_elcr_ops, &p, 0), 0xf8);
	CU_ASSERT_EQUAL(rd8(&i8259_elcr_ops, &p, 1), 0x0c);
	i8259_set(&p, 10, true);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x2a);
	slave(0, 0x20), master(0, 0x20);
	CU_ASSERT_TRUE(f.line[0]); /* still high */
	i8259_set(&p, 10, false);
	CU_ASSERT_FALSE(f.line[0]);
}

static void test_rotate_poll(void)
{
	program(1);
	i8259_set(&p, 0, true);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x20);
	master(0, 0xa0); /* rotate on EOI: IR0 becomes lowest */
	i8259_set(&p, 0, false), i8259_set(&p, 0, true);
	i8259_set(&p, 7, true);
	CU_ASSERT_EQUAL(i8259_ack(&p), 0x27);
	master(0, 0x67);
	master(0, 0x0c);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 0), 0x80);
	master(0, 0x60);
	master(0, 0x0c);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 0), 0);
	CU_ASSERT_EQUAL(rd8(&i8259_master_ops, &p, 1), 0);
}

CU_ErrorCode suite_i8259(void)
{
	CU_pSuite s = CU_add_suite("i8259", NULL, NULL);

	CU_add_test(s, "priorities and EOI", test_basic);
	CU_add_test(s, "cascade", test_cascade);
	CU_add_test(s, "cascade with automatic EOI", test_cascade_auto_eoi);
	CU_add_test(s, "spurious", test_spurious);
	CU_add_test(s, "edge while masked", test_masked_edge);
	CU_add_test(s, "level", test_level);
	CU_add_test(s, "rotation, poll", test_rotate_poll);
	return CU_get_error();
}
