/*
 * Fuzz target: the translator.  Bytes 0 to 3 choose code size, privilege, mode bits and where in a page the code begins; the
 * rest is guest code, translated block after block and never run.  Without sanitizers: the engine can not have them.
 *
 * Properties: a block's host code, entries and side table lie within the code memory it got, in order; the host code is what
 * translated code may be (verify.h); a write to the code drops every block made from it.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/gmem.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/verify.h"
#include "vcpu/bt/bt.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/vcpu.h"

#define RAM_SIZE (8u << 20)
#define PML4     0x1000u
#define PDPT     0x2000u
#define PD       0x3000u
#define CODE     0x200000u
#define CODE_MAX 1024u
#define HEAD     4u
#define BLOCKS   64

static struct gmem mem;
static struct vm vm;
static struct vcpu *vcpu;

/* One to one, 8 MiB, for everybody. */
static void make_tables(void)
{
	*(uint64_t *)(void *)(mem.ram + PML4) = PDPT | 7;
	*(uint64_t *)(void *)(mem.ram + PDPT) = PD | 7;
	for (uint64_t i = 0; i < 4; i++)
		((uint64_t *)(void *)(mem.ram + PD))[i] = i << 21 | 0x87;
}

static void init(void)
{
	uint64_t pages = RAM_SIZE / GMEM_PAGE_SIZE;

	mem.ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	mem.size = mem.low = RAM_SIZE;
	mem.p2m = calloc(pages, 8);
	mem.code_bm = calloc(pages / 64, 8);
	mem.dirty_bm = calloc(pages / 64, 8);
	FUZZ_CHECK(mem.ram != MAP_FAILED && mem.p2m && mem.code_bm && mem.dirty_bm);
	for (uint64_t i = 0; i < pages; i++)
		mem.p2m[i] = i * GMEM_PAGE_SIZE;
	vm = (struct vm){.mem = &mem, .ncpus = 1, .name = "fuzz", .tsc_hz = 1000000000};
	FUZZ_CHECK(!bt_create(&vm));
	vcpu = vcpu_create(&vm, 0);
	FUZZ_CHECK(vcpu);
}

static void set_mode(struct vcpu *v, uint8_t how, uint8_t bits)
{
	uint32_t user = how & 4 ? 0x60 : 0;

	cpu_reset(v);
	make_tables();
	if (how & 2) {
		cpu_set_prot_flat(v, CODE, 0, 0);
		if (how & 1)
			v->seg[SEG_CS].attr &= ~(uint32_t)SEG_A_DB;
		if (how & 8)
			v->seg[SEG_SS].attr &= ~(uint32_t)SEG_A_DB;
	} else {
		cpu_set_long_flat(v, PML4, CODE, 0);
	}
	if ((how & 3) == 3) { /* where in its 64 KiB */
		v->seg[SEG_CS].base = CODE - (how & 64 ? 0xf000 : 0x8000);
		v->seg[SEG_CS].limit = 0xffff;
	}
	v->seg[SEG_CS].attr |= user;
	v->seg[SEG_SS].attr |= user;
	v->cpl = user ? 3 : 0;
	if (how & 16)
		v->cr4 |= CR4_SMAP | CR4_TSD;
	tlb_flush_all(v);
	vcpu_update_mode(v);
	if ((how & 34) == 34)
		v->mode |= MODE_REAL;
	v->mode &= ~(uint32_t)(MODE_NOFPU | MODE_NOSSE | MODE_NOAVX | MODE_NOAVX512);
	if (bits & 1)
		v->mode |= MODE_SLOWMEM;
	if (bits & 2)
		v->mode |= MODE_NOFPU;
	if (bits & 4)
		v->mode |= MODE_NOSSE;
	if (bits & 8)
		v->mode |= MODE_NOAVX | MODE_NOAVX512;
}

static uint32_t extra_mode(uint8_t bits)
{
	static const uint32_t extra[] = {0,
					 0,
					 MODE_STEP,
					 MODE_NOCOMBINE,
					 MODE_STEP | MODE_BOUNCE,
					 MODE_STEP | MODE_BOUNCE_STACK,
					 MODE_STEP | MODE_BOUNCE | MODE_BOUNCE_STACK,
					 0};

	return extra[bits >> 4 & 7];
}

