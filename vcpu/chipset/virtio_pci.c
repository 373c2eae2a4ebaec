/*
 * virtio over PCI (virtio 1.2 4.1).
 *
 *   BAR 0  +0x0000 common configuration   +0x1000 ISR   +0x2000 device configuration
 *          +0x3000 notification, 4 bytes a queue
 *   BAR 1  +0x0000 MSI-X table            +0x0800 pending bits
 *
 * Invariant: the device hears of queues only between activate and reset, each at most once in turn;
 * while a reset is under way the driver's writes change nothing.
 */
#include "vcpu/chipset/virtio_pci.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"

#include "vcpu/chipset/savechips.h"

#define VENDOR      0x1af4
#define FIRST_ID    0x1040
#define REG_LEN     0x4000u
#define PART        0x1000u
#define MSIX_LEN    0x1000u
#define MSIX_PBA    0x800u
#define NO_VECTOR   0xffff
#define NOTIFY_STEP 4u

#define F_VERSION_1 (1ull << 32)

#define ISR_QUEUE  1
#define ISR_CONFIG 2

#define MSIX_ENABLE   0x8000u
#define MSIX_MASK_ALL 0x4000u

/* capability types, virtio 1.2 4.1.4 */
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI_CFG };

/* common configuration, virtio 1.2 4.1.4.3 */
enum {
	C_DEVICE_SEL = 0,
	C_DEVICE_FEATURES = 4,
	C_DRIVER_SEL = 8,
	C_DRIVER_FEATURES = 12,
	C_CONFIG_VECTOR = 16,
	C_NUM_QUEUES = 18,
	C_STATUS = 20,
	C_GENERATION = 21,
	C_QUEUE_SEL = 22,
	C_QUEUE_SIZE = 24,
	C_QUEUE_VECTOR = 26,
	C_QUEUE_ENABLE = 28,
	C_QUEUE_NOTIFY = 30,
	C_QUEUE_DESC = 32,
	C_QUEUE_END = 56,
	C_LEN = 56
};

/* ---- interrupts ---- */

static bool msix_on(const struct virtio_pci *vp)
{
	return pci_get(&vp->f, vp->msix_cap + 2, 2) & MSIX_ENABLE;
}

static bool masked(const struct virtio_pci *vp, unsigned vector)
{
	return (pci_get(&vp->f, vp->msix_cap + 2, 2) & MSIX_MASK_ALL) || (vp->msix[vector].control & 1);
}

/* The line is the OR of the ISR's bits while MSI-X is off (virtio 1.2 4.1.4.5.1). */
static void drive_line(struct virtio_pci *vp)
{
	pci_set_intx(&vp->f, vp->isr && !msix_on(vp));
}

static void send_pending(struct virtio_pci *vp)
{
	struct pci *p = vp->f.bus;

	if (!msix_on(vp))
		return;
	for (unsigned i = 0; vp->pending >> i; i++) {
		if (!(vp->pending >> i & 1) || masked(vp, i))
			continue;
		vp->pending &= ~(1u << i);
		if (p->msi)
			p->msi(p->ctx, vp->msix[i].addr, vp->msix[i].data);
	}
}

static void raise_intr(struct virtio_pci *vp, uint16_t vector, uint8_t isr)
{
	if (!msix_on(vp) || isr == ISR_CONFIG)
		vp->isr |= isr;
	drive_line(vp);
	if (msix_on(vp) && vector <= vp->offer.nqueues) {
		vp->pending |= 1u << vector;
		send_pending(vp);
	}
}

/* Tells where interrupts of the queues with this vector go; without MSI-X, and for what no message addresses: to CPU 0. */
static void route(struct virtio_pci *vp, uint16_t vector)
{
	struct pci *p = vp->f.bus;
	int cpu = -1;

	if (!vp->ops->route)
		return;
	if (p->msi_cpu && msix_on(vp) && vector <= vp->offer.nqueues)
		cpu = p->msi_cpu(p->ctx, vp->msix[vector].addr, vp->msix[vector].data);
	for (unsigned i = 0; i < vp->offer.nqueues; i++)
		if (vp->q[i].vector == vector)
			vp->ops->route(vp->dev, i, cpu < 0 ? 0 : (unsigned)cpu);
}

static void route_all(struct virtio_pci *vp)
{
	for (unsigned i = 0; i <= vp->offer.nqueues; i++)
		route(vp, (uint16_t)i);
	route(vp, NO_VECTOR);
}

