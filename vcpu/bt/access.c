/*
 * The C side of translated code's memory accesses: soft TLB misses, accesses that are checked in C, and what the
 * instruction has to be run as when its operand is no plain RAM within one page.
 * Invariant: a slow path that resumes has changed nothing of the guest but what the access itself does.
 */
#include <string.h>

#include "common/gmem.h"
#include "vcpu/bt/addr.h"
#include "vcpu/bt/evex.h"
#include "vcpu/bt/exits.h"
#include "vcpu/bt/masked.h"
#include "vcpu/cpu/breakpoint.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/trace.h"

#define COMBINE_FAILS 16
#define BOUNCES       (MODE_BOUNCE | MODE_BOUNCE_STACK)

static void request_bounce(struct vcpu *v, const struct site *s, uint64_t gva)
{
	v->next = (struct next_run){.how = s->acc & SITE_ACC_STACK ? NEXT_STACK : NEXT_EXPLICIT,
				    .acc = s->acc & (ACC_R | ACC_W),
				    .ss = s->acc & SITE_ACC_SS || s->seg == SEG_SS,
				    .size = s->size,
				    .piece = s->align == 1 ? 8 : s->size,
				    .gva = gva,
				    .bytes = ~0ull};
}

/* Is an x87 exception pending?  The guest's state is in the host's registers, or saved. */
static bool x87_pending(const struct vcpu *v)
{
	uint16_t sw;

	if (v->fpu_saved)
		memcpy(&sw, v->fpu_area + 2, sizeof sw);
	else
		__asm__ volatile("fnstsw %0" : "=m"(sw));
	return sw & 0x80;
}

/* A masked move whose operand as a whole is not plain RAM: element by element, and out. */
static int access_masked(struct vcpu *v, const struct site *s)
{
	struct insn in;

	v->exc_pending = 0;
	state_sync(v, s);
	if (site_insn(v, s, &in) < 0 || !in.masked)
		raise_gp(v, 0); /* its bytes are gone */
	else if (in.k)
		evex_masked(v, &in);
	else
		bt_masked(v, &in);
	return 0;
}

/* Finishes a slow path: 1 to resume. */
static int access_done(struct vcpu *v, const struct site *s, uint64_t gva, int r)
{
	struct block *b = &v->bt->blocks[s->block];

	if (v->moved && (r == TLB_FILLED_IN || r == TLB_STORED)) {
		v->moved = 0;
		if (!(b->mode & MODE_STEP)) { /* groups of this block may lead to the old place */
			state_sync(v, s);
			return 0; /* the instruction begins anew, and a block with it */
		}
	}
	if (r != TLB_FILLED_IN && r != TLB_STORED) {
		if (s->acc & SITE_ACC_MASKED)
			return access_masked(v, s);
		if ((s->acc & SITE_ACC_MF) && x87_pending(v)) {
			raise_exception(v, EXC_MF);
			state_sync(v, s);
			return 0;
		}
	}
	if (r == TLB_RAISED && v->exc_vector == EXC_GP &&
	    ((s->acc & SITE_ACC_SS) || (mode_long(v->mode) && s->seg == SEG_SS)))
		v->exc_vector = EXC_SS;
	if (r == TLB_RAISED && s->align == 1 && !v->amd && v->exc_vector == EXC_PF && v->exc_cr2 == gva)
		v->exc_cr2 += 8; /* maskmovdqu: Intel's CPUs look at the upper half first, AMD's at the lower */
	if (r != TLB_FILLED_IN && r != TLB_STORED && s->align && s->align != ALIGN_ANY &&
	    (gva & (s->align - 1u))) { /* comes before what the page says */
		raise_gp(v, 0);
		r = TLB_RAISED;
	}
	if (r == TLB_NO_RAM)
		request_bounce(v, s, gva);
	if (r == TLB_STORED && b->dead && !(b->mode & MODE_STEP))
		v->next.how = NEXT_ALONE; /* the rest of this block is gone: run this instruction by itself */
	else if (r == TLB_FILLED_IN || r == TLB_STORED) {
		v->resume = (uint64_t)(uintptr_t)bt_rx(v->bt, s->resume_off);
		vcpu_fpu_in(v); /* a trace line has saved it */
		return 1;
	}
	state_sync(v, s);
	return 0;
}

