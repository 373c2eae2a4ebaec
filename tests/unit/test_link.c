/*
 * Links and branch cells.  Invariant under test: what a jump or cell holds is
 * either its stub or the entry of the live block that exit.target names.
 */
#include <CUnit/CUnit.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#include "btvm.h"
#include "vcpu/bt/addr.h"
#include "vcpu/mmu/mmu.h"

#define FAR (BTVM_CODE + 0x2000) /* where "e9 fb 1e 00 00" at +0x100 goes */

/* Where an exit leads now, as an offset into code memory. */
static uint32_t leads_to(const struct vcpu *v, const struct bexit *e)
{
	int32_t rel;

	if (e->cell != BT_NONE)
		return (uint32_t)(v->cells[e->cell] - (uint64_t)(uintptr_t)v->bt->rx);
	memcpy(&rel, v->bt->rw + e->rel_off, 4);
	return e->rel_off + 4 + (uint32_t)rel;
}

static bool at_stub(const struct vcpu *v, const struct bexit *e)
{
	return leads_to(v, e) == e->stub_off;
}

static bool at_block(const struct vcpu *v, const struct bexit *e, uint32_t b)
{
	const struct block *k = &v->bt->blocks[b];

	return leads_to(v, e) == block_entry(k, e->fl == FLS_SLOT, e->spare);
}

/* Block @a jumps (near: within the page) to block @b. */
static struct bexit *pair(struct vcpu *v, bool near, uint32_t *a, uint32_t *b)
{
	*b = btvm_translate(v, near ? BTVM_CODE + 0x180 : FAR, v->mode, "f4"); /* first: a looks ahead at it */
	*a = btvm_translate(v, BTVM_CODE + 0x100, v->mode, near ? "eb 7e" : "e9 fb 1e 00 00");
	CU_ASSERT_FATAL(*a != BT_NONE && *b != BT_NONE);
	CU_ASSERT_EQUAL_FATAL(v->bt->blocks[*a].n_exits, 1);
	return &v->bt->exits[v->bt->blocks[*a].exit];
}

static void test_near(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b;
	struct bexit *e = pair(v, true, &a, &b);
	uint32_t x = (uint32_t)(e - v->bt->exits);

	CU_ASSERT(e->cell == BT_NONE && e->rel_off != BT_NONE);
	CU_ASSERT(at_stub(v, e));
	link_exit(v, x, b, false);
	CU_ASSERT(at_block(v, e, b));
	CU_ASSERT_EQUAL(e->target, b);
	CU_ASSERT_EQUAL(v->bt->blocks[b].in_links, x);
	link_exit(v, x, b, false); /* twice is once */
	CU_ASSERT_EQUAL(v->bt->blocks[b].in_links, x);
	CU_ASSERT_EQUAL(e->next_in, BT_NONE);
	unlink_exit(v, x);
	CU_ASSERT(at_stub(v, e));
	CU_ASSERT_EQUAL(e->target, BT_NONE);
	CU_ASSERT_EQUAL(v->bt->blocks[b].in_links, BT_NONE);
}

static void test_invalidate(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b, c;
	struct bexit *e = pair(v, true, &a, &b), *e2;

	c = btvm_translate(v, BTVM_CODE + 0x200, v->mode, "e9 7b ff ff ff"); /* to b as well */
	e2 = &v->bt->exits[v->bt->blocks[c].exit];
	link_exit(v, (uint32_t)(e - v->bt->exits), b, false);
	link_exit(v, (uint32_t)(e2 - v->bt->exits), b, false);
	CU_ASSERT(at_block(v, e2, b));
	block_invalidate(v, a); /* its own exit leaves b's list, the other stays */
	CU_ASSERT(at_stub(v, e) && at_block(v, e2, b));
	CU_ASSERT_EQUAL(v->bt->blocks[b].in_links, (uint32_t)(e2 - v->bt->exits));
	block_invalidate(v, b);
	CU_ASSERT(at_stub(v, e2));
	CU_ASSERT_EQUAL(e2->target, BT_NONE);
	link_exit(v, (uint32_t)(e - v->bt->exits), c, false); /* a dead block's exits stay as they are */
	CU_ASSERT(at_stub(v, e));
}

