/*
 * Ports 0x80 and 0x92.
 *
 * Invariant: of port 0x92 and the keyboard controller, whoever wrote last decides about A20.
 */
#include "vcpu/chipset/sysports.h"

#include "vcpu/chipset/savechips.h"

static uint64_t post_read(void *dev, uint64_t off, unsigned size)
{
	const struct sysports *s = dev;

	return s->post;
}

static void post_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct sysports *s = dev;

	s->post = (uint8_t)val;
}

static uint64_t port92_read(void *dev, uint64_t off, unsigned size)
{
	const struct sysports *s = dev;

	return s->port92;
}

static void port92_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct sysports *s = dev;

	s->port92 = val & 2;
	s->a20(s->ctx, val & 2);
	if (val & 1)
		s->reset(s->ctx);
}

const struct bus_ops sysports_post_ops = {post_read, post_write, 1};
const struct bus_ops sysports_92_ops = {port92_read, port92_write, 1};

void sysports_reset(struct sysports *s)
{
	s->post = 0;
	s->port92 = 2;
}

/* ---- what is saved ---- */

static const struct save_row sysports_save_rows[] = {
	SAVE(struct sysports, post),
	SAVE(struct sysports, port92),
	SAVE_OMIT(struct sysports, reset, SAVE_WIRED),
	SAVE_OMIT(struct sysports, a20, SAVE_WIRED),
	SAVE_OMIT(struct sysports, ctx, SAVE_WIRED),
};
SAVE_TABLE(sysports_save, struct sysports, "sysports");
