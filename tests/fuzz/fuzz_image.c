/*
 * Fuzz target: image headers.  The first byte says which format is said to be, the second whether it is to be written and
 * whether it is named like a raw image; the rest is the file.
 *
 * Properties: whatever the bytes, the answer is well formed, with a reason on one line where there is an error; names are within
 * their limits; a descriptor that is made of them is one that is read back alike.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/inspect.h"
#include "tests/fuzz/fuzz.h"

static void read_back(const struct header_refs *refs)
{
	static struct probe p;
	static struct header_refs again;
	char text[16384], why[200] = "";
	int n = header_descriptor(refs, "/proc/self/fd/", 5, text, sizeof text);

	FUZZ_CHECK(n > 0);
	memcpy(p.head, text, (size_t)n);
	p.size = p.n = (size_t)n;
	FUZZ_CHECK(header_refs(&p, FORMAT_VMDK, &again, why, sizeof why) == 0);
	FUZZ_CHECK(again.n == refs->n && again.create == refs->create);
	for (uint32_t i = 0; i < refs->n; i++)
		FUZZ_CHECK(again.ref[i].sectors == refs->ref[i].sectors && again.ref[i].offset == refs->ref[i].offset &&
			   again.ref[i].extent == refs->ref[i].extent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct inspection in;
	static int fd = -1;
	struct inspect_ask ask;

	if (len < 2)
		return 0;
	if (fd < 0)
		fd = memfd_create("image", MFD_CLOEXEC);
	ask = (struct inspect_ask){.format = data[0] % FORMAT_COUNT, .write = data[1] & 1, .raw = data[1] & 2};
	FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data + 2, len - 2, 0) == (ssize_t)(len - 2));
	inspect_here(fd, &ask, &in);
	FUZZ_CHECK(memchr(in.why, 0, sizeof in.why) && !strchr(in.why, '\n') && (in.rc == 0) == !in.why[0]);
	FUZZ_CHECK(header_refs_ok(&in.refs) || in.rc);
	FUZZ_CHECK(in.rc || (in.format != FORMAT_AUTO && (!ask.format || ask.format == in.format)));
	if (!in.rc && in.refs.n && in.refs.ref[0].link == HEADER_EXTENT)
		read_back(&in.refs);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const struct {
		const char *bytes;
		size_t n;
	} seeds[] = {
#define S(s) {s, sizeof s - 1}
		S("\0\1QFI\xfb\0\0\0\3\0\0\0\0\0\0\0\xa0\0\0\0\4"),
		S("\0\0QFI\xfb\0\0\0\2\0\0\0\0\0\0\0\x48\0\0\0\4"),
		S("\0\1# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
		  "RW 8192 FLAT \"a-flat.vmdk\" 0\n"),
		S("\3\0# Disk DescriptorFile\nversion=1\ncreateType=\"twoGbMaxExtentSparse\"\nRW 1 SPARSE \"s1\"\n"
		  "RW 2 SPARSE \"s2\"\nparentFileNameHint=\"x\"\n"),
		S("\3\0KDMV\1\0\0\0\3\0\0\0"),
		S("\6\1conectix"),
		S("\0\2plain"),
#undef S
	};
	size_t n;

	if (i >= sizeof seeds / sizeof seeds[0])
		return 0;
	n = seeds[i].n;
	memcpy(buf, seeds[i].bytes, n);
	if (i < 2) { /* room for a header, extensions and a name */
		memcpy(buf + 2 + 100, "\0\0\0\x68\xe2\x79\x2a\xca\0\0\0\3raw", 15);
		memcpy(buf + 2 + 0x78, "DATA\0\0\0\2dd", 10);
		memcpy(buf + 2 + (i ? 0x48 : 0xa0), "base", 4);
		n = 600;
	}
	return n;
}
