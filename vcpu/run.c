/*
 * The run loop of one vcpu: events, block dispatch, and the instructions that
 * have to run alone (steps, bounced operands).
 * Invariant: every pass starts with guest state exact in struct vcpu.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/gmem.h"
#include "common/memory.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/exits.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/exception.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/kick.h"
#include "vcpu/mmu/bank.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/mmu/window.h"
#include "vcpu/trace.h"
#include "vcpu/vcpu.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/*
 * A vcpu's memory: struct vcpu, and behind it the stack of its thread.  Translated code reaches struct vcpu by its distance from
 * the thread's pointer where gs is a window's: this way the distance is the same for all.
 */
#define VCPU_SIZE  ((sizeof(struct vcpu) + 0x1fffff) & ~0x1ffffful)
#define STACK_SIZE (2ul << 20)

int vcpu_thread_attr(struct vcpu *v, pthread_attr_t *attr)
{
	const size_t guard = 16 * (GUEST_PAGE_MASK + 1);
	uint8_t *stack = (uint8_t *)v + VCPU_SIZE + guard;

	if (mprotect(stack - guard, guard, PROT_NONE) < 0)
		return -errno;
	return -pthread_attr_setstack(attr, stack, STACK_SIZE - guard);
}

struct vcpu *vcpu_create(struct vm *vm, int id)
{
	struct vcpu *v = memory_anon(VCPU_SIZE + STACK_SIZE);

	if (!v)
		return NULL;
	v->self = v;
	struct topology t = vm_topology(vm);

	v->id = id;
	v->apic_id = topology_apic_id(&t, (uint32_t)id);
	v->vm = vm;
	v->bt = vm->bt;
	vm->vcpu[id] = v;
	cells_create(v);
	v->hook = &bt_mmu_hook;
	bank_create(v); /* without them address spaces are flushed */
	branches_create(v);
	tlb_init(v);
	return v;
}

void vcpu_destroy(struct vcpu *v)
{
	for (unsigned i = 0; i < v->timers; i++)
		timer_delete(v->timer[i]);
	v->vm->vcpu[v->id] = NULL;
	bank_destroy(v);
	branches_destroy(v);
	memory_anon_free(v, VCPU_SIZE + STACK_SIZE);
}

int vcpu_set_segments(struct vcpu *v)
{
	const struct window *w = v->vm->window;
	int64_t from_fs = (int64_t)((uintptr_t)v - (uintptr_t)__builtin_thread_pointer());

	glue_set_self(v);
	if (w && (from_fs != (int32_t)from_fs || (v->bt->vcpu_delta && v->bt->vcpu_delta != from_fs)))
		return -ERANGE;
	v->bt->vcpu_delta = w ? (int32_t)from_fs : 0;
	return syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, w ? window_delta(w) : (uint64_t)(uintptr_t)v) < 0
		       ? -errno
		       : 0;
}

int vcpu_thread_init(struct vcpu *v)
{
	struct sigevent se;
	int r;

	kick_thread(v);
	r = fault_install();
	if (!r)
		r = fault_init_thread();
	if (r < 0)
		return r;
	r = vcpu_set_segments(v);
	if (r < 0)
		return r;
	memset(&se, 0, sizeof se);
	se.sigev_notify = SIGEV_THREAD_ID;
	se.sigev_signo = SIGUSR1;
	se.sigev_notify_thread_id = v->tid;
	for (; v->timers < vcpu_timers(v); v->timers++)
		if (timer_create(CLOCK_MONOTONIC, &se, &v->timer[v->timers]) < 0)
			return -errno;
	return 0;
}

