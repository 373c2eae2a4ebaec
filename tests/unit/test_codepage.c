/*
 * Pages with translated code.  Invariant under test: no store that changes
 * bytes a translation was made from leaves that translation alive.
 */
#include <CUnit/CUnit.h>
#include <string.h>

#include "btvm.h"
#include "vcpu/mmu/mmu.h"

#define FRAME (BTVM_CODE >> 12)

static bool marked(const struct vcpu *v, uint64_t frame)
{
	return v->vm->mem->code_bm[frame / 64] >> (frame % 64) & 1;
}

static void test_store(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t b = btvm_translate(v, BTVM_CODE + 0x110, v->mode, "48 01 d8 f4");

	CU_ASSERT_FATAL(b != BT_NONE);
	CU_ASSERT(marked(v, FRAME));
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x800, 8), 0);
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x108, 8), 0); /* same part, before it */
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x114, 8), 0); /* just behind */
	CU_ASSERT(!v->bt->blocks[b].dead);
	CU_ASSERT_EQUAL(block_lookup(v->bt, BTVM_CODE + 0x110, 0, v->mode), b);
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x113, 1), 1); /* its last byte */
	CU_ASSERT(v->bt->blocks[b].dead);
	CU_ASSERT_EQUAL(block_lookup(v->bt, BTVM_CODE + 0x110, 0, v->mode), BT_NONE);
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x113, 1), 0);
}

/* Many blocks, whose entries in the index run into each other: what goes takes no other along, and may come back. */
static void test_index(void)
{
	enum { COUNT = 8192, ROOM = 256 };
	struct vcpu *v = btvm_reset();
	static uint32_t at[COUNT], block[COUNT];
	uint8_t page[GMEM_PAGE_SIZE];
	unsigned lost = 0;
	uint32_t x = 1;

	memset(page, 0xc3, sizeof page);
	for (unsigned i = 0; i < COUNT * ROOM / sizeof page; i++)
		btvm_put(v, BTVM_CODE + i * sizeof page, page, sizeof page);
	for (unsigned i = 0; i < COUNT; i++) {
		x = x * 1664525 + 1013904223;
		at[i] = i * ROOM + (x >> 24);
		block[i] = btvm_translate_at(v, BTVM_CODE + at[i], v->mode);
	}
	for (unsigned i = 0; i < COUNT; i += 2)
		lost += codepage_store(v, FRAME + at[i] / GMEM_PAGE_SIZE, at[i] % GMEM_PAGE_SIZE, 1) != 1;
	for (unsigned i = 0; i < COUNT; i++)
		lost += block_lookup(v->bt, BTVM_CODE + at[i], 0, v->mode) != (i % 2 ? block[i] : BT_NONE);
	for (unsigned i = 0; i < COUNT; i += 2)
		block[i] = btvm_translate_at(v, BTVM_CODE + at[i], v->mode);
	for (unsigned i = 0; i < COUNT; i++)
		lost += block_lookup(v->bt, BTVM_CODE + at[i], 0, v->mode) != block[i];
	CU_ASSERT_EQUAL(lost, 0);
}

/* A block of two pages, the second of which comes from elsewhere then: it goes, and is made anew once. */
static void test_two_pages(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t old = btvm_translate(v, BTVM_CODE + 0xffe, v->mode, "b8 01 02 03 04"), b;
	uint64_t *pte = btvm_pte(BTVM_CODE + 0x1000), was = *pte;

	CU_ASSERT_FATAL(old != BT_NONE);
	v->rip = BTVM_CODE + 0xffe;
	CU_ASSERT_EQUAL(bt_find(v, 0), old);
	*pte += 0x1000;
	tlb_flush_page(v, BTVM_CODE + 0x1000);
	b = bt_find(v, 0);
	CU_ASSERT(b != BT_NONE && b != old && v->bt->blocks[old].dead);
	CU_ASSERT_EQUAL(bt_find(v, 0), b);
	*pte = was;
	tlb_flush_page(v, BTVM_CODE + 0x1000);
}

/* A store over the first byte only, coming from before the block. */
static void test_edges(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t b = btvm_translate(v, BTVM_CODE + 0x110, v->mode, "48 01 d8 f4");

	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x109, 8), 1);
	CU_ASSERT(v->bt->blocks[b].dead);
	b = btvm_translate(v, BTVM_CODE + 0xfff, v->mode, "c3"); /* the page's last byte */
	CU_ASSERT_FATAL(b != BT_NONE);
	CU_ASSERT_EQUAL(v->bt->blocks[b].parts >> 63, 1);
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0xff8, 8), 1);
	CU_ASSERT(v->bt->blocks[b].dead);
}

