/*
 * The frame of a device process: the port of virtio_dev that has a channel to the vcpu, a shared page of doorbells and
 * eventfds.  Invariant: between VIRTIO_RESET and its answer no new work is taken, and after the answer nothing touches the
 * guest's memory until the next activation.
 */
#include "devices/device.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/text.h"

#define RING_TURNS 64 /* of work before the loop looks at its messages again */

uint64_t device_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static int to(struct device *d, struct ipc_conn *c, uint16_t type, int n)
{
	return n < 0 ? n : ipc_send(c, type, d->child.buf, (size_t)n, NULL, 0);
}

static void to_vcpu(struct device *d, uint16_t type, int n)
{
	int rc = d->channel ? to(d, d->channel, type, n) : 0;

	if (rc)
		fatal(HVX_EXIT_FAIL, "the vcpu does not read: %s", strerror(-rc));
}

static struct device *device_of(struct virtio_dev *v)
{
	return (struct device *)(void *)v; /* its first member */
}

/* ---- what the kinds call ---- */

void device_event(struct device *d, enum msg_dev_news kind, const char *text)
{
	struct msg_dev_event m = {.kind = kind};

	text_clean(m.text, sizeof m.text, text, strlen(text));
	if (to(d, d->monitor, MSG_DEV_EVENT, pack_dev_event(&m, d->child.buf, sizeof d->child.buf)))
		fatal(HVX_EXIT_FAIL, "the monitor does not read");
}

void device_config_changed(struct device *d)
{
	struct msg_virtio_config m = {.len = d->offer.config_len};

	memcpy(m.data, d->offer.config, m.len);
	to_vcpu(d, MSG_VIRTIO_CONFIG, pack_virtio_config(&m, d->child.buf, sizeof d->child.buf));
}

/* ---- the port ---- */

static void port_broken(struct virtio_dev *v, const char *why)
{
	struct device *d = device_of(v);
	struct msg_virtio_broken m;

	log_guest(LOG_LVL_WARN, "the driver broke the rules: %s", why);
	text_clean(m.reason, sizeof m.reason, why, strlen(why));
	to_vcpu(d, MSG_VIRTIO_BROKEN, pack_virtio_broken(&m, d->child.buf, sizeof d->child.buf));
}

void device_call(struct device *d, unsigned cpu)
{
	unsigned at = DEV_FD_CALL + cpu;

	d->n.calls++;
	if (at > DEV_FD_CALL_LAST || d->fd[at] < 0) /* the page says so, which the vcpu writes */
		at = DEV_FD_CALL;
	/* One byte: a pipe that is full has called already.  The vcpu may be gone. */
	if (write(d->fd[at], "", 1) < 0 && errno != EAGAIN && errno != EPIPE)
		fatal(HVX_EXIT_FAIL, "interrupt: %s", strerror(errno));
}

static void port_interrupt(struct virtio_dev *v, uint32_t queues)
{
	struct device *d = device_of(v);
	uint32_t fresh =
		queues & ~atomic_fetch_or(&d->bell->called, queues); /* the others the vcpu has not looked at yet */
	uint64_t told = 0;

	d->n.calls += !fresh;
	for (unsigned q = 0; fresh >> q; q++) {
		if (!(fresh >> q & 1))
			continue;
		unsigned cpu = atomic_load(&d->bell->cpu[q]) & 31;
		if (!(told >> cpu & 1))
			device_call(d, cpu);
		told |= 1ull << cpu;
	}
}

/* Waits until the vcpu has answered the invalidation. */
static void await_code(struct device *d)
{
	while (d->invalidated != d->invalidate_id) {
		struct pollfd p = {.fd = ipc_conn_fd(d->channel), .events = POLLIN};
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			fatal(HVX_EXIT_FAIL, "poll: %s", strerror(errno));
		ipc_conn_drain(d->channel);
		if (!d->channel)
			break; /* the vcpu is gone: nobody runs the old code */
	}
	if (d->v.reset_asked)
		ipc_timer_set(d->tick, 0); /* not here: the caller is in the middle of its work */
}

