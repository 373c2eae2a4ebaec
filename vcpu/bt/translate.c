/*
 * Builds one block: decode, liveness of flags, emission, cold parts.
 * Invariant: a block is inserted only when it is whole; until then the tables'
 * counters have not moved for good.
 */
#include <string.h>

#include "common/gmem.h"
#include "common/log.h"
#include "vcpu/bt/tr.h"
#include "vcpu/cpu/feature.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/trace.h"

#define PEEK_INSNS 6
#define MAX_GATHERS 16 /* in place in one block: each may take more than 1 KiB */

uint32_t tr_site(struct tr *t, enum site_kind kind)
{
	struct bt *bt = t->bt;
	uint32_t s = bt->n_sites;

	if (s + 2 >= BT_MAX_SITES) {
		t->c.overflow = true;
		return s;
	}
	bt->n_sites++;
	bt->sites[s] = (struct site){.host_off = (uint32_t)(t->c.p - bt->rw),
				     .block = t->block,
				     .goff = t->goff[t->i],
				     .spill = t->spill,
				     .fl = t->fl,
				     .kind = (uint8_t)kind,
				     .len = t->i < t->n ? t->in[t->i].len : 0,
				     .seg = R_NONE};
	return s;
}

uint32_t tr_sys(struct tr *t, const struct insn *in)
{
	struct bt *bt = t->bt;

	if (bt->n_sys + 1 >= BT_MAX_SYS) {
		t->c.overflow = true;
		return 0;
	}
	bt->sys[bt->n_sys] = *in;
	return bt->n_sys++;
}

static bool ends_block(const struct insn *in)
{
	switch (in->cls) {
	case CLS_JCC:
	case CLS_LOOP:
	case CLS_JMP:
	case CLS_CALL:
	case CLS_JMP_IND:
	case CLS_CALL_IND:
	case CLS_RET:
	case CLS_SYS:
	case CLS_STRING:
	case CLS_GATHER: return true;
	case CLS_SYS_INLINE: return tr_sys_ends(in);
	default: return false;
	}
}

/*
 * In 16-bit code only direct branches within the page are not, whose target follows without a wrap at 64 KiB (SDM 1 3.3.1:
 * ip has 16 bits): then it is within the limit, since the page is or is stepped through.
 */
static bool near16_in_c(const struct tr *t, const struct insn *in, uint64_t rip)
{
	uint64_t to = rip + in->len + (uint64_t)in->imm;
	bool away = in->opsize != 2 || to > 0xffff || ((t->gpa + (to - t->v->rip)) ^ t->gpa) & ~GUEST_PAGE_MASK;

	switch (in->cls) {
	case CLS_JMP:
	case CLS_JCC: return away;
	case CLS_LOOP: return away || (in->addrsize == 2 && in->rep);
	case CLS_CALL: return away || (t->mode & MODE_STEP); /* a limit comes before the push */
	case CLS_JMP_IND:
	case CLS_RET: return in->opsize != 2;
	case CLS_CALL_IND: return true;
	default: return false;
	}
}

/*
 * Near branches that are done in C: loops that count in cx, which the host's 64-bit mode lacks; calls that a limit may
 * stop; and what leads so far that the distance from the block's start may not fit.
 */
static bool near_in_c(const struct tr *t, const struct insn *in, uint64_t rip)
{
	if (t->mode & MODE_CS16)
		return near16_in_c(t, in, rip);
	switch (in->cls) {
	case CLS_LOOP: return in->addrsize == 2;
	case CLS_CALL:
	case CLS_CALL_IND:
		if (!t->long_mode && (t->mode & MODE_SLOWMEM))
			return true;
		break;
	case CLS_JMP:
	case CLS_JCC: break;
	default: return false;
	}
	return t->long_mode && in->cls != CLS_CALL_IND && (in->imm > BT_MAX_REACH || in->imm < -BT_MAX_REACH);
}

