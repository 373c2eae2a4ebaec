/*
 * System instruction handlers, called as the translator calls them.
 */
#include <CUnit/Basic.h>
#include <string.h>

#include "tests/unit/machine.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/sysinsn.h"

#define E(vector, err) ((unsigned)(vector) << 16 | (err))

/* An instruction of two bytes in 64-bit code, operand size 8. */
static struct insn plain(enum sysop op)
{
	return (struct insn){.len = 2,
			     .sysop = op,
			     .opsize = 8,
			     .addrsize = 8,
			     .code_size = 8,
			     .rm = R_NONE,
			     .mem = {.base = R_NONE, .index = R_NONE, .scale = 1, .seg = SEG_DS}};
}

static struct insn regop(enum sysop op, unsigned reg, unsigned rm)
{
	struct insn in = plain(op);

	in.reg = (uint8_t)reg;
	in.rm = (uint8_t)rm;
	return in;
}

static struct insn memop(enum sysop op, unsigned reg, uint32_t addr)
{
	struct insn in = regop(op, reg, R_NONE);

	in.has_mem = 1;
	in.mem.disp = (int32_t)addr;
	return in;
}

/* 0 or what was raised: vector << 16 | error. */
static unsigned run(struct vcpu *v, struct insn in)
{
	uint64_t rip = v->rip;

	v->exc_pending = 0;
	if (sys_handlers[in.sysop](v, &in) == 0)
		return 0;
	CU_ASSERT_EQUAL(v->rip, rip);
	return (unsigned)v->exc_vector << 16 | v->exc_error;
}

static void test_table(void)
{
	for (int i = 0; i < SYS_COUNT; i++)
		CU_ASSERT_PTR_NOT_NULL(sys_handlers[i]);
}

static void test_interrupt_flag(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(run(v, plain(SYS_STI)), 0);
	CU_ASSERT_EQUAL(v->iflag, 1);
	CU_ASSERT_EQUAL(v->int_shadow, 1);
	CU_ASSERT_EQUAL(v->rip, 0x50002);
	v->int_shadow = 0;
	CU_ASSERT_EQUAL(run(v, plain(SYS_STI)), 0);
	CU_ASSERT_EQUAL(v->int_shadow, 0); /* only when IF was clear */
	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(run(v, plain(SYS_CLI)), E(EXC_GP, 0));
	CU_ASSERT_EQUAL(run(v, plain(SYS_HLT)), E(EXC_GP, 0));
	v->sysflags |= RFL_IOPL;
	CU_ASSERT_EQUAL(run(v, plain(SYS_CLI)), 0);
	CU_ASSERT_EQUAL(v->iflag, 0);
}

static void test_popf(void)
{
	struct vcpu *v = mach_long();

	ram_put64(v, 0x90000, ~0ull);
	CU_ASSERT_EQUAL(run(v, plain(SYS_POPF)), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90008);
	CU_ASSERT_EQUAL(vcpu_rflags(v),
			RFL_ARITH | RFL_DF | RFL_TF | RFL_NT | RFL_AC | RFL_ID | RFL_IF | RFL_IOPL | RFL_FIX);
	v->sysflags = 0;
	mach_user(v, SEL_U64);
	v->iflag = 0;
	ram_put64(v, 0x40000, RFL_IF | RFL_IOPL);
	CU_ASSERT_EQUAL(run(v, plain(SYS_POPF)), 0);
	CU_ASSERT_EQUAL(vcpu_rflags(v), RFL_FIX); /* silently kept */
	CU_ASSERT_EQUAL(run(v, plain(SYS_PUSHF)), 0);
	CU_ASSERT_EQUAL(ram_get64(v, 0x40000), RFL_FIX);
}

