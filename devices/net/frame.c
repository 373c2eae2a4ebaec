/*
 * Offloads that virtio-net leaves to the device (virtio 1.2 5.1.6.2): partial checksums are completed and TCP
 * frames larger than the wire's are cut (RFC 791, 8200, 9293).
 *
 * Invariant: what a header says is believed only after frame_check(); headers are read and written in the
 * frame's own copy, data is only summed and passed on.
 */
#include "devices/net/frame.h"

#include <errno.h>
#include <string.h>

#define ETH_IPV4 0x0800
#define ETH_IPV6 0x86dd
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88a8
#define IP_TCP   6
#define UDP_CSUM 6
#define TCP_FIN  0x01
#define TCP_PSH  0x08
#define TCP_CWR  0x80

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* ---- sums ---- */

static uint16_t fold(uint64_t s)
{
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return (uint16_t)s;
}

/* Sum of the words that begin at @p, a last single byte taken as the first of a word.  At most 4 GiB. */
static uint64_t sum_words(const uint8_t *p, size_t len)
{
	uint64_t a = 0, b = 0, v;

	for (; len >= 32; p += 32, len -= 32)
		for (int i = 0; i < 32; i += 8) {
			memcpy(&v, p + i, 8);
			a += (uint32_t)v;
			b += v >> 32;
		}
	for (; len >= 4; p += 4, len -= 4) {
		uint32_t w;
		memcpy(&w, p, 4);
		a += w;
	}
	if (len) {
		uint32_t w = 0;
		memcpy(&w, p, len);
		b += w;
	}
	return fold(a) + (uint64_t)fold(b);
}

void csum_add(struct csum *c, const void *p, size_t len)
{
	uint16_t s = fold(sum_words(p, len));

	c->sum += c->odd ? (uint16_t)(s << 8 | s >> 8) : s;
	c->odd ^= len & 1;
}

uint16_t csum_fold(const struct csum *c)
{
	return fold(c->sum);
}

/* ---- checks ---- */

uint32_t frame_head_need(const struct vnet_hdr *h, uint32_t len)
{
	uint32_t n = FRAME_HEAD;

	if ((h->flags & VNET_NEEDS_CSUM) && h->csum_start + h->csum_offset + 2u > n)
		n = h->csum_start + h->csum_offset + 2u;
	return n < len ? n : len;
}

bool frame_is_gso(const struct frame *f)
{
	return f->h.gso_type != VNET_GSO_NONE;
}

/* Where the network header begins, behind up to two tags; its type, or 0. */
static uint16_t ether_type(const struct frame *f, unsigned *l3)
{
	unsigned at = 12;

	for (int tags = 0; at + 2 <= f->nhead; tags++) {
		uint16_t t = get16(f->head + at);
		if ((t != ETH_VLAN && t != ETH_QINQ) || tags == 2) {
			*l3 = at + 2;
			return t;
		}
		at += 4;
	}
	return 0;
}

/* Extension headers of IPv6 up to TCP (RFC 8200 4.1); the offset of TCP or 0. */
static unsigned ipv6_tcp(const struct frame *f, unsigned at, unsigned next)
{
	while (next != IP_TCP) {
		if (next != 0 && next != 43 && next != 60) /* hop-by-hop, routing, destination; no fragments */
			return 0;
		if (at + 8 > f->nhead)
			return 0;
		next = f->head[at];
		at += 8u * (f->head[at + 1] + 1u);
	}
	return at;
}

static unsigned find_tcp(const struct frame *f, unsigned l3, uint16_t type)
{
	const uint8_t *ip = f->head + l3;

	if (type == ETH_IPV6)
		return l3 + 40 <= f->nhead && ip[0] >> 4 == 6 ? ipv6_tcp(f, l3 + 40, ip[6]) : 0;
	if (l3 + 20 > f->nhead || ip[0] >> 4 != 4 || (ip[0] & 15) < 5 || ip[9] != IP_TCP || (get16(ip + 6) & 0x3fff))
		return 0; /* a fragment has no business here */
	return l3 + 4u * (ip[0] & 15);
}

