/*
 * The life of a VM: children are started, given what they need, watched, and
 * ended together.  Invariant: machine_run() returns only when no child is
 * left and socket, lock and pidfile are gone.
 */
#include "monitor/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "monitor/pool.h"
#include "monitor/ready.h"
#include "monitor/seal.h"
#include "monitor/tty.h"

#define END_GRACE_MS 2000 /* children get this long to go by themselves */
#define DEBUG_BURST  1000 /* lines a second of one child with --debug, messages included */
#define DRAIN_MS     3000 /* a terminal that does not take the last output gets this long */

/* ---- sending ---- */

int machine_send(struct machine *m, struct peer *p, uint16_t type, int len, const int *fds, int nfds)
{
	if (len < 0)
		return len;
	if (!p->conn)
		return -EPIPE;
	return ipc_send(p->conn, type, m->buf, (size_t)len, fds, nfds);
}

int machine_command(struct machine *m, enum msg_op op, uint64_t value)
{
	struct msg_vcpu_command c = {op, value};

	return machine_send(m, &m->child[PROC_VCPU], MSG_VCPU_COMMAND, pack_vcpu_command(&c, m->buf, sizeof m->buf),
			    NULL, 0);
}

static void add_fd(struct msg_vcpu_config *v, int *fds, enum msg_fd kind, int fd)
{
	if (fd < 0)
		return;
	v->fds[v->nfds] = kind;
	fds[v->nfds++] = fd;
}

/* The kernel is told the files' names, not where they lie on the host. */
static void add_modules(struct machine *m, struct msg_vcpu_config *v, int *fds)
{
	for (unsigned i = 0; i < m->cfg.ninitrds; i++) {
		const struct config_initrd *from = &m->cfg.initrd[i];
		const char *slash = strrchr(from->path, '/');

		add_fd(v, fds, (enum msg_fd)(FD_INITRD + i), m->initrd_fd[i]);
		snprintf(v->module[i].name, sizeof v->module[i].name, "%s", slash ? slash + 1 : from->path);
		memcpy(v->module[i].args, from->args, sizeof from->args);
	}
	v->nmodules = m->cfg.ninitrds;
}

static void close_given(struct machine *m)
{
	int *const given[] = {&m->ram_fd,  &m->control_fd, &m->kernel_fd, &m->trace_fd, &m->debugcon_fd,
			      &m->mem_end, &m->vcpu_end,   &m->pool_rw,   &m->pool_fd};

	for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
		if (*given[i] > 2)
			close(*given[i]);
		*given[i] = -1;
	}
	for (unsigned i = 0; i < MSG_MODULES_MAX; i++) {
		if (m->initrd_fd[i] > 2)
			close(m->initrd_fd[i]);
		m->initrd_fd[i] = -1;
	}
	for (unsigned i = 0; i < MSG_STUBS; i++) {
		if (m->stub_end[i] > 2)
			close(m->stub_end[i]);
		if (m->stub_vcpu_end[i] > 2)
			close(m->stub_vcpu_end[i]);
		m->stub_end[i] = m->stub_vcpu_end[i] = -1;
	}
	firmware_close(&m->firmware);
}

static void hand_over_consoles(struct machine *m)
{
	if (console_vcpu_out(m->console) >= 0)
		console_handed_over(m->console);
	if (m->second && console_vcpu_out(m->second) >= 0)
		console_handed_over(m->second);
}

/* Up to here children speak of the host and of what the user asked for; from here on the guest can have a say. */
static void put_lines_aside(struct machine *m)
{
	for (int i = 0; i < m->nprocs; i++)
		lines_take(&m->proc[i].log);
	log_set_aside(true);
}

