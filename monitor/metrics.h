/*
 * Parts of `metrics` that can be tested alone.  See metrics.c.
 */
#ifndef HVX_MONITOR_METRICS_H
#define HVX_MONITOR_METRICS_H

#include <stddef.h>

/* Appends key="value" to @out, a list of labels. */
void metrics_label(char *out, size_t len, const char *key, const char *value);

/* The metric that a counter becomes; @device: whose it is, or empty. */
void metrics_name(const char *counter, char *metric, size_t len, char *device, size_t room);

/* NULL: the HTTP request asks for metrics; else what is answered. */
const char *metrics_status(const char *request);

#endif
