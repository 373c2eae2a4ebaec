/*
 * virtio-balloon.
 *
 *   queues   0 inflate   1 deflate   2 statistics   3 and 4 free page reporting
 *
 * A chain of pages is worked off in requests to hvx-memsvc, one at a time: punch, answer, translations
 * of these pages dropped, next request.
 *
 * Invariant: the guest gets a chain back after hvx-memsvc has answered for all of it; and a reset ends
 * after the last answer, so that no page of the guest's next life is punched.
 */
#include "vcpu/local/balloon.h"

#include <errno.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "vcpu/chipset/platform.h"

#define DEVICE_ID  5
#define QUEUE_SIZE 128

#define F_STATS_VQ       1
#define F_DEFLATE_ON_OOM 2
#define F_REPORTING      5

enum { Q_INFLATE, Q_DEFLATE, Q_STATS, QUEUES = 5 };
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_LEN = 8 }; /* virtio 1.2 5.5.4 */

#define PFNS       256 /* what Linux puts in a chain */
#define STAT_BYTES 10  /* tag, value */

/* ---- hvx-memsvc ---- */

/* The request's guest pages as pages of RAM; a range lies on one side of the hole below 4 GiB. */
static void send_request(struct balloon *b)
{
	static struct msg_mem_change m; /* large; there is one loop */

	m = b->req;
	for (uint32_t i = 0; i < m.nranges; i++)
		m.range[i].first = (uint64_t)gmem_frame(b->dev.all->vm->mem, b->req.range[i].first << GMEM_PAGE_SHIFT);
	m.id = b->req.id = ++b->last_id;
	m.op = b->req.op = b->op;
	b->waiting = true;
	memlink_change(b->mem, &m);
}

static void on_changed(void *ctx, uint32_t id)
{
	struct balloon *b = ctx;

	if (!b->waiting)
		fatal(HVX_EXIT_FAIL, "memsvc answers what it was not asked");
	if (id != b->last_id)
		return; /* a reset came after it */
	b->waiting = false;
	if (b->dev.v.resetting) {
		virtio_dev_reset_done(&b->dev.v);
		return;
	}
	b->answered = true;
	local_again(&b->dev);
}

static void on_closed(void *ctx)
{
	struct balloon *b = ctx;

	b->waiting = false;
	virtio_dev_reset_done(&b->dev.v);
}

/* ---- what is asked for ---- */

/* One more page, joined to the last range where it follows or precedes it. */
static void add_page(struct msg_mem_change *m, uint64_t pfn)
{
	uint32_t n = m->nranges;

	if (n && m->range[n - 1].first + m->range[n - 1].count == pfn) {
		m->range[n - 1].count++;
	} else if (n && m->range[n - 1].first == pfn + 1) {
		m->range[n - 1].first--;
		m->range[n - 1].count++;
	} else {
		m->range[n].first = pfn;
		m->range[n].count = 1;
		m->nranges++;
	}
}

/* Inflate and deflate: a list of 32-bit page numbers, some at a time. */
static void fill_pages(struct balloon *b)
{
	uint32_t pfn[PFNS];
	size_t n = virtq_read(&b->chain, b->at, pfn, sizeof pfn) / sizeof pfn[0];

	for (size_t i = 0; i < n; i++) {
		if (gmem_frame(b->dev.all->vm->mem, (uint64_t)pfn[i] << GMEM_PAGE_SHIFT) < 0) {
			virtio_dev_broken(&b->dev.v, "a page that is no RAM");
			return;
		}
		add_page(&b->req, pfn[i]);
	}
	b->at += n * sizeof pfn[0];
}

