/*
 * The guest kernel's window: accesses by the guest's own instruction, what faults become, what flushes take away.
 * Invariant under test: the guest cannot tell it from the soft TLB, and no code but the kernel's has it.
 */
#include <CUnit/CUnit.h>
#include <string.h>

#include "btvm.h"
#include "tests/fuzz/verify.h"
#include "vcpu/mmu/window.h"

#define PG    4096ull
#define FRAME (BTVM_DATA / PG)
#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_G 0x100ull
#define KERN  0xffffa00000000000ull /* as BTVM_KERN, which no window can hold */

static struct vcpu *start(void)
{
	struct vcpu *v = btvm_reset();

	btvm_window(v, true);
	btvm_mode(v, 0, 8);
	for (uint64_t i = 0; i < 16; i++)
		*btvm_pte(KERN + i * PG) = (BTVM_DATA + i * PG) | PTE_P | PTE_W | PTE_G;
	v->regs[R_SP] = KERN + 0xff00;
	v->regs[R_BX] = KERN + 0x3010;
	return v;
}

static uint64_t *ram(struct vcpu *v, uint64_t gpa)
{
	return (uint64_t *)(void *)(v->vm->mem->ram + gpa);
}

/* Each block that is there is what translated code may be. */
static void verify_all(struct vcpu *v)
{
	char why[256] = "";

	for (uint32_t b = 0; b < v->bt->n_blocks; b++)
		if (!v->bt->blocks[b].dead && verify_block(v, &v->bt->blocks[b], why, sizeof why)) {
			fprintf(stderr, "%s\n", why);
			CU_FAIL("a block that is not what it may be");
		}
}

/* Runs @hex, to which ud2 is added, to its first exception: which. */
static int run(struct vcpu *v, const char *hex)
{
	uint8_t code[80];
	size_t n = btvm_hex(hex, code, sizeof code - 2);

	memcpy(code + n, "\x0f\x0b", 2);
	btvm_put(v, BTVM_CODE, code, n + 2);
	v->rip = BTVM_CODE;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 200), 1);
	v->exc_pending = 0;
	verify_all(v);
	return v->exc_vector;
}

#define LOAD  "48 8b 03" /* mov rax, [rbx] */
#define STORE "48 89 0b" /* mov [rbx], rcx */
#define ADDM  "48 01 0b" /* add [rbx], rcx */

static void test_accesses(void)
{
	struct vcpu *v = start();

	*ram(v, BTVM_DATA + 0x3010) = 0x1234;
	v->regs[R_CX] = 0x11;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 0x1234);
	CU_ASSERT_EQUAL(run(v, STORE ADDM ADDM), EXC_UD);
	CU_ASSERT_EQUAL(*ram(v, BTVM_DATA + 0x3010), 0x33);
	CU_ASSERT_EQUAL(run(v, "51 50 58 59 c8 00 00 00 c9"), EXC_UD); /* push, push, pop, pop, enter, leave */
	CU_ASSERT_EQUAL(v->regs[R_SP], KERN + 0xff00);
	CU_ASSERT_EQUAL(*ram(v, BTVM_DATA + 0xfef8), v->regs[R_BP]);
	/* stc; call 1f; ud2; 1: jc 2f; ud2; 2: lea rdx, [rsp]; ret */
	CU_ASSERT_EQUAL(run(v, "f9 e8 02 00 00 00 0f 0b 72 02 0f 0b 48 8d 14 24 c3"), EXC_UD);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE + 6);
	CU_ASSERT_EQUAL(v->regs[R_DX], KERN + 0xfef8);
	v->seg[SEG_GS].base = v->seg_base[SEG_GS] = KERN + 0x3000;
	CU_ASSERT_EQUAL(run(v, "65 48 8b 14 25 10 00 00 00"), EXC_UD); /* mov rdx, gs:[0x10] */
	CU_ASSERT_EQUAL(v->regs[R_DX], 0x33);
	v->regs[R_SI] = 2;
	v->regs[R_DI] = 0;
	CU_ASSERT_EQUAL(run(v, "65 48 8b 54 f7 00 48 0f ab 3b"), EXC_UD); /* mov rdx, gs:[rdi+rsi*8]; bts [rbx], rdi */
	CU_ASSERT_EQUAL(v->regs[R_DX], 0x33);
	CU_ASSERT_EQUAL(v->stats.tlb_misses, 0);
	CU_ASSERT(v->stats.window_maps > 0 && v->stats.window_maps < 4);
	CU_ASSERT_EQUAL(v->stats.window_refused, 0);
}

