/*
 * Device processes' cards.  The vcpu's thread only posts (a bit, an eventfd); everything that is
 * a message is sent and received by the main thread.
 *
 * Invariant: a device process is answered that translations are gone only after the vcpu's thread
 * has removed them (hvx-internals(7)); while that thread waits for a reset it serves such requests.
 *
 * What a device process sends is as little trusted as the guest: what is malformed ends the channel,
 * and the guest sees a device that needs a reset.
 */
#include "vcpu/cards.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/gmem.h"
#include "common/log.h"
#include "common/rank.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/kick.h"
#include "vcpu/local/local.h"
#include "vcpu/mmu/mmu.h"

#define DEVICE_FDS 3

static void ring_main(struct cards *c)
{
	static const uint64_t one = 1;

	if (write(c->post_fd, &one, sizeof one) < 0 && errno != EAGAIN)
		fatal(HVX_EXIT_FAIL, "wake-up of the main thread: %s", strerror(errno));
}

/* ---- what the transport asks for: under the platform's lock, on the vcpu's thread ---- */

static void on_kick(void *dev, unsigned queue)
{
	static const uint64_t one = 1;
	struct card *c = dev;
	struct vcpu_stats *s = &kick_this()->stats; /* a register of the transport was written */

	s->doorbells++;
	if (atomic_fetch_or(&c->bell->kicked, 1u << queue) >> queue & 1)
		return; /* it was rung for and has not looked yet */
	if (atomic_load(&c->bell->device_awake))
		return;
	s->doorbell_wakes++;
	if (write(c->kick, &one, sizeof one) < 0 && errno != EAGAIN)
		fatal(HVX_EXIT_FAIL, "doorbell: %s", strerror(errno));
}

static void on_activate(void *dev, const struct msg_virtio_activate *m)
{
	struct card *c = dev;

	c->activation = *m;
	c->post_activate = true;
	ring_main(c->all);
}

static void on_config_write(void *dev, uint32_t off, uint32_t len)
{
	struct card *c = dev;
	uint32_t end = off + len;

	if (c->post_config) {
		end = c->config_off + c->config_len > end ? c->config_off + c->config_len : end;
		off = c->config_off < off ? c->config_off : off;
	}
	c->config_off = off;
	c->config_len = end - off;
	c->post_config = true;
	ring_main(c->all);
}

static void on_reset(void *dev)
{
	struct card *c = dev;

	c->post_reset = true;
	ring_main(c->all);
}

static void on_settle(void *dev)
{
	struct card *c = dev;

	struct vcpu *v = kick_this();

	if (!v) /* a test's thread */
		v = c->all->vm->vcpu[0];
	v->settle = 1;
	vcpu_kick(v, PEND_CALL);
}

/*
 * The device is told first, then its bits are looked at, each with a full fence behind it: it has set a bit before it looks whom to
 * tell.  So whatever it has called for is either heard of by the new CPU or seen here.
 */
static void on_route(void *dev, unsigned queue, unsigned cpu)
{
	struct card *c = dev;
	struct vm *vm = c->all->vm;
	uint32_t bit = 1u << queue;

	if (cpu >= c->all->ncalls || (atomic_load(&c->routed[cpu]) & bit))
		return;
	for (unsigned i = 0; i < c->all->ncalls; i++)
		atomic_fetch_and(&c->routed[i], ~bit);
	atomic_fetch_or(&c->routed[cpu], bit);
	atomic_store(&c->bell->cpu[queue], (uint8_t)cpu);
	if (atomic_load(&c->bell->called) & bit)
		vcpu_kick(vm->vcpu[cpu], PEND_CALL);
}

static const struct virtio_pci_ops ops = {on_kick, on_activate, on_reset, on_settle, on_config_write, on_route};

/* ---- the main thread's side ---- */

static struct platform *plat(struct card *c)
{
	return c->all->vm->plat;
}

