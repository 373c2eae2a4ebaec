/*
 * One virtual CPU: its parts put together, and what everybody may do with it.
 *
 * While translated code runs, the guest's general registers, arithmetic flags,
 * DF and x87/SSE/AVX state are in the host's registers; gs points at struct
 * vcpu or is the distance of a window, and then fs, the thread's own as ever,
 * lies at a fixed distance from struct vcpu.  In C the general registers are in regs[], the flags behind
 * vcpu_rflags(), and the extended state is still in the host's registers until
 * vcpu_fpu_out() saves it.  All C of this process is built with
 * -mgeneral-regs-only: call vcpu_fpu_out() before entering a library that may
 * use vector registers.
 */
#ifndef HVX_VCPU_H
#define HVX_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "vcpu/bt/bt_cpu.h"
#include "vcpu/cpu/state.h"
#include "vcpu/mmu/soft_tlb.h"
#include "vcpu/vm.h"
#include "vcpu/world.h"

/* Things for the vcpu thread to do at the next block boundary. */
#define PEND_INTR  (1u << 0) /* the platform has a vector to deliver (INTR) */
#define PEND_NMI   (1u << 1)
#define PEND_TIMER (1u << 2)  /* a platform timer's deadline has passed */
#define PEND_RESET (1u << 3)  /* reset the VM */
#define PEND_STOP  (1u << 4)  /* leave vcpu_run() */
#define PEND_PAUSE (1u << 5)  /* wait until cleared */
#define PEND_FLUSH (1u << 6)  /* another thread asks for invalidation */
#define PEND_CALL  (1u << 7)  /* a device process calls for an interrupt */
#define PEND_WORLD (1u << 8)  /* somebody waits for this CPU to be at a boundary (world.h) */
#define PEND_START (1u << 9)  /* INIT, or a start-up IPI */
#define PEND_A20   (1u << 11) /* this CPU has switched address line 20: the others follow */
#define PEND_HOLD  (1u << 10) /* the VM has used its CPU time: wait until cleared */

/* Why vcpu_run() came back. */
enum vm_exit { VM_EXIT_NONE, VM_EXIT_POWEROFF, VM_EXIT_RESET, VM_EXIT_TRIPLE_FAULT, VM_EXIT_DEBUG, VM_EXIT_STOPPED };

struct vcpu_stats { /* all counted by the vcpu's thread; names as in `hvx-monitor stats` */
/* clang-format off: one a line */
#define VCPU_STATS(X)       \
	X(blocks)           \
	X(guest_bytes)      \
	X(host_bytes)       \
	X(guest_insns)      \
	X(code_flushes)     \
	X(dispatches)       \
	X(links)            \
	X(jc_misses)        \
	X(tlb_misses)       \
	X(tlb_flushes)      \
	X(tlb_page_flushes) \
	X(walks)            \
	X(exceptions)       \
	X(page_faults)      \
	X(interrupts)       \
	X(kicks)            \
	X(hlts)             \
	X(helpers)          \
	X(mmio)             \
	X(pio)              \
	X(cross_page)       \
	X(unaligned)        \
	X(smc_writes)       \
	X(smc_blocks)       \
	X(signals)          \
	X(single_steps)     \
	X(msr_reads)        \
	X(msr_writes)       \
	X(cr3_loads)        \
	X(bank_hits)        \
	X(halt_polls)       \
	X(string_helpers)   \
	X(host_faults)      \
	X(cpuids)           \
	X(doorbells)        \
	X(doorbell_wakes)   \
	X(device_flushes)   \
	X(combo_fails)      \
	X(refused_code)     \
	X(mode_flushes)     \
	X(lock_waits)       \
	X(yields)           \
	X(window_faults)    \
	X(window_maps)      \
	X(window_withdrawn) \
	X(window_flushes)   \
	X(window_evictions) \
	X(window_refused)   \
	X(window_off)       \
	X(direct_runs)      \
	X(direct_faults)    \
	X(direct_maps)      \
	X(direct_refused)
/* clang-format on */
#define X(n) uint64_t n;
	VCPU_STATS(X)
#undef X
};

