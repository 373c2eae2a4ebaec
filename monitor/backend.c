/*
 * Back ends outside HVX.  Invariant: whatever program is started gets one connected or
 * listening socket (and at most the files of one image), and ends when the other end of that socket goes.
 */
#include "monitor/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "devices/net/join.h"
#include "monitor/confine.h"
#include "monitor/image.h"
#include "monitor/json.h"
#include "monitor/machine.h"
#include "monitor/ready.h"
#include "monitor/toolseal.h"

#define VNET_HEADER     12   /* struct virtio_net_hdr with num_buffers, virtio 1.2 5.1.6 */
#define SWITCH_PATIENCE 5000 /* ms for its answer */
#define NOBODY          65534
#define ARGS_MAX        (16 + 2 * DEVOPT_PORTS)

/* TUNSETIFF makes an interface of a name that there is none of, for whoever may: a slip of the pen then is a card that is
 * connected to nothing. */
static int open_tap(const char *name, bool create, int *fd, char *err, size_t len)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int size = VNET_HEADER, f;

	if (!create && !if_nametoindex(name)) {
		snprintf(err, len,
			 "tap %s: no such interface; make it (ip tuntap add %s mode tap user USER), or add "
			 "the key create",
			 name, name);
		return HVX_EXIT_HOST;
	}
	f = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	snprintf(r.ifr_name, sizeof r.ifr_name, "%.*s", IFNAMSIZ - 1, name);
	if (f < 0 || ioctl(f, TUNSETIFF, &r) < 0 || ioctl(f, TUNSETVNETHDRSZ, &size) < 0) {
		snprintf(err, len, "tap %s: %s%s", name, strerror(errno),
			 errno == EPERM ? "; make it first: ip tuntap add NAME mode tap user USER" : "");
		if (f >= 0)
			close(f);
		return HVX_EXIT_HOST;
	}
	*fd = f;
	return 0;
}

/* Tells the switch the card's address, before anybody else has the socket; its answer as an error with its text. */
static const char *register_mac(int fd, const uint8_t mac[6])
{
	struct switch_join j = {.magic = SWITCH_MAGIC, .version = SWITCH_VERSION};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct switch_answer a;

	memcpy(j.mac, mac, sizeof j.mac);
	if (send(fd, &j, sizeof j, MSG_NOSIGNAL) != (ssize_t)sizeof j)
		return strerror(errno);
	if (poll(&p, 1, SWITCH_PATIENCE) != 1)
		return "no answer";
	ssize_t k = recv(fd, &a, sizeof a, MSG_DONTWAIT);
	if (k < 0)
		return "it hung up: all ports are taken, or it is another user's";
	if (k != (ssize_t)sizeof a || a.magic != SWITCH_MAGIC)
		return "what listens there is no hvx-switch";
	switch (a.result) {
	case SWITCH_WELCOME: return NULL;
	case SWITCH_MAC_TAKEN: return "another port has this mac";
	case SWITCH_FULL: return "all ports are taken";
	default: return "refused: of another user or version";
	}
}

static int join_switch(const struct net_option *n, int *fd, char *err, size_t len)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const char *why = strerror(ENAMETOOLONG);
	int f = -1;

	if (strlen(n->target) < sizeof a.sun_path) {
		memcpy(a.sun_path, n->target, strlen(n->target) + 1);
		f = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (f < 0 || connect(f, (const struct sockaddr *)&a, sizeof a))
			why = errno == ECONNREFUSED ? "no hvx-switch listens there" : strerror(errno);
		else
			why = register_mac(f, n->mac);
	}
	if (!why) {
		*fd = f;
		return 0;
	}
	snprintf(err, len, "switch %s: %s", n->target, why);
	if (f >= 0)
		close(f);
	return HVX_EXIT_HOST;
}

int backend_open_net(const struct net_option *n, int *fd, char *err, size_t len)
{
	switch (n->backend) {
	case NET_TAP: return open_tap(n->target, n->create, fd, err, len);
	case NET_SWITCH: return join_switch(n, fd, err, len);
	default: return 0;
	}
}

/* ---- programs ---- */

