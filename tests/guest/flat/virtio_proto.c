/*
 * The guest of tests/device/check.sh: orders the disk there to misbehave, one part a run ("part=NAME" on the command line),
 * and says what a guest sees of it.  With any other disk it has nothing to do.
 * Invariant: what has to outlive a restart is in struct life, in RAM that no image is loaded to.
 */
#include "vio.h"

/* Orders, tests/device/ramdisk.h. */
enum { HOLD = 0x8000, RELEASE, LATE_RESET, SLEEP, RESIZE, CALL_ALL, DIE, BAD_FRAME, BAD_RANGE, BAD_CONFIG, BAD_RESET };
struct life {
	uint64_t magic;
	unsigned failures;
};
#define LIFE  ((volatile struct life *)0x3000000ul)
#define AREA  ((uint8_t *)0x2000000ul)
#define MAGIC 0x70726f746f746c66ull

enum { V_Q0 = 0x50, V_Q1, V_CONFIG };

static struct vio disk[2];
static unsigned count[256];

static bool on_interrupt(struct regs *r)
{
	if (r->vec < 32)
		return false;
	count[r->vec]++;
	V32(0xfee000b0ul) = 0;
	return true;
}

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
	vio_wait(20000);
	cli();
}

static unsigned status(const struct vio *v)
{
	return V8(v->common + VC_STATUS);
}

static int order(struct vio *v, uint32_t what, uint64_t arg)
{
	return vio_io(v, what, arg, NULL, 0);
}

/* ---- two queues, each with a vector; done in another order than begun ---- */

static struct vring second;

static void queues(void)
{
	struct vio *v = &disk[0], other;
	unsigned order_ok = 0;

	vio_reset(v);
	vio_negotiate(v, VF_V1);
	memset(&second, 0, sizeof second);
	memset((void *)v->r, 0, sizeof *v->r);
	vio_queue(v, 0, VIO_MAX, (word)v->r->desc, (word)&v->r->avail, (word)&v->r->used);
	vio_queue(v, 1, VIO_MAX, (word)second.desc, (word)&second.avail, (word)&second.used);
	other = *v;
	other.r = &second;
	other.bell = V16(v->common + VC_Q_NOTIFY_OFF) * v->notify_step;
	for (unsigned i = 0; i < 3; i++)
		vio_vector(v, i, V_Q0 + i, false);
	V16(v->common + VC_CONFIG_VECTOR) = 2;
	for (unsigned q = 0; q < 2; q++) {
		V16(v->common + VC_Q_SEL) = (uint16_t)q;
		V16(v->common + VC_Q_VECTOR) = (uint16_t)q;
	}
	vio_msix(v, true);
	V8(v->common + VC_STATUS) = VS_RUNS;
	v->seen = other.seen = 0;
	memset(count, 0, sizeof count);
	check("queues: the second works", other.bell && vio_io(&other, VB_IN, 0, AREA, 512) == 0, "status %#x",
	      status(v));
	check("queues: its own vector", came(V_Q1, 1) && !count[V_Q0], "%u and %u", count[V_Q0], count[V_Q1]);
	check("queues: the first", vio_io(v, VB_IN, 0, AREA, 512) == 0 && came(V_Q0, 1) && count[V_Q1] == 1,
	      "%u and %u", count[V_Q0], count[V_Q1]);
	order(v, HOLD, 0);
	for (unsigned i = 1; i < 9; i++)
		vio_request(v, i, VB_IN, 8 * i, AREA + 4096 * i, 4096);
	vio_kick(v);
	settle();
	check("queues: what is held is not done", v->r->used.idx == v->seen, "used %u", v->r->used.idx);
	check("queues: let go", order(&other, RELEASE, 0) == 0 && vio_done(v, 8), "used %u", v->r->used.idx);
	for (unsigned i = 0; i < 8; i++)
		order_ok += v->r->used.ring[v->seen - 8 + i].id == 3 * (8 - i) && v->status[8 - i] == 0;
	check("queues: done the other way round", order_ok == 8, "%u of 8", order_ok);
	vio_msix(v, false);
}

/* ---- resets that take their time ---- */

/* mov eax, @n; ret */
static void put_code(uint8_t *p, uint32_t n)
{
	p[0] = 0xb8;
	memcpy(p + 1, &n, 4);
	p[5] = 0xc3;
}