static void test_refused(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b, other, step;
	struct bexit *e = pair(v, true, &a, &b);
	uint32_t x = (uint32_t)(e - v->bt->exits);

	other = btvm_translate(v, BTVM_CODE + 0x180, v->mode | MODE_NOFPU, "f4");
	link_exit(v, x, other, false);
	CU_ASSERT(at_stub(v, e));
	step = btvm_translate(v, BTVM_CODE + 0x180, v->mode | MODE_STEP, "f4");
	link_exit(v, x, step, false);
	CU_ASSERT(at_stub(v, e));
	other = btvm_translate(v, FAR, v->mode, "f4"); /* near jumps stay in their page */
	link_exit(v, x, other, false);
	CU_ASSERT(at_stub(v, e));
	CU_ASSERT_EQUAL(e->target, BT_NONE);
}

/* Two loads by one register have one check; where they lie in two pages the block goes on in its form without groups, by a link. */
static void test_apart(void)
{
	static const char code[] = "48 8b 03 48 8b 4b 08 90 f4"; /* mov rax, [rbx]; mov rcx, [rbx + 8]; nop; hlt */
	const uint64_t lo = 0x1122334455667788, hi = 0x99aabbccddeeff00;
	struct vcpu *v = btvm_reset();
	uint32_t a = btvm_translate(v, BTVM_CODE, v->mode, code), apart;
	struct bexit *e = &v->bt->exits[v->bt->blocks[a].exit];

	CU_ASSERT_EQUAL_FATAL(v->bt->blocks[a].n_exits, 1);
	CU_ASSERT_EQUAL(e->mode, v->mode | MODE_NOCOMBINE);
	CU_ASSERT(at_stub(v, e));
	apart = btvm_translate_at(v, BTVM_CODE, v->mode | MODE_NOCOMBINE);
	CU_ASSERT_EQUAL(v->bt->blocks[apart].n_exits, 0);
	link_exit(v, (uint32_t)(e - v->bt->exits), apart, false);
	CU_ASSERT(at_block(v, e, apart));
	block_invalidate(v, apart);
	CU_ASSERT(at_stub(v, e));

	v = btvm_reset();
	btvm_put(v, BTVM_DATA + 0xff8, &lo, 8);
	btvm_put(v, BTVM_DATA + 0x1000, &hi, 8);
	btvm_translate(v, BTVM_CODE, v->mode, code);
	for (unsigned i = 0; i < 300; i++) { /* however often, it is no reason to do without groups for good */
		v->rip = BTVM_CODE;
		v->regs[R_BX] = BTVM_DATA + 0xff8;
		v->regs[R_AX] = v->regs[R_CX] = 0;
		CU_ASSERT_EQUAL(vcpu_run_until(v, BTVM_CODE + 8, 10), 0);
		CU_ASSERT(v->regs[R_AX] == lo && v->regs[R_CX] == hi);
	}
	CU_ASSERT(!bt_downgraded(v->bt, BTVM_CODE, ADDR_GROUP));
}

static const uint8_t *copied(const struct vcpu *v, uint32_t copy, uint32_t b, uint32_t off)
{
	return v->bt->rw + copy + off - v->bt->blocks[b].host_start;
}

static uint32_t rel32_target(const struct vcpu *v, const uint8_t *rel32)
{
	int32_t d;

	memcpy(&d, rel32, 4);
	return (uint32_t)(rel32 + 4 + d - v->bt->rw);
}

/* A block's links stay as they are; its copy leads to its own stubs, and these to where the block's do. */
static void test_copy(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b, copy;
	struct bexit *e = pair(v, true, &a, &b);
	const struct block *k = &v->bt->blocks[a];
	const uint8_t *stub;

	link_exit(v, (uint32_t)(e - v->bt->exits), b, false);
	copy = copy_make(v, a);
	CU_ASSERT(at_block(v, e, b));
	stub = copied(v, copy, a, e->stub_off);
	CU_ASSERT_EQUAL(rel32_target(v, copied(v, copy, a, e->rel_off)), (uint32_t)(stub - v->bt->rw));
	CU_ASSERT_EQUAL(stub[12], 0xe9);
	CU_ASSERT_EQUAL(rel32_target(v, stub + 13), rel32_target(v, v->bt->rw + e->stub_off + 13));
	CU_ASSERT_EQUAL(copy_original(v, copy), k->host_start);
	CU_ASSERT_EQUAL(copy_original(v, k->host_end - 1), k->host_end - 1);
	CU_ASSERT_EQUAL(block_by_host(v->bt, copy), BT_NONE);
}