/* How the next instruction is to run; what is not NEXT_ANY leads to the run loop, which clears it. */
enum next_how {
	NEXT_ANY,
	NEXT_ALONE,    /* by itself */
	NEXT_APART,    /* its block with one check per access */
	NEXT_EXPLICIT, /* by itself, its explicit operand in a buffer */
	NEXT_STACK,    /* the same for its implicit stack operand */
};
struct next_run {
	uint8_t how;
	uint8_t acc, ss; /* with an operand: ACC_*; through SS */
	uint16_t size;
	uint16_t piece; /* checked and accessed in pieces of so many bytes */
	uint64_t gva;
	uint64_t bytes; /* a bit per byte that counts */
};

/* What translated code and those who serve it hand to each other; reached through gs:[offset], asserted in bt/offsets.c. */
struct frame {
	uint64_t host_regs[16]; /* host registers as a slow path left the translated code */
	uint64_t ip_page;       /* user code: gva of the page the running block starts on */
	uint64_t engine_sp;     /* host stack of the run loop */
	struct vcpu *self;
	uint64_t scratch[4];
	uint64_t mem_gva; /* slow path: linear address, then the addend */
	uint64_t mem_addend;
	uint64_t resume;     /* host address to continue at after a slow path */
	uint32_t site;       /* which slow path or exit */
	uint32_t kick;       /* leave translated code at the next block boundary */
	uint32_t in_code;    /* translated code is running or being entered */
	uint16_t host_flags; /* host's flags as a slow path left the translated code, in the format of flags */
	uint32_t exit;       /* the direct exit that is left by */
	uint16_t fault_vector,
		fault_error; /* of the host fault that left the translated code: at mem_gva if it has an address */
#define VCPU_COMBOS 8
	uint64_t combo[VCPU_COMBOS];                      /* addends of the running block's groups of accesses */
	uint64_t pext_mask;                               /* selects the soft TLB index out of an address */
	uint64_t bounce_stack;                            /* as bounce, for the implicit stack operand */
	uint8_t bounce[128] __attribute__((aligned(64))); /* stands in for an operand in MMIO or across pages */
	struct {
		uint8_t index[64], mask[64], dst[64]; /* its registers, as they were before it */
	} gather __attribute__((aligned(64))); /* the gather that runs in translated code (bt/translate_gather.c) */
};

/* Each part by its name, and its fields as if they were the vcpu's. */
#define VCPU_PART(type)           \
	union {                   \
		struct type type; \
		struct type;      \
	}

struct vcpu {
	VCPU_PART(frame);
	VCPU_PART(cpu);
	int id;
	uint32_t apic_id; /* that it has from reset on */
	pid_t tid;
	struct vm *vm;
	struct bt *bt;
	struct world_cpu world;
	struct vcpu_stats stats;
	uint32_t exit_reason; /* enum vm_exit set by helpers or the platform */
	int exit_code;        /* with VM_EXIT_DEBUG */
	struct next_run next;
	uint64_t window_at;              /* host address of the last fault in the window whose page was there */
	uint32_t window_vain;            /* how often in a row */
	uint8_t direct_mode, direct_due; /* vcpu_returns_to_user() */
	uint8_t last_sysop;              /* enum sysop of the last helper */
	_Atomic uint8_t sleeping;        /* kick_sleep() */
	uint8_t settle;                  /* it waits for devices' resets before it goes on */
	uint8_t timers;                  /* so many of: */
	uint32_t halt_poll_ns;           /* how long HLT looks before it sleeps */
	timer_t timer[2]; /* post deadlines to this thread: its local APIC's, and at CPU 0 the platform's */
	VCPU_PART(mmu);
	VCPU_PART(bt_cpu);
};

/* ---- flags ---- */
uint64_t vcpu_rflags(const struct vcpu *v);            /* the whole register */
void vcpu_set_rflags(struct vcpu *v, uint64_t rflags); /* every bit, no privilege checks; recomputes mode */

