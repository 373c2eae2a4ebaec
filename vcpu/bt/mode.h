/*
 * The translation mode: everything besides the bytes that decides what a block
 * is translated to.  Part of every block's key.
 *
 * What is kept of translations.  A key holds all that the kept thing depends on; what it leaves out is forgotten by
 * whoever changes it.  "Mapping": CR3, CR0.PG and WP, CR4's paging bits, EFER.NXE, INVLPG and INVPCID, by tlb_flush_*()
 * and tlb_switch().  "Code segment": base and limit while MODE_SLOWMEM is set outside 64-bit code, by
 * vcpu_update_mode(); without that bit the segment is flat.
 *
 *   kept                  key                                    left out, and forgotten by
 *   block                 physical address, mode with EDGE,      the bytes: codepage_store(), code_written(); where its
 *                         linear address unless mode_pic()       second page is: bt_find() looks; exact_flags, stop_rip,
 *                                                                the vendor: never change under blocks
 *   link within a page    its exit: both blocks are of one       a block that goes: block_invalidate()
 *                         mode (bexit.mode) and one page
 *   branch cell           its exit, of one mode as above, and    mapping; code segment; two places of one page:
 *                         its place                              codepage_place(); a block that goes: unlink_incoming(),
 *                                                                or all of them while some were brought back
 *   jump cache entry      target's offset; table by mode_jc(),   mapping; code segment; a block that goes: its indirect
 *                         its mode in vcpu.jc_mode[]: another    entry leads to glue_stale
 *                         mode flushes the table first
 *                         (vcpu_update_mode())
 *   bank                  PCID; of each jump cache its jc_mode   mapping: bank_forget*(); code segment; a block that
 *                                                                goes (cells); code on a page (write tags)
 *   fetch cache entry     linear page, CPL 3 or not, fetch_age   mapping, by ageing
 *   soft TLB entry        linear page; table by mode_tlb():      mapping; code on its page: tlb_drop_writes()
 *                         CPL 3 or not, SMAP and AC
 *   check of a group      the block's run from its first access  nothing outlives the block: helpers end it
 *   decoded instruction   physical address, code size, bytes     compared each time
 *
 * Exits and jump caches trust that the mode changes in C alone, but for stac and clac in place, whose exits name the
 * mode they lead to and whose two jump caches are claimed together.
 */
#ifndef HVX_MODE_H
#define HVX_MODE_H

#include "vcpu/vcpu.h"

#define MODE_USER         (1u << 0)  /* CPL 3: position-independent code, user soft TLB */
#define MODE_TLB_SHIFT    1          /* two bits: TLB_USER, TLB_KERN, TLB_KERN_AC */
#define MODE_CS32         (1u << 3)  /* 32-bit code segment (else 64-bit) */
#define MODE_CS16         (1u << 4)  /* 16-bit code segment */
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

/* The bits that a run-time decision adds, never part of vcpu.mode. */
#define MODE_TRANSIENT (MODE_STEP | MODE_BOUNCE | MODE_BOUNCE_STACK | MODE_NOCOMBINE)

static inline unsigned mode_tlb(uint32_t mode)
{
	return mode >> MODE_TLB_SHIFT & 3;
}

/* The jump cache that code of this mode looks into. */
static inline unsigned mode_jc(uint32_t mode)
{
	unsigned jc = (mode & MODE_USER) && (mode & MODE_CS32) ? JC_USER32 : mode_tlb(mode);

	return mode & MODE_NOFPU ? JC_NOFPU + jc : jc;
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

/* Does the translator know what code of this mode means?  Lists what it does; any other bit or mixture is refused. */
bool mode_is_translated(uint32_t mode);

/* Bytes of the code size: 2, 4 or 8. */
static inline unsigned mode_code_size(uint32_t mode)
{
	return mode & MODE_CS32 ? 4 : mode & MODE_CS16 ? 2 : 8;
}

#endif
