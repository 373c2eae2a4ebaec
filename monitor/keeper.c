/*
 * The keeper of a merge group: starts its hvx-memsvc with the first VM, brings VMs to it, tells them how it died, and ends with the
 * last of them.
 *
 * Invariant: a VM is in the group from GROUP_JOINED until its monitor hangs up; without any the keeper is gone, and socket and lock
 * with it.  Guest memory is mapped here no more than in a monitor.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "common/text.h"
#include "monitor/mergegroup.h"
#include "monitor/pool.h"
#include "monitor/seal.h"
#include "monitor/spawn.h"
#include "proto/pack.h"

#define JOIN_FDS  4
#define LONELY_MS 20000 /* nobody has joined */
#define GUESTS    (MSG_GROUP_MAX + 16)

struct visitor {
	struct keeper *k;
	struct ipc_conn *conn; /* NULL: a free place */
	char name[MSG_NAME_MAX];
	bool member, asks;
	/* while hvx-memsvc is not ready; fds -1 */
	bool waits;
	struct msg_group_join join;
	int fd[JOIN_FDS];
};

struct keeper {
	struct keeper_plan plan;
	struct ipc_loop *loop;
	struct ipc_watch *listen, *sigchld, *lonely;
	struct proc memsvc;
	struct ipc_conn *conn;
	int pool_rw, pool_ro;
	bool ready, ending;
	struct visitor visitor[GUESTS];
	uint8_t buf[IPC_MAX_DATA];
};

static void drop_fds(struct visitor *v)
{
	for (int i = 0; i < JOIN_FDS; i++) {
		if (v->fd[i] >= 0)
			close(v->fd[i]);
		v->fd[i] = -1;
	}
}

static void to_visitor(struct visitor *v, uint16_t type, int n, const int *fd)
{
	if (v->conn && n >= 0)
		ipc_send(v->conn, type, v->k->buf, (size_t)n, fd, fd ? 1 : 0);
}

/* ---- the end ---- */

static bool anybody(const struct keeper *k)
{
	for (unsigned i = 0; i < GUESTS; i++)
		if (k->visitor[i].conn && (k->visitor[i].member || k->visitor[i].waits))
			return true;
	return false;
}

/* Who comes from here on finds no socket, and starts a keeper when the lock is free. */
static void end(struct keeper *k)
{
	if (k->ending)
		return;
	k->ending = true;
	ipc_watch_free(k->listen);
	k->listen = NULL;
	runtime_remove(&k->plan.rt, k->plan.group);
	ipc_conn_free(k->conn);
	k->conn = NULL;
	if (k->memsvc.pid <= 0)
		ipc_loop_stop(k->loop);
	else
		ipc_timer_set(k->lonely, 5000);
}

static void tell_failed(struct visitor *v, uint32_t status, const char *text)
{
	struct msg_failed f = {.status = status};

	text_clean(f.text, sizeof f.text, text, strlen(text));
	to_visitor(v, MSG_FAILED, pack_failed(&f, v->k->buf, sizeof v->k->buf), NULL);
}

static void tell_all(struct keeper *k, uint32_t status, const char *text)
{
	log_error("merge group %s: %s", k->plan.group, text);
	for (unsigned i = 0; i < GUESTS; i++)
		if (k->visitor[i].member || k->visitor[i].waits)
			tell_failed(&k->visitor[i], status, text);
}

static void on_sigchld(void *ctx)
{
	struct keeper *k = ctx;
	char cause[128], text[256];
	int ws;

	if (k->memsvc.pid <= 0 || waitpid(k->memsvc.pid, &ws, WNOHANG) != k->memsvc.pid)
		return;
	if (k->conn)
		ipc_conn_drain(k->conn);
	spawn_finished(&k->memsvc);
	if (!k->ending) {
		const char *last = WIFEXITED(ws) ? k->memsvc.log.error : "";
		snprintf(text, sizeof text, "its hvx-memsvc died: %s%s%.100s", spawn_cause(ws, cause, sizeof cause),
			 last[0] ? ": " : "", last);
		tell_all(k, HVX_EXIT_CHILD, text);
	}
	end(k);
	ipc_loop_stop(k->loop);
}

