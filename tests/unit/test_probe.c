/* Image files by their bytes: every kind is known by name, and what cannot be used is refused with its reason. */
#include <CUnit/CUnit.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/probe.h"

static struct probe p;
static char why[200];

static void clear(void)
{
	memset(&p, 0, sizeof p);
	p.n = sizeof p.head;
	p.nfoot = sizeof p.foot;
}

static void put(size_t at, const char *bytes, size_t n)
{
	memcpy(p.head + at, bytes, n);
}
#define PUT(at, bytes) put(at, bytes, sizeof bytes - 1)

static const char *name(void)
{
	bool ends;
	const struct probe_kind *k = probe_kind(&p, &ends);

	return k ? k->name : "";
}

static void test_kinds(void)
{
	static const struct {
		size_t at;
		const char *bytes, *name;
		size_t n;
		enum disk_format format;
	} k[] = {
#define K(at, bytes, name, format) {at, bytes, name, sizeof bytes - 1, format}
		K(0, "QFI\xfb\0\0\0\2", "qcow2", FORMAT_QCOW2),
		K(0, "QFI\xfb\0\0\0\3", "qcow2", FORMAT_QCOW2),
		K(0, "QFI\xfb\0\0\0\1", "qcow", FORMAT_AUTO),
		K(0, "KDMV", "vmdk", FORMAT_VMDK),
		K(0, "COWD", "vmdk", FORMAT_VMDK),
		K(0, "# Disk DescriptorFile\nversion=1\n", "vmdk", FORMAT_VMDK),
		K(0, "# a comment\n\n  \nversion=3\r\nCID=1\n", "vmdk", FORMAT_VMDK),
		K(64, "\x7f\x10\xda\xbe", "vdi", FORMAT_VDI),
		K(0, "vhdxfile", "vhdx", FORMAT_VHDX),
		K(0, "conectix", "vpc", FORMAT_VPC),
		K(0, "QED\0", "QED", FORMAT_AUTO),
		K(0, "LUKS\xba\xbe\0\2", "a LUKS volume", FORMAT_AUTO),
		K(0, "WithoutFreeSpace", "Parallels", FORMAT_AUTO),
		K(0, "WithouFreSpacExt", "Parallels", FORMAT_AUTO),
		K(0, "Bochs Virtual HD Image", "Bochs", FORMAT_AUTO),
		K(0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0", "cloop", FORMAT_AUTO),
		K(0, "\x1f\x8b\x08\0", "a gzip file", FORMAT_AUTO),
		K(0, "\xfd\x37zXZ\0", "an xz file", FORMAT_AUTO),
		K(0, "\x28\xb5\x2f\xfd", "a zstd file", FORMAT_AUTO),
		K(0, "BZh91AY&SY", "a bzip2 file", FORMAT_AUTO),
		K(257, "ustar", "a tar file (or OVA)", FORMAT_AUTO),
		K(0, "\xeb\x63\x90", "", FORMAT_AUTO), /* a boot sector */
		K(0, "# a comment\nversion=9\n", "", FORMAT_AUTO),
		K(0, "version=1x", "", FORMAT_AUTO),
#undef K
	};
	bool ends;

	for (size_t i = 0; i < sizeof k / sizeof k[0]; i++) {
		clear();
		put(k[i].at, k[i].bytes, k[i].n);
		CU_ASSERT_STRING_EQUAL(name(), k[i].name);
		CU_ASSERT(k[i].format == FORMAT_AUTO || probe_like(&p, k[i].format));
		const struct probe_kind *kind = probe_kind(&p, &ends);
		CU_ASSERT(!ends && (!kind || (kind->format == k[i].format && (kind->format || kind->way_out))));
	}
	clear();
	PUT(0, "KDMV");
	p.n = 3; /* a byte is missing */
	CU_ASSERT_STRING_EQUAL(name(), "");
	clear();
	memset(p.head, '#', sizeof p.head); /* one comment without an end */
	CU_ASSERT_STRING_EQUAL(name(), "");
}

static void test_footers(void)
{
	bool ends;

	clear();
	memcpy(p.foot, "conectix", 8);
	CU_ASSERT_STRING_EQUAL(name(), "vpc");
	CU_ASSERT(probe_kind(&p, &ends) && ends && probe_like(&p, FORMAT_VPC));
	memset(p.foot, 0, 8);
	memcpy(p.foot + 1, "conectix", 8); /* 511 bytes */
	CU_ASSERT_STRING_EQUAL(name(), "vpc");
	p.nfoot = 0;
	CU_ASSERT_STRING_EQUAL(name(), "");
	clear();
	memcpy(p.foot, "koly\0\0\0\4", 8);
	CU_ASSERT_STRING_EQUAL(name(), "dmg");
	/* what the guest of a fixed VHD wrote into its first sector does not decide */
	clear();
	memcpy(p.foot, "conectix", 8);
	PUT(0, "QFI\xfb\0\0\0\3");
	CU_ASSERT(probe_kind(&p, &ends) && probe_kind(&p, &ends)->format == FORMAT_AUTO);
	CU_ASSERT(probe_like(&p, FORMAT_VPC) && probe_like(&p, FORMAT_QCOW2) && !probe_like(&p, FORMAT_VDI));
}

static bool refuses(enum disk_format f, bool write, const char *text)
{
	why[0] = '\0';
	return probe_refuses(&p, f, write, why, sizeof why) && strstr(why, text) && !strchr(why, '\n');
}

static void test_qcow2(void)
{
	clear();
	PUT(0, "QFI\xfb\0\0\0\3");
	CU_ASSERT(!probe_refuses(&p, FORMAT_QCOW2, true, why, sizeof why));
	p.head[79] = 0x19; /* dirty, compression, extended L2: qemu's affair */
	CU_ASSERT(!probe_refuses(&p, FORMAT_QCOW2, true, why, sizeof why));
	p.head[79] = 2;
	CU_ASSERT(refuses(FORMAT_QCOW2, true, "corrupt") && strstr(why, "readonly"));
	CU_ASSERT(!probe_refuses(&p, FORMAT_QCOW2, false, why, sizeof why));
	p.head[79] = 0x20;
	CU_ASSERT(refuses(FORMAT_QCOW2, false, "0x20"));
	p.head[79] = 0;
	p.head[72] = 0x80;
	CU_ASSERT(refuses(FORMAT_QCOW2, false, "0x8000000000000000"));
	p.head[7] = 2; /* has no such bits */
	CU_ASSERT(!probe_refuses(&p, FORMAT_QCOW2, true, why, sizeof why));
	p.head[35] = 2;
	CU_ASSERT(refuses(FORMAT_QCOW2, false, "encrypted"));
	p.head[35] = 0;
	p.head[7] = 4;
	CU_ASSERT(refuses(FORMAT_QCOW2, false, "version 4"));
	p.n = 103;
	CU_ASSERT(refuses(FORMAT_QCOW2, false, "cut short"));
}

static void test_vmdk(void)
{
	clear();
	PUT(0, "KDMV\1\0\0\0\3\0\0\0");
	CU_ASSERT(!probe_refuses(&p, FORMAT_VMDK, true, why, sizeof why));
	p.head[10] = 1; /* compressed grains */
	CU_ASSERT(refuses(FORMAT_VMDK, true, "snapshot or readonly"));
	CU_ASSERT(!probe_refuses(&p, FORMAT_VMDK, false, why, sizeof why));
	p.head[28] = 1;
	p.head[36] = 20;
	PUT(600, "parentFileNameHint=\"/etc/passwd\"");
	CU_ASSERT(refuses(FORMAT_VMDK, false, "parent"));
	memset(p.head + 28, 0xff, 16); /* places beyond everything */
	CU_ASSERT(!probe_refuses(&p, FORMAT_VMDK, false, why, sizeof why));
}

static void test_vpc(void)
{
	clear();
	PUT(0, "conectix");
	p.head[63] = 3;
	CU_ASSERT(!probe_refuses(&p, FORMAT_VPC, true, why, sizeof why));
	p.head[63] = 4;
	CU_ASSERT(refuses(FORMAT_VPC, false, "differencing"));
	p.head[63] = 9;
	CU_ASSERT(refuses(FORMAT_VPC, false, "type 9"));
	clear();
	memcpy(p.foot, "conectix", 8);
	p.foot[63] = 2;
	CU_ASSERT(!probe_refuses(&p, FORMAT_VPC, true, why, sizeof why));
	PUT(0, "conectix"); /* the guest's own */
	p.head[63] = 3;
	CU_ASSERT(refuses(FORMAT_VPC, false, "first sector"));
	clear();
	memcpy(p.foot + 1, "conectix", 8);
	p.foot[64] = 4;
	CU_ASSERT(refuses(FORMAT_VPC, false, "differencing"));
}

static void test_read(void)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(probe_read(&p, fd), 0);
	CU_ASSERT(p.n == 0 && p.nfoot == 0 && p.size == 0);
	CU_ASSERT_EQUAL(pwrite(fd, "QED", 4, 0), 4);
	CU_ASSERT_EQUAL(probe_read(&p, fd), 0);
	CU_ASSERT(p.n == 4 && p.nfoot == 0 && !strcmp(name(), "QED"));
	CU_ASSERT_EQUAL(ftruncate(fd, 1 << 20), 0);
	CU_ASSERT_EQUAL(pwrite(fd, "\0\0\0\0", 4, 0), 4);
	CU_ASSERT_EQUAL(pwrite(fd, "conectix", 8, (1 << 20) - 512), 8);
	CU_ASSERT_EQUAL(probe_read(&p, fd), 0);
	CU_ASSERT(p.n == PROBE_HEAD && p.nfoot == PROBE_FOOT && !strcmp(name(), "vpc"));
	close(fd);
	CU_ASSERT(probe_read(&p, fd) < 0);
}

CU_ErrorCode suite_probe(void);
CU_ErrorCode suite_probe(void)
{
	CU_pSuite s = CU_add_suite("probe", NULL, NULL);

	CU_add_test(s, "kinds", test_kinds);
	CU_add_test(s, "footers", test_footers);
	CU_add_test(s, "qcow2", test_qcow2);
	CU_add_test(s, "vmdk", test_vmdk);
	CU_add_test(s, "vpc", test_vpc);
	CU_add_test(s, "read", test_read);
	return CU_get_error();
}
