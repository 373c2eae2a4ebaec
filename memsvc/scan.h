/*
 * Going over the pages of all VMs of a group in search of equal ones, at a rate.  See scan.c.
 */
#ifndef HVX_MEMSVC_SCAN_H
#define HVX_MEMSVC_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "memsvc/merge.h"

#define SCAN_VMS_MAX  256 /* what a table's value has room for, beside a page */
#define SCAN_RATE     5u  /* percent of a CPU */
#define SCAN_LEVELS   8u  /* the least is so much less */
#define SCAN_PRESSURE 4u  /* so many times as much when the host is short of memory */
#define SCAN_PASS_NS  1000000000u

/* One VM, as it is gone over. */
struct scan_vm {
	struct merge *m; /* NULL: a free place */
	uint8_t *map;    /* its RAM; never touched, asked about only */
	uint64_t at;     /* the next page */
	uint64_t alone;  /* pages of this pass that were like no other so far */
	bool passed;     /* done with this pass */
	bool stuck;      /* its vcpus do not let go of pages: nobody waits for it */
};

struct scan {
	struct pool *pool;
	struct table seen; /* pages of this pass that have stood still: VM << 28 | page */
	struct scan_vm vm[SCAN_VMS_MAX];
	unsigned vms, turn;
	unsigned rate, level; /* percent; of SCAN_LEVELS */
	bool pressure;
	int64_t credit_ns;
	uint64_t last_ns;               /* CLOCK_MONOTONIC, when credit was given */
	uint64_t pass_ns;               /* the pass begins no earlier */
	uint64_t pass_min_ns;           /* passes do not begin at shorter intervals: standing still takes time */
	uint64_t passes, found, looked; /* found and looked: in this pass */
};

void scan_init(struct scan *s, struct pool *p, unsigned rate);
void scan_free(struct scan *s);
/* 0, -ENOMEM or -ENOSPC. */
int scan_add(struct scan *s, struct merge *m);
void scan_remove(struct scan *s, const struct merge *m);
struct scan_vm *scan_vm(struct scan *s, const struct merge *m);
/* The group's part of the statistics. */
void scan_stats(const struct scan *s, struct msg_mem_stats *t);
/* What merging may take of a CPU at present, in hundredths of a percent. */
unsigned scan_share(const struct scan *s);

/* Work's CPU time counts against the rate from scan_clock() before it to scan_charge() after it. */
uint64_t scan_clock(void);
void scan_charge(struct scan *s, uint64_t from);
/* As much as the rate allows now; then milliseconds until it is worth to be called again. */
unsigned scan_work(struct scan *s);

#endif
