/*
 * A disk in the memory of its process, for tests of the transport: what it is asked for it does at once, unless it
 * was told to hold back, to break the protocol or to die.  See ramdisk.c.
 */
#ifndef HVX_TEST_RAMDISK_H
#define HVX_TEST_RAMDISK_H

#include "devices/device.h"

#define RAMDISK_SECTORS 8192u
#define RAMDISK_QUEUES  2u
#define RAMDISK_HELD    64u

/* Request types, virtio 1.2 5.2.6; from 0x8000 on tests' own.  Their sector is an argument. */
enum ramdisk_type {
	RAMDISK_IN = 0,
	RAMDISK_OUT = 1,
	RAMDISK_FLUSH = 4,
	RAMDISK_GET_ID = 8,
	RAMDISK_HOLD = 0x8000, /* requests from now on stay in flight */
	RAMDISK_RELEASE,       /* those held are done, last one first */
	RAMDISK_LATE_RESET,    /* the next reset waits so many ms and then does what is held before it is done */
	RAMDISK_SLEEP,         /* awake and busy for so many ms */
	RAMDISK_RESIZE,        /* the capacity changes to so many sectors */
	RAMDISK_CALL_ALL,      /* an interrupt for every queue, those that are not there too */
	RAMDISK_DIE,
	RAMDISK_BAD_FRAME,  /* to the vcpu: a type that does not exist */
	RAMDISK_BAD_RANGE,  /* to the vcpu: code outside of RAM is out of date */
	RAMDISK_BAD_CONFIG, /* to the vcpu: a configuration space of another length */
	RAMDISK_BAD_RESET   /* to the vcpu: a reset that was not asked for is done */
};

struct ramdisk_held {
	unsigned queue;
	struct virtq_chain c;
};

struct ramdisk {
	struct device *d;
	bool hold;
	unsigned late_ms, nheld;
	struct ipc_watch *timer;
	struct ramdisk_held held[RAMDISK_HELD];
	uint8_t data[RAMDISK_SECTORS * 512];
};

extern const struct device_ops ramdisk_ops;
/* Fills d->offer, d->ops and d->priv; d->loop is there. */
void ramdisk_init(struct ramdisk *r, struct device *d);

#endif
