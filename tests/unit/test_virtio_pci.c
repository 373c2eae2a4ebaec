/* virtio_pci: capabilities, negotiation, queues, MSI-X and INTx, resets, accesses of every width. */
#include "vcpu/chipset/virtio_pci.h"

#include <errno.h>
#include <string.h>

#include "tests/insn/rng.h"
#include "tests/unit/chipfakes.h"

#define SLOT     3u
#define OFFERED  (1ull << 28 | 1ull << 29 | 1ull << 9)
#define V1       (1ull << 32)
#define MSI_ADDR 0xfee00000ull
#define QUEUES   3u

/* offsets of the common configuration, virtio 1.2 4.1.4.3 */
enum {
	DEV_SEL = 0,
	DEV_FEATURES = 4,
	DRV_SEL = 8,
	DRV_FEATURES = 12,
	CONFIG_VECTOR = 16,
	NUM_QUEUES = 18,
	STATUS = 20,
	GENERATION = 21,
	Q_SEL = 22,
	Q_SIZE = 24,
	Q_VECTOR = 26,
	Q_ENABLE = 28,
	Q_NOTIFY_OFF = 30,
	Q_DESC = 32,
	Q_DRIVER = 40,
	Q_DEVICE = 48
};
#define ISR    0x1000u
#define CONFIG 0x2000u
#define NOTIFY 0x3000u
#define ACK    (VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER)

static struct {
	struct bus io, mem;
	struct pci pci;
	struct virtio_pci vp;
	unsigned kicks[QUEUES], activations, resets, settles, writes;
	uint32_t write_off, write_len;
	struct msg_virtio_activate activation;
	bool reset_at_once;
	bool intx;
	unsigned msis, routes;
	unsigned cpu[QUEUES];
	uint64_t msi_addr;
	uint32_t msi_data;
} t;

static void on_kick(void *dev, unsigned queue)
{
	t.kicks[queue]++;
}

static void on_activate(void *dev, const struct msg_virtio_activate *m)
{
	t.activation = *m;
	t.activations++;
}

static void on_reset(void *dev)
{
	t.resets++;
	if (t.reset_at_once)
		virtio_pci_reset_done(&t.vp);
}

static void on_settle(void *dev)
{
	t.settles++;
}

static void on_config_write(void *dev, uint32_t off, uint32_t len)
{
	t.writes++;
	t.write_off = off;
	t.write_len = len;
}

static void on_route(void *dev, unsigned queue, unsigned cpu)
{
	CU_ASSERT_TRUE_FATAL(queue < QUEUES);
	t.cpu[queue] = cpu;
	t.routes++;
}

static const struct virtio_pci_ops ops = {on_kick, on_activate, on_reset, on_settle, on_config_write, on_route};

static void on_intx(void *ctx, unsigned line, bool level)
{
	t.intx = level;
}

static void on_msi(void *ctx, uint64_t addr, uint32_t data)
{
	t.msis++;
	t.msi_addr = addr;
	t.msi_data = data;
}

/* CPUs as in vectors(): that of the vector; nobody has 15. */
static int on_msi_cpu(void *ctx, uint64_t addr, uint32_t data)
{
	unsigned dest = addr >> 12 & 15;

	return dest == 15 ? -1 : (int)dest;
}

static void setup(void)
{
	memset(&t, 0, sizeof t);
	t.pci.msi_cpu = on_msi_cpu;
	t.pci.intx = on_intx;
	t.pci.msi = on_msi;
	pci_init(&t.pci, &t.io, &t.mem);
	bus_add(&t.io, 0xcf8, 8, &pci_mech1_ops, &t.pci);
	bus_add(&t.mem, PCI_ECAM_BASE, PCI_ECAM_LEN, &pci_ecam_ops, &t.pci);
	t.vp.offer = (struct msg_virtio_offer){.device_id = 2,
					       .features = OFFERED,
					       .nqueues = QUEUES,
					       .queue_max = {128, 256, 1024},
					       .config_len = 60};
	for (unsigned i = 0; i < 60; i++)
		t.vp.offer.config[i] = (uint8_t)(i + 1);
	t.vp.ops = &ops;
	CU_ASSERT_EQUAL_FATAL(virtio_pci_add(&t.pci, &t.vp, SLOT << 3), 0);
}

/* ---- access ---- */

static uint64_t ecam(unsigned reg)
{
	return PCI_ECAM_BASE + (SLOT << 15) + reg;
}

static uint32_t cfg_rd(unsigned reg, unsigned size)
{
	return (uint32_t)bus_read(&t.mem, ecam(reg), size);
}

static void cfg_wr(unsigned reg, uint32_t val, unsigned size)
{
	bus_write(&t.mem, ecam(reg), val, size);
}

static uint64_t bar(unsigned n)
{
	return cfg_rd(PCI_BAR0 + 4 * n, 4) & ~15u;
}

static uint64_t rd(unsigned off, unsigned size)
{
	return bus_read(&t.mem, bar(0) + off, size);
}

