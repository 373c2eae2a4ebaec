/*
 * CPUID: nothing shown that is not honoured, leaves that agree with each other.
 */
#include <CUnit/Basic.h>
#include <string.h>

#include "tests/unit/machine.h"
#include "vcpu/cpu/cpuid.h"
#include "vcpu/cpu/fpu.h"
#include "vcpu/cpu/msr.h"
#include "vcpu/cpu/reset.h"

static uint32_t reg(struct vcpu *v, uint32_t leaf, uint32_t sub, int i)
{
	uint32_t r[4];

	cpuid_query(v, leaf, sub, r);
	return r[i];
}

#define EAX(l, s) reg(v, l, s, 0)
#define EBX(l, s) reg(v, l, s, 1)
#define ECX(l, s) reg(v, l, s, 2)
#define EDX(l, s) reg(v, l, s, 3)

/* ---- hosts of both vendors, as data: both branches are tested on either machine ---- */
struct host {
	struct cpuid_source from;
	const struct cpuid_entry *e;
	unsigned n;
};

static void leaf_of(const struct cpuid_source *s, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	const struct host *h = (const struct host *)(const void *)s;

	r[0] = r[1] = r[2] = r[3] = 0;
	for (unsigned i = 0; i < h->n; i++)
		if (h->e[i].leaf == leaf && h->e[i].subleaf == subleaf) {
			r[0] = h->e[i].eax, r[1] = h->e[i].ebx, r[2] = h->e[i].ecx, r[3] = h->e[i].edx;
			return;
		}
}

/* A Sapphire Rapids server: 105 MiB of L3, AVX-512 and AMX. */
static const struct cpuid_entry intel_leaves[] = {
	{0, 0, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69},
	{1, 0, 0x000806f8, 0x00400800, 0x7ffefbff, 0xbfebfbff},
	{2, 0, 0x00feff01, 0xf0, 0, 0},
	{4, 0, 0x7c004121, 0x02c0003f, 0x3f, 0},
	{4, 1, 0x7c004122, 0x01c0003f, 0x3f, 0},
	{4, 2, 0x7c004143, 0x03c0003f, 0x7ff, 0},
	{4, 3, 0x7c1fc163, 0x0380003f, 0x1bfff, 4},
	{7, 0, 2, 0xf3bfbffb, 0xfb417ffe, 0xffdd4432},
	{7, 1, 0x1c30, 0, 0, 0},
	{0xd, 0, 0x000602e7, 0x2b00, 0x2b00, 0},
	{0xd, 1, 0x1f, 0x2b00, 0x1900, 0},
	{0xd, 2, 0x100, 0x240, 0, 0},
	{0xd, 5, 0x40, 0x440, 0, 0},
	{0xd, 6, 0x200, 0x480, 0, 0},
	{0xd, 7, 0x400, 0x680, 0, 0},
	{0xd, 9, 8, 0xa80, 0, 0},
	{0xd, 17, 0x40, 0xac0, 2, 0},
	{0xd, 18, 0x2000, 0xb00, 6, 0},
	{0x80000000, 0, 0x80000008, 0, 0, 0},
	{0x80000001, 0, 0, 0, 0x121, 0x2c100800},
	{0x80000006, 0, 0, 0, 0x08007040, 0},
	{0x80000008, 0, 0x3934, 0x200, 0, 0},
};

