/*
 * Sequences: straight-line code with live flags and registers, forward
 * branches, bounded loops, calls, indirect jumps and code that changes code
 * ahead of itself, in the block it runs in, in another one, on another page.
 *
 * A few registers are set aside, so that most memory operands hit memory: two
 * pointers, a small index, a loop counter and one for addresses of code.
 *
 * Invariant: no instruction reads a flag that an earlier one left undefined,
 * and none writes a register set aside.
 */
#include "seq.h"

#include <string.h>

#include "isa.h"
#include "native.h"
#include "steer.h"
#include "values.h"

#define ARITH   0x8d5u
#define FAR_OFF (CODE_SIZE / 2)

struct seq {
	struct gen *g;
	struct test *t;
	uint64_t at, end; /* where the next byte goes; where the main code must end */
	uint64_t fn, far; /* where functions go: behind the stop address, and on another page */
	uint32_t undef;   /* flags undefined here */
	unsigned ptr[2], idx, cnt, tmp;
	uint16_t reserved;
	int in_function; /* the stack's top is the return address */
	struct encode_limits lim;
};

static void put(struct seq *s, const void *bytes, unsigned n)
{
	memcpy(s->g->b->code + (s->at - CODE_BASE), bytes, n);
	s->at += n;
}

/* Notes that @flags are undefined before what is put next. */
static void note_flags(struct seq *s, uint32_t flags)
{
	if (s->t->n_undef == UNDEF_MAX)
		return;
	s->t->undef[s->t->n_undef].at = (uint32_t)s->at;
	s->t->undef[s->t->n_undef++].flags = flags;
}

static void note_undef(struct seq *s)
{
	note_flags(s, s->undef);
}

static void put8(struct seq *s, unsigned v)
{
	uint8_t b = (uint8_t)v;

	put(s, &b, 1);
}

static void put32(struct seq *s, uint64_t v)
{
	uint32_t d = (uint32_t)v;

	put(s, &d, 4);
}

static int bits32(const struct seq *s)
{
	return s->g->t->bits32;
}

/* REX with W and B, where the mode has it. */
static void put_rex(struct seq *s, unsigned w, unsigned r, unsigned b)
{
	if (!bits32(s) && (w || r >= 8 || b >= 8))
		put8(s, 0x40 | w << 3 | (r >> 3) << 2 | b >> 3);
}

/* ---- plain instructions ---- */

static int is_plain(const struct insn_inst *i)
{
	switch (i->in.meta.category) {
	case ZYDIS_CATEGORY_STRINGOP:
		return i->in.operand_count < 2 || i->ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
		       i->ops[1].type != ZYDIS_OPERAND_TYPE_MEMORY; /* with two bad operands either may be reported */
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_SEGOP:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT:
	case ZYDIS_CATEGORY_RDWRFSGS:
	case ZYDIS_CATEGORY_GATHER:
	case ZYDIS_CATEGORY_SCATTER: return 0;
	default: break;
	}
	switch (i->in.mnemonic) {
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_LEAVE:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FLDCW:
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_BOUND: return 0;
	default: return 1;
	}
}

