/*
 * memsvc/grace and gmem_enter(): old pointers are waited for, new ones are not, and who never leaves does not hold up the rest.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/gmem.h"
#include "memsvc/grace.h"

#define PAGES 4u

static struct {
	struct shm_epochs shm;
	struct grace g;
	struct gmem mem;
	uint64_t p2m[PAGES];
	uint8_t ram[PAGES * SHM_PAGE] __attribute__((aligned(4096)));
	_Atomic bool stop;
	_Atomic unsigned bad, turns;
} w;

static void begin(void)
{
	memset(&w, 0, sizeof w);
	grace_init(&w.g, &w.shm);
	w.mem = (struct gmem){.ram = w.ram, .size = sizeof w.ram, .low = sizeof w.ram, .p2m = w.p2m, .epochs = &w.shm};
}

static void test_waits(void)
{
	begin();
	grace_begin(&w.g);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_OVER); /* nobody is in */
	for (unsigned slot = 0; slot < SHM_SLOTS; slot += SHM_SLOTS - 1) {
		unsigned a = gmem_enter(&w.mem, slot);
		grace_begin(&w.g);
		CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
		unsigned b = gmem_enter(&w.mem, 3); /* after the turn: it sees what was withdrawn */
		CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
		gmem_leave(&w.mem, slot, a);
		CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_OVER);
		grace_begin(&w.g); /* but for the next one it is old */
		CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
		gmem_leave(&w.mem, 3, b);
		CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_OVER);
	}
}

/* A batch, and within it a request that outlives it. */
static void test_nested(void)
{
	begin();
	unsigned batch = gmem_enter(&w.mem, 40), request = gmem_enter(&w.mem, 40);
	grace_begin(&w.g);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
	gmem_leave(&w.mem, 40, batch);
	batch = gmem_enter(&w.mem, 40);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
	gmem_leave(&w.mem, 40, request);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_OVER);
	gmem_leave(&w.mem, 40, batch);
}

/* Who read @now before a turn and counted itself after it is under the parity that the turn has left. */
static void test_slow_reader(void)
{
	begin();
	atomic_store(&w.shm.slot[5].held[1], 1);
	grace_begin(&w.g);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
	CU_ASSERT_EQUAL(atomic_load(&w.shm.now), 0u); /* not before it is out */
	atomic_store(&w.shm.slot[5].held[1], 0);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_OVER);
	CU_ASSERT_EQUAL(atomic_load(&w.shm.now), 1u);
}

static void test_deadline(void)
{
	begin();
	unsigned stuck = gmem_enter(&w.mem, 33), good = gmem_enter(&w.mem, 34);
	grace_begin(&w.g);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
	gmem_leave(&w.mem, 34, good);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT);
	CU_ASSERT_EQUAL(grace_give_up(&w.g), GRACE_LATE);
	grace_begin(&w.g);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_LATE); /* not waited for again, */
	good = gmem_enter(&w.mem, 34);
	grace_begin(&w.g);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_WAIT); /* the others are */
	gmem_leave(&w.mem, 34, good);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_LATE);
	gmem_leave(&w.mem, 33, stuck);
	grace_begin(&w.g);
	CU_ASSERT_EQUAL(grace_look(&w.g), GRACE_OVER);
}

/* The whole region is somebody's who wants memsvc to hang. */
static void test_garbage(void)
{
	begin();
	memset(&w.shm, 0xff, sizeof w.shm);
	for (unsigned i = 0; i < 5; i++) {
		grace_begin(&w.g);
		if (grace_look(&w.g) == GRACE_WAIT)
			CU_ASSERT_EQUAL(grace_give_up(&w.g), GRACE_LATE);
		memset(w.shm.slot, i & 1 ? 0xff : 0, sizeof w.shm.slot);
	}
	CU_ASSERT_EQUAL(atomic_load(&w.shm.now), w.g.now); /* its own count, whatever was written there */
}

static void test_join(void)
{
	bool seen[SHM_SLOTS] = {false};

	begin();
	for (unsigned i = SHM_SLOT_DEVICE; i < SHM_SLOTS; i++) {
		int slot = gmem_join(&w.mem);
		CU_ASSERT_FATAL(slot >= (int)SHM_SLOT_DEVICE && slot < (int)SHM_SLOTS && !seen[slot]);
		seen[slot] = true;
	}
	CU_ASSERT_EQUAL(gmem_join(&w.mem), -ENOSPC);
}

/*
 * Requests in flight against pages that are taken away: frame 0 lies on one of two pages; it is redirected to the other, and
 * after a grace period the old one is spoilt (memsvc would punch it).  No request may see that.
 */
#define GOOD    0x5a
#define SPOILT  0xee
#define READERS 3u

static void *requests(void *ctx)
{
	unsigned slot = SHM_SLOT_DEVICE + (unsigned)(uintptr_t)ctx, bad = 0, n = 0;

	for (; !atomic_load(&w.stop); n++) {
		unsigned in = gmem_enter(&w.mem, slot);
		const volatile uint8_t *p = gmem_frame_ptr(&w.mem, 0, GMEM_READ);
		for (unsigned i = 0; i < 40; i++)
			bad += p[i * 64] != GOOD;
		if (n % 64 == 0)
			sched_yield(); /* in flight while others run */
		bad += p[n % SHM_PAGE] != GOOD;
		gmem_leave(&w.mem, slot, in);
	}
	atomic_fetch_add(&w.bad, bad);
	atomic_fetch_add(&w.turns, n);
	return NULL;
}

static void test_stress(void)
{
	pthread_t th[READERS];

	begin();
	memset(w.ram, GOOD, SHM_PAGE);
	memset(w.ram + SHM_PAGE, SPOILT, SHM_PAGE);
	for (uintptr_t i = 0; i < READERS; i++)
		CU_ASSERT_FATAL(!pthread_create(&th[i], NULL, requests, (void *)i));
	for (unsigned turn = 0; turn < 20000; turn++) {
		unsigned to = (turn + 1) & 1;
		memset(w.ram + to * SHM_PAGE, GOOD, SHM_PAGE);
		__atomic_store_n(&w.p2m[0], to * SHM_PAGE, __ATOMIC_SEQ_CST);
		grace_begin(&w.g);
		while (grace_look(&w.g) != GRACE_OVER)
			sched_yield();
		memset(w.ram + (to ^ 1) * SHM_PAGE, SPOILT, SHM_PAGE);
	}
	atomic_store(&w.stop, true);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(th[i], NULL);
	CU_ASSERT_EQUAL(atomic_load(&w.bad), 0u);
	CU_ASSERT_TRUE(atomic_load(&w.turns) > READERS);
}

CU_ErrorCode suite_grace(void)
{
	CU_pSuite s = CU_add_suite("grace", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_waits) || !CU_ADD_TEST(s, test_nested) || !CU_ADD_TEST(s, test_slow_reader) ||
	    !CU_ADD_TEST(s, test_deadline) || !CU_ADD_TEST(s, test_garbage) || !CU_ADD_TEST(s, test_join) ||
	    !CU_ADD_TEST(s, test_stress))
		return CU_get_error();
	return CUE_SUCCESS;
}
