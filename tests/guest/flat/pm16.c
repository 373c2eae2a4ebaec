/*
 * 16-bit protected mode: 286 and 386 descriptors, stacks and code of both
 * sizes, gates of both sizes between rings, returns between them.
 * SDM 3A 3.4.5, 5.8, 6.12, 21 (mixing 16-bit and 32-bit code).
 * Invariant: 16-bit code lies at RM_CODE, its data at RM_DATA, its stack at
 * RM_STACK; descriptors() makes them afresh for each check.
 */
#include "rm.h"

enum {
	C16U = 0x50,
	D16U = 0x58,
	S16U = 0x60,
	C16K = 0x68,
	GATE = 0x70,
	X1 = 0x78,
	X2 = 0x80,
	C16C = 0x88,
	T286 = 0x90
};

static struct regs r;

static void descriptors(void)
{
	rt_gdt[C16U / 8] = seg_desc(RM_CODE * 16, 0xffff, 0xfb, 0);
	rt_gdt[D16U / 8] = seg_desc(RM_DATA * 16, 0xffff, 0xf3, 0);
	rt_gdt[S16U / 8] = seg_desc(RM_STACK * 16, 0xffff, 0xf3, 0);
	rt_gdt[C16K / 8] = seg_desc(RM_CODE * 16, 0xffff, 0x9b, 0);
	rt_gdt[C16C / 8] = seg_desc(RM_CODE * 16, 0xffff, 0x9f, 0);
}

static uint16_t *data(uint32_t off)
{
	return rm_linear(RM_DATA, off);
}

/* Ring 3, 16-bit code, data and stack. */
static void regs16(void)
{
	descriptors();
	rt_user_regs(&r, 0);
	r.ip = RM_IP;
	r.cs = C16U | 3;
	r.ds = r.es = D16U | 3;
	r.ss = S16U | 3;
	r.sp = 0xabcd1000; /* only sp counts */
}

static int go(const uint8_t *from, const uint8_t *to)
{
	rm_put(RM_CODE, r.ip, from, to);
	return rt_run(&r);
}
#define GO(code) (regs16(), go(code, code##_end))

/* ---- code, data and stack of 16 bits ---- */
CODE16(a_all,
       "movw $0x1234, %ax; movl $0x89abcdef, %ecx; pushw %ax; popw %dx; pushl %ecx; popl %esi; callw 1f; jmp 2f; 1: movw %sp, %di; retw; 2: "
       "incw %ax; movw %ax, 0x10; movw %ds:0x10, %bp; movw $3, %cx; 3: addw $5, %bx; loop 3b" END16);
CODE16(a_frame,
       "movl %esp, %eax; pushaw; movl %esp, 0x20; popaw; movl 0x20, %ebx; enterw $8, $1; movl %esp, %ecx; leavew; pushw %sp; popw %dx; movl %esp, %esi" END16);
CODE16(a_str,
       "cld; movw $0x200, %si; movw $0x300, %di; movw $8, %cx; rep movsw; movw $0x300, %di; movw $0x5008, %ax; movw $8, %cx; repne scasw" END16);
CODE16(a_jmp, ".byte 0xeb, 0x10");
CODE16(a_lim_d, "movw 0xffff, %ax" END16);
CODE16(a_lim_s, "movw $0xffff, %bp; movb (%bp), %al; movw (%bp), %ax" END16);
CODE16(a_lim_p, "movw $1, %sp; pushw %ax" END16);
CODE16(a_wrap, "movw $0, %sp; pushw $0x2222; movw %sp, %ax; popw %bx; movw %sp, %cx" END16);
CODE16(a_run, "nop; nop; nop; nop");
CODE16(a_div, "xorw %cx, %cx; divw %cx");

