/* Messages: round trips, ranges, truncation at every length, unknown fields, noise. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>

#include "common/ipc.h"
#include "common/sandbox.h"
#include "proto/pack.h"
#include "proto/shm.h"

static uint8_t buf[IPC_MAX_DATA];

static void test_hello(void)
{
	struct msg_hello in = {IPC_VERSION, ROLE_VCPU, "0.1"}, out;
	int n = pack_hello(&in, buf, sizeof buf);

	CU_ASSERT_FATAL(n > 0);
	CU_ASSERT_EQUAL(unpack_hello(buf, (size_t)n, &out), 0);
	CU_ASSERT_EQUAL(out.version, in.version);
	CU_ASSERT_EQUAL(out.role, in.role);
	CU_ASSERT_STRING_EQUAL(out.release, in.release);
	in.role = ROLE_CLIENT; /* no child is a client */
	n = pack_hello(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_hello(buf, (size_t)n, &out), -EPROTO);
	CU_ASSERT_EQUAL(unpack_hello(buf, 0, &out), -EPROTO);
}

static void make_config(struct msg_vcpu_config *c)
{
	memset(c, 0, sizeof *c);
	strcpy(c->name, "vm1");
	strcpy(c->cmdline, "console=ttyS0 quiet");
	c->ram_size = 64 << 20;
	c->cpus = (struct msg_cpus){2, 4, 4};
	c->debug_exit = true;
	c->exact_flags = true;
	c->trace = 5;
	c->nfds = 5;
	c->fds[3] = FD_INITRD;
	c->fds[4] = (enum msg_fd)(FD_INITRD + 1);
	c->nmodules = 2;
	strcpy(c->module[0].name, "vmlinuz");
	strcpy(c->module[0].args, "console=hvc0");
	strcpy(c->module[1].name, "initrd.img");
	c->fds[0] = FD_RAM;
	c->fds[1] = FD_CONTROL;
	c->fds[2] = FD_KERNEL;
	c->local = (struct msg_local){
		.rng = true, .rng_bytes = 1 << 20, .rng_burst = 5, .balloon = true, .watchdog = WATCHDOG_NONE};
}

static void test_vcpu_config(void)
{
	static struct msg_vcpu_config in, out;

	make_config(&in);
	int n = pack_vcpu_config(&in, buf, sizeof buf);
	CU_ASSERT_FATAL(n > 0);
	CU_ASSERT_EQUAL(unpack_vcpu_config(buf, (size_t)n, &out), 0);
	CU_ASSERT_EQUAL(memcmp(&in, &out, sizeof in), 0);
	for (int cut = 0; cut < n; cut++)
		CU_ASSERT_EQUAL(unpack_vcpu_config(buf, (size_t)cut, &out), -EPROTO);
	/* The longest command line fits. */
	memset(in.cmdline, 'x', sizeof in.cmdline - 1);
	n = pack_vcpu_config(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_vcpu_config(buf, (size_t)n, &out), 0);
	CU_ASSERT_EQUAL(strlen(out.cmdline), sizeof in.cmdline - 1);
}

static int config_with(void (*change)(struct msg_vcpu_config *))
{
	static struct msg_vcpu_config in, out;

	make_config(&in);
	change(&in);
	int n = pack_vcpu_config(&in, buf, sizeof buf);
	return n < 0 ? n : unpack_vcpu_config(buf, (size_t)n, &out);
}

static void odd_ram(struct msg_vcpu_config *c)
{
	c->ram_size = 4097;
}

static void no_ram(struct msg_vcpu_config *c)
{
	c->ram_size = 0;
}

static void huge_ram(struct msg_vcpu_config *c)
{
	c->ram_size = SHM_MAX_RAM + 4096;
}

static void no_cpus(struct msg_vcpu_config *c)
{
	c->cpus.cores = 0;
}

static void many_cpus(struct msg_vcpu_config *c)
{
	c->cpus.sockets = 3; /* of 16: 48 */
}

static void fd_twice(struct msg_vcpu_config *c)
{
	c->fds[c->nfds++] = FD_RAM;
}

