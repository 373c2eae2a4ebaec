/*
 * A single-instruction test: one encoding placed in a slot of the code region
 * (now and then across a page or at the end of the last one), and several
 * states for it, each with its own operand addresses.
 *
 * Invariant: everything follows from the generator's seed, so a case can be
 * made again from the run's seed and its number.
 */
#include "gen.h"

#include <stdbool.h>
#include <string.h>

#include "isa.h"
#include "native.h"
#include "steer.h"
#include "values.h"

static const struct encode_limits any = {0, 0, 0};

void gen_reset(struct gen *g)
{
	g->b->ntests = g->b->ncases = 0;
	memset(g->b->code, FILL_BYTE, CODE_SIZE);
	value_image(&g->r, g->b->image);
}

static void add_poke(struct testcase *tc, uint64_t addr, uint64_t val)
{
	if (tc->npokes < MAX_POKES)
		tc->poke[tc->npokes++] = (struct poke){addr, val};
}

static uint64_t image_read(const struct gen *g, uint64_t addr)
{
	uint64_t v = 0;

	for (int i = 0; i < WR_PAGES; i++)
		if (addr >= wr_page[i] && addr + 8 <= wr_page[i] + PG)
			memcpy(&v, g->b->image + (uint64_t)i * PG + (addr - wr_page[i]), 8);
	return v;
}

static uint64_t jump_target(struct gen *g, const struct test *t)
{
	switch (below(&g->r, 10)) {
	case 0: return t->slot + 80 + below(&g->r, 30);
	case 1: return wr_page[below(&g->r, WR_PAGES)] + below(&g->r, PG);
	case 2: return HOLE + below(&g->r, PG);
	case 3:
		if (!isa_host_is_amd() && !g->t->bits32) /* a call that goes nowhere pushes nothing on Intel's */
			return t->stop;
		return g->t->bits32 ? (uint32_t)value_int(&g->r) : value_int(&g->r);
	default: return t->stop;
	}
}

/* Chooses where a relative branch or a rip-relative or absolute operand goes, by patching the bytes. */
static void patch_bytes(struct gen *g, struct test *t, struct insn_inst *i)
{
	struct steer s = {.r = &g->r, .wild = g->wild, .bits32 = g->t->bits32, .slot = t->slot};
	uint64_t next = t->start + i->in.length, dst;

	for (int k = 0; k < 2; k++) {
		if (!i->in.raw.imm[k].size || !i->in.raw.imm[k].is_relative)
			continue;
		dst = i->in.raw.imm[k].size == 8 ? t->slot + 80 + below(&g->r, 30) : jump_target(g, t);
		if (one_in(&g->r, 2))
			dst = next;
		dst -= next;
		memcpy(i->bytes + i->in.raw.imm[k].offset, &dst, i->in.raw.imm[k].size / 8);
	}
	for (int k = 0; k < i->in.operand_count; k++) {
		const ZydisDecodedOperand *op = &i->ops[k];
		int rip = op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || !i->in.raw.disp.size || (s.wild && one_in(&g->r, 16)))
			continue;
		if (!rip && (op->mem.base || op->mem.index))
			continue;
		dst = steer_target(&s, op->size / 8) - (rip ? next : 0);
		memcpy(i->bytes + i->in.raw.disp.offset, &dst, i->in.raw.disp.size / 8);
	}
}

/* Eighth @i, of 64 bits, of vector register @n. */
static uint8_t *vector_part(struct testcase *tc, unsigned n, unsigned i)
{
	if (n > 15)
		return tc->in.xs + isa_xs_off(XS_ZMM_16) + 64 * (n - 16) + 8 * i;
	if (i > 3)
		return tc->in.xs + isa_xs_off(XS_ZMM_HI) + 32 * n + 8 * (i - 4);
	return tc->in.xs + (i < 2 ? XS_XMM : XS_YMMH) + 16 * n + 8 * (i & 1);
}