void vcpu_arm(struct vcpu *v, unsigned timer, uint64_t deadline_ns)
{
	/* goes on every 10 ms until the platform's timers have been looked at: a lost kick costs time, never a hang */
	struct itimerspec its = {.it_value = {0, 0}, .it_interval = {0, 10000000}};

	if (timer >= v->timers)
		return;
	if (deadline_ns != UINT64_MAX) {
		its.it_value.tv_sec = (time_t)(deadline_ns / 1000000000u);
		its.it_value.tv_nsec = (long)(deadline_ns % 1000000000u);
		if (!its.it_value.tv_sec && !its.it_value.tv_nsec)
			its.it_value.tv_nsec = 1;
	}
	timer_settime(v->timer[timer], TIMER_ABSTIME, &its, NULL);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool wakes(const struct vcpu *v, uint32_t pending)
{
	bool open = v->halted != HALTED_SIPI;

	return (pending & ~(PEND_INTR | PEND_NMI)) || (open && (pending & PEND_NMI) && !v->nmi_blocked) ||
	       (open && (pending & PEND_INTR) && v->iflag) || v->exit_reason;
}

/*
 * A sleeping thread wakes up late, by tens of microseconds on a host that is a VM itself.  So HLT looks for a while whether
 * something comes, where that has been worth it lately: @halt_poll_ns grows while waits are short enough to be waited out,
 * and is given up after one that was not.  While more CPUs of the guest are awake than the host has for them it is not done:
 * the time would be another's.
 */
#define HALT_POLL_MIN 10000u
#define HALT_POLL_MAX 200000u

static void poll_halt(struct vcpu *v, uint64_t from)
{
	uint64_t end = from + v->halt_poll_ns;

	if (atomic_load(&v->vm->awake) > v->vm->host_cpus)
		return;
	for (uint64_t now = from; now < end && !wakes(v, atomic_load(&v->pending)); now = now_ns())
		__builtin_ia32_pause();
}

static void adapt_halt_poll(struct vcpu *v, uint64_t waited)
{
	if (waited <= v->halt_poll_ns)
		v->stats.halt_polls++;
	else if (waited > HALT_POLL_MAX)
		v->halt_poll_ns = 0;
	else if (v->halt_poll_ns < HALT_POLL_MAX)
		v->halt_poll_ns = v->halt_poll_ns ? 2 * v->halt_poll_ns : HALT_POLL_MIN;
	if (v->halt_poll_ns > HALT_POLL_MAX)
		v->halt_poll_ns = HALT_POLL_MAX;
}

/* HLT: sleeps until something pending wakes the CPU or a platform timer is due. */
static void halt(struct vcpu *v)
{
	uint64_t from = now_ns();
	uint32_t p;

	v->stats.hlts++;
	world_leave(v);
	poll_halt(v, from);
	kick_sleep(v, true);
	atomic_fetch_sub(&v->vm->awake, 1);
	while (!wakes(v, p = atomic_load(&v->pending))) {
		uint64_t due = platform_next_deadline(v->vm->plat, v), now = now_ns();
		struct timespec ts = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};

		if (due <= now) {
			platform_run_timers(v->vm->plat, v, now);
			continue;
		}
		syscall(SYS_futex, &v->pending, FUTEX_WAIT_BITSET_PRIVATE, p, due == UINT64_MAX ? NULL : &ts, NULL,
			FUTEX_BITSET_MATCH_ANY);
	}
	atomic_fetch_add(&v->vm->awake, 1);
	kick_sleep(v, false); /* still halted: what is delivered ends that */
	world_enter(v);
	adapt_halt_poll(v, now_ns() - from);
}

static void wait_paused(struct vcpu *v, uint32_t why)
{
	uint32_t p;

	for (unsigned i = 0; i < v->timers; i++)
		vcpu_arm(v, i, UINT64_MAX); /* they would go off all the time */
	world_leave(v);
	kick_sleep(v, true);
	while ((p = atomic_load(&v->pending)) & why && !(p & (PEND_STOP | PEND_RESET | PEND_FLUSH)))
		syscall(SYS_futex, &v->pending, FUTEX_WAIT_PRIVATE, p, NULL, NULL, 0);
	kick_sleep(v, false);
	platform_rearm(v->vm->plat, v);
	world_enter(v);
}

