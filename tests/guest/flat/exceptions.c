/*
 * Exceptions in long mode: vectors, error codes, stacks, nesting, what becomes
 * a double fault.  SDM 3A chapter 6.
 * Invariant: each check leaves the IDT, TSS and control registers as it found them.
 */
#include "pt.h"

#define HOLE     0x400000000000ull /* never mapped */
#define NONCANON 0x8000000000000000ull

static uint8_t code[4096] __attribute__((aligned(4096)));
static word seen_flags, seen_sp;

static word top(const uint8_t *stack, size_t size)
{
	return (word)stack + size;
}

/* Runs bytes in ring 0 or 3; the vector. */
static int run_bytes(const void *bytes, size_t n, bool user)
{
	struct regs r;

	memcpy(code, bytes, n);
	memcpy(code + n, "\xcd\x80", 2);
	if (user)
		rt_user_regs(&r, code);
	else
		rt_regs(&r, code);
	r.ax = (word)rt_user_stack;
	r.dx = 1;
	return rt_run(&r);
}
#define RUN(bytes, user) run_bytes(bytes, sizeof(bytes) - 1, user)

/* The error code naming a gate (SDM 3A 6.13); TCG counts in 16 bytes in long mode. */
static word idt_err(unsigned n, unsigned ext)
{
	return n * (cpu.tcg ? 16 : 8) + 2 + ext;
}

/* ---- software interrupts ---- */
static void all_vectors(void)
{
	struct batch b = {"int n for every vector, ring 0", 0, 0}, u = {"int n from ring 3 needs the gate's DPL", 0, 0};
	unsigned n;

	for (n = 0; n < 256; n++) {
		uint8_t bytes[2] = {0xcd, (uint8_t)n};
		bool has_err = n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21 || n == 29 || n == 30;
		int vec;
		if (!has_err) { /* the stub would take the frame for one with an error code */
			vec = run_bytes(bytes, 2, false);
			batch_case(&b, vec == (int)n && rt_last.r.ip == (word)code + 2, "int %u: vector %d ip+%d", n,
				   vec, (int)(rt_last.r.ip - (word)code));
		}
		if (n == VEC_END)
			continue;
		vec = run_bytes(bytes, 2, true);
		batch_case(&u, vec == VEC_GP && rt_last.err == idt_err(n, 0) && rt_last.r.ip == (word)code,
			   "int %u: vector %d error %#lx", n, vec, rt_last.err);
	}
	batch_end(&b);
	batch_end(&u);
}

extern char raw_handler[];
uint64_t raw_frame[6];
__asm__("raw_handler: movq (%rsp), %rax; movq %rax, raw_frame; movq 8(%rsp), %rax; movq %rax, raw_frame + 8; iretq");

static void int_no_error(void)
{
	word next;

	gate_set(VEC_GP, raw_handler, 0x8e, 0);
	__asm__ volatile("leaq 1f(%%rip), %0; int $13; 1:" : "=r"(next)::"rax", "memory");
	gate_set(VEC_GP, rt_stubs + 16 * VEC_GP, 0x8e, 0);
	check("int 13 pushes no error code", raw_frame[0] == next && raw_frame[1] == SEL_CODE, "top %#lx %#lx",
	      raw_frame[0], raw_frame[1]);
}

static void int3_and_friends(void)
{
	gate_set(VEC_BP, rt_stubs + 16 * VEC_BP, 0xee, 0);
	check_trap("int3 from ring 3", RUN("\xcc", true), VEC_BP, 0);
	check_eq("int3: ip is the next instruction's", rt_last.r.ip, (word)code + 1);
	check_trap("int 3 (two bytes) from ring 3", RUN("\xcd\x03", true), VEC_BP, 0);
	check_eq("int 3: ip is the next instruction's", rt_last.r.ip, (word)code + 2);
	gate_set(VEC_BP, rt_stubs + 16 * VEC_BP, 0x8e, 0);
	check_trap("int3 from ring 3, gate DPL 0", RUN("\xcc", true), VEC_GP, idt_err(3, 0));
	SKIP_TCG("int1", "does not know it")
	{
		check_trap("int1 from ring 3 ignores the gate's DPL", RUN("\xf1", true), VEC_DB, 0);
		check_eq("int1: ip is the next instruction's", rt_last.r.ip, (word)code + 1);
	}
	check_trap("into is no instruction here", RUN("\xce", false), VEC_UD, 0);
}

/* ---- faults ---- */
static void divide(void)
{
	struct batch b = {"divide errors", 0, 0};
	static const struct {
		const char *bytes;
		unsigned n;
	} t[] = {{"\x31\xc9\xf6\xf1", 4},
		 {"\x31\xc9\x66\xf7\xf1", 5},
		 {"\x31\xc9\xf7\xf1", 4},
		 {"\x31\xc9\x48\xf7\xf1", 5},
		 {"\x31\xc9\x48\xf7\xf9", 5},
		 {"\xb9\x01\x00\x00\x00\xba\x01\x00\x00\x00\xf7\xf1", 12},
		 {"\x48\xb8\x00\x00\x00\x00\x00\x00\x00\x80\x48\x99\x48\xc7\xc1\xff\xff\xff\xff\x48\xf7\xf9", 22},
		 {"\xb8\x00\x00\x00\x80\x99\xb9\xff\xff\xff\xff\xf7\xf9", 13},
		 {"\x66\xb8\x80\xff\xb1\xff\xf6\xf9", 8}};
	unsigned i, ring;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		for (ring = 0; ring < 2; ring++) {
			int vec = run_bytes(t[i].bytes, t[i].n, ring);
			/* the divide is the last instruction: 2 bytes, or 3 with a prefix */
			unsigned len = t[i].bytes[t[i].n - 3] == 0x48 || t[i].bytes[t[i].n - 3] == 0x66 ? 3 : 2;
			batch_case(&b, vec == VEC_DE && rt_last.r.ip == (word)code + t[i].n - len,
				   "case %u: vector %d ip+%d", i, vec, (int)(rt_last.r.ip - (word)code));
		}
	batch_end(&b);
}