static void test_copy_cell(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b;
	struct bexit *e = pair(v, false, &a, &b);

	link_exit(v, (uint32_t)(e - v->bt->exits), b, false);
	copy_make(v, a);
	CU_ASSERT(at_stub(v, e));
	link_exit(v, (uint32_t)(e - v->bt->exits), b, false);
	CU_ASSERT(at_block(v, e, b));
	copy_make(v, a);
	block_invalidate(v, b);
	CU_ASSERT(at_stub(v, e) && !v->cell_to[e->cell]);
}

/* The compare stays, its outcome does not count in the copy. */
static void test_copy_indirect(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t b = btvm_translate(v, BTVM_CODE, v->mode, "c3"), copy;
	const struct block *k = &v->bt->blocks[b];
	const uint8_t *jne = v->bt->rw + k->ind_jne, *in_copy;

	CU_ASSERT_NOT_EQUAL_FATAL(k->ind_jmp, BT_NONE);
	copy = copy_make(v, b);
	in_copy = copied(v, copy, b, k->ind_jne);
	CU_ASSERT(jne[0] == 0x0f && jne[1] == 0x85);
	CU_ASSERT(in_copy[0] == 0x90 && in_copy[1] == 0xe9 && !memcmp(in_copy + 2, jne + 2, 4));
	CU_ASSERT_EQUAL(rel32_target(v, copied(v, copy, b, k->ind_cold) + 13),
			rel32_target(v, v->bt->rw + k->ind_cold + 13));
}

/* User code's cells depend on where its page is mapped: they go with the address space, whatever they lead to. */
static void test_user_cells(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b, x;
	struct bexit *e = pair(v, false, &a, &b);

	x = (uint32_t)(e - v->bt->exits);
	link_exit(v, x, b, false);
	CU_ASSERT(at_block(v, e, b) && v->cell_active[e->cell]);
	cells_reset_user(v);
	CU_ASSERT(at_stub(v, e) && !v->cell_active[e->cell]);
	link_exit(v, x, b, true);
	CU_ASSERT(at_block(v, e, b) && v->cell_active[e->cell]);
	tlb_flush_nonglobal(v);
	CU_ASSERT(at_stub(v, e) && !v->cell_active[e->cell]);
}

static void test_cells(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b, x;
	struct bexit *e;

	btvm_mode(v, 0, 8);
	e = pair(v, false, &a, &b);
	x = (uint32_t)(e - v->bt->exits);
	CU_ASSERT_NOT_EQUAL_FATAL(e->cell, BT_NONE);
	CU_ASSERT(at_stub(v, e));
	link_exit(v, x, b, false);
	CU_ASSERT(at_block(v, e, b) && v->cell_active[e->cell]);
	cells_reset_user(v);
	CU_ASSERT(at_stub(v, e) && !v->cell_active[e->cell]);
	link_exit(v, x, b, true); /* global: an address space switch leaves it */
	cells_reset_user(v);
	CU_ASSERT(at_block(v, e, b));
	tlb_flush_nonglobal(v);
	CU_ASSERT(at_block(v, e, b));
	cells_reset_all(v);
	CU_ASSERT(at_stub(v, e));
	link_exit(v, x, b, false);
	tlb_flush_nonglobal(v);
	CU_ASSERT(at_stub(v, e));
	link_exit(v, x, b, true);
	tlb_flush_all(v);
	CU_ASSERT(at_stub(v, e));
	CU_ASSERT_EQUAL(v->n_active_user + v->n_active_kern, 0);
}

/* invlpg of a page that code was fetched through takes the cells with it; of another page it does not. */
static void test_cells_invlpg(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a, b;
	struct bexit *e = pair(v, false, &a, &b);
	uint64_t gpa;

	link_exit(v, (uint32_t)(e - v->bt->exits), b, false);
	CU_ASSERT_EQUAL(fetch_gpa(v, FAR, &gpa), 0);
	tlb_flush_page(v, BTVM_DATA);
	CU_ASSERT(at_block(v, e, b));
	tlb_flush_page(v, FAR);
	CU_ASSERT(at_stub(v, e));
}