static void deliver_interrupt(struct vcpu *v)
{
	int vec = platform_ack_intr(v->vm->plat, v);

	if (vec < 0)
		return;
	v->halted = 0;
	if (v->cpl == 3 && v->direct_mode)
		v->direct_due = 1;
	v->stats.interrupts++;
	trace(TRACE_IRQ, "vector %02x at %llx", (unsigned)vec, (unsigned long long)v->rip);
	if (cpu_deliver(v, (unsigned)vec, EVENT_INTR, false, 0))
		v->exit_reason = VM_EXIT_TRIPLE_FAULT;
}

static void follow_a20(struct vcpu *v, void *arg)
{
	(void)arg;
	mmu_set_a20(v, v->vm->a20);
}

/* Handles what is pending; true when the pass is over. */
static bool handle_events(struct vcpu *v)
{
	uint32_t p = atomic_load(&v->pending);

	if (p & PEND_WORLD)
		world_serve(v);
	v->storing_frame = 0; /* that store is done */
	if (p & PEND_STOP) {
		v->exit_reason = VM_EXIT_STOPPED;
		return true;
	}
	if (p & PEND_RESET) {
		v->exit_reason = VM_EXIT_RESET;
		return true;
	}
	if (p & PEND_A20) {
		atomic_fetch_and(&v->pending, ~PEND_A20);
		world_on(v->vm, WORLD_ALL, follow_a20, NULL);
	}
	if (p & PEND_FLUSH) {
		atomic_fetch_and(&v->pending, ~PEND_FLUSH);
		if (v->vm->invalidate)
			v->vm->invalidate(v, v->vm->cards);
	}
	if (p & (PEND_PAUSE | PEND_HOLD)) {
		vcpu_fpu_out(v);
		wait_paused(v, PEND_PAUSE | PEND_HOLD);
		return true;
	}
	if (p & PEND_CALL) {
		atomic_fetch_and(&v->pending, ~PEND_CALL);
		if (v->vm->called)
			v->vm->called(v, v->vm->cards);
		p = atomic_load(&v->pending);
	}
	if (p & PEND_TIMER) {
		atomic_fetch_and(&v->pending, ~PEND_TIMER);
		platform_run_timers(v->vm->plat, v, now_ns());
		p = atomic_load(&v->pending);
	}
	if (p & PEND_START) {
		cpu_take_start(v);
		return true;
	}
	if (v->halted == HALTED_SIPI) {
		vcpu_fpu_out(v);
		halt(v);
		return true;
	}
	if (v->exc_pending) {
		trace(TRACE_EXC, "#%u error %x cr2 %llx at %llx", v->exc_vector, v->exc_error,
		      (unsigned long long)v->exc_cr2, (unsigned long long)v->rip);
		v->int_shadow = v->db_held = 0; /* they end, or are lost, with the instruction that did not run */
		if (cpu_deliver_pending(v))
			v->exit_reason = VM_EXIT_TRIPLE_FAULT;
		return true;
	}
	if (!v->int_shadow && (p & PEND_NMI) && !v->nmi_blocked) {
		atomic_fetch_and(&v->pending, ~PEND_NMI);
		v->halted = 0;
		if (cpu_deliver(v, EXC_NMI, EVENT_NMI, false, 0))
			v->exit_reason = VM_EXIT_TRIPLE_FAULT;
		return true;
	}
	if (!v->int_shadow && (p & PEND_INTR) && v->iflag) {
		deliver_interrupt(v);
		return true;
	}
	if (v->halted) {
		vcpu_fpu_out(v);
		halt(v);
		return true;
	}
	return false;
}

/* Runs one block that must not be interrupted by a kick before it has run. */
static void enter_alone(struct vcpu *v, uint32_t b)
{
	bool kicked = false;

	vcpu_fpu_in(v);
	while (v->kick = 0, bt_enter(v, bt_rx(v->bt, v->bt->blocks[b].host_s)) == BT_KICKED)
		kicked = true;
	if (kicked)
		v->kick = 1;
}

/* An operand that goes through a buffer, in pieces that are checked and accessed each by itself. */
struct bounced {
	uint64_t gva;
	uint64_t bytes; /* a bit per byte that counts: all of a piece or none of it */
	unsigned size, acc, piece;
	bool ss;
	uint8_t *buf;
};

