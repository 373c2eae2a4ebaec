/*
 * Devices on the main thread: the port of virtio_dev that is a thread of the vcpu process.  The vcpu's thread only posts
 * bits and rings an eventfd; rings are read and written here.
 *
 * Invariant: a used index is published only after the vcpu's thread has dropped the translations of
 * every page that was written for it (hvx-internals(7)); until then the device does nothing more.
 */
#include "vcpu/local/local.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/rank.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/kick.h"
#include "vcpu/mmu/mmu.h"

#define TURN        256 /* chains: a guest that makes more as fast as we take them does not keep us for itself */
#define PATIENCE_MS 200 /* a guest that does not tell its counters */

uint64_t local_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void ring_main(struct locals *l)
{
	static const uint64_t one = 1;

	if (write(l->post_fd, &one, sizeof one) < 0 && errno != EAGAIN)
		fatal(HVX_EXIT_FAIL, "wake-up of the main thread: %s", strerror(errno));
}

/* ---- what the transport asks for: under the platform's lock, on the vcpu's thread ---- */

static void on_kick(void *dev, unsigned queue)
{
	struct local *d = dev;

	if (d->post_rung >> queue & 1)
		return;
	d->post_rung |= 1u << queue;
	ring_main(d->all);
}

static void on_activate(void *dev, const struct msg_virtio_activate *m)
{
	struct local *d = dev;

	d->activation = *m;
	d->post_activate = true;
	ring_main(d->all);
}

static void on_reset(void *dev)
{
	struct local *d = dev;

	d->post_reset = true;
	ring_main(d->all);
}

/* Bus mastering went off while something was in flight. */
static void on_settle(void *dev)
{
	struct local *d = dev;

	struct vcpu *v = kick_this();

	if (!v) /* a test's thread */
		v = d->all->vm->vcpu[0];
	v->settle = 1;
	vcpu_kick(v, PEND_CALL);
}

static void on_config_write(void *dev, uint32_t off, uint32_t len)
{
	(void)dev, (void)off, (void)len; /* whoever wants to know looks there */
}

static const struct virtio_pci_ops pci_ops = {on_kick, on_activate, on_reset, on_settle, on_config_write, NULL};

/* ---- the port ---- */

static struct local *local_of(struct virtio_dev *v)
{
	return (struct local *)(void *)v; /* its first member */
}

static void port_broken(struct virtio_dev *v, const char *why)
{
	struct local *d = local_of(v);

	log_guest(LOG_LVL_WARN, "%s: the driver broke the rules: %s", d->id, why);
	platform_lock(d->all->vm->plat);
	virtio_pci_broken(&d->vp);
	platform_unlock(d->all->vm->plat);
}

static void port_interrupt(struct virtio_dev *v, uint32_t queues)
{
	struct local *d = local_of(v);

	platform_lock(d->all->vm->plat);
	virtio_pci_interrupt(&d->vp, queues);
	platform_unlock(d->all->vm->plat);
}

static void port_activated(struct virtio_dev *v)
{
	(void)v; /* local_again() comes with the rest of the posts */
}

static void port_reset(struct virtio_dev *v)
{
	struct local *d = local_of(v);

	d->rung = 0;
	d->ops->reset(d);
}

static void port_reset_done(struct virtio_dev *v)
{
	struct local *d = local_of(v);

	platform_lock(d->all->vm->plat);
	virtio_pci_reset_done(&d->vp);
	platform_unlock(d->all->vm->plat);
	pthread_mutex_lock(&d->all->lock);
	pthread_cond_broadcast(&d->all->changed);
	pthread_mutex_unlock(&d->all->lock);
}

static bool port_flush(struct virtio_dev *v)
{
	struct local *d = local_of(v);

	pthread_mutex_lock(&d->all->lock);
	d->flush = LOCAL_FLUSH_ASKED;
	pthread_mutex_unlock(&d->all->lock);
	vcpu_kick(d->all->vm->vcpu[0], PEND_FLUSH);
	return false;
}

static const struct virtio_port port = {
	.reset = port_reset,
	.reset_done = port_reset_done,
	.activated = port_activated,
	.broken = port_broken,
	.interrupt = port_interrupt,
	.flush = port_flush,
};