static void fd_unknown(struct msg_vcpu_config *c)
{
	c->fds[c->nfds++] = FD_COUNT;
}

static void fd_missing(struct msg_vcpu_config *c)
{
	c->nfds = 2;
}

static void module_without_fd(struct msg_vcpu_config *c)
{
	c->nmodules = 3;
}

static void fd_without_module(struct msg_vcpu_config *c)
{
	c->nmodules = 1;
}

static void gap_in_modules(struct msg_vcpu_config *c)
{
	c->fds[4] = (enum msg_fd)(FD_INITRD + 2);
}

static void huge_rate(struct msg_vcpu_config *c)
{
	c->local.rng_burst = MSG_RATE_MAX + 1;
}

static void odd_watchdog(struct msg_vcpu_config *c)
{
	c->local.watchdog = WATCHDOG_COUNT;
}

static void name_control(struct msg_vcpu_config *c)
{
	strcpy(c->name, "a\nb");
}

static void test_vcpu_config_ranges(void)
{
	static void (*const bad[])(struct msg_vcpu_config *) = {
		odd_ram,           no_ram,        huge_ram,     no_cpus,   many_cpus,    fd_twice,
		fd_unknown,        fd_missing,    name_control, huge_rate, odd_watchdog, module_without_fd,
		fd_without_module, gap_in_modules};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CU_ASSERT_EQUAL(config_with(bad[i]), -EPROTO);
}

static void test_unknown_field(void)
{
	struct msg_vcpu_state s = {true, "watchdog"}, out;
	int n = pack_vcpu_state(&s, buf, sizeof buf);

	CU_ASSERT_EQUAL(unpack_vcpu_state(buf, (size_t)n, &out), 0);
	buf[n++] = 15 << 3; /* field 15, varint */
	buf[n++] = 1;
	CU_ASSERT_EQUAL(unpack_vcpu_state(buf, (size_t)n, &out), -EPROTO);
}

static void test_region(void)
{
	struct msg_mem_region in = {1 << 20, shm_layout(1 << 20).total}, out;
	int n = pack_mem_region(&in, buf, sizeof buf);

	CU_ASSERT_EQUAL(unpack_mem_region(buf, (size_t)n, &out), 0);
	in.control_size += SHM_PAGE;
	n = pack_mem_region(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_region(buf, (size_t)n, &out), -EPROTO);
}

static void test_mem_change(void)
{
	static struct msg_mem_change in, out;
	const uint64_t last = SHM_MAX_RAM / SHM_PAGE;

	in = (struct msg_mem_change){.id = 7, .op = MEM_OP_BALLOON, .nranges = MSG_RANGES_MAX};
	for (uint32_t i = 0; i < in.nranges; i++) {
		in.range[i].first = last - 1 - i;
		in.range[i].count = i + 1;
	}
	int n = pack_mem_change(&in, buf, sizeof buf);
	CU_ASSERT_FATAL(n > 0);
	CU_ASSERT_EQUAL(unpack_mem_change(buf, (size_t)n, &out), 0);
	CU_ASSERT_EQUAL(memcmp(&in, &out, sizeof in), 0);
	in.range[3].count++;
	n = pack_mem_change(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_change(buf, (size_t)n, &out), -EPROTO);
	in.range[3].count = 0;
	n = pack_mem_change(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_change(buf, (size_t)n, &out), -EPROTO);
	in = (struct msg_mem_change){.op = MEM_OP_REPORT}; /* nothing */
	n = pack_mem_change(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_change(buf, (size_t)n, &out), -EPROTO);
	in.op = MEM_OP_RETURN_ALL;
	n = pack_mem_change(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_change(buf, (size_t)n, &out), 0);
	in.op = MEM_OP_COUNT;
	n = pack_mem_change(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_change(buf, (size_t)n, &out), -EPROTO);
	struct msg_mem_changed done = {9}, again;
	n = pack_mem_changed(&done, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_changed(buf, (size_t)n, &again), 0);
	CU_ASSERT_EQUAL(again.id, 9);
}

