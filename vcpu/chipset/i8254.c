/*
 * 8254 interval timer (Intel 8254 data sheet).
 *
 * Invariant: no count is ever stored while a channel runs; counts and outputs
 * follow from the moment counting began.  Only channel 0 has a timer, which is
 * queued at the next rising edge of its output.
 */
#include "vcpu/chipset/i8254.h"

#include "vcpu/chipset/savechips.h"

#define REFRESH_NS 15085u /* the refresh request toggles at this rate */

static bool periodic(const struct i8254_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

static uint64_t elapsed(const struct i8254 *t, const struct i8254_channel *c)
{
	uint64_t now = hclock_now(t->clock);

	if (!c->gate && (c->mode == 0 || c->mode == 4))
		return c->paused;
	return now > c->start ? ns_to_ticks(now - c->start, I8254_HZ) : 0;
}

static uint16_t to_bcd(uint32_t n)
{
	return (uint16_t)(n % 10 | n / 10 % 10 << 4 | n / 100 % 10 << 8 | n / 1000 % 10 << 12);
}

static uint32_t from_bcd(uint32_t n)
{
	return (n & 15) + (n >> 4 & 15) * 10 + (n >> 8 & 15) * 100 + (n >> 12 & 15) * 1000;
}

static uint16_t current(const struct i8254 *t, const struct i8254_channel *c)
{
	uint32_t wrap = c->bcd ? 10000 : 65536, n;
	uint64_t d = c->loaded ? elapsed(t, c) : 0;

	if (periodic(c) && !c->gate)
		d = 0;
	if (c->mode == 2)
		n = c->count - (uint32_t)(d % c->count);
	else if (c->mode == 3)
		n = c->count - (uint32_t)(2 * d % c->count);
	else
		n = (c->count % wrap + wrap - (uint32_t)(d % wrap)) % wrap;
	n %= wrap;
	return c->bcd ? to_bcd(n) : (uint16_t)n;
}

static bool output(const struct i8254 *t, const struct i8254_channel *c)
{
	uint64_t d;

	if (!c->loaded)
		return c->mode != 0;
	d = elapsed(t, c);
	switch (c->mode) {
	case 0:
	case 1: return d >= c->count;
	case 2: return !c->gate || d % c->count != c->count - 1;
	case 3: return !c->gate || d % c->count < (c->count + 1) / 2;
	default: return d != c->count;
	}
}

/* ---- channel 0's interrupt ---- */
static void schedule(struct i8254 *t, uint64_t after)
{
	const struct i8254_channel *c = &t->ch[0];
	uint64_t n;

	if (!c->loaded || c->mode == 1 || c->mode == 5) { /* its gate is tied high: no trigger */
		timer_set(&t->timer, TIMER_NEVER);
	} else if (periodic(c)) {
		n = after > c->start ? ns_to_ticks(after - c->start, I8254_HZ) / c->count : 0;
		timer_set(&t->timer, c->start + ticks_to_ns((n + 1) * c->count, I8254_HZ));
	} else {
		timer_set(&t->timer, c->start + ticks_to_ns(c->count, I8254_HZ));
	}
}

static void expired(void *ctx, uint64_t now)
{
	struct i8254 *t = ctx;

	if (t->ch[0].mode != 0)
		irq_set(&t->irq, false);
	irq_set(&t->irq, true);
	if (periodic(&t->ch[0]))
		schedule(t, now);
}

/* ---- programming ---- */
static void load(struct i8254 *t, struct i8254_channel *c, uint32_t val)
{
	if (c->bcd)
		val = from_bcd(val);
	if (!val)
		val = c->bcd ? 10000 : 65536;
	if (val == 1 && periodic(c))
		val = 2; /* 1 is illegal in modes 2 and 3 */
	c->count = val;
	c->start = hclock_now(t->clock);
	c->paused = 0;
	c->loaded = true;
	if (c != &t->ch[0])
		return;
	if (c->mode == 0)
		irq_set(&t->irq, false);
	schedule(t, c->start);
}

static void write_count(struct i8254 *t, struct i8254_channel *c, uint8_t val)
{
	switch (c->rw) {
	case 1: load(t, c, val); break;
	case 2: load(t, c, (uint32_t)val << 8); break;
	default:
		if (c->write_high) {
			load(t, c, (uint32_t)val << 8 | c->first);
		} else {
			c->first = val;
			if (c->mode == 0)
				c->loaded = false; /* the first byte stops counting */
		}
		c->write_high = !c->write_high;
	}
}

static void latch_count(const struct i8254 *t, struct i8254_channel *c)
{
	if (c->have_latch)
		return;
	c->latched = current(t, c);
	c->have_latch = true;
}

static void latch_status(const struct i8254 *t, struct i8254_channel *c)
{
	if (c->have_status)
		return;
	c->status = (uint8_t)(output(t, c) << 7 | !c->loaded << 6 | c->rw << 4 | c->mode << 1 | c->bcd);
	c->have_status = true;
}

static void read_back(struct i8254 *t, uint8_t cmd)
{
	for (unsigned i = 0; i < 3; i++) {
		if (!(cmd & 2u << i))
			continue;
		if (!(cmd & 0x20))
			latch_count(t, &t->ch[i]);
		if (!(cmd & 0x10))
			latch_status(t, &t->ch[i]);
	}
}

static void control(struct i8254 *t, uint8_t cmd)
{
	struct i8254_channel *c;

	if (cmd >> 6 == 3) {
		read_back(t, cmd);
		return;
	}
	c = &t->ch[cmd >> 6];
	if (!(cmd & 0x30)) {
		latch_count(t, c);
		return;
	}
	c->rw = cmd >> 4 & 3;
	c->mode = (cmd >> 1 & 7) > 5 ? cmd >> 1 & 3 : cmd >> 1 & 7;
	c->bcd = cmd & 1;
	c->loaded = c->have_latch = c->have_status = c->write_high = c->read_high = false;
	if (c == &t->ch[0]) {
		timer_set(&t->timer, TIMER_NEVER);
		irq_set(&t->irq, c->mode != 0);
	}
}

static uint8_t read_count(struct i8254 *t, struct i8254_channel *c)
{
	uint16_t n = c->have_latch ? c->latched : current(t, c);
	bool high = c->rw == 2 || (c->rw == 3 && c->read_high);

	if (c->rw == 3)
		c->read_high = !c->read_high;
	if (c->rw != 3 || !c->read_high)
		c->have_latch = false;
	return (uint8_t)(high ? n >> 8 : n);
}

static uint64_t i8254_read(void *dev, uint64_t off, unsigned size)
{
	struct i8254 *t = dev;
	struct i8254_channel *c;

	if (off == 3)
		return 0xff;
	c = &t->ch[off];
	if (!c->have_status)
		return read_count(t, c);
	c->have_status = false;
	return c->status;
}

static void i8254_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct i8254 *t = dev;

	if (off == 3)
		control(t, (uint8_t)val);
	else
		write_count(t, &t->ch[off], (uint8_t)val);
}

