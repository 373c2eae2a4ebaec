/*
 * Filters the opcode space by what CPUID reports, and leaves out instructions
 * whose result is not a function of the case (time, random numbers, CPU
 * identity, the kernel's descriptor tables, hypercalls, system calls).
 *
 * Invariant: filtering is by the decoder's instruction sets and categories; the
 * few mnemonics below are only there where a set mixes both kinds.
 */
#include "isa.h"

#include <cpuid.h>
#include <stdint.h>
#include <sys/auxv.h>

enum reg { EAX, EBX, ECX, EDX };

/* All vector lengths of an AVX-512 set: a CPU that guests are offered AVX-512 on has VL. */
#define SET512(x, reg, bit)                                                                               \
	{ZYDIS_ISA_SET_AVX512##x##_128, 7, 0, reg, bit}, {ZYDIS_ISA_SET_AVX512##x##_256, 7, 0, reg, bit}, \
	{                                                                                                 \
		ZYDIS_ISA_SET_AVX512##x##_512, 7, 0, reg, bit                                             \
	}

static const struct feature { /* CPUID bit behind each instruction set; leaf 0: every x86-64 CPU has it */
	uint16_t set;
	uint32_t leaf, sub;
	uint8_t reg, bit;
} features[] = {
	{ZYDIS_ISA_SET_I86, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_I186, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_I286REAL, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_I286PROTECTED, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_I386, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_I486, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_I486REAL, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_PENTIUMREAL, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_PENTIUMMMX, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_PPRO, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_CMOV, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_FCMOV, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_FAT_NOP, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_PREFETCH_NOP, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_PAUSE, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_LONGMODE, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_X87, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_FXSAVE, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_FXSAVE64, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_SSE, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_SSE2, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_SSE2MMX, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_SSEMXCSR, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_SSE_PREFETCH, 0, 0, 0, 0},
	{ZYDIS_ISA_SET_LAHF, 0x80000001, 0, ECX, 0},
	{ZYDIS_ISA_SET_SSE3, 1, 0, ECX, 0},
	{ZYDIS_ISA_SET_SSE3X87, 1, 0, ECX, 0},
	{ZYDIS_ISA_SET_PCLMULQDQ, 1, 0, ECX, 1},
	{ZYDIS_ISA_SET_SSSE3, 1, 0, ECX, 9},
	{ZYDIS_ISA_SET_SSSE3MMX, 1, 0, ECX, 9},
	{ZYDIS_ISA_SET_FMA, 1, 0, ECX, 12},
	{ZYDIS_ISA_SET_CMPXCHG16B, 1, 0, ECX, 13},
	{ZYDIS_ISA_SET_SSE4, 1, 0, ECX, 19},
	{ZYDIS_ISA_SET_SSE42, 1, 0, ECX, 20},
	{ZYDIS_ISA_SET_MOVBE, 1, 0, ECX, 22},
	{ZYDIS_ISA_SET_POPCNT, 1, 0, ECX, 23},
	{ZYDIS_ISA_SET_AES, 1, 0, ECX, 25},
	{ZYDIS_ISA_SET_XSAVE, 1, 0, ECX, 27},
	{ZYDIS_ISA_SET_AVX, 1, 0, ECX, 28},
	{ZYDIS_ISA_SET_AVXAES, 1, 0, ECX, 28},
	{ZYDIS_ISA_SET_F16C, 1, 0, ECX, 29},
	{ZYDIS_ISA_SET_CLFSH, 1, 0, EDX, 19},
	{ZYDIS_ISA_SET_MONITOR, 1, 0, ECX, 3},
	{ZYDIS_ISA_SET_RDWRFSGS, 7, 0, EBX, 0},
	{ZYDIS_ISA_SET_BMI1, 7, 0, EBX, 3},
	{ZYDIS_ISA_SET_AVX2, 7, 0, EBX, 5},
	{ZYDIS_ISA_SET_AVX2GATHER, 7, 0, EBX, 5},
	{ZYDIS_ISA_SET_BMI2, 7, 0, EBX, 8},
	{ZYDIS_ISA_SET_INVPCID, 7, 0, EBX, 10},
	{ZYDIS_ISA_SET_ADOX_ADCX, 7, 0, EBX, 19},
	{ZYDIS_ISA_SET_SMAP, 7, 0, EBX, 20},
	{ZYDIS_ISA_SET_CLFLUSHOPT, 7, 0, EBX, 23},
	{ZYDIS_ISA_SET_CLWB, 7, 0, EBX, 24},
	{ZYDIS_ISA_SET_SHA, 7, 0, EBX, 29},
	{ZYDIS_ISA_SET_GFNI, 7, 0, ECX, 8},
	{ZYDIS_ISA_SET_AVX_GFNI, 7, 0, ECX, 8},
	{ZYDIS_ISA_SET_VAES, 7, 0, ECX, 9},
	{ZYDIS_ISA_SET_VPCLMULQDQ, 7, 0, ECX, 10},
	{ZYDIS_ISA_SET_XSAVEOPT, 0xd, 1, EAX, 0},
	{ZYDIS_ISA_SET_XSAVEC, 0xd, 1, EAX, 1},
	{ZYDIS_ISA_SET_LZCNT, 0x80000001, 0, ECX, 5},
	{ZYDIS_ISA_SET_AVX_VNNI, 7, 1, EAX, 4},
	SET512(F, EBX, 16),
	{ZYDIS_ISA_SET_AVX512F_128N, 7, 0, EBX, 16},
	{ZYDIS_ISA_SET_AVX512F_SCALAR, 7, 0, EBX, 16},
	{ZYDIS_ISA_SET_AVX512F_KOP, 7, 0, EBX, 16},
	SET512(DQ, EBX, 17),
	{ZYDIS_ISA_SET_AVX512DQ_128N, 7, 0, EBX, 17},
	{ZYDIS_ISA_SET_AVX512DQ_SCALAR, 7, 0, EBX, 17},
	{ZYDIS_ISA_SET_AVX512DQ_KOP, 7, 0, EBX, 17},
	SET512(_IFMA, EBX, 21),
	SET512(CD, EBX, 28),
	SET512(BW, EBX, 30),
	{ZYDIS_ISA_SET_AVX512BW_128N, 7, 0, EBX, 30},
	{ZYDIS_ISA_SET_AVX512BW_KOP, 7, 0, EBX, 30},
	SET512(_VBMI, ECX, 1),
	SET512(_VBMI2, ECX, 6),
	SET512(_GFNI, ECX, 8),
	SET512(_VAES, ECX, 9),
	SET512(_VPCLMULQDQ, ECX, 10),
	SET512(_VNNI, ECX, 11),
	SET512(_BITALG, ECX, 12),
	SET512(_VPOPCNTDQ, ECX, 14),
	SET512(_VP2INTERSECT, EDX, 8),
	{ZYDIS_ISA_SET_AVX512_BF16_128, 7, 1, EAX, 5},
	{ZYDIS_ISA_SET_AVX512_BF16_256, 7, 1, EAX, 5},
	{ZYDIS_ISA_SET_AVX512_BF16_512, 7, 1, EAX, 5},
};

static int host_has(const struct feature *f)
{
	uint32_t r[4];

	if (f->leaf == 0)
		return 1;
	if (!__get_cpuid_count(f->leaf, f->sub, &r[EAX], &r[EBX], &r[ECX], &r[EDX]))
		return 0;
	return (r[f->reg] >> f->bit) & 1;
}

int isa_has_avx512(void)
{
	const uint32_t v4 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
	uint32_t r[4] = {0}, lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	(void)hi;
	__get_cpuid_count(7, 0, &r[EAX], &r[EBX], &r[ECX], &r[EDX]);
	return (lo & 0xe6) == 0xe6 && (r[EBX] & v4) == v4;
}

unsigned isa_xs_off(int component)
{
	static unsigned off[8];
	uint32_t r[4];

	if (!off[component] && isa_has_avx512()) {
		__cpuid_count(0xd, component, r[EAX], r[EBX], r[ECX], r[EDX]);
		off[component] = r[EBX];
	}
	return off[component];
}

unsigned isa_xs_size(void)
{
	return isa_has_avx512() ? isa_xs_off(XS_ZMM_16) + 1024 : 832;
}

static int set_supported(unsigned set)
{
	static int8_t known[ZYDIS_ISA_SET_MAX_VALUE + 1]; /* 0 not asked, 1 yes, -1 no */

	if (set > ZYDIS_ISA_SET_MAX_VALUE)
		return 0;
	if (!known[set]) {
		known[set] = -1;
		if (set >= ZYDIS_ISA_SET_AVX512BW_128 && set <= ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512 && !isa_has_avx512())
			return 0;
		for (unsigned i = 0; i < sizeof features / sizeof *features; i++)
			if (features[i].set == set)
				known[set] = host_has(&features[i]) ? 1 : -1;
	}
	return known[set] > 0;
}

/* Not functions of the case's state, or the kernel emulates or intercepts them. */
static int is_outside(const ZydisDecodedInstruction *in)
{
	if (in->meta.isa_set == ZYDIS_ISA_SET_RDWRFSGS && (in->machine_mode != ZYDIS_MACHINE_MODE_LONG_64 ||
							   !(getauxval(AT_HWCAP2) & 2))) /* the kernel's word counts */
		return 1;
	if (in->mnemonic == ZYDIS_MNEMONIC_INT && !(getauxval(AT_HWCAP2) & 2)) /* a paravirtual host's own gates */
		return 1;
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_INT1: /* hypervisors differ in the rip they report */
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_SGDT: /* UMIP emulation */
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_LAR: /* the kernel's GDT */
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_RSM:
	case ZYDIS_MNEMONIC_UD0: /* with or without a ModRM byte, by vendor */
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_SYSCALL:
	case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_SYSRET: /* AMD and Intel differ in their mode checks */
	case ZYDIS_MNEMONIC_SYSEXIT:
	case ZYDIS_MNEMONIC_IRET:
	case ZYDIS_MNEMONIC_IRETD:
	case ZYDIS_MNEMONIC_IRETQ: return 1;
	default: return 0;
	}
}

