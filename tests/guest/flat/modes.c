/*
 * Modes that change under code that ran before: CR0.TS, CR4.OSFXSR and TSD, AC, code sizes.  SDM 3A 2.5, 13.4; SDM 3A 6.15.
 * Invariant: each piece of code is reached by an indirect call, a return, a jump to another page and one within it, and
 * ran that way in the other mode first.
 */
#include "rt.h"

#define CR4_OSFXSR (1ul << 9)

/* bx: the code; di: an operand.  Four ways there and back. */
__asm__(".pushsection .text; .balign 4096\n"
	"m_call: call *%rbx; int $0x80\n"
	"m_ret: lea 1f(%rip), %rcx; push %rcx; push %rbx; ret\n"
	"1: int $0x80\n"
	"m_far: lea 1b(%rip), %rcx; push %rcx; jmp m_code\n"
	".balign 4096\n"
	"m_near: lea 2f(%rip), %rcx; push %rcx; jmp m_code\n"
	"2: int $0x80\n"
	".balign 256\n"
	"m_code: .fill 64, 1, 0x90\n"
	".balign 4096; .popsection");
extern char m_call[], m_ret[], m_far[], m_near[], m_code[];
static const char *const ways[] = {m_call, m_ret, m_far, m_near};
#define WAYS 4

static uint64_t words[4];
static struct regs r;

static int go(unsigned way, word flags)
{
	rt_user_regs(&r, ways[way]);
	r.bx = (word)m_code;
	r.di = (word)words + 1;
	r.flags |= flags;
	return rt_run(&r);
}

static void put_code(const char *bytes, unsigned n)
{
	memcpy(m_code, bytes, n);
	m_code[n] = (char)0xc3;
}

/* @set makes the code at m_code raise @vec; before and after it runs. */
static void flips(const char *name, const char *bytes, unsigned n, void (*set)(bool on), word flags, int vec)
{
	struct batch b = {name, 0, 0};

	put_code(bytes, n);
	for (int round = 0; round < 6; round++)
		for (unsigned w = 0; w < WAYS; w++) {
			bool on = round & 1;
			int got;

			set(on);
			got = go(w, on ? flags : 0);
			set(false);
			batch_case(&b, got == (on ? vec : VEC_END) && (!on || rt_last.r.ip == (word)m_code),
				   "way %u, round %d: %d at %#lx", w, round, got, (word)rt_last.r.ip);
		}
	batch_end(&b);
}

static void set_ts(bool on)
{
	wr_cr0(on ? rd_cr0() | CR0_TS : rd_cr0() & ~CR0_TS);
}

static void set_tsd(bool on)
{
	wr_cr4(on ? rd_cr4() | CR4_TSD : rd_cr4() & ~CR4_TSD);
}

static void set_nosse(bool on)
{
	wr_cr4(on ? rd_cr4() & ~CR4_OSFXSR : rd_cr4() | CR4_OSFXSR);
}

static void set_am(bool on)
{
	wr_cr0(on ? rd_cr0() | CR0_AM : rd_cr0() & ~CR0_AM);
}

/* ---- two tasks whose vector registers are switched at #NM ---- */
static uint8_t fpu[2][512] __attribute__((aligned(16)));
static int owner, running;
static unsigned switches;

static bool on_nm(struct regs *regs)
{
	if (regs->vec != VEC_NM)
		return false;
	__asm__ volatile("clts");
	if (owner != running) {
		__asm__ volatile("fxsave64 %0" : "=m"(fpu[owner]));
		__asm__ volatile("fxrstor64 %0" ::"m"(fpu[running]));
		owner = running;
	}
	switches++;
	return true;
}

static void lazy_fpu(void)
{
	uint64_t want[2] = {0, 0}, bad = 0;
	unsigned runs = 0;

	put_code("\x66\x48\x0f\x6e\xce\x66\x0f\xd4\xc1\x66\x48\x0f\x7e\xc2",
		 14); /* movq xmm1, rsi; paddq xmm0, xmm1; movq rdx, xmm0 */
	__asm__ volatile("clts; xorps %xmm0, %xmm0; fxsave64 fpu; fxsave64 fpu + 512");
	owner = running = 0;
	rt_hook = on_nm;
	for (int i = 0; i < 200; i++) {
		bool change = i % 3 != 0;

		if (change) {
			running = !running;
			set_ts(true);
			runs++;
		}
		rt_user_regs(&r, ways[i % WAYS]);
		r.bx = (word)m_code;
		r.si = (word)(running ? 1000 : 1);
		want[running] += r.si;
		bad += rt_run(&r) != VEC_END || rt_last.r.dx != want[running];
	}
	rt_hook = NULL;
	set_ts(false);
	check_eq("lazy FPU: sums of each task", bad, 0);
	check_eq("lazy FPU: #NM after each change of tasks", switches, runs);
}

/* ---- the same bytes as 64-bit and as 32-bit code ---- */
static void sizes(void)
{
	struct batch b = {"inc rax is dec eax, inc eax elsewhere", 0, 0};

	put_code("\x48\xff\xc0", 3);
	for (int i = 0; i < 12; i++)
		for (int n = 0; n < 3; n++) {
			rt_user_regs(&r, m_call);
			r.bx = (word)m_code;
			r.ax = 0x10;
			if (i & 1)
				r.cs = SEL_UCODE32;
			batch_case(&b, rt_run(&r) == VEC_END && rt_last.r.ax == (i & 1 ? 0x10 : 0x11), "%d: %d, %#lx",
				   i, rt_last.vec, (word)rt_last.r.ax);
		}
	batch_end(&b);
}

void flat_main(void)
{
	set_nosse(false);
	flips("CR0.TS: movaps", "\x0f\x28\xc1", 3, set_ts, 0, VEC_NM);
	flips("CR0.TS: fld1", "\xd9\xe8\xdd\xd8", 4, set_ts, 0, VEC_NM);
	flips("CR4.OSFXSR: movaps", "\x0f\x28\xc1", 3, set_nosse, 0, VEC_UD);
	flips("CR4.TSD: rdtsc", "\x0f\x31", 2, set_tsd, 0, VEC_GP);
	SKIP_TCG("AC", "no alignment check")
	flips("AC: unaligned load", "\x8b\x07", 2, set_am, FL_AC, VEC_AC);
	lazy_fpu();
	sizes();
}
