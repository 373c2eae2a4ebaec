/*
 * From guest address to block: the fetch translation, the block index, and
 * what continues a run without going back to the run loop.
 * Invariant: v->rip and v->mode are exact whenever a function here runs.
 */
#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/decode.h"
#include "vcpu/bt/exits.h"
#include "vcpu/bt/gather.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/cpu/sysinsn.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/trace.h"

/* Linear address of the instruction at offset @rip. */
static uint64_t fetch_linear(const struct vcpu *v, uint64_t rip)
{
	return mode_long(v->mode) ? rip : (uint32_t)(rip + v->seg[SEG_CS].base);
}

int fetch_gpa(struct vcpu *v, uint64_t rip, uint64_t *gpa)
{
	uint64_t gva = fetch_linear(v, rip), page = gva & ~0xfffull;
	struct fetch_entry *f = &v->fetch[v->cpl == 3][page >> GUEST_PAGE_SHIFT & (FETCH_SIZE - 1)];
	struct walk w;

	if (f->tag != page || f->age != v->fetch_age[f->global]) {
		if (mmu_walk(v, gva, mmu_acc(v, ACC_X), &w) < 0)
			return -1;
		f->tag = page;
		f->gpa = w.gpa & ~0xfffull;
		f->global = w.global;
		f->age = v->fetch_age[w.global];
		branches_note_fetch(v, page, &w);
	}
	if (v->cpl == 3 && f->gen != place_gen(v)) {
		int64_t frame = gmem_frame(v->vm->mem, f->gpa);

		f->gen = place_gen(v);
		if (frame >= 0)
			codepage_place(v, (uint64_t)frame, page);
	}
	v->fetch_global &= f->global;
	*gpa = f->gpa | (gva & 0xfff);
	return 0;
}

static int check_cs_limit(struct vcpu *v)
{
	if ((v->mode & MODE_SLOWMEM) && !mode_long(v->mode) && v->rip > v->seg[SEG_CS].limit)
		return raise_gp(v, 0);
	return 0;
}

bool bt_cs_limit_near(const struct vcpu *v)
{
	const struct seg *cs = &v->seg[SEG_CS];

	if (!(v->mode & MODE_SLOWMEM) || mode_long(v->mode) || cs->limit == 0xffffffffu)
		return false;
	if ((v->mode & MODE_CS16) && cs->limit == 0xffff) /* the usual case: blocks end before it */
		return v->rip >= BT_END16;
	return (uint32_t)(cs->base + v->rip) >> GUEST_PAGE_SHIFT ==
	       (uint32_t)(cs->base + cs->limit) >> GUEST_PAGE_SHIFT;
}

/* A block that runs into the next page holds only while that page is mapped where it was. */
static int crossing_holds(struct vcpu *v, const struct block *b)
{
	uint64_t gpa2;

	if (fetch_gpa(v, v->rip + (GUEST_PAGE_MASK + 1 - (b->gpa & GUEST_PAGE_MASK)), &gpa2) < 0)
		return -1;
	return (gpa2 & ~0xfffull) == b->gpa2;
}

/* Position-independent code for where a rel32 may lead out of the canonical half is translated with that in mind. */
static uint32_t mode_edge(const struct vcpu *v)
{
	const uint64_t reach = (1ull << 31) + 2 * (GUEST_PAGE_MASK + 1);

	if (!mode_pic(v->mode) || !mode_long(v->mode) || (is_canonical(v->rip + reach) && is_canonical(v->rip - reach)))
		return 0;
	return MODE_EDGE;
}

/* Links across pages and cached branches were looked at under the base and limit of their time. */
static void note_code_segment(struct vcpu *v)
{
	const struct seg *cs = &v->seg[SEG_CS];
	uint64_t base = v->mode & MODE_CS16 ? v->code_base : cs->base; /* jump_tag() has it */

	if (cs->limit == v->code_limit && base == v->code_base)
		return;
	v->code_limit = cs->limit;
	v->code_base = base;
	branches_forget(v);
}

/* Code of this mode finds jump caches of its own entries.  stac and clac change tables in place: both are made ready. */
static void prepare_mode(struct vcpu *v)
{
	uint32_t mode = v->mode;

	if ((mode & MODE_SLOWMEM) && !mode_long(mode))
		note_code_segment(v);
	jump_cache_claim(v, mode);
	if (mode & MODE_SMAP)
		jump_cache_claim(v, mode ^ (TLB_KERN ^ TLB_KERN_AC) << MODE_TLB_SHIFT);
}

/* The block at @gpa that is there and holds; BT_NONE also after raising. */
static uint32_t look_up(struct vcpu *v, uint64_t gpa, uint32_t mode)
{
	uint32_t b = block_lookup(v->bt, gpa, mode_pic(mode) ? 0 : v->rip, mode);
	int r = b == BT_NONE || v->bt->blocks[b].gpa2 == ~0ull ? 1 : crossing_holds(v, &v->bt->blocks[b]);

	if (!r)
		block_invalidate(v, b);
	return r > 0 ? b : BT_NONE;
}

