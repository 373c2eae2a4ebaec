/*
 * Commands that talk to the monitor of a running VM.  See client.c.
 */
#ifndef HVX_MONITOR_CLIENT_H
#define HVX_MONITOR_CLIENT_H

#include "monitor/cli.h"

struct client;

/* One for each way to ask and to print (command.c); the exit status. */
int client_list(struct client *c);
int client_status(struct client *c);
int client_stats(struct client *c);
int client_console(struct client *c);
int client_simple(struct client *c);
int client_balloon(struct client *c);
int client_stop(struct client *c);
int client_kill(struct client *c);

/* Does it and returns the exit status. */
int client_command(const struct cli *c);

#endif
