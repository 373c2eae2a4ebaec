/*
 * Delivering events: through the IDT in long mode and in protected mode; real
 * mode's table is real_event()'s.
 *
 * Invariant: a delivery that faults has written at most to the stack it was
 * about to use; registers change only when nothing can fault any more.
 */
#include "vcpu/cpu/exception.h"

#include "common/log.h"
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/real.h"
#include "vcpu/cpu/task.h"

struct event {
	unsigned vector;
	int type;
	bool has_error;
	uint32_t error;
	uint64_t rip; /* return address */
};

struct gate {
	unsigned type, dpl, ist;
	bool present;
	uint16_t sel;
	uint64_t off;
};

/* Where a delivery ends up, before it is committed. */
struct entry {
	struct seg cs, ss;
	bool new_ss;
	unsigned cpl;
	struct stack st;
};

/* Error code naming an IDT entry: index, IDT, EXT (SDM 3A 6.13). */
static uint32_t idt_error(const struct event *ev, uint32_t ext)
{
	return ev->vector << 3 | 2 | ext;
}

static uint32_t event_ext(const struct event *ev)
{
	return ev->type != EVENT_SOFT;
}

static int gate_read(struct vcpu *v, const struct event *ev, struct gate *g)
{
	bool lm = in_long_mode(v);
	uint32_t raw[4], size = lm ? 16 : 8, ext = event_ext(ev);
	uint64_t gva = v->idtr.base + ev->vector * size;

	if (ev->vector * size + size - 1 > v->idtr.limit)
		return raise_gp(v, idt_error(ev, ext));
	if (mmu_read(v, lm ? gva : (uint32_t)gva, raw, size, ACC_R | ACC_SYS))
		return -1;
	g->off = (raw[0] & 0xffff) | (raw[1] & 0xffff0000u);
	if (lm)
		g->off |= (uint64_t)raw[2] << 32;
	g->sel = (uint16_t)(raw[0] >> 16);
	g->ist = lm ? raw[1] & 7 : 0;
	g->type = (raw[1] >> 8) & 31;
	g->dpl = (raw[1] >> 13) & 3;
	if (!(g->type & 8)) /* a 286 gate */
		g->off &= 0xffff;
	g->present = raw[1] & (1u << 15);
	return 0;
}

static bool gate_type_ok(const struct vcpu *v, unsigned type)
{
	if (type == DT_INT32 || type == DT_TRAP32)
		return true;
	return !in_long_mode(v) && (type == DT_INT16 || type == DT_TRAP16 || type == DT_TASK);
}

static int gate_check(struct vcpu *v, const struct event *ev, const struct gate *g)
{
	uint32_t ext = event_ext(ev);

	if (!gate_type_ok(v, g->type))
		return raise_gp(v, idt_error(ev, ext));
	if (ev->type == EVENT_SOFT && g->dpl < v->cpl)
		return raise_gp(v, idt_error(ev, ext));
	if (!g->present)
		return raise_error(v, EXC_NP, idt_error(ev, ext));
	return 0;
}

/* The handler's code segment and privilege. */
static int entry_code(struct vcpu *v, const struct event *ev, const struct gate *g, struct entry *e)
{
	uint32_t ext = event_ext(ev), attr;
	struct desc d;

	if ((g->sel & ~3) == 0)
		return raise_gp(v, ext);
	if (desc_fetch(v, g->sel, EXC_GP, ext, &d))
		return -1;
	attr = desc_attr(&d);
	if (!(attr & SEG_A_S) || !(attr & SEG_T_CODE) || SEG_DPL(attr) > v->cpl)
		return raise_gp(v, (g->sel & ~3u) | ext);
	if (in_long_mode(v) && (attr & (SEG_A_L | SEG_A_DB)) != SEG_A_L)
		return raise_gp(v, (g->sel & ~3u) | ext);
	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_NP, (g->sel & ~3u) | ext);
	if (in_v86(v) && ((attr & SEG_T_CONF) || SEG_DPL(attr) != 0))
		return raise_gp(v, (g->sel & ~3u) | ext);
	if (desc_mark(v, &d, SEG_T_ACC))
		return -1;
	e->cpl = attr & SEG_T_CONF ? v->cpl : SEG_DPL(attr);
	seg_from_desc(&e->cs, (uint16_t)((g->sel & ~3u) | e->cpl), &d);
	if (in_long_mode(v) ? !is_canonical(g->off) : g->off > e->cs.limit)
		return raise_gp(v, ext);
	return 0;
}

