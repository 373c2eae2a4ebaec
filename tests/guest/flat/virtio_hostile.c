/*
 * A driver that breaks every rule there is on one disk, while another disk, that is driven well, must not notice.
 * After each offence the first disk says that it needs a reset (or, where the offence is only a race with it, may have
 * done what was asked), is reset and works again.
 * Invariant: what a case leaves in the rings is wiped by the next start.
 */
#include "vio.h"

#define RAM_END 0x4000000ul /* 64 MiB */
#define RO      0u
#define WR      VD_WRITE

static struct vio bad, good;
static struct vdesc table[1100] __attribute__((aligned(4096)));
static struct vhead head;
static uint8_t buf[65536] __attribute__((aligned(4096)));
static uint32_t turn;

static bool needs_reset(void)
{
	return V8(bad.common + VC_STATUS) & VS_NEEDS_RESET;
}

static bool others_work(void)
{
	return vio_works(&good, ++turn) && V8(good.common + VC_STATUS) == VS_RUNS;
}

/* After a reset it is as good as new. */
static bool recovers(void)
{
	return vio_open(&bad, ~0ull) && vio_works(&bad, ++turn);
}

static void t(unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
	table[i] = (struct vdesc){addr, len, (uint16_t)flags, (uint16_t)next};
}

#define D(...) vio_desc(&bad, __VA_ARGS__)

/* ---- chains: each makes descriptor 0 the head of something ---- */

static void c_loop(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, (word)buf, 16, VD_NEXT, 0);
}
static void c_itself(void)
{
	D(0, (word)&head, 16, VD_NEXT, 0);
}
static void c_next_range(void)
{
	D(0, (word)&head, 16, VD_NEXT, VIO_MAX);
}
static void c_next_far(void)
{
	D(0, (word)&head, 16, VD_NEXT, 0xffff);
}
static void c_empty(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, (word)buf, 0, VD_NEXT | WR, 2);
	D(2, (word)buf, 1, WR, 0);
}
static void c_beyond(void)
{
	D(0, RAM_END, 16, RO, 0);
}
static void c_runs_out(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, RAM_END - 16, 32, WR, 0);
}
static void c_wraps(void)
{
	D(0, ~0ull - 7, 16, RO, 0);
}
static void c_wraps_to_zero(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, 0 - 0x1000ull, 0x2000, WR, 0);
}
static void c_far(void)
{
	D(0, 1ull << 52, 16, RO, 0);
}
static void c_hole(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, 0xc0000000, 512, WR, 0);
}
static void c_own_registers(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, bad.common, 56, WR, 0);
}
static void c_apic(void)
{
	D(0, 0xfee00000, 4096, RO, 0);
}
static void c_ecam(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, VIO_ECAM, 4096, WR, 0);
}
static void c_huge(void)
{
	D(0, 0, 0xffffffff, RO, 0);
}
static void c_many_huge(void)
{
	for (unsigned i = 0; i < VIO_MAX; i++)
		D(i, 0, RAM_END, VD_NEXT | WR, i + 1);
	D(VIO_MAX - 1, 0, RAM_END, WR, 0);
}
static void c_direction(void)
{
	D(0, (word)buf, 512, VD_NEXT | WR, 1);
	D(1, (word)&head, 16, RO, 0);
}
static void c_direction_late(void)
{
	D(0, (word)&head, 16, VD_NEXT, 1);
	D(1, (word)buf, 512, VD_NEXT | WR, 2);
	D(2, (word)buf, 1, VD_NEXT | WR, 3);
	D(3, (word)buf, 1, RO, 0);
}
static void c_no_status(void)
{
	D(0, (word)&head, 16, RO, 0);
}
static void c_no_head(void)
{
	D(0, (word)buf, 512, WR, 0);
}
static void c_short_head(void)
{
	D(0, (word)&head, 15, VD_NEXT, 1);
	D(1, (word)buf, 1, WR, 0);
}

