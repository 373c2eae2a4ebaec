/*
 * A root that holds one program: itself, its loader, its libraries and what it cannot do without, each mounted
 * read-only at its own name in an otherwise empty file system; of /proc there is self/exe, and self/fd, the process's own
 * descriptors.
 * Invariant: nothing of the user's is in it; the image's files are there as descriptors that can only be opened anew.
 */
#include "monitor/confine.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int add(struct confine *c, const char *path)
{
	for (unsigned i = 0; i < c->n; i++)
		if (!strcmp(c->file[i], path))
			return 0;
	if (c->n == CONFINE_FILES)
		return -E2BIG;
	c->file[c->n] = strdup(path);
	return c->file[c->n] && ++c->n ? 0 : -ENOMEM;
}

void confine_free(struct confine *c)
{
	while (c->n)
		free(c->file[--c->n]);
}

/* ---- what a program needs ---- */

/* The loader that the program names; 1: it names none, being static. */
static int find_loader(const char *program, char *loader, size_t len)
{
	Elf64_Ehdr h;
	Elf64_Phdr p;
	int fd = open(program, O_RDONLY | O_CLOEXEC), rc = 1;

	if (fd < 0)
		return -errno;
	if (pread(fd, &h, sizeof h, 0) != sizeof h || memcmp(h.e_ident, ELFMAG, SELFMAG) ||
	    h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_phentsize != sizeof p)
		rc = -ENOEXEC;
	for (int i = 0; rc == 1 && i < h.e_phnum; i++) {
		if (pread(fd, &p, sizeof p, (off_t)(h.e_phoff + (size_t)i * sizeof p)) != sizeof p)
			rc = -ENOEXEC;
		else if (p.p_type == PT_INTERP)
			rc = p.p_filesz && p.p_filesz < len &&
					     pread(fd, loader, p.p_filesz, (off_t)p.p_offset) == (ssize_t)p.p_filesz
				     ? 0
				     : -ENOEXEC;
		if (rc == 0)
			loader[p.p_filesz - 1] = '\0';
	}
	close(fd);
	return rc;
}

/* The loader itself says which files it would take: "	libz.so.1 => /lib/libz.so.1 (0x...)". */
static int read_libraries(struct confine *c, int fd)
{
	FILE *f = fdopen(fd, "r");
	char line[PATH_MAX + 64];
	int rc = 0;

	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	while (!rc && fgets(line, sizeof line, f)) {
		char *path = strchr(line, '/');
		char *to = strstr(line, "=> ");
		if (to)
			path = strchr(to, '/');
		if (!path)
			continue;
		path[strcspn(path, " \n")] = '\0';
		rc = add(c, path);
	}
	fclose(f);
	return rc;
}

static int ask_loader(struct confine *c, const char *loader, const char *program)
{
	char *const argv[] = {(char *)(uintptr_t)loader, "--list", (char *)(uintptr_t)program, NULL};
	char *const none[] = {NULL};
	int p[2], ws = 0;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		dup2(null < 0 ? p[1] : null, 0);
		dup2(p[1], 1);
		dup2(null < 0 ? p[1] : null, 2);
		execve(loader, argv, none);
		_exit(127);
	}
	int rc = pid < 0 ? -errno : 0;
	close(p[1]);
	if (rc) {
		close(p[0]);
		return rc;
	}
	rc = read_libraries(c, p[0]);
	if (waitpid(pid, &ws, 0) != pid || !WIFEXITED(ws) || WEXITSTATUS(ws))
		return rc ? rc : -ELIBACC;
	return rc;
}

int confine_find(struct confine *c, const char *program, const char *const *more, char *err, size_t len)
{
	char loader[PATH_MAX];
	int rc = find_loader(program, loader, sizeof loader);

	c->n = 0;
	c->program = program;
	if (rc == 0) {
		rc = add(c, loader);
		if (!rc)
			rc = ask_loader(c, loader, program);
	}
	if (rc >= 0)
		rc = add(c, program);
	for (; *more && !rc; more++)
		if (access(*more, F_OK) == 0)
			rc = add(c, *more);
	if (rc)
		snprintf(err, len, "the files that %s needs: %s", program, strerror(-rc));
	return rc;
}

/* ---- in the child: the root ---- */