static uint32_t run(const uint8_t *p)
{
	uint32_t (*volatile fn)(void) = (uint32_t(*)(void))(word)p;

	return fn();
}

/* Reads are held, one of them into code that has run; the next reset takes @ms and does them first. */
static void hold(struct vio *v, unsigned ms)
{
	put_code(AREA, 7);
	vio_io(v, VB_OUT, 0, AREA, 4096);
	put_code(AREA, 5);
	run(AREA);
	order(v, LATE_RESET, ms);
	order(v, HOLD, 0);
	for (unsigned i = 0; i < 8; i++)
		vio_request(v, i, VB_IN, 8 * i, AREA + 4096 * i, 4096);
	vio_kick(v);
}

static void reset(void)
{
	struct vio *v = &disk[0];

	hold(v, 200);
	vio_wait(1000);
	V8(v->common + VC_STATUS) = 0;
	check("reset: not at once", status(v) == VS_RUNS, "status %#x", status(v));
	vio_wait(50000);
	check("reset: not while requests are in flight", status(v) == VS_RUNS && run(AREA) == 5, "status %#x",
	      status(v));
	V8(v->common + VC_STATUS) = VS_ACK; /* and nothing counts meanwhile */
	vio_kick(v);
	check("reset: the other disk works", vio_works(&disk[1], 1), "status %#x", status(&disk[1]));
	check("reset: done", VIO_UNTIL(!status(v)), "status %#x", status(v));
	check("reset: what was in flight was done before", v->status[0] == 0 && v->status[7] == 0, "status bytes %x %x",
	      v->status[0], v->status[7]);
	check("reset: code that it overwrote is the new one", run(AREA) == 7, "%u", run(AREA));
	memset(AREA, 0x99, 8 * 4096);
	settle();
	check("reset: nothing comes after", AREA[0] == 0x99 && AREA[7 * 4096 + 4095] == 0x99, "%x", AREA[0]);
	check("reset: the disk works again", vio_open(v, ~0ull) && vio_works(v, 2), "status %#x", status(v));
	hold(v, 200);
	uint32_t t0 = inl(0x608);
	V16(vio_cfg(v->slot, 4)) = 2;
	__asm__ volatile("nop" ::: "memory");
	uint32_t ticks = (inl(0x608) - t0) & 0xffffff;
	check("bus mastering off: the guest waits", ticks > 100 * 3579 && !status(v), "%u ticks, status %#x", ticks,
	      status(v));
	check("bus mastering off: done before, and the code is the new one", v->status[7] == 0 && run(AREA) == 7, "%u",
	      run(AREA));
	V16(vio_cfg(v->slot, 4)) = 6;
	check("bus mastering on: the disk works again", vio_open(v, ~0ull) && vio_works(v, 3), "status %#x", status(v));
}

/* The machine restarts, the disk is not done yet: the next life begins when it is. */
static void restart(void)
{
	if (LIFE->magic == MAGIC) {
		LIFE->magic = 0;
		check("restart: what was in flight was done before", AREA[4096] == 0x33, "%x", AREA[4096]);
		memset(AREA, 0x99, 8 * 4096);
		vio_wait(300000);
		check("restart: nothing comes after", AREA[0] == 0x99 && AREA[7 * 4096 + 4095] == 0x99, "%x", AREA[0]);
		check("restart: no failure before", !LIFE->failures, "%u", LIFE->failures);
		return;
	}
	memset(AREA, 0x33, 8 * 4096);
	for (unsigned i = 0; i < 8; i++)
		vio_io(&disk[0], VB_OUT, 8 * i, AREA, 4096);
	memset(AREA, 0x44, 8 * 4096);
	hold(&disk[0], 200);
	vio_wait(1000);
	LIFE->failures = rt_failures();
	LIFE->magic = MAGIC;
	outb(0xcf9, 6);
	for (;;)
		__asm__ volatile("hlt");
}

/* ---- news from the device ---- */

