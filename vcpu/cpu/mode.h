/*
 * The translation mode: everything besides the bytes that decides what a block
 * is translated to.  Part of every block's key.
 */
#ifndef HVX_MODE_H
#define HVX_MODE_H

#include "vcpu/vcpu.h"

#define MODE_USER         (1u << 0)  /* CPL 3: position-independent code, user soft TLB */
#define MODE_TLB_SHIFT    1          /* two bits: TLB_USER, TLB_KERN, TLB_KERN_AC */
#define MODE_CS32         (1u << 3)  /* 32-bit code segment (else 64-bit) */
#define MODE_CS16         (1u << 4)  /* 16-bit code segment; always with SLOWMEM */
#define MODE_SS16         (1u << 5)  /* 16-bit stack (outside 64-bit code) */
#define MODE_SLOWMEM      (1u << 6)  /* every access is checked in C: segments not flat, AC, data breakpoints */
#define MODE_NOFPU        (1u << 7)  /* CR0.TS or EM: x87/SSE/AVX instructions go to SYS_NM */
#define MODE_NOSSE        (1u << 8)  /* CR4.OSFXSR clear */
#define MODE_NOAVX        (1u << 9)  /* CR4.OSXSAVE clear or XCR0 without AVX */
#define MODE_STEP         (1u << 10) /* block of one instruction */
#define MODE_BOUNCE       (1u << 11) /* with STEP: the explicit memory operand is vcpu.bounce */
#define MODE_BOUNCE_STACK (1u << 12) /* with STEP: the implicit stack operand is vcpu.bounce_stack */
#define MODE_NOCOMBINE    (1u << 13) /* one check per access */
#define MODE_CPL0         (1u << 14)
#define MODE_SMAP         (1u << 15) /* CR4.SMAP: what clac goes back to */
#define MODE_TSD          (1u << 16) /* rdtsc is not for this CPL */
#define MODE_EDGE         (1u << 17) /* direct branches may reach past the canonical half; added by bt_find() */
#define MODE_REAL         (1u << 18) /* real or virtual-8086 mode */
#define MODE_NOAVX512     (1u << 20) /* CR4.OSXSAVE clear or XCR0 without all of AVX-512 */
#define MODE_SEGS         (1u << 19) /* SLOWMEM for segments alone: bases and limits are looked at inline */

/* The bits that a run-time decision adds, never part of vcpu.mode; those of blocks that are run by who has looked them up. */
#define MODE_TRANSIENT (MODE_STEP | MODE_BOUNCE | MODE_BOUNCE_STACK)
#define MODE_ADDED     (MODE_TRANSIENT | MODE_NOCOMBINE)

/* CS's base, out of the way of 16-bit offsets; never one of jc_invalid()'s together with one. */
static inline uint64_t mode_code_key(const struct vcpu *v)
{
	return v->seg[SEG_CS].base << 31;
}

/* vcpu_update_mode() after no more than the base of @seg has changed: in 16-bit code nothing else follows from it. */
static inline void mode_base_changed(struct vcpu *v, unsigned seg)
{
	if (!(v->mode & MODE_CS16)) {
		vcpu_update_mode(v);
		return;
	}
	v->seg_base[seg] = v->seg[seg].base;
	v->code_key = mode_code_key(v);
}

static inline unsigned mode_tlb(uint32_t mode)
{
	return mode >> MODE_TLB_SHIFT & 3;
}

/* Is code of this mode position-independent (through vcpu.ip_page)?  Flat user code; everything else carries its gva. */
static inline bool mode_pic(uint32_t mode)
{
	return (mode & MODE_USER) && !(mode & MODE_SLOWMEM);
}

static inline bool mode_long(uint32_t mode)
{
	return !(mode & (MODE_CS32 | MODE_CS16));
}

/* Bytes of the code size: 2, 4 or 8. */
static inline unsigned mode_code_size(uint32_t mode)
{
	return mode & MODE_CS32 ? 4 : mode & MODE_CS16 ? 2 : 8;
}

#endif
