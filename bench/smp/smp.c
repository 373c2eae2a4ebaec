/*
 * Work for several CPUs: Debian's programs with two threads or processes, and loops of our own; one line a row.
 *
 *   smp [ROW...]     ROW group/name 's time in ns, 1, a result, the time again (as bench/work prints it)
 *
 * Invariant: what a row does is the same whatever the number of CPUs; only its time differs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- programs ---- */
static bool command(const char *line)
{
	int status, null;
	pid_t pid = fork();

	if (pid == 0) {
		null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		dup2(null, 1);
		execl("/bin/busybox", "sh", "-c", line, NULL);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Words with a skewed distribution: compresses about as English does. */
static void make_text(const char *path, size_t bytes)
{
	FILE *f = fopen(path, "w");
	uint32_t r = 1234;

	for (size_t done = 0; f && done < bytes; done += 6) {
		r = r * 1664525 + 1013904223;
		unsigned w = (r >> 8 & 255) * (r >> 16 & 255) >> 8;

		fprintf(f, "%c%c%s%c%c", 'a' + w % 26, 'a' + w / 26 % 26, w & 3 ? "en" : "at", 'a' + w * 7 % 26,
			r >> 29 ? ' ' : '\n');
	}
	if (f)
		fclose(f);
}

static void make_sources(void)
{
	char path[64];

	mkdir("/tmp/c", 0755);
	for (int k = 0; k < 8; k++) {
		snprintf(path, sizeof path, "/tmp/c/%d.c", k);
		FILE *f = fopen(path, "w");

		for (int i = 0; f && i < 15; i++)
			fprintf(f,
				"static long t%d[%d];\nlong w%d(const int *n, int limit)\n{\n\tlong sum = %d;\n"
				"\tfor (int i = 0; i < limit; i++) {\n\t\tif (n[i] %% %d == %d)\n\t\t\tsum += n[i] * %dL;\n"
				"\t\telse switch (n[i] & 3) {\n\t\tcase 0: sum ^= %d; break;\n\t\tcase 1: sum -= t%d[i %% %d]; break;\n"
				"\t\tdefault: t%d[i %% %d] = sum;\n\t\t}\n\t}\n\treturn sum;\n}\n",
				i, i + 10, i, i, i % 13 + 2, i % 2, i + 3, i * 17, i, i + 10, i, i + 10);
		if (f)
			fclose(f);
	}
}

/* ---- loops: each gives false when what came out is wrong ---- */
#define TWO(fn, arg)                                \
	do {                                        \
		pthread_t t_;                       \
		pthread_create(&t_, NULL, fn, arg); \
		fn(arg);                            \
		pthread_join(t_, NULL);             \
	} while (0)

static void *count(void *arg)
{
	for (int i = 0; i < 1000000; i++)
		__atomic_add_fetch((uint64_t *)arg, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static bool shared_counter(void)
{
	static uint64_t n __attribute__((aligned(64)));

	n = 0;
	TWO(count, &n);
	return n == 2000000;
}

static void *spin_lock(void *arg)
{
	static int lock __attribute__((aligned(64)));

	for (int i = 0; i < 200000; i++) {
		while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
			__builtin_ia32_pause();
		(*(volatile uint64_t *)arg)++;
		__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	}
	return NULL;
}

static bool shared_lock(void)
{
	static uint64_t n;

	n = 0;
	TWO(spin_lock, &n);
	return n == 400000;
}

static volatile bool stop;

static void *reader(void *arg)
{
	volatile uint8_t *p = arg;
	uint64_t sum = 0;

	while (!stop)
		for (int i = 0; i < 64; i++)
			sum += p[i * 4096];
	return (void *)(uintptr_t)(sum & 1);
}

/* @fn, alone or while another thread reads memory: its pages are away from that CPU, too. */
static bool beside(bool (*fn)(void), bool second)
{
	void *p = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	pthread_t t;
	bool ok;

	if (!second)
		return fn();
	stop = false;
	pthread_create(&t, NULL, reader, p);
	ok = fn();
	stop = true;
	pthread_join(t, NULL);
	munmap(p, 64 * 4096);
	return ok;
}

static bool do_mprotect(void)
{
	volatile char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (int i = 0; i < 5000; i++) {
		p[0] = (char)i;
		if (mprotect((void *)p, 4096, PROT_READ) || mprotect((void *)p, 4096, PROT_READ | PROT_WRITE))
			return false;
	}
	return !munmap((void *)p, 4096);
}

static bool do_munmap(void)
{
	for (int i = 0; i < 5000; i++) {
		volatile char *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		p[0] = p[4096] = p[8192] = 1;
		if (munmap((void *)p, 16384))
			return false;
	}
	return true;
}

static bool mprotect_alone(void)
{
	return beside(do_mprotect, false);
}
static bool mprotect_beside(void)
{
	return beside(do_mprotect, true);
}
static bool munmap_alone(void)
{
	return beside(do_munmap, false);
}
static bool munmap_beside(void)
{
	return beside(do_munmap, true);
}

static const struct row {
	const char *name, *line;
	bool (*fn)(void);
} rows[] = {
	{"scale/compile",
	 "ls /tmp/c/*.c | xargs -n 1 -P 2 sh -c '/usr/lib/gcc/x86_64-linux-gnu/12/cc1 -quiet -nostdinc -O1 -o /dev/null $0'",
	 NULL},
	{"scale/xz", "/usr/bin/xz -T2 --block-size=500000 -2 -c /tmp/text", NULL},
	{"scale/sysbench-cpu", "sysbench cpu --threads=2 --time=0 --events=600 run", NULL},
	{"scale/pigz", "pigz -p2 -c /tmp/text", NULL},
	{"scale/zstd", "zstd -q -T2 -B512K -9 -c /tmp/text", NULL},
	{"share/sysbench-mutex",
	 "sysbench mutex --threads=2 --time=0 --mutex-num=1 --mutex-locks=20000 --mutex-loops=100 run", NULL},
	{"share/sysbench-threads", "sysbench threads --threads=2 --time=0 --events=500 run", NULL},
	{"share/hackbench", "hackbench -g 2 -f 4 -l 100", NULL},
	{"share/counter", NULL, shared_counter},
	{"share/spin-lock", NULL, shared_lock},
	{"mm/mprotect-alone", NULL, mprotect_alone},
	{"mm/mprotect-beside", NULL, mprotect_beside},
	{"mm/munmap-alone", NULL, munmap_alone},
	{"mm/munmap-beside", NULL, munmap_beside},
};

static bool wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strstr(name, argv[i]))
			return true;
	return argc == 1;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_text("/tmp/text", 4000000);
	make_sources();
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const struct row *r = &rows[i];
		uint64_t begun, took;
		bool ok;

		if (!wanted(r->name, argc, argv))
			continue;
		printf("RUN %s\n", r->name);
		begun = now();
		ok = r->fn ? r->fn() : command(r->line);
		took = now() - begun;
		if (ok)
			printf("ROW %s %llu 1 ok %llu\n", r->name, (unsigned long long)took, (unsigned long long)took);
		else
			printf("BAD %s failed\n", r->name);
	}
	return 0;
}
