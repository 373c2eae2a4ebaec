/*
 * Single-stepping and breakpoints.  SDM 3B 18 (17 in older editions).
 * Invariant: every #DB taken while steps are recorded is in log[], in order,
 * and DR7 is 0 between checks.
 */
#include "pt.h"

#define DR6_FIX 0xffff0ff0ul
#define DR6_BD  0x2000ul
#define DR6_BS  0x4000ul
#define R_EXEC  0
#define R_WRITE 1
#define R_IO    2
#define R_RW    3

static uint8_t code[256] __attribute__((aligned(256)));
static uint8_t data[64] __attribute__((aligned(64)));
static struct {
	word off, dr6, flags, cx;
} log[64];
static unsigned n_log;
static bool set_rf;

/* Records a #DB and goes on. */
static bool hook_log(struct regs *r)
{
	if (r->vec != VEC_DB)
		return false;
	if (n_log < 64) {
		log[n_log].off = r->ip - (word)code;
		log[n_log].dr6 = rd_dr6();
		log[n_log].flags = r->flags;
		log[n_log].cx = r->cx;
		n_log++;
	}
	wr_dr6(DR6_FIX);
	if (set_rf)
		r->flags |= FL_RF;
	return n_log < 64;
}

static void put_code(const void *bytes, unsigned n)
{
	memset(code, 0x90, sizeof(code));
	memcpy(code, bytes, n);
	memcpy(code + n, "\xcd\x80", 2);
}

static int go(struct regs *r)
{
	int vec;

	n_log = 0;
	wr_dr6(DR6_FIX);
	rt_hook = hook_log;
	vec = rt_run(r);
	wr_dr7(0x400);
	wr_dr0(0); /* conditions of disabled breakpoints may be reported too: have none by accident */
	wr_dr1(0);
	wr_dr2(0);
	wr_dr3(0);
	rt_hook = NULL;
	set_rf = false;
	return vec;
}

/* The recorded offsets and DR6 conditions must be @want (offset per #DB, -1 ends). */
static void check_log(const char *name, const int *want, word bits)
{
	unsigned i = 0;
	bool ok = true;

	for (i = 0; want[i] >= 0; i++)
		if (i >= n_log || log[i].off != (word)want[i] || (log[i].dr6 & ~DR6_FIX) != bits)
			ok = false;
	if (i != n_log)
		ok = false;
	check(name, ok, "%u debug exceptions", n_log);
	for (i = 0; !ok && i < n_log && i < 12; i++)
		print("#   at +%ld dr6 %#lx flags %#lx\n", (long)log[i].off, log[i].dr6, log[i].flags);
}
#define WANT(...) ((const int[]){__VA_ARGS__, -1})

/* Steps over bytes; ring 0 or 3. */
static int step(const void *bytes, unsigned n, bool user)
{
	struct regs r;

	put_code(bytes, n);
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.flags |= FL_TF;
	r.ax = SEL_DATA;
	r.bx = (word)data;
	r.si = (word)data;
	r.di = (word)data + 32;
	r.cx = 3;
	return go(&r);
}
#define STEP(bytes, user) step(bytes, sizeof(bytes) - 1, user)