/* indirect tables */
static void i_table(uint64_t at, uint32_t len, unsigned flags)
{
	t(0, (word)&head, 16, VD_NEXT, 1);
	t(1, (word)buf, 1, WR, 0);
	D(0, at, len, VD_INDIRECT | flags, 1);
	D(1, (word)buf, 1, WR, 0);
}
static void i_empty(void)
{
	i_table((word)table, 0, 0);
}
static void i_odd(void)
{
	i_table((word)table, 33, 0);
}
static void i_part(void)
{
	i_table((word)table, 15, 0);
}
static void i_large(void)
{
	i_table((word)table, sizeof table, 0);
}
static void i_larger(void)
{
	i_table((word)table, 0xfffffff0, 0);
}
static void i_next(void)
{
	i_table((word)table, 32, VD_NEXT);
}
static void i_not_ram(void)
{
	i_table(0xfec00000, 32, 0);
}
static void i_runs_out(void)
{
	i_table(RAM_END - 16, 32, 0);
}
static void i_far(void)
{
	i_table(1ull << 63, 32, 0);
}
static void i_aside(void)
{
	i_table((word)table + 8, 32, 0);
}
static void i_nested(void)
{
	i_table((word)table, 32, 0);
	t(1, (word)&table[64], 32, VD_INDIRECT, 0);
	t(64, (word)buf, 1, WR, 0);
}
static void i_itself(void)
{
	i_table((word)table, 32, 0);
	t(0, (word)table, 32, VD_INDIRECT, 0);
}
static void i_leaves(void)
{
	i_table((word)table, 32, 0);
	t(0, (word)&head, 16, VD_NEXT, 2);
}
static void i_loop(void)
{
	i_table((word)table, 32, 0);
	t(1, (word)buf, 1, VD_NEXT | WR, 1);
}
static void i_long(void)
{
	i_table((word)table, 1024 * 16, 0);
	for (unsigned i = 1; i < 1024; i++)
		t(i, (word)buf, 16, VD_NEXT | WR, i + 1); /* and the last leads out */
}

/* ---- rings ---- */

static void r_head_range(void)
{
	c_loop();
	vio_avail(&bad, VIO_MAX);
}
static void r_head_far(void)
{
	vio_avail(&bad, 0xffff);
}
static void r_jump(void)
{
	bad.r->avail.idx = (uint16_t)(bad.r->avail.idx + VIO_MAX + 1);
}
static void r_jump_back(void)
{
	bad.r->avail.idx = (uint16_t)(bad.r->avail.idx - 1);
}
static void r_jump_far(void)
{
	bad.r->avail.idx = (uint16_t)(bad.r->avail.idx + 0x8000);
}

static const struct {
	const char *name;
	void (*make)(void);
	bool whole; /* it fills the ring itself */
} cases[] = {
	{"a loop of two", c_loop, false},
	{"a descriptor that is its own next", c_itself, false},
	{"next is out of range", c_next_range, false},
	{"next is far out of range", c_next_far, false},
	{"a buffer of no bytes", c_empty, false},
	{"beyond RAM", c_beyond, false},
	{"runs out of RAM", c_runs_out, false},
	{"wraps", c_wraps, false},
	{"wraps into RAM", c_wraps_to_zero, false},
	{"far away", c_far, false},
	{"in the PCI hole", c_hole, false},
	{"the device's own registers", c_own_registers, false},
	{"the local APIC", c_apic, false},
	{"configuration space", c_ecam, false},
	{"4 GiB less one", c_huge, false},
	{"more than 4 GiB in all", c_many_huge, false},
	{"read after write", c_direction, false},
	{"read after write, late", c_direction_late, false},
	{"no status", c_no_status, false},
	{"no head", c_no_head, false},
	{"a short head", c_short_head, false},
	{"indirect: an empty table", i_empty, false},
	{"indirect: an odd size", i_odd, false},
	{"indirect: less than one", i_part, false},
	{"indirect: too many", i_large, false},
	{"indirect: far too many", i_larger, false},
	{"indirect and next", i_next, false},
	{"indirect: not RAM", i_not_ram, false},
	{"indirect: runs out of RAM", i_runs_out, false},
	{"indirect: far away", i_far, false},
	{"indirect: not aligned", i_aside, false},
	{"indirect within indirect", i_nested, false},
	{"indirect: its own table", i_itself, false},
	{"indirect: next leaves the table", i_leaves, false},
	{"indirect: a loop", i_loop, false},
	{"indirect: a thousand and out", i_long, false},
	{"a head out of range", r_head_range, true},
	{"a head far out of range", r_head_far, true},
	{"the index jumps ahead", r_jump, true},
	{"the index goes back", r_jump_back, true},
	{"the index jumps half round", r_jump_far, true},
};

