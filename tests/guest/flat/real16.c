/*
 * Real mode: addresses, limits, the vector table, prefixes, the way between the
 * modes with what segment registers keep, A20.  SDM 3A 9.9, 20.1; APM 2 1.2, 4.
 * Invariant: each piece of code starts with the registers rm_regs() gives and
 * ends with a vector; what it needs at addresses of its own is put there before.
 */
#include "rm.h"

static struct rm r;

static int go(const uint8_t *from, const uint8_t *to)
{
	rm_put(r.cs, r.ip, from, to);
	return rm_run(&r);
}
#define GO(code) (rm_regs(&r), go(code, code##_end))

static uint16_t *data(uint32_t off)
{
	return rm_linear(RM_DATA, off);
}

/* ---- addresses (SDM 3A 20.1.1): selector * 16 + offset, 16-bit sums wrap ---- */
CODE16(a_store,
       "movw $0x1234, %bx; movw $0xfff0, %si; movw $0xbeef, 0x30(%bx,%si); movw %cs, %ax; movw %ds, %cx" END16);
CODE16(a_forms,
       "movw $0x8000, %bx; movw $0x8010, %bp; movw $4, %si; movw $6, %di; movw 4(%bx,%si), %ax; movw %ds:-4(%bp,%di), "
       "%cx; movw (%si), %dx; leaw 0x10(%bp,%si), %bx" END16);
CODE16(a_ss,
       "movw $0x20, %bp; movw $0x5a5a, (%bp); movw %ds:(%bp), %ax; movw %ss:(%bp), %cx; movw %es:0x20, %dx" END16);
CODE16(a_32,
       "movl $0x100, %ebx; movl $8, %ecx; movl 0x10(%ebx,%ecx,4), %eax; movl $0x100, %esp; movw (%esp), %dx; movl "
       "$0x12340100, %esp" END16);

static void addresses(void)
{
	*data(0x1254) = 0;
	check_trap("store through ds", GO(a_store), VEC_END, ~(word)0);
	check("store through ds: where",
	      *data(0x1254) == 0xbeef && (r.ax & 0xffff) == RM_CODE && (r.cx & 0xffff) == RM_DATA, "%#x",
	      *data(0x1254));
	for (unsigned i = 0; i < 0x40; i += 2)
		*data(i) = (uint16_t)(0x1100 + i);
	*data(0x8008) = 0x5151;
	*data(0x8012) = 0x6161;
	GO(a_forms);
	check("16-bit addressing forms",
	      (r.ax & 0xffff) == 0x5151 && (r.cx & 0xffff) == 0x6161 + 0 && (r.dx & 0xffff) == 0x1104 &&
		      (r.bx & 0xffff) == 0x8024,
	      "%#x %#x %#x %#x", r.ax, r.cx, r.dx, r.bx);
	*data(0x20) = 0x7777;
	GO(a_ss);
	check("bp goes through ss, overrides elsewhere",
	      (r.ax & 0xffff) == 0x7777 && (r.cx & 0xffff) == 0x5a5a && (r.dx & 0xffff) == 0x7777 &&
		      rm_word(RM_STACK, 0x20) == 0x5a5a,
	      "%#x %#x %#x", r.ax, r.cx, r.dx);
	*data(0x130) = 0xcafe;
	*data(0x132) = 0xf00d;
	*(uint16_t *)rm_linear(RM_STACK, 0x100) = 0x2468;
	GO(a_32);
	check("32-bit addresses by prefix", r.ax == 0xf00dcafe && (r.dx & 0xffff) == 0x2468, "%#x %#x", r.ax, r.dx);
}

/* ---- operand and address sizes (SDM 2A 2.1.1): the default is 16 bits of both ---- */
CODE16(p_sizes,
       "movl $0x11112222, %eax; movw $0x3333, %ax; incw %ax; decl %ecx; movl $-1, %edx; addw $2, %dx; movswl %dx, %esi; "
       "movzbw %al, %bx; cwtl; movl %eax, %edi; xorb %ah, %ah" END16);
CODE16(p_push,
       "movw %sp, %bp; pushl $0x11223344; pushw $0x5566; pushl %eax; popl %ebx; popw %cx; popl %edx; pushw %ds; pushl %es; "
       "movw %sp, %si; addw $6, %sp; movw %sp, %di" END16);
CODE16(p_mul,
       "movw $0x1234, %ax; movw $0x100, %cx; mulw %cx; movw %dx, %si; movl $0x10000, %eax; movl %eax, %ebx; mull %ebx; movl "
       "%edx, %edi; movw $0xfff0, %ax; movb $4, %cl; shlw %cl, %ax; rclw $1, %ax; imulw $3, %ax, %bx" END16);
CODE16(p_moffs,
       "movw 0x40, %ax; movl 0x40, %ecx; addr32 movw 0x42, %ax; movw %ax, 0x50; movb 0x41, %al; movb %al, 0x52" END16);
CODE16(p_imm,
       "movw $0x1234, 0x60; movl $0x89abcdef, 0x64; addw $0x1111, 0x60; addl $0x11111111, 0x64; cmpw $0x2345, 0x60; sete %al; "
       "testw $0x8000, 0x66; setnz %ah; btsw $4, 0x68; movw $0x23, %bx; btsw %bx, 0x68; xchgw %bx, 0x6a; lock incw 0x6c" END16);
CODE16(p_alu,
       "movw $0xffff, %ax; addw $1, %ax; pushfw; popw %bx; movl $0xffff, %eax; addl $1, %eax; pushfw; popw %cx; movl "
       "$0x7fffffff, %edx; incw %dx; pushfw; popw %si; negl %edx; bswap %edx; rorl $8, %edx" END16);

