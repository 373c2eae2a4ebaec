/*
 * A real, sealed hvx-memsvc of a merge group, with two VMs played here, of which one does what it should not.
 *
 * Invariants: whatever the bad one does, pages of the good one stay what they are, and it is served; the pool can be read, and nothing
 * else be done to it, by the descriptor that VMs get.
 *
 * Usage: group
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/gmem.h"
#include "common/ipc.h"
#include "common/memory.h"
#include "common/sandbox.h"
#include "monitor/pool.h"
#include "proto/pack.h"
#include "proto/shm.h"

#define RAM      (2u << 20)
#define PAGES    (RAM / SHM_PAGE)
#define PATIENCE 60000 /* ms for what must happen */

struct vm {
	int control, vcpu;
	struct gmem mem;
	bool deaf; /* it does not let go of anything */
};

static struct {
	pid_t pid;
	int control, pool;
} t;
static uint8_t buf[IPC_MAX_DATA];
static struct ipc_frame f;
static unsigned tests;
static struct vm good, bad;

static void die(const char *what, int line)
{
	printf("not ok %u - %s (line %d)\n", ++tests, what, line);
	if (t.pid > 0)
		kill(t.pid, SIGKILL);
	exit(1);
}

#define CHECK(cond)                           \
	do {                                  \
		if (!(cond))                  \
			die(#cond, __LINE__); \
	} while (0)

static void ok(const char *what)
{
	printf("ok %u - %s\n", ++tests, what);
}

/* ---- the process ---- */

static void exec_it(int control, uint32_t ns)
{
	const char *path = getenv("HVX_MEMSVC");
	const int keep[] = {3};
	char arg[64];

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), ctl = fcntl(control, F_DUPFD, 10),
	    err = fcntl(2, F_DUPFD, 10);
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(err, 2) < 0 || dup2(ctl, 3) < 0)
		_exit(121);
	sandbox_close_fds(keep, 1);
	snprintf(arg, sizeof arg, "--namespaces=0x%x", ns);
	execl(path ? path : "./hvx-memsvc", "hvx-memsvc", "--name=test", "--sandbox=strict", arg, (char *)NULL);
	_exit(127);
}

static void expect(int fd, uint16_t type)
{
	struct pollfd p = {fd, POLLIN, 0};

	CHECK(poll(&p, 1, PATIENCE) == 1);
	CHECK(ipc_recv_frame(fd, buf, &f) == 0);
	CHECK(f.type == type);
}

static void launch(void)
{
	const struct msg_mem_group g = {MSG_MERGE_RATE_MAX};
	char err[256];
	int sv[2], rw;
	uint32_t ns;

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	CHECK(!pool_make(64u << 20, &rw, &t.pool, err, sizeof err));
	t.pid = sandbox_fork(SANDBOX_NAMESPACES, &ns);
	if (!t.pid)
		exec_it(sv[1], ns);
	CHECK(t.pid > 0);
	close(sv[1]);
	t.control = sv[0];
	expect(t.control, MSG_HELLO);
	CHECK(!ipc_send_frame(t.control, MSG_MEM_GROUP, buf, (size_t)pack_mem_group(&g, buf, sizeof buf), &rw, 1));
	close(rw);
	expect(t.control, MSG_SEALED);
}

static int memfd(uint64_t size)
{
	int fd = memfd_create("vm", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0 && !ftruncate(fd, (off_t)size) &&
	      !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	return fd;
}

static void join(struct vm *v)
{
	const struct msg_mem_join j = {RAM};
	int a[2], b[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, a) &&
	      !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, b));
	const int fds[] = {a[1], b[1], memfd(RAM), memfd(shm_layout(RAM).total)};
	CHECK(!ipc_send_frame(t.control, MSG_MEM_JOIN, buf, (size_t)pack_mem_join(&j, buf, sizeof buf), fds, 4));
	v->control = a[0];
	v->vcpu = b[0];
	CHECK(!ipc_send_frame(v->control, MSG_MEM_GET, NULL, 0, NULL, 0));
	expect(v->control, MSG_MEM_REGION);
	CHECK(f.nfds == 2);
	CHECK(!memory_map(&v->mem, f.fds[0], f.fds[1], t.pool, RAM));
	ipc_close_fds(&f);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* ---- VMs ---- */

