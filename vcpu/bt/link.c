/*
 * Links between blocks: patched jumps within a page, branch cells across pages.
 * Invariant: an exit that is a patched jump is in its target's in_links list exactly while exit.target names it, under the
 * lock; a cell of a vcpu is in the vcpu's own list of the block exactly while cell_to[] names it.  What the jump or cell holds
 * may be the stub all the same (a kick unlinks without touching the lists).  A cell that was brought back may lead elsewhere:
 * all of them are reset before a block goes.  Another vcpu's cells may lead to a block that has gone: whose entries trap.
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/emit.h"

/* ---- cells: the vcpu's own ---- */

static void cell_unlist(struct vcpu *v, uint32_t cell)
{
	uint32_t *p;

	if (!v->cell_to[cell])
		return;
	world_assert_mine(v);
	for (p = &v->cell_in[v->cell_to[cell] - 1]; *p && *p != cell + 1; p = &v->cell_next[*p - 1])
		;
	if (*p)
		*p = v->cell_next[cell];
	v->cell_to[cell] = 0;
}

static void cell_unlink(struct vcpu *v, uint32_t cell)
{
	v->cells[cell] = (uint64_t)(uintptr_t)bt_rx(v->bt, v->bt->cell_stub[cell]);
	cell_unlist(v, cell);
}

static void cell_activate(struct vcpu *v, uint32_t cell, bool global)
{
	if (v->cell_active[cell])
		return;
	world_assert_mine(v);
	v->cell_active[cell] = 1;
	if (global)
		v->active_kern[v->n_active_kern++] = cell;
	else
		v->active_user[v->n_active_user++] = cell;
}

static void cell_link(struct vcpu *v, uint32_t cell, uint32_t b, bool global, uint32_t entry)
{
	if (v->cell_to[cell] != b + 1) {
		cell_unlist(v, cell);
		v->cell_to[cell] = b + 1;
		v->cell_next[cell] = v->cell_in[b];
		v->cell_in[b] = cell + 1;
	}
	cell_activate(v, cell, global);
	v->cells[cell] = (uint64_t)(uintptr_t)bt_rx(v->bt, entry);
}

void link_forget_cells(struct vcpu *v, uint32_t b)
{
	if (v->cells_brought_back)
		cells_reset_user(v);
	while (v->cell_in[b])
		cell_unlink(v, v->cell_in[b] - 1);
}

void cells_create(struct vcpu *v)
{
	for (uint32_t c = 0; c < v->bt->n_cells; c++)
		v->cells[c] = (uint64_t)(uintptr_t)bt_rx(v->bt, v->bt->cell_stub[c]);
}

void cells_forget(struct vcpu *v)
{
	world_assert_mine(v);
	v->n_active_user = v->n_active_kern = 0;
	memset(v->cell_active, 0, v->bt->n_cells);
	memset(v->cell_to, 0, v->bt->n_cells * sizeof *v->cell_to);
	memset(v->cell_in, 0, v->bt->n_blocks * sizeof *v->cell_in);
	v->storing_frame = 0;
}

/* ---- patched jumps: everybody's ---- */

static void jump_unlink(struct bt *bt, struct bexit *e, uint32_t x)
{
	uint32_t *p;

	if (e->rel_off != BT_NONE)
		emit_patch(bt->rw + e->rel_off, bt->rw + e->stub_off);
	if (e->target == BT_NONE)
		return;
	for (p = &bt->blocks[e->target].in_links; *p != BT_NONE && *p != x; p = &bt->exits[*p].next_in)
		;
	if (*p == x)
		*p = e->next_in;
	e->target = BT_NONE;
}

static void jump_link(struct bt *bt, struct bexit *e, uint32_t x, uint32_t b, uint32_t entry)
{
	struct block *to = &bt->blocks[b];

	if (e->target != b) {
		jump_unlink(bt, e, x);
		e->target = b;
		e->next_in = to->in_links;
		to->in_links = x;
	}
	emit_patch(bt->rw + e->rel_off, bt->rw + entry);
}

/* ---- both ---- */

void unlink_exit(struct vcpu *v, uint32_t x)
{
	struct bexit *e = &v->bt->exits[x];

	if (e->cell != BT_NONE)
		cell_unlink(v, e->cell);
	else
		jump_unlink(v->bt, e, x);
}

void unlink_incoming(struct vcpu *v, uint32_t b)
{
	struct bt *bt = v->bt;

	link_forget_cells(v, b);
	while (bt->blocks[b].in_links != BT_NONE)
		unlink_exit(v, bt->blocks[b].in_links);
}

/* Is the exit's page mapped twice in this address space, and does its cell depend on where? */
static bool of_two_places(const struct vcpu *v, const struct bexit *e)
{
	int64_t frame = gmem_frame(v->vm->mem, v->bt->blocks[e->block].gpa);
	const struct codepage *cp = frame < 0 ? NULL : codepage_get(v->bt, (uint64_t)frame, false);
	const struct code_place *at = cp ? &v->place[cp - v->bt->pages] : NULL;

	return at && at->aliased && at->epoch == v->cell_epoch;
}

