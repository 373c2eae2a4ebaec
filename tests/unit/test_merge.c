/*
 * memsvc/merge, scan, pool, table, and gmem_own() on the other side of the p2m: whatever is merged, written, given back and read in
 * whichever order, a page reads as what was last written to it, by everybody who asked since, and no page of the pool is lost.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/gmem.h"
#include "common/memory.h"
#include "memsvc/member.h"
#include "memsvc/scan.h"

#define VMS   2u
#define PAGES 64u
#define KINDS 6u /* of content: a page has one of so many, 0 is zeros */

static struct world {
	struct pool pool;
	struct scan scan;
	struct vm {
		struct ram ram;
		struct merge merge;
		struct gmem mem;
		unsigned is[PAGES]; /* what was written last */
		bool away[PAGES];   /* given back: it reads as zeros, or not, until it is written */
		bool waits;         /* a batch is on its way, and has not been let go of */
	} vm[VMS];
	uint64_t rng;
} w;

static unsigned rnd(unsigned n)
{
	w.rng = w.rng * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(w.rng >> 33) % n;
}

static void begin(uint64_t seed, uint32_t pool_pages)
{
	memset(&w, 0, sizeof w);
	w.rng = seed;
	int fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CU_ASSERT_FATAL(fd >= 0 && !ftruncate(fd, (off_t)pool_pages * SHM_PAGE));
	CU_ASSERT_EQUAL_FATAL(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	CU_ASSERT_EQUAL_FATAL(pool_init(&w.pool, fd), 0);
	scan_init(&w.scan, &w.pool, MSG_MERGE_RATE_MAX);
	w.scan.pass_min_ns = 0;
	for (unsigned i = 0; i < VMS; i++) {
		struct vm *v = &w.vm[i];
		CU_ASSERT_EQUAL_FATAL(ram_create(&v->ram, PAGES * SHM_PAGE), 0);
		CU_ASSERT_EQUAL_FATAL(merge_init(&v->merge, &v->ram, &w.pool), 0);
		CU_ASSERT_EQUAL_FATAL(scan_add(&w.scan, &v->merge), 0);
		CU_ASSERT_EQUAL_FATAL(memory_map(&v->mem, v->ram.ram_fd, v->ram.control_fd, fd, PAGES * SHM_PAGE), 0);
	}
}

static void end(void)
{
	for (unsigned i = 0; i < VMS; i++) {
		struct vm *v = &w.vm[i];
		scan_remove(&w.scan, &v->merge);
		merge_free(&v->merge);
		munmap(v->mem.ram, PAGES * SHM_PAGE);
		munmap((void *)(uintptr_t)v->mem.pool, v->mem.pool_size);
		munmap((uint8_t *)v->mem.epochs - shm_layout(PAGES * SHM_PAGE).epochs,
		       shm_layout(PAGES * SHM_PAGE).total);
		ram_free(&v->ram);
	}
	CU_ASSERT_EQUAL(w.pool.live, 0); /* nothing was lost */
	CU_ASSERT_EQUAL(w.pool.refs[POOL_ZERO], 0);
	scan_free(&w.scan);
	pool_free(&w.pool);
}

/* Content @kind: its number in every word, a bit of which tells the words apart. */
static void fill(uint8_t *page, unsigned kind)
{
	uint64_t *p = (uint64_t *)(void *)page;

	for (unsigned i = 0; i < SHM_PAGE / 8; i++)
		p[i] = kind ? kind * 0x9e3779b97f4a7c15ull + i : 0;
}

static bool holds(const uint8_t *page, unsigned kind)
{
	const uint64_t *p = (const uint64_t *)(const void *)page;

	for (unsigned i = 0; i < SHM_PAGE / 8; i++)
		if (p[i] != (kind ? kind * 0x9e3779b97f4a7c15ull + i : 0))
			return false;
	return true;
}

static void write_page(struct vm *v, unsigned page, unsigned kind)
{
	uint8_t *p = gmem_frame_ptr(&v->mem, page, GMEM_READ | GMEM_WRITE);

	CU_ASSERT_PTR_EQUAL_FATAL(p, v->mem.ram + page * SHM_PAGE);
	CU_ASSERT(v->away[page] || holds(p, v->is[page])); /* it came with what it held */
	fill(p, kind);
	v->is[page] = kind;
	v->away[page] = false;
}

static bool reads(struct vm *v, unsigned page)
{
	const uint8_t *p = gmem_frame_ptr(&v->mem, page, GMEM_READ);

	return p && (v->away[page] || holds(p, v->is[page]));
}

static void check_all(void)
{
	for (unsigned i = 0; i < VMS; i++)
		for (unsigned p = 0; p < PAGES; p++)
			CU_ASSERT_FATAL(reads(&w.vm[i], p));
}

/* Every reference that the pool counts is a page's, or waits to be given back. */
static void check_refs(void)
{
	static uint32_t refs[4096];
	uint32_t live = 0;

	memset(refs, 0, sizeof refs);
	for (unsigned i = 0; i < VMS; i++) {
		const struct merge *m = &w.vm[i].merge;
		uint64_t sharing = 0;
		for (unsigned p = 0; p < PAGES; p++)
			if (m->pool_of[p] != POOL_NONE) {
				refs[m->pool_of[p]]++;
				sharing++;
			}
		CU_ASSERT_EQUAL(sharing, m->n.sharing);
		for (uint32_t k = 0; k < m->ndrop; k++)
			refs[m->drop[k]]++;
	}
	for (uint32_t p = 0; p < w.pool.top; p++) {
		CU_ASSERT_EQUAL(refs[p], w.pool.refs[p]);
		live += p && w.pool.refs[p];
	}
	CU_ASSERT_EQUAL(live, w.pool.live);
}

static void pass(void)
{
	w.scan.credit_ns = 1000000000;
	scan_work(&w.scan);
}

/* Everybody has let go. */
static void batch_on(struct vm *v)
{
	if (v->merge.state == MERGE_QUIET)
		merge_begin(&v->merge);
	else
		merge_go_on(&v->merge);
}

static void merge_all(unsigned passes)
{
	for (unsigned i = 0; i < passes; i++) {
		pass();
		for (unsigned k = 0; k < 3 * VMS; k++)
			batch_on(&w.vm[k % VMS]);
	}
}

static uint64_t present(const struct vm *v)
{
	struct ram_usage u;

	CU_ASSERT_EQUAL(ram_usage(&v->ram, &u), 0);
	return u.pages_present;
}

static void test_equal(void)
{
	begin(1, 256);
	for (unsigned p = 0; p < PAGES; p++) {
		write_page(&w.vm[0], p, 1 + p % 5);
		write_page(&w.vm[1], p, p < 8 ? 100 + p : 1 + p % 5);
	}
	merge_all(6);
	check_all();
	check_refs();
	CU_ASSERT_EQUAL(w.pool.live, 5);
	CU_ASSERT_EQUAL(present(&w.vm[0]), 0);
	CU_ASSERT_EQUAL(present(&w.vm[1]), 8); /* like no other */
	CU_ASSERT_EQUAL(w.vm[1].merge.n.unshared, 8);
	write_page(&w.vm[0], 7, 77);
	CU_ASSERT_EQUAL(present(&w.vm[0]), 1);
	check_all();
	merge_all(1);
	CU_ASSERT_EQUAL(w.vm[0].merge.n.unmerged, 1);
	check_refs();
	end();
}

static void test_zero(void)
{
	begin(2, 256);
	for (unsigned p = 0; p < PAGES; p += 2)
		write_page(&w.vm[0], p, 0);
	merge_all(1); /* at once */
	CU_ASSERT_EQUAL(w.vm[0].merge.n.sharing, PAGES / 2);
	CU_ASSERT_EQUAL(present(&w.vm[0]), 0);
	CU_ASSERT_EQUAL(w.pool.live, 0);
	for (unsigned p = 0; p < PAGES; p += 2)
		CU_ASSERT(reads(&w.vm[0], p));
	write_page(&w.vm[0], 4, 3);
	CU_ASSERT_EQUAL(present(&w.vm[0]), 1);               /* reading took none */
	CU_ASSERT_EQUAL(w.vm[0].merge.n.scanned, PAGES / 2); /* holes are not looked at */
	end();
}

/* A page that changes between two passes is not even tried. */
static void test_volatile(void)
{
	begin(3, 256);
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned k = 0; k < VMS; k++)
			write_page(&w.vm[k], 5, 1 + i % 5);
		merge_all(1);
		CU_ASSERT_EQUAL(w.vm[0].merge.n.merged, 0);
	}
	CU_ASSERT_EQUAL(w.vm[0].merge.n.unstable, 5);
	merge_all(2);
	CU_ASSERT_EQUAL(w.vm[0].merge.n.sharing, 1);
	/* one that was merged and written is left alone for a while */
	write_page(&w.vm[0], 5, 1);
	write_page(&w.vm[1], 5, 1);
	merge_all(3);
	CU_ASSERT_EQUAL(w.vm[0].merge.n.sharing, 0);
	merge_all(4);
	CU_ASSERT_EQUAL(w.vm[0].merge.n.sharing, 1);
	check_all();
	end();
}

