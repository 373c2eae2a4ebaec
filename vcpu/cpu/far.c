/*
 * Far jmp, call, ret and iret.
 *
 * Invariant: CS, SS, rsp, CPL and rip change together, after the last check.
 */
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/real.h"
#include "vcpu/cpu/task.h"

struct target {
	struct seg cs, ss;
	uint64_t rip;
	unsigned cpl;
	bool code64;
};

struct gate {
	uint16_t sel;
	uint64_t off;
	unsigned dpl, count, size; /* size of what is pushed */
};

/* Fills @t for the code segment @d at privilege @cpl; checks presence and the target address. */
static int target_code(struct vcpu *v, uint16_t sel, struct desc *d, unsigned cpl, uint64_t off, struct target *t)
{
	uint32_t attr = desc_attr(d);

	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_NP, sel & ~3u);
	t->code64 = in_long_mode(v) && (attr & SEG_A_L);
	if (t->code64 && (attr & SEG_A_DB))
		return raise_gp(v, sel & ~3u);
	t->cpl = cpl;
	t->rip = off;
	seg_from_desc(&t->cs, (uint16_t)((sel & ~3u) | cpl), d);
	if (t->code64 ? !is_canonical(off) : off > t->cs.limit)
		return raise_gp(v, 0);
	return desc_mark(v, d, SEG_T_ACC);
}

static void target_enter(struct vcpu *v, const struct target *t)
{
	v->seg[SEG_CS] = t->cs;
	v->cpl = (uint8_t)t->cpl;
	v->rip = t->rip;
	vcpu_update_mode(v);
}

static bool is_code(uint32_t attr)
{
	return (attr & SEG_A_S) && (attr & SEG_T_CODE);
}

/* Direct far jmp/call to a code segment (SDM 3A 5.8.1). */
static int direct_target(struct vcpu *v, uint16_t sel, struct desc *d, uint64_t off, struct target *t)
{
	uint32_t attr = desc_attr(d);
	unsigned dpl = SEG_DPL(attr);
	bool ok = attr & SEG_T_CONF ? dpl <= v->cpl : dpl == v->cpl && (sel & 3u) <= v->cpl;

	if (!is_code(attr) || !ok)
		return raise_gp(v, sel & ~3u);
	return target_code(v, sel, d, v->cpl, off, t);
}

/* Is the system descriptor @d one that switches tasks? */
static bool is_task(const struct vcpu *v, const struct desc *d)
{
	uint32_t attr = desc_attr(d);
	unsigned type = SEG_TYPE(attr);

	return !in_long_mode(v) && !(attr & SEG_A_S) && (type == DT_TASK || (type & ~10u) == DT_TSS16);
}

/* A jump or call to the TSS or task gate @d (SDM 2A JMP, TASK-GATE and TASK-STATE-SEGMENT). */
static int far_task(struct vcpu *v, uint16_t sel, struct desc *d, enum task_way way, uint64_t next)
{
	uint32_t attr = desc_attr(d);

	if (SEG_DPL(attr) < v->cpl || SEG_DPL(attr) < (sel & 3u))
		return raise_gp(v, sel & ~3u);
	if (SEG_TYPE(attr) == DT_TASK) {
		if (!(attr & SEG_A_P))
			return raise_error(v, EXC_NP, sel & ~3u);
		sel = (uint16_t)(d->lo >> 16);
	}
	return task_find(v, sel, way, 0, d) || task_switch(v, sel, d, way, next, 0) ? -1 : 0;
}

/* A call gate's contents, after its own checks. */
static int gate_fetch(struct vcpu *v, uint16_t sel, struct desc *d, struct gate *g)
{
	uint32_t attr = desc_attr(d);
	unsigned type = SEG_TYPE(attr), rpl = sel & 3;
	bool lm = in_long_mode(v);

	if (type != DT_CALL32 && (type != DT_CALL16 || lm))
		return raise_gp(v, sel & ~3u);
	if (SEG_DPL(attr) < v->cpl || SEG_DPL(attr) < rpl)
		return raise_gp(v, sel & ~3u);
	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_NP, sel & ~3u);
	if (lm && desc_fetch_wide(v, sel, EXC_GP, 0, d))
		return -1;
	g->sel = (uint16_t)(d->lo >> 16);
	g->off = d->lo & 0xffff;
	if (type == DT_CALL32)
		g->off |= d->hi & 0xffff0000u;
	g->off |= (uint64_t)d->base_hi << 32;
	g->count = lm ? 0 : d->hi & 31;
	g->size = lm ? 8 : type == DT_CALL32 ? 4 : 2;
	return 0;
}

