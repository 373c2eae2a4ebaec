/*
 * Every mode bit flipped behind every kind of branch: blocks, links, cells, jump caches and banks that one mode has left
 * must not be seen by another.
 * Invariant under test: whatever ran before, code does what it does on a machine that has run nothing yet.
 */
#include <CUnit/CUnit.h>
#include <stdio.h>
#include <string.h>

#include "btvm.h"
#include "common/log.h"
#include "vcpu/cpu/sysinsn.h"
#include "vcpu/mmu/mmu.h"

#define SPAN    0x2000u /* of a kind's code */
#define NEAR    0x800u  /* its target, in the same page as the branch */
#define FAR     0x1400u /* in the next page */
#define SP      (BTVM_DATA + 0xf000)
#define GDT     (BTVM_DATA + 0xe000)
#define OPERAND (BTVM_DATA + 0x2001)
#define SHIFT   0x80000u /* what a code segment's base is moved by */

/* ---- kinds of branches; rbx: the target, [rdi]: the target, rsi: OPERAND, the target on the stack ---- */
static const struct kind {
	const char *name, *hex;
	uint32_t at, target;
	uint8_t rel; /* bytes of a displacement behind @hex */
	uint8_t rcx;
	uint8_t iret; /* the stack holds a frame for it */
} kinds[] = {
	{"jmp", "e9", 0x100, NEAR, 4, 0, 0},
	{"jmp, other page", "e9", 0x100, FAR, 4, 0, 0},
	{"jcc", "39 c0 0f 84", 0x100, NEAR, 4, 0, 0},
	{"jcc, other page", "39 c0 0f 84", 0x100, FAR, 4, 0, 0},
	{"jcc not taken", "39 c0 75 04", 0x100, 0x104, 0, 0, 0},
	{"short jmp", "eb", NEAR - 0x40, NEAR, 1, 0, 0},
	{"loop", "e2", NEAR - 0x40, NEAR, 1, 5, 0},
	{"jrcxz", "e3", NEAR - 0x40, NEAR, 1, 0, 0},
	{"call", "e8", 0x100, NEAR, 4, 0, 0},
	{"call, other page", "e8", 0x100, FAR, 4, 0, 0},
	{"ret", "c3", 0x100, NEAR, 0, 0, 0},
	{"ret, other page", "c3", 0x100, FAR, 0, 0, 0},
	{"jmp reg", "ff e3", 0x100, NEAR, 0, 0, 0},
	{"jmp mem", "ff 27", 0x100, FAR, 0, 0, 0},
	{"call reg", "ff d3", 0x100, FAR, 0, 0, 0},
	{"call mem", "ff 17", 0x100, NEAR, 0, 0, 0},
	{"fall through", "90 90", 0xffe, 0x1000, 0, 0, 0},
	{"iret", "cf", 0x100, NEAR, 0, 0, 1},
	{"iret, other page", "cf", 0x100, FAR, 0, 0, 1},
	{"syscall and back", "0f 05", 0x100, 0x102, 0, 0, 0},
	{"stac, jmp reg", "0f 01 cb ff e3", 0x100, NEAR, 0, 0, 0},
	{"stac, clac, jmp reg", "0f 01 cb 0f 01 ca ff e3", 0x100, FAR, 0, 0, 0},
};
#define KINDS     (sizeof kinds / sizeof kinds[0])
#define SYSRET_AT (BTVM_CODE + KINDS * SPAN)

/* ---- what is flipped ---- */
static void cr0_bit(struct vcpu *v, uint64_t bit, bool set)
{
	CU_ASSERT_EQUAL(cr0_write(v, set ? v->cr0 | bit : v->cr0 & ~bit), 0);
}

static void cr4_bit(struct vcpu *v, uint64_t bit, bool set)
{
	CU_ASSERT_EQUAL(cr4_write(v, set ? v->cr4 | (bit & v->cr4_mask) : v->cr4 & ~bit), 0);
}

static void sysflag(struct vcpu *v, uint32_t bit, bool set)
{
	v->sysflags = set ? v->sysflags | bit : v->sysflags & ~bit;
	vcpu_update_mode(v);
}

static void set_cs(struct vcpu *v, uint64_t base, uint32_t limit)
{
	v->seg[SEG_CS].base = base;
	v->seg[SEG_CS].limit = limit;
	vcpu_update_mode(v);
}

