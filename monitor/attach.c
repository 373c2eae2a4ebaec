/*
 * `hvx-monitor console`.  Invariant: the terminal is restored before this
 * returns, and detaching never touches the guest.
 */
#include "monitor/attach.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "monitor/tty.h"

static volatile sig_atomic_t stop, winch;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static void on_winch(int sig)
{
	(void)sig;
	winch = 1;
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t m = write(fd, p, n);
		if (m < 0 && errno == EINTR && !stop)
			continue;
		if (m <= 0)
			return -1;
		p += m;
		n -= (size_t)m;
	}
	return 0;
}

static void help(void)
{
	static const char text[] = "\r\nCtrl-A x  detach; the guest runs on\r\nCtrl-A h  this help\r\n"
				   "Ctrl-A Ctrl-A  a Ctrl-A for the guest\r\n";

	write_all(1, text, sizeof text - 1);
}

/* False: detach. */
static bool from_user(int fd, bool raw, struct tty_escape *esc, struct pollfd *in)
{
	char buf[1024];
	ssize_t n = read(0, buf, sizeof buf);

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0) {
		in->fd = -1; /* a pipe has ended: go on showing */
		return !raw;
	}
	size_t len = (size_t)n;
	enum tty_action act = raw ? tty_filter(esc, buf, &len) : TTY_NONE;
	if (act == TTY_HELP)
		help();
	return write_all(fd, buf, len) == 0 && act != TTY_QUIT;
}

static void catch_signals(void)
{
	static const int sigs[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};
	struct sigaction sa = {.sa_handler = on_signal};

	for (size_t i = 0; i < sizeof sigs / sizeof sigs[0]; i++)
		sigaction(sigs[i], &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int attach_console(int fd, const char *name, void (*resized)(void *ctx), void *ctx)
{
	struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	struct tty_escape esc = {false};
	bool raw = isatty(0);
	char buf[4096];

	catch_signals();
	if (resized) {
		sigaction(SIGWINCH, &(struct sigaction){.sa_handler = on_winch}, NULL);
		winch = 1;
	}
	if (raw) {
		fprintf(stderr, "attached to %s; Ctrl-A x detaches\n", name);
		tty_raw(0);
	}
	while (!stop) {
		if (winch) {
			winch = 0;
			resized(ctx);
		}
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents) {
			ssize_t n = read(fd, buf, sizeof buf);
			tty_shown(buf, n > 0 ? (size_t)n : 0);
			if (n == 0 || (n < 0 && errno != EINTR) || (n > 0 && write_all(1, buf, (size_t)n)))
				break;
		}
		if (p[0].fd >= 0 && p[0].revents && !from_user(fd, raw, &esc, &p[0]))
			break;
	}
	tty_settle();
	tty_restore();
	if (raw)
		fprintf(stderr, "\ndetached from %s\n", name);
	return stop ? HVX_EXIT_KILLED : 0;
}
