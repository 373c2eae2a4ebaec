/*
 * What bounds a VM, and who keeps it.  See bound.c.
 */
#ifndef HVX_MONITOR_BOUND_H
#define HVX_MONITOR_BOUND_H

#include <stdbool.h>

#include "monitor/group.h"
#include "proto/pack.h"

struct ipc_watch;
struct machine;

struct bound {
	struct group group;
	unsigned kept;           /* GROUP_BIT()s that the groups keep */
	char why[200];           /* not the others */
	bool rlimits;            /* they keep the memory */
	bool vcpu;               /* it keeps the CPU limit, and is told what other processes use */
	uint64_t charged_ns;     /* of that */
	struct ipc_watch *timer; /* for that */
};

/* Before the first child: groups, priority, CPUs.  0, or an exit status, logged. */
int bound_start(struct machine *m);
/* The vcpu has its configuration. */
int bound_vcpu(struct machine *m);
/* Of RLIMIT_DATA, for a child of @role, or a tool, ROLE_CLIENT; 0: its own seal's limit is enough. */
uint64_t bound_data(const struct machine *m, enum msg_role role);
/* The limits of a disk of the configuration: its own, or, in @part, its part of the VM's. */
const struct msg_dev_limits *bound_disk(const struct machine *m, unsigned disk, struct msg_dev_limits *part);
/* 0, or a negative error with @err filled: what could not be changed is as it was. */
int bound_change(struct machine *m, const struct msg_vm_limits *to, char *err, size_t len);
void bound_status(const struct machine *m, struct msg_status *s);
/* No child is left. */
void bound_end(struct machine *m);

#endif
