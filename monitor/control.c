/*
 * The control socket: who may speak, what can be asked.  Invariant: a connection
 * of anybody but the VM's owner and root is closed before a byte of it is read.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/text.h"
#include "monitor/command.h"
#include "monitor/machine.h"

static void drop_client(struct peer *p)
{
	ipc_conn_free(p->conn);
	p->conn = NULL;
	p->waits = 0;
}

static void reply(struct machine *m, struct peer *p, uint32_t status, const char *text, int fd)
{
	struct msg_reply r = {.status = status};

	text_clean(r.text, sizeof r.text, text, strlen(text));
	p->waits = 0;
	machine_send(m, p, MSG_REPLY, pack_reply(&r, m->buf, sizeof m->buf), &fd, fd >= 0 ? 1 : 0);
}

void control_answer(struct machine *m, enum msg_request op, uint32_t status, const char *text)
{
	for (int i = 0; i < MACHINE_MAX_CLIENTS; i++)
		if (m->client[i].conn && m->client[i].waits == op)
			reply(m, &m->client[i], status, text, -1);
}

/* ---- who does not answer ---- */

#define ANSWER_MS 10000 /* a child that has not answered by then is told to be silent; a busy one needs a few ms */

/* Does the request @op wait for process @i? */
static bool owes(const struct machine *m, enum msg_request op, int i)
{
	return op == REQ_STATS ? m->stats_due >> i & 1 : i == PROC_VCPU;
}

static void too_late(struct machine *m, struct peer *p)
{
	char text[MSG_TEXT_MAX], names[MSG_TEXT_MAX / 2] = "";
	size_t n = 0;

	for (int i = 0; i < PROC_CARDS + m->ncards; i++) {
		if (!owes(m, p->waits, i) || n >= sizeof names - MSG_NAME_MAX)
			continue;
		m->proc[i].silent = true;
		n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", m->proc[i].name);
	}
	snprintf(text, sizeof text, "not answering: %s%s", names,
		 p->waits == REQ_STATS ? "" : "; it obeys when it runs again");
	reply(m, p, HVX_EXIT_FAIL, text, -1);
}

void control_late(void *ctx)
{
	struct machine *m = ctx;
	uint64_t now = machine_now(), next = 0;

	for (int i = 0; i < MACHINE_MAX_CLIENTS; i++) {
		struct peer *p = &m->client[i];
		if (!p->conn || !p->waits)
			continue;
		uint64_t due = p->waits_ns + ANSWER_MS * 1000000ull;
		if (due <= now)
			too_late(m, p);
		else if (!next || due < next)
			next = due;
	}
	if (next)
		ipc_timer_set(m->answer_timer, (unsigned)((next - now) / 1000000) + 1);
}

/* ---- requests ---- */

static void add_process(struct msg_status *s, const char *name, pid_t pid, const struct proc *p)
{
	snprintf(s->proc[s->nprocs].name, sizeof s->proc[0].name, "%s", name);
	s->proc[s->nprocs].pid = (uint32_t)pid;
	if (p) {
		s->proc[s->nprocs].layers = p->layers;
		s->proc[s->nprocs].silent = p->silent;
	}
	s->nprocs++;
}

int control_status(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	(void)r;
	struct msg_status s = {
		.ram_size = m->cfg.memory,
		.cpus = m->cfg.cpus,
		.boots = m->boots,
		.windows = m->windows,
		.direct = m->cfg.direct,
		.strict = m->cfg.strict,
		.uptime_ms = m->start_ns ? (machine_now() - m->start_ns) / 1000000 : 0,
	};

	snprintf(s.name, sizeof s.name, "%s", m->cfg.name);
	snprintf(s.merge, sizeof s.merge, "%s", m->cfg.merge);
	s.resident = memwatch_resident(m);
	s.shared = memwatch_shared(m);
	s.guarantee = m->cfg.guarantee;
	snprintf(s.state, sizeof s.state, "%s", vm_state_name(m->state));
	if (m->state == VM_PAUSED)
		memcpy(s.reason, m->reason, sizeof s.reason);
	const char *where = console_describe(m->console);
	text_clean(s.console, sizeof s.console, where, strlen(where));
	where = m->second ? console_describe(m->second) : "";
	text_clean(s.second, sizeof s.second, where, strlen(where));
	bound_status(m, &s);
	add_process(&s, "monitor", getpid(), NULL);
	if (m->grouped)
		add_process(&s, "memsvc", (pid_t)m->group.pid, &m->proc[PROC_MEMSVC]);
	for (int i = 0; i < m->nprocs; i++)
		if (m->proc[i].pid > 0)
			add_process(&s, m->proc[i].name, m->proc[i].pid, &m->proc[i]);
	p->waits = 0;
	return machine_send(m, p, MSG_STATUS_REPLY, pack_status_reply(&s, m->buf, sizeof m->buf), NULL, 0);
}

