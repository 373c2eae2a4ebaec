/* lapic: priorities, EOI, IPIs, modes and MSR rules, destinations, the three timers, PEND_INTR. */
#include "vcpu/chipset/lapic.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/chipfakes.h"

#define TSC_HZ 2500000000u

static struct fake f;
static struct lapics s;
static struct vcpu *v[3];
static int eois, last_eoi, starts, last_start, extint_vector;

static void on_eoi(void *ctx, uint8_t vector)
{
	eois++;
	last_eoi = vector;
}

static void on_start(void *ctx, struct vcpu *vcpu, int vector)
{
	starts++;
	last_start = vector;
}

static int on_extint(void *ctx)
{
	lapics_extint(&s, false);
	return extint_vector;
}

static void setup(void)
{
	fake_init(&f, TSC_HZ);
	memset(&s, 0, sizeof(s));
	for (int i = 0; i < 3; i++)
		v[i] = fake_vcpu(i);
	s.eoi = on_eoi;
	s.extint_ack = on_extint;
	s.init_sipi = on_start;
	lapics_init(&s, &f.clock, (struct timerq *[]){&f.q, &f.q, &f.q}, v, 3);
	eois = starts = 0;
	for (int i = 0; i < 3; i++)
		lapic_mmio_write(&s.apic[i], 0xf0, 0x1ff);
}

static void teardown(void)
{
	for (int i = 0; i < 3; i++)
		free(v[i]);
}

static bool pend(int i)
{
	return v[i]->pending & PEND_INTR;
}

static uint32_t rd(unsigned off)
{
	return lapic_mmio_read(&s.apic[0], off);
}

static void wr(unsigned off, uint32_t val)
{
	lapic_mmio_write(&s.apic[0], off, val);
}

static void send(uint8_t vector, bool level)
{
	lapics_deliver(&s, &(struct apic_msg){.dest = 0, .vector = vector, .level = level});
}

static void test_reset(void)
{
	setup();
	lapics_reset(&s);
	CU_ASSERT_EQUAL(s.apic[0].base, 0xfee00900);
	CU_ASSERT_EQUAL(s.apic[1].base, 0xfee00800);
	CU_ASSERT_EQUAL(rd(0x30), 0x50014);
	CU_ASSERT_EQUAL(rd(0xf0), 0xff);
	CU_ASSERT_EQUAL(rd(0xe0), 0xffffffff);
	CU_ASSERT_EQUAL(rd(0x320), 0x10000);
	CU_ASSERT_EQUAL(rd(0x350), 0x700);
	CU_ASSERT_EQUAL(lapic_mmio_read(&s.apic[1], 0x350), 0x10000);
	CU_ASSERT_EQUAL(lapic_mmio_read(&s.apic[2], 0x20), 0x02000000);
	send(0x40, false); /* software-disabled: not accepted */
	CU_ASSERT_FALSE(pend(0));
	teardown();
}

static void test_priority(void)
{
	setup();
	send(0x41, false);
	CU_ASSERT_TRUE(pend(0));
	CU_ASSERT_EQUAL(rd(0x220), 2);
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x41);
	CU_ASSERT_FALSE(pend(0));
	CU_ASSERT_EQUAL(rd(0x120), 2);
	CU_ASSERT_EQUAL(rd(0xa0), 0x40);
	send(0x4f, false); /* same class waits */
	CU_ASSERT_FALSE(pend(0));
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), -1);
	send(0x51, false);
	CU_ASSERT_TRUE(pend(0));
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x51);
	wr(0xb0, 0);
	CU_ASSERT_FALSE(pend(0));
	wr(0xb0, 0);
	CU_ASSERT_TRUE(pend(0));
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x4f);
	wr(0xb0, 0), wr(0xb0, 0);
	CU_ASSERT_EQUAL(rd(0xa0), 0);
	CU_ASSERT_EQUAL(eois, 0);
	teardown();
}