/* What this state of CR0, CR4 and XCR0 forbids, and forms that only exist elsewhere, become helpers; @in is at @rip. */
static void apply_mode(const struct tr *t, struct insn *in, uint64_t rip)
{
	bool fpu = in->isa == ISA_X87 || in->isa == ISA_MMX || in->isa == ISA_SSE || in->isa == ISA_AVX ||
		   in->isa == ISA_AVX512;
	bool keep = in->cls == CLS_SYS && in->sysop == SYS_UD;

	if ((t->mode & MODE_REAL) && in->enc != ENC_LEGACY && !keep) { /* SDM 2A 2.3: VEX is protected mode's */
		in->cls = CLS_SYS;
		in->sysop = SYS_UD;
		in->imm = 0;
		return;
	}
	if (near_in_c(t, in, rip)) {
		in->cls = CLS_SYS;
		in->sysop = SYS_NEAR;
		return;
	}
	if (in->pause && t->bt->crowded && in->cls == CLS_REG) {
		in->cls = CLS_SYS;
		in->sysop = SYS_PAUSE;
		return;
	}
	if (!fpu || keep || in->cls == CLS_SYS)
		return;
	if ((in->isa == ISA_SSE && (t->mode & MODE_NOSSE)) || (in->isa == ISA_AVX && (t->mode & MODE_NOAVX)) ||
	    (in->isa == ISA_AVX512 && (t->mode & MODE_NOAVX512))) {
		in->cls = CLS_SYS;
		in->sysop = SYS_UD;
	} else if (t->mode & MODE_NOFPU) {
		in->cls = CLS_SYS;
		in->sysop = SYS_NM;
	}
}

/* The page must be marked before its bytes are read (hvx-internals(7): the vcpu sets the bit, full fence, then reads). */
static bool mark_page(struct vcpu *v, uint64_t gpa, uint64_t gva, struct bt_wait *why)
{
	int64_t frame = gmem_frame(v->vm->mem, gpa);

	if (frame < 0)
		return true;
	if (!codepage_mark(v, (uint64_t)frame)) {
		why->frame = frame;
		return false;
	}
	if (v->cpl == 3)
		codepage_place(v, (uint64_t)frame, gva & ~GUEST_PAGE_MASK);
	return true;
}

static const uint8_t *page_bytes(struct tr *t, uint64_t gpa)
{
	return gmem_ptr(t->v->vm->mem, gpa & ~0xfffull, GMEM_PAGE_SIZE, GMEM_READ);
}

/* An instruction that runs into the next page is a block of its own. */
static int decode_crossing(struct tr *t, const uint8_t *page, unsigned off)
{
	struct vcpu *v = t->v;
	struct block *b = &t->bt->blocks[t->block];
	unsigned have = GMEM_PAGE_SIZE - off;
	uint8_t buf[15];
	uint64_t gpa2;
	const uint8_t *page2;

	if (fetch_gpa(v, v->rip + have, &gpa2) < 0)
		return -1;
	if (!mark_page(v, gpa2, v->rip + have, t->why))
		return -1;
	page2 = page_bytes(t, gpa2);
	if (!page2) {
		raise_gp(v, 0); /* code outside RAM is not supported */
		return -1;
	}
	memcpy(buf, page + off, have);
	memcpy(buf + have, page2, sizeof buf - have);
	decode_insn(&t->in[0], buf, sizeof buf, mode_code_size(t->mode), feature_word(v));
	apply_mode(t, &t->in[0], v->rip);
	b->gpa2 = gpa2 & ~0xfffull;
	b->parts2 = codepage_parts(0, t->in[0].len > have ? t->in[0].len - have : 1);
	t->n = 1;
	t->goff[1] = t->in[0].len;
	t->ends = ends_block(&t->in[0]);
	t->falls_across = true;
	return 0;
}

static bool must_stop(const struct tr *t, uint16_t goff)
{
	return t->bt->stop_rip && t->v->rip + goff == t->bt->stop_rip;
}

/*
 * decode_insn() at @off of the block's page, by way of the memo.  A memo holds as long as the bytes are the same; what
 * does not decode depends on more bytes than its length and is not kept.
 */