static void test_counters(void)
{
	static struct msg_counters in, out;

	in.n = MSG_COUNTERS_MAX;
	for (uint32_t i = 0; i < in.n; i++) {
		strcpy(in.c[i].name, "some_counter_of_some_length");
		in.c[i].value = ~0ull - i;
	}
	int n = pack_vcpu_stats(&in, buf, sizeof buf);
	CU_ASSERT_FATAL(n > 0);
	CU_ASSERT_EQUAL(unpack_vcpu_stats(buf, (size_t)n, &out), 0);
	CU_ASSERT_EQUAL(memcmp(&in, &out, sizeof in), 0);
	in.c[3].name[0] = '\0';
	n = pack_stats_reply(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_stats_reply(buf, (size_t)n, &out), -EPROTO);
}

/* Names that would mean something to JSON, a terminal or a shell; a child's have no capital either. */
static void test_counter_names(void)
{
	static struct msg_counters in = {.n = 1}, out;
	static const char *const bad[] = {"a\": 0, \"blk0.reads",
					  "\xc2\x9b"
					  "2J",
					  "a b",
					  "a\x9b",
					  "\xe2\x80\xae",
					  "a\\",
					  "$(id)",
					  "a\n"};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		strcpy(in.c[0].name, bad[i]);
		int n = pack_vcpu_stats(&in, buf, sizeof buf);
		CU_ASSERT_EQUAL(unpack_vcpu_stats(buf, (size_t)n, &out), -EPROTO);
		n = pack_dev_stats(&in, buf, sizeof buf);
		CU_ASSERT_EQUAL(unpack_dev_stats(buf, (size_t)n, &out), -EPROTO);
		n = pack_stats_reply(&in, buf, sizeof buf);
		CU_ASSERT_EQUAL(unpack_stats_reply(buf, (size_t)n, &out), -EPROTO);
	}
	strcpy(in.c[0].name, "Disk-1.reads_0");
	int n = pack_stats_reply(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_stats_reply(buf, (size_t)n, &out), 0);
	n = pack_vcpu_stats(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_vcpu_stats(buf, (size_t)n, &out), -EPROTO);
}

/* A text that a terminal would obey passes in no message. */
static void test_texts(void)
{
	struct msg_failed in = {.status = 1}, out;

	strcpy(in.text, "no \\x9b memory");
	int n = pack_failed(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_failed(buf, (size_t)n, &out), 0);
	strcpy(in.text, "\xc2\x9b"
			"31m");
	n = pack_failed(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_failed(buf, (size_t)n, &out), -EPROTO);
	strcpy(in.text, "\xe2\x80\xae");
	n = pack_failed(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_failed(buf, (size_t)n, &out), -EPROTO);
}

static void test_status(void)
{
	static struct msg_status in, out;

	strcpy(in.name, "a");
	strcpy(in.state, "running");
	strcpy(in.console, "pty /dev/pts/1");
	strcpy(in.second, "stdio");
	in.cpus = (struct msg_cpus){1, 2, 2};
	in.nprocs = 2;
	strcpy(in.proc[0].name, "vcpu");
	in.proc[0].pid = 17;
	in.proc[0].layers = SANDBOX_ALL;
	strcpy(in.proc[1].name, "memsvc");
	int n = pack_status_reply(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_status_reply(buf, (size_t)n, &out), 0);
	CU_ASSERT_EQUAL(memcmp(&in, &out, sizeof in), 0);
	in.proc[1].layers = SANDBOX_ALL + 1;
	n = pack_status_reply(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_status_reply(buf, (size_t)n, &out), -EPROTO);
}

