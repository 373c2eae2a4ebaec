/*
 * The memory of one VM: the sealed RAM memfd and the control region.  See ram.c.
 */
#ifndef HVX_MEMSVC_RAM_H
#define HVX_MEMSVC_RAM_H

#include <stdint.h>

#include "memsvc/grace.h"
#include "proto/pack.h"

struct ram {
	uint64_t size;         /* of guest RAM and the ROM behind it, bytes */
	uint64_t control_size; /* of the control region, bytes */
	int ram_fd, control_fd;
	uint8_t *control;
	uint64_t *p2m; /* in the control region, which others can write too: flags are looked at, offsets are not */
	struct grace grace;
	uint64_t ballooned, punched;
	/* merging, see merge.h; NULL: there is none */
	struct merge *merge;
};

struct ram_usage {
	uint64_t pages_total, pages_present, host_bytes, pages_ballooned, pages_punched;
};

/* Makes both memfds.  0 or a negative error; ram_free() in either case. */
int ram_create(struct ram *r, uint64_t size);
/* The same with memfds that somebody else made, with these sizes and seals; they become ours. */
int ram_adopt(struct ram *r, int ram_fd, int control_fd, uint64_t size);
void ram_free(struct ram *r);

/* What the guest does with @count pages from @first on (any, for MEM_OP_RETURN_ALL): the p2m says so when this returns.  0, or
 * -EPROTO when they are no pages of this RAM. */
int ram_change(struct ram *r, enum msg_mem_op op, uint64_t first, uint64_t count);
/* Pages that were given back so, or reported free, and that nobody has a pointer to (r->grace): they have no memory behind them
 * when this returns and read as zeros.  0 or a negative error. */
int ram_punch(struct ram *r, uint64_t first, uint64_t count);
/* The same for pages that have been merged. */
int ram_empty(struct ram *r, uint64_t first, uint64_t count);

/* Asks the kernel how much of it has memory behind it; 0 or a negative error. */
int ram_usage(const struct ram *r, struct ram_usage *u);

#endif
