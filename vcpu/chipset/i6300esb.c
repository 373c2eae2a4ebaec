/*
 * Intel 6300ESB watchdog timer (300641-004, chapter 16).
 *
 *   configuration  0x60 word   5: output off   2: clock 1 MHz instead of 1 kHz   1:0 interrupt, 0 IRQ, 2 SMI, 3 none
 *                  0x68 byte   2: free running   1: enable   0: lock
 *   BAR 0   +0 preload 1   +4 preload 2   +8 interrupt status   +c reload: 8 reload, 9 timeout
 *
 * Every write to BAR 0 but that of the interrupt status follows the bytes 80h, 86h at +c.  Both clocks are the PCI
 * bus's 33 MHz, divided.  The interrupt goes to INTA here, that of the part to an input of its own.
 *
 * Invariant: the timer is queued exactly while a stage counts and the VM is not paused.
 */
#include "vcpu/chipset/i6300esb.h"

#include "vcpu/chipset/savechips.h"

#define BUS_HZ 33000000u

#define CONFIG        0x60
#define CONFIG_MASK   0x27u
#define CFG_OUT_OFF   0x20u
#define CFG_FAST      0x04u
#define CFG_INT       0x03u
#define CFG_INT_IRQ   0u
#define LOCK          0x68
#define LOCK_MASK     0x07u
#define LOCK_FREE_RUN 0x04u
#define LOCK_ENABLE   0x02u
#define LOCK_LOCKED   0x01u

enum { R_PRELOAD1 = 0, R_PRELOAD2 = 4, R_STATUS = 8, R_RELOAD = 12, R_LEN = 16 };
#define PRELOAD_MASK   0xfffffu
#define RELOAD_RELOAD  0x100u
#define RELOAD_TIMEOUT 0x200u

static uint32_t config(const struct i6300esb *w)
{
	return pci_get(&w->f, CONFIG, 2);
}

static uint32_t lock_reg(const struct i6300esb *w)
{
	return pci_get(&w->f, LOCK, 1);
}

/* ---- counting ---- */

static uint64_t period_ns(const struct i6300esb *w, unsigned stage)
{
	unsigned shift = config(w) & CFG_FAST ? 5 : 15;

	return (((uint64_t)w->preload[stage - 1] + 1) << shift) * 1000 / (BUS_HZ / 1000000);
}

static void arm(struct i6300esb *w, unsigned stage, uint64_t ns)
{
	w->stage = stage;
	w->left = ns;
	timer_set(&w->timer, stage && !w->held ? hclock_now(w->clock) + ns : TIMER_NEVER);
}

/* The first stage, or, free running, the only one. */
static void restart(struct i6300esb *w)
{
	unsigned stage = lock_reg(w) & LOCK_FREE_RUN ? 2 : 1;

	arm(w, stage, period_ns(w, stage));
}

static void update_irq(struct i6300esb *w)
{
	pci_set_intx(&w->f, w->interrupt && (config(w) & CFG_INT) == CFG_INT_IRQ);
}

static void stage_over(void *ctx, uint64_t now)
{
	struct i6300esb *w = ctx;

	(void)now;
	if (w->stage == 1) {
		w->stages++;
		w->interrupt = true;
		update_irq(w);
		arm(w, 2, period_ns(w, 2));
		return;
	}
	w->timeouts++;
	w->timeout = true;
	if (lock_reg(w) & LOCK_FREE_RUN)
		restart(w);
	else
		arm(w, 0, 0);
	if (!(config(w) & CFG_OUT_OFF) && w->expired)
		w->expired(w->ctx);
}

void i6300esb_hold(struct i6300esb *w, bool hold)
{
	uint64_t now = hclock_now(w->clock);

	if (hold == w->held)
		return;
	if (hold && w->stage)
		w->left = w->timer.deadline > now ? w->timer.deadline - now : 0;
	w->held = hold;
	arm(w, w->stage, w->left);
}

/* ---- registers ---- */

static uint64_t reg_read(void *dev, uint64_t off, unsigned size)
{
	const struct i6300esb *w = dev;
	uint32_t val;

	(void)size;
	switch (off & ~3ull) {
	case R_PRELOAD1: val = w->preload[0]; break;
	case R_PRELOAD2: val = w->preload[1]; break;
	case R_STATUS: val = w->interrupt; break;
	default: val = w->timeout ? RELOAD_TIMEOUT : 0; break;
	}
	return val >> (off & 3) * 8;
}

