/* The command line, and the escape character of the terminal. */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "monitor/command.h"
#include "monitor/tty.h"

static struct cli c;
static char err[512];

static int parse(const char *line)
{
	static char copy[1024];
	char *argv[32] = {"hvx-monitor"};
	int argc = 1;

	snprintf(copy, sizeof copy, "%s", line);
	for (char *w = strtok(copy, " "); w && argc < 31; w = strtok(NULL, " "))
		argv[argc++] = w;
	err[0] = '\0';
	return cli_parse(&c, argc, argv, err, sizeof err);
}

static void test_run(void)
{
	CU_ASSERT_EQUAL(parse("run --name=a --memory=256M --kernel=/k --initrd=/i --append=quiet --no-reboot"), 0);
	CU_ASSERT_EQUAL(c.cmd, CMD_RUN);
	CU_ASSERT_STRING_EQUAL(c.cfg.name, "a");
	CU_ASSERT_EQUAL(c.cfg.memory, 256ull << 20);
	CU_ASSERT_EQUAL(c.cfg.console, CONSOLE_STDIO);
	CU_ASSERT(c.cfg.no_reboot && c.cfg.strict);
	CU_ASSERT_EQUAL(parse("start --kernel=/k"), 0);
	CU_ASSERT_EQUAL(c.cfg.console, CONSOLE_PTY);
	CU_ASSERT(config_name_ok(c.cfg.name));
}

static void test_usage(void)
{
	static const char *const bad[] = {
		"",
		"fly",
		"run --kernel=/k --speed=9",
		"run --kernel=/k --kernel=/l",
		"run --kernel=/k --append=a --append=b",
		"run --kernel=/k --no-reboot --no-reboot",
		"run --kernel=/k --debug --debug",
		"run --config=/dev/null --config=/dev/null --kernel=/k",
		"stats --json --json a",
		"stop --timeout=1 --timeout=2 a",
		"status --name=a --name=b",
		"status a --name=b",
		"run --kernel",
		"run --kernel=",
		"run --kernel=/k --memory=many",
		"run --kernel=/k --no-reboot=yes",
		"run --kernel=/k extra",
		"start --kernel=/k --console=stdio",
		"status a b",
		"status ../x",
		"status --memory=1G",
		"list a",
		"stop --timeout=x",
		"stop --timeout",
		"stats --jsons",
		"run --config",
		"console --json",
		"run --kernel=/k --cpus=2000",
		"run --kernel=/k --balloon=1G",
		"run --kernel=/k --second",
		"start --kernel=/k --virtio-console=stdio",
		"run --kernel=/k --virtio-console",
		"balloon a lots",
		"balloon a 1G 2G",
		"limit a",
		"limit a blk0",
		"limit a blk0 fast",
		"limit a cpu-limit=x",
		"limit a cpu-limit=5 blk0",
		"limit a blk0 cpu-limit=5",
		"limit a ops=5",
		"limit a blk0 speed=1",
		"limit a blk0 ops=1 bytes=many",
		"limit a an-identifier-that-is-much-too-long ops=1",
		"link a net0",
		"link a net0 sideways",
		"link a net0 up down",
		"run -k",
		"run --aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=1",
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		int rc = parse(bad[i]);
		if (rc != HVX_EXIT_USAGE)
			fprintf(stderr, "'%s' gave %d (%s)\n", bad[i], rc, err);
		CU_ASSERT_EQUAL(rc, HVX_EXIT_USAGE);
		CU_ASSERT(err[0] != '\0');
	}
}

static void test_second_console(void)
{
	CU_ASSERT_EQUAL(parse("run --kernel=/k --virtio-console=stdio"), 0);
	CU_ASSERT(c.cfg.second == CONSOLE_STDIO && c.cfg.console == CONSOLE_PTY);
	CU_ASSERT_EQUAL(parse("run --kernel=/k --virtio-console=file:/tmp/x"), 0);
	CU_ASSERT(c.cfg.second == CONSOLE_FILE && c.cfg.console == CONSOLE_STDIO);
	CU_ASSERT_STRING_EQUAL(c.cfg.second_path, "/tmp/x");
	CU_ASSERT_EQUAL(parse("run --kernel=/k --console=stdio --virtio-console=stdio"), HVX_EXIT_CONFIG);
	CU_ASSERT_EQUAL(parse("console a --second"), 0);
	CU_ASSERT(c.ask.console.second);
}

