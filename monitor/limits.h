/*
 * What bounds a whole VM: keys, words and numbers.  See limits.c.
 */
#ifndef HVX_MONITOR_LIMITS_H
#define HVX_MONITOR_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/pack.h"

#define LIMITS_CPUS 1024 /* of the host, that --cpu-affinity can name */

/* CPUs of the host, a bit each. */
struct limits_cpus {
	uint64_t bits[LIMITS_CPUS / 64];
};

/*
 * Sets what @key names (cpu-limit, cpu-weight, memory-limit, pids, io-limit, merge-rate) to @value, which may be "none", and its bit in
 * l->given.  0, -ENOENT when there is no such key, -EINVAL with @err filled.
 */
int limits_set(struct msg_vm_limits *l, const char *key, const char *value, char *err, size_t len);

/* Takes those of @to that are given. */
void limits_change(struct msg_vm_limits *l, const struct msg_vm_limits *to);

/* "0-3,8": 0 or -EINVAL. */
int limits_cpus(struct limits_cpus *c, const char *value);

/* This process, and those it starts, on these CPUs only.  0 or a negative error. */
int limits_bind(const struct limits_cpus *c);

/* The nice value that stands for a weight where there is no cgroup: each step is a factor of 1.25, as the scheduler's. */
int limits_nice(uint32_t weight);

/* The part of @io that each of @n disks gets. */
struct msg_dev_limits limits_part(const struct msg_dev_limits *io, unsigned n);

#endif
