/*
 * The address space a test instruction sees, the same natively and in the
 * engine.  Everything lies below 2 GiB so that 32-bit code reaches it and an
 * absolute disp32 can name it.
 *
 *   CODE   rwx  CODE_PAGES pages, hlt-filled, the page after it is not there
 *   DATA   one letter a page: w = writable, r = read-only, . = hole
 *   STACK  two writable pages between holes
 *
 * Invariant: nothing else of the test program is mapped within a page of these.
 */
#ifndef HVX_INSN_LAYOUT_H
#define HVX_INSN_LAYOUT_H

#include <stdint.h>

#define PG 4096ull

#define CODE_BASE  0x10000000ull
#define CODE_PAGES 64
#define CODE_SIZE  (CODE_PAGES * PG)

#define DATA_BASE  0x20000000ull
#define DATA_MAP   "ww.wrw."
#define DATA_PAGES 7

#define STACK_BASE  0x30000000ull
#define STACK_PAGES 2

#define FILL_BYTE 0xf4 /* hlt: #GP(0) at CPL 3, one byte, so any stray jump into code ends at once */

/* Pages whose contents are state: address of each, in the order of the memory image. */
#define WR_PAGES 6
static const uint64_t wr_page[WR_PAGES] = {
	DATA_BASE, DATA_BASE + PG, DATA_BASE + 3 * PG, DATA_BASE + 5 * PG, STACK_BASE, STACK_BASE + PG,
};
#define RO_PAGE (DATA_BASE + 4 * PG)
#define HOLE    (DATA_BASE + 2 * PG)

/* The memory image: the writable pages, then the read-only one. */
#define IMG_PAGES (WR_PAGES + 1)
#define IMG_SIZE  (IMG_PAGES * PG)

/* Selectors of the host's kernel for user code; the engine's GDT has the same ones. */
#define SEL_CS64 0x33
#define SEL_CS32 0x23
#define SEL_DS   0x2b
#define SEL_TLS0 0x63 /* 32-bit code: fs */
#define SEL_TLS1 0x6b /* 32-bit code: gs */

#endif
