/*
 * Split virtqueues (virtio 1.2 2.7): the only descriptor walker.
 *
 *   avail.ring[next_avail] -> head -> desc[head] -> desc[next] ...      (or one indirect table)
 *   used.ring[next_used] = {head, written};  used.idx follows at virtq_publish()
 *
 * Invariant: guest memory is read once, into locals, and every value is checked before it is
 * used; what a chain holds are pointers into RAM that was looked up by gmem.
 */
#include "devices/virtq.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define DESC_NEXT          1
#define DESC_WRITE         2
#define DESC_INDIRECT      4
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY     1
#define CHAIN_MAX          VIRTQ_SEGS_MAX /* descriptors */

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
struct virtq_avail {
	_Atomic uint16_t flags, idx;
	uint16_t ring[]; /* and used_event after it */
};
struct virtq_used_elem {
	uint32_t id, len;
};
struct virtq_used {
	_Atomic uint16_t flags, idx;
	struct virtq_used_elem ring[]; /* and avail_event after it */
};
_Static_assert(sizeof(struct virtq_desc) == 16, "virtio 1.2 2.7.5");
_Static_assert(sizeof(struct virtq_used_elem) == 8, "virtio 1.2 2.7.8");

static int bad(struct virtq *q, const char *why)
{
	q->why = why;
	return -EPROTO;
}

static _Atomic uint16_t *used_event(struct virtq *q)
{
	return (_Atomic uint16_t *)&q->avail->ring[q->size];
}

static _Atomic uint16_t *avail_event(struct virtq *q)
{
	return (_Atomic uint16_t *)&q->used->ring[q->size];
}

int virtq_setup(struct virtq *q, const struct gmem *mem, const struct msg_virtio_queue *m, uint64_t features)
{
	*q = (struct virtq){.mem = mem, .index = m->index, .size = m->size};
	if (!m->size || m->size > MSG_QUEUE_SIZE_MAX || (m->size & (m->size - 1)))
		return bad(q, "queue size");
	if ((m->desc & 15) || (m->driver & 1) || (m->device & 3))
		return bad(q, "a ring is not aligned");
	q->desc = gmem_ptr(mem, m->desc, 16ul * m->size);
	q->avail = gmem_ptr(mem, m->driver, 6 + 2ul * m->size);
	q->used = gmem_ptr(mem, m->device, 6 + 8ul * m->size);
	if (!q->desc || !q->avail || !q->used)
		return bad(q, "a ring is not in RAM");
	q->desc_gpa = m->desc;
	q->avail_gpa = m->driver;
	q->used_gpa = m->device;
	q->event_idx = features >> VIRTIO_F_RING_EVENT_IDX & 1;
	q->indirect = features >> VIRTIO_F_RING_INDIRECT_DESC & 1;
	q->enabled = true;
	return 0;
}

/* ---- a chain ---- */

/* One contiguous piece of the host's memory. */
static int add_piece(struct virtq *q, struct virtq_chain *c, uint64_t gpa, uint32_t len, uint8_t *p, bool write)
{
	unsigned n = c->nout + c->nin;

	if (n == VIRTQ_SEGS_MAX)
		return bad(q, "too many buffers in a chain");
	c->seg[n] = (struct virtq_seg){p, gpa, len};
	if (write) {
		c->nin++;
		c->in_len += len;
	} else {
		c->nout++;
		c->out_len += len;
	}
	return 0;
}

/* A buffer is one piece, or, where its pages do not lie side by side on the host, one a page. */
static int add_buffer(struct virtq *q, struct virtq_chain *c, uint64_t gpa, uint32_t len, bool write)
{
	uint8_t *p = gmem_ptr(q->mem, gpa, len);

	if (p)
		return add_piece(q, c, gpa, len, p, write);
	while (len) {
		uint32_t k = GMEM_PAGE_SIZE - (uint32_t)(gpa & (GMEM_PAGE_SIZE - 1));
		k = k < len ? k : len;
		p = gmem_ptr(q->mem, gpa, k);
		int rc = p ? add_piece(q, c, gpa, k, p, write) : bad(q, "a buffer is not in RAM");
		if (rc)
			return rc;
		gpa += k;
		len -= k;
	}
	return 0;
}

static int add_desc(struct virtq *q, struct virtq_chain *c, const struct virtq_desc *d)
{
	bool write = d->flags & DESC_WRITE;

	if (!d->len)
		return bad(q, "a buffer of no bytes");
	if (!write && c->nin)
		return bad(q, "a readable buffer after a writable one");
	if (c->out_len + c->in_len + d->len > UINT32_MAX)
		return bad(q, "a chain of more than 4 GiB");
	return add_buffer(q, c, d->addr, d->len, write);
}

/* One copy of a descriptor: the guest may go on writing the original. */
static struct virtq_desc fetch(const struct virtq_desc *table, unsigned i)
{
	const volatile struct virtq_desc *d = &table[i];

	return (struct virtq_desc){d->addr, d->len, d->flags, d->next};
}

