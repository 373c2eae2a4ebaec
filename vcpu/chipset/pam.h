/*
 * The 256 KiB below 1 MiB, where the host bridge says in pieces of 16 and 64 KiB whether RAM or the firmware's ROM answers
 * (PAM registers, Intel Q35 MCH data sheet 5.1.14 to 5.1.20).  Called under the platform's lock.
 */
#ifndef HVX_PAM_H
#define HVX_PAM_H

#include <stdint.h>

#include "common/gmem.h"
#include "vcpu/chipset/bus.h"

#define PAM_REGS 7

struct pam {
	uint8_t shadow[GMEM_SHADOW_PAGES]; /* GMEM_SHADOW_* of each page */
	const struct gmem *mem;
	/* The pages are to be what @shadow says from now on; nothing of what was made of the old ones may be used again. */
	void (*changed)(void *ctx, const uint8_t *shadow);
	void *ctx;
};

/* What the registers say. */
void pam_set(struct pam *p, const uint8_t regs[PAM_REGS]);

extern const struct bus_ops pam_ops; /* reads and writes that memory does not answer */

#endif