static bool port_flush(struct virtio_dev *v)
{
	static struct msg_virtio_invalidate m; /* large; there is one loop */
	struct device *d = device_of(v);

	m.id = ++d->invalidate_id;
	m.nranges = v->nranges;
	for (unsigned i = 0; i < v->nranges; i++) {
		m.range[i].gpa = v->range[i].gpa;
		m.range[i].len = v->range[i].len;
	}
	to_vcpu(d, MSG_VIRTIO_INVALIDATE, pack_virtio_invalidate(&m, d->child.buf, sizeof d->child.buf));
	if (d->channel)
		await_code(d);
	return true;
}

static void port_reset(struct virtio_dev *v)
{
	struct device *d = device_of(v);

	d->ops->reset(d);
}

static void port_reset_done(struct virtio_dev *v)
{
	struct device *d = device_of(v);
	struct msg_virtio_reset m = {d->generation};

	atomic_store(&d->bell->called, 0);
	to_vcpu(d, MSG_VIRTIO_RESET_DONE, pack_virtio_reset(&m, d->child.buf, sizeof d->child.buf));
}

static void port_activated(struct virtio_dev *v)
{
	struct device *d = device_of(v);

	if (d->ops->activate)
		d->ops->activate(d);
	if (!d->ops->slots)
		device_ring(d, (1u << d->offer.nqueues) - 1); /* chains made available before this */
}

static const struct virtio_port port = {
	.reset = port_reset,
	.reset_done = port_reset_done,
	.activated = port_activated,
	.broken = port_broken,
	.interrupt = port_interrupt,
	.flush = port_flush,
};

void device_init(struct device *d)
{
	d->v.port = &port;
	d->v.mem = &d->mem;
	d->v.offer = &d->offer;
	d->v.range = d->range;
	d->v.max_ranges = MSG_RANGES_MAX;
	d->v.slot = SHM_SLOT_DEVICE;
	for (int i = 0; i < DEV_FD_COUNT; i++)
		d->fd[i] = -1;
}

/* ---- doorbells ---- */

static void ring(struct device *d, uint32_t bits)
{
	if (d->ops->slots) {
		d->ops->slots(d, bits);
		return;
	}
	for (unsigned q = 0; bits; q++, bits >>= 1)
		if ((bits & 1) && q < d->offer.nqueues && virtio_dev_ready(&d->v, q))
			d->ops->work(d, q);
}

/* A guest that never stops ringing: the rest waits for the loop's next turn, others have theirs first. */
static void ring_later(struct device *d, uint32_t bits)
{
	static const uint64_t one = 1;

	atomic_fetch_or(&d->bell->kicked, bits);
	if (write(d->fd[DEV_FD_KICK], &one, sizeof one) < 0 && errno != EAGAIN)
		fatal(HVX_EXIT_FAIL, "doorbell: %s", strerror(errno));
}

void device_ring(struct device *d, uint32_t bits)
{
	for (int turn = 0; bits; turn++) {
		if (turn == RING_TURNS) {
			ring_later(d, bits);
			return;
		}
		atomic_store(&d->bell->device_awake, 1);
		ring(d, bits);
		virtio_dev_flush(&d->v);
		atomic_store(&d->bell->device_awake, 0); /* and, seq_cst, before the last look */
		bits = atomic_exchange(&d->bell->kicked, 0);
	}
}

static void on_kick(void *ctx)
{
	struct device *d = ctx;
	uint64_t n;

	if (read(d->fd[DEV_FD_KICK], &n, sizeof n) < 0)
		return;
	d->n.kicks++;
	device_ring(d, atomic_exchange(&d->bell->kicked, 0));
}

/* ---- messages of the vcpu ---- */

static int on_reset(struct device *d, const struct ipc_frame *f)
{
	struct msg_virtio_reset m;

	if (unpack_virtio_reset(f->data, f->len, &m))
		return -EPROTO;
	d->generation = m.generation;
	virtio_dev_reset(&d->v);
	return 0;
}

static int on_activate(struct device *d, const struct ipc_frame *f)
{
	static struct msg_virtio_activate m; /* large; there is one loop */

	return unpack_virtio_activate(f->data, f->len, &m) ? -EPROTO : virtio_dev_activate(&d->v, &m);
}