struct bytes {
	const char *bytes;
	unsigned n;
};

static const struct bytes undef[] = {
	{"\x0f\x0b", 2},
	{"\x0f\xb9\xc0", 3},
	{"\x06", 1},
	{"\x07", 1},
	{"\x0e", 1},
	{"\x16", 1},
	{"\x17", 1},
	{"\x1e", 1},
	{"\x1f", 1},
	{"\x27", 1},
	{"\x2f", 1},
	{"\x37", 1},
	{"\x3f", 1},
	{"\x60", 1},
	{"\x61", 1},
	{"\x82\xc0\x01", 3},
	{"\x9a", 1},
	{"\xd4\x0a", 2},
	{"\xd5\x0a", 2},
	{"\xd6", 1},
	{"\xea", 1},
	{"\xce", 1},
	{"\xf0\x90", 2},
	{"\xf0\x01\xc0", 3},
	{"\xf0\x39\x00", 3},
	{"\x8d\xc0", 2},
	{"\x8e\xc8", 2},
	{"\x8e\xf0", 2},
	{"\x8c\xf0", 2},
	{"\x0f\x24\xc0", 3},
	{"\x0f\x26\xc0", 3},
	{"\x0f\xc7\xc8", 3},
	{"\xfe\xd0", 2},
	{"\x0f\x0a", 2},
	{"\x0f\x04", 2},
	{"\x0f\x0c", 2},
	{"\x0f\x36", 2},
	{"\x0f\xba\xc0\x01", 4},
	{"\x0f\x01\xd0", 3} /* xgetbv, OSXSAVE off */,
	{"\xc5\xf8\x77", 3} /* vzeroupper, OSXSAVE off */,
	{"\xff\xf8", 2},
};
/* TCG takes these for something, some of them for a jump */
static const struct bytes undef_strict[] = {
	{"\xf0\x8b\x00", 3},     {"\xf0\x89\x00", 3},     {"\xf0\x0f\xa3\x00", 4},
	{"\xf0\xc3", 2},         {"\xc6\xc8\x00", 3},     {"\xc7\xc8\x00\x00\x00\x00", 6},
	{"\x8f\xc8", 2},         {"\x66\xc5\xf8\x77", 4}, {"\xf0\xc5\xf8\x77", 4},
	{"\x48\xc5\xf8\x77", 4}, {"\xff\xd8", 2},         {"\xff\xe8", 2},
	{"\x0f\xff\xc0", 3},     {"\xf0\xeb\x00", 3},     {"\xf0\x50", 2},
	{"\xf0\x0f\x05", 3},     {"\xf0\xcd\x80", 3},     {"\xf0\xa4", 2},
	{"\xf0\xfa", 2},
};
static const struct bytes undef_cr[] = {
	{"\x0f\x20\xc8", 3}, {"\x0f\x20\xe8", 3}, {"\x0f\x22\xc8", 3}, {"\x0f\x22\xf0", 3}};

static void undefined_set(const char *name, const struct bytes *t, unsigned n, unsigned rings)
{
	struct batch b = {name, 0, 0};
	unsigned i, ring;

	for (i = 0; i < n; i++)
		for (ring = 0; ring < rings; ring++) {
			int vec = run_bytes(t[i].bytes, t[i].n, ring);
			batch_case(&b, vec == VEC_UD && rt_last.r.ip == (word)code,
				   "%x %x %x ring %u: vector %d error %#lx ip+%d", (uint8_t)t[i].bytes[0],
				   (uint8_t)t[i].bytes[1], t[i].n > 2 ? (uint8_t)t[i].bytes[2] : 0, ring * 3, vec,
				   rt_last.err, (int)(rt_last.r.ip - (word)code));
		}
	batch_end(&b);
}

static void undefined(void)
{
	undefined_set("undefined opcodes", undef, sizeof(undef) / sizeof(undef[0]), 2);
	undefined_set("control registers that are not there", undef_cr, sizeof(undef_cr) / sizeof(undef_cr[0]), 1);
	SKIP_TCG("undefined forms of known opcodes", "takes them")
	undefined_set("undefined forms of known opcodes", undef_strict, sizeof(undef_strict) / sizeof(undef_strict[0]),
		      2);
}

