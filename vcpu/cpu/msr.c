/*
 * Model-specific registers, by table.
 *
 * Invariant: what is not in the table raises #GP; a write is validated before
 * it is stored.  Numbers and meanings: SDM 4, APM 2 appendix A.
 */
#include "vcpu/cpu/msr.h"

#include "common/log.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/cpu/pvclock.h"
#include "vcpu/cpu/sysinsn.h"

enum vendor { ANY, INTEL, AMD };

struct msr {
	uint32_t first, last;
	uint8_t vendor;
	const char *name;
	int (*read)(const struct vcpu *v, const struct msr *m, uint32_t n, uint64_t *val);
	int (*write)(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val);
	uint32_t off; /* of the field in struct vcpu */
	uint64_t arg; /* constant read, or bits that may be written */
};

static uint64_t *field(struct vcpu *v, const struct msr *m, uint32_t n)
{
	return (uint64_t *)(void *)((char *)v + m->off) + (n - m->first);
}

static int rd_field(const struct vcpu *v, const struct msr *m, uint32_t n, uint64_t *val)
{
	*val = *((const uint64_t *)(const void *)((const char *)v + m->off) + (n - m->first));
	return 0;
}

static int rd_const(const struct vcpu *v, const struct msr *m, uint32_t n, uint64_t *val)
{
	*val = m->arg;
	return 0;
}

static int wr_masked(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	if (val & ~m->arg)
		return -1;
	*field(v, m, n) = val;
	return 0;
}

static int wr_canonical(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	if (!is_canonical(val))
		return -1;
	*field(v, m, n) = val;
	return 0;
}

static int wr_low32(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	*field(v, m, n) = (uint32_t)val;
	return 0;
}

static int wr_ignore(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	return 0;
}

static int wr_zero(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	return val ? -1 : 0;
}

/* ---- time ---- */

static int rd_tsc(const struct vcpu *v, const struct msr *m, uint32_t n, uint64_t *val)
{
	*val = cpu_tsc(v);
	return 0;
}

static void shift_tsc(struct vcpu *v, uint64_t by)
{
	v->tsc_offset += by;
	v->tsc_adjust += by;
	pvclock_refresh(v);
}

static int wr_tsc(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	shift_tsc(v, val - cpu_tsc(v));
	return 0;
}

static int wr_tsc_adjust(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	shift_tsc(v, val - v->tsc_adjust);
	return 0;
}

static int wr_pv_time(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	return pvclock_set_time(v, val);
}

static int wr_pv_wall(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	return pvclock_set_wall(v, val);
}

/* ---- modes and bases ---- */

static int wr_efer(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | (v->amd ? EFER_AIBRS : 0), changed;

	if (val & ~allowed)
		return -1;
	val = (val & ~(uint64_t)EFER_LMA) | (v->efer & EFER_LMA); /* LMA is the CPU's */
	changed = val ^ v->efer;
	if ((changed & EFER_LME) && (v->cr0 & CR0_PG))
		return -1;
	v->efer = val;
	if (changed & EFER_NXE)
		tlb_flush_all(v);
	vcpu_update_mode(v);
	return 0;
}

static unsigned base_seg(uint32_t n)
{
	return n == 0xc0000100 ? SEG_FS : SEG_GS;
}

static int rd_base(const struct vcpu *v, const struct msr *m, uint32_t n, uint64_t *val)
{
	*val = v->seg[base_seg(n)].base;
	return 0;
}

static int wr_base(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	if (!is_canonical(val))
		return -1;
	v->seg[base_seg(n)].base = val;
	v->seg_base[base_seg(n)] = val;
	if (!in_code64(v))
		vcpu_update_mode(v);
	return 0;
}

static int wr_tsc_aux(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	if (!v->amd && (val >> 32))
		return -1;
	v->tsc_aux = (uint32_t)val;
	return 0;
}

/* ---- memory types: kept for the guest, without effect on write-back RAM ---- */

static bool memory_type_ok(uint8_t t)
{
	return t == 0 || t == 1 || (t >= 4 && t <= 6);
}

static int wr_pat(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	for (int i = 0; i < 64; i += 8) {
		uint8_t t = (uint8_t)(val >> i);

		if (!memory_type_ok(t) && t != 7)
			return -1;
	}
	v->pat = val;
	return 0;
}

static int wr_mtrr_fixed(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	for (int i = 0; i < 64; i += 8)
		if (!memory_type_ok((uint8_t)(val >> i)))
			return -1;
	*field(v, m, n) = val;
	return 0;
}

