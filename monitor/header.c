/*
 * Names in image headers: backing files and data files of qcow2 (qemu's docs/interop/qcow2), extents of vmdk (VMware's
 * Virtual Disk Format 5.0).  Invariant: runs in the sealed helper of inspect.c, looks at the bytes of a struct probe and
 * nowhere else; a name that it passes on is a string without zeroes, of the length the format allows.
 */
#include "monitor/header.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_ 1024

static int says(char *why, size_t len, const char *text)
{
	snprintf(why, len, "%s", text);
	return -EINVAL;
}

static uint32_t be32(const uint8_t *b)
{
	uint32_t v;

	memcpy(&v, b, sizeof v);
	return be32toh(v);
}

static uint64_t be64(const uint8_t *b)
{
	return (uint64_t)be32(b) << 32 | be32(b + 4);
}

/* ---- qcow2 ---- */

enum { EXT_END = 0, EXT_BACKING_FORMAT = 0xe2792acau, EXT_DATA_FILE = 0x44415441 };
enum { NAME_AT = 8, NAME_LEN = 16, INCOMPATIBLE = 72, HEADER_LEN = 100, DATA_FILE = 1 << 2 };

/* The header extension of @type; NULL: there is none within what was read. */
static const uint8_t *extension(const struct probe *p, uint32_t type, uint32_t *n)
{
	uint64_t at = be32(p->head + 4) >= 3 ? be32(p->head + HEADER_LEN) : 72;

	while (at + 8 <= p->n) {
		uint32_t t = be32(p->head + at), k = be32(p->head + at + 4);
		if (t == EXT_END || k > p->n - at - 8)
			return NULL;
		if (t == type) {
			*n = k;
			return p->head + at + 8;
		}
		at += 8 + (((uint64_t)k + 7) & ~7ull);
	}
	return NULL;
}

static bool take_name(char *to, size_t room, const uint8_t *from, uint64_t n)
{
	if (!n || n >= room || memchr(from, 0, n))
		return false;
	memcpy(to, from, n);
	to[n] = '\0';
	return true;
}

static int backing(const struct probe *p, struct header_ref *r, char *why, size_t len)
{
	uint64_t at = be64(p->head + NAME_AT);
	uint32_t n = be32(p->head + NAME_LEN), k = 0;
	const uint8_t *ext = extension(p, EXT_BACKING_FORMAT, &k);
	char format[16];

	r->link = HEADER_BACKING;
	if (at > p->n || n > p->n - at || !take_name(r->name, sizeof r->name, p->head + at, n))
		return says(why, len, "names a backing file in a way that the format does not allow");
	if (!ext)
		return 0;
	if (!take_name(format, sizeof format, ext, k) || devopt_format_find(format, &r->format) || !r->format)
		return says(why, len, "has a backing file of a format that is not supported");
	return 0;
}

static int data_file(const struct probe *p, struct header_ref *r, char *why, size_t len)
{
	uint32_t n = 0;
	const uint8_t *ext = extension(p, EXT_DATA_FILE, &n);

	r->link = HEADER_DATA;
	r->format = FORMAT_RAW;
	if (ext && take_name(r->name, sizeof r->name, ext, n))
		return 0;
	return says(why, len, "keeps its data in another file and does not name it");
}

static int qcow2_refs(const struct probe *p, struct header_refs *r, char *why, size_t len)
{
	int rc = 0;

	if (be64(p->head + NAME_AT))
		rc = backing(p, &r->ref[r->n++], why, len);
	if (!rc && be32(p->head + 4) >= 3 && (be64(p->head + INCOMPATIBLE) & DATA_FILE))
		rc = data_file(p, &r->ref[r->n++], why, len);
	return rc;
}

/* ---- vmdk ---- */

static const char *const extents[EXTENT_COUNT] = {"FLAT", "SPARSE", "VMFS", "VMFSSPARSE", "SESPARSE"};
static const char *const creates[CREATE_COUNT] = {
	"monolithicFlat", "vmfs", "vmfsSparse", "seSparse", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"};

static int find(const char *const *names, int n, const char *s)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], s))
			return i;
	return -1;
}

