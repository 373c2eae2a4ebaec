/*
 * One check for several accesses through one register: a block's accesses by the same base, which meanwhile changes
 * only by known amounts, form a group.  The first of them checks the whole range; if that lies within one page, as
 * it nearly always does, the others need the addend alone.
 * Invariant: a group's check has no effect on the guest but what its first access has by itself; where it fails,
 * the block is run from there with one check per access (MODE_NOCOMBINE).
 */
#include "vcpu/bt/addr.h"
#include "vcpu/mmu/mmu.h"

#define BIT(r)   ((uint16_t)(1u << (r)))
#define MAX_SPAN 512

enum { EXPLICIT, STACK };

/* The groups that are open while a block is looked through, by base register. */
struct plan {
	uint8_t open[16];
	int32_t delta[16]; /* what has been added to the register since its group was opened */
};

static void join(struct tr *t, struct plan *p, unsigned i, int which, uint8_t base, int64_t disp, unsigned size,
		 bool write)
{
	struct combo *g = p->open[base] == R_NONE ? NULL : &t->combo[p->open[base]];
	int64_t lo = disp + p->delta[base], hi = lo + size;

	if (g && (hi > g->lo + MAX_SPAN || lo < g->hi - MAX_SPAN))
		g = NULL;
	if (!g) {
		if (t->n_combos == TR_MAX_COMBOS)
			return;
		p->open[base] = t->n_combos;
		p->delta[base] = 0;
		g = &t->combo[t->n_combos++];
		lo = disp;
		hi = lo + size;
		*g = (struct combo){.lo = (int32_t)lo, .hi = (int32_t)hi};
	}
	if (lo < g->lo)
		g->lo = (int32_t)lo;
	if (hi > g->hi)
		g->hi = (int32_t)hi;
	g->write |= write;
	g->n++;
	t->combo_of[i][which] = p->open[base];
}

static bool eligible(const struct insn *in)
{
	return in->has_mem && !in->masked && in->mem.base <= R_15 && in->mem.index == R_NONE && in->addrsize == 8 &&
	       in->mem.seg != SEG_FS && in->mem.seg != SEG_GS && in->mem.disp == (int16_t)in->mem.disp;
}

/* A pop whose one register is rsp: loaded, not added to. */
static bool pops_sp(const struct insn *in)
{
	return !(in->gpr_write & (uint16_t)~BIT(R_SP));
}

/* What @in adds to @r; false when it leaves something else there. */
static bool known_change(const struct insn *in, uint8_t r, int32_t *by)
{
	uint8_t op = in->raw[in->off_opcode];

	*by = 0;
	switch (in->cls) {
	case CLS_PUSH:
	case CLS_CALL:
	case CLS_CALL_IND:
	case CLS_POP:
		if (r != R_SP || in->opsize == 2 || (in->cls == CLS_POP && pops_sp(in)))
			return false; /* into rsp, or to memory */
		*by = in->cls == CLS_POP ? 8 : -8;
		return true;
	case CLS_LEA: *by = in->mem.disp; return eligible(in) && in->mem.base == r && in->opsize == 8 && in->reg == r;
	case CLS_REG:
		if (in->opcode_map || (op != 0x81 && op != 0x83) || in->opsize != 8 || in->rm != r || in->imm_size == 0)
			return false;
		*by = in->raw[in->off_modrm] >> 3 & 7 ? -(int32_t)in->imm : (int32_t)in->imm;
		return ((in->raw[in->off_modrm] >> 3 & 7) == ALU_ADD || (in->raw[in->off_modrm] >> 3 & 7) == ALU_SUB) &&
		       in->imm == (int16_t)in->imm;
	default: return false;
	}
}

static void look(struct tr *t, struct plan *p, unsigned i)
{
	const struct insn *in = &t->in[i];
	bool wide = in->opsize != 2;

	switch (in->cls) {
	case CLS_MEM:
	case CLS_JMP_IND:
	case CLS_CALL_IND:
		if (eligible(in))
			join(t, p, i, EXPLICIT, in->mem.base, in->mem.disp, in->mem.size, in->mem_write);
		if (in->cls != CLS_CALL_IND)
			break;
		/* fall through */
	case CLS_CALL: join(t, p, i, STACK, R_SP, -8, 8, true); break;
	case CLS_PUSH:
		if (!in->has_mem && wide)
			join(t, p, i, STACK, R_SP, -8, 8, true);
		break;
	case CLS_POP:
		if (in->has_mem || !wide || pops_sp(in))
			break;
		/* fall through */
	case CLS_RET: join(t, p, i, STACK, R_SP, 0, 8, false); break;
	case CLS_LEAVE: join(t, p, i, STACK, R_BP, 0, 8, false); break;
	default: break;
	}
}

static void changed(struct plan *p, const struct insn *in)
{
	int32_t by;

	for (uint8_t r = 0; r < 16; r++) {
		if (!(in->gpr_write >> r & 1))
			continue;
		if (known_change(in, r, &by) && p->delta[r] + by == (int16_t)(p->delta[r] + by))
			p->delta[r] += by;
		else
			p->open[r] = R_NONE;
	}
}

