/*
 * See verify.h.  This file: where jumps lead, and what the registers hold on the way there: an addend of the soft TLB is one
 * that was loaded behind the comparison of its tag, in the table of the block's mode.
 * Invariant: an operand that no rule here explains is a failure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/verify.h"
#include "vcpu/bt/tr.h"

/* What a register holds.  Of equal kinds those for writing come right after those for reading. */
enum kind {
	ANY,      /* the guest's value, or a number */
	INDEX,    /* of the soft TLB, below TLB_SIZE */
	INDEX_R,  /* and the tag there is the page's */
	INDEX_W,  /* the write tag */
	ADDEND_R, /* of a page that may be read */
	ADDEND_W, /* and written */
	HOST_R,   /* a host address that has been checked */
	HOST_W,
	SELF,       /* of struct vcpu */
	JC_SHIFTED, /* on the way to JC_INDEX */
	JC_INDEX,   /* of the jump cache */
	JC_OK,      /* and the tag there is the target */
	SMALL,      /* below 64 */
	COUNT,      /* at most a page's bytes, with its comparison's elements */
	ENTRY,      /* out of the jump cache */
	NOTHING,    /* not reached yet */
};

#define SLOTS (VCPU_COMBOS + 4) /* vcpu.combo, vcpu.scratch: where addends and what rax holds are kept for a while */

struct state {
	uint8_t reg[16], slot[SLOTS];
	uint16_t count;       /* that rcx was compared with last */
	uint8_t cmp, cmp_reg; /* the flags are those of the comparison that makes this of the register, or ANY */
};

struct field {
	size_t off, size;
	unsigned acc;  /* ACC_* */
	uint32_t mode; /* bits of which one must be set, or 0 */
};
#define F(name, acc)                                                 \
	{                                                            \
		VOFF(name), sizeof(((struct vcpu *)0)->name), acc, 0 \
	}
#define F0(name, acc)                                                        \
	{                                                                    \
		VOFF(name), sizeof(((struct vcpu *)0)->name), acc, MODE_CPL0 \
	}
static const struct field fields[] = {
	F(regs, ACC_R | ACC_W),
	F(ip_page, ACC_R | ACC_W),
	F(self, ACC_R),
	F(scratch, ACC_R | ACC_W),
	F(seg_base, ACC_R),
	{VOFF(seg_top), sizeof(((struct vcpu *)0)->seg_top), ACC_R, MODE_SEGS},
	{VOFF(code_key), 8, ACC_R, MODE_CS16},
	F0(seg_base[SEG_GS], ACC_W),
	F0(seg[SEG_GS].base, ACC_W),
	F0(kernel_gs_base, ACC_R | ACC_W),
	F0(sysflags, ACC_R | ACC_W),
	F0(mode, ACC_W),
	F0(iflag, ACC_W),
	F0(pending, ACC_R),
	F(mem_gva, ACC_W),
	F(mem_addend, ACC_R),
	F(tsc_offset, ACC_R),
	F(tsc_aux, ACC_R),
	F(pext_mask, ACC_R),
	F(site, ACC_W),
	F(flags, ACC_R | ACC_W),
	F(df, ACC_R | ACC_W),
	F(exit, ACC_W),
	F(combo, ACC_R | ACC_W),
	F(gather, ACC_R | ACC_W),
	{VOFF(bounce), 64, ACC_R | ACC_W, MODE_BOUNCE},
	{VOFF(bounce_stack), 8, ACC_R | ACC_W, MODE_BOUNCE_STACK},
};
#undef F
#undef F0

/* How the blocks of this VM reach struct vcpu: bt.vcpu_seg and vcpu_delta. */
static struct {
	ZydisRegister seg;
	int64_t delta;
} own;

static const struct verify_insn *insn(const struct verify *f, unsigned i)
{
	return &f->in[i];
}

