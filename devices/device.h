/*
 * What every device process does alike: start, seal, the channel to the vcpu, doorbells, limits, counters; virtio_dev's
 * port for a process.  See device.c.
 */
#ifndef HVX_DEVICE_H
#define HVX_DEVICE_H

#include "common/child.h"
#include "common/gmem.h"
#include "devices/limit.h"
#include "devices/virtio_dev.h"
#include "proto/shm.h"

struct device;

/* A kind of device.  All calls come from the one loop. */
struct device_ops {
	/* Rings have work: get chains, put them back.  Called again after every doorbell.  Takes no further chain once
	 * virtio_dev_ready() says no: a reset may arrive within virtio_dev_publish(). */
	void (*work)(struct device *d, unsigned queue);
	/* DRIVER_OK: d->v.features and d->v.queue[] are set; may be NULL. */
	void (*activate)(struct device *d);
	/* Instead of work(), for what has command slots and no queues: these were rung for, also while it is not active. */
	void (*slots)(struct device *d, uint32_t bits);
	/* Stop taking work and call virtio_dev_reset_done() when nothing is in flight, at once or later. */
	void (*reset)(struct device *d);
	void (*config_write)(struct device *d, uint32_t off, const uint8_t *data, uint32_t len); /* may be NULL */
	void (*command)(struct device *d, enum msg_dev_op op);                                   /* may be NULL */
	void (*limits)(struct device *d);                                                        /* may be NULL */
	void (*stats)(struct device *d, struct msg_counters *m); /* adds its own counters */
};

struct device {
	struct virtio_dev v; /* its first member */
	struct child child;
	const struct device_ops *ops;
	struct msg_dev_config cfg;
	int control, fd[DEV_FD_COUNT]; /* the monitor's socket; the rest as DEV_CONFIG brought it */
	struct gmem mem;
	struct shm_doorbells *bell;
	struct ipc_loop *loop;
	struct ipc_conn *monitor, *channel;
	struct msg_virtio_offer offer; /* the kind fills it before device_run() */
	struct limit limit[2];         /* blk: [0]; net: [0] from the guest, [1] to it */
	struct {
		uint64_t kicks, calls;
	} n;
	/* device.c's own */
	struct ipc_watch *tick;
	uint32_t generation; /* of the last reset asked for */
	uint32_t invalidate_id, invalidated;
	struct virtio_range range[MSG_RANGES_MAX];
	void *priv;
};

uint64_t device_now(void); /* CLOCK_MONOTONIC, ns */
/* Appends a counter. */
void device_count(struct msg_counters *m, const char *name, uint64_t value);
/* Does the work of these queues (a bit each) and of what is rung for meanwhile. */
void device_ring(struct device *d, uint32_t bits);

/* Starts the child, receives the configuration, maps memory.  The kind then opens what it needs and fills
 * d->offer. */
void device_start(struct device *d, int argc, char **argv);
/* Final seal, offer to the vcpu, and the loop until the monitor hangs up; the exit status. */
int device_run(struct device *d);
/* Its part after the seal: offer and loop (tests call it without a monitor's child around it). */
int device_serve(struct device *d);

/* Before anything else, in device_start() or by a test that does without it: d->v as this port has it. */
void device_init(struct device *d);
/* New contents of d->offer.config: the vcpu raises a configuration interrupt. */
void device_config_changed(struct device *d);
/* Has CPU @cpu's thread look at the page of doorbells; if there is none, CPU 0's. */
void device_call(struct device *d, unsigned cpu);
void device_event(struct device *d, enum msg_dev_news kind, const char *text);

#endif
