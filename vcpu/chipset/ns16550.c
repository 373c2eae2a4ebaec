/*
 * 16550A UART (National PC16550D data sheet).  Characters take no time: the
 * transmitter is empty at once, the receiver is refilled as it is read.
 *
 * Invariant: bytes reach the fd in the order the guest sent them; they wait in
 * tx[] for the end of a line, for a full buffer or for FLUSH_NS, whichever
 * comes first, so that a line of kernel log costs one system call.
 */
#include "vcpu/chipset/ns16550.h"

#include <errno.h>
#include <unistd.h>

#include "vcpu/chipset/savechips.h"

#define FLUSH_NS 500000u     /* bytes wait at most this long for company */
#define RETRY_NS 1000000u    /* attempts while the fd takes nothing */
#define STALL_NS 2000000000u /* after so long the guest is no longer held up: bytes are dropped */
#define FLUSH_AT 256u
#define LISTENS  4 /* LSR reads in a row that make a polling reader */

#define IER_RX   0x01
#define IER_TX   0x02
#define IER_LINE 0x04
#define IER_MSR  0x08
#define FCR_ON   0x01
#define LCR_DLAB 0x80
#define MCR_LOOP 0x10
#define LSR_DR   0x01
#define LSR_OE   0x02
#define LSR_ERR  0x1e
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

/* ---- interrupts ---- */
static unsigned trigger(const struct ns16550 *u)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return u->fcr & FCR_ON ? level[u->fcr >> 6] : 1;
}

/*
 * Drivers clear the receiver and read it empty when they open a port, which would eat what was typed (or piped in)
 * before.  So bytes come only to a guest that listens: by interrupt, or by reading LSR again and again; and into
 * the receiver only when it looks there (drivers also flip all interrupts on and off to see the register work).
 */
static bool held_back(const struct ns16550 *u)
{
	if (u->ier & IER_RX)
		return false;
	return u->polls < LISTENS || u->fifo_n;
}

static bool rx_waiting(const struct ns16550 *u)
{
	return u->rx_n && !(u->mcr & MCR_LOOP) && !held_back(u);
}

static uint8_t interrupt_id(const struct ns16550 *u)
{
	if ((u->ier & IER_LINE) && (u->lsr & LSR_ERR))
		return 0x06;
	if ((u->ier & IER_RX) && ((u->lsr & LSR_DR) || rx_waiting(u)))
		return u->fifo_n >= trigger(u) ? 0x04 : 0x0c; /* below the level the time-out has already passed */
	if ((u->ier & IER_TX) && u->thri)
		return 0x02;
	if ((u->ier & IER_MSR) && (u->msr & 0x0f))
		return 0x00;
	return 0x01;
}

/* OUT2 is not made a gate of the line: guests that forget it work elsewhere too. */
static void update(struct ns16550 *u)
{
	irq_set(&u->irq, interrupt_id(u) != 0x01);
}

/* ---- receiver ---- */
static unsigned fifo_size(const struct ns16550 *u)
{
	return u->fcr & FCR_ON ? NS16550_FIFO : 1;
}

static void receive(struct ns16550 *u, uint8_t byte)
{
	if (u->fifo_n == fifo_size(u)) {
		u->lsr |= LSR_OE;
		return;
	}
	u->fifo[(u->fifo_head + u->fifo_n++) % NS16550_FIFO] = byte;
	u->lsr |= LSR_DR;
}

static void refill(struct ns16550 *u)
{
	while (rx_waiting(u) && u->fifo_n < fifo_size(u)) {
		receive(u, u->rx[u->rx_head]);
		u->rx_head = (u->rx_head + 1) % NS16550_RX;
		u->rx_n--;
	}
}

static void fifo_clear(struct ns16550 *u)
{
	u->fifo_head = u->fifo_n = 0;
	u->lsr &= (uint8_t)~LSR_DR;
}

static uint8_t read_rbr(struct ns16550 *u)
{
	if (!u->fifo_n)
		refill(u);
	if (u->fifo_n) {
		u->rbr = u->fifo[u->fifo_head];
		u->fifo_head = (u->fifo_head + 1) % NS16550_FIFO;
		if (!--u->fifo_n)
			u->lsr &= (uint8_t)~LSR_DR;
	}
	refill(u);
	update(u);
	return u->rbr;
}

size_t ns16550_room(const struct ns16550 *u)
{
	return NS16550_RX - u->rx_n;
}

size_t ns16550_input(struct ns16550 *u, const uint8_t *buf, size_t len)
{
	size_t n = len < ns16550_room(u) ? len : ns16550_room(u);

	for (size_t i = 0; i < n; i++)
		u->rx[(u->rx_head + u->rx_n++) % NS16550_RX] = buf[i];
	update(u);
	return n;
}