/* A Zen 3 server: 32 MiB of L3 for each eight cores, 256 MiB in all. */
static const struct cpuid_entry amd_leaves[] = {
	{0, 0, 0x10, 0x68747541, 0x444d4163, 0x69746e65},
	{1, 0, 0x00a00f11, 0x00400800, 0x7ffef203, 0x178bfbff},
	{7, 0, 1, 0x219c97a9, 0x00400e8c, 0x10},
	{0xd, 0, 0x207, 0x340, 0x988, 0},
	{0xd, 1, 0xf, 0x340, 0x1800, 0},
	{0x80000000, 0, 0x80000023, 0x68747541, 0x444d4163, 0x69746e65},
	{0x80000001, 0, 0x00a00f11, 0x40000000, 0x75c237ff, 0x2fd3fbff},
	{0x80000005, 0, 0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140},
	{0x80000006, 0, 0x48002200, 0x68004200, 0x02006140, 0x08009140},
	{0x80000008, 0, 0x3030, 0x111ef657, 0x703f, 0x10007},
	{0x8000001a, 0, 6, 0, 0, 0},
	{0x8000001d, 0, 0x4121, 0x01c0003f, 0x3f, 0},
	{0x8000001d, 1, 0x4122, 0x01c0003f, 0x3f, 0},
	{0x8000001d, 2, 0x4143, 0x01c0003f, 0x3ff, 2},
	{0x8000001d, 3, 0x1c163, 0x03c0003f, 0x7fff, 1},
	{0x80000021, 0, 0x4d, 0, 0, 0},
};

static const struct host intel = {{leaf_of, 0x602e7}, intel_leaves, sizeof intel_leaves / sizeof intel_leaves[0]};
static const struct host amd = {{leaf_of, 0x207}, amd_leaves, sizeof amd_leaves / sizeof amd_leaves[0]};

static struct vcpu *on_host(const struct host *h, uint64_t ram)
{
	static struct gmem mem;
	struct vcpu *v = mach_long();

	mem = *v->vm->mem;
	mem.size = ram; /* nothing is read from it */
	struct gmem *before = v->vm->mem;
	v->vm->mem = &mem;
	cpuid_build_from(v, &h->from);
	v->vm->mem = before;
	return v;
}

static uint64_t size_of(struct vcpu *v, uint32_t leaf, uint32_t sub)
{
	uint32_t b = EBX(leaf, sub);

	return ((b & 0xfff) + 1ull) * ((b >> 12 & 0x3ff) + 1) * ((b >> 22) + 1) * (ECX(leaf, sub) + 1ull);
}

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

static void no_more_than_we_do(struct vcpu *v)
{
	CU_ASSERT_EQUAL(ECX(1, 0) & ~0xf7fa3203u, 0);
	CU_ASSERT_EQUAL(EBX(7, 0) & ~0xf1bf27ebu, 0);
	CU_ASSERT_EQUAL(ECX(7, 0) & ~0x00405f46u, 0);
	CU_ASSERT_EQUAL(EAX(0xd, 0) & ~0xe7u, 0);
	CU_ASSERT_EQUAL(EAX(0xd, 1), 7);
	CU_ASSERT_EQUAL(EAX(0xa, 0) | EAX(0x14, 0) | EAX(0x1d, 0), 0); /* no counters, trace, tiles */
}

static void test_intel_host(void)
{
	struct vcpu *v = on_host(&intel, GIB(8));

	CU_ASSERT_EQUAL(v->amd, 0);
	no_more_than_we_do(v);
	CU_ASSERT_EQUAL(EAX(2, 0), 0xff01);
	CU_ASSERT_EQUAL(EDX(7, 0), 0xac000010); /* the controls of speculation, and what needs none: MSR 0x10a */
	CU_ASSERT_EQUAL(EAX(7, 0), 2);
	CU_ASSERT_EQUAL(EDX(7, 1) | EBX(7, 2), 0);
	CU_ASSERT_EQUAL(EDX(7, 2), 0x30); /* Linux clears the branch history itself where this is missing */
	CU_ASSERT_EQUAL(size_of(v, 4, 0), KIB(48));
	CU_ASSERT_EQUAL(size_of(v, 4, 2), MIB(2));
	CU_ASSERT_EQUAL(size_of(v, 4, 3), MIB(105)); /* all of it where memory is plenty */
	CU_ASSERT_EQUAL(EAX(4, 3), 0x163);           /* shared by our one CPU */
	CU_ASSERT_EQUAL(EAX(4, 4), 0);
	CU_ASSERT_EQUAL(EAX(0x8000001d, 3) | EBX(0x80000008, 0) | EAX(0x80000021, 0), 0);
	v = on_host(&intel, MIB(512));
	CU_ASSERT(size_of(v, 4, 3) <= MIB(16) && size_of(v, 4, 3) > MIB(8));
	CU_ASSERT_EQUAL(EBX(4, 3), 0x0380003f); /* the ways stay */
	v = on_host(&intel, MIB(32));
	CU_ASSERT(size_of(v, 4, 3) <= MIB(2) && size_of(v, 4, 3) > MIB(1)); /* not below the level before */
}

