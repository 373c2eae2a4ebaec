/*
 * insn-diff: runs instructions on the host CPU and through the engine and
 * compares everything the architecture defines.  See README.
 *
 * Invariant: batch number and seed determine a batch completely.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "compare.h"
#include "engine.h"
#include "gen.h"
#include "native.h"
#include "report.h"
#include "seq.h"
#include "tally.h"
#include "worker.h"

enum kind { K_ONE64, K_SEQ64, K_ONE32, K_SEQ32, K_COUNT };

#define KINDS32 (1 << K_ONE32 | 1 << K_SEQ32)

struct run {
	uint64_t seed, cases, only_case;
	double seconds;
	int kinds; /* bit per enum kind */
	int verbose, lax, window;
	int self;            /* native against native: checks the test itself */
	int have_case, show; /* mismatches to print in full */
	const char *bytes, *failures;
	struct forms forms[2];
	struct batch *b;
	struct worker native, engine;
	struct tally tally;
};

static int start_workers(struct run *run)
{
	run->native = (struct worker){
		.name = "native", .b = run->b, .out = &run->b->native, .init = native_init, .run = native_run};
	run->engine = (struct worker){.name = "engine", .b = run->b, .out = &run->b->engine};
	run->engine.init = run->self ? native_init : engine_init;
	engine_exact_flags(!run->lax);
	engine_window(run->window);
	run->engine.run = run->self ? native_run : engine_run;
	run->native.verbose = run->engine.verbose = run->verbose;
	if (worker_start(&run->native) < 0)
		return -1;
	return worker_start(&run->engine);
}

/* The kind of the @n-th batch: the enabled ones in turn. */
static enum kind kind_of(const struct run *run, uint64_t n)
{
	unsigned count = (unsigned)__builtin_popcount((unsigned)run->kinds), skip = (unsigned)(n % count);

	for (int k = 0; k < K_COUNT; k++)
		if (run->kinds & (1 << k) && !skip--)
			return (enum kind)k;
	return K_ONE64;
}

static void make_batch(struct run *run, uint64_t n)
{
	enum kind k = kind_of(run, n);
	struct gen g = {.b = run->b, .wild = 22, .tests = 480, .states = 4, .tls = native_has_tls()};
	uint64_t turn = n / (unsigned)__builtin_popcount((unsigned)run->kinds);

	g.r.s = run->seed * 0x2545f4914f6cdd1dull + n;
	rnd(&g.r);
	g.t = &run->forms[k == K_ONE32 || k == K_SEQ32];
	g.cursor = (uint32_t)(turn * (unsigned)g.tests + run->seed * 977);
	if (k == K_ONE64 || k == K_ONE32)
		gen_singles(&g);
	else
		seq_batch(&g);
}

static int run_batch(struct run *run)
{
	if (worker_begin(&run->native) < 0 || worker_begin(&run->engine) < 0)
		return -1;
	return worker_finish(&run->native) < 0 || worker_finish(&run->engine) < 0 ? -1 : 0;
}

static void print_case(struct run *run, uint64_t id, uint32_t k, uint32_t diff)
{
	char names[96];

	compare_names(diff, names, sizeof names);
	printf("case %llu: %s\n", (unsigned long long)id, diff ? names : "equal");
	report_case(run->b, k, diff);
	if (run->bytes)
		printf("  again: insn-diff --seed=%llu --bytes=%s\n\n", (unsigned long long)run->seed, run->bytes);
	else
		printf("  again: insn-diff --seed=%llu --kinds=%d --case=%llu\n\n", (unsigned long long)run->seed,
		       run->kinds, (unsigned long long)id);
}

/* A host without FSGSBASE that switches tasks behind a load of a null selector gives back the base that arch_prctl() set, not
 * the cleared one: only a difference that comes each time is one of the engine's.  The batch runs again. */
static uint32_t compare_settled(struct run *run, uint32_t k)
{
	uint32_t d = compare_case(run->b, k, run->lax);

	for (int again = 0; (d & DIFF_BASE) && !native_keeps_bases() && again < 5; again++) {
		if (run_batch(run) < 0)
			break;
		d = compare_case(run->b, k, run->lax);
	}
	return d;
}

