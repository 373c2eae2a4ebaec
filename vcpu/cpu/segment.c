/*
 * Descriptors, segment register loads, LDTR, TR and the stacks in the TSS.
 *
 * Invariant: a load that raises has changed neither the register nor the
 * descriptor.  A null selector always clears base and limit, on CPUs of either
 * vendor (CPUID tells AMD guests so).
 */
#include "common/gmem.h"
#include "vcpu/cpu/real.h"

bool desc_try(struct vcpu *v, uint16_t sel, struct desc *d, int *fault)
{
	bool ldt = sel & 4;
	uint64_t base = ldt ? v->ldtr.base : v->gdtr.base;
	uint32_t limit = ldt ? v->ldtr.limit : v->gdtr.limit;
	uint32_t raw[2];

	*fault = 0;
	if ((ldt && (v->ldtr.attr & SEG_A_NULL)) || (sel | 7u) > limit)
		return false;
	d->gva = base + (sel & ~7u);
	if (!in_long_mode(v))
		d->gva = (uint32_t)d->gva;
	*fault = mmu_read(v, d->gva, raw, 8, ACC_R | ACC_SYS);
	d->lo = raw[0];
	d->hi = raw[1];
	d->base_hi = d->hi2 = 0;
	d->wide = false;
	return true;
}

int desc_fetch(struct vcpu *v, uint16_t sel, unsigned vector, uint32_t ext, struct desc *d)
{
	int fault;

	if (!desc_try(v, sel, d, &fault))
		return raise_error(v, vector, (sel & ~3u) | ext);
	return fault;
}

int desc_fetch_wide(struct vcpu *v, uint16_t sel, unsigned vector, uint32_t ext, struct desc *d)
{
	uint32_t limit = sel & 4 ? v->ldtr.limit : v->gdtr.limit;
	uint32_t raw[2];

	if ((sel | 7u) + 8 > limit)
		return raise_error(v, vector, (sel & ~3u) | ext);
	if (mmu_read(v, d->gva + 8, raw, 8, ACC_R | ACC_SYS))
		return -1;
	if ((raw[1] >> 8) & 0x1f) /* the type field of the upper half must be zero */
		return raise_error(v, vector, (sel & ~3u) | ext);
	d->base_hi = raw[0];
	d->hi2 = raw[1];
	d->wide = true;
	return 0;
}

int desc_mark(struct vcpu *v, struct desc *d, uint32_t bit)
{
	struct walk w;
	uint8_t *host;

	if (d->hi & bit << 8)
		return 0;
	d->hi |= bit << 8;
	if (mmu_walk(v, d->gva + 5, ACC_W | ACC_SYS, &w))
		return -1;
	host = gmem_ptr(v->vm->mem, w.gpa, 1, GMEM_READ | GMEM_WRITE);
	if (host == NULL)
		return 0; /* a descriptor table in device memory keeps its bits */
	__atomic_fetch_or(host, (uint8_t)bit, __ATOMIC_SEQ_CST);
	phys_written(v, w.gpa, 1);
	return 0;
}

void seg_from_desc(struct seg *s, uint16_t sel, const struct desc *d)
{
	uint32_t limit = (d->lo & 0xffff) | (d->hi & 0xf0000);

	s->sel = sel;
	s->attr = desc_attr(d);
	s->limit = s->attr & SEG_A_G ? limit << 12 | 0xfff : limit;
	s->base = (d->lo >> 16) | (d->hi & 0xff) << 16 | (d->hi & 0xff000000u);
	if (d->wide)
		s->base |= (uint64_t)d->base_hi << 32;
}

void seg_set_null(struct seg *s, uint16_t sel)
{
	s->sel = sel;
	s->base = 0;
	s->limit = 0;
	s->attr = SEG_A_NULL;
}

void seg_set_v86(struct seg *s, uint16_t sel)
{
	s->sel = sel;
	s->base = (uint32_t)sel << 4;
	s->limit = 0xffff;
	s->attr = SEG_A_P | SEG_A_S | 3 << 5 | SEG_T_RW | SEG_T_ACC;
}

static bool sel_is_null(uint16_t sel)
{
	return (sel & ~3) == 0;
}

int seg_check_ss(struct vcpu *v, uint16_t sel, unsigned cpl, unsigned vector, uint32_t ext, struct seg *out)
{
	struct desc d;
	uint32_t attr;

	if (sel_is_null(sel))
		return raise_error(v, vector, ext);
	if (desc_fetch(v, sel, vector, ext, &d))
		return -1;
	attr = desc_attr(&d);
	if ((sel & 3u) != cpl || SEG_DPL(attr) != cpl || !(attr & SEG_A_S) || (attr & SEG_T_CODE) || !(attr & SEG_T_RW))
		return raise_error(v, vector, (sel & ~3u) | ext);
	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_SS, (sel & ~3u) | ext);
	if (desc_mark(v, &d, SEG_T_ACC))
		return -1;
	seg_from_desc(out, sel, &d);
	return 0;
}

static int load_ss(struct vcpu *v, uint16_t sel)
{
	struct seg s;

	if (sel_is_null(sel) && in_code64(v) && v->cpl < 3 && (sel & 3) == v->cpl)
		seg_set_null(&s, sel);
	else if (seg_check_ss(v, sel, v->cpl, EXC_GP, 0, &s))
		return -1;
	v->seg[SEG_SS] = s;
	return 0;
}