static void test_tpr(void)
{
	setup();
	wr(0x80, 0x50);
	CU_ASSERT_EQUAL(v[0]->cr8, 5);
	send(0x5f, false);
	CU_ASSERT_FALSE(pend(0));
	lapic_set_tpr(&s.apic[0], 0x40);
	CU_ASSERT_TRUE(pend(0));
	lapic_set_tpr(&s.apic[0], 0xf0);
	CU_ASSERT_FALSE(pend(0));
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), -1);
	lapic_set_tpr(&s.apic[0], 0);
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x5f);
	teardown();
}

static void test_level_eoi(void)
{
	setup();
	send(0x60, true);
	CU_ASSERT_EQUAL(rd(0x1b0), 1);
	lapic_ack(&s.apic[0]);
	wr(0xb0, 0);
	CU_ASSERT_EQUAL(eois, 1);
	CU_ASSERT_EQUAL(last_eoi, 0x60);
	send(0x60, false);
	CU_ASSERT_EQUAL(rd(0x1b0), 0);
	teardown();
}

static void test_ipi(void)
{
	setup();
	wr(0x310, 1u << 24), wr(0x300, 0x4070);
	CU_ASSERT_FALSE(pend(0));
	CU_ASSERT_TRUE(pend(1));
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[1]), 0x70);
	lapic_mmio_write(&s.apic[1], 0xb0, 0);
	wr(0x300, 0x40071); /* self */
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x71);
	wr(0x300, 0x80072); /* all */
	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(lapic_ack(&s.apic[i]), i ? 0x72 : -1); /* 0x71 is in service on 0 */
	wr(0xb0, 0);
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x72);
	wr(0x300, 0xc0083); /* others */
	CU_ASSERT_FALSE(pend(0));
	CU_ASSERT_TRUE(pend(1) && pend(2));
	wr(0x300, 0xc0400); /* NMI to others */
	CU_ASSERT_EQUAL(v[0]->pending & PEND_NMI, 0);
	CU_ASSERT(v[1]->pending & v[2]->pending & PEND_NMI);
	teardown();
}

static void test_logical(void)
{
	setup();
	for (int i = 0; i < 3; i++)
		lapic_mmio_write(&s.apic[i], 0xd0, 1u << (24 + i));
	wr(0x310, 6u << 24), wr(0x300, 0x0890);
	CU_ASSERT_FALSE(pend(0));
	CU_ASSERT_TRUE(pend(1) && pend(2));
	for (int i = 0; i < 3; i++) { /* clusters */
		lapic_mmio_write(&s.apic[i], 0xe0, 0x0fffffff);
		lapic_mmio_write(&s.apic[i], 0xd0, i ? 0x21000000u << (i - 1) : 0x11000000u);
	}
	lapic_ack(&s.apic[1]), lapic_ack(&s.apic[2]);
	wr(0x310, 0x11u << 24), wr(0x300, 0x08a0);
	CU_ASSERT_TRUE(pend(0));
	CU_ASSERT_FALSE(pend(1) || pend(2));
	teardown();
}

/* The one with the lowest priority; in turn where they are equal; none that is off. */
static void test_lowest(void)
{
	const struct apic_msg m = {.dest = 7, .logical = true, .mode = APIC_LOWEST, .vector = 0x51};
	int got[3] = {0};

	setup();
	for (int i = 0; i < 3; i++)
		lapic_mmio_write(&s.apic[i], 0xd0, 1u << (24 + i));
	for (int k = 0; k < 9; k++) {
		CU_ASSERT_TRUE(lapics_deliver(&s, &m));
		for (int i = 0; i < 3; i++)
			if (pend(i)) {
				got[i]++;
				CU_ASSERT_EQUAL(lapic_ack(&s.apic[i]), 0x51);
				lapic_mmio_write(&s.apic[i], 0xb0, 0);
			}
	}
	CU_ASSERT_TRUE(got[0] == 3 && got[1] == 3 && got[2] == 3);
	lapic_set_tpr(&s.apic[0], 0x20);
	lapic_mmio_write(&s.apic[1], 0xf0, 0xff); /* off */
	CU_ASSERT_TRUE(lapics_deliver(&s, &m) && lapics_deliver(&s, &m));
	CU_ASSERT_TRUE(!pend(0) && !pend(1) && pend(2));
	lapic_mmio_write(&s.apic[2], 0xf0, 0xff);
	CU_ASSERT_TRUE(lapics_deliver(&s, &m));
	CU_ASSERT_TRUE(pend(0));
	lapic_mmio_write(&s.apic[0], 0xf0, 0xff);
	CU_ASSERT_FALSE(lapics_deliver(&s, &m));
	teardown();
}

