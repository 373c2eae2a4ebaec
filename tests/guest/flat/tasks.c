/*
 * Hardware task switches: by far jumps and calls, interrupts and exceptions
 * through task gates, iret with NT; 32- and 16-bit TSSs; what is saved, loaded
 * and marked; faults before and after the switch.  SDM 3A 7.1 to 7.6.
 * Invariant: before each check start() makes rt_tss the current task and the
 * others available.
 */
#include "rm.h"

enum {
	T1 = SEL_TSS,
	T2 = SEL_TSS2,
	T3 = 0x38,
	T16 = 0x40,
	LDT = 0x48,
	S1 = 0x50,
	GATE = 0x58,
	CODE_LOW = 0x60,
	DATA_LOW = 0x68
};

struct tss16 {
	uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

static struct tss t2 __attribute__((aligned(4096))), t3 __attribute__((aligned(4096)));
static struct tss16 t16;
static uint8_t stack2[4096] __attribute__((aligned(16))), stack3[4096] __attribute__((aligned(16))),
	stack2_0[4096] __attribute__((aligned(16)));
static uint64_t ldt[4];

#define TYPE(sel) ((unsigned)(rt_gdt[(sel) / 8] >> 40) & 0xff)

/* Code of the tasks; each label is an entry. */
extern char k_end[], k_iret[], k_err[], k_call3[], k_regs[];
__asm__(".pushsection .text\n"
	"k_end: int $0x80\n"
	"k_iret: incl %ecx; iretl; addl $0x100, %ecx; iretl; int $0x80\n"
	"k_err: popl %eax; int $0x80\n"
	"k_call3: lcall $0x38, $0; movl $0x3333, %esi; iretl\n"
	"k_regs: int $0x80\n"
	".popsection\n");

static void describe(unsigned sel, const void *at, uint32_t limit, unsigned type)
{
	rt_gdt[sel / 8] = seg_desc((uint32_t)(word)at, limit, type, 0);
}

static void task(struct tss *t, const char *code, uint8_t *stack)
{
	memset(t, 0, offsetof(struct tss, iobits));
	t->eip = (word)code;
	t->eflags = FL_FIX;
	t->esp = (word)stack + 4096 - 64;
	t->cs = SEL_CODE;
	t->ss = t->ds = t->es = t->fs = t->gs = SEL_DATA;
	t->ss0 = SEL_DATA;
	t->esp0 = (word)stack2_0 + 4096;
	t->iomap = sizeof *t;
}

/* The first task is current, the others are as new. */
static void start(void)
{
	describe(T1, &rt_tss, sizeof rt_tss - 1, 0x89);
	describe(T2, &t2, 0x67, 0x89);
	describe(T3, &t3, 0x67, 0x89);
	describe(T16, &t16, sizeof t16 - 1, 0x81);
	__asm__ volatile("ltr %w0; lldt %w1; clts" ::"r"(T1), "r"(0));
	rt_tss.link = 0;
	rt_tss.cr3 = rd_cr3();
	task(&t2, k_end, stack2);
	task(&t3, k_end, stack3);
	t2.cr3 = t3.cr3 = rd_cr3();
}

static uint16_t str(void)
{
	uint16_t s;

	__asm__ volatile("str %0" : "=r"(s));
	return s;
}

static void task_gate(unsigned vec, unsigned tss, unsigned dpl)
{
	rt_idt[vec] = (struct gate){.sel = (uint16_t)tss, .type = (uint8_t)(0x85 | dpl << 5)};
}

static void normal_gate(unsigned vec)
{
	gate_set(vec, rt_stubs + 16 * vec, vec == VEC_END ? 0xee : 0x8e, 0);
}

/* ---- jumps (SDM 3A 7.3, table 7-2) ---- */
extern char x_jmp[], x_jmp_to[], x_call[], x_gate_jmp[], x_gate_call[], x_int[], x_jmp16[], x_call16[], x_iret_nt[],
	x_ud[], x_jmp_indirect[];
__asm__(".pushsection .text\n"
	"x_jmp: movl $0x1111, %eax; movl $0x2222, %ebx; movl $0x3333, %ebp; movl $0x4444, %esi; stc; ljmp $0x30, $0x12345678\n"
	"x_jmp_to: int $0x80\n"
	"x_call: xorl %ecx, %ecx; lcall $0x30, $0; lcall $0x30, $0; movl $0x77, %edx; int $0x80\n"
	"x_gate_jmp: ljmp $0x58, $0\n"
	"x_gate_call: lcall $0x58, $0; movl $0x78, %edx; int $0x80\n"
	"x_int: int $0x60; movl $0x79, %edx; int $0x80\n"
	"x_jmp16: ljmp $0x40, $0\n"
	"x_call16: lcall $0x40, $0; movl $0x7a, %edx; int $0x80\n"
	"x_iret_nt: pushfl; orl $0x4000, (%esp); popfl; iretl\n"
	"x_ud: ud2\n"
	"x_jmp_indirect: ljmp *(%ebx)\n"
	".popsection\n");

static struct regs r;

static int go(const char *code)
{
	rt_regs(&r, code);
	return rt_run(&r);
}

static void jumps(void)
{
	start();
	t2.eax = 0xaaaa0001;
	t2.ecx = 0xaaaa0002;
	t2.edx = 0xaaaa0003;
	t2.ebx = 0xaaaa0004;
	t2.ebp = 0xaaaa0005;
	t2.esi = 0xaaaa0006;
	t2.edi = 0xaaaa0007;
	t2.eflags = FL_FIX | FL_DF | FL_IOPL;
	t2.fs = 0;
	t2.link = 0x1234;
	check_trap("jmp to a TSS", go(x_jmp), VEC_END, 0);
	check("jmp: new state",
	      rt_last.r.ax == 0xaaaa0001 && rt_last.r.cx == 0xaaaa0002 && rt_last.r.dx == 0xaaaa0003 &&
		      rt_last.r.bx == 0xaaaa0004 && rt_last.r.bp == 0xaaaa0005 && rt_last.r.si == 0xaaaa0006 &&
		      rt_last.r.di == 0xaaaa0007 && rt_last.r.fs == 0 && rt_last.r.ip == (word)k_end + 2 &&
		      rt_last.r.sp == t2.esp,
	      "eax %#lx eip %#lx esp %#lx", (word)rt_last.r.ax, (word)rt_last.r.ip, (word)rt_last.r.sp);
	check_eq("jmp: flags, no NT", rt_last.r.flags & ~FL_RF, FL_FIX | FL_DF | FL_IOPL);
	check("jmp: old state saved",
	      rt_tss.eax == 0x1111 && rt_tss.ebx == 0x2222 && rt_tss.ebp == 0x3333 && rt_tss.esi == 0x4444 &&
		      (rt_tss.eflags & 1) && rt_tss.eip == (word)x_jmp_to && rt_tss.esp == r.sp &&
		      rt_tss.cs == SEL_CODE && rt_tss.ss == SEL_DATA && rt_tss.gs == SEL_DATA,
	      "eax %#x eip %#x esp %#x", rt_tss.eax, rt_tss.eip, rt_tss.esp);
	check("jmp: busy bits", TYPE(T1) == 0x89 && TYPE(T2) == 0x8b && str() == T2, "%#x %#x tr %#x", TYPE(T1),
	      TYPE(T2), str());
	check("jmp: no back link, TS set", t2.link == 0x1234 && (rd_cr0() & CR0_TS), "%#x cr0 %#lx", t2.link, rd_cr0());
	start();
	rt_gdt[GATE / 8] = (uint64_t)T2 << 16 | 0x85ull << 40;
	check_trap("jmp to a task gate", go(x_gate_jmp), VEC_END, 0);
	check_eq("jmp to a task gate: tr", str(), T2);
}

/* ---- calls and iret ---- */
static void calls(void)
{
	start();
	t2.eip = (word)k_iret;
	t2.ecx = 0;
	check_trap("call to a TSS and iret, twice", go(x_call), VEC_END, 0);
	check("call: back in the old task",
	      rt_last.r.dx == 0x77 && rt_last.r.cx == 0 && rt_last.r.sp == r.sp && str() == T1, "%#lx tr %#x",
	      (word)rt_last.r.dx, str());
	check("call: the callee went on where it had stopped",
	      t2.ecx == 0x101 && t2.eip == (word)k_iret + 9 && t2.link == T1, "%#x eip %#x link %#x", t2.ecx, t2.eip,
	      t2.link);
	check("iret: busy bits, NT clear in what it saved",
	      TYPE(T1) == 0x8b && TYPE(T2) == 0x89 && !(t2.eflags & FL_NT) && !(rt_last.r.flags & FL_NT), "%#x %#x %#x",
	      TYPE(T1), TYPE(T2), t2.eflags);
	start();
	check_trap("call to a TSS", go(x_call), VEC_END, 0);
	check("call: NT set, both busy, link",
	      (rt_last.r.flags & FL_NT) && TYPE(T1) == 0x8b && TYPE(T2) == 0x8b && t2.link == T1, "%#lx %#x %#x %#x",
	      (word)rt_last.r.flags, TYPE(T1), TYPE(T2), t2.link);
	start();
	t2.eip = (word)k_call3;
	t3.eip = (word)k_iret;
	rt_gdt[GATE / 8] = (uint64_t)T2 << 16 | 0x85ull << 40;
	check_trap("nested calls, by a task gate", go(x_gate_call), VEC_END, 0);
	check("nested calls: back",
	      rt_last.r.dx == 0x78 && t2.esi == 0x3333 && t3.ecx == 1 && t3.link == T2 && str() == T1, "%#lx %#x %#x",
	      (word)rt_last.r.dx, t2.esi, t3.link);
}

/* ---- interrupts and exceptions through task gates (SDM 3A 6.12.2) ---- */
static void gates(void)
{
	start();
	task_gate(0x60, T2, 0);
	t2.eip = (word)k_iret;
	check_trap("int through a task gate", go(x_int), VEC_END, 0);
	check("int: back at the next instruction", rt_last.r.dx == 0x79 && t2.ecx == 1 && t2.link == T1, "%#lx %#x",
	      (word)rt_last.r.dx, t2.ecx);
	start();
	rt_user_regs(&r, x_int);
	check_trap("int through a task gate: DPL", rt_run(&r), VEC_GP, 0x60 * 8 + 2);
	task_gate(0x60, T2, 3);
	start();
	rt_user_regs(&r, x_int);
	check_trap("int through a task gate from ring 3", rt_run(&r), VEC_END, 0);
	check("int from ring 3: ring 3 is saved",
	      rt_tss.cs == SEL_UCODE && rt_tss.ss == SEL_UDATA && rt_tss.esp == r.sp && rt_tss.eip == (word)x_int + 2,
	      "%#x %#x", rt_tss.cs, rt_tss.esp);
	normal_gate(0x60);
	start();
	task_gate(VEC_GP, T2, 0);
	t2.eip = (word)k_err;
	check_trap("#GP through a task gate", TRY(__asm__ volatile("mov %0, %%fs" ::"r"(0x1000))), VEC_END, 0);
	check("#GP through a task gate: error code",
	      rt_last.r.ax == 0x1000 && t2.link == T1 && (rt_last.r.flags & FL_NT), "%#lx", (word)rt_last.r.ax);
	normal_gate(VEC_GP);
	start();
	task_gate(VEC_UD, T2, 0);
	check_trap("#UD through a task gate", go(x_ud), VEC_END, 0);
	check("#UD through a task gate: no error code, eip of the fault",
	      rt_last.r.sp == t2.esp && rt_tss.eip == (word)x_ud, "%#lx %#x", (word)rt_last.r.sp, rt_tss.eip);
	normal_gate(VEC_UD);
	start();
	task_gate(VEC_DF, T3, 0);
	rt_idt[VEC_UD].type =
		0x0e; /* not present: #NP while #UD is delivered is no double fault; #NP's gate not present is */
	rt_idt[VEC_NP].type = 0x0e;
	t3.eip = (word)k_err;
	check_trap("double fault through a task gate", go(x_ud), VEC_END, 0);
	check("double fault: error code 0", rt_last.r.ax == 0 && t3.link == T1 && str() == T3, "%#lx tr %#x",
	      (word)rt_last.r.ax, str());
	normal_gate(VEC_DF);
	normal_gate(VEC_UD);
	normal_gate(VEC_NP);
}

/* ---- faults of the old task: nothing has changed (SDM 3A 7.3, steps 1 to 11; SDM 2A JMP, CALL) ---- */
static int user_jump(unsigned sel)
{
	static struct {
		uint32_t off;
		uint16_t sel;
	} __attribute__((packed)) p;

	p.sel = (uint16_t)sel;
	rt_user_regs(&r, x_jmp_indirect);
	r.bx = (word)&p;
	return rt_run(&r);
}

static void old_task_faults(void)
{
	start();
	describe(T2, &t2, 0x67, 0x8b);
	check_trap("jmp to a busy TSS", go(x_jmp), VEC_GP, T2);
	check_trap("call to a busy TSS", go(x_call), VEC_GP, T2);
	describe(T2, &t2, 0x67, 0x09);
	check_trap("jmp to a TSS that is not present", go(x_jmp), VEC_NP, T2);
	describe(T2, &t2, 0x66, 0x89);
	check_trap("jmp to a TSS too short", go(x_jmp), VEC_TS, T2);
	check("a fault of the old task changes nothing",
	      TYPE(T1) == 0x8b && TYPE(T2) == 0x89 && str() == T1 && rt_last.r.ip == (word)x_jmp_to - 7, "%#x %#x %#lx",
	      TYPE(T1), TYPE(T2), (word)rt_last.r.ip);
	describe(T2, &t2, 0x67, 0x89);
	check_trap("jmp to a TSS of ring 0 from ring 3", user_jump(T2), VEC_GP, T2);
	describe(T2, &t2, 0x67, 0xe9);
	check_trap("jmp to a TSS of ring 3 from ring 3", user_jump(T2 | 3), VEC_END, 0);
	start();
	rt_gdt[GATE / 8] = (uint64_t)T2 << 16 | 0x85ull << 40;
	check_trap("a task gate of ring 0 from ring 3", user_jump(GATE | 3), VEC_GP, GATE);
	rt_gdt[GATE / 8] = (uint64_t)T2 << 16 | 0x05ull << 40;
	check_trap("a task gate that is not present", go(x_gate_jmp), VEC_NP, GATE);
	rt_gdt[GATE / 8] = (uint64_t)(T2 | 4) << 16 | 0x85ull << 40;
	SKIP_TCG("a task gate to a TSS in the LDT", "raises #TS")
	check_trap("a task gate to a TSS in the LDT", go(x_gate_jmp), VEC_GP, T2 | 4);
	rt_gdt[GATE / 8] = (uint64_t)0x1000 << 16 | 0x85ull << 40;
	check_trap("a task gate to beyond the GDT", go(x_gate_jmp), VEC_GP, 0x1000);
	rt_gdt[GATE / 8] = (uint64_t)SEL_DATA << 16 | 0x85ull << 40;
	check_trap("a task gate to no TSS", go(x_gate_jmp), VEC_GP, SEL_DATA);
	rt_tss.link = 0;
	check_trap("iret to a null link", go(x_iret_nt), VEC_TS, 0);
	rt_tss.link = T2;
	check_trap("iret to a task that is not busy", go(x_iret_nt), VEC_TS, T2);
	rt_tss.link = T2 | 4;
	check_trap("iret to a link in the LDT", go(x_iret_nt), VEC_TS, T2 | 4);
	describe(T2, &t2, 0x67, 0x0b);
	rt_tss.link = T2;
	check_trap("iret to a task that is not present", go(x_iret_nt), VEC_NP, T2);
	describe(T2, &t2, 0x67, 0x8b);
	check_trap("iret to a busy task", go(x_iret_nt), VEC_END, 0);
	check("iret with NT: the old task becomes available",
	      TYPE(T1) == 0x89 && TYPE(T2) == 0x8b && !(rt_tss.eflags & FL_NT), "%#x %#x %#x", TYPE(T1), TYPE(T2),
	      rt_tss.eflags);
	task_gate(0x60, T2 | 4, 0);
	start();
	SKIP_TCG("int: a task gate to the LDT", "raises #TS")
	check_trap("int: a task gate to the LDT", go(x_int), VEC_GP, T2 | 4);
	task_gate(0x60, T1, 0);
	check_trap("int: a task gate to the busy task", go(x_int), VEC_GP, T1);
	rt_idt[0x60].type = 0x05;
	check_trap("int: a task gate that is not present", go(x_int), VEC_NP, 0x60 * 8 + 2);
	normal_gate(0x60);
}

/* ---- faults of the new task: the switch has happened (SDM 3A 7.3 step 12 on, table 7-1) ---- */
static const struct {
	const char *name;
	int vec;
	unsigned err;
	size_t field; /* of the TSS, 32 bits */
	uint32_t value;
} bad[] = {
#define F(f) offsetof(struct tss, f)
	{"ldt beyond the GDT", VEC_TS, 0x1000, F(ldt), 0x1000},
	{"ldt that is a data segment", VEC_TS, SEL_DATA, F(ldt), SEL_DATA},
	{"ldt not present", VEC_TS, S1, F(ldt), S1},
	{"ldt in an ldt", VEC_TS, 4, F(ldt), 4},
	{"cs null", VEC_TS, 0, F(cs), 0},
	{"cs beyond the GDT", VEC_TS, 0x1000, F(cs), 0x1000},
	{"cs that is data", VEC_TS, SEL_DATA, F(cs), SEL_DATA},
	{"cs of another ring", VEC_TS, SEL_UCODE & ~3u, F(cs), SEL_UCODE & ~3u},
	{"cs not present", VEC_NP, S1 + 0x20, F(cs), S1 + 0x20},
	{"ss null", VEC_TS, 0, F(ss), 0},
	{"ss beyond the GDT", VEC_TS, 0x1000, F(ss), 0x1000},
	{"ss of another ring", VEC_TS, SEL_UDATA & ~3u, F(ss), SEL_UDATA},
	{"ss that is code", VEC_TS, SEL_CODE, F(ss), SEL_CODE},
	{"ss not present", VEC_SS, S1 + 0x28, F(ss), S1 + 0x28},
	{"ds beyond the GDT", VEC_TS, 0x1000, F(ds), 0x1000},
	{"es that is a TSS", VEC_TS, T2, F(es), T2},
	{"fs not present", VEC_NP, S1 + 0x28, F(fs), S1 + 0x28},
	{"gs beyond the GDT", VEC_TS, 0x2000, F(gs), 0x2000},
};

static void new_task_faults(void)
{
	struct batch b = {"faults of the new task", 0, 0};

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		int vec;

		if (cpu.tcg && bad[i].vec == VEC_SS)
			continue; /* TCG raises #NP */
		start();
		rt_gdt[S1 / 8] = seg_desc((uint32_t)(word)ldt, sizeof ldt - 1, 0x02, 0);
		rt_gdt[(S1 + 0x20) / 8] = seg_desc(0, 0xfffff, 0x1b, 12);
		rt_gdt[(S1 + 0x28) / 8] = seg_desc(0, 0xfffff, 0x13, 12);
		t3.eip = (word)k_err;
		task_gate((unsigned)bad[i].vec, T3, 0);
		*(uint32_t *)(void *)((uint8_t *)&t2 + bad[i].field) = bad[i].value;
		vec = go(x_jmp);
		batch_case(&b,
			   vec == VEC_END && rt_last.r.ax == bad[i].err && t3.link == T2 && TYPE(T1) == 0x89 &&
				   TYPE(T2) == 0x8b && str() == T3,
			   "%s: %d error %#lx link %#x types %#x %#x", bad[i].name, vec, (word)rt_last.r.ax, t3.link,
			   TYPE(T1), TYPE(T2));
		normal_gate((unsigned)bad[i].vec);
	}
	batch_end(&b);
	SKIP_TCG("eip beyond the new code segment", "has no code limits")
	{
		start();
		rt_gdt[S1 / 8] = seg_desc(0, 0xfff, 0x9b, 4);
		t2.cs = S1;
		t2.eip = 0x1000;
		check_trap("eip beyond the new code segment", go(x_jmp), VEC_GP, 0);
		check("eip beyond the new code segment: in the new task", str() == T2 && rt_last.r.ip == 0x1000,
		      "%#x %#lx", str(), (word)rt_last.r.ip);
	}
}

