/* platform: the whole machine through its public interface. */
#include "vcpu/chipset/platform.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/chipfakes.h"

static struct vm vm;
static struct platform *p;
static struct vcpu *v;
static int offs, resets, exit_status;
static char debug[16];
static unsigned debug_n;

static void on_off(void *ctx)
{
	offs++;
}

static void on_reset(void *ctx)
{
	resets++;
}

static void on_exit_port(void *ctx, int status)
{
	exit_status = status;
}

static void on_debugcon(void *ctx, uint8_t byte)
{
	if (debug_n < sizeof(debug))
		debug[debug_n++] = (char)byte;
}

static void setup(bool debug_exit)
{
	struct platform_config cfg = {.ram_size = 256 << 20,
				      .ncpus = 1,
				      .debug_exit = debug_exit,
				      .com_in = {-1, -1, -1, -1},
				      .com_out = {-1, -1, -1, -1},
				      .tsc_hz = 2000000000,
				      .power_off = on_off,
				      .reset = on_reset,
				      .debug_exit_cb = on_exit_port,
				      .debugcon = on_debugcon};

	offs = resets = exit_status = 0;
	debug_n = 0;
	memset(&vm, 0, sizeof(vm));
	v = fake_vcpu(0);
	v->vm = &vm;
	vm.vcpu[0] = v;
	vm.ncpus = 1;
	p = platform_create(&vm, &cfg);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
}

static void teardown(void)
{
	platform_destroy(p);
	free(v);
}

static uint64_t in(uint16_t port, unsigned size)
{
	return platform_pio_read(p, v, port, size);
}

static void out(uint16_t port, uint64_t val, unsigned size)
{
	platform_pio_write(p, v, port, val, size);
}

#ifdef __SANITIZE_THREAD__
enum { SLOWED = true };
#else
enum { SLOWED = false };
#endif

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static void apic_on(void)
{
	platform_mmio_write(p, v, 0xfee000f0, 0x1ff, 4);
}

static void redirect(unsigned pin, uint32_t low)
{
	platform_mmio_write(p, v, 0xfec00000, 0x10 + 2 * pin, 4);
	platform_mmio_write(p, v, 0xfec00010, low, 4);
}

static void test_pic_path(void)
{
	setup(false);
	out(0x20, 0x11, 1), out(0x21, 0x30, 1), out(0x21, 4, 1), out(0x21, 1, 1);
	out(0x21, 0xef, 1); /* IRQ 4 only */
	out(0x3f9, 2, 1);   /* COM1's transmitter is empty */
	CU_ASSERT(v->pending & PEND_INTR);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x34);
	CU_ASSERT_EQUAL(v->pending & PEND_INTR, 0);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), -1);
	teardown();
}

static void test_ioapic_path(void)
{
	setup(false);
	apic_on();
	redirect(4, 0x44);
	redirect(3, 0x43);
	out(0x3f9, 2, 1);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x44);
	platform_mmio_write(p, v, 0xfee000b0, 0, 4);
	out(0x3e9, 2, 1); /* COM3 shares the line, which is high already: no edge */
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), -1);
	out(0x2f9, 2, 1);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x43);
	teardown();
}

static void test_pit_pin2(void)
{
	uint64_t due;

	setup(false);
	apic_on();
	redirect(0, 0x50);
	redirect(2, 0x52);
	out(0x43, 0x34, 1), out(0x40, 0xa9, 1), out(0x40, 0x04, 1);
	due = platform_next_deadline(p, v); /* before the clock is read: the thread may have to wait in between */
	CU_ASSERT(due <= now() + 1100000);
	platform_ack_intr(p, v);
	platform_mmio_write(p, v, 0xfee000b0, 0, 4);
	platform_run_timers(p, v, now() + 2000000);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x52);
	teardown();
}

static void test_sci(void)
{
	setup(false);
	apic_on();
	redirect(9, 0x8059);
	out(0x602, 0x100, 2);
	platform_power_button(p);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x59);
	out(0x600, 0x100, 2);
	platform_mmio_write(p, v, 0xfee000b0, 0, 4);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), -1);
	platform_power_button(p);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x59);
	platform_mmio_write(p, v, 0xfee000b0, 0, 4); /* not cleared: comes again */
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x59);
	teardown();
}

