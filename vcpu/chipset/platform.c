/*
 * The machine: chips wired once, in one table, and the lock over all of them.
 *
 * Invariant: every public function leaves PEND_INTR of every vcpu and the armed
 * timer in step with the chips' state before it drops the lock.
 *
 * The local APICs are not under it (lapic.h): what a vcpu does with its own, and interrupts that CPUs send each other, take no
 * lock.
 *
 * Lock order: the platform's lock is innermost but for what vcpu_kick() and the
 * cfg callbacks take; those never call back in here.  It is not taken in
 * signal handlers.
 */
#include "vcpu/chipset/platform.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/gmem.h"
#include "common/rank.h"
#include "vcpu/chipset/ahci.h"
#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"
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
#include "vcpu/chipset/pci.h"
#include "vcpu/chipset/pflash.h"
#include "vcpu/chipset/pm.h"
#include "vcpu/chipset/savechips.h"
#include "vcpu/chipset/sysports.h"
#include "vcpu/chipset/timer.h"
#include "vcpu/chipset/vga.h"
#include "vcpu/chipset/virtio_pci.h"
#include "vcpu/cpu/start.h"
#include "vcpu/kick.h"
#include "vcpu/vcpu.h"

#define ISA_IRQS  16
#define COMS      4
#define PCI_SLOTS 32

#define WATCHDOG_SLOT 28

/* Who drives an ISA interrupt line: a line is high while any of its sources is. */
enum source { SRC_CHIP, SRC_COM, SRC_PCI = SRC_COM + COMS, SRC_EXTERNAL, SRC_HPET };

struct platform {
	pthread_mutex_t lock;
	struct vm *vm;
	struct platform_config cfg;
	struct hclock clock;
	struct timerq timers;                 /* of all chips but the local APICs; CPU 0's thread runs it */
	struct timerq apic_timers[LAPIC_MAX]; /* each is its vcpu's thread's */
	struct bus pio, mmio;
	uint8_t isa[ISA_IRQS];                    /* one bit per source */
	uint32_t gsi_external, gsi_pci, gsi_hpet; /* lines above the ISA ones, by source */
	bool hpet_legacy;                         /* the HPET has the lines of 8254 and clock */
	struct lapics lapics;
	struct ioapic ioapic;
	struct i8259_pair pic;
	struct i8254 pit;
	struct mc146818 rtc;
	struct ns16550 com[COMS];
	struct i8042 kbc;
	struct pm pm;
	struct sysports ports;
	struct debugexit debugexit;
	struct pci pci;
	struct i6300esb watchdog;
	struct platform_firmware fw; /* with firmware */
	struct fwcfg fwcfg;
	struct pflash flash;
	struct pam pam;
	struct vga vga;
	struct hpet hpet;
	struct virtio_pci *virtio[PCI_SLOTS];
	unsigned nvirtio;
	struct ahci *ahci[PCI_SLOTS];
	unsigned nahci;
	struct vcpu *by; /* whose access is being served */
};

static void lock(struct platform *p)
{
	struct vcpu *v;

	if (!pthread_mutex_trylock(&p->lock))
		return;
	v = kick_this();
	if (v)
		v->stats.lock_waits++;
	pthread_mutex_lock(&p->lock);
}

/* For an access of a CPU's; unlock() ends it. */
static void lock_for(struct platform *p, struct vcpu *v)
{
	lock(p);
	p->by = v;
}

static void unlock(struct platform *p)
{
	p->by = NULL;
	pthread_mutex_unlock(&p->lock);
}

/* ---- interrupt wires ---- */
static void isa_drive(struct platform *p, unsigned irq, unsigned source, bool level)
{
	uint8_t old = p->isa[irq], new = (uint8_t)(level ? old | 1u << source : old & ~(1u << source));

	p->isa[irq] = new;
	if (!old == !new)
		return;
	i8259_set(&p->pic, irq, new);
	if (irq != 2)
		ioapic_set(&p->ioapic, irq ? irq : 2, new); /* the MADT tells that IRQ 0 is on pin 2 */
}

/* irq_out of the chips: line = IRQ | source << 8 */
static void chip_irq(void *ctx, unsigned line, bool level)
{
	struct platform *p = ctx;

	if (p->hpet_legacy && ((line & 0xff) == 0 || (line & 0xff) == 8))
		level = false;
	isa_drive(p, line & 0xff, line >> 8, level);
}

static struct irq_out isa_wire(struct platform *p, unsigned irq, unsigned source)
{
	return (struct irq_out){chip_irq, p, irq | source << 8};
}

