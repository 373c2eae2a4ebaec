/*
 * Masked operands of EVEX instructions that are not plain RAM within one page.
 * Invariant: what the mask leaves out is neither looked at nor touched.
 */
#include "vcpu/bt/evex.h"

#include <stdbool.h>

#include "vcpu/bt/insn.h"
#include "vcpu/bt/vecregs.h"
#include "vcpu/cpu/operand.h"
#include "vcpu/mmu/mmu.h"

static uint64_t ones(unsigned n)
{
	return n > 63 ? ~0ull : (1ull << n) - 1;
}

static uint64_t each(uint64_t k, unsigned bits, unsigned size)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < bits; i++)
		if (k >> i & 1)
			bytes |= ones(size) << i * size;
	return bytes;
}

uint64_t evex_bytes(const struct insn *in, uint64_t k)
{
	unsigned copies, n = in->mem.size / in->k_size;
	uint64_t all = 0;

	k &= ones(in->k_bits);
	switch (in->k_way) {
	case K_ANY: return k ? ones(in->mem.size) : 0;
	case K_PACKED: return ones((unsigned)__builtin_popcountll(k) * in->k_size);
	case K_TUPLE:
		copies = in->k_bits / n;
		for (unsigned i = 0; i < copies; i++)
			all |= k >> i * n;
		return each(all, n, in->k_size);
	default: return each(k, in->k_bits, in->k_size);
	}
}

static uint64_t offset(const struct insn *in, uint64_t off)
{
	return in->addrsize == 8 ? off : in->addrsize == 4 ? (uint32_t)off : (uint16_t)off;
}

/* May the @size bytes at @off of the operand be accessed, but for their pages?  0, or -1 after raising. */
static int piece_ok(struct vcpu *v, const struct insn *in, uint64_t off, unsigned size, uint64_t *lin)
{
	unsigned acc = in->mem_write ? ACC_W : ACC_R;

	return seg_linear(v, in->mem.seg, offset(in, off), size, acc, lin) < 0 || alignment_check(v, *lin, size) ? -1
														 : 0;
}

/* The same for all of an operand that is stored to, with its pages. */
static int whole_ok(struct vcpu *v, const struct insn *in, uint64_t off)
{
	uint64_t lin, last;
	struct walk w;

	if (piece_ok(v, in, off, in->mem.size, &lin) < 0 || mmu_walk(v, lin, mmu_acc(v, ACC_W), &w) < 0)
		return -1;
	last = in_code64(v) ? lin + in->mem.size - 1 : (uint32_t)(lin + in->mem.size - 1);
	return (lin ^ last) & ~GUEST_PAGE_MASK ? mmu_walk(v, last & ~GUEST_PAGE_MASK, mmu_acc(v, ACC_W), &w) : 0;
}

void evex_masked(struct vcpu *v, const struct insn *in)
{
	unsigned piece = in->k_way == K_ANY ? in->mem.size : in->k_size;
	uint64_t ea = insn_ea(v, in), lin, bytes, k;

	vecregs_open(v);
	k = vecregs_mask(v, in->k);
	vecregs_close(v);
	bytes = evex_bytes(in, k);
	lin = ea + (!in_code64(v) || in->mem.seg >= SEG_FS ? v->seg[in->mem.seg].base : 0);
	if (bytes && in->align && (lin & (in->align - 1u))) {
		raise_gp(v, 0);
		return;
	}
	if (in->k_way == K_WHOLE && whole_ok(v, in, ea) < 0)
		return;
	for (unsigned off = 0; off < in->mem.size && in->k_way != K_WHOLE; off += piece) {
		uint64_t at;

		if ((bytes >> off & 1) && piece_ok(v, in, ea + off, piece, &at) < 0)
			return;
	}
	v->next = (struct next_run){.how = NEXT_EXPLICIT,
				    .acc = (uint8_t)((in->mem_read ? ACC_R : 0) | (in->mem_write ? ACC_W : 0)),
				    .ss = in->mem.seg == SEG_SS,
				    .size = in->mem.size,
				    .piece = (uint16_t)piece,
				    .gva = in_code64(v) ? lin : (uint32_t)lin,
				    .bytes = bytes};
}