static void test_control(void)
{
	struct vcpu *v = mach_long();

	v->regs[R_AX] = CR0_PG; /* PG without PE */
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 0, R_AX)), E(EXC_GP, 0));
	v->regs[R_AX] = v->cr0 & ~(uint64_t)CR0_PG; /* not from 64-bit code */
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 0, R_AX)), E(EXC_GP, 0));
	v->regs[R_AX] = v->cr0 & ~(uint64_t)CR0_WP;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 0, R_AX)), 0);
	CU_ASSERT_EQUAL(seen.flush_all, 1);
	v->regs[R_AX] = CR4_PAE | CR4_PCIDE | CR4_PGE;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 4, R_AX)), 0);
	v->regs[R_AX] = CR4_PGE;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 4, R_AX)), E(EXC_GP, 0)); /* PAE is needed */
	v->regs[R_AX] = 1ull << 13;                                           /* VMXE */
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 4, R_AX)), E(EXC_GP, 0));
	seen.flush_nonglobal = 0;
	v->regs[R_AX] = MACH_PML4 | 1ull << 63;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 3, R_AX)), 0);
	CU_ASSERT_EQUAL(seen.flush_nonglobal, 0); /* same table, same PCID, no flush asked */
	v->regs[R_AX] = MACH_PML4 | 5 | 1ull << 63;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 3, R_AX)), 0);
	CU_ASSERT(seen.switches == 1 && seen.to == 5 && !seen.switch_flush);
	CU_ASSERT_EQUAL(v->cr3, MACH_PML4 | 5);
	v->regs[R_AX] = 1ull << 60;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 3, R_AX)), E(EXC_GP, 0));
	v->regs[R_AX] = 9;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 8, R_AX)), 0);
	CU_ASSERT_EQUAL(seen.tpr, 0x90);
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_FROM_CR, 8, R_DX)), 0);
	CU_ASSERT_EQUAL(v->regs[R_DX], 9);
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_CR, 1, R_AX)), E(EXC_UD, 0));
	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_FROM_CR, 0, R_DX)), E(EXC_GP, 0));
}

static void test_long_mode_entry(void)
{
	struct vcpu *v = mach_prot();

	v->regs[R_AX] = CR4_PAE;
	CU_ASSERT_EQUAL(cr4_write(v, CR4_PAE), 0);
	v->efer = EFER_LME;
	ram_put64(v, 0x1000, 0x2007);
	CU_ASSERT_EQUAL(cr3_write(v, 0x1000), 0);
	CU_ASSERT_EQUAL(cr0_write(v, CR0_PE | CR0_PG), 0);
	CU_ASSERT_EQUAL(v->efer, EFER_LME | EFER_LMA);
	CU_ASSERT_FALSE(in_code64(v));
	CU_ASSERT_EQUAL(cr0_write(v, CR0_PE), 0);
	CU_ASSERT_EQUAL(v->efer, EFER_LME);
	v->efer = 0;
	ram_put64(v, 0x3000, 0x2000 | 1);
	ram_put64(v, 0x3008, 1u << 1 | 1); /* reserved in a PDPTE */
	CU_ASSERT_EQUAL(cr3_write(v, 0x3000), 0);
	CU_ASSERT_EQUAL(cr0_write(v, CR0_PE | CR0_PG), -1);
	ram_put64(v, 0x3008, 0);
	CU_ASSERT_EQUAL(cr0_write(v, CR0_PE | CR0_PG), 0);
	CU_ASSERT_EQUAL(v->pdpte[0], 0x2001);
}

static void test_debug_registers(void)
{
	struct vcpu *v = mach_long();

	v->regs[R_AX] = 0xffff;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_DR, 4, R_AX)), 0); /* alias of DR6 */
	CU_ASSERT_EQUAL(v->dr[6], 0xffffeff0 | 0xf);
	v->regs[R_AX] = 1ull << 32;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_DR, 7, R_AX)), E(EXC_GP, 0));
	v->cr4 |= CR4_DE;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_FROM_DR, 5, R_AX)), E(EXC_UD, 0));
	v->regs[R_AX] = 1u << 13;
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_TO_DR, 7, R_AX)), 0);
	CU_ASSERT_EQUAL(run(v, regop(SYS_MOV_FROM_DR, 0, R_AX)), E(EXC_DB, 0));
	CU_ASSERT_EQUAL(v->exc_dr6, 1u << 13);
}

