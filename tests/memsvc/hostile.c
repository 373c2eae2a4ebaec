/*
 * A real, sealed hvx-memsvc whose vcpu or monitor sends what it should not.
 *
 * Invariants: what the vcpu sends wrong costs it its channel and one line in the log, and the monitor is served as before;
 * what the monitor sends wrong ends the process with its status, and one line or a FAILED; of pages and descriptors
 * nothing has changed in either case.
 *
 * Usage: hostile
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/ipc.h"
#include "common/sandbox.h"
#include "proto/pack.h"
#include "proto/shm.h"

#define RAM      (4u << 20)
#define PAGES    (RAM / SHM_PAGE)
#define PATIENCE 20000 /* ms for what must happen */
#define GUILTY   "error: the vcpu's channel: "

struct packet { /* as the kernel takes it */
	struct ipc_header h;
	uint8_t data[IPC_MAX_DATA + 64];
	size_t len; /* of it all */
	int nfds;
};

static struct {
	pid_t pid;
	int control, vcpu, log, ram_fd;
	uint8_t *shm;
	bool more_lines; /* the log may say more */
	unsigned fds;    /* that it had when it was ready */
	const char *name;
} t;
static uint8_t buf[IPC_MAX_DATA];
static struct packet pk;
static struct ipc_frame f;
static unsigned tests;

static void die(const char *what)
{
	char line[400];
	ssize_t n = t.log > 0 ? pread(t.log, line, sizeof line - 1, 0) : 0;

	line[n > 0 ? n : 0] = '\0';
	printf("not ok %u - %s: %s\n# log: %s\n", ++tests, t.name, what, line);
	if (t.pid > 0)
		kill(t.pid, SIGKILL);
	exit(1);
}

#define CHECK(cond)                 \
	do {                        \
		if (!(cond))        \
			die(#cond); \
	} while (0)

/* ---- the process ---- */

static void exec_it(int control, uint32_t ns)
{
	const char *path = getenv("HVX_MEMSVC");
	const int keep[] = {3};
	char arg[64];

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), ctl = fcntl(control, F_DUPFD, 10),
	    log = fcntl(t.log, F_DUPFD, 10);
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0 || dup2(ctl, 3) < 0)
		_exit(121);
	sandbox_close_fds(keep, 1);
	snprintf(arg, sizeof arg, "--namespaces=0x%x", ns);
	execl(path ? path : "./hvx-memsvc", "hvx-memsvc", "--name=test", "--sandbox=strict", arg, (char *)NULL);
	_exit(127);
}

static void expect(int fd, uint16_t type)
{
	struct pollfd p = {fd, POLLIN, 0};

	CHECK(poll(&p, 1, PATIENCE) == 1);
	CHECK(ipc_recv_frame(fd, buf, &f) == 0);
	CHECK(f.type == type);
}

static void launch(const char *name)
{
	int sv[2];
	uint32_t ns;

	t.name = name;
	t.log = memfd_create("log", MFD_CLOEXEC);
	CHECK(t.log >= 0 && !socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	t.pid = sandbox_fork(SANDBOX_NAMESPACES, &ns);
	if (!t.pid)
		exec_it(sv[1], ns);
	close(sv[1]);
	t.control = sv[0];
	t.vcpu = t.ram_fd = -1;
	t.more_lines = false;
	CHECK(t.pid > 0);
	expect(t.control, MSG_HELLO);
}

static unsigned count_fds(void)
{
	char path[40];
	unsigned n = 0;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)t.pid);
	DIR *d = opendir(path);
	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void ask(uint16_t type, uint16_t answer)
{
	CHECK(!ipc_send_frame(t.control, type, NULL, 0, NULL, 0));
	expect(t.control, answer);
}

static void stats(struct msg_mem_stats *s)
{
	ask(MSG_MEM_STATS_GET, MSG_MEM_STATS);
	CHECK(!unpack_mem_stats(f.data, f.len, s));
}

/* Ready, with a channel to the vcpu and every page of RAM there. */
static void start(const char *name)
{
	struct msg_mem_config cfg = {.ram_size = RAM, .channel = true};
	int sv[2];

	launch(name);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	CHECK(!ipc_send_frame(t.control, MSG_MEM_CONFIG, buf, (size_t)pack_mem_config(&cfg, buf, sizeof buf), &sv[1],
			      1));
	close(sv[1]);
	t.vcpu = sv[0];
	expect(t.control, MSG_SEALED);
	ask(MSG_MEM_GET, MSG_MEM_REGION);
	CHECK(f.nfds == 2);
	t.ram_fd = f.fds[0];
	t.shm = mmap(NULL, shm_layout(RAM).total, PROT_READ | PROT_WRITE, MAP_SHARED, f.fds[1], 0);
	CHECK(t.shm != MAP_FAILED);
	close(f.fds[1]);
	CHECK(!posix_fallocate(t.ram_fd, 0, RAM));
	t.fds = count_fds();
}