static void plain(void)
{
	check_trap("16-bit code", GO(a_all), VEC_END, 0);
	check("16-bit code: results",
	      (rt_last.r.ax & 0xffff) == 0x1235 && rt_last.r.si == 0x89abcdef && (rt_last.r.dx & 0xffff) == 0x1234 &&
		      (rt_last.r.di & 0xffff) == 0xffe && (rt_last.r.bp & 0xffff) == 0x1235 &&
		      (rt_last.r.bx & 0xffff) == 15 && *data(0x10) == 0x1235,
	      "eax %#lx esi %#lx edi %#lx", (word)rt_last.r.ax, (word)rt_last.r.si, (word)rt_last.r.di);
	check("16-bit code: cs, ip", rt_last.r.cs == (C16U | 3) && rt_last.r.ip == RM_IP + (word)(a_all_end - a_all),
	      "%#lx:%#lx", (word)rt_last.r.cs, (word)rt_last.r.ip);
	check_trap("frames on a 16-bit stack", GO(a_frame), VEC_END, 0);
	check("frames: sp moves, the rest of esp stays",
	      (rt_last.r.bx & 0xffff) == 0xff0 && (rt_last.r.cx & 0xffff) == 0x1000 - 4 - 8 &&
		      (rt_last.r.dx & 0xffff) == 0x1000 && rt_last.r.bx >> 16 == rt_last.r.ax >> 16 &&
		      rt_last.r.si == rt_last.r.ax,
	      "%#lx %#lx %#lx", (word)rt_last.r.bx, (word)rt_last.r.cx, (word)rt_last.r.dx);
	for (unsigned i = 0; i < 16; i += 2)
		*data(0x200 + i) = (uint16_t)(0x5000 + i);
	GO(a_str);
	check("strings",
	      !memcmp(data(0x200), data(0x300), 16) && (rt_last.r.di & 0xffff) == 0x30a && (rt_last.r.cx & 0xffff) == 3,
	      "%#lx %#lx", (word)rt_last.r.di, (word)rt_last.r.cx);
	GO(a_wrap);
	check("push at sp 0, pop at 0xfffe",
	      (rt_last.r.ax & 0xffff) == 0xfffe && (rt_last.r.bx & 0xffff) == 0x2222 && !(rt_last.r.cx & 0xffff),
	      "%#lx", (word)rt_last.r.ax);
	memcpy(rm_linear(RM_CODE, 0x2), "\xcd\x80", 2);
	regs16();
	r.ip = 0xfff0;
	check_trap("a short jump wraps at 64 KiB", go(a_jmp, a_jmp_end), VEC_END, 0);
	check_eq("a short jump wraps: ip", rt_last.r.ip, 4);
	check_trap("div by zero", GO(a_div), VEC_DE, 0);
	check_eq("div by zero: ip", rt_last.r.ip, RM_IP + 2);
}

static void limits(void)
{
	if (cpu.tcg) {
		skip("limits of 16-bit segments", "TCG: has no limits");
		return;
	}
	check_trap("word at 0xffff", GO(a_lim_d), VEC_GP, 0);
	check_trap("word at bp 0xffff", GO(a_lim_s), VEC_SS, 0);
	check_eq("byte at bp 0xffff is good", rt_last.r.ip, RM_IP + 6);
	check_trap("push at sp 1", GO(a_lim_p), VEC_SS, 0);
	regs16();
	r.ip = 0xfffd;
	check_trap("running over 64 KiB", go(a_run, a_run_end), VEC_GP, 0);
	regs16();
	rt_gdt[C16U / 8] = seg_desc(RM_CODE * 16, 0x101, 0xfb, 0);
	check_trap("running over a code limit", go(a_run, a_run_end), VEC_GP, 0);
	check_eq("running over a code limit: ip", rt_last.r.ip, 0x102);
}

/* Loads %ds:(%ebx) in 16-bit code. */
CODE16(d_load, "addr32 movw (%ebx), %ax" END16);

