/*
 * What of a virtual CPU is saved.  Invariant: every field of struct cpu has a row, be it to say why it is not saved:
 * tests/unit/test_save.c finds those without.
 */
#include "vcpu/cpu/save_cpu.h"

#include "vcpu/cpu/state.h"

extern const struct save_table seg_save, dtable_save, x87_save;

#define FIXED "made by cpu_reset() from what CPUID offers"

/* clang-format off: one a line */
static const struct save_row seg_save_rows[] = {
	SAVE(struct seg, base),
	SAVE(struct seg, limit),
	SAVE(struct seg, attr),
	SAVE(struct seg, sel),
};
SAVE_TABLE(seg_save, struct seg, "segment");

static const struct save_row dtable_save_rows[] = {
	SAVE(struct dtable, base),
	SAVE(struct dtable, limit),
};
SAVE_TABLE(dtable_save, struct dtable, "dtable");

static const struct save_row x87_save_rows[] = {
	SAVE(struct x87_pointers, ip), SAVE(struct x87_pointers, dp), SAVE(struct x87_pointers, op),
	SAVE(struct x87_pointers, cs), SAVE(struct x87_pointers, ds),
};
SAVE_TABLE(x87_save, struct x87_pointers, "x87-pointers");

static const struct save_row cpu_save_rows[] = {
	SAVE_ARRAY(struct cpu, regs),
	SAVE(struct cpu, rip),
	SAVE_ARRAY(struct cpu, seg_base),
	SAVE(struct cpu, tsc_offset),
	SAVE(struct cpu, flags),
	SAVE_MAX(struct cpu, df, 1),
	SAVE_MAX(struct cpu, iflag, 1),
	SAVE(struct cpu, pending),
	SAVE_OMIT(struct cpu, code_key, "follows from cs"),
	SAVE_OMIT(struct cpu, seg_top, "follows from seg"),
	SAVE_MAX(struct cpu, start, 0x3ff),
	SAVE(struct cpu, sysflags),
	SAVE_MAX(struct cpu, cpl, 3),
	SAVE_MAX(struct cpu, int_shadow, 2),
	SAVE_MAX(struct cpu, nmi_blocked, 1),
	SAVE_MAX(struct cpu, halted, HALTED_SIPI),
	SAVE_OMIT(struct cpu, db_hits, "of the running instruction"),
	SAVE(struct cpu, db_held),
	SAVE_STRUCTS(struct cpu, seg, seg_save),
	SAVE_STRUCT(struct cpu, ldtr, seg_save),
	SAVE_STRUCT(struct cpu, tr, seg_save),
	SAVE_STRUCT(struct cpu, gdtr, dtable_save),
	SAVE_STRUCT(struct cpu, idtr, dtable_save),
	SAVE(struct cpu, cr0),
	SAVE(struct cpu, cr2),
	SAVE(struct cpu, cr3),
	SAVE(struct cpu, cr4),
	SAVE(struct cpu, cr8),
	SAVE(struct cpu, efer),
	SAVE(struct cpu, xcr0),
	SAVE_ARRAY(struct cpu, dr),
	SAVE_ARRAY(struct cpu, pdpte),
	SAVE(struct cpu, star),
	SAVE(struct cpu, lstar),
	SAVE(struct cpu, cstar),
	SAVE(struct cpu, sfmask),
	SAVE(struct cpu, kernel_gs_base),
	SAVE(struct cpu, sysenter_cs),
	SAVE(struct cpu, sysenter_esp),
	SAVE(struct cpu, sysenter_eip),
	SAVE(struct cpu, tsc_aux),
	SAVE(struct cpu, pat),
	SAVE(struct cpu, misc_enable),
	SAVE(struct cpu, spec_ctrl),
	SAVE(struct cpu, mtrr_def_type),
	SAVE(struct cpu, mcg_status),
	SAVE_ARRAY(struct cpu, mtrr_fixed),
	SAVE_ARRAY(struct cpu, mtrr_var),
	SAVE(struct cpu, tsc_adjust),
	SAVE(struct cpu, amd_syscfg),
	SAVE(struct cpu, amd_hwcr),
	SAVE(struct cpu, amd_nb_cfg),
	SAVE(struct cpu, amd_de_cfg),
	SAVE(struct cpu, pv_time_msr),
	SAVE(struct cpu, pv_wall_msr),
	SAVE(struct cpu, a20_off),
	SAVE_OMIT(struct cpu, mode, "follows from the rest"),
	SAVE_MAX(struct cpu, exc_pending, 1),
	SAVE(struct cpu, exc_vector),
	SAVE_MAX(struct cpu, exc_has_error, 1),
	SAVE_MAX(struct cpu, exc_soft, 1),
	SAVE(struct cpu, exc_error),
	SAVE(struct cpu, exc_cr2),
	SAVE(struct cpu, exc_dr6),
	SAVE_STRUCT(struct cpu, x87, x87_save),
	SAVE_IN(struct cpu, fpu_saved, 1, 1), /* in fpu_area */
	SAVE_ARRAY(struct cpu, fpu_area),
	SAVE_OMIT(struct cpu, phys_rsvd, FIXED),
	SAVE_OMIT(struct cpu, xcr0_mask, FIXED),
	SAVE_OMIT(struct cpu, xs, FIXED),
	SAVE_OMIT(struct cpu, cr4_mask, FIXED),
	SAVE_OMIT(struct cpu, mxcsr_mask, FIXED),
	SAVE_OMIT(struct cpu, xsave_caps, FIXED),
	SAVE_OMIT(struct cpu, amd, FIXED),
	SAVE_OMIT(struct cpu, features, FIXED),
	SAVE_OMIT(struct cpu, msr_logged, "what the log has said"),
	SAVE_OMIT(struct cpu, cpuid, FIXED),
	SAVE_OMIT(struct cpu, n_cpuid, FIXED),
};
/* clang-format on */
SAVE_TABLE(cpu_save, struct cpu, "cpu");
