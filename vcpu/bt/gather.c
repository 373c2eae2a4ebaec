/*
 * Gathers and scatters: the one kind of instruction with several addresses, taken from
 * a vector register.
 * Invariant: an element's mask is cleared exactly when it has been read or written, so
 * what faulted goes on where it was.
 */
#include "vcpu/bt/gather.h"

#include <stdbool.h>
#include <string.h>

#include "vcpu/bt/bt.h"
#include "vcpu/bt/exits.h"
#include "vcpu/bt/insn.h"
#include "vcpu/bt/vecregs.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/vcpu.h"

static struct gather decode_evex(const struct insn *in)
{
	const uint8_t *p = in->raw + in->off_prefix_end;
	uint8_t modrm = in->raw[in->off_modrm], sib = in->raw[in->off_modrm + 1];
	struct gather g = {.dst = (uint8_t)((modrm >> 3 & 7) | (p[1] & 0x80 ? 0 : 8) | (p[1] & 0x10 ? 0 : 16)),
			   .index = (uint8_t)((sib >> 3 & 7) | (p[1] & 0x40 ? 0 : 8) | (p[3] & 8 ? 0 : 16)),
			   .base = (uint8_t)((sib & 7) | (p[1] & 0x20 ? 0 : 8)),
			   .scale = (uint8_t)(1u << (sib >> 6)),
			   .k = p[3] & 7,
			   .scatter = p[4] & 0x20,
			   .esize = p[2] & 0x80 ? 8 : 4,
			   .isize = p[4] & 1 ? 8 : 4};

	g.length = (uint8_t)(16u << (p[3] >> 5 & 3));
	g.count = (uint8_t)(g.length / (g.esize > g.isize ? g.esize : g.isize));
	if ((sib & 7) == 5 && !(modrm >> 6))
		g.base = R_NONE;
	return g;
}

static struct gather decode_vex(const struct insn *in)
{
	const uint8_t *op = in->raw + in->off_opcode;
	uint8_t p1 = op[-2], p2 = op[-1], modrm = in->raw[in->off_modrm], sib = in->raw[in->off_modrm + 1];
	bool wide = p2 & 0x80, qword_index = op[0] & 1;
	unsigned high = in->code_size == 8 ? 8 : 0, bytes = p2 & 4 ? 32 : 16;
	struct gather g = {.dst = (uint8_t)((modrm >> 3 & 7) | (p1 & 0x80 ? 0 : high)),
			   .index = (uint8_t)((sib >> 3 & 7) | (p1 & 0x40 ? 0 : high)),
			   .mask = (uint8_t)((~p2 >> 3 & 15) & (high + 7)),
			   .base = (uint8_t)((sib & 7) | (p1 & 0x20 ? 0 : high)),
			   .scale = (uint8_t)(1u << (sib >> 6)),
			   .esize = wide ? 8 : 4,
			   .isize = qword_index ? 8 : 4};

	g.count = (uint8_t)(bytes / (g.esize > g.isize ? g.esize : g.isize));
	if ((sib & 7) == 5 && !(modrm >> 6))
		g.base = R_NONE;
	return g;
}

struct gather gather_decode(const struct insn *in)
{
	return in->enc == ENC_EVEX ? decode_evex(in) : decode_vex(in);
}

/* Offset of the element whose index is at @p; @base is the base register's value. */
static uint64_t element_address(const struct insn *in, const struct gather *g, uint64_t base, const uint8_t *p)
{
	uint64_t addr;
	int64_t index;
	int32_t narrow;

	if (g->isize == 8) {
		memcpy(&index, p, 8);
	} else {
		memcpy(&narrow, p, 4);
		index = narrow;
	}
	addr = base + (uint64_t)index * g->scale + (uint64_t)(int64_t)in->mem.disp;
	return in->addrsize == 8 ? addr : (uint32_t)addr;
}

/* An element of 4 or 8 bytes; sizes the compiler knows, for our memcpy costs more than the move. */
static void put_element(uint8_t *to, const uint8_t *from, unsigned size)
{
	if (size == 8)
		memcpy(to, from, 8);
	else
		memcpy(to, from, 4);
}

/* Reads an element into its place, or writes it from there. */
static int move_one(struct vcpu *v, const struct gather *g, unsigned i, uint64_t lin)
{
	uint8_t *place = vecregs_byte(v, g->dst, i * g->esize), buf[8];

	if (g->scatter)
		return mmu_write(v, lin, place, g->esize, mmu_acc(v, ACC_W));
	if (tlb_read(v, lin, buf, g->esize) < 0)
		return -1;
	put_element(place, buf, g->esize);
	return 0;
}

static bool chosen(struct vcpu *v, const struct gather *g, unsigned i)
{
	if (g->k)
		return vecregs_mask(v, g->k) >> i & 1;
	return *vecregs_byte(v, g->mask, (i + 1) * g->esize - 1) & 0x80;
}

