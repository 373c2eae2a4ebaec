/* Frames: round trips with descriptors, every kind of malformed packet, queueing, the loop. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/ipc.h"

static uint8_t buf[IPC_MAX_DATA];

static void make_pair(int sv[2])
{
	CU_ASSERT_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
}

static void close_pair(int sv[2])
{
	close(sv[0]);
	close(sv[1]);
}

static int open_fds(void)
{
	int n = 0;

	for (int i = 0; i < 256; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

static void test_round_trip(void)
{
	struct ipc_frame f;
	int sv[2], p[2], before = open_fds();

	make_pair(sv);
	CU_ASSERT_FATAL(pipe(p) == 0);
	CU_ASSERT_EQUAL(ipc_send_frame(sv[0], 42, "hello", 5, p, 2), 0);
	CU_ASSERT_EQUAL(ipc_recv_frame(sv[1], buf, &f), 0);
	CU_ASSERT_EQUAL(f.type, 42);
	CU_ASSERT_EQUAL(f.len, 5);
	CU_ASSERT_EQUAL(f.nfds, 2);
	CU_ASSERT_EQUAL(memcmp(f.data, "hello", 5), 0);
	CU_ASSERT_EQUAL(write(f.fds[1], "x", 1), 1);
	CU_ASSERT_EQUAL(read(p[0], buf, 1), 1);
	CU_ASSERT(fcntl(f.fds[0], F_GETFD) & FD_CLOEXEC);
	ipc_close_fds(&f);
	close_pair(p);
	close_pair(sv);
	CU_ASSERT_EQUAL(open_fds(), before);
}

static void test_limits(void)
{
	static uint8_t big[IPC_MAX_DATA + 1];
	struct ipc_frame f;
	int sv[2], fds[IPC_MAX_FDS + 1];

	make_pair(sv);
	for (int i = 0; i <= IPC_MAX_FDS; i++)
		fds[i] = sv[0];
	CU_ASSERT_EQUAL(ipc_send_frame(sv[0], 1, big, sizeof big, NULL, 0), -EMSGSIZE);
	CU_ASSERT_EQUAL(ipc_send_frame(sv[0], 1, NULL, 0, fds, IPC_MAX_FDS + 1), -EMSGSIZE);
	CU_ASSERT_EQUAL(ipc_send_frame(sv[0], 1, big, IPC_MAX_DATA, fds, IPC_MAX_FDS), 0);
	CU_ASSERT_EQUAL(ipc_recv_frame(sv[1], buf, &f), 0);
	CU_ASSERT_EQUAL(f.len, IPC_MAX_DATA);
	CU_ASSERT_EQUAL(f.nfds, IPC_MAX_FDS);
	ipc_close_fds(&f);
	close_pair(sv);
}

static int recv_raw(const void *data, size_t n)
{
	struct ipc_frame f;
	int sv[2];

	make_pair(sv);
	CU_ASSERT_EQUAL(send(sv[0], data, n, 0), (ssize_t)n);
	int rc = ipc_recv_frame(sv[1], buf, &f);
	close_pair(sv);
	return rc;
}

static void test_malformed(void)
{
	struct {
		struct ipc_header h;
		uint8_t data[IPC_MAX_DATA + 64];
	} *p = calloc(1, sizeof *p);

	p->h = (struct ipc_header){IPC_MAGIC, 1, 0, 4};
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h + 4), 0);
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h + 3), -EPROTO);
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h + 5), -EPROTO);
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h - 1), -EPROTO);
	p->h.nfds = 1; /* says one, sends none */
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h + 4), -EPROTO);
	p->h.nfds = 0;
	p->h.magic++;
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h + 4), -EPROTO);
	p->h = (struct ipc_header){IPC_MAGIC, 1, 0, IPC_MAX_DATA + 32};
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h + IPC_MAX_DATA + 32), -EPROTO);
	p->h.length = 0xffffffff;
	CU_ASSERT_EQUAL(recv_raw(p, sizeof p->h + 16), -EPROTO);
	free(p);
}

static void test_surplus_fds(void)
{
	struct ipc_header h = {IPC_MAGIC, 1, 1, 0};
	struct iovec iov = {&h, sizeof h};
	union {
		char b[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr align;
	} ctl;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.b, .msg_controllen = sizeof ctl.b};
	struct ipc_frame f;
	int sv[2];

	make_pair(sv);
	int before = open_fds(), three[3] = {sv[0], sv[0], sv[0]};
	memset(&ctl, 0, sizeof ctl);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof three);
	memcpy(CMSG_DATA(c), three, sizeof three);
	CU_ASSERT(sendmsg(sv[0], &m, 0) > 0);
	CU_ASSERT_EQUAL(ipc_recv_frame(sv[1], buf, &f), -EPROTO);
	CU_ASSERT_EQUAL(open_fds(), before); /* none of them stays open */
	close_pair(sv);
}

static void test_eof(void)
{
	struct ipc_frame f;
	int sv[2];

	make_pair(sv);
	close(sv[0]);
	CU_ASSERT_EQUAL(ipc_recv_frame(sv[1], buf, &f), -EPIPE);
	CU_ASSERT_EQUAL(ipc_send_frame(sv[1], 1, NULL, 0, NULL, 0), -EPIPE);
	close(sv[1]);
}