static void sizes(void)
{
	GO(p_sizes);
	check("sizes: registers",
	      r.di == 0x3334 && r.ax == 0x0034 && r.cx == 0xffffffff && r.dx == 0xffff0001 && r.si == 1 &&
		      (r.bx & 0xffff) == 0x34,
	      "%#x %#x %#x %#x", r.ax, r.cx, r.dx, r.si);
	rm_regs(&r);
	r.ax = 0xa5a5b6b6;
	go(p_push, p_push_end);
	check("sizes: stack",
	      r.bx == 0xa5a5b6b6 && (r.cx & 0xffff) == 0x5566 && r.dx == 0x11223344 && (r.si & 0xffff) == 0x1000 - 6 &&
		      (r.di & 0xffff) == 0x1000,
	      "%#x %#x %#x %#x", r.bx, r.cx, r.dx, r.si);
	GO(p_mul);
	check("sizes: multiplication, shifts",
	      (r.si & 0xffff) == 0x12 && r.di == 1 && (r.ax & 0xffff) == 0xfe01 && (r.bx & 0xffff) == 0xfa03,
	      "%#x %#x %#x %#x", r.si, r.di, r.ax, r.bx);
	*data(0x40) = 0x1122;
	*data(0x42) = 0x3344;
	GO(p_moffs);
	check("sizes: moffs",
	      r.cx == 0x33441122 && *data(0x50) == 0x3344 && (r.ax & 0xff) == 0x11 && (*data(0x52) & 0xff) == 0x11,
	      "%#x %#x %#x", r.ax, r.cx, *data(0x50));
	*data(0x68) = 0;
	*data(0x6a) = 0x9090;
	*data(0x6c) = 0xffff;
	GO(p_imm);
	check("sizes: immediates to memory",
	      *data(0x60) == 0x2345 && *data(0x64) == 0xdf00 && *data(0x66) == 0x9abc && (r.ax & 0xffff) == 0x101 &&
		      *data(0x68) == 0x10 && (r.bx & 0xffff) == 0x9090 && *data(0x6c) == 0,
	      "%#x %#x %#x ax %#x %#x bx %#x", *data(0x60), *data(0x64), *data(0x66), r.ax, *data(0x68), r.bx);
	GO(p_alu);
	check("sizes: flags",
	      (r.bx & 0x8d5) == 0x55 && (r.cx & 0x8d5) == 0x14 && (r.si & 0x8d5) == 0x55 - 1 && r.ax == 0x10000 &&
		      r.dx == 0x80000001,
	      "%#x %#x %#x %#x", r.bx & 0x8d5, r.cx & 0x8d5, r.si & 0x8d5, r.dx);
}

/* ---- branches: ip has 16 bits (SDM 1 3.3.1, SDM 2A JMP) ---- */
CODE16(b_near,
       "movw $3, %cx; xorw %ax, %ax; 1: addw $2, %ax; loop 1b; jcxz 2f; movw $0xbad, %ax; 2: callw 3f; jmp 4f; 3: incw %bx; "
       "retw; 4: movw $(5f - b_near + 0x100), %dx; jmpw *%dx; hlt; 5: movl $0x20001, %ecx; addr32 loop 6f; hlt; 6: "
       "movw %cx, %si; movl $0x10000, %ecx; jcxz 7f; hlt; 7: jecxz 8f; incw %di; 8:" END16);
CODE16(b_call_mem,
       "movw $(1f - b_call_mem + 0x100), 0x70; callw *0x70; int $0x80; 1: movw %sp, %bx; movw %ss:(%bx), %ax; popw %cx; "
       "pushw %cx; retw $0" END16);
CODE16(b_ret_imm, "pushw $1; pushw $2; pushw $3; callw 1f; int $0x80; 1: retw $6");
CODE16(b_call32, "movl $0xffffffff, %eax; calll 1f; int $0x80; 1: movw %sp, %bx; movl %ss:(%bx), %eax; retl");
CODE16(b_jmp32, ".byte 0x66, 0xe9; .long 0x10000"); /* to beyond the limit */
CODE16(b_far, "lcallw $0x1800, $0x20; movw %sp, %di" END16);
CODE16(b_far_to, "movw %cs, %ax; movw %sp, %bx; movw %ss:(%bx), %cx; movw %ss:2(%bx), %dx; lretw");
CODE16(b_farm, "movw $0x20, 0x80; movw $0x1800, 0x82; lcallw *0x80; ljmpw *0x84");
CODE16(b_far32, "lcalll $0x1800, $0x40; movw %sp, %di" END16);
CODE16(b_far32_to, "movw %sp, %bx; movl %ss:(%bx), %ecx; movl %ss:4(%bx), %edx; lretl $4");
CODE16(b_wrap, "jmp . + 0x20");
CODE16(b_nops, "nop; nop; nop; nop; nop; nop; nop; nop");

static void branches(void)
{
	check_trap("near branches", GO(b_near), VEC_END, ~(word)0);
	check("near branches: results",
	      (r.ax & 0xffff) == 6 && (r.bx & 0xffff) == 1 && (r.si & 0xffff) == 0 && (r.di & 0xffff) == 1,
	      "%#x %#x %#x %#x", r.ax, r.bx, r.si, r.di);
	check_trap("near call through memory", GO(b_call_mem), VEC_END, ~(word)0);
	check("near call: pushes ip", (r.ax & 0xffff) == RM_IP + 10 && (r.sp & 0xffff) == 0x1000 - 6, "%#x sp %#x",
	      r.ax, r.sp);
	check_trap("ret imm16", GO(b_ret_imm), VEC_END, ~(word)0);
	check_eq("ret imm16: sp", r.sp & 0xffff, 0x1000 - 6);
	check_trap("calll, retl", GO(b_call32), VEC_END, ~(word)0);
	check_eq("calll: pushes eip", r.ax, RM_IP + 12);
	SKIP_TCG("jmp rel32 beyond 64 KiB", "has no code limits")
	{
		check_trap("jmp rel32 beyond 64 KiB", GO(b_jmp32), VEC_GP, ~(word)0);
		check_eq("jmp rel32: ip is its own", r.frame_ip, RM_IP);
	}
	rm_put(0x1800, 0x20, b_far_to, b_far_to_end);
	check_trap("far call, far ret", GO(b_far), VEC_END, ~(word)0);
	check("far call: frame",
	      (r.ax & 0xffff) == 0x1800 && (r.cx & 0xffff) == RM_IP + 5 && (r.dx & 0xffff) == RM_CODE &&
		      (r.di & 0xffff) == 0x1000,
	      "%#x %#x %#x %#x", r.ax, r.cx, r.dx, r.di);
	data(0x84)[0] = 0x30;
	data(0x84)[1] = 0x1800;
	memcpy(rm_linear(0x1800, 0x30), "\xcd\x81", 2);
	check_trap("far call, far jump through memory", GO(b_farm), 0x81, ~(word)0);
	check("far jump: cs, ip", r.frame_cs == 0x1800 && r.frame_ip == 0x32, "%#x:%#x", r.frame_cs, r.frame_ip);
	rm_put(0x1800, 0x40, b_far32_to, b_far32_to_end);
	check_trap("lcalll, lretl imm16", GO(b_far32), VEC_END, ~(word)0);
	check("lcalll: frame", r.cx == RM_IP + 8 && (r.dx & 0xffff) == RM_CODE && (r.di & 0xffff) == 0x1004,
	      "%#x %#x %#x", r.cx, r.dx, r.di);
	memcpy(rm_linear(RM_CODE, 0x10), "\xcd\x82", 2);
	rm_regs(&r);
	r.ip = 0xfff0;
	check_trap("a short jump wraps at 64 KiB", go(b_wrap, b_wrap_end), 0x82, ~(word)0);
	check_eq("a short jump wraps: ip", r.frame_ip, 0x12);
	SKIP_TCG("running over 64 KiB", "has no code limits") /* SDM 3A 20.1: beyond the limit is vector 13 */
	{
		rm_regs(&r);
		r.ip = 0xfff8;
		check_trap("running over 64 KiB", go(b_nops, b_nops_end), VEC_GP, ~(word)0);
		rm_regs(&r);
		r.ip = 0xfffe;
		memcpy(rm_linear(RM_CODE, 0xfffe), "\xb8\x00", 2);
		check_trap("an instruction across 64 KiB", rm_run(&r), VEC_GP, ~(word)0);
		check_eq("an instruction across 64 KiB: ip", r.frame_ip, 0xfffe);
	}
}

