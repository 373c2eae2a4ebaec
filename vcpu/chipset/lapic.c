/*
 * Local APIC registers, priorities, interprocessor interrupts (SDM 3A 11).
 * The timer is in lapic_timer.c.
 *
 * Invariant: PEND_INTR of the vcpu is set while lapic_ack() would return a vector.  Whoever adds to what it returns looks
 * afterwards, as does its vcpu's thread when it lowers its priority; that thread alone takes PEND_INTR back, and then looks once
 * more.  All of these are sequentially consistent, so one of two that meet sees what the other did.
 */
#include "vcpu/chipset/lapic.h"

#include "vcpu/chipset/lapic_timer.h"
#include "vcpu/chipset/savechips.h"
#include "vcpu/vcpu.h"

#define VERSION     (0x14u | (LVT_COUNT - 1) << 16)
#define LVT_MASKED  (1u << 16)
#define LVT_LEVEL   (1u << 15)
#define LVT_REMOTE  (1u << 14) /* remote IRR */
#define LVT_PENDING (1u << 12)
#define SVR_ENABLE  (1u << 8)

#define ESR_SEND_VECTOR (1u << 5)
#define ESR_RECV_VECTOR (1u << 6)
#define ESR_REGISTER    (1u << 7)

enum { /* register numbers: xAPIC offset / 16, x2APIC MSR - 0x800 */
       R_ID = 0x02,
       R_VERSION,
       R_TPR = 0x08,
       R_APR,
       R_PPR,
       R_EOI,
       R_RRD,
       R_LDR,
       R_DFR,
       R_SVR,
       R_ISR = 0x10,
       R_TMR = 0x18,
       R_IRR = 0x20,
       R_ESR = 0x28,
       R_CMCI = 0x2f,
       R_ICR = 0x30,
       R_ICR_HI,
       R_LVT = 0x32,
       R_INITIAL = 0x38,
       R_CURRENT,
       R_DIVIDE = 0x3e,
       R_SELF_IPI = 0x3f
};

static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static bool x2apic(const struct lapic *l)
{
	return l->base & APIC_BASE_X2;
}

/* ---- 256-bit vectors ---- */
static void bit_set(_Atomic uint64_t *m, unsigned n)
{
	atomic_fetch_or(&m[n >> 6], 1ull << (n & 63));
}

static void bit_clear(_Atomic uint64_t *m, unsigned n)
{
	atomic_fetch_and(&m[n >> 6], ~(1ull << (n & 63)));
}

static bool bit_test(const _Atomic uint64_t *m, unsigned n)
{
	return m[n >> 6] >> (n & 63) & 1;
}

static int bit_highest(const _Atomic uint64_t *m)
{
	for (int i = 3; i >= 0; i--) {
		uint64_t w = m[i];
		if (w)
			return i * 64 + 63 - __builtin_clzll(w);
	}
	return -1;
}

/* ---- priorities (SDM 3A 11.8.3) ---- */
static uint32_t ppr(const struct lapic *l)
{
	int top = bit_highest(l->isr);
	uint32_t cls = top < 0 ? 0 : (uint32_t)top & 0xf0, tpr = l->tpr;

	return (tpr & 0xf0) >= cls ? tpr : cls;
}

static int deliverable(const struct lapic *l)
{
	int v;

	if (!(l->svr & SVR_ENABLE) || !(l->base & APIC_BASE_ENABLE))
		return -1;
	v = bit_highest(l->irr);
	if (v < 0 || ((uint32_t)v & 0xf0) <= (ppr(l) & 0xf0))
		return -1;
	return v;
}

/* The 8259 reaches a CPU whose APIC is off, or through LINT0 in ExtINT mode (virtual wire). */
static bool takes_extint(const struct lapic *l)
{
	if (!l->all->extint)
		return false;
	uint32_t lint0 = l->lvt[LVT_LINT0];
	if (!(l->base & APIC_BASE_ENABLE))
		return l->v->id == 0;
	return !(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == APIC_EXTINT;
}

static bool wanted(const struct lapic *l)
{
	return deliverable(l) >= 0 || takes_extint(l);
}

/* From any thread: there is something new, for its vcpu to see if it is deliverable by now. */
static void notify(struct lapic *l)
{
	if (wanted(l) && !(atomic_load(&l->v->pending) & PEND_INTR))
		vcpu_kick(l->v, PEND_INTR);
}

void lapic_update(struct lapic *l)
{
	if (!wanted(l) && (atomic_load_explicit(&l->v->pending, memory_order_relaxed) & PEND_INTR))
		atomic_fetch_and(&l->v->pending, ~PEND_INTR);
	notify(l);
}

int lapic_ack(struct lapic *l)
{
	int vec = deliverable(l);

	if (vec >= 0) {
		bit_clear(l->irr, (unsigned)vec);
		bit_set(l->isr, (unsigned)vec);
	} else if (takes_extint(l)) {
		vec = l->all->extint_ack(l->all->ctx);
	}
	lapic_update(l);
	return vec;
}

/* ---- accepting: from any thread ---- */
static void lapic_error(struct lapic *l, uint32_t bit)
{
	uint32_t lvt = l->lvt[LVT_ERROR];

	atomic_fetch_or(&l->esr_latched, bit);
	if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16) {
		bit_set(l->irr, lvt & 0xff);
		notify(l);
	}
}

