/*
 * Stack instructions, branches, block exits and helpers.
 * Invariant: at every exit all guest registers are in the host's, but for the
 * spare ones, which may be in their slots, and are at an indirect exit.
 */
#include "vcpu/bt/tr.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/mmu/mmu.h"

#define BIT(r) ((uint16_t)(1u << (r)))

/* The register operand of an instruction with ModRM or with the register in its opcode. */
static uint8_t op_reg(const struct insn *in)
{
	uint8_t r;

	if (in->has_modrm)
		return in->rm;
	r = in->raw[in->off_opcode] & 7;
	if (in->off_opcode > in->off_prefix_end)
		r |= (uint8_t)((in->raw[in->off_prefix_end] & 1) << 3);
	return r;
}

static void emit_load_size(struct tr *t, unsigned size, uint8_t dst, struct hmem m)
{
	emit_rm_mem(&t->c, size == 8, size == 2 ? 0x668b : 0x8b, dst, m);
}

static void emit_store_size(struct tr *t, unsigned size, struct hmem m, uint8_t src)
{
	emit_rm_mem(&t->c, size == 8, size == 2 ? 0x6689 : 0x89, src, m);
}

static void adjust_sp(struct tr *t, int32_t delta, uint8_t t1)
{
	if (t->long_mode) {
		emit_lea(&t->c, 1, R_SP, hm_base(R_SP, delta));
	} else if (!(t->mode & MODE_SS16)) {
		emit_lea(&t->c, 0, R_SP, hm_base(R_SP, delta));
	} else {
		emit_lea(&t->c, 0, t1, hm_base(R_SP, delta));
		emit_rm_reg(&t->c, 0, 0x6689, t1, R_SP);
	}
}

/* Checks the slot that a push of @size bytes will fill; *t1 is scratch and free. */
static struct hmem push_slot(struct tr *t, unsigned size, uint16_t avoid, uint8_t *t1)
{
	struct ea e = tr_ea_stack(t, R_SP, -(int32_t)size);
	struct hmem m;
	uint8_t t2;

	*t1 = R_NONE;
	if (tr_window(t, &e, avoid, false, &m) || tr_combined(t, &e, ACC_W | SITE_ACC_STACK, avoid, false, &m))
		return m;
	*t1 = tr_scratch(t, avoid, false);
	t2 = tr_scratch(t, avoid | BIT(*t1), false);
	tr_flags_clobber(t, avoid);
	return tr_access(t, &e, size, ACC_W | SITE_ACC_STACK, *t1, t2);
}

static unsigned push_size(const struct tr *t, const struct insn *in)
{
	if (t->long_mode)
		return in->opsize == 2 ? 2 : 8;
	return in->opsize == 2 ? 2 : 4;
}

static void push_mem(struct tr *t, const struct insn *in, unsigned size)
{
	struct ea e = tr_ea(t, in);
	uint8_t t1, t2, t3;
	struct hmem m;

	t3 = tr_scratch(t, in->gpr_read, false);
	t1 = tr_scratch(t, in->gpr_read | BIT(t3), false);
	t2 = tr_scratch(t, in->gpr_read | BIT(t3) | BIT(t1), false);
	tr_flags_clobber(t, in->gpr_read);
	m = tr_access(t, &e, size, ACC_R, t1, t2);
	emit_load_size(t, size, t3, m);
	m = push_slot(t, size, in->gpr_read | BIT(t3), &t1);
	emit_store_size(t, size, m, t3);
	adjust_sp(t, -(int32_t)size, t1);
}

/*
 *   <check [rsp-8] for writing> ;  mov [rsp-8 + t2], reg ;  lea rsp, [rsp-8]
 */
