/*
 * What confines a process, as the kernel tells.  See procinfo.c.
 */
#ifndef HVX_MONITOR_PROCINFO_H
#define HVX_MONITOR_PROCINFO_H

#include <stddef.h>
#include <sys/types.h>

/* One line about @pid from /proc: seccomp, no_new_privs, capabilities, namespaces, root, uid. What this user
 * may not read shows as '?'. */
void procinfo_describe(pid_t pid, char *buf, size_t len);

#endif
