/*
 * `top`: the VMs of this user and what they use, again and again.  Invariant: on every way out but SIGKILL the terminal is as
 * it was.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "monitor/client.h"
#include "monitor/usage.h"

#define VMS_MAX 1024

struct look {
	struct usage vm[VMS_MAX];
	unsigned n;
	uint64_t ns; /* when */
};

struct top {
	struct client *c;
	struct look looks[2], *now, *before;
	struct usage_row rows[VMS_MAX];
	enum usage_key by;
	bool screen, quit;
	struct termios was;
};

static volatile sig_atomic_t ended;

static void on_signal(int sig)
{
	ended = sig;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void look_at(void *ctx, const char *name)
{
	static struct msg_counters counters; /* large */
	static struct msg_status status;
	struct top *t = ctx;
	struct look *l = t->now;

	if (l->n == VMS_MAX || ended)
		return;
	int rc = client_sample(t->c, name, &status, &counters);
	if (rc == -EAGAIN) {
		l->vm[l->n] = (struct usage){.state = "silent"};
		snprintf(l->vm[l->n++].name, sizeof l->vm[0].name, "%s", name);
	} else if (!rc) {
		usage_of(&l->vm[l->n++], &status, &counters);
	}
}

static void look(struct top *t)
{
	struct look *old = t->now;

	t->now = t->before;
	t->before = old;
	t->now->n = 0;
	t->now->ns = now_ns();
	client_each(t->c, look_at, t);
}

static const struct usage *before(const struct top *t, const char *name)
{
	for (unsigned i = 0; i < t->before->n; i++)
		if (!strcmp(t->before->vm[i].name, name))
			return &t->before->vm[i];
	return NULL;
}

static unsigned lines_of(const struct top *t)
{
	struct winsize w;

	if (!t->screen)
		return UINT32_MAX;
	return ioctl(1, TIOCGWINSZ, &w) == 0 && w.ws_row > 3 ? w.ws_row - 2u : 22;
}

static void show(struct top *t)
{
	const struct look *l = t->now;
	const unsigned most = lines_of(t);

	for (unsigned i = 0; i < l->n; i++)
		usage_row(&t->rows[i], before(t, l->vm[i].name), &l->vm[i], l->ns - t->before->ns);
	usage_sort(t->rows, l->n, t->by);
	if (t->screen)
		printf("\033[H\033[J");
	usage_header(stdout);
	for (unsigned i = 0; i < l->n && i < most; i++)
		usage_print(stdout, &t->rows[i]);
	fflush(stdout);
}

/* A key, within what is left of the interval. */
static void wait_key(struct top *t, uint64_t until)
{
	struct pollfd p = {.fd = 0, .events = POLLIN};
	uint64_t now = now_ns();
	char c;

	if (poll(&p, t->screen, now < until ? (int)((until - now) / 1000000) + 1 : 0) <= 0)
		return;
	if (read(0, &c, 1) != 1 || c == 'q' || c == 3)
		t->quit = true;
	else if (usage_key(c, &t->by))
		show(t);
}

static void pass(struct top *t, unsigned seconds)
{
	uint64_t until = now_ns() + seconds * 1000000000ull;

	while (now_ns() < until && !ended && !t->quit)
		wait_key(t, until);
}

static void begin_screen(struct top *t)
{
	struct termios raw;

	t->screen = isatty(0) && isatty(1) && tcgetattr(0, &t->was) == 0;
	if (!t->screen)
		return;
	raw = t->was;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	tcsetattr(0, TCSANOW, &raw);
	printf("\033[?1049h");
}

static void end_screen(const struct top *t)
{
	if (!t->screen)
		return;
	printf("\033[?1049l");
	fflush(stdout);
	tcsetattr(0, TCSANOW, &t->was);
}

int client_top(struct client *c)
{
	static struct top t = {.by = USAGE_CPU};
	const struct cli *cli = client_cli(c);
	static const int sigs[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

	t.c = c;
	t.now = &t.looks[0];
	t.before = &t.looks[1];
	for (size_t i = 0; i < sizeof sigs / sizeof sigs[0]; i++)
		sigaction(sigs[i], &(struct sigaction){.sa_handler = on_signal}, NULL);
	begin_screen(&t);
	unsigned count = cli->count ? cli->count : t.screen ? UINT32_MAX : 1;
	look(&t);
	if (t.screen)
		show(&t);
	while (count-- && !ended && !t.quit) {
		pass(&t, cli->interval);
		if (ended || t.quit)
			break;
		look(&t);
		show(&t);
	}
	end_screen(&t);
	return ferror(stdout) ? HVX_EXIT_FAIL : 0;
}