void tr_push(struct tr *t, const struct insn *in)
{
	unsigned size = push_size(t, in);
	uint8_t op = in->raw[in->off_opcode], t1;
	bool imm = op == 0x68 || op == 0x6a;
	uint8_t src = imm ? R_SP : op_reg(in);
	uint16_t avoid = in->gpr_read | BIT(R_SP);
	struct hmem m;

	tr_need(t, avoid);
	if (in->has_mem) {
		push_mem(t, in, size);
		return;
	}
	m = push_slot(t, size, avoid, &t1);
	tr_at_window(t, &m);
	if (!imm) {
		emit_store_size(t, size, m, src);
	} else {
		emit_rm_mem(&t->c, size == 8, size == 2 ? 0x66c7 : 0xc7, 0, m);
		if (size == 2) {
			emit8(&t->c, (uint8_t)in->imm);
			emit8(&t->c, (uint8_t)(in->imm >> 8));
		} else {
			emit32(&t->c, (uint32_t)in->imm);
		}
	}
	adjust_sp(t, -(int32_t)size, t1);
}

/* pop m: the address is formed with the stack pointer already moved (SDM 2B, POP). */
static void pop_mem(struct tr *t, const struct insn *in, unsigned size)
{
	struct ea e = tr_ea(t, in), s = tr_ea_stack(t, R_SP, 0);
	uint16_t avoid = in->gpr_read | BIT(R_SP);
	uint8_t t1, t2, t3;
	struct hmem m;

	t3 = tr_scratch(t, avoid, false);
	t1 = tr_scratch(t, avoid | BIT(t3), false);
	t2 = tr_scratch(t, avoid | BIT(t3) | BIT(t1), false);
	tr_flags_clobber(t, avoid);
	m = tr_access(t, &s, size, ACC_R | SITE_ACC_STACK, t1, t2);
	emit_load_size(t, size, t3, m);
	if (e.kind == EA_REG && e.base == R_SP)
		e.disp += (int32_t)size;
	m = tr_access(t, &e, size, ACC_W, t1, t2);
	emit_store_size(t, size, m, t3);
	adjust_sp(t, (int32_t)size, t1);
}

void tr_pop(struct tr *t, const struct insn *in)
{
	unsigned size = push_size(t, in);
	struct ea e = tr_ea_stack(t, R_SP, 0);
	uint16_t avoid;
	uint8_t t1, t2, dst;
	struct hmem m;

	if (in->has_mem) {
		tr_need(t, in->gpr_read | BIT(R_SP));
		pop_mem(t, in, size);
		return;
	}
	dst = op_reg(in);
	avoid = BIT(R_SP) | (size == 2 ? BIT(dst) : 0);
	tr_need(t, avoid);
	if (tr_window(t, &e, avoid, false, &m) ||
	    tr_combined(t, &e, ACC_R | SITE_ACC_STACK, avoid, false, &m)) { /* never 16 bits, never into rsp */
		tr_at_window(t, &m);
		emit_load(&t->c, dst, m);
		tr_wrote(t, BIT(dst));
		adjust_sp(t, 8, R_NONE);
		return;
	}
	if (size > 2 && dst != R_SP && !tr_spare_free(t, avoid)) {
		tr_take(t, dst);
		t2 = dst;
	} else {
		t2 = tr_scratch(t, avoid, false);
	}
	t1 = tr_scratch(t, avoid | BIT(t2), false);
	tr_flags_clobber(t, avoid);
	m = tr_access(t, &e, size, ACC_R | SITE_ACC_STACK, t1, t2);
	if (dst == R_SP && size > 2) {
		emit_load_size(t, size, R_SP, m);
		return;
	}
	if (dst == R_SP) { /* pop sp: the increment happens first */
		emit_rm_mem(&t->c, 0, 0x0fb7, t2, m);
		emit_rm_reg(&t->c, 0, 0x6689, t2, R_SP);
		return;
	}
	emit_load_size(t, size, dst, m);
	tr_wrote(t, BIT(dst));
	adjust_sp(t, (int32_t)size, t1);
}

