/*
 * Random values biased to where instructions change their behaviour: powers of
 * two and their neighbours, denormals, NaNs, infinities, odd control words.
 *
 * Invariant: a state made here can be loaded by XRSTOR (no reserved bit set).
 */
#include "values.h"

#include <string.h>

#include "isa.h"

uint64_t value_int(struct rng *r)
{
	switch (below(r, 6)) {
	case 0: return rnd(r);
	case 1: return below(r, 64);
	case 2: return (1ull << below(r, 64)) - below(r, 3) + 1;
	case 3: return (uint64_t) - (int64_t)below(r, 64);
	case 4: return wr_page[below(r, WR_PAGES)] + below(r, PG);
	default: return rnd(r) >> below(r, 64);
	}
}

static uint64_t float_bits(struct rng *r, unsigned exp_bits, unsigned man_bits)
{
	uint64_t exp_max = (1ull << exp_bits) - 1, man = rnd(r) & ((1ull << man_bits) - 1), exp = exp_max / 2;
	uint64_t sign = rnd(r) & 1;

	switch (below(r, 12)) {
	case 0: exp = 0, man = 0; break;
	case 1: exp = 0; break; /* denormal */
	case 2: exp = exp_max, man = 0; break;
	case 3: exp = exp_max; break; /* NaN, either kind */
	case 4: exp = rnd(r) & exp_max; break;
	case 5: man = 0; break; /* one */
	case 6: exp = exp_max - 1 - below(r, 2); break;
	case 7: exp = 1 + below(r, 2); break;
	default: exp += below(r, 70) - 4; break;
	}
	return sign << (exp_bits + man_bits) | (exp & exp_max) << man_bits | man;
}

static void fill_elements(struct rng *r, uint8_t *p, unsigned len, unsigned kind)
{
	for (unsigned i = 0; i < len; i += 8) {
		uint64_t v;

		if (kind == 0)
			v = float_bits(r, 8, 23) | float_bits(r, 8, 23) << 32;
		else if (kind == 1)
			v = float_bits(r, 11, 52);
		else if (kind == 2)
			v = float_bits(r, 5, 10) | float_bits(r, 5, 10) << 16 | float_bits(r, 5, 10) << 32 |
			    float_bits(r, 5, 10) << 48;
		else if (kind == 3)
			v = value_int(r);
		else
			v = rnd(r);
		memcpy(p + i, &v, 8);
	}
}

