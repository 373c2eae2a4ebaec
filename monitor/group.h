/*
 * The control groups of one VM.  See group.c.
 */
#ifndef HVX_MONITOR_GROUP_H
#define HVX_MONITOR_GROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum group_knob { GROUP_CPU, GROUP_WEIGHT, GROUP_MEMORY, GROUP_PIDS, GROUP_KNOBS };
#define GROUP_BIT(k) (1u << (k))
#define GROUP_DIRS   3 /* of version 1: cpu, memory, pids */

struct group_dir {
	char path[PATH_MAX];
	int home;    /* cgroup.procs of the group around it, where we came from */
	int subtree; /* version 2: the same group's cgroup.subtree_control; -1 */
};

struct group {
	struct group_dir dir[GROUP_DIRS];
	unsigned ndirs;
	int knob[GROUP_KNOBS]; /* descriptors, -1: there is none */
	int version[GROUP_KNOBS];
	bool privilege;        /* to leave takes CAP_DAC_OVERRIDE: the root of a hierarchy is not even its owner's to write */
	char record[PATH_MAX]; /* the file that names the directories while they are there; empty */
};

/* Where this process is: /proc/self/mountinfo and /proc/self/cgroup. */
struct group_host {
	const char *mountinfo, *cgroup;
};

void group_init(struct group *g);

/*
 * Moves this process, and what it starts from now on, into groups of its own called @leaf, below those it is in, as far as
 * that is possible for the GROUP_BIT()s of @want.  Returns the bits that can be set; @err says why others cannot.
 * @record names a file to be, for group_sweep().
 */
unsigned group_enter(struct group *g, const struct group_host *h, const char *leaf, const char *record, unsigned want,
		     char *err, size_t len);
/* The same for this host as it is. */
unsigned group_enter_here(struct group *g, const char *leaf, const char *record, unsigned want, char *err, size_t len);

/* CPU: percent; weight: 100 is usual; memory: bytes; pids.  0: none.  0 or a negative error.  Writes to descriptors only. */
int group_set(const struct group *g, enum group_knob k, uint64_t value);

/* Back to where we came from, and the directories are removed: nobody else may be in them.  Opens nothing. */
void group_leave(struct group *g);

/* Removes the directories that @record names, and the file, when their owner was killed.  0: nothing of them is left. */
int group_sweep(const char *record);

#endif
