/*
 * Several pairs of queues of a real hvx-net: the control queue, and which frame goes where.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/net/frames.h"
#include "tests/net/guest.h"

#define CONTROL_QUEUE 4u
#define FLOWS         64u

static struct guest g;
static int peer;
static uint8_t frame[2048], got[2048];

static void from_wire(uint16_t port)
{
	uint8_t packet[sizeof(struct vnet_hdr) + 2048] = {0};
	size_t len = frames_udp(packet + sizeof(struct vnet_hdr), port, 100, (uint8_t)port);

	CHECK(send(peer, packet, sizeof(struct vnet_hdr) + len, 0) > 0);
}

static void to_wire(unsigned pair, uint16_t port)
{
	size_t len = frames_udp(frame, port, 100, 7);

	g.pair = pair;
	guest_send(&g, NULL, frame, len, 0);
	guest_sent(&g);
	CHECK(recv(peer, got, sizeof got, 0) == (ssize_t)(len + sizeof(struct vnet_hdr)));
	CHECK(!memcmp(got + sizeof(struct vnet_hdr), frame, len));
}

/* The pair by which the frame of this flow comes; -1 when it does not within @ms. */
static int comes_by(uint16_t port, int ms)
{
	struct vnet_hdr h;
	size_t len = frames_udp(frame, port, 100, (uint8_t)port);

	for (int waited = 0; waited <= ms; waited += 5)
		for (g.pair = 0; g.pair < 2; g.pair++) {
			size_t n = guest_receive(&g, &h, got, sizeof got, waited ? 5 : 0);
			if (!n)
				continue;
			CHECK(n == len && !memcmp(got, frame, len));
			guest_post(&g, 1);
			return (int)g.pair;
		}
	return -1;
}

static int round_trip(uint16_t port)
{
	from_wire(port);
	return comes_by(port, PATIENCE);
}

static void post(unsigned pair, unsigned n)
{
	g.pair = pair;
	guest_post(&g, n);
}

static uint8_t set_pairs(unsigned n)
{
	const uint8_t c[] = {4, 0, (uint8_t)n, (uint8_t)(n >> 8)};

	return guest_control(&g, CONTROL_QUEUE, c, sizeof c, true);
}

/* A driver that knows nothing of it has one pair. */
static void plain(void)
{
	guest_activate(&g, F_ALL);
	guest_post(&g, 100);
	for (uint16_t port = 1; port < 20; port++) {
		struct vnet_hdr h;
		from_wire(port);
		CHECK(guest_receive(&g, &h, got, sizeof got, PATIENCE));
	}
	to_wire(0, 1);
	guest_reset(&g);
}

static unsigned spread(void)
{
	unsigned second = 0;

	for (uint16_t port = 1; port <= FLOWS; port++)
		second += round_trip(port) == 1;
	return second;
}

static void steering(void)
{
	guest_activate(&g, F_ALL | F_MQ);
	post(0, 100);
	post(1, 100);
	CHECK(spread() == 0); /* only the first until the driver says more */
	CHECK(set_pairs(2) == 0);
	unsigned n = spread();
	CHECK(n && n < FLOWS);
	for (unsigned turn = 0; turn < 4; turn++)
		for (uint16_t port = 1; port < 10; port++) { /* where it was last sent by */
			to_wire(turn & 1, port);
			CHECK(round_trip(port) == (int)(turn & 1));
		}
	CHECK(set_pairs(1) == 0);
	CHECK(spread() == 0);
}

static void refused(void)
{
	static const struct {
		uint32_t len;
		uint8_t c[6];
	} bad[] = {
		{4, {4, 0, 0, 0}},    /* no pair */
		{4, {4, 0, 3, 0}},    /* more than there are */
		{4, {4, 0, 2, 1}},    /* likewise */
		{4, {4, 1, 2, 0}},    /* RSS */
		{4, {3, 0, 2, 0}},    /* of another class */
		{3, {4, 0, 2}},       /* cut short */
		{5, {4, 0, 2, 0, 0}}, /* too long */
		{2, {4, 0}},
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CHECK(guest_control(&g, CONTROL_QUEUE, bad[i].c, bad[i].len, true) == 1);
	CHECK(spread() == 0);
	CHECK(!g.broken);
}

/* A frame that waits for buffers of a pair takes those of another when the driver gives that pair up. */
static void waiting(void)
{
	struct vnet_hdr h;
	uint16_t port = 1;

	guest_reset(&g);
	guest_activate(&g, F_ALL | F_MQ);
	post(0, 100);
	CHECK(set_pairs(2) == 0);
	to_wire(1, port);
	from_wire(port);
	from_wire(port);
	while (!guest_stat(&g, "rx_waits"))
		guest_turn(&g, 5);
	CHECK(comes_by(port, 0) == -1);
	post(1, 1);
	CHECK(comes_by(port, PATIENCE) == 1); /* and posts another */
	CHECK(comes_by(port, PATIENCE) == 1);
	to_wire(1, port);
	uint64_t had = guest_stat(&g, "rx_frames");
	for (int i = 0; i < 3; i++)
		from_wire(port);
	CHECK(comes_by(port, PATIENCE) == 1); /* one buffer more: for the second */
	while (guest_stat(&g, "rx_frames") < had + 2)
		guest_turn(&g, 5);
	CHECK(set_pairs(1) == 0);
	g.pair = 0;
	CHECK(guest_receive(&g, &h, got, sizeof got, PATIENCE)); /* the third, without another doorbell */
	CHECK(comes_by(port, PATIENCE) == 1);
	CHECK(round_trip(port) == 0);
}

static void broken(void)
{
	static const uint8_t c[] = {4, 0, 1, 0};

	guest_control(&g, CONTROL_QUEUE, c, sizeof c, false);
	while (!g.broken)
		guest_turn(&g, PATIENCE);
	guest_reset(&g);
	g.broken = 0;
	plain();
}

int main(void)
{
	int sv[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	peer = sv[0];
	g.cfg.net.queues = 2;
	guest_start(&g, NET_SWITCH, sv[1]);
	CHECK((g.offer.features & F_MQ) == F_MQ && g.offer.config[8] == 2);
	plain();
	steering();
	refused();
	waiting();
	broken();
	CHECK(guest_end(&g) == 0);
	printf("pairs of queues: all of it\n");
	return 0;
}
