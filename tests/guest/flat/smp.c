/*
 * Several CPUs: starting them, jobs, inter-processor interrupts.
 * Invariant: an AP that is not in a job halts with interrupts on.
 */
#include "smp.h"
#include "acpi.h"

struct smp_cpu smp[SMP_MAX];
unsigned smp_n;
uint64_t tsc_per_ms;
uint8_t smp_stacks[SMP_MAX][SMP_STACK] __attribute__((aligned(4096)));
uint8_t smp_index_of[256]; /* by APIC ID */
uint32_t smp_efer;
static struct {
	volatile unsigned lock, left;
	void (*volatile fn)(void *);
	void *volatile arg;
} call;

/* SIPI's target: real mode to long mode, the stack by APIC ID. */
extern uint8_t smp_blob[], smp_blob_end[];
__asm__(".pushsection .text\n"
	".code16\n"
	"smp_blob:\n"
	"	cli\n	cld\n"
	"	movw %cs, %ax\n	movw %ax, %ds\n"
	"	lgdtl (smp_gdtr - smp_blob)\n"
	"	movl $0x11, %eax\n	movl %eax, %cr0\n" /* CD and NW off */
	"	ljmpl $0x38, $(0x8000 + 1f - smp_blob)\n"
	".code32\n"
	"1:	movl $0x10, %eax\n	movl %eax, %ds\n	movl %eax, %es\n	movl %eax, %ss\n"
	"	movl $0x620, %eax\n	movl %eax, %cr4\n"
	"	movl $rt_pml4, %eax\n	movl %eax, %cr3\n"
	"	movl $0xc0000080, %ecx\n	rdmsr\n	orl smp_efer, %eax\n	wrmsr\n"
	"	movl $0x80010033, %eax\n	movl %eax, %cr0\n"
	"	ljmpl $8, $smp_start64\n"
	"	.align 8\n"
	"smp_gdtr: .word 32 * 8 - 1\n	.long rt_gdt\n"
	"smp_blob_end:\n"
	".code64\n"
	"smp_start64:\n"
	"	xorl %eax, %eax\n	movl %eax, %fs\n	movl %eax, %gs\n"
	"	movl $1, %eax\n	xorl %ecx, %ecx\n	cpuid\n	shrl $24, %ebx\n"
	"	movzbl smp_index_of(%rbx), %edi\n"
	"	leal 1(%rdi), %eax\n	imull $16384, %eax, %eax\n"
	"	leaq smp_stacks(%rax), %rsp\n"
	"	fninit\n"
	"	call smp_main\n"
	".popsection\n");
_Static_assert(SMP_STACK == 16384 && SMP_PAGE == 0x8000, "used in the code above");

/* ---- APIC ---- */
uint32_t lapic_read(unsigned reg)
{
	if (smp_self()->x2)
		return (uint32_t)rdmsr(0x800 + reg / 16);
	return *(volatile uint32_t *)(LAPIC + reg);
}

void lapic_write(unsigned reg, uint32_t v)
{
	if (smp_self()->x2)
		wrmsr(0x800 + reg / 16, v);
	else
		*(volatile uint32_t *)(LAPIC + reg) = v;
}

bool lapic_bit(unsigned base, unsigned vec)
{
	return lapic_read(base + (vec >> 5) * 16) >> (vec & 31) & 1;
}

void smp_icr(uint32_t dest, uint32_t low)
{
	word f = rd_flags();

	if (smp_self()->x2) {
		__asm__ volatile("mfence" ::
					 : "memory"); /* WRMSR of the ICR does not wait for stores (SDM 3A 10.12.3) */
		wrmsr(0x830, (uint64_t)dest << 32 | low);
		return;
	}
	cli(); /* a handler must not come between the halves */
	lapic_write(L_ICR2, dest << 24);
	lapic_write(L_ICR, low);
	WAIT(!(lapic_read(L_ICR) & 0x1000), "the ICR's delivery status");
	if (f & FL_IF)
		sti();
}

void smp_x2apic(bool on)
{
	uint64_t base = rdmsr(MSR_APICBASE);

	if (on) {
		wrmsr(MSR_APICBASE, base | 0xc00);
	} else {
		wrmsr(MSR_APICBASE, base & ~0xc00ull);
		wrmsr(MSR_APICBASE, (base & ~0x400ull) | 0x800);
	}
	smp_self()->x2 = on;
}

