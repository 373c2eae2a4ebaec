/*
 * Interrupts: 8259 and 8254, I/O APIC, local APIC with its timer, priorities,
 * shadows, NMI.  SDM 3A 6.7, 6.8, 10; 8259A and 82093AA data sheets.
 * Invariant: between checks everything is masked, in service bits are clear
 * and IF is 0.
 */
#include "pt.h"

#define LAPIC      0xfee00000ul
#define IOAPIC     0xfec00000ul
#define L_ID       0x20
#define L_VER      0x30
#define L_TPR      0x80
#define L_PPR      0xa0
#define L_EOI      0xb0
#define L_LDR      0xd0
#define L_DFR      0xe0
#define L_SVR      0xf0
#define L_ISR      0x100
#define L_IRR      0x200
#define L_ICR      0x300
#define L_ICR2     0x310
#define L_TIMER    0x320
#define L_LINT0    0x350
#define L_LINT1    0x360
#define L_INIT     0x380
#define L_CUR      0x390
#define L_DIV      0x3e0
#define MASKED     0x10000u
#define V_PIC      0x20
#define V_TIMER    0x51
#define V_SPURIOUS 0xef

static volatile unsigned count[256], n_log;
static volatile struct {
	unsigned vec;
	word ip, cs, flags, handler_sp;
} log[64];
static uint8_t code[128] __attribute__((aligned(64)));
static uint64_t tsc_per_ms;
static bool auto_eoi = true;
static void (*volatile in_handler)(struct regs *r);

static uint32_t lr(unsigned reg)
{
	return *(volatile uint32_t *)(LAPIC + reg);
}
static void lw(unsigned reg, uint32_t v)
{
	*(volatile uint32_t *)(LAPIC + reg) = v;
}
static uint32_t ir(unsigned reg)
{
	*(volatile uint32_t *)IOAPIC = reg;
	return *(volatile uint32_t *)(IOAPIC + 16);
}
static void iw(unsigned reg, uint32_t v)
{
	*(volatile uint32_t *)IOAPIC = reg;
	*(volatile uint32_t *)(IOAPIC + 16) = v;
}

static bool bit_of(unsigned base, unsigned vec)
{
	return lr(base + (vec >> 5) * 16) >> (vec & 31) & 1;
}

static void eoi(unsigned vec)
{
	if (vec >= V_PIC && vec < V_PIC + 16) {
		if (vec >= V_PIC + 8)
			outb(0xa0, 0x20);
		outb(0x20, 0x20);
	} else if (vec > 31 && vec != V_SPURIOUS) {
		lw(L_EOI, 0);
	}
}

static bool hook_irq(struct regs *r)
{
	if ((r->vec < 32 && r->vec != VEC_NMI && r->vec != VEC_BP) || r->vec == VEC_END)
		return false;
	count[r->vec]++;
	if (n_log < 64) {
		log[n_log].vec = (unsigned)r->vec;
		log[n_log].ip = r->ip;
		log[n_log].cs = r->cs;
		log[n_log].flags = r->flags;
		log[n_log].handler_sp = (word)r;
		n_log++;
	}
	if (in_handler)
		in_handler(r);
	if (auto_eoi)
		eoi((unsigned)r->vec);
	return true;
}

static void clear(void)
{
	unsigned i;

	for (i = 0; i < 256; i++)
		count[i] = 0;
	n_log = 0;
	in_handler = NULL;
	auto_eoi = true;
}

/* ---- time ---- */
static void calibrate(void)
{
	uint64_t t0;

	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0); /* channel 2, mode 0 */
	outb(0x42, 11932 & 255);
	outb(0x42, 11932 >> 8);
	t0 = rdtsc();
	while (!(inb(0x61) & 0x20))
		;
	tsc_per_ms = (rdtsc() - t0) / 10;
	check("TSC runs against the 8254", tsc_per_ms > 1000, "%lu per ms", (word)tsc_per_ms);
}

static void delay_us(unsigned us)
{
	uint64_t end = rdtsc() + tsc_per_ms * us / 1000;

	while (rdtsc() < end)
		__asm__ volatile("pause");
}

