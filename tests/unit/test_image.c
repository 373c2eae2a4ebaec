/* Files that images name: headers, the way below a folder, the sealed helper, chains. */
#include <CUnit/CUnit.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "monitor/image.h"
#include "monitor/imagelock.h"
#include "monitor/inspect.h"

static char top[64], why[400];
static struct probe p;
static struct header_refs refs;

static void be(uint8_t *to, uint64_t v, int n)
{
	while (n--) {
		to[n] = (uint8_t)v;
		v >>= 8;
	}
}

/* ---- headers ---- */

/* A qcow2 header of version 3, with extensions and a backing file where they are given. */
static void qcow2(uint8_t h[512], const char *backing, const char *format, const char *data)
{
	size_t at = 104;

	memset(h, 0, 512);
	memcpy(h, "QFI\xfb\0\0\0\3", 8);
	be(h + 100, 104, 4);
	if (format) {
		be(h + at, 0xe2792aca, 4);
		be(h + at + 4, strlen(format), 4);
		memcpy(h + at + 8, format, strlen(format));
		at += 8 + ((strlen(format) + 7) & ~7ul);
	}
	if (data) {
		be(h + 72, 4, 8);
		be(h + at, 0x44415441, 4);
		be(h + at + 4, strlen(data), 4);
		memcpy(h + at + 8, data, strlen(data));
		at += 8 + ((strlen(data) + 7) & ~7ul);
	}
	at += 8;
	if (backing) {
		be(h + 8, at, 8);
		be(h + 16, strlen(backing), 4);
		memcpy(h + at, backing, strlen(backing));
	}
}

static int refs_of(enum disk_format f, size_t n)
{
	why[0] = '\0';
	p.size = p.n = n;
	int rc = header_refs(&p, f, &refs, why, sizeof why);
	CU_ASSERT((rc == 0) == !why[0]);
	CU_ASSERT(rc || header_refs_ok(&refs));
	return rc;
}

static void test_qcow2(void)
{
	memset(&p, 0, sizeof p);
	qcow2(p.head, NULL, NULL, NULL);
	CU_ASSERT(refs_of(FORMAT_QCOW2, 512) == 0 && refs.n == 0);
	qcow2(p.head, "base.img", "raw", "x.data");
	CU_ASSERT_FATAL(refs_of(FORMAT_QCOW2, 512) == 0 && refs.n == 2);
	CU_ASSERT(refs.ref[0].link == HEADER_BACKING && refs.ref[0].format == FORMAT_RAW);
	CU_ASSERT_STRING_EQUAL(refs.ref[0].name, "base.img");
	CU_ASSERT(refs.ref[1].link == HEADER_DATA && refs.ref[1].format == FORMAT_RAW);
	CU_ASSERT_STRING_EQUAL(refs.ref[1].name, "x.data");
	qcow2(p.head, "base", NULL, NULL);
	CU_ASSERT(refs_of(FORMAT_QCOW2, 512) == 0 && refs.n == 1 && refs.ref[0].format == FORMAT_AUTO);
	qcow2(p.head, "base", "nbd", NULL);
	CU_ASSERT(refs_of(FORMAT_QCOW2, 512) == -EINVAL && strstr(why, "format"));
	qcow2(p.head, NULL, NULL, "");
	CU_ASSERT(refs_of(FORMAT_QCOW2, 512) == -EINVAL);
	/* places and lengths that lie */
	qcow2(p.head, "base", NULL, NULL);
	be(p.head + 8, UINT64_MAX - 1, 8);
	CU_ASSERT_EQUAL(refs_of(FORMAT_QCOW2, 512), -EINVAL);
	be(p.head + 8, 510, 8);
	CU_ASSERT_EQUAL(refs_of(FORMAT_QCOW2, 512), -EINVAL);
	be(p.head + 8, 100, 8);
	be(p.head + 16, 1024, 4);
	CU_ASSERT_EQUAL(refs_of(FORMAT_QCOW2, sizeof p.head), -EINVAL);
	be(p.head + 16, 0, 4);
	CU_ASSERT_EQUAL(refs_of(FORMAT_QCOW2, 512), -EINVAL);
	qcow2(p.head, "ba\0se", NULL, NULL);
	be(p.head + 16, 5, 4);
	CU_ASSERT_EQUAL(refs_of(FORMAT_QCOW2, 512), -EINVAL);
	qcow2(p.head, NULL, "raw", "data");
	be(p.head + 104 + 4, 0xfffffff8, 4); /* an extension beyond the end */
	CU_ASSERT_EQUAL(refs_of(FORMAT_QCOW2, 512), -EINVAL);
}

