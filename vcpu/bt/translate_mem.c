/*
 * Memory operands: effective addresses, the soft TLB check, and the guest
 * instruction rewritten onto the translated address.
 * Invariant: nothing of the guest instruction happens before its check passed.
 */
#include "vcpu/bt/tr.h"
#include "vcpu/mmu/mmu.h"

#define BIT(r) ((uint16_t)(1u << (r)))

struct cold *tr_cold(struct tr *t, enum cold_kind kind)
{
	struct cold *k;

	if (t->n_cold == TR_MAX_COLD) { /* cannot happen with BT_MAX_INSNS; fail safe: translation is dropped */
		t->c.overflow = true;
		t->n_cold--;
	}
	k = &t->cold[t->n_cold++];
	*k = (struct cold){.kind = kind, .fl = t->fl, .spill = t->spill, .insn = (uint16_t)t->i};
	return k;
}

/* Outside 64-bit code FS and GS have limits: those accesses are checked in C. */
static uint8_t ea_seg(const struct tr *t, uint8_t seg)
{
	return t->long_mode && (seg == SEG_FS || seg == SEG_GS) ? seg : R_NONE;
}

static bool is_moffs(const struct insn *in)
{
	return in->enc == ENC_LEGACY && !in->has_modrm && in->opcode >= 0xa0 && in->opcode <= 0xa3;
}

struct ea tr_ea(struct tr *t, const struct insn *in)
{
	struct ea e = {.kind = EA_REG,
		       .base = in->mem.base,
		       .index = in->mem.index,
		       .scale = in->mem.scale,
		       .disp = in->mem.disp,
		       .seg = ea_seg(t, in->mem.seg),
		       .seg_check = in->mem.seg,
		       .addrsize = in->addrsize};

	if (in->mem.base == R_RIP) {
		int64_t next = (int64_t)t->goff[t->i] + in->len + in->mem.disp;

		e.base = R_NONE;
		if (t->pic) {
			e.kind = EA_PIC;
			e.disp = (int32_t)(next + (int64_t)(t->gpa & 0xfff));
		} else {
			e.kind = EA_CONST;
			e.value = t->gva + (uint64_t)next;
		}
		if (in->addrsize == 4 && !t->pic)
			e.value = (uint32_t)e.value;
	} else if (is_moffs(in)) {
		e.kind = EA_CONST;
		e.base = e.index = R_NONE;
		e.value = in->addrsize == 8   ? (uint64_t)in->imm
			  : in->addrsize == 4 ? (uint32_t)in->imm
					      : (uint16_t)in->imm;
	}
	return e;
}

struct ea tr_ea_stack(struct tr *t, uint8_t base, int32_t disp)
{
	return (struct ea){.kind = EA_REG,
			   .base = base,
			   .index = R_NONE,
			   .scale = 1,
			   .disp = disp,
			   .seg = R_NONE,
			   .seg_check = SEG_SS,
			   .addrsize = t->long_mode          ? 8
				       : t->mode & MODE_SS16 ? 2
							     : 4};
}

static void form_reg_ea(struct tr *t, const struct ea *e, uint8_t dst, int32_t extra)
{
	struct hmem m = {e->base, e->index, e->scale, 0, e->disp};
	int64_t d = (int64_t)e->disp + extra;

	if (d == (int32_t)d) {
		m.disp = (int32_t)d;
		emit_lea(&t->c, e->addrsize == 8, dst, m);
	} else {
		emit_lea(&t->c, e->addrsize == 8, dst, m);
		emit_lea(&t->c, e->addrsize == 8, dst, hm_base(dst, extra));
	}
	if (e->addrsize == 2)
		emit_rm_reg(&t->c, 0, 0x0fb7, dst, dst); /* movzx dst, dst16 */
}

/*
 * dst = effective address + extra, linear (flags may be lost):
 *   lea dst, [base + index*scale + disp] | mov dst, imm | mov dst, gs:[ip_page]; lea dst, [dst + off]
 *   add dst, gs:[seg_base]
 */
void tr_form_ea(struct tr *t, const struct ea *e, uint8_t dst, int32_t extra)
{
	switch (e->kind) {
	case EA_CONST: emit_mov_imm(&t->c, dst, e->value + (uint64_t)(int64_t)extra); break;
	case EA_PIC:
		emit_load(&t->c, dst, hm_gs(VOFF(ip_page)));
		emit_lea(&t->c, e->addrsize == 8, dst, hm_base(dst, e->disp + extra));
		break;
	default: form_reg_ea(t, e, dst, extra); break;
	}
	if (e->seg != R_NONE)
		emit_rm_mem(&t->c, 1, 0x03, dst, hm_gs(VOFF(seg_base) + 8u * e->seg));
}

