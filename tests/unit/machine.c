/*
 * See machine.h.  Invariant: mach_vcpu() leaves nothing of an earlier test behind.
 */
#include "tests/unit/machine.h"

#include <stdlib.h>
#include <string.h>

#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/reset.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/mmu/mmu.h"

struct seen seen;

void mmu_let_go(struct vcpu *v, uint64_t frame)
{
	(void)v, (void)frame;
}

void tlb_flush_all(struct vcpu *v)
{
	seen.flush_all++;
}

void tlb_flush_nonglobal(struct vcpu *v)
{
	seen.flush_nonglobal++;
}

void tlb_switch(struct vcpu *v, unsigned from, unsigned to, bool flush)
{
	seen.switches++;
	seen.from = from;
	seen.to = to;
	seen.switch_flush = flush;
}

void bank_forget(struct vcpu *v, unsigned pcid)
{
	seen.forget++;
	seen.forgotten = pcid;
}

void bank_forget_all(struct vcpu *v)
{
	seen.forget_all++;
}

void tlb_flush_page(struct vcpu *v, uint64_t gva)
{
	seen.flush_page++;
	seen.page = gva;
}

static void gone(struct vcpu *v, const struct mmu_gone *g)
{
}

static int stored(struct vcpu *v, uint64_t frame, unsigned off, unsigned len)
{
	seen.code_writes++;
	return STORED_DATA;
}

static const struct mmu_hook hook = {gone, stored};

void vcpu_update_mode(struct vcpu *v)
{
	seen.update_mode++;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		v->seg_base[i] = v->seg[i].base;
}

uint64_t platform_pio_read(struct platform *p, struct vcpu *v, uint16_t port, unsigned size)
{
	seen.pio_port = port;
	seen.pio_reads++;
	return seen.pio_next++;
}

void platform_pio_write(struct platform *p, struct vcpu *v, uint16_t port, uint64_t val, unsigned size)
{
	seen.pio_port = port;
	seen.pio_val = val;
	seen.pio_writes++;
}

uint64_t platform_mmio_read(struct platform *p, struct vcpu *v, uint64_t gpa, unsigned size)
{
	seen.mmio_gpa = gpa;
	seen.mmio_size = size;
	return seen.mmio_val;
}

void platform_mmio_write(struct platform *p, struct vcpu *v, uint64_t gpa, uint64_t val, unsigned size)
{
	seen.mmio_gpa = gpa;
	seen.mmio_size = size;
	seen.mmio_val = val;
	seen.mmio_writes++;
}

void platform_apic_init(struct platform *p, struct vcpu *v)
{
	seen.apic_inits++;
}

int platform_apic_rdmsr(struct platform *p, struct vcpu *v, uint32_t msr, uint64_t *val)
{
	*val = seen.ap ? 0xfee00800 : 0xfee00900;
	return 0;
}

int platform_apic_wrmsr(struct platform *p, struct vcpu *v, uint32_t msr, uint64_t val)
{
	return 0;
}

uint8_t platform_get_tpr(struct platform *p, struct vcpu *v)
{
	return seen.tpr;
}

void platform_set_tpr(struct platform *p, struct vcpu *v, uint8_t tpr)
{
	seen.tpr = tpr;
}

struct vcpu *mach_vcpu(void)
{
	static struct vcpu *v;
	static struct vm vm;
	static struct gmem mem;
	static uint64_t bm[MACH_RAM / 4096 / 64];

	if (v == NULL)
		v = aligned_alloc(4096, (sizeof(*v) + 4095) & ~4095ul);
	if (mem.ram == NULL)
		mem.ram = aligned_alloc(4096, MACH_RAM);
	if (v == NULL || mem.ram == NULL)
		abort();
	memset(v, 0, sizeof(*v));
	v->hook = &hook;
	memset(mem.ram, 0, MACH_RAM);
	memset(bm, 0, sizeof(bm));
	mem.size = mem.low = MACH_RAM;
	mem.dirty_bm = bm;
	memset(&vm, 0, sizeof(vm));
	vm.mem = &mem;
	vm.ncpus = 1;
	vm.name = "test";
	vm.tsc_hz = 2000000000;
	vm.vcpu[0] = v;
	v->vm = &vm;
	for (int k = 0; k < TLB_COUNT; k++)
		for (unsigned i = 0; i < TLB_SIZE; i++)
			v->tlb[k].rtag[i] = v->tlb[k].wtag[i] = TLB_INVALID;
	cpu_reset(v);
	memset(&seen, 0, sizeof(seen));
	return v;
}

void ram_put(struct vcpu *v, uint64_t gpa, const void *buf, size_t len)
{
	memcpy(v->vm->mem->ram + gpa, buf, len);
}

void ram_put64(struct vcpu *v, uint64_t gpa, uint64_t val)
{
	ram_put(v, gpa, &val, 8);
}

void ram_put32(struct vcpu *v, uint64_t gpa, uint32_t val)
{
	ram_put(v, gpa, &val, 4);
}