static void test_syscall(void)
{
	struct vcpu *v = mach_long();

	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(run(v, plain(SYS_SYSCALL)), E(EXC_UD, 0)); /* EFER.SCE */
	v->efer |= EFER_SCE;
	v->star = 0x0023000800000000;
	v->lstar = 0xffffffff81000000;
	v->sfmask = RFL_IF | RFL_TF;
	vcpu_set_rflags(v, RFL_IF | RFL_ZF);
	CU_ASSERT_EQUAL(run(v, plain(SYS_SYSCALL)), 0);
	CU_ASSERT_EQUAL(v->rip, 0xffffffff81000000);
	CU_ASSERT_EQUAL(v->regs[R_CX], 0x50002);
	CU_ASSERT_EQUAL(v->regs[R_11], RFL_IF | RFL_ZF | RFL_FIX);
	CU_ASSERT_EQUAL(vcpu_rflags(v), RFL_ZF | RFL_FIX);
	CU_ASSERT_EQUAL(v->cpl, 0);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, 0x10);
	CU_ASSERT_EQUAL(run(v, plain(SYS_SYSRET)), 0);
	CU_ASSERT_EQUAL(v->rip, 0x50002);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].sel, 0x33);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, 0x2b);
	CU_ASSERT_EQUAL(v->cpl, 3);
	CU_ASSERT_EQUAL(vcpu_rflags(v), RFL_IF | RFL_ZF | RFL_FIX);
	CU_ASSERT_EQUAL(run(v, plain(SYS_SYSRET)), E(EXC_GP, 0));
}

/* sysenter is Intel's in long mode, syscall AMD's outside 64-bit code. */
static void test_vendors(void)
{
	struct vcpu *v = mach_long();
	struct insn in = plain(SYS_SYSCALL);

	v->efer |= EFER_SCE;
	v->sysenter_cs = 0x10;
	v->sysenter_esp = 0x88000;
	v->sysenter_eip = 0xffffffff81001000;
	v->star = 0x0023000800000000;
	v->cstar = 0x61000;
	in.code_size = 4;
	mach_user(v, SEL_U32);
	v->amd = 1;
	CU_ASSERT_EQUAL(run(v, plain(SYS_SYSENTER)), E(EXC_UD, 0));
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(v->rip, 0x61000);
	CU_ASSERT_TRUE(in_code64(v));
	v->rip = 0x50000;
	mach_user(v, SEL_U32);
	v->amd = 0;
	CU_ASSERT_EQUAL(run(v, in), E(EXC_UD, 0));
	CU_ASSERT_EQUAL(run(v, plain(SYS_SYSENTER)), 0);
	CU_ASSERT_EQUAL(v->rip, 0xffffffff81001000);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x88000);
	CU_ASSERT_EQUAL(v->cpl, 0);
	CU_ASSERT_EQUAL(v->seg[SEG_SS].sel, 0x18);
	v->regs[R_CX] = 0x41000;
	v->regs[R_DX] = 0x51000;
	CU_ASSERT_EQUAL(run(v, plain(SYS_SYSEXIT)), 0);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].sel, 0x33);
	CU_ASSERT_EQUAL(v->rip, 0x51000);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x41000);
}

static void test_far_pointers(void)
{
	struct vcpu *v = mach_long();

	ram_put64(v, 0x30000, 0x0000000000001234 | (uint64_t)SEL_UDATA << 32);
	ram_put64(v, 0x30008, SEL_UDATA);
	struct insn in = memop(SYS_LOAD_FAR_PTR, R_BX, 0x30000);

	in.seg2 = SEG_FS;
	v->amd = 1;
	v->regs[R_BX] = ~0ull;
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(v->regs[R_BX], 0x1234);
	CU_ASSERT_EQUAL(v->seg[SEG_FS].sel, SEL_UDATA);
	v->amd = 0;
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(v->regs[R_BX], 0x0000002b00001234);
	ram_put64(v, 0x30000, 0x60000 | (uint64_t)SEL_K32 << 32);
	in = memop(SYS_FAR_JMP, 0, 0x30000);
	in.opsize = 4;
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(v->rip, 0x60000);
	CU_ASSERT_FALSE(in_code64(v));
}