static void announce(struct cards *c)
{
	pthread_mutex_lock(&c->lock);
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void reset_done(struct card *c)
{
	if (plat(c)) {
		platform_lock(plat(c));
		if (c->is_ahci) {
			/* a call that nobody has taken is of the list before */
			atomic_store(&c->bell->called, 0);
			atomic_store(&c->bell->causes, 0);
			ahci_reset_done(&c->ahci);
		} else {
			virtio_pci_reset_done(&c->vp);
		}
		platform_unlock(plat(c));
	}
	announce(c->all);
}

static void needs_reset(struct card *c)
{
	if (!plat(c))
		return;
	platform_lock(plat(c));
	if (c->is_ahci)
		ahci_gone(&c->ahci);
	else
		virtio_pci_broken(&c->vp);
	platform_unlock(plat(c));
}

/* The device process is gone or talks nonsense; the monitor sees to the former.  Nobody serves the card from now on. */
static void hang_up(struct card *c)
{
	ipc_conn_free(c->conn);
	c->conn = NULL;
	needs_reset(c);
	reset_done(c);
}

static void send(struct card *c, uint16_t type, int len)
{
	int rc = len < 0 ? len : ipc_send(c->conn, type, c->all->child->buf, (size_t)len, NULL, 0);

	if (!rc)
		return;
	log_error("%s does not read: %s", c->id, strerror(-rc));
	hang_up(c);
}

struct posts {
	bool activate, config, reset;
	struct msg_virtio_activate activation;
	struct msg_virtio_config written;
};

static void take_posts(struct card *c, struct posts *p)
{
	platform_lock(plat(c));
	p->activate = c->post_activate;
	p->config = c->post_config;
	p->reset = c->post_reset;
	p->activation = c->activation;
	p->written.offset = c->config_off;
	p->written.len = c->config_len;
	if (p->config)
		memcpy(p->written.data, c->vp.offer.config + c->config_off, c->config_len);
	c->post_activate = c->post_config = c->post_reset = false;
	platform_unlock(plat(c));
}

static void serve_posts(struct card *c)
{
	uint8_t *buf = c->all->child->buf;
	size_t size = sizeof c->all->child->buf;
	static struct posts p; /* large; there is one loop */

	if (!plat(c))
		return;
	take_posts(c, &p);
	if (p.activate && c->conn)
		send(c, MSG_VIRTIO_ACTIVATE, pack_virtio_activate(&p.activation, buf, size));
	else if (p.activate)
		needs_reset(c);
	if (p.config && c->conn)
		send(c, MSG_VIRTIO_CONFIG_WRITE, pack_virtio_config(&p.written, buf, size));
	if (p.reset && c->conn) {
		struct msg_virtio_reset m = {++c->generation};
		send(c, MSG_VIRTIO_RESET, pack_virtio_reset(&m, buf, size));
	} else if (p.reset) {
		reset_done(c);
	}
}

/* Answers a request whose translations are gone. */
static void serve_flush(struct card *c)
{
	struct msg_virtio_invalidate m = {.id = c->ranges.id};

	pthread_mutex_lock(&c->all->lock);
	bool done = c->flush == FLUSH_DONE || (c->flush == FLUSH_ASKED && c->all->alone);
	if (done)
		c->flush = FLUSH_NONE;
	pthread_mutex_unlock(&c->all->lock);
	if (done && c->conn)
		send(c, MSG_VIRTIO_INVALIDATED,
		     pack_virtio_invalidate(&m, c->all->child->buf, sizeof c->all->child->buf));
}

static void on_post(void *ctx)
{
	struct cards *c = ctx;
	uint64_t n;

	if (read(c->post_fd, &n, sizeof n) < 0)
		return;
	for (unsigned i = 0; i < c->n; i++) {
		serve_posts(c->card[i]);
		serve_flush(c->card[i]);
	}
}

/* ---- calls for interrupts ---- */

/* Under the lock as a whole: slots that are done must be of the list that the port has at present. */
static void take_slots(struct card *c)
{
	if (!plat(c))
		return;
	platform_lock(plat(c));
	uint32_t causes = atomic_exchange(&c->bell->causes, 0); /* set after the bits */
	uint32_t slots = atomic_exchange(&c->bell->called, 0);
	if (slots | causes)
		ahci_done(&c->ahci, slots, causes, atomic_load(&c->bell->taskfile));
	platform_unlock(plat(c));
}

/* On any thread: takes the calls of these queues. */
static void take_call(struct card *c, uint32_t queues)
{
	if (c->is_ahci) {
		take_slots(c);
		return;
	}
	uint32_t bits = atomic_fetch_and(&c->bell->called, ~queues) & queues;
	if (!bits || !plat(c))
		return;
	platform_lock(plat(c));
	virtio_pci_interrupt(&c->vp, bits);
	platform_unlock(plat(c));
}

/* What was called for of @queues; AHCI's causes are CPU 0's. */
static bool is_called(const struct card *c, uint32_t queues)
{
	return (atomic_load(&c->bell->called) & queues) || ((queues & 1) && atomic_load(&c->bell->causes));
}

/* True: the pipe has no writer any more. */
static bool drain(const struct card_call *l)
{
	uint8_t drop[512];
	ssize_t n = read(l->fd, drop, sizeof drop);

	if (n < 0 && errno != EAGAIN)
		log_warn("interrupts: %s", strerror(errno));
	return n == 0;
}

/*
 * On the vcpu's thread, that its pipe has signalled: no other thread has to wake up for it.  Any signal brings it
 * here, since one that is pending already swallows the next (vcpu/bt/fault.c).  The bytes first, then the bits: a call in
 * between is seen now or signals again.
 */
static void on_calls(struct vcpu *v, void *ctx)
{
	struct cards *c = ctx;

	if (v->settle) {
		v->settle = 0;
		vcpu_fpu_out(v); /* it may sleep */
		cards_wait_reset(c, v);
		if (c->vm->locals)
			locals_wait_reset(c->vm->locals, v);
	}
	bool drained = false;
	for (unsigned i = 0; i < c->n; i++) {
		struct card *k = c->card[i];
		uint32_t queues = atomic_load(&k->routed[v->id]);
		if (!is_called(k, queues))
			continue;
		if (!drained)
			drain(&c->call[v->id]);
		drained = true;
		take_call(k, queues);
	}
}

/* Where pipes do not signal. */
static void on_call(void *ctx)
{
	struct card_call *l = ctx;
	struct cards *c = l->all;

	if (drain(l)) { /* and always ready */
		ipc_watch_free(l->watch);
		l->watch = NULL;
	}
	for (unsigned i = 0; i < c->n; i++)
		if (is_called(c->card[i], ~0u))
			take_call(c->card[i], ~0u);
}

static bool signals(int fd, const struct vcpu *v)
{
	struct f_owner_ex who = {F_OWNER_TID, v->tid};
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && !fcntl(fd, F_SETOWN_EX, &who) && !fcntl(fd, F_SETSIG, SIGUSR1) &&
	       !fcntl(fd, F_SETFL, flags | O_ASYNC);
}

void cards_wire(struct cards *c)
{
	for (unsigned i = 0; i < c->ncalls; i++)
		c->call[i].direct = signals(c->call[i].fd, c->vm->vcpu[i]);
}

/* ---- translated code ---- */

/* On the vcpu's thread, between two blocks. */
static void flush_code(struct vcpu *v, void *ctx)
{
	struct cards *c = ctx;
	bool any = false;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < c->n; i++) {
		struct card *k = c->card[i];
		if (k->flush != FLUSH_ASKED)
			continue;
		for (uint32_t r = 0; r < k->ranges.nranges; r++)
			code_written(v, k->ranges.range[r].gpa, k->ranges.range[r].len);
		v->stats.device_flushes++;
		k->flush = FLUSH_DONE;
		any = true;
	}
	pthread_mutex_unlock(&c->lock);
	if (any)
		ring_main(c);
}

