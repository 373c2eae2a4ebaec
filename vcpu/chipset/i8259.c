/*
 * 8259A pair (Intel 8259A data sheet; ELCR as in the 82371 and ICH parts).
 *
 * Invariant: the master's IR2 input equals the slave's INT output, and the
 * master's INT output has been passed on, after every public call.
 */
#include "vcpu/chipset/i8259.h"

#include "vcpu/chipset/savechips.h"

/* Position of line @n in the priority order, 0 highest. */
static unsigned rank(const struct i8259 *c, unsigned n)
{
	return (n - c->lowest - 1) & 7;
}

/* Line of highest priority in @mask, or -1. */
static int top(const struct i8259 *c, uint8_t mask)
{
	for (unsigned i = 0; i < 8; i++) {
		unsigned n = (c->lowest + 1 + i) & 7;

		if (mask >> n & 1)
			return (int)n;
	}
	return -1;
}

/* The request to signal now, or -1: masked by IMR and by what is in service at the same or higher priority. */
static int request(const struct i8259 *c, bool master)
{
	int req = top(c, c->irr & (uint8_t)~c->imr);
	uint8_t in_service = c->isr;
	int cur;

	if (c->special_mask)
		in_service &= (uint8_t)~c->imr;
	if (master && c->special_nested)
		in_service &= (uint8_t)~4; /* further requests of the slave get through */
	cur = top(c, in_service);
	if (req < 0 || (cur >= 0 && rank(c, (unsigned)cur) <= rank(c, (unsigned)req)))
		return -1;
	return req;
}

static void input(struct i8259 *c, unsigned n, bool level)
{
	uint8_t bit = (uint8_t)(1u << n);

	if (c->elcr & bit)
		c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	else if (!level)
		c->irr &= (uint8_t)~bit; /* a request withdrawn before its acknowledge becomes spurious */
	c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
}

static void update(struct i8259_pair *p)
{
	input(&p->chip[0], 2, request(&p->chip[1], false) >= 0);
	irq_set(&p->intr, request(&p->chip[0], true) >= 0);
}

void i8259_set(struct i8259_pair *p, unsigned irq, bool level)
{
	if (irq > 15 || irq == 2)
		return;
	input(&p->chip[irq >> 3], irq & 7, level);
	update(p);
}

static unsigned take(struct i8259 *c, bool master)
{
	int n = request(c, master);
	uint8_t bit;

	if (n < 0)
		return 7; /* spurious: no in-service bit */
	bit = (uint8_t)(1u << n);
	if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (!c->auto_eoi)
		c->isr |= bit;
	else if (c->rotate_aeoi)
		c->lowest = (uint8_t)n;
	return (unsigned)n;
}

int i8259_ack(struct i8259_pair *p)
{
	unsigned n = take(&p->chip[0], true), vec;

	if (n == 2) {
		vec = p->chip[1].base + take(&p->chip[1], false);
		input(&p->chip[0], 2, false); /* so that a further request of the slave is an edge again */
	} else {
		vec = p->chip[0].base + n;
	}
	update(p);
	return (int)vec;
}

static void eoi(struct i8259 *c, uint8_t cmd)
{
	bool rotate = cmd & 0x80, specific = cmd & 0x40;
	int n = specific ? cmd & 7 : top(c, c->isr);

	if (n < 0)
		return;
	c->isr &= (uint8_t) ~(1u << n);
	if (rotate)
		c->lowest = (uint8_t)n;
}

static void ocw2(struct i8259 *c, uint8_t cmd)
{
	if (cmd & 0x20)
		eoi(c, cmd);
	else if ((cmd & 0xc0) == 0xc0)
		c->lowest = cmd & 7;
	else if (!(cmd & 0x40))
		c->rotate_aeoi = cmd & 0x80;
}

static void ocw3(struct i8259 *c, uint8_t cmd)
{
	if (cmd & 0x40)
		c->special_mask = cmd & 0x20;
	if (cmd & 4)
		c->poll = true;
	if (cmd & 2)
		c->read_isr = cmd & 1;
}

static void icw1(struct i8259 *c, uint8_t cmd)
{
	c->imr = c->isr = 0;
	c->irr = c->elcr & c->lines; /* edges must be seen anew */
	c->lowest = 7;
	c->special_mask = c->read_isr = c->poll = c->auto_eoi = c->rotate_aeoi = c->special_nested = false;
	c->single = cmd & 2;
	c->icw4 = cmd & 1;
	c->icw = 2;
}

