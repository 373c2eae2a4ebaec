/*
 * Which Ethernet address is at which port of the switch.  See macs.c.
 */
#ifndef HVX_NET_MACS_H
#define HVX_NET_MACS_H

#include <stdbool.h>
#include <stdint.h>

#define MACS_PORTS   64u
#define MACS_LEARNED 64u /* addresses beyond its own that a port may have at a time */
#define MACS_BUCKETS 1024u
#define MACS_MAX     (MACS_PORTS * (MACS_LEARNED + 1))

struct mac_entry {
	uint8_t mac[6];
	uint8_t port;
	bool own;      /* registered by the port itself */
	uint64_t seen; /* seconds */
	uint16_t next; /* in its bucket or in the list of free ones; 0 ends it */
};

struct macs {
	uint64_t ageing; /* seconds after which a learned address is forgotten */
	bool strict;     /* nobody sends from an address that is not its own */
	uint16_t free, bucket[MACS_BUCKETS];
	uint16_t learned[MACS_PORTS];
	struct mac_entry e[MACS_MAX + 1]; /* [0] stands for none */
};

void macs_init(struct macs *t, uint64_t ageing, bool strict);
/* The port's own address; what others learned of it is forgotten.  False: it is another port's own, or no address of one
 * station. */
bool macs_own(struct macs *t, const uint8_t mac[6], unsigned port);
/* May @port send from this address now?  Remembers that it did. */
bool macs_source(struct macs *t, const uint8_t mac[6], unsigned port, uint64_t now);
/* The port where it is, or -1. */
int macs_find(struct macs *t, const uint8_t mac[6], uint64_t now);
void macs_forget(struct macs *t, unsigned port);

#endif
