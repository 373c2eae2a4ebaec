/*
 * From guest address to block: the fetch translation, the block index, and
 * what continues a run without going back to the run loop.
 * Invariant: v->rip and v->mode are exact whenever a function here runs.
 */
#include "vcpu/bt/bt.h"
#include "vcpu/bt/decode.h"
#include "vcpu/bt/exits.h"
#include "vcpu/bt/gather.h"
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
		tlb_note_fetch(v, page, w.global);
	}
	v->fetch_global = f->global;
	*gpa = f->gpa | (gva & 0xfff);
	return 0;
}

void fetch_cache_flush(struct vcpu *v)
{
	v->fetch_age[0]++;
	v->fetch_age[1]++;
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

uint32_t bt_find(struct vcpu *v, uint32_t extra)
{
	struct bt *bt = v->bt;
	uint32_t mode = v->mode | extra, b;
	uint64_t gpa;
	int r;

	if (check_cs_limit(v) < 0 || fetch_gpa(v, v->rip, &gpa) < 0)
		return BT_NONE;
	b = block_lookup(bt, gpa, mode_pic(mode) ? 0 : v->rip, mode);
	if (b != BT_NONE && bt->blocks[b].gpa2 != ~0ull) {
		r = crossing_holds(v, &bt->blocks[b]);
		if (r < 0)
			return BT_NONE;
		if (!r) {
			block_invalidate(v, b);
			b = BT_NONE;
		}
	}
	if (b == BT_NONE) {
		b = bt_translate(v, gpa, mode);
		if (b == BT_NONE && !v->exc_pending) {
			bt_flush(v);
			if (fetch_gpa(v, v->rip, &gpa) < 0)
				return BT_NONE;
			b = bt_translate(v, gpa, mode);
		}
	}
	v->ip_page = v->rip & ~0xfffull;
	return b;
}

bool bt_must_stop(const struct vcpu *v)
{
	uint32_t p = atomic_load_explicit(&v->pending, memory_order_relaxed);

	if (v->kick || v->exit_reason || v->halted || v->int_shadow || v->exc_pending || v->step_once)
		return true;
	if ((v->sysflags & RFL_TF) || (v->dr[7] & 0xff) || v->bt->stop_rip || bt_cs_limit_near(v))
		return true;
	return (p & ~PEND_INTR) || ((p & PEND_INTR) && v->iflag);
}

static const void *entry_of(struct vcpu *v, uint32_t b)
{
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

	return mode_long(e->mode) ? rip : e->mode & MODE_CS16 ? (uint16_t)rip : (uint32_t)rip;
}

const void *bt_c_exit(struct vcpu *v)
{
	struct bt *bt = v->bt;
	uint32_t x = v->exit, b, flushes = (uint32_t)v->stats.code_flushes;
	const struct bexit *e = &bt->exits[x];

	regs_sync(v, e->spare ? BT_SPARE : 0, e->fl);
	v->rip = exit_target(v, e);
	if ((e->mode & MODE_STEP) || bt_must_stop(v))
		return NULL;
	b = bt_find(v, 0);
	if (b == BT_NONE)
		return NULL;
	if (flushes == (uint32_t)v->stats.code_flushes)
		link_exit(v, x, b, v->fetch_global);
	return entry_of(v, b);
}

static void jump_cache_fill(struct vcpu *v, uint32_t b)
{
	struct jump_cache *jc = &v->jc[mode_tlb(v->mode)];
	unsigned i = jc_index(v->rip);

	if (!v->fetch_global && v->cpl != 3)
		v->jc_nonglobal = 1;
	if (jc->tag[i] == JC_INVALID) {
		if (jc->n_filled < TLB_FILLED)
			jc->filled[jc->n_filled] = (uint16_t)i;
		if (jc->n_filled <= TLB_FILLED)
			jc->n_filled++;
	}
	jc->host[i] = (uint64_t)(uintptr_t)bt_rx(v->bt, v->bt->blocks[b].host_sb);
	jc->tag[i] = v->rip;
}

const void *bt_c_indirect(struct vcpu *v)
{
	uint32_t b;

	regs_sync(v, BT_SPARE, FLS_SLOT);
	v->rip = v->host_regs[R_10];
	if (bt_must_stop(v))
		return NULL;
	v->stats.jc_misses++;
	b = bt_find(v, 0);
	if (b == BT_NONE)
		return NULL;
	jump_cache_fill(v, b);
	return entry_of(v, b);
}

const void *bt_c_sys(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];
	uint64_t target = v->rip;
	struct insn *in = &v->bt->sys[s.aux]; /* unless it is a transient block's indirect branch */
	bool step = v->bt->blocks[s.block].mode & MODE_STEP;
	int r;

	state_sync(v, &s);
	if (s.kind == SITE_INDIRECT) {
		v->rip = target;
		return NULL;
	}
	v->stats.helpers++;
	if (s.kind == SITE_STRING) {
		r = bt_string(v, in);
	} else if (in->cls == CLS_GATHER) {
		r = bt_gather(v, in);
	} else {
		v->last_sysop = in->sysop;
		if (in->sysop == SYS_UD && in->imm == EXC_GP)
			r = raise_gp(v, 0); /* longer than 15 bytes */
		else
			r = sys_handlers[in->sysop](v, in);
	}
	if (r < 0 || step)
		return NULL;
	return bt_chain(v);
}
