/*
 * A real hvx-net between a driver (guest.c) and a peer that talks as passt does: frames behind their lengths.
 *
 * Usage: passt [case ...]
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/ipc.h"
#include "tests/net/frames.h"
#include "tests/net/guest.h"

static struct guest g;
static int peer;
static uint8_t frame[70000], got[70000], expect[70000];

static void begin(uint64_t features)
{
	int sv[2], size = 1 << 17;

	memset(&g, 0, sizeof g);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	peer = sv[0];
	guest_start(&g, NET_PASST, sv[1]);
	guest_activate(&g, features);
}

static void finish(void)
{
	CHECK(guest_end(&g) == 0);
	close(peer);
}

static void read_all(void *buf, size_t len)
{
	struct pollfd p = {peer, POLLIN, 0};

	for (size_t done = 0; done < len;) {
		CHECK(poll(&p, 1, PATIENCE) == 1);
		ssize_t k = recv(peer, (uint8_t *)buf + done, len - done, 0);
		CHECK(k > 0);
		done += (size_t)k;
	}
}

static size_t peer_receive(void)
{
	uint8_t n[4];

	read_all(n, 4);
	size_t len = (size_t)n[0] << 24 | n[1] << 16 | n[2] << 8 | n[3];
	CHECK(len >= 14 && len <= 65535);
	read_all(got, len);
	return len;
}

static void peer_write(const void *p, size_t len)
{
	CHECK(send(peer, p, len, MSG_NOSIGNAL) == (ssize_t)len);
}

static void peer_send(const uint8_t *f, size_t len)
{
	static uint8_t b[70004];

	b[0] = b[1] = 0;
	b[2] = (uint8_t)(len >> 8);
	b[3] = (uint8_t)len;
	memcpy(b + 4, f, len);
	peer_write(b, len + 4);
}

/* ---- to passt ---- */

static void test_send(void)
{
	begin(F_ALL);
	for (unsigned i = 0; i < 300; i++) {
		size_t len = frames_udp(frame, (uint16_t)i, i * 5, (uint8_t)i);
		guest_send(&g, NULL, frame, len, i % 7 ? 0 : 1 + i % 50 + len / 100);
		guest_sent(&g);
		CHECK(peer_receive() == len && !memcmp(got, frame, len));
	}
	CHECK(guest_stat(&g, "tx_frames") == 300);
	finish();
}

static void test_checksum(void)
{
	begin(F_ALL);
	for (unsigned i = 0; i < 64; i++) {
		struct tcp_spec s = {
			.v6 = i & 1, .vlan = i & 2, .tcp_options = 4 * (i % 4), .data = i * 37, .fill = (uint8_t)i};
		struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM, .csum_offset = 16};
		size_t l4, len = frames_tcp(frame, &s, &l4, NULL);
		memcpy(expect, frame, len);
		h.csum_start = (uint16_t)l4;
		frames_partial(frame, len, l4, 16);
		guest_send(&g, &h, frame, len, i % 5 ? 0 : 100);
		CHECK(peer_receive() == len && !memcmp(got, expect, len));
	}
	finish();
}

/* A frame to be segmented goes as one, with lengths and checksums of its own. */
static void test_whole(void)
{
	begin(F_ALL);
	for (unsigned i = 0; i < 8; i++) {
		struct tcp_spec s = {.v6 = i & 1, .data = 1448 + 8000 * i, .fill = 3, .flags = 0x18};
		size_t l4, payload, len = frames_tcp(frame, &s, &l4, &payload);
		struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM,
				     .gso_type = s.v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4,
				     .gso_size = 1448,
				     .csum_start = (uint16_t)l4,
				     .csum_offset = 16};
		memcpy(expect, frame, len);
		frames_partial(frame, len, l4, 16);
		guest_send(&g, &h, frame, len, i & 2 ? 4096 : 0);
		CHECK(peer_receive() == len && !memcmp(got, expect, len));
	}
	CHECK(guest_stat(&g, "tx_cut") == 0);
	/* larger than passt takes: two */
	struct tcp_spec s = {.data = 65495, .fill = 3, .flags = 0x18, .seq = 1000};
	size_t l4, payload, len = frames_tcp(frame, &s, &l4, &payload), data = 0;
	struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM,
			     .gso_type = VNET_GSO_TCPV4,
			     .gso_size = 1448,
			     .csum_start = (uint16_t)l4,
			     .csum_offset = 16};
	guest_send(&g, &h, frame, len, 4096);
	for (int i = 0; i < 2; i++) {
		size_t k = peer_receive();
		CHECK(!frames_wrong(got, k) && !memcmp(got + payload, frame + payload + data, k - payload));
		data += k - payload;
	}
	CHECK(data == s.data && guest_stat(&g, "tx_cut") == 1);
	finish();
}

