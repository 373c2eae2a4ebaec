/*
 * Causes of failure that are the host's, found out before they are met, or afterwards from what the kernel counts.
 * Invariant: nothing is guessed: each line names a limit that was read, with its value.
 */
#include "monitor/cause.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define ENGINE_SPACE (400ull << 20) /* what a process of ours maps beside the guest's memory, at least */
#define NO_LIMIT_V1  (1ull << 60)   /* v1 says "none" by a number near 2^63 */
#define FILE_MAX     65536

/* "512 bytes", "64 MiB" */
static const char *size_text(uint64_t n, char *buf, size_t len)
{
	if (n >= 1 << 20 && n % (1 << 20) == 0)
		snprintf(buf, len, "%llu MiB", (unsigned long long)n >> 20);
	else if (n >= 1 << 10 && n % (1 << 10) == 0)
		snprintf(buf, len, "%llu KiB", (unsigned long long)n >> 10);
	else
		snprintf(buf, len, "%llu bytes", (unsigned long long)n);
	return buf;
}

/* ---- before ---- */

static int check_space(int what, const char *name, const char *option, uint64_t need, char *err, size_t len)
{
	struct rlimit r;
	char a[32], b[32];

	if (getrlimit(what, &r) < 0)
		return 0;
	r.rlim_cur = r.rlim_max; /* as much as there is */
	setrlimit(what, &r);
	if (r.rlim_max == RLIM_INFINITY || r.rlim_max >= need)
		return 0;
	snprintf(err, len, "the limit %s (ulimit %s) is %s: this VM needs %s", name, option,
		 size_text(r.rlim_max, a, sizeof a), size_text(need, b, sizeof b));
	return -1;
}

static int check_descriptors(unsigned need, char *err, size_t len)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= need)
		return 0;
	if (r.rlim_max >= need) {
		r.rlim_cur = need;
		return setrlimit(RLIMIT_NOFILE, &r);
	}
	snprintf(err, len, "the limit RLIMIT_NOFILE (ulimit -n) is %llu: this VM needs %u",
		 (unsigned long long)r.rlim_max, need);
	return -1;
}

int cause_check(uint64_t ram, unsigned descriptors, char *err, size_t len)
{
	char self[8];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0) {
		snprintf(err, len, "/dev/null: %s", strerror(errno));
		return -1;
	}
	close(null);
	if (readlink("/proc/self/exe", self, sizeof self) < 0) {
		snprintf(err, len, "/proc is not mounted here, or is not that of this process: %s", strerror(errno));
		return -1;
	}
	if (check_space(RLIMIT_FSIZE, "RLIMIT_FSIZE", "-f", ram, err, len) ||
	    check_space(RLIMIT_AS, "RLIMIT_AS", "-v", ram + ENGINE_SPACE, err, len))
		return -1;
	return check_descriptors(descriptors, err, len);
}

/* ---- cgroups ---- */

char *cause_read_file(const char *path)
{
	char *s = malloc(FILE_MAX);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t k = 0;

	while (s && fd >= 0 && n < FILE_MAX - 1 && (k = read(fd, s + n, FILE_MAX - 1 - n)) > 0)
		n += (size_t)k;
	if (fd >= 0)
		close(fd);
	if (fd < 0 || k < 0) {
		free(s);
		return NULL;
	}
	if (s)
		s[n] = '\0';
	return s;
}

/* Is @word one of the comma-separated @list? */
static bool listed(const char *list, size_t n, const char *word)
{
	size_t w = strlen(word);

	for (const char *p = list, *end = list + n; p < end;) {
		size_t k = strcspn(p, ",");
		if (k > (size_t)(end - p))
			k = (size_t)(end - p);
		if (k == w && !strncmp(p, word, w))
			return true;
		p += k + 1;
	}
	return false;
}