static void test_amd_host(void)
{
	struct vcpu *v = on_host(&amd, GIB(8));

	CU_ASSERT_EQUAL(v->amd, 1);
	no_more_than_we_do(v);
	CU_ASSERT_EQUAL(EAX(2, 0) | EAX(4, 0), 0);
	CU_ASSERT_EQUAL(EDX(7, 0), 0x10);
	CU_ASSERT_EQUAL(EAX(7, 0) | EDX(7, 2), 0);
	CU_ASSERT_EQUAL(size_of(v, 0x8000001d, 3), MIB(32));
	CU_ASSERT_EQUAL(EDX(0x80000006, 0), 64u << 18 | 0x9140); /* 32 MiB, as there, not the host's 256 */
	CU_ASSERT_EQUAL(EBX(0x80000008, 0) & 1u << 29, 1u << 29);
	v = on_host(&amd, MIB(128));
	CU_ASSERT_EQUAL(size_of(v, 0x8000001d, 3), MIB(4));
	CU_ASSERT_EQUAL(EDX(0x80000006, 0) >> 18, 8);
	CU_ASSERT_EQUAL(size_of(v, 0x8000001d, 2), KIB(512));
	CU_ASSERT_EQUAL(EAX(0x8000001d, 4), 0);
}

/* An MSR reads as @val (-1 for a #GP). */
static void reads(struct vcpu *v, uint32_t n, int64_t want)
{
	uint64_t val = 0;
	int ret = msr_read(v, n, &val);

	CU_ASSERT_EQUAL(ret, want < 0 ? -1 : 0);
	if (!ret)
		CU_ASSERT_EQUAL(val, (uint64_t)want);
}

static void test_intel_msrs(void)
{
	static const uint32_t zero[] = {0x34, 0x606, 0x611, 0x619, 0x639, 0x641, 0x64d, 0x64e, 0xce, 0x140};
	struct vcpu *v = on_host(&intel, GIB(1));

	for (unsigned i = 0; i < sizeof zero / sizeof zero[0]; i++)
		reads(v, zero[i], 0);
	reads(v, 0x10a, 0x400000000d10e17b);
	reads(v, 0x1a0, 0x1801);
	CU_ASSERT_EQUAL(msr_write(v, 0x1a0, 0x4000c51801 & ~0x400000ull), 0); /* what firmware and Linux set */
	reads(v, 0x1a0, 0x4000851801);
	CU_ASSERT_EQUAL(msr_write(v, 0x1a0, 0x81), 0); /* read-only bits stay */
	reads(v, 0x1a0, 0x1801);
	CU_ASSERT_EQUAL(msr_write(v, 0x1a0, 0x11), -1); /* reserved */
	CU_ASSERT_EQUAL(msr_write(v, 0x34, 0), -1);
	reads(v, 0x4e, 1);
	CU_ASSERT_EQUAL(msr_write(v, 0x48, 0x407), 0);
	reads(v, 0x48, 0x407);
	CU_ASSERT_EQUAL(msr_write(v, 0x48, 0x8), -1);
	reads(v, 0xc0011029, -1);
	reads(v, 0xc0010000, -1);
}

