/*
 * When ring 3 runs as it is, and what becomes of its stops.
 *
 * A stop's reason is a hint: what can be done by mapping a page is done; whatever else it is, translated code runs the same
 * instruction again, and raises what it raises.  So faults, system calls and all that only looks different in a stub
 * come out as on translated code, because they come from there.
 *
 * Invariant: a stub belongs to one address space, named by its page-table root, of one CPU, and what it has mapped is compared with
 * the guest's tables after each flush of that CPU before it goes on.
 */
#include "vcpu/direct/direct.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "common/memory.h"
#include "vcpu/cpu/mode.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/direct/pages.h"
#include "vcpu/direct/select.h"

/* What instructions need of XCR0: a guest that has less enabled than the host would not get the #UD. */
#define XCR0_ALL  0xe7ull /* x87, SSE, AVX, AVX-512 */
#define SPACES    64u     /* address spaces whose record is kept */
#define WORTH_NS  1000000 /* a run that is shorter has cost more than it gave */
#define SKIP_MAX  8u      /* then 2, 4, ... 256 chances are let go by */
#define ROOT_MASK 0x000ffffffffff000ull

struct space {
	uint64_t root;
	uint32_t skip, bad;
};

struct direct {
	enum msg_direct when;
	unsigned n;
	uint64_t turns;
	struct {
		struct stub stub;
		struct pages pages;
		uint64_t root, used; /* 0: of nobody; the turn it was used last */
	} s[MSG_STUBS];
	struct space space[SPACES];
};