void virtio_pci_interrupt(struct virtio_pci *vp, uint32_t bits)
{
	uint32_t done = 0; /* queues may share a vector: one interrupt */

	if (!vp->active || vp->resetting)
		return;
	for (unsigned i = 0; i < vp->offer.nqueues; i++) {
		uint16_t vec = vp->q[i].vector;
		if (!(bits >> i & 1) || (vec < 32 && (done >> vec & 1)))
			continue;
		if (vec < 32)
			done |= 1u << vec;
		raise_intr(vp, vec, ISR_QUEUE);
	}
}

static void config_changed(struct virtio_pci *vp)
{
	vp->generation++;
	if ((vp->status & VIRTIO_S_DRIVER_OK) && !vp->resetting)
		raise_intr(vp, vp->config_vector, ISR_CONFIG);
}

void virtio_pci_config(struct virtio_pci *vp, const uint8_t *data, uint32_t len)
{
	memcpy(vp->offer.config, data, len < vp->offer.config_len ? len : vp->offer.config_len);
	config_changed(vp);
}

void virtio_pci_broken(struct virtio_pci *vp)
{
	if (!vp->active || vp->resetting)
		return;
	vp->status |= VIRTIO_S_NEEDS_RESET;
	config_changed(vp);
}

static uint8_t read_isr(struct virtio_pci *vp)
{
	uint8_t isr = vp->isr;

	vp->isr = 0;
	drive_line(vp);
	return isr;
}

/* ---- reset, status ---- */

static void clear(struct virtio_pci *vp)
{
	vp->driver_features = 0;
	vp->device_sel = vp->driver_sel = 0;
	vp->config_vector = NO_VECTOR;
	vp->queue_sel = 0;
	vp->status = vp->isr = 0;
	vp->pending = 0;
	for (unsigned i = 0; i < MSG_QUEUES_MAX; i++)
		vp->q[i] = (struct virtio_pci_queue){
			.size = i < vp->offer.nqueues ? (uint16_t)vp->offer.queue_max[i] : 0,
			.vector = NO_VECTOR,
		};
	pci_set_intx(&vp->f, false);
}

void virtio_pci_reset_done(struct virtio_pci *vp)
{
	if (!vp->resetting)
		return;
	vp->resetting = vp->active = false;
	clear(vp);
}

static void device_reset(struct virtio_pci *vp)
{
	if (vp->resetting)
		return;
	if (!vp->active) {
		clear(vp);
		return;
	}
	vp->resetting = true;
	vp->ops->reset(vp->dev);
}

void virtio_pci_reset(struct virtio_pci *vp)
{
	for (unsigned i = 0; i < VIRTIO_PCI_VECTORS; i++) {
		vp->msix[i].addr = vp->msix[i].data = 0;
		vp->msix[i].control = 1;
	}
	vp->pending = 0;
	vp->isr = 0;
	vp->master = false;
	device_reset(vp);
}

static void start(struct virtio_pci *vp)
{
	struct msg_virtio_activate m = {.features = vp->driver_features};

	for (unsigned i = 0; i < vp->offer.nqueues; i++) {
		const struct virtio_pci_queue *q = &vp->q[i];
		if (q->enable)
			m.queue[m.nqueues++] =
				(struct msg_virtio_queue){i, q->size, q->addr[0], q->addr[1], q->addr[2]};
	}
	vp->active = true;
	route_all(vp);
	vp->ops->activate(vp->dev, &m);
}

/* Bits are only ever added; FEATURES_OK stays clear when we cannot do with the features chosen (virtio 1.2 3.1.1). */
static void write_status(struct virtio_pci *vp, uint8_t val)
{
	uint8_t added = val & (uint8_t)~vp->status & (uint8_t)~VIRTIO_S_NEEDS_RESET;

	if (!val) {
		device_reset(vp);
		return;
	}
	if ((added & VIRTIO_S_FEATURES_OK) &&
	    (!(vp->driver_features & F_VERSION_1) || (vp->driver_features & ~(vp->offer.features | F_VERSION_1))))
		added &= (uint8_t)~VIRTIO_S_FEATURES_OK;
	if (!((vp->status | added) & VIRTIO_S_FEATURES_OK))
		added &= (uint8_t)~VIRTIO_S_DRIVER_OK;
	vp->status |= added;
	if (added & VIRTIO_S_DRIVER_OK)
		start(vp);
}

/* ---- common configuration ---- */

