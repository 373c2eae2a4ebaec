/*
 * virtio.proto: wire to validated plain struct, and back.  Invariant: as in pack.c; guest addresses
 * are only checked where they become pointers (devices/virtq.c).
 */
#include "proto/pack_wire.h"

#include "virtio.pb-c.h"

static bool queue_size_ok(uint32_t n)
{
	return n && n <= MSG_QUEUE_SIZE_MAX && !(n & (n - 1));
}

int pack_virtio_offer(const struct msg_virtio_offer *m, uint8_t *buf, size_t len)
{
	Hvx__VirtioOffer w = HVX__VIRTIO_OFFER__INIT;

	w.device_id = m->device_id;
	w.features = m->features;
	w.n_queue_max = m->nqueues;
	w.queue_max = (uint32_t *)(uintptr_t)m->queue_max;
	w.config.data = (uint8_t *)(uintptr_t)m->config;
	w.config.len = m->config_len;
	return put(&w.base, buf, len);
}

int unpack_virtio_offer(const uint8_t *buf, size_t len, struct msg_virtio_offer *m)
{
	UNPACK_BEGIN(VirtioOffer, virtio_offer);
	UNPACK_NEED(w->device_id >= 1 && w->device_id <= 63);
	UNPACK_NEED(w->n_queue_max >= 1 && w->n_queue_max <= MSG_QUEUES_MAX);
	for (size_t i = 0; i < w->n_queue_max; i++) {
		UNPACK_NEED(queue_size_ok(w->queue_max[i]));
		m->queue_max[i] = w->queue_max[i];
	}
	UNPACK_NEED(copy_bytes(m->config, sizeof m->config, &m->config_len, &w->config));
	m->nqueues = (uint32_t)w->n_queue_max;
	m->device_id = w->device_id;
	m->features = w->features;
	UNPACK_END();
}

int pack_virtio_activate(const struct msg_virtio_activate *m, uint8_t *buf, size_t len)
{
	Hvx__VirtioActivate w = HVX__VIRTIO_ACTIVATE__INIT;
	Hvx__VirtioQueue q[MSG_QUEUES_MAX], *p[MSG_QUEUES_MAX];

	for (uint32_t i = 0; i < m->nqueues; i++) {
		const struct msg_virtio_queue *from = &m->queue[i];
		hvx__virtio_queue__init(&q[i]);
		q[i].index = from->index;
		q[i].size = from->size;
		q[i].desc = from->desc;
		q[i].driver = from->driver;
		q[i].device = from->device;
		p[i] = &q[i];
	}
	w.features = m->features;
	w.n_queues = m->nqueues;
	w.queues = p;
	return put(&w.base, buf, len);
}

static bool queues_in(const Hvx__VirtioActivate *w, struct msg_virtio_activate *m)
{
	uint32_t seen = 0;

	if (w->n_queues > MSG_QUEUES_MAX)
		return false;
	for (size_t i = 0; i < w->n_queues; i++) {
		const Hvx__VirtioQueue *q = w->queues[i];
		if (!known_only(&q->base) || q->index >= MSG_QUEUES_MAX || (seen & (1u << q->index)) ||
		    !queue_size_ok(q->size))
			return false;
		seen |= 1u << q->index;
		m->queue[i] = (struct msg_virtio_queue){q->index, q->size, q->desc, q->driver, q->device};
	}
	m->nqueues = (uint32_t)w->n_queues;
	return true;
}

int unpack_virtio_activate(const uint8_t *buf, size_t len, struct msg_virtio_activate *m)
{
	UNPACK_BEGIN(VirtioActivate, virtio_activate);
	UNPACK_NEED(queues_in(w, m));
	m->features = w->features;
	UNPACK_END();
}

int pack_virtio_reset(const struct msg_virtio_reset *m, uint8_t *buf, size_t len)
{
	Hvx__VirtioReset w = HVX__VIRTIO_RESET__INIT;

	w.generation = m->generation;
	return put(&w.base, buf, len);
}

int unpack_virtio_reset(const uint8_t *buf, size_t len, struct msg_virtio_reset *m)
{
	UNPACK_BEGIN(VirtioReset, virtio_reset);
	m->generation = w->generation;
	UNPACK_END();
}

int pack_virtio_config(const struct msg_virtio_config *m, uint8_t *buf, size_t len)
{
	Hvx__VirtioConfigWrite w = HVX__VIRTIO_CONFIG_WRITE__INIT;

	w.offset = m->offset;
	w.data.data = (uint8_t *)(uintptr_t)m->data;
	w.data.len = m->len;
	return put(&w.base, buf, len);
}

int unpack_virtio_config(const uint8_t *buf, size_t len, struct msg_virtio_config *m)
{
	UNPACK_BEGIN(VirtioConfigWrite, virtio_config_write);
	UNPACK_NEED(copy_bytes(m->data, sizeof m->data, &m->len, &w->data));
	UNPACK_NEED(w->offset <= sizeof m->data - m->len);
	m->offset = w->offset;
	UNPACK_END();
}

int pack_virtio_broken(const struct msg_virtio_broken *m, uint8_t *buf, size_t len)
{
	Hvx__VirtioBroken w = HVX__VIRTIO_BROKEN__INIT;

	w.reason = str(m->reason);
	return put(&w.base, buf, len);
}

int unpack_virtio_broken(const uint8_t *buf, size_t len, struct msg_virtio_broken *m)
{
	UNPACK_BEGIN(VirtioBroken, virtio_broken);
	UNPACK_NEED(copy_text(m->reason, sizeof m->reason, w->reason));
	UNPACK_END();
}

int pack_virtio_invalidate(const struct msg_virtio_invalidate *m, uint8_t *buf, size_t len)
{
	Hvx__VirtioInvalidate w = HVX__VIRTIO_INVALIDATE__INIT;
	Hvx__VirtioRange r[MSG_RANGES_MAX], *p[MSG_RANGES_MAX];

	for (uint32_t i = 0; i < m->nranges; i++) {
		hvx__virtio_range__init(&r[i]);
		r[i].gpa = m->range[i].gpa;
		r[i].len = m->range[i].len;
		p[i] = &r[i];
	}
	w.id = m->id;
	w.n_ranges = m->nranges;
	w.ranges = p;
	return put(&w.base, buf, len);
}

int unpack_virtio_invalidate(const uint8_t *buf, size_t len, struct msg_virtio_invalidate *m)
{
	UNPACK_BEGIN(VirtioInvalidate, virtio_invalidate);
	UNPACK_NEED(w->n_ranges <= MSG_RANGES_MAX);
	for (size_t i = 0; i < w->n_ranges; i++) {
		UNPACK_NEED(known_only(&w->ranges[i]->base) && w->ranges[i]->len);
		m->range[i].gpa = w->ranges[i]->gpa;
		m->range[i].len = w->ranges[i]->len;
	}
	m->id = w->id;
	m->nranges = (uint32_t)w->n_ranges;
	UNPACK_END();
}
