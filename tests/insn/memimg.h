/*
 * The memory image of a case: setting it up, finding what changed, undoing it.
 * Native runner and engine differ only in where a page of the image lives.
 */
#ifndef HVX_INSN_MEMIMG_H
#define HVX_INSN_MEMIMG_H

#include "state.h"

struct memview {
	uint8_t *page[IMG_PAGES]; /* of the image, in order */
	uint8_t *code[CODE_PAGES];
};

/* Applies the case's presets. */
void mem_poke(const struct memview *m, const struct testcase *tc);

/* Appends every line that differs from the batch's image or code to the
 * log, and puts the image back.  Returns a bitmap of code pages that had to be restored. */
uint64_t mem_collect(const struct memview *m, const struct batch *b, struct worker_out *w, struct result *r);

#endif