static void test_balloon(void)
{
	CU_ASSERT_EQUAL(parse("balloon a 256M"), 0);
	CU_ASSERT_EQUAL(c.cmd, CMD_BALLOON);
	CU_ASSERT_STRING_EQUAL(c.cfg.name, "a");
	CU_ASSERT_EQUAL(c.ask.balloon.bytes, 256 << 20);
	CU_ASSERT_EQUAL(parse("balloon a --json"), 0);
	CU_ASSERT(c.json && !c.words);
}

static void test_device_words(void)
{
	const struct msg_request_limit *l = &c.ask.limit;

	CU_ASSERT_EQUAL(parse("limit a blk0 ops=5 bytes-burst=1M packets-burst=none"), 0);
	CU_ASSERT_STRING_EQUAL(l->id, "blk0");
	CU_ASSERT_EQUAL(l->given, LIMIT_OPS | LIMIT_OPS_BURST | LIMIT_BYTES_BURST);
	CU_ASSERT(l->limits.ops == 5 && l->limits.bytes_burst == 1 << 20 && !l->limits.ops_burst);
	CU_ASSERT_EQUAL(parse("limit a cpu-limit=50 memory-limit=none"), 0);
	CU_ASSERT(!l->id[0] && !l->given && l->vm.given == (VM_LIMIT_CPU | VM_LIMIT_MEMORY) && l->vm.cpu == 50);
	CU_ASSERT_EQUAL(parse("limit a blk0 bytes=2"), 0);
	CU_ASSERT(l->given == LIMIT_BYTES && l->limits.bytes == 2);
	CU_ASSERT_EQUAL(parse("link a net0 up"), 0);
	CU_ASSERT(!strcmp(c.ask.link.id, "net0") && c.ask.link.up);
	CU_ASSERT_EQUAL(parse("link a net0 down"), 0);
	CU_ASSERT(!c.ask.link.up);
}

/* Each request is served by one row; one that comes in a state that its row does not allow is refused. */
static void test_commands(void)
{
	const uint32_t live = VM_BIT(VM_RUNNING) | VM_BIT(VM_PAUSED), any = VM_BIT(VM_STATE_COUNT) - 1;

	for (int op = REQ_STATUS; op < REQ_COUNT; op++) {
		unsigned rows = 0;
		for (unsigned i = 0; i < command_count; i++)
			rows += command_table[i].op == (enum msg_request)op;
		CU_ASSERT_EQUAL(rows, 1);
		const struct command *cmd = command_asking((enum msg_request)op);
		CU_ASSERT_PTR_NOT_NULL_FATAL(cmd);
		CU_ASSERT_EQUAL(cmd->states, op == REQ_STATUS || op == REQ_KILL ? any : live);
	}
	for (int cmd = CMD_RUN; cmd < CMD_HELP; cmd++) {
		const struct command *row = command_of((enum cli_command)cmd);
		CU_ASSERT_PTR_NOT_NULL_FATAL(row);
		CU_ASSERT_PTR_EQUAL(command_named(row->name), row);
		CU_ASSERT_EQUAL(!row->run,
				cmd == CMD_RUN || cmd == CMD_START || cmd == CMD_COMPLETION); /* those are main.c's */
		CU_ASSERT_EQUAL(row->op && !row->serve, 0);
	}
	CU_ASSERT_PTR_NULL(command_asking(REQ_COUNT));
	CU_ASSERT_PTR_NULL(command_asking((enum msg_request)0));
	CU_ASSERT_PTR_NULL(command_of(CMD_HELP));
	CU_ASSERT_PTR_NULL(command_of(CMD_NONE));
}