static void privileged(void)
{
	struct batch b = {"privileged instructions in ring 3", 0, 0};
	static const struct {
		const char *bytes;
		unsigned n;
	} t[] = {{"\xf4", 1},         {"\xfa", 1},
		 {"\xfb", 1},         {"\xe4\x80", 2},
		 {"\xe6\x80", 2},     {"\xec", 1},
		 {"\xee", 1},         {"\x6c", 1},
		 {"\x6e", 1},         {"\xf3\x6e", 2},
		 {"\x0f\x20\xc1", 3}, {"\x0f\x22\xc1", 3},
		 {"\x0f\x20\xd1", 3}, {"\x44\x0f\x20\xc1", 4},
		 {"\x0f\x21\xf9", 3}, {"\x0f\x23\xf9", 3},
		 {"\x0f\x01\x10", 3}, {"\x0f\x01\x18", 3},
		 {"\x0f\x01\x30", 3}, {"\x0f\x01\xf0", 3},
		 {"\x0f\x06", 2},     {"\x0f\x01\x38", 3},
		 {"\x0f\x30", 2},     {"\x0f\x32", 2},
		 {"\x0f\x09", 2},     {"\x0f\x08", 2},
		 {"\x0f\x01\xf8", 3}, {"\x0f\x00\xd8", 3},
		 {"\x0f\x00\xd0", 3}, {"\x48\x0f\x07", 3},
		 {"\x0f\x35", 2}};
	unsigned i;
	uint64_t efer = rdmsr(MSR_EFER);

	wrmsr(MSR_EFER, efer | EFER_SCE);
	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		int vec = run_bytes(t[i].bytes, t[i].n, true);
		bool amd_ud = cpu.amd && !memcmp(t[i].bytes, "\x0f\x35", 2); /* sysexit is #UD in AMD's long mode */
		batch_case(&b,
			   (vec == VEC_GP || (amd_ud && vec == VEC_UD)) && rt_last.err == 0 &&
				   rt_last.r.ip == (word)code,
			   "%x %x: vector %d error %#lx ip+%d", (uint8_t)t[i].bytes[0], (uint8_t)t[i].bytes[1], vec,
			   rt_last.err, (int)(rt_last.r.ip - (word)code));
	}
	wrmsr(MSR_EFER, efer);
	batch_end(&b);
}

static void instruction_length(void)
{
	uint8_t bytes[20];

	memset(bytes, 0x66, sizeof(bytes));
	bytes[14] = 0x90;
	check_trap("15 bytes are an instruction", run_bytes(bytes, 15, false), VEC_END, 0);
	bytes[14] = 0x66;
	bytes[15] = 0x90;
	check_trap("16 bytes are not", run_bytes(bytes, 16, false), VEC_GP, 0);
	check_eq("16 bytes: ip", rt_last.r.ip, (word)code);
}

/* ---- selectors ---- */
#define S1 0x60 /* free descriptors */
#define S2 0x68

static int load_ds(unsigned sel, bool user)
{
	struct regs r;

	memcpy(code, "\x8e\xd9\xcd\x80", 4); /* mov %ecx, %ds; int 0x80 */
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.cx = sel;
	return rt_run(&r);
}

static int load_ss(unsigned sel, bool user)
{
	struct regs r;

	memcpy(code, "\x8e\xd1\xcd\x80", 4); /* mov %ecx, %ss; int 0x80 */
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.cx = sel;
	return rt_run(&r);
}

static void selectors(void)
{
	uint64_t *d = &rt_gdt[S1 / 8];

	check_trap("ds: beyond the GDT", load_ds(0x1000, false), VEC_GP, 0x1000);
	check_trap("ds: beyond the LDT", load_ds(0x1004, false), VEC_GP, 0x1004);
	check_trap("ds: null is allowed", load_ds(3, true), VEC_END, 0);
	*d = seg_desc(0, 0xfffff, 0x98, 0xa); /* execute-only code */
	check_trap("ds: execute-only code", load_ds(S1, false), VEC_GP, S1);
	*d = seg_desc(0, 0xfffff, 0x89, 0); /* a TSS */
	check_trap("ds: system segment", load_ds(S1 | 3, true), VEC_GP, S1);
	*d = seg_desc(0, 0xfffff, 0x92, 0xc);
	check_trap("ds: DPL 0 from ring 3", load_ds(S1 | 3, true), VEC_GP, S1);
	check_trap("ds: DPL 0, RPL 3 from ring 0", load_ds(S1 | 3, false), VEC_GP, S1);
	check_trap("ds: DPL 0 from ring 0", load_ds(S1, false), VEC_END, 0);
	check("ds: accessed bit set", *d >> 40 & 1, "descriptor %#lx", *d);
	*d = seg_desc(0, 0xfffff, 0x12, 0xc);
	check_trap("ds: not present", load_ds(S1, false), VEC_NP, S1);
	check_trap("ss: not present", load_ss(S1, false), VEC_SS, S1);
	*d = seg_desc(0, 0xfffff, 0x90, 0xc);
	check_trap("ss: read only", load_ss(S1, false), VEC_GP, S1);
	*d = seg_desc(0, 0xfffff, 0xf2, 0xc);
	check_trap("ss: DPL 3 in ring 0", load_ss(S1, false), VEC_GP, S1);
	check_trap("ss: RPL 0 in ring 3", load_ss(S1, true), VEC_GP, S1);
	check_trap("ss: null in ring 3", load_ss(0, true), VEC_GP, 0);
	SKIP_TCG("ss: null with RPL 3 in ring 0", "takes it")
	check_trap("ss: null with RPL 3 in ring 0", load_ss(3, false), VEC_GP, 0);
	check_trap("ss: null in ring 0 is allowed", load_ss(0, false), VEC_END, 0);
	check_trap("ltr: of a data segment", TRY(__asm__ volatile("ltr %w0" ::"r"(SEL_DATA))), VEC_GP, SEL_DATA);
	check_trap("ltr: busy", TRY(__asm__ volatile("ltr %w0" ::"r"(SEL_TSS))), VEC_GP, SEL_TSS);
	SKIP_TCG("ltr: null", "takes it")
	check_trap("ltr: null", TRY(__asm__ volatile("ltr %w0" ::"r"(0))), VEC_GP, 0);
	check_trap("lldt: of a data segment", TRY(__asm__ volatile("lldt %w0" ::"r"(SEL_DATA))), VEC_GP, SEL_DATA);
	rt_gdt[S1 / 8] = seg_desc(0, 0x67, 0x09, 0);
	rt_gdt[S2 / 8] = 0;
	check_trap("ltr: not present", TRY(__asm__ volatile("ltr %w0" ::"r"(S1))), VEC_NP, S1);
	*d = 0;
}