/* ---- limits (SDM 3A 20.1.1, 6.15): #GP, #SS without error codes ---- */
CODE16(l_byte, "movb 0xffff, %al" END16);
CODE16(l_word, "movw 0xffff, %ax" END16);
CODE16(l_dword, "movl %eax, 0xfffd" END16);
CODE16(l_dword_ok, "movl %eax, 0xfffc" END16);
CODE16(l_a32, "movl $0x10000, %ebx; movb (%ebx), %al" END16);
CODE16(l_bp, "movw $0xffff, %bp; movw (%bp), %ax" END16);
CODE16(l_pop, "movw $0xffff, %sp; popw %ax" END16);
CODE16(l_push0, "movw $0, %sp; pushw $0x4321; movw %sp, %ax" END16);
CODE16(l_pop_wrap, "movw $0xfffe, %sp; popw %ax; movw %sp, %bx; pushw %bx; movw $0x1000, %sp" END16);
CODE16(l_sse, "movw $0xfff8, %bx; movups (%bx), %xmm0" END16);

static void limits(void)
{
	GO(l_push0);
	check("push at sp 0 wraps to 0xfffe", (r.ax & 0xffff) == 0xfffe && rm_word(RM_STACK, 0xfffe) == 0x4321,
	      "sp %#x", r.ax);
	GO(l_pop_wrap);
	check("pop at 0xfffe wraps to 0", (r.ax & 0xffff) == 0x4321 && (r.bx & 0xffff) == 0, "%#x sp %#x", r.ax, r.bx);
	check_trap("byte at 0xffff", GO(l_byte), VEC_END, ~(word)0);
	check_trap("dword at 0xfffc", GO(l_dword_ok), VEC_END, ~(word)0);
	if (cpu.tcg) {
		skip("limits in real mode", "TCG: has no limits");
		return;
	}
	check_trap("word at 0xffff", GO(l_word), VEC_GP, ~(word)0);
	check("word at 0xffff: frame of three words",
	      r.frame_ip == RM_IP && r.frame_cs == RM_CODE && (r.sp & 0xffff) == 0xffa, "%#x:%#x sp %#x", r.frame_cs,
	      r.frame_ip, r.sp);
	check_trap("dword at 0xfffd", GO(l_dword), VEC_GP, ~(word)0);
	check_trap("32-bit address beyond 64 KiB", GO(l_a32), VEC_GP, ~(word)0);
	check_trap("word at bp 0xffff", GO(l_bp), VEC_SS, ~(word)0);
	check_trap("pop at sp 0xffff", GO(l_pop), VEC_SS, ~(word)0);
	check_eq("pop at sp 0xffff: sp stays", r.sp & 0xffff, 0xffff - 6);
	check_trap("16 bytes across 64 KiB", GO(l_sse), VEC_GP, ~(word)0);
}

/* ---- vectors (SDM 3A 20.1.4) ---- */
CODE16(i_int, "stc; sti; int $0x77; nop");
CODE16(i_int3, "int3; nop");
CODE16(i_cd03, "int $3; nop");
CODE16(i_into, "movb $0x7f, %al; incb %al; into; nop");
CODE16(i_into_no, "xorw %ax, %ax; into" END16);
CODE16(i_div, "xorw %cx, %cx; divw %cx");
CODE16(i_bound, "movw $5, %ax; movw $1, 0x90; movw $4, 0x92; boundw %ax, 0x90");
CODE16(i_bound_ok, "movw $4, %ax; movw $-1, 0x90; movw $4, 0x92; boundw %ax, 0x90" END16);
CODE16(i_ud, "ud2");
CODE16(i_icebp, ".byte 0xf1; nop");
CODE16(i_tf, "pushfw; popw %ax; orw $0x100, %ax; pushw %ax; popfw; nop; nop");
CODE16(i_iret,
       "pushw $0x7047; pushw %cs; pushw $(1f - i_iret + 0x100); iretw; hlt; 1: pushfw; popw %ax; movw %sp, %bx; pushw $2; "
       "popfw" END16);
CODE16(i_iretl, "pushl $0x47246; pushl $0x1800; pushl $0x60; iretl");
CODE16(i_iretl_to, "pushfl; popl %eax; pushl $2; popfl" END16);
CODE16(i_popf,
       "pushw $0x7ed7; popfw; pushfw; popw %ax; pushl $0x277ed7; popfl; pushfl; popl %ebx; pushl $2; popfl" END16);