/* What there was before goes through, the offence is told, what comes after is not served. */
static void offence(unsigned i)
{
	bool was, told, quiet;
	uint16_t used;

	was = vio_works(&bad, ++turn);
	head = (struct vhead){VB_IN, 0, 0};
	cases[i].make();
	if (!cases[i].whole)
		vio_avail(&bad, 0);
	vio_kick(&bad);
	told = VIO_UNTIL(needs_reset());
	used = bad.r->used.idx;
	vio_request(&bad, 2, VB_IN, 0, buf, 512);
	vio_kick(&bad);
	bool other = others_work();
	quiet = bad.r->used.idx == used && bad.status[2] == 0xff;
	bool back = recovers();
	check(cases[i].name, was && told && quiet && other && back,
	      "before %d, told %d, quiet %d, the other %d, after %d", was, told, quiet, other, back);
}

/* Without the feature even a good table is an offence. */
static void not_negotiated(void)
{
	vio_open(&bad, 0);
	head = (struct vhead){VB_IN, 0, 0};
	i_table((word)table, 32, 0);
	vio_avail(&bad, 0);
	vio_kick(&bad);
	check("indirect, not negotiated", VIO_UNTIL(needs_reset()) && others_work() && recovers(), "status %#x",
	      V8(bad.common + VC_STATUS));
}

/* The same head twice: the second comes while the first is in flight, unless that was quicker. */
static void twice(void)
{
	bool told = false;

	for (unsigned i = 0; i < 50 && !told; i++) {
		vio_request(&bad, 0, VB_IN, 0, buf, sizeof buf);
		for (unsigned k = 0; k < VIO_MAX - 1; k++)
			vio_avail(&bad, 0);
		vio_kick(&bad);
		told = VIO_UNTIL(needs_reset() || bad.r->used.idx == bad.r->avail.idx) && needs_reset();
		if (!told)
			recovers();
	}
	check("a chain that is in flight is made available again", told && others_work() && recovers(), "status %#x",
	      V8(bad.common + VC_STATUS));
}

/* ---- where the rings lie ---- */

static void places(void)
{
	word d = (word)bad.r->desc, a = (word)&bad.r->avail, u = (word)&bad.r->used;
	const struct {
		uint64_t desc, avail, used;
		unsigned size;
	} at[] = {
		{0xc0000000, a, u, 64},
		{d, 0xfee00000, u, 64},
		{d, a, 0xfec00000, 64},
		{1ull << 60, a, u, 64},
		{d, 1ull << 60, u, 64},
		{d, a, 1ull << 60, 64},
		{RAM_END - 1008, a, u, 64},
		{d, RAM_END - 16, u, 64},
		{d, a, RAM_END - 16, 64},
		{0 - 16ull, a, u, 64},
		{d, 0 - 2ull, u, 64},
		{d, a, 0 - 4ull, 64},
		{d + 8, a, u, 64},
		{d, a + 1, u, 64},
		{d, a, u + 2, 64},
		{RAM_END, a, u, 1},
		{VIO_ECAM, a, u, 1},
		{d, bad.common & ~1ul, u, 1},
		{d, a, bad.notify & ~3ul, 1},
	};
	struct batch b = {.name = "rings that are not in RAM or not aligned"};

	for (unsigned i = 0; i < sizeof at / sizeof at[0]; i++) {
		bool ok = vio_reset(&bad) && vio_negotiate(&bad, VF_V1);
		vio_queue(&bad, 0, at[i].size, at[i].desc, at[i].avail, at[i].used);
		V8(bad.common + VC_STATUS) = VS_RUNS;
		vio_kick(&bad);
		ok = ok && VIO_UNTIL(needs_reset());
		batch_case(&b, ok && others_work(), "%u: status %#x", i, V8(bad.common + VC_STATUS));
	}
	batch_end(&b);
	check("the disk recovers from that", recovers(), "status %#x", V8(bad.common + VC_STATUS));
}