static void accept_fixed(struct lapic *l, uint8_t vector, bool level)
{
	if (!(l->svr & SVR_ENABLE) || !(l->base & APIC_BASE_ENABLE))
		return;
	if (vector < 16) {
		lapic_error(l, ESR_RECV_VECTOR);
		return;
	}
	if (level)
		bit_set(l->tmr, vector);
	else if (bit_test(l->tmr, vector))
		bit_clear(l->tmr, vector);
	bit_set(l->irr, vector);
	notify(l);
}

static void accept_start(struct lapic *l, int vector)
{
	if (l->all->init_sipi)
		l->all->init_sipi(l->all->ctx, l->v, vector);
}

static void accept(struct lapic *l, const struct apic_msg *m)
{
	switch (m->mode) {
	case APIC_FIXED:
	case APIC_LOWEST: accept_fixed(l, m->vector, m->level); break;
	case APIC_NMI: vcpu_kick(l->v, PEND_NMI); break;
	case APIC_INIT: accept_start(l, -1); break;
	case APIC_SIPI: accept_start(l, m->vector); break;
	default: break; /* SMI: there is no SMM; ExtINT by message: the 8259 is on LINT0 */
	}
}

void lapic_lvt_fire(struct lapic *l, unsigned n)
{
	uint32_t e = l->lvt[n];

	if (!(e & LVT_MASKED))
		accept(l, &(struct apic_msg){.vector = (uint8_t)e, .mode = n == LVT_TIMER ? APIC_FIXED : e >> 8 & 7});
}

/* ---- the interrupt bus (SDM 3A 11.6.2) ---- */
static bool logical_match(const struct lapic *l, uint32_t dest, bool x2)
{
	if (x2apic(l)) {
		if (!x2)
			return dest == 0xff || (!(l->ldr >> 16) && (l->ldr & dest & 0xff));
		return dest >> 16 == l->ldr >> 16 && (l->ldr & dest & 0xffff);
	}
	dest &= 0xff;
	if (l->dfr >> 28 == 0xf)
		return l->ldr >> 24 & dest;
	return dest >> 4 == l->ldr >> 28 && (l->ldr >> 24 & dest & 0xf);
}

static bool addressed(const struct lapic *l, const struct apic_msg *m)
{
	uint32_t all = m->x2 ? 0xffffffffu : 0xff;

	if (!(l->base & APIC_BASE_ENABLE))
		return false;
	if (m->dest == all)
		return true;
	if (m->logical)
		return logical_match(l, m->dest, m->x2);
	return l->id == m->dest;
}

/* Of those addressed the one with the lowest priority takes it; of several that are equal, the next in turn. */
static bool deliver_lowest(struct lapics *s, const struct apic_msg *m)
{
	struct lapic *best = NULL;

	for (int k = 1; k <= s->n; k++) {
		struct lapic *l = &s->apic[(s->last_lowest + k) % s->n];

		if (addressed(l, m) && (l->svr & SVR_ENABLE) && (!best || ppr(l) < ppr(best)))
			best = l;
	}
	if (!best)
		return false;
	s->last_lowest = (int)(best - s->apic);
	accept(best, m);
	return true;
}

bool lapics_deliver(struct lapics *s, const struct apic_msg *m)
{
	bool taken = false;

	if (m->mode == APIC_LOWEST)
		return deliver_lowest(s, m);
	for (int i = 0; i < s->n; i++) {
		if (!addressed(&s->apic[i], m))
			continue;
		accept(&s->apic[i], m);
		taken = true;
	}
	return taken;
}

int lapics_target(const struct lapics *s, const struct apic_msg *m)
{
	for (int i = 0; i < s->n; i++)
		if (addressed(&s->apic[i], m))
			return i;
	return -1;
}

