/*
 * Saving and restoring extended state: the host's own instructions, run on an
 * aligned copy of the guest's memory with the guest's XCR0.
 *
 * Invariants: nothing a guest can put in memory makes a host instruction here
 * fault: every reserved bit is checked on the copy that is then loaded.  No image
 * with the registers' x87 pointers is ever in guest memory (fpu.h).
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/cpu/breakpoint.h"
#include "vcpu/cpu/fpu.h"
#include "vcpu/cpu/sysinsn.h"

#define XS_LEGACY       512u
#define XS_HEADER       576u /* legacy area and header */
#define XS_X87          1u
#define XS_SSE          2u
#define XS_AVX          4u
#define XCOMP_COMPACT   (1ull << 63)
#define XS_POINTERS_END 24 /* of the legacy area: what is before MXCSR */

/* xmm8-15, and the same halves of what is behind: outside 64-bit code they are neither saved nor loaded. */
#define HIGH_XMM 288u
#define HIGH_LEN 128u
enum { C_AVX = 2, C_ZMM_HI = 6, C_ZMM_16 };

struct xarea {
	uint8_t b[XS_ROOM];
} __attribute__((aligned(64)));

static uint64_t get64(const struct xarea *x, unsigned off)
{
	return *(const uint64_t *)(const void *)(x->b + off);
}

static void copy_part(struct xarea *to, const struct xarea *from, unsigned off, unsigned len)
{
	for (unsigned i = 0; i < len; i += 8)
		memcpy(to->b + off + i, from->b + off + i, 8);
}

/* Of an area with @parts what belongs to registers 8 and up, which 32-bit code does not have. */
static void copy_high(const struct vcpu *v, struct xarea *to, const struct xarea *from, uint64_t parts, bool compact)
{
	copy_part(to, from, HIGH_XMM, HIGH_LEN);
	for (unsigned i = C_AVX; i < XS_COMPONENTS; i++) {
		unsigned at = fpu_component_at(v, parts, compact, i), half = v->xs.size[i] / 2;

		if (!(parts >> i & 1))
			continue;
		if (i == C_AVX || i == C_ZMM_HI)
			copy_part(to, from, at + half, half);
		else if (i == C_ZMM_16)
			copy_part(to, from, at, 2 * half);
	}
}

/* #NM and #UD of the xsave family (SDM 2). */
static int xsave_allowed(struct vcpu *v)
{
	if (!(v->cr4 & CR4_OSXSAVE))
		return raise_ud(v);
	if (v->cr0 & CR0_TS)
		return raise_exception(v, EXC_NM);
	vcpu_fpu_in(v);
	return 0;
}

/* Linear address of the memory operand with its alignment; #GP(0) when misaligned, which the xsave family looks at first. */
static int area_linear(struct vcpu *v, const struct insn *in, unsigned size, unsigned align, unsigned acc,
		       uint64_t *lin)
{
	uint64_t base = !in_code64(v) || in->mem.seg >= SEG_FS ? v->seg[in->mem.seg].base : 0;

	if (align == 64 && ((insn_ea(v, in) + base) & 63)) {
		if (!v->amd && alignment_check(v, insn_ea(v, in) + base, 4))
			return -1;
		return raise_gp(v, 0);
	}
	if (insn_linear(v, in, insn_ea(v, in), size, acc, lin))
		return -1;
	if (align == 16 && alignment_check(v, *lin, 4))
		return -1;
	if (*lin & (align - 1))
		return raise_gp(v, 0);
	if (v->dr[7] & 0xff)
		breakpoint_access(v, *lin, size, acc);
	return 0;
}

/* May all of it be written?  Its last byte stands for the second page. */
static int area_check(struct vcpu *v, uint64_t lin, unsigned size)
{
	struct walk w;

	if (mmu_walk(v, lin, mmu_acc(v, ACC_W), &w) < 0)
		return -1;
	return (lin & 4095) + size > 4096 ? mmu_walk(v, lin + size - 1, mmu_acc(v, ACC_W), &w) : 0;
}

