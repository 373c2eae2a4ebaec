/*
 * The other files that an image's header names.  See header.c.
 */
#ifndef HVX_MONITOR_HEADER_H
#define HVX_MONITOR_HEADER_H

#include "monitor/probe.h"

#define HEADER_NAME_MAX 1024 /* with the zero: qcow2 allows 1023 characters */
#define HEADER_REFS_MAX 31   /* of one image: with itself as many as IMAGE_FILES_MAX */

enum header_link { HEADER_BACKING, HEADER_DATA, HEADER_EXTENT, HEADER_LINKS };

/* Kinds of a vmdk's extents, and of the descriptors that name them, as VMware spells them. */
enum header_extent { EXTENT_FLAT, EXTENT_SPARSE, EXTENT_VMFS, EXTENT_VMFSSPARSE, EXTENT_SESPARSE, EXTENT_COUNT };
enum header_create {
	CREATE_MONOLITHIC_FLAT,
	CREATE_VMFS,
	CREATE_VMFS_SPARSE,
	CREATE_SE_SPARSE,
	CREATE_2GB_SPARSE,
	CREATE_2GB_FLAT,
	CREATE_COUNT
};

struct header_ref {
	enum header_link link;
	enum disk_format format; /* FORMAT_AUTO: the header does not tell */
	char name[HEADER_NAME_MAX];
	enum header_extent extent;
	uint64_t sectors, offset; /* of an extent */
};
struct header_refs {
	uint32_t n;
	enum header_create create; /* of a vmdk that has extents */
	struct header_ref ref[HEADER_REFS_MAX];
};

/* Fills *r for an image of format @f.  0, or -EINVAL with @why, the end of a sentence. */
int header_refs(const struct probe *p, enum disk_format f, struct header_refs *r, char *why, size_t len);

/* Is *r, which somebody else filled, well formed? */
bool header_refs_ok(const struct header_refs *r);

/* A vmdk descriptor with the extents of *r, the n-th of which is called "@prefix" and the number @first + n.  Its length, or
 * -ENOSPC. */
int header_descriptor(const struct header_refs *r, const char *prefix, unsigned first, char *buf, size_t len);

#endif
