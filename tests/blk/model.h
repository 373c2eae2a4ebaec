/*
 * What a disk may hold, sector by sector, now and after a crash.  See model.c.
 */
#ifndef HVX_TEST_BLK_MODEL_H
#define HVX_TEST_BLK_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_SECTOR  512u
#define MODEL_CHOICES 8u
#define MODEL_GARBAGE UINT32_MAX

/* A sector's content is known by a number: 0 is zeroes, others a pattern of the number and the sector. */
struct model_sector {
	uint32_t now[MODEL_CHOICES],
		after[MODEL_CHOICES]; /* what a read may find; what may be there after a crash of everything */
	uint8_t n_now, n_after;
	bool wild_now, wild_after; /* anything may be there besides */
	bool writing;              /* one request at a time; @next is what it writes */
	uint8_t reads;             /* in flight */
	uint32_t next;
	uint64_t touched; /* when it was last written: begun or done */
};

struct model {
	uint64_t sectors, clock;
	uint32_t last; /* number given out */
	bool reuses;   /* a format that gives the place of what was discarded to others: see model.c */
	struct model_sector *s;
};

enum model_crash {
	MODEL_CACHED, /* what was acknowledged is there: somebody else had it by then (the host's page cache) */
	MODEL_LOST    /* only what was flushed is sure to be */
};

/* All zeroes. */
void model_init(struct model *m, uint64_t sectors);
void model_free(struct model *m);
void model_copy(struct model *to, const struct model *from); /* both initialised, of one size */

void model_fill(uint8_t *p, uint32_t number, uint64_t sector);
uint32_t model_number(const uint8_t *p, uint64_t sector); /* or MODEL_GARBAGE */

/* May such a request begin?  Requests that would race with each other may not. */
bool model_may_read(const struct model *m, uint64_t at, uint64_t n);
bool model_may_write(const struct model *m, uint64_t at, uint64_t n);

void model_read(struct model *m, uint64_t at, uint64_t n);
/* May a read find @data there? */
bool model_may_hold(const struct model *m, uint64_t sector, const uint8_t *data);
/* The data that was read; false when some of it cannot be.  It is what these sectors hold from now on. */
bool model_read_done(struct model *m, uint64_t at, uint64_t n, const uint8_t *data);
uint32_t model_write(struct model *m, uint64_t at, uint64_t n); /* the number to write */
void model_zero(struct model *m, uint64_t at, uint64_t n, bool discard);
/* @durable: acknowledged means flushed.  @hint: the old content may have stayed. */
void model_write_done(struct model *m, uint64_t at, uint64_t n, bool durable, bool hint);
void model_write_failed(struct model *m, uint64_t at, uint64_t n);
uint64_t model_flush(struct model *m); /* for model_flush_done() */
void model_flush_done(struct model *m, uint64_t since);

/* Everything is to be read then, and what was found is how it stays. */
void model_crash(struct model *m, enum model_crash how);
void model_settled(struct model *m);

#endif
