/*
 * The virtio transport, with two disks: negotiation as the driver sees it, INTx, MSI-X and its masks, event indices,
 * resets with requests in flight, bus mastering, a restart of the machine in the middle of reads, and what a doorbell costs.
 * Invariant: what has to outlive the restart is in struct life, in RAM that no image is loaded to.
 */
#include "vio.h"

struct life {
	uint64_t magic;
	unsigned stage, failures;
};
#define LIFE  ((volatile struct life *)0x3000000ul)
#define AREA  ((uint8_t *)0x2000000ul) /* where reads land */
#define MAGIC 0x7669727469666c74ull
#define BIG   65536u
#define MANY  32u

enum { V_QUEUE = 0x50, V_CONFIG, V_INTX, V_TIMER = 0x80 };

static struct vio disk[2];
static unsigned count[256];
static uint8_t last_isr;
static struct vio *intx_of; /* whose ISR the handler of INTx reads */

static bool on_interrupt(struct regs *r)
{
	if (r->vec < 32)
		return false;
	count[r->vec]++;
	if (r->vec == V_INTX && intx_of)
		last_isr |= V8(intx_of->isr);
	V32(0xfee000b0ul) = 0;
	return true;
}

/* Interrupts on until @vec has come @n times in all. */
static bool came(unsigned vec, unsigned n)
{
	bool ok;

	sti();
	ok = VIO_UNTIL(*(volatile unsigned *)&count[vec] >= n);
	cli();
	return ok;
}

static void settle(void)
{
	sti();
	vio_wait(2000);
	cli();
}

static void apic_on(void)
{
	V32(0xfee000f0ul) = 0x1ff;
	rt_hook = on_interrupt;
}

static void gsi(unsigned n, uint32_t low)
{
	V32(0xfec00000ul) = 0x11 + 2 * n;
	V32(0xfec00010ul) = V32(0xfee00020ul) & 0xff000000;
	V32(0xfec00000ul) = 0x10 + 2 * n;
	V32(0xfec00010ul) = low;
}

/* ---- the start ---- */

static void negotiation(struct vio *v)
{
	uint64_t all;

	check("reset", vio_reset(v), "status %#x", V8(v->common + VC_STATUS));
	all = vio_offered(v);
	check("offers version 1, indirect descriptors, event indices",
	      (all & (VF_V1 | VF_INDIRECT | VF_EVENT_IDX)) == (VF_V1 | VF_INDIRECT | VF_EVENT_IDX), "%#lx", (word)all);
	check("refuses a driver without version 1", !vio_negotiate(v, all & ~VF_V1), "status %#x",
	      V8(v->common + VC_STATUS));
	check("refuses what it does not offer", !vio_negotiate(v, VF_V1 | 1ull << 50), "status %#x",
	      V8(v->common + VC_STATUS));
	V8(v->common + VC_STATUS) = VS_RUNS & ~VS_FEATURES_OK;
	check("does not run without features", !(V8(v->common + VC_STATUS) & VS_DRIVER_OK), "status %#x",
	      V8(v->common + VC_STATUS));
	vio_kick(v);
	check("opens", vio_open(v, ~0ull), "status %#x", V8(v->common + VC_STATUS));
	check("has a capacity", vio_sectors(v) >= 2048, "%llu sectors", (unsigned long long)vio_sectors(v));
	check("works", vio_works(v, 1), "status %#x", V8(v->common + VC_STATUS));
	vio_reset(v);
	check("opens without rings' features", vio_open(v, 0), "status %#x", V8(v->common + VC_STATUS));
	check("works without rings' features", vio_works(v, 2), "status %#x", V8(v->common + VC_STATUS));
}

/* Unbind and bind, many times. */
static void rebind(struct vio *v)
{
	struct batch b = {.name = "reset and start again"};

	for (unsigned i = 0; i < 500; i++)
		batch_case(&b, vio_open(v, i & 1 ? ~0ull : 0) && vio_works(v, i), "turn %u: status %#x", i,
			   V8(v->common + VC_STATUS));
	batch_end(&b);
}

/* ---- interrupts ---- */