static void expand_down(void)
{
	struct batch b = {"expand-down data from 16-bit code", 0, 0};
	static const struct {
		uint32_t limit, off;
		unsigned flags;
		bool good;
	} t[] = {{0x7fff, 0x8000, 0, true},     {0x7fff, 0x7fff, 0, false},     {0x7fff, 0xfffe, 0, true},
		 {0x7fff, 0xffff, 0, false},    {0x7fff, 0x10000, 0, false},    {0x7fff, 0x10000, 4, true},
		 {0x7fff, 0xfffffffe, 4, true}, {0x7fff, 0xffffffff, 4, false}, {0xffff, 0xffff, 0, false},
		 {0xffff, 0x10000, 4, true}};

	if (cpu.tcg) {
		skip(b.name, "TCG: has no limits");
		return;
	}
	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		int vec;

		regs16();
		rt_gdt[D16U / 8] = seg_desc(RM_DATA * 16, t[i].limit, 0xf7, t[i].flags);
		r.bx = t[i].off;
		vec = go(d_load, d_load_end);
		batch_case(&b, vec == (t[i].good ? VEC_END : VEC_GP), "limit %#x flags %u at %#x: %d", t[i].limit,
			   t[i].flags, t[i].off, vec);
	}
	batch_end(&b);
}

/* ---- between the sizes (SDM 3A 21.4) ---- */
extern char t32_lret[], t32_lretw[], c_to16[], c_stack16[], c_to_stack32[];
__asm__(".pushsection .text\n"
	"t32_lret: movl %cs, %eax; movzwl %sp, %edx; movl %ss:(%edx), %esi; lretl\n"
	"c_to16: .byte 0x66; lcall *(%ebx)\n movl %esp, %edi; int $0x80\n"
	"c_stack16: movl %esp, %ebp; pushl $0x11112222; movl %esp, %ecx; pushal; popal; popl %edx; enter $16, $0; movl %esp, %esi; leave; pushl %ebp; "
	"popl %ebp; call 1f; 1: popl %edi; movl %esp, %eax; int $0x80\n"
	".popsection\n");
CODE16(s_to32, "lcalll $0x1b, $t32_lret; movl %esp, %edi" END16);
CODE16(s_from32, "movw %cs, %cx; movl %esp, %edx; addr32 movw (%esp), %si; lretw");
CODE16(s_stack32,
       "movl %esp, %ebp; pushw $0x1111; movl %esp, %ecx; pushl $5; popl %edx; popw %bx; callw 1f; 1: popw %di; enterw $8, $0; movl %esp, "
       "%eax; leavew; movl %esp, %esi" END16);

