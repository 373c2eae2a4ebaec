/*
 * What the guest's kernel decides: system calls, switches, processes, faults, signals, tmpfs.
 *
 * Invariant: files only under /tmp, which both the guest and the native run mount as tmpfs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

#define EACH(n) for (uint64_t each_ = 0; each_ < (n); each_++)
#define PAGE    4096

static int fds[2], back[2];
static char buf[65536];

static uint64_t run_getppid(uint64_t n)
{
	EACH(n)
	for (int i = 0; i < 10; i++)
		syscall(SYS_getppid);
	return 1;
}

static uint64_t run_clock(uint64_t n)
{
	struct timespec ts;

	EACH(n)
	for (int i = 0; i < 20; i++)
		clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_nsec < 1000000000;
}

static void setup_zero(void)
{
	fds[0] = open("/dev/zero", O_RDONLY);
	work_check(fds[0] >= 0, "/dev/zero");
}

static uint64_t run_read_zero(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		sum = 0;
		for (int i = 0; i < 10; i++)
			sum += read(fds[0], buf, 4096);
	}
	return sum;
}

static uint64_t run_stat(uint64_t n)
{
	struct stat st;
	uint64_t ok = 0;

	EACH(n)
	{
		ok = 0;
		for (int i = 0; i < 10; i++)
			ok += stat("/proc", &st) == 0;
	}
	return ok;
}

static void setup_pipe(void)
{
	work_check(pipe(fds) == 0, "pipe");
}

static uint64_t run_pipe(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		work_check(write(fds[1], buf, 512) == 512, "write");
		sum = read(fds[0], buf, 512);
	}
	return sum;
}

/* The other side of the switching rows: sends back each byte it gets. */
static void echo_bytes(int in, int out)
{
	char c;

	while (read(in, &c, 1) == 1 && write(out, &c, 1) == 1)
		;
	_exit(0);
}

static void fork_echo(int in, int out, int mine_in, int mine_out)
{
	pid_t pid = fork();

	work_check(pid >= 0, "fork");
	if (pid == 0) {
		close(mine_in);
		close(mine_out);
		echo_bytes(in, out);
	}
	close(in);
	close(out);
	fds[0] = mine_in;
	fds[1] = mine_out;
}

