/*
 * What translated blocks are made of, for the golden lists' instructions and for any bytes, in every mode that is translated;
 * and that the verifier sees what it is there for.
 * Invariant: a test that breaks a block's code puts it back.
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <string.h>

#include "btvm.h"
#include "tests/fuzz/verify.h"
#include "vcpu/bt/key.h"
#include "vcpu/mmu/mmu.h"

#define AT BTVM_CODE

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

CU_ErrorCode suite_verify(void);
CU_ErrorCode suite_verify(void)
{
	CU_pSuite s = CU_add_suite("verify", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "REX before other prefixes", test_idle_rex))
		return CU_get_error();
	return CUE_SUCCESS;
}
