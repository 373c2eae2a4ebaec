/*
 * One packet is one frame: header, payload, descriptors.  Invariant: a packet
 * that is truncated, lies about its length or carries other descriptors than its
 * header says never reaches a handler, and none of its descriptors stays open.
 */
#include "common/ipc.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

static bool tracing;

void ipc_set_trace(bool on)
{
	tracing = on;
}

/* ---- packets ---- */

static int send_packet(int fd, const struct ipc_header *h, const void *data, const int *fds)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)h, sizeof *h}, {(void *)(uintptr_t)data, h->length}};
	union {
		char buf[CMSG_SPACE(IPC_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} ctl;
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = h->length ? 2 : 1};

	if (h->nfds) {
		memset(&ctl, 0, sizeof ctl);
		m.msg_control = ctl.buf;
		m.msg_controllen = CMSG_SPACE(h->nfds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(h->nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, h->nfds * sizeof(int));
	}
	ssize_t n;
	do
		n = sendmsg(fd, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *m, struct ipc_frame *f)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (int i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + (size_t)i * sizeof(int), sizeof fd);
			if (f->nfds < IPC_MAX_FDS)
				f->fds[f->nfds++] = fd;
			else
				close(fd);
		}
	}
}

static int check_packet(const struct ipc_header *h, size_t n, int flags, const struct ipc_frame *f)
{
	if (n < sizeof *h || (flags & (MSG_TRUNC | MSG_CTRUNC)))
		return -EPROTO;
	if (h->magic != IPC_MAGIC || h->length != n - sizeof *h || h->nfds != f->nfds)
		return -EPROTO;
	return 0;
}