static void test_bases(void)
{
	struct vcpu *v = mach_long();

	v->kernel_gs_base = 0xffff888000000000;
	v->seg[SEG_GS].base = 0x1234;
	CU_ASSERT_EQUAL(run(v, plain(SYS_SWAPGS)), 0);
	CU_ASSERT_EQUAL(v->seg_base[SEG_GS], 0xffff888000000000);
	CU_ASSERT_EQUAL(v->kernel_gs_base, 0x1234);
	CU_ASSERT_EQUAL(run(v, regop(SYS_WRFSBASE, 0, R_AX)), E(EXC_UD, 0));
	v->cr4 |= CR4_FSGSBASE;
	v->regs[R_AX] = 0x800000000000;
	CU_ASSERT_EQUAL(run(v, regop(SYS_WRFSBASE, 0, R_AX)), E(EXC_GP, 0));
	v->regs[R_AX] = 0x7f0000000000;
	CU_ASSERT_EQUAL(run(v, regop(SYS_WRFSBASE, 0, R_AX)), 0);
	CU_ASSERT_EQUAL(v->seg_base[SEG_FS], 0x7f0000000000);
	CU_ASSERT_EQUAL(run(v, regop(SYS_RDFSBASE, 0, R_BX)), 0);
	CU_ASSERT_EQUAL(v->regs[R_BX], 0x7f0000000000);
}

static void test_tables(void)
{
	struct vcpu *v = mach_long();
	const uint8_t image[10] = {0xff, 0x0f, 0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff};

	ram_put(v, 0x30000, image, sizeof(image));
	CU_ASSERT_EQUAL(run(v, memop(SYS_LIDT, 0, 0x30000)), 0);
	CU_ASSERT_EQUAL(v->idtr.base, 0xffffffff80000000);
	CU_ASSERT_EQUAL(v->idtr.limit, 0xfff);
	CU_ASSERT_EQUAL(run(v, memop(SYS_SIDT, 0, 0x30100)), 0);
	CU_ASSERT_EQUAL(memcmp(v->vm->mem->ram + 0x30100, image, 10), 0);
	mach_user(v, SEL_U64);
	v->cr4 |= CR4_UMIP;
	CU_ASSERT_EQUAL(run(v, memop(SYS_SGDT, 0, 0x30100)), E(EXC_GP, 0));
	v->regs[R_BX] = SEL_UDATA;
	CU_ASSERT_EQUAL(run(v, regop(SYS_LSL, R_AX, R_BX)), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0xffffffff);
	CU_ASSERT_EQUAL(vcpu_rflags(v) & RFL_ZF, RFL_ZF);
	CU_ASSERT_EQUAL(run(v, regop(SYS_LAR, R_AX, R_BX)), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0xc0f200);
	v->regs[R_BX] = SEL_KDATA;
	CU_ASSERT_EQUAL(run(v, regop(SYS_VERW, 0, R_BX)), 0);
	CU_ASSERT_EQUAL(vcpu_rflags(v) & RFL_ZF, 0);
}

