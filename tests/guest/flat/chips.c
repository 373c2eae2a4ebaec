/*
 * The PC around the CPU: 8254, RTC, PM timer, UART, PCI configuration, ACPI
 * tables, and every way to reset.
 * Invariant: what has to outlive a reset is in struct life, in RAM that no image
 * is loaded to.
 */
#include "acpi.h"

struct life {
	uint64_t magic;
	unsigned stage, failures;
};
#define LIFE  ((volatile struct life *)0x3000000ul)
#define MAGIC 0x6c69666574696d65ull

static void wait_pit(unsigned ticks) /* channel 2, up to 65535 */
{
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0);
	outb(0x42, (uint8_t)ticks);
	outb(0x42, (uint8_t)(ticks >> 8));
	while (!(inb(0x61) & 0x20))
		;
}

/* ---- 8254 ---- */
static unsigned pit_count(unsigned ch)
{
	unsigned lo;

	outb(0x43, (uint8_t)(ch << 6)); /* latch */
	lo = inb((uint16_t)(0x40 + ch));
	return lo | (unsigned)inb((uint16_t)(0x40 + ch)) << 8;
}

static void pit(void)
{
	unsigned a, b, st, i, moved = 0;

	outb(0x43, 0x34);
	outb(0x40, 0x00);
	outb(0x40, 0x80); /* mode 2, 0x8000 */
	wait_pit(100);
	outb(0x43, 0xe2); /* read-back: status of channel 0 */
	st = inb(0x40);
	check("8254: status", (st & 0x3f) == 0x34, "%#x", st);
	check("8254: no null count once loaded", !(st & 0x40), "%#x", st);
	a = pit_count(0);
	wait_pit(300);
	b = pit_count(0);
	check("8254: counts down at its rate", a <= 0x8000 && ((a - b) & 0x7fff) >= 250, "%u then %u", a, b);
	outb(0x43, 0xd2); /* read-back: latch the count of channel 0 */
	wait_pit(200);
	a = inb(0x40);
	a |= (unsigned)inb(0x40) << 8;
	b = pit_count(0);
	check("8254: a latched count stands still", a != b, "%u then %u", a, b);
	outb(0x43, 0xc2); /* count and status: status is read first */
	st = inb(0x40);
	a = inb(0x40);
	a |= (unsigned)inb(0x40) << 8;
	check("8254: read-back of both", (st & 0x3f) == 0x34 && a <= 0x8000, "%#x %u", st, a);
	outb(0x43, 0x14); /* low byte only */
	outb(0x40, 200);
	for (i = 0; i < 50; i++)
		if (inb(0x40) <= 200)
			moved++;
	check("8254: low byte access", moved == 50, "%u of 50", moved);
	outb(0x43, 0x36); /* square wave */
	outb(0x40, 0);
	outb(0x40, 0);
	wait_pit(50);
	outb(0x43, 0xe2);
	st = inb(0x40);
	check("8254: mode 3 status", (st & 0x3f) == 0x36, "%#x", st);
	/* channel 2: output follows gate and count */
	outb(0x61, inb(0x61) & ~3);
	outb(0x43, 0xb0);
	outb(0x42, 10);
	outb(0x42, 0);
	for (i = 0; i < 2000; i++)
		(void)inb(0x61);
	SKIP_TCG("8254: a closed gate holds channel 2", "QEMU's counts on in mode 0")
	check("8254: a closed gate holds channel 2", !(inb(0x61) & 0x20), "out is high");
	outb(0x61, (inb(0x61) & ~2) | 1);
	for (i = 0; i < 100000 && !(inb(0x61) & 0x20); i++)
		;
	check("8254: an open one lets it count", inb(0x61) & 0x20, "out is low");
	outb(0x43, 0x30);
	outb(0x40, 0);
	outb(0x40, 0);
}

/* ---- RTC ---- */
static unsigned cmos(unsigned reg)
{
	outb(0x70, (uint8_t)reg);
	return inb(0x71);
}

static void cmos_write(unsigned reg, unsigned v)
{
	outb(0x70, (uint8_t)reg);
	outb(0x71, (uint8_t)v);
}

static unsigned from_bcd(unsigned v, bool bin)
{
	return bin ? v : (v >> 4) * 10 + (v & 15);
}

