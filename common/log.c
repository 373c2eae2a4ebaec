/*
 * The log of every process.  One line is one write(2), so lines of several
 * processes never mix.  Invariant: every line goes through text_clean(), so that no guest can
 * speak to the user's terminal; a line that somebody else made us say counts against
 * that somebody's limit, whoever formats it.
 */
#include "common/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"

#define LOG_LINE 1024

void (*log_before)(void);

static struct {
	char tag[64];
	enum log_level level;
	int fd;     /* where the user looks; -1: nowhere */
	int log_fd; /* the log, where that is another place; -1 */
	bool raw, syslog, aside;
	bool keeps; /* the last error */
	char last_error[128];
	struct log_source *charged;
} state = {.level = LOG_LVL_INFO, .fd = 2, .log_fd = -1};

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

void log_to_file(int fd)
{
	state.log_fd = fd;
}

void log_set_aside(bool aside)
{
	state.aside = aside;
}

struct log_source *log_charge(struct log_source *s)
{
	struct log_source *before = state.charged;

	state.charged = s;
	return before;
}

static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};

static void put(int fd, char *line, size_t n, bool raw)
{
	if (raw)
		line[n++] = '\r';
	line[n++] = '\n';
	if (write(fd, line, n) < 0)
		return; /* nowhere to report it */
}

/* To the log, and to the user unless it is only for the log. */
static void emit(enum log_level l, const char *text, bool aside)
{
	char line[LOG_LINE];
	bool has_log = state.syslog || state.log_fd >= 0;
	size_t n = text_clean(line, sizeof line - 1, text, strlen(text));

	if (state.log_fd >= 0)
		put(state.log_fd, line, n, false);
	else if (state.syslog)
		syslog(priority[l], "%.*s", (int)n, line);
	if (state.fd >= 0 && !(aside && has_log))
		put(state.fd, line, n, state.raw);
}

static bool wanted(enum log_level l)
{
	return l <= state.level && (state.fd >= 0 || state.log_fd >= 0 || state.syslog);
}

/* Does the limit of whoever makes us say this have room? */
static bool admitted(struct log_source *s)
{
	char line[LOG_LINE];

	if (!s)
		return true;
	if (!log_allow(&s->limit))
		return false;
	uint32_t lost = log_lost(&s->limit);
	if (lost) {
		snprintf(line, sizeof line, "%s: warning: %u lines of %s were dropped", state.tag, lost, s->name);
		emit(LOG_LVL_WARN, line, state.aside && !s->shown);
	}
	return true;
}

void log_vmsg(enum log_level l, const char *fmt, va_list ap)
{
	static const char *const name[] = {"error: ", "warning: ", "", "debug: "};
	char line[LOG_LINE];

	if (!wanted(l) || !admitted(state.charged))
		return;
	if (log_before)
		log_before();
	size_t n = (size_t)snprintf(line, sizeof line, "%s%s%s", state.tag, state.tag[0] ? ": " : "", name[l]);
	if (vsnprintf(line + n, sizeof line - n, fmt, ap) < 0)
		return;
	if (l == LOG_LVL_ERROR && state.keeps)
		snprintf(state.last_error, sizeof state.last_error, "%.*s", (int)sizeof state.last_error - 1, line + n);
	emit(l, line, false);
}

void log_keep_error(void)
{
	state.keeps = true;
}

const char *log_last_error(void)
{
	return state.last_error;
}

void log_child(struct log_source *s, const char *text)
{
	char line[LOG_LINE];

	if (!wanted(LOG_LVL_INFO) || !admitted(s))
		return;
	snprintf(line, sizeof line, "%s/%s: %s", state.tag, s->name, text);
	emit(LOG_LVL_INFO, line, state.aside && !s->shown);
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
