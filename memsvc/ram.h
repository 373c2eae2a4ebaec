/*
 * The memory of one VM: the sealed RAM memfd and the control region.  See ram.c.
 */
#ifndef HVX_MEMSVC_RAM_H
#define HVX_MEMSVC_RAM_H

#include <stdint.h>

struct ram {
	uint64_t size;         /* of guest RAM, bytes */
	uint64_t control_size; /* of the control region, bytes */
	int ram_fd, control_fd;
};

struct ram_usage {
	uint64_t pages_total, pages_present, host_bytes;
};

/* Makes both memfds.  0 or a negative error; ram_free() in either case. */
int ram_create(struct ram *r, uint64_t size);
void ram_free(struct ram *r);

/* Asks the kernel how much of it has memory behind it; 0 or a negative error. */
int ram_usage(const struct ram *r, struct ram_usage *u);

#endif
