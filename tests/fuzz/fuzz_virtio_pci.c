/*
 * Fuzz target: a virtio device on the PCI bus.  The input is a run of accesses, eight bytes each: what, size, two bytes of
 * offset, four of value.  They go to configuration space (ECAM and mechanism 1), to both BARs, and to the device's side.
 *
 * Properties: the device hears of queues only when it does not run, only of such as are legal and offered; messages leave
 * only through vectors that are on and not masked; the INTx line is the OR of the ISR while MSI-X is off; no driver feature
 * that was not offered is ever in force; while it runs it knows which CPU each queue's vector addresses; a reset that is done
 * leaves nothing behind.
 */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vcpu/chipset/virtio_pci.h"

#define SLOT    5u
#define OFFERED (1ull << 28 | 1ull << 29 | 1ull << 5)
#define V1      (1ull << 32)
#define QUEUES  4u
#define CPUS    8
#define BAR0    PCI_MMIO_BASE
#define BAR1    (PCI_MMIO_BASE + 0x4000)

static struct bus io, mem;
static struct pci pci;
static struct virtio_pci vp;
static bool running, reset_asked, line;
static unsigned events;
static uint8_t told[QUEUES]; /* to whom the interrupts of each go */

static int on_msi_cpu(void *ctx, uint64_t addr, uint32_t data)
{
	return (int)(addr >> 12 & 0xff) < CPUS ? (int)(addr >> 12 & 0xff) : -1;
}

/* While it runs the device knows to whom its interrupts go. */
static void routes_right(void)
{
	bool on = pci_get(&vp.f, vp.msix_cap + 2, 2) & 0x8000;

	for (unsigned i = 0; i < QUEUES; i++) {
		unsigned vector = vp.q[i].vector;
		int cpu = on && vector <= QUEUES ? on_msi_cpu(NULL, vp.msix[vector].addr, 0) : -1;
		FUZZ_CHECK(told[i] == (cpu < 0 ? 0 : cpu));
	}
}

static void on_kick(void *dev, unsigned queue)
{
	FUZZ_CHECK(running && !reset_asked && queue < QUEUES);
	routes_right();
}

static void on_activate(void *dev, const struct msg_virtio_activate *m)
{
	uint32_t seen = 0;

	FUZZ_CHECK(!running && !reset_asked && m->nqueues <= QUEUES);
	FUZZ_CHECK((m->features & V1) && !(m->features & ~(OFFERED | V1)));
	for (unsigned i = 0; i < m->nqueues; i++) {
		const struct msg_virtio_queue *q = &m->queue[i];
		FUZZ_CHECK(q->index < QUEUES && !(seen >> q->index & 1));
		FUZZ_CHECK(q->size && q->size <= vp.offer.queue_max[q->index] && !(q->size & (q->size - 1)));
		seen |= 1u << q->index;
	}
	routes_right();
	running = true;
	events++;
}

static void on_reset(void *dev)
{
	FUZZ_CHECK(running && !reset_asked);
	reset_asked = true;
	events++;
}

static void on_settle(void *dev)
{
	FUZZ_CHECK(reset_asked);
}

static void on_config_write(void *dev, uint32_t off, uint32_t len)
{
	FUZZ_CHECK(!reset_asked && off == 32 && len == 1); /* all that the driver of a disk may write */
}

static void on_route(void *dev, unsigned queue, unsigned cpu)
{
	FUZZ_CHECK(queue < QUEUES && cpu < CPUS);
	told[queue] = (uint8_t)cpu;
}

static const struct virtio_pci_ops ops = {on_kick, on_activate, on_reset, on_settle, on_config_write, on_route};

static bool msix_on(void)
{
	return pci_get(&vp.f, vp.msix_cap + 2, 2) & 0x8000;
}

static void on_msi(void *ctx, uint64_t addr, uint32_t data)
{
	bool legal = false;

	FUZZ_CHECK(msix_on() && !(pci_get(&vp.f, vp.msix_cap + 2, 2) & 0x4000));
	for (unsigned i = 0; i <= QUEUES; i++)
		legal |= vp.msix[i].addr == addr && vp.msix[i].data == data && !vp.msix[i].control;
	FUZZ_CHECK(legal);
	events++;
}

static void on_intx(void *ctx, unsigned l, bool level)
{
	FUZZ_CHECK(l == SLOT % 4 && level != line);
	line = level;
}

static void make(void)
{
	memset(&io, 0, sizeof io);
	memset(&mem, 0, sizeof mem);
	memset(&pci, 0, sizeof pci);
	memset(&vp, 0, sizeof vp);
	running = reset_asked = line = false;
	pci.intx = on_intx;
	pci.msi = on_msi;
	pci.msi_cpu = on_msi_cpu;
	memset(told, 0xff, sizeof told);
	pci_init(&pci, &io, &mem);
	FUZZ_CHECK(!bus_add(&io, 0xcf8, 8, &pci_mech1_ops, &pci));
	FUZZ_CHECK(!bus_add(&mem, PCI_ECAM_BASE, PCI_ECAM_LEN, &pci_ecam_ops, &pci));
	vp.offer = (struct msg_virtio_offer){.device_id = 2,
					     .features = OFFERED,
					     .nqueues = QUEUES,
					     .queue_max = {16, 128, 1024, 1},
					     .config_len = 60};
	vp.ops = &ops;
	FUZZ_CHECK(!virtio_pci_add(&pci, &vp, SLOT << 3));
}