static void test_config_errors(void)
{
	CU_ASSERT_EQUAL(parse("run"), HVX_EXIT_CONFIG);
	CU_ASSERT_EQUAL(parse("run --config=/nonexistent"), HVX_EXIT_CONFIG);
	CU_ASSERT_EQUAL(parse("run --kernel=/k --debugcon=stderr"), HVX_EXIT_CONFIG);
}

static void test_precedence(void)
{
	char path[] = "/tmp/hvx-test-XXXXXX", line[128];
	static const char text[] = "memory = 128M\nkernel = /from-file\nname = file\n";
	int fd = mkstemp(path);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
	close(fd);
	snprintf(line, sizeof line, "run --memory=64M --config=%s", path); /* wherever it stands */
	CU_ASSERT_EQUAL(parse(line), 0);
	CU_ASSERT_EQUAL(c.cfg.memory, 64ull << 20);
	CU_ASSERT_STRING_EQUAL(c.cfg.kernel, "/from-file");
	CU_ASSERT_STRING_EQUAL(c.cfg.name, "file");
	unlink(path);
}

static void test_others(void)
{
	CU_ASSERT_EQUAL(parse("stop web --timeout=5"), 0);
	CU_ASSERT_EQUAL(c.cmd, CMD_STOP);
	CU_ASSERT_EQUAL(c.timeout, 5);
	CU_ASSERT_STRING_EQUAL(c.cfg.name, "web");
	CU_ASSERT_EQUAL(parse("stats --json --name=web"), 0);
	CU_ASSERT(c.json);
	CU_ASSERT_EQUAL(parse("console"), 0);
	CU_ASSERT_STRING_EQUAL(c.cfg.name, "");
	CU_ASSERT_EQUAL(parse("stop --help"), 0);
	CU_ASSERT_EQUAL(c.cmd, CMD_HELP);
	CU_ASSERT_EQUAL(c.help_on, CMD_STOP);
	CU_ASSERT_EQUAL(parse("--version"), 0);
	CU_ASSERT_EQUAL(c.cmd, CMD_VERSION);
	CU_ASSERT_EQUAL(parse("fly --help"), 0);
}

static void test_escape(void)
{
	struct tty_escape e = {false};
	char b[32];
	size_t n;

	n = 3, memcpy(b, "abc", n);
	CU_ASSERT_EQUAL(tty_filter(&e, b, &n), TTY_NONE);
	CU_ASSERT_EQUAL(n, 3);
	n = 3, memcpy(b, "a\1x", n);
	CU_ASSERT_EQUAL(tty_filter(&e, b, &n), TTY_QUIT);
	CU_ASSERT_EQUAL(n, 1);
	n = 1, memcpy(b, "\1", n); /* split over two reads */
	CU_ASSERT_EQUAL(tty_filter(&e, b, &n), TTY_NONE);
	CU_ASSERT_EQUAL(n, 0);
	n = 2, memcpy(b, "hz", n);
	CU_ASSERT_EQUAL(tty_filter(&e, b, &n), TTY_HELP);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_EQUAL(b[0], 'z');
	n = 2, memcpy(b, "\1\1", n);
	CU_ASSERT_EQUAL(tty_filter(&e, b, &n), TTY_NONE);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_EQUAL(b[0], 1);
}

CU_ErrorCode suite_cli(void)
{
	CU_pSuite s = CU_add_suite("cli", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_run) || !CU_ADD_TEST(s, test_usage) || !CU_ADD_TEST(s, test_balloon) ||
	    !CU_ADD_TEST(s, test_device_words) || !CU_ADD_TEST(s, test_commands) ||
	    !CU_ADD_TEST(s, test_second_console) || !CU_ADD_TEST(s, test_config_errors) ||
	    !CU_ADD_TEST(s, test_precedence) || !CU_ADD_TEST(s, test_others) || !CU_ADD_TEST(s, test_escape))
		return CU_get_error();
	return CUE_SUCCESS;
}
