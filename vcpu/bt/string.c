/*
 * String instructions: a page at a time, restartable at every element.
 * Invariant: rcx, rsi and rdi are exact whenever a fault is raised or the
 * helper returns (SDM 2B, REP).
 */
#include "vcpu/bt/bt.h"
#include "vcpu/bt/decode.h"
#include "vcpu/bt/exits.h"
#include "vcpu/cpu/breakpoint.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/mmu/mmu.h"

#include "common/gmem.h"

struct str {
	struct vcpu *v;
	const struct insn *in;
	unsigned op, size;
	uint64_t mask; /* of addresses and the count */
	uint8_t seg;
	bool back;
};

/* In 64-bit code the other four say nothing, not even that #SS is to be raised (SDM 1 3.3.7.1, APM 1 4.5.3). */
static uint8_t source_segment(const struct insn *in)
{
	uint8_t seg = SEG_DS;

	for (unsigned i = 0; i < in->off_prefix_end; i++)
		switch (in->code_size == 8 && (in->raw[i] & 0xfe) != 0x64 ? 0 : in->raw[i]) {
		case 0x26: seg = SEG_ES; break;
		case 0x2e: seg = SEG_CS; break;
		case 0x36: seg = SEG_SS; break;
		case 0x3e: seg = SEG_DS; break;
		case 0x64: seg = SEG_FS; break;
		case 0x65: seg = SEG_GS; break;
		default: break;
		}
	return seg;
}

static bool uses_src(const struct str *s)
{
	return s->op == STR_MOVS || s->op == STR_LODS || s->op == STR_CMPS;
}

static bool uses_dst(const struct str *s)
{
	return s->op != STR_LODS;
}

static bool writes_dst(const struct str *s)
{
	return s->op == STR_MOVS || s->op == STR_STOS;
}

static void set_addr(struct str *s, uint8_t reg, uint64_t value)
{
	uint64_t *r = &s->v->regs[reg];

	if (s->in->addrsize == 8)
		*r = value;
	else if (s->in->addrsize == 4)
		*r = (uint32_t)value;
	else
		*r = (*r & ~0xffffull) | (uint16_t)value;
}

static uint64_t step(const struct str *s, uint64_t n)
{
	return s->back ? 0 - n * s->size : n * s->size;
}

/* Elements from @lin on that lie whole within its page, in the direction of travel; 0: the first one crosses. */
static uint64_t room(const struct str *s, uint64_t lin)
{
	uint64_t off = lin & GUEST_PAGE_MASK;

	if (off + s->size > GUEST_PAGE_MASK + 1)
		return 0;
	return s->back ? off / s->size + 1 : (GUEST_PAGE_MASK + 1 - off) / s->size;
}

/* Elements from offset @off on until the index register wraps round: with a segment base that may be within a page. */
static uint64_t until_wrap(const struct str *s, uint64_t off)
{
	return (s->back ? off : s->mask - off) / s->size + 1;
}

/* Elements from offset @off on, which is good, that the segment allows; whatever is no plain segment one by one. */
static uint64_t until_limit(const struct str *s, unsigned seg, uint64_t off, unsigned acc)
{
	uint64_t top = s->v->seg_top[acc & ACC_W ? 1 : 0][seg];

	if (top < off + s->size)
		return 1;
	return s->back ? off / s->size + 1 : (top - off) / s->size;
}

/* Host address of @len bytes at @lin within a page; NULL with *mmio, or NULL after raising. */
static uint8_t *resolve(struct vcpu *v, uint64_t lin, unsigned len, unsigned acc, bool *mmio)
{
	uint8_t *hit = tlb_hit(v, lin, acc);
	int r;

	if (hit)
		return hit;
	r = tlb_fill(v, lin, len, acc);
	if (r == TLB_RAISED)
		return NULL;
	if (r == TLB_NO_RAM) {
		*mmio = true;
		return NULL;
	}
	return (uint8_t *)(uintptr_t)(lin + v->mem_addend);
}

static uint64_t load(const uint8_t *p, unsigned size)
{
	switch (size) {
	case 1: return *p;
	case 2: return *(const uint16_t *)(const void *)p;
	case 4: return *(const uint32_t *)(const void *)p;
	default: return *(const uint64_t *)(const void *)p;
	}
}

