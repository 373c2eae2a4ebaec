/*
 * Items for the firmware.  All multi-byte fields of the directory and of requests are big-endian.
 *
 * Invariant: a request is bounded by the item it reads: what it asks for beyond its end reads as zeros, for at most ZEROS
 * bytes.
 */
#include "vcpu/chipset/fwcfg.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/chipset/savechips.h"

#define ZEROS (1u << 20)
#define CHUNK 4096u

/* control word of a request */
#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u

static void put_be32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static struct fwcfg_item *find(struct fwcfg *f, uint16_t key)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

/* ---- items ---- */

static struct fwcfg_item *add(struct fwcfg *f, uint16_t key, int *err)
{
	struct fwcfg_item *it = &f->item[f->n];

	*err = find(f, key) ? -EEXIST : f->n == FWCFG_ITEMS ? -ENOSPC : 0;
	if (*err)
		return NULL;
	*it = (struct fwcfg_item){.key = key, .fd = -1};
	f->n++;
	return it;
}

int fwcfg_add(struct fwcfg *f, uint16_t key, const void *data, uint32_t len)
{
	int err;
	struct fwcfg_item *it = add(f, key, &err);

	if (!it)
		return err;
	it->data = data;
	it->len = len;
	return 0;
}

int fwcfg_add_part(struct fwcfg *f, uint16_t key, int fd, uint64_t from, uint32_t len)
{
	int err;
	struct fwcfg_item *it = add(f, key, &err);

	if (!it)
		return err;
	it->fd = fd;
	it->from = from;
	it->len = len;
	return 0;
}

/* The directory: a count, then size, key, two zeros and name of each file. */
static void list(struct fwcfg *f)
{
	uint32_t n = 0;
	uint8_t *p = f->dir + 4;

	for (unsigned i = 0; i < f->n; i++) {
		const struct fwcfg_item *it = &f->item[i];

		if (!it->name[0])
			continue;
		put_be32(p, it->len);
		put_be32(p + 4, (uint32_t)it->key << 16);
		for (unsigned k = 0; k < FWCFG_NAME; k++)
			p[8 + k] = (uint8_t)it->name[k];
		p += 64;
		n++;
	}
	put_be32(f->dir, n);
	fwcfg_set(f, FWCFG_DIR, f->dir, (uint32_t)(p - f->dir));
}

int fwcfg_add_file(struct fwcfg *f, const char *name, const void *data, uint32_t len)
{
	uint16_t key = FWCFG_FILES;

	for (unsigned i = 0; i < f->n; i++) {
		if (!strcmp(f->item[i].name, name))
			return -EEXIST;
		key += f->item[i].name[0] != '\0';
	}
	if (strlen(name) >= FWCFG_NAME)
		return -ENOSPC;
	int err = fwcfg_add(f, key, data, len);
	if (err)
		return err;
	memcpy(f->item[f->n - 1].name, name, strlen(name));
	list(f);
	return key;
}

void fwcfg_set(struct fwcfg *f, uint16_t key, const void *data, uint32_t len)
{
	struct fwcfg_item *it = find(f, key);

	if (!it)
		return;
	bool changed = it->name[0] && it->len != len;
	it->data = data;
	it->len = len;
	if (changed)
		list(f);
}

/* ---- reading ---- */

static void choose(struct fwcfg *f, uint16_t key)
{
	f->key = key;
	f->offset = 0;
	if (f->selected)
		f->selected(f->ctx, key);
}

/* The next @n bytes of the chosen item, which has them. */
static bool fetch(struct fwcfg *f, const struct fwcfg_item *it, uint8_t *buf, uint32_t n)
{
	if (it->data) {
		for (uint32_t i = 0; i < n; i++)
			buf[i] = it->data[f->offset + i];
		f->offset += n;
		return true;
	}
	for (uint32_t done = 0; done < n;) {
		ssize_t got = pread(it->fd, buf + done, n - done, (off_t)(it->from + f->offset));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false; /* the file has become shorter */
		done += (uint32_t)got;
		f->offset += (uint32_t)got;
	}
	return true;
}

static uint32_t left(const struct fwcfg *f, const struct fwcfg_item *it)
{
	return it && f->offset < it->len ? it->len - f->offset : 0;
}

static uint8_t next_byte(struct fwcfg *f)
{
	const struct fwcfg_item *it = find(f, f->key);
	uint8_t b = 0;

	return left(f, it) && fetch(f, it, &b, 1) ? b : 0;
}