/* ---- the T bit (SDM 3B 17.3.1.5): #DB after the switch, before the first instruction ---- */
static void trap_bit(void)
{
	SKIP_TCG("T bit", "does not have it")
	{
		start();
		wr_dr6(0);
		t2.trap = 1;
		check_trap("T bit", go(x_jmp), VEC_DB, 0);
		check("T bit: in the new task, BT set",
		      rt_last.r.ip == (word)k_end && (rd_dr6() & 0x8000) && str() == T2, "%#lx dr6 %#lx",
		      (word)rt_last.r.ip, rd_dr6());
		wr_dr6(0);
	}
}

/* ---- rings, LDTs, virtual-8086 mode, page tables ---- */
extern char k_ldt[], k_page[];
__asm__(".pushsection .text\nk_ldt: movl %ds:8, %eax; sldt %ecx; int $0x80\nk_page: movl 0xc0000000, %eax; int $0x80\n.popsection\n");
CODE16(v_task, "movw %ds, %ax; movw (0x10), %bx; hlt");
static uint32_t dir1[1024] __attribute__((aligned(4096))), dir2[1024] __attribute__((aligned(4096)));

static void others(void)
{
	static uint32_t words[4] = {1, 2, 0x600df00d, 4};

	start();
	t2.cs = SEL_UCODE;
	t2.ss = SEL_UDATA;
	t2.ds = t2.es = t2.fs = t2.gs = SEL_UDATA;
	check_trap("a task of ring 3", go(x_jmp), VEC_END, 0);
	check("a task of ring 3: traps to its own esp0",
	      rt_last.r.cs == SEL_UCODE && rt_last.handler_sp == t2.esp0 - REGS_FRAME, "%#lx %#lx", (word)rt_last.r.cs,
	      rt_last.handler_sp);
	start();
	describe(LDT, ldt, sizeof ldt - 1, 0x82);
	ldt[1] = seg_desc((uint32_t)(word)words, sizeof words - 1, 0x93, 4);
	t2.ldt = LDT;
	t2.ds = 0xc;
	t2.eip = (word)k_ldt;
	check_trap("a task with an LDT", go(x_jmp), VEC_END, 0);
	check("a task with an LDT: data through it", rt_last.r.ax == 0x600df00d && rt_last.r.cx == LDT, "%#lx %#lx",
	      (word)rt_last.r.ax, (word)rt_last.r.cx);
	start();
	rm_put(RM_CODE, RM_IP, v_task, v_task_end);
	*(uint16_t *)rm_linear(RM_DATA, 0x10) = 0x5151;
	t2.eflags = FL_FIX | FL_VM;
	t2.cs = RM_CODE;
	t2.eip = RM_IP;
	t2.ss = RM_STACK;
	t2.esp = 0x800;
	t2.ds = RM_DATA;
	t2.es = t2.fs = t2.gs = 0x3333;
	check_trap("a task in virtual-8086 mode", go(x_jmp), VEC_GP, 0);
	check("virtual-8086 task: frame",
	      (rt_last.r.flags & FL_VM) && rt_last.r.cs == RM_CODE && rt_last.r.v_ds == RM_DATA &&
		      rt_last.r.v_gs == 0x3333 && rt_last.r.ax == RM_DATA && rt_last.r.bx == 0x5151 &&
		      rt_last.handler_sp == t2.esp0 - sizeof(struct regs),
	      "%#lx %#lx", (word)rt_last.r.flags, (word)rt_last.r.ax);
	for (unsigned i = 0; i < 1024; i++)
		dir1[i] = dir2[i] = i << 22 | 0x83;
	dir1[0x300] = 0 | 0x83;
	words[0] = 0x13579bdf;
	dir2[0x300] = ((uint32_t)(word)words & 0xffc00000) | 0x83;
	wr_cr4(rd_cr4() | CR4_PSE);
	wr_cr3((word)dir1);
	wr_cr0(rd_cr0() | CR0_PG);
	start();
	t2.cr3 = (word)dir2;
	t2.eip = (word)k_page;
	check_trap("a task with its own page tables", go(x_jmp), VEC_END, 0);
	check("page tables: switched",
	      rd_cr3() == (word)dir2 && rt_last.r.ax == *(uint32_t *)((word)words & 0xffc00000), "cr3 %#lx", rd_cr3());
	wr_cr0(rd_cr0() & ~(word)CR0_PG);
}