/* rep movs or stos with the host's own instruction: the same element size, direction and overlap. */
#define REP_ASM(insn, ...)                                                                       \
	do {                                                                                     \
		if (s->back)                                                                     \
			__asm__ volatile("std; rep " insn "; cld" __VA_ARGS__ : "memory", "cc"); \
		else                                                                             \
			__asm__ volatile("rep " insn __VA_ARGS__ : "memory", "cc");              \
	} while (0)

static void copy_chunk(const struct str *s, uint8_t *dst, const uint8_t *src, uint64_t n)
{
	switch (s->size) {
	case 1: REP_ASM("movsb", : "+D"(dst), "+S"(src), "+c"(n) :); break;
	case 2: REP_ASM("movsw", : "+D"(dst), "+S"(src), "+c"(n) :); break;
	case 4: REP_ASM("movsl", : "+D"(dst), "+S"(src), "+c"(n) :); break;
	default: REP_ASM("movsq", : "+D"(dst), "+S"(src), "+c"(n) :); break;
	}
}

static void fill_chunk(const struct str *s, uint8_t *dst, uint64_t value, uint64_t n)
{
	switch (s->size) {
	case 1: REP_ASM("stosb", : "+D"(dst), "+c"(n) : "a"(value)); break;
	case 2: REP_ASM("stosw", : "+D"(dst), "+c"(n) : "a"(value)); break;
	case 4: REP_ASM("stosl", : "+D"(dst), "+c"(n) : "a"(value)); break;
	default: REP_ASM("stosq", : "+D"(dst), "+c"(n) : "a"(value)); break;
	}
}

/* Flags of comparing two elements, by the host's cmp. */
static bool compare(struct str *s, uint64_t a, uint64_t b)
{
	uint16_t ax;

	switch (s->size) {
	case 1: __asm__("cmpb %b2, %b1; lahf; seto %%al" : "=a"(ax) : "d"(a), "b"(b) : "cc"); break;
	case 2: __asm__("cmpw %w2, %w1; lahf; seto %%al" : "=a"(ax) : "d"(a), "b"(b) : "cc"); break;
	case 4: __asm__("cmpl %k2, %k1; lahf; seto %%al" : "=a"(ax) : "d"(a), "b"(b) : "cc"); break;
	default: __asm__("cmpq %2, %1; lahf; seto %%al" : "=a"(ax) : "d"(a), "b"(b) : "cc"); break;
	}
	s->v->flags = ax;
	return a == b;
}

/* Compares up to @n elements; how many were consumed, and in *stop whether the repetition ends. */
static uint64_t compare_chunk(struct str *s, const uint8_t *src, const uint8_t *dst, uint64_t n, bool *stop)
{
	uint64_t acc = s->v->regs[R_AX], i, a, b;
	uint64_t width = s->size == 8 ? ~0ull : (1ull << (8 * s->size)) - 1;

	for (i = 0; i < n; i++) {
		a = s->op == STR_CMPS ? load(src + (int64_t)step(s, i), s->size) : acc & width;
		b = load(dst + (int64_t)step(s, i), s->size);
		if ((a == b) == (s->in->rep == 0xf2) || i + 1 == n) {
			bool equal = compare(s, a, b);

			*stop = equal == (s->in->rep == 0xf2);
			return i + 1;
		}
	}
	return n;
}

static void load_accumulator(struct str *s, uint64_t value)
{
	uint64_t *a = &s->v->regs[R_AX];

	switch (s->size) {
	case 1: *a = (*a & ~0xffull) | (uint8_t)value; break;
	case 2: *a = (*a & ~0xffffull) | (uint16_t)value; break;
	case 4: *a = (uint32_t)value; break;
	default: *a = value; break;
	}
}

/* One element by reads and writes that may cross pages or reach devices. */
static int one_slow(struct str *s, uint64_t src, uint64_t dst, bool *stop)
{
	struct vcpu *v = s->v;
	uint64_t a = v->regs[R_AX], b = 0;
	unsigned acc = mmu_acc(v, 0);

	if (s->op == STR_CMPS && mmu_read(v, dst, &b, s->size, acc | ACC_R) < 0)
		return -1;
	if (uses_src(s)) {
		a = 0;
		if (mmu_read(v, src, &a, s->size, acc | ACC_R) < 0)
			return -1;
	}
	if (writes_dst(s))
		return mmu_write(v, dst, &a, s->size, acc | ACC_W);
	if (s->op == STR_LODS) {
		load_accumulator(s, a);
		return 0;
	}
	if (s->op == STR_SCAS && mmu_read(v, dst, &b, s->size, acc | ACC_R) < 0)
		return -1;
	if (s->size < 8)
		a &= (1ull << (8 * s->size)) - 1;
	*stop = compare(s, a, b) == (s->in->rep == 0xf2);
	return 0;
}

