/*
 * The cards that are processes: disks and network cards.  See card.c.
 */
#ifndef HVX_MONITOR_CARD_H
#define HVX_MONITOR_CARD_H

#include <stdbool.h>

#include "monitor/forward.h"
#include "proto/pack.h"

struct image;
struct ipc_watch;
struct machine;
struct peer;
struct proc;

#define CARD_FIRST_SLOT 1  /* PCI device number of the first: network cards, then disks */
#define CARD_END_SLOT   27 /* from here on they are hvx-vcpu's own (vcpu/local/set.c) */

struct card {
	enum msg_role role; /* ROLE_BLK or ROLE_NET */
	const char *id;     /* in the configuration */
	int option;         /* which disk or card of the configuration */
	int backend, overlay;
	struct machine *m;
	struct proc *tool;          /* passt or qemu-nbd, if there is one */
	struct ipc_watch *awaits;   /* its sign that it serves: ready.c */
	struct forward_claim claim; /* until then */
	struct image *image; /* its files are kept for their locks while qemu-nbd serves them; of a raw one: NULL */
	int device_end, vcpu_end; /* of the channel */
	int page, kick;
	struct msg_dev_limits limits;
	bool seed; /* cloud-init's disk */
	bool configured;
	bool link_down, failed; /* failed: an I/O error that waits for resume */
	char lost[128];         /* why the link stays down; empty: it does not */
};

/* Opens what the cards need, by name, and takes the locks: before any child exists.  0 or an exit status, logged. */
int card_open_all(struct machine *m);
/* Starts the device processes and the tools they need.  0 or a negative error, logged. */
int card_start_all(struct machine *m);
/* Sends the configuration to a device that has said hello, once RAM is there. */
int card_configure(struct machine *m, struct peer *p);
bool card_all_configured(const struct machine *m);
/* After VCPU_CONFIG: the vcpu's ends. */
int card_give_vcpu(struct machine *m);
void card_close_all(struct machine *m);
void card_free_all(struct machine *m); /* at the end: locks of images too */
struct card *card_find(struct machine *m, const char *id, struct peer **peer);

#endif