static int decode_at(struct tr *t, struct insn *in, const uint8_t *page, unsigned off)
{
	unsigned size = mode_code_size(t->mode), room = GMEM_PAGE_SIZE - off;
	uint64_t gpa = (t->gpa & ~0xfffull) | off, features = feature_word(t->v);
	struct bt_memo *m = &t->bt->memo[(off ^ gpa >> GUEST_PAGE_SHIFT) & (BT_MEMO - 1)];
	int r;

	if (m->gpa == gpa && m->features == features && m->in.code_size == size && m->in.len <= room &&
	    !memcmp(m->in.raw, page + off, m->in.len)) {
		*in = m->in;
		return DECODE_OK;
	}
	r = decode_insn(in, page + off, room, size, features);
	if (r == DECODE_OK && in->cls != CLS_SYS)
		*m = (struct bt_memo){gpa, features, *in};
	return r;
}

static int decode_block(struct tr *t)
{
	unsigned off = (unsigned)(t->gpa & 0xfff), max = t->mode & MODE_STEP ? 1 : BT_MAX_INSNS;
	const uint8_t *page = page_bytes(t, t->gpa);
	unsigned sti_at = BT_MAX_INSNS, gathers = 0;
	uint16_t g = 0;

	if (!page) {
		raise_gp(t->v, 0);
		return -1;
	}
	for (t->n = 0; t->n < max && !t->ends; t->n++) {
		struct insn *in = &t->in[t->n];

		if (off + g >= GMEM_PAGE_SIZE || (t->n && must_stop(t, g))) {
			t->falls_across = off + g >= GMEM_PAGE_SIZE;
			break;
		}
		if (decode_at(t, in, page, off + g) == DECODE_SHORT) {
			if (t->n == 0)
				return decode_crossing(t, page, off);
			t->falls_across = true;
			break;
		}
		if (t->n && (t->mode & MODE_CS16) && t->v->rip + g + in->len > 0x10000)
			break; /* BT_END16 */
		apply_mode(t, in, t->v->rip + g);
		if (tr_sys_inlinable(t, in))
			in->cls = CLS_SYS_INLINE;
		if (tr_string_inlinable(t, in))
			in->cls = CLS_STRING_INLINE;
		if (gathers < MAX_GATHERS && tr_gather_inlinable(t, in)) {
			in->cls = CLS_GATHER_INLINE;
			gathers++;
		}
		if (in->cls == CLS_SYS_INLINE && in->sysop == SYS_STI)
			sti_at = t->n;
		if (in->cls == CLS_SYS_INLINE && in->sysop == SYS_CLI && sti_at + 1 < t->n)
			break; /* between sti and cli there is a block boundary, where interrupts are taken */
		t->goff[t->n] = g;
		g = (uint16_t)(g + in->len);
		t->ends = ends_block(in);
	}
	t->goff[t->n] = g;
	if (off + g >= GMEM_PAGE_SIZE)
		t->falls_across = true;
	if (t->n && t->in[t->n - 1].cls == CLS_SYS_INLINE && t->in[t->n - 1].sysop == SYS_STI) {
		t->in[t->n - 1].cls = CLS_SYS; /* its shadow must cover an instruction of the same block */
		t->ends = true;
	}
	return 0;
}

/* Flags that code at page offset @off may read before it overwrites them. */
static uint8_t peek_flags(struct tr *t, int64_t off)
{
	const uint8_t *page = page_bytes(t, t->gpa);
	uint8_t live = FL_ARITH, needed = 0;
	struct insn in;

	for (int i = 0; i < PEEK_INSNS && live; i++) {
		if (off < 0 || off >= GMEM_PAGE_SIZE || decode_at(t, &in, page, (unsigned)off) == DECODE_SHORT)
			return needed | live;
		apply_mode(t, &in, t->v->rip + (uint64_t)(off - (int64_t)(t->gpa & 0xfff)));
		t->peek_parts |= codepage_parts((unsigned)off, in.len);
		needed |= in.fl_read & live;
		live &= (uint8_t) ~(in.fl_read | in.fl_kill);
		if (ends_block(&in))
			return needed | live;
		off += in.len;
	}
	return needed | live;
}

