/*
 * SMBIOS tables: what inventory tools ask for.  Firmware adds what it says of itself (type 0).
 *
 * Invariant: each structure ends with two zero bytes, and the anchor tells their number and size.
 */
#include "vcpu/boot/smbios.h"

#include <stdio.h>
#include <string.h>

#include "common/gmem.h"
#include "vcpu/boot/load.h"

enum {
	SYSTEM = 1,
	ENCLOSURE = 3,
	PROCESSOR = 4,
	MEMORY_ARRAY = 16,
	MEMORY_DEVICE = 17,
	MEMORY_MAP = 19,
	BOOT = 32,
	END = 127
};

struct writer {
	struct smbios *s;
	unsigned count, largest, start;
};

/* A structure of @len bytes without its strings; its bytes, cleared, or NULL. */
static uint8_t *begin(struct writer *w, uint8_t type, uint8_t len, uint16_t handle)
{
	uint8_t *p = w->s->tables + w->s->len;

	if (w->s->len + len + 256 > SMBIOS_TABLES_MAX)
		return NULL;
	memset(p, 0, len);
	p[0] = type;
	p[1] = len;
	put16(p + 2, handle);
	w->start = w->s->len;
	w->s->len += len;
	return p;
}

static void text(struct writer *w, const char *s)
{
	size_t n = strnlen(s, 63);

	memcpy(w->s->tables + w->s->len, s, n);
	w->s->tables[w->s->len + n] = 0;
	w->s->len += (uint32_t)n + 1;
}

static void finish(struct writer *w, bool strings)
{
	if (!strings)
		w->s->tables[w->s->len++] = 0;
	w->s->tables[w->s->len++] = 0;
	w->count++;
	if (w->s->len - w->start > w->largest)
		w->largest = w->s->len - w->start;
}

static void system_info(struct writer *w, const char *name)
{
	uint8_t *p = begin(w, SYSTEM, 27, 0x100);

	if (!p)
		return;
	p[4] = 1;
	p[5] = 2;
	p[7] = 3;
	p[24] = 6; /* woken up by the power switch */
	text(w, "HVX");
	text(w, "Standard PC (Q35 + ICH9)");
	text(w, name);
	finish(w, true);
}

static void enclosure(struct writer *w)
{
	uint8_t *p = begin(w, ENCLOSURE, 21, 0x300);

	if (!p)
		return;
	p[4] = 1;
	p[5] = 1;                 /* other */
	p[9] = p[10] = p[11] = 3; /* states: safe */
	p[12] = 2;
	text(w, "HVX");
	finish(w, true);
}

static void processor(struct writer *w, int i)
{
	uint8_t *p = begin(w, PROCESSOR, 42, (uint16_t)(0x400 + i));
	char socket[16];

	if (!p)
		return;
	snprintf(socket, sizeof socket, "CPU %d", i);
	p[4] = 1;
	p[5] = 3; /* a central processor */
	p[6] = 1; /* family: other */
	p[7] = 2;
	p[24] = 0x41; /* populated, enabled */
	p[25] = 1;
	put16(p + 26, 0xffff); /* caches: not told here */
	put16(p + 28, 0xffff);
	put16(p + 30, 0xffff);
	p[35] = p[36] = p[37] = 1;
	put16(p + 38, 4); /* 64 bits */
	text(w, socket);
	text(w, "HVX");
	finish(w, true);
}

static void memory(struct writer *w, uint64_t ram)
{
	uint8_t *p = begin(w, MEMORY_ARRAY, 23, 0x1000);
	uint64_t mib = ram >> 20;

	if (!p)
		return;
	p[4] = 1; /* other */
	p[5] = 3; /* system memory */
	p[6] = 6; /* multi-bit ECC */
	put32(p + 7, 0x80000000u);
	put16(p + 11, 0xfffe);
	put16(p + 13, 1);
	put64(p + 15, ram);
	finish(w, false);
	p = begin(w, MEMORY_DEVICE, 40, 0x1100);
	if (!p)
		return;
	put16(p + 4, 0x1000);
	put16(p + 6, 0xfffe);
	put16(p + 8, 0xffff);
	put16(p + 10, 0xffff);
	put16(p + 12, (uint16_t)(mib < 0x7fff ? mib : 0x7fff));
	p[14] = 9; /* DIMM */
	p[16] = 1;
	p[18] = 7; /* RAM */
	put16(p + 19, 2);
	p[23] = 2;
	put32(p + 28, mib < 0x7fff ? 0 : (uint32_t)mib);
	text(w, "DIMM 0");
	text(w, "HVX");
	finish(w, true);
}

static void memory_map(struct writer *w, uint64_t from, uint64_t end, uint16_t n)
{
	uint8_t *p = begin(w, MEMORY_MAP, 31, (uint16_t)(0x1300 + n));

	if (!p)
		return;
	put32(p + 4, 0xffffffffu); /* the 64-bit fields have it */
	put32(p + 8, 0xffffffffu);
	put16(p + 12, 0x1000);
	p[14] = 1;
	put64(p + 15, from);
	put64(p + 23, end - 1);
	finish(w, false);
}

static uint8_t sum(const uint8_t *p, unsigned n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return (uint8_t)-s;
}

/* The 32-bit entry point; the address of the tables and what depends on it are the firmware's. */
static void anchor(struct smbios *s, const struct writer *w)
{
	uint8_t *a = s->anchor;

	memset(a, 0, sizeof s->anchor);
	memcpy(a, "_SM_", 4);
	a[5] = SMBIOS_ANCHOR_LEN;
	a[6] = 2;
	a[7] = 8;
	put16(a + 8, (uint16_t)w->largest);
	memcpy(a + 16, "_DMI_", 5);
	put16(a + 22, (uint16_t)s->len);
	put16(a + 28, (uint16_t)w->count);
	a[30] = 0x28;
	a[21] = sum(a + 16, 15);
	a[4] = sum(a, SMBIOS_ANCHOR_LEN);
}

#define PROCESSORS 16 /* further ones look the same, and the list is short */

void smbios_build(struct smbios *s, const char *name, int ncpus, uint64_t ram)
{
	struct writer w = {.s = s};
	uint64_t low = ram < GMEM_LOW_MAX ? ram : GMEM_LOW_MAX;
	uint8_t *p;

	s->len = 0;
	system_info(&w, name);
	enclosure(&w);
	for (int i = 0; i < ncpus && i < PROCESSORS; i++)
		processor(&w, i);
	memory(&w, ram);
	memory_map(&w, 0, low, 0);
	if (ram > low)
		memory_map(&w, GMEM_HIGH_BASE, GMEM_HIGH_BASE + ram - low, 1);
	if (begin(&w, BOOT, 11, 0x2000))
		finish(&w, false);
	p = begin(&w, END, 4, 0x7f00);
	if (p)
		finish(&w, false);
	anchor(s, &w);
}