/* Only where the system puts programs: not what PATH says. */
static const char *program(const char *name, char *buf, size_t len)
{
	static const char *const dirs[] = {"/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin"};

	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
		snprintf(buf, len, "%s/%s", dirs[i], name);
		if (access(buf, X_OK) == 0)
			return buf;
	}
	return NULL;
}

/* The place of the tool of @c among the processes; it counts when tool_runs() has heard of its start. */
static struct proc *tool_proc(struct machine *m, struct card *c, const char *name)
{
	struct proc *p = &m->proc[m->nprocs];

	*p = (struct proc){.program = name, .name = name, .tool_of = c, .data = bound_data(m, ROLE_CLIENT)};
	return p;
}

static int tool_runs(struct machine *m, struct card *c, const struct proc *p, int rc, const char *err)
{
	if (rc)
		log_error("%s: %s: %s", c->id, p->name, err);
	else if (err[0])
		log_warn("%s: %s: %s", c->id, p->name, err);
	if (!rc)
		m->nprocs++;
	return rc;
}

struct args {
	char *v[ARGS_MAX];
	char text[ARGS_MAX][128];
	int n;
};

static void arg(struct args *a, const char *text)
{
	snprintf(a->text[a->n], sizeof a->text[0], "%s", text);
	a->v[a->n] = a->text[a->n];
	a->v[++a->n] = NULL;
}

static void passt_args(struct args *a, const char *path, const struct net_option *n)
{
	static const char *const always[] = {"--foreground", "--quiet", "--stderr", "--fd", "3"};
	/* a connection from 127.0.0.1 goes nowhere but to this host */
	static const char *const alone[] = {"--no-map-gw", "--ipv4-only", "--outbound", "127.0.0.1"};
	char s[96];

	arg(a, path);
	for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
		arg(a, always[i]);
	for (size_t i = 0; i < sizeof alone / sizeof alone[0] && n->restricted; i++)
		arg(a, alone[i]);
	for (unsigned i = 0; i < n->nforwards; i++) {
		const struct net_forward *f = &n->forward[i];
		/* one by one: of a range that it gets in part passt says nothing */
		for (unsigned k = 0; k < f->ports; k++) {
			arg(a, f->udp ? "-u" : "-t");
			snprintf(s, sizeof s, "%s%s%u:%u", f->addr, f->addr[0] ? "/" : "", f->host_port + k,
				 f->guest_port + k);
			arg(a, s);
		}
	}
	arg(a, "--runas"); /* id 0 of a user namespace would become nobody, whom that has not */
	arg(a, "0");
}

/* Root's passt may take the host's low ports, and has what it takes until it has them. */
static uint64_t port_caps(const struct net_option *n)
{
	for (unsigned i = 0; i < n->nforwards; i++)
		if (n->forward[i].host_port < 1024)
			return 1ull << CAP_NET_BIND_SERVICE;
	return 0;
}

/* The variant for this CPU: passt looks for itself in /proc, which it does not have. */
static const char *passt_program(char *path, size_t len)
{
	const char *p = __builtin_cpu_supports("avx2") ? program("passt.avx2", path, len) : NULL;

	return p ? p : program("passt", path, len);
}

/* The host's network is what it is for; a user namespace would keep root's from low ports. */
static int start_passt(struct machine *m, struct card *c)
{
	static const char *const files[] = {"/etc/resolv.conf", "/etc/ld.so.cache", "/dev/null", NULL};
	static struct args a; /* large; there is one loop */
	char path[64];
	char err[256];
	int sv[2];

	if (!passt_program(path, sizeof path)) {
		log_error("%s: passt is not installed: --net=user needs it", c->id);
		return -ENOENT;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) /* passt drops what it cannot send at once; as much as the host allows */
		setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &(const int){READY_BUFFER}, sizeof(int));
	a.n = 0;
	passt_args(&a, path, &m->cfg.net[c->option]);
	struct spawn_tool t = {.argv = a.v,
			       .strict = m->cfg.strict,
			       .root_args = 2,
			       .files = files,
			       .fd = sv[1],
			       .table = &passt_seal,
			       .guest = {.want = SANDBOX_ALL & ~SANDBOX_BIT(NETNS),
					 .uid = NOBODY,
					 .gid = NOBODY,
					 .caps = geteuid() == 0 ? port_caps(&m->cfg.net[c->option]) : 0,
					 .network = true}};
	if (geteuid() == 0 && sandbox_has_cap(CAP_SYS_ADMIN)) /* else only a user namespace gives the others */
		t.guest.want &= ~SANDBOX_BIT(USERNS);
	struct proc *p = tool_proc(m, c, "passt");
	int rc = tool_runs(m, c, p, spawn_tool(m->loop, p, &t, m->cfg.name, err, sizeof err), err);
	close(sv[1]);
	fcntl(sv[0], F_SETFL, O_NONBLOCK);
	c->backend = sv[0];
	return rc ? rc : ready_await(m, c);
}

