/*
 * Host code, one instruction form a function.  Emission past the end is
 * remembered, not done: check emit.overflow once per block.
 */
#ifndef HVX_EMIT_H
#define HVX_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vcpu/bt/insn.h"

struct emit {
	uint8_t *p, *start, *end;
	bool overflow;
	uint8_t vcpu_seg; /* prefix of the segment that reaches struct vcpu: at this distance from its base */
	int32_t vcpu_delta;
};
#define SEG_PREFIX_FS 0x64
#define SEG_PREFIX_GS 0x65

/* A host memory operand.  base or index may be R_NONE; gs: what it is relative to. */
struct hmem {
	uint8_t base, index, scale, gs;
	int32_t disp;
};
enum {
	HM_FLAT,
	HM_VCPU,  /* struct vcpu, through emit.vcpu_seg */
	HM_WINDOW /* the guest's own address, in a window: gs (mmu/window.h) */
};

static inline struct hmem hm_gs(size_t off)
{
	return (struct hmem){R_NONE, R_NONE, 1, HM_VCPU, (int32_t)off};
}

static inline struct hmem hm_gs_index(size_t off, uint8_t index, uint8_t scale)
{
	return (struct hmem){R_NONE, index, scale, HM_VCPU, (int32_t)off};
}

static inline struct hmem hm_base(uint8_t base, int32_t disp)
{
	return (struct hmem){base, R_NONE, 1, 0, disp};
}

static inline struct hmem hm_bi(uint8_t base, uint8_t index, uint8_t scale, int32_t disp)
{
	return (struct hmem){base, index, scale, 0, disp};
}

static inline void emit8(struct emit *c, uint8_t b)
{
	if (c->p >= c->end)
		c->overflow = true;
	else
		*c->p++ = b;
}

static inline uint32_t emit_off(const struct emit *c)
{
	return (uint32_t)(c->p - c->start);
}

void emit32(struct emit *c, uint32_t v);
void emit64(struct emit *c, uint64_t v);

/* ModRM, SIB and displacement for @m with register field @reg (low three bits used). */
void emit_modrm_mem(struct emit *c, uint8_t reg, struct hmem m);
/* REX bits X and B that @m needs: X in bit 1, B in bit 0. */
uint8_t emit_rex_xb(struct hmem m);

/*
 * Legacy-encoded instruction with a memory operand.  @op holds prefix and opcode bytes, most significant first, at most
 * four (0x8b, 0x0fb6, 0x660f38f6...); a leading 0x66/f2/f3 comes before REX.  @w is REX.W.
 */
void emit_rm_mem(struct emit *c, int w, uint32_t op, uint8_t reg, struct hmem m);
/* The same between registers: @rm is the ModRM.rm register. */
void emit_rm_reg(struct emit *c, int w, uint32_t op, uint8_t reg, uint8_t rm);

void emit_mov_rr(struct emit *c, uint8_t dst, uint8_t src);   /* 64 bits */
void emit_mov_imm(struct emit *c, uint8_t dst, uint64_t imm); /* shortest of mov r32, movsx, movabs */
void emit_load(struct emit *c, uint8_t dst, struct hmem m);   /* 64 bits */
void emit_store(struct emit *c, struct hmem m, uint8_t src);
void emit_lea(struct emit *c, int w, uint8_t dst, struct hmem m);
void emit_store_imm32(struct emit *c, int w, struct hmem m, int32_t imm); /* sign-extended when w */
void emit_store_imm8(struct emit *c, struct hmem m, uint8_t imm);
void emit_alu_imm(struct emit *c, int w, uint8_t ext, uint8_t rm, int32_t imm); /* 81 /ext or 83 /ext */
void emit_shift_imm(struct emit *c, int w, uint8_t ext, uint8_t rm, uint8_t n); /* c1 /ext */
void emit_pext(struct emit *c, uint8_t dst, uint8_t src, struct hmem mask);
/*
 * VEX instructions: @op is VEX(), @vvvv the register in the prefix, R_NONE if it has none; the third operand is memory or a
 * register.  An immediate is for the caller to add.
 */
#define VEX(len256, pp, map, w, opcode) ((len256) << 2 | (pp) | (w) << 7 | (map) << 8 | (uint32_t)(opcode) << 16)
enum { PP_NONE, PP_66, PP_F3, PP_F2 };
enum { MAP_0F = 1, MAP_0F38, MAP_0F3A };
void emit_vex_mem(struct emit *c, uint32_t op, uint8_t reg, uint8_t vvvv, struct hmem m);
void emit_vex_reg(struct emit *c, uint32_t op, uint8_t reg, uint8_t vvvv, uint8_t rm);
/* EVEX.F3.0F.W1 without a mask on @length bytes of register 0 to 31: vmovdqu64, vmovq. */
enum { EVEX_LOAD = 0x6f, EVEX_LOADQ = 0x7e, EVEX_STORE = 0x7f };
void emit_evex_mem(struct emit *c, unsigned length, uint8_t opcode, uint8_t reg, struct hmem m);
void emit_jmp_to(struct emit *c, const uint8_t *target); /* jmp rel32 */
uint8_t *emit_jcc(struct emit *c, uint8_t cc);           /* returns the rel32 to patch */
uint8_t *emit_jmp(struct emit *c);
void emit_jmp_mem(struct emit *c, struct hmem m);
/* Points a rel32 at @target, by one store; another CPU may run it if emit_align_rel32() came before its opcode. */
void emit_patch(uint8_t *rel32, const uint8_t *target);
void emit_align_rel32(struct emit *c, unsigned opcode);
/* Makes a jne into a jmp to the same place. */
void emit_always(uint8_t *jne);

enum { ALU_ADD = 0, ALU_OR = 1, ALU_AND = 4, ALU_SUB = 5, ALU_XOR = 6, ALU_CMP = 7 };
enum { SH_SHL = 4, SH_SHR = 5, SH_SAR = 7 };
enum { CC_NE = 5, CC_E = 4, CC_A = 7 };

/*
 * The guest instruction @in with its memory operand replaced by @m and, when @newreg is not R_NONE, its ModRM.reg
 * register by @newreg.  Prefixes other than segment and address size, opcode and immediate stay as they are.
 */
void emit_guest_mem(struct emit *c, const struct insn *in, struct hmem m, uint8_t newreg);
/* The guest instruction's own bytes. */
void emit_guest_copy(struct emit *c, const struct insn *in);
/* Can @in take base and index registers above 7?  Not with ah..bh operands. */
bool emit_guest_low_only(const struct insn *in);

#endif