/* Registers an instruction needs in place before it runs. */
static uint16_t needed(const struct insn *in)
{
	return in->gpr_read | (in->gpr_write & (uint16_t)~in->gpr_kill);
}

static unsigned access_of(const struct insn *in)
{
	return (in->mem_read ? ACC_R : 0u) | (in->mem_write ? ACC_W : 0u) | (in->masked ? SITE_ACC_MASKED : 0u) |
	       (in->waits ? SITE_ACC_MF : 0u);
}

/* mov al/eax/rax, moffs and back as 8a/8b/88/89 with ModRM. */
static void emit_moffs(struct tr *t, const struct insn *in, struct hmem m)
{
	uint32_t op = 0x88u | (in->opcode & 1) | (in->opcode & 2 ? 0 : 2);

	if (in->opsize == 2)
		emit8(&t->c, 0x66);
	emit_rm_mem(&t->c, in->opsize == 8, op, R_AX, m);
}

/* Without spare ones, a register that the instruction only overwrites is best: it need not be brought back. */
static uint8_t addend_reg(struct tr *t, const struct insn *in, uint16_t avoid, bool low)
{
	if (!low && tr_spare_free(t, avoid))
		return tr_scratch(t, avoid, low);
	for (uint8_t r = 0; r < (low ? 8 : 16); r++)
		if ((in->gpr_kill & BIT(r)) && r != R_SP) {
			tr_take(t, r);
			return r;
		}
	return tr_scratch(t, avoid, low);
}

/* ModRM.reg as the vector register it names; struct insn has it without the R of VEX and EVEX. */
static uint8_t vector_reg(const struct insn *in)
{
	uint8_t p = in->raw[in->off_prefix_end + 1];
	bool high = in->enc != ENC_LEGACY && !(p & 0x80), upper = in->enc == ENC_EVEX && !(p & 0x10);

	return (uint8_t)(in->reg | high << 3 | upper << 4);
}

/* STORES and the register whose low bytes @in stores, if that is all it does; else 0. */
static uint8_t plain_store(const struct insn *in)
{
	if (!in->mem_write || in->mem_read || in->masked || in->lock)
		return 0;
	if (in->isa == ISA_GPR && in->enc == ENC_LEGACY && in->opcode_map == 0 && in->opcode == 0x89)
		return STORES | in->reg;
	if ((in->isa != ISA_SSE && in->isa != ISA_AVX && in->isa != ISA_AVX512) || in->opcode_map != 1)
		return 0;
	switch (in->opcode) {
	case 0x11: /* movups, movupd, movss, movsd */
	case 0x13: /* movlps, movlpd */
	case 0x7e: /* movd, movq */
	case 0x7f: /* movdqu */
	case 0xd6: /* movq */ return STORES | STORES_VECTOR | vector_reg(in);
	default: return 0;
	}
}

/* Tells the cold part of the access at @n, if it has one of its own, how the store that was just emitted could be done in C. */
static void note_store(struct tr *t, const struct insn *in, unsigned n)
{
	struct cold *k = &t->cold[n];

	if (n == t->n_cold || k->kind != COLD_MEM || (k->acc & SITE_ACC_RANGE))
		return;
	k->store = plain_store(in);
	k->after = t->c.p;
}

/* On Intel's CPUs a store of an MMX register has gone over to MMX state when its operand faults, on AMD's maskmovq has. */
static bool goes_mmx_first(const struct tr *t, const struct insn *in)
{
	return in->waits && in->mem_write && in->enc == ENC_LEGACY && in->opcode_map == 1 && !t->v->amd;
}