void tr_plan_combos(struct tr *t)
{
	struct plan p = {.open = {0}};

	t->n_combos = 0;
	for (unsigned r = 0; r < 16; r++) {
		p.open[r] = R_NONE;
		t->held[r] = R_NONE;
	}
	for (unsigned i = 0; i < t->n; i++) {
		t->combo_of[i][EXPLICIT] = t->combo_of[i][STACK] = R_NONE;
		if (!t->long_mode || (t->mode & (MODE_ADDED | MODE_SLOWMEM)) || t->window ||
		    bt_downgraded(t->bt, t->gpa, ADDR_GROUP))
			continue;
		look(t, &p, i);
		changed(&p, &t->in[i]);
	}
}

static struct combo *combo_of(struct tr *t, unsigned acc)
{
	uint8_t g = t->combo_of[t->i][acc & SITE_ACC_STACK ? STACK : EXPLICIT];

	return g != R_NONE && t->combo[g].n > 1 ? &t->combo[g] : NULL;
}

/* mov t2, gs:[combo], unless a scratch register holds it still */
bool tr_combined(struct tr *t, const struct ea *e, unsigned acc, uint16_t avoid, bool low, struct hmem *m)
{
	struct combo *g = combo_of(t, acc);
	uint8_t n, reg = R_NONE;

	if (!g || !g->checked)
		return false;
	n = (uint8_t)(g - t->combo);
	for (uint8_t r = 0; r < (low ? 8 : 16); r++)
		if (t->held[r] == n && !(avoid & BIT(r)))
			reg = r;
	if (reg == R_NONE) {
		reg = tr_scratch(t, avoid, low);
		emit_load(&t->c, reg, hm_gs(VOFF(combo) + 8u * n));
		t->held[reg] = n;
	}
	*m = hm_bi(e->base, reg, 1, e->disp);
	return true;
}

/*
 *   lea  t1, [base + lo];  pext t2, t1, gs:[mask]
 *   lea  t1, [base + hi-1];  and t1, -4096
 *   cmp  t1, gs:[tag + t2*8];  jne cold
 *   mov  t2, gs:[addend + t2*8];  mov gs:[combo], t2
 * A page that matches at the index of the first byte is the first byte's page, so the two ends are in the same one.
 */
bool addr_group_match(struct tr *t, const struct access *a)
{
	return combo_of(t, a->acc) != NULL;
}

struct hmem addr_group_emit(struct tr *t, const struct access *a)
{
	struct combo *g = combo_of(t, a->acc);
	const struct ea *e = a->ea;
	unsigned check = g->write ? ACC_W : ACC_R;
	uint8_t t1 = a->t1, t2 = a->t2;
	struct cold *k;

	emit_lea(&t->c, 1, t1, hm_base(e->base, g->lo));
	addr_tlb_index(t, t1, t2);
	emit_lea(&t->c, 1, t1, hm_base(e->base, g->hi - 1));
	emit_alu_imm(&t->c, 1, ALU_AND, t1, -4096);
	emit_rm_mem(&t->c, 1, 0x3b, t1, hm_gs_index(addr_tag_offset(t, check), t2, 8));
	k = tr_cold(t, COLD_MEM);
	k->from = emit_jcc(&t->c, CC_NE);
	emit_load(&t->c, t2, hm_gs_index(addr_addend_offset(t, check), t2, 8));
	k->hot2 = t->c.p;
	k->ea = *e;
	k->t1 = t1;
	k->t2 = t2;
	k->size = (uint8_t)a->size;
	k->acc = (uint8_t)(a->acc | SITE_ACC_RANGE);
	k->range = site_range((unsigned)(e->disp - g->lo), (unsigned)(g->hi - g->lo), g->write);
	emit_store(&t->c, hm_gs(VOFF(combo) + 8u * (unsigned)(g - t->combo)), t2);
	g->checked = true;
	t->held[t2] = (uint8_t)(g - t->combo);
	return addr_operand(t, e, t1, t2);
}

/*
 *   lea t1, [base + lo];  lea t2, [base + hi-1];  xor t1, t2;  shr t1, 12;  je 1f
 *   <leave for the form without groups>                             ; the ends are in two pages
 *   1: <as for a single access>                                     ; a miss, or not all of it allowed
 */
void addr_group_cold(struct tr *t, const struct cold *k)
{
	int32_t lo = k->ea.disp - (int32_t)(k->range & 0xfff), span = (int32_t)(k->range >> 12 & 0xfff);
	uint8_t *miss;

	emit_lea(&t->c, 1, k->t1, hm_base(k->ea.base, lo));
	emit_lea(&t->c, 1, k->t2, hm_base(k->ea.base, lo + span - 1));
	emit_rm_reg(&t->c, 1, 0x33, k->t1, k->t2);
	emit_shift_imm(&t->c, 1, SH_SHR, k->t1, GUEST_PAGE_SHIFT);
	miss = emit_jcc(&t->c, CC_E);
	tr_exit_apart(t);
	t->spill = k->spill;
	if (!t->c.overflow)
		emit_patch(miss, t->c.p);
	addr_soft_cold(t, k);
}
