/* What the two threads of a stub may still do.  See filter.c. */
#ifndef HVX_STUB_FILTER_H
#define HVX_STUB_FILTER_H

#include <linux/filter.h>
#include <stdint.h>
#include <sys/types.h>

#define FILTER_MAX 48

/* Fills @f, FILTER_MAX of them, for an area at @area; returns how many.  @pid: whom the helper may signal. */
unsigned filter_guest(struct sock_filter *f, uint64_t area);
unsigned filter_helper(struct sock_filter *f, uint64_t area, pid_t pid);

/* Address of a label of area.S in an area at @area. */
extern const char stub_code[], stub_launch[], stub_end[];
static inline uint64_t filter_at(uint64_t area, const char *label)
{
	return area + (uint64_t)(label - stub_code);
}

#endif
