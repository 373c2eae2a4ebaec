/*
 * Counters, time and MSRs as programs that test CPUs try them: RDPMC, TSC and TSC_ADJUST, MONITOR and MWAIT, values that
 * MSRs must and must not take.  SDM 2B RDPMC, 3A 18.17, 4; APM 3 RDPMC.
 * Invariant: what an MSR held is put back before the next check.
 */
#include "rt.h"

#define MSR_TSC        0x10u
#define MSR_TSC_ADJUST 0x3bu
#define MSR_STAR       0xc0000081u
#define MSR_LSTAR      0xc0000082u
#define MSR_CSTAR      0xc0000083u
#define MSR_SFMASK     0xc0000084u
#define MSR_FSBASE     0xc0000100u
#define MSR_GSBASE     0xc0000101u
#define MSR_KGSBASE    0xc0000102u
#define CR4_PCE        (1ul << 8)
#define BAD_ADDRESS    0x0000800000000000ull

static struct regs r;
static uint8_t code[16];

static int run_bytes(const char *bytes, unsigned n, bool user, word cx)
{
	memcpy(code, bytes, n);
	memcpy(code + n, "\xcd\x80", 2);
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.cx = cx;
	r.ax = (word)code;
	r.dx = 0;
	return rt_run(&r);
}

static void counters(void)
{
	word cr4 = rd_cr4();

	check_trap("rdpmc in ring 3 without PCE", run_bytes("\x0f\x33", 2, true, 0), VEC_GP, 0);
	check_eq("rdpmc: ip at the fault", rt_last.r.ip, (word)code);
	check_trap("CR4.PCE can be set", TRY(wr_cr4(cr4 | CR4_PCE)), -1, 0);
	SKIP_TCG("rdpmc of no counter", "has no rdpmc")
	{
		check_trap("rdpmc of no counter, ring 0", run_bytes("\x0f\x33", 2, false, 0x1234), VEC_GP, 0);
		check_trap("rdpmc of no counter, ring 3 with PCE", run_bytes("\x0f\x33", 2, true, 0x1234), VEC_GP, 0);
	}
	wr_cr4(cr4);
}

/* CPUID does not offer them, so they do not exist, in any ring. */
static void waits(void)
{
	uint32_t a, b, c, d;

	cpuid(1, 0, &a, &b, &c, &d);
	if (c >> 3 & 1) {
		skip("monitor, mwait", "offered here");
		return;
	}
	check_trap("monitor in ring 0", run_bytes("\x0f\x01\xc8", 3, false, 0), VEC_UD, 0);
	check_trap("monitor in ring 3", run_bytes("\x0f\x01\xc8", 3, true, 0), VEC_UD, 0);
	check_trap("mwait in ring 0", run_bytes("\x0f\x01\xc9", 3, false, 0), VEC_UD, 0);
	check_trap("mwait in ring 3", run_bytes("\x0f\x01\xc9", 3, true, 0), VEC_UD, 0);
}

/* ---- time ---- */
static bool never_back(unsigned n)
{
	uint64_t last = rdtsc(), now;

	while (n--) {
		now = rdtsc();
		if (now < last)
			return false;
		last = now;
	}
	return true;
}

static void time(void)
{
	uint32_t a, b, c, d;
	uint64_t adjust, t;

	check("TSC never goes back", never_back(200000), "it did");
	cpuid(7, 0, &a, &b, &c, &d);
	if (!(b >> 1 & 1)) {
		skip("TSC_ADJUST", "not offered");
		return;
	}
	adjust = rdmsr(MSR_TSC_ADJUST);
	t = rdtsc();
	wrmsr(MSR_TSC_ADJUST, adjust + (1ull << 50));
	check("TSC_ADJUST moves the TSC", rdtsc() - t - (1ull << 50) < 1ull << 40, "%#lx", rdtsc() - t);
	check_eq("TSC_ADJUST reads back", rdmsr(MSR_TSC_ADJUST), adjust + (1ull << 50));
	wrmsr(MSR_TSC_ADJUST, adjust);
	check("and back", rdtsc() - t < 1ull << 40, "%#lx", rdtsc() - t);
	t = rdtsc();
	wrmsr(MSR_TSC, t + (1ull << 50));
	check("a write of the TSC shows in TSC_ADJUST",
	      rdmsr(MSR_TSC_ADJUST) - adjust - (1ull << 50) + (1ull << 40) < 1ull << 41, "%#lx",
	      rdmsr(MSR_TSC_ADJUST) - adjust);
	check("both ways to read it agree", rdmsr(MSR_TSC) - rdtsc() + (1ull << 40) < 1ull << 41, "%#lx %#lx",
	      rdmsr(MSR_TSC), rdtsc());
	wrmsr(MSR_TSC_ADJUST, adjust);
	check("TSC again where it was", rdtsc() - t < 1ull << 40, "%#lx", rdtsc() - t);
}

