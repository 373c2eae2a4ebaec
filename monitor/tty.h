/*
 * The user's terminal: raw mode and its escape character.  See tty.c.
 */
#ifndef HVX_MONITOR_TTY_H
#define HVX_MONITOR_TTY_H

#include <stdbool.h>
#include <stddef.h>

/* Puts the terminal on @fd in raw mode; restored by tty_restore(), at exit and by fatal signals.
 * False when @fd is no terminal. */
bool tty_raw(int fd);
void tty_restore(void); /* async-signal-safe; harmless when nothing was changed */
/* The guest's output that the terminal was given: it may answer some of it, after the guest has gone. */
void tty_shown(const char *buf, size_t n);
void tty_settle(void); /* before tty_restore(): output goes out, answers that are on their way are taken */
void tty_again(void);  /* raw once more, after the shell had the terminal (SIGCONT) */

enum tty_action { TTY_NONE, TTY_QUIT, TTY_HELP };
struct tty_escape {
	bool armed; /* Ctrl-A was the last character */
};
/* Takes escapes out of @buf in place; *len becomes what is left for the guest. */
enum tty_action tty_filter(struct tty_escape *e, char *buf, size_t *len);

#endif