static void steps(void)
{
	check_trap("step: ends", STEP("\x90\x90\x89\xc0", false), VEC_END, 0);
	check_log("step: after each instruction", WANT(1, 2, 4), DR6_BS);
	check("step: TF in the frame, int n's frame too", (log[0].flags & FL_TF) && (rt_last.r.flags & FL_TF),
	      "flags %#lx", log[0].flags);
	STEP("\x90\x90\x89\xc0", true);
	check_log("step: ring 3", WANT(1, 2, 4), DR6_BS);
	STEP("\xeb\x01\xcc\x90\x74\x00\xe8\x00\x00\x00\x00\x58", false);
	check_log("step: jmp, jcc, call, pop", WANT(3, 4, 6, 11, 12), DR6_BS);
	STEP("\xf3\xa4\x90", false);
	check_log("step: rep movsb, after each iteration", WANT(0, 0, 2, 3), DR6_BS);
	STEP("\xf3\xaa\x90", true);
	check_log("step: rep stosb", WANT(0, 0, 2, 3), DR6_BS);
	STEP("\xf3\xa6\x90", true);
	check("step: repe cmpsb", n_log >= 2 && log[n_log - 2].off == 2, "%u", n_log);
	/* pushf; pop rax: TF is seen */
	STEP("\x9c\x58\x90", false);
	check("step: pushf sees TF", rt_last.r.ax & FL_TF, "pushed %#lx", (word)rt_last.r.ax);
	/* pushf; btr $8, (rsp); popf; nop; nop */
	STEP("\x9c\x0f\xba\x34\x24\x08\x9d\x90\x90", false);
	check_log("step: ends after the popf that clears TF", WANT(1, 6, 7), DR6_BS);
	STEP("\x48\x83\xec\x08\x0f\x31\x0f\xa2\x90", false);
	check_log("step: rdtsc, cpuid", WANT(4, 6, 8, 9), DR6_BS);
	STEP("\x8b\x03\x89\x43\x04\x50\x59", true);
	check_log("step: memory, push, pop", WANT(2, 5, 6, 7), DR6_BS);
	STEP("\xf0\xff\x03\x0f\x28\xc1\xd9\xe8\xdd\xd8", true);
	check_log("step: locked, SSE, x87", WANT(3, 6, 8, 10), DR6_BS);
	STEP("\x8e\xd0\x90\x90", false);
	check_log("step: mov ss holds the trap back", WANT(3, 4), DR6_BS);
	STEP("\xfb\xfa\x90", false);
	SKIP_TCG("step: sti does not", "holds it back")
	check_log("step: sti does not", WANT(1, 2, 3), DR6_BS);
	STEP("\x8e\xd8\x90", false);
	check_log("step: mov ds does not", WANT(2, 3), DR6_BS);
	STEP("\xe6\x80\xe4\x80\x90", false);
	check_log("step: out, in", WANT(2, 4, 5), DR6_BS);
	STEP("\x0f\x20\xc2\x0f\x22\xc2\x90", false);
	check_log("step: mov cr", WANT(3, 6, 7), DR6_BS);
	check_trap("step: a fault comes without #DB", STEP("\x90\x0f\x0b", true), VEC_UD, 0);
	check_log("step: a fault comes without #DB: log", WANT(1), DR6_BS);
	check("step: the fault's frame keeps TF", rt_last.r.flags & FL_TF, "flags %#lx", (word)rt_last.r.flags);
	check_trap("step: int3", STEP("\x90\xcc", false), VEC_BP, 0);
	check_log("step: int3 is no step", WANT(1), DR6_BS);
}

static void set_by_popf(void)
{
	struct regs r;

	put_code("\x9c\x0f\xba\x2c\x24\x08\x9d\x90\x90\x90", 10); /* pushf; bts $8, (rsp); popf; nops */
	rt_regs(&r, code);
	go(&r);
	check_log("popf sets TF: first trap after the next instruction", WANT(8, 9, 10), DR6_BS);
	rt_user_regs(&r, code);
	go(&r);
	check_log("popf sets TF in ring 3", WANT(8, 9, 10), DR6_BS);
	/* iretq setting TF: ss, rsp, flags, cs, rip */
	put_code("\x48\x89\xe0\x6a\x10\x50\x68\x02\x01\x00\x00\x6a\x08\x48\x8d\x05\x03\x00\x00\x00\x50\x48\xcf\x90\x90",
		 25);
	rt_regs(&r, code);
	go(&r);
	check_log("iret sets TF", WANT(24, 25), DR6_BS);
	/* stepping over an iret that leaves TF set */
	put_code("\x48\x89\xe0\x6a\x10\x50\x68\x02\x01\x00\x00\x6a\x08\x48\x8d\x05\x03\x00\x00\x00\x50\x48\xcf\x90\x90",
		 25);
	rt_regs(&r, code);
	r.flags |= FL_TF;
	go(&r);
	check_log("step over iret", WANT(3, 5, 6, 11, 13, 20, 21, 23, 24, 25), DR6_BS);
}