/* Written while it is watched, or while its own place is kept: as if nothing had been. */
static void test_writes_in_between(void)
{
	struct vm *v = &w.vm[0];

	for (unsigned at = 0; at < 3; at++) {
		begin(4, 256);
		for (unsigned p = 0; p < 4; p++)
			write_page(v, p, 2);
		pass();
		pass();
		CU_ASSERT_FATAL(merge_begin(&v->merge));
		if (at == 0)
			write_page(v, 1, 3);
		merge_go_on(&v->merge);
		CU_ASSERT_EQUAL(v->merge.state, MERGE_SETTLE);
		if (at == 1)
			write_page(v, 1, 3);
		merge_go_on(&v->merge);
		CU_ASSERT_EQUAL(v->merge.state, MERGE_QUIET);
		if (at == 2)
			write_page(v, 1, 3);
		CU_ASSERT_EQUAL(present(v), 1);
		merge_all(1);
		CU_ASSERT_EQUAL(v->merge.n.sharing, 3);
		check_refs();
		check_all();
		end();
	}
}

/* Pages that look alike to the hash alone: two that were made to collide by force. */
static void test_collision(void)
{
	struct vm *v = &w.vm[0];

	begin(5, 256);
	write_page(v, 0, 1);
	write_page(v, 1, 1);
	merge_all(3);
	CU_ASSERT_EQUAL_FATAL(v->merge.n.sharing, 2);
	write_page(v, 2, 2);
	uint64_t hash = pool_hash(&w.pool, v->mem.ram + 2 * SHM_PAGE);
	w.pool.hash[v->merge.pool_of[0]] = hash;
	table_put(&w.pool.by_hash, hash, v->merge.pool_of[0]);
	merge_wish(&v->merge, 2, hash);
	for (unsigned i = 0; i < 3; i++)
		batch_on(v);
	CU_ASSERT_EQUAL(v->merge.pool_of[2], POOL_NONE);
	check_all();
	w.pool.live = 1;
	end();
}