static void test_small_ranges(void)
{
	struct msg_vcpu_exit e = {EXIT_COUNT, 0}, eo;
	struct msg_vcpu_command c = {.op = OP_COUNT}, co;
	struct msg_request_head r = {.version = 1, .op = REQ_COUNT, .balloon = {MSG_BALLOON_MIN - SHM_PAGE}}, ro;
	struct msg_failed f = {.status = 0}, fo;
	struct msg_mem_stats m = {.pages_total = 10, .pages_present = 11}, mo;
	struct msg_vcpu_running v = {0}, vo;
	int n;

	n = pack_vcpu_exit(&e, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_vcpu_exit(buf, (size_t)n, &eo), -EPROTO);
	e = (struct msg_vcpu_exit){EXIT_DEBUG, 256};
	n = pack_vcpu_exit(&e, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_vcpu_exit(buf, (size_t)n, &eo), -EPROTO);
	n = pack_vcpu_command(&c, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_vcpu_command(buf, (size_t)n, &co), -EPROTO);
	n = pack_request(&r, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_request(buf, (size_t)n, &ro), -EPROTO);
	r.op = REQ_BALLOON;
	n = pack_request(&r, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_request(buf, (size_t)n, &ro), -EPROTO);
	r.balloon.bytes += SHM_PAGE;
	n = pack_request(&r, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_request(buf, (size_t)n, &ro), 0);
	CU_ASSERT(ro.op == REQ_BALLOON && ro.balloon.bytes == MSG_BALLOON_MIN);
	n = pack_failed(&f, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_failed(buf, (size_t)n, &fo), -EPROTO);
	n = pack_mem_stats(&m, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_stats(buf, (size_t)n, &mo), -EPROTO);
	m = (struct msg_mem_stats){.pages_total = 10, .pages_ballooned = 11};
	n = pack_mem_stats(&m, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_mem_stats(buf, (size_t)n, &mo), -EPROTO);
	n = pack_vcpu_running(&v, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_vcpu_running(buf, (size_t)n, &vo), -EPROTO);
	CU_ASSERT_EQUAL(unpack_empty(1), -EPROTO);
	CU_ASSERT_EQUAL(unpack_empty(0), 0);
}

static void test_noise(void)
{
	static struct msg_vcpu_config c;
	static struct msg_status s;
	static struct msg_counters k;
	struct msg_hello h;
	uint64_t x = 88172645463325252ull;

	for (int round = 0; round < 20000; round++) {
		size_t n = (size_t)(x % 64);
		for (size_t i = 0; i < n; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			buf[i] = (uint8_t)x;
		}
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		unpack_vcpu_config(buf, n, &c);
		unpack_status_reply(buf, n, &s);
		unpack_vcpu_stats(buf, n, &k);
		unpack_hello(buf, n, &h);
	}
	CU_PASS("no crash");
}

static void test_clean(void)
{
	CU_ASSERT_STRING_EQUAL(pack_type_name(MSG_HELLO), "HELLO");
	CU_ASSERT_PTR_NULL(pack_type_name(999));
}

static void test_layout(void)
{
	struct shm_layout l = shm_layout(512ull << 20);

	CU_ASSERT_EQUAL(l.pages, 131072);
	CU_ASSERT_EQUAL(l.epochs, 4096);
	CU_ASSERT_EQUAL(l.p2m, 3 * 4096);
	CU_ASSERT_EQUAL(l.code, 3 * 4096 + 131072 * 8);
	CU_ASSERT_EQUAL(l.dirty - l.code, 16384);
	CU_ASSERT(l.held - l.dirty == 16384 && l.total - l.held == 16384);
	l = shm_layout(4096);
	CU_ASSERT_EQUAL(l.total, 7 * 4096);
}

CU_ErrorCode suite_pack(void)
{
	CU_pSuite s = CU_add_suite("pack", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_hello) || !CU_ADD_TEST(s, test_vcpu_config) ||
	    !CU_ADD_TEST(s, test_vcpu_config_ranges) || !CU_ADD_TEST(s, test_unknown_field) ||
	    !CU_ADD_TEST(s, test_region) || !CU_ADD_TEST(s, test_mem_change) || !CU_ADD_TEST(s, test_counter_names) ||
	    !CU_ADD_TEST(s, test_texts) || !CU_ADD_TEST(s, test_counters) || !CU_ADD_TEST(s, test_status) ||
	    !CU_ADD_TEST(s, test_small_ranges) || !CU_ADD_TEST(s, test_noise) || !CU_ADD_TEST(s, test_clean) ||
	    !CU_ADD_TEST(s, test_layout))
		return CU_get_error();
	return CUE_SUCCESS;
}