/* Waits with interrupts on until @vec has come @n times; at most a second. */
static bool wait_for(unsigned vec, unsigned n)
{
	uint64_t end = rdtsc() + tsc_per_ms * 1000;

	sti();
	while (count[vec] < n && rdtsc() < end)
		__asm__ volatile("pause");
	cli();
	return count[vec] >= n;
}

static void self_ipi(unsigned vec)
{
	lw(L_ICR, 0x40000 | vec);
	while (lr(L_ICR) & 0x1000)
		;
}

static void nmi_self(void)
{
	lw(L_ICR2, lr(L_ID) & 0xff000000);
	lw(L_ICR, 0x4400);
}

/* ---- 8259, 8254 ---- */
static void pic_init(void)
{
	outb(0x20, 0x11);
	outb(0x21, V_PIC);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, V_PIC + 8);
	outb(0xa1, 2);
	outb(0xa1, 1);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

static void pit_rate(unsigned divisor)
{
	outb(0x43, 0x34);
	outb(0x40, (uint8_t)divisor);
	outb(0x40, (uint8_t)(divisor >> 8));
}

static void pit_stop(void)
{
	outb(0x43, 0x30); /* mode 0, counting never ends soon */
	outb(0x40, 0xff);
}

static unsigned pic_read(unsigned port, unsigned ocw3)
{
	outb((uint16_t)port, (uint8_t)ocw3);
	return inb((uint16_t)port);
}

static void pic(void)
{
	lw(L_LINT0, 0x700);
	check_eq("8259: mask reads back", inb(0x21) | (word)inb(0xa1) << 8, 0xffff);
	clear();
	pit_rate(1193);
	outb(0x21, 0xfe);
	check("8254 through the 8259", wait_for(V_PIC, 5), "%u interrupts", count[V_PIC]);
	outb(0x21, 0xff);
	clear();
	sti();
	delay_us(5000);
	cli();
	check("8259: masked", count[V_PIC] == 0, "%u interrupts", count[V_PIC]);
	check("8259: request latched while masked", pic_read(0x20, 0x0a) & 1, "IRR %#x", pic_read(0x20, 0x0a));
	pit_stop();
	outb(0x21, 0xfe);
	clear();
	sti();
	delay_us(1000);
	cli();
	check("8259: the latched edge comes once", count[V_PIC] <= 1, "%u interrupts", count[V_PIC]);
	outb(0x21, 0xff);
}

static void one_shot_pit(void)
{
	pit_stop();
	clear();
	outb(0x21, 0xfe);
	sti();
	delay_us(300);
	cli();
	clear();
	outb(0x43, 0x30);
	outb(0x40, 0x54);
	outb(0x40, 0x06); /* 1.36 ms */
	check("8254: mode 0 interrupts", wait_for(V_PIC, 1), "%u", count[V_PIC]);
	sti();
	delay_us(5000);
	cli();
	check("8254: mode 0 interrupts once", count[V_PIC] == 1, "%u", count[V_PIC]);
	outb(0x21, 0xff);
}

/* In service on IRQ 4: IRQ 0 may interrupt it, not the other way round. */
static unsigned seen_isr;

static void nest_irq0(struct regs *r)
{
	if (r->vec == V_PIC + 4) {
		in_handler = NULL;
		(void)inb(0x3fa); /* take the UART's request back */
		outb(0x3f9, 0);
		seen_isr = pic_read(0x20, 0x0b);
		outb(0x21, 0xee);
		pit_rate(1193);
		sti();
		delay_us(4000);
		cli();
		pit_stop();
	}
}

static void hold_irq4(struct regs *r)
{
	if (r->vec == V_PIC) {
		in_handler = NULL;
		outb(0x21, 0xee);
		outb(0x3f9, 2); /* transmitter empty: IRQ 4 */
		sti();
		delay_us(1000);
		cli();
		log[40].vec = count[V_PIC + 4];
		outb(0x3f9, 0);
		pit_stop();
	}
}