static void test_pool_full(void)
{
	begin(6, 3);
	for (unsigned p = 0; p < PAGES; p++)
		write_page(&w.vm[0], p, 1 + p / 2);
	merge_all(5);
	CU_ASSERT_EQUAL(w.pool.live, 2);
	CU_ASSERT_EQUAL(w.vm[0].merge.n.sharing, 4);
	check_all();
	check_refs();
	end();
}

/* Given back by the guest: out of the pool, empty, and the reference goes when nobody can read by it any more. */
static void test_balloon(void)
{
	struct vm *v = &w.vm[0];

	begin(7, 256);
	for (unsigned p = 0; p < 8; p++)
		write_page(v, p, 1);
	merge_all(3);
	CU_ASSERT_EQUAL_FATAL(v->merge.n.sharing, 8);
	CU_ASSERT_EQUAL(ram_change(&v->ram, MEM_OP_BALLOON, 0, 4), 0);
	CU_ASSERT_EQUAL(ram_change(&v->ram, MEM_OP_REPORT, 4, 4), 0);
	CU_ASSERT_EQUAL(w.pool.live, 1); /* somebody may read it still */
	CU_ASSERT_EQUAL(ram_punch(&v->ram, 0, 8), 0);
	CU_ASSERT_EQUAL(v->ram.p2m[1], SHM_PAGE | SHM_P2M_ABSENT);
	CU_ASSERT_EQUAL(v->ram.p2m[5], 5 * SHM_PAGE);
	for (unsigned p = 0; p < 8; p++)
		v->is[p] = 0;
	check_all();
	CU_ASSERT(merge_begin(&v->merge));
	merge_go_on(&v->merge);
	CU_ASSERT_EQUAL(w.pool.live, 0);
	check_refs();
	end();
}

