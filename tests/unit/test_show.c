/* JSON of whatever strings; units of counters. */
#include <CUnit/CUnit.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/json.h"
#include "monitor/show.h"

static char *text;
static size_t len;

static FILE *begin(struct json *j)
{
	FILE *f = open_memstream(&text, &len);

	CU_ASSERT_FATAL(f != NULL);
	json_begin(j, f);
	return f;
}

/* What would end the string, or mean something to a terminal, is escaped; the rest is as it was. */
static void test_strings(void)
{
	struct json j;
	FILE *f = begin(&j);

	json_open(&j, NULL, '[');
	json_text(&j, NULL, "a\": 0, \"b\\");
	json_text(&j, NULL,
		  "\xc2\x9b"
		  "2J\x1b\n\x7f");
	json_text(&j, NULL, "\xe2\x80\xae");
	json_close(&j, ']');
	fclose(f);
	CU_ASSERT_STRING_EQUAL(text, "[\"a\\\": 0, \\\"b\\\\\", \"\\u00c2\\u009b2J\\u001b\\u000a\\u007f\", "
				     "\"\\u00e2\\u0080\\u00ae\"]\n");
	free(text);
}

static void test_nesting(void)
{
	struct json j;
	FILE *f = begin(&j);

	json_open(&j, NULL, '{');
	json_number(&j, "n", UINT64_MAX);
	json_open(&j, "empty", '[');
	json_close(&j, ']');
	json_open(&j, "list", '[');
	json_open(&j, NULL, '{');
	json_bool(&j, "yes", true);
	json_text(&j, "no\"thing", NULL);
	json_close(&j, '}');
	json_open(&j, NULL, '{');
	json_close(&j, '}');
	json_close(&j, ']');
	json_bool(&j, "no", false);
	json_close(&j, '}');
	fclose(f);
	CU_ASSERT_STRING_EQUAL(text, "{\"n\": 18446744073709551615, \"empty\": [], \"list\": [{\"yes\": true, "
				     "\"no\\\"thing\": null}, {}], \"no\": false}\n");
	free(text);
}

static void test_units(void)
{
	static const char *const want[][2] = {
		{"blocks", "count"},
		{"ram_pages_present", "pages"},
		{"ram_host_bytes", "bytes"},
		{"blk0.limit_bytes", "bytes/s"},
		{"net0.limit_ops", "requests/s"},
		{"tlb_page_flushes", "count"},
		{"balloon.guest_free", "bytes"},
		{"my.disk.link", "flag"},
		{"console.bytes_to_guest", "bytes"},
		{"balloon.guest_major_faults", "count"},
	};

	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
		CU_ASSERT_STRING_EQUAL(show_unit(want[i][0]), want[i][1]);
}

CU_ErrorCode suite_show(void)
{
	CU_pSuite s = CU_add_suite("show", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_strings) || !CU_ADD_TEST(s, test_nesting) || !CU_ADD_TEST(s, test_units))
		return CU_get_error();
	return CUE_SUCCESS;
}