/* Linked blocks really run into each other; a remapped target page is seen after the flush. */
static void test_run(void)
{
	static const uint8_t code[] = {0xb0, 1, 0xe9, 0xf9, 0x1e, 0, 0}, one[] = {0xb3, 1, 0xf4},
			     two[] = {0xb3, 2, 0xf4};
	struct vcpu *v = btvm_reset();

	btvm_put(v, BTVM_CODE + 0x100, code, sizeof code); /* mov al, 1; jmp FAR */
	btvm_put(v, FAR, one, sizeof one);                 /* mov bl, 1; hlt */
	btvm_put(v, BTVM_DATA, two, sizeof two);
	for (int i = 0; i < 3; i++) {
		if (i == 2) {
			*btvm_pte(FAR) = BTVM_DATA | 7;
			tlb_flush_page(v, FAR);
		}
		v->rip = BTVM_CODE + 0x100;
		v->regs[R_BX] = 0;
		CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 20), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
		CU_ASSERT_EQUAL(v->rip, FAR + 2);
		CU_ASSERT_EQUAL(v->regs[R_AX], 1);
		CU_ASSERT_EQUAL(v->regs[R_BX], i == 2 ? 2 : 1);
	}
	CU_ASSERT(v->stats.links > 0);
}

CU_ErrorCode suite_link(void);
/*
 * Kicks that hit an indirect exit anywhere, also between its compare and its jump, lose nothing:
 *   top: lea rbx, [next]; inc rax; jmp rbx;  next: dec rcx; jnz top; ud2
 */
/* A jump cache that leads to a block which has gone: what is there now runs, at the same address. */
static void test_stale(void)
{
	const uint64_t at = FAR + 0x123;
	struct vcpu *v = btvm_reset();
	uint8_t code[8];

	btvm_put(v, BTVM_CODE, code, btvm_hex("ff e3", code, sizeof code)); /* jmp rbx */
	for (unsigned add = 1; add < 4; add++) {
		size_t n = btvm_hex("48 83 c0 01 0f 0b", code, sizeof code); /* add rax, 1; ud2 */

		code[3] = (uint8_t)add;
		btvm_put(v, at, code, n);
		for (unsigned i = 0; i < 3; i++) {
			v->rip = BTVM_CODE;
			v->regs[R_BX] = at;
			v->regs[R_AX] = 0;
			CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 10), 1);
			CU_ASSERT(v->exc_vector == EXC_UD && v->rip == at + 4 && v->regs[R_AX] == add);
		}
	}
}

/* The handler of kicks, where @off of code memory is interrupted on its way to @target; where it goes on. */
static uint32_t kicked_at(struct vcpu *v, uint32_t off, const struct block *target)
{
	uint64_t rx = (uint64_t)(uintptr_t)v->bt->rx;
	struct sigaction sa;
	siginfo_t si = {.si_code = SI_TIMER};
	ucontext_t uc;
	greg_t *g = uc.uc_mcontext.gregs;

	memset(&uc, 0, sizeof uc);
	g[REG_RIP] = (greg_t)(rx + off);
	g[REG_R10] = FAR; /* its page's first byte */
	g[REG_R11] = (greg_t)(rx + target->host_sb);
	v->ip_page = BTVM_CODE;
	CU_ASSERT_EQUAL_FATAL(sigaction(SIGUSR1, NULL, &sa), 0);
	sa.sa_sigaction(SIGUSR1, &si, &uc);
	v->kick = 0;
	v->pending = 0;
	return (uint32_t)((uint64_t)g[REG_RIP] - rx);
}

/* Between an indirect branch's look-up and its jump: the copy is the target's, which knows where it is. */
static void test_kick_on_the_way(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a = btvm_translate(v, BTVM_CODE, v->mode, "c3"), b = btvm_translate(v, FAR, v->mode, "f4"), off;
	const struct block *k = &v->bt->blocks[a], *to = &v->bt->blocks[b];

	CU_ASSERT_FATAL(k->ind_gone != BT_NONE && k->ind_gone > k->ind_jmp);
	CU_ASSERT_EQUAL(copy_original(v, kicked_at(v, k->ind_jmp, to)), k->ind_cold); /* r10 is the target still */
	CU_ASSERT_EQUAL(v->ip_page, BTVM_CODE);
	for (unsigned i = 0; i < 2; i++) {
		off = kicked_at(v, i ? k->ind_gone : k->ind_jmp + 7, to); /* behind the and: mov, and jmp r11 */
		CU_ASSERT_EQUAL(block_by_host(v->bt, off), BT_NONE);
		CU_ASSERT_EQUAL(copy_original(v, off), to->host_sb);
		CU_ASSERT_EQUAL(v->ip_page, FAR);
	}
	block_invalidate(v, b);
	CU_ASSERT_EQUAL(kicked_at(v, k->ind_gone, to), to->host_sb); /* which leads to C */
	CU_ASSERT_EQUAL(v->ip_page, FAR);
}