static void rtc(void)
{
	bool bin = cmos(0xb) & 4;
	unsigned s0, s1, i, v, c;

	check("RTC: battery good", cmos(0xd) & 0x80, "%#x", cmos(0xd));
	check("RTC: time base", (cmos(0xa) & 0x70) == 0x20, "%#x", cmos(0xa));
	check("RTC: a date",
	      from_bcd(cmos(8), bin) - 1 < 12 && from_bcd(cmos(7), bin) - 1 < 31 && from_bcd(cmos(4), bin) < 24 &&
		      from_bcd(cmos(2), bin) < 60,
	      "%x-%x %x:%x", cmos(8), cmos(7), cmos(4), cmos(2));
	v = from_bcd(cmos(9), bin);
	check("RTC: this century's year", v >= 24 && v < 99, "%u", v);
	while (cmos(0xa) & 0x80)
		;
	s0 = from_bcd(cmos(0), bin);
	(void)cmos(0xc);
	for (i = 0; i < 40 && !(cmos(0xc) & 0x10); i++)
		wait_pit(59659); /* 50 ms */
	check("RTC: update ends within two seconds", i < 40, "no update");
	s1 = from_bcd(cmos(0), bin);
	check("RTC: the second goes on", s1 != s0, "%u then %u", s0, s1);
	cmos_write(0xb, cmos(0xb) ^ 4);
	v = from_bcd(cmos(0), !bin);
	check("RTC: binary and BCD", v == s1 || v == (s1 + 1) % 60, "%u, %u", s1, v);
	cmos_write(0xb, cmos(0xb) ^ 4);
	v = cmos(0xa);
	cmos_write(0xa, (v & 0xf0) | 6); /* 1024 Hz */
	(void)cmos(0xc);
	wait_pit(2000);
	c = cmos(0xc);
	SKIP_TCG("RTC: periodic flag", "QEMU's needs the interrupt enabled")
	check("RTC: periodic flag", c & 0x40, "%#x", c);
	check("RTC: register C is cleared by reading", !(cmos(0xc) & 0x10), "set");
	cmos_write(0xa, v);
	cmos_write(0x50, 0x5a);
	cmos_write(0x51, 0xa5);
	check("CMOS memory", cmos(0x50) == 0x5a && cmos(0x51) == 0xa5, "%x %x", cmos(0x50), cmos(0x51));
}

/* ---- UART ---- */
static void uart(void)
{
	unsigned iir, lsr, v[6] = {0}, msr, i, scratch, dll;

	outb(0x3fc, 0x1b); /* loopback, OUT2, RTS, DTR; nothing may be printed until it is off */
	outb(0x3fa, 0x07);
	for (i = 0; i < 3; i++)
		outb(0x3f8, (uint8_t)(0x41 + i));
	for (i = 0; i < 100000 && !(inb(0x3fd) & 1); i++)
		;
	wait_pit(20000);
	lsr = inb(0x3fd);
	for (i = 0; i < 3; i++)
		v[i] = inb(0x3f8);
	v[3] = inb(0x3fd);
	msr = inb(0x3fe);
	outb(0x3f9, 1);
	outb(0x3f8, 0x55);
	wait_pit(20000);
	iir = inb(0x3fa);
	v[4] = inb(0x3f8);
	outb(0x3f9, 0);
	outb(0x3ff, 0x77);
	scratch = inb(0x3ff);
	outb(0x3fb, 0x83);
	dll = inb(0x3f8);
	outb(0x3f8, 0x0c);
	v[5] = inb(0x3f8);
	outb(0x3f8, (uint8_t)dll);
	outb(0x3fb, 3);
	outb(0x3fc, 0x0b);
	check("UART: loopback data ready", lsr & 1, "LSR %#x", lsr);
	check("UART: loopback data", v[0] == 0x41 && v[1] == 0x42 && v[2] == 0x43, "%x %x %x", v[0], v[1], v[2]);
	check("UART: receiver empty after", !(v[3] & 1), "LSR %#x", v[3]);
	check("UART: modem lines loop back", (msr & 0xf0) == 0xb0, "MSR %#x", msr);
	check("UART: received data interrupt", (iir & 0xc0) == 0xc0 && ((iir & 15) == 4 || (iir & 15) == 12), "IIR %#x",
	      iir);
	check("UART: the byte", v[4] == 0x55, "%#x", v[4]);
	check("UART: scratch register", scratch == 0x77, "%#x", scratch);
	check("UART: divisor latch", v[5] == 0x0c, "%#x", v[5]);
}

/* ---- keyboard controller ---- */
static void kbc(void)
{
	unsigned i;

	for (i = 0; i < 100 && inb(0x64) & 1; i++)
		(void)inb(0x60);
	outb(0x64, 0xaa);
	for (i = 0; i < 100000 && !(inb(0x64) & 1); i++)
		;
	check("8042: self test", inb(0x60) == 0x55, "no answer");
	check("A20 is on", inb(0x92) & 2, "%#x", inb(0x92));
}

/* ---- PCI ---- */
static uint32_t pci_read(unsigned bdf, unsigned reg)
{
	outl(0xcf8, 0x80000000u | bdf << 8 | (reg & 0xfc));
	return inl(0xcfc);
}

