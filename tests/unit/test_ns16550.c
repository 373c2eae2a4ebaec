/* ns16550: detection as Linux does it, interrupts, FIFO, loopback, output to a descriptor that is full. */
#include "vcpu/chipset/ns16550.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/chipfakes.h"

enum { THR = 0, RBR = 0, IER, IIR, FCR = 2, LCR, MCR, LSR, MSR, SCR };

static struct fake f;
static struct ns16550 u;
static int fds[2];

static void setup(bool wired)
{
	fake_init(&f, 0);
	CU_ASSERT_EQUAL_FATAL(pipe2(fds, O_NONBLOCK), 0);
	ns16550_init(&u, &f.clock, &f.q, fake_wire(&f, 4), wired ? fds[1] : -1, wired);
}

static void teardown(void)
{
	close(fds[0]);
	close(fds[1]);
}

static uint8_t in(unsigned reg)
{
	return rd8(&ns16550_ops, &u, reg);
}

static unsigned bits(unsigned reg, unsigned mask)
{
	return in(reg)&mask;
}

static void out(unsigned reg, uint8_t val)
{
	wr8(&ns16550_ops, &u, reg, val);
}

static void test_detect(void)
{
	setup(true);
	out(IER, 0);
	CU_ASSERT_EQUAL(in(IER), 0);
	out(IER, 0xff);
	CU_ASSERT_EQUAL(in(IER), 0x0f);
	out(IER, 0);
	out(MCR, 0x1a); /* loopback with RTS and OUT2 */
	CU_ASSERT_EQUAL(bits(MSR, 0xf0), 0x90);
	out(MCR, 0);
	CU_ASSERT_EQUAL(bits(MSR, 0xf0), 0xb0);
	out(FCR, 1);
	CU_ASSERT_EQUAL(in(IIR) >> 6, 3);
	out(FCR, 0);
	CU_ASSERT_EQUAL(in(IIR), 1);
	out(SCR, 0x5a);
	CU_ASSERT_EQUAL(in(SCR), 0x5a);
	out(LCR, 0x83), out(0, 0x01), out(1, 0x02);
	CU_ASSERT_EQUAL(in(0) | in(1) << 8, 0x201);
	out(LCR, 0x03);
	CU_ASSERT_EQUAL(in(LSR), 0x60);
	CU_ASSERT_EQUAL(in(IER), 0);
	teardown();
}

static void test_output(void)
{
	const char *line = "hello\n";
	char buf[16];

	setup(true);
	for (const char *p = line; *p; p++)
		out(THR, (uint8_t)*p);
	CU_ASSERT_EQUAL(read(fds[0], buf, sizeof(buf)), 6);
	CU_ASSERT_NSTRING_EQUAL(buf, line, 6);
	out(THR, '$'); /* a prompt without an end of line comes soon */
	CU_ASSERT_EQUAL(read(fds[0], buf, sizeof(buf)), -1);
	fake_advance(&f, 1000000);
	CU_ASSERT_EQUAL(read(fds[0], buf, sizeof(buf)), 1);
	CU_ASSERT_EQUAL(timerq_next(&f.q), TIMER_NEVER);
	teardown();
}

static void test_tx_irq(void)
{
	setup(true);
	CU_ASSERT_EQUAL(in(IIR), 1);
	out(IER, 2); /* empty already: interrupts at once */
	CU_ASSERT_TRUE(f.line[4]);
	CU_ASSERT_EQUAL(in(IIR), 2);
	CU_ASSERT_EQUAL(in(IIR), 1); /* telling it clears it */
	CU_ASSERT_FALSE(f.line[4]);
	out(IER, 0), out(IER, 2);
	CU_ASSERT_TRUE(f.line[4]); /* again, as Linux's test for buggy parts wants */
	f.rises[4] = 0;
	out(THR, 'a');
	CU_ASSERT_EQUAL(f.rises[4], 1); /* a new edge per character */
	CU_ASSERT_EQUAL(in(IIR), 2);
	teardown();
}

static void test_receive(void)
{
	uint8_t data[40];
	unsigned n;

	setup(true);
	for (n = 0; n < sizeof(data); n++)
		data[n] = (uint8_t)n;
	out(FCR, 0x81); /* FIFO, trigger at 8 */
	out(IER, 1);
	CU_ASSERT_EQUAL(ns16550_input(&u, data, 3), 3);
	CU_ASSERT_TRUE(f.line[4]);
	CU_ASSERT_EQUAL(in(IIR), 0xcc); /* time-out: below the trigger level */
	CU_ASSERT_EQUAL(ns16550_input(&u, data + 3, 37), 37);
	CU_ASSERT_EQUAL(in(IIR), 0xc4);
	for (n = 0; bits(LSR, 1); n++)
		CU_ASSERT_EQUAL(in(RBR), n);
	CU_ASSERT_EQUAL(n, 40);
	CU_ASSERT_FALSE(f.line[4]);
	CU_ASSERT_EQUAL(bits(LSR, 0x02), 0); /* nothing was overrun */
	teardown();
}

static void test_receive_full(void)
{
	static uint8_t data[4096];

	setup(true);
	out(IER, 1);
	CU_ASSERT_EQUAL(ns16550_room(&u), NS16550_RX);
	CU_ASSERT_EQUAL(ns16550_input(&u, data, sizeof(data)), NS16550_RX);
	in(LSR); /* the guest looks: one byte goes into the receiver */
	CU_ASSERT_EQUAL(ns16550_room(&u), 1);
	CU_ASSERT_EQUAL(ns16550_input(&u, data, sizeof(data)), 1);
	CU_ASSERT_EQUAL(ns16550_input(&u, data, sizeof(data)), 0);
	out(FCR, 1);
	in(LSR);
	CU_ASSERT_EQUAL(ns16550_room(&u), 16);
	teardown();
}