static int configure_vcpu(struct machine *m)
{
	static struct msg_vcpu_config v; /* large; there is one loop */
	int fds[MSG_FDS_MAX];

	memset(&v, 0, sizeof v);
	memcpy(v.name, m->cfg.name, sizeof v.name);
	memcpy(v.cmdline, m->cfg.append, sizeof v.cmdline);
	v.ram_size = m->cfg.memory;
	v.cpus = m->cfg.cpus;
	v.debug_exit = m->cfg.debug_exit;
	v.exact_flags = m->cfg.exact_flags;
	v.windows = m->cfg.windows;
	v.direct = m->cfg.direct;
	v.reboot = !m->cfg.no_reboot;
	v.trace = m->cfg.trace;
	v.devices = (uint32_t)m->ncards;
	v.local = m->cfg.local;
	v.firmware.menu = m->cfg.boot_menu;
	v.firmware.keep = m->firmware.keep;
	if (m->firmware.rom_size)
		firmware_order(&m->cfg, CARD_FIRST_SLOT, v.firmware.order, sizeof v.firmware.order);
	add_fd(&v, fds, FD_RAM, m->ram_fd);
	add_fd(&v, fds, FD_CONTROL, m->control_fd);
	add_fd(&v, fds, FD_KERNEL, m->kernel_fd);
	add_fd(&v, fds, FD_FIRMWARE, m->firmware.code);
	add_fd(&v, fds, FD_NVRAM, m->firmware.nvram);
	add_fd(&v, fds, FD_VGAROM, m->firmware.vgarom);
	add_fd(&v, fds, FD_NETROM, m->firmware.netrom);
	add_modules(m, &v, fds);
	add_fd(&v, fds, FD_CONSOLE_IN, console_vcpu_in(m->console));
	add_fd(&v, fds, FD_CONSOLE_OUT, console_vcpu_out(m->console));
	add_fd(&v, fds, FD_TRACE, m->trace_fd);
	add_fd(&v, fds, FD_DEBUGCON, m->debugcon_fd);
	add_fd(&v, fds, FD_MEMSVC, m->vcpu_end);
	add_fd(&v, fds, FD_POOL, m->pool_fd);
	for (int i = 0; i < MSG_STUBS; i++)
		add_fd(&v, fds, (enum msg_fd)(FD_STUB + i), m->stub_vcpu_end[i]);
	if (m->second) {
		add_fd(&v, fds, FD_VCONSOLE_IN, console_vcpu_in(m->second));
		add_fd(&v, fds, FD_VCONSOLE_OUT, console_vcpu_out(m->second));
	}
	int rc = machine_send(m, &m->child[PROC_VCPU], MSG_VCPU_CONFIG, pack_vcpu_config(&v, m->buf, sizeof m->buf),
			      fds, (int)v.nfds);
	if (!rc)
		rc = card_give_vcpu(m);
	if (!rc)
		rc = bound_vcpu(m);
	m->state = VM_LOADING;
	put_lines_aside(m);
	hand_over_consoles(m);
	close_given(m);
	return rc;
}

/* A stub says hello, gets this and is heard of no more: what it is to do the vcpu tells it. */
static int configure_stubs(struct machine *m)
{
	const struct msg_stub_config s = {m->cfg.memory};
	int rc = 0;

	for (int i = 0; i < MSG_STUBS && m->cfg.direct && !rc; i++) {
		const int fds[] = {m->ram_fd, m->stub_end[i]};
		if (!m->proc[PROC_STUBS + i].hello || m->stub_configured[i])
			continue;
		rc = machine_send(m, &m->child[PROC_STUBS + i], MSG_STUB_CONFIG,
				  pack_stub_config(&s, m->buf, sizeof m->buf), fds, 2);
		m->stub_configured[i] = true;
	}
	return rc;
}

static bool stubs_sealed(const struct machine *m)
{
	for (int i = 0; i < MSG_STUBS && m->cfg.direct; i++)
		if (!m->proc[PROC_STUBS + i].sealed)
			return false;
	return true;
}

int machine_configure(struct machine *m)
{
	int rc;

	if (m->state != VM_STARTING || !m->region)
		return 0;
	rc = configure_stubs(m);
	for (int i = 0; i < m->ncards && !rc; i++)
		rc = card_configure(m, &m->child[PROC_CARDS + i]);
	if (rc || !m->proc[PROC_VCPU].hello || !card_all_configured(m) || !stubs_sealed(m))
		return rc;
	return configure_vcpu(m);
}

/* ---- the end ---- */

static bool all_reaped(const struct machine *m)
{
	for (int i = 0; i < m->nprocs; i++)
		if (m->proc[i].pid > 0)
			return false;
	return true;
}

static void maybe_finished(struct machine *m)
{
	if (m->state != VM_ENDING || !all_reaped(m))
		return;
	if (console_drained(m->console) && (!m->second || console_drained(m->second))) {
		ipc_loop_stop(m->loop);
		return;
	}
	ipc_timer_set(m->drain_timer, 10);
}

static void on_drain(void *ctx)
{
	static unsigned waited;
	struct machine *m = ctx;

	waited += 10;
	if (waited >= DRAIN_MS)
		ipc_loop_stop(m->loop);
	else
		maybe_finished(m);
}

static void on_end_timer(void *ctx)
{
	struct machine *m = ctx;

	if (m->state != VM_ENDING && m->grouped && !m->child[PROC_MEMSVC].conn) {
		log_error("merge group %s: its hvx-memsvc hung up on this VM", m->cfg.merge);
		machine_end(m, HVX_EXIT_CHILD);
		return;
	}
	for (int i = 0; i < m->nprocs; i++)
		if (m->proc[i].pid > 0)
			log_warn("%s does not go by itself: killed", m->proc[i].name);
	for (int i = 0; i < m->nprocs; i++)
		spawn_kill(&m->proc[i]);
}

static void hang_up(struct machine *m, int first, int end)
{
	for (int i = first; i < end; i++) {
		ipc_conn_free(m->child[i].conn);
		m->child[i].conn = NULL;
	}
}

