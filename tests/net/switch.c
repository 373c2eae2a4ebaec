/*
 * A real hvx-switch with ports of the test's own and with real hvx-net processes at it.
 *
 * Usage: switch [case ...]
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/net/join.h"
#include "tests/net/frames.h"
#include "tests/net/guest.h"

static char dir[] = "/tmp/hvx-switch.XXXXXX", path[64];
static pid_t pid;
static uint8_t frame[70000], got[70000];

static const char *program(void)
{
	const char *p = getenv("HVX_SWITCH");

	return p ? p : "./hvx-switch";
}

static pid_t run(const char *option)
{
	pid_t p = fork();

	if (p == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a check that fails leaves nothing */
		if (option)
			execl(program(), "hvx-switch", option, path, NULL);
		else
			execl(program(), "hvx-switch", path, NULL);
		_exit(127);
	}
	return p;
}

static int dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, path, strlen(path) + 1);
	for (int i = 0; connect(fd, (struct sockaddr *)&a, sizeof a); i++) {
		CHECK(i < PATIENCE / 20);
		usleep(20000);
	}
	return fd;
}

/* A killed switch listens for as long as the kernel takes to end it: the next one would find it there. */
static void until_nobody_listens(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	memcpy(a.sun_path, path, strlen(path) + 1);
	for (int i = 0;; i++) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		bool refused = connect(fd, (struct sockaddr *)&a, sizeof a) && errno == ECONNREFUSED;
		close(fd);
		if (refused)
			return;
		CHECK(i < PATIENCE / 20);
		usleep(20000);
	}
}

static void begin(const char *option)
{
	pid = run(option);
}

static void finish(void)
{
	int ws;

	kill(pid, SIGTERM);
	CHECK(waitpid(pid, &ws, 0) == pid && WIFEXITED(ws) && WEXITSTATUS(ws) == 0);
	CHECK(access(path, F_OK)); /* its socket is gone */
}

static bool readable(int fd, int ms)
{
	struct pollfd p = {fd, POLLIN, 0};

	return poll(&p, 1, ms) == 1;
}

static unsigned join_as(int fd, uint8_t last)
{
	struct switch_join j = {SWITCH_MAGIC, SWITCH_VERSION, {0x52, 0x54, 0, 0, 0, last}};
	struct switch_answer a;

	send(fd, &j, sizeof j, MSG_NOSIGNAL);
	CHECK(readable(fd, PATIENCE));
	if (recv(fd, &a, sizeof a, 0) < 0)
		return SWITCH_FULL; /* it hung up before it read */
	CHECK(a.magic == SWITCH_MAGIC);
	return a.result;
}

static int port(uint8_t last)
{
	int fd = dial();

	CHECK(join_as(fd, last) == SWITCH_WELCOME);
	return fd;
}

/* The same where somebody else has just left, which the switch may not have noticed. */
static int port_later(uint8_t last)
{
	for (int i = 0; i < PATIENCE / 20; i++) {
		int fd = dial();
		if (join_as(fd, last) == SWITCH_WELCOME)
			return fd;
		close(fd);
		usleep(20000);
	}
	CHECK(!"room at the switch");
	return -1;
}

/* A frame between stations 52:54:00:00:00:xx; 0xff is everybody. */
static void put(int fd, uint8_t to, uint8_t from, uint8_t what)
{
	uint8_t f[12 + 60] = {0};

	memcpy(f + 12, (uint8_t[]){0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5, what}, 15);
	if (to == 0xff)
		memset(f + 12, 0xff, 6);
	CHECK(send(fd, f, sizeof f, 0) == sizeof f);
}

static bool has(int fd, uint8_t what)
{
	uint8_t f[100];

	return readable(fd, PATIENCE) && recv(fd, f, sizeof f, 0) == 72 && f[12 + 14] == what;
}

static void test_forward(void)
{
	begin(NULL);
	int a = port(1), b = port(2), c = port(3);
	put(a, 0xff, 1, 10); /* everybody else */
	CHECK(has(b, 10) && has(c, 10) && !readable(a, 50));
	put(b, 1, 2, 11);
	CHECK(has(a, 11) && !readable(c, 50));
	put(a, 9, 1, 12); /* nobody knows where */
	CHECK(has(b, 12) && has(c, 12));
	put(c, 0xff, 9, 13); /* behind c, it turns out */
	CHECK(has(a, 13) && has(b, 13));
	put(a, 9, 1, 14);
	CHECK(has(c, 14) && !readable(b, 50));
	put(a, 1, 1, 15); /* to itself */
	put(a, 2, 1, 16);
	CHECK(has(b, 16) && !readable(a, 50) && !readable(c, 0));
	close(c); /* and what it had is forgotten, soon */
	for (int i = 0; i < PATIENCE / 20 && !readable(a, 20); i++)
		put(b, 0xff, 9, 17);
	CHECK(has(a, 17));
	close(a);
	close(b);
	finish();
}