void tr_mem_insn(struct tr *t, const struct insn *in)
{
	uint16_t regs = needed(in), avoid = regs | in->gpr_write;
	bool low = emit_guest_low_only(in);
	struct ea e = tr_ea(t, in);
	unsigned n = t->n_cold;
	uint8_t t1, t2;
	struct hmem m;

	tr_need(t, regs);
	if (goes_mmx_first(t, in)) { /* pmovmskb t1, mm0 */
		t1 = tr_scratch(t, avoid, low);
		tr_site(t, SITE_INSN);
		emit_rm_reg(&t->c, 0, 0x0fd7, t1, 0);
	}
	if (tr_window(t, &e, avoid, low, &m)) {
		tr_flags_for(t, in, avoid | tr_regs_of(&m));
	} else if (tr_combined(t, &e, access_of(in), avoid, low, &m)) {
		tr_flags_for(t, in, avoid | BIT(m.index));
	} else {
		t2 = addend_reg(t, in, avoid, low);
		t1 = tr_scratch(t, avoid | BIT(t2), low);
		tr_flags_clobber(t, avoid & (uint16_t)~in->gpr_kill);
		m = tr_access(t, &e, in->mem.size, access_of(in), t1, t2);
		tr_flags_for(t, in, avoid | BIT(t1) | BIT(t2));
	}
	tr_site(t, SITE_INSN);
	if (is_moffs(in))
		emit_moffs(t, in, m);
	else
		emit_guest_mem(&t->c, in, m, R_NONE);
	note_store(t, in, n);
	tr_wrote(t, in->gpr_write);
	tr_flags_after(t, in);
}

/*
 * bt m, r: the register's bits above log2(width) move the address.
 *   movsxd t3, r;  sar t3, n;  lea t1, [ea];  lea t1, [t1 + t3*bytes]   -> linear address
 *   check;  mov t3, r;  and t3, width-1;  bt [address], t3
 * The address is kept in gs:[scratch+8] over the check.
 */
void tr_bt_insn(struct tr *t, const struct insn *in)
{
	uint16_t avoid = needed(in);
	unsigned bits = in->opsize * 8u;
	struct ea e = tr_ea(t, in), lin = {.kind = EA_REG, .index = R_NONE, .scale = 1, .addrsize = 8};
	uint8_t t1, t2, t3;
	struct hmem m;

	tr_need(t, avoid);
	if (tr_window(t, &e, avoid, false, &m)) { /* as it is */
		tr_flags_for(t, in, avoid | tr_regs_of(&m));
		tr_site(t, SITE_INSN);
		emit_guest_mem(&t->c, in, m, R_NONE);
		tr_flags_after(t, in);
		return;
	}
	t1 = tr_scratch(t, avoid, false);
	t2 = tr_scratch(t, avoid | BIT(t1), false);
	t3 = tr_scratch(t, avoid | BIT(t1) | BIT(t2), false);
	tr_flags_clobber(t, avoid);
	if (in->opsize == 8)
		emit_mov_rr(&t->c, t3, in->reg);
	else
		emit_rm_reg(&t->c, 1, in->opsize == 4 ? 0x63 : 0x0fbf, t3, in->reg); /* movsxd, movsx */
	emit_shift_imm(&t->c, 1, SH_SAR, t3, in->opsize == 8 ? 6 : in->opsize == 4 ? 5 : 4);
	lin.seg = e.seg; /* comes last: the offset counts within the segment */
	e.seg = R_NONE;
	tr_form_ea(t, &e, t1, 0);
	emit_lea(&t->c, e.addrsize == 8, t1, hm_bi(t1, t3, (uint8_t)in->opsize, 0));
	lin.base = t3;
	lin.addrsize = e.addrsize;
	lin.seg_check = e.seg_check;
	emit_mov_rr(&t->c, t3, t1);
	m = tr_access(t, &lin, in->opsize, access_of(in) | ACC_R, t1, t2);
	if (!m.gs)
		emit_lea(&t->c, 1, t2, m); /* host address; t1, t3 are free again */
	emit_mov_rr(&t->c, t3, in->reg);
	emit_alu_imm(&t->c, 0, ALU_AND, t3, (int32_t)bits - 1);
	tr_flags_for(t, in, avoid | BIT(t2) | BIT(t3));
	tr_site(t, SITE_INSN);
	emit_guest_mem(&t->c, in, m.gs ? m : hm_base(t2, 0), t3);
	tr_flags_after(t, in);
}

