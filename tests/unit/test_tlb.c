/*
 * Soft TLB: fills, flushes, and the inline check that uses it.
 * Invariant under test: after the flush the architecture asks for, no entry allows what a fresh walk would not.
 */
#include <CUnit/CUnit.h>
#include <string.h>

#include "btvm.h"
#include "vcpu/mmu/mmu.h"

#define PG 4096ull

static unsigned at(uint64_t gva)
{
	return gva >> 12 & (TLB_SIZE - 1);
}

static struct soft_tlb *tlb(struct vcpu *v)
{
	return &v->tlb[mode_tlb(v->mode)];
}

static bool has_r(struct vcpu *v, uint64_t gva)
{
	return tlb(v)->rtag[at(gva)] == (gva & ~(PG - 1));
}

static bool has_w(struct vcpu *v, uint64_t gva)
{
	return tlb(v)->wtag[at(gva)] == (gva & ~(PG - 1));
}

static void test_install(void)
{
	struct vcpu *v = btvm_reset();
	uint64_t a = BTVM_DATA + 0x123, *pte = btvm_pte(a), frame = BTVM_DATA / PG;

	v->vm->mem->dirty_bm[frame / 64] = 0;
	CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_R), 0);
	CU_ASSERT(has_r(v, a) && !has_w(v, a)); /* D is clear: a store has to come by */
	CU_ASSERT_EQUAL(*pte & 0x60, 0x20);
	CU_ASSERT_EQUAL(tlb(v)->radd[at(a)] + a, (uint64_t)(uintptr_t)v->vm->mem->ram + a);
	CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_W), 0);
	CU_ASSERT(has_r(v, a) && has_w(v, a));
	CU_ASSERT_EQUAL(*pte & 0x60, 0x60);
	CU_ASSERT(v->vm->mem->dirty_bm[frame / 64] >> (frame % 64) & 1);
	tlb_flush_all(v);
	CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_R), 0);
	CU_ASSERT(has_w(v, a)); /* D is set now */
}

/* A p2m that says nonsense gives no pointer: the access goes where there is no RAM. */
static void test_p2m(void)
{
	struct vcpu *v = btvm_reset();
	struct gmem *g = v->vm->mem;
	uint64_t a = BTVM_DATA, frame = a / PG, was = g->p2m[frame], b = 0;

	CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_W), 0); /* D is set */
	tlb_flush_all(v);
	g->p2m[frame] = 1ull << 40;
	CU_ASSERT(tlb_fill(v, a, 4, ACC_R) > 0 && !has_r(v, a) && !has_w(v, a));
	CU_ASSERT(tlb_fill(v, a, 4, ACC_W) > 0 && !has_r(v, a) && !has_w(v, a));
	g->p2m[frame] = was;
	tlb_flush_all(v);
	CU_ASSERT_EQUAL(gmem_read(g, a, &b, 1), 0);
}

/* ---- merged pages ---- */

#define ALIAS (BTVM_LARGE + BTVM_DATA - BTVM_CODE) /* of BTVM_DATA */

static uint8_t pool[2 * PG] __attribute__((aligned(4096)));

static uint64_t frame_of(uint64_t gpa)
{
	return gpa / PG;
}

/* BTVM_DATA becomes the pool's page 1, whose bytes are their offsets; its own place holds other ones. */
static struct vcpu *merged(void)
{
	struct vcpu *v = btvm_reset();
	struct gmem *g = v->vm->mem;

	g->pool = pool;
	g->pool_size = sizeof pool;
	for (unsigned i = 0; i < PG; i++)
		pool[PG + i] = (uint8_t)(i * 7);
	memset(g->ram + BTVM_DATA, 0xee, PG);
	g->p2m[frame_of(BTVM_DATA)] = PG | SHM_P2M_SHARED;
	*btvm_pte(BTVM_DATA) |= 0x60; /* A and D: only merging is in the way of a store */
	return v;
}

