/*
 * Relay between two pipes to the vcpu and up to two users: the primary one
 * (terminal, pty or file) and an attached client.  Invariant: output to the primary
 * terminal or file is never dropped (the vcpu waits instead), output to a pty or a client that
 * does not read is; while a file cannot be written, OUT_ROOM bytes are kept, what is lost
 * beyond them is told, and the guest runs on.
 */
#include "monitor/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "common/log.h"
#include "monitor/tty.h"

#define OUT_ROOM (64u << 10)
#define IN_ROOM  4096u
#define HISTORY  (16u << 10)
#define RETRY_MS 1000 /* a file that could not be written is tried again so often */
#define CHUNK    512u /* a blocking terminal takes this much once it is writable */

struct user {
	struct console *c;
	int in, out; /* -1: none */
	bool patient, escapes, eof;
	bool file, failing; /* out is a file; the last write to it failed */
	uint64_t lost;      /* bytes while it failed */
	struct tty_escape esc;
	struct ipc_watch *rd, *wr, *tick; /* tick: input from a regular file */
	struct ipc_watch *again;          /* of a file that fails */
	char buf[OUT_ROOM];
	size_t len;
};

struct console {
	struct ipc_loop *loop;
	struct user primary, client;
	int in_rd, in_wr, out_rd, out_wr; /* pipes: ours are in_wr and out_rd */
	struct ipc_watch *in_watch, *out_watch;
	char in_buf[IN_ROOM];
	size_t in_len;
	char history[HISTORY];
	size_t hist_len;
	bool started, eof;
	int pty_slave;
	char what[CONFIG_PATH_MAX + 8];
	void (*quit)(void *ctx);
	void (*resized)(void *ctx, unsigned columns, unsigned rows); /* may be NULL */
	unsigned columns, rows;                                      /* last told */
	void *ctx;
};

static void update(struct console *c);

static void user_close(struct user *u)
{
	ipc_watch_free(u->rd);
	ipc_watch_free(u->wr);
	ipc_watch_free(u->tick);
	ipc_watch_free(u->again);
	if (u->in > 2)
		close(u->in);
	if (u->out > 2 && u->out != u->in)
		close(u->out);
	u->rd = u->wr = u->tick = u->again = NULL;
	u->in = u->out = -1;
	u->len = 0;
}

/* ---- towards the user ---- */

/* A full disk, a quota, a limit of file sizes: it may pass. */
static void file_fails(struct user *u, int error)
{
	if (!u->failing)
		log_warn("console on %s: %s: output is kept and tried again", u->c->what, strerror(error));
	u->failing = true;
	ipc_timer_set(u->again, RETRY_MS);
}

static void file_works(struct user *u)
{
	if (!u->failing)
		return;
	log_warn("console on %s: written again, %llu bytes of output were lost", u->c->what,
		 (unsigned long long)u->lost);
	u->failing = false;
	u->lost = 0;
}

static void user_gone(struct user *u)
{
	u->len = 0;
	if (u == &u->c->client)
		user_close(u);
	else
		u->out = -1;
}

static void user_flush(struct user *u)
{
	while (u->len && u->out >= 0) {
		struct pollfd p = {.fd = u->out, .events = POLLOUT};
		if (poll(&p, 1, 0) != 1 || !(p.revents & (POLLOUT | POLLERR)))
			return;
		ssize_t n = write(u->out, u->buf, u->len < CHUNK ? u->len : CHUNK);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0 && u->file) {
			file_fails(u, n ? errno : EIO);
			return;
		}
		if (n <= 0) { /* the reader is gone: the guest runs on */
			user_gone(u);
			return;
		}
		if (u->escapes)
			tty_shown(u->buf, (size_t)n);
		u->len -= (size_t)n;
		memmove(u->buf, u->buf + n, u->len);
	}
	if (!u->len)
		file_works(u);
}

static void on_user_writable(void *ctx)
{
	struct user *u = ctx;

	user_flush(u);
	update(u->c);
}

static void user_put(struct user *u, const char *buf, size_t n)
{
	if (u->out < 0)
		return;
	if (n > OUT_ROOM - u->len) {
		u->lost += n - (OUT_ROOM - u->len);
		n = OUT_ROOM - u->len;
	}
	memcpy(u->buf + u->len, buf, n);
	u->len += n;
	user_flush(u);
}

static void remember(struct console *c, const char *buf, size_t n)
{
	if (n >= HISTORY) {
		buf += n - HISTORY;
		n = HISTORY;
	}
	if (c->hist_len + n > HISTORY) {
		size_t cut = c->hist_len + n - HISTORY;
		memmove(c->history, c->history + cut, c->hist_len - cut);
		c->hist_len -= cut;
	}
	memcpy(c->history + c->hist_len, buf, n);
	c->hist_len += n;
}

