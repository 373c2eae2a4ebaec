/*
 * One VM.  Its vcpu counts as taken over: it may ask for anything at any time, and let go of pages or not.  Invariant: whatever it
 * does changes pages of its own VM only, and keeps nobody waiting but itself; what it sends wrong costs it its channel.
 */
#include "memsvc/member.h"

#include <errno.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"

#define LOOKS      500  /* a millisecond apart, until those who still hold pages have missed the deadline */
#define MERGE_MS   2    /* between looks at a batch that waits */
#define LET_GO_MS  1000 /* a vcpu that does not let go of watched pages in this time is not waited for */
#define LEAVING_MS 2000 /* from its monitor's end until nobody of a VM reads merged pages any more, and once more */

/* ---- the monitor ---- */

static int to_monitor(struct member *m, uint16_t type, int n, const int *fds, int nfds)
{
	return n < 0 ? n : ipc_send(m->monitor, type, m->buf, (size_t)n, fds, nfds);
}

static int reply_region(struct member *m)
{
	const struct msg_mem_region r = {m->ram.size, m->ram.control_size};
	const int fds[] = {m->ram.ram_fd, m->ram.control_fd};

	return to_monitor(m, MSG_MEM_REGION, pack_mem_region(&r, m->buf, sizeof m->buf), fds, 2);
}

static void merge_stats(const struct member *m, struct msg_mem_stats *s)
{
	scan_stats(m->scan, s);
	s->scanned = m->merge.n.scanned;
	s->sharing = m->merge.n.sharing;
	s->unshared = m->merge.n.unshared;
	s->unstable = m->merge.n.unstable;
	s->unmerged = m->merge.n.unmerged;
}

static int reply_stats(struct member *m)
{
	struct ram_usage u;
	int rc = ram_usage(&m->ram, &u);

	if (rc)
		return rc;
	struct msg_mem_stats s = {.pages_total = u.pages_total,
				  .pages_present = u.pages_present,
				  .host_bytes = u.host_bytes,
				  .pages_ballooned = u.pages_ballooned,
				  .pages_punched = u.pages_punched};
	if (m->scan)
		merge_stats(m, &s);
	return to_monitor(m, MSG_MEM_STATS, pack_mem_stats(&s, m->buf, sizeof m->buf), NULL, 0);
}

static int tune(struct member *m, const struct ipc_frame *f)
{
	struct msg_mem_tune t;

	if (!m->scan || unpack_mem_tune(f->data, f->len, &t))
		return -EPROTO;
	if (t.rate)
		m->scan->rate = t.rate;
	if (t.pressure)
		m->scan->pressure = t.pressure == MEM_PRESSURE_SHORT;
	return 0;
}

static int monitors_frame(struct member *m, const struct ipc_frame *f)
{
	if (f->nfds)
		return -EPROTO;
	if (f->type == MSG_MEM_GET && !unpack_empty(f->len))
		return reply_region(m);
	if (f->type == MSG_MEM_STATS_GET && !unpack_empty(f->len))
		return reply_stats(m);
	return f->type == MSG_MEM_TUNE ? tune(m, f) : -EPROTO;
}

static void leave(struct member *m);

static void on_monitor_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct member *m = ctx;
	int rc = monitors_frame(m, f);

	(void)c;
	if (rc == -EPIPE || rc == -ECONNRESET) {
		leave(m); /* it asked, and ended */
	} else if (rc && m->ends_all) {
		fatal(HVX_EXIT_FAIL, "message %u from the monitor: %s", f->type, strerror(-rc));
	} else if (rc) {
		log_error("message %u from a monitor: %s: hung up", f->type, strerror(-rc));
		leave(m);
	}
}

static void on_monitor_closed(void *ctx, struct ipc_conn *c, int error)
{
	(void)c;
	if (error)
		log_error("control socket: %s", strerror(-error));
	leave(ctx);
}

static const struct ipc_handlers monitor_handlers = {on_monitor_frame, on_monitor_closed, pack_type_name};

/* ---- pages that the guest gives back or takes again ---- */

static void hang_up(struct member *m, const char *why)
{
	struct scan_vm *v = m->scan ? scan_vm(m->scan, &m->merge) : NULL;

	if (why)
		log_error("the vcpu's channel: %s: hung up", why);
	ipc_conn_free(m->vcpu);
	m->vcpu = NULL;
	m->requests = 0;
	merge_abort(&m->merge);
	if (v)
		v->stuck = true;
}

static int answer(struct member *m, const struct msg_mem_change *c)
{
	const struct msg_mem_changed done = {c->id};
	int n = pack_mem_changed(&done, m->buf, sizeof m->buf);

	return n < 0 ? n : ipc_send(m->vcpu, MSG_MEM_CHANGED, m->buf, (size_t)n, NULL, 0);
}

