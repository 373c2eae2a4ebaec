/*
 * Runs rows: calibrates the number of iterations, measures, prints one line a row.
 *
 * Invariant: every row runs in its own process with a time limit, so a row that
 * crashes or hangs costs its own line only.
 *
 * usage: work [--rows=GLOB,...] [--target-ms=N] [--limit-ms=N] [--list]
 * A line is "RUN group/name", then "ROW group/name ns-per-iteration iterations result ns-since-RUN" or
 * "BAD group/name reason".
 */
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

static uint64_t target_ns = 60000000, limit_ns = 10000000000ull;

void work_check(int cond, const char *what)
{
	if (cond)
		return;
	fprintf(stderr, "work: %s\n", what);
	_exit(3);
}

void *work_pages(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	work_check(p != MAP_FAILED, "out of memory");
	return p;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

static uint64_t timed(const struct row *r, uint64_t n, uint64_t *result)
{
	uint64_t start = now_ns();

	*result = r->run(n);
	return now_ns() - start;
}

/* The next n for a run of n that took t: towards the target, by 2 to 16 at a time. */
static uint64_t grow(uint64_t n, uint64_t t)
{
	uint64_t by = target_ns * 5 / 4 / (t ? t : 1) + 1;

	return n * (by < 2 ? 2 : by > 16 ? 16 : by);
}

/*
 * Warm up with one iteration, grow n until a run takes the target time, then
 * take the best of three such runs.  Stops at the time limit with what it has.
 */
static void measure(const struct row *r, uint64_t begin)
{
	uint64_t n = 1, result, again, t, best;
	int i;

	if (r->setup)
		r->setup();
	t = timed(r, n, &result);
	if (t < limit_ns / 4)
		t = timed(r, n, &result);
	while (t < target_ns && now_ns() - begin < limit_ns / 2) {
		n = grow(n, t);
		t = timed(r, n, &result);
	}
	best = t;
	for (i = 0; i < 2 && now_ns() - begin + t < limit_ns / 2; i++) {
		t = timed(r, n, &again);
		work_check(again == result, "two runs gave two results");
		best = t < best ? t : best;
	}
	printf("ROW %s/%s %.3f %llu %016llx %llu\n", r->group, r->name, (double)best / n, (unsigned long long)n,
	       (unsigned long long)result, (unsigned long long)(now_ns() - begin));
}

/* Waits for pid until the hard limit, then kills it.  Returns its wait status. */
static int wait_limited(pid_t pid)
{
	uint64_t end = now_ns() + 4 * limit_ns;
	struct timespec nap = {0, 2000000};
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now_ns() > end) {
			kill(-pid, SIGKILL);
			kill(pid, SIGKILL);
			end = UINT64_MAX;
		}
		nanosleep(&nap, NULL);
	}
	return status;
}

static void run_row(const struct row *r)
{
	uint64_t begin = now_ns();
	pid_t pid;
	int status;

	if (r->usable && !r->usable()) {
		printf("BAD %s/%s not-offered-by-this-cpu\n", r->group, r->name);
		return;
	}
	printf("RUN %s/%s\n", r->group, r->name);
	fflush(stdout);
	pid = fork();
	work_check(pid >= 0, "cannot fork");
	if (pid == 0) {
		setpgid(0, 0);
		measure(r, begin);
		fflush(stdout);
		_exit(0);
	}
	status = wait_limited(pid);
	if (WIFSIGNALED(status))
		printf("BAD %s/%s signal-%d\n", r->group, r->name, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		printf("BAD %s/%s exit-%d\n", r->group, r->name, WEXITSTATUS(status));
	fflush(stdout);
}

/* True if "group/name" or the group alone matches one of the comma-separated globs. */
static int wanted(const struct row *r, const char *globs)
{
	char list[1024], full[128], *save = NULL, *g;

	if (!*globs)
		return 1;
	snprintf(list, sizeof(list), "%s", globs);
	snprintf(full, sizeof(full), "%s/%s", r->group, r->name);
	for (g = strtok_r(list, ",", &save); g; g = strtok_r(NULL, ",", &save))
		if (!fnmatch(g, full, 0) || !strcmp(g, r->group))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct row *const tables[] = {cpu_rows, fp_rows, memory_rows, kernel_rows, jit_rows, real_rows};
	const struct row *r;
	const char *globs = "";
	int i, list = 0;

	for (i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--rows=", 7))
			globs = argv[i] + 7;
		else if (!strncmp(argv[i], "--target-ms=", 12))
			target_ns = strtoull(argv[i] + 12, NULL, 10) * 1000000;
		else if (!strncmp(argv[i], "--limit-ms=", 11))
			limit_ns = strtoull(argv[i] + 11, NULL, 10) * 1000000;
		else if (!strcmp(argv[i], "--list"))
			list = 1;
		else if (!strcmp(argv[i], "--nothing"))
			return 0;
		else
			work_check(0, "usage: work [--rows=GLOB,...] [--target-ms=N] [--limit-ms=N] [--list]");
	}
	for (i = 0; i < 6; i++)
		for (r = tables[i]; r->name; r++)
			if (wanted(r, globs)) {
				if (list)
					printf("%s/%s\n", r->group, r->name);
				else
					run_row(r);
			}
	return 0;
}
