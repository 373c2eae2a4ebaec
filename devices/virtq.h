/*
 * Split virtqueues: the only descriptor walker.  See virtq.c.
 */
#ifndef HVX_VIRTQ_H
#define HVX_VIRTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/gmem.h"
#include "proto/pack.h"

#define VIRTQ_SEGS_MAX 1024 /* buffers of one chain */

/* ring features, virtio 1.2 6 */
#define VIRTIO_F_RING_INDIRECT_DESC 28
#define VIRTIO_F_RING_EVENT_IDX     29
#define VIRTIO_F_VERSION_1          32
#define VIRTQ_FEATURES              (1ull << VIRTIO_F_RING_INDIRECT_DESC | 1ull << VIRTIO_F_RING_EVENT_IDX)

/* A buffer: RAM, as contiguous as the guest sees it. */
struct virtq_seg {
	uint64_t gpa;
	uint32_t len;
};

/* A chain of descriptors, copied out of the ring once: the guest can change nothing of it any more. */
struct virtq_chain {
	const struct gmem *mem;
	uint16_t head;
	unsigned nout, nin;       /* buffers: seg[0..nout) to read, seg[nout..nout+nin) to write */
	uint64_t out_len, in_len; /* bytes */
	struct virtq_seg seg[VIRTQ_SEGS_MAX];
};

struct virtq {
	const struct gmem *mem;
	unsigned index, size;
	bool enabled, event_idx, indirect;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	/* guest memory, everything read from there is untrusted; NULL: to be looked up */
	struct virtq_desc *desc;
	struct virtq_avail *avail;
	struct virtq_used *used;
	uint16_t next_avail;                   /* of ours: the next entry of the available ring */
	uint16_t next_used;                    /* where the next used element goes; published by virtq_publish() */
	uint16_t published;                    /* used.idx as the guest sees it */
	uint16_t inflight;                     /* chains taken and not put back */
	uint8_t taken[MSG_QUEUE_SIZE_MAX / 8]; /* heads in flight */
	const char *why;                       /* reason of the last -EPROTO, a string that lives forever */
};

/* Takes the rings in use; all of their memory must be RAM and aligned.  0 or -EPROTO (q->why tells). */
int virtq_setup(struct virtq *q, const struct gmem *mem, const struct msg_virtio_queue *m, uint64_t features);

/* The pointers to the rings hold no longer: whoever leaves gmem's epoch. */
void virtq_forget(struct virtq *q);

/* The next available chain.  1: *c is filled and in flight until virtq_put(); 0: none there; -EPROTO: the
 * driver broke the rules (q->why tells): nothing of the ring may be used until a reset. */
int virtq_get(struct virtq *q, struct virtq_chain *c);
/* Gives the chain with @head back, @written bytes of its writable part filled.  The guest sees it after
 * virtq_publish().  Devices call virtio_dev_put(). */
void virtq_put(struct virtq *q, uint16_t head, uint32_t written);
/* Takes back the chains got since the last @n (net: a receive buffer that is too small waits). */
void virtq_unget(struct virtq *q, const struct virtq_chain *c);
/* Publishes what was put; true when the driver wants an interrupt for it (virtio 1.2 2.7.7, 2.7.10). */
bool virtq_publish(struct virtq *q);
/* Asks the driver not to ring, and to ring again; the latter returns true when chains came meanwhile. */
void virtq_quiet(struct virtq *q);
bool virtq_listen(struct virtq *q);

/* Where in guest memory these functions write: used element @i, the used index, the wish of quiet() and listen(). */
static inline uint64_t virtq_element_gpa(const struct virtq *q, unsigned i)
{
	return q->used_gpa + 4 + 8ull * i;
}
static inline uint64_t virtq_index_gpa(const struct virtq *q)
{
	return q->used_gpa + 2;
}
static inline uint64_t virtq_wish_gpa(const struct virtq *q)
{
	return q->event_idx ? virtq_element_gpa(q, q->size) : q->used_gpa;
}

/* Pieces of the host's memory for *len bytes from @off into the readable or the writable part (@in), at most @max; their number.
 * *len becomes what they hold: less, too, where the chain ends or a page has no memory for us.  They hold within gmem's epoch. */
unsigned virtq_iov(const struct virtq_chain *c, bool in, uint64_t off, uint64_t *len, struct iovec *iov, unsigned max);
/* Copy between a chain's buffers and @buf, likewise; bytes done. */
size_t virtq_read(const struct virtq_chain *c, size_t off, void *buf, size_t len);
size_t virtq_write(const struct virtq_chain *c, size_t off, const void *buf, size_t len);

#endif