static struct virtio_pci_queue *selected(struct virtio_pci *vp)
{
	return vp->queue_sel < vp->offer.nqueues ? &vp->q[vp->queue_sel] : NULL;
}

static uint32_t queue_read(struct virtio_pci *vp, unsigned off)
{
	const struct virtio_pci_queue *q = selected(vp);

	if (!q)
		return off == C_QUEUE_VECTOR ? NO_VECTOR : 0;
	switch (off) {
	case C_QUEUE_SIZE: return q->size;
	case C_QUEUE_VECTOR: return q->vector;
	case C_QUEUE_ENABLE: return q->enable;
	case C_QUEUE_NOTIFY: return vp->queue_sel;
	default: return (uint32_t)(q->addr[(off - C_QUEUE_DESC) / 8] >> (off & 4) * 8);
	}
}

/* The field that starts at @off. */
static uint32_t field_read(struct virtio_pci *vp, unsigned off)
{
	switch (off) {
	case C_DEVICE_SEL: return vp->device_sel;
	case C_DEVICE_FEATURES:
		return vp->device_sel < 2 ? (uint32_t)((vp->offer.features | F_VERSION_1) >> vp->device_sel * 32) : 0;
	case C_DRIVER_SEL: return vp->driver_sel;
	case C_DRIVER_FEATURES: return vp->driver_sel < 2 ? (uint32_t)(vp->driver_features >> vp->driver_sel * 32) : 0;
	case C_CONFIG_VECTOR: return vp->config_vector;
	case C_NUM_QUEUES: return vp->offer.nqueues;
	case C_STATUS: return vp->status;
	case C_GENERATION: return vp->generation;
	case C_QUEUE_SEL: return vp->queue_sel;
	default: return off < C_QUEUE_END ? queue_read(vp, off) : 0;
	}
}

static unsigned field_size(unsigned off)
{
	if (off == C_STATUS || off == C_GENERATION)
		return 1;
	return (off >= C_CONFIG_VECTOR && off < C_STATUS) || (off >= C_QUEUE_SEL && off < C_QUEUE_DESC) ? 2 : 4;
}

/* Any part of any fields: byte by byte out of the fields it touches. */
static uint32_t common_read(struct virtio_pci *vp, unsigned off, unsigned size)
{
	uint32_t val = 0;

	for (unsigned i = 0; i < size; i++) {
		unsigned at = (off + i) & ~(field_size(off + i) - 1);
		val |= (field_read(vp, at) >> (off + i - at) * 8 & 0xff) << i * 8;
	}
	return val;
}

