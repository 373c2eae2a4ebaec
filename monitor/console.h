/*
 * The guest's serial console: from the vcpu's pipes to the user's terminal, a
 * pty, a file, and whoever has attached.  See console.c.
 */
#ifndef HVX_MONITOR_CONSOLE_H
#define HVX_MONITOR_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/ipc.h"
#include "monitor/config.h"

struct console;

/* Opens what is asked for; @quit is called for Ctrl-A x.  NULL with @err filled. */
struct console *console_new(struct ipc_loop *l, enum config_console where, const char *path, void (*quit)(void *ctx),
			    void *ctx, char *err, size_t len);
void console_free(struct console *c);

/* The vcpu's ends of the two pipes; console_handed_over() closes ours after they were sent. */
int console_vcpu_in(const struct console *c);
int console_vcpu_out(const struct console *c);
void console_handed_over(struct console *c);

/* Starts reading the user's input: the guest runs. */
void console_start(struct console *c);

/* A stream for a client that attaches; the caller sends it on and closes it.  -EBUSY when there is one. */
int console_attach(struct console *c);

/* @resized hears of the size of the primary user's terminal: at the start, and whenever console_look_size() or input finds
 * another one. */
void console_on_size(struct console *c, void (*resized)(void *ctx, unsigned columns, unsigned rows));
void console_look_size(struct console *c);

/* True when the vcpu's end is closed and everything it wrote has been passed on. */
bool console_drained(const struct console *c);

/* "stdio", "pty /dev/pts/3", "file PATH" */
const char *console_describe(const struct console *c);

/* Leaves the terminal to the shell: `start` goes to the background. */
void console_show_help(struct console *c);

#endif