int seg_check_data(struct vcpu *v, uint16_t sel, unsigned vector, uint32_t ext, struct seg *out)
{
	struct desc d;
	uint32_t attr;
	unsigned rpl = sel & 3;

	if (sel_is_null(sel)) {
		seg_set_null(out, sel);
		return 0;
	}
	if (desc_fetch(v, sel, vector, ext, &d))
		return -1;
	attr = desc_attr(&d);
	if (!(attr & SEG_A_S) || ((attr & SEG_T_CODE) && !(attr & SEG_T_RW)))
		return raise_error(v, vector, (sel & ~3u) | ext);
	if ((attr & (SEG_T_CODE | SEG_T_CONF)) != (SEG_T_CODE | SEG_T_CONF) &&
	    (SEG_DPL(attr) < v->cpl || SEG_DPL(attr) < rpl))
		return raise_error(v, vector, (sel & ~3u) | ext);
	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_NP, (sel & ~3u) | ext);
	if (desc_mark(v, &d, SEG_T_ACC))
		return -1;
	seg_from_desc(out, sel, &d);
	return 0;
}

int seg_load(struct vcpu *v, unsigned seg, uint16_t sel)
{
	int r;

	if (in_8086(v)) {
		load_8086(v, seg, sel);
		return 0;
	}
	r = seg == SEG_SS ? load_ss(v, sel) : seg_check_data(v, sel, EXC_GP, 0, &v->seg[seg]);
	if (r == 0)
		vcpu_update_mode(v);
	return r;
}

int seg_load_ldt(struct vcpu *v, uint16_t sel)
{
	struct desc d;
	uint32_t attr;

	if (sel_is_null(sel)) {
		seg_set_null(&v->ldtr, sel);
		return 0;
	}
	if ((sel & 4))
		return raise_gp(v, sel & ~3u);
	if (desc_fetch(v, sel, EXC_GP, 0, &d))
		return -1;
	attr = desc_attr(&d);
	if ((attr & SEG_A_S) || SEG_TYPE(attr) != DT_LDT)
		return raise_gp(v, sel & ~3u);
	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_NP, sel & ~3u);
	if (in_long_mode(v) && desc_fetch_wide(v, sel, EXC_GP, 0, &d))
		return -1;
	if (d.wide && !is_canonical((uint64_t)d.base_hi << 32))
		return raise_gp(v, sel & ~3u);
	seg_from_desc(&v->ldtr, sel, &d);
	return 0;
}

int seg_load_tr(struct vcpu *v, uint16_t sel)
{
	struct desc d;
	uint32_t attr;

	if (sel_is_null(sel))
		return raise_gp(v, 0);
	if (sel & 4)
		return raise_gp(v, sel & ~3u);
	if (desc_fetch(v, sel, EXC_GP, 0, &d))
		return -1;
	attr = desc_attr(&d);
	if ((attr & SEG_A_S) || !(SEG_TYPE(attr) == DT_TSS32 || (SEG_TYPE(attr) == DT_TSS16 && !in_long_mode(v))))
		return raise_gp(v, sel & ~3u);
	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_NP, sel & ~3u);
	if (in_long_mode(v) && desc_fetch_wide(v, sel, EXC_GP, 0, &d))
		return -1;
	if (d.wide && !is_canonical((uint64_t)d.base_hi << 32))
		return raise_gp(v, sel & ~3u);
	if (desc_mark(v, &d, 2)) /* busy */
		return -1;
	seg_from_desc(&v->tr, sel, &d);
	return 0;
}

/* Reads @size bytes at @off of the TSS; #TS(tr) beyond its limit. */
static int tss_read(struct vcpu *v, uint32_t off, void *buf, unsigned size, uint32_t ext)
{
	uint64_t gva = v->tr.base + off;

	if ((v->tr.attr & SEG_A_NULL) || off + size - 1 > v->tr.limit)
		return raise_error(v, EXC_TS, (v->tr.sel & ~3u) | ext);
	return mmu_read(v, in_long_mode(v) ? gva : (uint32_t)gva, buf, size, ACC_R | ACC_SYS);
}

int tss_stack(struct vcpu *v, unsigned cpl, uint32_t ext, uint16_t *ss, uint64_t *sp)
{
	*sp = 0;
	*ss = (uint16_t)cpl;
	if (in_long_mode(v))
		return tss_read(v, 4 + cpl * 8, sp, 8, ext);
	if (SEG_TYPE(v->tr.attr) == DT_TSS32_BUSY || SEG_TYPE(v->tr.attr) == DT_TSS32)
		return tss_read(v, 4 + cpl * 8, sp, 4, ext) || tss_read(v, 8 + cpl * 8, ss, 2, ext) ? -1 : 0;
	return tss_read(v, 2 + cpl * 4, sp, 2, ext) || tss_read(v, 4 + cpl * 4, ss, 2, ext) ? -1 : 0;
}

int tss_ist(struct vcpu *v, unsigned ist, uint32_t ext, uint64_t *sp)
{
	return tss_read(v, 0x24 + (ist - 1) * 8, sp, 8, ext);
}
