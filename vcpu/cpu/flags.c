/*
 * RFLAGS assembled from and taken apart into the pieces translated code uses.
 *
 * Invariant: bit 1 reads as one; bits that no x86 CPU has read as zero.
 */
#include "vcpu/cpu/flags.h"

uint64_t vcpu_rflags(const struct vcpu *v)
{
	return ((v->flags >> 8) & 0xd5) | RFL_FIX | (uint64_t)(v->flags & 1) << 11 | (uint64_t)(v->df != 0) << 10 |
	       (uint64_t)(v->iflag != 0) << 9 | v->sysflags;
}

void vcpu_set_rflags(struct vcpu *v, uint64_t rflags)
{
	flags_put(v, rflags);
	vcpu_update_mode(v);
}

int flags_virtual_if(struct vcpu *v, uint64_t *fl, uint64_t *mask)
{
	if ((*fl & RFL_TF) || ((*fl & RFL_IF) && (v->sysflags & RFL_VIP)))
		return raise_gp(v, 0);
	*fl = (*fl & ~(uint64_t)RFL_VIF) | (*fl & RFL_IF ? RFL_VIF : 0);
	*mask = (*mask & ~(uint64_t)(RFL_IF | RFL_TF | RFL_IOPL)) | RFL_VIF;
	return 0;
}

void flags_set_arith(struct vcpu *v, uint32_t mask, uint32_t val)
{
	uint32_t low = (v->flags >> 8) & 0xff;

	low = (low & ~mask) | (val & mask & 0xff) | RFL_FIX;
	v->flags = (uint16_t)((low & 0xd7) << 8 | (mask & RFL_OF ? (val >> 11) & 1 : v->flags & 1u));
}
