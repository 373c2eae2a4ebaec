/*
 * Interrupts between CPUs: every form of the ICR in xAPIC and x2APIC mode, the
 * I/O APIC's interrupts to any CPU, NMI, halted CPUs that must not miss one,
 * storms.  SDM 3A 10.6 (IPIs), 10.6.2 (destinations), 10.8.3, 10.12 (x2APIC), 6.7.
 * Invariant: a CPU that must not get an interrupt is asked after it has taken a later one of the same sender.
 */
#include "smp.h"

#define V_TEST 0xd1
#define V_LATE 0x31 /* lower priority than V_TEST: it comes after */

static unsigned before[SMP_MAX];
static bool x2; /* all CPUs are in x2APIC mode */

static void mark(unsigned vec)
{
	for (unsigned i = 0; i < smp_n; i++)
		before[i] = smp[i].count[vec];
}

/* Everybody has taken what was sent before this returns. */
static void settle(void)
{
	unsigned late[SMP_MAX], i;

	for (i = 0; i < smp_n; i++)
		late[i] = smp[i].count[V_LATE];
	smp_icr(x2 ? 0xffffffff : 0xff, ICR_FIXED | ICR_ASSERT | ICR_ALL | V_LATE);
	for (i = 0; i < smp_n; i++)
		WAIT(smp[i].count[V_LATE] != late[i], "an interrupt to all");
}

/* @vec has come to exactly the CPUs of @mask. */
static void came(struct batch *b, const char *what, unsigned vec, uint32_t mask)
{
	unsigned i;

	settle();
	for (i = 0; i < smp_n; i++)
		batch_case(b, smp[i].count[vec] - before[i] == (mask >> i & 1), "%s: CPU %u got %u of mask %x", what, i,
			   smp[i].count[vec] - before[i], mask);
}

static void send(struct batch *b, const char *what, uint32_t dest, uint32_t low, uint32_t mask)
{
	mark(V_TEST);
	smp_icr(dest, low | ICR_ASSERT | V_TEST);
	came(b, what, V_TEST, mask);
}

static uint32_t everyone(void)
{
	return smp_n == 32 ? ~0u : (1u << smp_n) - 1;
}

/* ---- physical destinations and shorthands, from each CPU ---- */
static struct batch from_all = {"fixed: physical, self, all, all but self, from each CPU (10.6.1)", 0, 0};

static void send_all_ways(void *arg)
{
	struct batch *b = arg;
	unsigned i, me = smp_me();
	uint32_t all = x2 ? 0xffffffff : 0xff;

	for (i = 0; i < smp_n; i++)
		send(b, "physical", smp[i].apic, ICR_FIXED, 1u << i);
	send(b, "self", 0, ICR_SELF, 1u << me);
	send(b, "self, with a destination that does not count", smp[!me].apic, ICR_SELF, 1u << me);
	send(b, "all", 0, ICR_ALL, everyone());
	send(b, "all but self", 0, ICR_OTHERS, everyone() & ~(1u << me));
	send(b, "physical broadcast", all, ICR_FIXED, everyone());
	send(b, "nobody's ID", x2 ? 0x7777 : 0x77, ICR_FIXED, 0);
}

static void physical(struct batch *b)
{
	unsigned i;

	sti();
	send_all_ways(b);
	for (i = 1; i < smp_n; i++) { /* a failing case prints from there: nobody else does meanwhile */
		smp_give(i, send_all_ways, b);
		smp_wait(i);
	}
	cli();
	batch_end(b);
}

/* ---- logical ---- */
static void set_flat(void *arg)
{
	unsigned me = smp_me();

	lapic_write(L_DFR, 0xffffffff);
	lapic_write(L_LDR, me < 8 ? 1u << (24 + me) : 0);
}

static void set_cluster(void *arg)
{
	unsigned me = smp_me();

	lapic_write(L_DFR, 0x0fffffff);
	lapic_write(L_LDR, (me / 4) << 28 | 1u << (24 + me % 4));
}

static void flat(void)
{
	struct batch b = {"fixed: logical, flat (10.6.2.2)", 0, 0};
	uint32_t m, low = smp_n < 8 ? everyone() : 0xff;

	smp_each(smp_n, set_flat, NULL);
	sti();
	for (m = 0; m < 256; m += m < 16 ? 1 : 7)
		send(&b, "flat", m, ICR_LOGICAL, m & low);
	send(&b, "flat, all", 0xff, ICR_LOGICAL, everyone()); /* a broadcast, whatever a CPU's LDR says */
	cli();
	batch_end(&b);
}