static void f_none(struct vcpu *v, bool on)
{
	(void)v;
	(void)on;
}

static void f_ts(struct vcpu *v, bool on)
{
	cr0_bit(v, CR0_TS, on);
}

static void f_em(struct vcpu *v, bool on)
{
	cr0_bit(v, CR0_EM, on);
}

static void f_osfxsr(struct vcpu *v, bool on)
{
	cr4_bit(v, CR4_OSFXSR, !on);
}

/* The one that memory is not needed for, so that stac leads on. */
static void f_osfxsr_smap(struct vcpu *v, bool on)
{
	if (!(v->cr4 & CR4_SMAP))
		cr4_bit(v, CR4_SMAP, true);
	cr4_bit(v, CR4_OSFXSR, !on);
}

static void f_osxsave(struct vcpu *v, bool on)
{
	cr4_bit(v, CR4_OSXSAVE, !on);
}

static void f_xcr0(struct vcpu *v, bool on)
{
	v->xcr0 = on ? 3 : 7;
	vcpu_update_mode(v);
}

static void f_xcr0_avx512(struct vcpu *v, bool on)
{
	v->xcr0 = on ? 7 : 7 | XCR0_AVX512;
	vcpu_update_mode(v);
}

static void f_tsd(struct vcpu *v, bool on)
{
	cr4_bit(v, CR4_TSD, on);
}

static void f_fsgsbase(struct vcpu *v, bool on)
{
	cr4_bit(v, CR4_FSGSBASE, !on);
}

static void f_umip(struct vcpu *v, bool on)
{
	cr4_bit(v, CR4_UMIP, on);
}

static void f_smep(struct vcpu *v, bool on)
{
	cr4_bit(v, CR4_SMEP, on);
}

static void f_smap(struct vcpu *v, bool on)
{
	cr4_bit(v, CR4_SMAP, on);
}

static void f_smap_ac(struct vcpu *v, bool on)
{
	if (!(v->cr4 & CR4_SMAP))
		cr4_bit(v, CR4_SMAP, true);
	sysflag(v, RFL_AC, !on);
}

static void f_ac(struct vcpu *v, bool on)
{
	if (!(v->cr0 & CR0_AM))
		cr0_bit(v, CR0_AM, true);
	sysflag(v, RFL_AC, on);
}

static void f_am(struct vcpu *v, bool on)
{
	if (!(v->sysflags & RFL_AC))
		sysflag(v, RFL_AC, true);
	cr0_bit(v, CR0_AM, on);
}

static void f_wp(struct vcpu *v, bool on)
{
	*btvm_pte(OPERAND) &= ~2ull;
	cr0_bit(v, CR0_WP, on);
}

static void f_iopl(struct vcpu *v, bool on)
{
	sysflag(v, RFL_IOPL, on);
}

static void f_tf(struct vcpu *v, bool on)
{
	sysflag(v, RFL_TF, on);
}

static void f_cpl1(struct vcpu *v, bool on)
{
	btvm_mode(v, on ? 1 : 0, 8);
}

static void f_cpl12(struct vcpu *v, bool on)
{
	btvm_mode(v, on ? 2 : 1, 8);
}

static void f_cpl3(struct vcpu *v, bool on)
{
	btvm_mode(v, on ? 3 : 0, 8);
}

static void f_cpl3_32(struct vcpu *v, bool on)
{
	btvm_mode(v, on ? 3 : 0, 4);
}

static void f_size(struct vcpu *v, bool on)
{
	btvm_mode(v, v->cpl, on ? 4 : 8);
}

static void f_16(struct vcpu *v, bool on)
{
	v->seg[SEG_CS].attr = on ? v->seg[SEG_CS].attr & ~SEG_A_DB : v->seg[SEG_CS].attr | SEG_A_DB;
	vcpu_update_mode(v);
}

static void f_vm(struct vcpu *v, bool on)
{
	sysflag(v, RFL_VM, on);
}

static void f_cs_base(struct vcpu *v, bool on)
{
	set_cs(v, on ? SHIFT : 0, 0xffffefff);
}

static void f_cs_flat(struct vcpu *v, bool on)
{
	set_cs(v, on ? SHIFT : 0, 0xffffffff);
}

/* Between the begin of the page that a branch of kind @k leads to and its target. */
static void limit_at(struct vcpu *v, bool on, unsigned k)
{
	CU_ASSERT_EQUAL(kinds[k].target, FAR);
	set_cs(v, 0, on ? BTVM_CODE + k * SPAN + FAR - 0x100 : 0xffffefff);
}

