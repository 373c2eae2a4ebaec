/*
 * What an image file is, by its first and last bytes.  See probe.c.
 */
#ifndef HVX_MONITOR_PROBE_H
#define HVX_MONITOR_PROBE_H

#include "monitor/devopt.h"

#define PROBE_HEAD (64u << 10) /* holds a qcow2 header, and the descriptor within a vmdk */
#define PROBE_FOOT 512u

struct probe {
	uint8_t head[PROBE_HEAD], foot[PROBE_FOOT];
	size_t n, nfoot; /* bytes of each that the file has */
	uint64_t size;   /* of the file or block device */
};

/* A kind of file that is more than the guest's bytes. */
struct probe_kind {
	const char *name;        /* "qcow2", "a gzip file" */
	enum disk_format format; /* FORMAT_AUTO: known by name only */
	const char *way_out;     /* of those: what makes a disk of it */
};

/* Reads both ends of @fd.  0 or a negative error. */
int probe_read(struct probe *p, int fd);

/* The kind that the file begins (or ends: *ends) like; NULL: none that is known. */
const struct probe_kind *probe_kind(const struct probe *p, bool *ends);

/* Does it look like format @f, whatever else it looks like? */
bool probe_like(const struct probe *p, enum disk_format f);

/* Why a file of format @f cannot be used, for writing if @write, as the end of a sentence; false: nothing is known
 * that speaks against it. */
bool probe_refuses(const struct probe *p, enum disk_format f, bool write, char *why, size_t len);

#endif
