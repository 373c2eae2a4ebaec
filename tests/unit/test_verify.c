/*
 * What translated blocks are made of, for the golden lists' instructions and for any bytes, in every mode that is translated;
 * and that the verifier sees what it is there for.
 * Invariant: a test that breaks a block's code puts it back.
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "btvm.h"
#include "tests/fuzz/verify.h"
#include "vcpu/bt/key.h"
#include "vcpu/mmu/mmu.h"

#define AT             BTVM_CODE
#define VOFF_WADD_USER ((uint32_t)(offsetof(struct vcpu, tlb) + offsetof(struct soft_tlb, wadd)))
#define VOFF_RADD_USER ((uint32_t)(offsetof(struct vcpu, tlb) + offsetof(struct soft_tlb, radd)))

static const char *verified(struct vcpu *v, uint32_t b)
{
	static char why[512];

	return verify_block(v, &v->bt->blocks[b], why, sizeof why);
}

static void expect_good(struct vcpu *v, uint32_t mode, const char *hex)
{
	uint32_t b = btvm_translate(v, AT + 0x100, mode, hex);
	const char *bad;

	CU_ASSERT_NOT_EQUAL_FATAL(b, BT_NONE);
	bad = verified(v, b);
	if (bad)
		fprintf(stderr, "%s: %s\n", hex, bad);
	CU_ASSERT_PTR_NULL(bad);
}

/* A REX in front of another prefix means nothing; the one that the rewritten operand needs has to. */
static void test_idle_rex(void)
{
	static const struct {
		const char *hex;
		unsigned len;
	} store[] = {
		{"40 66 89 03 0f 0b", 2}, /* rex; mov [rbx], ax */
		{"48 48 89 03 0f 0b", 8},    {"48 66 66 48 89 03 0f 0b", 8},
		{"4f 65 66 89 03 0f 0b", 2}, /* rex; mov gs:[rbx], ax */
		{"45 67 64 89 03 0f 0b", 4}, {"47 2e 40 3e 89 03 0f 0b", 4},
	};

	for (unsigned i = 0; i < sizeof store / sizeof store[0]; i++) {
		struct vcpu *v = btvm_reset();
		uint64_t zero = 0, was = 0x8877665544332211, now = 0;

		expect_good(v, v->mode, store[i].hex);
		btvm_put(v, BTVM_DATA, &zero, 8);
		for (unsigned r = 0; r < 16; r++)
			v->regs[r] = 0x1000;
		v->regs[R_BX] = BTVM_DATA;
		v->regs[R_AX] = was;
		v->rip = AT + 0x100;
		CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
		gmem_read(v->vm->mem, BTVM_DATA, &now, 8);
		CU_ASSERT_EQUAL(now, store[i].len == 8 ? was : was & ((1ull << 8 * store[i].len) - 1));
	}
	expect_good(btvm_reset(), MODE_USER, "66 41 67 0f f7 c1"); /* maskmovdqu xmm0, xmm1 */
}

/* 32-bit code has no registers above 7: what names them in 64-bit code is ignored, or never copied. */
static void test_high_registers(void)
{
	static const char *const code[] = {
		"c4 c1 79 7e d2 0f 0b",    /* vmovd edx, xmm2 with B: r10d */
		"c4 c1 0f 2a da 0f 0b",    /* vcvtsi2sd xmm3, xmm1, edx; vvvv's top bit */
		"c4 c2 60 f2 c2 0f 0b",    /* andn eax, ebx, edx */
		"c4 c1 79 6f 03 0f 0b",    /* vmovdqa xmm0, [ebx] */
		"c4 c3 71 4b c2 b0 0f 0b", /* vblendvpd xmm0, xmm1, xmm2, xmm3 with bit 7 of is4 */
	};

	for (unsigned i = 0; i < sizeof code / sizeof code[0]; i++) {
		expect_good(btvm_reset(), MODE_USER | MODE_CS32, code[i]);
		expect_good(btvm_reset(), MODE_USER | MODE_CS16 | MODE_SLOWMEM | MODE_SEGS, code[i]);
	}
}

