/*
 * A SATA host bus adapter, as far as it is registers (AHCI 1.3.1 section 3).  Command list, tables and data are read and written
 * by the device process (devices/blk/ahci.c).
 *
 * Invariant: the device works on the command list exactly while PxCMD.ST and FRE are set, the link is up and the function is a
 * bus master; every write that could change that goes through evaluate(), and PxCMD.CR is set until the device has stopped.
 */
#include "vcpu/chipset/ahci.h"

#include "vcpu/chipset/savechips.h"

#define ABAR_LEN 0x1000u
#define PORT     0x100u

enum { CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c, VS = 0x10, CAP2 = 0x24 };
enum {
	CLB = 0x00,
	CLBU = 0x04,
	FB = 0x08,
	FBU = 0x0c,
	PXIS = 0x10,
	PXIE = 0x14,
	CMD = 0x18,
	TFD = 0x20,
	SIG = 0x24,
	SSTS = 0x28,
	SCTL = 0x2c,
	SERR = 0x30,
	SACT = 0x34,
	CI = 0x38
};

/* one port, 32 slots, AHCI only, command list override, 6 Gbit/s, 64-bit addresses */
#define CAP_VALUE (31u << 8 | 1u << 18 | 3u << 20 | 1u << 24 | 1u << 31)
#define VERSION   0x00010300u
#define GHC_HR    1u
#define GHC_IE    2u
#define GHC_AE    0x80000000u
#define CMD_ST    0x0001u
#define CMD_UP    0x0006u /* spun up, powered */
#define CMD_CLO   0x0008u
#define CMD_FRE   0x0010u
#define CMD_FR    0x4000u
#define CMD_CR    0x8000u
#define CMD_ATAPI (1u << 24)
#define CMD_KEPT  (CMD_ST | CMD_FRE | CMD_ATAPI | 1u << 25)
#define TFD_BUSY  0x88u   /* BSY and DRQ */
#define TFD_READY 0x0150u /* diagnostics passed; DRDY, DSC */
#define IS_PCS    (1u << 6)
#define IS_PRCS   (1u << 22)
#define IS_DEVICE 0x69000003u /* what the device may raise: DHRS, PSS, OFS, IFS, HBFS, TFES */
#define SERR_N    (1u << 16)
#define SERR_X    (1u << 26)
#define LINK_UP   0x133u
#define SIG_ATA   0x00000101u
#define SIG_ATAPI 0xeb140101u

/* PxIS as it is read: two bits follow from PxSERR. */
static uint32_t port_is(const struct ahci *a)
{
	return a->pxis | (a->serr & SERR_X ? IS_PCS : 0) | (a->serr & SERR_N ? IS_PRCS : 0);
}

static void update(struct ahci *a)
{
	if (port_is(a) & a->pxie)
		a->is |= 1;
	pci_set_intx(&a->f, (a->ghc & GHC_IE) && a->is);
}

/* ---- the device's life ---- */

static void start(struct ahci *a)
{
	const struct msg_virtio_activate m = {.list = a->clb, .fis = a->fb};

	a->active = true;
	a->cmd |= CMD_CR;
	a->ops->activate(a->dev, &m);
	for (unsigned i = 0; i < 32; i++)
		if (a->ci >> i & 1)
			a->ops->kick(a->dev, i);
}

static void evaluate(struct ahci *a)
{
	bool want = (a->cmd & CMD_ST) && (a->cmd & CMD_FRE) && a->master && a->link && !a->hba_reset && !a->gone;

	if (a->resetting || want == a->active)
		return;
	if (want) {
		start(a);
	} else {
		a->resetting = true;
		a->ops->reset(a->dev);
	}
}

/* The device answers a COMRESET: its signature. */
static void link_up(struct ahci *a)
{
	if (a->gone)
		return;
	a->link = true;
	a->tfd = TFD_READY;
	a->serr |= SERR_X;
}

static void stop_port(struct ahci *a)
{
	a->cmd &= ~CMD_ST;
	a->ci = a->sact = 0;
}