static void test_amd_msrs(void)
{
	static const uint32_t zero[] = {0xc0010000, 0xc0010004, 0xc0011020, 0xc0011028,
					0xc001102e, 0xc0010299, 0xc001029b};
	struct vcpu *v = on_host(&amd, GIB(1));

	for (unsigned i = 0; i < sizeof zero / sizeof zero[0]; i++)
		reads(v, zero[i], 0);
	reads(v, 0xc0011029, 2);
	CU_ASSERT_EQUAL(msr_write(v, 0xc0010004, 0xffff), 0);
	reads(v, 0xc0010004, 0); /* so Linux finds no counters */
	reads(v, 0x1a0, -1);
	reads(v, 0x34, -1);
	reads(v, 0x10a, -1);
	reads(v, 0x606, -1);
}

static void test_forbidden(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(ECX(1, 0) & (1u << 3 | 1u << 5 | 1u << 15), 0);   /* monitor vmx pdcm */
	CU_ASSERT_EQUAL(EBX(7, 0) & (1u << 25 | 1u << 26 | 1u << 27), 0); /* pt, Knights' AVX-512 */
	CU_ASSERT_EQUAL(EBX(7, 0) & (1u << 4 | 1u << 11 | 1u << 14), 0);  /* hle rtm mpx */
	CU_ASSERT_EQUAL(ECX(7, 0) & (1u << 3 | 1u << 7 | 1u << 16), 0);   /* pku cet-ss la57 */
	CU_ASSERT_EQUAL(EDX(7, 0) & 1u << 20, 0);                         /* cet-ibt */
	CU_ASSERT_EQUAL(EAX(0xa, 0), 0);
	CU_ASSERT_EQUAL(ECX(0x80000001, 0) & (1u << 2 | 1u << 6 | 1u << 11), 0); /* svm sse4a xop */
	CU_ASSERT_EQUAL(EDX(0x80000001, 0) & (3u << 30 | 1u << 25), 0);          /* 3dnow, ffxsr */
	CU_ASSERT_EQUAL(EAX(0xd, 1) & 8, 0);                                     /* xsaves */
}

static void test_required(void)
{
	struct vcpu *v = mach_long();
	uint32_t host[4];

	cpuid_host(0, 0, host);
	CU_ASSERT_EQUAL(EBX(0, 0), host[1]);
	CU_ASSERT_EQUAL(EDX(0, 0), host[3]);
	CU_ASSERT_EQUAL(EAX(0, 0), 0xd);
	cpuid_host(1, 0, host);
	CU_ASSERT_EQUAL(EAX(1, 0), host[0]);
	CU_ASSERT_EQUAL(ECX(1, 0) & (1u << 31 | 1u << 24 | 1u << 21 | 1u << 17),
			1u << 31 | 1u << 24 | 1u << 21 | 1u << 17);
	CU_ASSERT_EQUAL(EBX(7, 0) & 0x100483, 0x100483); /* fsgsbase tsc_adjust smep invpcid smap */
	CU_ASSERT_EQUAL(EDX(0x80000007, 0), 1u << 8);
	CU_ASSERT_EQUAL(EDX(0x80000001, 0) >> 20 & 1, 1); /* nx */
	CU_ASSERT_EQUAL(EAX(0x80000008, 0) >> 8 & 0xff, 48);
	CU_ASSERT_PTR_NULL(cpuid_host_lacks());
}

static void test_osxsave(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(ECX(1, 0) & 1u << 27, 0);
	v->cr4 |= CR4_OSXSAVE;
	CU_ASSERT_EQUAL(ECX(1, 0) & 1u << 27, 1u << 27);
	v->xcr0 = 3;
	CU_ASSERT_EQUAL(EBX(0xd, 0), 576);
	if (v->xcr0_mask & 4) {
		v->xcr0 = 7;
		CU_ASSERT_EQUAL(EBX(0xd, 0), 832);
		CU_ASSERT_EQUAL(EBX(0xd, 1), 832);
		CU_ASSERT_EQUAL(EAX(0xd, 2), 256);
		CU_ASSERT_EQUAL(EBX(0xd, 2), 576);
		if (!(v->xcr0_mask & XCR0_AVX512_ONLY))
			CU_ASSERT_EQUAL(ECX(0xd, 0), 832);
	}
	CU_ASSERT_EQUAL(EAX(0xd, 0), (uint32_t)v->xcr0_mask);
}

