/*
 * What the first write to a merged page costs the writer, in nanoseconds: the resolver's compare-and-exchange, the copy, and the memory
 * that the page's own place takes again.  Beside it, the first touch of an empty page, which costs the latter alone.
 *
 * Invariant: every write that counts is the first to a page that was merged by hvx-memsvc's own code.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/gmem.h"
#include "common/memory.h"
#include "memsvc/merge.h"

#define PAGES 16384u
#define KINDS 64u

static uint64_t took[PAGES];

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void check(int failed, const char *what)
{
	if (!failed)
		return;
	fprintf(stderr, "unmerge: %s\n", what);
	exit(1);
}

static int by_size(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void tell(const char *what)
{
	qsort(took, PAGES, sizeof took[0], by_size);
	printf("%-24s median %6llu ns   90 %% %6llu ns   99 %% %6llu ns\n", what, (unsigned long long)took[PAGES / 2],
	       (unsigned long long)took[PAGES * 9 / 10], (unsigned long long)took[PAGES * 99 / 100]);
}

static void write_all(struct gmem *g)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t from = now();
		*gmem_frame_ptr(g, i, GMEM_READ | GMEM_WRITE) = (uint8_t)i;
		took[i] = now() - from;
	}
}

static void merge_all(struct merge *m, struct pool *p, struct gmem *g)
{
	for (unsigned i = 0; i < PAGES;) {
		for (; i < PAGES && merge_wish(m, i, pool_hash(p, g->ram + (uint64_t)i * SHM_PAGE)); i++)
			;
		check(!merge_begin(m), "no batch");
		while (m->state != MERGE_QUIET)
			merge_go_on(m);
	}
	check(m->n.sharing != PAGES, "not all pages were merged");
}

int main(void)
{
	int fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	static struct merge m;
	static struct pool p;
	static struct ram r;
	static struct gmem g;

	check(fd < 0 || ftruncate(fd, (off_t)PAGES * SHM_PAGE) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), "pool");
	check(pool_init(&p, fd) || ram_create(&r, (uint64_t)PAGES * SHM_PAGE) || merge_init(&m, &r, &p), "memory");
	check(memory_map(&g, r.ram_fd, r.control_fd, fd, (uint64_t)PAGES * SHM_PAGE), "mapping");
	write_all(&g);
	tell("an empty page");
	for (unsigned i = 0; i < PAGES; i++)
		memset(g.ram + (uint64_t)i * SHM_PAGE, (int)(1 + i % KINDS), SHM_PAGE);
	merge_all(&m, &p, &g);
	write_all(&g);
	tell("a merged page");
	for (unsigned i = 0; i < PAGES; i++)
		check(g.ram[(uint64_t)i * SHM_PAGE + 1] != (uint8_t)(1 + i % KINDS), "a page has other bytes");
	return 0;
}
