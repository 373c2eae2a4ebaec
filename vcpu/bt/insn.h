/*
 * A decoded guest instruction, free of decoder types: what the translator, the
 * system-instruction helpers and the tracer know about it.
 */
#ifndef HVX_INSN_H
#define HVX_INSN_H

#include <stdint.h>

#include "vcpu/cpu/regs.h"

/*
 * System and sensitive instructions: everything that has semantics in C.
 * The comment names the operands a helper finds in struct insn.
 */
enum sysop {
	SYS_NONE,
	/* flags and interrupts */
	SYS_CLI,
	SYS_STI,
	SYS_PUSHF,
	SYS_POPF,
	SYS_HLT,
	SYS_INT, /* imm = vector (int n) */
	SYS_INT1,
	SYS_INT3,
	SYS_INTO,
	SYS_IRET,
	/* control transfers through descriptors */
	SYS_SYSCALL,
	SYS_SYSRET,
	SYS_SYSENTER,
	SYS_SYSEXIT,
	SYS_FAR_JMP,
	SYS_FAR_CALL, /* has_mem: m16:16/32/64; else imm = offset, imm2 = selector */
	SYS_FAR_RET,  /* imm = bytes to pop */
	/* control, debug registers */
	SYS_MOV_FROM_CR,
	SYS_MOV_TO_CR, /* reg = crN, rm = gpr */
	SYS_MOV_FROM_DR,
	SYS_MOV_TO_DR, /* reg = drN, rm = gpr */
	SYS_CLTS,
	SYS_LMSW,
	SYS_SMSW,    /* rm or mem */
	SYS_INVLPG,  /* mem */
	SYS_INVPCID, /* reg = type, mem = descriptor */
	SYS_INVD,
	SYS_WBINVD,
	/* descriptor tables and segment registers */
	SYS_LGDT,
	SYS_LIDT,
	SYS_SGDT,
	SYS_SIDT, /* mem */
	SYS_LLDT,
	SYS_LTR,
	SYS_SLDT,
	SYS_STR, /* rm or mem */
	SYS_LAR,
	SYS_LSL, /* reg, rm or mem */
	SYS_VERR,
	SYS_VERW,
	SYS_ARPL, /* rm or mem; arpl: reg too */
	SYS_MOV_TO_SEG,
	SYS_MOV_FROM_SEG, /* reg = segment, rm or mem */
	SYS_PUSH_SEG,
	SYS_POP_SEG,      /* reg = segment */
	SYS_LOAD_FAR_PTR, /* les lds lss lfs lgs: seg2 = segment, reg, mem */
	SYS_SWAPGS,
	SYS_RDFSBASE,
	SYS_RDGSBASE,
	SYS_WRFSBASE,
	SYS_WRGSBASE, /* rm */
	SYS_CLAC,
	SYS_STAC,
	/* msr, cpuid, time */
	SYS_RDMSR,
	SYS_WRMSR,
	SYS_CPUID,
	SYS_RDTSC,
	SYS_RDTSCP,
	SYS_RDPMC,
	SYS_RDPID, /* rdpid: rm */
	SYS_XGETBV,
	SYS_XSETBV,
	/* extended state: mem */
	SYS_XSAVE,
	SYS_XSAVEOPT,
	SYS_XSAVEC,
	SYS_XRSTOR,
	SYS_FXSAVE,
	SYS_FXRSTOR,
	SYS_FNSAVE,
	SYS_FRSTOR,
	SYS_FNSTENV,
	SYS_FLDENV,
	/* port i/o: imm_port ? imm : dx; opsize 1, 2, 4 bytes */
	SYS_IN,
	SYS_OUT,
	SYS_INS,
	SYS_OUTS,
	SYS_MONITOR,
	SYS_MWAIT,
	/* what 64-bit mode lacks (code16/32 only) */
	SYS_AAA,
	SYS_AAS,
	SYS_AAD,
	SYS_AAM,
	SYS_DAA,
	SYS_DAS,
	SYS_PUSHA,
	SYS_POPA,
	SYS_BOUND,
	SYS_SALC,
	SYS_ENTER,  /* imm = size, imm2 = level */
	SYS_UD,     /* always #UD */
	SYS_NM,     /* x87/SSE instruction while CR0.TS or EM forbids it: #NM or #UD */
	SYS_NEAR16, /* near branches with 16-bit operands: imm, rm or mem */
	SYS_NEAR,   /* those of the code's own size that cannot be translated: imm, rm or mem */
	SYS_PAUSE,  /* with more CPUs than the host has cores */
	SYS_COUNT
};

