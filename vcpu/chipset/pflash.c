/*
 * CFI flash.  Programming and erasing take no time: the status register is ready whenever it is read.
 *
 * Invariant: the array answers reads past this chip exactly while ->command is READ_ARRAY; a program can clear bits and an
 * erase sets them, and neither leaves the bank.
 */
#include "vcpu/chipset/pflash.h"

#include "vcpu/chipset/savechips.h"

/* commands, by their first cycle */
enum {
	PROGRAM = 0x40,
	PROGRAM_2 = 0x10,
	ERASE = 0x20,
	CLEAR_STATUS = 0x50,
	LOCK = 0x60,
	READ_STATUS = 0x70,
	READ_ID = 0x90,
	READ_CFI = 0x98,
	CONFIRM = 0xd0,
	WRITE_BUFFER = 0xe8,
	READ_ARRAY = 0xff
};
#define ST_READY   0x80
#define ST_ERASE   0x20 /* an erase or a sequence of commands went wrong */
#define ST_PROGRAM 0x10
#define ST_BAD     (ST_ERASE | ST_PROGRAM)

/* The bytes that a query finds from 10h on (JEDEC 68.01). */
static uint8_t query(const struct pflash *f, unsigned at)
{
	static const uint8_t table[] =
		"QRY\1\0\x31\0\0\0\0\0"          /* command set 1, its own table at 31h */
		"\x45\x55\0\0\7\10\12\0\4\4\4\0" /* voltages, times: powers of two */
		"\0\0\0\10\0\1\0\0\x10\0"        /* size, x8, buffer of 2^8; a region, its block / 256 */
		"PRI10\0\0\0\0\0\0\0";
	_Static_assert(PFLASH_BLOCK == 0x10 << 8 && sizeof table == 0x3e - 0x10, "as it says");
	uint32_t blocks = (uint32_t)(f->bank / PFLASH_BLOCK) - 1;
	unsigned log = 0;

	while (1ull << log < f->bank)
		log++;
	switch (at) {
	case 0x27: return (uint8_t)log;
	case 0x2d: return (uint8_t)blocks;
	case 0x2e: return (uint8_t)(blocks >> 8);
	default: return at >= 0x10 && at - 0x10 < sizeof table ? table[at - 0x10] : 0;
	}
}

bool pflash_answers(const struct pflash *f)
{
	return f->command != READ_ARRAY;
}

static void set_command(struct pflash *f, uint8_t command)
{
	bool was = pflash_answers(f);

	f->command = command;
	f->cycle = 0;
	if (was != pflash_answers(f) && f->bank)
		f->mode(f->ctx, pflash_answers(f));
}

static uint8_t array_read(struct pflash *f, uint64_t off)
{
	const uint8_t *p = f->at(f->ctx, off, false);

	return p ? *p : 0xff;
}

static void program(struct pflash *f, uint64_t off, uint8_t val)
{
	uint8_t *p = f->at(f->ctx, off, true);

	if (!p)
		return;
	*p &= val;
	f->changed(f->ctx, off, 1);
}

static void erase(struct pflash *f, uint64_t off)
{
	uint64_t block = off & ~(uint64_t)(PFLASH_BLOCK - 1);

	for (unsigned i = 0; i < PFLASH_BLOCK; i++) {
		uint8_t *p = f->at(f->ctx, block + i, true);

		if (p)
			*p = 0xff;
	}
	f->changed(f->ctx, block, PFLASH_BLOCK);
}

/* ---- commands ---- */

static void fail(struct pflash *f, uint8_t bits)
{
	f->status |= bits;
	f->left = 0;
	set_command(f, READ_STATUS);
}

