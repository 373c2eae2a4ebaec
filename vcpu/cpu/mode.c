/*
 * Derives the translation mode from the architectural state.
 * Invariant: called after every change of a register named below.
 */
#include "vcpu/cpu/mode.h"

static bool seg_flat(const struct seg *s, bool code)
{
	if (s->attr & SEG_A_NULL)
		return false;
	if (!(s->attr & SEG_A_P) || s->base || s->limit != 0xffffffffu)
		return false;
	if (code)
		return true;
	return !(s->attr & 8) && (s->attr & 2) && !(s->attr & 4); /* data, writable, not expand-down */
}

/* Outside 64-bit code: may accesses go unchecked through the soft TLB?  A null ES, FS or GS is no obstacle as
 * long as it is not used: the translator sends accesses through FS and GS to the checked path by itself. */
static bool segments_flat(const struct vcpu *v)
{
	return v->seg[SEG_CS].base == 0 && v->seg[SEG_CS].limit == 0xffffffffu && seg_flat(&v->seg[SEG_SS], false) &&
	       seg_flat(&v->seg[SEG_DS], false) && seg_flat(&v->seg[SEG_ES], false);
}

static bool data_breakpoints(const struct vcpu *v)
{
	for (int i = 0; i < 4; i++)
		if ((v->dr[7] >> (2 * i) & 3) && (v->dr[7] >> (16 + 4 * i) & 3))
			return true;
	return false;
}

/* Code with both L and D set cannot be: it is no mode that anything translates. */
static uint32_t mode_segments(const struct vcpu *v)
{
	bool big = v->seg[SEG_CS].attr & SEG_A_DB;
	uint32_t m = 0;

	if (!(v->cr0 & CR0_PE) || (v->sysflags & RFL_VM))
		m |= MODE_REAL;
	if ((v->efer & EFER_LMA) && (v->seg[SEG_CS].attr & SEG_A_L))
		return big ? MODE_CS32 | MODE_CS16 : m;
	m |= big ? MODE_CS32 : MODE_CS16;
	if (!(v->seg[SEG_SS].attr & SEG_A_DB))
		m |= MODE_SS16;
	if (!big || !segments_flat(v))
		m |= MODE_SLOWMEM;
	return m;
}

/* What the inline check of segments needs: whatever is not a plain segment is C's. */
static void note_tops(struct vcpu *v)
{
	for (int i = 0; i < SEG_COUNT; i++) {
		const struct seg *s = &v->seg[i];
		bool code = s->attr & 8, rw = s->attr & 2, down = !code && (s->attr & 4);
		uint64_t top = (s->attr & SEG_A_NULL) || !(s->attr & SEG_A_P) || down ? 0 : (uint64_t)s->limit + 1;

		v->seg_top[0][i] = code && !rw ? 0 : top;
		v->seg_top[1][i] = code || !rw ? 0 : top;
	}
}

void vcpu_update_mode(struct vcpu *v)
{
	uint32_t m = mode_segments(v);
	unsigned tlb = TLB_KERN_AC;

	if (v->cpl == 3) {
		m |= MODE_USER;
		tlb = TLB_USER;
	} else if ((v->cr4 & CR4_SMAP) && !(v->sysflags & RFL_AC)) {
		tlb = TLB_KERN;
	}
	if (v->cpl == 0)
		m |= MODE_CPL0;
	m |= tlb << MODE_TLB_SHIFT;
	if (v->cpl == 0 && (v->cr4 & CR4_SMAP))
		m |= MODE_SMAP;
	if (v->cpl != 0 && (v->cr4 & CR4_TSD))
		m |= MODE_TSD;
	if ((v->cpl == 3 && (v->cr0 & CR0_AM) && (v->sysflags & RFL_AC)) || data_breakpoints(v))
		m |= MODE_SLOWMEM;
	else if ((m & MODE_SLOWMEM) && !mode_long(m))
		m |= MODE_SEGS;
	if (m & MODE_SEGS)
		note_tops(v);
	v->code_key = mode_code_key(v);
	if (v->cr0 & (CR0_TS | CR0_EM))
		m |= MODE_NOFPU;
	if (!(v->cr4 & CR4_OSFXSR))
		m |= MODE_NOSSE;
	if (!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & 6) != 6)
		m |= MODE_NOAVX;
	if (!(v->cr4 & CR4_OSXSAVE) || (v->xcr0 & XCR0_AVX512) != XCR0_AVX512)
		m |= MODE_NOAVX512;
	v->mode = m;
	for (int i = 0; i < SEG_COUNT; i++)
		v->seg_base[i] = v->seg[i].base;
}
