/*
 * What decode says about registers and flags of instructions that are easy to get wrong.
 * Invariant: a register or flag is in a kill set only if every execution overwrites it.
 */
#include <CUnit/CUnit.h>
#include <string.h>

#include "btvm.h"
#include "vcpu/bt/decode.h"
#include "vcpu/bt/evex.h"
#include "vcpu/cpu/feature.h"

#define ALL  (~0ull & ~FEAT(AMD)) /* a CPU of Intel's with every feature */
#define B(r) ((uint16_t)(1u << (r)))

static struct insn dec(const char *hex, unsigned code_size)
{
	uint8_t buf[16] = {0};
	struct insn in;
	size_t n = btvm_hex(hex, buf, sizeof buf);

	CU_ASSERT_EQUAL(decode_insn(&in, buf, sizeof buf, code_size, ALL), DECODE_OK);
	CU_ASSERT_EQUAL(in.len, n);
	return in;
}

static void test_registers(void)
{
	struct insn in = dec("48 01 d8", 8); /* add rax, rbx */

	CU_ASSERT_EQUAL(in.gpr_read, B(R_AX) | B(R_BX));
	CU_ASSERT_EQUAL(in.gpr_write, B(R_AX));
	CU_ASSERT_EQUAL(in.gpr_kill, 0);
	in = dec("89 d8", 8); /* mov eax, ebx: 32-bit writes clear the rest */
	CU_ASSERT_EQUAL(in.gpr_kill, B(R_AX));
	in = dec("66 89 d8", 8); /* mov ax, bx keeps the rest */
	CU_ASSERT_EQUAL(in.gpr_kill, 0);
	CU_ASSERT(in.gpr_write & B(R_AX));
	in = dec("88 e0", 8); /* mov al, ah */
	CU_ASSERT_EQUAL(in.gpr_kill, 0);
	CU_ASSERT(in.high8);
	CU_ASSERT_EQUAL(in.gpr_read & B(R_SP), 0); /* ah is no sp */
	in = dec("40 88 e0", 8);                   /* mov al, spl */
	CU_ASSERT(!in.high8);
	CU_ASSERT(in.gpr_read & B(R_SP));
	in = dec("48 0f 44 c3", 8); /* cmovz rax, rbx may leave rax */
	CU_ASSERT_EQUAL(in.gpr_kill, 0);
	in = dec("48 0f bc c3", 8); /* bsf leaves rax when rbx is 0 */
	CU_ASSERT_EQUAL(in.gpr_kill, 0);
	in = dec("0f c1 d8", 8); /* xadd eax, ebx */
	CU_ASSERT_EQUAL(in.gpr_read, B(R_AX) | B(R_BX));
	CU_ASSERT_EQUAL(in.gpr_write, B(R_AX) | B(R_BX));
	CU_ASSERT_EQUAL(in.gpr_kill, 0);
}

static void test_implicit_registers(void)
{
	uint16_t four = B(R_AX) | B(R_BX) | B(R_CX) | B(R_DX);
	struct insn in = dec("f0 0f c7 0e", 8); /* lock cmpxchg8b [rsi] */

	CU_ASSERT_EQUAL(in.gpr_read & four, four);
	CU_ASSERT(in.gpr_read & B(R_SI));
	CU_ASSERT_EQUAL(in.gpr_write, B(R_AX) | B(R_DX));
	CU_ASSERT_EQUAL(in.gpr_kill, 0);
	CU_ASSERT(in.lock && in.mem_read && in.mem_write);
	CU_ASSERT_EQUAL(in.mem.size, 8);
	in = dec("48 0f c7 0e", 8);
	CU_ASSERT_EQUAL(in.mem.size, 16);
	CU_ASSERT_EQUAL(in.align, 16);
	in = dec("48 f7 e3", 8); /* mul rbx */
	CU_ASSERT_EQUAL(in.gpr_read, B(R_AX) | B(R_BX));
	CU_ASSERT_EQUAL(in.gpr_write, B(R_AX) | B(R_DX));
	in = dec("48 d3 e0", 8); /* shl rax, cl */
	CU_ASSERT_EQUAL(in.gpr_read, B(R_AX) | B(R_CX));
	in = dec("0f b1 13", 8); /* cmpxchg [rbx], edx */
	CU_ASSERT(in.gpr_read & B(R_AX));
	CU_ASSERT(in.gpr_write & B(R_AX));
	CU_ASSERT_EQUAL(in.gpr_kill & B(R_AX), 0);
	in = dec("48 99", 8); /* cqo */
	CU_ASSERT(in.gpr_read & B(R_AX));
	CU_ASSERT(in.gpr_write & B(R_DX));
	in = dec("31 c0", 8); /* xor eax, eax */
	CU_ASSERT(in.gpr_write & B(R_AX));
}

