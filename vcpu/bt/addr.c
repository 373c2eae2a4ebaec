/*
 * The table of address strategies, and blocks that may not use the first of them any more.
 * Invariant: a row's check has passed before anything of the guest instruction happens.
 */
#include "vcpu/bt/addr.h"

static bool bounce_match(struct tr *t, const struct access *a)
{
	return t->mode & (a->acc & SITE_ACC_STACK ? MODE_BOUNCE_STACK : MODE_BOUNCE);
}

static struct hmem bounce_emit(struct tr *t, const struct access *a)
{
	return hm_gs(a->acc & SITE_ACC_STACK ? VOFF(bounce_stack) : VOFF(bounce));
}

static bool any(struct tr *t, const struct access *a)
{
	return true;
}

const struct addr_strategy addr_strategies[ADDR_COUNT] = {
	[ADDR_BOUNCE] = {bounce_match, bounce_emit, NULL, NULL},
	[ADDR_SEGMENT] = {addr_segment_match, addr_segment_emit, addr_segment_cold, access_segment_fault},
	[ADDR_CHECKED] = {addr_checked_match, addr_checked_emit, NULL, access_checked_fault},
	[ADDR_GROUP] = {addr_group_match, addr_group_emit, addr_group_cold, access_group_fault},
	[ADDR_SOFT] = {any, addr_soft_emit, addr_soft_cold, access_soft_fault},
};

struct hmem tr_access(struct tr *t, const struct ea *e, unsigned size, unsigned acc, uint8_t t1, uint8_t t2)
{
	const struct access a = {e, size, acc, t1, t2};
	unsigned n = 0;

	while (!addr_strategies[n].match(t, &a))
		n++;
	return addr_strategies[n].emit(t, &a);
}

void tr_cold_mem(struct tr *t, const struct cold *k)
{
	addr_strategies[k->acc & SITE_ACC_RANGE ? ADDR_GROUP : ADDR_SOFT].cold(t, k);
}

void tr_cold_seg(struct tr *t, const struct cold *k)
{
	addr_strategies[ADDR_SEGMENT].cold(t, k);
}

static uint8_t *downgrade_of(struct bt *bt, uint64_t gpa)
{
	return &bt->downgraded[(unsigned)(gpa * 0x9e3779b97f4a7c15ull >> 48) & (BT_DOWNGRADES - 1)];
}

void bt_downgrade(struct bt *bt, uint64_t gpa, unsigned strategy)
{
	uint8_t *d = downgrade_of(bt, gpa);

	if (*d < strategy)
		*d = (uint8_t)strategy;
}

bool bt_downgraded(struct bt *bt, uint64_t gpa, unsigned strategy)
{
	return *downgrade_of(bt, gpa) > strategy;
}