static const ZydisDecodedOperand *mem_of(const struct verify_insn *in)
{
	for (unsigned i = 0; i < in->z.operand_count; i++)
		if (in->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return &in->op[i];
	return NULL;
}

/* Of a memory operand alone: through the segment of struct vcpu. */
static bool is_gs(const ZydisDecodedOperand *m)
{
	return m && m->type == ZYDIS_OPERAND_TYPE_MEMORY && m->mem.type == ZYDIS_MEMOP_TYPE_MEM &&
	       m->mem.segment == own.seg;
}

/* Of the guest's own address, in the window that code of this mode has. */
static bool is_window(const struct verify *f, const ZydisDecodedOperand *m)
{
	return m && m->type == ZYDIS_OPERAND_TYPE_MEMORY && m->mem.type == ZYDIS_MEMOP_TYPE_MEM &&
	       own.seg != ZYDIS_REGISTER_GS && m->mem.segment == ZYDIS_REGISTER_GS &&
	       mode_has_window(f->bt, f->b->mode);
}

/* Where it is in struct vcpu, of an operand that is_gs(). */
static int64_t offset_of(const ZydisDecodedOperand *m)
{
	return m->mem.disp.value - own.delta;
}

/* gs:[off], nothing else in it */
static bool is_slot(const ZydisDecodedOperand *m, size_t off)
{
	return is_gs(m) && m->mem.base == ZYDIS_REGISTER_NONE && m->mem.index == ZYDIS_REGISTER_NONE &&
	       offset_of(m) == (int64_t)off;
}

static unsigned access_of(const ZydisDecodedOperand *m)
{
	return (m->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? ACC_W : 0u) |
	       (m->actions & ZYDIS_OPERAND_ACTION_MASK_READ ? ACC_R : 0u);
}

static unsigned kind_of(const struct state *s, ZydisRegister r)
{
	int n = verify_gpr(r);

	return n < 0 ? ANY : s->reg[n];
}

static bool is_secret(unsigned kind)
{
	return kind >= ADDEND_R && kind <= SELF;
}

static bool field_ok(const struct verify *f, const ZydisDecodedOperand *m)
{
	uint64_t off = (uint64_t)offset_of(m), size = m->size / 8;

	for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++)
		if (off >= fields[i].off && off + size <= fields[i].off + fields[i].size &&
		    !(access_of(m) & ~fields[i].acc) && (!fields[i].mode || (f->b->mode & fields[i].mode)))
			return true;
	return false;
}

/* gs:[index*8 + table]: which table of the block's mode; what its register must be, NOTHING for what is none. */
static unsigned table_of(const struct verify *f, const ZydisDecodedOperand *m, bool *data)
{
	size_t tlb = VOFF(tlb) + mode_tlb(f->b->mode) * sizeof(struct soft_tlb);
	size_t jc = VOFF(jc) + mode_jc(f->b->mode) * sizeof(struct jump_cache), off = (size_t)offset_of(m);

	*data = true;
	if (m->mem.base != ZYDIS_REGISTER_NONE || m->mem.scale != 8 || m->size != 64 || (access_of(m) & ACC_W))
		return NOTHING;
	if (off == tlb + offsetof(struct soft_tlb, radd))
		return INDEX_R;
	if (off == tlb + offsetof(struct soft_tlb, wadd))
		return INDEX_W;
	if (off == jc + offsetof(struct jump_cache, e[0].host))
		return JC_OK;
	*data = false;
	if (off == tlb + offsetof(struct soft_tlb, rtag))
		return INDEX_R;
	if (off == tlb + offsetof(struct soft_tlb, wtag))
		return INDEX_W;
	if (off == jc + offsetof(struct jump_cache, e[0].tag))
		return JC_OK;
	return NOTHING;
}

static unsigned unchecked(unsigned kind)
{
	return kind == JC_OK ? JC_INDEX : INDEX;
}

static bool table_ok(const struct verify *f, const struct state *s, const struct verify_insn *in,
		     const ZydisDecodedOperand *m)
{
	bool data;
	unsigned want = table_of(f, m, &data), have = kind_of(s, m->mem.index);

	if (want == NOTHING)
		return false;
	if (data)
		return have == want && (in->z.mnemonic == ZYDIS_MNEMONIC_MOV ||
					(want == JC_OK && in->z.mnemonic == ZYDIS_MNEMONIC_JMP));
	return (have == want || have == unchecked(want)) && in->z.mnemonic == ZYDIS_MNEMONIC_CMP;
}

