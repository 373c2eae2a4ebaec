/*
 * Commands that talk to the monitor of a running VM.  See client.c.
 */
#ifndef HVX_MONITOR_CLIENT_H
#define HVX_MONITOR_CLIENT_H

#include "monitor/cli.h"

/* Does it and returns the exit status. */
int client_command(const struct cli *c);

#endif