uint64_t ram_get64(struct vcpu *v, uint64_t gpa)
{
	uint64_t val;

	memcpy(&val, v->vm->mem->ram + gpa, 8);
	return val;
}

uint32_t ram_get32(struct vcpu *v, uint64_t gpa)
{
	uint32_t val;

	memcpy(&val, v->vm->mem->ram + gpa, 4);
	return val;
}

static void gdt_put(struct vcpu *v, uint16_t sel, uint64_t val)
{
	ram_put64(v, MACH_GDT + (sel & ~7u), val);
}

static void build_gdt(struct vcpu *v, bool lm)
{
	gdt_put(v, SEL_K64, 0x00af9a000000ffff);
	gdt_put(v, SEL_K32, 0x00cf9a000000ffff);
	gdt_put(v, SEL_KDATA, 0x00cf92000000ffff);
	gdt_put(v, SEL_U32, 0x00cffa000000ffff);
	gdt_put(v, SEL_UDATA, 0x00cff2000000ffff);
	gdt_put(v, SEL_U64, 0x00affa000000ffff);
	gdt_put(v, SEL_CONF64, 0x00af9e000000ffff);
	gdt_put(v, SEL_NP_DATA, 0x00cf12000000ffff);
	gdt_put(v, SEL_RO, 0x00cff0000000ffff);
	gdt_put(v, SEL_XONLY, 0x00cff8000000ffff);
	gdt_put(v, SEL_CONF32, 0x00cf9e000000ffff);
	/* a call gate, DPL 3, to the kernel's code at 0x60000; two parameters outside long mode */
	gdt_put(v, SEL_GATE, 0x0006ec0000000000 | (lm ? SEL_K64 : SEL_K32) << 16 | (lm ? 0ull : 2ull << 32));
	gdt_put(v, SEL_TSS, 0x0000890110000067);
	gdt_put(v, SEL_LDT, 0x000082013000000f);
}

static void set_state(struct vcpu *v, bool lm)
{
	v->gdtr = (struct dtable){MACH_GDT, SEL_LAST + 7};
	v->idtr = (struct dtable){MACH_IDT, lm ? 256 * 16 - 1 : 256 * 8 - 1};
	v->tr = (struct seg){.base = MACH_TSS, .limit = 0x67, .attr = SEG_A_P | DT_TSS32_BUSY, .sel = SEL_TSS};
	for (unsigned i = 0; i < SEG_COUNT; i++)
		v->seg[i].sel = SEL_KDATA;
	v->seg[SEG_CS].sel = lm ? SEL_K64 : SEL_K32;
	v->regs[R_SP] = 0x90000;
	v->rip = 0x50000;
	memset(&seen, 0, sizeof(seen));
}

struct vcpu *mach_long(void)
{
	struct vcpu *v = mach_vcpu();

	build_gdt(v, true);
	ram_put64(v, MACH_PML4, 0x2007);
	ram_put64(v, 0x2000, 0x3007);
	for (unsigned i = 0; i < MACH_RAM >> 21; i++)
		ram_put64(v, 0x3000 + i * 8, (uint64_t)i << 21 | 0x87);
	ram_put64(v, MACH_TSS + 4, 0x80000);    /* rsp0 */
	ram_put64(v, MACH_TSS + 0x24, 0x70008); /* ist1, misaligned on purpose */
	cpu_set_long_flat(v, MACH_PML4, 0x50000, 0);
	set_state(v, true);
	return v;
}

struct vcpu *mach_prot(void)
{
	struct vcpu *v = mach_vcpu();

	build_gdt(v, false);
	ram_put32(v, MACH_TSS + 4, 0x80000); /* esp0, ss0 */
	ram_put32(v, MACH_TSS + 8, SEL_KDATA);
	cpu_set_prot_flat(v, 0x50000, 0, 0);
	set_state(v, false);
	return v;
}

void mach_gate(struct vcpu *v, unsigned vector, uint16_t sel, uint64_t off, unsigned type, unsigned dpl, unsigned ist)
{
	bool lm = v->efer & EFER_LMA;
	uint64_t lo = (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 | (uint64_t)type << 40 |
		      (uint64_t)dpl << 45 | 1ull << 47 | ((off >> 16) & 0xffff) << 48;

	ram_put64(v, MACH_IDT + vector * (lm ? 16 : 8), lo);
	if (lm)
		ram_put64(v, MACH_IDT + vector * 16 + 8, off >> 32);
}

void mach_user(struct vcpu *v, uint16_t cs)
{
	struct desc d = {.lo = 0xffff, .hi = cs == SEL_U64 ? 0x00affa00 : 0x00cffa00};

	seg_from_desc(&v->seg[SEG_CS], cs, &d);
	d.hi = 0x00cff200;
	seg_from_desc(&v->seg[SEG_SS], SEL_UDATA, &d);
	v->cpl = 3;
	v->regs[R_SP] = 0x40000;
	vcpu_update_mode(v);
}
