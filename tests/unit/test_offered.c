/*
 * What of the whole opcode space may run: the decoder's decisions over every legacy map, VEX map, EVEX, XOP and 3DNow! encoding
 * with every prefix that chooses an instruction, in 64-bit and 32-bit code.
 *
 * Invariant under test: an instruction gets through only if its set is one that CPUID offered, and its bytes reach the host's
 * CPU only if all it touches is the guest's: no privilege, no foreign register, at most one operand in memory, in sight, of a
 * known size.  Sets are told by name here, so that the list under test is written down twice.
 */
#include <CUnit/CUnit.h>
#include <Zydis/Zydis.h>
#include <string.h>

#include "btvm.h"
#include "vcpu/bt/decode.h"
#include "vcpu/cpu/cpuid.h"
#include "vcpu/cpu/feature.h"

#define ALL ~0ull
#define AT  (BTVM_CODE + 0x100)

static const char offers[] =
	" I86 I186 I286REAL I286PROTECTED I386 I486REAL PPRO RDPMC FAT_NOP PAUSE PREFETCH_NOP SSE_PREFETCH PREFETCHWT1"
	" PENTIUMREAL CMOV X87 FCMOV PENTIUMMMX FXSAVE FXSAVE64 LONGMODE AMD LAHF CLFSH SSE SSEMXCSR SSE2 SSE2MMX SSE3 SSE3X87"
	" SSSE3 SSSE3MMX SSE4 SSE42 PCLMULQDQ AES SHA GFNI CMPXCHG16B MOVBE POPCNT RDRAND RDSEED ADOX_ADCX BMI1 BMI2 LZCNT"
	" CLFLUSHOPT CLWB AVX AVX2 AVX2GATHER AVXAES AVX_GFNI AVX_VNNI F16C FMA VAES VPCLMULQDQ XSAVE XSAVEOPT XSAVEC RDTSCP RDPID"
	" RDWRFSGS INVPCID SMAP"
	" AVX512F_128 AVX512F_256 AVX512F_512 AVX512F_128N AVX512F_SCALAR AVX512F_KOP AVX512BW_128 AVX512BW_256 AVX512BW_512"
	" AVX512BW_128N AVX512BW_KOP AVX512DQ_128 AVX512DQ_256 AVX512DQ_512 AVX512DQ_128N AVX512DQ_SCALAR AVX512DQ_KOP"
	" AVX512CD_128 AVX512CD_256 AVX512CD_512 AVX512_IFMA_128 AVX512_IFMA_256 AVX512_IFMA_512 AVX512_VBMI_128"
	" AVX512_VBMI_256 AVX512_VBMI_512 AVX512_VBMI2_128 AVX512_VBMI2_256 AVX512_VBMI2_512 AVX512_VNNI_128 AVX512_VNNI_256"
	" AVX512_VNNI_512 AVX512_BITALG_128 AVX512_BITALG_256 AVX512_BITALG_512 AVX512_VPOPCNTDQ_128 AVX512_VPOPCNTDQ_256"
	" AVX512_VPOPCNTDQ_512 AVX512_VP2INTERSECT_128 AVX512_VP2INTERSECT_256 AVX512_VP2INTERSECT_512 AVX512_BF16_128"
	" AVX512_BF16_256 AVX512_BF16_512 AVX512_GFNI_128 AVX512_GFNI_256 AVX512_GFNI_512 AVX512_VAES_128 AVX512_VAES_256"
	" AVX512_VAES_512 AVX512_VPCLMULQDQ_128 AVX512_VPCLMULQDQ_256 AVX512_VPCLMULQDQ_512 ";

struct sample {
	uint8_t code[15], code_size, len;
	bool seen;
};