/* A generator of the test's own: the same bytes each time. */
static uint32_t rnd(void)
{
	static uint64_t x = 0x9e3779b97f4a7c15ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 32);
}

/* Instructions as they may come: prefixes in any order and number, then anything. */
static void random_code(uint8_t *buf, size_t len)
{
	static const uint8_t prefix[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66,
					 0x67, 0x40, 0x41, 0x44, 0x48, 0x4f, 0x0f, 0x0f, 0xc4, 0xc5, 0x62, 0x62};

	for (size_t i = 0; i < len; i++)
		buf[i] = rnd() % 3 ? (uint8_t)rnd() : prefix[rnd() % sizeof prefix];
}

/* One of the words that mode_is_translated() accepts, each bit as likely as not. */
static uint32_t random_mode(void)
{
	for (;;) {
		uint32_t m = rnd() & (MODE_NOAVX512 * 2 - 1);

		if (rnd() & 1)
			m &= ~(uint32_t)(MODE_STEP | MODE_BOUNCE | MODE_BOUNCE_STACK | MODE_NOFPU | MODE_NOSSE |
					 MODE_NOAVX | MODE_NOAVX512);
		if (rnd() & 1)
			m &= ~(uint32_t)MODE_SLOWMEM;
		if (mode_is_translated(m))
			return m;
	}
}

/* Blocks of the @len bytes at AT + @off, one after the other; how many, or 0 after telling which is bad. */
static unsigned all_blocks(struct vcpu *v, uint32_t mode, uint32_t off, uint32_t len)
{
	uint32_t ip = AT;
	unsigned n = 0;

	if (mode & MODE_CS16) /* in the middle of its 64 KiB or at their end */
		ip = rnd() & 1 ? 0x3000 : 0xf000;
	for (uint32_t at = off, b; at < off + len; at += v->bt->blocks[b].len, n++) {
		const char *bad;

		v->rip = mode & MODE_CS16 ? (uint16_t)(ip + at) : ip + at;
		v->ip_page = v->rip & ~GUEST_PAGE_MASK;
		b = btvm_translate_at(v, AT + at, mode);
		if (b == BT_NONE) { /* full */
			bt_flush(v);
			b = btvm_translate_at(v, AT + at, mode);
		}
		CU_ASSERT_NOT_EQUAL_FATAL(b, BT_NONE);
		bad = verified(v, b);
		if (bad) {
			fprintf(stderr, "%s\n", bad);
			CU_FAIL("code that may not run");
			return 0;
		}
	}
	return n;
}

static void test_any_bytes(void)
{
	struct vcpu *v = btvm_reset();
	unsigned blocks = 0, seen = 0;

	for (unsigned i = 0; i < 6000; i++) {
		uint32_t mode = random_mode(), off = rnd() % 8 ? rnd() & 0xfff : 0xff0 + rnd() % 16, n;
		uint8_t code[40];

		random_code(code, sizeof code);
		btvm_put(v, AT + off, code, sizeof code);
		n = all_blocks(v, mode, off, sizeof code);
		if (!n)
			return;
		blocks += n;
		seen |= 1u << (mode_code_size(mode) / 2 * 2 + !!(mode & MODE_REAL));
	}
	CU_ASSERT_EQUAL(seen, 1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 8); /* 16 and 32 bits, real and not; 64 */
	CU_ASSERT(blocks > 20000);
}

/* What a compiler makes: this program's C library, as what it is and as what it is not. */
static void test_real_code(void)
{
	static const uint32_t modes[] = {MODE_USER,
					 MODE_CPL0 | MODE_SMAP | TLB_KERN << MODE_TLB_SHIFT,
					 MODE_USER | MODE_NOCOMBINE,
					 MODE_USER | MODE_SLOWMEM,
					 MODE_USER | MODE_CS32,
					 MODE_USER | MODE_CS32 | MODE_SLOWMEM | MODE_SS16,
					 MODE_USER | MODE_CS16 | MODE_SLOWMEM,
					 MODE_CPL0 | MODE_CS16 | MODE_SLOWMEM | MODE_SS16 | MODE_REAL |
						 TLB_KERN_AC << MODE_TLB_SHIFT};
	const uint8_t *text = (const uint8_t *)(uintptr_t)&qsort;

	for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
		struct vcpu *v = btvm_reset();

		btvm_put(v, AT, text, 0x4000);
		if (!all_blocks(v, modes[i], 0, 0x3ff0))
			return;
	}
}