static void unmerged(struct vcpu *v)
{
	struct gmem *g = v->vm->mem;

	CU_ASSERT_EQUAL(g->p2m[frame_of(BTVM_DATA)], BTVM_DATA);
	CU_ASSERT_FALSE(gmem_bit(g->held_bm, frame_of(BTVM_DATA)));
	for (unsigned i = 0; i < PG; i++)
		CU_ASSERT_FATAL(pool[PG + i] == (uint8_t)(i * 7)); /* nobody wrote there */
	g->pool = NULL;
	g->pool_size = 0;
	v->moved = 0;
	tlb_flush_all(v);
}

static void test_merged(void)
{
	struct vcpu *v = merged();
	struct gmem *g = v->vm->mem;
	uint64_t a = BTVM_DATA, own = (uint64_t)(uintptr_t)g->ram + a;

	CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_R), 0);
	CU_ASSERT_EQUAL(tlb_fill(v, ALIAS, 4, ACC_R), 0);
	CU_ASSERT(has_r(v, a) && !has_w(v, a) && has_r(v, ALIAS) && !has_w(v, ALIAS));
	CU_ASSERT_EQUAL(tlb(v)->radd[at(a)] + a, (uint64_t)(uintptr_t)pool + PG);
	CU_ASSERT_TRUE(gmem_bit(g->held_bm, frame_of(a)));
	CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_W), 0); /* a store */
	CU_ASSERT(has_w(v, a) && tlb(v)->wadd[at(a)] + a == own);
	CU_ASSERT(!has_r(v, ALIAS) && v->moved);
	CU_ASSERT(!has_r(v, a) || tlb(v)->radd[at(a)] + a == own);
	CU_ASSERT_EQUAL(memcmp(g->ram + a, pool + PG, PG), 0);
	unmerged(v);
	/* nobody keeps anything of it: nothing is looked for */
	v = merged();
	CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_W), 0);
	CU_ASSERT_FALSE(v->moved);
	unmerged(v);
	/* written by a device, which saw the bit and asks the vcpu to let go */
	v = merged();
	tlb_fill(v, a, 4, ACC_R);
	tlb_fill(v, ALIAS, 4, ACC_R);
	g->p2m[frame_of(a)] = a;
	code_written(v, a, 8);
	CU_ASSERT(!has_r(v, a) && !has_r(v, ALIAS));
	unmerged(v);
}

/* memsvc is going to move pages: nothing of theirs is kept, of others all is. */
static void test_withdraw(void)
{
	struct vcpu *v = merged();
	static uint64_t bits[BTVM_RAM / PG / 64];
	const struct frame_set set = {bits, BTVM_RAM / PG};
	uint64_t a = BTVM_DATA + PG, b = BTVM_DATA + 2 * PG;

	tlb_fill(v, a, 4, ACC_W);
	tlb_fill(v, ALIAS + PG, 4, ACC_R);
	tlb_fill(v, b, 4, ACC_W);
	tlb_fill(v, BTVM_DATA, 4, ACC_R);
	bits[frame_of(a) / 64] = 1ull << frame_of(a) % 64;
	mmu_withdraw(v, &set, false);
	CU_ASSERT(!has_r(v, a) && !has_w(v, a) && !has_r(v, ALIAS + PG));
	CU_ASSERT(has_w(v, b) && has_r(v, BTVM_DATA));
	mmu_withdraw(v, &set, true);
	CU_ASSERT(has_w(v, b) && !has_r(v, BTVM_DATA));
	/* watched: it may be read where it is, and not written just so */
	v->vm->mem->p2m[frame_of(a)] |= SHM_P2M_WATCHED;
	tlb_fill(v, a, 4, ACC_R);
	CU_ASSERT(has_r(v, a) && !has_w(v, a));
	tlb_fill(v, a, 4, ACC_W);
	CU_ASSERT(has_w(v, a));
	CU_ASSERT_EQUAL(v->vm->mem->p2m[frame_of(a)], a);
	/* of an address space that is not the current one */
	v->cr4 |= 1ull << 17;
	tlb_fill(v, a, 4, ACC_W);
	tlb_switch(v, 1, 2, false);
	mmu_withdraw(v, &set, false);
	tlb_switch(v, 2, 1, false);
	CU_ASSERT(!has_r(v, a) && !has_w(v, a));
	bits[frame_of(a) / 64] = 0;
	tlb_fill(v, BTVM_DATA, 4, ACC_W);
	unmerged(v);
}