static void run_save(const struct insn *in, void *area, uint64_t rfbm)
{
	uint32_t lo = (uint32_t)rfbm, hi = rfbm >> 32;

#define RUN(insn) __asm__ volatile(insn " (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory")
	if (in->sysop == SYS_XSAVEC) {
		if (in->rex_w)
			RUN("xsavec64");
		else
			RUN("xsavec");
	} else if (in->rex_w) { /* xsaveopt's optimisation depends on addresses: save whole */
		RUN("xsave64");
	} else {
		RUN("xsave");
	}
#undef RUN
}

/* Is x87 state in its initial configuration, which is saved with pointers of zero?  (SDM 1 13.6) */
static bool x87_is_initial(const struct vcpu *v)
{
	uint32_t lo, hi;

	if (!(v->xsave_caps & 4))
		return false;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
	return !(lo & 1);
}

/* Saves into @x, which holds what is in memory now, with the x87 pointers as the guest may see them. */
static void save_clean(struct vcpu *v, const struct insn *in, struct xarea *x, uint64_t rfbm)
{
	uint8_t old[XS_POINTERS_END];

	memcpy(old, x->b, sizeof old);
	fpu_pointers_prepare(x->b);
	run_save(in, x, rfbm);
	fpu_pointers_out(v, x->b, old, in->rex_w);
}

/* In one page of RAM the host's instruction can work in place, saving checks nothing in memory, or on a copy nearby. */
static bool save_in_place(struct vcpu *v, const struct insn *in, uint64_t lin, unsigned size, uint64_t rfbm, int *r)
{
	struct walk w;
	void *host;

	if (in->code_size != 8 || (lin & 4095) + size > 4096)
		return false;
	*r = mmu_walk(v, lin, mmu_acc(v, ACC_W), &w);
	if (*r)
		return true;
	host = gmem_ptr(v->vm->mem, w.gpa, size, GMEM_READ | GMEM_WRITE);
	if (host == NULL)
		return false;
	if (!(rfbm & XS_X87) || x87_is_initial(v)) {
		run_save(in, host, rfbm);
	} else {
		struct xarea x;

		memcpy(x.b, host, size);
		save_clean(v, in, &x, rfbm);
		memcpy(host, x.b, size);
	}
	phys_written(v, w.gpa, size);
	return true;
}

static int do_xsave(struct vcpu *v, const struct insn *in)
{
	uint64_t rfbm = ((uint32_t)v->regs[R_AX] | v->regs[R_DX] << 32) & v->xcr0, lin;
	bool compact = in->sysop == SYS_XSAVEC;
	unsigned size = fpu_area_end(v, rfbm, compact);
	struct xarea x, old;
	int r = 0;

	if (xsave_allowed(v) || area_linear(v, in, size, 64, ACC_W, &lin))
		return -1;
	if (save_in_place(v, in, lin, size, rfbm, &r))
		return r ? -1 : insn_done(v, in);
	if (area_check(v, lin, size) || mmu_read(v, lin, x.b, size, mmu_acc(v, ACC_R)))
		return -1;
	if (in->code_size != 8)
		memcpy(old.b, x.b, size);
	save_clean(v, in, &x, rfbm);
	if (in->code_size != 8)
		copy_high(v, &x, &old, rfbm, compact);
	return mmu_write(v, lin, x.b, size, mmu_acc(v, ACC_W)) ? -1 : insn_done(v, in);
}

int sys_xsave(struct vcpu *v, const struct insn *in)
{
	return do_xsave(v, in);
}

int sys_xsaveopt(struct vcpu *v, const struct insn *in)
{
	return v->xsave_caps & 1 ? do_xsave(v, in) : raise_ud(v);
}

int sys_xsavec(struct vcpu *v, const struct insn *in)
{
	return v->xsave_caps & 2 ? do_xsave(v, in) : raise_ud(v);
}

