/*
 * Golden text of the code emitted for every class of instruction and every mode
 * that changes it.  Invariant: each enum insn_class occurs in at least one list.
 */
#include <CUnit/CUnit.h>
#include <stdio.h>

#include "btvm.h"
#include "golden.h"
#include "vcpu/bt/decode.h"

#define USER64   (MODE_USER | TLB_USER << MODE_TLB_SHIFT)
#define KERNEL64 (MODE_CPL0 | MODE_SMAP | TLB_KERN << MODE_TLB_SHIFT)
#define USER_AT  0x400000ull
#define REAL_AT  0x8100ull
#define KERN_AT  0xffffffff81400000ull

/* One or more of each class. */
static const struct golden_case classes64[] = {
	{"reg: add", "48 01 d8", 0, false},
	{"reg: shl cl", "48 d3 e0", 0, false},
	{"reg: sse", "66 0f fe c1", 0, false},
	{"reg: vex", "c5 fd fe c1", 0, false},
	{"reg: cld", "fc", 0, false},
	{"mem: load", "48 8b 43 10", 0, false},
	{"mem: load, base and index", "8b 44 8b 10", 0, false},
	{"mem: store", "48 89 43 10", 0, false},
	{"mem: store byte", "88 03", 0, false},
	{"mem: store imm", "c7 43 04 78 56 34 12", 0, false},
	{"mem: high byte", "88 23", 0, false},
	{"mem: read, modify, write", "48 01 03", 0, false},
	{"mem: lock", "f0 48 0f c1 03", 0, false},
	{"mem: cmpxchg", "f0 0f b1 13", 0, false},
	{"mem: rip-relative", "48 8b 05 00 10 00 00", 0, false},
	{"mem: absolute", "8b 04 25 00 00 50 00", 0, false},
	{"mem: moffs64", "48 a1 88 77 66 55 44 33 22 11", 0, false},
	{"mem: fs", "64 48 8b 04 25 28 00 00 00", 0, false},
	{"mem: fs, 32-bit address", "64 67 8b 43 10", 0, false},
	{"mem: sse load", "0f 28 03", 0, false},
	{"mem: avx store", "c5 fe 7f 03", 0, false},
	{"mem: x87", "d9 03", 0, false},
	{"lea", "48 8d 44 8b 10", 0, false},
	{"lea: rip-relative", "48 8d 05 00 10 00 00", 0, false},
	{"lea: 16-bit register", "66 8d 43 10", 0, false},
	{"nop", "0f 1f 44 00 00", 0, false},
	{"push", "53", 0, false},
	{"push: imm", "6a 05", 0, false},
	{"push: mem", "ff 73 08", 0, false},
	{"pop", "5b", 0, false},
	{"pop: mem", "8f 43 08", 0, false},
	{"leave", "c9", 0, false},
	{"jcc", "74 10", 0, false},
	{"jcc: other page", "0f 84 00 20 00 00", 0, false},
	{"loop", "e2 10", 0, false},
	{"jrcxz", "e3 10", 0, false},
	{"jmp", "eb 10", 0, false},
	{"jmp: other page", "e9 00 20 00 00", 0, false},
	{"call", "e8 10 00 00 00", 0, false},
	{"call: other page", "e8 00 20 00 00", 0, false},
	{"jmp: register", "ff e0", 0, false},
	{"jmp: mem", "ff 24 c3", 0, false},
	{"call: register", "ff d0", 0, false},
	{"ret", "c3", 0, false},
	{"ret: imm", "c2 10 00", 0, false},
	{"string: rep movsb", "f3 a4", 0, false},
	{"string: stosq", "48 ab", 0, false},
	{"string: rep stosd", "f3 ab", 0, false},
	{"string: movsw", "66 a5", 0, false},
	{"string: scasb", "f2 ae", 0, false},
	{"bt: memory, register", "48 0f ab 03", 0, false},
	{"bt: 16 bits", "66 0f a3 03", 0, false},
	{"xlat", "d7", 0, false},
	{"maskmovdqu", "66 0f f7 c1", 0, false},
	{"gather", "c4 e2 6d 90 04 8b", 0, false},
	{"gather: two elements, fs", "64 c4 e2 e9 93 44 cb 08", 0, false},
	{"sys: cpuid", "0f a2", 0, false},
	{"sys: syscall", "0f 05", 0, false},
	{"sys: ud2", "0f 0b", 0, false},
	{"falls across the page", "90 48 01 d8", 0xffc, false},
	{"runs into the next page", "48 01 d8", 0xffe, false},
};