static void test_flags(void)
{
	struct insn in = dec("48 01 d8", 8);

	CU_ASSERT_EQUAL(in.fl_kill, FL_ARITH);
	CU_ASSERT_EQUAL(in.fl_read, 0);
	in = dec("11 d8", 8); /* adc */
	CU_ASSERT_EQUAL(in.fl_read, FL_CF);
	in = dec("ff c0", 8); /* inc keeps cf */
	CU_ASSERT_EQUAL(in.fl_kill & FL_CF, 0);
	CU_ASSERT_EQUAL(in.fl_write & FL_CF, 0);
	in = dec("d3 e0", 8); /* shl cl: a count of 0 changes nothing */
	CU_ASSERT_EQUAL(in.fl_kill, 0);
	CU_ASSERT(in.fl_write);
	in = dec("d3 c0", 8); /* rol cl */
	CU_ASSERT_EQUAL(in.fl_kill, 0);
	in = dec("d1 c0", 8); /* rol 1: of and cf only */
	CU_ASSERT_EQUAL(in.fl_kill & (FL_ZF | FL_SF | FL_PF), 0);
	in = dec("0f 44 c3", 8);
	CU_ASSERT_EQUAL(in.fl_read, FL_ZF);
	CU_ASSERT_EQUAL(in.fl_write & FL_ARITH, 0);
	in = dec("0f 97 c0", 8); /* seta */
	CU_ASSERT_EQUAL(in.fl_read, FL_CF | FL_ZF);
	in = dec("0f bc c3", 8); /* bsf: zf is defined, the others belong to the processor */
	CU_ASSERT(in.fl_write & FL_ZF);
	in = dec("f0 0f c7 0e", 8); /* cmpxchg8b: zf alone */
	CU_ASSERT_EQUAL(in.fl_write & FL_ARITH, FL_ZF);
	in = dec("0f a3 c3", 8); /* bt: zf stays */
	CU_ASSERT_EQUAL(in.fl_kill & FL_ZF, 0);
	in = dec("f7 d0", 8); /* not */
	CU_ASSERT_EQUAL(in.fl_write & FL_ARITH, 0);
	in = dec("fd", 8); /* std */
	CU_ASSERT(in.fl_write & FL_DF);
	in = dec("c1 e0 00", 8); /* shl by 0 */
	CU_ASSERT_EQUAL(in.fl_kill, 0);
}

static void test_memory(void)
{
	struct insn in = dec("64 48 8b 84 8b 78 56 34 12", 8);

	CU_ASSERT_EQUAL(in.cls, CLS_MEM);
	CU_ASSERT_EQUAL(in.mem.base, R_BX);
	CU_ASSERT_EQUAL(in.mem.index, R_CX);
	CU_ASSERT_EQUAL(in.mem.scale, 4);
	CU_ASSERT_EQUAL(in.mem.seg, SEG_FS);
	CU_ASSERT_EQUAL(in.mem.disp, 0x12345678);
	CU_ASSERT_EQUAL(in.mem.size, 8);
	CU_ASSERT(in.mem_read && !in.mem_write);
	in = dec("8b 45 00", 8); /* rbp: ss */
	CU_ASSERT_EQUAL(in.mem.seg, SEG_SS);
	in = dec("48 8b 05 00 10 00 00", 8);
	CU_ASSERT_EQUAL(in.mem.base, R_RIP);
	in = dec("67 8b 03", 8);
	CU_ASSERT_EQUAL(in.addrsize, 4);
	in = dec("0f 28 03", 8); /* movaps */
	CU_ASSERT_EQUAL(in.align, 16);
	in = dec("0f 10 03", 8); /* movups */
	CU_ASSERT_EQUAL(in.align, 0);
	in = dec("c5 fc 28 03", 8); /* vmovaps ymm */
	CU_ASSERT_EQUAL(in.align, 32);
	in = dec("01 03", 8);
	CU_ASSERT(in.mem_read && in.mem_write);
}