static void pic_priority(void)
{
	clear();
	pit_stop();
	outb(0x3fc, 0x08); /* OUT2 */
	outb(0x21, 0xef);
	in_handler = nest_irq0;
	outb(0x3f9, 2);
	sti();
	delay_us(500);
	cli();
	check("8259: the UART interrupts", count[V_PIC + 4] == 1, "%u interrupts", count[V_PIC + 4]);
	check("8259: in service", seen_isr == 0x10, "ISR %#x", seen_isr);
	check("8259: IRQ 0 interrupts IRQ 4's handler", count[V_PIC] >= 1 && n_log > 1 && log[1].vec == V_PIC,
	      "%u interrupts", count[V_PIC]);
	outb(0x21, 0xff);
	sti();
	delay_us(500);
	cli();
	clear();
	log[40].vec = 99;
	in_handler = hold_irq4;
	pit_rate(1193);
	outb(0x21, 0xfe);
	wait_for(V_PIC, 1);
	check("8259: IRQ 4 waits for IRQ 0's EOI", log[40].vec == 0, "%u interrupts inside", log[40].vec);
	outb(0x21, 0xff);
	outb(0x3f9, 0);
	check("8259: nothing in service at the end", pic_read(0x20, 0x0b) == 0, "ISR %#x", pic_read(0x20, 0x0b));
	lw(L_LINT0, MASKED);
}

/* ---- I/O APIC ---- */
static void ioapic_set(unsigned gsi, uint32_t low)
{
	iw(0x11 + 2 * gsi, lr(L_ID) & 0xff000000);
	iw(0x10 + 2 * gsi, low);
}

static void level_handler(struct regs *r)
{
	if (count[0x55] == 2)
		seen_isr = ir(0x10 + 8);
	if (count[0x55] >= 3)
		outb(0x3f9, 0); /* the request ends */
}

static void ioapic(void)
{
	unsigned i, n = (ir(1) >> 16 & 255) + 1;

	check("I/O APIC: version and size", (ir(1) & 0xff) >= 0x11 && n >= 24, "version register %#x", ir(1));
	for (i = 0; i < n; i++)
		ioapic_set(i, MASKED);
	iw(0x10 + 8, MASKED | 0xa85a);
	check_eq("I/O APIC: entries read back", ir(0x10 + 8) & 0x1ffff, MASKED | 0xa85a);
	ioapic_set(4, MASKED);
	clear();
	pit_rate(1193);
	ioapic_set(2, 0x52);
	check("8254 through the I/O APIC", wait_for(0x52, 3), "%u interrupts", count[0x52]);
	ioapic_set(2, MASKED);
	pit_stop();
	clear();
	ioapic_set(4, 0x54);
	outb(0x3f9, 2);
	wait_for(0x54, 1);
	sti();
	delay_us(1000);
	cli();
	outb(0x3f9, 0); /* before anything is printed: that makes edges too */
	check("I/O APIC: one interrupt per edge", count[0x54] == 1, "%u interrupts", count[0x54]);
	clear();
	in_handler = level_handler;
	seen_isr = 0;
	ioapic_set(4, 0x8055);
	outb(0x3f9, 2);
	check("I/O APIC: level comes again after EOI", wait_for(0x55, 3), "%u interrupts", count[0x55]);
	sti();
	delay_us(1000);
	cli();
	check("I/O APIC: until the line falls", count[0x55] == 3, "%u interrupts", count[0x55]);
	check("I/O APIC: remote IRR in service", seen_isr >> 14 & 1, "entry %#x", seen_isr);
	check("I/O APIC: remote IRR clear after", !(ir(0x10 + 8) >> 14 & 1), "entry %#x", ir(0x10 + 8));
	ioapic_set(4, MASKED);
	outb(0x3f9, 0);
	/* a level that is high when its entry is unmasked interrupts */
	clear();
	in_handler = level_handler;
	count[0x55] = 0;
	ioapic_set(4, MASKED | 0x8055);
	outb(0x3f9, 2);
	ioapic_set(4, 0x8055);
	check("I/O APIC: level seen on unmasking", wait_for(0x55, 1), "%u interrupts", count[0x55]);
	outb(0x3f9, 0);
	ioapic_set(4, MASKED);
	sti();
	delay_us(200);
	cli();
}