static void wr(unsigned off, uint64_t val, unsigned size)
{
	bus_write(&t.mem, bar(0) + off, val, size);
}

/* Offset of the capability @id, for 0x09 of the virtio type @type; 0 when there is none. */
static unsigned cap(unsigned id, unsigned type)
{
	for (unsigned at = cfg_rd(PCI_CAP_PTR, 1); at; at = cfg_rd(at + 1, 1))
		if (cfg_rd(at, 1) == id && (id != 9 || cfg_rd(at + 3, 1) == type))
			return at;
	return 0;
}

static void negotiate(uint64_t features)
{
	wr(STATUS, VIRTIO_S_ACKNOWLEDGE, 1);
	wr(STATUS, ACK, 1);
	for (unsigned i = 0; i < 2; i++) {
		wr(DRV_SEL, i, 4);
		wr(DRV_FEATURES, (uint32_t)(features >> 32 * i), 4);
	}
	wr(STATUS, ACK | VIRTIO_S_FEATURES_OK, 1);
}

static void queue(unsigned q, unsigned vector)
{
	wr(Q_SEL, q, 2);
	wr(Q_SIZE, 64, 2);
	wr(Q_VECTOR, vector, 2);
	wr(Q_DESC, 0x10000 * (q + 1), 8);
	wr(Q_DRIVER, 0x10000 * (q + 1) + 0x1000, 8);
	wr(Q_DEVICE, 0x700000000 + 0x10000 * (q + 1) + 0x2000, 8);
	wr(Q_ENABLE, 1, 2);
}

static void run(void)
{
	cfg_wr(PCI_COMMAND, PCI_CMD_MEM | PCI_CMD_MASTER, 2);
	negotiate(V1 | 1ull << 29);
	for (unsigned q = 0; q < QUEUES; q++)
		queue(q, q + 1);
	wr(CONFIG_VECTOR, 0, 2);
	wr(STATUS, ACK | VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK, 1);
}

static void vectors(bool masked)
{
	for (unsigned i = 0; i <= QUEUES; i++) {
		bus_write(&t.mem, bar(1) + 16 * i, MSI_ADDR + (i << 12), 8);
		bus_write(&t.mem, bar(1) + 16 * i + 8, 0x40 + i, 4);
		bus_write(&t.mem, bar(1) + 16 * i + 12, masked, 4);
	}
}

static void msix(bool on)
{
	cfg_wr(cap(0x11, 0) + 2, on ? 0x8000 : 0, 2);
}

/* ---- tests ---- */

static void test_identity(void)
{
	setup();
	CU_ASSERT_EQUAL(cfg_rd(0, 4), 0x10421af4);
	CU_ASSERT_EQUAL(cfg_rd(PCI_SUBSYS_VENDOR, 4), 0x10421af4);
	CU_ASSERT_TRUE(cfg_rd(PCI_REVISION, 1) >= 1); /* no transitional device */
	CU_ASSERT_EQUAL(cfg_rd(PCI_CLASS, 4) & 0xffffff, 0x010000);
	CU_ASSERT_EQUAL(cfg_rd(PCI_INT_PIN, 1), 1);
	CU_ASSERT_EQUAL(cfg_rd(PCI_STATUS, 2) & PCI_STS_CAPS, PCI_STS_CAPS);
}

static void test_caps(void)
{
	static const struct {
		unsigned type, off, len, cap_len;
	} want[] = {{1, 0, 56, 16}, {2, NOTIFY, 4 * QUEUES, 20}, {3, ISR, 1, 16}, {4, CONFIG, 60, 16}, {5, 0, 0, 20}};
	unsigned at, n = 0;

	setup();
	for (unsigned c = cfg_rd(PCI_CAP_PTR, 1); c; c = cfg_rd(c + 1, 1)) {
		CU_ASSERT_FATAL(!(c & 3) && c >= 0x40 && n++ < 32);
	}
	CU_ASSERT_EQUAL(n, 6);
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
		at = cap(9, want[i].type);
		CU_ASSERT_NOT_EQUAL_FATAL(at, 0);
		CU_ASSERT_EQUAL(cfg_rd(at + 2, 1), want[i].cap_len);
		CU_ASSERT_EQUAL(cfg_rd(at + 4, 1), 0);
		CU_ASSERT_EQUAL(cfg_rd(at + 8, 4), want[i].off);
		CU_ASSERT_EQUAL(cfg_rd(at + 12, 4), want[i].len);
		CU_ASSERT_TRUE(want[i].off + want[i].len <= 0x4000);
		cfg_wr(at + 2, 0xffff, 2); /* read-only */
		CU_ASSERT_EQUAL(cfg_rd(at + 2, 1), want[i].cap_len);
	}
	CU_ASSERT_EQUAL(cfg_rd(cap(9, 2) + 16, 4), 4); /* notify_off_multiplier */
	at = cap(0x11, 0);
	CU_ASSERT_EQUAL(cfg_rd(at + 2, 2), QUEUES); /* table size less one, off, not masked */
	CU_ASSERT_EQUAL(cfg_rd(at + 4, 4), 1);
	CU_ASSERT_EQUAL(cfg_rd(at + 8, 4), 0x801);
	cfg_wr(at + 2, 0xffff, 2);
	CU_ASSERT_EQUAL(cfg_rd(at + 2, 2), 0xc000 | QUEUES);
	cfg_wr(PCI_BAR0, 0xffffffff, 4);
	CU_ASSERT_EQUAL(cfg_rd(PCI_BAR0, 4), 0xffffc000);
}

