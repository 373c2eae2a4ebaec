/*
 * ACPI fixed hardware (ACPI 6.4 section 4.8).
 *
 * Invariant: SCI is high exactly while an enabled status bit is set.  The
 * machine is always in ACPI mode: there is no SMI command port.
 */
#include "vcpu/chipset/pm.h"

#include "vcpu/chipset/savechips.h"

#define STS_TMR    0x0001u
#define STS_PWRBTN 0x0100u
#define STS_VALID  0x8521u /* WAK RTC PWRBTN GBL TMR */
#define EN_VALID   0x0521u
#define CNT_SCI_EN 0x0001u
#define CNT_SLP_EN 0x2000u
#define HALF       (1u << 23) /* the 24-bit timer's top bit changes every so many ticks */

static uint64_t ticks(const struct pm *p)
{
	return ns_to_ticks(hclock_now(p->clock), PM_TIMER_HZ);
}

static void catch_up(struct pm *p)
{
	uint64_t half = ticks(p) / HALF;

	if (half != p->seen_half)
		p->sts |= STS_TMR;
	p->seen_half = half;
}

static void update(struct pm *p)
{
	irq_set(&p->sci, p->sts & p->en & EN_VALID);
	if (p->en & STS_TMR)
		timer_set(&p->timer, ticks_to_ns((p->seen_half + 1) * HALF, PM_TIMER_HZ));
	else
		timer_set(&p->timer, TIMER_NEVER);
}

static void expired(void *ctx, uint64_t now)
{
	struct pm *p = ctx;

	catch_up(p);
	update(p);
}

void pm_power_button(struct pm *p)
{
	p->sts |= STS_PWRBTN;
	update(p);
}

/* The registers as four aligned doublewords. */
static uint32_t reg_read(struct pm *p, unsigned n)
{
	switch (n) {
	case 0: catch_up(p); return p->sts | (uint32_t)p->en << 16;
	case 1: return p->cnt | CNT_SCI_EN;
	case 2: return (uint32_t)ticks(p) & 0xffffff;
	default: return 0;
	}
}

static void write_cnt(struct pm *p, uint16_t val)
{
	p->cnt = val & 0x1c03; /* SLP_TYP, BM_RLD, SCI_EN */
	if ((val & CNT_SLP_EN) && (val >> 10 & 7) == PM_S5_TYPE)
		p->power_off(p->ctx);
}

/* Writes @val where @lanes has ones. */
static void reg_write(struct pm *p, unsigned n, uint32_t val, uint32_t lanes)
{
	switch (n) {
	case 0:
		catch_up(p);
		p->sts &= (uint16_t) ~(val & lanes & STS_VALID);
		p->en = (uint16_t)(((p->en & ~(lanes >> 16)) | (val & lanes) >> 16) & EN_VALID);
		update(p);
		break;
	case 1: write_cnt(p, (uint16_t)((p->cnt & ~lanes) | (val & lanes))); break;
	default: break;
	}
}

static uint64_t pm_read(void *dev, uint64_t off, unsigned size)
{
	return reg_read(dev, (unsigned)off / 4) >> (off & 3) * 8;
}

static void pm_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	uint32_t lanes = size >= 4 ? 0xffffffffu : (1u << size * 8) - 1;
	unsigned shift = (off & 3) * 8;

	reg_write(dev, (unsigned)off / 4, (uint32_t)val << shift, lanes << shift);
}

const struct bus_ops pm_ops = {pm_read, pm_write, 4};

uint8_t pm_rst_cnt_read(const struct pm *p)
{
	return p->rst_cnt;
}

void pm_rst_cnt_write(struct pm *p, uint8_t val)
{
	bool rose = (val & 4) && !(p->rst_cnt & 4);

	p->rst_cnt = val & 0x0a; /* RST_CPU reads back as 0 */
	if (rose)
		p->reset(p->ctx);
}

void pm_reset(struct pm *p)
{
	p->sts = p->en = p->cnt = 0;
	p->rst_cnt = 0;
	p->seen_half = ticks(p) / HALF;
	update(p);
}

void pm_init(struct pm *p, struct hclock *clock, struct timerq *q, struct irq_out sci)
{
	p->clock = clock;
	p->sci = sci;
	timer_init(&p->timer, q, expired, p);
	pm_reset(p);
}

/* ---- what is saved ---- */

static const struct save_row pm_save_rows[] = {
	SAVE(struct pm, sts),
	SAVE(struct pm, en),
	SAVE(struct pm, cnt),
	SAVE(struct pm, rst_cnt),
	SAVE(struct pm, seen_half),
	SAVE_OMIT(struct pm, clock, SAVE_WIRED),
	SAVE_BY(struct pm, timer, timer_save, timer_load),
	SAVE_OMIT(struct pm, sci, SAVE_WIRED),
	SAVE_OMIT(struct pm, power_off, SAVE_WIRED),
	SAVE_OMIT(struct pm, reset, SAVE_WIRED),
	SAVE_OMIT(struct pm, ctx, SAVE_WIRED),
};
SAVE_TABLE(pm_save, struct pm, "pm");
