/*
 * Fuzz target: what hvx-net and hvx-switch read.  The first byte chooses:
 *   0  a header and a frame, of a guest or of another port, in pieces cut as bytes 1 and 2 say
 *   1  a stream of passt's, received in pieces
 *   2  frames at the ports of a switch
 *
 * Properties: an accepted header's offloads lie in the frame; cutting a frame gives all of its data in order, each part at
 * most of the size asked for; every byte of a stream is a length or a frame's, and a merged frame cut again is as many
 * frames as it was made of; nobody sends from an address that is another port's own.
 */
#include <string.h>

#include "devices/net/flow.h"
#include "devices/net/frame.h"
#include "devices/net/macs.h"
#include "devices/net/merge.h"
#include "devices/net/stream.h"
#include "tests/fuzz/fuzz.h"

#define ALL    (FRAME_CSUM | FRAME_TSO4 | FRAME_TSO6)
#define BUFFER (3u * (STREAM_PREFIX + STREAM_FRAME_MAX))

static uint8_t head[FRAME_MAX], whole[FRAME_MAX];

/* ---- frames ---- */

struct parts {
	const struct frame *f;
	uint32_t size, data;
	unsigned n;
};

static bool on_part(void *ctx, struct frame *p)
{
	struct parts *t = ctx;
	uint32_t len = p->nhead;

	FUZZ_CHECK(p->nhead >= t->f->payload && p->nhead == t->f->payload && !p->h.gso_type);
	FUZZ_CHECK(p->nrest <= t->f->nrest + 1);
	for (unsigned i = 0; i < p->nrest; i++) {
		FUZZ_CHECK(!memcmp(p->rest[i].iov_base, whole + t->f->payload + t->data, p->rest[i].iov_len));
		t->data += (uint32_t)p->rest[i].iov_len;
		len += (uint32_t)p->rest[i].iov_len;
	}
	FUZZ_CHECK(len == p->len && len - p->nhead <= t->size);
	t->n++;
	return true;
}

static void use_frame(struct frame *f, uint32_t size)
{
	struct parts t = {.f = f, .size = size};

	if (!frame_is_gso(f)) {
		frame_checksum(f);
		FUZZ_CHECK(!(f->h.flags & VNET_NEEDS_CSUM));
		return;
	}
	FUZZ_CHECK(f->payload <= f->nhead && f->payload <= f->len && f->l4 + 20 <= f->payload && f->l3 < f->l4);
	unsigned n = frame_segments(f, size);
	if (n <= 4096)
		FUZZ_CHECK(frame_split(f, size, 0, on_part, &t) == n && t.n == n && t.data == f->len - f->payload);
	frame_whole(f);
	FUZZ_CHECK(!frame_is_gso(f));
}

static void one_frame(const uint8_t *d, size_t len)
{
	struct iovec rest[FRAME_REST_MAX];
	struct frame f = {.head = head, .rest = rest};
	unsigned takes, piece;

	if (len < 2 + sizeof f.h)
		return;
	takes = d[0] & 7;
	piece = 1 + d[1] * 16u;
	memcpy(&f.h, d + 2, sizeof f.h);
	d += 2 + sizeof f.h;
	f.len = (uint32_t)(len - 2 - sizeof f.h);
	memcpy(whole, d, f.len);
	f.nhead = frame_head_need(&f.h, f.len);
	FUZZ_CHECK(f.nhead <= f.len);
	memcpy(head, d, f.nhead);
	for (size_t at = f.nhead; at < f.len; f.nrest++) {
		size_t k = f.nrest == FRAME_REST_MAX - 1 || f.len - at < piece ? f.len - at : piece;
		rest[f.nrest] = (struct iovec){whole + at, k};
		at += k;
	}
	FUZZ_CHECK(flow_of(&f) < FLOWS);
	if (frame_check(&f, takes))
		return;
	FUZZ_CHECK(!(f.h.flags & VNET_NEEDS_CSUM) ||
		   ((takes & FRAME_CSUM) && f.h.csum_start + f.h.csum_offset + 2u <= f.nhead));
	FUZZ_CHECK(!frame_is_gso(&f) || (f.h.gso_size && (takes & (FRAME_TSO4 | FRAME_TSO6))));
	use_frame(&f, f.h.gso_size ? f.h.gso_size : 1);
}

/* ---- streams ---- */

static bool count_part(void *ctx, struct frame *p)
{
	unsigned *n = ctx;

	(void)p;
	++*n;
	return true;
}

static size_t take_frames(struct stream *s, unsigned takes)
{
	static struct merge m;
	size_t taken = 0;
	uint8_t *p;
	uint32_t len;

	while (stream_peek(s, &p, &len) > 0) {
		FUZZ_CHECK(p == s->buf + s->head + STREAM_PREFIX && s->head + STREAM_PREFIX + len <= s->tail);
		size_t step = STREAM_PREFIX + len;
		if (merge_frames(&m, s, p, len, takes)) {
			unsigned n = 0;
			FUZZ_CHECK(m.frames > 1 && !frame_check(&m.f, takes | FRAME_CSUM));
			FUZZ_CHECK(frame_split(&m.f, m.f.h.gso_size, 0, count_part, &n) == m.frames && n == m.frames);
			step += m.taken;
		}
		FUZZ_CHECK(step <= s->tail - s->head);
		stream_take(s, step);
		taken += step;
	}
	return taken;
}