static const struct golden_case avx512[] = {
	{"registers", "62 a1 7c 48 28 d1", 0, false},        /* vmovaps zmm18, zmm17 */
	{"load", "62 e1 fe 48 6f 4b 01", 0, false},          /* vmovdqu64 zmm17, [rbx + 64] */
	{"store", "62 e1 fe 48 7f 4c b3 01", 0, false},      /* vmovdqu64 [rbx + rsi*4 + 64], zmm17 */
	{"aligned", "62 f1 7c 48 28 03", 0, false},          /* vmovaps zmm0, [rbx] */
	{"masked load", "62 f1 fe ca 6f 4b 01", 0, false},   /* {k2}{z} */
	{"masked store", "62 f1 7f 49 7f 0b", 0, false},     /* vmovdqu8 [rbx] {k1}, zmm1 */
	{"broadcast", "62 d1 74 5b 58 55 01", 0, false},     /* vaddps zmm2 {k3}, zmm1, [r13 + 4] {1to16} */
	{"compressed store", "62 f2 7d 4a 8a 0b", 0, false}, /* vcompressps [rbx] {k2}, zmm1 */
	{"rip-relative, with an immediate", "62 f3 75 48 25 15 10 00 00 00 aa", 0, false}, /* vpternlogd */
	{"mask to memory", "c4 e1 f8 91 0b", 0, false},                                    /* kmovq [rbx], k1 */
	{"masks", "c5 f8 98 ca 74 02", 0, false},                                          /* kortestw k1, k2; je */
	{"gather", "62 f2 7d 49 90 04 8b", 0, false},
	{"scatter", "62 f2 fd 49 a0 04 8b", 0, false},
	{"AVX2's gather", "c4 e2 6d 90 04 8b", 0, false}, /* keeps what is above its registers */
};

static const struct golden_case kernel64[] = {
	{"load", "48 8b 43 10", 0, false},
	{"store", "48 89 43 10", 0, false},
	{"rip-relative", "48 8b 05 00 10 00 00", 0, false},
	{"gs", "65 48 8b 04 25 28 00 00 00", 0, false},
	{"push", "53", 0, false},
	{"call", "e8 10 00 00 00", 0, false},
	{"call: other page", "e8 00 20 00 00", 0, false},
	{"jmp: register", "ff e0", 0, false},
	{"ret", "c3", 0, false},
	{"cli", "fa", 0, false},
	{"sti", "fb", 0, false},
	{"sti: flags live", "fb", 0, true},
	{"sti: last of its page", "fb", 0xfff, false},
	{"sti; hlt", "fb f4", 0, false},
	{"stac", "0f 01 cb", 0, false},
	{"clac", "0f 01 ca", 0, false},
	{"swapgs", "0f 01 f8", 0, false},
	{"rdtsc", "0f 31", 0, false},
	{"rdtscp", "0f 01 f9", 0, false},
	{"entry: swapgs, stack", "0f 01 f8 65 48 89 24 25 14 60 00 00 50 51 57 56", 0, false},
	{"pushf", "9c", 0, false},
	{"popf", "9d", 0, false},
	{"iretq", "48 cf", 0, false},
	{"mov cr3", "0f 22 d8", 0, false},
	{"wrmsr", "0f 30", 0, false},
	{"invlpg", "0f 01 3b", 0, false},
	{"hlt", "f4", 0, false},
};