/* Is the page of @gva, just filled in for the access at it, good for its whole group? */
static bool range_holds(struct vcpu *v, const struct site *s, uint64_t gva)
{
	uint64_t lo = gva - (s->aux & 0xfff), last = lo + (s->aux >> 12 & 0xfff) - 1;
	struct walk w;

	if ((lo ^ gva) >> GUEST_PAGE_SHIFT || (last ^ gva) >> GUEST_PAGE_SHIFT)
		return false;
	if (!(s->aux >> 31) || tlb_hit(v, gva, ACC_W))
		return true;
	/* another page's write tag may stand in the way: take its place if a store would have no other effect */
	if (mmu_probe(v, gva, mmu_acc(v, ACC_W), &w) || !w.dirty ||
	    codepage_has(v, (uint64_t)gmem_frame(v->vm->mem, w.gpa)))
		return false;
	return tlb_fill(v, gva, 1, ACC_W) == TLB_FILLED_IN && tlb_hit(v, gva, ACC_W);
}

/* The block has to be run with one check per access from here (a page with code counts); when that is often, always. */
static int group_fails(struct vcpu *v, const struct site *s)
{
	struct block *b = &v->bt->blocks[s->block];

	v->stats.combo_fails++;
	v->next.how = NEXT_APART;
	state_sync(v, s);
	bt_lock(v);
	if (++b->combine_fails == COMBINE_FAILS) {
		bt_downgrade(v->bt, b->gpa, ADDR_SOFT);
		block_invalidate(v, s->block);
	}
	bt_unlock(v);
	return 0;
}

/* An access that runs into the next page.  What a mask leaves out of a load may be read all the same where it is there. */
static int access_crosses(struct vcpu *v, const struct site *s, uint64_t gva)
{
	bool masked_store = (s->acc & SITE_ACC_MASKED) && (s->acc & ACC_W);

	if (s->align || masked_store || (v->bt->blocks[s->block].mode & BOUNCES))
		return access_done(v, s, gva, TLB_NO_RAM);
	if (!(s->acc & ACC_W)) {
		if (!cross_load(v, s, gva))
			return access_done(v, s, gva, TLB_NO_RAM);
		v->stats.cross_page++;
		return access_done(v, s, gva, TLB_FILLED_IN);
	}
	if (!site_is_store(s) || !cross_store(v, s, gva))
		return access_done(v, s, gva, TLB_NO_RAM);
	v->stats.cross_page++;
	access_done(v, s, gva, TLB_FILLED_IN);
	v->resume = (uint64_t)(uintptr_t)bt_rx(v->bt, site_store_end(s));
	return 1;
}

static bool crosses(const struct site *s, uint64_t gva)
{
	return (gva & GUEST_PAGE_MASK) + s->size > GUEST_PAGE_MASK + 1;
}

int access_soft_fault(struct vcpu *v, const struct site *s)
{
	uint64_t gva = v->mem_gva;

	if (crosses(s, gva))
		return access_crosses(v, s, gva);
	return access_done(v, s, gva, tlb_fill(v, gva, s->size, s->acc));
}

int access_group_fault(struct vcpu *v, const struct site *s)
{
	uint64_t gva = v->mem_gva;
	int r;

	if (crosses(s, gva))
		return group_fails(v, s);
	r = tlb_fill(v, gva, s->size, s->acc);
	if (r == TLB_STORED || (r == TLB_FILLED_IN && !range_holds(v, s, gva)))
		return group_fails(v, s);
	return access_done(v, s, gva, r);
}