/* ---- transmitter ---- */
static void tx_room(struct ns16550 *u)
{
	if (u->lsr & LSR_THRE)
		return;
	u->lsr |= LSR_THRE | LSR_TEMT;
	u->thri = true;
	update(u);
}

static void tx_consume(struct ns16550 *u, size_t n)
{
	u->tx_head = (unsigned)(u->tx_head + n) % NS16550_TX;
	u->tx_n -= (unsigned)n;
	u->stalled = 0;
}

/* The fd took nothing.  The guest waits for it (the transmitter is busy when tx[] is full), but not for ever. */
static void tx_stalled(struct ns16550 *u)
{
	uint64_t now = hclock_now(u->clock);

	if (!u->stalled)
		u->stalled = now;
	timer_set(&u->timer, now + RETRY_NS);
	if (now - u->stalled < STALL_NS || u->tx_n < NS16550_TX)
		return;
	u->dropped += u->tx_n;
	u->tx_n = 0;
}

void ns16550_flush(struct ns16550 *u)
{
	unsigned part;
	ssize_t n;

	timer_set(&u->timer, TIMER_NEVER);
	while (u->tx_n) {
		part = NS16550_TX - u->tx_head;
		part = part < u->tx_n ? part : u->tx_n;
		n = write(u->out, u->tx + u->tx_head, part);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			tx_stalled(u);
			break;
		}
		tx_consume(u, n > 0 ? (size_t)n : part); /* the other end is gone: nobody to tell */
	}
	if (u->tx_n < NS16550_TX)
		tx_room(u);
}

static void tx_timer(void *ctx, uint64_t now)
{
	ns16550_flush(ctx);
}

static void transmit(struct ns16550 *u, uint8_t byte)
{
	if (u->out < 0)
		return;
	if (u->tx_n == NS16550_TX) /* the guest does not look at THRE */
		return;
	u->tx[(u->tx_head + u->tx_n++) % NS16550_TX] = byte;
	if (u->stalled) {
		if (u->tx_n == NS16550_TX)
			u->lsr &= (uint8_t) ~(LSR_THRE | LSR_TEMT);
	} else if (byte == '\n' || u->tx_n >= FLUSH_AT) {
		ns16550_flush(u);
	} else if (u->timer.slot < 0) {
		timer_set(&u->timer, hclock_now(u->clock) + FLUSH_NS);
	}
}

static void write_thr(struct ns16550 *u, uint8_t byte)
{
	u->thri = false;
	update(u); /* the line falls, so that "empty again" is an edge */
	if (u->mcr & MCR_LOOP)
		receive(u, byte);
	else
		transmit(u, byte);
	if (u->lsr & LSR_THRE)
		u->thri = true;
	update(u);
}

/* ---- modem ---- */
static uint8_t modem_lines(const struct ns16550 *u)
{
	uint8_t m = u->mcr;

	if (m & MCR_LOOP) /* RTS, DTR, OUT1, OUT2 come back as CTS, DSR, RI, DCD */
		return (uint8_t)((m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4);
	return u->wired ? 0xb0 : 0;
}

static void modem_update(struct ns16550 *u)
{
	uint8_t now = modem_lines(u), changed = (now ^ u->msr) & 0xf0;
	uint8_t delta = changed >> 4 & 0x0b;

	if ((changed & 0x40) && !(now & 0x40))
		delta |= 4; /* RI: trailing edge */
	u->msr = (uint8_t)(now | (u->msr & 0x0f) | delta);
}

static void write_mcr(struct ns16550 *u, uint8_t val)
{
	u->mcr = val & 0x1f;
	modem_update(u);
	update(u);
}

/* ---- registers ---- */
static void write_ier(struct ns16550 *u, uint8_t val)
{
	if ((val & IER_TX) && !(u->ier & IER_TX) && (u->lsr & LSR_THRE))
		u->thri = true;
	u->ier = val & 0x0f;
	update(u);
}

static void write_fcr(struct ns16550 *u, uint8_t val)
{
	if (((val ^ u->fcr) & FCR_ON) || (val & 2))
		fifo_clear(u);
	u->fcr = val & FCR_ON ? val & 0xc9 : 0;
	update(u);
}

static uint8_t read_iir(struct ns16550 *u)
{
	uint8_t id;

	refill(u);
	id = interrupt_id(u);
	if (id == 0x02) {
		u->thri = false;
		update(u);
	}
	return (uint8_t)(id | (u->fcr & FCR_ON ? 0xc0 : 0));
}

static uint8_t read_lsr(struct ns16550 *u)
{
	uint8_t val;

	if (u->polls < LISTENS)
		u->polls++;
	refill(u);
	val = u->lsr;
	if (val & LSR_ERR) {
		u->lsr &= (uint8_t)~LSR_ERR;
		update(u);
	}
	return val;
}

static uint8_t read_msr(struct ns16550 *u)
{
	uint8_t val = u->msr;

	if (val & 0x0f) {
		u->msr &= 0xf0;
		update(u);
	}
	return val;
}

static uint64_t ns16550_read(void *dev, uint64_t off, unsigned size)
{
	struct ns16550 *u = dev;
	bool dlab = u->lcr & LCR_DLAB;

	if (off != 5)
		u->polls = 0;
	switch (off) {
	case 0: return dlab ? u->dll : read_rbr(u);
	case 1: return dlab ? u->dlm : u->ier;
	case 2: return read_iir(u);
	case 3: return u->lcr;
	case 4: return u->mcr;
	case 5: return read_lsr(u);
	case 6: return read_msr(u);
	default: return u->scr;
	}
}

static void ns16550_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct ns16550 *u = dev;
	bool dlab = u->lcr & LCR_DLAB;
	uint8_t b = (uint8_t)val;

	u->polls = 0;
	switch (off) {
	case 0:
		if (dlab)
			u->dll = b;
		else
			write_thr(u, b);
		break;
	case 1:
		if (dlab)
			u->dlm = b;
		else
			write_ier(u, b);
		break;
	case 2: write_fcr(u, b); break;
	case 3: u->lcr = b; break;
	case 4: write_mcr(u, b); break;
	case 7: u->scr = b; break;
	default: break; /* LSR and MSR: factory test only */
	}
}