static void lapic_enable(void)
{
	lapic_write(L_SVR, 0x100 | V_SPURIOUS);
	lapic_write(L_LINT0, MASKED);
	lapic_write(L_LINT1, MASKED);
	lapic_write(L_TPR, 0);
}

uint32_t ioapic_read(unsigned reg)
{
	*(volatile uint32_t *)IOAPIC = reg;
	return *(volatile uint32_t *)(IOAPIC + 16);
}

void ioapic_write(unsigned reg, uint32_t v)
{
	*(volatile uint32_t *)IOAPIC = reg;
	*(volatile uint32_t *)(IOAPIC + 16) = v;
}

/* ---- traps ---- */
static bool hook(struct regs *r)
{
	struct smp_cpu *c = smp_self();

	if (c->hook && c->hook(r))
		return true;
	if (r->vec == VEC_NMI || (r->vec >= 0x30 && r->vec != VEC_END)) {
		__atomic_add_fetch(&c->count[r->vec], 1, __ATOMIC_SEQ_CST); /* NMIs interrupt this, too */
		c->got_on++;
		if (r->vec == V_CALL) {
			call.fn(call.arg);
			__atomic_sub_fetch(&call.left, 1, __ATOMIC_SEQ_CST);
		}
		if (r->vec != VEC_NMI && r->vec != V_SPURIOUS)
			lapic_write(L_EOI, 0);
		return true;
	}
	if (c->index) {
		print("\n# trap %u error %#lx at %#lx cr2 %#lx on CPU %u\nnot ok unexpected trap\n", (unsigned)r->vec,
		      (word)r->err, (word)r->ip, rd_cr2(), c->index);
		rt_exit(2);
	}
	return false;
}

void smp_look_again(struct patience *p, const char *what)
{
	unsigned sum = 0;

	pause();
	if (++p->looks & 0xfff)
		return;
	for (unsigned i = 0; i < smp_n; i++)
		sum += smp[i].got_on;
	if (sum != p->seen) {
		p->seen = sum;
		p->looks = 0;
	} else if (p->looks > SMP_LOOKS) {
		smp_stuck(what);
	}
}

void smp_stuck(const char *what)
{
	print("\nnot ok CPU %u waits in vain for %s\n", smp_me(), what);
	for (unsigned i = 0; i < smp_n; i++)
		print("# CPU %u: %u lives, job %lx, %u done, %u calls, %u wakes\n", i, smp[i].lives, (word)smp[i].job,
		      smp[i].jobs_done, smp[i].count[V_CALL], smp[i].count[V_WAKE]);
	print("# 0 ok, 1 not ok\n");
	rt_exit(2);
}

/* ---- CPUs ---- */
void smp_main(unsigned index) __attribute__((noreturn));
void smp_main(unsigned index)
{
	struct smp_cpu *c = &smp[index];

	wrmsr(MSR_GSBASE, (word)c);
	rt_load_idt();
	if (c->at_start)
		c->at_start();
	c->x2 = rdmsr(MSR_APICBASE) >> 10 & 1;
	lapic_enable();
	__atomic_add_fetch(&c->lives, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		cli();
		while (!c->job)
			__asm__ volatile("sti; hlt; cli" ::: "memory");
		sti();
		c->job(c->arg);
		c->job = NULL;
		__atomic_add_fetch(&c->jobs_done, 1, __ATOMIC_SEQ_CST);
		smp_got_on();
	}
}

static void found(uint32_t apic)
{
	static unsigned next = 1;
	unsigned i = apic == smp[0].apic ? 0 : next++;

	if (i >= SMP_MAX || apic > 255)
		return;
	smp[i].self = &smp[i];
	smp[i].index = i;
	smp[i].apic = apic;
	smp[i].random = i * 7919 + 1;
	smp_index_of[apic] = (uint8_t)i;
	smp_n++;
}

/* Processors of the MADT that are enabled: local APIC (0) and local x2APIC (9) entries, ACPI 6.4 5.2.12. */
static void find_cpus(void)
{
	struct acpi_header *h = acpi_find("APIC");
	uint8_t *p = (uint8_t *)(h + 1) + 8, *end = (uint8_t *)h + (h ? h->length : 0);
	uint32_t v[3];

	for (; h && p < end && p[1] >= 2; p += p[1]) {
		memcpy(v, p + 4, p[0] == 9 ? 12 : 4);
		if (p[0] == 0 && v[0] & 1)
			found(p[3]);
		else if (p[0] == 9 && v[1] & 1)
			found(v[0]);
	}
}