CODE16(i_handler, "movw %sp, %bx; movw %ss:4(%bx), %ax; incw %cx; iretw");
CODE16(i_calls, "xorw %cx, %cx; stc; int $0x90; setc %dl; int $0x90; movw %sp, %si" END16);

static void vectors(void)
{
	uint16_t *ivt = rm_linear(0, 0);

	check_trap("int n", GO(i_int), 0x77, ~(word)0);
	check("int n: frame",
	      r.frame_ip == RM_IP + 4 && r.frame_cs == RM_CODE && (r.frame_flags & 0x201) == 0x201 &&
		      (r.sp & 0xffff) == 0x1000 - 6,
	      "%#x:%#x flags %#x", r.frame_cs, r.frame_ip, r.frame_flags);
	check_trap("int3", GO(i_int3), VEC_BP, ~(word)0);
	check_eq("int3: ip is the next one's", r.frame_ip, RM_IP + 1);
	check_trap("int 3 of two bytes", GO(i_cd03), VEC_BP, ~(word)0);
	check_trap("into", GO(i_into), VEC_OF, ~(word)0);
	check_eq("into: ip is the next one's", r.frame_ip, RM_IP + 5);
	check_trap("into without OF", GO(i_into_no), VEC_END, ~(word)0);
	check_trap("div by zero", GO(i_div), VEC_DE, ~(word)0);
	check_eq("div: ip is its own", r.frame_ip, RM_IP + 2);
	check_trap("bound", GO(i_bound), VEC_BR, ~(word)0);
	check_trap("bound within", GO(i_bound_ok), VEC_END, ~(word)0);
	check_trap("ud2", GO(i_ud), VEC_UD, ~(word)0);
	check("ud2: no error code", r.frame_ip == RM_IP && (r.sp & 0xffff) == 0x1000 - 6, "%#x", r.sp);
	SKIP_TCG("icebp", "takes it for undefined")
	check_trap("icebp", GO(i_icebp), VEC_DB, ~(word)0);
	check_trap("TF", GO(i_tf), VEC_DB, ~(word)0);
	check("TF: after the next instruction", r.frame_ip == RM_IP + 8 && (r.frame_flags & 0x100), "%#x", r.frame_ip);
	check_trap("iret", GO(i_iret), VEC_END, ~(word)0);
	check("iret: flags, IOPL and NT too", (r.ax & 0xffff) == 0x7047 && (r.bx & 0xffff) == 0x1000, "%#x sp %#x",
	      r.ax, r.bx);
	rm_put(0x1800, 0x60, i_iretl_to, i_iretl_to_end);
	check_trap("iretl", GO(i_iretl), VEC_END, ~(word)0);
	check_eq("iretl: flags", r.ax, 0x47246);
	GO(i_popf);
	check("popfw, popfl", (r.ax & 0xffff) == 0x7ed7 && r.bx == 0x247ed7, "%#x %#x", r.ax, r.bx);
	rm_put(0x1900, 0, i_handler, i_handler_end);
	ivt[2 * 0x90] = 0;
	ivt[2 * 0x90 + 1] = 0x1900;
	check_trap("handlers return", GO(i_calls), VEC_END, ~(word)0);
	check("handlers return: state", (r.cx & 0xffff) == 2 && (r.dx & 0xff) == 1 && (r.si & 0xffff) == 0x1000,
	      "%#x %#x %#x", r.cx, r.dx, r.si);
}

/* An IDT limit counts in real mode too: what lies beyond is #GP (SDM 2A INT n, REAL-ADDRESS-MODE). */
static void ivt_limit(void)
{
	rm_ivt_limit(0x77 * 4 + 3);
	check_trap("vector within the IDT's limit", GO(i_int), 0x77, ~(word)0);
	rm_ivt_limit(0x77 * 4 + 2);
	check_trap("vector beyond the IDT's limit", GO(i_int), VEC_GP, ~(word)0);
	check_eq("vector beyond the limit: ip is the int's", r.frame_ip, RM_IP + 2);
	rm_ivt_limit(0x3ff);
}

/* ---- strings (SDM 2B MOVS): si and di have 16 bits ---- */
CODE16(s_movs,
       "cld; movw $0x200, %si; movw $0x300, %di; movw $16, %cx; rep movsw; movw $0x300, %si; movw $0x200, %di; movw $16, %cx; "
       "repe cmpsw; movw %cx, %ax" END16);
CODE16(s_wrap, "cld; movw $0xfffe, %si; movw $0x300, %di; movw $4, %cx; rep movsb; movw %si, %ax" END16);
CODE16(s_stos32,
       "movl $0x12345678, %eax; movw $0x320, %di; movl $0x10002, %ecx; rep stosl; std; movw $0x33f, %di; movw $3, %cx; movb "
       "$0x99, %al; rep stosb; cld; movw $0x320, %di; movw $0x1234, %ax; movw $20, %cx; repne scasw; lodsb" END16);
CODE16(s_a32, "cld; movl $0x200, %esi; movl $0x340, %edi; movl $2, %ecx; addr32 rep movsl" END16);
CODE16(s_word_end, "movw $0xffff, %si; movw $0x300, %di; movsw");
CODE16(s_over, "movw $0x300, %si; movw $0xfffa, %di; movw $10, %cx; rep movsb; movw %di, %ax" END16);
CODE16(s_seg, "movw $0x10, %si; movw $0x350, %di; movsw %ss:(%si), %es:(%di)" END16);
CODE16(s_out,
       "cld; movw $0x200, %si; movw $0x80, %dx; movw $2, %cx; rep outsb; movw %si, %ax; inb $0x80, %al; movw $0x360, %di; insb" END16);

