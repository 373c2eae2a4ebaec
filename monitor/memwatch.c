/*
 * Every two seconds, while the VM has --merge, --balloon=auto, --memory-guarantee or --memory-short=pause: the host's memory is looked at,
 * hvx-memsvc is told when it gets short, a guest that has memory to spare is told to give some, one that needs it gets it back; and
 * when all that was not enough a VM that is to be paused is.
 *
 * Invariant: a guest that needs memory gets it back whatever the host's state is; and it is never told to have less than its
 * guarantee.
 */
#include "monitor/memwatch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "monitor/client.h"
#include "monitor/machine.h"

#define TICK_MS    2000
#define MIB        (1ull << 20)
#define LEAST      (64 * MIB) /* that a guest is told to have without a guarantee */
#define OUTS       3          /* looks: time for balloons and merging to help */
#define SCORE_OVER 500        /* oom_score_adj of the vcpu's process: over the guarantee, */
#define SCORE_NONE 250        /* without one; with one and within it: as it was */

/* ---- decisions ---- */

static bool below(uint64_t part, uint64_t all, unsigned percent)
{
	return part != UINT64_MAX && all != UINT64_MAX && part < all / 100 * percent;
}

static bool above(uint64_t part, uint64_t all, unsigned percent)
{
	return part != UINT64_MAX && all != UINT64_MAX && part > all / 100 * percent;
}

static bool stalled(const struct memwatch_host *h, uint64_t hundredths)
{
	return h->stalled != UINT64_MAX && h->stalled >= hundredths;
}

/* Short, until it is clearly so no more; easy, where there is plenty. */
enum memwatch_level memwatch_judge(const struct memwatch_host *h, enum memwatch_level was)
{
	if (stalled(h, 500) || below(h->available, h->total, 8) || above(h->used, h->limit, 92))
		return MEMWATCH_SHORT;
	bool near = stalled(h, 100) || below(h->available, h->total, 12) || above(h->used, h->limit, 85);
	if (near)
		return was == MEMWATCH_SHORT ? MEMWATCH_SHORT : MEMWATCH_NORMAL;
	return below(h->available, h->total, 25) || above(h->used, h->limit, 70) ? MEMWATCH_NORMAL : MEMWATCH_EASY;
}

bool memwatch_out(const struct memwatch_host *h, bool was)
{
	if (stalled(h, 4000) || below(h->available, h->total, 3) || above(h->used, h->limit, 98))
		return true;
	return was && memwatch_judge(h, MEMWATCH_SHORT) == MEMWATCH_SHORT;
}

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t more(const struct memwatch_guest *g, uint64_t by)
{
	uint64_t top = least_of(g->nominal, g->ceiling);

	return by < top && g->target < top - by ? g->target + by : top;
}

static uint64_t less(const struct memwatch_guest *g, uint64_t by)
{
	uint64_t floor = g->floor > LEAST ? g->floor : LEAST;

	if (g->target <= floor || by >= g->target - floor)
		return g->target < floor ? g->target : floor;
	return g->target - by;
}

/*
 * A sixteenth of what it has, and 32 MiB at least, are the guest's to work with.  Half of what it has beyond that is asked for, a
 * sixteenth of its memory at once, when it has given what it was asked for before; when it is down to half of that, or swaps, it gets an eighth of its memory back.
 */
uint64_t memwatch_target(const struct memwatch_guest *g, enum memwatch_level level)
{
	const uint64_t page = ~4095ull;
	uint64_t reserve = g->target / 16 > 32 * MIB ? g->target / 16 : 32 * MIB;

	if (g->available == UINT64_MAX)
		return g->target;
	if (g->swaps || g->available < reserve / 2)
		return more(g, g->nominal / 8 > LEAST ? g->nominal / 8 : LEAST) & page;
	if (level == MEMWATCH_SHORT && g->actual <= g->target + 16 * MIB && g->available > reserve + 16 * MIB)
		return less(g,
			    least_of((g->available - reserve) / 2, g->nominal / 16 > LEAST ? g->nominal / 16 : LEAST)) &
		       page;
	return level == MEMWATCH_EASY ? more(g, g->nominal / 32 > 16 * MIB ? g->nominal / 32 : 16 * MIB) & page
				      : g->target;
}

/* ---- the host ---- */

static ssize_t look(int fd, char *buf, size_t len)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, buf, len - 1, 0);

	buf[n > 0 ? n : 0] = '\0';
	return n;
}

/* "some avg10=1.23 ..." */
static uint64_t stalls(int fd)
{
	char text[256];
	double avg;

	look(fd, text, sizeof text);
	return sscanf(text, "some avg10=%lf", &avg) == 1 ? (uint64_t)(avg * 100) : UINT64_MAX;
}

