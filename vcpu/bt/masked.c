/*
 * AVX masked moves whose operand is not plain RAM in one page as a whole: the
 * host's instruction does all others.
 * Invariant: a move that faults has changed neither registers nor memory.
 */
#include "vcpu/bt/masked.h"

#include <stdbool.h>
#include <string.h>

#include "vcpu/bt/vecregs.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/mmu/mmu.h"

struct masked {
	unsigned reg, mask; /* vector registers: the data's, the mask's */
	unsigned count, esize;
	bool store;
	uint64_t ea;
};

/* The fields of VEX that struct insn does not carry. */
static struct masked decode(const struct vcpu *v, const struct insn *in)
{
	const uint8_t *op = in->raw + in->off_opcode;
	uint8_t p1 = op[-2], p2 = op[-1];
	unsigned high = in->code_size == 8 ? 8 : 0;
	bool wide = op[0] >= 0x8c ? p2 & 0x80 : op[0] & 1; /* vpmaskmov: W; vmaskmov: its opcode */
	struct masked m = {.reg = (in->raw[in->off_modrm] >> 3 & 7) | (p1 & 0x80 ? 0 : high),
			   .mask = (~p2 >> 3 & 15) & (high + 7),
			   .esize = wide ? 8 : 4,
			   .store = op[0] & 2,
			   .ea = insn_ea(v, in)};

	m.count = (p2 & 4 ? 32 : 16) / m.esize;
	return m;
}

static bool chosen(struct vcpu *v, const struct masked *m, unsigned i)
{
	return *vecregs_byte(v, m->mask, (i + 1) * m->esize - 1) & 0x80;
}

/* Linear address of element @i. */
static int element_linear(struct vcpu *v, const struct insn *in, const struct masked *m, unsigned i, uint64_t *lin)
{
	uint64_t off = m->ea + i * m->esize;

	if (in->addrsize != 8)
		off = in->addrsize == 4 ? (uint32_t)off : (uint16_t)off;
	return seg_linear(v, in->mem.seg, off, m->esize, m->store ? ACC_W : ACC_R, lin);
}

static int load(struct vcpu *v, const struct insn *in, const struct masked *m)
{
	uint8_t out[64] = {0};
	uint64_t lin;

	for (unsigned i = 0; i < m->count; i++)
		if (chosen(v, m, i) && (element_linear(v, in, m, i, &lin) < 0 ||
					mmu_read(v, lin, out + i * m->esize, m->esize, mmu_acc(v, ACC_R)) < 0))
			return -1;
	for (unsigned off = 0; off < vecregs_size(v); off++)
		*vecregs_byte(v, m->reg, off) = out[off];
	return 0;
}

/* May every chosen element be written? */
static int check_store(struct vcpu *v, const struct insn *in, const struct masked *m, uint64_t *lin)
{
	struct walk w;

	for (unsigned i = 0; i < m->count; i++) {
		if (!chosen(v, m, i))
			continue;
		if (element_linear(v, in, m, i, &lin[i]) < 0 || mmu_walk(v, lin[i], mmu_acc(v, ACC_W), &w) < 0)
			return -1;
		if ((lin[i] & GUEST_PAGE_MASK) + m->esize > GUEST_PAGE_MASK + 1 &&
		    mmu_walk(v, (lin[i] | GUEST_PAGE_MASK) + 1, mmu_acc(v, ACC_W), &w) < 0)
			return -1;
	}
	return 0;
}

/* Of a store whose second page faults Intel's CPUs report the last byte that is chosen, AMD's the first one on that page. */
static void report_last(struct vcpu *v, const struct insn *in, const struct masked *m)
{
	uint64_t first, lin;
	unsigned last = m->count - 1;

	while (last && !chosen(v, m, last))
		last--;
	lin = m->ea + v->seg_base[in->mem.seg] + last * m->esize + m->esize - 1;
	first = m->ea + v->seg_base[in->mem.seg];
	if (in->code_size != 8) {
		lin = (uint32_t)lin;
		first = (uint32_t)first;
	}
	if ((first ^ v->exc_cr2) & ~GUEST_PAGE_MASK)
		v->exc_cr2 = lin;
}

static int store(struct vcpu *v, const struct insn *in, const struct masked *m)
{
	uint64_t lin[8];
	uint8_t buf[8];

	if (check_store(v, in, m, lin) < 0) {
		if (!v->amd && v->exc_vector == EXC_PF)
			report_last(v, in, m);
		return -1;
	}
	for (unsigned i = 0; i < m->count; i++) {
		if (!chosen(v, m, i))
			continue;
		for (unsigned k = 0; k < m->esize; k++)
			buf[k] = *vecregs_byte(v, m->reg, i * m->esize + k);
		if (mmu_write(v, lin[i], buf, m->esize, mmu_acc(v, ACC_W)) < 0)
			return -1;
	}
	return 0;
}

int bt_masked(struct vcpu *v, const struct insn *in)
{
	struct masked m = decode(v, in);
	int r;

	vecregs_open(v);
	r = m.store ? store(v, in, &m) : load(v, in, &m);
	vecregs_close(v);
	if (r < 0)
		return -1;
	v->rip += in->len;
	if (in->code_size != 8)
		v->rip = (uint32_t)v->rip;
	return 0;
}