/* Nobody has come, or hvx-memsvc does not go. */
static void on_lonely(void *ctx)
{
	struct keeper *k = ctx;

	if (k->ending)
		spawn_kill(&k->memsvc);
	else if (!anybody(k))
		end(k);
}

/* ---- hvx-memsvc ---- */

static int to_memsvc(struct keeper *k, uint16_t type, int n, const int *fds, int nfds)
{
	return n < 0 ? n : k->conn ? ipc_send(k->conn, type, k->buf, (size_t)n, fds, nfds) : -EPIPE;
}

static void join(struct visitor *v)
{
	struct keeper *k = v->k;
	const struct msg_mem_join j = {v->join.ram_size};
	const struct msg_group_joined done = {(uint32_t)k->memsvc.pid, k->memsvc.layers};
	int rc = to_memsvc(k, MSG_MEM_JOIN, pack_mem_join(&j, k->buf, sizeof k->buf), v->fd, JOIN_FDS);

	drop_fds(v);
	v->waits = false;
	if (rc) {
		tell_failed(v, HVX_EXIT_CHILD, "its hvx-memsvc does not read");
		return;
	}
	v->member = true;
	to_visitor(v, MSG_GROUP_JOINED, pack_group_joined(&done, k->buf, sizeof k->buf), &k->pool_ro);
}

static int hello(struct keeper *k, const struct ipc_frame *f)
{
	const struct msg_mem_group g = {k->plan.rate};
	struct msg_hello h;

	if (unpack_hello(f->data, f->len, &h) || h.role != ROLE_MEMSVC || k->memsvc.hello || h.version != IPC_VERSION)
		return -EPROTO;
	k->memsvc.hello = true;
	int rc = to_memsvc(k, MSG_MEM_GROUP, pack_mem_group(&g, k->buf, sizeof k->buf), &k->pool_rw, 1);
	close(k->pool_rw);
	k->pool_rw = -1;
	return rc;
}

static int sealed(struct keeper *k, const struct ipc_frame *f)
{
	struct msg_sealed s;

	if (unpack_sealed(f->data, f->len, &s) || !k->memsvc.hello || k->ready)
		return -EPROTO;
	k->memsvc.layers = s.layers;
	k->ready = true;
	for (unsigned i = 0; i < GUESTS; i++)
		if (k->visitor[i].waits)
			join(&k->visitor[i]);
	return 0;
}

static int failed(struct keeper *k, const struct ipc_frame *f)
{
	struct msg_failed x;

	if (unpack_failed(f->data, f->len, &x))
		return -EPROTO;
	tell_all(k, x.status, x.text);
	end(k);
	return 0;
}

static int stats(struct keeper *k, const struct ipc_frame *f)
{
	static struct msg_group_info g; /* large; there is one loop */
	struct msg_mem_stats s;

	if (unpack_mem_stats(f->data, f->len, &s))
		return -EPROTO;
	g = (struct msg_group_info){.pid = (uint32_t)k->memsvc.pid,
				    .layers = k->memsvc.layers,
				    .shared = s.shared,
				    .sharing = s.group_sharing,
				    .saved_bytes = s.saved_bytes,
				    .scanned = s.scanned,
				    .rate = s.share};
	snprintf(g.name, sizeof g.name, "%s", k->plan.group);
	for (unsigned i = 0; i < GUESTS && g.nmembers < MSG_GROUP_MAX; i++)
		if (k->visitor[i].member)
			memcpy(g.member[g.nmembers++].name, k->visitor[i].name, MSG_NAME_MAX);
	int n = pack_group_info(&g, k->buf, sizeof k->buf);
	for (unsigned i = 0; i < GUESTS; i++) {
		if (k->visitor[i].asks)
			to_visitor(&k->visitor[i], MSG_GROUP_INFO, n, NULL);
		k->visitor[i].asks = false;
	}
	return 0;
}

