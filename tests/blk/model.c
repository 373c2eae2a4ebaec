/*
 * The disk as it must be.  Invariant: a set holds everything that can be found and nothing that is excluded by what
 * the device has acknowledged: sets shrink at reads, at flushes and at durable writes.
 *
 * qcow2 ("reuses") promises less about what no flush has covered, as a qemu-nbd that is killed shows.  A cluster that was
 * discarded may have got other sectors' data while the table in the image still names it for the old ones: anything may
 * be found there.  (One that was zeroed keeps its place: devices/blk/nbd.c unmaps nothing so small.)  A write into
 * clusters that read as zeroes, and into those that follow them, begins by zeroing all of its range: besides old and new a
 * write in flight may leave zeroes.
 */
#include "tests/blk/model.h"

#include <stdlib.h>
#include <string.h>

#include "tests/insn/rng.h"

void model_init(struct model *m, uint64_t sectors)
{
	*m = (struct model){.sectors = sectors, .clock = 1, .s = calloc(sectors, sizeof *m->s)};
	for (uint64_t i = 0; m->s && i < sectors; i++)
		m->s[i].n_now = m->s[i].n_after = 1;
}

void model_free(struct model *m)
{
	free(m->s);
	m->s = NULL;
}

void model_copy(struct model *to, const struct model *from)
{
	memcpy(to->s, from->s, from->sectors * sizeof *from->s);
	to->clock = from->clock;
	to->last = from->last > to->last ? from->last : to->last; /* numbers are never used again */
}

/* ---- contents ---- */

void model_fill(uint8_t *p, uint32_t number, uint64_t sector)
{
	struct rng r = {((uint64_t)number << 32) ^ sector};
	uint64_t w[MODEL_SECTOR / 8];

	memset(w, 0, sizeof w);
	w[0] = number;
	for (unsigned i = 1; number && i < MODEL_SECTOR / 8; i++)
		w[i] = rnd(&r);
	memcpy(p, w, sizeof w);
}

uint32_t model_number(const uint8_t *p, uint64_t sector)
{
	uint8_t want[MODEL_SECTOR];
	uint64_t number;

	memcpy(&number, p, 8);
	if (number >= MODEL_GARBAGE)
		return MODEL_GARBAGE;
	model_fill(want, (uint32_t)number, sector);
	return memcmp(p, want, MODEL_SECTOR) ? MODEL_GARBAGE : (uint32_t)number;
}

/* ---- sets ---- */

static bool has(const uint32_t *set, unsigned n, uint32_t v)
{
	while (n--)
		if (set[n] == v)
			return true;
	return false;
}

/* There is room: model_may_write(). */
static void add(uint32_t *set, uint8_t *n, uint32_t v)
{
	if (!has(set, *n, v))
		set[(*n)++] = v;
}

static void settle_after(struct model_sector *s)
{
	memcpy(s->after, s->now, sizeof s->now);
	s->n_after = s->n_now;
	s->wild_after = s->wild_now;
}

/* ---- requests ---- */

bool model_may_read(const struct model *m, uint64_t at, uint64_t n)
{
	for (uint64_t i = at; i < at + n; i++)
		if (m->s[i].writing)
			return false;
	return true;
}

bool model_may_write(const struct model *m, uint64_t at, uint64_t n)
{
	for (uint64_t i = at; i < at + n; i++)
		if (m->s[i].writing || m->s[i].reads || m->s[i].n_after > MODEL_CHOICES - 3 ||
		    m->s[i].n_now > MODEL_CHOICES / 2)
			return false;
	return true;
}

void model_read(struct model *m, uint64_t at, uint64_t n)
{
	for (uint64_t i = at; i < at + n; i++)
		m->s[i].reads++;
}

bool model_may_hold(const struct model *m, uint64_t sector, const uint8_t *data)
{
	const struct model_sector *s = &m->s[sector];

	return s->wild_now || has(s->now, s->n_now, model_number(data, sector));
}

bool model_read_done(struct model *m, uint64_t at, uint64_t n, const uint8_t *data)
{
	for (uint64_t i = at; i < at + n; i++, data += MODEL_SECTOR) {
		struct model_sector *s = &m->s[i];
		uint32_t v = model_number(data, i);
		if (!model_may_hold(m, i, data))
			return false;
		s->now[0] = v;
		s->n_now = 1;
		s->wild_now = v == MODEL_GARBAGE; /* has() would not know it again */
		s->reads--;
	}
	return true;
}

static void begin(struct model *m, uint64_t at, uint64_t n, uint32_t v)
{
	for (uint64_t i = at; i < at + n; i++) {
		struct model_sector *s = &m->s[i];
		s->writing = true;
		s->next = v;
		s->touched = ++m->clock;
		add(s->after, &s->n_after, v);
	}
}

uint32_t model_write(struct model *m, uint64_t at, uint64_t n)
{
	begin(m, at, n, ++m->last);
	return m->last;
}

void model_zero(struct model *m, uint64_t at, uint64_t n, bool discard)
{
	begin(m, at, n, 0);
	for (uint64_t i = at; i < at + n; i++)
		m->s[i].wild_after |= m->reuses && discard;
}

void model_write_done(struct model *m, uint64_t at, uint64_t n, bool durable, bool hint)
{
	for (uint64_t i = at; i < at + n; i++) {
		struct model_sector *s = &m->s[i];
		s->writing = false;
		s->touched = ++m->clock;
		if (!hint) {
			s->n_now = 0;
			s->wild_now = false;
		}
		add(s->now, &s->n_now, s->next);
		if (durable)
			settle_after(s);
	}
}

void model_write_failed(struct model *m, uint64_t at, uint64_t n)
{
	for (uint64_t i = at; i < at + n; i++) {
		struct model_sector *s = &m->s[i];
		s->writing = false;
		add(s->now, &s->n_now, s->next);
		if (m->reuses)
			add(s->after, &s->n_after, 0);
	}
}

uint64_t model_flush(struct model *m)
{
	return ++m->clock;
}

/* Of what was written meanwhile nothing more is known than before. */
void model_flush_done(struct model *m, uint64_t since)
{
	for (uint64_t i = 0; i < m->sectors; i++)
		if (m->s[i].touched < since && !m->s[i].writing)
			settle_after(&m->s[i]);
}

void model_crash(struct model *m, enum model_crash how)
{
	for (uint64_t i = 0; i < m->sectors; i++) {
		struct model_sector *s = &m->s[i];
		if (how == MODEL_CACHED) {
			settle_after(s);
			if (s->writing)
				add(s->after, &s->n_after, s->next);
		} else if (s->writing && m->reuses) {
			add(s->after, &s->n_after, 0);
		}
		s->writing = false;
		s->reads = 0;
		s->n_now = s->n_after;
		s->wild_now = s->wild_after;
		memcpy(s->now, s->after, sizeof s->now);
	}
}

void model_settled(struct model *m)
{
	for (uint64_t i = 0; i < m->sectors; i++)
		settle_after(&m->s[i]);
}
