/*
 * A real hvx-net at a tap in a network namespace of the test's own, with the kernel's stack at the other end.
 * Exits with 77 (skipped) and the reason where no tap can be had.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/net/frames.h"
#include "tests/net/guest.h"

#define SKIP     77
#define PAYLOAD  (FRAME_ETH + 40) /* without options */
#define WINDOW   60000
#define TCP_PORT 5000

static struct guest g;
static uint8_t frame[70000], got[70000];
static uint8_t tap_mac[6];

static void skip(const char *what)
{
	printf("skipped: %s: %s\n", what, strerror(errno));
	exit(SKIP);
}

static void put_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, text, strlen(text)) >= 0)
		close(fd);
}

static void own_network(void)
{
	char map[64];
	int uid = (int)getuid(), gid = (int)getgid();

	if (unshare(uid ? CLONE_NEWUSER | CLONE_NEWNET : CLONE_NEWNET))
		skip("a network namespace");
	if (!uid)
		return;
	put_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "0 %d 1", uid);
	put_file("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "0 %d 1", gid);
	put_file("/proc/self/gid_map", map);
}

static void set_address(int s, unsigned long what, const char *name, const char *a)
{
	struct ifreq r = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)&r.ifr_addr;

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	in->sin_family = AF_INET;
	CHECK(inet_pton(AF_INET, a, &in->sin_addr) == 1);
	CHECK(!ioctl(s, what, &r));
}

/* The interface is up, 10.0.2.2, and knows the guest's 10.0.2.15. */
static void set_up(const char *name)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = {0};
	struct arpreq a = {.arp_flags = ATF_PERM | ATF_COM};
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)&a.arp_pa;

	snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
	CHECK(!ioctl(s, SIOCGIFHWADDR, &r));
	memcpy(tap_mac, r.ifr_hwaddr.sa_data, 6);
	set_address(s, SIOCSIFADDR, name, "10.0.2.2");
	set_address(s, SIOCSIFNETMASK, name, "255.255.255.0");
	CHECK(!ioctl(s, SIOCGIFFLAGS, &r));
	r.ifr_flags |= IFF_UP;
	CHECK(!ioctl(s, SIOCSIFFLAGS, &r));
	in->sin_family = AF_INET;
	CHECK(inet_pton(AF_INET, "10.0.2.15", &in->sin_addr) == 1);
	memcpy(a.arp_ha.sa_data, (uint8_t[]){0x52, 0x54, 0, 1, 2, 3}, 6);
	snprintf(a.arp_dev, sizeof a.arp_dev, "%s", name);
	CHECK(!ioctl(s, SIOCSARP, &a));
	close(s);
}

static int open_tap(void)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "hvxtest"};
	int size = sizeof(struct vnet_hdr), f = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (f < 0 || ioctl(f, TUNSETIFF, &r))
		skip("a tap");
	CHECK(!ioctl(f, TUNSETVNETHDRSZ, &size));
	set_up(r.ifr_name);
	return f;
}

static void begin(uint64_t features)
{
	memset(&g, 0, sizeof g);
	g.rx_size = features & (F_MRG | F_GUEST_TSO) ? (features & F_MRG ? 2048 : 66000) : 1526;
	guest_start(&g, NET_TAP, open_tap());
	guest_activate(&g, features);
	guest_post(&g, 128);
}

/* The next frame of this kind; IPv6 chatter of the kernel's is passed over. */
static size_t next(struct vnet_hdr *h, uint8_t proto)
{
	for (int i = 0; i < 50; i++) {
		size_t len = guest_receive(&g, h, got, sizeof got, PATIENCE);
		guest_post(&g, (unsigned)(g.features & F_MRG ? h->num_buffers : 1));
		CHECK(len);
		if (got[12] == 8 && got[13] == 0 && got[14 + 9] == proto)
			return len;
	}
	CHECK(!"a frame of the kernel's");
	return 0;
}

static struct sockaddr_in guest_address(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, "10.0.2.15", &a.sin_addr);
	return a;
}

static void udp(uint64_t features)
{
	struct sockaddr_in to = guest_address(4000), any = {.sin_family = AF_INET, .sin_port = htons(4000)};
	struct vnet_hdr h;
	char text[1000];

	begin(features);
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(!bind(s, (struct sockaddr *)&any, sizeof any));
	memset(text, 'x', sizeof text);
	CHECK(sendto(s, text, sizeof text, 0, (struct sockaddr *)&to, sizeof to) == sizeof text);
	size_t len = next(&h, 17);
	CHECK(len == 1042 && !h.gso_type);
	if (!(features & F_GUEST_CSUM))
		CHECK(!h.flags && !frames_wrong(got, len));
	/* the other way, with the checksum left to others where that is offered */
	len = frames_udp(frame, 9, 700, 1);
	memcpy(frame, tap_mac, 6);
	struct vnet_hdr out = {0};
	if (features & F_CSUM) {
		out = (struct vnet_hdr){.flags = VNET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
		frames_partial(frame, len, 34, 6);
	}
	memcpy(frame + 26, (uint8_t[]){10, 0, 2, 15, 10, 0, 2, 2}, 8);
	guest_send(&g, &out, frame, len, 0);
	struct pollfd p = {s, POLLIN, 0};
	CHECK(poll(&p, 1, PATIENCE) == 1 && recv(s, text, sizeof text, 0) == 700 && text[5] == 6);
	close(s);
	CHECK(guest_end(&g) == 0);
}

/* ---- TCP: just enough of one end of it ---- */

static uint32_t rd32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A segment of ours; the kernel's port is in got. */
static size_t segment(uint32_t seq, uint32_t ack, uint8_t flags, size_t data, size_t *l4)
{
	struct tcp_spec s = {.seq = seq, .ack = ack, .flags = flags, .data = data, .port = TCP_PORT, .fill = 7};
	size_t payload, len = frames_tcp(frame, &s, l4, &payload);

	memcpy(frame, tap_mac, 6);
	memcpy(frame + 36, got + 34, 2);                   /* to the port it came from */
	frame[48] = WINDOW >> 8, frame[49] = WINDOW & 255; /* and a window */
	frames_partial(frame, len, *l4, 16);
	return len;
}

static void send_segment(uint32_t seq, uint32_t ack, uint8_t flags)
{
	struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM, .csum_offset = 16};
	size_t l4, len = segment(seq, ack, flags, 0, &l4);

	h.csum_start = (uint16_t)l4;
	guest_send(&g, &h, frame, len, 0);
}

