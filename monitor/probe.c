/*
 * Recognising image files.  Invariant: looks at bytes and nothing else; every format that is served is in the table,
 * and so is every container that qemu-img knows and that must not be mistaken for a raw image.
 */
#include "monitor/probe.h"

#include <byteswap.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONVERT "convert it with qemu-img"
#define UNPACK  "unpack it"

enum where { HEAD, FOOT };

static const struct magic {
	enum where where;
	size_t at;
	const char *bytes;
	size_t len;
	struct probe_kind kind;
} magics[] = {
#define M(where, at, bytes, ...)                    \
	{                                           \
		where, at, bytes, sizeof bytes - 1, \
		{                                   \
			__VA_ARGS__                 \
		}                                   \
	}
	M(HEAD, 0, "QFI\xfb\0\0\0\1", "qcow", FORMAT_AUTO, CONVERT),
	M(HEAD, 0, "QFI\xfb", "qcow2", FORMAT_QCOW2, NULL),
	M(HEAD, 0, "KDMV", "vmdk", FORMAT_VMDK, NULL),
	M(HEAD, 0, "COWD", "vmdk", FORMAT_VMDK, NULL),
	M(HEAD, 0, "# Disk DescriptorFile", "vmdk", FORMAT_VMDK, NULL),
	M(HEAD, 64, "\x7f\x10\xda\xbe", "vdi", FORMAT_VDI, NULL),
	M(HEAD, 0, "vhdxfile", "vhdx", FORMAT_VHDX, NULL),
	M(HEAD, 0, "conectix", "vpc", FORMAT_VPC, NULL),
	M(FOOT, 0, "conectix", "vpc", FORMAT_VPC, NULL), /* of a fixed size: nothing at the head */
	M(FOOT, 1, "conectix", "vpc", FORMAT_VPC, NULL), /* early ones: 511 bytes */
	M(HEAD, 0, "QED\0", "QED", FORMAT_AUTO, CONVERT),
	M(HEAD, 0, "LUKS\xba\xbe", "a LUKS volume", FORMAT_AUTO, "decrypt it"),
	M(HEAD, 0, "WithoutFreeSpace", "Parallels", FORMAT_AUTO, CONVERT),
	M(HEAD, 0, "WithouFreSpacExt", "Parallels", FORMAT_AUTO, CONVERT),
	M(HEAD, 0, "Bochs Virtual HD Image", "Bochs", FORMAT_AUTO, CONVERT),
	M(HEAD, 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop", FORMAT_AUTO, CONVERT),
	M(FOOT, 0, "koly\0\0\0\4", "dmg", FORMAT_AUTO, CONVERT),
	M(HEAD, 0, "\x1f\x8b\x08", "a gzip file", FORMAT_AUTO, UNPACK),
	M(HEAD, 0,
	  "\xfd"
	  "7zXZ\0",
	  "an xz file", FORMAT_AUTO, UNPACK),
	M(HEAD, 0, "\x28\xb5\x2f\xfd", "a zstd file", FORMAT_AUTO, UNPACK),
	M(HEAD, 4, "1AY&SY", "a bzip2 file", FORMAT_AUTO, UNPACK), /* behind BZh and a digit */
	M(HEAD, 0, "\x04\x22\x4d\x18", "an lz4 file", FORMAT_AUTO, UNPACK),
	M(HEAD, 0, "LZIP\1", "an lzip file", FORMAT_AUTO, UNPACK),
	M(HEAD, 0, "PK\3\4", "a zip file", FORMAT_AUTO, UNPACK),
	M(HEAD, 0, "7z\xbc\xaf\x27\x1c", "a 7z file", FORMAT_AUTO, UNPACK),
	M(HEAD, 257, "ustar", "a tar file (or OVA)", FORMAT_AUTO, UNPACK),
#undef M
};

int probe_read(struct probe *p, int fd)
{
	off_t size = lseek(fd, 0, SEEK_END); /* fstat() has none of a block device */
	ssize_t n = pread(fd, p->head, sizeof p->head, 0), k = 0;

	if (size < 0 || n < 0)
		return -errno;
	if ((size_t)size >= sizeof p->foot)
		k = pread(fd, p->foot, sizeof p->foot, size - (off_t)sizeof p->foot);
	if (k < 0)
		return -errno;
	p->size = (uint64_t)size;
	p->n = (size_t)n;
	p->nfoot = (size_t)k;
	return 0;
}

/* A vmdk's text may begin with comments of any kind: it is one by the first line that says something. */
static bool is_descriptor(const struct probe *p)
{
	const char *s = (const char *)p->head, *end = s + p->n;

	for (const char *nl; s < end && (*s == '#' || *s == ' ' || *s == '\r' || *s == '\n'); s = nl + 1) {
		nl = memchr(s, '\n', (size_t)(end - s));
		if (!nl)
			return false;
	}
	return end - s > 9 && !memcmp(s, "version=", 8) && s[8] >= '1' && s[8] <= '3' && (s[9] == '\n' || s[9] == '\r');
}

static bool matches(const struct probe *p, const struct magic *m)
{
	bool head = m->where == HEAD;

	return m->at + m->len <= (head ? p->n : p->nfoot) &&
	       !memcmp((head ? p->head : p->foot) + m->at, m->bytes, m->len);
}

static const struct probe_kind descriptor = {"vmdk", FORMAT_VMDK, NULL};

static const struct probe_kind *find(const struct probe *p, enum where where)
{
	for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++)
		if (magics[i].where == where && matches(p, &magics[i]))
			return &magics[i].kind;
	return where == HEAD && is_descriptor(p) ? &descriptor : NULL;
}

