/*
 * The processes of a disk under test.  Invariant: hvx-blk gets what the monitor would give it and nothing else, and
 * neither it nor qemu-nbd outlives the test.
 */
#include "tests/blk/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/sandbox.h"
#include "monitor/backend.h"
#include "monitor/image.h"

void vm_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "tests/blk: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(1);
}

/* ---- starting ---- */

static void refuse_uring(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);

	if (!f || seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_setup), 0) || seccomp_load(f))
		_exit(120);
	seccomp_release(f);
}

static void exec_blk(struct vm *v, int control, uint32_t ns)
{
	const char *path = getenv("HVX_BLK");
	char arg[64];
	const int keep[] = {3};

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (v->set.fsize)
		setrlimit(RLIMIT_FSIZE, &(struct rlimit){v->set.fsize, RLIM_INFINITY});
	if (v->set.no_uring)
		refuse_uring();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), ctl = fcntl(control, F_DUPFD, 10),
	    log = fcntl(v->log, F_DUPFD, 10);
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0 || dup2(ctl, 3) < 0)
		_exit(121);
	sandbox_close_fds(keep, 1);
	snprintf(arg, sizeof arg, "--namespaces=0x%x", ns);
	if (!path)
		path = "./hvx-blk";
	execl(path, "hvx-blk", "--name=test", "--sandbox=strict", arg, (char *)NULL);
	_exit(127);
}

static int memfd_page(void)
{
	int fd = memfd_create("bell", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, SHM_PAGE) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		vm_die("doorbells: %s", strerror(errno));
	return fd;
}

static int start_nbd(struct vm *v)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char err[256];
	static struct ipc_loop *loop; /* its log lines wait in their pipe */

	if (!loop)
		loop = ipc_loop_new();
	snprintf(a.sun_path, sizeof a.sun_path, "%.90s.nbd", v->set.image);
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
	    client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(a.sun_path);
	if (server < 0 || client < 0 || bind(server, (struct sockaddr *)&a, sizeof a) || listen(server, 1) ||
	    connect(client, (struct sockaddr *)&a, sizeof a))
		vm_die("%s: %s", a.sun_path, strerror(errno));
	unlink(a.sun_path);
	const struct disk_option d = {
		.format = v->set.format, .readonly = v->set.readonly, .snapshot = v->set.snapshot};
	v->nbd = (struct proc){.program = "qemu-nbd", .name = "qemu-nbd"};
	if (backend_run_nbd(loop, &v->nbd, "test", true, &d, v->image, server, err, sizeof err))
		vm_die("%s", err);
	close(server);
	return client;
}

static void add(struct msg_dev_config *m, int *fds, enum msg_dev_fd kind, int fd)
{
	if (fd < 0)
		return;
	m->fds[m->nfds] = kind;
	fds[m->nfds++] = fd;
}

static void open_image(struct vm *v)
{
	static struct disk_option d;
	char err[512];

	memset(&d, 0, sizeof d);
	snprintf(d.path, sizeof d.path, "%s", v->set.image);
	d.format = v->set.format;
	d.readonly = v->set.readonly;
	d.snapshot = v->set.snapshot;
	/* After a kill the kernel lets go of an io_uring's files a little later. */
	for (int ms = 0; image_open(&d, NULL, 0, &v->image, err, sizeof err); ms++) {
		if (ms == VM_LIMIT)
			vm_die("%s", err);
		usleep(1000);
	}
}

/* What the monitor sends, with its own ends closed after that. */
static void configure(struct vm *v, int backend, int page)
{
	struct msg_dev_config m = {.id = "disk0", .ram_size = VM_RAM, .kind = ROLE_BLK};
	int sv[2], call[2], fds[MSG_FDS_MAX];
	int overlay = v->set.snapshot ? image_overlay() : -1;

	v->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (v->kick < 0 || pipe2(call, O_CLOEXEC | O_NONBLOCK) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		vm_die("channel: %s", strerror(errno));
	v->channel = sv[0];
	v->call = call[0];
	m.blk = (struct msg_blk_config){.readonly = v->set.readonly,
					.writeback = !v->set.through,
					.pause_error = v->set.pause,
					.queues = 1,
					.nbd = v->set.format != FORMAT_RAW,
					.snapshot = v->set.snapshot,
					.serial = "test"};
	add(&m, fds, DEV_FD_RAM, v->ram.ram_fd);
	add(&m, fds, DEV_FD_CONTROL, v->ram.control_fd);
	add(&m, fds, DEV_FD_CHANNEL, sv[1]);
	add(&m, fds, DEV_FD_PAGE, page);
	add(&m, fds, DEV_FD_KICK, v->kick);
	add(&m, fds, DEV_FD_CALL, call[1]);
	add(&m, fds, DEV_FD_BACKEND, backend);
	add(&m, fds, DEV_FD_OVERLAY, overlay);
	int n = pack_dev_config(&m, v->buf, sizeof v->buf);
	if (n < 0 || ipc_send_frame(v->control, MSG_DEV_CONFIG, v->buf, (size_t)n, fds, (int)m.nfds))
		vm_die("configuration: %s", strerror(errno));
	close(sv[1]);
	close(call[1]);
	close(backend);
	if (overlay >= 0)
		close(overlay);
}

void vm_show(struct vm *v)
{
	char buf[2048];
	ssize_t n;

	if (v->nbd.pid > 0)
		lines_take(&v->nbd.log);
	lseek(v->log, 0, SEEK_SET);
	while ((n = read(v->log, buf, sizeof buf)) > 0)
		fwrite(buf, 1, (size_t)n, stderr);
}

void vm_expect(struct vm *v, int fd, uint16_t type)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (poll(&p, 1, VM_LIMIT) == 1 && !ipc_recv_frame(fd, v->buf, &v->f) && v->f.type == type)
		return;
	vm_show(v);
	int st = 0;
	bool gone = waitpid(v->blk, &st, WNOHANG) == v->blk;
	vm_die("hvx-blk did not send %s but %u; it %s, status 0x%x", pack_type_name(type), v->f.type,
	       gone ? "is gone" : "lives", st);
}