static void cluster(void)
{
	struct batch b = {"fixed: logical, cluster (10.6.2.2)", 0, 0};
	unsigned c, m;

	smp_each(smp_n, set_cluster, NULL);
	sti();
	for (c = 0; c < (smp_n + 3) / 4 + 1; c++)
		for (m = 0; m < 16; m++)
			send(&b, "cluster", c << 4 | m, ICR_LOGICAL, (uint32_t)((uint64_t)m << c * 4) & everyone());
	if (smp_n <= 4 && !cpu.tcg) /* wider, implementations differ; TCG knows none */
		send(&b, "cluster, broadcast", 0xff, ICR_LOGICAL, everyone());
	cli();
	batch_end(&b);
	smp_each(smp_n, set_flat, NULL);
}

/* ---- lowest priority: exactly one of those addressed, and none with a higher task priority ---- */
static void set_tpr(void *arg)
{
	lapic_write(L_TPR, (uint32_t)(word)arg);
}

static unsigned got(unsigned vec, int *who)
{
	unsigned i, n = 0;

	for (i = 0; i < smp_n; i++)
		if (smp[i].count[vec] != before[i]) {
			n += smp[i].count[vec] - before[i];
			*who = (int)i;
		}
	return n;
}

static void lowest(void)
{
	struct batch b = {"lowest priority: one CPU takes it (10.6.2.4)", 0, 0};
	uint32_t low = smp_n < 8 ? everyone() : 0xff, m;
	unsigned turn;
	int who = -1;

	smp_each(smp_n, set_flat, NULL);
	sti();
	for (turn = 0; turn < 60; turn++) {
		m = turn % low + 1;
		mark(V_TEST);
		smp_icr(m, ICR_LOWEST | ICR_LOGICAL | ICR_ASSERT | V_TEST);
		WAIT(got(V_TEST, &who), "lowest priority delivery");
		settle();
		batch_case(&b, got(V_TEST, &who) == 1 && m >> who & 1, "mask %x: %u, CPU %d", m, got(V_TEST, &who),
			   who);
	}
	cli();
	batch_end(&b);
}

/* ---- priorities of the receiver ---- */
static volatile bool release;

static void hold_off(void *arg)
{
	lapic_write(L_TPR, 0xd0); /* class of V_TEST */
	__atomic_store_n((word *)arg, 1, __ATOMIC_SEQ_CST);
	WAIT(release, "release");
	lapic_write(L_TPR, 0);
}

static void masked_by_cli(void *arg)
{
	cli();
	__atomic_store_n((word *)arg, 1, __ATOMIC_SEQ_CST);
	WAIT(release, "release");
	WAIT(lapic_bit(L_IRR, V_TEST), "IRR");
	sti();
}

static void receiver(void)
{
	struct batch b = {"IPI held off by TPR and by IF, many become one (10.8.3, 10.8.4)", 0, 0};
	void (*const jobs[])(void *) = {hold_off, masked_by_cli};
	unsigned i, k;
	word flags;

	for (k = 0; k < 2; k++) {
		__atomic_store_n(&flags, 0, __ATOMIC_SEQ_CST);
		release = false;
		mark(V_TEST);
		smp_give(1, jobs[k], &flags);
		WAIT(__atomic_load_n(&flags, __ATOMIC_SEQ_CST), "CPU 1");
		for (i = 0; i < 5; i++)
			smp_icr(smp[1].apic, ICR_FIXED | ICR_ASSERT | V_TEST);
		delay_us(300);
		batch_case(&b, smp[1].count[V_TEST] == before[1], "job %u: it came", k);
		release = true;
		smp_wait(1);
		sti();
		settle();
		cli();
		batch_case(&b, smp[1].count[V_TEST] == before[1] + 1, "job %u: %u came", k,
			   smp[1].count[V_TEST] - before[1]);
	}
	batch_end(&b);
}

/* ---- NMI ---- */
static void nmi_wait(unsigned n, unsigned times)
{
	WAIT(smp[n].count[VEC_NMI] - before[n] >= times, "an NMI");
}

