/*
 * Starting CPUs: what INIT leaves, where SIPI enters, every way to send them,
 * CPUs that are taken down and started again, what each CPU has of its own.
 * SDM 3A 9.4 (multiple-processor initialisation; 8.4 in older ones), table 9-1
 * (10-1) "after INIT", 10.4.7 (APIC state), 10.6 (ICR); APM 2 14.1.
 * Invariant: CPU 1 is the one that is maltreated; the others are started once.
 */
#include "smp.h"

/* What a CPU finds at its first instruction, written with CS alone. */
struct record {
	uint32_t ax, bx, cx, dx, sp, bp, si, di;
	uint16_t cs, ds, es, fs, gs, ss;
	uint16_t gdt_limit, gdt_lo, gdt_hi, idt_limit, idt_lo, idt_hi;
	uint32_t cr0, cr2, cr3, cr4, dr0, dr6, dr7, flags, efer, apicbase, xmm0[4], mxcsr;
	volatile uint32_t done;
} __attribute__((packed));
extern uint8_t rec_blob[], rec_end[];
__asm__(".pushsection .text\n.code16\n"
	".set rec_at, 0xc00\n"
	"rec_blob:\n"
	"	movl %eax, %cs:rec_at\n	movl %ebx, %cs:rec_at + 4\n	movl %ecx, %cs:rec_at + 8\n"
	"	movl %edx, %cs:rec_at + 12\n	movl %esp, %cs:rec_at + 16\n	movl %ebp, %cs:rec_at + 20\n"
	"	movl %esi, %cs:rec_at + 24\n	movl %edi, %cs:rec_at + 28\n"
	"	movw %cs, %cs:rec_at + 32\n	movw %ds, %cs:rec_at + 34\n	movw %es, %cs:rec_at + 36\n"
	"	movw %fs, %cs:rec_at + 38\n	movw %gs, %cs:rec_at + 40\n	movw %ss, %cs:rec_at + 42\n"
	"	sgdtl %cs:rec_at + 44\n	sidtl %cs:rec_at + 50\n"
	"	movl %cr0, %eax\n	movl %eax, %cs:rec_at + 56\n"
	"	movl %cr2, %eax\n	movl %eax, %cs:rec_at + 60\n"
	"	movl %cr3, %eax\n	movl %eax, %cs:rec_at + 64\n"
	"	movl %cr4, %eax\n	movl %eax, %cs:rec_at + 68\n"
	"	movl %dr0, %eax\n	movl %eax, %cs:rec_at + 72\n"
	"	movl %dr6, %eax\n	movl %eax, %cs:rec_at + 76\n"
	"	movl %dr7, %eax\n	movl %eax, %cs:rec_at + 80\n"
	"	movw %cs, %ax\n	movw %ax, %ss\n	movl $0xff0, %esp\n"
	"	pushfl\n	popl %cs:rec_at + 84\n"
	"	movl $0xc0000080, %ecx\n	rdmsr\n	movl %eax, %cs:rec_at + 88\n"
	"	movl $0x1b, %ecx\n	rdmsr\n	movl %eax, %cs:rec_at + 92\n"
	"	movl $0x600, %eax\n	movl %eax, %cr4\n	movl %cr0, %eax\n	andl $~12, %eax\n	movl %eax, %cr0\n"
	"	movups %xmm0, %cs:rec_at + 96\n	stmxcsr %cs:rec_at + 112\n"
	"	lock incl %cs:rec_at + 116\n"
	"1:	cli\n	hlt\n	jmp 1b\n"
	"rec_end:\n.code64\n.popsection\n");
_Static_assert(offsetof(struct record, cs) == 32 && offsetof(struct record, gdt_limit) == 44 &&
		       offsetof(struct record, cr0) == 56 && offsetof(struct record, xmm0) == 96 &&
		       offsetof(struct record, done) == 116,
	       "as written above");

static struct record *record_at(unsigned vector)
{
	word at = (word)vector << 12;

