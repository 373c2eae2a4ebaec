/*
 * The page walk against a model written from the manual's tables: every
 * combination of rights and control bits, and the odd corners one by one.
 */
#include <CUnit/Basic.h>
#include <string.h>

#include "tests/unit/machine.h"
#include "vcpu/mmu/mmu.h"

#define P  1ull
#define W  2ull
#define U  4ull
#define A  0x20ull
#define D  0x40ull
#define PS 0x80ull
#define G  0x100ull
#define NX (1ull << 63)

#define PML4 0x100000u
#define PDPT 0x101000u
#define PD   0x102000u
#define PT   0x103000u
#define PAGE 0x200000u
#define GVA  0x7f8040201123ull /* entries 255, 1, 1, 1... of the four levels */

static unsigned index_of(uint64_t gva, unsigned shift)
{
	return (gva >> shift) & 511;
}

static uint64_t slot(unsigned level, uint64_t gva)
{
	static const uint32_t table[] = {PT, PD, PDPT, PML4};

	return table[level] + index_of(gva, 12 + 9 * level) * 8;
}

static struct vcpu *setup(void)
{
	struct vcpu *v = mach_vcpu();

	v->cr0 = CR0_PE | CR0_PG | CR0_WP;
	v->cr4 = CR4_PAE;
	v->efer = EFER_LME | EFER_LMA | EFER_NXE;
	v->cr3 = PML4;
	v->phys_rsvd = 0x000fffffffffffffull & ~((1ull << 40) - 1);
	ram_put64(v, slot(3, GVA), PDPT | P | W | U);
	ram_put64(v, slot(2, GVA), PD | P | W | U);
	ram_put64(v, slot(1, GVA), PT | P | W | U);
	ram_put64(v, slot(0, GVA), PAGE | P | W | U);
	return v;
}

/* The error code the manual demands, 0 when the access is allowed (SDM 3A 4.6.1, 4.7). */
static uint32_t model(const struct vcpu *v, uint64_t leaf, unsigned acc)
{
	bool user = acc & ACC_USER, wp = v->cr0 & CR0_WP, smep = v->cr4 & CR4_SMEP, smap = v->cr4 & CR4_SMAP;
	bool ac = (v->sysflags & RFL_AC) && !(acc & ACC_SYS), nxe = v->efer & EFER_NXE, bad = false;
	uint32_t e = (acc & ACC_W ? 2 : 0) | (user ? 4 : 0) | ((acc & ACC_X) && (nxe || smep) ? 16 : 0);

	if ((leaf & NX) && !nxe)
		return e | 9;
	if (user && !(leaf & U))
		bad = true;
	if (!user && (leaf & U) && (acc & ACC_X) && smep)
		bad = true;
	if (!user && (leaf & U) && !(acc & ACC_X) && smap && !ac)
		bad = true;
	if ((acc & ACC_W) && !(leaf & W) && (user || wp))
		bad = true;
	if ((acc & ACC_X) && (leaf & NX))
		bad = true;
	return bad ? e | 1 : 0;
}

static void check_one(struct vcpu *v, uint64_t leaf, unsigned acc)
{
	struct walk w = {0};
	uint32_t want = model(v, leaf, acc);
	int r;

	ram_put64(v, slot(0, GVA), PAGE | P | leaf);
	ram_put64(v, slot(1, GVA), PT | P | W | U);
	CU_ASSERT_EQUAL(mmu_probe(v, GVA, acc, &w), want ? want | 1u << 31 : 0);
	CU_ASSERT_EQUAL(ram_get64(v, slot(0, GVA)) & (A | D), 0);
	v->exc_pending = 0;
	r = mmu_walk(v, GVA, acc, &w);
	CU_ASSERT_EQUAL(r, want ? -1 : 0);
	if (want) {
		CU_ASSERT_EQUAL(v->exc_vector, EXC_PF);
		CU_ASSERT_EQUAL(v->exc_error, want);
		CU_ASSERT_EQUAL(v->exc_cr2, GVA);
		CU_ASSERT_EQUAL(ram_get64(v, slot(1, GVA)) & A, 0);
	} else {
		CU_ASSERT_EQUAL(w.gpa, PAGE + 0x123);
		CU_ASSERT_EQUAL(ram_get64(v, slot(0, GVA)) & (A | D), acc & ACC_W ? A | D : A);
		CU_ASSERT_EQUAL(ram_get64(v, slot(1, GVA)) & (A | D), A);
		CU_ASSERT_EQUAL(w.dirty, (acc & ACC_W) != 0);
	}
}