const struct bus_ops ns16550_ops = {ns16550_read, ns16550_write, 1};

void ns16550_reset(struct ns16550 *u)
{
	if (u->tx_n)
		ns16550_flush(u);
	u->ier = u->fcr = u->lcr = u->mcr = u->scr = u->dlm = u->rbr = 0;
	u->dll = 12; /* 9600 baud */
	u->lsr = LSR_THRE | LSR_TEMT;
	u->msr = modem_lines(u);
	u->thri = false;
	u->polls = 0;
	u->fifo_head = u->fifo_n = 0;
	update(u);
}

void ns16550_init(struct ns16550 *u, struct hclock *clock, struct timerq *q, struct irq_out irq, int out, bool wired)
{
	u->clock = clock;
	u->irq = irq;
	u->out = out;
	u->wired = wired;
	u->rx_head = u->rx_n = u->tx_head = u->tx_n = 0;
	u->stalled = u->dropped = 0;
	timer_init(&u->timer, q, tx_timer, u);
	ns16550_reset(u);
}

/* ---- what is saved ---- */

static const struct save_row ns16550_save_rows[] = {
	SAVE(struct ns16550, ier),
	SAVE(struct ns16550, fcr),
	SAVE(struct ns16550, lcr),
	SAVE(struct ns16550, mcr),
	SAVE(struct ns16550, lsr),
	SAVE(struct ns16550, msr),
	SAVE(struct ns16550, scr),
	SAVE(struct ns16550, dll),
	SAVE(struct ns16550, dlm),
	SAVE(struct ns16550, rbr),
	SAVE(struct ns16550, polls),
	SAVE(struct ns16550, thri),
	SAVE_OMIT(struct ns16550, out, SAVE_WIRED),
	SAVE_OMIT(struct ns16550, wired, SAVE_WIRED),
	SAVE_ARRAY(struct ns16550, fifo),
	SAVE_MAX(struct ns16550, fifo_head, NS16550_FIFO - 1),
	SAVE_MAX(struct ns16550, fifo_n, NS16550_FIFO),
	SAVE_ARRAY(struct ns16550, rx),
	SAVE_MAX(struct ns16550, rx_head, NS16550_RX - 1),
	SAVE_MAX(struct ns16550, rx_n, NS16550_RX),
	SAVE_ARRAY(struct ns16550, tx),
	SAVE_MAX(struct ns16550, tx_head, NS16550_TX - 1),
	SAVE_MAX(struct ns16550, tx_n, NS16550_TX),
	SAVE(struct ns16550, stalled),
	SAVE(struct ns16550, dropped),
	SAVE_OMIT(struct ns16550, clock, SAVE_WIRED),
	SAVE_BY(struct ns16550, timer, timer_save, timer_load),
	SAVE_OMIT(struct ns16550, irq, SAVE_WIRED),
};
SAVE_TABLE(ns16550_save, struct ns16550, "16550");
