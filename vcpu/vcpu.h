/*
 * One virtual CPU and the VM it belongs to.
 *
 * While translated code runs, the guest's general registers, arithmetic flags,
 * DF and x87/SSE/AVX state are in the host's registers and gs points at struct
 * vcpu.  In C the general registers are in regs[], the flags behind
 * vcpu_rflags(), and the extended state is still in the host's registers until
 * vcpu_fpu_out() saves it.  All C of this process is built with
 * -mgeneral-regs-only: call vcpu_fpu_out() before entering a library that may
 * use vector registers.
 */
#ifndef HVX_VCPU_H
#define HVX_VCPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "vcpu/bt/insn.h"

struct gmem;
struct platform;
struct locals;
struct bt;
struct bt_space;
struct mmu_hook;

/* ---- architectural constants (SDM 3A 2.5, 4.x; 3A 6.15) ---- */
#define RFL_CF    (1u << 0)
#define RFL_FIX   (1u << 1)
#define RFL_PF    (1u << 2)
#define RFL_AF    (1u << 4)
#define RFL_ZF    (1u << 6)
#define RFL_SF    (1u << 7)
#define RFL_TF    (1u << 8)
#define RFL_IF    (1u << 9)
#define RFL_DF    (1u << 10)
#define RFL_OF    (1u << 11)
#define RFL_IOPL  (3u << 12)
#define RFL_NT    (1u << 14)
#define RFL_RF    (1u << 16)
#define RFL_VM    (1u << 17)
#define RFL_AC    (1u << 18)
#define RFL_VIF   (1u << 19)
#define RFL_VIP   (1u << 20)
#define RFL_ID    (1u << 21)
#define RFL_ARITH (RFL_CF | RFL_PF | RFL_AF | RFL_ZF | RFL_SF | RFL_OF)

#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_NW (1u << 29)
#define CR0_CD (1u << 30)
#define CR0_PG (1u << 31)

#define CR4_VME        (1u << 0)
#define CR4_PVI        (1u << 1)
#define CR4_TSD        (1u << 2)
#define CR4_DE         (1u << 3)
#define CR4_PSE        (1u << 4)
#define CR4_PAE        (1u << 5)
#define CR4_MCE        (1u << 6)
#define CR4_PGE        (1u << 7)
#define CR4_PCE        (1u << 8)
#define CR4_OSFXSR     (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_UMIP       (1u << 11)
#define CR4_FSGSBASE   (1u << 16)
#define CR4_PCIDE      (1u << 17)
#define CR4_OSXSAVE    (1u << 18)
#define CR4_SMEP       (1u << 20)
#define CR4_SMAP       (1u << 21)

#define EFER_SCE   (1u << 0)
#define EFER_LME   (1u << 8)
#define EFER_LMA   (1u << 10)
#define EFER_NXE   (1u << 11)
#define EFER_FFXSR (1u << 14)
#define EFER_AIBRS (1u << 21)

enum {
	EXC_DE,
	EXC_DB,
	EXC_NMI,
	EXC_BP,
	EXC_OF,
	EXC_BR,
	EXC_UD,
	EXC_NM,
	EXC_DF,
	EXC_TS = 10,
	EXC_NP,
	EXC_SS,
	EXC_GP,
	EXC_PF,
	EXC_MF = 16,
	EXC_AC,
	EXC_MC,
	EXC_XM
};

/* Segment attributes: the descriptor's access byte in bits 0-7 (type 0-3, S 4, DPL 5-6,
 * P 7), AVL 12, L 13, D/B 14, G 15; limit is always in bytes.  SEG_NULL: a null selector. */
#define SEG_A_S    (1u << 4)
#define SEG_A_P    (1u << 7)
#define SEG_A_L    (1u << 13)
#define SEG_A_DB   (1u << 14)
#define SEG_A_G    (1u << 15)
#define SEG_A_NULL (1u << 16)
#define SEG_DPL(a) (((a) >> 5) & 3)

struct seg {
	uint64_t base;
	uint32_t limit;
	uint32_t attr;
	uint16_t sel;
};

struct dtable { /* GDTR, IDTR */
	uint64_t base;
	uint16_t limit;
};

