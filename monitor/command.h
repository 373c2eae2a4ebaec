/*
 * What hvx-monitor can be told, a row each.  See command.c.
 */
#ifndef HVX_MONITOR_COMMAND_H
#define HVX_MONITOR_COMMAND_H

#include "monitor/cli.h"
#include "monitor/permit.h"

struct client; /* client.c */

/* Options and words that a command takes. */
enum {
	TAKES_VM = 1,
	TAKES_JSON = 2,
	TAKES_SECOND = 4,
	TAKES_TIMEOUT = 8,
	TAKES_NO_NAME = 16,
	TAKES_ALL = 32,
	TAKES_INTERVAL = 64, /* and --count */
	TAKES_OUTPUT = 128,  /* and --http */
	TAKES_WORD = 256,    /* words come in the place of the VM's name */
	TAKES_HIDDEN = 512   /* no option: --help leaves it out */
};

struct command {
	enum cli_command cmd;
	const char *name; /* NULL: asked by another command (resize) */
	const char *args, *what;
	unsigned takes;
	unsigned words; /* that must follow the VM's name */
	int (*word)(struct cli *c, const char *arg, char *err,
		    size_t len); /* takes one of them; NULL: there are none */
	enum msg_request op;     /* 0: nothing is asked */
	uint32_t states;         /* VM_BIT()s in which the monitor serves it */
	/* In the monitor: answers, or lets @p wait.  An error is told to the client. */
	int (*serve)(struct machine *m, struct peer *p, const struct msg_request_head *r);
	int (*run)(struct client *c); /* the client's side: asks, prints, returns the exit status; NULL: main.c's */
};

extern const struct command command_table[];
extern const unsigned command_count;

const struct command *command_named(const char *name);     /* NULL: there is none */
const struct command *command_asking(enum msg_request op); /* NULL: there is none */
const struct command *command_of(enum cli_command cmd);

#endif