/* ---- #SS and non-canonical addresses ---- */
static void stack_faults(void)
{
	struct regs r;

	memcpy(code, "\x50\xcd\x80", 3); /* push %rax */
	rt_user_regs(&r, code);
	r.sp = NONCANON;
	check_trap("push to a non-canonical address", rt_run(&r), cpu.tcg ? VEC_GP : VEC_SS, 0); /* TCG: always #GP */
	check_eq("push: rsp unchanged", rt_last.r.sp, NONCANON);
	memcpy(code, "\x48\x8b\x45\x00\xcd\x80", 6); /* mov (%rbp), %rax */
	rt_user_regs(&r, code);
	r.bp = NONCANON;
	check_trap("rbp-based non-canonical read", rt_run(&r), cpu.tcg ? VEC_GP : VEC_SS, 0);
	memcpy(code, "\x48\x8b\x01\xcd\x80", 5); /* mov (%rcx), %rax */
	r.cx = NONCANON;
	check_trap("rcx-based non-canonical read", rt_run(&r), VEC_GP, 0);
	memcpy(code, "\x64\x48\x8b\x45\x00\xcd\x80", 7); /* mov fs:(%rbp), %rax */
	check_trap("rbp-based with fs", rt_run(&r), VEC_GP, 0);
	memcpy(code, "\xff\xe1", 2); /* jmp *%rcx */
	check_trap("jump to a non-canonical address", rt_run(&r), VEC_GP, 0);
	memcpy(code, "\xc3", 1);
	rt_user_regs(&r, code);
	*(uint64_t *)r.sp = NONCANON;
	check_trap("return to a non-canonical address", rt_run(&r), VEC_GP, 0);
	memcpy(code, "\xff\xd1", 2); /* call *%rcx with a bad stack */
	rt_user_regs(&r, code);
	r.sp = HOLE + 8;
	r.cx = (word)code + 16;
	check_trap("call with an unmapped stack", rt_run(&r), VEC_PF, 6);
	check("call: ip and rsp as before it",
	      rt_last.r.ip == (word)code && rt_last.r.sp == HOLE + 8 && rt_last.cr2 == HOLE, "ip %#lx sp %#lx cr2 %#lx",
	      rt_last.r.ip, rt_last.r.sp, rt_last.cr2);
	memcpy(code, "\x8f\x01", 2); /* pop (%rcx) to an unmapped page */
	rt_user_regs(&r, code);
	r.cx = HOLE;
	check_trap("pop to unmapped memory", rt_run(&r), VEC_PF, 6);
	check_eq("pop: rsp unchanged", rt_last.r.sp, r.sp);
	memcpy(code, "\xff\x31", 2); /* push (%rcx) */
	check_trap("push from unmapped memory", rt_run(&r), VEC_PF, 4);
	check_eq("push: rsp unchanged by its source's fault", rt_last.r.sp, r.sp);
}

/* ---- stacks and frames ---- */
static bool hook_flags(struct regs *r)
{
	seen_flags = rd_flags();
	seen_sp = (word)r;
	return false;
}