static int wait_end(void)
{
	int st;

	for (int ms = 0; ms < PATIENCE; ms++) {
		if (waitpid(t.pid, &st, WNOHANG) == t.pid) {
			t.pid = 0;
			return st;
		}
		usleep(1000);
	}
	die("it does not end");
	return 0;
}

/* One line of log at most, which begins so; NULL: none. */
static void check_log(const char *begin)
{
	char log[2000];
	ssize_t n = pread(t.log, log, sizeof log - 1, 0);

	CHECK(n >= 0);
	log[n] = '\0';
	if (!begin) {
		CHECK(n == 0);
		return;
	}
	if (t.more_lines) {
		CHECK(strstr(log, begin));
		return;
	}
	CHECK(!strncmp(log, begin, strlen(begin)));
	CHECK(strchr(log, '\n') == log + n - 1);
}

static void drop(void)
{
	int *const all[] = {&t.control, &t.vcpu, &t.log, &t.ram_fd};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		if (*all[i] >= 0)
			close(*all[i]);
		*all[i] = -1;
	}
	printf("ok %u - %s\n", ++tests, t.name);
}

/* The monitor hangs up: it ends well. */
static void end(const char *log)
{
	close(t.control);
	t.control = -1;
	CHECK(wait_end() == 0);
	check_log(log);
	drop();
}

/* ---- packets ---- */

static void packet(uint16_t type, size_t len)
{
	memset(&pk.h, 0, sizeof pk.h);
	pk.h = (struct ipc_header){IPC_MAGIC, type, 0, (uint32_t)len};
	pk.len = sizeof pk.h + len;
	pk.nfds = 0;
}

static struct msg_mem_change valid(enum msg_mem_op op)
{
	return (struct msg_mem_change){.id = 1, .op = op, .nranges = 1, .range = {{3, 2}}};
}

static void change(const struct msg_mem_change *m)
{
	int n = pack_mem_change(m, pk.data, sizeof pk.data);

	CHECK(n > 0);
	packet(MSG_MEM_CHANGE, (size_t)n);
}

