/* devices/net/frame and merge: checksums, segmentation and coalescing against tests/net/frames.c, a model of its own. */
#include <CUnit/CUnit.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net/frame.h"
#include "devices/net/merge.h"
#include "tests/insn/rng.h"
#include "tests/net/frames.h"

#define ALL (FRAME_CSUM | FRAME_TSO4 | FRAME_TSO6)

static uint8_t whole[70000], head[70000];
static struct iovec pieces[FRAME_REST_MAX];

/* The frame in @whole as head and at most @n pieces of the rest, cut anywhere. */
static struct frame in_pieces(const struct vnet_hdr *h, size_t len, struct rng *r, unsigned n)
{
	struct frame f = {.h = *h, .head = head, .len = (uint32_t)len, .rest = pieces};
	size_t at = f.nhead = frame_head_need(h, f.len);

	memcpy(head, whole, f.nhead);
	while (at < len) {
		size_t k = f.nrest == n - 1 ? len - at : 1 + below(r, (uint32_t)(len - at < 3000 ? len - at : 3000));
		pieces[f.nrest++] = (struct iovec){whole + at, k};
		at += k;
	}
	return f;
}

static size_t flat(uint8_t *to, const struct frame *f)
{
	size_t n = f->nhead;

	memcpy(to, f->head, n);
	for (unsigned i = 0; i < f->nrest; i++) {
		memcpy(to + n, f->rest[i].iov_base, f->rest[i].iov_len);
		n += f->rest[i].iov_len;
	}
	return n;
}

static struct tcp_spec random_spec(struct rng *r, size_t most)
{
	struct tcp_spec s = {.v6 = below(r, 2), .vlan = below(r, 3) == 0, .seq = (uint32_t)rnd(r)};

	s.ip_options = s.v6 ? 8 * below(r, 3) : 4 * below(r, 11);
	s.tcp_options = 4 * below(r, 11);
	s.ack = (uint32_t)rnd(r);
	s.id = (uint16_t)rnd(r);
	s.flags = (uint8_t)(0x10 | (rnd(r) & 0x89)); /* ACK, and perhaps FIN, PSH, CWR */
	s.data = below(r, (uint32_t)most);
	s.fill = (uint8_t)rnd(r);
	return s;
}

static void test_sums(void)
{
	static uint8_t b[4096], f[4200];
	struct rng r;

	r.s = 1;
	for (int i = 0; i < 3000; i++) {
		size_t len = below(&r, 300), at = below(&r, 8), cut = len ? below(&r, (uint32_t)len + 1) : 0;
		unsigned sum = 0;
		struct csum c = {0};
		for (size_t k = 0; k < len; k++) {
			b[at + k] = below(&r, 3) ? 0xff : (uint8_t)rnd(&r);
			sum += k & 1 ? b[at + k] : (unsigned)b[at + k] << 8;
		}
		while (sum > 0xffff)
			sum = (sum & 0xffff) + (sum >> 16);
		csum_add(&c, b + at, cut);
		csum_add(&c, b + at + cut, len - cut);
		unsigned got = __builtin_bswap16(csum_fold(&c));
		CU_ASSERT_TRUE_FATAL(got == sum || (got % 0xffff == 0 && sum % 0xffff == 0));
	}
	/* UDP never says "none" by accident: data that sums up to it */
	for (unsigned v = 0; v < 65536; v++) {
		size_t len = frames_udp(whole, 1, 2, 0);
		whole[42] = (uint8_t)(v >> 8), whole[43] = (uint8_t)v;
		frames_partial(whole, len, 34, 6);
		const struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
		struct frame p = in_pieces(&h, len, &r, 4);
		CU_ASSERT_EQUAL_FATAL(frame_check(&p, ALL), 0);
		frame_checksum(&p);
		flat(f, &p);
		CU_ASSERT_FALSE_FATAL(!f[40] && !f[41]);
		CU_ASSERT_PTR_NULL_FATAL(frames_wrong(f, len));
	}
}

static struct vnet_hdr gso_header(const struct tcp_spec *s, size_t l4, unsigned size)
{
	return (struct vnet_hdr){.flags = VNET_NEEDS_CSUM,
				 .gso_type = s->v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4,
				 .gso_size = (uint16_t)size,
				 .csum_start = (uint16_t)l4,
				 .csum_offset = 16};
}

static void test_checksum(void)
{
	static uint8_t out[70000];
	struct rng r;

	r.s = 2;
	for (int i = 0; i < 2000; i++) {
		struct tcp_spec s = random_spec(&r, 9000);
		size_t l4, len = frames_tcp(whole, &s, &l4, NULL);
		struct vnet_hdr h = gso_header(&s, l4, 0);
		h.gso_type = 0;
		frames_partial(whole, len, l4, 16);
		struct frame f = in_pieces(&h, len, &r, 20);
		CU_ASSERT_EQUAL_FATAL(frame_check(&f, FRAME_CSUM), 0);
		frame_checksum(&f);
		CU_ASSERT_EQUAL_FATAL(flat(out, &f), len);
		CU_ASSERT_PTR_NULL_FATAL(frames_wrong(out, len));
		CU_ASSERT_FALSE(f.h.flags & VNET_NEEDS_CSUM);
	}
}

