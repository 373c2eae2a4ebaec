/*
 * The channel to hvx-memsvc, on the main thread.
 *
 *   MEM_WITHDRAW -> PEND_FLUSH to every vcpu -> each, at a block boundary: mmu_withdraw() -> MEM_WITHDRAWN
 *
 * Invariant: memsvc is answered only when no vcpu has anything any more that leads to the pages it named.
 */
#include "vcpu/local/memlink.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/err.h"
#include "common/gmem.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/rank.h"
#include "vcpu/kick.h"

static void send(struct memlink *l, uint16_t type, int n)
{
	int rc = n < 0 ? n : ipc_send(l->conn, type, l->buf, (size_t)n, NULL, 0);

	if (rc)
		fatal(HVX_EXIT_FAIL, "memsvc does not read: %s", strerror(-rc));
}

void memlink_change(struct memlink *l, const struct msg_mem_change *m)
{
	send(l, MSG_MEM_CHANGE, pack_mem_change(m, l->buf, sizeof l->buf));
}

/* ---- pages that are to be let go of ---- */

static void mark(struct memlink *l, bool on)
{
	for (uint32_t i = 0; i < l->req.nranges; i++)
		for (uint64_t f = l->req.range[i].first, end = f + l->req.range[i].count; f < end; f++)
			if (on)
				l->set.bits[f / 64] |= 1ull << (f % 64);
			else
				l->set.bits[f / 64] &= ~(1ull << (f % 64));
}

static bool ranges_ok(const struct memlink *l, const struct msg_mem_withdraw *m)
{
	for (uint32_t i = 0; i < m->nranges; i++)
		if (m->range[i].first >= l->set.pages || m->range[i].count > l->set.pages - m->range[i].first)
			return false;
	return true;
}

static void answer(struct memlink *l)
{
	const struct msg_mem_withdrawn m = {l->req.id};

	mark(l, false);
	l->state = MEMLINK_QUIET;
	if (l->conn)
		send(l, MSG_MEM_WITHDRAWN, pack_mem_withdrawn(&m, l->buf, sizeof l->buf));
}

/* On a vcpu's thread, between two blocks. */
static void invalidate(struct vcpu *v, void *ctx)
{
	static const uint64_t one = 1;
	struct memlink *l = v->vm->memlink;
	const uint64_t all = v->vm->ncpus < 64 ? (1ull << v->vm->ncpus) - 1 : ~0ull;
	bool done = false;

	if (l->next_invalidate)
		l->next_invalidate(v, ctx);
	pthread_mutex_lock(&l->lock);
	if (l->state == MEMLINK_ASKED && !(l->done >> v->id & 1)) {
		mmu_withdraw(v, &l->set, l->req.pool);
		l->done |= 1ull << v->id;
		done = l->done == all;
		if (done)
			l->state = MEMLINK_DONE;
	}
	pthread_mutex_unlock(&l->lock);
	if (done && write(l->post_fd, &one, sizeof one) < 0 && errno != EAGAIN)
		fatal(HVX_EXIT_FAIL, "wake-up of the main thread: %s", strerror(errno));
}

static void on_post(void *ctx)
{
	struct memlink *l = ctx;
	uint64_t n;

	if (read(l->post_fd, &n, sizeof n) < 0)
		return;
	pthread_mutex_lock(&l->lock);
	if (l->state == MEMLINK_DONE)
		answer(l);
	pthread_mutex_unlock(&l->lock);
}

static int withdraw(struct memlink *l, const struct ipc_frame *f)
{
	static struct msg_mem_withdraw m; /* large; there is one loop */
	bool asked = false;

	if (unpack_mem_withdraw(f->data, f->len, &m) || !ranges_ok(l, &m))
		return -EPROTO;
	pthread_mutex_lock(&l->lock);
	if (l->state != MEMLINK_QUIET) {
		pthread_mutex_unlock(&l->lock);
		return -EPROTO;
	}
	l->req = m;
	if (l->stopped) {
		answer(l);
	} else {
		mark(l, true);
		l->done = 0;
		l->state = MEMLINK_ASKED;
		asked = true;
	}
	pthread_mutex_unlock(&l->lock);
	for (int i = 0; asked && i < l->vm->ncpus; i++)
		vcpu_kick(l->vm->vcpu[i], PEND_FLUSH);
	return 0;
}

/* Whoever is given a page of its own on a vcpu's thread lets go at once of where it was; others are told through the bitmap. */
static void on_moved(void *ctx, uint64_t frame, const uint8_t *from)
{
	struct vcpu *v = kick_this();

	(void)ctx;
	if (v)
		mmu_moved(v, frame, from);
}

/* ---- messages ---- */

static int changed(struct memlink *l, const struct ipc_frame *f)
{
	struct msg_mem_changed m;

	if (!l->changed || unpack_mem_changed(f->data, f->len, &m))
		return -EPROTO;
	l->changed(l->ctx, m.id);
	return 0;
}

static void on_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct memlink *l = ctx;
	int rc = -EPROTO;

	(void)c;
	if (f->nfds == 0 && f->type == MSG_MEM_CHANGED)
		rc = changed(l, f);
	else if (f->nfds == 0 && f->type == MSG_MEM_WITHDRAW)
		rc = withdraw(l, f);
	if (rc)
		fatal(HVX_EXIT_FAIL, "message %u from memsvc", f->type);
}

/* The monitor ends the VM, and has said why if there is a reason. */
static void on_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct memlink *l = ctx;

	log_debug("memsvc hung up: %s", error ? strerror(-error) : "end of file");
	ipc_conn_free(c);
	l->conn = NULL;
	if (l->closed)
		l->closed(l->ctx);
}

static const struct ipc_handlers handlers = {on_frame, on_closed, pack_type_name};

/* ---- life ---- */

int memlink_create(struct memlink *l, struct vm *vm, struct ipc_loop *loop, int fd)
{
	l->vm = vm;
	l->set.pages = (vm->mem->size + vm->mem->rom_size) / GMEM_PAGE_SIZE;
	l->set.bits = memory_anon((l->set.pages + 63) / 64 * 8);
	l->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!l->set.bits || l->post_fd < 0)
		return -ENOMEM;
	pthread_mutex_init(&l->lock, NULL);
	RANK_GIVE(&l->lock, RANK_MEMLINK);
	l->next_invalidate = vm->invalidate;
	vm->invalidate = invalidate;
	vm->memlink = l;
	vm->mem->moved = on_moved;
	l->post = ipc_watch_fd(loop, l->post_fd, IPC_READ, on_post, l);
	l->conn = ipc_conn_new(loop, fd, "vcpu", "memsvc", &handlers, l);
	return l->post && l->conn ? 0 : -ENOMEM;
}

void memlink_stop(struct memlink *l)
{
	pthread_mutex_lock(&l->lock);
	l->stopped = true;
	if (l->state != MEMLINK_QUIET)
		answer(l);
	pthread_mutex_unlock(&l->lock);
}

void memlink_free(struct memlink *l)
{
	ipc_conn_free(l->conn);
	ipc_watch_free(l->post);
	close(l->post_fd);
	memory_anon_free(l->set.bits, (l->set.pages + 63) / 64 * 8);
}