int control_stats(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	(void)p;
	(void)r;
	if (m->stats_due)
		return 0; /* under way: the answer is for all who wait */
	m->stats.n = 0;
	m->stats_due = 1ull << PROC_MEMSVC | 1ull << PROC_VCPU;
	int rc = machine_send(m, &m->child[PROC_VCPU], MSG_VCPU_STATS_GET, 0, NULL, 0);
	if (!rc)
		rc = machine_send(m, &m->child[PROC_MEMSVC], MSG_MEM_STATS_GET, 0, NULL, 0);
	for (int i = PROC_CARDS; i < PROC_CARDS + m->ncards && !rc; i++) {
		m->stats_due |= 1ull << i;
		rc = machine_send(m, &m->child[i], MSG_DEV_STATS_GET, 0, NULL, 0);
	}
	return rc;
}

/* Memory, the engine, then device by device ("blk0.reads"): not as the answers happened to come. */
static int order(const char *a, const char *b)
{
	size_t na = strcspn(a, "."), nb = strcspn(b, ".");
	int ga = a[na] ? 2 : !!strncmp(a, "ram_", 4), gb = b[nb] ? 2 : !!strncmp(b, "ram_", 4);

	if (ga != gb || ga < 2)
		return ga - gb;
	int d = memcmp(a, b, na < nb ? na : nb);
	return d ? d : (na > nb) - (na < nb);
}

/* By insertion: the order within a group stays. */
static void sort_counters(struct msg_counters *m)
{
	for (uint32_t i = 1; i < m->n; i++)
		for (uint32_t k = i; k && order(m->c[k - 1].name, m->c[k].name) > 0; k--) {
			__typeof__(m->c[0]) t = m->c[k];
			m->c[k] = m->c[k - 1];
			m->c[k - 1] = t;
		}
}

void control_stats_part(struct machine *m, int proc)
{
	m->stats_due &= ~(1ull << proc);
	if (m->stats_due)
		return;
	sort_counters(&m->stats);
	int n = pack_stats_reply(&m->stats, m->buf, sizeof m->buf);
	for (int i = 0; i < MACHINE_MAX_CLIENTS; i++) {
		struct peer *p = &m->client[i];
		if (!p->conn || p->waits != REQ_STATS)
			continue;
		p->waits = 0;
		machine_send(m, p, MSG_STATS_REPLY, n, NULL, 0);
	}
}

int control_screen(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	(void)r;
	if (m->cfg.firmware == FIRMWARE_NONE) {
		reply(m, p, HVX_EXIT_FAIL, "this VM has no display: its kernel was started without firmware", -1);
		return 0;
	}
	return machine_command(m, OP_SCREEN, 0);
}

/* For all who wait. */
void control_screen_is(struct machine *m, const struct msg_screen *s)
{
	int n = pack_screen_reply(s, m->buf, sizeof m->buf);

	for (int i = 0; i < MACHINE_MAX_CLIENTS; i++) {
		struct peer *p = &m->client[i];
		if (!p->conn || p->waits != REQ_SCREEN)
			continue;
		p->waits = 0;
		machine_send(m, p, MSG_SCREEN_REPLY, n, NULL, 0);
	}
}

int control_stop(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	(void)r;
	if (m->state == VM_PAUSED) {
		reply(m, p, HVX_EXIT_FAIL, "the VM is paused: resume it first", -1);
		return 0;
	}
	int rc = machine_command(m, OP_POWER_BUTTON, 0);
	if (!rc)
		reply(m, p, 0, "power button pressed", -1);
	return rc;
}

int control_console(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	struct console *c = r->console.second ? m->second : m->console;
	int fd = c ? console_attach(c) : -ENODEV;

	if (fd == -ENODEV) {
		reply(m, p, HVX_EXIT_FAIL, "this VM has no such console", -1);
		return 0;
	}

	if (fd == -EBUSY) {
		reply(m, p, HVX_EXIT_FAIL, "somebody else is attached to the console", -1);
		return 0;
	}
	if (fd < 0)
		return fd;
	reply(m, p, 0, "", fd);
	close(fd);
	return 0;
}

