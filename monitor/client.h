/*
 * Commands that talk to the monitor of a running VM.  See client.c.
 */
#ifndef HVX_MONITOR_CLIENT_H
#define HVX_MONITOR_CLIENT_H

#include "monitor/cli.h"

struct client;
struct msg_counters;
struct msg_status;

/* One for each way to ask and to print (command.c); the exit status. */
int client_groups(struct client *c);
int client_list(struct client *c);
int client_status(struct client *c);
int client_stats(struct client *c);
int client_console(struct client *c);
int client_simple(struct client *c);
int client_balloon(struct client *c);
int client_screen(struct client *c);
int client_stop(struct client *c);
int client_kill(struct client *c);
int client_top(struct client *c);        /* top.c */
int client_metrics(struct client *c);    /* metrics.c */

/* ---- for those in files of their own ---- */
const struct cli *client_cli(const struct client *c);
/* Calls @each for each VM there is. */
void client_each(struct client *c, void (*each)(void *ctx, const char *name), void *ctx);
/* Status and counters of a VM: 0, -EAGAIN when its monitor does not answer, or another negative error.  Without counters
 * n->n is 0. */
int client_sample(struct client *c, const char *name, struct msg_status *s, struct msg_counters *n);

/* Does it and returns the exit status. */
int client_command(const struct cli *c);

struct runtime;
/* What is guaranteed to all running VMs but that one, bytes. */
uint64_t client_guarantees(const struct runtime *rt, const char *except);

#endif
