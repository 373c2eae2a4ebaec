/*
 * openat2(2) with RESOLVE_BENEATH, and the same by hand where the kernel has none or a container's filter refuses it.
 * Invariant: whatever is renamed meanwhile, no step leaves the folder: by hand ".." goes back to a directory that is held
 * open, never through the file system.
 */
#include "monitor/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINKS_MAX 40 /* as in the kernel */
#define DEPTH_MAX 64
#define RACES_MAX 16 /* the kernel says EAGAIN when somebody renames beside a ".." */

struct walk {
	int fd[DEPTH_MAX]; /* directories from the folder down; the first is not ours */
	unsigned depth, links;
	char rest[PATH_MAX]; /* what is left to walk */
};

/* The next name of w->rest into @name; false: there is none.  *last: nothing but slashes is behind it. */
static bool next_name(struct walk *w, char name[NAME_MAX + 1], bool *last, int *error)
{
	size_t skip = strspn(w->rest, "/"), n = strcspn(w->rest + skip, "/");

	if (!n)
		return false;
	if (n > NAME_MAX) {
		*error = -ENAMETOOLONG;
		return false;
	}
	memcpy(name, w->rest + skip, n);
	name[n] = '\0';
	memmove(w->rest, w->rest + skip + n, strlen(w->rest + skip + n) + 1);
	*last = !w->rest[0];
	return true;
}

static int up(struct walk *w)
{
	if (!w->depth)
		return -EXDEV;
	close(w->fd[w->depth--]);
	return 0;
}

/* The link's text comes before what is left. */
static int follow(struct walk *w, int link)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(link, "", text, sizeof text - 1);

	if (n < 0)
		return -errno;
	text[n] = '\0';
	if (text[0] == '/')
		return -EXDEV;
	if (++w->links > LINKS_MAX)
		return -ELOOP;
	size_t k = strlen(w->rest);
	if ((size_t)n + k + 2 > sizeof w->rest)
		return -ENAMETOOLONG;
	memmove(w->rest + n + 1, w->rest, k + 1);
	memcpy(w->rest, text, (size_t)n);
	w->rest[n] = '/';
	if (!k)
		w->rest[n] = '\0';
	return 0;
}

/* One name that is neither "." nor "..".  A descriptor: the walk ends with it; -EAGAIN: it goes on. */
static int step(struct walk *w, const char *name, bool last)
{
	struct stat st;
	int fd = openat(w->fd[w->depth], name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int rc = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;

	if (!rc && S_ISLNK(st.st_mode)) {
		rc = follow(w, fd);
	} else if (!rc && last) {
		return fd;
	} else if (!rc && !S_ISDIR(st.st_mode)) {
		rc = -ENOTDIR;
	} else if (!rc && w->depth + 1 == DEPTH_MAX) {
		rc = -ENAMETOOLONG;
	} else if (!rc) {
		w->fd[++w->depth] = fd;
		return -EAGAIN;
	}
	if (fd >= 0)
		close(fd);
	return rc ? rc : -EAGAIN;
}

static int walk(int dir, const char *path)
{
	struct walk w = {.fd = {dir}};
	char name[NAME_MAX + 1];
	bool last = false;
	int rc = -EAGAIN, error = 0;

	if (path[0] == '/')
		return -EXDEV;
	if (strlen(path) >= sizeof w.rest)
		return -ENAMETOOLONG;
	memcpy(w.rest, path, strlen(path) + 1);
	while (rc == -EAGAIN && next_name(&w, name, &last, &error)) {
		if (!strcmp(name, ".."))
			rc = up(&w) ?: -EAGAIN;
		else if (strcmp(name, "."))
			rc = step(&w, name, last);
	}
	if (rc == -EAGAIN) /* it ends with a directory */
		rc = error ? error : fcntl(w.fd[w.depth], F_DUPFD_CLOEXEC, 3);
	while (w.depth)
		close(w.fd[w.depth--]);
	return rc;
}

int beneath_open(int dir, const char *path, bool by_hand)
{
	const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
	long fd = -1;

	errno = ENOSYS;
	for (int i = 0; i < RACES_MAX && !by_hand; i++) {
		fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	if (fd >= 0)
		return (int)fd;
	return errno == ENOSYS || errno == EPERM || errno == EAGAIN ? walk(dir, path) : -errno;
}

/* ---- folders ---- */

int beneath_root_open(struct beneath_root *r, const char *folder)
{
	char cwd[PATH_MAX] = "";

	r->given[0] = r->real[0] = '\0';
	r->dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (r->dir < 0 || !realpath(folder, r->real) || (folder[0] != '/' && !getcwd(cwd, sizeof cwd)))
		return -errno;
	int n = snprintf(r->given, sizeof r->given, "%s%s%s", cwd, cwd[0] ? "/" : "", folder);
	return n < 0 || (size_t)n >= sizeof r->given ? -ENAMETOOLONG : 0;
}

void beneath_root_close(struct beneath_root *r)
{
	if (r->dir >= 0)
		close(r->dir);
	r->dir = -1;
}

static const char *rest_behind(const char *root, const char *path)
{
	size_t n = strlen(root);

	while (n && root[n - 1] == '/')
		n--;
	if (!root[0] || strncmp(path, root, n) || path[n] != '/')
		return NULL;
	return path + n + strspn(path + n, "/");
}

const char *beneath_root_rest(const struct beneath_root *r, const char *path)
{
	const char *rest = rest_behind(r->real, path);

	return rest ? rest : rest_behind(r->given, path);
}
