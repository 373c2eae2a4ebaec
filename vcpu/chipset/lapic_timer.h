/*
 * The local APIC's timer: one-shot, periodic, TSC-deadline (SDM 3A 11.5.4).
 */
#ifndef HVX_LAPIC_TIMER_H
#define HVX_LAPIC_TIMER_H

#include <stdint.h>

struct lapic;

void lapic_timer_reset(struct lapic *l);
void lapic_timer_start(struct lapic *l, uint32_t initial);
void lapic_timer_divide(struct lapic *l, uint32_t val);
/* The LVT entry is about to become @lvt: a change of mode stops the timer. */
void lapic_timer_mode(struct lapic *l, uint32_t lvt);
uint32_t lapic_timer_count(struct lapic *l);
void lapic_timer_deadline(struct lapic *l, uint64_t tsc);
uint64_t lapic_timer_get_deadline(struct lapic *l);
void lapic_timer_expired(void *ctx, uint64_t now);
/* Raises local interrupt @n (LVT_*) unless it is masked (lapic.c). */
void lapic_lvt_fire(struct lapic *l, unsigned n);

#endif