static void test_kick_indirect(void)
{
	struct sigevent se = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec fast = {{0, 15000}, {0, 15000}};
	struct vcpu *v = btvm_reset();
	uint8_t code[64];
	size_t n = btvm_hex("48 8d 1d 05 00 00 00 48 ff c0 ff e3 48 ff c9 75 ef 0f 0b", code, sizeof code);
	uint64_t kicks = v->stats.kicks;
	timer_t timer;

	btvm_put(v, BTVM_CODE, code, n);
	v->rip = BTVM_CODE;
	v->regs[R_CX] = 3000000;
	CU_ASSERT_EQUAL_FATAL(timer_create(CLOCK_MONOTONIC, &se, &timer), 0);
	timer_settime(timer, 0, &fast, NULL);
	while (vcpu_run_until(v, 0, 1) == 2)
		v->pending = 0; /* or nothing would be linked again */
	timer_delete(timer);
	v->pending = 0;
	CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE + n - 2);
	CU_ASSERT_EQUAL(v->regs[R_AX], 3000000);
	CU_ASSERT(v->stats.kicks - kicks > 100);
}

#define EDGE    0x7fffffffd000ull /* its page tables have room for BTVM_CODE's page */
#define NO_PAGE 0x600000000000ull

/* The call at @rip faults with @vector and has done nothing, neither to rsp nor to what is below it. */
static bool call_faults(struct vcpu *v, uint64_t rip, uint64_t sp, unsigned vector)
{
	uint64_t *slot = (uint64_t *)(void *)(v->vm->mem->ram + BTVM_DATA + 0x8000 - 8);

	*slot = 0x1122334455667788;
	v->rip = rip;
	v->regs[R_SP] = sp;
	return vcpu_run_until(v, 0, 20) == 1 && v->exc_vector == vector && v->rip == rip && v->regs[R_SP] == sp &&
	       *slot == 0x1122334455667788;
}

/* Calls look at their target after what the push may raise and before they push. */
static void test_bad_call(void)
{
	static const uint8_t forward[] = {0xe8, 0, 0x50, 0, 0}, back[] = {0xe8, 0, 0xf0, 0xff, 0xff},
			     ud2[] = {0x0f, 0x0b};
	struct vcpu *v = btvm_reset();
	uint64_t sp = BTVM_DATA + 0x8000;

	btvm_put(v, BTVM_CODE + 0x800, forward, sizeof forward);
	btvm_put(v, BTVM_CODE + 0x5805, ud2, sizeof ud2);
	*btvm_pte(EDGE) = BTVM_CODE | 7;
	for (int i = 0; i < 2; i++) { /* the same page at two addresses */
		v->rip = BTVM_CODE + 0x800;
		v->regs[R_SP] = sp;
		CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 20), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_UD);
		CU_ASSERT_EQUAL(v->rip, BTVM_CODE + 0x5805);
		CU_ASSERT_EQUAL(v->regs[R_SP], sp - 8);
		CU_ASSERT(call_faults(v, EDGE + 0x800, sp, EXC_GP));
		CU_ASSERT(call_faults(v, EDGE + 0x800, NO_PAGE, EXC_PF));
		CU_ASSERT(call_faults(v, EDGE + 0x800, NO_PAGE << 4, EXC_SS));
	}
	btvm_put(v, BTVM_DATA + 0x100, back, sizeof back);
	btvm_mode(v, 0, 8);
	CU_ASSERT(call_faults(v, BTVM_KERN + 0x100, BTVM_KERN + 0x8000, EXC_GP));
	CU_ASSERT(call_faults(v, BTVM_KERN + 0x100, NO_PAGE, EXC_PF));
	btvm_mode(v, 3, 4);
	v->seg[SEG_CS].limit = BTVM_CODE + 0x1fff;
	vcpu_update_mode(v);
	CU_ASSERT(call_faults(v, BTVM_CODE + 0x800, sp, EXC_GP));
	CU_ASSERT(call_faults(v, BTVM_CODE + 0x800, BTVM_LARGE - 8, EXC_PF));
	v->seg[SEG_CS].limit = BTVM_CODE + 0x5fff;
	vcpu_update_mode(v);
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 20), 1);
	v->rip = BTVM_CODE + 0x800;
	v->regs[R_SP] = sp;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 20), 1);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE + 0x5805);
	CU_ASSERT_EQUAL(v->regs[R_SP], sp - 4);
}