/* Closing the control sockets is what tells children to go: devices when the vcpu is gone, so that what it asked
 * for is done; tools when their device is gone. */
void machine_end(struct machine *m, int status)
{
	if (m->state == VM_ENDING)
		return;
	m->state = VM_ENDING;
	m->status = status;
	if (!m->why[0])
		snprintf(m->why, sizeof m->why, "%.*s", (int)sizeof m->why - 1, log_last_error());
	notify_say(&m->manager, "STOPPING=1\nSTATUS=the VM ends");
	hang_up(m, m->grouped ? PROC_VCPU : PROC_MEMSVC,
		PROC_CARDS); /* a group holds merged pages until all have gone */
	for (int i = 0; i < MSG_STUBS; i++)
		spawn_kill(&m->proc[PROC_STUBS + i]); /* they listen to nobody */
	if (m->proc[PROC_VCPU].pid <= 0)
		hang_up(m, PROC_CARDS, m->nprocs);
	hand_over_consoles(m); /* nobody will: let the pipes end */
	ipc_timer_set(m->end_timer, END_GRACE_MS);
	maybe_finished(m);
}

void machine_end_for(struct machine *m, int status, const char *why)
{
	if (m->state != VM_ENDING)
		snprintf(m->why, sizeof m->why, "%s", why);
	machine_end(m, status);
}

/* passt keeps nothing; qemu-nbd writes out everything when it is asked to go. */
static void end_tools(struct machine *m)
{
	for (int i = PROC_CARDS; i < m->nprocs; i++)
		if (m->proc[i].pid > 0 && !m->proc[i].tool_of)
			return;
	for (int i = PROC_CARDS; i < m->nprocs; i++)
		if (m->proc[i].pid > 0 && m->proc[i].tool_of->role == ROLE_NET)
			spawn_kill(&m->proc[i]);
		else if (m->proc[i].pid > 0)
			kill(m->proc[i].pid, SIGTERM);
}

/* What it died of, with its own last word for it, which went to the log only, or the kernel's. */
static void say_death(struct machine *m, const struct proc *p, const char *when, int wstatus)
{
	char cause[128], memory[128] = "";
	const char *last = WIFEXITED(wstatus) ? p->log.error : "";

	if (WIFSIGNALED(wstatus) && WTERMSIG(wstatus) == SIGKILL && !p->killed)
		last = cause_killed(&m->cgroup, memory, sizeof memory);
	log_error("%s died%s: %s%s%s", p->name, when, spawn_cause(wstatus, cause, sizeof cause), last[0] ? ": " : "",
		  last);
}

static void child_died(struct machine *m, struct proc *p, int wstatus)
{
	char cause[128];

	spawn_finished(p);
	if (m->state != VM_ENDING && p->tool_of && ready_died(m, p, wstatus)) {
		maybe_finished(m);
		return;
	}
	if (m->state != VM_ENDING && p->role == ROLE_STUB && m->state != VM_STARTING) {
		/* the guest's doing: its code jumped into ours; the vcpu goes on without this one */
		log_guest(LOG_LVL_WARN, "%s died: %s", p->name, spawn_cause(wstatus, cause, sizeof cause));
	} else if (m->state != VM_ENDING && p->tool_of) {
		snprintf(p->tool_of->lost, sizeof p->tool_of->lost, "%s died: %s", p->name,
			 spawn_cause(wstatus, cause, sizeof cause));
		log_error("%s of %s died: %s", p->name, p->tool_of->id, spawn_cause(wstatus, cause, sizeof cause));
	} else if (m->state != VM_ENDING) {
		say_death(m, p, "", wstatus);
		machine_end(m, HVX_EXIT_CHILD);
	} else if (WIFSIGNALED(wstatus) && !p->killed) {
		say_death(m, p, " at the end", wstatus);
	}
	if (m->state == VM_ENDING && p->tool_of == NULL)
		end_tools(m);
	if (m->state == VM_ENDING && p == &m->proc[PROC_VCPU]) {
		hang_up(m, PROC_CARDS, m->nprocs);
		ipc_timer_set(m->end_timer, END_GRACE_MS);
	}
	maybe_finished(m);
}

static struct proc *proc_of(struct machine *m, pid_t pid)
{
	for (int i = 0; i < m->nprocs; i++)
		if (m->proc[i].pid == pid)
			return &m->proc[i];
	return NULL;
}

/* A message that came before the death explains it better than the signal: read it first. */
static void on_sigchld(void *ctx)
{
	struct machine *m = ctx;
	siginfo_t si;
	int ws;

	for (;;) {
		si.si_pid = 0;
		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || !si.si_pid)
			return;
		struct proc *p = proc_of(m, si.si_pid);
		struct peer *peer = p ? &m->child[p - m->proc] : NULL;
		if (peer && peer->conn)
			ipc_conn_drain(peer->conn);
		if (waitpid(si.si_pid, &ws, 0) == si.si_pid && p)
			child_died(m, p, ws);
	}
}

