/*
 * Data and I/O breakpoints of the debug registers.
 * Invariant: nothing here raises; what was met is only noted.
 */
#include "vcpu/cpu/breakpoint.h"

#include "vcpu/mmu/mmu.h"

enum { RW_EXEC, RW_WRITE, RW_IO, RW_ACCESS };

/* Breakpoint @i, when it is enabled and of kind @rw, covers part of [at, at + size). */
static bool meets(const struct vcpu *v, unsigned i, unsigned rw, uint64_t at, unsigned size)
{
	static const uint8_t lens[4] = {1, 2, 8, 4};
	unsigned len = lens[v->dr[7] >> (18 + 4 * i) & 3];
	uint64_t first = v->dr[i] & ~(uint64_t)(len - 1);

	return (v->dr[7] >> (2 * i) & 3) && (v->dr[7] >> (16 + 4 * i) & 3) == rw && at < first + len &&
	       first < at + size;
}

bool breakpoint_access(struct vcpu *v, uint64_t lin, unsigned size, unsigned acc)
{
	bool hit = false;

	for (unsigned i = 0; i < 4; i++)
		if (meets(v, i, RW_ACCESS, lin, size) || ((acc & ACC_W) && meets(v, i, RW_WRITE, lin, size))) {
			v->db_hits |= (uint8_t)(1u << i);
			hit = true;
		}
	return hit;
}

void breakpoint_port(struct vcpu *v, uint16_t port, unsigned size)
{
	if (!(v->cr4 & CR4_DE))
		return;
	for (unsigned i = 0; i < 4; i++)
		if (meets(v, i, RW_IO, port, size))
			v->db_hits |= (uint8_t)(1u << i);
}