int ipc_recv_frame(int fd, uint8_t *buf, struct ipc_frame *f)
{
	struct ipc_header h;
	struct iovec iov[2] = {{&h, sizeof h}, {buf, IPC_MAX_DATA}};
	union {
		char buf[CMSG_SPACE(IPC_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} ctl;
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = ctl.buf, .msg_controllen = sizeof ctl.buf};
	ssize_t n;

	memset(f, 0, sizeof *f);
	do
		n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -EPIPE;
	take_fds(&m, f);
	int rc = check_packet(&h, (size_t)n, m.msg_flags, f);
	if (rc) {
		ipc_close_fds(f);
		return rc;
	}
	f->type = h.type;
	f->len = h.length;
	f->data = buf;
	return 0;
}

int ipc_send_frame(int fd, uint16_t type, const void *data, size_t len, const int *fds, int nfds)
{
	if (len > IPC_MAX_DATA || nfds < 0 || nfds > IPC_MAX_FDS)
		return -EMSGSIZE;
	struct ipc_header h = {IPC_MAGIC, type, (uint16_t)nfds, (uint32_t)len};
	return send_packet(fd, &h, data, fds);
}

void ipc_close_fds(struct ipc_frame *f)
{
	for (int i = 0; i < f->nfds; i++)
		if (f->fds[i] >= 0)
			close(f->fds[i]);
	f->nfds = 0;
}

/* ---- the loop ---- */

struct ipc_loop {
	struct event_base *base;
	void (*turned)(void *ctx);
	void *ctx;
};

struct ipc_watch {
	struct event *ev;
	void (*cb)(void *ctx);
	void *ctx;
};

static void on_libevent_log(int severity, const char *msg)
{
	log_debug("libevent (%d): %s", severity, msg);
}

struct ipc_loop *ipc_loop_new(void)
{
	struct ipc_loop *l = calloc(1, sizeof *l);

	event_set_log_callback(on_libevent_log);

	if (!l)
		return NULL;
	l->base = event_base_new();
	if (l->base)
		return l;
	free(l);
	return NULL;
}

void ipc_loop_free(struct ipc_loop *l)
{
	if (!l)
		return;
	event_base_free(l->base);
	free(l);
}

int ipc_loop_run(struct ipc_loop *l)
{
	int rc;

	if (!l->turned)
		return event_base_dispatch(l->base) < 0 ? -EIO : 0;
	do {
		rc = event_base_loop(l->base, EVLOOP_ONCE);
		l->turned(l->ctx);
	} while (!rc && !event_base_got_break(l->base));
	return rc < 0 ? -EIO : 0;
}

void ipc_loop_turned(struct ipc_loop *l, void (*turned)(void *ctx), void *ctx)
{
	l->turned = turned;
	l->ctx = ctx;
}

void ipc_loop_stop(struct ipc_loop *l)
{
	event_base_loopbreak(l->base);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct ipc_watch *w = arg;

	(void)fd;
	(void)what;
	w->cb(w->ctx);
}

static struct ipc_watch *watch_new(struct ipc_loop *l, int fd, short what, void (*cb)(void *), void *ctx)
{
	struct ipc_watch *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->cb = cb;
	w->ctx = ctx;
	w->ev = event_new(l->base, fd, what, on_event, w);
	if (w->ev && (fd < 0 || event_add(w->ev, NULL) == 0))
		return w;
	ipc_watch_free(w);
	return NULL;
}

struct ipc_watch *ipc_watch_fd(struct ipc_loop *l, int fd, int what, void (*cb)(void *ctx), void *ctx)
{
	short ev = (short)(EV_PERSIST | (what & IPC_READ ? EV_READ : 0) | (what & IPC_WRITE ? EV_WRITE : 0));

	return watch_new(l, fd, ev, cb, ctx);
}

struct ipc_watch *ipc_watch_signal(struct ipc_loop *l, int sig, void (*cb)(void *ctx), void *ctx)
{
	return watch_new(l, sig, EV_SIGNAL | EV_PERSIST, cb, ctx);
}

struct ipc_watch *ipc_watch_timer(struct ipc_loop *l, void (*cb)(void *ctx), void *ctx)
{
	return watch_new(l, -1, 0, cb, ctx);
}

void ipc_watch_enable(struct ipc_watch *w, bool on)
{
	if (!w)
		return;
	if (on)
		event_add(w->ev, NULL);
	else
		event_del(w->ev);
}

void ipc_timer_set(struct ipc_watch *w, unsigned ms)
{
	struct timeval tv = {ms / 1000, (ms % 1000) * 1000};

	event_add(w->ev, &tv);
}

void ipc_watch_free(struct ipc_watch *w)
{
	if (!w)
		return;
	if (w->ev)
		event_free(w->ev);
	free(w);
}

/* ---- connections ---- */

struct out_frame {
	struct out_frame *next;
	struct ipc_header h;
	int fds[IPC_MAX_FDS]; /* our own duplicates */
	uint8_t data[];
};

struct ipc_conn {
	int fd;
	char self[24], peer[24];
	const struct ipc_handlers *h;
	void *ctx;
	struct ipc_watch *in, *out;
	struct out_frame *head, **tail;
	int queued;
	struct log_source *source; /* may be NULL */
	bool *freed;               /* set when the connection goes away under a handler */
	uint8_t buf[IPC_MAX_DATA];
};

static void trace(const struct ipc_conn *c, const char *from, const char *to, uint16_t type, size_t len, int nfds)
{
	if (!tracing)
		return;
	const char *name = c->h->type_name ? c->h->type_name(type) : NULL;
	log_debug("%s -> %s: %s(%u), %zu bytes, %d fds", from, to, name ? name : "?", type, len, nfds);
}

static void conn_closed(struct ipc_conn *c, int error)
{
	ipc_watch_enable(c->in, false);
	ipc_watch_enable(c->out, false);
	c->h->closed(c->ctx, c, error);
}

static void take_frames(struct ipc_conn *c)
{
	struct ipc_frame f;
	bool freed = false;

	for (int i = 0; i < 16; i++) { /* not for ever: others want a turn */
		int rc = ipc_recv_frame(c->fd, c->buf, &f);
		if (rc == -EAGAIN)
			return;
		if (rc) {
			conn_closed(c, rc == -EPIPE || rc == -ECONNRESET ? 0 : rc);
			return;
		}
		trace(c, c->peer, c->self, f.type, f.len, f.nfds);
		c->freed = &freed;
		c->h->frame(c->ctx, c, &f);
		ipc_close_fds(&f);
		if (freed)
			return;
		c->freed = NULL;
	}
}

static void conn_readable(void *ctx)
{
	struct ipc_conn *c = ctx;
	struct log_source *before = log_charge(c->source);

	take_frames(c);
	log_charge(before);
}

static void out_free(struct out_frame *o)
{
	for (int i = 0; i < o->h.nfds; i++)
		close(o->fds[i]);
	free(o);
}

static void conn_writable(void *ctx)
{
	struct ipc_conn *c = ctx;

	while (c->head) {
		struct out_frame *o = c->head;
		int rc = send_packet(c->fd, &o->h, o->data, o->fds);
		if (rc == -EAGAIN)
			return;
		c->head = o->next;
		c->queued--;
		out_free(o);
		if (rc) {
			conn_closed(c, rc == -EPIPE || rc == -ECONNRESET ? 0 : rc);
			return;
		}
	}
	c->tail = &c->head;
	ipc_watch_enable(c->out, false);
}

struct ipc_conn *ipc_conn_new(struct ipc_loop *l, int fd, const char *self, const char *peer,
			      const struct ipc_handlers *h, void *ctx)
{
	struct ipc_conn *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->fd = fd;
	c->h = h;
	c->ctx = ctx;
	c->tail = &c->head;
	snprintf(c->self, sizeof c->self, "%s", self);
	snprintf(c->peer, sizeof c->peer, "%s", peer);
	int fl = fcntl(fd, F_GETFL);
	if (fl >= 0 && fcntl(fd, F_SETFL, fl | O_NONBLOCK) == 0)
		c->in = ipc_watch_fd(l, fd, IPC_READ, conn_readable, c);
	if (c->in)
		c->out = ipc_watch_fd(l, fd, IPC_WRITE, conn_writable, c);
	if (!c->out) {
		ipc_watch_free(c->in);
		free(c);
		return NULL;
	}
	ipc_watch_enable(c->out, false);
	return c;
}

void ipc_conn_free(struct ipc_conn *c)
{
	if (!c)
		return;
	if (c->freed)
		*c->freed = true;
	ipc_watch_free(c->in);
	ipc_watch_free(c->out);
	while (c->head) {
		struct out_frame *o = c->head;
		c->head = o->next;
		out_free(o);
	}
	close(c->fd);
	free(c);
}

void ipc_conn_drain(struct ipc_conn *c)
{
	conn_readable(c);
}

void ipc_conn_charge(struct ipc_conn *c, struct log_source *s)
{
	c->source = s;
}

int ipc_conn_fd(const struct ipc_conn *c)
{
	return c->fd;
}

const char *ipc_conn_peer(const struct ipc_conn *c)
{
	return c->peer;
}

static int enqueue(struct ipc_conn *c, const struct ipc_header *h, const void *data, const int *fds)
{
	if (c->queued >= IPC_MAX_QUEUE)
		return -ENOBUFS;
	struct out_frame *o = calloc(1, sizeof *o + h->length);
	if (!o)
		return -ENOMEM;
	o->h = *h;
	if (h->length)
		memcpy(o->data, data, h->length);
	for (o->h.nfds = 0; o->h.nfds < h->nfds; o->h.nfds++) {
		o->fds[o->h.nfds] = fcntl(fds[o->h.nfds], F_DUPFD_CLOEXEC, 3);
		if (o->fds[o->h.nfds] < 0) {
			int rc = -errno;
			out_free(o);
			return rc;
		}
	}
	*c->tail = o;
	c->tail = &o->next;
	c->queued++;
	ipc_watch_enable(c->out, true);
	return 0;
}

int ipc_send(struct ipc_conn *c, uint16_t type, const void *data, size_t len, const int *fds, int nfds)
{
	if (len > IPC_MAX_DATA || nfds < 0 || nfds > IPC_MAX_FDS)
		return -EMSGSIZE;
	struct ipc_header h = {IPC_MAGIC, type, (uint16_t)nfds, (uint32_t)len};
	trace(c, c->self, c->peer, type, len, nfds);
	if (c->head)
		return enqueue(c, &h, data, fds);
	int rc = send_packet(c->fd, &h, data, fds);
	return rc == -EAGAIN ? enqueue(c, &h, data, fds) : rc;
}
