/*
 * hvx-memsvc: keeps the memory of a VM, hands it out on request and says how much
 * of it is there; gives back to the host what the guest gives back, which it hears from the vcpu directly.  Invariant: it never looks into guest RAM.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/child.h"
#include "common/err.h"
#include "common/log.h"
#include "memsvc/ram.h"
#include "memsvc/seal.h"

#define REQUESTS 2   /* of the vcpu at once: one, and that of a reset which comes in between */
#define LOOKS    500 /* a millisecond apart, until those who still hold pages have missed the deadline */

struct memsvc {
	struct child child;
	struct ram ram;
	struct ipc_loop *loop;
	struct ipc_conn *conn;
	int vcpu_fd;           /* channel to the vcpu; -1: no balloon */
	struct ipc_conn *vcpu; /* NULL: none, or it hung up */
	/* requests that pages be taken, in order: the first waits for a grace period */
	struct msg_mem_change request[REQUESTS];
	unsigned requests, looks;
	struct ipc_watch *tick;
};

static int reply_region(struct memsvc *s)
{
	struct msg_mem_region m = {s->ram.size, s->ram.control_size};
	int fds[] = {s->ram.ram_fd, s->ram.control_fd};
	int n = pack_mem_region(&m, s->child.buf, sizeof s->child.buf);

	return n < 0 ? n : ipc_send(s->conn, MSG_MEM_REGION, s->child.buf, (size_t)n, fds, 2);
}

static int reply_stats(struct memsvc *s)
{
	struct ram_usage u;
	int rc = ram_usage(&s->ram, &u);

	if (rc)
		return rc;
	struct msg_mem_stats m = {u.pages_total, u.pages_present, u.host_bytes, u.pages_ballooned, u.pages_punched};
	int n = pack_mem_stats(&m, s->child.buf, sizeof s->child.buf);
	return n < 0 ? n : ipc_send(s->conn, MSG_MEM_STATS, s->child.buf, (size_t)n, NULL, 0);
}

static void on_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct memsvc *s = ctx;
	int rc = -EPROTO;

	(void)c;
	if (f->nfds == 0 && unpack_empty(f->len) == 0) {
		if (f->type == MSG_MEM_GET)
			rc = reply_region(s);
		else if (f->type == MSG_MEM_STATS_GET)
			rc = reply_stats(s);
	}
	if (rc == -EPIPE || rc == -ECONNRESET)
		ipc_loop_stop(s->loop); /* it asked, and ended */
	else if (rc)
		fatal(HVX_EXIT_FAIL, "message %u from the monitor: %s", f->type, strerror(-rc));
}

static void on_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct memsvc *s = ctx;

	(void)c;
	if (error)
		log_error("control socket: %s", strerror(-error));
	ipc_loop_stop(s->loop);
}

static const struct ipc_handlers handlers = {on_frame, on_closed, pack_type_name};

/* ---- the vcpu, which counts as taken over ---- */

static void hang_up(struct memsvc *s, const char *why)
{
	if (why)
		log_error("the vcpu's channel: %s: hung up", why);
	ipc_conn_free(s->vcpu);
	s->vcpu = NULL;
	s->requests = 0;
}

static int answer(struct memsvc *s, const struct msg_mem_change *m)
{
	struct msg_mem_changed done = {m->id};
	int n = pack_mem_changed(&done, s->child.buf, sizeof s->child.buf);

	return n < 0 ? n : ipc_send(s->vcpu, MSG_MEM_CHANGED, s->child.buf, (size_t)n, NULL, 0);
}

static bool takes_pages(const struct msg_mem_change *m)
{
	return m->op == MEM_OP_BALLOON || m->op == MEM_OP_REPORT;
}

/* First the p2m: who looks a page up from here on knows. */
static int withdraw(struct memsvc *s, const struct msg_mem_change *m)
{
	int rc = 0;

	if (!m->nranges)
		rc = ram_change(&s->ram, m->op, 0, 0);
	for (uint32_t i = 0; i < m->nranges && !rc; i++)
		rc = ram_change(&s->ram, m->op, m->range[i].first, m->range[i].count);
	return rc;
}

static void punch(struct memsvc *s, const struct msg_mem_change *m)
{
	int rc = 0;

	for (uint32_t i = 0; i < m->nranges && !rc; i++)
		rc = ram_punch(&s->ram, m->range[i].first, m->range[i].count);
	if (rc) /* the guest does not depend on it */
		log_guest(LOG_LVL_WARN, "pages that stay with the guest: %s", strerror(-rc));
}

/*
 * Works on the first request.  True: it is answered.  Who misses the deadline is left behind: what it writes then costs this
 * VM a page that it thinks to have given back, and nobody else anything.
 */