/* How much of the guest's output can be taken without dropping any that must not be. */
static size_t output_room(const struct console *c)
{
	const struct user *u = &c->primary;

	return u->patient && !u->failing && u->out >= 0 ? OUT_ROOM - u->len : OUT_ROOM;
}

static void on_guest_output(void *ctx)
{
	struct console *c = ctx;
	char buf[16384];
	size_t room = output_room(c);

	ssize_t n = room ? read(c->out_rd, buf, room < sizeof buf ? room : sizeof buf) : -1;
	if (n > 0) {
		remember(c, buf, (size_t)n);
		user_put(&c->primary, buf, (size_t)n);
		user_put(&c->client, buf, (size_t)n);
	} else if (n == 0) {
		c->eof = true;
	}
	update(c);
}

/* ---- towards the guest ---- */

static void guest_flush(struct console *c)
{
	if (!c->in_len)
		return;
	ssize_t n = write(c->in_wr, c->in_buf, c->in_len);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		n = (ssize_t)c->in_len; /* the vcpu is gone */
	if (n > 0) {
		c->in_len -= (size_t)n;
		memmove(c->in_buf, c->in_buf + n, c->in_len);
	}
}

static void on_guest_room(void *ctx)
{
	struct console *c = ctx;

	guest_flush(c);
	update(c);
}

void console_show_help(struct console *c)
{
	static const char text[] = "\r\nCtrl-A x  quit: end the guest at once\r\nCtrl-A h  this help\r\n"
				   "Ctrl-A Ctrl-A  a Ctrl-A for the guest\r\n";

	user_put(&c->primary, text, sizeof text - 1);
}

void console_look_size(struct console *c)
{
	struct winsize w;

	if (!c->resized || !c->started || c->primary.in < 0 || ioctl(c->primary.in, TIOCGWINSZ, &w) < 0)
		return;
	if (!w.ws_col || !w.ws_row || (w.ws_col == c->columns && w.ws_row == c->rows))
		return;
	c->columns = w.ws_col;
	c->rows = w.ws_row;
	c->resized(c->ctx, c->columns, c->rows);
}

void console_on_size(struct console *c, void (*resized)(void *ctx, unsigned columns, unsigned rows))
{
	c->resized = resized;
}

static void on_user_input(void *ctx)
{
	struct user *u = ctx;
	struct console *c = u->c;
	size_t room = IN_ROOM - c->in_len;
	char *at = c->in_buf + c->in_len;

	ssize_t n = room ? read(u->in, at, room) : -1;
	if (n < 0 && (errno == EAGAIN || errno == EINTR || !room))
		return;
	if (n <= 0) {
		if (u == &c->client)
			user_close(u);
		u->eof = true;
		update(c);
		return;
	}
	if (u == &c->primary)
		console_look_size(c); /* a pty's user does not signal us */
	size_t len = (size_t)n;
	enum tty_action act = u->escapes ? tty_filter(&u->esc, at, &len) : TTY_NONE;
	c->in_len += len;
	guest_flush(c);
	update(c);
	if (act == TTY_HELP)
		console_show_help(c);
	else if (act == TTY_QUIT)
		c->quit(c->ctx);
}

static void update_user(struct console *c, struct user *u)
{
	bool want = u->in >= 0 && !u->eof && c->started && c->in_len < IN_ROOM;

	ipc_watch_enable(u->rd, want);
	if (u->tick && want)
		ipc_timer_set(u->tick, 1);
	ipc_watch_enable(u->wr, u->out >= 0 && u->len > 0);
}

/* Watches exactly what can make progress. */
static void update(struct console *c)
{
	update_user(c, &c->primary);
	update_user(c, &c->client);
	ipc_watch_enable(c->in_watch, c->in_len > 0);
	ipc_watch_enable(c->out_watch, !c->eof && output_room(c) > 0);
}

/* ---- set-up ---- */

static void user_init(struct user *u, struct console *c)
{
	u->c = c;
	u->in = u->out = -1;
	u->len = 0;
	u->eof = false;
}

static void user_watch(struct user *u)
{
	if (u->in >= 0) {
		u->rd = ipc_watch_fd(u->c->loop, u->in, IPC_READ, on_user_input, u);
		if (!u->rd) /* a regular file is always ready and epoll does not take it */
			u->tick = ipc_watch_timer(u->c->loop, on_user_input, u);
	}
	if (u->out >= 0)
		u->wr = ipc_watch_fd(u->c->loop, u->out, IPC_WRITE, on_user_writable, u);
	struct stat st;
	u->file = u->out >= 0 && fstat(u->out, &st) == 0 && S_ISREG(st.st_mode);
	if (u->file)
		u->again = ipc_watch_timer(u->c->loop, on_user_writable, u);
}

