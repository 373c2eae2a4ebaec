/*
 * 32-bit protected mode without paging: instructions that 64-bit mode lacks,
 * segments with bases and limits, 16-bit sizes, gates, stack switches.
 * SDM 2, SDM 3A 3, 5 and 6.
 * Invariant: descriptors from S1 up belong to the check that is running.
 */
#include "rt.h"

#define CODE(name, text)    \
	extern char name[]; \
	__asm__(".pushsection .text\n" #name ": " text "\n.popsection\n")
#define END "\nint $0x80\n"
#define S1  0x50
#define S2  0x58
#define S3  0x60
#define S4  0x68

static struct regs r;
static uint8_t scratch[8192] __attribute__((aligned(4096)));

static int go(bool user, const char *code)
{
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.bx = (word)scratch;
	return rt_run(&r);
}

static void set_seg(unsigned sel, uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
	rt_gdt[sel / 8] = seg_desc(base, limit, access, flags);
}

/* ---- decimal adjust, exhaustively, against their definition in SDM 2 ---- */
#define F_C 1u
#define F_A 0x10u
#define BCD(insn)                                                                                       \
	static uint32_t x_##insn(uint32_t ax, uint32_t fl, uint32_t *out)                               \
	{                                                                                               \
		__asm__ volatile("push %1; popf; " #insn "; pushf; pop %1" : "+a"(ax), "+r"(fl)::"cc"); \
		*out = fl;                                                                              \
		return ax;                                                                              \
	}
BCD(aaa)
BCD(aas)
BCD(daa)
BCD(das)
BCD(aam)
BCD(aad)

static uint32_t m_bcd(int kind, uint32_t ax, uint32_t fl, uint32_t *out)
{
	uint32_t al = ax & 255, ah = ax >> 8 & 255, c = fl & F_C, a = fl & F_A;
	uint32_t adj = (al & 15) > 9 || a, high = al > 0x99 || c, old_c = c;

	switch (kind) {
	case 0: /* aaa */
		if (adj)
			ax += 0x106;
		*out = adj ? F_A | F_C : 0;
		return ax & 0xff0f;
	case 1: /* aas */
		if (adj)
			ax = ((ax - 6) & 0xffff) - 0x100;
		*out = adj ? F_A | F_C : 0;
		return ax & 0xff0f;
	case 2: /* daa */
		c = 0;
		if (adj) {
			c = old_c || al + 6 > 255;
			al += 6;
		}
		if (high) {
			al += 0x60;
			c = 1;
		}
		*out = (adj ? F_A : 0) | c;
		return ah << 8 | (al & 255);
	default: /* das */
		c = 0;
		if (adj) {
			c = old_c || al < 6;
			al -= 6;
		}
		if (high) {
			al -= 0x60;
			c = 1;
		}
		*out = (adj ? F_A : 0) | c;
		return ah << 8 | (al & 255);
	}
}

static void decimal(void)
{
	static uint32_t (*const run[])(uint32_t, uint32_t, uint32_t *) = {x_aaa, x_aas, x_daa, x_das};
	static const char *const name[] = {"aaa", "aas", "daa", "das"};
	uint32_t kind, v, f, got, want, fgot, fwant;

	for (kind = 0; kind < 4; kind++) {
		struct batch b = {name[kind], 0, 0};
		for (v = 0; v < 0x400; v++)
			for (f = 0; f < 4; f++) {
				uint32_t ax = (v & 255) | (v >> 8) * 0x5500,
					 fl = (f & 1 ? F_C : 0) | (f & 2 ? F_A : 0) | 2;
				ax &= 0xffff;
				got = run[kind](ax, fl, &fgot);
				want = m_bcd((int)kind, ax, fl, &fwant) & 0xffff;
				batch_case(&b, (got & 0xffff) == want && (fgot & (F_A | F_C)) == fwant,
					   "ax %#x flags %#x: %#x %#x, want %#x %#x", ax, fl, got, fgot, want, fwant);
			}
		batch_end(&b);
	}
	got = x_aam(0x1263, 2, &fgot);
	check("aam", (got & 0xffff) == 0x0909 && (fgot & 0xc4) == 4, "%#x flags %#x", got, fgot);
	got = x_aad(0x0907, 2, &fgot);
	check("aad", (got & 0xffff) == 97 && (fgot & 0xc0) == 0, "%#x flags %#x", got, fgot);
	check_trap("aam 0", TRY(__asm__ volatile(".byte 0xd4, 0" ::: "eax")), VEC_DE, 0);
}

/* ---- pusha, enter, bound, les ... ---- */
CODE(c_pusha,
     "mov $1, %eax; mov $2, %ecx; mov $3, %edx; mov $5, %ebp; mov $6, %esi; mov $7, %edi; mov %esp, (%ebx); pusha; "
     "mov %esp, 4(%ebx); mov 12(%esp), %eax; mov %eax, 8(%ebx); mov 28(%esp), %eax; mov %eax, 12(%ebx); "
     "xor %ecx, %ecx; xor %edi, %edi; popa" END);
CODE(c_pushaw, "mov $0x11112222, %eax; mov %esp, (%ebx); pushaw; mov %esp, 4(%ebx); mov $0x33334444, %eax; popaw" END);
CODE(c_enter0, "mov %esp, %ecx; mov $0x1111, %ebp; enter $16, $0; mov %ebp, %eax; mov %esp, %edx; leave" END);
CODE(c_enter3,
     "mov %esp, %ecx; mov %ebx, %ebp; add $64, %ebp; enter $8, $3; mov %esp, %edx; mov (%ebp), %eax; mov -4(%ebp), %esi; "
     "mov -8(%ebp), %edi; mov -12(%ebp), %ebx; mov %ebp, (scratch_ebp); mov %ecx, %esp" END);
uint32_t scratch_ebp;
CODE(c_enterw,
     "mov %esp, %ecx; mov $0x22221111, %ebp; enterw $4, $0; mov %ebp, %eax; mov %esp, %edx; mov %ecx, %esp" END);
CODE(c_bound, "bound %eax, (%ebx)" END);
CODE(c_boundw, "boundw %ax, (%ebx)" END);
CODE(c_into, "mov $0x7f, %al; inc %al; into" END);
CODE(c_into_no, "xor %eax, %eax; into" END);
CODE(c_les,
     "les (%ebx), %esi; lds 8(%ebx), %edi; lfs 16(%ebx), %ecx; lgs 24(%ebx), %edx; mov %es, %eax; mov %ds, %ebp" END);
CODE(c_arpl, "arpl %cx, %ax; setz %dl; arpl %si, %di; setz %dh" END);
CODE(c_xlat, "mov $5, %al; xlat; mov %al, %cl; stc; .byte 0xd6; mov %al, %ch; clc; .byte 0xd6; mov %al, %dl" END);
CODE(c_jcxz, "mov $0x10000, %ecx; xor %eax, %eax; jcxz 1f; or $1, %al; 1: jecxz 2f; or $2, %al; 2: mov $0x20001, %ecx; "
	     ".byte 0x67; loop 3f; or $4, %al; 3:" END);
CODE(c_incs, "mov $0xffffffff, %eax; stc; inc %eax; setc %cl; setz %dl; decw %ax; mov %ax, %si" END);

static void pusha(void)
{
	uint32_t *s = (uint32_t *)scratch;

	check_trap("pusha, popa", go(false, c_pusha), VEC_END, 0);
	check("pusha: layout",
	      s[1] == s[0] - 32 && s[2] == s[0] && s[3] == 1 && rt_last.r.cx == 2 && rt_last.r.di == 7 &&
		      rt_last.r.bp == 5,
	      "%#x %#x %#x %#x", s[0], s[1], s[2], s[3]);
	check_trap("pushaw, popaw", go(true, c_pushaw), VEC_END, 0);
	check("pushaw: 16 bits", s[1] == s[0] - 16 && rt_last.r.ax == 0x33332222, "%#lx", (word)rt_last.r.ax);
}

static void enter_leave(void)
{
	uint32_t *s = (uint32_t *)scratch;

	go(false, c_enter0);
	check("enter 16, 0; leave",
	      rt_last.r.ax == rt_last.r.cx - 4 && rt_last.r.dx == rt_last.r.ax - 16 && rt_last.r.bp == 0x1111,
	      "ebp %#lx esp %#lx", (word)rt_last.r.ax, (word)rt_last.r.dx);
	s[16] = 0xaaaa; /* at the old ebp */
	s[15] = 0xbbbb;
	s[14] = 0xcccc;
	go(true, c_enter3);
	check("enter 8, 3: frame",
	      rt_last.r.ax == (word)scratch + 64 && rt_last.r.si == 0xbbbb && rt_last.r.di == 0xcccc &&
		      rt_last.r.bx == scratch_ebp && rt_last.r.dx == scratch_ebp - 12 - 8,
	      "%#lx %#lx %#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.si, (word)rt_last.r.di, (word)rt_last.r.bx);
	go(true, c_enterw);
	check("enterw: low half of ebp only",
	      (rt_last.r.ax & 0xffff0000) == 0x22220000 && (uint16_t)rt_last.r.ax == (uint16_t)(rt_last.r.cx - 2) &&
		      rt_last.r.dx == rt_last.r.cx - 6,
	      "ebp %#lx", (word)rt_last.r.ax);
}

static void bounds(void)
{
	int32_t *s = (int32_t *)scratch;
	int16_t *w = (int16_t *)scratch;

	s[0] = -5;
	s[1] = 10;
	rt_user_regs(&r, c_bound);
	r.bx = (word)scratch;
	r.ax = (word)-5;
	check_trap("bound: lower edge", rt_run(&r), VEC_END, 0);
	r.ax = 10;
	check_trap("bound: upper edge", rt_run(&r), VEC_END, 0);
	r.ax = 11;
	check_trap("bound: above", rt_run(&r), VEC_BR, 0);
	check_eq("bound: ip is its own", rt_last.r.ip, (word)c_bound);
	r.ax = (word)-6;
	check_trap("bound: below (signed)", rt_run(&r), VEC_BR, 0);
	w[0] = -5;
	w[1] = 10;
	rt_user_regs(&r, c_boundw);
	r.bx = (word)scratch;
	r.ax = 0x1000a;
	check_trap("boundw: upper edge", rt_run(&r), VEC_END, 0);
	r.ax = 0xfff0;
	check_trap("boundw: below", rt_run(&r), VEC_BR, 0);
	check_trap("bound of a register", TRY(__asm__ volatile(".byte 0x66, 0x0f, 0x0b")), VEC_UD, 0);
}

static void misc(void)
{
	uint32_t *s = (uint32_t *)scratch;
	unsigned i;

	gate_set(VEC_OF, rt_stubs + 16 * VEC_OF, 0xee, 0);
	check_trap("into with OF", go(true, c_into), VEC_OF, 0);
	check_eq("into: ip is the next instruction's", rt_last.r.ip, (word)c_into + 5);
	check_trap("into without OF", go(true, c_into_no), VEC_END, 0);
	gate_set(VEC_OF, rt_stubs + 16 * VEC_OF, 0x8e, 0);
	check_trap("into needs the gate's DPL", go(true, c_into), VEC_GP, 4 * 8 + 2);
	for (i = 0; i < 4; i++) {
		s[2 * i] = 0x100 + i;
		s[2 * i + 1] = SEL_UDATA;
	}
	check_trap("les, lds, lfs, lgs", go(true, c_les), VEC_END, 0);
	check("les: values",
	      rt_last.r.si == 0x100 && rt_last.r.di == 0x101 && rt_last.r.cx == 0x102 && rt_last.r.dx == 0x103 &&
		      rt_last.r.ax == SEL_UDATA && rt_last.r.bp == SEL_UDATA,
	      "%#lx %#lx", (word)rt_last.r.si, (word)rt_last.r.di);
	s[1] = 0x2003;
	check_trap("les of a bad selector", go(true, c_les), VEC_GP, 0x2000);
	check_eq("les: register unchanged by the fault", rt_last.r.si, 0);
	rt_user_regs(&r, c_arpl);
	r.ax = 0x1234; /* RPL 0 */
	r.cx = 0x0003;
	r.di = 0x4321 | 3;
	r.si = 1;
	check_trap("arpl", rt_run(&r), VEC_END, 0);
	check("arpl: raises RPL or leaves it",
	      (rt_last.r.ax & 0xffff) == 0x1237 && (rt_last.r.di & 0xffff) == 0x4323 && (rt_last.r.dx & 0xffff) == 1,
	      "%#lx %#lx %#lx", (word)rt_last.r.ax, (word)rt_last.r.di, (word)rt_last.r.dx);
	for (i = 0; i < 256; i++)
		scratch[i] = (uint8_t)(i * 3);
	go(true, c_xlat);
	check("xlat, salc", (rt_last.r.cx & 0xffff) == 0xff0f && (rt_last.r.dx & 0xff) == 0, "%#lx %#lx",
	      (word)rt_last.r.cx, (word)rt_last.r.dx);
	check_trap("jcxz and loop with 16-bit addresses", go(true, c_jcxz), VEC_END, 0);
	check_eq("jcxz, jecxz, loop with cx", rt_last.r.ax & 0xff, 6);
	check_eq("loop with cx keeps the upper half", rt_last.r.cx, 0x20000);
	go(true, c_incs);
	check("inc keeps CF, one byte forms",
	      (rt_last.r.cx & 255) == 1 && (rt_last.r.dx & 255) == 1 && (rt_last.r.si & 0xffff) == 0xffff, "%#lx",
	      (word)rt_last.r.si);
}

/* ---- 16-bit addressing: every form against its sum ---- */
static void addressing16(void)
{
	struct batch b = {"16-bit addressing", 0, 0};
	static uint8_t code[16];
	unsigned rm, mod;
	uint32_t bx = 0xdead1234, bp = 0xbeef2345, si = 0xcafe3456, di = 0xf00df987;

	for (mod = 0; mod < 3; mod++)
		for (rm = 0; rm < 8; rm++) {
			unsigned n = 0, want = 0;
			code[n++] = 0x67;
			code[n++] = 0x8d; /* lea ..., %eax */
			code[n++] = (uint8_t)(mod << 6 | rm);
			if (mod == 1)
				code[n++] = 0x85;
			if (mod == 2 || (mod == 0 && rm == 6)) {
				code[n++] = 0x77;
				code[n++] = 0xc1;
			}
			code[n++] = 0xcd;
			code[n++] = 0x80;
			want = (rm == 0 || rm == 1 || rm == 7 ? bx : 0) +
			       (rm == 2 || rm == 3 || (rm == 6 && mod) ? bp : 0) +
			       (rm == 0 || rm == 2 || rm == 4 ? si : 0) + (rm == 1 || rm == 3 || rm == 5 ? di : 0) +
			       (mod == 1                            ? 0xff85
				: mod == 2 || (mod == 0 && rm == 6) ? 0xc177
								    : 0);
			rt_user_regs(&r, code);
			r.bx = bx;
			r.bp = bp;
			r.si = si;
			r.di = di;
			rt_run(&r);
			batch_case(&b, rt_last.r.ax == (want & 0xffff), "mod %u rm %u: %#lx want %#x", mod, rm,
				   (word)rt_last.r.ax, want & 0xffff);
		}
	batch_end(&b);
}

/* ---- segment bases, limits, types ---- */
CODE(c_ld1, "mov %fs:(%ecx), %al" END);
CODE(c_ld4, "mov %fs:(%ecx), %eax" END);
CODE(c_st4, "mov %eax, %fs:(%ecx)" END);
CODE(c_sst, "mov (%ebp), %eax" END);
CODE(c_push, "push %eax" END);

static int with_fs(const char *code, unsigned sel, uint32_t off)
{
	rt_user_regs(&r, code);
	r.fs = sel;
	r.cx = off;
	r.ax = 0x12345678;
	return rt_run(&r);
}

static void bases(void)
{
	uint32_t *s = (uint32_t *)scratch;

	s[5] = 0xfeedface;
	set_seg(S1, (uint32_t)(word)scratch, 0xfff, 0xf3, 4);
	check_trap("fs base: read", with_fs(c_ld4, S1 | 3, 20), VEC_END, 0);
	check_eq("fs base: value", rt_last.r.ax, 0xfeedface);
	check_trap("fs base: write", with_fs(c_st4, S1 | 3, 24), VEC_END, 0);
	check_eq("fs base: written", s[6], 0x12345678);
	set_seg(S1, (uint32_t)(word)scratch + 0x10000, 0xfffff, 0xf3, 0xc);
	check_trap("offset wraps at 4 GiB", with_fs(c_ld4, S1 | 3, 0xffff0014), VEC_END, 0);
	check_eq("offset wraps: value", rt_last.r.ax, 0xfeedface);
	/* ds with a base: everything without a prefix moves */
	rt_user_regs(&r, c_xlat);
	r.ds = S1 | 3;
	r.bx = 0xffff0000;
	rt_run(&r);
	check_eq("ds base: xlat", rt_last.r.cx & 0xff, scratch[5]);
}

static void limits(void)
{
	struct batch b = {"limits at every edge", 0, 0};
	static const struct {
		const char *code;
		unsigned size;
	} t[] = {{c_ld1, 1}, {c_ld4, 4}, {c_st4, 4}};
	unsigned i, off;

	if (cpu.tcg) {
		skip(b.name, "TCG: has no limits");
		return;
	}
	set_seg(S1, (uint32_t)(word)scratch, 0x1f, 0xf3, 4);
	set_seg(S2, (uint32_t)(word)scratch, 0x1f, 0xf7, 4); /* expand down: 0x20 to 4 GiB */
	set_seg(S3, (uint32_t)(word)scratch, 0x1f, 0xf7, 0); /* expand down, B = 0: 0x20 to 0xffff */
	set_seg(S4, (uint32_t)(word)scratch, 1, 0xf3, 0xc);  /* pages: 0 to 0x1fff */
	for (i = 0; i < 3; i++) {
		for (off = 0x18; off < 0x28; off++) {
			int vec = with_fs(t[i].code, S1 | 3, off);
			bool fits = off + t[i].size - 1 <= 0x1f;
			batch_case(&b, vec == (fits ? VEC_END : VEC_GP) && (fits || rt_last.err == 0),
				   "up: size %u at %#x: %d", t[i].size, off, vec);
			vec = with_fs(t[i].code, S2 | 3, off);
			batch_case(&b, vec == (off > 0x1f ? VEC_END : VEC_GP), "down: size %u at %#x: %d", t[i].size,
				   off, vec);
		}
		for (off = 0xfff8; off < 0x10004; off++) {
			int vec = with_fs(t[i].code, S3 | 3, off);
			batch_case(&b, vec == (off + t[i].size - 1 <= 0xffff ? VEC_END : VEC_GP),
				   "down 16: size %u at %#x: %d", t[i].size, off, vec);
		}
		for (off = 0x1ff8; off < 0x2004; off++) {
			int vec = with_fs(t[i].code, S4 | 3, off);
			batch_case(&b, vec == (off + t[i].size - 1 <= 0x1fff ? VEC_END : VEC_GP),
				   "pages: size %u at %#x: %d", t[i].size, off, vec);
		}
		batch_case(&b, with_fs(t[i].code, S1 | 3, 0xffffffff) == VEC_GP, "size %u at the top", t[i].size);
	}
	batch_end(&b);
}

static void types(void)
{
	check_trap("null segment: read", with_fs(c_ld4, 0, 0), cpu.tcg ? VEC_END : VEC_GP, 0);
	if (cpu.tcg) {
		skip("segment types", "TCG: does not check them on access");
		return;
	}
	set_seg(S1, (uint32_t)(word)scratch, 0xfff, 0xf1, 4);
	check_trap("read-only data: read", with_fs(c_ld4, S1 | 3, 0), VEC_END, 0);
	check_trap("read-only data: write", with_fs(c_st4, S1 | 3, 0), VEC_GP, 0);
	set_seg(S1, (uint32_t)(word)scratch, 0xfff, 0xfb, 4);
	check_trap("readable code: read", with_fs(c_ld4, S1 | 3, 0), VEC_END, 0);
	check_trap("readable code: write", with_fs(c_st4, S1 | 3, 0), VEC_GP, 0);
	rt_user_regs(&r, c_st4);
	r.cx = 0;
	check_trap("write through cs", TRY(__asm__ volatile("movl $0, %%cs:(%0)" ::"r"(scratch))), VEC_GP, 0);
}

static void stack_segment(void)
{
	if (cpu.tcg) {
		skip("stack limits", "TCG: has no limits");
	} else {
		set_seg(S1, (uint32_t)(word)scratch, 0xfff, 0xf3, 4);
		rt_user_regs(&r, c_sst);
		r.ss = S1 | 3;
		r.sp = 0x100;
		r.bp = 0xffd;
		check_trap("stack limit: read by ebp", rt_run(&r), VEC_SS, 0);
		rt_user_regs(&r, c_push);
		r.ss = S1 | 3;
		r.sp = 0x1004;
		check_trap("stack limit: push beyond it", rt_run(&r), VEC_SS, 0);
		check_eq("stack limit: esp unchanged", rt_last.r.sp, 0x1004);
		r.sp = 0x1000;
		check_trap("stack limit: push at it", rt_run(&r), VEC_END, 0);
		r.sp = 2;
		check_trap("stack: push below 0", rt_run(&r), VEC_SS, 0);
	}
	/* 16-bit stack: only sp moves, and it wraps */
	set_seg(S1, (uint32_t)(word)scratch, 0xfffff, 0xf3, 8);
	rt_user_regs(&r, c_push);
	r.ss = S1 | 3;
	r.sp = 0x55551000;
	r.ax = 0x99887766;
	check_trap("16-bit stack: push", rt_run(&r), VEC_END, 0);
	check("16-bit stack: sp only", (rt_last.r.sp & 0xffff) == 0xffc && *(uint32_t *)(scratch + 0xffc) == 0x99887766,
	      "esp %#lx", (word)rt_last.r.sp);
}

/* String instructions against a limit: what was done stays done. */
CODE(c_movs, "rep movsb" END);
CODE(c_stosd, "rep stosl" END);

static void string_limits(void)
{
	if (cpu.tcg) {
		skip("strings against limits", "TCG: has no limits");
		return;
	}
	set_seg(S1, (uint32_t)(word)scratch, 0x1f, 0xf3, 4);
	rt_user_regs(&r, c_movs);
	r.es = S1 | 3;
	r.si = (word)scratch + 0x100;
	r.di = 0x10;
	r.cx = 40;
	check_trap("rep movsb to the limit", rt_run(&r), VEC_GP, 0);
	check("rep movsb to the limit: 16 done",
	      rt_last.r.cx == 24 && rt_last.r.di == 0x20 && rt_last.r.si == (word)scratch + 0x110, "ecx %#lx edi %#lx",
	      (word)rt_last.r.cx, (word)rt_last.r.di);
	rt_user_regs(&r, c_movs);
	r.ds = S1 | 3;
	r.si = 0x18;
	r.di = (word)scratch + 0x200;
	r.cx = 40;
	check_trap("rep movsb from beyond the limit", rt_run(&r), VEC_GP, 0);
	check("rep movsb from the limit: 8 done", rt_last.r.cx == 32 && rt_last.r.si == 0x20, "ecx %#lx",
	      (word)rt_last.r.cx);
	rt_user_regs(&r, c_stosd);
	r.es = S1 | 3;
	r.di = 0x1e;
	r.cx = 4;
	r.flags |= FL_DF;
	check_trap("rep stosl across the limit, downwards", rt_run(&r), VEC_GP, 0);
	check("rep stosl: none done", rt_last.r.cx == 4 && rt_last.r.di == 0x1e, "ecx %#lx", (word)rt_last.r.cx);
	r.di = 0x1c;
	r.cx = 20;
	check_trap("rep stosl down to 0 and below", rt_run(&r), VEC_GP, 0);
	check("rep stosl: eight done", rt_last.r.cx == 12 && rt_last.r.di == 0xfffffffc, "ecx %#lx edi %#lx",
	      (word)rt_last.r.cx, (word)rt_last.r.di);
}

/* ---- code segments ---- */
CODE(c_far_call, "lcall *(%ebx)" END);
CODE(c_far_jmp, "ljmp *(%ebx)");
CODE(t_lret, "mov %cs, %eax; mov %esp, %edx; lret");
CODE(t_end, "mov %cs, %eax; int $0x80");
CODE(c_ptr, "lcall $8, $t_lret" END);
CODE(c_ret_imm, "push $1; push $2; call 1f; int $0x80; 1: ret $8");

static uint8_t pages[4 * 4096] __attribute__((aligned(4096)));

/* Branches from the first page to the third run with a limit behind it and fault with one before it, and again. */
static void code_limit_pages(void)
{
	static const struct {
		const char *name, *code;
		unsigned len, fault; /* where the branch is */
	} t[] = {{"jump to another page beyond the code limit", "\xe9\x0b\x20\x00\x00", 5, 0},
		 {"indirect jump likewise", "\xbb\x10\x20\x00\x00\xff\xe3", 7, 5},
		 {"ret likewise", "\x68\x10\x20\x00\x00\xc3", 6, 5}};
	struct {
		uint32_t off;
		uint16_t sel;
	} __attribute__((packed)) *p = (void *)scratch;

	memcpy(pages + 0x2010, "\xcd\x80", 2);
	p->off = 0;
	p->sel = S1 | 3;
	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		struct batch b = {t[i].name, 0, 0};

		memcpy(pages, t[i].code, t[i].len);
		for (unsigned k = 0; k < 6; k++) {
			bool good = k % 4 < 2;
			int vec;

			set_seg(S1, (uint32_t)(word)pages, good ? 0x3fff : 0x1fff, 0xfb, 4);
			vec = go(true, c_far_jmp);
			batch_case(&b, vec == (good ? VEC_END : VEC_GP) && (good || rt_last.r.ip == t[i].fault),
				   "round %u: vector %d at %#lx", k, vec, (word)rt_last.r.ip);
		}
		batch_end(&b);
	}
}

static void code_segments(void)
{
	struct {
		uint32_t off;
		uint16_t sel;
	} __attribute__((packed)) *p = (void *)scratch;

	p->off = (uint32_t)(word)t_lret;
	p->sel = SEL_CODE;
	check_trap("far call and return", go(false, c_far_call), VEC_END, 0);
	check("far call: frame", rt_last.r.dx == r.sp - 8 && rt_last.r.sp == r.sp, "esp %#lx", (word)rt_last.r.dx);
	check_trap("far call to an immediate pointer", go(false, c_ptr), VEC_END, 0);
	check_trap("ret imm16", go(true, c_ret_imm), VEC_END, 0);
	check_eq("ret imm16: esp", rt_last.r.sp, r.sp);
	/* a code segment with a base: offsets are relative to it */
	set_seg(S1, 0x10000, 0xfffff, 0xfb, 0xc);
	p->off = (uint32_t)(word)t_end - 0x10000;
	p->sel = S1 | 3;
	check_trap("code segment with a base", go(true, c_far_jmp), VEC_END, 0);
	check("code segment with a base: cs, eip",
	      rt_last.r.cs == (S1 | 3) && rt_last.r.ip == (word)t_end - 0x10000 + 4, "cs %#lx eip %#lx",
	      (word)rt_last.r.cs, (word)rt_last.r.ip);
	p->sel = SEL_DATA;
	check_trap("far jump to data", go(false, c_far_jmp), VEC_GP, SEL_DATA);
	p->sel = SEL_CODE;
	check_trap("far jump to ring 0 from ring 3", go(true, c_far_jmp), VEC_GP, SEL_CODE);
	set_seg(S1, 0, 0xfffff, 0x9f, 0xc);
	p->off = (uint32_t)(word)t_end;
	p->sel = S1;
	check_trap("conforming segment from ring 3", go(true, c_far_jmp), VEC_END, 0);
	check_eq("conforming segment: CPL stays 3", rt_last.r.ax, S1 | 3);
	if (cpu.tcg) {
		skip("code limits", "TCG: has no limits");
		return;
	}
	set_seg(S1, (uint32_t)(word)scratch, 0xff, 0xfb, 4);
	memset(scratch + 64, 0x90, 512);
	p->off = 0xf0;
	p->sel = S1 | 3;
	check_trap("running past the code limit", go(true, c_far_jmp), VEC_GP, 0);
	check_eq("running past the code limit: eip", rt_last.r.ip, 0x100);
	p->off = 0x100;
	check_trap("far jump beyond the limit", go(true, c_far_jmp), VEC_GP, 0);
	check_eq("far jump beyond the limit: faults at the jump", rt_last.r.ip, (word)c_far_jmp);
	memcpy(scratch + 64, "\xe9\x00\x10\x00\x00", 5);
	p->off = 64;
	check_trap("near jump beyond the limit", go(true, c_far_jmp), VEC_GP, 0);
	check_eq("near jump beyond the limit: faults at the jump", rt_last.r.ip, 64);
	memcpy(scratch + 0xfe, "\xb8\x00\x00\x00\x00", 5);
	p->off = 0xfe;
	check_trap("instruction across the limit", go(true, c_far_jmp), VEC_GP, 0);
	check_eq("instruction across the limit: eip", rt_last.r.ip, 0xfe);
	code_limit_pages();
}

/* ---- 16-bit code ---- */
__asm__(".pushsection .text\n.code16\n"
	"w_code: movw $0x1234, %ax; movl $0x89abcdef, %ecx; pushw %ax; popw %dx; pushl %ecx; popl %esi; callw 1f; jmp 2f\n"
	"1: movw %sp, %di; retw\n"
	"2: incw %ax; addr32 movw (%ebx), %bp; int $0x80\n"
	"w_end:\n.code32\n.popsection");
extern char w_code[], w_end[];
CODE(c_rel16, "mov $5, %ecx; .byte 0x66; call 1f; 1: int $0x80");

static void code16(void)
{
	set_seg(S1, (uint32_t)(word)w_code, 0xffff, 0xfb, 0);  /* D = 0 */
	set_seg(S2, (uint32_t)(word)scratch, 0xffff, 0xf3, 0); /* B = 0 */
	rt_user_regs(&r, 0);
	r.cs = S1 | 3;
	r.ss = S2 | 3;
	r.sp = 0x800;
	r.bx = (word)scratch + 0x900;
	*(uint16_t *)(scratch + 0x900) = 0x7788;
	check_trap("16-bit code", rt_run(&r), VEC_END, 0);
	check("16-bit code: results",
	      (rt_last.r.ax & 0xffff) == 0x1235 && rt_last.r.cx == 0x89abcdef && rt_last.r.si == 0x89abcdef &&
		      (rt_last.r.dx & 0xffff) == 0x1234 && (rt_last.r.di & 0xffff) == 0x7fe &&
		      (rt_last.r.bp & 0xffff) == 0x7788,
	      "eax %#lx ecx %#lx edx %#lx edi %#lx ebp %#lx", (word)rt_last.r.ax, (word)rt_last.r.cx,
	      (word)rt_last.r.dx, (word)rt_last.r.di, (word)rt_last.r.bp);
	check_eq("16-bit code: eip", rt_last.r.ip, (word)(w_end - w_code));
}

/* ---- gates and stack switches ---- */
CODE(k_gate, "mov %cs, %eax; mov %ss, %ecx; mov 8(%esp), %edx; mov 12(%esp), %esi; mov 16(%esp), %edi; lret $8");
CODE(c_gate, "push $0x1111; push $0x2222; lcall $0x53, $0" END);

static void call_gates(void)
{
	word k = (word)k_gate;

	rt_gdt[S1 / 8] =
		(k & 0xffff) | (uint64_t)SEL_CODE << 16 | 2ull << 32 | 0xecull << 40 | (uint64_t)(k >> 16) << 48;
	check_trap("call gate with two parameters", go(true, c_gate), VEC_END, 0);
	check("call gate: cs, ss inside", rt_last.r.ax == SEL_CODE && rt_last.r.cx == SEL_DATA, "cs %#lx ss %#lx",
	      (word)rt_last.r.ax, (word)rt_last.r.cx);
	check("call gate: parameters and old esp",
	      rt_last.r.dx == 0x2222 && rt_last.r.si == 0x1111 && rt_last.r.di == r.sp - 8, "%#lx %#lx %#lx",
	      (word)rt_last.r.dx, (word)rt_last.r.si, (word)rt_last.r.di);
	check("call gate: back, parameters gone", rt_last.r.cs == SEL_UCODE && rt_last.r.sp == r.sp, "cs %#lx esp %#lx",
	      (word)rt_last.r.cs, (word)rt_last.r.sp);
	rt_gdt[S1 / 8] &= ~(0x60ull << 40);
	check_trap("call gate: DPL", go(true, c_gate), VEC_GP, S1);
	rt_gdt[S1 / 8] = (rt_gdt[S1 / 8] & ~(0xffull << 40)) | 0x6cull << 40;
	check_trap("call gate: not present", go(true, c_gate), VEC_NP, S1);
	rt_gdt[S1 / 8] = 0;
}

CODE(c_ud, "ud2");
CODE(c_int, "int $0x81; int $0x80");

static void stack_switch(void)
{
	uint32_t esp0 = rt_tss.esp0;

	check_trap("ring 3 fault", go(true, c_ud), VEC_UD, 0);
	check_eq("ring 3 fault: frame at esp0", rt_last.handler_sp, esp0 - REGS_FRAME);
	check("ring 3 fault: old stack", rt_last.r.sp == r.sp && rt_last.r.ss == SEL_UDATA && rt_last.r.ds == SEL_UDATA,
	      "esp %#lx ss %#lx", (word)rt_last.r.sp, (word)rt_last.r.ss);
	check_trap("ring 0 fault", go(false, c_ud), VEC_UD, 0);
	check_eq("ring 0 fault: same stack", rt_last.handler_sp, r.sp - offsetof(struct regs, sp));
	check_trap("int with DPL 0", go(true, c_int), VEC_GP, 0x81 * 8 + 2);
	/* ss0 of the wrong privilege: #TS, delivered on the same bad stack, so #TS again: a double fault, and again */
	gate_set(0x81, rt_stubs + 16 * 0x81, 0xee, 0);
	check_trap("int to ring 0 by a gate of DPL 3", go(true, c_int), 0x81, 0);
	gate_set(0x81, rt_stubs + 16 * 0x81, 0x8e, 0);
}

/* ---- flags at the 16-bit size, iret ---- */
CODE(c_popfw, "pushw %ax; popfw; pushf; pop %ecx" END);
CODE(c_iret3, "push %ecx; push %edx; push %esi; push %edi; push %ebp; iretl");

static void flags(void)
{
	rt_user_regs(&r, c_popfw);
	r.flags |= FL_AC | FL_ID;
	r.ax = 0xcd5 | FL_IF | FL_IOPL;
	rt_run(&r);
	check_eq("popfw in ring 3", rt_last.r.cx & ~0u, FL_AC | FL_ID | 0xcd7);
	rt_regs(&r, c_iret3);
	r.cx = SEL_UDATA;
	r.dx = (word)rt_user_stack + 4096;
	r.si = FL_IOPL | FL_AC | FL_CF | 2;
	r.di = SEL_UCODE;
	r.bp = (word)t_end;
	check_trap("iret to ring 3", rt_run(&r), VEC_END, 0);
	check("iret to ring 3: state",
	      rt_last.r.cs == SEL_UCODE && rt_last.r.flags == r.si && rt_last.r.sp == r.dx && rt_last.r.ds == 0 &&
		      rt_last.r.es == 0,
	      "cs %#lx flags %#lx esp %#lx ds %#lx", (word)rt_last.r.cs, (word)rt_last.r.flags, (word)rt_last.r.sp,
	      (word)rt_last.r.ds);
	r.di = SEL_CODE | 3;
	check_trap("iret: RPL and DPL differ", rt_run(&r), VEC_GP, SEL_CODE);
	r.di = SEL_UCODE;
	r.cx = SEL_DATA;
	check_trap("iret: bad ss", rt_run(&r), VEC_GP, SEL_DATA);
}

/* ---- sysenter in protected mode: both vendors ---- */
CODE(c_sysenter, "sysenter");
CODE(k_sysenter, "mov %cs, %eax; mov %ss, %ecx; mov $t_end, %edx; mov %esi, %ecx; sysexit");

static void sysenter(void)
{
	uint32_t a, b, c, d;

	cpuid(1, 0, &a, &b, &c, &d);
	if (!(d >> 11 & 1)) {
		skip("sysenter", "not supported");
		return;
	}
	check_trap("sysenter with a null CS MSR", (wrmsr(0x174, 0), go(true, c_sysenter)), VEC_GP, 0);
	wrmsr(0x174, SEL_CODE);
	wrmsr(0x175, (word)rt_run_stack + 4096);
	wrmsr(0x176, (word)k_sysenter);
	rt_user_regs(&r, c_sysenter);
	r.si = (word)rt_user_stack + 2048;
	check_trap("sysenter, sysexit", rt_run(&r), VEC_END, 0);
	check("sysexit: state", rt_last.r.cs == SEL_UCODE && rt_last.r.ss == SEL_UDATA && rt_last.r.sp == r.si,
	      "cs %#lx esp %#lx", (word)rt_last.r.cs, (word)rt_last.r.sp);
	wrmsr(0x174, 0);
}

/* ---- selectors ---- */
static void selectors(void)
{
	uint32_t v = 0;
	static uint64_t table[2];

	check_trap("mov ss, null", TRY(__asm__ volatile("mov %0, %%ss" ::"r"(0))), VEC_GP, 0);
	check_trap("mov ds beyond the GDT", TRY(__asm__ volatile("mov %0, %%ds" ::"r"(0x1000))), VEC_GP, 0x1000);
	set_seg(S1, 0, 0xfffff, 0x13, 0xc);
	check_trap("mov ds, not present", TRY(__asm__ volatile("mov %0, %%ds" ::"r"(S1))), VEC_NP, S1);
	check_trap("mov ss, not present", TRY(__asm__ volatile("mov %0, %%ss" ::"r"(S1))), VEC_SS, S1);
	set_seg(S1, 0, 0xfffff, 0x91, 0xc);
	check_trap("mov ss, read only", TRY(__asm__ volatile("mov %0, %%ss" ::"r"(S1))), VEC_GP, S1);
	check_trap("mov to cs", TRY(__asm__ volatile(".byte 0x8e, 0xc8")), VEC_UD, 0);
	set_seg(S1, (uint32_t)(word)table, sizeof(table) - 1, 0x82, 0);
	table[1] = seg_desc((uint32_t)(word)scratch, 0xfff, 0xf3, 4);
	__asm__ volatile("lldt %w0" ::"r"(S1));
	*(uint32_t *)scratch = 0x13572468;
	__asm__ volatile("mov %1, %%fs; mov %%fs:0, %0" : "=r"(v) : "r"(0xf));
	check_eq("LDT: fs base", v, 0x13572468);
	check_trap("LDT: beyond its limit", TRY(__asm__ volatile("mov %0, %%fs" ::"r"(0x17))), VEC_GP, 0x14);
	__asm__ volatile("mov %0, %%fs; lldt %w0" ::"r"(0));
	set_seg(S1, 0, 0x12345, 0xf3, 0xc);
	__asm__ volatile("lsl %1, %0" : "=r"(v) : "r"(S1));
	check_eq("lsl: pages", v, 0x12345fff);
	__asm__ volatile("push %%fs; mov (%%esp), %0; add $4, %%esp" : "=r"(v));
	check_eq("push fs takes four bytes", v & 0xffff, 0);
}

/* ---- stepping over pop ss ---- */
static unsigned n_db;
static word db_ip[8];
static bool hook_db(struct regs *g)
{
	if (g->vec != VEC_DB)
		return false;
	if (n_db < 8)
		db_ip[n_db] = g->ip;
	n_db++;
	return n_db < 8;
}
CODE(c_popss, "push %ss; pop %ss; nop; nop" END);

static void step_pop_ss(void)
{
	rt_regs(&r, c_popss);
	r.flags |= FL_TF;
	n_db = 0;
	rt_hook = hook_db;
	rt_run(&r);
	rt_hook = NULL;
	check("step: pop ss holds the trap back",
	      n_db == 3 && db_ip[0] == (word)c_popss + 1 && db_ip[1] == (word)c_popss + 3 &&
		      db_ip[2] == (word)c_popss + 4,
	      "%u traps", n_db);
}

void flat_main(void)
{
	decimal();
	pusha();
	enter_leave();
	bounds();
	misc();
	addressing16();
	bases();
	limits();
	types();
	stack_segment();
	string_limits();
	code_segments();
	code16();
	call_gates();
	stack_switch();
	flags();
	sysenter();
	selectors();
	step_pop_ss();
}