	__asm__("" : "+r"(at));
	memset((void *)at, 0, 4096);
	memcpy((void *)at, rec_blob, (size_t)(rec_end - rec_blob));
	return (void *)(at + 0xc00);
}

static void init(unsigned n)
{
	smp_icr(smp[n].apic, ICR_INIT | ICR_ASSERT | ICR_LEVEL);
	smp_icr(smp[n].apic, ICR_INIT | ICR_LEVEL);
}

static void sipi(unsigned n, unsigned vector)
{
	smp_icr(smp[n].apic, ICR_SIPI | ICR_ASSERT | vector);
}

static struct record *life_at(unsigned vector)
{
	struct record *r = record_at(vector);

	init(1);
	sipi(1, vector);
	WAIT(r->done, "the recorder");
	return r;
}

/* Table 9-1's column INIT, and 9.4.4 for CS; @first: nothing but reset came before. */
static void check_state(const char *when, const struct record *r, unsigned vector, bool first)
{
	struct batch b = {when, 0, 0};
	uint32_t a, x, c, d;

	cpuid(1, 0, &a, &x, &c, &d);
	batch_case(&b, !r->ax && !r->bx && !r->cx && !r->sp && !r->bp && !r->si && !r->di,
		   "registers %x %x %x %x %x %x %x", r->ax, r->bx, r->cx, r->sp, r->bp, r->si, r->di);
	batch_case(&b, r->dx == a, "edx %x, the signature is %x", r->dx, a);
	batch_case(&b, r->cs == vector << 8, "cs %x", r->cs);
	batch_case(&b, !r->ds && !r->es && !r->fs && !r->gs && !r->ss, "ds %x es %x fs %x gs %x ss %x", r->ds, r->es,
		   r->fs, r->gs, r->ss);
	batch_case(&b, r->gdt_limit == 0xffff && !r->gdt_lo && !r->gdt_hi, "gdt %x:%x%04x", r->gdt_limit, r->gdt_hi,
		   r->gdt_lo);
	batch_case(&b, r->idt_limit == 0xffff && !r->idt_lo && !r->idt_hi, "idt %x:%x%04x", r->idt_limit, r->idt_hi,
		   r->idt_lo);
	batch_case(&b, (r->cr0 & ~0x60000000u) == 0x10, "cr0 %x", r->cr0); /* CD and NW: unchanged by INIT */
	batch_case(&b, !r->cr2 && !r->cr3 && !r->cr4, "cr2 %x cr3 %x cr4 %x", r->cr2, r->cr3, r->cr4);
	batch_case(&b, !r->dr0 && r->dr6 == 0xffff0ff0 && r->dr7 == 0x400, "dr0 %x dr6 %x dr7 %x", r->dr0, r->dr6,
		   r->dr7);
	batch_case(&b, r->flags == 2, "flags %x", r->flags);
	batch_case(&b, !(r->efer & 0x500), "efer %x", r->efer);
	batch_case(&b, (r->apicbase & 0xfffff900) == 0xfee00800, "apic base %x", r->apicbase); /* not the BSP */
	if (!first && !cpu.tcg) { /* SSE state outlives INIT; TCG's INIT keeps it, too, but not its MXCSR */
		batch_case(&b, r->xmm0[0] == 0x11223344 && r->xmm0[3] == 0x55667788, "xmm0 %x %x", r->xmm0[0],
			   r->xmm0[3]);
		batch_case(&b, r->mxcsr == 0x3f80, "mxcsr %x", r->mxcsr);
	}
	batch_end(&b);
}