int direct_init(struct vcpu *v, enum msg_direct when, const int channels[MSG_STUBS])
{
	struct direct *d = memory_anon(sizeof *d);
	int rc;

	if (!d)
		return -ENOMEM;
	d->when = when;
	for (int i = 0; i < MSG_STUBS; i++) {
		if (channels[i] < 0)
			continue;
		rc = stub_init(&d->s[d->n].stub, channels[i]);
		if (!rc)
			rc = pages_init(&d->s[d->n].pages, &d->s[d->n].stub, v);
		if (rc)
			return rc;
		d->n++;
	}
	v->vm->stubs = d;
	v->vm->direct = direct_run;
	v->direct_mode = when == DIRECT_ALWAYS ? DIRECT_EACH_RETURN : DIRECT_AFTER_TICK;
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- what can run in a stub at all ---- */

static bool null_segment(const struct vcpu *v, unsigned seg)
{
	return !(v->seg[seg].sel & ~3u);
}

/* The host's kernel takes no base of the upper half. */
static bool base_ok(const struct vcpu *v, unsigned seg)
{
	return v->seg[seg].base < STUB_TASK_END;
}

static bool state_ok(const struct vcpu *v)
{
	const uint32_t bad = MODE_CS32 | MODE_CS16 | MODE_NOFPU | MODE_NOSSE | MODE_NOAVX | MODE_REAL;

	return v->cpl == 3 && v->iflag && !v->nmi_blocked && !(v->mode & bad) && (v->efer & EFER_LMA) &&
	       !(v->sysflags & (RFL_TF | RFL_VM | RFL_NT | RFL_ID /* rt_sigreturn sets neither */)) &&
	       !(v->dr[7] & 0xff) && !v->a20_off && v->seg[SEG_CS].sel == SELECT_CS64 &&
	       v->seg[SEG_SS].sel == SELECT_DATA && null_segment(v, SEG_DS) && null_segment(v, SEG_ES) &&
	       null_segment(v, SEG_FS) && null_segment(v, SEG_GS) && base_ok(v, SEG_FS) && base_ok(v, SEG_GS) &&
	       v->rip < STUB_TASK_END;
}

/* ---- which stub ---- */

static int stub_for(struct direct *d, struct vcpu *v, uint64_t root)
{
	int best = -1;

	d->turns++;
	for (unsigned i = 0; i < d->n; i++) {
		if (d->s[i].stub.dead)
			continue;
		if (d->s[i].root == root && d->s[i].used) {
			best = (int)i;
			break;
		}
		if (best < 0 || d->s[i].used < d->s[best].used)
			best = (int)i;
	}
	if (best < 0)
		return -1;
	if (d->s[best].root != root || !d->s[best].used) {
		d->s[best].root = root;
		if (!pages_clear(&d->s[best].pages, v))
			return -1;
	}
	d->s[best].used = d->turns;
	return best;
}

static struct space *space_of(struct direct *d, uint64_t root)
{
	struct space *s = &d->space[(root >> GUEST_PAGE_SHIFT) % SPACES];

	if (s->root != root)
		*s = (struct space){.root = root};
	return s;
}

/* ---- stops ---- */

#define VSYSCALL 0xffffffffff600000ull

/* Back to the instruction that trapped, where the host leaves rip behind it. */
static void rewind_trap(struct pages *p, struct vcpu *v, const struct stub_stop *why)
{
	if (why->signal == SIGSYS && why->code == 1 && why->call_addr - VSYSCALL <= GUEST_PAGE_MASK) {
		v->rip = why->call_addr; /* the host has returned from there already */
		v->regs[R_SP] -= 8;
	} else if (why->signal == SIGSYS) {
		v->rip -= 2;
	} else if (why->signal == SIGTRAP && why->vector == EXC_BP) {
		v->rip -= pages_byte(p, v, v->rip - 1) == 0xcc ? 1 : 2;
	} else if (why->signal == SIGTRAP && why->vector == EXC_DB && (v->sysflags & RFL_TF)) {
		raise_exception(v, EXC_DB); /* the instruction has run */
		v->exc_dr6 = 1u << 14;
	} else if (why->signal == SIGTRAP && why->vector == EXC_DB) {
		v->rip -= 1; /* int1 */
	} else if (why->signal == SIGSEGV && why->vector == EXC_OF) {
		v->rip -= 2; /* int 4 */
	}
}

/* True: guest code can go on in the stub. */
static bool stopped(struct pages *p, struct vcpu *v, const struct stub_stop *why)
{
	if (v->exc_pending)
		return false;
	if (why->signal == SIGSEGV && why->vector == EXC_PF) {
		v->stats.direct_faults++;
		return state_ok(v) && pages_fault(p, v, why->address, why->error);
	}
	rewind_trap(p, v, why);
	return false;
}

/* False: no instruction has run. */
static bool run(struct direct *d, struct vcpu *v, int i)
{
	struct pages *p = &d->s[i].pages;
	struct stub *s = &d->s[i].stub;
	struct stub_stop why;
	bool ran = false, on = true;

	v->stats.direct_runs++;
	while (on && !atomic_load(&v->pending) && pages_check(p, v) && stub_go(s, v)) {
		on = stub_wait(s, v, &why);
		ran |= on;
		on = on && stopped(p, v, &why);
	}
	return ran;
}

static bool let_go_by(struct direct *d, struct space *sp)
{
	if (d->when == DIRECT_ALWAYS || !sp->skip)
		return false;
	sp->skip--;
	return true;
}

bool direct_run(struct vcpu *v)
{
	struct direct *d = v->vm->stubs;
	uint64_t root = v->cr3 & ROOT_MASK, from;
	struct space *sp;
	bool ran;
	int i;

	v->direct_due = 0;
	sp = space_of(d, root);
	if (!state_ok(v) || let_go_by(d, sp))
		return false;
	i = stub_for(d, v, root);
	if (i < 0 || v->xcr0 != (d->s[i].stub.xstate & XCR0_ALL)) {
		v->stats.direct_refused++;
		return false;
	}
	from = now_ns();
	stub_block_kicks(true);
	ran = run(d, v, i);
	v->direct_due = atomic_load(&v->pending) != 0; /* once that is done */
	stub_block_kicks(false);
	if (now_ns() - from >= WORTH_NS) {
		sp->bad = 0;
	} else {
		sp->bad += sp->bad < SKIP_MAX;
		sp->skip = 1u << sp->bad;
	}
	return ran && !v->exc_pending;
}