static void test_features(void)
{
	setup();
	CU_ASSERT_EQUAL(rd(DEV_FEATURES, 4), (uint32_t)OFFERED);
	wr(DEV_SEL, 1, 4);
	CU_ASSERT_EQUAL(rd(DEV_FEATURES, 4), 1);
	wr(DEV_SEL, 2, 4);
	CU_ASSERT_EQUAL(rd(DEV_FEATURES, 4), 0);
	wr(DEV_SEL, 0xffffffff, 4);
	CU_ASSERT_EQUAL(rd(DEV_FEATURES, 4), 0);
	CU_ASSERT_EQUAL(rd(DEV_SEL, 4), 0xffffffff);
	wr(DEV_FEATURES, 0, 4); /* read-only */
	wr(DEV_SEL, 0, 4);
	CU_ASSERT_EQUAL(rd(DEV_FEATURES, 4), (uint32_t)OFFERED);
	wr(DRV_SEL, 2, 4);
	wr(DRV_FEATURES, 0xffffffff, 4);
	CU_ASSERT_EQUAL(t.vp.driver_features, 0);
	CU_ASSERT_EQUAL(rd(DRV_FEATURES, 4), 0);
	negotiate(V1 | 1ull << 9);
	CU_ASSERT_EQUAL(rd(STATUS, 1), ACK | VIRTIO_S_FEATURES_OK);
	wr(DRV_SEL, 0, 4);
	CU_ASSERT_EQUAL(rd(DRV_FEATURES, 4), 1u << 9);
	wr(DRV_FEATURES, 1u << 28, 4); /* too late */
	CU_ASSERT_EQUAL(rd(DRV_FEATURES, 4), 1u << 9);
}

static void test_refused(void)
{
	static const uint64_t bad[] = {0, OFFERED, V1 | 1, V1 | 1ull << 33, V1 | 1ull << 63, ~0ull};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		setup();
		negotiate(bad[i]);
		CU_ASSERT_EQUAL(rd(STATUS, 1), ACK);
		wr(STATUS, ACK | VIRTIO_S_DRIVER_OK, 1); /* without FEATURES_OK nothing starts */
		CU_ASSERT_EQUAL(rd(STATUS, 1), ACK);
		wr(STATUS, ACK | VIRTIO_S_FEATURES_OK | VIRTIO_S_DRIVER_OK, 1);
		CU_ASSERT_EQUAL(rd(STATUS, 1), ACK);
		CU_ASSERT_EQUAL(t.activations, 0);
		negotiate(V1 | OFFERED); /* may try again */
		CU_ASSERT_EQUAL(rd(STATUS, 1), ACK | VIRTIO_S_FEATURES_OK);
	}
}

static void test_status(void)
{
	setup();
	wr(STATUS, VIRTIO_S_NEEDS_RESET, 1); /* not the driver's to set */
	CU_ASSERT_EQUAL(rd(STATUS, 1), 0);
	run();
	CU_ASSERT_EQUAL(t.activations, 1);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15);
	wr(STATUS, VIRTIO_S_ACKNOWLEDGE, 1); /* bits are only added */
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15);
	wr(STATUS, 15, 1);
	CU_ASSERT_EQUAL(t.activations, 1);
	wr(STATUS, 15 | VIRTIO_S_FAILED, 1);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15 | VIRTIO_S_FAILED);
	CU_ASSERT_EQUAL(t.activations, 1);
}