static void f_limit_jmp(struct vcpu *v, bool on)
{
	limit_at(v, on, 1);
}

static void f_limit_ret(struct vcpu *v, bool on)
{
	limit_at(v, on, 11);
}

static void f_limit_jmp_mem(struct vcpu *v, bool on)
{
	limit_at(v, on, 13);
}

static void f_ds_base(struct vcpu *v, bool on)
{
	v->seg[SEG_DS].base = on ? 16 : 0;
	vcpu_update_mode(v);
}

static void f_ds_limit(struct vcpu *v, bool on)
{
	v->seg[SEG_DS].limit = on ? 0xfff : 0xffffffff;
	vcpu_update_mode(v);
}

static void f_ss16(struct vcpu *v, bool on)
{
	v->seg[SEG_SS].attr = on ? v->seg[SEG_SS].attr & ~SEG_A_DB : v->seg[SEG_SS].attr | SEG_A_DB;
	vcpu_update_mode(v);
}

static void f_watch(struct vcpu *v, bool on)
{
	v->dr[0] = OPERAND;
	v->dr[7] = on ? 0x30401 : 0x400;
	vcpu_update_mode(v);
}

static void f_break(struct vcpu *v, bool on)
{
	v->dr[0] = BTVM_CODE + NEAR;
	v->dr[7] = on ? 0x401 : 0x400;
	vcpu_update_mode(v);
}

static void f_sce(struct vcpu *v, bool on)
{
	v->efer = on ? v->efer & ~(uint64_t)EFER_SCE : v->efer | EFER_SCE;
	vcpu_update_mode(v);
}

#define XORPS   "0f 57 c0"
#define LOAD    "8b 06" /* mov eax, [rsi] */
#define STORE   "89 06" /* mov [rsi], eax */
#define CLI     "fa"
#define SMSW    "0f 01 e1" /* smsw ecx */
#define RDTSC   "0f 31 31 c0 31 d2"
#define INC64   "48 ff c0" /* inc rax; in 32 bits dec eax, inc eax */
#define VXORPS  "c5 f8 57 c0"
#define VPORD   "62 f1 7d 48 eb c0"
#define RDFS    "f3 48 0f ae c1"
#define IMM     "b8 01 00 00 00"
#define POP     "83 c4 40 59" /* add esp, 0x40; pop ecx */
#define NOTHING "90"

#define MOST (KINDS - 3) /* all but stac, clac, and syscall outside 64-bit code */