/* Breaks the code of a block at @off from its start, asks, puts it back.  @foreign: whatever the guest's code says. */
static void expect_bad(struct vcpu *v, uint32_t b, uint32_t off, const char *hex, bool foreign)
{
	const char *why;
	uint8_t is[32], was[32], *at = v->bt->rw + v->bt->blocks[b].host_start + off;
	size_t n = btvm_hex(hex, is, sizeof is);

	memcpy(was, at, n);
	memcpy(at, is, n);
	why = verified(v, b);
	if (!why || (foreign && strstr(why, "guest instruction"))) {
		fprintf(stderr, "not seen: %s (%s)\n", hex, why ? why : "nothing said");
		CU_FAIL("a fault in the code that is not seen");
	}
	memcpy(at, was, n);
}

/* Where the first bytes @hex are, from the block's start. */
static uint32_t find(struct vcpu *v, uint32_t b, const char *hex)
{
	const struct block *k = &v->bt->blocks[b];
	uint8_t is[16];
	size_t n = btvm_hex(hex, is, sizeof is);

	for (uint32_t off = k->host_start; off + n <= k->host_end; off++)
		if (!memcmp(v->bt->rw + off, is, n))
			return off - k->host_start;
	CU_FAIL_FATAL("no such bytes");
	return 0;
}

/* Ten times add rax, imm32; what stands there instead has its length, and nothing else is wrong with it. */
static void test_bad_instructions(void)
{
	static const char *const bad[] = {
		"0f 05 0f 1f 40 00", /* syscall */
		"cd 80 0f 1f 40 00", /* int 80h */
		"f4 90 66 0f 1f 00", /* hlt */
		"e4 70 0f 1f 40 00", /* in */
		"0f 30 0f 1f 40 00", /* wrmsr */
		"f3 0f ae d8 66 90", /* wrgsbase eax */
		"8e e8 0f 1f 40 00", /* mov gs, eax */
		"9d 90 66 0f 1f 00", /* popf */
		"50 90 66 0f 1f 00", /* push rax */
		"c3 90 66 0f 1f 00", /* ret */
		"48 cf 0f 1f 40 00", /* iret */
		"ff d0 0f 1f 40 00", /* call rax */
		"ff e0 0f 1f 40 00", /* jmp rax */
		"e8 00 00 00 00 90", /* call */
		"e9 00 00 00 01 90", /* jmp far away */
		"eb 03 0f 1f 40 00", /* into an instruction */
		"48 8b 03 0f 1f 00", /* mov rax, [rbx] */
		"67 8b 03 0f 1f 00", /* mov eax, [ebx] */
		"64 48 8b 03 66 90", /* mov rax, fs:[rbx] */
		"65 48 8b 03 66 90", /* mov rax, gs:[rbx] */
		"48 a5 0f 1f 40 00", /* movsq */
		"d7 90 66 0f 1f 00", /* xlat */
		"0f ae 2b 0f 1f 00", /* xrstor [rbx] */
		"0f 01 d0 0f 1f 00", /* xgetbv */
		"0f a2 0f 1f 40 00", /* cpuid */
		"0f 0b 0f 1f 40 00", /* ud2 */
		"0f c7 f8 66 0f 05", /* out of step: ends within the next one */
		"62 f2 7d 48 c8 c0", /* vexp2ps zmm0, zmm0 */
		"0f 20 c0 0f 1f 00", /* mov rax, cr0 */
	};
	struct vcpu *v = btvm_reset();
	uint32_t b = btvm_translate(v, AT, MODE_USER, "48 05 78 56 34 12 48 05 78 56 34 12 0f 0b"), off;

	CU_ASSERT_NOT_EQUAL_FATAL(b, BT_NONE);
	CU_ASSERT_PTR_NULL(verified(v, b));
	off = find(v, b, "48 05 78 56 34 12");
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
		expect_bad(v, b, off, bad[i], true);
	expect_bad(v, b, off, "05 78 56 34 12 90", false); /* another size */
	expect_bad(v, b, off, "48 05 79 56 34 12", false); /* another immediate */
	expect_bad(v, b, off, "48 2d 78 56 34 12", false); /* another operation */
	expect_bad(v, b, off, "90 90 90 90 90 90", false);
	CU_ASSERT_PTR_NULL(verified(v, b));
}

