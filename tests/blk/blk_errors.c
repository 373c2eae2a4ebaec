/*
 * What goes wrong around a real hvx-blk: no space, a limit of file sizes, an image that is cut short under it, drivers
 * that break the rules, resets with requests in flight, and as many disks as a VM can have.
 *
 * Usage: blk_errors [--seed=N] [TEST ...]
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/blk/vm.h"

#define MIB   (1u << 20)
#define DISKS MSG_DEVICES_MAX /* more cards than one VM can have disks */

static char dir[256];
static uint64_t seed = 1;

#define CHECK(cond)                                                             \
	do {                                                                    \
		if (!(cond))                                                    \
			vm_die("%s:%d: not so: %s", __FILE__, __LINE__, #cond); \
	} while (0)

/* A sparse file of that many bytes. */
static const char *image(const char *name, uint64_t size)
{
	static char path[300];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	unlink(path);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size))
		vm_die("%s: %s", path, strerror(errno));
	close(fd);
	return path;
}

static void begin(struct vm *v, const struct vm_setup *s)
{
	vm_start(v, s, seed);
	vm_activate(v, ~0ull);
}

static void finish(struct vm *v)
{
	vm_stop(v);
	unlink(v->set.image);
	vm_free(v);
}

static int do_write(struct vm *v, uint64_t at, uint32_t len, uint8_t with)
{
	memset(vm_data(v, 0), with, len);
	return vm_do(v, VM_OUT, at / 512, len);
}

static bool holds(struct vm *v, uint64_t at, uint32_t len, uint8_t what)
{
	uint8_t *p = vm_data(v, 0);

	memset(p, ~what, len);
	if (vm_do(v, VM_IN, at / 512, len) != VM_OK)
		return false;
	for (uint32_t i = 0; i < len; i++)
		if (p[i] != what)
			return false;
	return true;
}

/* ---- no space ---- */

