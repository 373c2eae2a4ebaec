/*
 * hvx-memsvc: keeps the memory of a VM, or of all VMs of a merge group, hands it out on request and says how much of it is there;
 * gives back to the host what guests give back; finds equal pages and keeps one of them.  Invariant: what pages hold is compared and
 * copied, never looked into.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/child.h"
#include "common/err.h"
#include "common/log.h"
#include "memsvc/member.h"
#include "memsvc/seal.h"

#define PAGE_COST \
	128u /* bytes that merging takes at most for a page: what is known of it, its place in tables, the pool's */
#define GROUP_SPACE (16ull << 40) /* of addresses, for the RAM of a group: it is asked about, not used */
#define BATCH_MS    50u           /* a batch that does not fill waits no longer */
#define JOIN_FDS    4

struct memsvc {
	struct child child;
	struct member own; /* the only VM */
	/* or a group */
	bool group;
	struct ipc_conn *keeper;
	struct member *vm[SCAN_VMS_MAX];
	struct ipc_loop *loop;
	int vcpu_fd, pool_fd;
	struct pool pool;
	struct scan scan;
	struct ipc_watch *tick;
	unsigned since; /* ms, about: the last batches began */
};

/* ---- merging ---- */

static void on_scan(void *ctx)
{
	struct memsvc *s = ctx;
	unsigned wait = scan_work(&s->scan);
	bool due = false;

	s->since += wait;
	if (s->since >= BATCH_MS) {
		s->since = 0;
		due = true;
	}
	for (unsigned i = 0; i < SCAN_VMS_MAX; i++) {
		struct member *m = s->vm[i];
		if (!m)
			continue;
		m->due |= due;
		if (m->merge.state == MERGE_QUIET)
			member_merge(m);
	}
	ipc_timer_set(s->tick, wait);
}

static void prepare_merging(struct memsvc *s, unsigned rate, uint64_t ram, uint64_t space)
{
	int rc = pool_init(&s->pool, s->pool_fd);

	if (rc)
		child_fail(&s->child, HVX_EXIT_HOST, "cannot make the pool of merged pages: %s", strerror(-rc));
	scan_init(&s->scan, &s->pool, rate);
	s->child.shared += space + (uint64_t)s->pool.capacity * SHM_PAGE;
	s->child.own += (ram / SHM_PAGE + s->pool.capacity) * PAGE_COST;
}

/* ---- a group: VMs come and go ---- */

static void on_left(struct member *m)
{
	struct memsvc *s = m->owner;

	for (unsigned i = 0; i < SCAN_VMS_MAX; i++)
		if (s->vm[i] == m)
			s->vm[i] = NULL;
	member_free(m);
	free(m);
}

/* Its descriptors are the frame's until they are taken. */
static int take_in(struct memsvc *s, struct member *m, struct ipc_frame *f, uint64_t ram_size)
{
	m->loop = s->loop;
	m->owner = s;
	m->left = on_left;
	int rc = ram_adopt(&m->ram, f->fds[2], f->fds[3], ram_size);
	if (rc)
		return rc;
	f->fds[2] = f->fds[3] = -1;
	rc = member_init(m, s->loop, f->fds[0], f->fds[1], &s->scan);
	f->fds[0] = f->fds[1] = -1;
	return rc;
}

/* A VM that cannot be taken finds its channel closed. */
static int join(struct memsvc *s, struct ipc_frame *f)
{
	struct msg_mem_join j;
	unsigned i = 0;

	if (f->nfds != JOIN_FDS || unpack_mem_join(f->data, f->len, &j))
		return -EPROTO;
	while (i < SCAN_VMS_MAX && s->vm[i])
		i++;
	struct member *m = i < SCAN_VMS_MAX ? calloc(1, sizeof *m) : NULL;
	if (!m)
		return 0;
	int rc = take_in(s, m, f, j.ram_size);
	if (rc) {
		log_error("a VM of %llu MiB cannot join: %s", (unsigned long long)(j.ram_size >> 20), strerror(-rc));
		member_free(m);
		free(m);
		return 0;
	}
	s->vm[i] = m;
	ipc_timer_set(s->tick, 1);
	return 0;
}

static int group_stats(struct memsvc *s)
{
	struct msg_mem_stats t = {0};

	scan_stats(&s->scan, &t);
	int n = pack_mem_stats(&t, s->child.buf, sizeof s->child.buf);
	return n < 0 ? n : ipc_send(s->keeper, MSG_MEM_STATS, s->child.buf, (size_t)n, NULL, 0);
}