/* ---- children's connections ---- */

static void peer_guilty(struct peer *p, const char *what)
{
	log_charge(NULL); /* said once */
	log_error("%s sent %s: killed", p->proc->name, what);
	spawn_kill(p->proc);
	machine_end(p->m, HVX_EXIT_CHILD);
}

static void on_child_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct peer *p = ctx;
	const struct permit *ok = permit_find(f->type, p->role, p->m->state, f->nfds);
	char what[80];

	(void)c;
	if (p->proc->killed)
		return;
	p->proc->silent = false;
	p->m->heard |= p->role == ROLE_VCPU;
	if (!ok) {
		const char *name = pack_type_name(f->type);
		snprintf(what, sizeof what, "%s (%u), not permitted while %s", name ? name : "a message", f->type,
			 vm_state_name(p->m->state));
		peer_guilty(p, what);
		return;
	}
	int rc = ok->handler(p->m, p, f);
	if (rc == -EPROTO) {
		peer_guilty(p, "a malformed message");
	} else if (rc) {
		log_error("answering %s: %s", p->proc->name, strerror(-rc));
		machine_end(p->m, HVX_EXIT_CHILD);
	}
}

static void group_hung_up(struct machine *m);

static void on_child_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct peer *p = ctx;

	ipc_conn_free(c);
	p->conn = NULL;
	if (error)
		peer_guilty(p, "something that is no message");
	else if (p->m->grouped && p->role == ROLE_MEMSVC)
		group_hung_up(p->m);
	else if (p->m->state != VM_ENDING && p->role != ROLE_STUB)
		ipc_timer_set(p->m->end_timer, END_GRACE_MS); /* it is dying: SIGCHLD tells how; else it is made to */
}

static const struct ipc_handlers child_handlers = {on_child_frame, on_child_closed, pack_type_name};

/* ---- hvx-memsvc of a merge group ---- */

static void on_keeper_frame(void *ctx, struct ipc_conn *c, struct ipc_frame *f)
{
	struct machine *m = ctx;
	struct msg_failed x;

	(void)c;
	if (m->state == VM_ENDING)
		return;
	if (f->type == MSG_FAILED && !f->nfds && !unpack_failed(f->data, f->len, &x)) {
		log_error("merge group %s: %s", m->cfg.merge, x.text);
		machine_end(m, (int)x.status);
	} else {
		log_error("merge group %s: its keeper sent a malformed message", m->cfg.merge);
		machine_end(m, HVX_EXIT_CHILD);
	}
}

static void on_keeper_closed(void *ctx, struct ipc_conn *c, int error)
{
	struct machine *m = ctx;

	(void)error;
	ipc_conn_free(c);
	m->keeper = NULL;
	if (m->state == VM_ENDING)
		return;
	log_error("merge group %s: its keeper is gone", m->cfg.merge);
	machine_end(m, HVX_EXIT_CHILD);
}

static const struct ipc_handlers keeper_handlers = {on_keeper_frame, on_keeper_closed, pack_type_name};

/* It is sealed, and has our memory; from here on it is spoken to as if it were a child. */
static int attach_group(struct machine *m)
{
	struct proc *p = &m->proc[PROC_MEMSVC];
	struct peer *peer = &m->child[PROC_MEMSVC];

	*p = (struct proc){.program = "hvx-memsvc",
			   .name = "memsvc",
			   .role = ROLE_MEMSVC,
			   .hello = true,
			   .sealed = true,
			   .layers = m->group.layers};
	*peer = (struct peer){.m = m, .role = ROLE_MEMSVC, .proc = p};
	peer->conn = ipc_conn_new(m->loop, m->group.control, "monitor", "memsvc", &child_handlers, peer);
	m->keeper = ipc_conn_new(m->loop, m->group.keeper, "monitor", "keeper", &keeper_handlers, m);
	m->group.control = m->group.keeper = -1;
	return peer->conn && m->keeper ? machine_send(m, peer, MSG_MEM_GET, 0, NULL, 0) : -ENOMEM;
}

/* Its end is told by the keeper; nothing of the kind says that it has thrown this VM out. */
static void group_hung_up(struct machine *m)
{
	if (m->keeper)
		ipc_conn_drain(m->keeper);
	if (m->state != VM_ENDING)
		ipc_timer_set(m->end_timer, END_GRACE_MS);
}

