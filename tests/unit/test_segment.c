/*
 * Segment register loads and far transfers.
 */
#include <CUnit/Basic.h>

#include "tests/unit/machine.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/mmu/mmu.h"

/* What a call raised: vector << 16 | error code; 0 when it succeeded. */
#define RAISED(v, call) ((v)->exc_pending = 0, (call) ? (v)->exc_vector << 16 | (v)->exc_error : 0u)
#define E(vector, err)  ((unsigned)(vector) << 16 | (err))

static void test_data(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_DS, SEL_UDATA)), 0);
	CU_ASSERT_EQUAL(v->seg[SEG_DS].limit, 0xffffffff);
	CU_ASSERT_EQUAL(ram_get64(v, MACH_GDT + (SEL_UDATA & ~7u)) >> 40 & 1, 1); /* accessed */
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_ES, 0)), 0);
	CU_ASSERT_TRUE(v->seg[SEG_ES].attr & SEG_A_NULL);
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_ES, SEL_NP_DATA)), E(EXC_NP, SEL_NP_DATA));
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_ES, SEL_XONLY)), E(EXC_GP, SEL_XONLY));
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_ES, 0x1000)), E(EXC_GP, 0x1000));
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_ES, SEL_TSS)), E(EXC_GP, SEL_TSS));
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_ES, 0x0c)), E(EXC_GP, 0x0c)); /* no LDT */
	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_FS, SEL_KDATA)), E(EXC_GP, SEL_KDATA));
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_FS, SEL_CONF64 | 3)), 0); /* conforming code is for all */
}

static void test_stack_segment(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_SS, SEL_KDATA)), 0);
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_SS, 0)), 0); /* null is fine in 64-bit ring 0 */
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_SS, SEL_UDATA)), E(EXC_GP, SEL_UDATA & ~3));
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_SS, SEL_RO)), E(EXC_GP, SEL_RO));
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_SS, SEL_NP_DATA)), E(EXC_SS, SEL_NP_DATA));
	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_SS, 3)), E(EXC_GP, 0));
	v = mach_prot();
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_SS, 0)), E(EXC_GP, 0));
}

static void test_system(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(RAISED(v, seg_load_tr(v, SEL_TSS)), 0);
	CU_ASSERT_EQUAL(v->tr.base, MACH_TSS);
	CU_ASSERT_EQUAL(v->tr.attr & 15, DT_TSS32_BUSY);
	CU_ASSERT_EQUAL(RAISED(v, seg_load_tr(v, SEL_TSS)), E(EXC_GP, SEL_TSS)); /* busy now */
	CU_ASSERT_EQUAL(RAISED(v, seg_load_tr(v, 0)), E(EXC_GP, 0));
	CU_ASSERT_EQUAL(RAISED(v, seg_load_ldt(v, SEL_LDT)), 0);
	CU_ASSERT_EQUAL(v->ldtr.base, MACH_LDT);
	CU_ASSERT_EQUAL(v->ldtr.limit, 15);
	CU_ASSERT_EQUAL(RAISED(v, seg_load_ldt(v, SEL_KDATA)), E(EXC_GP, SEL_KDATA));
	ram_put64(v, MACH_LDT + 8, 0x00cff3000000ffff | 0x77ull << 16);
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_GS, 0x0f)), 0);
	CU_ASSERT_EQUAL(v->seg[SEG_GS].base, 0x77);
	CU_ASSERT_EQUAL(RAISED(v, seg_load_ldt(v, 0)), 0);
	CU_ASSERT_EQUAL(RAISED(v, seg_load(v, SEG_GS, 0x0f)), E(EXC_GP, 0x0c));
}

static void test_jump(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(RAISED(v, far_jump(v, SEL_K32, 0x1234, 4, 0)), 0);
	CU_ASSERT_EQUAL(v->rip, 0x1234);
	CU_ASSERT_FALSE(in_code64(v));
	CU_ASSERT_EQUAL(RAISED(v, far_jump(v, SEL_K64, 0x4321, 4, 0)), 0);
	CU_ASSERT_TRUE(in_code64(v));
	CU_ASSERT_EQUAL(RAISED(v, far_jump(v, SEL_U64, 0, 4, 0)), E(EXC_GP, SEL_U64 & ~3));
	CU_ASSERT_EQUAL(RAISED(v, far_jump(v, 0, 0, 4, 0)), E(EXC_GP, 0));
	CU_ASSERT_EQUAL(RAISED(v, far_jump(v, SEL_K64, 0x800000000000, 8, 0)), E(EXC_GP, 0));
	CU_ASSERT_EQUAL(RAISED(v, far_jump(v, SEL_KDATA, 0, 4, 0)), E(EXC_GP, SEL_KDATA));
	CU_ASSERT_EQUAL(v->rip, 0x4321);
}

