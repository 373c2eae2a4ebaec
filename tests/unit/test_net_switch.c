/* devices/net/macs and stream: learning, ageing, whose address is whose; frames in a stream cut anywhere. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net/frame.h"
#include "devices/net/macs.h"
#include "devices/net/stream.h"
#include "tests/insn/rng.h"

static struct macs t;

static const uint8_t *mac(unsigned n)
{
	static uint8_t m[4][6];
	static unsigned next;
	uint8_t *p = m[next++ % 4];

	memcpy(p, (uint8_t[]){0x52, 0x54, 0, (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}, 6);
	return p;
}

static void test_own(void)
{
	macs_init(&t, 300, false);
	CU_ASSERT_TRUE(macs_own(&t, mac(1), 0));
	CU_ASSERT_FALSE(macs_own(&t, mac(1), 1));
	CU_ASSERT_FALSE(macs_own(&t, (const uint8_t[]){1, 0, 0x5e, 0, 0, 1}, 1));
	CU_ASSERT_FALSE(macs_own(&t, (const uint8_t[]){0, 0, 0, 0, 0, 0}, 1));
	CU_ASSERT_TRUE(macs_own(&t, mac(2), 1));
	CU_ASSERT_TRUE(macs_source(&t, mac(1), 0, 5));
	CU_ASSERT_FALSE(macs_source(&t, mac(1), 1, 5));
	CU_ASSERT_FALSE(macs_source(&t, mac(1), 1, 100000)); /* never too old */
	CU_ASSERT_EQUAL(macs_find(&t, mac(2), 100000), 1);
	macs_forget(&t, 1);
	CU_ASSERT_EQUAL(macs_find(&t, mac(2), 5), -1);
	CU_ASSERT_TRUE(macs_own(&t, mac(2), 3));
}

static void test_learning(void)
{
	macs_init(&t, 300, false);
	CU_ASSERT_TRUE(macs_source(&t, mac(7), 4, 10));
	CU_ASSERT_EQUAL(macs_find(&t, mac(7), 309), 4);
	CU_ASSERT_FALSE(macs_source(&t, mac(7), 5, 309)); /* which does not keep it alive either */
	CU_ASSERT_EQUAL(macs_find(&t, mac(7), 310), -1);
	CU_ASSERT_TRUE(macs_source(&t, mac(7), 5, 310));
	CU_ASSERT_TRUE(macs_source(&t, mac(7), 5, 600));
	CU_ASSERT_FALSE(macs_source(&t, mac(7), 4, 800));
	CU_ASSERT_FALSE(macs_source(&t, (const uint8_t[]){0x33, 0x33, 0, 0, 0, 1}, 4, 800));
	CU_ASSERT_TRUE(macs_own(&t, mac(7), 6)); /* its owner */
	CU_ASSERT_EQUAL(macs_find(&t, mac(7), 800), 6);
	CU_ASSERT_EQUAL(t.learned[5], 0);
	macs_init(&t, 300, true);
	CU_ASSERT_TRUE(macs_own(&t, mac(1), 0));
	CU_ASSERT_TRUE(macs_source(&t, mac(1), 0, 1));
	CU_ASSERT_FALSE(macs_source(&t, mac(2), 0, 1));
}

/* One port cannot fill the table: it has a share, and what is too old makes room. */
static void test_full(void)
{
	unsigned ok = 0;

	macs_init(&t, 300, false);
	for (unsigned p = 0; p < MACS_PORTS; p++) {
		CU_ASSERT_TRUE(macs_own(&t, mac(p), p));
		for (unsigned i = 0; i < 100; i++)
			ok += macs_source(&t, mac(0x10000 * (p + 1) + i), p, 5);
	}
	CU_ASSERT_EQUAL(ok, MACS_PORTS * MACS_LEARNED);
	CU_ASSERT_EQUAL(t.free, 0);
	CU_ASSERT_TRUE(macs_source(&t, mac(0x20000 + 99), 1, 305));
	CU_ASSERT_EQUAL(t.learned[1], 1);
	CU_ASSERT_EQUAL(t.learned[2], MACS_LEARNED);
	for (unsigned p = 0; p < MACS_PORTS; p++)
		macs_forget(&t, p);
	for (unsigned p = 0; p < MACS_PORTS; p++)
		CU_ASSERT_EQUAL(t.learned[p], 0);
	unsigned n = 0;
	for (uint16_t i = t.free; i; i = t.e[i].next)
		n++;
	CU_ASSERT_EQUAL(n, MACS_MAX);
}

/* Against a plain list. */
static void test_random(void)
{
	struct {
		unsigned port;
		uint64_t seen;
		bool known, own;
	} model[40] = {0};
	struct rng r;
	uint64_t now = 0;

	r.s = 1;
	macs_init(&t, 50, false);
	for (int i = 0; i < 200000; i++) {
		unsigned m = below(&r, 40), p = below(&r, 6);
		now += below(&r, 4) == 0;
		if (model[m].known && !model[m].own && now - model[m].seen >= 50)
			model[m].known = false;
		switch (below(&r, 50)) {
		case 0:
			macs_forget(&t, p);
			for (unsigned k = 0; k < 40; k++)
				model[k].known &= model[k].port != p;
			break;
		case 1:
			CU_ASSERT_EQUAL_FATAL(macs_own(&t, mac(m), p), !(model[m].known && model[m].own));
			if (!(model[m].known && model[m].own)) {
				model[m].port = p;
				model[m].known = model[m].own = true;
			}
			macs_forget(&t, p); /* a port has one address of its own */
			for (unsigned k = 0; k < 40; k++)
				model[k].known &= model[k].port != p;
			break;
		case 2 ... 20:
			CU_ASSERT_EQUAL_FATAL(macs_find(&t, mac(m), now), model[m].known ? (int)model[m].port : -1);
			break;
		default:
			CU_ASSERT_EQUAL_FATAL(macs_source(&t, mac(m), p, now), !model[m].known || model[m].port == p);
			if (!model[m].known) {
				model[m].port = p;
				model[m].known = true;
				model[m].own = false;
			}
			if (model[m].port == p)
				model[m].seen = now;
		}
	}
}