/* Nonsense in the region, which a VM can write as it likes, is its own damage: no other VM's pages change, nothing is lost. */
static void test_nonsense(void)
{
	struct vm *bad = &w.vm[0], *good = &w.vm[1];

	begin(8, 256);
	for (unsigned round = 0; round < 200; round++) {
		unsigned p = rnd(PAGES);
		write_page(good, p, rnd(KINDS));
		fill(bad->mem.ram + rnd(PAGES) * SHM_PAGE, rnd(KINDS));
		__atomic_store_n(&bad->ram.p2m[rnd(PAGES)],
				 (uint64_t)rnd(300) * SHM_PAGE | rnd(32) | (rnd(9) ? 0 : 1ull << 63), __ATOMIC_RELAXED);
		if (!rnd(3))
			pass();
		batch_on(bad);
		if (rnd(2))
			fill(bad->mem.ram + rnd(PAGES) * SHM_PAGE, rnd(KINDS));
		batch_on(good);
		for (unsigned k = 0; k < PAGES; k++)
			CU_ASSERT_FATAL(reads(good, k));
		check_refs();
	}
	end();
}

/* Everything at random, step by step, against what the pages are to be. */
static void random_step(struct vm *v)
{
	unsigned p = rnd(PAGES), n = 1 + rnd(4);

	switch (rnd(10)) {
	case 0:
	case 1:
	case 2: write_page(v, p, rnd(KINDS)); break;
	case 3:
		if (p + n > PAGES)
			break;
		CU_ASSERT_EQUAL(ram_change(&v->ram, rnd(2) ? MEM_OP_BALLOON : MEM_OP_REPORT, p, n), 0);
		CU_ASSERT_EQUAL(ram_punch(&v->ram, p, n), 0);
		memset(v->is + p, 0, n * sizeof v->is[0]);
		break;
	case 4: CU_ASSERT_EQUAL(ram_change(&v->ram, MEM_OP_RETURN_ALL, 0, 0), 0); break;
	case 5: pass(); break;
	case 6: merge_abort(&v->merge); break;
	default: batch_on(v); break;
	}
}

/* MERGE_SOAK: so many seconds instead of some rounds. */
static bool more(uint64_t round, uint64_t rounds)
{
	static time_t end;
	const char *soak = getenv("MERGE_SOAK");

	if (!soak)
		return round < rounds;
	if (!round)
		end = time(NULL) + atol(soak) / 2;
	return time(NULL) < end;
}

static void test_random(void)
{
	for (uint64_t seed = 0; more(seed, 6); seed++) {
		begin(seed, seed % 4 ? 256 : 4);
		for (unsigned i = 0; i < 600; i++) {
			random_step(&w.vm[rnd(VMS)]);
			check_all();
			if (i % 16 == 0)
				check_refs();
		}
		end();
	}
}

/* ---- threads that write and read, as vcpus and devices do, while pages are merged ---- */

#define WRITERS 3u

static struct writer {
	pthread_t thread;
	struct vm *vm;
	unsigned slot;
	unsigned bad;
	uint64_t rng;
} writers[WRITERS];
static _Atomic bool stop;

/* Each writer has its own word of every page, and knows what it wrote there. */
static void *write_for_ever(void *arg)
{
	struct writer *t = arg;
	static __thread uint64_t mine[PAGES];
	const unsigned word = 8 * t->slot;

	while (!atomic_load(&stop)) {
		unsigned in = gmem_enter(&t->vm->mem, t->slot);
		for (unsigned k = 0; k < 32; k++) {
			t->rng = t->rng * 6364136223846793005ull + 1442695040888963407ull;
			unsigned p = (unsigned)(t->rng >> 40) % PAGES;
			uint8_t *at = gmem_frame_ptr(&t->vm->mem, p, GMEM_READ);
			t->bad += !at || __atomic_load_n((uint64_t *)(void *)(at + word), __ATOMIC_RELAXED) != mine[p];
			if ((t->rng >> 33) % 8)
				continue;
			at = gmem_frame_ptr(&t->vm->mem, p, GMEM_READ | GMEM_WRITE);
			mine[p] = (t->rng >> 60) % 2; /* so that pages are often equal */
			__atomic_store_n((uint64_t *)(void *)(at + word), mine[p], __ATOMIC_RELAXED);
		}
		gmem_leave(&t->vm->mem, t->slot, in);
	}
	return NULL;
}

static void grace(struct vm *v)
{
	grace_begin(&v->ram.grace);
	while (grace_look(&v->ram.grace) == GRACE_WAIT)
		sched_yield();
}

