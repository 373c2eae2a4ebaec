/*
 * The local APIC's timer (SDM 3A 11.5.4).
 *
 * Invariant: the queue holds the timer exactly while it counts, at the moment
 * the count reaches zero; the count is computed from the time, never stored.
 */
#include "vcpu/chipset/lapic_timer.h"

#include "vcpu/chipset/lapic.h"
#include "vcpu/vcpu.h"

enum { MODE_ONESHOT, MODE_PERIODIC, MODE_DEADLINE };

static unsigned mode_of(uint32_t lvt)
{
	return lvt >> 17 & 3;
}

static uint64_t period(const struct lapic *l)
{
	return (uint64_t)l->initial << l->shift; /* LAPIC_HZ is 1 GHz: one tick, one nanosecond */
}

void lapic_timer_reset(struct lapic *l)
{
	l->initial = 0;
	l->divide = 0;
	l->shift = 1;
	l->tsc_deadline = 0;
	timer_set(&l->timer, TIMER_NEVER);
}

void lapic_timer_start(struct lapic *l, uint32_t initial)
{
	if (mode_of(l->lvt[LVT_TIMER]) == MODE_DEADLINE)
		return;
	l->initial = initial;
	if (!initial) {
		timer_set(&l->timer, TIMER_NEVER);
		return;
	}
	l->start = hclock_now(&l->clock);
	timer_set(&l->timer, l->start + period(l));
}

uint32_t lapic_timer_count(struct lapic *l)
{
	uint64_t now;

	if (l->timer.slot < 0 || mode_of(l->lvt[LVT_TIMER]) == MODE_DEADLINE)
		return 0;
	now = hclock_now(&l->clock);
	if (now < l->timer.deadline)
		return (uint32_t)((l->timer.deadline - now) >> l->shift);
	if (mode_of(l->lvt[LVT_TIMER]) == MODE_ONESHOT)
		return 0;
	return (uint32_t)((period(l) - (now - l->timer.deadline) % period(l)) >> l->shift);
}

void lapic_timer_divide(struct lapic *l, uint32_t val)
{
	uint32_t left = lapic_timer_count(l);

	l->divide = val & 0xb;
	l->shift = (((val & 3) | (val >> 1 & 4)) + 1) & 7;
	if (left)
		timer_set(&l->timer, hclock_now(&l->clock) + ((uint64_t)left << l->shift));
}

void lapic_timer_mode(struct lapic *l, uint32_t lvt)
{
	unsigned from = mode_of(l->lvt[LVT_TIMER]), to = mode_of(lvt);

	if (from == to)
		return;
	if (from == MODE_DEADLINE || to >= MODE_DEADLINE) {
		timer_set(&l->timer, TIMER_NEVER);
		l->tsc_deadline = 0;
		l->initial = 0;
	}
}

static uint64_t guest_tsc(const struct lapic *l)
{
	return hclock_tsc(&l->clock) + l->v->tsc_offset;
}

/* Ticks until the deadline, 0 when it has passed: of one reading, as the TSC moves on between two. */
static uint64_t ticks_left(const struct lapic *l)
{
	uint64_t now = guest_tsc(l);

	return l->tsc_deadline > now ? l->tsc_deadline - now : 0;
}

static void expire(struct lapic *l)
{
	l->tsc_deadline = 0;
	lapic_lvt_fire(l, LVT_TIMER);
}

void lapic_timer_deadline(struct lapic *l, uint64_t tsc)
{
	uint64_t left;

	if (mode_of(l->lvt[LVT_TIMER]) != MODE_DEADLINE)
		return; /* SDM: ignored in the other modes */
	l->tsc_deadline = tsc;
	left = ticks_left(l);
	timer_set(&l->timer, left ? hclock_after(&l->clock, left) : TIMER_NEVER);
	if (tsc && !left)
		expire(l);
}

uint64_t lapic_timer_get_deadline(struct lapic *l)
{
	return mode_of(l->lvt[LVT_TIMER]) == MODE_DEADLINE ? l->tsc_deadline : 0;
}

void lapic_timer_expired(void *ctx, uint64_t now)
{
	struct lapic *l = ctx;
	uint64_t due, left;

	switch (mode_of(l->lvt[LVT_TIMER])) {
	case MODE_DEADLINE:
		/* the two clocks may have drifted apart since the timer was set */
		left = ticks_left(l);
		if (left) {
			due = hclock_after(&l->clock, left);
			timer_set(&l->timer, due > now ? due : now + 1);
			return;
		}
		expire(l);
		break;
	case MODE_PERIODIC:
		/* periods missed while the vcpu was not running are not made up for */
		due = l->start + period(l);
		if (due + period(l) <= now)
			due += (now - due) / period(l) * period(l);
		l->start = due;
		timer_set(&l->timer, due + period(l));
		lapic_lvt_fire(l, LVT_TIMER);
		break;
	default: lapic_lvt_fire(l, LVT_TIMER);
	}
}