static ssize_t put(int fd)
{
	struct iovec v = {&pk, pk.len};
	union {
		char b[CMSG_SPACE(IPC_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} ctl = {0};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

	if (pk.nfds) {
		m.msg_control = ctl.b;
		m.msg_controllen = CMSG_SPACE((size_t)pk.nfds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		*c = (struct cmsghdr){CMSG_LEN((size_t)pk.nfds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		for (int i = 0; i < pk.nfds; i++)
			memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &t.log, sizeof(int));
	}
	return sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* ---- what can be wrong with a packet, whoever sends it ---- */

static void cut_header(void)
{
	change(&(struct msg_mem_change){.op = MEM_OP_RETURN_ALL});
	pk.len = 5;
}

static void cut_payload(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	change(&m);
	pk.len -= 3;
}

static void longer_than_said(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	change(&m);
	pk.h.length -= 2;
}

static void absurd_length(void)
{
	packet(MSG_MEM_CHANGE, 0);
	pk.h.length = UINT32_MAX;
}

static void too_long(void)
{
	packet(MSG_MEM_CHANGE, IPC_MAX_DATA + 32);
}

static void wrong_magic(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	change(&m);
	pk.h.magic = IPC_MAGIC + 1; /* as another version's would be */
}

static void promised_descriptors(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	change(&m);
	pk.h.nfds = 2;
}

static void hidden_descriptors(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	change(&m);
	pk.nfds = 3;
}

static void unasked_descriptors(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	change(&m);
	pk.h.nfds = 3;
	pk.nfds = 3;
}

static void unknown_type(void)
{
	packet(9999, 0);
}

static void type_zero(void)
{
	packet(0, 0);
}

static void junk(void)
{
	packet(MSG_MEM_CHANGE, 100);
	memset(pk.data, 0xff, 100);
}

/* ---- what only a vcpu can get wrong ---- */

static void anothers_request(void)
{
	packet(MSG_MEM_GET, 0);
}

static void own_answer(void)
{
	struct msg_mem_changed m = {1};

	packet(MSG_MEM_CHANGED, (size_t)pack_mem_changed(&m, pk.data, sizeof pk.data));
}

static void no_operation(void)
{
	struct msg_mem_change m = valid(MEM_OP_COUNT);

	change(&m);
}

static void no_ranges(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	m.nranges = 0;
	change(&m);
}

static void ranges_for_all(void)
{
	struct msg_mem_change m = valid(MEM_OP_RETURN_ALL);

	change(&m);
}

static void beyond_ram(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	m.range[0].first = PAGES;
	m.range[0].count = 1;
	change(&m);
}

static void over_the_end(void)
{
	struct msg_mem_change m = valid(MEM_OP_REPORT);

	m.range[0].first = PAGES - 1;
	m.range[0].count = 2;
	change(&m);
}

static void wraps(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	m.range[0].first = UINT64_MAX;
	m.range[0].count = 2;
	change(&m);
}

static void empty_range(void)
{
	struct msg_mem_change m = valid(MEM_OP_BALLOON);

	m.range[0].count = 0;
	change(&m);
}

static void empty_payload(void)
{
	packet(MSG_MEM_CHANGE, 0);
}

static const struct nonsense {
	const char *name;
	void (*make)(void);
	bool vcpu_only;
} all[] = {
	{"half a header", cut_header, false},
	{"a payload cut short", cut_payload, false},
	{"more than was said", longer_than_said, false},
	{"a length of 4 GiB", absurd_length, false},
	{"a packet that is too long", too_long, false},
	{"another magic", wrong_magic, false},
	{"descriptors promised and not sent", promised_descriptors, false},
	{"descriptors sent and not told", hidden_descriptors, false},
	{"descriptors that nobody asked for", unasked_descriptors, false},
	{"an unknown type", unknown_type, false},
	{"type 0", type_zero, false},
	{"bytes that are no message", junk, false},
	{"what only the monitor may ask", anothers_request, true},
	{"an answer", own_answer, true},
	{"no such operation", no_operation, true},
	{"no pages", no_ranges, true},
	{"pages where all are meant", ranges_for_all, true},
	{"pages beyond RAM", beyond_ram, true},
	{"pages over the end of RAM", over_the_end, true},
	{"a range that wraps", wraps, true},
	{"an empty range", empty_range, true},
	{"an empty message", empty_payload, true},
};

static void hung_up(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};

	CHECK(poll(&p, 1, PATIENCE) == 1);
	int rc = ipc_recv_frame(fd, buf, &f);
	CHECK(rc == -EPIPE || rc == -ECONNRESET);
}

static void from_vcpu(const struct nonsense *n)
{
	struct msg_mem_change good = valid(MEM_OP_BALLOON);
	struct msg_mem_stats s;
	char name[100];

	snprintf(name, sizeof name, "the vcpu: %s", n->name);
	start(name);
	change(&good);
	CHECK(put(t.vcpu) == (ssize_t)pk.len);
	expect(t.vcpu, MSG_MEM_CHANGED);
	n->make();
	CHECK(put(t.vcpu) == (ssize_t)pk.len);
	change(&(struct msg_mem_change){.id = 2, .op = MEM_OP_RETURN_ALL});
	put(t.vcpu); /* it may be gone */
	hung_up(t.vcpu);
	stats(&s);
	CHECK(s.pages_ballooned == 2 && s.pages_punched == 2 && s.pages_present == PAGES - 2);
	CHECK(count_fds() == t.fds - 1); /* its end of the channel */
	end(GUILTY);
}

static void from_monitor(const struct nonsense *n)
{
	char name[100];

	snprintf(name, sizeof name, "the monitor: %s", n->name);
	start(name);
	n->make();
	CHECK(put(t.control) == (ssize_t)pk.len);
	int st = wait_end();
	/* what is no frame says no more than that the other end is mad: it ends as if that had gone */
	bool frame =
		n->make == unasked_descriptors || n->make == unknown_type || n->make == type_zero || n->make == junk;
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == (frame ? HVX_EXIT_FAIL : 0));
	check_log(frame ? "error: message " : "error: control socket: ");
	drop();
}

/* ---- the configuration ---- */

static void configuration(const char *name, uint64_t size, bool balloon, int nfds, uint16_t type, const char *log)
{
	/* packed by hand: pack_mem_config() is for what is in range */
	uint8_t *p = pk.data;

	launch(name);
	*p++ = 1 << 3; /* ram_size */
	do
		*p++ = (uint8_t)((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
	while (size >>= 7);
	*p++ = 2 << 3; /* balloon */
	*p++ = balloon;
	packet(type, (size_t)(p - pk.data));
	pk.h.nfds = (uint16_t)nfds;
	pk.nfds = nfds;
	CHECK(put(t.control) == (ssize_t)pk.len);
	if (!log)
		expect(t.control, MSG_FAILED);
	int st = wait_end();
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == HVX_EXIT_FAIL);
	check_log(log);
	drop();
}

/* ---- the vcpu otherwise ---- */

static void test_silent_vcpu(void)
{
	struct msg_mem_stats s;

	start("the vcpu hangs up");
	close(t.vcpu);
	t.vcpu = -1;
	stats(&s);
	CHECK(!s.pages_punched);
	end(NULL);
}

/* It asks and does not read: what waits for it is bounded. */
static void test_deaf_vcpu(void)
{
	struct msg_mem_change m = valid(MEM_OP_REPORT);
	struct msg_mem_stats s;
	unsigned sent = 0;

	start("a vcpu that does not read");
	change(&m);
	while (sent < 100000 && put(t.vcpu) == (ssize_t)pk.len)
		sent++;
	CHECK(sent < 100000);
	stats(&s);
	CHECK(s.pages_punched <= 2ull * sent && s.pages_ballooned == 0);
	CHECK(count_fds() == t.fds - 1);
	end(GUILTY);
}

/* ---- who holds on to pages for ever ---- */

static struct shm_epochs *epochs(void)
{
	return (struct shm_epochs *)(void *)(t.shm + shm_layout(RAM).epochs);
}

static void enter(unsigned slot)
{
	atomic_fetch_add(&epochs()->slot[slot].held[atomic_load(&epochs()->now) & 1], 1);
}

static void ask_change(uint32_t id, enum msg_mem_op op)
{
	struct msg_mem_change m = {.id = id, .op = op, .nranges = op != MEM_OP_RETURN_ALL, .range = {{3, 2}}};

	change(&m);
	CHECK(put(t.vcpu) == (ssize_t)pk.len);
}

static void changed(uint32_t id)
{
	struct msg_mem_changed m;

	expect(t.vcpu, MSG_MEM_CHANGED);
	CHECK(!unpack_mem_changed(f.data, f.len, &m) && m.id == id);
}

static void test_stuck(void)
{
	struct msg_mem_stats s;

	start("a device that never lets go");
	enter(40);
	ask_change(1, MEM_OP_BALLOON);
	ask_change(2, MEM_OP_RETURN_ALL); /* a reset comes in between */
	stats(&s);                        /* it goes on serving others */
	changed(1);                       /* and, at last, */
	changed(2);
	stats(&s);
	CHECK(s.pages_punched == 2 && s.pages_ballooned == 0 && s.pages_present == PAGES - 2);
	ask_change(3, MEM_OP_REPORT);
	changed(3);
	CHECK(atomic_load(&epochs()->slot[40].held[0]) == 1); /* nobody else changed that */
	end("warning: a device or the vcpu holds on");
	start("a control region full of nonsense");
	memset((void *)epochs(), 0xff, sizeof *epochs());
	ask_change(1, MEM_OP_BALLOON);
	changed(1);
	ask_change(2, MEM_OP_REPORT);
	changed(2);
	stats(&s);
	CHECK(s.pages_punched == 4 && s.pages_ballooned == 2);
	end("warning: a device or the vcpu holds on");
}

/* One that lets go in the end: not a byte is punched before, and the order is kept. */
static void test_waits(void)
{
	struct msg_mem_stats s;

	start("a request in flight");
	enter(33);
	ask_change(1, MEM_OP_BALLOON);
	do /* until it has heard of it */
		stats(&s);
	while (!s.pages_ballooned);
	CHECK(atomic_load(&epochs()->now) == 1); /* and waits */
	t.more_lines = true;                     /* on a very busy host it has given up */
	atomic_store(&epochs()->slot[33].held[0], 0);
	changed(1);
	stats(&s);
	CHECK(s.pages_punched == 2);
	enter(34);
	kill(t.pid, SIGSTOP);
	for (uint32_t i = 2; i < 5; i++) /* more than anybody has a reason for */
		ask_change(i, MEM_OP_BALLOON);
	kill(t.pid, SIGCONT);
	hung_up(t.vcpu);
	stats(&s);
	CHECK(s.pages_ballooned == 2);
	end(GUILTY);
}

int main(void)
{
	printf("TAP version 13\n");
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		from_vcpu(&all[i]);
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		if (!all[i].vcpu_only)
			from_monitor(&all[i]);
	configuration("no RAM", 0, false, 0, MSG_MEM_CONFIG, NULL);
	configuration("half a page of RAM", RAM + 2048, false, 0, MSG_MEM_CONFIG, NULL);
	configuration("more RAM than there can be", UINT64_MAX & ~4095ull, false, 0, MSG_MEM_CONFIG, NULL);
	configuration("a balloon without a channel", RAM, true, 0, MSG_MEM_CONFIG, NULL);
	configuration("a channel without a balloon", RAM, false, 1, MSG_MEM_CONFIG, NULL);
	configuration("a question before the configuration", RAM, false, 0, MSG_MEM_GET,
		      "error: the monitor sent message 17");
	test_silent_vcpu();
	test_deaf_vcpu();
	test_stuck();
	test_waits();
	printf("1..%u\n", tests);
	return 0;
}
