/*
 * Walks field tables: wire to validated plain struct, and back.  The only module that calls protobuf-c.  Invariant: what
 * field_unpack() lets through is in range in every field, terminated in every string, and packs again to a message that
 * it would accept; unknown fields are an error at every level, since both ends speak the same version.
 */
#include "proto/field.h"

#include <errno.h>
#include <string.h>

#include "common/ipc.h"
#include "common/text.h"

/* Room for the parts of a message that protobuf-c wants as pointers; the largest are lists of counters. */
struct arena {
	size_t used;
	uint64_t room[8192];
};

static void *arena_get(struct arena *a, size_t bytes)
{
	size_t n = (bytes + 7) / 8;

	if (n > sizeof a->room / 8 - a->used)
		return NULL;
	void *p = &a->room[a->used];
	a->used += n;
	return p;
}

static uint32_t get32(const void *m, uint32_t offset)
{
	uint32_t v;

	memcpy(&v, (const uint8_t *)m + offset, sizeof v);
	return v;
}

static void set32(void *m, uint32_t offset, uint32_t v)
{
	memcpy((uint8_t *)m + offset, &v, sizeof v);
}

/* A number of 1 (bool), 4 or 8 bytes; on the wire a bool is an int. */
static uint64_t num_get(const void *p, uint32_t size)
{
	uint64_t v;

	if (size == 8) {
		memcpy(&v, p, 8);
		return v;
	}
	return size == 1 ? *(const uint8_t *)p : get32(p, 0);
}

static void num_set(void *p, uint32_t size, uint64_t v)
{
	if (size == 8)
		memcpy(p, &v, 8);
	else if (size == 1)
		*(uint8_t *)p = (uint8_t)v;
	else
		set32(p, 0, (uint32_t)v);
}

/* ---- plain to wire ---- */

static ProtobufCMessage *message_out(struct arena *a, const struct field_table *t, const void *m);

/* protobuf-c's structs are not const-correct: it only reads when packing. */
static void bytes_out(ProtobufCBinaryData *w, const void *p, size_t len)
{
	*w = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)p};
}

/* One value.  @m: the whole struct. */
static int value_out(struct arena *a, const struct field *f, const void *m, const void *host, void *wire)
{
	const void *p = host;

	switch (f->kind) {
	case FIELD_NUM:
	case FIELD_BITS: num_set(wire, f->size == 8 ? 8 : 4, num_get(host, f->size)); break;
	case FIELD_TEXT: memcpy(wire, &p, sizeof p); break;
	case FIELD_STRING: bytes_out(wire, host, strlen(host)); break;
	case FIELD_EXACT: bytes_out(wire, host, f->size); break;
	case FIELD_BYTES:
		bytes_out(wire, host, get32(m, f->host_n));
		return get32(m, f->host_n) > f->size ? -EMSGSIZE : 0;
	case FIELD_CASE:
		if (get32(m, f->host_n) != f->min)
			break; /* stays NULL */
			       /* fall through */
	case FIELD_SUB:
		p = message_out(a, f->sub, host);
		memcpy(wire, &p, sizeof p);
		return p ? 0 : -EMSGSIZE;
	}
	return 0;
}

/* Bytes of one value in protobuf-c's struct. */
static size_t wire_size(const struct field *f)
{
	switch (f->kind) {
	case FIELD_NUM:
	case FIELD_BITS: return f->size == 8 ? 8 : 4;
	case FIELD_STRING:
	case FIELD_EXACT:
	case FIELD_BYTES: return sizeof(ProtobufCBinaryData);
	case FIELD_TEXT:
	case FIELD_SUB:
	case FIELD_CASE: break;
	}
	return sizeof(void *);
}

static int list_out(struct arena *a, const struct field *f, const void *m, uint8_t *w)
{
	size_t n = get32(m, f->host_n);
	uint8_t *list = n <= f->at_most ? arena_get(a, n * wire_size(f)) : NULL;

	if (!list)
		return -EMSGSIZE;
	for (size_t i = 0; i < n; i++) {
		int rc = value_out(a, f, m, (const uint8_t *)m + f->host + i * f->stride, list + i * wire_size(f));
		if (rc)
			return rc;
	}
	memcpy(w + f->wire, &list, sizeof list);
	memcpy(w + f->wire_n, &n, sizeof n);
	return 0;
}

static ProtobufCMessage *message_out(struct arena *a, const struct field_table *t, const void *m)
{
	ProtobufCMessage *w = arena_get(a, t->wire->sizeof_message);

	if (!w)
		return NULL;
	protobuf_c_message_init(t->wire, w);
	for (const struct field *f = t->rows; f < t->rows + t->n; f++) {
		const uint8_t *host = (const uint8_t *)m + f->host;

		if (f->oneof && get32(m, f->host_n) == f->min)
			set32(w, f->wire_n, (uint32_t)f->min);
		if (f->list ? list_out(a, f, m, (uint8_t *)w) : value_out(a, f, m, host, (uint8_t *)w + f->wire))
			return NULL;
	}
	return w;
}

