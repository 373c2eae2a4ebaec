/*
 * PCI bus 0 (PCI Local Bus 3.0; PCI Express 7.2.2 for ECAM).
 *
 * Invariant: a BAR answers on its bus exactly while the command register
 * enables its space and its address is not zero; every write that could change
 * that goes through remap().
 */
#include "vcpu/chipset/pci.h"

#include <errno.h>
#include <stddef.h>

#include "vcpu/chipset/savechips.h"

#define FIRST_CAP 0x40

/* ---- BARs ---- */
static struct bus *bar_bus(const struct pci_func *f, unsigned n)
{
	return f->bar[n].kind == PCI_BAR_IO ? f->bus->io : f->bus->mem;
}

static uint64_t bar_address(const struct pci_func *f, unsigned n)
{
	uint64_t a = pci_get(f, PCI_BAR0 + 4 * n, 4);

	if (f->bar[n].kind == PCI_BAR_MEM64)
		a |= (uint64_t)pci_get(f, PCI_BAR0 + 4 * n + 4, 4) << 32;
	a &= ~(f->bar[n].size - 1);
	return f->bar[n].kind == PCI_BAR_IO ? a & 0xffff : a;
}

static void remap_bar(struct pci_func *f, unsigned n)
{
	struct pci_bar *b = &f->bar[n];
	uint32_t need = b->kind == PCI_BAR_IO ? PCI_CMD_IO : PCI_CMD_MEM;
	uint64_t want = pci_get(f, PCI_COMMAND, 2) & need ? bar_address(f, n) : 0;

	if (want == b->mapped)
		return;
	if (b->mapped)
		bus_remove(bar_bus(f, n), b->mapped, b->dev);
	b->mapped = 0;
	/* an address that collides with something else (as while the guest sizes BARs) is simply not decoded */
	if (want && !bus_add(bar_bus(f, n), want, b->size, b->ops, b->dev))
		b->mapped = want;
}

static void remap(struct pci_func *f)
{
	for (unsigned i = 0; i < 6; i++)
		if (f->bar[i].kind != PCI_BAR_NONE)
			remap_bar(f, i);
}

/* ---- INTx ---- */
static void update_intx(struct pci_func *f)
{
	bool out = f->intx && !(pci_get(f, PCI_COMMAND, 2) & PCI_CMD_INTX_OFF);
	unsigned line = ((f->devfn >> 3) + f->cfg[PCI_INT_PIN] - 1u) & 3;
	struct pci *p = f->bus;

	f->cfg[PCI_STATUS] = (uint8_t)((f->cfg[PCI_STATUS] & ~PCI_STS_INTX) | (f->intx ? PCI_STS_INTX : 0));
	if (out == f->intx_out || !f->cfg[PCI_INT_PIN])
		return;
	f->intx_out = out;
	p->asserted[line] += out ? 1u : -1u;
	if (p->intx && p->asserted[line] == (out ? 1 : 0))
		p->intx(p->ctx, line, out);
}

void pci_set_intx(struct pci_func *f, bool level)
{
	if (f->intx == level)
		return;
	f->intx = level;
	update_intx(f);
}

/* ---- configuration registers ---- */
uint32_t pci_get(const struct pci_func *f, unsigned off, unsigned size)
{
	uint32_t val = 0;

	for (unsigned i = 0; i < size && off + i < 256; i++)
		val |= (uint32_t)f->cfg[off + i] << i * 8;
	return val;
}

void pci_put(struct pci_func *f, unsigned off, unsigned size, uint32_t val, uint32_t mask)
{
	for (unsigned i = 0; i < size && off + i < 256; i++) {
		f->cfg[off + i] = f->reset_cfg[off + i] = (uint8_t)(val >> i * 8);
		f->wmask[off + i] = (uint8_t)(mask >> i * 8);
	}
}

static bool touches(unsigned off, unsigned size, unsigned first, unsigned len)
{
	return off < first + len && off + size > first;
}

static void config_write(struct pci_func *f, unsigned off, uint32_t val, unsigned size)
{
	for (unsigned i = 0; i < size && off + i < 256; i++) {
		uint8_t m = f->wmask[off + i];

		f->cfg[off + i] = (uint8_t)((f->cfg[off + i] & ~m) | (val >> i * 8 & m));
	}
	if (touches(off, size, PCI_COMMAND, 2) || touches(off, size, PCI_BAR0, 24)) {
		remap(f);
		update_intx(f);
	}
	if (f->written)
		f->written(f, off, size);
}

static uint32_t config_read(struct pci_func *f, unsigned off, unsigned size)
{
	if (f->reading)
		f->reading(f, off, size);
	return pci_get(f, off, size);
}

static struct pci_func *lookup(const struct pci *p, unsigned bus, unsigned devfn)
{
	return bus ? NULL : p->func[devfn & 0xff];
}