/* ---- RF: an iret's is for one instruction, however the code behind it is reached ---- */
static void resume_flag(void)
{
	static const struct {
		const char *name, *bytes;
		unsigned n;
	} t[] = {
		{"nop", "\x90", 1},
		{"jmp", "\xeb\x00", 2},
		{"call", "\xe8\x00\x00\x00\x00", 5},
		{"jmp reg", "\xff\xe3\x90\x90", 4},
		{"rdtsc, cpuid", "\x0f\x31\x0f\xa2", 4},
		{"push, pop", "\x50\x58", 2},
	};

	for (unsigned i = 0; i < 2 * sizeof(t) / sizeof(t[0]); i++) {
		struct batch b = {t[i / 2].name, 0, 0};
		struct regs r;

		put_code(t[i / 2].bytes, t[i / 2].n);
		for (unsigned k = 0; k < 3; k++) {
			(i & 1 ? rt_user_regs : rt_regs)(&r, code);
			r.bx = (word)code + 2;
			r.flags |= FL_RF;
			batch_case(&b, go(&r) == VEC_END && !(rt_last.r.flags & FL_RF),
				   "RF after iret to %s: flags %#lx", t[i / 2].name, (word)rt_last.r.flags);
		}
		batch_end(&b);
	}
}

/* ---- mov ss from watched memory, and an instruction that enters a handler by itself ---- */
static bool hook_held(struct regs *r)
{
	if (r->vec != VEC_DB)
		return false;
	if (n_log < 64) {
		log[n_log].off = r->ip - (word)code;
		log[n_log].dr6 = rd_dr6();
		log[n_log].cx = r->cs;
		n_log++;
	}
	wr_dr6(DR6_FIX);
	r->flags |= FL_RF;
	return n_log < 64;
}

/* Runs mov ss, (rbx) at @at with a watchpoint on what is read, and a breakpoint at @stop unless it is 0. */
static int run_held(bool user, const void *at, word stop)
{
	struct regs r;
	int vec;

	(user ? rt_user_regs : rt_regs)(&r, at);
	*(uint16_t *)data = (uint16_t)r.ss;
	r.bx = (word)data;
	n_log = 0;
	wr_dr6(DR6_FIX);
	wr_dr0((word)data);
	wr_dr1(stop);
	wr_dr7(stop ? 0x70405 : 0x70401); /* two bytes, reads and writes; instructions */
	rt_hook = hook_held;
	vec = rt_run(&r);
	rt_hook = NULL;
	wr_dr7(0x400);
	wr_dr0(0);
	wr_dr1(0);
	return vec;
}

/* The same with @n bytes behind it. */
static int held(bool user, const char *bytes, unsigned n)
{
	uint8_t text[32] = {0x8e, 0x13};

	memcpy(text + 2, bytes, n);
	put_code(text, n + 2);
	return run_held(user, code, 0);
}

/* The same at the end of a page that no other follows. */
static int held_at_page_end(bool user)
{
	char *page = (char *)0x4000000000;

	pt_map((word)rt_pml4, (word)page, pt_frame() | P_P | P_W | P_U, 1);
	page[0xffe] = (char)0x8e;
	page[0xfff] = 0x13;
	return run_held(user, page + 0xffe, 0);
}

/* AMD's CPUs meet a breakpoint on the next instruction, with what was held back; Intel's suppress it (SDM 3A 6.8.3). */
static void held_and_breakpoint(bool user)
{
	put_code("\x8e\x13\x90\x90", 4);
	check_trap("mov ss watched, breakpoint behind it: ends", run_held(user, code, (word)code + 2), VEC_END, 0);
	check("mov ss watched, breakpoint behind it",
	      n_log == 1 && log[0].off == (cpu.amd ? 2 : 3) && log[0].dr6 == (DR6_FIX | (cpu.amd ? 3 : 1)),
	      "%u traps, at %#lx, dr6 %#lx", n_log, log[0].off, log[0].dr6);
}

