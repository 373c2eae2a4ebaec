/*
 * A 32-bit program without a C library that runs 16-bit code through its local descriptor table.
 *
 * Invariant: such code does what a CPU does (each line was seen on one), a fault is where it is and nothing of the
 * instruction done; what it must never do is run as code of another size.  Status 2: the kernel does not give out 16-bit
 * segments.  Where a piece is code of 32 bits too, it runs as that first, at the same address, so that whatever a machine
 * keeps of it is there.
 */
typedef unsigned int u32;

static int failures;

static int sys(int nr, int a, int b, int c, int d)
{
	int ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}

static void say(const char *s)
{
	int len = 0;

	while (s[len])
		len++;
	sys(4, 1, (int)s, len, 0);
}

static void say_hex(const char *what, u32 n)
{
	char text[] = " 0x00000000\n";

	for (int i = 10; i > 2; i--, n >>= 4)
		text[i] = "0123456789abcdef"[n & 15];
	say(what);
	say(text);
}

static void expect(int cond, const char *what, u32 got)
{
	if (cond)
		return;
	failures++;
	say("code16: failed: ");
	say_hex(what, got);
}

struct user_desc {
	u32 entry_number, base_addr, limit, flags;
};

struct context { /* struct ucontext of 32-bit programs, as far as it is looked at */
	u32 flags, link, stack[3];
	u32 gs, fs, es, ds, di, si, bp, sp, bx, dx, cx, ax, trapno, err, ip, cs;
};

static volatile u32 caught, at_ip, at_cs, at_ax;
static u32 back_sp, back_ip;

/* Where the program goes on, instead of returning to what raised it. */
__attribute__((used)) static void handler(int sig, void *info, const struct context *c)
{
	(void)info;
	caught = (u32)sig;
	at_ip = c->ip;
	at_cs = c->cs;
	at_ax = c->ax;
	__asm__ volatile("mov %0, %%esp; jmp *%1" ::"m"(back_sp), "r"(back_ip));
	__builtin_unreachable();
}

static void catch_signal(int sig)
{
	struct {
		void (*handler)(int, void *, const struct context *);
		u32 flags;
		void *restorer;
		u32 mask[2];
	} act = {handler, 0x40000000 | 4, 0, {0, 0}}; /* SA_NODEFER, SA_SIGINFO */

	expect(sys(174, sig, (int)&act, 0, 8) == 0, "rt_sigaction", (u32)sig);
}

#define BIT32 1u
static int set_code_segment(const void *code, u32 flags)
{
	struct user_desc d = {1, (u32)code, 63, flags | 2u << 1};

	return sys(123, 0x11, (int)&d, sizeof d, 0); /* modify_ldt */
}

/* Far call of offset 0 in the segment; eax. */
static u32 call_segment(void)
{
	u32 ax = 0xaaaaaaaa;

	caught = 0;
	__asm__ volatile("push %%ebp; movl %%esp, %1; movl $1f, %2; lcall $0xf, $0; 1: pop %%ebp"
			 : "+a"(ax), "=m"(back_sp), "=m"(back_ip)::"ebx", "ecx", "edx", "esi", "edi", "memory", "cc");
	return ax;
}

#define LRET   0x66, 0xcb /* data32 lret */
#define IMM32  0x78, 0x56, 0x34, 0x12
#define FOUR66 0x66, 0x66, 0x66, 0x66

