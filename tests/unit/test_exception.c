/*
 * Delivery through the IDT: frames, stacks, error codes, nested faults.
 */
#include <CUnit/Basic.h>

#include "tests/unit/machine.h"
#include "vcpu/cpu/exception.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/mmu/mmu.h"

#define HANDLER 0x60000u

static void test_same_ring(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, 0x30, SEL_K64, HANDLER, DT_INT32, 0, 0);
	v->regs[R_SP] = 0x90008; /* the frame starts 16-byte aligned */
	vcpu_set_rflags(v, RFL_IF | RFL_CF | RFL_TF);
	CU_ASSERT_EQUAL(cpu_deliver(v, 0x30, EVENT_INTR, false, 0), 0);
	CU_ASSERT_EQUAL(v->rip, HANDLER);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000 - 40);
	CU_ASSERT_EQUAL(ram_get64(v, 0x90000 - 8), SEL_KDATA);
	CU_ASSERT_EQUAL(ram_get64(v, 0x90000 - 16), 0x90008);
	CU_ASSERT_EQUAL(ram_get64(v, 0x90000 - 24), RFL_IF | RFL_CF | RFL_TF | RFL_FIX);
	CU_ASSERT_EQUAL(ram_get64(v, 0x90000 - 32), SEL_K64);
	CU_ASSERT_EQUAL(ram_get64(v, 0x90000 - 40), 0x50000);
	CU_ASSERT_EQUAL(vcpu_rflags(v), RFL_CF | RFL_FIX);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, SEL_KDATA);
}

static void test_from_user(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, EXC_GP, SEL_K64, HANDLER, DT_TRAP32, 0, 0);
	mach_user(v, SEL_U64);
	vcpu_set_rflags(v, RFL_IF);
	raise_gp(v, 0x1234);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0);
	CU_ASSERT_EQUAL(v->cpl, 0);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, 0);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].sel, SEL_K64);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x80000 - 48);
	CU_ASSERT_EQUAL(ram_get64(v, 0x80000 - 48), 0x1234);
	CU_ASSERT_EQUAL(ram_get64(v, 0x80000 - 24), RFL_IF | RFL_RF | RFL_FIX); /* a fault pushes RF */
	CU_ASSERT_EQUAL(ram_get64(v, 0x80000 - 16), 0x40000);
	CU_ASSERT_EQUAL(ram_get64(v, 0x80000 - 8), SEL_UDATA);
	CU_ASSERT_EQUAL(vcpu_rflags(v) & RFL_IF, RFL_IF); /* trap gate */
	CU_ASSERT_EQUAL(v->exc_pending, 0);
}

static void test_ist(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, EXC_NMI, SEL_K64, HANDLER, DT_INT32, 0, 1);
	CU_ASSERT_EQUAL(cpu_deliver(v, EXC_NMI, EVENT_NMI, false, 0), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x70000 - 40);
	CU_ASSERT_EQUAL(v->nmi_blocked, 1);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, SEL_KDATA);
	CU_ASSERT_EQUAL(far_iret(v, 8, 0), 0);
	CU_ASSERT_EQUAL(v->nmi_blocked, 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000);
	CU_ASSERT_EQUAL(v->rip, 0x50000);
}

static void test_page_fault(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, EXC_PF, SEL_K64, HANDLER, DT_INT32, 0, 0);
	raise_pf(v, 0xdead000, 6);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0);
	CU_ASSERT_EQUAL(v->cr2, 0xdead000);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP]), 6);
}

static void test_debug(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, EXC_DB, SEL_K64, HANDLER, DT_INT32, 0, 0);
	v->dr[6] |= 3;
	v->dr[7] |= 1u << 13;
	raise_exception(v, EXC_DB);
	v->exc_dr6 = 1u << 14;
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0);
	CU_ASSERT_EQUAL(v->dr[6], 0xffff4ff0);
	CU_ASSERT_EQUAL(v->dr[7] & (1u << 13), 0);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP] + 16) & RFL_RF, 0);
}

/* A breakpoint on a frame: a trap at the handler's first instruction; not what an attempt that failed had pushed. */
static void test_frame_breakpoint(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, 0x30, SEL_K64, HANDLER, DT_INT32, 0, 0);
	mach_gate(v, EXC_DB, SEL_K64, HANDLER + 0x100, DT_INT32, 0, 0);
	v->dr[1] = 0x90000 - 24; /* the flags' slot */
	v->dr[7] = 0x400 | 1u << 2 | 1u << 20 | 2u << 22;
	CU_ASSERT_EQUAL(cpu_deliver(v, 0x30, EVENT_INTR, false, 0), 0);
	CU_ASSERT_EQUAL(v->rip, HANDLER);
	CU_ASSERT_EQUAL_FATAL(v->exc_pending, 1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_DB);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0);
	CU_ASSERT_EQUAL(v->rip, HANDLER + 0x100);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP]), HANDLER);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP] + 16) & RFL_RF, 0);
	CU_ASSERT_EQUAL(v->dr[6], 0xffff0ff2);
	CU_ASSERT_EQUAL(v->exc_pending, 0); /* its own frame is elsewhere */
}

static void test_soft(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, 0x80, SEL_K64, HANDLER, DT_INT32, 3, 0);
	mach_gate(v, 0x81, SEL_K64, HANDLER, DT_INT32, 0, 0);
	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(cpu_soft_int(v, 0x81, EVENT_SOFT, 0x50002), -1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
	CU_ASSERT_EQUAL(v->exc_error, 0x81 * 8 + 2); /* IDT, not external */
	CU_ASSERT_EQUAL(v->rip, 0x50000);
	v->exc_pending = 0;
	CU_ASSERT_EQUAL(cpu_soft_int(v, 0x80, EVENT_SOFT, 0x50002), 0);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP]), 0x50002);
}

