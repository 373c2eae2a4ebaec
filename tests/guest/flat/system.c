/*
 * System instructions in long mode: flags and privilege, fast system calls,
 * segment bases, far transfers, compatibility mode, ports, CPUID and XSAVE,
 * MSRs.  SDM 2, SDM 3A 5; APM 2.
 * Invariant: each check puts the control registers and descriptors back.
 */
#include "pt.h"

/* A piece of code: NAME is its first byte. */
#define CODE(name, text)    \
	extern char name[]; \
	__asm__(".pushsection .text\n" #name ": " text "\n.popsection\n")
#define CODE32(name, text) CODE(name, ".code32\n" text "\n.code64")
#define END                "\nint $0x80\n"
#define S1                 0x60
#define MSR_STAR           0xc0000081u
#define MSR_LSTAR          0xc0000082u
#define MSR_CSTAR          0xc0000083u
#define MSR_SFMASK         0xc0000084u
#define MSR_FSBASE         0xc0000100u
#define MSR_GSBASE         0xc0000101u
#define MSR_KGSBASE        0xc0000102u
#define MSR_TSCAUX         0xc0000103u

static struct regs r;
static uint8_t scratch[4096] __attribute__((aligned(4096)));

static int run0(const char *code)
{
	rt_regs(&r, code);
	r.bx = (word)scratch;
	return rt_run(&r);
}

static int run3(const char *code, word flags)
{
	rt_user_regs(&r, code);
	r.flags |= flags;
	r.bx = (word)scratch;
	return rt_run(&r);
}

/* ---- flags ---- */
CODE(c_cli, "cli; nop" END);
CODE(c_sti, "sti; nop" END);
CODE(c_popf, "push %rax; popf" END);
CODE(c_popfw, "pushw %ax; popfw" END);
CODE(c_pushf, "pushf; pop %rax" END);
CODE(c_toggle, "pushf; pop %rax; xor $0x240000, %rax; push %rax; popf; pushf; pop %rcx; xor %rcx, %rax" END);

static word flags_after(const char *code, word start, word value, bool user)
{
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.flags |= start;
	r.ax = value;
	if (rt_run(&r) != VEC_END)
		return ~0ul;
	return rt_last.r.flags;
}

static void flags(void)
{
	word all = 0x3f7fd7 & ~(FL_TF | FL_VM | 0x180000u); /* VIF, VIP: left alone */

	check_trap("cli in ring 3, IOPL 0", run3(c_cli, FL_IF), VEC_GP, 0);
	check_trap("cli in ring 3, IOPL 2", run3(c_cli, FL_IF | 0x2000), VEC_GP, 0);
	check_trap("sti in ring 3, IOPL 0", run3(c_sti, 0), VEC_GP, 0);
	check_trap("cli in ring 3, IOPL 3", run3(c_cli, FL_IF | FL_IOPL), VEC_END, 0);
	check_eq("cli in ring 3, IOPL 3: IF", rt_last.r.flags & FL_IF, 0);
	check_trap("sti in ring 3, IOPL 3", run3(c_sti, FL_IOPL), VEC_END, 0);
	check_eq("sti in ring 3, IOPL 3: IF", rt_last.r.flags & FL_IF, FL_IF);
	check_eq("popf in ring 0 sets all", flags_after(c_popf, 0, all & ~(word)FL_IF, false),
		 (all & ~(word)(FL_RF | FL_IF)) | 2);
	check_eq("popf in ring 3 keeps IOPL and IF", flags_after(c_popf, FL_IF, FL_IOPL, true), FL_IF | 2);
	check_eq("popf in ring 3 keeps IF off", flags_after(c_popf, 0, FL_IF | FL_IOPL, true), 2);
	check_eq("popf in ring 3, IOPL 3 changes IF only", flags_after(c_popf, FL_IOPL | FL_IF, 0, true), FL_IOPL | 2);
	check_eq("popf clears ring 3's bits", flags_after(c_popf, 0xcd5 | FL_NT | FL_AC | FL_ID, 0, true), 2);
	check_eq("popf 16 bits keeps the upper half", flags_after(c_popfw, FL_AC | FL_ID, 0xcd5, true),
		 FL_AC | FL_ID | 0xcd7);
	flags_after(c_pushf, FL_IOPL | FL_AC | FL_CF | FL_IF, 0, true);
	check_eq("pushf in ring 3 shows all but RF", rt_last.r.ax, FL_IOPL | FL_AC | FL_CF | FL_IF | 2);
	run3(c_toggle, 0);
	check_eq("AC and ID toggle in ring 3", rt_last.r.ax, 0);
	run0(c_toggle);
	check_eq("AC and ID toggle in ring 0", rt_last.r.ax, 0);
}

/* ---- iret ---- */
extern char c_iret[], c_iret_fault[], c_end[];
__asm__("c_iret: push %r8; push %r9; push %r10; push %r11; push %r12\nc_iret_fault: iretq\nc_end: int $0x80\n");

static int iret_to(bool from_user, word ip, word cs, word fl, word sp, word ss)
{
	(from_user ? rt_user_regs : rt_regs)(&r, c_iret);
	r.r8 = ss;
	r.r9 = sp;
	r.r10 = fl;
	r.r11 = cs;
	r.r12 = ip;
	return rt_run(&r);
}

static void iret(void)
{
	word usp = (word)rt_user_stack + 4096, ip = (word)c_end;

	check_trap("iret to ring 3", iret_to(false, ip, SEL_UCODE, 2 | FL_IOPL | FL_AC | FL_ID | FL_DF, usp, SEL_UDATA),
		   VEC_END, 0);
	check("iret to ring 3: state",
	      rt_last.r.cs == SEL_UCODE && rt_last.r.ss == SEL_UDATA && rt_last.r.sp == usp &&
		      rt_last.r.flags == (2 | FL_IOPL | FL_AC | FL_ID | FL_DF),
	      "cs %#lx ss %#lx flags %#lx", (word)rt_last.r.cs, (word)rt_last.r.ss, (word)rt_last.r.flags);
	check_trap("iret in ring 3", iret_to(true, ip, SEL_UCODE, 2 | FL_IOPL | FL_IF | FL_CF | FL_AC, usp, SEL_UDATA),
		   VEC_END, 0);
	check_eq("iret in ring 3 keeps IOPL and IF", rt_last.r.flags, 2 | FL_CF | FL_AC);
	check_trap("iret in ring 0 with null ss", iret_to(false, ip, SEL_CODE, 2, usp, 0), VEC_END, 0);
	check_trap("iret to ring 0 from ring 3", iret_to(true, ip, SEL_CODE, 2, usp, SEL_DATA), VEC_GP, SEL_CODE);
	check_eq("iret fault: ip is its own", rt_last.r.ip, (word)c_iret_fault);
	check_trap("iret: null cs", iret_to(false, ip, 0, 2, usp, SEL_DATA), VEC_GP, 0);
	check_trap("iret: cs is data", iret_to(false, ip, SEL_DATA, 2, usp, SEL_DATA), VEC_GP, SEL_DATA);
	check_trap("iret: cs beyond the GDT", iret_to(false, ip, 0x2008, 2, usp, SEL_DATA), VEC_GP, 0x2008);
	check_trap("iret: RPL and DPL differ", iret_to(false, ip, SEL_CODE | 3, 2, usp, SEL_UDATA), VEC_GP, SEL_CODE);
	check_trap("iret: ss null for ring 3", iret_to(false, ip, SEL_UCODE, 2, usp, 0), VEC_GP, 0);
	check_trap("iret: ss DPL 0 for ring 3", iret_to(false, ip, SEL_UCODE, 2, usp, SEL_DATA | 3), VEC_GP, SEL_DATA);
	rt_gdt[S1 / 8] = seg_desc(0, 0xfffff, 0x7b, 0xa);
	check_trap("iret: cs not present", iret_to(false, ip, S1 | 3, 2, usp, SEL_UDATA), VEC_NP, S1);
	rt_gdt[S1 / 8] = seg_desc(0, 0xfffff, 0x73, 0xc);
	SKIP_TCG("iret: ss not present", "raises #NP")
	check_trap("iret: ss not present", iret_to(false, ip, SEL_UCODE, 2, usp, S1 | 3), VEC_SS, S1);
	rt_gdt[S1 / 8] = seg_desc(0, 0xfffff, 0xfb, 0xe);
	SKIP_TCG("iret: cs with L and D", "takes it")
	check_trap("iret: cs with L and D", iret_to(false, ip, S1 | 3, 2, usp, SEL_UDATA), VEC_GP, S1);
	rt_gdt[S1 / 8] = 0;
	rt_regs(&r, c_iret);
	SKIP_TCG("iret: non-canonical rip, NT", "takes them")
	{
		check_trap("iret: non-canonical rip to ring 0", iret_to(false, 1ul << 63, SEL_CODE, 2, usp, SEL_DATA),
			   VEC_GP, 0);
		rt_regs(&r, c_iret);
		r.flags |= FL_NT;
		r.r8 = SEL_DATA;
		r.r9 = usp;
		r.r10 = 2;
		r.r11 = SEL_CODE;
		r.r12 = ip;
		check_trap("iret with NT in long mode", rt_run(&r), VEC_GP, 0);
	}
}

CODE(c_segs, "mov %ds, %eax; mov %es, %ecx; mov %fs, %edx; mov %gs, %esi" END);

static void iret_nulls(void)
{
	rt_user_regs(&r, c_segs);
	__asm__ volatile("mov %0, %%ds; mov %1, %%es; mov %0, %%fs; mov %1, %%gs" ::"r"(SEL_DATA), "r"(SEL_UDATA));
	rt_run(&r);
	__asm__ volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(0));
	check("iret to ring 3 nulls segments of higher privilege",
	      rt_last.r.ax == 0 && rt_last.r.cx == SEL_UDATA && rt_last.r.dx == 0 && rt_last.r.si == SEL_UDATA,
	      "ds %#lx es %#lx fs %#lx gs %#lx", (word)rt_last.r.ax, (word)rt_last.r.cx, (word)rt_last.r.dx,
	      (word)rt_last.r.si);
	rt_user_regs(&r, c_segs);
	__asm__ volatile("mov %0, %%ds; mov %1, %%es; mov %2, %%fs; mov %0, %%gs" ::"r"(1), "r"(2), "r"(3));
	wrmsr(0xc0000100, 0x123456789000);
	wrmsr(0xc0000101, 0x7654321000);
	rt_run(&r);
	SKIP_TCG("iret to ring 3: null selectors become 0", "keeps them")
	check("iret to ring 3: null selectors become 0", !(rt_last.r.ax | rt_last.r.cx | rt_last.r.dx | rt_last.r.si),
	      "ds %#lx es %#lx fs %#lx gs %#lx", (word)rt_last.r.ax, (word)rt_last.r.cx, (word)rt_last.r.dx,
	      (word)rt_last.r.si);
	check("iret to ring 3: their bases stay",
	      rdmsr(0xc0000100) == 0x123456789000 && rdmsr(0xc0000101) == 0x7654321000, "fs %#lx gs %#lx",
	      (word)rdmsr(0xc0000100), (word)rdmsr(0xc0000101));
	wrmsr(0xc0000100, 0);
	wrmsr(0xc0000101, 0);
}