static uint8_t live_at_end(struct tr *t)
{
	const struct insn *last = &t->in[t->n - 1];
	int64_t base = (int64_t)(t->gpa & 0xfff), fall = base + t->goff[t->n], taken;

	if ((t->mode & MODE_TRANSIENT) || t->bt->stop_rip || t->bt->exact_flags ||
	    t->bt->blocks[t->block].gpa2 != ~0ull)
		return FL_ARITH;
	taken = base + t->goff[t->n - 1] + last->len + last->imm;
	switch (last->cls) {
	case CLS_JCC:
	case CLS_LOOP: return peek_flags(t, fall) | peek_flags(t, taken);
	case CLS_JMP:
	case CLS_CALL: return peek_flags(t, taken);
	default: return t->ends ? FL_ARITH : peek_flags(t, fall);
	}
}

/* May the flags before it be seen by a handler: does it fault, or leave to C? */
static bool may_fault(const struct insn *in)
{
	switch (in->cls) {
	case CLS_REG: return in->isa != ISA_GPR || (in->opcode_map == 0 && (in->opcode & 0xfe) == 0xf6); /* div */
	case CLS_LEA:
	case CLS_NOP:
	case CLS_JCC:
	case CLS_JMP:
	case CLS_LOOP: return false;
	default: return true;
	}
}

static void flag_liveness(struct tr *t)
{
	uint8_t live = live_at_end(t);

	t->live_in[t->n] = live;
	for (unsigned i = t->n; i-- > 0;) {
		const struct insn *in = &t->in[i];

		if (in->cls == CLS_SYS || in->cls == CLS_STRING || in->cls == CLS_GATHER)
			live = FL_ARITH;
		live = (uint8_t)((live & ~in->fl_kill) | in->fl_read) & FL_ARITH;
		if (t->bt->exact_flags && may_fault(in))
			live = FL_ARITH;
		t->live_in[i] = live;
	}
}

/* 32-bit code's one-byte inc and dec are REX prefixes in 64-bit mode; 82 is another 80. */
static void emit_reg_insn(struct tr *t, const struct insn *in)
{
	uint8_t op = in->raw[in->off_opcode];
	struct insn fixed;

	if (!t->long_mode && in->enc == ENC_LEGACY && in->opcode_map == 0 && op >= 0x40 && op <= 0x4f) {
		if (in->opsize == 2)
			emit8(&t->c, 0x66);
		emit_rm_reg(&t->c, 0, 0xff, op >= 0x48, op & 7);
		return;
	}
	fixed = *in;
	if (op == 0x82 && in->opcode_map == 0 && !t->long_mode)
		fixed.raw[in->off_opcode] = 0x80;
	emit_guest_copy(&t->c, &fixed);
}

static void tr_reg_insn(struct tr *t, const struct insn *in)
{
	uint16_t regs = in->gpr_read | (in->gpr_write & (uint16_t)~in->gpr_kill);

	tr_need(t, regs);
	tr_flags_for(t, in, regs);
	tr_site(t, SITE_INSN);
	emit_reg_insn(t, in);
	if (in->fl_write & FL_DF)
		emit_store_imm8(&t->c, hm_gs(VOFF(df)), in->opcode == 0xfd);
	tr_wrote(t, in->gpr_write);
	tr_flags_after(t, in);
}

static void translate_insn(struct tr *t, struct insn *in)
{
	switch (in->cls) {
	case CLS_REG: tr_reg_insn(t, in); break;
	case CLS_MEM:
		if (!t->long_mode && in->opcode_map == 0 && in->raw[in->off_opcode] == 0x82)
			in->raw[in->off_opcode] = 0x80;
		tr_mem_insn(t, in);
		break;
	case CLS_LEA: tr_lea(t, in); break;
	case CLS_NOP: break;
	case CLS_PUSH: tr_push(t, in); break;
	case CLS_POP: tr_pop(t, in); break;
	case CLS_LEAVE: tr_leave(t, in); break;
	case CLS_BT: tr_bt_insn(t, in); break;
	case CLS_XLAT: tr_xlat(t, in); break;
	case CLS_MASKMOV: tr_maskmov(t, in); break;
	case CLS_JCC: tr_jcc(t, in); break;
	case CLS_LOOP: tr_loop(t, in); break;
	case CLS_JMP: tr_jmp(t, in); break;
	case CLS_CALL: tr_call(t, in); break;
	case CLS_JMP_IND:
	case CLS_CALL_IND: tr_indirect(t, in); break;
	case CLS_RET: tr_ret(t, in); break;
	case CLS_STRING: tr_helper(t, in, SITE_STRING); break;
	case CLS_SYS_INLINE: tr_sys_inline(t, in); break;
	case CLS_GATHER_INLINE: tr_gather_inline(t, in); break;
	case CLS_STRING_INLINE: tr_string_inline(t, in); break;
	default: tr_helper(t, in, SITE_SYS); break;
	}
}

