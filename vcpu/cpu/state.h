/*
 * The architectural state of one virtual CPU: what a program or a snapshot could know of it, and what kind of CPU it is.
 * The lowest floor: includes nothing of the engine.  Which fields are saved: save_cpu.c.
 */
#ifndef HVX_STATE_H
#define HVX_STATE_H

#include <stdint.h>

#include "vcpu/cpu/regs.h"

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

struct cpuid_entry { /* what CPUID answers; built once by cpu/cpuid.c */
	uint32_t leaf, subleaf, eax, ebx, ecx, edx;
};
#define CPUID_MAX 96

/* XCR0 bits of AVX-512: masks, upper halves of zmm0-15, zmm16-31; and what they come on top of (SDM 1 13.3). */
#define XCR0_AVX512_ONLY 0xe0u
#define XCR0_AVX512      0xe6u

/* The host's XSAVE area, which is the guest's too (CPUID 0xd): of each state component its place in the standard format, bytes, and
 * whether the compacted one aligns it to 64.  Those that are not offered have 0 bytes. */
#define XS_COMPONENTS 8
#define XS_ROOM       2688u /* bytes: no CPU has them end further out */
struct xsave_layout {
	uint16_t off[XS_COMPONENTS], size[XS_COMPONENTS];
	uint8_t aligned;
};

struct x87_pointers {
	uint64_t ip, dp;
	uint16_t op, cs, ds;
};

enum { HALTED_NO, HALTED_HLT, HALTED_SIPI /* waits for a start-up IPI */ };

struct cpu {
	/* reached by translated code through gs:[offset]; offsets asserted in bt/offsets.c */
	uint64_t regs[16];            /* guest GPRs when in C; in translated code the spill slot of each */
	uint64_t rip;                 /* guest rip when in C */
	uint64_t seg_base[SEG_COUNT]; /* copies of seg[].base for address formation */
	uint64_t tsc_offset;
	uint16_t flags;           /* arithmetic flags when not in the host's: AH<<8 from lahf, bit 0 = OF */
	uint8_t df;               /* DF */
	uint8_t iflag;            /* IF */
	_Atomic uint32_t pending; /* PEND_*: what waits for the next block boundary */

	uint64_t code_key;              /* 16-bit code: what its jump cache adds to offsets, from CS's base */
	uint64_t seg_top[2][SEG_COUNT]; /* MODE_SEGS: offsets below may be read, written; 0: let C look */

	/* in C only */
	_Atomic uint32_t start; /* INIT and start-up IPIs on their way to it: start.c */
	uint32_t sysflags;      /* rflags bits other than arith, DF, IF: TF IOPL NT RF VM AC VIF VIP ID */
	uint8_t cpl;
	uint8_t int_shadow; /* 1 (sti): interrupts wait for one instruction; 2 (mov ss, pop ss): debug traps too */
	uint8_t nmi_blocked;
	uint8_t halted;  /* HALTED_* */
	uint8_t db_hits; /* data breakpoints the running instruction met */
	uint8_t db_held; /* the same, held back by mov ss */
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
	uint64_t tsc_adjust;
	uint64_t amd_syscfg, amd_hwcr, amd_nb_cfg, amd_de_cfg; /* kept for the guest, without effect */
	uint64_t pv_time_msr, pv_wall_msr;                     /* cpu/pvclock.c */
	uint64_t a20_off;                                      /* bit 20 while that address line is masked, else 0 */
	uint32_t mode; /* translation mode of the current state: MODE_*, cpu/mode.h */

	/* an exception raised by a helper, waiting for delivery */
	uint8_t exc_pending, exc_vector, exc_has_error,
		exc_soft; /* soft: int n, int3, into: rip is the next instruction's */
	uint32_t exc_error;
	uint64_t exc_cr2;
	uint64_t exc_dr6; /* bits to set in DR6 with #DB */

	/* extended state */
	struct x87_pointers x87; /* the guest's, while the registers hold FPU_MARK (cpu/fpu.h) */
	uint8_t fpu_saved;       /* fpu_area holds the guest's state, the host's registers do not */
	uint8_t fpu_area[4096] __attribute__((aligned(64)));

	/* what kind of CPU it is: fixed by cpu_reset() */
	uint64_t phys_rsvd; /* physical address bits 51 and below that the guest's CPU lacks */
	uint64_t xcr0_mask; /* XCR0 bits offered */
	struct xsave_layout xs;
	uint64_t cr4_mask; /* CR4 bits offered */
	uint32_t mxcsr_mask;
	uint32_t xsave_caps;    /* CPUID 0xd.1 EAX as offered: xsaveopt 1, xsavec 2, xgetbv(1) 4 */
	uint8_t amd;            /* AMD (or Hygon) rules where the vendors differ, else Intel's */
	uint64_t features;      /* what CPUID offers, as cpu/feature.h has it */
	uint64_t msr_logged[4]; /* hash filter: unknown MSRs that were logged already */
	struct cpuid_entry cpuid[CPUID_MAX];
	uint32_t n_cpuid;
};

#endif