static void test_queues(void)
{
	setup();
	CU_ASSERT_EQUAL(rd(NUM_QUEUES, 2), QUEUES);
	for (unsigned q = 0; q < QUEUES; q++) {
		wr(Q_SEL, q, 2);
		CU_ASSERT_EQUAL(rd(Q_SIZE, 2), t.vp.offer.queue_max[q]);
		CU_ASSERT_EQUAL(rd(Q_NOTIFY_OFF, 2), q);
		CU_ASSERT_EQUAL(rd(Q_VECTOR, 2), 0xffff);
		CU_ASSERT_EQUAL(rd(Q_ENABLE, 2), 0);
	}
	wr(Q_SEL, QUEUES, 2); /* no such queue: size 0, writes do nothing */
	CU_ASSERT_EQUAL(rd(Q_SIZE, 2), 0);
	CU_ASSERT_EQUAL(rd(Q_VECTOR, 2), 0xffff);
	queue(0xffff, 1);
	CU_ASSERT_EQUAL(rd(Q_ENABLE, 2), 0);
	wr(Q_SEL, 1, 2);
	static const uint16_t bad[] = {0, 3, 100, 512, 0xffff};
	wr(Q_SIZE, 32, 2);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		wr(Q_SIZE, bad[i], 2);
		CU_ASSERT_EQUAL(rd(Q_SIZE, 2), 32);
	}
	wr(Q_VECTOR, QUEUES + 1, 2); /* no such vector */
	CU_ASSERT_EQUAL(rd(Q_VECTOR, 2), 0xffff);
	wr(CONFIG_VECTOR, QUEUES + 1, 2);
	CU_ASSERT_EQUAL(rd(CONFIG_VECTOR, 2), 0xffff);
	wr(Q_DESC, 0x123456789abcdef0, 8);
	CU_ASSERT_EQUAL(rd(Q_DESC, 8), 0x123456789abcdef0);
	wr(Q_DESC + 4, 0x55, 4);
	CU_ASSERT_EQUAL(rd(Q_DESC, 8), 0x000000559abcdef0);
	wr(Q_ENABLE, 2, 2);
	CU_ASSERT_EQUAL(rd(Q_ENABLE, 2), 0);
	wr(Q_ENABLE, 1, 2);
	wr(Q_ENABLE, 0, 2); /* only a reset disables */
	CU_ASSERT_EQUAL(rd(Q_ENABLE, 2), 1);
	wr(Q_SIZE, 64, 2);
	wr(Q_DRIVER, 0x1000, 8);
	CU_ASSERT_EQUAL(rd(Q_SIZE, 2), 32);
	CU_ASSERT_EQUAL(rd(Q_DRIVER, 8), 0);
}

static void test_activation(void)
{
	setup();
	cfg_wr(PCI_COMMAND, PCI_CMD_MEM | PCI_CMD_MASTER, 2);
	wr(NOTIFY, 0, 2); /* not yet */
	negotiate(V1);
	queue(2, 1);
	queue(0, 1);
	wr(STATUS, 15, 1);
	CU_ASSERT_EQUAL_FATAL(t.activations, 1);
	CU_ASSERT_EQUAL(t.activation.features, V1);
	CU_ASSERT_EQUAL_FATAL(t.activation.nqueues, 2); /* those enabled */
	CU_ASSERT_EQUAL(t.activation.queue[0].index, 0);
	CU_ASSERT_EQUAL(t.activation.queue[1].index, 2);
	CU_ASSERT_EQUAL(t.activation.queue[1].size, 64);
	CU_ASSERT_EQUAL(t.activation.queue[1].desc, 0x30000);
	CU_ASSERT_EQUAL(t.activation.queue[1].driver, 0x31000);
	CU_ASSERT_EQUAL(t.activation.queue[1].device, 0x700032000);
	queue(1, 1); /* a queue that was left out stays out */
	CU_ASSERT_EQUAL(rd(Q_ENABLE, 2), 0);
	CU_ASSERT_EQUAL(t.kicks[0], 0);
	wr(NOTIFY, 0, 2);
	wr(NOTIFY + 4, 1, 2);
	wr(NOTIFY + 8, 2, 4);
	wr(NOTIFY + 4 * QUEUES, 3, 2); /* beyond the last */
	wr(NOTIFY + 0xffc, 3, 2);
	CU_ASSERT_EQUAL(t.kicks[0], 1);
	CU_ASSERT_EQUAL(t.kicks[1], 1);
	CU_ASSERT_EQUAL(t.kicks[2], 1);
	CU_ASSERT_EQUAL(rd(NOTIFY, 4), 0);
}

static void test_intx(void)
{
	setup();
	run();
	virtio_pci_interrupt(&t.vp, 2);
	CU_ASSERT_TRUE(t.intx);
	CU_ASSERT_EQUAL(cfg_rd(PCI_STATUS, 1) & PCI_STS_INTX, PCI_STS_INTX);
	CU_ASSERT_EQUAL(rd(ISR, 1), 1);
	CU_ASSERT_FALSE(t.intx);
	CU_ASSERT_EQUAL(rd(ISR, 1), 0);
	virtio_pci_broken(&t.vp);
	virtio_pci_interrupt(&t.vp, 1);
	CU_ASSERT_EQUAL(rd(ISR, 4), 3);
	CU_ASSERT_FALSE(t.intx);
	CU_ASSERT_EQUAL(t.msis, 0);
	virtio_pci_interrupt(&t.vp, 1);
	msix(true); /* the line falls, and rises again without MSI-X: it is the OR of the ISR's bits */
	CU_ASSERT_FALSE(t.intx);
	msix(false);
	CU_ASSERT_TRUE(t.intx);
	wr(ISR, 0xff, 1); /* writes do nothing */
	CU_ASSERT_EQUAL(rd(ISR, 1), 1);
	virtio_pci_interrupt(&t.vp, 1);
	t.reset_at_once = true;
	wr(STATUS, 0, 1);
	CU_ASSERT_FALSE(t.intx);
	CU_ASSERT_EQUAL(rd(ISR, 1), 0);
	virtio_pci_interrupt(&t.vp, 7); /* not running */
	CU_ASSERT_FALSE(t.intx);
}

