/*
 * The command line.  See cli.c.
 */
#ifndef HVX_MONITOR_CLI_H
#define HVX_MONITOR_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "monitor/config.h"

enum cli_command {
	CMD_NONE,
	CMD_RUN,
	CMD_START,
	CMD_LIST,
	CMD_STATUS,
	CMD_CONSOLE,
	CMD_STATS,
	CMD_PAUSE,
	CMD_RESUME,
	CMD_STOP,
	CMD_KILL,
	CMD_LIMIT,
	CMD_LINK,
	CMD_SCREEN,
	CMD_GROUPS,
	CMD_BALLOON,
	CMD_TOP,
	CMD_METRICS,
	CMD_COMPLETION,
	CMD_HELP,
	CMD_VERSION
};

struct cli {
	enum cli_command cmd, help_on;
	struct config cfg; /* run and start; cfg.name for the others, empty: the only VM there is */
	bool json, debug, all, http;
	const char *output;          /* a file; NULL: standard output */
	unsigned interval, count;    /* seconds that top waits; how often it shows something, 0: for ever */
	bool zsh;                    /* completion's word */
	unsigned given;              /* cli.c's own: bit an option of ours that was there */
	struct msg_request_head ask; /* what is asked of the VM: the arguments */
	unsigned words;              /* that came after its name */
	unsigned timeout;            /* seconds that stop waits */
};

/* An option of commands, beside the keys of the configuration that run and start take. */
struct cli_option {
	const char *name;
	unsigned takes; /* TAKES_* of command.h: what takes it */
	bool value;     /* it has one */
	int (*set)(struct cli *c, const char *v, char *err, size_t len);
};
extern const struct cli_option cli_options[];
extern const unsigned cli_option_count;

/* 0; or HVX_EXIT_USAGE or HVX_EXIT_CONFIG with @err filled. */
int cli_parse(struct cli *c, int argc, char **argv, char *err, size_t len);

/* A usage error about @arg: fills @err, returns HVX_EXIT_USAGE. */
int cli_usage(char *err, size_t len, const char *what, const char *arg);

void cli_help(enum cli_command cmd); /* to stdout */

#endif