static void test_faults(void)
{
	struct vcpu *v = start();
	uint64_t *pte = btvm_pte(KERN + 0x3000), was = *pte;

	*pte = 0;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_PF);
	CU_ASSERT_EQUAL(v->exc_error, 0);
	CU_ASSERT_EQUAL(v->exc_cr2, KERN + 0x3010);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE);
	*pte = was & ~PTE_W;
	CU_ASSERT_EQUAL(run(v, "90" LOAD STORE), EXC_PF);
	CU_ASSERT_EQUAL(v->exc_error, 3);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE + 4);
	*pte = was; /* more is allowed without a flush */
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	v->regs[R_BX] = BTVM_DATA; /* the user's: SMAP */
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_PF);
	CU_ASSERT_EQUAL(v->exc_error, 1);
	v->regs[R_BX] = 0xdead000000000122;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_GP);
	v->regs[R_BX] = KERN + 0x3004;
	CU_ASSERT_EQUAL(run(v, "0f 28 03"), EXC_GP); /* movaps xmm0, [rbx] */
	v->regs[R_SP] = 0xdead000000000000;
	CU_ASSERT_EQUAL(run(v, "50"), EXC_SS);
}

/* Another frame in the entry, and the flush that it asks for. */
static void move(struct vcpu *v, uint64_t gva, uint64_t gpa)
{
	uint64_t *pte = btvm_pte(gva);

	*pte = gpa | (*pte & 0xfff);
}

static void test_invlpg(void)
{
	struct vcpu *v = start();

	*ram(v, BTVM_DATA + 0x3010) = 1;
	*ram(v, BTVM_DATA + 0x4010) = 2;
	*ram(v, 0x700010) = 3;
	CU_ASSERT_EQUAL(run(v, STORE LOAD), EXC_UD);
	move(v, KERN + 0x3000, 0x700000);
	tlb_flush_page(v, KERN + 0x3888);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 3);
	*btvm_pte(KERN + 0x3000) &= ~PTE_P;
	tlb_flush_page(v, KERN + 0x3000);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_PF);
	*btvm_pte(KERN + 0x3000) |= PTE_P;
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	*btvm_pte(KERN + 0x3000) &= ~PTE_W; /* to read only */
	tlb_flush_page(v, KERN + 0x3000);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(run(v, STORE), EXC_PF);
	*btvm_pte(KERN + 0x3000) |= PTE_W | 4; /* the user's, flushed while the kernel may touch those */
	vcpu_set_rflags(v, RFL_FIX | RFL_AC);
	tlb_flush_page(v, KERN + 0x3000);
	vcpu_set_rflags(v, RFL_FIX);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_PF);
}

/* Global pages outlive a CR3 load, local ones are looked at again; a full flush looks at all, and keeps what is the same. */
static void test_flushes(void)
{
	struct vcpu *v = start();
	uint64_t maps;

	*btvm_pte(KERN + 0x5000) &= ~PTE_G;
	*ram(v, 0x700010) = 3;
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	v->regs[R_BX] += 0x2000;
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	maps = v->stats.window_maps;
	tlb_flush_nonglobal(v);
	tlb_flush_all(v);
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	CU_ASSERT_EQUAL(v->stats.window_maps, maps); /* nothing had changed */
	CU_ASSERT_EQUAL(v->stats.window_withdrawn, 0);
	move(v, KERN + 0x5000, 0x700000);
	tlb_flush_nonglobal(v);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 3);
	v->regs[R_BX] -= 0x2000;
	move(v, KERN + 0x3000, 0x700000);
	tlb_flush_all(v);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 3);
	CU_ASSERT_EQUAL(v->stats.window_withdrawn, 2);
}