static void clear_mask(struct vcpu *v, const struct gather *g, unsigned i)
{
	static const uint8_t zero[8];

	if (g->k)
		vecregs_set_mask(v, g->k, vecregs_mask(v, g->k) & ~(1ull << i));
	else
		put_element(vecregs_byte(v, g->mask, i * g->esize), zero, g->esize);
}

/* Does element i unless its mask is clear.  0, or -1 after raising. */
static int gather_one(struct vcpu *v, const struct insn *in, const struct gather *g, unsigned i)
{
	const uint8_t *index = vecregs_byte(v, g->index, i * g->isize);
	uint64_t lin, base = g->base == R_NONE ? 0 : v->regs[g->base];

	if (chosen(v, g, i) && (seg_linear(v, in->mem.seg, element_address(in, g, base, index), g->esize,
					   g->scatter ? ACC_W : ACC_R, &lin) < 0 ||
				move_one(v, g, i, lin) < 0))
		return -1;
	clear_mask(v, g, i);
	return 0;
}

/* What lies above the elements becomes zero, in the destination and in the mask. */
static void clear_above(struct vcpu *v, const struct gather *g)
{
	for (unsigned off = g->count * g->esize; off < vecregs_size(v); off++) {
		if (!g->scatter)
			*vecregs_byte(v, g->dst, off) = 0;
		if (!g->k)
			*vecregs_byte(v, g->mask, off) = 0;
	}
	if (g->k)
		vecregs_set_mask(v, g->k, 0);
}

/* A gather of EVEX that faults after it has read an element: AMD's CPUs have cleared what is above the vector then. */
static void fault_behind(struct vcpu *v, const struct gather *g)
{
	if (!v->amd || !g->k || g->scatter)
		return;
	for (unsigned off = g->length; off < 64; off++)
		*vecregs_byte(v, g->dst, off) = 0;
}

/* Intel's CPUs make each mask element all ones or zeros and clear what is above them before they read anything: it shows at a
 * fault (SDM 2, VGATHER; AMD's leave both alone). */
static void spread_mask(struct vcpu *v, const struct gather *g)
{
	for (unsigned i = 0; i < g->count; i++) {
		bool on = *vecregs_byte(v, g->mask, (i + 1) * g->esize - 1) & 0x80;

		for (unsigned k = 0; k < g->esize; k++)
			*vecregs_byte(v, g->mask, i * g->esize + k) = on ? 0xff : 0;
	}
	for (unsigned off = g->count * g->esize; off < vecregs_size(v); off++)
		*vecregs_byte(v, g->mask, off) = 0;
}

int bt_gather(struct vcpu *v, const struct insn *in)
{
	struct gather g = gather_decode(in);
	unsigned moved = 0;
	int r = 0;

	if (!g.scatter && (g.dst == g.index || (!g.k && (g.dst == g.mask || g.index == g.mask))))
		return raise_ud(v);
	vecregs_open(v);
	if (!v->amd && !g.k)
		spread_mask(v, &g);
	for (unsigned i = 0; i < g.count && !r; i++) {
		bool counts = chosen(v, &g, i);

		r = gather_one(v, in, &g, i);
		moved += counts && !r;
	}
	if (!r)
		clear_above(v, &g);
	else if (moved)
		fault_behind(v, &g);
	vecregs_close(v);
	if (r)
		return -1; /* what was gathered before the fault stays */
	v->rip += in->len;
	if (in->code_size != 8)
		v->rip = (uint32_t)v->rip;
	return 0;
}

/* The base of a segment that has one where gathers are done in place: flat code. */
static uint64_t plain_base(const struct vcpu *v, const struct insn *in)
{
	return in->mem.seg == SEG_FS || in->mem.seg == SEG_GS ? v->seg_base[in->mem.seg] : 0;
}

int bt_c_gather(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];
	const struct insn *in = &v->bt->sys[s.aux];
	struct gather g = gather_decode(in);
	uint64_t base = g.base == R_NONE ? 0 : s.spill >> g.base & 1 ? v->regs[g.base] : v->host_regs[g.base];
	uint64_t seg = plain_base(v, in);
	unsigned end = g.count * g.esize;

	for (unsigned i = 0; i < g.count; i++) {
		uint64_t at = element_address(in, &g, base, v->gather.index + i * g.isize);

		if ((g.k ? v->gather.mask[i / 8] >> (i & 7) & 1 : v->gather.mask[(i + 1) * g.esize - 1] >> 7) &&
		    !cross_read(v, at + seg, v->gather.dst + i * g.esize, g.esize))
			return 0;
	}
	memset(v->gather.dst + end, 0, sizeof v->gather.dst - end);
	v->resume = (uint64_t)(uintptr_t)bt_rx(v->bt, s.resume_off);
	return 1;
}