static void test_permissions(void)
{
	static const unsigned kinds[] = {
		ACC_R,           ACC_W, ACC_X, ACC_R | ACC_SYS, ACC_W | ACC_SYS, ACC_R | ACC_USER, ACC_W | ACC_USER,
		ACC_X | ACC_USER};
	struct vcpu *v = setup();

	for (unsigned c = 0; c < 32; c++) {
		v->cr0 = CR0_PE | CR0_PG | (c & 1 ? CR0_WP : 0);
		v->cr4 = CR4_PAE | (c & 2 ? CR4_SMEP : 0) | (c & 4 ? CR4_SMAP : 0);
		v->efer = EFER_LME | EFER_LMA | (c & 8 ? EFER_NXE : 0);
		v->sysflags = c & 16 ? RFL_AC : 0;
		for (unsigned l = 0; l < 8; l++)
			for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
				check_one(v, (l & 1 ? W : 0) | (l & 2 ? U : 0) | (l & 4 ? NX : 0), kinds[k]);
	}
}

static uint32_t walk_error(struct vcpu *v, uint64_t gva, unsigned acc)
{
	struct walk w;

	v->exc_pending = 0;
	return mmu_walk(v, gva, acc, &w) ? v->exc_error | (uint32_t)v->exc_vector << 16 : 0;
}

#define PF(e) ((uint32_t)EXC_PF << 16 | (e))

static void test_upper_levels(void)
{
	struct vcpu *v = setup();

	for (unsigned level = 0; level < 4; level++) {
		uint64_t good = ram_get64(v, slot(level, GVA));

		ram_put64(v, slot(level, GVA), good & ~P);
		CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_W | ACC_USER), PF(6));
		ram_put64(v, slot(level, GVA), good & ~U);
		CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_R | ACC_USER), PF(5));
		ram_put64(v, slot(level, GVA), good & ~W);
		CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_W), PF(3));
		ram_put64(v, slot(level, GVA), good | NX);
		CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_X), PF(17));
		ram_put64(v, slot(level, GVA), good | 1ull << 45);
		CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_R), PF(9));
		ram_put64(v, slot(level, GVA), good);
	}
	ram_put64(v, slot(3, GVA), PDPT | P | W | U | PS);
	CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_R), PF(9));
}

static void test_large(void)
{
	struct vcpu *v = setup();
	struct walk w;

	v->cr4 |= CR4_PGE;
	ram_put64(v, slot(1, GVA), 0x400000 | P | W | U | PS | G);
	CU_ASSERT_EQUAL(mmu_walk(v, GVA, ACC_R, &w), 0);
	CU_ASSERT_EQUAL(w.page_size, 2u << 20);
	CU_ASSERT_EQUAL(w.gpa, 0x400000 | (GVA & 0x1fffff));
	CU_ASSERT_EQUAL(w.global, 1);
	CU_ASSERT_EQUAL(ram_get64(v, slot(1, GVA)) & (A | D), A);
	ram_put64(v, slot(1, GVA), 0x400000 | P | W | U | PS | 1u << 13);
	CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_R), PF(9));
	ram_put64(v, slot(1, GVA), 0x400000 | P | W | U | PS | 1u << 12); /* PAT */
	CU_ASSERT_EQUAL(walk_error(v, GVA, ACC_R), 0);
	ram_put64(v, slot(2, GVA), 0x40000000 | P | W | U | PS);
	CU_ASSERT_EQUAL(mmu_walk(v, GVA, ACC_W, &w), 0);
	CU_ASSERT_EQUAL(w.page_size, 1u << 30);
	CU_ASSERT_EQUAL(w.gpa, 0x40000000 | (GVA & 0x3fffffff));
	CU_ASSERT_EQUAL(ram_get64(v, slot(2, GVA)) & D, D);
}

static void test_noncanonical(void)
{
	struct vcpu *v = setup();
	struct walk w;

	CU_ASSERT_EQUAL(walk_error(v, 0x800000000000ull, ACC_R), (uint32_t)EXC_GP << 16);
	CU_ASSERT_EQUAL(mmu_probe(v, 0x800000000000ull, ACC_R, &w), 1u << 31);
}

static void test_pae(void)
{
	struct vcpu *v = setup();
	struct walk w;
	uint64_t gva = 0xc0201123;

	v->efer = EFER_NXE;
	v->pdpte[3] = PD | P;
	ram_put64(v, PD + 8, PT | P | W | U);
	ram_put64(v, PT + 8, PAGE | P | U);
	CU_ASSERT_EQUAL(mmu_walk(v, gva, ACC_R | ACC_USER, &w), 0);
	CU_ASSERT_EQUAL(w.gpa, PAGE + 0x123);
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_W | ACC_USER), PF(7));
	ram_put64(v, PT + 8, PAGE | P | U | NX);
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_X | ACC_USER), PF(21));
	ram_put64(v, PT + 8, PAGE | P | U | 1ull << 55); /* reserved in PAE, free in 4-level tables */
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_R), PF(9));
	v->pdpte[3] = 0;
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_R), PF(0));
}