/* The same, or made; BT_NONE also for what @why says. */
static uint32_t find_locked(struct vcpu *v, uint64_t gpa, uint32_t mode, struct bt_wait *why)
{
	uint32_t b;

	bt_lock(v);
	b = look_up(v, gpa, mode); /* another CPU may have made it */
	if (b == BT_NONE && !v->exc_pending)
		b = bt_translate(v, gpa, mode, why);
	bt_unlock(v);
	return b;
}

uint32_t bt_find(struct vcpu *v, uint32_t extra)
{
	for (;;) {
		uint32_t mode = v->mode | mode_edge(v) | extra, b, flushes = v->bt->flushes;
		struct bt_wait why = {.frame = -1};
		uint64_t gpa;

		prepare_mode(v);
		v->fetch_global = 1;
		if (check_cs_limit(v) < 0 || fetch_gpa(v, v->rip, &gpa) < 0)
			return BT_NONE;
		b = look_up(v, gpa, mode);
		if (b == BT_NONE && !v->exc_pending)
			b = find_locked(v, gpa, mode, &why);
		v->ip_page = v->rip & ~0xfffull;
		if (b != BT_NONE || v->exc_pending)
			return b;
		bt_wait(v, &why, flushes);
	}
}

bool bt_must_stop(const struct vcpu *v)
{
	uint32_t p = atomic_load_explicit(&v->pending, memory_order_relaxed);

	if (v->kick || v->exit_reason || v->halted || v->int_shadow || v->exc_pending || v->next.how)
		return true;
	if ((v->sysflags & RFL_TF) || (v->dr[7] & 0xff) || v->bt->stop_rip || bt_cs_limit_near(v))
		return true;
	return (p & ~PEND_INTR) || ((p & PEND_INTR) && v->iflag);
}

/* RF that the last instruction set is for the one that begins here (SDM 3B 18.3.1.1). */
static const void *entry_of(struct vcpu *v, uint32_t b)
{
	v->sysflags &= ~RFL_RF;
	v->stats.dispatches++;
	vcpu_fpu_in(v);
	return bt_rx(v->bt, v->bt->blocks[b].host_s);
}

const void *bt_chain(struct vcpu *v)
{
	uint32_t b;

	if (bt_must_stop(v))
		return NULL;
	b = bt_find(v, 0);
	return b == BT_NONE ? NULL : entry_of(v, b);
}

static uint64_t exit_target(const struct vcpu *v, const struct bexit *e)
{
	uint64_t rip = mode_pic(e->mode) ? v->ip_page + e->rip : e->rip;

	return mode_long(e->mode) ? rip : (uint32_t)rip;
}

/* Moves the stack pointer back to where it was before the branch. */
static void undo_stack(struct vcpu *v, uint32_t mode, uint64_t delta)
{
	uint64_t sp = v->regs[R_SP] + delta;

	if (!mode_long(mode))
		sp = mode & MODE_SS16 ? (v->regs[R_SP] & ~0xffffull) | (uint16_t)sp : (uint32_t)sp;
	v->regs[R_SP] = sp;
}

/* Takes back what a near branch has done to its registers: it faults as a whole.  Calls look before they push. */
static void undo_branch(struct vcpu *v, const struct site *s)
{
	uint32_t mode = v->bt->blocks[s->block].mode;
	uint64_t size = mode_code_size(mode);
	struct insn in;

	if (site_insn(v, s, &in) < 0)
		return;
	switch (in.cls) {
	case CLS_RET: undo_stack(v, mode, 0 - size - (uint64_t)in.imm); break;
	case CLS_LOOP:
		if (in.opcode == 0xe3)
			break;
		reg_write(v, R_CX, v->regs[R_CX] + 1, in.addrsize);
		break;
	default: break;
	}
}

/* May a near branch go to @rip?  (SDM 2, JMP: not beyond the code segment's limit, nor to what is not canonical) */
static bool target_ok(const struct vcpu *v, uint64_t rip)
{
	if (mode_long(v->mode))
		return is_canonical(rip);
	return !(v->mode & MODE_SLOWMEM) || rip <= v->seg[SEG_CS].limit;
}

/* A near branch at @rip with a bad target faults on the branch. */
static const void *bad_target(struct vcpu *v, const struct site *s, uint64_t rip)
{
	v->rip = rip;
	undo_branch(v, s);
	raise_gp(v, 0);
	return NULL;
}

/* A branch that cannot go where it wants to.  What falls through does not branch: the next fetch faults. */
static bool exit_is_bad(const struct vcpu *v, const struct bexit *e, const struct site *s)
{
	return !target_ok(v, v->rip) && e->gdelta != s->goff + s->len;
}