/* A and D are set by the first use, again after the guest has cleared them; neighbours' are left alone. */
static void test_accessed(void)
{
	struct vcpu *v = start();
	uint64_t *pte = btvm_pte(KERN + 0x3000), *next = btvm_pte(KERN + 0x4000);

	*pte &= ~(PTE_A | PTE_D);
	*next &= ~(PTE_A | PTE_D);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(*pte & (PTE_A | PTE_D), PTE_A);
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	CU_ASSERT_EQUAL(*pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	CU_ASSERT_EQUAL(*next & (PTE_A | PTE_D), 0);
	for (uint64_t bit = PTE_A; bit <= PTE_D; bit *= 2) {
		*pte &= ~bit;
		tlb_flush_page(v, KERN + 0x3000);
		CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
		CU_ASSERT(*pte & bit);
	}
	v->regs[R_BX] += 0x1000;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(*next & (PTE_A | PTE_D), PTE_A);
}

static bool dirty(struct vcpu *v, uint64_t frame)
{
	return gmem_bit(v->vm->mem->dirty_bm, frame);
}

static void test_dirty(void)
{
	struct vcpu *v = start();

	v->vm->mem->dirty_bm[FRAME / 64] = 0;
	*btvm_pte(KERN + 0x3000) &= ~PTE_D;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT(!dirty(v, FRAME + 3));
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	CU_ASSERT(dirty(v, FRAME + 3));
}

/* A page that gets code is not written past the translator's back, through whatever mapping. */
static void test_code(void)
{
	struct vcpu *v = start();
	uint32_t b;

	*btvm_pte(KERN + 0x9000) = (BTVM_DATA + 0x3000) | PTE_P | PTE_W | PTE_G;
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	v->regs[R_BX] = KERN + 0x9010;
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	b = btvm_translate(v, BTVM_DATA + 0x3010, v->mode, "48 01 d8 0f 0b");
	CU_ASSERT_FATAL(b != BT_NONE);
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	CU_ASSERT(v->bt->blocks[b].dead);
	b = btvm_translate(v, BTVM_DATA + 0x3010, v->mode, "48 01 d8 0f 0b");
	v->regs[R_BX] = KERN + 0x3010;
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	CU_ASSERT(v->bt->blocks[b].dead);
	b = btvm_translate(v, BTVM_DATA + 0x3010, v->mode, "48 01 d8 0f 0b");
	v->regs[R_BX] = KERN + 0x3810; /* elsewhere on the page */
	for (int i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	CU_ASSERT(v->stats.window_refused < 20); /* the page is data after a few */
}

/* No RAM: the platform answers, and the instruction learns not to ask the window. */
static void test_mmio(void)
{
	struct vcpu *v = start();

	*btvm_pte(KERN + 0x3000) = 0xfec00000ull | PTE_P | PTE_W | PTE_G;
	btvm_put(v, BTVM_CODE, "\x8b\x03\x0f\x0b", 4);
	for (int i = 0; i < 20; i++) {
		v->rip = BTVM_CODE;
		CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 50), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
	}
	CU_ASSERT_EQUAL(v->stats.mmio, 20);
	CU_ASSERT_EQUAL(v->stats.window_off, 1);
	CU_ASSERT_EQUAL(v->stats.window_refused, 8);
}

static uint64_t *pde(struct vcpu *v, uint64_t gva)
{
	uint64_t table = v->cr3 & ~0xfffull;

	btvm_pte(gva);
	for (int shift = 39; shift > 21; shift -= 9)
		table = *ram(v, table + (gva >> shift & 511) * 8) & 0xffffffffff000ull;
	return ram(v, table + (gva >> 21 & 511) * 8);
}

/* A large page comes as one, and goes as one. */
static void test_large(void)
{
	struct vcpu *v = start();
	uint64_t gva = KERN + (4ull << 20), *e = pde(v, gva);

	*e = 0x600000 | PTE_P | PTE_W | PTE_A | PTE_D | PTE_G | 0x80;
	*ram(v, 0x600010) = 6;
	*ram(v, 0x7ff010) = 7;
	v->regs[R_BX] = gva + 0x10;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 6);
	v->regs[R_BX] = gva + 0x1ff010;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 7);
	CU_ASSERT_EQUAL(v->stats.window_maps, 1);
	*e = 0x400000 | PTE_P | PTE_W | PTE_A | PTE_D | PTE_G | 0x80;
	*ram(v, 0x5ff010) = 5;
	tlb_flush_page(v, gva);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 5);
	*e = 0;
	tlb_flush_all(v);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_PF);
}