static uint64_t kib(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	return p ? strtoull(p + strlen(key), NULL, 10) * 1024 : UINT64_MAX;
}

/* What the cgroup uses, but for what would be given up for the asking. */
static uint64_t used(const struct memwatch *w)
{
	char text[8192];

	if (look(w->usage, text, sizeof text) <= 0)
		return UINT64_MAX;
	uint64_t all = strtoull(text, NULL, 10), idle = 0;
	look(w->stat, text, sizeof text);
	const char *p = strstr(text, "total_inactive_file "); /* v1: with those of cgroups below */
	if (!p)
		p = strstr(text, "inactive_file ");
	if (p)
		idle = strtoull(strchr(p, ' '), NULL, 10);
	return idle < all ? all - idle : 0;
}

static void look_at_host(const struct memwatch *w, struct memwatch_host *h)
{
	char text[4096];

	h->stalled = stalls(w->psi);
	look(w->meminfo, text, sizeof text);
	h->total = kib(text, "MemTotal:");
	h->available = kib(text, "MemAvailable:");
	h->limit = w->limit;
	h->used = used(w);
}

void memwatch_init(struct memwatch *w)
{
	*w = (struct memwatch){
		.psi = -1, .meminfo = -1, .usage = -1, .stat = -1, .vm_ram = -1, .oom = -1, .limit = UINT64_MAX};
	w->level = MEMWATCH_NORMAL;
}

void memwatch_open(struct memwatch *w)
{
	w->psi = open("/proc/pressure/memory", O_RDONLY | O_CLOEXEC);
	w->meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	w->usage = cause_cgroup_usage(&w->limit, &w->stat);
}

void memwatch_close(struct memwatch *w)
{
	int *const fds[] = {&w->psi, &w->meminfo, &w->usage, &w->stat, &w->vm_ram, &w->oom};

	ipc_watch_free(w->tick);
	w->tick = NULL;
	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

/* ---- the kernel's OOM killer ---- */

static void score(const struct memwatch *w, int adj)
{
	char text[16];
	int n = snprintf(text, sizeof text, "%d", adj);

	if (w->oom >= 0 && write(w->oom, text, (size_t)n) < 0)
		log_debug("oom_score_adj: %s", strerror(errno));
}

/* Opened while the process is still ours to look into. */
void memwatch_vcpu(struct machine *m, pid_t pid)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
	m->watch.oom = open(path, O_WRONLY | O_CLOEXEC);
	if (!m->cfg.guarantee)
		score(&m->watch, SCORE_NONE);
}

static void aim(struct machine *m)
{
	uint64_t there = memwatch_resident(m);
	bool over = m->cfg.guarantee && there > m->cfg.guarantee;

	if (over == m->watch.over)
		return;
	m->watch.over = over;
	score(&m->watch, over ? SCORE_OVER : 0);
}

/* ---- pausing ---- */

#define REASON "the host is out of memory"

/* A VM within its guarantee goes on: the host promised it that much. */
static bool may_be_held(const struct machine *m)
{
	return m->cfg.pause_short && m->state == VM_RUNNING &&
	       (!m->cfg.guarantee || memwatch_resident(m) > m->cfg.guarantee);
}

/* What it was paused for besides stays: a disk's error. */
static void let_go(struct machine *m)
{
	bool ours = !strcmp(m->reason, REASON);

	m->watch.hold = MEMWATCH_FREE;
	if (!ours || m->state != VM_PAUSED)
		return;
	log_info("the host has memory again: the VM goes on");
	m->reason[0] = '\0';
	machine_command(m, OP_RESUME, 0);
}

static void hold(struct machine *m, const struct memwatch_host *h)
{
	struct memwatch *w = &m->watch;

	w->outs = memwatch_out(h, w->outs) ? w->outs + 1 : 0;
	if (!w->outs && w->hold != MEMWATCH_FREE) {
		let_go(m);
	} else if (w->outs >= OUTS && w->hold == MEMWATCH_FREE && may_be_held(m)) {
		w->hold = MEMWATCH_HELD;
		log_warn(REASON ": the VM pauses until it has some");
		snprintf(m->reason, sizeof m->reason, REASON);
		machine_command(m, OP_PAUSE, 0);
	}
}

void memwatch_command(struct machine *m)
{
	if (m->watch.hold != MEMWATCH_HELD)
		return;
	m->watch.hold = MEMWATCH_LEFT;
	m->reason[0] = '\0';
}

/* ---- the VM ---- */