/* ---- MSRs ---- */
struct msr_case {
	uint32_t n;
	uint64_t bad; /* a value that must raise #GP, or 0 */
	uint64_t good, reads;
};
static const struct msr_case cases[] = {
	{MSR_STAR, 0, 0x00230010fffffffful, 0x00230010fffffffful},
	{MSR_LSTAR, BAD_ADDRESS, 0xffffffff81000000ul, 0xffffffff81000000ul},
	{MSR_CSTAR, BAD_ADDRESS, 0x00007fffffffffffull, 0x00007fffffffffffull},
	{MSR_SFMASK, 0, 0x47700, 0x47700},
	{MSR_FSBASE, BAD_ADDRESS, 0xffff800000000000ul, 0xffff800000000000ul},
	{MSR_GSBASE, BAD_ADDRESS, 0xffff800000000001ul, 0xffff800000000001ul},
	{MSR_KGSBASE, BAD_ADDRESS, 0x1234, 0x1234},
	{0x174, 0, 0x8, 0x8},
	{0x175, BAD_ADDRESS, 0xffffc90000001000ul, 0xffffc90000001000ul},
	{0x176, BAD_ADDRESS, 0xffffffff81000010ul, 0xffffffff81000010ul},
	{0x277, 0x0007040600070402ul, 0x0407050600070106ul, 0x0407050600070106ul},
	{0x2ff, 0x1006, 0xc06, 0xc06},
	{0x250, 0x02, 0x0606060606060606ul, 0x0606060606060606ul},
	{0x200, 0x02, 0x6, 0x6},
};

/* A vendor's CPU sign-extends or cuts what it need not keep; none takes a non-canonical base. */
static void values(void)
{
	struct batch taken = {"MSRs hold what they are given", 0, 0}, refused = {"MSRs refuse what they must", 0, 0};

	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct msr_case *c = &cases[i];
		uint64_t before = rdmsr(c->n), now;
		int vec = TRY(wrmsr(c->n, c->good));

		now = rdmsr(c->n);
		wrmsr(c->n, before);
		batch_case(&taken, vec == -1 && now == c->reads, "%#x: vector %d, reads %#lx", c->n, vec, (word)now);
		if (!c->bad)
			continue;
		vec = TRY(wrmsr(c->n, c->bad));
		now = rdmsr(c->n);
		wrmsr(c->n, before);
		batch_case(&refused, vec == VEC_GP && rt_last.err == 0 && now == before, "%#x: vector %d, reads %#lx",
			   c->n, vec, (word)now);
	}
	batch_end(&taken);
	SKIP_TCG("MSRs refuse what they must", "takes some")
	batch_end(&refused);
}

/* What CPUID does not offer has no MSR either. */
static void absent(void)
{
	static const uint32_t none[] = {0x6a0, 0x6a4, 0x6e1, 0x1c4, 0x1c5, 0xda0, 0x560, 0x570, 0xd90};
	struct batch b = {"MSRs of features that are not offered", 0, 0};

	SKIP_TCG("MSRs of features that are not offered", "reads 0")
	{
		for (unsigned i = 0; i < sizeof none / sizeof none[0]; i++) {
			int vec = TRY(rdmsr(none[i]));

			batch_case(&b, vec == VEC_GP && rt_last.err == 0, "%#x: vector %d", none[i], vec);
			vec = TRY(wrmsr(none[i], 1));
			batch_case(&b, vec == VEC_GP && rt_last.err == 0, "%#x written: vector %d", none[i], vec);
		}
		check_trap("EFER with a reserved bit", TRY(wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1ull << 9)), VEC_GP, 0);
		check_trap("EFER.LME under paging", TRY(wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~0x100ull)), VEC_GP, 0);
		batch_end(&b);
	}
}

void flat_main(void)
{
	counters();
	waits();
	time();
	values();
	absent();
}