static void intx(struct vio *v)
{
	unsigned pin = 16 + (v->slot & 3);

	vio_open(v, 0);
	memset(count, 0, sizeof count);
	intx_of = v;
	last_isr = 0;
	gsi(pin, 0x8000 | V_INTX);
	for (unsigned i = 1; i <= 100; i++) {
		vio_request(v, 0, VB_IN, i, AREA, 512);
		vio_kick(v);
		if (!came(V_INTX, i))
			break;
		v->seen++;
	}
	settle();
	check("INTx: one interrupt a completion", count[V_INTX] == 100, "%u of 100", count[V_INTX]);
	check("INTx: the ISR says queue", last_isr == 1, "%#x", last_isr);
	check("INTx: the ISR is empty once read", V8(v->isr) == 0, "%#x", V8(v->isr));
	V16(vio_cfg(v->slot, 4)) = 0x406; /* INTx disable */
	vio_io(v, VB_IN, 0, AREA, 512);
	settle();
	check("INTx: disabled", count[V_INTX] == 100 && (V16(vio_cfg(v->slot, 6)) & 8), "%u interrupts, status %#x",
	      count[V_INTX], V16(vio_cfg(v->slot, 6)));
	V16(vio_cfg(v->slot, 4)) = 6;
	check("INTx: enabled again, the level is still there", came(V_INTX, 101), "%u interrupts", count[V_INTX]);
	v->r->avail.flags = 1;
	vio_io(v, VB_IN, 0, AREA, 512);
	settle();
	check("INTx: not when the driver does not want it", count[V_INTX] == 101, "%u interrupts", count[V_INTX]);
	vio_desc(v, 0, 0, 0, 0, 0); /* a buffer of no bytes */
	vio_avail(v, 0);
	vio_kick(v);
	check("INTx: a broken ring changes the configuration", came(V_INTX, 102) && (last_isr & 2), "ISR %#x",
	      last_isr);
	gsi(pin, 0x10000);
	intx_of = NULL;
}

/* Opens with MSI-X on: vector 0 for the queue, 1 for the configuration. */
static bool msix_open(struct vio *v, uint64_t features)
{
	bool ok = vio_open(v, features);

	vio_vector(v, 0, V_QUEUE, false);
	vio_vector(v, 1, V_CONFIG, false);
	V16(v->common + VC_Q_SEL) = 0;
	V16(v->common + VC_Q_VECTOR) = 0;
	V16(v->common + VC_CONFIG_VECTOR) = 1;
	vio_msix(v, true);
	memset(count, 0, sizeof count);
	return ok && V16(v->common + VC_Q_VECTOR) == 0 && V16(v->common + VC_CONFIG_VECTOR) == 1;
}

static void msix(struct vio *v)
{
	check("MSI-X: as many vectors as queues, and one",
	      (V16(vio_cfg(v->slot, v->msix_cap + 2)) & 0x7ff) == v->nqueues, "%#x",
	      V16(vio_cfg(v->slot, v->msix_cap + 2)));
	check("MSI-X: vectors are taken", msix_open(v, 0), "vectors %x %x", V16(v->common + VC_Q_VECTOR),
	      V16(v->common + VC_CONFIG_VECTOR));
	for (unsigned i = 1; i <= 100; i++) {
		vio_request(v, 0, VB_IN, i, AREA, 512);
		vio_kick(v);
		if (!came(V_QUEUE, i))
			break;
		v->seen++;
	}
	settle();
	check("MSI-X: one message a completion", count[V_QUEUE] == 100 && !count[V_CONFIG], "%u and %u", count[V_QUEUE],
	      count[V_CONFIG]);
	vio_vector(v, 0, V_QUEUE, true);
	vio_io(v, VB_IN, 0, AREA, 512);
	settle();
	check("MSI-X: masked, it is pending", count[V_QUEUE] == 100 && (V32(v->pba) & 3) == 1, "%u, pending %#x",
	      count[V_QUEUE], V32(v->pba));
	V32(v->msix + 12) = 0;
	check("MSI-X: it comes when the mask goes", came(V_QUEUE, 101) && !V32(v->pba), "%u, pending %#x",
	      count[V_QUEUE], V32(v->pba));
	V16(vio_cfg(v->slot, v->msix_cap + 2)) = 0xc000;
	vio_io(v, VB_IN, 0, AREA, 512);
	settle();
	check("MSI-X: the whole function masked", count[V_QUEUE] == 101, "%u", count[V_QUEUE]);
	vio_msix(v, true);
	check("MSI-X: and not any more", came(V_QUEUE, 102), "%u", count[V_QUEUE]);
	V16(v->common + VC_Q_VECTOR) = 0xffff;
	vio_io(v, VB_IN, 0, AREA, 512);
	settle();
	check("MSI-X: no vector, no message", count[V_QUEUE] == 102, "%u", count[V_QUEUE]);
	V16(v->common + VC_Q_VECTOR) = 1;
	vio_io(v, VB_IN, 0, AREA, 512);
	check("MSI-X: another vector", came(V_CONFIG, 1), "%u", count[V_CONFIG]);
	vio_desc(v, 0, 0, 0, 0, 0);
	vio_avail(v, 0);
	vio_kick(v);
	check("MSI-X: a broken ring is a message for the configuration", came(V_CONFIG, 2), "%u", count[V_CONFIG]);
	vio_msix(v, false);
}