static void strings(void)
{
	for (unsigned i = 0; i < 32; i += 2)
		*data(0x200 + i) = (uint16_t)(0x7000 + i * 3);
	check_trap("rep movsw, repe cmpsw", GO(s_movs), VEC_END, ~(word)0);
	check("rep movsw: all",
	      !memcmp(data(0x200), data(0x300), 32) && (r.ax & 0xffff) == 0 && (r.frame_flags & FL_ZF), "%#x", r.ax);
	*data(0xfffe) = 0x2211;
	*data(0) = 0x4433;
	check_trap("rep movsb over 64 KiB", GO(s_wrap), VEC_END, ~(word)0);
	check("rep movsb wraps", data(0x300)[0] == 0x2211 && data(0x300)[1] == 0x4433 && (r.ax & 0xffff) == 2,
	      "%#x %#x", data(0x300)[1], r.ax);
	memset(data(0x320), 0, 0x20);
	GO(s_stos32);
	check("stos of 32 bits, downwards, scas",
	      data(0x320)[0] == 0x5678 && data(0x320)[3] == 0x1234 && data(0x320)[4] == 0 &&
		      (data(0x33c)[0] >> 8) == 0x99 && data(0x33e)[0] == 0x9999 && (r.di & 0xffff) == 0x324 &&
		      (r.frame_flags & FL_ZF),
	      "%#x %#x di %#x", data(0x320)[0], data(0x33e)[0], r.di);
	GO(s_a32);
	check("addr32 rep movsl", !memcmp(data(0x200), data(0x340), 8) && r.cx == 0 && r.si == 0x208 && r.di == 0x348,
	      "%#x %#x", r.cx, r.si);
	*(uint16_t *)rm_linear(RM_STACK, 0x10) = 0x8642;
	GO(s_seg);
	check_eq("movs through ss", *data(0x350), 0x8642);
	check_trap("outs, ins", GO(s_out), VEC_END, ~(word)0);
	check_eq("outs, ins: si", (r.ax & 0xff00) | (r.si & 0xff), 0x0202);
	SKIP_TCG("movsw at 0xffff", "has no limits")
	{
		check_trap("movsw at 0xffff", GO(s_word_end), VEC_GP, ~(word)0);
		check_eq("movsw at 0xffff: si stays", r.si & 0xffff, 0xffff);
	}
	check_trap("rep movsb to over 64 KiB", GO(s_over), VEC_END, ~(word)0);
	check_eq("rep movsb to over 64 KiB: di", r.ax & 0xffff, 4);
}

/* ---- stack instructions ---- */
CODE16(k_pusha,
       "movw $1, %ax; movw $2, %cx; movw $7, %di; movw %sp, %bp; pushaw; movw %sp, %bx; movw %ss:8(%bx), %dx; movw $0, %ax; popaw; "
       "movw %bx, %si; pushal; popal" END16);
CODE16(k_enter,
       "movw $0x1111, %bp; enterw $0x10, $0; movw %bp, %ax; movw %sp, %bx; leavew; movw %sp, %cx; enterl $8, $2; movw %sp, %dx; "
       "leavel" END16);
CODE16(k_popsp, "pushw $0x900; popw %sp; movw %sp, %ax; pushw %sp; popw %bx; movw $0x1000, %sp" END16);
CODE16(k_popm,
       "pushw $0x4242; popw 0xa0; pushw 0xa0; popw %ax; pushl 0xa0; popl 0xa4; pushw %cs; popw %es; movw %es, %bx" END16);
CODE16(k_lds,
       "movw $0x123, 0xa8; movw $0x4000, 0xaa; ldsw 0xa8, %si; movw %ds, %ax; movw $0x3000, %bx; movw %bx, %ds; lssw 0xac, %sp; "
       "movw %ss, %cx; lfsl 0xb0, %edi; movw %fs, %dx" END16);
CODE16(k_sp16,
       "movl $0x56781000, %esp; pushw %ax; movl %esp, %eax; popw %bx; movl %esp, %ecx; movl $0x1000, %esp" END16);

static void stacks(void)
{
	check_trap("pusha, popa", GO(k_pusha), VEC_END, ~(word)0);
	check("pusha: layout",
	      (r.dx & 0xffff) == 0 && (r.ax & 0xffff) == 1 && (r.cx & 0xffff) == 2 && (r.sp & 0xffff) == 0x1000 - 6,
	      "%#x %#x", r.ax, r.sp);
	check_trap("enter, leave", GO(k_enter), VEC_END, ~(word)0);
	check("enter: frames",
	      (r.ax & 0xffff) == 0xffe && (r.bx & 0xffff) == 0xfee && (r.cx & 0xffff) == 0x1000 &&
		      (r.dx & 0xffff) == 0x1000 - 12 - 8,
	      "%#x %#x %#x %#x", r.ax, r.bx, r.cx, r.dx);
	GO(k_popsp);
	check("pop sp, push sp", (r.ax & 0xffff) == 0x900 && (r.bx & 0xffff) == 0x900, "%#x %#x", r.ax, r.bx);
	*data(0xa2) = 0x9999;
	GO(k_popm);
	check("pop and push of memory",
	      (r.ax & 0xffff) == 0x4242 && data(0xa4)[0] == 0x4242 && data(0xa4)[1] == 0x9999 &&
		      (r.bx & 0xffff) == RM_CODE,
	      "%#x %#x", r.ax, r.bx);
	data(0xac)[0] = 0x800;
	data(0xac)[1] = 0x2100;
	data(0xb0)[0] = 0x5678;
	data(0xb0)[1] = 0x1234;
	data(0xb0)[2] = 0x4321;
	GO(k_lds);
	check("lds, lss, lfs",
	      (r.si & 0xffff) == 0x123 && (r.ax & 0xffff) == 0x4000 && (r.cx & 0xffff) == 0x2100 &&
		      r.di == 0x12345678 && (r.dx & 0xffff) == 0x4321,
	      "%#x %#x %#x %#x", r.si, r.ax, r.cx, r.di);
	GO(k_sp16);
	check("16-bit stack leaves the upper half of esp", r.ax == 0x56780ffe && r.cx == 0x56781000, "%#x %#x", r.ax,
	      r.cx);
}