static void test_classes(void)
{
	static const struct {
		const char *hex;
		uint8_t code_size, cls, sysop;
	} c[] = {
		{"40", 4, CLS_REG, SYS_NONE}, /* inc eax */
		{"90", 8, CLS_NOP, SYS_NONE},
		{"f3 90", 8, CLS_REG, SYS_NONE}, /* pause */
		{"f3 48 a5", 8, CLS_STRING, SYS_NONE},
		{"f2 0f 10 03", 8, CLS_MEM, SYS_NONE}, /* movsd xmm is no string instruction */
		{"0f a3 03", 8, CLS_BT, SYS_NONE},
		{"0f ba 23 05", 8, CLS_MEM, SYS_NONE}, /* bt m, imm */
		{"9b", 8, CLS_REG, SYS_NONE},          /* fwait */
		{"e3 05", 8, CLS_LOOP, SYS_NONE},
		{"ff 2b", 8, CLS_SYS, SYS_FAR_JMP},
		{"ff 23", 8, CLS_JMP_IND, SYS_NONE},
		{"cb", 8, CLS_SYS, SYS_FAR_RET},
		{"0f 01 f8", 8, CLS_SYS, SYS_SWAPGS},
		{"8e d8", 8, CLS_SYS, SYS_MOV_TO_SEG},
		{"0f 20 d8", 8, CLS_SYS, SYS_MOV_FROM_CR},
		{"06", 8, CLS_SYS, SYS_UD}, /* push es is gone in 64-bit mode */
		{"06", 4, CLS_SYS, SYS_PUSH_SEG},
		{"0f 01 c1", 8, CLS_SYS, SYS_UD}, /* vmcall */
		{"f0 89 d8", 8, CLS_SYS, SYS_UD}, /* lock on registers */
	};

	for (unsigned i = 0; i < sizeof c / sizeof c[0]; i++) {
		uint8_t buf[16] = {0};
		struct insn in;

		btvm_hex(c[i].hex, buf, sizeof buf);
		CU_ASSERT_EQUAL(decode_insn(&in, buf, sizeof buf, c[i].code_size, ALL), DECODE_OK);
		if (in.cls != c[i].cls || (in.cls == CLS_SYS && in.sysop != c[i].sysop)) {
			fprintf(stderr, "%s: class %u sysop %u\n", c[i].hex, in.cls, in.sysop);
			CU_FAIL("class");
		}
	}
}

/* Spin loops give way by it. */
static void test_pause(void)
{
	struct insn in = dec("f3 90", 8);

	CU_ASSERT(in.pause);
	CU_ASSERT_EQUAL(in.cls, CLS_REG);
	in = dec("90", 8);
	CU_ASSERT(!in.pause);
	in = dec("f3 41 90", 8); /* xchg r8d, eax: the prefix means nothing */
	CU_ASSERT(!in.pause);
	CU_ASSERT_EQUAL(in.gpr_write, B(R_AX) | B(R_8));
}

static void test_short(void)
{
	uint8_t buf[16];
	struct insn in;
	size_t n = btvm_hex("64 48 8b 84 8b 78 56 34 12", buf, sizeof buf);

	for (size_t i = 0; i < n; i++)
		CU_ASSERT_EQUAL(decode_insn(&in, buf, i, 8, ALL), DECODE_SHORT);
	CU_ASSERT_EQUAL(decode_insn(&in, buf, n, 8, ALL), DECODE_OK);
	memset(buf, 0x66, sizeof buf); /* too long: #GP */
	CU_ASSERT_EQUAL(decode_insn(&in, buf, 15, 8, ALL), DECODE_OK);
	CU_ASSERT_EQUAL(in.sysop, SYS_UD);
	CU_ASSERT_EQUAL(in.imm, EXC_GP);
}

/* Bits that say nothing in 32-bit code must not name registers that only 64-bit code has. */
static void test_narrow(void)
{
	static const struct {
		const char *is, *runs;
	} t[] = {
		{"62 d1 6d 48 fe cb", "62 f1 6d 48 fe cb"},       /* vpaddd zmm1, zmm2, zmm3 with B */
		{"62 e1 6d 48 fe cb", "62 f1 6d 48 fe cb"},       /* R' */
		{"62 f1 2d 48 fe cb", "62 f1 6d 48 fe cb"},       /* vvvv above 7 */
		{"62 f1 fd 08 6e c8", "62 f1 7d 08 6e c8"},       /* vmovd xmm1, eax with W */
		{"62 f1 fd 08 7e c8", "62 f1 7d 08 7e c8"},       /* back */
		{"62 f1 fe 08 7e c8", "62 f1 fe 08 7e c8"},       /* vmovq xmm1, xmm0: W belongs to it */
		{"62 f2 fd 48 7c c8", "62 f2 7d 48 7c c8"},       /* vpbroadcastd zmm1, eax */
		{"62 f1 f6 08 2a c8", "62 f1 76 08 2a c8"},       /* vcvtsi2ss */
		{"62 f1 fe 08 78 c8", "62 f1 7e 08 78 c8"},       /* vcvttss2usi ecx, xmm0 */
		{"62 f1 fd 48 78 c8", "62 f1 fd 48 78 c8"},       /* vcvttpd2uqq zmm1, zmm0: W belongs to it */
		{"62 f3 fd 08 16 c8 01", "62 f3 7d 08 16 c8 01"}, /* vpextrd eax, xmm1, 1 */
		{"c4 c1 fb 92 c8", "c4 e1 7b 92 c8"},             /* kmovd k1, eax */
		{"c4 e1 fb 93 c1", "c4 e1 7b 93 c1"},             /* back */
	};

	for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
		struct insn in = dec(t[i].is, 4);
		uint8_t want[16];
		size_t n = btvm_hex(t[i].runs, want, sizeof want);

		CU_ASSERT_EQUAL(in.cls, CLS_REG);
		CU_ASSERT_EQUAL(n, in.len);
		CU_ASSERT(!memcmp(in.raw, want, n));
		if (memcmp(in.raw, want, n))
			fprintf(stderr, "%s\n", t[i].is);
	}
}

