/*
 * Files named by somebody who must not choose among all files: below a folder, or not at all.  See beneath.c.
 */
#ifndef HVX_MONITOR_BENEATH_H
#define HVX_MONITOR_BENEATH_H

#include <limits.h>
#include <stdbool.h>

/*
 * A descriptor (O_PATH) of what @path leads to from the folder @dir: symbolic links and ".." are followed as long as they stay
 * below it, an absolute one does not; links of /proc that are none are not followed.  -EXDEV: it leads out; -ELOOP and the
 * rest as open(2).  @by_hand: as on a kernel without openat2(2).
 */
int beneath_open(int dir, const char *path, bool by_hand);

/* A folder that files may be below: open, and under both names that an absolute path may call it by. */
struct beneath_root {
	int dir;
	char given[PATH_MAX], real[PATH_MAX];
};
/* 0 or a negative error; beneath_root_close() after either. */
int beneath_root_open(struct beneath_root *r, const char *folder);
void beneath_root_close(struct beneath_root *r);

/* The rest of @path behind the root's name, without leading slashes; NULL: it is not below it. */
const char *beneath_root_rest(const struct beneath_root *r, const char *path);

#endif