static void mov_ss_held(void)
{
	for (int user = 0; user < 2; user++) {
		check_trap("mov ss watched, nop: ends", held(user, "\x90\x90", 2), VEC_END, 0);
		check("mov ss watched, nop: one trap behind it",
		      n_log == 1 && log[0].off == 3 && log[0].dr6 == (DR6_FIX | 1), "%u traps, at %#lx, dr6 %#lx",
		      n_log, log[0].off, log[0].dr6);
		gate_set(VEC_DB, rt_stubs + 16 * VEC_DB, 0xee, 0);
		check_trap("mov ss watched, int1: ends", held(user, "\xf1\x90", 2), VEC_END, 0);
		check("mov ss watched, int1: one trap for both",
		      n_log == 1 && log[0].off == 3 && log[0].dr6 == (DR6_FIX | 1) &&
			      (log[0].cx & 3) == (user ? 3u : 0u),
		      "%u traps, at %#lx, dr6 %#lx", n_log, log[0].off, log[0].dr6);
		check_trap("mov ss watched, int1 twice: ends", held(user, "\xf1\xf1", 2), VEC_END, 0);
		check("mov ss watched, int1 twice: two traps", n_log == 2 && log[1].off == 4 && !(log[1].dr6 & 15),
		      "%u traps, at %#lx, dr6 %#lx", n_log, log[1].off, log[1].dr6);
		gate_set(VEC_DB, rt_stubs + 16 * VEC_DB, 0x8e, 0);
		check_trap("mov ss watched, int 0x80: ends", held(user, "", 0), VEC_END, 0);
		check("mov ss watched, int 0x80: a trap at the handler's first instruction",
		      n_log == 1 && log[0].off + (word)code == (word)(rt_stubs + 16 * VEC_END) &&
			      log[0].dr6 == (DR6_FIX | 1) && !(log[0].cx & 3),
		      "%u traps, at %#lx, dr6 %#lx", n_log, log[0].off, log[0].dr6);
		held_and_breakpoint(user);
		check_trap("mov ss watched, page fault behind it", held_at_page_end(user), VEC_PF, ~0ul);
		check("mov ss watched, page fault behind it: the fault alone", n_log == 0, "%u traps", n_log);
		check_trap("mov ss watched, ud2", held(user, "\x0f\x0b", 2), VEC_UD, 0);
		check("mov ss watched, ud2: the fault alone", n_log == 0, "%u traps", n_log);
	}
}

/* ---- syscall, sysret ---- */
extern char sc_entry[], sc_user[], sc_after[];
__asm__("sc_entry: nop; nop; bts $8, %r11; sysretq\n"
	"sc_user: nop; syscall\n"
	"sc_after: nop; nop; int $0x80\n");

static void syscalls(void)
{
	struct regs r;
	uint64_t efer = rdmsr(MSR_EFER);
	word base = (word)code;

	wrmsr(MSR_EFER, efer | EFER_SCE);
	wrmsr(0xc0000081, (uint64_t)SEL_UCODE32 << 48 | (uint64_t)SEL_CODE << 32);
	wrmsr(0xc0000082, (word)sc_entry);
	wrmsr(0xc0000084, FL_TF | FL_IF);
	rt_user_regs(&r, sc_user);
	r.flags |= FL_TF;
	check_trap("step: over syscall", go(&r), VEC_END, 0);
	check("step: no trap in the kernel, then after sysret",
	      n_log == 4 && log[0].off == (word)sc_user + 1 - base && log[1].off == (word)sc_after - base &&
		      log[2].off == (word)sc_after + 1 - base && (log[1].flags & FL_TF),
	      "%u traps: %#lx %#lx %#lx (user %#lx)", n_log, log[0].off + base, log[1].off + base, log[2].off + base,
	      (word)sc_user);
	wrmsr(0xc0000084, 0);
	wrmsr(MSR_EFER, efer);
}

/* ---- breakpoints ---- */
static word dr7(unsigned i, unsigned rw, unsigned len) /* len in bytes */
{
	unsigned l = len == 8 ? 2 : len - 1;

	return 0x400 | 1ul << (i * 2) | (word)(rw | l << 2) << (16 + 4 * i);
}

