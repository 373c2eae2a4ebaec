/*
 * Virtual-8086 mode: in by iret, out by exceptions and interrupts, what traps
 * there and what does not, and the extensions for virtual interrupts.
 * SDM 3A 20.2 to 20.4; the pseudocode of INT n, IRET, PUSHF, POPF, CLI, STI in SDM 2.
 * Invariant: the code under test starts at RM_CODE:RM_IP with the registers
 * vregs() gives, and ends with an exception: hlt is one in every case.
 */
#include "rm.h"

static struct regs r;

static void vregs(unsigned iopl)
{
	memset(&r, 0, sizeof r);
	r.cs = RM_CODE;
	r.ip = RM_IP;
	r.ss = RM_STACK;
	r.sp = 0x1000;
	r.v_ds = r.v_es = RM_DATA;
	r.v_fs = 0x3100;
	r.v_gs = 0x3200;
	r.flags = FL_VM | FL_FIX | iopl << 12;
}

static int go(const uint8_t *from, const uint8_t *to)
{
	rm_put(r.cs, r.ip, from, to);
	return rt_run(&r);
}
#define GO(iopl, code) (vregs(iopl), go(code, code##_end))
#define HLT            "\nhlt\n"

static uint16_t *data(uint32_t off)
{
	return rm_linear(RM_DATA, off);
}

/* ---- the frame of nine words (SDM 3A 20.2.3, figure 20-4) ---- */
CODE16(v_regs, "movw %cs, %ax; movw %ds, %bx; movw %fs, %cx; movw %gs, %dx; movw %ss, %si; movw %es, %di" HLT);
CODE16(v_store,
       "movw $0x10, %bx; movw $0xbeef, (%bx); movw $0x77, %bp; movw %bp, (%bp); movw $0xffff, %ax; movw %ax, %es; movw %es:0xffe0, "
       "%cx; movl $0x20, %esi; movl $0x12345678, (%esi); pushw %ds; popw %es; pushl $0x98765432; popl %edx" HLT);
CODE16(v_big_ip, "hlt");