/* ---- local APIC ---- */
static void lapic_registers(void)
{
	uint64_t base = rdmsr(0x1b);

	check("IA32_APIC_BASE", (base & 0xfffff000) == LAPIC && (base & 0x900) == 0x900, "%#lx", (word)base);
	lw(L_SVR, 0x100 | V_SPURIOUS);
	check("version", (lr(L_VER) & 0xf0) == 0x10 && (lr(L_VER) >> 16 & 255) >= 5, "%#x", lr(L_VER));
	lw(L_TPR, 0x37);
	check_eq("CR8 is TPR bits 7:4", rd_cr8(), 3);
	wr_cr8(9);
	check_eq("TPR is CR8 << 4", lr(L_TPR), 0x90);
	check_eq("PPR follows TPR", lr(L_PPR), 0x90);
	wr_cr8(0);
	check_trap("CR8 has four bits", TRY(wr_cr8(16)), cpu.tcg ? -1 : VEC_GP, 0);
	wr_cr8(0);
	lw(L_TIMER, V_TIMER);
	lw(L_SVR, V_SPURIOUS);
	SKIP_TCG("software disable masks the LVT", "leaves them")
	check("software disable masks the LVT", lr(L_TIMER) & MASKED, "LVT timer %#x", lr(L_TIMER));
	lw(L_SVR, 0x100 | V_SPURIOUS);
	lw(L_TIMER, MASKED);
}

static void priorities(void)
{
	clear();
	self_ipi(0x41);
	self_ipi(0x61);
	self_ipi(0x52);
	check("IRR holds what IF keeps out", bit_of(L_IRR, 0x41) && bit_of(L_IRR, 0x61) && bit_of(L_IRR, 0x52), "%u",
	      n_log);
	sti();
	delay_us(100);
	cli();
	check("highest vector first", n_log == 3 && log[0].vec == 0x61 && log[1].vec == 0x52 && log[2].vec == 0x41,
	      "%u interrupts: %x %x %x", n_log, log[0].vec, log[1].vec, log[2].vec);
	clear();
	wr_cr8(5);
	self_ipi(0x52);
	self_ipi(0x61);
	self_ipi(0x47);
	sti();
	delay_us(100);
	check("CR8 = 5 lets only class 6 through", n_log == 1 && log[0].vec == 0x61, "%u interrupts, %x", n_log,
	      log[0].vec);
	wr_cr8(4);
	delay_us(100);
	check("CR8 = 4 lets class 5 through", n_log == 2 && log[1].vec == 0x52, "%u interrupts", n_log);
	wr_cr8(0);
	delay_us(100);
	check("CR8 = 0 lets all through", n_log == 3 && log[2].vec == 0x47, "%u interrupts", n_log);
	cli();
}

static void nest_61(struct regs *r)
{
	in_handler = NULL;
	self_ipi(0x67);
	self_ipi(0x45);
	self_ipi(0x72);
	sti();
	delay_us(100);
	cli();
	log[50].vec = count[0x67] | count[0x45] << 4 | count[0x72] << 8;
	log[51].vec = lr(L_PPR);
	log[52].vec = bit_of(L_ISR, 0x61) | bit_of(L_ISR, 0x72) << 1 | bit_of(L_IRR, 0x67) << 2;
}

static void in_service(void)
{
	clear();
	in_handler = nest_61;
	self_ipi(0x61);
	sti();
	delay_us(200);
	cli();
	check_eq("in service: only a higher class interrupts", log[50].vec, 0x100);
	check_eq("in service: PPR", log[51].vec, 0x60);
	check_eq("in service: ISR and IRR", log[52].vec, 5);
	check("in service: the rest follow after EOI in order",
	      n_log == 4 && log[0].vec == 0x61 && log[1].vec == 0x72 && log[2].vec == 0x67 && log[3].vec == 0x45,
	      "%u: %x %x %x %x", n_log, log[0].vec, log[1].vec, log[2].vec, log[3].vec);
	clear();
	auto_eoi = false;
	self_ipi(0x61);
	sti();
	delay_us(50);
	self_ipi(0x62);
	delay_us(50);
	check("no EOI: the class stays blocked", n_log == 1, "%u interrupts", n_log);
	self_ipi(0x61);
	auto_eoi = true;
	lw(L_EOI, 0);
	delay_us(50);
	cli();
	check("EOI: the pending ones come", n_log == 3 && log[1].vec == 0x62 && log[2].vec == 0x61, "%u interrupts",
	      n_log);
	clear();
	self_ipi(0x61);
	self_ipi(0x61);
	self_ipi(0x61);
	sti();
	delay_us(50);
	cli();
	check("one IRR bit: posted three times, comes once", n_log == 1, "%u interrupts", n_log);
}

