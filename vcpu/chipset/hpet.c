/*
 * HPET.
 *
 * Invariant: a comparator's timer is queued exactly while the counter runs and the comparator can fire; the counter is computed
 * from the clock when it is read.
 */
#include "vcpu/chipset/hpet.h"

#include "vcpu/chipset/savechips.h"

#define TICK_NS   10u
#define PERIOD_FS 10000000u

#define CFG_ENABLE 1u
#define CFG_LEGACY 2u

/* of a comparator */
#define T_LEVEL    0x0002u
#define T_ENABLE   0x0004u
#define T_PERIODIC 0x0008u
#define T_CAN_PER  0x0010u
#define T_CAN_64   0x0020u
#define T_SET      0x0040u
#define T_32       0x0100u
#define T_ROUTE    9
#define T_WRITABLE (T_LEVEL | T_ENABLE | T_PERIODIC | T_SET | T_32 | 31u << T_ROUTE)
#define ROUTES     0x00f00000ull /* pins 20 to 23 */

static uint64_t ticks(const struct hpet *h)
{
	return hclock_now(h->clock) / TICK_NS;
}

static uint64_t counter(const struct hpet *h)
{
	return h->config & CFG_ENABLE ? ticks(h) + h->offset : h->offset;
}

static unsigned index_of(const struct hpet_timer *t)
{
	return (unsigned)(t - t->all->t);
}

/* ---- interrupts ---- */

static unsigned route(const struct hpet_timer *t)
{
	if ((t->all->config & CFG_LEGACY) && index_of(t) < 2)
		return index_of(t) ? 8 : 2; /* IRQ 0 is on pin 2 */
	return (unsigned)(t->config >> T_ROUTE & 31);
}

static void lower(struct hpet_timer *t)
{
	struct hpet *h = t->all;

	if (!(h->status >> index_of(t) & 1))
		return;
	h->status &= ~(1ull << index_of(t));
	h->irq(h->ctx, route(t), false);
}

static void fire(struct hpet_timer *t)
{
	struct hpet *h = t->all;

	if (t->config & T_LEVEL) {
		h->status |= 1ull << index_of(t);
		h->irq(h->ctx, route(t), true);
	} else {
		h->irq(h->ctx, route(t), true);
		h->irq(h->ctx, route(t), false);
	}
}

/* ---- when ---- */

static uint64_t mask(const struct hpet_timer *t)
{
	return t->config & T_32 ? UINT32_MAX : UINT64_MAX;
}

/* Queues the comparator for its next match from counter value @now on, or after it where that has been @had. */
static void arm(struct hpet_timer *t, uint64_t now, bool had)
{
	struct hpet *h = t->all;
	uint64_t left = (t->compare - now) & mask(t), at;

	if (!left && had)
		left = mask(t);
	t->due = now + left;
	at = t->due - h->offset; /* of the clock */
	if (!(h->config & CFG_ENABLE) || !(t->config & T_ENABLE) || t->due < now || at >= TIMER_NEVER / TICK_NS)
		timer_set(&t->timer, TIMER_NEVER);
	else
		timer_set(&t->timer, at * TICK_NS);
}

/* The next multiple of the period behind @now. */
static void advance(struct hpet_timer *t, uint64_t now)
{
	uint64_t late = (now - t->compare) & mask(t);

	if (t->period)
		t->compare = (t->compare + (late / t->period + 1) * t->period) & mask(t);
}

static void expired(void *ctx, uint64_t at)
{
	struct hpet_timer *t = ctx;
	uint64_t now = counter(t->all);

	(void)at;
	if (now < t->due)
		now = t->due; /* the clock was read a moment before */
	if (t->config & T_PERIODIC)
		advance(t, now);
	fire(t);
	arm(t, now, true);
}

static void rearm(struct hpet *h)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		arm(&h->t[i], counter(h), false);
}

/* ---- registers ---- */

static uint64_t timer_config(const struct hpet_timer *t)
{
	return t->config | (index_of(t) ? 0 : T_CAN_PER) | T_CAN_64 | ROUTES << 32;
}

static uint64_t reg_read(struct hpet *h, unsigned reg)
{
	const struct hpet_timer *t = &h->t[(reg - 0x100) / 0x20 % HPET_TIMERS];

	switch (reg) {
	case 0x000: return (uint64_t)PERIOD_FS << 32 | HPET_ID;
	case 0x010: return h->config;
	case 0x020: return h->status;
	case 0x0f0: return counter(h);
	default: break;
	}
	if (reg < 0x100 || reg >= 0x100 + 0x20 * HPET_TIMERS)
		return 0;
	return reg % 0x20 == 0 ? timer_config(t) : reg % 0x20 == 8 ? t->compare : 0;
}