static void features_write(struct virtio_pci *vp, uint32_t val)
{
	unsigned shift = vp->driver_sel * 32;

	if (vp->driver_sel > 1 || (vp->status & VIRTIO_S_FEATURES_OK))
		return;
	vp->driver_features = (vp->driver_features & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
}

static uint16_t vector_of(const struct virtio_pci *vp, uint32_t val)
{
	return val <= vp->offer.nqueues ? (uint16_t)val : NO_VECTOR;
}

static void queue_write(struct virtio_pci *vp, unsigned off, uint32_t val)
{
	struct virtio_pci_queue *q = selected(vp);

	if (!q)
		return;
	if (off == C_QUEUE_VECTOR) {
		q->vector = vector_of(vp, val);
		route(vp, q->vector);
		return;
	}
	if (q->enable || (vp->status & VIRTIO_S_DRIVER_OK))
		return; /* a queue in use stays as it is (virtio 1.2 4.1.4.3.2) */
	if (off == C_QUEUE_ENABLE) {
		q->enable = val == 1;
	} else if (off == C_QUEUE_SIZE) {
		if (val && val <= vp->offer.queue_max[vp->queue_sel] && !(val & (val - 1)))
			q->size = (uint16_t)val;
	} else if (off >= C_QUEUE_DESC && off < C_QUEUE_END) {
		uint64_t *a = &q->addr[(off - C_QUEUE_DESC) / 8];
		unsigned shift = (off & 4) * 8;
		*a = (*a & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
	}
}

static void common_write(struct virtio_pci *vp, unsigned off, uint32_t val, unsigned size)
{
	if (vp->resetting)
		return;
	if (off >= C_LEN || size != field_size(off) || off % size) {
		log_guest(LOG_LVL_DEBUG, "virtio: a %u-byte write at %u of the common configuration", size, off);
		return;
	}
	switch (off) {
	case C_DEVICE_SEL: vp->device_sel = val; break;
	case C_DRIVER_SEL: vp->driver_sel = val; break;
	case C_DRIVER_FEATURES: features_write(vp, val); break;
	case C_CONFIG_VECTOR: vp->config_vector = vector_of(vp, val); break;
	case C_STATUS: write_status(vp, (uint8_t)val); break;
	case C_QUEUE_SEL: vp->queue_sel = (uint16_t)val; break;
	default: queue_write(vp, off, val); break;
	}
}

/* ---- device configuration ---- */

static uint32_t config_read(const struct virtio_pci *vp, unsigned off, unsigned size)
{
	uint32_t val = 0;

	for (unsigned i = 0; i < size && off + i < vp->offer.config_len; i++)
		val |= (uint32_t)vp->offer.config[off + i] << i * 8;
	return val;
}

/* What a driver may write, by device type; nothing else changes. */
static const struct {
	uint8_t id, first, end;
} writable[] = {
	{2, 32, 33}, /* blk: writeback, virtio 1.2 5.2.4 */
	{3, 8, 12},  /* console: emerg_wr, 5.3.4 */
	{5, 4, 12},  /* balloon: actual, poison_val, 5.5.4 */
};

static void config_write(struct virtio_pci *vp, unsigned off, uint32_t val, unsigned size)
{
	if (vp->resetting)
		return;
	for (unsigned i = 0; i < sizeof writable / sizeof writable[0]; i++) {
		if (writable[i].id != vp->offer.device_id || off < writable[i].first || off + size > writable[i].end ||
		    off + size > vp->offer.config_len)
			continue;
		for (unsigned k = 0; k < size; k++)
			vp->offer.config[off + k] = (uint8_t)(val >> k * 8);
		vp->ops->config_write(vp->dev, off, size);
	}
}

/* ---- BAR 0 ---- */

static uint64_t reg_read(void *dev, uint64_t off, unsigned size)
{
	struct virtio_pci *vp = dev;

	switch (off / PART) {
	case 0: return common_read(vp, (unsigned)off, size);
	case 1: return off % PART == 0 ? read_isr(vp) : 0;
	case 2: return config_read(vp, off % PART, size);
	default: return 0;
	}
}

static void reg_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct virtio_pci *vp = dev;
	unsigned q = (unsigned)(off % PART) / NOTIFY_STEP;

	switch (off / PART) {
	case 0: common_write(vp, (unsigned)off, (uint32_t)val, size); break;
	case 2: config_write(vp, off % PART, (uint32_t)val, size); break;
	case 3:
		if (vp->active && !vp->resetting && q < vp->offer.nqueues)
			vp->ops->kick(vp->dev, q);
		break;
	default: break;
	}
}

static const struct bus_ops reg_ops = {reg_read, reg_write, 4};

/* ---- BAR 1: MSI-X (PCI Local Bus 3.0 6.8.2) ---- */

static uint64_t msix_read(void *dev, uint64_t off, unsigned size)
{
	const struct virtio_pci *vp = dev;
	unsigned i = (unsigned)off / 16;
	uint32_t val = 0;

	if (off >= MSIX_PBA)
		val = off - MSIX_PBA < 4 ? vp->pending : 0;
	else if (i <= vp->offer.nqueues)
		switch (off & 12) {
		case 0: val = (uint32_t)vp->msix[i].addr; break;
		case 4: val = (uint32_t)(vp->msix[i].addr >> 32); break;
		case 8: val = vp->msix[i].data; break;
		default: val = vp->msix[i].control; break;
		}
	return val >> (off & 3) * 8;
}

static void msix_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct virtio_pci *vp = dev;
	unsigned i = (unsigned)off / 16;

	if (off >= MSIX_PBA || i > vp->offer.nqueues || size != 4 || (off & 3))
		return;
	switch (off & 12) {
	case 0: vp->msix[i].addr = (vp->msix[i].addr & ~0xffffffffull) | (val & ~3ull); break;
	case 4: vp->msix[i].addr = (vp->msix[i].addr & 0xffffffffull) | val << 32; break;
	case 8: vp->msix[i].data = (uint32_t)val; break;
	default: vp->msix[i].control = val & 1; break;
	}
	route(vp, (uint16_t)i);
	send_pending(vp);
}

static const struct bus_ops msix_ops = {msix_read, msix_write, 4};

/* ---- configuration registers ---- */

static void msix_control_written(struct virtio_pci *vp)
{
	drive_line(vp);
	route_all(vp);
	send_pending(vp);
}