static void check_block(const struct bt *bt, const struct block *b)
{
	uint32_t at = b->host_start;

	FUZZ_CHECK(b->n_insns >= 1 && b->n_insns <= BT_MAX_INSNS && b->len >= 1 && b->len <= BT_MAX_INSNS * 15);
	for (int k = 0; k < 4; k++)
		FUZZ_CHECK(block_entry(b, k & 1, k & 2) >= at && block_entry(b, k & 1, k & 2) < b->host_end);
	FUZZ_CHECK(b->host_end <= bt->used && bt->used <= BT_CODE_SIZE);
	FUZZ_CHECK(b->site + b->n_sites <= bt->n_sites && b->exit + b->n_exits <= bt->n_exits);
	for (uint32_t i = b->site; i < b->site + b->n_sites; i++) {
		FUZZ_CHECK(bt->sites[i].host_off >= at && bt->sites[i].host_off <= b->host_end);
		FUZZ_CHECK(bt->sites[i].goff <= b->len && bt->sites[i].len <= 15);
		at = bt->sites[i].host_off;
	}
	for (uint32_t i = b->exit; i < b->exit + b->n_exits; i++)
		FUZZ_CHECK(bt->exits[i].stub_off >= b->host_start && bt->exits[i].stub_off < b->host_end);
}

static void check_code(const struct vcpu *v, const struct block *b)
{
	char why[512];
	const char *bad = verify_block(v, b, why, sizeof why);

	if (bad)
		fprintf(stderr, "%s\n", bad);
	FUZZ_CHECK(!bad);
}

/* Translates from @start on; leaves the number of blocks and the blocks. */
static unsigned translate(struct vcpu *v, uint32_t start, uint32_t len, uint32_t extra, uint32_t *blocks)
{
	uint32_t b, flushes = (uint32_t)v->stats.code_flushes;
	unsigned n = 0;

	start -= (uint32_t)v->seg[SEG_CS].base;
	for (v->rip = start; v->rip < start + len && n < BLOCKS; v->rip += v->bt->blocks[b].len) {
		b = bt_find(v, extra);
		if (b == BT_NONE) {
			FUZZ_CHECK(v->exc_pending);
			break;
		}
		if (flushes != (uint32_t)v->stats.code_flushes) /* those before are no more */
			n = 0, flushes = (uint32_t)v->stats.code_flushes;
		check_block(v->bt, &v->bt->blocks[b]);
		check_code(v, &v->bt->blocks[b]);
		blocks[n++] = b;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint32_t start, n, blocks[BLOCKS];
	unsigned made;

	if (len <= HEAD)
		return 0;
	if (!vcpu)
		init();
	n = len - HEAD < CODE_MAX ? (uint32_t)(len - HEAD) : CODE_MAX;
	start = CODE + ((data[2] | (uint32_t)data[3] << 8) & 0xfff);
	set_mode(vcpu, data[0], data[1]);
	FUZZ_CHECK(!gmem_write(&mem, start, data + HEAD, n));
	code_written(vcpu, start, n);
	made = translate(vcpu, start, n, extra_mode(data[1]), blocks);
	code_written(vcpu, start, n);
	for (unsigned i = 0; i < made; i++)
		FUZZ_CHECK(vcpu->bt->blocks[blocks[i]].dead);
	return 0;
}

/* A little of everything, in each code size. */
size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const uint8_t code[] = {
		0x55, 0x89, 0xe5, 0x83, 0xec, 0x10, 0x8b, 0x45, 0x08, 0x01, 0x45, 0xfc, 0x0f, 0xaf, 0xc3, 0x50,
		0x5b, 0x39, 0xd8, 0x0f, 0x94, 0xc0, 0x74, 0x02, 0x31, 0xc0, 0xf3, 0xa4, 0xaa, 0xf2, 0xae, 0x8d,
		0x74, 0x86, 0x10, 0xe8, 0x04, 0,    0,    0,    0xe2, 0xfe, 0xff, 0xd0, 0xff, 0xe0, 0xc9, 0xc3,
		0x0f, 0xa2, 0x0f, 0x31, 0x9c, 0x9d, 0x0f, 0x28, 0x07, 0x0f, 0x11, 0x46, 0x10, 0xc5, 0xfc, 0x58,
		0x07, 0xd9, 0xe8, 0xdd, 0x1c, 0x24, 0x0f, 0xae, 0x07, 0xf0, 0x0f, 0xb1, 0x0a, 0x87, 0x03, 0x0f,
		0xab, 0x07, 0xd7, 0x0f, 0xb6, 0x06, 0xc5, 0xfb, 0xf0, 0x0f, 0xc4, 0xe2, 0x69, 0x92, 0x04, 0x88,
		0x66, 0x0f, 0xf7, 0xc1, 0x0f, 0x22, 0xd8, 0xcd, 0x80, 0xcf, 0xf4,
	};

	/* 64, 32 and 16 bits, as set_mode() has them: user and not, flat stacks and not, real, SMAP */
	static const uint8_t how[] = {0,  4,  16, 20, 2,  6,  10, 14, 18, 22, 3,  7,  11,
				      15, 19, 23, 34, 35, 39, 43, 47, 42, 67, 71, 99, 111};

	if (i >= sizeof how)
		return 0;
	buf[0] = how[i];
	buf[2] = 0xf0;
	buf[3] = i & 1 ? 0x0f : 0x01;
	memcpy(buf + HEAD, code, sizeof code);
	return HEAD + sizeof code;
}