static void destinations(void)
{
	clear();
	lw(L_DFR, 0xffffffff);
	lw(L_LDR, 0x04000000);
	lw(L_ICR2, 0x04000000);
	lw(L_ICR, 0x4800 | 0x48);
	check("IPI: logical destination", wait_for(0x48, 1), "%u", count[0x48]);
	lw(L_ICR2, 0x02000000);
	lw(L_ICR, 0x4800 | 0x49);
	lw(L_ICR2, lr(L_ID));
	lw(L_ICR, 0x4000 | 0x4a);
	check("IPI: physical destination", wait_for(0x4a, 1), "%u", count[0x4a]);
	check("IPI: other logical destination", count[0x49] == 0, "%u", count[0x49]);
	lw(L_ICR, 0x84000 | 0x4b);
	check("IPI: all including self", wait_for(0x4b, 1), "%u", count[0x4b]);
	lw(L_ICR, 0xc4000 | 0x4c);
	sti();
	delay_us(100);
	cli();
	check("IPI: all but self", count[0x4c] == 0, "%u", count[0x4c]);
}

/* ---- the timer ---- */
static void timer(void)
{
	uint32_t a, b;

	clear();
	lw(L_DIV, 0xb);
	lw(L_TIMER, V_TIMER);
	lw(L_INIT, 1000000000);
	a = lr(L_CUR);
	delay_us(100);
	b = lr(L_CUR);
	check("timer: counts down", a > b && a <= 1000000000, "%u then %u", a, b);
	lw(L_INIT, 100000);
	check("timer: one-shot interrupts", wait_for(V_TIMER, 1), "%u", count[V_TIMER]);
	check_eq("timer: one-shot stops at 0", lr(L_CUR), 0);
	sti();
	delay_us(3000);
	cli();
	check("timer: one-shot once", count[V_TIMER] == 1, "%u", count[V_TIMER]);
	clear();
	lw(L_TIMER, 0x20000 | V_TIMER);
	lw(L_INIT, 200000);
	check("timer: periodic", wait_for(V_TIMER, 5), "%u", count[V_TIMER]);
	lw(L_TIMER, 0x20000 | V_TIMER | MASKED);
	sti();
	delay_us(100); /* one may be pending */
	clear();
	delay_us(2000);
	cli();
	check("timer: masked", count[V_TIMER] == 0, "%u", count[V_TIMER]);
	lw(L_TIMER, 0x20000 | V_TIMER);
	check("timer: goes on when unmasked", wait_for(V_TIMER, 2), "%u", count[V_TIMER]);
	lw(L_INIT, 0);
	sti();
	delay_us(500);
	clear();
	delay_us(2000);
	cli();
	check("timer: initial count 0 stops it", count[V_TIMER] == 0 && lr(L_CUR) == 0, "%u", count[V_TIMER]);
	lw(L_TIMER, V_TIMER);
	lw(L_INIT, 1);
	check("timer: initial count 1", wait_for(V_TIMER, 1), "%u", count[V_TIMER]);
	lw(L_TIMER, MASKED);
}

static void timer_rate(void)
{
	static const struct {
		unsigned code, div;
	} d[] = {{0xb, 1}, {0, 2}, {1, 4}, {3, 16}, {0xa, 128}};
	struct batch b = {"timer: divisors", 0, 0};
	uint64_t rate1 = 0;
	unsigned i;

	lw(L_TIMER, MASKED);
	for (i = 0; i < 5; i++) {
		uint64_t ticks, t0, dt;
		lw(L_DIV, d[i].code);
		lw(L_INIT, 0xffffffff);
		t0 = rdtsc();
		delay_us(5000);
		ticks = (0xffffffff - lr(L_CUR)) * (uint64_t)d[i].div;
		dt = rdtsc() - t0;
		ticks = ticks * 1000000 / dt; /* per million TSC ticks */
		if (i == 0)
			rate1 = ticks;
		batch_case(&b, ticks > rate1 - rate1 / 5 && ticks < rate1 + rate1 / 5, "divide by %u: %lu, by 1: %lu",
			   d[i].div, (word)ticks, (word)rate1);
		lw(L_INIT, 0);
	}
	batch_end(&b);
}