/* The peer reads late: nothing is lost, nothing is torn, and the ring is held up. */
static void test_slow_peer(void)
{
	begin(F_ALL);
	unsigned sent = 0;
	for (int i = 0; i < 100; i++, sent++) {
		size_t len = frames_udp(frame, (uint16_t)i, i % 3 ? 100 + (unsigned)i : 9000, (uint8_t)i);
		guest_send(&g, NULL, frame, len, 0);
	}
	CHECK(guest_stat(&g, "tx_waits") > 0);
	for (int i = 0; i < 100; i++) {
		size_t len = frames_udp(frame, (uint16_t)i, i % 3 ? 100 + (unsigned)i : 9000, (uint8_t)i);
		usleep(i < 20 ? 2000 : 0);
		CHECK(peer_receive() == len && !memcmp(got, frame, len));
	}
	guest_sent(&g);
	CHECK(guest_stat(&g, "tx_frames") == 100);
	finish();
}

/* A reset while the stream is stuck in a frame: the frame goes out whole, what was behind it does not. */
static void test_reset_stuck(void)
{
	struct pollfd p = {0};

	begin(F_ALL);
	for (int i = 0; i < 60; i++)
		guest_send(&g, NULL, frame, frames_udp(frame, (uint16_t)i, 9000, 1), 0);
	CHECK(guest_stat(&g, "tx_waits") > 0);
	guest_reset(&g);
	memset(g.ram, 0xee, 60 << 20); /* nothing of the guest is looked at any more */
	unsigned n = 0;
	for (p = (struct pollfd){peer, POLLIN, 0}; poll(&p, 1, 500) == 1; n++) {
		size_t k = peer_receive();
		CHECK(k == 9042 && !frames_wrong(got, k));
	}
	CHECK(n > 0 && n < 60);
	guest_activate(&g, F_ALL);
	size_t len = frames_udp(frame, 1, 77, 1);
	guest_send(&g, NULL, frame, len, 0);
	CHECK(peer_receive() == len && !memcmp(got, frame, len));
	finish();
}

/* ---- from passt ---- */

static void expect_frame(const uint8_t *f, size_t len)
{
	struct vnet_hdr h;

	CHECK(guest_receive(&g, &h, got, sizeof got, PATIENCE) == len);
	CHECK(!memcmp(got, f, len));
}

static void test_receive(void)
{
	begin(F_ALL);
	guest_post(&g, 200);
	for (unsigned i = 0; i < 100; i++) {
		size_t len = frames_udp(frame, (uint16_t)i, 20 * i, (uint8_t)i);
		peer_send(frame, len);
		expect_frame(frame, len);
	}
	CHECK(guest_stat(&g, "rx_frames") == 100);
	finish();
}

/* Lengths and frames arrive in pieces of every size. */
static void test_split(void)
{
	static uint8_t b[8192];
	size_t end = 0, len[5];

	begin(F_ALL);
	for (int i = 0; i < 5; i++) {
		len[i] = frames_udp(b + end + 4, (uint16_t)i, 10 * (unsigned)i, 1);
		b[end] = b[end + 1] = b[end + 2] = 0;
		b[end + 3] = (uint8_t)len[i];
		end += 4 + len[i];
	}
	for (size_t piece = 1; piece < 40; piece += 3) {
		guest_post(&g, 5);
		for (size_t at = 0; at < end; at += piece) {
			peer_write(b + at, end - at < piece ? end - at : piece);
			if (at < 200)
				guest_turn(&g, 0);
		}
		size_t at = 4;
		for (int i = 0; i < 5; i++) {
			expect_frame(b + at, len[i]);
			at += len[i] + 4;
		}
	}
	finish();
}