/* "4:memory:/path" for version 1, "0::/path" for 2. */
static bool group_line(const char *line, size_t n, const char *controller, int version, char *path, size_t len)
{
	const char *a = memchr(line, ':', n), *b = a ? memchr(a + 1, ':', n - (size_t)(a + 1 - line)) : NULL;

	if (!b)
		return false;
	bool hit = version == 2 ? b == a + 1 && a == line + 1 && line[0] == '0'
				: listed(a + 1, (size_t)(b - a - 1), controller);
	if (hit)
		snprintf(path, len, "%.*s", (int)(n - (size_t)(b + 1 - line)), b + 1);
	return hit;
}

static bool find_group(const char *cgroup, const char *controller, int version, char *path, size_t len)
{
	for (const char *p = cgroup; *p;) {
		size_t n = strcspn(p, "\n");
		if (group_line(p, n, controller, version, path, len))
			return true;
		p += n + (p[n] == '\n');
	}
	return false;
}

/* Field 4 is the root of the mount, 5 its place; behind " - " kind, source, options. */
static bool mount_line(char *line, const char *controller, int version, char *root, char *place, size_t len)
{
	char kind[32], options[512];
	char *tail = strstr(line, " - ");

	if (!tail || sscanf(tail, " - %31s %*s %511s", kind, options) != 2)
		return false;
	if (strcmp(kind, version == 2 ? "cgroup2" : "cgroup"))
		return false;
	if (version == 1 && !listed(options, strlen(options), controller))
		return false;
	char r[PATH_MAX], p[PATH_MAX];
	if (sscanf(line, "%*s %*s %*s %4095s %4095s", r, p) != 2)
		return false;
	return snprintf(root, len, "%s", r) < (int)len && snprintf(place, len, "%s", p) < (int)len;
}

static bool find_mount(const char *mountinfo, const char *controller, int version, char *root, char *place, size_t len)
{
	char line[2 * PATH_MAX];

	for (const char *p = mountinfo; *p;) {
		size_t n = strcspn(p, "\n");
		snprintf(line, sizeof line, "%.*s", (int)n, p);
		if (mount_line(line, controller, version, root, place, len))
			return true;
		p += n + (p[n] == '\n');
	}
	return false;
}

int cause_cgroup_dir(const char *mountinfo, const char *cgroup, const char *controller, char *dir, size_t len,
		     int *version)
{
	char group[PATH_MAX], root[PATH_MAX], place[PATH_MAX];

	/* a controller is in one hierarchy only: in version 1 where that has it */
	for (*version = 1; *version <= 2; ++*version) {
		if (!find_group(cgroup, controller, *version, group, sizeof group) ||
		    !find_mount(mountinfo, controller, *version, root, place, sizeof root))
			continue;
		/* in a container the mount shows the group's own part of the tree */
		size_t n = strcmp(root, "/") ? strlen(root) : 0;
		const char *rest = !strncmp(group, root, n) ? group + n : "";
		int k = snprintf(dir, len, "%s%s", place, strcmp(rest, "/") ? rest : "");
		return k > 0 && (size_t)k < len ? 0 : -1;
	}
	return -1;
}

static int own_dir(const char *controller, char *dir, size_t len, int *version)
{
	char *mounts = cause_read_file("/proc/self/mountinfo"), *groups = cause_read_file("/proc/self/cgroup");
	int rc = mounts && groups ? cause_cgroup_dir(mounts, groups, controller, dir, len, version) : -1;

	free(mounts);
	free(groups);
	return rc;
}

/* The number in @file of the group at @dir or of one around it, whichever is least. */
static uint64_t least_limit(char *dir, const char *file, const char *end)
{
	char path[PATH_MAX + 64];
	uint64_t least = UINT64_MAX;

	for (;;) {
		snprintf(path, sizeof path, "%s/%s", dir, file);
		char *s = cause_read_file(path);
		if (s && *s >= '0' && *s <= '9') {
			uint64_t n = strtoull(s, NULL, 10);
			if (n < least && n < NO_LIMIT_V1)
				least = n;
		}
		free(s);
		char *slash = strrchr(dir, '/');
		if (!slash || slash <= dir || strlen(dir) <= strlen(end))
			return least;
		*slash = '\0';
	}
}

