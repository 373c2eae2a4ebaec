/*
 * The one state machine of devices:
 *
 *   off --activate--> active --reset--> resetting --reset_done--> off     (an activation may wait for reset_done)
 *                     active --broken--> active and broken, until a reset
 *
 *   data, wrote(), put() -> publish(): ring looked at, flush -> used.idx -> looked at, flush -> interrupt
 *
 * Invariant: the guest sees a used element, and hears of it, only when nothing is left that was translated from what
 * the device wrote for it: data, used elements, the index itself; and every page so written is marked dirty.
 */
#include "devices/virtio_dev.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "common/err.h"

/* ---- pointers ---- */

void virtio_dev_enter(struct virtio_dev *v)
{
	if (v->inside)
		return;
	v->inside = true;
	v->parity = gmem_enter(v->mem, v->slot);
}

void virtio_dev_leave(struct virtio_dev *v)
{
	if (!v->inside)
		return;
	v->inside = false;
	for (uint32_t i = 0; i < v->offer->nqueues; i++)
		virtq_forget(&v->queue[i]);
	gmem_leave(v->mem, v->slot, v->parity);
}

/* ---- life ---- */

void virtio_dev_broken(struct virtio_dev *v, const char *why)
{
	if (v->broken)
		return;
	v->broken = true;
	v->n.broken++;
	v->port->broken(v, why);
}

static bool offered(const struct virtio_dev *v, const struct msg_virtio_activate *m)
{
	for (uint32_t i = 0; i < m->nqueues; i++)
		if (m->queue[i].index >= v->offer->nqueues || m->queue[i].size > v->offer->queue_max[m->queue[i].index])
			return false;
	return true;
}

static void start(struct virtio_dev *v)
{
	const struct msg_virtio_activate *m = &v->activation;

	virtio_dev_enter(v);
	v->has_activation = false;
	v->features = m->features;
	v->broken = false;
	v->active = true;
	for (uint32_t i = 0; i < m->nqueues; i++) {
		struct virtq *q = &v->queue[m->queue[i].index];
		if (virtq_setup(q, v->mem, &m->queue[i], m->features))
			virtio_dev_broken(v, q->why);
	}
	if (!v->broken)
		v->port->activated(v);
}

int virtio_dev_activate(struct virtio_dev *v, const struct msg_virtio_activate *m)
{
	if ((v->active && !v->resetting) || !offered(v, m))
		return -EPROTO;
	v->activation = *m;
	v->has_activation = true;
	if (!v->resetting)
		start(v);
	return 0;
}

void virtio_dev_go_on(struct virtio_dev *v)
{
	if (!v->reset_asked)
		return;
	v->reset_asked = false;
	v->unpublished = v->held = v->owed = 0;
	v->n.resets++;
	v->port->reset(v);
}

void virtio_dev_reset(struct virtio_dev *v)
{
	v->has_activation = false;
	if (v->resetting)
		return; /* one answer, to the last */
	v->resetting = v->reset_asked = true;
	v->active = false;
	if (!v->waiting)
		virtio_dev_go_on(v);
}

void virtio_dev_reset_done(struct virtio_dev *v)
{
	if (!v->resetting)
		return;
	virtio_dev_flush(v); /* what was in flight wrote, too; who does not wait sees to it that the vcpu does */
	memset(v->queue, 0, sizeof v->queue);
	v->resetting = false;
	v->port->reset_done(v);
	if (v->has_activation)
		start(v);
}

/* ---- translated code, dirty bits ---- */

/* A page that was written; true when the vcpu has something made of it: code, or a translation to where it was merged. */
static bool mark(struct virtio_dev *v, uint64_t gpa)
{
	int64_t f = gmem_frame(v->mem, gpa);

	if (f < 0)
		return false;
	gmem_mark_dirty(v->mem, (uint64_t)f);
	return gmem_bit(v->mem->code_bm, (uint64_t)f) || (v->mem->held_bm && gmem_bit(v->mem->held_bm, (uint64_t)f));
}

static void add_range(struct virtio_dev *v, uint64_t gpa, uint64_t len)
{
	if (v->nranges == v->max_ranges)
		virtio_dev_flush(v);
	if (v->nranges == v->max_ranges)
		fatal(HVX_EXIT_FAIL, "a device wrote more than it has room to tell");
	v->range[v->nranges++] = (struct virtio_range){gpa, len};
}

/* After a fence.  Page by page. */
static void note(struct virtio_dev *v, uint64_t gpa, uint64_t len)
{
	for (uint64_t end = gpa + len, next; gpa < end; gpa = next) {
		next = (gpa | (GMEM_PAGE_SIZE - 1)) + 1;
		next = next < end ? next : end;
		if (mark(v, gpa))
			add_range(v, gpa, next - gpa);
	}
}

