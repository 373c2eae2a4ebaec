/*
 * hvx-blk: one disk of a VM.  Invariant: it has the descriptors of one image, a channel to the vcpu and the doorbells;
 * no chain is looked at before the final seal.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "devices/blk/blk.h"
#include "devices/blk/seal.h"

#define DEVICE_ID   2
#define PAGE        4096u
#define RANGE_MAX   (1u << 22) /* sectors of a discard or of zeroes in one request */
#define AT_WCE      32         /* in the configuration space */
#define F(bit)      (1ull << (bit))

/* virtio 1.2 5.2.3 */
enum { F_SEG_MAX = 2, F_RO = 5, F_BLK_SIZE = 6, F_FLUSH = 9, F_TOPOLOGY = 10, F_CONFIG_WCE = 11, F_DISCARD = 13, F_WRITE_ZEROES = 14 };

struct config { /* virtio 1.2 5.2.4 */
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment, max_zeroes_sectors, max_zeroes_seg;
	uint8_t zeroes_may_unmap, unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct config) == 60 && offsetof(struct config, writeback) == AT_WCE, "virtio 1.2 5.2.4");

static struct blk *blk_of(struct device *d)
{
	return (struct blk *)(void *)d; /* its first member */
}

/* ---- stores ---- */

static void open_files(struct blk *b, const int *fds, struct blk_store **stores, unsigned n)
{
	int rc = blk_uring_open(b, fds, n, stores);

	if (rc) {
		log_info("no io_uring here (%s): threads", strerror(-rc));
		rc = blk_threads_open(b, fds, n, stores);
	}
	if (rc)
		child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot make the threads: %s", strerror(-rc));
}

static void look(struct blk *b, struct blk_store *s, int fd, bool readonly)
{
	int rc = blk_file_look(s, fd, readonly);

	if (rc)
		child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot use the image: %s", strerror(-rc));
}

static void open_base(struct blk *b)
{
	const struct msg_blk_config *c = &b->dev.cfg.blk;
	int fds[] = {b->dev.fd[DEV_FD_BACKEND], b->dev.fd[DEV_FD_OVERLAY]};
	struct blk_store *stores[2];
	const char *why;

	if (c->nbd) {
		if (blk_nbd_open(b, fds[0], &b->base, &why))
			child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot use the NBD server: %s", why);
		if (c->snapshot)
			open_files(b, fds + 1, &b->top, 1);
		return;
	}
	open_files(b, fds, stores, c->snapshot ? 2 : 1);
	b->base = stores[0];
	b->top = c->snapshot ? stores[1] : NULL;
	look(b, b->base, fds[0], c->readonly || c->snapshot);
}

static void open_stores(struct blk *b)
{
	int overlay = b->dev.fd[DEV_FD_OVERLAY];

	open_base(b);
	b->size = b->base->size / b->base->block * b->base->block;
	if (b->size != b->base->size)
		log_warn("the last %u bytes of the image are no whole block: the guest does not see them",
			 (unsigned)(b->base->size - b->size));
	if (!b->top)
		return;
	if (ftruncate(overlay, (off_t)b->size) < 0)
		child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot make the snapshot's file that large: %s", strerror(errno));
	look(b, b->top, overlay, false);
	if (blk_overlay_init(b))
		child_fail(&b->dev.child, HVX_EXIT_HOST, "no memory for the snapshot's map");
}

/* ---- what the guest is told ---- */

static void offer(struct blk *b)
{
	struct msg_virtio_offer *o = &b->dev.offer;
	struct config c = {
		.capacity = b->size / BLK_SECTOR,
		.seg_max = BLK_QUEUE - 2, /* header and status */
		.blk_size = b->base->block,
		.min_io_size = (uint16_t)(PAGE / b->base->block),
		.writeback = b->dev.cfg.blk.writeback,
		.max_discard_sectors = RANGE_MAX,
		.max_discard_seg = 1,
		.discard_sector_alignment = PAGE / BLK_SECTOR,
		.max_zeroes_sectors = RANGE_MAX,
		.max_zeroes_seg = 1,
		.zeroes_may_unmap = 1,
	};

	while (b->base->block << c.physical_block_exp < PAGE)
		c.physical_block_exp++;
	o->device_id = DEVICE_ID;
	o->features = F(VIRTIO_F_VERSION_1) | VIRTQ_FEATURES | F(F_SEG_MAX) | F(F_BLK_SIZE) | F(F_FLUSH) | F(F_TOPOLOGY) | F(F_CONFIG_WCE);
	if (b->readonly)
		o->features |= F(F_RO);
	else
		o->features |= F(F_WRITE_ZEROES) | ((b->top ? b->top : b->base)->discard ? F(F_DISCARD) : 0);
	o->nqueues = 1;
	o->queue_max[0] = BLK_QUEUE;
	o->config_len = sizeof c;
	memcpy(o->config, &c, sizeof c);
}

/* Without flushes there is nothing but write-through; with them the driver chooses (virtio 1.2 5.2.5, 5.2.6.2). */
static void set_cache(struct blk *b)
{
	b->writeback = (b->dev.features >> F_FLUSH & 1) && b->dev.offer.config[AT_WCE];
}

static void on_activate(struct device *d)
{
	set_cache(blk_of(d));
}

static void on_config_write(struct device *d, uint32_t off, const uint8_t *data, uint32_t len)
{
	if (off > AT_WCE || off + len <= AT_WCE || !(d->features >> F_CONFIG_WCE & 1))
		return;
	d->offer.config[AT_WCE] = data[AT_WCE - off] & 1;
	set_cache(blk_of(d));
}

static void on_command(struct device *d, enum msg_dev_op op)
{
	if (op != DEV_OP_RETRY)
		fatal(HVX_EXIT_FAIL, "a command that is none for disks");
	blk_retry(blk_of(d));
}

static void on_limits(struct device *d)
{
	blk_limits_changed(blk_of(d));
}

static void on_stats(struct device *d, struct msg_counters *m)
{
	const struct blk *b = blk_of(d);

#define X(field) device_count(m, #field, b->n.field);
	X(reads)
	X(writes)
	X(flushes)
	X(discards)
	X(zeroes)
	X(read_bytes)
	X(written_bytes)
	X(errors)
	X(refused)
	X(depth)
#undef X
	device_count(m, "inflight", b->inflight);
	device_count(m, "throttled", d->limit[0].throttled);
	device_count(m, "io_uring", !strcmp((b->top ? b->top : b->base)->ops->name, "io_uring"));
}

static const struct device_ops ops = {
	.work = blk_work,
	.activate = on_activate,
	.reset = blk_reset,
	.config_write = on_config_write,
	.command = on_command,
	.limits = on_limits,
	.stats = on_stats,
};

int main(int argc, char **argv)
{
	static struct blk b = {
		.dev = {.child = {.program = "hvx-blk", .role = ROLE_BLK, .table = &blk_seal}, .ops = &ops}};

	device_start(&b.dev, argc, argv);
	b.readonly = b.dev.cfg.blk.readonly;
	open_stores(&b);
	if (blk_requests_init(&b))
		child_fail(&b.dev.child, HVX_EXIT_HOST, "no memory for the timer");
	offer(&b);
	return device_run(&b.dev);
}