static void run_merged(struct vcpu *v, const char *hex)
{
	uint8_t code[64];
	size_t n = btvm_hex(hex, code, sizeof code);

	btvm_put(v, BTVM_CODE, code, n);
	v->rip = BTVM_CODE;
	CU_ASSERT_EQUAL(vcpu_run_until(v, BTVM_CODE + n, 50), 0);
}

/* A page that is un-merged in the middle of a block whose other accesses were checked before. */
static void test_merged_block(void)
{
	struct vcpu *v = merged();
	const uint64_t old = 0x312a231c150e0700ull;

	v->regs[R_DI] = BTVM_DATA;
	v->regs[R_SI] = ALIAS + 8;
	v->regs[R_CX] = 0x1122334455667788;
	/* mov rax, [rdi]; mov [rsi], rcx; mov rdx, [rdi+8]; mov rbx, [rdi] */
	run_merged(v, "48 8b 07 48 89 0e 48 8b 57 08 48 8b 1f 90");
	CU_ASSERT_EQUAL(v->regs[R_AX], old);
	CU_ASSERT_EQUAL(v->regs[R_DX], 0x1122334455667788);
	CU_ASSERT_EQUAL(v->regs[R_BX], old);
	unmerged(v);
	v = merged(); /* across two pages, of which the first is merged; add [rdi], al between reads of its group */
	v->regs[R_DI] = BTVM_DATA + 0x100;
	v->regs[R_SI] = ALIAS + PG - 4;
	v->regs[R_CX] = 0x1122334455667788;
	/* mov rax, [rdi+0xef8]; mov [rsi], rcx; mov rdx, [rdi+0xef8]; add byte [rdi], 1; movzx ebx, byte [rdi] */
	run_merged(v, "48 8b 87 f8 0e 00 00 48 89 0e 48 8b 97 f8 0e 00 00 80 07 01 0f b6 1f 90");
	CU_ASSERT_EQUAL(v->regs[R_DX] >> 32, 0x55667788);
	CU_ASSERT_EQUAL((uint32_t)v->regs[R_DX], (uint32_t)v->regs[R_AX]);
	CU_ASSERT_EQUAL(v->regs[R_BX], (uint8_t)(0x100 * 7) + 1);
	unmerged(v);
}

/* Source and destination are one page, read in the pool and written in its own place. */
static void test_merged_string(void)
{
	struct vcpu *v = merged();

	v->regs[R_SI] = BTVM_DATA;
	v->regs[R_DI] = ALIAS + 1;
	v->regs[R_CX] = 100;
	run_merged(v, "c6 06 5a 90"); /* mov byte [rsi], 0x5a */
	unmerged(v);
	v = merged();
	pool[PG] = 0; /* as it is */
	v->regs[R_SI] = BTVM_DATA + 3;
	v->regs[R_DI] = ALIAS + 4;
	v->regs[R_CX] = 100;
	run_merged(v, "8a 06 f3 a4 90"); /* mov al, [rsi]; rep movsb */
	for (unsigned i = 3; i < 104; i++)
		CU_ASSERT_EQUAL(v->vm->mem->ram[BTVM_DATA + i], 21);
	CU_ASSERT_EQUAL(v->vm->mem->ram[BTVM_DATA + 104], (uint8_t)(104 * 7));
	unmerged(v);
}