bool smp_init(void)
{
	uint32_t a, b, c, d;

	cpuid(1, 0, &a, &b, &c, &d);
	smp[0].apic = b >> 24;
	find_cpus();
	if (!smp_n)
		found(smp[0].apic);
	check_eq("the MADT has the CPUs that were asked for", smp_n, smp_option("cpus", smp_n));
	smp_efer = 0x100 | ((uint32_t)rdmsr(MSR_EFER) & EFER_NXE);
	memcpy((void *)SMP_PAGE, smp_blob, (size_t)(smp_blob_end - smp_blob));
	wrmsr(MSR_GSBASE, (word)&smp[0]);
	smp[0].lives = 1;
	rt_hook = hook;
	lapic_enable();
	smp_calibrate();
	if (smp_n > 1)
		return true;
	skip("several CPUs", "this machine has one");
	return false;
}

void smp_start(unsigned n)
{
	unsigned before = smp[n].lives;

	smp[n].job = NULL;
	smp_icr(smp[n].apic, ICR_INIT | ICR_ASSERT | ICR_LEVEL);
	smp_icr(smp[n].apic, ICR_INIT | ICR_LEVEL);
	delay_us(10);
	smp_icr(smp[n].apic, ICR_SIPI | ICR_ASSERT | SMP_PAGE >> 12);
	WAIT(smp[n].lives != before, "a CPU to start");
}

void smp_start_all(void)
{
	for (unsigned i = 1; i < smp_n; i++)
		smp_start(i);
}

void smp_give(unsigned n, void (*job)(void *), void *arg)
{
	WAIT(!smp[n].job, "a CPU to be free");
	smp[n].arg = arg;
	smp[n].job = job;
	smp_icr(smp[n].apic, ICR_FIXED | ICR_ASSERT | V_WAKE);
}

void smp_wait(unsigned n)
{
	WAIT(!smp[n].job, "the end of a job");
}

void smp_each(unsigned n, void (*job)(void *), void *arg)
{
	for (unsigned i = 1; i < n; i++)
		smp_give(i, job, arg);
	sti();
	job(arg);
	for (unsigned i = 1; i < n; i++)
		smp_wait(i);
	cli();
}

void smp_call_others(void (*fn)(void *), void *arg)
{
	WAIT(!__atomic_exchange_n(&call.lock, 1, __ATOMIC_ACQUIRE),
	     "another CPU's call"); /* with interrupts on: it may call us */
	call.fn = fn;
	call.arg = arg;
	call.left = smp_n - 1;
	smp_icr(0, ICR_OTHERS | ICR_ASSERT | V_CALL);
	WAIT(!call.left, "the others to answer a call");
	__atomic_store_n(&call.lock, 0, __ATOMIC_RELEASE);
}

void barrier(struct barrier *b, unsigned n)
{
	unsigned turn = b->turn;

	if (__atomic_add_fetch(&b->in, 1, __ATOMIC_SEQ_CST) == n) {
		b->in = 0;
		__atomic_store_n(&b->turn, turn + 1, __ATOMIC_SEQ_CST);
		return;
	}
	WAIT(b->turn != turn, "a barrier");
}

/* ---- time, options ---- */
void smp_calibrate(void)
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
}

void delay_us(unsigned us)
{
	uint64_t end = rdtsc() + tsc_per_ms * us / 1000;

	while (rdtsc() < end)
		pause();
}

word smp_option(const char *name, word otherwise)
{
	uint32_t *info = (uint32_t *)(word)rt_boot_info;
	const char *s;
	size_t n = 0;
	word v = 0;

	while (name[n])
		n++;
	if (rt_boot_magic != 0x2badb002 || !(info[0] & 4))
		return otherwise;
	for (s = (const char *)(word)info[4]; *s; s++) {
		if (memcmp(s, name, n) || s[n] != '=')
			continue;
		for (s += n + 1; *s >= '0' && *s <= '9'; s++)
			v = v * 10 + (word)(*s - '0');
		return v;
	}
	return otherwise;
}