/* Tells the code tracker of a write before it happens: a page without code has write tags and needs no look. */
static void note_write(struct str *s, uint64_t lin, uint64_t n)
{
	struct vcpu *v = s->v;
	struct walk w;
	uint64_t len = n * s->size, lo = s->back ? lin - (n - 1) * s->size : lin;
	int64_t frame;

	if (tlb_hit(v, lin, ACC_W))
		return;
	if (mmu_probe(v, lo, mmu_acc(v, ACC_W), &w) == 0 && (frame = gmem_frame(v->vm->mem, w.gpa)) >= 0)
		codepage_store(v, (uint64_t)frame, (unsigned)(lo & GUEST_PAGE_MASK), (unsigned)len);
}

/* Host addresses of both operands, in the order in which they fault: see sides(). */
static int resolve_both(struct str *s, uint64_t src, uint64_t dst, uint8_t **ps, uint8_t **pd, bool *mmio)
{
	unsigned acc = writes_dst(s) ? ACC_W : ACC_R;

	if (s->op == STR_CMPS && !(*pd = resolve(s->v, dst, s->size, acc, mmio)))
		return *mmio ? 0 : -1;
	if (uses_src(s) && !(*ps = resolve(s->v, src, s->size, ACC_R, mmio)))
		return *mmio ? 0 : -1;
	if (uses_dst(s) && !*pd && !(*pd = resolve(s->v, dst, s->size, acc, mmio)))
		return *mmio ? 0 : -1;
	if (s->v->moved &&
	    uses_src(s)) { /* the destination's page may be the source's: it was merged, and is no longer */
		s->v->moved = 0;
		if (!(*ps = resolve(s->v, src, s->size, ACC_R, mmio)))
			return *mmio ? 0 : -1;
	}
	return 0;
}

/* Runs up to *n elements (at least one); *n becomes how many.  0, or -1 after raising with nothing of the element done. */
static int chunk(struct str *s, uint64_t src, uint64_t dst, uint64_t *n, bool *stop)
{
	uint8_t *ps = NULL, *pd = NULL;
	bool mmio = false;
	uint64_t k = *n, r;

	if (uses_src(s) && (r = room(s, src)) < k)
		k = r;
	if (uses_dst(s) && (r = room(s, dst)) < k)
		k = r;
	if (k && resolve_both(s, src, dst, &ps, &pd, &mmio) < 0)
		return -1;
	if (!k || mmio) {
		*n = 1;
		return one_slow(s, src, dst, stop);
	}
	if (writes_dst(s))
		note_write(s, dst, k);
	if (s->op == STR_MOVS)
		copy_chunk(s, pd, ps, k);
	else if (s->op == STR_STOS)
		fill_chunk(s, pd, s->v->regs[R_AX], k);
	else if (s->op == STR_LODS)
		load_accumulator(s, load(ps + (int64_t)step(s, k - 1), s->size));
	else
		k = compare_chunk(s, ps, pd, k, stop);
	*n = k;
	return 0;
}

/* The first element of an operand: its segment, then its alignment. */
static int side(struct str *s, uint8_t seg, uint64_t off, unsigned acc, uint64_t *lin)
{
	return seg_linear(s->v, seg, off, s->size, acc, lin) < 0 ? -1 : alignment_check(s->v, *lin, s->size);
}

/* The other operand is bad; what the pages of this one, which comes before it, raise takes precedence. */
static int after(struct str *s, uint64_t lin, unsigned acc)
{
	uint64_t last = lin + s->size - 1;
	struct walk w;

	if (mmu_walk(s->v, lin, mmu_acc(s->v, acc), &w) == 0 && ((lin ^ last) & ~GUEST_PAGE_MASK))
		mmu_walk(s->v, last & ~GUEST_PAGE_MASK, mmu_acc(s->v, acc), &w);
	return -1;
}

/* All that is wrong with one operand comes before anything of the other: movs reads first, cmps looks at es:rdi first (as AMD
 * CPUs do; manuals do not tell). */
