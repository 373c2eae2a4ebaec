/*
 * Field tables: what a message is on the wire and as a plain struct, told once, and the two walkers that read it.  See field.c.
 * Only for the pack*.c files and their test.
 */
#ifndef HVX_FIELD_H
#define HVX_FIELD_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/pack.h"

enum field_kind {
	FIELD_NUM,    /* bool, uint32_t, an enum or uint64_t: min to max, and what ok() says */
	FIELD_BITS,   /* uint32_t: no bit but those of max */
	FIELD_TEXT,   /* char[]: what text_clean() makes, of at least min characters */
	FIELD_STRING, /* char[]; bytes on the wire, none of them 0 */
	FIELD_EXACT,  /* uint8_t[]; bytes on the wire, exactly so many */
	FIELD_BYTES,  /* uint8_t[] with its length in @host_n */
	FIELD_SUB,    /* a struct with a table of its own; it must be there */
	FIELD_CASE,   /* as SUB; there if and only if what @host_n names is @min */
};

struct field {
	const char *name; /* in the .proto */
	enum field_kind kind;
	bool list, once;          /* repeated; each value at most once */
	uint32_t wire, wire_n;    /* offsets in protobuf-c's struct; of the list's length */
	uint32_t host, host_n;    /* offsets in the plain struct; of a uint32_t: a length, or the kind of a CASE */
	uint32_t size;            /* of the value; of one element, in a list */
	uint32_t stride, at_most; /* of a list: from element to element, how many there may be */
	uint32_t at_least;
	bool oneof;  /* a CASE of a oneof, whose number in the .proto is @min; wire_n: which one is there */
	bool beside; /* a list that shares host_n with the one before it */
	uint64_t min, max;
	bool (*ok)(uint64_t value);
	const struct field_table *sub;
};

struct field_table {
	const char *name;
	const ProtobufCMessageDescriptor *wire;
	const struct field *rows;
	unsigned n;
	uint32_t size;                /* of the plain struct */
	bool (*check)(const void *m); /* what no row can say: fields that depend on each other; or NULL */
};

/* What is described: each message of PACK_KINDS, and these parts of messages. */
#define FIELD_PARTS(X)                          \
	X(pages, msg_pages)                     \
	X(group_member, msg_member)             \
	X(local, msg_local)                     \
	X(cpus, msg_cpus)                       \
	X(firmware, msg_firmware)               \
	X(counter, msg_counter)                 \
	X(named_counter, msg_counter)           \
	X(process, msg_process)                 \
	X(nothing, msg_nothing)                 \
	X(request_console, msg_request_console) \
	X(rates, msg_dev_limits)                \
	X(vm_limits, msg_vm_limits)             \
	X(limit_info, msg_limit_info)           \
	X(request_limit, msg_request_limit)     \
	X(request_link, msg_request_link)       \
	X(request_balloon, msg_request_balloon) \
	X(request_resize, msg_request_resize)   \
	X(blk_config, msg_blk_config)           \
	X(net_config, msg_net_config)           \
	X(virtio_queue, msg_virtio_queue)       \
	X(range, msg_range)
#define X(fn, type) extern const struct field_table fn##_table;
PACK_KINDS(X)
FIELD_PARTS(X)
#undef X

bool field_ram_size(uint64_t n); /* an ok() of several files */

/* pack_x() and unpack_x() of pack.h for the message or part that @t describes. */
int field_pack(const struct field_table *t, const void *m, uint8_t *buf, size_t len);
int field_unpack(const struct field_table *t, const uint8_t *buf, size_t len, void *m);

/*
 * Rows.  W: name of the message in the .proto; H: the plain struct; f: the field, in both.  Lists have a name in each (wf, hf),
 * and their length, a uint32_t of H; at_most is the room in H.
 */
#define FIELD_HOST(H, f) ((struct H *)0)->f
#define FIELD_ONE(k, W, H, f, ...)                                                                   \
	{                                                                                            \
		.name = #f, .kind = k, .wire = offsetof(Hvx__##W, f), .host = offsetof(struct H, f), \
		.size = sizeof FIELD_HOST(H, f), __VA_ARGS__                                         \
	}