static void send_ipi(struct lapic *l)
{
	uint32_t lo = (uint32_t)l->icr, shorthand = lo >> 18 & 3;
	struct apic_msg m = {.vector = (uint8_t)lo, .mode = lo >> 8 & 7, .logical = lo >> 11 & 1, .x2 = x2apic(l)};

	m.dest = m.x2 ? (uint32_t)(l->icr >> 32) : (uint32_t)(l->icr >> 56);
	if (m.mode == APIC_INIT && (lo & LVT_LEVEL) && !(lo & 1u << 14))
		return; /* INIT level de-assert: nothing since the Pentium 4 */
	if ((m.mode == APIC_FIXED || m.mode == APIC_LOWEST) && m.vector < 16) {
		lapic_error(l, ESR_SEND_VECTOR);
		return;
	}
	if (shorthand == 0) {
		lapics_deliver(l->all, &m);
		return;
	}
	for (int i = 0; i < l->all->n; i++) {
		struct lapic *to = &l->all->apic[i];

		if (to == l ? shorthand != 3 : shorthand != 1)
			accept(to, &m);
	}
}

void lapics_extint(struct lapics *s, bool level)
{
	if (s->extint == level)
		return;
	s->extint = level;
	for (int i = 0; i < s->n; i++)
		notify(&s->apic[i]);
}

/* ---- registers ---- */
static void eoi(struct lapic *l)
{
	int vec = bit_highest(l->isr);

	if (vec < 0)
		return;
	bit_clear(l->isr, (unsigned)vec);
	if (bit_test(l->tmr, (unsigned)vec) && l->all->eoi)
		l->all->eoi(l->all->ctx, (uint8_t)vec);
	lapic_update(l);
}

void lapic_set_tpr(struct lapic *l, uint8_t tpr)
{
	l->v->cr8 = tpr >> 4;
	if (l->tpr == tpr)
		return;
	l->tpr = tpr;
	lapic_update(l);
}

