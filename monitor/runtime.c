/*
 * Sockets and locks by VM name.  Invariant: a name belongs to the process that
 * holds the flock on NAME.lock; only that process makes or removes NAME.sock, except
 * leftovers whose lock nobody holds.
 */
#include "monitor/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "monitor/config.h"

static int choose(char *dir, size_t room)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	int n;

	if (geteuid() == 0)
		n = snprintf(dir, room, "/run/hvx");
	else if (xdg && xdg[0] == '/' && stat(xdg, &st) == 0 && st.st_uid == geteuid())
		n = snprintf(dir, room, "%s/hvx", xdg);
	else
		n = snprintf(dir, room, "/tmp/hvx-%u", (unsigned)geteuid());
	return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

int runtime_private(const char *dir, char *err, size_t len)
{
	struct stat st;

	mode_t mask = umask(077); /* whatever it was: we must be able to use it */
	int rc = mkdir(dir, 0700) < 0 && errno != EEXIST ? -errno : 0;
	umask(mask);
	if (rc) {
		snprintf(err, len, "%s: %s", dir, strerror(-rc));
		return rc;
	}
	if (lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (~st.st_mode & 0700)) {
		snprintf(err, len, "%s cannot be used: its mode is %03o, not 700", dir, st.st_mode & 0777);
		return -EACCES;
	}
	if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
		snprintf(err, len, "%s is not a directory of ours that only we may write", dir);
		return -EPERM;
	}
	return 0;
}

int runtime_open(struct runtime *r, char *err, size_t len)
{
	int rc = choose(r->dir, sizeof r->dir);

	if (!rc)
		return runtime_private(r->dir, err, len);
	snprintf(err, len, "the runtime directory's path is too long");
	return rc;
}

void runtime_path(const struct runtime *r, const char *name, const char *suffix, char *buf, size_t room)
{
	snprintf(buf, room, "%s/%s%s", r->dir, name, suffix);
}

int runtime_lock(const struct runtime *r, const char *name)
{
	char path[256];
	struct stat a, b;

	runtime_path(r, name, ".lock", path, sizeof path);
	for (;;) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			int rc = errno == EWOULDBLOCK ? -EEXIST : -errno;
			close(fd);
			return rc;
		}
		/* The last owner may have removed it between our open and our lock. */
		if (fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_ino == b.st_ino)
			return fd;
		close(fd);
	}
}

static int address(const struct runtime *r, const char *name, struct sockaddr_un *sa)
{
	memset(sa, 0, sizeof *sa);
	sa->sun_family = AF_UNIX;
	int n = snprintf(sa->sun_path, sizeof sa->sun_path, "%s/%s.sock", r->dir, name);
	return n < 0 || (size_t)n >= sizeof sa->sun_path ? -ENAMETOOLONG : 0;
}

int runtime_listen(const struct runtime *r, const char *name)
{
	struct sockaddr_un sa;
	char path[256];
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	runtime_path(r, name, ".sock", path, sizeof path);
	unlink(path); /* of a monitor that was killed: the lock is ours */
	int rc = address(r, name, &sa);
	mode_t old = umask(0177);
	if (!rc && (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, 16) < 0))
		rc = -errno;
	umask(old);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

void runtime_remove(const struct runtime *r, const char *name)
{
	char path[256];

	runtime_path(r, name, ".sock", path, sizeof path);
	unlink(path);
	runtime_path(r, name, ".lock", path, sizeof path);
	unlink(path);
}

int runtime_connect(const struct runtime *r, const char *name)
{
	struct sockaddr_un sa;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	const struct timeval patience = {.tv_sec = RUNTIME_PATIENCE};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	int rc = address(r, name, &sa);
	if (!rc && connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		rc = -errno;
	if (!rc)
		return fd;
	close(fd);
	if (rc != -ECONNREFUSED)
		return rc;
	int lock = runtime_lock(r, name);
	if (lock < 0)
		return rc; /* somebody is just starting or ending */
	runtime_remove(r, name);
	close(lock);
	return -ENOENT;
}

int runtime_each(const struct runtime *r, const char *suffix, void (*each)(void *ctx, const char *name), void *ctx)
{
	DIR *d = opendir(r->dir);
	struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		char name[256];
		size_t n = strlen(e->d_name), k = strlen(suffix);
		if (n <= k || n > sizeof name || strcmp(e->d_name + n - k, suffix))
			continue;
		memcpy(name, e->d_name, n - k);
		name[n - k] = '\0';
		if (config_name_ok(name))
			each(ctx, name);
	}
	closedir(d);
	return 0;
}