static void one_stream(const uint8_t *d, size_t len)
{
	static uint8_t buf[BUFFER];
	struct stream s = {.buf = buf, .size = BUFFER};
	size_t taken = 0, at = 2;

	if (len < 2)
		return;
	while (at < len) {
		size_t k = 1 + d[1] * 8u, room = stream_room(&s);
		uint8_t *p;
		uint32_t n;
		k = k < len - at ? k : len - at;
		k = k < room ? k : room;
		FUZZ_CHECK(k || stream_peek(&s, &p, &n));
		if (!k)
			return;
		memcpy(buf + s.tail, d + at, k);
		s.tail += k;
		at += k;
		taken += take_frames(&s, d[0] & ALL);
		FUZZ_CHECK(taken + s.tail - s.head == at - 2);
	}
}

/* ---- the switch ---- */

/* Steps of eight bytes: port, what, an address. */
static void one_switch(const uint8_t *d, size_t len)
{
	static struct macs t;
	int owner[16];
	uint64_t now = 0;

	macs_init(&t, 8, len & 1);
	memset(owner, -1, sizeof owner);
	for (; len >= 3; d += 3, len -= 3) {
		uint8_t mac[6] = {d[2] & 16 ? 1 : 2, 0, 0, 0, 0, d[2] & 15};
		unsigned port = d[0] % 4, no = d[2] & 15;
		now += d[1] >> 6;
		switch (d[1] % 4) {
		case 0:
			macs_forget(&t, port); /* as when it leaves, before it joins again */
			for (unsigned i = 0; i < 16; i++)
				owner[i] = owner[i] == (int)port ? -1 : owner[i];
			if (macs_own(&t, mac, port)) {
				FUZZ_CHECK(!(mac[0] & 1) && owner[no] < 0);
				owner[no] = (int)port;
			}
			break;
		case 1: FUZZ_CHECK((mac[0] & 1) || owner[no] < 0 || macs_find(&t, mac, now) == owner[no]); break;
		default:
			if (macs_source(&t, mac, port, now))
				FUZZ_CHECK(!(mac[0] & 1) && (owner[no] < 0 || owner[no] == (int)port));
		}
		FUZZ_CHECK(t.learned[port] <= MACS_LEARNED);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	switch (data[0] % 3) {
	case 0: one_frame(data + 1, len - 1); break;
	case 1: one_stream(data + 1, len - 1); break;
	default: one_switch(data + 1, len - 1);
	}
	return 0;
}

/* ---- inputs to start from ---- */

static size_t tcp_frame(uint8_t *b, bool v6, uint32_t seq, unsigned data)
{
	const unsigned l4 = v6 ? 54 : 34, ip = (v6 ? 0 : 20) + 20 + data;
	static const uint8_t v4[20] = {0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2};

	memset(b, 0, l4 + 20 + data);
	memcpy(b, (uint8_t[]){2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, v6 ? 0x86 : 8, v6 ? 0xdd : 0}, 14);
	if (v6) {
		memcpy(b + 14, (uint8_t[]){0x60, 0, 0, 0, (uint8_t)(ip >> 8), (uint8_t)ip, 6, 64}, 8);
	} else {
		memcpy(b + 14, v4, sizeof v4);
		b[16] = (uint8_t)(ip >> 8);
		b[17] = (uint8_t)ip;
	}
	b[l4 + 6] = (uint8_t)(seq >> 8);
	b[l4 + 7] = (uint8_t)seq;
	b[l4 + 12] = 0x50;
	b[l4 + 13] = 0x10;
	return l4 + 20 + data;
}

static size_t seed_stream(uint8_t *buf, bool v6)
{
	size_t at = 3;

	buf[0] = 1;
	buf[1] = ALL;
	buf[2] = 100;
	for (uint32_t i = 0; i < 5; i++) {
		size_t len = tcp_frame(buf + at + 4, v6, 400 * i, 400);
		buf[at + 2] = (uint8_t)(len >> 8);
		buf[at + 3] = (uint8_t)len;
		at += 4 + len;
	}
	return at;
}

static size_t seed_frame(uint8_t *buf, bool v6, bool gso)
{
	struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM, .csum_start = v6 ? 54 : 34, .csum_offset = 16};

	if (gso) {
		h.gso_type = v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4;
		h.gso_size = 300;
	}
	buf[0] = 0;
	buf[1] = ALL;
	buf[2] = 20;
	memcpy(buf + 3, &h, sizeof h);
	return 3 + sizeof h + tcp_frame(buf + 3 + sizeof h, v6, 1, 2000);
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	if (i < 4)
		return seed_frame(buf, i & 1, i & 2);
	if (i < 6)
		return seed_stream(buf, i & 1);
	if (i > 6)
		return 0;
	for (unsigned k = 0; k < 60; k++)
		buf[1 + k] = (uint8_t)(k * 37);
	buf[0] = 2;
	return 61;
}
