/*
 * Port input and output.
 *
 * Invariant: ins looks whether its store will succeed before it reads the port,
 * since reading has effects; every finished iteration is visible in the
 * registers when a later one faults.
 */
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/breakpoint.h"
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/sysinsn.h"

/* SDM 1 19.5.2: at CPL > IOPL the TSS's bitmap decides. */
static int port_check(struct vcpu *v, uint16_t port, unsigned size)
{
	uint16_t map, bits;
	uint32_t off;

	if (in_real(v) || (!in_v86(v) && v->cpl <= flags_iopl(v)))
		return 0;
	if ((v->tr.attr & SEG_A_NULL) || !(v->tr.attr & 8) || v->tr.limit < 0x67)
		return raise_gp(v, 0);
	if (mmu_read(v, v->tr.base + 0x66, &map, 2, ACC_R | ACC_SYS))
		return -1;
	off = map + port / 8u;
	if (off + 1 > v->tr.limit)
		return raise_gp(v, 0);
	if (mmu_read(v, v->tr.base + off, &bits, 2, ACC_R | ACC_SYS))
		return -1;
	if (bits >> (port & 7) & ((1u << size) - 1))
		return raise_gp(v, 0);
	return 0;
}

static uint16_t port_of(const struct vcpu *v, const struct insn *in)
{
	return in->imm_port ? (uint8_t)in->imm : (uint16_t)v->regs[R_DX];
}

int sys_in(struct vcpu *v, const struct insn *in)
{
	uint16_t port = port_of(v, in);

	if (port_check(v, port, in->opsize))
		return -1;
	v->stats.pio++;
	breakpoint_port(v, port, in->opsize);
	reg_write(v, R_AX, platform_pio_read(v->vm->plat, v, port, in->opsize), in->opsize);
	return insn_done(v, in);
}

int sys_out(struct vcpu *v, const struct insn *in)
{
	uint16_t port = port_of(v, in);

	if (port_check(v, port, in->opsize))
		return -1;
	v->stats.pio++;
	breakpoint_port(v, port, in->opsize);
	platform_pio_write(v->vm->plat, v, port, reg_read(v, R_AX, in->opsize), in->opsize);
	return insn_done(v, in);
}

static int ins_one(struct vcpu *v, const struct insn *in, uint16_t port)
{
	uint64_t off = reg_read(v, R_DI, in->addrsize), lin, val;
	struct walk w;

	if (seg_linear(v, SEG_ES, off, in->opsize, ACC_W, &lin) || mmu_walk(v, lin, mmu_acc(v, ACC_W), &w))
		return -1;
	if ((lin & 4095) + in->opsize > 4096 && mmu_walk(v, (lin | 4095) + 1, mmu_acc(v, ACC_W), &w))
		return -1;
	val = platform_pio_read(v->vm->plat, v, port, in->opsize);
	return mmu_write(v, lin, &val, in->opsize, mmu_acc(v, ACC_W));
}

static int outs_one(struct vcpu *v, const struct insn *in, uint16_t port)
{
	uint64_t off = reg_read(v, R_SI, in->addrsize), lin, val = 0;

	if (insn_linear(v, in, off, in->opsize, ACC_R, &lin) || mmu_read(v, lin, &val, in->opsize, mmu_acc(v, ACC_R)))
		return -1;
	platform_pio_write(v->vm->plat, v, port, val, in->opsize);
	return 0;
}

/* The string forms: a page's worth per call, one iteration under single-step. */
static int string_io(struct vcpu *v, const struct insn *in, unsigned index,
		     int (*one)(struct vcpu *, const struct insn *, uint16_t))
{
	uint64_t count = in->rep ? reg_read(v, R_CX, in->addrsize) : 1;
	uint64_t step = v->df ? -(uint64_t)in->opsize : in->opsize;
	unsigned budget = v->sysflags & RFL_TF ? 1 : 4096 / in->opsize;
	uint16_t port = (uint16_t)v->regs[R_DX];

	if (port_check(v, port, in->opsize))
		return -1;
	for (; count > 0 && budget > 0; budget--) {
		if (one(v, in, port))
			return -1;
		v->stats.pio++;
		breakpoint_port(v, port, in->opsize);
		count--;
		reg_write(v, index, v->regs[index] + step, in->addrsize);
		if (in->rep)
			reg_write(v, R_CX, count, in->addrsize);
		if (v->pending || v->db_hits)
			break;
	}
	return count > 0 ? 0 : insn_done(v, in);
}

int sys_ins(struct vcpu *v, const struct insn *in)
{
	return string_io(v, in, R_DI, ins_one);
}

int sys_outs(struct vcpu *v, const struct insn *in)
{
	return string_io(v, in, R_SI, outs_one);
}