static ZydisDecoder decoders[2]; /* with every extension's meaning of the bytes: 64-bit, 32-bit */
static struct sample passed[2][ZYDIS_MNEMONIC_MAX_VALUE + 1], refused[2][ZYDIS_MNEMONIC_MAX_VALUE + 1];
static struct sample of_set[ZYDIS_ISA_SET_MAX_VALUE + 1];
static bool set_seen[ZYDIS_ISA_SET_MAX_VALUE + 1];
static unsigned n_bad, n_seen;

static bool in_list(unsigned set)
{
	char name[40];

	snprintf(name, sizeof name, " %s ", ZydisISASetGetString((ZydisISASet)set));
	return strstr(offers, name) != NULL;
}

static void keep(struct sample *s, const uint8_t *code, unsigned len, unsigned code_size)
{
	if (s->seen)
		return;
	memcpy(s->code, code, 15);
	s->len = (uint8_t)len;
	s->code_size = (uint8_t)code_size;
	s->seen = true;
}

static void bad(const struct insn *in, const char *why)
{
	if (++n_bad > 20)
		return;
	fprintf(stderr, "%s (%u-bit, %s, class %u):", ZydisMnemonicGetString(in->mnemonic), in->code_size * 8, why,
		in->cls);
	for (unsigned i = 0; i < in->len; i++)
		fprintf(stderr, " %02x", in->raw[i]);
	fprintf(stderr, "\n");
}

static bool is_copied(unsigned cls)
{
	return cls == CLS_REG || cls == CLS_MEM || cls == CLS_LEA || cls == CLS_BT || cls == CLS_XLAT ||
	       cls == CLS_MASKMOV || cls == CLS_GATHER;
}

/* The operands of what is copied, as the decoder library shows them to us. */
static void check_operands(const struct insn *in, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
	unsigned mems = 0, hidden = 0;

	if (z->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED)
		bad(in, "privileged");
	for (unsigned i = 0; i < z->operand_count; i++) {
		if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			mems++;
			hidden += op[i].visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
		} else if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER) {
			ZydisRegisterClass c = ZydisRegisterGetClass(op[i].reg.value);

			if (c == ZYDIS_REGCLASS_TMM || c == ZYDIS_REGCLASS_BOUND || c == ZYDIS_REGCLASS_CONTROL ||
			    c == ZYDIS_REGCLASS_DEBUG || c == ZYDIS_REGCLASS_TEST || c == ZYDIS_REGCLASS_SEGMENT ||
			    c == ZYDIS_REGCLASS_TABLE || op[i].reg.value == ZYDIS_REGISTER_PKRU ||
			    op[i].reg.value == ZYDIS_REGISTER_XCR0)
				bad(in, "a register that is not the guest's");
		}
	}
	if (mems > 1)
		bad(in, "two operands in memory");
	if (hidden && in->cls != CLS_XLAT && in->cls != CLS_MASKMOV)
		bad(in, "an operand in memory that is not shown");
	if (mems && in->cls == CLS_REG)
		bad(in, "copied with an operand in memory");
	if (mems && in->cls != CLS_LEA && (in->mem.size == 0 || in->mem.size > 64))
		bad(in, "an operand in memory of no known size");
}

/* NOPs that later extensions gave a meaning: nothing is run and nothing changes. */
static bool is_nop_space(const ZydisDecodedInstruction *z)
{
	return z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && z->opcode_map == ZYDIS_OPCODE_MAP_0F &&
	       z->opcode >= 0x18 && z->opcode <= 0x1f;
}

