/*
 * common/save and the tables of the chips and of struct vcpu: every field has a row, what is saved comes back, and a record
 * that is not exactly this table's is refused.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/chipfakes.h"
#include "vcpu/chipset/ahci.h"
#include "vcpu/chipset/debugexit.h"
#include "vcpu/chipset/fwcfg.h"
#include "vcpu/chipset/hpet.h"
#include "vcpu/chipset/i6300esb.h"
#include "vcpu/chipset/i8042.h"
#include "vcpu/chipset/i8254.h"
#include "vcpu/chipset/i8259.h"
#include "vcpu/chipset/ioapic.h"
#include "vcpu/chipset/lapic.h"
#include "vcpu/chipset/mc146818.h"
#include "vcpu/chipset/ns16550.h"
#include "vcpu/chipset/pam.h"
#include "vcpu/chipset/pflash.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/chipset/pm.h"
#include "vcpu/chipset/savechips.h"
#include "vcpu/chipset/sysports.h"
#include "vcpu/chipset/vga.h"
#include "vcpu/chipset/virtio_pci.h"
#include "vcpu/cpu/save_cpu.h"

#define ROOM (1u << 20)

static uint8_t rec[ROOM], again[ROOM];
static char err[200];

/*
 * ---- every field has a row ----
 *
 * The compiler counts fields: an initializer with one value too few for @type is an error (-Wmissing-field-initializers), as one
 * too many is.  So whoever adds a field comes by here, and then has to add the row.
 */

#define HAS_FIELDS(table, type, count, ...)                  \
	do {                                                 \
		static type probe = {__VA_ARGS__};           \
		(void)probe;                                 \
		CU_ASSERT_EQUAL((table).n, count);           \
		CU_ASSERT_EQUAL((table).size, sizeof(type)); \
		CU_ASSERT_EQUAL(faults(&(table)), 0);        \
	} while (0)

/* Rows that overlap, leave the structure, say no reason, or have a name twice. */
static unsigned faults(const struct save_table *t)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < t->n; i++) {
		const struct save_row *r = &t->rows[i];
		bad += (uint64_t)r->offset + (uint64_t)r->size * r->count > t->size;
		bad += r->kind == SAVE_NOT && (!r->reason || !*r->reason);
		bad += r->kind == SAVE_SUB && r->sub->size != r->size;
		for (unsigned k = 0; k < i; k++) {
			const struct save_row *o = &t->rows[k];
			bad += !strcmp(o->name, r->name);
			bad += o->offset < r->offset + r->size * r->count && r->offset < o->offset + o->size * o->count;
		}
	}
	return bad;
}

extern const struct save_table seg_save, dtable_save, x87_save; /* of save_cpu.c */

