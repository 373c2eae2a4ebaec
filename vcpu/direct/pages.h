/* Which guest pages a stub has mapped, and what may stay so.  See pages.c. */
#ifndef HVX_DIRECT_PAGES_H
#define HVX_DIRECT_PAGES_H

#include "vcpu/direct/stub.h"

struct page_entry {
	uint64_t gva; /* | PAGE_*; 0: free */
	uint64_t frame;
};

struct pages {
	struct stub *stub;
	struct page_entry *entry; /* open addressing, PAGES_SLOTS of them */
	unsigned n;
	uint8_t *writers, *runners; /* by frame of RAM: so many entries that may write it, run it */
	uint64_t flushes, stores;   /* what the entries were last compared with */
	uint32_t made, retired;
};

/* 0 or -ENOMEM. */
int pages_init(struct pages *p, struct stub *s, const struct vcpu *v);

/* The address space is another one: nothing is mapped.  False: the stub has died. */
bool pages_clear(struct pages *p, const struct vcpu *v);

/*
 * Before guest code goes on: what the guest's tables no longer allow leaves, what has got translated code is no longer written, what
 * has been written is no longer run.  False: the stub has died.
 */
bool pages_check(struct pages *p, struct vcpu *v);

/*
 * Guest code has met page @gva with a page fault of error code @error: maps it, and neighbours, where the guest's tables allow that;
 * sets A and D.  False: translated code is to see to it, or the stub has died.
 */
bool pages_fault(struct pages *p, struct vcpu *v, uint64_t gva, uint32_t error);

/* A byte of a page that is mapped; -1: it is not. */
int pages_byte(const struct pages *p, const struct vcpu *v, uint64_t gva);

#endif