int field_pack(const struct field_table *t, const void *m, uint8_t *buf, size_t len)
{
	struct arena a;

	a.used = 0;
	const ProtobufCMessage *w = message_out(&a, t, m);
	size_t n = w ? protobuf_c_message_get_packed_size(w) : 0;
	if (!w || n > len || n > IPC_MAX_DATA)
		return -EMSGSIZE;
	return (int)protobuf_c_message_pack(w, buf);
}

/* ---- wire to plain ---- */

static bool message_in(const struct field_table *t, const ProtobufCMessage *w, void *m);

static bool num_in(const struct field *f, const void *wire, void *host)
{
	uint64_t v = num_get(wire, f->size == 8 ? 8 : 4);

	if (f->kind == FIELD_BITS ? (v & ~f->max) != 0 : v < f->min || v > f->max || (f->ok && !f->ok(v)))
		return false;
	num_set(host, f->size, v);
	return true;
}

static bool text_in(const struct field *f, const void *wire, char *host)
{
	const char *s = *(char *const *)wire;
	size_t n = strlen(s);

	if (!text_is_clean(s) || n < f->min || n >= f->size)
		return false;
	memcpy(host, s, n + 1);
	return true;
}

static bool bytes_in(const struct field *f, const ProtobufCBinaryData *b, uint8_t *m, uint8_t *host)
{
	if (f->kind == FIELD_STRING && (b->len >= f->size || (b->len && memchr(b->data, 0, b->len))))
		return false;
	if (b->len > f->size || (f->kind == FIELD_EXACT && b->len != f->size))
		return false;
	if (f->kind == FIELD_BYTES)
		set32(m, f->host_n, (uint32_t)b->len);
	if (b->len) /* an absent one has no data at all; the plain struct is zeroed */
		memcpy(host, b->data, b->len);
	return true;
}

static bool sub_in(const struct field *f, const void *wire, uint8_t *m, void *host)
{
	const ProtobufCMessage *w = *(ProtobufCMessage *const *)wire;

	if (f->kind == FIELD_SUB)
		return w && message_in(f->sub, w, host);
	if (!w)
		return true;
	if (get32(m, f->host_n)) /* one of another kind is there */
		return false;
	set32(m, f->host_n, (uint32_t)f->min);
	return message_in(f->sub, w, host);
}

static bool value_in(const struct field *f, const void *wire, uint8_t *m, uint8_t *host)
{
	switch (f->kind) {
	case FIELD_NUM:
	case FIELD_BITS: return num_in(f, wire, host);
	case FIELD_TEXT: return text_in(f, wire, (char *)host);
	case FIELD_STRING:
	case FIELD_EXACT:
	case FIELD_BYTES: return bytes_in(f, wire, m, host);
	case FIELD_SUB:
	case FIELD_CASE: return sub_in(f, wire, m, host);
	}
	return false;
}

static bool seen_before(const struct field *f, const uint8_t *m, size_t i)
{
	const uint8_t *list = m + f->host;

	for (size_t k = 0; k < i; k++)
		if (!memcmp(list + k * f->stride, list + i * f->stride, f->size))
			return true;
	return false;
}

static bool list_in(const struct field *f, const uint8_t *w, uint8_t *m)
{
	const uint8_t *list;
	size_t n;

	memcpy(&list, w + f->wire, sizeof list);
	memcpy(&n, w + f->wire_n, sizeof n);
	if (n > f->at_most || n < f->at_least || (f->beside && n != get32(m, f->host_n)))
		return false;
	set32(m, f->host_n, (uint32_t)n);
	for (size_t i = 0; i < n; i++) {
		if (!value_in(f, list + i * wire_size(f), m, m + f->host + i * f->stride))
			return false;
		if (f->once && seen_before(f, m, i))
			return false;
	}
	return true;
}

/* One row; a oneof's members share one place, so only the one that is there is read. */
static bool row_in(const struct field *f, const uint8_t *w, uint8_t *m)
{
	if (f->oneof && get32(w, f->wire_n) != f->min)
		return true;
	return f->list ? list_in(f, w, m) : value_in(f, w + f->wire, m, m + f->host);
}

static bool message_in(const struct field_table *t, const ProtobufCMessage *w, void *m)
{
	const uint8_t *from = (const uint8_t *)w;

	if (w->n_unknown_fields)
		return false;
	for (const struct field *f = t->rows; f < t->rows + t->n; f++)
		if (!row_in(f, from, m))
			return false;
	return !t->check || t->check(m);
}

int field_unpack(const struct field_table *t, const uint8_t *buf, size_t len, void *m)
{
	ProtobufCMessage *w = len <= IPC_MAX_DATA ? protobuf_c_message_unpack(t->wire, NULL, len, buf) : NULL;

	if (!w)
		return -EPROTO;
	memset(m, 0, t->size);
	bool ok = message_in(t, w, m);
	protobuf_c_message_free_unpacked(w, NULL);
	return ok ? 0 : -EPROTO;
}