/* @el: what is taken of the array's first element, itself or a field of it. */
#define FIELD_LIST(k, W, wf, H, hf, el, count, ...)                                            \
	{                                                                                      \
		.name = #wf, .kind = k, .list = true, .wire = offsetof(Hvx__##W, wf),          \
		.wire_n = offsetof(Hvx__##W, n_##wf), .host = offsetof(struct H, el),          \
		.host_n = offsetof(struct H, count), .size = sizeof FIELD_HOST(H, el),         \
		.stride = sizeof FIELD_HOST(H, hf)[0],                                         \
		.at_most = sizeof FIELD_HOST(H, hf) / sizeof FIELD_HOST(H, hf)[0], __VA_ARGS__ \
	}

#define NUM(W, H, f, lo, hi) FIELD_ONE(FIELD_NUM, W, H, f, .min = lo, .max = hi)
#define NUM_IF(W, H, f, fn)  FIELD_ONE(FIELD_NUM, W, H, f, .max = UINT64_MAX, .ok = fn)
#define ANY(W, H, f)         NUM(W, H, f, 0, UINT64_MAX)
#define FLAG(W, H, f)        NUM(W, H, f, 0, 1)
#define BITS(W, H, f, mask)  FIELD_ONE(FIELD_BITS, W, H, f, .max = mask)
#define TEXT(W, H, f)        FIELD_ONE(FIELD_TEXT, W, H, f, .min = 0)
#define ID(W, H, f)          FIELD_ONE(FIELD_TEXT, W, H, f, .min = 1)
#define STRING(W, H, f)      FIELD_ONE(FIELD_STRING, W, H, f, .min = 0)
#define EXACT(W, H, f)       FIELD_ONE(FIELD_EXACT, W, H, f, .min = 0)
#define BYTES(W, H, f, len)  FIELD_ONE(FIELD_BYTES, W, H, f, .host_n = offsetof(struct H, len))
#define SUB(W, H, f, t)      FIELD_ONE(FIELD_SUB, W, H, f, .sub = &t)
#define CASE(W, H, f, t, of, val) \
	FIELD_ONE(FIELD_CASE, W, H, f, .sub = &t, .host_n = offsetof(struct H, of), .min = val)
#define ONEOF(W, wf, H, hf, t, wire_of, of, val)                                                           \
	{                                                                                                  \
		.name = #wf, .kind = FIELD_CASE, .oneof = true, .wire = offsetof(Hvx__##W, wf),            \
		.wire_n = offsetof(Hvx__##W, wire_of), .host = offsetof(struct H, hf),                     \
		.host_n = offsetof(struct H, of), .size = sizeof(FIELD_HOST(H, hf)), .sub = &t, .min = val \
	}
/* Each value at most once. */
#define NUM_SET(W, wf, H, hf, count, lo, hi) \
	FIELD_LIST(FIELD_NUM, W, wf, H, hf, hf[0], count, .once = true, .min = lo, .max = hi)
#define NUM_LIST(W, wf, H, hf, count, least, fn) \
	FIELD_LIST(FIELD_NUM, W, wf, H, hf, hf[0], count, .max = UINT64_MAX, .at_least = least, .ok = fn)
#define STRING_LIST(W, wf, H, hf, el, count, ...) FIELD_LIST(FIELD_STRING, W, wf, H, hf, hf[0].el, count, __VA_ARGS__)
#define SUB_LIST(W, wf, H, hf, count, t)          FIELD_LIST(FIELD_SUB, W, wf, H, hf, hf[0], count, .sub = &t)

#define TABLE(id, W, desc, H, chk)                                                                                    \
	const struct field_table id##_table = {                                                                       \
		#id, &hvx__##desc##__descriptor, id##_rows, sizeof id##_rows / sizeof id##_rows[0], sizeof(struct H), \
		chk}
/* A table and its pair of functions. */
#define MESSAGE(fn, W, desc, H, chk)                                 \
	TABLE(fn, W, desc, H, chk);                                  \
	int pack_##fn(const struct H *m, uint8_t *buf, size_t len)   \
	{                                                            \
		return field_pack(&fn##_table, m, buf, len);         \
	}                                                            \
	int unpack_##fn(const uint8_t *buf, size_t len, struct H *m) \
	{                                                            \
		return field_unpack(&fn##_table, buf, len, m);       \
	}

#endif