/* Rings upon one another, or upon the data: nobody can say what comes of it, only what does not. */
static void overlaid(void)
{
	struct batch b = {.name = "rings upon one another"};
	word m = (word)buf;
	const word at[][3] = {{m, m, m}, {m, m + 64, m}, {m + 64, m, m + 4}, {m, m + 1024, m + 16}};

	for (unsigned i = 0; i < sizeof at / sizeof at[0]; i++) {
		bool ok = vio_reset(&bad) && vio_negotiate(&bad, VF_V1 | VF_INDIRECT | VF_EVENT_IDX);
		memset(buf, 0, 8192);
		vio_queue(&bad, 0, 64, at[i][0], at[i][1], at[i][2]);
		V8(bad.common + VC_STATUS) = VS_RUNS;
		for (unsigned k = 0; k < 200; k++) {
			((volatile uint16_t *)buf)[k] = (uint16_t)(k * 7);
			vio_kick(&bad);
		}
		batch_case(&b, ok && others_work() && vio_reset(&bad), "%u: status %#x", i, V8(bad.common + VC_STATUS));
	}
	batch_end(&b);
	check("the disk recovers from that, too", recovers(), "status %#x", V8(bad.common + VC_STATUS));
}

static void sizes(void)
{
	static const uint16_t no[] = {0, 3, 100, 0x8000, 0xffff};
	struct batch b = {.name = "sizes that a queue cannot have"};
	uint16_t max;

	vio_reset(&bad);
	vio_negotiate(&bad, VF_V1);
	V16(bad.common + VC_Q_SEL) = 0;
	max = V16(bad.common + VC_Q_SIZE);
	for (unsigned i = 0; i < sizeof no / sizeof no[0]; i++) {
		V16(bad.common + VC_Q_SIZE) = no[i];
		batch_case(&b, V16(bad.common + VC_Q_SIZE) == max, "%u became %u", no[i], V16(bad.common + VC_Q_SIZE));
	}
	V16(bad.common + VC_Q_SIZE) = (uint16_t)(2 * max);
	batch_case(&b, V16(bad.common + VC_Q_SIZE) == max, "twice the largest became %u", V16(bad.common + VC_Q_SIZE));
	batch_end(&b);
	check("a queue of one descriptor", vio_reset(&bad) && vio_start(&bad, bad.r, 1, ~0ull), "status %#x",
	      V8(bad.common + VC_STATUS));
	for (unsigned i = 0; i < 100; i++) {
		head = (struct vhead){VB_GET_ID, 0, 0};
		i_table((word)table, 32, 0);
		vio_avail(&bad, 0);
		vio_kick(&bad);
		if (!vio_done(&bad, 1))
			break;
	}
	check("a queue of one descriptor works", bad.r->used.idx == 100 && !needs_reset(), "%u used, status %#x",
	      bad.r->used.idx, V8(bad.common + VC_STATUS));
}

/* ---- what changes under the device's eyes ---- */

static uint32_t rng = 1;

static uint32_t rnd(void)
{
	rng = rng * 1664525u + 1013904223u;
	return rng >> 8;
}