static void fill(uint8_t *p, unsigned kind)
{
	for (unsigned i = 0; i < SHM_PAGE; i += 8) {
		uint64_t w = kind * 0x9e3779b97f4a7c15ull + i;
		memcpy(p + i, &w, 8);
	}
}

static bool holds(const uint8_t *p, unsigned kind)
{
	uint8_t page[SHM_PAGE];

	fill(page, kind);
	return p && !memcmp(p, page, SHM_PAGE);
}

static void fill_all(struct vm *v, unsigned first)
{
	for (unsigned i = 0; i < PAGES; i++)
		fill(gmem_frame_ptr(&v->mem, i, GMEM_READ | GMEM_WRITE), first + i);
}

static void check_good(void)
{
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(holds(gmem_frame_ptr(&good.mem, i, GMEM_READ), 1 + i));
}

/* The vcpu keeps nothing here, so it has always let go. */
static void serve(struct vm *v, int ms)
{
	struct pollfd p = {v->vcpu, POLLIN, 0};
	static struct msg_mem_withdraw w;

	if (v->vcpu < 0 || v->deaf || poll(&p, 1, ms) <= 0)
		return;
	expect(v->vcpu, MSG_MEM_WITHDRAW);
	CHECK(!unpack_mem_withdraw(f.data, f.len, &w));
	const struct msg_mem_withdrawn done = {w.id};
	CHECK(!ipc_send_frame(v->vcpu, MSG_MEM_WITHDRAWN, buf, (size_t)pack_mem_withdrawn(&done, buf, sizeof buf), NULL,
			      0));
}

static struct msg_mem_stats stats(struct vm *v)
{
	struct msg_mem_stats s;