/* xlat: mov al, [rbx + al] */
void tr_xlat(struct tr *t, const struct insn *in)
{
	uint16_t avoid = BIT(R_AX) | BIT(R_BX);
	struct ea e = {.kind = EA_REG,
		       .index = R_NONE,
		       .scale = 1,
		       .seg = ea_seg(t, in->mem.seg),
		       .seg_check = in->mem.seg,
		       .addrsize = in->addrsize};
	uint8_t t1, t2, t3;
	struct hmem m;

	tr_need(t, avoid);
	t1 = tr_scratch(t, avoid, true);
	t2 = tr_scratch(t, avoid | BIT(t1), true);
	t3 = tr_scratch(t, avoid | BIT(t1) | BIT(t2), true);
	tr_flags_clobber(t, avoid);
	emit_rm_reg(&t->c, 0, 0x0fb6, t3, R_AX); /* movzx t3, al */
	emit_lea(&t->c, 1, t3, hm_bi(R_BX, t3, 1, 0));
	e.base = t3;
	m = tr_access(t, &e, 1, ACC_R, t1, t2);
	tr_site(t, SITE_INSN);
	emit_rm_mem(&t->c, 0, 0x8a, R_AX, m);
}

/*
 * maskmovdqu, maskmovq: the store goes to [rdi], so rdi holds the host address while it runs.
 *   pmovmskb t1, mm0     ; maskmovq has gone over to MMX state when its operand faults
 */
void tr_maskmov(struct tr *t, const struct insn *in)
{
	uint16_t avoid = BIT(R_DI);
	struct ea e = {.kind = EA_REG,
		       .base = R_DI,
		       .index = R_NONE,
		       .scale = 1,
		       .seg = ea_seg(t, in->mem.seg),
		       .seg_check = in->mem.seg,
		       .addrsize = in->addrsize};
	uint8_t t1, t2;
	struct hmem m;

	tr_need(t, avoid);
	t1 = tr_scratch(t, avoid, false);
	t2 = tr_scratch(t, avoid | BIT(t1), false);
	tr_flags_clobber(t, avoid);
	if (in->waits) {
		tr_site(t, SITE_INSN);
		emit_rm_reg(&t->c, 0, 0x0fd7, t1, 0);
	}
	m = tr_access(t, &e, in->mem.size, ACC_W | ACC_R | (in->waits ? SITE_ACC_MF : 0u), t1, t2);
	tr_take(t, R_DI);
	if (m.gs) { /* the bounce buffer: gs base + offset as a flat address */
		emit_load(&t->c, R_DI, hm_gs(VOFF(self)));
		emit_lea(&t->c, 1, R_DI, hm_base(R_DI, m.disp));
	} else {
		emit_lea(&t->c, 1, R_DI, m);
	}
	tr_site(t, SITE_INSN);
	for (unsigned i = 0; i < in->len; i++)
		if (i >= in->off_prefix_end ||
		    (in->raw[i] != 0x67 && (in->raw[i] & 0xfe) != 0x64 && in->raw[i] != 0x26 && in->raw[i] != 0x2e &&
		     in->raw[i] != 0x36 && in->raw[i] != 0x3e && (in->raw[i] & 0xf0) != 0x40))
			emit8(&t->c, in->raw[i]);
}

/* lea touches no memory, but its operand may need other encodings: rip-relative, 32-bit code. */
void tr_lea(struct tr *t, const struct insn *in)
{
	struct ea e = tr_ea(t, in);
	uint16_t regs = needed(in);
	uint8_t dst = in->reg;

	tr_need(t, regs);
	if (e.kind == EA_REG && in->addrsize == 8) {
		emit_guest_mem(&t->c, in, (struct hmem){e.base, e.index, e.scale, 0, e.disp}, R_NONE);
	} else if (e.kind == EA_REG && in->addrsize == 4 && in->opsize == 4) {
		emit_lea(&t->c, 0, dst, (struct hmem){e.base, e.index, e.scale, 0, e.disp});
	} else if (in->opsize >= 4 && e.kind != EA_REG) {
		e.seg = R_NONE;
		tr_form_ea(t, &e, dst, 0);
		if (in->opsize == 4 || in->addrsize == 4)
			emit_rm_reg(&t->c, 0, 0x8b, dst, dst);
	} else { /* 16-bit destination or odd address size: by way of a scratch register */
		uint8_t t1 = tr_scratch(t, regs | BIT(dst), false);

		e.seg = R_NONE;
		tr_form_ea(t, &e, t1, 0);
		if (in->opsize == 2)
			emit_rm_reg(&t->c, 0, 0x668b, dst, t1);
		else
			emit_rm_reg(&t->c, in->opsize == 8, 0x8b, dst, t1);
	}
	tr_wrote(t, in->gpr_write);
}
