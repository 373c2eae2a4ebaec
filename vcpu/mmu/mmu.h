/*
 * Guest paging: the page walk, guest-virtual reads and writes for helpers, and
 * what has to be flushed when.
 */
#ifndef HVX_MMU_H
#define HVX_MMU_H

#include <stddef.h>
#include <stdint.h>

#include "vcpu/vcpu.h"

enum {
	ACC_R = 1,
	ACC_W = 2,
	ACC_X = 4,
	ACC_USER = 8, /* the access counts as user (CPL 3) */
	ACC_SYS = 16  /* implicit supervisor access (descriptor tables, TSS): SMAP does apply unless AC... see
                       SDM 3A 4.6: implicit accesses ignore AC */
};

struct walk {               /* result of a walk that succeeded */
	uint64_t gpa;       /* of the byte asked for */
	uint64_t page_size; /* 4K, 2M, 4M, 1G */
	uint8_t writable;   /* a write with the same privilege would be allowed by the tables */
	uint8_t dirty;      /* D is set (or paging is off) */
	uint8_t user;       /* U/S of the whole path */
	uint8_t global;
	uint8_t nx;
};

/* The privilege bits (ACC_USER) of an explicit access made now. */
static inline unsigned mmu_acc(const struct vcpu *v, unsigned rw)
{
	return rw | (v->cpl == 3 ? ACC_USER : 0);
}

/*
 * mmu/walk.c.  Walks the guest's tables for linear address @gva (no segmentation; truncated to 32 bits by the caller
 * outside 64-bit code).  Sets A, and D for ACC_W, with locked operations.  Handles no paging, 32-bit (with PSE), PAE
 * and 4-level; NX, WP, SMEP, SMAP, reserved bits.  0, or -1 after raising #PF (or #GP(0) for a non-canonical address).
 * mmu_probe is the same without raising and without setting A/D: 0, or the #PF error code | 1 << 31.
 */
int mmu_walk(struct vcpu *v, uint64_t gva, unsigned acc, struct walk *w);
uint32_t mmu_probe(struct vcpu *v, uint64_t gva, unsigned acc, struct walk *w);

/* Reads / writes guest linear memory for a helper, RAM or MMIO, across pages (a write checks both pages before it
 * changes anything).  Writes go through the code-page check.  0, or -1 after raising. */
int mmu_read(struct vcpu *v, uint64_t gva, void *buf, size_t len, unsigned acc);
int mmu_write(struct vcpu *v, uint64_t gva, const void *buf, size_t len, unsigned acc);

/* Physical reads and writes, RAM or MMIO. */
void phys_read(struct vcpu *v, uint64_t gpa, void *buf, size_t len);
void phys_write(struct vcpu *v, uint64_t gpa, const void *buf, size_t len);
/* What phys_write does after a write to one page of RAM made through a pointer: dirty bitmap, code_written(). */
void phys_written(struct vcpu *v, uint64_t gpa, size_t len);

/* ---- flushing (mmu/tlb.c): soft TLBs, jump caches, branch cells, fetch cache ---- */
void tlb_flush_all(struct vcpu *v);       /* global entries too: CR0.PG/WP, CR4.PGE/PAE/SMEP/..., EFER.NXE */
void tlb_flush_nonglobal(struct vcpu *v); /* CR3 load without PCIDs */
/* CR3 load from one PCID to another or the same; @flush: what is kept of @to is not to be used (CR3 bit 63 clear). */
void tlb_switch(struct vcpu *v, unsigned from, unsigned to, bool flush);
void bank_forget(struct vcpu *v, unsigned pcid); /* what is kept of an address space that is not the current one */
void bank_forget_all(struct vcpu *v);
void tlb_flush_branches(struct vcpu *v);           /* only jump caches and cells: another base or limit for code */
void tlb_flush_page(struct vcpu *v, uint64_t gva); /* invlpg */

/* Must be called by everything in this process that writes guest RAM other than through the soft TLB, after
 * the write: drops translations made from the bytes. (mmu/codepage.c) */
void code_written(struct vcpu *v, uint64_t gpa, size_t len);

#endif
