/*
 * Descriptor table registers and the instructions that look at descriptors.
 *
 * Invariant: with CR4.UMIP set, ring 3 learns none of the table registers.
 */
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/sysinsn.h"

static int load_table(struct vcpu *v, const struct insn *in, struct dtable *t)
{
	unsigned size = in_code64(v) ? 8 : 4;
	uint64_t base = 0;
	uint16_t limit;

	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (op_mem_read(v, in, 0, &limit, 2) || op_mem_read(v, in, 2, &base, size))
		return -1;
	if (!is_canonical(base))
		return raise_gp(v, 0);
	if (size == 4 && in->opsize == 2)
		base &= 0xffffff;
	t->base = base;
	t->limit = limit;
	return insn_done(v, in);
}

int sys_lgdt(struct vcpu *v, const struct insn *in)
{
	return load_table(v, in, &v->gdtr);
}

int sys_lidt(struct vcpu *v, const struct insn *in)
{
	return load_table(v, in, &v->idtr);
}

static bool umip_forbids(const struct vcpu *v)
{
	return (v->cr4 & CR4_UMIP) && v->cpl != 0;
}

static int store_table(struct vcpu *v, const struct insn *in, const struct dtable *t)
{
	unsigned size = in_code64(v) ? 8 : 4;
	uint8_t image[10];

	if (umip_forbids(v))
		return raise_gp(v, 0);
	__builtin_memcpy(image, &t->limit, 2);
	__builtin_memcpy(image + 2, &t->base, 8);
	if (op_mem_write(v, in, 0, image, 2 + size))
		return -1;
	return insn_done(v, in);
}

int sys_sgdt(struct vcpu *v, const struct insn *in)
{
	return store_table(v, in, &v->gdtr);
}

int sys_sidt(struct vcpu *v, const struct insn *in)
{
	return store_table(v, in, &v->idtr);
}

static int load_system(struct vcpu *v, const struct insn *in, int (*load)(struct vcpu *, uint16_t))
{
	uint64_t sel;

	if (in_8086(v))
		return raise_ud(v);
	if (v->cpl != 0)
		return raise_gp(v, 0);
	if (op_read(v, in, 2, &sel) || load(v, (uint16_t)sel))
		return -1;
	return insn_done(v, in);
}

int sys_lldt(struct vcpu *v, const struct insn *in)
{
	return load_system(v, in, seg_load_ldt);
}

int sys_ltr(struct vcpu *v, const struct insn *in)
{
	return load_system(v, in, seg_load_tr);
}

static int store_system(struct vcpu *v, const struct insn *in, uint16_t sel)
{
	if (in_8086(v))
		return raise_ud(v);
	if (umip_forbids(v))
		return raise_gp(v, 0);
	if (op_write(v, in, in->has_mem ? 2 : in->opsize, sel))
		return -1;
	return insn_done(v, in);
}

int sys_sldt(struct vcpu *v, const struct insn *in)
{
	return store_system(v, in, v->ldtr.sel);
}

int sys_str(struct vcpu *v, const struct insn *in)
{
	return store_system(v, in, v->tr.sel);
}

/* Descriptor of the 16-bit operand, if lar & co. may look at it: *ok; -1 when a memory access raised. */
static int inspect(struct vcpu *v, const struct insn *in, struct desc *d, bool *ok)
{
	uint32_t attr;
	uint64_t sel;
	bool conforming;
	int fault;

	if (in_8086(v))
		return raise_ud(v);
	if (op_read(v, in, 2, &sel))
		return -1;
	*ok = (sel & ~3ull) != 0 && desc_try(v, (uint16_t)sel, d, &fault);
	if (!*ok)
		return 0;
	if (fault)
		return -1;
	attr = desc_attr(d);
	conforming = (attr & SEG_A_S) && (attr & (SEG_T_CODE | SEG_T_CONF)) == (SEG_T_CODE | SEG_T_CONF);
	*ok = conforming || (SEG_DPL(attr) >= v->cpl && SEG_DPL(attr) >= (sel & 3));
	return 0;
}

static int finish_zf(struct vcpu *v, const struct insn *in, bool ok)
{
	flags_set_arith(v, RFL_ZF, ok ? RFL_ZF : 0);
	return insn_done(v, in);
}

/* System descriptor types lar and lsl accept (SDM 2, LAR and LSL), a bit per type. */
#define LAR_TYPES      0x1a3eu
#define LAR_TYPES_LONG 0x1a04u
#define LSL_TYPES      0x0a0eu
#define LSL_TYPES_LONG 0x0a04u

static bool type_in(const struct vcpu *v, const struct desc *d, uint32_t legacy, uint32_t longmode)
{
	uint32_t attr = desc_attr(d);

	return (attr & SEG_A_S) || ((in_long_mode(v) ? longmode : legacy) >> SEG_TYPE(attr) & 1);
}

int sys_lar(struct vcpu *v, const struct insn *in)
{
	struct desc d;
	bool ok;

	if (inspect(v, in, &d, &ok))
		return -1;
	ok = ok && type_in(v, &d, LAR_TYPES, LAR_TYPES_LONG);
	if (ok)
		reg_write(v, in->reg, d.hi & 0xf0ff00u, in->opsize);
	return finish_zf(v, in, ok);
}

int sys_lsl(struct vcpu *v, const struct insn *in)
{
	struct desc d;
	struct seg s;
	bool ok;

	if (inspect(v, in, &d, &ok))
		return -1;
	ok = ok && type_in(v, &d, LSL_TYPES, LSL_TYPES_LONG);
	if (ok) {
		seg_from_desc(&s, 0, &d);
		reg_write(v, in->reg, s.limit, in->opsize);
	}
	return finish_zf(v, in, ok);
}

int sys_verr(struct vcpu *v, const struct insn *in)
{
	struct desc d;
	bool ok;

	if (inspect(v, in, &d, &ok))
		return -1;
	ok = ok && (desc_attr(&d) & SEG_A_S) && (!(desc_attr(&d) & SEG_T_CODE) || (desc_attr(&d) & SEG_T_RW));
	return finish_zf(v, in, ok);
}

int sys_verw(struct vcpu *v, const struct insn *in)
{
	struct desc d;
	bool ok;

	if (inspect(v, in, &d, &ok))
		return -1;
	ok = ok && (desc_attr(&d) & SEG_A_S) && !(desc_attr(&d) & SEG_T_CODE) && (desc_attr(&d) & SEG_T_RW);
	return finish_zf(v, in, ok);
}

int sys_arpl(struct vcpu *v, const struct insn *in)
{
	uint64_t dst, rpl = v->regs[in->reg & 15] & 3;
	bool adjust;

	if (in_8086(v))
		return raise_ud(v);
	if (op_read(v, in, 2, &dst))
		return -1;
	adjust = (dst & 3) < rpl;
	if (adjust && op_write(v, in, 2, (dst & ~3ull) | rpl))
		return -1;
	return finish_zf(v, in, adjust);
}