/* ---- extended state: see the file comment ---- */
void vcpu_fpu_out(struct vcpu *v); /* save the guest's to fpu_area unless saved */
void vcpu_fpu_in(struct vcpu *v);  /* load it again; the run loop does this before translated code */

/* When ring 3 is to be run as it is (vm.direct): never; at the next return to it behind an interrupt that came there; at each. */
enum { DIRECT_NO, DIRECT_AFTER_TICK, DIRECT_EACH_RETURN };
/* Behind an instruction that may have gone to ring 3: the run loop looks, if it is due. */
static inline void vcpu_returns_to_user(struct vcpu *v)
{
	if (v->cpl != 3 || v->direct_mode == DIRECT_NO)
		return;
	v->direct_due |= v->direct_mode == DIRECT_EACH_RETURN;
	if (v->direct_due)
		v->kick = 1;
}

/* ---- raising (cpu/raise.c): record an exception for delivery at the current v->rip
 * (the faulting instruction's).  Always return -1 so that helpers can `return raise_gp(v, 0)`. ---- */
void raise_record(struct vcpu *v, unsigned vector, bool has_error, uint32_t error);
static inline int raise_exception(struct vcpu *v, unsigned vector) /* no error code */
{
	raise_record(v, vector, false, 0);
	return -1;
}
static inline int raise_error(struct vcpu *v, unsigned vector, uint32_t error) /* with error code */
{
	raise_record(v, vector, true, error);
	return -1;
}
static inline int raise_pf(struct vcpu *v, uint64_t gva, uint32_t error) /* #PF */
{
	v->exc_cr2 = gva;
	return raise_error(v, EXC_PF, error);
}
static inline int raise_gp(struct vcpu *v, uint32_t error)
{
	return raise_error(v, EXC_GP, error);
}
static inline int raise_ud(struct vcpu *v)
{
	return raise_exception(v, EXC_UD);
}

/* Recomputes v->mode, v->seg_base[] after any change of CR0, CR4, EFER, CPL, AC, TF, segments, XCR0.
 * (cpu/mode.c) */
void vcpu_update_mode(struct vcpu *v);

/* ---- running (run.c) ---- */
struct vcpu *vcpu_create(struct vm *vm, int id);
void vcpu_destroy(struct vcpu *v);
/* Runs the guest on the calling thread until an exit; returns enum vm_exit. */
int vcpu_run(struct vcpu *v);
/* The vcpu's deadline timers: created before the process is sealed, on the thread that will call vcpu_run();
 * 0 or -errno.  vcpu_arm: next deadline in CLOCK_MONOTONIC ns, UINT64_MAX for none; from any thread. */
enum { VCPU_TIMER_APIC, VCPU_TIMER_PLATFORM /* of CPU 0 alone */ };
static inline unsigned vcpu_timers(const struct vcpu *v)
{
	return v->id ? VCPU_TIMER_APIC + 1 : VCPU_TIMER_PLATFORM + 1;
}
int vcpu_thread_init(struct vcpu *v);
void vcpu_arm(struct vcpu *v, unsigned timer, uint64_t deadline_ns);
/* Part of it: gs is struct vcpu's, or the window's; then struct vcpu is found from the thread's pointer.  0 or -errno. */
int vcpu_set_segments(struct vcpu *v);
/* The stack for that thread; all threads of a VM that has a window need theirs from here.  0 or -errno. */
int vcpu_thread_attr(struct vcpu *v, pthread_attr_t *attr);
/* For tests: runs until v->rip == @stop_rip at an instruction boundary (0), an exception is pending (1), or @max_blocks
 * dispatches (2).  No block is translated past @stop_rip. */
int vcpu_run_until(struct vcpu *v, uint64_t stop_rip, uint64_t max_blocks);
/* Sets PEND_* bits and makes the vcpu notice: from any thread, async-signal-safe. */
void vcpu_kick(struct vcpu *v, uint32_t pend);

#endif
