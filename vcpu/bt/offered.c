/*
 * The allow list of instruction sets: each with the CPUID features that the guest must have been offered.
 * Invariant: what has no row here never runs, whatever the host's CPU would do with it.
 *
 * Not listed, among others: AVX-512 FP16 and that of Knights (ER, PF, 4FMAPS, 4VNNIW), AMX, CET's shadow stack, MPX, PT (ptwrite), TDX, VTX, SVM, SMX,
 * SGX, PKU, RTM, UINTR, ENQCMD, MOVDIR, WAITPKG, KEYLOCKER, HRESET, PCONFIG, SERIALIZE, MONITOR(X), PADLOCK, XSAVES,
 * AMD's 3DNow!, SSE4A, XOP, FMA4, TBM, LWP, CLZERO, RDPRU, MCOMMIT, INVLPGB, SNP; KNC's; rsm.
 */
#include "vcpu/bt/offered.h"

#include <Zydis/Zydis.h>

#include "vcpu/cpu/feature.h"

#define SET(x) ZYDIS_ISA_SET_##x

/* An AVX-512 set of @x in its three vector lengths: those below 512 bits are VL's. */
#define SET512(x, feat)                                                   \
	[SET(AVX512##x##_512)] = FEAT(AVX512F) | (feat),                  \
	[SET(AVX512##x##_256)] = FEAT(AVX512F) | FEAT(AVX512VL) | (feat), \
	[SET(AVX512##x##_128)] = FEAT(AVX512F) | FEAT(AVX512VL) | (feat)

static const uint64_t needs[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
	[SET(I86)] = FEAT(BASE),
	[SET(I186)] = FEAT(BASE),
	[SET(I286REAL)] = FEAT(BASE),
	[SET(I286PROTECTED)] = FEAT(BASE),
	[SET(I386)] = FEAT(BASE),
	[SET(I486REAL)] = FEAT(BASE),
	[SET(PPRO)] = FEAT(BASE), /* sysenter and sysexit have a bit of their own: see below */
	[SET(RDPMC)] = FEAT(BASE),
	[SET(FAT_NOP)] = FEAT(BASE),
	[SET(PAUSE)] = FEAT(BASE),        /* a NOP before */
	[SET(PREFETCH_NOP)] = FEAT(BASE), /* with memory operands, on every CPU with long mode */
	[SET(SSE_PREFETCH)] = FEAT(BASE),
	[SET(PREFETCHWT1)] = FEAT(BASE), /* 0F 0D /2: a hint like its neighbours */
	[SET(PENTIUMREAL)] = FEAT(CX8) | FEAT(MSR) | FEAT(TSC),
	[SET(CMOV)] = FEAT(CMOV),
	[SET(X87)] = FEAT(FPU),
	[SET(FCMOV)] = FEAT(FPU) | FEAT(CMOV),
	[SET(PENTIUMMMX)] = FEAT(MMX),
	[SET(FXSAVE)] = FEAT(FXSR),
	[SET(FXSAVE64)] = FEAT(FXSR) | FEAT(LM),
	[SET(LONGMODE)] = FEAT(LM),
	[SET(AMD)] = FEAT(LM), /* syscall and sysret outside 64-bit code */
	[SET(LAHF)] = FEAT(LAHF),
	[SET(CLFSH)] = FEAT(CLFSH),
	[SET(SSE)] = FEAT(SSE),
	[SET(SSEMXCSR)] = FEAT(SSE),
	[SET(SSE2)] = FEAT(SSE2),
	[SET(SSE2MMX)] = FEAT(SSE2) | FEAT(MMX),
	[SET(SSE3)] = FEAT(SSE3),
	[SET(SSE3X87)] = FEAT(SSE3) | FEAT(FPU),
	[SET(SSSE3)] = FEAT(SSSE3),
	[SET(SSSE3MMX)] = FEAT(SSSE3) | FEAT(MMX),
	[SET(SSE4)] = FEAT(SSE41),
	[SET(SSE42)] = FEAT(SSE42),
	[SET(PCLMULQDQ)] = FEAT(PCLMUL),
	[SET(AES)] = FEAT(AES),
	[SET(SHA)] = FEAT(SHA),
	[SET(GFNI)] = FEAT(GFNI),
	[SET(CMPXCHG16B)] = FEAT(CX16),
	[SET(MOVBE)] = FEAT(MOVBE),
	[SET(POPCNT)] = FEAT(POPCNT),
	[SET(RDRAND)] = FEAT(RDRAND),
	[SET(RDSEED)] = FEAT(RDSEED),
	[SET(ADOX_ADCX)] = FEAT(ADX),
	[SET(BMI1)] = FEAT(BMI1),
	[SET(BMI2)] = FEAT(BMI2),
	[SET(LZCNT)] = FEAT(ABM),
	[SET(CLFLUSHOPT)] = FEAT(CLFLUSHOPT),
	[SET(CLWB)] = FEAT(CLWB),
	[SET(AVX)] = FEAT(AVX),
	[SET(AVX2)] = FEAT(AVX) | FEAT(AVX2),
	[SET(AVX2GATHER)] = FEAT(AVX) | FEAT(AVX2),
	[SET(AVXAES)] = FEAT(AVX) | FEAT(AES),
	[SET(AVX_GFNI)] = FEAT(AVX) | FEAT(GFNI),
	[SET(AVX_VNNI)] = FEAT(AVX) | FEAT(AVXVNNI),
	[SET(F16C)] = FEAT(AVX) | FEAT(F16C),
	[SET(FMA)] = FEAT(AVX) | FEAT(FMA),
	[SET(VAES)] = FEAT(AVX) | FEAT(VAES),
	[SET(VPCLMULQDQ)] = FEAT(AVX) | FEAT(VPCLMUL),
	SET512(F, 0),
	[SET(AVX512F_128N)] = FEAT(AVX512F),
	[SET(AVX512F_SCALAR)] = FEAT(AVX512F),
	[SET(AVX512F_KOP)] = FEAT(AVX512F),
	SET512(BW, FEAT(AVX512BW)),
	[SET(AVX512BW_128N)] = FEAT(AVX512F) | FEAT(AVX512BW),
	[SET(AVX512BW_KOP)] = FEAT(AVX512F) | FEAT(AVX512BW),
	SET512(DQ, FEAT(AVX512DQ)),
	[SET(AVX512DQ_128N)] = FEAT(AVX512F) | FEAT(AVX512DQ),
	[SET(AVX512DQ_SCALAR)] = FEAT(AVX512F) | FEAT(AVX512DQ),
	[SET(AVX512DQ_KOP)] = FEAT(AVX512F) | FEAT(AVX512DQ),
	SET512(CD, FEAT(AVX512CD)),
	SET512(_IFMA, FEAT(AVX512IFMA)),
	SET512(_VBMI, FEAT(AVX512VBMI)),
	SET512(_VBMI2, FEAT(AVX512VBMI2)),
	SET512(_VNNI, FEAT(AVX512VNNI)),
	SET512(_BITALG, FEAT(AVX512BITALG)),
	SET512(_VPOPCNTDQ, FEAT(AVX512POPCNT)),
	SET512(_VP2INTERSECT, FEAT(AVX512VP2I)),
	SET512(_BF16, FEAT(AVX512BF16)),
	SET512(_GFNI, FEAT(GFNI)),
	SET512(_VAES, FEAT(VAES)),
	SET512(_VPCLMULQDQ, FEAT(VPCLMUL)),
	[SET(XSAVE)] = FEAT(XSAVE),
	[SET(XSAVEOPT)] = FEAT(XSAVE) | FEAT(XSAVEOPT),
	[SET(XSAVEC)] = FEAT(XSAVE) | FEAT(XSAVEC),
	[SET(RDTSCP)] = FEAT(RDTSCP),
	[SET(RDPID)] = FEAT(RDPID),
	[SET(RDWRFSGS)] = FEAT(FSGSBASE),
	[SET(INVPCID)] = FEAT(INVPCID),
	[SET(SMAP)] = FEAT(SMAP),
};

/* What a set of the decoder's mixes with others. */
static uint64_t needs_besides(unsigned mnemonic)
{
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_SYSEXIT: return FEAT(SEP);
	case ZYDIS_MNEMONIC_VPCLMULQDQ: return FEAT(PCLMUL); /* the 128-bit form is AVX's */
	default: return FEAT(BASE);
	}
}

bool offered(uint64_t features, unsigned isa_set, unsigned mnemonic)
{
	uint64_t want;

	if (isa_set > ZYDIS_ISA_SET_MAX_VALUE || !needs[isa_set])
		return false;
	want = needs[isa_set] | needs_besides(mnemonic);
	return (features & want) == want;
}
