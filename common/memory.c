/*
 * Mapping guest memory.  Invariant: the memfds are sealed against shrinking
 * before they are mapped, so that no access to RAM can raise SIGBUS.
 */
#include "common/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "proto/shm.h"

/* Its size, which is at least @size and at most @more above it. */
static int check_fd(int fd, uint64_t size, uint64_t more, uint64_t *got)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || fstat(fd, &st) < 0)
		return -errno;
	*got = (uint64_t)st.st_size;
	return (seals & F_SEAL_SHRINK) && *got - size <= more && !(*got % SHM_PAGE) ? 0 : -EPROTO;
}

static int check_header(const struct shm_header *h, uint64_t size)
{
	return h->magic == SHM_MAGIC && h->version == SHM_VERSION && h->header_size == sizeof *h && h->ram_size == size
		       ? 0
		       : -EPROTO;
}

/* To be read only: this descriptor allows nothing else. */
static int map_pool(struct gmem *g, int fd)
{
	struct stat st;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	uint64_t got;
	int rc = check_fd(fd, (uint64_t)st.st_size, 0, &got);
	if (rc)
		return rc;
	const uint8_t *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	g->pool = p;
	g->pool_size = (uint64_t)st.st_size;
	return 0;
}

int memory_map(struct gmem *g, int ram_fd, int control_fd, int pool_fd, uint64_t size)
{
	uint64_t all = 0, control;
	int rc = check_fd(ram_fd, size, SHM_MAX_ROM, &all);
	struct shm_layout l = shm_layout(all);

	if (!rc)
		rc = check_fd(control_fd, l.total, 0, &control);
	if (rc)
		return rc;
	uint8_t *ram = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram_fd, 0);
	uint8_t *ctl = mmap(NULL, l.total, PROT_READ | PROT_WRITE, MAP_SHARED, control_fd, 0);
	if (ram == MAP_FAILED || ctl == MAP_FAILED)
		return -ENOMEM;
	rc = check_header((const struct shm_header *)(const void *)ctl, all);
	if (rc)
		return rc;
	memset(g, 0, sizeof *g);
	g->ram = ram;
	g->size = size;
	g->rom_size = all - size;
	g->low = size < GMEM_LOW_MAX ? size : GMEM_LOW_MAX;
	g->p2m = (uint64_t *)(void *)(ctl + l.p2m);
	g->code_bm = (uint64_t *)(void *)(ctl + l.code);
	g->dirty_bm = (uint64_t *)(void *)(ctl + l.dirty);
	g->held_bm = (uint64_t *)(void *)(ctl + l.held);
	g->epochs = (struct shm_epochs *)(void *)(ctl + l.epochs);
	return map_pool(g, pool_fd);
}

#define HUGE_PAGE (2ull << 20)

/* What is mapped for @size bytes: whole huge pages, so that none of them lies on small ones. */
static size_t anon_size(size_t size)
{
	return size < HUGE_PAGE ? size : (size + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

void memory_anon_free(void *p, size_t size)
{
	if (p)
		munmap(p, anon_size(size));
}

void *memory_anon(size_t size)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uint8_t *p, *aligned;

	if (size < HUGE_PAGE) {
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
		return p == MAP_FAILED ? NULL : p;
	}
	size = anon_size(size);
	p = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	aligned = (uint8_t *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
	if (aligned > p)
		munmap(p, (size_t)(aligned - p));
	munmap(aligned + size, HUGE_PAGE - (size_t)(aligned - p));
	madvise(aligned, size, MADV_HUGEPAGE);
	return aligned;
}
