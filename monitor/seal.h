/*
 * What is left to hvx-monitor once the guest runs.  See seal.c.
 */
#ifndef HVX_MONITOR_SEAL_H
#define HVX_MONITOR_SEAL_H

#include <stdbool.h>

#include "common/sandbox.h"

extern const struct sandbox_table monitor_seal;

/* Gives up what starting a VM needed; 0 or a negative error.  Capabilities stay when @keep_caps: to remove a pidfile
 * from somebody else's directory.  CAP_KILL stays when children are @others to us: root's, where there is no user
 * namespace that we own. */
int seal_monitor(bool keep_caps, bool others);

#endif