/* What the cutter hands out, put back together. */
struct parts {
	const struct tcp_spec *s;
	size_t l4, payload, data;
	unsigned n, stop, size;
	bool wrong;
};

static uint32_t rd32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool on_part(void *ctx, struct frame *p)
{
	static uint8_t out[70000];
	struct parts *t = ctx;

	if (t->n == t->stop)
		return false;
	size_t len = flat(out, p), k = len - t->payload;
	const uint8_t *tcp = out + t->l4, *ip = out + (t->s->vlan ? 18 : 14);
	bool last = t->data + k == t->s->data;
	uint8_t flags = t->s->flags & (uint8_t) ~((last ? 0 : 0x09) | (t->n ? 0x80 : 0));

	t->wrong |= len != p->len || (!last && k != t->size) || frames_wrong(out, len);
	t->wrong |= memcmp(out + t->payload, whole + t->payload + t->data, k) != 0;
	t->wrong |= rd32(tcp + 4) != t->s->seq + (uint32_t)t->data || tcp[13] != flags;
	t->wrong |= !t->s->v6 && (uint16_t)(ip[4] << 8 | ip[5]) != (uint16_t)(t->s->id + t->n);
	t->data += k;
	t->n++;
	return true;
}

static void test_split(void)
{
	struct rng r;

	r.s = 3;
	for (int i = 0; i < 1500; i++) {
		struct tcp_spec s = random_spec(&r, 65000);
		struct parts t = {.s = &s, .size = 1 + below(&r, i & 1 ? 1500 : 20000), .stop = ~0u};
		if (s.data / t.size > 2000)
			t.size += 1000;
		size_t len = frames_tcp(whole, &s, &t.l4, &t.payload);
		struct vnet_hdr h = gso_header(&s, t.l4, t.size);
		frames_partial(whole, len, t.l4, 16);
		struct frame f = in_pieces(&h, len, &r, 20);
		CU_ASSERT_EQUAL_FATAL(frame_check(&f, ALL), 0);
		CU_ASSERT_EQUAL(f.h.hdr_len, t.payload);
		unsigned n = frame_segments(&f, t.size);
		if (i % 3 == 0) /* in two goes */
			t.stop = below(&r, n + 1);
		unsigned first = frame_split(&f, t.size, 0, on_part, &t);
		CU_ASSERT_EQUAL_FATAL(first, t.n);
		t.stop = ~0u;
		CU_ASSERT_EQUAL_FATAL(frame_split(&f, t.size, first, on_part, &t), n);
		CU_ASSERT_TRUE_FATAL(t.n == n && t.data == s.data && !t.wrong);
	}
}

static void test_whole(void)
{
	static uint8_t out[70000], want[70000];
	struct rng r;

	r.s = 4;
	for (int i = 0; i < 1000; i++) {
		struct tcp_spec s = random_spec(&r, 65000);
		size_t l4, len = frames_tcp(whole, &s, &l4, NULL);
		struct vnet_hdr h = gso_header(&s, l4, 1000);
		memcpy(want, whole, len);
		frames_partial(whole, len, l4, 16);
		struct frame f = in_pieces(&h, len, &r, 20);
		CU_ASSERT_EQUAL_FATAL(frame_check(&f, ALL), 0);
		frame_whole(&f);
		CU_ASSERT_EQUAL_FATAL(flat(out, &f), len);
		CU_ASSERT_TRUE_FATAL(!memcmp(out, want, len) && !frame_is_gso(&f));
	}
}

/* What a header may not say. */
static void test_refused(void)
{
	struct tcp_spec s = {.data = 4000};
	size_t l4, payload, len = frames_tcp(whole, &s, &l4, &payload);
	const struct vnet_hdr good = gso_header(&s, l4, 1000);
	struct rng r;

	r.s = 5;
#define TRY(want, takes, change)                                    \
	do {                                                        \
		struct vnet_hdr h = good;                           \
		change;                                             \
		struct frame f = in_pieces(&h, len, &r, 20);        \
		CU_ASSERT_EQUAL(frame_check(&f, takes) == 0, want); \
	} while (0)
	TRY(true, ALL, );
	TRY(false, FRAME_CSUM | FRAME_TSO6, );
	TRY(false, 0, h.gso_type = 0);
	TRY(false, ALL, h.gso_type = VNET_GSO_TCPV6);
	TRY(false, ALL, h.gso_type = 3);
	TRY(false, ALL, h.gso_type = 0x81);
	TRY(false, ALL, h.gso_size = 0);
	TRY(false, ALL, h.flags = 0);
	TRY(false, ALL, h.csum_offset = 6);
	TRY(false, ALL, h.csum_start += 2);
	TRY(false, ALL, h.csum_start = 13; h.gso_type = 0);
	TRY(false, ALL, h.csum_start = (uint16_t)len; h.csum_offset = 0; h.gso_type = 0);
	TRY(true, ALL, h.csum_start = (uint16_t)(len - 2); h.csum_offset = 0; h.gso_type = 0);
	TRY(false, ALL, h.csum_start = 65535; h.csum_offset = 65535; h.gso_type = 0);
	TRY(true, ALL, h.hdr_len = 9; h.flags |= 0xf0);
	TRY(false, ALL, len = 13; h = (struct vnet_hdr){0});
	len = frames_tcp(whole, &s, &l4, &payload);
	TRY(false, ALL, whole[14] = 0x44); /* IP header too short */
	len = frames_tcp(whole, &s, &l4, &payload);
	TRY(false, ALL, whole[14 + 6] = 0x20); /* a fragment */
	len = frames_tcp(whole, &s, &l4, &payload);
	TRY(false, ALL, whole[14 + 9] = 17);
	len = frames_tcp(whole, &s, &l4, &payload);
	TRY(false, ALL, whole[l4 + 12] = 0x40);
	len = frames_tcp(whole, &s, &l4, &payload);
	TRY(false, ALL, whole[12] = 0x86; whole[13] = 0xdd);
	len = frames_tcp(whole, &s, &l4, &payload);
	TRY(false, ALL, len = 50);
}