/* With a timer that fires all the time: no interrupt gets lost among the timer's, whether the CPU runs or sleeps. */
static void among_others(struct vio *v)
{
	unsigned i;

	msix_open(v, 0);
	V32(0xfee003e0ul) = 0xb; /* divide by one */
	V32(0xfee00320ul) = 0x20000 | V_TIMER;
	V32(0xfee00380ul) = 30000; /* ns */
	for (i = 1; i <= 2000; i++) {
		uint64_t t0 = rdtsc();
		vio_request(v, 0, VB_IN, i % 64, AREA, 512);
		vio_kick(v);
		while (count[V_QUEUE] < i && rdtsc() - t0 < VIO_LONG)
			if (i & 1)
				__asm__ volatile("sti; hlt; cli" ::: "memory");
			else
				__asm__ volatile("sti; nop; pause; nop; cli" ::: "memory");
		if (count[V_QUEUE] < i)
			break;
		v->seen++;
	}
	V32(0xfee00380ul) = 0;
	V32(0xfee00320ul) = 0x10000;
	settle();
	check("no interrupt is lost among others", i == 2001 && count[V_QUEUE] == 2000 && count[V_TIMER] > 100,
	      "%u of 2000, %u of the timer", count[V_QUEUE], count[V_TIMER]);
	vio_msix(v, false);
}

/* Both disks at once, each with its own vector and many requests. */
static void msix_two(void)
{
	unsigned good = 0;

	for (unsigned d = 0; d < 2; d++) {
		msix_open(&disk[d], VF_EVENT_IDX);
		vio_vector(&disk[d], 0, V_QUEUE + 0x10 * d, false);
		disk[d].r->avail.ring[VIO_MAX] = MANY - 1; /* used_event: tell after the last */
	}
	for (unsigned i = 0; i < MANY; i++)
		for (unsigned d = 0; d < 2; d++)
			vio_request(&disk[d], i, VB_IN, i, AREA + (2 * i + d) * 4096, 4096);
	memset(count, 0, sizeof count);
	vio_kick(&disk[0]);
	vio_kick(&disk[1]);
	check("two disks: both tell", came(V_QUEUE, 1) && came(V_QUEUE + 0x10, 1), "%u and %u", count[V_QUEUE],
	      count[V_QUEUE + 0x10]);
	settle();
	check("two disks: each once", count[V_QUEUE] == 1 && count[V_QUEUE + 0x10] == 1, "%u and %u", count[V_QUEUE],
	      count[V_QUEUE + 0x10]);
	for (unsigned d = 0; d < 2; d++)
		for (unsigned i = 0; i < MANY; i++)
			good += disk[d].r->used.idx == MANY && disk[d].status[i] == 0;
	check("two disks: all requests are done", good == 2 * MANY, "%u of %u", good, 2 * MANY);
	vio_msix(&disk[0], false);
	vio_msix(&disk[1], false);
}

