/*
 * Scratch registers and flags of one translation.
 * Invariant: a spilled register's slot holds the guest's value from the moment
 * the host register is first clobbered, so every fault sees exact state.
 */
#include "vcpu/bt/tr.h"

#define BIT(r) ((uint16_t)(1u << (r)))

/* These no longer hold the addend of a group. */
static void forget_held(struct tr *t, uint16_t regs)
{
	for (; regs; regs &= (uint16_t)(regs - 1))
		t->held[__builtin_ctz(regs)] = R_NONE;
}

void tr_need(struct tr *t, uint16_t regs)
{
	uint16_t m = t->spill & regs;

	for (uint8_t r = 0; r < 16; r++)
		if (m & BIT(r))
			emit_load(&t->c, r, VREG(r));
	t->spill &= (uint16_t)~regs;
	t->clean |= m;
	forget_held(t, m);
}

void tr_need_at_exit(struct tr *t)
{
	bool spare = (t->spill & BT_SPARE) == BT_SPARE;

	tr_need(t, spare ? (uint16_t)~BT_SPARE : ALL_REGS);
}

bool tr_spare_free(const struct tr *t, uint16_t avoid)
{
	return (t->spill & BT_SPARE) == BT_SPARE && !(avoid & BT_SPARE);
}

void tr_take(struct tr *t, uint8_t reg)
{
	t->held[reg] = R_NONE;
	if (t->spill & BIT(reg))
		return;
	if (!(t->clean & BIT(reg)))
		emit_store(&t->c, VREG(reg), reg);
	t->clean &= (uint16_t)~BIT(reg);
	t->spill |= BIT(reg);
}

/* How far away the next use of @r is; far more when it is overwritten before it is read. */
static unsigned next_use(const struct tr *t, uint8_t r)
{
	for (unsigned i = t->i; i < t->n; i++) {
		if (t->in[i].cls == CLS_SYS || t->in[i].cls == CLS_STRING)
			return 500 + i; /* spilled is as good as any there */
		if (t->in[i].gpr_read & BIT(r))
			return i - t->i;
		if (t->in[i].gpr_kill & BIT(r))
			return 1000 - (i - t->i);
	}
	return 100;
}

uint8_t tr_scratch(struct tr *t, uint16_t avoid, bool low)
{
	unsigned best = 0;
	uint8_t pick = R_NONE;

	avoid |= BIT(R_SP);
	if (t->spill & (uint16_t)~avoid & (low ? 0xffu : ALL_REGS)) /* one of these it will be */
		avoid |= (uint16_t)~t->spill;
	for (uint8_t r = 0; r < (low ? 8 : 16); r++) {
		unsigned score;

		if (avoid & BIT(r))
			continue;
		score = next_use(t, r) + (t->spill & BIT(r) ? 10000u : 1u) + (r < 8 ? 1 : 0) +
			(t->held[r] == R_NONE ? 2000u : 0u);
		if (score > best) {
			best = score;
			pick = r;
		}
	}
	tr_take(t, pick);
	return pick;
}

void tr_wrote(struct tr *t, uint16_t regs)
{
	t->spill &= (uint16_t)~regs;
	t->clean &= (uint16_t)~regs;
	forget_held(t, regs);
}

/*
 * Save:    lahf; seto al; mov gs:[flags], ax
 * Restore: movzx eax, word gs:[flags]; add al, 0x7f; sahf      (the add sets OF from bit 0)
 * with rax kept in another scratch register or gs:[scratch] around them unless it is scratch itself.
 */
static uint8_t rax_out(struct tr *t, uint16_t busy)
{
	uint16_t room = t->spill & (uint16_t)~busy;

	if (room & BIT(R_AX)) {
		forget_held(t, BIT(R_AX));
		return R_AX;
	}
	if (!room) {
		emit_store(&t->c, hm_gs(VOFF(scratch)), R_AX);
		return R_NONE;
	}
	forget_held(t, BIT(__builtin_ctz(room)));
	emit_mov_rr(&t->c, (uint8_t)__builtin_ctz(room), R_AX);
	return (uint8_t)__builtin_ctz(room);
}

static void rax_back(struct tr *t, uint8_t room)
{
	if (room == R_NONE)
		emit_load(&t->c, R_AX, hm_gs(VOFF(scratch)));
	else if (room != R_AX)
		emit_mov_rr(&t->c, R_AX, room);
}

void tr_flags_clobber(struct tr *t, uint16_t busy)
{
	uint8_t room;

	if (t->fl != FLS_HOST)
		return;
	if (!(t->live_in[t->i] & FL_ARITH)) {
		t->fl = FLS_DEAD;
		return;
	}
	t->fl = FLS_SLOT;
	if (t->slot_valid)
		return;
	room = rax_out(t, busy);
	emit8(&t->c, 0x9f);                                      /* lahf */
	emit_rm_reg(&t->c, 0, 0x0f90, 0, R_AX);                  /* seto al */
	emit_rm_mem(&t->c, 0, 0x6689, R_AX, hm_gs(VOFF(flags))); /* mov gs:[flags], ax */
	rax_back(t, room);
	t->slot_valid = true;
}

void tr_flags_restore(struct tr *t, uint16_t busy)
{
	uint8_t room;

	if (t->fl != FLS_SLOT)
		return;
	room = rax_out(t, busy);
	emit_rm_mem(&t->c, 0, 0x0fb7, R_AX, hm_gs(VOFF(flags)));
	emit8(&t->c, 0x04); /* add al, 0x7f */
	emit8(&t->c, 0x7f);
	emit8(&t->c, 0x9e); /* sahf */
	rax_back(t, room);
	t->fl = FLS_HOST;
}

void tr_flags_for(struct tr *t, const struct insn *in, uint16_t busy)
{
	uint8_t live_out = t->live_in[t->i + 1];

	if ((in->fl_read & FL_ARITH) || ((in->fl_write & FL_ARITH) && (live_out & ~in->fl_kill & FL_ARITH)))
		tr_flags_restore(t, busy);
}

void tr_flags_after(struct tr *t, const struct insn *in)
{
	if (in->fl_write & FL_ARITH) {
		t->fl = FLS_HOST;
		t->slot_valid = false;
	}
}
