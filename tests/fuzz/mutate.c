/*
 * Mutations of a fuzz input.
 *
 * Invariant: every function keeps len <= cap and touches nothing beyond it.
 */
#include "tests/fuzz/mutate.h"

#include <string.h>

struct input {
	uint8_t *buf;
	size_t len, cap;
	const uint8_t *other;
	size_t other_len;
};

typedef void mutation(struct rng *r, struct input *in);

static void flip_bit(struct rng *r, struct input *in)
{
	if (in->len)
		in->buf[below(r, (uint32_t)in->len)] ^= (uint8_t)(1u << below(r, 8));
}

static void random_byte(struct rng *r, struct input *in)
{
	if (in->len)
		in->buf[below(r, (uint32_t)in->len)] = (uint8_t)rnd(r);
}

static void truncate_end(struct rng *r, struct input *in)
{
	if (in->len > 1)
		in->len = 1 + below(r, (uint32_t)in->len - 1);
}

static void insert(struct rng *r, struct input *in)
{
	size_t n = 1 + below(r, one_in(r, 8) ? 1024 : 8), at = below(r, (uint32_t)in->len + 1);
	uint8_t fill = (uint8_t)rnd(r);
	int same = one_in(r, 2);

	if (n > in->cap - in->len)
		return;
	memmove(in->buf + at + n, in->buf + at, in->len - at);
	for (size_t i = 0; i < n; i++)
		in->buf[at + i] = same ? fill : (uint8_t)rnd(r);
	in->len += n;
}

static void erase(struct rng *r, struct input *in)
{
	size_t at, n;

	if (in->len < 2)
		return;
	at = below(r, (uint32_t)in->len);
	n = 1 + below(r, one_in(r, 8) ? 256 : 8);
	if (n > in->len - at)
		n = in->len - at;
	memmove(in->buf + at, in->buf + at + n, in->len - at - n);
	in->len -= n;
}

/* Writes an integer at the edge of some width, or moves the one that is there a little. */
static void edge(struct rng *r, struct input *in)
{
	static const uint64_t edges[] = {
		0,          1,           2,       0x7f,       0x80,       0xff,      0x100,      0x7fff,     0x8000,
		0xffff,     0x10000,     0xfffff, 0x100000,   0x1ff000,   0x200000,  0x7fffffff, 0x80000000, 0xfffff000,
		0xffffffff, 0x100000000, ~0ull,   ~0ull >> 1, 1ull << 63, ~0xfffull, 0xc0000000};
	size_t size = 1u << below(r, 4), at;
	uint64_t v = 0;

	if (in->len < size)
		return;
	at = below(r, (uint32_t)(in->len - size + 1));
	if (one_in(r, 2))
		at &= ~(size - 1);
	memcpy(&v, in->buf + at, size);
	if (one_in(r, 2))
		v += below(r, 33) - 16ull;
	else
		v = edges[below(r, sizeof edges / sizeof edges[0])] - below(r, 2);
	memcpy(in->buf + at, &v, size);
}

static void copy_within(struct rng *r, struct input *in)
{
	size_t n, from, to;

	if (in->len < 2)
		return;
	n = 1 + below(r, in->len > 64 ? 64 : (uint32_t)in->len - 1);
	from = below(r, (uint32_t)(in->len - n + 1));
	to = below(r, (uint32_t)(in->len - n + 1));
	memmove(in->buf + to, in->buf + from, n);
}

/* The start of this one, the end of another. */
static void splice(struct rng *r, struct input *in)
{
	size_t at = below(r, (uint32_t)in->len + 1), from, n;

	if (!in->other_len)
		return;
	from = one_in(r, 2) ? below(r, (uint32_t)in->other_len) : at < in->other_len ? at : 0;
	n = in->other_len - from;
	if (n > in->cap - at)
		n = in->cap - at;
	memcpy(in->buf + at, in->other + from, n);
	in->len = at + n;
}

size_t mutate(struct rng *r, uint8_t *buf, size_t len, size_t cap, const uint8_t *other, size_t other_len)
{
	static mutation *const all[] = {flip_bit, flip_bit, random_byte, edge,   edge,     edge,
					insert,   erase,    copy_within, splice, flip_bit, truncate_end};
	struct input in = {buf, len, cap, other, other_len};

	for (unsigned n = 1 + below(r, one_in(r, 4) ? 8 : 3); n; n--)
		all[below(r, sizeof all / sizeof all[0])](r, &in);
	if (!in.len)
		buf[in.len++] = (uint8_t)rnd(r);
	return in.len;
}