static void test_external(void)
{
	setup(false);
	apic_on();
	redirect(20, 0x8060);
	platform_set_irq(p, 20, true);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x60);
	platform_set_irq(p, 20, false);
	platform_mmio_write(p, v, 0xfee000b0, 0, 4);
	platform_set_irq(p, 24, true);
	platform_set_irq(p, 1000000, true);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), -1);
	platform_msi(p, 0xfee00000, 0x4061);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x61);
	platform_msi(p, 0xfef00000, 0x4062); /* no MSI address */
	platform_msi(p, 0xfee05000, 0x4062); /* no such APIC */
	platform_mmio_write(p, v, 0xfee000b0, 0, 4);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), -1);
	teardown();
}

static void test_ways_down(void)
{
	setup(false);
	out(0x604, 0x2000 | 5 << 10, 2);
	CU_ASSERT_EQUAL(offs, 1);
	out(0x64, 0xfe, 1);
	CU_ASSERT_EQUAL(resets, 1);
	out(0xcf9, 2, 1), out(0xcf9, 6, 1);
	CU_ASSERT_EQUAL(resets, 2);
	out(0x92, 1, 1);
	CU_ASSERT_EQUAL(resets, 3);
	out(0xcf8, 0x80000604, 4); /* the address register is no reset register */
	CU_ASSERT_EQUAL(resets, 3);
	out(0xf4, 3, 4);
	CU_ASSERT_EQUAL(exit_status, 0);
	CU_ASSERT_EQUAL(in(0xe9, 1), 0xff);
	teardown();
}

static void test_debug(void)
{
	setup(true);
	CU_ASSERT_EQUAL(in(0xe9, 1), 0xe9);
	out(0xe9, 'o', 1), out(0xe9, 'k', 1);
	CU_ASSERT_NSTRING_EQUAL(debug, "ok", 2);
	out(0xf4, 0x10, 4);
	CU_ASSERT_EQUAL(exit_status, 0x21);
	out(0xf4, 0, 1);
	CU_ASSERT_EQUAL(exit_status, 1);
	teardown();
}

static void test_keyboard_controller(void)
{
	setup(false);
	out(0x64, 0xaa, 1);
	CU_ASSERT_EQUAL(in(0x64, 1) & 1, 1);
	CU_ASSERT_EQUAL(in(0x60, 1), 0x55);
	CU_ASSERT_EQUAL(in(0x64, 1) & 1, 0);
	out(0x64, 0x20, 1);
	CU_ASSERT_EQUAL(in(0x60, 1) & 0x20, 0x20);
	out(0x64, 0xa8, 1), out(0x64, 0x20, 1);
	CU_ASSERT_EQUAL(in(0x60, 1) & 0x20, 0x20); /* there is no second port to enable */
	out(0x64, 0xd3, 1), out(0x60, 0x5a, 1);
	CU_ASSERT_NOT_EQUAL(in(0x60, 1), 0x5a);
	out(0x60, 0xff, 1); /* reset the keyboard */
	CU_ASSERT_EQUAL(in(0x60, 1), 0xfa);
	CU_ASSERT_EQUAL(in(0x60, 1), 0xaa);
	CU_ASSERT_EQUAL(in(0x60, 1), 0);
	for (unsigned i = 0; i < 100; i++)
		out(0x60, 0xf2, 1); /* a queue that nobody reads */
	teardown();
}

static void test_empty_space(void)
{
	setup(false);
	CU_ASSERT_EQUAL(in(0x1234, 1), 0xff);
	CU_ASSERT_EQUAL(in(0x1234, 4), 0xffffffff);
	CU_ASSERT_EQUAL(in(0xffff, 4), 0xffffffff);
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xd0000000, 8), UINT64_MAX);
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xfed00000, 4), 0xffffffff); /* no HPET */
	CU_ASSERT_EQUAL(in(0x3f8, 4) >> 24, 0x00);                            /* registers side by side */
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xb0000000, 4), 0x29c08086);
	for (unsigned i = 0; i < 65536; i++)
		if (i != 0x64 && i != 0x92 && i != 0xcf9 && (i < 0x600 || i > 0x60f)) {
			in((uint16_t)i, 1u << i % 3);
			out((uint16_t)i, 0xffffffff, 1u << i % 3);
		}
	teardown();
}