static void spoil(void *arg)
{
	static const uint32_t x[4] = {0x11223344, 0, 0, 0x55667788}, mxcsr = 0x3f80;

	__asm__ volatile("movups %0, %%xmm0; ldmxcsr %1" ::"m"(x), "m"(mxcsr));
	wr_cr2(0x12345678);
	wr_dr0(0x1000);
	wr_dr7(0x401);
	wr_cr0(rd_cr0() | CR0_AM);
	if (cpu.nx)
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE | EFER_SCE);
	lapic_write(L_TPR, 0x30);
	lapic_write(L_LDR, 0x2000000);
	lapic_write(L_DFR, 0x0fffffff);
	lapic_write(L_LINT1, 0x400);
	lapic_write(L_DIV, 3);
	lapic_write(L_TIMER, MASKED | 0x60);
	lapic_write(L_INIT, 0xffffffff);
	cli();
	for (;;)
		*(volatile word *)arg = 1;
}

/* ---- the APIC after INIT (10.4.7.3) ---- */
static uint32_t apic_id, apic_regs[14];
static const struct {
	uint16_t reg;
	uint32_t want;
} apic_init[] = {{L_TPR, 0},        {L_LDR, 0},        {L_DFR, 0xffffffff}, {L_SVR, 0xff},    {L_LINT0, MASKED},
		 {L_LINT1, MASKED}, {L_TIMER, MASKED}, {L_ERROR, MASKED},   {L_INIT, 0},      {L_CUR, 0},
		 {L_DIV, 0},        {L_IRR + 0x30, 0}, {L_ISR + 0x30, 0},   {L_IRR + 0x50, 0}};

static void read_apic(void)
{
	unsigned i;

	apic_id = *(volatile uint32_t *)(LAPIC + L_ID) >> 24;
	for (i = 0; i < 14; i++)
		apic_regs[i] = *(volatile uint32_t *)(LAPIC + apic_init[i].reg);
}

static void apic_after_init(void)
{
	struct batch b = {"APIC after INIT (10.4.7.3)", 0, 0};
	volatile word spoilt = 0;
	unsigned i;

	smp_give(1, spoil, (void *)&spoilt);
	WAIT(spoilt, "CPU 1 to be spoilt");
	smp_icr(smp[1].apic, ICR_FIXED | ICR_ASSERT | 0x61); /* pending for ever: IF is 0 there */
	smp_icr(smp[1].apic, ICR_FIXED | ICR_ASSERT | 0xa1);
	smp[1].at_start = read_apic;
	smp_start(1);
	smp[1].at_start = NULL;
	batch_case(&b, apic_id == smp[1].apic, "ID %x", apic_id);
	for (i = 0; i < 14; i++)
		batch_case(&b, apic_regs[i] == apic_init[i].want, "register %x: %x want %x", apic_init[i].reg,
			   apic_regs[i], apic_init[i].want);
	batch_end(&b);
}

static void states(void)
{
	static const uint8_t vectors[] = {0x09, 0x0a, 0x10, 0x3f, 0x7f, 0x02};
	volatile word spoilt = 0;
	struct batch b = {"SIPI: CS by the vector", 0, 0};
	struct record *r;
	unsigned i;

	check_state("INIT and SIPI: the first state", life_at(9), 9, true);
	smp_start(1);
	smp_give(1, spoil, (void *)&spoilt);
	WAIT(spoilt, "CPU 1 to be spoilt");
	check_state("INIT while it runs, SIPI: the state", life_at(9), 9, false);
	for (i = 0; i < sizeof vectors; i++) {
		uint8_t *keep = (void *)PT_POOL;
		void *low = (void *)((word)vectors[i] << 12);
		memcpy(keep, low, 4096);
		r = life_at(vectors[i]);
		batch_case(&b, r->cs == vectors[i] << 8 && r->done == 1, "vector %x: cs %x", vectors[i], r->cs);
		memcpy(low, keep, 4096);
	}
	batch_end(&b);
}

/* ---- ways to send ---- */
static volatile unsigned ran;

static void count_run(void *arg)
{
	__atomic_add_fetch(&ran, 1, __ATOMIC_SEQ_CST);
}