static void test_faults(void)
{
	struct vcpu *v = btvm_reset();

	*btvm_pte(BTVM_DATA) &= ~2ull; /* read-only */
	CU_ASSERT_EQUAL(tlb_fill(v, BTVM_DATA, 4, ACC_R), 0);
	CU_ASSERT(!has_w(v, BTVM_DATA));
	CU_ASSERT(tlb_fill(v, BTVM_DATA, 4, ACC_W) < 0);
	CU_ASSERT(!has_w(v, BTVM_DATA));
	CU_ASSERT_EQUAL(v->exc_vector, EXC_PF);
	CU_ASSERT_EQUAL(v->exc_error, 7);
	CU_ASSERT_EQUAL(v->exc_cr2, BTVM_DATA);
	v->exc_pending = 0;
	CU_ASSERT(tlb_fill(v, BTVM_KERN, 4, ACC_R) < 0); /* supervisor's */
	CU_ASSERT(!has_r(v, BTVM_KERN));
	CU_ASSERT_EQUAL(v->exc_error, 5);
}

static void test_flush(void)
{
	struct vcpu *v = btvm_reset();
	uint64_t user = BTVM_DATA, kern = BTVM_KERN + 3 * PG, local = BTVM_KERN + 5 * PG;

	tlb_fill(v, user, 4, ACC_W);
	btvm_mode(v, 0, 8);
	*btvm_pte(local) &= ~0x100ull;
	tlb_fill(v, kern, 4, ACC_W);
	tlb_fill(v, local, 4, ACC_W);
	CU_ASSERT(has_w(v, kern) && has_w(v, local));
	tlb_flush_nonglobal(v);
	if (mode_tlb(v->mode) == TLB_KERN) /* with SMAP the supervisor's table outlives a switch, but for local pages */
		CU_ASSERT(has_r(v, kern) && has_w(v, kern));
	CU_ASSERT(!has_r(v, local) && !has_w(v, local));
	tlb_flush_all(v);
	CU_ASSERT(!has_r(v, kern) && !has_w(v, kern));
	btvm_mode(v, 3, 8);
	CU_ASSERT(!has_r(v, user) && !has_w(v, user));
}

static void test_invlpg(void)
{
	struct vcpu *v = btvm_reset();

	tlb_fill(v, BTVM_DATA, 4, ACC_W);
	tlb_fill(v, BTVM_DATA + PG, 4, ACC_W);
	tlb_flush_page(v, BTVM_DATA + 0xabc);
	CU_ASSERT(!has_r(v, BTVM_DATA) && !has_w(v, BTVM_DATA));
	CU_ASSERT(has_r(v, BTVM_DATA + PG) && has_w(v, BTVM_DATA + PG));
}

/* invlpg anywhere in a large page takes all of it; pages elsewhere may stay. */
static void test_large(void)
{
	static const struct {
		uint64_t base, last;
	} page[] = {{BTVM_LARGE, 0x1ff000}, {BTVM_GIGA, 0x7ff000}};
	struct vcpu *v = btvm_reset();

	for (unsigned k = 0; k < 2; k++) {
		uint64_t a = page[k].base + 0x3000, z = page[k].base + page[k].last;

		CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_W), 0);
		CU_ASSERT_EQUAL(tlb_fill(v, z, 4, ACC_R), 0);
		CU_ASSERT(has_w(v, a) && has_r(v, z));
		tlb_flush_page(v, page[k].base + 0x7123);
		CU_ASSERT(!has_r(v, a) && !has_w(v, a) && !has_r(v, z) && !has_w(v, z));
		CU_ASSERT_EQUAL(tlb_fill(v, a, 4, ACC_R), 0);
		tlb_flush_nonglobal(v);
		CU_ASSERT(!has_r(v, a));
	}
}

/* More fills than are listed. */
static void test_many(void)
{
	struct vcpu *v = btvm_reset();
	unsigned left = 0;

	for (uint64_t a = 0; a < BTVM_RAM; a += PG)
		tlb_fill(v, a, 4, ACC_W);
	CU_ASSERT(has_w(v, BTVM_RAM - PG));
	tlb_flush_nonglobal(v);
	for (unsigned i = 0; i < TLB_SIZE; i++)
		left += tlb(v)->rtag[i] != TLB_INVALID || tlb(v)->wtag[i] != TLB_INVALID;
	CU_ASSERT_EQUAL(left, 0);
}