int machine_start_child(struct machine *m, int i, const char *program, const char *name, enum msg_role role)
{
	struct proc *p = &m->proc[i];
	char err[256];
	int fd;

	*p = (struct proc){.program = program, .name = name, .role = role, .data = bound_data(m, role)};
	int rc = spawn_child(m->loop, p, m->cfg.name, m->cfg.strict, m->debug, &fd, err, sizeof err);
	if (rc) {
		log_error("%s", err);
		return rc;
	}
	m->child[i] = (struct peer){.m = m, .role = role, .proc = p};
	m->child[i].card = i >= PROC_CARDS ? &m->card[i - PROC_CARDS] : NULL;
	if (i == PROC_VCPU)
		memwatch_vcpu(m, p->pid);
	m->child[i].conn = ipc_conn_new(m->loop, fd, "monitor", p->name, &child_handlers, &m->child[i]);
	if (!m->child[i].conn)
		return -ENOMEM;
	if (m->debug)
		p->log.from.limit.burst = DEBUG_BURST;
	ipc_conn_charge(m->child[i].conn, &p->log.from);
	return 0;
}

/* ---- signals and the user ---- */

static void on_quit(void *ctx)
{
	machine_end_for(ctx, HVX_EXIT_KILLED, "ended on its console");
}

static void on_signal(void *ctx)
{
	struct machine *m = ctx;

	log_info("ended by a signal");
	machine_end_for(m, HVX_EXIT_KILLED, "ended by a signal");
}

static void on_sigcont(void *ctx)
{
	(void)ctx;
	tty_again();
}

static void on_winch(void *ctx)
{
	struct machine *m = ctx;

	if (m->second)
		console_look_size(m->second);
}

void machine_console_size(void *ctx, unsigned columns, unsigned rows)
{
	struct machine *m = ctx;

	if (m->state == VM_RUNNING || m->state == VM_PAUSED)
		machine_command(m, OP_CONSOLE_SIZE, (uint64_t)columns << 16 | rows);
}

/* The service's watchdog is fed while the vcpu's process answers: its counters are asked for, by nobody else. */
static void on_watchdog(void *ctx)
{
	struct machine *m = ctx;
	bool live = m->state == VM_RUNNING || m->state == VM_PAUSED;

	if (m->heard || !live)
		notify_say(&m->manager, "WATCHDOG=1");
	m->heard = false;
	if (live)
		machine_send(m, &m->child[PROC_VCPU], MSG_VCPU_STATS_GET, 0, NULL, 0);
	ipc_timer_set(m->watchdog, m->manager.watchdog_ms / 3 + 1);
}

static int watch_signals(struct machine *m)
{
	static const struct {
		int sig;
		void (*cb)(void *);
	} s[] = {{SIGCHLD, on_sigchld}, {SIGTERM, on_signal},  {SIGINT, on_signal}, {SIGHUP, on_signal},
		 {SIGQUIT, on_signal},  {SIGCONT, on_sigcont}, {SIGWINCH, on_winch}};

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* an error of the write like any other */
	for (size_t i = 0; i < sizeof s / sizeof s[0]; i++) {
		m->sig[i] = ipc_watch_signal(m->loop, s[i].sig, s[i].cb, m);
		if (!m->sig[i])
			return -ENOMEM;
	}
	return 0;
}

/* ---- set-up ---- */

static int open_input(const char *path, const char *what, int *out)
{
	struct stat st;

	*out = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (*out >= 0 && fstat(*out, &st) == 0 && S_ISREG(st.st_mode))
		return 0;
	log_error("%s %s: %s", what, path, *out < 0 ? strerror(errno) : "not a regular file");
	return HVX_EXIT_CONFIG;
}

/* @child: a child will write it, so it must be no terminal. */
static int open_output(const char *path, const char *what, bool child, int *out)
{
	*out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);
	if (*out >= 0 && !(child && isatty(*out)))
		return 0;
	log_error("%s %s: %s", what, path, *out < 0 ? strerror(errno) : "a terminal; it must be a file");
	return HVX_EXIT_CONFIG;
}

/* Nobody has said that this name may be written, in a directory that may be everybody's: only a plain file of ours
 * with no other name is. */