/* A socket that listens under a name of the VM's for as long as it takes to connect to it. */
static int listening_pair(struct machine *m, const char *id, int *server, int *client)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int n = snprintf(a.sun_path, sizeof a.sun_path, "%s/%s.%s.nbd", m->rt.dir, m->cfg.name, id), rc = 0;

	if (n < 0 || (size_t)n >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	*server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(a.sun_path);
	if (*server < 0 || *client < 0 || bind(*server, (struct sockaddr *)&a, sizeof a) < 0 ||
	    listen(*server, 1) < 0 || connect(*client, (struct sockaddr *)&a, sizeof a) < 0)
		rc = -errno;
	unlink(a.sun_path);
	return rc;
}

/* Who qemu-nbd is to be, where we are root: the image's owner, who opens it without privileges. */
static int image_owner(const struct image *i, struct sandbox_guest *g, char *err, size_t len)
{
	struct stat st;

	for (unsigned k = 0; k < i->n; k++) {
		const struct image_file *f = &i->file[k];
		mode_t need = f->write ? S_IRUSR | S_IWUSR : S_IRUSR;
		if (fstat(f->fd, &st) < 0)
			return -errno;
		if (!k) {
			g->uid = st.st_uid;
			g->gid = st.st_gid;
		} else if (st.st_uid != g->uid) {
			need >>= st.st_gid == g->gid ? 3 : 6;
		}
		if (geteuid() != 0 || (st.st_mode & need) == need)
			continue;
		snprintf(err, len, "it runs as the image's owner, user %u, who may not %s %s%.128s", (unsigned)g->uid,
			 f->write ? "write" : "read", k ? "its " : "the image", k ? f->path : "");
		return -EACCES;
	}
	return 0;
}

/* A descriptor that can only be opened anew: without our lock on it. */
static int open_again(int fd)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int again = open(path, O_PATH | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

static void describe_file(struct json *j, const char *key, const struct image_file *f, unsigned k)
{
	char name[32];

	snprintf(name, sizeof name, CONFINE_IMAGE_PREFIX "%u", CONFINE_IMAGE_FD + k);
	json_open(j, key, '{');
	json_text(j, "driver", f->block ? "host_device" : "file");
	json_text(j, "filename", name);
	json_text(j, "locking", "off"); /* the lock is ours alone */
	json_close(j, '}');
}

/* File @k and all that it refers to: as they were opened and locked, not what the names in their headers lead to. */
static void describe_image(struct json *j, const char *key, const struct image *i, unsigned k)
{
	const struct image_file *f = &i->file[k];
	unsigned extents = 0, backing = 0;
	char locking[32];

	json_open(j, key, '{');
	json_text(j, "driver", devopt_format_name(f->format));
	describe_file(j, "file", f, k);
	for (unsigned c = 1; c < i->n; c++) {
		const struct image_file *g = &i->file[c];
		if (g->parent != k)
			continue;
		snprintf(locking, sizeof locking, "extents.%u.locking", extents);
		if (g->link == HEADER_BACKING)
			backing = c;
		else if (g->link == HEADER_DATA)
			describe_file(j, "data-file", g, c);
		else
			extents++, json_text(j, locking, "off");
	}
	if (backing)
		describe_image(j, "backing", i, backing);
	else if (f->format == FORMAT_QCOW2)
		json_text(j, "backing", NULL); /* whatever the header says by now */
	json_close(j, '}');
}

/* "json:{...}", which the caller frees; NULL: no memory. */
static char *image_text(const struct image *i)
{
	char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);
	struct json j;

	if (!f)
		return NULL;
	fputs("json:", f);
	json_begin(&j, f);
	describe_image(&j, NULL, i, 0);
	return fclose(f) ? NULL : text;
}