static bool piece_counts(const struct bounced *o, unsigned off)
{
	return o->bytes >> off & 1;
}

static uint64_t piece_at(const struct vcpu *v, const struct bounced *o, unsigned off)
{
	uint64_t gva = o->gva + off;

	return mode_long(v->mode) ? gva : (uint32_t)gva;
}

/* May the piece be accessed, as far as can be told without reading it? */
static int piece_check(struct vcpu *v, const struct bounced *o, unsigned off)
{
	uint64_t gva = piece_at(v, o, off), last = gva + o->piece - 1;
	unsigned acc = mmu_acc(v, ACC_W);
	struct walk w;

	if (!piece_counts(o, off))
		return 0;
	if (mode_long(v->mode) ? !is_canonical(gva) || !is_canonical(last) : last > UINT32_MAX && v->amd)
		return raise_error(v, o->ss ? EXC_SS : EXC_GP, 0);
	if (!mode_long(v->mode))
		last = (uint32_t)last;
	if (!(o->acc & ACC_W))
		return 0;
	if (mmu_walk(v, gva, acc, &w) < 0)
		return -1;
	return (gva ^ last) & ~GUEST_PAGE_MASK ? mmu_walk(v, last & ~GUEST_PAGE_MASK, acc, &w) : 0;
}

/* Of the two pieces of maskmovdqu's operand Intel's CPUs look at the upper one first. */
static int pieces_check(struct vcpu *v, const struct bounced *o)
{
	if (!v->amd && o->piece < o->size) {
		for (unsigned off = o->size; off; off -= o->piece)
			if (piece_check(v, o, off - o->piece) < 0)
				return -1;
		return 0;
	}
	for (unsigned off = 0; off < o->size; off += o->piece)
		if (piece_check(v, o, off) < 0)
			return -1;
	return 0;
}

/* Bytes of the piece at @gva that lie below 4 GiB, where code is not 64-bit: the rest goes on at 0. */
static unsigned piece_head(const struct vcpu *v, const struct bounced *o, uint64_t gva)
{
	uint64_t room = (1ull << 32) - gva;

	return mode_long(v->mode) || o->piece <= room ? o->piece : (unsigned)room;
}

static int piece_read(struct vcpu *v, const struct bounced *o, unsigned off)
{
	uint64_t gva = piece_at(v, o, off);
	unsigned head = piece_head(v, o, gva), acc = mmu_acc(v, ACC_R);

	if (mmu_read(v, gva, o->buf + off, head, acc) < 0)
		return -1;
	return head < o->piece ? mmu_read(v, 0, o->buf + off + head, o->piece - head, acc) : 0;
}

static void piece_write(struct vcpu *v, const struct bounced *o, unsigned off)
{
	uint64_t gva = piece_at(v, o, off);
	unsigned head = piece_head(v, o, gva), acc = mmu_acc(v, ACC_W);

	mmu_write(v, gva, o->buf + off, head, acc);
	if (head < o->piece)
		mmu_write(v, 0, o->buf + off + head, o->piece - head, acc);
}

/*
 * An instruction whose operand is no plain RAM within one page: read the operand into the bounce buffer, run the instruction
 * on the buffer, write it back.  Both ends are checked first, so a fault leaves nothing half done.
 */
static int bounce_prepare(struct vcpu *v, const struct bounced *o)
{
	if (pieces_check(v, o) < 0)
		return -1;
	if (o->acc & ACC_R)
		for (unsigned off = 0; off < o->size; off += o->piece)
			if (piece_counts(o, off) && piece_read(v, o, off) < 0)
				return -1;
	return 0;
}

static void bounce_finish(struct vcpu *v, const struct bounced *o)
{
	if (o->acc & ACC_W)
		for (unsigned off = 0; off < o->size; off += o->piece)
			if (piece_counts(o, off))
				piece_write(v, o, off);
}

static bool next_is_bounced(const struct vcpu *v)
{
	return v->next.how == NEXT_EXPLICIT || v->next.how == NEXT_STACK;
}