/* Follows the chain from @i in a table of @n descriptors; a loop runs into the limit of descriptors. */
static int walk(struct virtq *q, struct virtq_chain *c, const struct virtq_desc *table, unsigned n, unsigned i,
		bool indirect)
{
	for (unsigned left = n; left; left--) {
		if (i >= n)
			return bad(q, "a descriptor out of range");
		struct virtq_desc d = fetch(table, i);
		if (d.flags & DESC_INDIRECT) {
			if (indirect || !q->indirect || (d.flags & DESC_NEXT))
				return bad(q, "an indirect table where none may be");
			unsigned m = d.len / sizeof d;
			if (!m || d.len % sizeof d || m > CHAIN_MAX || (d.addr & 15))
				return bad(q, "size or place of an indirect table");
			const struct virtq_desc *t = gmem_ptr(q->mem, d.addr, d.len);
			return t ? walk(q, c, t, m, 0, true) : bad(q, "an indirect table is not in RAM");
		}
		int rc = add_desc(q, c, &d);
		if (rc || !(d.flags & DESC_NEXT))
			return rc;
		i = d.next;
	}
	return bad(q, "a chain with a loop");
}

static bool is_taken(const struct virtq *q, uint16_t head)
{
	return q->taken[head / 8] >> (head % 8) & 1;
}

int virtq_get(struct virtq *q, struct virtq_chain *c)
{
	uint16_t idx = atomic_load_explicit(&q->avail->idx, memory_order_acquire);
	uint16_t n = (uint16_t)(idx - q->next_avail);

	if (!n)
		return 0;
	if (n > q->size)
		return bad(q, "more chains available than the ring has places");
	uint16_t head = *(volatile uint16_t *)&q->avail->ring[q->next_avail & (q->size - 1)];
	if (head >= q->size)
		return bad(q, "a chain starts out of range");
	if (is_taken(q, head))
		return bad(q, "a chain that is in flight is made available again");
	c->head = head;
	c->nout = c->nin = 0;
	c->out_len = c->in_len = 0;
	int rc = walk(q, c, q->desc, q->size, head, false);
	if (rc)
		return rc;
	q->taken[head / 8] |= (uint8_t)(1u << head % 8);
	q->next_avail++;
	q->inflight++;
	return 1;
}

static void release(struct virtq *q, uint16_t head)
{
	q->taken[head / 8] &= (uint8_t) ~(1u << head % 8);
	q->inflight--;
}

void virtq_put(struct virtq *q, uint16_t head, uint32_t written)
{
	struct virtq_used_elem *e = &q->used->ring[q->next_used & (q->size - 1)];

	e->id = head;
	e->len = written;
	q->next_used++;
	release(q, head);
}

void virtq_unget(struct virtq *q, const struct virtq_chain *c)
{
	q->next_avail--;
	release(q, c->head);
}

/* Has index @event been passed between @old and @now?  virtio 1.2 2.7.7.1 */
static bool passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

bool virtq_publish(struct virtq *q)
{
	uint16_t old = q->published;

	if (old == q->next_used)
		return false;
	atomic_store_explicit(&q->used->idx, q->next_used, memory_order_release);
	q->published = q->next_used;
	atomic_thread_fence(memory_order_seq_cst); /* the index before a look at the driver's wish */
	if (q->event_idx)
		return passed(atomic_load_explicit(used_event(q), memory_order_relaxed), q->published, old);
	return !(atomic_load_explicit(&q->avail->flags, memory_order_relaxed) & AVAIL_NO_INTERRUPT);
}

void virtq_quiet(struct virtq *q)
{
	if (!q->event_idx) /* with event indices the old one simply stays behind */
		atomic_store_explicit(&q->used->flags, USED_NO_NOTIFY, memory_order_relaxed);
}

bool virtq_listen(struct virtq *q)
{
	if (q->event_idx)
		atomic_store_explicit(avail_event(q), q->next_avail, memory_order_relaxed);
	else
		atomic_store_explicit(&q->used->flags, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&q->avail->idx, memory_order_acquire) != q->next_avail;
}

/* ---- data ---- */

static size_t copy(const struct virtq_seg *s, unsigned n, size_t off, uint8_t *buf, size_t len, bool in)
{
	size_t done = 0;

	for (; n && done < len; s++, n--) {
		if (off >= s->len) {
			off -= s->len;
			continue;
		}
		size_t k = s->len - off < len - done ? s->len - off : len - done;
		memcpy(in ? s->ptr + off : buf + done, in ? buf + done : s->ptr + off, k);
		done += k;
		off = 0;
	}
	return done;
}

size_t virtq_read(const struct virtq_chain *c, size_t off, void *buf, size_t len)
{
	return copy(c->seg, c->nout, off, buf, len, false);
}

size_t virtq_write(const struct virtq_chain *c, size_t off, const void *buf, size_t len)
{
	return copy(c->seg + c->nout, c->nin, off, (uint8_t *)(uintptr_t)buf, len, true);
}
