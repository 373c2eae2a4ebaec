/*
 * Walks legacy maps (one-byte, 0F, 0F38, 0F3A), VEX and EVEX maps 1-3 over every
 * opcode, operand-size or mandatory prefix, W, L, b and ModRM byte, and keeps what
 * decodes to an instruction this CPU has.  Encodings that differ only in which
 * registers they name are one form.
 *
 * Invariant: no form is listed by hand; a newer decoder or CPU finds more.
 */
#include "forms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isa.h"

#define FORMS_MAX 20000

static const uint8_t prefix_byte[] = {0, 0x66, 0xf3, 0xf2};

static unsigned put_legacy(uint8_t *p, const struct form *f)
{
	unsigned n = 0;

	if (f->prefix)
		p[n++] = prefix_byte[f->prefix];
	if (f->w)
		p[n++] = 0x48;
	if (f->map)
		p[n++] = 0x0f;
	if (f->map >= 2)
		p[n++] = f->map == 2 ? 0x38 : 0x3a;
	p[n++] = f->opcode;
	return n;
}

static unsigned put_vex(uint8_t *p, const struct form *f, unsigned vvvv)
{
	unsigned pp = f->prefix == FP_66 ? 1 : f->prefix;

	if (f->vex == 2) { /* with a mask, which nearly all can have, where vvvv is 1 or 2 */
		p[0] = 0x62;
		p[1] = 0xf0 | f->map;
		p[2] = (uint8_t)(f->w << 7 | (~(vvvv & 1) & 15) << 3 | 4 | pp);
		p[3] = (uint8_t)(f->l << 5 | f->b << 4 | 8 | vvvv >> 1);
		p[4] = f->opcode;
		return 5;
	}
	p[0] = 0xc4;
	p[1] = 0xe0 | f->map;
	p[2] = (uint8_t)(f->w << 7 | (~vvvv & 15) << 3 | f->l << 2 | pp);
	p[3] = f->opcode;
	return 4;
}

/* Whether the prefix the form was made with matters to the instruction found. */
static int prefix_counts(const struct form *f, const ZydisDecodedInstruction *in)
{
	if (f->vex || !f->prefix)
		return 1;
	for (int i = 0; i < in->raw.prefix_count; i++)
		if (in->raw.prefixes[i].value == prefix_byte[f->prefix])
			return in->raw.prefixes[i].type != ZYDIS_PREFIX_TYPE_IGNORED;
	return 0;
}

static int same_form(const struct form *a, const struct form *b)
{
	return a->vex == b->vex && a->map == b->map && a->opcode == b->opcode && a->prefix == b->prefix &&
	       a->l == b->l && a->b == b->b && a->has_modrm == b->has_modrm && a->mem == b->mem &&
	       a->mnemonic == b->mnemonic && a->opsize[0] == b->opsize[0] && a->opsize[1] == b->opsize[1];
}

static int add_form(struct forms *t, const struct form *f)
{
	/* Forms of one opcode are found together: looking back over its own is enough. */
	for (uint32_t i = t->n; i-- > 0;) {
		struct form *g = &t->f[i];

		if (g->opcode != f->opcode || g->map != f->map || g->vex != f->vex)
			break;
		if (same_form(g, f)) {
			g->combos |= f->combos;
			return 0;
		}
	}
	if (t->n == FORMS_MAX)
		return -1;
	t->f[t->n++] = *f;
	return 0;
}

static uint8_t op_bytes(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops, unsigned i)
{
	return i < in->operand_count ? (uint8_t)(ops[i].size / 8 > 255 ? 255 : ops[i].size / 8) : 0;
}

static int try_one(struct forms *t, struct form f, unsigned modrm, unsigned vvvv)
{
	uint8_t buf[16] = {0};
	unsigned n = f.vex ? put_vex(buf, &f, vvvv) : put_legacy(buf, &f);
	ZydisDecodedInstruction in;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	enum isa_class cls;

	buf[n] = (uint8_t)modrm;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&t->dec, buf, sizeof buf, &in, ops)))
		return -1;
	if (in.opcode != f.opcode || !prefix_counts(&f, &in))
		return 0;
	cls = isa_classify(&in);
	if (cls == ISA_SKIP)
		return 0;
	f.has_modrm = (in.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
	f.mem = f.has_modrm && modrm < 0xc0;
	f.vsib = in.meta.category == ZYDIS_CATEGORY_AVX2GATHER || in.meta.category == ZYDIS_CATEGORY_GATHER ||
		 in.meta.category == ZYDIS_CATEGORY_SCATTER;
	f.faults = cls == ISA_FAULTS;
	f.opsize[0] = op_bytes(&in, ops, 0);
	f.opsize[1] = op_bytes(&in, ops, 1);
	f.mnemonic = (uint16_t)in.mnemonic;
	f.combos = !f.has_modrm ? 1 : f.mem ? 1ull << ((modrm >> 3) & 7) : 1ull << (modrm & 63);
	return add_form(t, &f);
}

