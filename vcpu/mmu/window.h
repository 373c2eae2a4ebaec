/*
 * A window: guest-virtual pages of one privilege at a constant distance from their own addresses, in the vcpu process, so that
 * an access is the guest's own instruction with a segment prefix.  See window.c.
 */
#ifndef HVX_WINDOW_H
#define HVX_WINDOW_H

#include <stdint.h>

#include "vcpu/mmu/mmu.h"

/*
 * The guest kernel's: 0xffff8800_00000000 and up lands on host address 0 and up.  What lies above the window in the host's
 * address space is the engine, whose programs are linked there, and what the low half of the guest's lands on: WINDOW_CLEAR and
 * below is kept free of mappings, so that small addresses fault.
 */
#define WINDOW_KERNEL_DELTA 0x780000000000ull
#define WINDOW_KERNEL_FIRST 0xffff880000010000ull
#define WINDOW_KERNEL_LAST  0xffffffffffffefffull
#define WINDOW_CLEAR        0x7b0000000000ull
#define WINDOW_KERNEL_MODE  (MODE_CPL0 | TLB_KERN << MODE_TLB_SHIFT)

struct window_config {
	uint64_t delta;       /* host address - guest address, modulo 2^64 */
	uint64_t first, last; /* guest pages that may be in it: of the first byte of each */
	uint32_t mode;        /* of the code that uses it, of WINDOW_MODES */
	int ram_fd;           /* the memfd that gmem.ram maps; stays the caller's */
};
#define WINDOW_MODES \
	(MODE_USER | 3u << MODE_TLB_SHIFT | MODE_CS32 | MODE_CS16 | MODE_REAL | MODE_CPL0 | MODE_SLOWMEM | MODE_ADDED)

struct window;

/* Is nothing mapped where the kernel's window has to be?  0, -EEXIST when something is, or another error of mmap(). */
int window_place_free(void);

/* 0 or -errno.  The VM's RAM must be mapped.  window_destroy() unmaps what is in it. */
int window_create(struct window **out, const struct gmem *g, const struct window_config *c);
void window_destroy(struct window *w);
uint64_t window_delta(const struct window *w);
uint32_t window_mode(const struct window *w);
/* Bytes that may be mapped in the window of a VM with @ram bytes of memory, and of tables for it. */
uint64_t window_space(uint64_t ram);
uint64_t window_tables(uint64_t ram);

/*
 * An access of @v to @gva, ACC_R or ACC_W, has faulted: maps the page, and neighbours that lie beside it in RAM too.
 *   FILLED   it can be done now
 *   THERE    it could have been: the page has come meanwhile, or the fault has another reason
 *   RAISED   the guest's tables forbid it: the exception is recorded
 *   CODE     a store to a page with translated code, RAM @frame
 *   NOT      no page that can be in the window: outside of it, no RAM, too many mappings
 */
enum window_fill { WINDOW_FILLED, WINDOW_THERE, WINDOW_RAISED, WINDOW_CODE, WINDOW_NOT };
enum window_fill window_fill(struct vcpu *v, uint64_t gva, unsigned acc, uint64_t *frame);

/* Flushes, by mmu/: what the guest's tables (as @v has them) no longer say goes. */
void window_flush(struct vcpu *v, bool global);
void window_flush_page(struct vcpu *v, uint64_t gva);
/* No page of RAM @frame may be written through the window; may be there at all. */
void window_drop_writes(struct window *w, uint64_t frame);
void window_withdraw(struct window *w, uint64_t frame);

#endif
