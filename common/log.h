/*
 * Log lines: lower case, no newline, tagged with the VM and the process
 * ("vm/vcpu: ...").  See log.c.
 */
#ifndef HVX_LOG_H
#define HVX_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* A place in the code that a guest or a child can make log: at most `burst` lines per second. */
struct log_limit {
	uint64_t window; /* second the count belongs to */
	uint32_t count;  /* lines in it */
	uint32_t lost;   /* lines dropped since the last one shown */
	uint32_t burst;
};
#define LOG_LIMIT_INIT(n)    \
	{                    \
		.burst = (n) \
	}

/* Somebody who can make us say things: a child, a guest.  All that comes of it is counted together. */
struct log_source {
	const char *name; /* "vcpu" */
	struct log_limit limit;
	bool shown; /* its lines go to the user even when those of children are put aside */
};
#define LOG_SOURCE_BURST 50 /* lines a second of one source */

/* Called before anything is formatted: the vcpu saves the guest's vector state here. */
extern void (*log_before)(void);

void log_init(const char *tag);       /* the tag is copied and cut at 63 bytes; empty: lines have none */
void log_set_level(enum log_level l); /* lines above it are dropped; default info */
void log_set_fd(int fd);              /* where the user looks, default 2; -1: nowhere */
void log_set_raw(bool raw);           /* the terminal is in raw mode: end lines with CR LF */

/* The log: all lines go there, too, from now on; the file has precedence. */
void log_to_syslog(void);
void log_to_file(int fd);
void log_set_aside(bool aside); /* lines of children go to the log alone, if there is one */

void log_msg(enum log_level l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_vmsg(enum log_level l, const char *fmt, va_list ap);

/* True when @lim has room for a line now; false counts a lost one.  Thread-safe. */
bool log_allow(struct log_limit *lim);

/* Lines dropped at @lim since the last call; resets the count. */
uint32_t log_lost(struct log_limit *lim);

/* A line of @s's, tagged with our tag and its name, within its limit. */
void log_child(struct log_source *s, const char *line);

/* The last line at level error, without its tag, is kept from now on: for a process with one thread. */
void log_keep_error(void);
const char *log_last_error(void);

/* Until the next call every line counts against @s's limit (NULL: nobody's): what is logged while a message of its is
 * handled.  Returns the one before.  Only for a process whose lines come from one thread. */
struct log_source *log_charge(struct log_source *s);

#define log_error(...) log_msg(LOG_LVL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LVL_DEBUG, __VA_ARGS__)

/* For what a guest can trigger: at most ten lines a second from this place. */
#define log_guest(level, ...)                                               \
	do {                                                                \
		static struct log_limit log_guest_lim = LOG_LIMIT_INIT(10); \
		if (log_allow(&log_guest_lim))                              \
			log_msg(level, __VA_ARGS__);                        \
	} while (0)

#endif