static void test_msix(void)
{
	setup();
	run();
	vectors(false);
	msix(true);
	virtio_pci_interrupt(&t.vp, 1u << 1);
	CU_ASSERT_EQUAL(t.msis, 1);
	CU_ASSERT_EQUAL(t.msi_addr, MSI_ADDR + 0x2000);
	CU_ASSERT_EQUAL(t.msi_data, 0x42);
	CU_ASSERT_FALSE(t.intx);
	CU_ASSERT_EQUAL(rd(ISR, 1), 0);
	virtio_pci_interrupt(&t.vp, 7 | 0xfffffff8u); /* bits of queues that are not there */
	CU_ASSERT_EQUAL(t.msis, 4);
	virtio_pci_config(&t.vp, (const uint8_t[60]){9}, 60);
	CU_ASSERT_EQUAL(t.msis, 5);
	CU_ASSERT_EQUAL(t.msi_data, 0x40);
	CU_ASSERT_FALSE(t.intx);
	CU_ASSERT_EQUAL(rd(ISR, 1), 2); /* told there as well */
	for (unsigned q = 0; q < QUEUES; q++) {
		wr(Q_SEL, q, 2);
		wr(Q_VECTOR, 3, 2);
	}
	virtio_pci_interrupt(&t.vp, 7); /* one vector for all: one message */
	CU_ASSERT_EQUAL(t.msis, 6);
	wr(Q_VECTOR, 0xffff, 2);
	wr(CONFIG_VECTOR, 0xffff, 2);
	virtio_pci_interrupt(&t.vp, 4);
	virtio_pci_broken(&t.vp);
	CU_ASSERT_EQUAL(t.msis, 6);
}

/* The device is told to whom its interrupts go, whatever it is that changes it. */
static void test_routes(void)
{
	setup();
	vectors(false);
	run();
	CU_ASSERT_TRUE(t.routes);
	CU_ASSERT_TRUE(!t.cpu[0] && !t.cpu[1] && !t.cpu[2]); /* the line's */
	msix(true);
	CU_ASSERT_TRUE(t.cpu[0] == 1 && t.cpu[1] == 2 && t.cpu[2] == 3);
	bus_write(&t.mem, bar(1) + 16 * 2, MSI_ADDR + (9 << 12), 4); /* another CPU for the vector of queue 1 */
	CU_ASSERT_TRUE(t.cpu[0] == 1 && t.cpu[1] == 9 && t.cpu[2] == 3);
	wr(Q_SEL, 2, 2);
	wr(Q_VECTOR, 2, 2); /* which queue 2 gets, too */
	CU_ASSERT_TRUE(t.cpu[0] == 1 && t.cpu[1] == 9 && t.cpu[2] == 9);
	bus_write(&t.mem, bar(1) + 16 * 2, MSI_ADDR + (15 << 12), 4); /* nobody */
	CU_ASSERT_TRUE(t.cpu[0] == 1 && t.cpu[1] == 0 && t.cpu[2] == 0);
	wr(Q_VECTOR, 3, 2);
	CU_ASSERT_EQUAL(t.cpu[2], 3);
	wr(Q_VECTOR, 0xffff, 2);
	CU_ASSERT_EQUAL(t.cpu[2], 0);
	msix(false);
	CU_ASSERT_TRUE(!t.cpu[0] && !t.cpu[1] && !t.cpu[2]);
}

static void test_masks(void)
{
	setup();
	run();
	vectors(true);
	msix(true);
	virtio_pci_interrupt(&t.vp, 3);
	virtio_pci_interrupt(&t.vp, 1);
	CU_ASSERT_EQUAL(t.msis, 0);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 0x800, 8), 6);
	bus_write(&t.mem, bar(1) + 16 + 12, 0, 4);
	CU_ASSERT_EQUAL(t.msis, 1);
	CU_ASSERT_EQUAL(t.msi_data, 0x41);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 0x800, 4), 4);
	bus_write(&t.mem, bar(1) + 0x800, 0, 4); /* read-only */
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 0x800, 1), 4);
	msix(false); /* while it is off nothing leaves */
	bus_write(&t.mem, bar(1) + 32 + 12, 0, 4);
	CU_ASSERT_EQUAL(t.msis, 1);
	cfg_wr(cap(0x11, 0) + 2, 0xc000, 2); /* on, all masked */
	CU_ASSERT_EQUAL(t.msis, 1);
	virtio_pci_interrupt(&t.vp, 1);
	cfg_wr(cap(0x11, 0) + 3, 0x80, 1);
	CU_ASSERT_EQUAL(t.msis, 3);
	bus_write(&t.mem, bar(1) + 12, 0xffffffff, 4);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 12, 4), 1);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 16, 8), MSI_ADDR + 0x1000);
	bus_write(&t.mem, bar(1), 0xfee00003, 4);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1), 4), 0xfee00000);
	bus_write(&t.mem, bar(1) + 16 * (QUEUES + 1), 1, 4); /* beyond the table */
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 16 * (QUEUES + 1), 4), 0);
	bus_write(&t.mem, bar(1) + 8, 1, 2); /* only whole words (PCI 3.0 6.8.2) */
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 8, 4), 0x40);
	t.reset_at_once = true;
	virtio_pci_interrupt(&t.vp, 1);
	wr(STATUS, 0, 1);
	CU_ASSERT_EQUAL(t.vp.pending, 0);
	virtio_pci_reset(&t.vp);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 16, 8), 0);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(1) + 16 + 12, 4), 1);
}