/* ---- the stream ---- */

#define SIZE (3u * (STREAM_PREFIX + STREAM_FRAME_MAX))

static size_t fill(uint8_t *b, const uint32_t *len, unsigned n)
{
	size_t end = 0;

	for (unsigned i = 0; i < n; i++) {
		b[end] = b[end + 1] = 0;
		b[end + 2] = (uint8_t)(len[i] >> 8);
		b[end + 3] = (uint8_t)len[i];
		memset(b + end + 4, (int)(i + 1), len[i]);
		end += 4 + len[i];
	}
	return end;
}

/* Takes what is whole; checks that it is the next frames. */
static unsigned drain(struct stream *s, const uint32_t *len, unsigned from)
{
	uint8_t *p;
	uint32_t n;

	for (; stream_peek(s, &p, &n) > 0; from++) {
		CU_ASSERT_EQUAL_FATAL(n, len[from]);
		CU_ASSERT_TRUE_FATAL(p[0] == (uint8_t)(from + 1) && p[n - 1] == (uint8_t)(from + 1));
		stream_take(s, STREAM_PREFIX + n);
	}
	return from;
}

static void receive(struct stream *s, const uint8_t *b, size_t len)
{
	while (len) {
		size_t room = stream_room(s), k = room < len ? room : len;
		CU_ASSERT_FATAL(k > 0);
		memcpy(s->buf + s->tail, b, k);
		s->tail += k;
		b += k;
		len -= k;
	}
}

/* Every place to cut: once, and in pieces of every size. */
static void test_cut(void)
{
	static uint8_t b[1000];
	const uint32_t len[] = {14, 60, 15, 100, 14, 77};
	uint8_t *buf = malloc(SIZE);
	size_t end = fill(b, len, 6);

	for (size_t at = 0; at <= end; at++) {
		struct stream s = {.buf = buf, .size = SIZE};
		receive(&s, b, at);
		unsigned n = drain(&s, len, 0);
		receive(&s, b + at, end - at);
		CU_ASSERT_EQUAL(drain(&s, len, n), 6);
		CU_ASSERT_EQUAL(s.tail, 0);
	}
	for (size_t piece = 1; piece < end; piece++) {
		struct stream s = {.buf = buf, .size = SIZE};
		unsigned n = 0;
		for (size_t at = 0; at < end; at += piece) {
			receive(&s, b + at, end - at < piece ? end - at : piece);
			n = drain(&s, len, n);
		}
		CU_ASSERT_EQUAL(n, 6);
	}
	free(buf);
}

/* The largest frames, received in odd pieces, taken late: there is always room for the next, or a frame to take. */
static void test_room(void)
{
	enum { N = 200 };
	static uint32_t len[N];
	uint8_t *b = malloc(N * (STREAM_PREFIX + STREAM_FRAME_MAX)), *buf = malloc(SIZE);
	struct stream s = {.buf = buf, .size = SIZE};
	struct rng r;
	size_t at = 0;
	unsigned n = 0;

	r.s = 7;
	for (unsigned i = 0; i < N; i++)
		len[i] = below(&r, 2) ? STREAM_FRAME_MAX : 14 + below(&r, 3000);
	size_t end = fill(b, len, N);
	while (n < N) {
		size_t room = stream_room(&s), want = 1 + below(&r, 100000), k = room < want ? room : want;
		k = k < end - at ? k : end - at;
		memcpy(buf + s.tail, b + at, k);
		s.tail += k;
		at += k;
		uint8_t *p;
		uint32_t l;
		if (below(&r, 3) == 0 || !stream_room(&s)) {
			CU_ASSERT_FATAL(stream_room(&s) || stream_peek(&s, &p, &l) == 1);
			n = drain(&s, len, n);
		}
	}
	free(b);
	free(buf);
}

static void test_nonsense(void)
{
	uint8_t b[STREAM_PREFIX + 20] = {0}, *p;
	struct stream s = {.buf = b, .size = sizeof b, .tail = 4};
	uint32_t len;

	b[3] = 13;
	CU_ASSERT_EQUAL(stream_peek(&s, &p, &len), -EPROTO);
	b[1] = 1;
	CU_ASSERT_EQUAL(stream_peek(&s, &p, &len), -EPROTO);
	b[0] = 0xff;
	CU_ASSERT_EQUAL(stream_peek(&s, &p, &len), -EPROTO);
	s.tail = 3;
	CU_ASSERT_EQUAL(stream_peek(&s, &p, &len), 0);
}

CU_ErrorCode suite_net_switch(void)
{
	CU_pSuite s = CU_add_suite("net_switch", NULL, NULL);

	if (!s || !CU_add_test(s, "a port's own address", test_own) || !CU_add_test(s, "learning", test_learning) ||
	    !CU_add_test(s, "a full table", test_full) || !CU_add_test(s, "against a list", test_random) ||
	    !CU_add_test(s, "a stream cut anywhere", test_cut) || !CU_add_test(s, "room in the buffer", test_room) ||
	    !CU_add_test(s, "impossible lengths", test_nonsense))
		return CU_get_error();
	return CUE_SUCCESS;
}
