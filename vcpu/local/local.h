/*
 * virtio devices that live in this process, on its main thread: what cards.c is for devices with a
 * process of their own.  See local.c.
 */
#ifndef HVX_LOCAL_H
#define HVX_LOCAL_H

#include <pthread.h>
#include <stdbool.h>

#include "common/ipc.h"
#include "devices/virtio_dev.h"
#include "vcpu/chipset/virtio_pci.h"
#include "vcpu/vcpu.h"

#define LOCAL_MAX    4
#define LOCAL_QUEUES 5
/* A request of at most so many bytes touches no more pages than there are ranges (a descriptor a byte, one unaligned page). */
#define LOCAL_BYTES_MAX 4096
#define LOCAL_RANGES    (LOCAL_BYTES_MAX + 1 + VIRTIO_RING_RANGES)

struct platform;
struct local;
struct locals;

/* A kind of device, behind virtio_dev's port for this thread.  All calls come from the main thread; nothing here waits. */
struct local_ops {
	/* Do what can be done (what is put is published afterwards): after a doorbell (d->rung has a bit a queue; take away what has been seen), an
	 * activation, a flush, and after local_again(). */
	void (*work)(struct local *d);
	/* Forget every queue and call virtio_dev_reset_done() when nothing is in flight elsewhere, at once or later. */
	void (*reset)(struct local *d);
	void (*stats)(struct local *d, struct msg_counters *m);
	/* Asks the guest for newer counters: true when locals_fresh() will tell of them.  May be NULL. */
	bool (*refresh)(struct local *d);
};

enum local_flush { LOCAL_FLUSH_NONE, LOCAL_FLUSH_ASKED, LOCAL_FLUSH_DONE };

struct local {
	struct virtio_dev v;  /* its first member; the main thread's */
	struct virtio_pci vp; /* under the platform's lock */
	struct locals *all;
	const struct local_ops *ops;
	const char *id;
	void *priv;
	/* posted by the vcpu's thread, under the platform's lock */
	bool post_activate, post_reset;
	uint32_t post_rung;
	struct msg_virtio_activate activation;
	/* the main thread's */
	bool later;
	unsigned turn; /* chains that work() may still take before others have theirs */
	uint32_t rung; /* a bit a queue */
	struct {
		uint64_t kicks, requests;
	} n;
	/* under locals.lock while it is being asked for */
	enum local_flush flush;
	struct virtio_range range[LOCAL_RANGES];
};

struct locals {
	struct vm *vm;
	struct ipc_loop *loop;
	struct local *dev[LOCAL_MAX];
	unsigned n;
	int post_fd; /* eventfd: something was posted */
	struct ipc_watch *post_watch;
	bool stopped;
	pthread_mutex_t lock; /* taken before the platform's */
	pthread_cond_t changed;
	void (*ready)(void *ctx); /* of locals_refresh(); NULL: nobody waits */
	void *ready_ctx;
	struct ipc_watch *patience;
	/* who had the vm's hook before */
	void (*next_invalidate)(struct vcpu *v, void *ctx);
	struct virtq_chain chain; /* of the device that works just now */
};

/* Before the final seal, after cards_init(); 0 or a negative error. */
int locals_init(struct locals *l, struct vm *vm, struct ipc_loop *loop);
/* Puts a device on the bus at PCI number @slot; d->vp.offer, ops, id and priv are set.  Before the vcpu runs. */
int locals_add(struct locals *l, struct local *d, unsigned slot);
/* The vcpu's thread, after platform_reset(): waits until no device has anything in flight. */
void locals_wait_reset(struct locals *l, struct vcpu *v);
/* The vcpu's thread has ended, the platform goes: no device does anything any more. */
void locals_stop(struct locals *l);
void locals_stats(struct locals *l, struct msg_counters *m);
/* Asks guests for counters that only they know; @ready is called when they have answered, or a little later without an
 * answer.  False: there is nobody to ask, or somebody waits already. */
bool locals_refresh(struct locals *l, void (*ready)(void *ctx), void *ctx);
void locals_fresh(struct locals *l);

/* ---- for the devices ---- */
/* The next chain of a queue in d->all->chain: true; false when there is none, the queue is off, it is others' turn (then
 * work() is called again), or the driver broke the rules (then nothing works until it resets the device). */
bool local_get(struct local *d, unsigned queue);
/* Is there room in the list of ranges for @n more? */
bool local_room(const struct local *d, unsigned n);
void local_again(struct local *d); /* what work() waited for has come: calls it, unless a flush is under way */
void local_config(struct local *d, unsigned off, const void *data, unsigned len); /* the guest is told */
void local_count(struct msg_counters *m, const char *id, const char *name, uint64_t value);
uint64_t local_now(void); /* CLOCK_MONOTONIC, ns */

#endif