/* [guest address + addend], or [host address] */
static bool checked_ok(const struct state *s, const ZydisDecodedOperand *m)
{
	unsigned base = kind_of(s, m->mem.base), index = kind_of(s, m->mem.index), kind;

	if (m->mem.base == ZYDIS_REGISTER_RIP || m->mem.base == ZYDIS_REGISTER_EIP)
		return false;
	if (base >= HOST_R && base <= HOST_W) /* what has been answered, as it is */
		return m->mem.index == ZYDIS_REGISTER_NONE && !m->mem.disp.value &&
		       (base == HOST_W || !(access_of(m) & ACC_W));
	if (base >= ADDEND_R && base <= ADDEND_W && !is_secret(index))
		kind = base;
	else if (index >= ADDEND_R && index <= ADDEND_W && m->mem.scale == 1 && !is_secret(base))
		kind = index;
	else
		return false;
	return kind == ADDEND_W || !(access_of(m) & ACC_W);
}

/* A register offset of bt and its like moves the address: it has been cut. */
static bool bit_offset_ok(const struct state *s, const struct verify_insn *in)
{
	return in->z.meta.category != ZYDIS_CATEGORY_BITBYTE || in->z.operand_count_visible < 2 ||
	       in->op[1].type != ZYDIS_OPERAND_TYPE_REGISTER || in->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
	       kind_of(s, in->op[1].reg.value) == SMALL;
}

static bool own_cell(const struct verify *f, const ZydisDecodedOperand *m)
{
	for (uint32_t x = f->b->exit; x < f->b->exit + f->b->n_exits; x++)
		if (f->bt->exits[x].cell != BT_NONE && is_slot(m, VOFF(cells) + 8u * f->bt->exits[x].cell))
			return true;
	return false;
}

/* es:[rdi] and ds:[rsi] of movs and stos, repeated: both have been located, and the count is a page's at most. */
static bool string_ok(struct verify *f, const struct state *s, const struct verify_insn *in,
		      const ZydisDecodedOperand *m)
{
	if (m->mem.segment != ZYDIS_REGISTER_DS && m->mem.segment != ZYDIS_REGISTER_ES)
		return verify_fail(f, in->off, "segment");
	if ((in->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) &&
	    (s->reg[R_CX] != COUNT || s->count * (m->size / 8) > GUEST_PAGE_MASK + 1))
		return verify_fail(f, in->off, "repeated too often for a page");
	return (kind_of(s, m->mem.base) >= HOST_R && checked_ok(s, m)) ||
	       verify_fail(f, in->off, "address without a check");
}

static bool mem_ok(struct verify *f, const struct state *s, const struct verify_insn *in, const ZydisDecodedOperand *m)
{
	if (m->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return true; /* lea: what comes of it is for transfer() */
	if (m->mem.type != ZYDIS_MEMOP_TYPE_MEM)
		return verify_fail(f, in->off, "a kind of operand that is not known");
	if (in->z.address_width != 64)
		return verify_fail(f, in->off, "a host address cut to 32 bits");
	if (in->z.meta.category == ZYDIS_CATEGORY_STRINGOP)
		return string_ok(f, s, in, m);
	if (is_window(f, m) && in->z.mnemonic != ZYDIS_MNEMONIC_JMP) /* the host's MMU checks it, wherever it leads */
		return (!is_secret(kind_of(s, m->mem.base)) && !is_secret(kind_of(s, m->mem.index))) ||
		       verify_fail(f, in->off, "an engine address in the window");
	if (!bit_offset_ok(s, in))
		return verify_fail(f, in->off, "the bit's number reaches out of the operand");
	if (in->z.mnemonic == ZYDIS_MNEMONIC_JMP && !is_gs(m))
		return verify_fail(f, in->off, "jump through memory that is the guest's");
	if (in->z.mnemonic == ZYDIS_MNEMONIC_JMP && m->mem.index == ZYDIS_REGISTER_NONE)
		return own_cell(f, m) || verify_fail(f, in->off, "jump through no cell of its own");
	if (!is_gs(m)) {
		if (m->mem.segment != ZYDIS_REGISTER_DS && m->mem.segment != ZYDIS_REGISTER_SS)
			return verify_fail(f, in->off, "segment");
		return checked_ok(s, m) || verify_fail(f, in->off, "address without a check");
	}
	if (m->mem.index != ZYDIS_REGISTER_NONE)
		return table_ok(f, s, in, m) || verify_fail(f, in->off, "look-up in a table");
	if (m->mem.base != ZYDIS_REGISTER_NONE || !field_ok(f, m))
		return verify_fail(f, in->off, "not translated code's part of struct vcpu");
	return true;
}

static bool grants_write(const struct site *s)
{
	return s->acc & SITE_ACC_RANGE ? s->aux >> 31 : s->acc & ACC_W;
}

/* The site whose answer arrives at @in, and whether it is a host address rather than an addend; -1 */
static int answered(const struct verify *f, const struct verify_insn *in, bool *host)
{
	for (uint32_t i = f->b->site; i < f->b->site + f->b->n_sites; i++)
		if (f->bt->sites[i].kind == SITE_MEM && f->bt->sites[i].resume_off == in->off) {
			const struct verify_insn *jmp = in - 1;
			uint64_t to = 0;

			if (in == f->in ||
			    !ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&jmp->z, &jmp->op[0],
								   (uint64_t)(uintptr_t)f->bt->rx + jmp->off, &to)))
				return -1;
			*host = to == (uint64_t)(uintptr_t)glue_mem_checked;
			return (int)(grants_write(&f->bt->sites[i]) ? ACC_W : ACC_R);
		}
	return -1;
}