static void pci(void)
{
	uint32_t id = pci_read(0, 0), v;
	unsigned dev, found = 0;

	check("PCI: host bridge", (id & 0xffff) != 0xffff && (id & 0xffff) != 0, "%#x", id);
	check("PCI: it is one", pci_read(0, 8) >> 24 == 6, "class %#x", pci_read(0, 8));
	outl(0xcf8, 0x80000000);
	check("PCI: the address reads back", inl(0xcf8) == 0x80000000, "%#x", inl(0xcf8));
	check("PCI: bytes and words", inb(0xcfc) == (id & 0xff) && inw(0xcfe) == id >> 16 && inb(0xcff) == id >> 24,
	      "%#x %#x", inb(0xcfc), inw(0xcfe));
	for (dev = 0; dev < 32; dev++)
		found += pci_read(dev << 3, 0) != 0xffffffff;
	check("PCI: bus 0", found >= 1 && found < 32, "%u devices", found);
	check("PCI: nothing there reads as ones",
	      pci_read(31 << 3 | 7, 0) == 0xffffffff && pci_read(0xff00, 0) == 0xffffffff, "%#x", pci_read(0xff00, 0));
	v = pci_read(0, 0);
	outl(0xcfc, 0x12345678);
	check("PCI: identification is read only", pci_read(0, 0) == v, "%#x", pci_read(0, 0));
	outl(0xcf8, 0);
	check("PCI: disabled", inl(0xcfc) == 0xffffffff, "%#x", inl(0xcfc));
}

static void ecam(void)
{
	struct {
		struct acpi_header h;
		uint64_t res, base;
		uint16_t segment;
		uint8_t first, last;
	} __attribute__((packed)) *m = acpi_find("MCFG");
	struct batch b = {"ECAM agrees with mechanism 1", 0, 0};
	unsigned bdf, reg;

	if (!m) {
		skip(b.name, "no MCFG");
		return;
	}
	check("MCFG: an entry", m->h.length >= 44 + 16 && m->first == 0 && m->base != 0 && m->base >> 32 == 0,
	      "base %#llx", (long long)m->base);
	for (bdf = 0; bdf < 256; bdf++) {
		bool there = pci_read(bdf & ~7u, 0) != 0xffffffff;
		for (reg = 0; reg < 64; reg += there ? 4 : 64) {
			uint32_t e = *(volatile uint32_t *)(word)(m->base + (bdf << 12) + reg), c = pci_read(bdf, reg);
			batch_case(&b, e == c, "%x:%x: %#x, %#x", bdf, reg, e, c);
		}
	}
	batch_end(&b);
	if (m->last)
		check("ECAM: an empty bus",
		      *(volatile uint32_t *)(word)(m->base + ((uint32_t)m->last << 20)) == 0xffffffff, "something");
}

/* ---- ACPI ---- */
static void tables(void)
{
	struct acpi_rsdp *p = acpi_rsdp();
	struct acpi_header *h;
	struct acpi_fadt *f;
	struct batch b = {"ACPI: checksums", 0, 0};
	unsigned i;

	check("ACPI: RSDP", p != NULL, "none");
	if (!p)
		return;
	if (p->revision >= 2)
		batch_case(&b, acpi_sum_ok(p, p->length), "RSDP, extended");
	h = (void *)(word)(p->revision >= 2 && p->xsdt ? p->xsdt : p->rsdt);
	batch_case(&b, acpi_sum_ok(h, h->length), "root table");
	for (i = 0; (h = acpi_nth(p, i)); i++)
		batch_case(&b, acpi_sum_ok(h, h->length) && h->length >= 36, "table %u", i);
	f = acpi_find("FACP");
	check("ACPI: FADT", f != NULL, "none");
	if (f) {
		h = (void *)(word)f->dsdt;
		batch_case(&b, !memcmp(h->sig, "DSDT", 4) && acpi_sum_ok(h, h->length), "DSDT");
		check("ACPI: FACS", !f->facs || ((f->facs & 63) == 0 && !memcmp((void *)(word)f->facs, "FACS", 4)),
		      "%#x", f->facs);
		check("ACPI: PM blocks", f->pm1a_cnt && f->pm1a_evt && f->pm_tmr, "%#x %#x %#x", f->pm1a_evt,
		      f->pm1a_cnt, f->pm_tmr);
		check("ACPI: S5", acpi_s5(f) >= 0, "%d", acpi_s5(f));
	}
	batch_end(&b);
}