static int writes_reserved(const struct seq *s, const ZydisDecodedOperand *op)
{
	int r;

	if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || !(op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
		return 0;
	if (op->reg.value >= ZYDIS_REGISTER_ES && op->reg.value <= ZYDIS_REGISTER_GS)
		return 1;
	r = gpr_of(op->reg.value);
	if (r == 4)
		return op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN;
	return r >= 0 && (s->reserved >> r & 1);
}

/* String operands and the like are good only once in a while: their pointers are not set up. */
static int bad_memory(struct seq *s, const struct insn_inst *i, const ZydisDecodedOperand *op)
{
	int base = gpr_of(op->mem.base);

	if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return 0;
	if (op->size > 512)
		return 1;
	if (i->in.mnemonic >= ZYDIS_MNEMONIC_BT && i->in.mnemonic <= ZYDIS_MNEMONIC_BTS &&
	    i->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
		return 1;
	if (base == 4 && s->in_function)
		return 1;
	if (base == 4 || base == (int)s->ptr[0] || base == (int)s->ptr[1])
		return 0;
	return !one_in(&s->g->r, 10);
}

static int acceptable(struct seq *s, const struct insn_inst *i)
{
	if (isa_stores_after_computing(&i->in, i->ops) && !isa_host_is_amd())
		return 0; /* where the operand is bad, which is left to chance here, the engine does as AMD's CPUs */
	if (!is_plain(i) || (i->in.cpu_flags && (i->in.cpu_flags->tested & s->undef)))
		return 0;
	for (int k = 0; k < i->in.operand_count; k++)
		if (writes_reserved(s, &i->ops[k]) || bad_memory(s, i, &i->ops[k]))
			return 0;
	return 1;
}

static void track_flags(struct seq *s, const struct insn_inst *i)
{
	const ZydisAccessedFlags *f = i->in.cpu_flags;

	if (!f)
		return;
	if (i->in.meta.category != ZYDIS_CATEGORY_SHIFT && i->in.meta.category != ZYDIS_CATEGORY_ROTATE)
		s->undef &= ~(f->modified | f->set_0 | f->set_1);
	s->undef |= f->undefined & ARITH;
}

/* An instruction on a vector register or two of them: VEX.256.66.0F with its opcode. */
static void put_vex256(struct seq *s, unsigned op, unsigned reg, unsigned vvvv, unsigned rm)
{
	put8(s, 0xc4);
	put8(s, (reg > 7 ? 0 : 0x80) | 0x40 | (rm > 7 ? 0 : 0x20) | 1);
	put8(s, (~vvvv & 15) << 3 | 5);
	put8(s, op);
	put8(s, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* A gather, or any form if this CPU has none. */
static uint32_t gather_form(struct seq *s)
{
	const struct forms *t = s->g->t;
	uint32_t n = (uint32_t)below(&s->g->r, t->n);

	for (uint32_t k = 0; k < t->n; k++) {
		const struct form *f = &t->f[(n + k) % t->n];

		if (f->vex == 1 && f->map == 2 && (f->opcode & 0xfc) == 0x90)
			return (n + k) % t->n;
	}
	return n;
}

/* Before a gather: vpsrld or vpsrlq index, 24 or 56; vpcmpeqd mask, mask, mask. */
static void gather_operands(struct seq *s, const struct insn_inst *i)
{
	unsigned index = vector_number(i->ops[1].mem.index), mask = vector_number(i->ops[2].reg.value);
	int qwords = i->in.opcode & 1;

	if (!one_in(&s->g->r, 6)) {
		put_vex256(s, qwords ? 0x73 : 0x72, 2, index, index);
		put8(s, qwords ? 56 : 24);
	}
	if (one_in(&s->g->r, 2))
		put_vex256(s, 0x76, mask, mask, mask);
}

static void plain(struct seq *s)
{
	struct insn_inst i;

	for (int k = 0; k < 200; k++) {
		int gather = one_in(&s->g->r, 100);
		const struct form *f = &s->g->t->f[gather ? gather_form(s) : below(&s->g->r, s->g->t->n)];

		if (!gather && one_in(&s->g->r, 2) &&
		    (f->vex || f->map > 1)) /* half of them from the integer instructions' maps */
			continue;
		if (f->vex == 2 && !one_in(&s->g->r, 4)) /* most forms are EVEX */
			continue;
		if (f->faults || encode_random(s->g->t, f, &s->g->r, &s->lim, &i) < 0 || !acceptable(s, &i))
			continue;
		note_undef(s);
		if (i.in.meta.category == ZYDIS_CATEGORY_AVX2GATHER)
			gather_operands(s, &i);
		put(s, i.bytes, i.in.length);
		track_flags(s, &i);
		note_undef(s);
		return;
	}
}

static void plains(struct seq *s, unsigned n)
{
	while (n--)
		plain(s);
}

/* ---- control flow ---- */

static const uint32_t cc_flags[8] = {0x800, 0x1, 0x40, 0x41, 0x80, 0x4, 0x880, 0x8c0};

static int pick_cc(struct seq *s)
{
	for (int k = 0; k < 8; k++) {
		unsigned cc = below(&s->g->r, 16);

		if (!(cc_flags[cc >> 1] & s->undef))
			return (int)cc;
	}
	return -1;
}

static void patch_rel(struct seq *s, uint64_t field, unsigned size, uint64_t target)
{
	uint64_t d = target - (field + size);

	memcpy(s->g->b->code + (field - CODE_BASE), &d, size);
}

/* jcc, jmp or j(r)cxz over some instructions */
static void branch_over(struct seq *s)
{
	int cc = pick_cc(s), wide = one_in(&s->g->r, 3);
	uint32_t before = s->undef;
	uint64_t field;

	if (cc < 0 || one_in(&s->g->r, 8)) {
		wide = 0;
		put8(s, one_in(&s->g->r, 2) ? 0xeb : 0xe3);
	} else if (wide) {
		put8(s, 0x0f);
		put8(s, 0x80 | (unsigned)cc);
	} else {
		put8(s, 0x70 | (unsigned)cc);
	}
	field = s->at;
	put(s, "\0\0\0\0", wide ? 4 : 1);
	plains(s, 1 + below(&s->g->r, 3));
	patch_rel(s, field, wide ? 4 : 1, s->at);
	s->undef |= before;
}

/* mov counter, n; body; dec counter; jnz body (or loop) */
static void counted_loop(struct seq *s)
{
	unsigned n = 1 + below(&s->g->r, 6);
	uint64_t top;

	put_rex(s, 0, 0, s->cnt);
	put8(s, 0xb8 | (s->cnt & 7));
	put32(s, n);
	s->undef = ARITH;
	top = s->at;
	plains(s, 1 + below(&s->g->r, 3));
	if (s->cnt == 1 && one_in(&s->g->r, 2)) {
		put8(s, 0xe2);
		put8(s, (unsigned)(top - (s->at + 1)));
		return;
	}
	put_rex(s, 0, 0, s->cnt);
	put8(s, 0xff);
	put8(s, 0xc8 | (s->cnt & 7));
	put8(s, 0x0f);
	put8(s, 0x85);
	put32(s, top - (s->at + 4));
	s->undef &= 1; /* dec defines all but CF */
}

/* Writes a function of a few instructions at one of the places for them; its address. */
static uint64_t function(struct seq *s, uint64_t *imm)
{
	uint64_t back = s->at, addr;
	uint64_t *place = one_in(&s->g->r, 3) ? &s->far : &s->fn;

	s->at = addr = *place;
	if (imm) { /* mov reg, imm32: what self-modifying code changes */
		put_rex(s, 0, 0, s->tmp);
		put8(s, 0xb8 | (s->tmp & 7));
		*imm = s->at;
		put32(s, rnd(&s->g->r));
	}
	s->in_function = 1;
	plains(s, 1 + below(&s->g->r, 2));
	s->in_function = 0;
	if (one_in(&s->g->r, 4)) {
		put8(s, 0xc2);
		put8(s, 8 * below(&s->g->r, 3));
		put8(s, 0);
	} else {
		put8(s, 0xc3);
	}
	*place = s->at + below(&s->g->r, 3);
	s->at = back;
	return addr;
}

static void call_to(struct seq *s, uint64_t addr)
{
	put8(s, 0xe8);
	put32(s, addr - (s->at + 4));
}

/* tmp = address; returns the field to patch */
static uint64_t load_address(struct seq *s)
{
	if (bits32(s)) {
		put8(s, 0xb8 | s->tmp);
		put32(s, 0);
	} else {
		put_rex(s, 1, s->tmp, 0);
		put8(s, 0x8d);
		put8(s, (s->tmp & 7) << 3 | 5);
		put32(s, 0);
	}
	return s->at - 4;
}

static void patch_address(struct seq *s, uint64_t field, uint64_t target)
{
	if (bits32(s))
		memcpy(s->g->b->code + (field - CODE_BASE), &target, 4);
	else
		patch_rel(s, field, 4, target);
}

/* FF /ext on tmp, or on memory where tmp was just stored. */
static void ff_tmp(struct seq *s, unsigned ext)
{
	unsigned p = s->ptr[0];

	note_undef(s);
	if (one_in(&s->g->r, 2) || (p & 7) == 4) {
		put_rex(s, 0, 0, s->tmp);
		put8(s, 0xff);
		put8(s, 0xc0 | ext << 3 | (s->tmp & 7));
		return;
	}
	put_rex(s, 1, s->tmp, p); /* mov [ptr+8], tmp */
	put8(s, 0x89);
	put8(s, 0x40 | (s->tmp & 7) << 3 | (p & 7));
	put8(s, 8);
	put_rex(s, 0, 0, p);
	put8(s, 0xff);
	put8(s, 0x40 | ext << 3 | (p & 7));
	put8(s, 8);
}

static void indirect(struct seq *s)
{
	uint64_t field = load_address(s);

	plains(s, below(&s->g->r, 2));
	switch (below(&s->g->r, 3)) {
	case 0: /* jmp over a byte or more */
		ff_tmp(s, 4);
		put(s, "\xf4\xf4\xf4", below(&s->g->r, 4));
		patch_address(s, field, s->at);
		break;
	case 1: /* push tmp; ret */
		put_rex(s, 0, 0, s->tmp);
		put8(s, 0x50 | (s->tmp & 7));
		put8(s, 0xc3);
		put(s, "\xf4\xf4", below(&s->g->r, 3));
		patch_address(s, field, s->at);
		break;
	default:
		ff_tmp(s, 2);
		patch_address(s, field, function(s, NULL));
		break;
	}
}

/* ---- code that changes code ---- */

/* op dword [address of code], imm32: mov (C7 /0) or add (81 /0); the field of the address */
static uint64_t store_code(struct seq *s, unsigned opcode, uint32_t imm, uint64_t target)
{
	uint64_t field;

	note_undef(s);
	put8(s, opcode);
	put8(s, 0x05);
	field = s->at;
	put32(s, bits32(s) ? target : target - (s->at + 8));
	put32(s, imm);
	return field;
}

/* Changes the immediate of a mov a little further on in the same block. */
static void change_ahead(struct seq *s)
{
	uint64_t field = store_code(s, 0xc7, (uint32_t)rnd(&s->g->r), 0), at;

	plains(s, below(&s->g->r, 3));
	put_rex(s, 0, 0, s->tmp);
	put8(s, 0xb8 | (s->tmp & 7));
	at = s->at;
	put32(s, rnd(&s->g->r));
	if (!bits32(s))
		at -= field + 8;
	memcpy(s->g->b->code + (field - CODE_BASE), &at, 4);
}

/* Changes a function that has run already, and runs it again, in a loop. */
static void change_function(struct seq *s)
{
	uint64_t imm, fn, top;
	unsigned n = 1 + below(&s->g->r, 4);

	s->undef = ARITH;
	fn = function(s, &imm);
	put_rex(s, 0, 0, s->cnt);
	put8(s, 0xb8 | (s->cnt & 7));
	put32(s, n);
	top = s->at;
	note_flags(s, ARITH); /* of the function, or of what is before it */
	call_to(s, fn);
	if (one_in(&s->g->r, 2))
		store_code(s, 0xc7, (uint32_t)rnd(&s->g->r), imm);
	else
		store_code(s, 0x81, (uint32_t)rnd(&s->g->r), imm);
	put_rex(s, 0, 0, s->cnt);
	put8(s, 0xff);
	put8(s, 0xc8 | (s->cnt & 7));
	put8(s, 0x0f);
	put8(s, 0x85);
	put32(s, top - (s->at + 4));
	s->undef = ARITH;
}

/* ---- several accesses through one register, which changes by known amounts ---- */

/* op [rsp + disp8], tmp */
static void tmp_rsp(struct seq *s, unsigned op, unsigned disp)
{
	put_rex(s, 1, s->tmp, 0);
	put8(s, op);
	put8(s, 0x44 | (s->tmp & 7) << 3);
	put8(s, 0x24);
	put8(s, disp);
}

/* 83 /ext reg, imm8: add or sub */
static void bump(struct seq *s, unsigned ext, unsigned reg, unsigned imm)
{
	put_rex(s, 1, 0, reg);
	put8(s, 0x83);
	put8(s, 0xc0 | ext << 3 | (reg & 7));
	put8(s, imm);
	s->undef = 0;
}

static void stack_insn(struct seq *s)
{
	unsigned by = 8 * (below(&s->g->r, 9) - 4) & 0xff;

	switch (below(&s->g->r, 8)) {
	case 0:
	case 1:
		put_rex(s, 0, 0, s->tmp);
		put8(s, 0x50 | (s->tmp & 7));
		break;
	case 2:
	case 3:
		put_rex(s, 0, 0, s->tmp);
		put8(s, 0x58 | (s->tmp & 7));
		break;
	case 4: bump(s, one_in(&s->g->r, 2) ? 5 : 0, 4, by); break;
	case 5: /* lea rsp, [rsp + by] */
		put_rex(s, 1, 0, 0);
		put8(s, 0x8d);
		put8(s, 0x64);
		put8(s, 0x24);
		put8(s, by);
		break;
	case 6: tmp_rsp(s, one_in(&s->g->r, 2) ? 0x8b : 0x89, by + below(&s->g->r, 3)); break;
	default: /* push rsp; pop rsp */
		put8(s, 0x54);
		if (one_in(&s->g->r, 2))
			tmp_rsp(s, 0x8b, 0);
		put8(s, 0x5c);
		break;
	}
}

static void group(struct seq *s)
{
	unsigned reg = s->ptr[below(&s->g->r, 2)], by = below(&s->g->r, 100);

	if (one_in(&s->g->r, 2)) {
		for (unsigned n = 2 + below(&s->g->r, 6); n; n--)
			stack_insn(s);
		return;
	}
	plain(s);
	bump(s, 0, reg, by);
	plains(s, 1 + below(&s->g->r, 2));
	bump(s, 5, reg, by);
	plain(s);
}

/* ---- a whole sequence ---- */

static unsigned pick_reg(struct seq *s, uint16_t allowed)
{
	unsigned r, n = bits32(s) ? 8 : 16;

	do
		r = below(&s->g->r, n);
	while (!(allowed >> r & 1) || (s->reserved >> r & 1));
	s->reserved |= (uint16_t)(1u << r);
	return r;
}

static void set_aside(struct seq *s)
{
	s->reserved = 1 << 4;
	s->cnt = one_in(&s->g->r, 2) ? 1 : pick_reg(s, 0xffff);
	s->reserved |= (uint16_t)(1u << s->cnt);
	s->ptr[0] = pick_reg(s, 0xffe8);
	s->ptr[1] = bits32(s) ? s->ptr[0] : pick_reg(s, 0xffe8);
	s->idx = pick_reg(s, 0xfffe);
	s->tmp = pick_reg(s, 0xffff);
	s->lim.base_ok = (uint16_t)(1u << s->ptr[0] | 1u << s->ptr[1]);
	s->lim.index_ok = (uint16_t)(1u << s->idx);
	s->lim.plain = 1;
}

static void element(struct seq *s)
{
	note_undef(s);
	switch (below(&s->g->r, 18)) {
	case 0:
	case 1: branch_over(s); break;
	case 2: counted_loop(s); break;
	case 3: call_to(s, function(s, NULL)); break;
	case 4: indirect(s); break;
	case 5:
		if (one_in(&s->g->r, 2))
			change_ahead(s);
		else
			change_function(s);
		break;
	case 6:
	case 7: group(s); break;
	default: plain(s); break;
	}
}

static void add_case(struct seq *s)
{
	struct testcase *tc = &s->g->b->tc[s->g->b->ncases++];
	struct rng *r = &s->g->r;

	memset(tc, 0, sizeof *tc);
	value_state(r, &tc->in, bits32(s));
	tc->test = (uint16_t)(s->t - s->g->b->test);
	tc->in.rip = s->t->start;
	tc->in.gpr[4] = STACK_BASE + PG / 2 + (below(r, PG) & ~7ull);
	if (one_in(r, 8)) /* around the page boundary, aligned or not */
		tc->in.gpr[4] = STACK_BASE + PG - 64 + below(r, 128);
	tc->in.gpr[s->idx] = one_in(r, 4) ? below(r, 40) : 32 * below(r, 2);
	for (int k = 0; k < 2; k++) {
		uint64_t page = wr_page[below(r, 4)], off = PG / 2 + below(r, 1024) - 512;

		if (one_in(r, 12)) /* near an edge: crossings and faults */
			off = one_in(r, 2) ? below(r, 256) : PG - below(r, 256);
		tc->in.gpr[s->ptr[k]] = page + (one_in(r, 4) ? off : off & ~31ull);
	}
	if (!one_in(r, 8))
		tc->in.rflags &= ~0x400ull;
	native_limit(&tc->in);
}

static void seq_one(struct gen *g, unsigned n)
{
	struct seq s = {.g = g, .t = &g->b->test[g->b->ntests]};
	unsigned count = 2 + below(&g->r, 11);

	memset(s.t, 0, sizeof *s.t);
	s.t->slot = CODE_BASE + (uint64_t)n * SEQ_SLOT;
	s.at = s.t->start = s.t->slot + below(&g->r, 40);
	if ((n + 1) % (PG / SEQ_SLOT) == 0 && one_in(&g->r, 2)) /* run into the next page */
		s.at = s.t->start = s.t->slot + SEQ_SLOT - 16 - below(&g->r, 60);
	s.t->far = s.far = s.t->start + FAR_OFF;
	s.fn = s.t->start + 330;
	set_aside(&s);
	while (count-- && s.at < s.t->start + 220 && s.fn < s.t->start + 440)
		element(&s);
	s.t->stop = s.at;
	s.t->len = (uint32_t)((s.fn > s.t->start + 330 ? s.fn : s.at + 1) - s.t->start);
	s.t->far_len = (uint32_t)(s.far - s.t->far);
	s.t->flags = TEST_SEQ | (bits32(&s) ? TEST_32BIT | (g->tls ? TEST_TLS : 0) : 0);
	s.t->undef_flags = s.undef;
	g->b->ntests++;
	for (int k = 0; k < g->states; k++)
		add_case(&s);
}

void seq_batch(struct gen *g)
{
	gen_reset(g);
	g->states = 8;
	/* every second slot: a sequence that begins at the end of one uses the next */
	for (unsigned n = 0; n + 1 < FAR_OFF / SEQ_SLOT; n++) {
		if (g->b->ncases + (unsigned)g->states > BATCH_CASES)
			break;
		seq_one(g, n);
		if (g->b->test[g->b->ntests - 1].start > g->b->test[g->b->ntests - 1].slot + 40)
			n++;
	}
}
