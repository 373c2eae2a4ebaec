/* Soft TLBs of address spaces that are not the current one, by PCID: see bank.c.  Only for mmu/ and who makes a vcpu. */
#ifndef HVX_BANK_H
#define HVX_BANK_H

#include <stdbool.h>
#include <stdint.h>

struct vcpu;

#define BANKS 8 /* Linux uses six PCIDs */

/* 0 or -errno; without banks nothing is kept. */
int bank_create(struct vcpu *v);
void bank_destroy(struct vcpu *v);
/* What is live is @pcid's: keep it; it is to be flushed then.  The slot, or -1. */
int bank_save(struct vcpu *v, unsigned pcid);
/* After the flush: makes @pcid's live again.  The slot it came from, or -1 when nothing was kept. */
int bank_restore(struct vcpu *v, unsigned pcid);
void bank_drop_writes(struct vcpu *v, uint64_t hva); /* no entry stands for writes to this page any more */
void bank_each_write(struct vcpu *v, void (*fn)(struct vcpu *v, uint64_t hva)); /* the host pages of its write tags */
/* Nor any, to pages that @gone says yes to. */
void bank_drop_if(struct vcpu *v, bool (*gone)(const void *ctx, uint64_t hva), const void *ctx);

#endif