static void sizes(void)
{
	struct {
		uint16_t off, sel;
	} *p = (void *)rm_linear(RM_DATA, 0x40);

	check_trap("16-bit code calls 32-bit code", GO(s_to32), VEC_END, 0);
	check("16 to 32: frame of dwords",
	      rt_last.r.ax == SEL_UCODE && (rt_last.r.dx & 0xffff) == 0x1000 - 8 && (rt_last.r.di & 0xffff) == 0x1000,
	      "%#lx %#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.dx, (word)rt_last.r.di);
	descriptors();
	rm_put(RM_CODE, 0x300, s_from32, s_from32_end);
	p->off = 0x300;
	p->sel = C16U | 3;
	rt_user_regs(&r, c_to16);
	r.bx = (word)p;
	r.ip = (word)c_to16;
	/* the return address has 16 bits: the caller's code must lie below 64 KiB of its segment */
	rt_gdt[X1 / 8] = seg_desc((uint32_t)(word)c_to16 & ~0xffu, 0xffff, 0xfb, 4);
	r.cs = X1 | 3;
	r.ip = (word)c_to16 & 0xff;
	check_trap("32-bit code calls 16-bit code", rt_run(&r), VEC_END, 0);
	check("32 to 16: frame of words",
	      (rt_last.r.cx & 0xffff) == (C16U | 3) && rt_last.r.dx == r.sp - 4 && rt_last.r.di == r.sp,
	      "%#lx %#lx %#lx", (word)rt_last.r.cx, (word)rt_last.r.dx, (word)rt_last.r.di);
	rt_user_regs(&r, c_stack16);
	r.ss = S16U | 3;
	r.sp = 0x1000;
	check_trap("16-bit stack in 32-bit code", rt_run(&r), VEC_END, 0);
	check("16-bit stack in 32-bit code: sp",
	      (rt_last.r.cx & 0xffff) == 0xffc && rt_last.r.dx == 0x11112222 &&
		      (rt_last.r.si & 0xffff) == 0x1000 - 20 && rt_last.r.ax == rt_last.r.bp &&
		      rt_last.r.cx >> 16 == rt_last.r.bp >> 16,
	      "%#lx %#lx %#lx %#lx", (word)rt_last.r.cx, (word)rt_last.r.si, (word)rt_last.r.ax, (word)rt_last.r.bp);
	regs16();
	r.ss = SEL_UDATA;
	r.sp = (word)rt_user_stack + 4096;
	check_trap("32-bit stack in 16-bit code", go(s_stack32, s_stack32_end), VEC_END, 0);
	check("32-bit stack in 16-bit code: esp",
	      rt_last.r.bp == r.sp && rt_last.r.cx == r.sp - 2 && rt_last.r.dx == 5 &&
		      (rt_last.r.bx & 0xffff) == 0x1111 && rt_last.r.ax == r.sp - 10 && rt_last.r.si == r.sp,
	      "%#lx %#lx %#lx", (word)rt_last.r.cx, (word)rt_last.r.ax, (word)rt_last.r.si);
}

/* ---- call gates of both sizes (SDM 3A 5.8.5) ---- */
CODE16(g_call, "pushw $0x1111; pushw $0x2222; lcallw $0x73, $0; movl %esp, %ebp" END16);
CODE16(g_inner,
       "movw %cs, %ax; movl %esp, %ebx; movl %ss:(%ebx), %ecx; movl %ss:4(%ebx), %edx; movl %ss:8(%ebx), %esi; lretw $4");
CODE16(g_calll, "pushl $0x11113333; pushl $0x22224444; lcallw $0x73, $0; movl %esp, %ebp" END16);
CODE16(g_conf, "movw %cs, %ax; lcallw $0x8b, $0x500; movw %sp, %bp" END16);
CODE16(g_conf_to, "movw %cs, %dx; movw %sp, %si; lretw");
extern char k_gate32[];
__asm__(".pushsection .text\nk_gate32: movl %cs, %eax; movl (%esp), %ecx; movl 8(%esp), %edx; movl 12(%esp), %esi; movl 16(%esp), %edi; lretl $8\n.popsection\n");

static uint64_t gate(uint32_t off, unsigned sel, unsigned type, unsigned count)
{
	return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)count << 32 | (uint64_t)type << 40 |
	       (uint64_t)(off >> 16) << 48;
}