/* AVX-512 is offered whole or not at all, AMX and PKU never; the XSAVE area is the host's with what is offered of it. */
static void test_avx512(void)
{
	struct cpuid_entry less[sizeof intel_leaves / sizeof intel_leaves[0]];
	struct host h = intel;
	struct vcpu *v = on_host(&intel, GIB(1));

	CU_ASSERT_EQUAL(v->xcr0_mask, 0xe7);
	CU_ASSERT_EQUAL(EAX(0xd, 0), 0xe7);
	CU_ASSERT_EQUAL(ECX(0xd, 0), 0xa80);
	CU_ASSERT_EQUAL(EAX(0xd, 5), 64);
	CU_ASSERT_EQUAL(EBX(0xd, 5), 0x440);
	CU_ASSERT_EQUAL(EAX(0xd, 7), 1024);
	CU_ASSERT_EQUAL(EBX(0xd, 7), 0x680);
	CU_ASSERT_EQUAL(EAX(0xd, 9) | EAX(0xd, 17) | EAX(0xd, 18), 0);
	CU_ASSERT_EQUAL(EBX(7, 0) & 0xdc230000u, 0xd0230000u); /* f dq ifma cd bw vl; no pf er */
	CU_ASSERT_EQUAL(ECX(7, 0) & 0x5842u, 0x5842u);         /* vbmi vbmi2 vnni bitalg vpopcntdq */
	CU_ASSERT_EQUAL(EDX(7, 0) & (1u << 23 | 7u << 22 | 1u << 24 | 1u << 25), 0); /* fp16, amx */
	CU_ASSERT_EQUAL(EAX(7, 0), 2);
	CU_ASSERT_EQUAL(EAX(7, 1), 1u << 5 | 1u << 4); /* bf16, avx_vnni */
	CU_ASSERT_EQUAL(fpu_component_at(v, 0xa0, true, 7), 576 + 64);
	CU_ASSERT_EQUAL(fpu_component_at(v, 0xa0, false, 7), 0x680);
	CU_ASSERT_EQUAL(fpu_area_end(v, 0x44, true), 576 + 256 + 512);
	CU_ASSERT_EQUAL(fpu_area_end(v, 0x20, false), 0x480);
	v->xs.aligned = 1 << 7; /* what follows the masks would be so anyway, but not on a CPU where they are shorter */
	v->xs.size[5] = 8;
	CU_ASSERT_EQUAL(fpu_component_at(v, 0xe0, true, 6), 576 + 8);
	CU_ASSERT_EQUAL(fpu_component_at(v, 0xa0, true, 7), 576 + 64);
	v = on_host(&intel, GIB(1));
	v->xcr0 = 0xe7;
	CU_ASSERT_EQUAL(EBX(0xd, 0), 0xa80);
	CU_ASSERT_EQUAL(EBX(0xd, 1), 576 + 256 + 64 + 512 + 1024); /* compacted */
	v->xcr0 = 7;
	CU_ASSERT_EQUAL(EBX(0xd, 0), 832);

	h.from.xcr0 = 0x60267; /* a host whose kernel has switched off zmm16-31 */
	v = on_host(&h, GIB(1));
	CU_ASSERT_EQUAL(v->xcr0_mask, 7);
	CU_ASSERT_EQUAL(EBX(7, 0) & 0xdc230000u, 0);
	CU_ASSERT_EQUAL(ECX(7, 0) & 0x5842u, 0);
	CU_ASSERT_EQUAL(EAX(7, 1), 1u << 4);
	CU_ASSERT_EQUAL(ECX(0xd, 0), 832);
	CU_ASSERT_EQUAL(EAX(0xd, 5), 0);

	memcpy(less, intel_leaves, sizeof less); /* a CPU without AVX512VL */
	for (unsigned i = 0; i < sizeof less / sizeof less[0]; i++)
		if (less[i].leaf == 7 && less[i].subleaf == 0)
			less[i].ebx &= ~(1u << 31);
	h = intel;
	h.e = less;
	v = on_host(&h, GIB(1));
	CU_ASSERT_EQUAL(v->xcr0_mask, 7);
	CU_ASSERT_EQUAL(EBX(7, 0) & 0xdc230000u, 0);

	v = on_host(&amd, GIB(1));
	CU_ASSERT_EQUAL(v->xcr0_mask, 7);
	CU_ASSERT_EQUAL(EAX(7, 0), 0);
	CU_ASSERT_EQUAL(EAX(7, 1), 0);
}