static void test_threads(void)
{
	uint64_t merged = 0;

	begin(9, 256);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){.vm = &w.vm[i % VMS], .slot = i, .rng = i};
		CU_ASSERT_EQUAL_FATAL(pthread_create(&writers[i].thread, NULL, write_for_ever, &writers[i]), 0);
	}
	for (unsigned round = 0; more(round, 100) || (merged <= 50 && round < 20000); round++) {
		struct vm *v = &w.vm[round % VMS];
		for (unsigned p = 0; p < PAGES; p++) /* no two passes: pages change too often for that */
			if (merge_plain(&v->merge, p) && !merge_noticed(&v->merge, p)) {
				uint8_t page[SHM_PAGE];
				CU_ASSERT(pread(v->ram.ram_fd, page, sizeof page, p * SHM_PAGE) == sizeof page);
				merge_wish(&v->merge, p, pool_hash(&w.pool, page));
			} else {
				merge_noticed(&v->merge, p);
			}
		for (unsigned k = 0; k < 3; k++) {
			batch_on(v);
			grace(v);
		}
		check_refs();
		merged += v->merge.n.merged;
		v->merge.n.merged = 0;
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < WRITERS; i++) {
		pthread_join(writers[i].thread, NULL);
		CU_ASSERT_EQUAL(writers[i].bad, 0);
	}
	CU_ASSERT(merged > 50);
	end();
}

/* ---- the tables ---- */

static void test_table(void)
{
	struct table t = {0};
	uint64_t v;

	CU_ASSERT_FALSE(table_get(&t, 5, &v));
	CU_ASSERT_EQUAL_FATAL(table_reset(&t, 100), 0);
	for (uint64_t i = 0; i < 100; i++)
		table_put(&t, i * 0x9e3779b97f4a7c15ull, i);
	for (uint64_t i = 0; i < 100; i += 2)
		table_del(&t, i * 0x9e3779b97f4a7c15ull, i);
	for (uint64_t i = 0; i < 100; i++) {
		bool got = table_get(&t, i * 0x9e3779b97f4a7c15ull, &v);
		CU_ASSERT(got == (i % 2) && (!got || v == i));
	}
	CU_ASSERT_FALSE(table_full(&t));
	while (!table_full(&t))
		table_put(&t, t.n * 77777777777777ull, 1);
	CU_ASSERT(t.n <= t.mask); /* there is always a free slot */
	table_free(&t);
}

/* Less when nothing is found, more when the host is short of memory, and the rate itself when something is. */
static void test_rate(void)
{
	begin(10, 256);
	w.scan.rate = 8;
	CU_ASSERT_EQUAL(scan_share(&w.scan), 800);
	for (unsigned p = 0; p < PAGES; p++)
		write_page(&w.vm[0], p, 1000 + p);
	merge_all(3);
	CU_ASSERT(scan_share(&w.scan) < 800);
	merge_all(5);
	CU_ASSERT_EQUAL(scan_share(&w.scan), 100);
	w.scan.pressure = true;
	CU_ASSERT_EQUAL(scan_share(&w.scan), 3200);
	w.scan.pressure = false;
	for (unsigned p = 0; p < PAGES; p++)
		write_page(&w.vm[1], p, 1000 + p);
	merge_all(4);
	CU_ASSERT_EQUAL(w.vm[1].merge.n.sharing, PAGES);
	merge_all(1);
	check_all();
	w.scan.credit_ns = -1000;
	uint64_t before = w.vm[0].merge.n.scanned;
	w.scan.last_ns = 0;
	scan_work(&w.scan); /* what has been used up is waited for */
	CU_ASSERT_EQUAL(w.vm[0].merge.n.scanned, before);
	end();
}

CU_ErrorCode suite_merge(void)
{
	CU_pSuite s = CU_add_suite("merge", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_equal) || !CU_ADD_TEST(s, test_zero) || !CU_ADD_TEST(s, test_volatile) ||
	    !CU_ADD_TEST(s, test_writes_in_between) || !CU_ADD_TEST(s, test_collision) ||
	    !CU_ADD_TEST(s, test_pool_full) || !CU_ADD_TEST(s, test_balloon) || !CU_ADD_TEST(s, test_nonsense) ||
	    !CU_ADD_TEST(s, test_random) || !CU_ADD_TEST(s, test_threads) || !CU_ADD_TEST(s, test_table) ||
	    !CU_ADD_TEST(s, test_rate))
		return CU_get_error();
	return CUE_SUCCESS;
}
