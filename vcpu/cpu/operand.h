/*
 * Operands of system instructions: registers, effective and linear addresses,
 * pushes and pops.
 */
#ifndef HVX_CPU_OPERAND_H
#define HVX_CPU_OPERAND_H

#include "vcpu/bt/insn.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/vcpu.h"

static inline bool is_canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static inline bool in_long_mode(const struct vcpu *v)
{
	return v->efer & EFER_LMA;
}

static inline bool in_real(const struct vcpu *v)
{
	return !(v->cr0 & CR0_PE);
}

static inline bool in_v86(const struct vcpu *v)
{
	return !in_real(v) && (v->sysflags & RFL_VM);
}

/* Segments are selectors times 16: there are no descriptors. */
static inline bool in_8086(const struct vcpu *v)
{
	return in_real(v) || in_v86(v);
}

/* 64-bit code is running. */
static inline bool in_code64(const struct vcpu *v)
{
	return (v->efer & EFER_LMA) && (v->seg[SEG_CS].attr & SEG_A_L);
}

static inline uint64_t size_mask(unsigned bytes)
{
	return bytes >= 8 ? ~0ull : (1ull << (bytes * 8)) - 1;
}

/* The instruction after @in. */
static inline uint64_t insn_next(const struct vcpu *v, const struct insn *in)
{
	uint64_t next = v->rip + in->len;

	return in->code_size == 8 ? next : (uint32_t)next;
}

/* Finishes @in: continue behind it.  Returns 0 for handlers to return. */
static inline int insn_done(struct vcpu *v, const struct insn *in)
{
	v->rip = insn_next(v, in);
	return 0;
}

/* General registers in pieces; a 4-byte write clears the upper half, smaller ones merge. */
uint64_t reg_read(const struct vcpu *v, unsigned reg, unsigned size);
void reg_write(struct vcpu *v, unsigned reg, uint64_t val, unsigned size);

/*
 * #AC of an access of @size bytes at @lin, when the guest has switched it on (SDM 3A 6.15, APM 2 8.2.18): 0, or -1 after
 * raising.  Operands of more than eight bytes count on AMD only, as 16; odd sizes are made of smaller pieces.
 */
int alignment_check(struct vcpu *v, uint64_t lin, unsigned size);

/* The offset a memory operand names, truncated to the address size. */
uint64_t insn_ea(const struct vcpu *v, const struct insn *in);

/* How many of the @size bytes of an access the limit of @s is asked about: of one that runs past 4 GiB in a segment without a
 * limit Intel's CPUs check the first byte only, AMD's all. */
unsigned seg_limit_size(const struct vcpu *v, const struct seg *s, unsigned size);

/*
 * Linear address of @size bytes at @offset in segment @seg: limit, type and
 * null checks outside 64-bit code, canonical checks in it.  0, or -1 after
 * raising #GP(0) or #SS(0).  SDM 3A 5.3, 5.5, 3.3.7.1.
 */
int seg_linear(struct vcpu *v, unsigned seg, uint64_t offset, unsigned size, unsigned acc, uint64_t *lin);
int insn_linear(struct vcpu *v, const struct insn *in, uint64_t offset, unsigned size, unsigned acc, uint64_t *lin);

/* True when [off, off+size) may be accessed as @acc in @s outside 64-bit code. */
bool seg_allows(const struct seg *s, uint64_t off, unsigned size, unsigned acc);

/* The register-or-memory operand as @size bytes; 0 or -1 after raising. */
int op_read(struct vcpu *v, const struct insn *in, unsigned size, uint64_t *val);
int op_write(struct vcpu *v, const struct insn *in, unsigned size, uint64_t val);
/* The memory operand, @disp bytes further on, into / from a buffer. */
int op_mem_read(struct vcpu *v, const struct insn *in, unsigned disp, void *buf, unsigned size);
int op_mem_write(struct vcpu *v, const struct insn *in, unsigned disp, const void *buf, unsigned size);

/* Far pointers in memory have 16- or 32-bit offsets on AMD even with REX.W; on Intel 64-bit ones too (APM 3, SDM 2). */
static inline unsigned far_opsize(const struct vcpu *v, const struct insn *in)
{
	return v->amd && in->opsize == 8 ? 4 : in->opsize;
}

/*
 * A stack being worked on: rsp moves in here and is stored by stack_commit()
 * once nothing can fault any more.
 */
struct stack {
	const struct seg *ss; /* checked outside 64-bit mode */
	uint64_t sp, mask;
	unsigned acc; /* ACC_USER or 0 */
	bool code64;  /* flat, canonical checks only */
	bool own;     /* an instruction's, not an event's frame: #AC counts */
	uint32_t err; /* error code of a stack fault */
};

void stack_current(struct vcpu *v, struct stack *st);
void stack_other(struct stack *st, const struct seg *ss, uint64_t sp, unsigned cpl, bool code64, uint32_t err);
/* Raises what stack_push() would, and writes nothing. */
int stack_check_push(struct vcpu *v, struct stack *st, unsigned size);
int stack_push(struct vcpu *v, struct stack *st, uint64_t val, unsigned size);
/* Moves the stack by @step bytes and writes the lower two of them only. */
int stack_push_low(struct vcpu *v, struct stack *st, uint16_t val, unsigned step);
int stack_pop(struct vcpu *v, struct stack *st, uint64_t *val, unsigned size);
void stack_commit(struct vcpu *v, const struct stack *st);

#endif
