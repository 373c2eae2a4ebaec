/*
 * Code memory, the block table and its index by guest address.
 * Invariant: blocks are allocated in the order of their host code, so the block
 * of a host address is found by bisection, in a signal handler too.
 */
#include "vcpu/bt/bt.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/gmem.h"
#include "common/memory.h"
#include "vcpu/bt/tr.h"
#include "vcpu/mmu/mmu.h"

/* The executable view must lie within 2 GiB of the glue, which translated code reaches by rel32. */
static const uint8_t *map_near_text(int fd)
{
	uint64_t text = (uint64_t)(uintptr_t)glue_mem & ~0xfffffull;

	for (int64_t d = 64ll << 20; d < 1800ll << 20; d += 64ll << 20)
		for (int sign = -1; sign <= 1; sign += 2) {
			uint64_t hint = text + (uint64_t)(sign * d);
			void *p;

			if (sign < 0 && text < (uint64_t)d + (64u << 20))
				continue;
			p = mmap((void *)(uintptr_t)hint, BT_CODE_SIZE, PROT_READ | PROT_EXEC,
				 MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
			if (p == (void *)(uintptr_t)hint)
				return p;
			if (p != MAP_FAILED)
				munmap(p, BT_CODE_SIZE);
		}
	return NULL;
}

static bool cpu_has_fast_pext(void)
{
	unsigned a, b, c, d, family;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_BMI2))
		return false;
	__cpuid(0, a, b, c, d);
	if (b != signature_AMD_ebx)
		return true;
	__cpuid(1, a, b, c, d);
	family = (a >> 8 & 15) + (a >> 20 & 0xff);
	return family >= 0x19; /* microcoded on Zen 1 and 2 */
}

int bt_create(struct vm *vm)
{
	struct bt *bt = calloc(1, sizeof *bt);
	void *rw;

	if (!bt)
		return -ENOMEM;
	bt->vm = vm;
	bt->fd = memfd_create("hvx-code", MFD_CLOEXEC);
	if (bt->fd < 0 || ftruncate(bt->fd, BT_CODE_SIZE) < 0)
		return -errno;
	rw = mmap(NULL, BT_CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, bt->fd, 0);
	bt->rx = map_near_text(bt->fd);
	close(bt->fd);
	bt->fd = -1;
	if (rw == MAP_FAILED || !bt->rx)
		return -ENOMEM;
	bt->rw = rw;
	bt->blocks = memory_anon(BT_MAX_BLOCKS * sizeof *bt->blocks);
	bt->sites = memory_anon(BT_MAX_SITES * sizeof *bt->sites);
	bt->exits = memory_anon(BT_MAX_EXITS * sizeof *bt->exits);
	bt->sys = memory_anon(BT_MAX_SYS * sizeof *bt->sys);
	bt->index = memory_anon(BT_INDEX * sizeof *bt->index);
	bt->memo = memory_anon(BT_MEMO * sizeof *bt->memo);
	bt->pages = memory_anon(BT_MAX_PAGES * sizeof *bt->pages);
	bt->page_hash = memory_anon(BT_MAX_PAGES * sizeof *bt->page_hash);
	bt->cell_stub = memory_anon(CELL_COUNT * sizeof *bt->cell_stub);
	bt->cell_active = memory_anon(CELL_COUNT * sizeof *bt->cell_active);
	bt->active_user = memory_anon(CELL_COUNT * sizeof *bt->active_user);
	bt->active_kern = memory_anon(CELL_COUNT * sizeof *bt->active_kern);
	bt->placed = memory_anon(BT_MAX_PAGES * sizeof *bt->placed);
	if (!bt->memo || !bt->blocks || !bt->sites || !bt->exits || !bt->sys || !bt->index || !bt->pages ||
	    !bt->page_hash || !bt->cell_stub || !bt->cell_active || !bt->active_user || !bt->active_kern || !bt->placed)
		return -ENOMEM;
	memset(bt->index, 0xff, BT_INDEX * sizeof *bt->index);
	memset(bt->page_hash, 0xff, BT_MAX_PAGES * sizeof *bt->page_hash);
	bt->have_bmi2 = cpu_has_fast_pext();
	vm->bt = bt;
	return 0;
}

void bt_destroy(struct vm *vm)
{
	struct bt *bt = vm->bt;

	if (!bt)
		return;
	munmap(bt->rw, BT_CODE_SIZE);
	munmap((void *)(uintptr_t)bt->rx, BT_CODE_SIZE);
	memory_anon_free(bt->blocks, BT_MAX_BLOCKS * sizeof *bt->blocks);
	memory_anon_free(bt->sites, BT_MAX_SITES * sizeof *bt->sites);
	memory_anon_free(bt->exits, BT_MAX_EXITS * sizeof *bt->exits);
	memory_anon_free(bt->sys, BT_MAX_SYS * sizeof *bt->sys);
	memory_anon_free(bt->index, BT_INDEX * sizeof *bt->index);
	memory_anon_free(bt->memo, BT_MEMO * sizeof *bt->memo);
	memory_anon_free(bt->pages, BT_MAX_PAGES * sizeof *bt->pages);
	memory_anon_free(bt->page_hash, BT_MAX_PAGES * sizeof *bt->page_hash);
	memory_anon_free(bt->cell_stub, CELL_COUNT * sizeof *bt->cell_stub);
	memory_anon_free(bt->cell_active, CELL_COUNT * sizeof *bt->cell_active);
	memory_anon_free(bt->active_user, CELL_COUNT * sizeof *bt->active_user);
	memory_anon_free(bt->active_kern, CELL_COUNT * sizeof *bt->active_kern);
	memory_anon_free(bt->placed, BT_MAX_PAGES * sizeof *bt->placed);
	free(bt);
	vm->bt = NULL;
}