static void first_cycle(struct pflash *f, uint64_t off, uint8_t val)
{
	switch (val) {
	case CLEAR_STATUS:
		f->status = 0;
		set_command(f, READ_ARRAY);
		break;
	case PROGRAM:
	case PROGRAM_2:
	case ERASE:
	case LOCK:
	case WRITE_BUFFER:
		f->status |= ST_READY;
		set_command(f, val);
		f->cycle = 1;
		break;
	case READ_STATUS:
	case READ_ID:
	case READ_CFI: set_command(f, val); break;
	default: set_command(f, READ_ARRAY); break; /* and READ_ARRAY itself */
	}
}

static void finish(struct pflash *f)
{
	f->status |= ST_READY;
	set_command(f, READ_STATUS);
}

/* Count, that many bytes of one block, confirmation. */
static void buffer_cycle(struct pflash *f, uint64_t off, uint8_t val)
{
	switch (f->cycle) {
	case 1:
		f->left = (uint16_t)(val + 1);
		f->block = (uint32_t)(off / PFLASH_BLOCK);
		f->cycle = 2;
		break;
	case 2:
		if (off / PFLASH_BLOCK != f->block) {
			fail(f, ST_BAD);
			break;
		}
		program(f, off, val);
		if (!--f->left)
			f->cycle = 3;
		break;
	default:
		if (val == CONFIRM)
			finish(f);
		else
			fail(f, ST_BAD);
	}
}

static void next_cycle(struct pflash *f, uint64_t off, uint8_t val)
{
	switch (f->command) {
	case PROGRAM:
	case PROGRAM_2:
		program(f, off, val);
		finish(f);
		break;
	case ERASE:
		if (val != CONFIRM) {
			fail(f, ST_BAD);
			break;
		}
		erase(f, off);
		finish(f);
		break;
	case LOCK: finish(f); break; /* blocks have no locks: locking and unlocking succeed */
	case WRITE_BUFFER: buffer_cycle(f, off, val); break;
	default: first_cycle(f, off, val); break;
	}
}

static void pflash_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
	struct pflash *f = dev;

	if (off >= f->bank)
		return; /* ROM */
	if (f->cycle)
		next_cycle(f, off, (uint8_t)val);
	else
		first_cycle(f, off, (uint8_t)val);
}

static uint64_t pflash_read(void *dev, uint64_t off, unsigned size)
{
	struct pflash *f = dev;

	if (off >= f->bank || f->command == READ_ARRAY)
		return array_read(f, off);
	switch (f->command) {
	case READ_ID: return (off & 0xff) == 0 ? 0x89 : (off & 0xff) == 1 ? 0x18 : 0; /* Intel; no block is locked */
	case READ_CFI: return query(f, off & 0xff);
	default: return f->status;
	}
}

const struct bus_ops pflash_ops = {pflash_read, pflash_write, 1};

void pflash_reset(struct pflash *f)
{
	f->status = ST_READY;
	f->left = 0;
	f->block = 0;
	set_command(f, READ_ARRAY);
}

void pflash_init(struct pflash *f, uint64_t size, uint64_t bank)
{
	f->size = size;
	f->bank = bank;
	f->command = READ_ARRAY;
	pflash_reset(f);
}

/* ---- what is saved ---- */

/* What the array holds is memory, and saved as such. */
static const struct save_row pflash_save_rows[] = {
	SAVE_OMIT(struct pflash, size, SAVE_WIRED),
	SAVE_OMIT(struct pflash, bank, SAVE_WIRED),
	SAVE(struct pflash, command),
	SAVE(struct pflash, status),
	SAVE_MAX(struct pflash, cycle, 3),
	SAVE_MAX(struct pflash, left, PFLASH_BUFFER),
	SAVE(struct pflash, block),
	SAVE_OMIT(struct pflash, at, SAVE_WIRED),
	SAVE_OMIT(struct pflash, mode, SAVE_WIRED),
	SAVE_OMIT(struct pflash, changed, SAVE_WIRED),
	SAVE_OMIT(struct pflash, ctx, SAVE_WIRED),
};
SAVE_TABLE(pflash_save, struct pflash, "pflash");