static void write_config(struct hpet *h, uint64_t val)
{
	uint64_t was = h->config, now = counter(h);

	val &= CFG_ENABLE | CFG_LEGACY;
	if ((was ^ val) & CFG_LEGACY) {
		for (unsigned i = 0; i < 2; i++)
			lower(&h->t[i]);
		h->config = (was & CFG_ENABLE) | (val & CFG_LEGACY);
		h->legacy(h->ctx, val & CFG_LEGACY);
	}
	h->config = val;
	if ((was ^ val) & CFG_ENABLE)
		h->offset = val & CFG_ENABLE ? now - ticks(h) : now;
	rearm(h);
}

static void write_timer_config(struct hpet_timer *t, uint64_t val)
{
	uint64_t writable = index_of(t) ? T_WRITABLE & ~(uint64_t)(T_PERIODIC | T_SET) : T_WRITABLE;

	val &= writable;
	if (!(ROUTES >> (val >> T_ROUTE & 31) & 1))
		val &= ~(31ull << T_ROUTE); /* a pin it cannot drive is not taken */
	if (t->config & ~val & (T_LEVEL | T_ENABLE))
		lower(t);
	t->accumulate = val & T_SET;
	t->config = val & ~(uint64_t)T_SET;
	arm(t, counter(t->all), false);
}

static void write_compare(struct hpet_timer *t, uint64_t val)
{
	val &= mask(t);
	if (!(t->config & T_PERIODIC) || t->accumulate)
		t->compare = val;
	t->period = t->config & T_PERIODIC ? val : 0;
	t->accumulate = false;
	arm(t, counter(t->all), false);
}

static void reg_write(struct hpet *h, unsigned reg, uint64_t val)
{
	struct hpet_timer *t = &h->t[(reg - 0x100) / 0x20 % HPET_TIMERS];

	switch (reg) {
	case 0x010: write_config(h, val); return;
	case 0x020:
		for (unsigned i = 0; i < HPET_TIMERS; i++)
			if (val >> i & 1)
				lower(&h->t[i]);
		return;
	case 0x0f0:
		if (!(h->config & CFG_ENABLE)) /* it is written while it stands */
			h->offset = val;
		return;
	default: break;
	}
	if (reg < 0x100 || reg >= 0x100 + 0x20 * HPET_TIMERS)
		return;
	if (reg % 0x20 == 0)
		write_timer_config(t, val);
	else if (reg % 0x20 == 8)
		write_compare(t, val);
}

/* Registers are 64 bits; halves can be accessed. */
static uint64_t hpet_read(void *dev, uint64_t off, unsigned size)
{
	uint64_t val = reg_read(dev, (unsigned)off & ~7u) >> (off & 7) * 8;

	return size >= 8 ? val : val & ((1ull << size * 8) - 1);
}

static void hpet_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	unsigned reg = (unsigned)off & ~7u, shift = (unsigned)(off & 7) * 8;
	uint64_t lanes = size >= 8 ? UINT64_MAX : ((1ull << size * 8) - 1) << shift;
	uint64_t old = reg == 0x020 ? 0 : reg_read(dev, reg);

	if (size < 4)
		return; /* not defined */
	reg_write(dev, reg, (old & ~lanes) | (val << shift & lanes));
}

const struct bus_ops hpet_ops = {hpet_read, hpet_write, 8};

void hpet_reset(struct hpet *h)
{
	bool legacy = h->config & CFG_LEGACY;

	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct hpet_timer *t = &h->t[i];

		lower(t);
		t->config = t->period = t->due = 0;
		t->compare = UINT64_MAX;
		t->accumulate = false;
		timer_set(&t->timer, TIMER_NEVER);
	}
	h->config = h->status = h->offset = 0;
	if (legacy)
		h->legacy(h->ctx, false);
}

void hpet_init(struct hpet *h, struct hclock *clock, struct timerq *q)
{
	h->clock = clock;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		h->t[i].all = h;
		timer_init(&h->t[i].timer, q, expired, &h->t[i]);
	}
	hpet_reset(h);
}

/* ---- what is saved ---- */

static const struct save_row hpet_timer_save_rows[] = {
	SAVE(struct hpet_timer, config),
	SAVE(struct hpet_timer, compare),
	SAVE(struct hpet_timer, period),
	SAVE(struct hpet_timer, accumulate),
	SAVE(struct hpet_timer, due),
	SAVE_OMIT(struct hpet_timer, all, SAVE_WIRED),
	SAVE_BY(struct hpet_timer, timer, timer_save, timer_load),
};
SAVE_TABLE(hpet_timer_save, struct hpet_timer, "hpet-timer");

static const struct save_row hpet_save_rows[] = {
	SAVE(struct hpet, config),
	SAVE(struct hpet, status),
	SAVE(struct hpet, offset),
	SAVE_STRUCTS(struct hpet, t, hpet_timer_save),
	SAVE_OMIT(struct hpet, clock, SAVE_WIRED),
	SAVE_OMIT(struct hpet, irq, SAVE_WIRED),
	SAVE_OMIT(struct hpet, legacy, SAVE_WIRED),
	SAVE_OMIT(struct hpet, ctx, SAVE_WIRED),
};
SAVE_TABLE(hpet_save, struct hpet, "hpet");