static void call_gates(void)
{
	rm_put(RM_CODE, 0x400, g_inner, g_inner_end);
	rt_gdt[GATE / 8] = gate(cpu.tcg ? 0x400 : 0xffff0400, C16K, 0xe4,
				2); /* a 286 gate has 16 bits of offset; TCG takes all 32 */
	check_trap("286 call gate", GO(g_call), VEC_END, 0);
	check("286 call gate: frame of words",
	      (rt_last.r.ax & 0xffff) == C16K && (rt_last.r.cx & 0xffff) == RM_IP + 11 &&
		      rt_last.r.cx >> 16 == (C16U | 3) && rt_last.r.dx == 0x11112222 &&
		      (rt_last.r.si & 0xffff) == 0xffc && rt_last.r.si >> 16 == (S16U | 3),
	      "ax %#lx %#lx %#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.cx, (word)rt_last.r.dx, (word)rt_last.r.si);
	check("286 call gate: back", rt_last.r.cs == (C16U | 3) && (rt_last.r.bp & 0xffff) == 0x1000, "%#lx sp %#lx",
	      (word)rt_last.r.cs, (word)rt_last.r.bp);
	rt_gdt[GATE / 8] = gate((uint32_t)(word)k_gate32, SEL_CODE, 0xec, 2);
	check_trap("386 call gate from 16-bit code", GO(g_calll), VEC_END, 0);
	check("386 call gate: frame of dwords",
	      rt_last.r.ax == SEL_CODE && rt_last.r.dx == 0x22224444 && rt_last.r.si == 0x11113333 &&
		      (rt_last.r.di & 0xffff) == 0xff8 && (rt_last.r.bp & 0xffff) == 0x1000,
	      "%#lx %#lx %#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.dx, (word)rt_last.r.si, (word)rt_last.r.di);
	rm_put(RM_CODE, 0x500, g_conf_to, g_conf_to_end);
	check_trap("conforming 16-bit code", GO(g_conf), VEC_END, 0);
	check("conforming: CPL stays", (rt_last.r.dx & 0xffff) == (C16C | 3) && (rt_last.r.si & 0xffff) == 0xffc,
	      "%#lx", (word)rt_last.r.dx);
}

/* ---- interrupt and trap gates of both sizes (SDM 3A 6.12.1) ---- */
CODE16(i_int, "movl $0x99990000, %edi; stc; int $0x60; movl %esp, %ebp" END16);
CODE16(i_inner,
       "movl %esp, %ebx; movl %ss:(%ebx), %ecx; movl %ss:4(%ebx), %edx; movl %ss:8(%ebx), %esi; pushfw; popw %di; iretw");
CODE16(i_err,
       "movl %esp, %ebx; movl %ss:(%ebx), %ecx; movl %ss:4(%ebx), %edx; addr32 addw $2, %ss:2(%ebx); addl $2, %esp; iretw");
CODE16(i_gp, "movw $0x1000, %ax; movw %ax, %fs; movl %esp, %ebp" END16);

static void gates16(void)
{
	for (unsigned trap = 0; trap < 2; trap++) {
		rm_put(RM_CODE, 0x600, i_inner, i_inner_end);
		rt_idt[0x60] = (struct gate){
			.off0 = 0x600, .sel = C16K, .type = (uint8_t)(0xe6 + trap), .off1 = cpu.tcg ? 0 : 0xffff};
		regs16();
		r.flags |= FL_IF;
		check_trap(trap ? "286 trap gate" : "286 interrupt gate", go(i_int, i_int_end), VEC_END, 0);
		check("286 gate: frame of words",
		      (rt_last.r.cx & 0xffff) == RM_IP + 9 && rt_last.r.cx >> 16 == (C16U | 3) &&
			      (rt_last.r.dx & 0x201) == 0x201 && rt_last.r.dx >> 16 == 0x1000 &&
			      (rt_last.r.si & 0xffff) == (S16U | 3),
		      "%#lx %#lx %#lx", (word)rt_last.r.cx, (word)rt_last.r.dx, (word)rt_last.r.si);
		check("286 gate: IF inside, flags back",
		      !(rt_last.r.di & FL_IF) == !trap && (rt_last.r.flags & (FL_IF | FL_CF)) == (FL_IF | FL_CF),
		      "%#lx %#lx", (word)rt_last.r.di, (word)rt_last.r.flags);
		check("286 gate: back on the old stack",
		      rt_last.r.cs == (C16U | 3) && (rt_last.r.bp & 0xffff) == 0x1000, "%#lx", (word)rt_last.r.bp);
	}
	rm_put(RM_CODE, 0x600, i_err, i_err_end);
	rt_idt[VEC_GP] = (struct gate){.off0 = 0x600, .sel = C16K, .type = 0x86};
	check_trap("#GP through a 286 gate", GO(i_gp), VEC_END, 0);
	check("#GP through a 286 gate: error code of 16 bits, ip",
	      (rt_last.r.cx & 0xffff) == 0x1000 && rt_last.r.cx >> 16 == RM_IP + 3, "%#lx %#lx", (word)rt_last.r.cx,
	      (word)rt_last.r.dx);
	gate_set(VEC_GP, rt_stubs + 16 * VEC_GP, 0x8e, 0);
	gate_set(0x60, rt_stubs + 16 * 0x60, 0x8e, 0);
}

/* ---- a 286 TSS gives stacks too (SDM 3A 7.6) ---- */
CODE16(t_ud, "ud2");

static void tss286(void)
{
	static uint16_t tss[22];

	/* its stack must lie in the first 64 KiB of a segment: one with a base */
	memset(tss, 0, sizeof tss);
	rt_gdt[X2 / 8] = seg_desc(0, 0xffff, 0x93, 4);
	tss[1] = 0xf000;
	tss[2] = SEL_DATA;
	rt_gdt[T286 / 8] = seg_desc((uint32_t)(word)tss, sizeof tss - 1, 0x81, 0);
	__asm__ volatile("ltr %w0" ::"r"(T286));
	check_trap("a fault with a 286 TSS", GO(t_ud), VEC_UD, 0);
	check_eq("a fault with a 286 TSS: frame at its sp0", rt_last.handler_sp, 0xf000 - REGS_FRAME);
	check_eq("386 gates save esp whole", rt_last.r.sp & 0xffff, 0x1000);
	rt_gdt[SEL_TSS / 8] &= ~(2ull << 40);
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
	rt_gdt[T286 / 8] |= 2ull << 40;
	check_trap("ltr of a busy 286 TSS", TRY(__asm__ volatile("ltr %w0" ::"r"(T286))), VEC_GP, T286);
}

/* ---- ring 0 in 16 bits: table registers, control registers, returns to ring 3 ---- */
CODE16(z_ring0,
       "smsww %ax; movl %cr0, %ecx; sgdtl 0x60; sldtw %dx; strw %si; cli; pushfw; popw %bx; sti; cli; movw $0x10, %di; movw %di, %fs; clts" END16);
CODE16(z_iretw, "pushw $0x63; pushw $0x800; pushw $0x202; pushw $0x53; pushw $0x700; iretw");
CODE16(z_user, "movw %cs, %ax; movl %esp, %ebx; int $0x80");

static void ring0(void)
{
	regs16();
	descriptors();
	rt_gdt[D16U / 8] = seg_desc(RM_DATA * 16, 0xffff, 0x93, 0);
	rt_gdt[S16U / 8] = seg_desc(RM_STACK * 16, 0xffff, 0x93, 0);
	/* entered from flat ring 0: the stack stays flat */
	rt_regs(&r, 0);
	r.cs = C16K;
	r.ip = RM_IP;
	r.ds = D16U;
	rm_put(RM_CODE, RM_IP, z_ring0, z_ring0_end);
	check_trap("ring 0 in 16 bits", rt_run(&r), VEC_END, 0);
	check("ring 0 in 16 bits: results",
	      (rt_last.r.ax & 1) && rt_last.r.cx == rd_cr0() && (rt_last.r.si & 0xffff) == SEL_TSS &&
		      !(rt_last.r.bx & FL_IF) && *(uint32_t *)(void *)data(0x62) == (uint32_t)(word)rt_gdt,
	      "%#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.cx);
	descriptors();
	rt_regs(&r, 0);
	r.cs = C16K;
	r.ip = RM_IP;
	rm_put(RM_CODE, RM_IP, z_iretw, z_iretw_end);
	rm_put(RM_CODE, 0x700, z_user, z_user_end);
	check_trap("iretw to ring 3", rt_run(&r), VEC_END, 0);
	check("iretw to ring 3: state",
	      (rt_last.r.ax & 0xffff) == (C16U | 3) && (rt_last.r.bx & 0xffff) == 0x800 && rt_last.r.ss == (S16U | 3),
	      "%#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.bx);
}

void flat_main(void)
{
	plain();
	limits();
	expand_down();
	sizes();
	call_gates();
	gates16();
	tss286();
	ring0();
}
