/*
 * MC146818 real-time clock (Motorola MC146818 data sheet).  Time is the host's
 * plus an offset that changes when the guest sets the clock.
 *
 * Invariant: register C is brought up to date by catch_up() before anything
 * looks at it; the timer only runs while some interrupt is enabled.
 */
#include "vcpu/chipset/mc146818.h"

#include <time.h>

#include "vcpu/chipset/savechips.h"

enum { SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WDAY, MDAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D };

#define A_UIP  0x80
#define B_SET  0x80
#define B_PIE  0x40
#define B_AIE  0x20
#define B_UIE  0x10
#define B_BIN  0x04
#define B_24H  0x02
#define C_IRQF 0x80
#define UIP_NS 244000u
#define SEC_NS 1000000000u
#define DAY    86400u

static uint64_t host_realtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * SEC_NS + (uint64_t)ts.tv_nsec;
}

/* ---- calendar, proleptic Gregorian ---- */
static int64_t days_from_civil(int64_t y, unsigned m, unsigned d)
{
	int64_t era;
	unsigned yoe, doy;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = (unsigned)(y - era * 400);
	doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
	return era * 146097 + (int64_t)(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
}

static void civil_from_days(int64_t z, unsigned *y, unsigned *m, unsigned *d)
{
	unsigned doe, yoe, doy, mp;
	int64_t era;

	z += 719468;
	era = (z >= 0 ? z : z - 146096) / 146097;
	doe = (unsigned)(z - era * 146097);
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	*d = doy - (153 * mp + 2) / 5 + 1;
	*m = mp < 10 ? mp + 3 : mp - 9;
	*y = (unsigned)((int64_t)yoe + era * 400 + (*m <= 2));
}

/* ---- register formats ---- */
static uint8_t encode(const struct mc146818 *r, unsigned n)
{
	return (uint8_t)(r->cmos[REG_B] & B_BIN ? n : n / 10 << 4 | n % 10);
}

static unsigned decode(const struct mc146818 *r, uint8_t n)
{
	return r->cmos[REG_B] & B_BIN ? n : (n >> 4) * 10u + (n & 15);
}

static uint8_t encode_hour(const struct mc146818 *r, unsigned h)
{
	if (r->cmos[REG_B] & B_24H)
		return encode(r, h);
	return (uint8_t)(encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0));
}

static unsigned decode_hour(const struct mc146818 *r, uint8_t n)
{
	if (r->cmos[REG_B] & B_24H)
		return decode(r, n);
	return decode(r, n & 0x7f) % 12 + (n & 0x80 ? 12 : 0);
}

static uint64_t now_ns(const struct mc146818 *r)
{
	return r->realtime() + (uint64_t)r->offset * SEC_NS;
}

/* Time registers from the running clock. */
static void show(struct mc146818 *r)
{
	uint64_t s = now_ns(r) / SEC_NS;
	unsigned y, m, d;

	if (r->cmos[REG_B] & B_SET)
		return;
	civil_from_days((int64_t)(s / DAY), &y, &m, &d);
	r->cmos[SEC] = encode(r, s % 60);
	r->cmos[MIN] = encode(r, s / 60 % 60);
	r->cmos[HOUR] = encode_hour(r, s / 3600 % 24);
	r->cmos[WDAY] = encode(r, (unsigned)((s / DAY + 4) % 7) + 1);
	r->cmos[MDAY] = encode(r, d);
	r->cmos[MONTH] = encode(r, m);
	r->cmos[YEAR] = encode(r, y % 100);
	r->cmos[MC146818_CENTURY] = (uint8_t)(y / 1000 % 10 << 4 | y / 100 % 10);
}

/* The running clock from the time registers. */
static void adopt(struct mc146818 *r)
{
	unsigned century = (r->cmos[MC146818_CENTURY] >> 4) * 10u + (r->cmos[MC146818_CENTURY] & 15);
	unsigned month = decode(r, r->cmos[MONTH]), mday = decode(r, r->cmos[MDAY]);
	int64_t s;

	if (century < 19 || century > 25)
		century = 20;
	month = month < 1 ? 1 : month > 12 ? 12 : month;
	s = days_from_civil(century * 100 + decode(r, r->cmos[YEAR]), month, mday ? mday : 1) * DAY;
	s += decode_hour(r, r->cmos[HOUR]) * 3600 + decode(r, r->cmos[MIN]) * 60 + decode(r, r->cmos[SEC]);
	if (s < 0)
		s = 0;
	r->offset = s - (int64_t)(r->realtime() / SEC_NS);
	r->seen_sec = (uint64_t)s;
}