/* ---- coalescing ---- */

static void put_frame(struct stream *s, const uint8_t *f, size_t len)
{
	uint8_t *p = s->buf + s->tail;

	p[0] = p[1] = 0;
	p[2] = (uint8_t)(len >> 8);
	p[3] = (uint8_t)len;
	memcpy(p + 4, f, len);
	s->tail += len + 4;
}

/* Cutting what was merged gives back what it was made of. */
struct again {
	struct stream s;
	unsigned n;
	bool wrong;
};

static bool on_again(void *ctx, struct frame *p)
{
	static uint8_t out[70000], want[70000];
	struct again *a = ctx;
	uint8_t *data;
	uint32_t len;
	size_t n = flat(out, p);

	if (stream_peek(&a->s, &data, &len) <= 0) {
		a->wrong = true;
		return false;
	}
	memcpy(want, data, len);
	size_t l4 = p->l4;
	if (!(out[12] == 0x86)) { /* IPv4's identification and its checksum */
		memcpy(want + 18, out + 18, 2);
		memcpy(want + 24, out + 24, 2);
	}
	a->wrong |= n != len || frames_wrong(out, n) || memcmp(out, want, n);
	a->wrong |= memcmp(out + l4 + 16, want + l4 + 16, 2) != 0;
	a->s.head += 4 + len;
	a->n++;
	return true;
}

static void test_merge(void)
{
	static uint8_t buf[1 << 20];
	static struct merge m;
	struct rng r;
	unsigned merged = 0;

	r.s = 6;
	for (int i = 0; i < 3000; i++) {
		struct stream s = {.buf = buf, .size = sizeof buf};
		struct tcp_spec t = {
			.v6 = i & 1, .tcp_options = 4 * below(&r, 6), .seq = (uint32_t)rnd(&r), .flags = 0x10};
		unsigned n = 1 + below(&r, 60), size = 200 + below(&r, 1260), odd = below(&r, 80);
		for (unsigned k = 0; k < n; k++) {
			struct tcp_spec x = t;
			x.data = k == n - 1 ? 1 + below(&r, size) : size;
			x.flags |= k == n - 1 ? 8 : 0;
			if (k == odd) /* something that ends the run */
				switch (below(&r, 7)) {
				case 0: x.ack = 1; break;
				case 1: x.flags |= 1; break;
				case 2: x.port = 99; break;
				case 3: x.seq++; break;
				case 4: x.data = size + 1; break;
				case 5: x.v6 = !x.v6; break;
				default: x.tcp_options ^= 4;
				}
			put_frame(&s, whole, frames_tcp(whole, &x, NULL, NULL));
			t.seq += (uint32_t)x.data;
		}
		uint8_t *data;
		uint32_t len;
		while (stream_peek(&s, &data, &len) > 0) {
			struct again a = {.s = s};
			uint32_t step = 4 + len;
			if (merge_frames(&m, &s, data, len, ALL)) {
				CU_ASSERT_EQUAL_FATAL(frame_check(&m.f, ALL), 0);
				unsigned parts = frame_split(&m.f, m.f.h.gso_size, 0, on_again, &a);
				CU_ASSERT_TRUE_FATAL(parts == m.frames && a.n == parts && !a.wrong);
				CU_ASSERT_EQUAL_FATAL(a.s.head - s.head, step + m.taken);
				step += m.taken;
				merged += m.frames;
			}
			stream_take(&s, step);
		}
		CU_ASSERT_EQUAL_FATAL(s.tail, 0);
	}
	CU_ASSERT(merged > 50000);
}

CU_ErrorCode suite_net_frame(void)
{
	CU_pSuite s = CU_add_suite("net_frame", NULL, NULL);

	if (!s || !CU_add_test(s, "sums", test_sums) || !CU_add_test(s, "checksums left open", test_checksum) ||
	    !CU_add_test(s, "segmentation", test_split) || !CU_add_test(s, "one large frame", test_whole) ||
	    !CU_add_test(s, "refused headers", test_refused) || !CU_add_test(s, "coalescing", test_merge))
		return CU_get_error();
	return CUE_SUCCESS;
}