/* A null selector clears the base of FS and GS: on Intel, and on AMD when CPUID says so (APM 3 E.4.20). */
static void null_bases(void)
{
	bool clears = cpu.intel;
	uint32_t a, b, c, d;

	cpuid(0x80000000, 0, &a, &b, &c, &d);
	if (cpu.amd && a >= 0x80000021) {
		cpuid(0x80000021, 0, &a, &b, &c, &d);
		clears = a & 1u << 6;
	}
	for (word sel = 0; sel < 4; sel++) {
		wrmsr(0xc0000100, 0x123456789000);
		wrmsr(0xc0000101, 0x7654321000);
		__asm__ volatile("mov %0, %%fs; push %0; pop %%gs" ::"r"(sel));
		SKIP_TCG("null selectors and bases", "clears them, whatever CPUID says")
		check("null selectors and bases",
		      rdmsr(0xc0000100) == (clears ? 0 : 0x123456789000) &&
			      rdmsr(0xc0000101) == (clears ? 0 : 0x7654321000),
		      "selector %lu: fs %#lx gs %#lx", sel, (word)rdmsr(0xc0000100), (word)rdmsr(0xc0000101));
	}
	wrmsr(0xc0000100, 0);
	wrmsr(0xc0000101, 0);
}

/* ---- syscall, sysret ---- */
CODE(c_syscall, "syscall\nc_syscall_next: int $0x80");
extern char c_syscall_next[];
CODE(k_syscall, "mov %cs, %eax; mov %ss, %edx; pushf; pop %r8; int $0x81");
CODE(k_sysret, "sysretq");
CODE(k_sysret32, "sysretl");
CODE32(c_user32, "mov %cs, %eax; mov %ss, %edx; int $0x80");

static void syscalls(void)
{
	word efer = rdmsr(MSR_EFER);
	int vec;

	wrmsr(MSR_EFER, efer & ~(word)EFER_SCE);
	check_trap("syscall without SCE", run3(c_syscall, 0), VEC_UD, 0);
	check_trap("sysret without SCE", run0(k_sysret), VEC_UD, 0);
	wrmsr(MSR_EFER, efer | EFER_SCE);
	wrmsr(MSR_STAR, (uint64_t)SEL_UCODE32 << 48 | (uint64_t)SEL_CODE << 32);
	wrmsr(MSR_LSTAR, (word)k_syscall);
	wrmsr(MSR_SFMASK, FL_IF | FL_DF | FL_CF);
	check_trap("syscall", run3(c_syscall, FL_IF | FL_DF | FL_CF | FL_AC | FL_ID), 0x81, 0);
	check("syscall: rcx, r11",
	      rt_last.r.cx == (word)c_syscall_next && rt_last.r.r11 == (2 | FL_IF | FL_DF | FL_CF | FL_AC | FL_ID),
	      "rcx %#lx r11 %#lx", (word)rt_last.r.cx, (word)rt_last.r.r11);
	check("syscall: cs, ss", rt_last.r.ax == SEL_CODE && rt_last.r.dx == SEL_DATA, "cs %#lx ss %#lx",
	      (word)rt_last.r.ax, (word)rt_last.r.dx);
	check_eq("syscall: flags are masked", rt_last.r.r8, 2 | FL_AC | FL_ID);
	check_eq("syscall: rsp is kept", rt_last.r.sp, r.sp);
	wrmsr(MSR_LSTAR, (word)k_sysret);
	check_trap("syscall and sysret", run3(c_syscall, FL_CF | FL_AC), VEC_END, 0);
	check("sysret: cs, ss, flags",
	      rt_last.r.cs == SEL_UCODE && rt_last.r.ss == SEL_UDATA && rt_last.r.flags == (2 | FL_CF | FL_AC),
	      "cs %#lx ss %#lx flags %#lx", (word)rt_last.r.cs, (word)rt_last.r.ss, (word)rt_last.r.flags);
	rt_regs(&r, k_sysret32);
	r.cx = (word)c_user32 | 0x5500000000ul;                /* the upper half is dropped */
	r.r11 = FL_ZF | (cpu.tcg ? 0 : FL_RF | FL_VM) | FL_IF; /* TCG takes them over */
	check_trap("sysret to 32-bit code", rt_run(&r), VEC_END, 0);
	check("sysret to 32-bit code: cs, ss", rt_last.r.ax == SEL_UCODE32 && rt_last.r.dx == SEL_UDATA,
	      "cs %#lx ss %#lx", (word)rt_last.r.ax, (word)rt_last.r.dx);
	check_eq("sysret: RF and VM are dropped", rt_last.r.flags, 2 | FL_ZF | FL_IF);
	check_trap("sysret in ring 3", run3(k_sysret, 0), VEC_GP, 0);
	rt_regs(&r, k_sysret);
	r.cx = 1ul << 63;
	SKIP_TCG("sysret to a non-canonical address", "takes it")
	{
		vec = rt_run(&r);
		check("sysret to a non-canonical address",
		      vec == VEC_GP && rt_last.err == 0 && (cpu.intel ? rt_last.r.cs == SEL_CODE : true),
		      "vector %d cs %#lx ip %#lx", vec, (word)rt_last.r.cs, (word)rt_last.r.ip);
	}
	check_trap("LSTAR must be canonical", TRY(wrmsr(MSR_LSTAR, 1ul << 63)), cpu.tcg ? -1 : VEC_GP, 0);
	wrmsr(MSR_LSTAR, 0);
	wrmsr(MSR_SFMASK, 0);
	wrmsr(MSR_EFER, efer);
}

