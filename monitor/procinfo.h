/*
 * What confines a process, as the kernel tells.  See procinfo.c.
 */
#ifndef HVX_MONITOR_PROCINFO_H
#define HVX_MONITOR_PROCINFO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One line about @pid from /proc: seccomp, no_new_privs, capabilities, namespaces, root, uid. What this user
 * may not read shows as '?'. */
void procinfo_describe(pid_t pid, char *buf, size_t len);

/* Its state as a letter, 'Z' for a zombie; 0: there is no such process. */
char procinfo_state(pid_t pid);

/* CPU time of @pid, all of its threads, in ns; 0 when it is gone.  Opens nothing. */
uint64_t procinfo_cpu(pid_t pid);

#endif