static int open_trace(struct machine *m)
{
	char path[MSG_NAME_MAX + 16];
	struct stat st;

	snprintf(path, sizeof path, "hvx-%s.trace", m->cfg.name);
	m->trace_fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0600);
	if (m->trace_fd < 0)
		log_error("trace file %s: %s", path, errno == ELOOP ? "a symbolic link" : strerror(errno));
	else if (fstat(m->trace_fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
		log_error("trace file %s: it is there and is not a plain file of this user", path);
	else if (ftruncate(m->trace_fd, 0) == 0)
		return 0;
	else
		log_error("trace file %s: %s", path, strerror(errno));
	log_error("name another place with --trace-file");
	return HVX_EXIT_CONFIG;
}

/* The log is what was asked for; else the system's, where messages would only disturb: on the terminal that the guest
 * has, or when there is nobody to read them.  A redirected standard error is a log by itself. */
static int open_log(struct machine *m)
{
	if (m->cfg.log[0]) {
		m->log_fd = open(m->cfg.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
		if (m->log_fd < 0) {
			log_error("log %s: %s", m->cfg.log, strerror(errno));
			return HVX_EXIT_CONFIG;
		}
		log_to_file(m->log_fd);
	} else if (m->notify_fd >= 0 || (isatty(2) && !m->debug)) {
		log_to_syslog();
	}
	return 0;
}

/* Every file the VM needs, by name, before any child exists. */
static int open_files(struct machine *m)
{
	char err[CONFIG_PATH_MAX + 256];
	int rc = m->cfg.kernel[0] ? open_input(m->cfg.kernel, "kernel", &m->kernel_fd) : 0;

	if (!rc) {
		rc = firmware_open(&m->firmware, &m->cfg, err, sizeof err);
		if (rc)
			log_error("%s", err);
	}
	for (unsigned i = 0; !rc && i < m->cfg.ninitrds; i++)
		rc = open_input(m->cfg.initrd[i].path, "initrd", &m->initrd_fd[i]);
	if (!rc && m->cfg.trace)
		rc = m->cfg.trace_file[0] ? open_output(m->cfg.trace_file, "trace file", true, &m->trace_fd)
					  : open_trace(m);
	if (!rc && m->cfg.debugcon[0] && strcmp(m->cfg.debugcon, "stderr"))
		rc = open_output(m->cfg.debugcon, "debugcon", true, &m->debugcon_fd);
	return rc;
}

/* No child gets a descriptor of our own standard error, which may be the user's terminal, readable too. */
static int relay_debugcon(struct machine *m)
{
	if (strcmp(m->cfg.debugcon, "stderr"))
		return 0;
	int rc = lines_open(&m->debugcon, m->loop, "debugcon", true, &m->debugcon_fd);
	if (rc)
		log_error("debugcon: %s", strerror(-rc));
	return rc ? HVX_EXIT_HOST : 0;
}

static int write_pidfile(const char *path)
{
	char num[16];
	int fd, rc = open_output(path, "pidfile", false, &fd);

	if (rc)
		return rc;
	int n = snprintf(num, sizeof num, "%d\n", (int)getpid());
	if (write(fd, num, (size_t)n) != n) {
		log_error("pidfile %s: %s", path, strerror(errno));
		rc = HVX_EXIT_CONFIG;
	}
	close(fd);
	return rc;
}

static int take_name(struct machine *m)
{
	char err[256];

	if (runtime_open(&m->rt, err, sizeof err)) {
		log_error("%s", err);
		return HVX_EXIT_HOST;
	}
	m->lock_fd = runtime_lock(&m->rt, m->cfg.name);
	if (m->lock_fd == -EEXIST) {
		log_error("a VM named %s is already running", m->cfg.name);
		return HVX_EXIT_CONFIG;
	}
	if (m->lock_fd < 0) {
		log_error("lock in %s: %s", m->rt.dir, strerror(-m->lock_fd));
		return HVX_EXIT_HOST;
	}
	return 0;
}

static int make_loop(struct machine *m)
{
	m->loop = ipc_loop_new();
	if (!m->loop || watch_signals(m))
		return HVX_EXIT_HOST;
	m->end_timer = ipc_watch_timer(m->loop, on_end_timer, m);
	m->drain_timer = ipc_watch_timer(m->loop, on_drain, m);
	m->answer_timer = ipc_watch_timer(m->loop, control_late, m);
	m->watchdog = ipc_watch_timer(m->loop, on_watchdog, m);
	if (!m->end_timer || !m->drain_timer || !m->answer_timer || !m->watchdog || memwatch_timer(m))
		return HVX_EXIT_HOST;
	if (m->manager.watchdog_ms)
		on_watchdog(m);
	return 0;
}

/* No third process is in the balloon's path, nor in that of merging. */
static int make_mem_channel(struct machine *m)
{
	char err[256];
	int sv[2];

	if (!m->cfg.local.balloon && !m->cfg.merge[0])
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0) {
		log_error("channel between hvx-vcpu and hvx-memsvc: %s", strerror(errno));
		return HVX_EXIT_HOST;
	}
	m->mem_end = sv[0];
	m->vcpu_end = sv[1];
	m->grouped = m->cfg.merge[0] && strcmp(m->cfg.merge, "self");
	int rc = m->cfg.merge[0] && !m->grouped ? pool_make(m->cfg.memory, &m->pool_rw, &m->pool_fd, err, sizeof err)
						: 0;
	if (rc)
		log_error("%s", err);
	return rc;
}

static int make_stub_channels(struct machine *m)
{
	int sv[2];

	for (int i = 0; i < MSG_STUBS && m->cfg.direct; i++) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
			log_error("channel between hvx-vcpu and hvx-stub: %s", strerror(errno));
			return HVX_EXIT_HOST;
		}
		m->stub_end[i] = sv[0];
		m->stub_vcpu_end[i] = sv[1];
	}
	return 0;
}