static bool any_resetting(struct cards *c)
{
	bool any = false;

	platform_lock(c->vm->plat);
	for (unsigned i = 0; i < c->n; i++)
		any |= c->card[i]->is_ahci ? c->card[i]->ahci.resetting : c->card[i]->vp.resetting;
	platform_unlock(c->vm->plat);
	return any;
}

static bool flush_asked(const struct cards *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->card[i]->flush == FLUSH_ASKED)
			return true;
	return false;
}

/* Until no device is resetting, or one asks for a flush: true. */
static bool wait_change(struct cards *c)
{
	bool resetting;

	pthread_mutex_lock(&c->lock);
	while ((resetting = any_resetting(c)) && !flush_asked(c))
		pthread_cond_wait(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
	return resetting;
}

void cards_wait_reset(struct cards *c, struct vcpu *v)
{
	for (;;) {
		world_leave(v); /* the CPU comes before this lock */
		bool asked = wait_change(c);
		world_enter(v);
		if (!asked)
			return;
		flush_code(v, c);
	}
}

void cards_stop(struct cards *c)
{
	pthread_mutex_lock(&c->lock);
	c->alone = true;
	pthread_mutex_unlock(&c->lock);
	for (unsigned i = 0; i < c->n; i++)
		serve_flush(c->card[i]);
}

/* ---- messages of the device ---- */

/* Each range is a piece of one page of RAM, so that what a message makes the vcpu do is bounded. */
static bool ranges_ok(const struct gmem *mem, const struct msg_virtio_invalidate *m)
{
	for (uint32_t i = 0; i < m->nranges; i++)
		if (gmem_frame(mem, m->range[i].gpa) < 0 ||
		    m->range[i].len > GMEM_PAGE_SIZE - (m->range[i].gpa & (GMEM_PAGE_SIZE - 1)))
			return false;
	return m->nranges;
}

static int on_invalidate(struct card *c, const struct ipc_frame *f)
{
	if (c->flush != FLUSH_NONE || unpack_virtio_invalidate(f->data, f->len, &c->ranges) ||
	    !ranges_ok(c->all->vm->mem, &c->ranges))
		return -EPROTO;
	pthread_mutex_lock(&c->all->lock);
	c->flush = FLUSH_ASKED;
	pthread_cond_broadcast(&c->all->changed);
	pthread_mutex_unlock(&c->all->lock);
	vcpu_kick(c->all->vm->vcpu[0], PEND_FLUSH);
	serve_flush(c); /* nobody is left to do it */
	return 0;
}

static int on_reset_done(struct card *c, const struct ipc_frame *f)
{
	struct msg_virtio_reset m;

	if (unpack_virtio_reset(f->data, f->len, &m) || m.generation > c->generation)
		return -EPROTO;
	if (m.generation == c->generation)
		reset_done(c);
	return 0;
}

static int on_config(struct card *c, const struct ipc_frame *f)
{
	static struct msg_virtio_config m;

	if (c->is_ahci || unpack_virtio_config(f->data, f->len, &m) || m.offset || m.len != c->vp.offer.config_len)
		return -EPROTO;
	if (!plat(c))
		return 0;
	platform_lock(plat(c));
	virtio_pci_config(&c->vp, m.data, m.len);
	platform_unlock(plat(c));
	return 0;
}

static int on_broken(struct card *c, const struct ipc_frame *f)
{
	static struct msg_virtio_broken m;

	if (unpack_virtio_broken(f->data, f->len, &m))
		return -EPROTO;
	needs_reset(c);
	return 0;
}

static void on_frame(void *ctx, struct ipc_conn *conn, struct ipc_frame *f)
{
	struct card *c = ctx;
	int rc = -EPROTO;

	(void)conn;
	if (f->nfds == 0)
		switch (f->type) {
		case MSG_VIRTIO_INVALIDATE: rc = on_invalidate(c, f); break;
		case MSG_VIRTIO_RESET_DONE: rc = on_reset_done(c, f); break;
		case MSG_VIRTIO_CONFIG: rc = on_config(c, f); break;
		case MSG_VIRTIO_BROKEN: rc = on_broken(c, f); break;
		default: break;
		}
	if (!rc)
		return;
	log_error("%s sent a malformed message (%u): hung up", c->id, f->type);
	hang_up(c);
}

static void on_closed(void *ctx, struct ipc_conn *conn, int error)
{
	struct card *c = ctx;

	(void)conn;
	if (error)
		log_error("%s: channel: %s", c->id, strerror(-error));
	hang_up(c);
}

static const struct ipc_handlers handlers = {on_frame, on_closed, pack_type_name};

/* ---- start ---- */

static struct shm_doorbells *map_page(int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) || st.st_size < (off_t)SHM_PAGE)
		return NULL;
	void *p = mmap(NULL, SHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd); /* the mapping is enough */
	return p == MAP_FAILED ? NULL : p;
}

