/*
 * Opening disk images.  Invariant: a raw image is never recognised by what is in it, because
 * the guest writes that; and no descriptor leaves here without its lock.
 */
#include "monitor/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/probe.h"

/* Byte LOCK_BASE is the lock itself; its holder takes all bytes before it too, which keeps QEMU away.
 * One byte further on, at its process number, each holder has a shared lock: that is how others name it. */
#define LOCK_BASE  (1ll << 40)
#define LOCK_NAMES (LOCK_BASE + 1)
#define PID_LIMIT  (1ll << 22)
#define LOCK_TRIES 100 /* a hundredth of a second apart */

static int lock(int fd, int cmd, struct flock *l, short type, off_t start, off_t n)
{
	*l = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = n};
	return fcntl(fd, cmd, l) < 0 ? -errno : 0;
}

/* The process that took the lock; 0: it does not tell. */
static int holder(int fd)
{
	struct flock l;

	if (lock(fd, F_OFD_GETLK, &l, F_WRLCK, LOCK_NAMES, PID_LIMIT) || l.l_type == F_UNLCK)
		return 0;
	return (int)(l.l_start - LOCK_NAMES);
}

/* "hvx-monitor, process 12 (--name=web)" as far as the host tells. */
static void name_holder(int fd, char *s, size_t len)
{
	char path[64], text[4096] = "", comm[32] = "a process";
	int pid = holder(fd);

	if (!pid) {
		snprintf(s, len, "another program");
		return;
	}
	snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
	int f = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = f < 0 ? 0 : read(f, text, sizeof text - 1);
	if (f >= 0)
		close(f);
	const char *vm = NULL;
	for (ssize_t i = 0; i < n; i += (ssize_t)strlen(text + i) + 1)
		if (!strncmp(text + i, "--name=", 7))
			vm = text + i + 7;
	const char *base = strrchr(text, '/');
	if (n > 0)
		snprintf(comm, sizeof comm, "%.31s", base ? base + 1 : text);
	snprintf(s, len, "%s, process %d%s%.63s", comm, pid, vm ? ", VM " : "", vm ? vm : "");
}

/* -EBUSY when somebody else has it. */
static int take_lock(int fd, bool write)
{
	struct flock l;
	int rc = lock(fd, F_OFD_SETLK, &l, write ? F_WRLCK : F_RDLCK, 0, LOCK_NAMES);

	if (!rc)
		rc = lock(fd, F_OFD_SETLK, &l, F_RDLCK, LOCK_NAMES + getpid(), 1);
	return rc == -EACCES || rc == -EAGAIN ? -EBUSY : rc;
}

/* A process that has ended has no command line, whether somebody has waited for it or not. */
static bool lives(int pid)
{
	char path[64], c;

	snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool yes = fd >= 0 && read(fd, &c, 1) == 1;
	if (fd >= 0)
		close(fd);
	return yes;
}

/* After a kill the kernel lets go of an io_uring's files a little later than of the process. */
static int wait_for_lock(int fd, bool write)
{
	int rc = take_lock(fd, write);

	for (int i = 0; rc == -EBUSY && i < LOCK_TRIES; i++) {
		int pid = holder(fd);
		if (!pid || lives(pid))
			break; /* somebody has it who lives */
		usleep(10000);
		rc = take_lock(fd, write);
	}
	return rc;
}

static bool named_raw(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && (!strcmp(dot, ".raw") || !strcmp(dot, ".img"));
}

/* format=auto: what is told, or d->format settled. */
static int choose(struct disk_option *d, const struct probe_kind *k, bool ends, bool block, char *err, size_t len)
{
	const char *like = ends ? "ends" : "begins";
	bool raw = named_raw(d->path) || block;

	if (!k && !raw) {
		snprintf(err, len, "disk %s: no known format; if it is a raw image say format=raw", d->path);
		return -EINVAL;
	}
	if (k && k->format == FORMAT_AUTO) {
		snprintf(
			err, len,
			"disk %s: %s like %s, which is not supported: %s, or say format=raw if the guest is to see it as it is",
			d->path, like, k->name, k->way_out);
		return -EINVAL;
	}
	if (k && raw) {
		snprintf(err, len, "disk %s: named like a raw image but %s like %s: say which with format=", d->path,
			 like, k->name);
		return -EINVAL;
	}
	d->format = k ? k->format : FORMAT_RAW;
	return 0;
}

static int settle_format(struct disk_option *d, int fd, bool block, bool write, char *err, size_t len)
{
	static struct probe p; /* large; there is one thread */
	char why[160];
	bool ends;
	int rc = probe_read(&p, fd);

	if (rc) {
		snprintf(err, len, "disk %s: %s", d->path, strerror(-rc));
		return rc;
	}
	const struct probe_kind *k = probe_kind(&p, &ends);
	if (d->format == FORMAT_AUTO)
		rc = choose(d, k, ends, block, err, len);
	if (rc || d->format == FORMAT_RAW)
		return rc;
	if (!probe_like(&p, d->format)) {
		snprintf(err, len, "disk %s: does not begin like its format, %s%s%s", d->path,
			 devopt_format_name(d->format), k ? ", but like " : "", k ? k->name : "");
		return -EINVAL;
	}
	if (!probe_refuses(&p, d->format, write, why, sizeof why))
		return 0;
	snprintf(err, len, "disk %s: %s", d->path, why);
	return -EINVAL;
}

int image_lock(int fd, bool write, char *who, size_t len)
{
	int rc = wait_for_lock(fd, write);

	if (rc == -EBUSY)
		name_holder(fd, who, len);
	return rc;
}

int image_open(struct disk_option *d, int *fd, char *err, size_t len)
{
	bool write = !d->readonly && !d->snapshot;
	struct stat st = {0};
	char holder[160];
	int flags = (write ? O_RDWR : O_RDONLY) | (d->nocache ? O_DSYNC : 0);
	int f = open(d->path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int rc = f < 0 || fstat(f, &st) < 0 ? -errno : 0;

	if (!rc && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		rc = -EINVAL;
	if (rc) {
		snprintf(err, len, "disk %s: %s", d->path,
			 rc == -EINVAL ? "neither a file nor a block device" : strerror(-rc));
		goto out;
	}
	rc = settle_format(d, f, S_ISBLK(st.st_mode), write, err, len);
	if (rc)
		goto out;
	rc = image_lock(f, write, holder, sizeof holder);
	if (rc == -EBUSY) {
		snprintf(err, len, "disk %s: in use by %s", d->path, holder);
	} else if (rc) {
		snprintf(err, len, "disk %s: lock: %s", d->path, strerror(-rc));
	}
out:
	if (rc && f >= 0)
		close(f);
	else if (!rc)
		*fd = f;
	return rc;
}

int image_overlay(void)
{
	const char *dir = getenv("TMPDIR");
	int fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);

	return fd < 0 ? -errno : fd;
}
