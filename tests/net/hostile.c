/*
 * A driver that writes whatever comes to mind into its rings, at any time, to a real hvx-net whose wire is busy both
 * ways.  Each round ends with a reset, which must be answered, and now and then with a frame each way, which must come.
 *
 * Usage: hostile [rounds [seed]]
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/insn/rng.h"
#include "tests/net/frames.h"
#include "tests/net/guest.h"

static struct guest g;
static struct rng r;
static int peer;
static uint8_t frame[70000], got[70000];

/* The wire: everything is read and thrown away. */
static void drain(int ms)
{
	static uint8_t sink[1 << 18];
	struct pollfd p = {peer, POLLIN, 0};

	while (poll(&p, 1, ms) == 1) {
		CHECK(recv(peer, sink, sizeof sink, MSG_DONTWAIT) > 0);
		ms = 0;
	}
}

static bool peer_send(size_t len)
{
	frame[0] = frame[1] = 0;
	frame[2] = (uint8_t)(len >> 8);
	frame[3] = (uint8_t)len;
	if (send(peer, frame, len + 4, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return true;
	CHECK(errno == EAGAIN); /* nobody takes frames; it was sent whole or not at all: it is one packet */
	return false;
}

static unsigned calm; /* how much rarer than now and then nonsense is in this round */

static bool odd(unsigned n)
{
	return one_in(&r, n * calm);
}

/* Mostly what a descriptor could hold. */
static void random_desc(struct guest_queue *q, unsigned i)
{
	uint64_t gpa = 0x100000 + below(&r, 60u << 20);
	uint32_t len = odd(8) ? (uint32_t)rnd(&r) : 12 + (one_in(&r, 8) ? below(&r, 70000) : below(&r, 2000));
	uint16_t flags = (uint16_t)(odd(10) ? below(&r, 65536) : (q == &g.q[RX] ? 2u : 0u) | (unsigned)one_in(&r, 3));
	uint16_t next = (uint16_t)(odd(20) ? rnd(&r) : (i + 1) % GUEST_QUEUE);
	uint8_t *d = q->desc + 16ul * i;

	if (odd(30))
		gpa = rnd(&r) >> below(&r, 60);
	if (odd(12)) { /* an indirect table, perhaps of descriptors like these */
		flags = 4;
		gpa = (one_in(&r, 2) ? 0x10000u : 0x20000u) + 16 * below(&r, 128);
		len = 16 * below(&r, 128);
	}
	memcpy(d, &gpa, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &flags, 2);
	memcpy(d + 14, &next, 2);
}

/* Headers that are nearly right, in the memory that descriptors point at. */
static void random_memory(void)
{
	for (int i = 0; i < 256; i++) {
		uint64_t gpa;
		memcpy(&gpa, g.q[TX].desc + 16 * i, 8);
		uint8_t *p = g.ram + (gpa < 62u << 20 ? gpa : 0x100000);
		struct vnet_hdr h = {(uint8_t)below(&r, 4),
				     (uint8_t)below(&r, 6),
				     (uint16_t)below(&r, 200),
				     (uint16_t)below(&r, 2000),
				     (uint16_t)below(&r, 100),
				     (uint16_t)below(&r, 20),
				     0};
		memcpy(p, &h, sizeof h);
	}
}

/* Some descriptors change, some chains become available. */
static void scribble(struct guest_queue *q)
{
	unsigned n = below(&r, 30), used = q->used[1], flying = (uint16_t)(q->next - used);

	for (int i = 0; i < 64; i++)
		random_desc(q, below(&r, GUEST_QUEUE));
	if (!odd(60) && n > GUEST_QUEUE - flying)
		n = 0;
	for (unsigned i = 0; i < n; i++, q->next++)
		q->avail[2 + q->next % GUEST_QUEUE] = (uint16_t)(odd(50) ? rnd(&r) : q->next % GUEST_QUEUE);
	if (odd(60))
		q->next = (uint16_t)rnd(&r);
	if (one_in(&r, 10))
		q->avail[2 + GUEST_QUEUE] = (uint16_t)rnd(&r); /* used_event */
	__atomic_store_n(&q->avail[1], q->next, __ATOMIC_SEQ_CST);
}

static void reset(void)
{
	guest_reset(&g);
	g.broken = 0;
}

static void round_of_nonsense(void)
{
	drain(5); /* else a frame that is half out keeps the card from looking at the ring */
	guest_activate(&g, F_V1 | (rnd(&r) & F_ALL));
	calm = (const unsigned[]){1, 10, 100, 10000}[below(&r, 4)];
	for (unsigned i = 0; i < GUEST_QUEUE; i++) {
		random_desc(&g.q[RX], i);
		random_desc(&g.q[TX], i);
	}
	random_memory();
	for (int i = 0; i < 20 && !g.broken; i++) {
		scribble(&g.q[RX]);
		scribble(&g.q[TX]);
		guest_ring(&g, TX);
		guest_ring(&g, RX);
		peer_send(60 + below(&r, one_in(&r, 4) ? 30000 : 1500));
		for (int k = 0; k < 4; k++) /* while it looks */
			scribble(&g.q[k & 1]);
		drain(0);
		guest_turn(&g, 0);
	}
	reset();
}

/* The wire until these bytes come, whatever was in it before. */
static void await_bytes(const uint8_t *want, size_t len)
{
	static uint8_t b[1 << 19];
	struct pollfd p = {peer, POLLIN, 0};
	size_t have = 0;

	while (have < len || memcmp(b + have - len, want, len)) {
		CHECK(have < sizeof b && poll(&p, 1, PATIENCE) == 1);
		ssize_t k = recv(peer, b + have, sizeof b - have, 0);
		CHECK(k > 0);
		have += (size_t)k;
	}
}

/* A sane driver finds a sane card; what was left in the wire is passed over. */
static void round_of_sense(void)
{
	struct vnet_hdr h;
	size_t len, n;

	drain(5);
	guest_activate(&g, F_ALL);
	guest_post(&g, 200);
	len = frames_udp(frame + 4, 1, 600, 1);
	while (!peer_send(len))
		guest_turn(&g, 5);
	do {
		n = guest_receive(&g, &h, got, sizeof got, PATIENCE);
		CHECK(n);
	} while (n != len || memcmp(got, frame + 4, len));
	guest_send(&g, NULL, frame + 4, len, 0);
	guest_sent(&g);
	await_bytes(frame, len + 4);
	reset();
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 400;
	int sv[2];

	r.s = argc > 2 ? (uint64_t)atoll(argv[2]) : 1;
	printf("seed %llu, %u rounds\n", (unsigned long long)r.s, rounds);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	peer = sv[0];
	g.rx_size = 2048;
	guest_start(&g, NET_PASST, sv[1]);
	for (unsigned i = 0; i < rounds; i++) {
		round_of_nonsense();
		if (i % 50 == 49)
			round_of_sense();
	}
	printf("broken %llu times, %llu frames sent, %llu received, %llu malformed\n",
	       (unsigned long long)guest_stat(&g, "broken"), (unsigned long long)guest_stat(&g, "tx_frames"),
	       (unsigned long long)guest_stat(&g, "rx_frames"),
	       (unsigned long long)guest_stat(&g, "tx_drop_malformed"));
	CHECK(guest_stat(&g, "broken") && guest_stat(&g, "tx_frames") && guest_stat(&g, "rx_frames"));
	CHECK(guest_end(&g) == 0);
	return 0;
}