static void test_addresses(void)
{
	begin(NULL);
	int a = port(1), b = port(2), c = dial();
	CHECK(join_as(c, 1) == SWITCH_MAC_TAKEN && readable(c, PATIENCE));
	close(c);
	c = port(3);
	put(b, 1, 3, 20); /* another port's own */
	put(b, 1, 1, 21);
	put(a, 0xff, 8, 22); /* learned at a ... */
	CHECK(has(b, 22) && has(c, 22));
	put(b, 1, 8, 23); /* ... so not for b */
	uint8_t f[72] = {0};
	memcpy(f + 12, (uint8_t[]){0x52, 0x54, 0, 0, 0, 1, 0x01, 0, 0x5e, 0, 0, 1}, 12); /* from a group */
	CHECK(send(b, f, sizeof f, 0) == sizeof f);
	memcpy(f + 12, (uint8_t[]){0x52, 0x54, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 12); /* from nobody */
	CHECK(send(b, f, sizeof f, 0) == sizeof f);
	memcpy(f + 12, (uint8_t[]){0x01, 0x80, 0xc2, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 2}, 12); /* for bridges */
	CHECK(send(b, f, sizeof f, 0) == sizeof f);
	CHECK(send(b, f, 25, 0) == 25); /* shorter than a frame */
	put(b, 1, 2, 24);
	CHECK(has(a, 24) && !readable(a, 50) && !readable(c, 50));
	/* a newcomer takes what was only learned */
	int d = port(8);
	put(a, 0xff, 8, 25);
	put(b, 8, 2, 26);
	CHECK(has(d, 26));
	close(a), close(b), close(c), close(d);
	finish();
}

static void test_strict(void)
{
	begin("--strict");
	int a = port(1), b = port(2);
	put(a, 2, 9, 30);
	put(a, 2, 1, 31);
	CHECK(has(b, 31));
	close(a), close(b);
	finish();
}

static void test_ageing(void)
{
	begin("--ageing=2");
	int a = port(1), b = port(2), c = port(3);
	put(a, 2, 9, 40);
	CHECK(has(b, 40));
	put(c, 2, 9, 41); /* refused: a has it */
	usleep(3100000);
	put(c, 2, 9, 42);
	CHECK(has(b, 42));
	close(a), close(b), close(c);
	finish();
}

/* Who does not read loses frames; others do not wait for it. */
static void test_slow(void)
{
	begin(NULL);
	int a = port(1), slow = port(2), b = port(3);
	for (unsigned i = 0; i < 20000; i++) {
		put(a, 2, 1, (uint8_t)i);
		if (i % 100 == 0) {
			put(a, 3, 1, 50);
			CHECK(has(b, 50));
		}
	}
	unsigned n = 0;
	for (uint8_t f[100]; readable(slow, 300); n++)
		CHECK(recv(slow, f, sizeof f, 0) == 72 && (n > 1000 || f[26] == (uint8_t)n));
	CHECK(n > 100 && n < 20000);
	put(a, 2, 1, 51);
	CHECK(has(slow, 51));
	close(a), close(b), close(slow);
	finish();
}

/* Garbage in the place of a join; all ports taken; a port that goes makes room. */
static void test_ports(void)
{
	int fd[64];
	struct switch_answer a;

	begin(NULL);
	int bad = dial();
	CHECK(send(bad, "hello", 5, 0) == 5 && recv(bad, &a, sizeof a, 0) == sizeof a && a.result == SWITCH_BAD);
	CHECK(recv(bad, &a, sizeof a, 0) == 0);
	close(bad);
	for (unsigned i = 0; i < 64; i++)
		fd[i] = port((uint8_t)(i + 1));
	bad = dial();
	CHECK(recv(bad, &a, sizeof a, 0) == sizeof a && a.result == SWITCH_FULL);
	close(bad);
	close(fd[5]);
	fd[5] = port_later(6);
	kill(pid, SIGUSR1); /* a report; nothing else */
	put(fd[5], 1, 6, 60);
	CHECK(has(fd[0], 60));
	for (unsigned i = 0; i < 64; i++)
		close(fd[i]);
	finish();
}

/* A second one at the same place does not start; one killed leaves a socket that the next takes over. */
static void test_place(void)
{
	int ws;

	begin(NULL);
	int a = port(1);
	pid_t second = run(NULL);
	CHECK(waitpid(second, &ws, 0) == second && WIFEXITED(ws) && WEXITSTATUS(ws) == 3);
	put(a, 2, 1, 70);
	kill(pid, SIGKILL);
	CHECK(waitpid(pid, &ws, 0) == pid);
	CHECK(readable(a, PATIENCE)); /* the sealed one has gone with it */
	CHECK(!access(path, F_OK));
	close(a);
	until_nobody_listens();
	begin(NULL);
	a = port(1);
	close(a);
	finish();
}

/* ---- with cards ---- */

static struct guest g[2];

static void card(struct guest *c, uint8_t last, uint64_t features)
{
	memset(c, 0, sizeof *c);
	memcpy(c->cfg.net.mac, (uint8_t[]){0x52, 0x54, 0, 0, 0, last}, 6);
	c->rx_size = features & F_MRG ? 2048 : 66000;
	guest_start(c, NET_SWITCH, port(last));
	guest_activate(c, features);
	guest_post(c, 128);
}

static void address(uint8_t *f, uint8_t to, uint8_t from)
{
	memcpy(f, (uint8_t[]){0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from}, 12);
}

/* A frame to be segmented, to a card that takes it and to one that does not. */
static void offload(bool v6, uint64_t takes)
{
	struct tcp_spec s = {.v6 = v6, .data = 20000, .seq = 0xfffff000, .id = 0xfffe, .flags = 0x19, .fill = 5};
	struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM,
			     .gso_type = v6 ? VNET_GSO_TCPV6 : VNET_GSO_TCPV4,
			     .gso_size = 1400,
			     .csum_offset = 16},
			in;
	size_t l4, payload, len = frames_tcp(frame, &s, &l4, &payload), done = 0;

	card(&g[0], 1, F_ALL);
	card(&g[1], 2, takes);
	address(frame, 2, 1);
	h.csum_start = (uint16_t)l4;
	frames_partial(frame, len, l4, 16);
	guest_send(&g[0], &h, frame, len, 4096);
	while (done < s.data) {
		size_t k = guest_receive(&g[1], &in, got, sizeof got, PATIENCE);
		CHECK(k > payload && !memcmp(got + payload, frame + payload + done, k - payload));
		done += k - payload;
		if (takes & F_GUEST_TSO) {
			CHECK(k == len && in.gso_type == h.gso_type && in.gso_size == 1400 && in.csum_start == l4 &&
			      in.csum_offset == 16 && (in.flags & VNET_NEEDS_CSUM));
		} else {
			CHECK(!in.gso_type && !in.flags && !frames_wrong(got, k) && k - payload <= 1400);
			CHECK((got[l4 + 13] & 1) == (done == s.data)); /* FIN */
		}
	}
	for (int i = 0; i < 2; i++)
		CHECK(guest_end(&g[i]) == 0);
}