static const struct flip {
	const char *name;
	void (*set)(struct vcpu *v, bool on);
	unsigned cpl, size;
	const char *probe;
	uint64_t needs;  /* bits of CR4 that the CPU must have */
	unsigned differ; /* so many kinds show the flip */
} flips[] = {
	{"nothing", f_none, 3, 8, LOAD, 0, 0},
	{"CR0.TS", f_ts, 3, 8, XORPS, 0, MOST},
	{"CR0.TS at CPL 0", f_ts, 0, 8, XORPS, 0, MOST},
	{"CR0.TS, 32 bits", f_ts, 3, 4, XORPS, 0, MOST},
	{"CR0.EM", f_em, 3, 8, XORPS, 0, MOST},
	{"CR4.OSFXSR", f_osfxsr, 3, 8, XORPS, 0, MOST},
	{"CR4.OSFXSR under SMAP", f_osfxsr_smap, 0, 8, XORPS, CR4_SMAP, 10},
	{"CR4.OSXSAVE", f_osxsave, 3, 8, VXORPS, CR4_OSXSAVE, MOST},
	{"XCR0", f_xcr0, 3, 8, VXORPS, CR4_OSXSAVE, MOST},
	{"XCR0's AVX-512", f_xcr0_avx512, 3, 8, VPORD, CR4_OSXSAVE, MOST},
	{"CR4.TSD", f_tsd, 3, 8, RDTSC, 0, MOST},
	{"CR4.TSD at CPL 1", f_tsd, 1, 8, RDTSC, 0, MOST},
	{"CR4.FSGSBASE", f_fsgsbase, 3, 8, RDFS, CR4_FSGSBASE, MOST},
	{"CR4.UMIP", f_umip, 3, 8, SMSW, CR4_UMIP, MOST},
	{"CR4.SMEP", f_smep, 0, 8, NOTHING, CR4_SMEP, MOST},
	{"CR4.SMAP", f_smap, 0, 8, LOAD, CR4_SMAP, MOST},
	{"AC under SMAP", f_smap_ac, 0, 8, LOAD, CR4_SMAP, MOST},
	{"AC", f_ac, 3, 8, LOAD, 0, MOST},
	{"AC, 32 bits", f_ac, 3, 4, LOAD, 0, MOST},
	{"CR0.AM", f_am, 3, 8, LOAD, 0, MOST},
	{"CR0.WP", f_wp, 0, 8, STORE, 0, MOST},
	{"IOPL", f_iopl, 3, 8, CLI, 0, MOST},
	{"TF", f_tf, 3, 8, NOTHING, 0, MOST},
	{"CPL 0 and 1", f_cpl1, 0, 8, CLI, 0, MOST},
	{"CPL 1 and 2", f_cpl12, 1, 8, CLI, 0, 0},
	{"CPL 0 and 3", f_cpl3, 0, 8, CLI, 0, MOST},
	{"CPL 0 and 3, 32 bits", f_cpl3_32, 0, 4, CLI, 0, MOST},
	{"code size", f_size, 3, 8, INC64, 0, MOST},
	{"code size at CPL 0", f_size, 0, 8, INC64, 0, MOST},
	{"16-bit code", f_16, 3, 4, IMM, 0, MOST},
	{"V86 mode", f_vm, 3, 4, IMM, 0, MOST},
	{"CS base", f_cs_base, 3, 4, IMM, 0, MOST},
	{"CS base, from flat", f_cs_flat, 3, 4, IMM, 0, MOST},
	{"CS base at CPL 0", f_cs_base, 0, 4, IMM, 0, MOST},
	{"CS limit at a jmp", f_limit_jmp, 3, 4, IMM, 0, MOST - 2},
	{"CS limit at a ret", f_limit_ret, 3, 4, IMM, 0, MOST - 12},
	{"CS limit at a jmp mem", f_limit_jmp_mem, 3, 4, IMM, 0, MOST - 14},
	{"DS base", f_ds_base, 3, 4, LOAD, 0, MOST},
	{"DS limit", f_ds_limit, 3, 4, LOAD, 0, MOST},
	{"SS size", f_ss16, 3, 4, POP, 0, MOST},
	{"watchpoint", f_watch, 3, 8, LOAD, 0, MOST},
	{"breakpoint", f_break, 3, 8, NOTHING, 0, 1},
	{"EFER.SCE", f_sce, 3, 8, NOTHING, 0, 1},
};

/* ---- running ---- */
struct outcome {
	uint64_t regs[16], rip, rflags, gs, error;
	uint32_t r, vector, cpl, cs;
};

/* The registers of a state that a run may change, without what follows from them. */
struct state {
	struct seg seg[SEG_COUNT];
	uint32_t sysflags;
	uint8_t cpl;
};

static struct state save(const struct vcpu *v)
{
	struct state s = {.sysflags = v->sysflags, .cpl = v->cpl};

	memcpy(s.seg, v->seg, sizeof s.seg);
	return s;
}

static void load(struct vcpu *v, const struct state *s)
{
	memcpy(v->seg, s->seg, sizeof s->seg);
	v->sysflags = s->sysflags;
	v->cpl = s->cpl;
	vcpu_update_mode(v);
}

static void put(struct vcpu *v, uint64_t at, const char *hex, int32_t rel, unsigned rel_size)
{
	uint8_t code[64];
	size_t n = btvm_hex(hex, code, sizeof code - 4);

	rel -= (int32_t)(n + rel_size);
	memcpy(code + n, &rel, rel_size);
	btvm_put(v, at, code, n + rel_size);
}

/* The code of all kinds; at SHIFT the same with other probes, for code segments with a base. */
static void lay_out(struct vcpu *v, const struct flip *f)
{
	for (uint64_t k = 0; k < KINDS; k++)
		for (unsigned shifted = 0; shifted < 2; shifted++) {
			uint64_t base = BTVM_CODE + k * SPAN + (shifted ? SHIFT : 0), target = base + kinds[k].target;
			char probe[64];

			put(v, base + kinds[k].at, kinds[k].hex, (int32_t)(kinds[k].target - kinds[k].at),
			    kinds[k].rel);
			snprintf(probe, sizeof probe, "%s %s 0f 0b", shifted ? "b9 77 00 00 00" : "", f->probe);
			put(v, target, probe, 0, 0);
		}
	put(v, SYSRET_AT, "48 0f 07", 0, 0);
}