/* leave: rsp = rbp; pop rbp */
void tr_leave(struct tr *t, const struct insn *in)
{
	unsigned size = push_size(t, in);
	struct ea e = tr_ea_stack(t, R_BP, 0);
	uint16_t avoid = BIT(R_SP) | BIT(R_BP);
	uint8_t t1, t2;
	struct hmem m;

	tr_need(t, avoid);
	if (tr_window(t, &e, avoid, false, &m)) {
		t1 = R_NONE;
		t2 = tr_scratch(t, avoid, false);
	} else if (tr_combined(t, &e, ACC_R | SITE_ACC_STACK, avoid, false, &m)) {
		t1 = R_NONE;
		t2 = m.index;
	} else {
		t1 = tr_scratch(t, avoid, false);
		t2 = tr_scratch(t, avoid | BIT(t1), false);
		tr_flags_clobber(t, avoid);
		m = tr_access(t, &e, size, ACC_R | SITE_ACC_STACK, t1, t2);
	}
	tr_take(t, t2); /* no group's addend from here on */
	tr_at_window(t, &m);
	emit_load_size(t, size, t2, m);
	if (t->long_mode || !(t->mode & MODE_SS16)) {
		emit_lea(&t->c, t->long_mode, R_SP, hm_base(R_BP, (int32_t)size));
	} else {
		emit_lea(&t->c, 0, t1, hm_base(R_BP, (int32_t)size));
		emit_rm_reg(&t->c, 0, 0x6689, t1, R_SP);
	}
	emit_rm_reg(&t->c, size == 8, size == 2 ? 0x668b : 0x8b, R_BP, t2);
}

/* ---- exits ---- */

static uint32_t new_exit(struct tr *t, int32_t gdelta)
{
	struct bt *bt = t->bt;
	uint32_t x = bt->n_exits;

	if (x + 4 >= BT_MAX_EXITS) {
		t->c.overflow = true;
		return x;
	}
	bt->n_exits++;
	bt->exits[x] = (struct bexit){.block = t->block,
				      .target = BT_NONE,
				      .next_in = BT_NONE,
				      .rel_off = BT_NONE,
				      .cell = BT_NONE,
				      .gdelta = gdelta,
				      .mode = t->mode & ~MODE_NOCOMBINE,
				      .fl = t->fl,
				      .spare = (t->spill & BT_SPARE) == BT_SPARE};
	return x;
}

static int32_t page_delta(const struct tr *t, int32_t gdelta)
{
	int64_t off = (int64_t)(t->gpa & 0xfff) + gdelta;

	return (int32_t)(off >> GUEST_PAGE_SHIFT);
}

static bool exit_needs_cell(const struct tr *t, int32_t gdelta, bool across)
{
	return across || page_delta(t, gdelta) != 0 || t->bt->blocks[t->block].gpa2 != ~0ull;
}

static void new_cell(struct tr *t, uint32_t x)
{
	if (t->bt->n_cells >= CELL_COUNT) {
		t->c.overflow = true;
		return;
	}
	t->bt->exits[x].cell = t->bt->n_cells++;
}

/*
 * Across pages of user code:
 *   add gs:[ip_page], delta                                               ; the flags are not in the host's
 *   mov r10, gs:[ip_page]; lea r10, [r10 + delta]; mov gs:[ip_page], r10  ; rax, saved around it, when r10 is not free
 */
static void move_ip_page(struct tr *t, int32_t delta)
{
	uint8_t r = t->spill & BIT(R_10) ? R_10 : R_AX;

	if (t->fl != FLS_HOST) {
		emit_rm_mem(&t->c, 1, 0x81, ALU_ADD, hm_gs(VOFF(ip_page)));
		emit32(&t->c, (uint32_t)delta);
		return;
	}
	if (r == R_AX)
		emit_store(&t->c, hm_gs(VOFF(scratch)), R_AX);
	emit_load(&t->c, r, hm_gs(VOFF(ip_page)));
	emit_lea(&t->c, 1, r, hm_base(r, delta));
	emit_store(&t->c, hm_gs(VOFF(ip_page)), r);
	if (r == R_AX)
		emit_load(&t->c, R_AX, hm_gs(VOFF(scratch)));
}

