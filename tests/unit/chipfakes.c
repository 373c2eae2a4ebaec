/*
 * Stand-ins for the engine and for time.
 *
 * Invariant: the functions of the engine here are weak: where the real ones are
 * linked in, those are used.
 */
#include "tests/unit/chipfakes.h"

#include <stdlib.h>
#include <string.h>

#include "vcpu/cpu/reset.h"
#include "vcpu/cpu/start.h"
#include "vcpu/kick.h"

__attribute__((weak)) void vcpu_kick(struct vcpu *v, uint32_t pend)
{
	atomic_fetch_or(&v->pending, pend);
}

__attribute__((weak)) struct vcpu *kick_this(void)
{
	return NULL;
}

__attribute__((weak)) void world_enter(struct vcpu *v)
{
	(void)v;
}

__attribute__((weak)) void world_leave(struct vcpu *v)
{
	(void)v;
}

__attribute__((weak)) void start_post(struct vcpu *v, int vector)
{
	v->start = (uint32_t)vector;
}

__attribute__((weak)) void cpu_set_long_flat(struct vcpu *v, uint64_t cr3, uint64_t rip, uint64_t rsi)
{
	v->cr3 = cr3;
	v->rip = rip;
	v->regs[6] = rsi;
}

__attribute__((weak)) void cpu_set_prot_flat(struct vcpu *v, uint32_t eip, uint32_t eax, uint32_t ebx)
{
	v->rip = eip;
	v->regs[0] = eax;
	v->regs[3] = ebx;
}

__attribute__((weak)) void cpu_set_linux32(struct vcpu *v, uint32_t eip, uint32_t esi)
{
	v->rip = eip;
	v->regs[6] = esi;
}

static void armed(void *ctx, uint64_t deadline)
{
	struct fake *f = ctx;

	f->armed = deadline;
	f->arms++;
}

static void wire(void *ctx, unsigned line, bool level)
{
	struct fake *f = ctx;

	if (level && !f->line[line])
		f->rises[line]++;
	f->line[line] = level;
}

void fake_init(struct fake *f, uint64_t tsc_hz)
{
	memset(f, 0, sizeof(*f));
	f->now = 1000000000;
	f->clock.manual = &f->now;
	hclock_init(&f->clock, tsc_hz);
	timerq_init(&f->q, armed, f);
}

struct irq_out fake_wire(struct fake *f, unsigned line)
{
	return (struct irq_out){wire, f, line};
}

void fake_advance(struct fake *f, uint64_t ns)
{
	uint64_t end = f->now + ns, next;

	while ((next = timerq_next(&f->q)) <= end) {
		if (next > f->now)
			f->now = next;
		timerq_run(&f->q, f->now);
	}
	f->now = end;
}

struct vcpu *fake_vcpu(int id)
{
	struct vcpu *v;
	void *p = NULL;

	if (posix_memalign(&p, 4096, (sizeof(*v) + 4095) & ~4095ul))
		abort();
	v = p;
	memset(v, 0, sizeof(*v));
	v->id = id;
	v->apic_id = (uint32_t)id;
	return v;
}
