/* Log lines: tag, level, control characters, length, limits, the hook before formatting. */
#include <CUnit/CUnit.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

static int hook_calls;

static void hook(void)
{
	hook_calls++;
}

static size_t capture(void (*fn)(void), char *buf, size_t room)
{
	int p[2];

	CU_ASSERT_FATAL(pipe(p) == 0);
	log_set_fd(p[1]);
	fn();
	log_set_fd(2);
	close(p[1]);
	ssize_t n = read(p[0], buf, room - 1);
	close(p[0]);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0 ? (size_t)n : 0;
}

static void say_plain(void)
{
	log_info("number %d", 7);
}

static void say_warn(void)
{
	log_warn("careful");
}

static void say_evil(void)
{
	log_info("a\x1b[2Jb\nc\td");
}

static void say_long(void)
{
	char big[4000];

	memset(big, 'x', sizeof big);
	big[sizeof big - 1] = '\0';
	log_info("%s", big);
}

static void say_debug(void)
{
	log_debug("hidden");
}

static void test_line(void)
{
	char buf[2048];

	log_init("vm/vcpu");
	capture(say_plain, buf, sizeof buf);
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: number 7\n");
	capture(say_warn, buf, sizeof buf);
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: warning: careful\n");
	CU_ASSERT_EQUAL(capture(say_debug, buf, sizeof buf), 0);
}

static void test_control_characters(void)
{
	char buf[2048];

	capture(say_evil, buf, sizeof buf);
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: a?[2Jb?c?d\n");
}

static void test_long_line(void)
{
	char buf[4096];
	size_t n = capture(say_long, buf, sizeof buf);

	CU_ASSERT(n > 1000 && n <= 1024);
	CU_ASSERT_EQUAL(buf[n - 1], '\n');
}

static void test_raw(void)
{
	char buf[2048];

	log_set_raw(true);
	capture(say_plain, buf, sizeof buf);
	log_set_raw(false);
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: number 7\r\n");
}

static void test_hook(void)
{
	char buf[2048];

	hook_calls = 0;
	log_before = hook;
	capture(say_plain, buf, sizeof buf);
	capture(say_debug, buf, sizeof buf);
	log_before = NULL;
	CU_ASSERT_EQUAL(hook_calls, 1); /* not for a line that is not formatted */
}

static void test_limit(void)
{
	struct log_limit lim = LOG_LIMIT_INIT(5);
	int shown = 0;

	for (int i = 0; i < 1000; i++)
		shown += log_allow(&lim);
	/* A new second may begin in between: two bursts at most. */
	CU_ASSERT(shown >= 5 && shown <= 10);
	CU_ASSERT_EQUAL(log_lost(&lim), (uint32_t)(1000 - shown));
	CU_ASSERT_EQUAL(log_lost(&lim), 0);
}

CU_ErrorCode suite_log(void)
{
	CU_pSuite s = CU_add_suite("log", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_line) || !CU_ADD_TEST(s, test_control_characters) ||
	    !CU_ADD_TEST(s, test_long_line) || !CU_ADD_TEST(s, test_raw) || !CU_ADD_TEST(s, test_hook) ||
	    !CU_ADD_TEST(s, test_limit))
		return CU_get_error();
	return CUE_SUCCESS;
}