static int start_stubs(struct machine *m)
{
	static const char *const names[MSG_STUBS] = {"stub0", "stub1", "stub2", "stub3"};
	int rc = 0;

	for (int i = 0; i < MSG_STUBS && m->cfg.direct && !rc; i++)
		rc = machine_start_child(m, PROC_STUBS + i, "hvx-stub", names[i], ROLE_STUB);
	return rc;
}

static int admit(struct machine *m)
{
	char err[256];
	int rc = memwatch_admit(m, err, sizeof err);

	if (rc)
		log_error("%s", err);
	return rc;
}

static int join_group(struct machine *m)
{
	const struct mergegroup_wish w = {.group = m->cfg.merge,
					  .vm = m->cfg.name,
					  .ram_size = m->cfg.memory,
					  .strict = m->cfg.strict,
					  .debug = m->debug,
					  .rate = m->cfg.limits.merge,
					  .vcpu = m->mem_end};
	char err[MSG_TEXT_MAX + 128];

	if (!m->grouped)
		return 0;
	int rc = mergegroup_join(&m->rt, &w, &m->group, err, sizeof err);
	if (rc)
		log_error("%s", err);
	close(m->mem_end);
	m->mem_end = -1;
	m->pool_fd = m->group.pool;
	m->group.pool = -1;
	return rc;
}

#define DESCRIPTORS      48 /* of the monitor, its console, clients and the children that every VM has */
#define DESCRIPTORS_CPU  2  /* of a CPU, before they are handed over */
#define DESCRIPTORS_CARD 10 /* of a card, likewise, and its ports */

static int check_host(struct machine *m)
{
	unsigned cards = m->cfg.ndisks + m->cfg.nnets;
	char err[256];

	cause_cgroup_open(&m->cgroup);
	memwatch_open(&m->watch);
	if (cause_check(m->cfg.memory,
			DESCRIPTORS + DESCRIPTORS_CPU * msg_cpus_count(&m->cfg.cpus) + DESCRIPTORS_CARD * cards, err,
			sizeof err) == 0)
		return 0;
	log_error("%s", err);
	return HVX_EXIT_HOST;
}

/* Memory beyond the host's is fine as long as the guest does not use it, but not when describing it takes all there is: that
 * ended after a long silence, in swap or by the kernel's hand. */
static int check_memory(const struct machine *m)
{
	const uint64_t cost = config_memory_cost(m->cfg.memory);
	struct sysinfo host;

	if (sysinfo(&host) < 0 || cost < (uint64_t)host.totalram * host.mem_unit)
		return 0;
	log_error("memory: %lluM takes %lluM of the host for tables alone, which has %lluM in all",
		  (unsigned long long)m->cfg.memory >> 20, (unsigned long long)cost >> 20,
		  (unsigned long long)((uint64_t)host.totalram * host.mem_unit) >> 20);
	return HVX_EXIT_HOST;
}

static int prepare(struct machine *m)
{
	char err[512];
	int rc = open_log(m);

	if (!rc && notify_open(&m->manager)) {
		log_error("NOTIFY_SOCKET is neither a path nor an abstract name");
		rc = HVX_EXIT_CONFIG;
	}

	if (!rc)
		rc = check_memory(m);
	if (!rc)
		rc = take_name(m);
	if (!rc)
		m->past_fd = past_begin(&m->rt, m->cfg.name, &m->past);
	if (!rc)
		rc = bound_start(m);
	if (!rc)
		rc = check_host(m);
	if (!rc)
		rc = open_files(m);
	if (!rc)
		rc = card_open_all(m);
	if (!rc)
		rc = make_mem_channel(m);
	if (!rc)
		rc = make_stub_channels(m);
	if (!rc)
		rc = admit(m);
	if (!rc)
		rc = join_group(m);
	if (!rc)
		rc = make_loop(m);
	if (!rc)
		rc = relay_debugcon(m);
	if (rc)
		return rc;
	m->console = console_new(m->loop, m->cfg.console, m->cfg.console_path, on_quit, m, err, sizeof err);
	if (m->console && m->cfg.second != CONSOLE_DEFAULT)
		m->second = console_new(m->loop, m->cfg.second, m->cfg.second_path, on_quit, m, err, sizeof err);
	if (!m->console || (m->cfg.second != CONSOLE_DEFAULT && !m->second)) {
		log_error("%s", err);
		return HVX_EXIT_CONFIG;
	}
	if (m->second)
		console_on_size(m->second, machine_console_size);
	rc = control_open(m);
	if (rc) {
		log_error("control socket in %s: %s", m->rt.dir, strerror(-rc));
		return HVX_EXIT_HOST;
	}
	return m->cfg.pidfile[0] ? write_pidfile(m->cfg.pidfile) : 0;
}

static void notify(struct machine *m, int status)
{
	unsigned char c = (unsigned char)status;

	if (m->notify_fd < 0)
		return;
	if (write(m->notify_fd, &c, 1) < 0)
		log_debug("nobody waits for the start");
	close(m->notify_fd);
	m->notify_fd = -1;
}

