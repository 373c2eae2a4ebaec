/*
 * Accesses through a window (mmu/window.h): the guest's own instruction with one prefix; the host's MMU does the checking.
 * Invariant: only code of the one mode that a window belongs to carries the prefix, and a site that tells exact state stands in
 * front of whatever may fault by it.
 */
#include "vcpu/bt/addr.h"
#include "vcpu/mmu/window.h"

#define BIT(r) ((uint16_t)(1u << (r)))

/* What translate_mem.c and translate_flow.c bring here; the rest keeps to the other strategies. */
static bool class_fits(const struct insn *in)
{
	switch (in->cls) {
	case CLS_MEM:
	case CLS_BT:
	case CLS_CALL:
	case CLS_CALL_IND:
	case CLS_JMP_IND:
	case CLS_RET:
	case CLS_LEAVE: return in->opsize != 2 || in->cls == CLS_MEM || in->cls == CLS_BT;
	case CLS_PUSH: return !in->has_mem && in->opsize != 2;
	case CLS_POP: return !in->has_mem && in->opsize != 2 && in->gpr_write != BIT(R_SP);
	default: return false;
	}
}

static bool by_register(struct tr *t, const struct ea *e, uint8_t t1, struct hmem *m)
{
	uint8_t base = e->base, index = e->index;

	if (base != R_NONE && index != R_NONE) {
		emit_lea(&t->c, 1, t1, hm_bi(t1, base, 1, 0));
		*m = hm_bi(t1, index, e->scale, e->disp);
	} else if (base == R_SP) {
		*m = hm_bi(R_SP, t1, 1, e->disp);
	} else if (base != R_NONE) {
		*m = hm_bi(t1, base, 1, e->disp);
	} else {
		*m = hm_bi(t1, index, e->scale, e->disp);
	}
	return true;
}

/* mov t1, vcpu:[seg_base];  lea t1, [t1 + base], where there is an index too */
static bool by_segment(struct tr *t, const struct ea *e, uint16_t avoid, bool low, struct hmem *m)
{
	uint8_t t1;

	if (e->kind == EA_PIC || (e->kind == EA_CONST && (int64_t)e->value != (int32_t)e->value) ||
	    (e->base == R_SP && e->index != R_NONE))
		return false;
	t1 = tr_scratch(t, avoid, low);
	emit_load(&t->c, t1, hm_gs(VOFF(seg_base) + 8u * e->seg));
	if (e->kind == EA_CONST) {
		*m = hm_base(t1, (int32_t)e->value);
		return true;
	}
	return by_register(t, e, t1, m);
}

/* mov t1, address, where it is no 32-bit displacement */
static void by_constant(struct tr *t, const struct ea *e, uint16_t avoid, bool low, struct hmem *m)
{
	uint8_t t1;

	if (e->kind == EA_CONST && (int64_t)e->value == (int32_t)e->value) {
		*m = hm_base(R_NONE, (int32_t)e->value);
		return;
	}
	t1 = tr_scratch(t, avoid, low);
	if (e->kind == EA_PIC)
		emit_load(&t->c, t1, hm_gs(VOFF(ip_page)));
	else
		emit_mov_imm(&t->c, t1, e->value);
	*m = hm_base(t1, e->kind == EA_PIC ? e->disp : 0);
}

bool tr_window(struct tr *t, const struct ea *e, uint16_t avoid, bool low, struct hmem *m)
{
	const struct insn *in = &t->in[t->i];

	if (!t->window || e->addrsize != 8 || !class_fits(in) || bt_off_window(t->bt, t->gpa + t->goff[t->i]))
		return false;
	if (e->seg != R_NONE) {
		if (!by_segment(t, e, avoid, low, m))
			return false;
	} else if (e->kind == EA_REG && (e->base != R_NONE || e->index != R_NONE)) {
		*m = (struct hmem){e->base, e->index, e->scale, HM_FLAT, e->disp};
	} else if (e->kind == EA_REG) {
		*m = hm_base(R_NONE, e->disp);
	} else {
		by_constant(t, e, avoid, low, m);
	}
	m->gs = HM_WINDOW;
	return true;
}

void tr_at_window(struct tr *t, const struct hmem *m)
{
	if (m->gs == HM_WINDOW)
		tr_site(t, SITE_INSN);
}