static void bounce(struct vcpu *v)
{
	struct bounced o[2] = {{.buf = v->bounce}, {.buf = (uint8_t *)&v->bounce_stack}};
	uint32_t extra = MODE_STEP, b;

	while (next_is_bounced(v) && !v->exc_pending) {
		struct next_run n = v->next;
		int k = n.how == NEXT_STACK;

		v->next.how = NEXT_ANY;
		o[k].gva = n.gva;
		o[k].bytes = n.bytes;
		o[k].size = n.size;
		o[k].acc = n.acc;
		o[k].piece = n.piece;
		o[k].ss = n.ss;
		extra |= k ? MODE_BOUNCE_STACK : MODE_BOUNCE;
		if (bounce_prepare(v, &o[k]) < 0)
			return;
		b = bt_find(v, extra);
		if (b == BT_NONE)
			return;
		enter_alone(v, b);
	}
	for (int k = 0; k < 2 && !v->exc_pending; k++)
		bounce_finish(v, &o[k]);
}

/* Is the instruction at rip, which reads and writes its operand, to be atomic?  (SDM 3A 9.1) */
static bool next_is_locked(struct vcpu *v)
{
	uint32_t b;

	if (v->vm->ncpus == 1 || v->next.how != NEXT_EXPLICIT || v->next.acc != (ACC_R | ACC_W))
		return false;
	b = bt_find(v, MODE_STEP | MODE_BOUNCE);
	return b != BT_NONE && v->bt->blocks[b].locked;
}

/* What is atomic on the bus is so here while no other CPU runs. */
static void run_bounced(struct vcpu *v)
{
	bool locked = next_is_locked(v);

	if (v->exc_pending)
		return;
	v->stats.cross_page++;
	if (locked)
		world_stop(v->vm);
	bounce(v);
	if (locked)
		world_go(v->vm);
}

/* Instruction breakpoint at rip?  RF suppresses it once (SDM 3B 18.3.1.1). */
static bool code_breakpoint(struct vcpu *v)
{
	if (!(v->dr[7] & 0xff) || (v->sysflags & RFL_RF))
		return false;
	for (int i = 0; i < 4; i++)
		if ((v->dr[7] >> (2 * i) & 3) && !(v->dr[7] >> (16 + 4 * i) & 3) && v->dr[i] == v->rip)
			v->db_hits |= (uint8_t)(1u << i);
	if (!v->db_hits)
		return false;
	v->exc_dr6 = v->db_hits | v->db_held;
	v->db_hits = v->db_held = 0;
	raise_exception(v, EXC_DB);
	return true;
}

/* Behind mov ss Intel's CPUs meet no instruction breakpoint (SDM 3A 6.8.3); AMD's do, as tests/guest/prog/movss.c showed. */
static bool no_code_breakpoint(const struct vcpu *v)
{
	return v->int_shadow == 2 && !v->amd;
}

static bool traps_after(uint8_t op)
{
	switch (op) {
	case SYS_INT:
	case SYS_INT1:
	case SYS_INT3:
	case SYS_INTO:
	case SYS_SYSCALL:
	case SYS_SYSENTER: return false;
	default: return true;
	}
}

/* Runs exactly one instruction, with what single-stepping and breakpoints want after it. */
static void step(struct vcpu *v)
{
	bool tf = v->sysflags & RFL_TF;
	bool at_end = bt_cs_limit_near(v);
	uint64_t dr6 = 0, rip = v->rip;
	uint32_t b, len;

	if (!no_code_breakpoint(v) && code_breakpoint(v))
		return;
	v->stats.single_steps++;
	v->last_sysop = SYS_NONE;
	v->db_hits = 0;
	v->next.how = NEXT_ANY;
	b = bt_find(v, MODE_STEP);
	if (b == BT_NONE)
		return;
	len = v->bt->blocks[b].len;
	if (at_end && rip + len - 1 > v->seg[SEG_CS].limit) {
		raise_gp(v, 0);
		return;
	}
	v->int_shadow = 0;
	v->sysflags &= ~RFL_RF; /* before it runs: an iret loads a new one */
	enter_alone(v, b);
	if (next_is_bounced(v))
		run_bounced(v);
	v->next.how = NEXT_ANY;
	if (v->exc_pending) {
		v->db_held = 0;
		return;
	}
	dr6 = v->db_hits | v->db_held;
	if (tf && traps_after(v->last_sysop))
		dr6 |= 1u << 14;
	v->db_hits = v->db_held = 0;
	if (v->int_shadow == 2) { /* mov ss and pop ss hold debug traps back for an instruction (SDM 3A 6.8.3) */
		v->db_held = (uint8_t)(dr6 & 15);
	} else if (dr6) {
		raise_exception(v, EXC_DB);
		v->exc_dr6 = dr6;
	}
}

