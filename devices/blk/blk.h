/*
 * hvx-blk: a virtio disk (virtio 1.2 5.2).  The front end turns chains of the guest into requests, and requests
 * into steps that a store does: a raw file (io_uring or threads), or an NBD server.  See request.c.
 */
#ifndef HVX_BLK_H
#define HVX_BLK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devices/device.h"

#define BLK_SECTOR  512u
#define BLK_QUEUE   256          /* places of a ring; requests in flight, of all rings together */
#define BLK_PENDING INT64_MIN    /* a step's result comes later, by blk_done() */
#define BLK_STEP    (1ull << 30) /* bytes of one step at most */

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZEROES };

/* What a store does in one go. */
struct blk_io {
	enum blk_op op;
	bool fua;   /* BLK_WRITE: durable when it is done */
	bool unmap; /* BLK_ZEROES: space may be given back */
	uint64_t at, len;
	struct iovec *iov; /* of @len bytes; reads and writes only */
	unsigned niov;
	struct blk_io *next; /* the store's, while it has it */
	int64_t result;      /* likewise */
	void *bounce;        /* likewise */
};

struct blk_store;
struct blk_store_ops {
	const char *name;
	/* Begins the step: bytes done (as few as the store likes, more than 0), a negative error, or BLK_PENDING.
	 * -EOPNOTSUPP to a discard or to zeroes means that this store has no such thing. */
	int64_t (*submit)(struct blk_store *s, struct blk_io *io);
	/* Steps were submitted: get them going, and take what is done. */
	void (*kick)(struct blk_store *s);
};
struct blk_store {
	const struct blk_store_ops *ops;
	uint64_t size;                    /* bytes */
	uint32_t block;                   /* what offsets and lengths must be multiples of */
	bool discard, zeroes, unmap, fua; /* what it can do */
};

enum { BLK_OK, BLK_IOERR, BLK_UNSUPP }; /* virtio 1.2 5.2.6 */

struct blk;
struct blk_request;
struct hba;
/* How the guest asks: rings (request.c), or command lists (ahci.c). */
struct blk_front {
	/* The pieces of io.len bytes of data from @pos on; fewer, of whole blocks, is fine.  False: there are none. */
	bool (*gather)(struct blk_request *r, uint64_t pos);
	/* Nothing is in a store any more: tells the guest, or gets ready to, and calls blk_release(). */
	void (*finish)(struct blk_request *r, uint8_t status);
	/* Shows the guest what is finished.  True: there may be more to do. */
	bool (*settle)(struct blk *b);
	/* A limit lets go. */
	void (*resume)(struct blk *b);
};

struct blk_request {
	struct blk_io io;
	struct blk *b;
	unsigned queue; /* whence it came */
	enum blk_op op;
	bool unmap, fua;
	uint64_t at, len, pos; /* bytes of the disk, and how many are done */
	bool flushing;         /* a flush, or the one that write-through asks for at the end */
	bool cached;           /* some of it was done so that it is not durable by itself */
	unsigned turns;        /* tries that came to nothing */
	bool holds;            /* a reference on its pages, while a step moves data, */
	unsigned parity;       /* under this one */
	struct blk_request *next;
	struct iovec iov[VIRTQ_SEGS_MAX];
	struct virtq_chain chain;
};

struct blk {
	struct device dev;
	const struct blk_front *front;
	struct hba *hba;              /* of AHCI */
	struct blk_store *base, *top; /* top: a snapshot's writes, or NULL */
	uint64_t *written;            /* snapshot: bit a sector: it is in @top */
	uint64_t size;                /* bytes, whole blocks */
	bool readonly, writeback;     /* writeback: flushes are the driver's affair */
	bool stepped;                 /* a step was begun that no kick() has seen */
	bool resetting, limited;      /* limited: the timer runs */
	unsigned inflight;
	uint32_t starved;                  /* rings, a bit each, that wait for a free request */
	struct blk_request *free, *parked; /* parked: failed, to be tried again (on-error=pause) */
	struct ipc_watch *timer;           /* a limit lets go */
	struct {
		uint64_t reads, writes, flushes, discards, zeroes, read_bytes, written_bytes, errors, refused, depth;
	} n;
	struct blk_request request[BLK_QUEUE];
};

/* request.c: requests, and the front end of virtio. */
extern const struct blk_front blk_virtio;
void blk_begin(struct blk_request *r, uint8_t status); /* op, at, len and flags are set; BLK_OK, or it is refused */
void blk_release(struct blk_request *r);
void blk_work(struct device *d, unsigned queue);
void blk_reset(struct device *d);
void blk_retry(struct blk *b); /* what is parked */
void blk_limits_changed(struct blk *b);
int blk_requests_init(struct blk *b);
/* A step has ended, with what submit() would have returned.  The store calls it for all that have, and, when the loop
 * woke it and not kick(), blk_settle() after them: that gets other steps going and tells the guest. */
void blk_done(struct blk_io *io, int64_t result);
void blk_settle(struct blk *b);

/* ahci.c: the front end of AHCI. */
int blk_ahci_init(struct blk *b, struct device_ops *ops); /* its own into @ops, and the offer; 0 or -ENOMEM */

/* config.c: features, limits, topology; and DRIVER_OK and writes to the configuration space (struct device_ops). */
void blk_offer(struct blk *b);
void blk_activate(struct device *d);
void blk_config_write(struct device *d, uint32_t off, const uint8_t *data, uint32_t len);

/* overlay.c: the store that has the bytes from @at on; shortens *len to where another one begins. */
int blk_overlay_init(struct blk *b);
struct blk_store *blk_overlay_where(struct blk *b, uint64_t at, uint64_t *len);
void blk_overlay_mark(struct blk *b, uint64_t at, uint64_t len);

/* file.c: size and abilities of a raw file or block device. */
int blk_file_look(struct blk_store *s, int fd, bool readonly);

/* The stores.  They are made before the final seal, with the loop there.  -ENOSYS, -EPERM and the like from the first: this
 * host has no io_uring for us. */
int blk_uring_open(struct blk *b, const int *fds, unsigned n, struct blk_store **stores);
int blk_threads_open(struct blk *b, const int *fds, unsigned n, struct blk_store **stores);
int blk_nbd_open(struct blk *b, int fd, struct blk_store **store, const char **why);

#endif