CODE32(c_syscall32, "syscall\nint $0x80");
CODE(k_cstar, "int $0x82");

/* Enters 32-bit code with data segments of ring 3 (those of ring 0 would be nulled). */
static int enter_compat(void)
{
	__asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(SEL_UDATA));
	return rt_run(&r);
}

static int enter32(void)
{
	r.cs = SEL_UCODE32;
	return enter_compat();
}

static int run32(const char *code)
{
	rt_user_regs(&r, code);
	r.bx = (word)scratch;
	return enter32();
}

static void syscall32(void)
{
	word efer = rdmsr(MSR_EFER);

	wrmsr(MSR_EFER, efer | EFER_SCE);
	wrmsr(MSR_STAR, (uint64_t)SEL_UCODE32 << 48 | (uint64_t)SEL_CODE << 32);
	wrmsr(MSR_CSTAR, (word)k_cstar);
	if (cpu.intel)
		check_trap("syscall in 32-bit code (Intel)", run32(c_syscall32), VEC_UD, 0);
	else if (cpu.amd)
		check_trap("syscall in 32-bit code (AMD)", run32(c_syscall32), 0x82, 0);
	else
		skip("syscall in 32-bit code", "unknown vendor");
	wrmsr(MSR_EFER, efer);
}

/* ---- sysenter, sysexit ---- */
CODE(c_sysenter, "mov $0x1234, %eax; sysenter");
CODE(k_sysenter, "mov %cs, %eax; mov %ss, %edx; pushf; pop %r8; int $0x83");
CODE(k_sysexit, "sysexitq");
CODE(k_sysexit32, "sysexitl");
CODE32(c_sysenter32, "sysenter");

static void sysenters(void)
{
	wrmsr(0x174, SEL_CODE);
	wrmsr(0x175, (word)rt_run_stack + 4096);
	wrmsr(0x176, (word)k_sysenter);
	check_eq("SYSENTER MSRs hold", rdmsr(0x176) ^ rdmsr(0x175), (word)k_sysenter ^ ((word)rt_run_stack + 4096));
	if (cpu.tcg) {
		skip("sysenter, sysexit", "TCG: an AMD CPU with Intel's sysenter");
	} else if (cpu.amd) {
		check_trap("sysenter in long mode (AMD)", run3(c_sysenter, 0), VEC_UD, 0);
		check_trap("sysenter in compatibility mode (AMD)", run32(c_sysenter32), VEC_UD, 0);
		check_trap("sysexit in long mode (AMD)", run0(k_sysexit), VEC_UD, 0);
	} else if (cpu.intel) {
		check_trap("sysenter", run3(c_sysenter, FL_IF | FL_AC), 0x83, 0);
		check("sysenter: cs, ss, rsp, flags",
		      rt_last.r.ax == SEL_CODE && rt_last.r.dx == SEL_DATA &&
			      rt_last.r.sp == (word)rt_run_stack + 4096 && rt_last.r.r8 == (2 | FL_AC),
		      "cs %#lx ss %#lx flags %#lx", (word)rt_last.r.ax, (word)rt_last.r.dx, (word)rt_last.r.r8);
		check_trap("sysenter from 32-bit code", run32(c_sysenter32), 0x83, 0);
		rt_regs(&r, k_sysexit);
		r.dx = (word)c_end;
		r.cx = (word)rt_user_stack + 4096;
		check_trap("sysexit", rt_run(&r), VEC_END, 0);
		check("sysexit: cs, ss, rsp",
		      rt_last.r.cs == SEL_UCODE && rt_last.r.ss == SEL_UDATA2 &&
			      rt_last.r.sp == (word)rt_user_stack + 4096,
		      "cs %#lx ss %#lx", (word)rt_last.r.cs, (word)rt_last.r.ss);
		rt_regs(&r, k_sysexit32);
		r.dx = (word)c_user32;
		r.cx = (word)rt_user_stack + 4096;
		check_trap("sysexit to 32-bit code", rt_run(&r), VEC_END, 0);
		check("sysexit to 32-bit code: cs, ss", rt_last.r.ax == SEL_UCODE32 && rt_last.r.dx == SEL_UDATA,
		      "cs %#lx ss %#lx", (word)rt_last.r.ax, (word)rt_last.r.dx);
		check_trap("sysexit in ring 3", run3(k_sysexit, 0), VEC_GP, 0);
		wrmsr(0x174, 0);
		check_trap("sysenter with a null CS MSR", run3(c_sysenter, 0), VEC_GP, 0);
	}
}

/* ---- segment bases ---- */
CODE(c_fsgs, "mov %fs:8, %rax; mov %gs:8, %rcx" END);
CODE(c_rdfs, "rdfsbase %rax; rdgsbase %rcx" END);
CODE(c_wrfs, "wrfsbase %rax; wrgsbase %rcx; mov %fs:8, %rsi; mov %gs:8, %rdi; rdfsbase %edx" END);