static int imm_of(const struct verify_insn *in)
{
	return in->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (int)in->op[1].imm.value.s : -1;
}

/* Which of the slots, or -1. */
static int slot_of(const ZydisDecodedOperand *m)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (m->size == 64 &&
		    is_slot(m, i < VCPU_COMBOS ? VOFF(combo) + 8 * i : VOFF(scratch) + 8 * (i - VCPU_COMBOS)))
			return (int)i;
	return -1;
}

/* lea and mov between registers: addresses that stay what they are */
static unsigned derived(const struct state *s, const struct verify_insn *in)
{
	const ZydisDecodedOperand *m = &in->op[1];
	unsigned base, index;

	if (in->op[0].size != 64)
		return ANY;
	if (m->type == ZYDIS_OPERAND_TYPE_REGISTER)
		return kind_of(s, m->reg.value);
	base = kind_of(s, m->mem.base);
	index = kind_of(s, m->mem.index);
	if (base == SELF && m->mem.index == ZYDIS_REGISTER_NONE && m->mem.disp.value == (int64_t)VOFF(bounce))
		return HOST_W;
	if (checked_ok(s, m)) {
		if (base >= HOST_R && base <= HOST_W)
			return base;
		return (is_secret(base) ? base : index) + (HOST_R - ADDEND_R);
	}
	return ANY;
}

