/* Firmware's memory: ROM below 4 GiB and 1 MiB, shadow RAM (chipset/pam), flash (chipset/pflash). */
#include <CUnit/CUnit.h>
#include <stdlib.h>
#include <string.h>

#include "common/gmem.h"
#include "tests/unit/chipfakes.h"
#include "vcpu/chipset/pam.h"
#include "vcpu/chipset/pflash.h"

#define RAM  (2u << 20)
#define ROM  (256u << 10)
#define BANK 8192u
#define TOP  (1ull << 32)

static struct gmem mem;
static struct gmem_rom rom;
static struct pam pam;
static struct pflash flash;
static uint64_t dirty[(RAM + ROM) / 4096 / 64 + 1];
static unsigned changes, modes, programs;
static bool chip;

static void on_shadow(void *ctx, const uint8_t *shadow)
{
	memcpy(rom.shadow, shadow, sizeof rom.shadow);
	changes++;
}

static uint8_t *on_at(void *ctx, uint64_t off, bool write)
{
	uint8_t *page = gmem_frame_ptr(&mem, (mem.size + off) / 4096, write ? GMEM_WRITE | GMEM_PROGRAM : GMEM_READ);

	return page ? page + off % 4096 : NULL;
}

static void on_mode(void *ctx, bool is)
{
	chip = is;
	rom.chip = is ? BANK : 0;
	modes++;
}

static void on_changed(void *ctx, uint64_t off, uint64_t len)
{
	CU_ASSERT(off < BANK && len <= BANK - off);
	programs++;
}

static void setup(void)
{
	memset(&rom, 0, sizeof rom);
	memset(&pam, 0, sizeof pam);
	memset(&flash, 0, sizeof flash);
	rom.base = TOP - ROM;
	mem = (struct gmem){
		.ram = calloc(1, RAM + ROM), .size = RAM, .rom_size = ROM, .low = RAM, .rom = &rom, .dirty_bm = dirty};
	memset(mem.ram + RAM, 0xf1, ROM);
	pam.mem = &mem;
	pam.changed = on_shadow;
	flash.at = on_at;
	flash.mode = on_mode;
	flash.changed = on_changed;
	pflash_init(&flash, ROM, BANK);
	changes = modes = programs = 0;
}

static void teardown(void)
{
	free(mem.ram);
}

static void set_pam(uint8_t all)
{
	uint8_t regs[PAM_REGS];

	memset(regs, all, sizeof regs);
	pam_set(&pam, regs);
}

static void test_rom(void)
{
	uint8_t b;

	setup();
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, TOP - 16, 16, GMEM_READ), mem.ram + RAM + ROM - 16);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, 0xffff0, 16, GMEM_READ), mem.ram + RAM + ROM - 16);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, 0xe0000, 1, GMEM_READ), mem.ram + RAM + ROM - 0x20000);
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, 0xc0000, 1, GMEM_READ)); /* nothing is there */
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, TOP - 16, 1, GMEM_WRITE));
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, 0xffff0, 1, GMEM_WRITE));
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, TOP - ROM - 1, 1, GMEM_READ));
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, 0xbffff, 1, GMEM_WRITE), mem.ram + 0xbffff);
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, 0x100000, 1, GMEM_WRITE), mem.ram + 0x100000);
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, 0xfffff, 2, GMEM_READ)); /* ROM and RAM lie apart */
	CU_ASSERT_NOT_EQUAL(gmem_write(&mem, 0xffff0, "x", 1), 0);
	CU_ASSERT_EQUAL(gmem_read(&mem, 0xffff0, &b, 1), 0);
	CU_ASSERT_EQUAL(b, 0xf1);
	mem.rom = NULL; /* other processes see RAM alone */
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, 0xffff0, 1, GMEM_WRITE), mem.ram + 0xffff0);
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, TOP - 16, 1, GMEM_READ));
	teardown();
}

static void test_shadow(void)
{
	setup();
	wr8(&pam_ops, &pam, 0x30000, 1); /* nothing is enabled: lost */
	CU_ASSERT_EQUAL(mem.ram[0xf0000], 0);
	set_pam(0x22); /* reads from ROM, writes to RAM */
	CU_ASSERT_EQUAL(changes, 1);
	CU_ASSERT_EQUAL(rd8(&pam_ops, &pam, 0x30000), 0xf1);
	CU_ASSERT_EQUAL(rd8(&pam_ops, &pam, 0), 0xff);
	wr8(&pam_ops, &pam, 0x30000, 0x11);
	CU_ASSERT_EQUAL(mem.ram[0xf0000], 0x11);
	CU_ASSERT_EQUAL(mem.ram[RAM + ROM - 0x10000], 0xf1);
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, 0xf0000, 1, GMEM_WRITE));
	set_pam(0x33); /* plain RAM */
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, 0xc0000, 0x40000, GMEM_READ | GMEM_WRITE), mem.ram + 0xc0000);
	set_pam(0x11); /* protected */
	CU_ASSERT_PTR_EQUAL(gmem_ptr(&mem, 0xc0000, 0x40000, GMEM_READ), mem.ram + 0xc0000);
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, 0xc0000, 1, GMEM_WRITE));
	wr8(&pam_ops, &pam, 0x30000, 0x22);
	CU_ASSERT_EQUAL(mem.ram[0xf0000], 0x11);
	set_pam(0x11);
	CU_ASSERT_EQUAL(changes, 3);
	teardown();
}

