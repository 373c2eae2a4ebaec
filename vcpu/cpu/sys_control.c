/*
 * Control and debug registers, XCR0, and the flushes they ask for.
 *
 * Invariant: a write is checked whole before any of it takes effect, and no
 * soft TLB entry survives a change that could forbid what it allows.
 *
 * PCID: there is one set of soft TLBs and it holds the current PCID's entries
 * only; those of others wait in banks (mmu/bank.c).
 */
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/sysinsn.h"

#define CR0_BITS    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR3_NOFLUSH (1ull << 63)
#define CR3_PCID    0xfffull

/* PDPTEs of PAE paging: reserved bits (SDM 3A table 4-8).  0 or #GP(0). */
static int load_pdptes(struct vcpu *v, uint64_t cr3)
{
	uint64_t e[4];

	phys_read(v, cr3 & 0xffffffe0u, e, sizeof(e));
	for (int i = 0; i < 4; i++)
		if ((e[i] & 1) && (e[i] & (v->phys_rsvd | 0xfff00000000001e6ull)))
			return raise_gp(v, 0);
	for (int i = 0; i < 4; i++)
		v->pdpte[i] = e[i];
	return 0;
}

/* CR0.PG goes from 0 to 1: long mode is entered when EFER.LME is set (SDM 3A 9.8.5). */
static int paging_on(struct vcpu *v)
{
	bool lme = v->efer & EFER_LME;

	if (lme && (!(v->cr4 & CR4_PAE) || (v->seg[SEG_CS].attr & SEG_A_L)))
		return raise_gp(v, 0);
	if (!lme && (v->cr4 & CR4_PAE) && load_pdptes(v, v->cr3))
		return -1;
	if (lme)
		v->efer |= EFER_LMA;
	return 0;
}

static int paging_off(struct vcpu *v)
{
	if (in_code64(v) || (v->cr4 & CR4_PCIDE))
		return raise_gp(v, 0);
	v->efer &= ~(uint64_t)EFER_LMA;
	return 0;
}

int cr0_write(struct vcpu *v, uint64_t val)
{
	uint64_t old = v->cr0, changed;

	if ((val >> 32) || ((val & CR0_PG) && !(val & CR0_PE)) || ((val & CR0_NW) && !(val & CR0_CD)))
		return raise_gp(v, 0);
	val = (val & CR0_BITS) | CR0_ET;
	changed = old ^ val;
	if ((changed & CR0_PG) && (val & CR0_PG ? paging_on(v) : paging_off(v)))
		return -1;
	if (!(changed & CR0_PG) && (val & CR0_PG) && (changed & (CR0_CD | CR0_NW)) && (v->cr4 & CR4_PAE) &&
	    !in_long_mode(v) && load_pdptes(v, v->cr3))
		return -1;
	v->cr0 = val;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		tlb_flush_all(v);
	vcpu_update_mode(v);
	return 0;
}