static void mid_flight(void)
{
	struct batch b = {.name = "chains that change while they are read"};
	unsigned broken = 0, done = 0;

	for (unsigned i = 0; i < 300; i++) {
		unsigned made = 0;
		for (unsigned k = 0; k < 400; k++) {
			unsigned d = rnd() % 48;
			if (k % 25 == 0) {
				vio_request(&bad, made, made & 1 ? VB_IN : VB_GET_ID, 8 * made, buf + 4096 * made,
					    4096);
				made++;
				vio_kick(&bad);
			}
			switch (rnd() % 4) {
			case 0: bad.r->desc[d].addr = rnd() % 2 ? (word)buf + rnd() % 8192 : ~0ull - rnd(); break;
			case 1: bad.r->desc[d].len = rnd() % 4096; break;
			case 2: bad.r->desc[d].flags = (uint16_t)(rnd() % 8); break;
			default: bad.r->desc[d].next = (uint16_t)(rnd() % 200);
			}
		}
		bool end = VIO_UNTIL(needs_reset() || bad.r->used.idx == bad.r->avail.idx);
		broken += needs_reset();
		done += !needs_reset();
		batch_case(&b, end && (i % 10 || others_work()), "round %u: status %#x", i, V8(bad.common + VC_STATUS));
		if (needs_reset())
			recovers();
	}
	batch_end(&b);
	print("# %u needed a reset, %u did not\n", broken, done);
}

/* Rings of noise.  Buffers that it may hit are ours; what it writes there is nobody's business. */
static void noise(void)
{
	struct batch b = {.name = "rings of noise"};
	unsigned broken = 0;

	for (unsigned i = 0; i < 1000; i++) {
		bool ok = vio_open(&bad, rnd() % 2 ? ~0ull : 0);
		for (unsigned d = 0; d < VIO_MAX; d++) {
			bool table_at = rnd() % 8 == 0;
			D(d, table_at ? (word)table + rnd() % 4 * 16 : (word)buf + rnd() % sizeof buf,
			  rnd() % 16 ? rnd() % 64 * 16 + 1 : rnd(), table_at ? VD_INDIRECT : rnd() % 4,
			  rnd() % (VIO_MAX + 1));
			t(d, (word)buf + rnd() % sizeof buf, rnd() % 64 + 1, rnd() % 4, rnd() % 8);
		}
		vio_fill(buf, 4096, rnd());
		for (unsigned k = rnd() % VIO_MAX; k; k--)
			vio_avail(&bad, rnd() % (VIO_MAX + (i & 1)));
		vio_kick(&bad);
		vio_wait(100);
		broken += needs_reset();
		if (i % 20 == 0)
			batch_case(&b, ok && others_work(), "round %u: status %#x", i, V8(bad.common + VC_STATUS));
	}
	batch_end(&b);
	print("# %u of 1000 needed a reset\n", broken);
	check("some of it is refused", broken > 0, "%u", broken);
	check("the disk recovers from noise", recovers(), "status %#x", V8(bad.common + VC_STATUS));
}

/* Doorbells without end, for queues that exist and queues that do not, started or not. */
static void bells(void)
{
	vio_reset(&bad);
	for (unsigned i = 0; i < 2000; i++)
		V16(bad.notify + i % 64 * 4) = (uint16_t)i;
	check("doorbells of a device that does not run", !V8(bad.common + VC_STATUS) && others_work(), "status %#x",
	      V8(bad.common + VC_STATUS));
	vio_open(&bad, ~0ull);
	for (unsigned i = 0; i < 20000; i++)
		V16(bad.notify + i % 64 * 4) = (uint16_t)i;
	check("doorbells for nothing",
	      V8(bad.common + VC_STATUS) == VS_RUNS && others_work() && vio_works(&bad, ++turn), "status %#x",
	      V8(bad.common + VC_STATUS));
}

void flat_main(void)
{
	struct vio v[2];

	if (vio_find(v, 2) < 2) {
		skip("virtio_hostile", "no two disks");
		return;
	}
	good = v[0];
	bad = v[1];
	check("both disks work", vio_open(&good, ~0ull) && others_work() && recovers(), "status %#x %#x",
	      V8(good.common + VC_STATUS), V8(bad.common + VC_STATUS));
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
		offence(i);
	not_negotiated();
	twice();
	places();
	overlaid();
	sizes();
	recovers();
	mid_flight();
	noise();
	bells();
}
