/*
 * The pool of a merge group: pages that several guest pages are.  See pool.c.
 */
#ifndef HVX_MEMSVC_POOL_H
#define HVX_MEMSVC_POOL_H

#include <stdint.h>

#include "memsvc/table.h"
#include "proto/shm.h"

#define POOL_NONE UINT32_MAX
#define POOL_ZERO 0u /* the page of zeros: always there */

struct pool {
	int fd; /* to be written; nobody else has such a descriptor */
	uint8_t *mem;
	uint32_t capacity, top; /* pages; those from @top on were never used */
	uint32_t free;          /* the first of a list by @next, or POOL_NONE */
	uint32_t live;          /* pages in use, but for that of zeros */
	uint32_t *refs, *next;
	uint64_t *hash;
	struct table by_hash;
	uint64_t key[4]; /* of the hash */
};

/* Takes @fd, a memfd of whole pages, over; under the set-up filter.  0 or a negative error. */
int pool_init(struct pool *p, int fd);
void pool_free(struct pool *p);

/* Of a page's bytes; another function in each process. */
uint64_t pool_hash(const struct pool *p, const uint8_t *page);
/* A page that may have this hash, or POOL_NONE. */
uint32_t pool_find(const struct pool *p, uint64_t hash);
/* A new page with these bytes and no reference yet; POOL_NONE: there is no room. */
uint32_t pool_new(struct pool *p, uint64_t hash, const uint8_t *bytes);
static inline const uint8_t *pool_page(const struct pool *p, uint32_t page)
{
	return p->mem + (uint64_t)page * SHM_PAGE;
}
void pool_ref(struct pool *p, uint32_t page);
/* The last one gives the page back to the host: nobody may read it any more. */
void pool_unref(struct pool *p, uint32_t page);
/* The same for a page that never had one. */
void pool_drop_unused(struct pool *p, uint32_t page);

#endif
