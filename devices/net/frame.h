/*
 * Ethernet frames with the offloads that virtio-net knows: checks, checksums, segmentation.
 * See frame.c.
 */
#ifndef HVX_NET_FRAME_H
#define HVX_NET_FRAME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* struct virtio_net_hdr with num_buffers, virtio 1.2 5.1.6; little-endian as this machine is. */
struct vnet_hdr {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct vnet_hdr) == 12, "virtio 1.2 5.1.6");

#define VNET_NEEDS_CSUM 1 /* flags */
#define VNET_DATA_VALID 2
#define VNET_GSO_NONE   0 /* gso_type */
#define VNET_GSO_TCPV4  1
#define VNET_GSO_TCPV6  4

#define FRAME_ETH      14u
#define FRAME_MAX      (65535u + FRAME_ETH + 8u) /* the largest IP packet behind two VLAN tags */
#define FRAME_HEAD     512u                      /* headers of a frame to be segmented lie within */
#define FRAME_REST_MAX 64u                       /* pieces of a rest */

/* What somebody takes without help; values of the `takes` arguments. */
#define FRAME_CSUM (1u << 0)
#define FRAME_TSO4 (1u << 1)
#define FRAME_TSO6 (1u << 2)

/*
 * A frame: its first @nhead bytes are a copy that nobody else can change, @rest are pieces of whoever made it.
 * nhead is the whole frame, or at least FRAME_HEAD and the checksum's place.
 */
struct frame {
	struct vnet_hdr h;
	uint8_t *head;
	uint32_t nhead, len;
	const struct iovec *rest;
	unsigned nrest;
	/* for a frame to be segmented, by frame_check() */
	uint16_t l3, l4, payload; /* where IP, TCP and its data begin */
};

/* How long the head must be, given what the header says; never more than @len. */
uint32_t frame_head_need(const struct vnet_hdr *h, uint32_t len);
/* Does the header fit the frame, and is every offload it asks for in @takes?  Fields that nobody has to heed are
 * cleared or made right (hdr_len, num_buffers, unknown flags).  0 or -EINVAL. */
int frame_check(struct frame *f, unsigned takes);
/* Does the checksum that NEEDS_CSUM asks for; the frame must be checked. */
void frame_checksum(struct frame *f);
/* Is it to be segmented for somebody who takes @takes? */
bool frame_is_gso(const struct frame *f);
unsigned frame_segments(const struct frame *f, uint32_t size);

/*
 * Cuts a checked frame to be segmented into frames of at most @size bytes of TCP data each, complete with
 * checksums, the first @skip left out.  @emit gets each with a head of its own that is valid during the call; it returns false to stop.
 * Returns how many were taken, the skipped ones included.
 */
unsigned frame_split(const struct frame *f, uint32_t size, unsigned skip, bool (*emit)(void *ctx, struct frame *part),
		     void *ctx);
/* One large TCP frame of its own in place of one to be segmented: lengths and checksums made complete. */
void frame_whole(struct frame *f);
/* The IP header made right for the frame's length, and TCP's checksum left to whoever cuts it or needs it: the sum of
 * the pseudo-header in its place. */
void frame_partial(struct frame *f);

/* Internet checksum (RFC 1071): the ones' complement sum of bytes, as it stands in memory. */
struct csum {
	uint64_t sum;
	bool odd; /* the next byte is the second of its word */
};
void csum_add(struct csum *c, const void *p, size_t len);
uint16_t csum_fold(const struct csum *c); /* the sum, not complemented */

#endif