static void pic_intr(void *ctx, unsigned line, bool level)
{
	struct platform *p = ctx;

	lapics_extint(&p->lapics, level);
}

/* Of a local APIC, whose vcpu holds no lock. */
static int pic_ack(void *ctx)
{
	struct platform *p = ctx;
	int vec = -1;

	lock(p);
	if (p->lapics.extint)
		vec = i8259_ack(&p->pic);
	unlock(p);
	return vec;
}

static void apic_eoi(void *ctx, uint8_t vector)
{
	struct platform *p = ctx;

	lock(p);
	ioapic_eoi(&p->ioapic, vector);
	unlock(p);
}

static void gsi_drive(struct platform *p, unsigned gsi)
{
	ioapic_set(&p->ioapic, gsi, (p->gsi_external | p->gsi_pci | p->gsi_hpet) >> gsi & 1);
}

/* INTx goes to GSI 16-19, and through the LPC bridge's routing to the 8259s. */
static void pci_wires(struct platform *p)
{
	uint16_t routed = 0;

	for (unsigned i = 0; i < 4; i++) {
		int irq = pci_route(&p->pci, i);

		if (p->pci.asserted[i] && irq > 2)
			routed |= (uint16_t)(1u << irq);
	}
	for (unsigned irq = 3; irq < ISA_IRQS; irq++) {
		uint8_t bit = 1u << SRC_PCI, old = p->isa[irq];

		p->isa[irq] = routed >> irq & 1 ? old | bit : old & (uint8_t)~bit;
		if (!old != !p->isa[irq])
			i8259_set(&p->pic, irq, p->isa[irq]); /* not to the IOAPIC: the function is on 16-19 there */
	}
}

static void pci_intx(void *ctx, unsigned line, bool level)
{
	struct platform *p = ctx;
	uint32_t bit = 1u << (PCI_GSI_BASE + line);

	p->gsi_pci = level ? p->gsi_pci | bit : p->gsi_pci & ~bit;
	gsi_drive(p, PCI_GSI_BASE + line);
	pci_wires(p);
}

/* A message-signalled interrupt (SDM 3A 11.11). */
static struct apic_msg msi_msg(uint64_t addr, uint32_t data)
{
	return (struct apic_msg){
		.dest = addr >> 12 & 0xff,
		.logical = addr >> 2 & 1,
		.vector = (uint8_t)data,
		.mode = data >> 8 & 7,
		.level = data >> 15 & 1,
	};
}

static void msi_deliver(struct platform *p, uint64_t addr, uint32_t data)
{
	struct apic_msg m = msi_msg(addr, data);

	if (addr >> 20 == LAPIC_BASE >> 20)
		lapics_deliver(&p->lapics, &m);
}

static int pci_msi_cpu(void *ctx, uint64_t addr, uint32_t data)
{
	struct platform *p = ctx;
	struct apic_msg m = msi_msg(addr, data);

	return addr >> 20 == LAPIC_BASE >> 20 ? lapics_target(&p->lapics, &m) : -1;
}

static void pci_msi(void *ctx, uint64_t addr, uint32_t data)
{
	msi_deliver(ctx, addr, data);
}

static void lpc_written(struct pci_func *f, unsigned off, unsigned size)
{
	pci_wires(f->dev);
}

static void host_written(struct pci_func *f, unsigned off, unsigned size)
{
	struct platform *p = f->dev;

	pci_map_ecam(&p->pci);
	if (p->cfg.firmware)
		pam_set(&p->pam, pci_pam(&p->pci));
}

/* ---- events upward; console output comes first ---- */
static void flush_consoles(struct platform *p)
{
	for (unsigned i = 0; i < COMS; i++)
		if (p->com[i].tx_n)
			ns16550_flush(&p->com[i]);
}

static void on_power_off(void *ctx)
{
	struct platform *p = ctx;

	flush_consoles(p);
	if (p->cfg.power_off)
		p->cfg.power_off(p->cfg.ctx);
}

static void on_reset(void *ctx)
{
	struct platform *p = ctx;

	flush_consoles(p);
	if (p->cfg.reset)
		p->cfg.reset(p->cfg.ctx);
}

static void on_a20(void *ctx, bool on)
{
	struct platform *p = ctx;

	if (p->cfg.a20)
		p->cfg.a20(p->cfg.ctx, on);
}