static void one(const uint8_t *code, unsigned code_size)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	unsigned k = code_size == 4;
	struct insn in;

	if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoders[k], code, 15, &z, op)))
		return;
	n_seen++;
	set_seen[z.meta.isa_set] = true;
	CU_ASSERT_EQUAL_FATAL(decode_insn(&in, code, 15, code_size, ALL & ~FEAT(AMD)), DECODE_OK);
	if (is_nop_space(&z)) {
		if (in.cls != CLS_NOP || in.gpr_write || in.fl_write)
			bad(&in, "a NOP that does something");
		if (in_list(z.meta.isa_set)) /* others are NOPs here */
			keep(&of_set[z.meta.isa_set], code, z.length, code_size);
		return;
	}
	if (in.cls == CLS_SYS && in.sysop == SYS_UD) {
		keep(&refused[k][z.mnemonic], code, z.length, code_size);
		return;
	}
	keep(&passed[k][z.mnemonic], code, z.length, code_size);
	keep(&of_set[z.meta.isa_set], code, z.length, code_size);
	if (!in_list(z.meta.isa_set))
		bad(&in, "of a set that is not offered");
	if (is_copied(in.cls))
		check_operands(&in, &z, op);
}

/* Registers only, and memory operands without a base beyond rm 0, with SIB and with displacement. */
static bool is_modrm_worth(unsigned m)
{
	return m >= 0xc0 || (m < 0x40 && ((m & 7) == 0 || (m & 7) == 4 || (m & 7) == 5));
}

static void walk_legacy(unsigned code_size, uint8_t prefix, uint8_t rex)
{
	static const uint8_t maps[4][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};

	for (unsigned map = 0; map < 4; map++)
		for (unsigned op = 0; op < 256; op++)
			for (unsigned m = 0; m < 256; m++) {
				uint8_t b[16] = {0};
				unsigned n = 0;

				if (!is_modrm_worth(m))
					continue;
				if (prefix)
					b[n++] = prefix;
				if (rex)
					b[n++] = rex;
				for (unsigned i = 0; i < 2; i++)
					if (maps[map][i])
						b[n++] = maps[map][i];
				b[n++] = (uint8_t)op;
				b[n] = (uint8_t)m;
				one(b, code_size);
			}
}

/* VEX and XOP: three bytes, @first of them given. */
static void walk_vex(unsigned code_size, uint8_t first, unsigned maps)
{
	for (unsigned x = 0; x < maps * 16 * 256; x++) {
		unsigned map = x >> 12, w = x >> 11 & 1, pp = x >> 8 & 7, op = x & 255;

		for (unsigned m = 0; m < 256; m += m < 0xc0 ? 4 : 9) {
			uint8_t b[16] = {first, (uint8_t)(0xe0 | map), (uint8_t)(w << 7 | 0x78 | pp), (uint8_t)op,
					 (uint8_t)m};

			one(b, code_size);
			if (m < 0xc0) { /* no vvvv: 1111b */
				b[2] &= 0x87;
				one(b, code_size);
			}
		}
	}
}

static void walk_evex(unsigned code_size)
{
	for (unsigned x = 0; x < 8 * 8 * 256; x++) {
		static const uint8_t modrm[] = {0x00, 0x0c, 0x10, 0xc1, 0xf1},
				     p2[] = {0x00, 0x01, 0x10, 0x20, 0x21, 0x40, 0x41};

		for (unsigned i = 0; i < sizeof modrm * sizeof p2 * 2; i++) {
			uint8_t b[16] = {0x62,
					 (uint8_t)(0xf0 | x >> 11),
					 (uint8_t)((i & 1 ? 0x74 : 0x7c) | (x & 3) | (x >> 2 & 1) << 7),
					 (uint8_t)(0x08 | p2[i / 2 % sizeof p2]),
					 (uint8_t)(x >> 3),
					 modrm[i / 2 / sizeof p2]};

			one(b, code_size);
		}
	}
}

static void walk_3dnow(unsigned code_size)
{
	for (unsigned op = 0; op < 256; op++) {
		uint8_t b[16] = {0x0f, 0x0f, 0xc1, (uint8_t)op};

		one(b, code_size);
	}
}