/* Reports: the buffers themselves are the pages (virtio 1.2 5.5.6.8). */
static void fill_report(struct balloon *b)
{
	for (; b->at < b->chain.nin && b->req.nranges < MSG_RANGES_MAX; b->at++) {
		const struct virtq_seg *s = &b->chain.seg[b->chain.nout + b->at];
		uint64_t first = (s->gpa + GMEM_PAGE_SIZE - 1) >> GMEM_PAGE_SHIFT;
		uint64_t end = (s->gpa + s->len) >> GMEM_PAGE_SHIFT;
		if (first >= end)
			continue;
		b->req.range[b->req.nranges].first = first;
		b->req.range[b->req.nranges++].count = end - first;
	}
}

static uint64_t *counter(struct balloon *b)
{
	switch (b->op) {
	case MEM_OP_BALLOON: return &b->inflated;
	case MEM_OP_REPORT: return &b->reported;
	default: return &b->deflated;
	}
}

/* The next piece of the chain; false when there is none left. */
static bool fill(struct balloon *b)
{
	b->req.nranges = 0;
	if (b->op == MEM_OP_REPORT)
		fill_report(b);
	else
		fill_pages(b);
	for (uint32_t i = 0; i < b->req.nranges; i++)
		*counter(b) += b->req.range[i].count;
	return b->req.nranges > 0 && !b->dev.v.broken;
}

/* ---- statistics (virtio 1.2 5.5.6.3) ---- */

static void read_stats(struct balloon *b, const struct virtq_chain *c)
{
	uint8_t s[STAT_BYTES];
	uint16_t tag;

	/* of a list with a tag twice the last counts; more entries than tags are none of ours */
	for (size_t at = 0; at < 4 * BALLOON_NSTATS * STAT_BYTES; at += STAT_BYTES) {
		if (virtq_read(c, at, s, sizeof s) < sizeof s)
			return;
		memcpy(&tag, s, sizeof tag);
		if (tag >= BALLOON_NSTATS)
			continue;
		memcpy(&b->stats[tag], s + sizeof tag, sizeof b->stats[tag]);
		b->stats_known |= 1u << tag;
	}
}

static void serve_stats(struct balloon *b)
{
	struct local *d = &b->dev;

	if (b->want_stats && b->has_stats) {
		virtio_dev_put(&d->v, Q_STATS, b->stats_head, 0);
		b->has_stats = false;
	}
	if (b->has_stats || !(d->v.features >> F_STATS_VQ & 1) || !local_get(d, Q_STATS))
		return;
	read_stats(b, &d->all->chain);
	b->stats_head = d->all->chain.head;
	b->has_stats = true;
	if (!b->want_stats)
		return;
	b->want_stats = false;
	locals_fresh(d->all);
}

_Static_assert(PFNS <= MSG_RANGES_MAX && MSG_RANGES_MAX < LOCAL_RANGES,
	       "a piece fits in a request, an answer in the list");

static bool refresh(struct local *d)
{
	struct balloon *b = d->priv;

	if (!d->v.active || d->v.broken || !(d->v.features >> F_STATS_VQ & 1))
		return false;
	b->want_stats = true;
	local_again(d);
	return b->want_stats;
}

/* ---- the rings ---- */

/* Without a queue of hints, which is not offered, Linux counts the queue of reports down to 3, and to 2 without that of
 * statistics; the standard says 4. */
static bool is_report(const struct local *d, unsigned queue)
{
	return queue > Q_DEFLATE && d->v.features >> F_REPORTING & 1 &&
	       !(queue == Q_STATS && d->v.features >> F_STATS_VQ & 1);
}

static bool take(struct balloon *b, unsigned queue, enum msg_mem_op op)
{
	if (!local_get(&b->dev, queue))
		return false;
	b->chain = b->dev.all->chain;
	b->queue = queue;
	b->op = op;
	b->at = 0;
	b->current = true;
	return true;
}

static bool next_chain(struct balloon *b)
{
	if (take(b, Q_INFLATE, MEM_OP_BALLOON) || take(b, Q_DEFLATE, MEM_OP_RETURN))
		return true;
	for (unsigned q = Q_STATS; q < QUEUES; q++)
		if (is_report(&b->dev, q) && take(b, q, MEM_OP_REPORT))
			return true;
	return false;
}

