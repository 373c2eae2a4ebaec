/*
 * Every emitter's bytes, read back by the decoder library.
 * Invariant: what is decoded names the operands that were asked for, for every register.
 */
#include <CUnit/CUnit.h>
#include <Zydis/Zydis.h>
#include <string.h>

#include "btvm.h"
#include "vcpu/bt/decode.h"
#include "vcpu/bt/emit.h"

static uint8_t buf[64];

static struct emit start(void)
{
	memset(buf, 0xcc, sizeof buf);
	return (struct emit){buf, buf, buf + sizeof buf, false, SEG_PREFIX_GS, 0};
}

struct back {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

/* The one instruction in @c; its length is all that was emitted. */
static struct back read_back(const struct emit *c)
{
	struct back b;
	ZydisDecoder d;

	ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	CU_ASSERT_FATAL(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, buf, sizeof buf, &b.z, b.op)));
	CU_ASSERT_EQUAL(b.z.length, emit_off(c));
	CU_ASSERT(!c->overflow);
	return b;
}

static int reg_of(ZydisRegister r)
{
	return r == ZYDIS_REGISTER_NONE ? R_NONE : ZydisRegisterGetId(r);
}

static bool mem_is(const ZydisDecodedOperand *o, struct hmem m)
{
	return o->type == ZYDIS_OPERAND_TYPE_MEMORY && reg_of(o->mem.base) == m.base &&
	       reg_of(o->mem.index) == m.index && (m.index == R_NONE || o->mem.scale == m.scale) &&
	       o->mem.disp.value == m.disp && (o->mem.segment == ZYDIS_REGISTER_GS) == m.gs;
}

static void check_mem(struct hmem m)
{
	for (uint8_t r = 0; r < 16; r++) {
		struct emit c = start();
		struct back b;

		emit_load(&c, r, m);
		b = read_back(&c);
		CU_ASSERT_EQUAL(b.z.mnemonic, ZYDIS_MNEMONIC_MOV);
		CU_ASSERT_EQUAL(b.z.operand_width, 64);
		CU_ASSERT_EQUAL(reg_of(b.op[0].reg.value), r);
		CU_ASSERT(mem_is(&b.op[1], m));
		c = start();
		emit_lea(&c, 0, r, (struct hmem){m.base, m.index, m.scale, 0, m.disp});
		b = read_back(&c);
		CU_ASSERT_EQUAL(b.z.mnemonic, ZYDIS_MNEMONIC_LEA);
		CU_ASSERT_EQUAL(b.z.operand_width, 32);
	}
}

static void test_operands(void)
{
	static const int32_t disps[] = {0, 8, -8, 127, 128, -128, -129, 0x12345678};

	for (unsigned d = 0; d < sizeof disps / sizeof disps[0]; d++)
		for (uint8_t base = 0; base < 16; base++) {
			check_mem(hm_base(base, disps[d]));
			for (uint8_t index = 0; index < 16; index++)
				if (index != R_SP)
					check_mem(hm_bi(base, index, (uint8_t)(1u << (index & 3)), disps[d]));
		}
	for (uint8_t index = 0; index < 16; index++)
		if (index != R_SP)
			check_mem(hm_gs_index(0x1240, index, 8));
	check_mem(hm_gs(24));
	check_mem(hm_gs(0x12340));
}

static void test_immediates(void)
{
	static const uint64_t v[] = {0,           1,     0x7fffffff,  0x80000000, 0xffffffff,
				     0x100000000, ~0ull, ~0ull << 31, 1ull << 63};

	for (unsigned i = 0; i < sizeof v / sizeof v[0]; i++)
		for (uint8_t r = 0; r < 16; r++) {
			struct emit c = start();
			struct back b;
			uint64_t got;

			emit_mov_imm(&c, r, v[i]);
			b = read_back(&c);
			CU_ASSERT_EQUAL(reg_of(b.op[0].reg.value), r);
			got = b.z.mnemonic == ZYDIS_MNEMONIC_XOR ? 0 : b.op[1].imm.value.u;
			if (b.z.operand_width == 32)
				got = (uint32_t)got;
			CU_ASSERT_EQUAL(got, v[i]);
		}
}

static void test_arithmetic(void)
{
	static const struct {
		uint8_t ext;
		ZydisMnemonic m;
	} alu[] = {{ALU_ADD, ZYDIS_MNEMONIC_ADD}, {ALU_OR, ZYDIS_MNEMONIC_OR},   {ALU_AND, ZYDIS_MNEMONIC_AND},
		   {ALU_SUB, ZYDIS_MNEMONIC_SUB}, {ALU_XOR, ZYDIS_MNEMONIC_XOR}, {ALU_CMP, ZYDIS_MNEMONIC_CMP}};

	for (unsigned i = 0; i < sizeof alu / sizeof alu[0]; i++)
		for (uint8_t r = 0; r < 16; r++)
			for (int32_t imm = -4096; imm <= 4096; imm += 4096 + 5) {
				struct emit c = start();
				struct back b;

				emit_alu_imm(&c, 1, alu[i].ext, r, imm);
				b = read_back(&c);
				CU_ASSERT_EQUAL(b.z.mnemonic, alu[i].m);
				CU_ASSERT_EQUAL(reg_of(b.op[0].reg.value), r);
				CU_ASSERT_EQUAL(b.op[1].imm.value.s, imm);
			}
	for (uint8_t r = 0; r < 16; r++) {
		struct emit c = start();
		struct back b;

		emit_shift_imm(&c, 1, SH_SAR, r, 6);
		b = read_back(&c);
		CU_ASSERT_EQUAL(b.z.mnemonic, ZYDIS_MNEMONIC_SAR);
		CU_ASSERT_EQUAL(b.op[1].imm.value.u, 6);
		c = start();
		emit_pext(&c, r, 15 - r, hm_gs(0x88));
		b = read_back(&c);
		CU_ASSERT_EQUAL(b.z.mnemonic, ZYDIS_MNEMONIC_PEXT);
		CU_ASSERT_EQUAL(reg_of(b.op[0].reg.value), r);
		CU_ASSERT_EQUAL(reg_of(b.op[1].reg.value), 15 - r);
		CU_ASSERT(mem_is(&b.op[2], hm_gs(0x88)));
	}
}