static const struct golden_case compat32[] = {
	{"load", "8b 43 10", 0, false},
	{"store, base and index", "89 44 8b 10", 0, false},
	{"gs", "65 a1 14 00 00 00", 0, false},
	{"16-bit address", "67 8b 07", 0, false},
	{"absolute", "a1 00 00 50 00", 0, false},
	{"inc: one byte", "40", 0, false},
	{"push", "53", 0, false},
	{"pop", "5b", 0, false},
	{"call", "e8 10 00 00 00", 0, false},
	{"ret", "c3", 0, false},
	{"jmp: mem", "ff 24 83", 0, false},
	{"pusha", "60", 0, false},
	{"int 80h", "cd 80", 0, false},
};

static const struct golden_case slow64[] = {
	{"load", "48 8b 43 10", 0, false}, {"store, fs", "64 48 89 43 10", 0, false}, {"push", "53", 0, false},
	{"ret", "c3", 0, false},           {"gather", "c4 e2 6d 90 04 8b", 0, false},
};

static const struct golden_case segs16[] = {
	{"registers: 16 bits", "01 c8", 0, false},
	{"registers: 66, 32 bits", "66 01 c8", 0, false},
	{"bytes", "04 05", 0, false},
	{"load", "8b 40 10", 0, false},
	{"load: 32 bits", "66 8b 07", 0, false},
	{"store, es", "26 89 07", 0, false},
	{"immediate", "c7 06 34 12 78 56", 0, false},
	{"32-bit address", "67 8b 04 8b", 0, false},
	{"vector load", "0f 10 07", 0, false},
	{"vector load, 66", "66 0f 10 07", 0, false},
	{"x87", "df 07", 0, false},
	{"popcnt", "f3 0f b8 c1", 0, false},
	{"inc", "40", 0, false},
	{"push", "50", 0, false},
	{"pop: 32 bits", "66 58", 0, false},
	{"call", "e8 10 00", 0, false},
	{"ret", "c3", 0, false},
	{"jmp: register", "ff e0", 0, false},
	{"jcc", "74 10", 0, false},
	{"jcc: other page", "0f 84 00 10", 0, false},
	{"jmp: wraps", "e9 00 80", 0, false},
	{"loop", "e2 f0", 0, false},
	{"loope", "e1 f0", 0, false},
	{"jcxz", "e3 10", 0, false},
	{"far jmp", "ea 00 00 00 f0", 0, false},
};

static const struct golden_case slow32[] = {
	{"load through ss", "8b 45 10", 0, false},
	{"store through es", "26 89 03", 0, false},
	{"push", "53", 0, false},
};

static const struct golden_case step[] = {
	{"add", "48 01 d8", 0, false},        {"load", "48 8b 43 10", 0, false}, {"jcc", "74 10", 0, false},
	{"call", "e8 10 00 00 00", 0, false}, {"ret", "c3", 0, false},
};

static const struct golden_case bounce[] = {
	{"load", "48 8b 43 10", 0, false}, {"store", "48 89 43 10", 0, false},      {"push: mem", "ff 73 08", 0, false},
	{"bt", "48 0f ab 03", 0, false},   {"maskmovdqu", "66 0f f7 c1", 0, false},
};

static const struct golden_case bounce_stack[] = {
	{"push", "53", 0, false},
	{"push: mem", "ff 73 08", 0, false},
	{"ret", "c3", 0, false},
};

/* Flags alive over what clobbers them, and who saves and restores them. */
static const struct golden_case flags[] = {
	{"load after cmp, read later", "39 d8 8b 03 74 10", 0, true},
	{"load, flags live after", "8b 03", 0, true},
	{"adc after load", "8b 03 11 d8", 0, true},
	{"inc keeps cf", "8b 03 ff c0", 0, true},
	{"shl cl may keep them", "8b 03 d3 e2", 0, true},
	{"two loads save once", "8b 03 8b 53 08", 0, true},
	{"jcc twice", "74 10", 0, true},
	{"setcc to memory", "0f 94 03", 0, true},
};