static void test_call_return(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(RAISED(v, far_call(v, SEL_K64, 0x7000, 8, 0x50007)), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000 - 16);
	CU_ASSERT_EQUAL(ram_get64(v, 0x90000 - 16), 0x50007);
	CU_ASSERT_EQUAL(ram_get64(v, 0x90000 - 8), SEL_K64);
	CU_ASSERT_EQUAL(RAISED(v, far_return(v, 8, 0)), 0);
	CU_ASSERT_EQUAL(v->rip, 0x50007);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000);
}

static void test_gate_long(void)
{
	struct vcpu *v = mach_long();

	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(RAISED(v, far_call(v, SEL_GATE | 3, 0, 8, 0x50007)), 0);
	CU_ASSERT_EQUAL(v->rip, 0x60000);
	CU_ASSERT_EQUAL(v->cpl, 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x80000 - 32);
	CU_ASSERT_EQUAL(ram_get64(v, 0x80000 - 16), 0x40000);
	CU_ASSERT_EQUAL(RAISED(v, far_return(v, 8, 0)), 0);
	CU_ASSERT_EQUAL(v->cpl, 3);
	CU_ASSERT_EQUAL(v->rip, 0x50007);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x40000);
	CU_ASSERT_TRUE(v->seg[SEG_DS].attr & SEG_A_NULL); /* the kernel's data segment is taken away */
}

static void test_gate_prot(void)
{
	struct vcpu *v = mach_prot();

	mach_user(v, SEL_U32);
	ram_put32(v, 0x40000, 0x11);
	ram_put32(v, 0x40004, 0x22);
	CU_ASSERT_EQUAL(RAISED(v, far_call(v, SEL_GATE | 3, 0, 4, 0x50007)), 0);
	CU_ASSERT_EQUAL(v->cpl, 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x80000 - 24);
	CU_ASSERT_EQUAL(ram_get32(v, 0x80000 - 16), 0x11);
	CU_ASSERT_EQUAL(ram_get32(v, 0x80000 - 12), 0x22);
	CU_ASSERT_EQUAL(RAISED(v, far_return(v, 4, 8)), 0);
	CU_ASSERT_EQUAL(v->cpl, 3);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x40008);
}

static void iret_frame(struct vcpu *v, uint64_t rip, uint64_t cs, uint64_t fl, uint64_t sp, uint64_t ss)
{
	const uint64_t f[5] = {rip, cs, fl, sp, ss};

	v->regs[R_SP] = 0x90000;
	ram_put(v, 0x90000, f, sizeof(f));
}

static void test_iret(void)
{
	struct vcpu *v = mach_long();

	iret_frame(v, 0x50000, SEL_U64, RFL_IF | RFL_IOPL | RFL_CF, 0x41000, SEL_UDATA);
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), 0);
	CU_ASSERT_EQUAL(v->cpl, 3);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x41000);
	CU_ASSERT_EQUAL(vcpu_rflags(v), RFL_IF | RFL_IOPL | RFL_CF | RFL_FIX);
	v = mach_long();
	iret_frame(v, 0x50000, SEL_K64, RFL_FIX, 0x41000, 0); /* null SS to 64-bit ring 0 */
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x41000);
	v = mach_long();
	iret_frame(v, 0x50000, SEL_U64, RFL_FIX, 0x41000, 3);
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), E(EXC_GP, 0));
	iret_frame(v, 0x50000, SEL_U32, RFL_FIX, 0x41000, SEL_UDATA);
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), 0);
	CU_ASSERT_FALSE(in_code64(v));
	v = mach_long();
	v->sysflags |= RFL_NT;
	iret_frame(v, 0x50000, SEL_U64, RFL_FIX, 0x41000, SEL_UDATA);
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), E(EXC_GP, 0));
	v->sysflags = 0;
	iret_frame(v, 0x800000000000, SEL_U64, RFL_FIX, 0x41000, SEL_UDATA);
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), E(EXC_GP, 0));
	CU_ASSERT_EQUAL(v->cpl, 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000);
}

/* To an outer ring: what it may not have becomes null, and so do null selectors of any RPL; bases stay. */
static void test_iret_nulls(void)
{
	static const uint8_t regs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	static const struct {
		uint16_t sel;
		uint32_t attr;
		uint16_t want;
	} t[] = {
		{0, SEG_A_NULL, 0},       {1, SEG_A_NULL, 0},           {3, SEG_A_NULL, 0},
		{SEL_KDATA, 0x93, 0},     {SEL_UDATA, 0xf3, SEL_UDATA}, {SEL_K64, 0x9b, 0}, /* code, not conforming */
		{SEL_K64, 0x9f, SEL_K64},                                                   /* conforming */
	};

	for (unsigned i = 0; i < 2 * sizeof(t) / sizeof(t[0]); i++)
		for (unsigned k = 0; k < 4; k++) {
			struct vcpu *v = mach_long();
			struct seg *s = &v->seg[regs[k]];

			v->amd = i & 1; /* the vendors do not differ */
			*s = (struct seg){0x123456000, 0xfffff, t[i / 2].attr, t[i / 2].sel};
			iret_frame(v, 0x50000, SEL_U64, RFL_FIX, 0x41000, SEL_UDATA);
			CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), 0);
			CU_ASSERT_EQUAL(s->sel, t[i / 2].want);
			CU_ASSERT_EQUAL(!(s->attr & SEG_A_NULL), t[i / 2].want != 0);
			CU_ASSERT_EQUAL(s->base, 0x123456000);
			v = mach_long();
			*s = (struct seg){0x123456000, 0, SEG_A_NULL, 3};
			iret_frame(v, 0x50000, SEL_K64, RFL_FIX, 0x41000, 0);
			CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), 0);
			CU_ASSERT_EQUAL(s->sel, 3); /* not within a ring */
		}
}

