/*
 * What children may say and what it means.  Invariant: a handler trusts nothing but
 * what unpack_x() and the permit table checked; -EPROTO ends the sender.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/text.h"
#include "monitor/machine.h"

int handle_hello(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_hello h;

	if (unpack_hello(f->data, f->len, &h) || h.role != p->role || p->proc->hello)
		return -EPROTO;
	if (h.version != IPC_VERSION) {
		log_error("%s %s speaks protocol %u, this monitor %u: a mixed installation", p->proc->program,
			  h.release, h.version, IPC_VERSION);
		machine_end(m, HVX_EXIT_HOST);
		return 0;
	}
	p->proc->hello = true;
	if (m->state == VM_ENDING)
		return 0; /* another device could not be had meanwhile */
	if (p->role != ROLE_MEMSVC)
		return machine_configure(m);
	const struct msg_mem_config cfg = {.ram_size = m->cfg.memory,
					   .rom_size = m->firmware.rom_size,
					   .channel = m->mem_end >= 0,
					   .merge = m->pool_rw >= 0,
					   .rate = m->cfg.limits.merge};
	int *const fds[] = {&m->mem_end, &m->pool_rw};
	const int given[] = {m->mem_end, m->pool_rw};
	int rc = machine_send(m, p, MSG_MEM_CONFIG, pack_mem_config(&cfg, m->buf, sizeof m->buf), given,
			      cfg.channel + cfg.merge);
	for (int i = 0; i < 2; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	return rc;
}

int handle_failed(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_failed x;
	char why[256];

	if (unpack_failed(f->data, f->len, &x))
		return -EPROTO;
	if (m->state != VM_ENDING)
		log_charge(NULL); /* said once */
	/* it cannot read what limits it */
	bool limit = strstr(x.text, strerror(EAGAIN)) && m->state < VM_RUNNING;
	log_error("%s: %s%s%s", p->proc->name, x.text, limit ? ": " : "",
		  limit ? cause_text(EAGAIN, why, sizeof why) : "");
	machine_end(m, (int)x.status);
	return 0;
}

int handle_sealed(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_sealed s;

	if (unpack_sealed(f->data, f->len, &s) || !p->proc->hello || p->proc->sealed)
		return -EPROTO;
	p->proc->sealed = true;
	p->proc->layers = s.layers;
	if (p->role == ROLE_MEMSVC && m->state == VM_STARTING)
		return machine_send(m, p, MSG_MEM_GET, 0, NULL, 0);
	if (p->role == ROLE_STUB)
		return machine_configure(m); /* the vcpu hears from it only once it is one */
	return 0;
}

/* What we were given must be what we asked for: memfds of that size that cannot change it. */
static bool memfd_ok(int fd, uint64_t size)
{
	const int need = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int seals = fcntl(fd, F_GET_SEALS); /* -1, which has every bit, is no memfd */
	struct stat st;

	return seals >= 0 && (seals & need) == need && fstat(fd, &st) == 0 && (uint64_t)st.st_size == size;
}

int handle_region(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_mem_region r;

	if (unpack_mem_region(f->data, f->len, &r) || !p->proc->sealed || m->region ||
	    r.ram_size != m->cfg.memory + m->firmware.rom_size)
		return -EPROTO;
	if (!memfd_ok(f->fds[0], r.ram_size) || !memfd_ok(f->fds[1], r.control_size))
		return -EPROTO;
	m->ram_fd = f->fds[0];
	m->watch.vm_ram = fcntl(m->ram_fd, F_DUPFD_CLOEXEC, 3); /* to be asked for its size */
	m->control_fd = f->fds[1];
	f->fds[0] = f->fds[1] = -1;
	m->region = true;
	return machine_configure(m);
}

int handle_running(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_vcpu_running r;

	if (unpack_vcpu_running(f->data, f->len, &r) || !p->proc->sealed || r.boots != m->boots + 1)
		return -EPROTO;
	m->boots = r.boots;
	m->windows = r.windows;
	if (m->state == VM_LOADING)
		machine_started(m);
	else if (m->state != VM_ENDING)
		log_debug("the guest restarted");
	return 0;
}

int handle_exit(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_vcpu_exit x;

	(void)p;
	if (unpack_vcpu_exit(f->data, f->len, &x))
		return -EPROTO;
	if (m->state == VM_ENDING)
		return 0;
	switch (x.kind) {
	case EXIT_POWEROFF: machine_end_for(m, HVX_EXIT_OK, "the guest powered off"); break;
	case EXIT_RESET: machine_end_for(m, HVX_EXIT_OK, "the guest restarted"); break;
	case EXIT_TRIPLE_FAULT:
		log_error("the guest crashed: triple fault");
		machine_end(m, HVX_EXIT_CRASHED);
		break;
	case EXIT_DEBUG: machine_end_for(m, (int)x.code, "the exit port"); break;
	default: return -EPROTO;
	}
	return 0;
}