const void *bt_c_exit(struct vcpu *v)
{
	struct bt *bt = v->bt;
	uint32_t x = v->exit, b, lets = v->world.lets;
	const struct bexit *e = &bt->exits[x];

	regs_sync(v, e->spare ? BT_SPARE : 0, e->fl);
	v->rip = exit_target(v, e);
	if (!target_ok(v, v->rip)) {
		struct site s = bt->sites[e->site];
		uint64_t rip = v->rip - (uint64_t)(int64_t)e->gdelta + s.goff;

		if (exit_is_bad(v, e, &s))
			return bad_target(v, &s, mode_long(v->mode) ? rip : (uint32_t)rip);
	}
	if ((e->mode & MODE_STEP) || bt_must_stop(v)) {
		if (e->mode & MODE_NOCOMBINE)
			v->next.how = NEXT_APART; /* with groups it would come here again */
		return NULL;
	}
	b = bt_find(v, e->mode & MODE_NOCOMBINE);
	if (b == BT_NONE)
		return NULL;
	if (lets == v->world.lets)
		link_exit(v, x, b, v->fetch_global);
	return entry_of(v, b);
}

static uint64_t jump_tag(const struct vcpu *v, uint64_t target)
{
	return v->mode & MODE_CS16 ? target + v->code_key : target;
}

/* Where an indirect branch leads that has left with its target, or the tag of it, in r10. */
static uint64_t jump_target(const struct vcpu *v)
{
	return v->mode & MODE_CS16 ? (uint16_t)v->host_regs[R_10] : v->host_regs[R_10];
}

static void jump_cache_fill(struct vcpu *v, uint32_t b)
{
	uint64_t tag = jump_tag(v, v->rip);

	if ((v->mode & MODE_CS16) && v->rip >= BT_END16)
		return;
	if (!v->fetch_global && v->cpl != 3)
		v->jc_nonglobal = 1;
	jump_cache_put(&v->jc[mode_jc(v->mode)], jc_index(tag), tag,
		       (uint64_t)(uintptr_t)bt_rx(v->bt, v->bt->blocks[b].host_sb));
}

static const void *indirect_to(struct vcpu *v, uint64_t target)
{
	uint32_t b;

	v->rip = target;
	if (bt_must_stop(v))
		return NULL;
	v->stats.jc_misses++;
	b = bt_find(v, 0);
	if (b == BT_NONE)
		return NULL;
	jump_cache_fill(v, b);
	return entry_of(v, b);
}

/* User code has ip_page for the target already, and its entry in r11. */
const void *bt_c_stale(struct vcpu *v)
{
	uint64_t entry = v->host_regs[R_11] - (uint64_t)(uintptr_t)v->bt->rx;

	regs_sync(v, BT_SPARE, FLS_SLOT);
	return indirect_to(v, mode_pic(v->mode) ? block_rip(v, &v->bt->blocks[block_by_host(v->bt, (uint32_t)entry)])
						: jump_target(v));
}

/* Entered through a jump cache or cell, a block that is gone. */
const void *bt_c_gone(struct vcpu *v)
{
	const struct block *b = &v->bt->blocks[v->site];
	bool spare;
	uint8_t fl;

	block_entered_at(b, v->exit, &spare, &fl);
	regs_sync(v, spare ? BT_SPARE : 0, fl);
	v->rip = block_rip(v, b);
	link_forget_cells(v, v->site);
	return indirect_to(v, v->rip);
}

const void *bt_c_indirect_step(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];

	state_sync(v, &s);
	if (!target_ok(v, jump_target(v)))
		return bad_target(v, &s, v->rip);
	v->rip = jump_target(v);
	return NULL;
}

const void *bt_c_indirect(struct vcpu *v)
{
	uint64_t target = jump_target(v);

	regs_sync(v, BT_SPARE, FLS_SLOT);
	if (!target_ok(v, target)) {
		struct site s = v->bt->sites[v->site];

		return bad_target(v, &s, site_rip(v, &s));
	}
	return indirect_to(v, target);
}

const void *bt_c_sys(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];
	struct insn *in = &v->bt->sys[s.aux]; /* unless the site raises */
	bool step = v->bt->blocks[s.block].mode & MODE_STEP;
	int r;

	state_sync(v, &s);
	if (s.kind == SITE_RAISE) {
		raise_error(v, s.aux, 0);
		return NULL;
	}
	v->stats.helpers++;
	if (s.kind == SITE_STRING) {
		r = bt_string(v, in);
	} else if (in->cls == CLS_GATHER) {
		r = bt_gather(v, in);
	} else {
		v->last_sysop = in->sysop;
		if (v->bt->smp) /* those that serialise are among them (SDM 3A 8.3) */
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (in->sysop == SYS_UD && in->imm == EXC_GP)
			r = raise_gp(v, 0); /* longer than 15 bytes */
		else
			r = sys_handlers[in->sysop](v, in);
	}
	if (r < 0 || step)
		return NULL;
	return bt_chain(v);
}