static void receive_one(struct cards *c)
{
	struct msg_vcpu_device d;
	struct ipc_frame f;
	struct card *k = calloc(1, sizeof *k);

	child_expect(c->child, MSG_VCPU_DEVICE, &f);
	if (!k)
		child_fail(c->child, HVX_EXIT_HOST, "no memory for a card");
	if (unpack_vcpu_device(f.data, f.len, &d) || f.nfds != DEVICE_FDS)
		child_fail(c->child, HVX_EXIT_FAIL, "malformed card from the monitor");
	memcpy(k->id, d.id, sizeof k->id);
	k->all = c;
	k->slot = d.slot;
	k->channel = f.fds[0];
	k->bell = map_page(f.fds[1]);
	k->kick = f.fds[2];
	atomic_store(&k->routed[0], ~0u);
	if (!k->bell)
		child_fail(c->child, HVX_EXIT_HOST, "cannot map the doorbells of %s", k->id);
	c->card[c->n++] = k;
}

static void receive_calls(struct cards *c)
{
	struct ipc_frame f;

	child_expect(c->child, MSG_VCPU_CALLS, &f);
	if (unpack_empty(f.len) || f.nfds < 1 || f.nfds > MSG_CPUS_MAX)
		child_fail(c->child, HVX_EXIT_FAIL, "malformed pipes from the monitor");
	for (int i = 0; i < f.nfds; i++)
		c->call[c->ncalls++] = (struct card_call){.all = c, .fd = f.fds[i]};
}

