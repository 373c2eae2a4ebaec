/*
 * Registers of the chips that firmware drives: fw_cfg with requests in memory, flash, shadow RAM, VGA, HPET, 8042.
 * Properties: no access leaves an array (ASan); ROM never changes; flash changes only within its bank; a comparator of the HPET
 * is due in the future; the picture on the screen lies within text memory's arithmetic.
 */
#include <stdbool.h>
#include <string.h>

#include "common/gmem.h"
#include "tests/fuzz/fuzz.h"
#include "vcpu/chipset/fwcfg.h"
#include "vcpu/chipset/hpet.h"
#include "vcpu/chipset/i8042.h"
#include "vcpu/chipset/pam.h"
#include "vcpu/chipset/pflash.h"
#include "vcpu/chipset/vga.h"
#include "vcpu/cpu/start.h"
#include "vcpu/kick.h"

#define RAM  (1u << 20)
#define ROM  (64u << 10)
#define BANK 8192u

static uint8_t ram[RAM + ROM];
static uint64_t dirty[(RAM + ROM) / 4096 / 64 + 1];
static struct gmem mem;
static struct gmem_rom rom;
static struct fwcfg fw;
static struct pflash flash;
static struct pam pam;
static struct vga vga;
static struct hpet hpet;
static struct i8042 kbc;
static struct hclock hclock;
static struct timerq timers;
static uint64_t now;
static uint8_t file[700];

/* Nothing here belongs to a CPU. */
void vcpu_kick(struct vcpu *v, uint32_t pend)
{
	FUZZ_CHECK(!v && !pend);
}

struct vcpu *kick_this(void)
{
	return NULL;
}

void start_post(struct vcpu *v, int vector)
{
	FUZZ_CHECK(!v && !vector);
}

static bool on_copy(void *ctx, uint64_t gpa, void *buf, size_t len, bool write)
{
	FUZZ_CHECK(len <= 4096);
	return !(write ? gmem_write(&mem, gpa, buf, len) : gmem_read(&mem, gpa, buf, len));
}

static uint8_t *on_at(void *ctx, uint64_t off, bool write)
{
	FUZZ_CHECK(off < ROM && (!write || off < BANK));
	return ram + RAM + off;
}

static void on_mode(void *ctx, bool chip)
{
	FUZZ_CHECK(chip == pflash_answers(&flash));
	rom.chip = chip ? BANK : 0;
}

static void on_changed(void *ctx, uint64_t off, uint64_t len)
{
	FUZZ_CHECK(off < BANK && len <= BANK - off && off / 4096 == (off + len - 1) / 4096);
}

static void on_shadow(void *ctx, const uint8_t *shadow)
{
	memcpy(rom.shadow, shadow, sizeof rom.shadow);
}

static void on_irq(void *ctx, unsigned gsi, bool level)
{
	FUZZ_CHECK(gsi < 32);
}

static void on_switch(void *ctx, bool on)
{
}

static void on_event(void *ctx)
{
}

static void on_line(void *ctx, unsigned line, bool level)
{
}

static void on_arm(void *ctx, uint64_t deadline)
{
}

static void make(void)
{
	memset(&fw, 0, sizeof fw);
	memset(&flash, 0, sizeof flash);
	memset(&pam, 0, sizeof pam);
	memset(&hpet, 0, sizeof hpet);
	memset(&kbc, 0, sizeof kbc);
	memset(&timers, 0, sizeof timers);
	memset(ram + RAM, 0x5a, ROM);
	now = 1000000;
	hclock_init(&hclock, 1000000000);
	hclock.manual = &now;
	timerq_init(&timers, on_arm, NULL);
	rom = (struct gmem_rom){.base = (1ull << 32) - ROM};
	mem = (struct gmem){.ram = ram, .size = RAM, .rom_size = ROM, .low = RAM, .rom = &rom, .dirty_bm = dirty};
	fw.copy = on_copy;
	fwcfg_init(&fw);
	fwcfg_add_file(&fw, "etc/file", file, sizeof file);
	flash.at = on_at;
	flash.mode = on_mode;
	flash.changed = on_changed;
	pflash_init(&flash, ROM, BANK);
	pam.mem = &mem;
	pam.changed = on_shadow;
	vga_init(&vga, &hclock);
	hpet.irq = on_irq;
	hpet.legacy = on_switch;
	hpet_init(&hpet, &hclock, &timers);
	i8042_init(&kbc, (struct irq_out){on_line, NULL, 1}, on_event, on_switch, NULL);
}

static void touch(const struct bus_ops *ops, void *dev, bool write, uint64_t off, unsigned size, uint64_t val)
{
	while (size > ops->max_size)
		size /= 2;
	off &= ~(uint64_t)(size - 1);
	if (write)
		ops->write(dev, off, val, size);
	else
		ops->read(dev, off, size);
}

static void check_screen(void)
{
	struct vga_screen s;

	vga_screen(&vga, &s);
	FUZZ_CHECK(s.columns <= VGA_COLUMNS && s.rows <= VGA_ROWS && s.start < 0x8000);
}

