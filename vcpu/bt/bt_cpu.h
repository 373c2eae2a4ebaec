/*
 * What a vcpu has of bt/ for itself: its ways from guest addresses to translated code (branches.c, jumpcache.c, link.c,
 * lookup.c, codepage.c).  Written by the vcpu's thread, or by who holds the vcpu at a boundary (world.h), but for the cells of
 * a block that is not yet published.
 */
#ifndef HVX_BT_CPU_H
#define HVX_BT_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/mmu/soft_tlb.h"

struct bt_space;

/* ---- jump caches: indirect branches; a table by mode_jc(), its entries of one mode: see key.h ---- */
#define JC_USER32 TLB_COUNT /* after one for each soft TLB */
#define JC_CODE16 (JC_USER32 + 1)
#define JC_NOFPU  (JC_CODE16 + 1)
#define JC_COUNT  (2 * JC_NOFPU) /* the same again with MODE_NOFPU */
#define JC_UNUSED 0xffffffffu    /* in jc_mode[]: the table has never been used, its tags are not valid */
#define JC_BITS   15
#define JC_SIZE   (1u << JC_BITS)
#define JC_FACTOR 0x9e3779b1u
static inline unsigned jc_index(uint64_t gva)
{
	return ((uint32_t)gva * JC_FACTOR) >> (32 - JC_BITS);
}
#define JC_FILLED 16384
struct jump_cache {
	struct {
		uint64_t tag;  /* gva of the target, jc_invalid() */
		uint64_t host; /* indirect entry of its block */
	} e[JC_SIZE];
	uint32_t n_filled; /* as in soft_tlb */
	uint16_t filled[JC_FILLED];
};
#define JC_INVALID 0x8000000000000001ull

/* The tag of an entry without a target: an address that is looked for elsewhere, as guests may branch to any. */
static inline uint64_t jc_invalid(unsigned i)
{
	return i == jc_index(JC_INVALID) ? JC_INVALID - 1 : JC_INVALID;
}

#define FETCH_SIZE        512
#define FETCH_FILTER_BITS 14
#define CELL_COUNT        (1u << 17)
#define BT_MAX_BLOCKS     (3u << 16)
#define BT_MAX_PAGES      (1u << 16)

#define BT_SPACES 8 /* BANKS of mmu/bank.h */

struct bt_cpu {
	/* instruction fetch: page translations by user and supervisor */
	struct fetch_entry {
		uint64_t tag, gpa;
		uint64_t age; /* valid while fetch_age[global] is the same: flushes count on */
		uint32_t gen; /* place_gen() when its place was noted */
		uint8_t global;
	} fetch[2][FETCH_SIZE];
	uint64_t fetch_age[2], fetch_ages; /* of entries that hold: not global, global; the last one given out */
	uint64_t code_filter[2][1 << (FETCH_FILTER_BITS - 6)]; /* hashed pages that code was fetched from: upper half or
								   global, the rest */
	uint32_t jc_mode[JC_COUNT];                            /* of each jump cache's entries */
	struct bt_space *space[BT_SPACES];                     /* what is kept by PCID */
	uint32_t code_limit;                                   /* of the last code segment under MODE_SLOWMEM */
	uint64_t code_base;                                    /* likewise */
	uint8_t fetch_global;                                  /* all pages of the block found last are global */
	uint8_t jc_nonglobal; /* supervisor jump caches hold targets in non-global pages */
	struct jump_cache jc[JC_COUNT] __attribute__((aligned(4096)));
	uint64_t cells[CELL_COUNT];                          /* host targets of direct branches across pages (link.c) */
	uint32_t cell_to[CELL_COUNT], cell_next[CELL_COUNT]; /* block + 1 in whose list the cell is; the next one + 1 */
	uint32_t cell_in[BT_MAX_BLOCKS];                     /* of each block: the first cell that leads to it + 1 */
	uint8_t cell_active[CELL_COUNT];                     /* it is in one of the lists below */
	uint32_t active_user[CELL_COUNT], n_active_user, active_kern[CELL_COUNT], n_active_kern;
	bool cells_brought_back;                 /* some may lead to blocks that do not list them */
	uint32_t cell_epoch;                     /* counts resets of user code's cells */
	uint32_t place_count;                    /* part of place_gen() */
	uint32_t placed[BT_MAX_PAGES], n_placed; /* code pages whose place is known in this epoch */
	struct code_place {                      /* of each code page */
		uint64_t at;                     /* user code: its first address */
		uint32_t epoch;                  /* in which that and the next hold */
		bool aliased;                    /* user code: at two addresses at least */
	} place[BT_MAX_PAGES];
	uint32_t pauses;  /* since the thread gave way last (kick_pause()) */
	uint32_t copy_of; /* block + 1 that was copied last to be stopped in */
	/* A store that this CPU is about to make to a page with code, after it has dropped what was made of the bytes: who
	 * translates them waits until it is at a boundary.  Frame + 1, or 0; the 64-byte parts.  Written under the lock of
	 * struct bt, or by who holds the vcpu. */
	uint64_t storing_frame, storing_parts;
};

#endif
