/*
 * What keeps a program that is not ours from more than its work.  See confine.c.
 */
#ifndef HVX_MONITOR_CONFINE_H
#define HVX_MONITOR_CONFINE_H

/*
 * For the calling thread and all it becomes: read and run programs and libraries of the system, read /proc, open the
 * file behind @image as it may be; no other file is opened, none is made or removed, no other program's memory is read, no
 * network socket is made, nothing mounted.  0 or a negative error: -EOPNOTSUPP where the host has no Landlock, with the
 * rest in force.  no_new_privs must be set.
 */
int confine_file_server(int image);

#endif