/* Long mode: IST, RSPn or the current stack, aligned to 16 bytes (SDM 3A 6.14.2). */
static int entry_stack_long(struct vcpu *v, const struct event *ev, const struct gate *g, struct entry *e)
{
	uint32_t ext = event_ext(ev);
	uint64_t sp = v->regs[R_SP];
	uint16_t unused;

	e->new_ss = e->cpl != v->cpl;
	seg_set_null(&e->ss, (uint16_t)e->cpl);
	if (g->ist) {
		if (tss_ist(v, g->ist, ext, &sp))
			return -1;
	} else if (e->new_ss && tss_stack(v, e->cpl, ext, &unused, &sp)) {
		return -1;
	}
	stack_other(&e->st, &e->ss, sp & ~15ull, e->cpl, true, ext);
	return 0;
}

static int entry_stack_prot(struct vcpu *v, const struct event *ev, struct entry *e)
{
	uint32_t ext = event_ext(ev);
	uint64_t sp = v->regs[R_SP];
	uint16_t ss;

	e->new_ss = e->cpl != v->cpl;
	e->ss = v->seg[SEG_SS];
	if (e->new_ss && (tss_stack(v, e->cpl, ext, &ss, &sp) || seg_check_ss(v, ss, e->cpl, EXC_TS, ext, &e->ss)))
		return -1;
	stack_other(&e->st, &e->ss, sp, e->cpl, false, e->new_ss ? (e->ss.sel & ~3u) | ext : ext);
	return 0;
}

/* Faults push RF set, so that a breakpoint on the instruction does not hit again (SDM 3B 17.3.1.1). */
static bool is_fault(const struct event *ev)
{
	const uint32_t faults = 1u << EXC_DE | 1u << EXC_BR | 1u << EXC_UD | 1u << EXC_NM | 1u << EXC_TS |
				1u << EXC_NP | 1u << EXC_SS | 1u << EXC_GP | 1u << EXC_PF | 1u << EXC_MF |
				1u << EXC_AC | 1u << EXC_XM;

	return ev->type == EVENT_EXC && ev->vector < 32 && (faults >> ev->vector & 1);
}

/* Virtual-8086 mode's data segments are in the frame, for handlers find null ones (SDM 3A 20.3.1.1). */
static int push_v86_segments(struct vcpu *v, struct stack *st, unsigned size)
{
	static const uint8_t order[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};

	for (unsigned i = 0; i < sizeof order; i++)
		if (stack_push(v, st, v->seg[order[i]].sel, size))
			return -1;
	return 0;
}

static void drop_v86_segments(struct vcpu *v)
{
	seg_set_null(&v->seg[SEG_ES], 0);
	seg_set_null(&v->seg[SEG_DS], 0);
	seg_set_null(&v->seg[SEG_FS], 0);
	seg_set_null(&v->seg[SEG_GS], 0);
}

static int push_frame(struct vcpu *v, const struct event *ev, struct entry *e, unsigned size)
{
	uint64_t fl = vcpu_rflags(v) | (is_fault(ev) ? RFL_RF : 0);
	struct stack *st = &e->st;

	if (in_v86(v) && push_v86_segments(v, st, size))
		return -1;
	if (e->new_ss || in_long_mode(v))
		if (stack_push(v, st, v->seg[SEG_SS].sel, size) || stack_push(v, st, v->regs[R_SP], size))
			return -1;
	if (stack_push(v, st, fl, size) || stack_push(v, st, v->seg[SEG_CS].sel, size) ||
	    stack_push(v, st, ev->rip, size))
		return -1;
	return ev->has_error ? stack_push(v, st, ev->error, size) : 0;
}

static void enter_handler(struct vcpu *v, const struct gate *g, const struct entry *e)
{
	uint64_t fl = vcpu_rflags(v) & ~(uint64_t)(RFL_TF | RFL_NT | RFL_RF | RFL_VM);

	if (!(g->type & 1)) /* interrupt gate */
		fl &= ~(uint64_t)RFL_IF;
	stack_commit(v, &e->st);
	if (in_v86(v))
		drop_v86_segments(v);
	if (e->new_ss)
		v->seg[SEG_SS] = e->ss;
	v->seg[SEG_CS] = e->cs;
	v->cpl = (uint8_t)e->cpl;
	v->rip = g->off;
	v->halted = 0;
	flags_put(v, fl);
	vcpu_update_mode(v);
}

/* Through a task gate: the new task finds an error code on its stack, of its TSS's size (SDM 3A 6.12.2). */
static int deliver_task(struct vcpu *v, const struct event *ev, const struct gate *g)
{
	uint32_t ext = event_ext(ev);
	struct stack st;
	struct desc d;

	if (task_find(v, g->sel, TASK_EVENT, ext, &d) || task_switch(v, g->sel, &d, TASK_EVENT, ev->rip, ext))
		return -1;
	if (!ev->has_error)
		return 0;
	stack_other(&st, &v->seg[SEG_SS], v->regs[R_SP], v->cpl, false, ext);
	if (stack_push(v, &st, ev->error, v->tr.attr & 8 ? 4 : 2))
		return -1;
	stack_commit(v, &st);
	return 0;
}

