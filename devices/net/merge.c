/*
 * Receive coalescing.  A guest's cost is by the frame, so what the back end has cut to the guest's segment size is put
 * together again, as the driver has allowed by GUEST_TSO4/6.
 *
 * Invariant: cutting the large frame at its segment size gives back the frames it was made of, but for what may differ
 * between segments of one send: IPv4's identification, PSH before the last, and the checksums.
 */
#include "devices/net/merge.h"

#include <string.h>

#define ETH_IPV4   0x0800
#define ETH_IPV6   0x86dd
#define IP_TCP     6
#define TCP_ACK    0x10
#define TCP_PSH    0x08
#define IP_MAX     65535u
#define DF         0x4000u
#define SMALL_DATA 256u /* segments with less are not worth it */

/* What of a frame matters. */
struct segment {
	const uint8_t *p;
	uint32_t l4, payload, data, seq;
	bool v6;
};

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

/* Is it a data segment without anything unusual?  Its padding, if any, does not count. */
static bool parse(struct segment *s, const uint8_t *p, uint32_t len)
{
	const uint8_t *ip = p + FRAME_ETH;
	uint32_t end;

	if (len < FRAME_ETH + 60)
		return false;
	s->p = p;
	s->v6 = get16(p + 12) == ETH_IPV6;
	if (s->v6) {
		if (ip[0] >> 4 != 6 || ip[6] != IP_TCP)
			return false;
		s->l4 = FRAME_ETH + 40;
		end = s->l4 + get16(ip + 4);
	} else {
		if (get16(p + 12) != ETH_IPV4 || ip[0] != 0x45 || ip[9] != IP_TCP || (get16(ip + 6) & ~DF))
			return false;
		s->l4 = FRAME_ETH + 20;
		end = FRAME_ETH + get16(ip + 2);
	}
	if (end > len || s->l4 + 20 > end)
		return false;
	const uint8_t *tcp = p + s->l4;
	s->payload = s->l4 + 4u * (tcp[12] >> 4);
	if (s->payload < s->l4 + 20 || s->payload >= end || (tcp[13] & ~TCP_PSH) != TCP_ACK)
		return false;
	s->data = end - s->payload;
	s->seq = get32(tcp + 4);
	return true;
}

/* Same headers, but for lengths, identification, sequence number, PSH and checksums. */
static bool same_stream(const struct segment *a, const struct segment *b)
{
	const uint8_t *x = a->p, *y = b->p;

	if (a->v6 != b->v6 || a->payload != b->payload || memcmp(x, y, FRAME_ETH))
		return false;
	const uint8_t *i = x + FRAME_ETH, *k = y + FRAME_ETH;
	if (a->v6 ? memcmp(i, k, 4) || memcmp(i + 6, k + 6, 34)
		  : memcmp(i, k, 2) || memcmp(i + 6, k + 6, 4) || memcmp(i + 12, k + 12, 8))
		return false;
	x += a->l4;
	y += b->l4;
	return !memcmp(x, y, 4) && !memcmp(x + 8, y + 8, 5) && !memcmp(x + 14, y + 14, 2) &&
	       !memcmp(x + 18, y + 18, a->payload - a->l4 - 18); /* urgent pointer and options */
}

/* Frames behind the first that belong to it, as pieces of m->rest; the last of them is *last. */
static uint32_t collect(struct merge *m, const struct stream *s, const struct segment *first, struct segment *last)
{
	struct stream at = *s;
	uint32_t data = first->data, len, ip = first->payload - FRAME_ETH;
	struct segment next;
	uint8_t *p;

	*last = *first;
	m->rest[0] = (struct iovec){(uint8_t *)(uintptr_t)first->p + first->payload, first->data};
	m->frames = 1;
	at.head += STREAM_PREFIX + m->f.len;
	while (m->frames < FRAME_REST_MAX && last->data == first->data && !(last->p[last->l4 + 13] & TCP_PSH)) {
		if (at.head >= at.tail || stream_peek(&at, &p, &len) <= 0 || !parse(&next, p, len))
			break;
		if (next.data > first->data || next.seq != first->seq + data || ip + data + next.data > IP_MAX ||
		    !same_stream(first, &next))
			break;
		m->rest[m->frames++] = (struct iovec){p + next.payload, next.data};
		data += next.data;
		m->taken += STREAM_PREFIX + len;
		at.head += STREAM_PREFIX + len;
		*last = next;
	}
	return data;
}

bool merge_frames(struct merge *m, const struct stream *s, uint8_t *data, uint32_t len, unsigned takes)
{
	struct segment first, last;

	m->f = (struct frame){.len = len};
	m->taken = 0;
	if (!(takes & (FRAME_TSO4 | FRAME_TSO6)) || !parse(&first, data, len) || first.data < SMALL_DATA ||
	    !(takes & (first.v6 ? FRAME_TSO6 : FRAME_TSO4)) || first.payload > sizeof m->head)
		return false;
	uint32_t total = collect(m, s, &first, &last);
	if (m->frames == 1)
		return false;
	memcpy(m->head, data, first.payload);
	m->head[first.l4 + 13] |= last.p[last.l4 + 13] & TCP_PSH;
	m->f = (struct frame){.head = m->head,
			      .nhead = first.payload,
			      .len = first.payload + total,
			      .rest = m->rest,
			      .nrest = m->frames,
			      .l3 = FRAME_ETH,
			      .l4 = (uint16_t)first.l4,
			      .payload = (uint16_t)first.payload};
	m->f.h = (struct vnet_hdr){.flags = VNET_NEEDS_CSUM,
				   .gso_type = first.v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4,
				   .hdr_len = (uint16_t)first.payload,
				   .gso_size = (uint16_t)first.data,
				   .csum_start = (uint16_t)first.l4,
				   .csum_offset = 16};
	frame_partial(&m->f);
	return true;
}
