/*
 * Frames with file descriptors over SOCK_SEQPACKET, and the one dispatch loop
 * every process runs.  The only user of libevent.  See ipc.c.
 */
#ifndef HVX_IPC_H
#define HVX_IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_source;

#define IPC_MAGIC     0x46585648u /* "HVXF" */
#define IPC_VERSION   1           /* of the protocol; both ends must say the same */
#define IPC_MAX_DATA  65536u
#define IPC_MAX_FDS   48
#define IPC_MAX_QUEUE 64 /* frames waiting for a slow peer */

struct ipc_header { /* little-endian, in front of each payload */
	uint32_t magic;
	uint16_t type;
	uint16_t nfds;
	uint32_t length; /* of the payload: the packet holds exactly that */
};
_Static_assert(sizeof(struct ipc_header) == 12, "wire format");

/* A received frame.  The receiver owns the descriptors it takes: set an entry to -1 to keep it;
 * the rest are closed when the handler returns. */
struct ipc_frame {
	uint16_t type;
	uint32_t len;
	const uint8_t *data;
	int nfds;
	int fds[IPC_MAX_FDS];
};

/* ---- the loop ---- */
struct ipc_loop;
struct ipc_watch;

struct ipc_loop *ipc_loop_new(void);
void ipc_loop_free(struct ipc_loop *l);
int ipc_loop_run(struct ipc_loop *l); /* until ipc_loop_stop(); 0 or a negative error */
void ipc_loop_stop(struct ipc_loop *l);
/* Calls @turned after each turn, when what was ready has been handled and before the loop waits again.  Before it runs. */
void ipc_loop_turned(struct ipc_loop *l, void (*turned)(void *ctx), void *ctx);

#define IPC_READ  1
#define IPC_WRITE 2
/* Calls @cb whenever @fd is ready, or whenever signal or timer fires.  NULL on failure (epoll refuses
 * regular files). Watches start enabled, timers stopped. */
struct ipc_watch *ipc_watch_fd(struct ipc_loop *l, int fd, int what, void (*cb)(void *ctx), void *ctx);
struct ipc_watch *ipc_watch_signal(struct ipc_loop *l, int sig, void (*cb)(void *ctx), void *ctx);
struct ipc_watch *ipc_watch_timer(struct ipc_loop *l, void (*cb)(void *ctx), void *ctx);
void ipc_watch_enable(struct ipc_watch *w, bool on);
void ipc_timer_set(struct ipc_watch *w, unsigned ms); /* one shot, replaces an earlier setting */
void ipc_watch_free(struct ipc_watch *w);             /* NULL is fine */

/* ---- connections ---- */
struct ipc_conn;
struct ipc_handlers {
	void (*frame)(void *ctx, struct ipc_conn *c, struct ipc_frame *f);
	/* The peer is gone (error 0), or it sent garbage (-EPROTO), or another negative error.
	 * The connection is dead; the handler frees it. */
	void (*closed)(void *ctx, struct ipc_conn *c, int error);
	const char *(*type_name)(uint16_t type); /* for the trace line; may be NULL */
};

/* Takes @fd over and makes it non-blocking.  @self and @peer are for the trace line and are copied. */
struct ipc_conn *ipc_conn_new(struct ipc_loop *l, int fd, const char *self, const char *peer,
			      const struct ipc_handlers *h, void *ctx);
void ipc_conn_free(struct ipc_conn *c);  /* closes the descriptor; allowed from within a handler */
void ipc_conn_drain(struct ipc_conn *c); /* handles now what has already arrived */
/* What is logged while the peer's messages are handled, trace lines included, counts against @s (log_charge()). */
void ipc_conn_charge(struct ipc_conn *c, struct log_source *s);
int ipc_conn_fd(const struct ipc_conn *c);
const char *ipc_conn_peer(const struct ipc_conn *c);

/* Sends or queues a frame; the descriptors stay the caller's.  -ENOBUFS when the peer does not read. */
int ipc_send(struct ipc_conn *c, uint16_t type, const void *data, size_t len, const int *fds, int nfds);

/* True when a frame is logged as "from -> to: type, length" (debug level). */
void ipc_set_trace(bool on);

/* ---- without a loop: start-up of children, the client commands ---- */
/* Blocking; 0 or a negative error (-EPROTO: not a frame, -EPIPE: end of file).  *buf must hold
 * IPC_MAX_DATA bytes and stays the caller's; the caller closes the descriptors. */
int ipc_recv_frame(int fd, uint8_t *buf, struct ipc_frame *f);
int ipc_send_frame(int fd, uint16_t type, const void *data, size_t len, const int *fds, int nfds);
void ipc_close_fds(struct ipc_frame *f);

#endif
