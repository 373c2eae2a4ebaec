/*
 * The last VMs of this user, with exit status and cause.  The file has a fixed number of slots of fixed size; a monitor takes
 * the oldest one at its start, while it may still open files, and writes into it once more at its end.
 * Invariant: the file never grows beyond its slots, and a slot of a VM that runs is nobody else's.
 */
#include "monitor/past.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"
#include "monitor/config.h"
#include "monitor/procinfo.h"

#define FILE_NAME "history"

void past_format(const struct past *p, char text[PAST_SLOT + 1])
{
	char cause[sizeof p->cause];

	text_clean(cause, sizeof cause, p->cause, strlen(p->cause));
	int n = snprintf(text, PAST_SLOT + 1, "%llu %lld %lld %d %d %s %s", (unsigned long long)p->seq,
			 (long long)p->started, (long long)p->ended, (int)p->monitor, p->status, p->name, cause);
	if (n > PAST_SLOT - 1)
		n = PAST_SLOT - 1;
	memset(text + n, ' ', (size_t)(PAST_SLOT - 1 - n));
	text[PAST_SLOT - 1] = '\n';
	text[PAST_SLOT] = '\0';
}

bool past_parse(const char *text, struct past *p)
{
	unsigned long long seq;
	long long started, ended;
	int monitor, status, at = 0;

	*p = (struct past){.seq = 0};
	if (strnlen(text, PAST_SLOT) != PAST_SLOT || text[PAST_SLOT - 1] != '\n')
		return false;
	if (sscanf(text, "%20llu %20lld %20lld %10d %3d %63s %n", &seq, &started, &ended, &monitor, &status, p->name,
		   &at) != 6 ||
	    !at || !config_name_ok(p->name) || !seq || monitor <= 0 || status < 0 || status > 255 || started < 0 ||
	    ended < 0)
		return false;
	size_t n = strcspn(text + at, "\n");
	while (n && text[at + (int)n - 1] == ' ')
		n--;
	text_clean(p->cause, sizeof p->cause, text + at, n);
	p->seq = seq;
	p->started = started;
	p->ended = ended;
	p->monitor = monitor;
	p->status = status;
	return true;
}

/* A monitor that nobody has reaped yet is gone, too. */
static bool runs(const struct past *p)
{
	if (p->ended)
		return false;
	char state = procinfo_state(p->monitor);
	return state && state != 'Z' && state != 'X';
}

/* The slots, all of them; those that are none have sequence number 0. */
static void read_all(int fd, struct past all[PAST_SLOTS])
{
	char text[PAST_SLOT + 1];

	for (int i = 0; i < PAST_SLOTS; i++) {
		ssize_t n = pread(fd, text, PAST_SLOT, (off_t)i * PAST_SLOT);
		text[n < 0 ? 0 : n] = '\0';
		if (!past_parse(text, &all[i]))
			all[i].seq = 0;
	}
}

/* The oldest that is not in use, -1: they all are; @last becomes the highest number. */
static int choose(const struct past all[PAST_SLOTS], uint64_t *last)
{
	int best = -1;

	*last = 0;
	for (int i = 0; i < PAST_SLOTS; i++) {
		if (all[i].seq > *last)
			*last = all[i].seq;
		if ((best < 0 || all[i].seq < all[best].seq) && !(all[i].seq && runs(&all[i])))
			best = i;
	}
	return best;
}

static int open_file(const struct runtime *r, int flags)
{
	char path[RUNTIME_PATH_MAX + sizeof FILE_NAME + 1];

	snprintf(path, sizeof path, "%s/" FILE_NAME, r->dir);
	int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	return fd < 0 ? -errno : fd;
}

static int put(int fd, const struct past *p)
{
	char text[PAST_SLOT + 1];

	past_format(p, text);
	return write(fd, text, PAST_SLOT) == PAST_SLOT ? 0 : -EIO;
}

static int take_slot(int fd, struct past *p)
{
	struct past *all = calloc(PAST_SLOTS, sizeof *all);
	uint64_t last;

	if (!all)
		return -ENOMEM;
	read_all(fd, all);
	int slot = choose(all, &last);
	free(all);
	if (slot < 0)
		return -ENOSPC;
	p->seq = last + 1;
	if (lseek(fd, (off_t)slot * PAST_SLOT, SEEK_SET) < 0)
		return -errno;
	int rc = put(fd, p);
	return lseek(fd, (off_t)slot * PAST_SLOT, SEEK_SET) < 0 ? -errno : rc;
}

int past_begin(const struct runtime *r, const char *name, struct past *p)
{
	int fd = open_file(r, O_RDWR | O_CREAT);

	*p = (struct past){.started = time(NULL), .monitor = getpid()};
	snprintf(p->name, sizeof p->name, "%s", name);
	if (fd < 0)
		return fd;
	int rc = flock(fd, LOCK_EX) < 0 ? -errno : take_slot(fd, p);
	flock(fd, LOCK_UN);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

void past_end(int fd, struct past *p, int status, const char *cause)
{
	if (fd < 0)
		return;
	p->ended = time(NULL);
	p->status = status & 255;
	snprintf(p->cause, sizeof p->cause, "%.*s", (int)sizeof p->cause - 1, cause);
	put(fd, p);
	close(fd);
}

static int by_seq(const void *a, const void *b)
{
	const struct past *x = a, *y = b;

	return (x->seq > y->seq) - (x->seq < y->seq);
}

int past_each(const struct runtime *r, void (*each)(void *ctx, const struct past *p, bool lost), void *ctx)
{
	int fd = open_file(r, O_RDONLY);
	struct past *all = calloc(PAST_SLOTS, sizeof *all);

	if (fd >= 0 && all) {
		read_all(fd, all);
		qsort(all, PAST_SLOTS, sizeof *all, by_seq);
		for (int i = 0; i < PAST_SLOTS; i++)
			if (all[i].seq && !runs(&all[i]))
				each(ctx, &all[i], !all[i].ended);
	}
	free(all);
	if (fd >= 0)
		close(fd);
	return fd < 0 && fd != -ENOENT ? fd : 0;
}