/*
 * A function that is no bus master touches no memory (PCI Local Bus 3.0 6.2.2): a kernel that is about to
 * hand over to another one relies on it.  So a running device is reset when the driver switches bus mastering
 * off, and the guest does not go on before nothing is in flight.  One that was never switched on runs all the same.
 */
static void command_written(struct virtio_pci *vp)
{
	bool master = pci_get(&vp->f, PCI_COMMAND, 2) & PCI_CMD_MASTER;

	if (vp->master && !master && vp->active) {
		device_reset(vp);
		if (vp->resetting)
			vp->ops->settle(vp->dev);
	}
	vp->master = master;
}

/* The window onto BAR 0 in configuration space (virtio 1.2 4.1.4.9): true with where and how much, if it is sane. */
static bool window(const struct virtio_pci *vp, uint32_t *off, unsigned *len)
{
	*off = pci_get(&vp->f, vp->cfg_cap + 8, 4);
	*len = pci_get(&vp->f, vp->cfg_cap + 12, 4);
	return !vp->f.cfg[vp->cfg_cap + 4] && (*len == 1 || *len == 2 || *len == 4) && *off < REG_LEN && !(*off % *len);
}

static bool overlaps(unsigned off, unsigned size, unsigned at, unsigned len)
{
	return off < at + len && off + size > at;
}

static void cfg_written(struct pci_func *f, unsigned off, unsigned size)
{
	struct virtio_pci *vp = f->dev;
	uint32_t at;
	unsigned len;

	if (size > 4)
		return; /* a reset of the bus */
	if (overlaps(off, size, PCI_COMMAND, 2))
		command_written(vp);
	if (overlaps(off, size, vp->msix_cap + 2, 2))
		msix_control_written(vp);
	if (overlaps(off, size, vp->cfg_cap + 16, 4) && window(vp, &at, &len))
		reg_write(vp, at, pci_get(f, vp->cfg_cap + 16, len), len);
}

static void cfg_reading(struct pci_func *f, unsigned off, unsigned size)
{
	struct virtio_pci *vp = f->dev;
	uint32_t at, val;
	unsigned len;

	if (!overlaps(off, size, vp->cfg_cap + 16, 4) || !window(vp, &at, &len))
		return;
	val = (uint32_t)reg_read(vp, at, len);
	for (unsigned i = 0; i < len; i++)
		f->cfg[vp->cfg_cap + 16 + i] = (uint8_t)(val >> i * 8);
}

static int add_cap(struct virtio_pci *vp, unsigned type, unsigned len, uint32_t off, uint32_t bytes)
{
	int at = pci_add_cap(&vp->f, 0x09, len);

	if (at < 0)
		return at;
	pci_put(&vp->f, (unsigned)at + 2, 1, len, 0);
	pci_put(&vp->f, (unsigned)at + 3, 1, type, 0);
	pci_put(&vp->f, (unsigned)at + 8, 4, off, 0);
	pci_put(&vp->f, (unsigned)at + 12, 4, bytes, 0);
	return at;
}

static int add_caps(struct virtio_pci *vp)
{
	int msix = pci_add_cap(&vp->f, 0x11, 12), notify, cfg;

	if (msix < 0)
		return msix;
	vp->msix_cap = (unsigned)msix;
	pci_put(&vp->f, vp->msix_cap + 2, 2, vp->offer.nqueues, MSIX_ENABLE | MSIX_MASK_ALL); /* size - 1 */
	pci_put(&vp->f, vp->msix_cap + 4, 4, 0 | 1, 0);
	pci_put(&vp->f, vp->msix_cap + 8, 4, MSIX_PBA | 1, 0);
	notify = add_cap(vp, CAP_NOTIFY, 20, 3 * PART, NOTIFY_STEP * vp->offer.nqueues);
	cfg = add_cap(vp, CAP_PCI_CFG, 20, 0, 0);
	if (add_cap(vp, CAP_COMMON, 16, 0, C_LEN) < 0 || add_cap(vp, CAP_ISR, 16, PART, 1) < 0 ||
	    add_cap(vp, CAP_DEVICE, 16, 2 * PART, vp->offer.config_len ? vp->offer.config_len : 4) < 0 || notify < 0 ||
	    cfg < 0)
		return -ENOSPC;
	pci_put(&vp->f, (unsigned)notify + 16, 4, NOTIFY_STEP, 0);
	vp->cfg_cap = (unsigned)cfg;
	pci_put(&vp->f, vp->cfg_cap + 4, 1, 0, 0xff);
	pci_put(&vp->f, vp->cfg_cap + 8, 4, 0, 0xffffffff);
	pci_put(&vp->f, vp->cfg_cap + 12, 4, 0, 0xffffffff);
	pci_put(&vp->f, vp->cfg_cap + 16, 4, 0, 0xffffffff);
	return 0;
}