/* Checks of operands that are left out, of the wrong table, or not for writing. */
static void test_bad_checks(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t b = btvm_translate(v, AT, MODE_USER, "89 03 0f 0b"), jne, operand; /* mov [rbx], eax */
	uint32_t wadd = VOFF_WADD_USER, radd = VOFF_RADD_USER;
	uint8_t *p;

	CU_ASSERT_NOT_EQUAL_FATAL(b, BT_NONE);
	CU_ASSERT_PTR_NULL(verified(v, b));
	jne = find(v, b, "0f 85");
	expect_bad(v, b, jne, "0f 1f 44 00 00 90", true); /* the jump that takes what fails away */
	expect_bad(v, b, jne, "0f 84", true);
	operand = find(v, b, "42 89 04 13"); /* mov [rbx+r10], eax */
	expect_bad(v, b, operand, "42 89 04 1b", true);
	expect_bad(v, b, operand, "42 89 04 53", true);
	expect_bad(v, b, operand, "89 04 13 90", true);
	for (p = v->bt->rw + v->bt->blocks[b].host_start; memcmp(p, &wadd, 4); p++)
		;
	memcpy(p, &radd, 4); /* the addend for reading */
	CU_ASSERT_PTR_NOT_NULL(verified(v, b));
	wadd += sizeof(struct soft_tlb);
	memcpy(p, &wadd, 4); /* the kernel's */
	CU_ASSERT_PTR_NOT_NULL(verified(v, b));
}

/* rep movsd in place: what bounds it, and what makes its two addresses. */
static void test_bad_strings(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t b = btvm_translate(v, AT, MODE_USER, "f3 a5 0f 0b"), count;

	CU_ASSERT_NOT_EQUAL_FATAL(b, BT_NONE);
	CU_ASSERT_PTR_NULL(verified(v, b));
	count = find(v, b, "48 81 f9 00 04 00 00");                       /* cmp rcx, 1024 */
	expect_bad(v, b, count, "48 81 f9 01 04 00 00", true);            /* an element too many */
	expect_bad(v, b, count, "48 81 fa 00 04 00 00", true);            /* of rdx */
	expect_bad(v, b, count, "81 f9 00 04 00 00 90", true);            /* of ecx */
	expect_bad(v, b, count + 7, "0f 86", true);                       /* the jump the other way */
	expect_bad(v, b, find(v, b, "f3 a5"), "f3 a7", true);             /* cmpsd */
	expect_bad(v, b, find(v, b, "4a 8d 34 1e"), "90 90 90 90", true); /* lea rsi, [rsi+r11]: the guest's address */
	expect_bad(v, b, find(v, b, "4a 8d 3c 1f"), "90 90 90 90", true); /* lea rdi, [rdi+r11] */
	expect_bad(v, b, find(v, b, "4a 8d 3c 1f"), "4a 8d 3c 5f", true); /* scaled */
	CU_ASSERT_PTR_NULL(verified(v, b));
}

CU_ErrorCode suite_verify(void);
CU_ErrorCode suite_verify(void)
{
	CU_pSuite s = CU_add_suite("verify", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "REX before other prefixes", test_idle_rex) ||
	    !CU_add_test(s, "registers that 32-bit code lacks", test_high_registers) ||
	    !CU_add_test(s, "any bytes in any mode", test_any_bytes) ||
	    !CU_add_test(s, "compiled code, and read in other sizes", test_real_code) ||
	    !CU_add_test(s, "instructions that may not run are seen", test_bad_instructions) ||
	    !CU_add_test(s, "accesses without their check are seen", test_bad_checks) ||
	    !CU_add_test(s, "strings without their check are seen", test_bad_strings))
		return CU_get_error();
	return CUE_SUCCESS;
}