static int vmdk(const char *text)
{
	size_t n = strlen(text);

	memset(&p, 0, sizeof p);
	memcpy(p.head, text, n);
	return refs_of(FORMAT_VMDK, n);
}

#define DESC "# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\n"

static void test_vmdk(void)
{
	char text[4096] = DESC "createType=\"twoGbMaxExtentSparse\"\n";

	CU_ASSERT_FATAL(vmdk(DESC "createType=\"monolithicFlat\"\r\nRW 8192 FLAT \"a b-flat.vmdk\" 16\r\n") == 0);
	CU_ASSERT(refs.n == 1 && refs.create == CREATE_MONOLITHIC_FLAT && refs.ref[0].extent == EXTENT_FLAT);
	CU_ASSERT(refs.ref[0].sectors == 8192 && refs.ref[0].offset == 16);
	CU_ASSERT_STRING_EQUAL(refs.ref[0].name, "a b-flat.vmdk");
	CU_ASSERT(header_descriptor(&refs, "/f/", 7, text, sizeof text) > 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "createType=\"monolithicFlat\"\nRW 8192 FLAT \"/f/7\" 16\n"));
	CU_ASSERT_EQUAL(header_descriptor(&refs, "/f/", 7, text, 100), -ENOSPC);
	CU_ASSERT(vmdk(DESC "createType=\"custom\"\nRW 1 FLAT \"a\" 0\n") == -EINVAL && strstr(why, "kind"));
	CU_ASSERT(vmdk(DESC "createType=\"vmfs\"\nRW 1 ZERO\n") == -EINVAL && strstr(why, "ZERO"));
	CU_ASSERT(vmdk(DESC "createType=\"vmfs\"\nRW 1 FLAT \"a\n") == -EINVAL);
	CU_ASSERT(vmdk(DESC "createType=\"vmfs\"\nRW -1 FLAT \"a\" 0\n") == -EINVAL);
	CU_ASSERT(vmdk(DESC "createType=\"vmfs\"\n") == -EINVAL);
	CU_ASSERT(vmdk(DESC "createType=\"vmfs\"\nRW 1 VMFS \"a\"\nparentFileNameHint=\"/etc/passwd\"\n") == -EINVAL &&
		  strstr(why, "parent"));
	snprintf(text, sizeof text, DESC "createType=\"twoGbMaxExtentSparse\"\n");
	for (unsigned i = 0; i <= HEADER_REFS_MAX; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "RW 1 SPARSE \"s%u\"\n", i);
	CU_ASSERT(vmdk(text) == -EINVAL && strstr(why, "31 extents"));
	vmdk(DESC);
	p.head[3] = 0;
	CU_ASSERT_EQUAL(refs_of(FORMAT_VMDK, 60), -EINVAL);
	memset(&p, 0, sizeof p);
	memcpy(p.head, "KDMV", 4);
	CU_ASSERT(refs_of(FORMAT_VMDK, 512) == 0 && refs.n == 0);
}

/* What the helper says is not believed: a number of files, of which all that follow look well. */
static void test_said(void)
{
	static struct {
		struct header_refs r;
		struct header_ref more;
	} said;
	struct header_ref well = {.link = HEADER_BACKING, .name = "base"};

	for (unsigned k = 0; k < HEADER_REFS_MAX; k++)
		said.r.ref[k] = well;
	said.more = well;
	said.r.n = HEADER_REFS_MAX;
	CU_ASSERT(header_refs_ok(&said.r));
	said.r.n++;
	CU_ASSERT(!header_refs_ok(&said.r));
	said.r.n = 1;
	said.r.create = CREATE_COUNT;
	CU_ASSERT(!header_refs_ok(&said.r));
	said.r.create = 0;
	memset(said.r.ref[0].name, 'a', sizeof said.r.ref[0].name);
	CU_ASSERT(!header_refs_ok(&said.r));
	said.r.ref[0] = (struct header_ref){.link = HEADER_LINKS, .name = "base"};
	CU_ASSERT(!header_refs_ok(&said.r));
	said.r.ref[0] = (struct header_ref){.link = HEADER_BACKING};
	CU_ASSERT(!header_refs_ok(&said.r));
}

/* ---- the helper ---- */