#define CGROUP_TOP "/sys/fs/cgroup"

static uint64_t count_kills(int fd)
{
	char text[16384]; /* /proc/vmstat is long */
	ssize_t n = pread(fd, text, sizeof text - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = '\0';
	const char *p = strstr(text, "oom_kill ");
	return p ? strtoull(p + strlen("oom_kill "), NULL, 10) : 0;
}

void cause_cgroup_open(struct cause_cgroup *c)
{
	char dir[PATH_MAX], path[PATH_MAX + 32];
	int version;

	*c = (struct cause_cgroup){.events = -1, .limit = UINT64_MAX};
	if (own_dir("memory", dir, sizeof dir, &version)) {
		c->events = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
		if (c->events >= 0)
			c->kills = count_kills(c->events);
		return;
	}
	snprintf(path, sizeof path, "%s/%s", dir, version == 2 ? "memory.events" : "memory.oom_control");
	c->events = open(path, O_RDONLY | O_CLOEXEC);
	c->limit = least_limit(dir, version == 2 ? "memory.max" : "memory.limit_in_bytes", CGROUP_TOP);
	if (c->events >= 0)
		c->kills = count_kills(c->events);
}

int cause_cgroup_usage(uint64_t *limit, int *stat)
{
	char dir[PATH_MAX], path[PATH_MAX + 32];
	int version;

	*limit = UINT64_MAX;
	*stat = -1;
	if (own_dir("memory", dir, sizeof dir, &version))
		return -1;
	snprintf(path, sizeof path, "%s/%s", dir, version == 2 ? "memory.current" : "memory.usage_in_bytes");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof path, "%s/memory.stat", dir);
	*stat = open(path, O_RDONLY | O_CLOEXEC);
	*limit = least_limit(dir, version == 2 ? "memory.max" : "memory.limit_in_bytes", CGROUP_TOP);
	return fd;
}

void cause_cgroup_close(struct cause_cgroup *c)
{
	if (c->events >= 0)
		close(c->events);
	c->events = -1;
}

const char *cause_killed(struct cause_cgroup *c, char *buf, size_t len)
{
	char size[32];
	uint64_t now = c->events < 0 ? 0 : count_kills(c->events);

	buf[0] = '\0';
	if (now == c->kills || c->events < 0)
		return buf;
	c->kills = now;
	if (c->limit == UINT64_MAX)
		snprintf(buf, len, "out of memory: the host has no more");
	else
		snprintf(buf, len, "out of memory: the limit of its memory cgroup is %s",
			 size_text(c->limit, size, sizeof size));
	return buf;
}

/* ---- after ---- */

static const char *process_limit(char *buf, size_t len)
{
	char dir[PATH_MAX];
	struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY};
	uint64_t pids = UINT64_MAX;
	int version, n = 0;

	getrlimit(RLIMIT_NPROC, &r);
	if (own_dir("pids", dir, sizeof dir, &version) == 0)
		pids = least_limit(dir, "pids.max", CGROUP_TOP);
	n = snprintf(buf, len, "no more processes or threads may be made");
	if (r.rlim_cur != RLIM_INFINITY)
		n += snprintf(buf + n, len - (size_t)n, "; RLIMIT_NPROC (ulimit -u) is %llu",
			      (unsigned long long)r.rlim_cur);
	if (pids != UINT64_MAX && (size_t)n < len)
		snprintf(buf + n, len - (size_t)n, "; the cgroup's pids.max is %llu", (unsigned long long)pids);
	return buf;
}

const char *cause_text(int error, char *buf, size_t len)
{
	struct rlimit r;

	switch (error) {
	case EAGAIN: return process_limit(buf, len);
	case EMFILE:
		getrlimit(RLIMIT_NOFILE, &r);
		snprintf(buf, len, "too many open files: RLIMIT_NOFILE (ulimit -n) is %llu",
			 (unsigned long long)r.rlim_cur);
		return buf;
	default: snprintf(buf, len, "%s", strerror(error)); return buf;
	}
}