/* The code segment behind a gate; @call allows more privilege. */
static int gate_target(struct vcpu *v, const struct gate *g, bool call, struct target *t)
{
	uint32_t attr;
	struct desc d;
	unsigned dpl, cpl;
	bool ok;

	if ((g->sel & ~3) == 0)
		return raise_gp(v, 0);
	if (desc_fetch(v, g->sel, EXC_GP, 0, &d))
		return -1;
	attr = desc_attr(&d);
	dpl = SEG_DPL(attr);
	ok = call || (attr & SEG_T_CONF) ? dpl <= v->cpl : dpl == v->cpl;
	if (!is_code(attr) || !ok || (in_long_mode(v) && (attr & (SEG_A_L | SEG_A_DB)) != SEG_A_L))
		return raise_gp(v, g->sel & ~3u);
	cpl = call && !(attr & SEG_T_CONF) ? dpl : v->cpl;
	return target_code(v, g->sel, &d, cpl, g->off, t);
}

int far_jump(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next)
{
	struct target t;
	struct gate g;
	struct desc d;
	int r;

	off &= size_mask(opsize);
	if (in_8086(v))
		return real_far_jump(v, sel, off);
	if ((sel & ~3) == 0)
		return raise_gp(v, 0);
	if (desc_fetch(v, sel, EXC_GP, 0, &d))
		return -1;
	if (is_task(v, &d))
		return far_task(v, sel, &d, TASK_JMP, next);
	if (desc_attr(&d) & SEG_A_S)
		r = direct_target(v, sel, &d, off, &t);
	else
		r = gate_fetch(v, sel, &d, &g) || gate_target(v, &g, false, &t) ? -1 : 0;
	if (r)
		return -1;
	target_enter(v, &t);
	return 0;
}

static int push_return(struct vcpu *v, struct stack *st, uint64_t next, unsigned size)
{
	return stack_push(v, st, v->seg[SEG_CS].sel, size) || stack_push(v, st, next, size) ? -1 : 0;
}

/* Copies a gate's parameters from the caller's stack, the last pushed one ending up lowest again. */
static int copy_params(struct vcpu *v, struct stack *st, const struct gate *g)
{
	struct stack old;
	uint64_t val[31];

	stack_current(v, &old);
	for (unsigned i = 0; i < g->count; i++)
		if (stack_pop(v, &old, &val[i], g->size))
			return -1;
	for (unsigned i = g->count; i > 0; i--)
		if (stack_push(v, st, val[i - 1], g->size))
			return -1;
	return 0;
}

/* A call to more privilege: the stack comes from the TSS. */
static int call_inner(struct vcpu *v, struct target *t, const struct gate *g, uint64_t next)
{
	bool lm = in_long_mode(v);
	struct stack st;
	uint64_t sp;
	uint16_t ss;

	if (tss_stack(v, t->cpl, 0, &ss, &sp))
		return -1;
	if (lm)
		seg_set_null(&t->ss, (uint16_t)t->cpl);
	else if (seg_check_ss(v, ss, t->cpl, EXC_TS, 0, &t->ss))
		return -1;
	stack_other(&st, &t->ss, sp, t->cpl, lm, t->ss.sel & ~3u);
	if (stack_push(v, &st, v->seg[SEG_SS].sel, g->size) || stack_push(v, &st, v->regs[R_SP], g->size) ||
	    copy_params(v, &st, g) || push_return(v, &st, next, g->size))
		return -1;
	stack_commit(v, &st);
	v->seg[SEG_SS] = t->ss;
	target_enter(v, t);
	return 0;
}

int far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next)
{
	struct gate g = {.size = opsize};
	struct target t;
	struct stack st;
	struct desc d;

	off &= size_mask(opsize);
	if (in_8086(v))
		return real_far_call(v, sel, off, opsize, next);
	if ((sel & ~3) == 0)
		return raise_gp(v, 0);
	if (desc_fetch(v, sel, EXC_GP, 0, &d))
		return -1;
	if (is_task(v, &d))
		return far_task(v, sel, &d, TASK_CALL, next);
	if (desc_attr(&d) & SEG_A_S) {
		if (direct_target(v, sel, &d, off, &t))
			return -1;
	} else {
		if (gate_fetch(v, sel, &d, &g) || gate_target(v, &g, true, &t))
			return -1;
		if (t.cpl != v->cpl)
			return call_inner(v, &t, &g, next);
	}
	stack_current(v, &st);
	if (push_return(v, &st, next, g.size))
		return -1;
	stack_commit(v, &st);
	target_enter(v, &t);
	return 0;
}

/* The code segment a return goes to (SDM 2, RET and IRET). */
static int return_code(struct vcpu *v, uint16_t sel, uint64_t rip, struct target *t)
{
	unsigned rpl = sel & 3, dpl;
	uint32_t attr;
	struct desc d;

	if ((sel & ~3) == 0)
		return raise_gp(v, 0);
	if (desc_fetch(v, sel, EXC_GP, 0, &d))
		return -1;
	attr = desc_attr(&d);
	dpl = SEG_DPL(attr);
	if (!is_code(attr) || rpl < v->cpl || (attr & SEG_T_CONF ? dpl > rpl : dpl != rpl))
		return raise_gp(v, sel & ~3u);
	return target_code(v, sel, &d, rpl, rip, t);
}

static int return_stack(struct vcpu *v, uint16_t sel, struct target *t)
{
	if ((sel & ~3) == 0 && t->code64 && t->cpl != 3 && (sel & 3u) == t->cpl) {
		seg_set_null(&t->ss, sel);
		return 0;
	}
	return seg_check_ss(v, sel, t->cpl, EXC_GP, 0, &t->ss);
}

