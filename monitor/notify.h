/*
 * What a service manager hears.  See notify.c.
 */
#ifndef HVX_MONITOR_NOTIFY_H
#define HVX_MONITOR_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

struct notify {
	int fd;               /* -1: nobody listens */
	unsigned watchdog_ms; /* it wants to hear of us within this; 0: it does not */
};

/* As the environment says: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID (sd_notify(3), sd_watchdog_enabled(3)).  A socket
 * that cannot be had is 0 all the same: the manager notices.  -EINVAL: it is no socket's name. */
int notify_open(struct notify *n);
void notify_close(struct notify *n);

/* Is there one?  Before notify_open(), too. */
bool notify_wanted(void);

/* @assignments: lines of VARIABLE=VALUE.  Opens nothing, waits for nobody. */
void notify_say(const struct notify *n, const char *assignments);

#endif