/* The terminal of whoever is attached to the second console. */
int control_resize(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	if (!m->second)
		return -EINVAL;
	machine_console_size(m, r->resize.columns, r->resize.rows);
	reply(m, p, 0, "", -1);
	return 0;
}

static int no_device(struct machine *m, struct peer *p, const char *what, const char *id)
{
	char text[128];

	snprintf(text, sizeof text, "no %s named '%s'", what, id);
	reply(m, p, HVX_EXIT_FAIL, text, -1);
	return 0;
}

/* What is not named stays as it is. */
static void change_limits(struct msg_dev_limits *l, const struct msg_request_limit *to)
{
	if (to->given & LIMIT_OPS)
		l->ops = to->limits.ops;
	if (to->given & LIMIT_OPS_BURST)
		l->ops_burst = to->limits.ops_burst;
	if (to->given & LIMIT_BYTES)
		l->bytes = to->limits.bytes;
	if (to->given & LIMIT_BYTES_BURST)
		l->bytes_burst = to->limits.bytes_burst;
}

static int limit_vm(struct machine *m, struct peer *p, const struct msg_vm_limits *to)
{
	const struct msg_mem_tune tune = {.rate = to->merge};
	char err[MSG_TEXT_MAX] = "";
	bool merge = to->given & VM_LIMIT_MERGE;

	if (merge && !m->cfg.merge[0]) {
		reply(m, p, HVX_EXIT_FAIL, "nothing is merged in this VM", -1);
		return 0;
	}
	int rc = bound_change(m, to, err, sizeof err);
	if (!rc && merge)
		rc = machine_send(m, &m->child[PROC_MEMSVC], MSG_MEM_TUNE, pack_mem_tune(&tune, m->buf, sizeof m->buf),
				  NULL, 0);
	reply(m, p, rc ? HVX_EXIT_FAIL : 0, err, -1);
	return 0;
}

/* Of a card that is a process, or of the vcpu's own rng, which has no limits but of bytes. */
int control_limit(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	struct peer *dev;
	struct card *c = card_find(m, r->limit.id, &dev);
	struct msg_local *own = &m->cfg.local;
	bool rng = !c && own->rng && !strcmp(r->limit.id, "rng");

	if (!r->limit.id[0])
		return limit_vm(m, p, &r->limit.vm);

	if (!c && !rng)
		return no_device(m, p, "device", r->limit.id);
	struct msg_dev_limits l = {.bytes = own->rng_bytes, .bytes_burst = own->rng_burst};
	if (c)
		l = c->limits;
	change_limits(&l, &r->limit);
	if (rng && (l.ops || l.ops_burst)) {
		reply(m, p, HVX_EXIT_USAGE, "its limits are bytes and bytes-burst", -1);
		return 0;
	}
	int rc = machine_send(m, rng ? &m->child[PROC_VCPU] : dev, MSG_DEV_LIMITS,
			      pack_dev_limits(&l, m->buf, sizeof m->buf), NULL, 0);
	if (rc)
		return rc;
	if (c) {
		c->limits = l;
		if (c->role == ROLE_BLK)
			m->cfg.disk[c->option].limits = l; /* its own from now on, no part of the VM's */
	} else {
		own->rng_bytes = l.bytes;
		own->rng_burst = l.bytes_burst;
	}
	reply(m, p, 0, "", -1);
	return 0;
}

int control_link(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	bool up = r->link.up;
	char why[256];
	struct msg_dev_command cmd = {up ? DEV_OP_LINK_UP : DEV_OP_LINK_DOWN};
	struct peer *dev;
	struct card *c = card_find(m, r->link.id, &dev);

	if (!c || c->role != ROLE_NET)
		return no_device(m, p, "network card", r->link.id);
	if (up && c->lost[0]) {
		snprintf(why, sizeof why, "%s: the link stays down: %s", c->id, c->lost);
		reply(m, p, HVX_EXIT_FAIL, why, -1);
		return 0;
	}
	int rc = machine_send(m, dev, MSG_DEV_COMMAND, pack_dev_command(&cmd, m->buf, sizeof m->buf), NULL, 0);
	if (rc)
		return rc;
	c->link_down = !up;
	reply(m, p, 0, "", -1);
	return 0;
}