	CHECK(!ipc_send_frame(v->control, MSG_MEM_STATS_GET, NULL, 0, NULL, 0));
	expect(v->control, MSG_MEM_STATS);
	CHECK(!unpack_mem_stats(f.data, f.len, &s));
	return s;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Until the good one has so many merged pages. */
static void until_sharing(uint64_t pages)
{
	uint64_t end = now_ms() + PATIENCE;

	while (stats(&good).sharing < pages) {
		CHECK(now_ms() < end);
		serve(&good, 5);
		serve(&bad, 5);
	}
}

/* ---- tests ---- */

static void test_descriptor(void)
{
	uint8_t *p = mmap(NULL, SHM_PAGE, PROT_READ, MAP_SHARED, t.pool, 0);

	CHECK(p != MAP_FAILED);
	CHECK(mprotect(p, SHM_PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES);
	CHECK(madvise(p, SHM_PAGE, MADV_REMOVE) < 0);
	CHECK(mmap(NULL, SHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, t.pool, 0) == MAP_FAILED && errno == EACCES);
	CHECK(pwrite(t.pool, "x", 1, 0) < 0 && errno == EBADF);
	CHECK(fallocate(t.pool, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SHM_PAGE) < 0 && errno == EBADF);
	CHECK(ftruncate(t.pool, 0) < 0);
	CHECK(fcntl(t.pool, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
	munmap(p, SHM_PAGE);
	ok("the pool's descriptor is for reading");
}

static void test_merge(void)
{
	fill_all(&good, 1);
	fill_all(&bad, 1);
	until_sharing(PAGES);
	struct msg_mem_stats s = stats(&good);
	CHECK(s.shared == PAGES && s.members == 2);
	check_good();
	ok("equal pages of two VMs are kept once");
}

/* It writes all over its own memory and its own region, and answers what it was not asked. */
static void test_scribbles(void)
{
	uint64_t x = 88172645463325252ull;

	for (unsigned round = 0; round < 300; round++) {
		for (unsigned k = 0; k < 64; k++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			bad.mem.p2m[x % PAGES] = round % 3 ? x : (x % (2 * PAGES)) * SHM_PAGE | (x >> 60 & 31);
			bad.mem.ram[x % RAM] = (uint8_t)x;
		}
		if (round % 50 == 0)
			memset((void *)bad.mem.epochs, (int)round, sizeof *bad.mem.epochs);
		serve(&bad, 1);
		serve(&good, 1);
		fill(gmem_frame_ptr(&good.mem, round % PAGES, GMEM_READ | GMEM_WRITE), 1 + round % PAGES);
		if (round % 50 == 0)
			check_good();
	}
	check_good();
	ok("a VM that writes nonsense all over its region");
}

static void test_deaf(void)
{
	bad.deaf = true;
	memset((void *)bad.mem.epochs, 0xff, sizeof *bad.mem.epochs);
	for (unsigned i = 0; i < PAGES; i++) /* its p2m is nonsense by now */
		fill(bad.mem.ram + (uint64_t)i * SHM_PAGE, 500 + i);
	for (unsigned i = 0; i < PAGES; i++)
		fill(gmem_frame_ptr(&good.mem, i, GMEM_READ | GMEM_WRITE), 700 + i / 2);
	until_sharing(PAGES);
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(holds(gmem_frame_ptr(&good.mem, i, GMEM_READ), 700 + i / 2));
	ok("a VM that lets go of nothing keeps nobody waiting");
}

static void test_malformed(void)
{
	CHECK(!ipc_send_frame(bad.vcpu, MSG_MEM_WITHDRAWN, "junk", 4, NULL, 0));
	struct pollfd p = {bad.vcpu, POLLIN, 0};
	int rc = 0;
	while (!rc) {
		CHECK(poll(&p, 1, PATIENCE) == 1);
		rc = ipc_recv_frame(bad.vcpu, buf, &f);
	}
	CHECK(rc == -EPIPE || rc == -ECONNRESET);
	CHECK(stats(&good).members == 2 && stats(&bad).members == 2);
	ok("a malformed message costs its sender the channel");
}

static void test_leaves(void)
{
	uint64_t end = now_ms() + PATIENCE;

	close(bad.control);
	close(bad.vcpu);
	bad.vcpu = -1;
	while (stats(&good).members == 2) {
		CHECK(now_ms() < end);
		serve(&good, 20);
	}
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(holds(gmem_frame_ptr(&good.mem, i, GMEM_READ), 700 + i / 2));
	CHECK(stats(&good).shared <= PAGES / 2 + 64);
	bad = (struct vm){0};
	join(&bad);
	fill_all(&bad, 1);
	fill_all(&good, 1);
	until_sharing(PAGES);
	check_good();
	ok("one leaves, another joins");
}

static void test_bad_join(void)
{
	const struct msg_mem_join j = {RAM};
	int a[2], b[2];

	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, a) &&
	      !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, b));
	int open_fd = memfd_create("not sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(!ftruncate(open_fd, RAM));
	const int fds[] = {a[1], b[1], open_fd, memfd(shm_layout(RAM).total)};
	CHECK(!ipc_send_frame(t.control, MSG_MEM_JOIN, buf, (size_t)pack_mem_join(&j, buf, sizeof buf), fds, 4));
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	struct pollfd p = {a[0], POLLIN, 0};
	CHECK(poll(&p, 1, PATIENCE) == 1);
	CHECK(ipc_recv_frame(a[0], buf, &f) != 0);
	CHECK(stats(&good).members == 2);
	close(a[0]);
	close(b[0]);
	ok("memory that could be cut is not taken");
}

/* What is merged stays readable: the VMs end in order. */
static void test_killed(void)
{
	int st;

	kill(t.pid, SIGKILL);
	CHECK(waitpid(t.pid, &st, 0) == t.pid);
	t.pid = 0;
	check_good();
	fill(gmem_frame_ptr(&good.mem, 3, GMEM_READ | GMEM_WRITE), 4);
	check_good();
	ok("pages outlive a memsvc that is killed");
}

int main(void)
{
	printf("TAP version 13\n");
	setvbuf(stdout, NULL, _IOLBF, 0);
	launch();
	join(&good);
	join(&bad);
	test_descriptor();
	test_merge();
	test_scribbles();
	test_deaf();
	test_malformed();
	test_leaves();
	test_bad_join();
	test_killed();
	printf("1..%u\n", tests);
	return 0;
}
