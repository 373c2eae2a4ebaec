/*
 * The log of every process.  One line is one write(2), so lines of several
 * processes never mix; control bytes in a line are shown as '?', so that no
 * guest can speak to the user's terminal through it.
 */
#include "common/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

void (*log_before)(void);

static struct {
	char tag[64];
	enum log_level level;
	int fd;
	bool raw, syslog;
} state = {.level = LOG_LVL_INFO, .fd = 2};

void log_init(const char *tag)
{
	snprintf(state.tag, sizeof state.tag, "%s", tag);
}

void log_set_level(enum log_level l)
{
	state.level = l;
}

void log_set_fd(int fd)
{
	state.fd = fd;
}

void log_set_raw(bool raw)
{
	state.raw = raw;
}

void log_to_syslog(void)
{
	tzset(); /* before the process is sealed: syslog(3) writes the local time */
	openlog("hvx-monitor", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	state.syslog = true;
}

static void clean(char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			s[i] = '?';
}

static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

/* @line has room for two more bytes behind its @n. */
static void emit(enum log_level l, char *line, size_t n)
{
	clean(line, n);
	if (state.syslog) {
		syslog(priority[l], "%.*s", (int)n, line);
		return;
	}
	if (state.raw)
		line[n++] = '\r';
	line[n++] = '\n';
	if (write(state.fd, line, n) < 0)
		return; /* nowhere to report it */
}

static bool wanted(enum log_level l)
{
	return l <= state.level && (state.fd >= 0 || state.syslog);
}

void log_vmsg(enum log_level l, const char *fmt, va_list ap)
{
	static const char *const name[] = {"error: ", "warning: ", "", "debug: "};
	char line[1024];

	if (!wanted(l))
		return;
	if (log_before)
		log_before();
	size_t n = (size_t)snprintf(line, sizeof line, "%s%s%s", state.tag, state.tag[0] ? ": " : "", name[l]);
	if (vsnprintf(line + n, sizeof line - n - 3, fmt, ap) >= 0)
		emit(l, line, strlen(line));
}

void log_child(const char *name, const char *text)
{
	char line[1024];

	if (!wanted(LOG_LVL_INFO))
		return;
	snprintf(line, sizeof line - 3, "%s/%s: %s", state.tag, name, text);
	emit(LOG_LVL_INFO, line, strlen(line));
}

void log_msg(enum log_level l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vmsg(l, fmt, ap);
	va_end(ap);
}

bool log_allow(struct log_limit *lim)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	uint64_t sec = (uint64_t)ts.tv_sec;
	if (__atomic_exchange_n(&lim->window, sec, __ATOMIC_RELAXED) != sec)
		__atomic_store_n(&lim->count, 0, __ATOMIC_RELAXED);
	if (__atomic_fetch_add(&lim->count, 1, __ATOMIC_RELAXED) < lim->burst)
		return true;
	__atomic_fetch_add(&lim->lost, 1, __ATOMIC_RELAXED);
	return false;
}

uint32_t log_lost(struct log_limit *lim)
{
	return __atomic_exchange_n(&lim->lost, 0, __ATOMIC_RELAXED);
}