/* Every directory of @path, below the new root. */
static int make_directories(const char *path)
{
	char s[PATH_MAX];

	snprintf(s, sizeof s, SANDBOX_NEW_ROOT "%s", path);
	for (char *p = s + sizeof SANDBOX_NEW_ROOT; (p = strchr(p, '/')); p++) {
		*p = '\0';
		if (mkdir(s, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return 0;
}

/* Flags of a mount that a remount in a user namespace must repeat. */
static unsigned long kept_flags(const char *path)
{
	static const struct {
		unsigned long have, flag;
	} map[] = {{ST_NOSUID, MS_NOSUID},   {ST_NODEV, MS_NODEV},           {ST_NOEXEC, MS_NOEXEC},
		   {ST_NOATIME, MS_NOATIME}, {ST_NODIRATIME, MS_NODIRATIME}, {ST_RELATIME, MS_RELATIME}};
	struct statvfs v;
	unsigned long f = 0;

	if (statvfs(path, &v) < 0)
		return 0;
	for (size_t i = 0; i < sizeof map / sizeof map[0]; i++)
		if (v.f_flag & map[i].have)
			f |= map[i].flag;
	return v.f_flag & (ST_NOATIME | ST_RELATIME) ? f : f | MS_STRICTATIME;
}

static int bind(const char *from, const char *to, bool device)
{
	if (mount(from, to, NULL, MS_BIND, NULL) < 0)
		return -errno;
	unsigned long keep = kept_flags(to) | MS_NOSUID | (device ? 0 : MS_NODEV | MS_RDONLY);
	return mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | keep, NULL) < 0 ? -errno : 0;
}

/* The file at @path, at the same name below the new root. */
static int bind_file(const char *path)
{
	char to[PATH_MAX];
	int rc = make_directories(path);

	if (rc)
		return rc;
	snprintf(to, sizeof to, SANDBOX_NEW_ROOT "%s", path);
	int fd = open(to, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444);
	if (fd < 0)
		return -errno;
	close(fd);
	return bind(path, to, !strncmp(path, "/dev/", 5));
}

/* The two names that programs look for, without a /proc that would show other processes. */
static int make_proc(const struct confine *c)
{
	if (mkdir(SANDBOX_NEW_ROOT "/proc", 0755) < 0 || mkdir(SANDBOX_NEW_ROOT "/proc/self", 0755) < 0 ||
	    symlink(c->program, SANDBOX_NEW_ROOT "/proc/self/exe") < 0)
		return -errno;
	if (!c->images)
		return 0;
	if (mkdir(SANDBOX_NEW_ROOT "/proc/self/fd", 0755) < 0)
		return -errno;
	return bind("/proc/self/fd", SANDBOX_NEW_ROOT "/proc/self/fd", false);
}

int confine_root(void *ctx)
{
	const struct confine *c = ctx;
	int rc = 0;

	umask(022); /* whoever the program is, it walks through these directories */
	for (unsigned i = 0; i < c->n && !rc; i++)
		rc = bind_file(c->file[i]);
	if (!rc && mkdir(SANDBOX_NEW_ROOT "/tmp", 0755) < 0) /* where passt goes when it confines itself */
		rc = -errno;
	return rc ? rc : make_proc(c);
}

/* ---- in the child: what Landlock grants ---- */

static void grant(struct sandbox_grant *g, int *n, const char *path, bool write)
{
	int fd = *n >= SANDBOX_GRANTS - CONFINE_IMAGES ? -1 : open(path, O_PATH | O_CLOEXEC);

	if (fd >= 0) /* what is not there needs no rule */
		g[(*n)++] = (struct sandbox_grant){fd, write};
}

/* Without a root of its own the same files, one by one: names in the host's tree lead to nothing else. */
int confine_grants(void *ctx, bool emptied, struct sandbox_grant g[SANDBOX_GRANTS])
{
	const struct confine *c = ctx;
	int n = 0;

	if (emptied)
		grant(g, &n, "/", false);
	for (unsigned i = 0; i < c->n && !emptied; i++)
		grant(g, &n, c->file[i], false);
	grant(g, &n, "/dev/null", true);
	for (unsigned i = 0; i < c->images && n < SANDBOX_GRANTS; i++) {
		int image = fcntl(CONFINE_IMAGE_FD + (int)i, F_DUPFD_CLOEXEC, CONFINE_IMAGE_FD + CONFINE_IMAGES);
		if (image >= 0)
			g[n++] = (struct sandbox_grant){image, c->writable >> i & 1};
	}
	return n;
}