static void reload_write(struct i6300esb *w, uint32_t val)
{
	if (val & RELOAD_TIMEOUT)
		w->timeout = false;
	if (!(val & RELOAD_RELOAD) || !w->stage)
		return;
	w->reloads++;
	restart(w);
}

/* True when this write belongs to the unlock sequence. */
static bool unlocking(struct i6300esb *w, uint64_t off, uint64_t val)
{
	static const uint8_t sequence[2] = {0x80, 0x86};

	if (off != R_RELOAD || w->unlock >= 2 || (val & 0xff) != sequence[w->unlock])
		return false;
	w->unlock++;
	return true;
}

static void reg_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct i6300esb *w = dev;

	if (off == R_STATUS) {
		if (val & 1)
			w->interrupt = false;
		update_irq(w);
		return;
	}
	if (unlocking(w, off, val))
		return;
	bool open = w->unlock == 2;
	w->unlock = 0;
	if (!open)
		return;
	if (off == R_RELOAD)
		reload_write(w, (uint32_t)val);
	else if ((off == R_PRELOAD1 || off == R_PRELOAD2) && size == 4)
		w->preload[off / 4] = (uint32_t)val & PRELOAD_MASK;
}

static const struct bus_ops reg_ops = {reg_read, reg_write, 4};

/* ---- configuration space ---- */

/* Once locked, enable and lock bits stay as they are until a reset: they are no longer writable. */
static void lock_written(struct i6300esb *w)
{
	uint32_t val = lock_reg(w);

	if (val & LOCK_LOCKED)
		w->f.wmask[LOCK] = 0;
	if (!(val & LOCK_ENABLE))
		arm(w, 0, 0);
	else if (!w->stage)
		restart(w);
}

static void cfg_written(struct pci_func *f, unsigned off, unsigned size)
{
	struct i6300esb *w = f->dev;

	if (size > 4)
		return; /* a reset of the bus */
	if (off <= LOCK && off + size > LOCK)
		lock_written(w);
	if (off < CONFIG + 2 && off + size > CONFIG)
		update_irq(w);
}

void i6300esb_reset(struct i6300esb *w)
{
	w->preload[0] = w->preload[1] = PRELOAD_MASK;
	w->unlock = 0;
	w->interrupt = false;
	w->f.wmask[LOCK] = LOCK_MASK;
	update_irq(w);
	arm(w, 0, 0);
}

int i6300esb_add(struct pci *p, struct i6300esb *w, uint8_t devfn, struct hclock *clock, struct timerq *q)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086,
		.device = 0x25ab,
		.subsys_vendor = 0x8086,
		.subsys = 0x25ab,
		.class_code = 0x088000, /* a system peripheral of another kind */
		.revision = 2,
		.int_pin = 1,
	};
	int rc = pci_add(p, &w->f, devfn, &ids);

	if (!rc)
		rc = pci_add_bar(&w->f, 0, PCI_BAR_MEM32, R_LEN, &reg_ops, w);
	w->clock = clock;
	timer_init(&w->timer, q, stage_over, w);
	pci_put(&w->f, CONFIG, 2, 0, CONFIG_MASK);
	pci_put(&w->f, LOCK, 1, 0, LOCK_MASK);
	w->f.dev = w;
	w->f.written = cfg_written;
	i6300esb_reset(w);
	return rc;
}

/* ---- what is saved ---- */

static const struct save_row i6300esb_save_rows[] = {
	SAVE_STRUCT(struct i6300esb, f, pci_func_save),
	SAVE_OMIT(struct i6300esb, clock, SAVE_WIRED),
	SAVE_BY(struct i6300esb, timer, timer_save, timer_load),
	SAVE_OMIT(struct i6300esb, expired, SAVE_WIRED),
	SAVE_OMIT(struct i6300esb, ctx, SAVE_WIRED),
	SAVE_ARRAY(struct i6300esb, preload),
	SAVE_MAX(struct i6300esb, stage, 2),
	SAVE(struct i6300esb, unlock),
	SAVE(struct i6300esb, interrupt),
	SAVE(struct i6300esb, timeout),
	SAVE(struct i6300esb, held),
	SAVE(struct i6300esb, left),
	SAVE(struct i6300esb, reloads),
	SAVE(struct i6300esb, stages),
	SAVE(struct i6300esb, timeouts),
};
SAVE_TABLE(i6300esb_save, struct i6300esb, "6300esb");
