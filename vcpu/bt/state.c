/* Guest state at a site of translated code: the one reader of the side table's facts. */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/decode.h"
#include "vcpu/cpu/feature.h"

uint64_t site_rip(const struct vcpu *v, const struct site *s)
{
	const struct block *b = &v->bt->blocks[s->block];
	uint64_t rip = mode_pic(b->mode) ? v->ip_page + (b->gpa & 0xfff) + s->goff : b->gva + s->goff;

	return mode_long(b->mode) ? rip : (uint32_t)rip;
}

uint64_t block_rip(const struct vcpu *v, const struct block *b)
{
	uint64_t rip = mode_pic(b->mode) ? v->ip_page + (b->gpa & 0xfff) : b->gva;

	return mode_long(b->mode) ? rip : (uint32_t)rip;
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

int site_insn(struct vcpu *v, const struct site *s, struct insn *in)
{
	const struct block *b = &v->bt->blocks[s->block];
	uint64_t gpa = b->gpa + s->goff;
	unsigned room = GMEM_PAGE_SIZE - (unsigned)(gpa & GUEST_PAGE_MASK), n = room < 15 ? room : 15;
	const uint8_t *p = gmem_ptr(v->vm->mem, gpa, n, GMEM_READ);
	uint8_t bytes[15] = {0};

	if (!p)
		return -1;
	memcpy(bytes, p, n);
	if (n < 15 && b->gpa2 != ~0ull) {
		p = gmem_ptr(v->vm->mem, b->gpa2, 15 - n, GMEM_READ);
		if (!p)
			return -1;
		memcpy(bytes + n, p, 15 - n);
	}
	vcpu_fpu_out(v);
	return decode_insn(in, bytes, 15, mode_code_size(b->mode), feature_word(v)) == DECODE_OK ? 0 : -1;
}
