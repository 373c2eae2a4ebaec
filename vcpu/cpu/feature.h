/*
 * What the guest's CPUID offers, as one word: what the decoder lets run is derived from it, never from the host's CPUID.
 */
#ifndef HVX_CPU_FEATURE_H
#define HVX_CPU_FEATURE_H

#include <stdint.h>

#include "vcpu/vcpu.h"

/* Features that bring instructions, with the bit of CPUID that offers each: name, leaf, subleaf, register, bit. */
#define CPU_FEATURES(X)                   \
	X(FPU, 1, 0, edx, 0)              \
	X(TSC, 1, 0, edx, 4)              \
	X(MSR, 1, 0, edx, 5)              \
	X(CX8, 1, 0, edx, 8)              \
	X(SEP, 1, 0, edx, 11)             \
	X(CMOV, 1, 0, edx, 15)            \
	X(CLFSH, 1, 0, edx, 19)           \
	X(MMX, 1, 0, edx, 23)             \
	X(FXSR, 1, 0, edx, 24)            \
	X(SSE, 1, 0, edx, 25)             \
	X(SSE2, 1, 0, edx, 26)            \
	X(SSE3, 1, 0, ecx, 0)             \
	X(PCLMUL, 1, 0, ecx, 1)           \
	X(SSSE3, 1, 0, ecx, 9)            \
	X(FMA, 1, 0, ecx, 12)             \
	X(CX16, 1, 0, ecx, 13)            \
	X(SSE41, 1, 0, ecx, 19)           \
	X(SSE42, 1, 0, ecx, 20)           \
	X(MOVBE, 1, 0, ecx, 22)           \
	X(POPCNT, 1, 0, ecx, 23)          \
	X(AES, 1, 0, ecx, 25)             \
	X(XSAVE, 1, 0, ecx, 26)           \
	X(AVX, 1, 0, ecx, 28)             \
	X(F16C, 1, 0, ecx, 29)            \
	X(RDRAND, 1, 0, ecx, 30)          \
	X(FSGSBASE, 7, 0, ebx, 0)         \
	X(BMI1, 7, 0, ebx, 3)             \
	X(AVX2, 7, 0, ebx, 5)             \
	X(BMI2, 7, 0, ebx, 8)             \
	X(INVPCID, 7, 0, ebx, 10)         \
	X(RDSEED, 7, 0, ebx, 18)          \
	X(ADX, 7, 0, ebx, 19)             \
	X(SMAP, 7, 0, ebx, 20)            \
	X(CLFLUSHOPT, 7, 0, ebx, 23)      \
	X(CLWB, 7, 0, ebx, 24)            \
	X(AVX512F, 7, 0, ebx, 16)         \
	X(AVX512DQ, 7, 0, ebx, 17)        \
	X(AVX512IFMA, 7, 0, ebx, 21)      \
	X(AVX512CD, 7, 0, ebx, 28)        \
	X(AVX512BW, 7, 0, ebx, 30)        \
	X(AVX512VL, 7, 0, ebx, 31)        \
	X(AVX512VBMI, 7, 0, ecx, 1)       \
	X(AVX512VBMI2, 7, 0, ecx, 6)      \
	X(AVX512VNNI, 7, 0, ecx, 11)      \
	X(AVX512BITALG, 7, 0, ecx, 12)    \
	X(AVX512POPCNT, 7, 0, ecx, 14)    \
	X(AVX512VP2I, 7, 0, edx, 8)       \
	X(AVX512BF16, 7, 1, eax, 5)       \
	X(AVXVNNI, 7, 1, eax, 4)          \
	X(SHA, 7, 0, ebx, 29)             \
	X(GFNI, 7, 0, ecx, 8)             \
	X(VAES, 7, 0, ecx, 9)             \
	X(VPCLMUL, 7, 0, ecx, 10)         \
	X(RDPID, 7, 0, ecx, 22)           \
	X(XSAVEOPT, 0xd, 1, eax, 0)       \
	X(XSAVEC, 0xd, 1, eax, 1)         \
	X(LAHF, 0x80000001, 0, ecx, 0)    \
	X(ABM, 0x80000001, 0, ecx, 5)     \
	X(RDTSCP, 0x80000001, 0, edx, 27) \
	X(LM, 0x80000001, 0, edx, 29)

enum cpu_feature {
	FEATURE_BASE, /* what every such CPU has */
	FEATURE_AMD,  /* AMD's rules where the vendors differ */
#define X(name, leaf, sub, reg, bit) FEATURE_##name,
	CPU_FEATURES(X)
#undef X
		FEATURE_COUNT
};
_Static_assert(FEATURE_COUNT <= 64, "one word");

#define FEAT(name) (1ull << FEATURE_##name)

/* The features that the @n @entries of a CPUID offer, with FEATURE_BASE. */
uint64_t feature_offered(const struct cpuid_entry *entries, unsigned n);

/* What the decoder goes by: v->features with the vendor as v->amd has it now. */
static inline uint64_t feature_word(const struct vcpu *v)
{
	return v->features | (v->amd ? FEAT(AMD) : 0);
}

#endif