static void test_lapic_page(void)
{
	uint64_t val;

	setup(false);
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xfee00030, 4), 0x50014);
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xfee00032, 1), 0x05);
	CU_ASSERT_EQUAL(platform_apic_wrmsr(p, v, 0x1b, 0xfed00900), 0); /* moved */
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xfee00030, 4), 0xffffffff);
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xfed00030, 4), 0x50014);
	CU_ASSERT_EQUAL(platform_apic_wrmsr(p, v, 0x1b, 0xfee00d00), 0); /* x2APIC: no page */
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xfee00030, 4), 0xffffffff);
	CU_ASSERT_EQUAL(platform_apic_rdmsr(p, v, 0x803, &val), 0);
	CU_ASSERT_EQUAL(val, 0x50014);
	platform_set_tpr(p, v, 0x30);
	CU_ASSERT_EQUAL(platform_get_tpr(p, v), 0x30);
	CU_ASSERT_EQUAL(v->cr8, 3);
	platform_reset(p);
	CU_ASSERT_EQUAL(platform_mmio_read(p, v, 0xfee00080, 4), 0);
	teardown();
}

/* The costs the engine counts on: a generous bound that catches a system call or worse. */
static void test_cost(void)
{
	enum { N = 200000, TOO_LONG = SLOWED ? 100000 : 1000 };
	uint64_t t0, per;

	setup(false);
	apic_on();
	t0 = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (unsigned i = 0; i < N; i++)
		platform_mmio_write(p, v, 0xfee000b0, 0, 4);
	per = (clock_ns(CLOCK_THREAD_CPUTIME_ID) - t0) / N;
	printf("EOI %llu ns, ", (unsigned long long)per);
	CU_ASSERT(per < TOO_LONG);
	platform_mmio_write(p, v, 0xfee00320, 0x40030, 4);
	t0 = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (unsigned i = 0; i < N; i++)
		platform_apic_wrmsr(p, v, 0x6e0, UINT64_MAX / 2 + i);
	per = (clock_ns(CLOCK_THREAD_CPUTIME_ID) - t0) / N;
	printf("TSC deadline %llu ns, ", (unsigned long long)per);
	CU_ASSERT(per < TOO_LONG);
	t0 = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (unsigned i = 0; i < N; i++)
		in(0x608, 4);
	per = (clock_ns(CLOCK_THREAD_CPUTIME_ID) - t0) / N;
	printf("PM timer %llu ns ... ", (unsigned long long)per);
	CU_ASSERT(per < TOO_LONG);
	teardown();
}

/* Any sequence of accesses leaves a machine that still resets to a working state. */
static void test_random(void)
{
	static const uint64_t pages[] = {0xfee00000, 0xfec00000, 0xb0000000, 0xb00f8000, 0xc0000000};
	uint64_t x = 0x9e3779b97f4a7c15ull, val;

	setup(true);
	for (unsigned i = 0; i < 300000; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		unsigned size = 1u << (x >> 60 & 1) << (x >> 61 & 1);
		uint64_t gpa = pages[(x >> 40) % 5] + (x >> 48 & 0xfff);

		switch (x & 7) {
		case 0: in((uint16_t)(x >> 8 & 0x3ff), size); break;
		case 1: out((uint16_t)(x >> 8 & 0x3ff), x >> 20, size); break;
		case 2: out((uint16_t)(0xcf8 + (x >> 8 & 7)), x >> 20, size); break;
		case 3: platform_mmio_read(p, v, gpa, size); break;
		case 4: platform_mmio_write(p, v, gpa, x >> 8, size); break;
		case 5: platform_apic_wrmsr(p, v, x >> 8 & 1 ? 0x6e0 : 0x800 + (x >> 9 & 0x3f), x >> 20); break;
		case 6: platform_ack_intr(p, v); break;
		default: platform_set_irq(p, x >> 8 & 31, x >> 13 & 1);
		}
		if (i % 1000 == 0)
			platform_run_timers(p, v, now());
		if (i % 50000 == 0)
			platform_apic_wrmsr(p, v, 0x1b, 0xfee00000 | (x & 0xc00));
	}
	for (unsigned i = 0; i < 32; i++)
		platform_set_irq(p, i, false);
	platform_reset(p);
	CU_ASSERT_EQUAL(platform_apic_rdmsr(p, v, 0x1b, &val), 0);
	CU_ASSERT_EQUAL(val, 0xfee00900);
	CU_ASSERT_EQUAL(v->pending & PEND_INTR, 0);
	apic_on();
	redirect(20, 0x8060);
	platform_set_irq(p, 20, true);
	CU_ASSERT_EQUAL(platform_ack_intr(p, v), 0x60);
	teardown();
}