static void test_32bit(void)
{
	struct vcpu *v = setup();
	struct walk w;
	uint64_t gva = 0xc0401123;

	v->efer = 0;
	v->cr4 = CR4_PSE;
	v->cr3 = PD;
	ram_put32(v, PD + 0x301 * 4, PT | 7);
	ram_put32(v, PT + 4, PAGE | 5);
	CU_ASSERT_EQUAL(mmu_walk(v, gva, ACC_R | ACC_USER, &w), 0);
	CU_ASSERT_EQUAL(w.gpa, PAGE + 0x123);
	CU_ASSERT_EQUAL(ram_get32(v, PT + 4) & 0x60, 0x20);
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_W | ACC_USER), PF(7));
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_W), PF(3));
	v->cr0 &= ~(uint64_t)CR0_WP;
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_W), 0);
	CU_ASSERT_EQUAL(ram_get32(v, PT + 4) & 0x60, 0x60);
	ram_put32(v, PD + 0x301 * 4, 0x00c00000 | 0x87 | 1u << 13); /* 4 MiB page at 0x1_00c0_0000 */
	CU_ASSERT_EQUAL(mmu_walk(v, gva, ACC_R, &w), 0);
	CU_ASSERT_EQUAL(w.gpa, 0x100c01123ull);
	CU_ASSERT_EQUAL(w.page_size, 4u << 20);
	ram_put32(v, PD + 0x301 * 4, 0x00c00000 | 0x87 | 1u << 21);
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_R), PF(9));
	v->cr4 = 0; /* without PSE the bit means nothing */
	ram_put32(v, PD + 0x301 * 4, PT | 0x87);
	CU_ASSERT_EQUAL(walk_error(v, gva, ACC_R), 0);
}

static void test_unpaged(void)
{
	struct vcpu *v = mach_vcpu();
	struct walk w;

	v->cr0 = CR0_PE;
	CU_ASSERT_EQUAL(mmu_walk(v, 0x1234, ACC_W | ACC_USER, &w), 0);
	CU_ASSERT_EQUAL(w.gpa, 0x1234);
	CU_ASSERT_TRUE(w.writable && w.dirty && w.user && !w.nx);
}

static void test_crossing(void)
{
	struct vcpu *v = setup();
	uint64_t gva = (GVA & ~0xfffull) + 0xffc, val = 0x1122334455667788, got = 0;

	ram_put64(v, slot(0, GVA) + 8, (PAGE + 0x5000) | P | U);
	ram_put64(v, PAGE + 0xff8, 0);
	CU_ASSERT_EQUAL(mmu_write(v, gva, &val, 8, ACC_USER), -1);
	CU_ASSERT_EQUAL(v->exc_cr2, gva + 4);
	CU_ASSERT_EQUAL(v->exc_error, 7);
	CU_ASSERT_EQUAL(ram_get32(v, PAGE + 0xffc), 0); /* the first page is untouched */
	ram_put64(v, slot(0, GVA) + 8, (PAGE + 0x5000) | P | U | W);
	CU_ASSERT_EQUAL(mmu_write(v, gva, &val, 8, ACC_USER), 0);
	CU_ASSERT_EQUAL(ram_get32(v, PAGE + 0xffc), 0x55667788);
	CU_ASSERT_EQUAL(ram_get32(v, PAGE + 0x5000), 0x11223344);
	CU_ASSERT_EQUAL(mmu_read(v, gva, &got, 8, ACC_USER), 0);
	CU_ASSERT_EQUAL(got, val);
	CU_ASSERT_TRUE(seen.code_writes >= 2);
	CU_ASSERT_TRUE(v->vm->mem->dirty_bm[(PAGE + 0x5000) >> 18] >> (((PAGE + 0x5000) >> 12) & 63) & 1);
}

static void test_physical(void)
{
	struct vcpu *v = mach_vcpu();
	uint64_t val = 0x42;

	phys_write(v, 0xfee00300, &val, 4);
	CU_ASSERT_EQUAL(seen.mmio_gpa, 0xfee00300);
	CU_ASSERT_EQUAL(seen.mmio_size, 4);
	CU_ASSERT_EQUAL(seen.mmio_writes, 1);
	seen.mmio_val = 0x77;
	val = 0;
	phys_read(v, 0xfee00300, &val, 2);
	CU_ASSERT_EQUAL(val, 0x77);
	val = 0x0807060504030201;
	phys_write(v, MACH_RAM - 4, &val, 8); /* half RAM, half nothing */
	CU_ASSERT_EQUAL(ram_get32(v, MACH_RAM - 4), 0x04030201);
	CU_ASSERT_EQUAL(seen.mmio_gpa, MACH_RAM);
	CU_ASSERT_EQUAL(seen.mmio_val, 0x08070605);
}

CU_ErrorCode suite_walk(void)
{
	CU_pSuite s = CU_add_suite("walk", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "permissions", test_permissions) ||
	    !CU_add_test(s, "upper levels", test_upper_levels) || !CU_add_test(s, "large pages", test_large) ||
	    !CU_add_test(s, "non-canonical", test_noncanonical) || !CU_add_test(s, "pae", test_pae) ||
	    !CU_add_test(s, "32-bit", test_32bit) || !CU_add_test(s, "unpaged", test_unpaged) ||
	    !CU_add_test(s, "page crossing", test_crossing) || !CU_add_test(s, "physical", test_physical))
		return CU_get_error();
	return CUE_SUCCESS;
}
