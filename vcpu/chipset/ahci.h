/*
 * A SATA host bus adapter with one port (AHCI 1.3.1), whose commands are done by a device process.  Called under the platform's
 * lock.  See ahci.c.
 */
#ifndef HVX_AHCI_H
#define HVX_AHCI_H

#include "vcpu/chipset/pci.h"
#include "vcpu/chipset/virtio_pci.h"

struct ahci {
	struct pci_func f;
	/* kick() takes a command slot; activate() has the addresses of command list and received FISes; no config_write() */
	const struct virtio_pci_ops *ops;
	void *dev;
	bool packet; /* the device is an ATAPI one */
	/* registers of the HBA and of its port, by their names in AHCI */
	uint32_t ghc, is;
	uint64_t clb, fb;
	uint32_t pxis, pxie, cmd, tfd, sctl, serr, sact, ci;
	bool master;    /* as the PCI command register says */
	bool link;      /* the device has answered the last COMRESET */
	bool gone;      /* nobody serves it any more */
	bool hba_reset; /* GHC.HR waits for the device */
	bool active;    /* the device works on the list */
	bool resetting; /* it was asked to stop, and has not answered */
};

/* Adds the HBA at @devfn; ops, dev, packet are set.  0 or a negative error. */
int ahci_add(struct pci *p, struct ahci *a, uint8_t devfn);
/* Power-on state.  What is in flight goes on until ahci_reset_done(): look at a->resetting. */
void ahci_reset(struct ahci *a);
void ahci_reset_done(struct ahci *a);
/* The device has done the commands of @slots, raises @causes (PxIS) and has this task file (PxTFD). */
void ahci_done(struct ahci *a, uint32_t slots, uint32_t causes, uint32_t tfd);
/* Nobody serves the port any more. */
void ahci_gone(struct ahci *a);

#endif