static uint64_t descriptor(const struct seg *s)
{
	uint64_t limit = s->attr & SEG_A_G ? s->limit >> 12 : s->limit;

	return (limit & 0xffff) | (s->base & 0xffffff) << 16 | (uint64_t)(s->attr & 0xff) << 40 |
	       (limit >> 16 & 15) << 48 | (uint64_t)(s->attr >> 12 & 15) << 52 | (s->base >> 24 & 255) << 56;
}

/* An interrupt's frame of 32-bit words; a null SS is good for none of the states here. */
static void put_frame(struct vcpu *v, uint64_t at, uint32_t rip)
{
	uint32_t frame[5] = {rip, v->seg[SEG_CS].sel, (uint32_t)vcpu_rflags(v), (uint32_t)SP, v->seg[SEG_SS].sel};
	uint64_t gdt[4] = {0, 0, descriptor(&v->seg[SEG_CS]), descriptor(&v->seg[SEG_SS])};

	btvm_put(v, GDT, gdt, sizeof gdt);
	v->gdtr.base = GDT;
	v->gdtr.limit = sizeof gdt - 1;
	btvm_put(v, at, frame, sizeof frame);
}

static struct outcome run(struct vcpu *v, unsigned k)
{
	uint64_t base = BTVM_CODE + k * SPAN, target = base + kinds[k].target;
	struct state s = save(v);
	struct outcome o;
	uint32_t mode;

	memset(&o, 0, sizeof o);
	memset(v->regs, 0, sizeof v->regs);
	v->regs[R_BX] = target;
	v->regs[R_CX] = kinds[k].rcx;
	v->regs[R_SI] = OPERAND;
	v->regs[R_DI] = BTVM_DATA + 0x3000 + 16 * k;
	v->regs[R_SP] = SP;
	v->iflag = 1;
	v->exc_pending = 0;
	v->exc_error = 0;
	vcpu_set_rflags(v, (vcpu_rflags(v) & ~(uint64_t)RFL_ARITH) | RFL_IF);
	for (uint64_t sp = SP & 0xffff; sp <= SP; sp += SP - (SP & 0xffff)) {
		btvm_put(v, sp, &target, 8);
		if (kinds[k].iret)
			put_frame(v, sp, (uint32_t)target);
	}
	for (unsigned off = 0; off <= 16; off += 16)
		btvm_put(v, v->regs[R_DI] + off, &target, 8);
	v->rip = base + kinds[k].at;
	o.r = (uint32_t)vcpu_run_until(v, 0, 100);
	memcpy(o.regs, v->regs, sizeof o.regs);
	o.rip = v->rip;
	o.rflags = vcpu_rflags(v);
	o.gs = v->seg[SEG_GS].base;
	o.vector = v->exc_pending ? v->exc_vector : ~0u;
	o.error = v->exc_error;
	o.cpl = v->cpl;
	o.cs = v->seg[SEG_CS].sel;
	mode = v->mode;
	vcpu_update_mode(v);
	CU_ASSERT_EQUAL(v->mode, mode); /* whatever ran has kept it right */
	load(v, &s);
	return o;
}

static struct vcpu *machine(const struct flip *f)
{
	struct vcpu *v = btvm_reset();
	uint32_t words[8] = {0x11111111, 0x22222222, 0x33333333, 0x44444444, 0x55555555, 0x66666666};

	cr4_bit(v, CR4_SMAP, false);
	cr4_bit(v, CR4_FSGSBASE, true);
	cr4_bit(v, CR4_OSXSAVE, true);
	v->lstar = SYSRET_AT;
	v->star = 0x10ull << 32;
	v->sfmask = RFL_TF | RFL_AC | RFL_NT | RFL_IF;
	btvm_mode(v, f->cpl, f->size);
	lay_out(v, f);
	btvm_put(v, OPERAND, words, sizeof words);
	for (uint64_t page = 0; page < 0xf000; page += 0x1000) /* where 16-bit branches lead */
		*btvm_pte(page) = 0;
	tlb_flush_all(v);
	for (unsigned off = 0x30; off < 0x60; off += 4) /* where a 16-bit stack is not */
		btvm_put(v, SP + off, words, 4);
	return v;
}

