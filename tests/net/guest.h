/*
 * Plays the monitor, the vcpu and the guest's driver for one real, sealed hvx-net process.  See guest.c.
 */
#ifndef HVX_TESTS_NET_GUEST_H
#define HVX_TESTS_NET_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/ipc.h"
#include "devices/net/frame.h"
#include "proto/pack.h"
#include "proto/shm.h"

#define RX          0
#define TX          1
#define GUEST_QUEUE 256u
#define PATIENCE    20000 /* ms for what must happen: hosts may be busy */

/* features, virtio 1.2 5.1.3 and 6 */
#define F_CSUM       (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MTU        (1ull << 3)
#define F_GUEST_TSO  (3ull << 7)
#define F_HOST_TSO   (3ull << 11)
#define F_MRG        (1ull << 15)
#define F_STATUS     (1ull << 16)
#define F_MQ         (1ull << 17 | 1ull << 22) /* and the control queue */
#define F_INDIRECT   (1ull << 28)
#define F_EVENT_IDX  (1ull << 29)
#define F_V1         (1ull << 32)
#define F_ALL        (F_V1 | F_CSUM | F_GUEST_CSUM | F_GUEST_TSO | F_HOST_TSO | F_MRG | F_STATUS | F_EVENT_IDX | F_INDIRECT)

struct guest_queue {
	uint8_t *desc;
	uint16_t *avail, *used;
	uint16_t next, seen;
	unsigned desc_next; /* used as one large circle */
};

struct guest {
	struct msg_dev_config cfg; /* to be filled before guest_start() */
	pid_t pid;
	int control, channel, kick, call, ram_fd, ctl_fd;
	uint8_t *ram, *ctl;
	struct shm_layout layout;
	struct shm_doorbells *bell;
	struct msg_virtio_offer offer;
	uint64_t features;
	struct guest_queue q[MSG_QUEUES_MAX];
	unsigned pair; /* 0 or 1: by which it sends, posts and receives */
	uint32_t generation;
	unsigned posted[2]; /* receive buffers so far */
	uint32_t rx_size;
	/* what the device said meanwhile */
	unsigned broken, lost, invalidates, configs;
	struct msg_virtio_config config;
	struct msg_counters stats;
	bool hold; /* do not answer invalidations */
	uint32_t held;
	uint8_t buf[IPC_MAX_DATA];
};

/* One failed check ends the test program. */
#define CHECK(cond)                                                                        \
	do {                                                                               \
		if (!(cond)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

/* Starts hvx-net over @backend (taken), waits for its offer. */
void guest_start(struct guest *g, enum msg_net_backend kind, int backend);
/* The same up to its seal: for a process that does something else from there on (tests/security/taken_over.c). */
void guest_start_sealed(struct guest *g, enum msg_net_backend kind, int backend);
void guest_activate(struct guest *g, uint64_t features);
void guest_reset(struct guest *g); /* and waits for the answer */
/* Ends it by closing the control socket; its exit status as of waitpid(). */
int guest_end(struct guest *g);
void guest_free(struct guest *g); /* after the process has ended: everything else of it */

/* One turn: messages are taken and answered, at most @ms waited for. */
void guest_turn(struct guest *g, int ms);
void guest_command(struct guest *g, enum msg_dev_op op);
void guest_limits(struct guest *g, const struct msg_dev_limits *l);
uint64_t guest_stat(struct guest *g, const char *name); /* asks for all counters */

/* Gives @n receive buffers of g->rx_size bytes. */
void guest_post(struct guest *g, unsigned n);
/* Sends header and frame as a chain of pieces of @piece bytes (0: one); does not wait. */
void guest_send(struct guest *g, const struct vnet_hdr *h, const void *frame, size_t len, size_t piece);
/* A command by queue @n, and its answer; without a place for that (@answer false) 0. */
uint8_t guest_control(struct guest *g, unsigned n, const void *command, uint32_t len, bool answer);
/* Any chain: @gpa and @len of one descriptor. */
void guest_raw(struct guest *g, unsigned q, uint64_t gpa, uint32_t len, uint16_t flags);
void guest_ring(struct guest *g, unsigned q);
/* Waits until everything sent was put back. */
void guest_sent(struct guest *g);
/* The next frame received; its length, or 0 after @ms. */
size_t guest_receive(struct guest *g, struct vnet_hdr *h, uint8_t *frame, size_t room, int ms);

#endif