static void judge(struct run *run, uint64_t first)
{
	for (uint32_t k = 0; k < run->b->ncases; k++) {
		uint32_t d = compare_settled(run, k);
		const struct test *t = &run->b->test[run->b->tc[k].test];

		if (run->have_case && first + k != run->only_case)
			continue;
		if (run->have_case)
			print_case(run, first + k, k, d);
		else if (d && !(d & DIFF_SKIP) && run->show-- > 0)
			print_case(run, first + k, k, d);
		tally_case(&run->tally, run->b, &run->forms[t->flags & TEST_32BIT], k, first + k, d);
	}
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int run_all(struct run *run)
{
	double end = now() + run->seconds;
	uint64_t n = run->have_case ? run->only_case / BATCH_CASES : 0;

	for (;; n++) {
		make_batch(run, n);
		if (run_batch(run) < 0)
			return -1;
		judge(run, n * BATCH_CASES);
		if (run->have_case || (run->seconds > 0 ? now() >= end : run->tally.cases >= run->cases))
			return 0;
	}
}

static int run_bytes(struct run *run)
{
	struct gen g = {
		.b = run->b, .wild = 22, .states = 4, .tls = native_has_tls(), .t = &run->forms[!(run->kinds & 3)]};
	uint8_t bytes[16] = {0};
	unsigned v;

	for (unsigned i = 0; i < 15 && sscanf(run->bytes + 2 * i, "%2x", &v) == 1; i++) {
		bytes[i] = (uint8_t)v;
		if (!run->bytes[2 * i + 1] || !run->bytes[2 * i + 2])
			break;
	}
	g.r.s = run->seed;
	gen_reset(&g);
	for (unsigned i = 0; i < 200; i++)
		if (gen_bytes(&g, bytes, i) < 0) {
			fprintf(stderr, "insn-diff: not a valid instruction: %s\n", run->bytes);
			return -1;
		}
	if (run_batch(run) < 0)
		return -1;
	judge(run, 0);
	return 0;
}

static void usage(FILE *f)
{
	fputs("usage: insn-diff [options]\n"
	      "  --seed=N        start of the random numbers (default 1)\n"
	      "  --cases=N       cases to run (default 110000)\n"
	      "  --seconds=N     run for so long instead\n"
	      "  --kinds=MASK    1 single 64-bit, 2 sequences 64-bit, 4 single 32-bit, 8 sequences 32-bit (default 15)\n"
	      "  --case=K        run and print one case of a run with that seed and those kinds\n"
	      "  --bytes=HEX     test one instruction\n"
	      "  --show=N        mismatches to print in full (default 10)\n"
	      "  --failures=FILE write mismatches grouped by form\n"
	      "  --self          compare the host CPU with itself\n"
	      "  --lax-flags     the engine as guests have it by default: without --exact-flags; arithmetic flags are not\n"
	      "                  compared where a sequence faults\n"
	      "  --window        64-bit code reaches memory through a window instead of the soft TLB\n"
	      "  --verbose       tell which case a worker died on\n",
	      f);
}

static int parse(struct run *run, int argc, char **argv)
{
	static const struct option opts[] = {
		{"seed", 1, NULL, 's'},    {"cases", 1, NULL, 'n'},     {"seconds", 1, NULL, 't'},
		{"kinds", 1, NULL, 'k'},   {"case", 1, NULL, 'c'},      {"bytes", 1, NULL, 'b'},
		{"show", 1, NULL, 'm'},    {"failures", 1, NULL, 'f'},  {"self", 0, NULL, 'S'},
		{"verbose", 0, NULL, 'v'}, {"lax-flags", 0, NULL, 'l'}, {"help", 0, NULL, 'h'},
		{"window", 0, NULL, 'w'},  {NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 's': run->seed = strtoull(optarg, NULL, 0); break;
		case 'n': run->cases = strtoull(optarg, NULL, 0); break;
		case 't': run->seconds = atof(optarg); break;
		case 'k': run->kinds = atoi(optarg) & 15; break;
		case 'c': run->only_case = strtoull(optarg, NULL, 0), run->have_case = 1; break;
		case 'b': run->bytes = optarg; break;
		case 'm': run->show = atoi(optarg); break;
		case 'f': run->failures = optarg; break;
		case 'S': run->self = 1; break;
		case 'v': run->verbose = 1; break;
		case 'l': run->lax = 1; break;
		case 'w': run->window = 1; break;
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); return -1;
		}
	}
	return optind == argc && run->kinds ? 0 : (usage(stderr), -1);
}

int main(int argc, char **argv)
{
	static struct run run = {.seed = 1, .cases = 110000, .kinds = 15, .show = 10};
	int rc;

	if (parse(&run, argc, argv) < 0)
		return 2;
	if (run.kinds & KINDS32 && !native_has_32bit()) {
		puts("insn-diff: 32-bit code is left out: this host runs none");
		run.kinds &= ~KINDS32;
		if (!run.kinds)
			return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	run.b = mmap(NULL, sizeof *run.b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (run.b == MAP_FAILED || forms_build(&run.forms[0], 0) < 0 || forms_build(&run.forms[1], 1) < 0)
		return perror("insn-diff"), 2;
	printf("insn-diff: seed %llu, %u forms of 64-bit code, %u of 32-bit code\n", (unsigned long long)run.seed,
	       run.forms[0].n, run.forms[1].n);
	if (tally_init(&run.tally, run.forms) < 0 || start_workers(&run) < 0)
		return 2;
	rc = run.bytes ? run_bytes(&run) : run_all(&run);
	worker_stop(&run.native);
	worker_stop(&run.engine);
	if (rc < 0)
		return 2;
	if (run.failures)
		tally_write(&run.tally, run.failures, run.seed, run.kinds);
	return tally_close(&run.tally, run.native.deaths, run.engine.deaths);
}