/* ---- what real mode has not (SDM 3A 20.1.3), prefixes, aliases ---- */
CODE16(u_sldt, "sldtw %ax");
CODE16(u_str, "strw %ax");
CODE16(u_lldt, "xorw %ax, %ax; lldtw %ax");
CODE16(u_ltr, "xorw %ax, %ax; ltrw %ax");
CODE16(u_verr, "verr %ax");
CODE16(u_verw, "verw %ax");
CODE16(u_lar, "larw %ax, %bx");
CODE16(u_lsl, "lslw %ax, %bx");
CODE16(u_arpl, "arpl %ax, %bx");
CODE16(u_movcs, ".byte 0x8e, 0xc8");
CODE16(u_vex, ".byte 0xc5, 0xf8, 0x77");              /* vzeroupper */
CODE16(u_vex3, ".byte 0xc4, 0xe2, 0x70, 0xf2, 0xc0"); /* andn */
CODE16(u_locknop, ".byte 0xf0, 0x90");
CODE16(u_lockmov, ".byte 0xf0, 0x89, 0x07");
CODE16(u_lockreg, ".byte 0xf0, 0x01, 0xc0");
CODE16(u_lockcmp, ".byte 0xf0, 0x39, 0x07");
CODE16(u_lea, ".byte 0x8d, 0xc0");
CODE16(u_lesreg, ".byte 0xc4, 0xc0");
static const struct {
	const char *name;
	uint8_t *from, *to;
} undefined[] = {{"sldt", u_sldt, u_sldt_end},
		 {"str", u_str, u_str_end},
		 {"verr", u_verr, u_verr_end},
		 {"verw", u_verw, u_verw_end},
		 {"lar", u_lar, u_lar_end},
		 {"lsl", u_lsl, u_lsl_end},
		 {"arpl", u_arpl, u_arpl_end},
		 {"mov to cs", u_movcs, u_movcs_end},
		 {"VEX, two bytes", u_vex, u_vex_end},
		 {"VEX, three bytes", u_vex3, u_vex3_end},
		 {"lock nop", u_locknop, u_locknop_end},
		 {"lock mov", u_lockmov, u_lockmov_end},
		 {"lock add to a register", u_lockreg, u_lockreg_end},
		 {"lock cmp", u_lockcmp, u_lockcmp_end},
		 {"lea of a register", u_lea, u_lea_end},
		 {"les of a register", u_lesreg, u_lesreg_end}};
CODE16(x_long, ".byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x90");
CODE16(x_15, ".byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x90" END16);
CODE16(x_alias,
       "stc; .byte 0xd6; movb %al, %bl; clc; .byte 0xd6; movb %al, %bh; movb $5, %al; .byte 0x82, 0xc0, 0x03; movb %al, %cl; "
       "movw $8, %dx; .byte 0xd0, 0xf2; fninit; fld1; .byte 0xdf, 0xc0; fnstsw %ax" END16);
CODE16(x_bcd,
       "movw $0x15, %ax; addb $0x27, %al; daa; movw %ax, %bx; movw $0x305, %ax; aad; movw %ax, %cx; movw $37, %ax; aam; movw %ax, "
       "%dx; movw $0x000b, %ax; clc; aaa; movw %ax, %si" END16);
CODE16(x_xlat,
       "movw $0x400, %bx; movb $7, %al; xlat; movb %al, %cl; movw $0xffff, %bx; movb $2, %al; xlat; movb %al, %ch" END16);
CODE16(x_dup,
       ".byte 0x66, 0x66, 0xb8, 1, 2, 3, 4; .byte 0x67, 0x67, 0x8b, 0x1d, 0x10, 4, 0, 0; .byte 0x66, 0x67, 0x8b, 0x0d, 0x10, 4, 0, "
       "0; .byte 0x3e, 0x26, 0x67, 0x66, 0x8b, 0x15, 0x10, 4, 0, 0" END16);
CODE16(x_sse,
       "movw $0x410, %bx; movups (%bx), %xmm1; pshufd $0x1b, %xmm1, %xmm2; movups %xmm2, 0x430; movd %xmm1, %eax; cvtsi2sd %eax, "
       "%xmm3; movnti %eax, 0x440; pextrw $1, %xmm1, %ecx; crc32w %ax, %edx; popcntw %ax, %si; filds 0x410; fistpl 0x444" END16);

static void instructions(void)
{
	struct batch b = {"what real mode has not", 0, 0};
	uint8_t *bytes = rm_linear(RM_DATA, 0);

	for (unsigned i = 0; i < sizeof undefined / sizeof *undefined; i++) {
		rm_regs(&r);
		if (cpu.tcg && undefined[i].from == u_lockmov)
			continue; /* TCG lets it pass */
		batch_case(&b, go(undefined[i].from, undefined[i].to) == VEC_UD && r.frame_ip == RM_IP, "%s: vector %d",
			   undefined[i].name, (int)r.vec);
	}
	batch_end(&b);
	check_trap("lldt", GO(u_lldt), VEC_UD, ~(word)0);
	check_trap("ltr", GO(u_ltr), VEC_UD, ~(word)0);
	check_trap("16 bytes", GO(x_long), VEC_GP, ~(word)0); /* SDM 2A 2.3.11: 15 is the limit */
	check_trap("15 bytes", GO(x_15), VEC_END, ~(word)0);
	check_trap("salc, 82, d0 /6, df c0", GO(x_alias), VEC_END, ~(word)0);
	check("aliases: results",
	      (r.bx & 0xffff) == 0x00ff && (r.cx & 0xff) == 8 && (r.dx & 0xff) == 16 && (r.ax & 0x3800) == 0,
	      "%#x %#x %#x %#x", r.bx, r.cx, r.dx, r.ax);
	GO(x_bcd);
	check("decimal instructions",
	      (r.bx & 0xff) == 0x42 && (r.cx & 0xffff) == 35 && (r.dx & 0xffff) == 0x307 && (r.si & 0xffff) == 0x101,
	      "%#x %#x %#x %#x", r.bx, r.cx, r.dx, r.si);
	bytes[0x407] = 0x5c;
	bytes[1] = 0x6d;
	GO(x_xlat);
	check_eq("xlat wraps at 64 KiB", r.cx & 0xffff, 0x6d5c);
	for (unsigned i = 0; i < 16; i++)
		bytes[0x410 + i] = (uint8_t)(0x11 * i);
	GO(x_dup);
	check("repeated prefixes",
	      r.ax == 0x04030201 && (r.bx & 0xffff) == 0x1100 && r.cx == 0x33221100 && r.dx == 0x33221100,
	      "%#x %#x %#x %#x", r.ax, r.bx, r.cx, r.dx);
	check_trap("vector and x87 instructions", GO(x_sse), VEC_END, ~(word)0);
	check("vector instructions: results",
	      data(0x430)[0] == 0xddcc && r.ax == 0x33221100 && data(0x440)[1] == 0x3322 && r.cx == 0x3322 &&
		      (r.si & 0xffff) == 2 && data(0x444)[0] == 0x1100,
	      "%#x %#x %#x %#x", data(0x430)[0], r.ax, r.cx, r.si);
}

