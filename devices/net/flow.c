/*
 * Automatic receive steering (virtio 1.2 5.1.6.5.6.1): frames of a connection go to the pair by which the guest last sent
 * one of it, so to the CPU that works on it; before that, spread by addresses and ports.
 *
 * Invariant: nothing beyond the frame's head is read, whatever its headers claim.
 */
#include "devices/net/flow.h"

#define ETH_IPV4 0x0800
#define ETH_IPV6 0x86dd
#define IP_TCP   6
#define IP_UDP   17

static unsigned get16(const uint8_t *p)
{
	return (unsigned)(p[0] << 8 | p[1]);
}

/* Of @n bytes, an even number: order of halves does not matter, so that source and destination can change places. */
static unsigned mix(const uint8_t *p, unsigned n)
{
	unsigned x = 0;

	for (unsigned i = 0; i < n; i += 2)
		x ^= get16(p + i);
	return x;
}

unsigned flow_of(const struct frame *f)
{
	const uint8_t *ip = f->head + FRAME_ETH;
	unsigned type, x, l4, proto;

	if (f->nhead < FRAME_ETH + 20)
		return 0;
	type = get16(f->head + 12);
	if (type == ETH_IPV4) {
		x = mix(ip + 12, 8);
		proto = get16(ip + 6) & 0x3fff ? 0 : ip[9]; /* fragments have no ports, but for the first */
		l4 = FRAME_ETH + 4u * (ip[0] & 15);
	} else if (type == ETH_IPV6 && f->nhead >= FRAME_ETH + 40) {
		x = mix(ip + 8, 32);
		proto = ip[6];
		l4 = FRAME_ETH + 40;
	} else {
		return 0;
	}
	if ((proto == IP_TCP || proto == IP_UDP) && l4 + 4 <= f->nhead)
		x ^= mix(f->head + l4, 4);
	x *= 0x9e3779b1u;
	return x >> 16 & (FLOWS - 1);
}

void flow_sent(struct flows *t, const struct frame *f, unsigned pair)
{
	t->pair[flow_of(f)] = (uint8_t)(pair + 1);
}

unsigned flow_pair(const struct flows *t, const struct frame *f, unsigned pairs)
{
	unsigned i = flow_of(f);

	return (t->pair[i] ? t->pair[i] - 1u : i) % pairs;
}