/* GHC.HR is done, AHCI 10.4.3: all but the addresses. */
static void clear(struct ahci *a)
{
	a->hba_reset = false;
	a->ghc = GHC_AE;
	a->is = a->pxis = a->pxie = a->sctl = a->serr = a->sact = a->ci = 0;
	a->cmd = CMD_UP | (a->packet ? CMD_ATAPI : 0);
	link_up(a);
	update(a);
}

static void reset_hba(struct ahci *a)
{
	stop_port(a);
	a->hba_reset = true;
	a->ghc |= GHC_HR;
	evaluate(a);
	if (!a->resetting)
		clear(a);
}

void ahci_reset_done(struct ahci *a)
{
	if (!a->resetting)
		return;
	a->resetting = a->active = false;
	a->cmd &= ~CMD_CR;
	if (a->hba_reset)
		clear(a);
	else if (!a->link && !(a->sctl & 0xf))
		link_up(a);
	update(a);
	evaluate(a);
}

void ahci_reset(struct ahci *a)
{
	a->clb = a->fb = 0;
	a->master = false;
	reset_hba(a);
}

void ahci_done(struct ahci *a, uint32_t slots, uint32_t causes, uint32_t tfd)
{
	if (!a->active || a->resetting)
		return;
	a->ci &= ~slots;
	a->tfd = tfd & 0xffff;
	a->pxis |= causes & IS_DEVICE;
	update(a);
}

void ahci_gone(struct ahci *a)
{
	a->gone = true;
	a->link = false;
	a->tfd = 0x7f;
	a->serr |= SERR_N;
	update(a);
}

/* ---- registers ---- */

static uint32_t port_read(const struct ahci *a, unsigned off)
{
	switch (off) {
	case CLB: return (uint32_t)a->clb;
	case CLBU: return (uint32_t)(a->clb >> 32);
	case FB: return (uint32_t)a->fb;
	case FBU: return (uint32_t)(a->fb >> 32);
	case PXIS: return port_is(a);
	case PXIE: return a->pxie;
	case CMD: return a->cmd | (a->cmd & CMD_FRE ? CMD_FR : 0);
	case TFD: return a->tfd;
	case SIG: return !a->link ? 0xffffffffu : a->packet ? SIG_ATAPI : SIG_ATA;
	case SSTS: return a->link ? LINK_UP : 0;
	case SCTL: return a->sctl;
	case SERR: return a->serr;
	case SACT: return a->sact;
	case CI: return a->ci;
	default: return 0;
	}
}

static uint32_t hba_read(const struct ahci *a, unsigned off)
{
	switch (off) {
	case CAP: return CAP_VALUE;
	case GHC: return a->ghc;
	case IS: return a->is;
	case PI: return 1;
	case VS: return VERSION;
	default: return off >= PORT && off < PORT + 0x80 ? port_read(a, off - PORT) : 0;
	}
}

static void write_cmd(struct ahci *a, uint32_t val)
{
	bool stops = (a->cmd & CMD_ST) && !(val & CMD_ST);

	a->cmd = (a->cmd & ~CMD_KEPT) | (val & CMD_KEPT);
	if (val & CMD_CLO)
		a->tfd &= ~TFD_BUSY;
	if (stops)
		stop_port(a);
	evaluate(a);
}

/* DET 1 is COMRESET for as long as it stands (AHCI 10.4.2). */
static void write_sctl(struct ahci *a, uint32_t val)
{
	bool was = a->sctl & 0xf;

	a->sctl = val & 0xfff;
	if (val & 0xf) {
		a->link = false;
		a->tfd = 0x80;
		stop_port(a);
		evaluate(a);
	} else if (was && !a->resetting) {
		link_up(a);
	}
}

static void write_ci(struct ahci *a, uint32_t val)
{
	uint32_t fresh = val & ~a->ci;

	if (!(a->cmd & CMD_ST))
		return;
	a->ci |= val;
	for (unsigned i = 0; i < 32; i++)
		if ((fresh >> i & 1) && a->active && !a->resetting)
			a->ops->kick(a->dev, i);
}