/* What it leaves in eax, which begins as 0xaaaaaaaa; or the signal and where. */
static const struct piece {
	const char *name;
	unsigned char code[64] __attribute__((aligned(64)));
	u32 as16, as32, signal, ip;
} pieces[] __attribute__((section(".text.pieces,\"ax\"#"))) = {
	/* 16 bits: mov eax, 0xeb1234; data32 lret.  32 bits: mov ax, 0x1234; jmp to an lretw */
	{"an immediate that is a jump", {0x66, 0xb8, 0x34, 0x12, 0xeb, 0x00, LRET}, 0x00eb1234, 0, 0, 0},
	/* 16 bits: mov ax, 1; data32 lret.  32 bits: mov eax, 0xcb660001; lret */
	{"an instruction longer in 32 bits", {0xb8, 0x01, 0x00, LRET, 0xcb}, 0xaaaa0001, 0xcb660001, 0, 0},
	/* mov ax, 7; call 1f; data32 lret; 1: ret */
	{"a near call and return", {0xb8, 7, 0, 0xe8, 2, 0, LRET, 0xc3}, 0xaaaa0007, 0, 0, 0},
	{"67 66", {0x67, 0x66, 0xb8, IMM32, LRET}, 0x12345678, 0, 0, 0},
	{"66 67 66", {0x66, 0x67, 0x66, 0xb8, IMM32, LRET}, 0x12345678, 0, 0, 0},
	{"67 alone", {0x67, 0xb8, 5, 0, LRET}, 0xaaaa0005, 0, 0, 0},
	{"15 bytes", {FOUR66, FOUR66, 0x66, 0x66, 0xb8, IMM32, LRET}, 0x12345678, 0, 0, 0},
	{"16 bytes", {FOUR66, FOUR66, 0x66, 0x66, 0x66, 0xb8, IMM32, LRET}, 0xaaaaaaaa, 0, 11, 0},
	/* nop; jmp to the last two bytes of the segment: mov ax, imm16 needs one more */
	{"beyond the limit", {0x90, 0xeb, 59, [62] = 0xb8, 0x34}, 0xaaaaaaaa, 0, 11, 62},
	{"up to the limit", {0xeb, 60, [62] = LRET}, 0xaaaaaaaa, 0, 0, 0},
	{"a jump out of the segment", {0x90, 0xe9, 0x00, 0x10}, 0xaaaaaaaa, 0, 11, 1},
	{"a jump back around 0", {0x90, 0xeb, 0x80}, 0xaaaaaaaa, 0, 11, 1},
	/* mov ax, cs:[6] */
	{"an absolute address", {0x2e, 0xa1, 6, 0, LRET, 0x34, 0x12}, 0xaaaa1234, 0, 0, 0},
	/* mov bx, 4; mov si, 8; mov ax, cs:[bx + si] */
	{"bx + si", {0xbb, 4, 0, 0xbe, 8, 0, 0x2e, 0x8b, 0x00, LRET, 0, 0x78, 0x56}, 0xaaaa5678, 0, 0, 0},
	/* the same, wrapping: mov bx, 0xfff0; mov si, 28 */
	{"bx + si around 64 KiB",
	 {0xbb, 0xf0, 0xff, 0xbe, 28, 0, 0x2e, 0x8b, 0x00, LRET, 0, 0x78, 0x56},
	 0xaaaa5678,
	 0,
	 0,
	 0},
	/* mov bx, 63; mov ax, cs:[bx] */
	{"data beyond the limit", {0xbb, 63, 0, 0x2e, 0x8b, 0x07, LRET}, 0xaaaaaaaa, 0, 11, 3},
	/* mov ebx, 4; mov esi, 8; mov eax, cs:[ebx + esi + 12] */
	{"a 32-bit address",
	 {0x66, 0xbb, 4, 0, 0, 0, 0x66, 0xbe, 8, 0, 0, 0, 0x67, 0x66, 0x2e, 0x8b, 0x44, 0x33, 12, LRET, 0, 0, 0, IMM32},
	 0x12345678,
	 0,
	 0,
	 0},
	/* mov word cs:[0], ax: code is not written, whatever its base */
	{"a store into code", {0x2e, 0xa3, 0, 0, LRET}, 0xaaaaaaaa, 0, 11, 0},
	/* mov cx, 3; mov ax, 0; 1: inc ax; loop 1b */
	{"loop", {0xb9, 3, 0, 0xb8, 0, 0, 0x40, 0xe2, 0xfd, LRET}, 0xaaaa0003, 0, 0, 0},
	/* mov ecx, 0x10000; mov ax, 1; jcxz over dec ax */
	{"jcxz", {0x66, 0xb9, 0, 0, 1, 0, 0xb8, 1, 0, 0xe3, 1, 0x48, LRET}, 0xaaaa0001, 0, 0, 0},
	{"push and pop of 16 bits", {0x68, 0x34, 0x12, 0x58, LRET}, 0xaaaa1234, 0, 0, 0},
	{"push and pop of 32 bits", {0x66, 0x68, IMM32, 0x66, 0x58, LRET}, 0x12345678, 0, 0, 0},
	{"aam", {0xb8, 55, 0, 0xd4, 10, LRET}, 0xaaaa0505, 0, 0, 0},
	{"cbw", {0xb8, 0x80, 0, 0x98, LRET}, 0xaaaaff80, 0, 0, 0},
	{"cwde", {0xb8, 0x80, 0xff, 0x66, 0x98, LRET}, 0xffffff80, 0, 0, 0},
	{"movsx eax, al", {0xb8, 0xff, 0, 0x66, 0x0f, 0xbe, 0xc0, LRET}, 0xffffffff, 0, 0, 0},
	/* mov ebx, 0x11234; lea ax, [bx + 5]; lea eax, [bx + 5] */
	{"lea", {0x66, 0xbb, 0x34, 0x12, 1, 0, 0x8d, 0x47, 5, LRET}, 0xaaaa1239, 0, 0, 0},
	{"lea of 32 bits", {0x66, 0xbb, 0x34, 0x12, 1, 0, 0x66, 0x8d, 0x47, 5, LRET}, 0x00001239, 0, 0, 0},
	/* movd xmm0, eax whose 66 is no operand size; mov ax, 1; movd eax, xmm0 */
	{"a prefix that is opcode",
	 {0x66, 0x0f, 0x6e, 0xc0, 0xb8, 1, 0, 0x66, 0x0f, 0x7e, 0xc0, LRET},
	 0xaaaaaaaa,
	 0,
	 0,
	 0},
};

static void try(const struct piece *p)
{
	u32 ax;

	if (p->as32) {
		expect(set_code_segment(p->code, BIT32) == 0, "modify_ldt, 32 bits", 0);
		for (int i = 0; i < 50; i++) {
			ax = call_segment();
			expect(ax == p->as32 && !caught, p->name, ax);
		}
	}
	if (set_code_segment(p->code, 0) != 0) {
		say("code16: this kernel has no 16-bit segments\n");
		sys(1, failures ? 1 : 2, 0, 0, 0);
	}
	for (int i = 0; i < 50; i++) {
		ax = call_segment();
		if (caught != p->signal) {
			say("code16: ");
			say(p->name);
			expect(0, ": signal", caught);
			return;
		}
		if (!p->signal) {
			expect(ax == p->as16, p->name, ax);
			continue;
		}
		expect(at_cs == 0xf && at_ip == p->ip, p->name, at_cs << 16 | at_ip);
		expect((at_ax ^ p->as16) >> 16 == 0, p->name, at_ax);
	}
}

__attribute__((used)) static void start(void)
{
	catch_signal(4);
	catch_signal(7);
	catch_signal(11);
	for (u32 i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		try(&pieces[i]);
	say(failures ? "code16: FAILED\n" : "code16: passed\n");
	sys(1, failures != 0, 0, 0, 0);
}

__asm__(".globl _start; _start: and $-16, %esp; call start; hlt");