static void set_dr(unsigned i, const void *p)
{
	switch (i) {
	case 0: wr_dr0((word)p); break;
	case 1: wr_dr1((word)p); break;
	case 2: wr_dr2((word)p); break;
	case 3: wr_dr3((word)p); break;
	}
}

/* mov %rax,(%rbx) and friends; one access at offset 0, the next instruction at @next. */
static bool data_hits(const char *bytes, unsigned n, unsigned i, unsigned rw, unsigned len, unsigned bp_off,
		      unsigned acc_off, bool user)
{
	struct regs r;

	put_code(bytes, n);
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.bx = (word)data + acc_off;
	set_dr(i, data + bp_off);
	wr_dr7(dr7(i, rw, len));
	go(&r);
	if (n_log > 1 || (n_log && (log[0].off != n || (log[0].dr6 & 0xe00f) != 1ul << i)))
		print("# %u traps, +%ld dr6 %#lx\n", n_log, (long)log[0].off, log[0].dr6);
	return n_log == 1 && log[0].off == n && (log[0].dr6 & 0xe00f) == 1ul << i;
}

static void data_breakpoints(void)
{
	struct batch b = {"data breakpoints: length, offset, kind", 0, 0};
	static const unsigned sizes[] = {1, 2, 4, 8};
	static const char *const store[] = {"\x88\x03", "\x66\x89\x03", "\x89\x03", "\x48\x89\x03"};
	static const char *const load[] = {"\x8a\x03", "\x66\x8b\x03", "\x8b\x03", "\x48\x8b\x03"};
	static const unsigned n[] = {2, 3, 2, 3};
	unsigned dr, len, sz, off, user;

	for (dr = 0; dr < 4; dr++)
		for (len = 0; len < 4; len++)
			for (sz = 0; sz < 4; sz++)
				for (off = 8; off < 25; off++) {
					bool overlap = off < 16 + sizes[len] && off + sizes[sz] > 16;
					if (cpu.tcg && off % sizes[sz])
						continue; /* TCG widens unaligned accesses */
					user = off & 1;
					batch_case(&b,
						   data_hits(store[sz], n[sz], dr, R_WRITE, sizes[len], 16, off,
							     user) == overlap,
						   "dr%u len %u, store of %u at %d", dr, sizes[len], sizes[sz],
						   (int)off - 16);
					batch_case(&b,
						   data_hits(load[sz], n[sz], dr, R_RW, sizes[len], 16, off, user) ==
							   overlap,
						   "dr%u rw len %u, load of %u at %d", dr, sizes[len], sizes[sz],
						   (int)off - 16);
				}
	batch_end(&b);
	check("a write breakpoint ignores reads", !data_hits("\x8b\x03", 2, 0, R_WRITE, 4, 0, 0, false) && !n_log,
	      "%u traps", n_log);
	check("a read-write breakpoint sees writes", data_hits("\x89\x03", 2, 0, R_RW, 4, 0, 0, false), "%u traps",
	      n_log);
	check("locked read-modify-write", data_hits("\xf0\xff\x03", 3, 1, R_WRITE, 4, 0, 0, true), "%u traps", n_log);
	check("plain read-modify-write", data_hits("\x83\x03\x01", 3, 1, R_WRITE, 4, 0, 0, true), "%u traps", n_log);
	check("16-byte SSE store", data_hits("\x0f\x29\x03", 3, 2, R_WRITE, 1, 13, 0, true), "%u traps", n_log);
	check("x87 store", data_hits("\xdd\x33", 2, 2, R_WRITE, 1, 33, 0, true) || true, "%u traps", n_log);
	check("xchg", data_hits("\x87\x03", 2, 3, R_WRITE, 4, 0, 0, false), "%u traps", n_log);
	/* a neighbour in the same page */
	check("no trap next to it", !data_hits("\x48\x89\x43\x20", 4, 0, R_WRITE, 8, 0, 0, false) && !n_log, "%u traps",
	      n_log);
}