/* A page that gets code loses its write tags, and gets none while it holds code. */
static void test_code(void)
{
	struct vcpu *v = btvm_reset();

	tlb_fill(v, BTVM_CODE + 0x800, 4, ACC_W);
	tlb_fill(v, BTVM_LARGE + 0x800, 4, ACC_W); /* the same RAM */
	CU_ASSERT(has_w(v, BTVM_CODE) && has_w(v, BTVM_LARGE));
	btvm_translate(v, BTVM_CODE + 0x100, v->mode, "f4");
	CU_ASSERT(!has_w(v, BTVM_CODE) && !has_w(v, BTVM_LARGE));
	CU_ASSERT(has_r(v, BTVM_CODE));
	tlb_fill(v, BTVM_CODE + 0x800, 4, ACC_W);
	CU_ASSERT(!has_w(v, BTVM_CODE));
}

/* Runs @hex with rip at BTVM_CODE + 0x100; it ends with hlt. */
static void run(struct vcpu *v, const char *hex)
{
	uint8_t code[64];
	size_t n = btvm_hex(hex, code, sizeof code);

	btvm_put(v, BTVM_CODE + 0x100, code, n);
	v->rip = BTVM_CODE + 0x100;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
}

static uint64_t *large_entry(struct vcpu *v)
{
	uint64_t table = v->cr3 & ~0xfffull;

	for (int shift = 39; shift > 21; shift -= 9)
		table = *(uint64_t *)(void *)(v->vm->mem->ram + table + (BTVM_LARGE >> shift & 511) * 8) &
			0xffffffffff000ull;
	return (uint64_t *)(void *)(v->vm->mem->ram + table + (BTVM_LARGE >> 21 & 511) * 8);
}

/* Code that was only ever fetched through a large page: invlpg anywhere in it takes that away too. */
static void test_large_code(void)
{
	static const uint8_t old[] = {0xb8, 1, 0, 0, 0, 0xf4}, new[] = {0xb8, 2, 0, 0, 0, 0xf4}; /* mov eax, n; hlt */
	struct vcpu *v = btvm_reset();

	btvm_put(v, BTVM_CODE + 0x1800, old, sizeof old);
	btvm_put(v, BTVM_CODE + 0x201800, new, sizeof new);
	v->rip = BTVM_LARGE + 0x1800;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->regs[R_AX], 1);
	*large_entry(v) += 0x200000;
	tlb_flush_page(v, BTVM_LARGE + 0x7000);
	v->rip = BTVM_LARGE + 0x1800;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
	CU_ASSERT_EQUAL(v->regs[R_AX], 2);
}

/*
 * mov ecx, [rsi]; mov eax, fs:[ebx]; hlt, where ebx + 3 wraps at 4 GiB: the operand lies in the page 4 GiB above the one that rsi
 * just brought into the soft TLB, at the same index.
 */
static void wrap_case(struct vcpu *v)
{
	v->regs[R_SI] = BTVM_DATA + 0x10;
	v->regs[R_BX] = 0xfffffffe;
	v->seg[SEG_FS].base = BTVM_DATA + 0x800;
	vcpu_update_mode(v);
	run(v, "8b 0e 64 67 8b 03 f4");
	CU_ASSERT_EQUAL(v->regs[R_CX], 0x11111111);
}

static void check_wrap(bool bmi2)
{
	struct vcpu *v = btvm_reset();
	uint32_t below = 0x11111111, above = 0x22222222;

	v->bt->have_bmi2 = bmi2;
	btvm_put(v, BTVM_DATA + 0x10, &below, 4);
	btvm_put(v, 0x600000 + 0x7fe, &above, 4);
	wrap_case(v);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_PF);
	CU_ASSERT_EQUAL(v->exc_cr2, 0x100000000 + BTVM_DATA + 0x7fe);
	*btvm_pte(0x100000000 + BTVM_DATA) = 0x600000 | 7;
	wrap_case(v);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_GP); /* hlt */
	CU_ASSERT_EQUAL(v->regs[R_AX], above);
}