/* Half of the time all elements or all but one. */
static void fix_mask(struct gen *g, struct testcase *tc, const struct insn_inst *i)
{
	unsigned mask = vector_number(i->ops[2].reg.value);

	if (i->in.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		uint64_t k = one_in(&g->r, 3) ? ~(1ull << below(&g->r, 16)) : ~0ull;

		memcpy(tc->in.xs + isa_xs_off(XS_MASKS) + 8 * i->in.raw.evex.aaa, &k, 8);
		return;
	}
	for (unsigned k = 0; k < 4 && mask < 16; k++)
		memset(vector_part(tc, mask, k), 0xff, 8);
	if (mask < 16 && one_in(&g->r, 3))
		memset(vector_part(tc, mask, (unsigned)below(&g->r, 4)) + 4 * below(&g->r, 2), 0x7f, 4);
}

/* Small, in-range elements in the index register of a gather or scatter. */
static void fix_vsib(struct gen *g, struct testcase *tc, const struct insn_inst *i, const ZydisDecodedOperand *op)
{
	unsigned n = vector_number(op->mem.index), parts = isa_has_avx512() ? 8 : 4;
	uint64_t range = one_in(&g->r, 4) ? 0x3ff000003ffull : 0x3f0000003full;
	int all = one_in(&g->r, 2), rare = one_in(&g->r, 2) ? 10 : 40;

	for (unsigned k = 0; k < parts && n < 32; k++) {
		uint64_t v = rnd(&g->r) & range;

		if (one_in(&g->r, 2))
			v &= (uint32_t)range;
		if (one_in(&g->r, (unsigned)rare))
			v = rnd(&g->r);
		memcpy(vector_part(tc, n, k), &v, 8);
	}
	if (all)
		fix_mask(g, tc, i);
}

static int is_string(const struct insn_inst *i)
{
	return i->in.meta.category == ZYDIS_CATEGORY_STRINGOP || i->in.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

/* Extended states that the host has switched on and the guest is not offered (PKRU ...). */
static uint64_t foreign_states(void)
{
	static uint64_t found;
	static bool asked;
	uint32_t lo, hi;

	if (!asked) {
		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		found = ((uint64_t)hi << 32 | lo) & ~(isa_has_avx512() ? 0xe7ull : 7ull);
		asked = true;
	}
	return found;
}

static int op_target(struct gen *g, struct steer *s, const struct insn_inst *i, const ZydisDecodedOperand *op,
		     uint64_t *target)
{
	int base = gpr_of(op->mem.base);

	*target = steer_target(s, op->size / 8);
	if (op->size >= 512 * 8 && !one_in(&g->r, 4))
		*target = (i->in.mnemonic == ZYDIS_MNEMONIC_XRSTOR || i->in.mnemonic == ZYDIS_MNEMONIC_XRSTOR64 ||
			   i->in.mnemonic == ZYDIS_MNEMONIC_FXRSTOR || i->in.mnemonic == ZYDIS_MNEMONIC_FXRSTOR64)
				  ? GOOD_XSAVE
				  : DATA_BASE + PG + 64 * below(&g->r, 40);
	if (base == 4 && i->form && !i->form->mem) { /* push and pop: the stack is already good */
		if ((int)below(&g->r, 100) >= s->wild)
			return -1;
	}
	return 0;
}

static void steer_all(struct gen *g, struct testcase *tc, struct test *t, struct insn_inst *i)
{
	struct steer s = {.r = &g->r,
			  .tc = tc,
			  .wild = g->wild,
			  .bits32 = g->t->bits32,
			  .slot = t->slot,
			  .next_rip = t->start + i->in.length};

	if (is_string(i) && (tc->in.rflags & 0x40000) && !isa_host_is_amd()) /* AC */
		s.wild = 0; /* an unaligned operand is a bad one too, and of two either may be reported */
	if (isa_stores_after_computing(&i->in, i->ops) && !isa_host_is_amd()) {
		s.wild = 0; /* the engine does as AMD's CPUs */
		tc->in.rflags &= ~0x40000ull;
	}
	for (int k = 0; k < i->in.operand_count; k++) {
		const ZydisDecodedOperand *op = &i->ops[k];
		uint64_t target;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			continue;
		if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			fix_vsib(g, tc, i, op);
		if (op_target(g, &s, i, op, &target) == 0)
			steer_operand(&s, &i->in, op, target);
		if (op->size > (i->in.meta.isa_ext == ZYDIS_ISA_EXT_X87 ? 80 : 512) ||
		    (op->size == 256 && isa_splits_256()))
			tc->pieces = 1;
		if (is_string(i) && !isa_host_is_amd()) /* which of two bad operands comes first: known of AMD's CPUs */
			s.wild = 0;
	}
}

/* The address of the first memory operand, 0 when there is none. */
static uint64_t first_mem(struct gen *g, struct testcase *tc, const struct test *t, const struct insn_inst *i)
{
	struct steer s = {.r = &g->r, .tc = tc, .bits32 = g->t->bits32, .next_rip = t->start + i->in.length};

	for (int k = 0; k < i->in.operand_count; k++)
		if (i->ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY && i->ops[k].mem.type != ZYDIS_MEMOP_TYPE_AGEN)
			return steer_ea(&s, &i->in, &i->ops[k]);
	return 0;
}

static void fix_branch(struct gen *g, struct testcase *tc, const struct test *t, const struct insn_inst *i)
{
	const ZydisDecodedOperand *op = &i->ops[0];
	uint64_t dst = jump_target(g, t);

	if (i->in.meta.category == ZYDIS_CATEGORY_RET)
		add_poke(tc, tc->in.gpr[4], dst);
	else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
		add_poke(tc, first_mem(g, tc, t, i), dst);
	else if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(op->reg.value) >= 0)
		tc->in.gpr[gpr_of(op->reg.value)] = g->t->bits32 ? (uint32_t)dst : dst;
}