static void bases(void)
{
	uint64_t *s = (uint64_t *)scratch;
	word cr4 = rd_cr4();

	s[1] = 0x1111;
	s[11] = 0x2222;
	wrmsr(MSR_FSBASE, (word)s);
	wrmsr(MSR_GSBASE, (word)s + 80);
	wrmsr(MSR_KGSBASE, 0xffff800012345678);
	run3(c_fsgs, 0);
	check("FS and GS base MSRs", rt_last.r.ax == 0x1111 && rt_last.r.cx == 0x2222, "%#lx %#lx", (word)rt_last.r.ax,
	      (word)rt_last.r.cx);
	__asm__ volatile("swapgs");
	check("swapgs", rdmsr(MSR_GSBASE) == 0xffff800012345678 && rdmsr(MSR_KGSBASE) == (word)s + 80, "%#lx %#lx",
	      (word)rdmsr(MSR_GSBASE), (word)rdmsr(MSR_KGSBASE));
	__asm__ volatile("swapgs");
	check_trap("FS base must be canonical", TRY(wrmsr(MSR_FSBASE, 1ul << 62)), cpu.tcg ? -1 : VEC_GP, 0);
	wrmsr(MSR_FSBASE, (word)s);
	if (cpu.fsgsbase) {
		check_trap("rdfsbase without CR4.FSGSBASE", run3(c_rdfs, 0), VEC_UD, 0);
		wr_cr4(cr4 | CR4_FSGSBASE);
		check_trap("rdfsbase", run3(c_rdfs, 0), VEC_END, 0);
		check("rdfsbase, rdgsbase", rt_last.r.ax == (word)s && rt_last.r.cx == (word)s + 80, "%#lx %#lx",
		      (word)rt_last.r.ax, (word)rt_last.r.cx);
		rt_user_regs(&r, c_wrfs);
		r.ax = (word)s + 80;
		r.cx = (word)s;
		check_trap("wrfsbase", rt_run(&r), VEC_END, 0);
		check("wrfsbase, wrgsbase",
		      rt_last.r.si == 0x2222 && rt_last.r.di == 0x1111 && rdmsr(MSR_FSBASE) == (word)s + 80 &&
			      rdmsr(MSR_GSBASE) == (word)s && rt_last.r.dx == (uint32_t)((word)s + 80),
		      "%#lx %#lx", (word)rt_last.r.si, (word)rt_last.r.di);
		rt_user_regs(&r, c_wrfs);
		r.ax = 1ul << 63;
		SKIP_TCG("wrfsbase of a non-canonical address", "takes it")
		check_trap("wrfsbase of a non-canonical address", rt_run(&r), VEC_GP, 0);
		wr_cr4(cr4);
	} else {
		skip("rdfsbase", "not supported");
	}
	/* a selector load takes the descriptor's base */
	wrmsr(MSR_FSBASE, 0xffff800000000000);
	rt_gdt[S1 / 8] = seg_desc((uint32_t)(word)s, 0, 0xf3, 4);
	__asm__ volatile("mov %0, %%fs" ::"r"(S1 | 3));
	check_eq("mov fs loads the base from the descriptor", rdmsr(MSR_FSBASE), (word)s);
	__asm__ volatile("mov %%fs:8, %0" : "=r"(s[2]));
	check_eq("fs: limits do not matter in 64-bit code", s[2], 0x1111);
	__asm__ volatile("push %%fs; pop %%gs" ::: "memory");
	check_eq("push fs; pop gs", rdmsr(MSR_GSBASE), (word)s);
	__asm__ volatile("mov %0, %%ds; movq 8(%1), %2; mov %3, %%ds" ::"r"(S1 | 3), "r"(s), "r"(s[3]), "r"(SEL_DATA));
	__asm__ volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(0));
	s[4] = S1 | 3;
	((uint32_t *)s)[10] = 0x77;
	((uint16_t *)s)[22] = S1 | 3;
	word off;
	__asm__ volatile("xor %0, %0; lfs %1, %k0" : "=&r"(off) : "m"(((uint32_t *)s)[10]));
	check("lfs", off == 0x77 && rdmsr(MSR_FSBASE) == (word)s, "%#lx", off);
	__asm__ volatile("mov %0, %%fs" ::"r"(0));
	rt_gdt[S1 / 8] = 0;
	wrmsr(MSR_FSBASE, 0);
	wrmsr(MSR_GSBASE, 0);
}

/* ---- far transfers ---- */
CODE(c_far, "lcall *(%rbx); int $0x80");
CODE(c_farjmp, "ljmp *(%rbx)");
CODE(t_far, "mov %cs, %eax; mov %rsp, %rdx; lretl");
CODE(t_far_end, "mov %cs, %eax; int $0x80");
CODE(c_lret3, "push %r8; push %r9; push %r10; push %r11; lretq");
CODE(k_gate,
     "mov %cs, %eax; mov %ss, %ecx; mov (%rsp), %r8; mov 8(%rsp), %r9; mov 16(%rsp), %r10; mov 24(%rsp), %r11; lretq");

static void far_transfers(void)
{
	struct {
		uint32_t off;
		uint16_t sel;
	} __attribute__((packed)) *p = (void *)scratch;

	p->off = (uint32_t)(word)t_far;
	p->sel = SEL_CODE;
	check_trap("far call and return", run0(c_far), VEC_END, 0);
	check("far call: cs, 8 bytes pushed",
	      rt_last.r.ax == SEL_CODE && rt_last.r.dx == r.sp - 8 && rt_last.r.sp == r.sp, "cs %#lx rsp %#lx",
	      (word)rt_last.r.ax, (word)rt_last.r.dx);
	p->off = (uint32_t)(word)t_far_end;
	p->sel = SEL_UCODE;
	check_trap("far jump in ring 3", run3(c_farjmp, 0), VEC_END, 0);
	p->sel = SEL_CODE;
	check_trap("far jump to ring 0 code from ring 3", run3(c_farjmp, 0), VEC_GP, SEL_CODE);
	p->sel = SEL_DATA;
	check_trap("far jump to data", run0(c_farjmp), VEC_GP, SEL_DATA);
	p->sel = SEL_TSS;
	check_trap("far jump to a TSS in long mode", run0(c_farjmp), VEC_GP, SEL_TSS);
	p->sel = 0;
	check_trap("far jump to null", run0(c_farjmp), VEC_GP, 0);
	rt_gdt[S1 / 8] = seg_desc(0, 0xfffff, 0x9f, 0xa); /* conforming */
	p->sel = S1;
	check_trap("far jump to a conforming segment keeps the CPL", run3(c_farjmp, 0), VEC_END, 0);
	check_eq("conforming: cs RPL", rt_last.r.ax, S1 | 3);
	rt_gdt[S1 / 8] = seg_desc(0, 0xfffff, 0x1b, 0xa);
	check_trap("far jump to an absent segment", run0(c_farjmp), VEC_NP, S1);
	rt_gdt[S1 / 8] = 0;
	rt_regs(&r, c_lret3);
	r.r8 = SEL_UDATA;
	r.r9 = (word)rt_user_stack + 4096;
	r.r10 = SEL_UCODE;
	r.r11 = (word)c_end;
	check_trap("far return to ring 3", rt_run(&r), VEC_END, 0);
	check("far return to ring 3: state",
	      rt_last.r.cs == SEL_UCODE && rt_last.r.ss == SEL_UDATA && rt_last.r.sp == r.r9, "cs %#lx ss %#lx",
	      (word)rt_last.r.cs, (word)rt_last.r.ss);
}

static void call_gate(void)
{
	struct {
		uint32_t off;
		uint16_t sel;
	} __attribute__((packed)) *p = (void *)scratch;
	word k = (word)k_gate;

	rt_gdt[S1 / 8] = (k & 0xffff) | (word)SEL_CODE << 16 | 0xecul << 40 | (k >> 16 & 0xffff) << 48;
	rt_gdt[S1 / 8 + 1] = k >> 32;
	p->off = 0x12345678; /* ignored */
	p->sel = S1 | 3;
	check_trap("call gate: ring 3 to ring 0 and back", run3(c_far, 0), VEC_END, 0);
	check("call gate: cs, ss inside", rt_last.r.ax == SEL_CODE && (rt_last.r.cx & 0xffff) == 0, "cs %#lx ss %#lx",
	      (word)rt_last.r.ax, (word)rt_last.r.cx);
	check("call gate: frame",
	      rt_last.r.r8 == (word)c_far + 2 && rt_last.r.r9 == SEL_UCODE && rt_last.r.r10 == r.sp &&
		      rt_last.r.r11 == SEL_UDATA,
	      "%#lx %#lx %#lx %#lx", (word)rt_last.r.r8, (word)rt_last.r.r9, (word)rt_last.r.r10, (word)rt_last.r.r11);
	check("call gate: back in ring 3", rt_last.r.cs == SEL_UCODE && rt_last.r.sp == r.sp, "cs %#lx",
	      (word)rt_last.r.cs);
	rt_gdt[S1 / 8] &= ~(0x60ul << 40);
	check_trap("call gate: DPL 0 from ring 3", run3(c_far, 0), VEC_GP, S1);
	rt_gdt[S1 / 8] = (rt_gdt[S1 / 8] & ~(0xfful << 40)) | 0x6cul << 40;
	check_trap("call gate: not present", run3(c_far, 0), VEC_NP, S1);
	rt_gdt[S1 / 8] = rt_gdt[S1 / 8 + 1] = 0;
}