/* What neighbours share: scratch registers, checks, the flags' slot. */
static const struct golden_case sequences[] = {
	{"function entry", "55 48 89 e5 41 57 41 56 53 48 83 ec 18", 0, false},
	{"function exit", "48 83 c4 18 5b 41 5e 41 5f 5d c3", 0, false},
	{"function exit, rsp from memory", "41 5b 41 5a 5f 5c", 0, false},
	{"fields of a structure", "48 8b 07 48 83 c7 10 48 03 47 08 48 89 47 f8 31 c9", 0, false},
	{"copy", "48 8b 06 48 89 07 48 8b 46 08 48 89 47 08", 0, false},
	{"loop over memory", "8b 04 8b 01 c2 48 ff c1 48 39 f1 75 f3", 0, false},
	{"test and branch on memory", "48 85 ff 74 10", 0, false},
	{"compare with memory and branch", "48 3b 07 77 10", 0, false},
	{"call with arguments on the stack", "50 51 52 e8 20 00 00 00", 0, false},
};

static const struct golden_case no_bmi2[] = {
	{"load", "48 8b 43 10", 0, false},
	{"store", "48 89 43 10", 0, false},
	{"ret", "c3", 0, false},
};

#define GROUP(n, m, at, nobmi, with512)                                          \
	{                                                                        \
#n, (m), (at), (nobmi), (with512), n, sizeof(n) / sizeof((n)[0]) \
	}
static const struct golden_group groups[] = {
	GROUP(classes64, USER64, USER_AT, false, false),
	GROUP(avx512, USER64, USER_AT, false, true),
	GROUP(kernel64, KERNEL64, KERN_AT, false, false),
	GROUP(compat32, USER64 | MODE_CS32, USER_AT, false, false),
	GROUP(slow64, USER64 | MODE_SLOWMEM, USER_AT, false, false),
	GROUP(slow32, KERNEL64 | MODE_CS32 | MODE_SLOWMEM, USER_AT, false, false),
	GROUP(segs16, KERNEL64 | MODE_CS16 | MODE_SS16 | MODE_SLOWMEM | MODE_SEGS | MODE_REAL, REAL_AT, false, false),
	GROUP(step, USER64 | MODE_STEP, USER_AT, false, false),
	GROUP(bounce, USER64 | MODE_STEP | MODE_BOUNCE, USER_AT, false, false),
	GROUP(bounce_stack, USER64 | MODE_STEP | MODE_BOUNCE_STACK, USER_AT, false, false),
	GROUP(flags, USER64, USER_AT, false, false),
	GROUP(sequences, USER64, USER_AT, false, false),
	GROUP(no_bmi2, USER64, USER_AT, true, false),
};

static void test_golden(void)
{
	uint32_t met = 0;

	for (unsigned i = 0; i < sizeof groups / sizeof groups[0]; i++)
		CU_ASSERT(golden_check(&groups[i], &met));
	for (unsigned cls = CLS_REG; cls <= CLS_GATHER_INLINE; cls++)
		if (!(met >> cls & 1)) {
			fprintf(stderr, "no golden text for class %u\n", cls);
			CU_FAIL("class without golden text");
		}
}

/* However large the code of its instructions is, a block fits. */
static void test_large(void)
{
	static const uint8_t gather[] = {0x62, 0xf2, 0x7d, 0x49,
					 0x90, 0x04, 0x8b}; /* vpgatherdd zmm0 {k1}, [rbx + zmm1*4] */
	struct vcpu *v = btvm_reset();
	uint32_t b;

	v->features = ~0ull;
	for (unsigned i = 0; i < BT_MAX_INSNS; i++)
		btvm_put(v, BTVM_CODE + i * sizeof gather, gather, sizeof gather);
	v->rip = BTVM_CODE;
	b = btvm_translate_at(v, BTVM_CODE, v->mode & ~(uint32_t)MODE_NOAVX512);
	CU_ASSERT_NOT_EQUAL_FATAL(b, BT_NONE);
	CU_ASSERT(v->bt->blocks[b].n_insns > 16);
	btvm_reset();
}

CU_ErrorCode suite_translate(void);
CU_ErrorCode suite_translate(void)
{
	CU_pSuite s = CU_add_suite("translate", NULL, NULL);

	return s && CU_add_test(s, "golden text of emitted code", test_golden) &&
			       CU_add_test(s, "the largest block", test_large)
		       ? CUE_SUCCESS
		       : CU_get_error();
}