static const struct inspect_ask ask;

static void opens(int fd, const struct inspect_ask *a, struct inspection *out)
{
	(void)a;
	syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
	inspect_here(fd, a, out);
}

static void goes(int fd, const struct inspect_ask *a, struct inspection *out)
{
	(void)fd, (void)a, (void)out;
	syscall(SYS_exit_group, 3);
}

static void lies(int fd, const struct inspect_ask *a, struct inspection *out)
{
	inspect_here(fd, a, out);
	out->refs.n = HEADER_REFS_MAX + 1;
}

static void leaves_open(int fd, const struct inspect_ask *a, struct inspection *out)
{
	inspect_here(fd, a, out);
	for (int i = 0; i < 64;
	     i++) /* of all there were only two are left: the image, and the pipe that cannot be read */
		if (i != fd && lseek(i, 0, SEEK_CUR) >= 0)
			out->rc = -EBADF;
}

static void test_helper(void)
{
	static struct inspection in;
	uint8_t h[512];
	int fd = memfd_create("image", MFD_CLOEXEC);

	qcow2(h, "base", "qcow2", NULL);
	CU_ASSERT_FATAL(fd >= 0 && write(fd, h, sizeof h) == sizeof h);
	CU_ASSERT(inspect(fd, &ask, &in) == 0 && in.format == FORMAT_QCOW2 && in.refs.n == 1);
	CU_ASSERT(inspect_by(opens, fd, &ask, &in) == -ECHILD && strstr(in.why, "SIGSYS"));
	CU_ASSERT(inspect_by(goes, fd, &ask, &in) == -ECHILD && strstr(in.why, "status 3"));
	CU_ASSERT(inspect_by(lies, fd, &ask, &in) == -ECHILD && strstr(in.why, "malformed"));
	CU_ASSERT_EQUAL(inspect_by(leaves_open, fd, &ask, &in), 0);
	close(fd);
	CU_ASSERT(inspect(fd, &ask, &in) < 0);
}

/* ---- below a folder ---- */

static void put(const char *name, const void *data, size_t n)
{
	char path[200];

	snprintf(path, sizeof path, "%s/%s", top, name);
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0 && write(fd, data, n) == (ssize_t)n && ftruncate(fd, 1 << 20) == 0);
	close(fd);
}

static void link_to(const char *text, const char *name)
{
	char path[200];

	snprintf(path, sizeof path, "%s/%s", top, name);
	CU_ASSERT_EQUAL(symlink(text, path), 0);
}

static void directory(const char *name)
{
	char path[200];

	snprintf(path, sizeof path, "%s/%s", top, name);
	CU_ASSERT(mkdir(path, 0700) == 0 || errno == EEXIST);
}

static int set_up(void)
{
	strcpy(top, "/tmp/hvx-image-XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void)
{
	char cmd[100];

	snprintf(cmd, sizeof cmd, "rm -rf %s", top);
	return system(cmd);
}

static void test_beneath(void)
{
	static const struct {
		const char *path;
		int rc;
	} c[] = {
		{"vm/a", 0},
		{"vm/./sub/../a", 0},
		{"vm/sub/inner", 0},       /* -> ../a */
		{"vm/dir/a", 0},           /* dir -> sub/.. */
		{"vm/chain", 0},           /* -> dir/sub/inner */
		{"vm/out", -EXDEV},        /* -> ../../etc/passwd */
		{"vm/root", -EXDEV},       /* -> /etc/passwd */
		{"vm/up/../../x", -EXDEV}, /* up -> .. */
		{"../x", -EXDEV},
		{"vm/../../x", -EXDEV},
		{"/etc/passwd", -EXDEV},
		{"vm/loop", -ELOOP},
		{"vm/none", -ENOENT},
		{"vm/a/b", -ENOTDIR},
	};
	int dir = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC), proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);

	directory("vm");
	directory("vm/sub");
	put("vm/a", "a", 1);
	link_to("../a", "vm/sub/inner");
	link_to("sub/..", "vm/dir");
	link_to("dir/sub/inner", "vm/chain");
	link_to("../../etc/passwd", "vm/out");
	link_to("/etc/passwd", "vm/root");
	link_to("..", "vm/up");
	link_to("loop", "vm/loop");
	for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
		for (int by_hand = 0; by_hand < 2; by_hand++) {
			int fd = beneath_open(dir, c[i].path, by_hand);
			CU_ASSERT_EQUAL(fd < 0 ? fd : 0, c[i].rc);
			if (fd >= 0)
				close(fd);
		}
	for (int by_hand = 0; by_hand < 2; by_hand++)
		CU_ASSERT(beneath_open(proc, "self/cwd/x", by_hand) < 0); /* a link of /proc that is none */
	close(dir);
	close(proc);
}