/* ---- soft TLB (mmu/tlb.c): three of them, chosen by privilege ---- */
#define GUEST_PAGE_SHIFT 12
#define GUEST_PAGE_MASK  0xfffull
#define TLB_BITS         14
#define TLB_SIZE         (1u << TLB_BITS)
#define TLB_FILLED       1024
enum {
	TLB_USER,
	TLB_KERN,
	TLB_KERN_AC,
	TLB_COUNT
}; /* KERN: supervisor pages only (SMAP on and
                                                        AC clear); KERN_AC: all pages */
struct soft_tlb {
	uint64_t rtag[TLB_SIZE]; /* page's gva, or TLB_INVALID */
	uint64_t wtag[TLB_SIZE];
	uint64_t radd[TLB_SIZE]; /* hva - gva of the page in rtag */
	uint64_t wadd[TLB_SIZE]; /* of the page in wtag: another one, maybe */
	uint32_t n_filled;       /* indices filled since the last flush; TLB_FILLED and more: too many to list */
	uint16_t filled[TLB_FILLED];
};
#define TLB_INVALID 0x8000000000000001ull /* equals no masked address */

/* ---- jump caches: indirect branches; a table by mode_jc(), its entries of one mode: see bt/key.h ---- */
#define JC_USER32 TLB_COUNT /* after one for each soft TLB */
#define JC_CODE16 (JC_USER32 + 1)
#define JC_NOFPU  (JC_CODE16 + 1)
#define JC_COUNT  (2 * JC_NOFPU) /* the same again with MODE_NOFPU */
#define JC_UNUSED 0xffffffffu    /* in jc_mode[]: the table has never been used, its tags are not valid */
#define JC_BITS   14
#define JC_SIZE   (1u << JC_BITS)
#define JC_FACTOR 0x9e3779b1u
static inline unsigned jc_index(uint64_t gva)
{
	return ((uint32_t)gva * JC_FACTOR) >> (32 - JC_BITS);
}
#define JC_FILLED 4096
struct jump_cache {
	struct {
		uint64_t tag;  /* gva of the target, JC_INVALID */
		uint64_t host; /* indirect entry of its block */
	} e[JC_SIZE];
	uint32_t n_filled; /* as in soft_tlb */
	uint16_t filled[JC_FILLED];
};
#define JC_INVALID 0x8000000000000001ull

/* Things for the vcpu thread to do at the next block boundary. */
#define PEND_INTR  (1u << 0) /* the platform has a vector to deliver (INTR) */
#define PEND_NMI   (1u << 1)
#define PEND_TIMER (1u << 2) /* a platform timer's deadline has passed */
#define PEND_RESET (1u << 3) /* reset the VM */
#define PEND_STOP  (1u << 4) /* leave vcpu_run() */
#define PEND_PAUSE (1u << 5) /* wait until cleared */
#define PEND_FLUSH (1u << 6) /* another thread asks for invalidation */
#define PEND_CALL  (1u << 7) /* a device process calls for an interrupt */

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
	X(mode_flushes)
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
};

struct cpuid_entry { /* what CPUID answers; built once by cpu/cpuid.c */
	uint32_t leaf, subleaf, eax, ebx, ecx, edx;
};
#define CPUID_MAX 96

struct vcpu {
	/* -- reached by translated code through gs:[offset]; offsets asserted in bt/offsets.c -- */
	uint64_t regs[16];      /* guest GPRs when in C; in translated code the spill slot of each */
	uint64_t host_regs[16]; /* host registers as a slow path left the translated code */
	uint64_t rip;           /* guest rip when in C */
	uint64_t ip_page;       /* user code: gva of the page the running block starts on */
	uint64_t engine_sp;     /* host stack of the run loop */
	struct vcpu *self;
	uint64_t scratch[4];
	uint64_t seg_base[SEG_COUNT]; /* copies of seg[].base for address formation */
	uint64_t mem_gva;             /* slow path: linear address, then the addend */
	uint64_t mem_addend;
	uint64_t resume; /* host address to continue at after a slow path */
	uint64_t tsc_offset;
	uint64_t pext_mask;       /* selects the soft TLB index out of an address */
	uint32_t site;            /* which slow path or exit (bt/site.h) */
	uint16_t flags;           /* arithmetic flags when not in the host's: AH<<8 from lahf, bit 0 = OF */
	uint8_t df;               /* DF */
	uint8_t iflag;            /* IF */
	_Atomic uint32_t pending; /* PEND_* */
	uint32_t kick;            /* leave translated code at the next block boundary */
	uint32_t in_code;         /* translated code is running or being entered */
	uint16_t host_flags;      /* host's flags as a slow path left the translated code, in the format of flags */
	uint8_t pad0[2];
	uint32_t exit; /* the direct exit that is left by */
#define VCPU_COMBOS 8
	uint64_t combo[VCPU_COMBOS];                     /* addends of the running block's groups of accesses */
	uint64_t bounce_stack;                           /* as bounce, for the implicit stack operand */
	uint8_t bounce[64] __attribute__((aligned(64))); /* stands in for an operand in MMIO or across pages */
	struct {
		uint8_t index[32], mask[32], dst[32]; /* its registers, as they were before it */
	} gather __attribute__((aligned(32))); /* the gather that runs in translated code (bt/translate_gather.c) */