/* The kernel's data: large frames for a driver that takes them, whole ones with checksums for one that does not. */
static void take_data(uint64_t features, size_t total, uint32_t from)
{
	struct vnet_hdr h;
	size_t large = 0;

	for (size_t done = 0; done < total;) {
		size_t len = next(&h, 6), head = 34 + 4u * (got[46] >> 4);
		if (len == head)
			continue;
		CHECK(rd32(got + 38) == from + done);
		if (!(features & F_GUEST_CSUM))
			CHECK(!h.flags && !h.gso_type && !frames_wrong(got, len));
		for (size_t i = 0; i < len - head; i++)
			CHECK(got[head + i] == (uint8_t)(done + i));
		large += h.gso_type == VNET_GSO_TCPV4;
		CHECK((features & F_GUEST_TSO) || len <= 1514);
		done += len - head;
		send_segment(1001, (uint32_t)(from + done), 0x10);
	}
	CHECK(!large == !(features & F_GUEST_TSO));
}

/* Ours to the kernel, as frames to be segmented. */
static void give_data(int s, uint32_t ack)
{
	static uint8_t in[30000];
	struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM, .gso_type = VNET_GSO_TCPV4, .gso_size = 1448, .csum_offset = 16};
	size_t l4, len = segment(1001, ack, 0x18, sizeof in, &l4);
	struct pollfd p = {s, POLLIN, 0};

	h.csum_start = (uint16_t)l4;
	guest_send(&g, &h, frame, len, 4096);
	for (size_t done = 0; done < sizeof in;) {
		CHECK(poll(&p, 1, PATIENCE) == 1);
		ssize_t k = recv(s, in + done, sizeof in - done, 0);
		CHECK(k > 0);
		done += (size_t)k;
	}
	CHECK(!memcmp(in, frame + PAYLOAD, sizeof in));
}

static void tcp(uint64_t features)
{
	static uint8_t data[50000];
	struct sockaddr_in to = guest_address(TCP_PORT);
	struct vnet_hdr h;

	begin(features);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CHECK(connect(s, (struct sockaddr *)&to, sizeof to) < 0 && errno == EINPROGRESS);
	next(&h, 6);
	CHECK(got[47] == 2); /* SYN */
	uint32_t seq = rd32(got + 38) + 1;
	send_segment(1000, seq, 0x12);
	struct pollfd p = {s, POLLOUT, 0};
	CHECK(poll(&p, 1, PATIENCE) == 1);
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)i;
	CHECK(send(s, data, sizeof data, 0) == sizeof data);
	take_data(features, sizeof data, seq);
	if (features & F_HOST_TSO)
		give_data(s, seq + sizeof data);
	close(s);
	CHECK(guest_end(&g) == 0);
}

static void down(void)
{
	struct ifreq r = {.ifr_name = "hvxtest"};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	begin(F_ALL);
	CHECK(!ioctl(s, SIOCSIFFLAGS, &r)); /* the host takes the interface down: frames are refused, that is all */
	size_t len = frames_udp(frame, 9, 700, 1);
	guest_send(&g, NULL, frame, len, 0);
	guest_sent(&g);
	CHECK(guest_stat(&g, "tx_drop_refused") == 1);
	close(s);
	CHECK(guest_end(&g) == 0);
}

int main(void)
{
	unsigned n = 0;

	own_network();
#define CASE(name, call)                           \
	do {                                       \
		call;                              \
		printf("ok %u - " name "\n", ++n); \
		fflush(stdout);                    \
	} while (0)
	CASE("udp, all offloads", udp(F_ALL));
	CASE("udp, none", udp(F_V1));
	CASE("tcp, all offloads", tcp(F_ALL));
	CASE("tcp, no mergeable buffers", tcp(F_ALL & ~F_MRG));
	CASE("tcp, checksums only", tcp(F_V1 | F_MRG | F_CSUM | F_GUEST_CSUM | F_EVENT_IDX));
	CASE("tcp, none", tcp(F_V1 | F_CSUM | F_EVENT_IDX));
	CASE("interface down", down());
	return 0;
}