static void madt(void)
{
	struct acpi_header *h = acpi_find("APIC");
	uint8_t *e, *end;
	unsigned cpus = 0, ioapics = 0;
	bool timer = false;

	check("ACPI: MADT", h != NULL, "none");
	if (!h)
		return;
	check("MADT: local APIC address", *(uint32_t *)(h + 1) == 0xfee00000, "%#x", *(uint32_t *)(h + 1));
	end = (uint8_t *)h + h->length;
	for (e = (uint8_t *)(h + 1) + 8; e < end && e[1] >= 2; e += e[1]) {
		cpus += (e[0] == 0 && (e[4] & 1)) || e[0] == 9;
		if (e[0] == 1) {
			ioapics++;
			check("MADT: I/O APIC address", *(uint32_t *)(e + 4) == 0xfec00000, "%#x",
			      *(uint32_t *)(e + 4));
		}
		timer = timer || (e[0] == 2 && e[3] == 0 && *(uint32_t *)(e + 4) == 2);
	}
	check("MADT: entries end where the table does", e == end, "off by %d", (int)(e - end));
	check("MADT: one CPU, one I/O APIC", cpus == 1 && ioapics == 1, "%u, %u", cpus, ioapics);
	check("MADT: IRQ 0 is GSI 2", timer, "no override");
}

static void pm_timer(void)
{
	struct acpi_fadt *f = acpi_find("FACP");
	uint32_t a = 0, b = 0, mask;

	if (!f || !f->pm_tmr)
		return;
	mask = f->flags & 0x100 ? 0xffffffff : 0xffffff;
	for (int i = 0; i < 100; i++) { /* a host that is busy looks late at one of them */
		a = inl((uint16_t)f->pm_tmr);
		wait_pit(59659); /* 50 ms: 178977 ticks */
		b = inl((uint16_t)f->pm_tmr);
		if (((b - a) & mask) < 400000)
			break;
	}
	check("PM timer: 3.58 MHz", ((b - a) & mask) > 170000 && ((b - a) & mask) < 400000, "%u ticks in 50 ms",
	      (b - a) & mask);
	check("PM timer: upper byte", f->flags & 0x100 || a >> 24 == 0, "%#x", a);
}

/* ---- resets ---- */
static void triple_fault(void)
{
	struct dtr none = {0, 0};

	__asm__ volatile("lidt %0; ud2" ::"m"(none));
}

static void acpi_reset(void)
{
	struct acpi_fadt *f = acpi_find("FACP");

	if (f && f->h.length >= 129 && f->flags & 0x400 && f->reset_reg.space == 1)
		outb((uint16_t)f->reset_reg.addr, f->reset_value);
	else
		outb(0xcf9, 6); /* no such register: the usual one */
}

static void kbc_reset(void)
{
	while (inb(0x64) & 2)
		;
	outb(0x64, 0xfe);
}

static void cf9_reset(void)
{
	outb(0xcf9, 2);
	outb(0xcf9, 6);
}

/* What a reset must have done, and what it must have left. */
static void after_reset(const char *name)
{
	uint64_t base = rdmsr(0x1b);
	uint32_t svr = *(volatile uint32_t *)0xfee000f0ul;

	check(name, base & 0x100 && base & 0x800 && !(base & 0x400) && rd_cr0() & 1, "APIC base %#lx", (word)base);
	check("local APIC is off again", !(svr & 0x100) || cpu.tcg /* its firmware switches it on */, "SVR %#x", svr);
	check("debug registers are clear", rd_dr7() == 0x400 && rd_dr0() == 0, "%#lx %#lx", rd_dr7(), rd_dr0());
	check("LSTAR is clear", rdmsr(0xc0000082) == 0, "%#lx", (word)rdmsr(0xc0000082));
}

static void leave(unsigned stage, void (*how)(void))
{
	LIFE->stage = stage;
	LIFE->failures += rt_failures();
	print("# reset %u\n", stage);
	wr_dr0(0x1234);
	wr_dr7(0x401);
	wrmsr(0xc0000082, 0x5678);
	*(volatile uint32_t *)0xfee000f0ul = 0x1ff;
	how();
	for (volatile unsigned i = 0; i < 200000000; i++)
		;
	check("reset", false, "stage %u did not reset", stage);
	rt_exit(1);
}

void flat_main(void)
{
	if (LIFE->magic != MAGIC) {
		LIFE->magic = MAGIC;
		LIFE->stage = LIFE->failures = 0;
	}
	switch (LIFE->stage) {
	case 0:
		pit();
		rtc();
		uart();
		kbc();
		pci();
		ecam();
		tables();
		madt();
		pm_timer();
		leave(1, cf9_reset);
		break;
	case 1:
		after_reset("reset by 0xcf9");
		leave(2, kbc_reset);
		break;
	case 2:
		after_reset("reset by the keyboard controller");
		leave(3, acpi_reset);
		break;
	case 3:
		after_reset("reset by ACPI's register");
		leave(4, triple_fault);
		break;
	default:
		after_reset("reset by a triple fault");
		check("no failure in earlier lives", LIFE->failures == 0, "%u", LIFE->failures);
		LIFE->magic = 0;
	}
}