/* Header checks of xrstor (SDM 1 13.8). */
static bool header_ok(const struct vcpu *v, const struct xarea *x)
{
	uint64_t bv = get64(x, 512), comp = get64(x, 520);
	bool compact = comp & XCOMP_COMPACT;

	if (get64(x, 528))
		return false;
	if (!compact && (comp || (bv & ~v->xcr0)))
		return false;
	if (compact && (!(v->xsave_caps & 2) || (comp & ~XCOMP_COMPACT & ~v->xcr0) || (bv & ~comp)))
		return false;
	for (unsigned o = 536; compact && o < XS_HEADER; o += 8)
		if (get64(x, o))
			return false;
	return true;
}

static bool mxcsr_ok(const struct vcpu *v, const struct xarea *x, uint64_t rfbm)
{
	bool compact = get64(x, 520) & XCOMP_COMPACT;
	bool loads = compact ? (rfbm & get64(x, 512) & XS_SSE) : (rfbm & (XS_SSE | XS_AVX)) != 0;

	return !loads || !(*(const uint32_t *)(const void *)(x->b + 24) & ~v->mxcsr_mask);
}

/* The rest of the area, which the standard form needs when it is asked for, the compacted one when it is there. */
static int read_rest(struct vcpu *v, struct xarea *x, uint64_t rfbm, uint64_t lin)
{
	bool compact = get64(x, 520) & XCOMP_COMPACT;
	uint64_t parts = compact ? get64(x, 520) & ~XCOMP_COMPACT : rfbm;
	uint64_t needed = compact ? rfbm & get64(x, 512) : rfbm;
	unsigned end = XS_HEADER, to;
	struct walk w;

	for (unsigned i = C_AVX; i < XS_COMPONENTS; i++) {
		to = needed >> i & 1 ? fpu_component_at(v, parts, compact, i) + v->xs.size[i] : 0;
		end = to > end ? to : end;
	}
	if (end == XS_HEADER)
		return 0;
	if (mmu_walk(v, lin + end - 1, mmu_acc(v, ACC_R), &w) < 0)
		return -1;
	return mmu_read(v, lin + XS_HEADER, x->b + XS_HEADER, end - XS_HEADER, mmu_acc(v, ACC_R));
}

static void snapshot(const struct vcpu *v, struct xarea *x)
{
	memset(x->b, 0, sizeof x->b);
	__asm__ volatile("xsave64 (%0)" : : "r"(x), "a"((uint32_t)v->xcr0_mask), "d"(0) : "memory");
}

/* After a load outside 64-bit code: registers 8 and up as they were. */
static void put_back_high(const struct vcpu *v, const struct xarea *old)
{
	struct xarea now;

	snapshot(v, &now);
	copy_high(v, &now, old, v->xcr0_mask, false);
	*(uint64_t *)(void *)(now.b + 512) |= get64(old, 512) & ~(uint64_t)XS_X87;
	__asm__ volatile("xrstor64 (%0)" : : "r"(&now), "a"((uint32_t)v->xcr0_mask), "d"(0) : "memory");
}

/* Where x87 state is not in the image it becomes the initial one. */
static void take_pointers(struct vcpu *v, const struct insn *in, struct xarea *x, uint64_t rfbm)
{
	if (!(rfbm & XS_X87))
		return;
	if (get64(x, 512) & XS_X87)
		fpu_pointers_in(v, x->b, in->rex_w);
	else
		v->x87 = (struct x87_pointers){0};
}

int sys_xrstor(struct vcpu *v, const struct insn *in)
{
	uint64_t rfbm = ((uint32_t)v->regs[R_AX] | v->regs[R_DX] << 32) & v->xcr0, lin;
	struct xarea x, old;

	if (xsave_allowed(v) || area_linear(v, in, XS_HEADER, 64, ACC_R, &lin))
		return -1;
	if (mmu_read(v, lin, x.b, XS_HEADER, mmu_acc(v, ACC_R)))
		return -1;
	if (!header_ok(v, &x))
		return raise_gp(v, 0);
	if (read_rest(v, &x, rfbm, lin))
		return -1;
	if (!mxcsr_ok(v, &x, rfbm))
		return raise_gp(v, 0);
	take_pointers(v, in, &x, rfbm);
	if (in->code_size != 8)
		snapshot(v, &old);
	if (in->rex_w)
		__asm__ volatile("xrstor64 (%0)" : : "r"(&x), "a"((uint32_t)rfbm), "d"(0) : "memory");
	else
		__asm__ volatile("xrstor (%0)" : : "r"(&x), "a"((uint32_t)rfbm), "d"(0) : "memory");
	if (in->code_size != 8)
		put_back_high(v, &old);
	return insn_done(v, in);
}

