/*
 * Links between blocks: patched jumps within a page, branch cells across pages.
 * Invariant: an exit is in its target's in_links list exactly while
 * exit.target names it; what the jump or cell holds may be the stub all the
 * same (a kick unlinks without touching the lists).  A cell that was brought
 * back may lead elsewhere: all of them are reset before a block goes.
 */
#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/emit.h"

static void point_at(struct vcpu *v, const struct bexit *e, uint32_t off)
{
	struct bt *bt = v->bt;

	if (e->cell != BT_NONE)
		v->cells[e->cell] = (uint64_t)(uintptr_t)bt_rx(bt, off);
	else if (e->rel_off != BT_NONE)
		emit_patch(bt->rw + e->rel_off, bt->rw + off);
}

void unlink_exit(struct vcpu *v, uint32_t x)
{
	struct bt *bt = v->bt;
	struct bexit *e = &bt->exits[x];
	uint32_t *p;

	point_at(v, e, e->stub_off);
	if (e->target == BT_NONE)
		return;
	for (p = &bt->blocks[e->target].in_links; *p != BT_NONE && *p != x; p = &bt->exits[*p].next_in)
		;
	if (*p == x)
		*p = e->next_in;
	e->target = BT_NONE;
}

void unlink_incoming(struct vcpu *v, uint32_t b)
{
	struct bt *bt = v->bt;

	while (bt->blocks[b].in_links != BT_NONE)
		unlink_exit(v, bt->blocks[b].in_links);
}

static void activate_cell(struct bt *bt, struct bexit *e, bool global)
{
	if (bt->cell_active[e->cell])
		return;
	bt->cell_active[e->cell] = 1;
	if (global)
		bt->active_kern[bt->n_active_kern++] = e->cell;
	else
		bt->active_user[bt->n_active_user++] = e->cell;
}

/* Is the exit's page mapped twice in this address space, and does its cell depend on where? */
static bool of_two_places(const struct vcpu *v, const struct bexit *e)
{
	int64_t frame = gmem_frame(v->vm->mem, v->bt->blocks[e->block].gpa);
	const struct codepage *cp = frame < 0 ? NULL : codepage_get(v->bt, (uint64_t)frame, false);

	return cp && cp->aliased && cp->epoch == v->bt->cell_epoch;
}

void link_exit(struct vcpu *v, uint32_t x, uint32_t target, bool global)
{
	struct bt *bt = v->bt;
	struct bexit *e = &bt->exits[x];
	struct block *to = &bt->blocks[target];

	if ((to->mode & MODE_TRANSIENT) || e->mode != to->mode || e->dead)
		return;
	if ((e->mode & MODE_CS16) && to->gva >= BT_END16)
		return;
	if (e->cell == BT_NONE &&
	    (e->rel_off == BT_NONE || to->gpa2 != ~0ull || (e->page ^ to->gpa) >> GUEST_PAGE_SHIFT))
		return;
	if (e->cell != BT_NONE && mode_pic(e->mode)) {
		if (of_two_places(v, e))
			return;
		global = false; /* the target is at the same address in every space, the exit need not be */
	}
	if (e->target != target) {
		unlink_exit(v, x);
		e->target = target;
		e->next_in = to->in_links;
		to->in_links = x;
	}
	if (e->cell != BT_NONE)
		activate_cell(bt, e, global);
	point_at(v, e, block_entry(to, e->fl == FLS_SLOT, e->spare));
	v->stats.links++;
}

void link_kick(struct vcpu *v, uint32_t b)
{
	struct bt *bt = v->bt;
	const struct block *k = &bt->blocks[b];

	for (uint32_t x = k->exit; x < k->exit + k->n_exits; x++)
		point_at(v, &bt->exits[x], bt->exits[x].stub_off);
	if (k->ind_jmp != BT_NONE)
		emit_always(bt->rw + k->ind_jne);
}

void link_unkick(struct bt *bt, uint32_t b)
{
	const struct block *k = &bt->blocks[b];

	if (k->ind_jmp != BT_NONE)
		emit_jne(bt->rw + k->ind_jne);
}

static void reset_cells(struct vcpu *v, const uint32_t *cells, uint32_t n)
{
	struct bt *bt = v->bt;

	for (uint32_t i = 0; i < n; i++) {
		v->cells[cells[i]] = (uint64_t)(uintptr_t)bt_rx(bt, bt->cell_stub[cells[i]]);
		bt->cell_active[cells[i]] = 0;
	}
}

void cell_bring_back(struct vcpu *v, uint32_t cell, uint64_t host)
{
	struct bt *bt = v->bt;

	if (bt->cell_active[cell])
		return;
	bt->cell_active[cell] = 1;
	bt->active_user[bt->n_active_user++] = cell;
	v->cells[cell] = host;
	bt->cells_brought_back = true;
}

void cells_reset_user(struct vcpu *v)
{
	reset_cells(v, v->bt->active_user, v->bt->n_active_user);
	v->bt->n_active_user = 0;
	v->bt->cells_brought_back = false;
	v->bt->cell_epoch++;
	v->bt->place_gen++;
	v->bt->n_placed = 0;
}

void cells_reset_all(struct vcpu *v)
{
	cells_reset_user(v);
	reset_cells(v, v->bt->active_kern, v->bt->n_active_kern);
	v->bt->n_active_kern = 0;
}
