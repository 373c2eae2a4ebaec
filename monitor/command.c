/*
 * The table of commands, and the arguments that some of them have.  Invariant: what can be asked of a running VM is served
 * through a row of this table, in the states the row says; arguments are parsed here, and nowhere else.
 */
#include "monitor/command.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/text.h"
#include "monitor/client.h"
#include "monitor/machine.h"

/* ---- arguments ---- */

static int device_id(char *id, const char *arg, char *err, size_t len)
{
	if (!arg[0] || strlen(arg) >= MSG_ID_MAX || !text_is_clean(arg))
		return cli_usage(err, len, "not the id of a device:", arg);
	memcpy(id, arg, strlen(arg) + 1);
	return 0;
}

/* The device, unless it is the VM's limits that change, then KEY=VALUE, once or more. */
static int limit_word(struct cli *c, const char *arg, char *err, size_t len)
{
	struct msg_request_limit *l = &c->ask.limit;
	const char *eq = strchr(arg, '=');
	char key[32], why[300];

	if (!c->words && !eq)
		return device_id(l->id, arg, err, len);
	if (!eq || (size_t)(eq - arg) >= sizeof key)
		return cli_usage(err, len, "a limit is KEY=VALUE:", arg);
	snprintf(key, sizeof key, "%.*s", (int)(eq - arg), arg);
	int rc = l->id[0] ? devopt_limit(&l->limits, &l->given, key, eq + 1, why, sizeof why)
			  : limits_set(&l->vm, key, eq + 1, why, sizeof why);
	if (rc)
		return cli_usage(err, len, "no limit, or no number:", arg);
	return 0;
}

static int link_word(struct cli *c, const char *arg, char *err, size_t len)
{
	if (!c->words)
		return device_id(c->ask.link.id, arg, err, len);
	if (c->words > 1 || (strcmp(arg, "up") && strcmp(arg, "down")))
		return cli_usage(err, len, "link is up or down:", arg);
	c->ask.link.up = !strcmp(arg, "up");
	return 0;
}

static int balloon_word(struct cli *c, const char *arg, char *err, size_t len)
{
	if (c->words)
		return cli_usage(err, len, "one argument too many:", arg);
	if (config_size(arg, &c->ask.balloon.bytes))
		return cli_usage(err, len, "not an amount of memory:", arg);
	return 0;
}

static int completion_word(struct cli *c, const char *arg, char *err, size_t len)
{
	if (c->words || (strcmp(arg, "bash") && strcmp(arg, "zsh")))
		return cli_usage(err, len, "a shell is bash or zsh:", arg);
	c->zsh = !strcmp(arg, "zsh");
	return 0;
}

/* ---- the table ---- */

#define LIVE (VM_BIT(VM_RUNNING) | VM_BIT(VM_PAUSED))
#define ANY  (VM_BIT(VM_STATE_COUNT) - 1)

/* clang-format off */
const struct command command_table[] = {
	{CMD_RUN, "run", "[options]", "run a VM in the foreground, its console on this terminal",
	 TAKES_VM | TAKES_NO_NAME, 0, NULL, 0, 0, NULL, NULL},
	{CMD_START, "start", "[options]", "start a VM and return when its guest runs",
	 TAKES_VM | TAKES_NO_NAME, 0, NULL, 0, 0, NULL, NULL},
	{CMD_LIST, "list", "[--all] [--json]", "the VMs of this user; with --all also those that have ended",
	 TAKES_ALL | TAKES_JSON | TAKES_NO_NAME, 0, NULL, 0, 0, NULL, client_list},
	{CMD_TOP, "top", "[--interval=SECONDS] [--count=N]", "what they use; keys: c, m, d, n sort, q quits",
	 TAKES_INTERVAL | TAKES_NO_NAME, 0, NULL, 0, 0, NULL, client_top},
	{CMD_METRICS, "metrics", "[--output=FILE|--http]", "the same for Prometheus",
	 TAKES_OUTPUT | TAKES_NO_NAME, 0, NULL, 0, 0, NULL, client_metrics},
	{CMD_STATUS, "status", "[NAME] [--json]", "state, processes and the layers that confine them",
	 TAKES_JSON, 0, NULL, REQ_STATUS, ANY, control_status, client_status},
	{CMD_CONSOLE, "console", "[NAME] [--second]", "attach to the console; Ctrl-A x detaches",
	 TAKES_SECOND, 0, NULL, REQ_CONSOLE, LIVE, control_console, client_console},
	{CMD_STATS, "stats", "[NAME] [--json]", "counters",
	 TAKES_JSON, 0, NULL, REQ_STATS, LIVE, control_stats, client_stats},
	{CMD_PAUSE, "pause", "[NAME]", "stop the guest's CPUs",
	 0, 0, NULL, REQ_PAUSE, LIVE, control_pause, client_simple},
	{CMD_RESUME, "resume", "[NAME]", "let them go on",
	 0, 0, NULL, REQ_RESUME, LIVE, control_resume, client_simple},
	{CMD_STOP, "stop", "[NAME] [--timeout=SECONDS]", "press the power button and wait for the end",
	 TAKES_TIMEOUT, 0, NULL, REQ_STOP, LIVE, control_stop, client_stop},
	{CMD_KILL, "kill", "[NAME]", "end it at once",
	 0, 0, NULL, REQ_KILL, ANY, control_kill, client_kill},
	{CMD_LIMIT, "limit", "NAME [ID] KEY=VALUE...", "change the VM's cpu-limit, ... or a device's ops, bytes, ...",
	 0, 1, limit_word, REQ_LIMIT, LIVE, control_limit, client_simple},
	{CMD_BALLOON, "balloon", "NAME [SIZE] [--json]", "how much memory the guest is to have; or what it has",
	 TAKES_JSON, 0, balloon_word, REQ_BALLOON, LIVE, control_balloon, client_balloon},
	{CMD_SCREEN, "screen", "[NAME]", "the text on the guest's display",
	 0, 0, NULL, REQ_SCREEN, LIVE, control_screen, client_screen},
	{CMD_GROUPS, "groups", "[--json]", "merge groups: who is in them, what they save",
	 TAKES_JSON | TAKES_NO_NAME, 0, NULL, 0, 0, NULL, client_groups},
	{CMD_LINK, "link", "NAME ID up|down", "put a network card's cable in, or pull it",
	 0, 2, link_word, REQ_LINK, LIVE, control_link, client_simple},
	{CMD_COMPLETION, "completion", "bash|zsh", "print what makes a shell complete these words",
	 TAKES_WORD | TAKES_HIDDEN, 1, completion_word, 0, 0, NULL, NULL},
	{CMD_NONE, NULL, NULL, NULL, /* by console --second, as its terminal changes */
	 0, 0, NULL, REQ_RESIZE, LIVE, control_resize, NULL},
};
/* clang-format on */
const unsigned command_count = sizeof command_table / sizeof command_table[0];

const struct command *command_named(const char *name)
{
	for (unsigned i = 0; i < command_count; i++)
		if (command_table[i].name && !strcmp(command_table[i].name, name))
			return &command_table[i];
	return NULL;
}

const struct command *command_asking(enum msg_request op)
{
	for (unsigned i = 0; i < command_count; i++)
		if (command_table[i].serve && command_table[i].op == op)
			return &command_table[i];
	return NULL;
}

const struct command *command_of(enum cli_command cmd)
{
	for (unsigned i = 0; i < command_count; i++)
		if (command_table[i].name && command_table[i].cmd == cmd)
			return &command_table[i];
	return NULL;
}
