/* The history's slots, and the numbers of top and metrics. */
#include <CUnit/CUnit.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/metrics.h"
#include "monitor/past.h"
#include "monitor/usage.h"

static void test_slot(void)
{
	struct past p = {.seq = 7, .started = 100, .ended = 200, .monitor = 42, .status = 6, .name = "vm.1"}, q;
	char text[PAST_SLOT + 1];

	strcpy(p.cause, "vcpu died: a\nb\x1b[2J");
	past_format(&p, text);
	CU_ASSERT_EQUAL(strlen(text), PAST_SLOT);
	CU_ASSERT_EQUAL(strcspn(text, "\n"), PAST_SLOT - 1); /* one line, whatever the cause says */
	CU_ASSERT_FATAL(past_parse(text, &q));
	CU_ASSERT(q.seq == 7 && q.started == 100 && q.ended == 200 && q.monitor == 42 && q.status == 6);
	CU_ASSERT_STRING_EQUAL(q.name, "vm.1");
	CU_ASSERT_STRING_EQUAL(q.cause, "vcpu died: a\\x0ab\\x1b[2J");
	memset(p.cause, 'x', sizeof p.cause - 1);
	p.seq = p.started = p.ended = INT64_MAX;
	memset(p.name, 'n', sizeof p.name - 1);
	past_format(&p, text);
	CU_ASSERT(strlen(text) == PAST_SLOT && past_parse(text, &q));
}

/* Whoever wrote the file, what it says is a name, numbers and printable text, or nothing. */
static void test_bad_slots(void)
{
	static const char *const bad[] = {"",
					  "7 1 2 42 6 ../x cause",
					  "0 1 2 42 6 vm cause",
					  "7 1 2 42 256 vm cause",
					  "7 1 2 0 6 vm cause",
					  "7 -1 2 42 6 vm cause",
					  "x",
					  "7 1 2 42 6"};
	char text[PAST_SLOT + 1];
	struct past p;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		memset(text, ' ', PAST_SLOT);
		memcpy(text, bad[i], strlen(bad[i]));
		text[PAST_SLOT - 1] = '\n';
		text[PAST_SLOT] = '\0';
		CU_ASSERT_FALSE(past_parse(text, &p));
	}
	CU_ASSERT_FALSE(past_parse("7 1 2 42 6 vm cut off\n", &p));
	snprintf(text, sizeof text, "%-*s\n", PAST_SLOT - 1, "7 1 2 42 6 vm \x1b]0;x\x07");
	CU_ASSERT(past_parse(text, &p));
	CU_ASSERT_STRING_EQUAL(p.cause, "\\x1b]0;x\\x07");
}

static unsigned seen, lost_seen;
static uint64_t last_seq;

static void count(void *ctx, const struct past *p, bool lost)
{
	(void)ctx;
	CU_ASSERT(p->seq > last_seq);
	last_seq = p->seq;
	seen++;
	lost_seen += lost;
}

static void look(const struct runtime *r)
{
	seen = lost_seen = 0;
	last_seq = 0;
	CU_ASSERT_EQUAL(past_each(r, count, NULL), 0);
}

