/*
 * Control groups, of version 2 where a controller is there, else of 1.  A VM's group is made below the one that its monitor
 * was started in, so that what bounds that bounds the VM, too; version 2 lets only groups without processes hand controllers
 * down, so there the monitor must have been alone in its group (a unit or scope with Delegate=yes).
 * Invariant: after group_leave() no directory is left, or the record that names it is.
 */
#include "monitor/group.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/cause.h"

#define PERIOD_US 100000
#define PREFIX    "hvx-"

static const struct {
	const char *controller;
	const char *file[2]; /* of version 1, 2 */
} knobs[GROUP_KNOBS] = {
	[GROUP_CPU] = {"cpu", {"cpu.cfs_quota_us", "cpu.max"}},
	[GROUP_WEIGHT] = {"cpu", {"cpu.shares", "cpu.weight"}},
	[GROUP_MEMORY] = {"memory", {"memory.limit_in_bytes", "memory.max"}},
	[GROUP_PIDS] = {"pids", {"pids.max", "pids.max"}},
};

void group_init(struct group *g)
{
	*g = (struct group){.ndirs = 0};
	for (int k = 0; k < GROUP_KNOBS; k++)
		g->knob[k] = -1;
}

static int write_text(int fd, const char *text)
{
	size_t n = strlen(text);

	return write(fd, text, n) == (ssize_t)n ? 0 : errno ? -errno : -EIO;
}

static int open_in(const char *dir, const char *file)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/%s", dir, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int write_in(const char *dir, const char *file, const char *text)
{
	int fd = open_in(dir, file);

	if (fd < 0)
		return fd;
	int rc = write_text(fd, text);
	close(fd);
	return rc;
}

/* ---- the record ---- */

static int record(const struct group *g, const char *dir)
{
	int fd = open(g->record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	int rc = write_text(fd, dir);
	if (!rc)
		rc = write_text(fd, "\n");
	close(fd);
	return rc;
}

/* Only what group_enter() can have made. */
static bool is_ours(const char *path)
{
	const char *slash = strrchr(path, '/');

	return path[0] == '/' && slash && !strncmp(slash + 1, PREFIX, strlen(PREFIX));
}

int group_sweep(const char *file)
{
	char *text = cause_read_file(file), *save = NULL;
	int rc = 0;

	if (!text)
		return 0;
	for (char *dir = strtok_r(text, "\n", &save); dir; dir = strtok_r(NULL, "\n", &save))
		if (is_ours(dir) && rmdir(dir) < 0 && errno != ENOENT)
			rc = -errno;
	free(text);
	if (!rc)
		unlink(file);
	return rc;
}

/* ---- in ---- */

/* 0: the directory is gone. */
static int undo(struct group_dir *d)
{
	if (d->subtree >= 0) { /* a group that hands controllers down takes no process */
		write_text(d->subtree, "-cpu");
		write_text(d->subtree, "-memory");
		write_text(d->subtree, "-pids");
		close(d->subtree);
	}
	if (d->home >= 0) {
		write_text(d->home, "0");
		close(d->home);
	}
	d->home = d->subtree = -1;
	return rmdir(d->path) < 0 && errno != ENOENT ? -errno : 0;
}

/* A directory below @own with this process in it. */
static int make_dir(struct group *g, const char *own, int version, const char *leaf)
{
	struct group_dir *d = &g->dir[g->ndirs];

	d->subtree = -1;
	if (snprintf(d->path, sizeof d->path, "%s/%s", own, leaf) >= (int)sizeof d->path)
		return -ENAMETOOLONG;
	d->home = open_in(own, "cgroup.procs");
	if (d->home < 0)
		return d->home;
	int rc = record(g, d->path);
	if (!rc && mkdir(d->path, 0755) < 0 &&
	    errno != EEXIST) /* a killed monitor's of this name, whose lock we have */
		rc = -errno;
	if (!rc)
		rc = write_in(d->path, "cgroup.procs", "0");
	if (!rc && version == 2)
		d->subtree = open_in(own, "cgroup.subtree_control");
	if (!rc && d->subtree < 0 && version == 2)
		rc = d->subtree;
	if (rc)
		undo(d);
	else
		g->ndirs++;
	struct stat st;
	g->privilege |= !rc && geteuid() == 0 && stat(own, &st) == 0 && !(st.st_mode & 0200);
	return rc;
}

static struct group_dir *find_dir(struct group *g, const char *own, const char *leaf)
{
	size_t n = strlen(own);

	for (unsigned i = 0; i < g->ndirs; i++)
		if (!strncmp(g->dir[i].path, own, n) && g->dir[i].path[n] == '/' &&
		    !strcmp(g->dir[i].path + n + 1, leaf))
			return &g->dir[i];
	return NULL;
}

static bool one_of_words(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = text; p && (p = strstr(p, word)); p += n)
		if ((p == text || p[-1] == ' ') && (!p[n] || p[n] == ' ' || p[n] == '\n'))
			return true;
	return false;
}

