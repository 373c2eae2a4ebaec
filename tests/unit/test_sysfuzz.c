/*
 * Every system instruction with random operands, registers, descriptors and
 * memory: no handler may crash, and one that raises must have changed nothing.
 * HVX_FUZZ_CASES sets how many are tried, HVX_FUZZ_SEED where they begin.
 */
#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/unit/machine.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/sysinsn.h"

#define CASES 3000
#define SEED  0x9e3779b97f4a7c15ull

static uint64_t state = SEED;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1dull;
}

/* Values that are addresses, selectors, small, odd, or anything. */
static uint64_t rnd_value(void)
{
	switch (rnd() % 8) {
	case 0: return rnd() % MACH_RAM;
	case 1: return 0x30000 + rnd() % 0x2000;
	case 2: return (0x30000 + rnd() % 0x2000) & ~63ull;
	case 3: return rnd() % 0xa0;
	case 4: return 0;
	case 5: return ~0ull << (rnd() % 64);
	case 6: return 0x800000000000ull - rnd() % 32;
	default: return rnd();
	}
}

static struct vcpu *rnd_machine(void)
{
	struct vcpu *v = rnd() & 1 ? mach_long() : mach_prot();
	static const uint16_t cs[] = {SEL_U32, SEL_U64};

	for (unsigned i = 0; i < 4; i++)
		ram_put64(v, MACH_GDT + rnd() % 0x90, rnd_value());
	for (unsigned i = 0; i < 64; i++)
		ram_put64(v, 0x30000 + rnd() % 0x2400, rnd_value());
	for (unsigned i = 0; i < 256; i += 1 + (unsigned)(rnd() % 8))
		mach_gate(v, i, (uint16_t)(rnd() % 0xa0), rnd_value(), (unsigned)(rnd() & 15), (unsigned)(rnd() & 3),
			  (unsigned)(rnd() & 7));
	if (rnd() & 1)
		mach_user(v, cs[in_long_mode(v) ? rnd() & 1 : 0]);
	for (unsigned i = 0; i < 16; i++)
		if (i != R_SP || rnd() % 4 == 0)
			v->regs[i] = in_code64(v) ? rnd_value() : (uint32_t)rnd_value();
	v->cr4 |= rnd() & v->cr4_mask & ~(uint64_t)(CR4_PAE | CR4_PCIDE);
	v->efer |= rnd() & EFER_SCE;
	v->xcr0 = rnd() & 1 ? v->xcr0_mask : 1;
	v->sysflags = (uint32_t)rnd() & (RFL_IOPL | RFL_NT | RFL_AC);
	v->cr0 |= rnd() % 8 ? 0 : rnd() & (CR0_TS | CR0_EM | CR0_MP);
	v->dr[7] |= rnd() % 8 ? 0 : rnd() & 0xffffffff;
	v->star = rnd();
	v->sysenter_cs = rnd() & 0xffff;
	v->amd = rnd() & 1;
	return v;
}

static struct insn rnd_insn(const struct vcpu *v)
{
	static const uint8_t sizes[] = {2, 4, 8};
	bool code64 = in_code64(v);
	struct insn in = {.len = (uint8_t)(1 + rnd() % 15), .mem = {.base = R_NONE, .index = R_NONE, .scale = 1}};

	in.sysop = (uint8_t)(rnd() % SYS_COUNT);
	in.code_size = code64 ? 8 : 4;
	in.opsize = sizes[rnd() % (code64 ? 3 : 2)];
	in.addrsize = code64 ? (rnd() & 1 ? 8 : 4) : (rnd() & 1 ? 4 : 2);
	in.reg = (uint8_t)(rnd() % (code64 ? 16 : 8));
	in.rm = (uint8_t)(rnd() % (code64 ? 16 : 8));
	in.seg2 = SEG_SS + (uint8_t)(rnd() % 4);
	in.rep = rnd() & 1 ? 0xf3 : 0;
	in.rex_w = in.opsize == 8;
	in.imm = (int64_t)rnd_value();
	in.imm2 = (int32_t)rnd_value();
	in.isa = (uint8_t)(rnd() % 7);
	in.has_mem = rnd() & 1;
	in.mem.seg = (uint8_t)(rnd() % SEG_COUNT);
	in.mem.base = rnd() & 1 ? (uint8_t)(rnd() % (code64 ? 16 : 8)) : R_NONE;
	in.mem.disp = (int32_t)rnd_value();
	if (in.sysop >= SYS_IN && in.sysop <= SYS_OUTS)
		in.opsize = (uint8_t)(1u << rnd() % 3);
	if (in.sysop == SYS_PUSH_SEG || in.sysop == SYS_POP_SEG)
		in.reg = (uint8_t)(SEG_SS + rnd() % 4);
	return in;
}

/* State that a fault must leave alone: everything up to the exception itself. */
#define ARCH_BYTES offsetof(struct vcpu, exc_pending)

static void test_random(void)
{
	static struct vcpu before;
	const char *n = getenv("HVX_FUZZ_CASES"), *seed = getenv("HVX_FUZZ_SEED");
	unsigned raised = 0, changed = 0, cases = n ? (unsigned)strtoul(n, NULL, 0) : CASES;

	state = seed ? strtoull(seed, NULL, 0) | 1 : SEED;
	printf("seed 0x%llx ", (unsigned long long)state);
	log_set_level(LOG_LVL_ERROR); /* most of it is about unknown MSRs */
	for (unsigned i = 0; i < cases; i++) {
		struct vcpu *v = rnd_machine();
		struct insn in = rnd_insn(v);

		memcpy(&before, v, ARCH_BYTES);
		if (sys_handlers[in.sysop](v, &in) == 0) {
			vcpu_fpu_out(v);
			continue;
		}
		raised++;
		vcpu_fpu_out(v);
		v->nmi_blocked = before.nmi_blocked;
		v->db_hits = before.db_hits; /* no state of the guest's: what the instruction met until it faulted */
		if (in.sysop == SYS_INS || in.sysop == SYS_OUTS)
			memcpy(before.regs, v->regs, sizeof(before.regs));
		if (v->exc_pending && memcmp(&before, v, ARCH_BYTES) == 0)
			continue;
		if (changed++ < 5)
			printf("case %u: sysop %u opsize %u changed state\n", i, in.sysop, in.opsize);
	}
	log_set_level(LOG_LVL_INFO);
	printf("%u cases, %u raised ", cases, raised);
	CU_ASSERT_EQUAL(changed, 0);
	CU_ASSERT_TRUE(raised > cases / 10 && raised < cases);
}

CU_ErrorCode suite_sysfuzz(void)
{
	CU_pSuite s = CU_add_suite("sysfuzz", NULL, NULL);

	if (s == NULL || !CU_add_test(s, "random system instructions", test_random))
		return CU_get_error();
	return CUE_SUCCESS;
}