/* The block at rip, in the form that the last one left for; RF does not outlive the instruction that begins here. */
static uint32_t find_next(struct vcpu *v)
{
	uint32_t extra = v->next.how == NEXT_APART ? MODE_NOCOMBINE : 0;

	v->next.how = NEXT_ANY;
	v->sysflags &= ~RFL_RF;
	return bt_find(v, extra);
}

static bool must_step(const struct vcpu *v)
{
	return v->int_shadow || v->next.how == NEXT_ALONE || (v->sysflags & RFL_TF) || (v->dr[7] & 0xff) ||
	       bt_cs_limit_near(v);
}

static void trace_exec(struct vcpu *v)
{
	trace(TRACE_EXEC, "%llx mode %x ax %llx bx %llx cx %llx dx %llx sp %llx", (unsigned long long)v->rip, v->mode,
	      (unsigned long long)v->regs[R_AX], (unsigned long long)v->regs[R_BX], (unsigned long long)v->regs[R_CX],
	      (unsigned long long)v->regs[R_DX], (unsigned long long)v->regs[R_SP]);
}

/* Guest code until it leaves. */
static void run_guest(struct vcpu *v)
{
	uint32_t b;

	if (next_is_bounced(v)) {
		run_bounced(v);
		return;
	}
	if (trace_on(TRACE_EXEC))
		trace_exec(v);
	if (must_step(v)) {
		step(v);
		return;
	}
	if (v->direct_due && v->cpl == 3 && v->next.how == NEXT_ANY && v->vm->direct(v))
		return;
	if (v->exc_pending)
		return;
	b = find_next(v);
	if (b == BT_NONE)
		return;
	v->stats.dispatches++;
	vcpu_fpu_in(v);
	bt_enter(v, bt_rx(v->bt, v->bt->blocks[b].host_s));
}

int vcpu_run(struct vcpu *v)
{
	world_enter(v);
	atomic_fetch_add(&v->vm->awake, 1);
	v->exit_reason = VM_EXIT_NONE;
	while (!v->exit_reason) {
		v->kick = 0;
		if (handle_events(v))
			v->next.how = NEXT_ANY; /* whatever runs next, it is not that instruction now */
		else
			run_guest(v);
	}
	vcpu_fpu_out(v);
	atomic_fetch_sub(&v->vm->awake, 1);
	world_leave(v);
	atomic_fetch_and(&v->pending, ~(PEND_STOP | PEND_RESET));
	return (int)v->exit_reason;
}

int vcpu_run_until(struct vcpu *v, uint64_t stop_rip, uint64_t max_blocks)
{
	if (v->bt->stop_rip != stop_rip) {
		bt_flush(v);
		v->bt->stop_rip = stop_rip;
	}
	world_enter(v);
	v->next.how = NEXT_ANY;
	v->exc_pending = 0;
	v->exit_reason = VM_EXIT_NONE;
	for (uint64_t i = 0; i < max_blocks && !v->exc_pending && (v->rip != stop_rip || next_is_bounced(v)); i++) {
		v->kick = 0;
		world_serve(v);
		v->storing_frame = 0;
		run_guest(v);
	}
	vcpu_fpu_out(v);
	world_leave(v);
	return v->exc_pending ? 1 : v->rip == stop_rip && !next_is_bounced(v) ? 0 : 2;
}