static void set_svr(struct lapic *l, uint32_t val)
{
	l->svr = val & 0x1ff;
	if (!(l->svr & SVR_ENABLE))
		for (int i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASKED;
	lapic_update(l);
}

static void set_lvt(struct lapic *l, unsigned n, uint32_t val)
{
	val &= lvt_writable[n];
	if (!(l->svr & SVR_ENABLE))
		val |= LVT_MASKED;
	if (n == LVT_TIMER)
		lapic_timer_mode(l, val);
	l->lvt[n] = val;
	if (n == LVT_LINT0)
		lapic_update(l);
}

static uint32_t vector_word(const _Atomic uint64_t *m, unsigned n)
{
	return (uint32_t)(m[n >> 1] >> (n & 1) * 32);
}

/* Register @r; *bad when there is none. */
static uint32_t reg_read(struct lapic *l, unsigned r, bool *bad)
{
	switch (r) {
	case R_ID: return x2apic(l) ? l->id : l->id << 24;
	case R_VERSION: return VERSION;
	case R_TPR: return l->tpr;
	case R_PPR: return ppr(l);
	case R_LDR: return l->ldr;
	case R_SVR: return l->svr;
	case R_ISR ... R_ISR + 7: return vector_word(l->isr, r - R_ISR);
	case R_TMR ... R_TMR + 7: return vector_word(l->tmr, r - R_TMR);
	case R_IRR ... R_IRR + 7: return vector_word(l->irr, r - R_IRR);
	case R_ESR: return l->esr;
	case R_ICR: return (uint32_t)l->icr;
	case R_LVT ... R_LVT + LVT_COUNT - 1: return l->lvt[r - R_LVT];
	case R_INITIAL: return l->initial;
	case R_CURRENT: return lapic_timer_count(l);
	case R_DIVIDE: return l->divide;
	case R_DFR:
	case R_APR:
	case R_RRD:
	case R_ICR_HI: /* registers of the xAPIC alone */
		*bad = x2apic(l);
		return r == R_DFR ? l->dfr : r == R_ICR_HI ? (uint32_t)(l->icr >> 32) : 0;
	default: *bad = true; return 0;
	}
}

static void icr_low(struct lapic *l, uint32_t val)
{
	l->icr = (l->icr & ~0xffffffffull) | (val & ~LVT_PENDING);
	send_ipi(l);
}

static void esr_write(struct lapic *l)
{
	l->esr = atomic_exchange(&l->esr_latched, 0);
}

static bool xapic_write(struct lapic *l, unsigned r, uint32_t val)
{
	switch (r) {
	case R_ID: l->id = val >> 24; return true;
	case R_LDR: l->ldr = val & 0xff000000u; return true;
	case R_DFR: l->dfr = val | 0x0fffffffu; return true;
	case R_ICR_HI: l->icr = (uint32_t)l->icr | (uint64_t)(val & 0xff000000u) << 32; return true;
	default: return false;
	}
}

static bool reg_write(struct lapic *l, unsigned r, uint32_t val)
{
	switch (r) {
	case R_TPR: lapic_set_tpr(l, (uint8_t)val); return true;
	case R_EOI: eoi(l); return true;
	case R_SVR: set_svr(l, val); return true;
	case R_ESR: esr_write(l); return true;
	case R_ICR: icr_low(l, val); return true;
	case R_LVT ... R_LVT + LVT_COUNT - 1: set_lvt(l, r - R_LVT, val); return true;
	case R_INITIAL: lapic_timer_start(l, val); return true;
	case R_DIVIDE: lapic_timer_divide(l, val); return true;
	default: return !x2apic(l) && xapic_write(l, r, val);
	}
}

static bool read_only(unsigned r)
{
	return r == R_VERSION || r == R_APR || r == R_PPR || r == R_RRD || r == R_CURRENT || (r >= R_ISR && r < R_ESR);
}

uint32_t lapic_mmio_read(struct lapic *l, unsigned off)
{
	bool bad = false;
	uint32_t val;

	if (off & 15)
		return 0;
	val = reg_read(l, off >> 4, &bad);
	if (bad)
		lapic_error(l, ESR_REGISTER);
	return val;
}

void lapic_mmio_write(struct lapic *l, unsigned off, uint32_t val)
{
	if (off & 15)
		return;
	if (!reg_write(l, off >> 4, val) && !read_only(off >> 4))
		lapic_error(l, ESR_REGISTER);
}

/* ---- MSRs (SDM 3A 11.12) ---- */
static int set_base(struct lapic *l, uint64_t val)
{
	uint64_t old = l->base & (APIC_BASE_ENABLE | APIC_BASE_X2), new = val &(APIC_BASE_ENABLE | APIC_BASE_X2);

	if (val & ~(0xffffff000ull | APIC_BASE_BSP | APIC_BASE_ENABLE | APIC_BASE_X2))
		return -1;
	if (new == APIC_BASE_X2)
		return -1; /* x2APIC without the APIC */
	if ((old & APIC_BASE_X2) && new == APIC_BASE_ENABLE)
		return -1; /* only through disabled */
	if (!old && (new &APIC_BASE_X2))
		return -1;
	if (old && !new)
		lapic_reset(l, true);
	l->base = (val & ~(uint64_t)APIC_BASE_BSP) | (l->base & APIC_BASE_BSP);
	if (new &APIC_BASE_X2 && !(old & APIC_BASE_X2)) {
		l->id = l->v->apic_id;
		l->ldr = (l->id & 0xffff0u) << 12 | 1u << (l->id & 15);
		l->icr = (uint32_t)l->icr;
	} else if (new == APIC_BASE_ENABLE && !old) {
		l->ldr = 0;
	}
	lapic_update(l);
	return 0;
}

static int x2_write(struct lapic *l, unsigned r, uint64_t val)
{
	static const uint32_t reserved[0x40] = {
		[R_TPR] = ~0xffu,   [R_EOI] = ~0u,         [R_SVR] = ~0x1ffu,     [R_ESR] = ~0u,
		[R_DIVIDE] = ~0xbu, [R_SELF_IPI] = ~0xffu, [R_ICR] = 0xfff32000u,
	};

	if (r != R_ICR && val >> 32)
		return -1;
	if (r >= R_LVT && r < R_LVT + LVT_COUNT) {
		if (val & ~(lvt_writable[r - R_LVT] | LVT_PENDING | LVT_REMOTE))
			return -1;
	} else if (r >= 0x40 || (val & reserved[r])) {
		return -1;
	}
	if (r == R_ICR) {
		l->icr = val;
		send_ipi(l);
		return 0;
	}
	if (r == R_SELF_IPI) {
		if (val < 16)
			lapic_error(l, ESR_SEND_VECTOR);
		else
			accept_fixed(l, (uint8_t)val, false);
		return 0;
	}
	return reg_write(l, r, (uint32_t)val) ? 0 : -1;
}

int lapic_wrmsr(struct lapic *l, uint32_t msr, uint64_t val)
{
	if (msr == 0x6e0) {
		lapic_timer_deadline(l, val);
		return 0;
	}
	if (msr == 0x1b)
		return set_base(l, val);
	if (!x2apic(l) || msr < 0x800 || msr > 0x8ff)
		return -1;
	return x2_write(l, msr - 0x800, val);
}

int lapic_rdmsr(struct lapic *l, uint32_t msr, uint64_t *val)
{
	bool bad = false;

	if (msr == 0x6e0) {
		*val = lapic_timer_get_deadline(l);
		return 0;
	}
	if (msr == 0x1b) {
		*val = l->base;
		return 0;
	}
	if (!x2apic(l) || msr < 0x800 || msr > 0x8ff || msr == 0x800 + R_EOI || msr == 0x800 + R_SELF_IPI)
		return -1;
	*val = reg_read(l, msr - 0x800, &bad);
	if (msr == 0x800 + R_ICR)
		*val = l->icr;
	return bad ? -1 : 0;
}

/* ---- power on ---- */
void lapic_reset(struct lapic *l, bool init)
{
	for (int i = 0; i < 4; i++)
		l->irr[i] = l->isr[i] = l->tmr[i] = 0;
	for (int i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	l->svr = 0xff;
	l->tpr = l->esr = l->esr_latched = 0;
	l->icr = 0;
	l->dfr = 0xffffffffu;
	l->v->cr8 = 0;
	if (!x2apic(l) || !init)
		l->ldr = 0;
	lapic_timer_reset(l);
	if (!init) {
		l->id = l->v->apic_id;
		l->base = LAPIC_BASE | APIC_BASE_ENABLE | (l->v->id ? 0 : APIC_BASE_BSP);
		/* what firmware leaves behind on the boot processor: virtual wire mode */
		if (!l->v->id)
			l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
	}
	lapic_update(l);
}

void lapics_reset(struct lapics *s)
{
	s->extint = false;
	for (int i = 0; i < s->n; i++)
		lapic_reset(&s->apic[i], false);
}

void lapics_init(struct lapics *s, const struct hclock *clock, struct timerq *const *q, struct vcpu *const *v, int n)
{
	s->n = n > LAPIC_MAX ? LAPIC_MAX : n;
	for (int i = 0; i < s->n; i++) {
		s->apic[i].v = v[i];
		s->apic[i].all = s;
		s->apic[i].clock = *clock;
		timer_init(&s->apic[i].timer, q[i], lapic_timer_expired, &s->apic[i]);
		lapic_reset(&s->apic[i], false);
	}
}

/* ---- what is saved ---- */

static const struct save_row lapic_save_rows[] = {
	SAVE_OMIT(struct lapic, v, SAVE_WIRED),
	SAVE_OMIT(struct lapic, all, SAVE_WIRED),
	SAVE(struct lapic, base),
	SAVE(struct lapic, id),
	SAVE(struct lapic, svr),
	SAVE(struct lapic, tpr),
	SAVE(struct lapic, ldr),
	SAVE(struct lapic, dfr),
	SAVE_ARRAY(struct lapic, lvt),
	SAVE_ARRAY(struct lapic, isr),
	SAVE_ARRAY(struct lapic, irr),
	SAVE_ARRAY(struct lapic, tmr),
	SAVE(struct lapic, esr_latched),
	SAVE(struct lapic, esr),
	SAVE(struct lapic, icr),
	SAVE(struct lapic, divide),
	SAVE(struct lapic, initial),
	SAVE_MAX(struct lapic, shift, 7),
	SAVE(struct lapic, start),
	SAVE(struct lapic, tsc_deadline),
	SAVE_BY(struct lapic, timer, timer_save, timer_load),
	SAVE_OMIT(struct lapic, clock, "times are of this clock: who restores a snapshot sets it"),
};
SAVE_TABLE(lapic_save, struct lapic, "lapic");

static const struct save_row lapics_save_rows[] = {
	SAVE_STRUCTS(struct lapics, apic, lapic_save),
	SAVE_OMIT(struct lapics, n, "of the configuration"),
	SAVE(struct lapics, extint),
	SAVE_OMIT(struct lapics, extint_ack, SAVE_WIRED),
	SAVE_OMIT(struct lapics, eoi, SAVE_WIRED),
	SAVE_MAX(struct lapics, last_lowest, LAPIC_MAX - 1),
	SAVE_OMIT(struct lapics, init_sipi, SAVE_WIRED),
	SAVE_OMIT(struct lapics, ctx, SAVE_WIRED),
};
SAVE_TABLE(lapics_save, struct lapics, "lapics");