static void stacks(void)
{
	struct regs r;

	memcpy(code, "\xcd\x40\xcd\x80", 4);
	rt_regs(&r, code);
	check_trap("ring 0: same stack", rt_run(&r), 0x40, 0);
	check_eq("ring 0: frame below rsp", rt_last.handler_sp, r.sp - sizeof(struct regs));
	r.sp -= 13;
	rt_run(&r);
	check_eq("ring 0: rsp aligned for the frame", rt_last.handler_sp, (r.sp & ~15ul) - sizeof(struct regs));
	check_eq("ring 0: old rsp saved", rt_last.r.sp, r.sp);
	check_eq("ring 0: old ss saved", rt_last.r.ss, SEL_DATA);
	rt_user_regs(&r, code);
	r.sp -= 5;
	gate_set(0x40, rt_stubs + 16 * 0x40, 0xee, 0);
	check_trap("ring 3: rsp0", rt_run(&r), 0x40, 0);
	check_eq("ring 3: frame on rsp0", rt_last.handler_sp, top(rt_stack0, sizeof(rt_stack0)) - sizeof(struct regs));
	check("ring 3: frame's contents",
	      rt_last.r.sp == r.sp && rt_last.r.ss == SEL_UDATA && rt_last.r.cs == SEL_UCODE, "sp %#lx ss %#lx cs %#lx",
	      rt_last.r.sp, rt_last.r.ss, rt_last.r.cs);
	rt_idt[0x40].ist = 3;
	rt_run(&r);
	check_eq("ring 3: IST", rt_last.handler_sp, top(rt_ist_stack[2], 4096) - sizeof(struct regs));
	rt_regs(&r, code);
	rt_run(&r);
	check_eq("ring 0: IST", rt_last.handler_sp, top(rt_ist_stack[2], 4096) - sizeof(struct regs));
	check_eq("ring 0: IST saves the old rsp", rt_last.r.sp, r.sp);
	rt_idt[0x40].ist = 0;
	gate_set(0x40, rt_stubs + 16 * 0x40, 0x8e, 0);
	rt_tss.rsp[0] -= 24;
	rt_user_regs(&r, code + 2);
	rt_run(&r);
	check_eq("ring 3: odd rsp0 is aligned", rt_last.handler_sp,
		 ((top(rt_stack0, sizeof(rt_stack0)) - 24) & ~15ul) - sizeof(struct regs));
	rt_tss.rsp[0] += 24;
}

static void frame_flags(void)
{
	struct regs r;

	memcpy(code, "\xcd\x40\xcd\x80", 4);
	rt_regs(&r, code);
	r.flags |= FL_IF | FL_NT | FL_AC | FL_DF | FL_CF | FL_RF | FL_ID;
	rt_hook = hook_flags;
	rt_run(&r);
	check_eq("interrupt gate: flags in the frame", rt_last.r.flags & ~(word)FL_RF,
		 FL_FIX | FL_IF | FL_NT | FL_AC | FL_DF | FL_CF | FL_ID);
	check_eq("interrupt gate: flags in the handler", seen_flags & (FL_IF | FL_NT | FL_TF | FL_RF | FL_AC | FL_ID),
		 FL_AC | FL_ID);
	gate_set(0x40, rt_stubs + 16 * 0x40, 0x8f, 0);
	rt_run(&r);
	check_eq("trap gate: flags in the handler", seen_flags & (FL_IF | FL_NT | FL_TF | FL_RF | FL_AC),
		 FL_IF | FL_AC);
	gate_set(0x40, rt_stubs + 16 * 0x40, 0x8e, 0);
	rt_hook = NULL;
	cli();
	SKIP_TCG("a fault's frame has RF", "does not set it")
	{
		(void)RUN("\x0f\x0b", true);
		check("a fault's frame has RF", rt_last.r.flags & FL_RF, "flags %#lx", rt_last.r.flags);
	}
	(void)RUN("\xcd\x80", true);
	check("a software interrupt's frame has no RF", !(rt_last.r.flags & FL_RF), "flags %#lx", rt_last.r.flags);
}

static unsigned nest;
static bool hook_nest(struct regs *r)
{
	if (r->vec == VEC_UD && nest < 5) {
		nest++;
		__asm__ volatile("ud2");
		return false;
	}
	if (r->vec == VEC_UD) {
		r->ip += 2;
		return true;
	}
	return false;
}

static void nested(void)
{
	nest = 0;
	rt_hook = hook_nest;
	check_trap("nested faults end with the outer frames intact", RUN("\x0f\x0b", true), VEC_UD, 0);
	check("nested faults: depth, ring of the last", nest == 5 && (rt_last.r.cs & 3) == 0, "depth %u cs %#lx", nest,
	      (word)rt_last.r.cs);
	rt_hook = NULL;
}

/* ---- gates ---- */
static void bad_gates(void)
{
	struct gate save = rt_idt[0x60];
	static const struct {
		const char *name;
		unsigned type, sel;
		int vec;
		word err;
	} t[] = {{"gate not present", 0x0e, SEL_CODE, VEC_NP, ~0ul},
		 {"gate is a 16-bit gate", 0x86, SEL_CODE, VEC_GP, ~0ul},
		 {"gate is a task gate", 0x85, SEL_CODE, VEC_GP, ~0ul},
		 {"gate is a call gate", 0x8c, SEL_CODE, VEC_GP, ~0ul},
		 {"gate's selector is null", 0x8e, 0, VEC_GP, 0},
		 {"gate's selector is beyond the GDT", 0x8e, 0x2000, VEC_GP, 0x2000},
		 {"gate's selector is data", 0x8e, SEL_DATA, VEC_GP, SEL_DATA},
		 {"gate's selector is 32-bit code", 0x8e, SEL_CODE32, VEC_GP, SEL_CODE32},
		 {"gate's selector is a TSS", 0x8e, SEL_TSS, VEC_GP, SEL_TSS},
		 {"gate's selector has DPL 3", 0x8e, SEL_UCODE & ~3, VEC_GP, SEL_UCODE & ~3u}};
	unsigned i;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		rt_idt[0x60].type = (uint8_t)t[i].type;
		rt_idt[0x60].sel = (uint16_t)t[i].sel;
		check_trap(t[i].name, RUN("\xcd\x60", false), t[i].vec, t[i].err == ~0ul ? idt_err(0x60, 0) : t[i].err);
		rt_idt[0x60] = save;
	}
	rt_gdt[S1 / 8] = seg_desc(0, 0xfffff, 0x1b, 0xa);
	rt_idt[0x60].sel = S1;
	check_trap("gate's code segment is not present", RUN("\xcd\x60", false), VEC_NP, S1);
	rt_idt[0x60] = save;
	rt_gdt[S1 / 8] = 0;
	SKIP_TCG("EXT in error codes", "leaves it out")
	{
		rt_idt[VEC_UD].type = 0x0e;
		check_trap("absent gate of a fault: EXT", RUN("\x0f\x0b", false), VEC_NP, VEC_UD * 8 + 3);
		rt_idt[VEC_UD].type = 0x8e;
	}
}

