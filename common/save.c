/*
 * Structures to records and back, by their tables.
 *
 *   record: length of the name, name, 4 bytes length of the rest, then a field for each row that is saved:
 *   field:  length of the name, name, 4 bytes size of an element, 4 bytes how many, and they; elements with a table are records
 *
 * Invariant: a record is taken whole or not at all: it is checked from end to end before the first byte is stored.
 */
#include "common/save.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- out ---- */

static void put(struct save_buf *b, const void *p, size_t n)
{
	if (b->n <= b->room && n <= b->room - b->n)
		memcpy(b->data + b->n, p, n);
	b->n += n;
}

static void put_u32(struct save_buf *b, uint32_t v)
{
	put(b, &v, sizeof v);
}

static void put_name(struct save_buf *b, const char *name)
{
	uint8_t n = (uint8_t)strlen(name);

	put(b, &n, 1);
	put(b, name, n);
}

static uint32_t wire_size(const struct save_row *r)
{
	switch (r->kind) {
	case SAVE_HOOK: return 8;
	case SAVE_SUB: return 0; /* each tells its own */
	default: return r->size;
	}
}

static void put_row(struct save_buf *b, const struct save_row *r, const uint8_t *obj)
{
	const uint8_t *at = obj + r->offset;

	put_name(b, r->name);
	put_u32(b, wire_size(r));
	put_u32(b, r->count);
	if (r->kind == SAVE_HOOK) {
		uint64_t v = r->get(at);
		put(b, &v, sizeof v);
	} else if (r->kind == SAVE_SUB) {
		for (uint32_t i = 0; i < r->count; i++)
			save_put(b, r->sub, at + (size_t)i * r->size);
	} else {
		put(b, at, (size_t)r->size * r->count);
	}
}

int save_put(struct save_buf *b, const struct save_table *t, const void *obj)
{
	size_t start;

	put_name(b, t->name);
	start = b->n;
	put_u32(b, 0);
	for (unsigned i = 0; i < t->n; i++)
		if (t->rows[i].kind != SAVE_NOT)
			put_row(b, &t->rows[i], obj);
	if (b->n > b->room)
		return -ENOSPC;
	uint32_t len = (uint32_t)(b->n - start - 4);
	memcpy(b->data + start, &len, sizeof len);
	return 0;
}

/* ---- in ---- */

struct in {
	const uint8_t *p, *end;
	bool store; /* else it is only looked at */
	char *err;
	size_t err_len;
};

static int bad(struct in *in, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int bad(struct in *in, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(in->err, in->err_len, fmt, ap);
	va_end(ap);
	return -EPROTO;
}

static bool take(struct in *in, void *out, size_t n)
{
	if ((size_t)(in->end - in->p) < n)
		return false;
	memcpy(out, in->p, n);
	in->p += n;
	return true;
}

static bool take_name(struct in *in, char name[256])
{
	uint8_t n;

	if (!take(in, &n, 1) || !take(in, name, n))
		return false;
	name[n] = '\0';
	for (unsigned i = 0; i < n; i++)
		if (name[i] <= ' ' || name[i] > '~')
			name[i] = '?'; /* it may be printed */
	return true;
}

static const struct save_row *row_of(const struct save_table *t, const char *name)
{
	for (unsigned i = 0; i < t->n; i++)
		if (t->rows[i].kind != SAVE_NOT && !strcmp(t->rows[i].name, name))
			return &t->rows[i];
	return NULL;
}

static int value_ok(struct in *in, const struct save_table *t, const struct save_row *r, const uint8_t *p)
{
	uint64_t v = 0, max = r->kind == SAVE_BOOL ? 1 : r->max;

	if (!max)
		return 0;
	memcpy(&v, p, r->size);
	if (v >= r->min && v <= max)
		return 0;
	return bad(in, "%s.%s: %llu, not in %llu to %llu", t->name, r->name, (unsigned long long)v,
		   (unsigned long long)r->min, (unsigned long long)max);
}

static int take_record(struct in *in, const struct save_table *t, uint8_t *obj);

static int take_elements(struct in *in, const struct save_table *t, const struct save_row *r, uint8_t *at)
{
	size_t n = (size_t)wire_size(r) * r->count;

	if (r->kind == SAVE_SUB) {
		int rc = 0;
		for (uint32_t i = 0; i < r->count && !rc; i++)
			rc = take_record(in, r->sub, at + (size_t)i * r->size);
		return rc;
	}
	if ((size_t)(in->end - in->p) < n)
		return bad(in, "%s.%s: ends after %zu of %zu bytes", t->name, r->name, (size_t)(in->end - in->p), n);
	int rc = r->kind == SAVE_HOOK ? 0 : value_ok(in, t, r, in->p);
	if (in->store && r->kind == SAVE_HOOK) {
		uint64_t v;
		memcpy(&v, in->p, sizeof v);
		r->set(at, v);
	} else if (in->store) {
		memcpy(at, in->p, n);
	}
	in->p += n;
	return rc;
}

static int take_field(struct in *in, const struct save_table *t, uint8_t *obj, bool *seen)
{
	char name[256];
	uint32_t size, count;

	if (!take_name(in, name) || !take(in, &size, 4) || !take(in, &count, 4))
		return bad(in, "%s: ends in the middle of a field's head", t->name);
	const struct save_row *r = row_of(t, name);
	if (!r)
		return bad(in, "%s: unknown field %s", t->name, name);
	if (seen[r - t->rows])
		return bad(in, "%s.%s: twice", t->name, name);
	seen[r - t->rows] = true;
	if (size != wire_size(r) || count != r->count)
		return bad(in, "%s.%s: %u of %u bytes, expected %u of %u", t->name, name, count, size, r->count,
			   wire_size(r));
	return take_elements(in, t, r, obj + r->offset);
}

#define ROWS_MAX 256

static int take_record(struct in *in, const struct save_table *t, uint8_t *obj)
{
	const uint8_t *outer = in->end;
	bool seen[ROWS_MAX] = {false};
	char name[256];
	uint32_t len;
	int rc = 0;

	if (t->n > ROWS_MAX)
		return bad(in, "%s: too many rows", t->name);
	if (!take_name(in, name) || !take(in, &len, 4))
		return bad(in, "%s: ends in the middle of a record's head", t->name);
	if (strcmp(name, t->name))
		return bad(in, "a record %s, expected %s", name, t->name);
	if (len > (size_t)(in->end - in->p))
		return bad(in, "%s: ends after %zu of %u bytes", t->name, (size_t)(in->end - in->p), len);
	in->end = in->p + len;
	while (in->p < in->end && !rc)
		rc = take_field(in, t, obj, seen);
	for (unsigned i = 0; i < t->n && !rc; i++)
		if (t->rows[i].kind != SAVE_NOT && !seen[i])
			rc = bad(in, "%s.%s: missing", t->name, t->rows[i].name);
	in->end = outer;
	return rc;
}

int save_get(const uint8_t *data, size_t len, const struct save_table *t, void *obj, char *err, size_t err_len)
{
	struct in in = {data, data + len, false, err, err_len};
	int rc = take_record(&in, t, obj);

	if (rc)
		return rc;
	in.p = data;
	in.store = true;
	rc = take_record(&in, t, obj);
	return rc ? rc : (int)(in.p - data);
}
