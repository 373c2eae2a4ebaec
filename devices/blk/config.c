/*
 * What the guest is told of a disk, and the one field of it that the driver may write.  Invariant: what the
 * configuration space says about the cache is what request.c does.
 */
#include <stddef.h>
#include <string.h>

#include "devices/blk/blk.h"

#define DEVICE_ID 2
#define PAGE      4096u
#define RANGE_MAX (1u << 22) /* sectors of a discard or of zeroes in one request */
#define AT_WCE    32         /* in the configuration space */
#define F(bit)    (1ull << (bit))

/* virtio 1.2 5.2.3 */
enum {
	F_SEG_MAX = 2,
	F_RO = 5,
	F_BLK_SIZE = 6,
	F_FLUSH = 9,
	F_TOPOLOGY = 10,
	F_CONFIG_WCE = 11,
	F_MQ = 12,
	F_DISCARD = 13,
	F_WRITE_ZEROES = 14
};

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

void blk_offer(struct blk *b)
{
	struct msg_virtio_offer *o = &b->dev.offer;
	struct config c = {
		.capacity = b->size / BLK_SECTOR,
		.seg_max = BLK_QUEUE - 2, /* header and status */
		.blk_size = b->base->block,
		.min_io_size = (uint16_t)(PAGE / b->base->block),
		.writeback = b->dev.cfg.blk.writeback,
		.num_queues = (uint16_t)b->dev.cfg.blk.queues,
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
	o->features = F(VIRTIO_F_VERSION_1) | VIRTQ_FEATURES | F(F_SEG_MAX) | F(F_BLK_SIZE) | F(F_FLUSH) |
		      F(F_TOPOLOGY) | F(F_CONFIG_WCE);
	if (b->readonly)
		o->features |= F(F_RO);
	else
		o->features |= F(F_WRITE_ZEROES) | ((b->top ? b->top : b->base)->discard ? F(F_DISCARD) : 0);
	o->nqueues = b->dev.cfg.blk.queues;
	if (o->nqueues > 1)
		o->features |= F(F_MQ); /* a driver without it uses the first */
	for (unsigned i = 0; i < o->nqueues; i++)
		o->queue_max[i] = BLK_QUEUE;
	o->config_len = sizeof c;
	memcpy(o->config, &c, sizeof c);
}

/* Without flushes there is nothing but write-through; with them the driver chooses (virtio 1.2 5.2.5, 5.2.6.2). */
static void set_cache(struct blk *b)
{
	b->writeback = (b->dev.v.features >> F_FLUSH & 1) && b->dev.offer.config[AT_WCE];
}

void blk_activate(struct device *d)
{
	set_cache((struct blk *)(void *)d);
}

void blk_config_write(struct device *d, uint32_t off, const uint8_t *data, uint32_t len)
{
	if (off > AT_WCE || off + len <= AT_WCE)
		return;
	d->offer.config[AT_WCE] = data[AT_WCE - off] & 1;
	set_cache((struct blk *)(void *)d);
}