/* The guest of a fixed VHD writes its first sector: what is there does not outweigh the footer. */
const struct probe_kind *probe_kind(const struct probe *p, bool *ends)
{
	static const struct probe_kind both = {"one format and ends like another", FORMAT_AUTO,
					       "say which with format="};
	const struct probe_kind *head = find(p, HEAD), *foot = find(p, FOOT);

	*ends = foot && !head;
	if (head && foot && (head->format != foot->format || head->format == FORMAT_AUTO))
		return &both;
	return head ? head : foot;
}

bool probe_like(const struct probe *p, enum disk_format f)
{
	for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++)
		if (magics[i].kind.format == f && matches(p, &magics[i]))
			return true;
	return f == FORMAT_VMDK && is_descriptor(p);
}

/* ---- what is of a served format and yet of no use ---- */

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

static uint32_t le32(const uint8_t *b)
{
	return bswap_32(be32(b));
}

static bool says(char *why, size_t len, const char *text)
{
	snprintf(why, len, "%s", text);
	return true;
}

/* qemu's docs/interop/qcow2: big-endian; the words from byte 72 on are there from version 3. */
static bool qcow2_refuses(const struct probe *p, bool write, char *why, size_t len)
{
	enum { CORRUPT = 1 << 1, KNOWN = 0x1f };
	const uint8_t *h = p->head;
	uint32_t version = be32(h + 4);
	uint64_t bits = version >= 3 ? be64(h + 72) : 0;

	if (p->n < 104)
		return says(why, len, "is cut short within its header");
	if (version != 2 && version != 3) {
		snprintf(why, len, "is qcow2 of version %u, which is not known", version);
		return true;
	}
	if (bits & ~(uint64_t)KNOWN) {
		snprintf(why, len, "is qcow2 with features that are not known (incompatible bits 0x%llx)",
			 (unsigned long long)(bits & ~(uint64_t)KNOWN));
		return true;
	}
	if (be32(h + 32))
		return says(why, len, "is encrypted, which is not supported: decrypt it with qemu-img convert");
	if (write && (bits & CORRUPT))
		return says(why, len,
			    "is marked as corrupt: repair it with qemu-img check -r all, or use readonly or snapshot");
	return false;
}

/* VMware's Virtual Disk Format 5.0: little-endian; the descriptor's place in sectors. */
static bool vmdk_refuses(const struct probe *p, bool write, char *why, size_t len)
{
	enum { COMPRESSED = 1 << 16 };
	static const char hint[] = "parentFileNameHint";
	const uint8_t *h = p->head;

	if (h[0] != 'K')
		return false; /* COWD; or a descriptor: header.c reads it */
	if (p->n < 80)
		return says(why, len, "is cut short within its header");
	uint64_t at = (uint64_t)le32(h + 28) * 512, end = at + (uint64_t)le32(h + 36) * 512;
	if (end > p->n)
		end = p->n;
	if (at < end && memmem(h + at, (size_t)(end - at), hint, sizeof hint - 1))
		return says(why, len, "has a parent, which is not followed: flatten it with qemu-img convert");
	if (write && (le32(h + 8) & COMPRESSED))
		return says(why, len,
			    "is streamOptimized, which cannot be written: use snapshot or readonly, or convert it with "
			    "qemu-img");
	return false;
}

/* Microsoft's Virtual Hard Disk Image Format Specification 1.0: big-endian; a footer, and at the head a copy of it,
 * but not where the size is fixed: there the guest's first sector is. */
static bool vpc_refuses(const struct probe *p, char *why, size_t len)
{
	enum { TYPE = 60, NEED = 64, FIXED = 2, DYNAMIC = 3, DIFFERENCING = 4 };
	bool head = p->n >= NEED && !memcmp(p->head, "conectix", 8);
	const uint8_t *foot = p->foot + (p->foot[0] != 'c');
	bool fixed = p->nfoot >= NEED && !memcmp(foot, "conectix", 8) && be32(foot + TYPE) == FIXED;
	uint32_t type = be32((head ? p->head : foot) + TYPE);

	if (head && fixed)
		return says(why, len,
			    "is a fixed VHD with another VHD's header in its first sector: convert it with qemu-img");
	if (type == DIFFERENCING)
		return says(why, len,
			    "is a differencing VHD, whose parent is not followed: flatten it with qemu-img convert");
	if (type == FIXED || type == DYNAMIC)
		return false;
	snprintf(why, len, "is a VHD of type %u, which is not known", type);
	return true;
}

bool probe_refuses(const struct probe *p, enum disk_format f, bool write, char *why, size_t len)
{
	switch (f) {
	case FORMAT_QCOW2: return qcow2_refuses(p, write, why, len);
	case FORMAT_VMDK: return vmdk_refuses(p, write, why, len);
	case FORMAT_VPC: return vpc_refuses(p, why, len);
	default: return false;
	}
}