/* ---- descriptor queries ---- */
#define QUERY(insn, sel)                                                                                        \
	({                                                                                                      \
		word v_ = 0x5555;                                                                               \
		uint8_t z_;                                                                                     \
		__asm__ volatile(insn " %w2, %k0; setz %1" : "+r"(v_), "=q"(z_) : "r"((uint32_t)(sel)) : "cc"); \
		z_ ? v_ : ~0ul;                                                                                 \
	})
#define VERIFY(insn, sel)                                                                        \
	({                                                                                       \
		uint8_t z_;                                                                      \
		__asm__ volatile(insn " %w1; setz %0" : "=q"(z_) : "r"((uint32_t)(sel)) : "cc"); \
		z_;                                                                              \
	})
CODE(c_lar3, "xor %eax, %eax; lar %cx, %eax; setz %dl" END);

static void queries(void)
{
	word ldt = 0, tr = 0;

	check_eq("lar: code", QUERY("lar", SEL_CODE) & 0xf0ff00, 0xa09b00);
	check_eq("lar: TSS", QUERY("lar", SEL_TSS) & 0xff00, 0x8b00);
	check_eq("lar: null", QUERY("lar", 0), ~0ul);
	check_eq("lar: beyond the GDT", QUERY("lar", 0x4000), ~0ul);
	check_eq("lar: empty", QUERY("lar", S1), ~0ul);
	check_eq("lsl: page granular", QUERY("lsl", SEL_DATA), 0xffffffff);
	check_eq("lsl: TSS", QUERY("lsl", SEL_TSS), sizeof(rt_tss) - 1);
	rt_gdt[S1 / 8] = seg_desc(0, 0x12345, 0xf2, 0);
	check_eq("lsl: byte granular", QUERY("lsl", S1), 0x12345);
	check("verr, verw: writable data", VERIFY("verr", S1) && VERIFY("verw", S1), "ZF clear");
	rt_gdt[S1 / 8] = seg_desc(0, 0x12345, 0xf0, 0);
	check("verr, verw: read-only data", VERIFY("verr", S1) && !VERIFY("verw", S1), "ZF");
	rt_gdt[S1 / 8] = seg_desc(0, 0x12345, 0xf8, 0);
	check("verr, verw: execute-only code", !VERIFY("verr", S1) && !VERIFY("verw", S1), "ZF");
	rt_gdt[S1 / 8] = seg_desc(0, 0x12345, 0xec, 0);
	check("lsl, lar: call gate", QUERY("lsl", S1) == ~0ul && (QUERY("lar", S1) & 0xff00) == 0xec00, "%#lx",
	      QUERY("lar", S1));
	rt_gdt[S1 / 8] = 0;
	rt_user_regs(&r, c_lar3);
	r.cx = SEL_DATA;
	rt_run(&r);
	check("lar in ring 3: DPL 0 is invisible", (rt_last.r.dx & 1) == 0, "ZF");
	r.cx = SEL_UDATA;
	rt_run(&r);
	check("lar in ring 3: DPL 3", (rt_last.r.dx & 1) == 1 && (rt_last.r.ax & 0xf0ff00) == 0xc0f300, "%#lx",
	      (word)rt_last.r.ax);
	__asm__ volatile("str %0; sldt %1" : "=r"(tr), "=r"(ldt));
	check("str, sldt", (tr & 0xffff) == SEL_TSS && (ldt & 0xffff) == 0, "%#lx %#lx", tr, ldt);
}

CODE(c_sgdt, "sgdt (%rbx); sidt 16(%rbx)" END);
CODE(c_smsw, "smsw %eax; smsw %cx" END);
CODE(c_str, "str %eax; sldt %ecx" END);

static void tables(void)
{
	word cr4 = rd_cr4(), v;
	struct dtr *g = (void *)scratch, *i = (void *)(scratch + 16);

	check_trap("sgdt, sidt", run0(c_sgdt), VEC_END, 0);
	check("sgdt: base, limit", g->base == (word)rt_gdt && g->limit == sizeof(rt_gdt) - 1, "%#lx %#x", g->base,
	      g->limit);
	check("sidt: base, limit", i->base == (word)rt_idt && i->limit == sizeof(rt_idt) - 1, "%#lx %#x", i->base,
	      i->limit);
	check_trap("sgdt in ring 3 without UMIP", run3(c_sgdt, 0), VEC_END, 0);
	check("sgdt in ring 3: the guest's", g->base == (word)rt_gdt && i->base == (word)rt_idt, "%#lx", g->base);
	check_trap("smsw in ring 3 without UMIP", run3(c_smsw, 0), VEC_END, 0);
	check_eq("smsw", rt_last.r.ax, rd_cr0());
	check_trap("str in ring 3 without UMIP", run3(c_str, 0), VEC_END, 0);
	check_eq("str in ring 3", rt_last.r.ax, SEL_TSS);
	if (cpu.umip) {
		wr_cr4(cr4 | CR4_UMIP);
		check_trap("UMIP: sgdt in ring 3", run3(c_sgdt, 0), VEC_GP, 0);
		check_trap("UMIP: smsw in ring 3", run3(c_smsw, 0), VEC_GP, 0);
		check_trap("UMIP: str in ring 3", run3(c_str, 0), VEC_GP, 0);
		check_trap("UMIP: sgdt in ring 0", run0(c_sgdt), VEC_END, 0);
		wr_cr4(cr4);
	} else {
		skip("UMIP", "not supported");
	}
	__asm__ volatile("smsw %0" : "=r"(v));
	__asm__ volatile("lmsw %w0" ::"r"(v | 8));
	check_eq("lmsw sets TS", rd_cr0() & CR0_TS, CR0_TS);
	__asm__ volatile("lmsw %w0" ::"r"(v & ~9ul));
	check("lmsw cannot clear PE", (rd_cr0() & 9) == 1, "CR0 %#lx", rd_cr0());
	wr_cr0(rd_cr0() | CR0_TS);
	__asm__ volatile("clts");
	check_eq("clts", rd_cr0() & CR0_TS, 0);
}

/* ---- compatibility mode ---- */
CODE32(m_basic,
       "mov $0x11223344, %eax; inc %eax; push %eax; pop %ecx; pusha; mov %esp, (%ebx); popa; call 1f; 1: pop %esi; "
       "mov $5, %ecx; 2: add $3, %ecx; dec %ecx; cmp $15, %ecx; jb 2b; int $0x80");
CODE32(m_legacy,
       "mov $0x0b, %al; aaa; push %eax; mov $0x9a, %al; daa; pop %ecx; push %ds; pop %es; sub %ebx, %ebx; das; "
       "mov $0x4207, %ax; aad; int $0x80");
CODE32(m_into, "mov $0x7fffffff, %eax; inc %eax; into; int $0x80");
CODE32(m_bound, "bound %eax, (%ebx); int $0x80");
CODE32(m_limit, "mov %ds:(%eax), %ecx; int $0x80");
CODE32(m_stack, "mov (%ebp), %ecx; int $0x80");
CODE32(m_wrap, "mov 0x10(%eax), %ecx; int $0x80");
CODE32(m_to64, "ljmp $0x2b, $m_in64");
CODE(m_in64,
     "mov $0x123456789abcdef0, %rax; lea 1f(%rip), %rcx; push $0x1b; push %rcx; lretq\n1: .code32; inc %edx; int $0x80; .code64");
CODE32(m_fs, "mov %cx, %fs; mov %fs:4, %eax; int $0x80");
CODE32(m_a16, ".byte 0x67; mov 0x1234(%bx,%si), %eax; int $0x80");