static void bars_back(void)
{
	bus_write(&mem, PCI_ECAM_BASE + (SLOT << 15) + PCI_BAR0, BAR0, 4);
	bus_write(&mem, PCI_ECAM_BASE + (SLOT << 15) + PCI_BAR0 + 4, BAR1, 4);
	bus_write(&mem, PCI_ECAM_BASE + (SLOT << 15) + PCI_COMMAND, PCI_CMD_MEM | PCI_CMD_MASTER, 2);
}

static void reset_done(void)
{
	bool asked = reset_asked;

	reset_asked = false;
	running = running && !asked;
	virtio_pci_reset_done(&vp);
	if (asked)
		FUZZ_CHECK(!vp.status && !vp.isr && !vp.pending && !vp.driver_features && !line);
}

static void from_device(unsigned what, uint32_t val)
{
	uint8_t cfg[60];

	switch (what) {
	case 0: virtio_pci_interrupt(&vp, val); break;
	case 1: virtio_pci_broken(&vp); break;
	case 2: reset_done(); break;
	case 3:
		memset(cfg, (int)val, sizeof cfg);
		virtio_pci_config(&vp, cfg, sizeof cfg);
		break;
	case 4: bars_back(); break;
	default:
		pci_reset(&pci);
		virtio_pci_reset(&vp);
		FUZZ_CHECK(running ? vp.resetting : !vp.status);
	}
}

static void access_one(const uint8_t *p)
{
	unsigned size = 1u << (p[1] & 3), off = (unsigned)p[2] | (unsigned)p[3] << 8;
	uint32_t val = (uint32_t)p[4] | (uint32_t)p[5] << 8 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 24;
	uint64_t wide = size == 8 ? (uint64_t)val << 32 | val : val;

	switch (p[0] & 15) {
	case 0: bus_write(&mem, PCI_ECAM_BASE + (SLOT << 15) + (off & 0xfff), wide, size); break;
	case 1: bus_read(&mem, PCI_ECAM_BASE + (SLOT << 15) + (off & 0xfff), size); break;
	case 2: bus_write(&io, 0xcf8, 0x80000000u | SLOT << 11 | (off & 0xfc), 4); break;
	case 3: bus_write(&io, 0xcfc + (off & 3), val, size & 7); break;
	case 4: bus_read(&io, 0xcfc + (off & 3), size & 7); break;
	case 5: bus_write(&mem, BAR1 + (off & 0xfff), wide, size); break;
	case 6: bus_read(&mem, BAR1 + (off & 0xfff), size); break;
	case 7:
	case 8: from_device(off & 7, val); break;
	case 9: bus_read(&mem, BAR0 + (off & 0x3fff), size); break;
	case 10: bus_write(&mem, BAR0 + (off & 0x3fff), wide, size); break;
	default: bus_write(&mem, BAR0 + (off & 0x3f), wide, size); break;
	}
	FUZZ_CHECK(vp.active == running && vp.resetting == reset_asked);
	FUZZ_CHECK(line == (vp.isr && !msix_on() && !(pci_get(&vp.f, PCI_COMMAND, 2) & PCI_CMD_INTX_OFF)));
	FUZZ_CHECK(!(vp.status & VIRTIO_S_FEATURES_OK) || !(vp.driver_features & ~(OFFERED | V1)));
	FUZZ_CHECK(!(vp.pending >> (QUEUES + 1)) && vp.generation == (uint8_t)vp.generation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	make();
	for (; len >= 8; data += 8, len -= 8)
		access_one(data);
	return 0;
}

/* ---- seeds: a driver's start, interrupts, resets ---- */
static size_t at;

static void put(uint8_t *buf, unsigned what, unsigned size, unsigned off, uint32_t val)
{
	const uint8_t op[8] = {(uint8_t)what,        (uint8_t)(size == 4 ? 2 : size == 2 ? 1 : 0),
			       (uint8_t)off,         (uint8_t)(off >> 8),
			       (uint8_t)val,         (uint8_t)(val >> 8),
			       (uint8_t)(val >> 16), (uint8_t)(val >> 24)};

	memcpy(buf + at, op, 8);
	at += 8;
}

static void seed_start(uint8_t *b)
{
	put(b, 0, 2, PCI_COMMAND, 6);
	put(b, 10, 1, 20, 1);
	put(b, 10, 1, 20, 3);
	put(b, 10, 4, 8, 1);
	put(b, 10, 4, 12, 1);
	put(b, 10, 1, 20, 11);
	for (unsigned q = 0; q < QUEUES; q++) {
		put(b, 10, 2, 22, q);
		put(b, 10, 2, 26, q + 1);
		for (unsigned i = 0; i < 3; i++)
			put(b, 10, 4, 32 + 8 * i, 0x1000 * (i + 1));
		put(b, 10, 2, 28, 1);
	}
	put(b, 10, 1, 20, 15);
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	at = 0;
	if (i > 2)
		return 0;
	seed_start(buf);
	if (i == 1) {
		put(buf, 0, 2, 0x42, 0x8000);
		for (unsigned v = 0; v <= QUEUES; v++) {
			put(buf, 5, 4, 16 * v, 0xfee00000);
			put(buf, 5, 4, 16 * v + 8, 0x40 + v);
			put(buf, 5, 4, 16 * v + 12, 0);
		}
	}
	put(buf, 10, 2, 0x3004, 1);
	put(buf, 7, 1, 0, 2);
	put(buf, 9, 1, 0x1000, 0);
	put(buf, 7, 1, 1, 0);
	if (i == 2)
		put(buf, 0, 2, PCI_COMMAND, 2);
	put(buf, 10, 1, 20, 0);
	put(buf, 7, 1, 2, 0);
	seed_start(buf);
	return at;
}