void value_vector(struct rng *r, uint8_t *p, unsigned len)
{
	fill_elements(r, p, len, below(r, 10) * 5 / 10);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void value_st(struct rng *r, uint8_t *p)
{
	uint64_t man = rnd(r) | 1ull << 63;
	unsigned exp = 0x3fff;

	switch (below(r, 12)) {
	case 0: exp = 0, man = 0; break;
	case 1: exp = 0, man >>= 1 + below(r, 60); break;
	case 2: exp = 0x7fff, man = 1ull << 63; break;
	case 3: exp = 0x7fff; break;
	case 4: man = 1ull << 63; break;
	case 5: man >>= 1; break; /* unnormal: invalid operand */
	case 6: exp = (unsigned)rnd(r) & 0x7fff; break;
	case 7: exp = 0xffff & 0x7fff, man = rnd(r); break; /* or an MMX value */
	default: exp += below(r, 70) - 4; break;
	}
	memcpy(p, &man, 8);
	put16(p + 8, exp | (unsigned)(rnd(r) & 0x8000));
}

static void value_x87(struct rng *r, uint8_t *xs)
{
	unsigned fcw = 0x37f, fsw, top = below(r, 8);

	if (one_in(r, 3))
		fcw = 0x40 | 0x3f | (unsigned)(rnd(r) & 0xf00);
	if (one_in(r, 12))
		fcw = 0x40 | (unsigned)(rnd(r) & 0xf3f);
	fsw = top << 11 | (unsigned)(rnd(r) & 0x4700);
	if (one_in(r, 3))
		fsw |= (unsigned)(rnd(r) & 0x7f);
	if (!one_in(r, 6)) /* mostly no pending exception */
		fsw &= ~0x3fu | (fcw & 0x3f);
	if (fsw & ~fcw & 0x3f)
		fsw |= 0x8080;
	put16(xs + XS_FCW, fcw);
	put16(xs + XS_FSW, fsw);
	xs[XS_FTW] = (uint8_t)(one_in(r, 3) ? rnd(r) : one_in(r, 2) ? 0xffu : 0x0fu << below(r, 5));
	for (int i = 0; i < 8; i++)
		value_st(r, xs + XS_ST + 16 * i);
}

static uint64_t value_mask(struct rng *r)
{
	switch (below(r, 8)) {
	case 0: return 0;
	case 1: return ~0ull;
	case 2: return 1ull << below(r, 64);
	case 3: return (1ull << below(r, 64)) - 1;
	case 4: return ~0ull << below(r, 20);
	default: return rnd(r);
	}
}

/* AVX-512's state is tested as it is at first, too. */
static void value_avx512(struct rng *r, uint8_t *xs, unsigned kind)
{
	uint64_t mask;

	if (!isa_has_avx512())
		return;
	for (int i = 0; i < 8; i++) {
		mask = value_mask(r);
		memcpy(xs + isa_xs_off(XS_MASKS) + 8 * i, &mask, 8);
	}
	for (int i = 0; i < 16; i++) {
		unsigned k = one_in(r, 4) ? below(r, 5) : kind;

		fill_elements(r, xs + isa_xs_off(XS_ZMM_HI) + 32 * i, 32, k);
		fill_elements(r, xs + isa_xs_off(XS_ZMM_16) + 64 * i, 64, k);
	}
	xs[XS_BV] |= 0xe0;
}

static void value_xs(struct rng *r, uint8_t *xs)
{
	uint32_t mxcsr = 0x1f80;
	unsigned kind = below(r, 5);

	memset(xs, 0, XS_SIZE);
	value_x87(r, xs);
	if (one_in(r, 3))
		mxcsr |= rnd(r) & 0xe07f;
	if (one_in(r, 12))
		mxcsr = rnd(r) & 0xffff;
	memcpy(xs + XS_MXCSR, &mxcsr, 4);
	for (int i = 0; i < 16; i++) { /* one kind in all of them is best for arithmetic, but not always */
		unsigned k = one_in(r, 4) ? below(r, 5) : kind;

		fill_elements(r, xs + XS_XMM + 16 * i, 16, k);
		fill_elements(r, xs + XS_YMMH + 16 * i, 16, k);
	}
	xs[XS_BV] = 7;
	value_avx512(r, xs, kind);
}

void value_state(struct rng *r, struct cpu_state *st, int bits32)
{
	uint64_t fl = rnd(r) & 0x8d5;

	for (int i = 0; i < 16; i++)
		st->gpr[i] = value_int(r);
	st->gpr[4] = STACK_BASE + PG / 2 + (below(r, PG) & ~7ull);
	if (one_in(r, 16))
		st->gpr[4] += below(r, 64);
	if (one_in(r, 24))
		st->gpr[4] = STACK_BASE + (one_in(r, 2) ? 2 * PG : 0) + below(r, 24) - 12;
	if (one_in(r, 6))
		fl |= 0x400; /* DF */
	if (one_in(r, 8))
		fl |= 0x40000; /* AC */
	st->rflags = fl | 0x202;
	st->fsbase = one_in(r, 2) ? below(r, 0x10000) : DATA_BASE + below(r, PG);
	st->gsbase = one_in(r, 2) ? DATA_BASE - below(r, 0x10000) : (uint64_t)((int64_t)(rnd(r) << 16) >> 16);
	if (bits32) {
		for (int i = 0; i < 8; i++)
			st->gpr[i] &= 0xffffffffull;
		for (int i = 8; i < 16; i++)
			st->gpr[i] = 0;
		st->gsbase &= 0xffffffffull;
	}
	value_xs(r, st->xs);
}

void value_image(struct rng *r, uint8_t *image)
{
	struct cpu_state st;

	for (uint32_t i = 0; i < IMG_SIZE; i += LINE) {
		value_vector(r, image + i, LINE);
		if (one_in(r, 4)) /* runs of one byte, for repe */
			memset(image + i, one_in(r, 2) ? 0 : (int)rnd(r), LINE);
	}
	value_state(r, &st, 0);
	memcpy(image + (GOOD_XSAVE - DATA_BASE), st.xs, XS_SIZE);
}