static void test_topology(void)
{
	struct vcpu *v = mach_long();

	v->vm->ncpus = 4;
	v->id = 2;
	v->apic_id = 2;
	cpu_reset(v);
	CU_ASSERT_EQUAL(EBX(1, 0) >> 24, 2);
	CU_ASSERT_EQUAL(EBX(1, 0) >> 16 & 0xff, 4);
	CU_ASSERT_EQUAL(EDX(1, 0) >> 28 & 1, 1);
	CU_ASSERT_EQUAL(EDX(0xb, 0), 2);
	CU_ASSERT_EQUAL(EAX(0xb, 0), 0);
	CU_ASSERT_EQUAL(EBX(0xb, 0), 1);
	CU_ASSERT_EQUAL(EAX(0xb, 1), 2);
	CU_ASSERT_EQUAL(EBX(0xb, 1), 4);
	CU_ASSERT_EQUAL(ECX(0xb, 5), 5);
	if (v->amd) {
		CU_ASSERT_EQUAL(EAX(0x8000001e, 0), 2);
		CU_ASSERT_EQUAL(ECX(0x80000008, 0), 3 | 2 << 12);
	}
}

/* CPU 7 of two sockets of three cores of two threads: the second socket's first core, its second thread. */
static struct vcpu *seventh(const struct host *h)
{
	struct vcpu *v = on_host(h, GIB(8));

	v->vm->topology = (struct topology){2, 3, 2};
	v->vm->ncpus = 12;
	v->id = 7;
	v->apic_id = topology_apic_id(&v->vm->topology, 7);
	CU_ASSERT_EQUAL(v->apic_id, 9); /* socket 1, core 0, thread 1, in 1 + 2 + 1 bits */
	cpuid_build_from(v, &h->from);
	return v;
}

static void agree_on_levels(struct vcpu *v, uint32_t leaf)
{
	CU_ASSERT_EQUAL(EAX(leaf, 0), 1);
	CU_ASSERT_EQUAL(EBX(leaf, 0), 2);
	CU_ASSERT_EQUAL(ECX(leaf, 0), 0x100);
	CU_ASSERT_EQUAL(EAX(leaf, 1), 3);
	CU_ASSERT_EQUAL(EBX(leaf, 1), 6);
	CU_ASSERT_EQUAL(ECX(leaf, 1), 0x201);
	CU_ASSERT_EQUAL(EBX(leaf, 2), 0);
	CU_ASSERT_EQUAL(ECX(leaf, 9), 9);
	for (uint32_t sub = 0; sub < 4; sub++)
		CU_ASSERT_EQUAL(EDX(leaf, sub), 9);
}

static void test_sockets_intel(void)
{
	struct vcpu *v = seventh(&intel);

	CU_ASSERT_EQUAL(EBX(1, 0) >> 24, 9);
	CU_ASSERT_EQUAL(EBX(1, 0) >> 16 & 0xff, 8); /* ids of a socket */
	CU_ASSERT_EQUAL(EDX(1, 0) >> 28 & 1, 1);
	agree_on_levels(v, 0xb);
	agree_on_levels(v, 0x1f);
	CU_ASSERT_EQUAL(EAX(0, 0), 0x1f);
	CU_ASSERT_EQUAL(EAX(4, 0) >> 26, 3);         /* cores of a socket */
	CU_ASSERT_EQUAL(EAX(4, 2) >> 14 & 0xfff, 1); /* L2: a core's threads */
	CU_ASSERT_EQUAL(EAX(4, 3) >> 14 & 0xfff, 7); /* L3: the socket */
}