static void forms(void)
{
	struct record *r = record_at(9);
	unsigned before, i;

	init(1);
	init(1);
	sipi(1, 9);
	WAIT(r->done, "a CPU that got two INITs");
	sipi(1, 9); /* not in wait-for-SIPI: ignored */
	sipi(1, 8);
	before = smp[1].lives;
	delay_us(2000);
	check("SIPI to a CPU that runs does nothing", r->done == 1 && smp[1].lives == before, "%u records, %u lives",
	      r->done, smp[1].lives - before);

	r = record_at(9);
	init(1);
	smp_icr(smp[1].apic, ICR_FIXED | ICR_ASSERT | 0x61);
	delay_us(2000);
	check("a CPU that waits for SIPI takes no interrupt", r->done == 0, "it ran");
	before = smp[1].lives;
	sipi(1, 8);
	sipi(1, 8);
	if (!cpu.tcg) /* there the last vector wins */
		sipi(1, 9);
	WAIT(smp[1].lives == before + 1, "SIPI three times");
	delay_us(1000);
	check("SIPI three times starts once", smp[1].lives == before + 1 && !r->done, "%u lives",
	      smp[1].lives - before);

	before = smp[1].lives; /* INIT edge-triggered, as some systems send it */
	smp_icr(smp[1].apic, ICR_INIT | ICR_ASSERT);
	sipi(1, 8);
	WAIT(smp[1].lives == before + 1, "INIT by edge");
	smp_give(1, count_run, NULL);
	smp_wait(1);
	check_eq("INIT by edge, SIPI: it works", ran, 1);

	before = smp[1].lives; /* level de-assert alone: no INIT (10.6.1) */
	smp_icr(smp[1].apic, ICR_INIT | ICR_LEVEL);
	smp_give(1, count_run, NULL);
	smp_wait(1);
	check("INIT de-assert is no INIT", ran == 2 && smp[1].lives == before, "%u runs, %u lives", ran,
	      smp[1].lives - before);

	for (i = 1; i < smp_n; i++)
		smp[i].lives = 0;
	smp_icr(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT | ICR_LEVEL);
	smp_icr(0, ICR_OTHERS | ICR_INIT | ICR_LEVEL);
	delay_us(10);
	smp_icr(0, ICR_OTHERS | ICR_SIPI | ICR_ASSERT | SMP_PAGE >> 12);
	for (i = 1; i < smp_n; i++)
		WAIT(smp[i].lives == 1, "INIT and SIPI to all others");
	ran = 0;
	smp_each(smp_n, count_run, NULL);
	check_eq("INIT and SIPI to all but self", ran, smp_n);
}

static void set_logical(void *arg)
{
	lapic_write(L_DFR, 0xffffffff);
	lapic_write(L_LDR, 0x02000000);
}

static void logical_init(void)
{
	struct record *r = record_at(9);
	unsigned before = smp[1].lives;

	smp_give(1, set_logical, NULL);
	smp_wait(1);
	smp_icr(2, ICR_INIT | ICR_ASSERT | ICR_LEVEL | ICR_LOGICAL);
	sipi(1, 9);
	WAIT(r->done == 1, "INIT by logical destination");
	check("INIT by logical destination", r->cs == 0x900, "cs %x", r->cs);
	smp_start(1);
	check("and up again", smp[1].lives == before + 1, "%u lives", smp[1].lives - before);
}