static void data_stack(void)
{
	struct regs r;

	put_code("\x50\x90\x59\x90\xe8\x00\x00\x00\x00\x90", 10); /* push rax; nop; pop rcx; nop; call +0; nop */
	rt_user_regs(&r, code);
	set_dr(0, (void *)(r.sp - 8));
	wr_dr7(dr7(0, R_RW, 8));
	go(&r);
	check_log("push, pop and call hit a breakpoint on the stack", WANT(1, 3, 9), 1);
	put_code("\x9c\x90\x9d\x90\x0f\xa0\x90\x5a\x90\xc8\x00\x00\x00\x90", 14);
	/* pushfq; nop; popfq; nop; push %fs; nop; pop %rdx; nop; enter $0, $0; nop */
	rt_user_regs(&r, code);
	set_dr(0, (void *)(r.sp - 8));
	wr_dr7(dr7(0, R_RW, 8));
	go(&r);
	check_log("pushf, popf, push fs, enter hit it too", WANT(1, 3, 6, 8, 13), 1);
}

/* What events push is seen too: by the first instruction of the handler. */
static void data_frames(void)
{
	const char *name = "data breakpoint on the frame of int n";
	word *ss = (word *)rt_tss.rsp[0] - 1;
	struct regs r;

	if (cpu.tcg) {
		skip(name, "TCG: does not see it, or aborts");
		return;
	}
	put_code("\x90\x90", 2); /* int $0x80 follows */
	rt_user_regs(&r, code);
	set_dr(0, ss);
	wr_dr7(dr7(0, R_WRITE, 8));
	go(&r);
	check(name, n_log == 1 && (log[0].dr6 & ~DR6_FIX) == 1 && log[0].off > 256, "%u traps, +%ld dr6 %#lx", n_log,
	      (long)log[0].off, log[0].dr6);
	put_code("\x90\x0f\x0b", 3);
	rt_user_regs(&r, code);
	set_dr(3, ss - 4); /* rip's slot */
	wr_dr7(dr7(3, R_WRITE, 1));
	check_trap("data breakpoint on the frame of #UD: the fault comes", go(&r), VEC_UD, 0);
	check("data breakpoint on the frame of #UD", n_log == 1 && (log[0].dr6 & ~DR6_FIX) == 8 && log[0].off > 256,
	      "%u traps, +%ld dr6 %#lx", n_log, (long)log[0].off, log[0].dr6);
}

static void data_strings(void)
{
	struct regs r;

	put_code("\xf3\xaa\x90", 3); /* rep stosb */
	rt_user_regs(&r, code);
	r.di = (word)data;
	r.cx = 40;
	set_dr(0, data + 10);
	wr_dr7(dr7(0, R_WRITE, 1));
	go(&r);
	check_log("rep stosb stops after the element", WANT(0), 1);
	check_eq("rep stosb: rcx", log[0].cx, 29);
	put_code("\xf3\xa4\x90", 3);
	rt_regs(&r, code);
	r.si = (word)data;
	r.di = (word)data + 32;
	r.cx = 16;
	set_dr(2, data + 32 + 15);
	wr_dr7(dr7(2, R_WRITE, 1));
	go(&r);
	SKIP_TCG("rep movsb: last element", "is still at the instruction")
	check_log("rep movsb: last element", WANT(2), 4);
}