static void test_mergeable(void)
{
	begin(F_ALL);
	g.rx_size = 1536;
	guest_post(&g, 100);
	for (unsigned i = 0; i < 2; i++) {
		size_t len = frames_udp(frame, 1, 60000, (uint8_t)i);
		peer_send(frame, len);
		expect_frame(frame, len);
	}
	finish();
}

/* Segments that follow each other come as one, if the driver takes that. */
static void merge(bool v6, uint64_t features)
{
	static uint8_t b[20 * 1514];
	size_t end = 0, payload, done = 0;
	struct vnet_hdr h;

	begin(features);
	guest_post(&g, 100);
	struct tcp_spec s = {.v6 = v6, .data = 1400, .seq = 0xffffe000, .flags = 0x10, .tcp_options = 12};
	for (unsigned i = 0; i < 20; i++, s.seq += 1400) {
		s.fill = (uint8_t)i;
		s.data = i == 19 ? 700 : 1400;
		s.flags = i == 19 ? 0x18 : 0x10;
		size_t len = frames_tcp(b + end + 4, &s, NULL, &payload);
		b[end] = b[end + 1] = 0;
		b[end + 2] = (uint8_t)(len >> 8);
		b[end + 3] = (uint8_t)len;
		end += 4 + len;
	}
	peer_write(b, end);
	unsigned frames = 0;
	while (done < 19 * 1400 + 700) {
		size_t len = guest_receive(&g, &h, got, sizeof got, PATIENCE);
		CHECK(len > payload);
		for (size_t i = 0; i < len - payload; i++) {
			size_t k = (done + i) / 1400, at = (done + i) % 1400;
			CHECK(got[payload + i] == (uint8_t)(k + at + at / 251));
		}
		if (len > 1514)
			CHECK(h.gso_size == 1400 && h.gso_type == (v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4) &&
			      h.hdr_len == payload && (h.flags & VNET_NEEDS_CSUM));
		else
			CHECK(!h.gso_type && !frames_wrong(got, len));
		done += len - payload;
		frames++;
	}
	CHECK(features & F_GUEST_TSO ? frames < 20 && guest_stat(&g, "rx_merged") > 0
				     : frames == 20 && !guest_stat(&g, "rx_merged"));
	finish();
}

static void test_merge(void)
{
	merge(false, F_ALL);
	merge(true, F_ALL);
	merge(false, F_V1 | F_MRG | F_GUEST_CSUM);
}

/* No buffers: frames wait, and come when there are some; in order. */
static void test_waiting(void)
{
	begin(F_ALL);
	for (unsigned i = 0; i < 50; i++)
		peer_send(frame, frames_udp(frame, (uint16_t)i, 1000, (uint8_t)i));
	guest_turn(&g, 100);
	for (unsigned i = 0; i < 50; i++) {
		if (i % 5 == 0)
			guest_post(&g, 5);
		size_t len = frames_udp(frame, (uint16_t)i, 1000, (uint8_t)i);
		expect_frame(frame, len);
	}
	CHECK(guest_stat(&g, "rx_waits") > 0);
	finish();
}

/* Without mergeable buffers a frame that does not fit is dropped, the next one is not. */
static void test_too_long(void)
{
	begin(F_V1 | F_EVENT_IDX);
	g.rx_size = 1526;
	guest_post(&g, 10);
	peer_send(frame, frames_udp(frame, 1, 3000, 1));
	size_t len = frames_udp(frame, 2, 1000, 2);
	peer_send(frame, len);
	expect_frame(frame, len);
	CHECK(guest_stat(&g, "rx_drop_long") == 1);
	finish();
}

/* ---- link, resets, limits, code ---- */

static void test_link(void)
{
	begin(F_ALL);
	CHECK(g.offer.config[6] == 1);
	guest_post(&g, 20);
	guest_command(&g, DEV_OP_LINK_DOWN);
	while (!g.configs)
		guest_turn(&g, PATIENCE);
	CHECK(g.config.data[6] == 0);
	guest_send(&g, NULL, frame, frames_udp(frame, 1, 10, 1), 0);
	guest_sent(&g);
	CHECK(guest_stat(&g, "tx_drop_link") == 1 && guest_stat(&g, "link") == 0);
	peer_send(frame, frames_udp(frame, 1, 10, 1));
	while (!guest_stat(&g, "rx_drop_link"))
		guest_turn(&g, 20);
	guest_command(&g, DEV_OP_LINK_UP);
	while (g.configs < 2)
		guest_turn(&g, PATIENCE);
	CHECK(g.config.data[6] == 1);
	size_t len = frames_udp(frame, 2, 20, 1);
	peer_send(frame, len);
	expect_frame(frame, len);
	/* the other end goes: told once, and the cable cannot be put back */
	shutdown(peer, SHUT_RDWR);
	while (!g.lost || g.configs < 3)
		guest_turn(&g, PATIENCE);
	CHECK(g.config.data[6] == 0);
	guest_command(&g, DEV_OP_LINK_UP);
	guest_send(&g, NULL, frame, len, 0);
	guest_sent(&g);
	CHECK(guest_stat(&g, "tx_drop_link") == 2 && g.lost == 1 && g.configs == 3);
	finish();
}

