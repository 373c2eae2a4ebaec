/*
 * The only place that makes JSON.  Invariant: what comes out is one line of printable ASCII,
 * whatever the strings hold.
 */
#include "monitor/json.h"

#include <assert.h>

void json_begin(struct json *j, FILE *f)
{
	*j = (struct json){.f = f};
}

static void string(struct json *j, const char *s)
{
	fputc('"', j->f);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c == '"' || c == '\\')
			fprintf(j->f, "\\%c", c);
		else if (c < ' ' || c > '~')
			fprintf(j->f, "\\u%04x", c); /* bytes, not characters: nothing here is sure to be UTF-8 */
		else
			fputc(c, j->f);
	}
	fputc('"', j->f);
}

static void begin_item(struct json *j, const char *key)
{
	if (j->more[j->depth])
		fputs(", ", j->f);
	j->more[j->depth] = true;
	if (!key)
		return;
	string(j, key);
	fputs(": ", j->f);
}

void json_open(struct json *j, const char *key, char bracket)
{
	begin_item(j, key);
	fputc(bracket, j->f);
	assert(j->depth + 1 < JSON_DEPTH);
	j->more[++j->depth] = false;
}

void json_close(struct json *j, char bracket)
{
	fputc(bracket, j->f);
	if (--j->depth == 0)
		fputc('\n', j->f);
}

void json_text(struct json *j, const char *key, const char *value)
{
	begin_item(j, key);
	if (value)
		string(j, value);
	else
		fputs("null", j->f);
}

void json_number(struct json *j, const char *key, uint64_t value)
{
	begin_item(j, key);
	fprintf(j->f, "%llu", (unsigned long long)value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	begin_item(j, key);
	fputs(value ? "true" : "false", j->f);
}