static void test_wrap(void)
{
	check_wrap(false);
	if (btvm_reset()->bt->have_bmi2)
		check_wrap(true);
}

/* What crosses into other RAM stays in its block: mov rax, [rsi]; mov [rdi], rax; movups xmm0, [rbx]; movups [rdx], xmm0 */
static void test_crossing_in_place(void)
{
	struct vcpu *v = btvm_reset();
	uint64_t edge = BTVM_DATA + PG, blocks;
	uint8_t want[24], got[24];

	for (unsigned i = 0; i < sizeof want; i++)
		want[i] = (uint8_t)(i + 1);
	*btvm_pte(edge) = 0x600000 | 7;
	btvm_put(v, edge - 7, want, 7);
	btvm_put(v, 0x600000, want + 7, sizeof want - 7);
	memmove(want + 5, want + 4, 8);
	memmove(want + 2, want + 4, 16);
	v->regs[R_SI] = v->regs[R_BX] = edge - 3;
	v->regs[R_DI] = edge - 2;
	v->regs[R_DX] = edge - 5;
	blocks = v->stats.blocks;
	run(v, "48 8b 06 48 89 07 0f 10 03 0f 11 02 f4");
	CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
	CU_ASSERT_EQUAL(v->stats.blocks - blocks, 1);
	memcpy(got, v->vm->mem->ram + edge - 7, 7);
	memcpy(got + 7, v->vm->mem->ram + 0x600000, sizeof got - 7);
	CU_ASSERT_EQUAL(memcmp(got, want, sizeof want), 0);
}

/* Unaligned within a page, across pages, across into nothing. */
static void test_unaligned(void)
{
	static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct vcpu *v = btvm_reset();
	uint64_t edge = BTVM_DATA + PG;

	*btvm_pte(edge) = 0x600000 | 7;
	btvm_put(v, edge - 4, bytes, 4);
	btvm_put(v, 0x600000, bytes + 4, 4);
	v->regs[R_SI] = edge - 4;
	run(v, "48 8b 06 48 89 46 80 f4"); /* mov rax, [rsi]; mov [rsi-128], rax */
	CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x0807060504030201);
	CU_ASSERT_EQUAL(memcmp(v->vm->mem->ram + edge - 132, bytes, 8), 0);
	CU_ASSERT(v->stats.cross_page > 0);
	*btvm_pte(edge) = 0;
	tlb_flush_page(v, edge);
	v->regs[R_AX] = ~0ull;
	run(v, "48 89 06 f4"); /* nothing of the store happens */
	CU_ASSERT_EQUAL(v->exc_vector, EXC_PF);
	CU_ASSERT_EQUAL(v->exc_cr2, edge);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE + 0x100);
	CU_ASSERT_EQUAL(memcmp(v->vm->mem->ram + edge - 4, bytes, 4), 0);
}

CU_ErrorCode suite_tlb(void);
CU_ErrorCode suite_tlb(void)
{
	CU_pSuite s = CU_add_suite("tlb", NULL, NULL);

	CU_add_test(s, "install", test_install);
	CU_add_test(s, "p2m", test_p2m);
	CU_add_test(s, "faults", test_faults);
	CU_add_test(s, "merged pages", test_merged);
	CU_add_test(s, "pages that are to move", test_withdraw);
	CU_add_test(s, "un-merged in the middle of a block", test_merged_block);
	CU_add_test(s, "un-merged by a string instruction", test_merged_string);
	CU_add_test(s, "flush", test_flush);
	CU_add_test(s, "invlpg", test_invlpg);
	CU_add_test(s, "large pages", test_large);
	CU_add_test(s, "code of large pages", test_large_code);
	CU_add_test(s, "more fills than are listed", test_many);
	CU_add_test(s, "pages with code", test_code);
	CU_add_test(s, "last byte does not wrap at 4 GiB", test_wrap);
	CU_add_test(s, "unaligned operands", test_unaligned);
	CU_add_test(s, "across pages in place", test_crossing_in_place);
	return CU_get_error();
}