static int sides(struct str *s, uint64_t si, uint64_t di, uint64_t *src, uint64_t *dst)
{
	unsigned acc = writes_dst(s) ? ACC_W : ACC_R;

	if (s->op == STR_CMPS && side(s, SEG_ES, di, acc, dst) < 0)
		return -1;
	if (uses_src(s) && side(s, s->seg, si, ACC_R, src) < 0)
		return s->op == STR_CMPS ? after(s, *dst, acc) : -1;
	if (uses_dst(s) && s->op != STR_CMPS && side(s, SEG_ES, di, acc, dst) < 0)
		return uses_src(s) ? after(s, *src, ACC_R) : -1;
	return 0;
}

/* One round: addresses, a chunk, registers.  1: the instruction is complete. */
static int round_trip(struct str *s)
{
	struct vcpu *v = s->v;
	uint64_t count = s->in->rep ? v->regs[R_CX] & s->mask : 1, n = count, src = 0, dst = 0;
	uint64_t si = v->regs[R_SI] & s->mask, di = v->regs[R_DI] & s->mask;
	bool stop = false, segs = v->mode & MODE_SEGS,
	     checked = !mode_long(v->mode) && (v->mode & MODE_SLOWMEM) && !segs;

	if (!count)
		return 1;
	if (checked || (v->sysflags & RFL_TF) || (v->dr[7] & 0xff) || (s->in->addrsize == 2 && !segs))
		n = 1;
	if (sides(s, si, di, &src, &dst) < 0)
		return -1; /* the step keeps the alignment: the first element speaks for all */
	if (segs && uses_src(s) && n > until_limit(s, s->seg, si, ACC_R))
		n = until_limit(s, s->seg, si, ACC_R);
	if (segs && uses_dst(s) && n > until_limit(s, SEG_ES, di, writes_dst(s) ? ACC_W : ACC_R))
		n = until_limit(s, SEG_ES, di, writes_dst(s) ? ACC_W : ACC_R);
	if (uses_src(s) && n > until_wrap(s, si))
		n = until_wrap(s, si);
	if (uses_dst(s) && n > until_wrap(s, di))
		n = until_wrap(s, di);
	if (chunk(s, src, dst, &n, &stop) < 0)
		return -1;
	if (v->dr[7] & 0xff) {
		if (uses_src(s))
			breakpoint_access(v, src, s->size, ACC_R);
		if (uses_dst(s))
			breakpoint_access(v, dst, s->size, writes_dst(s) ? ACC_W : ACC_R);
	}
	if (uses_src(s))
		set_addr(s, R_SI, si + step(s, n));
	if (uses_dst(s))
		set_addr(s, R_DI, di + step(s, n));
	if (!s->in->rep)
		return 1;
	set_addr(s, R_CX, count - n);
	return count == n || stop;
}

/* Intel's CPUs clear the upper halves of what 32-bit addresses use even where nothing is repeated: of rcx, and of the pointers
 * of movs and stos. */
static void narrow(struct str *s)
{
	set_addr(s, R_CX, s->v->regs[R_CX]);
	if (s->op == STR_MOVS)
		set_addr(s, R_SI, s->v->regs[R_SI]);
	if (writes_dst(s))
		set_addr(s, R_DI, s->v->regs[R_DI]);
}

int bt_string(struct vcpu *v, const struct insn *in)
{
	uint8_t op = in->raw[in->off_opcode];
	struct str s = {.v = v,
			.in = in,
			.op = op & ~1u,
			.size = op & 1 ? in->opsize : 1,
			.back = v->df,
			.mask = in->addrsize == 8   ? ~0ull
				: in->addrsize == 4 ? 0xffffffffu
						    : 0xffffu,
			.seg = source_segment(in)};
	uint16_t flags = v->flags;
	int r;

	v->stats.string_helpers++;
	if (!v->amd && in->rep && in->code_size == 8 && in->addrsize == 4)
		narrow(&s);
	do {
		r = round_trip(&s);
		if (r < 0) {
			if (!v->amd && in->rep)
				v->flags =
					flags; /* Intel's: as before the instruction (SDM 2, REP); AMD's: of the last round */
			return -1;
		}
		if (!r && (v->kick || (v->sysflags & RFL_TF) || (v->dr[7] & 0xff)))
			return 0; /* still at the instruction: interrupts are taken between iterations */
	} while (!r);
	v->rip += in->len;
	if (!mode_long(v->mode))
		v->rip = (uint32_t)v->rip;
	return 0;
}