static void test_resets(void)
{
	begin(F_ALL);
	for (int i = 0; i < 50; i++) {
		guest_post(&g, 16);
		size_t len = frames_udp(frame, (uint16_t)i, 200, 1);
		guest_send(&g, NULL, frame, len, 0);
		CHECK(peer_receive() == len);
		peer_send(frame, len);
		if (i & 1)
			expect_frame(frame, len);
		guest_reset(&g);
		memset(g.ram, 0, 40 << 20);
		peer_send(frame, len); /* for nobody */
		guest_turn(&g, 1);
		for (size_t k = 0; k < 40 << 20; k += 4096)
			CHECK(!g.ram[k]);
		guest_activate(&g, i % 3 ? F_ALL : F_V1);
	}
	finish();
}

static void test_limits(void)
{
	const struct msg_dev_limits l = {.ops = 100, .ops_burst = 10}, none = {0};

	begin(F_ALL);
	guest_limits(&g, &l);
	CHECK(guest_stat(&g, "link") == 1); /* in force */
	for (int i = 0; i < 100; i++)
		guest_send(&g, NULL, frame, frames_udp(frame, 1, 100, 1), 0);
	usleep(300000);
	uint64_t n = guest_stat(&g, "tx_frames");
	CHECK(n >= 20 && n <= 70 && guest_stat(&g, "tx_throttled") > 0);
	guest_limits(&g, &none);
	guest_sent(&g);
	CHECK(guest_stat(&g, "tx_frames") == 100);
	/* and to the guest */
	guest_limits(&g, &l);
	guest_post(&g, 200);
	for (int i = 0; i < 100; i++)
		peer_send(frame, frames_udp(frame, 1, 100, 1));
	usleep(300000);
	n = guest_stat(&g, "rx_frames");
	CHECK(n >= 20 && n <= 70 && guest_stat(&g, "rx_throttled") > 0);
	guest_limits(&g, &none);
	for (int i = 0; i < 100; i++)
		expect_frame(frame, frames_udp(frame, 1, 100, 1));
	finish();
}

/* A page with translated code: the guest sees nothing before the vcpu has answered. */
static void test_code(void)
{
	struct vnet_hdr h;

	begin(F_ALL);
	uint8_t *code = g.ctl + g.layout.code;
	memset(code + 0x100 / 8, 0xff, 0x1000 / 8); /* pages from 1 MiB on */
	guest_post(&g, 4);
	g.hold = true;
	size_t len = frames_udp(frame, 1, 100, 1);
	peer_send(frame, len);
	while (!g.invalidates)
		guest_turn(&g, PATIENCE);
	CHECK(!guest_receive(&g, &h, got, sizeof got, 100));
	struct msg_virtio_invalidate m = {.id = g.held};
	int n = pack_virtio_invalidate(&m, g.buf, sizeof g.buf);
	g.hold = false;
	CHECK(!ipc_send_frame(g.channel, MSG_VIRTIO_INVALIDATED, g.buf, (size_t)n, NULL, 0));
	expect_frame(frame, len);
	CHECK(g.ctl[g.layout.dirty + 0x100 / 8] & 1);
	finish();
}

/* ---- drivers that break the rules ---- */

static void broken(void)
{
	while (!g.broken)
		guest_turn(&g, PATIENCE);
	guest_reset(&g);
	g.broken = 0;
	guest_activate(&g, F_ALL);
}