static void test_cards(void)
{
	begin(NULL);
	offload(false, F_ALL);
	offload(true, F_ALL);
	offload(false, F_V1 | F_EVENT_IDX);
	offload(true, F_V1 | F_MRG);
	/* a checksum left open, to a card that wants it done */
	card(&g[0], 1, F_ALL);
	card(&g[1], 2, F_V1);
	size_t len = frames_udp(frame, 7, 333, 1);
	struct vnet_hdr h = {.flags = VNET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6}, in;
	address(frame, 2, 1);
	frames_partial(frame, len, 34, 6);
	guest_send(&g[0], &h, frame, len, 0);
	CHECK(guest_receive(&g[1], &in, got, sizeof got, PATIENCE) == len && !frames_wrong(got, len) && !in.flags);
	/* a guest that pretends to be another */
	address(frame, 2, 2);
	guest_send(&g[0], NULL, frame, len, 0);
	CHECK(!guest_receive(&g[1], &in, got, sizeof got, 100));
	/* the switch goes: both have their cables pulled */
	finish();
	for (int i = 0; i < 2; i++) {
		while (!g[i].lost || !g[i].configs)
			guest_turn(&g[i], PATIENCE);
		CHECK(g[i].config.data[6] == 0 && guest_end(&g[i]) == 0);
	}
}

/* Headers that a hostile port makes up cost their frame only. */
static void test_hostile(void)
{
	struct vnet_hdr in;

	begin(NULL);
	int a = port(1);
	card(&g[0], 2, F_V1 | F_MRG);
	size_t len = frames_udp(frame + 12, 1, 100, 1);
	address(frame + 12, 2, 1);
	for (unsigned i = 0; i < 2000; i++) {
		struct vnet_hdr h = {(uint8_t)rand(),        (uint8_t)(rand() % 6), (uint16_t)rand(),
				     (uint16_t)(rand() % 3), (uint16_t)rand(),      (uint16_t)(rand() % 32),
				     (uint16_t)rand()};
		h.flags |= VNET_NEEDS_CSUM;
		if (h.gso_type == 0)
			h.csum_start = 65000;
		memcpy(frame, &h, 12);
		CHECK(send(a, frame, len + 12, 0) > 0);
		if (i % 16 == 0)
			guest_turn(&g[0], 0);
	}
	memset(frame, 0, 12);
	CHECK(send(a, frame, len + 12, 0) > 0);
	CHECK(guest_receive(&g[0], &in, got, sizeof got, PATIENCE) == len && !memcmp(got, frame + 12, len));
	CHECK(guest_stat(&g[0], "rx_drop_malformed") == 2000);
	CHECK(guest_end(&g[0]) == 0);
	close(a);
	finish();
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {{"forward", test_forward}, {"addresses", test_addresses}, {"strict", test_strict},
	     {"ageing", test_ageing},   {"slow port", test_slow},      {"ports", test_ports},
	     {"place", test_place},     {"cards", test_cards},         {"hostile port", test_hostile}};

int main(int argc, char **argv)
{
	unsigned n = 0;

	CHECK(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/lan", dir);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (argc > 1 && strcmp(argv[1], cases[i].name))
			continue;
		cases[i].run();
		printf("ok %u - %s\n", ++n, cases[i].name);
		fflush(stdout);
	}
	rmdir(dir);
	return n ? 0 : 1;
}