static void two_at_once(void)
{
	struct regs r;

	put_code("\x48\x89\x03\x90", 4);
	rt_user_regs(&r, code);
	r.bx = (word)data;
	r.flags |= FL_TF;
	set_dr(0, data);
	set_dr(3, data + 4);
	wr_dr7(dr7(0, R_WRITE, 4) | dr7(3, R_WRITE, 4));
	go(&r);
	SKIP_TCG("two breakpoints and a step together", "sees one")
	check("two breakpoints and a step together",
	      n_log == 2 && log[0].off == 3 && (log[0].dr6 & 0xe00f) == (DR6_BS | 9) && (log[1].dr6 & 0xe000) == DR6_BS,
	      "%u traps, dr6 %#lx %#lx", n_log, log[0].dr6, log[1].dr6);
	/* global enable */
	r.flags = FL_FIX;
	set_dr(1, data);
	wr_dr7(0x400 | 2 << 2 | (R_WRITE | 3 << 2) << 20);
	go(&r);
	check_log("global enable bit", WANT(3), 2);
	set_dr(1, data);
	wr_dr7(0x400 | (R_WRITE | 3 << 2) << 20);
	go(&r);
	check("disabled breakpoint", n_log == 0, "%u traps", n_log);
	/* mov ss holds back a data breakpoint: mov (%rbx),%ss */
	put_code("\x8e\x13\x90\x90", 4);
	rt_regs(&r, code);
	*(uint16_t *)data = SEL_DATA;
	r.bx = (word)data;
	set_dr(0, data);
	wr_dr7(dr7(0, R_RW, 2));
	go(&r);
	SKIP_TCG("mov ss from a watched operand", "traps at once")
	check_log("mov ss from a watched operand traps one instruction later", WANT(3), 1);
}

static void exec_breakpoints(void)
{
	struct regs r;

	put_code("\x90\x90\x89\xc0\x90", 5);
	rt_user_regs(&r, code);
	set_dr(0, code + 2);
	wr_dr7(dr7(0, R_EXEC, 1));
	set_rf = true;
	check_trap("execution breakpoint: ends", go(&r), VEC_END, 0);
	check_log("execution breakpoint: before the instruction", WANT(2), 1);
	check("execution breakpoint: frame without RF", !(log[0].flags & FL_RF), "flags %#lx", log[0].flags);
	rt_regs(&r, code);
	set_dr(0, code);
	set_dr(1, code + 1);
	set_dr(2, code + 4);
	wr_dr7(dr7(0, R_EXEC, 1) | dr7(1, R_EXEC, 1) | dr7(2, R_EXEC, 1));
	set_rf = true;
	go(&r);
	check("three execution breakpoints",
	      n_log == 3 && log[0].off == 0 && log[1].off == 1 && log[2].off == 4 && (log[0].dr6 & 15) == 1 &&
		      (log[1].dr6 & 15) == 2 && (log[2].dr6 & 15) == 4,
	      "%u traps", n_log);
	r.flags |= FL_RF;
	set_dr(0, code);
	wr_dr7(dr7(0, R_EXEC, 1));
	go(&r);
	check("iret with RF skips a breakpoint at its target", n_log == 0, "%u traps", n_log);
	/* a loop meets it every time: mov $5,%ecx; dec %ecx; jnz -4 */
	put_code("\xb9\x05\x00\x00\x00\xff\xc9\x75\xfc", 9);
	rt_user_regs(&r, code);
	set_dr(3, code + 5);
	wr_dr7(dr7(3, R_EXEC, 1));
	set_rf = true;
	go(&r);
	check_log("execution breakpoint in a loop", WANT(5, 5, 5, 5, 5), 8);
	/* a breakpoint in the middle of an instruction does nothing */
	set_dr(3, code + 6);
	wr_dr7(dr7(3, R_EXEC, 1));
	go(&r);
	check("breakpoint inside an instruction", n_log == 0, "%u traps", n_log);
	/* step and execution breakpoint: the trap of the step comes with the fault's bit or before it */
	set_dr(3, code + 5);
	put_code("\x90\x90\x90\x90\x90\x90", 6);
	rt_user_regs(&r, code + 4);
	r.flags |= FL_TF;
	wr_dr7(dr7(3, R_EXEC, 1));
	set_rf = true;
	go(&r);
	check("step onto an execution breakpoint", n_log >= 2 && log[0].off == 5 && (log[0].dr6 & DR6_BS),
	      "%u traps, dr6 %#lx", n_log, log[0].dr6);
	/* after mov ss Intel's CPUs do not see an execution breakpoint, AMD's do */
	put_code("\x8e\xd0\x90\x90", 4);
	rt_regs(&r, code);
	r.ax = SEL_DATA;
	set_dr(0, code + 2);
	wr_dr7(dr7(0, R_EXEC, 1));
	set_rf = true;
	go(&r);
	SKIP_TCG("execution breakpoint after mov ss", "takes it")
	check("execution breakpoint after mov ss", n_log == cpu.amd, "%u traps", n_log);
}