/* nop [rax + f40000h] with a hlt inside; nops; jmp +7ffffff0h: 2 GiB and five bytes from the block's start */
static void test_reach(void)
{
	struct vcpu *v = btvm_reset();
	uint8_t code[64];
	size_t n = btvm_hex("0f 1f 80 00 00 f4 00 90 90 90 90 90 90 90 90 90 e9 f0 ff ff 7f", code, sizeof code);

	btvm_put(v, BTVM_CODE + 0x100, code, n);
	v->rip = BTVM_CODE + 0x100;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 20), 1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE + 0x80000105);
}

static void run_place(struct vcpu *v, uint64_t place, unsigned bl)
{
	v->rip = place + 0x100;
	v->regs[R_BX] = 0;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 20), 1);
	CU_ASSERT_EQUAL(v->regs[R_BX], bl);
	CU_ASSERT_EQUAL(v->rip, place + 0x1002);
}

/* One page of user code at several addresses, and what follows it differs: a cell is good for one of them. */
static void test_two_places(void)
{
	static const uint8_t jmp[] = {0xe9, 0xfb, 0x0e, 0, 0},
			     end[3][3] = {{0xb3, 1, 0xf4}, {0xb3, 2, 0xf4}, {0xb3, 3, 0xf4}};
	const uint64_t at[3] = {0x10000000, 0x10010000, 0x10020000};
	struct vcpu *v = btvm_reset();

	btvm_put(v, BTVM_CODE + 0x100, jmp, sizeof jmp); /* to the start of the next page */
	for (uint64_t i = 0; i < 3; i++) {
		*btvm_pte(at[i]) = BTVM_CODE | 7;
		*btvm_pte(at[i] + 0x1000) = (BTVM_CODE + 0x3000 + i * 0x2000) | 7;
		btvm_put(v, BTVM_CODE + 0x3000 + i * 0x2000, end[i], sizeof end[i]);
	}
	for (unsigned i = 0; i < 8; i++)
		run_place(v, at[i & 1], 1 + (i & 1));
	tlb_flush_nonglobal(v);
	run_place(v, at[0], 1); /* linked, put away and brought back: still good for this place alone */
	run_place(v, at[0], 1);
	for (unsigned i = 0; i < 8; i++) {
		tlb_switch(v, 1, 2, false);
		run_place(v, at[2], 3);
		run_place(v, at[2], 3);
		tlb_switch(v, 2, 1, false);
		run_place(v, at[i & 1], 1 + (i & 1));
		run_place(v, at[i & 1], 1 + (i & 1));
	}
	CU_ASSERT(v->stats.bank_hits > 0);
}

/* An entry of a jump cache without a target has a tag too, and guests may branch to any address. */
static void test_no_target(void)
{
	struct vcpu *v = btvm_reset();

	for (unsigned i = 0; i < JC_SIZE; i++)
		CU_ASSERT_NOT_EQUAL(jc_index(jc_invalid(i)), i);
	for (uint64_t at = JC_INVALID - 2; at <= JC_INVALID + 1; at++) {
		btvm_put(v, BTVM_CODE, "\xff\xe0", 2); /* jmp rax */
		v->rip = BTVM_CODE;
		v->regs[R_AX] = at;
		v->exc_pending = 0;
		CU_ASSERT_EQUAL(vcpu_run_until(v, ~0ull, 10), 1);
		CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
		CU_ASSERT_EQUAL(v->rip, BTVM_CODE);
	}
}

CU_ErrorCode suite_link(void)
{
	CU_pSuite s = CU_add_suite("link", NULL, NULL);

	CU_add_test(s, "within a page", test_near);
	CU_add_test(s, "without groups", test_apart);
	CU_add_test(s, "calls to nowhere", test_bad_call);
	CU_add_test(s, "far away", test_reach);
	CU_add_test(s, "a page at two addresses", test_two_places);
	CU_add_test(s, "invalidation", test_invalidate);
	CU_add_test(s, "links that must not be made", test_refused);
	CU_add_test(s, "copy", test_copy);
	CU_add_test(s, "copy with a cell", test_copy_cell);
	CU_add_test(s, "copy of an indirect exit", test_copy_indirect);
	CU_add_test(s, "by a jump cache", test_stale);
	CU_add_test(s, "a jump cache without a target", test_no_target);
	CU_add_test(s, "kicks at an indirect jump", test_kick_indirect);
	CU_add_test(s, "kicks behind its look-up", test_kick_on_the_way);
	CU_add_test(s, "cells and flushes", test_cells);
	CU_add_test(s, "cells of user code", test_user_cells);
	CU_add_test(s, "cells and invlpg", test_cells_invlpg);
	CU_add_test(s, "running over links", test_run);
	return CU_get_error();
}
