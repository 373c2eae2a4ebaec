/*
 * The guest's x87, SSE, AVX and AVX-512 state on its way between the host's registers
 * and memory.
 *
 * Invariant: exactly one of the two holds it, as v->fpu_saved says.  No address of the host's gets from the x87 pointers into
 * what the guest can read.
 */
#include "vcpu/cpu/fpu.h"

#include <string.h>

/* x87, SSE, AVX and AVX-512: all a guest can be offered.  Bits the host lacks are masked by the host's own XCR0. */
#define GUEST_STATE (7u | XCR0_AVX512_ONLY)

static const uint32_t default_mxcsr = 0x1f80;

void vcpu_fpu_out(struct vcpu *v)
{
	if (v->fpu_saved)
		return;
	__asm__ volatile("xsave64 %0\n\t"
			 "fninit\n\t"
			 "ldmxcsr %1"
			 : "+m"(v->fpu_area)
			 : "m"(default_mxcsr), "a"(GUEST_STATE), "d"(0)
			 : "memory");
	v->fpu_saved = 1;
}

void vcpu_fpu_in(struct vcpu *v)
{
	if (!v->fpu_saved)
		return;
	__asm__ volatile("xrstor64 %0" : : "m"(v->fpu_area), "a"(GUEST_STATE), "d"(0) : "memory");
	v->fpu_saved = 0;
}

unsigned fpu_area_end(const struct vcpu *v, uint64_t components, bool compact)
{
	unsigned end = FX_AREA + 64, to;

	for (unsigned i = 2; i < XS_COMPONENTS; i++) {
		if (!(components >> i & 1))
			continue;
		to = fpu_component_at(v, components, compact, i) + v->xs.size[i];
		end = to > end ? to : end;
	}
	return end;
}

unsigned fpu_component_at(const struct vcpu *v, uint64_t components, bool compact, unsigned which)
{
	unsigned at = FX_AREA + 64;

	if (!compact)
		return v->xs.off[which];
	for (unsigned i = 2; i <= which; i++) {
		if (v->xs.aligned >> i & 1 & components >> i)
			at = (at + 63) & ~63u;
		if (i < which && (components >> i & 1))
			at += v->xs.size[i];
	}
	return at;
}

/* Puts the mark into the registers only where the guest has something to find again. */
static uint32_t keep(struct vcpu *v, struct x87_pointers p)
{
	v->x87 = p;
	return p.ip || p.dp || p.op || p.cs || p.ds ? FPU_MARK : 0;
}

void fpu_pointers_in(struct vcpu *v, uint8_t *fx, bool wide)
{
	struct x87_pointers p = {0};
	uint32_t mark;

	memcpy(&p.op, fx + FX_FOP, 2);
	memcpy(&p.ip, fx + FX_FIP, wide ? 8 : 4);
	memcpy(&p.dp, fx + FX_FDP, wide ? 8 : 4);
	if (!wide) {
		memcpy(&p.cs, fx + FX_FCS, 2);
		memcpy(&p.ds, fx + FX_FDS, 2);
	}
	mark = keep(v, p);
	memset(fx + FX_FOP, 0, 2);
	memset(fx + FX_FIP, 0, FX_POINTERS);
	memcpy(fx + FX_FIP, &mark, 4);
}

#define UNTOUCHED 0xffffffffu /* no address that a save could leave here */

void fpu_pointers_prepare(uint8_t *fx)
{
	memset(fx + FX_FIP, 0xff, FX_POINTERS);
}

void fpu_pointers_out(const struct vcpu *v, uint8_t *fx, const uint8_t *old, bool wide)
{
	const struct x87_pointers none = {0}, *p = &none;
	uint32_t lo, hi;

	memcpy(&lo, fx + FX_FIP, 4);
	memcpy(&hi, fx + FX_FIP + 4, 4);
	if (lo == UNTOUCHED && hi == UNTOUCHED) {
		memcpy(fx + FX_FOP, old + FX_FOP, 2);
		memcpy(fx + FX_FIP, old + FX_FIP, FX_POINTERS);
		return;
	}
	if (lo == FPU_MARK && (!wide || hi == 0))
		p = &v->x87;
	memset(fx + FX_FIP, 0, FX_POINTERS);
	memcpy(fx + FX_FOP, &p->op, 2);
	memcpy(fx + FX_FIP, &p->ip, wide ? 8 : 4);
	memcpy(fx + FX_FDP, &p->dp, wide ? 8 : 4);
	if (!wide) {
		memcpy(fx + FX_FCS, &p->cs, 2);
		memcpy(fx + FX_FDS, &p->ds, 2);
	}
}

/* FIP, FCS with FOP above it, FDP, FDS (SDM 1 figure 8-9) */
enum { ENV_FIP = 3, ENV_FCS, ENV_FDP, ENV_FDS };

void fpu_env_in(struct vcpu *v, uint32_t env[7])
{
	env[ENV_FIP] = keep(v, (struct x87_pointers){.ip = env[ENV_FIP],
						     .dp = env[ENV_FDP],
						     .op = (env[ENV_FCS] >> 16) & 0x7ff,
						     .cs = (uint16_t)env[ENV_FCS],
						     .ds = (uint16_t)env[ENV_FDS]});
	env[ENV_FCS] = env[ENV_FDP] = env[ENV_FDS] = 0;
}

void fpu_env_out(const struct vcpu *v, uint32_t env[7])
{
	const struct x87_pointers none = {0}, *p = env[ENV_FIP] == FPU_MARK ? &v->x87 : &none;

	env[ENV_FIP] = (uint32_t)p->ip;
	env[ENV_FCS] = p->cs | (uint32_t)p->op << 16;
	env[ENV_FDP] = (uint32_t)p->dp;
	env[ENV_FDS] = 0xffff0000u | p->ds;
}
