/*
 * movs and stos of a kernel that has a window, in place.
 * Invariant: while one runs, rdi is the host's address; whoever looks at the guest's state there takes the distance off again
 * (SITE_WSTRING).
 */
#include "vcpu/bt/tr.h"
#include "vcpu/mmu/window.h"

#define BIT(r) ((uint16_t)(1u << (r)))

/* A prefix that gives the source another base; the destination has none. */
static bool has_base(const struct insn *in)
{
	for (unsigned i = 0; i < in->off_prefix_end; i++)
		if (in->raw[i] == SEG_PREFIX_FS || in->raw[i] == SEG_PREFIX_GS)
			return true;
	return false;
}

bool tr_string_inlinable(const struct tr *t, const struct insn *in, unsigned goff)
{
	unsigned op = in->opcode & ~1u;

	return in->cls == CLS_STRING && t->window && in->addrsize == 8 && (op == STR_MOVS || op == STR_STOS) &&
	       !has_base(in) && !bt_off_window(t->bt, t->gpa + goff);
}

static void move_rdi(struct tr *t, uint64_t by, uint8_t t1)
{
	emit_mov_imm(&t->c, t1, by);
	emit_lea(&t->c, 1, R_DI, hm_bi(R_DI, t1, 1, 0));
}

static void emit_string(struct tr *t, const struct insn *in)
{
	if (in->opsize == 2)
		emit8(&t->c, 0x66);
	if (in->rep)
		emit8(&t->c, 0xf3);
	emit8(&t->c, SEG_PREFIX_GS);
	if (in->opsize == 8)
		emit8(&t->c, 0x48);
	emit8(&t->c, in->opcode);
}

/*
 *   mov t1, distance;  lea rdi, [rdi + t1]
 *   rep movs [rdi], gs:[rsi]
 *   mov t1, -distance;  lea rdi, [rdi + t1]
 */
void tr_string_inline(struct tr *t, const struct insn *in)
{
	uint64_t delta = window_delta(t->v->vm->window);
	uint16_t regs = in->gpr_read | in->gpr_write | BIT(R_DI);
	uint8_t t1;

	tr_need(t, regs);
	t1 = tr_scratch(t, regs, false);
	move_rdi(t, delta, t1);
	tr_site(t, SITE_WSTRING);
	emit_string(t, in);
	tr_site(t, SITE_INSN);
	move_rdi(t, 0 - delta, t1);
	tr_wrote(t, in->gpr_write);
}