static void idt_limit(void)
{
	struct dtr d = {0x60 * 16 - 1, (word)rt_idt};

	rt_gdt[SEL_TSS / 8] &= ~0ull;
	__asm__ volatile("lidt %0" ::"m"(d));
	check_trap("vector beyond the IDT", RUN("\xcd\x60", false), VEC_GP, idt_err(0x60, 0));
	check_trap("vector inside the IDT", RUN("\xcd\x5f", false), 0x5f, 0);
	d.limit = 0x60 * 16 + 14;
	__asm__ volatile("lidt %0" ::"m"(d));
	check_trap("vector partly beyond the IDT", RUN("\xcd\x60", false), VEC_GP, idt_err(0x60, 0));
	rt_load_idt();
}

/* ---- faults during delivery ---- */
static void double_faults(void)
{
	struct regs r;

	memcpy(code, "\x48\x8b\x01", 3); /* mov (%rcx), %rax */
	rt_regs(&r, code);
	r.cx = HOLE;
	rt_idt[VEC_PF].type = 0x0e;
	check_trap("#PF with an absent gate is a double fault", rt_run(&r), VEC_DF, 0);
	check_eq("double fault: on its IST stack", rt_last.handler_sp,
		 top(rt_ist_stack[0], 4096) - sizeof(struct regs));
	check("double fault: ip and CR2", rt_last.r.ip == (word)code && rt_last.cr2 == HOLE, "ip %#lx cr2 %#lx",
	      rt_last.r.ip, rt_last.cr2);
	rt_idt[VEC_PF].type = 0x8e;
	r.cx = NONCANON;
	rt_idt[VEC_GP].type = 0x0e;
	check_trap("#GP with an absent gate is a double fault", rt_run(&r), VEC_DF, 0);
	rt_idt[VEC_GP].type = 0x8e;
	r.cx = HOLE;
	r.sp = HOLE + 0x8000;
	check_trap("#PF with an unmapped stack is a double fault", rt_run(&r), VEC_DF, 0);
	check("double fault from the stack: CR2 is the stack",
	      rt_last.cr2 < r.sp && rt_last.cr2 >= r.sp - 64 && rt_last.r.sp == r.sp, "cr2 %#lx sp %#lx", rt_last.cr2,
	      (word)rt_last.r.sp);
	rt_idt[VEC_PF].ist = 2;
	check_trap("#PF with IST on an unmapped stack", rt_run(&r), VEC_PF, 0);
	memcpy(code, "\x0f\x0b", 2);
	check_trap("#UD on an unmapped stack becomes #PF", rt_run(&r), VEC_PF, PF_W);
	check("#UD on an unmapped stack: ip", rt_last.r.ip == (word)code, "ip %#lx", rt_last.r.ip);
	rt_user_regs(&r, code);
	rt_tss.rsp[0] = HOLE + 0x1000;
	check_trap("ring 3 #UD with an unmapped rsp0", rt_run(&r), VEC_PF, PF_W);
	check("ring 3 #UD with an unmapped rsp0: frame is ring 3's", rt_last.r.cs == SEL_UCODE && rt_last.r.sp == r.sp,
	      "cs %#lx sp %#lx", (word)rt_last.r.cs, (word)rt_last.r.sp);
	rt_tss.rsp[0] = NONCANON;
	check_trap("ring 3 #UD with a non-canonical rsp0: #SS twice", rt_run(&r), VEC_DF, 0);
	rt_tss.rsp[0] = top(rt_stack0, sizeof(rt_stack0));
	rt_idt[VEC_PF].ist = 0;
	rt_tss.ist[4] = HOLE + 64;
	rt_idt[0x60].ist = 5;
	check_trap("int n with an unmapped IST stack", RUN("\xcd\x60", false), VEC_PF, PF_W);
	check_eq("int n with an unmapped IST stack: ip is its own", rt_last.r.ip, (word)code);
	rt_idt[0x60].ist = 0;
	rt_tss.ist[4] = top(rt_ist_stack[4], 4096);
}

/* ---- x87, SSE, alignment ---- */
/* An address of this guest, which ends at 64 MiB, or none. */
static bool is_ours(word a)
{
	return a < 64ul << 20;
}

