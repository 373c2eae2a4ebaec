/*
 * Why the host would not, in words that say what to change.  See cause.c.
 */
#ifndef HVX_MONITOR_CAUSE_H
#define HVX_MONITOR_CAUSE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Looks for what a start would fail of for a cause that its error does not tell: no /proc, no /dev/null, a limit on
 * files, on descriptors (@descriptors are needed; the soft limit is raised where it may be) or on address space
 * that is too small for @ram bytes.  0, or -1 with a line in @err.
 */
int cause_check(uint64_t ram, unsigned descriptors, char *err, size_t len);

/* What @error means for a process or descriptor that could not be had: the limit that may be behind it, and its value. */
const char *cause_text(int error, char *buf, size_t len);

/* A file's text, 64 KiB at most, which the caller frees; NULL when it cannot be read. */
char *cause_read_file(const char *path);

/* The memory cgroup that we and our children are in. */
struct cause_cgroup {
	int events;     /* its counters; -1: none can be had */
	uint64_t kills; /* when we looked last */
	uint64_t limit; /* bytes, its own or the least of those around it; UINT64_MAX: none */
};
void cause_cgroup_open(struct cause_cgroup *c);
/* A descriptor that tells how much memory our cgroup uses, another (memory.stat) of what kinds, -1: it cannot be told; and the
 * limit, UINT64_MAX: none. */
int cause_cgroup_usage(uint64_t *limit, int *stat);
void cause_cgroup_close(struct cause_cgroup *c);

/* After one of ours died of SIGKILL that was not ours: "out of memory: ..." where the kernel has counted one, else "". */
const char *cause_killed(struct cause_cgroup *c, char *buf, size_t len);

/* For tests: where /sys/fs/cgroup is mounted as @mountinfo tells, and the directory of the group that @cgroup (a
 * /proc/self/cgroup) names for @controller.  0, or -1 when there is none. */
int cause_cgroup_dir(const char *mountinfo, const char *cgroup, const char *controller, char *dir, size_t len,
		     int *version);

#endif