/* ---- several CPUs ---- */
static struct vcpu *cpu[3];
static uint64_t armed[3][VCPU_TIMER_PLATFORM + 1];

static void on_arm(void *ctx, struct vcpu *of, unsigned timer, uint64_t deadline)
{
	armed[of->id][timer] = deadline;
}

static void setup_cpus(void)
{
	struct platform_config cfg = {.ram_size = 256 << 20,
				      .ncpus = 3,
				      .com_in = {-1, -1, -1, -1},
				      .com_out = {-1, -1, -1, -1},
				      .tsc_hz = 2000000000,
				      .arm = on_arm};

	memset(&vm, 0, sizeof(vm));
	memset(armed, 0xff, sizeof armed);
	vm.ncpus = 3;
	for (int i = 0; i < 3; i++) {
		vm.vcpu[i] = cpu[i] = fake_vcpu(i);
		cpu[i]->vm = &vm;
	}
	v = cpu[0];
	p = platform_create(&vm, &cfg);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	for (int i = 0; i < 3; i++)
		platform_mmio_write(p, cpu[i], 0xfee000f0, 0x1ff, 4);
}

static void teardown_cpus(void)
{
	platform_destroy(p);
	for (int i = 0; i < 3; i++)
		free(cpu[i]);
}

static bool only(int i)
{
	bool yes = true;

	for (int k = 0; k < 3; k++)
		yes &= !!(cpu[k]->pending & PEND_INTR) == (k == i);
	return yes;
}

/* A level-triggered line to CPU 2, whose EOI lets it come again; messages to CPU 1; INIT. */
static void test_other_cpus(void)
{
	setup_cpus();
	redirect(20, 0x8060);
	platform_mmio_write(p, v, 0xfec00000, 0x10 + 2 * 20 + 1, 4);
	platform_mmio_write(p, v, 0xfec00010, 2u << 24, 4);
	platform_set_irq(p, 20, true);
	CU_ASSERT_TRUE(only(2));
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL(platform_ack_intr(p, cpu[0]), -1);
		CU_ASSERT_EQUAL(platform_ack_intr(p, cpu[2]), 0x60);
		CU_ASSERT_TRUE(only(-1));
		if (i)
			platform_set_irq(p, 20, false);
		platform_mmio_write(p, cpu[2], 0xfee000b0, 0, 4);
		CU_ASSERT_TRUE(only(i ? -1 : 2));
	}
	platform_msi(p, 0xfee01000, 0x41);
	CU_ASSERT_TRUE(only(1));
	CU_ASSERT_EQUAL(platform_ack_intr(p, cpu[1]), 0x41);
	platform_msi(p, 0xfee01000, 0x400); /* NMI */
	CU_ASSERT_EQUAL(cpu[1]->pending & PEND_NMI, PEND_NMI);
	platform_mmio_write(p, v, 0xfee00310, 1u << 24, 4);
	platform_mmio_write(p, v, 0xfee00300, 0x4500, 4);
	CU_ASSERT_EQUAL(cpu[1]->start, (uint32_t)-1);
	CU_ASSERT_EQUAL(platform_mmio_read(p, cpu[1], 0xfee000f0, 4), 0x1ff);
	platform_apic_init(p, cpu[1]);
	CU_ASSERT_EQUAL(platform_mmio_read(p, cpu[1], 0xfee000f0, 4), 0xff);
	teardown_cpus();
}

/* Where two CPUs take the 8259's interrupts one gets it, and the other finds nothing. */
static void test_two_take_extint(void)
{
	setup_cpus();
	platform_mmio_write(p, cpu[1], 0xfee00350, 0x700, 4);
	out(0x20, 0x11, 1), out(0x21, 0x30, 1), out(0x21, 4, 1), out(0x21, 1, 1);
	out(0x21, 0xef, 1);
	out(0x3f9, 2, 1);
	CU_ASSERT_TRUE((cpu[0]->pending & cpu[1]->pending & PEND_INTR) && !(cpu[2]->pending & PEND_INTR));
	CU_ASSERT_EQUAL(platform_ack_intr(p, cpu[1]), 0x34);
	CU_ASSERT_EQUAL(platform_ack_intr(p, cpu[0]), -1);
	CU_ASSERT_TRUE(only(-1));
	teardown_cpus();
}