/* What came before the driver opened the port must survive the opening. */
static void test_early_input(void)
{
	static const uint8_t text[] = "echo early\n";
	unsigned n, tries;

	setup(true);
	CU_ASSERT_EQUAL(ns16550_input(&u, text, 11), 11);
	out(IER, 0x0f), in(IER), out(IER, 0);
	out(FCR, 1), out(FCR, 7), out(FCR, 0), out(FCR, 1);
	CU_ASSERT_EQUAL(bits(LSR, 1), 0);
	in(RBR), in(IIR), in(MSR);
	for (n = 0; n < 10; n++) { /* console output in between */
		CU_ASSERT_EQUAL(in(LSR), 0x60);
		out(THR, '.');
	}
	out(IER, 5);
	CU_ASSERT_TRUE(f.line[4]);
	for (n = 0; bits(LSR, 1); n++)
		CU_ASSERT_EQUAL(in(RBR), text[n]);
	CU_ASSERT_EQUAL(n, 11);
	out(IER, 0);
	ns16550_input(&u, text, 11);
	for (n = tries = 0; n < 11 && tries < 1000; tries++) /* a reader that only polls */
		if (bits(LSR, 1))
			CU_ASSERT_EQUAL(in(RBR), text[n++]);
	CU_ASSERT_EQUAL(n, 11);
	teardown();
}

static void test_loopback(void)
{
	uint8_t c = 'x';

	setup(true);
	out(MCR, 0x10);
	out(THR, 0x42);
	CU_ASSERT_EQUAL(bits(LSR, 1), 1);
	CU_ASSERT_EQUAL(in(RBR), 0x42);
	out(THR, 1), out(THR, 2);
	CU_ASSERT_EQUAL(bits(LSR, 2), 2); /* overrun without FIFO */
	CU_ASSERT_EQUAL(bits(LSR, 2), 0);
	in(RBR);
	ns16550_input(&u, &c, 1);
	CU_ASSERT_EQUAL(bits(LSR, 1), 0); /* the line is cut off */
	in(MSR);
	out(IER, 8);
	out(MCR, 0x13);
	CU_ASSERT_TRUE(f.line[4]);
	CU_ASSERT_EQUAL(bits(IIR, 0x0f), 0);
	CU_ASSERT_EQUAL(in(MSR), 0x33); /* CTS, DSR and their changes */
	CU_ASSERT_FALSE(f.line[4]);
	out(MCR, 0);
	out(IER, 1);
	CU_ASSERT_EQUAL(bits(LSR, 1), 1);
	CU_ASSERT_EQUAL(in(RBR), 'x');
	teardown();
}

/* Fills the pipe; the guest sees a busy transmitter, loses nothing, and goes on when the reader does. */
static void test_backpressure(void)
{
	size_t sent = 0, got = 0;
	static char buf[65536];
	bool order = true;
	ssize_t n;

	setup(true);
	fcntl(fds[1], F_SETPIPE_SZ, 4096);
	while ((bits(LSR, 0x20)) && sent < 100000) {
		out(THR, (uint8_t)(sent % 251));
		sent++;
	}
	CU_ASSERT(sent >= 8192 && sent < 100000);
	fake_advance(&f, 50000000);
	CU_ASSERT_EQUAL(bits(LSR, 0x60), 0);
	out(IER, 2);
	CU_ASSERT_FALSE(f.line[4]);
	do {
		n = read(fds[0], buf, sizeof(buf));
		for (ssize_t i = 0; i < n; i++)
			order = order && (uint8_t)buf[i] == got++ % 251;
		fake_advance(&f, 5000000);
	} while (n > 0);
	CU_ASSERT_TRUE(order);
	CU_ASSERT_EQUAL(got, sent);
	CU_ASSERT_EQUAL(bits(LSR, 0x60), 0x60);
	CU_ASSERT_TRUE(f.line[4]);
	CU_ASSERT_EQUAL(u.dropped, 0);
	teardown();
}

static void test_stalled_reader(void)
{
	setup(true);
	fcntl(fds[1], F_SETPIPE_SZ, 4096);
	for (unsigned i = 0; i < 100000 && (bits(LSR, 0x20)); i++)
		out(THR, 'x');
	fake_advance(&f, 3000000000); /* nobody reads: the guest must not hang for ever */
	CU_ASSERT_EQUAL(bits(LSR, 0x20), 0x20);
	CU_ASSERT(u.dropped > 0);
	teardown();
}

static void test_unwired(void)
{
	setup(false);
	CU_ASSERT_EQUAL(in(MSR), 0);
	for (unsigned i = 0; i < 10000; i++)
		out(THR, 'x');
	CU_ASSERT_EQUAL(in(LSR), 0x60);
	CU_ASSERT_EQUAL(timerq_next(&f.q), TIMER_NEVER);
	teardown();
}

CU_ErrorCode suite_ns16550(void)
{
	CU_pSuite s = CU_add_suite("ns16550", NULL, NULL);

	CU_add_test(s, "detection", test_detect);
	CU_add_test(s, "output", test_output);
	CU_add_test(s, "transmitter interrupt", test_tx_irq);
	CU_add_test(s, "receiver", test_receive);
	CU_add_test(s, "receiver full", test_receive_full);
	CU_add_test(s, "input before opening", test_early_input);
	CU_add_test(s, "loopback", test_loopback);
	CU_add_test(s, "slow reader", test_backpressure);
	CU_add_test(s, "stalled reader", test_stalled_reader);
	CU_add_test(s, "nothing connected", test_unwired);
	return CU_get_error();
}
