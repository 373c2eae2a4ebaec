/*
 * Guest paging: the page walk, guest-virtual reads and writes for helpers, and
 * what has to be flushed when.
 */
#ifndef HVX_MMU_H
#define HVX_MMU_H

#include <stddef.h>
#include <stdint.h>

#include "vcpu/cpu/mode.h"
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
	uint8_t accessed; /* A is set in all entries (or paging is off) */
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

/*
 * What mmu/ announces to those who keep things made of guest mappings or of guest bytes; vcpu.hook, set before
 * tlb_init().
 *   gone    mappings have gone: everything; what is not global; one page or the 2^shift bytes around it; the address
 *           space changes: what was made of it may be kept in slot @kept, what slot @back holds is good again (-1: none)
 *   stored  @len bytes were or will be stored to RAM @frame at @off, within the page: was anything made of them?  With
 *           no length: is anything made of the page?
 */
enum mmu_gone_kind { GONE_ALL, GONE_NONGLOBAL, GONE_SWITCH, GONE_PAGE };
struct mmu_gone {
	enum mmu_gone_kind kind;
	uint64_t gva; /* PAGE */
	unsigned shift;
	int kept, back; /* SWITCH */
};
enum {
	STORED_DATA,
	STORED_BESIDE,
	STORED_CODE
}; /* no code on the page; other bytes of it; these: it has been dropped */
struct mmu_hook {
	void (*gone)(struct vcpu *v, const struct mmu_gone *g);
	int (*stored)(struct vcpu *v, uint64_t frame, unsigned off, unsigned len);
};

/* ---- soft TLB (mmu/tlb.c) ---- */
void tlb_init(struct vcpu *v);
/*
 * Translates an access of @size bytes that stays within its page.  TLB_FILLED_IN: v->mem_addend is set; TLB_NO_RAM;
 * TLB_STORED: the store dropped translations (and is allowed: v->mem_addend is set); TLB_RAISED.
 */
enum { TLB_RAISED = -1, TLB_FILLED_IN, TLB_NO_RAM, TLB_STORED };
int tlb_fill(struct vcpu *v, uint64_t gva, unsigned size, unsigned acc);
/* Reads guest memory for a helper like mmu_read(), leaving the page in the soft TLB.  0, or -1 after raising. */
int tlb_read(struct vcpu *v, uint64_t lin, void *buf, unsigned len);
void tlb_drop_writes(struct vcpu *v, uint64_t frame); /* a page got code: its write tags must miss */
/* May @v's soft TLB have a write tag for RAM @frame, or be about to get one that has not looked for code yet?  Any thread, after
 * it has marked the page in the code bitmap. */
bool tlb_may_write(const struct vcpu *v, uint64_t frame);
void tlb_note_filled(struct soft_tlb *t, unsigned i);                  /* before entry @i is set */
void tlb_note_global(struct vcpu *v, uint64_t gva);                    /* something is made of a global mapping of it */
void tlb_note_large(struct vcpu *v, uint64_t gva, uint64_t page_size); /* of a page of this size */

/* Host address of @lin, good for its page, when an access of kind ACC_R or ACC_W to it hits the live soft TLB; else NULL. */
static inline uint8_t *tlb_hit(const struct vcpu *v, uint64_t lin, unsigned acc)
{
	const struct soft_tlb *t = &v->tlb[mode_tlb(v->mode)];
	unsigned i = lin >> GUEST_PAGE_SHIFT & (TLB_SIZE - 1);

	if ((acc & ACC_W ? t->wtag[i] : t->rtag[i]) != (lin & ~GUEST_PAGE_MASK))
		return NULL;
	return (uint8_t *)(uintptr_t)(lin + (acc & ACC_W ? t->wadd[i] : t->radd[i]));
}

/*
 * ---- pages that change their place in the host's memory (mmu/withdraw.c), on @v's thread ----
 * mmu_withdraw: nothing that is kept leads to RAM of these frames, nor, with @pool, to any merged page; at a block boundary.
 * mmu_moved: page @frame was read at @from and no longer is: it has just been un-merged here, maybe in the middle of a block; @v->moved
 * tells whether the rest of the block may still lead there.
 * mmu_let_go: others have written @frame: nothing leads to where it may have been merged.
 */
struct frame_set {
	uint64_t *bits; /* one a page of RAM */
	uint64_t pages;
};
void mmu_withdraw(struct vcpu *v, const struct frame_set *set, bool pool);
void mmu_moved(struct vcpu *v, uint64_t frame, const uint8_t *from);
void mmu_let_go(struct vcpu *v, uint64_t frame);

/* ---- flushing: soft TLBs, and what others keep ---- */
void tlb_flush_all(struct vcpu *v);       /* global entries too: CR0.PG/WP, CR4.PGE/PAE/SMEP/..., EFER.NXE */
void tlb_flush_nonglobal(struct vcpu *v); /* CR3 load without PCIDs */
/* CR3 load from one PCID to another or the same; @flush: what is kept of @to is not to be used (CR3 bit 63 clear). */
void tlb_switch(struct vcpu *v, unsigned from, unsigned to, bool flush);
void bank_forget(struct vcpu *v, unsigned pcid); /* what is kept of an address space that is not the current one */
void bank_forget_all(struct vcpu *v);
void tlb_flush_page(struct vcpu *v, uint64_t gva); /* invlpg */

void mmu_set_a20(struct vcpu *v,
		 bool on); /* address line 20: masked, physical addresses lose bit 20; of this CPU (world.h) */

/* Must be called by everything in this process that writes guest RAM other than through the soft TLB, after
 * the write: drops translations made from the bytes. (mmu/walk.c) */
void code_written(struct vcpu *v, uint64_t gpa, size_t len);

#endif