static int has_controller(const char *own, const char *controller)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/cgroup.controllers", own);
	char *text = cause_read_file(path);
	bool there = text && one_of_words(text, controller);
	free(text);
	return there ? 0 : -ENOENT;
}

static int enter_one(struct group *g, const struct group_host *h, const char *leaf, enum group_knob k)
{
	char own[PATH_MAX], word[32];
	int version, rc = 0;

	if (cause_cgroup_dir(h->mountinfo, h->cgroup, knobs[k].controller, own, sizeof own, &version))
		return -ENOENT;
	if (version == 2)
		rc = has_controller(own, knobs[k].controller);
	struct group_dir *d = find_dir(g, own, leaf);
	if (!rc && !d) {
		rc = g->ndirs < GROUP_DIRS ? make_dir(g, own, version, leaf) : -ENOSPC;
		d = &g->dir[g->ndirs - 1];
	}
	snprintf(word, sizeof word, "+%s", knobs[k].controller);
	if (!rc && version == 2)
		rc = write_text(d->subtree, word);
	if (rc)
		return rc;
	g->version[k] = version;
	g->knob[k] = open_in(d->path, knobs[k].file[version - 1]);
	if (g->knob[k] >= 0 && k == GROUP_CPU && version == 1)
		write_in(d->path, "cpu.cfs_period_us", "100000");
	return g->knob[k] < 0 ? g->knob[k] : 0;
}

unsigned group_enter(struct group *g, const struct group_host *h, const char *leaf, const char *file, unsigned want,
		     char *err, size_t len)
{
	unsigned got = 0;

	err[0] = '\0';
	snprintf(g->record, sizeof g->record, "%s", file);
	for (int k = 0; k < GROUP_KNOBS; k++) {
		if (!(want & GROUP_BIT(k)))
			continue;
		int rc = enter_one(g, h, leaf, (enum group_knob)k);
		if (!rc)
			got |= GROUP_BIT(k);
		else if (!err[0])
			snprintf(err, len, "%s: %s", knobs[k].controller,
				 rc == -ENOENT  ? "no such controller here"
				 : rc == -EBUSY ? "other processes are in this group"
						: strerror(-rc));
	}
	if (!got)
		group_leave(g);
	return got;
}

unsigned group_enter_here(struct group *g, const char *leaf, const char *file, unsigned want, char *err, size_t len)
{
	char *mounts = cause_read_file("/proc/self/mountinfo"), *groups = cause_read_file("/proc/self/cgroup");
	struct group_host h = {mounts ? mounts : "", groups ? groups : ""};
	unsigned got = group_enter(g, &h, leaf, file, want, err, len);

	free(mounts);
	free(groups);
	return got;
}

/* ---- numbers ---- */

static void cpu_text(char *text, size_t len, int version, uint64_t percent)
{
	uint64_t quota = percent * (PERIOD_US / 100);

	if (version == 2 && percent)
		snprintf(text, len, "%llu %d", (unsigned long long)quota, PERIOD_US);
	else if (version == 2)
		snprintf(text, len, "max %d", PERIOD_US);
	else
		snprintf(text, len, "%lld", percent ? (long long)quota : -1);
}

static void weight_text(char *text, size_t len, int version, uint64_t weight)
{
	if (!weight)
		weight = 100;
	uint64_t shares = weight * 1024 / 100;
	snprintf(text, len, "%llu", (unsigned long long)(version == 2 ? weight : shares < 2 ? 2 : shares));
}

int group_set(const struct group *g, enum group_knob k, uint64_t value)
{
	char text[64];

	if (g->knob[k] < 0)
		return -ENODEV;
	if (k == GROUP_CPU)
		cpu_text(text, sizeof text, g->version[k], value);
	else if (k == GROUP_WEIGHT)
		weight_text(text, sizeof text, g->version[k], value);
	else if (value)
		snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	else
		snprintf(text, sizeof text, "%s", k == GROUP_MEMORY && g->version[k] == 1 ? "-1" : "max");
	errno = 0;
	return write_text(g->knob[k], text);
}

/* ---- out ---- */

void group_leave(struct group *g)
{
	bool left = false;

	for (int k = 0; k < GROUP_KNOBS; k++) {
		if (g->knob[k] >= 0)
			close(g->knob[k]);
		g->knob[k] = -1;
	}
	while (g->ndirs)
		left |= undo(&g->dir[--g->ndirs]) != 0;
	if (g->record[0] && !left)
		unlink(g->record);
	g->record[0] = '\0';
}
