/*
 * Fuzz target: the instruction decoder.  The first byte chooses the code size; what follows is decoded one instruction after
 * the other.
 *
 * Properties: an instruction lies within its 15 bytes and those given, its fields within its length; bytes that follow do
 * not change it; fewer bytes are too few.
 */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vcpu/bt/decode.h"
#include "vcpu/cpu/feature.h"

static void check_fields(const struct insn *in, const uint8_t *bytes, size_t len)
{
	FUZZ_CHECK(in->len >= 1 && in->len <= 15 && in->len <= len);
	for (unsigned i = 0; i < in->len; i++) /* bits ignored elsewhere are cleared, and an f3 that says nothing */
		FUZZ_CHECK(in->code_size != 8 || in->raw[i] == bytes[i] || (bytes[i] == 0xf3 && in->raw[i] == 0x3e));
	FUZZ_CHECK(in->cls <= CLS_SYS && in->sysop < SYS_COUNT);
	FUZZ_CHECK((in->cls == CLS_SYS) == (in->sysop != SYS_NONE));
	if (in->sysop == SYS_UD)
		return;
	FUZZ_CHECK(in->off_prefix_end < in->len && in->off_opcode < in->len && in->off_modrm < in->len);
	FUZZ_CHECK(!in->disp_size || in->off_disp + in->disp_size <= in->len);
	FUZZ_CHECK(!in->imm_size || in->off_imm + in->imm_size <= in->len);
	FUZZ_CHECK(in->addrsize == 2 || in->addrsize == 4 || in->addrsize == 8);
	if (in->has_mem && in->mem.base != R_NONE)
		FUZZ_CHECK(in->mem.base == R_RIP || in->mem.base < 16);
	if (in->has_mem && in->cls != CLS_GATHER && in->mem.index != R_NONE)
		FUZZ_CHECK(in->mem.index < 16);
	if (in->has_mem)
		FUZZ_CHECK(in->mem.seg < SEG_COUNT || in->mem.seg == R_NONE);
}

static void same(const struct insn *a, const struct insn *b)
{
	FUZZ_CHECK(a->len == b->len && a->cls == b->cls && a->sysop == b->sysop && a->opsize == b->opsize);
	FUZZ_CHECK(a->imm == b->imm && a->imm2 == b->imm2 && a->mem.disp == b->mem.disp);
	FUZZ_CHECK(a->gpr_read == b->gpr_read && a->gpr_write == b->gpr_write && a->gpr_kill == b->gpr_kill);
	FUZZ_CHECK(a->fl_read == b->fl_read && a->fl_write == b->fl_write && a->fl_kill == b->fl_kill);
}

/* All features of one vendor or the other, or all but a few. */
static uint64_t word(unsigned which)
{
	return (which & 1 ? ~0ull : ~FEAT(AMD)) & ~((uint64_t)(which >> 1) << (which & 0x1f));
}

static size_t one(const uint8_t *bytes, size_t len, unsigned code_size, uint64_t features)
{
	struct insn in, again;
	uint8_t padded[15];

	if (decode_insn(&in, bytes, len, code_size, features) == DECODE_SHORT) {
		FUZZ_CHECK(len < 15);
		return 0;
	}
	check_fields(&in, bytes, len);
	if (in.sysop == SYS_UD) /* may be told from the first bytes */
		return in.len;
	memset(padded, 0xf0, sizeof padded);
	memcpy(padded, bytes, in.len);
	FUZZ_CHECK(decode_insn(&again, padded, sizeof padded, code_size, features) == DECODE_OK);
	same(&in, &again);
	FUZZ_CHECK(decode_insn(&again, bytes, in.len - 1u, code_size, features) == DECODE_SHORT);
	return in.len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const unsigned size[] = {8, 4, 2, 8};
	size_t n;

	if (len > 1024)
		len = 1024;
	for (size_t at = 1; at < len; at += n) {
		n = one(data + at, len - at, size[data[0] & 3], word(data[0] >> 2));
		if (!n)
			break;
	}
	return 0;
}

/* One instruction of each encoding and map; the mutations do the rest. */
size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const uint8_t code[] = {
		0x48, 0x8b, 0x44, 0xd8, 0x10,                               /* mov rax, [rax + rbx * 8 + 16] */
		0x66, 0x81, 0x05, 1,    2,    3,    4,    5,    6,          /* add word [rip + x], imm16 */
		0xf0, 0x48, 0x0f, 0xb1, 0x0a,                               /* lock cmpxchg [rdx], rcx */
		0x0f, 0x38, 0xf0, 0x07, 0x66, 0x0f, 0x3a, 0x0f, 0xc1, 0x05, /* movbe; palignr */
		0xf3, 0xa4, 0xf2, 0xae, 0xa5,                               /* rep movsb; repne scasb; movsd */
		0xc5, 0xfc, 0x28, 0x07, 0xc4, 0xe2, 0x7d, 0x18, 0x07,       /* vmovaps; vbroadcastss */
		0xc4, 0xe2, 0x69, 0x92, 0x04, 0x88,                         /* vgatherdps */
		0x62, 0xf1, 0x7c, 0x48, 0x28, 0x00,                         /* EVEX */
		0xd9, 0xe8, 0xdd, 0x1c, 0x24, 0x9b, 0xd9, 0x3c, 0x24,       /* x87 */
		0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0f, 0x01, 0x38,       /* mov cr; invlpg */
		0x0f, 0x01, 0xf8, 0x48, 0xcf, 0x0f, 0x05, 0x0f, 0x07,       /* swapgs; iretq; syscall; sysret */
		0xe8, 0,    1,    0,    0,    0x0f, 0x84, 1,    0,    0,    0,    0xeb, 0xfe, 0xc3, /* call; jz; jmp; ret */
		0xff, 0x25, 0,    0,    0,    0,    0xff, 0xe0, 0xe2, 0xf0, 0xe3, 0xf0, /* jmp [rip]; jmp rax; loop; jrcxz */
		0xea, 1,    2,    3,    4,    5,    6,    0x9a, 1,    2,    3,    4,    5,    6, /* far jmp and call, 32-bit */
		0xe4, 0x60, 0xef, 0x6c, 0xf3, 0x6e, 0xcd, 0x80, 0xcc, /* in; out; ins; rep outs; int */
		0x48, 0xb8, 1,    2,    3,    4,    5,    6,    7,    8,    0xa1, 1,    2,    3,    4,    5,    6,
		7,    8,    0x0f, 0xae, 0x00, 0x0f, 0xc7, 0x0f, 0x0f, 0x0b, 0x2e, 0x67, 0x66, 0x90, 0xc8, 1,    0,
		2,    0x8e, 0xd8, 0x0f, 0xb2, 0x20, 0x0f, 0x00, 0xd8, 0x0f, 0x30, 0x0f, 0xa2, 0x0f, 0x31, 0xf4,
	};

	if (i >= 3)
		return 0;
	buf[0] = (uint8_t)i;
	memcpy(buf + 1, code, sizeof code);
	return 1 + sizeof code;
}
