/*
 * A 32-bit program without a C library that runs 16-bit code through its local descriptor table.
 *
 * Invariant: such code does what 16-bit code does, or raises SIGILL at its first byte with nothing done; what it must
 * never do is run as code of another size.  Status 2: the kernel does not give out 16-bit segments.  Each piece of code runs as 32-bit code first, at the same address, so that
 * whatever a machine keeps of it is there.
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

/* Code that says both what 16-bit and what 32-bit code it is; both end with a far return. */
static const struct piece {
	const char *name;
	unsigned char code[32] __attribute__((aligned(16)));
	u32 as16, as32;
} pieces[] __attribute__((section(".text.pieces,\"ax\"#"))) = {
	/* 16 bits: mov eax, 0xeb1234; data32 lret.  32 bits: mov ax, 0x1234; jmp to an lretw */
	{"an immediate that is a jump", {0x66, 0xb8, 0x34, 0x12, 0xeb, 0x00, 0x66, 0xcb}, 0x00eb1234, 0},
	/* 16 bits: mov ax, 1; data32 lret.  32 bits: mov eax, 0xcb660001; lret */
	{"an instruction longer in 32 bits", {0xb8, 0x01, 0x00, 0x66, 0xcb, 0xcb}, 0xaaaa0001, 0xcb660001},
	/* 16 bits: mov ax, 7; call 1f; data32 lret; 1: ret */
	{"a near call and return", {0xb8, 7, 0, 0xe8, 2, 0, 0x66, 0xcb, 0xc3}, 0xaaaa0007, 0},
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
	ax = call_segment();
	if (!caught) {
		expect(ax == p->as16, p->name, ax);
		return;
	}
	expect(caught == 4, "signal", caught);
	expect(at_cs == 0xf && at_ip == 0, "at", at_cs << 16 | at_ip);
	expect(at_ax == 0xaaaaaaaa, p->name, at_ax);
	say("code16: refused\n");
}

__attribute__((used)) static void start(void)
{
	catch_signal(4);
	catch_signal(11);
	for (u32 i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		try(&pieces[i]);
	say(failures ? "code16: FAILED\n" : "code16: passed\n");
	sys(1, failures != 0, 0, 0, 0);
}

__asm__(".globl _start; _start: and $-16, %esp; call start; hlt");