static int wr_mtrr_var(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	bool mask = n & 1;

	if ((val & (v->phys_rsvd | 0xfff0000000000000ull)) || (mask ? val & 0x7ff : val & 0xf00))
		return -1;
	if (!mask && !memory_type_ok((uint8_t)val))
		return -1;
	*field(v, m, n) = val;
	return 0;
}

static int wr_mtrr_def(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	if ((val & ~0xcffull) || !memory_type_ok((uint8_t)val))
		return -1;
	v->mtrr_def_type = val;
	return 0;
}

/* ---- what the CPU says of itself ---- */

#define ARCH_CAPS_NO                                                                \
	(1ull << 0 |                            /* RDCL_NO: no Meltdown */          \
	 1ull << 1 |                            /* IBRS_ALL */                      \
	 1ull << 3 |                            /* SKIP_L1DFL_VMENTRY */            \
	 1ull << 4 |                            /* SSB_NO */                        \
	 1ull << 5 |                            /* MDS_NO */                        \
	 1ull << 6 |                            /* IF_PSCHANGE_MC_NO */             \
	 1ull << 8 |                            /* TAA_NO */                        \
	 1ull << 13 | 1ull << 14 | 1ull << 15 | /* SBDR_SSDP_NO FBSDP_NO PSDP_NO */ \
	 1ull << 20 |                           /* BHI_NO */                        \
	 1ull << 24 |                           /* PBRSB_NO */                      \
	 1ull << 26 |                           /* GDS_NO */                        \
	 1ull << 27 |                           /* RFDS_NO */                       \
	 1ull << 62)                            /* ITS_NO */

/* fast strings, TCC, SpeedStep, MONITOR, CPUID limit, xTPR, XD disable, turbo disable */
#define MISC_ENABLE_RW \
	(1ull << 0 | 1ull << 3 | 1ull << 16 | 1ull << 18 | 1ull << 22 | 1ull << 23 | 1ull << 34 | 1ull << 38)
#define MISC_ENABLE_RO (1ull << 7 | 1ull << 11 | 1ull << 12) /* counters; no BTS, no PEBS: writes have no effect */
#define MISC_ENABLE_IS (1ull << 11 | 1ull << 12)

static int wr_misc_enable(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	if (val & ~(MISC_ENABLE_RW | MISC_ENABLE_RO))
		return -1;
	v->misc_enable = (val & MISC_ENABLE_RW) | MISC_ENABLE_IS;
	return 0;
}

static int wr_pred_cmd(struct vcpu *v, const struct msr *m, uint32_t n, uint64_t val)
{
	return val & ~1ull ? -1 : 0; /* predictors are the host's: nothing to flush from here */
}

#define SPEC_CTRL_RW (7ull | 1ull << 10) /* IBRS STIBP SSBD, BHI_DIS_S */

#define AT(f)  offsetof(struct vcpu, f)
#define ONE(n) (n), (n)
#define ANY64  (~0ull)

