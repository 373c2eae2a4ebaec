/*
 * virtio-balloon (virtio 1.2 5.5): pages that the guest gives back leave the host, by hvx-memsvc.
 * See balloon.c.
 */
#ifndef HVX_LOCAL_BALLOON_H
#define HVX_LOCAL_BALLOON_H

#include "common/child.h"
#include "vcpu/local/local.h"
#include "vcpu/local/memlink.h"

/* Tags of the guest's statistics (virtio 1.2 5.5.6.4), and their names in `hvx-monitor stats`. */
#define BALLOON_STATS(X)   \
	X(0, swap_in)      \
	X(1, swap_out)     \
	X(2, major_faults) \
	X(3, minor_faults) \
	X(4, free) X(5, total) X(6, available) X(7, caches) X(8, huge_allocations) X(9, huge_failures)
#define BALLOON_NSTATS 10

struct balloon {
	struct local dev;
	struct memlink *mem;
	/* the request that is being made or answered; pages are guest page numbers here */
	struct msg_mem_change req;
	uint32_t last_id;
	bool waiting;  /* for the answer to last_id */
	bool answered; /* it has come: translations of req's pages are next */
	/* the chain that is being worked on, piece by piece */
	bool current;
	unsigned queue;
	enum msg_mem_op op;
	uint64_t at; /* pages: bytes of the list read; reports: pieces done */
	struct virtq_chain chain;
	/* the buffer of statistics, ours until the guest is to fill it again */
	bool has_stats, want_stats;
	uint16_t stats_head;
	uint32_t stats_known; /* a bit a tag */
	uint64_t stats[BALLOON_NSTATS];
	uint64_t inflated, deflated, reported; /* pages */
};

/* Adds it at PCI number @slot; requests go by @mem.  0 or a negative error. */
int balloon_create(struct balloon *b, struct locals *l, unsigned slot, struct memlink *mem);
/* How much memory the guest is to have: it gives the rest back, or takes it, as it can. */
void balloon_target(struct balloon *b, uint64_t bytes);

#endif