static void test_covered(void)
{
	CU_ASSERT_EQUAL(faults(&platform_state_save), 0); /* its fields are counted in platform.c */
	HAS_FIELDS(debugexit_save, struct debugexit, 3, 0, 0, 0);
	HAS_FIELDS(i6300esb_save, struct i6300esb, 15, {}, 0, {}, 0, 0, {}, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(i8042_save, struct i8042, 12, 0, 0, 0, 0, {}, 0, 0, 0, {}, 0, 0, 0);
	HAS_FIELDS(i8254_channel_save, struct i8254_channel, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(i8254_save, struct i8254, 5, {}, 0, {}, {}, 0);
	HAS_FIELDS(i8259_chip_save, struct i8259, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(i8259_save, struct i8259_pair, 2, {}, {});
	HAS_FIELDS(ioapic_save, struct ioapic, 5, 0, {}, 0, 0, 0);
	HAS_FIELDS(lapic_save, struct lapic, 22, 0, 0, 0, 0, 0, 0, 0, 0, {}, {}, {}, {}, 0, 0, 0, 0, 0, 0, 0, 0, {},
		   {});
	HAS_FIELDS(lapics_save, struct lapics, 8, {}, 0, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(mc146818_save, struct mc146818, 9, {}, 0, 0, 0, 0, 0, 0, {}, {});
	HAS_FIELDS(ns16550_save, struct ns16550, 28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, 0, 0, {}, 0, 0, {},
		   0, 0, 0, 0, 0, {}, {});
	HAS_FIELDS(pci_func_save, struct pci_func, 12, 0, 0, {}, {}, {}, {}, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(pci_save, struct pci, 18, 0, 0, {}, 0, 0, 0, 0, {}, 0, 0, 0, 0, 0, 0, 0, 0, {}, {});
	HAS_FIELDS(fwcfg_save, struct fwcfg, 9, 0, 0, 0, {}, 0, {}, 0, 0, 0);
	HAS_FIELDS(pflash_save, struct pflash, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(vga_save, struct vga, 18, 0, 0, 0, {}, 0, {}, 0, {}, 0, {}, 0, 0, 0, 0, 0, 0, {}, 0);
	HAS_FIELDS(hpet_timer_save, struct hpet_timer, 7, 0, 0, 0, 0, 0, 0, {});
	HAS_FIELDS(hpet_save, struct hpet, 8, 0, 0, 0, {}, 0, 0, 0, 0);
	HAS_FIELDS(pam_save, struct pam, 4, {}, 0, 0, 0);
	HAS_FIELDS(pm_save, struct pm, 11, 0, 0, 0, 0, 0, 0, {}, {}, 0, 0, 0);
	HAS_FIELDS(sysports_save, struct sysports, 5, 0, 0, 0, 0, 0);
	HAS_FIELDS(virtio_offer_save, struct msg_virtio_offer, 6, 0, 0, 0, {}, 0, {});
	HAS_FIELDS(virtio_pci_queue_save, struct virtio_pci_queue, 4, 0, 0, 0, {});
	HAS_FIELDS(virtio_pci_save, struct virtio_pci, 20, {}, 0, 0, {}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, {}, 0, 0,
		   0);
	HAS_FIELDS(ahci_save, struct ahci, 22, {}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(seg_save, struct seg, 4, 0, 0, 0, 0);
	HAS_FIELDS(dtable_save, struct dtable, 2, 0, 0);
	HAS_FIELDS(x87_save, struct x87_pointers, 5, 0, 0, 0, 0, 0);
	HAS_FIELDS(cpu_save, struct cpu, 78, {}, 0, {}, 0, 0, 0, 0, 0, 0, {}, 0, 0, 0, 0, 0, 0, 0, 0, {}, {}, {}, {},
		   {}, 0, 0, 0, 0, 0, 0, 0, {}, {}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, {}, 0, 0, 0, 0, 0, 0,
		   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, 0, {}, 0, 0, {}, 0, 0, 0, 0, 0, {}, {}, 0);
}

/* That the test above can fail. */
struct sample {
	uint32_t a;
	bool b, forgotten; /* in what would be padding */
	uint64_t list[3];
	struct timer timer;
};
static uint64_t deadline_of(const void *field)
{
	return ((const struct timer *)field)->deadline;
}
static void set_deadline(void *field, uint64_t val)
{
	((struct timer *)field)->deadline = val;
}
static const struct save_row sample_rows[] = {
	SAVE_IN(struct sample, a, 3, 7),
	SAVE(struct sample, b),
	SAVE_ARRAY(struct sample, list),
	SAVE_BY(struct sample, timer, deadline_of, set_deadline),
	SAVE_OMIT(struct sample, forgotten, "of this test"),
};
SAVE_TABLE(sample, struct sample, "sample");

static void test_finds(void)
{
	struct save_row rows[5];
	struct save_table t = sample;

	HAS_FIELDS(sample, struct sample, 5, 0, 0, 0, {}, {});
	memcpy(rows, sample_rows, sizeof rows);
	t.rows = rows;
	rows[4].offset--;
	CU_ASSERT_EQUAL(faults(&t), 1);
	rows[4] = rows[1];
	CU_ASSERT_EQUAL(faults(&t), 2);
	rows[4] = sample_rows[4];
	rows[4].reason = "";
	CU_ASSERT_EQUAL(faults(&t), 1);
	rows[2].count = 9;
	CU_ASSERT(faults(&t) > 1);
}

/* ---- records ---- */

static int get(size_t n, struct sample *s)
{
	struct sample before = *s;
	int rc = save_get(rec, n, &sample, s, err, sizeof err);

	CU_ASSERT(rc >= 0 || !memcmp(&before, s, sizeof before)); /* whole or not at all */
	return rc;
}

static void refused(size_t n, const char *why)
{
	struct sample s;

	memset(&s, 0x11, sizeof s);
	s.b = s.forgotten = true;
	CU_ASSERT_EQUAL(get(n, &s), -EPROTO);
	CU_ASSERT_STRING_EQUAL(err, why);
}

static uint8_t *find(const char *name)
{
	return memmem(rec, ROOM, name, strlen(name));
}

static size_t fill(void)
{
	const struct sample s = {.a = 5, .b = true, .list = {1, 2, 3}, .timer = {.deadline = 99}};
	struct save_buf b = {rec, 0, ROOM};

	memset(rec, 0, 4096);
	CU_ASSERT_EQUAL(save_put(&b, &sample, &s), 0);
	return b.n;
}

static void test_record(void)
{
	struct sample s = {0};
	size_t n = fill();

	CU_ASSERT_EQUAL(get(n, &s), (int)n);
	CU_ASSERT(s.a == 5 && s.b && !s.forgotten && s.list[2] == 3 && s.timer.deadline == 99);
	CU_ASSERT_EQUAL(get(n + 100, &s), (int)n); /* the next record follows */
	struct save_buf small = {rec, 0, n - 1};
	CU_ASSERT_EQUAL(save_put(&small, &sample, &s), -ENOSPC);
	fill();
	for (size_t cut = 0; cut < n; cut++) {
		struct sample into = {0};
		CU_ASSERT_EQUAL(save_get(rec, cut, &sample, &into, err, sizeof err), -EPROTO);
	}
	*find("list") = 'm';
	refused(n, "sample: unknown field mist");
	fill();
	find("sample")[0] = 'e';
	refused(n, "a record eample, expected sample");
	fill();
	find("list")[4] = 4; /* size of an element */
	refused(n, "sample.list: 3 of 4 bytes, expected 3 of 8");
	fill();
	find("list")[8] = 4; /* how many */
	refused(n, "sample.list: 4 of 8 bytes, expected 3 of 8");
	fill();
	find("list")[8] = 2;
	refused(n, "sample.list: 2 of 8 bytes, expected 3 of 8");
	fill();
	find("\1a")[10] = 8;
	refused(n, "sample.a: 8, not in 3 to 7");
	find("\1a")[10] = 2;
	refused(n, "sample.a: 2, not in 3 to 7");
	fill();
	find("\1b")[10] = 2;
	refused(n, "sample.b: 2, not in 0 to 1");
	fill();
	find("\1b")[1] = 'a'; /* a second a: its size is looked at too late to matter */
	refused(n, "sample.a: twice");
	fill();
	find("sample")[6]--; /* the record ends a byte early */
	refused(n, "sample.timer: ends after 7 of 8 bytes");
	fill();
	find("sample")[6] -= 2 + 5 + 4 + 8 + 4 - 4; /* and without its last row */
	find("sample")[6] += 1;
	refused(n, "sample: ends in the middle of a field's head");
	fill();
	memcpy(find("sample") + 6, &(uint32_t){(uint32_t)(n - 7 - 4 - (1 + 5 + 8 + 8))}, 4);
	refused(n - (1 + 5 + 8 + 8), "sample.timer: missing");
}

/* ---- each chip by itself: every saved bit comes back ---- */

/* Another legal value for a field. */
static void change(const struct save_row *r, uint8_t *p)
{
	uint64_t v = 0;

	if (r->kind == SAVE_BOOL) {
		*p ^= 1;
		return;
	}
	if (!r->max) {
		for (uint32_t i = 0; i < r->size * r->count; i++)
			p[i] ^= (uint8_t)(0x5a + i);
		return;
	}
	memcpy(&v, p, r->size);
	v = v == r->max ? r->min : r->max;
	memcpy(p, &v, r->size);
}

static void change_all(const struct save_table *t, uint8_t *obj)
{
	for (unsigned i = 0; i < t->n; i++) {
		const struct save_row *r = &t->rows[i];
		if (r->kind == SAVE_SUB)
			for (uint32_t k = 0; k < r->count; k++)
				change_all(r->sub, obj + r->offset + k * r->size);
		else if (r->kind == SAVE_HOOK)
			r->set(obj + r->offset, 123456789 + r->offset);
		else if (r->kind != SAVE_NOT)
			change(r, obj + r->offset);
	}
}

/* Saved fields that differ. */
static unsigned differ(const struct save_table *t, const uint8_t *a, const uint8_t *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->n; i++) {
		const struct save_row *r = &t->rows[i];
		if (r->kind == SAVE_SUB)
			for (uint32_t k = 0; k < r->count; k++)
				n += differ(r->sub, a + r->offset + k * r->size, b + r->offset + k * r->size);
		else if (r->kind == SAVE_HOOK)
			n += r->get(a + r->offset) != r->get(b + r->offset);
		else if (r->kind != SAVE_NOT)
			n += memcmp(a + r->offset, b + r->offset, (size_t)r->size * r->count) != 0;
	}
	return n;
}

static void round_trip(const struct save_table *t, void *a, void *b)
{
	struct save_buf s = {rec, 0, ROOM};

	change_all(t, a);
	CU_ASSERT(differ(t, a, b) > 0);
	CU_ASSERT_EQUAL_FATAL(save_put(&s, t, a), 0);
	CU_ASSERT_EQUAL(save_get(rec, s.n, t, b, err, sizeof err), (int)s.n);
	CU_ASSERT_EQUAL(differ(t, a, b), 0);
}

static void test_chips(void)
{
	static struct {
		struct fake f;
		struct i8259_pair pic;
		struct i8254 pit;
		struct mc146818 rtc;
		struct ns16550 com;
		struct i8042 kbc;
		struct pm pm;
		struct ioapic ioapic;
		struct lapics lapics;
		struct virtio_pci vp;
	} m[2];
	struct vcpu *v[1] = {fake_vcpu(0)};

	memset(m, 0, sizeof m);
	for (int i = 0; i < 2; i++) {
		struct irq_out w = fake_wire(&m[i].f, 1);
		fake_init(&m[i].f, 1000000000);
		i8259_init(&m[i].pic, w);
		i8254_init(&m[i].pit, &m[i].f.clock, &m[i].f.q, w);
		mc146818_init(&m[i].rtc, &m[i].f.clock, &m[i].f.q, w, 1 << 20, 0);
		ns16550_init(&m[i].com, &m[i].f.clock, &m[i].f.q, w, -1, false);
		i8042_init(&m[i].kbc, w, NULL, NULL, NULL);
		pm_init(&m[i].pm, &m[i].f.clock, &m[i].f.q, w);
		ioapic_init(&m[i].ioapic, &m[i].lapics);
		lapics_init(&m[i].lapics, &m[i].f.clock, (struct timerq *[]){&m[i].f.q}, v, 1);
		lapics_reset(&m[i].lapics);
		for (unsigned k = 1; k < LAPIC_MAX; k++) /* timers that the machine would have with so many CPUs */
			timer_init(&m[i].lapics.apic[k].timer, &m[i].f.q, NULL, NULL);
		i8254_reset(&m[i].pit);
	}
	round_trip(&i8259_save, &m[0].pic, &m[1].pic);
	round_trip(&i8254_save, &m[0].pit, &m[1].pit);
	round_trip(&mc146818_save, &m[0].rtc, &m[1].rtc);
	round_trip(&ns16550_save, &m[0].com, &m[1].com);
	round_trip(&i8042_save, &m[0].kbc, &m[1].kbc);
	round_trip(&pm_save, &m[0].pm, &m[1].pm);
	round_trip(&ioapic_save, &m[0].ioapic, &m[1].ioapic);
	round_trip(&lapics_save, &m[0].lapics, &m[1].lapics);
	round_trip(&virtio_pci_save, &m[0].vp, &m[1].vp);
	CU_ASSERT_EQUAL(m[1].pit.timer.deadline, m[0].pit.timer.deadline);
	CU_ASSERT(m[1].pit.timer.slot >= 0); /* it is queued, too */
	free(v[0]);
}

static void test_cpu(void)
{
	struct vcpu *a = aligned_alloc(4096, sizeof *a), *b = aligned_alloc(4096, sizeof *b);

	memset(a, 0, sizeof *a);
	memset(b, 0, sizeof *b);
	round_trip(&cpu_save, &a->cpu, &b->cpu);
	CU_ASSERT_EQUAL(b->cpu.fpu_saved, 1);
	CU_ASSERT(b->self == NULL && !b->cells[5]); /* what is not saved stays as it was */
	free(a);
	free(b);
}

/* ---- a machine, through its buses ---- */

static struct vm vm[2];
#define CPUS 3

static struct platform *machine(int i)
{
	struct platform_config cfg = {.ram_size = 64 << 20,
				      .ncpus = CPUS,
				      .watchdog = true,
				      .com_in = {-1, -1, -1, -1},
				      .com_out = {-1, -1, -1, -1},
				      .tsc_hz = 2000000000};
	vm[i].ncpus = CPUS;
	for (int k = 0; k < CPUS; k++) {
		vm[i].vcpu[k] = fake_vcpu(k);
		vm[i].vcpu[k]->vm = &vm[i];
	}
	vm[i].plat = platform_create(&vm[i], &cfg);
	CU_ASSERT_FATAL(vm[i].plat != NULL);
	platform_reset(vm[i].plat);
	return vm[i].plat;
}

static void out(struct platform *p, uint16_t port, uint32_t val, unsigned size)
{
	platform_pio_write(p, vm[0].vcpu[0], port, val, size);
}

static uint32_t pci_reg(unsigned devfn, unsigned off)
{
	return 0x80000000u | devfn << 8 | off;
}

#define WATCHDOG_BAR 0xd0000000u

static void use(struct platform *p)
{
	struct vcpu *v = vm[0].vcpu[0];
	static const uint8_t icw[] = {0x11, 0x30, 0x04, 0x01};

	out(p, 0x20, icw[0], 1);
	for (int i = 1; i < 4; i++)
		out(p, 0x21, icw[i], 1);
	out(p, 0x21, 0xa5, 1);
	out(p, 0x4d1, 0x0e, 1);
	out(p, 0x43, 0x34, 1);
	out(p, 0x40, 0xff, 1);
	out(p, 0x40, 0xff, 1);
	out(p, 0x70, 0x40, 1);
	out(p, 0x71, 0x77, 1);
	out(p, 0x3ff, 0x5a, 1);
	out(p, 0x64, 0x60, 1);
	out(p, 0x60, 0x45, 1);
	out(p, 0x602, 0x100, 2);
	out(p, 0x80, 0x99, 1);
	platform_mmio_write(p, v, 0xfec00000, 0x12, 4);
	platform_mmio_write(p, v, 0xfec00010, 0x10031, 4);
	platform_mmio_write(p, v, 0xfee000f0, 0x1ff, 4);
	platform_mmio_write(p, v, 0xfee00320, 0x200ef, 4);
	platform_mmio_write(p, v, 0xfee00380, 4000000000u, 4);
	out(p, 0xcf8, pci_reg(28 << 3, 0x10), 4);
	out(p, 0xcfc, WATCHDOG_BAR, 4);
	out(p, 0xcf8, pci_reg(28 << 3, 4), 4);
	out(p, 0xcfc, 2, 2);
	platform_mmio_write(p, v, WATCHDOG_BAR + 0xc, 0x80, 1);
	platform_set_irq(p, 5, true);
	platform_set_irq(p, 20, true);
	/* a vector on its way to CPU 2, the timer of CPU 1 */
	platform_mmio_write(p, vm[0].vcpu[2], 0xfee000f0, 0x1ff, 4);
	platform_mmio_write(p, v, 0xfee00310, 2u << 24, 4);
	platform_mmio_write(p, v, 0xfee00300, 0x55, 4);
	platform_mmio_write(p, vm[0].vcpu[1], 0xfee00380, 4000000000u, 4);
}

static size_t save_to(struct platform *p, uint8_t *buf)
{
	struct save_buf b = {buf, 0, ROOM};

	CU_ASSERT_EQUAL_FATAL(platform_save(p, &b), 0);
	return b.n;
}

static void test_machine(void)
{
	struct platform *a = machine(0), *b = machine(1);
	size_t fresh = save_to(b, again), n;

	use(a);
	n = save_to(a, rec);
	CU_ASSERT(n == fresh && memcmp(rec, again, n));
	CU_ASSERT_EQUAL(platform_load(b, rec, n, err, sizeof err), 0);
	CU_ASSERT(save_to(b, again) == n && !memcmp(rec, again, n));
	/* what a guest sees of it */
	struct vcpu *v = vm[1].vcpu[0];
	CU_ASSERT_EQUAL(platform_pio_read(b, v, 0x21, 1), 0xa5);
	CU_ASSERT_EQUAL(platform_pio_read(b, v, 0x4d1, 1), 0x0e);
	out(b, 0x70, 0x40, 1);
	CU_ASSERT_EQUAL(platform_pio_read(b, v, 0x71, 1), 0x77);
	CU_ASSERT_EQUAL(platform_pio_read(b, v, 0x3ff, 1), 0x5a);
	CU_ASSERT_EQUAL(platform_pio_read(b, v, 0x602, 2), 0x100);
	CU_ASSERT_EQUAL(platform_mmio_read(b, v, 0xfec00010, 4), 0x10031);
	CU_ASSERT_EQUAL(platform_mmio_read(b, v, 0xfee00320, 4), 0x200ef);
	CU_ASSERT(platform_mmio_read(b, v, 0xfee00390, 4) > 0);
	CU_ASSERT_EQUAL(platform_next_deadline(b, vm[1].vcpu[0]),
			platform_next_deadline(a, vm[0].vcpu[0])); /* timers are queued */
	CU_ASSERT_EQUAL(platform_next_deadline(b, vm[1].vcpu[1]), platform_next_deadline(a, vm[0].vcpu[1]));
	CU_ASSERT(platform_next_deadline(b, vm[1].vcpu[1]) != UINT64_MAX);
	CU_ASSERT(vm[1].vcpu[2]->pending & PEND_INTR);
	CU_ASSERT_EQUAL(platform_ack_intr(b, vm[1].vcpu[2]), 0x55);
	CU_ASSERT_EQUAL(platform_mmio_read(b, v, WATCHDOG_BAR + 0xc, 2),
			platform_mmio_read(a, v, WATCHDOG_BAR + 0xc, 2));
	/* and what is no machine of this kind */
	CU_ASSERT_EQUAL(platform_load(b, rec, n - 1, err, sizeof err), -EPROTO);
	CU_ASSERT_EQUAL(platform_load(b, rec, n + 1, err, sizeof err), -EPROTO);
	CU_ASSERT_STRING_EQUAL(err, "1 bytes behind the machine's state");
	for (int i = 0; i < 2; i++) {
		platform_destroy(vm[i].plat);
		for (int k = 0; k < CPUS; k++)
			free(vm[i].vcpu[k]);
	}
}

CU_ErrorCode suite_save(void)
{
	CU_pSuite s = CU_add_suite("save", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_covered) || !CU_ADD_TEST(s, test_finds) || !CU_ADD_TEST(s, test_record) ||
	    !CU_ADD_TEST(s, test_chips) || !CU_ADD_TEST(s, test_cpu) || !CU_ADD_TEST(s, test_machine))
		return CU_get_error();
	return CUE_SUCCESS;
}