/* A local timer is its CPU's; all other timers are CPU 0's. */
static void test_timers_of_cpus(void)
{
	uint64_t soon = now() + 60000000000ull;

	setup_cpus();
	platform_mmio_write(p, cpu[1], 0xfee00320, 0x31, 4);
	platform_mmio_write(p, cpu[1], 0xfee00380, 1000000, 4);
	CU_ASSERT(armed[1][VCPU_TIMER_APIC] < soon && armed[0][VCPU_TIMER_APIC] == UINT64_MAX);
	CU_ASSERT_EQUAL(platform_next_deadline(p, cpu[1]), armed[1][VCPU_TIMER_APIC]);
	CU_ASSERT_EQUAL(platform_next_deadline(p, cpu[2]), UINT64_MAX);
	platform_run_timers(p, cpu[0], soon);
	CU_ASSERT_TRUE(only(-1));
	platform_run_timers(p, cpu[1], soon);
	CU_ASSERT_TRUE(only(1));
	CU_ASSERT_EQUAL(armed[1][VCPU_TIMER_APIC], UINT64_MAX); /* it does not repeat */
	CU_ASSERT_EQUAL(platform_ack_intr(p, cpu[1]), 0x31);
	platform_pio_write(p, cpu[2], 0x43, 0x34, 1); /* the 8254, by whichever CPU */
	platform_pio_write(p, cpu[2], 0x40, 0xa9, 1);
	platform_pio_write(p, cpu[2], 0x40, 0x04, 1);
	CU_ASSERT(armed[0][VCPU_TIMER_PLATFORM] < soon);
	CU_ASSERT_EQUAL(platform_next_deadline(p, cpu[2]), UINT64_MAX);
	CU_ASSERT_EQUAL(platform_next_deadline(p, cpu[0]), armed[0][VCPU_TIMER_PLATFORM]);
	armed[0][VCPU_TIMER_PLATFORM] = UINT64_MAX; /* switched off, as by a pause */
	platform_rearm(p, cpu[0]);
	CU_ASSERT_EQUAL(platform_next_deadline(p, cpu[0]), armed[0][VCPU_TIMER_PLATFORM]);
	teardown_cpus();
}

static void test_bad_config(void)
{
	struct platform_config cfg = {.ncpus = 0};

	memset(&vm, 0, sizeof(vm));
	CU_ASSERT_PTR_NULL(platform_create(&vm, &cfg));
	cfg.ncpus = 1; /* but no vcpu */
	CU_ASSERT_PTR_NULL(platform_create(&vm, &cfg));
	cfg.ncpus = 1000;
	CU_ASSERT_PTR_NULL(platform_create(&vm, &cfg));
}

CU_ErrorCode suite_platform(void)
{
	CU_pSuite s = CU_add_suite("platform", NULL, NULL);

	CU_add_test(s, "8259 path", test_pic_path);
	CU_add_test(s, "IOAPIC path", test_ioapic_path);
	CU_add_test(s, "8254 on pin 2", test_pit_pin2);
	CU_add_test(s, "SCI", test_sci);
	CU_add_test(s, "external lines and MSI", test_external);
	CU_add_test(s, "power-off and reset", test_ways_down);
	CU_add_test(s, "debug devices", test_debug);
	CU_add_test(s, "keyboard controller", test_keyboard_controller);
	CU_add_test(s, "empty space", test_empty_space);
	CU_add_test(s, "local APIC page", test_lapic_page);
	CU_add_test(s, "cost", test_cost);
	CU_add_test(s, "random accesses", test_random);
	CU_add_test(s, "other CPUs", test_other_cpus);
	CU_add_test(s, "the 8259 and two CPUs", test_two_take_extint);
	CU_add_test(s, "whose timer", test_timers_of_cpus);
	CU_add_test(s, "bad configuration", test_bad_config);
	return CU_get_error();
}