int cr3_write(struct vcpu *v, uint64_t val)
{
	bool pcide = v->cr4 & CR4_PCIDE, noflush = pcide && (val & CR3_NOFLUSH);

	if (in_long_mode(v)) {
		if (pcide)
			val &= ~CR3_NOFLUSH;
		if (val & (v->phys_rsvd | 0xfff0000000000000ull))
			return raise_gp(v, 0);
	} else {
		val = (uint32_t)val;
		if ((v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && load_pdptes(v, val))
			return -1;
	}
	v->stats.cr3_loads++;
	if (noflush && val == v->cr3)
		return 0;
	if (pcide)
		tlb_switch(v, v->cr3 & CR3_PCID, val & CR3_PCID, !noflush);
	else
		tlb_flush_nonglobal(v);
	v->cr3 = val;
	return 0;
}

int cr4_write(struct vcpu *v, uint64_t val)
{
	const uint32_t paging = CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP;
	uint64_t changed = v->cr4 ^ val;

	if (val & ~v->cr4_mask)
		return raise_gp(v, 0);
	if (in_long_mode(v) && !(val & CR4_PAE))
		return raise_gp(v, 0);
	if ((changed & val & CR4_PCIDE) && (!in_long_mode(v) || (v->cr3 & CR3_PCID)))
		return raise_gp(v, 0);
	if ((v->cr0 & CR0_PG) && !in_long_mode(v) && (val & CR4_PAE) && (changed & paging) && load_pdptes(v, v->cr3))
		return -1;
	v->cr4 = val;
	if (changed & (paging | CR4_PCIDE))
		tlb_flush_all(v);
	vcpu_update_mode(v);
	return 0;
}

static int cr8_write(struct vcpu *v, uint64_t val)
{
	if (val > 15)
		return raise_gp(v, 0);
	v->cr8 = val;
	platform_set_tpr(v->vm->plat, v, (uint8_t)(val << 4));
	return 0;
}

static unsigned cr_size(const struct insn *in)
{
	return in->code_size == 8 ? 8 : 4;
}

int sys_mov_to_cr(struct vcpu *v, const struct insn *in)
{
	uint64_t val = reg_read(v, in->rm, cr_size(in));
	int r = 0;

	if (in->reg != 0 && in->reg != 2 && in->reg != 3 && in->reg != 4 && in->reg != 8)
		return raise_ud(v);
	if (v->cpl != 0)
		return raise_gp(v, 0);
	switch (in->reg) {
	case 0: r = cr0_write(v, val); break;
	case 2: v->cr2 = val; break;
	case 3: r = cr3_write(v, val); break;
	case 4: r = cr4_write(v, val); break;
	default: r = cr8_write(v, val); break;
	}
	return r ? -1 : insn_done(v, in);
}

int sys_mov_from_cr(struct vcpu *v, const struct insn *in)
{
	uint64_t val;

	if (in->reg != 0 && in->reg != 2 && in->reg != 3 && in->reg != 4 && in->reg != 8)
		return raise_ud(v);
	if (v->cpl != 0)
		return raise_gp(v, 0);
	switch (in->reg) {
	case 0: val = v->cr0; break;
	case 2: val = v->cr2; break;
	case 3: val = v->cr3; break;
	case 4: val = v->cr4; break;
	default: val = platform_get_tpr(v->vm->plat, v) >> 4; break;
	}
	reg_write(v, in->rm, val, cr_size(in));
	return insn_done(v, in);
}

#define DR6_FIXED 0xffff0ff0u
#define DR6_BD    (1u << 13)
#define DR7_GD    (1u << 13)

/* The register meant, or -1 after raising (SDM 3B 17.2). */
static int debug_reg(struct vcpu *v, const struct insn *in, unsigned *n)
{
	*n = in->reg & 15;
	if (*n > 7 || ((v->cr4 & CR4_DE) && (*n == 4 || *n == 5)))
		return raise_ud(v);
	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (*n == 4 || *n == 5)
		*n += 2;
	if (v->dr[7] & DR7_GD) {
		raise_exception(v, EXC_DB);
		v->exc_dr6 = DR6_BD;
		return -1;
	}
	return 0;
}

int sys_mov_from_dr(struct vcpu *v, const struct insn *in)
{
	unsigned n;

	if (debug_reg(v, in, &n))
		return -1;
	reg_write(v, in->rm, v->dr[n], cr_size(in));
	return insn_done(v, in);
}

int sys_mov_to_dr(struct vcpu *v, const struct insn *in)
{
	uint64_t val = reg_read(v, in->rm, cr_size(in));
	unsigned n;

	if (debug_reg(v, in, &n))
		return -1;
	if (n >= 6 && (val >> 32))
		return raise_gp(v, 0);
	if (n == 6)
		val = (val & 0xe00f) | DR6_FIXED;
	if (n == 7)
		val = (val & 0xffff23ff) | 0x400;
	v->dr[n] = val;
	vcpu_update_mode(v);
	return insn_done(v, in);
}

int sys_clts(struct vcpu *v, const struct insn *in)
{
	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (v->cr0 & CR0_TS) {
		v->cr0 &= ~(uint64_t)CR0_TS;
		vcpu_update_mode(v);
	}
	return insn_done(v, in);
}

int sys_lmsw(struct vcpu *v, const struct insn *in)
{
	uint64_t val;

	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (op_read(v, in, 2, &val))
		return -1;
	val = (v->cr0 & ~(uint64_t)(CR0_MP | CR0_EM | CR0_TS)) | (val & 15); /* PE can be set, never cleared */
	return cr0_write(v, val) ? -1 : insn_done(v, in);
}

int sys_smsw(struct vcpu *v, const struct insn *in)
{
	if ((v->cr4 & CR4_UMIP) && v->cpl != 0)
		return raise_gp(v, 0);
	if (op_write(v, in, in->has_mem ? 2 : in->opsize, v->cr0))
		return -1;
	return insn_done(v, in);
}

int sys_invlpg(struct vcpu *v, const struct insn *in)
{
	uint64_t lin = insn_ea(v, in);

	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (!in_code64(v))
		lin = (uint32_t)(lin + v->seg[in->mem.seg].base);
	else if (in->mem.seg >= SEG_FS)
		lin += v->seg[in->mem.seg].base;
	if (!in_code64(v) || is_canonical(lin))
		tlb_flush_page(v, lin);
	return insn_done(v, in);
}

int sys_invpcid(struct vcpu *v, const struct insn *in)
{
	uint64_t type = reg_read(v, in->reg, cr_size(in)), d[2], pcid, current;

	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (op_mem_read(v, in, 0, d, 16))
		return -1;
	pcid = d[0] & CR3_PCID;
	current = v->cr4 & CR4_PCIDE ? v->cr3 & CR3_PCID : 0;
	if (type > 3 || (type <= 1 && ((d[0] & ~CR3_PCID) || (pcid && !(v->cr4 & CR4_PCIDE)))))
		return raise_gp(v, 0);
	if (type == 0 && !is_canonical(d[1]))
		return raise_gp(v, 0);
	if (type == 2)
		tlb_flush_all(v);
	else if (type == 0 && pcid == current)
		tlb_flush_page(v, d[1]);
	else if (type == 3 || pcid == current)
		tlb_flush_nonglobal(v);
	if (type == 3)
		bank_forget_all(v);
	else
		bank_forget(v, pcid);
	return insn_done(v, in);
}

/* Guest memory is the host's write-back memory: there is no cache to lose or write back. */
int sys_invd(struct vcpu *v, const struct insn *in)
{
	return v->cpl != 0 ? raise_gp(v, 0) : insn_done(v, in);
}

int sys_xgetbv(struct vcpu *v, const struct insn *in)
{
	uint32_t lo, hi, index = (uint32_t)v->regs[R_CX];
	uint64_t val = v->xcr0;

	if (!(v->cr4 & CR4_OSXSAVE))
		return raise_ud(v);
	if (index > 1 || (index == 1 && !(v->xsave_caps & 4)))
		return raise_gp(v, 0);
	if (index == 1) { /* which components are in use: live in the host's registers */
		vcpu_fpu_in(v);
		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
		val &= (uint64_t)hi << 32 | lo;
	}
	v->regs[R_AX] = (uint32_t)val;
	v->regs[R_DX] = val >> 32;
	return insn_done(v, in);
}

int sys_xsetbv(struct vcpu *v, const struct insn *in)
{
	uint64_t val = (uint32_t)v->regs[R_AX] | v->regs[R_DX] << 32;

	if (!(v->cr4 & CR4_OSXSAVE))
		return raise_ud(v);
	if (v->cpl != 0 || (uint32_t)v->regs[R_CX] != 0)
		return raise_gp(v, 0);
	if (!(val & 1) || (val & ~v->xcr0_mask) || ((val & 4) && !(val & 2)))
		return raise_gp(v, 0);
	if ((val & XCR0_AVX512_ONLY) && (val & XCR0_AVX512) != XCR0_AVX512) /* all of it, on top of AVX, or none */
		return raise_gp(v, 0);
	v->xcr0 = val;
	vcpu_update_mode(v);
	return insn_done(v, in);
}