static void on_debug_exit(void *ctx, int status)
{
	struct platform *p = ctx;

	flush_consoles(p);
	if (p->cfg.debug_exit_cb)
		p->cfg.debug_exit_cb(p->cfg.ctx, status);
}

static void on_debugcon(void *ctx, uint8_t byte)
{
	struct platform *p = ctx;

	if (p->cfg.debugcon)
		p->cfg.debugcon(p->cfg.ctx, byte);
}

static void on_arm(void *ctx, uint64_t deadline)
{
	struct platform *p = ctx;

	if (p->cfg.arm)
		p->cfg.arm(p->cfg.ctx, p->vm->vcpu[0], VCPU_TIMER_PLATFORM, deadline);
}

static void on_apic_arm(void *ctx, uint64_t deadline)
{
	struct lapic *l = ctx;
	struct platform *p = l->all->ctx;

	if (p->cfg.arm)
		p->cfg.arm(p->cfg.ctx, l->v, VCPU_TIMER_APIC, deadline);
}

static void on_init_sipi(void *ctx, struct vcpu *v, int vector)
{
	start_post(v, vector);
}

static uint8_t cf9_read(void *ctx)
{
	struct platform *p = ctx;

	return pm_rst_cnt_read(&p->pm);
}

static void cf9_write(void *ctx, uint8_t val)
{
	struct platform *p = ctx;

	pm_rst_cnt_write(&p->pm, val);
}

/* ---- the machine, chip by chip ---- */
static int lapic_create(struct platform *p)
{
	struct lapics *s = &p->lapics;
	struct timerq *q[LAPIC_MAX];

	s->extint_ack = pic_ack;
	s->eoi = apic_eoi;
	s->init_sipi = on_init_sipi;
	s->ctx = p;
	for (int i = 0; i < p->cfg.ncpus; i++) {
		if (!p->vm->vcpu[i])
			return -EINVAL;
		q[i] = &p->apic_timers[i];
		timerq_init(q[i], on_apic_arm, &s->apic[i]);
	}
	lapics_init(s, &p->clock, q, p->vm->vcpu, p->cfg.ncpus);
	return 0; /* its page is decoded ahead of the bus */
}

static void lapic_power(struct platform *p)
{
	lapics_reset(&p->lapics);
}

static int ioapic_create(struct platform *p)
{
	ioapic_init(&p->ioapic, &p->lapics);
	return bus_add(&p->mmio, IOAPIC_BASE, IOAPIC_LEN, &ioapic_ops, &p->ioapic);
}

static void ioapic_power(struct platform *p)
{
	ioapic_reset(&p->ioapic);
}

static int pic_create(struct platform *p)
{
	i8259_init(&p->pic, (struct irq_out){pic_intr, p, 0});
	return bus_add(&p->pio, 0x20, 2, &i8259_master_ops, &p->pic) |
	       bus_add(&p->pio, 0xa0, 2, &i8259_slave_ops, &p->pic) |
	       bus_add(&p->pio, 0x4d0, 2, &i8259_elcr_ops, &p->pic);
}

static void pic_power(struct platform *p)
{
	i8259_reset(&p->pic);
}

static int pit_create(struct platform *p)
{
	i8254_init(&p->pit, &p->clock, &p->timers, isa_wire(p, 0, SRC_CHIP));
	return bus_add(&p->pio, 0x40, 4, &i8254_ops, &p->pit) | bus_add(&p->pio, 0x61, 1, &i8254_port61_ops, &p->pit);
}

static void pit_power(struct platform *p)
{
	i8254_reset(&p->pit);
}

static int rtc_create(struct platform *p)
{
	uint64_t low = p->cfg.ram_size < GMEM_LOW_MAX ? p->cfg.ram_size : GMEM_LOW_MAX;

	mc146818_init(&p->rtc, &p->clock, &p->timers, isa_wire(p, 8, SRC_CHIP), low, p->cfg.ram_size - low);
	return bus_add(&p->pio, 0x70, 2, &mc146818_ops, &p->rtc);
}

static void rtc_power(struct platform *p)
{
	mc146818_reset(&p->rtc);
}

static int com_create(struct platform *p)
{
	static const struct {
		uint16_t port;
		uint8_t irq;
	} at[COMS] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};
	int err = 0;

	for (unsigned i = 0; i < COMS; i++) {
		ns16550_init(&p->com[i], &p->clock, &p->timers, isa_wire(p, at[i].irq, SRC_COM + i), p->cfg.com_out[i],
			     p->cfg.com_out[i] >= 0 || p->cfg.com_in[i] >= 0);
		err |= bus_add(&p->pio, at[i].port, 8, &ns16550_ops, &p->com[i]);
	}
	return err;
}

