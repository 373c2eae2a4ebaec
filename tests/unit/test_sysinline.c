/*
 * System instructions that are translated in place: run at CPL 0, they do what their handlers in cpu/ do.
 * Invariant under test: arithmetic flags and registers that are no operand come through.
 */
#include <CUnit/CUnit.h>

#include "btvm.h"
#include "vcpu/mmu/mmu.h"

#define AT (BTVM_CODE + 0x100)

static struct vcpu *kernel(void)
{
	struct vcpu *v = btvm_reset();

	btvm_mode(v, 0, 8);
	for (unsigned r = 0; r < 16; r++)
		if (r != R_SP)
			v->regs[r] = 0x1111111111111111ull * r;
	return v;
}

/* Runs @hex; it is to end with @vector at byte @end of it. */
static void run(struct vcpu *v, const char *hex, unsigned vector, unsigned end)
{
	uint8_t code[64];

	btvm_put(v, AT, code, btvm_hex(hex, code, sizeof code));
	v->rip = AT;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->exc_vector, vector);
	CU_ASSERT_EQUAL(v->rip, AT + end);
}

static void test_swapgs(void)
{
	struct vcpu *v = kernel();

	v->seg[SEG_GS].base = 0x1000;
	v->kernel_gs_base = 0xffff800000001000;
	vcpu_update_mode(v);
	run(v, "f9 0f 01 f8 0f 92 c3 0f 0b", EXC_UD, 7); /* stc; swapgs; setc bl; ud2 */
	CU_ASSERT_EQUAL(v->seg[SEG_GS].base, 0xffff800000001000);
	CU_ASSERT_EQUAL(v->seg_base[SEG_GS], 0xffff800000001000);
	CU_ASSERT_EQUAL(v->kernel_gs_base, 0x1000);
	CU_ASSERT_EQUAL(v->regs[R_BX], 0x3333333333333301);
	CU_ASSERT_EQUAL(v->regs[R_CX], 0x1111111111111111);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0);
	*btvm_pte(0x1000) = 0;
	run(v, "0f 01 f8 65 8b 40 08 0f 0b", EXC_PF, 3); /* mov eax, gs:[rax+8] through the new base */
	CU_ASSERT_EQUAL(v->exc_cr2, 0x1008);
	CU_ASSERT_EQUAL(v->seg_base[SEG_GS], 0x1000);
}

static void test_interrupt_flag(void)
{
	struct vcpu *v = kernel();

	run(v, "f9 fb 90 0f 92 c3 0f 0b", EXC_UD, 6); /* stc; sti; nop; setc bl; ud2 */
	CU_ASSERT_EQUAL(v->iflag, 1);
	CU_ASSERT(vcpu_rflags(v) & RFL_IF);
	CU_ASSERT_EQUAL(v->regs[R_BX] & 0xff, 1);
	run(v, "f9 fa 0f 92 c1 0f 0b", EXC_UD, 5);
	CU_ASSERT_EQUAL(v->iflag, 0);
	CU_ASSERT(!(vcpu_rflags(v) & RFL_IF));
	CU_ASSERT_EQUAL(v->regs[R_CX] & 0xff, 1);
	run(v, "fb fa 0f 0b", EXC_UD, 2);
	CU_ASSERT_EQUAL(v->iflag, 0);
}

/* stac lets the supervisor at a user's page, clac takes it back; both in the middle of code. */
static void test_smap(void)
{
	struct vcpu *v = kernel();
	uint32_t val = 0x12345678;

	if (!(v->cr4 & CR4_SMAP))
		return;
	btvm_put(v, BTVM_DATA, &val, 4);
	v->regs[R_SI] = BTVM_DATA;
	run(v, "8b 06 0f 0b", EXC_PF, 0);
	CU_ASSERT_EQUAL(v->exc_cr2, BTVM_DATA);
	run(v, "f9 0f 01 cb 8b 06 0f 92 c3 0f 0b", EXC_UD, 9); /* stc; stac; mov eax, [rsi]; setc bl; ud2 */
	CU_ASSERT_EQUAL(v->regs[R_AX], val);
	CU_ASSERT_EQUAL(v->regs[R_BX] & 0xff, 1);
	CU_ASSERT(vcpu_rflags(v) & RFL_AC);
	CU_ASSERT_EQUAL(mode_tlb(v->mode), TLB_KERN_AC);
	run(v, "8b 06 0f 01 ca 8b 0e 0f 0b", EXC_PF, 5); /* mov eax, [rsi]; clac; mov ecx, [rsi] */
	CU_ASSERT(!(vcpu_rflags(v) & RFL_AC));
	CU_ASSERT_EQUAL(mode_tlb(v->mode), TLB_KERN);
	CU_ASSERT_EQUAL(v->exc_error, 1);
	for (int i = 0; i < 3; i++) /* again over the links that were made */
		run(v, "0f 01 cb 8b 06 0f 01 ca 0f 01 cb 8b 0e 0f 01 ca 8b 16 0f 0b", EXC_PF, 16);
}

static void test_rdtsc(void)
{
	struct vcpu *v = kernel();
	uint64_t t0, t1;

	v->tsc_aux = 0x77;
	v->tsc_offset = 0x123456789abcdef;
	t0 = __builtin_ia32_rdtsc() + v->tsc_offset;
	run(v, "f9 0f 31 0f 92 c3 0f 0b", EXC_UD, 6);
	t1 = __builtin_ia32_rdtsc() + v->tsc_offset;
	CU_ASSERT_EQUAL(v->regs[R_AX] >> 32, 0);
	CU_ASSERT_EQUAL(v->regs[R_DX] >> 32, 0);
	CU_ASSERT((v->regs[R_DX] << 32 | v->regs[R_AX]) >= t0 && (v->regs[R_DX] << 32 | v->regs[R_AX]) <= t1);
	CU_ASSERT_EQUAL(v->regs[R_BX] & 0xff, 1);
	run(v, "0f 01 f9 0f 0b", EXC_UD, 3); /* rdtscp */
	CU_ASSERT_EQUAL(v->regs[R_CX], 0x77);
	CU_ASSERT((v->regs[R_DX] << 32 | v->regs[R_AX]) >= t1);
	v->cr4 |= CR4_TSD; /* not for users then */
	btvm_mode(v, 3, 8);
	run(v, "90 0f 31 0f 0b", EXC_GP, 1);
}

/* At CPL 3 they fault, alone and behind other code. */
static void test_user(void)
{
	static const char *const hex[] = {"90 fa", "90 fb", "90 0f 01 f8", "90 0f 01 cb", "90 0f 01 ca"};
	static const uint8_t vector[] = {EXC_GP, EXC_GP, EXC_GP, EXC_UD, EXC_UD};
	struct vcpu *v = btvm_reset();

	for (unsigned i = 0; i < sizeof hex / sizeof hex[0]; i++)
		run(v, hex[i], vector[i], 1);
}

CU_ErrorCode suite_sysinline(void);
CU_ErrorCode suite_sysinline(void)
{
	CU_pSuite s = CU_add_suite("sysinline", NULL, NULL);

	CU_add_test(s, "swapgs", test_swapgs);
	CU_add_test(s, "cli, sti", test_interrupt_flag);
	CU_add_test(s, "stac, clac", test_smap);
	CU_add_test(s, "rdtsc, rdtscp", test_rdtsc);
	CU_add_test(s, "at CPL 3", test_user);
	return CU_get_error();
}