static void test_iret_user_flags(void)
{
	struct vcpu *v = mach_long();

	mach_user(v, SEL_U64);
	iret_frame(v, 0x50000, SEL_U64, RFL_IF | RFL_IOPL | RFL_AC | RFL_ZF, 0x41000, SEL_UDATA);
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), 0);
	CU_ASSERT_EQUAL(vcpu_rflags(v), RFL_AC | RFL_ZF | RFL_FIX); /* IF and IOPL are not ring 3's */
	iret_frame(v, 0x50000, SEL_K64, 0, 0x41000, SEL_KDATA);
	CU_ASSERT_EQUAL(RAISED(v, far_iret(v, 8, 0)), E(EXC_GP, SEL_K64)); /* never inwards */
}

static void test_limits(void)
{
	struct vcpu *v = mach_prot();
	struct seg *s = &v->seg[SEG_DS];
	uint64_t lin;

	*s = (struct seg){.base = 0x1000, .limit = 0xfff, .attr = SEG_A_P | SEG_A_S | SEG_A_DB | 3, .sel = 8};
	CU_ASSERT_EQUAL(RAISED(v, seg_linear(v, SEG_DS, 0xffc, 4, ACC_R, &lin)), 0);
	CU_ASSERT_EQUAL(lin, 0x1ffc);
	CU_ASSERT_EQUAL(RAISED(v, seg_linear(v, SEG_DS, 0xffd, 4, ACC_R, &lin)), E(EXC_GP, 0));
	s->attr |= 4; /* expand down: above the limit is inside */
	CU_ASSERT_EQUAL(RAISED(v, seg_linear(v, SEG_DS, 0xffc, 4, ACC_R, &lin)), E(EXC_GP, 0));
	CU_ASSERT_EQUAL(RAISED(v, seg_linear(v, SEG_DS, 0x1000, 4, ACC_R, &lin)), 0);
	s->attr &= ~6u; /* read-only */
	CU_ASSERT_EQUAL(RAISED(v, seg_linear(v, SEG_DS, 0, 4, ACC_W, &lin)), E(EXC_GP, 0));
	v->seg[SEG_SS].limit = 0xff;
	CU_ASSERT_EQUAL(RAISED(v, seg_linear(v, SEG_SS, 0x100, 1, ACC_R, &lin)), E(EXC_SS, 0));
	s->attr = SEG_A_NULL;
	CU_ASSERT_EQUAL(RAISED(v, seg_linear(v, SEG_DS, 0, 1, ACC_R, &lin)), E(EXC_GP, 0));
}

/* What Linux' 32-bit boot protocol asks for. */
static void test_linux32(void)
{
	struct vcpu *v = mach_vcpu();

	cpu_set_linux32(v, 0x1000000, 0x7000);
	CU_ASSERT_EQUAL(v->rip, 0x1000000);
	CU_ASSERT_EQUAL(v->regs[R_SI], 0x7000);
	CU_ASSERT_EQUAL(v->regs[R_BX] | v->regs[R_BP] | v->regs[R_DI], 0);
	CU_ASSERT_EQUAL(v->cr0, CR0_PE | CR0_ET);
	CU_ASSERT_EQUAL(v->efer | v->cr4, 0);
	CU_ASSERT_EQUAL(v->iflag, 0);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].sel, 0x10);
	CU_ASSERT_EQUAL(v->seg[SEG_DS].sel, 0x18);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, 0x18);
	CU_ASSERT_EQUAL(v->seg[SEG_ES].limit, 0xffffffff);
}

CU_ErrorCode suite_segment(void)
{
	CU_pSuite s = CU_add_suite("segment", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "Linux' 32-bit entry", test_linux32) ||
	    !CU_add_test(s, "data segments", test_data) || !CU_add_test(s, "stack segment", test_stack_segment) ||
	    !CU_add_test(s, "ldtr and tr", test_system) || !CU_add_test(s, "far jump", test_jump) ||
	    !CU_add_test(s, "far call and return", test_call_return) ||
	    !CU_add_test(s, "64-bit call gate", test_gate_long) ||
	    !CU_add_test(s, "32-bit call gate", test_gate_prot) || !CU_add_test(s, "iret", test_iret) ||
	    !CU_add_test(s, "iret: null selectors", test_iret_nulls) ||
	    !CU_add_test(s, "iret in ring 3", test_iret_user_flags) || !CU_add_test(s, "limits and types", test_limits))
		return CU_get_error();
	return CUE_SUCCESS;
}