/* jmp gs:[cell] */
static void emit_cell_jump(struct tr *t, uint32_t x)
{
	int32_t d = page_delta(t, t->bt->exits[x].gdelta);

	if (t->pic && d)
		move_ip_page(t, d * 4096);
	emit_jmp_mem(&t->c, hm_gs(VOFF(cells) + 8u * t->bt->exits[x].cell));
}

/* A cell's exit has moved ip_page to the target's page by the time it leaves. */
static void set_target(struct tr *t, uint32_t x)
{
	struct bexit *e = &t->bt->exits[x];
	uint64_t off = (t->gpa & 0xfff) + (uint64_t)(int64_t)e->gdelta;

	e->rip = !t->pic ? t->gva + (uint64_t)(int64_t)e->gdelta : e->cell != BT_NONE ? off & 0xfff : off;
	e->page = t->gpa & ~0xfffull;
}

/* Leaves for the guest address at block start + @gdelta; @cc < 0 unconditionally. */
static void tr_exit(struct tr *t, int32_t gdelta, int cc, bool across)
{
	uint32_t x = new_exit(t, gdelta);
	bool away = !(t->mode & MODE_TRANSIENT) && exit_needs_cell(t, gdelta, across);
	bool cell = away && !(t->mode & MODE_CS16);
	struct cold *k;

	if (t->c.overflow)
		return;
	if (cell)
		new_cell(t, x);
	if (cell && cc < 0) {
		emit_cell_jump(t, x);
		k = tr_cold(t, COLD_EXIT);
	} else if (cell) {
		k = tr_cold(t, COLD_TRAMPOLINE);
		k->from = emit_jcc(&t->c, (uint8_t)cc);
	} else {
		k = tr_cold(t, COLD_EXIT);
		if (t->bt->smp)
			emit_align_rel32(&t->c, cc < 0 ? 1 : 2);
		k->from = cc < 0 ? emit_jmp(&t->c) : emit_jcc(&t->c, (uint8_t)cc);
		if (!(t->mode & MODE_STEP) && !away)
			t->bt->exits[x].rel_off = (uint32_t)(k->from - t->bt->rw);
	}
	k->exit = x;
	set_target(t, x);
}

void tr_cold_exit(struct tr *t, const struct cold *k)
{
	struct bexit *e = &t->bt->exits[k->exit];

	e->site = tr_site(t, SITE_EXIT);
	e->stub_off = (uint32_t)(t->c.p - t->bt->rw);
	if (e->cell != BT_NONE)
		t->bt->cell_stub[e->cell] = e->stub_off;
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(exit)), (int32_t)k->exit);
	emit_jmp_to(&t->c, t->bt->rw + (glue_exit - t->bt->rx));
}

void tr_cold_trampoline(struct tr *t, const struct cold *k)
{
	emit_cell_jump(t, k->exit);
	tr_cold_exit(t, k);
}

/*
 * Where a group's range lies in two pages: the block goes on without groups, in another form of its own.
 *   <loads>;  jmp apart;  <stub>
 */
void tr_exit_apart(struct tr *t)
{
	struct cold k = {.kind = COLD_EXIT};
	struct bexit *e;
	uint8_t *rel;

	tr_need_at_exit(t);
	k.exit = new_exit(t, t->goff[t->i]);
	if (t->c.overflow)
		return;
	e = &t->bt->exits[k.exit];
	e->mode |= MODE_NOCOMBINE;
	set_target(t, k.exit);
	if (t->bt->smp)
		emit_align_rel32(&t->c, 1);
	rel = emit_jmp(&t->c);
	if (!exit_needs_cell(t, e->gdelta, false))
		e->rel_off = (uint32_t)(rel - t->bt->rw);
	emit_patch(rel, t->c.p);
	tr_cold_exit(t, &k);
}

