/*
 * A monitor, a vcpu and a driver in one, for a real hvx-net.  Invariant: the process under test is started and sealed as
 * the monitor does it; the driver follows virtio 1.2 2.7 and 5.1.
 */
#include "tests/net/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/child.h"
#include "common/ipc.h"
#include "common/sandbox.h"
#include "memsvc/ram.h"

#define RAM_SIZE  (64ull << 20)
#define RINGS     0x10000u
#define RX_BUFS   0x100000u
#define RX_STEP   0x11000u /* a 64 KiB frame and its header */
#define TX_BUFS   0x2000000u
#define TX_STEP   0x12000u
#define RX_BUFS1  0x2a00000u /* of the second pair */
#define CONTROL   0x3c00000u
#define TX_SLOTS  112u /* frames of the first pair that are under way, and of the second */
#define TX_SLOTS1 16u
_Static_assert(RX_BUFS1 + RX_STEP * GUEST_QUEUE <= CONTROL && TX_BUFS + TX_STEP * (TX_SLOTS + TX_SLOTS1) <= RX_BUFS1,
	       "they fit");

/* ---- start ---- */

static const char *program(void)
{
	const char *p = getenv("HVX_NET");

	return p ? p : "./hvx-net";
}

static void run_child(int control, uint32_t ns)
{
	char mask[32];
	int fd = fcntl(control, F_DUPFD, 10);
	const int keep[] = {CHILD_CONTROL_FD};

	snprintf(mask, sizeof mask, "--namespaces=0x%x", ns);
	dup2(fd, CHILD_CONTROL_FD);
	sandbox_close_fds(keep, 1);
	execl(program(), "hvx-net", "--name=test", "--sandbox=strict", mask, NULL);
	_exit(127);
}

static void spawn(struct guest *g)
{
	uint32_t ns;
	int sv[2];

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
	g->pid = sandbox_fork(SANDBOX_NAMESPACES, &ns);
	CHECK(g->pid >= 0);
	if (!g->pid)
		run_child(sv[1], ns);
	close(sv[1]);
	g->control = sv[0];
}

static void await(struct guest *g, int fd, uint16_t type, struct ipc_frame *f)
{
	int rc = ipc_recv_frame(fd, g->buf, f);

	if (!rc && f->type == MSG_FAILED) {
		struct msg_failed m;
		CHECK(!unpack_failed(f->data, f->len, &m));
		fprintf(stderr, "hvx-net: %s\n", m.text);
	}
	CHECK(!rc && f->type == type);
}

static void make_memory(struct guest *g)
{
	struct ram r;

	CHECK(!ram_create(&r, RAM_SIZE));
	g->ram_fd = r.ram_fd;
	g->ctl_fd = r.control_fd;
	g->layout = shm_layout(RAM_SIZE);
	g->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, r.ram_fd, 0);
	g->ctl = mmap(NULL, g->layout.total, PROT_READ | PROT_WRITE, MAP_SHARED, r.control_fd, 0);
	CHECK(g->ram != MAP_FAILED && g->ctl != MAP_FAILED);
}

static void add_fd(struct guest *g, int *fds, enum msg_dev_fd kind, int fd)
{
	g->cfg.fds[g->cfg.nfds] = kind;
	fds[g->cfg.nfds++] = fd;
}