static void event_idx(struct vio *v)
{
	volatile uint16_t *used_event, *avail_event;

	msix_open(v, VF_EVENT_IDX);
	used_event = &v->r->avail.ring[VIO_MAX];
	avail_event = (volatile uint16_t *)&v->r->used.ring[VIO_MAX];
	*used_event = 3; /* after the fourth */
	for (unsigned i = 0; i < 3; i++)
		vio_io(v, VB_IN, i, AREA, 512);
	settle();
	check("event index: quiet before it", count[V_QUEUE] == 0, "%u interrupts", count[V_QUEUE]);
	vio_io(v, VB_IN, 3, AREA, 512);
	check("event index: an interrupt when it is passed", came(V_QUEUE, 1), "%u interrupts", count[V_QUEUE]);
	vio_io(v, VB_IN, 4, AREA, 512);
	settle();
	check("event index: quiet after it", count[V_QUEUE] == 1, "%u interrupts", count[V_QUEUE]);
	check("event index: the device asks for the next doorbell", VIO_UNTIL(*avail_event == v->r->avail.idx),
	      "%u, available %u", *avail_event, v->r->avail.idx);
	bool ok = true;
	for (unsigned i = 0; i < 2100 && ok; i++) { /* once round the 16 bits */
		*used_event = (uint16_t)(v->seen + MANY - 1);
		for (unsigned k = 0; k < MANY; k++)
			vio_request(v, k, VB_GET_ID, 0, AREA, 20);
		vio_kick(v);
		ok = vio_done(v, MANY);
	}
	check("event index: indices wrap", ok && v->r->used.idx == (uint16_t)(5 + 2100 * MANY), "used %u",
	      v->r->used.idx);
	vio_msix(v, false);
}

/* ---- nothing stays in flight ---- */

static void fly(struct vio *v)
{
	for (unsigned i = 0; i < MANY; i++)
		vio_request(v, i, VB_IN, BIG / 512 * (i % 8), AREA + i * BIG, BIG);
	vio_kick(v);
}

/* All that the device might write. */
static void paint(struct vio *v, uint8_t with)
{
	memset((void *)&v->r->used, with, sizeof v->r->used);
	memset((void *)v->status, with, VIO_MAX);
	for (unsigned i = 0; i < MANY; i++)
		for (unsigned k = 0; k < BIG; k += 512)
			AREA[i * BIG + k] = with;
}

static bool painted(struct vio *v, uint8_t with)
{
	const uint8_t *u = (const uint8_t *)&v->r->used;
	bool ok = true;

	for (unsigned k = 0; k < sizeof v->r->used; k++)
		ok &= u[k] == with;
	for (unsigned k = 0; k < VIO_MAX; k++)
		ok &= v->status[k] == with;
	for (unsigned i = 0; i < MANY; i++)
		for (unsigned k = 0; k < BIG; k += 512)
			ok &= AREA[i * BIG + k] == with;
	return ok;
}

static void reset_in_flight(struct vio *v)
{
	struct batch b = {.name = "a reset leaves nothing in flight"};
	struct batch m = {.name = "nor does bus mastering off"};

	for (unsigned i = 0; i < 40; i++) {
		bool ok = vio_open(v, i & 1 ? ~0ull : 0);
		fly(v);
		if (i & 2)
			vio_wait(i * 5);
		ok = ok && vio_reset(v);
		paint(v, 0xa5);
		vio_wait(3000);
		batch_case(&b, ok && painted(v, 0xa5), "turn %u", i);
	}
	batch_end(&b);
	for (unsigned i = 0; i < 40; i++) {
		bool ok = vio_open(v, ~0ull);
		fly(v);
		if (i & 2)
			vio_wait(i * 5);
		V16(vio_cfg(v->slot, 4)) = 2;
		paint(v, 0x5a);
		vio_wait(3000);
		batch_case(&m, ok && painted(v, 0x5a) && !V8(v->common + VC_STATUS), "turn %u: status %#x", i,
			   V8(v->common + VC_STATUS));
		V16(vio_cfg(v->slot, 4)) = 6;
	}
	batch_end(&m);
	check("works again", vio_open(v, ~0ull) && vio_works(v, 3), "status %#x", V8(v->common + VC_STATUS));
}

static void restart(void)
{
	vio_open(&disk[0], ~0ull);
	vio_open(&disk[1], ~0ull);
	LIFE->magic = MAGIC;
	LIFE->stage = 1;
	LIFE->failures = rt_failures();
	for (unsigned k = 0; k < MANY * BIG; k += 512)
		AREA[k] = 0x11;
	fly(&disk[0]);
	fly(&disk[1]);
	outb(0xcf9, 6);
	for (;;)
		__asm__ volatile("hlt");
}