static void com_power(struct platform *p)
{
	for (unsigned i = 0; i < COMS; i++)
		ns16550_reset(&p->com[i]);
}

static int kbc_create(struct platform *p)
{
	i8042_init(&p->kbc, isa_wire(p, 1, SRC_CHIP), on_reset, on_a20, p);
	return bus_add(&p->pio, 0x60, 1, &i8042_ops, &p->kbc) | bus_add(&p->pio, 0x64, 1, &i8042_command_ops, &p->kbc);
}

static void kbc_power(struct platform *p)
{
	i8042_reset(&p->kbc);
}

static int pm_create(struct platform *p)
{
	p->pm.power_off = on_power_off;
	p->pm.reset = on_reset;
	p->pm.ctx = p;
	pm_init(&p->pm, &p->clock, &p->timers, isa_wire(p, PM_SCI_GSI, SRC_CHIP));
	return bus_add(&p->pio, PM_BASE, PM_LEN, &pm_ops, &p->pm);
}

static void pm_power(struct platform *p)
{
	pm_reset(&p->pm);
}

static int ports_create(struct platform *p)
{
	p->ports.reset = on_reset;
	p->ports.a20 = on_a20;
	p->ports.ctx = p;
	sysports_reset(&p->ports);
	return bus_add(&p->pio, 0x80, 1, &sysports_post_ops, &p->ports) |
	       bus_add(&p->pio, 0x92, 1, &sysports_92_ops, &p->ports);
}

static void ports_power(struct platform *p)
{
	sysports_reset(&p->ports);
}

static int debugexit_create(struct platform *p)
{
	int err = 0;

	p->debugexit = (struct debugexit){on_debug_exit, on_debugcon, p};
	if (p->cfg.firmware_log)
		err = bus_add(&p->pio, FIRMWARE_LOG_PORT, 1, &debugcon_ops, &p->debugexit);
	if (!p->cfg.debug_exit || err)
		return err;
	return bus_add(&p->pio, DEBUGEXIT_PORT, 4, &debugexit_ops, &p->debugexit) |
	       bus_add(&p->pio, DEBUGCON_PORT, 1, &debugcon_ops, &p->debugexit);
}

static int pci_create(struct platform *p)
{
	p->pci.intx = pci_intx;
	p->pci.msi = pci_msi;
	p->pci.msi_cpu = pci_msi_cpu;
	p->pci.cf9_read = cf9_read;
	p->pci.cf9_write = cf9_write;
	p->pci.ctx = p;
	p->pci.firmware = p->cfg.firmware;
	pci_init(&p->pci, &p->pio, &p->mmio);
	p->pci.lpc.written = lpc_written;
	p->pci.lpc.dev = p;
	p->pci.host.written = host_written;
	p->pci.host.dev = p;
	pci_map_ecam(&p->pci);
	return bus_add(&p->pio, 0xcf8, 8, &pci_mech1_ops, &p->pci);
}

static void pci_power(struct platform *p)
{
	pci_reset(&p->pci); /* and by host_written() what the host bridge maps */
	for (unsigned i = 0; i < p->nvirtio; i++)
		virtio_pci_reset(p->virtio[i]);
	for (unsigned i = 0; i < p->nahci; i++)
		ahci_reset(p->ahci[i]);
}

/* ---- firmware ---- */
static uint8_t *flash_at(void *ctx, uint64_t off, bool write)
{
	struct platform *p = ctx;
	uint8_t *page = gmem_frame_ptr(p->vm->mem, (p->vm->mem->size + off) >> GMEM_PAGE_SHIFT,
				       GMEM_READ | (write ? GMEM_WRITE | GMEM_PROGRAM : 0));

	return page ? page + off % GMEM_PAGE_SIZE : NULL;
}

static void on_flash_chip(void *ctx, bool chip)
{
	struct platform *p = ctx;

	p->fw.flash_chip(p->fw.ctx, chip);
}

static void on_flash_changed(void *ctx, uint64_t off, uint64_t len)
{
	struct platform *p = ctx;

	p->fw.flash_changed(p->fw.ctx, off, len);
}