static int on_invalidated(struct device *d, const struct ipc_frame *f)
{
	static struct msg_virtio_invalidate m; /* large; there is one loop */

	if (unpack_virtio_invalidate(f->data, f->len, &m) || m.nranges || m.id != d->invalidate_id)
		return -EPROTO;
	d->invalidated = m.id;
	return 0;
}

static int on_config_write(struct device *d, const struct ipc_frame *f)
{
	static struct msg_virtio_config m;

	if (unpack_virtio_config(f->data, f->len, &m))
		return -EPROTO;
	if (d->ops->config_write)
		d->ops->config_write(d, m.offset, m.data, m.len);
	return 0;
}

static void on_vcpu_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct device *d = ctx;
	int rc = -EPROTO;

	(void)c;
	if (f->nfds)
		fatal(HVX_EXIT_FAIL, "descriptors from the vcpu");
	switch (f->type) {
	case MSG_VIRTIO_RESET: rc = on_reset(d, f); break;
	case MSG_VIRTIO_ACTIVATE: rc = on_activate(d, f); break;
	case MSG_VIRTIO_INVALIDATED: rc = on_invalidated(d, f); break;
	case MSG_VIRTIO_CONFIG_WRITE: rc = on_config_write(d, f); break;
	default: break;
	}
	if (rc)
		fatal(HVX_EXIT_FAIL, "message %u from the vcpu: %s", f->type, strerror(-rc));
}

/* A reset that came in the middle of a piece of work. */
static void on_tick(void *ctx)
{
	struct device *d = ctx;

	virtio_dev_go_on(&d->v);
}

/* The vcpu ends before its devices do: what is in flight is finished, the monitor says when to go. */
static void on_vcpu_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct device *d = ctx;

	(void)error;
	ipc_conn_free(c);
	d->channel = NULL;
	d->v.active = false;
}

static const struct ipc_handlers vcpu_handlers = {on_vcpu_frame, on_vcpu_closed, pack_type_name};

/* ---- the monitor ---- */

static int on_stats(struct device *d)
{
	static struct msg_counters m;

	m.n = 0;
	device_count(&m, "kicks", d->n.kicks);
	device_count(&m, "calls", d->n.calls);
	device_count(&m, "resets", d->v.n.resets);
	device_count(&m, "broken", d->v.n.broken);
	device_count(&m, "invalidates", d->v.n.flushes);
	d->ops->stats(d, &m);
	return to(d, d->monitor, MSG_DEV_STATS, pack_dev_stats(&m, d->child.buf, sizeof d->child.buf));
}

void device_count(struct msg_counters *m, const char *name, uint64_t value)
{
	snprintf(m->c[m->n].name, sizeof m->c[m->n].name, "%s", name);
	m->c[m->n++].value = value;
}

static int on_limits(struct device *d, const struct ipc_frame *f)
{
	struct msg_dev_limits m;

	if (unpack_dev_limits(f->data, f->len, &m))
		return -EPROTO;
	for (int i = 0; i < 2; i++)
		limit_set(&d->limit[i], &m, device_now());
	if (d->ops->limits)
		d->ops->limits(d);
	return 0;
}

static int on_command(struct device *d, const struct ipc_frame *f)
{
	struct msg_dev_command m;

	if (unpack_dev_command(f->data, f->len, &m))
		return -EPROTO;
	if (d->ops->command)
		d->ops->command(d, m.op);
	return 0;
}

static void on_monitor_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct device *d = ctx;
	int rc = -EPROTO;

	(void)c;
	if (f->nfds == 0 && f->type == MSG_DEV_STATS_GET && unpack_empty(f->len) == 0)
		rc = on_stats(d);
	else if (f->nfds == 0 && f->type == MSG_DEV_LIMITS)
		rc = on_limits(d, f);
	else if (f->nfds == 0 && f->type == MSG_DEV_COMMAND)
		rc = on_command(d, f);
	if (rc)
		fatal(HVX_EXIT_FAIL, "message %u from the monitor: %s", f->type, strerror(-rc));
}

static void on_monitor_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct device *d = ctx;

	(void)c;
	if (error)
		log_error("control socket: %s", strerror(-error));
	ipc_loop_stop(d->loop);
}