/* ---- down and up ---- */
static void park(void *arg)
{
	__atomic_store_n((word *)arg, 1, __ATOMIC_SEQ_CST);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void spin_off(void *arg)
{
	__atomic_store_n((word *)arg, 1, __ATOMIC_SEQ_CST);
	__asm__ volatile("cli; 1: jmp 1b");
}

static void work_on(void *arg)
{
	volatile word *p = arg;

	for (;;)
		p[0] = p[0] * 5 + 1;
}

static void restarts(void)
{
	static void (*const jobs[])(void *) = {park, spin_off, work_on};
	word flags[2] = {0, 0}, turns = TURNS(60), i;
	unsigned before = smp[1].lives, runs;

	ran = 0;
	for (i = 0; i < turns; i++) {
		__atomic_store_n(flags, 0, __ATOMIC_SEQ_CST);
		smp_give(1, jobs[i % 3], flags);
		WAIT(__atomic_load_n(flags, __ATOMIC_SEQ_CST), "a CPU to go down");
		if (i & 1)
			delay_us((unsigned)(i % 7) * 30);
		smp_start(1);
		smp_give(1, count_run, NULL);
		smp_wait(1);
	}
	runs = ran;
	check("down (halted, spinning, working) and up again", runs == turns && smp[1].lives - before == turns,
	      "%u runs, %u lives of %lu", runs, smp[1].lives - before, turns);
}

/* INIT while the CPU is anywhere in its start or in a handler. */
static void restarts_early(void)
{
	word turns = TURNS(100), i;

	for (i = 0; i < turns; i++) {
		init(1);
		sipi(1, SMP_PAGE >> 12);
		delay_us((unsigned)(i * 3 % 50));
		if (i & 1)
			smp_icr(smp[1].apic, ICR_FIXED | ICR_ASSERT | V_WAKE);
	}
	smp_start(1);
	ran = 0;
	smp_give(1, count_run, NULL);
	smp_wait(1);
	check("INIT at any time while it starts", ran == 1, "%u runs", ran);
}

/* ---- what each CPU has of its own ---- */
/* What is to be the same on all: memory types, and the microcode's revision (SDM 3A 12.11, 10.11.7; table 2-2). */
static const uint32_t alike[] = {0x277, 0xfe,  0x2ff, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c,
				 0x26d, 0x26e, 0x26f, 0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
				 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f, 0x8b};
#define ALIKE (sizeof alike / sizeof alike[0])
struct own {
	uint32_t id1, idb, lapic, aux, aux2, lsl;
	uint64_t base, msr[ALIKE];
	bool same;
};
static struct own own[SMP_MAX];
static uint64_t own_gdt[SMP_MAX][32];
static struct barrier at;

static uint32_t rdtscp_aux(void)
{
	uint32_t a, d, c;

	__asm__ volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(c));
	return c;
}

static uint32_t rdpid(void)
{
	word v;

	__asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" : "=a"(v)); /* rdpid %rax */
	return (uint32_t)v;
}

/* The third way to tell one's number: the limit of a segment in a table of one's own. */
static uint32_t limit_of(unsigned me)
{
	struct dtr d = {sizeof own_gdt[me] - 1, (word)own_gdt[me]}, old;
	uint32_t limit = 0;
	word f = rd_flags();

	memcpy(own_gdt[me], rt_gdt, sizeof rt_gdt);
	own_gdt[me][SEL_FREE / 8] = seg_desc(0, me + 100, 0xf1, 4);
	cli();
	__asm__ volatile("sgdt %0" : "=m"(old));
	__asm__ volatile("lgdt %0" ::"m"(d));
	__asm__ volatile("lsl %1, %0" : "=r"(limit) : "r"((uint32_t)SEL_FREE) : "cc");
	__asm__ volatile("lgdt %0" ::"m"(old));
	if (f & FL_IF)
		sti();
	return limit;
}

