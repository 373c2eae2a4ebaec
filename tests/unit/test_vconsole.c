/* vcpu/local/console: both directions, ends that do not take anything, size, resets. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/localvm.h"
#include "vcpu/local/console.h"

static struct vconsole c;
static struct local *d = &c.dev;
static int in, out; /* the monitor's ends */

static void begin(void)
{
	int a[2], b[2];

	lv_begin();
	memset(&c, 0, sizeof c);
	CU_ASSERT_FATAL(!pipe2(a, O_NONBLOCK) && !pipe2(b, O_NONBLOCK));
	in = a[1];
	out = b[0];
	CU_ASSERT_EQUAL_FATAL(vconsole_create(&c, &lv.locals, 27, a[0], b[1]), 0);
	lv_start(d, 1, 2);
}

static void end(void)
{
	ipc_watch_free(c.readable);
	ipc_watch_free(c.writable);
	if (c.in >= 0)
		close(c.in);
	close(c.out);
	close(in);
	close(out);
	lv_end();
}

static void test_output(void)
{
	char buf[64];

	begin();
	memcpy(lv_at(LV_BUF), "hello, ", 7);
	memcpy(lv_at(LV_BUF + 0x5000), "world", 5);
	lv_put_desc(1, 0, LV_BUF, 7, LV_NEXT, 1);
	lv_put_desc(1, 1, LV_BUF + 0x5000, 5, 0, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(lv_used(1), 1);
	CU_ASSERT_EQUAL(read(out, buf, sizeof buf), 12);
	CU_ASSERT_EQUAL(memcmp(buf, "hello, world", 12), 0);
	lv_put_desc(1, 2, LV_BUF, 8, LV_WRITE, 0); /* nothing to say */
	lv_offer(d, 1, 2);
	CU_ASSERT_EQUAL(lv_used(1), 2);
	end();
}

/* A pipe that is full: the chain stays, what is in it arrives whole and once. */
static void test_full_pipe(void)
{
	static uint8_t buf[65536];
	size_t got = 0, wrong = 0;
	ssize_t n;

	begin();
	for (unsigned i = 0; i < 0x80000; i++)
		*lv_at(LV_BUF + i) = (uint8_t)(i * 7 + i / 251);
	lv_put_desc(1, 0, LV_BUF, 0x80000, 0, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(lv_used(1), 0);
	for (unsigned turn = 0; turn < 100 && got < 0x80000; turn++) {
		while ((n = read(out, buf, sizeof buf)) > 0)
			for (ssize_t i = 0; i < n; i++, got++)
				wrong += buf[i] != (uint8_t)(got * 7 + got / 251);
		lv_pump(2);
	}
	CU_ASSERT_EQUAL(got, 0x80000);
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_EQUAL(lv_used(1), 1);
	CU_ASSERT_EQUAL(lv_counter(d, "bytes_from_guest"), 0x80000);
	end();
}

static void test_input(void)
{
	begin();
	CU_ASSERT_EQUAL(write(in, "0123456789", 10), 10);
	lv_pump(2);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	lv_put_desc(0, 0, LV_BUF, 4, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	CU_ASSERT_EQUAL(lv_used_len(0, 0), 4);
	lv_put_desc(0, 1, LV_BUF + 4, 100, LV_WRITE, 0);
	lv_put_desc(0, 2, LV_BUF + 0x1000, 100, LV_WRITE, 0);
	lv_offer(d, 0, 1);
	lv_offer(d, 0, 2);
	CU_ASSERT_EQUAL(lv_used(0), 2);
	CU_ASSERT_EQUAL(lv_used_len(0, 1), 6);
	CU_ASSERT_EQUAL(memcmp(lv_at(LV_BUF), "0123456789", 10), 0);
	CU_ASSERT_EQUAL(lv.dirty[4], 1);
	CU_ASSERT_EQUAL(write(in, "x", 1), 1);
	lv_pump(2);
	CU_ASSERT_EQUAL(lv_used(0), 3);
	CU_ASSERT_EQUAL(*lv_at(LV_BUF + 0x1000), 'x');
	end();
}

static void test_input_over_code(void)
{
	begin();
	lv.code[4] = 1;
	lv_put_desc(0, 0, LV_BUF, 8, LV_WRITE, 0);
	lv_offer(d, 0, 0);
	CU_ASSERT_EQUAL(write(in, "ab", 2), 2);
	lv_pump(2);
	CU_ASSERT_EQUAL(lv_used(0), 0);
	lv_flush();
	CU_ASSERT(lv.code_gpa == LV_BUF && lv.code_len == 2);
	CU_ASSERT_EQUAL(lv_used(0), 1);
	end();
}

static void test_ends(void)
{
	begin();
	lv_put_desc(0, 0, LV_BUF, 8, 0, 0); /* no room for input */
	CU_ASSERT_EQUAL(write(in, "ab", 2), 2);
	lv_offer(d, 0, 0);
	CU_ASSERT(lv_status(d) & VIRTIO_S_NEEDS_RESET);
	lv_start(d, 1, 2);
	signal(SIGPIPE, SIG_IGN);
	close(in);
	close(out);
	lv_pump(2);
	lv_put_desc(1, 0, LV_BUF, 100, 0, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(lv_used(1), 1); /* nobody listens */
	in = open("/dev/null", O_WRONLY);
	out = open("/dev/null", O_RDONLY);
	end();
}

static void test_size(void)
{
	begin();
	vconsole_size(&c, 132, 50);
	CU_ASSERT_EQUAL(lv_config(d, 0, 2), 132);
	CU_ASSERT_EQUAL(lv_config(d, 2, 2), 50);
	CU_ASSERT_EQUAL(lv_isr(d), 2);
	/* a driver that comes later hears of it when it listens */
	lv_start(d, 1, 2);
	CU_ASSERT_EQUAL(lv_isr(d), 0);
	lv_put_desc(1, 0, LV_BUF, 1, 0, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(lv_isr(d), 3);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(lv_isr(d), 1);
	end();
}

/* Output that waits for the pipe is dropped by a reset, and the device works again. */
static void test_reset(void)
{
	static uint8_t buf[65536];

	begin();
	lv_put_desc(1, 0, LV_BUF, 0x40000, 0, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(lv_used(1), 0);
	lv_start(d, 1, 2);
	while (read(out, buf, sizeof buf) > 0)
		;
	lv_pump(2);
	CU_ASSERT(read(out, buf, sizeof buf) < 0);
	CU_ASSERT_EQUAL(lv_used(1), 0);
	lv_put_desc(1, 0, LV_BUF, 3, 0, 0);
	lv_offer(d, 1, 0);
	CU_ASSERT_EQUAL(read(out, buf, sizeof buf), 3);
	CU_ASSERT_EQUAL(lv_used(1), 1);
	end();
}

CU_ErrorCode suite_vconsole(void)
{
	CU_pSuite s = CU_add_suite("vconsole", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_output) || !CU_ADD_TEST(s, test_full_pipe) || !CU_ADD_TEST(s, test_input) ||
	    !CU_ADD_TEST(s, test_input_over_code) || !CU_ADD_TEST(s, test_ends) || !CU_ADD_TEST(s, test_size) ||
	    !CU_ADD_TEST(s, test_reset))
		return CU_get_error();
	return CUE_SUCCESS;
}
