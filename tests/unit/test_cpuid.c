/*
 * CPUID: nothing shown that is not honoured, leaves that agree with each other.
 */
#include <CUnit/Basic.h>
#include <string.h>

#include "tests/unit/machine.h"
#include "vcpu/cpu/cpuid.h"
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

static void test_forbidden(void)
{
	struct vcpu *v = mach_long();

	CU_ASSERT_EQUAL(ECX(1, 0) & (1u << 3 | 1u << 5 | 1u << 15), 0);           /* monitor vmx pdcm */
	CU_ASSERT_EQUAL(EBX(7, 0) & 0xffff0000u & ~0x219c0000u, 0);               /* no AVX-512, no PT */
	CU_ASSERT_EQUAL(EBX(7, 0) & (1u << 4 | 1u << 11 | 1u << 14), 0);          /* hle rtm mpx */
	CU_ASSERT_EQUAL(ECX(7, 0) & (1u << 3 | 1u << 7 | 1u << 16), 0);           /* pku cet-ss la57 */
	CU_ASSERT_EQUAL(EDX(7, 0) & 1u << 20, 0);                                 /* cet-ibt */
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
		CU_ASSERT_EQUAL(ECX(0xd, 0), 832);
	}
	CU_ASSERT_EQUAL(EAX(0xd, 0), (uint32_t)v->xcr0_mask);
}

static void test_topology(void)
{
	struct vcpu *v = mach_long();

	v->vm->ncpus = 4;
	v->id = 2;
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

	if (s == NULL || !CU_add_test(s, "not offered", test_forbidden) || !CU_add_test(s, "offered", test_required) ||
	    !CU_add_test(s, "xsave", test_osxsave) || !CU_add_test(s, "topology", test_topology) ||
	    !CU_add_test(s, "hypervisor leaves", test_hypervisor) || !CU_add_test(s, "mitigations", test_mitigations) ||
	    !CU_add_test(s, "msrs", test_msrs) || !CU_add_test(s, "paravirtual clock", test_pvclock))
		return CU_get_error();
	return CUE_SUCCESS;
}
