/*
 * Token buckets: operations and bytes a second with bursts.  See limit.c.
 */
#ifndef HVX_LIMIT_H
#define HVX_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/pack.h"

struct limit {
	struct msg_dev_limits set;
	uint64_t last_ns;
	__int128 ops,
		bytes; /* tokens, in billionths; bytes may be in debt.  Integers: hvx-vcpu has no vector registers */
	uint64_t throttled; /* how often work had to wait */
};

void limit_set(struct limit *l, const struct msg_dev_limits *set, uint64_t now_ns);
/* May one operation of @bytes start now?  True: the tokens are taken.  False: *wait_ns tells how long to wait. */
bool limit_take(struct limit *l, uint64_t bytes, uint64_t now_ns, uint64_t *wait_ns);
/* What was let through counts as so many operations, or bytes, more. */
void limit_owe(struct limit *l, uint64_t ops);
void limit_owe_bytes(struct limit *l, uint64_t bytes);

#endif