static bool nmi(int i)
{
	return atomic_fetch_and(&v[i]->pending, ~PEND_NMI) & PEND_NMI;
}

/* NMIs reach a CPU whose APIC is off by software; no vector is looked at. */
static void test_nmi(void)
{
	setup();
	lapic_mmio_write(&s.apic[2], 0xf0, 0xff);
	wr(0x310, 2u << 24), wr(0x300, 0x400);
	CU_ASSERT_TRUE(!nmi(0) && !nmi(1) && nmi(2));
	wr(0x300, 0xc0400);
	CU_ASSERT_TRUE(!nmi(0) && nmi(1) && nmi(2));
	wr(0x300, 0x80400);
	CU_ASSERT_TRUE(nmi(0) && nmi(1) && nmi(2));
	wr(0x310, 0xffu << 24), wr(0x300, 0x400);
	CU_ASSERT_TRUE(nmi(0) && nmi(1) && nmi(2));
	wr(0x310, 9u << 24), wr(0x300, 0x400); /* nobody */
	CU_ASSERT_TRUE(!nmi(0) && !nmi(1) && !nmi(2));
	teardown();
}

static void x2(int i)
{
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[i], 0x1b, 0xfee00c00), 0);
}

/* Clusters of sixteen by the upper half, and 8-bit destinations of the IOAPIC and of MSIs among 32-bit ones. */
static void test_x2_destinations(void)
{
	setup();
	v[1]->apic_id = 17;
	v[2]->apic_id = 34;
	lapics_reset(&s);
	for (int i = 0; i < 3; i++) {
		x2(i);
		lapic_wrmsr(&s.apic[i], 0x80f, 0x1ff);
	}
	lapic_wrmsr(&s.apic[0], 0x830, 17ull << 32 | 0x60); /* physical */
	CU_ASSERT_TRUE(!pend(0) && pend(1) && !pend(2));
	lapic_ack(&s.apic[1]);
	lapic_wrmsr(&s.apic[0], 0x830, 0x00020004ull << 32 | 0x871); /* cluster 2, its third */
	CU_ASSERT_TRUE(!pend(0) && !pend(1) && pend(2));
	lapic_ack(&s.apic[2]);
	lapic_wrmsr(&s.apic[0], 0x830, 0x0001ffffull << 32 | 0x881); /* all of cluster 1 */
	CU_ASSERT_TRUE(!pend(0) && pend(1) && !pend(2));
	lapic_ack(&s.apic[1]);
	lapic_wrmsr(&s.apic[0], 0x830, 0xffffffffull << 32 | 0x891); /* logical broadcast */
	CU_ASSERT_TRUE(pend(0) && pend(1) && pend(2));
	for (int i = 0; i < 3; i++)
		lapic_ack(&s.apic[i]);
	CU_ASSERT_TRUE(lapics_deliver(&s, &(struct apic_msg){.dest = 34, .vector = 0xa1}));
	CU_ASSERT_TRUE(!pend(0) && !pend(1) && pend(2));
	lapic_ack(&s.apic[2]);
	CU_ASSERT_TRUE(lapics_deliver(&s, &(struct apic_msg){.dest = 1, .logical = true, .vector = 0xb1}));
	CU_ASSERT_TRUE(pend(0) && !pend(1) && !pend(2));
	lapic_ack(&s.apic[0]);
	CU_ASSERT_TRUE(lapics_deliver(&s, &(struct apic_msg){.dest = 0xff, .vector = 0xc1}));
	CU_ASSERT_TRUE(pend(0) && pend(1) && pend(2));
	CU_ASSERT_FALSE(lapics_deliver(&s, &(struct apic_msg){.dest = 35, .vector = 0xd1}));
	teardown();
}