/* A mount of our own that nobody else sees: root's, or in a user namespace. */
static void own_mounts(void)
{
	static bool done;
	char map[64];
	unsigned uid = geteuid(), gid = getegid();

	if (done)
		return;
	done = true;
	if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
		vm_die("no mount namespace: %s", strerror(errno));
	if (uid) {
		const char *const files[] = {"/proc/self/setgroups", "/proc/self/uid_map", "/proc/self/gid_map"};
		for (int i = 0; i < 3; i++) {
			int fd = open(files[i], O_WRONLY | O_CLOEXEC);
			int n = snprintf(map, sizeof map, i ? "0 %u 1" : "deny", i == 1 ? uid : gid);
			if (fd < 0 || write(fd, map, (size_t)n) != n)
				vm_die("%s: %s", files[i], strerror(errno));
			close(fd);
		}
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		vm_die("private mounts: %s", strerror(errno));
}

/* A write that ran out of space may have been done in part; what was there stays. */
static void no_space(bool no_uring)
{
	static struct vm v;
	char small[300];

	own_mounts();
	snprintf(small, sizeof small, "%s/small", dir);
	CHECK(!mkdir(small, 0700) && !mount("tmpfs", small, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0700"));
	begin(&v, &(struct vm_setup){.image = image("small/disk", 8 * MIB), .no_uring = no_uring, .pause = false});
	CHECK(do_write(&v, 0, 65536, 1) == VM_OK && holds(&v, 0, 65536, 1));
	unsigned bad = 0;
	for (unsigned i = 1; i < 32; i++)
		bad += do_write(&v, i * 65536u, 65536, 2) == VM_IOERR;
	CHECK(bad >= 15 && vm_counter(&v, "errors") == bad);
	CHECK(holds(&v, 0, 65536, 1) && do_write(&v, 4096, 8192, 3) == VM_OK);
	CHECK(vm_do(&v, VM_DISCARD, 128, 31 * 65536) == VM_OK); /* and there is space again */
	CHECK(do_write(&v, 30 * 65536, 65536, 4) == VM_OK && holds(&v, 30 * 65536, 65536, 4));
	vm_stop(&v);
	/* paused instead */
	begin(&v, &(struct vm_setup){.image = image("small/disk", 8 * MIB), .no_uring = no_uring, .pause = true});
	for (unsigned i = 0; i < 32; i++) {
		memset(vm_data(&v, i), (int)i + 1, 65536);
		vm_put(&v, i, VM_OUT, i * 128, 65536);
	}
	vm_ring(&v);
	vm_expect(&v, v.control, MSG_DEV_EVENT);
	usleep(500000); /* by now each has been done or is kept; how many fit depends on which were done in part */
	CHECK(!mount("tmpfs", small, "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV, "size=4m"));
	vm_command(&v, DEV_OP_RETRY);
	while (v.flying)
		vm_wait(&v);
	for (unsigned i = 0; i < 32; i++)
		CHECK(v.slot[i].status == VM_OK);
	for (unsigned i = 0; i < 32; i++)
		CHECK(holds(&v, i * 65536u, 65536, (uint8_t)(i + 1)));
	finish(&v);
	umount2(small, MNT_DETACH); /* the kernel may hold on to an io_uring's files for a moment */
	rmdir(small);
}

static void test_no_space(void)
{
	no_space(false);
	no_space(true);
}

static void test_overlay_space(void)
{
	static struct vm v;
	char small[300];

	own_mounts();
	snprintf(small, sizeof small, "%s/small", dir);
	CHECK(!mkdir(small, 0700) && !mount("tmpfs", small, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0700"));
	setenv("TMPDIR", small, 1);
	begin(&v, &(struct vm_setup){.image = image("disk", 8 * MIB), .snapshot = true});
	unsetenv("TMPDIR");
	unsigned bad = 0;
	for (unsigned i = 0; i < 32; i++)
		bad += do_write(&v, i * 65536u, 65536, 2) == VM_IOERR;
	CHECK(bad >= 15 && holds(&v, 0, 65536, 2) && holds(&v, 4 * MIB, 65536, 0));
	finish(&v);
	umount2(small, MNT_DETACH); /* the kernel may hold on to an io_uring's files for a moment */
	rmdir(small);
}

/* A limit of file sizes does not kill it (SIGXFSZ), and can be lifted. */
static void test_file_limit(void)
{
	static struct vm v;
	const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};

	for (int i = 0; i < 2; i++) {
		struct vm_setup s = {.image = image("disk", 8 * MIB), .no_uring = i, .fsize = 2 * MIB};
		begin(&v, &s);
		CHECK(do_write(&v, MIB, 4096, 1) == VM_OK);
		CHECK(do_write(&v, 4 * MIB, 4096, 1) == VM_IOERR);
		CHECK(do_write(&v, 2 * MIB - 512, 1024, 1) == VM_IOERR);
		CHECK(holds(&v, MIB, 4096, 1) && holds(&v, 4 * MIB, 4096, 0));
		finish(&v);
		s.image = image("disk", 8 * MIB);
		s.pause = true;
		begin(&v, &s);
		memset(vm_data(&v, 0), 7, 4096);
		vm_put(&v, 0, VM_OUT, 4 * MIB / 512, 4096);
		vm_ring(&v);
		vm_expect(&v, v.control, MSG_DEV_EVENT);
		vm_command(&v, DEV_OP_RETRY); /* nothing has changed */
		vm_expect(&v, v.control, MSG_DEV_EVENT);
		CHECK(!vm_look(&v) && !prlimit(v.blk, RLIMIT_FSIZE, &none, NULL));
		vm_command(&v, DEV_OP_RETRY);
		vm_wait(&v);
		CHECK(v.slot[0].status == VM_OK && holds(&v, 4 * MIB, 4096, 7));
		finish(&v);
	}
}

/* ---- an image that changes ---- */

static void test_truncated(void)
{
	static struct vm v;

	for (int i = 0; i < 2; i++) {
		begin(&v, &(struct vm_setup){.image = image("disk", 4 * MIB), .no_uring = i});
		CHECK(do_write(&v, 0, 65536, 1) == VM_OK && do_write(&v, 2 * MIB, 65536, 2) == VM_OK);
		CHECK(!truncate(v.set.image, MIB + 700));
		CHECK(holds(&v, 0, 65536, 1));
		CHECK(vm_do(&v, VM_IN, 2 * MIB / 512, 65536) == VM_IOERR);
		CHECK(vm_do(&v, VM_IN, MIB / 512, 65536) == VM_IOERR);
		CHECK(vm_do(&v, VM_IN, MIB / 512 + 1, 512) == VM_IOERR); /* part of it is there */
		CHECK(vm_do(&v, VM_IN, MIB / 512, 512) == VM_OK);
		CHECK(do_write(&v, 3 * MIB, 512, 3) == VM_OK && holds(&v, 3 * MIB, 512, 3) &&
		      holds(&v, 2 * MIB, 512, 0));
		CHECK(vm_counter(&v, "errors") == 3);
		finish(&v);
	}
	begin(&v, &(struct vm_setup){.image = image("disk", MIB + 700)}); /* no whole sector at the end */
	CHECK(vm_sectors(&v) == MIB / 512 + 1);
	CHECK(vm_do(&v, VM_IN, MIB / 512, 512) == VM_OK && vm_do(&v, VM_IN, MIB / 512 + 1, 512) == VM_IOERR);
	finish(&v);
	begin(&v, &(struct vm_setup){.image = image("disk", 0)});
	CHECK(vm_sectors(&v) == 0 && vm_do(&v, VM_IN, 0, 512) == VM_IOERR && vm_do(&v, VM_FLUSH, 0, 0) == VM_OK);
	finish(&v);
}

static void test_readonly(void)
{
	static struct vm v;

	begin(&v, &(struct vm_setup){.image = image("disk", MIB), .readonly = true});
	CHECK(v.offer.features & 1u << 5);
	CHECK(do_write(&v, 0, 512, 1) == VM_IOERR && vm_do(&v, VM_DISCARD, 0, 4096) == VM_UNSUPP &&
	      vm_do(&v, VM_ZEROES, 0, 4096) == VM_IOERR);
	CHECK(vm_do(&v, VM_FLUSH, 0, 0) == VM_OK && holds(&v, 0, 4096, 0));
	finish(&v);
}

/* ---- drivers ---- */

static void test_broken(void)
{
	static struct vm v;

	begin(&v, &(struct vm_setup){.image = image("disk", MIB)});
	for (unsigned i = 0; i < 20; i++) {
		CHECK(do_write(&v, 4096, 4096, (uint8_t)i) == VM_OK);
		/* a buffer outside of memory, in the ring's table: address, length, flags, next */
		uint64_t d[2] = {i % 2 ? ~0ull - 100 : VM_RAM - 8, 4096 | (uint64_t)(i % 4 / 2 ? 1 : 0) << 32};
		memcpy(v.mem.ram + 0x1000 + 63 * 4 * 16, d, 16);
		vm_put(&v, 0, VM_IN, 0, 65536); /* taken before it, and finished or not */
		vm_put_head(&v, 63 * 4);
		vm_ring(&v);
		vm_expect(&v, v.channel, MSG_VIRTIO_BROKEN);
		vm_reset(&v);
		vm_activate(&v, ~0ull);
		CHECK(holds(&v, 4096, 4096, (uint8_t)i));
	}
	CHECK(vm_counter(&v, "broken") == 20 && vm_counter(&v, "resets") == 20);
	finish(&v);
}

/* Resets with everything in flight; nothing of it may be written to memory after the answer. */
static void resets(const struct vm_setup *s)
{
	static struct vm v;
	static uint8_t before[VM_SLOTS * VM_ROOM];

	begin(&v, s);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < VM_SLOTS; i++) {
			memset(vm_data(&v, i), 0xcc, 8192);
			vm_put(&v, i, i % 4 ? VM_IN : VM_OUT, (i * 37 + round) % 1000, 8192);
		}
		vm_ring(&v);
		if (round % 2)
			vm_wait(&v);
		vm_reset(&v);
		memcpy(before, vm_data(&v, 0), sizeof before);
		usleep(2000);
		CHECK(!memcmp(before, vm_data(&v, 0), sizeof before));
		vm_activate(&v, round % 3 ? ~0ull : ~(3ull << 28));
	}
	CHECK(vm_do(&v, VM_IN, 0, 512) == VM_OK && vm_counter(&v, "inflight") == 0);
	finish(&v);
}

static void test_resets(void)
{
	char cmd[400];

	resets(&(struct vm_setup){.image = image("disk", MIB)});
	resets(&(struct vm_setup){.image = image("disk", MIB), .no_uring = true});
	resets(&(struct vm_setup){.image = image("disk", MIB), .snapshot = true});
	snprintf(cmd, sizeof cmd, "qemu-img create -q -f qcow2 %s %u", image("disk", 0), MIB);
	CHECK(!system(cmd));
	snprintf(cmd, sizeof cmd, "%s/disk", dir);
	resets(&(struct vm_setup){.image = cmd, .format = FORMAT_QCOW2});
}

/* ---- what shares a cluster ---- */

/* Writes and zeroes in flight together, in different halves of clusters that are there and read as zeroes: the tables of
 * the image stay right (devices/blk/nbd.c). */
static void test_clusters(void)
{
	const uint32_t size = 65536, n = VM_SLOTS / 2;
	static struct vm v;
	char cmd[400], name[300];

	snprintf(name, sizeof name, "%s", image("disk", 0));
	snprintf(cmd, sizeof cmd, "qemu-img create -q -f qcow2 %s %u", name, 8 * MIB);
	CHECK(!system(cmd));
	begin(&v, &(struct vm_setup){.image = name, .format = FORMAT_QCOW2});
	for (uint32_t i = 0; i < n; i++)
		CHECK(do_write(&v, i * size, size, 7) == VM_OK && vm_do(&v, VM_ZEROES, i * size / 512, size) == VM_OK);
	for (uint32_t i = 0; i < n; i++) {
		memset(vm_data(&v, 2 * i), (int)i + 1, 4096);
		vm_put(&v, 2 * i, VM_OUT, i * size / 512, 4096);
		vm_put(&v, 2 * i + 1, VM_ZEROES, (i * size + size / 2) / 512, 4096);
	}
	vm_ring(&v);
	while (v.flying)
		vm_wait(&v);
	for (uint32_t i = n; i < 2 * n; i++)
		CHECK(do_write(&v, i * size, size, 0xee) == VM_OK);
	for (uint32_t i = 0; i < n; i++)
		CHECK(holds(&v, i * size, 4096, (uint8_t)(i + 1)) && holds(&v, i * size + 4096, size - 4096, 0));
	for (unsigned turn = 0; turn < 4; turn++) { /* large ones, of which the middle may be unmapped */
		for (uint32_t i = 0; i < 8 * MIB / size; i++)
			CHECK(do_write(&v, i * size, size, 0xaa) == VM_OK);
		CHECK(vm_do(&v, VM_ZEROES, (MIB - 512) / 512, 6 * MIB) == VM_OK);
		CHECK(holds(&v, MIB - 4096, 4096 - 512, 0xaa) && holds(&v, 7 * MIB - 512, 4096, 0xaa));
		for (uint32_t at = MIB - 512; at < 7 * MIB - 512; at += size)
			CHECK(holds(&v, at, size, 0));
	}
	vm_stop(&v);
	snprintf(cmd, sizeof cmd, "qemu-img check -q %s", name);
	CHECK(!system(cmd));
	unlink(name);
	vm_free(&v);
}

/* ---- many ---- */

static void test_many(void)
{
	static struct vm v[DISKS];
	char name[DISKS][300];

	for (unsigned i = 0; i < DISKS; i++) {
		char disk[16];
		snprintf(disk, sizeof disk, "disk%u", i);
		snprintf(name[i], sizeof name[i], "%s", image(disk, 8 * MIB));
		begin(&v[i], &(struct vm_setup){.image = name[i], .no_uring = i % 3 == 2});
	}
	for (unsigned i = 0; i < DISKS; i++) {
		for (unsigned k = 0; k < VM_SLOTS; k++) {
			memset(vm_data(&v[i], k), (int)(i + k), 65536);
			vm_put(&v[i], k, VM_OUT, k * 128, 65536);
		}
		vm_ring(&v[i]);
	}
	for (unsigned i = 0; i < DISKS; i++)
		while (v[i].flying)
			vm_wait(&v[i]);
	for (unsigned i = 0; i < DISKS; i++) {
		for (unsigned k = 0; k < VM_SLOTS; k += 9)
			CHECK(v[i].slot[k].status == VM_OK && holds(&v[i], k * 65536u, 65536, (uint8_t)(i + k)));
		CHECK(vm_do(&v[i], VM_FLUSH, 0, 0) == VM_OK);
	}
	for (unsigned i = 0; i < DISKS; i++)
		finish(&v[i]);
}

static const struct {
	const char *name;
	void (*fn)(void);
} tests[] = {
	{"truncated", test_truncated}, {"readonly", test_readonly}, {"file-limit", test_file_limit},
	{"broken", test_broken},       {"resets", test_resets},     {"clusters", test_clusters},
	{"many", test_many},           {"no-space", test_no_space}, {"overlay-space", test_overlay_space},
};

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");
	int first = 1;

	if (argc > 1 && !strncmp(argv[1], "--seed=", 7)) {
		seed = strtoull(argv[1] + 7, NULL, 0);
		first++;
	}
	snprintf(dir, sizeof dir, "%s/hvx-blk-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
	if (!mkdtemp(dir))
		vm_die("%s: %s", dir, strerror(errno));
	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
		bool wanted = first >= argc;
		for (int k = first; k < argc; k++)
			wanted |= !strcmp(argv[k], tests[i].name);
		if (!wanted)
			continue;
		tests[i].fn();
		printf("%s: ok\n", tests[i].name);
		fflush(stdout);
	}
	rmdir(dir);
	return 0;
}
