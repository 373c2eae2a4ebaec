/*
 * What the machine tells its firmware: numbered items and named files, read by ports or copied by a request in memory
 * (QEMU's docs/specs/fw_cfg).  Called under the platform's lock.
 */
#ifndef HVX_FWCFG_H
#define HVX_FWCFG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"

#define FWCFG_ITEMS 64
#define FWCFG_NAME  56 /* of a file, with its 0 */

enum { /* numbers of items that firmware asks for */
       FWCFG_SIGNATURE = 0x00,
       FWCFG_ID = 0x01,
       FWCFG_RAM_SIZE = 0x03,
       FWCFG_NOGRAPHIC = 0x04,
       FWCFG_CPUS = 0x05,
       FWCFG_KERNEL_SIZE = 0x08,
       FWCFG_INITRD_SIZE = 0x0b,
       FWCFG_BOOT_MENU = 0x0e,
       FWCFG_MAX_CPUS = 0x0f,
       FWCFG_KERNEL = 0x11,
       FWCFG_INITRD = 0x12,
       FWCFG_CMDLINE_SIZE = 0x14,
       FWCFG_CMDLINE = 0x15,
       FWCFG_SETUP_SIZE = 0x17,
       FWCFG_SETUP = 0x18,
       FWCFG_DIR = 0x19,
       FWCFG_FILES = 0x20 /* and on: files */
};

struct fwcfg_item {
	uint16_t key;
	const uint8_t *data; /* NULL: [from, from + len) of @fd */
	uint32_t len;
	int fd;
	uint64_t from;
	char name[FWCFG_NAME]; /* of a file */
};

struct fwcfg {
	uint16_t key;    /* of the item that is read */
	uint32_t offset; /* of its next byte */
	uint32_t high;   /* upper half of a request's address, as written last */
	struct fwcfg_item item[FWCFG_ITEMS];
	unsigned n;
	uint8_t dir[4 + FWCFG_ITEMS * 64]; /* the list of files as it is read */
	/* Before an item is read, when it is selected: may bring it up to date by fwcfg_set().  May be NULL. */
	void (*selected)(void *ctx, uint16_t key);
	/* Copies from or to RAM at @gpa; false where there is none. */
	bool (*copy)(void *ctx, uint64_t gpa, void *buf, size_t len, bool write);
	void *ctx;
};

/* Copies are by ->copy and events go to ->selected with ->ctx: all set before.  Nothing but signature and id is there. */
void fwcfg_init(struct fwcfg *f);
void fwcfg_reset(struct fwcfg *f);

/* Adds an item, or a file of this name.  The bytes stay the caller's.  0, -ENOSPC, -EEXIST; a file's key is returned. */
int fwcfg_add(struct fwcfg *f, uint16_t key, const void *data, uint32_t len);
int fwcfg_add_part(struct fwcfg *f, uint16_t key, int fd, uint64_t from, uint32_t len);
int fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, uint32_t len);
/* New bytes for what is there. */
void fwcfg_set(struct fwcfg *f, uint16_t key, const void *data, uint32_t len);

#define FWCFG_PORT     0x510 /* selector, 16 bits; data */
#define FWCFG_DMA_PORT 0x514
extern const struct bus_ops fwcfg_ops, fwcfg_dma_ops;

#endif