static void after_restart(void)
{
	bool ok = true;

	for (unsigned d = 0; d < 2; d++)
		check("after a restart the disk is as new", !V8(disk[d].common + VC_STATUS), "status %#x",
		      V8(disk[d].common + VC_STATUS));
	for (unsigned k = 0; k < MANY * BIG; k += 512)
		AREA[k] = 0x22;
	vio_wait(100000);
	for (unsigned k = 0; k < MANY * BIG; k += 512)
		ok &= AREA[k] == 0x22;
	check("reads of the last life do not land in this one", ok, "memory has changed");
	check("the disk works in the next life", vio_open(&disk[0], ~0ull) && vio_works(&disk[0], 4), "status %#x",
	      V8(disk[0].common + VC_STATUS));
	check("no failure in the life before", LIFE->failures == 0, "%u", LIFE->failures);
}

/* ---- what it costs ---- */

#define RINGS 2000u

static void sort(uint32_t *a, unsigned n)
{
	for (unsigned gap = n / 2; gap; gap /= 2)
		for (unsigned i = gap; i < n; i++)
			for (unsigned k = i; k >= gap && a[k - gap] > a[k]; k -= gap) {
				uint32_t t = a[k];
				a[k] = a[k - gap];
				a[k - gap] = t;
			}
}

/* TSC ticks of a millisecond, as the hypervisor tells. */
static uint32_t tick_rate(void)
{
	uint32_t khz, b, c, d;

	cpuid(0x40000010, 0, &khz, &b, &c, &d);
	return khz ? khz : 1;
}

static void report(const char *what, uint32_t *t, uint64_t khz)
{
	sort(t, RINGS);
	print("# %s: median %u cycles, %u ns; 90 %% below %u ns\n", what, t[RINGS / 2],
	      (unsigned)(t[RINGS / 2] * 1000000ull / khz), (unsigned)(t[RINGS * 9 / 10] * 1000000ull / khz));
}

/* Doorbells while the device is busy, doorbells that wake it, and a register's read to compare with. */
static void costs(struct vio *v)
{
	static uint32_t t[RINGS];
	uint64_t khz = tick_rate();
	bool busy = true;

	vio_open(v, ~0ull);
	for (unsigned i = 0; i < RINGS; i++) {
		if (i % 50 == 0 && v->r->used.idx == v->r->avail.idx)
			fly(v);
		uint64_t t0 = rdtsc();
		vio_kick(v);
		t[i] = (uint32_t)(rdtsc() - t0);
	}
	busy &= VIO_UNTIL(v->r->used.idx == v->r->avail.idx);
	report("a doorbell, the device is awake", t, khz);
	uint32_t median = (uint32_t)(t[RINGS / 2] * 1000000ull / khz);
	vio_open(v, ~0ull);
	for (unsigned i = 0; i < RINGS; i++) {
		vio_request(v, 0, VB_GET_ID, 0, AREA, 20);
		vio_wait(40);
		uint64_t t0 = rdtsc();
		vio_kick(v);
		t[i] = (uint32_t)(rdtsc() - t0);
		vio_done(v, 1);
	}
	report("a doorbell that wakes the device", t, khz);
	for (unsigned i = 0; i < RINGS; i++) {
		uint64_t t0 = rdtsc();
		vio_io(v, VB_GET_ID, 0, AREA, 20);
		t[i] = (uint32_t)(rdtsc() - t0);
	}
	report("the shortest request, polled for", t, khz);
	for (unsigned i = 0; i < RINGS; i++) {
		uint64_t t0 = rdtsc();
		(void)V8(v->common + VC_STATUS);
		t[i] = (uint32_t)(rdtsc() - t0);
	}
	report("a register's read", t, khz);
	for (unsigned i = 0; i < RINGS; i++) {
		uint64_t t0 = rdtsc();
		t[i] = (uint32_t)(rdtsc() - t0);
	}
	report("nothing", t, khz);
	/* the bar is 1 us; machines that are busy with other things get some room */
	check("doorbells are cheap", busy && median < 5000, "%u ns", median);
}

void flat_main(void)
{
	unsigned n = vio_find(disk, 2);

	if (n < 2) {
		skip("virtio", "no two disks");
		return;
	}
	apic_on();
	if (LIFE->magic == MAGIC && LIFE->stage == 1) {
		LIFE->magic = 0;
		after_restart();
		return;
	}
	negotiation(&disk[0]);
	negotiation(&disk[1]);
	rebind(&disk[0]);
	intx(&disk[0]);
	intx(&disk[1]);
	msix(&disk[0]);
	among_others(&disk[0]);
	msix_two();
	event_idx(&disk[0]);
	reset_in_flight(&disk[0]);
	costs(&disk[0]);
	restart();
}