/* ---- 16-bit TSSs (SDM 3A 7.6): code and stack in segments below 64 KiB ---- */
extern uint8_t k16_iret[], k16_end[];
__asm__(".pushsection .text\nk16_iret: incl %ecx; iretl; incl %ecx; k16_mark: movl $0x10, %eax; movl %eax, %ss; movl $rt_run_stack + 4096, %esp; int $0x80\nk16_end:\n.popsection\n");
extern uint8_t k16_mark[];

static void task16(uint32_t ip)
{
	memcpy((void *)rm_linear(0x1000, 0), k16_iret, (size_t)(k16_end - k16_iret));
	rt_gdt[CODE_LOW / 8] = seg_desc(0x10000, 0xffff, 0x9b, 4);
	rt_gdt[DATA_LOW / 8] = seg_desc(0x20000, 0xffff, 0x93, 4);
	memset(&t16, 0, sizeof t16);
	t16.ip = (uint16_t)ip;
	t16.flags = FL_FIX | FL_DF;
	t16.cs = CODE_LOW;
	t16.ss = DATA_LOW;
	t16.ds = t16.es = SEL_DATA;
	t16.sp = 0xf00;
	t16.bx = 0x1234;
	t16.di = 0x5678;
	t16.sp0 = 0x1000;
	t16.ss0 = DATA_LOW;
}