static void test_sockets_amd(void)
{
	struct vcpu *v = seventh(&amd);

	CU_ASSERT_EQUAL(EBX(1, 0) >> 24, 9);
	agree_on_levels(v, 0xb);
	CU_ASSERT_EQUAL(EAX(0, 0), 0xd); /* leaf 0x1f is Intel's */
	CU_ASSERT_EQUAL(EDX(0x1f, 9), 0);
	CU_ASSERT_EQUAL(ECX(0x80000001, 0) >> 1 & 1, 1);
	CU_ASSERT_EQUAL(ECX(0x80000008, 0), 5 | 3 << 12);
	CU_ASSERT_EQUAL(EAX(0x8000001e, 0), 9);
	CU_ASSERT_EQUAL(EBX(0x8000001e, 0), 0 | 1 << 8);
	CU_ASSERT_EQUAL(ECX(0x8000001e, 0), 1);
	CU_ASSERT_EQUAL(EAX(0x8000001d, 2) >> 14 & 0xfff, 1);
	CU_ASSERT_EQUAL(EAX(0x8000001d, 3) >> 14 & 0xfff, 5);
}

static void test_hypervisor(void)
{
	struct vcpu *v = mach_long();
	uint32_t r[4];

	cpuid_query(v, 0x40000000, 0, r);
	CU_ASSERT_EQUAL(r[0], 0x40000010);
	CU_ASSERT_EQUAL(memcmp(&r[1], "HVXHVXHVXHVX", 12), 0);
	CU_ASSERT_EQUAL(EAX(0x40000010, 0), 2000000);
	cpuid_query(v, 0x40000100, 0, r);
	CU_ASSERT_EQUAL(r[0], 0x40000101);
	CU_ASSERT_EQUAL(memcmp(&r[1], "KVMKVMKVM\0\0\0", 12), 0);
	CU_ASSERT_EQUAL(EAX(0x40000101, 0), 1u << 1 | 1u << 3 | 1u << 24);
	CU_ASSERT_EQUAL(EAX(0x40000200, 0), 0);
}

static void test_mitigations(void)
{
	struct vcpu *v = mach_long();
	uint64_t caps;

	if (v->amd) {
		CU_ASSERT_EQUAL(EAX(0x80000000, 0), 0x80000021);
		CU_ASSERT_EQUAL(EAX(0x80000021, 0) & (1u << 8 | 1u << 29 | 1u << 6), 1u << 8 | 1u << 29 | 1u << 6);
		CU_ASSERT_EQUAL(EBX(0x80000008, 0) & 1u << 29, 1u << 29);
		CU_ASSERT_EQUAL(msr_read(v, 0x10a, &caps), -1);
	} else {
		CU_ASSERT_EQUAL(EDX(7, 0) >> 29 & 1, 1);
		CU_ASSERT_EQUAL(msr_read(v, 0x10a, &caps), 0);
		CU_ASSERT_EQUAL(caps & 3, 3);
	}
}