static void on_memsvc_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct keeper *k = ctx;
	int rc = -EPROTO;

	(void)c;
	if (!f->nfds)
		switch (f->type) {
		case MSG_HELLO: rc = hello(k, f); break;
		case MSG_SEALED: rc = sealed(k, f); break;
		case MSG_FAILED: rc = failed(k, f); break;
		case MSG_MEM_STATS: rc = k->ready ? stats(k, f) : -EPROTO; break;
		default: break;
		}
	if (rc) {
		tell_all(k, HVX_EXIT_CHILD, "its hvx-memsvc sent a malformed message: killed");
		spawn_kill(&k->memsvc);
		end(k);
	}
}

/* How it died comes with SIGCHLD; or it is made to. */
static void on_memsvc_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct keeper *k = ctx;

	(void)error;
	ipc_conn_free(c);
	k->conn = NULL;
}

static const struct ipc_handlers memsvc_handlers = {on_memsvc_frame, on_memsvc_closed, pack_type_name};

/* ---- visitors ---- */

static void leave(struct visitor *v)
{
	struct keeper *k = v->k;
	bool counted = v->member || v->waits;

	ipc_conn_free(v->conn);
	drop_fds(v);
	v->conn = NULL;
	v->member = v->waits = v->asks = false;
	if (counted && !anybody(k))
		end(k);
}

static unsigned members(const struct keeper *k)
{
	unsigned n = 0;

	for (unsigned i = 0; i < GUESTS; i++)
		n += k->visitor[i].member || k->visitor[i].waits;
	return n;
}

/* Why the VM cannot be in this group; NULL: it can. */
static const char *refusal(const struct visitor *v)
{
	const struct keeper *k = v->k;

	if (v->join.version != IPC_VERSION)
		return "its keeper speaks another protocol: a mixed installation";
	if (v->join.strict && !k->plan.strict)
		return "its hvx-memsvc was started with --sandbox=best";
	return members(k) == MSG_GROUP_MAX ? "it is full" : NULL;
}

static int wants_to_join(struct visitor *v, struct ipc_frame *f)
{
	if (v->member || v->waits || f->nfds != JOIN_FDS || unpack_group_join(f->data, f->len, &v->join))
		return -EPROTO;
	const char *why = refusal(v);
	if (why) {
		tell_failed(v, HVX_EXIT_CONFIG, why);
		return 0;
	}
	for (int i = 0; i < JOIN_FDS; i++) {
		v->fd[i] = f->fds[i];
		f->fds[i] = -1;
	}
	memcpy(v->name, v->join.name, sizeof v->name);
	v->waits = true;
	if (v->k->ready)
		join(v);
	return 0;
}

static int asks(struct visitor *v, const struct ipc_frame *f)
{
	if (f->nfds || unpack_empty(f->len))
		return -EPROTO;
	v->asks = true;
	return v->k->ready ? to_memsvc(v->k, MSG_MEM_STATS_GET, 0, NULL, 0) : 0;
}

static void on_visitor_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct visitor *v = ctx;
	int rc = -EPROTO;

	(void)c;
	if (f->type == MSG_GROUP_JOIN)
		rc = wants_to_join(v, f);
	else if (f->type == MSG_GROUP_ASK)
		rc = asks(v, f);
	if (rc)
		leave(v);
}

static void on_visitor_closed(void *ctx, struct ipc_conn *c, int error)
{
	(void)c, (void)error;
	leave(ctx);
}

static const struct ipc_handlers visitor_handlers = {on_visitor_frame, on_visitor_closed, pack_type_name};

