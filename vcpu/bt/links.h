/* What a vcpu has of bt/: its ways from guest addresses to translated code (branches.c, jumpcache.c, link.c, lookup.c). */
#ifndef HVX_LINKS_H
#define HVX_LINKS_H

#include <stdint.h>

#include "vcpu/mmu/soft_tlb.h"

struct bt_space;

/* ---- jump caches: indirect branches; a table by mode_jc(), its entries of one mode: see key.h ---- */
#define JC_USER32 TLB_COUNT /* after one for each soft TLB */
#define JC_CODE16 (JC_USER32 + 1)
#define JC_NOFPU  (JC_CODE16 + 1)
#define JC_COUNT  (2 * JC_NOFPU) /* the same again with MODE_NOFPU */
#define JC_UNUSED 0xffffffffu    /* in jc_mode[]: the table has never been used, its tags are not valid */
#define JC_BITS   14
#define JC_SIZE   (1u << JC_BITS)
#define JC_FACTOR 0x9e3779b1u
static inline unsigned jc_index(uint64_t gva)
{
	return ((uint32_t)gva * JC_FACTOR) >> (32 - JC_BITS);
}
#define JC_FILLED 4096
struct jump_cache {
	struct {
		uint64_t tag;  /* gva of the target, JC_INVALID */
		uint64_t host; /* indirect entry of its block */
	} e[JC_SIZE];
	uint32_t n_filled; /* as in soft_tlb */
	uint16_t filled[JC_FILLED];
};
#define JC_INVALID 0x8000000000000001ull

#define FETCH_SIZE        512
#define FETCH_FILTER_BITS 14
#define CELL_COUNT        (1u << 17)

struct links {
	/* instruction fetch: page translations by user and supervisor */
	struct fetch_entry {
		uint64_t tag, gpa;
		uint64_t age; /* valid while fetch_age[global] is the same: flushes count on */
		uint32_t gen; /* bt.place_gen when its place was noted */
		uint8_t global;
	} fetch[2][FETCH_SIZE];
	uint64_t fetch_age[2], fetch_ages; /* of entries that hold: not global, global; the last one given out */
	uint64_t code_filter[2][1 << (FETCH_FILTER_BITS - 6)]; /* hashed pages that code was fetched from: upper half or
								   global, the rest */
	uint32_t jc_mode[JC_COUNT];                            /* of each jump cache's entries */
	struct bt_space *spaces;                               /* what is kept by PCID */
	uint32_t code_limit;                                   /* of the last code segment under MODE_SLOWMEM */
	uint64_t code_base;                                    /* likewise */
	uint8_t fetch_global;                                  /* all pages of the block found last are global */
	uint8_t jc_nonglobal; /* supervisor jump caches hold targets in non-global pages */
	struct jump_cache jc[JC_COUNT] __attribute__((aligned(4096)));
	uint64_t cells[CELL_COUNT]; /* host targets of direct branches across pages (link.c) */
};

#endif