static bool takes_pages(const struct msg_mem_change *c)
{
	return c->op == MEM_OP_BALLOON || c->op == MEM_OP_REPORT;
}

/* First the p2m: who looks a page up from here on knows. */
static int withdraw(struct member *m, const struct msg_mem_change *c)
{
	int rc = 0;

	if (!c->nranges)
		rc = ram_change(&m->ram, c->op, 0, 0);
	for (uint32_t i = 0; i < c->nranges && !rc; i++)
		rc = ram_change(&m->ram, c->op, c->range[i].first, c->range[i].count);
	return rc;
}

static void punch(struct member *m, const struct msg_mem_change *c)
{
	int rc = 0;

	for (uint32_t i = 0; i < c->nranges && !rc; i++)
		rc = ram_punch(&m->ram, c->range[i].first, c->range[i].count);
	if (rc) /* the guest does not depend on it */
		log_guest(LOG_LVL_WARN, "pages that stay with the guest: %s", strerror(-rc));
}

/*
 * Works on the first request.  True: it is answered.  Who misses the deadline is left behind: what it writes then costs this
 * VM a page that it thinks to have given back, and nobody else anything.
 */
static int serve_first(struct member *m, bool *done)
{
	struct msg_mem_change *c = &m->request[0];
	enum grace_state state = takes_pages(c) ? grace_look(&m->ram.grace) : GRACE_OVER;

	*done = true;
	if (state == GRACE_WAIT && m->looks++ == LOOKS) {
		log_guest(LOG_LVL_WARN, "a device or the vcpu holds on to pages that the guest gave back");
		state = grace_give_up(&m->ram.grace);
	}
	if (state == GRACE_WAIT) {
		ipc_timer_set(m->tick, 1);
		*done = false;
		return 0;
	}
	if (takes_pages(c))
		punch(m, c);
	return answer(m, c);
}

/* A batch that waits for a grace period waits for another. */
static int begin_first(struct member *m)
{
	int rc = withdraw(m, &m->request[0]);

	m->looks = 0;
	if (!rc && takes_pages(&m->request[0])) {
		grace_begin(&m->ram.grace);
		if (m->grace == MEMBER_GRACE_PENDING)
			m->grace = MEMBER_GRACE_NONE;
	}
	return rc;
}

/* The first has begun. */
static int serve(struct member *m)
{
	bool done = true;
	int rc = 0;

	while (m->requests) {
		rc = serve_first(m, &done);
		if (rc || !done)
			return rc;
		m->request[0] = m->request[1];
		if (--m->requests && (rc = begin_first(m)))
			return rc;
	}
	return 0;
}

static int change(struct member *m, const struct ipc_frame *f)
{
	if (m->requests == MEMBER_REQUESTS)
		return -EPROTO;
	struct msg_mem_change *c = &m->request[m->requests];
	if (unpack_mem_change(f->data, f->len, c))
		return -EPROTO;
	if (++m->requests > 1)
		return 0;
	int rc = begin_first(m);
	return rc ? rc : serve(m);
}

/* ---- merging ---- */

static int ask_to_let_go(struct member *m)
{
	static struct msg_mem_withdraw w; /* large; there is one loop */

	merge_withdrawal(&m->merge, &w);
	w.id = ++m->asked;
	m->grace = MEMBER_GRACE_NONE;
	m->waited = 0;
	int n = pack_mem_withdraw(&w, m->buf, sizeof m->buf);
	return n < 0 ? n : ipc_send(m->vcpu, MSG_MEM_WITHDRAW, m->buf, (size_t)n, NULL, 0);
}

/* What a deadline was missed for once is no good here: only a period in which nobody at all was in. */
static void look_for_grace(struct member *m)
{
	if (m->requests || m->grace == MEMBER_GRACE_OVER)
		return;
	if (m->grace == MEMBER_GRACE_NONE)
		grace_begin(&m->ram.grace);
	m->grace = MEMBER_GRACE_PENDING;
	enum grace_state state = grace_look(&m->ram.grace);
	if (state == GRACE_OVER)
		m->grace = MEMBER_GRACE_OVER;
	else if (state == GRACE_LATE)
		m->grace = MEMBER_GRACE_NONE;
}

static int begin_batch(struct member *m)
{
	const struct merge *g = &m->merge;

	if (m->asked != m->answered || (g->next.n < MERGE_BATCH && !m->due) || !merge_begin(&m->merge))
		return 0;
	m->due = false;
	return ask_to_let_go(m);
}

static void wait_for_batch(struct member *m)
{
	m->waited += MERGE_MS;
	if (m->merge.state == MERGE_WATCH && m->waited > LET_GO_MS) {
		merge_abort(&m->merge);
		scan_vm(m->scan, &m->merge)->stuck = m->asked != m->answered;
	}
	if (!m->requests)
		ipc_timer_set(m->tick, m->waited < LET_GO_MS ? MERGE_MS : 100);
}