void tr_fallthrough(struct tr *t)
{
	tr_need_at_exit(t);
	tr_exit(t, t->goff[t->n], -1, t->falls_across);
}

/* The block ends because the current instruction changed the mode: on to the next one in @mode. */
void tr_exit_to_mode(struct tr *t, uint32_t mode)
{
	uint32_t x = t->bt->n_exits;

	tr_need_at_exit(t);
	tr_exit(t, t->goff[t->n], -1, t->falls_across);
	if (!t->c.overflow)
		t->bt->exits[x].mode = mode;
}

static int32_t branch_delta(const struct tr *t, const struct insn *in)
{
	return (int32_t)(t->goff[t->i] + in->len + in->imm);
}

void tr_jmp(struct tr *t, const struct insn *in)
{
	tr_need_at_exit(t);
	tr_exit(t, branch_delta(t, in), -1, false);
}

void tr_jcc(struct tr *t, const struct insn *in)
{
	uint8_t op = in->raw[in->len - in->imm_size - 1];

	tr_flags_restore(t, 0);
	tr_need_at_exit(t);
	tr_exit(t, branch_delta(t, in), op & 15, false);
	tr_exit(t, t->goff[t->n], -1, t->falls_across);
}

static void xchg_cx(struct tr *t, uint8_t r)
{
	emit_rm_reg(&t->c, 1, 0x87, r, R_CX);
}

static uint8_t *short_jump(struct tr *t, uint8_t op)
{
	emit8(&t->c, op);
	emit8(&t->c, 0);
	return t->c.p - 1;
}

static void land_here(struct tr *t, uint8_t *rel8)
{
	if (!t->c.overflow)
		*rel8 = (uint8_t)(t->c.p - (rel8 + 1));
}

/*
 * By cx, without touching flags:
 *   lea r10d, [rcx - 1];  mov cx, r10w                      ; not jcxz
 *   movzx r10d, cx;  xchg rcx, r10;  jrcxz zero;  xchg rcx, r10
 * loop:  jnz/jz fall (loope, loopne);  <exit taken>;  zero: xchg rcx, r10;  fall: <exit>
 * jcxz:  jmp fall;  zero: xchg rcx, r10;  <exit taken>;  fall: <exit>
 */
static void loop16(struct tr *t, const struct insn *in)
{
	uint8_t *zero, *fall = NULL;
	bool jcxz = in->opcode == 0xe3;

	tr_take(t, R_10);
	tr_take(t, R_11); /* both, so that they stay so over the exits */
	tr_need_at_exit(t);
	if (in->fl_read & FL_ARITH)
		tr_flags_restore(t, 0);
	if (!jcxz) {
		emit_lea(&t->c, 0, R_10, hm_base(R_CX, -1));
		emit_rm_reg(&t->c, 0, 0x6689, R_10, R_CX);
	}
	emit_rm_reg(&t->c, 0, 0x0fb7, R_10, R_CX);
	xchg_cx(t, R_10);
	zero = short_jump(t, 0xe3);
	xchg_cx(t, R_10);
	if (jcxz) {
		fall = short_jump(t, 0xeb);
		land_here(t, zero);
		xchg_cx(t, R_10);
		tr_exit(t, branch_delta(t, in), -1, false);
	} else {
		if (in->opcode != 0xe2)
			fall = short_jump(t, in->opcode == 0xe1 ? 0x75 : 0x74);
		tr_exit(t, branch_delta(t, in), -1, false);
		land_here(t, zero);
		xchg_cx(t, R_10);
	}
	if (fall)
		land_here(t, fall);
	tr_exit(t, t->goff[t->n], -1, t->falls_across);
}

/*
 *   loop/jrcxz taken;  jmp short fall;  taken: <exit>;  fall: <exit>
 * A repeat prefix goes along: AMD takes loope and loopne by it, not by the opcode.
 */
