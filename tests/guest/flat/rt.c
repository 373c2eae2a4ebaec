/*
 * Runtime of the flat guests: console, checks, descriptor tables, traps.
 * Invariant: nothing here uses vector registers or gs, so guests may.
 */
#include "rt.h"

struct trap rt_last;
struct jmp *rt_jmp;
bool (*rt_hook)(struct regs *r);
struct cpu cpu;
uint32_t rt_boot_magic, rt_boot_info;
struct tss rt_tss __attribute__((aligned(4096)));
struct gate rt_idt[256] __attribute__((aligned(16)));
uint8_t rt_user_stack[8192] __attribute__((aligned(4096)));
uint8_t rt_run_stack[8192] __attribute__((aligned(4096)));
uint8_t rt_stack0[8192] __attribute__((aligned(4096)));
uint8_t rt_ist_stack[7][4096] __attribute__((aligned(4096)));
static unsigned n_ok, n_bad, n_skip;

#ifdef __x86_64__
uint64_t rt_gdt[32] __attribute__((aligned(16))) = {
	0,
	0x00af9b000000ffff,
	0x00cf93000000ffff,
	0x00cffb000000ffff,
	0x00cff3000000ffff,
	0x00affb000000ffff,
	0x00cff3000000ffff,
	0x00cf9b000000ffff,
};
#else
uint64_t rt_gdt[32] __attribute__((aligned(16))) = {
	0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff,
};
#endif

/* ---- memory ---- */
void *memset(void *d, int c, size_t n)
{
	uint8_t *p = d;

	while (n--)
		*p++ = (uint8_t)c;
	return d;
}