static void nmis(void)
{
	struct batch b = {"NMI: physical, logical, all, all but self; IF and TPR do not matter (10.6.1)", 0, 0};
	unsigned i, turn;

	smp_each(smp_n, set_tpr, (void *)0xf0);
	smp_each(1, set_tpr, (void *)0); /* wakes come to this one only by polling */
	for (i = 0; i < smp_n; i++) {
		mark(VEC_NMI);
		smp_icr(smp[i].apic, ICR_NMI | ICR_ASSERT);
		nmi_wait(i, 1);
	}
	for (turn = 0; turn < 20; turn++) {
		mark(VEC_NMI);
		smp_icr(0, ICR_OTHERS | ICR_NMI | ICR_ASSERT);
		for (i = 1; i < smp_n; i++)
			nmi_wait(i, 1);
		batch_case(&b, smp[0].count[VEC_NMI] == before[0], "all but self: to self");
		mark(VEC_NMI);
		smp_icr(0, ICR_ALL | ICR_NMI | ICR_ASSERT);
		for (i = 0; i < smp_n; i++)
			nmi_wait(i, 1);
		for (i = 0; i < smp_n; i++)
			batch_case(&b, smp[i].count[VEC_NMI] == before[i] + 1, "CPU %u: %u", i,
				   smp[i].count[VEC_NMI] - before[i]);
	}
	if (!x2) {
		mark(VEC_NMI);
		smp_icr(2, ICR_NMI | ICR_LOGICAL | ICR_ASSERT);
		nmi_wait(1, 1);
		batch_case(&b, smp[0].count[VEC_NMI] == before[0], "logical: to another");
	}
	batch_end(&b);
}

static void tpr_down(void *arg)
{
	lapic_write(L_TPR, 0);
}

/* The APs' TPR of 0xf0 kept V_WAKE out: an NMI makes them look at their job. */
static void after_nmis(void)
{
	unsigned i;

	for (i = 1; i < smp_n; i++) {
		smp[i].arg = NULL;
		smp[i].job = tpr_down;
		smp_icr(smp[i].apic, ICR_NMI | ICR_ASSERT);
		smp_wait(i);
	}
}

static void nmi_target(void *arg)
{
	volatile word *p = arg;

	cli();
	while (!p[0])
		p[8]++;
	sti();
}

/* NMIs hit a loop with interrupts off; each is taken before the next is sent. */
static void nmi_storm(void)
{
	static word p[16];
	word turns = TURNS(300), i;

	p[0] = 0;
	mark(VEC_NMI);
	smp_give(1, nmi_target, p);
	for (i = 1; i <= turns; i++) {
		smp_icr(smp[1].apic, ICR_NMI | ICR_ASSERT);
		nmi_wait(1, (unsigned)i);
	}
	__atomic_store_n(p, 1, __ATOMIC_SEQ_CST);
	smp_wait(1);
	check("NMI storm into a loop", smp[1].count[VEC_NMI] - before[1] == turns, "%u of %lu",
	      smp[1].count[VEC_NMI] - before[1], turns);
}

/* ---- x2APIC ---- */
static void go_x2(void *arg)
{
	smp_x2apic(arg != NULL);
	lapic_write(L_SVR, 0x100 | V_SPURIOUS);
	lapic_write(L_TPR, 0);
}

static void x2_logical(void)
{
	struct batch b = {"x2APIC: logical cluster (10.12.10.2), self IPI, broadcast", 0, 0};
	uint32_t id, mask, want, clusters;
	unsigned i;

	sti();
	for (i = 0; i < smp_n; i++) {
		id = smp[i].apic;
		send(&b, "one by its logical ID", (id >> 4) << 16 | 1u << (id & 15), ICR_LOGICAL, 1u << i);
	}
	for (clusters = 0; clusters < 2; clusters++)
		for (mask = 1; mask < 0x10000; mask = mask * 3 + 1) {
			want = 0;
			for (i = 0; i < smp_n; i++)
				if (smp[i].apic >> 4 == clusters && mask >> (smp[i].apic & 15) & 1)
					want |= 1u << i;
			send(&b, "a cluster's members", clusters << 16 | mask, ICR_LOGICAL, want);
		}
	send(&b, "logical broadcast", 0xffffffff, ICR_LOGICAL, everyone());
	mark(V_TEST);
	wrmsr(0x83f, V_TEST);
	came(&b, "SELF IPI", V_TEST, 1);
	cli();
	batch_end(&b);
}

