/*
 * Thousands of processes: fork, exec, pipes between them, threads.
 *
 * Invariant: every process hands back a number made from what it was given, so a
 * page or a register that got mixed up between processes is seen.
 * usage: forkexec [ROUNDS]
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 64
#define PAGE  4096

static int failures;

static void expect(int cond, const char *what)
{
	if (cond)
		return;
	failures++;
	printf("forkexec: failed: %s\n", what);
}

static int wait_for(pid_t pid)
{
	int status = -1;

	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Children write to memory shared copy-on-write; the parent's must stay as it was. */
static void copy_on_write(int rounds)
{
	uint8_t *mem = malloc(PAGES * PAGE);

	memset(mem, 0x42, PAGES * PAGE);
	for (int i = 0; i < rounds; i++) {
		pid_t pid = fork();
		int sum = 0;

		if (pid == 0) {
			for (int p = 0; p < PAGES; p++)
				mem[p * PAGE + i % PAGE] = i;
			for (int p = 0; p < PAGES; p++)
				sum += mem[p * PAGE + i % PAGE];
			_exit(sum == PAGES * (i & 255) ? i & 63 : 99);
		}
		if (wait_for(pid) != (i & 63)) {
			expect(0, "a forked child's memory");
			break;
		}
	}
	for (int k = 0; k < PAGES * PAGE; k++)
		if (mem[k] != 0x42) {
			expect(0, "the parent's memory after forks");
			break;
		}
	free(mem);
}

/* Executes this program anew; returns the child's status, which should be what it was given. */
static __attribute__((noinline)) int exec_self(const char *arg)
{
	pid_t pid = vfork();

	if (pid == 0) {
		execl("/proc/self/exe", "forkexec", "exit", arg, NULL);
		_exit(98);
	}
	return wait_for(pid);
}

static void execs(int rounds)
{
	char arg[16];

	for (int i = 0; i < rounds; i++) {
		snprintf(arg, sizeof(arg), "%d", i & 63);
		if (exec_self(arg) != (i & 63)) {
			expect(0, "an executed child's status");
			return;
		}
	}
}

/* A chain of processes, each adding its number to what passes through. */
static void pipeline(void)
{
	int in, fds[2], first[2], value = 5, depth = 40;

	expect(pipe(first) == 0, "pipe");
	in = first[0];
	for (int i = 0; i < depth; i++) {
		if (pipe(fds) != 0) {
			expect(0, "pipe");
			return;
		}
		if (fork() == 0) {
			if (read(in, &value, sizeof(value)) == sizeof(value)) {
				value += i;
				if (write(fds[1], &value, sizeof(value)) == sizeof(value))
					_exit(0);
			}
			_exit(1);
		}
		close(in);
		close(fds[1]);
		in = fds[0];
	}
	expect(write(first[1], &value, sizeof(value)) == sizeof(value), "write");
	value = 0;
	expect(read(in, &value, sizeof(value)) == sizeof(value) && value == 5 + depth * (depth - 1) / 2, "pipeline");
	while (wait(NULL) > 0)
		;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long shared, atomic;

static void *adder(void *arg)
{
	for (int i = 0; i < 5000; i++) {
		pthread_mutex_lock(&lock);
		shared += 3;
		pthread_mutex_unlock(&lock);
		__atomic_fetch_add(&atomic, 1, __ATOMIC_SEQ_CST);
	}
	return arg;
}

static void threads(void)
{
	pthread_t t[8];

	for (intptr_t i = 0; i < 8; i++)
		expect(pthread_create(&t[i], NULL, adder, (void *)i) == 0, "thread");
	for (intptr_t i = 0; i < 8; i++) {
		void *got = NULL;

		pthread_join(t[i], &got);
		expect(got == (void *)i, "a thread's result");
	}
	expect(shared == 8 * 5000 * 3 && atomic == 8 * 5000, "threads' sums");
}

int main(int argc, char **argv)
{
	int rounds = argc == 2 ? atoi(argv[1]) : 2000;

	if (argc == 3)
		return atoi(argv[2]);
	copy_on_write(rounds);
	execs(rounds);
	pipeline();
	threads();
	puts(failures ? "forkexec: FAILED" : "forkexec: passed");
	return failures != 0;
}
