/*
 * One VM of hvx-memsvc: its memory, its monitor, its vcpu.  See member.c.
 */
#ifndef HVX_MEMSVC_MEMBER_H
#define HVX_MEMSVC_MEMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/ipc.h"
#include "memsvc/merge.h"
#include "memsvc/ram.h"
#include "memsvc/scan.h"

#define MEMBER_REQUESTS 2 /* of the vcpu at once: one, and that of a reset which comes in between */

enum member_grace {
	MEMBER_GRACE_NONE,    /* to be begun */
	MEMBER_GRACE_PENDING, /* ours is under way */
	MEMBER_GRACE_OVER,
};

struct member {
	struct ram ram;
	struct ipc_loop *loop;
	struct ipc_conn *monitor, *vcpu; /* NULL: hung up; vcpu: or there is none */
	struct ipc_watch *tick;
	bool ends_all;                  /* the monitor's hanging up ends the process: there is only this VM */
	bool leaving;                   /* it has hung up: what is in flight is waited for */
	void (*left)(struct member *m); /* then this is called, and frees it */
	void *owner;
	/* the vcpu's requests that pages be taken, in order: the first waits for a grace period */
	struct msg_mem_change request[MEMBER_REQUESTS];
	unsigned requests, looks;
	/* merging; scan NULL: there is none */
	struct scan *scan;
	struct merge merge;
	bool due;                 /* the batch may begin, however small it is */
	uint32_t asked, answered; /* withdrawals */
	enum member_grace grace;
	unsigned waited; /* ms, about */
	uint8_t buf[IPC_MAX_DATA];
};

/* m->ram is made, the rest zero.  Takes both descriptors over; @vcpu -1: none.  @scan may be NULL.  0 or a negative error;
 * member_free() in either case. */
int member_init(struct member *m, struct ipc_loop *loop, int monitor, int vcpu, struct scan *scan);
void member_free(struct member *m);
/* Begins, or goes on with, what merging has to do. */
void member_merge(struct member *m);

#endif