	/* -- architectural state, C only -- */
	uint32_t sysflags; /* rflags bits other than arith, DF, IF: TF IOPL NT RF VM AC VIF VIP ID */
	uint8_t cpl;
	uint8_t int_shadow; /* 1 (sti): interrupts wait for one instruction; 2 (mov ss, pop ss): debug traps too */
	uint8_t nmi_blocked;
	uint8_t halted;
	struct seg seg[SEG_COUNT], ldtr, tr;
	struct dtable gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8; /* cr8 mirrors the LAPIC's TPR bits 7:4 */
	uint64_t efer, xcr0;
	uint64_t dr[8];
	uint64_t pdpte[4]; /* PAE paging */
	uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t tsc_aux, pat, misc_enable, spec_ctrl, mtrr_def_type, mcg_status;
	uint64_t mtrr_fixed[11], mtrr_var[16];
	uint32_t mode; /* translation mode of the current state: MODE_*, cpu/mode.h */

	/* an exception raised by a helper, waiting for delivery */
	uint8_t exc_pending, exc_vector, exc_has_error,
		exc_soft; /* soft: int n, int3, into: rip is the next instruction's */
	uint32_t exc_error;
	uint64_t exc_cr2;
	uint32_t code_limit; /* of the last code segment under MODE_SLOWMEM */
	uint64_t code_base;  /* likewise */
	uint64_t exc_dr6;    /* bits to set in DR6 with #DB */

	/* extended state */
	struct x87_pointers {
		uint64_t ip, dp;
		uint16_t op, cs, ds;
	} x87;             /* the guest's, while the registers hold FPU_MARK (cpu/fpu.h) */
	uint8_t fpu_saved; /* fpu_area holds the guest's state, the host's registers do not */
	uint8_t fpu_area[4096] __attribute__((aligned(64)));

	/* -- the engine's own -- */
	int id;
	pid_t tid;
	struct vm *vm;
	struct bt *bt;
	struct vcpu_stats stats;
	uint32_t exit_reason;           /* enum vm_exit set by helpers or the platform */
	int exit_code;                  /* with VM_EXIT_DEBUG */
	uint16_t nonglobal[TLB_FILLED]; /* indices of TLB_KERN entries from non-global pages */
	uint32_t n_nonglobal;

	/* instruction fetch: page translations by user and supervisor (bt/lookup.c) */
#define FETCH_SIZE 512
	struct fetch_entry {
		uint64_t tag, gpa;
		uint64_t age; /* valid while fetch_age[global] is the same: flushes count on */
		uint32_t gen; /* bt.place_gen when its place was noted */
		uint8_t global;
	} fetch[2][FETCH_SIZE];
	uint64_t fetch_age[2], fetch_ages; /* of entries that hold: not global, global; the last one given out */
	uint32_t jc_mode[JC_COUNT];        /* of each jump cache's entries */
	struct bt_space *spaces;           /* bt/branches.c */
	struct banks *banks;               /* mmu/bank.c */
	const struct mmu_hook *hook;       /* mmu/mmu.h */
#define FETCH_FILTER_BITS 14
	uint64_t code_filter[2][1 << (FETCH_FILTER_BITS -
				      6)]; /* hashed pages that code was fetched from: upper half or global, the rest */
	uint64_t large_filter[64];         /* hashed 2 MiB regions with soft TLB entries from large pages */
	uint8_t have_1g;                   /* entries from 1 GiB pages */
	uint8_t fetch_global;              /* so are all pages of the block found last */
	uint8_t low_global;                /* global pages in the lower half of the address space */
	uint8_t jc_nonglobal;              /* supervisor jump caches hold targets in non-global pages */
	uint8_t last_sysop;                /* enum sysop of the last helper */
	uint8_t db_hits;                   /* data breakpoints the running instruction met */
	uint8_t db_held;                   /* the same, held back by mov ss */
	uint8_t sleeping;
	uint32_t halt_poll_ns; /* how long HLT looks before it sleeps */
	uint8_t has_timer;
	timer_t timer; /* posts the platform's next deadline to this thread */
	struct next_run next;