/* Bytes a block looked ahead at (flags) count as its sources too. */
static void test_peeked(void)
{
	struct vcpu *v = btvm_reset();
	static const uint8_t kills[] = {0x31, 0xc0, 0xf4};
	const struct block *k;
	uint32_t b;

	btvm_put(v, BTVM_CODE + 0x400, kills, sizeof kills);
	b = btvm_translate(v, BTVM_CODE + 0x100, v->mode, "01 d8 e9 f9 02 00 00");
	k = &v->bt->blocks[b];
	CU_ASSERT_EQUAL(k->len, 7);
	CU_ASSERT(k->parts >> (0x400 / 64) & 1);
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x4c0, 4), 0);
	CU_ASSERT(!k->dead);
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x400, 1), 1);
	CU_ASSERT(k->dead);
}

static void test_crossing(void)
{
	struct vcpu *v = btvm_reset();
	static const uint8_t tail[] = {0xd8, 0xf4};
	uint32_t b;

	btvm_put(v, BTVM_CODE + 0x1000, tail, sizeof tail);
	b = btvm_translate(v, BTVM_CODE + 0xffe, v->mode, "48 01");
	CU_ASSERT_FATAL(b != BT_NONE);
	CU_ASSERT_EQUAL(v->bt->blocks[b].gpa2, BTVM_CODE + 0x1000);
	CU_ASSERT(marked(v, FRAME) && marked(v, FRAME + 1));
	CU_ASSERT_EQUAL(codepage_store(v, FRAME + 1, 1, 8), 0);
	CU_ASSERT(!v->bt->blocks[b].dead);
	CU_ASSERT_EQUAL(codepage_store(v, FRAME + 1, 0, 1), 1);
	CU_ASSERT(v->bt->blocks[b].dead);
}

/* Stores that keep missing turn the page into data. */
static void test_data(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t b = btvm_translate(v, BTVM_CODE + 0x110, v->mode, "f4");
	int n;

	for (n = 0; n < 100000 && marked(v, FRAME); n++)
		codepage_store(v, FRAME, 0x800, 8);
	CU_ASSERT(n > 16 && n < 100000);
	CU_ASSERT(v->bt->blocks[b].dead);
	CU_ASSERT_PTR_NULL(codepage_get(v->bt, FRAME, false));
	b = btvm_translate(v, BTVM_CODE + 0x110, v->mode, "f4"); /* and code again */
	CU_ASSERT_FATAL(b != BT_NONE);
	CU_ASSERT(marked(v, FRAME));
	CU_ASSERT_EQUAL(codepage_store(v, FRAME, 0x110, 1), 1);
}

static void test_written(void)
{
	struct vcpu *v = btvm_reset();
	uint32_t a = btvm_translate(v, BTVM_CODE + 0x110, v->mode, "f4");
	uint32_t b = btvm_translate(v, BTVM_CODE + 0x1110, v->mode, "f4");
	uint8_t buf[0x1200] = {0};

	CU_ASSERT_EQUAL(mmu_write(v, BTVM_CODE + 0x100, buf, 0x11, ACC_W | ACC_USER), 0);
	CU_ASSERT(v->bt->blocks[a].dead && !v->bt->blocks[b].dead);
	phys_write(v, BTVM_CODE, buf, sizeof buf);
	CU_ASSERT(v->bt->blocks[b].dead);
}

/* mov byte [rip+n], 2 changes the immediate of the mov bl, 1 that follows in the same block. */
static void test_self_modifying(void)
{
	static const uint8_t code[] = {0xc6, 0x05, 1, 0, 0, 0, 2, 0xb3, 1, 0xf4};
	struct vcpu *v = btvm_reset();

	btvm_put(v, BTVM_CODE + 0x100, code, sizeof code);
	v->rip = BTVM_CODE + 0x100;
	CU_ASSERT_EQUAL(vcpu_run_until(v, 0, 20), 1);
	CU_ASSERT_EQUAL(v->exc_vector, EXC_GP);
	CU_ASSERT_EQUAL(v->rip, BTVM_CODE + 0x109);
	CU_ASSERT_EQUAL(v->regs[R_BX], 2);
	CU_ASSERT(v->stats.smc_writes > 0);
}

CU_ErrorCode suite_codepage(void);
CU_ErrorCode suite_codepage(void)
{
	CU_pSuite s = CU_add_suite("codepage", NULL, NULL);

	CU_add_test(s, "stores", test_store);
	CU_add_test(s, "the index", test_index);
	CU_add_test(s, "a block of two pages", test_two_pages);
	CU_add_test(s, "edges of blocks and pages", test_edges);
	CU_add_test(s, "parts looked ahead at", test_peeked);
	CU_add_test(s, "blocks on two pages", test_crossing);
	CU_add_test(s, "pages that become data", test_data);
	CU_add_test(s, "writes by helpers", test_written);
	CU_add_test(s, "self-modifying code", test_self_modifying);
	return CU_get_error();
}