/* The TCP frame that a header with a segment size claims to be. */
static int check_gso(struct frame *f, unsigned takes)
{
	bool v6 = f->h.gso_type == VNET_GSO_TCPV6;
	unsigned l3 = 0, l4;

	if ((!v6 && f->h.gso_type != VNET_GSO_TCPV4) || !(takes & (v6 ? FRAME_TSO6 : FRAME_TSO4)))
		return -EINVAL;
	if (!(f->h.flags & VNET_NEEDS_CSUM) || !f->h.gso_size)
		return -EINVAL;
	if (ether_type(f, &l3) != (v6 ? ETH_IPV6 : ETH_IPV4))
		return -EINVAL;
	l4 = find_tcp(f, l3, v6 ? ETH_IPV6 : ETH_IPV4);
	if (!l4 || l4 + 20 > f->nhead || l4 != f->h.csum_start || f->h.csum_offset != 16)
		return -EINVAL;
	unsigned payload = l4 + 4u * (f->head[l4 + 12] >> 4);
	if (payload < l4 + 20 || payload > f->nhead || payload > FRAME_HEAD || f->len - l3 > 65535 + (v6 ? 40 : 0))
		return -EINVAL;
	f->l3 = (uint16_t)l3;
	f->l4 = (uint16_t)l4;
	f->payload = (uint16_t)payload;
	f->h.hdr_len = f->payload;
	return 0;
}

int frame_check(struct frame *f, unsigned takes)
{
	struct vnet_hdr *h = &f->h;

	h->num_buffers = 0;
	h->flags &= VNET_NEEDS_CSUM | VNET_DATA_VALID;
	if (f->len < FRAME_ETH || f->len > FRAME_MAX)
		return -EINVAL;
	if (h->flags & VNET_NEEDS_CSUM) {
		if (!(takes & FRAME_CSUM) || h->csum_start < FRAME_ETH || h->csum_start + h->csum_offset + 2u > f->len)
			return -EINVAL;
	} else {
		h->csum_start = h->csum_offset = 0;
	}
	if (h->gso_type != VNET_GSO_NONE)
		return check_gso(f, takes);
	h->hdr_len = h->gso_size = 0;
	return 0;
}

/* ---- checksums ---- */

/* Sum of @len bytes of the frame from @off. */
static void sum_range(struct csum *c, const struct frame *f, uint32_t off, uint32_t len)
{
	if (off < f->nhead) {
		uint32_t k = f->nhead - off < len ? f->nhead - off : len;
		csum_add(c, f->head + off, k);
		off += k;
		len -= k;
	}
	off -= f->nhead;
	for (unsigned i = 0; i < f->nrest && len; i++) {
		const struct iovec *v = &f->rest[i];
		if (off >= v->iov_len) {
			off -= (uint32_t)v->iov_len;
			continue;
		}
		uint32_t k = (uint32_t)v->iov_len - off < len ? (uint32_t)v->iov_len - off : len;
		csum_add(c, (const uint8_t *)v->iov_base + off, k);
		off = 0;
		len -= k;
	}
}

static void store(uint8_t *at, uint16_t sum)
{
	uint16_t v = (uint16_t)~sum;

	memcpy(at, &v, sizeof v);
}

static void no_offloads(struct frame *f)
{
	f->h = (struct vnet_hdr){.flags = (uint8_t)(f->h.flags & ~VNET_NEEDS_CSUM)};
}

void frame_checksum(struct frame *f)
{
	struct csum c = {0};

	if (!(f->h.flags & VNET_NEEDS_CSUM))
		return;
	sum_range(&c, f, f->h.csum_start, f->len - f->h.csum_start);
	uint8_t *at = f->head + f->h.csum_start + f->h.csum_offset;
	store(at, csum_fold(&c));
	if (f->h.csum_offset == UDP_CSUM && !get16(at))
		put16(at, 0xffff); /* zero says that there is none (RFC 768) */
	no_offloads(f);
	f->h.flags |= VNET_DATA_VALID;
}

/* Lengths of the IP header for a packet that ends at f->len, and IPv4's checksum. */
static void finish_ip(struct frame *f)
{
	uint8_t *ip = f->head + f->l3;
	struct csum c = {0};

	if (ip[0] >> 4 == 6) {
		put16(ip + 4, f->len - f->l3 - 40);
		return;
	}
	put16(ip + 2, f->len - f->l3);
	put16(ip + 10, 0);
	csum_add(&c, ip, f->l4 - f->l3);
	store(ip + 10, csum_fold(&c));
}