static uint32_t class_of(uint32_t id)
{
	switch (id) {
	case 1: return 0x020000;  /* Ethernet */
	case 2: return 0x010000;  /* storage */
	case 3: return 0x078000;  /* communication, other */
	default: return 0x00ff00; /* unclassified */
	}
}

int virtio_pci_add(struct pci *p, struct virtio_pci *vp, uint8_t devfn)
{
	struct pci_ids ids = {
		.vendor = VENDOR,
		.device = (uint16_t)(FIRST_ID + vp->offer.device_id),
		.subsys_vendor = VENDOR,
		.subsys = (uint16_t)(FIRST_ID + vp->offer.device_id),
		.class_code = class_of(vp->offer.device_id),
		.revision = 1,
		.int_pin = 1,
	};
	int rc = pci_add(p, &vp->f, devfn, &ids);

	if (!rc)
		rc = add_caps(vp);
	if (!rc)
		rc = pci_add_bar(&vp->f, 0, PCI_BAR_MEM32, REG_LEN, &reg_ops, vp);
	if (!rc)
		rc = pci_add_bar(&vp->f, 1, PCI_BAR_MEM32, MSIX_LEN, &msix_ops, vp);
	vp->f.dev = vp;
	vp->f.written = cfg_written;
	vp->f.reading = cfg_reading;
	virtio_pci_reset(vp);
	return rc;
}

/* ---- what is saved ---- */

static const struct save_row virtio_offer_save_rows[] = {
	SAVE_OMIT(struct msg_virtio_offer, device_id, "the device offers it again"),
	SAVE_OMIT(struct msg_virtio_offer, features, "the device offers it again"),
	SAVE_OMIT(struct msg_virtio_offer, nqueues, "the device offers it again"),
	SAVE_OMIT(struct msg_virtio_offer, queue_max, "the device offers it again"),
	SAVE_OMIT(struct msg_virtio_offer, config_len, "the device offers it again"),
	SAVE_ARRAY(struct msg_virtio_offer, config),
};
SAVE_TABLE(virtio_offer_save, struct msg_virtio_offer, "virtio-offer");

static const struct save_row virtio_pci_queue_save_rows[] = {
	SAVE(struct virtio_pci_queue, size),
	SAVE(struct virtio_pci_queue, vector),
	SAVE(struct virtio_pci_queue, enable),
	SAVE_ARRAY(struct virtio_pci_queue, addr),
};
SAVE_TABLE(virtio_pci_queue_save, struct virtio_pci_queue, "virtio-queue");

static const struct save_row virtio_pci_save_rows[] = {
	SAVE_STRUCT(struct virtio_pci, f, pci_func_save),
	SAVE_OMIT(struct virtio_pci, ops, SAVE_WIRED),
	SAVE_OMIT(struct virtio_pci, dev, SAVE_WIRED),
	SAVE_STRUCT(struct virtio_pci, offer, virtio_offer_save),
	SAVE(struct virtio_pci, driver_features),
	SAVE(struct virtio_pci, device_sel),
	SAVE(struct virtio_pci, driver_sel),
	SAVE(struct virtio_pci, config_vector),
	SAVE(struct virtio_pci, queue_sel),
	SAVE(struct virtio_pci, status),
	SAVE(struct virtio_pci, generation),
	SAVE(struct virtio_pci, isr),
	SAVE(struct virtio_pci, master),
	SAVE(struct virtio_pci, active),
	SAVE(struct virtio_pci, resetting),
	SAVE_STRUCTS(struct virtio_pci, q, virtio_pci_queue_save),
	SAVE_ARRAY(struct virtio_pci, msix),
	SAVE_MAX(struct virtio_pci, pending, (1u << VIRTIO_PCI_VECTORS) - 1),
	SAVE_OMIT(struct virtio_pci, msix_cap, "made when the function is added"),
	SAVE_OMIT(struct virtio_pci, cfg_cap, "made when the function is added"),
};
SAVE_TABLE(virtio_pci_save, struct virtio_pci, "virtio");