static int go_on(struct member *m)
{
	uint64_t from = scan_clock();
	int rc = 0;

	if (m->merge.state == MERGE_QUIET)
		rc = begin_batch(m);
	if (m->merge.state != MERGE_QUIET)
		look_for_grace(m);
	if (m->merge.state != MERGE_QUIET && m->asked == m->answered && m->grace == MEMBER_GRACE_OVER) {
		merge_go_on(&m->merge);
		rc = m->merge.state == MERGE_SETTLE ? ask_to_let_go(m) : begin_batch(m);
	}
	if (m->merge.state != MERGE_QUIET)
		wait_for_batch(m);
	scan_charge(m->scan, from);
	return rc;
}

static const char *reason(int rc)
{
	return rc == -EPROTO ? "a malformed message" : strerror(-rc);
}

void member_merge(struct member *m)
{
	int rc = m->scan && m->vcpu && !m->leaving ? go_on(m) : 0;

	if (rc)
		hang_up(m, reason(rc));
}

static int let_go(struct member *m, const struct ipc_frame *f)
{
	struct msg_mem_withdrawn w;

	if (!m->scan || unpack_mem_withdrawn(f->data, f->len, &w) || m->asked == m->answered || w.id != m->asked)
		return -EPROTO;
	m->answered = w.id;
	scan_vm(m->scan, &m->merge)->stuck = false;
	member_merge(m);
	return 0;
}

/* ---- the vcpu ---- */

static void on_vcpu_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct member *m = ctx;
	int rc = -EPROTO;

	(void)c;
	if (!f->nfds && f->type == MSG_MEM_CHANGE)
		rc = change(m, f);
	else if (!f->nfds && f->type == MSG_MEM_WITHDRAWN)
		rc = let_go(m, f);
	if (rc && m->vcpu)
		hang_up(m, reason(rc));
}

static void on_vcpu_closed(void *ctx, struct ipc_conn *c, int error)
{
	(void)c;
	hang_up(ctx, error ? strerror(-error) : NULL);
}

static const struct ipc_handlers vcpu_handlers = {on_vcpu_frame, on_vcpu_closed, pack_type_name};

/* ---- the end ---- */

/* Its vcpu may run for a moment still, and its devices write what merged pages hold to disks. */
static void wait_to_leave(struct member *m)
{
	m->waited += MERGE_MS;
	if (m->waited == LEAVING_MS)
		grace_begin(&m->ram.grace);
	if (m->waited < LEAVING_MS || (m->waited < 2 * LEAVING_MS && grace_look(&m->ram.grace) == GRACE_WAIT))
		ipc_timer_set(m->tick, MERGE_MS);
	else
		m->left(m);
}

static void leave(struct member *m)
{
	if (m->ends_all) {
		ipc_loop_stop(m->loop);
		return;
	}
	if (m->leaving)
		return;
	m->leaving = true;
	if (m->vcpu)
		hang_up(m, NULL);
	ipc_conn_free(m->monitor);
	m->monitor = NULL;
	m->waited = 0;
	ipc_timer_set(m->tick, MERGE_MS);
}

static void on_tick(void *ctx)
{
	struct member *m = ctx;

	if (m->leaving) {
		wait_to_leave(m);
		return;
	}
	int rc = m->vcpu ? serve(m) : 0;
	if (rc)
		hang_up(m, reason(rc));
	if (m->merge.state != MERGE_QUIET)
		member_merge(m);
}

/* ---- */

int member_init(struct member *m, struct ipc_loop *loop, int monitor, int vcpu, struct scan *scan)
{
	int rc = 0;

	m->loop = loop;
	m->tick = ipc_watch_timer(loop, on_tick, m);
	m->monitor = ipc_conn_new(loop, monitor, "memsvc", "monitor", &monitor_handlers, m);
	if (vcpu >= 0)
		m->vcpu = ipc_conn_new(loop, vcpu, "memsvc", "vcpu", &vcpu_handlers, m);
	if (!m->tick || !m->monitor || (vcpu >= 0 && !m->vcpu))
		return -ENOMEM;
	if (scan) {
		rc = merge_init(&m->merge, &m->ram, scan->pool);
		if (!rc)
			rc = scan_add(scan, &m->merge);
		if (!rc)
			m->scan = scan;
	}
	return rc;
}

void member_free(struct member *m)
{
	if (m->scan)
		scan_remove(m->scan, &m->merge);
	merge_free(&m->merge);
	ipc_watch_free(m->tick);
	ipc_conn_free(m->monitor);
	ipc_conn_free(m->vcpu);
	ram_free(&m->ram);
}