/* ---- between the modes: what segment registers keep (SDM 3A 9.9) ---- */
CODE16(m_big,
       "movl $0x1d0000, %ebx; movl (%ebx), %eax; movw $0x2000, %cx; movw %cx, %ds; movl $0x1e0000, %ebx; movl (%ebx), %ecx; movl $0x200004, %ebx; movl "
       "%ecx, %fs:(%ebx)" END16);
CODE16(m_enter,
       "movw $0x500, 0x20; movw %ds:0x20, %ax; movl %cr0, %ecx; orb $1, %cl; movl %ecx, %cr0; jmp 1f; 1: movw 0x20, %bx; movw %ds, %dx; "
       "movw %cs, %si; pushw $0x1111; popw %di; andb $0xfe, %cl; movl %ecx, %cr0; jmp 2f; 2: lcallw $0x1800, $0x80" END16);
CODE16(m_lmsw,
       "smsww %ax; movw %ax, %bx; orw $1, %bx; lmsww %bx; smsww %cx; andw $0xfffe, %bx; lmsww %bx; movl %cr0, %edx; movl %edx, %esi; "
       "andb $0xfe, %dl; movl %edx, %cr0; jmp 1f; 1: movl %cr0, %edi" END16);
CODE16(m_stale,
       "movl %cr0, %eax; orb $1, %al; movl %eax, %cr0; movw $0xa0, %bx; movw %bx, %es; andb $0xfe, %al; movl %eax, %cr0; jmp 1f; 1: "
       "movw %es, %cx; movw %es:0x34, %dx; movw %cx, %es; movw %es:0x34, %si" END16);
CODE16(m_tables, "sgdtl 0x500; sidtl 0x508; smsww %ax" END16);
CODE16(m_lgdt16,
       "sgdtl 0x500; movb $0x77, 0x505; lgdtw 0x500; sgdtl 0x510; movb 0x515, %al; movb $0, 0x505; lgdtl 0x500" END16);

static void modes(void)
{
	uint32_t *high = rm_linear(0, 0x200000);
	uint16_t *at;

	memcpy(rm_linear(0x1800, 0x80), "\xcb", 1);
	high[0] = 0xfeed1234;
	rm_segments(0xfffff, 12);
	check_trap("big real mode", GO(m_big), VEC_END, ~(word)0);
	check("big real mode: selectors change, limits stay",
	      r.ax == 0xfeed1234 && r.cx == 0xfeed1234 && high[1] == 0xfeed1234, "%#x %#x", r.ax, r.cx);
	rm_regs(&r); /* SS with B set: esp counts whole (SDM 3A 3.4.5, 6.2) */
	r.ss = 0;
	r.sp = 0x210000;
	rm_put(r.cs, r.ip, k_sp16, k_sp16_end);
	check_trap("big stack", rm_run(&r), VEC_END, ~(word)0);
	check("big stack: esp counts whole", r.ax == 0x56780ffe && r.cx == 0x56781000, "%#x %#x", r.ax, r.cx);
	rm_segments(0xffff, 0);
	check_trap("into protected mode and back", GO(m_enter), VEC_END, ~(word)0);
	check("protected mode with real mode's segments",
	      (r.bx & 0xffff) == 0x500 && (r.dx & 0xffff) == RM_DATA && (r.si & 0xffff) == RM_CODE &&
		      (r.di & 0xffff) == 0x1111,
	      "%#x %#x %#x %#x", r.bx, r.dx, r.si, r.di);
	check_trap("lmsw, smsw", GO(m_lmsw), VEC_END, ~(word)0);
	check("lmsw sets PE and does not clear it", (r.cx & 1) && !(r.ax & 1) && (r.si & 1) && !(r.di & 1),
	      "%#x %#x %#x %#x", r.ax, r.cx, r.si, r.di);
	rt_gdt[0xa0 / 8] = seg_desc(0x34560, 0xfff, 0x93, 0);
	at = rm_linear(0x3456, 0x34);
	*at = 0x1928;
	*(uint16_t *)rm_linear(0xa, 0x34) = 0;
	check_trap("a descriptor outlives protected mode", GO(m_stale), VEC_END, ~(word)0);
	check("a descriptor outlives protected mode: base until the next load",
	      (r.cx & 0xffff) == 0xa0 && (r.dx & 0xffff) == 0x1928 && (r.si & 0xffff) == rm_word(0xa0, 0x34),
	      "%#x %#x %#x", r.cx, r.dx, r.si);
	GO(m_tables);
	check("sgdt, sidt",
	      *data(0x500) == 0xff && *(uint32_t *)(void *)data(0x502) == (uint32_t)(word)rt_gdt &&
		      *data(0x508) == 0x3ff,
	      "%#x", *data(0x500));
	GO(m_lgdt16);
	check_eq("lgdt of 16 bits: 24 bits of base", r.ax & 0xff, 0);
}

/* ---- interrupts: sti's shadow, hlt, mov ss (SDM 2B STI, SDM 3A 6.8) ---- */
CODE16(h_hlt, "sti; hlt; hlt; hlt");
CODE16(h_sti, "sti; cli; nop; nop; nop" END16);
CODE16(h_sti2, "movw $0, %cx; 1: sti; incw %ax; incw %bx; jmp 1b");

static void timer_on(void)
{
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0x43, 0x30);
	outb(0x40, 0x50);
	outb(0x40, 0);
	outb(0x21, 0xfe);
}

static void interrupts(void)
{
	timer_on();
	check_trap("hlt, woken by the timer", GO(h_hlt), 0x20, ~(word)0);
	check_eq("hlt: ip is the next one's", r.frame_ip, RM_IP + 2);
	outb(0x20, 0x20);
	timer_on();
	while (!(outb(0x20, 0x0a), inb(0x20) & 1))
		;
	check_trap("sti; cli: no window", GO(h_sti), VEC_END, ~(word)0);
	check_trap("sti: the window opens after the next instruction", GO(h_sti2), 0x20, ~(word)0);
	check("sti: one instruction later", (r.ax & 0xffff) == 1 && (r.bx & 0xffff) == 0 && r.frame_ip == RM_IP + 5,
	      "%#x %#x ip %#x", r.ax, r.bx, r.frame_ip);
	outb(0x20, 0x20);
	outb(0x21, 0xff);
}