/* More VMs than slots: the oldest go, those that run stay. */
static void test_ring(void)
{
	struct runtime r;
	struct past running, p;
	char path[128];
	struct stat st;

	strcpy(r.dir, "/tmp/hvx-past-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(r.dir));
	look(&r);
	CU_ASSERT_EQUAL(seen, 0);
	int mine = past_begin(&r, "mine", &running); /* this process runs */
	CU_ASSERT_FATAL(mine >= 0);
	for (int i = 0; i < 3 * PAST_SLOTS; i++) {
		int fd = past_begin(&r, "other", &p);
		CU_ASSERT_FATAL(fd >= 0);
		past_end(fd, &p, 5, "done");
	}
	look(&r);
	CU_ASSERT(seen == PAST_SLOTS - 1 && !lost_seen && last_seq == 1 + 3 * PAST_SLOTS);
	past_end(mine, &running, 0, "at last");
	look(&r);
	CU_ASSERT(seen == PAST_SLOTS && !lost_seen);
	snprintf(path, sizeof path, "%s/history", r.dir);
	CU_ASSERT(stat(path, &st) == 0 && st.st_size == PAST_SLOTS * PAST_SLOT);
	CU_ASSERT_EQUAL(truncate(path, 0), 0);
	unlink(path);
	CU_ASSERT_EQUAL(symlink("/etc/passwd", path), 0);
	CU_ASSERT(past_begin(&r, "mine", &p) < 0);
	unlink(path);
	rmdir(r.dir);
}

static void test_usage(void)
{
	static struct msg_status s = {.name = "vm", .state = "running", .ram_size = 1 << 30};
	static struct msg_counters c = {.n = 6,
					.c = {{"ram_host_bytes", 5},
					      {"blk.0.read_bytes", 10},
					      {"blk.0.written_bytes", 20},
					      {"net0.rx_bytes", 3},
					      {"merge.pages_sharing", 2},
					      {"read_bytes", 99}}};
	struct usage a, b;
	struct usage_row row, rows[3] = {0};
	enum usage_key by = USAGE_CPU;

	usage_of(&a, &s, &c);
	CU_ASSERT(a.nominal == 1 << 30 && a.resident == 5 && a.disk == 30 && a.net == 3 && a.shared == 8192);
	b = a;
	b.disk += 500;
	b.cpu_ns = 250000000;
	a.cpu_ns = 0;
	usage_row(&row, &a, &b, 500000000);
	CU_ASSERT(row.disk == 1000 && row.cpu == 5000 && row.net == 0);
	usage_row(&row, &b, &a, 500000000); /* a new life under the old name */
	CU_ASSERT(row.disk == 0 && row.cpu == 0);
	usage_row(&row, NULL, &b, 500000000);
	CU_ASSERT(row.disk == 0 && row.cpu == 0);
	for (unsigned i = 0; i < 3; i++)
		rows[i].cpu = i, rows[i].net = 9 - i, rows[i].now.name[0] = (char)('a' + i);
	usage_sort(rows, 3, USAGE_CPU);
	CU_ASSERT_EQUAL(rows[0].now.name[0], 'c');
	usage_sort(rows, 3, USAGE_DISK); /* all equal: by name */
	CU_ASSERT_EQUAL(rows[0].now.name[0], 'a');
	CU_ASSERT(usage_key('n', &by) && by == USAGE_NET);
	CU_ASSERT(!usage_key('x', &by) && !usage_key('\0', &by) && by == USAGE_NET);
}

static void test_metrics(void)
{
	char out[64] = "", metric[96], device[64];

	metrics_label(out, sizeof out, "vm", "a\"b\\c\n");
	CU_ASSERT_STRING_EQUAL(out, "vm=\"a\\\"b\\\\c?\"");
	metrics_label(out, sizeof out, "k", "v");
	CU_ASSERT_STRING_EQUAL(out, "vm=\"a\\\"b\\\\c?\",k=\"v\"");
	metrics_name("my.disk.read_bytes", metric, sizeof metric, device, sizeof device);
	CU_ASSERT_STRING_EQUAL(metric, "hvx_device_read_bytes");
	CU_ASSERT_STRING_EQUAL(device, "my.disk");
	metrics_name("exits-a", metric, sizeof metric, device, sizeof device);
	CU_ASSERT_STRING_EQUAL(metric, "hvx_engine_exits_a");
	CU_ASSERT_STRING_EQUAL(device, "");
	CU_ASSERT_PTR_NULL(metrics_status("GET /metrics HTTP/1.1\r\n\r\n"));
	CU_ASSERT_PTR_NULL(metrics_status("GET /metrics?x=1 HTTP/1.1\r\n\r\n"));
	CU_ASSERT_PTR_NOT_NULL(metrics_status("GET /metricsx HTTP/1.1\r\n\r\n"));
	CU_ASSERT_PTR_NOT_NULL(metrics_status("POST /metrics HTTP/1.1\r\n\r\n"));
	CU_ASSERT_PTR_NOT_NULL(metrics_status(""));
}

CU_ErrorCode suite_past(void);
CU_ErrorCode suite_past(void)
{
	CU_pSuite s = CU_add_suite("past", NULL, NULL);

	return s && CU_ADD_TEST(s, test_slot) && CU_ADD_TEST(s, test_bad_slots) && CU_ADD_TEST(s, test_ring) &&
			       CU_ADD_TEST(s, test_usage) && CU_ADD_TEST(s, test_metrics)
		       ? CUE_SUCCESS
		       : CU_get_error();
}