static void tsc_deadline(void)
{
	uint64_t t;

	if (!cpu.tscdl) {
		skip("TSC deadline", "not supported");
		return;
	}
	clear();
	lw(L_TIMER, 0x40000 | V_TIMER);
	t = rdtsc() + tsc_per_ms;
	wrmsr(0x6e0, t);
	check_eq("TSC deadline: reads back", rdmsr(0x6e0), t);
	check("TSC deadline: interrupts", wait_for(V_TIMER, 1) && rdtsc() >= t, "%u", count[V_TIMER]);
	check_eq("TSC deadline: 0 afterwards", rdmsr(0x6e0), 0);
	wrmsr(0x6e0, 1);
	check("TSC deadline: in the past", wait_for(V_TIMER, 2), "%u", count[V_TIMER]);
	wrmsr(0x6e0, rdtsc() + tsc_per_ms);
	wrmsr(0x6e0, 0);
	sti();
	delay_us(3000);
	cli();
	check("TSC deadline: disarmed", count[V_TIMER] == 2, "%u", count[V_TIMER]);
	lw(L_INIT, 1000);
	check_eq("TSC deadline: initial count does nothing", lr(L_CUR), 0);
	lw(L_TIMER, MASKED);
	wrmsr(0x6e0, 0);
}

/* ---- shadows ---- */
/* Runs bytes with a self IPI 0x60 pending and IF off; where it came in, or -1. */
static long arrives(const char *bytes, unsigned n, word flags, bool user)
{
	struct regs r;
	long at;

	memset(code, 0x90, sizeof(code));
	memcpy(code, bytes, n);
	memcpy(code + n, "\xcd\x80", 2);
	(user ? rt_user_regs : rt_regs)(&r, code);
	r.flags |= flags;
	r.ax = SEL_DATA;
	r.dx = 1;
	clear();
	self_ipi(0x60);
	rt_run(&r);
	cli();
	at = n_log ? (long)(log[0].ip - (word)code) : -1;
	sti();
	delay_us(20);
	cli();
	return at;
}
#define ARRIVES(bytes) arrives(bytes, sizeof(bytes) - 1, 0, false)

static void check_at(const char *name, long got, long want)
{
	check(name, got == want, "interrupt at %ld, want %ld", got, want);
}

static void shadows(void)
{
	check_at("sti: after the next instruction", ARRIVES("\xfb\x90\x90\x90"), 2);
	check_at("sti; cli: not at all", ARRIVES("\xfb\xfa\x90\x90"), -1);
	check_at("sti; hlt: after the hlt", ARRIVES("\xfb\xf4\x90\x90"), 2);
	check_at("sti; jmp: at its target", ARRIVES("\xfb\xeb\x02\x90\x90\x90"), 5);
	check_at("sti; rep movsb: not before it", ARRIVES("\x31\xc9\xfb\xf3\xa4\x90\x90"), 5);
	check_at("popf enabling IF: at once", ARRIVES("\x68\x02\x02\x00\x00\x9d\x90\x90"), 6);
	check_at("iret enabling IF: before the first instruction", arrives("\x90\x90\x90", 3, FL_IF, false), 0);
	check_at("iret to ring 3 enabling IF", arrives("\x90\x90\x90", 3, FL_IF, true), 0);
	check("interrupt in ring 3: on rsp0",
	      log[0].cs == SEL_UCODE && log[0].handler_sp == (word)rt_stack0 + sizeof(rt_stack0) - sizeof(struct regs),
	      "cs %#lx sp %#lx", log[0].cs, log[0].handler_sp);
	check_at("cr8 lowered with IF on",
		 ARRIVES("\x6a\x0f\x59\x44\x0f\x22\xc1\xfb\x90\x31\xc9\x44\x0f\x22\xc1\x90\x90"), 15);
	check_at("cli keeps it out", ARRIVES("\xfa\x90\x90\x90"), -1);
	wr_cr8(0);
}

