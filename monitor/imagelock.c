/*
 * Locks on images: one writer, or any number of readers, of ours and of QEMU's.  Invariant: they are of the open file
 * description, so they last as long as any copy of the descriptor.
 */
#include "monitor/imagelock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* QEMU's locks (block/file-posix.c, as docs/system/qemu-block-drivers tells): a byte that is locked from 100 on is a way in
 * which somebody uses the file, one from 200 on a way in which somebody lets nobody use it. */
#define QEMU_USES   100
#define QEMU_DENIES 200
enum { QEMU_READ = 0, QEMU_WRITE = 1, QEMU_RESIZE = 3 };

/* Byte LOCK_BASE is the lock itself; a writer takes all bytes before it too, which keeps QEMU away.
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
void image_lock_holder(int fd, char *s, size_t len)
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

/* As QEMU locks what it only reads: it reads consistently, and lets nobody write or change the size; and it looks whether
 * anybody does (a writer that shares nothing has all of these bytes, ours or QEMU's). */
static int take_shared(int fd)
{
	static const off_t mine[] = {QEMU_USES + QEMU_READ, QEMU_DENIES + QEMU_WRITE, QEMU_DENIES + QEMU_RESIZE,
				     LOCK_BASE};
	static const off_t theirs[] = {QEMU_DENIES + QEMU_READ, QEMU_USES + QEMU_WRITE, QEMU_USES + QEMU_RESIZE};
	struct flock l;
	int rc = 0;

	for (size_t i = 0; i < sizeof mine / sizeof mine[0] && !rc; i++)
		rc = lock(fd, F_OFD_SETLK, &l, F_RDLCK, mine[i], 1);
	for (size_t i = 0; i < sizeof theirs / sizeof theirs[0] && !rc; i++) {
		rc = lock(fd, F_OFD_GETLK, &l, F_WRLCK, theirs[i], 1);
		if (!rc && l.l_type != F_UNLCK)
			rc = -EBUSY;
	}
	return rc;
}

static void unlock(int fd)
{
	struct flock l;

	lock(fd, F_OFD_SETLK, &l, F_UNLCK, 0, 0);
}

/* -EBUSY when somebody else has it. */
static int take_lock(int fd, bool write)
{
	struct flock l;
	int rc = write ? lock(fd, F_OFD_SETLK, &l, F_WRLCK, 0, LOCK_NAMES) : take_shared(fd);

	if (!rc)
		rc = lock(fd, F_OFD_SETLK, &l, F_RDLCK, LOCK_NAMES + getpid(), 1);
	if (rc)
		unlock(fd);
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
int image_lock(int fd, bool write)
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