static void memory(struct vm *v)
{
	if (!v->ram.size &&
	    (ram_create(&v->ram, VM_RAM) || memory_map(&v->mem, v->ram.ram_fd, v->ram.control_fd, -1, VM_RAM)))
		vm_die("guest memory: %s", strerror(errno));
}

void vm_start(struct vm *v, const struct vm_setup *s, uint64_t seed)
{
	int sv[2], page = memfd_page();
	uint32_t ns;

	v->set = *s;
	if (v->set.format == FORMAT_AUTO)
		v->set.format = FORMAT_RAW;
	v->r.s = seed;
	v->flying = 0;
	v->nbd.pid = 0;
	memory(v);
	open_image(v);
	int backend;
	if (v->set.format != FORMAT_RAW) {
		backend = start_nbd(v);
	} else {
		backend = image_take(v->image);
		v->image = NULL;
	}
	v->bell = mmap(NULL, SHM_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
	v->log = memfd_create("log", MFD_CLOEXEC);
	if (v->bell == MAP_FAILED || v->log < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		vm_die("starting: %s", strerror(errno));
	v->blk = sandbox_fork(SANDBOX_NAMESPACES, &ns);
	if (!v->blk)
		exec_blk(v, sv[1], ns);
	close(sv[1]);
	if (v->blk < 0)
		vm_die("cannot fork: %s", strerror(-v->blk));
	v->control = sv[0];
	vm_expect(v, v->control, MSG_HELLO);
	configure(v, backend, page);
	close(page);
	vm_expect(v, v->control, MSG_SEALED);
	vm_expect(v, v->channel, MSG_VIRTIO_OFFER);
	if (unpack_virtio_offer(v->f.data, v->f.len, &v->offer))
		vm_die("malformed offer");
}

/* ---- the end ---- */

static void close_all(struct vm *v)
{
	close(v->control);
	close(v->channel);
	close(v->kick);
	close(v->call);
	close(v->log);
	image_free(v->image);
	v->image = NULL;
	munmap(v->bell, SHM_PAGE);
}

/* It must end within the limit. */
static int reap(pid_t pid, const char *name)
{
	int st;

	for (int ms = 0; ms < VM_LIMIT; ms++) {
		if (waitpid(pid, &st, WNOHANG) == pid)
			return st;
		usleep(1000);
	}
	kill(pid, SIGKILL);
	vm_die("%s does not end", name);
}

static void reap_nbd(struct vm *v)
{
	if (v->nbd.pid > 0)
		reap(v->nbd.pid, "qemu-nbd");
	lines_close(&v->nbd.log);
	v->nbd = (struct proc){0};
}

void vm_kill(struct vm *v, bool blk, bool nbd)
{
	if (nbd && v->nbd.pid > 0)
		kill(v->nbd.pid, SIGKILL);
	if (!blk)
		return;
	kill(v->blk, SIGKILL);
	int st = reap(v->blk, "hvx-blk");
	if (!WIFSIGNALED(st) || WTERMSIG(st) != SIGKILL) {
		vm_show(v);
		vm_die("hvx-blk ended by itself, status 0x%x", st);
	}
	reap_nbd(v);
	vm_look(v);
	close_all(v);
}

void vm_stop(struct vm *v)
{
	shutdown(v->control, SHUT_RDWR);
	int st = reap(v->blk, "hvx-blk");
	if (st) {
		vm_show(v);
		vm_die("hvx-blk ended with status 0x%x", st);
	}
	reap_nbd(v);
	close_all(v);
}

void vm_free(struct vm *v)
{
	munmap(v->mem.ram, VM_RAM);
	ram_free(&v->ram);
	v->ram.size = 0;
}

/* ---- the monitor's questions ---- */

uint64_t vm_counter(struct vm *v, const char *name)
{
	static struct msg_counters m;

	if (ipc_send_frame(v->control, MSG_DEV_STATS_GET, NULL, 0, NULL, 0))
		vm_die("cannot ask for counters");
	vm_expect(v, v->control, MSG_DEV_STATS);
	if (unpack_dev_stats(v->f.data, v->f.len, &m))
		vm_die("malformed counters");
	for (uint32_t i = 0; i < m.n; i++)
		if (!strcmp(m.c[i].name, name))
			return m.c[i].value;
	vm_die("no counter %s", name);
}

void vm_command(struct vm *v, enum msg_dev_op op)
{
	struct msg_dev_command m = {op};
	int n = pack_dev_command(&m, v->buf, sizeof v->buf);

	if (ipc_send_frame(v->control, MSG_DEV_COMMAND, v->buf, (size_t)n, NULL, 0))
		vm_die("cannot send a command");
}