void *memcpy(void *d, const void *s, size_t n)
{
	uint8_t *p = d;
	const uint8_t *q = s;

	while (n--)
		*p++ = *q++;
	return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

/* ---- console: the debug port and COM1 ---- */
static void put(char c)
{
	unsigned spin = 100000;

	outb(0xe9, (uint8_t)c);
	while (!(inb(0x3fd) & 0x20) && --spin)
		;
	outb(0x3f8, (uint8_t)c);
}

static void put_hex(uint64_t v, int width)
{
	int i = 60;

	while (i && !(v >> i) && i / 4 + 1 > width)
		i -= 4;
	for (; i >= 0; i -= 4)
		put("0123456789abcdef"[(v >> i) & 15]);
}

static void put_dec(word v)
{
	char buf[24];
	int n = 0;

	do
		buf[n++] = (char)('0' + v % 10);
	while (v /= 10);
	while (n)
		put(buf[--n]);
}

/* %s %c %d %u %x with l, ll, z and a zero-padded width for %x. */
static void vprint(const char *f, va_list ap)
{
	for (; *f; f++) {
		int l = 0, width = 0;
		uint64_t v;

		if (*f != '%') {
			put(*f);
			continue;
		}
		for (f++; *f == 'l' || *f == 'z' || *f == '#' || (*f >= '0' && *f <= '9'); f++) {
			if (*f == 'l' || *f == 'z')
				l++;
			else if (*f != '#')
				width = width * 10 + *f - '0';
		}
		switch (*f) {
		case 's': {
			const char *s = va_arg(ap, const char *);
			while (*s)
				put(*s++);
			break;
		}
		case 'c': put((char)va_arg(ap, int)); break;
		case 'd': {
			long d = l ? va_arg(ap, long) : va_arg(ap, int);
			if (d < 0)
				put('-');
			put_dec(d < 0 ? -(word)d : (word)d);
			break;
		}
		case 'u': put_dec(l ? va_arg(ap, unsigned long) : va_arg(ap, unsigned)); break;
		case 'x':
			v = l > 1 ? va_arg(ap, unsigned long long)
			    : l   ? va_arg(ap, unsigned long)
				  : va_arg(ap, unsigned);
			put_hex(v, width);
			break;
		default: put(*f);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

/* ---- checks ---- */
void check(const char *name, bool ok, const char *fmt, ...)
{
	va_list ap;

	if (ok) {
		n_ok++;
		print("ok %s\n", name);
		return;
	}
	n_bad++;
	print("not ok %s: ", name);
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	put('\n');
}

void check_eq(const char *name, word got, word want)
{
	check(name, got == want, "got %#lx want %#lx", got, want);
}

void check_trap(const char *name, int vec, int want_vec, word want_err)
{
	bool ok = vec == want_vec && (want_vec < 0 || want_err == ~(word)0 || rt_last.err == want_err);

	check(name, ok, "vector %d error %#lx ip %#lx cr2 %#lx, want %d error %#lx", vec, vec < 0 ? 0 : rt_last.err,
	      vec < 0 ? 0 : (word)rt_last.r.ip, rt_last.cr2, want_vec, want_err);
}

void skip(const char *name, const char *why)
{
	n_skip++;
	print("ok %s # skip %s\n", name, why);
}

void batch_case(struct batch *b, bool ok, const char *fmt, ...)
{
	va_list ap;

	b->cases++;
	if (ok)
		return;
	if (b->bad++ >= 12)
		return;
	print("# %s: ", b->name);
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	put('\n');
}

void batch_end(struct batch *b)
{
	check(b->name, b->bad == 0 && b->cases > 0, "%u of %u cases", b->bad, b->cases);
	print("# %s: %u cases\n", b->name, b->cases);
}

unsigned rt_failures(void)
{
	return n_bad;
}

void rt_exit(uint32_t value)
{
	outl(0xf4, value);
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* ---- descriptor tables ---- */
void gate_set(unsigned vec, const void *fn, unsigned type, unsigned ist)
{
	word p = (word)fn;
	struct gate *g = &rt_idt[vec];

	memset(g, 0, sizeof(*g));
	g->off0 = (uint16_t)p;
	g->off1 = (uint16_t)(p >> 16);
	g->sel = SEL_CODE;
	g->type = (uint8_t)type;
	g->ist = (uint8_t)ist;
#ifdef __x86_64__
	g->off2 = (uint32_t)(p >> 32);
#endif
}

uint64_t seg_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
	       (uint64_t)((limit >> 16) & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

void rt_load_idt(void)
{
	struct dtr d = {sizeof(rt_idt) - 1, (word)rt_idt};

	__asm__ volatile("lidt %0" ::"m"(d));
}

void rt_load_gdt(void)
{
	struct dtr d = {sizeof(rt_gdt) - 1, (word)rt_gdt};

	__asm__ volatile("lgdt %0" ::"m"(d));
}

static void tables_init(void)
{
	unsigned i;

	for (i = 0; i < 256; i++)
		gate_set(i, rt_stubs + 16 * i, 0x8e, i == VEC_DF ? 1 : 0);
	gate_set(VEC_END, rt_stubs + 16 * VEC_END, 0xee, 0);
	rt_tss.iomap = sizeof(rt_tss) - 1 - 8192;
	memset(rt_tss.iobits, 0xff, sizeof(rt_tss.iobits));
#ifdef __x86_64__
	rt_idt[VEC_DF].ist = 1;
	rt_tss.rsp[0] = (word)rt_stack0 + sizeof(rt_stack0);
	for (i = 0; i < 7; i++)
		rt_tss.ist[i] = (word)rt_ist_stack[i] + sizeof(rt_ist_stack[i]);
	rt_gdt[SEL_TSS / 8 + 1] = (word)&rt_tss >> 32;
#else
	rt_idt[VEC_DF].ist = 0;
	rt_tss.esp0 = (word)rt_stack0 + sizeof(rt_stack0);
	rt_tss.ss0 = SEL_DATA;
#endif
	rt_gdt[SEL_TSS / 8] = seg_desc((uint32_t)(word)&rt_tss, sizeof(rt_tss) - 1, 0x89, 0);
	rt_load_idt();
	__asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
}

/* ---- traps ---- */
void rt_trap(struct regs *r)
{
	if (rt_hook && rt_hook(r))
		return;
	if (!rt_jmp) {
		print("# trap %u error %#lx at %#lx:%#lx flags %#lx cr2 %#lx outside of a check\n", (unsigned)r->vec,
		      (word)r->err, (word)r->cs, (word)r->ip, (word)r->flags, rd_cr2());
		print("not ok unexpected trap\n");
		rt_exit(2);
	}
	rt_last.vec = (int)r->vec;
	rt_last.err = r->err;
	rt_last.cr2 = rd_cr2();
	rt_last.handler_sp = (word)r;
#ifdef __x86_64__
	rt_last.r = *r;
#else
	memcpy(&rt_last.r, r, r->flags & FL_VM ? sizeof(*r) : r->cs & 3 ? REGS_FRAME : offsetof(struct regs, sp));
	if (!(r->cs & 3) && !(r->flags & FL_VM)) {
		rt_last.r.sp = (word)&r->sp;
		rt_last.r.ss = SEL_DATA;
	}
#endif
	rt_longjmp(rt_jmp);
}

int rt_run(const struct regs *r)
{
	static struct regs copy; /* not on the stack: the code may use ours */
	struct regs *from = &copy;

#ifndef __x86_64__
	if (!(r->cs & 3) && !(r->flags & FL_VM)) { /* iret does not load esp: the frame lies where it has to end */
		from = (struct regs *)(r->sp - offsetof(struct regs, sp));
		memcpy(from, r, offsetof(struct regs, sp));
		return TRY(rt_enter(from));
	}
#endif
	copy = *r;
	return TRY(rt_enter(from));
}

void rt_regs(struct regs *r, const void *ip)
{
	memset(r, 0, sizeof(*r));
	r->ip = (word)ip;
	r->cs = SEL_CODE;
	r->ss = SEL_DATA;
	r->flags = FL_FIX;
	r->sp = (word)rt_run_stack + sizeof(rt_run_stack) - 64;
#ifndef __x86_64__
	r->ds = r->es = r->fs = r->gs = SEL_DATA;
#endif
}

void rt_user_regs(struct regs *r, const void *ip)
{
	rt_regs(r, ip);
	r->cs = SEL_UCODE;
	r->ss = SEL_UDATA;
	r->sp = (word)rt_user_stack + sizeof(rt_user_stack) - 64;
#ifndef __x86_64__
	r->ds = r->es = r->fs = r->gs = SEL_UDATA;
#endif
}

/* ---- start ---- */
static void cpu_detect(void)
{
	uint32_t a, b, c, d, max;

	cpuid(0, 0, &max, &b, &c, &d);
	cpu.amd = b == 0x68747541 || b == 0x6f677948;
	cpu.intel = b == 0x756e6547;
	cpuid(0x40000000, 0, &a, &b, &c, &d);
	cpu.tcg = b == 0x54474354;
	cpu.hvx = b == 0x48585648;
	cpuid(1, 0, &a, &b, &c, &d);
	cpu.pge = d >> 13 & 1;
	cpu.pcid = c >> 17 & 1;
	cpu.x2apic = c >> 21 & 1;
	cpu.tscdl = c >> 24 & 1;
	cpu.xsave = c >> 26 & 1;
	if (max >= 7) {
		cpuid(7, 0, &a, &b, &c, &d);
		cpu.fsgsbase = b & 1;
		cpu.smep = b >> 7 & 1;
		cpu.invpcid = b >> 10 & 1;
		cpu.smap = b >> 20 & 1;
		cpu.umip = c >> 2 & 1;
		cpu.la57 = c >> 16 & 1;
		cpu.rdpid = c >> 22 & 1;
	}
	cpuid(0x80000001, 0, &a, &b, &c, &d);
	cpu.nx = d >> 20 & 1;
	cpu.page1g = d >> 26 & 1;
	cpu.rdtscp = d >> 27 & 1;
	cpuid(0x80000008, 0, &a, &b, &c, &d);
	cpu.maxphys = a & 0xff;
}

void rt_main(void);
void rt_main(void)
{
	outb(0x3fb, 0x03);
	outb(0x3fa, 0x07);
	outb(0x21, 0xff); /* firmware may have left the 8259s open, at vectors of exceptions */
	outb(0xa1, 0xff);
	cpu_detect();
	tables_init();
	print("# %s %s%s\n",
	      cpu.amd     ? "amd"
	      : cpu.intel ? "intel"
			  : "other",
	      cpu.tcg ? "tcg" : "", rt_boot_magic == 0x2badb002 ? "" : " no multiboot magic");
	flat_main();
	print("# %u ok, %u not ok, %u skipped\n", n_ok, n_bad, n_skip);
	rt_exit(n_bad ? 1 : 0);
}