/* `start`: the command that waits returns, and we belong to nobody's terminal any more. */
static void detach(struct machine *m)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_set_fd(-1);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	close(null);
}

static bool any_without_userns(const struct machine *m)
{
	for (int i = 0; i < m->nprocs; i++)
		if (m->proc[i].pid > 0 && !(m->proc[i].ns & SANDBOX_BIT(USERNS)))
			return true;
	return false;
}

/* To signal children that are others to us: root's, where there is no user namespace that we own.  And to leave cgroups. */
static uint64_t kept_caps(const struct machine *m)
{
	return (any_without_userns(m) ? 1ull << CAP_KILL : 0) |
	       (m->bound.group.privilege ? 1ull << CAP_DAC_OVERRIDE : 0);
}

uint64_t machine_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void machine_started(struct machine *m)
{
	m->start_ns = machine_now();
	m->state = VM_RUNNING;
	memwatch_start(m);
	if (m->cfg.console == CONSOLE_PTY)
		log_info("console on %s", console_describe(m->console));
	if (m->cfg.second == CONSOLE_PTY)
		log_info("second console on %s", console_describe(m->second));
	notify_say(&m->manager, "READY=1\nSTATUS=the guest runs");
	if (m->notify_fd >= 0) {
		notify(m, 0);
		detach(m);
	}
	console_start(m->console);
	if (m->second)
		console_start(m->second);
	int rc = seal_monitor(m->cfg.pidfile[0] != '\0', kept_caps(m));
	if (rc) {
		log_msg(m->cfg.strict ? LOG_LVL_ERROR : LOG_LVL_WARN, "cannot seal the monitor: %s", sandbox_error(rc));
		if (m->cfg.strict)
			machine_end(m, HVX_EXIT_HOST);
	}
}

static void cleanup(struct machine *m)
{
	bound_end(m);
	past_end(m->past_fd, &m->past, m->status, m->why[0] ? m->why : log_last_error());
	control_close(m);
	for (int i = 0; i < m->nprocs; i++)
		ipc_conn_free(m->child[i].conn);
	ipc_conn_free(m->keeper);
	console_free(m->console);
	console_free(m->second);
	close_given(m);
	lines_close(&m->debugcon);
	card_free_all(m);
	cause_cgroup_close(&m->cgroup);
	memwatch_close(&m->watch);
	for (size_t i = 0; i < sizeof m->sig / sizeof m->sig[0]; i++)
		ipc_watch_free(m->sig[i]);
	ipc_watch_free(m->end_timer);
	ipc_watch_free(m->drain_timer);
	ipc_watch_free(m->answer_timer);
	ipc_watch_free(m->watchdog);
	notify_close(&m->manager);
	ipc_loop_free(m->loop);
	if (m->lock_fd >= 0) {
		if (m->cfg.pidfile[0])
			unlink(m->cfg.pidfile);
		runtime_remove(&m->rt, m->cfg.name);
		close(m->lock_fd);
	}
}

int machine_run(const struct config *cfg, bool debug, int notify_fd)
{
	struct machine *m = calloc(1, sizeof *m);

	if (!m)
		return HVX_EXIT_HOST;
	m->cfg = *cfg;
	m->seed = (struct seed){{-1, -1, -1}, -1};
	m->debug = debug;
	m->notify_fd = notify_fd;
	m->nprocs = PROC_CARDS;
	group_init(&m->bound.group);
	m->manager.fd = -1;
	memwatch_init(&m->watch);
	m->cgroup.events = m->log_fd = m->lock_fd = m->listen_fd = m->ram_fd = m->control_fd = -1;
	m->firmware.code = m->firmware.nvram = m->firmware.vgarom = m->firmware.netrom = -1;
	m->past_fd = m->kernel_fd = m->trace_fd = m->debugcon_fd = m->mem_end = m->vcpu_end = -1;
	m->pool_rw = m->pool_fd = -1;
	for (unsigned i = 0; i < MSG_STUBS; i++)
		m->stub_end[i] = m->stub_vcpu_end[i] = -1;
	for (unsigned i = 0; i < MSG_MODULES_MAX; i++)
		m->initrd_fd[i] = -1;
	m->status = prepare(m);
	if (!m->status) {
		int rc = m->grouped ? attach_group(m)
				    : machine_start_child(m, PROC_MEMSVC, "hvx-memsvc", "memsvc", ROLE_MEMSVC);
		if (rc || machine_start_child(m, PROC_VCPU, "hvx-vcpu", "vcpu", ROLE_VCPU) || start_stubs(m) ||
		    card_start_all(m))
			machine_end(m, HVX_EXIT_HOST);
		if (m->state != VM_ENDING || !all_reaped(m))
			ipc_loop_run(m->loop);
	}
	int status = m->status;
	cleanup(m);
	notify(m, status);
	free(m);
	return status;
}