static void command(struct i8259 *c, uint8_t cmd)
{
	if (cmd & 0x10)
		icw1(c, cmd);
	else if (cmd & 8)
		ocw3(c, cmd);
	else
		ocw2(c, cmd);
}

static void data(struct i8259 *c, uint8_t val)
{
	switch (c->icw) {
	case 2:
		c->base = val & 0xf8;
		c->icw = !c->single ? 3 : c->icw4 ? 4 : 0;
		break;
	case 3: c->icw = c->icw4 ? 4 : 0; break; /* the cascade is wired: nothing to choose */
	case 4:
		c->auto_eoi = val & 2;
		c->special_nested = val & 0x10;
		c->icw = 0;
		break;
	default: c->imr = val;
	}
}

static void chip_write(struct i8259_pair *p, unsigned n, uint64_t off, uint8_t val)
{
	if (off & 1)
		data(&p->chip[n], val);
	else
		command(&p->chip[n], val);
	update(p);
}

static uint8_t poll(struct i8259_pair *p, unsigned n)
{
	struct i8259 *c = &p->chip[n];
	bool any = request(c, n == 0) >= 0;
	uint8_t val = (uint8_t)(any ? 0x80 | take(c, n == 0) : 0);

	c->poll = false;
	update(p);
	return val;
}

static uint8_t chip_read(struct i8259_pair *p, unsigned n, uint64_t off)
{
	struct i8259 *c = &p->chip[n];

	if (c->poll)
		return poll(p, n);
	if (off & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *dev, uint64_t off, unsigned size)
{
	return chip_read(dev, 0, off);
}

static void master_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	chip_write(dev, 0, off, (uint8_t)val);
}

static uint64_t slave_read(void *dev, uint64_t off, unsigned size)
{
	return chip_read(dev, 1, off);
}

static void slave_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	chip_write(dev, 1, off, (uint8_t)val);
}

static uint64_t elcr_read(void *dev, uint64_t off, unsigned size)
{
	const struct i8259_pair *p = dev;

	return p->chip[off & 1].elcr;
}

static void elcr_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct i8259_pair *p = dev;
	struct i8259 *c = &p->chip[off & 1];

	c->elcr = (uint8_t)val & c->elcr_mask;
	update(p);
}

const struct bus_ops i8259_master_ops = {master_read, master_write, 1};
const struct bus_ops i8259_slave_ops = {slave_read, slave_write, 1};
const struct bus_ops i8259_elcr_ops = {elcr_read, elcr_write, 1};

void i8259_reset(struct i8259_pair *p)
{
	for (unsigned i = 0; i < 2; i++) {
		p->chip[i] = (struct i8259){.lowest = 7, .elcr_mask = i ? 0xde : 0xf8, .lines = p->chip[i].lines};
		p->chip[i].imr = 0xff; /* left so by firmware; undefined in the data sheet */
		p->chip[i].base = i ? 0x70 : 8;
	}
	update(p);
}

void i8259_init(struct i8259_pair *p, struct irq_out intr)
{
	p->intr = intr;
	p->chip[0].lines = p->chip[1].lines = 0;
	i8259_reset(p);
}

/* ---- what is saved ---- */

static const struct save_row i8259_chip_save_rows[] = {
	SAVE(struct i8259, irr),
	SAVE(struct i8259, isr),
	SAVE(struct i8259, imr),
	SAVE(struct i8259, lines),
	SAVE(struct i8259, base),
	SAVE(struct i8259, elcr),
	SAVE_OMIT(struct i8259, elcr_mask, "of the chip's place"),
	SAVE_MAX(struct i8259, lowest, 7),
	SAVE_MAX(struct i8259, icw, 4),
	SAVE(struct i8259, icw4),
	SAVE(struct i8259, single),
	SAVE(struct i8259, auto_eoi),
	SAVE(struct i8259, rotate_aeoi),
	SAVE(struct i8259, special_nested),
	SAVE(struct i8259, read_isr),
	SAVE(struct i8259, poll),
	SAVE(struct i8259, special_mask),
};
SAVE_TABLE(i8259_chip_save, struct i8259, "8259");

static const struct save_row i8259_save_rows[] = {
	SAVE_STRUCTS(struct i8259_pair, chip, i8259_chip_save),
	SAVE_OMIT(struct i8259_pair, intr, SAVE_WIRED),
};
SAVE_TABLE(i8259_save, struct i8259_pair, "8259-pair");