/* ---- port 0x61 ---- */
static void set_gate(struct i8254 *t, struct i8254_channel *c, bool gate)
{
	uint64_t now = hclock_now(t->clock);

	if (gate == c->gate)
		return;
	if (c->mode == 0 || c->mode == 4) {
		if (!gate)
			c->paused = elapsed(t, c);
		else
			c->start = now - ticks_to_ns(c->paused, I8254_HZ);
	} else if (gate) {
		c->start = now; /* a rising gate starts the count anew */
	}
	c->gate = gate;
}

static uint64_t port61_read(void *dev, uint64_t off, unsigned size)
{
	struct i8254 *t = dev;
	bool refresh = hclock_now(t->clock) / REFRESH_NS & 1;

	return (uint64_t)(t->port61 | refresh << 4 | output(t, &t->ch[2]) << 5);
}

static void port61_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct i8254 *t = dev;

	t->port61 = val & 3;
	set_gate(t, &t->ch[2], val & 1);
}

const struct bus_ops i8254_ops = {i8254_read, i8254_write, 1};
const struct bus_ops i8254_port61_ops = {port61_read, port61_write, 1};

void i8254_reset(struct i8254 *t)
{
	for (unsigned i = 0; i < 3; i++)
		t->ch[i] = (struct i8254_channel){.count = 65536, .mode = 3, .rw = 3, .gate = i < 2};
	t->port61 = 0;
	timer_set(&t->timer, TIMER_NEVER);
	irq_set(&t->irq, false);
}

void i8254_init(struct i8254 *t, struct hclock *clock, struct timerq *q, struct irq_out irq)
{
	t->clock = clock;
	t->irq = irq;
	timer_init(&t->timer, q, expired, t);
	i8254_reset(t);
}

/* ---- what is saved ---- */

static const struct save_row i8254_channel_save_rows[] = {
	SAVE_IN(struct i8254_channel, count, 1, 65536),
	SAVE(struct i8254_channel, start),
	SAVE(struct i8254_channel, paused),
	SAVE(struct i8254_channel, latched),
	SAVE_MAX(struct i8254_channel, mode, 7),
	SAVE_MAX(struct i8254_channel, rw, 3),
	SAVE(struct i8254_channel, status),
	SAVE(struct i8254_channel, first),
	SAVE(struct i8254_channel, bcd),
	SAVE(struct i8254_channel, gate),
	SAVE(struct i8254_channel, loaded),
	SAVE(struct i8254_channel, have_latch),
	SAVE(struct i8254_channel, have_status),
	SAVE(struct i8254_channel, write_high),
	SAVE(struct i8254_channel, read_high),
};
SAVE_TABLE(i8254_channel_save, struct i8254_channel, "8254-channel");

static const struct save_row i8254_save_rows[] = {
	SAVE_STRUCTS(struct i8254, ch, i8254_channel_save),
	SAVE_OMIT(struct i8254, clock, SAVE_WIRED),
	SAVE_BY(struct i8254, timer, timer_save, timer_load),
	SAVE_OMIT(struct i8254, irq, SAVE_WIRED),
	SAVE(struct i8254, port61),
};
SAVE_TABLE(i8254_save, struct i8254, "8254");