/* One attempt: 0, or -1 with what went wrong raised. */
static int deliver_once(struct vcpu *v, const struct event *ev)
{
	struct entry e;
	struct gate g;
	unsigned size;
	int r;

	if (in_real(v))
		return real_event(v, ev->vector, ev->rip, event_ext(ev));
	if (gate_read(v, ev, &g) || gate_check(v, ev, &g))
		return -1;
	if (g.type == DT_TASK)
		return deliver_task(v, ev, &g);
	if (entry_code(v, ev, &g, &e))
		return -1;
	r = in_long_mode(v) ? entry_stack_long(v, ev, &g, &e) : entry_stack_prot(v, ev, &e);
	if (r)
		return -1;
	size = in_long_mode(v) ? 8 : g.type & 8 ? 4 : 2;
	if (push_frame(v, ev, &e, size))
		return -1;
	enter_handler(v, &g, &e);
	return 0;
}

static bool contributory(unsigned vector)
{
	return vector == EXC_DE || (vector >= EXC_TS && vector <= EXC_GP);
}

/* What @first and the exception raised while delivering it become (SDM 3A table 6-5): false for a shutdown. */
static bool combine(struct vcpu *v, struct event *ev)
{
	unsigned second = v->exc_vector;
	bool exc = ev->type == EVENT_EXC, harmful = contributory(second) || second == EXC_PF;

	if (exc && ev->vector == EXC_DF && harmful)
		return false;
	ev->has_error = true;
	if (exc && ((contributory(ev->vector) && contributory(second)) || (ev->vector == EXC_PF && harmful))) {
		ev->vector = EXC_DF;
		ev->error = 0;
	} else {
		ev->vector = second;
		ev->error = v->exc_error;
		ev->has_error = v->exc_has_error;
	}
	ev->type = EVENT_EXC;
	return true;
}

/*
 * The pushes of a frame meet data breakpoints as all stores do, and the trap comes before the handler's first instruction.  The
 * manuals only speak of instructions; that CPUs do it is why Linux refuses breakpoints on its entry stacks.
 */
static void frame_breakpoints(struct vcpu *v)
{
	if (!v->db_hits)
		return;
	raise_exception(v, EXC_DB);
	v->exc_dr6 = v->db_hits;
	v->db_hits = 0;
}

int cpu_deliver(struct vcpu *v, unsigned vector, int type, bool has_error, uint32_t error)
{
	struct event ev = {vector & 0xff, type, has_error, error, v->rip};

	if (type != EVENT_INTR) /* the run loop counts those */
		v->stats.exceptions++;
	if (type == EVENT_NMI)
		v->nmi_blocked = 1;
	v->db_hits = 0;
	while (deliver_once(v, &ev)) {
		v->exc_pending = 0;
		v->db_hits = 0;
		ev.rip = v->rip; /* a task switch may have brought another */
		if (v->exc_vector == EXC_PF)
			v->cr2 = v->exc_cr2;
		if (!combine(v, &ev)) {
			log_warn("cpu %d: triple fault at rip 0x%llx, cr2 0x%llx", v->id, (unsigned long long)v->rip,
				 (unsigned long long)v->cr2);
			return 1;
		}
	}
	frame_breakpoints(v);
	return 0;
}

void cpu_enter_debug(struct vcpu *v, uint64_t dr6)
{
	if (dr6)
		v->dr[6] = (v->dr[6] & ~15ull) | dr6 | 0xffff0ff0u;
	v->dr[7] &= ~(1ull << 13);
}

int cpu_deliver_pending(struct vcpu *v)
{
	if (!v->exc_pending)
		return 0;
	v->exc_pending = 0;
	if (v->exc_vector == EXC_PF) {
		v->cr2 = v->exc_cr2;
		v->stats.page_faults++;
	}
	if (v->exc_vector == EXC_DB)
		cpu_enter_debug(v, v->exc_dr6);
	v->exc_dr6 = 0;
	return cpu_deliver(v, v->exc_vector, EVENT_EXC, v->exc_has_error, v->exc_error);
}

int cpu_soft_int(struct vcpu *v, unsigned vector, enum event_type type, uint64_t next)
{
	struct event ev = {vector & 0xff, type, false, 0, next};

	if (deliver_once(v, &ev))
		return -1;
	v->stats.exceptions++;
	return 0;
}