static uint64_t mech1_read(void *dev, uint64_t off, unsigned size)
{
	struct pci *p = dev;
	struct pci_func *f;
	uint32_t a = p->address;

	if (off < 4) {
		if (off == 1 && size == 1 && p->cf9_read)
			return p->cf9_read(p->ctx);
		return a >> off * 8;
	}
	f = a >> 31 ? lookup(p, a >> 16 & 0xff, a >> 8 & 0xff) : NULL;
	return f ? config_read(f, (a & 0xfc) + (off & 3), size) : 0xffffffffu;
}

static void mech1_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct pci *p = dev;
	struct pci_func *f;
	uint32_t a = p->address;

	if (off < 4) {
		if (off == 0 && size == 4)
			p->address = (uint32_t)val & 0x80fffffcu;
		else if (off == 1 && size == 1 && p->cf9_write)
			p->cf9_write(p->ctx, (uint8_t)val);
		return;
	}
	f = a >> 31 ? lookup(p, a >> 16 & 0xff, a >> 8 & 0xff) : NULL;
	if (f)
		config_write(f, (a & 0xfc) + (off & 3), (uint32_t)val, size);
}

const struct bus_ops pci_mech1_ops = {mech1_read, mech1_write, 4};

static uint64_t ecam_read(void *dev, uint64_t off, unsigned size)
{
	struct pci_func *f = lookup(dev, (unsigned)(off >> 20), (unsigned)(off >> 12));
	unsigned reg = off & 0xfff;

	return f && reg < 256 ? config_read(f, reg, size) : 0xffffffffu;
}

static void ecam_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct pci_func *f = lookup(dev, (unsigned)(off >> 20), (unsigned)(off >> 12));
	unsigned reg = off & 0xfff;

	if (f && reg < 256)
		config_write(f, reg, (uint32_t)val, size);
}

const struct bus_ops pci_ecam_ops = {ecam_read, ecam_write, 4};

/* ---- wiring ---- */
int pci_add(struct pci *p, struct pci_func *f, uint8_t devfn, const struct pci_ids *ids)
{
	if (p->func[devfn])
		return -EEXIST;
	if (ids->int_pin > 4)
		return -EINVAL;
	f->bus = p;
	f->devfn = devfn;
	f->cap_end = FIRST_CAP;
	pci_put(f, PCI_VENDOR, 2, ids->vendor, 0);
	pci_put(f, PCI_DEVICE, 2, ids->device, 0);
	pci_put(f, PCI_COMMAND, 2, 0, PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER | PCI_CMD_INTX_OFF | 0x140);
	pci_put(f, PCI_REVISION, 1, ids->revision, 0);
	pci_put(f, PCI_CLASS, 3, ids->class_code, 0);
	pci_put(f, PCI_SUBSYS_VENDOR, 2, ids->subsys_vendor, 0);
	pci_put(f, PCI_SUBSYS, 2, ids->subsys, 0);
	pci_put(f, PCI_INT_PIN, 1, ids->int_pin, 0);
	pci_put(f, PCI_INT_LINE, 1, ids->int_pin ? ((devfn >> 3) + ids->int_pin - 1u) & 1 ? 11 : 10 : 0, 0xff);
	p->func[devfn] = f;
	return 0;
}

/* Address of the next @size bytes in a window, aligned; 0 when it is full. */
static uint64_t window_take(uint64_t *next, uint64_t end, uint64_t size)
{
	uint64_t a = (*next + size - 1) & ~(size - 1);

	if (a < *next || a > end || end - a < size)
		return 0;
	*next = a + size;
	return a;
}

int pci_add_bar(struct pci_func *f, unsigned n, enum pci_bar_kind kind, uint64_t size, const struct bus_ops *ops,
		void *dev)
{
	static const uint32_t flags[] = {[PCI_BAR_IO] = 1, [PCI_BAR_MEM32] = 0, [PCI_BAR_MEM64] = 4 | 8};
	struct pci *p = f->bus;
	uint64_t a;

	if (n + (kind == PCI_BAR_MEM64) > 5 || size < 16 || (size & (size - 1)) || size > 1ull << 31)
		return -EINVAL;
	if (kind == PCI_BAR_IO)
		a = window_take(&p->next_io, PCI_IO_END, size);
	else if (kind == PCI_BAR_MEM32)
		a = window_take(&p->next_mem, PCI_MMIO_END, size);
	else
		a = window_take(&p->next_mem64, PCI_MMIO64_END, size);
	if (!a)
		return -ENOSPC;
	f->bar[n] = (struct pci_bar){kind, size, ops, dev, 0};
	pci_put(f, PCI_BAR0 + 4 * n, 4, (uint32_t)a | flags[kind], ~(uint32_t)(size - 1));
	if (kind == PCI_BAR_MEM64)
		pci_put(f, PCI_BAR0 + 4 * n + 4, 4, (uint32_t)(a >> 32), (uint32_t)(~(size - 1) >> 32));
	/* as firmware leaves it: decoding */
	pci_put(f, PCI_COMMAND, 2, pci_get(f, PCI_COMMAND, 2) | (kind == PCI_BAR_IO ? PCI_CMD_IO : PCI_CMD_MEM),
		PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER | PCI_CMD_INTX_OFF | 0x140);
	remap(f);
	return 0;
}

