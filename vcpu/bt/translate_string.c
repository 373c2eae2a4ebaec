/*
 * movs and stos, repeated or not, in place: where all of it lies in one page that may be accessed the host's own instruction
 * does it.  Everything else, and whatever goes downwards, is string.c's.
 * Invariant: while rsi and rdi are host addresses the guest's are in their slots, as rcx is, so state is exact at any time.
 */
#include "vcpu/bt/addr.h"

#define BIT(r) ((uint16_t)(1u << (r)))

static bool repeats(const struct insn *in)
{
	return in->rep;
}

static unsigned element(const struct insn *in)
{
	return in->raw[in->off_opcode] & 1 ? in->opsize : 1;
}

static bool copies(const struct insn *in)
{
	return (in->raw[in->off_opcode] & ~1u) == STR_MOVS;
}

static bool has_segment(const struct insn *in)
{
	for (unsigned i = 0; i < in->off_prefix_end; i++)
		if (in->raw[i] == 0x64 || in->raw[i] == 0x65)
			return true;
	return false;
}

bool tr_string_inlinable(const struct tr *t, const struct insn *in)
{
	unsigned op = in->raw[in->off_opcode] & ~1u;

	return in->cls == CLS_STRING && (op == STR_MOVS || op == STR_STOS) && t->long_mode && in->addrsize == 8 &&
	       !in->lock && !has_segment(in) && !(t->mode & (MODE_SLOWMEM | MODE_TRANSIENT));
}

static void to_helper(struct tr *t, uint8_t cc)
{
	tr_cold(t, COLD_STRING)->from = emit_jcc(&t->c, cc);
}

/*
 * Makes @reg the host address of what it points to, when all of that is in one page that @acc is allowed on.
 *   lea t1, [reg];  pext t2, t1, gs:[mask];  lea t1, [reg + rcx*size - 1];  and t1, -4096
 *   cmp t1, gs:[tag + t2*8];  jne cold;  mov t2, gs:[addend + t2*8]
 *   mov gs:[regs], reg;  lea reg, [reg + t2]
 * A page that matches at the index of the first byte is the first byte's page.  What is repeated not at all has its last byte
 * before the first: nothing is accessed then.
 */
static void locate(struct tr *t, const struct insn *in, uint8_t reg, unsigned acc, uint8_t t1, uint8_t t2)
{
	int32_t size = (int32_t)element(in);

	emit_mov_rr(&t->c, t1, reg);
	addr_tlb_index(t, t1, t2);
	if (repeats(in))
		emit_lea(&t->c, 1, t1, hm_bi(reg, R_CX, (uint8_t)size, -1));
	else
		emit_lea(&t->c, 1, t1, hm_base(reg, size - 1));
	emit_alu_imm(&t->c, 1, ALU_AND, t1, -4096);
	emit_rm_mem(&t->c, 1, 0x3b, t1, hm_gs_index(addr_tag_offset(t, acc), t2, 8));
	to_helper(t, CC_NE);
	emit_load(&t->c, t2, hm_gs_index(addr_addend_offset(t, acc), t2, 8));
	tr_take(t, reg);
	emit_lea(&t->c, 1, reg, hm_bi(reg, t2, 1, 0));
}

/* mov reg, gs:[regs];  lea reg, [reg + count*size] */
static void advance(struct tr *t, const struct insn *in, uint8_t reg, uint8_t count)
{
	int32_t size = (int32_t)element(in);

	emit_load(&t->c, reg, VREG(reg));
	emit_lea(&t->c, 1, reg, repeats(in) ? hm_bi(reg, count, (uint8_t)size, 0) : hm_base(reg, size));
	tr_wrote(t, BIT(reg));
}

static void emit_string(struct tr *t, const struct insn *in)
{
	if (repeats(in))
		emit8(&t->c, 0xf3);
	if (element(in) == 2)
		emit8(&t->c, 0x66);
	if (element(in) == 8)
		emit8(&t->c, 0x48);
	emit8(&t->c, in->raw[in->off_opcode]);
}

/*
 *   cmp byte gs:[df], 0;  jne cold;  cmp rcx, 4096/size;  ja cold
 *   <locate rsi>;  <locate rdi>;  mov gs:[regs], rcx;  rep movs
 *   mov t1, gs:[regs of rcx];  <advance rsi>;  <advance rdi>
 */
void tr_string_inline(struct tr *t, const struct insn *in)
{
	uint16_t regs = (uint16_t)(BIT(R_DI) | (copies(in) ? BIT(R_SI) : BIT(R_AX)) | (repeats(in) ? BIT(R_CX) : 0));
	uint8_t t1, t2;

	tr_need(t, regs);
	t1 = tr_scratch(t, regs, false);
	t2 = tr_scratch(t, regs | BIT(t1), false);
	tr_flags_clobber(t, regs);
	emit_rm_mem(&t->c, 0, 0x80, ALU_CMP, hm_gs(VOFF(df)));
	emit8(&t->c, 0);
	to_helper(t, CC_NE);
	if (repeats(in)) {
		emit_alu_imm(&t->c, 1, ALU_CMP, R_CX, (int32_t)((GUEST_PAGE_MASK + 1) / element(in)));
		to_helper(t, CC_A);
	}
	if (copies(in))
		locate(t, in, R_SI, ACC_R, t1, t2);
	locate(t, in, R_DI, ACC_W, t1, t2);
	if (repeats(in))
		tr_take(t, R_CX);
	tr_site(t, SITE_INSN);
	emit_string(t, in);
	if (repeats(in)) {
		emit_load(&t->c, t1, VREG(R_CX));
		tr_wrote(t, BIT(R_CX));
	}
	if (copies(in))
		advance(t, in, R_SI, t1);
	advance(t, in, R_DI, t1);
}
