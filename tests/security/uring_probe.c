/*
 * In the seal of hvx-blk, with the ring that it makes: every operation but its own is refused, and its own on anything but
 * the files that were registered; nothing more can be registered.  io_uring runs them without a system call that a filter
 * would see.  Invariant: the ring works, or the probe fails: what is refused is refused for its own sake.
 */
#include "tests/security/uring_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/sandbox.h"
#include "devices/blk/seal.h"
#include "devices/blk/uring.h"

#define LAST_OP       80 /* beyond what kernels have today */
#define LAST_REGISTER 64
#define NO_URING      77

static unsigned wrong;

/* Sealed: no stdio. */
static void complain(const char *what, unsigned op, int res)
{
	char line[160];
	int n = snprintf(line, sizeof line, "uring: %s %u: result %d\n", what, op, res);

	wrong++;
	if (write(2, line, (size_t)n) < 0)
		_exit(99);
}

static bool is_ours(unsigned op)
{
	return op == IORING_OP_READ || op == IORING_OP_READV || op == IORING_OP_WRITE || op == IORING_OP_WRITEV ||
	       op == IORING_OP_FSYNC || op == IORING_OP_FALLOCATE;
}

static int run(struct io_uring *ring, unsigned op, int fd, unsigned flags)
{
	static uint8_t buf[512];
	struct io_uring_sqe *e = io_uring_get_sqe(ring);
	struct io_uring_cqe *c;

	if (!e)
		return -EBUSY;
	memset(e, 0, sizeof *e);
	e->opcode = (uint8_t)op;
	e->fd = fd;
	e->flags = (uint8_t)flags;
	e->addr = op == IORING_OP_FSYNC ? 0 : (uintptr_t)buf;
	e->len = op == IORING_OP_READV || op == IORING_OP_WRITEV || op == IORING_OP_FSYNC ? 0 : sizeof buf;
	if (op == IORING_OP_FALLOCATE) {
		e->addr = 4096; /* its length; the mode is in len */
		e->len = 0;
	}
	int rc = io_uring_submit(ring);
	if (rc < 0)
		return rc;
	rc = io_uring_wait_cqe(ring, &c);
	if (rc)
		return rc;
	rc = c->res;
	io_uring_cqe_seen(ring, c);
	return rc;
}

/* Before the final filter, which forbids io_uring_register(): the ring itself refuses too. */
static void registrations(struct io_uring *ring)
{
	int fds[] = {0, 1};

	for (unsigned op = 0; op < LAST_REGISTER; op++) {
		if (op == IORING_REGISTER_ENABLE_RINGS)
			continue; /* it is enabled */
		long rc = syscall(SYS_io_uring_register, ring->ring_fd, op, fds, 2);
		if (rc >= 0 || (errno != EACCES && errno != EINVAL))
			complain("registration", op, rc < 0 ? -errno : 0);
	}
}

static void operations(struct io_uring *ring)
{
	static const unsigned flags[] = {IOSQE_IO_LINK, IOSQE_IO_HARDLINK,   IOSQE_IO_DRAIN,
					 IOSQE_ASYNC,   IOSQE_BUFFER_SELECT, IOSQE_CQE_SKIP_SUCCESS};
	int res;

	for (unsigned op = 0; op < LAST_OP; op++) {
		res = run(ring, op, 0, IOSQE_FIXED_FILE);
		if (is_ours(op) ? res < 0 : res != -EACCES && res != -EINVAL)
			complain(is_ours(op) ? "its own operation" : "operation", op, res);
		res = run(ring, op, 0, 0);
		if (res != -EACCES && res != -EINVAL)
			complain("operation on a plain descriptor", op, res);
		if (!is_ours(op))
			continue;
		res = run(ring, op, 1, IOSQE_FIXED_FILE);
		if (res != -EBADF)
			complain("operation on a file that was not registered", op, res);
		for (unsigned i = 0; i < sizeof flags / sizeof flags[0]; i++)
			if ((res = run(ring, op, 0, IOSQE_FIXED_FILE | flags[i])) >= 0)
				complain("operation with a flag", flags[i], res);
	}
}

static void in_child(uint32_t ns)
{
	char why[256];
	struct io_uring ring;
	int file = memfd_create("image", MFD_CLOEXEC);

	if (file < 0 || ftruncate(file, 65536))
		_exit(90);
	sandbox_close_fds(&file, 1);
	if (sandbox_missing(sandbox_enter(&blk_seal, ns, why, sizeof why)))
		_exit(91);
	int rc = blk_uring_make(&ring, &file, 1);
	if (rc)
		_exit(rc == -ENOSYS || rc == -EPERM || rc == -EACCES ? NO_URING : 92);
	registrations(&ring);
	if (sandbox_seal(&blk_seal))
		_exit(93);
	operations(&ring);
	_exit(wrong ? 1 : 0);
}

unsigned uring_probe(void)
{
	uint32_t ns;
	int ws;
	pid_t pid = sandbox_fork(SANDBOX_NAMESPACES, &ns);

	if (!pid)
		in_child(ns);
	if (pid < 0 || waitpid(pid, &ws, 0) != pid)
		return 1;
	if (WIFEXITED(ws) && WEXITSTATUS(ws) == NO_URING) {
		printf("blk: no io_uring on this host\n");
		return 0;
	}
	if (ws)
		fprintf(stderr, "blk: the probe of io_uring ended with status 0x%x\n", ws);
	else
		printf("blk: io_uring refuses %u operations and all registrations\n", LAST_OP - 6);
	return ws != 0;
}