/* What a write of the first operand leaves there; an operand that must not be where it is: NOTHING. */
static unsigned result(const struct verify *f, const struct state *s, const struct verify_insn *in)
{
	const ZydisDecodedOperand *m = mem_of(in);
	unsigned old = kind_of(s, in->op[0].reg.value), table;
	bool data, host = false;
	int acc;

	switch (in->z.mnemonic) {
	case ZYDIS_MNEMONIC_PEXT: return is_slot(m, VOFF(pext_mask)) && in->op[0].size == 64 ? INDEX : ANY;
	case ZYDIS_MNEMONIC_SHR: return in->op[0].size == 32 && imm_of(in) == 31 - JC_BITS ? JC_SHIFTED : ANY;
	case ZYDIS_MNEMONIC_AND:
		if (in->op[0].size < 32)
			return ANY;
		if (imm_of(in) == TLB_SIZE - 1)
			return INDEX;
		if (imm_of(in) == -2 && old == JC_SHIFTED)
			return JC_INDEX;
		return imm_of(in) >= 0 && imm_of(in) < 64 ? SMALL : ANY;
	case ZYDIS_MNEMONIC_LEA: return derived(s, in);
	case ZYDIS_MNEMONIC_MOV: break;
	default: return ANY;
	}
	if (in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
		return derived(s, in);
	if (!is_gs(m))
		return ANY;
	if (is_slot(m, VOFF(self)))
		return SELF;
	if (is_slot(m, VOFF(mem_addend))) {
		acc = answered(f, in, &host);
		return acc < 0 ? NOTHING : (unsigned)((host ? HOST_R : ADDEND_R) + (acc == (int)ACC_W));
	}
	if (m->mem.index != ZYDIS_REGISTER_NONE) {
		table = table_of(f, m, &data);
		return table == JC_OK ? ENTRY : table == INDEX_W ? ADDEND_W : ADDEND_R;
	}
	return slot_of(m) >= 0 ? s->slot[slot_of(m)] : ANY;
}

/* No operand but an address may be the engine's: registers that are read, and are data. */
static bool secrets_ok(struct verify *f, const struct state *s, const struct verify_insn *in)
{
	if (in->z.meta.category == ZYDIS_CATEGORY_STRINGOP)
		return !is_secret(s->reg[R_AX]) || in->z.mnemonic < ZYDIS_MNEMONIC_STOSB ||
		       verify_fail(f, in->off, "an engine address as data");
	bool copies = in->z.mnemonic == ZYDIS_MNEMONIC_MOV && in->op[0].size == 64 &&
		      (in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER || slot_of(&in->op[0]) >= 0);

	for (unsigned i = 0; i < in->z.operand_count; i++)
		if (in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER && !copies &&
		    (in->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_READ) && is_secret(kind_of(s, in->op[i].reg.value)))
			return verify_fail(f, in->off, "an engine address as data");
	return true;
}

/* @s before @in -> after it */
static bool transfer(struct verify *f, struct state *s, const struct verify_insn *in)
{
	const ZydisDecodedOperand *m = mem_of(in);
	unsigned kind = ANY, table;
	bool data;

	for (unsigned i = 0; i < in->z.operand_count; i++)
		if (in->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && !mem_ok(f, s, in, &in->op[i]))
			return false;
	if (!secrets_ok(f, s, in))
		return false;
	if (in->z.operand_count && in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER)
		kind = result(f, s, in);
	if (kind == NOTHING)
		return verify_fail(f, in->off, "an addend that nobody answered");
	if (in->z.mnemonic == ZYDIS_MNEMONIC_MOV && in->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    slot_of(&in->op[0]) >= 0)
		s->slot[slot_of(&in->op[0])] = (uint8_t)kind_of(s, in->op[1].reg.value);
	if (in->z.cpu_flags &&
	    (in->z.cpu_flags->modified | in->z.cpu_flags->undefined | in->z.cpu_flags->set_0 | in->z.cpu_flags->set_1))
		s->cmp = ANY;
	if (in->z.mnemonic == ZYDIS_MNEMONIC_CMP && is_gs(m) && m->mem.index != ZYDIS_REGISTER_NONE) {
		table = table_of(f, m, &data);
		s->cmp = (uint8_t)table;
		s->cmp_reg = (uint8_t)verify_gpr(m->mem.index);
	}
	if (in->z.mnemonic == ZYDIS_MNEMONIC_CMP && in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    in->op[0].reg.value == ZYDIS_REGISTER_RCX && imm_of(in) > 0 && imm_of(in) <= (int)GUEST_PAGE_MASK + 1) {
		s->cmp = COUNT;
		s->cmp_reg = R_CX;
		s->count = (uint16_t)imm_of(in);
	}
	for (unsigned i = 0; i < in->z.operand_count; i++) {
		int r = in->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER ? verify_gpr(in->op[i].reg.value) : -1;

		if (r >= 0 && (in->op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
			s->reg[r] = i == 0 ? (uint8_t)kind : ANY;
			if (s->cmp_reg == r)
				s->cmp = ANY;
		}
	}
	return true;
}

static unsigned meet(unsigned a, unsigned b)
{
	if (a == b || b == NOTHING)
		return a;
	if (a == NOTHING)
		return b;
	for (unsigned r = INDEX_R; r <= HOST_R; r += 2) /* for both, what is good for reading */
		if ((a == r || a == r + 1) && (b == r || b == r + 1) && r != INDEX_R)
			return r;
	if (a >= INDEX && a <= INDEX_W && b >= INDEX && b <= INDEX_W)
		return INDEX;
	return is_secret(a) || is_secret(b) ? SELF : ANY; /* SELF: fit for nothing, and still no data */
}

/* @s comes to instruction @i; true: that says something new. */
static bool arrive(struct state *at, const struct state *s)
{
	struct state old = *at;

	for (unsigned r = 0; r < 16; r++)
		at->reg[r] = (uint8_t)meet(at->reg[r], s->reg[r]);
	for (unsigned c = 0; c < SLOTS; c++)
		at->slot[c] = (uint8_t)meet(at->slot[c], s->slot[c]);
	if (at->cmp == NOTHING || at->count < s->count)
		at->count = s->count;
	if (at->cmp == NOTHING) {
		at->cmp = s->cmp;
		at->cmp_reg = s->cmp_reg;
	} else if (at->cmp != s->cmp || at->cmp_reg != s->cmp_reg) {
		at->cmp = ANY;
		at->cmp_reg = 0;
	}
	return memcmp(&old, at, sizeof old) != 0;
}

struct trail {
	struct verify *f;
	struct state *at;
	unsigned *todo, n_todo;
	uint8_t *queued;
};

static void come(struct trail *w, int i, const struct state *s)
{
	if (!arrive(&w->at[i], s) || w->queued[i])
		return;
	w->queued[i] = 1;
	w->todo[w->n_todo++] = (unsigned)i;
}

/* Registers as the guest has them, but for those in their slots. */
static bool leaves_clean(struct verify *f, const struct state *s, const struct verify_insn *in, uint16_t spill)
{
	for (unsigned r = 0; r < 16; r++)
		if (!(spill >> r & 1) && is_secret(s->reg[r]))
			return verify_fail(f, in->off, "leaves with an engine address in a guest register");
	return true;
}

/* mov dword gs:[@slot], n in front of the jump: n */
static bool number_before(const struct verify *f, const struct verify_insn *in, size_t slot, uint32_t *n)
{
	const struct verify_insn *mov = in - 1;

	if (in == f->in || mov->z.mnemonic != ZYDIS_MNEMONIC_MOV || !is_slot(&mov->op[0], slot) ||
	    mov->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return false;
	*n = (uint32_t)mov->op[1].imm.value.u;
	return true;
}

static bool to_glue(struct trail *w, const struct state *s, const struct verify_insn *in, const uint8_t *to)
{
	static const struct {
		const uint8_t *at;
		uint32_t kinds; /* of sites */
	} glue[] = {
		{glue_mem, 1u << SITE_MEM},
		{glue_mem_checked, 1u << SITE_MEM},
		{glue_sys, 1u << SITE_SYS | 1u << SITE_STRING | 1u << SITE_RAISE},
		{glue_gather, 1u << SITE_SYS},
		{glue_indirect, 1u << SITE_INDIRECT},
		{glue_indirect_step, 1u << SITE_INDIRECT},
	};
	struct verify *f = w->f;
	const struct site *site;
	uint32_t n;

	if (to == glue_exit) {
		if (!number_before(f, in, VOFF(exit), &n) || n - f->b->exit >= f->b->n_exits)
			return verify_fail(f, in->off, "leaves by no exit of the block");
		return leaves_clean(f, s, in, BT_SPARE);
	}
	for (unsigned i = 0; i < sizeof glue / sizeof glue[0]; i++) {
		if (to != glue[i].at)
			continue;
		if (!number_before(f, in, VOFF(site), &n) || n - f->b->site >= f->b->n_sites)
			return verify_fail(f, in->off, "leaves at no site of the block");
		site = &f->bt->sites[n];
		if (!(glue[i].kinds >> site->kind & 1) || site->goff > f->b->len)
			return verify_fail(f, in->off, "leaves at a site of another kind");
		if (site->resume_off)
			come(w, f->at[site->resume_off - f->b->host_start], s);
		return leaves_clean(f, s, in, site->spill);
	}
	return verify_fail(f, in->off, "jumps to nowhere");
}

static bool to_block(struct verify *f, const struct state *s, const struct verify_insn *in, uint64_t to)
{
	uint32_t off = (uint32_t)(to - (uint64_t)(uintptr_t)f->bt->rx), b = BT_NONE, rel = in->off + in->z.length - 4;

	for (uint32_t x = f->b->exit; x < f->b->exit + f->b->n_exits; x++)
		if (f->bt->exits[x].rel_off == rel)
			b = f->bt->exits[x].target;
	if (b == BT_NONE)
		return verify_fail(f, in->off, "jumps out of the block where there is no link");
	for (int k = 0; k < 4; k++)
		if (block_entry(&f->bt->blocks[b], k & 1, k & 2) == off)
			return leaves_clean(f, s, in, BT_SPARE);
	return verify_fail(f, in->off, "a link into the middle of a block");
}

static bool follow(struct trail *w, const struct state *s, const struct verify_insn *in)
{
	uint64_t to, rx = (uint64_t)(uintptr_t)w->f->bt->rx;
	int i;

	if (in->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY ||
	    (in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && kind_of(s, in->op[0].reg.value) == ENTRY))
		return leaves_clean(w->f, s, in, BT_SPARE);
	if (in->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !in->op[0].imm.is_relative ||
	    !ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&in->z, &in->op[0], rx + in->off, &to)))
		return verify_fail(w->f, in->off, "jumps where a register says");
	if (to - rx >= w->f->b->host_start && to - rx < w->f->b->host_end) {
		i = verify_index(w->f, to);
		if (i < 0)
			return verify_fail(w->f, in->off, "jumps into an instruction");
		come(w, i, s);
		return true;
	}
	if (to - rx < BT_CODE_SIZE)
		return to_block(w->f, s, in, to);
	return to_glue(w, s, in, (const uint8_t *)(uintptr_t)to);
}

/* One instruction, from the state before it to all that follow. */
static bool step(struct trail *w, unsigned i)
{
	const struct verify_insn *in = insn(w->f, i);
	struct state s = w->at[i], taken;
	bool jump = in->z.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;

	if (!transfer(w->f, &s, in))
		return false;
	taken = s;
	if (s.cmp == COUNT && in->z.mnemonic == ZYDIS_MNEMONIC_JNBE)
		s.reg[s.cmp_reg] = COUNT;
	if (s.cmp != ANY && s.cmp != COUNT && in->z.mnemonic == ZYDIS_MNEMONIC_JNZ)
		s.reg[s.cmp_reg] = s.cmp;
	if (s.cmp != ANY && s.cmp != COUNT && in->z.mnemonic == ZYDIS_MNEMONIC_JZ)
		taken.reg[s.cmp_reg] = s.cmp;
	if (jump && !follow(w, &taken, in))
		return false;
	if (jump && in->z.mnemonic == ZYDIS_MNEMONIC_JMP)
		return true;
	if (i + 1 == w->f->n)
		return verify_fail(w->f, in->off, "runs out of the block");
	come(w, (int)i + 1, &s);
	return true;
}

bool verify_flow(struct verify *f)
{
	static struct state at[VERIFY_MAX];
	static unsigned todo[VERIFY_MAX];
	static uint8_t queued[VERIFY_MAX];
	struct trail w = {f, at, todo, 0, queued};
	struct state start;

	own.seg = f->bt->vcpu_seg == SEG_PREFIX_FS ? ZYDIS_REGISTER_FS : ZYDIS_REGISTER_GS;
	own.delta = f->bt->vcpu_delta;
	memset(at, NOTHING, f->n * sizeof at[0]);
	memset(queued, 0, f->n);
	memset(&start, ANY, sizeof start);
	for (int k = 0; k < 4; k++)
		come(&w, f->at[block_entry(f->b, k & 1, k & 2) - f->b->host_start], &start);
	for (uint32_t x = f->b->exit; x < f->b->exit + f->b->n_exits; x++) /* what a cell or a link holds meanwhile */
		come(&w, f->at[f->bt->exits[x].stub_off - f->b->host_start], &start);
	while (w.n_todo) {
		unsigned i = todo[--w.n_todo];

		queued[i] = 0;
		if (!step(&w, i))
			return false;
	}
	for (unsigned i = 0; i < f->n; i++)
		if (at[i].cmp == NOTHING)
			return verify_fail(f, f->in[i].off, "never reached");
	return true;
}
