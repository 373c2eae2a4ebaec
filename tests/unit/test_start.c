/* start, reset: INIT and start-up IPIs, what they change and what they leave; APIC ids of every topology. */
#include "vcpu/cpu/start.h"

#include <CUnit/CUnit.h>
#include <string.h>

#include "tests/unit/machine.h"
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/cpu/topology.h"

/* A CPU in the middle of its work. */
static struct vcpu *busy(void)
{
	struct vcpu *v = mach_long();

	v->regs[R_CX] = 5;
	v->cr2 = 7;
	v->dr[0] = 0x1000;
	v->dr[7] = 0x401;
	v->lstar = 0xffffffff81000000;
	v->kernel_gs_base = 0x1234;
	v->tsc_aux = 3;
	v->pat = 0x0407050600070106;
	v->mtrr_def_type = 0xc06;
	v->tsc_offset = 99;
	v->tsc_adjust = 8;
	v->a20_off = 1u << 20;
	v->xcr0 = 3;
	v->halted = HALTED_HLT;
	v->nmi_blocked = 1;
	v->exc_pending = 1;
	v->seg[SEG_GS].base = 0xffff888000000000;
	memset(v->fpu_area, 0x5a, sizeof v->fpu_area);
	seen.ap = true;
	return v;
}

static void test_init(void)
{
	struct vcpu *v = busy();

	v->cr0 &= ~(CR0_CD | CR0_NW);
	start_post(v, -1);
	CU_ASSERT_EQUAL(v->pending & PEND_START, PEND_START);
	CU_ASSERT_EQUAL(v->regs[R_CX], 5); /* nothing yet */
	cpu_take_start(v);
	CU_ASSERT_EQUAL(v->pending & PEND_START, 0);
	CU_ASSERT_EQUAL(seen.apic_inits, 1);
	CU_ASSERT_EQUAL(v->halted, HALTED_SIPI);
	CU_ASSERT_EQUAL(v->cr0, CR0_ET); /* CD and NW as they were */
	CU_ASSERT_EQUAL(v->cr2 | v->cr3 | v->cr4 | v->efer | v->cr8, 0);
	CU_ASSERT_EQUAL(v->regs[R_CX] | v->regs[R_SP], 0);
	CU_ASSERT_NOT_EQUAL(v->regs[R_DX], 0); /* family, model, stepping */
	CU_ASSERT_EQUAL(vcpu_rflags(v), RFL_FIX);
	CU_ASSERT_EQUAL(v->rip, 0xfff0);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].sel, 0xf000);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].base, 0xffff0000);
	CU_ASSERT_EQUAL(v->seg[SEG_GS].base, 0);
	CU_ASSERT_EQUAL(v->gdtr.limit, 0xffff);
	CU_ASSERT_EQUAL(v->dr[0], 0);
	CU_ASSERT_EQUAL(v->dr[6], 0xffff0ff0);
	CU_ASSERT_EQUAL(v->dr[7], 0x400);
	CU_ASSERT_EQUAL(v->nmi_blocked | v->exc_pending, 0);
	/* left alone */
	CU_ASSERT_EQUAL(v->lstar, 0xffffffff81000000);
	CU_ASSERT_EQUAL(v->kernel_gs_base, 0x1234);
	CU_ASSERT_EQUAL(v->tsc_aux, 3);
	CU_ASSERT_EQUAL(v->pat, 0x0407050600070106);
	CU_ASSERT_EQUAL(v->mtrr_def_type, 0xc06);
	CU_ASSERT_EQUAL(v->tsc_offset, 99);
	CU_ASSERT_EQUAL(v->tsc_adjust, 8);
	CU_ASSERT_EQUAL(v->a20_off, 1u << 20);
	CU_ASSERT_EQUAL(v->xcr0, 3);
	CU_ASSERT_EQUAL(v->fpu_area[200], 0x5a);
}