/* Punched pages read as zero: what was translated from them is out of date. */
static void note_punched(struct balloon *b)
{
	b->answered = false;
	if (b->req.op == MEM_OP_RETURN)
		return;
	for (uint32_t i = 0; i < b->req.nranges; i++)
		virtio_dev_wrote_range(&b->dev.v, b->req.range[i].first << GMEM_PAGE_SHIFT,
				       b->req.range[i].count << GMEM_PAGE_SHIFT);
}

static void work(struct local *d)
{
	struct balloon *b = d->priv;

	d->rung = 0;
	serve_stats(b);
	if (b->waiting || !b->mem->conn)
		return;
	if (b->answered)
		note_punched(b);
	while (!d->v.broken && local_room(d, MSG_RANGES_MAX) && (b->current || next_chain(b))) {
		if (fill(b)) {
			send_request(b);
			return;
		}
		b->current = false;
		if (!d->v.broken)
			virtio_dev_put(&d->v, b->queue, b->chain.head, 0);
	}
}

static void reset(struct local *d)
{
	static const uint32_t none;
	struct balloon *b = d->priv;

	b->current = b->answered = b->has_stats = b->want_stats = false;
	b->stats_known = 0;
	local_config(d, CONFIG_ACTUAL, &none, sizeof none);
	if (!b->mem->conn) {
		virtio_dev_reset_done(&d->v);
		return;
	}
	b->req.nranges = 0;
	b->op = MEM_OP_RETURN_ALL;
	send_request(b);
}

static uint32_t config_u32(struct local *d, unsigned off)
{
	uint32_t v;

	platform_lock(d->all->vm->plat);
	memcpy(&v, d->vp.offer.config + off, sizeof v);
	platform_unlock(d->all->vm->plat);
	return v;
}

void balloon_target(struct balloon *b, uint64_t bytes)
{
	uint64_t ram = b->dev.all->vm->mem->size;
	uint32_t pages = bytes < ram ? (uint32_t)((ram - bytes) / GMEM_PAGE_SIZE) : 0;

	local_config(&b->dev, CONFIG_TARGET, &pages, sizeof pages);
}

static void stats(struct local *d, struct msg_counters *m)
{
	const struct balloon *b = d->priv;
	uint64_t ram = d->all->vm->mem->size;

	local_count(m, d->id, "target_bytes", ram - (uint64_t)config_u32(d, CONFIG_TARGET) * GMEM_PAGE_SIZE);
	uint64_t given = (uint64_t)config_u32(d, CONFIG_ACTUAL) * GMEM_PAGE_SIZE; /* as the guest says */
	local_count(m, d->id, "actual_bytes", given < ram ? ram - given : 0);
	local_count(m, d->id, "pages_inflated", b->inflated);
	local_count(m, d->id, "pages_deflated", b->deflated);
	local_count(m, d->id, "pages_reported", b->reported);
#define X(tag, name)                   \
	if (b->stats_known >> tag & 1) \
		local_count(m, d->id, "guest_" #name, b->stats[tag]);
	BALLOON_STATS(X)
#undef X
}

static const struct local_ops ops = {work, reset, stats, refresh};

int balloon_create(struct balloon *b, struct locals *l, unsigned slot, struct memlink *mem)
{
	b->dev.id = "balloon";
	b->dev.ops = &ops;
	b->dev.priv = b;
	b->dev.vp.offer = (struct msg_virtio_offer){
		.device_id = DEVICE_ID,
		.features = VIRTQ_FEATURES | 1 << F_STATS_VQ | 1 << F_DEFLATE_ON_OOM | 1ull << F_REPORTING,
		.nqueues = QUEUES,
		.queue_max = {QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE},
		.config_len = CONFIG_LEN,
	};
	b->mem = mem;
	mem->changed = on_changed;
	mem->closed = on_closed;
	mem->ctx = b;
	return locals_add(l, &b->dev, slot);
}