struct insn_mem {
	uint8_t base, index; /* R_*, R_NONE; base may be R_RIP */
	uint8_t scale;       /* 1, 2, 4, 8 */
	uint8_t seg;         /* SEG_* after defaults and overrides */
	uint16_t size;       /* bytes accessed */
	int32_t disp;        /* sign-extended; moffs64 is in insn.imm */
};

struct insn {
	uint8_t len; /* bytes, 1..15 */
	uint8_t raw[15];
	uint8_t cls;       /* enum insn_class, bt/decode.h */
	uint8_t sysop;     /* enum sysop when the class is system */
	uint8_t opsize;    /* effective operand size in bytes: 1, 2, 4, 8 */
	uint8_t addrsize;  /* effective address size in bytes: 2, 4, 8 */
	uint8_t code_size; /* mode it was decoded for: 2, 4, 8 */
	uint8_t reg;       /* ModRM.reg with REX.R, or as noted at the sysop */
	uint8_t rm;        /* ModRM.rm register with REX.B when !has_mem */
	uint8_t seg2;
	uint8_t rep; /* 0, 0xf2 or 0xf3 */
	uint8_t has_mem : 1, has_modrm : 1, lock : 1, rex_w : 1, imm_port : 1, mem_read : 1, mem_write : 1;
	uint8_t masked : 1; /* only chosen elements of the operand in memory count: AVX masked move, or the k fields tell how */
	uint8_t pause : 1;
	uint8_t waits : 1; /* looks for a pending x87 exception first */
	uint8_t high8;     /* uses ah, ch, dh or bh: no REX may be added */
	struct insn_mem mem;
	int64_t imm;
	int32_t imm2;
	/* filled by decode for the translator (see bt/decode.c) */
	uint16_t gpr_read, gpr_write, gpr_kill; /* bit per GPR; kill = written whole without being read */
	uint8_t fl_read, fl_write, fl_kill;     /* FL_* bits below */
	uint8_t off_prefix_end, off_opcode, off_modrm, off_disp, off_imm; /* byte offsets into raw, 0 = none */
	uint8_t disp_size, imm_size, enc;                                 /* bytes; enc = enum insn_enc */
	uint8_t opcode_map, opcode;
	uint8_t isa; /* enum insn_isa */
	uint8_t align; /* alignment the memory operand must have, 0 = none; 1 = accessed in halves; ALIGN_ANY: not even #AC */
	uint8_t k, k_way, k_bits, k_size; /* EVEX with a mask for its operand in memory: bt/evex.h; k = 0: none */
	uint16_t mnemonic;                /* the decoder's number, for traces only */
};

#define ALIGN_ANY 0x80u /* insn.align: not even alignment checking minds */

enum insn_enc { ENC_LEGACY, ENC_VEX2, ENC_VEX3, ENC_EVEX, ENC_XOP };
enum insn_isa { ISA_GPR, ISA_X87, ISA_MMX, ISA_SSE, ISA_AVX, ISA_AVX512, ISA_OTHER };

/* Flags in one byte. */
#define FL_CF    1
#define FL_PF    2
#define FL_AF    4
#define FL_ZF    8
#define FL_SF    16
#define FL_OF    32
#define FL_DF    64
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#endif