static bool may_link(const struct bexit *e, const struct block *to)
{
	if ((to->mode & MODE_TRANSIENT) || e->mode != to->mode || e->dead || to->dead)
		return false;
	if ((e->mode & MODE_CS16) && to->gva >= BT_END16)
		return false;
	return e->cell != BT_NONE ||
	       (e->rel_off != BT_NONE && to->gpa2 == ~0ull && !((e->page ^ to->gpa) >> GUEST_PAGE_SHIFT));
}

void link_exit(struct vcpu *v, uint32_t x, uint32_t target, bool global)
{
	struct bt *bt = v->bt;
	struct bexit *e = &bt->exits[x];
	struct block *to = &bt->blocks[target];
	uint32_t entry = block_entry(to, e->fl == FLS_SLOT, e->spare);

	bt_lock(v);
	if (may_link(e, to)) {
		if (e->cell == BT_NONE)
			jump_link(bt, e, x, target, entry);
		else if (!mode_pic(e->mode))
			cell_link(v, e->cell, target, global, entry);
		else if (!of_two_places(v,
					e)) /* the target is at the same address in every space, the exit need not be */
			cell_link(v, e->cell, target, false, entry);
		v->stats.links++;
	}
	bt_unlock(v);
}

/* ---- a copy to stop in ---- */

/* Behind `mov dword gs:[site or exit], n` of twelve bytes and the opcode: the rel32 of a stub's jump to the glue. */
#define STUB_REL32 13

static void move_rel32(uint8_t *copy, const uint8_t *from)
{
	int32_t d;

	memcpy(&d, from, sizeof d);
	emit_patch(copy, copy + 4 + d - (copy - from));
}

static bool leads_to_glue(const struct site *s)
{
	return s->kind != SITE_INSN && s->kind != SITE_STEP_END;
}

uint32_t copy_make(struct vcpu *v, uint32_t b)
{
	struct bt *bt = v->bt;
	const struct block *k = &bt->blocks[b];
	uint32_t at = bt->copies + (uint32_t)v->id * BT_COPY_SIZE;
	uint8_t *to = bt->rw + at, *from = bt->rw + k->host_start;

	memcpy(to, from, k->host_end - k->host_start);
	for (const struct site *s = &bt->sites[k->site]; s < &bt->sites[k->site + k->n_sites]; s++)
		if (leads_to_glue(s))
			move_rel32(to + (s->host_off - k->host_start) + STUB_REL32, bt->rw + s->host_off + STUB_REL32);
	for (uint32_t x = k->exit; x < k->exit + k->n_exits; x++) {
		const struct bexit *e = &bt->exits[x];

		if (e->cell != BT_NONE)
			v->cells[e->cell] = (uint64_t)(uintptr_t)bt_rx(bt, e->stub_off);
		else if (e->rel_off != BT_NONE)
			emit_patch(to + (e->rel_off - k->host_start), to + (e->stub_off - k->host_start));
	}
	if (k->ind_jmp != BT_NONE)
		emit_always(to + (k->ind_jne - k->host_start));
	v->copy_of = b + 1;
	return at;
}

uint32_t copy_original(const struct vcpu *v, uint32_t off)
{
	uint32_t at = v->bt->copies + (uint32_t)v->id * BT_COPY_SIZE;

	return v->copy_of && off >= at && off < at + BT_COPY_SIZE ? off - at + v->bt->blocks[v->copy_of - 1].host_start
								  : off;
}

/* ---- flushes ---- */

static void reset_cells(struct vcpu *v, const uint32_t *cells, uint32_t n)
{
	struct bt *bt = v->bt;

	world_assert_mine(v);
	for (uint32_t i = 0; i < n; i++) {
		v->cells[cells[i]] = (uint64_t)(uintptr_t)bt_rx(bt, bt->cell_stub[cells[i]]);
		v->cell_active[cells[i]] = 0;
	}
}

void cell_bring_back(struct vcpu *v, uint32_t cell, uint64_t host)
{
	if (v->cell_active[cell])
		return;
	cell_activate(v, cell, false);
	v->cells[cell] = host;
	v->cells_brought_back = true;
}

void cells_reset_user(struct vcpu *v)
{
	reset_cells(v, v->active_user, v->n_active_user);
	v->n_active_user = 0;
	v->cells_brought_back = false;
	v->cell_epoch++;
	v->place_count++;
	v->n_placed = 0;
}

void cells_reset_all(struct vcpu *v)
{
	cells_reset_user(v);
	reset_cells(v, v->active_kern, v->n_active_kern);
	v->n_active_kern = 0;
}
