/*
 * The memory image of a case.  A batch has one initial image; a case changes a
 * few lines of it, and only those are logged and restored.
 *
 * Invariant: after mem_collect() memory equals the batch's image again.
 */
#include "memimg.h"

#include <string.h>

static uint8_t *img_addr(const struct memview *m, uint64_t addr)
{
	for (int i = 0; i < WR_PAGES; i++)
		if (addr - wr_page[i] < PG)
			return m->page[i] + (addr - wr_page[i]);
	return NULL;
}

void mem_poke(const struct memview *m, const struct testcase *tc)
{
	for (int i = 0; i < tc->npokes; i++) {
		for (int k = 0; k < 8; k++) {
			uint8_t *p = img_addr(m, tc->poke[i].addr + k);

			if (p)
				*p = (uint8_t)(tc->poke[i].val >> (8 * k));
		}
	}
}

static void log_line(struct worker_out *w, struct result *r, uint32_t off, const uint8_t *data)
{
	if (w->log_used >= LOG_LINES) {
		r->overflow = 1;
		return;
	}
	w->log[w->log_used].off = off;
	memcpy(w->log[w->log_used].data, data, LINE);
	w->log_used++;
	r->lines++;
}

/* One page: logs and restores its changed lines; returns whether there were any. */
static int collect_page(uint8_t *cur, const uint8_t *init, uint32_t off, struct worker_out *w, struct result *r)
{
	if (!memcmp(cur, init, PG))
		return 0;
	for (uint32_t i = 0; i < PG; i += LINE) {
		if (!memcmp(cur + i, init + i, LINE))
			continue;
		log_line(w, r, off + i, cur + i);
		memcpy(cur + i, init + i, LINE);
	}
	return 1;
}

uint64_t mem_collect(const struct memview *m, const struct batch *b, struct worker_out *w, struct result *r)
{
	uint64_t dirty = 0;

	r->line0 = w->log_used;
	r->lines = 0;
	r->overflow = 0;
	for (uint32_t i = 0; i < WR_PAGES; i++)
		collect_page(m->page[i], b->image + i * PG, (uint32_t)(i * PG), w, r);
	for (uint32_t i = 0; i < CODE_PAGES; i++)
		if (collect_page(m->code[i], b->code + i * PG, (uint32_t)(IMG_SIZE + i * PG), w, r))
			dirty |= 1ull << i;
	return dirty;
}