/* Which bytes of an operand count under which mask. */
static void test_masks(void)
{
	static const struct {
		const char *code;
		uint64_t mask, bytes;
	} t[] = {
		{"62 f1 7e 49 7f 0b", 0x8005, 0xf000000000000f0full}, /* vmovdqu32 [rbx] {k1}, zmm1 */
		{"62 f1 7f 49 6f 0b", 0x8005, 0x8005},                /* vmovdqu8 zmm1 {k1}, [rbx] */
		{"62 f1 74 59 58 13", 0x8000, 0xf},                   /* vaddps zmm2 {k1}, zmm1, [rbx] {1to16} */
		{"62 f1 74 19 58 13", 0x8000, 0},                     /* of four: bit 15 is none of them */
		{"62 f1 76 49 58 13", 2, 0},                          /* vaddss xmm2 {k1}, xmm1, [rbx] */
		{"62 f1 76 49 58 13", 1, 0xf},
		{"62 f2 7d 49 1a 0b", 0x8100, 0xf00f},         /* vbroadcastf32x4 zmm1 {k1}, [rbx] */
		{"62 f2 7d 49 8a 0b", 0x8100, 0xff},           /* vcompressps [rbx] {k1}, zmm1 */
		{"62 f2 7d 49 62 0b", 0x8000000000000100, 3},  /* vpexpandb zmm1 {k1}, [rbx] */
		{"62 f3 7d 49 19 0b 02", 0x19, 0xf00f},        /* vextractf32x4 [rbx] {k1}, zmm1, 2 */
		{"62 f2 7e 49 32 0b", 0x181, 0x81},            /* vpmovqb [rbx] {k1}, zmm1 */
		{"62 f2 7d 49 30 0b", 0x80000001, 0x80000001}, /* vpmovzxbw zmm1 {k1}, [rbx] */
		{"62 f2 75 49 50 13", 2, 0xf0},                /* vpdpbusd zmm2 {k1}, zmm1, [rbx] */
		{"62 f1 7f 49 70 0b 00", 1, ~0ull},            /* vpshuflw: all of it */
		{"62 f1 75 49 f1 13", 1, ~0ull},               /* vpsllw zmm2 {k1}, zmm1, [rbx] */
		{"62 f3 75 49 18 13 01", 1, ~0ull},            /* vinsertf32x4 zmm2 {k1}, zmm1, [rbx], 1 */
		{"62 f1 7e 48 7f 0b", 1, ~0ull},               /* no mask */
	};

	for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
		struct insn in = dec(t[i].code, 8);
		uint64_t bytes = in.k ? evex_bytes(&in, t[i].mask) : ~0ull;

		CU_ASSERT_EQUAL(in.cls, CLS_MEM);
		CU_ASSERT_EQUAL(bytes, t[i].bytes);
		CU_ASSERT_EQUAL(!in.k, !in.masked);
		if (bytes != t[i].bytes)
			fprintf(stderr, "%s: %llx\n", t[i].code, (unsigned long long)bytes);
	}
}

CU_ErrorCode suite_decode(void);
CU_ErrorCode suite_decode(void)
{
	CU_pSuite s = CU_add_suite("decode", NULL, NULL);

	CU_add_test(s, "registers", test_registers);
	CU_add_test(s, "implicit registers", test_implicit_registers);
	CU_add_test(s, "flags", test_flags);
	CU_add_test(s, "memory operands", test_memory);
	CU_add_test(s, "classes", test_classes);
	CU_add_test(s, "pause", test_pause);
	CU_add_test(s, "EVEX in 32-bit code", test_narrow);
	CU_add_test(s, "masked operands", test_masks);
	CU_add_test(s, "short and overlong bytes", test_short);
	return CU_get_error();
}
