/*
 * The pool's two descriptors.  Invariant: the processes of a VM get one that was opened for reading: no mapping of it can be made
 * writable, and neither ftruncate(), fallocate() nor seals work on it.  They have no /proc in which to open it anew.
 */
#include "monitor/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/err.h"

int pool_make(uint64_t size, int *rw, int *ro, char *err, size_t len)
{
	char path[40];

	*ro = -1;
	*rw = memfd_create("hvx-pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*rw < 0 || ftruncate(*rw, (off_t)size) < 0 ||
	    fcntl(*rw, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		snprintf(err, len, "memory for merged pages: %s", strerror(errno));
		return HVX_EXIT_HOST;
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", *rw);
	*ro = open(path, O_RDONLY | O_CLOEXEC);
	if (*ro >= 0)
		return 0;
	snprintf(err, len, "merging needs /proc, to open merged pages for reading only: %s", strerror(errno));
	return HVX_EXIT_HOST;
}