static int firmware_create(struct platform *p)
{
	if (!p->cfg.firmware)
		return 0;
	p->fw = *p->cfg.firmware;
	p->fwcfg.selected = p->fw.selected;
	p->fwcfg.copy = p->fw.copy;
	p->fwcfg.ctx = p->fw.ctx;
	fwcfg_init(&p->fwcfg);
	p->flash.at = flash_at;
	p->flash.mode = on_flash_chip;
	p->flash.changed = on_flash_changed;
	p->flash.ctx = p;
	pflash_init(&p->flash, p->fw.rom_size, p->fw.bank);
	p->pam.mem = p->vm->mem;
	p->pam.changed = p->fw.shadow;
	p->pam.ctx = p->fw.ctx;
	return bus_add(&p->pio, FWCFG_PORT, 2, &fwcfg_ops, &p->fwcfg) |
	       bus_add(&p->pio, FWCFG_DMA_PORT, 8, &fwcfg_dma_ops, &p->fwcfg) |
	       bus_add(&p->mmio, (1ull << 32) - p->fw.rom_size, p->fw.rom_size, &pflash_ops, &p->flash) |
	       bus_add(&p->mmio, GMEM_SHADOW_BASE, GMEM_SHADOW_PAGES * GMEM_PAGE_SIZE, &pam_ops, &p->pam);
}

static void firmware_power(struct platform *p)
{
	if (!p->cfg.firmware)
		return;
	fwcfg_reset(&p->fwcfg);
	pflash_reset(&p->flash);
}

struct fwcfg *platform_fwcfg(struct platform *p)
{
	return p->cfg.firmware ? &p->fwcfg : NULL;
}

struct vcpu *platform_cpu(struct platform *p)
{
	return p->by;
}

uint64_t platform_ecam(struct platform *p)
{
	return p->pci.ecam;
}

static void on_watchdog(void *ctx)
{
	struct platform *p = ctx;

	flush_consoles(p);
	if (p->cfg.watchdog_cb)
		p->cfg.watchdog_cb(p->cfg.ctx);
}

/* ---- display and HPET, of machines with firmware ---- */
static int vga_create(struct platform *p)
{
	if (!p->cfg.firmware)
		return 0;
	vga_init(&p->vga, &p->clock);
	return bus_add(&p->pio, VGA_PORT, VGA_LEN, &vga_ops, &p->vga);
}

static void vga_power(struct platform *p)
{
	if (p->cfg.firmware)
		vga_reset(&p->vga);
}

bool platform_screen(struct platform *p, struct vga_screen *s)
{
	if (!p->cfg.firmware)
		return false;
	lock(p);
	vga_screen(&p->vga, s);
	unlock(p);
	return true;
}

/* Pins 2 and 8 are those of IRQ 0 and 8. */
static void hpet_irq(void *ctx, unsigned gsi, bool level)
{
	struct platform *p = ctx;

	if (gsi == 2 || gsi == 8) {
		isa_drive(p, gsi == 2 ? 0 : 8, SRC_HPET, level);
	} else if (gsi > ISA_IRQS && gsi < IOAPIC_PINS) {
		p->gsi_hpet = level ? p->gsi_hpet | 1u << gsi : p->gsi_hpet & ~(1u << gsi);
		gsi_drive(p, gsi);
	}
}

static void hpet_legacy(void *ctx, bool on)
{
	struct platform *p = ctx;

	p->hpet_legacy = on;
	if (on) {
		isa_drive(p, 0, SRC_CHIP, false);
		isa_drive(p, 8, SRC_CHIP, false);
	}
}

static int hpet_create(struct platform *p)
{
	if (!p->cfg.firmware)
		return 0;
	p->hpet.irq = hpet_irq;
	p->hpet.legacy = hpet_legacy;
	p->hpet.ctx = p;
	hpet_init(&p->hpet, &p->clock, &p->timers);
	return bus_add(&p->mmio, HPET_BASE, HPET_LEN, &hpet_ops, &p->hpet);
}

static void hpet_power(struct platform *p)
{
	if (p->cfg.firmware)
		hpet_reset(&p->hpet);
}

static int watchdog_create(struct platform *p)
{
	if (!p->cfg.watchdog)
		return 0;
	p->watchdog.expired = on_watchdog;
	p->watchdog.ctx = p;
	return i6300esb_add(&p->pci, &p->watchdog, WATCHDOG_SLOT << 3, &p->clock, &p->timers);
}

static void watchdog_power(struct platform *p)
{
	if (p->cfg.watchdog)
		i6300esb_reset(&p->watchdog);
}