/* Which piece each half of each register has. */
static void test_pieces(void)
{
	static const uint32_t at[PAM_REGS][2] = {{0, 0xf0000},       {0xc0000, 0xc4000}, {0xc8000, 0xcc000},
						 {0xd0000, 0xd4000}, {0xd8000, 0xdc000}, {0xe0000, 0xe4000},
						 {0xe8000, 0xec000}};

	for (unsigned r = 0; r < PAM_REGS; r++)
		for (unsigned half = 0; half < 2; half++) {
			uint8_t regs[PAM_REGS] = {0};

			setup();
			regs[r] = (uint8_t)(3 << half * 4);
			pam_set(&pam, regs);
			for (unsigned i = 0; i < GMEM_SHADOW_PAGES; i++) {
				uint32_t gpa = 0xc0000 + i * 4096, len = at[r][half] == 0xf0000 ? 0x10000 : 0x4000;

				CU_ASSERT_EQUAL(rom.shadow[i], at[r][half] && gpa - at[r][half] < len ? 3 : 0);
			}
			teardown();
		}
}

static void test_detect(void)
{
	setup();
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0), 0xf1);
	wr8(&pflash_ops, &flash, 0, 0x50); /* as OVMF looks whether it is a flash */
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0), 0xf1);
	wr8(&pflash_ops, &flash, 0, 0x70);
	CU_ASSERT(chip);
	CU_ASSERT_PTR_NULL(gmem_ptr(&mem, TOP - ROM, 1, GMEM_READ));
	CU_ASSERT_PTR_NOT_NULL(gmem_ptr(&mem, TOP - ROM + BANK, 1, GMEM_READ));
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0), 0);
	wr8(&pflash_ops, &flash, 0, 0xff);
	CU_ASSERT(!chip);
	CU_ASSERT_PTR_NOT_NULL(gmem_ptr(&mem, TOP - ROM, 1, GMEM_READ));
	wr8(&pflash_ops, &flash, 0, 0x98);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0x10), 'Q');
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0x13), 1);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0x27), 13); /* 8 KiB */
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0x2d), 1);  /* two blocks */
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0x2f), 0x10);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0x31), 'P');
	pflash_reset(&flash);
	CU_ASSERT(!chip);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0), 0xf1);
	CU_ASSERT_EQUAL(modes, 4);
	teardown();
}

static void test_program(void)
{
	setup();
	wr8(&pflash_ops, &flash, 5, 0x40);
	wr8(&pflash_ops, &flash, 5, 0x3f);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 5), 0x80);
	wr8(&pflash_ops, &flash, 5, 0xff);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 5), 0x31); /* bits are cleared, never set */
	CU_ASSERT_EQUAL(programs, 1);
	wr8(&pflash_ops, &flash, 5, 0x20);
	wr8(&pflash_ops, &flash, 5, 0xd0);
	wr8(&pflash_ops, &flash, 5, 0xff);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 5), 0xff);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 4095), 0xff);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 4096), 0xf1); /* the next block */
	wr8(&pflash_ops, &flash, 0, 0x20);
	wr8(&pflash_ops, &flash, 0, 0x40); /* not what an erase goes on with */
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0) & 0x30, 0x30);
	wr8(&pflash_ops, &flash, 0, 0xff);
	wr8(&pflash_ops, &flash, BANK, 0x40); /* ROM */
	wr8(&pflash_ops, &flash, BANK, 0);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, BANK), 0xf1);
	CU_ASSERT_EQUAL(programs, 2);
	teardown();
}

static void test_buffer(void)
{
	setup();
	wr8(&pflash_ops, &flash, 0, 0x20);
	wr8(&pflash_ops, &flash, 0, 0xd0);
	wr8(&pflash_ops, &flash, 16, 0xe8);
	wr8(&pflash_ops, &flash, 16, 2); /* three bytes */
	for (unsigned i = 0; i < 3; i++)
		wr8(&pflash_ops, &flash, 16 + i, (uint8_t)(7 + i));
	wr8(&pflash_ops, &flash, 16, 0xd0);
	wr8(&pflash_ops, &flash, 16, 0xff);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 16), 7);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 18), 9);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 19), 0xff);
	wr8(&pflash_ops, &flash, 0, 0xe8);
	wr8(&pflash_ops, &flash, 0, 1);
	wr8(&pflash_ops, &flash, 4096, 0); /* another block */
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 0) & 0x30, 0x30);
	wr8(&pflash_ops, &flash, 0, 0xff);
	CU_ASSERT_EQUAL(rd8(&pflash_ops, &flash, 4096), 0xf1);
	teardown();
}

CU_ErrorCode suite_rom(void)
{
	CU_pSuite s = CU_add_suite("rom", NULL, NULL);

	CU_add_test(s, "ROM in guest memory", test_rom);
	CU_add_test(s, "shadow RAM", test_shadow);
	CU_add_test(s, "pieces of shadow RAM", test_pieces);
	CU_add_test(s, "flash is found", test_detect);
	CU_add_test(s, "flash is programmed and erased", test_program);
	CU_add_test(s, "buffered programs", test_buffer);
	return CU_get_error();
}
