/*
 * What an ATA disk does (ATA/ATAPI-8 ACS): reads and writes by cylinder, LBA of 28 and of 48 bits, by PIO and DMA alike; flushes;
 * IDENTIFY.  Invariant: an address is checked here before it becomes a place on the disk; what is not known is aborted.
 */
#include <stdio.h>
#include <string.h>

#include "devices/blk/hba.h"

#define HEADS     16u
#define PER_TRACK 63u
#define MULTIPLE  16u

/* How a command finds its sectors. */
enum width { W28, W48 };

static uint32_t sector(const struct hba *h)
{
	return h->b->base->block;
}

static uint64_t sectors(const struct hba *h)
{
	return h->b->size / sector(h);
}

static uint64_t cylinders(const struct hba *h)
{
	uint64_t n = sectors(h) / (HEADS * PER_TRACK);

	return n > 16383 ? 16383 : n;
}

/* ---- IDENTIFY ---- */

/* Two characters a word, the first one high, padded with spaces. */
static void text(uint16_t *w, unsigned words, const char *s)
{
	for (unsigned i = 0; i < words; i++) {
		uint8_t a = *s ? (uint8_t)*s++ : ' ', b = *s ? (uint8_t)*s++ : ' ';
		w[i] = (uint16_t)(a << 8 | b);
	}
}

static void both(uint16_t w[256], const struct hba *h)
{
	const char *serial = h->b->dev.cfg.blk.serial;

	text(w + 10, 10, serial[0] ? serial : h->b->dev.cfg.id);
	text(w + 23, 4, "1.0");
	text(w + 27, 20, h->packet ? "HVX CD-ROM" : "HVX DISK");
	w[49] = 1 << 9 | 1 << 8; /* LBA, DMA */
	w[53] = 1 << 2 | 1 << 1;
	w[63] = 7; /* multiword DMA 0 to 2 */
	w[64] = 3; /* PIO 3 and 4 */
	for (int i = 65; i <= 68; i++)
		w[i] = 120;
	w[76] = 1 << 3 | 1 << 2 | 1 << 1; /* SATA, three generations; no NCQ */
	w[80] = 0x1f0;                    /* ATA-4 to ATA-8 */
	w[88] = 0x3f | 1 << 13;           /* UDMA 0 to 5, the last chosen */
}

static void disk(uint16_t w[256], const struct hba *h)
{
	uint64_t n = sectors(h), n28 = n > 0xfffffff ? 0xfffffff : n;

	w[0] = 0x40;
	w[1] = w[54] = (uint16_t)cylinders(h);
	w[3] = w[55] = HEADS;
	w[6] = w[56] = PER_TRACK;
	w[47] = 0x8000 | MULTIPLE;
	w[53] |= 1;
	uint32_t chs = (uint32_t)cylinders(h) * HEADS * PER_TRACK;
	w[57] = (uint16_t)chs;
	w[58] = (uint16_t)(chs >> 16);
	w[59] = 0x100 | MULTIPLE;
	w[60] = (uint16_t)n28;
	w[61] = (uint16_t)(n28 >> 16);
	w[82] = w[85] = 1 << 5;                                /* write cache */
	w[83] = w[86] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10; /* FLUSH CACHE (EXT), LBA48 */
	w[84] = w[87] = 1 << 14 | 1 << 6;                      /* WRITE FUA EXT */
	w[86] = (uint16_t)(w[86] & ~(1 << 14));
	if (!h->b->writeback)
		w[85] = 0;
	for (int i = 0; i < 4; i++)
		w[100 + i] = (uint16_t)(n >> 16 * i);
	w[106] = 1 << 14;
	if (sector(h) == 512) {
		w[106] |= 1 << 13 | 3; /* eight in a physical one */
	} else {
		w[106] |= 1 << 12;
		w[117] = (uint16_t)(sector(h) / 2);
	}
	w[217] = 1; /* does not rotate */
}

void ata_identify(const struct hba *h, uint16_t w[256])
{
	memset(w, 0, 512);
	both(w, h);
	if (h->packet)
		w[0] = 0x8580; /* CD drive, removable, packets of 12 bytes */
	else
		disk(w, h);
	w[255] = 0xa5;
	uint8_t sum = 0;
	for (int i = 0; i < 255; i++)
		sum = (uint8_t)(sum + w[i] + (w[i] >> 8));
	w[255] |= (uint16_t)((uint8_t)(0 - sum - 0xa5) << 8);
}

/* ---- addresses ---- */