/* TCP's pseudo-header (RFC 9293 3.1, RFC 8200 8.1). */
static void sum_pseudo(struct csum *c, const struct frame *f)
{
	const uint8_t *ip = f->head + f->l3;
	uint8_t pseudo[8] = {0};

	put32(pseudo, f->len - f->l4);
	put32(pseudo + 4, IP_TCP);
	csum_add(c, pseudo, sizeof pseudo);
	if (ip[0] >> 4 == 6)
		csum_add(c, ip + 8, 32);
	else
		csum_add(c, ip + 12, 8);
}

static void finish_tcp(struct frame *f)
{
	uint8_t *tcp = f->head + f->l4;
	struct csum c = {0};

	sum_pseudo(&c, f);
	put16(tcp + 16, 0);
	sum_range(&c, f, f->l4, f->len - f->l4);
	store(tcp + 16, csum_fold(&c));
}

void frame_partial(struct frame *f)
{
	struct csum c = {0};

	finish_ip(f);
	sum_pseudo(&c, f);
	uint16_t v = csum_fold(&c);
	memcpy(f->head + f->l4 + 16, &v, sizeof v);
}

void frame_whole(struct frame *f)
{
	finish_ip(f);
	finish_tcp(f);
	no_offloads(f);
	f->h.flags |= VNET_DATA_VALID;
}

/* ---- segmentation ---- */

unsigned frame_segments(const struct frame *f, uint32_t size)
{
	uint32_t data = frame_is_gso(f) ? f->len - f->payload : 0;

	return data ? (data + size - 1) / size : 1;
}

/* The pieces of the frame's bytes [off, off + len): at most one more than the rest has. */
static unsigned cut(const struct frame *f, uint32_t off, uint32_t len, struct iovec *out)
{
	unsigned n = 0;

	if (off < f->nhead && len) {
		uint32_t k = f->nhead - off < len ? f->nhead - off : len;
		out[n++] = (struct iovec){f->head + off, k};
		off += k;
		len -= k;
	}
	off -= f->nhead;
	for (unsigned i = 0; i < f->nrest && len; i++) {
		const struct iovec *v = &f->rest[i];
		if (off >= v->iov_len) {
			off -= (uint32_t)v->iov_len;
			continue;
		}
		uint32_t k = (uint32_t)v->iov_len - off < len ? (uint32_t)v->iov_len - off : len;
		out[n++] = (struct iovec){(uint8_t *)v->iov_base + off, k};
		off = 0;
		len -= k;
	}
	return n;
}

/* Headers of segment @i, that carries data from @off on. */
static void segment_headers(struct frame *p, const struct frame *f, unsigned i, uint32_t off, bool last)
{
	uint8_t *ip = p->head + f->l3, *tcp = p->head + f->l4;

	if (ip[0] >> 4 == 4)
		put16(ip + 4, get16(ip + 4) + i);
	put32(tcp + 4, get32(tcp + 4) + off);
	if (!last)
		tcp[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (i)
		tcp[13] &= (uint8_t)~TCP_CWR;
	finish_ip(p);
	finish_tcp(p);
}

unsigned frame_split(const struct frame *f, uint32_t size, unsigned skip, bool (*emit)(void *ctx, struct frame *part),
		     void *ctx)
{
	uint32_t data = f->len - f->payload;
	unsigned n = frame_segments(f, size);
	uint8_t head[FRAME_HEAD];
	struct iovec v[FRAME_REST_MAX + 1];

	for (unsigned i = skip; i < n; i++) {
		uint32_t off = i * size, k = data - off < size ? data - off : size;
		struct frame p = {.head = head,
				  .nhead = f->payload,
				  .len = f->payload + k,
				  .rest = v,
				  .l3 = f->l3,
				  .l4 = f->l4,
				  .payload = f->payload};
		memcpy(head, f->head, f->payload);
		p.nrest = cut(f, f->payload + off, k, v);
		p.h.flags = VNET_DATA_VALID;
		segment_headers(&p, f, i, off, i == n - 1);
		if (!emit(ctx, &p))
			return i;
	}
	return n;
}
