/*
 * Runs a fuzz target without libFuzzer: every seed and every given file, then mutations of them.
 * Understands the options of libFuzzer that check.sh and make soak-fuzz use:
 *
 *   PROGRAM [-seed=N] [-runs=N] [-max_total_time=SECONDS] [-max_len=N] [FILE | DIRECTORY ...]
 *
 * With files only and -runs=0 it repeats them.  An input that kills the program is left in crash-NAME.
 *
 * Invariant: the inputs are a function of the seed, the given files and the number of the run alone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mutate.h"

#define POOL    256
#define HANG    30 /* seconds that 64 inputs may take at most */
#define LINEAGE 16 /* a mutated input is mutated further so often at most */

static struct {
	uint8_t buf[FUZZ_MAX_LEN];
	size_t len;
} pool[POOL], now;
static unsigned n_pool;
static uint64_t seed = 1, runs = 20000, done;
static unsigned max_time;
static size_t max_len = 16384; /* of inputs made here */
static char crash_name[256];

/* The sanitizers' run-time asks for its options here: a report ends in SIGABRT, which is caught below. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "abort_on_error=1";
}

const char *__ubsan_default_options(void)
{
	return "abort_on_error=1:print_stacktrace=1";
}

/* Async-signal-safe. */
static void leave_input(void)
{
	int fd = open(crash_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	static const char said[] = "the input that did it is in ";

	if (fd < 0 || write(fd, now.buf, now.len) != (ssize_t)now.len)
		return;
	close(fd);
	if (write(2, said, sizeof said - 1) < 0 || write(2, crash_name, strlen(crash_name)) < 0 ||
	    write(2, "\n", 1) < 0)
		return;
}

static void on_signal(int sig)
{
	leave_input();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void catch_crashes(const char *program)
{
#ifdef __SANITIZE_ADDRESS__
	static const int sigs[] = {SIGABRT, SIGALRM}; /* the others are reported by the run-time, which then aborts */
#else
	static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
#endif
	const char *name = strrchr(program, '/');

	snprintf(crash_name, sizeof crash_name, "crash-%s", name ? name + 1 : program);
	for (size_t i = 0; i < sizeof sigs / sizeof sigs[0]; i++)
		signal(sigs[i], on_signal);
}

static void run_one(void)
{
	/* at its exact size, so that a read beyond the end is seen */
	uint8_t *data = malloc(now.len ? now.len : 1);

	if (!data)
		abort();
	memcpy(data, now.buf, now.len);
	if (done++ % 64 == 0)
		alarm(HANG);
	LLVMFuzzerTestOneInput(data, now.len);
	free(data);
}

static void add(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0 || (n = read(fd, now.buf, FUZZ_MAX_LEN)) < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	close(fd);
	now.len = (size_t)n;
	run_one();
	if (n_pool < POOL)
		pool[n_pool++] = now;
}

static void add_all(const char *path)
{
	struct dirent **e;
	char file[4096];
	struct stat st;
	int n;

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		add(path);
		return;
	}
	n = scandir(path, &e, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (e[i]->d_name[0] != '.') {
			snprintf(file, sizeof file, "%s/%s", path, e[i]->d_name);
			add(file);
		}
		free(e[i]);
	}
	if (n >= 0)
		free(e);
}

static void add_seeds(void)
{
	for (unsigned i = 0; n_pool < POOL; i++) {
		memset(now.buf, 0, sizeof now.buf);
		now.len = fuzz_seed(i, now.buf);
		if (!now.len)
			return;
		run_one();
		pool[n_pool++] = now;
	}
}

static bool number(const char *arg, const char *name, uint64_t *v)
{
	size_t n = strlen(name);
	char *end;

	if (strncmp(arg, name, n))
		return false;
	*v = strtoull(arg + n, &end, 10);
	if (!arg[n] || *end) {
		fprintf(stderr, "%s: not a number\n", arg);
		exit(2);
	}
	return true;
}

static void options(int argc, char **argv)
{
	uint64_t v;
	bool runs_given = false;

	for (int i = 1; i < argc; i++) {
		if (argv[i][0] != '-')
			continue;
		if (number(argv[i], "-seed=", &seed))
			continue;
		if (number(argv[i], "-runs=", &runs)) {
			runs_given = true;
		} else if (number(argv[i], "-max_total_time=", &v)) {
			max_time = (unsigned)v;
		} else if (number(argv[i], "-max_len=", &v) && v >= 1 && v <= FUZZ_MAX_LEN) {
			max_len = v;
		} else {
			fprintf(stderr,
				"usage: %s [-seed=N] [-runs=N] [-max_total_time=S] [-max_len=N] [FILE | DIRECTORY ...]\n",
				argv[0]);
			exit(2);
		}
	}
	if (max_time && !runs_given)
		runs = UINT64_MAX;
}

static void run_mutations(void)
{
	struct rng r = {seed};
	time_t end = time(NULL) + max_time;
	unsigned other, depth = 0;

	for (uint64_t i = 0; i < runs && n_pool; i++) {
		if (max_time && i % 64 == 0 && time(NULL) >= end)
			break;
		if (!depth || one_in(&r, 4)) {
			now = pool[below(&r, n_pool)];
			depth = below(&r, LINEAGE);
		} else {
			depth--;
		}
		other = below(&r, n_pool);
		if (now.len > max_len)
			now.len = max_len;
		now.len = mutate(&r, now.buf, now.len, max_len, pool[other].buf, pool[other].len);
		run_one();
	}
}

int main(int argc, char **argv)
{
	catch_crashes(argv[0]);
	options(argc, argv);
	printf("%s: seed %llu\n", argv[0], (unsigned long long)seed);
	fflush(stdout);
	for (int i = 1; i < argc; i++)
		if (argv[i][0] != '-')
			add_all(argv[i]);
	add_seeds();
	run_mutations();
	printf("%s: %llu inputs, 0 crashes\n", argv[0], (unsigned long long)done);
	return 0;
}
