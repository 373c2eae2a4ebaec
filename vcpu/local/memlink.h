/*
 * The channel to hvx-memsvc: the balloon's requests go there, and what it asks of the vcpus comes from there: that they let go
 * of pages which are to be merged.  See memlink.c.
 */
#ifndef HVX_LOCAL_MEMLINK_H
#define HVX_LOCAL_MEMLINK_H

#include <pthread.h>
#include <stdbool.h>

#include "common/ipc.h"
#include "proto/pack.h"
#include "vcpu/mmu/mmu.h"

enum memlink_state { MEMLINK_QUIET, MEMLINK_ASKED, MEMLINK_DONE };

struct memlink {
	struct vm *vm;
	struct ipc_conn *conn; /* NULL: hvx-memsvc is gone */
	/* the balloon's, NULL: there is none */
	void (*changed)(void *ctx, uint32_t id);
	void (*closed)(void *ctx);
	void *ctx;
	bool stopped; /* no vcpu runs any more */
	int post_fd;  /* eventfd: the vcpus have done what was asked for */
	struct ipc_watch *post;
	/* who had the vm's hook before */
	void (*next_invalidate)(struct vcpu *v, void *ctx);
	/* under the lock */
	pthread_mutex_t lock;
	enum memlink_state state;
	uint64_t done; /* a bit a vcpu */
	struct frame_set set;
	struct msg_mem_withdraw req;
	uint8_t buf[IPC_MAX_DATA];
};

/* Before the final seal; @fd becomes its own.  0 or a negative error. */
int memlink_create(struct memlink *l, struct vm *vm, struct ipc_loop *loop, int fd);
/* The vcpus' threads have ended. */
void memlink_stop(struct memlink *l);
void memlink_free(struct memlink *l);
/* The balloon's request; it must be read. */
void memlink_change(struct memlink *l, const struct msg_mem_change *m);

#endif