/* What the kernel bounds, the walk by hand does too: folders within folders, what is left to walk, a name. */
static void test_beneath_bounds(void)
{
	static char path[PATH_MAX + 8], text[3001];
	int dir = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;

	for (unsigned k = 0; k <= 64; k++) {
		strcat(path, k ? "/n" : "n");
		directory(path);
	}
	CU_ASSERT_EQUAL(beneath_open(dir, path, true), -ENAMETOOLONG);
	path[strlen(path) - 2] = '\0';
	fd = beneath_open(dir, path, true);
	CU_ASSERT(fd >= 0);
	close(fd);
	for (unsigned k = 0; k < 3000; k++)
		text[k] = k % 2 ? '/' : '.';
	link_to(text, "long");
	snprintf(path, sizeof path, "long/%.1000s", text);
	fd = beneath_open(dir, path, true);
	CU_ASSERT(fd >= 0);
	close(fd);
	snprintf(path, sizeof path, "long/%.2000s", text);
	CU_ASSERT_EQUAL(beneath_open(dir, path, true), -ENAMETOOLONG);
	for (int by_hand = 0; by_hand < 2; by_hand++) {
		memset(path, 'a', sizeof path);
		path[3000] = '\0';
		CU_ASSERT_EQUAL(beneath_open(dir, path, by_hand), -ENAMETOOLONG);
		path[NAME_MAX + 1] = '\0';
		CU_ASSERT_EQUAL(beneath_open(dir, path, by_hand), -ENAMETOOLONG);
		for (unsigned k = 0; k < PATH_MAX; k++)
			path[k] = k % 2 ? '/' : '.';
		path[PATH_MAX] = '\0';
		CU_ASSERT_EQUAL(beneath_open(dir, path, by_hand), -ENAMETOOLONG);
	}
	close(dir);
}

/* ---- chains ---- */

static struct disk_option d;
static char err[PATH_MAX + 1024];

static struct image *open_image(const char *name, const char *allow)
{
	static char allowed[1][PATH_MAX];
	struct image *i = NULL;

	memset(&d, 0, sizeof d);
	snprintf(d.path, sizeof d.path, "%s/%s", top, name);
	snprintf(allowed[0], sizeof allowed[0], "%s/%s", top, allow ? allow : "");
	err[0] = '\0';
	return image_open(&d, (const char(*)[PATH_MAX])allowed, allow != NULL, &i, err, sizeof err) ? NULL : i;
}

static void make(const char *name, const char *backing, const char *format)
{
	uint8_t h[512];

	qcow2(h, backing, format, NULL);
	put(name, h, sizeof h);
}

static bool refused(const char *name, const char *text)
{
	struct image *i = open_image(name, NULL);

	image_free(i);
	if (!i && strstr(err, text) && !strchr(err, '\n'))
		return true;
	printf("%s: %s\n", name, err);
	return false;
}