static void test_broken(void)
{
	begin(F_ALL);
	guest_raw(&g, TX, 0x2000000, 8, 0); /* shorter than a header */
	broken();
	guest_raw(&g, TX, 0x2000000, 100, 2); /* to be written */
	broken();
	guest_raw(&g, TX, 0x40000000, 100, 0); /* no memory there */
	broken();
	guest_raw(&g, TX, 0x2000000, 100, 1); /* a loop */
	broken();
	guest_raw(&g, RX, 0x2000000, 100, 0); /* not to be written */
	peer_send(frame, frames_udp(frame, 1, 10, 1));
	broken();
	guest_raw(&g, RX, 0x2000000, 8, 2);
	peer_send(frame, frames_udp(frame, 1, 10, 1));
	broken();
	size_t len = frames_udp(frame, 2, 20, 1);
	guest_send(&g, NULL, frame, len, 0);
	CHECK(peer_receive() == len && !memcmp(got, frame, len));
	CHECK(guest_stat(&g, "broken") == 6);
	finish();
}

/* Headers that make no sense cost their frame only. */
static void test_malformed(void)
{
	size_t l4, payload;
	struct tcp_spec s = {.data = 5000};

	begin(F_ALL);
	size_t len = frames_tcp(frame, &s, &l4, &payload);
	const struct vnet_hdr good = {.flags = VNET_NEEDS_CSUM,
				      .gso_type = VNET_GSO_TCPV4,
				      .gso_size = 1448,
				      .csum_start = (uint16_t)l4,
				      .csum_offset = 16};
	const struct vnet_hdr bad[] = {
		{.flags = 1, .csum_start = 65535, .csum_offset = 65535},
		{.flags = 1, .csum_start = (uint16_t)len, .csum_offset = 0},
		{.flags = 1, .csum_start = 0, .csum_offset = 16},
		{.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = (uint16_t)l4, .csum_offset = 16},
		{.flags = 0, .gso_type = 1, .gso_size = 1448},
		{.flags = 1, .gso_type = 4, .gso_size = 1448, .csum_start = (uint16_t)l4, .csum_offset = 16},
		{.flags = 1, .gso_type = 3, .gso_size = 1448, .csum_start = (uint16_t)l4, .csum_offset = 16},
		{.flags = 1, .gso_type = 0x81, .gso_size = 1448, .csum_start = (uint16_t)l4, .csum_offset = 16},
		{.flags = 1, .gso_type = 1, .gso_size = 1448, .csum_start = (uint16_t)(l4 + 2), .csum_offset = 16},
		{.flags = 1, .gso_type = 1, .gso_size = 1448, .csum_start = (uint16_t)l4, .csum_offset = 6},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		guest_send(&g, &bad[i], frame, len, 0);
	guest_send(&g, NULL, frame, 0, 0);
	guest_send(&g, NULL, frame, 13, 0);
	guest_send(&g, NULL, frame, 66000, 0);
	frames_partial(frame, len, l4, 16);
	guest_send(&g, &good, frame, len, 0);
	CHECK(peer_receive() == len && !frames_wrong(got, len));
	CHECK(guest_stat(&g, "tx_drop_malformed") == sizeof bad / sizeof bad[0] + 3);
	finish();
}

/* The peer talks nonsense: the link is lost, the process lives. */
static void test_bad_peer(void)
{
	begin(F_ALL);
	guest_post(&g, 4);
	peer_write("\xff\xff\xff\xff", 4);
	while (!g.lost)
		guest_turn(&g, PATIENCE);
	CHECK(guest_stat(&g, "link") == 0);
	finish();
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {{"send", test_send},
	     {"checksum", test_checksum},
	     {"whole", test_whole},
	     {"slow peer", test_slow_peer},
	     {"reset while stuck", test_reset_stuck},
	     {"receive", test_receive},
	     {"split", test_split},
	     {"mergeable", test_mergeable},
	     {"merge", test_merge},
	     {"waiting", test_waiting},
	     {"too long", test_too_long},
	     {"link", test_link},
	     {"resets", test_resets},
	     {"limits", test_limits},
	     {"code", test_code},
	     {"broken", test_broken},
	     {"malformed", test_malformed},
	     {"bad peer", test_bad_peer}};

int main(int argc, char **argv)
{
	unsigned n = 0;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (argc > 1 && strcmp(argv[1], cases[i].name))
			continue;
		cases[i].run();
		printf("ok %u - %s\n", ++n, cases[i].name);
		fflush(stdout);
	}
	return n ? 0 : 1;
}