/* The busiest first. */
static const struct msr table[] = {
	{0xc0000100, 0xc0000101, ANY, "FS_BASE, GS_BASE", rd_base, wr_base, 0, 0},
	{ONE(0xc0000102), ANY, "KERNEL_GS_BASE", rd_field, wr_canonical, AT(kernel_gs_base), 0},
	{ONE(0x48), INTEL, "SPEC_CTRL", rd_field, wr_masked, AT(spec_ctrl), SPEC_CTRL_RW},
	{ONE(0x49), INTEL, "PRED_CMD", NULL, wr_pred_cmd, 0, 0},
	{ONE(0x10), ANY, "TSC", rd_tsc, wr_tsc, 0, 0},
	{ONE(0x3b), ANY, "TSC_ADJUST", rd_field, wr_tsc_adjust, AT(tsc_adjust), 0},
	{ONE(0xc0000080), ANY, "EFER", rd_field, wr_efer, AT(efer), 0},
	{ONE(0xc0000081), ANY, "STAR", rd_field, wr_masked, AT(star), ANY64},
	{ONE(0xc0000082), ANY, "LSTAR", rd_field, wr_canonical, AT(lstar), 0},
	{ONE(0xc0000083), ANY, "CSTAR", rd_field, wr_canonical, AT(cstar), 0},
	{ONE(0xc0000084), ANY, "SFMASK", rd_field, wr_low32, AT(sfmask), 0},
	{ONE(0xc0000103), ANY, "TSC_AUX", rd_field, wr_tsc_aux, AT(tsc_aux), 0},
	{ONE(0x174), ANY, "SYSENTER_CS", rd_field, wr_low32, AT(sysenter_cs), 0},
	{ONE(0x175), ANY, "SYSENTER_ESP", rd_field, wr_canonical, AT(sysenter_esp), 0},
	{ONE(0x176), ANY, "SYSENTER_EIP", rd_field, wr_canonical, AT(sysenter_eip), 0},
	{ONE(0x277), ANY, "PAT", rd_field, wr_pat, AT(pat), 0},
	{ONE(0x1d9), ANY, "DEBUGCTL", rd_const, wr_zero, 0, 0},
	{ONE(0x1a0), INTEL, "MISC_ENABLE", rd_field, wr_misc_enable, AT(misc_enable), 0},
	/* eight variable ranges, fixed ranges, write combining */
	{ONE(0xfe), ANY, "MTRRCAP", rd_const, NULL, 0, 0x508},
	{0x200, 0x20f, ANY, "MTRR_PHYS", rd_field, wr_mtrr_var, AT(mtrr_var), 0},
	{ONE(0x250), ANY, "MTRR_FIX64K", rd_field, wr_mtrr_fixed, AT(mtrr_fixed[0]), 0},
	{0x258, 0x259, ANY, "MTRR_FIX16K", rd_field, wr_mtrr_fixed, AT(mtrr_fixed[1]), 0},
	{0x268, 0x26f, ANY, "MTRR_FIX4K", rd_field, wr_mtrr_fixed, AT(mtrr_fixed[3]), 0},
	{ONE(0x2ff), ANY, "MTRR_DEF_TYPE", rd_field, wr_mtrr_def, AT(mtrr_def_type), 0},
	/* machine checks: no banks */
	{ONE(0x179), ANY, "MCG_CAP", rd_const, NULL, 0, 0},
	{ONE(0x17a), ANY, "MCG_STATUS", rd_field, wr_masked, AT(mcg_status), 7},
	/* identity */
	{ONE(0x17), INTEL, "PLATFORM_ID", rd_const, NULL, 0, 0},
	{ONE(0x8b), INTEL, "BIOS_SIGN_ID", rd_const, wr_ignore, 0, 1ull << 32},
	{ONE(0x8b), AMD, "PATCH_LEVEL", rd_const, wr_ignore, 0, 0x01000065},
	{ONE(0x79), INTEL, "BIOS_UPDT_TRIG", NULL, wr_ignore, 0, 0},
	{ONE(0x3a), INTEL, "FEATURE_CONTROL", rd_const, NULL, 0, 1}, /* locked, nothing enabled */
	{ONE(0xce), INTEL, "PLATFORM_INFO", rd_const, NULL, 0, 0},
	{ONE(0x140), INTEL, "MISC_FEATURES_ENABLES", rd_const, wr_zero, 0, 0},
	{ONE(0x10a), INTEL, "ARCH_CAPABILITIES", rd_const, NULL, 0, ARCH_CAPS_NO},
	{ONE(0x2a), INTEL, "EBL_CR_POWERON", rd_const, wr_ignore, 0, 0},
	{ONE(0x4e), INTEL, "PPIN_CTL", rd_const, NULL, 0, 1}, /* locked, no serial number */
	{ONE(0xc0011029), INTEL, "AMD's DE_CFG, which Linux asks every CPU for", NULL, NULL, 0, 0},
	/* what Linux looks for without asking CPUID: no SMIs, no energy, no productive cycles are counted */
	{ONE(0x34), INTEL, "SMI_COUNT", rd_const, NULL, 0, 0},
	{ONE(0x606), INTEL, "RAPL_POWER_UNIT", rd_const, NULL, 0, 0},
	{ONE(0x611), INTEL, "PKG_ENERGY_STATUS", rd_const, NULL, 0, 0},
	{ONE(0x619), INTEL, "DRAM_ENERGY_STATUS", rd_const, NULL, 0, 0},
	{ONE(0x639), INTEL, "PP0_ENERGY_STATUS", rd_const, NULL, 0, 0},
	{ONE(0x641), INTEL, "PP1_ENERGY_STATUS", rd_const, NULL, 0, 0},
	{ONE(0x64d), INTEL, "PLATFORM_ENERGY_COUNTER", rd_const, NULL, 0, 0},
	{ONE(0x64e), INTEL, "PPERF", rd_const, NULL, 0, 0},
	/* AMD */
	{0xc0010000, 0xc0010007, AMD, "PERF_CTL, PERF_CTR", rd_const, wr_ignore, 0, 0}, /* none that counts */
	{ONE(0xc0010010), AMD, "SYSCFG", rd_field, wr_masked, AT(amd_syscfg), ANY64},
	{ONE(0xc0010015), AMD, "HWCR", rd_field, wr_masked, AT(amd_hwcr), ANY64},
	{ONE(0xc001001f), AMD, "NB_CFG", rd_field, wr_masked, AT(amd_nb_cfg), ANY64},
	{ONE(0xc0010020), AMD, "PATCH_LOADER", NULL, wr_ignore, 0, 0},
	{ONE(0xc0010055), AMD, "INT_PENDING_MSG", rd_const, wr_zero, 0, 0},
	{0xc0010112, 0xc0010113, AMD, "SMM_ADDR, SMM_MASK", rd_const, NULL, 0, 0},
	{ONE(0xc0010114), AMD, "VM_CR", rd_const, wr_ignore, 0, 1ull << 4}, /* SVM disabled */
	{0xc0010140, 0xc0010141, AMD, "OSVW", rd_const, NULL, 0, 0},
	{0xc0011020, 0xc0011023, AMD, "LS_CFG, IC_CFG, DC_CFG", rd_const, wr_ignore, 0, 0},
	{ONE(0xc0011028), AMD, "FP_CFG", rd_const, wr_ignore, 0, 0},
	{ONE(0xc0011029), AMD, "DE_CFG", rd_field, wr_masked, AT(amd_de_cfg), ANY64},
	{0xc001102a, 0xc001102e, AMD, "BU_CFG2, LS_CFG2, BP_CFG", rd_const, wr_ignore, 0, 0},
	{ONE(0xc00110e3), AMD, "BP_CFG3", rd_const, wr_ignore, 0, 0},
	{ONE(0xc0010299), AMD, "RAPL_POWER_UNIT", rd_const, NULL, 0, 0},
	{0xc001029a, 0xc001029b, AMD, "CORE_ENERGY_STATUS, PKG_ENERGY_STATUS", rd_const, NULL, 0, 0},
	/* the paravirtual clock */
	{ONE(MSR_KVM_WALL_CLOCK_NEW), ANY, "KVM_WALL_CLOCK_NEW", rd_field, wr_pv_wall, AT(pv_wall_msr), 0},
	{ONE(MSR_KVM_SYSTEM_TIME_NEW), ANY, "KVM_SYSTEM_TIME_NEW", rd_field, wr_pv_time, AT(pv_time_msr), 0},
};

