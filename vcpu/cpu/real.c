/*
 * Real and virtual-8086 mode: transfers and events without descriptors, where a
 * segment's base is its selector times 16 (SDM 3A 20.1, 20.2, 20.3).
 *
 * Invariant: as in far.c and exception.c, nothing changes before the last check.
 */
#include "vcpu/cpu/real.h"

#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/mode.h"

#define ATTR_RW (SEG_A_P | SEG_A_S | SEG_T_RW | SEG_T_ACC)

static void real_load(struct seg *s, uint16_t sel, bool code)
{
	if (s->attr & SEG_A_NULL) { /* nothing left of a descriptor: what a reset gives */
		s->limit = 0xffff;
		s->attr = ATTR_RW;
	}
	if (code)
		s->attr = (s->attr & (SEG_A_DB | SEG_A_G)) | ATTR_RW;
	s->sel = sel;
	s->base = (uint32_t)sel << 4;
}

void load_8086(struct vcpu *v, unsigned seg, uint16_t sel)
{
	struct seg *s = &v->seg[seg], old = *s;

	if (in_v86(v))
		seg_set_v86(s, sel);
	else
		real_load(s, sel, seg == SEG_CS);
	if (s->attr == old.attr && s->limit == old.limit)
		mode_base_changed(v, seg);
	else
		vcpu_update_mode(v);
}

static void enter(struct vcpu *v, uint16_t sel, uint64_t off)
{
	load_8086(v, SEG_CS, sel);
	v->rip = off;
}

static int check_target(struct vcpu *v, uint64_t off)
{
	return off > v->seg[SEG_CS].limit ? raise_gp(v, 0) : 0;
}

int real_far_jump(struct vcpu *v, uint16_t sel, uint64_t off)
{
	if (check_target(v, off))
		return -1;
	enter(v, sel, off);
	return 0;
}

int real_far_call(struct vcpu *v, uint16_t sel, uint64_t off, unsigned opsize, uint64_t next)
{
	struct stack st;

	stack_current(v, &st);
	if (stack_push(v, &st, v->seg[SEG_CS].sel, opsize) || stack_push(v, &st, next, opsize) || check_target(v, off))
		return -1;
	stack_commit(v, &st);
	enter(v, sel, off);
	return 0;
}

int real_far_return(struct vcpu *v, unsigned opsize, unsigned pop)
{
	uint64_t off, sel;
	struct stack st;

	stack_current(v, &st);
	if (stack_pop(v, &st, &off, opsize) || stack_pop(v, &st, &sel, opsize) || check_target(v, off))
		return -1;
	st.sp = (st.sp & ~st.mask) | ((st.sp + pop) & st.mask);
	stack_commit(v, &st);
	enter(v, (uint16_t)sel, off);
	return 0;
}

/* Flags that iret and popf change here, when they may change IF at all; IOPL in real mode only. */
static uint64_t flags_mask(const struct vcpu *v, unsigned opsize)
{
	return RFL_ARITH | RFL_TF | RFL_IF | RFL_DF | RFL_NT | (in_v86(v) ? 0 : RFL_IOPL) |
	       (opsize > 2 ? RFL_RF | RFL_AC | RFL_ID : 0);
}

int real_iret(struct vcpu *v, unsigned opsize)
{
	bool virtual = in_v86(v) && flags_iopl(v) < 3;
	uint64_t off, sel, fl, mask = flags_mask(v, opsize);
	struct stack st;

	if (virtual && (!(v->cr4 & CR4_VME) || opsize > 2))
		return raise_gp(v, 0);
	stack_current(v, &st);
	if (stack_pop(v, &st, &off, opsize) || stack_pop(v, &st, &sel, opsize) || stack_pop(v, &st, &fl, opsize) ||
	    check_target(v, off))
		return -1;
	if (virtual && flags_virtual_if(v, &fl, &mask))
		return -1;
	v->nmi_blocked = 0;
	stack_commit(v, &st);
	flags_put(v, (vcpu_rflags(v) & ~mask) | (fl & mask));
	enter(v, (uint16_t)sel, off);
	vcpu_update_mode(v);
	return 0;
}

int v86_enter(struct vcpu *v, struct stack *st, uint64_t rip, uint16_t cs, uint64_t fl)
{
	static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	uint64_t sp, sel[5];

	if (rip > 0xffff)
		return raise_gp(v, 0);
	if (stack_pop(v, st, &sp, 4))
		return -1;
	for (unsigned i = 0; i < 5; i++)
		if (stack_pop(v, st, &sel[i], 4))
			return -1;
	for (unsigned i = 0; i < 5; i++)
		seg_set_v86(&v->seg[order[i]], (uint16_t)sel[i]);
	flags_put(v, fl);
	v->regs[R_SP] = (uint32_t)sp;
	v->cpl = 3;
	enter(v, cs, rip);
	vcpu_update_mode(v);
	return 0;
}

int real_event(struct vcpu *v, unsigned vector, uint64_t rip, uint32_t ext)
{
	bool v86 = in_v86(v), virtual = v86 && flags_iopl(v) < 3;
	uint64_t fl = vcpu_rflags(v), image = fl, base = v86 ? 0 : v->idtr.base;
	uint16_t entry[2];
	struct stack st;

	if (!v86 && vector * 4 + 3 > v->idtr.limit)
		return raise_gp(v, vector << 3 | 2 | ext);
	if (mmu_read(v, (uint32_t)(base + vector * 4), entry, 4, v86 ? ACC_R | ACC_USER : ACC_R))
		return -1;
	if (virtual)
		image = (image & ~(uint64_t)RFL_IF) | RFL_IOPL | (fl & RFL_VIF ? RFL_IF : 0);
	stack_current(v, &st);
	st.own = false;
	if (stack_push(v, &st, image, 2) || stack_push(v, &st, v->seg[SEG_CS].sel, 2) || stack_push(v, &st, rip, 2) ||
	    check_target(v, entry[0]))
		return -1;
	stack_commit(v, &st);
	flags_put(v, fl & ~(uint64_t)(RFL_TF | RFL_RF | (v86 ? 0 : RFL_AC) | (virtual ? RFL_VIF : RFL_IF)));
	v->halted = 0;
	enter(v, entry[1], entry[0]);
	vcpu_update_mode(v);
	return 0;
}

int v86_redirected(struct vcpu *v, unsigned vector, bool *yes)
{
	uint16_t map;
	uint8_t bits;
	uint32_t off;

	*yes = false;
	if (!(v->cr4 & CR4_VME))
		return 0;
	if ((v->tr.attr & SEG_A_NULL) || !(v->tr.attr & 8) || v->tr.limit < 0x67)
		return raise_gp(v, 0);
	if (mmu_read(v, (uint32_t)v->tr.base + 0x66, &map, 2, ACC_R | ACC_SYS))
		return -1;
	off = map - 32u + vector / 8;
	if (map < 32 || off > v->tr.limit)
		return raise_gp(v, 0);
	if (mmu_read(v, (uint32_t)v->tr.base + off, &bits, 1, ACC_R | ACC_SYS))
		return -1;
	*yes = !(bits >> (vector & 7) & 1);
	return 0;
}
