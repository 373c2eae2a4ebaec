/* Guest state at a site of translated code: the one reader of the side table's facts. */
#include "vcpu/bt/bt.h"

uint64_t site_rip(const struct vcpu *v, const struct site *s)
{
	const struct block *b = &v->bt->blocks[s->block];
	uint64_t rip = mode_pic(b->mode) ? v->ip_page + (b->gpa & 0xfff) + s->goff : b->gva + s->goff;

	return mode_long(b->mode) ? rip : b->mode & MODE_CS16 ? (uint16_t)rip : (uint32_t)rip;
}

void regs_sync(struct vcpu *v, uint16_t spill, uint8_t fl)
{
	for (int r = 0; r < 16; r++)
		if (!(spill >> r & 1))
			v->regs[r] = v->host_regs[r];
	if (fl == FLS_HOST)
		v->flags = v->host_flags;
}

void state_sync(struct vcpu *v, const struct site *s)
{
	regs_sync(v, s->spill, s->fl);
	v->rip = site_rip(v, s);
}
