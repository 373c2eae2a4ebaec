/*
 * The pool.  VM processes hold a descriptor of it that was opened for reading: the kernel lets nobody write, punch or seal through
 * that one (a seal against future writing would stop our own punching, too).
 *
 * Invariant: the bytes of a page with a reference do not change.
 */
#include "memsvc/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

int pool_init(struct pool *p, int fd)
{
	struct stat st;

	*p = (struct pool){.fd = fd, .free = POOL_NONE, .top = 1};
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)SHM_PAGE || st.st_size / SHM_PAGE >= POOL_NONE)
		return -EINVAL;
	p->capacity = (uint32_t)(st.st_size / SHM_PAGE);
	p->mem = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (p->mem == MAP_FAILED)
		return -ENOMEM;
	p->refs = calloc(p->capacity, sizeof *p->refs);
	p->next = calloc(p->capacity, sizeof *p->next);
	p->hash = calloc(p->capacity, sizeof *p->hash);
	if (!p->refs || !p->next || !p->hash)
		return -ENOMEM;
	if (getrandom(p->key, sizeof p->key, 0) != sizeof p->key)
		return -EIO;
	memset(p->mem, 0, SHM_PAGE); /* it is there, and stays */
	return table_reset(&p->by_hash, 1024);
}

void pool_free(struct pool *p)
{
	if (p->mem && p->mem != MAP_FAILED)
		munmap(p->mem, (size_t)p->capacity * SHM_PAGE);
	free(p->refs);
	free(p->next);
	free(p->hash);
	table_free(&p->by_hash);
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

/* ---- hash ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Four lanes of multiplications, under a key that no guest knows: to find pages that collide, one has to guess. */
uint64_t pool_hash(const struct pool *p, const uint8_t *page)
{
	uint64_t lane[4], w[8];

	memcpy(lane, p->key, sizeof lane);
	for (unsigned at = 0; at < SHM_PAGE; at += sizeof w) {
		memcpy(w, page + at, sizeof w);
		for (unsigned k = 0; k < 4; k++)
			lane[k] = mix(w[2 * k] ^ p->key[k], w[2 * k + 1] ^ lane[k]);
	}
	return mix(mix(lane[0] ^ p->key[1], lane[1] ^ p->key[2]) ^ p->key[3],
		   mix(lane[2] ^ p->key[0], lane[3] ^ p->key[3]) ^ p->key[2]);
}

/* ---- pages ---- */

uint32_t pool_find(const struct pool *p, uint64_t hash)
{
	uint64_t page;

	return table_get(&p->by_hash, hash, &page) && p->hash[page] == hash ? (uint32_t)page : POOL_NONE;
}

/* Twice as large, and without what was emptied. */
static int rebuild(struct pool *p)
{
	int rc = table_reset(&p->by_hash, 2ull * p->live + 1024);

	for (uint32_t i = 1; i < p->top && !rc; i++)
		if (p->refs[i])
			table_put(&p->by_hash, p->hash[i], i);
	return rc;
}

uint32_t pool_new(struct pool *p, uint64_t hash, const uint8_t *bytes)
{
	uint32_t page = p->free;

	if (table_full(&p->by_hash) && rebuild(p))
		return POOL_NONE;
	if (page != POOL_NONE)
		p->free = p->next[page];
	else if (p->top < p->capacity)
		page = p->top++;
	else
		return POOL_NONE;
	memcpy(p->mem + (uint64_t)page * SHM_PAGE, bytes, SHM_PAGE);
	p->hash[page] = hash;
	p->refs[page] = 0;
	p->live++;
	table_put(&p->by_hash, hash, page);
	return page;
}

void pool_ref(struct pool *p, uint32_t page)
{
	p->refs[page]++;
}

/* What cannot be punched is memory that the host misses, and nothing else. */
static void give_back(struct pool *p, uint32_t page)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	while (fallocate(p->fd, mode, (off_t)page * SHM_PAGE, SHM_PAGE) < 0 && errno == EINTR)
		;
	table_del(&p->by_hash, p->hash[page], page);
	p->next[page] = p->free;
	p->free = page;
	p->live--;
}

void pool_unref(struct pool *p, uint32_t page)
{
	if (!--p->refs[page] && page != POOL_ZERO)
		give_back(p, page);
}

void pool_drop_unused(struct pool *p, uint32_t page)
{
	if (!p->refs[page] && page != POOL_ZERO)
		give_back(p, page);
}