void virtio_dev_wrote(struct virtio_dev *v, const struct virtq_seg *seg, unsigned n, uint64_t len)
{
	atomic_thread_fence(memory_order_seq_cst); /* the data before the look at the bitmap */
	for (; n && len; seg++, n--) {
		uint64_t k = seg->len < len ? seg->len : len;
		note(v, seg->gpa, k);
		len -= k;
	}
}

void virtio_dev_wrote_range(struct virtio_dev *v, uint64_t gpa, uint64_t len)
{
	bool code = false;

	atomic_thread_fence(memory_order_seq_cst);
	for (uint64_t at = gpa; at < gpa + len; at += GMEM_PAGE_SIZE)
		code |= mark(v, at);
	if (code)
		add_range(v, gpa, len);
}

bool virtio_dev_flush(struct virtio_dev *v)
{
	if (v->flushing)
		return false;
	if (!v->nranges)
		return true;
	v->n.flushes++;
	v->waiting = true;
	v->flushing = !v->port->flush(v);
	v->waiting = false;
	if (!v->flushing)
		v->nranges = v->wished = 0;
	return !v->flushing;
}

/* ---- rings ---- */

bool virtio_dev_get(struct virtio_dev *v, unsigned queue, struct virtq_chain *c)
{
	struct virtq *q = &v->queue[queue];

	if (!virtio_dev_ready(v, queue))
		return false;
	virtio_dev_enter(v);
	int rc = virtq_get(q, c);
	if (rc < 0)
		virtio_dev_broken(v, q->why);
	return rc > 0;
}

void virtio_dev_put(struct virtio_dev *v, unsigned queue, uint16_t head, uint32_t written)
{
	virtio_dev_enter(v);
	virtq_put(&v->queue[queue], head, written);
	v->unpublished |= 1u << queue;
}

/* What the driver reads about doorbells is written memory, too, but nothing has to wait for its flush.  After a fence. */
static void note_wish(struct virtio_dev *v, unsigned queue)
{
	uint64_t at = virtq_wish_gpa(&v->queue[queue]);

	if (!mark(v, at) || (v->wished >> queue & 1))
		return; /* one range, however often it is written before the flush */
	v->wished |= 1u << queue;
	add_range(v, at, 2);
}

void virtio_dev_quiet(struct virtio_dev *v, unsigned queue)
{
	struct virtq *q = &v->queue[queue];

	if (q->event_idx)
		return; /* nothing is written */
	virtio_dev_enter(v);
	virtq_quiet(q);
	atomic_thread_fence(memory_order_seq_cst);
	note_wish(v, queue);
}

bool virtio_dev_listen(struct virtio_dev *v, unsigned queue)
{
	virtio_dev_enter(v);
	bool more = virtq_listen(&v->queue[queue]); /* with a full fence behind what it writes */

	note_wish(v, queue);
	return more;
}

/* The used elements from @q->published on. */
static void note_elements(struct virtio_dev *v, const struct virtq *q)
{
	unsigned n = (uint16_t)(q->next_used - q->published), at = q->published & (q->size - 1);
	unsigned k = q->size - at < n ? q->size - at : n;

	note(v, virtq_element_gpa(q, at), 8ull * k);
	if (k < n)
		note(v, virtq_element_gpa(q, 0), 8ull * (n - k));
}

/* The index is written, and the driver's wish looked at; then the index is looked at as what it also is, memory. */
static bool publish_one(struct virtio_dev *v, struct virtq *q)
{
	virtio_dev_enter(v);
	bool tell = virtq_publish(q); /* with a full fence behind the index */

	note(v, virtq_index_gpa(q), 2);
	return tell;
}

static void publish_held(struct virtio_dev *v)
{
	for (unsigned i = 0; v->held >> i; i++)
		if ((v->held >> i & 1) && publish_one(v, &v->queue[i]))
			v->owed |= 1u << i;
	v->held = 0;
	if (!virtio_dev_flush(v) || !v->owed)
		return;
	v->port->interrupt(v, v->owed);
	v->owed = 0;
}

void virtio_dev_flushed(struct virtio_dev *v)
{
	v->flushing = false;
	v->nranges = v->wished = 0;
	publish_held(v);
}

void virtio_dev_publish(struct virtio_dev *v, uint32_t queues)
{
	uint32_t put = v->unpublished & queues;

	if (v->flushing)
		return;
	if (put)
		atomic_thread_fence(memory_order_seq_cst); /* the elements before the look at the bitmap */
	v->unpublished &= ~put;
	v->held |= put;
	for (unsigned i = 0; put >> i; i++)
		if (put >> i & 1)
			note_elements(v, &v->queue[i]);
	if (virtio_dev_flush(v))
		publish_held(v);
}