static void fresh(const struct flip *f, bool on, struct outcome *o)
{
	struct vcpu *v = machine(f);

	f->set(v, on);
	for (unsigned k = 0; k < KINDS; k++) {
		bt_flush(v);
		o[k] = run(v, k);
	}
}

/* Runs everything @n times; what comes out differs from @want in so many cases. */
static unsigned rounds(struct vcpu *v, const struct flip *f, const struct outcome *want, int n, const char *when)
{
	unsigned bad = 0;

	for (int i = 0; i < n; i++)
		for (unsigned k = 0; k < KINDS; k++) {
			struct outcome o = run(v, k);

			if (!memcmp(&o, &want[k], sizeof o))
				continue;
			if (!bad++)
				fprintf(stderr, "%s, %s, %s: vector %d at %llx, not %d at %llx\n", f->name,
					kinds[k].name, when, (int)o.vector, (unsigned long long)o.rip,
					(int)want[k].vector, (unsigned long long)want[k].rip);
		}
	return bad;
}

/* The kernel loads CR3 without a flush. */
static void switch_space(struct vcpu *v, unsigned from, unsigned to)
{
	struct state s = save(v);

	btvm_mode(v, 0, 8);
	tlb_switch(v, from, to, false);
	load(v, &s);
}

static unsigned differing(const struct outcome *a, const struct outcome *b)
{
	unsigned n = 0;

	for (unsigned k = 0; k < KINDS; k++)
		n += memcmp(&a[k], &b[k], sizeof a[k]) != 0;
	return n;
}

static bool possible(const struct flip *f)
{
	const struct vcpu *v = btvm_reset();

	return (v->cr4_mask & f->needs) == f->needs && (f->set != f_xcr0_avx512 || v->xcr0_mask & XCR0_AVX512_ONLY);
}

static int quiet(void)
{
	log_set_fd(-1);
	return 0;
}

static int loud(void)
{
	log_set_fd(2);
	return 0;
}

/* One mode, the other, and back, with what is kept growing all the time. */
static void test_flips(void)
{
	static struct outcome want[2][KINDS];

	for (const struct flip *f = flips; f < flips + sizeof flips / sizeof flips[0]; f++) {
		unsigned bad = 0;
		struct vcpu *v;

		if (!possible(f))
			continue;
		fresh(f, false, want[0]);
		fresh(f, true, want[1]);
		if (differing(want[0], want[1]) < f->differ)
			fprintf(stderr, "%s: %u kinds differ\n", f->name, differing(want[0], want[1]));
		CU_ASSERT(differing(want[0], want[1]) >= f->differ);
		for (int first = 0; first < 2; first++) {
			v = machine(f);
			f->set(v, first);
			bad += rounds(v, f, want[first], 3, "first");
			f->set(v, !first);
			bad += rounds(v, f, want[!first], 2, "flipped");
			f->set(v, first);
			bad += rounds(v, f, want[first], 2, "back");
		}
		CU_ASSERT_EQUAL(bad, 0);
	}
}

/* The same while address spaces change, and bring back what they had in the other mode. */
static void test_banks(void)
{
	static struct outcome want[2][KINDS];

	for (const struct flip *f = flips; f < flips + sizeof flips / sizeof flips[0]; f++) {
		unsigned bad = 0;
		struct vcpu *v;

		if (!possible(f) || f->cpl != 3)
			continue;
		fresh(f, false, want[0]);
		fresh(f, true, want[1]);
		v = machine(f);
		for (int i = 0; i < 4; i++) {
			f->set(v, i & 1);
			bad += rounds(v, f, want[i & 1], 2, "in the first space");
			switch_space(v, 1, 2);
			if (i & 2)
				f->set(v, !(i & 1));
			bad += rounds(v, f, want[(i >> 1 ^ i) & 1], 2, "in the second space");
			f->set(v, !(i & 1));
			switch_space(v, 2, 1);
			bad += rounds(v, f, want[!(i & 1)], 2, "back in the first space");
		}
		CU_ASSERT(v->stats.bank_hits > 0);
		CU_ASSERT_EQUAL(bad, 0);
	}
}

/* ---- other code behind the same address ---- */
#define AT      0x10000000ull          /* two pages: the branch, and its target at FAR */
#define OTHER   (BTVM_CODE + 0x100000) /* what the second page is mapped to in turn */
#define OTHER_2 (BTVM_CODE + 0x101000)