static const struct msr *find(const struct vcpu *v, uint32_t n)
{
	for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct msr *m = &table[i];

		if (n - m->first <= m->last - m->first && (m->vendor == ANY || (m->vendor == AMD) == (v->amd != 0)))
			return m;
	}
	return NULL;
}

/* Logs an unknown MSR the first time; the filter may also hide one that shares a hash. */
static void unknown(struct vcpu *v, uint32_t n, const char *what)
{
	uint32_t h = (n * 2654435761u) >> 24;

	if (v->msr_logged[h >> 6] >> (h & 63) & 1)
		return;
	v->msr_logged[h >> 6] |= 1ull << (h & 63);
	log_guest(LOG_LVL_INFO, "cpu %d: unknown MSR 0x%x %s: #GP", v->id, n, what);
}

static bool is_apic(uint32_t n)
{
	return n - 0x800u < 0x100 || n == 0x1b || n == 0x6e0;
}

int msr_read(struct vcpu *v, uint32_t msr, uint64_t *val)
{
	const struct msr *m;

	v->stats.msr_reads++;
	if (is_apic(msr))
		return platform_apic_rdmsr(v->vm->plat, v, msr, val);
	m = find(v, msr);
	if (m == NULL)
		unknown(v, msr, "read");
	return m != NULL && m->read != NULL ? m->read(v, m, msr, val) : -1;
}

int msr_write(struct vcpu *v, uint32_t msr, uint64_t val)
{
	const struct msr *m;

	v->stats.msr_writes++;
	if (is_apic(msr))
		return platform_apic_wrmsr(v->vm->plat, v, msr, val);
	m = find(v, msr);
	if (m == NULL)
		unknown(v, msr, "written");
	return m != NULL && m->write != NULL ? m->write(v, m, msr, val) : -1;
}
