/*
 * A 32-bit program with the 32-bit C library: digits of pi by two threads.
 *
 * Invariant: prints the same digits on every correct machine; each thread
 * computes them all, and they must agree.
 * usage: pi32 DIGITS (a multiple of 4)
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(void *) == 4, "compile with -m32");

struct job {
	int digits;
	char *text;
};

/* Rabinowitz and Wagon's spigot, four digits at a time: pi = 2 + 1/3 (2 + 2/5 (2 + ...)). */
static void *job_run(void *arg)
{
	struct job *job = arg;
	int terms = job->digits / 4 * 14;
	int *a = malloc((size_t)(terms + 1) * sizeof(*a));
	char *out = job->text;
	int carry = 0;

	if (!a)
		return NULL;
	for (int i = 0; i <= terms; i++)
		a[i] = 2000;
	for (; terms > 0; terms -= 14) {
		int64_t d = 0;

		for (int i = terms; i > 0; i--) {
			d = d * i + (int64_t)a[i] * 10000;
			a[i] = (int)(d % (2 * i - 1));
			d /= 2 * i - 1;
		}
		out += sprintf(out, "%04d", carry + (int)(d / 10000));
		carry = (int)(d % 10000);
	}
	free(a);
	return job;
}

int main(int argc, char **argv)
{
	struct job jobs[2];
	pthread_t threads[2];
	int digits = argc > 1 ? atoi(argv[1]) : 200;

	for (int i = 0; i < 2; i++) {
		jobs[i] = (struct job){.digits = digits, .text = calloc(1, (size_t)digits + 8)};
		if (!jobs[i].text || pthread_create(&threads[i], NULL, job_run, &jobs[i]))
			return 1;
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	if (strcmp(jobs[0].text, jobs[1].text) != 0)
		return 1;
	puts(jobs[0].text);
	return 0;
}
