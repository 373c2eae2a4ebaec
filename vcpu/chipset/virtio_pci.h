/*
 * A virtio device on the PCI bus, modern interface only (virtio 1.2 4.1): configuration structures,
 * feature negotiation, status, MSI-X and INTx.  What moves the data stands behind struct virtio_pci_ops.
 * All functions are called under the platform's lock.
 */
#ifndef HVX_VIRTIO_PCI_H
#define HVX_VIRTIO_PCI_H

#include "proto/pack.h"
#include "vcpu/chipset/pci.h"

#define VIRTIO_PCI_VECTORS (MSG_QUEUES_MAX + 1) /* one a queue and one for the configuration */

/* device status, virtio 1.2 2.1 */
#define VIRTIO_S_ACKNOWLEDGE 1
#define VIRTIO_S_DRIVER      2
#define VIRTIO_S_DRIVER_OK   4
#define VIRTIO_S_FEATURES_OK 8
#define VIRTIO_S_NEEDS_RESET 64
#define VIRTIO_S_FAILED      128

/* Called from the vcpu's thread, too: they post work and do not wait. */
struct virtio_pci_ops {
	void (*kick)(void *dev, unsigned queue);
	void (*activate)(void *dev, const struct msg_virtio_activate *m);
	/* Ends in virtio_pci_reset_done(), at once or later. */
	void (*reset)(void *dev);
	/* The guest runs no further before virtio_pci_reset_done(). */
	void (*settle)(void *dev);
	void (*config_write)(void *dev, uint32_t off, uint32_t len); /* vp->offer.config has the new bytes */
	/* @queue's interrupts go to this CPU from now on; told more often than it changes.  May be NULL. */
	void (*route)(void *dev, unsigned queue, unsigned cpu);
};

struct virtio_pci_queue {
	uint16_t size, vector, enable;
	uint64_t addr[3]; /* descriptors, driver area, device area */
};

struct virtio_pci {
	struct pci_func f;
	const struct virtio_pci_ops *ops;
	void *dev;
	struct msg_virtio_offer offer; /* what the device is; its configuration space */
	uint64_t driver_features;
	uint32_t device_sel, driver_sel; /* which half of the features is looked at */
	uint16_t config_vector, queue_sel;
	uint8_t status, generation, isr;
	bool master;    /* bus mastering is on, as last written */
	bool active;    /* the device was told to start */
	bool resetting; /* asked for, not done: registers ignore writes and status stays what it was */
	struct virtio_pci_queue q[MSG_QUEUES_MAX];
	struct {
		uint64_t addr;
		uint32_t data, control;
	} msix[VIRTIO_PCI_VECTORS];
	uint32_t pending; /* of msix[], while masked */
	unsigned msix_cap, cfg_cap;
};

/* Adds the device at @devfn; vp->offer, ops and dev are set.  0, -EEXIST, -ENOSPC, -EINVAL. */
int virtio_pci_add(struct pci *p, struct virtio_pci *vp, uint8_t devfn);
/* Power-on state.  What is in flight goes on until virtio_pci_reset_done(): look at vp->resetting. */
void virtio_pci_reset(struct virtio_pci *vp);
void virtio_pci_reset_done(struct virtio_pci *vp);

/* The device has used buffers of the queues in @bits. */
void virtio_pci_interrupt(struct virtio_pci *vp, uint32_t bits);
/* New contents of the configuration space, of the length that was offered. */
void virtio_pci_config(struct virtio_pci *vp, const uint8_t *data, uint32_t len);
/* The driver broke the rules: NEEDS_RESET (virtio 1.2 2.1.2). */
void virtio_pci_broken(struct virtio_pci *vp);

#endif