/* Does the block do without the guest's values of the spare registers? */
static bool leaves_spare(const struct tr *t)
{
	for (unsigned i = 0; i < t->n; i++) {
		const struct insn *in = &t->in[i];

		if (in->cls != CLS_SYS && in->cls != CLS_STRING && in->cls != CLS_GATHER &&
		    ((in->gpr_read | in->gpr_write) & BT_SPARE))
			return false;
	}
	return true;
}

static uint32_t here(const struct tr *t)
{
	return (uint32_t)(t->c.p - t->bt->rw);
}

/* An entry where the spare registers are on the wrong side for the block: mov gs:[slot], r or the other way. */
static uint32_t emit_spare_entry(struct tr *t, uint16_t wanted, enum fl_state fl)
{
	uint32_t at = here(t);

	t->spill = wanted ^ BT_SPARE;
	t->fl = fl;
	tr_site(t, SITE_INSN);
	for (uint8_t r = 0; r < 16; r++)
		if (BT_SPARE >> r & 1) {
			if (wanted)
				emit_store(&t->c, VREG(r), r);
			else
				emit_load(&t->c, r, VREG(r));
		}
	t->spill = wanted;
	return at;
}

/*
 * The block wants the spare registers in their slots or in place; entries for the other case put that right:
 *           <store or load the spare ones>;  jmp short 2f     ; flags in the host's
 *           <store or load the spare ones>                    ; flags in the slot
 *       1:  <restore the flags>                               ; flags in the slot
 *       2:  the block                                         ; flags in the host's
 * When the block does not want the flags there are two entries only.  With several CPUs all four differ even so, that it is
 * known where the flags are when one of them traps (entries_forget()), and no byte that becomes an int3 is one that another
 * entry's instructions begin with:
 *           nop                                               ; flags in the slot
 *           <store or load the spare ones>                    ; flags in the host's
 *           nop [rax - 0x70], of which the last byte is: nop  ; flags in the slot
 *       2:  the block                                         ; flags in the host's
 */
static void emit_entries(struct tr *t)
{
	struct block *b = &t->bt->blocks[t->block];
	uint16_t wanted = leaves_spare(t) ? BT_SPARE : 0;
	uint32_t wrong, wrong_b, right_b;
	uint8_t *skip;

	b->host_start = here(t);
	b->fl_livein = t->live_in[0];
	if (t->bt->smp && !b->fl_livein)
		emit8(&t->c, 0x90);
	wrong = emit_spare_entry(t, wanted, FLS_HOST);
	wrong_b = t->bt->smp && !b->fl_livein ? b->host_start : wrong;
	right_b = here(t);
	if (t->bt->smp && !b->fl_livein) {
		emit32(&t->c, 0x90401f0f); /* nop [rax - 0x70]; its last byte: nop */
		right_b = here(t) - 1;
	} else if (b->fl_livein) {
		emit8(&t->c, 0xeb);
		skip = t->c.p;
		emit8(&t->c, 0);
		wrong_b = emit_spare_entry(t, wanted, FLS_SLOT);
		right_b = here(t);
		tr_flags_restore(t, 0);
		if (!t->c.overflow)
			*skip = (uint8_t)(t->c.p - (skip + 1));
	}
	b->host = wanted ? wrong : here(t);
	b->host_b = wanted ? wrong_b : right_b;
	b->host_s = wanted ? here(t) : wrong;
	b->host_sb = wanted ? right_b : wrong_b;
	t->fl = FLS_HOST;
	t->slot_valid = false;
	tr_site(t, SITE_INSN);
}