int isa_host_is_amd(void)
{
	uint32_t a, b, c, d;

	__cpuid(0, a, b, c, d);
	return b == 0x68747541 || b == 0x6f677948; /* "Auth"enticAMD, "Hygo"nGenuine */
}

static int amd_leaf_bit(uint32_t leaf, unsigned bit)
{
	uint32_t r[4] = {0};

	__cpuid(0x80000000, r[EAX], r[EBX], r[ECX], r[EDX]);
	if (r[EAX] < leaf)
		return 0;
	__cpuid(leaf, r[EAX], r[EBX], r[ECX], r[EDX]);
	return (r[EAX] >> bit) & 1;
}

int isa_null_clears_base(void)
{
	return !isa_host_is_amd() || amd_leaf_bit(0x80000021, 6);
}

int isa_splits_256(void)
{
	return isa_host_is_amd() && !amd_leaf_bit(0x8000001a, 2);
}

int isa_stores_after_computing(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops)
{
	switch (in->mnemonic) {
	case ZYDIS_MNEMONIC_VCVTPS2PH:
	case ZYDIS_MNEMONIC_FST:
	case ZYDIS_MNEMONIC_FSTP:
	case ZYDIS_MNEMONIC_FIST:
	case ZYDIS_MNEMONIC_FISTP:
	case ZYDIS_MNEMONIC_FISTTP:
	case ZYDIS_MNEMONIC_FBSTP: return ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
	default: return 0;
	}
}

static int is_far(const ZydisDecodedInstruction *in)
{
	return in->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

enum isa_class isa_classify(const ZydisDecodedInstruction *in)
{
	if (!set_supported(in->meta.isa_set) || is_outside(in) || is_far(in))
		return ISA_SKIP;
	if (in->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		return ISA_FAULTS;
	switch (in->meta.category) {
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP: return ISA_FAULTS;
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET: return ISA_SKIP;
	default: return ISA_RUN;
	}
}
