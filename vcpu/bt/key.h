/*
 * What is kept of translations.  A key holds all that the kept thing depends on; what it leaves out is forgotten by
 * whoever changes it.  "Mapping": CR3, CR0.PG and WP, CR4's paging bits, EFER.NXE, INVLPG and INVPCID, by tlb_flush_*()
 * and tlb_switch().  "Code segment": base and limit while MODE_SLOWMEM is set outside 64-bit code, by
 * bt_find(); without that bit the segment is flat.
 *
 *   kept                  key                                    left out, and forgotten by
 *   block                 physical address, mode with EDGE,      the bytes: codepage_store(), code_written(); where its
 *                         linear address unless mode_pic()       second page is: bt_find() looks; exact_flags, stop_rip,
 *                                                                the vendor: never change under blocks
 *   link within a page    its exit: both blocks are of one       a block that goes: block_invalidate()
 *                         mode (bexit.mode) and one page
 *   branch cell           its exit, of one mode as above, and    mapping; code segment; two places of one page:
 *                         its place                              codepage_place(); a block that goes: unlink_incoming(),
 *                                                                or all of them while some were brought back; of another
 *                                                                CPU: the block's entries trap
 *   jump cache entry      target's offset; table by mode_jc(),   mapping; code segment; a block that goes: its indirect
 *                         its mode in vcpu.jc_mode[]: another    entry leads to glue_stale
 *                         mode flushes the table first
 *                         (bt_find())
 *   bank                  PCID; of each jump cache its jc_mode   mapping: bank_forget*(), tlb_switch(); code segment; a block that
 *                                                                goes (cells); code on a page (write tags)
 *   fetch cache entry     linear page, CPL 3 or not, fetch_age   mapping, by ageing
 *   soft TLB entry        linear page; table by mode_tlb():      mapping; code on its page: tlb_drop_writes()
 *                         CPL 3 or not, SMAP and AC
 *   check of a group      the block's run from its first access  nothing outlives the block: helpers end it
 *   decoded instruction   physical address, code size, bytes     compared each time
 *
 * 16-bit code has no cells: what leaves its page goes by bt_find() each time.  Its jump cache is tagged by the base of CS as well
 * as by the offset, so that far transfers empty nothing; another limit does.
 *
 * Exits and jump caches trust that the mode changes in C alone, but for stac and clac in place, whose exits name the
 * mode they lead to and whose two jump caches are claimed together.
 */
#ifndef HVX_KEY_H
#define HVX_KEY_H

#include "vcpu/cpu/mode.h"

/* The jump cache that code of this mode looks into. */
static inline unsigned mode_jc(uint32_t mode)
{
	unsigned jc = mode & MODE_CS16                           ? JC_CODE16
		      : (mode & MODE_USER) && (mode & MODE_CS32) ? JC_USER32
								 : mode_tlb(mode);

	return mode & MODE_NOFPU ? JC_NOFPU + jc : jc;
}

/* Does the translator know what code of this mode means?  Lists what it does; any other bit or mixture is refused. */
bool mode_is_translated(uint32_t mode);

#endif
