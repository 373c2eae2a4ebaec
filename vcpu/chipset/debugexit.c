/*
 * Exit port and debug console.
 *
 * Invariant: the exit status is odd, so it can not be mistaken for a clean end.
 */
#include "vcpu/chipset/debugexit.h"

#include "vcpu/chipset/savechips.h"

static uint64_t exit_read(void *dev, uint64_t off, unsigned size)
{
	return 0;
}

static void exit_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	const struct debugexit *d = dev;

	if (d->exit)
		d->exit(d->ctx, (int)((uint32_t)val << 1 | 1));
}

static uint64_t con_read(void *dev, uint64_t off, unsigned size)
{
	return DEBUGCON_PORT; /* how guests find it */
}

static void con_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	const struct debugexit *d = dev;

	if (d->putc)
		d->putc(d->ctx, (uint8_t)val);
}

const struct bus_ops debugexit_ops = {exit_read, exit_write, 4};
const struct bus_ops debugcon_ops = {con_read, con_write, 1};

/* ---- what is saved ---- */

static const struct save_row debugexit_save_rows[] = {
	SAVE_OMIT(struct debugexit, exit, SAVE_WIRED),
	SAVE_OMIT(struct debugexit, putc, SAVE_WIRED),
	SAVE_OMIT(struct debugexit, ctx, SAVE_WIRED),
};
SAVE_TABLE(debugexit_save, struct debugexit, "debugexit");
