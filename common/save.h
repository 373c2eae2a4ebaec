/*
 * What of a machine's state is saved: a table beside each structure, a row a field.  See save.c.
 */
#ifndef HVX_SAVE_H
#define HVX_SAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum save_kind {
	SAVE_PLAIN, /* bytes as they lie in memory: integers and arrays of them */
	SAVE_BOOL,  /* 0 or 1 */
	SAVE_SUB,   /* structures with a table of their own */
	SAVE_HOOK,  /* a uint64_t by get() and set(): what is more than its bytes */
	SAVE_NOT,   /* not saved, for a reason */
};

struct save_row {
	const char *name;
	uint32_t offset, size, count; /* bytes of an element, and how many lie there */
	enum save_kind kind;
	uint64_t min, max; /* of a plain integer, where its place or its use demand it; max 0: any */
	const struct save_table *sub;
	uint64_t (*get)(const void *field);
	void (*set)(void *field, uint64_t val);
	const char *reason;
};

struct save_table {
	const char *name;
	uint32_t size; /* of the structure */
	const struct save_row *rows;
	unsigned n;
};

#define SAVE_ROW_(type, field, ...)                                                                              \
	{                                                                                                        \
		.name = #field, .offset = offsetof(type, field), .size = sizeof(((type *)0)->field), .count = 1, \
		__VA_ARGS__                                                                                      \
	}
#define SAVE_KIND_(type, field) _Generic(((type *)0)->field, bool : SAVE_BOOL, default : SAVE_PLAIN)
/* A field; one whose value may be at most @limit, or in a range; an array. */
#define SAVE(type, field)            SAVE_ROW_(type, field, .kind = SAVE_KIND_(type, field))
#define SAVE_MAX(type, field, limit) SAVE_ROW_(type, field, .kind = SAVE_PLAIN, .max = (limit))
#define SAVE_IN(type, field, lo, hi) SAVE_ROW_(type, field, .kind = SAVE_PLAIN, .min = (lo), .max = (hi))
#define SAVE_ARRAY(type, field)                                                                         \
	{                                                                                               \
		.name = #field, .offset = offsetof(type, field), .size = sizeof(((type *)0)->field[0]), \
		.count = sizeof(((type *)0)->field) / sizeof(((type *)0)->field[0]), .kind = SAVE_PLAIN \
	}
/* A structure, and an array of them, by @table. */
#define SAVE_STRUCT(type, field, table) SAVE_ROW_(type, field, .kind = SAVE_SUB, .sub = &(table))
#define SAVE_STRUCTS(type, field, table)                                                                               \
	{                                                                                                              \
		.name = #field, .offset = offsetof(type, field), .size = sizeof(((type *)0)->field[0]),                \
		.count = sizeof(((type *)0)->field) / sizeof(((type *)0)->field[0]), .kind = SAVE_SUB, .sub = &(table) \
	}
#define SAVE_BY(type, field, getter, setter) SAVE_ROW_(type, field, .kind = SAVE_HOOK, .get = (getter), .set = (setter))
#define SAVE_OMIT(type, field, why)          SAVE_ROW_(type, field, .kind = SAVE_NOT, .reason = (why))

/* Defines struct save_table @var of structure @type, whose rows are @var##_rows: one for each field. */
#define SAVE_TABLE(var, type, title) \
	const struct save_table var = {title, sizeof(type), var##_rows, sizeof var##_rows / sizeof var##_rows[0]}

/* Bytes written so far, or that could not be (n > room). */
struct save_buf {
	uint8_t *data;
	size_t n, room;
};

/* Appends the structure as a record; 0 or -ENOSPC. */
int save_put(struct save_buf *b, const struct save_table *t, const void *obj);
/* Reads the record at @data of at most @len bytes, which must be this table's and have every row of it, once, and nothing
 * else: its bytes, or -EPROTO with a line in @err that says what and where.  Then @obj is as it was. */
int save_get(const uint8_t *data, size_t len, const struct save_table *t, void *obj, char *err, size_t err_len);

#endif
