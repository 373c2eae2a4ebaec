/*
 * Raw mode and Ctrl-A.  Invariant: whatever way the process ends that it can
 * notice, the terminal is as it was found, and nothing that was meant for the guest is left in its input for
 * the shell to read.
 */
#include "monitor/tty.h"

#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

#define CTRL_A 1

#define ANSWER_MS 200  /* without another byte of an answer: there is none any more */
#define RECENT_MS 2000 /* a question older than this has been answered */

static struct {
	int fd;
	bool asked;        /* the guest has sent the terminal what it may answer */
	uint64_t asked_ms; /* when it did last */
	volatile sig_atomic_t on;
	struct termios saved, raw;
} tty = {.fd = -1};

void tty_restore(void)
{
	if (!tty.on)
		return;
	tty.on = 0;
	tcsetattr(tty.fd, TCSAFLUSH, &tty.saved); /* what was typed, or answered, for the guest goes with it */
	log_set_raw(false);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void tty_shown(const char *buf, size_t n)
{
	static const char first[] = {0x1b, 0x05, (char)0x9b}; /* ESC, ENQ, CSI */

	for (size_t i = 0; i < sizeof first; i++)
		if (n && memchr(buf, first[i], n)) {
			tty.asked = true;
			tty.asked_ms = now_ms();
		}
}

void tty_settle(void)
{
	struct pollfd p = {.fd = tty.fd, .events = POLLIN};
	uint64_t start = now_ms();
	char buf[256];

	if (!tty.on)
		return;
	tcdrain(tty.fd);
	if (!tty.asked || start - tty.asked_ms > RECENT_MS)
		return;
	while (now_ms() - start < 5 * ANSWER_MS && poll(&p, 1, ANSWER_MS) == 1)
		if (read(tty.fd, buf, sizeof buf) <= 0)
			break;
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