static void test_space(void)
{
	static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3, 0xf0};

	ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	for (unsigned code_size = 4; code_size <= 8; code_size += 4) {
		for (unsigned p = 0; p < sizeof prefixes; p++) {
			walk_legacy(code_size, prefixes[p], 0);
			if (code_size == 8)
				walk_legacy(8, prefixes[p], 0x48);
		}
		walk_vex(code_size, 0xc4, 4);
		walk_vex(code_size, 0x8f, 11);
		walk_evex(code_size);
		walk_3dnow(code_size);
	}
	CU_ASSERT_EQUAL(n_bad, 0);
	CU_ASSERT(n_seen > 200000);
}

/* Each set of the list lets something through, each other one nothing; some thirty are not reached by any encoding. */
static void test_sets(void)
{
	unsigned seen = 0;

	for (unsigned s = 1; s <= ZYDIS_ISA_SET_MAX_VALUE; s++) {
		seen += set_seen[s];
		if (!set_seen[s] || of_set[s].seen == in_list(s))
			continue;
		fprintf(stderr, "%s: %s\n", ZydisISASetGetString((ZydisISASet)s),
			in_list(s) ? "nothing passes" : "passes");
		CU_FAIL("set");
	}
	CU_ASSERT(seen > 130);
}

/* Does a CPU with @features take @s for what one with all does? */
static bool passes(const struct sample *s, uint64_t features)
{
	struct insn in, with_all;

	decode_insn(&with_all, s->code, 15, s->code_size, ALL & ~FEAT(AMD));
	return decode_insn(&in, s->code, 15, s->code_size, features) == DECODE_OK &&
	       !(in.cls == CLS_SYS && in.sysop == SYS_UD) && in.mnemonic == with_all.mnemonic;
}

static bool decides(const struct sample *s, unsigned feature)
{
	return s->seen && !passes(s, ALL & ~FEAT(AMD) & ~(1ull << feature));
}

/* Each feature's bit decides about some instruction: a CPU without it refuses what one with it runs. */
static void test_features(void)
{
	for (unsigned f = FEATURE_AMD + 1; f < FEATURE_COUNT; f++) {
		unsigned n = 0;

		for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
			for (unsigned k = 0; k < 2; k++)
				n += decides(&passed[k][m], f);
		for (unsigned set = 0; set <= ZYDIS_ISA_SET_MAX_VALUE; set++)
			n += decides(&of_set[set], f);
		if (n == 0)
			fprintf(stderr, "feature %u decides about nothing\n", f);
		CU_ASSERT(n > 0);
	}
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		CU_ASSERT(!passed[0][m].seen || !passes(&passed[0][m], 0));
}

