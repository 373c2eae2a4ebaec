/*
 * A port of a SATA host bus adapter on the device's side: command lists and tables (ahci.c), and what a disk (ata.c) or a CD
 * drive (atapi.c) does with a command.
 */
#ifndef HVX_BLK_HBA_H
#define HVX_BLK_HBA_H

#include "devices/blk/blk.h"

#define HBA_REPLY_MAX 2048u

/* ATA status and error */
enum {
	ATA_ERR = 0x01,
	ATA_DRQ = 0x08,
	ATA_READY = 0x50,
	ATA_ABORTED = 0x04,
	ATA_UNCORRECTABLE = 0x40,
	ATA_NOT_FOUND = 0x10
};

struct hba {
	struct blk *b;
	bool packet;
	uint64_t list, fis; /* guest-physical */
	uint32_t pending;   /* slots that were rung for */
	bool busy;          /* the command of @slot is under way, */
	bool done;          /* finished, and the guest has not been told */
	bool halted;        /* one failed: none is begun until the list is (AHCI 6.2.2) */
	bool srst;
	unsigned slot;
	/* the command */
	uint8_t cfis[64], cdb[16];
	uint64_t table;
	unsigned entries, entry, first; /* PRDT: how many, the next to be read, the one that data.seg[0] is */
	uint64_t window;                /* byte of the transfer that data begins with */
	bool in;                        /* data goes to the guest */
	struct virtq_chain data;
	/* its end */
	uint8_t status, error;
	uint32_t causes, moved;
	bool pio, silent; /* a PIO Setup FIS; no FIS at all */
	uint8_t key, asc; /* of ATAPI: what REQUEST SENSE tells */
};

/* How a command ends, or goes on; each exactly once a command. */
void hba_ok(struct hba *h);
void hba_abort(struct hba *h, uint8_t error);
/* @n bytes for the guest, as many as it has room for. */
void hba_reply(struct hba *h, const void *buf, size_t n);
/* @len bytes of the disk from @at on; the table must hold them all. */
void hba_transfer(struct hba *h, enum blk_op op, uint64_t at, uint64_t len, bool fua);

void ata_command(struct hba *h);   /* h->cfis */
void atapi_command(struct hba *h); /* h->cdb */
void ata_identify(const struct hba *h, uint16_t w[256]);

#endif