	/* reached by translated code, here so that what stands above keeps its place */
	uint64_t code_key;              /* 16-bit code: what its jump cache adds to offsets, from CS's base */
	uint64_t seg_top[2][SEG_COUNT]; /* MODE_SEGS: offsets below may be read, written; 0: let C look */

	struct soft_tlb tlb[TLB_COUNT] __attribute__((aligned(4096)));
	struct jump_cache jc[JC_COUNT] __attribute__((aligned(4096)));

/* Branch cells (bt/link.c): host targets of direct branches across pages. */
#define CELL_COUNT (1u << 17)
	uint64_t cells[CELL_COUNT];

	/* -- cpu/: fixed by cpu_reset() -- */
	uint64_t a20_off;   /* bit 20 while that address line is masked, else 0 */
	uint64_t phys_rsvd; /* physical address bits 51 and below that the guest's CPU lacks */
	uint64_t xcr0_mask; /* XCR0 bits offered */
	uint64_t cr4_mask;  /* CR4 bits offered */
	uint32_t mxcsr_mask;
	uint32_t xsave_caps; /* CPUID 0xd.1 EAX as offered: xsaveopt 1, xsavec 2, xgetbv(1) 4 */
	uint8_t amd;         /* AMD (or Hygon) rules where the vendors differ, else Intel's */
	uint64_t features;   /* what CPUID offers, as cpu/feature.h has it */
	uint64_t tsc_adjust;
	uint64_t amd_syscfg, amd_hwcr, amd_nb_cfg, amd_de_cfg; /* kept for the guest, without effect */
	uint64_t pv_time_msr, pv_wall_msr;                     /* cpu/pvclock.c */
	uint64_t msr_logged[4];                                /* hash filter: unknown MSRs that were logged already */
	struct cpuid_entry cpuid[CPUID_MAX];
	uint32_t n_cpuid;
};

struct vm {
	struct gmem *mem;
	struct platform *plat;
	struct bt *bt;
	int ncpus;
	struct vcpu *vcpu[64];
	const char *name;
	uint64_t tsc_hz; /* set before cpu_reset(); 0: guests must calibrate */
	/* PEND_FLUSH: translations of guest memory that others have written go; on the vcpu's thread.  May be NULL. */
	void (*invalidate)(struct vcpu *v, void *ctx);
	bool settle; /* the vcpu's thread waits for devices' resets before it goes on */
	/* PEND_CALL: device processes have called; on the vcpu's thread.  May be NULL. */
	void (*called)(struct vcpu *v, void *ctx);
	void *cards;
	struct locals *locals; /* devices on the main thread (local/local.h); may be NULL */
};

/* ---- flags ---- */
uint64_t vcpu_rflags(const struct vcpu *v);            /* the whole register */
void vcpu_set_rflags(struct vcpu *v, uint64_t rflags); /* every bit, no privilege checks; recomputes mode */

/* ---- extended state: see the file comment ---- */
void vcpu_fpu_out(struct vcpu *v); /* save the guest's to fpu_area unless saved */
void vcpu_fpu_in(struct vcpu *v);  /* load it again; the run loop does this before translated code */

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
/* The vcpu's deadline timer: created before the process is sealed, on the thread that will call vcpu_run();
 * 0 or -errno.  vcpu_arm: next deadline in CLOCK_MONOTONIC ns, UINT64_MAX for none; from any thread. */
int vcpu_thread_init(struct vcpu *v);
void vcpu_arm(struct vcpu *v, uint64_t deadline_ns);
/* For tests: runs until v->rip == @stop_rip at an instruction boundary (0), an exception is pending (1), or @max_blocks
 * dispatches (2).  No block is translated past @stop_rip. */
int vcpu_run_until(struct vcpu *v, uint64_t stop_rip, uint64_t max_blocks);
/* Sets PEND_* bits and makes the vcpu notice: from any thread, async-signal-safe. */
void vcpu_kick(struct vcpu *v, uint32_t pend);

#endif