static void entry(void)
{
	check_trap("in by iret, out by hlt", GO(0, v_regs), VEC_GP, 0);
	check("segments inside",
	      rt_last.r.ax == RM_CODE && rt_last.r.bx == RM_DATA && rt_last.r.cx == 0x3100 && rt_last.r.dx == 0x3200 &&
		      rt_last.r.si == RM_STACK && rt_last.r.di == RM_DATA,
	      "%#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.bx);
	check("frame of nine words",
	      rt_last.handler_sp == rt_tss.esp0 - sizeof(struct regs) && rt_last.r.cs == RM_CODE &&
		      rt_last.r.ip == RM_IP + (word)(v_regs_end - v_regs) - 1 && rt_last.r.ss == RM_STACK &&
		      rt_last.r.sp == 0x1000 && rt_last.r.v_es == RM_DATA && rt_last.r.v_ds == RM_DATA &&
		      rt_last.r.v_fs == 0x3100 && rt_last.r.v_gs == 0x3200,
	      "sp %#lx cs:ip %#lx:%#lx", rt_last.handler_sp, (word)rt_last.r.cs, (word)rt_last.r.ip);
	check("frame: flags", (rt_last.r.flags & (FL_VM | FL_IOPL)) == FL_VM && (cpu.tcg || (rt_last.r.flags & FL_RF)),
	      "%#lx", /* TCG has no RF here */
	      (word)rt_last.r.flags);
	check("data segments are null in the handler", !rt_last.r.ds && !rt_last.r.es && !rt_last.r.fs && !rt_last.r.gs,
	      "%#lx %#lx", (word)rt_last.r.ds, (word)rt_last.r.es);
	*data(0x10) = 0;
	check_trap("segments are selector * 16", GO(3, v_store), VEC_GP, 0);
	check("addresses",
	      *data(0x10) == 0xbeef && rm_word(RM_STACK, 0x77) == 0x77 &&
		      *(uint32_t *)(void *)data(0x20) == 0x12345678 &&
		      (rt_last.r.cx & 0xffff) == *(uint16_t *)rm_linear(0xffff, 0xffe0) && rt_last.r.dx == 0x98765432 &&
		      rt_last.r.sp == 0x1000,
	      "%#x %#lx", *data(0x10), (word)rt_last.r.cx);
	SKIP_TCG("iret to an eip beyond 64 KiB", "does not look")
	{
		vregs(0);
		r.ip = 0x10000;
		check_trap("iret to an eip beyond 64 KiB", rt_run(&r), VEC_GP, 0);
		check("iret to an eip beyond 64 KiB: faults at the iret", !(rt_last.r.flags & FL_VM), "%#lx",
		      (word)rt_last.r.flags);
	}
}

/* ---- limits are 64 KiB whatever the segments had before (SDM 3A 20.2.1) ---- */
CODE16(n_word, "movw 0xffff, %ax" HLT);
CODE16(n_a32, "movl $0x10000, %ebx; movb (%ebx), %al" HLT);
CODE16(n_bp, "movw $0xffff, %bp; movw (%bp), %ax" HLT);
CODE16(n_push, "movw $1, %sp; pushw %ax" HLT);
CODE16(n_ip, "nop; nop; nop; nop");
CODE16(n_wrap, "xorw %sp, %sp; pushw %ax; popw %bx; movw %sp, %dx" HLT);

static void limits(void)
{
	check_trap("stack pointer wraps", GO(3, n_wrap), VEC_GP, 0);
	check_eq("stack pointer wraps: sp", rt_last.r.dx & 0xffff, 0);
	if (cpu.tcg) {
		skip("limits in virtual-8086 mode", "TCG: has no limits");
		return;
	}
	check_trap("word at 0xffff", GO(3, n_word), VEC_GP, 0);
	check_eq("word at 0xffff: ip", rt_last.r.ip, RM_IP);
	check_trap("32-bit address beyond 64 KiB", GO(3, n_a32), VEC_GP, 0);
	check_trap("word at bp 0xffff", GO(3, n_bp), VEC_SS, 0);
	check_trap("push at sp 1", GO(3, n_push), VEC_SS, 0);
	check_eq("push at sp 1: sp stays", rt_last.r.sp & 0xffff, 1);
	vregs(3);
	r.ip = 0xfffc;
	check_trap("running over 64 KiB", go(n_ip, n_ip_end), VEC_GP, 0);
}

/* ---- what IOPL decides (SDM 3A 20.2.7, 20.2.8) ---- */
CODE16(s_cli, "cli" HLT);
CODE16(s_sti, "sti" HLT);
CODE16(s_pushf, "pushfw; popw %ax" HLT);
CODE16(s_pushfl, "pushfl; popl %eax" HLT);
CODE16(s_popf, "pushw $0x3ad7; popfw" HLT);
CODE16(s_popfl, "pushl $0x243ad7; popfl" HLT);
CODE16(s_int, "int $0x55" HLT);
CODE16(s_iret, "pushw $0x0247; pushw $0x1000; pushw $(1f - s_iret + 0x100); iretw; 1: movw $7, %ax" HLT);
CODE16(s_iretl, "pushl $0x40247; pushl $0x1000; pushl $(1f - s_iretl + 0x100); iretl; 1: movw $7, %ax" HLT);
CODE16(s_int3, "int3" HLT);
CODE16(s_into, "movb $0x7f, %al; incb %al; into" HLT);
CODE16(s_icebp, ".byte 0xf1" HLT);
#define ROW(n, at)                         \
	{                                  \
#n, s_##n, s_##n##_end, at \
	}
static const struct {
	const char *name;
	uint8_t *from, *to;
	unsigned at;
} sensitive[] = {ROW(cli, 0),   ROW(sti, 0), ROW(pushf, 0), ROW(pushfl, 0), ROW(popf, 3),
		 ROW(popfl, 6), ROW(int, 0), ROW(iret, 9),  ROW(iretl, 18)};

static void iopl(void)
{
	struct batch b = {"IOPL below 3: sensitive instructions", 0, 0};

	for (unsigned l = 0; l < 3; l++)
		for (unsigned i = 0; i < sizeof sensitive / sizeof *sensitive; i++) {
			int vec;

			vregs(l);
			vec = go(sensitive[i].from, sensitive[i].to);
			batch_case(&b, vec == VEC_GP && rt_last.err == 0 && rt_last.r.ip == RM_IP + sensitive[i].at,
				   "%s with IOPL %u: %d at %#lx", sensitive[i].name, l, vec, (word)rt_last.r.ip);
		}
	batch_end(&b);
	vregs(3);
	r.flags |= FL_IF;
	check_trap("IOPL 3: cli", go(s_cli, s_cli_end), VEC_GP, 0);
	check("IOPL 3: cli clears IF", !(rt_last.r.flags & FL_IF) && rt_last.r.ip == RM_IP + 1, "%#lx",
	      (word)rt_last.r.flags);
	GO(3, s_sti);
	check("IOPL 3: sti sets IF", (rt_last.r.flags & FL_IF) && rt_last.r.ip == RM_IP + 1, "%#lx",
	      (word)rt_last.r.flags);
	GO(3, s_pushf);
	check_eq("IOPL 3: pushf", rt_last.r.ax & 0xf2ff, 0x3002);
	GO(3, s_pushfl);
	check_eq("IOPL 3: pushfl shows no VM", rt_last.r.ax & ~0xffu, 0x3000);
	vregs(3);
	rm_put(RM_CODE, RM_IP, (const uint8_t *)"\x68\xd7\x0a\x9d\xf4",
	       (const uint8_t *)"\x68\xd7\x0a\x9d\xf4" + 5); /* push 0ad7; popf */
	rt_run(&r);
	check_eq("IOPL 3: popf changes flags and IF, not IOPL", rt_last.r.flags & ~FL_RF, FL_VM | 0x3ad7);
	GO(3, s_popfl);
	check_eq("IOPL 3: popfl, VM stays", rt_last.r.flags & ~FL_RF, FL_VM | 0x243ad7);
	GO(3, s_iret);
	check("IOPL 3: iret, IOPL stays", rt_last.r.ax == 7 && (rt_last.r.flags & ~FL_RF) == (FL_VM | 0x3247), "%#lx",
	      (word)rt_last.r.flags);
	GO(3, s_iretl);
	check("IOPL 3: iretl", rt_last.r.ax == 7 && (rt_last.r.flags & ~FL_RF) == (FL_VM | 0x43247), "%#lx",
	      (word)rt_last.r.flags);
}

/* ---- interrupts go through the IDT (SDM 3A 20.3.1) ---- */
static void gates(void)
{
	gate_set(0x55, rt_stubs + 16 * 0x55, 0xee, 0);
	check_trap("int n with IOPL 3", GO(3, s_int), 0x55, ~(word)0);
	check("int n: ip is the next one's", rt_last.r.ip == RM_IP + 2 && (rt_last.r.flags & FL_VM), "%#lx",
	      (word)rt_last.r.ip);
	gate_set(0x55, rt_stubs + 16 * 0x55, 0x8e, 0);
	check_trap("int n: the gate's DPL", GO(3, s_int), VEC_GP, 0x55 * 8 + 2);
	gate_set(0x55, rt_stubs + 16 * 0x55, 0xee, 0);
	rt_idt[0x55].sel = SEL_UCODE & ~3; /* a handler must be of ring 0 (SDM 2A INT n: from virtual-8086 mode) */
	check_trap("int n: a handler of ring 3", GO(3, s_int), VEC_GP, SEL_UCODE & ~3u);
	rt_gdt[RM_CS16 / 8] = seg_desc(0, 0xfffff, 0x9f, 12);
	rt_idt[0x55].sel = RM_CS16;
	check_trap("int n: a conforming handler", GO(3, s_int), VEC_GP, RM_CS16);
	gate_set(VEC_BP, rt_stubs + 16 * VEC_BP, 0xee, 0);
	gate_set(VEC_OF, rt_stubs + 16 * VEC_OF, 0xee, 0);
	check_trap("int3 is not sensitive", GO(0, s_int3), VEC_BP, ~(word)0);
	check_eq("int3: ip", rt_last.r.ip, RM_IP + 1);
	check_trap("into is not sensitive", GO(0, s_into), VEC_OF, ~(word)0);
	gate_set(VEC_BP, rt_stubs + 16 * VEC_BP, 0x8e, 0);
	gate_set(VEC_OF, rt_stubs + 16 * VEC_OF, 0x8e, 0);
	check_trap("int3: the gate's DPL", GO(3, s_int3), VEC_GP, VEC_BP * 8 + 2);
	SKIP_TCG("icebp", "takes it for undefined")
	check_trap("icebp needs no DPL", GO(0, s_icebp), VEC_DB, ~(word)0);
}

/* A 16-bit interrupt gate pushes nine words of 16 bits. */
CODE16(g16,
       "movw $0x10, %ax; movw %ax, %ds; movw %sp, %si; movl $0x10, %eax; xorl %edi, %edi; movl $copy16, %edi; movl $9, %ecx; 1: movw "
       "%ss:(%si), %ax; movw %ax, (%edi); addw $2, %si; addl $2, %edi; loop 1b; ljmpl $8, $back16");
extern uint16_t copy16[9];
uint16_t copy16[9];
extern char back16[];
__asm__(".pushsection .text\nback16: movl $0x10, %eax; movl %eax, %ss; movl $rt_run_stack + 4096, %esp; int $0x80\n.popsection\n");

static void gate16(void)
{
	uint32_t ss0 = rt_tss.ss0, esp0 = rt_tss.esp0;

	rm_put(0x4000, 0, g16, g16_end);
	rt_gdt[RM_CS16 / 8] = seg_desc(0x40000, 0xffff, 0x9b, 0);
	rt_gdt[RM_SS16 / 8] = seg_desc(0x48000, 0xffff, 0x93, 0);
	rt_idt[0x55] = (struct gate){.sel = RM_CS16, .type = 0xe6};
	rt_tss.ss0 = RM_SS16;
	rt_tss.esp0 = 0x1000;
	check_trap("a 16-bit gate", GO(3, s_int), VEC_END, ~(word)0);
	rt_tss.ss0 = ss0;
	rt_tss.esp0 = esp0;
	check("a 16-bit gate: frame of nine 16-bit words",
	      copy16[0] == RM_IP + 2 && copy16[1] == RM_CODE && (copy16[2] & 0x3002) == 0x3002 && copy16[3] == 0x1000 &&
		      copy16[4] == RM_STACK && copy16[5] == RM_DATA && copy16[6] == RM_DATA && copy16[7] == 0x3100 &&
		      copy16[8] == 0x3200,
	      "%#x %#x %#x %#x %#x", copy16[0], copy16[1], copy16[2], copy16[3], copy16[4]);
}

/* ---- privileged and undefined instructions (SDM 3A 20.2.7, 20.1.3), whatever IOPL is ---- */
CODE16(p_cr0, "movl %cr0, %eax" HLT);
CODE16(p_cr3, "movl %eax, %cr3" HLT);
CODE16(p_dr7, "movl %dr7, %eax" HLT);
CODE16(p_lgdt, "lgdtl 0" HLT);
CODE16(p_lidt, "lidtl 0" HLT);
CODE16(p_lmsw, "lmsww %ax" HLT);
CODE16(p_clts, "clts" HLT);
CODE16(p_invd, "wbinvd" HLT);
CODE16(p_invlpg, "invlpg 0" HLT);
CODE16(p_rdmsr, "rdmsr" HLT);
CODE16(p_wrmsr, "wrmsr" HLT);
CODE16(q_sldt, "sldtw %ax" HLT);
CODE16(q_str, "strw %ax" HLT);
CODE16(q_lldt, "lldtw %ax" HLT);
CODE16(q_ltr, "ltrw %ax" HLT);
CODE16(q_verr, "verr %ax" HLT);
CODE16(q_verw, "verw %ax" HLT);
CODE16(q_lar, "larw %ax, %bx" HLT);
CODE16(q_lsl, "lslw %ax, %bx" HLT);
CODE16(q_arpl, "arpl %ax, %bx" HLT);
CODE16(q_vex, ".byte 0xc5, 0xf8, 0x77" HLT);
#define PRIV(n)                                \
	{                                      \
#n, p_##n, p_##n##_end, VEC_GP \
	}
#define UNDEF(n)                               \
	{                                      \
#n, q_##n, q_##n##_end, VEC_UD \
	}
static const struct {
	const char *name;
	uint8_t *from, *to;
	int vec;
} not_here[] = {PRIV(cr0),  PRIV(cr3),    PRIV(dr7),   PRIV(lgdt),  PRIV(lidt),  PRIV(lmsw),  PRIV(clts),
		PRIV(invd), PRIV(invlpg), PRIV(rdmsr), PRIV(wrmsr), UNDEF(sldt), UNDEF(str),  UNDEF(lldt),
		UNDEF(ltr), UNDEF(verr),  UNDEF(verw), UNDEF(lar),  UNDEF(lsl),  UNDEF(arpl), UNDEF(vex)};
CODE16(f_far, "lcallw $0x1800, $0; movw %sp, %di" HLT);
CODE16(f_far_to, "movw %cs, %ax; movw %sp, %bx; movw %ss:2(%bx), %dx; lretw");
CODE16(f_str,
       "cld; movw $0x200, %si; movw $0x300, %di; movw $8, %cx; rep movsw; movw $0x3100, %ax; movw %ax, %ds; movw %ds, %bx; smsww %dx" HLT);

static void privileged(void)
{
	struct batch b = {"privileged, and not there", 0, 0};

	for (unsigned i = 0; i < sizeof not_here / sizeof *not_here; i++) {
		int vec;

		vregs(3);
		vec = go(not_here[i].from, not_here[i].to);
		batch_case(&b, vec == not_here[i].vec && rt_last.err == 0 && rt_last.r.ip == RM_IP, "%s: %d at %#lx",
			   not_here[i].name, vec, (word)rt_last.r.ip);
	}
	batch_end(&b);
	rm_put(0x1800, 0, f_far_to, f_far_to_end);
	check_trap("far call and return", GO(0, f_far), VEC_GP, 0);
	check("far call: frame", rt_last.r.ax == 0x1800 && rt_last.r.dx == RM_CODE && rt_last.r.di == 0x1000,
	      "%#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.dx);
	for (unsigned i = 0; i < 16; i += 2)
		*data(0x200 + i) = (uint16_t)(0x5000 + i);
	check_trap("strings, segment loads", GO(0, f_str), VEC_GP, 0);
	check("strings: all",
	      !memcmp(data(0x200), data(0x300), 16) && rt_last.r.bx == 0x3100 && rt_last.r.v_ds == 0x3100 &&
		      (rt_last.r.dx & 1),
	      "%#lx", (word)rt_last.r.bx);
}

/* ---- ports: the bitmap decides, IOPL does not (SDM 3A 20.2.8.1) ---- */
CODE16(io_in, "inb $0x80, %al; movw $0x2b2, %dx; inw %dx, %ax; movb $1, %cl" HLT);

static void ports(void)
{
	check_trap("port forbidden, IOPL 3", GO(3, io_in), VEC_GP, 0);
	check_eq("port forbidden: ip", rt_last.r.ip, RM_IP);
	rt_tss.iobits[0x80 / 8] &= (uint8_t)~1;
	check_trap("port allowed, the next one not", GO(0, io_in), VEC_GP, 0);
	check_eq("port allowed: got on", rt_last.r.ip, RM_IP + 5);
	rt_tss.iobits[0x2b2 / 8] &= (uint8_t)~4;
	GO(0, io_in);
	check_eq("a word port needs two bits", rt_last.r.ip, RM_IP + 5);
	rt_tss.iobits[0x2b2 / 8] &= (uint8_t)~8;
	GO(0, io_in);
	check_eq("a word port with both", rt_last.r.cx & 0xff, 1);
	memset(rt_tss.iobits, 0xff, sizeof rt_tss.iobits);
}

/* ---- debug traps, and the return from a handler ---- */
CODE16(t_step, "nop; incw %ax; incw %ax" HLT);

static unsigned steps;
static word step_ip[8];
static bool hook_step(struct regs *g)
{
	if (g->vec != VEC_DB)
		return false;
	if (steps < 8)
		step_ip[steps] = g->ip;
	return ++steps < 8;
}

static void stepping(void)
{
	steps = 0;
	rt_hook = hook_step;
	vregs(0);
	r.flags |= FL_TF;
	check_trap("stepping through iret", go(t_step, t_step_end), VEC_GP, 0);
	rt_hook = NULL;
	check("stepping: three traps",
	      steps == 3 && step_ip[0] == RM_IP + 1 && step_ip[2] == RM_IP + 3 && rt_last.r.ax == 2, "%u %#lx", steps,
	      step_ip[0]);
}

/* VM cannot be set from ring 3 (SDM 2A IRET, POPF), nor by popf in ring 0. */
extern char c_vm3[], c_vm0[];
__asm__(".pushsection .text\nc_vm3: pushl $0x23; pushl %esp; pushl $0x20202; pushl $0x1b; pushl $1f; iretl; 1: pushfl; popl %eax; int $0x80\n"
	"c_vm0: pushl $0x20002; popfl; pushfl; popl %eax; int $0x80\n.popsection\n");

static void vm_bit(void)
{
	SKIP_TCG("iret in ring 3 leaves VM alone", "does not look at CPL")
	{
		rt_user_regs(&r, c_vm3);
		check_trap("iret in ring 3 leaves VM alone", rt_run(&r), VEC_END, 0);
		check("iret in ring 3: no VM", !(rt_last.r.flags & FL_VM), "%#lx", (word)rt_last.r.flags);
	}
	rt_regs(&r, c_vm0);
	check_trap("popf in ring 0 leaves VM alone", rt_run(&r), VEC_END, 0);
}

/* ---- VME (SDM 3A 20.3, table 20-2; SDM 2 CLI, STI, PUSHF, POPF, IRET, INT n) ---- */
#define REDIR (rt_tss.iobits) /* the 32 bytes before the bitmap of ports */
CODE16(e_hlt, "hlt");
CODE16(e_popf_if, "pushw $0x0203; popfw" HLT);
CODE16(e_popf_tf, "pushw $0x0103; popfw" HLT);
CODE16(e_iret_if, "pushw $0x0247; pushw $0x1000; pushw $(1f - e_iret_if + 0x100); iretw; 1: movw $7, %ax" HLT);

static void vme_int(unsigned l, bool redirected)
{
	uint16_t *ivt = rm_linear(0, 0);

	ivt[2 * 0x55] = 0x40;
	ivt[2 * 0x55 + 1] = 0x1800;
	rm_put(0x1800, 0x40, e_hlt, e_hlt_end);
	REDIR[0x55 / 8] = (uint8_t)(redirected ? 0 : 0xff);
	vregs(l);
}

static void vme_interrupts(void)
{
	vme_int(3, true);
	r.flags |= FL_IF | FL_CF;
	check_trap("VME, IOPL 3: int by the vector table", go(s_int, s_int_end), VEC_GP, 0);
	check("VME, IOPL 3: in the handler, IF clear",
	      rt_last.r.cs == 0x1800 && rt_last.r.ip == 0x40 && rt_last.r.sp == 0xffa && !(rt_last.r.flags & FL_IF),
	      "%#lx:%#lx", (word)rt_last.r.cs, (word)rt_last.r.ip);
	check("VME, IOPL 3: frame",
	      rm_word(RM_STACK, 0xffa) == RM_IP + 2 && rm_word(RM_STACK, 0xffc) == RM_CODE &&
		      (rm_word(RM_STACK, 0xffe) & 0x3201) == 0x3201,
	      "%#x %#x", rm_word(RM_STACK, 0xffa), rm_word(RM_STACK, 0xffe));
	vme_int(3, false);
	check_trap("VME, IOPL 3: int by the IDT", go(s_int, s_int_end), 0x55, ~(word)0);
	vme_int(0, false);
	check_trap("VME, IOPL 0: int traps", go(s_int, s_int_end), VEC_GP, 0);
	vme_int(0, true);
	r.flags |= FL_IF | FL_VIF;
	check_trap("VME, IOPL 0: int by the vector table", go(s_int, s_int_end), VEC_GP, 0);
	check("VME, IOPL 0: VIF clear, IF as it was",
	      rt_last.r.cs == 0x1800 && !(rt_last.r.flags & FL_VIF) && (rt_last.r.flags & FL_IF), "%#lx",
	      (word)rt_last.r.flags);
	check("VME, IOPL 0: the frame's flags have IOPL 3 and VIF as IF", (rm_word(RM_STACK, 0xffe) & 0x3200) == 0x3200,
	      "%#x", rm_word(RM_STACK, 0xffe));
	vme_int(0, true);
	r.flags |= FL_IF;
	go(s_int, s_int_end);
	check("VME, IOPL 0: and without VIF", (rm_word(RM_STACK, 0xffe) & 0x3200) == 0x3000, "%#x",
	      rm_word(RM_STACK, 0xffe));
}

static void vme_flags(void)
{
	vregs(0);
	r.flags |= FL_VIF;
	check_trap("VME: cli", go(s_cli, s_cli_end), VEC_GP, 0);
	check("VME: cli clears VIF", rt_last.r.ip == RM_IP + 1 && !(rt_last.r.flags & FL_VIF), "%#lx",
	      (word)rt_last.r.flags);
	GO(0, s_sti);
	check("VME: sti sets VIF",
	      rt_last.r.ip == RM_IP + 1 && (rt_last.r.flags & FL_VIF) && !(rt_last.r.flags & FL_IF), "%#lx",
	      (word)rt_last.r.flags);
	vregs(0);
	r.flags |= FL_VIP;
	check_trap("VME: sti with VIP", go(s_sti, s_sti_end), VEC_GP, 0);
	check("VME: sti with VIP traps", rt_last.r.ip == RM_IP && !(rt_last.r.flags & FL_VIF), "%#lx",
	      (word)rt_last.r.ip);
	vregs(0);
	r.flags |= FL_VIF;
	go(s_pushf, s_pushf_end);
	check_eq("VME: pushf shows VIF and IOPL 3", rt_last.r.ax & 0x3200, 0x3200);
	check_trap("VME: pushfl traps", GO(0, s_pushfl), VEC_GP, 0);
	check_eq("VME: pushfl: ip", rt_last.r.ip, RM_IP);
	GO(0, e_popf_if);
	check("VME: popf sets VIF",
	      rt_last.r.ip == RM_IP + 4 && (rt_last.r.flags & FL_VIF) && (rt_last.r.flags & FL_CF) &&
		      !(rt_last.r.flags & (FL_IF | FL_IOPL)),
	      "%#lx", (word)rt_last.r.flags);
	vregs(0);
	r.flags |= FL_VIP;
	go(e_popf_if, e_popf_if_end);
	check("VME: popf of IF with VIP traps", rt_last.r.ip == RM_IP + 3 && rt_last.r.sp == 0xffe, "%#lx",
	      (word)rt_last.r.ip);
	GO(0, e_popf_tf);
	check_eq("VME: popf of TF traps", rt_last.r.ip, RM_IP + 3);
	check_trap("VME: popfl traps", GO(0, s_popfl), VEC_GP, 0);
	check_eq("VME: popfl: ip", rt_last.r.ip, RM_IP + 6);
	GO(0, e_iret_if);
	check("VME: iret sets VIF",
	      rt_last.r.ax == 7 && (rt_last.r.flags & FL_VIF) && !(rt_last.r.flags & (FL_IF | FL_IOPL)), "%#lx",
	      (word)rt_last.r.flags);
	vregs(0);
	r.flags |= FL_VIP;
	go(e_iret_if, e_iret_if_end);
	check("VME: iret with VIP traps", rt_last.r.ip == RM_IP + 9 && rt_last.r.ax == 0, "%#lx", (word)rt_last.r.ip);
	check_trap("VME: iretl traps", GO(0, s_iretl), VEC_GP, 0);
	check_eq("VME: iretl: ip", rt_last.r.ip, RM_IP + 18);
}

/* ---- PVI (SDM 3A 20.4): ring 3's cli and sti ---- */
extern char c_pvi_cli[], c_pvi_sti[];
__asm__(".pushsection .text\nc_pvi_cli: cli; int $0x80\nc_pvi_sti: sti; int $0x80\n.popsection\n");

static void pvi(void)
{
	wr_cr4(rd_cr4() | CR4_PVI);
	rt_user_regs(&r, c_pvi_cli);
	r.flags |= FL_VIF;
	check_trap("PVI: cli", rt_run(&r), VEC_END, 0);
	check("PVI: cli clears VIF", !(rt_last.r.flags & FL_VIF), "%#lx", (word)rt_last.r.flags);
	rt_user_regs(&r, c_pvi_sti);
	check_trap("PVI: sti", rt_run(&r), VEC_END, 0);
	check("PVI: sti sets VIF", (rt_last.r.flags & FL_VIF) && !(rt_last.r.flags & FL_IF), "%#lx",
	      (word)rt_last.r.flags);
	r.flags |= FL_VIP;
	check_trap("PVI: sti with VIP", rt_run(&r), VEC_GP, 0);
	wr_cr4(rd_cr4() & ~(word)CR4_PVI);
	rt_user_regs(&r, c_pvi_sti);
	check_trap("without PVI: sti", rt_run(&r), VEC_GP, 0);
}

static void vme(void)
{
	uint32_t a, b, c, d;

	cpuid(1, 0, &a, &b, &c, &d);
	if (!(d & 2)) {
		skip("VME and PVI", "not offered");
		return;
	}
	gate_set(0x55, rt_stubs + 16 * 0x55, 0xee, 0);
	rt_tss.iomap += 32;
	wr_cr4(rd_cr4() | CR4_VME);
	vme_interrupts();
	vme_flags();
	wr_cr4(rd_cr4() & ~(word)CR4_VME);
	pvi();
}

void flat_main(void)
{
	entry();
	limits();
	iopl();
	gates();
	gate16();
	privileged();
	ports();
	stepping();
	vm_bit();
	vme();
}
