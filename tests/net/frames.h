/*
 * Frames for tests, and a plain model of their checksums: written apart from devices/net/frame.c, byte by byte.
 */
#ifndef HVX_TESTS_NET_FRAMES_H
#define HVX_TESTS_NET_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tcp_spec {
	bool v6, vlan;
	unsigned ip_options,
		tcp_options; /* bytes, multiples of four (of eight for IPv6: a destination options header) */
	uint32_t seq, ack;
	uint8_t flags;
	uint16_t id, port;
	size_t data;
	uint8_t fill; /* data bytes are fill + position */
};

/* Builds an Ethernet frame with right checksums; its length.  *l4 and *payload tell where TCP and its data begin. */
size_t frames_tcp(uint8_t *buf, const struct tcp_spec *s, size_t *l4, size_t *payload);
/* An IPv4 UDP frame. */
size_t frames_udp(uint8_t *buf, uint16_t port, size_t data, uint8_t fill);
/* Are IPv4's and TCP's or UDP's checksums right, and all lengths that they are of?  NULL, or what is wrong. */
const char *frames_wrong(const uint8_t *frame, size_t len);
/* Puts the sum of the pseudo-header where the checksum goes, as drivers do that leave it to the device. */
void frames_partial(uint8_t *frame, size_t len, size_t l4, size_t at);

#endif