static void walk_modrm(struct forms *t, const struct form *f)
{
	for (unsigned m = 0; m < 256; m++) {
		if (m >= 8 && m < 0xc0 && (m & 0xc7))
			continue; /* one memory shape stands for all */
		if (m < 8 && m)
			continue;
		if (try_one(t, *f, m, 0) < 0 && f->vex && try_one(t, *f, m, 1) < 0 && m < 0xc0)
			try_one(t, *f, m | 4, 2); /* gathers want a SIB byte and distinct registers */
	}
}

static int is_prefix_or_escape(const struct forms *t, const struct form *f)
{
	uint8_t o = f->opcode;

	if (f->vex)
		return 0;
	if (f->map == 1)
		return o == 0x38 || o == 0x3a;
	if (f->map)
		return 0;
	return o == 0x0f || o == 0x26 || o == 0x2e || o == 0x36 || o == 0x3e || (o >= 0x64 && o <= 0x67) || o == 0xf0 ||
	       o == 0xf2 || o == 0xf3 || (!t->bits32 && (o & 0xf0) == 0x40);
}

static void walk_evex(struct forms *t)
{
	for (unsigned i = 0; i < 3 * 256 * 64; i++) {
		struct form f = {.vex = 2,
				 .prefix = i & 3,
				 .w = (i >> 2) & 1,
				 .l = (i >> 3) & 3,
				 .b = (i >> 5) & 1,
				 .opcode = (uint8_t)(i >> 6),
				 .map = (uint8_t)(1 + (i >> 14))};

		walk_modrm(t, &f);
	}
}

int forms_build(struct forms *t, int bits32)
{
	struct form f;

	memset(t, 0, sizeof *t);
	t->bits32 = bits32;
	t->f = calloc(FORMS_MAX, sizeof *t->f);
	if (!t->f)
		return -1;
	ZydisDecoderInit(&t->dec, bits32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
			 bits32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
	ZydisDecoderEnableMode(&t->dec, ZYDIS_DECODER_MODE_AMD_BRANCHES, isa_host_is_amd());
	for (unsigned i = 0; i < 7 * 256 * 16; i++) {
		memset(&f, 0, sizeof f);
		f.prefix = i & 3;
		f.w = (i >> 2) & 1;
		f.l = (i >> 3) & 1;
		f.opcode = (uint8_t)(i >> 4);
		f.map = (uint8_t)(i >> 12);
		f.vex = f.map > 3;
		f.map -= f.vex ? 3 : 0;
		if ((!f.vex && (f.l || (f.w && bits32))) || is_prefix_or_escape(t, &f))
			continue;
		walk_modrm(t, &f);
	}
	walk_evex(t);
	return 0;
}

void forms_name(const struct form *f, char *buf, unsigned size)
{
	static const char *const maps[] = {"", "0f ", "0f38 ", "0f3a "}, *const pfx[] = {"", "66 ", "f3 ", "f2 "};
	static const char *const evex[] = {"evex128 ", "evex256 ", "evex512 ", "evex "};

	snprintf(buf, size, "%s%s%s%02x%s%s %s/%u,%u %s",
		 f->vex == 2 ? evex[f->l]
		 : f->vex    ? (f->l ? "vex256 " : "vex ")
			     : "",
		 pfx[f->prefix], maps[f->map], f->opcode,
		 f->w   ? f->b ? " w b" : " w"
		 : f->b ? " b"
			: "",
		 f->has_modrm ? (f->mem ? " m" : " r") : "", ZydisMnemonicGetString(f->mnemonic), f->opsize[0] * 8,
		 f->opsize[1] * 8, f->faults ? "(faults)" : "");
}
