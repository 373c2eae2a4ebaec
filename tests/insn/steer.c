/*
 * Memory operands are aimed: an address is chosen first, then one register (or
 * a segment base) is solved for.  The other registers stay random, so sums wrap
 * and address sizes truncate as often as not.
 *
 * Invariant: steer_ea() after a successful steer_operand() equals the target.
 */
#include "steer.h"

static uint64_t in_page(struct steer *s, uint64_t page, unsigned size)
{
	static const uint8_t align[] = {64, 32, 16, 16, 8, 4, 1, 1};
	unsigned room = size < PG ? (unsigned)(PG - size) : 0;
	uint64_t off = below(s->r, room + 1);

	return page + (off & ~(uint64_t)(align[below(s->r, 8)] - 1));
}

/* An access of @size that begins before @edge and ends at or after it. */
static uint64_t across(struct steer *s, uint64_t edge, unsigned size)
{
	return edge - (size > 1 ? 1 + below(s->r, size - 1) : below(s->r, 2));
}

static uint64_t odd_target(struct steer *s, unsigned size)
{
	switch (below(s->r, 16)) {
	case 0:
	case 1:
	case 2:
	case 3: return across(s, DATA_BASE + PG, size); /* writable, writable */
	case 4:
	case 5: return across(s, HOLE, size);
	case 6: return across(s, HOLE + PG, size);
	case 7: return across(s, RO_PAGE, size);
	case 8: return across(s, RO_PAGE + PG, size);
	case 9:
	case 10: return in_page(s, RO_PAGE, size);
	case 11: return in_page(s, HOLE, size);
	case 12: return below(s->r, 64); /* NULL */
	case 13:
		if (!s->bits32) /* not canonical */
			return 0x0000800000000000ull << below(s->r, 15) | (rnd(s->r) & 0x7fffffffffull);
		return across(s, STACK_BASE + 2 * PG, size);
	case 14: return across(s, STACK_BASE, size);
	default: return s->slot + 64 + below(s->r, 32);
	}
}

uint64_t steer_target(struct steer *s, unsigned size)
{
	if ((int)below(s->r, 100) < s->wild)
		return odd_target(s, size);
	return in_page(s, wr_page[below(s->r, 4)], size);
}

static uint64_t seg_base(const struct steer *s, const ZydisDecodedOperand *op)
{
	if (op->mem.segment == ZYDIS_REGISTER_FS)
		return s->tc->in.fsbase;
	if (op->mem.segment == ZYDIS_REGISTER_GS)
		return s->tc->in.gsbase;
	return 0;
}

static uint64_t addr_mask(const ZydisDecodedInstruction *in)
{
	return in->address_width == 64 ? ~0ull : in->address_width == 32 ? 0xffffffffull : 0xffffull;
}

static uint64_t index_value(const struct steer *s, const ZydisDecodedOperand *op)
{
	int idx = gpr_of(op->mem.index);

	if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB || idx < 0)
		return 0;
	if (op->mem.index == ZYDIS_REGISTER_AL) /* xlat */
		return s->tc->in.gpr[0] & 0xff;
	return s->tc->in.gpr[idx] * (op->mem.scale ? op->mem.scale : 1);
}

uint64_t steer_ea(const struct steer *s, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op)
{
	int base = gpr_of(op->mem.base);
	uint64_t ea = index_value(s, op);

	if (op->mem.disp.has_displacement)
		ea += (uint64_t)op->mem.disp.value;
	if (base >= 0)
		ea += s->tc->in.gpr[base];
	else if (op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP)
		ea += s->next_rip;
	ea = (ea & addr_mask(in)) + seg_base(s, op);
	return s->bits32 ? (uint32_t)ea : ea;
}

/* Sets the low @mask bits of a register; the rest, not part of the address, becomes anything. */
static void set_gpr(struct steer *s, int n, uint64_t v, uint64_t mask)
{
	s->tc->in.gpr[n] = (v & mask) | (rnd(s->r) & ~mask);
	if (s->bits32)
		s->tc->in.gpr[n] &= 0xffffffffull;
	s->fixed |= (uint16_t)(1u << n);
}

/* Solves base * (1 + scale) = want for an operand whose base and index are one register. */
static int solve_same(struct steer *s, int n, unsigned scale, uint64_t want, uint64_t mask)
{
	uint64_t k = 1 + scale, inv = 1;

	if (k == 2) {
		set_gpr(s, n, (want & mask) >> 1, mask);
		return want & 1 ? -1 : 0;
	}
	for (int i = 0; i < 6; i++)
		inv *= 2 - k * inv; /* Newton, modulo 2^64 */
	set_gpr(s, n, want * inv, mask);
	return 0;
}

static int is_fixed(const struct steer *s, int n)
{
	return (s->fixed >> n) & 1;
}

static int move_segment(struct steer *s, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op,
			uint64_t target)
{
	uint64_t *b = op->mem.segment == ZYDIS_REGISTER_FS ? &s->tc->in.fsbase : &s->tc->in.gsbase;
	uint64_t ea = steer_ea(s, in, op) - *b, want = target - ea;

	if (op->mem.segment != ZYDIS_REGISTER_FS && op->mem.segment != ZYDIS_REGISTER_GS)
		return -1;
	if (s->bits32)
		want = (uint32_t)want;
	if ((uint64_t)((int64_t)(want << 16) >> 16) != want)
		return -1; /* a base must be canonical */
	*b = want;
	return 0;
}

int steer_operand(struct steer *s, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op, uint64_t target)
{
	int base = gpr_of(op->mem.base), idx = gpr_of(op->mem.index), free_base, free_idx;
	uint64_t mask = addr_mask(in), sb = seg_base(s, op), want = target - sb;

	if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB || op->mem.index == ZYDIS_REGISTER_AL)
		idx = -1;
	if (s->bits32)
		want = (uint32_t)want;
	free_base = base >= 0 && !is_fixed(s, base);
	free_idx = idx >= 0 && !is_fixed(s, idx);
	if ((!free_base && !free_idx) || (want & ~mask)) {
		s->fixed |= (uint16_t)((base >= 0 ? 1u << base : 0) | (idx >= 0 ? 1u << idx : 0));
		return move_segment(s, in, op, target);
	}
	if (idx >= 0 && idx == base) {
		want -= op->mem.disp.has_displacement ? (uint64_t)op->mem.disp.value : 0;
		return solve_same(s, base, op->mem.scale ? op->mem.scale : 1, want, mask);
	}
	want -= (steer_ea(s, in, op) - sb); /* what has to be added */
	if (free_base) {
		set_gpr(s, base, s->tc->in.gpr[base] + want, mask);
		if (idx >= 0)
			s->fixed |= (uint16_t)(1u << idx);
		return 0;
	}
	if (want & (op->mem.scale - 1u))
		return -1;
	set_gpr(s, idx, s->tc->in.gpr[idx] + want / op->mem.scale, mask);
	return 0;
}
