/*
 * Merge groups: the VMs of a user that name the same group share one hvx-memsvc.  See mergegroup.c and keeper.c.
 */
#ifndef HVX_MONITOR_MERGEGROUP_H
#define HVX_MONITOR_MERGEGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "monitor/runtime.h"

/* What a VM has of its group, -1: not yet. */
struct mergegroup_ends {
	int keeper;  /* connection to its keeper: who hears there of memsvc's end */
	int control; /* of the VM's own channel to hvx-memsvc */
	int pool;    /* merged pages, to be read only */
	uint32_t layers, pid;
};

struct mergegroup_wish {
	const char *group, *vm;
	uint64_t ram_size;
	bool strict, debug;
	unsigned rate; /* percent; counts for who is the first */
	int vcpu;      /* memsvc's end of the channel to the vcpu; stays the caller's */
};

/* Finds the group's keeper, or starts one, and joins.  0, or an exit status with @err. */
int mergegroup_join(const struct runtime *r, const struct mergegroup_wish *w, struct mergegroup_ends *e, char *err,
		    size_t len);
/* The directory of the groups' sockets; 0 or a negative error with @err. */
int mergegroup_runtime(const struct runtime *r, struct runtime *g, char *err, size_t len);

/* keeper.c: the process, which does not return.  @lock and @listen are the group's. */
struct keeper_plan {
	const char *group;
	bool strict, debug;
	unsigned rate;
	int lock, listen;
	struct runtime rt;
};
void keeper_run(const struct keeper_plan *p) __attribute__((noreturn));

#endif