/* RW 4192256 SPARSE "disk-s001.vmdk", or RW 2048 FLAT "disk-flat.vmdk" 0. */
static int extent(const char *line, struct header_refs *r, char *why, size_t len)
{
	char type[16], name[HEADER_NAME_MAX];
	long long sectors, offset = 0;
	int n = sscanf(line, "RW %lld %15s \"%1023[^\"\r\n]\" %lld", &sectors, type, name, &offset);
	int kind = n >= 2 ? find(extents, EXTENT_COUNT, type) : -1;

	if (n >= 2 && kind < 0) {
		snprintf(why, len, "has an extent of type %s, which is not supported: convert it with qemu-img", type);
		return -EINVAL;
	}
	if (n < 3 || sectors <= 0 || offset < 0 || (n < 4 && kind == EXTENT_FLAT))
		return says(why, len, "has a line about an extent that cannot be read");
	if (r->n == HEADER_REFS_MAX) {
		snprintf(why, len, "has more than %u extents: convert it with qemu-img", HEADER_REFS_MAX);
		return -EINVAL;
	}
	struct header_ref *e = &r->ref[r->n++];
	e->link = HEADER_EXTENT;
	e->format = FORMAT_RAW; /* whatever it is, vmdk reads it */
	e->extent = (enum header_extent)kind;
	e->sectors = (uint64_t)sectors;
	e->offset = (uint64_t)offset;
	snprintf(e->name, sizeof e->name, "%s", name);
	return 0;
}

static int descriptor_line(const char *line, struct header_refs *r, int *create, char *why, size_t len)
{
	char type[32];

	if (!strncmp(line, "parentFileNameHint", 18))
		return says(why, len, "has a parent, which is not followed: flatten it with qemu-img convert");
	if (sscanf(line, "createType=\"%31[^\"\r\n]\"", type) == 1)
		*create = find(creates, CREATE_COUNT, type);
	return strncmp(line, "RW ", 3) ? 0 : extent(line, r, why, len);
}

/* A descriptor of its own, which is text; one within a sparse file names nothing but that file. */
static int vmdk_refs(const struct probe *p, struct header_refs *r, char *why, size_t len)
{
	const char *s = (const char *)p->head, *end = s + p->n;
	int create = -1, rc = 0;
	char line[LINE_MAX_];

	if (p->n && (*s == 'K' || *s == 'C'))
		return 0;
	if (p->size > p->n)
		return says(why, len, "is a descriptor of more than 64 KiB");
	while (s < end && !rc) {
		const char *nl = memchr(s, '\n', (size_t)(end - s));
		size_t n = (size_t)((nl ? nl : end) - s);
		if (n >= sizeof line || memchr(s, 0, n))
			return says(why, len, "is a descriptor that is no text");
		memcpy(line, s, n);
		line[n] = '\0';
		rc = descriptor_line(line, r, &create, why, len);
		s = nl ? nl + 1 : end;
	}
	if (!rc && (create < 0 || !r->n))
		return says(why, len, "is a descriptor of a kind that is not supported: convert it with qemu-img");
	r->create = (enum header_create)create;
	return rc;
}

int header_descriptor(const struct header_refs *r, const char *prefix, unsigned first, char *buf, size_t len)
{
	int n = snprintf(buf, len,
			 "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"%s\"\n",
			 creates[r->create]);

	for (uint32_t i = 0; i < r->n && n >= 0 && (size_t)n < len; i++) {
		const struct header_ref *e = &r->ref[i];
		n += snprintf(buf + n, len - (size_t)n, "RW %llu %s \"%s%u\"", (unsigned long long)e->sectors,
			      extents[e->extent], prefix, first + i);
		if ((size_t)n < len && (e->extent == EXTENT_FLAT || e->offset))
			n += snprintf(buf + n, len - (size_t)n, " %llu", (unsigned long long)e->offset);
		if ((size_t)n < len)
			n += snprintf(buf + n, len - (size_t)n, "\n");
	}
	return n >= 0 && (size_t)n < len ? n : -ENOSPC;
}

/* ---- all ---- */

int header_refs(const struct probe *p, enum disk_format f, struct header_refs *r, char *why, size_t len)
{
	memset(r, 0, sizeof *r);
	switch (f) {
	case FORMAT_QCOW2: return qcow2_refs(p, r, why, len);
	case FORMAT_VMDK: return vmdk_refs(p, r, why, len);
	default: return 0;
	}
}

bool header_refs_ok(const struct header_refs *r)
{
	if (r->n > HEADER_REFS_MAX || (unsigned)r->create >= CREATE_COUNT)
		return false;
	for (uint32_t i = 0; i < r->n; i++) {
		const struct header_ref *e = &r->ref[i];
		if ((unsigned)e->link >= HEADER_LINKS || (unsigned)e->format >= FORMAT_COUNT ||
		    (unsigned)e->extent >= EXTENT_COUNT || !e->name[0] || !memchr(e->name, 0, sizeof e->name))
			return false;
	}
	return true;
}
