/*
 * A VM's limits, put in force and changed.  Cgroups keep them where they can be had.  Else the vcpu's threads keep the CPU
 * limit, a nice value stands for the weight, and rlimits keep the memory, if they are small enough together; the disks'
 * processes keep I/O in any case.
 * Invariant: a limit that nothing keeps is refused.
 */
#include "monitor/bound.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/text.h"
#include "monitor/limits.h"
#include "monitor/machine.h"
#include "monitor/procinfo.h"
#include "proto/shm.h"

#define CHARGE_MS 100
#define CHARGE_NS 200000 /* less is told with the next */

/* What processes may have of their own where rlimits keep the memory. */
#define DATA_VCPU     (256ull << 20)
#define DATA_VCPU_CPU (64ull << 20)
#define DATA_BLK      (64ull << 20)
#define DATA_TOOL     (256ull << 20) /* passt, qemu-nbd */
#define DATA_OTHER    (32ull << 20)
#define CODE_CACHE    (64ull << 20)

static const struct {
	enum msg_vm_limit limit;
	enum group_knob knob;
	const char *key, *unit;
} kinds[] = {
	{VM_LIMIT_CPU, GROUP_CPU, "cpu-limit", "percent"},
	{VM_LIMIT_WEIGHT, GROUP_WEIGHT, "cpu-weight", "weight"},
	{VM_LIMIT_MEMORY, GROUP_MEMORY, "memory-limit", "bytes"},
	{VM_LIMIT_PIDS, GROUP_PIDS, "pids", "count"},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static uint64_t value_of(const struct msg_vm_limits *l, enum msg_vm_limit which)
{
	switch (which) {
	case VM_LIMIT_CPU: return l->cpu;
	case VM_LIMIT_WEIGHT: return l->weight;
	case VM_LIMIT_MEMORY: return l->memory;
	default: return l->pids;
	}
}

/* ---- at the start ---- */

uint64_t bound_data(const struct machine *m, enum msg_role role)
{
	if (!m->bound.rlimits)
		return 0;
	switch (role) {
	case ROLE_VCPU: return DATA_VCPU + msg_cpus_count(&m->cfg.cpus) * DATA_VCPU_CPU;
	case ROLE_BLK: return DATA_BLK;
	case ROLE_CLIENT: return DATA_TOOL;
	default: return DATA_OTHER;
	}
}

/* All that the VM's processes can have: its RAM and the tables beside it, translated code, and each one's data. */
static uint64_t most_memory(const struct machine *m)
{
	uint64_t n = m->cfg.memory + shm_layout(m->cfg.memory).total + CODE_CACHE;

	n += 2 * DATA_OTHER /* monitor, memsvc */ + bound_data(m, ROLE_VCPU);
	for (unsigned i = 0; i < m->cfg.ndisks; i++)
		n += DATA_BLK + (m->cfg.disk[i].format == FORMAT_RAW ? 0 : DATA_TOOL);
	for (unsigned i = 0; i < m->cfg.nnets; i++)
		n += DATA_OTHER + (m->cfg.net[i].backend == NET_PASST ? DATA_TOOL : 0);
	return n;
}

static int keep_memory(struct machine *m)
{
	const uint64_t limit = m->cfg.limits.memory;

	m->bound.rlimits = true;
	const uint64_t most = most_memory(m);
	if (limit >= most)
		return 0;
	log_error("memory-limit: no cgroup can be had here (%s), and without one this VM needs %lluM", m->bound.why,
		  (unsigned long long)(most + (1 << 20) - 1) >> 20);
	return HVX_EXIT_HOST;
}

static int keep_weight(struct machine *m)
{
	int n = limits_nice(m->cfg.limits.weight);

	errno = 0;
	int was = getpriority(PRIO_PROCESS, 0);
	if (setpriority(PRIO_PROCESS, 0, was + n) == 0)
		return 0;
	log_error("cpu-weight: no cgroup can be had here (%s), and nice %d, which stands for %u, is refused: %s",
		  m->bound.why, was + n, m->cfg.limits.weight, strerror(errno));
	return HVX_EXIT_HOST;
}

/* A limit that no group keeps. */
static int keep_otherwise(struct machine *m, enum msg_vm_limit which)
{
	switch (which) {
	case VM_LIMIT_CPU: m->bound.vcpu = true; return 0;
	case VM_LIMIT_WEIGHT: return keep_weight(m);
	case VM_LIMIT_MEMORY: return keep_memory(m);
	default:
		log_error("pids: it takes a cgroup, and none can be had here (%s)", m->bound.why);
		return HVX_EXIT_HOST;
	}
}

static int keep(struct machine *m, unsigned i)
{
	const uint64_t value = value_of(&m->cfg.limits, kinds[i].limit);

	if (!(m->bound.kept & GROUP_BIT(kinds[i].knob)))
		return value ? keep_otherwise(m, kinds[i].limit) : 0;
	int rc = group_set(&m->bound.group, kinds[i].knob, value);
	if (rc)
		log_error("%s: %s", kinds[i].key, strerror(-rc));
	return rc ? HVX_EXIT_HOST : 0;
}

static int enter(struct machine *m)
{
	struct bound *b = &m->bound;
	char leaf[MSG_NAME_MAX + 32], record[PATH_MAX];
	unsigned want = 0;

	for (unsigned i = 0; i < KINDS; i++)
		if (m->cfg.limits.given & kinds[i].limit)
			want |= GROUP_BIT(kinds[i].knob);
	runtime_path(&m->rt, m->cfg.name, ".groups", record, sizeof record);
	group_sweep(record); /* a killed monitor's */
	if (!want)
		return 0;
	snprintf(leaf, sizeof leaf, "hvx-%u-%s", (unsigned)geteuid(), m->cfg.name);
	b->kept = group_enter_here(&b->group, leaf, record, want, b->why, sizeof b->why);
	int rc = 0;
	for (unsigned i = 0; i < KINDS && !rc; i++)
		if (m->cfg.limits.given & kinds[i].limit)
			rc = keep(m, i);
	return rc;
}

int bound_start(struct machine *m)
{
	int rc = m->cfg.affine ? limits_bind(&m->cfg.affinity) : 0;

	if (rc) {
		log_error("cpu-affinity: %s",
			  rc == -EINVAL ? "this process may use none of these CPUs" : strerror(-rc));
		return HVX_EXIT_HOST;
	}
	return enter(m);
}

/* ---- the CPU limit, where the vcpu keeps it ---- */

static void on_charge(void *ctx)
{
	struct machine *m = ctx;
	struct bound *b = &m->bound;
	uint64_t sum = procinfo_cpu(getpid());

	for (int i = 0; i < m->nprocs; i++)
		if (i != PROC_VCPU)
			sum += procinfo_cpu(m->proc[i].pid);
	if (sum < b->charged_ns) /* one of them is gone */
		b->charged_ns = sum;
	if (sum - b->charged_ns >= CHARGE_NS) {
		machine_command(m, OP_CPU_CHARGE, sum - b->charged_ns);
		b->charged_ns = sum;
	}
	if (b->vcpu && m->state != VM_ENDING)
		ipc_timer_set(b->timer, CHARGE_MS);
}

/* Once it keeps a limit it goes on doing so, if only of 0. */
int bound_vcpu(struct machine *m)
{
	struct bound *b = &m->bound;

	if (!b->vcpu)
		return 0;
	if (!b->timer)
		b->timer = ipc_watch_timer(m->loop, on_charge, m);
	if (!b->timer)
		return -ENOMEM;
	int rc = machine_command(m, OP_CPU_LIMIT, m->cfg.limits.cpu);
	if (!rc)
		on_charge(m);
	return rc;
}

/* ---- I/O ---- */

static bool has_own(const struct msg_dev_limits *l)
{
	return l->ops || l->bytes;
}

const struct msg_dev_limits *bound_disk(const struct machine *m, unsigned disk, struct msg_dev_limits *part)
{
	unsigned n = 0;

	if (has_own(&m->cfg.disk[disk].limits))
		return &m->cfg.disk[disk].limits;
	for (unsigned i = 0; i < m->cfg.ndisks; i++)
		n += !has_own(&m->cfg.disk[i].limits);
	*part = limits_part(&m->cfg.limits.io, n);
	return part;
}

static int change_io(struct machine *m)
{
	struct msg_dev_limits part;
	int rc = 0;

	for (int i = 0; i < m->ncards && !rc; i++) {
		struct card *c = &m->card[i];
		if (c->role != ROLE_BLK || has_own(&m->cfg.disk[c->option].limits))
			continue;
		c->limits = *bound_disk(m, (unsigned)c->option, &part);
		rc = machine_send(m, &m->child[PROC_CARDS + i], MSG_DEV_LIMITS,
				  pack_dev_limits(&c->limits, m->buf, sizeof m->buf), NULL, 0);
	}
	return rc;
}

/* ---- while it runs ---- */

/* Is there somebody to keep it? */
static int may_change(const struct machine *m, unsigned i, char *err, size_t len)
{
	if (m->bound.kept & GROUP_BIT(kinds[i].knob) || kinds[i].limit == VM_LIMIT_CPU)
		return 0;
	snprintf(err, len, "%s: the VM is in no cgroup that could keep it; a start with --%s=none puts it into one",
		 kinds[i].key, kinds[i].key);
	if (m->bound.why[0])
		snprintf(err, len, "%s: no cgroup can be had here (%s)", kinds[i].key, m->bound.why);
	return -ENODEV;
}

static int change(struct machine *m, unsigned i, const struct msg_vm_limits *to, char *err, size_t len)
{
	struct bound *b = &m->bound;
	int rc;

	if (b->kept & GROUP_BIT(kinds[i].knob)) {
		rc = group_set(&b->group, kinds[i].knob, value_of(to, kinds[i].limit));
	} else {
		b->vcpu = true;
		m->cfg.limits.cpu = to->cpu;
		rc = bound_vcpu(m);
	}
	if (rc)
		snprintf(err, len, "%s: %s%s", kinds[i].key, strerror(-rc),
			 rc == -EBUSY ? ": the VM uses more than that" : "");
	return rc;
}

int bound_change(struct machine *m, const struct msg_vm_limits *to, char *err, size_t len)
{
	int rc = 0;

	for (unsigned i = 0; i < KINDS && !rc; i++)
		if (to->given & kinds[i].limit)
			rc = may_change(m, i, err, len);
	for (unsigned i = 0; i < KINDS && !rc; i++) {
		if (!(to->given & kinds[i].limit))
			continue;
		rc = change(m, i, to, err, len);
		struct msg_vm_limits done = *to;
		done.given = kinds[i].limit;
		if (!rc)
			limits_change(&m->cfg.limits, &done);
	}
	if (rc || !(to->given & VM_LIMIT_IO))
		return rc;
	m->cfg.limits.io = to->io;
	rc = change_io(m);
	if (rc)
		snprintf(err, len, "io-limit: %s", strerror(-rc));
	return rc;
}

/* ---- what is told ---- */

static const char *keeper(const struct machine *m, unsigned i)
{
	if (m->bound.kept & GROUP_BIT(kinds[i].knob))
		return m->bound.group.version[kinds[i].knob] == 2 ? "cgroup v2" : "cgroup v1";
	switch (kinds[i].limit) {
	case VM_LIMIT_CPU: return "vcpu threads";
	case VM_LIMIT_WEIGHT: return "nice";
	default: return "rlimits";
	}
}

static void tell(struct msg_status *s, const char *name, uint64_t value, const char *unit, const char *who)
{
	struct msg_limit_info *l = &s->limit[s->nlimits];

	if (!value || s->nlimits == MSG_LIMITS_MAX)
		return;
	snprintf(l->name, sizeof l->name, "%s", name);
	snprintf(l->unit, sizeof l->unit, "%s", unit);
	snprintf(l->keeper, sizeof l->keeper, "%s", who);
	l->value = value;
	s->nlimits++;
}

void bound_status(const struct machine *m, struct msg_status *s)
{
	const struct msg_vm_limits *l = &m->cfg.limits;

	for (unsigned i = 0; i < KINDS; i++)
		tell(s, kinds[i].key, value_of(l, kinds[i].limit), kinds[i].unit, keeper(m, i));
	tell(s, "io-limit-ops", l->io.ops, "requests/s", "disks");
	tell(s, "io-limit-bytes", l->io.bytes, "bytes/s", "disks");
	for (unsigned i = 0, n = 0; i < m->bound.group.ndirs && n < sizeof s->cgroup - 1; i++)
		n += (unsigned)snprintf(s->cgroup + n, sizeof s->cgroup - n, "%s%s", n ? " " : "",
					m->bound.group.dir[i].path);
	if (!text_is_clean(s->cgroup))
		snprintf(s->cgroup, sizeof s->cgroup, "?");
}

void bound_end(struct machine *m)
{
	ipc_watch_free(m->bound.timer);
	m->bound.timer = NULL;
	group_leave(&m->bound.group);
}