static void test_config(void)
{
	uint8_t next[60] = {7, 7, 7};
	uint64_t gen;

	setup();
	CU_ASSERT_EQUAL(rd(CONFIG, 8), 0x0807060504030201);
	CU_ASSERT_EQUAL(rd(CONFIG + 3, 2), 0x0504);
	CU_ASSERT_EQUAL(rd(CONFIG + 58, 4), 0x3c3b); /* the end */
	CU_ASSERT_EQUAL(rd(CONFIG + 60, 4), 0);
	CU_ASSERT_EQUAL(rd(CONFIG + 0xfff, 1), 0);
	gen = rd(GENERATION, 1);
	virtio_pci_config(&t.vp, next, sizeof next);
	CU_ASSERT_NOT_EQUAL(rd(GENERATION, 1), gen);
	CU_ASSERT_EQUAL(rd(CONFIG, 4), 0x00070707);
	CU_ASSERT_FALSE(t.intx); /* before DRIVER_OK nobody is told */
	gen = rd(GENERATION, 1);
	wr(GENERATION, 99, 1);
	CU_ASSERT_EQUAL(rd(GENERATION, 1), gen);
	wr(CONFIG, 0xff, 1);
	wr(CONFIG + 33, 0xff, 1);
	wr(CONFIG + 32, 0xffff, 2);
	wr(CONFIG + 0xffe, 0xffff, 2);
	CU_ASSERT_EQUAL(t.writes, 0);
	wr(CONFIG + 32, 1, 1); /* writeback of a disk, the only field a driver writes */
	CU_ASSERT_EQUAL(t.writes, 1);
	CU_ASSERT_EQUAL(t.write_off, 32);
	CU_ASSERT_EQUAL(t.write_len, 1);
	CU_ASSERT_EQUAL(rd(CONFIG + 32, 2), 1);
	virtio_pci_config(&t.vp, next, 3); /* shorter than ours: the rest stays */
	CU_ASSERT_EQUAL(rd(CONFIG + 32, 1), 1);
}

static void test_window(void)
{
	unsigned at;

	setup();
	at = cap(9, 5);
	cfg_wr(at + 8, STATUS, 4);
	cfg_wr(at + 12, 1, 4);
	cfg_wr(at + 16, VIRTIO_S_ACKNOWLEDGE, 4);
	CU_ASSERT_EQUAL(rd(STATUS, 1), VIRTIO_S_ACKNOWLEDGE);
	CU_ASSERT_EQUAL(cfg_rd(at + 16, 1), VIRTIO_S_ACKNOWLEDGE);
	cfg_wr(at + 8, NUM_QUEUES, 4);
	cfg_wr(at + 12, 2, 4);
	CU_ASSERT_EQUAL(cfg_rd(at + 16, 2), QUEUES);
	cfg_wr(at + 8, CONFIG + 4, 4);
	cfg_wr(at + 12, 4, 4);
	CU_ASSERT_EQUAL(cfg_rd(at + 16, 4), 0x08070605);
	/* what it does not reach: sizes, places, another BAR */
	static const struct {
		uint32_t bar, off, len;
	} bad[] = {{0, CONFIG, 3}, {0, CONFIG, 8},    {0, CONFIG, 0},     {0, CONFIG + 1, 4},
		   {0, 0x4000, 4}, {0, ~0u & ~3u, 4}, {1, 0x2000, 4},     {5, CONFIG, 4},
		   {255, 0, 4},    {0, 0x3ffe, 4},    {0, 0x80000000, 4}, {0, CONFIG, 0x80000004}};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		cfg_wr(at + 4, bad[i].bar, 1);
		cfg_wr(at + 8, bad[i].off, 4);
		cfg_wr(at + 12, bad[i].len, 4);
		cfg_wr(at + 16, 0x5a5a5a5a, 4);
		CU_ASSERT_EQUAL(cfg_rd(at + 16, 4), 0x5a5a5a5a); /* plain memory */
	}
	cfg_wr(at + 4, 0, 1);
	run();
	cfg_wr(at + 8, NOTIFY + 4, 4);
	cfg_wr(at + 12, 2, 4);
	cfg_wr(at + 16, 1, 2);
	CU_ASSERT_EQUAL(t.kicks[1], 1);
	cfg_wr(PCI_COMMAND, PCI_CMD_MASTER, 2); /* it works while BARs do not */
	cfg_wr(at + 16, 1, 2);
	CU_ASSERT_EQUAL(t.kicks[1], 2);
}