static void test_io(void)
{
	struct vcpu *v = mach_long();
	struct insn in = plain(SYS_IN);

	in.opsize = 1;
	v->regs[R_DX] = 0x3f8;
	v->regs[R_AX] = 0x1100;
	seen.pio_next = 0x5a;
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x115a);
	CU_ASSERT_EQUAL(seen.pio_port, 0x3f8);
	mach_user(v, SEL_U64);
	CU_ASSERT_EQUAL(run(v, in), E(EXC_GP, 0)); /* no bitmap within the limit */
	v->tr.limit = 0x2100;
	ram_put32(v, MACH_TSS + 0x66, 0x68);
	CU_ASSERT_EQUAL(run(v, in), 0);
	ram_put32(v, MACH_TSS + 0x68 + 0x3f8 / 8, 1);
	CU_ASSERT_EQUAL(run(v, in), E(EXC_GP, 0));
	v->sysflags |= RFL_IOPL;
	CU_ASSERT_EQUAL(run(v, in), 0);
}

static void test_string_io(void)
{
	struct vcpu *v = mach_long();
	struct insn in = plain(SYS_INS);

	in.opsize = 4;
	in.rep = 0xf3;
	v->regs[R_CX] = 3;
	v->regs[R_DI] = MACH_RAM - 8; /* the third iteration faults */
	CU_ASSERT_EQUAL(run(v, in), E(EXC_PF, 2));
	CU_ASSERT_EQUAL(v->regs[R_CX], 1);
	CU_ASSERT_EQUAL(v->regs[R_DI], MACH_RAM);
	CU_ASSERT_EQUAL(seen.pio_reads, 2); /* the port is not read for a store that fails */
	v->regs[R_CX] = 5000;
	v->regs[R_DI] = 0x100000;
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(v->rip, 0x50000);
	CU_ASSERT_EQUAL(v->regs[R_CX], 5000 - 1024);
	v->df = 1;
	v->regs[R_CX] = 0;
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(v->rip, 0x50002);
}

static void test_xsave(void)
{
	struct vcpu *v = mach_long();

	v->regs[R_AX] = 7;
	v->regs[R_DX] = 0;
	CU_ASSERT_EQUAL(run(v, memop(SYS_XSAVE, 0, 0x30000)), E(EXC_UD, 0));
	v->cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
	v->xcr0 = v->xcr0_mask;
	CU_ASSERT_EQUAL(run(v, memop(SYS_XSAVE, 0, 0x30008)), E(EXC_GP, 0));
	CU_ASSERT_EQUAL(run(v, memop(SYS_XSAVE, 0, 0x30000)), 0);
	CU_ASSERT_EQUAL(ram_get32(v, 0x30000 + 24), 0x1f80);
	CU_ASSERT_EQUAL(ram_get64(v, 0x30000 + 520), 0);
	CU_ASSERT_EQUAL(run(v, memop(SYS_XRSTOR, 0, 0x30000)), 0);
	ram_put32(v, 0x30000 + 24, 0x80001f80); /* reserved in MXCSR */
	CU_ASSERT_EQUAL(run(v, memop(SYS_XRSTOR, 0, 0x30000)), E(EXC_GP, 0));
	ram_put32(v, 0x30000 + 24, 0x1f80);
	ram_put64(v, 0x30000 + 512, 1ull << 9); /* PKRU is not in XCR0 */
	CU_ASSERT_EQUAL(run(v, memop(SYS_XRSTOR, 0, 0x30000)), E(EXC_GP, 0));
	ram_put64(v, 0x30000 + 512, 0);
	ram_put64(v, 0x30000 + 528, 1);
	CU_ASSERT_EQUAL(run(v, memop(SYS_XRSTOR, 0, 0x30000)), E(EXC_GP, 0));
	v->cr0 |= CR0_TS;
	CU_ASSERT_EQUAL(run(v, memop(SYS_XRSTOR, 0, 0x30000)), E(EXC_NM, 0));
	vcpu_fpu_out(v);
}

