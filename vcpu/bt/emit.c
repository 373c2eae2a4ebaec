/*
 * Host code, one instruction form a function.
 * Invariant: nothing here looks at guest state; the caller chose the registers.
 */
#include "vcpu/bt/emit.h"

void emit32(struct emit *c, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		emit8(c, (uint8_t)(v >> (8 * i)));
}

void emit64(struct emit *c, uint64_t v)
{
	emit32(c, (uint32_t)v);
	emit32(c, (uint32_t)(v >> 32));
}

uint8_t emit_rex_xb(struct hmem m)
{
	return (uint8_t)((m.index != R_NONE && m.index > 7 ? 2 : 0) | (m.base != R_NONE && m.base > 7 ? 1 : 0));
}

static uint8_t scale_bits(uint8_t scale)
{
	return scale == 8 ? 0xc0 : scale == 4 ? 0x80 : scale == 2 ? 0x40 : 0;
}

/* mod/displacement for a base register: 0 none, 1 disp8, 2 disp32. */
static uint8_t disp_mod(struct hmem m)
{
	if (m.disp == 0 && (m.base & 7) != R_BP)
		return 0;
	return m.disp >= -128 && m.disp <= 127 ? 0x40 : 0x80;
}

/* @bytes: a displacement of one byte counts bytes; EVEX multiplies it (SDM 2A 2.7.5), so all but 0 take four there. */
static void emit_modrm_scaled(struct emit *c, uint8_t reg, struct hmem m, bool bytes)
{
	uint8_t r = (uint8_t)((reg & 7) << 3), mod;

	if (m.base == R_NONE) {
		/* SIB without base: [index*scale + disp32] or [disp32] */
		emit8(c, r | 4);
		emit8(c, (uint8_t)(scale_bits(m.scale) | (m.index == R_NONE ? 4 << 3 : (m.index & 7) << 3) | 5));
		emit32(c, (uint32_t)m.disp);
		return;
	}
	mod = disp_mod(m);
	if (!bytes && m.disp && mod == 0x40)
		mod = 0x80;
	if (m.index == R_NONE && (m.base & 7) != R_SP) {
		emit8(c, (uint8_t)(mod | r | (m.base & 7)));
	} else {
		emit8(c, mod | r | 4);
		emit8(c, (uint8_t)(scale_bits(m.scale) | (m.index == R_NONE ? 4 << 3 : (m.index & 7) << 3) |
				   (m.base & 7)));
	}
	if (mod == 0x40)
		emit8(c, (uint8_t)m.disp);
	else if (mod == 0x80)
		emit32(c, (uint32_t)m.disp);
}

void emit_modrm_mem(struct emit *c, uint8_t reg, struct hmem m)
{
	emit_modrm_scaled(c, reg, m, true);
}

/* Prefix, REX and opcode bytes. */
static void emit_head(struct emit *c, uint8_t rex, uint32_t op)
{
	int n = op > 0xffffff ? 4 : op > 0xffff ? 3 : op > 0xff ? 2 : 1;
	uint8_t first = (uint8_t)(op >> (8 * (n - 1)));

	if (n > 1 && (first == 0x66 || first == 0xf2 || first == 0xf3)) {
		emit8(c, first);
		n--;
	}
	if (rex)
		emit8(c, 0x40 | rex);
	while (n--)
		emit8(c, (uint8_t)(op >> (8 * n)));
}

/* The prefix that @m needs; its displacement from there. */
static void emit_seg(struct emit *c, struct hmem *m)
{
	if (m->gs == HM_WINDOW)
		emit8(c, SEG_PREFIX_GS);
	if (m->gs != HM_VCPU)
		return;
	emit8(c, c->vcpu_seg);
	m->disp += c->vcpu_delta;
}

void emit_rm_mem(struct emit *c, int w, uint32_t op, uint8_t reg, struct hmem m)
{
	emit_seg(c, &m);
	emit_head(c, (uint8_t)((w ? 8 : 0) | (reg > 7 ? 4 : 0) | emit_rex_xb(m)), op);
	emit_modrm_mem(c, reg, m);
}