int pci_add_cap(struct pci_func *f, uint8_t id, unsigned len)
{
	unsigned at = f->cap_end, link = PCI_CAP_PTR;

	if (len < 2 || at + len > 256)
		return -ENOSPC;
	while (f->cfg[link])
		link = f->cfg[link] + 1u;
	pci_put(f, link, 1, at, 0);
	pci_put(f, at, 2, id, 0);
	pci_put(f, PCI_STATUS, 1, pci_get(f, PCI_STATUS, 1) | PCI_STS_CAPS, 0);
	f->cap_end = (uint8_t)((at + len + 3) & ~3u);
	return (int)at;
}

/* As the specification has it after a reset: addresses zero, spaces not decoded, as far as software can change that. */
static void unassign(struct pci_func *f)
{
	for (unsigned i = PCI_COMMAND; i < PCI_BAR0 + 24; i = i == PCI_COMMAND + 1 ? PCI_BAR0 : i + 1)
		f->cfg[i] &= (uint8_t)~f->wmask[i];
}

void pci_reset(struct pci *p)
{
	p->address = 0;
	for (unsigned i = 0; i < 256; i++) {
		struct pci_func *f = p->func[i];

		if (!f)
			continue;
		pci_set_intx(f, false);
		for (unsigned j = 0; j < 256; j++)
			f->cfg[j] = f->reset_cfg[j];
		if (p->firmware)
			unassign(f);
		remap(f);
		if (f->written)
			f->written(f, 0, 256);
	}
}

/* ---- what is saved ---- */

/* A function's BARs answer where its registers say. */
void pci_loaded(struct pci *p)
{
	for (unsigned i = 0; i < 256; i++)
		if (p->func[i])
			remap(p->func[i]);
}

static const struct save_row pci_func_save_rows[] = {
	SAVE_OMIT(struct pci_func, bus, SAVE_WIRED),
	SAVE_OMIT(struct pci_func, devfn, SAVE_WIRED),
	SAVE_ARRAY(struct pci_func, cfg),
	SAVE_OMIT(struct pci_func, reset_cfg, "made when the function is added"),
	SAVE_OMIT(struct pci_func, wmask, "made when the function is added"),
	SAVE_OMIT(struct pci_func, bar, "follows from cfg: pci_loaded()"),
	SAVE_OMIT(struct pci_func, cap_end, "made when the function is added"),
	SAVE(struct pci_func, intx),
	SAVE(struct pci_func, intx_out),
	SAVE_OMIT(struct pci_func, written, SAVE_WIRED),
	SAVE_OMIT(struct pci_func, reading, SAVE_WIRED),
	SAVE_OMIT(struct pci_func, dev, SAVE_WIRED),
};
SAVE_TABLE(pci_func_save, struct pci_func, "pci-function");

static const struct save_row pci_save_rows[] = {
	SAVE_OMIT(struct pci, io, SAVE_WIRED),
	SAVE_OMIT(struct pci, mem, SAVE_WIRED),
	SAVE_OMIT(struct pci, func, SAVE_WIRED),
	SAVE(struct pci, address),
	SAVE_OMIT(struct pci, next_io, "made when the function is added"),
	SAVE_OMIT(struct pci, next_mem, "made when the function is added"),
	SAVE_OMIT(struct pci, next_mem64, "made when the function is added"),
	SAVE_ARRAY(struct pci, asserted),
	SAVE_OMIT(struct pci, intx, SAVE_WIRED),
	SAVE_OMIT(struct pci, msi, SAVE_WIRED),
	SAVE_OMIT(struct pci, msi_cpu, SAVE_WIRED),
	SAVE_OMIT(struct pci, cf9_read, SAVE_WIRED),
	SAVE_OMIT(struct pci, cf9_write, SAVE_WIRED),
	SAVE_OMIT(struct pci, ctx, SAVE_WIRED),
	SAVE_OMIT(struct pci, firmware, SAVE_WIRED),
	SAVE_OMIT(struct pci, ecam, "follows from the host bridge's registers: pci_loaded()"),
	SAVE_STRUCT(struct pci, host, pci_func_save),
	SAVE_STRUCT(struct pci, lpc, pci_func_save),
};
SAVE_TABLE(pci_save, struct pci, "pci");