static void compat(void)
{
	uint32_t *s = (uint32_t *)scratch;

	check_trap("32-bit code: ends", run32(m_basic), VEC_END, 0);
	check("32-bit code: results",
	      rt_last.r.ax == 0x11223345 && *(uint32_t *)scratch == r.sp - 32 && rt_last.r.sp == r.sp &&
		      rt_last.r.cx == 15,
	      "eax %#lx pusha at %#x ecx %#lx esp %#lx", (word)rt_last.r.ax, *(uint32_t *)scratch, (word)rt_last.r.cx,
	      (word)rt_last.r.sp);
	check("32-bit code: cs and ip", rt_last.r.cs == SEL_UCODE32 && rt_last.r.ip >> 32 == 0, "cs %#lx",
	      (word)rt_last.r.cs);
	check_trap("32-bit code: legacy instructions", run32(m_legacy), VEC_END, 0);
	check_eq("32-bit code: aaa, aad", rt_last.r.cx & 0xffff, 0x101);
	check_trap("32-bit code: into with DPL 0 gate", run32(m_into), VEC_GP, cpu.tcg ? 4 * 16 + 2 : 4 * 8 + 2);
	gate_set(VEC_OF, rt_stubs + 16 * VEC_OF, 0xee, 0);
	check_trap("32-bit code: into", run32(m_into), VEC_OF, 0);
	check_eq("32-bit code: into's ip is the next instruction's", rt_last.r.ip, (word)m_into + 7);
	gate_set(VEC_OF, rt_stubs + 16 * VEC_OF, 0x8e, 0);
	s[0] = 10;
	s[1] = 20;
	rt_user_regs(&r, m_bound);
	r.cs = SEL_UCODE32;
	r.bx = (word)s;
	r.ax = 15;
	check_trap("32-bit code: bound inside", enter32(), VEC_END, 0);
	r.ax = 21;
	check_trap("32-bit code: bound outside", enter32(), VEC_BR, 0);
	check_eq("32-bit code: bound's ip", rt_last.r.ip, (word)m_bound);
	rt_user_regs(&r, m_wrap);
	r.cs = SEL_UCODE32;
	r.ax = (uint32_t)((word)s - 16);
	s[0] = 0xabcd1234;
	check_trap("32-bit code: displacement", enter32(), VEC_END, 0);
	check_eq("32-bit code: displacement: value", rt_last.r.cx, 0xabcd1234);
	r.ax = 0xfffffff0 + 0x1000; /* wraps to 0x1000 with 0x10 added */
	r.ax = 0xfffffff8;
	*(volatile uint32_t *)8 = 0x77665544;
	check_trap("32-bit code: address wraps at 4 GiB", enter32(), VEC_END, 0);
	check_eq("32-bit code: wrapped value", rt_last.r.cx, 0x77665544);
	check_trap("32-bit code: to 64-bit code and back", run32(m_to64), VEC_END, 0);
	check("32-bit code: back", rt_last.r.cs == SEL_UCODE32 && rt_last.r.dx == 1, "cs %#lx edx %#lx",
	      (word)rt_last.r.cs, (word)rt_last.r.dx);
	rt_user_regs(&r, m_a16);
	r.cs = SEL_UCODE32;
	r.bx = 0x50000 + 0x1000;
	r.si = 0x70000 + 0x2000;
	*(volatile uint32_t *)0x4234 = 0x99887766;
	check_trap("32-bit code: 16-bit addressing", enter32(), VEC_END, 0);
	check_eq("32-bit code: 16-bit addressing: value", rt_last.r.ax, 0x99887766);
}

/* A 16-bit segment of compatibility mode, after a 32-bit one at its place. */
CODE(m_code16, ".code16\nmovl $0xeb1234, %eax; int $0x80; .code64");

static void compat16(void)
{
	for (int i = 0; i < 2; i++) {
		rt_gdt[S1 / 8] = seg_desc((uint32_t)(word)m_code16, 0xff, 0xfb, 4);
		rt_user_regs(&r, 0);
		r.cs = S1 | 3;
		r.ax = 0x55aa55aa;
		check_trap("bytes of 16-bit code in a 32-bit segment", enter_compat(), VEC_END, 0);
		check_eq("bytes of 16-bit code in a 32-bit segment: eax", rt_last.r.ax, 0x55aa1234);
		rt_gdt[S1 / 8] = seg_desc((uint32_t)(word)m_code16, 0xff, 0xfb, 0);
		check_trap("16-bit code", enter_compat(), VEC_END, 0);
		check("16-bit code: eax and ip",
		      rt_last.r.ax == 0xeb1234 && rt_last.r.ip == 8 && rt_last.r.cs == (S1 | 3), "%#lx at %#lx:%#lx",
		      (word)rt_last.r.ax, (word)rt_last.r.cs, (word)rt_last.r.ip);
	}
}

static void compat_segments(void)
{
	uint32_t *s = (uint32_t *)scratch;
	word fs;

	s[0] = 0x1000;
	s[1] = 0x2000;
	s[4] = 0x5000;
	rt_gdt[S1 / 8] = seg_desc((uint32_t)(word)scratch, 7, 0xf3, 4);
	rt_user_regs(&r, m_fs);
	r.cs = SEL_UCODE32;
	r.cx = S1 | 3;
	check_trap("32-bit code: fs with a base", rt_run(&r), VEC_END, 0);
	check_eq("32-bit code: fs value", rt_last.r.ax, 0x2000);
	__asm__ volatile("mov %%fs, %0; mov %1, %%fs" : "=&r"(fs) : "r"(0));
	check_eq("fs kept across the trap", fs & 0xffff, S1 | 3);
	__asm__ volatile("mov %0, %%ds" ::"r"(S1 | 3));
	rt_user_regs(&r, m_limit);
	r.cs = SEL_UCODE32;
	r.ax = 4;
	check_trap("32-bit code: at the limit", rt_run(&r), VEC_END, 0);
	check_eq("32-bit code: ds base", rt_last.r.cx, 0x2000);
	if (!cpu.tcg) { /* TCG has no segment limits */
		__asm__ volatile("mov %0, %%ds" ::"r"(S1 | 3));
		r.ax = 5;
		check_trap("32-bit code: beyond the limit", rt_run(&r), VEC_GP, 0);
		rt_user_regs(&r, m_stack);
		r.cs = SEL_UCODE32;
		r.ss = S1 | 3;
		r.bp = 8;
		check_trap("32-bit code: stack beyond the limit", rt_run(&r), VEC_SS, 0);
		__asm__ volatile("mov %0, %%ds" ::"r"(0));
		rt_user_regs(&r, m_limit);
		r.cs = SEL_UCODE32;
		check_trap("32-bit code: null ds", rt_run(&r), VEC_GP, 0);
		rt_gdt[S1 / 8] = seg_desc((uint32_t)(word)scratch, 0, 0xf7, 0xc); /* expand down: valid above 0xfff */
		__asm__ volatile("mov %0, %%ds" ::"r"(S1 | 3));
		r.ax = 0;
		check_trap("32-bit code: expand-down, below", rt_run(&r), VEC_GP, 0);
		__asm__ volatile("mov %0, %%ds" ::"r"(S1 | 3));
		r.ax = 0x1000;
		check_trap("32-bit code: expand-down, above", rt_run(&r), VEC_END, 0);
	} else {
		skip("32-bit code: segment limits", "TCG: has none");
	}
	__asm__ volatile("mov %0, %%ds" ::"r"(SEL_DATA));
	rt_gdt[S1 / 8] = 0;
}

/* ---- ports ---- */
CODE(c_in, "in %dx, %al" END);
CODE(c_inl, "in %dx, %eax" END);
CODE(c_outb, "out %al, $0x80" END);

static int port3(const char *code, unsigned port, word fl)
{
	rt_user_regs(&r, code);
	r.dx = port;
	r.flags |= fl;
	return rt_run(&r);
}