static void set_half(uint64_t *to, unsigned shift, uint32_t val)
{
	*to = (*to & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
}

static void port_write(struct ahci *a, unsigned off, uint32_t val)
{
	switch (off) {
	case CLB: set_half(&a->clb, 0, val & ~0x3ffu); break;
	case CLBU: set_half(&a->clb, 32, val); break;
	case FB: set_half(&a->fb, 0, val & ~0xffu); break;
	case FBU: set_half(&a->fb, 32, val); break;
	case PXIS: a->pxis &= ~val; break;
	case PXIE: a->pxie = val & 0xfdc000ffu; break;
	case CMD: write_cmd(a, val); break;
	case SCTL: write_sctl(a, val); break;
	case SERR: a->serr &= ~val; break;
	case SACT: a->sact |= a->cmd & CMD_ST ? val : 0; break;
	case CI: write_ci(a, val); break;
	default: break;
	}
}

static uint64_t reg_read(void *dev, uint64_t off, unsigned size)
{
	uint32_t val = hba_read(dev, (unsigned)off & ~3u) >> (off & 3) * 8;

	return size >= 4 ? val : val & ((1u << size * 8) - 1);
}

static void reg_write(void *dev, uint64_t off, uint64_t v, unsigned size)
{
	struct ahci *a = dev;
	uint32_t val = (uint32_t)v;

	if (size != 4 || (off & 3) || a->hba_reset)
		return;
	if (off == GHC && (val & GHC_HR))
		reset_hba(a);
	else if (off == GHC)
		a->ghc = GHC_AE | (val & GHC_IE);
	else if (off == IS)
		a->is &= ~val;
	else if (off >= PORT && off < PORT + 0x80)
		port_write(a, (unsigned)off - PORT, val);
	update(a);
}

static const struct bus_ops reg_ops = {reg_read, reg_write, 4};

/* A function that is no bus master touches no memory: the guest does not go on before nothing is in flight. */
static void cfg_written(struct pci_func *f, unsigned off, unsigned size)
{
	struct ahci *a = f->dev;

	(void)off;
	a->master = pci_get(f, PCI_COMMAND, 2) & PCI_CMD_MASTER;
	evaluate(a);
	if (!a->master && a->resetting && size <= 4) /* else it is a reset of the bus */
		a->ops->settle(a->dev);
}

int ahci_add(struct pci *p, struct ahci *a, uint8_t devfn)
{
	static const struct pci_ids ids = {.vendor = 0x8086,
					   .device = 0x2922,
					   .subsys_vendor = 0x1af4,
					   .subsys = 0x1100,
					   .class_code = 0x010601,
					   .revision = 2,
					   .int_pin = 1};
	int rc = pci_add(p, &a->f, devfn, &ids);

	if (!rc)
		rc = pci_add_bar(&a->f, 5, PCI_BAR_MEM32, ABAR_LEN, &reg_ops, a);
	a->f.dev = a;
	a->f.written = cfg_written;
	ahci_reset(a);
	return rc;
}

/* ---- what is saved ---- */

static const struct save_row ahci_save_rows[] = {
	SAVE_STRUCT(struct ahci, f, pci_func_save),
	SAVE_OMIT(struct ahci, ops, SAVE_WIRED),
	SAVE_OMIT(struct ahci, dev, SAVE_WIRED),
	SAVE_OMIT(struct ahci, packet, "the device offers it again"),
	SAVE(struct ahci, ghc),
	SAVE_MAX(struct ahci, is, 1),
	SAVE(struct ahci, clb),
	SAVE(struct ahci, fb),
	SAVE(struct ahci, pxis),
	SAVE(struct ahci, pxie),
	SAVE(struct ahci, cmd),
	SAVE_MAX(struct ahci, tfd, 0xffff),
	SAVE(struct ahci, sctl),
	SAVE(struct ahci, serr),
	SAVE(struct ahci, sact),
	SAVE(struct ahci, ci),
	SAVE(struct ahci, master),
	SAVE(struct ahci, link),
	SAVE(struct ahci, gone),
	SAVE(struct ahci, hba_reset),
	SAVE(struct ahci, active),
	SAVE(struct ahci, resetting),
};
SAVE_TABLE(ahci_save, struct ahci, "ahci");
