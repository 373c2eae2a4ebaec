/*
 * A VM joins its group.  The memory is made here, and sealed, so that hvx-memsvc, which is sealed itself by then, has to make nothing.
 * Invariant: whom we give it to runs as us, and has the group's lock.
 */
#include "monitor/mergegroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/ipc.h"
#include "monitor/cause.h"
#include "proto/pack.h"
#include "proto/shm.h"

#define TRIES    100 /* that the group is just beginning or ending */
#define TRY_MS   100
#define JOIN_FDS 4

int mergegroup_runtime(const struct runtime *r, struct runtime *g, char *err, size_t len)
{
	int n = snprintf(g->dir, sizeof g->dir, "%s/merge", r->dir);

	if (n < 0 || (size_t)n >= sizeof g->dir) {
		snprintf(err, len, "the runtime directory's path is too long");
		return -ENAMETOOLONG;
	}
	return runtime_private(g->dir, err, len);
}

/* ---- the keeper ---- */

/* As a process of nobody's: it outlives the VM that started it, if others join. */
static int detach_keeper(const struct keeper_plan *p)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (!pid) {
		pid = fork();
		if (pid)
			_exit(pid < 0);
		keeper_run(p);
	}
	int st;
	while (waitpid(pid, &st, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(st) && !WEXITSTATUS(st) ? 0 : -EAGAIN;
}

/* 0, -EEXIST when somebody else has just begun to, or another negative error. */
static int start_keeper(const struct runtime *g, const struct mergegroup_wish *w)
{
	struct keeper_plan p = {
		.group = w->group, .strict = w->strict, .debug = w->debug, .rate = w->rate, .listen = -1, .rt = *g};

	p.lock = runtime_lock(g, w->group);
	if (p.lock < 0)
		return p.lock;
	p.listen = runtime_listen(g, w->group);
	int rc = p.listen < 0 ? p.listen : detach_keeper(&p);
	if (rc)
		runtime_remove(g, w->group);
	if (p.listen >= 0)
		close(p.listen);
	close(p.lock);
	return rc;
}

/* The socket lies in a directory that only we may write; its owner is asked nevertheless. */
static bool is_ours(int fd)
{
	struct ucred c;
	socklen_t n = sizeof c;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) == 0 && c.uid == geteuid();
}

static int reach(const struct runtime *g, const struct mergegroup_wish *w)
{
	const struct timespec pause = {.tv_nsec = TRY_MS * 1000000l};
	int rc = -EAGAIN;

	for (int i = 0; i < TRIES; i++) {
		int fd = runtime_connect(g, w->group);
		if (fd >= 0 && is_ours(fd))
			return fd;
		if (fd >= 0) {
			close(fd);
			return -EPERM;
		}
		rc = fd == -ENOENT ? start_keeper(g, w) : fd;
		if (rc && rc != -EEXIST && rc != -ECONNREFUSED)
			return rc;
		if (rc)
			nanosleep(&pause, NULL);
	}
	return rc ? rc : -EAGAIN;
}

/* ---- joining ---- */

static int sealed_memfd(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && !ftruncate(fd, (off_t)size) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return fd;
	int rc = -errno;
	if (fd >= 0)
		close(fd);
	return rc;
}

static int ask(int fd, const struct mergegroup_wish *w, const int *fds)
{
	static uint8_t buf[IPC_MAX_DATA];
	struct msg_group_join j = {.version = IPC_VERSION, .ram_size = w->ram_size, .strict = w->strict};

	snprintf(j.name, sizeof j.name, "%s", w->vm);
	int n = pack_group_join(&j, buf, sizeof buf);
	return n < 0 ? n : ipc_send_frame(fd, MSG_GROUP_JOIN, buf, (size_t)n, fds, JOIN_FDS);
}

static int answered(const struct mergegroup_wish *w, struct mergegroup_ends *e, char *err, size_t len)
{
	static uint8_t buf[IPC_MAX_DATA];
	struct msg_group_joined j;
	struct msg_failed x;
	struct ipc_frame f;
	int rc = ipc_recv_frame(e->keeper, buf, &f), status = HVX_EXIT_CHILD;

	if (rc) {
		snprintf(err, len, "merge group %s: its keeper %s", w->group,
			 rc == -EAGAIN ? "is not answering" : "hung up");
		return HVX_EXIT_CHILD;
	}
	if (f.type == MSG_GROUP_JOINED && f.nfds == 1 && !unpack_group_joined(f.data, f.len, &j)) {
		e->pool = f.fds[0];
		e->layers = j.layers;
		e->pid = j.pid;
		return 0;
	}
	if (f.type == MSG_FAILED && !unpack_failed(f.data, f.len, &x)) {
		snprintf(err, len, "merge group %s: %s", w->group, x.text);
		status = (int)x.status;
	} else {
		snprintf(err, len, "merge group %s: an answer that makes no sense", w->group);
	}
	ipc_close_fds(&f);
	return status;
}

int mergegroup_join(const struct runtime *r, const struct mergegroup_wish *w, struct mergegroup_ends *e, char *err,
		    size_t len)
{
	struct runtime g;
	int sv[2], status = HVX_EXIT_HOST;
	char why[256];

	*e = (struct mergegroup_ends){-1, -1, -1, 0, 0};
	if (mergegroup_runtime(r, &g, err, len))
		return HVX_EXIT_HOST;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
		snprintf(err, len, "channel to hvx-memsvc: %s", cause_text(errno, why, sizeof why));
		return HVX_EXIT_HOST;
	}
	const int fds[JOIN_FDS] = {sv[1], w->vcpu, sealed_memfd("hvx-ram", w->ram_size),
				   sealed_memfd("hvx-control", shm_layout(w->ram_size).total)};
	int rc = fds[2] < 0 ? fds[2] : fds[3] < 0 ? fds[3] : 0;
	if (!rc) {
		e->keeper = reach(&g, w);
		rc = e->keeper < 0 ? e->keeper : ask(e->keeper, w, fds);
	}
	if (rc)
		snprintf(err, len, "merge group %s: %s", w->group, cause_text(-rc, why, sizeof why));
	else
		status = answered(w, e, err, len);
	e->control = sv[0];
	close(sv[1]);
	for (int i = 2; i < JOIN_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return status;
}