static void by_page(struct vcpu *v)
{
	tlb_flush_page(v, AT + 0x1000);
}

static void by_switch(struct vcpu *v)
{
	struct state s = save(v);

	btvm_mode(v, 0, 8);
	tlb_switch(v, 1, 2, true);
	load(v, &s);
}

static void by_flush(struct vcpu *v)
{
	struct state s = save(v);

	btvm_mode(v, 0, 8);
	tlb_flush_nonglobal(v);
	load(v, &s);
}

/* Every jump cache, and the cells: after a change of the tables and the flush for it, nothing leads to the old page. */
static void test_remapping(void)
{
	static void (*const flush[])(struct vcpu * v) = {by_page, by_switch, by_flush, tlb_flush_all};
	static const char *const branch[] = {"ff e3", "e9 fb 12 00 00", "c3"}; /* jmp rbx; jmp to FAR; ret */

	for (unsigned i = 0; i < 8; i++) {
		struct vcpu *v = btvm_reset();

		cr4_bit(v, CR4_SMAP, false);
		btvm_mode(v, i & 1 ? 3 : 0, i & 2 ? 4 : 8);
		cr0_bit(v, CR0_TS, i & 4);
		put(v, OTHER + FAR - 0x1000, "b8 01 00 00 00 0f 0b", 0, 0);
		put(v, OTHER_2 + FAR - 0x1000, "b8 02 00 00 00 0f 0b", 0, 0);
		*btvm_pte(AT) = (BTVM_CODE + 0x1000) | 7;
		for (unsigned k = 0; k < 4 * 3; k++) {
			uint64_t target = AT + FAR;

			put(v, BTVM_CODE + 0x1100, branch[k % 3], 0, 0);
			*btvm_pte(AT + 0x1000) = (k & 1 ? OTHER : OTHER_2) | 7;
			flush[k / 3](v);
			for (int n = 0; n < 3; n++) {
				v->rip = AT + 0x100;
				v->regs[R_BX] = target;
				v->regs[R_SP] = SP;
				v->regs[R_AX] = 0;
				v->exc_pending = 0;
				btvm_put(v, SP, &target, 8);
				CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
				CU_ASSERT_EQUAL(v->regs[R_AX], k & 1 ? 1 : 2);
			}
		}
	}
}

/* A block whose first page is the address space's own and whose second page is global goes with the first. */
static void test_half_global(void)
{
	static const char *const branch[] = {"ff e3", "e9 fa 1e 00 00"}; /* jmp rbx; jmp to AT + 0xfff */

	for (unsigned k = 0; k < 2; k++) {
		struct vcpu *v = btvm_reset();

		btvm_mode(v, 0, 8);
		put(v, BTVM_CODE + 0x1100, branch[k], 0, 0);
		put(v, OTHER + 0xfff, "b8", 0, 0);   /* mov eax */
		put(v, OTHER_2 + 0xfff, "b9", 0, 0); /* mov ecx */
		put(v, BTVM_CODE + 0x2000, "07 00 00 00 0f 0b", 0, 0);
		*btvm_pte(AT - 0x1000) = (BTVM_CODE + 0x1000) | 3 | 0x100;
		*btvm_pte(AT + 0x1000) = (BTVM_CODE + 0x2000) | 3 | 0x100;
		for (int i = 0; i < 6; i++) {
			*btvm_pte(AT) = (i / 3 ? OTHER_2 : OTHER) | 3;
			if (i == 3)
				tlb_flush_nonglobal(v);
			v->regs[R_AX] = v->regs[R_CX] = 0;
			v->regs[R_BX] = AT + 0xfff;
			v->rip = AT - 0x1000 + 0x100;
			v->exc_pending = 0;
			CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
			CU_ASSERT_EQUAL(v->regs[i / 3 ? R_CX : R_AX], 7);
		}
	}
}

CU_ErrorCode suite_keys(void);
CU_ErrorCode suite_keys(void)
{
	CU_pSuite s = CU_add_suite("keys", quiet, loud);

	CU_add_test(s, "modes behind branches", test_flips);
	CU_add_test(s, "modes and address spaces", test_banks);
	CU_add_test(s, "other pages", test_remapping);
	CU_add_test(s, "half of a block is global", test_half_global);
	return CU_get_error();
}
