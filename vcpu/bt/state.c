/* Guest state at a site of translated code: the one reader of the side table's facts. */
#include "vcpu/bt/bt.h"

uint64_t site_rip(const struct vcpu *v, const struct site *s)
{
	const struct block *b = &v->bt->blocks[s->block];
	uint64_t rip = mode_pic(b->mode) ? v->ip_page + (b->gpa & 0xfff) + s->goff : b->gva + s->goff;

	return mode_long(b->mode) ? rip : b->mode & MODE_CS16 ? (uint16_t)rip : (uint32_t)rip;
}

void state_sync(struct vcpu *v, const struct site *s)
{
	for (int r = 0; r < 16; r++)
		if (!(s->spill >> r & 1))
			v->regs[r] = v->host_regs[r];
	if (s->fl == FLS_HOST)
		v->flags = v->host_flags;
	v->rip = site_rip(v, s);
}