void tr_loop(struct tr *t, const struct insn *in)
{
	uint8_t *skip;

	if (in->addrsize == 2) {
		loop16(t, in);
		return;
	}
	tr_need_at_exit(t);
	if (in->fl_read & FL_ARITH)
		tr_flags_restore(t, 0);
	if (in->addrsize == 4)
		emit8(&t->c, 0x67);
	if (in->rep)
		emit8(&t->c, in->rep);
	emit8(&t->c, in->raw[in->off_opcode]);
	emit8(&t->c, 2);
	emit8(&t->c, 0xeb); /* jmp over the taken part */
	emit8(&t->c, 0);
	skip = t->c.p - 1;
	tr_exit(t, branch_delta(t, in), -1, false);
	if (!t->c.overflow)
		*skip = (uint8_t)(t->c.p - (skip + 1));
	tr_exit(t, t->goff[t->n], -1, t->falls_across);
}

/*
 * A call whose target is not canonical faults before it pushes, and after what its push would raise.
 *   mov t1, target; sar t1, 47; add t1d, 1; cmp t1d, 1; ja cold
 */
static void check_call_target(struct tr *t, uint8_t target, uint16_t busy, uint8_t t1)
{
	struct cold *k;

	tr_flags_clobber(t, busy | BIT(target) | BIT(t1));
	emit_mov_rr(&t->c, t1, target);
	emit_shift_imm(&t->c, 1, SH_SAR, t1, 47);
	emit_alu_imm(&t->c, 0, ALU_ADD, t1, 1);
	emit_alu_imm(&t->c, 0, ALU_CMP, t1, 1);
	k = tr_cold(t, COLD_RAISE);
	k->from = emit_jcc(&t->c, CC_A);
}

/* The same where the target follows from the place: user code near the end of its half does not know its own. */
static void check_direct_target(struct tr *t, const struct insn *in, uint16_t busy)
{
	int32_t delta = branch_delta(t, in);
	uint8_t t1, t2;

	if (!t->pic) {
		if (!is_canonical(t->gva + (uint64_t)(int64_t)delta))
			tr_cold(t, COLD_RAISE)->from = emit_jmp(&t->c);
	} else if (t->mode & MODE_EDGE) {
		t1 = tr_scratch(t, busy, false);
		emit_load(&t->c, t1, hm_gs(VOFF(ip_page)));
		emit_lea(&t->c, 1, t1, hm_base(t1, (int32_t)(t->gpa & 0xfff) + delta));
		t2 = tr_scratch(t, busy | BIT(t1), false);
		check_call_target(t, t1, busy, t2);
	}
}

uint16_t tr_regs_of(const struct hmem *m)
{
	return (uint16_t)((m->base == R_NONE ? 0 : BIT(m->base)) | (m->index == R_NONE ? 0 : BIT(m->index)));
}

/* Pushes the return address; the stack pointer moves last.  @target: register that holds where the call goes, or R_NONE. */
static void push_return(struct tr *t, const struct insn *in, uint8_t target)
{
	unsigned size = push_size(t, in);
	int64_t off = (int64_t)(t->gpa & 0xfff) + t->goff[t->i] + in->len;
	uint64_t ret = t->gva + t->goff[t->i] + in->len;
	uint16_t avoid = target == R_NONE ? 0 : BIT(target), busy;
	uint8_t t1;
	struct hmem m = push_slot(t, size, avoid, &t1);

	busy = (uint16_t)(avoid | tr_regs_of(&m) | (t1 == R_NONE ? 0 : BIT(t1)));
	if (t->long_mode && target != R_NONE)
		check_call_target(t, target, busy,
				  t1 == R_NONE || (tr_regs_of(&m) & BIT(t1)) ? tr_scratch(t, busy, false) : t1);
	else if (t->long_mode)
		check_direct_target(t, in, busy);
	if (!t->pic && (size != 8 || (int64_t)ret == (int32_t)ret)) {
		tr_at_window(t, &m);
		emit_rm_mem(&t->c, size == 8, size == 2 ? 0x66c7 : 0xc7, 0, m);
		emit8(&t->c, (uint8_t)ret);
		emit8(&t->c, (uint8_t)(ret >> 8));
		if (size > 2) {
			emit8(&t->c, (uint8_t)(ret >> 16));
			emit8(&t->c, (uint8_t)(ret >> 24));
		}
	} else {
		if (t1 == R_NONE) {
			t1 = tr_scratch(t, avoid | tr_regs_of(&m), false);
		} else if (m.base == t1) { /* the address formed beside the addend: into one register */
			emit_lea(&t->c, 1, m.index, m);
			m = hm_base(m.index, 0);
		}
		if (t->pic) {
			emit_load(&t->c, t1, hm_gs(VOFF(ip_page)));
			emit_lea(&t->c, 1, t1, hm_base(t1, (int32_t)off));
		} else {
			emit_mov_imm(&t->c, t1, ret);
		}
		tr_at_window(t, &m);
		emit_store_size(t, size, m, t1);
	}
	adjust_sp(t, -(int32_t)size, t1);
}