static int serve_first(struct memsvc *s, bool *done)
{
	struct msg_mem_change *m = &s->request[0];
	enum grace_state state = takes_pages(m) ? grace_look(&s->ram.grace) : GRACE_OVER;

	*done = true;
	if (state == GRACE_WAIT && s->looks++ == LOOKS) {
		log_guest(LOG_LVL_WARN, "a device or the vcpu holds on to pages that the guest gave back");
		state = grace_give_up(&s->ram.grace);
	}
	if (state == GRACE_WAIT) {
		ipc_timer_set(s->tick, 1);
		*done = false;
		return 0;
	}
	if (takes_pages(m))
		punch(s, m);
	return answer(s, m);
}

static int begin_first(struct memsvc *s)
{
	int rc = withdraw(s, &s->request[0]);

	s->looks = 0;
	if (!rc && takes_pages(&s->request[0]))
		grace_begin(&s->ram.grace);
	return rc;
}

/* The first has begun. */
static int serve(struct memsvc *s)
{
	bool done = true;
	int rc = 0;

	while (s->requests) {
		rc = serve_first(s, &done);
		if (rc || !done)
			return rc;
		s->request[0] = s->request[1];
		if (--s->requests && (rc = begin_first(s)))
			return rc;
	}
	return 0;
}

static int change(struct memsvc *s, const struct ipc_frame *f)
{
	if (s->requests == REQUESTS)
		return -EPROTO;
	struct msg_mem_change *m = &s->request[s->requests];
	if (f->type != MSG_MEM_CHANGE || f->nfds || unpack_mem_change(f->data, f->len, m))
		return -EPROTO;
	if (++s->requests > 1)
		return 0;
	int rc = begin_first(s);
	return rc ? rc : serve(s);
}

static void on_vcpu_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct memsvc *s = ctx;
	int rc = change(s, f);

	(void)c;
	if (rc)
		hang_up(s, rc == -EPROTO ? "a malformed message" : strerror(-rc));
}

static void on_tick(void *ctx)
{
	struct memsvc *s = ctx;
	int rc = s->vcpu ? serve(s) : 0;

	if (rc)
		hang_up(s, rc == -EPROTO ? "a malformed message" : strerror(-rc));
}

static void on_vcpu_closed(void *ctx, struct ipc_conn *c, int error)
{
	(void)c;
	hang_up(ctx, error ? strerror(-error) : NULL);
}

static const struct ipc_handlers vcpu_handlers = {on_vcpu_frame, on_vcpu_closed, pack_type_name};

static void configure(struct memsvc *s)
{
	struct ipc_frame f;
	struct msg_mem_config cfg;

	child_expect(&s->child, MSG_MEM_CONFIG, &f);
	if (unpack_mem_config(f.data, f.len, &cfg) || f.nfds != cfg.balloon)
		child_fail(&s->child, HVX_EXIT_FAIL, "malformed configuration from the monitor");
	s->vcpu_fd = cfg.balloon ? f.fds[0] : -1;
	int rc = ram_create(&s->ram, cfg.ram_size + cfg.rom_size);
	if (rc)
		child_fail(&s->child, HVX_EXIT_HOST, "cannot make %llu MiB of guest RAM: %s",
			   (unsigned long long)(cfg.ram_size >> 20), strerror(-rc));
	s->child.shared = s->ram.control_size;
	s->loop = ipc_loop_new();
	if (!s->loop)
		child_fail(&s->child, HVX_EXIT_HOST, "no memory for the loop");
}

int main(int argc, char **argv)
{
	static struct memsvc s = {.child = {.program = "hvx-memsvc", .role = ROLE_MEMSVC, .table = &memsvc_seal}};

	child_start(&s.child, argc, argv);
	configure(&s);
	child_seal(&s.child);
	s.tick = ipc_watch_timer(s.loop, on_tick, &s);
	s.conn = ipc_conn_new(s.loop, CHILD_CONTROL_FD, "memsvc", "monitor", &handlers, &s);
	if (s.vcpu_fd >= 0)
		s.vcpu = ipc_conn_new(s.loop, s.vcpu_fd, "memsvc", "vcpu", &vcpu_handlers, &s);
	if (!s.tick || !s.conn || (s.vcpu_fd >= 0 && !s.vcpu))
		fatal(HVX_EXIT_FAIL, "no memory for the connection");
	int rc = ipc_loop_run(s.loop);
	ipc_watch_free(s.tick);
	ipc_conn_free(s.conn);
	ipc_conn_free(s.vcpu);
	ipc_loop_free(s.loop);
	ram_free(&s.ram);
	return rc ? HVX_EXIT_FAIL : 0;
}
