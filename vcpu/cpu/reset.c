/*
 * Power-on state, and the states in which kernels are entered.
 *
 * Invariant: after cpu_reset() nothing of the earlier guest is left in struct
 * vcpu but counters.
 */
#include "vcpu/cpu/reset.h"

#include <string.h>

#include "vcpu/chipset/lapic.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/cpuid.h"
#include "vcpu/cpu/feature.h"
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/start.h"
#include "vcpu/cpu/sysinsn.h"

#define PAT_RESET   0x0007040600070406ull
#define MXCSR_RESET 0x1f80u

static void set_seg(struct seg *s, uint16_t sel, uint64_t base, uint32_t limit, uint32_t attr)
{
	s->sel = sel;
	s->base = base;
	s->limit = limit;
	s->attr = attr;
}

static void reset_segments(struct vcpu *v)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_seg(&v->seg[i], 0, 0, 0xffff, SEG_A_P | SEG_A_S | 3);
	set_seg(&v->seg[SEG_CS], 0xf000, 0xffff0000, 0xffff,
		SEG_A_P | SEG_A_S | 3); /* writable, too: SDM 3A table 9-1 */
	set_seg(&v->ldtr, 0, 0, 0xffff, SEG_A_P | DT_LDT);
	set_seg(&v->tr, 0, 0, 0xffff, SEG_A_P | DT_TSS32_BUSY);
	v->gdtr = v->idtr = (struct dtable){0, 0xffff};
}

/* Everything in its initial configuration: an empty XSTATE_BV, MXCSR from memory. */
static void reset_fpu(struct vcpu *v)
{
	for (unsigned i = 0; i < sizeof v->fpu_area; i++)
		((volatile uint8_t *)v->fpu_area)[i] = 0;
	*(uint32_t *)(void *)(v->fpu_area + 24) = MXCSR_RESET;
	v->fpu_saved = 1;
	v->xcr0 = 1;
}

static void reset_control(struct vcpu *v)
{
	v->cr2 = v->cr3 = v->cr4 = v->cr8 = v->efer = 0;
	for (unsigned i = 0; i < 8; i++)
		v->dr[i] = 0;
	v->dr[6] = 0xffff0ff0;
	v->dr[7] = 0x400;
	for (unsigned i = 0; i < 4; i++)
		v->pdpte[i] = 0;
	v->cpl = v->int_shadow = v->nmi_blocked = v->halted = 0;
	v->exc_pending = v->exc_soft = 0;
	v->next = (struct next_run){NEXT_ANY}; /* what the run loop had under way */
	v->db_hits = v->db_held = 0;
}

static void reset_msrs(struct vcpu *v)
{
	v->star = v->lstar = v->cstar = v->sfmask = v->kernel_gs_base = 0;
	v->sysenter_cs = v->sysenter_esp = v->sysenter_eip = 0;
	v->tsc_aux = v->spec_ctrl = v->mcg_status = v->tsc_adjust = 0;
	v->pv_time_msr = v->pv_wall_msr = 0;
	v->pat = PAT_RESET;
	v->misc_enable = 1ull << 0 | 1ull << 11 | 1ull << 12;
	v->mtrr_def_type = 0;
	for (unsigned i = 0; i < 11; i++)
		v->mtrr_fixed[i] = 0;
	for (unsigned i = 0; i < 16; i++)
		v->mtrr_var[i] = 0;
	v->amd_syscfg = v->amd_nb_cfg = 0;
	v->amd_hwcr = 1ull << 24;  /* the TSC counts at P0 frequency */
	v->amd_de_cfg = 1ull << 1; /* lfence serialises */
	v->tsc_offset = 0;
	v->tsc_offset = -cpu_tsc(v);
}

/* Family, model, stepping: EAX of leaf 1. */
static uint32_t signature(const struct vcpu *v)
{
	for (uint32_t i = 0; i < v->n_cpuid; i++)
		if (v->cpuid[i].leaf == 1)
			return v->cpuid[i].eax;
	return 0;
}

void cpu_init(struct vcpu *v)
{
	for (unsigned i = 0; i < 16; i++)
		v->regs[i] = 0;
	v->regs[R_DX] = signature(v);
	v->rip = 0xfff0;
	v->cr0 = CR0_ET | (v->cr0 & (CR0_CD | CR0_NW));
	reset_segments(v);
	reset_control(v);
	flags_put(v, RFL_FIX);
	tlb_flush_all(v);
	vcpu_update_mode(v);
}

