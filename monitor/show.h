/*
 * How commands print a monitor's answers.  See show.c.
 */
#ifndef HVX_MONITOR_SHOW_H
#define HVX_MONITOR_SHOW_H

#include "monitor/json.h"
#include "monitor/past.h"
#include "proto/pack.h"

/* One VM of `list`; @j is NULL for text, else within an array. */
void show_listed(const struct msg_status *s, struct json *j);

/* One that has been; @lost: nobody saw its end. */
void show_past(const struct past *p, bool lost, struct json *j);
/* One merge group of `groups`, likewise. */
void show_group(const struct msg_group_info *g, struct json *j);

void show_status(const struct msg_status *s, bool json);

/* Those whose names start with @prefix; how many there were. */
unsigned show_counters(const struct msg_counters *c, const char *prefix, bool json);

/* What a counter counts: "bytes", "pages", "bytes/s", "requests/s", "flag" (0 or 1) or "count". */
const char *show_unit(const char *counter);

#endif
