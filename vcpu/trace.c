/*
 * The engine's trace.  Lines of all threads go through one buffer under a lock, and
 * reach the file when it is full or at exits.  Invariant: trace_mask is zero whenever there
 * is no file.
 */
#include "vcpu/trace.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rank.h"
#include "vcpu/kick.h"

uint32_t trace_mask;

static struct {
	pthread_mutex_t lock;
	int fd;
	size_t n;
	uint64_t start_us;
	char buf[64 << 10];
} out = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static const char *category_name(enum trace_category cat)
{
	switch (cat) {
#define X(id, name, bit) \
	case TRACE_##id: return #name;
		TRACE_CATEGORIES(X)
#undef X
	default: return "?";
	}
}

void trace_open(int fd, uint32_t categories)
{
	RANK_GIVE(&out.lock, RANK_TRACE);
	out.fd = fd;
	out.start_us = now_us();
	trace_mask = categories & TRACE_ALL;
}

static void flush_locked(void)
{
	for (size_t at = 0; at < out.n;) {
		ssize_t m = write(out.fd, out.buf + at, out.n - at);
		if (m <= 0) {
			trace_mask = 0; /* disk full: better no trace than no guest */
			log_error("trace stopped: cannot write");
			break;
		}
		at += (size_t)m;
	}
	out.n = 0;
}

void trace_flush(void)
{
	if (out.fd < 0)
		return;
	pthread_mutex_lock(&out.lock);
	flush_locked();
	pthread_mutex_unlock(&out.lock);
}

void trace_line(enum trace_category cat, const char *fmt, ...)
{
	char line[512], who[8] = "";
	va_list ap;

	if (log_before)
		log_before();
	uint64_t t = now_us() - out.start_us;
	const struct vcpu *v = kick_this();
	if (v && v->vm->ncpus > 1)
		snprintf(who, sizeof who, "cpu%d ", v->id);
	int n = snprintf(line, sizeof line, "%llu.%06llu %s%s: ", (unsigned long long)(t / 1000000),
			 (unsigned long long)(t % 1000000), who, category_name(cat));
	va_start(ap, fmt);
	int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
	va_end(ap);
	if (m < 0)
		return;
	size_t len = strlen(line);
	line[len++] = '\n';
	pthread_mutex_lock(&out.lock);
	if (out.n + len > sizeof out.buf)
		flush_locked();
	memcpy(out.buf + out.n, line, len);
	out.n += len;
	pthread_mutex_unlock(&out.lock);
}