static void test_reset(void)
{
	setup();
	run();
	wr(STATUS, 0, 1);
	CU_ASSERT_EQUAL(t.resets, 1);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15); /* not before nothing is in flight */
	wr(STATUS, 0, 1);
	CU_ASSERT_EQUAL(t.resets, 1);
	wr(NOTIFY, 0, 2);
	CU_ASSERT_EQUAL(t.kicks[0], 0);
	wr(STATUS, 15, 1);
	wr(Q_SEL, 2, 2);
	wr(CONFIG_VECTOR, 2, 2);
	wr(CONFIG + 32, 1, 1);
	CU_ASSERT_EQUAL(t.writes, 0);
	virtio_pci_interrupt(&t.vp, 1);
	virtio_pci_broken(&t.vp);
	CU_ASSERT_FALSE(t.intx);
	virtio_pci_reset_done(&t.vp);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 0);
	CU_ASSERT_EQUAL(rd(Q_SEL, 2), 0);
	CU_ASSERT_EQUAL(rd(CONFIG_VECTOR, 2), 0xffff);
	CU_ASSERT_EQUAL(t.vp.driver_features, 0);
	for (unsigned q = 0; q < QUEUES; q++) {
		wr(Q_SEL, q, 2);
		CU_ASSERT_EQUAL(rd(Q_ENABLE, 2), 0);
		CU_ASSERT_EQUAL(rd(Q_SIZE, 2), t.vp.offer.queue_max[q]);
		CU_ASSERT_EQUAL(rd(Q_DESC, 8) | rd(Q_DRIVER, 8) | rd(Q_DEVICE, 8), 0);
		CU_ASSERT_EQUAL(rd(Q_VECTOR, 2), 0xffff);
	}
	run();
	CU_ASSERT_EQUAL(t.activations, 2);
	virtio_pci_reset_done(&t.vp); /* nobody asked */
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15);
	pci_reset(&t.pci); /* the machine */
	virtio_pci_reset(&t.vp);
	CU_ASSERT_EQUAL(t.resets, 2);
	CU_ASSERT_TRUE(t.vp.resetting);
	virtio_pci_reset_done(&t.vp);
	virtio_pci_reset(&t.vp); /* not running: done at once */
	CU_ASSERT_EQUAL(t.resets, 2);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 0);
}

static void test_needs_reset(void)
{
	setup();
	virtio_pci_broken(&t.vp); /* not running: the driver has done nothing */
	CU_ASSERT_EQUAL(rd(STATUS, 1), 0);
	run();
	uint64_t gen = rd(GENERATION, 1);
	virtio_pci_broken(&t.vp);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15 | VIRTIO_S_NEEDS_RESET);
	CU_ASSERT_TRUE(t.intx);
	CU_ASSERT_EQUAL(rd(ISR, 1), 2);
	CU_ASSERT_NOT_EQUAL(rd(GENERATION, 1), gen);
	wr(STATUS, 15, 1);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15 | VIRTIO_S_NEEDS_RESET);
	t.reset_at_once = true;
	wr(STATUS, 0, 1);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 0);
	run();
	CU_ASSERT_EQUAL(rd(STATUS, 1), 15);
	CU_ASSERT_EQUAL(t.activations, 2);
}

static void test_master(void)
{
	setup();
	run();
	cfg_wr(PCI_COMMAND, PCI_CMD_MEM, 2);
	CU_ASSERT_EQUAL(t.resets, 1);
	CU_ASSERT_EQUAL(t.settles, 1);
	cfg_wr(PCI_COMMAND, PCI_CMD_MEM, 2); /* once */
	CU_ASSERT_EQUAL(t.resets, 1);
	virtio_pci_reset_done(&t.vp);
	CU_ASSERT_EQUAL(rd(STATUS, 1), 0);
	run();
	CU_ASSERT_EQUAL(t.activations, 2);
	t.reset_at_once = true;
	cfg_wr(PCI_COMMAND + 1, 4, 1); /* the other half: INTx off */
	CU_ASSERT_EQUAL(t.resets, 1);
	cfg_wr(PCI_COMMAND, PCI_CMD_MEM, 1);
	CU_ASSERT_EQUAL(t.resets, 2);
	CU_ASSERT_EQUAL(t.settles, 1); /* nothing to wait for */
	cfg_wr(PCI_COMMAND, PCI_CMD_MEM | PCI_CMD_MASTER, 2);
	cfg_wr(PCI_COMMAND, PCI_CMD_MEM, 2); /* not running */
	CU_ASSERT_EQUAL(t.resets, 2);
}