static int fxsave_allowed(struct vcpu *v)
{
	if (v->cr0 & CR0_EM)
		return raise_ud(v);
	if (v->cr0 & CR0_TS)
		return raise_exception(v, EXC_NM);
	vcpu_fpu_in(v);
	return 0;
}

int sys_fxsave(struct vcpu *v, const struct insn *in)
{
	struct xarea x, old;
	uint64_t lin;

	if (fxsave_allowed(v) || area_linear(v, in, XS_LEGACY, 16, ACC_W, &lin))
		return -1;
	if (area_check(v, lin, XS_LEGACY) || mmu_read(v, lin, x.b, XS_LEGACY, mmu_acc(v, ACC_R)))
		return -1;
	memcpy(old.b, x.b, XS_LEGACY);
	fpu_pointers_prepare(x.b);
	if (in->rex_w)
		__asm__ volatile("fxsave64 (%0)" : : "r"(&x) : "memory");
	else
		__asm__ volatile("fxsave (%0)" : : "r"(&x) : "memory");
	fpu_pointers_out(v, x.b, old.b, in->rex_w);
	if (in->code_size != 8)
		copy_part(&x, &old, HIGH_XMM, HIGH_LEN);
	return mmu_write(v, lin, x.b, XS_LEGACY, mmu_acc(v, ACC_W)) ? -1 : insn_done(v, in);
}

int sys_fxrstor(struct vcpu *v, const struct insn *in)
{
	struct xarea x, old;
	uint64_t lin;

	if (fxsave_allowed(v) || area_linear(v, in, XS_LEGACY, 16, ACC_R, &lin))
		return -1;
	if (mmu_read(v, lin, x.b, XS_LEGACY, mmu_acc(v, ACC_R)))
		return -1;
	if (*(const uint32_t *)(const void *)(x.b + 24) & ~v->mxcsr_mask)
		return raise_gp(v, 0);
	if (in->code_size != 8) {
		snapshot(v, &old);
		copy_part(&x, &old, HIGH_XMM, HIGH_LEN);
	}
	fpu_pointers_in(v, x.b, in->rex_w);
	if (in->rex_w)
		__asm__ volatile("fxrstor64 (%0)" : : "r"(&x) : "memory");
	else
		__asm__ volatile("fxrstor (%0)" : : "r"(&x) : "memory");
	return insn_done(v, in);
}

static int x87_allowed(struct vcpu *v)
{
	if (v->cr0 & (CR0_EM | CR0_TS))
		return raise_exception(v, EXC_NM);
	vcpu_fpu_in(v);
	return 0;
}

/* frstor and fldenv wait: an unmasked exception that is pending comes first. */
static int x87_wait(struct vcpu *v)
{
	uint16_t sw;

	__asm__ volatile("fnstsw %0" : "=a"(sw));
	return sw & 0x80 ? raise_exception(v, EXC_MF) : 0;
}

static unsigned env_size(const struct insn *in)
{
	return in->opsize == 2 ? 14 : 28;
}

#define X87_REGS 80 /* bytes of the eight registers, behind the environment of fnsave */

/* An environment with the registers behind it: the form of 32-bit operands, which is the only one the host is given. */
struct x87_image {
	uint32_t env[7];
	uint8_t regs[X87_REGS];
};

/* The guest's @size bytes of @image: with 16-bit operands each word of the environment without its upper half. */
static void image_put(const struct insn *in, const struct x87_image *image, uint8_t *out, unsigned size)
{
	unsigned env = env_size(in);

	for (unsigned i = 0; i < 7; i++)
		memcpy(out + i * (env / 7), &image->env[i], env / 7);
	memcpy(out + env, image->regs, size - env);
}

