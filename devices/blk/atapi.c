/*
 * What a CD drive does (MMC-3, SPC-2, as far as firmware, boot loaders and systems ask for it): one data track of the image's
 * size, always there, never written.  Invariant: an address is checked here before it becomes a place in the image.
 */
#include <string.h>

#include "devices/blk/hba.h"

#define BLOCK 2048u

enum { ILLEGAL_REQUEST = 5, INVALID_COMMAND = 0x20, OUT_OF_RANGE = 0x21, INVALID_FIELD = 0x24 };

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t be16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static uint32_t blocks(const struct hba *h)
{
	uint64_t n = h->b->size / BLOCK;

	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void check(struct hba *h, uint8_t key, uint8_t asc)
{
	h->key = key;
	h->asc = asc;
	hba_abort(h, (uint8_t)(key << 4 | ATA_ABORTED));
}

/* @n bytes of which the guest takes @most. */
static void reply(struct hba *h, const uint8_t *buf, size_t n, size_t most)
{
	n = n < most ? n : most;
	if (n)
		hba_reply(h, buf, n);
	else
		hba_ok(h);
}

static void read_blocks(struct hba *h, uint32_t lba, uint32_t n)
{
	if (lba > blocks(h) || n > blocks(h) - lba)
		check(h, ILLEGAL_REQUEST, OUT_OF_RANGE);
	else if (!n)
		hba_ok(h);
	else
		hba_transfer(h, BLK_READ, (uint64_t)lba * BLOCK, (uint64_t)n * BLOCK, false);
}

static void request_sense(struct hba *h)
{
	uint8_t s[18] = {0x70, 0, h->key, 0, 0, 0, 0, 10, 0, 0, 0, 0, h->asc};

	h->key = h->asc = 0;
	reply(h, s, sizeof s, h->cdb[4]);
}

static void inquiry(struct hba *h)
{
	uint8_t s[36] = {0x05, 0x80, 0x05, 0x21, 31};

	if (h->cdb[1] & 1) {
		check(h, ILLEGAL_REQUEST, INVALID_FIELD);
		return;
	}
	memcpy(s + 8, "HVX     CD-ROM          1.0 ", 28);
	reply(h, s, sizeof s, be16(h->cdb + 3));
}

static void read_capacity(struct hba *h)
{
	uint8_t s[8];

	put32(s, blocks(h) ? blocks(h) - 1 : 0);
	put32(s + 4, BLOCK);
	reply(h, s, sizeof s, sizeof s);
}

/* An address as the guest wants it: of minutes, seconds and frames (150 frames of lead-in), or of blocks. */
static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
	uint32_t f = lba + 150;

	if (!msf) {
		put32(p, lba);
		return;
	}
	p[0] = 0;
	p[1] = (uint8_t)(f / 75 / 60);
	p[2] = (uint8_t)(f / 75 % 60);
	p[3] = (uint8_t)(f % 75);
}

/* The one track and the lead-out; sessions: there is one. */
static void read_toc(struct hba *h)
{
	bool msf = h->cdb[1] & 2;
	unsigned format = h->cdb[2] & 0xf ? h->cdb[2] & 0xf : h->cdb[9] >> 6;
	uint8_t s[20] = {0, 18, 1, 1, 0, 0x14, 1, 0};

	if (format > 1 || (h->cdb[6] > 1 && h->cdb[6] != 0xaa)) {
		check(h, ILLEGAL_REQUEST, INVALID_FIELD);
		return;
	}
	put_address(s + 8, 0, msf);
	s[13] = 0x14;
	s[14] = 0xaa;
	put_address(s + 16, blocks(h), msf);
	if (format == 1) {
		s[1] = 10;
		reply(h, s, 12, be16(h->cdb + 7));
	} else {
		reply(h, s, sizeof s, be16(h->cdb + 7));
	}
}

/* A CD-ROM is in; the profiles that the drive has are the one. */
static void get_configuration(struct hba *h)
{
	uint8_t s[32] = {0, 0, 0,    28, 0, 0, 0, 8, 0, 0, 3, 4, 0, 8, 1,    0,
			 0, 1, 0x0b, 8,  0, 0, 0, 7, 1, 0, 0, 0, 0, 3, 0x03, 0};

	reply(h, s, sizeof s, be16(h->cdb + 7));
}

static void event_status(struct hba *h)
{
	uint8_t s[8] = {0, 6, 4, 0x10, 0, 2, 0, 0}; /* media: no change, present */

	if (!(h->cdb[1] & 1))
		check(h, ILLEGAL_REQUEST, INVALID_FIELD); /* asynchronous */
	else
		reply(h, s, h->cdb[4] & 0x10 ? 8 : 4, be16(h->cdb + 7));
}

/* Pages 1 (error recovery) and 2Ah (capabilities). */
static void mode_sense(struct hba *h)
{
	uint8_t s[28] = {0, 26, 1, 0, 0, 0, 0, 0, 0x2a, 18, 0, 0, 0, 0x71, 0x60, 0x29};

	if ((h->cdb[2] & 0x3f) == 1) {
		memset(s + 8, 0, 20);
		s[1] = 14;
		s[8] = 1;
		s[9] = 6;
		reply(h, s, 16, be16(h->cdb + 7));
	} else if ((h->cdb[2] & 0x3f) == 0x2a || (h->cdb[2] & 0x3f) == 0x3f) {
		reply(h, s, sizeof s, be16(h->cdb + 7));
	} else {
		check(h, ILLEGAL_REQUEST, INVALID_FIELD);
	}
}

static void disc_information(struct hba *h)
{
	uint8_t s[34] = {0, 32, 0x0e, 1, 1, 1, 1, 0x20};

	reply(h, s, sizeof s, be16(h->cdb + 7));
}

void atapi_command(struct hba *h)
{
	const uint8_t *c = h->cdb;

	if (c[0] != 0x03)
		h->key = h->asc = 0;
	switch (c[0]) {
	case 0x00: /* test unit ready */
	case 0x1b: /* start, stop */
	case 0x1e: /* prevent removal */
	case 0x2b: /* seek */
	case 0xbb: /* set speed */ hba_ok(h); break;
	case 0x03: request_sense(h); break;
	case 0x12: inquiry(h); break;
	case 0x25: read_capacity(h); break;
	case 0x28: read_blocks(h, be32(c + 2), be16(c + 7)); break;
	case 0xa8: read_blocks(h, be32(c + 2), be32(c + 6)); break;
	case 0x43: read_toc(h); break;
	case 0x46: get_configuration(h); break;
	case 0x4a: event_status(h); break;
	case 0x51: disc_information(h); break;
	case 0x5a: mode_sense(h); break;
	default: check(h, ILLEGAL_REQUEST, INVALID_COMMAND); break;
	}
}