static void test_sipi(void)
{
	struct vcpu *v = busy();

	start_post(v, 0x12); /* it does not wait for one */
	cpu_take_start(v);
	CU_ASSERT_EQUAL(v->regs[R_CX], 5);
	start_post(v, -1);
	cpu_take_start(v);
	v->pending |= PEND_NMI; /* lost, as none is taken now */
	start_post(v, 0x99);
	start_post(v, 0x9a); /* the second of the pair that every guest sends */
	cpu_take_start(v);
	CU_ASSERT_EQUAL(v->halted, HALTED_NO);
	CU_ASSERT_EQUAL(v->pending & PEND_NMI, 0);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].sel, 0x9900);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].base, 0x99000);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].limit, 0xffff);
	CU_ASSERT_EQUAL(v->seg_base[SEG_CS], 0x99000);
	CU_ASSERT_EQUAL(v->rip, 0);
	CU_ASSERT_EQUAL(v->cr0 & CR0_PE, 0);
	v->rip = 0x55;
	start_post(v, 0x9b);
	cpu_take_start(v);
	CU_ASSERT_EQUAL(v->rip, 0x55);
}

/* All of the sequence before the target's thread has looked once. */
static void test_at_once(void)
{
	struct vcpu *v = busy();

	start_post(v, 0x10); /* the INIT makes it forget this one */
	start_post(v, -1);
	start_post(v, 0x20);
	start_post(v, 0x21);
	cpu_take_start(v);
	CU_ASSERT_EQUAL(v->seg[SEG_CS].sel, 0x2000);
	CU_ASSERT_EQUAL(v->halted, HALTED_NO);
	start_post(v, 0x20);
	start_post(v, -1);
	cpu_take_start(v);
	CU_ASSERT_EQUAL(v->halted, HALTED_SIPI);
	CU_ASSERT_EQUAL(seen.apic_inits, 2);
}

/* The boot processor does not wait. */
static void test_bsp(void)
{
	struct vcpu *v = busy();

	seen.ap = false;
	start_post(v, -1);
	cpu_take_start(v);
	CU_ASSERT_EQUAL(v->halted, HALTED_NO);
	CU_ASSERT_EQUAL(v->rip, 0xfff0);
}

static void test_park(void)
{
	static struct vcpu bsp;
	struct vcpu *v = busy();

	bsp.tsc_offset = 1234;
	bsp.mtrr_def_type = 0xc06;
	bsp.mtrr_fixed[3] = 0x0606060606060606;
	cpu_reset(v);
	CU_ASSERT_EQUAL(v->a20_off, 0);
	cpu_park(v, &bsp);
	CU_ASSERT_EQUAL(v->tsc_offset, 1234);
	CU_ASSERT_EQUAL(v->mtrr_def_type, 0xc06);
	CU_ASSERT_EQUAL(v->mtrr_fixed[3], 0x0606060606060606);
	CU_ASSERT_EQUAL(v->halted, HALTED_SIPI);
}

/* Ids tell all CPUs apart, and their fields say who shares what. */
static void test_apic_ids(void)
{
	struct topology t;
	unsigned shapes = 0;

	for (t.sockets = 1; t.sockets <= 32; t.sockets++)
		for (t.cores = 1; t.cores * t.sockets <= 32; t.cores++)
			for (t.threads = 1; t.threads * t.cores * t.sockets <= 32; t.threads++) {
				uint64_t got[4] = {0};
				for (uint32_t i = 0; i < topology_cpus(&t); i++) {
					uint32_t id = topology_apic_id(&t, i);
					CU_ASSERT_FATAL(id < 255 && !(got[id / 64] >> (id % 64) & 1));
					got[id / 64] |= 1ull << (id % 64);
					CU_ASSERT_EQUAL(id >> topology_socket_shift(&t), i / (t.cores * t.threads));
					CU_ASSERT_EQUAL(id & ((1u << topology_thread_bits(&t)) - 1), i % t.threads);
				}
				shapes++;
			}
	CU_ASSERT(shapes > 100);
}

CU_ErrorCode suite_start(void)
{
	CU_pSuite s = CU_add_suite("start", NULL, NULL);

	CU_add_test(s, "INIT", test_init);
	CU_add_test(s, "start-up IPI", test_sipi);
	CU_add_test(s, "all at once", test_at_once);
	CU_add_test(s, "the boot processor", test_bsp);
	CU_add_test(s, "parked", test_park);
	CU_add_test(s, "APIC ids", test_apic_ids);
	return CU_get_error();
}
