/*
 * Jump caches: from the offset of an indirect branch's target to the entry of its block.
 * Invariant: the entries of a table are of the mode in jc_mode[], and no code of another mode looks into it: a change
 * of the mode claims the new one's table before anything runs.
 */
#include "vcpu/bt/bt.h"

void jump_cache_put(struct jump_cache *jc, unsigned i, uint64_t tag, uint64_t host)
{
	if (jc->e[i].tag == jc_invalid(i)) {
		if (jc->n_filled < JC_FILLED)
			jc->filled[jc->n_filled] = (uint16_t)i;
		if (jc->n_filled <= JC_FILLED)
			jc->n_filled++;
	}
	jc->e[i].host = host;
	jc->e[i].tag = tag;
}

static void clear(struct jump_cache *j, bool whole)
{
	if (whole || j->n_filled > JC_FILLED)
		for (unsigned i = 0; i < JC_SIZE; i++)
			j->e[i].tag = jc_invalid(i);
	else
		for (uint32_t i = 0; i < j->n_filled; i++)
			j->e[j->filled[i]].tag = jc_invalid(j->filled[i]);
	j->n_filled = 0;
}

void jump_cache_flush(struct vcpu *v, unsigned k)
{
	world_assert_mine(v);
	if (v->jc_mode[k] != JC_UNUSED)
		clear(&v->jc[k], false);
}

void jump_cache_claim(struct vcpu *v, uint32_t mode)
{
	unsigned k = mode_jc(mode);

	if (v->jc_mode[k] == mode)
		return;
	world_assert_mine(v);
	if (v->jc[k].n_filled)
		v->stats.mode_flushes++;
	clear(&v->jc[k], v->jc_mode[k] == JC_UNUSED);
	v->jc_mode[k] = mode;
}
