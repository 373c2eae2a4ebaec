/*
 * Hardware task switches: the state of one task goes into its TSS, that of
 * another comes out of its own (SDM 3A 7.2, 7.3, 7.6).
 *
 * Invariant: everything of the old task that can fault has been looked at
 * before the first byte is written; from then on the new task is the current
 * one, and what its segments raise is raised at its first instruction.
 */
#include "vcpu/cpu/task.h"

#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/sysinsn.h"

/* Offsets in a TSS of either size; general registers and segments follow each other. */
struct layout {
	uint8_t word; /* bytes of eip, eflags and the general registers */
	uint8_t ip, flags, regs, segs, seg_step, n_segs, ldt;
	uint8_t size;
};

static const struct layout layout16 = {2, 0x0e, 0x10, 0x12, 0x22, 2, 4, 0x2a, 0x2c};
static const struct layout layout32 = {4, 0x20, 0x24, 0x28, 0x48, 4, 6, 0x60, 0x68};

#define TSS_CR3 0x1c
#define TSS_T   0x64
#define DR6_BT  (1u << 15)
#define DR7_L   0x155u /* L0 to L3, LE: of one task only */

static const struct layout *layout_of(uint32_t attr)
{
	return attr & 8 ? &layout32 : &layout16;
}

int task_find(struct vcpu *v, uint16_t sel, enum task_way way, uint32_t ext, struct desc *d)
{
	unsigned vector = way == TASK_IRET ? EXC_TS : EXC_GP, type,
		 wanted = way == TASK_IRET ? DT_TSS16_BUSY : DT_TSS16;
	uint32_t attr;

	if ((sel & 4) || (sel & ~3) == 0)
		return raise_error(v, vector, (sel & ~3u) | ext);
	if (desc_fetch(v, sel, vector, ext, d))
		return -1;
	attr = desc_attr(d);
	type = SEG_TYPE(attr);
	if ((attr & SEG_A_S) || (type & ~8u) != wanted)
		return raise_error(v, vector, (sel & ~3u) | ext);
	return attr & SEG_A_P ? 0 : raise_error(v, EXC_NP, (sel & ~3u) | ext);
}

int task_link(struct vcpu *v, uint16_t *sel)
{
	return mmu_read(v, (uint32_t)v->tr.base, sel, 2, ACC_R | ACC_SYS);
}

static uint32_t get(const uint8_t *p, unsigned size)
{
	uint32_t x = 0;

	for (unsigned i = 0; i < size; i++)
		x |= (uint32_t)p[i] << (8 * i);
	return x;
}

static void put(uint8_t *p, unsigned size, uint32_t x)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(x >> (8 * i));
}

/* May @len bytes of linear memory be written?  Raises what a write would. */
static int may_write(struct vcpu *v, uint32_t at, unsigned len)
{
	uint32_t last = at + len - 1;
	struct walk w;

	if (mmu_walk(v, at, ACC_W | ACC_SYS, &w) < 0)
		return -1;
	return (at ^ last) & ~GUEST_PAGE_MASK ? mmu_walk(v, last & ~(uint32_t)GUEST_PAGE_MASK, ACC_W | ACC_SYS, &w) : 0;
}

/* Where the type of a TSS's descriptor is. */
static uint32_t type_byte(const struct vcpu *v, uint16_t sel)
{
	return (uint32_t)v->gdtr.base + (sel & ~7u) + 5;
}

/* All that can be told before the switch: the new TSS whole, and that nothing that is written will fault. */
static int prepare(struct vcpu *v, uint16_t sel, const struct seg *to, enum task_way way, uint32_t ext, uint8_t *image)
{
	const struct layout *in = layout_of(to->attr), *out = layout_of(v->tr.attr);

	if (to->limit < in->size - 1u)
		return raise_error(v, EXC_TS, (sel & ~3u) | ext);
	if ((v->tr.attr & SEG_A_NULL) || v->tr.limit < out->size - 1u)
		return raise_error(v, EXC_TS, (v->tr.sel & ~3u) | ext);
	if (may_write(v, (uint32_t)v->tr.base + out->ip, out->ldt - out->ip) || may_write(v, type_byte(v, sel), 1) ||
	    may_write(v, type_byte(v, v->tr.sel), 1))
		return -1;
	if ((way == TASK_CALL || way == TASK_EVENT) && may_write(v, (uint32_t)to->base, 2))
		return -1;
	return mmu_read(v, (uint32_t)to->base, image, in->size, ACC_R | ACC_SYS);
}

static void write_sys(struct vcpu *v, uint32_t at, const void *p, unsigned len)
{
	mmu_write(v, at, p, len, ACC_W | ACC_SYS); /* cannot fault: prepare() has looked */
}

/* Registers to the old TSS, and its busy bit. */
static void save(struct vcpu *v, enum task_way way, uint64_t next)
{
	const struct layout *l = layout_of(v->tr.attr);
	uint32_t base = (uint32_t)v->tr.base, fl = (uint32_t)vcpu_rflags(v);
	uint8_t buf[40], type;

	if (way == TASK_IRET)
		fl &= ~(uint32_t)RFL_NT;
	put(buf, l->word, (uint32_t)next);
	put(buf + l->word, l->word, fl);
	for (unsigned i = 0; i < 8; i++)
		put(buf + (2 + i) * l->word, l->word, (uint32_t)v->regs[i]);
	write_sys(v, base + l->ip, buf, 10u * l->word);
	for (unsigned i = 0; i < l->n_segs; i++)
		write_sys(v, base + l->segs + i * l->seg_step, &v->seg[i].sel, 2);
	if (way == TASK_JMP || way == TASK_IRET) {
		type = (uint8_t)(v->tr.attr & 0xfd);
		write_sys(v, type_byte(v, v->tr.sel), &type, 1);
	}
}