static void see_own(void *arg)
{
	struct own *o = &own[smp_me()];
	uint64_t me = smp_me() + 1;
	uint32_t a, b, c, d, max;
	unsigned turn;

	cpuid(0, 0, &max, &b, &c, &d);
	cpuid(1, 0, &a, &b, &c, &d);
	o->id1 = b >> 24;
	o->idb = o->id1;
	if (max >= 0xb) {
		cpuid(0xb, 0, &a, &b, &c, &d);
		if (b)
			o->idb = d;
	}
	o->lapic = lapic_read(L_ID) >> 24;
	o->base = rdmsr(MSR_APICBASE);
	o->lsl = limit_of(smp_me());
	for (turn = 0; turn < ALIKE; turn++)
		o->msr[turn] = rdmsr(alike[turn]);
	o->same = true;
	for (turn = 0; turn < 20; turn++) {
		barrier(&at, smp_n);
		wrmsr(0xc0000100, me << 12);
		wrmsr(0xc0000102, me << 13);
		wrmsr(0xc0000081, me << 48);
		wrmsr(0x174, me);
		if (cpu.rdtscp)
			wrmsr(MSR_TSC_AUX, me * 3);
		barrier(&at, smp_n);
		o->same = o->same && rdmsr(0xc0000100) == me << 12 && rdmsr(0xc0000102) == me << 13 &&
			  rdmsr(0xc0000081) == me << 48 && rdmsr(0x174) == me;
		o->aux = cpu.rdtscp ? rdtscp_aux() : (uint32_t)me * 3;
		o->aux2 = cpu.rdpid ? rdpid() : (uint32_t)me * 3;
	}
}

static void own_things(void)
{
	struct batch b = {"IDs: MADT, CPUID 1 and 0xb, APIC agree", 0, 0}, m = {"MSRs of each CPU's own", 0, 0};
	struct batch x = {"one's number by rdtscp, rdpid and lsl", 0, 0},
		     e = {"equal on all: PAT, MTRRs, the microcode's revision; the BSP's flag", 0, 0};
	unsigned i, k;

	smp_each(smp_n, see_own, NULL);
	for (i = 0; i < smp_n; i++) {
		struct own *o = &own[i];
		batch_case(&b, o->id1 == smp[i].apic && o->idb == smp[i].apic && o->lapic == smp[i].apic,
			   "CPU %u: %x, CPUID %x %x, APIC %x", i, smp[i].apic, o->id1, o->idb, o->lapic);
		batch_case(&m, o->same, "CPU %u", i);
		batch_case(&x, o->aux == (i + 1) * 3 && o->aux2 == (i + 1) * 3 && o->lsl == i + 100, "CPU %u: %x %x %u",
			   i, o->aux, o->aux2, o->lsl);
		batch_case(&e, (o->base >> 8 & 1) == (i == 0), "CPU %u: APIC base %lx", i, (word)o->base);
		for (k = 0; k < ALIKE; k++)
			batch_case(&e, o->msr[k] == own[0].msr[k], "CPU %u: MSR %x is %lx, the first CPU's %lx", i,
				   alike[k], (word)o->msr[k], (word)own[0].msr[k]);
	}
	batch_end(&b);
	batch_end(&m);
	batch_end(&x);
	batch_end(&e);
}

/* ---- time (17.17.1: synchronised at reset; Linux asks for as much) ---- */
static struct {
	volatile unsigned turn __attribute__((aligned(64)));
	volatile uint64_t tsc;
	volatile unsigned bad;
} clock;

static void tsc_turns(void *arg)
{
	unsigned n = (unsigned)(word)arg, k, i;

	for (k = 0; k < n; k++)
		for (i = 0; i < smp_n; i++) {
			if (i != smp_me())
				continue;
			WAIT(clock.turn == k * smp_n + i, "its turn to read the TSC");
			__asm__ volatile("lfence" ::: "memory"); /* rdtsc waits for no load before it */
			uint64_t now = rdtsc();
			if (now < clock.tsc)
				clock.bad++;
			clock.tsc = now;
			__atomic_store_n(&clock.turn, clock.turn + 1, __ATOMIC_RELEASE);
		}
}

static void tsc(void)
{
	word n = TURNS(400);

	clock.turn = 0;
	clock.tsc = 0;
	smp_each(smp_n, tsc_turns, (void *)n);
	check("TSC in step: never goes back from CPU to CPU", clock.bad == 0, "%u of %lu", clock.bad, n * smp_n);
}

void flat_main(void)
{
	if (!smp_init())
		return;
	states();
	smp_start_all();
	apic_after_init();
	forms();
	logical_init();
	own_things();
	tsc();
	restarts();
	restarts_early();
	tsc();
}