uint64_t memwatch_resident(const struct machine *m)
{
	struct stat st;

	return m->watch.vm_ram >= 0 && fstat(m->watch.vm_ram, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

uint64_t memwatch_shared(const struct machine *m)
{
	return m->watch.mem.sharing * 4096;
}

static void tell_memsvc(struct machine *m, bool is_short)
{
	const struct msg_mem_tune t = {.pressure = is_short ? MEM_PRESSURE_SHORT : MEM_PRESSURE_OVER};

	if (m->cfg.merge[0])
		machine_send(m, &m->child[PROC_MEMSVC], MSG_MEM_TUNE, pack_mem_tune(&t, m->buf, sizeof m->buf), NULL,
			     0);
}

static void on_tick(void *ctx)
{
	struct machine *m = ctx;
	struct memwatch *w = &m->watch;
	struct memwatch_host h;

	ipc_timer_set(w->tick, TICK_MS);
	if (m->state != VM_RUNNING && m->state != VM_PAUSED)
		return;
	look_at_host(w, &h);
	enum memwatch_level level = memwatch_judge(&h, w->level);
	if ((level == MEMWATCH_SHORT) != (w->level == MEMWATCH_SHORT))
		tell_memsvc(m, level == MEMWATCH_SHORT);
	w->level = level;
	aim(m);
	hold(m, &h);
	if (m->cfg.merge[0])
		machine_send(m, &m->child[PROC_MEMSVC], MSG_MEM_STATS_GET, 0, NULL, 0);
	if (m->cfg.balloon_auto && !w->asked && m->state == VM_RUNNING) {
		w->asked = true;
		machine_send(m, &m->child[PROC_VCPU], MSG_VCPU_STATS_GET, 0, NULL, 0);
	}
}

int memwatch_timer(struct machine *m)
{
	m->watch.tick = ipc_watch_timer(m->loop, on_tick, m);
	return m->watch.tick ? 0 : -ENOMEM;
}

void memwatch_start(struct machine *m)
{
	struct memwatch *w = &m->watch;

	w->target = w->ceiling = m->cfg.memory;
	if (m->cfg.merge[0] || m->cfg.balloon_auto || m->cfg.guarantee || m->cfg.pause_short)
		ipc_timer_set(w->tick, TICK_MS);
}

static uint64_t counter(const struct msg_counters *c, const char *name)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (!strcmp(c->c[i].name, name))
			return c->c[i].value;
	return UINT64_MAX;
}

void memwatch_counters(struct machine *m, const struct msg_counters *c)
{
	struct memwatch *w = &m->watch;
	uint64_t in = counter(c, "balloon.guest_swap_in"), out = counter(c, "balloon.guest_swap_out");
	struct memwatch_guest g = {.nominal = m->cfg.memory,
				   .floor = m->cfg.guarantee,
				   .ceiling = w->ceiling,
				   .target = w->target,
				   .actual = counter(c, "balloon.actual_bytes"),
				   .available = counter(c, "balloon.guest_available")};

	w->asked = false;
	uint64_t swapped = (in == UINT64_MAX ? 0 : in) + (out == UINT64_MAX ? 0 : out);
	g.swaps = swapped > w->swapped;
	w->swapped = swapped;
	uint64_t target = memwatch_target(&g, w->level);
	if (target == w->target || m->state != VM_RUNNING)
		return;
	w->target = target;
	machine_command(m, OP_BALLOON, target);
}

void memwatch_stats(struct machine *m, const struct msg_mem_stats *s)
{
	m->watch.mem = *s;
}

void memwatch_balloon(struct machine *m, uint64_t bytes)
{
	m->watch.target = m->watch.ceiling = bytes;
}

/* ---- may it start? ---- */

int memwatch_admit(struct machine *m, char *err, size_t len)
{
	struct sysinfo s;
	uint64_t host = m->watch.limit, promised = client_guarantees(&m->rt, m->cfg.name);

	if (!m->cfg.guarantee)
		return 0;
	if (sysinfo(&s) == 0)
		host = least_of(host, (uint64_t)s.totalram * s.mem_unit);
	host -= host / 16; /* the rest of the host lives, too */
	if (m->cfg.guarantee <= host && promised <= host - m->cfg.guarantee)
		return 0;
	snprintf(
		err, len,
		"memory-guarantee: %lluM cannot be had: of the host's memory %lluM can be guaranteed, and %lluM are, to other VMs",
		(unsigned long long)m->cfg.guarantee >> 20, (unsigned long long)host >> 20,
		(unsigned long long)promised >> 20);
	return HVX_EXIT_HOST;
}