void tr_call(struct tr *t, const struct insn *in)
{
	tr_need(t, BIT(R_SP));
	push_return(t, in, R_NONE);
	tr_need_at_exit(t);
	tr_exit(t, branch_delta(t, in), -1, false);
}

/*
 * Target in r10, to which 16-bit code adds gs:[code_key]; the guest's spare registers are in their slots.
 *   imul r11d, r10d, JC_FACTOR; shr r11d, 31-JC_BITS; and r11d, -2
 *   cmp r10, gs:[jc.tag + r11*8]; jne cold
 *   jmp gs:[jc.host + r11*8]
 * User code:
 *   mov r11, gs:[jc.host + r11*8];  and r10, -4096;  mov gs:[ip_page], r10;  jmp r11
 * ip_page stays the branch's own until the target is known to be good.  It is not changed in its place: what the target
 * reads of it would wait for that.
 */
static void indirect_tail(struct tr *t)
{
	size_t jc = VOFF(jc) + mode_jc(t->mode) * sizeof(struct jump_cache);
	struct cold *k;

	tr_take(t, R_10);
	tr_take(t, R_11);
	tr_need_at_exit(t);
	tr_flags_clobber(t, BIT(R_10));
	if (t->mode & MODE_TRANSIENT) {
		k = tr_cold(t, COLD_INDIRECT);
		k->from = emit_jmp(&t->c);
		return;
	}
	if (t->mode & MODE_CS16)
		emit_rm_mem(&t->c, 1, 0x03, R_10, hm_gs(VOFF(code_key)));
	emit_rm_reg(&t->c, 0, 0x69, R_11, R_10);
	emit32(&t->c, JC_FACTOR);
	emit_shift_imm(&t->c, 0, SH_SHR, R_11, 31 - JC_BITS);
	emit_alu_imm(&t->c, 0, ALU_AND, R_11, -2);
	emit_rm_mem(&t->c, 1, 0x3b, R_10, hm_gs_index(jc + offsetof(struct jump_cache, e[0].tag), R_11, 8));
	k = tr_cold(t, COLD_INDIRECT);
	t->bt->blocks[t->block].ind_jne = (uint32_t)(t->c.p - t->bt->rw);
	k->from = emit_jcc(&t->c, CC_NE);
	if (t->pic)
		emit_load(&t->c, R_11, hm_gs_index(jc + offsetof(struct jump_cache, e[0].host), R_11, 8));
	t->bt->blocks[t->block].ind_jmp = (uint32_t)(t->c.p - t->bt->rw);
	if (!t->pic) {
		emit_jmp_mem(&t->c, hm_gs_index(jc + offsetof(struct jump_cache, e[0].host), R_11, 8));
		return;
	}
	emit_alu_imm(&t->c, 1, ALU_AND, R_10, -4096);
	emit_store(&t->c, hm_gs(VOFF(ip_page)), R_10);
	t->bt->blocks[t->block].ind_gone = (uint32_t)(t->c.p - t->bt->rw);
	emit_rm_reg(&t->c, 0, 0xff, 4, R_11); /* jmp r11 */
}

