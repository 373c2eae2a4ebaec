/* Log lines: tag, level, control characters, length, limits, the hook before formatting. */
#include <CUnit/CUnit.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/text.h"

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
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: a\\x1b[2Jb\\x0ac\\x09d\n");
}

/* Every byte that is not printable ASCII, C1 controls alone and in UTF-8 among them, and where it is cut. */
static void test_clean(void)
{
	char all[256], out[1024], small[8];

	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	CU_ASSERT_EQUAL(text_clean(out, sizeof out, all, 255), 95 + 160 * 4);
	CU_ASSERT(text_is_clean(out));
	CU_ASSERT(!text_is_clean("\xc2\x9b"
				 "31m"));
	CU_ASSERT(!text_is_clean("\xe2\x80\xae"));
	CU_ASSERT(!text_is_clean("\x7f"));
	CU_ASSERT_EQUAL(text_clean(small, sizeof small, "ab\x9b\x9b", 4), 6);
	CU_ASSERT_STRING_EQUAL(small, "ab\\x9b");
	CU_ASSERT_EQUAL(text_clean(small, sizeof small, "abcdefghi", 9), 7);
	CU_ASSERT_EQUAL(text_clean(small, 1, "a", 1), 0);
}

static struct log_source noisy = {.name = "vcpu", .limit = LOG_LIMIT_INIT(5)};

static void say_child(void)
{
	log_child(&noisy, "\xc2\x9b"
			  "31mX \x9b"
			  "2J \xe2\x80\xae");
}

static void test_child_is_cleaned(void)
{
	char buf[2048];

	log_init("vm");
	capture(say_child, buf, sizeof buf);
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: \\xc2\\x9b31mX \\x9b2J \\xe2\\x80\\xae\n");
	log_init("vm/vcpu");
}

static int count_lines(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += *s == '\n';
	return n;
}

/* Its own lines and those that its messages make us say share one limit. */
static void say_flood(void)
{
	for (int i = 0; i < 300; i++) {
		log_child(&noisy, "mine");
		struct log_source *before = log_charge(&noisy);
		log_warn("because of it");
		log_debug("hidden");
		log_charge(before);
	}
	log_info("not because of it");
}

static void test_flood(void)
{
	static char buf[65536];

	noisy = (struct log_source){.name = "vcpu", .limit = LOG_LIMIT_INIT(5)};
	time_t start = time(NULL);
	capture(say_flood, buf, sizeof buf);
	/* However slow the machine is: a burst for each second that has begun, each with a line about the lost. */
	int seconds = (int)(time(NULL) - start) + 2;
	CU_ASSERT(count_lines(buf) >= 6 && count_lines(buf) <= 6 * seconds + 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(buf, "not because of it\n"));
}

/* With a log of its own, children's lines leave the user's terminal; what is said to the user is in both. */
static void say_both(void)
{
	log_child(&noisy, "unknown MSR");
	log_error("the guest crashed");
}

static void test_aside(void)
{
	char buf[2048], logged[2048];
	int p[2];

	noisy = (struct log_source){.name = "vcpu", .limit = LOG_LIMIT_INIT(1000)};
	CU_ASSERT_FATAL(pipe(p) == 0);
	log_init("vm");
	log_set_aside(true);
	capture(say_both, buf, sizeof buf);
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: unknown MSR\nvm: error: the guest crashed\n"); /* there is no log */
	log_to_file(p[1]);
	capture(say_both, buf, sizeof buf);
	CU_ASSERT_STRING_EQUAL(buf, "vm: error: the guest crashed\n");
	noisy.shown = true;
	capture(say_both, buf, sizeof buf);
	CU_ASSERT_STRING_EQUAL(buf, "vm/vcpu: unknown MSR\nvm: error: the guest crashed\n");
	log_to_file(-1);
	log_set_aside(false);
	close(p[1]);
	ssize_t n = read(p[0], logged, sizeof logged - 1);
	logged[n > 0 ? n : 0] = '\0';
	CU_ASSERT_EQUAL(count_lines(logged), 4);
	CU_ASSERT_PTR_NOT_NULL(strstr(logged, "vm/vcpu: unknown MSR\nvm: error: the guest crashed\n"));
	close(p[0]);
	log_init("vm/vcpu");
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
	    !CU_ADD_TEST(s, test_clean) || !CU_ADD_TEST(s, test_child_is_cleaned) || !CU_ADD_TEST(s, test_flood) ||
	    !CU_ADD_TEST(s, test_aside) || !CU_ADD_TEST(s, test_long_line) || !CU_ADD_TEST(s, test_raw) ||
	    !CU_ADD_TEST(s, test_hook) || !CU_ADD_TEST(s, test_limit))
		return CU_get_error();
	return CUE_SUCCESS;
}