static void nbd_args(struct args *a, const char *path, const struct disk_option *d, char *image, bool writes)
{
	a->n = 0;
	arg(a, path);
	arg(a, d->nocache ? "--cache=writethrough" : "--cache=writeback");
	arg(a, "--discard=unmap");
	if (!writes)
		arg(a, "--read-only");
	a->v[a->n++] = image;
	a->v[a->n] = NULL;
}

static int open_images(const struct image *i, int fds[CONFINE_IMAGES], uint32_t *writable)
{
	int rc = 0;

	for (unsigned k = 0; k < i->n; k++) {
		fds[k] = open_again(i->file[k].hand >= 0 ? i->file[k].hand : i->file[k].fd);
		*writable |= (uint32_t)i->file[k].write << k;
		rc = fds[k] < 0 && !rc ? fds[k] : rc;
	}
	return rc;
}

int backend_run_nbd(struct ipc_loop *l, struct proc *p, const char *vm, bool strict, const struct disk_option *d,
		    const struct image *image, int server, char *err, size_t len)
{
	static const char *const files[] = {"/etc/ld.so.cache", "/dev/null", "/dev/urandom", NULL};
	static struct args a; /* large; there is one loop */
	bool writes = image->file[0].write;
	char path[64], *text = image_text(image);
	int fds[CONFINE_IMAGES];
	struct spawn_tool t = {.argv = a.v,
			       .strict = strict,
			       .files = files,
			       .fd = server,
			       .images = fds,
			       .nimages = image->n,
			       .listens = true,
			       .table = writes ? &nbd_seal : &nbd_readonly_seal,
			       .guest = {.want = SANDBOX_ALL}};
	int rc = open_images(image, fds, &t.writable);

	if (rc || !text) {
		rc = rc ? rc : -ENOMEM;
		snprintf(err, len, "the image once more: %s", strerror(-rc));
	} else if (!program("qemu-nbd", path, sizeof path)) {
		snprintf(err, len, "not installed: format %s needs it", devopt_format_name(d->format));
		rc = -ENOENT;
	} else {
		nbd_args(&a, path, d, text, writes);
		rc = image_owner(image, &t.guest, err, len);
	}
	if (!rc)
		rc = spawn_tool(l, p, &t, vm, err, len);
	for (unsigned k = 0; k < image->n; k++)
		if (fds[k] >= 0)
			close(fds[k]);
	free(text);
	return rc;
}

static int start_nbd(struct machine *m, struct card *c)
{
	struct proc *p = tool_proc(m, c, "qemu-nbd");
	int server = -1, client = -1, rc = listening_pair(m, c->id, &server, &client);
	char err[256] = "";

	if (rc)
		snprintf(err, sizeof err, "its socket: %s", strerror(-rc));
	else
		rc = backend_run_nbd(m->loop, p, m->cfg.name, m->cfg.strict, &m->cfg.disk[c->option], c->image, server,
				     err, sizeof err);
	rc = tool_runs(m, c, p, rc, err);
	if (server >= 0)
		close(server);
	c->backend = client; /* c->image keeps the locks: qemu-nbd opens its files anew, and has none */
	return rc ? rc : ready_await(m, c);
}

/* Before anybody has the disk. */
static int fill_seed(struct machine *m, struct card *c)
{
	char err[512];

	m->seed.disk = c->backend;
	int rc = seed_make(&m->seed, m->loop, m->cfg.name, m->cfg.strict, err, sizeof err);
	if (rc)
		log_error("cloud-init: genisoimage: %s", err);
	else if (err[0])
		log_warn("cloud-init: genisoimage: %s", err);
	m->seed.disk = -1; /* the card's */
	seed_close(&m->seed);
	return rc;
}

int backend_start(struct machine *m, struct card *c)
{
	if (c->seed)
		return fill_seed(m, c);
	if (c->role == ROLE_NET)
		return m->cfg.net[c->option].backend == NET_PASST ? start_passt(m, c) : 0;
	return m->cfg.disk[c->option].format == FORMAT_RAW ? 0 : start_nbd(m, c);
}