static void test_jumps(void)
{
	struct emit c = start();
	uint8_t *rel = emit_jcc(&c, CC_NE);
	struct back b;
	uint64_t to;

	emit_patch(rel, buf + 40);
	b = read_back(&c);
	CU_ASSERT_EQUAL(b.z.mnemonic, ZYDIS_MNEMONIC_JNZ);
	ZydisCalcAbsoluteAddress(&b.z, &b.op[0], 0x1000, &to);
	CU_ASSERT_EQUAL(to, 0x1000 + 40);
	c = start();
	emit_jmp_to(&c, buf + 50);
	b = read_back(&c);
	ZydisCalcAbsoluteAddress(&b.z, &b.op[0], 0x1000, &to);
	CU_ASSERT_EQUAL(to, 0x1000 + 50);
	c = start();
	emit_jmp_mem(&c, hm_gs(0x12340));
	b = read_back(&c);
	CU_ASSERT_EQUAL(b.z.mnemonic, ZYDIS_MNEMONIC_JMP);
	CU_ASSERT(mem_is(&b.op[0], hm_gs(0x12340)));
}

/* A guest instruction moved onto every base: everything but its operand stays. */
static void check_guest(const char *hex)
{
	struct insn in, out;
	uint8_t raw[16] = {0};

	btvm_hex(hex, raw, sizeof raw);
	CU_ASSERT_EQUAL_FATAL(decode_insn(&in, raw, sizeof raw, 8, ~0ull), DECODE_OK);
	for (uint8_t base = 0; base < (emit_guest_low_only(&in) ? 8 : 16); base++) {
		struct emit c = start();

		emit_guest_mem(&c, &in, hm_bi(base, R_SI, 1, -129), R_NONE);
		CU_ASSERT_EQUAL(decode_insn(&out, buf, 15, 8, ~0ull), DECODE_OK);
		CU_ASSERT_EQUAL(out.len, emit_off(&c));
		CU_ASSERT_EQUAL(out.mnemonic, in.mnemonic);
		CU_ASSERT_EQUAL(out.reg, in.reg);
		CU_ASSERT_EQUAL(out.imm, in.imm);
		CU_ASSERT_EQUAL(out.opsize, in.opsize);
		CU_ASSERT_EQUAL(out.mem.size, in.mem.size);
		CU_ASSERT_EQUAL(out.lock, in.lock);
		CU_ASSERT_EQUAL(out.mem.base, base);
		CU_ASSERT_EQUAL(out.mem.index, R_SI);
		CU_ASSERT_EQUAL(out.mem.disp, -129);
	}
}

static void test_guest(void)
{
	static const char *const list[] = {
		"48 8b 43 10",          "64 44 8b 3b",       "67 66 44 89 0b", "88 23",       "f0 48 0f c1 03",
		"c7 43 04 78 56 34 12", "66 c7 03 34 12",    "66 0f 6f 03",    "f2 0f 10 03", "c5 fd 6f 03",
		"c4 e2 7d 18 03",       "c4 c3 7d 19 03 01", "0f ba 23 05",    "d9 03",       "48 8b 05 00 10 00 00",
		"80 3d 00 10 00 00 05", "66 0f 3a 0f 03 05", "0f c7 0b",
	};

	for (unsigned i = 0; i < sizeof list / sizeof list[0]; i++)
		check_guest(list[i]);
}

static void test_overflow(void)
{
	struct emit c = start();

	c.end = buf + 4;
	emit_mov_imm(&c, R_AX, 1ull << 40);
	CU_ASSERT(c.overflow);
	CU_ASSERT(c.p <= c.end);
	CU_ASSERT_EQUAL(buf[4], 0xcc);
}

CU_ErrorCode suite_emit(void);
CU_ErrorCode suite_emit(void)
{
	CU_pSuite s = CU_add_suite("emit", NULL, NULL);

	CU_add_test(s, "memory operands", test_operands);
	CU_add_test(s, "immediates", test_immediates);
	CU_add_test(s, "arithmetic", test_arithmetic);
	CU_add_test(s, "jumps", test_jumps);
	CU_add_test(s, "guest instructions onto other operands", test_guest);
	CU_add_test(s, "overflow", test_overflow);
	return CU_get_error();
}
