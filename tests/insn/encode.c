/*
 * Builds random encodings of a form: REX, VEX or EVEX register bits, any ModRM / SIB
 * memory shape, displacement and address sizes, segment overrides, lock, a
 * redundant prefix now and then, and a random immediate.
 *
 * Invariant: what is returned decodes to the mnemonic and operand kind of the form.
 */
#include "encode.h"

#include <string.h>

#include "isa.h"

static const uint8_t prefix_byte[] = {0, 0x66, 0xf3, 0xf2};

struct bits {                    /* the register fields chosen */
	uint8_t modrm, sib, rex; /* rex: the low nibble */
	uint8_t upper;           /* EVEX: R' in bit 1, V' in bit 0 */
	uint8_t has_sib;
	uint8_t disp; /* bytes */
	uint8_t addr32;
};

static unsigned pick_bit(struct rng *r, uint64_t set)
{
	unsigned n = below(r, (uint32_t)__builtin_popcountll(set));

	while (n--)
		set &= set - 1;
	return (unsigned)__builtin_ctzll(set);
}

/* [base + index * scale + disp] with registers from the allowed sets. */
static void limited_mem(struct bits *b, struct rng *r, const struct encode_limits *lim, unsigned reg, int vsib)
{
	unsigned base = pick_bit(r, lim->base_ok), idx = 4, mod = 1 + below(r, 2);

	if (vsib)
		idx = below(r, 16);
	else if (lim->index_ok && one_in(r, 3))
		idx = pick_bit(r, lim->index_ok);
	b->disp = mod == 1 ? 1 : 4;
	b->rex |= base >> 3;
	if (!vsib && idx == 4 && (base & 7) != 4 && one_in(r, 2)) {
		b->modrm = (uint8_t)(mod << 6 | reg << 3 | (base & 7));
		return;
	}
	b->modrm = (uint8_t)(mod << 6 | reg << 3 | 4);
	b->sib = (uint8_t)(below(r, 4) << 6 | (idx & 7) << 3 | (base & 7));
	b->has_sib = 1;
	b->rex |= (idx >> 3) << 1;
}

static void random_mem(struct bits *b, struct rng *r, const struct encode_limits *lim, unsigned reg, int addr16,
		       int vsib)
{
	unsigned mod = below(r, 3), rm = vsib ? 4 : below(r, 8);

	if (lim->base_ok) {
		limited_mem(b, r, lim, reg, vsib);
		return;
	}
	b->modrm = (uint8_t)(mod << 6 | reg << 3 | rm);
	b->rex |= (uint8_t)below(r, 4);
	if (addr16) {
		b->disp = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
		return;
	}
	b->disp = mod == 1 ? 1 : mod == 2 || rm == 5 ? 4 : 0;
	if (rm != 4)
		return;
	b->has_sib = 1;
	b->sib = (uint8_t)rnd(r);
	if (mod == 0)
		b->disp = (b->sib & 7) == 5 ? 4 : 0;
}

static void pick_modrm(struct bits *b, const struct form *f, struct rng *r, const struct encode_limits *lim, int addr16)
{
	unsigned c = pick_bit(r, f->combos);

	if (f->mem) {
		random_mem(b, r, lim, c, addr16, f->vsib);
	} else {
		b->modrm = (uint8_t)(0xc0 | c);
		b->rex |= (uint8_t)below(r, f->vex == 2 ? 4 : 2);
	}
	b->rex |= (uint8_t)(below(r, 2) << 2);
}

static unsigned put_prefixes(uint8_t *p, const struct form *f, struct rng *r, const struct encode_limits *lim,
			     int bits32, int *addr_small)
{
	static const uint8_t seg[] = {0x64, 0x65, 0x64, 0x65, 0x2e, 0x36, 0x3e, 0x26};
	unsigned n = 0;

	if (!lim->plain && one_in(r, 6))
		p[n++] = seg[below(r, 8)];
	if (!lim->plain && one_in(r, bits32 ? 16 : 8)) {
		p[n++] = 0x67;
		*addr_small = 1;
	}
	if (f->mem && !f->vex && one_in(r, 4))
		p[n++] = 0xf0;
	if (!lim->plain && !f->vex && !bits32 && one_in(r, 24)) /* a REX that says nothing, unless it comes last */
		p[n++] = (uint8_t)(0x40 | below(r, 16));
	if (!f->vex && f->prefix)
		p[n++] = prefix_byte[f->prefix];
	if (!lim->plain && !f->vex && one_in(r, 32))
		p[n++] = prefix_byte[1 + below(r, 3)];
	return n;
}

/* Now and then zeroing or a broadcast where there is none: the decoder sorts that out. */
static unsigned put_evex(uint8_t *p, const struct form *f, struct rng *r, const struct bits *b, unsigned vvvv,
			 unsigned pp)
{
	unsigned k = one_in(r, 3) && !f->vsib ? 0 : 1 + below(r, 7), z = k && !f->vsib && one_in(r, 3);

	p[0] = 0x62;
	p[1] = (uint8_t)((~b->rex & 7) << 5 | (~b->upper & 2) << 3 | f->map);
	p[2] = (uint8_t)(f->w << 7 | (~vvvv & 15) << 3 | 4 | pp);
	p[3] = (uint8_t)(z << 7 | f->l << 5 | f->b << 4 | (~b->upper & 1) << 3 | k);
	p[4] = f->opcode;
	return 5;
}