void tr_cold_indirect(struct tr *t, const struct cold *k)
{
	uint32_t s = tr_site(t, SITE_INDIRECT);

	t->bt->blocks[t->block].ind_cold = (uint32_t)(t->c.p - t->bt->rw);
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(site)), (int32_t)s);
	emit_jmp_to(&t->c, t->bt->rw + ((t->mode & MODE_STEP ? glue_indirect_step : glue_indirect) - t->bt->rx));
	(void)k;
}

static void load_target_mem(struct tr *t, const struct insn *in, unsigned size)
{
	struct ea e = tr_ea(t, in);
	uint16_t avoid = in->gpr_read | BIT(R_SP);
	struct hmem m;
	uint8_t t1, t2;

	if (!tr_window(t, &e, avoid, false, &m) && !tr_combined(t, &e, ACC_R, avoid, false, &m)) {
		t1 = tr_scratch(t, avoid, false);
		t2 = tr_scratch(t, avoid | BIT(t1), false);
		tr_flags_clobber(t, avoid);
		m = tr_access(t, &e, size, ACC_R, t1, t2);
	}
	tr_take(t, R_10);
	tr_at_window(t, &m);
	if (size == 2)
		emit_rm_mem(&t->c, 0, 0x0fb7, R_10, m);
	else
		emit_load_size(t, size, R_10, m);
}

void tr_cold_raise(struct tr *t)
{
	uint32_t s = tr_site(t, SITE_RAISE);

	t->bt->sites[s].aux = EXC_GP;
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(site)), (int32_t)s);
	emit_jmp_to(&t->c, t->bt->rw + (glue_sys - t->bt->rx));
}

/* jmp r/m and call r/m */
void tr_indirect(struct tr *t, const struct insn *in)
{
	unsigned size = t->long_mode ? 8 : in->opsize;

	tr_need(t, in->gpr_read | BIT(R_SP));
	if (in->has_mem) {
		load_target_mem(t, in, size);
	} else {
		tr_take(t, R_10);
		if (size == 8)
			emit_mov_rr(&t->c, R_10, in->rm);
		else
			emit_rm_reg(&t->c, 0, size == 2 ? 0x0fb7 : 0x8b, R_10, in->rm);
	}
	if (in->cls == CLS_CALL_IND)
		push_return(t, in, R_10);
	indirect_tail(t);
}

void tr_ret(struct tr *t, const struct insn *in)
{
	unsigned size = push_size(t, in);
	struct ea e = tr_ea_stack(t, R_SP, 0);
	struct hmem m;

	tr_need(t, BIT(R_SP));
	if (!tr_window(t, &e, BIT(R_SP), false, &m) &&
	    !tr_combined(t, &e, ACC_R | SITE_ACC_STACK, BIT(R_SP), false, &m)) {
		tr_take(t, R_10);
		tr_take(t, R_11);
		tr_flags_clobber(t, 0);
		m = tr_access(t, &e, size, ACC_R | SITE_ACC_STACK, R_10, R_11);
	}
	tr_take(t, R_10);
	tr_at_window(t, &m);
	if (size == 2)
		emit_rm_mem(&t->c, 0, 0x0fb7, R_10, m);
	else
		emit_load_size(t, size, R_10, m);
	adjust_sp(t, (int32_t)(size + (uint64_t)in->imm), R_11);
	indirect_tail(t);
}

/* The rest is done in C, which continues or leaves:  mov gs:[site], n;  jmp glue */
void tr_helper(struct tr *t, const struct insn *in, enum site_kind kind)
{
	uint32_t s = tr_site(t, kind);

	t->bt->sites[s].aux = tr_sys(t, in);
	emit_store_imm32(&t->c, 0, hm_gs(VOFF(site)), (int32_t)s);
	emit_jmp_to(&t->c, t->bt->rw + (glue_sys - t->bt->rx));
}
