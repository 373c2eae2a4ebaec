/*
 * The private runtime directory: one control socket and one lock file a VM.
 * See runtime.c.
 */
#ifndef HVX_MONITOR_RUNTIME_H
#define HVX_MONITOR_RUNTIME_H

#include <stddef.h>
#include <sys/types.h>

#define RUNTIME_PATH_MAX 104 /* a socket's path must fit in sun_path */

struct runtime {
	char dir[RUNTIME_PATH_MAX];
};

/* Finds and makes the directory: $XDG_RUNTIME_DIR/hvx, /run/hvx for root, else /tmp/hvx-UID.  It must be a directory
 * of ours that nobody else may write.  0 or a negative error with @err filled. */
int runtime_open(struct runtime *r, char *err, size_t len);

/* Where a file of VM @name is. */
void runtime_path(const struct runtime *r, const char *name, const char *suffix, char *buf, size_t room);

/* Makes directory @dir if need be, and sees to it that it is ours alone. */
int runtime_private(const char *dir, char *err, size_t len);

/* Takes the name for this process: a lock that goes with it.  The lock's descriptor, -EEXIST when a VM of this
 * name runs, or another negative error. */
int runtime_lock(const struct runtime *r, const char *name);

/* A listening control socket for a name this process has locked; descriptor or negative error. */
int runtime_listen(const struct runtime *r, const char *name);

/* Removes socket and lock of @name; the lock must be ours. */
void runtime_remove(const struct runtime *r, const char *name);

/* Connects to the VM's monitor; -ENOENT when there is none (leftovers of a dead one are removed).  What is sent and
 * received over it fails with -EAGAIN after RUNTIME_PATIENCE seconds. */
#define RUNTIME_PATIENCE 30
int runtime_connect(const struct runtime *r, const char *name);

/* Calls @each for every name with a file called so, as ".sock". */
int runtime_each(const struct runtime *r, const char *suffix, void (*each)(void *ctx, const char *name), void *ctx);

#endif