int bt_c_mem(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];

	trace(TRACE_MMU, "miss %llx size %u acc %x at %llx", (unsigned long long)v->mem_gva, s.size, s.acc,
	      (unsigned long long)site_rip(v, &s));
	return addr_strategies[s.seg != R_NONE          ? ADDR_SEGMENT
			       : s.acc & SITE_ACC_RANGE ? ADDR_GROUP
							: ADDR_SOFT]
		.fault(v, &s);
}

/* SDM 3A 5.3, 5.4: type and limit of a data access outside 64-bit code. */
static int segment_check(struct vcpu *v, const struct site *s, uint64_t off, uint64_t *lin)
{
	const struct seg *g = &v->seg[s->seg];
	unsigned vector = s->seg == SEG_SS ? EXC_SS : EXC_GP;
	uint64_t last = off + seg_limit_size(v, g, s->align == 1 ? 8u : s->size) - 1, top;

	if (mode_long(v->mode)) {
		*lin = off;
		return 0;
	}
	if ((g->attr & SEG_A_NULL) || !(g->attr & SEG_A_P))
		return raise_error(v, vector, 0);
	if ((s->acc & ACC_W) && ((g->attr & 8) || !(g->attr & 2)))
		return raise_gp(v, 0);
	if ((s->acc & ACC_R) && (g->attr & 8) && !(g->attr & 2))
		return raise_gp(v, 0);
	if ((g->attr & 0xc) == 4) { /* expand-down data */
		top = g->attr & SEG_A_DB ? 0xffffffffu : 0xffffu;
		if (off <= g->limit || last > top)
			return raise_error(v, vector, 0);
	} else if (last > g->limit) {
		return raise_error(v, vector, 0);
	}
	*lin = (uint32_t)(off + g->base);
	return 0;
}

/* The second half of what is accessed in halves, when the first one is good: its page comes before this one's limit. */
static int second_half_check(struct vcpu *v, const struct site *s, uint64_t lin)
{
	uint64_t lin2;
	struct walk w;

	if (s->align != 1 || s->seg == R_NONE || segment_check(v, s, (uint32_t)(v->mem_gva + 8), &lin2) == 0)
		return 0;
	v->exc_pending = 0;
	if (mmu_walk(v, lin, mmu_acc(v, ACC_W), &w) < 0)
		return -1;
	return segment_check(v, s, (uint32_t)(v->mem_gva + 8), &lin2);
}

/* What all checked accesses do; @address: translated code wants the host address instead of the addend. */
static int checked_fault(struct vcpu *v, const struct site *s, bool address)
{
	uint64_t lin = v->mem_gva;
	int r = TLB_FILLED_IN;

	if (s->seg != R_NONE && segment_check(v, s, v->mem_gva, &lin) < 0)
		r = TLB_RAISED;
	else if (mode_long(v->mode) && !is_canonical(lin))
		r = tlb_fill(v, lin, 1, s->acc); /* #GP or #SS, before #AC */
	else if ((s->align != ALIGN_ANY && alignment_check(v, lin, s->align == 1 ? 8 : s->size) < 0) ||
		 second_half_check(v, s, lin) < 0)
		r = TLB_RAISED;
	else if ((v->dr[7] & 0xff) && breakpoint_access(v, lin, s->size, s->acc) &&
		 !(v->bt->blocks[s->block].mode & MODE_STEP)) {
		v->next.how = NEXT_ALONE;
		state_sync(v, s);
		return 0;
	} else if ((lin & GUEST_PAGE_MASK) + s->size > GUEST_PAGE_MASK + 1)
		r = TLB_NO_RAM;
	else
		r = tlb_fill(v, lin, s->size, s->acc);
	if (address && (r == TLB_FILLED_IN || r == TLB_STORED))
		v->mem_addend += lin;
	return access_done(v, s, lin, r);
}

int access_checked_fault(struct vcpu *v, const struct site *s)
{
	return checked_fault(v, s, true);
}

int access_segment_fault(struct vcpu *v, const struct site *s)
{
	return checked_fault(v, s, false);
}

int bt_c_mem_checked(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];

	return addr_strategies[ADDR_CHECKED].fault(v, &s);
}