/* ---- interrupts ---- */
static uint64_t periodic_ns(const struct mc146818 *r)
{
	unsigned rate = r->cmos[REG_A] & 15;

	if (!rate)
		return 0;
	if (rate < 3)
		rate += 7;
	return ((uint64_t)SEC_NS << (rate - 1)) / 32768;
}

static bool field_matches(uint8_t alarm, unsigned value, unsigned alarm_value)
{
	return alarm >= 0xc0 || value == alarm_value; /* 0xc0 and above: don't care */
}

static bool alarm_at(const struct mc146818 *r, uint64_t s)
{
	const uint8_t *c = r->cmos;

	return field_matches(c[SEC_ALARM], s % 60, decode(r, c[SEC_ALARM])) &&
	       field_matches(c[MIN_ALARM], s / 60 % 60, decode(r, c[MIN_ALARM])) &&
	       field_matches(c[HOUR_ALARM], s / 3600 % 24, decode_hour(r, c[HOUR_ALARM]));
}

static void catch_up_seconds(struct mc146818 *r, uint64_t sec)
{
	uint64_t s = r->seen_sec + 1;

	if (sec <= r->seen_sec) {
		r->seen_sec = sec; /* the host's clock was set back */
		return;
	}
	r->cmos[REG_C] |= B_UIE;
	if (sec - s > DAY)
		s = sec - DAY; /* an alarm repeats daily at the latest */
	for (; s <= sec && !(r->cmos[REG_C] & B_AIE); s++)
		if (alarm_at(r, s))
			r->cmos[REG_C] |= B_AIE;
	r->seen_sec = sec;
}

static void catch_up(struct mc146818 *r)
{
	uint64_t ns = now_ns(r), period = periodic_ns(r), tick;

	if (!(r->cmos[REG_B] & B_SET))
		catch_up_seconds(r, ns / SEC_NS);
	if (period) {
		tick = hclock_now(r->clock) / period;
		if (tick != r->seen_tick)
			r->cmos[REG_C] |= B_PIE;
		r->seen_tick = tick;
	}
	if (r->cmos[REG_C] & r->cmos[REG_B] & (B_PIE | B_AIE | B_UIE))
		r->cmos[REG_C] |= C_IRQF;
	irq_set(&r->irq, r->cmos[REG_C] & C_IRQF);
}

/* Next moment at which an enabled flag may rise. */
static void schedule(struct mc146818 *r)
{
	uint64_t now = hclock_now(r->clock), period = periodic_ns(r), next = TIMER_NEVER;
	uint8_t b = r->cmos[REG_B];

	if ((b & B_PIE) && period)
		next = (now / period + 1) * period;
	if ((b & (B_UIE | B_AIE)) && !(b & B_SET)) {
		uint64_t left = now + SEC_NS - now_ns(r) % SEC_NS;

		next = left < next ? left : next;
	}
	timer_set(&r->timer, next);
}

static void expired(void *ctx, uint64_t now)
{
	struct mc146818 *r = ctx;

	catch_up(r);
	schedule(r);
}

/* A new rate or mode: ticks are counted from here. */
static void restart(struct mc146818 *r)
{
	uint64_t period = periodic_ns(r);

	if (period)
		r->seen_tick = hclock_now(r->clock) / period;
	catch_up(r);
	schedule(r);
}

/* ---- registers ---- */
static bool is_time(unsigned n)
{
	return n == SEC || n == MIN || n == HOUR || (n >= WDAY && n <= YEAR) || n == MC146818_CENTURY;
}

static uint8_t read_a(struct mc146818 *r)
{
	bool uip = !(r->cmos[REG_B] & B_SET) && now_ns(r) % SEC_NS >= SEC_NS - UIP_NS;

	return (uint8_t)((r->cmos[REG_A] & ~A_UIP) | (uip ? A_UIP : 0));
}

static uint8_t read_c(struct mc146818 *r)
{
	uint8_t val;

	catch_up(r);
	val = r->cmos[REG_C];
	r->cmos[REG_C] = 0;
	irq_set(&r->irq, false);
	return val;
}

static void write_b(struct mc146818 *r, uint8_t val)
{
	uint8_t old = r->cmos[REG_B];

	catch_up(r);
	if ((val & B_SET) && !(old & B_SET)) {
		show(r);
		val &= (uint8_t)~B_UIE; /* SET clears UIE */
	}
	r->cmos[REG_B] = val;
	if (!(val & B_SET) && (old & B_SET))
		adopt(r);
	if (!(r->cmos[REG_C] & val & (B_PIE | B_AIE | B_UIE)))
		r->cmos[REG_C] &= (uint8_t)~C_IRQF;
	restart(r);
}