void bt_flush(struct vcpu *v)
{
	struct bt *bt = v->bt;

	for (uint32_t i = 0; i < bt->n_pages; i++)
		v->vm->mem->code_bm[bt->pages[i].frame / 64] &= ~(1ull << (bt->pages[i].frame % 64));
	memset(bt->index, 0xff, BT_INDEX * sizeof *bt->index);
	memset(bt->page_hash, 0xff, BT_MAX_PAGES * sizeof *bt->page_hash);
	bt->n_blocks = bt->n_sites = bt->n_exits = bt->n_sys = bt->n_cells = bt->n_pages = 0;
	bt->n_active_user = bt->n_active_kern = 0;
	memset(bt->cell_active, 0, CELL_COUNT);
	bt->used = 0;
	memset(bt->downgraded, 0, sizeof bt->downgraded);
	tlb_flush_all(v);
	v->stats.code_flushes++;
}

static uint32_t hash_of(uint64_t gpa, uint64_t gva, uint32_t mode)
{
	uint64_t h = (gpa ^ (uint64_t)mode << 40 ^ gva >> GUEST_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull;

	return (uint32_t)(h >> 32);
}

static uint32_t home(uint32_t hash)
{
	return hash & (BT_INDEX - 1);
}

uint32_t block_lookup(const struct bt *bt, uint64_t gpa, uint64_t gva, uint32_t mode)
{
	uint32_t hash = hash_of(gpa, gva, mode);

	for (uint32_t i = home(hash); bt->index[i].block != BT_NONE; i = home(i + 1)) {
		const struct block *k = &bt->blocks[bt->index[i].block];

		if (bt->index[i].hash == hash && k->gpa == gpa && k->mode == mode && k->gva == gva)
			return bt->index[i].block;
	}
	return BT_NONE;
}

void block_insert(struct bt *bt, uint32_t b)
{
	uint32_t hash = hash_of(bt->blocks[b].gpa, bt->blocks[b].gva, bt->blocks[b].mode), i = home(hash);

	while (bt->index[i].block != BT_NONE)
		i = home(i + 1);
	bt->index[i] = (struct bt_slot){hash, b};
}

/* Entries behind the gap move up until one stands where it belongs, so that no look-up stops short. */
static void block_remove(struct bt *bt, uint32_t b)
{
	uint32_t i = home(hash_of(bt->blocks[b].gpa, bt->blocks[b].gva, bt->blocks[b].mode)), j;

	while (bt->index[i].block != b) {
		if (bt->index[i].block == BT_NONE)
			return;
		i = home(i + 1);
	}
	for (j = home(i + 1); bt->index[j].block != BT_NONE; j = home(j + 1))
		if (home(j - home(bt->index[j].hash)) >= home(j - i)) {
			bt->index[i] = bt->index[j];
			i = j;
		}
	bt->index[i].block = BT_NONE;
}

uint32_t block_by_host(const struct bt *bt, uint32_t host_off)
{
	uint32_t lo = 0, hi = bt->n_blocks;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (bt->blocks[mid].host_end <= host_off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < bt->n_blocks && bt->blocks[lo].host_start <= host_off ? lo : BT_NONE;
}

struct site *site_by_host(const struct bt *bt, const struct block *b, uint32_t host_off)
{
	uint32_t lo = b->site, hi = b->site + b->n_sites;

	while (lo + 1 < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (bt->sites[mid].host_off <= host_off)
			lo = mid;
		else
			hi = mid;
	}
	return &bt->sites[lo];
}

/* Jump caches may still lead here, at whatever address the page is mapped: its indirect entry becomes a miss. */
static void jump_caches_forget(struct bt *bt, const struct block *b)
{
	struct emit c = {bt->rw + b->host_sb, bt->rw, bt->rw + b->host_end, false};

	emit_jmp_to(&c, bt->rw + (glue_stale - bt->rx));
}

void block_invalidate(struct vcpu *v, uint32_t b)
{
	struct bt *bt = v->bt;
	struct block *k = &bt->blocks[b];

	if (k->dead)
		return;
	k->dead = 1;
	bt->invalidations++;
	if (bt->cells_brought_back)
		cells_reset_user(v);
	block_remove(bt, b);
	codepage_del(bt, b);
	unlink_incoming(v, b);
	for (uint32_t x = k->exit; x < k->exit + k->n_exits; x++) {
		unlink_exit(v, x);
		bt->exits[x].dead = 1;
	}
	jump_caches_forget(bt, k);
	v->stats.smc_blocks++;
}