/* In wiring order: what delivers interrupts before what raises them. */
static const struct chip {
	int (*create)(struct platform *p);
	void (*power)(struct platform *p); /* power-on state; NULL: has none */
} chips[] = {
	{lapic_create, lapic_power},       {ioapic_create, ioapic_power},
	{pic_create, pic_power},           {pit_create, pit_power},
	{rtc_create, rtc_power},           {com_create, com_power},
	{kbc_create, kbc_power},           {pm_create, pm_power},
	{ports_create, ports_power},       {debugexit_create, NULL},
	{firmware_create, firmware_power}, {pci_create, pci_power},
	{watchdog_create, watchdog_power}, {vga_create, vga_power},
	{hpet_create, hpet_power},
};

#define CHIPS (sizeof(chips) / sizeof(chips[0]))

struct platform *platform_create(struct vm *vm, const struct platform_config *cfg)
{
	struct platform *p;

	if (cfg->ncpus < 1 || cfg->ncpus > LAPIC_MAX)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->vm = vm;
	p->cfg = *cfg;
	pthread_mutex_init(&p->lock, NULL);
	RANK_GIVE(&p->lock, RANK_PLATFORM);
	hclock_init(&p->clock, cfg->tsc_hz);
	timerq_init(&p->timers, on_arm, p);
	for (unsigned i = 0; i < CHIPS; i++) {
		if (chips[i].create(p)) {
			platform_destroy(p);
			return NULL;
		}
	}
	return p;
}

