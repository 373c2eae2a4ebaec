/*
 * Amounts as people write them.  See amount.c.
 */
#ifndef HVX_MONITOR_AMOUNT_H
#define HVX_MONITOR_AMOUNT_H

#include <stdint.h>

/* "512", "512M", "1.5G", "64KiB", "2t": a number, then K, M, G, T or nothing, each 1024 times the one before, with or without
 * iB; nothing stands for @unit ('M', or 0 for ones).  Up to six decimals, but not of a number without a letter; what they leave
 * below a whole one is dropped.  0, -EINVAL when it is no such thing, -ERANGE beyond @max. */
int amount_parse(const char *v, char unit, uint64_t max, uint64_t *out);

#endif
