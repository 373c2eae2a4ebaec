/*
 * Code memory, the block table and its index by guest address.
 * Invariant: blocks are allocated in the order of their host code, so the block
 * of a host address is found by bisection, in a signal handler too.
 */
#include "vcpu/bt/bt.h"

#include <cpuid.h>
#include <errno.h>
#include <sched.h>
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

static int host_cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) < 0 ? 1 : CPU_COUNT(&set);
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
	if (!bt->memo || !bt->blocks || !bt->sites || !bt->exits || !bt->sys || !bt->index || !bt->pages ||
	    !bt->page_hash || !bt->cell_stub)
		return -ENOMEM;
	memset(bt->index, 0xff, BT_INDEX * sizeof *bt->index);
	memset(bt->page_hash, 0xff, BT_MAX_PAGES * sizeof *bt->page_hash);
	bt->have_bmi2 = cpu_has_fast_pext();
	bt->smp = vm->ncpus > 1;
	bt->crowded = vm->ncpus > host_cores();
	bt->copies = BT_CODE_SIZE - (uint32_t)vm->ncpus * BT_COPY_SIZE;
	bt->vcpu_seg = vm->window ? SEG_PREFIX_FS : SEG_PREFIX_GS;
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
	free(bt);
	vm->bt = NULL;
}

static void forget_cells(struct vcpu *v, void *arg)
{
	(void)arg;
	cells_forget(v);
}

static void flush_cpu(struct vcpu *v, void *arg)
{
	(void)arg;
	tlb_flush_all(v);
}

static void flush_tables(struct vm *vm)
{
	struct bt *bt = vm->bt;

	for (uint32_t i = 0; i < bt->n_pages; i++)
		__atomic_fetch_and(&vm->mem->code_bm[bt->pages[i].frame / 64], ~(1ull << (bt->pages[i].frame % 64)),
				   __ATOMIC_SEQ_CST);
	memset(bt->index, 0xff, BT_INDEX * sizeof *bt->index);
	memset(bt->page_hash, 0xff, BT_MAX_PAGES * sizeof *bt->page_hash);
	world_on(vm, WORLD_ALL, forget_cells, NULL);
	bt->n_blocks = bt->n_sites = bt->n_exits = bt->n_sys = bt->n_cells = bt->n_pages = 0;
	bt->used = 0;
	memset(bt->downgraded, 0, sizeof bt->downgraded);
	memset(bt->off_window, 0, sizeof bt->off_window);
	world_on(vm, WORLD_ALL, flush_cpu, NULL);
}

void bt_flush_since(struct vcpu *v, uint32_t flushes)
{
	struct bt *bt = v->bt;

	world_stop(v->vm);
	if (flushes == bt->flushes) {
		bt->flushes++;
		flush_tables(v->vm);
		v->stats.code_flushes++;
	}
	world_go(v->vm);
}

void bt_flush(struct vcpu *v)
{
	bt_flush_since(v, __atomic_load_n(&v->bt->flushes, __ATOMIC_RELAXED));
}

void bt_lock(struct vcpu *v)
{
	struct bt *bt = v->bt;

	if (!bt->smp || __atomic_load_n(&bt->owner, __ATOMIC_RELAXED) == v) {
		bt->depth++;
		return;
	}
	mutex_lock(&bt->lock, RANK_BT);
	__atomic_store_n(&bt->owner, v, __ATOMIC_RELAXED);
	bt->depth = 1;
}