/* ---- chains ---- */

bool local_get(struct local *d, unsigned queue)
{
	struct virtio_dev *v = &d->v;

	if (!virtio_dev_ready(v, queue))
		return false;
	if (!d->turn) {
		d->later = true;
		ring_main(d->all);
		return false;
	}
	d->turn--;
	bool got = virtio_dev_get(v, queue, &d->all->chain);
	if (!got && !v->broken && virtio_dev_listen(v, queue)) /* the driver rings from here on */
		got = virtio_dev_get(v, queue, &d->all->chain);
	d->n.requests += got;
	return got;
}

bool local_room(const struct local *d, unsigned n)
{
	return virtio_dev_room(&d->v, n + VIRTIO_RING_RANGES);
}

/* ---- translated code ---- */

/* On the vcpu's thread, between two blocks. */
static void invalidate(struct vcpu *v, void *ctx)
{
	struct locals *l = v->vm->locals;
	bool any = false;

	if (l->next_invalidate)
		l->next_invalidate(v, ctx);
	pthread_mutex_lock(&l->lock);
	for (unsigned i = 0; i < l->n; i++) {
		struct local *d = l->dev[i];
		if (d->flush != LOCAL_FLUSH_ASKED)
			continue;
		for (unsigned r = 0; r < d->v.nranges; r++)
			code_written(v, d->range[r].gpa, d->range[r].len);
		v->stats.device_flushes++;
		d->flush = LOCAL_FLUSH_DONE;
		any = true;
	}
	pthread_mutex_unlock(&l->lock);
	if (any)
		ring_main(l);
}

/* No flush is under way, or it has just been seen to be done. */
static bool flushed(struct local *d)
{
	bool done;

	pthread_mutex_lock(&d->all->lock);
	done = d->flush == LOCAL_FLUSH_DONE;
	if (done)
		d->flush = LOCAL_FLUSH_NONE;
	pthread_mutex_unlock(&d->all->lock);
	if (done)
		virtio_dev_flushed(&d->v);
	return !d->v.flushing;
}

void local_again(struct local *d)
{
	if (d->all->stopped || !flushed(d))
		return;
	if (d->v.active && !d->v.broken) {
		virtio_dev_enter(&d->v);
		d->turn = TURN;
		d->later = false;
		d->ops->work(d);
	}
	virtio_dev_publish(&d->v, ~0u);
}

/* ---- posts ---- */

/* In the order in which they can have been posted: a reset ends what was activated before it. */
static void serve(struct local *d)
{
	static struct msg_virtio_activate m; /* large; there is one loop */

	platform_lock(d->all->vm->plat);
	bool start = d->post_activate, reset = d->post_reset;
	uint32_t rung = d->post_rung;
	m = d->activation;
	d->post_activate = d->post_reset = false;
	d->post_rung = 0;
	platform_unlock(d->all->vm->plat);
	if (start) {
		if (virtio_dev_activate(&d->v, &m))
			fatal(HVX_EXIT_FAIL, "%s: an activation that the transport does not make", d->id);
		d->rung = (1u << d->vp.offer.nqueues) - 1; /* chains made available before this */
	}
	d->n.kicks += rung != 0;
	d->rung |= rung;
	if (reset)
		virtio_dev_reset(&d->v);
	if (start || rung || d->v.flushing || d->later)
		local_again(d);
}

static void on_post(void *ctx)
{
	struct locals *l = ctx;
	uint64_t n;

	if (read(l->post_fd, &n, sizeof n) < 0 || l->stopped)
		return;
	for (unsigned i = 0; i < l->n; i++)
		serve(l->dev[i]);
}

static void on_turned(void *ctx)
{
	struct locals *l = ctx;

	for (unsigned i = 0; i < l->n; i++)
		virtio_dev_leave(&l->dev[i]->v);
}

/* ---- configuration, counters ---- */

void local_config(struct local *d, unsigned off, const void *data, unsigned len)
{
	uint8_t all[MSG_VCONFIG_MAX];

	if (d->all->stopped)
		return;
	platform_lock(d->all->vm->plat);
	memcpy(all, d->vp.offer.config, d->vp.offer.config_len);
	memcpy(all + off, data, len);
	virtio_pci_config(&d->vp, all, d->vp.offer.config_len);
	platform_unlock(d->all->vm->plat);
}

