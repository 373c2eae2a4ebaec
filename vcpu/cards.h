/*
 * Cards whose data is moved by a process of their own (hvx-blk, hvx-net): the vcpu's end of the
 * channel (proto/virtio.proto) and of the doorbells (proto/shm.h).  See cards.c.
 */
#ifndef HVX_VCPU_CARDS_H
#define HVX_VCPU_CARDS_H

#include <pthread.h>
#include <stdbool.h>

#include "common/child.h"
#include "proto/shm.h"
#include "vcpu/chipset/ahci.h"
#include "vcpu/chipset/virtio_pci.h"
#include "vcpu/vcpu.h"

struct platform;
struct cards;

enum card_flush { FLUSH_NONE, FLUSH_ASKED, FLUSH_DONE };

struct card {
	struct virtio_pci vp; /* under the platform's lock; */
	struct ahci ahci;     /* or, for a disk behind AHCI, this: */
	bool is_ahci;
	struct cards *all;
	char id[MSG_ID_MAX];
	unsigned slot;
	int channel, kick;
	struct shm_doorbells *bell;
	struct ipc_conn *conn; /* NULL: the device process is gone */
	_Atomic uint32_t routed
		[MSG_CPUS_MAX]; /* queues whose calls this CPU's thread takes; changed under the platform's lock */
	/* posted by the vcpu's thread for the main one, under the platform's lock; in this order */
	bool post_activate, post_config, post_reset;
	struct msg_virtio_activate activation;
	uint32_t config_off, config_len;
	uint32_t generation; /* of the last reset sent */
	/* under cards.lock */
	enum card_flush flush;
	struct msg_virtio_invalidate ranges;
};

struct cards {
	struct child *child;
	struct vm *vm;
	struct ipc_loop *loop;
	struct card *card[MSG_DEVICES_MAX];
	unsigned n;
	/* Reading ends of pipes, one a CPU: something was called for that this CPU's thread is to look at.  All devices hold the
	 * writing ends; what it is stands in each one's own page of doorbells, so a byte says nothing and a device can call for
	 * nobody else. */
	struct card_call {
		struct cards *all;
		int fd;
		bool direct; /* it signals the vcpu's thread; else the main one watches it */
		struct ipc_watch *watch;
	} call[MSG_CPUS_MAX];
	unsigned ncalls;
	int post_fd; /* eventfd: the vcpu's thread has posted something */
	struct ipc_watch *post_watch;
	/* innermost but for the platform's lock */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a reset is done, a flush is asked for */
	bool alone;             /* no vcpu runs any more: the main thread flushes */
};

/* Receives VCPU_CALLS and @n frames VCPU_DEVICE, if @n is not 0, and maps the pages; before the final seal.  Exits when that fails. */
void cards_receive(struct cards *c, struct child *child, unsigned n);
/* Makes the descriptors that need making before the final seal; 0 or a negative error. */
int cards_init(struct cards *c, struct vm *vm, struct ipc_loop *loop);
/* When the vcpus' threads are there, before the final seal: devices' calls go to them. */
void cards_wire(struct cards *c);
/* After the final seal: waits for each device's offer, puts the cards on the bus and watches the channels. */
void cards_start(struct cards *c);

/* @v's thread, which holds it (world.h) and lets it go meanwhile: waits until no device has a reset under way (after
 * platform_reset()). */
void cards_wait_reset(struct cards *c, struct vcpu *v);
/* The vcpu's thread has ended, the platform goes. */
void cards_stop(struct cards *c);

#endif