/* Bits of the guest's CPUID that bring no instruction; any other is a feature of cpu/feature.h, or undecided. */
static void test_cpuid(void)
{
	static const struct {
		uint32_t leaf, sub;
		uint32_t without[4];
	} words[] = {
		/* ecx: pcid x2apic tsc-deadline osxsave hypervisor; edx: vme de pse pae mce apic mtrr pge mca pat pse36 ss htt */
		{1, 0, {~0u, ~0u, 1u << 17 | 1u << 21 | 1u << 24 | 1u << 27 | 1u << 31, 0x1803f2ce & ~(1u << 15)}},
		/* eax: the last subleaf; ebx: tsc_adjust fdp-excptn smep erms zero-fcs; ecx: umip; edx: fsrm, speculation control */
		{7, 1, {0, ~0u, ~0u, ~0u}},
		{7, 0, {3, 1u << 1 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 13, 1u << 2, 1u << 4 | 0xac000000}},
		{0xd, 1, {1u << 2, ~0u, 0, 0}}, /* xgetbv(1) */
		/* ecx: cmp-legacy misalignsse 3dnowprefetch topoext; edx: as leaf 1, syscall nx mmxext 1g */
		{0x80000001,
		 0,
		 {~0u, ~0u, 1u << 1 | 1u << 7 | 1u << 8 | 1u << 22,
		  0x0183f3ff | 1u << 11 | 1u << 20 | 1u << 22 | 1u << 26}},
	};
	struct vcpu *v = btvm_reset();

	for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
		uint32_t r[4], known[4];

		memcpy(known, words[i].without, sizeof known);
#define X(name, l, s, reg, bit)                          \
	if (words[i].leaf == (l) && words[i].sub == (s)) \
		known[(#reg)[1] == 'a' ? 0 : (#reg)[1] == 'b' ? 1 : (#reg)[1] == 'c' ? 2 : 3] |= 1u << (bit);
		CPU_FEATURES(X)
#undef X
		cpuid_query(v, words[i].leaf, words[i].sub, r);
		for (unsigned k = 0; k < 4; k++)
			if (r[k] & ~known[k]) {
				fprintf(stderr, "leaf %x register %u: bits %x undecided\n", words[i].leaf, k,
					r[k] & ~known[k]);
				CU_FAIL("CPUID bit");
			}
	}
}

/* The engine raises #UD at @s, whatever the host's CPU has. */
static void check_ud(struct vcpu *v, const struct sample *s)
{
	uint8_t code[16];

	memset(code, 0x90, sizeof code);
	memcpy(code, s->code, s->len);
	btvm_mode(v, 3, s->code_size);
	btvm_put(v, AT, code, sizeof code);
	v->rip = AT;
	v->exc_pending = 0;
	if (vcpu_run_until(v, AT + s->len, 50) == 1 && v->exc_vector == EXC_UD && v->rip == AT)
		return;
	fprintf(stderr, "ran: %02x %02x %02x %02x %02x\n", code[0], code[1], code[2], code[3], code[4]);
	CU_FAIL("not #UD");
}

static void test_engine(void)
{
	struct vcpu *v = btvm_reset();
	unsigned n = 0;

	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		for (unsigned k = 0; k < 2; k++)
			if (refused[k][m].seen) {
				check_ud(v, &refused[k][m]);
				n++;
			}
	CU_ASSERT(n > 500);
}

/* A feature that the host has and the guest's CPUID hides. */
static void test_hidden(void)
{
	struct vcpu *v = btvm_reset();
	uint64_t all = v->features;

	v->features = all & ~FEAT(SSE42) & ~FEAT(AVX) & ~FEAT(ADX) & ~FEAT(AVX512DQ);
	check_ud(v, &passed[0][ZYDIS_MNEMONIC_KADDB]);
	check_ud(v, &passed[0][ZYDIS_MNEMONIC_CRC32]);
	check_ud(v, &passed[0][ZYDIS_MNEMONIC_VADDPS]);
	check_ud(v, &passed[0][ZYDIS_MNEMONIC_ADCX]);
	v->features = all;
}

/* An f3 that a CPU without BMI1 ignores must not make the host's CPU count. */
static void test_idle_rep(void)
{
	static const uint8_t code[16] = {0xf3, 0x0f, 0xbc, 0xc1, 0x0f, 0x0b}; /* rep bsf eax, ecx */
	struct vcpu *v = btvm_reset();

	v->features &= ~FEAT(BMI1);
	btvm_put(v, AT, code, sizeof code);
	v->rip = AT;
	v->regs[R_AX] = 77;
	v->regs[R_CX] = 0;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->rip, AT + 4);
	CU_ASSERT_EQUAL((uint32_t)v->regs[R_AX], 77); /* tzcnt would say 32 */
	btvm_reset();
}

CU_ErrorCode suite_offered(void);
CU_ErrorCode suite_offered(void)
{
	CU_pSuite s = CU_add_suite("offered", NULL, NULL);

	CU_add_test(s, "the opcode space", test_space);
	CU_add_test(s, "a decision for each set", test_sets);
	CU_add_test(s, "each feature decides", test_features);
	CU_add_test(s, "CPUID shows nothing undecided", test_cpuid);
	CU_add_test(s, "the engine refuses what is not offered", test_engine);
	CU_add_test(s, "features that the guest's CPUID hides", test_hidden);
	CU_add_test(s, "prefixes of extensions that are hidden", test_idle_rep);
	return CU_get_error();
}
