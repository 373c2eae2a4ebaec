/* What a vcpu has of mmu/: soft TLBs, and what is known of what they hold (tlb.c, bank.c). */
#ifndef HVX_SOFT_TLB_H
#define HVX_SOFT_TLB_H

#include <stdint.h>

struct banks;
struct mmu_hook;

/* ---- soft TLB (mmu/tlb.c): three of them, chosen by privilege ---- */
#define GUEST_PAGE_SHIFT 12
#define GUEST_PAGE_MASK  0xfffull
#define TLB_BITS         14
#define TLB_SIZE         (1u << TLB_BITS)
#define TLB_FILLED       1024
enum {
	TLB_USER,
	TLB_KERN,
	TLB_KERN_AC,
	TLB_COUNT
}; /* KERN: supervisor pages only (SMAP on and
                                                        AC clear); KERN_AC: all pages */
struct soft_tlb {
	uint64_t rtag[TLB_SIZE]; /* page's gva, or TLB_INVALID */
	uint64_t wtag[TLB_SIZE];
	uint64_t radd[TLB_SIZE]; /* hva - gva of the page in rtag */
	uint64_t wadd[TLB_SIZE]; /* of the page in wtag: another one, maybe */
	uint32_t n_filled;       /* indices filled since the last flush; TLB_FILLED and more: too many to list */
	uint16_t filled[TLB_FILLED];
};
#define TLB_INVALID 0x8000000000000001ull /* equals no masked address */

/*
 * Hashed host pages that have had write tags here; others may ask.  When it has filled up, the other one is made of the tags that
 * there are and takes its place.
 */
#define WRITE_FILTER_BITS 16
#define WRITE_FILTER_FULL (1u << (WRITE_FILTER_BITS - 2))
struct write_filter {
	uint64_t bits[2][1 << (WRITE_FILTER_BITS - 6)];
	uint32_t n, now; /* bits set; which of the two */
};

struct mmu {
	struct banks *banks;            /* mmu/bank.c */
	const struct mmu_hook *hook;    /* mmu/mmu.h */
	uint16_t nonglobal[TLB_FILLED]; /* indices of TLB_KERN entries from non-global pages */
	uint32_t n_nonglobal;
	uint64_t large_filter[64]; /* hashed 2 MiB regions that something was made of large pages in */
	uint8_t have_1g;           /* entries from 1 GiB pages */
	uint8_t low_global;        /* global pages in the lower half of the address space */
	uint8_t moved; /* a page is elsewhere in the host's memory since: what a block keeps of it is out of date */
	struct write_filter writes;
	struct soft_tlb tlb[TLB_COUNT] __attribute__((aligned(4096)));
};

#endif