static void tss16(void)
{
	start();
	task16((uint32_t)(k16_mark - k16_iret));
	check_trap("jmp to a 16-bit TSS", go(x_jmp16), VEC_END, 0);
	check("16-bit TSS: state",
	      (uint16_t)rt_last.r.bx == 0x1234 && (uint16_t)rt_last.r.di == 0x5678 && rt_last.r.cs == CODE_LOW &&
		      (rt_last.r.flags & FL_DF) && rt_last.r.ds == SEL_DATA && rt_last.r.fs == 0 && TYPE(T16) == 0x83 &&
		      TYPE(T1) == 0x89 && str() == T16,
	      "%#lx %#lx", (word)rt_last.r.bx, (word)rt_last.r.cs);
	start();
	task16(0);
	check_trap("call to a 16-bit TSS and iret", go(x_call16), VEC_END, 0);
	check("16-bit TSS: back, saved in 16 bits",
	      rt_last.r.dx == 0x7a && t16.cx == 1 && t16.ip == 2 && t16.link == T1 && !(t16.flags & FL_NT) &&
		      TYPE(T16) == 0x81 && str() == T1,
	      "%#lx cx %#x ip %#x link %#x", (word)rt_last.r.dx, t16.cx, t16.ip, t16.link);
	start();
	task16(0);
	describe(T16, &t16, sizeof t16 - 2, 0x81);
	check_trap("a 16-bit TSS too short", go(x_jmp16), VEC_TS, T16);
	start();
	task16((uint32_t)(k16_mark - k16_iret));
	t16.cs = SEL_DATA;
	task_gate(VEC_TS, T3, 0);
	t3.eip = (word)k_err;
	check_trap("a 16-bit TSS with a bad cs", go(x_jmp16), VEC_END, 0);
	check("a 16-bit TSS with a bad cs: #TS in the new task", rt_last.r.ax == SEL_DATA && t3.link == T16, "%#lx %#x",
	      (word)rt_last.r.ax, t3.link);
	normal_gate(VEC_TS);
}

void flat_main(void)
{
	jumps();
	calls();
	gates();
	old_task_faults();
	new_task_faults();
	trap_bit();
	others();
	tss16();
	start();
}