static void configure(struct guest *g, int backend)
{
	int fds[MSG_FDS_MAX], sv[2], call[2], page = memfd_create("doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(page >= 0 && !ftruncate(page, SHM_PAGE));
	CHECK(!fcntl(page, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	CHECK(!pipe2(call, O_CLOEXEC | O_NONBLOCK));
	g->bell = mmap(NULL, SHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
	CHECK(g->bell != MAP_FAILED);
	g->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	g->channel = sv[0];
	g->call = call[0];
	g->cfg.ram_size = RAM_SIZE;
	g->cfg.kind = ROLE_NET;
	g->cfg.nfds = 0;
	if (!g->cfg.id[0])
		snprintf(g->cfg.id, sizeof g->cfg.id, "net0");
	add_fd(g, fds, DEV_FD_RAM, g->ram_fd);
	add_fd(g, fds, DEV_FD_CONTROL, g->ctl_fd);
	add_fd(g, fds, DEV_FD_CHANNEL, sv[1]);
	add_fd(g, fds, DEV_FD_PAGE, page);
	add_fd(g, fds, DEV_FD_KICK, g->kick);
	add_fd(g, fds, DEV_FD_CALL, call[1]);
	add_fd(g, fds, DEV_FD_BACKEND, backend);
	int n = pack_dev_config(&g->cfg, g->buf, sizeof g->buf);
	CHECK(n > 0);
	CHECK(!ipc_send_frame(g->control, MSG_DEV_CONFIG, g->buf, (size_t)n, fds, (int)g->cfg.nfds));
	close(sv[1]);
	close(call[1]);
	close(page);
	close(backend);
}

void guest_start_sealed(struct guest *g, enum msg_net_backend kind, int backend)
{
	static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};
	struct ipc_frame f;

	if (!g->cfg.net.mac[0])
		memcpy(g->cfg.net.mac, mac, 6);
	g->cfg.net.backend = kind;
	if (!g->cfg.net.queues)
		g->cfg.net.queues = 1;
	if (!g->rx_size)
		g->rx_size = 2048;
	make_memory(g);
	spawn(g);
	await(g, g->control, MSG_HELLO, &f);
	configure(g, backend);
	await(g, g->control, MSG_SEALED, &f);
}

void guest_start(struct guest *g, enum msg_net_backend kind, int backend)
{
	struct ipc_frame f;

	guest_start_sealed(g, kind, backend);
	await(g, g->channel, MSG_VIRTIO_OFFER, &f);
	CHECK(!unpack_virtio_offer(f.data, f.len, &g->offer));
	CHECK(g->offer.device_id == 1 && g->offer.nqueues == 2 * g->cfg.net.queues + (g->cfg.net.queues > 1));
}

static void to_device(struct guest *g, int fd, uint16_t type, int n)
{
	CHECK(n >= 0 && !ipc_send_frame(fd, type, g->buf, (size_t)n, NULL, 0));
}

void guest_activate(struct guest *g, uint64_t features)
{
	struct msg_virtio_activate m = {.features = features, .nqueues = features & F_MQ ? g->offer.nqueues : 2};

	for (unsigned i = 0; i < m.nqueues; i++) {
		uint64_t base = RINGS * (i + 1);
		m.queue[i] = (struct msg_virtio_queue){i, GUEST_QUEUE, base, base + 0x4000, base + 0x8000};
		memset(g->ram + base, 0, RINGS);
		g->q[i] = (struct guest_queue){.desc = g->ram + base,
					       .avail = (uint16_t *)(void *)(g->ram + base + 0x4000),
					       .used = (uint16_t *)(void *)(g->ram + base + 0x8000)};
	}
	g->posted[0] = g->posted[1] = 0;
	g->pair = 0;
	g->features = features;
	uint16_t *asks = &g->q[TX].used[features & F_EVENT_IDX ? 2 + 4 * GUEST_QUEUE : 0];
	*asks = 0xffff;
	to_device(g, g->channel, MSG_VIRTIO_ACTIVATE, pack_virtio_activate(&m, g->buf, sizeof g->buf));
	while (__atomic_load_n(asks, __ATOMIC_SEQ_CST)) /* until it has looked at the ring and wants to be rung for */
		guest_turn(g, 1);
}

void guest_free(struct guest *g)
{
	const int fds[] = {g->control, g->channel, g->kick, g->call, g->ram_fd, g->ctl_fd};

	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		close(fds[i]);
	munmap(g->ram, RAM_SIZE);
	munmap(g->ctl, g->layout.total);
	munmap(g->bell, SHM_PAGE);
}

int guest_end(struct guest *g)
{
	int status, closed = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK(dup2(closed, g->control) == g->control);
	close(closed);
	CHECK(waitpid(g->pid, &status, 0) == g->pid);
	guest_free(g);
	return status;
}

/* ---- messages ---- */

static void on_invalidate(struct guest *g, const struct ipc_frame *f)
{
	static struct msg_virtio_invalidate m;

	CHECK(!unpack_virtio_invalidate(f->data, f->len, &m) && m.nranges);
	g->invalidates++;
	g->held = m.id;
	m.nranges = 0;
	if (!g->hold)
		to_device(g, g->channel, MSG_VIRTIO_INVALIDATED, pack_virtio_invalidate(&m, g->buf, sizeof g->buf));
}

static void on_channel(struct guest *g)
{
	struct ipc_frame f;

	CHECK(!ipc_recv_frame(g->channel, g->buf, &f));
	switch (f.type) {
	case MSG_VIRTIO_INVALIDATE: on_invalidate(g, &f); break;
	case MSG_VIRTIO_BROKEN: g->broken++; break;
	case MSG_VIRTIO_CONFIG:
		CHECK(!unpack_virtio_config(f.data, f.len, &g->config));
		g->configs++;
		break;
	case MSG_VIRTIO_RESET_DONE: {
		struct msg_virtio_reset m;
		CHECK(!unpack_virtio_reset(f.data, f.len, &m) && m.generation == g->generation);
		g->generation |= 1u << 31;
		break;
	}
	default: CHECK(!"a message of the device");
	}
}

static void on_control(struct guest *g)
{
	struct ipc_frame f;
	struct msg_dev_event e;

	CHECK(!ipc_recv_frame(g->control, g->buf, &f));
	if (f.type == MSG_DEV_STATS) {
		CHECK(!unpack_dev_stats(f.data, f.len, &g->stats));
		return;
	}
	CHECK(f.type == MSG_DEV_EVENT && !unpack_dev_event(f.data, f.len, &e) && e.kind == DEV_EVENT_LINK_LOST);
	g->lost++;
}

void guest_turn(struct guest *g, int ms)
{
	struct pollfd p[] = {{g->control, POLLIN, 0}, {g->channel, POLLIN, 0}, {g->call, POLLIN, 0}};
	uint8_t drop[64];

	CHECK(poll(p, 3, ms) >= 0);
	if (p[0].revents)
		on_control(g);
	if (p[1].revents)
		on_channel(g);
	if (p[2].revents) {
		CHECK(read(g->call, drop, sizeof drop) > 0);
		atomic_store(&g->bell->called, 0);
	}
}

void guest_reset(struct guest *g)
{
	struct msg_virtio_reset m = {++g->generation};

	to_device(g, g->channel, MSG_VIRTIO_RESET, pack_virtio_reset(&m, g->buf, sizeof g->buf));
	while (!(g->generation >> 31))
		guest_turn(g, PATIENCE);
	g->generation &= ~(1u << 31);
}

void guest_command(struct guest *g, enum msg_dev_op op)
{
	struct msg_dev_command m = {op};

	to_device(g, g->control, MSG_DEV_COMMAND, pack_dev_command(&m, g->buf, sizeof g->buf));
}

void guest_limits(struct guest *g, const struct msg_dev_limits *l)
{
	to_device(g, g->control, MSG_DEV_LIMITS, pack_dev_limits(l, g->buf, sizeof g->buf));
}

uint64_t guest_stat(struct guest *g, const char *name)
{
	g->stats.n = 0;
	to_device(g, g->control, MSG_DEV_STATS_GET, 0);
	while (!g->stats.n)
		guest_turn(g, PATIENCE);
	for (uint32_t i = 0; i < g->stats.n; i++)
		if (!strcmp(g->stats.c[i].name, name))
			return g->stats.c[i].value;
	fprintf(stderr, "no counter %s\n", name);
	exit(1);
}

/* ---- rings ---- */

static void set_desc(struct guest_queue *q, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t *d = q->desc + 16ul * i;

	memcpy(d, &gpa, 8);
	memcpy(d + 8, &len, 4);
	memcpy(d + 12, &flags, 2);
	memcpy(d + 14, &next, 2);
}

static void offer(struct guest_queue *q, uint16_t head)
{
	q->avail[2 + q->next % GUEST_QUEUE] = head;
	__atomic_store_n(&q->avail[1], ++q->next, __ATOMIC_SEQ_CST);
}

void guest_ring(struct guest *g, unsigned n)
{
	static const uint64_t one = 1;

	atomic_fetch_or(&g->bell->kicked, 1u << n);
	if (!atomic_load(&g->bell->device_awake))
		CHECK(write(g->kick, &one, sizeof one) == sizeof one);
}

/* Interrupts for the next used element. */
static void want_calls(struct guest_queue *q)
{
	__atomic_store_n(&q->avail[2 + GUEST_QUEUE], q->seen, __ATOMIC_SEQ_CST); /* used_event */
}

static uint64_t rx_gpa(const struct guest *g, unsigned i)
{
	return (g->pair ? RX_BUFS1 : RX_BUFS) + (uint64_t)RX_STEP * (i % GUEST_QUEUE);
}

void guest_post(struct guest *g, unsigned n)
{
	struct guest_queue *q = &g->q[2 * g->pair + RX];

	for (; n; n--, g->posted[g->pair]++) {
		unsigned i = g->posted[g->pair] % GUEST_QUEUE;
		set_desc(q, i, rx_gpa(g, i), g->rx_size, 2, 0);
		offer(q, (uint16_t)i);
	}
	want_calls(q);
	guest_ring(g, 2 * g->pair + RX);
}

static uint16_t used_idx(const struct guest_queue *q)
{
	return __atomic_load_n(&q->used[1], __ATOMIC_SEQ_CST);
}

/* A frame takes a slot of memory and @n descriptors that begin at the slot's place. */
void guest_send(struct guest *g, const struct vnet_hdr *h, const void *frame, size_t len, size_t piece)
{
	struct guest_queue *q = &g->q[2 * g->pair + TX];
	static const struct vnet_hdr none;
	unsigned slots = g->pair ? TX_SLOTS1 : TX_SLOTS, n = 0;
	unsigned slot = q->next % slots + (g->pair ? TX_SLOTS : 0);
	uint64_t gpa = TX_BUFS + (uint64_t)TX_STEP * slot;
	size_t total = len + sizeof *h;

	CHECK((uint16_t)(q->next - used_idx(q)) < slots); /* the slot is not in use */
	memcpy(g->ram + gpa, h ? h : &none, sizeof *h);
	if (len)
		memcpy(g->ram + gpa + sizeof *h, frame, len);
	if (!piece)
		piece = total;
	uint16_t head = (uint16_t)(q->desc_next % GUEST_QUEUE);
	for (size_t off = 0; off < total; off += piece, n++) {
		size_t k = total - off < piece ? total - off : piece;
		bool more = off + k < total;
		set_desc(q, (head + n) % GUEST_QUEUE, gpa + off, (uint32_t)k, more ? 1 : 0,
			 (uint16_t)((head + n + 1) % GUEST_QUEUE));
	}
	q->desc_next += n;
	offer(q, head);
	want_calls(q);
	guest_ring(g, 2 * g->pair + TX);
}

void guest_raw(struct guest *g, unsigned n, uint64_t gpa, uint32_t len, uint16_t flags)
{
	set_desc(&g->q[n], 0, gpa, len, flags, 0);
	offer(&g->q[n], 0);
	guest_ring(g, n);
}

void guest_sent(struct guest *g)
{
	struct guest_queue *q = &g->q[2 * g->pair + TX];

	for (int i = 0; used_idx(q) != q->next; i++) {
		CHECK(i < 100000 && !g->broken);
		q->seen = used_idx(q);
		want_calls(q);
		if (used_idx(q) == q->seen)
			guest_turn(g, PATIENCE);
	}
	q->seen = q->next;
}

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static bool wait_used(struct guest *g, struct guest_queue *q, long long end)
{
	while (used_idx(q) == q->seen) {
		long long left = end - now_ms();
		if (left < 0)
			return false;
		want_calls(q);
		if (used_idx(q) == q->seen)
			guest_turn(g, (int)left);
	}
	return true;
}

size_t guest_receive(struct guest *g, struct vnet_hdr *h, uint8_t *frame, size_t room, int ms)
{
	struct guest_queue *q = &g->q[2 * g->pair + RX];
	long long end = now_ms() + ms;
	size_t done = 0;
	unsigned n = 1;

	for (unsigned i = 0; i < n; i++) {
		if (!wait_used(g, q, end))
			return 0;
		uint32_t e[2];
		memcpy(e, q->used + 2 + 4ul * (q->seen++ % GUEST_QUEUE), 8);
		CHECK(e[0] < GUEST_QUEUE && e[1] <= g->rx_size);
		const uint8_t *p = g->ram + rx_gpa(g, e[0]);
		if (!i) {
			CHECK(e[1] >= sizeof *h);
			memcpy(h, p, sizeof *h);
			n = g->features & F_MRG ? h->num_buffers : 1;
			CHECK(n);
			p += sizeof *h;
			e[1] -= (uint32_t)sizeof *h;
		}
		CHECK(done + e[1] <= room);
		memcpy(frame + done, p, e[1]);
		done += e[1];
	}
	return done;
}

uint8_t guest_control(struct guest *g, unsigned n, const void *command, uint32_t len, bool answer)
{
	struct guest_queue *q = &g->q[n];
	uint8_t *ack = g->ram + CONTROL + 0x100;

	memcpy(g->ram + CONTROL, command, len);
	*ack = 0xee;
	set_desc(q, 0, CONTROL, len, answer ? 1 : 0, 1);
	set_desc(q, 1, CONTROL + 0x100, 1, 2, 0);
	offer(q, 0);
	guest_ring(g, n);
	if (!answer)
		return 0;
	CHECK(wait_used(g, q, now_ms() + PATIENCE));
	q->seen++;
	return *ack;
}