/* Two that meet: one posts; the vcpu's thread lowers its priority, raises it, or takes back a PEND_INTR that was for nothing.
 * PEND_INTR tells in the end. */
#define MEETINGS 4000
enum { LOWERS, RAISES, TAKES_BACK, MEETING_KINDS };
static struct {
	_Atomic unsigned round, done;
} meet;

/* Both are to arrive at once, but a host that is busy has one CPU for them. */
static void wait_until(const _Atomic unsigned *n, unsigned is)
{
	for (unsigned k = 0; atomic_load(n) != is; k++) {
		if (k < 2000)
			__builtin_ia32_pause();
		else
			sched_yield();
	}
}

static void *poster(void *arg)
{
	for (unsigned r = 1; r <= MEETINGS; r++) {
		wait_until(&meet.round, r);
		for (volatile unsigned k = r % 31; k; k--)
			;
		lapics_deliver(&s, &(struct apic_msg){.dest = 0, .vector = 0x41});
		atomic_store(&meet.done, r);
	}
	return NULL;
}

static void meeting(unsigned kind, unsigned r)
{
	lapic_set_tpr(&s.apic[0], kind == LOWERS ? 0xf0 : 0);
	if (kind == TAKES_BACK)
		atomic_fetch_or(&v[0]->pending, PEND_INTR);
	atomic_store(&meet.round, r);
	for (volatile unsigned k = r % 37; k; k--)
		;
	if (kind == TAKES_BACK)
		lapic_update(&s.apic[0]);
	else
		lapic_set_tpr(&s.apic[0], kind == LOWERS ? 0 : 0xf0);
	wait_until(&meet.done, r);
}

static void test_meeting(void)
{
	unsigned silent = 0, lost = 0;
	pthread_t t;

	setup();
	atomic_store(&meet.round, 0);
	atomic_store(&meet.done, 0);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&t, NULL, poster, NULL), 0);
	for (unsigned r = 1; r <= MEETINGS; r++) {
		unsigned kind = r % MEETING_KINDS;
		meeting(kind, r);
		silent += kind != RAISES && !pend(0);
		lapic_set_tpr(&s.apic[0], 0);
		silent += !pend(0);
		lost += lapic_ack(&s.apic[0]) != 0x41;
		wr(0xb0, 0);
	}
	pthread_join(t, NULL);
	CU_ASSERT_EQUAL(silent, 0);
	CU_ASSERT_EQUAL(lost, 0);
	CU_ASSERT_FALSE(pend(0));
	teardown();
}

static void test_start_up(void)
{
	setup();
	lapic_mmio_write(&s.apic[1], 0x80, 0x20);
	wr(0x310, 1u << 24), wr(0x300, 0x4500);
	CU_ASSERT_EQUAL(starts, 1);
	CU_ASSERT_EQUAL(last_start, -1);
	CU_ASSERT_EQUAL(lapic_mmio_read(&s.apic[1], 0x80), 0x20); /* its own thread resets it */
	lapic_reset(&s.apic[1], true);
	CU_ASSERT_EQUAL(lapic_mmio_read(&s.apic[1], 0x80), 0);
	wr(0x300, 0x8500); /* de-assert does nothing */
	CU_ASSERT_EQUAL(starts, 1);
	wr(0x300, 0x4699);
	CU_ASSERT_EQUAL(last_start, 0x99);
	CU_ASSERT_EQUAL(starts, 2);
	wr(0x300, 0xc4600 | 0x10); /* to all but self */
	CU_ASSERT_EQUAL(starts, 4);
	teardown();
}