static const struct ipc_handlers monitor_handlers = {on_monitor_frame, on_monitor_closed, pack_type_name};

/* ---- start ---- */

static void receive(struct device *d)
{
	struct ipc_frame f;

	child_expect(&d->child, MSG_DEV_CONFIG, &f);
	if (unpack_dev_config(f.data, f.len, &d->cfg) || (uint32_t)f.nfds != d->cfg.nfds ||
	    d->cfg.kind != d->child.role)
		child_fail(&d->child, HVX_EXIT_FAIL, "malformed configuration from the monitor");
	for (int i = 0; i < f.nfds; i++)
		d->fd[d->cfg.fds[i]] = f.fds[i];
}

static void map(struct device *d)
{
	struct stat st;
	int rc = memory_map(&d->mem, d->fd[DEV_FD_RAM], d->fd[DEV_FD_CONTROL], d->fd[DEV_FD_POOL], d->cfg.ram_size);
	int seals = fcntl(d->fd[DEV_FD_PAGE], F_GET_SEALS);

	d->child.shared = d->cfg.ram_size + shm_layout(d->cfg.ram_size).total + d->mem.pool_size;
	if (rc)
		child_fail(&d->child, HVX_EXIT_HOST, "cannot map guest memory: %s", strerror(-rc));
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(d->fd[DEV_FD_PAGE], &st) || st.st_size < (off_t)SHM_PAGE)
		child_fail(&d->child, HVX_EXIT_FAIL, "malformed page of doorbells");
	d->bell = mmap(NULL, SHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd[DEV_FD_PAGE], 0);
	if (d->bell == MAP_FAILED)
		child_fail(&d->child, HVX_EXIT_HOST, "cannot map the page of doorbells: %s", strerror(errno));
	int slot = gmem_join(&d->mem);
	if (slot < 0)
		child_fail(&d->child, HVX_EXIT_FAIL, "no place for this device in the control region");
	d->v.slot = (unsigned)slot;
	for (int i = DEV_FD_RAM; i <= DEV_FD_PAGE; i++)
		if (i != DEV_FD_CHANNEL)
			close(d->fd[i]); /* the mappings are enough */
	if (d->fd[DEV_FD_POOL] >= 0)
		close(d->fd[DEV_FD_POOL]);
}

void device_start(struct device *d, int argc, char **argv)
{
	device_init(d);
	child_start(&d->child, argc, argv);
	d->control = CHILD_CONTROL_FD;
	receive(d);
	map(d);
	for (int i = 0; i < 2; i++)
		limit_set(&d->limit[i], &d->cfg.limits, device_now());
	d->loop = ipc_loop_new();
	if (!d->loop)
		child_fail(&d->child, HVX_EXIT_HOST, "no memory for the loop");
}

int device_run(struct device *d)
{
	child_seal(&d->child);
	return device_serve(d);
}

static void on_turned(void *ctx)
{
	struct device *d = ctx;

	virtio_dev_leave(&d->v);
}

int device_serve(struct device *d)
{
	ipc_loop_turned(d->loop, on_turned, d);
	d->monitor = ipc_conn_new(d->loop, d->control, d->cfg.id, "monitor", &monitor_handlers, d);
	d->channel = ipc_conn_new(d->loop, d->fd[DEV_FD_CHANNEL], d->cfg.id, "vcpu", &vcpu_handlers, d);
	struct ipc_watch *kick = ipc_watch_fd(d->loop, d->fd[DEV_FD_KICK], IPC_READ, on_kick, d);
	d->tick = ipc_watch_timer(d->loop, on_tick, d);
	if (!d->monitor || !d->channel || !kick || !d->tick)
		fatal(HVX_EXIT_FAIL, "no memory for the connections");
	to_vcpu(d, MSG_VIRTIO_OFFER, pack_virtio_offer(&d->offer, d->child.buf, sizeof d->child.buf));
	if (ipc_loop_run(d->loop))
		fatal(HVX_EXIT_FAIL, "the loop ended");
	ipc_watch_free(kick);
	ipc_watch_free(d->tick);
	return 0;
}