/* ---- A20 (SDM 3A 20.1.1): addresses from 1 MiB wrap while it is off ---- */
CODE16(g_port92,
       "inb $0x92, %al; movb %al, %bl; andb $0xfc, %al; outb %al, $0x92; movw $0xffff, %cx; movw %cx, %es; movw %es:0x510, %dx; "
       "movw $0x9876, %es:0x514; movb %bl, %al; andb $0xfe, %al; orb $2, %al; outb %al, $0x92; movw %es:0x510, %si" END16);
CODE16(g_8042,
       "movb $0xd1, %al; outb %al, $0x64; 1: inb $0x64, %al; testb $2, %al; jnz 1b; movb $0xdd, %al; outb %al, $0x60; 2: inb $0x64, "
       "%al; testb $2, %al; jnz 2b; movw $0xffff, %cx; movw %cx, %es; movw %es:0x510, %dx; movb $0xd1, %al; outb %al, $0x64; 3: inb "
       "$0x64, %al; testb $2, %al; jnz 3b; movb $0xdf, %al; outb %al, $0x60; 4: inb $0x64, %al; testb $2, %al; jnz 4b; movw "
       "%es:0x510, %si" END16);

static void a20(void)
{
	uint16_t *low = rm_linear(0, 0x500), high = *(uint16_t *)rm_linear(0, 0x100500);

	low[0] = (uint16_t)~high;
	low[2] = 0;
	check_trap("A20 by port 92", GO(g_port92), VEC_END, ~(word)0);
	check("A20 by port 92: off and on",
	      (r.dx & 0xffff) == (uint16_t)~high && (r.si & 0xffff) == high && low[2] == 0x9876, "%#x %#x %#x", r.dx,
	      r.si, low[2]);
	check_trap("A20 by the 8042", GO(g_8042), VEC_END, ~(word)0);
	check("A20 by the 8042: off and on", (r.dx & 0xffff) == (uint16_t)~high && (r.si & 0xffff) == high, "%#x %#x",
	      r.dx, r.si);
}

/* ---- code that changes under its own feet, and is far from the segment's start ---- */
CODE16(c_smc,
       "movw $(1f - c_smc + 0x101), %bx; movb $0x55, %cs:(%bx); 1: movb $0x11, %al; movw $5, %cx; 2: incb %cs:(%bx); movb $0, %ah; jmp 3f; "
       "3: loop 2b; movb %cs:(%bx), %dl" END16);
CODE16(c_sum,
       "xorw %ax, %ax; xorw %bx, %bx; movw $20000, %cx; 1: addw (%bx), %ax; addw $2, %bx; andw $0xfff, %bx; pushw %ax; popw %dx; loop 1b" END16);

static void code(void)
{
	uint16_t sum = 0;

	check_trap("self-modifying code", GO(c_smc), VEC_END, ~(word)0);
	check("self-modifying code: sees itself", (r.ax & 0xff) == 0x55 && (r.dx & 0xff) == 0x5a, "%#x %#x", r.ax,
	      r.dx);
	for (unsigned i = 0; i < 0x1000; i += 2)
		*data(i) = (uint16_t)(i * 0x1357);
	for (unsigned i = 0; i < 20000; i++)
		sum = (uint16_t)(sum + *data(i * 2 & 0xfff));
	check_trap("a loop", GO(c_sum), VEC_END, ~(word)0);
	check_eq("a loop: sum", r.ax & 0xffff, sum);
	/* the same code at the same address through another segment: ip differs, the bytes do not */
	rm_regs(&r);
	r.cs = RM_CODE + 8;
	r.ip = RM_IP - 0x80;
	check_trap("the same bytes through another selector", rm_run(&r), VEC_END, ~(word)0);
	check("the same bytes: ip, sum", r.frame_ip == RM_IP - 0x80 + (c_sum_end - c_sum) && (r.ax & 0xffff) == sum,
	      "%#x %#x", r.frame_ip, r.ax);
}

/* ---- how fast: for the reader, no verdict ---- */
CODE16(w_regs, "movw $20000, %cx; 1: addw $3, %ax; xorw %ax, %bx; rolw $1, %bx; decw %cx; jnz 1b" END16);
CODE16(w_mem, "movw $20000, %cx; 1: movw (%bx), %ax; addw %ax, 2(%bx); incw 4(%bx); loop 1b" END16);
CODE16(w_stack, "movw $20000, %cx; 1: pushw %ax; pushw %bx; popw %bx; popw %ax; loop 1b" END16);
CODE16(w_call, "movw $20000, %cx; jmp 1f; 2: retw; 1: callw 2b; loop 1b" END16);
CODE16(w_far, "movw $20000, %cx; pushw %ax; popw %ax; 1: lcallw $0x1800, $0x90; loop 1b" END16);
CODE16(w_str, "cld; movw $20000, %cx; xorw %si, %si; xorw %di, %di; rep movsb" END16);

static void speed(void)
{
	static const struct {
		const char *name;
		uint8_t *from, *to;
	} t[] = {{"registers", w_regs, w_regs_end},  {"memory", w_mem, w_mem_end},    {"stack", w_stack, w_stack_end},
		 {"near calls", w_call, w_call_end}, {"far calls", w_far, w_far_end}, {"rep movsb", w_str, w_str_end}};

	rm_put(0x1800, 0x90, (const uint8_t *)"\xcb", (const uint8_t *)"\xcb" + 1);
	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		uint64_t best = ~0ull;

		for (unsigned k = 0; k < 10; k++) {
			uint64_t from = rdtsc(), cycles;

			rm_regs(&r);
			go(t[i].from, t[i].to);
			cycles = rdtsc() - from;
			best = cycles < best ? cycles : best;
		}
		print("# %s: %u cycles for ten rounds\n", t[i].name, (unsigned)best / 2000);
	}
}

void flat_main(void)
{
	rm_init();
	addresses();
	sizes();
	branches();
	limits();
	vectors();
	ivt_limit();
	strings();
	stacks();
	instructions();
	modes();
	interrupts();
	a20();
	code();
	speed();
}