/* What memsvc has put elsewhere is not in the window; what it takes back leaves it. */
static void test_withdraw(void)
{
	struct vcpu *v = start();
	struct gmem *g = v->vm->mem;
	uint64_t was = g->p2m[FRAME + 3];

	*ram(v, BTVM_DATA + 0x3010) = 1;
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	g->pool = g->ram + 0x700000;
	g->pool_size = PG;
	*ram(v, 0x700010) = 9;
	g->p2m[FRAME + 3] = SHM_P2M_SHARED;
	window_withdraw(v->vm->window, FRAME + 3);
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_UD);
	CU_ASSERT_EQUAL(v->regs[R_AX], 9);
	CU_ASSERT_EQUAL(v->stats.window_refused, 1);
	g->p2m[FRAME + 3] = was;
	g->pool = NULL;
	g->pool_size = 0;
}

/* Users' code is checked by the soft TLB, whatever the window holds; so is a kernel's that may touch users' pages. */
static void test_privilege(void)
{
	struct vcpu *v = start();

	CU_ASSERT_EQUAL(run(v, STORE LOAD), EXC_UD);
	btvm_mode(v, 3, 8);
	CU_ASSERT(!mode_has_window(v->bt, v->mode));
	CU_ASSERT_EQUAL(run(v, LOAD), EXC_PF);
	CU_ASSERT_EQUAL(v->exc_error, 5);
	CU_ASSERT_EQUAL(run(v, STORE), EXC_PF);
	CU_ASSERT_EQUAL(v->exc_error, 7);
	v->seg[SEG_GS].base = v->seg_base[SEG_GS] = KERN + 0x3000;
	CU_ASSERT_EQUAL(run(v, "65 48 8b 14 25 10 00 00 00"), EXC_PF);
	v->regs[R_BX] = 0x1000; /* what a window would make the first byte of the engine's part */
	CU_ASSERT_EQUAL(run(v, "64 48 8b 03"), EXC_UD);
	btvm_mode(v, 0, 8);
	v->regs[R_BX] = BTVM_DATA;
	vcpu_set_rflags(v, RFL_FIX | RFL_AC);
	CU_ASSERT(!mode_has_window(v->bt, v->mode));
	CU_ASSERT_EQUAL(run(v, STORE), EXC_UD);
	v->cr4 &= ~CR4_SMAP;
	vcpu_set_rflags(v, RFL_FIX);
	CU_ASSERT(!mode_has_window(v->bt, v->mode));
	btvm_mode(v, 1, 8);
	v->cr4 |= CR4_SMAP;
	vcpu_update_mode(v);
	CU_ASSERT(!mode_has_window(v->bt, v->mode));
	btvm_mode(v, 0, 4);
	CU_ASSERT(!mode_has_window(v->bt, v->mode));
}

CU_ErrorCode suite_window(void);
CU_ErrorCode suite_window(void)
{
	CU_pSuite s = CU_add_suite("windows", NULL, NULL);

	CU_add_test(s, "accesses", test_accesses);
	CU_add_test(s, "faults", test_faults);
	CU_add_test(s, "invlpg", test_invlpg);
	CU_add_test(s, "flushes", test_flushes);
	CU_add_test(s, "A and D", test_accessed);
	CU_add_test(s, "dirty bitmap", test_dirty);
	CU_add_test(s, "code", test_code);
	CU_add_test(s, "MMIO", test_mmio);
	CU_add_test(s, "large pages", test_large);
	CU_add_test(s, "withdraw", test_withdraw);
	CU_add_test(s, "privilege", test_privilege);
	return CU_get_error();
}