/* 32-bit code neither saves nor loads registers 8 to 15. */
static void test_fxsave32(void)
{
	struct vcpu *v = mach_prot();
	struct insn in = memop(SYS_FXSAVE, 0, 0x30000);

	in.code_size = in.addrsize = 4;
	ram_put64(v, 0x30000 + 160, 0x1111);
	ram_put64(v, 0x30000 + 288, 0x2222);
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_NOT_EQUAL(ram_get64(v, 0x30000 + 160), 0x1111);
	CU_ASSERT_EQUAL(ram_get64(v, 0x30000 + 288), 0x2222);
	CU_ASSERT_EQUAL(ram_get32(v, 0x30000) & 0xffff, 0x37f);
	in.sysop = SYS_FNSTENV;
	in.opsize = 4;
	CU_ASSERT_EQUAL(run(v, in), 0);
	CU_ASSERT_EQUAL(ram_get32(v, 0x30000) & 0xffff, 0x37f);
	vcpu_fpu_out(v);
}

static struct insn legacy(enum sysop op, unsigned imm)
{
	struct insn in = plain(op);

	in.code_size = in.opsize = in.addrsize = 4;
	in.imm = imm;
	return in;
}

static void test_decimal(void)
{
	struct vcpu *v = mach_prot();

	vcpu_set_rflags(v, 0);
	v->regs[R_AX] = 0x79 + 0x35;
	CU_ASSERT_EQUAL(run(v, legacy(SYS_DAA, 0)), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x14);
	CU_ASSERT_EQUAL(vcpu_rflags(v) & (RFL_CF | RFL_AF), RFL_CF | RFL_AF);
	vcpu_set_rflags(v, 0);
	v->regs[R_AX] = 0x0f;
	CU_ASSERT_EQUAL(run(v, legacy(SYS_AAA, 0)), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x105);
	v->regs[R_AX] = 0x3f;
	CU_ASSERT_EQUAL(run(v, legacy(SYS_AAM, 10)), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x603);
	CU_ASSERT_EQUAL(run(v, legacy(SYS_AAD, 10)), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 63);
	CU_ASSERT_EQUAL(run(v, legacy(SYS_AAM, 0)), E(EXC_DE, 0));
}

static void test_pusha_enter(void)
{
	struct vcpu *v = mach_prot();
	struct insn in = legacy(SYS_BOUND, 0);

	for (unsigned i = 0; i < 8; i++)
		if (i != R_SP)
			v->regs[i] = 0x100 + i;
	CU_ASSERT_EQUAL(run(v, legacy(SYS_PUSHA, 0)), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000 - 32);
	CU_ASSERT_EQUAL(ram_get32(v, 0x90000 - 20), 0x90000);
	CU_ASSERT_EQUAL(ram_get32(v, 0x90000 - 4), 0x100);
	v->regs[R_AX] = 0;
	CU_ASSERT_EQUAL(run(v, legacy(SYS_POPA, 0)), 0);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x100);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000);
	CU_ASSERT_EQUAL(run(v, legacy(SYS_ENTER, 0x20)), 0);
	CU_ASSERT_EQUAL(v->regs[R_SP], 0x90000 - 4 - 0x20);
	CU_ASSERT_EQUAL(v->regs[R_BP], 0x90000 - 4);
	in.has_mem = 1;
	in.mem.disp = 0x30000;
	ram_put32(v, 0x30000, 0xfffffff0);
	ram_put32(v, 0x30004, 0x10);
	v->regs[R_AX] = 0xffffffff; /* -1 */
	CU_ASSERT_EQUAL(run(v, in), 0);
	v->regs[R_AX] = 0x11;
	CU_ASSERT_EQUAL(run(v, in), E(EXC_BR, 0));
}