void cards_receive(struct cards *c, struct child *child, unsigned n)
{
	c->child = child;
	if (n > MSG_DEVICES_MAX)
		child_fail(child, HVX_EXIT_FAIL, "too many cards");
	if (n)
		receive_calls(c);
	for (unsigned i = 0; i < n; i++)
		receive_one(c);
}

int cards_init(struct cards *c, struct vm *vm, struct ipc_loop *loop)
{
	c->vm = vm;
	c->loop = loop;
	if (c->ncalls && c->ncalls != (unsigned)vm->ncpus)
		return -EPROTO;
	c->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->post_fd < 0)
		return -errno;
	pthread_mutex_init(&c->lock, NULL);
	RANK_GIVE(&c->lock, RANK_CARDS);
	pthread_cond_init(&c->changed, NULL);
	vm->invalidate = flush_code;
	vm->called = on_calls;
	vm->cards = c;
	c->post_watch = ipc_watch_fd(loop, c->post_fd, IPC_READ, on_post, c);
	return c->post_watch ? 0 : -ENOMEM;
}

/* Waits for the device's first frame, or for the monitor's hanging up: then nothing here matters any more. */
static void await_offer(struct card *c)
{
	struct pollfd p[2] = {{.fd = c->channel, .events = POLLIN}, {.fd = CHILD_CONTROL_FD, .events = 0}};
	struct ipc_frame f;

	while (poll(p, 2, -1) < 0)
		if (errno != EINTR)
			fatal(HVX_EXIT_FAIL, "poll: %s", strerror(errno));
	if (!(p[0].revents & POLLIN) || ipc_recv_frame(c->channel, c->all->child->buf, &f))
		child_fail(c->all->child, HVX_EXIT_CHILD, "%s ended before it told what it is", c->id);
	if (f.type != MSG_VIRTIO_OFFER || f.nfds || unpack_virtio_offer(f.data, f.len, &c->vp.offer))
		child_fail(c->all->child, HVX_EXIT_CHILD, "%s sent no valid offer", c->id);
}

static int add_card(struct card *k)
{
	uint32_t id = k->vp.offer.device_id;

	k->is_ahci = id == MSG_OFFER_ATA || id == MSG_OFFER_ATAPI;
	if (!k->is_ahci && id >= 64)
		return -EINVAL; /* it would be another PCI device number */
	k->ahci.packet = id == MSG_OFFER_ATAPI;
	k->vp.ops = k->ahci.ops = &ops;
	k->vp.dev = k->ahci.dev = k;
	return k->is_ahci ? platform_add_ahci(plat(k), &k->ahci, k->slot)
			  : platform_add_virtio(plat(k), &k->vp, k->slot);
}

void cards_start(struct cards *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct card *k = c->card[i];
		await_offer(k);
		int rc = add_card(k);
		if (rc)
			child_fail(c->child, HVX_EXIT_CONFIG, "no place for %s on the PCI bus: %s", k->id,
				   strerror(-rc));
		k->conn = ipc_conn_new(c->loop, k->channel, "vcpu", k->id, &handlers, k);
		if (!k->conn)
			child_fail(c->child, HVX_EXIT_HOST, "no memory for the channel of %s", k->id);
	}
	for (unsigned i = 0; i < c->ncalls; i++) {
		struct card_call *l = &c->call[i];
		l->watch = l->direct ? NULL : ipc_watch_fd(c->loop, l->fd, IPC_READ, on_call, l);
		if (!l->direct && !l->watch)
			child_fail(c->child, HVX_EXIT_HOST, "no memory for calls");
	}
}