/* Byte and length on the disk; false: there are no such sectors. */
static bool place(const struct hba *h, enum width w, uint64_t *at, uint64_t *len)
{
	const uint8_t *f = h->cfis;
	uint64_t lba = f[4] | (uint32_t)f[5] << 8 | (uint32_t)f[6] << 16, n = f[12];

	if (w == W48) {
		lba |= (uint64_t)f[8] << 24 | (uint64_t)f[9] << 32 | (uint64_t)f[10] << 40;
		n |= (uint64_t)f[13] << 8;
		n = n ? n : 65536;
	} else {
		n = n ? n : 256;
		if (f[7] & 0x40)
			lba |= (uint64_t)(f[7] & 0xf) << 24;
		else if (f[4] && f[4] <= PER_TRACK)
			lba = ((f[5] | (uint64_t)f[6] << 8) * HEADS + (f[7] & 0xf)) * PER_TRACK + f[4] - 1;
		else
			return false;
	}
	if (lba >= sectors(h) || n > sectors(h) - lba)
		return false;
	*at = lba * sector(h);
	*len = n * sector(h);
	return true;
}

static void move(struct hba *h, enum blk_op op, enum width w, bool fua)
{
	uint64_t at, len;

	if (op == BLK_WRITE && h->b->readonly)
		hba_abort(h, ATA_ABORTED);
	else if (!place(h, w, &at, &len))
		hba_abort(h, ATA_NOT_FOUND);
	else
		hba_transfer(h, op, at, len, fua);
}

static void verify(struct hba *h, enum width w)
{
	uint64_t at, len;

	if (place(h, w, &at, &len))
		hba_ok(h);
	else
		hba_abort(h, ATA_NOT_FOUND);
}

/* ---- commands ---- */

static void set_features(struct hba *h)
{
	switch (h->cfis[3]) {
	case 0x02: h->b->writeback = true; break;
	case 0x82: h->b->writeback = false; break;
	case 0x03: /* transfer mode */
	case 0x55: /* look-ahead off */
	case 0xaa: /* and on */ break;
	default: hba_abort(h, ATA_ABORTED); return;
	}
	hba_ok(h);
}

static void identify(struct hba *h)
{
	uint16_t w[256];

	ata_identify(h, w);
	hba_reply(h, w, sizeof w);
}

/* What a CD drive has of these. */
static void packet_device(struct hba *h)
{
	switch (h->cfis[2]) {
	case 0x00: /* NOP is always aborted */ hba_abort(h, ATA_ABORTED); break;
	case 0x08: hba_ok(h); break;
	case 0x90:
		hba_ok(h);
		h->error = 1;
		break;
	case 0xa1: identify(h); break;
	case 0xe0:
	case 0xe1:
	case 0xe2:
	case 0xe3: hba_ok(h); break;
	case 0xef: set_features(h); break;
	default: hba_abort(h, ATA_ABORTED); break;
	}
}

void ata_command(struct hba *h)
{
	if (h->packet) {
		packet_device(h);
		return;
	}
	switch (h->cfis[2]) {
	case 0x10: /* recalibrate */
	case 0x70: /* seek */
	case 0x91: /* initialize device parameters */
	case 0xe0:
	case 0xe1:
	case 0xe2:
	case 0xe3:
	case 0xe6: hba_ok(h); break; /* standby, idle, sleep */
	case 0xe5:
		h->cfis[12] = 0xff; /* active */
		hba_ok(h);
		break;
	case 0x90:
		hba_ok(h);
		h->error = 1;
		break;
	case 0x20:
	case 0x21:
	case 0xc4:
	case 0xc8:
	case 0xc9: move(h, BLK_READ, W28, false); break;
	case 0x24:
	case 0x25:
	case 0x29: move(h, BLK_READ, W48, false); break;
	case 0x30:
	case 0x31:
	case 0xc5:
	case 0xca:
	case 0xcb: move(h, BLK_WRITE, W28, false); break;
	case 0x34:
	case 0x35:
	case 0x39: move(h, BLK_WRITE, W48, false); break;
	case 0x3d:
	case 0xce: move(h, BLK_WRITE, W48, true); break;
	case 0x40:
	case 0x41: verify(h, W28); break;
	case 0x42: verify(h, W48); break;
	case 0xc6: /* set multiple */
		if (h->cfis[12] && h->cfis[12] <= MULTIPLE && !(h->cfis[12] & (h->cfis[12] - 1)))
			hba_ok(h);
		else
			hba_abort(h, ATA_ABORTED);
		break;
	case 0xe7:
	case 0xea: hba_transfer(h, BLK_FLUSH, 0, 0, false); break;
	case 0xec: identify(h); break;
	case 0xef: set_features(h); break;
	default: hba_abort(h, ATA_ABORTED); break;
	}
}
