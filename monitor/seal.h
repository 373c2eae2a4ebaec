/*
 * What is left to hvx-monitor once the guest runs.  See seal.c.
 */
#ifndef HVX_MONITOR_SEAL_H
#define HVX_MONITOR_SEAL_H

#include <stdbool.h>

#include "common/sandbox.h"

extern const struct sandbox_table monitor_seal;

/* Gives up what starting a VM needed; 0 or a negative error.  Capabilities stay when @keep_caps: to remove a pidfile
 * from somebody else's directory.  Else those of @caps stay, a mask. */
int seal_monitor(bool keep_caps, uint64_t caps);

#endif