static bool copy_out(struct fwcfg *f, uint64_t gpa, uint32_t len)
{
	const struct fwcfg_item *it = find(f, f->key);
	static uint8_t buf[CHUNK]; /* one machine, under its lock */
	uint32_t n, have;

	if (len > left(f, it) && len - left(f, it) > ZEROS)
		return false;
	for (; len; len -= n, gpa += n) {
		n = len < CHUNK ? len : CHUNK;
		have = left(f, it) < n ? left(f, it) : n;
		if (have && !fetch(f, it, buf, have))
			return false;
		for (uint32_t i = have; i < n; i++)
			buf[i] = 0;
		if (!f->copy(f->ctx, gpa, buf, n, true))
			return false;
	}
	return true;
}

/* The request at @gpa: control, length, address.  Its control word says in the end whether it failed. */
static void request(struct fwcfg *f, uint64_t gpa)
{
	uint8_t r[16], answer[4];
	bool ok = true;

	if (!f->copy(f->ctx, gpa, r, sizeof r, false))
		return; /* nowhere to say so */
	uint32_t control = get_be32(r), len = get_be32(r + 4);
	uint64_t addr = (uint64_t)get_be32(r + 8) << 32 | get_be32(r + 12);

	if (control & DMA_SELECT)
		choose(f, (uint16_t)(control >> 16));
	if (control & DMA_READ)
		ok = copy_out(f, addr, len);
	else if (control & DMA_WRITE)
		ok = false; /* no item can be written */
	else if (control & DMA_SKIP)
		f->offset = f->offset + len < len ? UINT32_MAX : f->offset + len;
	put_be32(answer, ok ? 0 : DMA_ERROR);
	f->copy(f->ctx, gpa, answer, sizeof answer, true);
}

/* ---- ports ---- */

static uint64_t fwcfg_read(void *dev, uint64_t off, unsigned size)
{
	struct fwcfg *f = dev;

	if (size == 1)
		return off == 1 ? next_byte(f) : f->key & 0xff;
	return f->key;
}

static void fwcfg_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct fwcfg *f = dev;

	if (off == 0)
		choose(f, (uint16_t)(size == 1 ? val & 0xff : val));
}

static uint32_t swap32(uint32_t v)
{
	uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};

	return get_be32(b);
}

/* Read, the register says "QEMU CFG", by which it is found. */
static uint64_t dma_read(void *dev, uint64_t off, unsigned size)
{
	static const char sig[8] = "QEMU CFG";
	uint64_t val = 0;

	for (unsigned i = 0; i < size && off + i < sizeof sig; i++)
		val |= (uint64_t)(uint8_t)sig[off + i] << i * 8;
	return val;
}

static void dma_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct fwcfg *f = dev;

	if (size != 4)
		return;
	if (off == 0) {
		f->high = swap32((uint32_t)val);
	} else if (off == 4) {
		uint64_t gpa = (uint64_t)f->high << 32 | swap32((uint32_t)val);

		f->high = 0;
		request(f, gpa);
	}
}

const struct bus_ops fwcfg_ops = {fwcfg_read, fwcfg_write, 2};
const struct bus_ops fwcfg_dma_ops = {dma_read, dma_write, 4};

void fwcfg_reset(struct fwcfg *f)
{
	f->key = 0;
	f->offset = f->high = 0;
}

void fwcfg_init(struct fwcfg *f)
{
	static const uint8_t id[4] = {3}; /* ports, and requests in memory */

	f->n = 0;
	fwcfg_add(f, FWCFG_SIGNATURE, "QEMU", 4);
	fwcfg_add(f, FWCFG_ID, id, sizeof id);
	fwcfg_add(f, FWCFG_DIR, f->dir, 4);
	fwcfg_reset(f);
}

/* ---- what is saved ---- */

static const struct save_row fwcfg_save_rows[] = {
	SAVE(struct fwcfg, key),
	SAVE(struct fwcfg, offset),
	SAVE(struct fwcfg, high),
	SAVE_OMIT(struct fwcfg, item, "made when the machine is made, or when one is selected"),
	SAVE_OMIT(struct fwcfg, n, "made when the machine is made"),
	SAVE_OMIT(struct fwcfg, dir, "made when the machine is made, or when one is selected"),
	SAVE_OMIT(struct fwcfg, selected, SAVE_WIRED),
	SAVE_OMIT(struct fwcfg, copy, SAVE_WIRED),
	SAVE_OMIT(struct fwcfg, ctx, SAVE_WIRED),
};
SAVE_TABLE(fwcfg_save, struct fwcfg, "fw_cfg");