/* Stores of the x87 pointers, with an exception pending (AMD's CPUs store them only then): they name the guest's own code. */
static void x87_pointers(void)
{
	static uint8_t area[512] __attribute__((aligned(64)));
	static const double zero;
	uint32_t env[7], cw = 0x33b;
	uint64_t ip, dp;

	__asm__ volatile("fninit; fldcw %2; fld1; fdivl %3; fxsave64 %0; fnstenv %1"
			 : "=m"(area), "=m"(env)
			 : "m"(cw), "m"(zero));
	memcpy(&ip, area + 8, 8);
	memcpy(&dp, area + 16, 8);
	check("fxsave: x87 pointers are the guest's", is_ours(ip) && is_ours(dp), "%#lx %#lx", (word)ip, (word)dp);
	check("fnstenv: so are its", is_ours(env[3]) && is_ours(env[5]), "%#x %#x", env[3], env[5]);
}

static void fpu(void)
{
	word cr0 = rd_cr0(), cr4 = rd_cr4();

	wr_cr0(cr0 | CR0_TS);
	check_trap("#NM: x87 with TS", RUN("\xd9\xe8", true), VEC_NM, 0);
	check_trap("#NM: SSE with TS", RUN("\x0f\x28\xc1", true), VEC_NM, 0);
	check_trap("#NM: fwait with MP and TS", RUN("\x9b", true), VEC_NM, 0);
	check_trap("#NM: fxsave with TS", RUN("\x0f\xae\x00", true), VEC_NM, 0);
	check_trap("clts", TRY(__asm__ volatile("clts; fninit")), -1, 0);
	wr_cr0((cr0 | CR0_TS) & ~(word)CR0_MP);
	check_trap("fwait without MP", RUN("\x9b", true), VEC_END, 0);
	wr_cr0(cr0 | CR0_EM);
	check_trap("#NM: x87 with EM", RUN("\xd9\xe8", true), VEC_NM, 0);
	check_trap("#UD: SSE with EM", RUN("\x0f\x28\xc1", true), VEC_UD, 0);
	wr_cr0(cr0);
	wr_cr4(cr4 & ~0x200ul);
	check_trap("#UD: SSE without OSFXSR", RUN("\x0f\x28\xc1", true), VEC_UD, 0);
	wr_cr4(cr4);
	/* fninit; push $0x33b; fldcw (%rsp) [zero divide unmasked]; fld1; fldz; fdivrp; nop; fwait */
	check_trap("#MF at the next waiting instruction",
		   RUN("\xdb\xe3\x68\x3b\x03\x00\x00\xd9\x2c\x24\xd9\xe8\xd9\xee\xde\xf9\x90\x9b", true), VEC_MF, 0);
	check_eq("#MF: ip is the fwait's", rt_last.r.ip, (word)code + 17);
	check_trap("fninit takes a pending #MF away", RUN("\xdb\xe3\x9b", true), VEC_END, 0);
	/* the same, then fnstsw, fnclex */
	check_trap("non-waiting instructions do not raise #MF",
		   RUN("\xdb\xe3\x68\x3b\x03\x00\x00\xd9\x2c\x24\xd9\xe8\xd9\xee\xde\xf9\xdf\xe0\xdb\xe2\x9b", true),
		   VEC_END, 0);
	check("fnstsw: zero divide and summary", (rt_last.r.ax & 0x84) == 0x84, "status %#lx",
	      (word)rt_last.r.ax & 0xffff);
	x87_pointers();
	__asm__ volatile("fninit");
	SKIP_TCG("#XM", "has no unmasked SSE exceptions")
	{
		/* push $0x1d80 [zero divide unmasked]; ldmxcsr; xorps; mov $1; cvtsi2ss; divss */
		static const char div[] =
			"\x68\x80\x1d\x00\x00\x0f\xae\x14\x24\x0f\x57\xc0\xb8\x01\x00\x00\x00\xf3\x0f\x2a\xc8"
			"\xf3\x0f\x5e\xc8";
		check_trap("#XM: unmasked zero divide", run_bytes(div, sizeof(div) - 1, true), VEC_XM, 0);
		check_eq("#XM: ip is the divide's", rt_last.r.ip, (word)code + 21);
		wr_cr4(cr4 & ~(word)CR4_OSXMM);
		check_trap("#UD: without OSXMMEXCPT", run_bytes(div, sizeof(div) - 1, true), VEC_UD, 0);
		wr_cr4(cr4);
		__asm__ volatile("push $0x1f80; ldmxcsr (%%rsp); pop %%rax" ::: "rax");
		check_trap("#GP: ldmxcsr reserved bits", RUN("\x68\x00\x00\x01\x00\x0f\xae\x14\x24", true), VEC_GP, 0);
	}
}