void cpu_reset(struct vcpu *v)
{
	cpuid_build(v);
	v->features = feature_offered(v->cpuid, v->n_cpuid);
	v->cr0 = CR0_CD | CR0_NW;
	v->a20_off = 0; /* the chips agree when they are reset */
	atomic_store(&v->start, 0);
	reset_msrs(v);
	reset_fpu(v);
	cpu_init(v);
}

void cpu_start(struct vcpu *v, uint8_t vector)
{
	set_seg(&v->seg[SEG_CS], (uint16_t)(vector << 8), (uint64_t)vector << 12, 0xffff, v->seg[SEG_CS].attr);
	v->rip = 0;
	v->halted = HALTED_NO;
	vcpu_update_mode(v);
}

static bool is_bsp(struct vcpu *v)
{
	uint64_t base;

	return !platform_apic_rdmsr(v->vm->plat, v, 0x1b, &base) && (base & APIC_BASE_BSP);
}

void cpu_take_start(struct vcpu *v)
{
	atomic_fetch_and(&v->pending, ~PEND_START);
	uint32_t s = atomic_exchange(&v->start, 0);

	if (s & START_INIT) {
		platform_apic_init(v->vm->plat, v);
		cpu_init(v);
		v->halted = is_bsp(v) ? HALTED_NO : HALTED_SIPI; /* the boot processor goes on at the reset vector */
	}
	if ((s & START_SIPI) && v->halted == HALTED_SIPI) {
		atomic_fetch_and(&v->pending, ~PEND_NMI); /* none is taken while a CPU waits */
		cpu_start(v, (uint8_t)s);
	}
}

void cpu_park(struct vcpu *v, const struct vcpu *bsp)
{
	v->tsc_offset = bsp->tsc_offset;
	v->mtrr_def_type = bsp->mtrr_def_type;
	memcpy(v->mtrr_fixed, bsp->mtrr_fixed, sizeof v->mtrr_fixed);
	v->halted = HALTED_SIPI;
}

/* What firmware would have done: MTRRs on, write-back everywhere. */
static void firmware_mtrrs(struct vcpu *v)
{
	v->mtrr_def_type = 1u << 11 | 1u << 10 | 6;
	for (unsigned i = 0; i < 11; i++)
		v->mtrr_fixed[i] = 0x0606060606060606ull;
}

static void flat_segments(struct vcpu *v, uint16_t code, uint32_t code_attr, uint16_t data)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		set_seg(&v->seg[i], data, 0, 0xffffffff, SEG_FLAT_DATA);
	set_seg(&v->seg[SEG_CS], code, 0, 0xffffffff, code_attr);
	set_seg(&v->tr, 0, 0, 0x67, SEG_A_P | DT_TSS32_BUSY);
	v->gdtr = v->idtr = (struct dtable){0, 0};
}

void cpu_set_long_flat(struct vcpu *v, uint64_t cr3, uint64_t rip, uint64_t rsi)
{
	v->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	v->cr4 = CR4_PAE;
	v->efer = EFER_LME | EFER_LMA;
	v->cr3 = cr3;
	flat_segments(v, 0x10, SEG_FLAT_CODE64, 0x18);
	firmware_mtrrs(v);
	v->regs[R_SI] = rsi;
	v->rip = rip;
	tlb_flush_all(v);
	vcpu_update_mode(v);
}

static void enter_prot(struct vcpu *v, uint32_t eip, uint16_t code, uint16_t data)
{
	v->cr0 = CR0_PE | CR0_ET;
	flat_segments(v, code, SEG_FLAT_CODE32, data);
	firmware_mtrrs(v);
	v->rip = eip;
	tlb_flush_all(v);
	vcpu_update_mode(v);
}

void cpu_set_prot_flat(struct vcpu *v, uint32_t eip, uint32_t eax, uint32_t ebx)
{
	enter_prot(v, eip, 0x8, 0x10);
	v->regs[R_AX] = eax;
	v->regs[R_BX] = ebx;
}

void cpu_set_linux32(struct vcpu *v, uint32_t eip, uint32_t esi)
{
	enter_prot(v, eip, 0x10, 0x18);
	v->regs[R_SI] = esi;
	v->regs[R_DX] = 0;
}