/* Narrow and odd reads see the bytes of the registers; only whole, aligned fields can be written (virtio 1.2 4.1.3.1). */
static void test_widths(void)
{
	uint8_t all[64];

	setup();
	queue(0, 1);
	for (unsigned i = 0; i < 64; i++)
		all[i] = (uint8_t)rd(i, 1);
	for (unsigned size = 1; size <= 8; size *= 2)
		for (unsigned off = 0; off + size <= 64; off++) {
			uint64_t v = rd(off, size);
			CU_ASSERT_EQUAL(memcmp(&v, all + off, size), 0);
		}
	CU_ASSERT_EQUAL(rd(56, 8), 0);
	wr(Q_SEL, 1, 2);
	for (unsigned i = 0; i < 64; i++)
		all[i] = (uint8_t)rd(i, 1);
	for (unsigned size = 1; size <= 4; size *= 2)
		for (unsigned off = 0; off < 64; off++) {
			bool one = off == STATUS || off == GENERATION;
			bool two = (off >= CONFIG_VECTOR && off < STATUS) || (off >= Q_SEL && off < Q_DESC);
			if (size != (one ? 1u : two ? 2u : 4u) || off % size || off >= 56)
				wr(off, 0x01010101, size);
		}
	for (unsigned i = 0; i < 64; i++)
		CU_ASSERT_EQUAL(rd(i, 1), all[i]);
	cfg_wr(PCI_BAR0 + 4, 0xc8000000, 4);
	CU_ASSERT_EQUAL(bus_read(&t.mem, bar(0) + 0x3ffe, 4), 0xffff0000); /* half of it is not ours */
	wr(0x3ffe, 1, 4);
}

/* Any accesses whatever: nothing is told to the device that breaks the order activate, reset. */
static void test_random(void)
{
	struct rng r = {7};
	unsigned balance = 0;

	setup();
	for (int i = 0; i < 300000; i++) {
		unsigned size = 1u << rnd(&r) % 4, what = (unsigned)(rnd(&r) % 16);
		uint64_t off = rnd(&r) % 4 ? rnd(&r) % 64 : rnd(&r) % 0x4000, val = rnd(&r) >> rnd(&r) % 64;
		bool was = t.vp.active;
		unsigned resets = t.resets, activations = t.activations;

		switch (what) {
		case 0: run(); break;
		case 1: virtio_pci_interrupt(&t.vp, (uint32_t)val); break;
		case 2: virtio_pci_reset_done(&t.vp); break;
		case 3: virtio_pci_broken(&t.vp); break;
		case 4: cfg_wr((unsigned)(off & 0xff), (uint32_t)val, size); break;
		case 5: cfg_wr(PCI_BAR0, PCI_MMIO_BASE, 4), cfg_wr(PCI_BAR0 + 4, PCI_MMIO_BASE + 0x4000, 4); break;
		case 6: bus_write(&t.mem, bar(1) + off % 0x1000, val, size); break;
		case 7: bus_read(&t.mem, bar(1) + off % 0x1000, size); break;
		case 8: rd((unsigned)off, size); break;
		case 9: cfg_rd((unsigned)(off & 0xff), size); break;
		default: wr((unsigned)off, val, size); break;
		}
		balance += t.activations - activations;
		CU_ASSERT_FATAL(t.activations - activations <= 1 && t.resets - resets <= 1);
		CU_ASSERT_FATAL(!(t.activations > activations && was)); /* only one that is not running */
		CU_ASSERT_FATAL(!(t.resets > resets && !was));
		CU_ASSERT_FATAL(t.vp.resetting <= t.vp.active);
		CU_ASSERT_FATAL(!t.vp.active || !(t.vp.driver_features & ~(OFFERED | V1)));
		CU_ASSERT_FATAL(t.vp.pending < 1u << (QUEUES + 1));
	}
	CU_ASSERT_TRUE(balance > 100);
}

CU_ErrorCode suite_virtio_pci(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} tests[] = {
		{"identity", test_identity},
		{"capabilities", test_caps},
		{"features", test_features},
		{"features refused", test_refused},
		{"status", test_status},
		{"queues", test_queues},
		{"activation", test_activation},
		{"INTx and ISR", test_intx},
		{"MSI-X", test_msix},
		{"MSI-X routes", test_routes},
		{"MSI-X masks", test_masks},
		{"device configuration", test_config},
		{"window in configuration space", test_window},
		{"reset", test_reset},
		{"needs reset", test_needs_reset},
		{"bus mastering off", test_master},
		{"widths", test_widths},
		{"random accesses", test_random},
	};
	CU_pSuite s = CU_add_suite("virtio_pci", NULL, NULL);

	for (size_t i = 0; s && i < sizeof tests / sizeof tests[0]; i++)
		if (!CU_add_test(s, tests[i].name, tests[i].fn))
			break;
	return CU_get_error();
}
