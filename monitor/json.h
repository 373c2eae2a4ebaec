/*
 * JSON for what commands print.  See json.c.
 */
#ifndef HVX_MONITOR_JSON_H
#define HVX_MONITOR_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH 72 /* of an image with as many backing files as there may be */

struct json {
	FILE *f;
	int depth;
	bool more[JSON_DEPTH]; /* something stands before the next item */
};

void json_begin(struct json *j, FILE *f);

/* One item; @key is NULL in an array and at the outermost level.  json_open() takes '{' or '[', json_close() the other
 * one, and ends the line at the outermost level. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
void json_text(struct json *j, const char *key, const char *value); /* NULL: null */
void json_number(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);

#endif