void local_count(struct msg_counters *m, const char *id, const char *name, uint64_t value)
{
	if (m->n >= MSG_COUNTERS_MAX)
		return;
	snprintf(m->c[m->n].name, sizeof m->c[m->n].name, "%s.%s", id, name);
	m->c[m->n++].value = value;
}

void locals_stats(struct locals *l, struct msg_counters *m)
{
	for (unsigned i = 0; i < l->n && !l->stopped; i++) {
		struct local *d = l->dev[i];
		local_count(m, d->id, "kicks", d->n.kicks);
		local_count(m, d->id, "requests", d->n.requests);
		local_count(m, d->id, "resets", d->v.n.resets);
		local_count(m, d->id, "broken", d->v.n.broken);
		local_count(m, d->id, "flushes", d->v.n.flushes);
		d->ops->stats(d, m);
	}
}

void locals_fresh(struct locals *l)
{
	void (*ready)(void *ctx) = l->ready;

	l->ready = NULL;
	if (ready)
		ready(l->ready_ctx);
}

static void on_patience(void *ctx)
{
	locals_fresh(ctx);
}

bool locals_refresh(struct locals *l, void (*ready)(void *ctx), void *ctx)
{
	bool any = false;

	if (l->stopped || l->ready)
		return false;
	for (unsigned i = 0; i < l->n; i++)
		if (l->dev[i]->ops->refresh)
			any |= l->dev[i]->ops->refresh(l->dev[i]);
	if (!any)
		return false;
	l->ready = ready;
	l->ready_ctx = ctx;
	ipc_timer_set(l->patience, PATIENCE_MS);
	return true;
}

/* ---- life ---- */

int locals_init(struct locals *l, struct vm *vm, struct ipc_loop *loop)
{
	l->vm = vm;
	l->loop = loop;
	l->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->post_fd < 0)
		return -errno;
	pthread_mutex_init(&l->lock, NULL);
	RANK_GIVE(&l->lock, RANK_LOCALS);
	pthread_cond_init(&l->changed, NULL);
	l->next_invalidate = vm->invalidate;
	vm->invalidate = invalidate;
	vm->locals = l;
	ipc_loop_turned(loop, on_turned, l);
	l->post_watch = ipc_watch_fd(loop, l->post_fd, IPC_READ, on_post, l);
	l->patience = ipc_watch_timer(loop, on_patience, l);
	return l->post_watch && l->patience ? 0 : -ENOMEM;
}

int locals_add(struct locals *l, struct local *d, unsigned slot)
{
	if (l->n == LOCAL_MAX || d->vp.offer.nqueues > LOCAL_QUEUES)
		return -ENOSPC;
	d->all = l;
	d->v.port = &port;
	d->v.mem = l->vm->mem;
	d->v.offer = &d->vp.offer;
	d->v.range = d->range;
	d->v.max_ranges = LOCAL_RANGES;
	d->v.slot = SHM_SLOT_MAIN;
	d->vp.ops = &pci_ops;
	d->vp.dev = d;
	int rc = platform_add_virtio(l->vm->plat, &d->vp, slot);
	if (!rc)
		l->dev[l->n++] = d;
	return rc;
}

static bool any_resetting(struct locals *l)
{
	bool any = false;

	platform_lock(l->vm->plat);
	for (unsigned i = 0; i < l->n; i++)
		any |= l->dev[i]->vp.resetting;
	platform_unlock(l->vm->plat);
	return any;
}

/* Translations that are to go meanwhile go before the next block runs: PEND_FLUSH stays set. */
void locals_wait_reset(struct locals *l, struct vcpu *v)
{
	world_leave(v);
	pthread_mutex_lock(&l->lock);
	while (any_resetting(l))
		pthread_cond_wait(&l->changed, &l->lock);
	pthread_mutex_unlock(&l->lock);
	world_enter(v);
}

void locals_stop(struct locals *l)
{
	l->stopped = true;
}
