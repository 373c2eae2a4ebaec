/*
 * What becomes of a host fault of an access through the window.
 * Invariant: nothing of the instruction has happened; it goes on where it was, is done by another strategy, or the guest gets the
 * exception that a walk of its tables gives.
 */
#include "vcpu/bt/addr.h"
#include "vcpu/bt/exits.h"
#include "vcpu/mmu/window.h"
#include "vcpu/trace.h"

#define OFF_WINDOW 8 /* so often refused, an instruction is translated without it */
#define IN_VAIN    4

bool mode_has_window(const struct bt *bt, uint32_t mode)
{
	return bt->vm->window && (mode & WINDOW_MODES) == window_mode(bt->vm->window);
}

static unsigned hash_of(uint64_t gpa)
{
	return (unsigned)(gpa * 0x9e3779b97f4a7c15ull >> 49) & (BT_OFF_WINDOW - 1);
}

bool bt_off_window(const struct bt *bt, uint64_t gpa)
{
	return bt->off_window[hash_of(gpa)] >= OFF_WINDOW;
}

/* From here the block runs with a check per access, once; the instruction for good when that is often. */
static const void *refuse(struct vcpu *v, const struct site *s)
{
	struct bt *bt = v->bt;
	const struct block *b = &bt->blocks[s->block];
	uint64_t gpa = b->gpa + s->goff;

	v->stats.window_refused++;
	v->next.how = NEXT_APART;
	state_sync(v, s);
	bt_lock(v);
	if (!bt_off_window(bt, gpa) && ++bt->off_window[hash_of(gpa)] >= OFF_WINDOW) {
		v->stats.window_off++;
		block_invalidate(v, s->block);
	}
	bt_unlock(v);
	return NULL;
}

static const void *again(struct vcpu *v, const struct site *s)
{
	if (v->bt->blocks[s->block].dead) { /* by the walk, or a page of code that has become data */
		state_sync(v, s);
		return NULL;
	}
	vcpu_fpu_in(v); /* a trace line has saved it */
	return BT_FAULT_AGAIN;
}

/* The page is there.  Another CPU may have mapped it; when it goes on, the fault has a reason that we do not know. */
static const void *there(struct vcpu *v, const struct site *s)
{
	v->window_vain = v->window_at == v->resume ? v->window_vain + 1 : 0;
	v->window_at = v->resume;
	return v->window_vain < IN_VAIN ? again(v, s) : refuse(v, s);
}

const void *window_fault(struct vcpu *v, const struct site *s)
{
	uint64_t gva = v->mem_gva - window_delta(v->vm->window);
	unsigned acc = v->fault_error & 2 ? ACC_W : ACC_R;
	enum window_fill r;
	uint64_t frame;

	trace(TRACE_MMU, "window %llx acc %x at %llx", (unsigned long long)gva, acc,
	      (unsigned long long)site_rip(v, s));
	if (v->fault_vector != EXC_PF)
		return refuse(
			v,
			s); /* an address that is none of the host's, or an alignment that the instruction insists on */
	r = window_fill(v, gva, acc, &frame);
	if (r == WINDOW_CODE && codepage_met(v, frame))
		r = window_fill(v, gva, acc, &frame);
	switch (r) {
	case WINDOW_FILLED: return again(v, s);
	case WINDOW_THERE: return there(v, s);
	case WINDOW_RAISED:
		if (v->exc_vector == EXC_PF) {
			state_sync(v, s);
			return NULL;
		}
		v->exc_pending = 0; /* #GP or #SS: the soft TLB's way knows which */
		return refuse(v, s);
	default: return refuse(v, s);
	}
}
