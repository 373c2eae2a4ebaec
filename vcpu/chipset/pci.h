/*
 * PCI bus 0: configuration mechanism 1, ECAM, functions with BARs and
 * capabilities, INTx.  Called under the platform's lock (functions are added
 * before the machine starts).
 */
#ifndef HVX_PCI_H
#define HVX_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"

#define PCI_ECAM_BASE   0xb0000000u /* where both firmwares put it, too */
#define PCI_ECAM_LEN    0x10000000u /* 256 buses */
#define PCI_MMIO_BASE   0xc0000000u /* window for BARs, up to the IOAPIC; the DSDT says the same */
#define PCI_MMIO_END    0xfec00000u
#define PCI_MMIO64_BASE 0x7000000000ull /* 64-bit window */
#define PCI_MMIO64_END  0x8000000000ull
#define PCI_IO_BASE     0xc000u
#define PCI_IO_END      0x10000u
#define PCI_GSI_BASE    16 /* INTx lines arrive on GSI 16 to 19 */

/* configuration registers */
enum {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09,
	PCI_HEADER = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYS_VENDOR = 0x2c,
	PCI_SUBSYS = 0x2e,
	PCI_CAP_PTR = 0x34,
	PCI_INT_LINE = 0x3c,
	PCI_INT_PIN = 0x3d
};
#define PCI_CMD_IO       0x001u
#define PCI_CMD_MEM      0x002u
#define PCI_CMD_MASTER   0x004u
#define PCI_CMD_INTX_OFF 0x400u
#define PCI_STS_INTX     0x08u
#define PCI_STS_CAPS     0x10u

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_bar {
	enum pci_bar_kind kind;
	uint64_t size;
	const struct bus_ops *ops;
	void *dev;
	uint64_t mapped; /* where it answers now, 0: nowhere */
};

struct pci_func {
	struct pci *bus;
	uint8_t devfn;
	uint8_t cfg[256], reset_cfg[256], wmask[256];
	struct pci_bar bar[6];
	uint8_t cap_end; /* where the next capability goes */
	bool intx;       /* level the device asks for */
	bool intx_out;   /* level that goes out, after INTx disable */
	/* after a guest's write to configuration registers [off, off+size); may be NULL */
	void (*written)(struct pci_func *f, unsigned off, unsigned size);
	/* before a guest's read of them; may be NULL */
	void (*reading)(struct pci_func *f, unsigned off, unsigned size);
	void *dev;
};

struct pci {
	struct bus *io, *mem;
	struct pci_func *func[256];
	uint32_t address;                       /* 0xcf8 */
	uint64_t next_io, next_mem, next_mem64; /* for BARs of functions added */
	unsigned asserted[4];                   /* functions that assert each of the four lines */
	void (*intx)(void *ctx, unsigned line, bool level);
	void (*msi)(void *ctx, uint64_t addr, uint32_t data);    /* a message-signalled interrupt goes out */
	int (*msi_cpu)(void *ctx, uint64_t addr, uint32_t data); /* to which CPU such a one would; may be NULL */
	/* byte register 0xcf9 lies inside mechanism 1's address register */
	uint8_t (*cf9_read)(void *ctx);
	void (*cf9_write)(void *ctx, uint8_t val);
	void *ctx;
	bool firmware;             /* resources are firmware's to assign: from reset nothing is decoded */
	uint64_t ecam;             /* where configuration space is mapped; 0: nowhere */
	struct pci_func host, lpc; /* 00:00.0 and 00:1f.0 (pci_bridges.c) */
};

struct pci_ids {
	uint16_t vendor, device, subsys_vendor, subsys;
	uint32_t class_code;       /* 24 bits */
	uint8_t revision, int_pin; /* 1-4: INTA-INTD, 0: none */
};

/* ->firmware, ->ctx and the hooks are set before. */
void pci_init(struct pci *p, struct bus *io, struct bus *mem);
void pci_reset(struct pci *p);
void pci_loaded(struct pci *p); /* after registers were loaded (savechips.h) */

/* Wires a function.  0, -EEXIST when the place is taken, -EINVAL. */
int pci_add(struct pci *p, struct pci_func *f, uint8_t devfn, const struct pci_ids *ids);
/* Gives it BAR @n of @size bytes (a power of two) with an address in the window.  MEM64 takes n and n+1.
 * 0, -EINVAL, -ENOSPC. */
int pci_add_bar(struct pci_func *f, unsigned n, enum pci_bar_kind kind, uint64_t size, const struct bus_ops *ops,
		void *dev);
/* Appends a capability of @len bytes, its body (from byte 2 on) zero; its offset, or -ENOSPC. */
int pci_add_cap(struct pci_func *f, uint8_t id, unsigned len);
/* Initial contents of read-only registers; @mask: bits the guest may write. */
void pci_put(struct pci_func *f, unsigned off, unsigned size, uint32_t val, uint32_t mask);
uint32_t pci_get(const struct pci_func *f, unsigned off, unsigned size);

void pci_set_intx(struct pci_func *f, bool level);
/* The host bridge's PAM registers. */
const uint8_t *pci_pam(const struct pci *p);
/* After the host bridge's registers changed: maps configuration space where they say. */
void pci_map_ecam(struct pci *p);
/* The 8259 input that INTx line @line (0-3) is routed to in the LPC bridge, or -1. */
int pci_route(const struct pci *p, unsigned line);

extern const struct bus_ops pci_mech1_ops, pci_ecam_ops;

#endif