static void fix_cmpxchg(struct gen *g, struct testcase *tc, const struct test *t, const struct insn_inst *i)
{
	int r = gpr_of(i->ops[0].reg.value);
	uint64_t m = first_mem(g, tc, t, i);

	if (one_in(&g->r, 3))
		return;
	if (i->in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG) {
		tc->in.gpr[0] = m ? image_read(g, m) : r >= 0 ? tc->in.gpr[r] : 0;
	} else if (i->in.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B) {
		tc->in.gpr[0] = image_read(g, m) & 0xffffffffull;
		tc->in.gpr[2] = image_read(g, m) >> 32;
	} else {
		tc->in.gpr[0] = image_read(g, m);
		tc->in.gpr[2] = image_read(g, m + 8);
	}
	if (g->t->bits32)
		tc->in.gpr[0] &= 0xffffffffull, tc->in.gpr[2] &= 0xffffffffull;
}

static uint16_t safe_selector(struct gen *g)
{
	static const uint16_t sel[] = {0, 1, 2, 3, SEL_DS, SEL_DS, 0x80, 0xfffb, 0x2b & ~3, SEL_DS & ~1};

	return sel[below(&g->r, sizeof sel / sizeof *sel)];
}

/* Loads of segment registers: only selectors that mean the same under any kernel of this kind. */
static void fix_segment(struct gen *g, struct testcase *tc, const struct test *t, const struct insn_inst *i)
{
	int k = i->in.mnemonic == ZYDIS_MNEMONIC_MOV, r = gpr_of(i->ops[1].reg.value);
	uint64_t v = (rnd(&g->r) & ~0xffffull) | safe_selector(g);

	if (k && i->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER && r >= 0)
		tc->in.gpr[r] = g->t->bits32 ? (uint32_t)v : v;
	else
		add_poke(tc, k ? first_mem(g, tc, t, i) : tc->in.gpr[4], v);
}

static int loads_segment(const struct insn_inst *i)
{
	const ZydisDecodedOperand *op = &i->ops[0];

	return (i->in.mnemonic == ZYDIS_MNEMONIC_MOV || i->in.mnemonic == ZYDIS_MNEMONIC_POP) &&
	       op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= ZYDIS_REGISTER_ES &&
	       op->reg.value <= ZYDIS_REGISTER_GS;
}

static void fix_divide(struct gen *g, struct testcase *tc, int is_signed)
{
	if (one_in(&g->r, 5))
		return;
	tc->in.gpr[2] = below(&g->r, 4);
	if (is_signed && tc->in.gpr[0] >> 63)
		tc->in.gpr[2] = ~0ull;
	if (g->t->bits32)
		tc->in.gpr[2] &= 0xffffffffull;
}