static void x2apic(void)
{
	struct batch b = {"x2APIC: physical, self, all, all but self, from each CPU", 0, 0};

	if (!cpu.x2apic) {
		skip("x2APIC", "not supported");
		return;
	}
	smp_each(smp_n, go_x2, (void *)1);
	x2 = true;
	physical(&b);
	x2_logical();
	nmis();
	after_nmis();
	smp_each(smp_n, go_x2, NULL);
	x2 = false;
	smp_each(smp_n, set_flat, NULL);
}

/* ---- I/O APIC to any CPU ---- */
static void route(unsigned gsi, uint32_t dest, uint32_t low)
{
	ioapic_write(0x10 + 2 * gsi, MASKED);
	ioapic_write(0x11 + 2 * gsi, dest << 24);
	ioapic_write(0x10 + 2 * gsi, low);
}

/* One edge of the 8254 by that entry.  It is sent to where it is to go before it can come: on a masked pin it would be lost. */
static void one_edge(uint32_t dest, uint32_t low)
{
	outb(0x43, 0x30); /* mode 0: the line falls, and stays low until it has counted */
	route(2, dest, low);
	outb(0x40, 0xa9);
	outb(0x40, 0x04); /* 1 ms */
}

static void ioapic(void)
{
	struct batch b = {"I/O APIC: an edge to each CPU, physical and logical; lowest priority; NMI", 0, 0};
	unsigned i;
	int who = -1;

	sti();
	for (i = 0; i < smp_n; i++) {
		mark(0x52);
		one_edge(smp[i].apic, 0x52);
		WAIT(smp[i].count[0x52] != before[i], "the 8254");
		route(2, 0, MASKED);
		came(&b, "physical", 0x52, 1u << i);
		if (i >= 8)
			continue;
		mark(0x53);
		one_edge(1u << i, 0x853);
		WAIT(smp[i].count[0x53] != before[i], "the 8254");
		route(2, 0, MASKED);
		came(&b, "logical", 0x53, 1u << i);
		mark(0x54);
		one_edge(3, 0x954);
		WAIT(got(0x54, &who), "the 8254, lowest priority");
		route(2, 0, MASKED);
		settle();
		batch_case(&b, got(0x54, &who) == 1 && who < 2, "lowest priority: %u, CPU %d", got(0x54, &who), who);
	}
	mark(VEC_NMI);
	one_edge(smp[1].apic, 0x400);
	nmi_wait(1, 1);
	route(2, 0, MASKED);
	cli();
	batch_end(&b);
}

/* A level is served on another CPU: its EOI reaches the I/O APIC. */
static bool level_hook(struct regs *r)
{
	if (r->vec == 0x55 && smp[1].count[0x55] - before[1] >= 3)
		outb(0x3f9, 0); /* the request ends */
	return false;
}

static void level(void)
{
	unsigned got_it;

	mark(0x55);
	smp[1].hook = level_hook;
	route(4, smp[1].apic, 0x8055);
	outb(0x3f9, 2); /* transmitter empty */
	WAIT(smp[1].count[0x55] - before[1] >= 4, "a level on CPU 1");
	sti();
	settle();
	cli();
	got_it = smp[1].count[0x55] - before[1];
	smp[1].hook = NULL;
	check("I/O APIC: a level served by another CPU, again until it falls", got_it == 4, "%u interrupts", got_it);
	check("I/O APIC: remote IRR cleared by that CPU's EOI", !(ioapic_read(0x10 + 8) >> 14 & 1), "entry %#x",
	      ioapic_read(0x10 + 8));
	route(4, 0, MASKED);
}

/* ---- hlt: no wake-up is lost ---- */
static struct {
	volatile word token __attribute__((aligned(64)));
	word rounds;
} ring;

/* The token goes round by IPI alone; whoever does not have it halts. */
static void pass_token(void *arg)
{
	unsigned me = smp_me(), next = (me + 1) % smp_n;
	struct smp_cpu *c = smp_self();
	word k;

	for (k = 0; k < ring.rounds; k++) {
		if ((smp_random(c) & 3) == 0)
			for (unsigned spin = smp_random(c) & 255; spin; spin--)
				pause();
		cli();
		while (ring.token != k * smp_n + me)
			__asm__ volatile("sti; hlt; cli" ::: "memory");
		sti();
		__atomic_store_n(&ring.token, ring.token + 1, __ATOMIC_SEQ_CST);
		smp_icr(smp[next].apic, ICR_FIXED | ICR_ASSERT | V_WAKE);
	}
}

static void halts(void)
{
	ring.rounds = TURNS(2000) / smp_n;
	ring.token = 0;
	smp_each(smp_n, pass_token, NULL);
	check_eq("hlt: a token by IPI, round and round", ring.token, ring.rounds * smp_n);
}