static void alignment(void)
{
	word cr0 = rd_cr0();
	struct regs r;

	check_trap("#GP: movaps unaligned", RUN("\x0f\x28\x40\x01", true), VEC_GP, 0);
	check_trap("movups unaligned is fine", RUN("\x0f\x10\x40\x01", true), VEC_END, 0);
	check_trap("#GP: addps unaligned", RUN("\x0f\x58\x40\x08", true), VEC_GP, 0);
	check_trap("#GP: movntdq unaligned", RUN("\x66\x0f\xe7\x40\x08", true), VEC_GP, 0);
	check_trap("#GP: fxsave unaligned", RUN("\x0f\xae\x40\x08", true), VEC_GP, 0);
	check_trap("#GP: cmpxchg16b unaligned", RUN("\x48\x0f\xc7\x48\x08", true), VEC_GP, 0);
	wr_cr0(cr0 | CR0_AM);
	SKIP_TCG("#AC", "has no alignment checks")
	{
		memcpy(code, "\x8b\x40\x01\xcd\x80", 5); /* mov 1(%rax), %eax */
		rt_user_regs(&r, code);
		r.ax = (word)rt_user_stack;
		check_trap("AM without AC", rt_run(&r), VEC_END, 0);
		r.flags |= FL_AC;
		check_trap("#AC: 4 bytes unaligned in ring 3", rt_run(&r), VEC_AC, 0);
		check_eq("#AC: ip", rt_last.r.ip, (word)code);
		r.ax += 3;
		check_trap("4 bytes aligned", rt_run(&r), VEC_END, 0);
		memcpy(code, "\x8a\x40\x01\xcd\x80", 5);
		check_trap("1 byte", rt_run(&r), VEC_END, 0);
		memcpy(code, "\x66\x89\x40\x02\xcd\x80", 6); /* mov %ax, 2(%rax) */
		check_trap("#AC: 2 bytes at an odd address", rt_run(&r), VEC_AC, 0);
		memcpy(code, "\x50\xcd\x80", 3);
		r.sp -= 4;
		check_trap("#AC: push with an unaligned stack", rt_run(&r), VEC_AC, 0);
		rt_regs(&r, code);
		r.flags |= FL_AC;
		r.sp -= 4;
		check_trap("no #AC in ring 0", rt_run(&r), VEC_END, 0);
		rt_user_regs(&r, code);
		r.flags |= FL_AC;
		r.sp -= 4;
		wr_cr0(cr0);
		check_trap("AC without AM", rt_run(&r), VEC_END, 0);
	}
	wr_cr0(cr0);
}

/* ---- fetches ---- */
static void fetch(void)
{
	uint64_t root = rd_cr3() & P_ADDR, va = 0x410000000000ull, frame = pt_frame();
	uint8_t *p = (void *)frame;
	struct regs r;
	word nxe = cpu.nx ? PF_I : 0;

	if (cpu.nx)
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	rt_user_regs(&r, (void *)HOLE);
	check_trap("fetch from an unmapped page", rt_run(&r), VEC_PF, PF_U | nxe);
	check("fetch: ip and CR2", rt_last.cr2 == HOLE && rt_last.r.ip == HOLE, "cr2 %#lx ip %#lx", rt_last.cr2,
	      (word)rt_last.r.ip);
	memset(p, 0x90, 4096);
	p[4094] = 0xb8; /* mov $imm32, %eax: its immediate is on the next page */
	pt_map(root, va, frame | P_P | P_W | P_U, 1);
	*pt_entry(root, va + 4096, 1) = 0;
	rt_user_regs(&r, (void *)(va + 4090));
	check_trap("instruction running into an unmapped page", rt_run(&r), VEC_PF, PF_U | nxe);
	check("running into: ip is the instruction's, CR2 the page's",
	      rt_last.r.ip == va + 4094 && rt_last.cr2 == va + 4096, "ip %#lx cr2 %#lx", (word)rt_last.r.ip,
	      rt_last.cr2);
	p[4094] = 0x90;
	check_trap("falling into an unmapped page", rt_run(&r), VEC_PF, PF_U | nxe);
	check("falling into: ip and CR2", rt_last.r.ip == va + 4096 && rt_last.cr2 == va + 4096, "ip %#lx cr2 %#lx",
	      (word)rt_last.r.ip, rt_last.cr2);
	p[4094] = 0xb8;
	frame = pt_frame();
	memcpy((void *)frame, "\x11\x22\x33\xcd\x80", 5);
	pt_map(root, va + 4096, frame | P_P | P_W | P_U, 1);
	p[4095] = 0x44;
	check_trap("instruction across two pages", rt_run(&r), VEC_END, 0);
	check_eq("across two pages: operand", rt_last.r.ax, 0x33221144);
	/* the second page goes elsewhere: the instruction changes */
	frame = pt_frame();
	memcpy((void *)frame, "\x55\x66\x77\xcd\x80", 5);
	pt_map(root, va + 4096, frame | P_P | P_W | P_U, 1);
	rt_run(&r);
	check_eq("across two pages: after a remap of the second", rt_last.r.ax, 0x77665544);
	memcpy((void *)frame, "\xaa\xbb\xcc\xcd\x80", 5);
	rt_run(&r);
	check_eq("across two pages: after a write to the second", rt_last.r.ax, 0xccbbaa44);
	*pt_entry(root, va + 4096, 1) = 0;
	invlpg((void *)(va + 4096));
	check_trap("across two pages: second gone again", rt_run(&r), VEC_PF, PF_U | nxe);
}

void flat_main(void)
{
	all_vectors();
	int_no_error();
	int3_and_friends();
	divide();
	undefined();
	privileged();
	instruction_length();
	selectors();
	stack_faults();
	stacks();
	frame_flags();
	nested();
	bad_gates();
	idt_limit();
	double_faults();
	fpu();
	alignment();
	fetch();
}
