/*
 * Which modes are translated.
 * Invariant: a list of what is known; whatever is not in it is refused.
 */
#include "vcpu/bt/key.h"

/* Every mode: what translates it and no more. */
bool mode_is_translated(uint32_t mode)
{
	const uint32_t sizes = MODE_CS32 | MODE_CS16 | MODE_REAL;
	const uint32_t all = MODE_USER | 3u << MODE_TLB_SHIFT | MODE_SLOWMEM | MODE_NOFPU | MODE_NOSSE | MODE_NOAVX |
			     MODE_NOAVX512 | MODE_ADDED | MODE_CPL0 | MODE_SMAP | MODE_TSD;
	uint32_t known;

	switch (mode & sizes) {
	case 0: known = all | MODE_EDGE; break;
	case MODE_CS32:
	case MODE_CS32 | MODE_REAL: known = all | sizes | MODE_SS16 | MODE_SEGS; break;
	case MODE_CS16:
	case MODE_CS16 | MODE_REAL: known = mode & MODE_SLOWMEM ? all | sizes | MODE_SS16 | MODE_SEGS : 0; break;
	default: return false;
	}
	if ((mode & ~known) || mode_tlb(mode) >= TLB_COUNT || !(mode & MODE_USER) != (mode_tlb(mode) != TLB_USER))
		return false;
	if ((mode & MODE_SEGS) && !(mode & MODE_SLOWMEM))
		return false;
	if ((mode & MODE_USER) && (mode & (MODE_CPL0 | MODE_SMAP)))
		return false;
	return (mode & MODE_STEP) || !(mode & (MODE_BOUNCE | MODE_BOUNCE_STACK));
}