/* An I/O error is told only where on-error=pause was asked for: the request waits for `resume`. */
int handle_dev_event(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_dev_event e;

	if (unpack_dev_event(f->data, f->len, &e))
		return -EPROTO;
	if (m->state == VM_ENDING || p->card->failed)
		return 0;
	if (e.kind == DEV_EVENT_LINK_LOST) {
		if (!p->card->lost[0])
			text_clean(p->card->lost, sizeof p->card->lost, e.text, strlen(e.text));
		char line[MSG_TEXT_MAX + 16];
		snprintf(line, sizeof line, "link lost: %s", e.text);
		log_child(&p->proc->log.from, line);
		return 0;
	}
	if (p->role != ROLE_BLK || !m->cfg.disk[p->card->option].pause_error)
		return -EPROTO;
	p->card->failed = true;
	log_error("%s: %s: the VM pauses; resume tries again", p->card->id, e.text);
	snprintf(m->reason, sizeof m->reason, "%s: %.*s", p->card->id, (int)(sizeof m->reason - MSG_ID_MAX - 3),
		 e.text);
	return m->state == VM_RUNNING || m->state == VM_LOADING ? machine_command(m, OP_PAUSE, 0) : 0;
}

int handle_vcpu_state(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_vcpu_state s;

	(void)p;
	if (unpack_vcpu_state(f->data, f->len, &s))
		return -EPROTO;
	if (m->state == VM_ENDING)
		return 0;
	m->state = s.paused ? VM_PAUSED : VM_RUNNING;
	if (s.reason[0])
		memcpy(m->reason, s.reason, sizeof s.reason);
	notify_say(&m->manager, s.paused ? "STATUS=paused" : "STATUS=the guest runs");
	control_answer(m, s.paused ? REQ_PAUSE : REQ_RESUME, 0, "");
	return 0;
}

static void add_counter(struct msg_counters *c, const char *name, uint64_t v)
{
	if (c->n >= MSG_COUNTERS_MAX)
		return;
	snprintf(c->c[c->n].name, sizeof c->c[0].name, "%.*s", (int)sizeof c->c[0].name - 1, name);
	c->c[c->n++].value = v;
}

int handle_mem_stats(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	struct msg_mem_stats s;

	(void)p;
	if (unpack_mem_stats(f->data, f->len, &s))
		return -EPROTO;
	memwatch_stats(m, &s);
	if (!(m->stats_due & (1ull << PROC_MEMSVC)))
		return 0;
	add_counter(&m->stats, "ram_pages", s.pages_total);
	add_counter(&m->stats, "ram_pages_present", s.pages_present);
	add_counter(&m->stats, "ram_host_bytes", s.host_bytes);
	add_counter(&m->stats, "ram_pages_ballooned", s.pages_ballooned);
	add_counter(&m->stats, "ram_pages_punched", s.pages_punched);
	if (m->cfg.merge[0]) {
		add_counter(&m->stats, "merge.pages_scanned", s.scanned);
		add_counter(&m->stats, "merge.pages_sharing", s.sharing);
		add_counter(&m->stats, "merge.pages_unshared", s.unshared);
		add_counter(&m->stats, "merge.pages_volatile", s.unstable);
		add_counter(&m->stats, "merge.unmerges", s.unmerged);
		add_counter(&m->stats, "merge.group_members", s.members);
		add_counter(&m->stats, "merge.group_shared", s.shared);
		add_counter(&m->stats, "merge.group_sharing", s.group_sharing);
		add_counter(&m->stats, "merge.group_saved_bytes", s.saved_bytes);
	}
	control_stats_part(m, PROC_MEMSVC);
	return 0;
}

int handle_dev_stats(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	static struct msg_counters c; /* large; there is one loop */
	const struct msg_dev_limits *l = &p->card->limits;
	const struct {
		const char *name;
		uint64_t v;
	} limits[] = {{"limit_ops", l->ops},
		      {"limit_ops_burst", l->ops_burst},
		      {"limit_bytes", l->bytes},
		      {"limit_bytes_burst", l->bytes_burst}};
	char name[MSG_ID_MAX + 44];
	int i = (int)(p - m->child);

	if (unpack_dev_stats(f->data, f->len, &c))
		return -EPROTO;
	if (!(m->stats_due & (1ull << i)))
		return 0;
	for (uint32_t k = 0; k < c.n; k++) {
		snprintf(name, sizeof name, "%s.%s", p->card->id, c.c[k].name);
		add_counter(&m->stats, name, c.c[k].value);
	}
	for (size_t k = 0; k < sizeof limits / sizeof limits[0]; k++) {
		snprintf(name, sizeof name, "%s.%s", p->card->id, limits[k].name);
		if (limits[k].v)
			add_counter(&m->stats, name, limits[k].v);
	}
	control_stats_part(m, i);
	return 0;
}

int handle_vcpu_screen(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	static struct msg_screen s; /* large; there is one loop */

	(void)p;
	if (unpack_vcpu_screen(f->data, f->len, &s))
		return -EPROTO;
	control_screen_is(m, &s);
	return 0;
}

int handle_vcpu_stats(struct machine *m, struct peer *p, struct ipc_frame *f)
{
	static struct msg_counters c; /* large; there is one loop */

	(void)p;
	if (unpack_vcpu_stats(f->data, f->len, &c))
		return -EPROTO;
	if (m->watch.asked)
		memwatch_counters(m, &c);
	if (!(m->stats_due & (1ull << PROC_VCPU)))
		return 0;
	for (uint32_t i = 0; i < c.n; i++)
		add_counter(&m->stats, c.c[i].name, c.c[i].value);
	control_stats_part(m, PROC_VCPU);
	return 0;
}