static void test_invpcid(void)
{
	struct vcpu *v = mach_long();

	ram_put64(v, 0x30000, 0);
	ram_put64(v, 0x30008, 0x7000);
	v->regs[R_AX] = 0;
	CU_ASSERT_EQUAL(run(v, memop(SYS_INVPCID, R_AX, 0x30000)), 0);
	CU_ASSERT_EQUAL(seen.page, 0x7000);
	v->regs[R_AX] = 2;
	CU_ASSERT_EQUAL(run(v, memop(SYS_INVPCID, R_AX, 0x30000)), 0);
	CU_ASSERT_EQUAL(seen.flush_all, 1);
	v->regs[R_AX] = 4;
	CU_ASSERT_EQUAL(run(v, memop(SYS_INVPCID, R_AX, 0x30000)), E(EXC_GP, 0));
	ram_put64(v, 0x30000, 1); /* a PCID without CR4.PCIDE */
	v->regs[R_AX] = 1;
	CU_ASSERT_EQUAL(run(v, memop(SYS_INVPCID, R_AX, 0x30000)), E(EXC_GP, 0));
	v->cr4 |= CR4_PCIDE;
	v->cr3 = MACH_PML4 | 2;
	ram_put64(v, 0x30000, 1); /* another address space: what is kept of it */
	CU_ASSERT_EQUAL(run(v, memop(SYS_INVPCID, R_AX, 0x30000)), 0);
	CU_ASSERT(seen.forget && seen.forgotten == 1 && !seen.flush_nonglobal);
	ram_put64(v, 0x30000, 2);
	CU_ASSERT_EQUAL(run(v, memop(SYS_INVPCID, R_AX, 0x30000)), 0);
	CU_ASSERT_EQUAL(seen.flush_nonglobal, 1);
	v->regs[R_AX] = 3; /* all, the kept ones too */
	CU_ASSERT_EQUAL(run(v, memop(SYS_INVPCID, R_AX, 0x30000)), 0);
	CU_ASSERT(seen.flush_nonglobal == 2 && seen.forget_all == 1);
}

/* CR3 loads with PCIDs: which is left for which, and whether what is kept of it counts (SDM 3A 4.10.4.1). */
static void test_cr3_pcid(void)
{
	struct vcpu *v = mach_long();

	v->cr3 = 0x5001;
	v->cr4 |= CR4_PCIDE;
	CU_ASSERT_EQUAL(cr3_write(v, 1ull << 63 | 0x5001), 0);
	CU_ASSERT_EQUAL(seen.switches, 0); /* nothing changes */
	CU_ASSERT_EQUAL(cr3_write(v, 1ull << 63 | 0x6002), 0);
	CU_ASSERT(seen.switches == 1 && seen.from == 1 && seen.to == 2 && !seen.switch_flush);
	CU_ASSERT_EQUAL(v->cr3, 0x6002);
	CU_ASSERT_EQUAL(cr3_write(v, 0x5001), 0);
	CU_ASSERT(seen.switches == 2 && seen.from == 2 && seen.to == 1 && seen.switch_flush);
	CU_ASSERT_EQUAL(seen.flush_nonglobal, 0);
}

CU_ErrorCode suite_sysinsn(void)
{
	CU_pSuite s = CU_add_suite("sysinsn", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "table", test_table) ||
	    !CU_add_test(s, "interrupt flag", test_interrupt_flag) || !CU_add_test(s, "popf", test_popf) ||
	    !CU_add_test(s, "control registers", test_control) ||
	    !CU_add_test(s, "long mode entry", test_long_mode_entry) ||
	    !CU_add_test(s, "debug registers", test_debug_registers) || !CU_add_test(s, "syscall", test_syscall) ||
	    !CU_add_test(s, "vendors", test_vendors) || !CU_add_test(s, "far pointers", test_far_pointers) ||
	    !CU_add_test(s, "fs and gs base", test_bases) || !CU_add_test(s, "tables", test_tables) ||
	    !CU_add_test(s, "port i/o", test_io) || !CU_add_test(s, "string i/o", test_string_io) ||
	    !CU_add_test(s, "xsave", test_xsave) || !CU_add_test(s, "fxsave in 32-bit code", test_fxsave32) ||
	    !CU_add_test(s, "decimal", test_decimal) || !CU_add_test(s, "pusha, enter, bound", test_pusha_enter) ||
	    !CU_add_test(s, "invpcid", test_invpcid) || !CU_add_test(s, "CR3 and PCID", test_cr3_pcid))
		return CU_get_error();
	return CUE_SUCCESS;
}