static void fix_bit_offset(struct gen *g, struct testcase *tc, const struct insn_inst *i)
{
	int r = i->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(i->ops[1].reg.value) : -1;

	if (r < 0 || i->ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY || one_in(&g->r, 6) ||
	    r == gpr_of(i->ops[0].mem.base) || r == gpr_of(i->ops[0].mem.index))
		return;
	tc->in.gpr[r] = below(&g->r, 1024) - 512ull;
	if (g->t->bits32)
		tc->in.gpr[r] &= 0xffffffffull;
}

/* What random values would almost never make interesting. */
static void fix_special(struct gen *g, struct testcase *tc, const struct test *t, const struct insn_inst *i)
{

	switch (i->in.mnemonic) {
	case ZYDIS_MNEMONIC_DIV: fix_divide(g, tc, 0); return;
	case ZYDIS_MNEMONIC_IDIV: fix_divide(g, tc, 1); return;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC: fix_bit_offset(g, tc, i); return;
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_CMPXCHG8B:
	case ZYDIS_MNEMONIC_CMPXCHG16B: fix_cmpxchg(g, tc, t, i); return;
	case ZYDIS_MNEMONIC_LEAVE:
		if (!one_in(&g->r, 6))
			tc->in.gpr[5] = tc->in.gpr[4] + below(&g->r, 64);
		return;
	case ZYDIS_MNEMONIC_POPF:
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
		add_poke(tc, tc->in.gpr[4], rnd(&g->r) & (one_in(&g->r, 3) ? ~0x100ull : 0xcd7ull));
		return;
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
		if (!one_in(&g->r, 4))
			add_poke(tc, first_mem(g, tc, t, i), rnd(&g->r) & 0xffffffff0000ffffull);
		return;
	case ZYDIS_MNEMONIC_XGETBV:
		tc->in.gpr[1] = one_in(&g->r, 3) || foreign_states() ? 2 + below(&g->r, 9) : 0;
		return;
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XRSTOR:
	case ZYDIS_MNEMONIC_XRSTOR64: /* edx:eax asks for nothing that the guest does not have */
		tc->in.gpr[0] &= ~(uint64_t)(uint32_t)foreign_states();
		tc->in.gpr[2] &= ~(foreign_states() >> 32);
		return;
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE: return;
	case ZYDIS_MNEMONIC_POPA: /* how much of it is done when it faults is not defined */
	case ZYDIS_MNEMONIC_POPAD: tc->in.gpr[4] = STACK_BASE + PG / 2 + below(&g->r, PG); return;
	default: break;
	}
	if (loads_segment(i))
		fix_segment(g, tc, t, i);
	else if (i->in.meta.category == ZYDIS_CATEGORY_CALL || i->in.meta.category == ZYDIS_CATEGORY_RET ||
		 i->in.meta.category == ZYDIS_CATEGORY_UNCOND_BR)
		fix_branch(g, tc, t, i);
}

/* Where the instruction stores x87 instruction and data pointers, which hold the address of the code that ran. */
static void set_mask(struct gen *g, struct testcase *tc, const struct test *t, const struct insn_inst *i)
{

	switch (i->in.mnemonic) {
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FNSTENV:
		tc->mask_off = i->in.operand_width == 16 ? 6 : 12;
		tc->mask_len = i->in.operand_width == 16 ? 8 : 16;
		break;
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_XSAVE:
	case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64:
		tc->mask_off = XS_FOP;
		tc->mask_len = XS_MXCSR - XS_FOP;
		break;
	default: return;
	}
	tc->mask_addr = first_mem(g, tc, t, i) + tc->mask_off;
}

static void add_case(struct gen *g, struct test *t, struct insn_inst *i)
{
	struct testcase *tc = &g->b->tc[g->b->ncases];

	memset(tc, 0, sizeof *tc);
	value_state(&g->r, &tc->in, g->t->bits32);
	tc->test = (uint16_t)(t - g->b->test);
	tc->in.rip = t->start;
	if (is_string(i)) {
		tc->in.gpr[1] = below(&g->r, one_in(&g->r, 8) ? 6000 : 40);
		if (i->in.address_width == 32 && !g->t->bits32)
			tc->in.gpr[1] |= rnd(&g->r) << 32;
		if (one_in(&g->r, 2))
			tc->in.rflags ^= 0x400;
	} else if (i->in.meta.category == ZYDIS_CATEGORY_COND_BR && one_in(&g->r, 2)) {
		tc->in.gpr[1] = below(&g->r, 3);
	}
	tc->either =
		is_string(i) && (i->in.mnemonic == ZYDIS_MNEMONIC_CMPSB || i->in.mnemonic == ZYDIS_MNEMONIC_CMPSW ||
				 i->in.mnemonic == ZYDIS_MNEMONIC_CMPSD || i->in.mnemonic == ZYDIS_MNEMONIC_CMPSQ);
	steer_all(g, tc, t, i);
	fix_special(g, tc, t, i);
	set_mask(g, tc, t, i);
	native_limit(&tc->in);
	g->b->ncases++;
}

