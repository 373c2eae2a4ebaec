/*
 * A limit on the CPU time of this process, kept by itself.  See throttle.c.
 */
#ifndef HVX_VCPU_THROTTLE_H
#define HVX_VCPU_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/ipc.h"

struct vm;

/* One bucket for all vcpu threads, of CPU time. */
struct throttle_bucket {
	uint64_t percent;         /* 0: no limit */
	int64_t have_ns;          /* may be in debt */
	uint64_t wall_ns, cpu_ns; /* when it was looked at last */
};

struct throttle {
	struct vm *vm;
	struct ipc_watch *tick;
	struct throttle_bucket bucket;
	bool held;
};

/* On the main thread, before the final filter; 0 or a negative error. */
int throttle_init(struct throttle *t, struct ipc_loop *loop, struct vm *vm);
void throttle_limit(struct throttle *t, uint64_t percent);
/* Other processes have used so much of it. */
void throttle_charge(struct throttle *t, uint64_t ns);

/* For tests: the bucket at @wall_ns, when the process has used @cpu_ns in all; true: it is empty. */
bool throttle_look(struct throttle_bucket *b, uint64_t wall_ns, uint64_t cpu_ns);

#endif