static void on_keeper_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct memsvc *s = ctx;
	int rc = -EPROTO;

	(void)c;
	if (f->type == MSG_MEM_JOIN)
		rc = join(s, f);
	else if (f->type == MSG_MEM_STATS_GET && !f->nfds && !unpack_empty(f->len))
		rc = group_stats(s);
	if (rc == -EPIPE || rc == -ECONNRESET)
		ipc_loop_stop(s->loop); /* it asked, and ended */
	else if (rc)
		fatal(HVX_EXIT_FAIL, "message %u from the keeper: %s", f->type, strerror(-rc));
}

static void on_keeper_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct memsvc *s = ctx;

	(void)c;
	if (error)
		log_error("control socket: %s", strerror(-error));
	ipc_loop_stop(s->loop);
}

static const struct ipc_handlers keeper_handlers = {on_keeper_frame, on_keeper_closed, pack_type_name};

/* ---- start ---- */

static void configure_group(struct memsvc *s, const struct ipc_frame *f)
{
	struct msg_mem_group g;

	if (unpack_mem_group(f->data, f->len, &g) || f->nfds != 1)
		child_fail(&s->child, HVX_EXIT_FAIL, "malformed configuration from the keeper");
	s->group = true;
	s->pool_fd = f->fds[0];
	s->vcpu_fd = -1;
	prepare_merging(s, g.rate, 0, GROUP_SPACE);
	s->child.own += (uint64_t)s->pool.capacity * PAGE_COST; /* guests may have more pages than the host */
}

static void configure_one(struct memsvc *s, const struct ipc_frame *f)
{
	struct msg_mem_config cfg;

	if (unpack_mem_config(f->data, f->len, &cfg) || f->nfds != cfg.channel + cfg.merge)
		child_fail(&s->child, HVX_EXIT_FAIL, "malformed configuration from the monitor");
	s->vcpu_fd = cfg.channel ? f->fds[0] : -1;
	s->pool_fd = cfg.merge ? f->fds[1] : -1;
	int rc = ram_create(&s->own.ram, cfg.ram_size + cfg.rom_size);
	if (rc)
		child_fail(&s->child, HVX_EXIT_HOST, "cannot make %llu MiB of guest RAM: %s",
			   (unsigned long long)(cfg.ram_size >> 20), strerror(-rc));
	s->child.shared = s->own.ram.control_size;
	if (cfg.merge)
		prepare_merging(s, cfg.rate, s->own.ram.size, s->own.ram.size);
}

static void configure(struct memsvc *s)
{
	struct ipc_frame f;

	child_next(&s->child, &f);
	if (f.type == MSG_MEM_GROUP)
		configure_group(s, &f);
	else if (f.type == MSG_MEM_CONFIG)
		configure_one(s, &f);
	else
		fatal(HVX_EXIT_FAIL, "the monitor sent message %u where %s was due", f.type,
		      pack_type_name(MSG_MEM_CONFIG));
	s->loop = ipc_loop_new();
	if (!s->loop)
		child_fail(&s->child, HVX_EXIT_HOST, "no memory for the loop");
}

static int connect_peers(struct memsvc *s)
{
	s->tick = ipc_watch_timer(s->loop, on_scan, s);
	if (!s->tick)
		return -ENOMEM;
	if (s->group) {
		s->keeper = ipc_conn_new(s->loop, CHILD_CONTROL_FD, "memsvc", "keeper", &keeper_handlers, s);
		return s->keeper ? 0 : -ENOMEM;
	}
	s->own.ends_all = true;
	s->vm[0] = &s->own;
	int rc = member_init(&s->own, s->loop, CHILD_CONTROL_FD, s->vcpu_fd, s->pool_fd >= 0 ? &s->scan : NULL);
	if (!rc && s->pool_fd >= 0)
		ipc_timer_set(s->tick, 1);
	return rc;
}

int main(int argc, char **argv)
{
	static struct memsvc s = {.child = {.program = "hvx-memsvc", .role = ROLE_MEMSVC, .table = &memsvc_seal}};

	child_start(&s.child, argc, argv);
	configure(&s);
	child_seal(&s.child);
	if (connect_peers(&s))
		fatal(HVX_EXIT_FAIL, "no memory for the connection");
	int rc = ipc_loop_run(s.loop);
	/* what is left goes with the process: those who read merged pages have them until they end, too */
	return rc ? HVX_EXIT_FAIL : 0;
}
