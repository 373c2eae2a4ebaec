/*
 * Bytes that may not run as they are: instructions that tell of the host instead of the guest, or change what the engine keeps,
 * without a trap.  At every offset, for a jump may go anywhere; prefixes do not matter, since opcodes are looked for wherever they
 * are.  All of them begin with 0f, or are a mov to fs or gs.
 *
 * Not here, because they trap in a stub: syscall, int, int3, hlt, in, out and all that is for ring 0.  Not here, because what
 * they change is looked at behind them: loads of ds and es, far branches, popf.  Not here, because they tell the same on every
 * 64-bit Linux, which is what a guest in a stub is: sldt, str, lar, verr, verw.
 */
#include "vcpu/direct/scan.h"

#define PAGE 4096u

static unsigned mod_of(uint8_t modrm)
{
	return modrm >> 6;
}

static unsigned reg_of(uint8_t modrm)
{
	return modrm >> 3 & 7;
}

/* Opcode 0f @op with @modrm behind it (SDM 2 A.3). */
static bool bad_0f(uint8_t op, uint8_t modrm)
{
	bool reg = mod_of(modrm) == 3;

	switch (op) {
	case 0x01: /* sgdt, sidt, smsw; xgetbv, rdtscp, rdpkru, wrpkru ... but not xend, xtest, and lmsw, lgdt, lidt, invlpg */
		return reg ? modrm != 0xd5 && modrm != 0xd6 : reg_of(modrm) < 2 || reg_of(modrm) == 4;
	case 0x03:              /* lsl */
	case 0x31:              /* rdtsc */
	case 0x33:              /* rdpmc */
	case 0x34:              /* sysenter */
	case 0xa1:              /* pop fs */
	case 0xa2:              /* cpuid */
	case 0xa9:              /* pop gs */
	case 0xb4:              /* lfs */
	case 0xb5: return true; /* lgs */
	case 0xae:              /* rdfsbase to wrgsbase; xsave, xrstor, xsaveopt */
		return reg ? reg_of(modrm) < 4 : reg_of(modrm) >= 4 && reg_of(modrm) < 7;
	case 0xc7: /* rdrand, rdseed, rdpid; xrstors, xsavec, xsaves */
		return reg ? reg_of(modrm) >= 6 : reg_of(modrm) >= 3 && reg_of(modrm) < 6;
	default: return false;
	}
}

/* Of any byte behind it? */
static bool any_bad_0f(uint8_t op)
{
	for (unsigned m = 0; m < 256; m++)
		if (bad_0f(op, (uint8_t)m))
			return true;
	return false;
}

/* mov from a register to fs or gs: with null it may or may not change the base, and nothing tells. */
static bool bad_8e(uint8_t modrm)
{
	return mod_of(modrm) == 3 && (reg_of(modrm) == 4 || reg_of(modrm) == 5);
}

/* What goes on behind the page is not known: the worst. */
static bool bad_at_end(const uint8_t *page)
{
	return page[PAGE - 1] == 0x0f || page[PAGE - 1] == 0x8e ||
	       (page[PAGE - 2] == 0x0f && any_bad_0f(page[PAGE - 1]));
}

bool scan_clean(const uint8_t *page)
{
	for (unsigned i = 0; i + 2 < PAGE; i++)
		if ((page[i] == 0x0f && bad_0f(page[i + 1], page[i + 2])) || (page[i] == 0x8e && bad_8e(page[i + 1])))
			return false;
	return !(page[PAGE - 2] == 0x8e && bad_8e(page[PAGE - 1])) && !bad_at_end(page);
}
