/*
 * Raw mode and Ctrl-A.  Invariant: whatever way the process ends that it can
 * notice, the terminal is as it was found.
 */
#include "monitor/tty.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "common/log.h"

#define CTRL_A 1

static struct {
	int fd;
	volatile sig_atomic_t on;
	struct termios saved, raw;
} tty = {.fd = -1};

void tty_restore(void)
{
	if (!tty.on)
		return;
	tty.on = 0;
	tcsetattr(tty.fd, TCSADRAIN, &tty.saved);
	log_set_raw(false);
}

void tty_again(void)
{
	if (tty.fd < 0)
		return;
	tcsetattr(tty.fd, TCSADRAIN, &tty.raw);
	tty.on = 1;
	log_set_raw(true);
}

static void on_fatal(int sig)
{
	tty_restore();
	raise(sig); /* SA_RESETHAND: now it kills */
}

bool tty_raw(int fd)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
	struct sigaction sa = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};

	if (tcgetattr(fd, &tty.saved) < 0)
		return false;
	tty.raw = tty.saved;
	cfmakeraw(&tty.raw);
	if (tty.fd < 0) {
		atexit(tty_restore);
		for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
			sigaction(fatal[i], &sa, NULL);
	}
	tty.fd = fd;
	tty_again();
	return true;
}

enum tty_action tty_filter(struct tty_escape *e, char *buf, size_t *len)
{
	enum tty_action act = TTY_NONE;
	size_t out = 0;

	for (size_t i = 0; i < *len; i++) {
		char ch = buf[i];
		if (!e->armed) {
			if (ch == CTRL_A)
				e->armed = true;
			else
				buf[out++] = ch;
			continue;
		}
		e->armed = false;
		if (ch == 'x' || ch == 'X')
			act = TTY_QUIT;
		else if (ch == 'h' || ch == 'H' || ch == '?')
			act = act == TTY_NONE ? TTY_HELP : act;
		else if (ch == CTRL_A)
			buf[out++] = CTRL_A;
		/* anything else after Ctrl-A is dropped with it */
	}
	*len = out;
	return act;
}