static void test_errors(void)
{
	setup();
	wr(0x370, 0xfe);
	wr(0x300, 0x40005); /* vector 5 */
	CU_ASSERT_EQUAL(rd(0x280), 0);
	wr(0x280, 0);
	CU_ASSERT_EQUAL(rd(0x280), 0x20);
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0xfe);
	wr(0xb0, 0);
	rd(0x2f0 + 0x110);
	wr(0x280, 0);
	CU_ASSERT_EQUAL(rd(0x280), 0x80);
	wr(0x280, 0);
	CU_ASSERT_EQUAL(rd(0x280), 0);
	CU_ASSERT_EQUAL(rd(0x24), 0); /* between registers */
	wr(0x30, 0x1234);             /* read-only is no error */
	wr(0x280, 0);
	CU_ASSERT_EQUAL(rd(0x280), 0);
	teardown();
}

static void test_software_disable(void)
{
	setup();
	wr(0x320, 0x30), wr(0x360, 0x400);
	send(0x88, false);
	wr(0xf0, 0xff);
	CU_ASSERT_EQUAL(rd(0x320), 0x10030);
	CU_ASSERT_FALSE(pend(0));
	wr(0x320, 0x30);
	CU_ASSERT_EQUAL(rd(0x320), 0x10030); /* stays masked */
	wr(0xf0, 0x1ff);
	CU_ASSERT_TRUE(pend(0)); /* what was accepted is still there */
	teardown();
}

static void test_extint(void)
{
	setup();
	extint_vector = 0x20;
	lapics_extint(&s, true);
	CU_ASSERT_TRUE(pend(0)); /* virtual wire on the boot processor */
	CU_ASSERT_FALSE(pend(1));
	send(0x99, false); /* the APIC's own vectors first */
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x99);
	CU_ASSERT_TRUE(pend(0));
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x20);
	CU_ASSERT_FALSE(pend(0));
	wr(0x350, 0x10700);
	lapics_extint(&s, true);
	CU_ASSERT_FALSE(pend(0));
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[0], 0x1b, 0xfee00000), 0); /* off: the 8259 has the CPU */
	CU_ASSERT_TRUE(pend(0));
	teardown();
}

static void test_x2apic(void)
{
	uint64_t val;

	setup();
	CU_ASSERT_EQUAL(lapic_rdmsr(&s.apic[1], 0x802, &val), -1);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x1b, 0xfee00400), -1);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x1b, 0xfee00c01), -1);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x1b, 0xfee00c00), 0);
	CU_ASSERT_EQUAL(lapic_rdmsr(&s.apic[1], 0x802, &val), 0);
	CU_ASSERT_EQUAL(val, 1);
	CU_ASSERT_EQUAL(lapic_rdmsr(&s.apic[1], 0x80d, &val), 0);
	CU_ASSERT_EQUAL(val, 2);
	CU_ASSERT_EQUAL(lapic_rdmsr(&s.apic[1], 0x80e, &val), -1); /* no DFR */
	CU_ASSERT_EQUAL(lapic_rdmsr(&s.apic[1], 0x831, &val), -1); /* no upper half */
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x802, 7), -1);    /* read-only */
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x80b, 1), -1);    /* EOI takes 0 only */
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x80b, 0), 0);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x808, 0x100), -1);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x808, 1ull << 32), -1);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x832, 0x80000), -1);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x83f, 0x77), 0); /* self IPI */
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[1]), 0x77);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x830, 0x78), 0); /* to APIC 0 */
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x78);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x830, 0xffffffff00000084ull), 0);
	CU_ASSERT_TRUE(pend(0) && pend(1) && pend(2));
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x8ff, 0), -1);
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x1b, 0xfee00800), -1); /* not straight back */
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x1b, 0xfee00000), 0);
	CU_ASSERT_FALSE(pend(1));
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[1], 0x1b, 0xfee00800), 0);
	CU_ASSERT_EQUAL(lapic_mmio_read(&s.apic[1], 0x20), 1u << 24);
	teardown();
}