static void emit_cold_parts(struct tr *t)
{
	for (unsigned j = 0; j < t->n_cold && !t->c.overflow; j++) {
		struct cold *k = &t->cold[j];

		t->i = k->insn;
		t->spill = k->spill;
		t->fl = k->fl;
		if (k->from)
			emit_patch(k->from, t->c.p);
		switch (k->kind) {
		case COLD_MEM: tr_cold_mem(t, k); break;
		case COLD_SEG: tr_cold_seg(t, k); break;
		case COLD_EXIT: tr_cold_exit(t, k); break;
		case COLD_TRAMPOLINE: tr_cold_trampoline(t, k); break;
		case COLD_INDIRECT: tr_cold_indirect(t, k); break;
		case COLD_RAISE: tr_cold_raise(t); break;
		case COLD_GATHER: tr_cold_gather(t, k); break;
		case COLD_STRING: tr_helper(t, &t->in[k->insn], SITE_STRING); break;
		case COLD_HELPER: tr_helper(t, &t->in[k->insn], SITE_SYS); break;
		}
	}
}

static void emit_insn(struct tr *t, struct insn *in)
{
	translate_insn(t, in);
	t->clean &= (uint16_t)~in->gpr_write;
}

static void emit_block(struct tr *t)
{
	emit_entries(t);
	for (t->i = 0; t->i < t->n; t->i++)
		emit_insn(t, &t->in[t->i]);
	if (!t->ends) {
		t->i = t->n - 1;
		t->live_in[t->i] = t->live_in[t->n];
		tr_fallthrough(t);
	}
	emit_cold_parts(t);
}

/* xchg with memory locks without a prefix (SDM 3A 9.1.2.1). */
static bool is_locked(const struct insn *in)
{
	return in->has_mem && (in->lock || (in->opcode_map == 0 && (in->opcode & 0xfe) == 0x86));
}

static uint64_t storing(const struct tr *t, uint64_t gpa, uint64_t parts)
{
	int64_t frame = gmem_frame(t->v->vm->mem, gpa);

	return frame < 0 ? 0 : codepage_storing(t->v, (uint64_t)frame, parts);
}

/* Is another CPU about to store to what was read? */
static bool bytes_hold(const struct tr *t)
{
	const struct block *b = &t->bt->blocks[t->block];

	t->why->cpus = storing(t, b->gpa, b->parts);
	if (b->gpa2 != ~0ull)
		t->why->cpus |= storing(t, b->gpa2, b->parts2);
	return !t->why->cpus;
}

static void lead_to_stubs(struct vcpu *v, const struct block *b)
{
	const struct bt *bt = v->bt;

	for (uint32_t x = b->exit; x < b->exit + b->n_exits; x++)
		if (bt->exits[x].cell != BT_NONE)
			v->cells[bt->exits[x].cell] = (uint64_t)(uintptr_t)bt_rx(bt, bt->exits[x].stub_off);
}

static void finish_block(struct tr *t)
{
	struct bt *bt = t->bt;
	struct block *b = &bt->blocks[t->block];
	unsigned off = (unsigned)(t->gpa & 0xfff), len = t->goff[t->n];

	b->len = (uint16_t)len;
	b->n_insns = (uint16_t)t->n;
	b->locked = is_locked(&t->in[0]);
	b->host_end = (uint32_t)(t->c.p - bt->rw);
	b->n_sites = bt->n_sites - b->site;
	b->n_exits = bt->n_exits - b->exit;
	if (off + len > GMEM_PAGE_SIZE)
		len = GMEM_PAGE_SIZE - off;
	b->parts = codepage_parts(off, len) | t->peek_parts;
}