static void ports(void)
{
	check_trap("in: ring 3, bit set", port3(c_in, 0x71, 0), VEC_GP, 0);
	check_trap("in: ring 3, IOPL 3", port3(c_in, 0x71, FL_IOPL), VEC_END, 0);
	rt_tss.iobits[0x71 / 8] &= ~(1 << (0x71 % 8));
	check_trap("in: ring 3, bit clear", port3(c_in, 0x71, 0), VEC_END, 0);
	check_trap("in: ring 3, 4 ports, one allowed", port3(c_inl, 0x71, 0), VEC_GP, 0);
	rt_tss.iobits[0x80 / 8] = 0xf0;
	check_trap("in: ring 3, 4 ports, all allowed", port3(c_inl, 0x80, 0), VEC_END, 0);
	check_trap("in: ring 3, 4 ports across a byte", port3(c_inl, 0x81, 0), VEC_GP, 0);
	check_trap("out: ring 3, bit clear", port3(c_outb, 0, 0), VEC_END, 0);
	rt_tss.iobits[8191] = 0x7f;
	check_trap("in: port 65535", port3(c_in, 0xffff, 0), VEC_END, 0);
	rt_tss.iomap = 0xffff;
	check_trap("in: no bitmap", port3(c_in, 0x71, 0), VEC_GP, 0);
	rt_tss.iomap = sizeof(rt_tss) - 1 - 8192;
	rt_tss.iobits[0x71 / 8] = rt_tss.iobits[0x80 / 8] = rt_tss.iobits[8191] = 0xff;
}

/* ---- CPUID, XSAVE ---- */
static void xgetbv_to(uint32_t i, uint64_t *v)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(i));
	*v = lo | (uint64_t)hi << 32;
}

static void xsetbv(uint32_t i, uint64_t v)
{
	__asm__ volatile("xsetbv" ::"c"(i), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)));
}