static void test_oneshot(void)
{
	setup();
	wr(0x320, 0x31);
	wr(0x3e0, 0x3); /* divide by 16 */
	wr(0x380, 1000);
	CU_ASSERT_EQUAL(rd(0x390), 1000);
	fake_advance(&f, 8000);
	CU_ASSERT_EQUAL(rd(0x390), 500);
	CU_ASSERT_FALSE(pend(0));
	fake_advance(&f, 8000);
	CU_ASSERT_EQUAL(rd(0x390), 0);
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x31);
	wr(0xb0, 0);
	fake_advance(&f, 1000000);
	CU_ASSERT_FALSE(pend(0));
	wr(0x3e0, 0xb); /* divide by 1 */
	wr(0x380, 1000);
	wr(0x380, 0); /* stopped */
	fake_advance(&f, 2000);
	CU_ASSERT_FALSE(pend(0));
	teardown();
}

static void test_divisors(void)
{
	static const uint8_t cfg[] = {0xb, 0, 1, 2, 3, 8, 9, 10};

	setup();
	for (unsigned i = 0; i < sizeof(cfg); i++) {
		wr(0x3e0, cfg[i]);
		CU_ASSERT_EQUAL(s.apic[0].shift, i);
	}
	teardown();
}

static void test_periodic(void)
{
	unsigned n = 0;

	setup();
	wr(0x320, 0x20032);
	wr(0x3e0, 0xb);
	wr(0x380, 1000000);
	for (unsigned i = 0; i < 1000; i++) {
		fake_advance(&f, 100000);
		if (lapic_ack(&s.apic[0]) == 0x32) {
			n++;
			wr(0xb0, 0);
		}
	}
	CU_ASSERT_EQUAL(n, 100);
	f.now += 10500000; /* served ten periods late: one interrupt, and in step again */
	timerq_run(&f.q, f.now);
	CU_ASSERT_EQUAL(timerq_next(&f.q) - f.now, 500000);
	wr(0x320, 0x30032);
	fake_advance(&f, 5000000);
	teardown();
}

static void test_deadline(void)
{
	uint64_t tsc, val;

	setup();
	v[0]->tsc_offset = 0 - 123456789ull;
	CU_ASSERT_EQUAL(lapic_wrmsr(&s.apic[0], 0x6e0, 5), 0); /* ignored in the other modes */
	CU_ASSERT_EQUAL(lapic_rdmsr(&s.apic[0], 0x6e0, &val), 0);
	CU_ASSERT_EQUAL(val, 0);
	wr(0x320, 0x40033);
	tsc = hclock_tsc(&f.clock) + v[0]->tsc_offset;
	lapic_wrmsr(&s.apic[0], 0x6e0, tsc + TSC_HZ / 1000);
	lapic_rdmsr(&s.apic[0], 0x6e0, &val);
	CU_ASSERT_EQUAL(val, tsc + TSC_HZ / 1000);
	CU_ASSERT_EQUAL(rd(0x390), 0);
	wr(0x380, 12345); /* the count is not used */
	fake_advance(&f, 999000);
	CU_ASSERT_FALSE(pend(0));
	fake_advance(&f, 1100);
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x33);
	wr(0xb0, 0);
	lapic_rdmsr(&s.apic[0], 0x6e0, &val);
	CU_ASSERT_EQUAL(val, 0);
	lapic_wrmsr(&s.apic[0], 0x6e0, 1); /* in the past: at once */
	CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x33);
	wr(0xb0, 0);
	lapic_wrmsr(&s.apic[0], 0x6e0, UINT64_MAX); /* for ever */
	CU_ASSERT(timerq_next(&f.q) > f.now + 1000000000000000ull);
	lapic_wrmsr(&s.apic[0], 0x6e0, tsc + 2ull * TSC_HZ);
	lapic_wrmsr(&s.apic[0], 0x6e0, 0); /* disarmed */
	fake_advance(&f, 3000000000);
	CU_ASSERT_FALSE(pend(0));
	lapic_wrmsr(&s.apic[0], 0x6e0, tsc + 100ull * TSC_HZ);
	wr(0x320, 0x33); /* a change of mode disarms */
	CU_ASSERT_EQUAL(timerq_next(&f.q), TIMER_NEVER);
	teardown();
}

