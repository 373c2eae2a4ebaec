/*
 * The two functions every machine has: the host bridge (as in a Q35) and the
 * LPC bridge (as in ICH9) behind which the ISA devices are.
 *
 * Invariant: their registers agree with the DSDT and the FADT (ECAM, PM_BASE,
 * SCI on IRQ 9).
 */
#include "vcpu/chipset/pam.h"
#include "vcpu/chipset/pci.h"
#include "vcpu/chipset/pm.h"

/* registers of the bridges that say something here */
enum {
	HOST_PCIEXBAR = 0x60,
	HOST_PAM0 = 0x90,
	LPC_PMBASE = 0x40,
	LPC_ACPI_CNTL = 0x44,
	LPC_PIRQA = 0x60,
	LPC_PIRQE = 0x68
};
#define ECAM_ON   1u
#define ECAM_BASE 0xf0000000u /* bits of the address that can be set */

/* By the subsystem's numbers SeaBIOS knows that there is fw_cfg. */
static void add_host(struct pci *p)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086, .device = 0x29c0, .subsys_vendor = 0x1af4, .subsys = 0x1100, .class_code = 0x060000};

	pci_add(p, &p->host, 0, &ids);
	if (p->firmware)
		pci_put(&p->host, HOST_PCIEXBAR, 4, 0, ECAM_BASE | ECAM_ON);
	else
		pci_put(&p->host, HOST_PCIEXBAR, 4, PCI_ECAM_BASE | ECAM_ON, 0);
	for (unsigned i = 0; i < PAM_REGS;
	     i++) /* without firmware all of 0xc0000-0xfffff is RAM: the bits only store */
		pci_put(&p->host, HOST_PAM0 + i, 1, p->firmware ? 0 : 0x33, i ? 0x33 : 0x30);
}

const uint8_t *pci_pam(const struct pci *p)
{
	return p->host.cfg + HOST_PAM0;
}

void pci_map_ecam(struct pci *p)
{
	uint32_t reg = pci_get(&p->host, HOST_PCIEXBAR, 4);
	uint64_t want = reg & ECAM_ON ? reg & ECAM_BASE : 0;

	if (want == p->ecam)
		return;
	if (p->ecam)
		bus_remove(p->mem, p->ecam, p);
	p->ecam = want && !bus_add(p->mem, want, PCI_ECAM_LEN, &pci_ecam_ops, p) ? want : 0;
}

static void add_lpc(struct pci *p)
{
	static const struct pci_ids ids = {.vendor = 0x8086, .device = 0x2918, .class_code = 0x060100, .revision = 2};

	pci_add(p, &p->lpc, 0x1f << 3, &ids);
	pci_put(&p->lpc, PCI_COMMAND, 2, PCI_CMD_IO | PCI_CMD_MEM | PCI_CMD_MASTER, 0);
	pci_put(&p->lpc, LPC_PMBASE, 4, PM_BASE | 1, 0);
	pci_put(&p->lpc, LPC_ACPI_CNTL, 1, 0x80, 0);
	for (unsigned i = 0; i < 4; i++) { /* PIRQA-D on IRQ 10 and 11, PIRQE-H not routed */
		pci_put(&p->lpc, LPC_PIRQA + i, 1, i & 1 ? 11 : 10, 0x8f);
		pci_put(&p->lpc, LPC_PIRQE + i, 1, 0x80, 0x8f);
	}
}

void pci_init(struct pci *p, struct bus *io, struct bus *mem)
{
	p->io = io;
	p->mem = mem;
	p->next_io = PCI_IO_BASE;
	p->next_mem = PCI_MMIO_BASE;
	p->next_mem64 = PCI_MMIO64_BASE;
	add_host(p);
	add_lpc(p);
}

int pci_route(const struct pci *p, unsigned line)
{
	uint8_t r = p->lpc.cfg[LPC_PIRQA + (line & 3)];

	return r & 0x80 ? -1 : r & 15;
}