static void place(struct gen *g, struct test *t, unsigned n, unsigned len)
{
	t->slot = CODE_BASE + (uint64_t)n * SLOT_SIZE;
	t->start = t->slot + 32 + below(&g->r, 32);
	if (t->slot % PG == 0 && n && one_in(&g->r, 2))
		t->start = t->slot - 1 - below(&g->r, len);
	if (n == CODE_SIZE / SLOT_SIZE - 1 && one_in(&g->r, 2))
		t->start = t->slot + SLOT_SIZE - below(&g->r, len); /* its end is not there */
	t->stop = t->start + len;
	t->len = len;
}

static uint32_t undefined_flags(const struct insn_inst *i)
{
	return i->in.cpu_flags ? i->in.cpu_flags->undefined : 0;
}

/* Operands that must be good but cannot be aimed: 16-bit addresses, null segments. */
static int cannot_aim(const struct gen *g, const struct insn_inst *i)
{
	int both = i->in.meta.category == ZYDIS_CATEGORY_STRINGOP && i->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		   i->ops[1].type == ZYDIS_OPERAND_TYPE_MEMORY;

	if (!g->t->bits32 || !both)
		return 0;
	return i->in.address_width == 16 ||
	       (i->in.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS));
}

static int finish(struct gen *g, struct insn_inst *i, uint32_t form, unsigned n)
{
	struct test *t = &g->b->test[g->b->ntests];

	if (cannot_aim(g, i))
		return -1;
	memset(t, 0, sizeof *t);
	place(g, t, n, i->in.length);
	patch_bytes(g, t, i);
	if (i->in.mnemonic == ZYDIS_MNEMONIC_INT && i->bytes[i->in.raw.imm[0].offset] == 0x80)
		i->bytes[i->in.raw.imm[0].offset] = 3; /* a system call here */
	if (encode_redecode(g->t, i) < 0)
		return -1;
	t->form = form;
	t->flags |= g->t->bits32 ? TEST_32BIT | (g->tls ? TEST_TLS : 0) : 0;
	t->flags |= is_string(i) ? TEST_STRING : 0;
	t->undef_flags = undefined_flags(i);
	for (unsigned k = 0; k < t->len && t->start + k < CODE_BASE + CODE_SIZE; k++)
		g->b->code[t->start + k - CODE_BASE] = i->bytes[k];
	g->b->ntests++;
	for (int k = 0; k < g->states && g->b->ncases < BATCH_CASES; k++)
		add_case(g, t, i);
	return 0;
}

int gen_single(struct gen *g, uint32_t form, unsigned n)
{
	struct insn_inst i;

	if (encode_random(g->t, &g->t->f[form], &g->r, &any, &i) < 0)
		return -1;
	return finish(g, &i, form, n);
}

int gen_bytes(struct gen *g, const uint8_t *bytes, unsigned n)
{
	struct insn_inst i = {.form = NULL};

	memcpy(i.bytes, bytes, 15);
	if (encode_redecode(g->t, &i) < 0)
		return -1;
	i.form = NULL;
	return finish(g, &i, 0, n);
}

void gen_singles(struct gen *g)
{
	gen_reset(g);
	for (int k = 0; k < g->tests && g->b->ncases + (unsigned)g->states <= BATCH_CASES; k++) {
		/* the last slot of the region too, which is followed by nothing */
		unsigned n = k == g->tests - 1 ? CODE_SIZE / SLOT_SIZE - 1 : (unsigned)k;

		gen_single(g, g->cursor++ % g->t->n, n);
	}
}