static int open_pty(struct console *c, char *err, size_t len)
{
	char name[64];
	struct termios t;
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof name) != 0)
		goto bad;
	/* Held open so that the master never sees a hang-up between two users. */
	c->pty_slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (c->pty_slave < 0 || tcgetattr(c->pty_slave, &t) < 0)
		goto bad;
	cfmakeraw(&t);
	tcsetattr(c->pty_slave, TCSANOW, &t);
	c->primary.in = c->primary.out = fd;
	snprintf(c->what, sizeof c->what, "pty %s", name);
	return 0;
bad:
	snprintf(err, len, "cannot make a pty: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static int open_file(struct console *c, const char *path, char *err, size_t len)
{
	c->primary.out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	if (c->primary.out < 0) {
		snprintf(err, len, "console %.300s: %s", path, strerror(errno));
		return -1;
	}
	c->primary.patient = true;
	snprintf(c->what, sizeof c->what, "file %s", path);
	return 0;
}

static int open_primary(struct console *c, enum config_console where, const char *path, char *err, size_t len)
{
	switch (where) {
	case CONSOLE_PTY: return open_pty(c, err, len);
	case CONSOLE_FILE: return open_file(c, path, err, len);
	default:
		c->primary.in = 0;
		c->primary.out = 1;
		c->primary.patient = true;
		c->primary.escapes = isatty(0);
		snprintf(c->what, sizeof c->what, "stdio");
		return 0;
	}
}

static int nonblocking(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static int open_pipes(struct console *c)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	c->in_rd = in[0];
	c->in_wr = in[1];
	if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0)
		return -1;
	c->out_rd = out[0];
	c->out_wr = out[1];
	return 0;
}

struct console *console_new(struct ipc_loop *l, enum config_console where, const char *path, void (*quit)(void *ctx),
			    void *ctx, char *err, size_t len)
{
	struct console *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->loop = l;
	c->quit = quit;
	c->ctx = ctx;
	c->in_rd = c->in_wr = c->out_rd = c->out_wr = c->pty_slave = -1;
	user_init(&c->primary, c);
	user_init(&c->client, c);
	snprintf(err, len, "out of descriptors or memory");
	if (open_pipes(c) < 0 || open_primary(c, where, path, err, len) < 0)
		goto bad;
	c->in_watch = ipc_watch_fd(l, c->in_wr, IPC_WRITE, on_guest_room, c);
	c->out_watch = ipc_watch_fd(l, c->out_rd, IPC_READ, on_guest_output, c);
	if (!c->in_watch || !c->out_watch)
		goto bad;
	user_watch(&c->primary);
	update(c);
	return c;
bad:
	console_free(c);
	return NULL;
}

/* The last try. */
static void file_end(struct user *u)
{
	user_flush(u);
	if (u->failing)
		log_error("console on %s: the last %llu bytes of output are lost", u->c->what,
			  (unsigned long long)(u->lost + u->len));
}

void console_free(struct console *c)
{
	if (!c)
		return;
	if (c->primary.again)
		file_end(&c->primary);
	user_close(&c->primary);
	user_close(&c->client);
	ipc_watch_free(c->in_watch);
	ipc_watch_free(c->out_watch);
	const int fds[] = {c->in_rd, c->in_wr, c->out_rd, c->out_wr, c->pty_slave};
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (c->started)
		tty_settle();
	tty_restore();
	free(c);
}

int console_vcpu_in(const struct console *c)
{
	return c->in_rd;
}

int console_vcpu_out(const struct console *c)
{
	return c->out_wr;
}

void console_handed_over(struct console *c)
{
	close(c->in_rd);
	close(c->out_wr);
	c->in_rd = c->out_wr = -1;
}

void console_start(struct console *c)
{
	if (c->started)
		return;
	c->started = true;
	if (c->primary.escapes && !tty_raw(0))
		c->primary.escapes = false;
	console_look_size(c);
	update(c);
}

int console_attach(struct console *c)
{
	int sv[2];

	if (c->client.in >= 0)
		return -EBUSY;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	nonblocking(sv[0]); /* the client's end stays blocking */
	user_init(&c->client, c);
	c->client.in = c->client.out = sv[0];
	user_watch(&c->client);
	user_put(&c->client, c->history, c->hist_len);
	update(c);
	return sv[1];
}

bool console_drained(const struct console *c)
{
	return c->eof && !c->client.len &&
	       (!c->primary.len || c->primary.out < 0 || !c->primary.patient || c->primary.failing);
}

const char *console_describe(const struct console *c)
{
	return c->what;
}