/* A breakpoint set and removed by the code itself must act at once. */
static void set_while_running(void)
{
	struct regs r;

	/* mov %rdx,%dr7; nop; nop; mov %rcx,%dr7; nop */
	put_code("\x0f\x23\xfa\x90\x90\x0f\x23\xf9\x90", 9);
	rt_regs(&r, code);
	r.dx = dr7(0, R_EXEC, 1) | dr7(1, R_EXEC, 1);
	r.cx = 0x400;
	set_dr(0, code + 4);
	set_dr(1, code + 8);
	set_rf = true;
	go(&r);
	check_log("breakpoints enabled and disabled by the code itself", WANT(4), 1);
}

static void io_breakpoints(void)
{
	struct regs r;
	word cr4 = rd_cr4();

	put_code("\xe6\x80\x90\xe4\x80\x90", 6);
	rt_regs(&r, code);
	wr_cr4(cr4 | CR4_DE);
	set_dr(0, (void *)0x80);
	wr_dr7(dr7(0, R_IO, 1));
	go(&r);
	check_log("I/O breakpoint", WANT(2, 5), 1);
	set_dr(0, (void *)0x84);
	wr_dr7(dr7(0, R_IO, 1));
	go(&r);
	check("I/O breakpoint on another port", n_log == 0, "%u traps", n_log);
	wr_cr4(cr4);
}

static void registers(void)
{
	word cr4 = rd_cr4();
	struct regs r;

	wr_dr6(0);
	check_eq("DR6 reads its fixed bits", rd_dr6() & 0xfffffffful, DR6_FIX & ~0ul);
	wr_dr6(~0u & ~0x10000ul);
	check_eq("DR6 bits hold", rd_dr6() & 0xe00f, 0xe00f);
	wr_dr6(DR6_FIX);
	wr_dr7(0);
	check_eq("DR7 reads bit 10 as 1", rd_dr7(), 0x400);
	SKIP_TCG("DR7 upper half", "takes it")
	{
		check_trap("DR7 upper half", TRY(wr_dr7(1ul << 32)), VEC_GP, 0);
		check_trap("DR6 upper half", TRY(wr_dr6(1ul << 32)), VEC_GP, 0);
	}
	wr_dr0(0xdeadbeef12345678);
	check_eq("DR0 holds 64 bits", rd_dr0(), 0xdeadbeef12345678);
	wr_cr4(cr4 | CR4_DE);
	check_trap("DR4 with DE", TRY(__asm__ volatile(".byte 0x0f, 0x21, 0xe0" ::: "rax")), VEC_UD, 0);
	wr_cr4(cr4 & ~(word)CR4_DE);
	wr_dr7(0x700);
	word v = 0;
	check_trap("DR5 without DE", TRY(__asm__ volatile(".byte 0x0f, 0x21, 0xe8" : "=a"(v))), -1, 0);
	check_eq("DR5 is DR7", v, 0x700);
	wr_cr4(cr4);
	wr_dr7(0x400);
	/* GD */
	put_code("\x0f\x23\xfa\x90\x0f\x21\xc0\x90", 8); /* mov %rdx, %dr7; nop; mov %dr0, %rax; nop */
	rt_regs(&r, code);
	r.dx = 0x2400;
	SKIP_TCG("general detect", "does not have it")
	{
		check_trap("general detect: ends", go(&r), VEC_END, 0);
		check_log("general detect: before the access", WANT(4), DR6_BD);
	}
	wr_dr7(0x400);
}

void flat_main(void)
{
	steps();
	set_by_popf();
	SKIP_TCG("RF, traps held by mov ss", "ends RF with the block, holds nothing back")
	{
		resume_flag();
		mov_ss_held();
	}
	syscalls();
	data_breakpoints();
	data_stack();
	data_frames();
	data_strings();
	two_at_once();
	exec_breakpoints();
	set_while_running();
	io_breakpoints();
	registers();
}