void emit_rm_reg(struct emit *c, int w, uint32_t op, uint8_t reg, uint8_t rm)
{
	emit_head(c, (uint8_t)((w ? 8 : 0) | (reg > 7 ? 4 : 0) | (rm > 7 ? 1 : 0)), op);
	emit8(c, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

void emit_mov_rr(struct emit *c, uint8_t dst, uint8_t src)
{
	emit_rm_reg(c, 1, 0x8b, dst, src);
}

void emit_mov_imm(struct emit *c, uint8_t dst, uint64_t imm)
{
	if (imm <= 0xffffffffu) {
		emit_head(c, dst > 7 ? 1 : 0, 0xb8 | (dst & 7));
		emit32(c, (uint32_t)imm);
	} else if ((int64_t)imm == (int32_t)imm) {
		emit_rm_reg(c, 1, 0xc7, 0, dst);
		emit32(c, (uint32_t)imm);
	} else {
		emit_head(c, dst > 7 ? 9 : 8, 0xb8 | (dst & 7));
		emit64(c, imm);
	}
}

void emit_load(struct emit *c, uint8_t dst, struct hmem m)
{
	emit_rm_mem(c, 1, 0x8b, dst, m);
}

void emit_store(struct emit *c, struct hmem m, uint8_t src)
{
	emit_rm_mem(c, 1, 0x89, src, m);
}

void emit_lea(struct emit *c, int w, uint8_t dst, struct hmem m)
{
	if (w && m.index == R_NONE && m.base != R_NONE && m.disp == 0)
		emit_mov_rr(c, dst, m.base);
	else
		emit_rm_mem(c, w, 0x8d, dst, m);
}

void emit_store_imm32(struct emit *c, int w, struct hmem m, int32_t imm)
{
	emit_rm_mem(c, w, 0xc7, 0, m);
	emit32(c, (uint32_t)imm);
}

void emit_store_imm8(struct emit *c, struct hmem m, uint8_t imm)
{
	emit_rm_mem(c, 0, 0xc6, 0, m);
	emit8(c, imm);
}

void emit_alu_imm(struct emit *c, int w, uint8_t ext, uint8_t rm, int32_t imm)
{
	bool small = imm >= -128 && imm <= 127;

	emit_rm_reg(c, w, small ? 0x83 : 0x81, ext, rm);
	if (small)
		emit8(c, (uint8_t)imm);
	else
		emit32(c, (uint32_t)imm);
}

void emit_shift_imm(struct emit *c, int w, uint8_t ext, uint8_t rm, uint8_t n)
{
	emit_rm_reg(c, w, 0xc1, ext, rm);
	emit8(c, n);
}

static void emit_vex_head(struct emit *c, uint32_t op, uint8_t reg, uint8_t vvvv, uint8_t xb)
{
	uint8_t v = vvvv == R_NONE ? 0 : vvvv;

	emit8(c, 0xc4);
	emit8(c, (uint8_t)((reg > 7 ? 0 : 0x80) | (xb & 2 ? 0 : 0x40) | (xb & 1 ? 0 : 0x20) | (op >> 8 & 0x1f)));
	emit8(c, (uint8_t)((op & 0x87) | (~v & 15) << 3));
	emit8(c, (uint8_t)(op >> 16));
}

void emit_vex_mem(struct emit *c, uint32_t op, uint8_t reg, uint8_t vvvv, struct hmem m)
{
	emit_seg(c, &m);
	emit_vex_head(c, op, reg, vvvv, emit_rex_xb(m));
	emit_modrm_mem(c, reg, m);
}

void emit_vex_reg(struct emit *c, uint32_t op, uint8_t reg, uint8_t vvvv, uint8_t rm)
{
	emit_vex_head(c, op, reg, vvvv, rm > 7);
	emit8(c, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

void emit_evex_mem(struct emit *c, unsigned length, uint8_t opcode, uint8_t reg, struct hmem m)
{
	emit_seg(c, &m);
	emit8(c, 0x62);
	emit8(c, (uint8_t)((reg & 8 ? 0 : 0x80) | ((~emit_rex_xb(m) & 3) << 5) | (reg & 16 ? 0 : 0x10) | MAP_0F));
	emit8(c, 0xfc | PP_F3);
	emit8(c, (uint8_t)(8 | (length == 64 ? 2 : length == 32 ? 1 : 0) << 5));
	emit8(c, opcode);
	emit_modrm_scaled(c, reg, m, false);
}

/* pext dst, src, gs:[mask] (F2 would be pdep) */
void emit_pext(struct emit *c, uint8_t dst, uint8_t src, struct hmem mask)
{
	emit_vex_mem(c, VEX(0, PP_F3, MAP_0F38, 1, 0xf5), dst, src, mask);
}

void emit_patch(uint8_t *rel32, const uint8_t *target)
{
	int32_t d = (int32_t)(target - (rel32 + 4));

	__atomic_store_n((int32_t *)(void *)rel32, d, __ATOMIC_RELAXED);
}

/* cs prefixes, which say nothing in 64-bit mode, until a rel32 behind @opcode bytes lies within 8 aligned ones. */
void emit_align_rel32(struct emit *c, unsigned opcode)
{
	while ((((uintptr_t)c->p + opcode) & 7) > 4)
		emit8(c, 0x2e);
}

/* 0f 85 becomes 90 e9, with the same rel32 behind it. */
void emit_always(uint8_t *jne)
{
	__builtin_memcpy(jne, "\x90\xe9", 2);
}

void emit_jmp_to(struct emit *c, const uint8_t *target)
{
	uint8_t *rel = emit_jmp(c);

	if (!c->overflow)
		emit_patch(rel, target);
}

uint8_t *emit_jcc(struct emit *c, uint8_t cc)
{
	uint8_t *rel;

	emit8(c, 0x0f);
	emit8(c, 0x80 | cc);
	rel = c->p;
	emit32(c, 0);
	return rel;
}

uint8_t *emit_jmp(struct emit *c)
{
	uint8_t *rel;

	emit8(c, 0xe9);
	rel = c->p;
	emit32(c, 0);
	return rel;
}

void emit_jmp_mem(struct emit *c, struct hmem m)
{
	emit_rm_mem(c, 0, 0xff, 4, m);
}

bool emit_guest_low_only(const struct insn *in)
{
	return in->high8;
}

static bool is_rep(uint8_t b)
{
	return b == 0xf2 || b == 0xf3;
}

/*
 * Must the @i-th prefix byte stay?  Segments and the address size are in the new operand.  Those that say nothing go as well,
 * for the new operand may be longer: what is repeated, all but the last of f2 and f3, and 66 beside REX.W where it is no part of
 * the opcode.
 */
static bool prefix_needed(const struct insn *in, unsigned i)
{
	uint8_t b = in->raw[i];

	if ((b & 0xf0) == 0x40) /* a REX that is not the last prefix */
		return false;
	switch (b) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x67: return false;
	case 0x66:
		if (in->rex_w && in->opcode_map == 0)
			return false;
		break;
	default: break;
	}
	for (unsigned k = i + 1; k < in->off_prefix_end; k++)
		if (in->raw[k] == b || (is_rep(in->raw[k]) && is_rep(b)))
			return false;
	return true;
}

static void emit_guest_vex(struct emit *c, const struct insn *in, uint8_t xb)
{
	const uint8_t *v = in->raw + in->off_prefix_end;

	emit8(c, 0xc4);
	if (in->enc == ENC_VEX2) {
		emit8(c, (uint8_t)((v[1] & 0x80) | (xb & 2 ? 0 : 0x40) | (xb & 1 ? 0 : 0x20) | 1));
		emit8(c, v[1] & 0x7f);
	} else {
		emit8(c, (uint8_t)((v[1] & 0x9f) | (xb & 2 ? 0 : 0x40) | (xb & 1 ? 0 : 0x20)));
		emit8(c, v[2]);
	}
}

/* R, R', W, vvvv, V', the mask and the rest stay: V' belongs to vvvv where the index is no vector. */
static void emit_guest_evex(struct emit *c, const struct insn *in, uint8_t xb)
{
	const uint8_t *v = in->raw + in->off_prefix_end;

	emit8(c, 0x62);
	emit8(c, (uint8_t)((v[1] & 0x9f) | (xb & 2 ? 0 : 0x40) | (xb & 1 ? 0 : 0x20)));
	emit8(c, v[2]);
	emit8(c, v[3]);
}

/*
 * Does 66 choose the operand size of this instruction, instead of being ignored or part of the opcode?  All of the one-byte map,
 * and of the two-byte map what works on general registers but for movnti, the group of fences and cmpxchg8b; of 0F 38 movbe and
 * crc32.
 */
static bool has_opsize(const struct insn *in)
{
	const uint8_t *op = in->raw + in->off_opcode;

	if (in->enc != ENC_LEGACY || in->isa != ISA_GPR)
		return false;
	switch (in->opcode_map) {
	case 0: return true;
	case 1: return in->opcode != 0xc3 && in->opcode != 0xae && !(in->opcode == 0xc7 && in->has_mem);
	case 2: return op[2] == 0xf0 || op[2] == 0xf1;
	default: return false;
	}
}

/* Prefixes for the host: in 16-bit code 66 means the other size. */
static void emit_prefixes(struct emit *c, const struct insn *in)
{
	bool turn = in->code_size == 2 && (has_opsize(in) || in->isa == ISA_X87);

	for (unsigned i = 0; i < in->off_prefix_end; i++)
		if (prefix_needed(in, i) && !(turn && in->raw[i] == 0x66))
			emit8(c, in->raw[i]);
	if (turn && in->opsize == 2 && in->isa != ISA_X87)
		emit8(c, 0x66);
}

void emit_guest_mem(struct emit *c, const struct insn *in, struct hmem m, uint8_t newreg)
{
	uint8_t xb = emit_rex_xb(m), reg = newreg == R_NONE ? in->reg : newreg, rex;

	emit_prefixes(c, in);
	emit_seg(c, &m);
	if (in->enc == ENC_LEGACY) {
		rex = (uint8_t)((in->rex_w ? 8 : 0) | (reg > 7 ? 4 : 0) | xb);
		if (rex || in->off_opcode > in->off_prefix_end)
			emit8(c, 0x40 | rex);
	} else if (in->enc == ENC_EVEX) {
		emit_guest_evex(c, in, xb);
	} else {
		emit_guest_vex(c, in, xb);
	}
	for (unsigned i = in->off_opcode; i < in->off_modrm; i++)
		emit8(c, in->raw[i]);
	emit_modrm_scaled(c, reg, m, in->enc != ENC_EVEX);
	if (in->off_imm)
		for (unsigned i = in->off_imm; i < in->len; i++)
			emit8(c, in->raw[i]);
}

void emit_guest_copy(struct emit *c, const struct insn *in)
{
	unsigned from = 0;

	if (in->code_size == 2) {
		emit_prefixes(c, in);
		from = in->off_prefix_end;
	}
	for (unsigned i = from; i < in->len; i++)
		emit8(c, in->raw[i]);
}