/* With interrupts arriving at any time, none may ever be seen right after mov ss or a sti that set IF. */
static void shadows_async(void)
{
	struct regs r;
	unsigned i, bad_ss = 0, bad_sti = 0, total = 0, turn;

	lw(L_DIV, 0xb);
	/* 0: sti; 1: nop (shadow); 2: mov %eax,%ss; 4: nop (shadow); 5: nop; 6: cli; 7: nop; 8: dec %ecx; 10: jnz 0 */
	memcpy(code, "\xfb\x90\x8e\xd0\x90\x90\xfa\x90\xff\xc9\x75\xf4\xcd\x80", 14);
	for (turn = 0; turn < 60; turn++) {
		rt_regs(&r, code);
		r.ax = SEL_DATA;
		r.cx = 20000;
		clear();
		lw(L_TIMER, 0x20000 | V_TIMER);
		lw(L_INIT, 20000 + turn * 37);
		rt_run(&r);
		cli();
		lw(L_TIMER, MASKED);
		for (i = 0; i < n_log; i++) {
			long off = (long)(log[i].ip - (word)code);
			bad_ss += off == 4;
			bad_sti += off == 1;
			total++;
		}
		sti();
		delay_us(10);
		cli();
	}
	lw(L_INIT, 0);
	check("no interrupt right after mov ss", bad_ss == 0, "%u of %u", bad_ss, total);
	check("no interrupt right after sti", bad_sti == 0, "%u of %u", bad_sti, total);
	print("# %u interrupts in the loop\n", total);
}

/* ---- NMI ---- */
static void nmi_again(struct regs *r)
{
	if (count[VEC_NMI] == 1) {
		nmi_self();
		delay_us(50);
		log[50].vec = count[VEC_NMI];
	}
}

static void nmi_int3(struct regs *r)
{
	if (r->vec == VEC_NMI && count[VEC_NMI] == 1) {
		nmi_self();
		delay_us(50);
		log[50].vec = count[VEC_NMI];
		__asm__ volatile("int3"); /* its iret lets the next NMI in */
		log[51].vec = count[VEC_NMI];
	}
}

static void nmi(void)
{
	clear();
	nmi_self();
	delay_us(50);
	check("NMI comes with IF off", count[VEC_NMI] == 1, "%u", count[VEC_NMI]);
	clear();
	in_handler = nmi_again;
	nmi_self();
	delay_us(100);
	check("NMI is blocked in its handler", log[50].vec == 1, "%u inside", log[50].vec);
	check("NMI comes after iret", count[VEC_NMI] == 2, "%u", count[VEC_NMI]);
	clear();
	in_handler = nmi_int3;
	nmi_self();
	delay_us(100);
	check("NMI is let in by any iret", log[50].vec == 1 && log[51].vec == 2 && count[VEC_NMI] == 2, "%u, %u, %u",
	      log[50].vec, log[51].vec, count[VEC_NMI]);
	clear();
	rt_idt[VEC_NMI].ist = 4;
	nmi_self();
	delay_us(50);
	check_eq("NMI on its IST stack", log[0].handler_sp, (word)rt_ist_stack[3] + 4096 - sizeof(struct regs));
	rt_idt[VEC_NMI].ist = 0;
	clear();
	lw(L_TIMER, MASKED);
	/* the 8254 in a millisecond, as NMI */
	ioapic_set(2, 0x400);
	outb(0x43, 0x30);
	outb(0x40, 0xa9);
	outb(0x40, 0x04);
	__asm__ volatile("hlt");
	ioapic_set(2, MASKED);
	check("NMI wakes hlt with IF off", count[VEC_NMI] == 1, "%u", count[VEC_NMI]);
}

/* ---- hlt ---- */
static void halts(void)
{
	unsigned i;

	clear();
	lw(L_DIV, 0xb);
	lw(L_TIMER, 0x20000 | V_TIMER);
	lw(L_INIT, 100000);
	for (i = 0; i < 20; i++)
		__asm__ volatile("sti; hlt; cli");
	check("sti; hlt; cli twenty times", count[V_TIMER] >= 20, "%u", count[V_TIMER]);
	lw(L_TIMER, MASKED);
	lw(L_INIT, 0);
	sti();
	delay_us(10);
	cli();
}

