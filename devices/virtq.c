/*
 * Split virtqueues (virtio 1.2 2.7): the only descriptor walker.
 *
 *   avail.ring[next_avail] -> head -> desc[head] -> desc[next] ...      (or one indirect table)
 *   used.ring[next_used] = {head, written};  used.idx follows at virtq_publish()
 *
 * Invariant: guest memory is read once, into locals, and every value is checked before it is
 * used; chains hold guest-physical addresses of RAM, and the pointers to the rings last to virtq_forget().
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

/* Pointers to the rings; false: the p2m has none, and q->used is NULL.  All are asked for as if they were written here: the
 * driver writes while we read, so they must not be where merged pages are; nor is the like to be had piece by piece. */
static bool find_rings(struct virtq *q)
{
	q->desc = gmem_ptr(q->mem, q->desc_gpa, 16ul * q->size, GMEM_READ | GMEM_WRITE);
	q->avail = gmem_ptr(q->mem, q->avail_gpa, 6 + 2ul * q->size, GMEM_READ | GMEM_WRITE);
	q->used = gmem_ptr(q->mem, q->used_gpa, 6 + 8ul * q->size, GMEM_READ | GMEM_WRITE);
	if (q->desc && q->avail && q->used)
		return true;
	virtq_forget(q);
	return !bad(q, "a ring is not in RAM");
}

static inline bool rings(struct virtq *q)
{
	return q->used || find_rings(q);
}

void virtq_forget(struct virtq *q)
{
	q->desc = NULL;
	q->avail = NULL;
	q->used = NULL;
}

int virtq_setup(struct virtq *q, const struct gmem *mem, const struct msg_virtio_queue *m, uint64_t features)
{
	*q = (struct virtq){.mem = mem, .index = m->index, .size = m->size};
	if (!m->size || m->size > MSG_QUEUE_SIZE_MAX || (m->size & (m->size - 1)))
		return bad(q, "queue size");
	if ((m->desc & 15) || (m->driver & 1) || (m->device & 3))
		return bad(q, "a ring is not aligned");
	q->desc_gpa = m->desc;
	q->avail_gpa = m->driver;
	q->used_gpa = m->device;
	if (!rings(q))
		return -EPROTO;
	q->event_idx = features >> VIRTIO_F_RING_EVENT_IDX & 1;
	q->indirect = features >> VIRTIO_F_RING_INDIRECT_DESC & 1;
	q->enabled = true;
	return 0;
}

/* ---- a chain ---- */

static int add_desc(struct virtq *q, struct virtq_chain *c, const struct virtq_desc *d)
{
	bool write = d->flags & DESC_WRITE;

	if (!d->len)
		return bad(q, "a buffer of no bytes");
	if (!write && c->nin)
		return bad(q, "a readable buffer after a writable one");
	if (c->out_len + c->in_len + d->len > UINT32_MAX)
		return bad(q, "a chain of more than 4 GiB");
	if (!gmem_is_ram(q->mem, d->addr, d->len))
		return bad(q, "a buffer is not in RAM");
	if (c->nout + c->nin == VIRTQ_SEGS_MAX)
		return bad(q, "too many buffers in a chain");
	c->seg[c->nout + c->nin] = (struct virtq_seg){d->addr, d->len};
	if (write) {
		c->nin++;
		c->in_len += d->len;
	} else {
		c->nout++;
		c->out_len += d->len;
	}
	return 0;
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
			const struct virtq_desc *t = gmem_ptr(q->mem, d.addr, d.len, GMEM_READ | GMEM_WRITE);
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
	if (!rings(q))
		return -EPROTO;
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
	c->mem = q->mem;
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
	if (rings(q)) {
		struct virtq_used_elem *e = &q->used->ring[q->next_used & (q->size - 1)];
		e->id = head;
		e->len = written;
	}
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

	if (old == q->next_used || !rings(q))
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
	if (!q->event_idx && rings(q)) /* with event indices the old one simply stays behind */
		atomic_store_explicit(&q->used->flags, USED_NO_NOTIFY, memory_order_relaxed);
}

bool virtq_listen(struct virtq *q)
{
	if (!rings(q))
		return false;
	if (q->event_idx)
		atomic_store_explicit(avail_event(q), q->next_avail, memory_order_relaxed);
	else
		atomic_store_explicit(&q->used->flags, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&q->avail->idx, memory_order_acquire) != q->next_avail;
}

/* ---- data ---- */

unsigned virtq_iov(const struct virtq_chain *c, bool in, uint64_t off, uint64_t *len, struct iovec *iov, unsigned max)
{
	const struct virtq_seg *s = in ? c->seg + c->nout : c->seg, *end = s + (in ? c->nin : c->nout);
	uint64_t left = *len;
	unsigned n = 0;

	for (; s < end && off >= s->len; s++)
		off -= s->len;
	while (s < end && left && n < max) {
		size_t k = s->len - off < left ? s->len - off : left;
		void *p = gmem_run(c->mem, s->gpa + off, &k, in ? GMEM_WRITE : GMEM_READ);
		if (!p)
			break;
		iov[n++] = (struct iovec){p, k};
		left -= k;
		off += k;
		if (off == s->len) {
			s++;
			off = 0;
		}
	}
	*len -= left;
	return n;
}

static size_t copy(const struct virtq_chain *c, bool in, size_t off, uint8_t *buf, size_t len)
{
	struct iovec v[16];
	size_t done = 0;

	while (done < len) {
		uint64_t k = len - done;
		unsigned n = virtq_iov(c, in, off + done, &k, v, 16);
		if (!n)
			break;
		for (unsigned i = 0; i < n; i++) {
			memcpy(in ? v[i].iov_base : buf + done, in ? buf + done : v[i].iov_base, v[i].iov_len);
			done += v[i].iov_len;
		}
	}
	return done;
}

size_t virtq_read(const struct virtq_chain *c, size_t off, void *buf, size_t len)
{
	return copy(c, false, off, buf, len);
}

size_t virtq_write(const struct virtq_chain *c, size_t off, const void *buf, size_t len)
{
	return copy(c, true, off, (uint8_t *)(uintptr_t)buf, len);
}