/* The owner is only told of an earlier deadline; a later one waits for the next look at the queue. */
static void test_arming(void)
{
	uint64_t tsc;

	setup();
	wr(0x320, 0x40033);
	tsc = hclock_tsc(&f.clock);
	f.arms = 0;
	lapic_wrmsr(&s.apic[0], 0x6e0, tsc + 1000000);
	CU_ASSERT_EQUAL(f.arms, 1);
	for (unsigned i = 0; i < 100; i++)
		lapic_wrmsr(&s.apic[0], 0x6e0, tsc + 2000000 + i);
	CU_ASSERT_EQUAL(f.arms, 1);
	CU_ASSERT_EQUAL(timerq_next(&f.q), f.armed);
	CU_ASSERT_EQUAL(f.arms, 2);
	lapic_wrmsr(&s.apic[0], 0x6e0, tsc + 500000);
	CU_ASSERT_EQUAL(f.arms, 3);
	teardown();
}

/* A deadline that passes while it is being set: it fires at once or the timer is near, never far away. */
static void test_deadline_now(void)
{
	unsigned far = 0, lost = 0;

	setup();
	f.clock.manual = NULL;
	hclock_init(&f.clock, TSC_HZ);
	s.apic[0].clock = f.clock;
	wr(0x320, 0x40033);
	for (unsigned i = 0; i < 200000; i++) {
		lapic_wrmsr(&s.apic[0], 0x6e0, hclock_tsc(&f.clock) + i % 600);
		far += s.apic[0].timer.slot >= 0 && s.apic[0].timer.deadline > hclock_now(&f.clock) + 1000000000;
		lost += s.apic[0].timer.slot < 0 && !(rd(0x210) >> 19 & 1);
		CU_ASSERT_EQUAL_FATAL(far + lost, 0);
		if (s.apic[0].timer.slot < 0) {
			CU_ASSERT_EQUAL(lapic_ack(&s.apic[0]), 0x33);
			wr(0xb0, 0);
		}
	}
	teardown();
}

CU_ErrorCode suite_lapic(void)
{
	CU_pSuite u = CU_add_suite("lapic", NULL, NULL);

	CU_add_test(u, "reset", test_reset);
	CU_add_test(u, "priorities", test_priority);
	CU_add_test(u, "TPR", test_tpr);
	CU_add_test(u, "level and EOI broadcast", test_level_eoi);
	CU_add_test(u, "IPIs", test_ipi);
	CU_add_test(u, "logical destinations", test_logical);
	CU_add_test(u, "lowest priority", test_lowest);
	CU_add_test(u, "NMI", test_nmi);
	CU_add_test(u, "x2APIC destinations", test_x2_destinations);
	CU_add_test(u, "a message meets a change of priority", test_meeting);
	CU_add_test(u, "INIT and start-up", test_start_up);
	CU_add_test(u, "error status", test_errors);
	CU_add_test(u, "software disable", test_software_disable);
	CU_add_test(u, "ExtINT", test_extint);
	CU_add_test(u, "x2APIC", test_x2apic);
	CU_add_test(u, "one-shot timer", test_oneshot);
	CU_add_test(u, "divisors", test_divisors);
	CU_add_test(u, "periodic timer", test_periodic);
	CU_add_test(u, "TSC deadline", test_deadline);
	CU_add_test(u, "a TSC deadline that is now", test_deadline_now);
	CU_add_test(u, "arming", test_arming);
	return CU_get_error();
}