static void image_get(const struct insn *in, struct x87_image *image, const uint8_t *from, unsigned size)
{
	unsigned env = env_size(in);

	memset(image, 0, sizeof *image);
	for (unsigned i = 0; i < 7; i++)
		memcpy(&image->env[i], from + i * (env / 7), env / 7);
	memcpy(image->regs, from + env, size - env);
}

/* Linear address of an environment or a whole state, which is made of @in's operand size. */
static int env_linear(struct vcpu *v, const struct insn *in, unsigned size, unsigned acc, uint64_t *lin)
{
	if (insn_linear(v, in, insn_ea(v, in), size, acc, lin))
		return -1;
	if (alignment_check(v, *lin, in->opsize == 2 ? 2 : 4))
		return -1;
	if (v->dr[7] & 0xff)
		breakpoint_access(v, *lin, size, acc);
	return 0;
}

/* Stores of the environment: every byte of memory is checked before the FPU changes. */
static int store_env(struct vcpu *v, const struct insn *in, unsigned size, bool all)
{
	uint8_t out[28 + X87_REGS];
	struct x87_image image;
	uint64_t lin;

	if (x87_allowed(v) || env_linear(v, in, size, ACC_W, &lin) || area_check(v, lin, size))
		return -1;
	if (all)
		__asm__ volatile("fnsave %0" : "=m"(image));
	else
		__asm__ volatile("fnstenv %0" : "=m"(image));
	fpu_env_out(v, image.env);
	image_put(in, &image, out, size);
	return mmu_write(v, lin, out, size, mmu_acc(v, ACC_W)) ? -1 : insn_done(v, in);
}

static int load_env(struct vcpu *v, const struct insn *in, unsigned size, bool all)
{
	uint8_t from[28 + X87_REGS];
	struct x87_image image;
	uint64_t lin;

	if (x87_allowed(v) || x87_wait(v) || env_linear(v, in, size, ACC_R, &lin) || op_mem_read(v, in, 0, from, size))
		return -1;
	image_get(in, &image, from, size);
	fpu_env_in(v, image.env);
	if (all)
		__asm__ volatile("frstor %0" : : "m"(image));
	else
		__asm__ volatile("fldenv %0" : : "m"(image));
	return insn_done(v, in);
}

int sys_fnsave(struct vcpu *v, const struct insn *in)
{
	return store_env(v, in, env_size(in) + X87_REGS, true);
}

int sys_frstor(struct vcpu *v, const struct insn *in)
{
	return load_env(v, in, env_size(in) + X87_REGS, true);
}

int sys_fnstenv(struct vcpu *v, const struct insn *in)
{
	return store_env(v, in, env_size(in), false);
}

int sys_fldenv(struct vcpu *v, const struct insn *in)
{
	return load_env(v, in, env_size(in), false);
}

/* fwait looks at MP and TS together, and at nothing else (SDM 3A table 2-2). */
static int do_fwait(struct vcpu *v, const struct insn *in)
{
	if ((v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		return raise_exception(v, EXC_NM);
	vcpu_fpu_in(v);
	return x87_wait(v) ? -1 : insn_done(v, in);
}

/* Why an x87 or vector instruction may not run now (SDM 3A tables 2-2 and 13-2). */
int sys_nm(struct vcpu *v, const struct insn *in)
{
	bool sse = in->isa == ISA_SSE || in->isa == ISA_AVX || in->isa == ISA_AVX512;

	if (in->opcode == 0x9b && in->opcode_map == 0)
		return do_fwait(v, in);
	if (in->isa == ISA_AVX && (!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & 6) != 6))
		return raise_ud(v);
	if (in->isa == ISA_AVX512 && (!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & XCR0_AVX512) != XCR0_AVX512))
		return raise_ud(v);
	if (in->isa == ISA_SSE && !(v->cr4 & CR4_OSFXSR))
		return raise_ud(v);
	if ((v->cr0 & CR0_EM) && (in->isa == ISA_MMX || in->isa == ISA_SSE))
		return raise_ud(v);
	if (sse && !(v->cr0 & CR0_TS))
		return raise_ud(v);
	return raise_exception(v, EXC_NM);
}
