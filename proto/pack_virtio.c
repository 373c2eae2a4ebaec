/*
 * The messages of virtio.proto.  Invariant: as in pack.c; guest addresses are only checked where they become pointers
 * (devices/virtq.c).
 */
#include "proto/field.h"

#include "virtio.pb-c.h"

static bool queue_size_ok(uint64_t n)
{
	return n && n <= MSG_QUEUE_SIZE_MAX && !(n & (n - 1));
}

static const struct field virtio_offer_rows[] = {
	NUM(VirtioOffer, msg_virtio_offer, device_id, 1, MSG_OFFER_ATAPI),
	ANY(VirtioOffer, msg_virtio_offer, features),
	NUM_LIST(VirtioOffer, queue_max, msg_virtio_offer, queue_max, nqueues, 1, queue_size_ok),
	BYTES(VirtioOffer, msg_virtio_offer, config, config_len),
};
MESSAGE(virtio_offer, VirtioOffer, virtio_offer, msg_virtio_offer, NULL)

static const struct field virtio_queue_rows[] = {
	NUM(VirtioQueue, msg_virtio_queue, index, 0, MSG_QUEUES_MAX - 1),
	NUM_IF(VirtioQueue, msg_virtio_queue, size, queue_size_ok),
	ANY(VirtioQueue, msg_virtio_queue, desc),
	ANY(VirtioQueue, msg_virtio_queue, driver),
	ANY(VirtioQueue, msg_virtio_queue, device),
};
TABLE(virtio_queue, VirtioQueue, virtio_queue, msg_virtio_queue, NULL);

/* No queue is there twice. */
static bool virtio_activate_ok(const void *p)
{
	const struct msg_virtio_activate *m = p;
	uint32_t seen = 0;

	for (uint32_t i = 0; i < m->nqueues; i++) {
		if (seen >> m->queue[i].index & 1)
			return false;
		seen |= 1u << m->queue[i].index;
	}
	return true;
}

static const struct field virtio_activate_rows[] = {
	ANY(VirtioActivate, msg_virtio_activate, features),
	ANY(VirtioActivate, msg_virtio_activate, list),
	ANY(VirtioActivate, msg_virtio_activate, fis),
	SUB_LIST(VirtioActivate, queues, msg_virtio_activate, queue, nqueues, virtio_queue_table),
};
MESSAGE(virtio_activate, VirtioActivate, virtio_activate, msg_virtio_activate, virtio_activate_ok)

static const struct field virtio_reset_rows[] = {
	ANY(VirtioReset, msg_virtio_reset, generation),
};
MESSAGE(virtio_reset, VirtioReset, virtio_reset, msg_virtio_reset, NULL)

static bool virtio_config_ok(const void *p)
{
	const struct msg_virtio_config *m = p;

	return m->offset <= sizeof m->data - m->len;
}

static const struct field virtio_config_rows[] = {
	ANY(VirtioConfigWrite, msg_virtio_config, offset),
	BYTES(VirtioConfigWrite, msg_virtio_config, data, len),
};
MESSAGE(virtio_config, VirtioConfigWrite, virtio_config_write, msg_virtio_config, virtio_config_ok)

static const struct field virtio_broken_rows[] = {
	TEXT(VirtioBroken, msg_virtio_broken, reason),
};
MESSAGE(virtio_broken, VirtioBroken, virtio_broken, msg_virtio_broken, NULL)

static const struct field range_rows[] = {
	ANY(VirtioRange, msg_range, gpa),
	NUM(VirtioRange, msg_range, len, 1, UINT64_MAX),
};
TABLE(range, VirtioRange, virtio_range, msg_range, NULL);

static const struct field virtio_invalidate_rows[] = {
	ANY(VirtioInvalidate, msg_virtio_invalidate, id),
	SUB_LIST(VirtioInvalidate, ranges, msg_virtio_invalidate, range, nranges, range_table),
};
MESSAGE(virtio_invalidate, VirtioInvalidate, virtio_invalidate, msg_virtio_invalidate, NULL)
