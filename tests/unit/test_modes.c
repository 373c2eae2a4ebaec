/*
 * Modes against what is kept of them: what nobody translates never runs, whatever ran before it.
 * Invariant under test: a guest in another mode sees what a fresh machine in that mode does.
 */
#include <CUnit/CUnit.h>

#include "btvm.h"
#include "common/log.h"
#include "vcpu/mmu/mmu.h"

#define AT (BTVM_CODE + 0x100)

static void put(struct vcpu *v, uint64_t at, const char *hex)
{
	uint8_t code[128];

	btvm_put(v, at, code, btvm_hex(hex, code, sizeof code));
}

/*
 * The rule in other words: 64-bit code without a 16-bit stack, 32-bit code, or 16-bit code whose accesses are all checked, the
 * latter two in real mode as well, for one of three soft TLBs that fits.
 */
static bool is_known(uint32_t m)
{
	unsigned tlb = m >> 1 & 3;
	bool user = m & 1, code32 = m >> 3 & 1, code16 = m >> 4 & 1;

	if (m >> 21 || (code16 && code32) || tlb == 3 || user != (tlb == TLB_USER))
		return false;
	if (user && (m & (MODE_CPL0 | MODE_SMAP)))
		return false;
	if ((m & (MODE_BOUNCE | MODE_BOUNCE_STACK)) && !(m & MODE_STEP))
		return false;
	if (!(m & MODE_SLOWMEM) && (code16 || (m & MODE_SEGS)))
		return false;
	return code32 || code16 ? !(m & MODE_EDGE) : !(m & (MODE_SS16 | MODE_REAL | MODE_SEGS));
}

static void test_allow_list(void)
{
	uint32_t known = 0, bad = 0;

	for (uint32_t m = 0; m < 1u << 22; m++) {
		known += is_known(m);
		bad += mode_is_translated(m) != is_known(m);
	}
	for (unsigned b = 21; b < 32; b++)
		bad += mode_is_translated(1u << b | MODE_USER);
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT(known > 1000);
}

/* No word that is not on the list gets past the translator's door. */
static void test_gate(void)
{
	struct vcpu *v = btvm_reset();
	uint64_t refused = 0;

	log_set_fd(-1);
	for (uint32_t m = 0; m < 1u << 22; m += 1 + m / 64) {
		v->exc_pending = 0;
		if (is_known(m))
			continue;
		refused++;
		CU_ASSERT_EQUAL(btvm_translate(v, AT, m, "90 0f 0b"), BT_NONE);
		CU_ASSERT(v->exc_pending && v->exc_vector == EXC_UD);
	}
	log_set_fd(2);
	CU_ASSERT_EQUAL(v->stats.refused_code, refused);
	CU_ASSERT_EQUAL(v->stats.blocks, 0);
}

/* Runs in @v's state as it is; #UD at once, nothing done. */
static void refused(struct vcpu *v)
{
	uint64_t count = v->stats.refused_code;

	vcpu_update_mode(v);
	v->rip = AT;
	v->exc_pending = 0;
	v->regs[R_AX] = 0xaaaaaaaa;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
	CU_ASSERT_EQUAL(v->rip, AT);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0xaaaaaaaa);
	CU_ASSERT_EQUAL(v->stats.refused_code, count + 1);
}

/* mov eax, 0xeb1234; ud2 in 16 bits; mov ax, 0x1234; jmp 1f; 1: ud2 in 32 */
#define HIDDEN "66 b8 34 12 eb 00 0f 0b"

/* As the translator of 32-bit code knows the bytes already. */
static struct vcpu *warm(unsigned cpl)
{
	struct vcpu *v = btvm_reset();

	put(v, AT, HIDDEN);
	btvm_mode(v, cpl, 4);
	v->rip = AT;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->rip, AT + 6);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x1234);
	return v;
}

/* Runs in @v's state as 16-bit code. */
static void runs16(struct vcpu *v)
{
	vcpu_update_mode(v);
	v->rip = AT;
	v->exc_pending = 0;
	v->regs[R_AX] = 0xaaaaaaaa;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
	CU_ASSERT_EQUAL(v->rip, AT + 6);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0xeb1234);
}

static void test_code16(void)
{
	struct vcpu *v;

	log_set_fd(-1);
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		v = warm(cpl);
		v->seg[SEG_CS].attr &= ~SEG_A_DB;
		runs16(v);
		v->seg[SEG_CS].attr |= SEG_A_L | SEG_A_DB; /* cannot be loaded; if it could, it is no mode of ours */
		refused(v);
		v->seg[SEG_CS].attr &= ~(SEG_A_L | SEG_A_DB);
		runs16(v);
	}
	v = warm(3);
	v->seg[SEG_CS].attr &= ~SEG_A_DB;
	v->sysflags |= RFL_VM;
	runs16(v);
	v = warm(0);
	v->seg[SEG_CS].attr &= ~SEG_A_DB;
	v->cr0 &= ~(uint64_t)(CR0_PE | CR0_PG);
	v->efer &= ~(uint64_t)EFER_LMA;
	tlb_flush_all(v);
	runs16(v);
	/* as the instruction after sti */
	v = warm(3);
	v->seg[SEG_CS].attr &= ~SEG_A_DB;
	v->int_shadow = 1;
	runs16(v);
	log_set_fd(2);
}

/*
 * A breakpoint on the instruction behind mov ss, whose own read is watched: AMD's CPUs meet it, with what mov ss held back;
 * Intel's do not, and the trap comes behind that instruction.  Behind sti both meet it.
 */
static void test_breakpoints_in_shadows(void)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		struct vcpu *v = btvm_reset();
		uint8_t vendor = v->amd;
		uint16_t null = 0;

		v->cr4 &= ~(uint64_t)CR4_SMAP;
		v->amd = (uint8_t)amd;
		btvm_mode(v, 0, 8);
		btvm_put(v, BTVM_DATA, &null, 2);
		put(v, AT, "8e 16 90 90 90 0f 0b"); /* mov ss, [rsi] */
		v->regs[R_SI] = BTVM_DATA;
		v->dr[0] = BTVM_DATA;
		v->dr[1] = AT + 2;
		v->dr[7] = 0x70405;
		vcpu_update_mode(v);
		v->rip = AT;
		CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_DB);
		CU_ASSERT_EQUAL(v->rip, amd ? AT + 2 : AT + 3);
		CU_ASSERT_EQUAL(v->exc_dr6, amd ? 3 : 1);
		put(v, AT, "90 fb 90 90 90 0f 0b"); /* nop; sti */
		v->iflag = 0;
		v->int_shadow = 0;
		v->exc_pending = 0;
		v->rip = AT;
		CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_DB);
		CU_ASSERT_EQUAL(v->rip, AT + 2);
		v->amd = vendor;
		v->dr[7] = 0x400;
	}
}

CU_ErrorCode suite_modes(void);
CU_ErrorCode suite_modes(void)
{
	CU_pSuite s = CU_add_suite("modes", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "what is translated is listed", test_allow_list) ||
	    !CU_add_test(s, "nothing else passes the gate", test_gate) ||
	    !CU_add_test(s, "16-bit code, real and V86 mode", test_code16) ||
	    !CU_add_test(s, "breakpoints in shadows", test_breakpoints_in_shadows))
		return CU_get_error();
	return CUE_SUCCESS;
}