/* The new task's selectors, with nothing behind them yet. */
static void load_selectors(struct vcpu *v, const struct layout *l, const uint8_t *image, bool vm)
{
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		uint16_t sel = i < l->n_segs ? (uint16_t)get(image + l->segs + i * l->seg_step, 2) : 0;

		if (vm)
			seg_set_v86(&v->seg[i], sel);
		else
			seg_set_null(&v->seg[i], sel);
	}
	v->cpl = vm ? 3 : v->seg[SEG_CS].sel & 3;
}

static void load_registers(struct vcpu *v, const struct layout *l, const uint8_t *image, enum task_way way)
{
	uint32_t fl = get(image + l->flags, l->word);

	if (way == TASK_CALL || way == TASK_EVENT)
		fl |= RFL_NT;
	v->rip = get(image + l->ip, l->word);
	for (unsigned i = 0; i < 8; i++) /* the halves that a 286 TSS has not are all ones, as CPUs have it */
		v->regs[i] = get(image + l->regs + i * l->word, l->word) | (l->word == 2 ? 0xffff0000u : 0);
	flags_put(v, fl);
	load_selectors(v, l, image, fl & RFL_VM);
	v->cr0 |= CR0_TS;
	v->dr[7] &= ~(uint64_t)DR7_L;
}

static int load_ldt(struct vcpu *v, uint16_t sel, uint32_t ext)
{
	struct desc d;
	uint32_t attr;

	seg_set_null(&v->ldtr, sel);
	if ((sel & ~3) == 0)
		return 0;
	if (sel & 4)
		return raise_error(v, EXC_TS, (sel & ~3u) | ext);
	if (desc_fetch(v, sel, EXC_TS, ext, &d))
		return -1;
	attr = desc_attr(&d);
	if ((attr & SEG_A_S) || SEG_TYPE(attr) != DT_LDT || !(attr & SEG_A_P))
		return raise_error(v, EXC_TS, (sel & ~3u) | ext);
	seg_from_desc(&v->ldtr, sel, &d);
	return 0;
}

static int load_cs(struct vcpu *v, uint16_t sel, uint32_t ext)
{
	struct desc d;
	uint32_t attr;

	if ((sel & ~3) == 0)
		return raise_error(v, EXC_TS, ext);
	if (desc_fetch(v, sel, EXC_TS, ext, &d))
		return -1;
	attr = desc_attr(&d);
	if (!(attr & SEG_A_S) || !(attr & SEG_T_CODE) ||
	    (attr & SEG_T_CONF ? SEG_DPL(attr) > (sel & 3u) : SEG_DPL(attr) != (sel & 3u)))
		return raise_error(v, EXC_TS, (sel & ~3u) | ext);
	if (!(attr & SEG_A_P))
		return raise_error(v, EXC_NP, (sel & ~3u) | ext);
	if (desc_mark(v, &d, SEG_T_ACC))
		return -1;
	seg_from_desc(&v->seg[SEG_CS], sel, &d);
	return 0;
}

/* Descriptors, in the order of the checks (SDM 3A table 7-1). */
static int load_segments(struct vcpu *v, uint16_t ldt, uint32_t ext)
{
	static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	struct seg ss;

	if (load_ldt(v, ldt, ext))
		return -1;
	if (v->sysflags & RFL_VM)
		return 0;
	if (load_cs(v, v->seg[SEG_CS].sel, ext))
		return -1;
	if (seg_check_ss(v, v->seg[SEG_SS].sel, v->cpl, EXC_TS, ext, &ss))
		return -1;
	v->seg[SEG_SS] = ss;
	for (unsigned i = 0; i < sizeof data; i++)
		if (seg_check_data(v, v->seg[data[i]].sel, EXC_TS, ext, &v->seg[data[i]]))
			return -1;
	return 0;
}

/* CR3 and segments: from here on the new task faults. */
static int load_spaces(struct vcpu *v, const struct layout *l, const uint8_t *image, uint32_t ext)
{
	int r = 0;

	if (l->word == 4 && (v->cr0 & CR0_PG))
		r = cr3_write(v, get(image + TSS_CR3, 4));
	if (!r)
		r = load_segments(v, (uint16_t)get(image + l->ldt, 2), ext);
	vcpu_update_mode(v);
	if (!r && v->rip > v->seg[SEG_CS].limit)
		r = raise_gp(v, 0);
	return r;
}

int task_switch(struct vcpu *v, uint16_t sel, struct desc *d, enum task_way way, uint64_t next, uint32_t ext)
{
	uint16_t old = v->tr.sel;
	uint8_t image[0x68], type;
	const struct layout *l;
	struct seg to;

	seg_from_desc(&to, sel, d);
	l = layout_of(to.attr);
	if (prepare(v, sel, &to, way, ext, image))
		return -1;
	save(v, way, next);
	if (way == TASK_CALL || way == TASK_EVENT)
		write_sys(v, (uint32_t)to.base, &old, 2);
	to.attr |= 2;
	type = (uint8_t)to.attr;
	write_sys(v, type_byte(v, sel), &type, 1);
	v->tr = to;
	v->halted = 0;
	load_registers(v, l, image, way);
	if (load_spaces(v, l, image, ext))
		return -1;
	if (l->word == 4 && (image[TSS_T] & 1)) {
		raise_exception(v, EXC_DB);
		v->exc_dr6 = DR6_BT;
	}
	return 0;
}
