/*
 * A pipe whose lines are logged.  Invariant: whatever is written into it, at any rate,
 * comes out as clean lines within the limit of the writer.
 */
#include "monitor/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"

#define TAKE_MAX 64 /* reads at most: somebody may write faster than we read */

static void line(struct lines *l)
{
	static const char word[] = "error: ";

	l->text[l->len] = '\0';
	l->len = 0;
	if (!l->text[0])
		return;
	if (!strncmp(l->text, word, sizeof word - 1)) {
		const char *s = l->text + sizeof word - 1;
		text_clean(l->error, sizeof l->error, s, strlen(s));
	}
	if (l->holds)
		text_clean(l->last, sizeof l->last, l->text, strlen(l->text));
	else
		log_child(&l->from, l->text);
}

/* False when there is nothing to be had. */
static bool take(struct lines *l)
{
	char buf[1024];
	ssize_t n = read(l->fd, buf, sizeof buf);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		ipc_watch_enable(l->watch, false);
		return false;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n' || l->len == sizeof l->text - 1)
			line(l);
		if (buf[i] != '\n')
			l->text[l->len++] = buf[i] ? buf[i] : '?';
	}
	return true;
}

static void on_readable(void *ctx)
{
	take(ctx);
}

int lines_open(struct lines *l, struct ipc_loop *loop, const char *name, bool shown, int *write_end)
{
	int fds[2];

	memset(l, 0, sizeof *l);
	l->fd = -1;
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	l->watch = ipc_watch_fd(loop, fds[0], IPC_READ, on_readable, l);
	if (!l->watch) {
		close(fds[0]);
		close(fds[1]);
		return -ENOMEM;
	}
	l->from = (struct log_source){.name = name, .limit = LOG_LIMIT_INIT(LOG_SOURCE_BURST), .shown = shown};
	l->fd = fds[0];
	*write_end = fds[1];
	return 0;
}

void lines_take(struct lines *l)
{
	for (int i = 0; i < TAKE_MAX && l->watch && take(l); i++)
		;
}

void lines_close(struct lines *l)
{
	if (!l->watch)
		return;
	lines_take(l);
	if (l->len)
		line(l);
	ipc_watch_free(l->watch);
	close(l->fd);
	l->watch = NULL;
	l->fd = -1;
}