int control_balloon(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	const uint64_t bytes = r->balloon.bytes;
	char text[128];

	if (!m->cfg.local.balloon) {
		reply(m, p, HVX_EXIT_FAIL, "this VM has no balloon", -1);
		return 0;
	}
	if (bytes > m->cfg.memory) {
		snprintf(text, sizeof text, "the VM has %lluM", (unsigned long long)m->cfg.memory >> 20);
		reply(m, p, HVX_EXIT_FAIL, text, -1);
		return 0;
	}
	memwatch_balloon(m, bytes);
	int rc = machine_command(m, OP_BALLOON, bytes);
	if (!rc)
		reply(m, p, 0, "", -1);
	return rc;
}

/* Requests that an error stopped are tried again before the CPUs go on. */
int control_resume(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	(void)p;
	(void)r;
	struct msg_dev_command c = {DEV_OP_RETRY};
	int rc = 0;

	memwatch_command(m);
	for (int i = 0; i < m->ncards && !rc; i++) {
		if (!m->card[i].failed)
			continue;
		m->card[i].failed = false;
		rc = machine_send(m, &m->child[PROC_CARDS + i], MSG_DEV_COMMAND,
				  pack_dev_command(&c, m->buf, sizeof m->buf), NULL, 0);
	}
	m->reason[0] = '\0';
	return rc ? rc : machine_command(m, OP_RESUME, 0);
}

int control_pause(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	(void)p;
	(void)r;
	memwatch_command(m);
	return machine_command(m, OP_PAUSE, 0);
}

int control_kill(struct machine *m, struct peer *p, const struct msg_request_head *r)
{
	(void)r;
	reply(m, p, 0, "killed", -1);
	log_info("killed by request");
	machine_end_for(m, HVX_EXIT_KILLED, "killed by request");
	return 0;
}

int control_request(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_request_head r;

	if (unpack_request(f->data, f->len, &r) || p->waits)
		return -EPROTO;
	if (r.version != IPC_VERSION) {
		reply(m, p, HVX_EXIT_HOST, "this VM's monitor is of another version", -1);
		return 0;
	}
	const struct command *c = command_asking(r.op);
	if (!c)
		return -EPROTO;
	if (!(VM_BIT(m->state) & c->states)) {
		reply(m, p, HVX_EXIT_FAIL, m->state == VM_ENDING ? "the VM is ending" : "the VM is still starting", -1);
		return 0;
	}
	p->waits = r.op;
	p->waits_ns = machine_now();
	int rc = c->serve(m, p, &r);
	if (rc && p->conn)
		reply(m, p, HVX_EXIT_FAIL, rc == -ENOBUFS ? "not answering: it reads nothing" : strerror(-rc), -1);
	else if (p->conn && p->waits)
		control_late(m); /* sets the timer */
	return 0;
}

/* ---- connections ---- */

static void on_client_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct peer *p = ctx;
	const struct permit *ok = permit_find(f->type, ROLE_CLIENT, p->m->state, f->nfds);

	(void)c;
	if (!ok || ok->handler(p->m, p, f) == -EPROTO)
		drop_client(p);
}

static void on_client_closed(void *ctx, struct ipc_conn *c, int error)
{
	(void)c;
	(void)error;
	drop_client(ctx);
}

static const struct ipc_handlers client_handlers = {on_client_frame, on_client_closed, pack_type_name};

static bool may_control(int fd)
{
	struct ucred u;
	socklen_t len = sizeof u;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) < 0)
		return false;
	return u.uid == 0 || u.uid == geteuid();
}

static void on_connect(void *ctx)
{
	struct machine *m = ctx;
	int fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (int i = 0; i < MACHINE_MAX_CLIENTS && may_control(fd); i++) {
		struct peer *p = &m->client[i];
		if (p->conn)
			continue;
		*p = (struct peer){.m = m, .role = ROLE_CLIENT};
		p->conn = ipc_conn_new(m->loop, fd, "monitor", "client", &client_handlers, p);
		if (p->conn)
			return;
		break;
	}
	close(fd);
}

int control_open(struct machine *m)
{
	m->listen_fd = runtime_listen(&m->rt, m->cfg.name);
	if (m->listen_fd < 0)
		return m->listen_fd;
	m->listen_watch = ipc_watch_fd(m->loop, m->listen_fd, IPC_READ, on_connect, m);
	return m->listen_watch ? 0 : -ENOMEM;
}

void control_close(struct machine *m)
{
	ipc_watch_free(m->listen_watch);
	m->listen_watch = NULL;
	if (m->listen_fd >= 0)
		close(m->listen_fd);
	m->listen_fd = -1;
	for (int i = 0; i < MACHINE_MAX_CLIENTS; i++)
		if (m->client[i].conn)
			drop_client(&m->client[i]);
}
