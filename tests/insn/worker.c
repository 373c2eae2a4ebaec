/*
 * Worker processes.  They live through many batches (so that the engine's
 * translations do), share the batch with the parent, and may die: the case they
 * died on is known by the progress counter.
 *
 * Invariant: between worker_finish() and worker_begin() a worker is waiting in read().
 */
#include "worker.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANG_MS 60000

static void serve(struct worker *w, int cmd, int done)
{
	uint32_t from;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	w->init();
	while (read(cmd, &from, sizeof from) == sizeof from) {
		w->run(w->b, w->out, from);
		if (write(done, "", 1) != 1)
			break;
	}
	_exit(0);
}

int worker_start(struct worker *w)
{
	int to[2], back[2];

	if (pipe(to) < 0 || pipe(back) < 0) {
		perror("insn-diff: pipe");
		return -1;
	}
	fflush(NULL);
	w->pid = fork();
	if (w->pid == 0) {
		close(to[1]);
		close(back[0]);
		serve(w, to[0], back[1]);
	}
	close(to[0]);
	close(back[1]);
	w->cmd = to[1];
	w->done = back[0];
	if (w->pid < 0)
		perror("insn-diff: fork");
	return w->pid < 0 ? -1 : 0;
}

static void tell_death(const struct worker *w, uint32_t at, int status)
{
	if (w->verbose)
		printf("insn-diff: the %s worker ended on case %u of its batch, wait status %x\n", w->name, at, status);
}

static int send_from(struct worker *w, uint32_t from)
{
	return write(w->cmd, &from, sizeof from) == sizeof from ? 0 : -1;
}

int worker_begin(struct worker *w)
{
	w->out->progress = 0;
	w->out->log_used = 0;
	memset(w->out->out, 0, sizeof w->out->out[0] * w->b->ncases);
	return send_from(w, 0);
}

static int end_worker(struct worker *w)
{
	int status = 0;

	kill(w->pid, SIGKILL);
	waitpid(w->pid, &status, 0);
	close(w->cmd);
	close(w->done);
	w->pid = 0;
	return status;
}

void worker_stop(struct worker *w)
{
	if (w->pid > 0)
		end_worker(w);
}

/* 1: the batch is done; 0: died or hangs. */
static int wait_done(struct worker *w)
{
	struct pollfd p = {.fd = w->done, .events = POLLIN};
	uint32_t last = w->out->progress;
	char c;

	for (;;) {
		int n = poll(&p, 1, HANG_MS);

		if (n > 0)
			return read(w->done, &c, 1) == 1;
		if (n == 0 && w->out->progress == last) {
			w->out->out[last].outcome = OUT_TIMEOUT;
			return 0;
		}
		last = w->out->progress;
	}
}

int worker_finish(struct worker *w)
{
	while (!wait_done(w)) {
		uint32_t at = w->out->progress;

		w->deaths++;
		tell_death(w, at, end_worker(w));
		if (worker_start(w) < 0)
			return -1;
		if (at + 1 >= w->b->ncases)
			return 0;
		if (send_from(w, at + 1) < 0)
			return -1;
	}
	return 0;
}