static void xsave_state(uint64_t all)
{
	static uint8_t area[16384] __attribute__((aligned(64)));
	uint32_t a, b, c, d, x = 0;

	memset(area, 0xcc, sizeof(area));
	memset(area + 512, 0, 64);
	cpuid(0xd, 0, &a, &b, &c, &d);
	__asm__ volatile("fninit; fld1; movd %0, %%xmm3" ::"r"(0x12345678));
	__asm__ volatile("xsave (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
	check("xsave: header has x87 and SSE",
	      (*(uint64_t *)(area + 512) & 3) == 3 && (*(uint64_t *)(area + 512) & ~all) == 0, "%#lx",
	      *(uint64_t *)(area + 512));
	check_eq("xsave: xmm3", *(uint32_t *)(area + 160 + 48), 0x12345678);
	check("xsave: writes nothing beyond its size", area[b] == 0xcc && area[b + 63] == 0xcc, "size %u", b);
	*(uint32_t *)(area + 160 + 48) = 0x87654321;
	__asm__ volatile("xrstor (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
	__asm__ volatile("movd %%xmm3, %0" : "=r"(x));
	check_eq("xrstor: xmm3", x, 0x87654321);
	*(uint64_t *)(area + 512) = 1; /* SSE in its initial state */
	__asm__ volatile("xrstor (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
	__asm__ volatile("movd %%xmm3, %0" : "=r"(x));
	check_eq("xrstor: initial state", x, 0);
	*(uint64_t *)(area + 512) = 1ull << 62;
	SKIP_TCG("xrstor: bad header", "takes it")
	check_trap("xrstor: bad header",
		   TRY(__asm__ volatile("xrstor (%0)" ::"r"(area), "a"(-1), "d"(-1)
					: "memory")),
		   VEC_GP, 0);
	check_trap("xsave: unaligned",
		   TRY(__asm__ volatile("xsave (%0)" ::"r"(area + 8), "a"(-1), "d"(-1)
					: "memory")),
		   VEC_GP, 0);
	if (all & 4) { /* AVX upper halves */
		__asm__ volatile("vpcmpeqd %ymm5, %ymm5, %ymm5");
		memset(area + 512, 0, 64);
		__asm__ volatile("xsave (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
		cpuid(0xd, 2, &a, &b, &c, &d);
		check("xsave: AVX where CPUID says", a == 256 && *(uint64_t *)(area + b + 5 * 16) == ~0ull,
		      "offset %u size %u", b, a);
		xsetbv(0, 3);
		check_trap("AVX without XCR0.AVX", TRY(__asm__ volatile("vpxor %ymm5, %ymm5, %ymm5")), VEC_UD, 0);
		xsetbv(0, all);
	}
	__asm__ volatile("fninit");
}

/* AVX-512 is all of three components on top of AVX or none; its state goes where CPUID says. */
static void avx512(uint64_t all)
{
	static uint8_t area[4096] __attribute__((aligned(64)));
	static const uint64_t wrong[] = {0x27, 0x47, 0x87, 0xc7, 0xe3, 0xe1};
	uint32_t a, b, c, d;
	word cr0 = rd_cr0();
	uint64_t k, z;

	if (!(all & 0xe0)) {
		skip("AVX-512", "not offered");
		return;
	}
	for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		check_trap("xsetbv: a part of AVX-512", TRY(xsetbv(0, wrong[i])), VEC_GP, 0);
	xsetbv(0, all);
	__asm__ volatile(
		"kmovq %0, %%k3\n\tvpbroadcastq %0, %%zmm5\n\tvpbroadcastq %0, %%zmm17" ::"r"(0x1122334455667788));
	memset(area, 0, sizeof area);
	__asm__ volatile("xsave (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
	cpuid(0xd, 5, &a, &b, &c, &d);
	check("xsave: masks where CPUID says", a == 64 && *(uint64_t *)(area + b + 3 * 8) == 0x1122334455667788,
	      "at %u", b);
	*(uint64_t *)(area + b + 3 * 8) = 77;
	cpuid(0xd, 6, &a, &b, &c, &d);
	check("xsave: upper halves where CPUID says",
	      a == 512 && *(uint64_t *)(area + b + 5 * 32) == 0x1122334455667788, "at %u", b);
	cpuid(0xd, 7, &a, &b, &c, &d);
	check("xsave: zmm17 where CPUID says", a == 1024 && *(uint64_t *)(area + b + 64) == 0x1122334455667788, "at %u",
	      b);
	*(uint64_t *)(area + b + 64) = 78;
	__asm__ volatile("xrstor (%0)" ::"r"(area), "a"(-1), "d"(-1) : "memory");
	__asm__ volatile("kmovq %%k3, %0\n\tvmovq %%xmm17, %1" : "=r"(k), "=r"(z));
	check_eq("xrstor: k3", k, 77);
	check_eq("xrstor: zmm17", z, 78);
	cpuid(0xd, 1, &a, &b, &c, &d);
	memset(area, 0xcc, sizeof area);
	memset(area + 512, 0, 64);
	__asm__ volatile("xsavec (%0)" ::"r"(area), "a"(0xa0), "d"(0) : "memory"); /* masks, then zmm16-31 */
	check_eq("xsavec: masks first", *(uint64_t *)(area + 576 + 24), 77);
	check_eq("xsavec: zmm17 behind them", *(uint64_t *)(area + 576 + 64 + 64), 78);
	check("xsavec: no more", area[576 + 64 + 1024] == 0xcc, "%#x", area[576 + 64 + 1024]);
	wr_cr0(cr0 | CR0_TS);
	check_trap("kmovq under CR0.TS", TRY(__asm__ volatile("kmovq %k1, %k2")), VEC_NM, 0);
	check_trap("EVEX under CR0.TS", TRY(__asm__ volatile("vpord %zmm1, %zmm1, %zmm1")), VEC_NM, 0);
	wr_cr0(cr0);
	xsetbv(0, 7);
	check_trap("kmovq without XCR0's bits", TRY(__asm__ volatile("kmovq %k1, %k2")), VEC_UD, 0);
	check_trap("EVEX of 512 bits without XCR0's bits", TRY(__asm__ volatile("vpord %zmm1, %zmm1, %zmm1")), VEC_UD,
		   0);
	check_trap("EVEX of 128 bits without XCR0's bits", TRY(__asm__ volatile("vpord %xmm17, %xmm17, %xmm17")),
		   VEC_UD, 0);
	xsetbv(0, all);
}

static void xsave(void)
{
	word cr4 = rd_cr4();
	uint32_t a, b, c, d, b1, size = 576, i;
	uint64_t all, v;

	cpuid(1, 0, &a, &b, &c, &d);
	check("CPUID: OSXSAVE follows CR4", !(c >> 27 & 1), "ECX %#x", c);
	if (!cpu.xsave) {
		skip("XSAVE", "not supported");
		return;
	}
	check_trap("xgetbv without OSXSAVE", TRY(xgetbv_to(0, &v)), VEC_UD, 0);
	wr_cr4(cr4 | CR4_OSXSAVE);
	cpuid(1, 0, &a, &b, &c, &d);
	check("CPUID: OSXSAVE set", c >> 27 & 1, "ECX %#x", c);
	xgetbv_to(0, &v);
	check_eq("XCR0 after reset", v, 1);
	cpuid(0xd, 0, &a, &b, &c, &d);
	check_eq("CPUID 0xd: size for x87 alone", b, 576);
	all = a | (uint64_t)d << 32;
	if (cpu.tcg)
		all &= 7;
	check_trap("xsetbv: XCR1", TRY(xsetbv(1, 1)), VEC_GP, 0);
	check_trap("xsetbv: without x87", TRY(xsetbv(0, 2)), VEC_GP, 0);
	check_trap("xsetbv: AVX without SSE", TRY(xsetbv(0, 5)), VEC_GP, 0);
	check_trap("xsetbv: unknown bits", TRY(xsetbv(0, 1 | 1ull << 62)), VEC_GP, 0);
	xsetbv(0, all);
	xgetbv_to(0, &v);
	check_eq("xsetbv, xgetbv", v, all);
	cpuid(0xd, 0, &a, &b1, &c, &d);
	for (i = 2; i < 63; i++)
		if (all >> i & 1) {
			cpuid(0xd, i, &a, &b, &c, &d);
			if (a + b > size)
				size = a + b;
		}
	check("CPUID 0xd: size is the end of the last area", b1 == size, "%u, areas end at %u", b1, size);
	xsave_state(all);
	avx512(all);
	xsetbv(0, 3);
	cpuid(0xd, 0, &a, &b, &c, &d);
	check_eq("CPUID 0xd: size without AVX", b, 576);
	xsetbv(0, 1);
	wr_cr4(cr4);
}

static void cpuids(void)
{
	uint64_t ax = ~0ull << 32, bx = ~0ull, cx = ~0ull << 32, dx = ~0ull;
	uint32_t a, b, c, d, a2, b2, c2, d2;

	__asm__ volatile("cpuid" : "+a"(ax), "+b"(bx), "+c"(cx), "+d"(dx));
	check("CPUID clears upper halves", (ax | bx | cx | dx) >> 32 == 0, "%#lx %#lx", ax, bx);
	cpuid(0x80000000, 0, &a, &b, &c, &d);
	check("CPUID: extended leaves", a >= 0x80000008, "%#x", a);
	cpuid(1, 0, &a, &b, &c, &d);
	check("CPUID: the baseline of x86-64", (d & 0x0780a971) == (0x0780a971 & ~0x80000u), "EDX %#x", d);
	cpuid(0x80000001, 0, &a2, &b2, &c2, &d2);
	check("CPUID: long mode", d2 >> 29 & 1 && c2 & 1, "EDX %#x ECX %#x", d2, c2);
	check("CPUID: no VMX or SVM to honour", cpu.tcg || (!(c >> 5 & 1) && !(c2 >> 2 & 1)), "ECX %#x %#x", c, c2);
	check("CPUID: physical bits", cpu.maxphys >= 36 && cpu.maxphys <= 52, "%u", cpu.maxphys);
}

/* ---- MSRs, time ---- */
CODE(c_rdtsc, "rdtsc" END);
CODE(c_rdmsr, "mov $0x10, %ecx; rdmsr" END);

static void msrs(void)
{
	word cr4 = rd_cr4();
	uint64_t t, pat = rdmsr(0x277);
	uint32_t lo, hi, aux;

	SKIP_TCG("unknown MSRs", "reads 0 for them")
	{
		check_trap("rdmsr: unknown", TRY(rdmsr(0x12345678)), VEC_GP, 0);
		check_trap("wrmsr: unknown", TRY(wrmsr(0x12345678, 0)), VEC_GP, 0);
		check_trap("wrmsr: PAT with a bad type", TRY(wrmsr(0x277, 2)), VEC_GP, 0);
	}
	wrmsr(0x277, 0x0007040600070406);
	check_eq("PAT holds", rdmsr(0x277), 0x0007040600070406);
	wrmsr(0x277, pat);
	check_trap("rdmsr in ring 3", run3(c_rdmsr, 0), VEC_GP, 0);
	check_trap("rdtsc in ring 3", run3(c_rdtsc, 0), VEC_END, 0);
	wr_cr4(cr4 | CR4_TSD);
	check_trap("rdtsc in ring 3 with TSD", run3(c_rdtsc, 0), VEC_GP, 0);
	check_trap("rdtsc in ring 0 with TSD", run0(c_rdtsc), VEC_END, 0);
	wr_cr4(cr4);
	t = rdtsc();
	check("TSC goes on", rdtsc() > t, "no");
	t = rdmsr(0x10);
	check("IA32_TIME_STAMP_COUNTER is the TSC", rdtsc() - t < 1ull << 40, "%#lx", t);
	if (cpu.rdtscp) {
		wrmsr(MSR_TSCAUX, 0x1234);
		__asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		check_eq("rdtscp: TSC_AUX", aux, 0x1234);
	}
	if (cpu.rdpid) {
		word id;
		__asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" : "=a"(id));
		check_eq("rdpid: TSC_AUX", id, 0x1234);
	}
	wrmsr(0x10, 0x100000000000);
	t = rdtsc();
	SKIP_TCG("TSC can be written", "ignores it")
	check("TSC can be written", t >= 0x100000000000 && t < 0x110000000000, "%#lx", t);
}

/* ---- LDT ---- */
static void ldt(void)
{
	static uint64_t table[4];
	word v;

	table[1] = seg_desc((uint32_t)(word)scratch, 0xfff, 0xf3, 4);
	rt_gdt[S1 / 8] = seg_desc((uint32_t)(word)table, sizeof(table) - 1, 0x82, 0);
	rt_gdt[S1 / 8 + 1] = (word)table >> 32;
	check_trap("lldt", TRY(__asm__ volatile("lldt %w0" ::"r"(S1))), -1, 0);
	__asm__ volatile("sldt %0" : "=r"(v));
	check_eq("sldt", v & 0xffff, S1);
	((uint64_t *)scratch)[0] = 0x4242;
	check_trap("fs from the LDT", TRY(__asm__ volatile("mov %0, %%fs" ::"r"(0xf))), -1, 0);
	__asm__ volatile("mov %%fs:0, %0" : "=r"(v));
	check_eq("fs from the LDT: base", v, 0x4242);
	check_trap("LDT limit", TRY(__asm__ volatile("mov %0, %%fs" ::"r"(0x24))), VEC_GP, 0x24);
	__asm__ volatile("mov %0, %%fs; lldt %w0" ::"r"(0));
	check_trap("no LDT", TRY(__asm__ volatile("mov %0, %%fs" ::"r"(0xf))), VEC_GP, 0xc);
	rt_gdt[S1 / 8] = rt_gdt[S1 / 8 + 1] = 0;
}

void flat_main(void)
{
	flags();
	iret();
	iret_nulls();
	null_bases();
	syscalls();
	syscall32();
	sysenters();
	bases();
	far_transfers();
	call_gate();
	queries();
	tables();
	compat();
	compat16();
	compat_segments();
	ports();
	xsave();
	cpuids();
	msrs();
	ldt();
}
