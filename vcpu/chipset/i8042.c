/*
 * Keyboard controller.  There is no second (mouse) port: its commands answer at
 * once, with values by which guests see that it is missing.
 *
 * Invariant: the output-full bit and IRQ 1 follow the answer queue.
 */
#include "vcpu/chipset/i8042.h"

#include "vcpu/chipset/savechips.h"

#define ST_FULL   0x01
#define ST_SYS    0x04
#define ST_CMD    0x08
#define ST_UNLOCK 0x10
#define CTR_IRQ   0x01
#define CTR_SYS   0x04
#define CTR_OFF   0x10 /* keyboard clock disabled */
#define CTR_XLATE 0x40
#define OUT_A20   0x02

static void update(struct i8042 *k)
{
	k->status = (uint8_t)((k->status & ~ST_FULL) | (k->n ? ST_FULL : 0));
	irq_set(&k->irq, k->n && (k->ctr & CTR_IRQ));
}

static void answer(struct i8042 *k, uint8_t byte)
{
	if (k->n < sizeof(k->queue))
		k->queue[(k->head + k->n++) % sizeof(k->queue)] = byte;
	update(k);
}

static uint8_t read_data(struct i8042 *k)
{
	uint8_t val = k->queue[k->head];

	if (!k->n)
		return 0;
	k->head = (k->head + 1) % sizeof(k->queue);
	k->n--;
	irq_set(&k->irq, false); /* the next answer is a new edge */
	update(k);
	return val;
}

/* A byte for the keyboard itself. */
static void keyboard(struct i8042 *k, uint8_t b)
{
	if (k->kbd_arg) {
		k->kbd_arg = 0;
		answer(k, 0xfa);
		return;
	}
	switch (b) {
	case 0xee: answer(k, 0xee); return; /* echo */
	case 0xf2:                          /* identify; the translated id where the controller translates */
		answer(k, 0xfa);
		answer(k, 0xab);
		answer(k, k->ctr & CTR_XLATE ? 0x41 : 0x83);
		return;
	case 0xff: /* reset and self-test */
		answer(k, 0xfa);
		answer(k, 0xaa);
		return;
	case 0xed: /* LEDs, scan code set, repeat rate: one argument */
	case 0xf0:
	case 0xf3: k->kbd_arg = b; break;
	default: break;
	}
	answer(k, 0xfa);
}

static void set_outport(struct i8042 *k, uint8_t val)
{
	k->outport = val | 1;
	if (k->a20)
		k->a20(k->ctx, val & OUT_A20);
	if (!(val & 1))
		k->reset(k->ctx);
}

static void write_data(struct i8042 *k, uint8_t b)
{
	uint8_t cmd = k->command;

	k->command = 0;
	k->status &= (uint8_t)~ST_CMD;
	switch (cmd) {
	case 0: keyboard(k, b); break;
	case 0x60:
		k->ctr = b | 0x20; /* the second port stays disabled */
		update(k);
		break;
	case 0xd1: set_outport(k, b); break;
	case 0xd2: answer(k, b); break;
	case 0xd3: answer(k, (uint8_t)~b); break; /* mouse loop-back: fails */
	default: break;                           /* 0xd4: to the missing mouse */
	}
}

static void command(struct i8042 *k, uint8_t cmd)
{
	k->status |= ST_CMD;
	switch (cmd) {
	case 0x20: answer(k, k->ctr); break;
	case 0xa9: answer(k, 0x01); break; /* test second port: clock line stuck */
	case 0xaa:
		k->ctr |= CTR_SYS;
		k->status |= ST_SYS;
		answer(k, 0x55);
		break;
	case 0xab: answer(k, 0x00); break;
	case 0xad: k->ctr |= CTR_OFF; break;
	case 0xae: k->ctr &= (uint8_t)~CTR_OFF; break;
	case 0xc0: answer(k, 0x80); break; /* input port: not locked */
	case 0xd0: answer(k, k->outport); break;
	case 0xdd: set_outport(k, k->outport & (uint8_t)~OUT_A20); break;
	case 0xdf: set_outport(k, k->outport | OUT_A20); break;
	case 0x60:
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4: k->command = cmd; break;
	case 0xf0 ... 0xff: /* pulse output lines: bit 0 low resets */
		if (!(cmd & 1))
			k->reset(k->ctx);
		break;
	default: break;
	}
}

static uint64_t i8042_read(void *dev, uint64_t off, unsigned size)
{
	struct i8042 *k = dev;

	return off == 0 ? read_data(k) : k->status;
}

static void i8042_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct i8042 *k = dev;

	if (off == 0)
		write_data(k, (uint8_t)val);
	else
		command(k, (uint8_t)val);
}

static uint64_t command_read(void *dev, uint64_t off, unsigned size)
{
	return i8042_read(dev, 4, size);
}

static void command_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	i8042_write(dev, 4, val, size);
}

const struct bus_ops i8042_ops = {i8042_read, i8042_write, 1};
const struct bus_ops i8042_command_ops = {command_read, command_write, 1};

void i8042_reset(struct i8042 *k)
{
	k->ctr = CTR_SYS | CTR_XLATE | 0x20;
	k->status = ST_UNLOCK | ST_SYS;
	set_outport(k, 0xcf); /* A20 on */
	k->command = k->kbd_arg = 0;
	k->head = k->n = 0;
	update(k);
}

void i8042_init(struct i8042 *k, struct irq_out irq, void (*reset)(void *ctx), void (*a20)(void *ctx, bool on),
		void *ctx)
{
	k->irq = irq;
	k->reset = reset;
	k->a20 = a20;
	k->ctx = ctx;
	i8042_reset(k);
}

/* ---- what is saved ---- */

static const struct save_row i8042_save_rows[] = {
	SAVE(struct i8042, ctr),
	SAVE(struct i8042, status),
	SAVE(struct i8042, outport),
	SAVE(struct i8042, command),
	SAVE_ARRAY(struct i8042, queue),
	SAVE_MAX(struct i8042, head, 15),
	SAVE_MAX(struct i8042, n, 16),
	SAVE(struct i8042, kbd_arg),
	SAVE_OMIT(struct i8042, irq, SAVE_WIRED),
	SAVE_OMIT(struct i8042, reset, SAVE_WIRED),
	SAVE_OMIT(struct i8042, a20, SAVE_WIRED),
	SAVE_OMIT(struct i8042, ctx, SAVE_WIRED),
};
SAVE_TABLE(i8042_save, struct i8042, "8042");