static void access_one(const uint8_t *p)
{
	bool write = p[0] & 0x80;
	unsigned size = 1u << (p[1] & 3), off = (unsigned)p[2] | (unsigned)p[3] << 8;
	uint32_t val = (uint32_t)p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
	uint64_t wide = size == 8 ? (uint64_t)val << 32 | val : val;
	uint8_t regs[PAM_REGS];

	switch (p[0] & 15) {
	case 0: touch(&fwcfg_ops, &fw, write, off & 1, size > 2 ? 2 : size, val); break;
	case 1: touch(&fwcfg_dma_ops, &fw, write, off & 7, size, wide); break;
	case 2: gmem_write(&mem, off, p + 4, 4); break;
	case 3: touch(&pflash_ops, &flash, write, off % ROM, 1, val); break;
	case 4: touch(&pflash_ops, &flash, write, off % BANK, 1, val); break;
	case 5: touch(&pam_ops, &pam, write, ((uint64_t)off << 2 | (p[1] >> 6)) & 0x3ffff, 1, val); break;
	case 6:
		for (unsigned i = 0; i < PAM_REGS; i++)
			regs[i] = p[1 + i];
		pam_set(&pam, regs);
		break;
	case 7:
	case 8: touch(&vga_ops, &vga, write, off % VGA_LEN, 1, val); break;
	case 9:
	case 10: touch(&hpet_ops, &hpet, write, off % HPET_LEN, size, wide); break;
	case 11:
		now += off;
		timerq_run(&timers, now);
		break;
	case 12: touch(&i8042_ops, &kbc, write, 0, 1, val); break;
	case 13: touch(&i8042_command_ops, &kbc, write, 0, 1, val); break;
	case 14:
		fwcfg_reset(&fw);
		pflash_reset(&flash);
		hpet_reset(&hpet);
		vga_reset(&vga);
		break;
	default: check_screen(); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	make();
	for (; len >= 8; data += 8, len -= 8)
		access_one(data);
	for (unsigned i = BANK; i < ROM; i++)
		FUZZ_CHECK(ram[RAM + i] == 0x5a);
	return 0;
}

/* ---- seeds: what firmware does ---- */
static size_t at;

static void put(uint8_t *buf, unsigned what, unsigned size, unsigned off, uint32_t val)
{
	const uint8_t op[8] = {(uint8_t)(what | 0x80), (uint8_t)(size == 4 ? 2 : size == 2 ? 1 : 0),
			       (uint8_t)off,           (uint8_t)(off >> 8),
			       (uint8_t)val,           (uint8_t)(val >> 8),
			       (uint8_t)(val >> 16),   (uint8_t)(val >> 24)};

	memcpy(buf + at, op, 8);
	at += 8;
}

/* A request for the file into memory at 0x8000. */
static void seed_fwcfg(uint8_t *b)
{
	put(b, 0, 2, 0, FWCFG_DIR);
	put(b, 2, 4, 0x1000, 0x0a002000); /* select item 20h, read */
	put(b, 2, 4, 0x1004, 0xbc020000); /* 700 bytes */
	put(b, 2, 4, 0x1008, 0);
	put(b, 2, 4, 0x100c, 0x00800000);
	put(b, 1, 4, 4, 0x00100000);
}

static void seed_flash(uint8_t *b)
{
	static const uint8_t cycles[] = {0x50, 0x70, 0xff, 0x98, 0xff, 0x40, 0x12, 0xff, 0x20,
					 0xd0, 0xff, 0xe8, 1,    1,    2,    0xd0, 0xff};

	for (unsigned i = 0; i < sizeof cycles; i++)
		put(b, 4, 1, 0x123, cycles[i]);
}

static void seed_hpet(uint8_t *b)
{
	put(b, 9, 4, 0x100, 0x4c); /* periodic, enabled, sets the comparator */
	put(b, 9, 4, 0x108, 100);
	put(b, 9, 4, 0x10, 3);
	put(b, 11, 1, 5000, 0);
	put(b, 9, 4, 0x120, 0x2806); /* level, pin 20 */
	put(b, 9, 4, 0x128, 10000);
	put(b, 11, 1, 60000, 0);
	put(b, 9, 4, 0x20, 7);
}

static void seed_others(uint8_t *b)
{
	for (unsigned i = 0; i < 25; i++) {
		put(b, 7, 1, 0x24, i);
		put(b, 7, 1, 0x25, 0x5f + i);
	}
	put(b, 15, 1, 0, 0);
	put(b, 6, 1, 0x3333, 0x33333333);
	put(b, 5, 1, 0xc000, 0x77);
	put(b, 13, 1, 0, 0xaa);
	put(b, 12, 1, 0, 0xff);
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static void (*const seeds[])(uint8_t *) = {seed_fwcfg, seed_flash, seed_hpet, seed_others};

	at = 0;
	if (i >= sizeof seeds / sizeof seeds[0])
		return 0;
	seeds[i](buf);
	return at;
}
