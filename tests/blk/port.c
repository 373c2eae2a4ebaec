/* The port by itself.  Invariant: only port_look() takes what the device says. */
#include "tests/blk/port.h"

#include <stdlib.h>
#include <string.h>

void port_start(struct port *p, const struct front_setup *s, enum msg_blk_bus bus)
{
	memset(p, 0, sizeof *p);
	p->f = front_new(s);
	struct device *d = &p->f->b.dev;
	p->ops = *d->ops;
	d->cfg.blk.bus = bus;
	p->f->b.writeback = !s->through;
	if (blk_ahci_init(&p->f->b, &p->ops))
		abort();
	d->ops = &p->ops;
	p->list = PORT_LIST;
	p->fis = PORT_FIS;
	port_activate(p);
}

void port_activate(struct port *p)
{
	const struct msg_virtio_activate m = {.list = p->list, .fis = p->fis};

	if (virtio_dev_activate(&p->f->b.dev.v, &m))
		abort();
}

bool port_reset(struct port *p)
{
	struct device *d = &p->f->b.dev;

	d->generation++;
	virtio_dev_reset(&d->v);
	return !d->v.resetting;
}

void port_free(struct port *p)
{
	free(p->f->b.hba);
	front_free(p->f);
}

void port_put(struct port *p, unsigned slot, const struct port_command *c)
{
	const uint64_t table = PORT_TABLE + 4096u * slot;
	uint8_t *t = p->f->ram + table;
	unsigned n = c->nprd ? c->nprd : 1;
	uint32_t hdr[8] = {5u | (c->command == 0xa0 ? 0x20u : 0) | n << 16, 0, (uint32_t)table};

	memset(t, 0, 4096);
	t[0] = 0x27;
	t[1] = 0x80;
	t[2] = c->command;
	t[3] = c->feature;
	t[7] = c->device;
	for (int i = 0; i < 3; i++) {
		t[4 + i] = (uint8_t)(c->lba >> 8 * i);
		t[8 + i] = (uint8_t)(c->lba >> (24 + 8 * i));
	}
	memcpy(t + 12, &c->count, 2);
	memcpy(t + 0x40, c->cdb, sizeof c->cdb);
	for (unsigned i = 0; i < n; i++) {
		uint64_t at = c->nprd ? c->prd[i].at : PORT_DATA;
		uint32_t len = (c->nprd ? c->prd[i].len : FRONT_ROOM) - 1;
		memcpy(t + 0x80 + 16 * i, &at, 8);
		memcpy(t + 0x8c + 16 * i, &len, 4);
	}
	memcpy(p->f->ram + PORT_LIST + 32 * slot, hdr, sizeof hdr);
}

void port_look(struct port *p)
{
	p->called |= atomic_exchange(&p->f->bell.called, 0);
	p->causes |= atomic_exchange(&p->f->bell.causes, 0);
	p->tfd = atomic_load(&p->f->bell.taskfile);
}

void port_ring(struct port *p, uint32_t slots)
{
	p->called = p->causes = 0;
	p->ops.slots(&p->f->b.dev, slots);
	port_look(p);
}

uint32_t port_do(struct port *p, const struct port_command *c)
{
	port_put(p, 0, c);
	port_ring(p, 1);
	return p->causes;
}