/* An interrupt in the middle of rep stosb, resumed: the result is whole. */
static void rep_interrupted(void)
{
	uint8_t *p = (void *)PT_POOL_END;
	word n = 8u << 20, cx, i, inside = 0, k;
	bool ok = true;

	lw(L_TIMER, 0x20000 | V_TIMER);
	lw(L_INIT, 50000);
	clear();
	for (k = 0; k < 3; k++) {
		sti();
		__asm__ volatile("1: rep stosb; 2:" : "=c"(cx), "+D"(p) : "a"(0x5a + (int)k), "c"(n) : "memory");
		cli();
		p -= n;
		for (i = 0; i < n; i += 61)
			ok = ok && p[i] == (uint8_t)(0x5a + k);
		ok = ok && cx == 0;
	}
	for (i = 0; i < n_log; i++)
		inside += *(uint16_t *)log[i].ip == 0xaaf3;
	check("rep stosb under interrupts", ok, "wrong bytes");
	print("# %u interrupts, %lu inside\n", count[V_TIMER], inside);
	lw(L_TIMER, MASKED);
	lw(L_INIT, 0);
}

/* ---- x2APIC ---- */
static void x2apic(void)
{
	uint64_t base = rdmsr(0x1b);

	if (!cpu.x2apic) {
		skip("x2APIC", "not supported");
		return;
	}
	check_trap("x2APIC MSRs in xAPIC mode", TRY(rdmsr(0x802)), VEC_GP, 0);
	wrmsr(0x1b, base | 0x400);
	check("x2APIC: enabled", rdmsr(0x1b) & 0x400, "%#lx", (word)rdmsr(0x1b));
	check_trap("x2APIC: back to xAPIC at once", TRY(wrmsr(0x1b, base)), VEC_GP, 0);
	clear();
	in_handler = NULL;
	auto_eoi = false;
	wrmsr(0x83f, 0x60);
	sti();
	delay_us(50);
	cli();
	check("x2APIC: self IPI", count[0x60] == 1, "%u", count[0x60]);
	check("x2APIC: in service", rdmsr(0x813) & 1, "ISR %#lx", (word)rdmsr(0x813));
	wrmsr(0x80b, 0);
	check("x2APIC: EOI", !(rdmsr(0x813) & 1), "ISR %#lx", (word)rdmsr(0x813));
	check_trap("x2APIC: EOI of another value", TRY(wrmsr(0x80b, 1)), VEC_GP, 0);
	wrmsr(0x830, rdmsr(0x802) << 32 | 0x4061);
	sti();
	delay_us(50);
	cli();
	wrmsr(0x80b, 0);
	check("x2APIC: ICR in one write", count[0x61] == 1, "%u", count[0x61]);
	wrmsr(0x808, 0x40);
	check_eq("x2APIC: TPR and CR8", rd_cr8(), 4);
	wrmsr(0x808, 0);
	check_trap("x2APIC: no DFR", TRY(rdmsr(0x80e)), VEC_GP, 0);
	check_trap("x2APIC: version is read only", TRY(wrmsr(0x803, 0)), VEC_GP, 0);
	check_trap("x2APIC: TPR reserved bits", TRY(wrmsr(0x808, 0x100)), VEC_GP, 0);
	check_eq("x2APIC: LDR from the ID", rdmsr(0x80d), (rdmsr(0x802) >> 4) << 16 | 1ull << (rdmsr(0x802) & 15));
	wrmsr(0x83e, 0xb);
	wrmsr(0x832, V_TIMER);
	wrmsr(0x838, 10000);
	sti();
	delay_us(1000);
	cli();
	wrmsr(0x80b, 0);
	check("x2APIC: timer", count[V_TIMER] == 1, "%u", count[V_TIMER]);
	wrmsr(0x1b, base & ~0xc00ull);
	wrmsr(0x1b, base);
	check("xAPIC again", (rdmsr(0x1b) & 0xc00) == 0x800, "%#lx", (word)rdmsr(0x1b));
}

void flat_main(void)
{
	rt_hook = hook_irq;
	lw(L_SVR, 0x100 | V_SPURIOUS);
	lw(L_LINT0, MASKED);
	lw(L_LINT1, MASKED);
	pic_init();
	calibrate();
	pic();
	one_shot_pit();
	pic_priority();
	lapic_registers();
	ioapic();
	priorities();
	in_service();
	destinations();
	timer();
	timer_rate();
	tsc_deadline();
	shadows();
	shadows_async();
	nmi();
	halts();
	rep_interrupted();
	x2apic();
}