/*
 * Segments the outer ring may not have become null, and null selectors of any RPL become 0 (SDM 2, IRET; APM 3, IRET).  The
 * bases stay: 64-bit code goes on using those of FS and GS.
 */
static void drop_inner_segments(struct vcpu *v, unsigned cpl)
{
	static const uint8_t regs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

	for (unsigned i = 0; i < sizeof(regs); i++) {
		struct seg *s = &v->seg[regs[i]];
		bool conforming = (s->attr & (SEG_T_CODE | SEG_T_CONF)) == (SEG_T_CODE | SEG_T_CONF);

		if (!(s->attr & SEG_A_NULL) && (conforming || SEG_DPL(s->attr) >= cpl))
			continue;
		s->sel = 0;
		s->limit = 0;
		s->attr = SEG_A_NULL;
	}
}

static void set_outer_sp(struct vcpu *v, const struct target *t, uint64_t sp, unsigned opsize)
{
	if (t->code64 || opsize == 8)
		v->regs[R_SP] = sp;
	else if (t->ss.attr & SEG_A_DB)
		v->regs[R_SP] = (uint32_t)sp;
	else
		reg_write(v, R_SP, sp, 2);
}

static void enter_outer(struct vcpu *v, const struct target *t, uint64_t sp, unsigned opsize)
{
	unsigned old = v->cpl;

	set_outer_sp(v, t, sp, opsize);
	v->seg[SEG_SS] = t->ss;
	if (t->cpl > old)
		drop_inner_segments(v, t->cpl);
	target_enter(v, t);
}

int far_return(struct vcpu *v, unsigned opsize, unsigned pop)
{
	uint64_t rip, cs, sp, ss;
	struct target t;
	struct stack st;

	if (in_8086(v))
		return real_far_return(v, opsize, pop);
	stack_current(v, &st);
	if (stack_pop(v, &st, &rip, opsize) || stack_pop(v, &st, &cs, opsize))
		return -1;
	if (return_code(v, (uint16_t)cs, rip, &t))
		return -1;
	st.sp += pop;
	if (t.cpl == v->cpl) {
		stack_commit(v, &st);
		target_enter(v, &t);
		return 0;
	}
	if (stack_pop(v, &st, &sp, opsize) || stack_pop(v, &st, &ss, opsize) || return_stack(v, (uint16_t)ss, &t))
		return -1;
	enter_outer(v, &t, sp + pop, opsize);
	return 0;
}

/* The flags an iret at the current privilege may change. */
static uint64_t iret_flags_mask(const struct vcpu *v, unsigned opsize)
{
	uint64_t m = RFL_ARITH | RFL_TF | RFL_DF | RFL_NT;

	if (opsize > 2)
		m |= RFL_RF | RFL_AC | RFL_ID;
	if (v->cpl <= flags_iopl(v))
		m |= RFL_IF;
	if (v->cpl == 0)
		m |= RFL_IOPL | (opsize > 2 ? RFL_VIF | RFL_VIP : 0);
	return m;
}

/* iret with NT: back to the task that called (SDM 2A IRET, TASK-RETURN). */
static int task_return(struct vcpu *v, uint64_t next)
{
	struct desc d;
	uint16_t sel;

	return task_link(v, &sel) || task_find(v, sel, TASK_IRET, 0, &d) || task_switch(v, sel, &d, TASK_IRET, next, 0)
		       ? -1
		       : 0;
}

int far_iret(struct vcpu *v, unsigned opsize, uint64_t next)
{
	uint64_t rip, cs, fl, sp, ss, mask;
	bool code64 = in_code64(v);
	struct target t;
	struct stack st;

	if (in_8086(v))
		return real_iret(v, opsize);
	v->nmi_blocked = 0; /* even when the iret faults (SDM 3A 6.7.1) */
	if (v->sysflags & RFL_NT)
		return in_long_mode(v) ? raise_gp(v, 0) : task_return(v, next);
	stack_current(v, &st);
	if (stack_pop(v, &st, &rip, opsize) || stack_pop(v, &st, &cs, opsize) || stack_pop(v, &st, &fl, opsize))
		return -1;
	if (opsize == 4 && (fl & RFL_VM) && v->cpl == 0 && !in_long_mode(v))
		return v86_enter(v, &st, rip, (uint16_t)cs, fl);
	if (return_code(v, (uint16_t)cs, rip, &t))
		return -1;
	mask = iret_flags_mask(v, opsize);
	fl = (vcpu_rflags(v) & ~mask) | (fl & mask);
	if (code64 || t.cpl != v->cpl) {
		if (stack_pop(v, &st, &sp, opsize) || stack_pop(v, &st, &ss, opsize) ||
		    return_stack(v, (uint16_t)ss, &t))
			return -1;
		flags_put(v, fl);
		enter_outer(v, &t, sp, opsize);
		return 0;
	}
	stack_commit(v, &st);
	flags_put(v, fl);
	target_enter(v, &t);
	return 0;
}
