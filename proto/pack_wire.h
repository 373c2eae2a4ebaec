/*
 * What the pack*.c files share: putting a protobuf-c message on the wire, taking one off, and the checks of
 * common fields.  Only for them.
 */
#ifndef HVX_PACK_WIRE_H
#define HVX_PACK_WIRE_H

#include <errno.h>
#include <string.h>

#include "common/ipc.h"
#include "common/text.h"
#include "proto/pack.h"
#include "proto/shm.h"

#include "vcpu.pb-c.h"

static inline int put(const ProtobufCMessage *m, uint8_t *buf, size_t len)
{
	size_t n = protobuf_c_message_get_packed_size(m);

	if (n > len || n > IPC_MAX_DATA)
		return -EMSGSIZE;
	return (int)protobuf_c_message_pack(m, buf);
}

static inline bool known_only(const ProtobufCMessage *m)
{
	return m->n_unknown_fields == 0;
}

/* The parsed message, or NULL when it is malformed or has unknown fields at the top level. */
static inline ProtobufCMessage *get(const ProtobufCMessageDescriptor *d, const uint8_t *buf, size_t len)
{
	if (len > IPC_MAX_DATA)
		return NULL;
	ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, len, buf);
	if (m && !known_only(m)) {
		protobuf_c_message_free_unpacked(m, NULL);
		return NULL;
	}
	return m;
}

static inline void drop(ProtobufCMessage *m)
{
	if (m)
		protobuf_c_message_free_unpacked(m, NULL);
}

/* A string for people: what text_clean() makes, and it fits. */
static inline bool copy_text(char *dst, size_t room, const char *src)
{
	if (!text_is_clean(src) || strlen(src) >= room)
		return false;
	memcpy(dst, src, strlen(src) + 1);
	return true;
}

/* protobuf-c's structs are not const-correct: it only reads strings when packing. */
static inline char *str(const char *s)
{
	return (char *)(uintptr_t)s;
}

#define UNPACK_BEGIN(Type, desc)                                                   \
	Hvx__##Type *w = (Hvx__##Type *)get(&hvx__##desc##__descriptor, buf, len); \
	int rc = -EPROTO;                                                          \
	if (!w)                                                                    \
		return rc;                                                         \
	memset(m, 0, sizeof *m)
#define UNPACK_NEED(cond)         \
	do {                      \
		if (!(cond))      \
			goto out; \
	} while (0)
#define UNPACK_END()             \
	rc = 0;                  \
	out:                     \
	__attribute__((unused)); \
	drop(&w->base);          \
	return rc

static inline bool ram_size_ok(uint64_t n)
{
	return n && n <= SHM_MAX_RAM && n % SHM_PAGE == 0;
}

static inline void counters_out(const struct msg_counters *m, Hvx__Counter *c, Hvx__Counter **p)
{
	for (uint32_t i = 0; i < m->n; i++) {
		hvx__counter__init(&c[i]);
		c[i].name = str(m->c[i].name);
		c[i].value = m->c[i].value;
		p[i] = &c[i];
	}
}

/* A counter's name is a word in a list, a JSON key and somebody's shell variable. */
static inline bool counter_name_ok(const char *s, size_t room, bool upper)
{
	static const char low[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
	static const char all[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t n = strlen(s);

	return n && n < room && strspn(s, upper ? all : low) == n;
}

/* @upper: ids that the user chose are in front of the names. */
static inline bool counters_in(size_t n, Hvx__Counter **p, bool upper, struct msg_counters *m)
{
	if (n > MSG_COUNTERS_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!known_only(&p[i]->base) || !counter_name_ok(p[i]->name, sizeof m->c[i].name, upper))
			return false;
		memcpy(m->c[i].name, p[i]->name, strlen(p[i]->name) + 1);
		m->c[i].value = p[i]->value;
	}
	m->n = (uint32_t)n;
	return true;
}

/* Bytes without a place of their own: at most @room of them. */
static inline bool copy_bytes(uint8_t *dst, size_t room, uint32_t *n, const ProtobufCBinaryData *src)
{
	if (src->len > room)
		return false;
	if (src->len)
		memcpy(dst, src->data, src->len);
	*n = (uint32_t)src->len;
	return true;
}

#endif
