/*
 * A small machine for unit tests of vcpu/cpu and vcpu/mmu/walk.c: one vcpu, RAM,
 * and recorded calls in place of the platform, the soft TLB and the translator.
 */
#ifndef HVX_TESTS_MACHINE_H
#define HVX_TESTS_MACHINE_H

#include "common/gmem.h"
#include "vcpu/vcpu.h"

#define MACH_RAM (16u << 20)

struct seen { /* what was called, and what reads answer */
	unsigned flush_all, flush_nonglobal, flush_page, update_mode;
	unsigned switches, from, to, switch_flush, forget, forgotten, forget_all; /* by PCID */
	uint64_t page;
	unsigned code_writes;
	uint64_t mmio_gpa, mmio_val, pio_val, pio_next;
	unsigned mmio_size, mmio_writes, pio_reads, pio_writes;
	uint16_t pio_port;
	uint8_t tpr;
	int apic_inits;
	bool ap; /* its local APIC says that it is not the boot processor */
};
extern struct seen seen;

/* A reset vcpu with MACH_RAM bytes of zeroed RAM; the same objects each time. */
struct vcpu *mach_vcpu(void);

void ram_put(struct vcpu *v, uint64_t gpa, const void *buf, size_t len);
void ram_put64(struct vcpu *v, uint64_t gpa, uint64_t val);
void ram_put32(struct vcpu *v, uint64_t gpa, uint32_t val);
uint64_t ram_get64(struct vcpu *v, uint64_t gpa);
uint32_t ram_get32(struct vcpu *v, uint64_t gpa);

/*
 * Long mode: 4-level tables that map RAM one to one (user, writable), a GDT
 * with the selectors below, a TSS, an IDT; CPL 0, rsp 0x90000, rip 0x50000.
 */
#define MACH_GDT  0x10000u
#define MACH_TSS  0x11000u
#define MACH_IDT  0x12000u
#define MACH_LDT  0x13000u
#define MACH_PML4 0x1000u
enum {
	SEL_K64 = 0x08,
	SEL_K32 = 0x10,
	SEL_KDATA = 0x18,
	SEL_U32 = 0x23,
	SEL_UDATA = 0x2b,
	SEL_U64 = 0x33,
	SEL_CONF64 = 0x38,
	SEL_NP_DATA = 0x40,
	SEL_RO = 0x48,
	SEL_XONLY = 0x50,
	SEL_CONF32 = 0x58,
	SEL_GATE = 0x60,
	SEL_TSS = 0x70,
	SEL_LDT = 0x80,
	SEL_LAST = 0x90
};
struct vcpu *mach_long(void);
/* The same tables without paging, in 32-bit protected mode; the TSS is a 32-bit one. */
struct vcpu *mach_prot(void);

/* An IDT entry in the format of the current mode. */
void mach_gate(struct vcpu *v, unsigned vector, uint16_t sel, uint64_t off, unsigned type, unsigned dpl, unsigned ist);
/* Puts the vcpu in ring 3 with the given code selector, rsp 0x40000. */
void mach_user(struct vcpu *v, uint16_t cs);

#endif