static void test_msrs(void)
{
	struct vcpu *v = mach_long();
	uint64_t val;

	CU_ASSERT_EQUAL(msr_write(v, 0xc0000082, 0x800000000000), -1); /* LSTAR not canonical */
	CU_ASSERT_EQUAL(msr_write(v, 0xc0000082, 0xffffffff81000000), 0);
	CU_ASSERT_EQUAL(v->lstar, 0xffffffff81000000);
	CU_ASSERT_EQUAL(msr_write(v, 0xc0000101, 0xffff888000000000), 0);
	CU_ASSERT_EQUAL(v->seg_base[SEG_GS], 0xffff888000000000);
	CU_ASSERT_EQUAL(msr_write(v, 0x277, 0x0007040600070402), -1); /* PAT type 2 */
	CU_ASSERT_EQUAL(msr_write(v, 0x277, 0x0407050600070106), 0);
	CU_ASSERT_EQUAL(msr_write(v, 0xc0000080, EFER_LME | EFER_SCE | EFER_NXE), 0);
	CU_ASSERT_EQUAL(v->efer, EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE);
	CU_ASSERT_TRUE(seen.flush_all > 0);
	CU_ASSERT_EQUAL(msr_write(v, 0xc0000080, EFER_SCE), -1); /* LME with paging on */
	CU_ASSERT_EQUAL(msr_write(v, 0x10, 1000), 0);
	CU_ASSERT_EQUAL(msr_read(v, 0x10, &val), 0);
	CU_ASSERT_TRUE(val >= 1000 && val < 1000000000);
	CU_ASSERT_EQUAL(msr_read(v, 0x3b, &val), 0);
	CU_ASSERT_EQUAL(val, v->tsc_adjust);
	CU_ASSERT_EQUAL(msr_write(v, 0x3b, 0), 0);
	CU_ASSERT_EQUAL(v->tsc_adjust, 0);
	CU_ASSERT_EQUAL(msr_read(v, 0x12345678, &val), -1);
	CU_ASSERT_EQUAL(msr_write(v, 0xfe, 0), -1);
	CU_ASSERT_EQUAL(msr_write(v, 0x200, 6), 0);
	CU_ASSERT_EQUAL(msr_write(v, 0x200, 2), -1);
}

/* ns since the timestamp, as a guest computes it. */
static void test_pvclock(void)
{
	struct vcpu *v = mach_long();
	uint32_t mul, version;
	int8_t shift;
	uint64_t khz;

	CU_ASSERT_EQUAL(msr_write(v, 0x4b564d01, 0x20000 | 1), 0);
	version = ram_get32(v, 0x20000);
	mul = ram_get32(v, 0x20000 + 24);
	shift = (int8_t)ram_get32(v, 0x20000 + 28);
	CU_ASSERT_EQUAL(version & 1, 0);
	CU_ASSERT_TRUE(version != 0);
	CU_ASSERT_EQUAL(ram_get32(v, 0x20000 + 28) >> 8 & 1, 1); /* stable */
	khz = (1000000ull << 32) / mul;
	khz = shift < 0 ? khz << -shift : khz >> shift;
	CU_ASSERT_TRUE(khz >= 1999999 && khz <= 2000001);
	CU_ASSERT_EQUAL(msr_write(v, 0x4b564d00, 0x20040), 0);
	CU_ASSERT_TRUE(ram_get32(v, 0x20044) > 1000000000 / 2);
}

CU_ErrorCode suite_cpuid(void)
{
	CU_pSuite s = CU_add_suite("cpuid", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "an Intel host", test_intel_host) ||
	    !CU_add_test(s, "an AMD host", test_amd_host) || !CU_add_test(s, "MSRs, Intel", test_intel_msrs) ||
	    !CU_add_test(s, "MSRs, AMD", test_amd_msrs) || !CU_add_test(s, "not offered", test_forbidden) ||
	    !CU_add_test(s, "offered", test_required) || !CU_add_test(s, "xsave", test_osxsave) ||
	    !CU_add_test(s, "AVX-512", test_avx512) || !CU_add_test(s, "topology", test_topology) ||
	    !CU_add_test(s, "sockets, Intel", test_sockets_intel) ||
	    !CU_add_test(s, "sockets, AMD", test_sockets_amd) ||
	    !CU_add_test(s, "hypervisor leaves", test_hypervisor) || !CU_add_test(s, "mitigations", test_mitigations) ||
	    !CU_add_test(s, "msrs", test_msrs) || !CU_add_test(s, "paravirtual clock", test_pvclock))
		return CU_get_error();
	return CUE_SUCCESS;
}
