/* Numbers of registers, as instructions have them. */
#ifndef HVX_REGS_H
#define HVX_REGS_H

/* Register numbers as in ModRM/REX encodings. */
enum { R_AX, R_CX, R_DX, R_BX, R_SP, R_BP, R_SI, R_DI, R_8, R_9, R_10, R_11, R_12, R_13, R_14, R_15 };
#define R_NONE 0xff
#define R_RIP  0xfe /* mem.base only: rip-relative, disp is relative to the next instruction */

/* Segment registers, in encoding order. */
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

#endif
