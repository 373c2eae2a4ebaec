/*
 * The device's side of virtio, below what the guest sees of it on its bus (vcpu/chipset/virtio_pci): one state
 * machine behind every device, in a process of its own (devices/device.c) or on a thread of the vcpu process
 * (vcpu/local/local.c).  See virtio_dev.c.
 */
#ifndef HVX_VIRTIO_DEV_H
#define HVX_VIRTIO_DEV_H

#include <stdbool.h>
#include <stdint.h>

#include "common/gmem.h"
#include "devices/virtq.h"
#include "proto/pack.h"

struct virtio_dev;

/* What differs between the two.  All calls come from the device's one thread. */
struct virtio_port {
	/* Stop taking work; virtio_dev_reset_done() when nothing is in flight, at once or later. */
	void (*reset)(struct virtio_dev *v);
	/* The driver hears that the reset is done. */
	void (*reset_done)(struct virtio_dev *v);
	/* DRIVER_OK, and the rings are good. */
	void (*activated)(struct virtio_dev *v);
	/* NEEDS_RESET. */
	void (*broken)(struct virtio_dev *v, const char *why);
	/* Used buffers in these queues (a bit each) that the driver wants to hear of. */
	void (*interrupt)(struct virtio_dev *v, uint32_t queues);
	/* Has the vcpu drop what it translated from v->range[0..nranges).  True: that is done, it was waited for.  False:
	 * virtio_dev_flushed() will be called, and v->range stays as it is until then. */
	bool (*flush)(struct virtio_dev *v);
};

struct virtio_range {
	uint64_t gpa, len; /* within a page, but for virtio_dev_wrote_range() */
};

/* Of one queue at most so many at once: elements on three stretches of up to 17 pages in all, index, wish. */
#define VIRTIO_RING_RANGES (MSG_QUEUES_MAX * 24)

struct virtio_dev {
	/* set once, before anything else */
	const struct virtio_port *port;
	const struct gmem *mem;
	unsigned slot; /* of this thread (proto/shm.h) */
	const struct msg_virtio_offer *offer;
	struct virtio_range *range; /* room for @max_ranges */
	unsigned max_ranges;
	/* for the kinds to read */
	uint64_t features; /* as negotiated */
	bool active, broken, resetting;
	struct virtq queue[MSG_QUEUES_MAX];
	struct {
		uint64_t resets, broken, flushes;
	} n;
	/* virtio_dev.c's own */
	bool inside; /* gmem's epoch, under @parity */
	unsigned parity;
	bool flushing;       /* flush() has said false */
	bool waiting;        /* flush() waits, in the middle of a piece of work */
	bool reset_asked;    /* meanwhile */
	bool has_activation; /* likewise, or while resetting */
	/* a bit a queue: used elements that were put; that a flush holds back; interrupts that one holds back */
	uint32_t unpublished, held, owed;
	uint32_t wished; /* the wish of these queues is among the ranges */
	unsigned nranges;
	struct msg_virtio_activate activation;
};

/* From here to virtio_dev_leave() pointers to guest memory hold: a batch.  What touches a ring enters by itself; whoever only
 * reads or writes a chain's data calls it.  The thread's loop leaves when it has nothing more to do. */
void virtio_dev_enter(struct virtio_dev *v);
void virtio_dev_leave(struct virtio_dev *v);

/* DRIVER_OK, now or when the reset that is under way is done.  0, or -EPROTO: it is active already, or has no such queue. */
int virtio_dev_activate(struct virtio_dev *v, const struct msg_virtio_activate *m);
/* From here on no new work; virtio_port.reset() now, or from virtio_dev_go_on() when a flush is waited for. */
void virtio_dev_reset(struct virtio_dev *v);
void virtio_dev_go_on(struct virtio_dev *v);
void virtio_dev_reset_done(struct virtio_dev *v);
/* The driver broke the rules: told and counted once a life. */
void virtio_dev_broken(struct virtio_dev *v, const char *why);

/* May chains of @queue be taken? */
static inline bool virtio_dev_ready(const struct virtio_dev *v, unsigned queue)
{
	return v->active && !v->broken && v->queue[queue].enabled;
}
/* virtq_get(), or false also when the queue is not ready or turns out to be broken. */
bool virtio_dev_get(struct virtio_dev *v, unsigned queue, struct virtq_chain *c);
/* virtq_put(); the guest sees it after virtio_dev_publish(). */
void virtio_dev_put(struct virtio_dev *v, unsigned queue, uint16_t head, uint32_t written);
/* virtq_quiet() and virtq_listen(), which write into the ring. */
void virtio_dev_quiet(struct virtio_dev *v, unsigned queue);
bool virtio_dev_listen(struct virtio_dev *v, unsigned queue);

/* @len bytes of these pieces were written: full fence, dirty bits, and ranges for those with translated code (design of the order
 * rule: hvx-internals(7)).  A port that does not wait in flush() sees to it that there is room, and leaves VIRTIO_RING_RANGES for the rings. */
void virtio_dev_wrote(struct virtio_dev *v, const struct virtq_seg *seg, unsigned n, uint64_t len);
/* The same for whole pages, as one range. */
void virtio_dev_wrote_range(struct virtio_dev *v, uint64_t gpa, uint64_t len);
static inline bool virtio_dev_room(const struct virtio_dev *v, unsigned n)
{
	return v->nranges + n <= v->max_ranges;
}
/* Drops the translations of what was noted; true: none are left. */
bool virtio_dev_flush(struct virtio_dev *v);
/* What flush() began is done: publishes what it held back. */
void virtio_dev_flushed(struct virtio_dev *v);
/* Shows the guest what was put into @queues (a bit each), after the flush of all that was written, and interrupts it where
 * it asks for that. */
void virtio_dev_publish(struct virtio_dev *v, uint32_t queues);

#endif