static unsigned put_opcode(uint8_t *p, const struct form *f, struct rng *r, const struct bits *b, int bits32,
			   unsigned vvvv)
{
	unsigned n = 0, pp = f->prefix == FP_66 ? 1 : f->prefix == FP_F3 ? 2 : f->prefix == FP_F2 ? 3 : 0;
	unsigned rxb = ~b->rex & (bits32 && one_in(r, 4) ? 6 : 7); /* 32-bit code has no use for B */

	if (f->vex == 2)
		return put_evex(p, f, r, b, vvvv, pp);
	if (f->vex && f->map == 1 && !f->w && (rxb & 3) == 3 && (!bits32 || vvvv < 8) && one_in(r, 2)) {
		p[n++] = 0xc5;
		p[n++] = (uint8_t)((rxb >> 2) << 7 | (~vvvv & 15) << 3 | f->l << 2 | pp);
	} else if (f->vex) {
		p[n++] = 0xc4;
		p[n++] = (uint8_t)(rxb << 5 | f->map);
		/* the other W now and then: most ignore it (vpextrd and vpinsrd of 32-bit code differ by vendor) */
		unsigned flip = one_in(r, 8) && !(bits32 && f->map == 3 && (f->opcode == 0x16 || f->opcode == 0x22));

		p[n++] = (uint8_t)((f->w ^ flip) << 7 | (~vvvv & 15) << 3 | f->l << 2 | pp);
	} else {
		if (!bits32 && (f->w || b->rex || one_in(r, 6)))
			p[n++] = (uint8_t)(0x40 | f->w << 3 | b->rex);
		if (f->map)
			p[n++] = 0x0f;
		if (f->map >= 2)
			p[n++] = f->map == 2 ? 0x38 : 0x3a;
	}
	p[n++] = f->opcode;
	return n;
}

static unsigned put_tail(uint8_t *p, const struct form *f, struct rng *r, const struct bits *b,
			 const struct encode_limits *lim)
{
	uint64_t v = rnd(r);
	unsigned n = 0;

	if (f->has_modrm)
		p[n++] = b->modrm;
	if (b->has_sib)
		p[n++] = b->sib;
	if (b->disp) {
		int32_t d = !lim->base_ok && one_in(r, 4) ? (int32_t)rnd(r) : (int32_t)below(r, 512) - 256;

		if (lim->base_ok && !one_in(r, 4))
			d &= ~31; /* keep the base's alignment */
		if (lim->base_ok && f->vex == 2 && b->disp == 1)
			d = (int32_t)below(r, 5) - 2; /* multiplied by up to 64 */
		memcpy(p + n, &d, b->disp);
		n += b->disp;
	}
	switch (below(r, 4)) {
	case 0: v = below(r, 16); break;
	case 1: v = below(r, 2) ? 0x8080808080808080ull : ~0ull; break;
	default: break;
	}
	memcpy(p + n, &v, 8);
	return n + 8;
}

static int matches(const struct form *f, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops)
{
	int mem = 0;

	for (unsigned i = 0; i < in->operand_count; i++)
		mem |= ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY && ops[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
	if (in->opcode != f->opcode || isa_classify(in) == ISA_SKIP)
		return 0;
	return in->mnemonic == f->mnemonic &&
	       (!f->mem || mem || f->faults || in->meta.category == ZYDIS_CATEGORY_WIDENOP);
}

int encode_redecode(const struct forms *t, struct insn_inst *out)
{
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&t->dec, out->bytes, 15, &out->in, out->ops)) ? 0 : -1;
}

static void encode_once(const struct forms *t, const struct form *f, struct rng *r, const struct encode_limits *lim,
			struct insn_inst *out, unsigned vvvv)
{
	uint8_t buf[40] = {0};
	struct bits b = {0};
	int addr_small = 0;
	unsigned n = put_prefixes(buf, f, r, lim, t->bits32, &addr_small);

	if (f->has_modrm)
		pick_modrm(&b, f, r, lim, t->bits32 && addr_small);
	else
		b.rex = (uint8_t)below(r, 2);
	b.upper = (uint8_t)(f->vex == 2 ? below(r, 4) & (vvvv ? 3 : 2 | f->vsib) : 0);
	if (t->bits32 || lim->plain == 2)
		b.rex = b.upper = 0;
	n += put_opcode(buf + n, f, r, &b, t->bits32, vvvv);
	put_tail(buf + n, f, r, &b, lim);
	memcpy(out->bytes, buf, 15);
	out->bytes[15] = 0;
}

int encode_random(const struct forms *t, const struct form *f, struct rng *r, const struct encode_limits *lim,
		  struct insn_inst *out)
{
	out->form = f;
	for (int i = 0; i < 24; i++) {
		encode_once(t, f, r, lim, out, i & 1 ? 0 : below(r, 16));
		if (encode_redecode(t, out) == 0 && matches(f, &out->in, out->ops))
			return 0;
	}
	return -1;
}

unsigned vector_number(ZydisRegister reg)
{
	return (unsigned)(reg - (reg >= ZYDIS_REGISTER_ZMM0   ? ZYDIS_REGISTER_ZMM0
				 : reg >= ZYDIS_REGISTER_YMM0 ? ZYDIS_REGISTER_YMM0
							      : ZYDIS_REGISTER_XMM0));
}

int gpr_of(ZydisRegister reg)
{
	ZydisRegister big = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	if (big < ZYDIS_REGISTER_RAX || big > ZYDIS_REGISTER_R15)
		return -1;
	return (int)(big - ZYDIS_REGISTER_RAX);
}