static void reg_write(struct mc146818 *r, unsigned n, uint8_t val)
{
	switch (n) {
	case REG_A:
		catch_up(r);
		r->cmos[REG_A] = val & (uint8_t)~A_UIP;
		restart(r);
		break;
	case REG_B: write_b(r, val); break;
	case REG_C:
	case REG_D: break; /* read only */
	default:
		if (!is_time(n)) {
			r->cmos[n] = val;
			break;
		}
		show(r);
		r->cmos[n] = val;
		if (!(r->cmos[REG_B] & B_SET))
			adopt(r);
	}
}

static uint64_t mc146818_read(void *dev, uint64_t off, unsigned size)
{
	struct mc146818 *r = dev;

	if (!(off & 1))
		return 0xff; /* the index is write-only */
	if (r->index == REG_A)
		return read_a(r);
	if (r->index == REG_C)
		return read_c(r);
	if (is_time(r->index))
		show(r);
	return r->cmos[r->index];
}

static void mc146818_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct mc146818 *r = dev;

	if (!(off & 1))
		r->index = val & 0x7f; /* bit 7 masks NMI: there is no source for it here */
	else
		reg_write(r, r->index, (uint8_t)val);
}

const struct bus_ops mc146818_ops = {mc146818_read, mc146818_write, 1};

/* RAM sizes where firmware and old kernels look for them. */
static void tell_memory(struct mc146818 *r, uint64_t low, uint64_t high)
{
	uint64_t ext = low > 1 << 20 ? (low - (1 << 20)) >> 10 : 0;
	uint64_t above16 = low > 16 << 20 ? (low - (16 << 20)) >> 16 : 0;

	ext = ext > 0xffff ? 0xffff : ext;
	above16 = above16 > 0xffff ? 0xffff : above16;
	r->cmos[0x15] = 640 & 0xff;
	r->cmos[0x16] = 640 >> 8;
	r->cmos[0x17] = r->cmos[0x30] = (uint8_t)ext;
	r->cmos[0x18] = r->cmos[0x31] = (uint8_t)(ext >> 8);
	r->cmos[0x34] = (uint8_t)above16;
	r->cmos[0x35] = (uint8_t)(above16 >> 8);
	for (unsigned i = 0; i < 3; i++)
		r->cmos[0x5b + i] = (uint8_t)(high >> (16 + 8 * i));
}

void mc146818_reset(struct mc146818 *r)
{
	r->cmos[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | 0x08);
	r->cmos[REG_C] = 0;
	r->index = 0;
	irq_set(&r->irq, false);
	schedule(r);
}

void mc146818_init(struct mc146818 *r, struct hclock *clock, struct timerq *q, struct irq_out irq, uint64_t ram_low,
		   uint64_t ram_high)
{
	for (unsigned i = 0; i < sizeof(r->cmos); i++)
		r->cmos[i] = 0;
	r->cmos[REG_A] = 0x26;
	r->cmos[REG_B] = B_24H;
	r->cmos[REG_D] = 0x80;
	r->cmos[0x14] = 0x02; /* equipment: a coprocessor */
	r->offset = 0;
	if (!r->realtime)
		r->realtime = host_realtime;
	r->clock = clock;
	r->irq = irq;
	r->seen_sec = now_ns(r) / SEC_NS;
	r->seen_tick = 0;
	tell_memory(r, ram_low, ram_high);
	timer_init(&r->timer, q, expired, r);
	mc146818_reset(r);
}

/* ---- what is saved ---- */

static const struct save_row mc146818_save_rows[] = {
	SAVE_ARRAY(struct mc146818, cmos),
	SAVE_MAX(struct mc146818, index, 127),
	SAVE(struct mc146818, offset),
	SAVE(struct mc146818, seen_sec),
	SAVE(struct mc146818, seen_tick),
	SAVE_OMIT(struct mc146818, realtime, SAVE_WIRED),
	SAVE_OMIT(struct mc146818, clock, SAVE_WIRED),
	SAVE_BY(struct mc146818, timer, timer_save, timer_load),
	SAVE_OMIT(struct mc146818, irq, SAVE_WIRED),
};
SAVE_TABLE(mc146818_save, struct mc146818, "mc146818");
