/*
 * How a port joins hvx-switch: over a connected SOCK_SEQPACKET socket the first packet of the client is a struct
 * switch_join, that of the switch a struct switch_answer; after that every packet is a struct vnet_hdr and a frame.
 * The monitor joins, so that the process that serves the guest cannot choose the address.
 */
#ifndef HVX_NET_JOIN_H
#define HVX_NET_JOIN_H

#include <stdint.h>

#define SWITCH_MAGIC   0x53585648u /* "HVXS" */
#define SWITCH_VERSION 1

enum switch_result { SWITCH_WELCOME, SWITCH_BAD, SWITCH_MAC_TAKEN, SWITCH_FULL };

struct switch_join {
	uint32_t magic;
	uint16_t version;
	uint8_t mac[6];
};
_Static_assert(sizeof(struct switch_join) == 12, "wire format");

struct switch_answer {
	uint32_t magic;
	uint16_t version, result; /* enum switch_result */
};
_Static_assert(sizeof(struct switch_answer) == 8, "wire format");

#endif