/* As above by NMI with IF off: hlt ends by NMI, and one that comes before hlt shows in the count. */
static volatile word nmi_token;

static bool nmi_moves(struct regs *r)
{
	struct smp_cpu *c = smp_self();

	if (r->vec != VEC_NMI)
		return false;
	c->count[VEC_NMI]++;
	if (*(volatile uint8_t *)r->ip == 0xf4)
		r->ip++; /* it came right before the hlt */
	return true;
}

static void nmi_sleeper(void *arg)
{
	word k;

	cli();
	smp_self()->hook = nmi_moves;
	for (k = 0; k < (word)arg; k++) {
		while (nmi_token != 2 * k + 1) /* the check and hlt: an NMI between them is seen by nmi_moves() */
			__asm__ volatile("cmpq %1, %0; je 1f; hlt; 1:" ::"m"(nmi_token), "r"(2 * k + 1)
					 : "memory", "cc");
		__atomic_store_n(&nmi_token, 2 * k + 2, __ATOMIC_SEQ_CST);
	}
	smp_self()->hook = NULL;
	sti();
}

static void nmi_halts(void)
{
	word turns = TURNS(500), k;

	nmi_token = 0;
	smp_give(1, nmi_sleeper, (void *)turns);
	WAIT(smp[1].hook, "CPU 1");
	for (k = 0; k < turns; k++) {
		if (k & 1)
			for (unsigned spin = smp_random(&smp[0]) & 1023; spin; spin--)
				pause();
		__atomic_store_n(&nmi_token, 2 * k + 1, __ATOMIC_SEQ_CST);
		smp_icr(smp[1].apic, ICR_NMI | ICR_ASSERT);
		WAIT(nmi_token == 2 * k + 2, "a CPU that an NMI wakes");
	}
	smp_wait(1);
	check_eq("hlt with IF off: an NMI each time", nmi_token, 2 * turns);
}

/* ---- storms: every CPU calls all others at once (stop_machine, TLB shootdowns) ---- */
static struct {
	volatile unsigned calls[SMP_MAX];
	word rounds;
} storm;

static void called(void *arg)
{
	storm.calls[smp_me()]++;
}

static void call_all(void *arg)
{
	for (word k = 0; k < storm.rounds; k++)
		smp_call_others(called, NULL);
}

static void calls(void)
{
	struct batch b = {"every CPU calls all others at once", 0, 0};
	unsigned i;

	storm.rounds = TURNS(200) / smp_n + 1;
	smp_each(smp_n, call_all, NULL);
	for (i = 0; i < smp_n; i++)
		batch_case(&b, storm.calls[i] == storm.rounds * (smp_n - 1), "CPU %u: %u of %lu", i, storm.calls[i],
			   storm.rounds * (smp_n - 1));
	batch_end(&b);
}

/* One-way IPIs, as fast as they go, to everybody: each burst ends with one that must come. */
static struct barrier at;

static void burst(void *arg)
{
	unsigned me = smp_me(), i;
	word k;

	for (k = 0; k < (word)arg; k++) {
		for (i = 0; i < smp_n; i++)
			smp_icr(smp[i].apic, ICR_FIXED | ICR_ASSERT | (0x60 + me));
		barrier(&at, smp_n); /* all have been sent: each CPU has each vector once more, at least */
		for (i = 0; i < smp_n; i++)
			WAIT(smp[me].count[0x60 + i] - (unsigned)k >= 1, "a burst's interrupt");
		for (i = 0; i < smp_n; i++)
			smp[me].count[0x60 + i] = (unsigned)k + 1; /* nobody sends before the next barrier */
		barrier(&at, smp_n);
	}
}

static void bursts(void)
{
	unsigned i, v;

	for (i = 0; i < smp_n; i++)
		for (v = 0x60; v < 0x80; v++)
			smp[i].count[v] = 0;
	smp_each(smp_n, burst, (void *)(TURNS(200) / smp_n + 1));
	check("bursts from all to all", true, "-");
}

void flat_main(void)
{
	if (!smp_init())
		return;
	smp_start_all();
	physical(&from_all);
	flat();
	cluster();
	lowest();
	receiver();
	nmis();
	after_nmis();
	nmi_storm();
	ioapic();
	level();
	halts();
	nmi_halts();
	calls();
	bursts();
	x2apic();
}
