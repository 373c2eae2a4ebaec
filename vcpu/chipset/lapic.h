/*
 * Local APIC, xAPIC and x2APIC (SDM 3A chapter 11).  One per vcpu; all in one
 * struct lapics, which is also the interrupt bus between them.
 *
 * No lock: a register is written by the thread of its own vcpu alone, but for what a message leaves (IRR, TMR, error bits), which
 * anybody may send.  Functions are for that thread, or while no vcpu runs, unless they say otherwise.
 */
#ifndef HVX_LAPIC_H
#define HVX_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/clock.h"
#include "vcpu/chipset/timer.h"
#include "vcpu/cpu/topology.h"

struct vcpu;

#define LAPIC_MAX  TOPOLOGY_CPUS_MAX
#define LAPIC_BASE 0xfee00000u
#define LAPIC_HZ   1000000000u /* the timer's input clock */

#define APIC_BASE_BSP    (1u << 8)
#define APIC_BASE_X2     (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)

enum lapic_mode { /* delivery modes of ICR, LVT, IOAPIC and MSI */
		  APIC_FIXED,
		  APIC_LOWEST,
		  APIC_SMI,
		  APIC_NMI = 4,
		  APIC_INIT,
		  APIC_SIPI,
		  APIC_EXTINT
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct lapic {
	struct vcpu *v;
	struct lapics *all;
	/* what those who send look at */
	_Atomic uint64_t base; /* IA32_APIC_BASE */
	_Atomic uint32_t id;   /* x2APIC id; the xAPIC's is its low byte */
	_Atomic uint32_t svr, tpr, ldr, dfr;
	_Atomic uint32_t lvt[LVT_COUNT];
	_Atomic uint64_t isr[4];
	/* what they leave */
	_Atomic uint64_t irr[4], tmr[4];
	_Atomic uint32_t esr_latched;
	uint32_t esr;
	uint64_t icr;
	uint32_t divide, initial; /* timer: divide configuration, initial count */
	uint8_t shift;            /* log2 of the divisor */
	uint64_t start;           /* ns at which the running count began */
	uint64_t tsc_deadline;    /* guest TSC value, 0: off */
	struct timer timer;
	struct hclock clock; /* of its own: reading it changes it */
};

struct lapics {
	struct lapic apic[LAPIC_MAX];
	int n;
	/* the 8259's INTR pin as wired to every LINT0, and its acknowledge cycle: -1 when another CPU was faster */
	_Atomic bool extint;
	int (*extint_ack)(void *ctx);
	void (*eoi)(void *ctx, uint8_t vector); /* broadcast of the EOI of a level-triggered vector */
	int last_lowest;                        /* who took the last lowest-priority interrupt */
	/* INIT (vector -1) or start-up IPI for a vcpu, whose thread then calls lapic_reset(); may be NULL */
	void (*init_sipi)(void *ctx, struct vcpu *v, int vector);
	void *ctx;
};

/* @q[i]: where the timer of @v[i]'s APIC is queued. */
void lapics_init(struct lapics *s, const struct hclock *clock, struct timerq *const *q, struct vcpu *const *v, int n);
void lapics_reset(struct lapics *s);
void lapic_reset(struct lapic *l, bool init); /* init: INIT keeps the APIC's base and id */

/* Registers by xAPIC page offset. */
uint32_t lapic_mmio_read(struct lapic *l, unsigned off);
void lapic_mmio_write(struct lapic *l, unsigned off, uint32_t val);
/* IA32_APIC_BASE, x2APIC registers, IA32_TSC_DEADLINE; -1: #GP(0). */
int lapic_rdmsr(struct lapic *l, uint32_t msr, uint64_t *val);
int lapic_wrmsr(struct lapic *l, uint32_t msr, uint64_t val);
void lapic_set_tpr(struct lapic *l, uint8_t tpr);

/* The vector to deliver, moved to in service, or -1. */
int lapic_ack(struct lapic *l);
/* Brings PEND_INTR in step with what is deliverable. */
void lapic_update(struct lapic *l);
/* The 8259's INTR output changed; from any thread, one at a time. */
void lapics_extint(struct lapics *s, bool level);

struct apic_msg {
	uint32_t dest;
	uint8_t vector, mode;
	bool logical, level;
	bool x2; /* 32-bit destination (an IPI sent in x2APIC mode) */
};
/* Delivers to all APICs addressed; false when none took it.  From any thread. */
bool lapics_deliver(struct lapics *s, const struct apic_msg *m);
/* The first CPU that it addresses, by its number here; -1: none.  From any thread. */
int lapics_target(const struct lapics *s, const struct apic_msg *m);

#endif