static bool may_come(int fd)
{
	struct ucred c;
	socklen_t n = sizeof c;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) == 0 && (c.uid == geteuid() || c.uid == 0);
}

static void on_listen(void *ctx)
{
	struct keeper *k = ctx;
	struct visitor *v = NULL;
	int fd = accept4(k->plan.listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned i = 0; i < GUESTS && !v; i++)
		if (!k->visitor[i].conn)
			v = &k->visitor[i];
	if (fd < 0)
		return;
	if (!v || !may_come(fd)) {
		close(fd);
		return;
	}
	*v = (struct visitor){.k = k, .fd = {-1, -1, -1, -1}};
	v->conn = ipc_conn_new(k->loop, fd, "keeper", "visitor", &visitor_handlers, v);
}

/* ---- start ---- */

/* No more can be there than the host has. */
static uint64_t pool_size(void)
{
	struct sysinfo s;
	uint64_t all = 1ull << 30;

	if (sysinfo(&s) == 0)
		all = ((uint64_t)s.totalram + s.totalswap) * s.mem_unit;
	return (all + (1ull << 30) - 1) & ~((1ull << 30) - 1);
}

static void take_over(struct keeper *k)
{
	const int keep[] = {k->plan.lock, k->plan.listen};
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	setsid();
	log_set_fd(-1);
	log_to_file(-1); /* it goes now: its number will be somebody's connection */
	sandbox_close_fds(keep, 2);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd <= 2; fd++)
		if (null != fd)
			dup2(null, fd);
	if (null > 2)
		close(null);
	for (int s = 1; s < 32; s++)
		sigaction(s, &dfl, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	log_to_syslog();
}

static int start(struct keeper *k)
{
	char err[256];
	int fd, rc = pool_make(pool_size(), &k->pool_rw, &k->pool_ro, err, sizeof err);

	k->loop = ipc_loop_new();
	if (!rc && !k->loop)
		rc = HVX_EXIT_HOST;
	k->sigchld = rc ? NULL : ipc_watch_signal(k->loop, SIGCHLD, on_sigchld, k);
	k->lonely = rc ? NULL : ipc_watch_timer(k->loop, on_lonely, k);
	k->listen = rc ? NULL : ipc_watch_fd(k->loop, k->plan.listen, IPC_READ, on_listen, k);
	if (!rc && (!k->sigchld || !k->lonely || !k->listen))
		rc = HVX_EXIT_HOST;
	k->memsvc = (struct proc){.program = "hvx-memsvc", .name = "memsvc", .role = ROLE_MEMSVC};
	if (!rc &&
	    spawn_child(k->loop, &k->memsvc, k->plan.group, k->plan.strict, k->plan.debug, &fd, err, sizeof err)) {
		log_error("%s", err);
		rc = HVX_EXIT_HOST;
	}
	if (!rc)
		k->conn = ipc_conn_new(k->loop, fd, "keeper", "memsvc", &memsvc_handlers, k);
	return rc ? rc : k->conn ? 0 : HVX_EXIT_HOST;
}

void keeper_run(const struct keeper_plan *p)
{
	struct keeper *k = calloc(1, sizeof *k);

	if (!k)
		_exit(HVX_EXIT_HOST);
	k->plan = *p;
	take_over(k);
	int rc = start(k);
	if (!rc && seal_monitor(false, k->memsvc.ns & SANDBOX_BIT(USERNS) ? 0 : 1ull << CAP_KILL) && p->strict) {
		log_error("cannot seal the keeper of merge group %s", p->group);
		rc = HVX_EXIT_HOST;
	}
	if (rc) {
		runtime_remove(&k->plan.rt, p->group);
		spawn_kill(&k->memsvc);
		_exit(rc);
	}
	ipc_timer_set(k->lonely, LONELY_MS);
	rc = ipc_loop_run(k->loop);
	_exit(rc ? HVX_EXIT_FAIL : 0);
}