void platform_destroy(struct platform *p)
{
	if (!p)
		return;
	flush_consoles(p);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void platform_reset(struct platform *p)
{
	lock(p);
	for (unsigned i = 0; i < CHIPS; i++)
		if (chips[i].power)
			chips[i].power(p);
	unlock(p);
}

struct i6300esb *platform_watchdog(struct platform *p)
{
	return p->cfg.watchdog ? &p->watchdog : NULL;
}

struct pci *platform_pci(struct platform *p)
{
	return &p->pci;
}

int platform_add_virtio(struct platform *p, struct virtio_pci *vp, unsigned slot)
{
	int rc = slot < PCI_SLOTS && p->nvirtio < PCI_SLOTS ? 0 : -EINVAL;

	lock(p);
	if (!rc)
		rc = virtio_pci_add(&p->pci, vp, (uint8_t)(slot << 3));
	if (!rc)
		p->virtio[p->nvirtio++] = vp;
	unlock(p);
	return rc;
}

int platform_add_ahci(struct platform *p, struct ahci *a, unsigned slot)
{
	int rc = slot < PCI_SLOTS && p->nahci < PCI_SLOTS ? 0 : -EINVAL;

	lock(p);
	if (!rc)
		rc = ahci_add(&p->pci, a, (uint8_t)(slot << 3));
	if (!rc)
		p->ahci[p->nahci++] = a;
	unlock(p);
	return rc;
}

void platform_lock(struct platform *p)
{
	lock(p);
}

void platform_unlock(struct platform *p)
{
	unlock(p);
}

/* ---- buses ---- */
static struct lapic *lapic_of(struct platform *p, const struct vcpu *v)
{
	return &p->lapics.apic[v->id];
}

/* The vcpu's own APIC page, where it put it. */
static bool is_lapic(const struct lapic *l, uint64_t gpa)
{
	return !((gpa ^ l->base) >> 12) && (l->base & (APIC_BASE_ENABLE | APIC_BASE_X2)) == APIC_BASE_ENABLE;
}

uint64_t platform_pio_read(struct platform *p, struct vcpu *v, uint16_t port, unsigned size)
{
	uint64_t val;

	lock_for(p, v);
	val = bus_read(&p->pio, port, size);
	unlock(p);
	return val;
}

void platform_pio_write(struct platform *p, struct vcpu *v, uint16_t port, uint64_t val, unsigned size)
{
	lock_for(p, v);
	bus_write(&p->pio, port, val, size);
	unlock(p);
}

/* Registers are 32 bits at 16-byte steps; narrower and wider reads get what lies there. */
static uint64_t lapic_page_read(struct lapic *l, uint64_t gpa, unsigned size)
{
	unsigned off = gpa & 0xfff;
	uint64_t val = off & 12 ? 0 : (uint64_t)lapic_mmio_read(l, off & ~3u) >> (off & 3) * 8;

	return size >= 4 ? val : val & ((1u << size * 8) - 1);
}

uint64_t platform_mmio_read(struct platform *p, struct vcpu *v, uint64_t gpa, unsigned size)
{
	struct lapic *l = lapic_of(p, v);
	uint64_t val;

	if (is_lapic(l, gpa))
		return lapic_page_read(l, gpa, size);
	lock_for(p, v);
	val = bus_read(&p->mmio, gpa, size);
	unlock(p);
	return val;
}

void platform_mmio_write(struct platform *p, struct vcpu *v, uint64_t gpa, uint64_t val, unsigned size)
{
	struct lapic *l = lapic_of(p, v);

	if (is_lapic(l, gpa)) {
		lapic_mmio_write(l, gpa & 0xfff, (uint32_t)val);
		return;
	}
	lock_for(p, v);
	bus_write(&p->mmio, gpa, val, size);
	unlock(p);
}

/* ---- local APIC: no lock (lapic.h) ---- */
int platform_apic_rdmsr(struct platform *p, struct vcpu *v, uint32_t msr, uint64_t *val)
{
	return lapic_rdmsr(lapic_of(p, v), msr, val);
}

int platform_apic_wrmsr(struct platform *p, struct vcpu *v, uint32_t msr, uint64_t val)
{
	return lapic_wrmsr(lapic_of(p, v), msr, val);
}

uint8_t platform_get_tpr(struct platform *p, struct vcpu *v)
{
	return (uint8_t)lapic_of(p, v)->tpr;
}

void platform_set_tpr(struct platform *p, struct vcpu *v, uint8_t tpr)
{
	lapic_set_tpr(lapic_of(p, v), tpr);
}

void platform_apic_init(struct platform *p, struct vcpu *v)
{
	lapic_reset(lapic_of(p, v), true);
}

int platform_ack_intr(struct platform *p, struct vcpu *v)
{
	return lapic_ack(lapic_of(p, v));
}

/* ---- interrupts from devices ---- */
void platform_set_irq(struct platform *p, unsigned gsi, bool level)
{
	lock(p);
	if (gsi < ISA_IRQS) {
		isa_drive(p, gsi, SRC_EXTERNAL, level);
	} else if (gsi < IOAPIC_PINS) {
		p->gsi_external = level ? p->gsi_external | 1u << gsi : p->gsi_external & ~(1u << gsi);
		gsi_drive(p, gsi);
	}
	unlock(p);
}

void platform_msi(struct platform *p, uint64_t addr, uint32_t data)
{
	lock(p);
	msi_deliver(p, addr, data);
	unlock(p);
}

/* ---- timers ---- */
void platform_run_timers(struct platform *p, struct vcpu *v, uint64_t now_ns)
{
	timerq_run(&p->apic_timers[v->id], now_ns);
	if (v->id)
		return;
	lock(p);
	timerq_run(&p->timers, now_ns);
	unlock(p);
}

void platform_rearm(struct platform *p, struct vcpu *v)
{
	timerq_rearm(&p->apic_timers[v->id]);
	if (v->id)
		return;
	lock(p);
	timerq_rearm(&p->timers);
	unlock(p);
}

uint64_t platform_next_deadline(struct platform *p, struct vcpu *v)
{
	uint64_t next = timerq_next(&p->apic_timers[v->id]), due;

	if (v->id)
		return next;
	lock(p);
	due = timerq_next(&p->timers);
	unlock(p);
	return due < next ? due : next;
}

/* ---- console, power button ---- */
size_t platform_com_input(struct platform *p, int com, const uint8_t *buf, size_t len)
{
	size_t n;

	if (com < 0 || com >= COMS)
		return 0;
	lock(p);
	n = ns16550_input(&p->com[com], buf, len);
	unlock(p);
	return n;
}

size_t platform_com_room(struct platform *p, int com)
{
	size_t n;

	if (com < 0 || com >= COMS)
		return 0;
	lock(p);
	n = ns16550_room(&p->com[com]);
	unlock(p);
	return n;
}

void platform_power_button(struct platform *p)
{
	lock(p);
	pm_power_button(&p->pm);
	unlock(p);
}

/* ---- what is saved ---- */

static const struct save_row platform_state_save_rows[] = {
	SAVE_OMIT(struct platform, lock, SAVE_WIRED),
	SAVE_OMIT(struct platform, vm, SAVE_WIRED),
	SAVE_OMIT(struct platform, cfg, SAVE_WIRED),
	SAVE_OMIT(struct platform, clock, "times are of this clock: who restores a snapshot sets it"),
	SAVE_OMIT(struct platform, timers, "by each timer"),
	SAVE_OMIT(struct platform, apic_timers, "by each timer"),
	SAVE_OMIT(struct platform, pio, SAVE_WIRED),
	SAVE_OMIT(struct platform, mmio, SAVE_WIRED),
	SAVE_ARRAY(struct platform, isa),
	SAVE(struct platform, gsi_external),
	SAVE(struct platform, gsi_pci),
	SAVE(struct platform, gsi_hpet),
	SAVE(struct platform, hpet_legacy),
	SAVE_STRUCT(struct platform, lapics, lapics_save),
	SAVE_STRUCT(struct platform, ioapic, ioapic_save),
	SAVE_STRUCT(struct platform, pic, i8259_save),
	SAVE_STRUCT(struct platform, pit, i8254_save),
	SAVE_STRUCT(struct platform, rtc, mc146818_save),
	SAVE_STRUCTS(struct platform, com, ns16550_save),
	SAVE_STRUCT(struct platform, kbc, i8042_save),
	SAVE_STRUCT(struct platform, pm, pm_save),
	SAVE_STRUCT(struct platform, ports, sysports_save),
	SAVE_STRUCT(struct platform, debugexit, debugexit_save),
	SAVE_STRUCT(struct platform, pci, pci_save),
	SAVE_STRUCT(struct platform, watchdog, i6300esb_save),
	SAVE_OMIT(struct platform, fw, SAVE_WIRED),
	SAVE_STRUCT(struct platform, fwcfg, fwcfg_save),
	SAVE_STRUCT(struct platform, flash, pflash_save),
	SAVE_STRUCT(struct platform, pam, pam_save),
	SAVE_STRUCT(struct platform, vga, vga_save),
	SAVE_STRUCT(struct platform, hpet, hpet_save),
	SAVE_OMIT(struct platform, virtio, "records of their own, behind this one"),
	SAVE_OMIT(struct platform, nvirtio, "records of their own, behind this one"),
	SAVE_OMIT(struct platform, ahci, "records of their own, behind those"),
	SAVE_OMIT(struct platform, nahci, "records of their own, behind those"),
	SAVE_OMIT(struct platform, by, "an access is over before anything is saved"),
};
SAVE_TABLE(platform_state_save, struct platform, "machine");

/* The compiler counts: with one value too few for the structure this is an error (-Wmissing-field-initializers). */
_Static_assert(sizeof((struct platform){{}, 0,  {}, {}, {}, {}, {}, {}, {}, 0,  0,  0,  0,  {}, {}, {}, {}, {},
					{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, 0,  {}, 0,  0}) &&
		       sizeof platform_state_save_rows / sizeof platform_state_save_rows[0] == 36,
	       "a row for each field");

int platform_save(struct platform *p, struct save_buf *b)
{
	int rc;

	lock(p);
	rc = save_put(b, &platform_state_save, p);
	for (unsigned i = 0; i < p->nvirtio && !rc; i++)
		rc = save_put(b, &virtio_pci_save, p->virtio[i]);
	for (unsigned i = 0; i < p->nahci && !rc; i++)
		rc = save_put(b, &ahci_save, p->ahci[i]);
	unlock(p);
	return rc;
}

static int load(struct platform *p, const uint8_t *data, size_t len, char *err, size_t err_len)
{
	int n = save_get(data, len, &platform_state_save, p, err, err_len);
	size_t at = 0;

	for (unsigned i = 0; n >= 0 && i < p->nvirtio; i++) {
		at += (size_t)n;
		n = save_get(data + at, len - at, &virtio_pci_save, p->virtio[i], err, err_len);
	}
	for (unsigned i = 0; n >= 0 && i < p->nahci; i++) {
		at += (size_t)n;
		n = save_get(data + at, len - at, &ahci_save, p->ahci[i], err, err_len);
	}
	if (n < 0)
		return n;
	at += (size_t)n;
	if (at == len)
		return 0;
	snprintf(err, err_len, "%zu bytes behind the machine's state", len - at);
	return -EPROTO;
}

int platform_load(struct platform *p, const uint8_t *data, size_t len, char *err, size_t err_len)
{
	int rc;

	lock(p);
	rc = load(p, data, len, err, err_len);
	if (!rc) {
		pci_loaded(&p->pci);
		host_written(&p->pci.host, 0, 256);
		if (p->cfg.firmware && p->flash.bank)
			p->fw.flash_chip(p->fw.ctx, pflash_answers(&p->flash));
		for (int i = 0; i < p->lapics.n; i++)
			lapic_update(&p->lapics.apic[i]);
	}
	unlock(p);
	return rc;
}