static void test_nested(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, EXC_NP, SEL_K64, HANDLER + 0x10, DT_INT32, 0, 0);
	mach_gate(v, EXC_DF, SEL_K64, HANDLER, DT_INT32, 0, 0);
	mach_gate(v, 0x30, SEL_K64, HANDLER, DT_INT32, 0, 0);
	ram_put64(v, MACH_IDT + 0x30 * 16, ram_get64(v, MACH_IDT + 0x30 * 16) & ~(1ull << 47));
	/* an external interrupt through an absent gate: #NP, EXT set */
	CU_ASSERT_EQUAL(cpu_deliver(v, 0x30, EVENT_INTR, false, 0), 0);
	CU_ASSERT_EQUAL(v->rip, HANDLER + 0x10);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP]), 0x30 * 8 + 3);
	/* #GP through a gate that is no gate: contributory twice, so #DF */
	raise_gp(v, 0);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0);
	CU_ASSERT_EQUAL(v->rip, HANDLER);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP]), 0);
	/* #DE is contributory too; #UD is benign: it becomes the #GP, then #GP's own failure the #DF */
	raise_exception(v, EXC_UD);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0);
	CU_ASSERT_EQUAL(v->rip, HANDLER);
}

static void test_triple(void)
{
	struct vcpu *v = mach_long();

	raise_pf(v, 0x1000000, 0);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 1);
}

static void test_bad_stack(void)
{
	struct vcpu *v = mach_long();

	mach_gate(v, EXC_DF, SEL_K64, HANDLER, DT_INT32, 0, 1);
	mach_gate(v, EXC_PF, SEL_K64, HANDLER + 0x20, DT_INT32, 0, 0);
	mach_gate(v, EXC_SS, SEL_K64, HANDLER + 0x10, DT_INT32, 0, 1);
	v->regs[R_SP] = MACH_RAM + 0x100000; /* not mapped */
	raise_pf(v, 0x5000000, 2);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0); /* #PF while delivering #PF */
	CU_ASSERT_EQUAL(v->rip, HANDLER);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x70000 - 48);
	v->regs[R_SP] = 0x800000000100; /* not canonical */
	CU_ASSERT_EQUAL(cpu_deliver(v, EXC_PF, EVENT_INTR, false, 0), 0);
	CU_ASSERT_EQUAL(v->rip, HANDLER + 0x10);
	CU_ASSERT_EQUAL(ram_get64(v, v->regs[R_SP]), 1); /* #SS(0), external */
}

static void test_prot(void)
{
	struct vcpu *v = mach_prot();

	mach_gate(v, 0x30, SEL_K32, HANDLER, DT_INT32, 0, 0);
	mach_gate(v, EXC_GP, SEL_K32, HANDLER, DT_TRAP32, 0, 0);
	CU_ASSERT_EQUAL(cpu_deliver(v, 0x30, EVENT_INTR, false, 0), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000 - 12);
	CU_ASSERT_EQUAL(ram_get32(v, 0x90000 - 12), 0x50000);
	CU_ASSERT_EQUAL(ram_get32(v, 0x90000 - 8), SEL_K32);
	v->rip = 0x50000;
	mach_user(v, SEL_U32);
	raise_gp(v, 0x55);
	CU_ASSERT_EQUAL(cpu_deliver_pending(v), 0);
	CU_ASSERT_EQUAL(v->cpl, 0);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, SEL_KDATA);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x80000 - 24);
	CU_ASSERT_EQUAL(ram_get32(v, 0x80000 - 24), 0x55);
	CU_ASSERT_EQUAL(ram_get32(v, 0x80000 - 8), 0x40000);
	CU_ASSERT_EQUAL(ram_get32(v, 0x80000 - 4), SEL_UDATA);
	v->regs[R_SP] += 4;
	CU_ASSERT_EQUAL(far_iret(v, 4, 0), 0);
	CU_ASSERT_EQUAL(v->cpl, 3);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x40000);
	CU_ASSERT_EQUAL(v->rip, 0x50000);
}

static void test_prot16(void)
{
	struct vcpu *v = mach_prot();

	mach_gate(v, 0x30, SEL_K32, 0x6000, DT_INT16, 0, 0);
	mach_gate(v, 0x31, SEL_K32, 0x6000, DT_TASK, 0, 0);
	CU_ASSERT_EQUAL(cpu_deliver(v, 0x30, EVENT_INTR, false, 0), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000 - 6);
	CU_ASSERT_EQUAL(v->rip, 0x6000);
	CU_ASSERT_EQUAL(cpu_soft_int(v, 0x31, EVENT_SOFT, 0), -1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
}

CU_ErrorCode suite_exception(void)
{
	CU_pSuite s = CU_add_suite("exception", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "same ring", test_same_ring) ||
	    !CU_add_test(s, "from ring 3", test_from_user) || !CU_add_test(s, "ist and nmi", test_ist) ||
	    !CU_add_test(s, "page fault", test_page_fault) || !CU_add_test(s, "debug", test_debug) ||
	    !CU_add_test(s, "data breakpoint on a frame", test_frame_breakpoint) ||
	    !CU_add_test(s, "software interrupts", test_soft) || !CU_add_test(s, "nested faults", test_nested) ||
	    !CU_add_test(s, "triple fault", test_triple) || !CU_add_test(s, "bad stacks", test_bad_stack) ||
	    !CU_add_test(s, "protected mode", test_prot) || !CU_add_test(s, "16-bit and task gates", test_prot16))
		return CU_get_error();
	return CUE_SUCCESS;
}