void bt_unlock(struct vcpu *v)
{
	struct bt *bt = v->bt;

	if (--bt->depth || !bt->smp)
		return;
	__atomic_store_n(&bt->owner, NULL, __ATOMIC_RELAXED);
	mutex_unlock(&bt->lock, RANK_BT);
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

static uint64_t slot(const struct bt *bt, uint32_t i)
{
	return __atomic_load_n(&bt->index[i], __ATOMIC_ACQUIRE);
}

static void slot_set(struct bt *bt, uint32_t i, uint32_t hash, uint32_t block)
{
	__atomic_store_n(&bt->index[i], (uint64_t)hash << 32 | block, __ATOMIC_RELEASE);
}

uint32_t block_lookup(const struct bt *bt, uint64_t gpa, uint64_t gva, uint32_t mode)
{
	uint32_t hash = hash_of(gpa, gva, mode);
	uint64_t s;

	for (uint32_t i = home(hash); (uint32_t)(s = slot(bt, i)) != BT_FREE; i = home(i + 1)) {
		const struct block *k = &bt->blocks[(uint32_t)s];

		if (s >> 32 == hash && (uint32_t)s != BT_REMOVED && k->gpa == gpa && k->mode == mode && k->gva == gva)
			return (uint32_t)s;
	}
	return BT_NONE;
}

void block_insert(struct bt *bt, uint32_t b)
{
	uint32_t hash = hash_of(bt->blocks[b].gpa, bt->blocks[b].gva, bt->blocks[b].mode), i = home(hash);

	while ((uint32_t)slot(bt, i) != BT_FREE)
		i = home(i + 1);
	slot_set(bt, i, hash, b);
}

/* It becomes no free entry, where look-ups of others would stop short. */
static void block_remove(struct bt *bt, uint32_t b)
{
	uint32_t hash = hash_of(bt->blocks[b].gpa, bt->blocks[b].gva, bt->blocks[b].mode), i = home(hash);

	while ((uint32_t)slot(bt, i) != b) {
		if ((uint32_t)slot(bt, i) == BT_FREE)
			return;
		i = home(i + 1);
	}
	slot_set(bt, i, hash, BT_REMOVED);
}

uint32_t block_by_host(const struct bt *bt, uint32_t host_off)
{
	const uint32_t n = __atomic_load_n(&bt->n_blocks, __ATOMIC_ACQUIRE); /* read once: another CPU publishes */
	uint32_t lo = 0, hi = n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (bt->blocks[mid].host_end <= host_off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && bt->blocks[lo].host_start <= host_off ? lo : BT_NONE;
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

/*
 * What may still lead here: jump caches, at whatever address the page is mapped, and other CPUs' cells.  With one CPU the
 * indirect entry becomes a miss.  With several all entries do, by one byte each, so that a CPU which is at one of them finds a
 * whole instruction: int3, which the signal handler takes to glue_gone.
 */
static void entries_forget(struct bt *bt, const struct block *b)
{
	const uint32_t entry[] = {b->host, b->host_b, b->host_s, b->host_sb};
	struct emit c = {bt->rw + b->host_sb, bt->rw, bt->rw + b->host_end, false, 0, 0}; /* a jump needs no more */

	if (!bt->smp)
		emit_jmp_to(&c, bt->rw + (glue_stale - bt->rx));
	else if (!(b->mode & MODE_TRANSIENT)) /* those are entered once by who looked them up */
		for (unsigned i = 0; i < 4; i++)
			__atomic_store_n(&bt->rw[entry[i]], 0xcc, __ATOMIC_RELEASE);
}

static void invalidate(struct vcpu *v, uint32_t b)
{
	struct bt *bt = v->bt;
	struct block *k = &bt->blocks[b];

	k->dead = 1;
	__atomic_store_n(&bt->invalidations, bt->invalidations + 1, __ATOMIC_RELEASE);
	block_remove(bt, b);
	codepage_del(bt, b);
	unlink_incoming(v, b);
	for (uint32_t x = k->exit; x < k->exit + k->n_exits; x++) {
		unlink_exit(v, x);
		bt->exits[x].dead = 1;
	}
	entries_forget(bt, k);
	v->stats.smc_blocks++;
}

void block_invalidate(struct vcpu *v, uint32_t b)
{
	bt_lock(v);
	if (!v->bt->blocks[b].dead)
		invalidate(v, b);
	bt_unlock(v);
}

bool block_entered_at(const struct block *b, uint32_t off, bool *spare, uint8_t *fl)
{
	/* where two are one the flags are dead: with one CPU only jump caches lead there */
	*spare = off != b->host_b && off != b->host;
	*fl = off == b->host_sb || off == b->host_b ? FLS_SLOT : FLS_HOST;
	return off == b->host_sb || off == b->host_b || off == b->host_s || off == b->host;
}