static void one_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	CPU_ZERO(&set);
	CPU_SET(cpu < 0 ? 0 : cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void setup_switch(void)
{
	one_cpu();
	work_check(pipe(fds) == 0 && pipe(back) == 0, "pipe");
	fork_echo(fds[0], back[1], back[0], fds[1]);
}

static void setup_socket(void)
{
	int s[2];

	one_cpu();
	work_check(socketpair(AF_UNIX, SOCK_STREAM, 0, s) == 0, "socketpair");
	fork_echo(s[0], dup(s[0]), s[1], dup(s[1]));
}

static uint64_t run_switch(uint64_t n)
{
	char c = 7;

	EACH(n)
	work_check(write(fds[1], &c, 1) == 1 && read(fds[0], &c, 1) == 1, "ping");
	return c;
}

static uint32_t turn;

static void turn_wait(uint32_t mine)
{
	uint32_t now;

	while ((now = __atomic_load_n(&turn, __ATOMIC_SEQ_CST)) != mine)
		syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
}

static void turn_give(uint32_t other)
{
	__atomic_store_n(&turn, other, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *futex_peer(void *arg)
{
	for (;;) {
		turn_wait(1);
		turn_give(0);
	}
	return arg;
}

static void setup_futex(void)
{
	pthread_t thread;

	one_cpu();
	work_check(pthread_create(&thread, NULL, futex_peer, NULL) == 0, "thread");
}

static uint64_t run_futex(uint64_t n)
{
	EACH(n)
	{
		turn_give(1);
		turn_wait(0);
	}
	return turn;
}

static uint64_t run_fork(uint64_t n)
{
	int status = 0;

	EACH(n)
	{
		pid_t pid = fork();

		if (pid == 0)
			_exit(5);
		work_check(waitpid(pid, &status, 0) == pid, "wait");
	}
	return WEXITSTATUS(status);
}

static __attribute__((noinline)) int exec_nothing(void)
{
	int status = 0;
	pid_t pid = vfork();

	if (pid == 0) {
		execl("/proc/self/exe", "work", "--nothing", NULL);
		_exit(9);
	}
	work_check(waitpid(pid, &status, 0) == pid, "wait");
	return WEXITSTATUS(status);
}

static uint64_t run_exec(uint64_t n)
{
	uint64_t status = 0;

	EACH(n)
	status = exec_nothing();
	return status;
}

static void *thread_nothing(void *arg)
{
	return arg;
}

static uint64_t run_thread(uint64_t n)
{
	void *v = NULL;

	EACH(n)
	{
		pthread_t t;

		work_check(pthread_create(&t, NULL, thread_nothing, (void *)5) == 0, "thread");
		pthread_join(t, &v);
	}
	return (uintptr_t)v;
}

static uint64_t run_fault(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		volatile char *p = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		sum = 0;
		for (int i = 0; i < 64; i++) {
			p[i * PAGE] = i;
			sum += p[i * PAGE];
		}
		munmap((void *)p, 64 * PAGE);
	}
	return sum;
}

static uint64_t run_mmap(uint64_t n)
{
	uint64_t ok = 0;

	EACH(n)
	{
		void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		ok = munmap(p, PAGE) == 0;
	}
	return ok;
}

static char *page;

static void setup_page(void)
{
	page = work_pages(PAGE);
}

static uint64_t run_mprotect(uint64_t n)
{
	EACH(n)
	{
		mprotect(page, PAGE, PROT_READ);
		mprotect(page, PAGE, PROT_READ | PROT_WRITE);
		page[0] = 3;
	}
	return page[0];
}

static volatile uint64_t signals;

static void on_signal(int sig)
{
	signals += sig == SIGUSR1;
}

static void setup_signal(void)
{
	signal(SIGUSR1, on_signal);
}

static uint64_t run_signal(uint64_t n)
{
	pid_t self = getpid();

	signals = 0;
	EACH(n)
	kill(self, SIGUSR1);
	return signals == n;
}

static void on_segv(int sig)
{
	mprotect(page, PAGE, PROT_READ | PROT_WRITE);
	signals += sig == SIGSEGV;
}

static void setup_segv(void)
{
	setup_page();
	signal(SIGSEGV, on_segv);
}

static uint64_t run_segv(uint64_t n)
{
	signals = 0;
	EACH(n)
	{
		mprotect(page, PAGE, PROT_READ);
		*(volatile char *)page = 1;
	}
	return signals == n;
}

static uint64_t run_tmpfs(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	{
		int fd = open("/tmp/work-file", O_RDWR | O_CREAT | O_TRUNC, 0600);

		sum = write(fd, buf, 16384);
		sum += pread(fd, buf, 16384, 0);
		close(fd);
		unlink("/tmp/work-file");
	}
	return sum;
}

static uint64_t run_names(uint64_t n)
{
	uint64_t ok = 0;
	char name[64];

	EACH(n)
	{
		ok = 0;
		for (int i = 0; i < 10; i++) {
			snprintf(name, sizeof(name), "/tmp/work-dir-%d", i);
			ok += mkdir(name, 0700) == 0;
			ok += rename(name, "/tmp/work-dir-new") == 0;
			ok += rmdir("/tmp/work-dir-new") == 0;
		}
	}
	return ok;
}

static void setup_file(void)
{
	fds[0] = open("/tmp/work-file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	unlink("/tmp/work-file");
	work_check(write(fds[0], buf, sizeof(buf)) == sizeof(buf), "write");
}

static uint64_t run_pread(uint64_t n)
{
	uint64_t sum = 0;

	EACH(n)
	sum = pread(fds[0], buf, sizeof(buf), 0);
	return sum;
}

static uint64_t run_poll(uint64_t n)
{
	struct pollfd p[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLOUT, 0}};
	uint64_t ready = 0;

	EACH(n)
	ready = poll(p, 2, 0);
	return ready;
}

const struct row kernel_rows[] = {
	{"kernel", "getppid", NULL, run_getppid, NULL},
	{"kernel", "clock", NULL, run_clock, NULL},
	{"kernel", "read-zero", setup_zero, run_read_zero, NULL},
	{"kernel", "stat", NULL, run_stat, NULL},
	{"kernel", "poll", setup_pipe, run_poll, NULL},
	{"kernel", "pipe", setup_pipe, run_pipe, NULL},
	{"kernel", "pipe-switch", setup_switch, run_switch, NULL},
	{"kernel", "socket-switch", setup_socket, run_switch, NULL},
	{"kernel", "futex-switch", setup_futex, run_futex, NULL},
	{"kernel", "fork", NULL, run_fork, NULL},
	{"kernel", "exec", NULL, run_exec, NULL},
	{"kernel", "thread", NULL, run_thread, NULL},
	{"kernel", "page-fault", NULL, run_fault, NULL},
	{"kernel", "mmap", NULL, run_mmap, NULL},
	{"kernel", "mprotect", setup_page, run_mprotect, NULL},
	{"kernel", "signal", setup_signal, run_signal, NULL},
	{"kernel", "segv", setup_segv, run_segv, NULL},
	{"kernel", "tmpfs-file", NULL, run_tmpfs, NULL},
	{"kernel", "tmpfs-names", NULL, run_names, NULL},
	{"kernel", "tmpfs-read", setup_file, run_pread, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};