static void test_chain(void)
{
	char absolute[200];

	directory("c");
	directory("c/bases");
	directory("other");
	put("c/bases/g.raw", "", 0);
	put("other/o.raw", "", 0);
	make("c/bases/m", "g.raw", NULL);
	make("c/top", "bases/m", "qcow2");
	struct image *i = open_image("c/top", NULL), *j;
	CU_ASSERT_FATAL(i && i->n == 3);
	CU_ASSERT(i->file[1].depth == 1 && i->file[2].depth == 2 && i->file[2].parent == 1);
	CU_ASSERT(i->file[1].format == FORMAT_QCOW2 && i->file[2].format == FORMAT_RAW);
	CU_ASSERT(i->file[0].write && !i->file[1].write && !i->file[2].write);
	CU_ASSERT((fcntl(i->file[1].fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
	make("c/second", "bases/m", "qcow2"); /* shares the base, */
	j = open_image("c/second", NULL);
	CU_ASSERT(j && refused("c/bases/g.raw", "in use by")); /* which nobody may write then */
	image_free(j);
	image_free(i);
	i = open_image("c/bases/m", NULL);
	CU_ASSERT(i && refused("c/top", "backing file 1, bases/m: in use by")); /* nor be used while it is written */
	image_free(i);
	snprintf(absolute, sizeof absolute, "%s/c/bases/m", top);
	make("c/abs", absolute, "qcow2");
	i = open_image("c/abs", NULL);
	CU_ASSERT(i && i->n == 3);
	image_free(i);
	/* the format of a base: what is said, else what is sure */
	put("c/plain", "", 0);
	make("c/x", "plain", NULL);
	CU_ASSERT(refused("c/x", "backing file 1, plain: no known format"));
	make("c/x", "plain", "vdi");
	CU_ASSERT(refused("c/x", "does not begin like its format"));
	make("c/x", "plain", "raw");
	i = open_image("c/x", NULL);
	CU_ASSERT(i && i->n == 2);
	image_free(i);
	/* a folder by another name is the folder; one that only begins with its name is not */
	link_to("c", "alias");
	snprintf(absolute, sizeof absolute, "%s/alias/plain", top);
	make("c/x", absolute, "raw");
	i = open_image("c/x", NULL);
	CU_ASSERT(i && i->n == 2);
	image_free(i);
	snprintf(absolute, sizeof absolute, "%s/cplain", top);
	make("c/x", absolute, "raw");
	CU_ASSERT(refused("c/x", "not below"));
	/* another folder, when it is allowed */
	make("c/x", "../other/o.raw", "raw");
	CU_ASSERT(refused("c/x", "--allow-path"));
	i = open_image("c/x", "other");
	CU_ASSERT(i && i->n == 2 && i->file[1].root == 1);
	image_free(i);
	link_to("../other/o.raw", "c/linked");
	make("c/x", "linked", "raw");
	CU_ASSERT(refused("c/x", "--allow-path"));
	i = open_image("c/x", "other");
	CU_ASSERT(i && i->n == 2);
	image_free(i);
	CU_ASSERT(!open_image("c/x", "none") && strstr(err, "allow-path"));
}

static void test_hostile(void)
{
	char name[32], next[32], fifo[200];

	directory("h");
	snprintf(fifo, sizeof fifo, "%s/h/fifo", top);
	CU_ASSERT_EQUAL(mkfifo(fifo, 0600), 0);
	CU_ASSERT(refused("h/fifo", "neither a file nor a block device"));
	link_to("/etc/shadow", "h/link");
	make("h/x", "/etc/shadow", "raw");
	CU_ASSERT(refused("h/x", "backing file 1, /etc/shadow: not below"));
	make("h/x", "../../../../../../../etc/shadow", "raw");
	CU_ASSERT(refused("h/x", "not below"));
	make("h/x", "link", "raw");
	CU_ASSERT(refused("h/x", "not below"));
	make("h/x", "fifo", "raw");
	CU_ASSERT(refused("h/x", "fifo: not a regular file"));
	make("h/x", ".", "raw");
	CU_ASSERT(refused("h/x", "not a regular file"));
	make("h/x", "none", "raw");
	CU_ASSERT(refused("h/x", "backing file 1, none: No such file"));
	make("h/x", "x", "qcow2");
	CU_ASSERT(refused("h/x", "part of this disk already"));
	make("h/x", "y", "qcow2");
	make("h/y", "./x", "qcow2");
	CU_ASSERT(refused("h/x", "backing file 2, ./x: is part of this disk already"));
	make("h/x", "json:{\"driver\":\"host_device\",\"filename\":\"/dev/sda\"}", NULL);
	CU_ASSERT(refused("h/x", "protocol"));
	put("h/nbd:1", "", 0); /* even if it is there */
	make("h/x", "nbd:1", "raw");
	CU_ASSERT(refused("h/x", "protocol"));
	make("h/x", "a\nb\033[1m", "raw");
	CU_ASSERT(refused("h/x", "a\\x0ab\\x1b[1m: No such file"));
	for (int k = 0; k < 1000; k++) {
		snprintf(name, sizeof name, "h/c%d", k);
		snprintf(next, sizeof next, "c%d", k + 1);
		make(name, next, "qcow2");
	}
	CU_ASSERT(refused("h/c0", "backing file 32, c32: a disk is made of 32 files at most"));
	make("h/c31", NULL, NULL);
	struct image *i = open_image("h/c0", NULL);
	CU_ASSERT(i && i->n == IMAGE_FILES_MAX);
	image_free(i);
}

/* A vmdk's extents are the server's under other names; they are written as it is. */
static void test_extents(void)
{
	static const char text[] = DESC "createType=\"twoGbMaxExtentFlat\"\nRW 9 FLAT \"e1\" 0\nRW 9 FLAT \"e2\" 0\n";
	static const char own[] = DESC "createType=\"monolithicFlat\"\nRW 9 FLAT \"t\" 0\n";
	char path[200], got[400] = "";

	directory("v");
	put("v/e1", "", 0);
	put("v/e2", "", 0);
	for (int k = 0; k < 2; k++) {
		snprintf(path, sizeof path, "%s/v/%s", top, k ? "t" : "d");
		int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		CU_ASSERT(fd >= 0 && write(fd, k ? own : text, strlen(k ? own : text)) > 0);
		close(fd);
	}
	struct image *i = open_image("v/d", NULL);
	CU_ASSERT_FATAL(i && i->n == 3 && i->file[0].hand >= 0);
	CU_ASSERT(i->file[2].link == HEADER_EXTENT && i->file[2].write && i->file[2].depth == 0);
	CU_ASSERT(pread(i->file[0].hand, got, sizeof got - 1, 0) > 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(got, "RW 9 FLAT \"/proc/self/fd/5\" 0\nRW 9 FLAT \"/proc/self/fd/6\" 0\n"));
	image_free(i);
	/* what a backing file names is written as little as itself */
	uint8_t h[512];
	qcow2(h, NULL, "raw", "e1");
	put("v/base", h, sizeof h);
	make("v/x", "base", "qcow2");
	i = open_image("v/x", NULL);
	CU_ASSERT_FATAL(i && i->n == 3);
	CU_ASSERT(i->file[2].link == HEADER_DATA && !i->file[2].write);
	CU_ASSERT_EQUAL(fcntl(i->file[2].fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	image_free(i);
	CU_ASSERT(refused("v/t", "extent, t: is part of this disk already"));
}

/* What QEMU would have: a byte each for what it uses and what it denies to others. */
static void test_qemu_locks(void)
{
	char path[200];

	put("lock", "", 0);
	snprintf(path, sizeof path, "%s/lock", top);
	int a = open(path, O_RDWR | O_CLOEXEC), b = open(path, O_RDWR | O_CLOEXEC);
	struct flock l = {.l_type = F_RDLCK, .l_start = 101, .l_len = 1};
	CU_ASSERT_EQUAL(fcntl(b, F_OFD_SETLK, &l), 0); /* it writes */
	CU_ASSERT_EQUAL(image_lock(a, false), -EBUSY);
	l.l_type = F_UNLCK;
	fcntl(b, F_OFD_SETLK, &l);
	l.l_type = F_RDLCK;
	l.l_start = 100;
	CU_ASSERT_EQUAL(fcntl(b, F_OFD_SETLK, &l), 0); /* it reads, and lets nobody write */
	l.l_start = 201;
	CU_ASSERT_EQUAL(fcntl(b, F_OFD_SETLK, &l), 0);
	CU_ASSERT_EQUAL(image_lock(a, true), -EBUSY);
	CU_ASSERT_EQUAL(image_lock(a, false), 0);
	l.l_type = F_WRLCK; /* and so it looks whether anybody writes, or denies reading */
	l.l_start = 101;
	CU_ASSERT(fcntl(b, F_OFD_GETLK, &l) == 0 && l.l_type == F_UNLCK);
	l.l_type = F_WRLCK;
	l.l_start = 200;
	CU_ASSERT(fcntl(b, F_OFD_GETLK, &l) == 0 && l.l_type == F_UNLCK);
	close(a);
	close(b);
}

CU_ErrorCode suite_image(void);
CU_ErrorCode suite_image(void)
{
	CU_pSuite s = CU_add_suite("image", set_up, tear_down);

	CU_add_test(s, "headers: qcow2", test_qcow2);
	CU_add_test(s, "headers: vmdk", test_vmdk);
	CU_add_test(s, "what a helper says", test_said);
	CU_add_test(s, "the sealed helper", test_helper);
	CU_add_test(s, "below a folder", test_beneath);
	CU_add_test(s, "below a folder: bounds", test_beneath_bounds);
	CU_add_test(s, "chains", test_chain);
	CU_add_test(s, "hostile names", test_hostile);
	CU_add_test(s, "extents", test_extents);
	CU_add_test(s, "QEMU's locks", test_qemu_locks);
	return CU_get_error();
}