/* ---- the loop ---- */

struct party {
	struct ipc_loop *l;
	int frames, closed, error, stop_after;
	uint16_t last;
	bool free_in_handler;
};

static void on_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct party *p = ctx;

	p->last = f->type;
	if (++p->frames == p->stop_after)
		ipc_loop_stop(p->l);
	if (p->free_in_handler)
		ipc_conn_free(c);
}

static void on_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct party *p = ctx;

	(void)c;
	p->closed++;
	p->error = error;
	ipc_loop_stop(p->l);
}

static const struct ipc_handlers handlers = {on_frame, on_closed, NULL};

static void test_queue(void)
{
	struct party a = {0}, b = {.stop_after = 60};
	static uint8_t data[16384];
	int sv[2], rc = 0, sent = 0;

	make_pair(sv);
	struct ipc_loop *l = a.l = b.l = ipc_loop_new();
	struct ipc_conn *ca = ipc_conn_new(l, sv[0], "a", "b", &handlers, &a);
	CU_ASSERT_FATAL(ca != NULL);
	while (sent < 60 && !(rc = ipc_send(ca, (uint16_t)sent, data, sizeof data, sv, 1)))
		sent++;
	CU_ASSERT_EQUAL(sent, 60); /* more than the socket holds: the rest waits */
	struct ipc_conn *cb = ipc_conn_new(l, sv[1], "b", "a", &handlers, &b);
	CU_ASSERT_EQUAL(ipc_loop_run(l), 0);
	CU_ASSERT_EQUAL(b.frames, 60);
	CU_ASSERT_EQUAL(b.last, 59);
	ipc_conn_free(ca);
	ipc_conn_free(cb);
	ipc_loop_free(l);
}

static void test_queue_full(void)
{
	struct party a = {0};
	static uint8_t data[16384];
	int sv[2], sent = 0;

	make_pair(sv);
	a.l = ipc_loop_new();
	struct ipc_conn *c = ipc_conn_new(a.l, sv[0], "a", "b", &handlers, &a);
	while (sent < 1000 && ipc_send(c, 1, data, sizeof data, NULL, 0) == 0)
		sent++;
	CU_ASSERT(sent >= IPC_MAX_QUEUE && sent < 1000);
	CU_ASSERT_EQUAL(ipc_send(c, 1, NULL, 0, NULL, 0), -ENOBUFS);
	ipc_conn_free(c);
	close(sv[1]);
	ipc_loop_free(a.l);
}

static void test_close_and_garbage(void)
{
	struct party a = {0};
	int sv[2];

	for (int garbage = 0; garbage < 2; garbage++) {
		make_pair(sv);
		a = (struct party){.l = ipc_loop_new()};
		struct ipc_conn *c = ipc_conn_new(a.l, sv[0], "a", "b", &handlers, &a);
		if (garbage)
			CU_ASSERT_EQUAL(send(sv[1], "garbage", 7, 0), 7);
		close(sv[1]);
		ipc_loop_run(a.l);
		CU_ASSERT_EQUAL(a.closed, 1);
		CU_ASSERT_EQUAL(a.error, garbage ? -EPROTO : 0);
		CU_ASSERT_EQUAL(a.frames, 0);
		ipc_conn_free(c);
		ipc_loop_free(a.l);
	}
}

static void test_free_in_handler(void)
{
	struct party a = {.stop_after = 1, .free_in_handler = true};
	int sv[2], before = open_fds();

	make_pair(sv);
	a.l = ipc_loop_new();
	CU_ASSERT_FATAL(ipc_conn_new(a.l, sv[0], "a", "b", &handlers, &a) != NULL);
	ipc_send_frame(sv[1], 1, NULL, 0, sv, 1);
	ipc_send_frame(sv[1], 2, NULL, 0, NULL, 0);
	ipc_loop_run(a.l);
	CU_ASSERT_EQUAL(a.frames, 1);
	close(sv[1]);
	ipc_loop_free(a.l);
	CU_ASSERT_EQUAL(open_fds(), before);
}

static void on_timer(void *ctx)
{
	struct party *p = ctx;

	p->frames++;
	ipc_loop_stop(p->l);
}

static void test_timer(void)
{
	struct party a = {.l = ipc_loop_new()};
	struct ipc_watch *w = ipc_watch_timer(a.l, on_timer, &a);

	ipc_timer_set(w, 1);
	ipc_loop_run(a.l);
	CU_ASSERT_EQUAL(a.frames, 1);
	ipc_watch_free(w);
	ipc_watch_free(NULL);
	ipc_loop_free(a.l);
}

CU_ErrorCode suite_ipc(void)
{
	CU_pSuite s = CU_add_suite("ipc", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_round_trip) || !CU_ADD_TEST(s, test_limits) || !CU_ADD_TEST(s, test_malformed) ||
	    !CU_ADD_TEST(s, test_surplus_fds) || !CU_ADD_TEST(s, test_eof) || !CU_ADD_TEST(s, test_queue) ||
	    !CU_ADD_TEST(s, test_queue_full) || !CU_ADD_TEST(s, test_close_and_garbage) ||
	    !CU_ADD_TEST(s, test_free_in_handler) || !CU_ADD_TEST(s, test_timer))
		return CU_get_error();
	return CUE_SUCCESS;
}
