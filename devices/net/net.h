/*
 * A network card: what its front end (front.c) and its back ends share.
 *
 *   guest -> tx queue -> tx_work() -> struct tx_batch -> backend->send()
 *   backend->receive() -> front_rx() -> rx queue -> guest
 */
#ifndef HVX_NET_NET_H
#define HVX_NET_NET_H

#include "devices/device.h"
#include "devices/net/flow.h"
#include "devices/net/frame.h"

/* queues of a pair, virtio 1.2 5.1.2 */
#define NET_RX(pair) (2u * (pair))
#define NET_TX(pair) (2u * (pair) + 1)

#define NET_BATCH     64u  /* frames sent together */
#define NET_HEADS     128u /* their heads, and those of frames that were cut */
#define NET_BATCH_IOV 512u /* pieces of all of them */

struct net;

/* A frame on its way out.  Of its pieces the first is the back end's own (a length, a header), the next the head. */
struct tx_frame {
	struct vnet_hdr h;
	uint32_t len;
	unsigned first, n; /* pieces in tx_batch.iov */
	uint32_t prefix;   /* room for the back end */
};

/* A chain that was taken: its frames, none when it is dropped. */
struct tx_chain {
	uint16_t head;
	unsigned first, n; /* in tx_batch.f */
	unsigned skipped;  /* so many pieces of the frame went out before */
	bool more;         /* and some did not fit into this batch */
	uint64_t *dropped; /* counter */
};

struct tx_batch {
	unsigned n, nchains, nheads, niov;
	struct tx_frame f[NET_BATCH];
	struct tx_chain c[NET_BATCH];
	struct iovec iov[NET_BATCH_IOV];
	uint8_t head[NET_HEADS][FRAME_HEAD];
	uint8_t flat[FRAME_MAX]; /* one frame of very many pieces, or with headers that go far */
	bool flat_used;
};

struct net_backend {
	const char *name;
	unsigned takes;                  /* FRAME_*: offloads it passes on; the front end does the others */
	bool whole;                      /* takes TCP frames larger than any wire's, up to NET_WHOLE_MAX */
	void (*start)(struct net *n);    /* before the final seal */
	void (*activate)(struct net *n); /* features are negotiated; may be NULL */
	/* Sends the first frames of the batch; returns how many are gone.  When not all are, it has called front_tx_block() or
	 * front_lost().  With an empty batch: what it kept from the last one. */
	unsigned (*send)(struct net *n, struct tx_batch *b);
	/* Hands frames to front_rx() until there are none or the front end takes no more. */
	void (*receive)(struct net *n);
	void (*reset)(struct net *n); /* drops what was received and not taken; may be NULL */
};
#define NET_WHOLE_MAX 65535u

/* clang-format off: one a line */
#define NET_COUNTERS(X)                                                                          \
	X(rx_frames)                                                                             \
	X(rx_bytes)                                                                              \
	X(tx_frames)                                                                             \
	X(tx_bytes)                                                                              \
	X(rx_merged)         /* frames of the wire that went to the guest within a larger one */ \
	X(tx_cut)            /* frames cut in pieces here */                                     \
	X(rx_drop_link)      /* the cable is pulled */                                           \
	X(rx_drop_down)      /* no driver */                                                     \
	X(rx_drop_malformed) /* from the back end */                                             \
	X(rx_drop_long)      /* larger than the guest's buffers */                               \
	X(tx_drop_link)                                                                          \
	X(tx_drop_malformed) /* lengths or offloads that make no sense */                        \
	X(tx_drop_refused)   /* by the back end */                                               \
	X(rx_waits)          /* times the guest had no buffers */                                \
	X(tx_waits)          /* times the back end took nothing */
/* clang-format on */

struct net {
	struct device d;
	const struct net_backend *be;
	void *be_state;
	int fd; /* of the back end */
	struct ipc_watch *in, *out, *tx_timer, *rx_timer;
	bool watching; /* @in is enabled */
	bool link_up, lost;
	unsigned rx_takes, tx_takes; /* FRAME_*, as negotiated */
	bool mrg;
	unsigned npairs, pairs; /* that the driver may use (1 without MQ), and that it receives by */
	int control;            /* the queue that says so; -1: there is none */
	struct flows flows;
	struct {
		bool blocked, throttled;      /* waits for the back end, for the limit */
		unsigned pair;                /* the one that is worked on */
		unsigned paid[MSG_PAIRS_MAX]; /* so many of the next chains have passed the limit */
		unsigned skip[MSG_PAIRS_MAX]; /* pieces of the next chain's frame that are gone */
	} tx;
	struct {
		bool throttled;
		unsigned pair; /* of the frame that is looked at */
		bool waits;    /* it does */
		bool hungry;   /* the driver is asked to ring when it has buffers */
		bool paid;     /* the frame that waits has passed the limit */
		unsigned skip; /* pieces of it that the guest has */
		uint32_t unpublished;
	} rx;
	struct virtq_chain chain; /* the one that is looked at */
	struct tx_batch batch;
	struct {
#define X(name) uint64_t name;
		NET_COUNTERS(X)
#undef X
	} count;
};

enum rx_result {
	RX_DONE, /* delivered or dropped */
	RX_WAIT, /* no buffers, or over the limit: the back end keeps the frame; its receive() is called again */
};

/* A frame for the guest, not yet checked; where it asks for help the guest does not give, it is changed.  The caller calls
 * front_rx_flush() before it returns to the loop. */
enum rx_result front_rx(struct net *n, struct frame *f);
void front_rx_flush(struct net *n);
/* The back end takes nothing now: send() is tried again when its descriptor is writable. */
void front_tx_block(struct net *n);
/* Is it worth while to read from the back end? */
void front_rx_watch(struct net *n, bool on);
/* The other end of the wire is gone. */
void front_lost(struct net *n, const char *why);

/* tx.c, rx.c: the queues' work and what ends with a reset; rx_anew(): frames have other queues, and nobody is asked for buffers. */
void tx_work(struct net *n, unsigned pair);
void tx_work_all(struct net *n);
void tx_reset(struct net *n);
void rx_anew(struct net *n);
void rx_reset(struct net *n);
/* mq.c: commands of the driver, from the queue n->control. */
void mq_work(struct net *n);

void front_init(struct net *n);
extern const struct device_ops front_ops;
extern const struct net_backend passt_backend, tap_backend, port_backend;

#endif
