/*
 * What the guest's CPU is.
 */
#ifndef HVX_CPU_CPUID_H
#define HVX_CPU_CPUID_H

#include "vcpu/vcpu.h"

/* Fills v->cpuid[] and what follows from it: amd, phys_rsvd, xcr0_mask, cr4_mask, xsave_caps, mxcsr_mask. */
void cpuid_build(struct vcpu *v);

/* A host's CPU as CPUID shows it: the one we run on, or data. */
struct cpuid_source {
	void (*leaf)(const struct cpuid_source *s, uint32_t leaf, uint32_t subleaf, uint32_t r[4]);
	uint64_t xcr0; /* what its OS has switched on */
};
void cpuid_build_from(struct vcpu *v, const struct cpuid_source *from);

/* The CPUID instruction: r[] = eax, ebx, ecx, edx.  A leaf that does not exist reads as zeros. */
void cpuid_query(struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t r[4]);

/* The host's own CPUID. */
void cpuid_host(uint32_t leaf, uint32_t subleaf, uint32_t r[4]);

/* What this host's CPU lacks for HVX to run on it, or NULL. */
const char *cpuid_host_lacks(void);

#define CPUID_KVM_BASE 0x40000100u

#endif