static void start_block(struct tr *t, struct vcpu *v, uint64_t gpa, uint32_t mode)
{
	struct bt *bt = v->bt;

	memset(t, 0, offsetof(struct tr, goff));
	t->v = v;
	t->bt = bt;
	t->mode = mode;
	t->gpa = gpa;
	t->block = bt->n_blocks;
	t->pic = mode_pic(mode);
	t->long_mode = !(mode & (MODE_CS32 | MODE_CS16));
	t->gva = t->pic ? v->rip & 0xfff : v->rip;
	t->goff[0] = 0;
	t->c = (struct emit){bt->rw + bt->used,
			     bt->rw,
			     bt->rw + bt->used + BT_COPY_SIZE - 64,
			     false,
			     bt->vcpu_seg,
			     bt->vcpu_delta};
	t->window = mode_has_window(bt, mode);
	bt->blocks[t->block] = (struct block){.gpa = gpa,
					      .gva = t->pic ? 0 : v->rip,
					      .mode = mode,
					      .gpa2 = ~0ull,
					      .page_next = {BT_NONE, BT_NONE},
					      .in_links = BT_NONE,
					      .site = bt->n_sites,
					      .exit = bt->n_exits,
					      .ind_jmp = BT_NONE,
					      .ind_gone = BT_NONE};
}

/* Code of a mode that nobody translates: 16 bits, real mode.  The guest sees #UD. */
static void refuse(struct vcpu *v, uint32_t mode)
{
	if (!v->stats.refused_code++)
		log_warn("cpu %d: code at %x:0x%llx is of a kind that is not supported (%u-bit%s): #UD", v->id,
			 v->seg[SEG_CS].sel, (unsigned long long)v->rip, 8 * mode_code_size(mode),
			 mode & MODE_REAL ? ", real mode" : "");
	raise_ud(v);
}

/* Nothing of an unpublished block stays. */
static void give_back(struct bt *bt, const struct block *b, uint32_t n_cells, uint32_t n_sys)
{
	bt->n_exits = b->exit;
	bt->n_sites = b->site;
	bt->n_cells = n_cells;
	bt->n_sys = n_sys;
}

/* The block is whole: its cells lead to its stubs on all CPUs, and from now on a signal handler finds it. */
static void publish(struct tr *t)
{
	struct bt *bt = t->bt;
	const struct block *b = &bt->blocks[t->block];

	for (int i = 0; i < t->v->vm->ncpus; i++)
		if (t->v->vm->vcpu[i])
			lead_to_stubs(t->v->vm->vcpu[i], b);
	bt->used = (b->host_end + 15) & ~15u;
	__atomic_store_n(&bt->n_blocks, bt->n_blocks + 1, __ATOMIC_RELEASE);
}

void bt_wait(struct vcpu *v, const struct bt_wait *why, uint32_t flushes)
{
	if (why->full)
		bt_flush_since(v, flushes);
	else if (why->frame >= 0)
		codepage_clean(v, (uint64_t)why->frame);
	else if (why->cpus)
		codepage_wait_stores(v, why->cpus);
}

uint32_t bt_translate(struct vcpu *v, uint64_t gpa, uint32_t mode, struct bt_wait *why)
{
	static __thread struct tr tr_state;
	struct tr *t = &tr_state;
	struct bt *bt = v->bt;
	uint32_t n_cells = bt->n_cells, n_sys = bt->n_sys;

	if (!mode_is_translated(mode)) {
		refuse(v, mode);
		return BT_NONE;
	}
	if (bt->n_blocks + 1 >= BT_MAX_BLOCKS || bt->used + BT_COPY_SIZE > bt->copies ||
	    bt->n_pages + 2 >= BT_MAX_PAGES) {
		why->full = true;
		return BT_NONE;
	}
	if (!mark_page(v, gpa, v->rip, why))
		return BT_NONE;
	vcpu_fpu_out(v);
	start_block(t, v, gpa, mode);
	t->why = why;
	if (decode_block(t) < 0)
		return BT_NONE;
	flag_liveness(t);
	tr_plan_combos(t);
	emit_block(t);
	if (t->c.overflow) {
		give_back(bt, &bt->blocks[t->block], n_cells, n_sys);
		why->full = true;
		return BT_NONE;
	}
	finish_block(t);
	if (!bytes_hold(t)) {
		give_back(bt, &bt->blocks[t->block], n_cells, n_sys);
		return BT_NONE;
	}
	publish(t);
	block_insert(bt, t->block);
	codepage_add(v, t->block);
	v->stats.blocks++;
	v->stats.guest_bytes += bt->blocks[t->block].len;
	v->stats.guest_insns += t->n;
	v->stats.host_bytes += bt->blocks[t->block].host_end - bt->blocks[t->block].host_start;
	return t->block;
}