static void config(void)
{
	struct vio *v = &disk[0];
	unsigned gen;

	vio_vector(v, 0, V_CONFIG, false);
	V16(v->common + VC_CONFIG_VECTOR) = 0;
	vio_msix(v, true);
	memset(count, 0, sizeof count);
	gen = V8(v->common + VC_GENERATION);
	check("config: the disk grows", order(v, RESIZE, 12345) == 0 && came(V_CONFIG, 1), "%u", count[V_CONFIG]);
	check("config: its size is told", vio_sectors(v) == 12345, "%u", (unsigned)vio_sectors(v));
	check("config: another generation", V8(v->common + VC_GENERATION) != gen, "%u", gen);
	vio_msix(v, false);
	uint8_t isr = V8(v->isr);
	check("config: in the ISR as well", (isr & 2) && !V8(v->isr), "%#x", isr);
	check("config: it works", vio_works(v, 1), "status %#x", status(v));
}

/* Interrupts for queues that are not there, and for one that has nothing. */
static void calls(void)
{
	struct vio *v = &disk[0];

	vio_vector(v, 0, V_Q0, false);
	V16(v->common + VC_Q_SEL) = 0;
	V16(v->common + VC_Q_VECTOR) = 0;
	vio_msix(v, true);
	memset(count, 0, sizeof count);
	check("calls: the guest hears of its queue", order(v, CALL_ALL, 0) == 0 && came(V_Q0, 1), "%u", count[V_Q0]);
	check("calls: it works", vio_works(v, 1) && vio_works(&disk[1], 1), "status %#x", status(v));
	vio_msix(v, false);
}

/* It talks nonsense to the vcpu: the guest finds it in need of a reset, for good; the other one works. */
static void nonsense(uint32_t what)
{
	struct vio *v = &disk[0];

	vio_request(v, 0, what, 0, NULL, 0);
	vio_kick(v);
	check("it needs a reset", VIO_UNTIL(status(v) & VS_NEEDS_RESET), "status %#x", status(v));
	check("the other one works", vio_works(&disk[1], 1), "status %#x", status(&disk[1]));
	check("it can be reset", vio_reset(v), "status %#x", status(v));
	vio_start(v, v->r, VIO_MAX, ~0ull);
	check("and needs a reset again", VIO_UNTIL(status(v) & VS_NEEDS_RESET), "status %#x", status(v));
	vio_kick(v);
	check("the other one still works", vio_works(&disk[1], 2), "status %#x", status(&disk[1]));
}

static void badframe(void)
{
	nonsense(BAD_FRAME);
}
static void badrange(void)
{
	nonsense(BAD_RANGE);
}
static void badconfig(void)
{
	nonsense(BAD_CONFIG);
}
static void badreset(void)
{
	nonsense(BAD_RESET);
}

/* The machine goes with it: nothing to be seen from here. */
static void die(void)
{
	order(&disk[0], DIE, 0);
	check("the machine ends with the device", false, "it goes on");
}

static void work(void)
{
	print("# at work\n");
	for (uint32_t i = 0; vio_works(&disk[0], i) && vio_works(&disk[1], i); i++)
		;
	check("the machine ends with the device", false, "it goes on");
}

static const struct {
	const char *name;
	void (*fn)(void);
} parts[] = {
	{"queues", queues},     {"reset", reset},       {"restart", restart},   {"config", config},
	{"calls", calls},       {"badframe", badframe}, {"badrange", badrange}, {"badconfig", badconfig},
	{"badreset", badreset}, {"die", die},           {"work", work},
};

/* What stands behind "part=" on the command line (Multiboot 3.3). */
static const char *wanted(void)
{
	const char *c = V32((word)rt_boot_info) & 4 ? (const char *)(word)V32((word)rt_boot_info + 16) : "";

	for (; *c; c++)
		if (!memcmp(c, "part=", 5))
			return c + 5;
	return "";
}

void flat_main(void)
{
	const char *part = wanted();

	V32(0xfee000f0ul) = 0x1ff;
	rt_hook = on_interrupt;
	if (vio_find(disk, 2) < 2 || !vio_open(&disk[0], ~0ull) || !vio_open(&disk[1], ~0ull) ||
	    !vio_is_test(&disk[0])) {
		skip("virtio_proto", "no disks of tests/device");
		return;
	}
	for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		unsigned n = 0;
		while (parts[i].name[n] && parts[i].name[n] == part[n])
			n++;
		if (!parts[i].name[n] && (part[n] == ' ' || !part[n]))
			parts[i].fn();
	}
}
